//! sockudo-ws on tokio, single-threaded. `BENCH_DEFLATE=1` accepts permessage-deflate without context takeover, `2` with it.

use adjourn_peers::tasks::{self, Hub};
use bytes::BytesMut;
use sockudo_ws::deflate::{DeflateConfig, negotiate_server_deflate};
use sockudo_ws::handshake::{build_response, generate_accept_key, parse_request};
use sockudo_ws::stream::CompressedWebSocketStream;
use sockudo_ws::{Config, Message, WebSocketStream};
use std::sync::Arc;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn main() -> std::io::Result<()> {
    sockudo_ws::stream::init_clock();
    let mode = adjourn_peers::env_number("BENCH_DEFLATE", 0);
    let offer = (mode > 0).then(|| DeflateConfig {
        server_no_context_takeover: mode == 1,
        client_no_context_takeover: mode == 1,
        ..DeflateConfig::default()
    });
    tasks::run(move |stream, hub| connection(stream, hub, offer.clone()))
}

async fn connection(mut stream: TcpStream, hub: Arc<Hub<Message>>, policy: Option<DeflateConfig>) {
    let Some((broadcast, deflate)) = handshake(&mut stream, policy).await else { return };
    let member = hub.join(broadcast).await;
    match deflate {
        Some(deflate) => {
            tasks::serve(CompressedWebSocketStream::server(stream, Config::default(), deflate), member).await;
        }
        None => tasks::serve(WebSocketStream::server(stream, Config::default()), member).await,
    }
}

async fn handshake(
    stream: &mut TcpStream,
    policy: Option<DeflateConfig>,
) -> Option<(bool, Option<DeflateConfig>)> {
    let mut head = BytesMut::with_capacity(1024);
    loop {
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        let Some((request, _)) = parse_request(&head).ok()? else { continue };
        let agreed =
            request.extensions.zip(policy).and_then(|(o, policy)| negotiate_server_deflate(o, &policy));
        let extension = agreed.as_ref().map(|agreed| agreed.to_response_header());
        let response = build_response(&generate_accept_key(request.key), None, extension.as_deref());
        stream.write_all(&response).await.ok()?;
        return Some((request.path == "/broadcast", agreed.map(|agreed| agreed.config)));
    }
}
