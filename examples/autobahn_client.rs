//! Runs all cases of the Autobahn suite's fuzzing server, echoing, and has it write its report.
//!
//! `cargo run --release --example autobahn_client [URL [ROOTS]]`: a `wss://` URL needs the PEM file of a root
//! if its certificate is not of a public one.

use adjourn::{Config, Event, Server, ShutdownPlan, config::Deflate, http::ConnectRequest};

/// What the present connection is for.
enum Step {
    Count,
    Case(u32),
    Report,
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::args().nth(1).unwrap_or_else(|| "ws://127.0.0.1:9001".into());
    let url = url.trim_end_matches('/');
    let path = |step: &Step| match step {
        Step::Count => "/getCaseCount".to_owned(),
        Step::Case(case) => format!("/runCase?case={case}&agent=adjourn"),
        Step::Report => "/updateReports?agent=adjourn".to_owned(),
    };
    let request = |step: &Step| ConnectRequest::new(&format!("{url}{}", path(step)));
    let mut config = Config::default();
    config.connection.max_payload = 64 << 20;
    config.connection.max_backlog = 256 << 20;
    config.deflate = Some(Deflate::default());
    #[cfg(feature = "tls")]
    if let Some(roots) = std::env::args().nth(2) {
        config.client.tls = adjourn::tls::ClientTls::with_roots(&std::fs::read(roots)?)?;
    }
    let (mut step, mut count, mut failed) = (Step::Count, 0, None);
    let mut client = Server::outgoing(config)?;
    client.connect(request(&step)?, ())?;

    client.run(|clients, event| match event {
        Event::Message { message, .. } if matches!(step, Step::Count) => {
            count = message.as_text().and_then(|text| text.parse().ok()).unwrap_or(0);
        }
        Event::Message { id, message, closing: false } => {
            if let Err(error) = clients.send(id, message) {
                eprintln!("{}: {error}", path(&step));
            }
        }
        Event::Close { .. } => {
            step = match step {
                Step::Count if count > 0 => Step::Case(1),
                Step::Case(case) if case < count => Step::Case(case + 1),
                Step::Count | Step::Case(_) => Step::Report,
                Step::Report => return clients.shutdown(ShutdownPlan::hard()),
            };
            if let Ok(request) = request(&step) {
                let _ = clients.connect(request, ());
            }
        }
        Event::HandshakeFailed { peer, error, .. } => {
            failed = Some(format!("{peer}{}: {error:?}", path(&step)));
            clients.shutdown(ShutdownPlan::hard());
        }
        _ => {}
    })?;
    failed.map_or(Ok(()), |failed| Err(failed.into()))
}
