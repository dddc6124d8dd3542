//! The states of a connection and [`step`]: the only function that begins or ends anything.
//!
//! `step` is pure: state and input in, next state and effects out. Who carries the effects out, with which frame,
//! cause and deadline, is the connection's business (`conn.rs`); that nothing else changes a state is the point.
//!
//! ```text
//!                 refusal, timeout           flushed
//!   Connecting ─────────────────> Refusing ──────────────────────────────┐
//!       │ 101                                                            │
//!       v         close, kick                  peer's Close              v
//!     Open ─────────────────> LocalClosing ────────────────────────> Lingering
//!       │ │                        │ (ours not flushed)                ^ ^
//!       │ │ peer's Close           v                  flushed          │ │
//!       │ └───────────────> RemoteClosing ─────────────────────────────┘ │
//!       │ violation, overflow                         flushed            │
//!       └─────────────────> Failing ─────────────────────────────────────┘
//!
//!   every state ── terminate, hard sweep, reset, its deadline ──> Closed <── EOF, deadline, budget ── Lingering
//! ```
//!
//! Both roles have these states and the same table. What differs for a client:
//!
//! * `Connecting` includes finding the server and TCP. A handshake that fails goes to `Closed`: there is nobody to refuse.
//! * "The server closes first" (§7.1.1): in `Lingering` the client has sent no FIN. It reads until the server's, for
//!   `linger_timeout` at most, and only then closes its descriptor. So `TIME_WAIT` stays with the server, and the last
//!   bytes of both sides arrive. `Close` is reported on entering `Lingering`, as for a server.
//! * Its frames are masked, the server's must not be (§5.1).

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// TCP is there, the HTTP upgrade is not complete. A client's connection begins here, with its name and TCP.
    Connecting,
    /// An HTTP answer that is not 101 is being flushed, then lingers.
    Refusing,
    /// Established.
    Open,
    /// Our Close is queued or sent, the peer's is not here.
    LocalClosing,
    /// The peer's Close is here, ours is not flushed.
    RemoteClosing,
    /// We fail the connection (§7.1.7): an error Close is queued, input is discarded.
    Failing,
    /// The outcome is fixed, our FIN is sent (a client waits for the server's first), input is discarded until EOF.
    Lingering,
    /// Ended: the descriptor is closed, or will be before the turn ends.
    Closed,
}

impl State {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Connecting,
        Self::Refusing,
        Self::Open,
        Self::LocalClosing,
        Self::RemoteClosing,
        Self::Failing,
        Self::Lingering,
        Self::Closed,
    ];

    /// Between the first Close, or the failure, and `Close`.
    pub const fn is_closing(self) -> bool {
        matches!(self, Self::LocalClosing | Self::RemoteClosing | Self::Failing)
    }

    /// `Open` has been reported and `Close` has not.
    pub const fn is_established(self) -> bool {
        matches!(self, Self::Open) || self.is_closing()
    }
}

/// What can happen to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Input {
    /// A valid upgrade request that the application accepted.
    Upgrade,
    /// A request that is refused: invalid, rejected by the application, over a limit, or during a shutdown.
    Refusal,
    /// A plain HTTP request that the application answered.
    PlainAnswer,
    /// `handshake_timeout` ran out.
    HandshakeTimeout,
    /// The soft sweep found it without one byte of a request.
    SweptSilent,
    /// Client: there will be no connection. No address can be connected to, a timeout ran out, the response is not the
    /// 101 that was asked for, or it was given up.
    ConnectFailed,
    /// A whole data message.
    Data,
    /// A Ping.
    Ping,
    /// A Pong.
    Pong,
    /// A valid Close, while a Close of ours is not wholly in the kernel, or there is none.
    PeerClose,
    /// A valid Close, while ours is wholly in the kernel.
    PeerCloseAfterFlush,
    /// A broken rule (an invalid frame or Close payload, a message too big, bad UTF-8), while a Close of ours is
    /// not wholly in the kernel, or there is none.
    Violation,
    /// A broken rule, while our Close is wholly in the kernel.
    ViolationAfterFlush,
    /// Bytes that arrive where nothing is parsed any more.
    Bytes,
    /// The peer's FIN.
    Eof,
    /// A reset, EPIPE, or another error of the socket.
    Reset,
    /// All that must be in the kernel before the next step is in the kernel.
    Flushed,
    /// `send`, `ping`.
    Send,
    /// `send` where the application answers the peer's Close itself and has not yet.
    SendUnanswered,
    /// `answer_close`, or the automatic answer in its place.
    AnswerClose,
    /// `close`, also by a sweep.
    Close,
    /// `kick`.
    Kick,
    /// `terminate`; or its handshake is the oldest of too many.
    Terminate,
    /// The hard sweep of a shutdown.
    HardSweep,
    /// It was aborted by FIN. Input may be unread or under way, and closing the descriptor would answer it by a reset.
    AbortedByFin,
    /// A message would exceed `max_backlog`, and the policy is to end such a connection.
    Overflow,
    /// `close_timeout` ran out.
    CloseTimeout,
    /// `flush_budget` is used up.
    FlushBudget,
    /// Nothing came for `heartbeat.interval`.
    HeartbeatIdle,
    /// Nothing came for `heartbeat.timeout` after our Ping, and nothing is queued.
    HeartbeatTimeout,
    /// The same with a backlog: a Close would not get through.
    HeartbeatTimeoutQueued,
    /// The kernel took nothing for `stall_timeout`.
    WriteStall,
    /// `linger_timeout` ran out or `linger_bytes` are used up.
    LingerEnd,
}

