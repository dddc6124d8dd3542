//! The other side: rustls as it is, of either role, fed by hand.

use std::{
    io::{Cursor, Read as _, Write as _},
    sync::Arc,
};

use adjourn::tls::rustls::{
    ClientConfig, ClientConnection, Connection, RootCertStore, ServerConfig, ServerConnection,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
};

use crate::certificates::Authority;

pub(crate) fn roots(authority: &Authority) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    let pem = authority.pem();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a root");
    }
    roots
}

pub(crate) fn client_config(authority: &Authority) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots(authority))
        .with_no_client_auth();
    Arc::new(config)
}

pub(crate) fn server_config(authority: &Authority, names: &[&str]) -> Arc<ServerConfig> {
    let (chain, key) = authority.files_for(names);
    let chain = CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("they belong together");
    Arc::new(config)
}

/// A peer without a socket.
pub(crate) struct Peer {
    tls: Connection,
    /// Plaintext that came.
    pub(crate) received: Vec<u8>,
    /// The other side's `close_notify` came.
    pub(crate) closed: bool,
    pub(crate) failed: Option<String>,
}

impl Peer {
    pub(crate) fn client(config: Arc<ClientConfig>, name: &str) -> Self {
        let name = ServerName::try_from(name.to_owned()).expect("a name");
        Self::of(ClientConnection::new(config, name).expect("a client").into())
    }

    pub(crate) fn server(config: Arc<ServerConfig>) -> Self {
        Self::of(ServerConnection::new(config).expect("a server").into())
    }

    fn of(mut tls: Connection) -> Self {
        tls.set_buffer_limit(None);
        Self { tls, received: Vec::new(), closed: false, failed: None }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.tls.writer().write_all(bytes).expect("a buffer without limit");
    }

    pub(crate) fn send_close_notify(&mut self) {
        self.tls.send_close_notify();
    }

    /// Asks for new keys in both directions.
    pub(crate) fn update_keys(&mut self) {
        self.tls.refresh_traffic_keys().expect("TLS 1.3, after the handshake");
    }

    /// Ciphertext to be sent.
    pub(crate) fn take_output(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        while self.tls.wants_write() {
            self.tls.write_tls(&mut out).expect("a vector");
        }
        out
    }

    /// Ciphertext that came.
    pub(crate) fn feed(&mut self, bytes: &[u8]) {
        let mut bytes = Cursor::new(bytes);
        while usize::try_from(bytes.position()).expect("short") < bytes.get_ref().len()
            && self.failed.is_none()
        {
            let n = self.tls.read_tls(&mut bytes).expect("a slice");
            match self.tls.process_new_packets() {
                Ok(state) => {
                    self.closed |= state.peer_has_closed();
                    let mut plain = vec![0; state.plaintext_bytes_to_read()];
                    self.tls.reader().read_exact(&mut plain).expect("they are there");
                    self.received.append(&mut plain);
                }
                Err(error) => self.failed = Some(error.to_string()),
            }
            if n == 0 {
                break;
            }
        }
    }
}
