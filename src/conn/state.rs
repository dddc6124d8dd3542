//! The two tables that say what each [`State`] of a connection does: [`step`], the only function that begins or ends
//! anything, and [`State::capabilities`].
//!
//! Both are pure. An input owns its arguments, and [`step`] lends them to the effects that need them; so an effect cannot
//! be paired with the arguments of another input. `apply.rs` carries the effects out. No other state, no
//! clock and no bytes may enter here.
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
//!   Connecting ── the application detaches a plain request ──> Closed
//!   every state ── terminate, hard sweep, reset, its deadline ──> Closed <── EOF, deadline, budget ── Lingering
//! ```
//!
//! Both roles have these states and the same tables. What differs for a client:
//!
//! * `Connecting` includes finding the server and TCP. A handshake that fails goes to `Closed`: there is no request to refuse.
//! * "The server closes first" (§7.1.1): in `Lingering` the client has sent no FIN. It reads until the server's, for
//!   `linger_timeout` at most, and only then closes its descriptor. So `TIME_WAIT` stays with the server, and the last
//!   bytes of both sides arrive. `Close` is reported on entering `Lingering`, as for a server.
//! * Its frames are masked, the server's must not be (§5.1).

use std::io;

mod input;

pub use self::input::{Failure, Input, InputKind, PeerFin};
pub use crate::state::State;
use crate::{
    close::{Cause, CloseFrame, CloseTiming, Initiator},
    config::Abort,
    detach::Handover,
    error::HandshakeError,
    message::Payload,
};

/// What a state does with input and with messages of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// What input is parsed as.
    pub parses: Parses,
    /// Whether messages and control frames are handed to the application, and Pings are answered.
    pub delivers: bool,
    /// Whether `send` and `ping` queue something.
    pub takes_sends: TakesSends,
    /// Whether input is read, counted and thrown away.
    pub discards: bool,
}

/// What input is parsed as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parses {
    /// The head of an HTTP request or response.
    Head,
    /// Frames.
    Frames,
    /// It is not.
    Nothing,
}

/// Whether `send` and `ping` queue something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakesSends {
    /// They do.
    Yes,
    /// As long as the application owes the answer to the peer's Close.
    UntilAnswered,
    /// They return an error.
    No,
}

impl State {
    /// The second table: what is done with input and with messages to send.
    #[inline]
    #[must_use]
    pub const fn capabilities(self) -> Capabilities {
        use TakesSends::{No, UntilAnswered, Yes};
        let (parses, delivers, takes_sends, discards) = match self {
            Self::Connecting => (Parses::Head, false, No, false),
            Self::Open => (Parses::Frames, true, Yes, false),
            Self::LocalClosing => (Parses::Frames, true, No, false),
            Self::RemoteClosing => (Parses::Nothing, false, UntilAnswered, true),
            Self::Refusing | Self::Failing | Self::Lingering => (Parses::Nothing, false, No, true),
            Self::Closed => (Parses::Nothing, false, No, false),
        };
        Capabilities { parses, delivers, takes_sends, discards }
    }
}

