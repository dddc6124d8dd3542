//! Sockets, rooms, namespaces, acks, log, recovery, once (specification 6 to 15). Sans-IO: inputs and `now` in, output
//! through [`Links`] and store calls out. No clock, no randomness, no threads, no `adjourn` enter.
//!
//! ```text
//! input --> expire --> engine --> packet --> rule (files below) --> handlers --> advance the store's queue
//!                                              `--> Links: at once                 `--> poll_store
//! ```
//!
//! | state of | states | changed by | table in |
//! |---|---|---|---|
//! | connection | open, ended | engine's outcome, `close`, `cut`, `disconnect_connection` | `disconnect.rs` |
//! | CONNECT | checking, storing, reading | verdict, store's answer, deadline | `connect.rs` |
//! | socket | live, catching up, ended | page of the log, disconnect | `replay.rs`, `disconnect.rs` |
//! | session | held, away, ended, lost | disconnect, commit, attach elsewhere | `sessions.rs` |
//! | log | `floor <= committed <= dispatched` | commit, dispatch, trim | `dispatch.rs`, `upkeep.rs` |
//! | store's queue | items, one batch in flight | call of the application, store's answer | `commits.rs` |
//! | ack awaited | waiting, done | answer, deadline, disconnect | `acks.rs` |
//!
//! Handlers are called with an [`Io`]: everything but the handlers. What they cause in other handlers (`on_disconnect`, callbacks)
//! waits in a list of upcalls until they have returned.

mod acks;
mod broadcast;
mod cluster;
mod command;
mod commits;
mod connect;
mod disconnect;
mod dispatch;
mod engine_only;
mod events;
mod inputs;
mod io;
mod namespace;
mod node_message;
mod nodes;
mod observe;
mod once;
mod replay;
mod replies;
mod sessions;
mod shutdown;
mod snapshot;
mod socket;
mod state;
mod upkeep;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

pub use self::broadcast::{Broadcast, IntoRooms};
pub use self::command::{FeedCommand, StoreCall, StoreCommand, StoreReply, Ticket};
pub use self::engine_only::EngineSession;
pub use self::namespace::Namespace;
use self::namespace::full_name;
pub use self::once::{KeyFrom, KeyScope, Once, OnceCall};
pub use self::socket::Socket;
pub use self::state::{
    Ack, AckMode, AckOptions, Answer, Answers, Call, Disconnect, EventError, Fetched, Handshake, Inbox,
    InboxError, Io, Observation, Observed, Peer, ResumeOutcome, ServerAnswers, ShutdownCounts, SocketInfo,
    Transport, Verdict,
};
use self::state::{
    Arena, Log, Queue, Rooms, Scope, Scratch, ShutdownPhase, Space, State, Timer, Timers, Waits,
};
use crate::config::{ConfigError, SocketIoConfig};
use crate::engine::EngineConfig;
use crate::links::Links;
use crate::packet::{PacketLimits, is_namespace};
use crate::stats::SocketIoStats;
use crate::store::{LogState, Millis};

/// Fills a buffer with random bytes.
pub type Random = Box<dyn FnMut(&mut [u8]) + Send>;

/// What the driver gives to a new core.
pub struct CoreSetup {
    /// This life of the store.
    pub epoch: u64,
    /// The logs that it has.
    pub logs: Vec<LogState>,
    /// The store's time at `now` = 0.
    pub wall: Millis,
    /// Fills a buffer with randomness: names of sessions, which are credentials.
    pub random: Random,
    /// Has the loop call `handle_inbox`.
    pub wake: Box<dyn Fn() + Send + Sync>,
}

/// The heart of the layer: all its state, and the application's handlers.
pub struct Core {
    state: State,
    handlers: Vec<Namespace>,
    predicates: Vec<(Predicate, usize)>,
    on_store_state: Option<Box<dyn FnMut(bool) + Send>>,
    /// Events of other nodes.
    server_handlers: HashMap<Box<str>, nodes::ServerHandler>,
    observer: Option<observe::Observer>,
    /// Instead of all that: Engine.IO alone.
    on_engine_message: Option<engine_only::EngineHandler>,
}

type Predicate = Box<dyn Fn(&str, Option<&str>) -> bool + Send>;

