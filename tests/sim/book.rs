//! The book: what the simulated wire, the peers and the application really did to each connection, and so what the hub
//! must say and do. A second telling of CLOSING.md that shares no line with the first.
//!
//! Facts come from three sides: from the links ([`Book::wrote`], [`Book::fed`], [`Book::eof`], [`Book::reset`]), from
//! the application (`called_*`), and from the clock (`alarms.rs`). What the hub reports is only compared with them
//! (`reports.rs`), with one exception: which instant a paced sweep chose is the hub's own business.

use std::{
    cell::RefCell,
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    rc::Rc,
    time::Duration,
};

use adjourn::{
    Cause, CloseFrame, Config, ConnectionId, Heartbeat, Initiator, Lost, OnPeerClose, Phase, ProtocolError,
    State, Timing, conn::Input,
};

use crate::{
    alarms::Alarm,
    frames::{Breach, CLOSE, ClientLimits, ClientStream, Found, PONG, Seen, ServerStream},
    reports::ShutdownBook,
    tally::Tally,
};

/// A check that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub check: &'static str,
    /// What was seen.
    pub text: String,
    /// When, in microseconds.
    pub at: u64,
    /// Of which connection.
    pub connection: Option<u32>,
}

/// Fails the named check unless the condition holds.
macro_rules! ensure {
    ($book:expr, $conn:expr, $check:literal, $condition:expr, $($text:tt)+) => {
        if !$condition {
            $book.fail($check, $conn, format!($($text)+));
        }
    };
}
pub(crate) use ensure;

/// Writes to stderr if the run is traced.
macro_rules! trace {
    ($book:expr, $($text:tt)+) => {
        if $book.tracing {
            eprintln!("{:>12} us  {}", $book.now, format!($($text)+));
        }
    };
}
pub(crate) use trace;

/// What is different for one connection. A copy of what went into [`adjourn::Overrides`].
#[derive(Clone, Debug, Default)]
pub struct Own {
    pub close_timeout: Option<Duration>,
    pub flush_budget: Option<Duration>,
    pub heartbeat: Option<Heartbeat>,
    pub stall_timeout: Option<Option<Duration>>,
    pub max_payload: Option<usize>,
    pub max_backlog: Option<usize>,
    pub answer: Option<adjourn::Answer>,
    pub on_peer_close: Option<OnPeerClose>,
}

/// A Close frame of ours, as far as it is known beforehand.
#[derive(Clone, Debug)]
pub enum Expected {
    Frame(CloseFrame),
    /// With a reason that is the crate's business.
    Code(u16),
}

/// One connection.
#[derive(Debug)]
pub struct Facts {
    /// Where it is, as far as the facts say. `None` before it was accepted and after its slot was freed.
    pub state: Option<State>,
    pub id: Option<ConnectionId>,
    /// `Open`, `Closing`, `Close` and `HandshakeFailed` were delivered.
    pub opened: bool,
    pub closing: bool,
    pub closed: bool,
    pub failed: bool,
    pub paused: bool,
    /// The request's head is complete.
    pub head_done: bool,
    pub head_matched: u8,
    /// A byte has come.
    pub spoke: bool,
    pub touched: bool,
    /// The peer's FIN was handed in.
    pub eof: bool,
    /// When its last write began, it was not at its end.
    pub may_write: bool,
    /// It was aborted.
    pub aborted: bool,
    /// Accepted, answered, opened, or ended: when this part of its life began.
    pub since: u64,
    /// Bytes that came while it lingered.
    pub discarded: u64,
    pub last_inbound: u64,
    /// When a heartbeat's Ping was due that is not answered.
    pub pinged: Option<u64>,
    pub wire: ServerStream,
    /// A Close frame has begun, is complete, on the wire.
    pub close_begun: bool,
    pub close_done: bool,
    /// Since when something is queued that the link does not take, and when it last took something.
    pub behind: Option<u64>,
    pub progress: u64,
    pub own: Option<Box<Own>>,
    pub busy: Option<Box<Busy>>,
}

