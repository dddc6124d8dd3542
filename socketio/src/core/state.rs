//! What the core knows: connections, namespaces, sockets, sessions. Data only; the rules are in the files beside this one.

mod api;
mod arena;
mod cluster;
mod connecting;
mod inbox;
mod log;
mod observing;
mod queue;
mod replay;
mod rooms;
mod timers;
mod waits;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;
use tracing::Span;

pub(crate) use self::api::refusal_name;
pub use self::api::{
    AckMode, AckOptions, Answer, Answers, Disconnect, EventError, Fetched, Handshake, Peer, ResumeOutcome,
    ServerAnswers, ShutdownCounts, SocketInfo, Transport, Verdict,
};
pub(crate) use self::arena::{Arena, Key, NumberMap};
pub(crate) use self::cluster::{Cluster, FetchThen, NodeRequest, RequestKind};
pub(crate) use self::connecting::{Ask, Claim, ConnectStep, Connecting, Resume};
pub use self::inbox::{Call, Inbox, InboxError};
pub(crate) use self::log::{Log, Trim};
pub(crate) use self::observing::Observing;
pub use self::observing::{Observation, Observed};
pub(crate) use self::queue::{
    Caller, EmitThen, InFlight, Item, MemberChange, Queue, QueuedEntry, Read, ReadBack, Reading, SavedThen,
    Sent, Step, TransactThen, Transaction,
};
pub(crate) use self::replay::Replay;
pub(crate) use self::rooms::{Address, Joined, Rooms};
pub(crate) use self::timers::{Timer, Timers};
pub use self::waits::Ack;
pub(crate) use self::waits::{AckThen, AnswersThen, FIRST_ASK, Group, Wait, Waits};
use crate::config::SocketIoConfig;
use crate::engine::{Context, Engine, EngineConfig, Sid};
use crate::links::{LinkId, Links, SendRefused};
use crate::offset::Position;
use crate::packet::{Decoder, PacketLimits};
use crate::stats::SocketIoStats;
use crate::store::{LogState, Millis, SessionRecord, SessionSummary};

pub(crate) type ConnKey = Key<Conn>;
pub(crate) type SocketKey = Key<SocketState>;
pub(crate) type SessionKey = Key<Session>;
pub(crate) type ConnectingKey = Key<Connecting>;
/// A namespace's place in [`State::spaces`].
pub(crate) type SpaceKey = usize;

/// A callback that gets the layer.
pub(crate) type Then = Box<dyn FnOnce(&mut Io<'_>) + Send>;

/// The layer: namespaces, sockets, timers. Handlers and callbacks get it; it lives as long as their call.
pub struct Io<'a> {
    pub(crate) state: &'a mut State,
    pub(crate) links: &'a mut dyn Links,
    pub(crate) now: Duration,
}

/// Which sockets take an unlogged event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reliability {
    /// All.
    Direct,
    /// Those that have little unsent and are not catching up.
    Volatile,
}

/// Everything but the handlers, so that a handler can be given the rest.
pub(crate) struct State {
    pub(crate) config: SocketIoConfig,
    pub(crate) engine: EngineConfig,
    pub(crate) packets: PacketLimits,
    /// This life of the log's writer.
    pub(crate) epoch: u64,
    /// With a store that other processes share: the other nodes.
    pub(crate) cluster: Option<Cluster>,
    /// The store's time at `now` = 0.
    pub(crate) wall: Millis,
    pub(crate) random: super::Random,
    pub(crate) inbox: Inbox,
    /// The loop is behind: what arrived after it has not been handed over. `None`: it is not.
    pub(crate) heard: Option<Duration>,
    pub(crate) conns: Arena<Conn>,
    pub(crate) by_link: NumberMap<LinkId, ConnKey>,
    pub(crate) by_sid: HashMap<Arc<str>, ConnKey>,
    /// Connections that have not sent one CONNECT.
    pub(crate) unconnected: usize,
    /// Connections that have no link: those on polling.
    pub(crate) polling: usize,
    pub(crate) spaces: Slab<Space>,
    pub(crate) space_names: HashMap<Arc<str>, SpaceKey>,
    pub(crate) dynamic_spaces: usize,
    /// Logs found at the start whose namespaces have not been used yet.
    pub(crate) logs_found: HashMap<Arc<str>, LogState>,
    /// Whose handlers namespaces had that were dropped, while their logs are in the store: the last of their sessions expire then.
    pub(crate) expiring: HashMap<Arc<str>, usize>,
    /// Logs of namespaces that were dropped while sessions of them were still in the store.
    pub(crate) drop_again: VecDeque<Arc<str>>,
    pub(crate) sockets: Arena<SocketState>,
    pub(crate) sessions: Arena<Session>,
    /// Those that are not lost.
    pub(crate) by_pid: HashMap<Arc<str>, SessionKey>,
    pub(crate) connecting: Arena<Connecting>,
    /// Sessions that are being resumed, by socket id.
    pub(crate) claims: HashMap<Arc<str>, Claim>,
    pub(crate) waits: Waits,
    pub(crate) queue: Queue,
    pub(crate) timers: Timers,
    pub(crate) upcalls: VecDeque<Upcall>,
    pub(crate) scope: Scope,
    pub(crate) stats: SocketIoStats,
    pub(crate) shutdown: ShutdownPhase,
    pub(crate) shutdown_counts: ShutdownCounts,
    /// Of the last walk over sockets; see [`SocketState::stamp`].
    pub(crate) stamp: u64,
    /// Which part of the sessions has its checkpoint next.
    pub(crate) checkpoint_turn: usize,
    pub(crate) scratch: Scratch,
    pub(crate) observing: Option<Observing>,
}