/// Declares the effects once: as an enum that borrows their arguments, and as a plain list of their names.
macro_rules! effects {
    ($($(#[$doc:meta])* $name:ident $(($argument:ty))?,)*) => {
        /// What a transition asks for, carried out in this order. What an effect needs it borrows from the input.
        #[derive(Debug)]
        pub enum Effect<'i, 'm> {
            $($(#[$doc])* $name $(($argument))?,)*
        }

        impl Effect<'_, '_> {
            /// The names of all effects.
            pub const NAMES: [&'static str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

            /// Its name without what it borrows.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self {
                    $(Self::$name { .. } => stringify!($name),)*
                }
            }
        }
    };
}

effects! {
    /// Queue the 101 and report `Open`.
    Establish(&'i mut Vec<u8>),
    /// Queue the HTTP answer; its time to live starts.
    Answer(&'i mut Vec<u8>),
    /// Take the connection out of the loop. Its slot is freed at the end of the turn; nothing is written or reported.
    HandOver(&'i mut Option<Box<Handover>>),
    /// Report `HandshakeFailed`.
    ReportFailure(HandshakeError),
    /// Queue the message, past the limit on what may be queued.
    QueueMessage(&'i mut Payload<'m>),
    /// Queue a Ping.
    QueuePing,
    /// An inbound message that is not finished, and what was read and not parsed, is lost.
    DropInbound,
    /// Outbound messages that have not begun are lost; the one on the wire is completed.
    DropUnbegun,
    /// The flush budget is used up: what this turn's write does not get into the kernel is dropped.
    CutFlushBudget,
    /// Report `Closing`.
    ReportClosing,
    /// Start `close_timeout` and `flush_budget`.
    StartTimers(&'i CloseTiming),
    /// Queue our Close.
    QueueClose(&'i CloseFrame),
    /// Queue the answer to the peer's Close, or let the application do it.
    QueueAnswer(&'i CloseFrame),
    /// Keep the peer's Close: it fixes the code.
    KeepPeerClose(&'i CloseFrame),
    /// Cut the deadline if the caller's is earlier.
    ShortenDeadline(&'i CloseTiming),
    /// Read again even if paused.
    ResumeReading,
    /// Remember that there is nothing more to read.
    KeepEof(PeerFin),
    /// Give the application `close_timeout` to resume.
    StartPauseDeadline,
    /// Read on, and discard what comes.
    DiscardInput,
    /// Report `Close`.
    Report,
    /// Send FIN, discard input until EOF. A client leaves its own FIN until it has read the server's (§7.1.1).
    Fin,
    /// End the TCP connection at once in this style, and report `Close`.
    Abort(Abort),
    /// Close the descriptor, with a reset if that is true: the peer has sent too much to be waited for. The slot is freed at
    /// the end of the turn.
    Release(bool),
}

/// One row of the table: where to go, who ended it and why, and what to do.
#[derive(Debug)]
pub struct Step<'i, 'm> {
    /// The next state.
    pub next: State,
    /// Who ends the connection by this; `None` leaves what is known.
    pub initiator: Option<Initiator>,
    /// Why it ends; `None` leaves what is known.
    pub cause: Option<Cause>,
    effects: [Option<Effect<'i, 'm>>; MOST_EFFECTS],
    /// How many of them were taken.
    taken: usize,
}

const MOST_EFFECTS: usize = 6;

impl<'i, 'm> Step<'i, 'm> {
    /// What to do next.
    #[inline]
    pub fn poll_effect(&mut self) -> Option<Effect<'i, 'm>> {
        let effect = self.effects.get_mut(self.taken)?.take();
        self.taken += 1;
        effect
    }

    const fn by(mut self, initiator: Initiator, cause: Cause) -> Self {
        (self.initiator, self.cause) = (Some(initiator), Some(cause));
        self
    }

    const fn because(mut self, cause: Cause) -> Self {
        self.cause = Some(cause);
        self
    }
}

#[inline(always)]
#[expect(clippy::inline_always, reason = "the row is written where it is used")]
fn to<'i, 'm, const N: usize>(next: State, effects: [Effect<'i, 'm>; N]) -> Step<'i, 'm> {
    const { assert!(N <= MOST_EFFECTS, "there is room for the longest row") };
    let mut row = [const { None }; MOST_EFFECTS];
    for (place, effect) in row.iter_mut().zip(effects) {
        *place = Some(effect);
    }
    Step { next, initiator: None, cause: None, effects: row, taken: 0 }
}

/// The transition table of the closing specification, as a function.
///
/// An input that a state cannot meet is answered with the state itself and no effect, so that a late timer or a
/// repeated command is a no-op and nothing can panic.
#[must_use]
#[expect(clippy::match_same_arms, reason = "a row of the specification each")]
pub fn step<'i, 'm>(state: State, input: &'i mut Input<'m>) -> Step<'i, 'm> {
    use Effect as E;
    use Initiator::{Both, Local, Remote, Transport};
    use State::{Closed, Connecting, Failing, Lingering, LocalClosing, Open, Refusing, RemoteClosing};
    #[cfg(fuzzing)]
    super::coverage::note(state, input.kind());
    match (state, input) {
        // The opening handshake.
        (Connecting, Input::Upgrade { response }) => to(Open, [E::Establish(response)]),
        (Connecting, Input::Refusal { response, cause }) => {
            to(Refusing, [E::Answer(response), E::ReportFailure(*cause)])
        }
        (Connecting, Input::HandshakeTimeout { response }) => {
            to(Refusing, [E::Answer(response), E::ReportFailure(HandshakeError::Timeout)])
        }
        (Connecting, Input::PlainAnswer { response }) => to(Refusing, [E::Answer(response)]),
        (Connecting, Input::Detached { handover }) => to(Closed, [E::HandOver(handover)]),
        (Connecting, Input::SweptSilent) => no_handshake(HandshakeError::ShuttingDown),
        (Connecting, Input::Evicted { limit }) => {
            no_handshake(HandshakeError::TooManyConnections { limit: *limit })
        }
        (Connecting, Input::ConnectFailed { cause }) => no_handshake(*cause),
        (
            Refusing | Open | LocalClosing | RemoteClosing | Failing | Lingering | Closed,
            Input::Upgrade { .. }
            | Input::Refusal { .. }
            | Input::HandshakeTimeout { .. }
            | Input::PlainAnswer { .. }
            | Input::Detached { .. }
            | Input::SweptSilent
            | Input::Evicted { .. }
            | Input::ConnectFailed { .. },
        ) => to(state, []),

        // What the peer sends.
        (Open, Input::PeerClose { frame } | Input::PeerCloseAfterFlush { frame }) => to(
            RemoteClosing,
            [
                E::KeepPeerClose(frame),
                E::DropInbound,
                E::StartTimers(&CloseTiming::DEFAULT),
                E::ReportClosing,
                E::QueueAnswer(frame),
            ],
        )
        .by(Remote, Cause::PeerClose),
        // Ours was queued and not wholly in the kernel: they crossed (§7.1.5 still takes the peer's code).
        (LocalClosing, Input::PeerClose { frame }) => {
            to(RemoteClosing, [E::KeepPeerClose(frame), E::DropInbound]).by(Both, Cause::Crossed)
        }
        // Answered: the cause is why we closed.
        (LocalClosing, Input::PeerCloseAfterFlush { frame }) => {
            to(Lingering, [E::KeepPeerClose(frame), E::DropInbound, E::Report, E::Fin])
        }
        (Open, Input::Violation { failure } | Input::ViolationAfterFlush { failure }) => fail(failure),
        // The Close that is queued stands; it still has to get out, or FIN would follow a cut frame.
        (LocalClosing, Input::Violation { failure }) => {
            to(Failing, [E::DropInbound, E::CutFlushBudget]).because(failure.cause)
        }
        (LocalClosing, Input::ViolationAfterFlush { failure }) => {
            to(Lingering, [E::DropInbound, E::Report, E::Fin]).because(failure.cause)
        }
        (
            Connecting | Refusing | RemoteClosing | Failing | Lingering | Closed,
            Input::PeerClose { .. }
            | Input::PeerCloseAfterFlush { .. }
            | Input::Violation { .. }
            | Input::ViolationAfterFlush { .. },
        ) => to(state, []),

        // What becomes of the socket.
        (Connecting, Input::Eof { .. }) => no_handshake(HandshakeError::PeerFin),
        // §8: a half-close after the request is legal; the answer is still due. And so is the answer to a Close.
        (Refusing | RemoteClosing, Input::Eof { fin }) => to(state, [E::KeepEof(*fin)]),
        (Open, Input::Eof { fin }) => to(Closed, [E::KeepEof(*fin), E::DropInbound, E::Abort(Abort::Auto)])
            .by(Transport, Cause::PeerFin),
        (LocalClosing, Input::Eof { fin }) => {
            to(Closed, [E::KeepEof(*fin), E::DropInbound, E::Abort(Abort::Auto)])
                .because(Cause::PeerFinDuringClose)
        }
        (Failing, Input::Eof { fin }) => to(Closed, [E::KeepEof(*fin), E::Abort(Abort::Auto)]),
        (Lingering, Input::Eof { .. }) => to(Closed, [E::Release(false)]),
        (Connecting, Input::Reset { kind }) => {
            no_handshake(if is_reset(*kind) { HandshakeError::PeerReset } else { HandshakeError::Io(*kind) })
        }
        (Refusing | Lingering, Input::Reset { .. }) => to(Closed, [E::Release(false)]),
        (Open, Input::Reset { kind }) => to(Closed, [E::DropInbound, E::Abort(Abort::Reset)])
            .by(Transport, if is_reset(*kind) { Cause::PeerReset } else { Cause::Io(*kind) }),
        (LocalClosing, Input::Reset { kind }) => {
            to(Closed, [E::DropInbound, E::Abort(Abort::Reset)]).because(reset_during_close(*kind))
        }
        (RemoteClosing, Input::Reset { kind }) => {
            to(Closed, [E::Abort(Abort::Reset)]).because(reset_during_close(*kind))
        }
        // The first failure stays the cause, whatever ends it then.
        (Failing, Input::Reset { .. }) => to(Closed, [E::Abort(Abort::Reset)]),
        (Closed, Input::Eof { .. } | Input::Reset { .. }) => to(Closed, []),
        (Refusing, Input::Flushed) => to(Lingering, [E::Fin]),
        (RemoteClosing | Failing, Input::Flushed) => to(Lingering, [E::Report, E::Fin]),
        (Connecting | Open | LocalClosing | Lingering | Closed, Input::Flushed) => to(state, []),
        (Closed, Input::AbortedByFin { eof: false }) => to(Lingering, [E::Fin]),
        (Closed, Input::AbortedByFin { eof: true }) => to(Closed, [E::Release(false)]),
        (
            Connecting | Refusing | Open | LocalClosing | RemoteClosing | Failing | Lingering,
            Input::AbortedByFin { .. },
        ) => to(state, []),

        // What the application asks for.
        (Open, Input::Close { frame, cause, timing }) => to(
            LocalClosing,
            [E::StartTimers(timing), E::QueueClose(frame), E::ReportClosing, E::ResumeReading],
        )
        .by(Local, *cause),
        (Open, Input::Kick { message, drop_queued: false, frame, timing }) => to(
            LocalClosing,
            [
                E::QueueMessage(message),
                E::StartTimers(timing),
                E::QueueClose(frame),
                E::ReportClosing,
                E::ResumeReading,
            ],
        )
        .by(Local, Cause::Kicked),
        (Open, Input::Kick { message, drop_queued: true, frame, timing }) => to(
            LocalClosing,
            [
                E::DropUnbegun,
                E::QueueMessage(message),
                E::StartTimers(timing),
                E::QueueClose(frame),
                E::ReportClosing,
                E::ResumeReading,
            ],
        )
        .by(Local, Cause::Kicked),
        (
            LocalClosing | RemoteClosing | Failing,
            Input::Close { timing, .. } | Input::Kick { timing, .. },
        ) => to(state, [E::ShortenDeadline(timing)]),
        (Connecting | Refusing | Lingering | Closed, Input::Close { .. } | Input::Kick { .. }) => {
            to(state, [])
        }
        (RemoteClosing, Input::AnswerClose { frame }) => to(state, [E::QueueClose(frame)]),
        (
            Connecting | Refusing | Open | LocalClosing | Failing | Lingering | Closed,
            Input::AnswerClose { .. },
        ) => to(state, []),
        (Refusing, Input::Terminate { .. } | Input::HardSweep { .. }) => to(Closed, [E::Release(false)]),
        (Open, Input::Terminate { style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).by(Local, Cause::Terminated)
        }
        (LocalClosing, Input::Terminate { style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).because(Cause::Terminated)
        }
        (RemoteClosing, Input::Terminate { style }) => {
            to(Closed, [E::Abort(*style)]).because(Cause::Terminated)
        }
        (Failing, Input::Terminate { style } | Input::HardSweep { style }) => to(Closed, [E::Abort(*style)]),
        (Connecting | Lingering | Closed, Input::Terminate { .. }) => to(state, []),
        (Connecting, Input::HardSweep { .. }) => no_handshake(HandshakeError::ShuttingDown),
        (Open, Input::HardSweep { style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).by(Local, Cause::ShutdownHard)
        }
        (LocalClosing, Input::HardSweep { style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).because(Cause::ShutdownHard)
        }
        (RemoteClosing, Input::HardSweep { style }) => {
            to(Closed, [E::Abort(*style)]).because(Cause::ShutdownHard)
        }
        (Lingering, Input::HardSweep { .. }) => to(Closed, [E::Release(false)]),
        (Closed, Input::HardSweep { .. }) => to(state, []),

        // What this crate finds.
        (Open, Input::Overflow { failure } | Input::Internal { failure }) => fail(failure),
        (LocalClosing, Input::Internal { failure }) => {
            to(Closed, [E::DropInbound, E::Abort(Abort::Reset)]).because(failure.cause)
        }
        (RemoteClosing, Input::Internal { failure }) => {
            to(Closed, [E::Abort(Abort::Reset)]).because(failure.cause)
        }
        (Failing, Input::Internal { .. }) => to(Closed, [E::Abort(Abort::Reset)]),
        (Refusing, Input::Internal { .. }) => to(Closed, [E::Release(false)]),
        (Connecting | Lingering | Closed, Input::Internal { .. }) => to(state, []),
        (
            Connecting | Refusing | LocalClosing | RemoteClosing | Failing | Lingering | Closed,
            Input::Overflow { .. },
        ) => to(state, []),

        // Deadlines.
        (Open, Input::HeartbeatIdle) => to(Open, [E::QueuePing]),
        (Open, Input::HeartbeatTimeout { failure }) => to(
            Failing,
            [
                E::DropInbound,
                E::StartTimers(&failure.timing),
                E::QueueClose(&failure.frame),
                E::ReportClosing,
            ],
        )
        .by(Local, failure.cause),
        (Open, Input::HeartbeatTimeoutQueued { style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).by(Local, Cause::HeartbeatTimeout)
        }
        (Open, Input::WriteStall { style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).by(Local, Cause::WriteStall)
        }
        (Open, Input::PeerLeftPaused) => to(Open, [E::StartPauseDeadline]),
        (Open, Input::PauseEnd) => to(Open, [E::DiscardInput]),
        (
            Connecting | Refusing | LocalClosing | RemoteClosing | Failing | Lingering | Closed,
            Input::HeartbeatIdle
            | Input::HeartbeatTimeout { .. }
            | Input::HeartbeatTimeoutQueued { .. }
            | Input::WriteStall { .. }
            | Input::PeerLeftPaused
            | Input::PauseEnd,
        ) => to(state, []),
        (LocalClosing, Input::CloseTimeout { flushed, style }) => {
            to(Closed, [E::DropInbound, E::Abort(*style)]).because(Cause::CloseTimeout { flushed: *flushed })
        }
        (RemoteClosing, Input::CloseTimeout { flushed, style }) => {
            to(Closed, [E::Abort(*style)]).because(Cause::CloseTimeout { flushed: *flushed })
        }
        (Failing, Input::CloseTimeout { style, .. }) => to(Closed, [E::Abort(*style)]),
        (LocalClosing | RemoteClosing | Failing, Input::FlushBudget) => to(state, [E::DropUnbegun]),
        (
            Connecting | Refusing | Open | Lingering | Closed,
            Input::CloseTimeout { .. } | Input::FlushBudget,
        ) => to(state, []),
        (Refusing | Lingering, Input::LingerEnd { exceeded }) => to(Closed, [E::Release(*exceeded)]),
        (Connecting | Open | LocalClosing | RemoteClosing | Failing | Closed, Input::LingerEnd { .. }) => {
            to(state, [])
        }
    }
}

/// A handshake that ends without an answer.
fn no_handshake<'i, 'm>(cause: HandshakeError) -> Step<'i, 'm> {
    to(State::Closed, [Effect::ReportFailure(cause), Effect::Release(false)])
}

/// §7.1.7, with a flush budget of zero.
fn fail<'m>(failure: &Failure) -> Step<'_, 'm> {
    to(
        State::Failing,
        [
            Effect::DropInbound,
            Effect::StartTimers(&failure.timing),
            Effect::QueueClose(&failure.frame),
            Effect::CutFlushBudget,
            Effect::ReportClosing,
            Effect::ResumeReading,
        ],
    )
    .by(Initiator::Local, failure.cause)
}

/// The peer has ended the TCP connection, as opposed to another error.
const fn is_reset(kind: io::ErrorKind) -> bool {
    matches!(
        kind,
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionAborted
    )
}

const fn reset_during_close(kind: io::ErrorKind) -> Cause {
    if is_reset(kind) { Cause::PeerResetDuringClose } else { Cause::Io(kind) }
}