/// What only a connection has with which something is going on.
#[derive(Debug, Default)]
pub struct Busy {
    /// Messages that `send` accepted and that are not whole on the wire: number and length.
    pub queued: VecDeque<(Option<u64>, u64)>,
    /// How many of them were to be dropped at once, the one on the wire excepted.
    pub condemned: usize,
    pub spared: bool,
    pub accepted: u64,
    pub accepted_bytes: u64,
    pub handed: u64,
    pub handed_bytes: u64,
    pub inbound: ClientStream,
    /// Read while paused.
    pub held: Vec<u8>,
    pub pings_due: u64,
    pub pings: u64,
    pub last_ping: Option<Vec<u8>>,
    pub last_pong: Option<Vec<u8>>,
    /// Pongs were dropped with what had not begun.
    pub pongs_dropped: bool,
    pub ending: Option<Ending>,
}

/// The facts of an ending.
#[derive(Debug)]
pub struct Ending {
    pub initiator: Initiator,
    pub cause: Cause,
    pub sent: Option<Expected>,
    pub received: Option<(Option<u16>, String)>,
    pub began: u64,
    pub deadline: u64,
    pub flush_deadline: u64,
    /// The flush budget is used up: no message may begin.
    pub flush_over: bool,
    pub unanswered: bool,
    pub lost_in: u64,
    pub lost_in_bytes: u64,
    /// Payload of messages since the closing began.
    pub taken_in: u64,
    pub partial_in: (u64, u64),
    pub trailing: (u64, u64),
    pub sweeps: Vec<u32>,
    /// The abort style that was asked for; `None` is the book's ignorance.
    pub style: Option<adjourn::Abort>,
    /// What the kernel held at the abort.
    pub unsent: Option<u32>,
}

/// A `close_where` or `terminate_where`.
#[derive(Debug)]
pub struct SweepBook {
    pub terminates: bool,
    /// Whom the predicate chose, in order.
    pub chosen: Rc<RefCell<Vec<u32>>>,
    /// How many of `chosen` were looked at.
    pub seen: usize,
    /// When it began.
    pub began: u64,
    /// If it is by number: it chooses those whose number leaves this rest.
    pub rest: Option<(u32, u32)>,
    pub told: u64,
    pub ended: u64,
    pub clean: u64,
    pub timed_out: u64,
    pub lost: Lost,
    pub done: bool,
}

/// All facts of a world.
pub struct Book {
    pub now: u64,
    pub config: Config,
    pub facts: Vec<Facts>,
    pub failure: Option<Failure>,
    pub alarms: BinaryHeap<Reverse<(u64, u32, Alarm)>>,
    /// Connections that something happened to in this turn.
    pub touched: Vec<u32>,
    /// Those whose `Close`, `HandshakeFailed`, or release is due by the end of this turn.
    pub close_due: Vec<u32>,
    pub failure_due: Vec<u32>,
    pub release_due: Vec<u32>,
    pub sweeps: HashMap<u32, SweepBook>,
    /// By the reason of their Close frames.
    pub sweep_frames: HashMap<String, u32>,
    pub shutdown: Option<ShutdownBook>,
    pub phase: Phase,
    /// By how much turns began late, added up.
    pub late: u64,
    /// When deadlines last expired in more than one slice.
    pub sliced: u64,
    pub opens: u64,
    pub closes: u64,
    pub numbers: u64,
    pub tally: Tally,
    pub tracing: bool,
}

impl Book {
    pub fn new(config: Config, connections: usize, tracing: bool) -> Self {
        Self {
            now: 0,
            config,
            facts: std::iter::repeat_with(Facts::new).take(connections).collect(),
            failure: None,
            alarms: BinaryHeap::new(),
            touched: Vec::new(),
            close_due: Vec::new(),
            failure_due: Vec::new(),
            release_due: Vec::new(),
            sweeps: HashMap::new(),
            sweep_frames: HashMap::new(),
            shutdown: None,
            phase: Phase::Serving,
            late: 0,
            sliced: u64::MAX,
            opens: 0,
            closes: 0,
            numbers: 0,
            tally: Tally::default(),
            tracing,
        }
    }

    pub fn fail(&mut self, check: &'static str, connection: impl Into<Option<u32>>, text: String) {
        let connection = connection.into();
        trace!(self, "FAILED {check} ({connection:?}): {text}");
        if self.failure.is_none() {
            self.failure = Some(Failure { check, text, at: self.now, connection });
        }
    }

    pub fn of(&mut self, conn: u32) -> &mut Facts {
        &mut self.facts[conn as usize]
    }

    pub fn state(&self, conn: u32) -> Option<State> {
        self.facts[conn as usize].state
    }

    pub fn busy(&mut self, conn: u32) -> &mut Busy {
        self.of(conn).busy.get_or_insert_default()
    }