/// Buffers of a broadcast, kept between broadcasts.
#[derive(Default)]
pub(crate) struct Scratch {
    pub(crate) targets: Vec<SocketKey>,
    pub(crate) links: Vec<LinkId>,
    pub(crate) refused: Vec<(LinkId, SendRefused)>,
}

/// What of the application's is called when the present input or handler is done, in this order.
pub(crate) enum Upcall {
    /// `on_connection`.
    Connected(SocketKey),
    /// `on_disconnect`; then the socket is gone.
    Disconnected(SocketKey),
    /// A callback of one call.
    Then(Then),
    /// `on_session_expired`.
    Expired(SessionSummary),
    /// `on_store_state`.
    StoreState(bool),
    /// The observer.
    Observed(Box<Observed>),
    /// The next middleware of a CONNECT.
    Check(ConnectingKey),
}

/// The handler call that runs now: acks wait for what it has done before (specification 8).
#[derive(Clone, Copy, Default)]
pub(crate) struct Scope {
    /// Has it done anything that the store has still to commit?
    pub(crate) pending: bool,
    /// Its number. What it leaves in the store's queue is together there.
    pub(crate) call: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum ShutdownPhase {
    #[default]
    Running,
    /// New sessions are refused.
    LameDuck,
    /// Durable emits fail.
    Sweeping,
}

/// One Engine.IO session and what of Socket.IO is on it.
pub(crate) struct Conn {
    pub(crate) engine: Engine,
    pub(crate) decoder: Decoder,
    pub(crate) peer: Arc<Peer>,
    /// Its namespaces: few, so a list.
    pub(crate) bound: Vec<Bound>,
    /// Namespaces whose socket the server has ended, the last few: the client may not know yet.
    pub(crate) left: Vec<Arc<str>>,
    /// Has it ever sent a CONNECT?
    pub(crate) connected: bool,
    /// It has no socket, and is closed then.
    pub(crate) connect_deadline: Option<Duration>,
    /// Attachments are outstanding until then at most.
    pub(crate) attachments_deadline: Option<Duration>,
    /// The earliest of its entries among the timers.
    pub(crate) armed: Option<Duration>,
    /// Its WebSocket, and the one that probes it: known until they are reported closed.
    pub(crate) link: Option<LinkId>,
    pub(crate) probe: Option<LinkId>,
    /// A POST of it is being handled: it is kept until the POST is answered.
    pub(crate) posting: bool,
    /// Sockets of it that are catching up wait until nothing is unsent.
    pub(crate) replays: u32,
    /// What is traced of it is in here.
    pub(crate) span: Span,
}

/// A namespace of a connection.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    pub(crate) space: SpaceKey,
    pub(crate) to: BoundTo,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum BoundTo {
    Connecting(ConnectingKey),
    Socket(SocketKey),
}

/// A namespace that is in use.
pub(crate) struct Space {
    pub(crate) name: Arc<str>,
    /// Whose handlers it has.
    pub(crate) handlers: usize,
    /// Made by a predicate, so dropped when nobody can need it.
    pub(crate) dynamic: bool,
    pub(crate) by_id: HashMap<Arc<str>, SocketKey>,
    pub(crate) everyone: Vec<SocketKey>,
    pub(crate) rooms: Rooms,
    /// With recovery.
    pub(crate) log: Option<Log>,
    /// CONNECTs under way.
    pub(crate) connecting: usize,
    /// A session of it may be resumed until then.
    pub(crate) resumable_until: Duration,
}

/// A socket, from its CONNECT answer until `on_disconnect` has returned.
pub(crate) struct SocketState {
    /// The walk that saw it last: unions and exceptions without a set.
    pub(crate) stamp: u64,
    /// The link, on WebSocket: what a broadcast needs to know of the connection.
    pub(crate) link: Option<LinkId>,
    pub(crate) progress: Progress,
    /// Entries at or below were sent before it was live, or do not concern it.
    pub(crate) start: Position,
    /// The newest event sent to it.
    pub(crate) last: Position,
    pub(crate) session: Option<SessionKey>,
    pub(crate) conn: ConnKey,
    pub(crate) space: SpaceKey,
    /// Its place in [`Space::everyone`].
    pub(crate) place: usize,
    pub(crate) id: Arc<str>,
    pub(crate) rooms: Vec<Joined>,
    /// Changes that wait for their place in the log: the room, and `true` for a join.
    pub(crate) pending_rooms: Vec<(Arc<str>, bool)>,
    pub(crate) handshake: Arc<Handshake>,
    pub(crate) principal: Arc<str>,
    pub(crate) data: Option<Arc<str>>,
    pub(crate) outcome: ResumeOutcome,
    /// Acks below 2^40 that end with the socket.
    pub(crate) pending_acks: Vec<u64>,
    /// The last EVENT, for the idle policy.
    pub(crate) last_event: Duration,
    /// The idle policy's timer that counts; others find nothing to do.
    pub(crate) idle_at: Duration,
    pub(crate) idle_warned: bool,
    /// Of its connection, which may be gone before its end is reported.
    pub(crate) span: Span,
}

/// Where a socket stands in its namespace's log.
pub(crate) enum Progress {
    /// It gets what is dispatched.
    Live,
    /// Resumed: it gets what the log has, page by page.
    CatchingUp(Box<Replay>),
    /// Disconnected; `on_disconnect` is still to come.
    Ended(Box<Disconnect>),
}

/// A session of this process: exact in memory, in the store as of the last save.
pub(crate) struct Session {
    /// `last`, `checkpoint` and `data` are taken from the socket when it is saved.
    pub(crate) record: SessionRecord,
    /// Its socket, until that disconnects.
    pub(crate) socket: Option<SocketKey>,
    /// Has it changed since the last save was made up?
    pub(crate) dirty: bool,
    /// Saves under way.
    pub(crate) saving: u32,
    /// Membership changes and transactions that wait for their place in the log.
    pub(crate) pending: u32,
    /// It cannot be resumed: the next save removes it.
    pub(crate) ended: bool,
    /// Another attach has taken it: nothing is saved any more.
    pub(crate) lost: bool,
}

impl State {
    /// What an engine is called with.
    pub(crate) fn context<'s>(&'s self, now: Duration, links: &'s mut dyn Links) -> Context<'s> {
        Context { now, heard: self.heard.unwrap_or(now), config: &self.engine, links }
    }