impl Core {
    /// A core without namespaces. `wall` and `now` = 0 are the same instant.
    pub fn new(config: SocketIoConfig, setup: CoreSetup) -> Result<Self, ConfigError> {
        config.check()?;
        let CoreSetup { epoch, logs, wall, random, wake } = setup;
        let drop_again = logs.iter().map(|log| Arc::clone(&log.namespace)).collect();
        let state = State {
            engine: engine_config(&config),
            packets: packet_limits(&config),
            epoch,
            cluster: None,
            wall,
            random,
            inbox: Inbox::new(config.counts.inbox, wake),
            config,
            heard: None,
            conns: Arena::default(),
            by_link: HashMap::default(),
            by_sid: HashMap::default(),
            unconnected: 0,
            polling: 0,
            spaces: Slab::new(),
            space_names: HashMap::new(),
            dynamic_spaces: 0,
            logs_found: logs.into_iter().map(|log| (Arc::clone(&log.namespace), log)).collect(),
            expiring: HashMap::new(),
            // Those whose names are not registered any more; the others are in use when upkeep looks.
            drop_again,
            sockets: Arena::default(),
            sessions: Arena::default(),
            by_pid: HashMap::new(),
            connecting: Arena::default(),
            claims: HashMap::new(),
            waits: Waits::default(),
            queue: Queue::default(),
            timers: Timers::default(),
            upcalls: VecDeque::new(),
            scope: Scope::default(),
            stats: SocketIoStats::default(),
            shutdown: ShutdownPhase::default(),
            shutdown_counts: ShutdownCounts::default(),
            stamp: 0,
            checkpoint_turn: 0,
            scratch: Scratch::default(),
            observing: None,
        };
        let mut core = Self {
            state,
            handlers: Vec::new(),
            predicates: Vec::new(),
            on_store_state: None,
            server_handlers: HashMap::new(),
            observer: None,
            on_engine_message: None,
        };
        core.io(Duration::ZERO, &mut NoLinks).arm_upkeep();
        Ok(core)
    }

    /// The handlers of a namespace; registers it. `/` is one like any other; `chat` is `/chat`.
    ///
    /// # Panics
    /// If no client can connect to it: a packet cannot name it, since there is a comma in it, or it is longer than `input.max_name`.
    pub fn namespace(&mut self, name: &str) -> &mut Namespace {
        let name = &*full_name(name);
        let max = self.state.config.input.max_name;
        assert!(
            is_namespace(name, max),
            "no client can connect to the namespace {name:?}: a name has no comma, and at most {max} bytes (input.max_name)"
        );
        if let Some(space) = self.state.space_names.get(name)
            && let Some(space) = self.state.spaces.get_mut(*space)
        {
            // A name that is registered later than a predicate has made it belongs to the name.
            if space.dynamic {
                space.dynamic = false;
                self.state.dynamic_spaces -= 1;
                space.handlers = self.handlers.len();
                self.handlers.push(Namespace::default());
            }
            return &mut self.handlers[space.handlers];
        }
        let handlers = self.handlers.len();
        self.handlers.push(Namespace::default());
        self.io(Duration::ZERO, &mut NoLinks).make_space(&Arc::from(name), handlers, false);
        &mut self.handlers[handlers]
    }

    /// The handlers of all namespaces that have no name registered and for which the predicate, given the name and the text of
    /// `auth`, says yes. They are made when a client connects, and dropped when nobody can come back.
    pub fn namespace_matching(
        &mut self,
        predicate: impl Fn(&str, Option<&str>) -> bool + Send + 'static,
    ) -> &mut Namespace {
        let handlers = self.handlers.len();
        self.handlers.push(Namespace::default());
        // Logs of an earlier life: their sessions may come back, and what is emitted meanwhile is for them.
        let found: Vec<Arc<str>> =
            self.state.logs_found.keys().filter(|name| predicate(name, None)).map(Arc::clone).collect();
        for name in found {
            self.state.dynamic_spaces += 1;
            self.io(Duration::ZERO, &mut NoLinks).adopt_space(&name, handlers);
        }
        self.predicates.push((Box::new(predicate), handlers));
        &mut self.handlers[handlers]
    }

    /// Called with `false` when the store is declared down, with `true` when it is back.
    pub fn on_store_state(&mut self, handler: impl FnMut(bool) + Send + 'static) {
        self.on_store_state = Some(Box::new(handler));
    }