impl Input {
    /// Every input.
    pub const ALL: [Self; 33] = [
        Self::Upgrade,
        Self::Refusal,
        Self::PlainAnswer,
        Self::HandshakeTimeout,
        Self::SweptSilent,
        Self::ConnectFailed,
        Self::Data,
        Self::Ping,
        Self::Pong,
        Self::PeerClose,
        Self::PeerCloseAfterFlush,
        Self::Violation,
        Self::ViolationAfterFlush,
        Self::Bytes,
        Self::Eof,
        Self::Reset,
        Self::Flushed,
        Self::Send,
        Self::SendUnanswered,
        Self::AnswerClose,
        Self::Close,
        Self::Kick,
        Self::Terminate,
        Self::HardSweep,
        Self::AbortedByFin,
        Self::Overflow,
        Self::CloseTimeout,
        Self::FlushBudget,
        Self::HeartbeatIdle,
        Self::HeartbeatTimeout,
        Self::HeartbeatTimeoutQueued,
        Self::WriteStall,
        Self::LingerEnd,
    ];
}

/// What a transition asks for, carried out in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Queue the 101 and report `Open`.
    Establish,
    /// Queue the HTTP answer; its time to live starts.
    Answer,
    /// Report `HandshakeFailed`.
    ReportFailure,
    /// Hand it to the application; a paused or sated connection that is closing counts it instead.
    Deliver,
    /// Count it as trailing bytes.
    Discard,
    /// Queue a Pong behind what is queued; an unsent one is replaced.
    QueuePong,
    /// Queue the message.
    QueueMessage,
    /// Queue a Ping.
    QueuePing,
    /// Say no to the caller; nothing is queued.
    Refuse,
    /// An inbound message that is not finished is lost.
    DropInbound,
    /// Outbound messages that have not begun are lost; the one on the wire is completed.
    DropUnbegun,
    /// The flush budget is used up: what this turn's write does not get into the kernel is dropped.
    CutFlushBudget,
    /// Report `Closing`.
    ReportClosing,
    /// Queue our Close, and start `close_timeout` and `flush_budget`.
    QueueClose,
    /// Queue the answer to the peer's Close (or let the application do it), and start both timers.
    QueueAnswer,
    /// Keep the peer's Close: it fixes the code.
    KeepPeerClose,
    /// Cut the deadline if the caller's is earlier.
    ShortenDeadline,
    /// Read again even if paused.
    ResumeReading,
    /// Report `Close`.
    Report,
    /// Send FIN, discard input until EOF. A client leaves its own FIN until the server's is here (§7.1.1).
    Fin,
    /// End the TCP connection at once in the style asked for, and report `Close` if it was established.
    Abort,
    /// Close the descriptor; the slot is freed at the end of the turn.
    Release,
}

/// One row of the table: where to go and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// The next state.
    pub next: State,
    /// What to do, in order.
    pub effects: &'static [Effect],
}

/// The transition table of the closing specification, as a function.
///
/// An input that a state cannot meet is answered with the state itself and no effect, so that a late timer or a
/// repeated command is a no-op and nothing can panic.
#[must_use]
pub fn step(state: State, input: Input) -> Step {
    #[cfg(fuzzing)]
    super::coverage::note(state, input);
    match state {
        State::Connecting => connecting(input),
        State::Refusing => refusing(input),
        State::Open => open(input),
        State::LocalClosing => local_closing(input),
        State::RemoteClosing => remote_closing(input),
        State::Failing => failing(input),
        State::Lingering => lingering(input),
        State::Closed => closed(input),
    }
}

const fn to(next: State, effects: &'static [Effect]) -> Step {
    Step { next, effects }
}

