//! Every way a connection can end, on demand: text messages are commands, stdout tells in JSON what happened.
//!
//! `cargo run --example close_lab -- --listen 127.0.0.1:9001`, then open <http://127.0.0.1:9001>/ in a browser, or send
//! `close 4000 bye`, `flood-close 100 65536 1001`, `shutdown 2000` ... with any WebSocket client.
//!
//! Limits on what peers may ask for: `--max-connections N`, `--max-per-address N`, `--max-handshakes N`,
//! `--control-rate PER_SECOND[:BURST]|off`, and `--origin https://example.com`, as often as there are origins; then nobody
//! else may connect, nor a program that names none. `--tls CERT KEY` (PEM files): the page and the sockets are
//! https and wss.
//!
//! `--listen unix:/run/lab.sock` listens on a Unix domain socket. `--proxy-protocol 127.0.0.1,10.0.0.0/8,unix` wants a PROXY header of
//! everybody, from these proxies.
//!
//! `GET /metrics` is for Prometheus; with `--plain-http-in-shutdown` it is answered until the shutdown is over.

mod command;
mod options;
mod report;

use std::{
    collections::VecDeque,
    process::ExitCode,
    sync::{Arc, Mutex},
    time::Duration,
};

use adjourn::{
    Client, Clients, Config, ConnectionId, Event, Handler, Message, Payload, SendError, ShutdownPlan,
    Workers, WorkersHandle,
    error::HandshakeError,
    http::{Response, ResponseError, Upgrade, UpgradeRequest},
    shutdown::{Pace, SweepId, SweepReport},
};
use serde_json::json;

use crate::{
    command::{Command, Flood, Then},
    report::{print, stats},
};

/// The page connects to paths below this one.
const PAGE: &str = "/page/";
/// Reports of the page's connections that are kept for `GET /report?path=...`.
const KEPT_REPORTS: usize = 1000;

/// What all loops share.
#[derive(Default)]
struct Shared {
    /// Sweeps that run on several loops: the parts that are not done, and what the others said.
    sweeps: Mutex<Vec<Running>>,
    /// The last reports, by path, for the page.
    reports: Mutex<VecDeque<(String, String)>>,
}

/// One sweep over all loops.
#[derive(Default)]
struct Running {
    parts: Vec<(u8, SweepId)>,
    /// Loops that have not begun it.
    to_begin: usize,
    total: SweepReport,
}

struct Lab {
    worker: u8,
    loops: WorkersHandle<()>,
    shared: Arc<Shared>,
    log_messages: bool,
}

impl Handler for Lab {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if request.is_upgrade() {
            return Upgrade::accept(());
        }
        self.plain(request)
            .map_or_else(|_| Upgrade::Reject(Response::unavailable(Duration::ZERO)), Upgrade::Answer)
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                if let Some(client) = clients.get(id) {
                    let (peer, path) = (client.peer_addr().to_string(), client.path());
                    print(&json!({"event": "open", "id": id.to_string(), "peer": peer, "path": path}));
                }
            }
            Event::Message { id, message, closing } => self.message(clients, id, message, closing),
            Event::Closing { id, initiator, frame } => print(&json!({
                "event": "closing", "id": id.to_string(), "initiator": format!("{initiator:?}"),
                "code": frame.code(), "reason": frame.reason(),
            })),
            Event::Close { id, report: closed } => {
                let line = report::closed(id, &closed);
                print(&line);
                let path = clients.get(id).and_then(|client| client.path().map(str::to_owned));
                if let Some(path) = path.filter(|path| path.starts_with(PAGE)) {
                    let mut reports = self.shared.reports.lock().expect("no callback panics while it writes");
                    reports.push_back((path, line.to_string()));
                    if reports.len() > KEPT_REPORTS {
                        reports.pop_front();
                    }
                }
            }
            Event::HandshakeFailed { peer, error, .. } => {
                let mut line =
                    json!({"event": "handshake_failed", "peer": peer.to_string(), "cause": error.name()});
                if let HandshakeError::TooManyConnections { limit } = error {
                    line["cause_fields"] = json!({"limit": limit.to_string()});
                }
                print(&line);
            }
            Event::SweepDone { sweep, report } => self.sweep_done(sweep, &report),
            Event::Phase { phase, stats: counts } if self.worker == 0 => {
                let mut line = stats(&counts);
                line["event"] = "phase".into();
                line["phase"] = phase.name().into();
                print(&line);
            }
            _ => {}
        }
    }
}

