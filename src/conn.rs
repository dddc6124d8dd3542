//! ROOM: one connection as a value. Bytes and `now` in; events, bytes and a deadline out. No clock and no socket
//! enters, and no other connection.
//!
//! The life of a connection is [`state::step`]; this file carries out what it asks for. Whatever happens goes through
//! [`Conn::apply`], so that nothing begins or ends anywhere else.
//!
//! A quiet connection is this struct and nothing more. What it may own besides is in [`Work`], absent when quiet: the
//! pieces of a cut message, the backlog, and, once closing begins, the [`Ending`].

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

mod inbound;
mod outbound;
mod path;
pub mod state;

pub use self::{
    inbound::Cursor,
    state::{Effect, Input, State, Step, step},
};
pub(crate) use self::{
    inbound::{Inbound, Item, Limits},
    outbound::{Cork, Corked, MAX_SLICES},
    path::Path,
};
use self::outbound::{Backlog, Dropped};
use crate::{
    close::{Cause, CloseCode, CloseFrame, Closed, Initiator, Lost},
    config::{Abort, Answer, ClosingData, Config, OnOverflow, OnPeerClose, Overrides},
    error::{HandshakeCause, SendError, Violation},
    event::{Data, Message, Stats, SweepReport},
    shutdown::{Phase, SweepId},
    time::Time,
    wire::{
        header::{Opcode, frame_length},
        upgrade::{HeadScanner, Refusal},
    },
};

/// What a connection needs from its hub while something happens to it.
pub(crate) struct Context<'h> {
    pub(crate) config: &'h Config,
    pub(crate) cork: &'h mut Cork,
    pub(crate) now: Time,
    /// What is to be reported, in order.
    pub(crate) notes: &'h mut VecDeque<Note>,
    pub(crate) id: crate::ConnectionId,
}

/// A report that waits for its delivery.
#[derive(Debug)]
pub(crate) enum Note {
    Open(crate::ConnectionId),
    Drain(crate::ConnectionId),
    Closing(crate::ConnectionId, Initiator, CloseFrame),
    Close(crate::ConnectionId, Box<Ended>),
    Failed(SocketAddr, HandshakeCause),
    SweepDone(SweepId, SweepReport),
    Phase(Phase, Stats),
}

/// The report of an ending, and what the hub's books need besides.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) closed: Closed,
    pub(crate) sweeps: Vec<SweepId>,
    /// Just before the end: where it was, and how much was queued.
    pub(crate) state: State,
    pub(crate) queued: usize,
}

/// What the driver still has to do for a connection; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Todo(u8);

impl Todo {
    pub(crate) const WRITE: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const FIN: u8 = 4;
    pub(crate) const ABORT: u8 = 8;
    pub(crate) const RELEASE: u8 = 16;
    /// The deadline may have moved to an earlier moment.
    pub(crate) const ALARM: u8 = 32;
    const FOR_THE_DRIVER: u8 = 31;

    pub(crate) fn add(&mut self, what: u8) {
        self.0 |= what;
    }

    pub(crate) const fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    /// Takes `what` out; says whether it was in.
    pub(crate) fn take(&mut self, what: u8) -> bool {
        let had = self.has(what);
        self.0 &= !what;
        had
    }

    /// Whether there is nothing for the driver to do.
    pub(crate) const fn is_idle(self) -> bool {
        self.0 & Self::FOR_THE_DRIVER == 0
    }
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    state: State,
    pub(crate) todo: Todo,
    /// The hub has it in its list of those with something to do.
    pub(crate) listed: bool,
    flags: Flags,
    pub(crate) generation: u32,
    /// Milliseconds from the last inbound byte to our Ping; 0 if no Ping is unanswered.
    ping_after: u32,
    /// Bytes discarded while lingering.
    discarded: u32,
    /// When it came into this part of its life: accepted, answered, opened, or FIN sent.
    since: Time,
    last_inbound: Time,
    corked: Corked,
    peer: Peer,
    path: Path,
    work: Option<Box<Work>>,
    extras: Option<Box<Extras>>,
}

#[derive(Clone, Copy, Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
struct Flags {
    /// The application does not want input.
    paused: bool,
    /// The kernel took less than it was offered, and has not said since that it would take more.
    blocked: bool,
    /// A `Drain` is owed.
    behind: bool,
    /// The peer's FIN was seen while something was still to be flushed.
    eof: bool,
    /// Bytes of a request have been seen.
    spoke: bool,
}

/// What only a busy or an ending connection owns.
#[derive(Debug, Default)]
pub(crate) struct Work {
    pub(crate) inbound: Inbound,
    backlog: Backlog,
    /// When the kernel last took a byte of the backlog.
    progress: Time,
    /// Bytes that were read and not parsed: behind a `pause`, or the beginning of a request.
    held: Vec<u8>,
    head: HeadScanner,
    ending: Option<Box<Ending>>,
}

/// What few connections have, for all of their life.
#[derive(Debug, Default)]
struct Extras {
    subprotocol: Option<Box<str>>,
    overrides: Overrides,
}

/// The facts of an ending, from which [`Closed`] is made.
#[derive(Debug)]
struct Ending {
    initiator: Initiator,
    cause: Cause,
    sent: Option<CloseFrame>,
    /// Bytes until our Close is wholly in the kernel.
    to_flush: usize,
    received: Option<CloseFrame>,
    lost: Lost,
    began: Time,
    deadline: Time,
    flush_deadline: Time,
    /// Bytes of messages delivered since.
    delivered: u64,
    /// The application has yet to answer the peer's Close.
    unanswered: bool,
    sweeps: Vec<SweepId>,
    abort: Abort,
    /// At an abort: where it was and how much was queued.
    aborted: (State, usize),
}

impl Ending {
    fn new(initiator: Initiator, cause: Cause, now: Time) -> Self {
        Self {
            initiator,
            cause,
            sent: None,
            to_flush: 0,
            received: None,
            lost: Lost::default(),
            began: now,
            deadline: Time::NEVER,
            flush_deadline: Time::NEVER,
            delivered: 0,
            unanswered: false,
            sweeps: Vec::new(),
            abort: Abort::Reset,
            aborted: (State::Open, 0),
        }
    }