    /// A connection, and what its engine is called with.
    #[inline]
    pub(crate) fn engine_of<'s>(
        &'s mut self,
        key: ConnKey,
        now: Duration,
        links: &'s mut dyn Links,
    ) -> Option<(&'s mut Conn, Context<'s>)> {
        let cx = Context { now, heard: self.heard.unwrap_or(now), config: &self.engine, links };
        self.conns.get_mut(key).map(|conn| (conn, cx))
    }

    /// The span of a connection; none, if it is gone.
    #[inline]
    pub(crate) fn span_of(&self, key: ConnKey) -> Span {
        self.conns.get(key).map_or_else(Span::none, |conn| conn.span.clone())
    }

    /// Code of the application has panicked.
    pub(crate) fn handler_panicked(&mut self) {
        self.stats.handler_panics += 1;
        tracing::error!(target: "adjourn_socketio", "handler_panic");
    }

    /// The store's time.
    pub(crate) fn millis(&self, now: Duration) -> Millis {
        self.wall.saturating_add(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
    }

    /// The epoch of what is dispatched now.
    pub(crate) fn epoch_of(&self, space: SpaceKey) -> u64 {
        let log = self.spaces.get(space).and_then(|space| space.log.as_ref());
        log.and_then(|log| log.epoch).unwrap_or(self.epoch)
    }

    /// A new name for a session or a socket.
    pub(crate) fn new_sid(&mut self) -> Sid {
        let mut bits = [0; 15];
        (self.random)(&mut bits);
        Sid::from_random(bits)
    }

    /// A random ack id in [2^40, 2^52).
    pub(crate) fn new_ask_id(&mut self) -> u64 {
        let mut bits = [0; 8];
        (self.random)(&mut bits);
        FIRST_ASK + u64::from_le_bytes(bits) % ((1 << 52) - FIRST_ASK)
    }

    /// The socket, if it is connected.
    #[inline]
    pub(crate) fn live(&self, key: SocketKey) -> Option<&SocketState> {
        self.sockets.get(key).filter(|socket| socket.is_connected())
    }

    /// The socket, if it is connected.
    #[inline]
    pub(crate) fn live_mut(&mut self, key: SocketKey) -> Option<&mut SocketState> {
        self.sockets.get_mut(key).filter(|socket| socket.is_connected())
    }
}

impl SocketState {
    pub(crate) const fn is_connected(&self) -> bool {
        !matches!(self.progress, Progress::Ended(_))
    }

    pub(crate) const fn is_catching_up(&self) -> bool {
        matches!(self.progress, Progress::CatchingUp(_))
    }
}

impl Space {
    pub(crate) fn enter_everyone(&mut self, key: SocketKey, sockets: &mut Arena<SocketState>) {
        if let Some(socket) = sockets.get_mut(key) {
            socket.place = self.everyone.len();
            self.everyone.push(key);
        }
    }

    pub(crate) fn leave_everyone(&mut self, key: SocketKey, sockets: &mut Arena<SocketState>) {
        let Some(place) = sockets.get(key).map(|socket| socket.place) else { return };
        if self.everyone.get(place) != Some(&key) {
            return;
        }
        self.everyone.swap_remove(place);
        if let Some(moved) = self.everyone.get(place).and_then(|moved| sockets.get_mut(*moved)) {
            moved.place = place;
        }
    }
}
