//! SIGTERM or Ctrl-C: everyone gets Close 1001, ten seconds to answer, and the report says how it went.
//!
//! `cargo run --example graceful_shutdown`, connect some clients to <ws://127.0.0.1:9001>, then press Ctrl-C.

use std::time::Duration;

use adjourn::{Config, Event, Server, ShutdownPlan, shutdown::Pace};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut server = Server::bind("127.0.0.1:9001", Config::default())?;

    let mut plan = ShutdownPlan::soft(Duration::from_secs(10));
    plan.lame_duck = Duration::from_secs(1); // SIGTERM only: not ready any more, but nobody is sent away yet.
    plan.pace = Pace::Spread(Duration::from_secs(2)); // Not everyone comes back in the same instant.
    server.shutdown_on_signals(plan)?;

    println!("listening on ws://127.0.0.1:9001; Ctrl-C shuts down");
    let report = server.run(|clients, event| match event {
        Event::Message { id, message, closing: false } => {
            if let Err(error) = clients.send(id, message) {
                eprintln!("{id}: {error}");
            }
        }
        Event::Close { id, report } => {
            println!("{id}: {} {:?}, clean: {}", report.effective_code(), report.cause, report.was_clean());
        }
        Event::Phase { phase, stats } => {
            println!("{}: {} open, {} closing", phase.name(), stats.open, stats.closing);
        }
        _ => {}
    })?;

    println!(
        "{} were there: {} clean, {} left, {} timed out, {} terminated, {} failed; {} messages lost; took {:?}",
        report.live_at_start,
        report.clean,
        report.by_peer,
        report.timed_out,
        report.terminated,
        report.failed,
        report.lost.messages,
        report.took,
    );
    Ok(())
}
