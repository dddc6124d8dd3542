//! An echo server with a console for its operator: who is connected, how fast, who reads too slowly, how near the limits are; and
//! buttons to kick one connection or to drain the server.
//!
//! `cargo run --example console --features metrics -- 127.0.0.1:9001`, then open the page that it names and enter the token that it
//! prints. `CONSOLE_TOKEN` in the environment sets the token. `/metrics` on the same port is for Prometheus, and open to all.
//!
//! The page's data come over a WebSocket of this server. Its first message is the token: the URL of a request stands in the logs of
//! proxies, and a browser cannot add headers to a WebSocket. Who sends another token, or none within 5 s, is closed with 1008.
//! Tokens are compared in a time that does not depend on how much of them is right.

mod view;

use std::{
    env,
    error::Error,
    fs::File,
    io::Read as _,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use adjourn::{
    Clients, CloseCode, CloseFrame, Config, ConnectionId, Event, Handle, Handler, Message, ShutdownPlan,
    Workers, WorkersHandle,
    http::{Response, ResponseError, Upgrade, UpgradeRequest},
    metrics,
    shutdown::{ListenerInShutdown, Pace},
};
use serde_json::Value;

use crate::view::View;

/// The path of the page's WebSocket.
const LIVE: &str = "/console/live";
/// The timer of a loop, and of a connection that has yet to send the token.
const TICK: u64 = 0;
const PATIENCE: Duration = Duration::from_secs(5);

/// What a connection is to the application.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Who {
    Client,
    /// At the console, and has not sent the token.
    Guest,
    Operator,
}

/// What all loops share.
struct Shared {
    token: String,
    every: Duration,
    /// What each loop has said of itself last.
    views: Mutex<Vec<View>>,
}

struct Console {
    place: usize,
    loops: WorkersHandle<Who>,
    shared: Arc<Shared>,
}

impl Handler for Console {
    type Data = Who;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Who> {
        match (request.is_upgrade(), request.path()) {
            (true, LIVE) => Upgrade::accept(Who::Guest),
            (true, _) => Upgrade::accept(Who::Client),
            (false, path) => self
                .plain(path, request.is_ready())
                .map_or_else(|_| Upgrade::Reject(Response::unavailable(Duration::ZERO)), Upgrade::Answer),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, Who>, event: Event<'_>) {
        match event {
            Event::Open { id } if who(clients, id) == Some(Who::Guest) => {
                clients.set_timer(id, PATIENCE, TICK);
            }
            Event::Message { id, message, closing: false } => match who(clients, id) {
                Some(Who::Client) => echo(clients, id, message),
                Some(Who::Guest) => self.greet(clients, id, message.as_bytes()),
                Some(Who::Operator) => self.apply(clients, message.as_bytes()),
                None => {}
            },
            Event::Drain { id } => {
                clients.resume(id);
            }
            Event::Timer { id: Some(id), .. } => refuse(clients, id),
            Event::Timer { id: None, .. } => self.tick(clients),
            _ => {}
        }
    }
}

impl Console {
    fn plain(&self, path: &str, ready: bool) -> Result<Response, ResponseError> {
        match path {
            "/metrics" => Ok(metrics::response(&self.loops.loop_stats())),
            "/healthz" if ready => Ok(Response::new(200)?.body("ready\n")),
            "/healthz" => Ok(Response::new(503)?.body("shutting down\n")),
            "/" => Response::new(303)?.header("Location", "/console"),
            "/console" => Ok(Response::new(200)?
                .header("Content-Type", "text/html; charset=utf-8")?
                .header("Content-Security-Policy", CONTENT_POLICY)?
                .body(include_str!("page.html"))),
            _ => Ok(Response::new(404)?.body("nothing here\n")),
        }
    }

    /// The first message of a guest is the token.
    fn greet(&self, clients: &mut Clients<'_, Who>, id: ConnectionId, token: &[u8]) {
        if !is_same(token, self.shared.token.as_bytes()) {
            return refuse(clients, id);
        }
        clients.clear_timer(id, TICK);
        if let Some(data) = clients.get_mut(id) {
            *data = Who::Operator;
        }
        self.tell(clients);
    }