fn connecting(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Connecting, Open, Refusing};
    match input {
        Input::Upgrade => to(Open, &[E::Establish]),
        Input::Refusal | Input::HandshakeTimeout => to(Refusing, &[E::Answer, E::ReportFailure]),
        Input::PlainAnswer => to(Refusing, &[E::Answer]),
        Input::SweptSilent | Input::ConnectFailed | Input::Eof | Input::Reset => {
            to(Closed, &[E::ReportFailure, E::Release])
        }
        Input::Terminate | Input::HardSweep => to(Closed, &[E::ReportFailure, E::Abort]),
        Input::Send | Input::SendUnanswered | Input::Close | Input::Kick => to(Connecting, &[E::Refuse]),
        Input::Data
        | Input::Ping
        | Input::Pong
        | Input::PeerClose
        | Input::PeerCloseAfterFlush
        | Input::Violation
        | Input::ViolationAfterFlush
        | Input::Bytes
        | Input::Flushed
        | Input::AbortedByFin
        | Input::Overflow
        | Input::CloseTimeout
        | Input::FlushBudget
        | Input::AnswerClose
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall
        | Input::LingerEnd => to(Connecting, &[]),
    }
}

fn refusing(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Lingering, Refusing};
    match input {
        Input::Flushed => to(Lingering, &[E::Fin]),
        Input::Bytes => to(Refusing, &[E::Discard]),
        Input::Reset => to(Closed, &[E::Release]),
        Input::LingerEnd | Input::Terminate | Input::HardSweep => to(Closed, &[E::Abort]),
        Input::Send | Input::SendUnanswered | Input::Close | Input::Kick => to(Refusing, &[E::Refuse]),
        // §8: a half-close behind the request is legal; the answer is still due.
        Input::Eof
        | Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Data
        | Input::Ping
        | Input::Pong
        | Input::PeerClose
        | Input::PeerCloseAfterFlush
        | Input::Violation
        | Input::ViolationAfterFlush
        | Input::AbortedByFin
        | Input::Overflow
        | Input::CloseTimeout
        | Input::FlushBudget
        | Input::AnswerClose
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall => to(Refusing, &[]),
    }
}

fn open(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Failing, LocalClosing, Open, RemoteClosing};
    match input {
        Input::Data | Input::Pong => to(Open, &[E::Deliver]),
        Input::Ping => to(Open, &[E::Deliver, E::QueuePong]),
        Input::Send | Input::SendUnanswered => to(Open, &[E::QueueMessage]),
        Input::HeartbeatIdle => to(Open, &[E::QueuePing]),
        Input::Close => to(LocalClosing, &[E::QueueClose, E::ReportClosing, E::ResumeReading]),
        Input::Kick => {
            to(LocalClosing, &[E::QueueMessage, E::QueueClose, E::ReportClosing, E::ResumeReading])
        }
        Input::PeerClose | Input::PeerCloseAfterFlush => {
            to(RemoteClosing, &[E::KeepPeerClose, E::DropInbound, E::ReportClosing, E::QueueAnswer])
        }
        Input::Violation | Input::ViolationAfterFlush | Input::Overflow => to(
            Failing,
            &[E::DropInbound, E::QueueClose, E::CutFlushBudget, E::ReportClosing, E::ResumeReading],
        ),
        Input::HeartbeatTimeout => {
            to(Failing, &[E::DropInbound, E::QueueClose, E::ReportClosing, E::ResumeReading])
        }
        Input::Eof
        | Input::Reset
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall
        | Input::Terminate
        | Input::HardSweep => to(Closed, &[E::DropInbound, E::Abort]),
        Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Bytes
        | Input::Flushed
        | Input::CloseTimeout
        | Input::FlushBudget
        | Input::AbortedByFin
        | Input::AnswerClose
        | Input::LingerEnd => to(Open, &[]),
    }
}

fn local_closing(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Failing, Lingering, LocalClosing, RemoteClosing};
    match input {
        Input::Data | Input::Pong => to(LocalClosing, &[E::Deliver]),
        Input::Ping => to(LocalClosing, &[E::Deliver, E::QueuePong]),
        Input::PeerClose => to(RemoteClosing, &[E::KeepPeerClose, E::DropInbound]),
        Input::PeerCloseAfterFlush => to(Lingering, &[E::KeepPeerClose, E::DropInbound, E::Report, E::Fin]),
        // The Close that is queued stands; it still has to get out, or FIN would follow a cut frame.
        Input::Violation => to(Failing, &[E::DropInbound, E::CutFlushBudget]),
        Input::ViolationAfterFlush => to(Lingering, &[E::DropInbound, E::Report, E::Fin]),
        Input::FlushBudget => to(LocalClosing, &[E::DropUnbegun]),
        Input::Send | Input::SendUnanswered => to(LocalClosing, &[E::Refuse]),
        Input::Close | Input::Kick => to(LocalClosing, &[E::ShortenDeadline]),
        Input::Eof | Input::Reset | Input::CloseTimeout | Input::Terminate | Input::HardSweep => {
            to(Closed, &[E::DropInbound, E::Abort])
        }
        Input::Flushed
        | Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Bytes
        | Input::AbortedByFin
        | Input::Overflow
        | Input::AnswerClose
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall
        | Input::LingerEnd => to(LocalClosing, &[]),
    }
}

