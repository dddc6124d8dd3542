//! The load generator's counterpart: `/echo` echoes, `/broadcast` relays each message to all others there.
//!
//! `bench_server PORT`; `BENCH_WORKERS` loops (1), `BENCH_CLOSE_TIMEOUT_MS` of grace at SIGTERM (2000), whose Close frames are sent
//! at once, or `BENCH_PACE_RATE` a second, or over `BENCH_PACE_MS`; `BENCH_DEFLATE=1` without context takeover, `2` with
//! it, with `BENCH_DEFLATE_WINDOW` as `takeover_window_bits`, and compressors are freed after `BENCH_DEFLATE_RELEASE_MS`; with the feature
//! `tls`, `BENCH_TLS_CERT` and `BENCH_TLS_KEY` (PEM files).

use std::time::Duration;

#[cfg(feature = "tls")]
use adjourn::tls::{Identity, ServerTls};
use adjourn::{
    Clients, Config, Event, Handler, Message, ShutdownPlan, Workers, WorkersHandle,
    config::Deflate,
    http::{Upgrade, UpgradeRequest},
    shutdown::Pace,
};

struct Bench {
    worker: u8,
    others: WorkersHandle<bool>,
}

impl Handler for Bench {
    /// Whether the connection is one of `/broadcast`.
    type Data = bool;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, bool> {
        Upgrade::accept(request.path() == "/broadcast")
    }

    fn on_event(&mut self, clients: &mut Clients<'_, bool>, event: Event<'_>) {
        let Event::Message { id, message, closing: false } = event else { return };
        if clients.get(id).is_some_and(|client| *client.data()) {
            clients.broadcast(message, |client| *client.data() && client.id() != id);
            self.relay(message);
        } else if let Err(error) = clients.send(id, message) {
            eprintln!("{id}: {error}");
        }
    }
}

impl Bench {
    /// The same for the clients of the other loops.
    fn relay(&self, message: Message<'_>) {
        for (worker, handle) in (0..).zip(self.others.iter()).filter(|(worker, _)| *worker != self.worker) {
            let message = message.into_owned();
            let relayed = handle.defer(move |clients| {
                clients.broadcast(message, |client| *client.data());
            });
            if let Err(error) = relayed {
                eprintln!("loop {worker}: {error}");
            }
        }
    }
}

fn deflate(no_context_takeover: bool, release_after: Option<Duration>) -> Deflate {
    let mut deflate = Deflate::default();
    deflate.server_no_context_takeover = no_context_takeover;
    deflate.client_no_context_takeover = no_context_takeover;
    deflate.release_after = release_after;
    deflate
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port: u16 = std::env::args().nth(1).ok_or("usage: bench_server PORT")?.parse()?;
    let number = |name, default| std::env::var(name).map_or(Ok(default), |value| value.parse::<u64>());
    let grace = Duration::from_millis(number("BENCH_CLOSE_TIMEOUT_MS", 2000)?);
    let count = u8::try_from(number("BENCH_WORKERS", 1)?)?;

    let mut config = Config::default();
    config.connection.close_timeout = grace;
    config.deflate = match number("BENCH_DEFLATE", 0)? {
        0 => None,
        mode => {
            let release = number("BENCH_DEFLATE_RELEASE_MS", 0)?;
            let mut deflate = deflate(mode == 1, (release > 0).then(|| Duration::from_millis(release)));
            let bits = number("BENCH_DEFLATE_WINDOW", u64::from(deflate.takeover_window_bits))?;
            deflate.takeover_window_bits = u8::try_from(bits)?;
            Some(deflate)
        }
    };
    #[cfg(feature = "tls")]
    if let Some((certificate, key)) =
        std::env::var_os("BENCH_TLS_CERT").zip(std::env::var_os("BENCH_TLS_KEY"))
    {
        config.listener.tls = Some(ServerTls::new(Identity::from_files(certificate, key)?));
    }
    let mut plan = ShutdownPlan::soft(grace);
    plan.pace = match (number("BENCH_PACE_RATE", 0)?, number("BENCH_PACE_MS", 0)?) {
        (0, 0) => Pace::AtOnce,
        (0, milliseconds) => Pace::Spread(Duration::from_millis(milliseconds)),
        (rate, _) => Pace::Rate(f64::from(u32::try_from(rate)?)),
    };
    let mut workers = Workers::bind(("127.0.0.1", port), count, config)?;
    workers.shutdown_on_signals(plan)?;
    let others = workers.handle();
    workers.run_with(|worker| Bench { worker, others: others.clone() })?;
    Ok(())
}
