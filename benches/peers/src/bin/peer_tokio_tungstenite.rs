//! tokio-tungstenite, single-threaded. `BENCH_READ_BUFFER` sets its read buffer: the library zero-fills it before
//! every read, so its default of 128 KiB is the wrong size for small messages and 4 KiB the wrong one for large.

use adjourn_peers::tasks::{self, Hub};
use std::sync::Arc;
use tokio::net::TcpStream;
use tokio_tungstenite::accept_hdr_async_with_config;
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::protocol::WebSocketConfig;

fn main() -> std::io::Result<()> {
    let read_buffer = usize::try_from(adjourn_peers::env_number("BENCH_READ_BUFFER", 4096)).unwrap_or(4096);
    let config = WebSocketConfig::default().read_buffer_size(read_buffer);
    tasks::run(move |stream, hub| connection(stream, hub, config))
}

async fn connection(stream: TcpStream, hub: Arc<Hub<Message>>, config: WebSocketConfig) {
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
