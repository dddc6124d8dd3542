//! Socket activation: systemd opens the port, starts the server when somebody connects, and keeps the port while it restarts.
//!
//! `systemd-socket-activate --fdname=chat.socket -l 9001 target/debug/examples/activated`, or as a service, see
//! `docs/in_production.md`. Without a service manager it opens the port itself.

use std::time::Duration;

use adjourn::{Config, Event, Server, ShutdownPlan, listeners::Inherited};

/// `FileDescriptorName=` of the socket unit; without that line it is the unit's name.
const NAME: &str = "chat.socket";

pub(crate) fn main() -> Result<(), Box<dyn std::error::Error>> {
    // First of all: there may be no other thread yet.
    let mut inherited = Inherited::from_environment();
    let mut server = Server::outgoing(Config::default())?;
    for socket in inherited.take(NAME)? {
        println!(
            "listening on {}",
            socket.local_addr().map_or("a path".into(), |address| address.to_string())
        );
        server.listen_on(socket)?;
    }
    if server.local_addr().is_none() && inherited.names().all(|name| name != NAME) {
        println!("listening on {}", server.listen("127.0.0.1:9001")?);
    }
    server.shutdown_on_signals(ShutdownPlan::soft(Duration::from_secs(5)))?;
    let report = server.run(|clients, event| {
        if let Event::Message { id, message, closing: false } = event
            && let Err(error) = clients.send(id, message)
        {
            eprintln!("{id}: {error}");
        }
    })?;
    println!("{report}");
    Ok(())
}
