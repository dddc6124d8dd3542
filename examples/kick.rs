//! Bans by predicate: `/kick NAME` from anyone closes every connection whose path is `/NAME`, with a last word.
//!
//! `cargo run --example kick`, then connect to <ws://127.0.0.1:9001/alice> and <ws://127.0.0.1:9001/bob>; send
//! `/kick alice` as bob.

use adjourn::{CloseCode, CloseFrame, Config, Event, Server, shutdown::Pace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::bind("127.0.0.1:9001", Config::default())?;
    println!("listening on ws://127.0.0.1:9001/NAME");

    server.run(|clients, event| match event {
        Event::Message { id, message, closing: false } => {
            let Some(name) = message.as_text().and_then(|text| text.strip_prefix("/kick ")) else { return };
            let path = format!("/{name}");

            // One by one, with a last message that even a full backlog has room for ...
            let loudest =
                clients.iter().find(|client| client.path() == Some(&path) && client.buffered_amount() > 0);
            if let Some(id) = loudest.map(|client| client.id()) {
                clients.kick_now(id, "you never listen", CloseFrame::of(CloseCode::POLICY));
            }
            // ... and all the others in one sweep, which tells when the last of them has gone.
            let code = CloseCode::new(4003).expect("a legal code");
            let frame = CloseFrame::truncating(code, format!("kicked by {id}"));
            clients.close_where(frame, Pace::AtOnce, move |client| client.path() == Some(&path));
        }
        Event::SweepDone { report, .. } => {
            println!("{} kicked, {} said good-bye", report.matched, report.clean);
        }
        Event::Close { id, report } => {
            println!("{id}: {} {:?}", report.effective_code(), report.cause);
        }
        _ => {}
    })?;
    Ok(())
}