    fn ending(&mut self, conn: u32) -> Option<&mut Ending> {
        self.of(conn).busy.as_mut()?.ending.as_mut()
    }

    pub fn touch(&mut self, conn: u32) {
        if !std::mem::replace(&mut self.of(conn).touched, true) {
            self.touched.push(conn);
        }
    }

    /// Counts an input in the state it came in.
    pub fn cover(&mut self, conn: u32, input: Input) {
        if let Some(state) = self.state(conn) {
            self.tally.cover(state, input);
        }
    }

    // What it is set to.

    pub fn own(&self, conn: u32) -> Option<&Own> {
        self.facts[conn as usize].own.as_deref()
    }

    fn limits(&self, conn: u32) -> ClientLimits {
        let own = self.own(conn).and_then(|own| own.max_payload);
        ClientLimits {
            max_payload: own.unwrap_or(self.config.max_payload) as u64,
            max_fragments: self.config.max_fragments,
        }
    }

    pub fn heartbeat(&self, conn: u32) -> Heartbeat {
        self.own(conn).and_then(|own| own.heartbeat).unwrap_or(self.config.heartbeat)
    }

    pub fn stall_timeout(&self, conn: u32) -> Option<Duration> {
        self.own(conn).and_then(|own| own.stall_timeout).unwrap_or(self.config.stall_timeout)
    }

    pub fn max_backlog(&self, conn: u32) -> usize {
        self.own(conn).and_then(|own| own.max_backlog).unwrap_or(self.config.max_backlog)
    }

    fn close_timeout(&self, conn: u32, timing: Timing) -> Duration {
        let own = self.own(conn).and_then(|own| own.close_timeout);
        timing.close_timeout.or(own).unwrap_or(self.config.close_timeout)
    }

    fn flush_budget(&self, conn: u32, timing: Timing) -> Duration {
        let close_timeout = self.close_timeout(conn, timing);
        let own = self.own(conn).and_then(|own| own.flush_budget);
        let budget = timing.flush_budget.or(own).or(self.config.flush_budget);
        budget.unwrap_or(close_timeout / 2).min(close_timeout)
    }

    // The handshake.

    pub fn accepted(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        (facts.state, facts.since, facts.last_inbound) = (Some(State::Connecting), now, now);
        let at = after(now, self.config.handshake_timeout);
        self.set_alarm(at, conn, Alarm::Handshake);
        self.touch(conn);
    }

    /// The application answered in plain HTTP.
    pub fn answered(&mut self, conn: u32) {
        self.cover(conn, Input::PlainAnswer);
        self.begin_refusing(conn);
    }

