//! Owning the loop: `poll` does one turn, and between two turns the connections are at hand.
//!
//! `cargo run --example pull`, then connect to <ws://127.0.0.1:9001>: a tick comes every second.

use std::time::{Duration, Instant};

use adjourn::{
    Clients, Config, Event, Handler, Server,
    http::{Upgrade, UpgradeRequest},
};

/// A handler that only writes down what happened; the loop below acts on it.
#[derive(Default)]
struct Journal {
    lines: Vec<String>,
}

impl Handler for Journal {
    /// When the connection was accepted.
    type Data = Instant;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Instant> {
        self.lines.push(format!("{} asks for {}", request.peer_addr(), request.path()));
        Upgrade::accept(Instant::now())
    }

    fn on_event(&mut self, _: &mut Clients<'_, Instant>, event: Event<'_>) {
        self.lines.push(format!("{event:?}"));
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::bind("127.0.0.1:9001", Config::default())?;
    println!("listening on ws://127.0.0.1:9001");
    let (mut journal, mut next_tick) = (Journal::default(), Instant::now());

    loop {
        let wait = next_tick.saturating_duration_since(Instant::now());
        if let Some(report) = server.poll_with(Some(wait), &mut journal)? {
            println!("{report:?}");
            return Ok(());
        }
        for line in journal.lines.drain(..) {
            println!("{line}");
        }
        if Instant::now() >= next_tick {
            next_tick += Duration::from_secs(1);
            server.clients().broadcast("tick", |client| client.data().elapsed() > Duration::from_secs(1));
        }
    }
}