    /// What an operator asks for: `{"kick": ID}`, `{"terminate": ID}`, `{"drain": SECONDS}` or `{"escalate": true}`.
    fn apply(&self, clients: &mut Clients<'_, Who>, order: &[u8]) {
        let Ok(order) = serde_json::from_slice::<Value>(order) else { return };
        if let Some(id) = order["kick"].as_str().map(str::to_owned) {
            let frame = CloseFrame::new(CloseCode::new(4000).expect("a code"), "kicked by an operator");
            let frame = frame.expect("a short reason");
            // Whichever loop has it.
            let _ = self.loops.defer(move |clients| {
                let id = id.clone();
                clients.close_where(frame.clone(), Pace::AtOnce, move |client| client.id().to_string() == id);
            });
        } else if let Some(id) = order["terminate"].as_str().map(str::to_owned) {
            let _ = self.loops.defer(move |clients| {
                let id = id.clone();
                clients.terminate_where(move |client| client.id().to_string() == id);
            });
        } else if let Some(seconds) = order["drain"].as_u64() {
            clients.shutdown(plan(Duration::from_secs(seconds.min(600))));
        } else if order["escalate"].as_bool() == Some(true) {
            clients.escalate();
        }
    }

    /// Looks at this loop, and tells its operators of all of them.
    fn tick(&self, clients: &mut Clients<'_, Who>) {
        // As of the end of the last turn: with what only the server knows, the descriptors for example.
        let stats = self.loops.iter().nth(self.place).map(Handle::loop_stats).unwrap_or_default();
        let view = View::of(stats, clients, |who| match who {
            Who::Client => "client",
            Who::Guest => "guest",
            Who::Operator => "operator",
        });
        self.views()[self.place] = view;
        self.tell(clients);
        clients.set_loop_timer(self.shared.every, TICK);
    }

    fn tell(&self, clients: &mut Clients<'_, Who>) {
        if clients.iter().any(|client| *client.data() == Who::Operator) {
            let text = View::sum(&self.views()).json().to_string();
            // Who does not keep up misses some.
            clients.broadcast(text, |client| *client.data() == Who::Operator && client.backlog() == 0);
        }
    }

    fn views(&self) -> std::sync::MutexGuard<'_, Vec<View>> {
        self.shared.views.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn who(clients: &Clients<'_, Who>, id: ConnectionId) -> Option<Who> {
    clients.get(id).map(|client| *client.data())
}

/// Who reads too slowly is not read from until it has read.
fn echo(clients: &mut Clients<'_, Who>, id: ConnectionId, message: Message<'_>) {
    if clients.send(id, message).is_err() {
        clients.pause(id);
    }
}

fn refuse(clients: &mut Clients<'_, Who>, id: ConnectionId) {
    clients.close(id, CloseFrame::of(CloseCode::POLICY));
}

/// Takes as long for every token of the right length.
fn is_same(token: &[u8], right: &[u8]) -> bool {
    let difference =
        token.iter().zip(right).fold(0, |difference, (a, b)| std::hint::black_box(difference | (a ^ b)));
    token.len() == right.len() && difference == 0
}

/// Scripts, styles and connections of this page alone.
const CONTENT_POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; connect-src 'self'";

/// `/metrics` is answered to the end, and load balancers have 2 s to look elsewhere.
fn plan(over: Duration) -> ShutdownPlan {
    let mut plan = ShutdownPlan::soft(Duration::from_secs(10));
    plan.lame_duck = Duration::from_secs(2);
    plan.pace = Pace::Spread(over);
    plan.listener_in_shutdown = ListenerInShutdown::PlainHttp;
    plan
}

/// 128 bits of the system's entropy.
fn new_token() -> std::io::Result<String> {
    let mut bytes = [0; 16];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = env::args().skip(1);
    let address = args.next().unwrap_or_else(|| "127.0.0.1:9001".into());
    let count: u8 = args.next().map_or(Ok(1), |count| count.parse())?;
    let token = env::var("CONSOLE_TOKEN").or_else(|_| new_token())?;
    if token.is_empty() {
        return Err("CONSOLE_TOKEN is empty: that would be everybody's token".into());
    }

    let mut config = Config::default();
    config.connection.count_traffic = true;
    config.event_loop.max_connections = 10_000;
    let mut workers = Workers::bind(address, count, config)?;
    workers.shutdown_on_signals(plan(Duration::ZERO))?;
    println!("console: http://{}/console", workers.local_addr().ok_or("not listening")?);
    println!("token: {token}");

    let loops = workers.handle();
    let views = Mutex::new(vec![View::default(); count.into()]);
    let shared = Arc::new(Shared { token, every: Duration::from_secs(1), views });
    loops.defer(|clients| clients.set_loop_timer(Duration::ZERO, TICK))?;
    let report = workers.run_with(|place| Console {
        place: place.into(),
        loops: loops.clone(),
        shared: Arc::clone(&shared),
    })?;
    println!("{report}");
    Ok(())
}
