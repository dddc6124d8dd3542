//! ROOM: one connection as a value. Bytes and `now` in; events, bytes and a deadline out. No clock and no socket
//! enters, and no other connection.
//!
//! The life of a connection is [`state::step`]; this file carries out what it asks for. Whatever happens goes through
//! `Conn::apply`, so that nothing begins or ends anywhere else.
//!
//! A quiet connection is this struct and nothing more. What it may own besides is in `Work`, absent when quiet: the
//! pieces of a cut message, the backlog, and, once closing begins, the `Ending`.

use std::{
    collections::VecDeque,
    io::{self},
    net::SocketAddr,
    time::Duration,
};

mod connect;
#[cfg(fuzzing)]
pub mod coverage;
#[cfg_attr(not(feature = "deflate"), path = "conn/no_deflate.rs")]
mod deflate;
mod inbound;
mod lifecycle;
mod opening;
mod outbound;
mod path;
mod peer;
pub mod state;
mod tally;
mod timers;
mod transmit;

use self::outbound::Backlog;
pub(crate) use self::transmit::Frames;
pub use self::{
    connect::ConnectRequest,
    inbound::Cursor,
    opening::Target,
    state::{Effect, Input, State, Step, step},
};
use self::{
    deflate::Sharing,
    lifecycle::{Ending, Why},
    opening::Opening,
    peer::Peer,
    tally::Tally,
    transmit::Shared,
};
pub(crate) use self::{
    deflate::{Coding, Shared as Deflate, Unpacker},
    inbound::{Inbound, Item, Limits},
    outbound::{Cork, Corked},
    path::Path,
};
use crate::{
    close::{Cause, CloseCode, CloseFrame, Closed, Initiator},
    config::{Abort, ClosingData, Config, OnOverflow, Overrides},
    error::{HandshakeCause, ProtocolError, SendError, Violation},
    event::{Message, Stats, SweepReport},
    shutdown::{Phase, SweepId},
    time::Time,
    wire::{
        header::{Opcode, frame_length},
        upgrade::HeadScanner,
    },
};

/// What a connection needs from its hub while something happens to it.
pub(crate) struct Context<'h> {
    pub(crate) config: &'h Config,
    pub(crate) cork: &'h mut Cork,
    pub(crate) deflate: &'h mut Deflate,
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
    Close(crate::ConnectionId, Ended),
    /// With its id if it was a connection of ours.
    Failed(Option<crate::ConnectionId>, SocketAddr, HandshakeCause),
    SweepDone(SweepId, SweepReport),
    Phase(Phase, Stats),
}

/// The report of an ending, and what the hub's books need besides.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) closed: Box<Closed>,
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
    pub(crate) const CONNECT: u8 = 64;
    /// A `Drain` is owed and nothing is queued.
    pub(crate) const DRAIN: u8 = 128;
    const FOR_THE_DRIVER: u8 = !Self::ALARM;
    /// What uses up a share of a turn, and can wait for the next one.
    const SHARED: u8 = Self::WRITE | Self::READ | Self::DRAIN | Self::ALARM;

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

    pub(crate) const fn only_write() -> Self {
        Self(Self::WRITE)
    }

    /// Whether there is nothing for the driver to do.
    pub(crate) const fn is_idle(self) -> bool {
        self.0 & Self::FOR_THE_DRIVER == 0
    }

    /// Whether something must be done before the turn ends.
    pub(crate) const fn is_urgent(self) -> bool {
        self.0 & !Self::SHARED != 0
    }
}

/// Whether a connection stands in the run queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listed {
    #[default]
    No,
    /// In this turn's.
    Now,
    /// In the next turn's.
    Next,
}

/// What [`Conn::transmit`] came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transmitted {
    /// Bytes that the kernel took.
    pub(crate) bytes: usize,
    /// The kernel took less than it was offered.
    pub(crate) blocked: bool,
    /// Something is queued that was not offered.
    pub(crate) more: bool,
}

