//! Certificates with their keys, and which of them a server shows.

use std::{cell::RefCell, fmt, fs, io, path::Path, sync::Arc};

use rustls::{
    RootCertStore,
    crypto::ring::sign::any_supported_type,
    pki_types::{
        CertificateDer, PrivateKeyDer,
        pem::{self, PemObject as _},
    },
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};
use thiserror::Error;

/// A certificate with those that lead to its root, and its key. Cheap to clone.
#[derive(Clone)]
pub struct Identity(Arc<CertifiedKey>);

impl Identity {
    /// Reads PEM: the chain begins with the certificate itself, and `key` is its key in PKCS#8, PKCS#1 or SEC1.
    ///
    /// # Errors
    /// If either is missing or cannot be used, or they do not belong together.
    pub fn from_pem(chain: &[u8], key: &[u8]) -> Result<Self, TlsConfigError> {
        let chain = CertificateDer::pem_slice_iter(chain).collect::<Result<Vec<_>, _>>();
        let chain = chain.map_err(|error| TlsConfigError::Pem(error.to_string()))?;
        if chain.is_empty() {
            return Err(TlsConfigError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| match error {
            pem::Error::NoItemsFound => TlsConfigError::NoKey,
            error => TlsConfigError::Pem(error.to_string()),
        })?;
        let key = any_supported_type(&key).map_err(|error| TlsConfigError::Key(error.to_string()))?;
        let certified = CertifiedKey::new(chain, key);
        certified.keys_match().map_err(|error| TlsConfigError::Key(error.to_string()))?;
        Ok(Self(Arc::new(certified)))
    }

    /// The same from two files.
    ///
    /// # Errors
    /// Also if they cannot be read.
    pub fn from_files(chain: impl AsRef<Path>, key: impl AsRef<Path>) -> Result<Self, TlsConfigError> {
        let read = |path: &Path| {
            fs::read(path).map_err(|source| TlsConfigError::File { path: path.display().to_string(), source })
        };
        Self::from_pem(&read(chain.as_ref())?, &read(key.as_ref())?)
    }

    pub(super) fn into_certified(self) -> CertifiedKey {
        Arc::unwrap_or_clone(self.0)
    }
}

/// Without certificate and key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").finish_non_exhaustive()
    }
}

/// Which certificate a server shows to whom.
pub struct Identities(Choice);

enum Choice {
    One(Identity),
    ByName(ByName),
}

type ByName = Box<dyn Fn(Option<&str>) -> Option<Identity> + Send + Sync>;

impl Identities {
    /// Asks `choose` for the certificate of a name: the one that the client asks for (SNI), in lower case, or `None` if it asks for
    /// none. Called on the loop's thread during the handshake, so it must not wait. If there is none, the handshake fails with
    /// [`TlsError::NoIdentity`](crate::error::TlsError::NoIdentity).
    pub fn by_name(choose: impl Fn(Option<&str>) -> Option<Identity> + Send + Sync + 'static) -> Self {
        Self(Choice::ByName(Box::new(choose)))
    }
}

impl From<Identity> for Identities {
    fn from(identity: Identity) -> Self {
        Self(Choice::One(identity))
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        match &self.0 {
            Choice::One(identity) => Some(Arc::clone(&identity.0)),
            Choice::ByName(choose) => choose(hello.server_name()).map(|identity| identity.0),
        }
    }
}

impl fmt::Debug for Identities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identities").finish_non_exhaustive()
    }
}

/// Resolves as the one inside, and notes the name that was asked for: a connection does not say it once its handshake is complete.
#[derive(Debug)]
pub(super) struct Resolver(pub(super) Arc<dyn ResolvesServerCert>);

thread_local! {
    static ASKED: RefCell<Option<Box<str>>> = const { RefCell::new(None) };
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        ASKED.set(hello.server_name().map(Into::into));
        self.0.resolve(hello)
    }

    fn only_raw_public_keys(&self) -> bool {
        self.0.only_raw_public_keys()
    }
}

/// The name that the handshake has asked for which this thread was just at.
pub(crate) fn take_asked_name() -> Option<Box<str>> {
    ASKED.take()
}

pub(super) fn roots_of(pem: &[u8]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.map_err(|error| TlsConfigError::Pem(error.to_string()))?;
        roots.add(certificate).map_err(|error| TlsConfigError::Roots(error.to_string()))?;
    }
    if roots.is_empty() { Err(TlsConfigError::NoCertificate) } else { Ok(roots) }
}

/// Why certificates or keys cannot be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which one.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// It is no PEM.
    #[error("not in PEM: {0}")]
    Pem(String),
    /// There is no certificate in it.
    #[error("there is no certificate in it")]
    NoCertificate,
    /// There is no private key in it.
    #[error("there is no private key in it")]
    NoKey,
    /// The key is of no use here, or belongs to another certificate.
    #[error("the key cannot be used: {0}")]
    Key(String),
    /// A certificate cannot be a root.
    #[error("not a root certificate: {0}")]
    Roots(String),
}
