//! The settings of TLS, and what a handshake has agreed on. No byte is encrypted here, and keys are shown to nobody.

mod identity;

use std::{
    fmt,
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use rustls::{
    RootCertStore, client::danger::ServerCertVerifier, crypto::ring, pki_types::CertificateDer,
    server::WebPkiClientVerifier, sign::SingleCertAndKey,
};

pub(crate) use self::identity::take_asked_name;
pub use self::identity::{Identities, Identity, TlsConfigError};
use self::identity::{Resolver, roots_of};

/// What a WebSocket speaks before its upgrade (RFC 7301).
const ALPN: &[u8] = b"http/1.1";

/// The TLS of a server: its certificates, and whether clients need some. Clones share it, so one that is kept can replace the
/// certificates of a server that runs.
///
/// TLS 1.2 and 1.3, ALPN `http/1.1`, no early data. Sessions are resumed by tickets, of which the server keeps nothing. Cheap to clone.
///
/// ```no_run
/// use adjourn::{Config, Server, tls::{Identity, ServerTls}};
///
/// let tls = ServerTls::new(Identity::from_files("chain.pem", "key.pem")?);
/// let mut config = Config::default();
/// config.listener.tls = Some(tls.clone());
/// let mut server = Server::bind("0.0.0.0:443", config)?;
/// std::thread::spawn(move || -> Result<(), adjourn::tls::TlsConfigError> {
///     // ... when the certificate was renewed:
///     tls.replace(&ServerTls::new(Identity::from_files("chain.pem", "key.pem")?));
///     Ok(())
/// });
/// server.run(|_, _| {})?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct ServerTls(Arc<RwLock<Arc<rustls::ServerConfig>>>);

impl ServerTls {
    /// A server with these certificates, for clients without any. An [`Identity`] is for all names;
    /// [`Identities::by_name`] chooses one by the name that a client asks for.
    ///
    /// # Panics
    /// If the system has no entropy.
    pub fn new(identities: impl Into<Identities>) -> Self {
        let builder = server_builder().with_no_client_auth();
        Self::from_rustls(builder.with_cert_resolver(Arc::new(identities.into())))
    }

    /// The same, and clients have to show a certificate that one of `roots` (PEM) has signed, or may show one, if not
    /// `required`. What they showed is in [`UpgradeRequest::tls`](crate::http::UpgradeRequest::tls).
    ///
    /// # Errors
    /// If `roots` holds no certificate that can be a root.
    ///
    /// # Panics
    /// If the system has no entropy.
    pub fn with_client_certificates(
        identities: impl Into<Identities>,
        roots: &[u8],
        required: bool,
    ) -> Result<Self, TlsConfigError> {
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots_of(roots)?), provider);
        let verifier = if required { verifier } else { verifier.allow_unauthenticated() };
        let verifier = verifier.build().map_err(|error| TlsConfigError::Roots(error.to_string()))?;
        let builder = server_builder().with_client_cert_verifier(verifier);
        Ok(Self::from_rustls(builder.with_cert_resolver(Arc::new(identities.into()))))
    }

    /// A server with settings of rustls as they are, except that early data is never accepted. Where they name no protocol, ALPN
    /// is `http/1.1`; where they have no ticketer, tickets are made by `ring`.
    ///
    /// # Panics
    /// If the system has no entropy.
    pub fn from_rustls(config: impl Into<Arc<rustls::ServerConfig>>) -> Self {
        let mut config = Arc::unwrap_or_clone(config.into());
        config.max_early_data_size = 0;
        config.cert_resolver = Arc::new(Resolver(config.cert_resolver));
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols.push(ALPN.to_vec());
        }
        if !config.ticketer.enabled() {
            config.ticketer = ring::Ticketer::new().expect("the system has entropy");
        }
        Self(Arc::new(RwLock::new(Arc::new(config))))
    }

    /// Handshakes that begin from now on are those of `with`, on every listener that shares this. Connections stay as they are, and
    /// tickets from before are not accepted any more. For any thread.
    pub fn replace(&self, with: &Self) {
        let with = with.current();
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = with;
    }

    pub(crate) fn current(&self) -> Arc<rustls::ServerConfig> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }
}

fn server_builder() -> rustls::ConfigBuilder<rustls::ServerConfig, rustls::WantsVerifier> {
    rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
}