fn remote_closing(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Lingering, RemoteClosing};
    match input {
        Input::Flushed => to(Lingering, &[E::Report, E::Fin]),
        Input::Bytes => to(RemoteClosing, &[E::Discard]),
        Input::FlushBudget => to(RemoteClosing, &[E::DropUnbegun]),
        Input::Send => to(RemoteClosing, &[E::Refuse]),
        Input::SendUnanswered => to(RemoteClosing, &[E::QueueMessage]),
        Input::AnswerClose => to(RemoteClosing, &[E::QueueAnswer]),
        Input::Close | Input::Kick => to(RemoteClosing, &[E::ShortenDeadline]),
        Input::Reset | Input::CloseTimeout | Input::Terminate | Input::HardSweep => to(Closed, &[E::Abort]),
        // A half-close is legal: the answer is still being flushed.
        Input::Eof
        | Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Data
        | Input::Ping
        | Input::Pong
        | Input::PeerClose
        | Input::PeerCloseAfterFlush
        | Input::Violation
        | Input::ViolationAfterFlush
        | Input::AbortedByFin
        | Input::Overflow
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall
        | Input::LingerEnd => to(RemoteClosing, &[]),
    }
}

fn failing(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Failing, Lingering};
    match input {
        Input::Flushed => to(Lingering, &[E::Report, E::Fin]),
        Input::Bytes => to(Failing, &[E::Discard]),
        Input::FlushBudget => to(Failing, &[E::DropUnbegun]),
        Input::Send | Input::SendUnanswered => to(Failing, &[E::Refuse]),
        Input::Close | Input::Kick => to(Failing, &[E::ShortenDeadline]),
        Input::Eof | Input::Reset | Input::CloseTimeout | Input::Terminate | Input::HardSweep => {
            to(Closed, &[E::Abort])
        }
        Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Data
        | Input::Ping
        | Input::Pong
        | Input::PeerClose
        | Input::PeerCloseAfterFlush
        | Input::Violation
        | Input::ViolationAfterFlush
        | Input::AbortedByFin
        | Input::Overflow
        | Input::AnswerClose
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall
        | Input::LingerEnd => to(Failing, &[]),
    }
}

fn lingering(input: Input) -> Step {
    use Effect as E;
    use State::{Closed, Lingering};
    match input {
        Input::Bytes => to(Lingering, &[E::Discard]),
        Input::Eof | Input::Reset | Input::LingerEnd | Input::HardSweep => to(Closed, &[E::Release]),
        Input::Send | Input::SendUnanswered => to(Lingering, &[E::Refuse]),
        Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Data
        | Input::Ping
        | Input::Pong
        | Input::PeerClose
        | Input::PeerCloseAfterFlush
        | Input::Violation
        | Input::ViolationAfterFlush
        | Input::Flushed
        | Input::Close
        | Input::Kick
        | Input::Terminate
        | Input::AbortedByFin
        | Input::Overflow
        | Input::CloseTimeout
        | Input::FlushBudget
        | Input::AnswerClose
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall => to(Lingering, &[]),
    }
}

fn closed(input: Input) -> Step {
    match input {
        Input::AbortedByFin => to(State::Lingering, &[Effect::Fin]),
        Input::Send | Input::SendUnanswered => to(State::Closed, &[Effect::Refuse]),
        Input::Upgrade
        | Input::Refusal
        | Input::PlainAnswer
        | Input::HandshakeTimeout
        | Input::SweptSilent
        | Input::ConnectFailed
        | Input::Data
        | Input::Ping
        | Input::Pong
        | Input::PeerClose
        | Input::PeerCloseAfterFlush
        | Input::Violation
        | Input::ViolationAfterFlush
        | Input::Bytes
        | Input::Eof
        | Input::Reset
        | Input::Flushed
        | Input::Close
        | Input::Kick
        | Input::Terminate
        | Input::HardSweep
        | Input::Overflow
        | Input::CloseTimeout
        | Input::FlushBudget
        | Input::AnswerClose
        | Input::HeartbeatIdle
        | Input::HeartbeatTimeout
        | Input::HeartbeatTimeoutQueued
        | Input::WriteStall
        | Input::LingerEnd => to(State::Closed, &[]),
    }
}