impl Lab {
    /// Plain HTTP: the health check, the page, and the reports that the page asks for.
    fn plain(&self, request: &UpgradeRequest<'_>) -> Result<Response, ResponseError> {
        match request.path() {
            "/healthz" if request.is_ready() => Ok(Response::new(200)?.body("ready\n")),
            "/healthz" => Ok(Response::new(503)?.body("shutting down\n")),
            #[cfg(feature = "metrics")]
            "/metrics" => Ok(adjourn::metrics::response(&self.loops.loop_stats())),
            "/" => Ok(Response::new(200)?
                .header("Content-Type", "text/html; charset=utf-8")?
                .body(include_str!("page.html"))),
            "/report" => {
                let path = request.query().and_then(|query| query.strip_prefix("path=")).unwrap_or_default();
                let reports = self.shared.reports.lock().expect("no callback panics while it writes");
                match reports.iter().rev().find(|report| report.0 == path) {
                    Some((_, line)) => {
                        Ok(Response::new(200)?.header("Content-Type", "application/json")?.body(line.clone()))
                    }
                    None => Ok(Response::new(404)?.body("no report for this path yet\n")),
                }
            }
            _ => Ok(Response::new(404)?.body("nothing here\n")),
        }
    }

    fn message(&self, clients: &mut Clients<'_, ()>, id: ConnectionId, message: Message<'_>, closing: bool) {
        if self.log_messages {
            print(&json!({
                "event": "message", "id": id.to_string(), "text": message.is_text(), "bytes": message.len(),
                "closing": closing,
            }));
        }
        match message.as_text().map(Command::parse) {
            Some(Some(Ok(command))) => self.execute(clients, id, command),
            Some(Some(Err(error))) => send(clients, id, format!("error: {error}")),
            Some(None) | None if closing => {}
            Some(None) | None => send(clients, id, message),
        }
    }

    fn execute(&self, clients: &mut Clients<'_, ()>, id: ConnectionId, command: Command) {
        match command {
            Command::Close(frame, timing) => {
                clients.close_with(id, frame, timing);
            }
            Command::Kick(frame, message) => {
                clients.kick(id, message, frame);
            }
            Command::Terminate(style) => terminate(clients, id, style),
            Command::Flood(flood, then) => {
                self::flood(clients, id, flood);
                match then {
                    Then::Nothing => {}
                    Then::Close(frame) => {
                        clients.close(id, frame);
                    }
                    Then::Kick(frame, message) => {
                        clients.kick(id, message, frame);
                    }
                    Then::Terminate(style) => terminate(clients, id, style),
                }
            }
            Command::Pause => {
                clients.pause(id);
            }
            Command::ResumeWhere(prefix) => self.everywhere(move |_, clients| {
                let ids: Vec<_> = clients
                    .iter()
                    .filter(|client| begins(client, &prefix))
                    .map(|client| client.id())
                    .collect();
                for id in ids {
                    clients.resume(id);
                }
            }),
            Command::Ping(payload) => {
                if let Err(error) = clients.ping(id, payload.as_bytes()) {
                    refused(id, error);
                }
            }
            Command::Late => {
                clients.close(id, adjourn::CloseFrame::NORMAL);
                send(clients, id, "late");
            }
            Command::CloseWhere(prefix, frame) => self.sweep(move |clients| {
                let prefix = prefix.clone();
                clients.close_where(frame.clone(), Pace::AtOnce, move |client| begins(client, &prefix))
            }),
            Command::TerminateWhere(prefix) => self.sweep(move |clients| {
                let prefix = prefix.clone();
                clients.terminate_where(move |client| begins(client, &prefix))
            }),
            Command::Shutdown { grace, spread } => {
                let mut plan = ShutdownPlan::soft(grace);
                plan.pace = spread.map_or(Pace::AtOnce, Pace::Spread);
                clients.shutdown(plan);
            }
            Command::Block(duration) => std::thread::sleep(duration),
            Command::Stats => self.stats(id),
        }
    }

