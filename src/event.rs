//! What the user is handed: messages, and the events of a connection's life.

use std::{net::SocketAddr, str};

use crate::{
    close::{CloseFrame, CloseReport, Initiator, Lost},
    error::HandshakeError,
    id::ConnectionId,
    shutdown::{ShutdownPhase, SweepId, SweepReport},
};

/// The two kinds of data messages (§5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MessageKind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// A data message: one that came in, lent from the loop's buffer, or one to send.
///
/// Whatever is text or bytes converts into one, and a message that came in can be sent as it is:
///
/// ```
/// use adjourn::Message;
///
/// assert!(Message::from("hello").is_text());
/// assert!(!Message::from(&b"hello"[..]).is_text());
/// ```
#[derive(Debug)]
pub struct Message<'a> {
    pub(crate) kind: MessageKind,
    pub(crate) data: Data<'a>,
}

/// Where a message's payload lies.
#[derive(Debug)]
pub(crate) enum Data<'a> {
    Borrowed(&'a [u8]),
    /// The loop's scratch buffer, which may be taken instead of copied.
    Scratch(&'a mut Vec<u8>),
    Owned(Vec<u8>),
}

impl Data<'_> {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Scratch(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }
}

impl<'a> Message<'a> {
    /// A text message. Copies nothing until it is queued.
    pub const fn text(text: &'a str) -> Self {
        Self { kind: MessageKind::Text, data: Data::Borrowed(text.as_bytes()) }
    }

    /// A binary message. Copies nothing until it is queued.
    pub const fn binary(bytes: &'a [u8]) -> Self {
        Self { kind: MessageKind::Binary, data: Data::Borrowed(bytes) }
    }

    /// Text or binary.
    pub(crate) const fn kind(&self) -> MessageKind {
        self.kind
    }

    /// Whether it is text. What came in as text is valid UTF-8.
    pub const fn is_text(&self) -> bool {
        matches!(self.kind, MessageKind::Text)
    }

    /// The payload.
    pub fn as_bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// The payload as text; `None` if the message is binary. Checks the UTF-8 once more rather than trusting it.
    pub fn as_text(&self) -> Option<&str> {
        self.is_text().then(|| str::from_utf8(self.as_bytes()).ok()).flatten()
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// The payload as a vector: without a copy if it had a buffer of its own already, else it allocates.
    pub fn into_bytes(self) -> Vec<u8> {
        match self.data {
            Data::Borrowed(bytes) => bytes.to_vec(),
            Data::Scratch(bytes) => std::mem::take(bytes),
            Data::Owned(bytes) => bytes,
        }
    }

    /// The same message, borrowed, for another send.
    pub fn reborrow(&self) -> Message<'_> {
        Message { kind: self.kind, data: Data::Borrowed(self.as_bytes()) }
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::text(text)
    }
}

impl<'a> From<&'a String> for Message<'a> {
    fn from(text: &'a String) -> Self {
        Self::text(text)
    }
}

impl From<String> for Message<'_> {
    fn from(text: String) -> Self {
        Self { kind: MessageKind::Text, data: Data::Owned(text.into_bytes()) }
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::binary(bytes)
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Message<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        Self::binary(bytes)
    }
}

impl<'a> From<&'a Vec<u8>> for Message<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        Self::binary(bytes)
    }
}

impl From<Vec<u8>> for Message<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self { kind: MessageKind::Binary, data: Data::Owned(bytes) }
    }
}

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
        /// The peer's address: of several, the one tried last; `0.0.0.0` if the name was not resolved.
        peer: SocketAddr,
        /// Why.
        error: HandshakeError,
    },
    /// The last connection that a sweep matched has ended.
    SweepDone {
        /// Which sweep, as `close_where` or `terminate_where` returned it.
        sweep: SweepId,
        /// How it went.
        report: SweepReport,
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
            Self::HandshakeFailed { id, .. } => *id,
            Self::SweepDone { .. } | Self::Phase { .. } => None,
        }
    }
}

/// How many connections there are, by state, and counters of what went wrong beside them since the loop began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
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
}

impl Stats {
    /// All slots in use.
    pub const fn total(&self) -> usize {
        self.connecting + self.open + self.closing + self.lingering
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