/// How a due connection is looked at before it is judged (specification, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// It waits for input: what the kernel holds is read.
    pub(crate) read: bool,
    /// It waits for output: what is queued is offered to the kernel.
    pub(crate) write: bool,
    /// It is the answer to our Close that it waits for: that is looked for over several turns.
    pub(crate) closing: bool,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    state: State,
    pub(crate) todo: Todo,
    /// Whether the hub has it in its run queue.
    pub(crate) listed: Listed,
    flags: Flags,
    pub(crate) generation: u32,
    tally: Tally,
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
    /// What is queued waits: the kernel took less than it was offered, and has not said since that it would take more; or
    /// this connection's share of the turn is used up.
    blocked: bool,
    /// A `Drain` is owed: the kernel refused something, or so much is queued that an application may wait for it.
    behind: bool,
    /// The peer's FIN was seen while something was still to be flushed.
    eof: bool,
    /// We are the client.
    client: bool,
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
    opening: Option<Box<Opening>>,
    ending: Option<Box<Ending>>,
}

/// What few connections have, for all of their life.
#[derive(Debug, Default)]
struct Extras {
    /// Boxed twice, because a fat pointer would make this larger for all.
    subprotocol: Option<Box<Box<str>>>,
    overrides: Option<Box<Overrides>>,
    coding: Option<Coding>,
}

/// How long a closing handshake may take, where the caller says otherwise than the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// See [`Config::close_timeout`].
    pub close_timeout: Option<Duration>,
    /// See [`Config::flush_budget`].
    pub flush_budget: Option<Duration>,
}