    /// Does the same on every loop.
    fn everywhere(&self, act: impl Fn(u8, &mut Clients<'_, ()>) + Clone + Send + 'static) {
        for (worker, handle) in (0..).zip(self.loops.iter()) {
            let act = act.clone();
            // A loop that has stopped has no connections.
            let _ = handle.defer(move |clients| act(worker, clients));
        }
    }

    /// Begins a sweep on every loop. Its end is printed once, when the last loop has ended its part.
    fn sweep(&self, begin: impl Fn(&mut Clients<'_, ()>) -> SweepId + Clone + Send + 'static) {
        let shared = Arc::clone(&self.shared);
        let mut sweeps = shared.sweeps.lock().expect("no callback panics while it writes");
        sweeps.push(Running { to_begin: self.loops.iter().count(), ..Running::default() });
        let index = sweeps.len() - 1;
        let shared = Arc::clone(&self.shared);
        self.everywhere(move |worker, clients| {
            let sweep = begin(clients);
            let mut sweeps = shared.sweeps.lock().expect("no callback panics while it writes");
            sweeps[index].parts.push((worker, sweep));
            sweeps[index].to_begin -= 1;
        });
    }

    fn sweep_done(&self, sweep: SweepId, report: &SweepReport) {
        let mut sweeps = self.shared.sweeps.lock().expect("no callback panics while it writes");
        let part = (self.worker, sweep);
        let Some(running) = sweeps.iter_mut().find(|running| running.parts.contains(&part)) else { return };
        running.parts.retain(|other| *other != part);
        running.total.matched += report.matched;
        running.total.clean += report.clean;
        running.total.timed_out += report.timed_out;
        running.total.lost.add(&report.lost);
        if running.parts.is_empty() && running.to_begin == 0 {
            let SweepReport { matched, clean, timed_out, lost, .. } = running.total;
            print(&json!({
                "event": "sweep_done", "matched": matched, "clean": clean, "timed_out": timed_out,
                "lost_messages": lost.messages, "lost_bytes": lost.bytes,
            }));
        }
    }

    /// Asks every loop, and answers when the last has spoken.
    fn stats(&self, id: ConnectionId) {
        let waiting = Arc::new(Mutex::new((self.loops.iter().count(), adjourn::clients::Stats::default())));
        let loops = self.loops.clone();
        self.everywhere(move |_, clients| {
            let mut waiting = waiting.lock().expect("no callback panics while it writes");
            let (mine, (missing, total)) = (clients.stats(), &mut *waiting);
            total.open += mine.open;
            total.closing += mine.closing;
            total.lingering += mine.lingering;
            total.connecting += mine.connecting;
            *missing -= 1;
            if *missing == 0
                && let Some(home) = loops.of(id)
            {
                let mut line = stats(total);
                line["fds"] = report::descriptors().into();
                let answer = line.to_string();
                let _ = home.defer(move |clients| send(clients, id, answer));
            }
        });
    }
}

fn begins(client: &Client<'_, ()>, prefix: &str) -> bool {
    client.path().is_some_and(|path| path.starts_with(prefix))
}

fn terminate(clients: &mut Clients<'_, ()>, id: ConnectionId, style: Option<adjourn::config::Abort>) {
    match style {
        Some(style) => clients.terminate_with(id, style),
        None => clients.terminate(id),
    };
}

fn flood(clients: &mut Clients<'_, ()>, id: ConnectionId, Flood { count, size }: Flood) {
    let (mut accepted, mut refused) = (0, 0);
    for number in 0..count {
        let mut payload = vec![0; size];
        payload[..8].copy_from_slice(&number.to_be_bytes());
        match clients.send(id, payload) {
            Ok(()) => accepted += 1,
            Err(_) => refused += 1,
        }
    }
    print(&json!({"event": "flood", "id": id.to_string(), "accepted": accepted, "refused": refused}));
}

fn send<'m>(clients: &mut Clients<'_, ()>, id: ConnectionId, message: impl Into<Payload<'m>>) {
    if let Err(error) = clients.send(id, message) {
        refused(id, error);
    }
}

fn refused(id: ConnectionId, error: SendError) {
    let error = match error {
        SendError::Closing => "Closing",
        SendError::Overflow { .. } => "Overflow",
        SendError::ControlTooLong(_) => "ControlTooLong",
        _ => "NotFound",
    };
    print(&json!({"event": "send_refused", "id": id.to_string(), "error": error}));
}

fn main() -> ExitCode {
    let options = match options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            eprintln!("close_lab: {error}");
            return ExitCode::from(2);
        }
    };
    match serve(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("close_lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(options: options::Options) -> Result<(), Box<dyn std::error::Error>> {
    let config: Config = options.config;
    let mut workers = match options.listen.strip_prefix(options::UNIX) {
        Some(path) => Workers::bind_unix(path, options.workers, config)?,
        None => Workers::bind(options.listen.as_str(), options.workers, config)?,
    };
    workers.shutdown_on_signals(options.plan)?;
    let address = workers.local_addr().map_or(options.listen, |address| address.to_string());
    print(&json!({"event": "listening", "addr": address}));
    let (loops, shared) = (workers.handle(), Arc::new(Shared::default()));
    let log_messages = options.log_messages;
    let report = workers.run_with(|worker| Lab {
        worker,
        loops: loops.clone(),
        shared: Arc::clone(&shared),
        log_messages,
    })?;
    print(&report::shutdown(&report));
    Ok(())
}
