//! What can happen to a connection, and the arguments of its effects.

use std::io;

use crate::{
    close::{Cause, CloseFrame, CloseTiming},
    config::Abort,
    detach::Handover,
    error::{ConnectionLimit, HandshakeError},
    message::Payload,
};

/// Declares the inputs once: as an enum with arguments, and as a plain list of their names.
macro_rules! inputs {
    ($($(#[$doc:meta])* $name:ident $({ $($(#[$field_doc:meta])* $field:ident: $type:ty,)* })?,)*) => {
        /// What can happen to a connection, with all that its effects need to know.
        #[derive(Debug)]
        pub enum Input<'m> {
            $($(#[$doc])* $name $({ $($(#[$field_doc])* $field: $type,)* })?,)*
        }

        /// The name of an [`Input`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum InputKind {
            $($(#[$doc])* $name,)*
        }

        impl Input<'_> {
            /// Its name.
            #[must_use]
            pub const fn kind(&self) -> InputKind {
                match self {
                    $(Self::$name { .. } => InputKind::$name,)*
                }
            }
        }

        impl InputKind {
            /// Every input.
            pub const ALL: [Self; [$(stringify!($name)),*].len()] = [$(Self::$name),*];
        }
    };
}

inputs! {
    /// A valid upgrade request that the application accepted, or the server's 101.
    Upgrade {
        /// The 101; empty for a client.
        response: Vec<u8>,
    },
    /// A request that is refused: invalid, rejected by the application, over a limit, or during a shutdown.
    Refusal {
        /// The HTTP answer.
        response: Vec<u8>,
        /// Why.
        cause: HandshakeError,
    },
    /// A plain HTTP request that the application answered.
    PlainAnswer {
        /// The HTTP answer.
        response: Vec<u8>,
    },
    /// A plain HTTP request whose connection the application takes out of the loop.
    Detached {
        /// Who takes it, and what was read of it.
        handover: Option<Box<Handover>>,
    },
    /// `handshake_timeout` ran out.
    HandshakeTimeout {
        /// The HTTP answer.
        response: Vec<u8>,
    },
    /// The soft sweep found it without one byte of a request.
    SweptSilent,
    /// Its handshake is the oldest of too many.
    Evicted {
        /// What there are too many for.
        limit: ConnectionLimit,
    },
    /// Client: there will be no connection. No address can be connected to, a timeout ran out, the response is not the
    /// 101 that was asked for, or it was given up.
    ConnectFailed {
        /// Why.
        cause: HandshakeError,
    },
    /// A valid Close, while a Close of ours is not wholly in the kernel, or there is none.
    PeerClose {
        /// What it says.
        frame: CloseFrame,
    },
    /// A valid Close, while ours is wholly in the kernel.
    PeerCloseAfterFlush {
        /// What it says.
        frame: CloseFrame,
    },
    /// A broken rule (an invalid frame or Close payload, a message too big, bad UTF-8), while a Close of ours is
    /// not wholly in the kernel, or there is none.
    Violation {
        /// Which one, and what we say to it.
        failure: Failure,
    },
    /// A broken rule, while our Close is wholly in the kernel.
    ViolationAfterFlush {
        /// Which one.
        failure: Failure,
    },
    /// The peer's FIN was read.
    Eof {
        /// What is known of it.
        fin: PeerFin,
    },
    /// The peer's FIN is known of while reading is paused.
    PeerLeftPaused,
    /// A reset, EPIPE, or another error of the socket.
    Reset {
        /// Which error.
        kind: io::ErrorKind,
    },
    /// All that must be in the kernel before the next step is in the kernel.
    Flushed,
    /// It was aborted by FIN. Input may be unread or under way, and closing the descriptor would answer it by a reset.
    AbortedByFin {
        /// The peer's FIN was read before: no input can follow.
        eof: bool,
    },
    /// `close`, also by a sweep.
    Close {
        /// What to say.
        frame: CloseFrame,
        /// Who asks.
        cause: Cause,
        /// How long it may take.
        timing: CloseTiming,
    },
    /// `kick`.
    Kick {
        /// The last message.
        message: Payload<'m>,
        /// Whether what is queued and has not begun is dropped first.
        drop_queued: bool,
        /// What to say.
        frame: CloseFrame,
        /// How long it may take.
        timing: CloseTiming,
    },
    /// `answer_close`, or the automatic answer in its place.
    AnswerClose {
        /// What to say.
        frame: CloseFrame,
    },
    /// `terminate`.
    Terminate {
        /// How TCP is ended.
        style: Abort,
    },
    /// The hard sweep of a shutdown.
    HardSweep {
        /// How TCP is ended.
        style: Abort,
    },
    /// A message would exceed `max_backlog`, and the policy is to end such a connection.
    Overflow {
        /// How much is queued, and what we say.
        failure: Failure,
    },
    /// An invariant of this crate is broken.
    Internal {
        /// What we say.
        failure: Failure,
    },
    /// `close_timeout` ran out.
    CloseTimeout {
        /// Whether our Close was wholly in the kernel by then.
        flushed: bool,
        /// How TCP is ended.
        style: Abort,
    },
    /// `flush_budget` is used up.
    FlushBudget,
    /// Nothing came for `heartbeat.interval`.
    HeartbeatIdle,
    /// Nothing came for `heartbeat.timeout` after our Ping, and nothing is queued.
    HeartbeatTimeout {
        /// What we say.
        failure: Failure,
    },
    /// The same with a backlog: a Close would not get through.
    HeartbeatTimeoutQueued {
        /// How TCP is ended.
        style: Abort,
    },
    /// The kernel took nothing for `stall_timeout`.
    WriteStall {
        /// How TCP is ended.
        style: Abort,
    },
    /// Reading was paused for too long, or the application did not resume after the peer left.
    PauseEnd,
    /// `linger_timeout` ran out or `linger_bytes` are used up.
    LingerEnd {
        /// Whether the bytes are used up.
        exceeded: bool,
    },
}

/// The peer's FIN, which was read: nothing can follow it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerFin {
    /// It came without the end of the TLS session before it.
    pub truncated: bool,
}

/// Why we fail a connection (§7.1.7), and the Close that says so.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Why.
    pub cause: Cause,
    /// The Close that says so.
    pub frame: CloseFrame,
    /// How long it may take.
    pub timing: CloseTiming,
}