impl Conn {
    pub(crate) fn new(peer: SocketAddr, generation: u32, now: Time) -> Self {
        Self {
            state: State::Connecting,
            todo: Todo::default(),
            listed: Listed::No,
            flags: Flags::default(),
            generation,
            tally: Tally::default(),
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

    pub(crate) fn path(&self) -> Option<&str> {
        self.path.as_str()
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.extras.as_ref()?.subprotocol.as_ref().map(|name| &***name)
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

    /// Bytes of a request have been seen: they are kept until it is whole.
    pub(crate) fn spoke(&self) -> bool {
        self.has_held()
    }

    /// Bytes that were accepted and are not in the kernel, headers included.
    pub(crate) fn buffered_amount(&self) -> usize {
        self.corked.len() + self.work.as_ref().map_or(0, |work| work.backlog.len())
    }

    pub(crate) fn is_unanswered(&self) -> bool {
        self.state == State::RemoteClosing && self.ending().is_some_and(|ending| ending.unanswered)
    }

    /// It lingered for more bytes than it may: the peer will not stop, so its descriptor goes with a reset.
    pub(crate) fn exceeded_linger(&self, config: &Config) -> bool {
        self.tally.discarded() > config.linger_bytes
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
        self.extras.as_ref()?.overrides.as_deref()
    }

    pub(crate) fn coding(&self) -> Option<&Coding> {
        self.extras.as_ref()?.coding.as_ref()
    }

    fn coding_mut(&mut self) -> Option<&mut Coding> {
        self.extras.as_mut()?.coding.as_mut()
    }

    fn limits(&self, config: &Config) -> Limits {
        let max_payload = self.overrides().and_then(|o| o.max_payload).unwrap_or(config.max_payload);
        Limits {
            max_payload: max_payload as u64,
            max_fragments: config.max_fragments,
            expect_mask: !self.flags.client,
            deflate: self.coding().is_some(),
        }
    }

    fn max_backlog(&self, config: &Config) -> usize {
        self.overrides().and_then(|o| o.max_backlog).unwrap_or(config.max_backlog)
    }

    fn abort_style(&self, config: &Config) -> Abort {
        self.overrides().and_then(|o| o.abort).unwrap_or(config.abort)
    }

    // What the transport brings.

    /// `n` bytes arrived, whatever they are.
    pub(crate) fn note_inbound(&mut self, n: usize, now: Time) {
        self.last_inbound = now;
        match self.state {
            State::Open if self.tally.unanswered().is_some() => {
                // The next Ping is due before the end of the wait for this answer would have been.
                self.tally = Tally::default();
                self.todo.add(Todo::ALARM);
            }
            State::LocalClosing => {
                if let Some(ending) = self.ending_mut().filter(|ending| ending.deadline <= now) {
                    ending.probed += n as u64;
                }
            }
            _ => {}
        }
    }

    /// Whether the driver should read. What was held back behind a `pause` has to be parsed before anything new.
    pub(crate) fn wants_read(&self) -> bool {
        match self.state {
            State::Open | State::LocalClosing => self.may_parse() && !self.has_held(),
            State::Connecting => !self.is_dialling(),
            State::Refusing | State::RemoteClosing | State::Failing | State::Lingering => true,
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
        if self.tally.discard(n) > cx.config.linger_bytes {
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
        let reset = matches!(
            kind,
            io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
        );
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
                    self.hold(cursor.take_all());
                    self.tidy();
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
            let coding = self.extras.as_mut().and_then(|extras| extras.coding.as_mut());
            let mut unpacker = Unpacker { coding, shared: cx.deflate };
            match Inbound::next(&mut self.work, cursor, limits, &mut unpacker) {
                Ok(None) => {
                    self.tidy();
                    return None;
                }
                // Most messages: there is nothing to give back, and no ending to ask.
                Ok(Some(item @ Item::Message(..))) if self.work.is_none() => return Some(item),
                Ok(Some(item)) => {
                    self.tidy();
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
        let queued = self.buffered_amount();
        self.flags.behind |= queued >= DRAIN_FROM;
        if !self.flags.blocked && queued > 0 {
            self.todo.add(Todo::WRITE);
        }
    }

    /// Deals with a whole item; gives it back if the application is to see it.
    fn admit<'b>(
        &mut self,
        item: Item<'b>,
        cursor: &mut Cursor<'b>,
        cx: &mut Context<'_>,
    ) -> Option<Item<'b>> {
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
        if opcode != Opcode::Close && !self.is_within_rate(cx) {
            self.fail(ProtocolError::ControlFlood.into(), cx);
            return false;
        }
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

    /// Whether the peer may send one more Ping or Pong now. A connection that is closing has a deadline instead.
    fn is_within_rate(&mut self, cx: &Context<'_>) -> bool {
        match cx.config.control_rate {
            Some(rate) if self.state == State::Open => self.tally.control(rate, cx.now),
            _ => true,
        }
    }

    /// §7.1.7: the peer broke a rule.
    pub(crate) fn fail(&mut self, violation: Violation, cx: &mut Context<'_>) {
        let frame = match violation {
            Violation::Protocol(ProtocolError::InvalidDeflate) => {
                CloseFrame::with_constant(CloseCode::INVALID_DATA, "invalid compressed data")
            }
            Violation::Protocol(ProtocolError::ControlFlood) => {
                CloseFrame::with_constant(CloseCode::PROTOCOL, "too many control frames")
            }
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
    #[inline]
    pub(crate) fn send(&mut self, message: Message<'_>, cx: &mut Context<'_>) -> Result<(), SendError> {
        if !self.send_plainly(&message, cx) {
            self.check_send(message.len(), cx)?;
            self.push_message(message, cx);
        }
        Ok(())
    }

    /// Whether a message of `len` bytes may be queued now.
    #[inline]
    pub(crate) fn check_send(&mut self, len: usize, cx: &mut Context<'_>) -> Result<(), SendError> {
        if !self.takes_sends() {
            let connecting = self.state == State::Connecting;
            return Err(if connecting { SendError::Connecting } else { SendError::Closing });
        }
        let (queued, message, limit) =
            (self.buffered_amount(), frame_length(len, self.flags.client), self.max_backlog(cx.config));
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

    #[inline]
    fn takes_sends(&self) -> bool {
        let input = if self.is_unanswered() { Input::SendUnanswered } else { Input::Send };
        // The table says so; it is not asked for every message.
        self.state == State::Open || step(self.state, input).effects.contains(&Effect::QueueMessage)
    }

    /// Queues a message that others get too. The caller has asked [`Conn::check_send`].
    pub(crate) fn push_broadcast(&mut self, frames: &mut Frames<'_>, cx: &mut Context<'_>) {
        let sharing = match self.coding() {
            // A masked frame is nobody else's.
            _ if self.flags.client => Sharing::Nothing,
            Some(coding) => coding.sharing(frames.message().len(), cx.config),
            None => Sharing::Plain,
        };
        match frames.get(sharing, cx) {
            Some(&Shared::Corked(start, end)) => {
                if !self.flags.blocked && !self.has_backlog() && self.corked.extend(cx.cork, start, end) {
                    return self.want_write();
                }
                let bytes = cx.cork.bytes.get(start..end).unwrap_or_default().to_vec();
                self.uncork(cx.cork, cx.now);
                self.backlog(cx.now).push_rest(&bytes, 0, false);
            }
            Some(Shared::Counted(frame)) => {
                self.uncork(cx.cork, cx.now);
                self.backlog(cx.now).push_shared(frame);
            }
            None => return self.push_message(frames.message(), cx),
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
    pub(crate) fn close(
        &mut self,
        frame: CloseFrame,
        cause: Cause,
        timing: Timing,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.cancel(cx) {
            return true;
        }
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
        if self.cancel(cx) {
            return true;
        }
        let was_open = self.state == State::Open;
        self.apply(Input::Kick, Why::Kick { message, frame, drop_queued, timing }, cx);
        was_open
    }

    /// Gives up a connection of ours that is not made yet; says whether it was one. There is nobody to close it with.
    fn cancel(&mut self, cx: &mut Context<'_>) -> bool {
        let connecting = self.state == State::Connecting && self.is_client();
        if connecting {
            self.give_up(HandshakeCause::Cancelled, cx);
        }
        connecting
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
            let cause = if input == Input::HardSweep {
                HandshakeCause::ShuttingDown
            } else if self.is_client() {
                HandshakeCause::Cancelled
            } else {
                HandshakeCause::Rejected
            };
            Why::Handshake { cause: Some(cause), response: Vec::new() }
        } else {
            Why::End { cause, initiator: Initiator::Local, abort }
        };
        self.apply(input, why, cx);
        before != self.state
    }

    /// A newcomer gets its place: it was refused, or its handshake is the oldest.
    pub(crate) fn evict(&mut self, cx: &mut Context<'_>) {
        if self.state == State::Connecting {
            let cause = Some(HandshakeCause::TooManyConnections);
            self.apply(Input::Terminate, Why::Handshake { cause, response: Vec::new() }, cx);
        } else {
            self.apply(Input::LingerEnd, Why::Nothing, cx);
        }
    }

    /// The soft sweep found it without one byte of a request.
    pub(crate) fn sweep_silent(&mut self, cx: &mut Context<'_>) {
        let why = Why::Handshake { cause: Some(HandshakeCause::ShuttingDown), response: Vec::new() };
        self.apply(Input::SweptSilent, why, cx);
    }

    /// Its ending is cut to `deadline` at the latest.
    pub(crate) fn shorten(&mut self, deadline: Time, now: Time) {
        if let Some(ending) = self.ending_mut().filter(|ending| deadline < ending.deadline) {
            ending.deadline = deadline;
            if ending.flush_deadline != Time::NEVER {
                // The Close still needs its part of what is left.
                ending.flush_deadline = ending.flush_deadline.min(now.after(deadline.since(now) / 2));
            }
        }
    }

    pub(crate) fn join_sweep(&mut self, sweep: SweepId) {
        if let Some(ending) = self.ending_mut() {
            ending.sweeps.push(sweep);
        }
    }

    pub(crate) fn pause(&mut self) {
        self.flags.paused = true;
        // Most likely because of what is queued: then the application waits for the end of that.
        self.flags.behind |= self.buffered_amount() > 0;
    }

    /// Reads again; what was read and not parsed comes first.
    pub(crate) fn resume(&mut self, now: Time) {
        if self.flags.paused {
            self.flags.paused = false;
            if self.state == State::Open {
                // Silence that we imposed is not the peer's.
                self.last_inbound = now;
                self.tally = Tally::default();
            }
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
        coding: Option<Coding>,
        cx: &mut Context<'_>,
    ) {
        self.path = Path::new(path, cx.config.max_path_kept);
        if subprotocol.is_some() || overrides.is_some() || coding.is_some() {
            let subprotocol = subprotocol.map(|name| Box::new(Box::from(name)));
            let overrides = overrides.map(Box::new);
            self.extras = Some(Box::new(Extras { subprotocol, overrides, coding }));
        }
        self.apply(Input::Upgrade, Why::Handshake { cause: None, response }, cx);
        self.tidy();
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

    /// Whether frames are parsed now.
    pub(crate) const fn may_parse(&self) -> bool {
        match self.state {
            State::Open => !self.flags.paused,
            State::LocalClosing => true,
            _ => false,
        }
    }

    /// Whether something was read and not parsed that can be parsed now.
    #[inline]
    pub(crate) fn has_held_to_parse(&self) -> bool {
        self.has_held() && self.may_parse()
    }

    #[inline]
    fn has_held(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.held.is_empty())
    }

    /// Keeps bytes that were read and not parsed. They come before what is read next.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.work.get_or_insert_default().held.extend_from_slice(bytes);
        }
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
}

/// Whoever sees this many bytes queued, and waits until they are not, gets a `Drain`.
pub(crate) const DRAIN_FROM: usize = 16 << 10;

/// What a quiet connection costs beside its socket, its deadline and the application's data.
const _: () = assert!(size_of::<Conn>() <= 88);
