//! Adjourn's events, HTTP requests and the store's answers <-> inputs of the core.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use adjourn::clients::Stats;
use adjourn::config::{ClosingData, ConnectionConfig, Heartbeat, SharedConfig};
use adjourn::http::{Accept, ExtraHeader, Response as RawResponse, Upgrade, UpgradeRequest};
use adjourn::shutdown::{ShutdownPhase, ShutdownPlan, ShutdownReport};
use adjourn::{Clients, ConnectionId, Event, Handler, Message, Server};

use super::StartError;
use super::conn::{Conn, Purpose};
use super::handle::{PlanCell, SocketIoHandle};
use super::hearing::Hearing;
use super::links::{DriverLinks, LinkTable, link_of, reason_of_closing, reason_of_end};
use super::nodes::Nodes;
use super::request::RequestHead;
use super::route::{Route, route};
use super::shutdown::{DrainReport, Sweep};
use super::storage::Storage;
use super::wake::{Clock, Waker};
use crate::config::SocketIoConfig;
use crate::core::{Core, CoreSetup, StoreReply, Ticket};
use crate::engine::{Admission, EngineRequest, Refusal};
use crate::links::{FrameRef, LinkClose, Links};
use crate::packet::Query;
use crate::store::{NodeId, Parts, Store, StoreSettings};

#[cfg(feature = "polling")]
mod http;
#[cfg(not(feature = "polling"))]
#[path = "bridge/no_http.rs"]
mod http;

/// What `Retry-After` says.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Calls of an inline store that one input makes. Those that follow from their answers wait for the next turn: an application that
/// emits whenever an emit is committed would have all of them.
const STORE_CALLS: usize = 64;

/// How often a loop without connections looks at what is left.
const REST: Duration = Duration::from_millis(2);