    fn sent_flushed(&self) -> bool {
        self.sent.is_some() && self.to_flush == 0
    }

    fn count(&mut self, dropped: Dropped) {
        self.lost.messages += dropped.messages;
        self.lost.bytes += dropped.bytes;
        self.lost.partial += dropped.partial;
    }
}

/// How long a closing handshake may take, where the caller says otherwise than the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// See [`Config::close_timeout`].
    pub close_timeout: Option<Duration>,
    /// See [`Config::flush_budget`].
    pub flush_budget: Option<Duration>,
}

/// Why an input happens; what its effects need to know.
enum Why<'m> {
    Nothing,
    /// `close`, `kick` and sweeps.
    Close { frame: CloseFrame, cause: Cause, timing: Timing },
    Kick { message: Message<'m>, frame: CloseFrame, drop_queued: bool, timing: Timing },
    PeerClose(CloseFrame),
    Answer(CloseFrame),
    /// We fail it with this Close.
    Fail { cause: Cause, frame: CloseFrame, timing: Timing },
    /// It ends without a Close of its own.
    End { cause: Cause, initiator: Initiator, abort: Abort },
    Handshake { cause: Option<HandshakeCause>, response: Vec<u8> },
}

impl Conn {
    pub(crate) fn new(peer: SocketAddr, generation: u32, now: Time) -> Self {
        Self {
            state: State::Connecting,
            todo: Todo::default(),
            listed: false,
            flags: Flags::default(),
            generation,
            ping_after: 0,
            discarded: 0,
            since: now,
            last_inbound: now,
            corked: Corked::default(),
            peer: Peer::from(peer),
            path: Path::default(),
            work: None,
            extras: None,
        }
    }

    // What others may look at.