    pub fn begin_refusing(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        (facts.state, facts.since) = (Some(State::Refusing), now);
        let at = after(now, self.config.linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    /// Bytes are handed to the hub. Returns how many of them belong to the request's head.
    pub fn read(&mut self, conn: u32, bytes: &[u8]) -> usize {
        let now = self.now;
        self.touch(conn);
        let facts = self.of(conn);
        facts.last_inbound = now;
        facts.spoke = true;
        if facts.pinged.take().is_some() {
            self.set_heartbeat_alarm(conn);
        }
        let facts = self.of(conn);
        if facts.head_done {
            return 0;
        }
        for (at, byte) in bytes.iter().enumerate() {
            facts.head_matched = match (facts.head_matched, byte) {
                (0 | 2, b'\r') => facts.head_matched + 1,
                (1 | 3, b'\n') => facts.head_matched + 1,
                (_, b'\r') => 1,
                _ => 0,
            };
            if facts.head_matched == 4 {
                facts.head_done = true;
                return at + 1;
            }
        }
        bytes.len()
    }

    pub fn set_heartbeat_alarm(&mut self, conn: u32) {
        if let Some(at) = self.due(conn, Alarm::Heartbeat) {
            self.set_alarm(at, conn, Alarm::Heartbeat);
        }
    }

    // Inbound frames.

    /// The hub has given a message, a Ping or a Pong for the bytes that begin here: takes from them what it was.
    pub fn fed(&mut self, conn: u32, bytes: &mut &[u8], given: Given<'_>) {
        while let Some(found) = self.pull(conn, bytes) {
            match (&found, given) {
                (Found::Message { text, payload }, _) if self.is_discarded(conn, payload.len()) => {
                    trace!(self, "#{conn} discards {} bytes, text: {text}", payload.len());
                }
                (Found::Message { text, payload }, Given::Message { text: t, payload: p, closing }) => {
                    self.cover(conn, Input::Data);
                    let state = self.state(conn);
                    ensure!(
                        self,
                        conn,
                        "message_is_what_was_sent",
                        *text == t && payload == p,
                        "other payload"
                    );
                    ensure!(
                        self,
                        conn,
                        "closing_mark",
                        closing == (state != Some(State::Open)),
                        "{closing} in {state:?}"
                    );
                    return;
                }
                (Found::Ping(payload), Given::Ping(p)) if payload == p => {
                    self.cover(conn, Input::Ping);
                    self.busy(conn).last_ping = Some(p.to_vec());
                    return;
                }
                (Found::Pong(payload), Given::Pong(p)) if payload == p => {
                    return self.cover(conn, Input::Pong);
                }
                _ => {
                    let text = format!("{given:?} was given for {found:?}");
                    return self.fail("nothing_but_what_was_sent", conn, text);
                }
            }
        }
        self.fail("nothing_but_what_was_sent", conn, format!("{given:?} was given for nothing"));
    }

    /// The hub gives nothing more for the bytes that begin here.
    pub fn fed_up(&mut self, conn: u32, mut bytes: &[u8], hub: Option<State>) {
        while !bytes.is_empty() {
            match self.state(conn) {
                Some(State::Open) if self.of(conn).paused => {
                    return self.busy(conn).held.extend_from_slice(bytes);
                }
                Some(State::Open | State::LocalClosing) => {}
                Some(State::RemoteClosing | State::Failing) => {
                    self.cover(conn, Input::Bytes);
                    if let Some(ending) = self.ending(conn) {
                        ending.trailing.0 += bytes.len() as u64;
                        ending.trailing.1 += bytes.len() as u64;
                    }
                    return;
                }
                _ => return self.discarded(conn, bytes.len()),
            }
            match self.pull(conn, &mut bytes) {
                None => break,
                Some(Found::Message { payload, .. }) if self.is_discarded(conn, payload.len()) => {}
                Some(Found::Close(code, reason)) => self.peer_closed(conn, code, reason),
                Some(Found::Breach(breach)) => self.peer_broke(conn, breach),
                Some(found) => {
                    return self.fail("all_that_was_sent_is_given", conn, format!("{found:?} was not"));
                }
            }
        }
        // A header that cannot be legal may be refused before it is whole.
        let suspect = self.of(conn).busy.as_ref().and_then(|busy| busy.inbound.suspect());
        let parsing = matches!(self.state(conn), Some(State::Open | State::LocalClosing));
        if let Some(breach) = suspect.filter(|_| parsing && hub != self.state(conn)) {
            self.peer_broke(conn, breach);
        }
    }

    /// Bytes came while it lingers: they have a budget.
    fn discarded(&mut self, conn: u32, n: usize) {
        self.cover(conn, Input::Bytes);
        let most = self.config.linger_bytes;
        let facts = self.of(conn);
        if !matches!(facts.state, Some(State::Refusing | State::Lingering)) {
            return;
        }
        facts.discarded += n as u64;
        if facts.discarded > most {
            facts.state = Some(State::Closed);
            self.cover(conn, Input::LingerEnd);
            self.release_due.push(conn);
        }
    }

    fn pull(&mut self, conn: u32, bytes: &mut &[u8]) -> Option<Found> {
        let limits = self.limits(conn);
        self.busy(conn).inbound.pull(bytes, limits)
    }

    /// Whether a message that comes during our closing is counted instead of delivered; if so, counts it.
    fn is_discarded(&mut self, conn: u32, len: usize) -> bool {
        let (paused, state) = (self.of(conn).paused, self.state(conn));
        let (most, policy) = (self.config.closing_bytes, self.config.closing_data);
        let Some(ending) = self.ending(conn).filter(|_| state == Some(State::LocalClosing)) else {
            return false;
        };
        ending.taken_in += len as u64;
        let discarded = paused || policy == adjourn::ClosingData::Discard || ending.taken_in > most;
        if discarded {
            ending.lost_in += 1;
            ending.lost_in_bytes += len as u64;
        }
        discarded
    }

    /// A valid Close was parsed.
    fn peer_closed(&mut self, conn: u32, code: Option<u16>, reason: String) {
        trace!(self, "#{conn} gets Close {code:?} {reason:?}");
        let flushed = self.of(conn).close_done;
        self.cover(conn, if flushed { Input::PeerCloseAfterFlush } else { Input::PeerClose });
        if self.state(conn) == Some(State::Open) {
            self.begin_ending(
                conn,
                State::RemoteClosing,
                Initiator::Remote,
                Cause::PeerClose,
                Timing::default(),
            );
            let own = self.own(conn);
            let manual =
                own.and_then(|own| own.answer).unwrap_or(self.config.answer) == adjourn::Answer::Manual;
            let drops = own.and_then(|own| own.on_peer_close).unwrap_or(self.config.on_peer_close)
                == OnPeerClose::DropQueued;
            let answer = answer_to(code);
            if drops {
                self.condemn(conn);
            }
            if let Some(ending) = self.ending(conn) {
                ending.received = Some((code, reason));
                ending.unanswered = manual;
                ending.sent = (!manual).then_some(Expected::Frame(answer));
            }
        } else {
            if !flushed && let Some(ending) = self.ending(conn) {
                (ending.initiator, ending.cause) = (Initiator::Both, Cause::Crossed);
            }
            if let Some(ending) = self.ending(conn) {
                ending.received = Some((code, reason));
            }
            if flushed {
                self.finish(conn);
            } else {
                self.of(conn).state = Some(State::RemoteClosing);
            }
        }
        self.drop_inbound(conn, None);
    }

    /// A rule was broken.
    fn peer_broke(&mut self, conn: u32, breach: Breach) {
        trace!(self, "#{conn} breaks a rule: {breach:?}");
        let flushed = self.of(conn).close_done;
        self.cover(conn, if flushed { Input::ViolationAfterFlush } else { Input::Violation });
        let (cause, code) = match breach {
            Breach::Protocol => (Cause::Protocol(ProtocolError::ReservedBits), 1002),
            Breach::TooBig => (Cause::TooBig { limit: 0 }, 1009),
            Breach::Utf8 => (Cause::InvalidUtf8, 1007),
        };
        if self.state(conn) == Some(State::Open) {
            self.begin_failing(conn, cause, code, Timing::default());
            self.drop_inbound(conn, Some(breach));
            return;
        }
        if let Some(ending) = self.ending(conn) {
            ending.cause = cause;
        }
        self.drop_inbound(conn, Some(breach));
        if flushed {
            self.finish(conn);
        } else {
            self.of(conn).state = Some(State::Failing);
            self.cut_flush_budget(conn);
        }
    }

    /// What was received and will not be delivered: a message that is not whole, and what was held back.
    fn drop_inbound(&mut self, conn: u32, breach: Option<Breach>) {
        let (limits, breached) = (self.limits(conn), breach.is_some());
        let busy = self.busy(conn);
        let held = std::mem::take(&mut busy.held);
        let (mut rest, mut messages, mut bytes) = (held.as_slice(), 0, 0);
        loop {
            match busy.inbound.pull(&mut rest, limits) {
                Some(Found::Message { payload, .. }) => {
                    (messages, bytes) = (messages + 1, bytes + payload.len());
                }
                Some(Found::Ping(_) | Found::Pong(_)) => {}
                Some(Found::Close(..) | Found::Breach(_)) | None => break,
            }
        }
        let inbound = std::mem::take(&mut busy.inbound);
        if let Some(ending) = &mut busy.ending {
            ending.lost_in += messages;
            ending.lost_in_bytes += bytes as u64;
            ending.partial_in.0 += if breached { 0 } else { inbound.partial() };
            ending.partial_in.1 += inbound.partial();
            // Where exactly a breach is noticed is the parser's business.
            ending.trailing.1 += if breached { inbound.since_frame() } else { 0 };
        }
    }

    // What the transport brings.

    /// The peer's FIN is handed to the hub.
    pub fn eof(&mut self, conn: u32) {
        trace!(self, "#{conn} reads EOF in {:?}", self.state(conn));
        self.touch(conn);
        self.cover(conn, Input::Eof);
        self.of(conn).eof = true;
        match self.state(conn) {
            Some(State::Connecting) => self.failure_due.push(conn),
            Some(State::Open) => self.abort(conn, Cause::PeerFin, Initiator::Transport, None),
            Some(State::LocalClosing) => self.abort(conn, Cause::PeerFinDuringClose, Initiator::Local, None),
            Some(State::Failing) => self.abort(conn, Cause::PeerFin, Initiator::Local, None),
            Some(State::Lingering) => self.release(conn),
            Some(State::Refusing | State::RemoteClosing | State::Closed) | None => {}
        }
    }

    /// An error of the socket is handed to the hub.
    pub fn reset(&mut self, conn: u32, kind: std::io::ErrorKind) {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        trace!(self, "#{conn} reads {kind:?} in {:?}", self.state(conn));
        let reset = matches!(kind, ConnectionReset | BrokenPipe);
        let cause = |cause| if reset { cause } else { Cause::Io(kind) };
        self.touch(conn);
        self.cover(conn, Input::Reset);
        match self.state(conn) {
            Some(State::Connecting) => self.failure_due.push(conn),
            Some(State::Open) => {
                let cause = cause(Cause::PeerReset);
                self.abort(conn, cause, Initiator::Transport, Some(adjourn::Abort::Reset));
            }
            Some(State::LocalClosing | State::RemoteClosing | State::Failing) => {
                let cause = cause(Cause::PeerResetDuringClose);
                self.abort(conn, cause, Initiator::Local, Some(adjourn::Abort::Reset));
            }
            Some(State::Refusing | State::Lingering) => self.release(conn),
            Some(State::Closed) | None => {}
        }
    }

    fn release(&mut self, conn: u32) {
        self.of(conn).state = Some(State::Closed);
        self.release_due.push(conn);
    }

    /// The hub is about to write.
    pub fn will_write(&mut self, conn: u32) {
        self.touch(conn);
        let state = self.state(conn);
        let may = matches!(
            state,
            Some(State::Open | State::LocalClosing | State::RemoteClosing | State::Failing | State::Refusing)
        );
        self.of(conn).may_write = may;
    }

    /// The link took these bytes.
    pub fn wrote(&mut self, conn: u32, mut bytes: &[u8]) {
        let now = self.now;
        let facts = self.of(conn);
        facts.progress = now;
        let may = facts.may_write;
        ensure!(self, conn, "nothing_written_after_the_end", may, "{} bytes", bytes.len());
        loop {
            match self.of(conn).wire.pull(&mut bytes) {
                Ok(None) => return,
                Ok(Some(seen)) => self.saw(conn, seen),
                Err(text) => return self.fail("whole_frames_on_the_wire", conn, text),
            }
        }
    }

    fn saw(&mut self, conn: u32, seen: Seen) {
        if !matches!(seen, Seen::Begun(_)) {
            trace!(self, "#{conn} writes {seen:?}");
        }
        let opened = self.of(conn).opened;
        match seen {
            Seen::Answer(status) => {
                let refused = self.state(conn) == Some(State::Refusing);
                let right = (status == 101) == opened && (status == 101) != refused;
                ensure!(self, conn, "the_answer_fits", right, "{status} in {:?}", self.state(conn));
            }
            Seen::Begun(opcode) => {
                let close = self.of(conn).close_begun;
                let right = !close || opcode == PONG;
                ensure!(self, conn, "only_pongs_behind_a_close", right, "opcode {opcode}");
                if opcode == CLOSE {
                    self.of(conn).close_begun = true;
                } else if opcode < CLOSE {
                    let over = self.ending(conn).is_some_and(|ending| ending.flush_over);
                    ensure!(self, conn, "flush_budget", !over, "a message begins after the flush budget");
                }
            }
            Seen::Data { length, number } => self.handed(conn, length, number),
            Seen::Ping => self.busy(conn).pings += 1,
            Seen::Pong(payload) => self.busy(conn).last_pong = Some(payload),
            Seen::Close(payload) => self.close_flushed(conn, &payload),
        }
    }

    /// A message is wholly in the kernel: which, and which were passed over?
    fn handed(&mut self, conn: u32, length: u64, number: Option<u64>) {
        let busy = self.busy(conn);
        busy.handed += 1;
        busy.handed_bytes += length;
        loop {
            let condemned = busy.condemned > 0;
            busy.condemned = busy.condemned.saturating_sub(1);
            match busy.queued.pop_front() {
                Some((n, len)) if n == number && len == length => {
                    let again =
                        busy.queued.iter().skip(busy.condemned).any(|later| *later == (number, length));
                    if condemned && number.is_none() && again {
                        continue; // One without a number looks like another.
                    }
                    if condemned && !std::mem::take(&mut busy.spared) {
                        self.fail(
                            "dropped_is_dropped",
                            conn,
                            format!("message {number:?} was to be dropped"),
                        );
                    }
                    return;
                }
                // Passed over: it must have been dropped, which the account at the end will show.
                Some(_) => {}
                None => {
                    let text =
                        format!("message {number:?} of {length} bytes, which was not sent, or not in order");
                    return self.fail("messages_in_order", conn, text);
                }
            }
        }
    }

    fn close_flushed(&mut self, conn: u32, payload: &[u8]) {
        self.of(conn).close_done = true;
        self.cover(conn, Input::Flushed);
        let expected = self.ending(conn).and_then(|ending| ending.sent.clone());
        let right = match &expected {
            None => false,
            Some(Expected::Frame(frame)) => payload == payload_of(frame),
            Some(Expected::Code(code)) => payload.get(..2) == Some(&code.to_be_bytes()),
        };
        ensure!(self, conn, "the_close_that_was_meant", right, "{payload:?} instead of {expected:?}");
        match self.state(conn) {
            Some(State::RemoteClosing | State::Failing) => self.finish(conn),
            Some(State::LocalClosing) => {}
            state => self.fail("the_close_that_was_meant", conn, format!("a Close in {state:?}")),
        }
    }

    // Endings.

    fn begin_ending(&mut self, conn: u32, state: State, initiator: Initiator, cause: Cause, timing: Timing) {
        let now = self.now;
        let deadline = after(now, self.close_timeout(conn, timing));
        let flush_deadline = after(now, self.flush_budget(conn, timing));
        self.of(conn).state = Some(state);
        self.busy(conn).ending = Some(Ending {
            initiator,
            cause,
            sent: None,
            received: None,
            began: now,
            deadline,
            flush_deadline,
            flush_over: false,
            unanswered: false,
            lost_in: 0,
            lost_in_bytes: 0,
            taken_in: 0,
            partial_in: (0, 0),
            trailing: (0, 0),
            sweeps: Vec::new(),
            style: None,
            unsent: None,
        });
        self.set_alarm(deadline, conn, Alarm::Close);
        self.set_alarm(flush_deadline, conn, Alarm::Flush);
        self.touch(conn);
    }

    /// We close it, or a sweep does.
    pub fn begin_local(&mut self, conn: u32, cause: Cause, frame: CloseFrame, timing: Timing) {
        self.begin_ending(conn, State::LocalClosing, Initiator::Local, cause, timing);
        if let Some(ending) = self.ending(conn) {
            ending.sent = Some(Expected::Frame(frame));
        }
    }

    /// We fail it (§7.1.7).
    pub fn begin_failing(&mut self, conn: u32, cause: Cause, code: u16, timing: Timing) {
        self.begin_ending(conn, State::Failing, Initiator::Local, cause, timing);
        if let Some(ending) = self.ending(conn) {
            ending.sent = Some(Expected::Code(code));
        }
        self.cut_flush_budget(conn);
    }

    /// A failing connection has one more write for what is queued.
    fn cut_flush_budget(&mut self, conn: u32) {
        let at = self.now + 1;
        if let Some(ending) = self.ending(conn) {
            ending.flush_deadline = at;
        }
        self.set_alarm(at, conn, Alarm::Flush);
    }

    /// Its outcome is fixed and FIN follows: `Close` is due.
    fn finish(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        (facts.state, facts.since) = (Some(State::Lingering), now);
        let half_closed = facts.eof;
        self.close_due.push(conn);
        if half_closed {
            self.of(conn).state = Some(State::Closed);
            return self.release_due.push(conn);
        }
        let at = after(now, self.config.linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    /// It ends without ceremony: `Close` is due. The first failure stays the cause.
    pub fn abort(&mut self, conn: u32, cause: Cause, initiator: Initiator, style: Option<adjourn::Abort>) {
        trace!(self, "#{conn} is to be aborted: {cause:?}");
        let failing = self.state(conn) == Some(State::Failing);
        if self.state(conn) == Some(State::Open) {
            self.begin_ending(conn, State::Closed, initiator, cause, Timing::default());
        }
        self.drop_inbound(conn, None);
        self.of(conn).state = Some(State::Closed);
        if let Some(ending) = self.ending(conn) {
            ending.style = style;
            if !failing {
                ending.cause = cause;
            }
        }
        self.close_due.push(conn);
    }

    /// What is queued and has not begun is to be dropped.
    pub fn condemn(&mut self, conn: u32) {
        let spared = self.of(conn).wire.cut_data().is_some();
        let busy = self.busy(conn);
        (busy.condemned, busy.spared, busy.pongs_dropped) = (busy.queued.len(), spared, true);
    }

    /// See [`Book::drop_inbound`].
    pub fn drop_inbound_now(&mut self, conn: u32) {
        self.drop_inbound(conn, None);
    }

    // What the application asks for.

    /// `send` was accepted; also a kick's message.
    pub fn called_send(&mut self, conn: u32, number: Option<u64>, length: usize) {
        let busy = self.busy(conn);
        busy.queued.push_back((number, length as u64));
        busy.accepted += 1;
        busy.accepted_bytes += length as u64;
        self.touch(conn);
    }

    /// `max_backlog` was exceeded and the policy is to end such a connection.
    pub fn overflowed(&mut self, conn: u32, queued: u64) {
        self.cover(conn, Input::Overflow);
        if self.state(conn) == Some(State::Open) && self.config.on_overflow == adjourn::OnOverflow::Fail {
            self.begin_failing(conn, Cause::Overflow { queued }, 1013, Timing::default());
            self.drop_inbound(conn, None);
        }
    }

    /// A later `close` may shorten the deadline.
    pub fn shorten(&mut self, conn: u32, timing: Timing) {
        let Some(timeout) = timing.close_timeout else { return };
        let (at, half) = (after(self.now, timeout), after(self.now, timeout / 2));
        if let Some(ending) = self.ending(conn).filter(|ending| at < ending.deadline) {
            ending.deadline = at;
            // The Close still needs its part of what is left.
            if ending.flush_deadline != u64::MAX {
                ending.flush_deadline = ending.flush_deadline.min(half);
            }
            let flush = ending.flush_deadline;
            self.set_alarm(at, conn, Alarm::Close);
            self.set_alarm(flush, conn, Alarm::Flush);
        }
    }

    pub fn called_answer(&mut self, conn: u32, frame: CloseFrame) {
        self.cover(conn, Input::AnswerClose);
        self.touch(conn);
        if let Some(ending) = self.ending(conn) {
            (ending.unanswered, ending.sent) = (false, Some(Expected::Frame(frame)));
        }
    }

    pub fn is_unanswered(&self, conn: u32) -> bool {
        let facts = &self.facts[conn as usize];
        let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
        facts.state == Some(State::RemoteClosing) && ending.is_some_and(|ending| ending.unanswered)
    }

    pub fn called_resume(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        if std::mem::take(&mut facts.paused) {
            // Silence that we imposed is not the peer's.
            (facts.last_inbound, facts.pinged) = (now, None);
            self.set_heartbeat_alarm(conn);
        }
        self.touch(conn);
    }

    /// Takes what was held back, as the hub does.
    pub fn take_held(&mut self, conn: u32) {
        if let Some(busy) = &mut self.of(conn).busy {
            busy.held = Vec::new();
        }
    }
}

/// What the hub gave for some bytes.
#[derive(Clone, Copy, Debug)]
pub enum Given<'a> {
    Message { text: bool, payload: &'a [u8], closing: bool },
    Ping(&'a [u8]),
    Pong(&'a [u8]),
}

impl Facts {
    fn new() -> Self {
        Self {
            state: None,
            id: None,
            opened: false,
            closing: false,
            closed: false,
            failed: false,
            paused: false,
            head_done: false,
            head_matched: 0,
            spoke: false,
            touched: false,
            eof: false,
            may_write: false,
            aborted: false,
            since: 0,
            discarded: 0,
            last_inbound: 0,
            pinged: None,
            wire: ServerStream::default(),
            close_begun: false,
            close_done: false,
            behind: None,
            progress: 0,
            own: None,
            busy: None,
        }
    }
}

/// A moment, `by` later.
pub fn after(at: u64, by: Duration) -> u64 {
    at.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX))
}

/// How a Close is answered: its code, without the reason.
pub fn answer_to(code: Option<u16>) -> CloseFrame {
    code.and_then(|code| CloseFrame::new(code, "").ok()).unwrap_or(CloseFrame::EMPTY)
}

/// The payload that a frame must have on the wire.
pub fn payload_of(frame: &CloseFrame) -> Vec<u8> {
    frame.code().map_or_else(Vec::new, |code| crate::frames::close_bytes(code, frame.reason().as_bytes()))
}
