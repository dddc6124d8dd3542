//! Echoes text and binary messages. The text `close CODE REASON` makes the server close with that code and reason.
//!
//! A client that does not read what it is sent is not read from either: back-pressure instead of memory.
//!
//! `cargo run --example echo [ADDRESS [--deflate]]`, then open a WebSocket to <ws://127.0.0.1:9001>.

use std::time::Duration;

use adjourn::{
    Clients, CloseCode, CloseFrame, Config, ConnectionId, Event, Message, SendError, Server, config::Deflate,
};

/// Unsent bytes from which on a client is not read from.
const ENOUGH: usize = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:9001".into());
    let mut config = Config::default();
    if std::env::args().nth(2).is_some_and(|switch| switch == "--deflate") {
        // Clients that want no context takeover say so.
        let mut deflate = Deflate::default();
        (deflate.server_no_context_takeover, deflate.client_no_context_takeover) = (false, false);
        // Who is quiet for a second gives its compressor back.
        deflate.release_after = Some(Duration::from_secs(1));
        config.deflate = Some(deflate);
    }
    let mut server = Server::bind(address, config)?;
    println!("listening on ws://{}", server.local_addr().ok_or("not listening")?);

    server.run(|clients, event| match event {
        Event::Message { id, message, closing: false } => {
            if let Some(frame) = message.as_text().and_then(asked_to_close) {
                clients.close(id, frame);
            } else if let Err(error) = echo(clients, id, message) {
                eprintln!("{id}: {error}");
            }
        }
        Event::Drain { id } => {
            clients.resume(id);
        }
        Event::Close { id, report } => {
            eprintln!("{id}: {} {:?}", report.effective_code(), report.cause);
        }
        _ => {}
    })?;
    Ok(())
}

fn echo(clients: &mut Clients<'_, ()>, id: ConnectionId, message: Message<'_>) -> Result<(), SendError> {
    clients.send(id, message)?;
    if clients.get(id).is_some_and(|client| client.buffered_amount() > ENOUGH) {
        clients.pause(id);
    }
    Ok(())
}

/// `close 4000 good bye` -> the frame, if it is a legal one.
fn asked_to_close(text: &str) -> Option<CloseFrame> {
    let (code, reason) = text.strip_prefix("close ")?.split_once(' ').unwrap_or((text.get(6..)?, ""));
    CloseFrame::new(CloseCode::new(code.parse().ok()?).ok()?, reason.to_owned()).ok()
}
