//! The events of a connection's life, and counts.

use std::{io, net::SocketAddr};

use crate::{
    close::{CloseFrame, CloseReport, Initiator, Lost},
    error::HandshakeError,
    id::ConnectionId,
    message::Message,
    shutdown::{ShutdownPhase, SweepId, SweepReport},
};

/// What happened. For one connection the order is: `Open`, any number of `Message`, `Ping`, `Pong` and `Drain`, at
/// most one `Closing` (after it, messages that the peer sent before it knew are marked `closing`), exactly one
/// `Close`. Nothing follows `Close`. A handshake that fails gives one `HandshakeFailed` and nothing else.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<'a> {
    /// The opening handshake is complete.
    Open {
        /// The connection.
        id: ConnectionId,
    },
    /// A data message, whole and unmasked; text is valid UTF-8.
    Message {
        /// The connection.
        id: ConnectionId,
        /// The message, valid until the callback returns.
        message: Message<'a>,
        /// Whether we have begun to close: an answer could not be sent any more.
        closing: bool,
    },
    /// A Ping; the Pong is queued already.
    Ping {
        /// The connection.
        id: ConnectionId,
        /// At most 125 bytes.
        payload: &'a [u8],
    },
    /// A Pong.
    Pong {
        /// The connection.
        id: ConnectionId,
        /// At most 125 bytes.
        payload: &'a [u8],
    },
    /// Everything that was queued is in the kernel. Sent if the kernel had refused some of it, if 16 KiB or more were
    /// queued at once, if `send` or `broadcast` found no room, if [`Client::buffered_amount`](crate::Client::buffered_amount)
    /// was more than 0, and if the connection was paused while something was queued; so an application that waits for one
    /// of these gets it. Not sent once nothing can be queued any more.
    ///
    /// One that was refused because of [`max_backlog_total`](crate::config::LoopConfig::max_backlog_total), while nothing was queued for
    /// itself, gets it when the others hold so much less that its message would have fitted.
    Drain {
        /// The connection.
        id: ConnectionId,
    },
    /// The first Close was queued by us or received: stop producing.
    Closing {
        /// The connection.
        id: ConnectionId,
        /// `Local` or `Remote`.
        initiator: Initiator,
        /// The Close frame, ours or the peer's.
        frame: CloseFrame,
    },
    /// The connection has ended. Its data can be looked at for the last time.
    Close {
        /// The connection.
        id: ConnectionId,
        /// The report; boxed, so that it does not make every event large.
        report: Box<CloseReport>,
    },
    /// An opening handshake ended without a connection.
    HandshakeFailed {
        /// Which one, if the application knows its id: it was begun by [`Clients::connect`](crate::Clients::connect), and its data
        /// can be looked at for the last time; or its upgrade was [deferred](crate::http::Upgrade::Defer).
        id: Option<ConnectionId>,
        /// The peer's address, as far as it was known: of several, the one tried last; `0.0.0.0` if the name was not resolved; the
        /// proxy's if it has not named the client; `0.0.0.0:0` of a Unix domain socket.
        peer: SocketAddr,
        /// Why.
        error: HandshakeError,
    },
    /// `accept` failed and may go on failing, most likely for want of descriptors (EMFILE). Newcomers wait in the kernel's queue, and
    /// `accept` is tried again in each turn, after 100 ms at the latest. Sent once until a connection is accepted again;
    /// [`Stats::accept_errors`] counts every failure.
    AcceptFailed {
        /// What the system said.
        error: io::Error,
    },
    /// The last connection that a sweep matched has ended.
    SweepDone {
        /// Which sweep, as `close_where` or `terminate_where` returned it.
        sweep: SweepId,
        /// How it went.
        report: SweepReport,
    },
    /// A timer has fired, see [`Clients::set_timer`](crate::Clients::set_timer).
    Timer {
        /// Whose it is; `None` for one of the loop.
        id: Option<ConnectionId>,
        /// As it was set.
        key: u64,
    },
    /// A source of the application's own became ready, see [`Server::sources`](crate::Server::sources). Being edge-triggered,
    /// this is not said again before the source has returned `WouldBlock`.
    Source {
        /// Which one.
        source: SourceId,
        /// There may be something to read.
        readable: bool,
        /// There may be room for writes.
        writable: bool,
        /// It was closed by the other side, or has failed.
        ended: bool,
    },
    /// The shutdown entered a phase.
    Phase {
        /// The phase.
        phase: ShutdownPhase,
        /// Who is there at that moment.
        stats: Stats,
    },
}