/// Asked for each request that wants to open a session.
pub(super) type AllowRequest = Box<dyn FnMut(&RequestHead<'_>) -> Result<(), String> + Send>;

/// Gives the headers of the first answer to each session.
pub(super) type InitialHeaders = Box<dyn FnMut(&RequestHead<'_>) -> Vec<(String, String)> + Send>;

pub(super) struct Bridge {
    pub(super) core: Core,
    config: SocketIoConfig,
    /// Of each connection.
    connection: SharedConfig,
    allow_request: Option<AllowRequest>,
    initial_headers: Option<InitialHeaders>,
    /// The open store, until the loop runs.
    parts: Option<(Parts, bool)>,
    /// While the loop runs.
    storage: Option<Storage>,
    /// While the loop runs, with a store that other processes share.
    nodes: Option<Nodes>,
    answers: Vec<(Ticket, StoreReply)>,
    /// Calls of an inline store are left to the next turn.
    store_behind: bool,
    clock: Clock,
    waker: Waker,
    links: LinkTable,
    hearing: Hearing,
    http: http::HttpSide,
    phase: ShutdownPhase,
    plan: PlanCell,
    sweep: Sweep,
}

impl Bridge {
    pub(super) fn new(
        config: SocketIoConfig,
        store: Box<dyn Store>,
        node: NodeId,
    ) -> Result<Self, StartError> {
        let (clock, waker) = (Clock::new(), Waker::default());
        let inline = store.inline();
        let parts = store.open(node, &settings(&config), clock.wall())?;
        let wake = waker.clone();
        let clock = parts.shared.as_ref().map_or(clock, |shared| clock.with_wall(shared.time));
        let setup = CoreSetup {
            epoch: parts.epoch,
            logs: parts.logs.clone(),
            wall: clock.wall(),
            random: Box::new(|bytes| getrandom::fill(bytes).expect("the system gives randomness")),
            wake: Box::new(move || wake.wake()),
        };
        let mut core = Core::new(config.clone(), setup)?;
        if let Some(shared) = &parts.shared {
            core.share(shared.node.clone());
        }
        Ok(Self {
            core,
            connection: connection(&config)?,
            allow_request: None,
            initial_headers: None,
            storage: None,
            nodes: None,
            parts: Some((parts, inline)),
            answers: Vec::new(),
            store_behind: false,
            clock,
            waker,
            links: LinkTable::new(config.times.close_timeout),
            hearing: Hearing::default(),
            http: http::HttpSide::default(),
            phase: ShutdownPhase::Serving,
            plan: PlanCell::default(),
            sweep: Sweep::new(&ShutdownPlan::default()),
            config,
        })
    }

    pub(super) fn set_allow_request(&mut self, allow: AllowRequest) {
        self.allow_request = Some(allow);
    }

    pub(super) fn set_initial_headers(&mut self, headers: InitialHeaders) {
        self.initial_headers = Some(headers);
    }

    pub(super) fn handle(&self, server: &Server<Conn>) -> SocketIoHandle {
        self.waker.attach(server);
        SocketIoHandle::new(self.core.inbox(), server.handle(), Arc::clone(&self.plan))
    }

    #[cfg(feature = "signals")]
    pub(super) fn set_plan(&mut self, plan: &ShutdownPlan) {
        self.sweep.set_plan(plan);
    }

    /// Before each turn; the first time, the threads begin.
    pub(super) fn start(&mut self, server: &mut Server<Conn>) -> io::Result<()> {
        let Some((mut parts, inline)) = self.parts.take() else { return Ok(()) };
        self.waker.attach(server);
        self.clock.start();
        self.nodes = parts.shared.take().map(|shared| Nodes::start(shared, &self.waker)).transpose()?;
        self.storage = Some(Storage::start(parts, inline, self.clock, &self.waker)?);
        self.http.start(&self.config, &self.waker)?;
        // What namespaces have asked of the store when they were registered.
        self.input(&mut server.clients(), |_, _, _| {});
        Ok(())
    }

    /// Begins a turn. Gives how long the loop may wait.
    pub(super) fn begin_turn(&mut self, timeout: Option<Duration>) -> Option<Duration> {
        let now = self.clock.now();
        self.hearing.begin_turn(now);
        let core = self.core.next_timeout().map(|at| at.saturating_sub(now));
        let sweep = self.sweep.next(now).map(|at| at.saturating_sub(now));
        let behind = (self.http.is_behind() || self.store_behind).then_some(Duration::ZERO);
        [timeout, core, sweep, behind].into_iter().flatten().min()
    }

    /// One input of the core, and what it asks of the store.
    fn input(
        &mut self,
        clients: &mut Clients<'_, Conn>,
        act: impl FnOnce(&mut Core, Duration, &mut dyn Links),
    ) {
        let now = self.clock.now();
        self.core.set_heard(self.hearing.callback(now));
        let mut links = DriverLinks {
            clients,
            table: &mut self.links,
            #[cfg(feature = "polling")]
            http: self.http.get_mut(),
        };
        act(&mut self.core, now, &mut links);
        let mut made = 0;
        while made < STORE_CALLS
            && let Some(command) = self.core.poll_store()
        {
            let Some(storage) = &mut self.storage else { break };
            if let Some((ticket, reply)) = storage.submit(command) {
                made += 1;
                self.core.store_reply(ticket, reply, now, &mut links);
            }
        }
        self.store_behind = made == STORE_CALLS;
        while let Some(command) = self.core.poll_feed() {
            let Some(nodes) = &self.nodes else { break };
            if !nodes.submit(command) {
                self.core.message_dropped();
            }
        }
    }

    /// After each turn: what other threads have left, and what is due.
    pub(super) fn take_inputs(&mut self, clients: &mut Clients<'_, Conn>) {
        self.waker.sleep_over();
        if self.take_http(clients) {
            self.hearing.leave_some();
        }
        self.take_answers(clients);
        self.hearing.end_turn(self.clock.now());
        self.input(clients, |core, now, links| {
            core.handle_inbox(now, links);
            core.handle_timeout(now, links);
        });
        let due = self.sweep.due(self.clock.now());
        if due > 0 {
            self.input(clients, |core, now, links| {
                core.sweep_polling(due, now, links);
            });
        }
    }

    fn take_answers(&mut self, clients: &mut Clients<'_, Conn>) {
        let mut answers = std::mem::take(&mut self.answers);
        if let Some(storage) = &mut self.storage {
            storage.take_answers(&mut answers);
        }
        for (ticket, reply) in answers.drain(..) {
            self.input(clients, |core, now, links| core.store_reply(ticket, reply, now, links));
        }
        self.answers = answers;
        let items = self.nodes.as_ref().map(Nodes::take_items).unwrap_or_default();
        for item in items {
            self.input(clients, |core, now, links| core.feed_input(item, now, links));
        }
    }

    /// Rows 1 to 8 of the table of requests.
    fn admit(&mut self, ask: &EngineRequest<'_>, head: &RequestHead<'_>) -> Result<Admission, Refusal> {
        let Self { core, config, allow_request, .. } = self;
        let mut panicked = false;
        let admitted = core.admit(ask, || Self::allow(config, allow_request.as_mut(), head, &mut panicked));
        if panicked {
            core.application_panicked();
        }
        admitted
    }

    /// Row 8: the `Origin`, and the application. One that panics refuses.
    ///
    /// A request without an `Origin` is no cross-origin request of a browser.
    fn allow(
        config: &SocketIoConfig,
        allow_request: Option<&mut AllowRequest>,
        head: &RequestHead<'_>,
        panicked: &mut bool,
    ) -> Result<(), Refusal> {
        if let (Some(origins), Some(origin)) = (&config.origins, head.header("origin"))
            && !origins.iter().any(|allowed| allowed == origin)
        {
            return Err(Refusal::forbidden(None));
        }
        let Some(allow) = allow_request else { return Ok(()) };
        let allowed = catch_unwind(AssertUnwindSafe(|| allow(head).map_err(Some)));
        *panicked = allowed.is_err();
        allowed.unwrap_or(Err(None)).map_err(Refusal::forbidden)
    }

    /// The application's headers for the first answer to a session; none if it panics.
    fn headers_of_application(&mut self, head: &RequestHead<'_>) -> Vec<(String, String)> {
        let Some(headers) = &mut self.initial_headers else { return Vec::new() };
        catch_unwind(AssertUnwindSafe(|| headers(head))).unwrap_or_else(|_| {
            self.core.application_panicked();
            Vec::new()
        })
    }

    /// A WebSocket upgrade of the engine's path.
    fn upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Conn> {
        let query = Query::parse(request.query().unwrap_or_default());
        let head = RequestHead::of_loop(request, &query);
        let ask = EngineRequest { method: request.method(), query: &query, upgrade: true, detached: false };
        let purpose = match self.admit(&ask, &head) {
            Ok(Admission::OpenWebSocket) => {
                Purpose::Session(head.peer(&self.config.keep_headers, self.clock.millis()))
            }
            Ok(Admission::Probe) => Purpose::Probe(query.get("sid").unwrap_or_default().into()),
            Ok(_) => Purpose::Refused,
            Err(refusal) => return Upgrade::Reject(raw_response(&refusal)),
        };
        let opens = matches!(purpose, Purpose::Session(_));
        let mut accept = Accept::new(Conn::new(purpose)).config(self.connection.clone());
        let headers = if opens { self.headers_of_application(&head) } else { Vec::new() };
        // One that is no header is left out, as over polling.
        for header in headers.into_iter().filter_map(|(name, value)| ExtraHeader::new(name, value).ok()) {
            accept = accept.header(header);
        }
        Upgrade::Accept(accept)
    }

    fn opened(&mut self, clients: &mut Clients<'_, Conn>, id: ConnectionId) {
        let link = self.links.open(id);
        let purpose = clients.get_mut(id).and_then(Conn::take_purpose);
        self.input(clients, |core, now, links| match purpose {
            Some(Purpose::Session(peer)) => core.open_websocket(link, peer, now, links),
            Some(Purpose::Probe(sid)) => core.probe(link, &sid, now, links),
            Some(Purpose::Refused) | None => links.close(link, LinkClose::Empty { quick: true }),
        });
    }

    fn entered(&mut self, clients: &mut Clients<'_, Conn>, phase: ShutdownPhase, stats: &Stats) {
        self.phase = phase;
        let plan = self.plan.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(plan) = plan {
            self.sweep.set_plan(&plan);
        }
        if phase >= ShutdownPhase::LameDuck {
            self.core.lame_duck();
        }
        if phase >= ShutdownPhase::SoftSweep && !self.sweep.has_begun() {
            let mut polling = 0;
            self.input(clients, |core, now, links| {
                core.begin_sweep();
                polling = core.sweep_polling(0, now, links);
            });
            self.sweep.begin(polling, self.clock.now());
        }
        // Without connections all phases are over at once; polling sessions have their time in `finish`.
        if phase == ShutdownPhase::HardSweep && stats.open + stats.closing > 0 {
            self.hard_sweep(clients);
        }
    }

    /// After the connections' shutdown: polling sessions have the plan's time, too, then the store is flushed and closed.
    ///
    /// HTTP connections are kept until no session needs them any more: the listener is closed, so that they cannot be made
    /// anew.
    pub(super) fn finish(&mut self, raw: ShutdownReport, clients: &mut Clients<'_, Conn>) -> DrainReport {
        let end = self.sweep.end().unwrap_or_default();
        while self.core.stats().connections_polling > 0 && self.clock.now() < end {
            self.rest(clients);
        }
        self.http.drain();
        while self.http.connections() > 0 && self.clock.now() < end {
            self.rest(clients);
        }
        self.hard_sweep(clients);
        let end = self.clock.now() + self.config.storage.flush_timeout;
        self.input(clients, |core, now, links| core.flush(now, links));
        while !self.core.is_flushed() && self.clock.now() < end {
            self.rest(clients);
        }
        let counts = self.core.shutdown_counts();
        self.nodes = None;
        if let Some(storage) = self.storage.take() {
            storage.close(end.saturating_sub(self.clock.now()));
        }
        self.core.close_inbox();
        tracing::info!(target: "adjourn_socketio", resumable = counts.resumable, "drained");
        DrainReport::new(raw, counts)
    }

    /// A turn of a loop that has no connections any more.
    fn rest(&mut self, clients: &mut Clients<'_, Conn>) {
        std::thread::sleep(REST);
        self.take_inputs(clients);
    }

    fn hard_sweep(&mut self, clients: &mut Clients<'_, Conn>) {
        self.input(clients, |core, now, links| core.hard_sweep(now, links));
        self.http.cut();
    }
}

impl Drop for Bridge {
    fn drop(&mut self) {
        self.core.close_inbox();
    }
}

impl Handler for Bridge {
    type Data = Conn;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Conn> {
        let route = route(&self.config.path, request.path(), request.query());
        match (request.is_upgrade(), route) {
            (true, Route::Engine) => self.upgrade(request),
            (true, Route::Application) => Upgrade::Reject(not_found()),
            (false, _) => self.plain(),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, Conn>, event: Event<'_>) {
        match event {
            Event::Open { id } => self.opened(clients, id),
            Event::Message { id, message, .. } => {
                let frame = match message {
                    Message::Text(text) => FrameRef::Text(text),
                    Message::Binary(bytes) => FrameRef::Binary(bytes),
                };
                self.input(clients, |core, now, links| {
                    core.websocket_message(link_of(id), frame, now, links);
                });
            }
            Event::Drain { id } => {
                self.input(clients, |core, now, links| core.websocket_drained(link_of(id), now, links));
            }
            Event::Closing { id, initiator, frame } => {
                let reason = reason_of_closing(initiator, &frame, self.phase);
                let code = Some(frame.code_or_1005());
                self.input(clients, |core, now, links| {
                    core.websocket_ended(link_of(id), reason, code, now, links);
                });
            }
            Event::Close { id, report } => {
                let (reason, code) = (reason_of_end(&report.cause), Some(report.effective_code()));
                self.input(clients, |core, now, links| {
                    core.websocket_ended(link_of(id), reason, code, now, links);
                });
                self.links.close(id);
            }
            Event::Phase { phase, stats, .. } => self.entered(clients, phase, &stats),
            _ => {}
        }
    }
}

/// The settings of a connection: the heartbeat is the engine's.
fn connection(config: &SocketIoConfig) -> Result<SharedConfig, StartError> {
    let mut connection = ConnectionConfig::default();
    connection.heartbeat = Heartbeat { interval: None, ..connection.heartbeat };
    connection.max_payload = config.input.max_payload;
    connection.max_backlog = config.output.send_queue;
    connection.close_timeout = config.times.close_timeout;
    // Nothing is looked at after a close.
    connection.closing_data = ClosingData::Discard;
    Ok(connection.share()?)
}

fn settings(config: &SocketIoConfig) -> StoreSettings {
    let mut settings = StoreSettings {
        once_window: config.once.window,
        max_once_keys: config.once.max_keys,
        max_ack: config.once.max_ack,
        ..StoreSettings::default()
    };
    if let Some(recovery) = &config.recovery {
        settings.window = recovery.window;
        settings.max_sessions = recovery.max_sessions;
        settings.max_replay = recovery.max_replay;
        settings.log_entries = recovery.log_entries;
        settings.log_bytes = recovery.log_bytes;
    }
    settings
}

fn not_found() -> RawResponse {
    RawResponse::new(404).expect("a final status")
}

/// The refusal of an upgrade, instead of the 101.
fn raw_response(refusal: &Refusal) -> RawResponse {
    let response = refusal.response();
    let mut raw = if response.status == 503 {
        RawResponse::unavailable(RETRY_AFTER)
    } else {
        RawResponse::new(response.status).unwrap_or_else(|_| not_found())
    };
    if let Some(content_type) = response.content_type {
        raw = raw.header("Content-Type", content_type).expect("a constant");
    }
    raw.header("Cache-Control", "no-store").expect("a constant").body(response.body.to_vec())
}
