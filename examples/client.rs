//! Connects, sends what the command line or else the standard input says, one message a line, prints the answers, and
//! closes with 1000 when as many have come.
//!
//! `cargo run --example client ws://127.0.0.1:9001 [MESSAGE...]`, with the `echo` example running.

use std::io::{IsTerminal as _, stdin};

use adjourn::{CloseFrame, Config, Event, Server, ShutdownPlan, http::ConnectRequest};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let url = arguments.next().ok_or("usage: client ws://HOST[:PORT][/PATH] [MESSAGE...]")?;
    let mut messages: Vec<String> = arguments.collect();
    if messages.is_empty() && !stdin().is_terminal() {
        messages = stdin().lines().collect::<Result<_, _>>()?;
    }
    if messages.is_empty() {
        messages.push("hello".into());
    }
    let (mut missing, mut failed) = (messages.len(), None);
    let mut client = Server::outgoing(Config::default())?;
    client.connect(ConnectRequest::new(&url)?, ())?;

    client.run(|clients, event| match event {
        Event::Open { id } => {
            for message in &messages {
                if let Err(error) = clients.send(id, message) {
                    eprintln!("{error}");
                    missing -= 1;
                }
            }
        }
        Event::Message { id, message, .. } => {
            match message.as_text() {
                Some(text) => println!("{text}"),
                None => println!("{} bytes", message.len()),
            }
            missing = missing.saturating_sub(1);
            if missing == 0 {
                clients.close(id, CloseFrame::NORMAL);
            }
        }
        Event::Close { report, .. } => {
            eprintln!("closed: {} {:?}", report.effective_code(), report.cause);
            clients.shutdown(ShutdownPlan::default());
        }
        Event::HandshakeFailed { peer, error, .. } => {
            failed = Some(format!("{peer}: {error:?}"));
            clients.shutdown(ShutdownPlan::hard());
        }
        _ => {}
    })?;
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}