    /// Calls `observer` for what happens to the sockets of all namespaces, after the present handler has returned; of `except`
    /// events are left out, so that the observer can send there. Costs a copy of each event, and an observation for each of its
    /// receivers. One observer: a second one replaces the first.
    pub fn observe(&mut self, except: &str, observer: impl FnMut(&mut Io<'_>, &Observed) + Send + 'static) {
        self.state.observing = Some(state::Observing::new(Arc::from(&*full_name(except))));
        self.observer = Some(Box::new(observer));
    }

    /// Calls `then` after `delay`, before there are connections.
    pub fn after(&mut self, delay: Duration, then: impl FnOnce(&mut Io<'_>) + Send + 'static) {
        self.io(Duration::ZERO, &mut NoLinks).after(delay, then);
    }

    /// Where other threads leave calls for the loop.
    pub fn inbox(&self) -> Inbox {
        self.state.inbox.clone()
    }

    /// Takes no more calls of other threads: the loop has ended.
    pub fn close_inbox(&self) {
        self.state.inbox.close();
    }

    /// The settings.
    pub const fn config(&self) -> &SocketIoConfig {
        &self.state.config
    }

    /// The settings of the engine that follow from them.
    pub const fn engine_config(&self) -> &EngineConfig {
        &self.state.engine
    }

    /// The counters now. Allocates.
    pub fn stats(&self) -> SocketIoStats {
        self.state.stats()
    }

    /// For tests: sessions that are being resumed.
    #[doc(hidden)]
    pub fn resuming(&self) -> usize {
        self.state.claims.len()
    }

    /// For tests: entries of the timers' queue, those included that will find nothing to do.
    #[doc(hidden)]
    pub fn timers(&self) -> usize {
        self.state.timers.len()
    }

    /// Code of the application that the driver has called has panicked: it is counted as a handler.
    pub fn application_panicked(&mut self) {
        self.state.handler_panicked();
    }

    /// A message of [`Core::poll_feed`] was not sent, since too many wait: it is counted.
    pub fn message_dropped(&mut self) {
        self.state.stats.node_messages_dropped += 1;
    }

    /// The store's time: what its calls are to be given as `now`.
    pub fn store_time(&self, now: Duration) -> Millis {
        self.state.millis(now)
    }

    /// When [`Core::handle_timeout`] is to be called, at the latest. Ask again after each input.
    pub fn next_timeout(&self) -> Option<Duration> {
        self.state.timers.next()
    }

    /// Says that the loop is behind: of what arrived after `heard` some may not have been handed over, so a pong that is due
    /// after it may have come. `None`: it is not behind.
    pub const fn set_heard(&mut self, heard: Option<Duration>) {
        self.state.heard = heard;
    }

    /// The next call for the store. Ask again after each input, until there is none.
    pub fn poll_store(&mut self) -> Option<StoreCommand> {
        self.state.queue.commands.pop_front()
    }

    fn io<'c>(&'c mut self, now: Duration, links: &'c mut dyn Links) -> Io<'c> {
        Io { state: &mut self.state, links, now }
    }

    fn with_io<T>(&mut self, now: Duration, links: &mut dyn Links, run: impl FnOnce(&mut Io<'_>) -> T) -> T {
        run(&mut self.io(now, links))
    }
}

impl Io<'_> {
    /// A namespace whose log was found at the start.
    fn adopt_space(&mut self, name: &Arc<str>, handlers: usize) {
        let key = self.make_space(name, handlers, true);
        let window = self.state.config.recovery.as_ref().map_or(Duration::ZERO, |recovery| recovery.window);
        if let Some(space) = self.state.spaces.get_mut(key) {
            space.resumable_until = self.now.saturating_add(window);
        }
        self.state.timers.set(self.now.saturating_add(window), Timer::Space(key));
    }

    /// A namespace that is used from now on.
    fn make_space(&mut self, name: &Arc<str>, handlers: usize, dynamic: bool) -> state::SpaceKey {
        let recovers = self.state.config.recovery.is_some();
        let found = self.state.logs_found.remove(name);
        // A shared log is known when it is read.
        let is_shared = self.follow(name);
        let found = found.filter(|_| !is_shared);
        let old = found.as_ref().map(|log| log.floor..log.tail);
        let space = Space {
            name: Arc::clone(name),
            handlers,
            dynamic,
            by_id: HashMap::new(),
            everyone: Vec::new(),
            rooms: Rooms::default(),
            log: recovers.then(|| Log::new(found)),
            connecting: 0,
            resumable_until: Duration::ZERO,
        };
        let key = self.state.spaces.insert(space);
        self.state.space_names.insert(Arc::clone(name), key);
        if let Some(range) = old.filter(|range| recovers && range.start < range.end) {
            // Before the first session of it is resumed: the writer's answers come later than this one is asked for.
            self.state.queue.read(StoreCall::Asks(Arc::clone(name), range), state::Read::Asks(key));
        }
        key
    }
}

fn engine_config(config: &SocketIoConfig) -> EngineConfig {
    EngineConfig {
        ping_interval: config.times.ping_interval,
        ping_timeout: config.times.ping_timeout,
        upgrade_timeout: config.times.upgrade_timeout,
        close_timeout: config.times.close_timeout,
        max_payload: config.input.max_payload,
        max_poll_response: config.output.max_poll_response,
        send_queue: config.output.send_queue,
        polling: config.polling,
        websocket: config.websocket,
    }
}

const fn packet_limits(config: &SocketIoConfig) -> PacketLimits {
    PacketLimits {
        max_attachments: config.input.max_attachments,
        max_depth: config.input.max_depth,
        max_attachment_bytes: config.input.max_attachment_bytes,
        max_name: config.input.max_name,
    }
}

/// Before there are connections.
struct NoLinks;

impl Links for NoLinks {
    fn send(
        &mut self,
        _: crate::links::LinkId,
        _: &[crate::links::Frame],
    ) -> Result<(), crate::links::SendRefused> {
        Err(crate::links::SendRefused::Gone)
    }

    fn send_to(
        &mut self,
        _: &[crate::links::LinkId],
        _: &[crate::links::Frame],
        _: &mut Vec<(crate::links::LinkId, crate::links::SendRefused)>,
    ) {
    }

    fn unsent(&mut self, _: crate::links::LinkId) -> usize {
        0
    }

    fn close(&mut self, _: crate::links::LinkId, _: crate::links::LinkClose) {}

    fn respond(&mut self, _: crate::links::RequestId, _: crate::links::Response) {}

    fn abort(&mut self, _: crate::links::RequestId) {}
}