impl Event<'_> {
    /// The event's name without its fields.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Open { .. } => "Open",
            Self::Message { .. } => "Message",
            Self::Ping { .. } => "Ping",
            Self::Pong { .. } => "Pong",
            Self::Drain { .. } => "Drain",
            Self::Closing { .. } => "Closing",
            Self::Close { .. } => "Close",
            Self::HandshakeFailed { .. } => "HandshakeFailed",
            Self::AcceptFailed { .. } => "AcceptFailed",
            Self::SweepDone { .. } => "SweepDone",
            Self::Timer { .. } => "Timer",
            Self::Source { .. } => "Source",
            Self::Phase { .. } => "Phase",
        }
    }

    /// The connection that the event is about, if it is about one.
    pub const fn id(&self) -> Option<ConnectionId> {
        match self {
            Self::Open { id }
            | Self::Message { id, .. }
            | Self::Ping { id, .. }
            | Self::Pong { id, .. }
            | Self::Drain { id }
            | Self::Closing { id, .. }
            | Self::Close { id, .. } => Some(*id),
            Self::HandshakeFailed { id, .. } | Self::Timer { id, .. } => *id,
            Self::AcceptFailed { .. } | Self::SweepDone { .. } | Self::Phase { .. } | Self::Source { .. } => {
                None
            }
        }
    }
}

/// A source of the application's own on a loop's poll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId(pub(crate) u32);

/// How many connections there are, by state, and counters of what went wrong beside them since the loop began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// In the opening handshake, or having its HTTP answer flushed.
    pub connecting: usize,
    /// Established and not closing.
    pub open: usize,
    /// Between the first Close and `Close`.
    pub closing: usize,
    /// Reported, with a descriptor that waits for the peer's FIN.
    pub lingering: usize,
    /// Messages of [`Handle::send`](crate::Handle::send) that could not be sent when the loop got to them: the connection
    /// was gone or closing, or its backlog full.
    pub unsent: u64,
    /// How often an invariant of this crate was found broken: each time a connection was failed with 1011, or reset
    /// if it was closing. Please report it.
    pub internal_errors: u64,
    /// How often `accept` failed, most likely for want of descriptors. Newcomers wait in the kernel meanwhile.
    pub accept_errors: u64,
    /// Bytes that all backlogs hold together; what several of them share counts once. See
    /// [`LoopConfig::max_backlog_total`](crate::config::LoopConfig::max_backlog_total).
    pub backlog_total: usize,
}

impl Stats {
    /// All slots in use.
    pub const fn total(&self) -> usize {
        self.connecting + self.open + self.closing + self.lingering
    }

    /// Adds the numbers of another loop.
    pub const fn add(&mut self, other: &Self) {
        self.connecting += other.connecting;
        self.open += other.open;
        self.closing += other.closing;
        self.lingering += other.lingering;
        self.unsent += other.unsent;
        self.internal_errors += other.internal_errors;
        self.accept_errors += other.accept_errors;
        self.backlog_total += other.backlog_total;
    }
}

impl Lost {
    /// Adds another ending's losses; `kernel_unsent` adds up what is known.
    pub fn add(&mut self, other: &Self) {
        self.messages += other.messages;
        self.bytes += other.bytes;
        self.partial += other.partial;
        self.inbound_messages += other.inbound_messages;
        self.inbound_bytes += other.inbound_bytes;
        self.inbound_partial_bytes += other.inbound_partial_bytes;
        self.trailing_bytes += other.trailing_bytes;
        self.kernel_unsent = match (self.kernel_unsent, other.kernel_unsent) {
            (Some(a), Some(b)) => Some(a.saturating_add(b)),
            (a, b) => a.or(b),
        };
    }
}