    pub(crate) const fn state(&self) -> State {
        self.state
    }

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.address()
    }

    pub(crate) fn path(&self) -> &str {
        self.path.as_str()
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.extras.as_ref()?.subprotocol.as_deref()
    }

    pub(crate) const fn since(&self) -> Time {
        self.since
    }

    pub(crate) const fn last_inbound(&self) -> Time {
        self.last_inbound
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.flags.paused
    }

    pub(crate) const fn spoke(&self) -> bool {
        self.flags.spoke
    }

    /// Bytes that were accepted and are not in the kernel, headers included.
    pub(crate) fn buffered_amount(&self) -> usize {
        self.corked.len() + self.work.as_ref().map_or(0, |work| work.backlog.len())
    }

    pub(crate) fn sweeps(&self) -> &[SweepId] {
        self.ending().map_or(&[], |ending| &ending.sweeps)
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.ending().is_some_and(|ending| ending.unanswered)
    }

    /// It lingered for more bytes than it may: the peer will not stop, so its descriptor goes with a reset.
    pub(crate) fn exceeded_linger(&self, config: &Config) -> bool {
        u64::from(self.discarded) > config.linger_bytes
    }

    /// Whether it owns more than its slot. A quiet connection does not.
    pub(crate) fn owns_buffers(&self) -> bool {
        self.work.is_some()
    }

    fn ending(&self) -> Option<&Ending> {
        self.work.as_ref()?.ending.as_deref()
    }

    fn ending_mut(&mut self) -> Option<&mut Ending> {
        self.work.as_mut()?.ending.as_deref_mut()
    }

    fn overrides(&self) -> Option<&Overrides> {
        self.extras.as_ref().map(|extras| &extras.overrides)
    }

    fn limits(&self, config: &Config) -> Limits {
        let max_payload = self.overrides().and_then(|o| o.max_payload).unwrap_or(config.max_payload);
        Limits { max_payload: max_payload as u64, max_fragments: config.max_fragments, expect_mask: true }
    }

    fn max_backlog(&self, config: &Config) -> usize {
        self.overrides().and_then(|o| o.max_backlog).unwrap_or(config.max_backlog)
    }

    fn abort_style(&self, config: &Config) -> Abort {
        self.overrides().and_then(|o| o.abort).unwrap_or(config.abort)
    }

    pub(crate) fn set_overrides(&mut self, overrides: Overrides) {
        self.extras.get_or_insert_default().overrides = overrides;
    }

    // Deadlines.

    /// When [`Conn::handle_timeout`] is to be called next. Only ever moves earlier by an event, later by activity.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Time> {
        match self.state {
            State::Connecting => Some(self.since.after(config.handshake_timeout)),
            State::Refusing | State::Lingering => Some(self.since.after(config.linger_timeout)),
            State::Open => match (self.heartbeat_due(config), self.stall_due(config)) {
                (Some(heartbeat), Some(stall)) => Some(heartbeat.min(stall)),
                (heartbeat, stall) => heartbeat.or(stall),
            },
            State::LocalClosing | State::RemoteClosing | State::Failing => {
                self.ending().map(|ending| ending.deadline.min(ending.flush_deadline))
            }
            State::Closed => None,
        }
    }

    fn heartbeat_due(&self, config: &Config) -> Option<Time> {
        let heartbeat = self.overrides().and_then(|o| o.heartbeat).unwrap_or(config.heartbeat);
        let interval = heartbeat.interval?;
        if self.flags.paused {
            return None;
        }
        Some(match self.ping_after {
            0 => self.last_inbound.after(interval),
            after => self.last_inbound.after(Duration::from_millis(u64::from(after))).after(heartbeat.timeout),
        })
    }

    fn stall_due(&self, config: &Config) -> Option<Time> {
        let timeout = self.overrides().and_then(|o| o.stall_timeout).unwrap_or(config.stall_timeout)?;
        let work = self.work.as_ref()?;
        (!work.backlog.is_empty()).then(|| work.progress.after(timeout))
    }

    /// Carries out what is due at `now`; nothing if nothing is.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.config).is_none_or(|due| due > cx.now) {
            return;
        }
        match self.state {
            State::Connecting => {
                let mut response = Vec::new();
                Refusal::TIMEOUT.write(&mut response);
                let why = Why::Handshake { cause: Some(HandshakeCause::Timeout), response };
                self.apply(Input::HandshakeTimeout, why, cx);
            }
            State::Refusing | State::Lingering => self.apply(Input::LingerEnd, Why::Nothing, cx),
            State::Open => self.handle_open_timeout(cx),
            State::LocalClosing | State::RemoteClosing | State::Failing => {
                if self.ending().is_some_and(|ending| ending.deadline <= cx.now) {
                    let (flushed, state) = (self.ending().is_some_and(Ending::sent_flushed), self.state);
                    let cause = Cause::CloseTimeout { flushed };
                    let abort = self.abort_style(cx.config);
                    let initiator = Initiator::Local;
                    debug_assert!(state.is_closing());
                    self.apply(Input::CloseTimeout, Why::End { cause, initiator, abort }, cx);
                } else {
                    self.handle_flush_budget(cx);
                }
            }
            State::Closed => {}
        }
    }

    fn handle_open_timeout(&mut self, cx: &mut Context<'_>) {
        let abort = self.abort_style(cx.config);
        if self.stall_due(cx.config).is_some_and(|due| due <= cx.now) {
            let why = Why::End { cause: Cause::WriteStall, initiator: Initiator::Local, abort };
            return self.apply(Input::WriteStall, why, cx);
        }
        if self.ping_after == 0 {
            return self.apply(Input::HeartbeatIdle, Why::Nothing, cx);
        }
        let cause = Cause::HeartbeatTimeout;
        if self.buffered_amount() == 0 {
            let frame = CloseFrame::with_constant(CloseCode::INTERNAL_ERROR, "heartbeat timeout");
            // The Close has this turn to get into the kernel; then comes the abort.
            let timing = Timing { close_timeout: Some(Duration::ZERO), flush_budget: None };
            self.apply(Input::HeartbeatTimeout, Why::Fail { cause, frame, timing }, cx);
        } else {
            self.apply(Input::HeartbeatTimeoutQueued, Why::End { cause, initiator: Initiator::Local, abort }, cx);
        }
    }

    fn handle_flush_budget(&mut self, cx: &mut Context<'_>) {
        if let Some(ending) = self.ending_mut() {
            ending.flush_deadline = Time::NEVER;
        }
        self.apply(Input::FlushBudget, Why::Nothing, cx);
        if let Some(frame) = self.ending().filter(|e| e.unanswered).and_then(|e| e.received.clone()) {
            self.apply(Input::AnswerClose, Why::Answer(frame.answer()), cx);
        }
    }

    // What the transport brings.

    /// `n` bytes arrived, whatever they are.
    pub(crate) fn touch(&mut self, now: Time) {
        self.last_inbound = now;
        self.ping_after = 0;
        self.flags.spoke = true;
    }

    /// Whether the driver should read.
    pub(crate) const fn wants_read(&self) -> bool {
        match self.state {
            State::Open => !self.flags.paused,
            State::Connecting
            | State::Refusing
            | State::LocalClosing
            | State::RemoteClosing
            | State::Failing
            | State::Lingering => true,
            State::Closed => false,
        }
    }

    /// Bytes of a state in which nothing is parsed.
    pub(crate) fn handle_discarded(&mut self, n: usize, cx: &mut Context<'_>) {
        if n == 0 || !step(self.state, Input::Bytes).effects.contains(&Effect::Discard) {
            return;
        }
        if let Some(ending) = self.ending_mut() {
            ending.lost.trailing_bytes += n as u64;
            return;
        }
        self.discarded = self.discarded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        if u64::from(self.discarded) > cx.config.linger_bytes {
            self.apply(Input::LingerEnd, Why::Nothing, cx);
        }
    }

    pub(crate) fn handle_eof(&mut self, cx: &mut Context<'_>) {
        self.flags.eof = true;
        let (cause, initiator) = match self.state {
            State::LocalClosing => (Cause::PeerFinDuringClose, Initiator::Local),
            _ => (Cause::PeerFin, Initiator::Transport),
        };
        let why = if self.state == State::Connecting {
            Why::Handshake { cause: Some(HandshakeCause::PeerFin), response: Vec::new() }
        } else {
            Why::End { cause, initiator, abort: Abort::Auto }
        };
        self.apply(Input::Eof, why, cx);
    }

    /// The socket failed: reset, EPIPE or another error.
    pub(crate) fn handle_reset(&mut self, kind: io::ErrorKind, cx: &mut Context<'_>) {
        let reset =
            matches!(kind, io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted);
        let why = if self.state == State::Connecting {
            let cause = if reset { HandshakeCause::PeerReset } else { HandshakeCause::Io(kind) };
            Why::Handshake { cause: Some(cause), response: Vec::new() }
        } else {
            let cause = match (reset, self.state) {
                (false, _) => Cause::Io(kind),
                (true, State::Open) => Cause::PeerReset,
                (true, _) => Cause::PeerResetDuringClose,
            };
            Why::End { cause, initiator: Initiator::Transport, abort: Abort::Reset }
        };
        self.apply(Input::Reset, why, cx);
    }

    // Inbound frames.

    /// The next thing that `cursor` holds for the application. What needs no telling is dealt with on the way.
    pub(crate) fn next<'b>(&mut self, cursor: &mut Cursor<'b>, cx: &mut Context<'_>) -> Option<Item<'b>> {
        loop {
            match self.state {
                State::Open if self.flags.paused => {
                    let rest = cursor.take_all();
                    if !rest.is_empty() {
                        self.work.get_or_insert_default().held.extend_from_slice(rest);
                    }
                    return None;
                }
                State::Open | State::LocalClosing => {}
                State::Connecting
                | State::Refusing
                | State::RemoteClosing
                | State::Failing
                | State::Lingering
                | State::Closed => {
                    let n = cursor.take_all().len();
                    self.handle_discarded(n, cx);
                    return None;
                }
            }
            let limits = self.limits(cx.config);
            match Inbound::next(&mut self.work, cursor, limits) {
                Ok(None) => {
                    self.tidy();
                    return None;
                }
                Ok(Some(item)) => {
                    if let Some(item) = self.admit(item, cursor, cx) {
                        return Some(item);
                    }
                }
                Err(violation) => self.fail(violation, cx),
            }
        }
    }

    /// The kernel takes more again.
    pub(crate) fn handle_writable(&mut self) {
        self.flags.blocked = false;
        self.want_write();
    }

    /// Asks for a write, unless the kernel has just refused one.
    fn want_write(&mut self) {
        if !self.flags.blocked && self.buffered_amount() > 0 {
            self.todo.add(Todo::WRITE);
        }
    }

    /// Deals with a whole item; gives it back if the application is to see it.
    fn admit<'b>(&mut self, item: Item<'b>, cursor: &mut Cursor<'b>, cx: &mut Context<'_>) -> Option<Item<'b>> {
        match &item {
            Item::Message(_, payload) => self.deliver(payload.len(), cx.config).then_some(item),
            Item::JoinedMessage(_) => self.deliver(cursor.scratch().len(), cx.config).then_some(item),
            Item::Control(opcode, payload) => self.control(*opcode, payload, cx).then_some(item),
            Item::JoinedControl(opcode, at) => {
                let (opcode, at) = (*opcode, *at);
                let payload = cursor.scratch().get(at..).unwrap_or_default();
                self.control(opcode, payload, cx).then_some(item)
            }
        }
    }

    /// Whether a message is delivered. One that comes during our closing may be counted instead.
    fn deliver(&mut self, len: usize, config: &Config) -> bool {
        let paused = self.flags.paused;
        let Some(ending) = self.ending_mut() else { return true };
        ending.delivered += len as u64;
        let sated = ending.delivered > config.closing_bytes;
        if paused || sated || config.closing_data == ClosingData::Discard {
            ending.lost.inbound_messages += 1;
            ending.lost.inbound_bytes += len as u64;
            return false;
        }
        true
    }

    /// A control frame. Returns whether the application is told.
    fn control(&mut self, opcode: Opcode, payload: &[u8], cx: &mut Context<'_>) -> bool {
        match opcode {
            Opcode::Ping => {
                if step(self.state, Input::Ping).effects.contains(&Effect::QueuePong) {
                    self.push_control(Opcode::Pong, payload, cx.cork, cx.now);
                }
                true
            }
            Opcode::Pong => true,
            _ => {
                match CloseFrame::parse(payload) {
                    Ok(frame) => {
                        let flushed = self.ending().is_some_and(Ending::sent_flushed);
                        let input = if flushed { Input::PeerCloseAfterFlush } else { Input::PeerClose };
                        self.apply(input, Why::PeerClose(frame), cx);
                    }
                    Err(violation) => self.fail(violation, cx),
                }
                false
            }
        }
    }

    /// §7.1.7: the peer broke a rule.
    pub(crate) fn fail(&mut self, violation: Violation, cx: &mut Context<'_>) {
        let frame = match violation {
            Violation::Protocol(_) => CloseFrame::with_constant(CloseCode::PROTOCOL, "protocol error"),
            Violation::TooBig { .. } => CloseFrame::with_constant(CloseCode::TOO_BIG, "message too big"),
            Violation::InvalidUtf8 => CloseFrame::with_constant(CloseCode::INVALID_DATA, "invalid UTF-8"),
        };
        let flushed = self.ending().is_some_and(Ending::sent_flushed);
        let input = if flushed { Input::ViolationAfterFlush } else { Input::Violation };
        self.apply(input, Why::Fail { cause: violation.into(), frame, timing: Timing::default() }, cx);
    }

    // What the application asks for.

    /// Queues a message, or says why not.
    pub(crate) fn send(&mut self, message: Message<'_>, cx: &mut Context<'_>) -> Result<(), SendError> {
        self.check_send(message.len(), cx)?;
        self.push_message(message, cx.cork, cx.now);
        Ok(())
    }

    /// Whether a message of `len` bytes may be queued now.
    pub(crate) fn check_send(&mut self, len: usize, cx: &mut Context<'_>) -> Result<(), SendError> {
        let input = if self.is_unanswered() { Input::SendUnanswered } else { Input::Send };
        if !step(self.state, input).effects.contains(&Effect::QueueMessage) {
            return Err(SendError::Closing);
        }
        let (queued, message, limit) = (self.buffered_amount(), frame_length(len, false), self.max_backlog(cx.config));
        if queued.saturating_add(message) > limit {
            if cx.config.on_overflow == OnOverflow::Fail {
                let frame = CloseFrame::with_constant(CloseCode::TRY_AGAIN_LATER, "slow consumer");
                let cause = Cause::Overflow { queued: queued as u64 };
                self.apply(Input::Overflow, Why::Fail { cause, frame, timing: Timing::default() }, cx);
            }
            return Err(SendError::Overflow { queued, message, limit });
        }
        Ok(())
    }

    /// Queues a frame that others get too. The caller has asked [`Conn::check_send`].
    pub(crate) fn push_shared(&mut self, frame: &Shared<'_>, cx: &mut Context<'_>) {
        match frame {
            Shared::Corked(start, end) => {
                if !self.has_backlog() && self.corked.extend(cx.cork, *start, *end) {
                    return self.want_write();
                }
                let bytes = cx.cork.bytes.get(*start..*end).unwrap_or_default().to_vec();
                self.uncork(cx.cork, cx.now);
                self.backlog(cx.now).push_rest(&bytes, 0);
            }
            Shared::Counted(frame) => {
                self.uncork(cx.cork, cx.now);
                self.backlog(cx.now).push_shared(frame);
            }
        }
        self.want_write();
    }

    pub(crate) fn ping(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Result<(), SendError> {
        if payload.len() > crate::wire::header::MAX_CONTROL_PAYLOAD {
            return Err(SendError::ControlTooLong(payload.len()));
        }
        self.check_send(payload.len(), cx)?;
        self.push_control(Opcode::Ping, payload, cx.cork, cx.now);
        Ok(())
    }

    /// Begins the closing handshake. Returns whether this call did.
    pub(crate) fn close(&mut self, frame: CloseFrame, cause: Cause, timing: Timing, cx: &mut Context<'_>) -> bool {
        let was_open = self.state == State::Open;
        self.apply(Input::Close, Why::Close { frame, cause, timing }, cx);
        was_open
    }

    pub(crate) fn kick(
        &mut self,
        message: Message<'_>,
        frame: CloseFrame,
        drop_queued: bool,
        timing: Timing,
        cx: &mut Context<'_>,
    ) -> bool {
        let was_open = self.state == State::Open;
        self.apply(Input::Kick, Why::Kick { message, frame, drop_queued, timing }, cx);
        was_open
    }

    /// Answers the peer's Close where that is the application's business. Returns whether it was.
    pub(crate) fn answer_close(&mut self, frame: CloseFrame, cx: &mut Context<'_>) -> bool {
        let unanswered = self.is_unanswered();
        if unanswered {
            self.apply(Input::AnswerClose, Why::Answer(frame), cx);
        }
        unanswered
    }

    /// Ends it at once. Returns whether there was something to end.
    pub(crate) fn terminate(&mut self, style: Option<Abort>, cx: &mut Context<'_>) -> bool {
        let abort = style.unwrap_or(cx.config.terminate);
        self.end(Input::Terminate, Cause::Terminated, abort, cx)
    }

    /// The hard sweep of a shutdown.
    pub(crate) fn hard_sweep(&mut self, style: Option<Abort>, cx: &mut Context<'_>) -> bool {
        let abort = style.unwrap_or_else(|| self.abort_style(cx.config));
        self.end(Input::HardSweep, Cause::ShutdownHard, abort, cx)
    }

    fn end(&mut self, input: Input, cause: Cause, abort: Abort, cx: &mut Context<'_>) -> bool {
        let before = self.state;
        let why = if before == State::Connecting {
            let cause =
                if input == Input::HardSweep { HandshakeCause::ShuttingDown } else { HandshakeCause::Rejected };
            Why::Handshake { cause: Some(cause), response: Vec::new() }
        } else {
            Why::End { cause, initiator: Initiator::Local, abort }
        };
        self.apply(input, why, cx);
        before != self.state
    }

    /// The soft sweep found it without one byte of a request.
    pub(crate) fn sweep_silent(&mut self, cx: &mut Context<'_>) {
        let why = Why::Handshake { cause: Some(HandshakeCause::ShuttingDown), response: Vec::new() };
        self.apply(Input::SweptSilent, why, cx);
    }

    /// Its ending is cut to `deadline` at the latest.
    pub(crate) fn shorten(&mut self, deadline: Time) {
        if let Some(ending) = self.ending_mut() {
            ending.deadline = ending.deadline.min(deadline);
        }
    }

    pub(crate) fn join_sweep(&mut self, sweep: SweepId) {
        if let Some(ending) = self.ending_mut() {
            ending.sweeps.push(sweep);
        }
    }

    pub(crate) fn pause(&mut self) {
        self.flags.paused = true;
    }

    /// Reads again; what was read and not parsed comes first.
    pub(crate) fn resume(&mut self, now: Time) {
        if self.flags.paused {
            self.flags.paused = false;
            // Silence that we imposed is not the peer's.
            self.last_inbound = now;
            self.ping_after = 0;
            self.todo.add(Todo::READ | Todo::ALARM);
        }
    }

    /// The upgrade was accepted: `response` is the 101.
    pub(crate) fn establish(
        &mut self,
        response: Vec<u8>,
        path: &str,
        subprotocol: Option<&str>,
        overrides: Option<Overrides>,
        cx: &mut Context<'_>,
    ) {
        self.path = Path::new(path);
        if subprotocol.is_some() || overrides.is_some() {
            let (subprotocol, overrides) = (subprotocol.map(Box::from), overrides.unwrap_or_default());
            self.extras = Some(Box::new(Extras { subprotocol, overrides }));
        }
        self.apply(Input::Upgrade, Why::Handshake { cause: None, response }, cx);
    }

    /// The request is refused, or answered with plain HTTP if there is no `cause`.
    pub(crate) fn refuse(&mut self, response: Vec<u8>, cause: Option<HandshakeCause>, cx: &mut Context<'_>) {
        let input = if cause.is_some() { Input::Refusal } else { Input::PlainAnswer };
        self.apply(input, Why::Handshake { cause, response }, cx);
    }

    // The request's head, before there are frames.

    /// What was read and not parsed yet, and how far the scanner has looked at it.
    pub(crate) fn head(&mut self) -> (&mut Vec<u8>, &mut HeadScanner) {
        let work = self.work.get_or_insert_default();
        (&mut work.held, &mut work.head)
    }

    pub(crate) fn has_held(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.held.is_empty())
    }

    pub(crate) fn take_held(&mut self) -> Vec<u8> {
        self.work.as_mut().map(|work| std::mem::take(&mut work.held)).unwrap_or_default()
    }

    /// See [`Inbound::direct`].
    pub(crate) fn direct(&mut self, worth: u64) -> Option<(&mut Vec<u8>, u64)> {
        if !matches!(self.state, State::Open | State::LocalClosing) || self.flags.paused {
            return None;
        }
        self.work.as_mut()?.inbound.direct(worth)
    }

    /// Bytes were appended to what [`Conn::direct`] lent. Returns the message if that completed it.
    pub(crate) fn handle_direct<'b>(
        &mut self,
        from: usize,
        cursor: &mut Cursor<'b>,
        cx: &mut Context<'_>,
    ) -> Option<Item<'b>> {
        let appended = self.work.as_mut()?.inbound.appended(from, cursor.scratch());
        match appended {
            Ok(kind) => {
                let item = self.admit(Item::JoinedMessage(kind?), cursor, cx);
                self.tidy();
                item
            }
            Err(violation) => {
                self.fail(violation, cx);
                None
            }
        }
    }

    // Output.

    fn has_backlog(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.backlog.is_empty())
    }

    fn backlog(&mut self, now: Time) -> &mut Backlog {
        let work = self.work.get_or_insert_default();
        if work.backlog.is_empty() {
            work.progress = now;
            self.todo.add(Todo::ALARM);
        }
        &mut work.backlog
    }

    /// Moves what is in the cork to the backlog.
    fn uncork(&mut self, cork: &mut Cork, now: Time) {
        if !self.corked.is_empty() {
            let corked = self.corked;
            self.backlog(now).push_rest(corked.bytes(cork), 0);
            self.corked.clear(cork);
        }
    }

    fn push_message(&mut self, message: Message<'_>, cork: &mut Cork, now: Time) {
        let opcode = match message.kind {
            crate::event::Kind::Text => Opcode::Text,
            crate::event::Kind::Binary => Opcode::Binary,
        };
        match message.data {
            Data::Borrowed(payload) => self.push_frame(opcode, payload, cork, now),
            Data::Scratch(payload) if payload.len() < OWN_BUFFER => self.push_frame(opcode, payload, cork, now),
            Data::Owned(payload) if payload.len() < OWN_BUFFER => self.push_frame(opcode, &payload, cork, now),
            Data::Scratch(payload) => self.push_owned(opcode, std::mem::take(payload), cork, now),
            Data::Owned(payload) => self.push_owned(opcode, payload, cork, now),
        }
    }

    fn push_owned(&mut self, opcode: Opcode, payload: Vec<u8>, cork: &mut Cork, now: Time) {
        self.uncork(cork, now);
        self.backlog(now).push_owned(None, opcode, payload);
        self.want_write();
    }

    fn push_frame(&mut self, opcode: Opcode, payload: &[u8], cork: &mut Cork, now: Time) {
        if !self.has_backlog() && self.corked.reaches_end(cork) && !cork.is_full() {
            let start = cork.bytes.len();
            outbound::write_frame(&mut cork.bytes, None, opcode, payload);
            let end = cork.bytes.len();
            self.corked.extend(cork, start, end);
        } else {
            self.uncork(cork, now);
            self.backlog(now).push_frame(None, opcode, payload);
        }
        self.want_write();
    }

    /// A control frame goes behind what is queued; of Pongs in the backlog only the newest is kept (§5.5.3).
    fn push_control(&mut self, opcode: Opcode, payload: &[u8], cork: &mut Cork, now: Time) {
        if opcode == Opcode::Pong && self.has_backlog() {
            self.backlog(now).push_pong(None, payload);
            return self.want_write();
        }
        self.push_frame(opcode, payload, cork, now);
    }

    /// Offers what is queued to the kernel, in as few writes as it takes. The writer returns how much it took.
    ///
    /// # Errors
    /// The socket's, other than `WouldBlock`. The connection still stands: read what the peer sent before, then
    /// report the error by [`Conn::handle_reset`].
    pub(crate) fn transmit(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        if !self.corked.is_empty() {
            let corked = self.corked;
            let bytes = corked.bytes(cx.cork);
            let n = accepted(writer(&[IoSlice::new(bytes)]))?;
            if n < bytes.len() {
                (self.flags.blocked, self.flags.behind) = (true, true);
                self.backlog(cx.now).push_rest(bytes, n);
            }
            self.corked.clear(cx.cork);
            self.handle_written(n, cx);
        } else if self.has_backlog() {
            self.transmit_backlog(cx, writer)?;
        }
        Ok(())
    }

    fn transmit_backlog(
        &mut self,
        cx: &mut Context<'_>,
        writer: &mut dyn FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    ) -> io::Result<()> {
        let mut total = 0;
        let mut drained = false;
        while let Some(work) = &mut self.work {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let count = work.backlog.slices(&mut slices);
            let slices = slices.get(..count).unwrap_or_default();
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            if offered == 0 {
                break;
            }
            let n = accepted(writer(slices))?;
            if n > 0 {
                work.progress = cx.now;
                work.backlog.advance(n);
                total += n;
            }
            if work.backlog.is_empty() {
                drained = std::mem::take(&mut self.flags.behind);
                break;
            }
            if n < offered {
                (self.flags.blocked, self.flags.behind) = (true, true);
                break;
            }
        }
        if drained && self.state == State::Open {
            cx.notes.push_back(Note::Drain(cx.id));
        }
        self.handle_written(total, cx);
        Ok(())
    }

    /// `n` more bytes are in the kernel: was the Close, or the HTTP answer, among them?
    fn handle_written(&mut self, n: usize, cx: &mut Context<'_>) {
        if let Some(ending) = self.ending_mut() {
            let due = ending.to_flush > 0;
            ending.to_flush = ending.to_flush.saturating_sub(n);
            if due && ending.to_flush == 0 && ending.sent.is_some() {
                self.apply(Input::Flushed, Why::Nothing, cx);
            }
        } else if self.state == State::Refusing && !self.has_backlog() {
            self.apply(Input::Flushed, Why::Nothing, cx);
        }
        self.tidy();
    }

    /// Gives back what a quiet connection does not need.
    fn tidy(&mut self) {
        if let Some(work) = &self.work
            && work.ending.is_none()
            && work.inbound.is_idle()
            && work.backlog.is_empty()
            && work.held.is_empty()
            && self.state != State::Connecting
        {
            self.work = None;
        }
    }

    // The state machine.

    /// Lets `input` happen: the only place where `state` changes.
    fn apply(&mut self, input: Input, mut why: Why<'_>, cx: &mut Context<'_>) {
        let Step { next, effects } = step(self.state, input);
        let before = std::mem::replace(&mut self.state, next);
        self.todo.add(Todo::ALARM);
        self.note_cause(before, input, &why, cx.now);
        for effect in effects {
            self.carry_out(*effect, before, &mut why, cx);
        }
    }

    /// Writes down who and why, before the effects make use of it. The first cause of an ending is its cause.
    fn note_cause(&mut self, before: State, input: Input, why: &Why<'_>, now: Time) {
        if self.state == before || !before.is_established() {
            return;
        }
        let fresh = match why {
            Why::Close { cause, .. } => (Initiator::Local, *cause),
            Why::Kick { .. } => (Initiator::Local, Cause::Kicked),
            Why::PeerClose(_) => (Initiator::Remote, Cause::PeerClose),
            Why::Fail { cause, .. } => (Initiator::Local, *cause),
            Why::End { cause, initiator, .. } => (*initiator, *cause),
            Why::Nothing | Why::Answer(_) | Why::Handshake { .. } => return,
        };
        let work = self.work.get_or_insert_default();
        let Some(ending) = &mut work.ending else {
            work.ending = Some(Box::new(Ending::new(fresh.0, fresh.1, now)));
            return;
        };
        match (before, why) {
            // Ours was queued and not wholly in the kernel: they crossed (§7.1.5 still takes the peer's code).
            (State::LocalClosing, Why::PeerClose(_)) if input == Input::PeerClose => {
                (ending.initiator, ending.cause) = (Initiator::Both, Cause::Crossed);
            }
            // Answered: the cause is why we closed.
            (State::LocalClosing, Why::PeerClose(_)) => {}
            // The first failure is the cause, whatever ends the connection then.
            (State::Failing, _) => {}
            _ => ending.cause = fresh.1,
        }
    }

    fn carry_out(&mut self, effect: Effect, before: State, why: &mut Why<'_>, cx: &mut Context<'_>) {
        match effect {
            Effect::Establish | Effect::Answer => self.queue_response(effect, why, cx),
            Effect::ReportFailure => {
                if let Why::Handshake { cause: Some(cause), .. } = why {
                    cx.notes.push_back(Note::Failed(self.peer(), *cause));
                }
            }
            // The callers of `apply` or of `step` have these at hand and do them on the spot.
            Effect::Deliver | Effect::Discard | Effect::QueuePong | Effect::Refuse => {}
            Effect::QueueMessage => {
                if let Why::Kick { message, drop_queued, .. } = why {
                    let message = std::mem::replace(message, Message::binary(&[]));
                    if *drop_queued {
                        self.drop_unbegun(cx);
                    }
                    self.push_message(message, cx.cork, cx.now);
                }
            }
            Effect::QueuePing => {
                let silent = cx.now.since(self.last_inbound).as_millis();
                self.ping_after = u32::try_from(silent).unwrap_or(u32::MAX).max(1);
                self.push_control(Opcode::Ping, &[], cx.cork, cx.now);
            }
            Effect::DropInbound => self.drop_inbound(cx.config),
            Effect::DropUnbegun => self.drop_unbegun(cx),
            Effect::CutFlushBudget => {
                if let Some(ending) = self.ending_mut() {
                    // Due in the next turn: what was queued before the failure has this one to get out.
                    ending.flush_deadline = cx.now.after(Duration::from_micros(1));
                }
            }
            Effect::ReportClosing => self.report_closing(cx),
            Effect::QueueClose => self.queue_close(why, cx),
            Effect::QueueAnswer => self.queue_answer(why, cx),
            Effect::KeepPeerClose => {
                if let (Why::PeerClose(frame), Some(ending)) = (why, self.ending_mut()) {
                    ending.received = Some(frame.clone());
                }
            }
            Effect::ShortenDeadline => {
                if let Why::Close { timing, .. } | Why::Kick { timing, .. } = why
                    && let Some(timeout) = timing.close_timeout
                {
                    self.shorten(cx.now.after(timeout));
                }
            }
            Effect::ResumeReading => {
                if self.flags.paused {
                    self.todo.add(Todo::READ);
                }
            }
            Effect::Report => {
                if let Some(ending) = self.ending_mut() {
                    ending.aborted = (before, 0);
                }
                self.report(None, cx);
            }
            Effect::Fin => {
                self.todo.add(Todo::FIN);
                (self.since, self.discarded) = if before == State::Refusing {
                    (self.since, self.discarded)
                } else {
                    (cx.now, 0)
                };
                if self.flags.eof {
                    self.apply(Input::Eof, Why::Nothing, cx);
                }
            }
            Effect::Abort => self.begin_abort(before, why, cx),
            Effect::Release => {
                self.todo = Todo(Todo::RELEASE);
                self.drop_everything(cx.cork);
            }
        }
    }

    fn queue_response(&mut self, effect: Effect, why: &mut Why<'_>, cx: &mut Context<'_>) {
        let Why::Handshake { response, .. } = why else { return };
        self.since = cx.now;
        self.backlog(cx.now).push_raw(std::mem::take(response));
        self.todo.add(Todo::WRITE);
        if effect == Effect::Establish {
            if let Some(work) = &mut self.work {
                work.head = HeadScanner::default();
            }
            cx.notes.push_back(Note::Open(cx.id));
        }
    }

    /// What was received and will not be delivered is counted, frames behind a `pause` too.
    fn drop_inbound(&mut self, config: &Config) {
        let limits = self.limits(config);
        let mut held = self.take_held();
        let mut scratch = Vec::new();
        let mut cursor = Cursor::new(&mut held, &mut scratch);
        let (mut messages, mut bytes) = (0, 0);
        while let Ok(Some(item)) = Inbound::next(&mut self.work, &mut cursor, limits) {
            match item {
                Item::Message(_, payload) => (messages, bytes) = (messages + 1, bytes + payload.len()),
                Item::JoinedMessage(_) => (messages, bytes) = (messages + 1, bytes + cursor.scratch().len()),
                Item::Control(..) | Item::JoinedControl(..) => {}
            }
        }
        let Some(work) = &mut self.work else { return };
        let partial = std::mem::take(&mut work.inbound).partial_bytes();
        if let Some(ending) = &mut work.ending {
            ending.lost.inbound_messages += messages;
            ending.lost.inbound_bytes += bytes as u64;
            ending.lost.inbound_partial_bytes += partial;
        }
    }

    /// Drops what has not begun, except a Close of ours.
    fn drop_unbegun(&mut self, cx: &mut Context<'_>) {
        self.uncork(cx.cork, cx.now);
        let Some(work) = &mut self.work else { return };
        let Some(ending) = &mut work.ending else { return };
        let close_len = ending.sent.as_ref().map(|frame| frame_length(frame.payload_len(), false));
        if close_len.is_some_and(|close| ending.to_flush <= close) {
            return; // Nothing is queued before it.
        }
        ending.count(work.backlog.drop_unbegun());
        if let Some(frame) = &ending.sent {
            push_close(&mut work.backlog, frame);
            ending.to_flush = work.backlog.len();
        }
    }

    fn report_closing(&mut self, cx: &mut Context<'_>) {
        let Some(ending) = self.ending() else { return };
        let (initiator, frame) = match &ending.received {
            Some(received) => (Initiator::Remote, received),
            None => (Initiator::Local, ending.sent.as_ref().unwrap_or(&CloseFrame::EMPTY)),
        };
        cx.notes.push_back(Note::Closing(cx.id, initiator, frame.clone()));
    }

    /// Queues our Close behind what is queued; its place is always there. Starts both timers.
    fn queue_close(&mut self, why: &Why<'_>, cx: &mut Context<'_>) {
        let (Why::Close { frame, timing, .. } | Why::Kick { frame, timing, .. } | Why::Fail { frame, timing, .. }) = why
        else {
            return;
        };
        self.start_timers(*timing, cx);
        self.push_close_frame(frame.clone(), cx);
    }

    fn queue_answer(&mut self, why: &Why<'_>, cx: &mut Context<'_>) {
        let frame = match why {
            Why::PeerClose(received) => {
                self.start_timers(Timing::default(), cx);
                let overrides = self.overrides();
                let on_peer_close = overrides.and_then(|o| o.on_peer_close).unwrap_or(cx.config.on_peer_close);
                let answer = overrides.and_then(|o| o.answer).unwrap_or(cx.config.answer);
                if on_peer_close == OnPeerClose::DropQueued {
                    self.drop_unbegun(cx);
                }
                if let (Answer::Manual, Some(ending)) = (answer, self.ending_mut()) {
                    ending.unanswered = true;
                    return;
                }
                received.answer()
            }
            Why::Answer(frame) => frame.clone(),
            _ => return,
        };
        self.push_close_frame(frame, cx);
    }

    fn start_timers(&mut self, timing: Timing, cx: &Context<'_>) {
        let (config, overrides) = (cx.config, self.overrides());
        let close_timeout =
            timing.close_timeout.or(overrides.and_then(|o| o.close_timeout)).unwrap_or(config.close_timeout);
        let flush_budget = timing
            .flush_budget
            .or(overrides.and_then(|o| o.flush_budget))
            .or(config.flush_budget)
            .unwrap_or(close_timeout / 2)
            .min(close_timeout);
        if let Some(ending) = self.ending_mut() {
            ending.began = cx.now;
            ending.deadline = cx.now.after(close_timeout);
            ending.flush_deadline = cx.now.after(flush_budget);
        }
    }

    fn push_close_frame(&mut self, frame: CloseFrame, cx: &mut Context<'_>) {
        let mut payload = Vec::with_capacity(frame.payload_len());
        frame.write_payload(&mut payload);
        self.push_frame(Opcode::Close, &payload, cx.cork, cx.now);
        let queued = self.buffered_amount();
        if let Some(ending) = self.ending_mut() {
            ending.unanswered = false;
            ending.sent = Some(frame);
            ending.to_flush = queued;
        }
    }

    /// Asks for the abort; it is carried out, and reported, before the turn ends.
    fn begin_abort(&mut self, before: State, why: &Why<'_>, cx: &mut Context<'_>) {
        let queued = self.buffered_amount();
        if !before.is_established() {
            self.todo = Todo(Todo::RELEASE);
            return self.drop_everything(cx.cork);
        }
        let style = match why {
            Why::End { abort: Abort::Auto, .. } if queued > 0 => Abort::Reset,
            Why::End { abort: Abort::Auto, .. } => Abort::Fin,
            Why::End { abort, .. } => *abort,
            _ => Abort::Reset,
        };
        let unsent = outbound::count(self.corked.bytes(cx.cork));
        self.corked.clear(cx.cork);
        self.todo = Todo(Todo::ABORT);
        let Some(work) = &mut self.work else { return };
        if let Some(ending) = &mut work.ending {
            ending.abort = style;
            ending.aborted = (before, queued);
            ending.count(unsent);
            ending.count(work.backlog.drop_all());
        }
    }

    /// How the abort that is due is to be done.
    pub(crate) fn abort_due(&self) -> Abort {
        self.ending().map_or(Abort::Reset, |ending| ending.abort)
    }

    /// The driver has aborted it; the kernel held so many bytes.
    pub(crate) fn handle_aborted(&mut self, kernel_unsent: Option<u32>, cx: &mut Context<'_>) {
        self.todo = Todo(Todo::RELEASE);
        self.report(kernel_unsent, cx);
    }

    /// The outcome is fixed: says so, and gives everything back.
    fn report(&mut self, kernel_unsent: Option<u32>, cx: &mut Context<'_>) {
        let Some(ending) = self.work.as_mut().and_then(|work| work.ending.take()) else { return };
        let Ending { initiator, cause, to_flush, sent, received, mut lost, began, sweeps, aborted, .. } = *ending;
        lost.kernel_unsent = kernel_unsent;
        let had_close = sent.is_some() || received.is_some();
        let closed = Closed {
            initiator,
            cause,
            sent_flushed: sent.is_some() && to_flush == 0,
            sent,
            received,
            lost,
            duration: cx.now.since(self.since),
            close_phase: if had_close { cx.now.since(began) } else { Duration::ZERO },
        };
        self.drop_everything(cx.cork);
        let (state, queued) = aborted;
        cx.notes.push_back(Note::Close(cx.id, Box::new(Ended { closed, sweeps, state, queued })));
    }

    fn drop_everything(&mut self, cork: &mut Cork) {
        self.corked.clear(cork);
        self.work = None;
        self.extras = None;
    }
}

