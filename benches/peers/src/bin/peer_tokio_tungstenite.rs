//! tokio-tungstenite, single-threaded. `BENCH_READ_BUFFER` sets its read buffer: the library zero-fills it before
//! every read, so its default of 128 KiB is the wrong size for small messages and 4 KiB the wrong one for large.
//! With `BENCH_TLS_CERT` and `BENCH_TLS_KEY` it speaks TLS (tokio-rustls).

use adjourn_peers::tasks::{self, Hub};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use std::io;
use std::path::Path;
use std::sync::Arc;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::accept_hdr_async_with_config;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::WebSocketConfig;

fn main() -> io::Result<()> {
    let read_buffer = usize::try_from(adjourn_peers::env_number("BENCH_READ_BUFFER", 4096)).unwrap_or(4096);
    let config = WebSocketConfig::default().read_buffer_size(read_buffer);
    let Some((certificate, key)) = adjourn_peers::tls_files() else {
        return tasks::run(move |stream, hub| connection(stream, hub, config));
    };
    let acceptor = acceptor(&certificate, &key).map_err(io::Error::other)?;
    tasks::run(move |stream, hub| {
        let acceptor = acceptor.clone();
        async move {
            if let Ok(stream) = acceptor.accept(stream).await {
                connection(stream, hub, config).await;
            }
        }
    })
}

fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor, Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(certificate)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

async fn connection<S>(stream: S, hub: Arc<Hub<Message>>, config: WebSocketConfig)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut broadcast = false;
    // The callback's error type is the library's.
    #[allow(clippy::result_large_err)]
    let look = |request: &Request, response: Response| {
        broadcast = request.uri().path() == "/broadcast";
        Ok(response)
    };
    if let Ok(socket) = accept_hdr_async_with_config(stream, look, Some(config)).await {
        let member = hub.join(broadcast).await;
        tasks::serve(socket, member).await;
    }
}