/// Those that share their certificates are equal.
impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerTls").finish_non_exhaustive()
    }
}

/// The TLS of connections to `wss://` URLs: whom they believe, and the certificate that they show. By default the roots are Mozilla's,
/// of the crate `webpki-roots`. Cheap to clone; connections that share it share sessions to be resumed, 256 servers at most.
#[derive(Clone, Default)]
pub struct ClientTls(Option<Arc<rustls::ClientConfig>>);

impl ClientTls {
    /// Believes servers whose certificate one of `roots` (PEM) has signed.
    ///
    /// # Errors
    /// If it holds no certificate that can be a root.
    pub fn with_roots(roots: &[u8]) -> Result<Self, TlsConfigError> {
        let builder = client_builder().with_root_certificates(roots_of(roots)?);
        Ok(Self::from_rustls(builder.with_no_client_auth()))
    }

    /// The same, and shows `identity` to servers that ask for a certificate.
    ///
    /// # Errors
    /// If `roots` holds no certificate that can be a root.
    pub fn with_roots_and_identity(roots: &[u8], identity: Identity) -> Result<Self, TlsConfigError> {
        let builder = client_builder().with_root_certificates(roots_of(roots)?);
        let resolver = Arc::new(SingleCertAndKey::from(identity.into_certified()));
        Ok(Self::from_rustls(builder.with_client_cert_resolver(resolver)))
    }

    /// Believes whom `verifier` believes.
    pub fn with_verifier(verifier: Arc<dyn ServerCertVerifier>) -> Self {
        let builder = client_builder().dangerous().with_custom_certificate_verifier(verifier);
        Self::from_rustls(builder.with_no_client_auth())
    }

    /// Settings of rustls as they are, except that no early data is sent. Where they name no protocol, ALPN is `http/1.1`.
    pub fn from_rustls(config: impl Into<Arc<rustls::ClientConfig>>) -> Self {
        let mut config = Arc::unwrap_or_clone(config.into());
        config.enable_early_data = false;
        if config.alpn_protocols.is_empty() {
            config.alpn_protocols.push(ALPN.to_vec());
        }
        Self(Some(Arc::new(config)))
    }

    pub(crate) fn current(&self) -> Arc<rustls::ClientConfig> {
        static MOZILLA: OnceLock<ClientTls> = OnceLock::new();
        let mozilla = || {
            let roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
            Self::from_rustls(client_builder().with_root_certificates(roots).with_no_client_auth())
        };
        match &self.0 {
            Some(config) => Arc::clone(config),
            None => MOZILLA.get_or_init(mozilla).current(),
        }
    }
}

fn client_builder() -> rustls::ConfigBuilder<rustls::ClientConfig, rustls::WantsVerifier> {
    rustls::ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has cipher suites for TLS 1.2 and 1.3")
}

/// Those that share their settings are equal.
impl PartialEq for ClientTls {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_ref().map(Arc::as_ptr) == other.0.as_ref().map(Arc::as_ptr)
    }
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientTls").finish_non_exhaustive()
    }
}

/// What a TLS handshake has agreed on: see [`UpgradeRequest::tls`](crate::http::UpgradeRequest::tls).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsSession {
    pub(crate) server_name: Option<Box<str>>,
    pub(crate) version: TlsVersion,
    pub(crate) protocol: Option<Box<[u8]>>,
    pub(crate) peer_certificates: Vec<CertificateDer<'static>>,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    V1_2,
    /// TLS 1.3 (RFC 8446).
    V1_3,
}

impl TlsSession {
    /// The name that the client asked for (SNI), in lower case. `None` if it asked for none, as for an address.
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_deref()
    }

    /// The version of TLS.
    pub const fn version(&self) -> TlsVersion {
        self.version
    }

    /// The protocol that ALPN has agreed on, if the client offered any.
    pub fn protocol(&self) -> Option<&[u8]> {
        self.protocol.as_deref()
    }

    /// The certificates that the client has shown, in DER, its own first: checked, if they were asked for by
    /// [`ServerTls::with_client_certificates`]. Empty if it showed none.
    pub fn peer_certificates(&self) -> &[CertificateDer<'static>] {
        &self.peer_certificates
    }
}
