//! A chat: what one says, all others hear. The frame is formatted once; who reads too slowly is let go with 1013.
//!
//! `cargo run --example broadcast`, then connect several clients to <ws://127.0.0.1:9001>.

use adjourn::{Config, Event, Server, config::OnOverflow};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut config = Config::default();
    config.connection.max_backlog = 1 << 20;
    config.connection.on_overflow = OnOverflow::Fail;
    let mut server = Server::bind("127.0.0.1:9001", config)?;
    println!("listening on ws://127.0.0.1:9001");

    server.run(|clients, event| match event {
        Event::Message { id, message, closing: false } => {
            let heard = clients.broadcast(message, |client| client.id() != id);
            println!("{id} reached {} clients; {} have no room", heard.sent, heard.refused);
        }
        Event::Close { id, report } if report.lost.messages > 0 => {
            println!("{id}: {:?}, {} messages never left", report.cause, report.lost.messages);
        }
        _ => {}
    })?;
    Ok(())
}