/// A broadcast's frame: a range of the cork, or, if it is large, counted.
pub(crate) enum Shared<'f> {
    Corked(usize, usize),
    Counted(&'f std::rc::Rc<[u8]>),
}

/// From here on a payload that has its own buffer is queued as that, instead of copied.
const OWN_BUFFER: usize = 16 << 10;

/// A Close behind a rebuilt backlog.
fn push_close(backlog: &mut Backlog, frame: &CloseFrame) {
    let mut payload = Vec::with_capacity(frame.payload_len());
    frame.write_payload(&mut payload);
    backlog.push_frame(None, Opcode::Close, &payload);
}

/// `WouldBlock` is a write of nothing.
fn accepted(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}

/// A peer's address in 16 bytes; IPv6 is on the heap.
#[derive(Debug)]
enum Peer {
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddr>),
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self::V4(ip, address.port()),
            IpAddr::V6(_) => Self::V6(Box::new(address)),
        }
    }
}

impl Peer {
    fn address(&self) -> SocketAddr {
        match self {
            Self::V4(ip, port) => SocketAddr::new(IpAddr::V4(*ip), *port),
            Self::V6(address) => **address,
        }
    }
}

/// What a quiet connection costs beside its socket, its deadline and the application's data.
const _: () = assert!(size_of::<Conn>() <= 96);
