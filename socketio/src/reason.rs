//! Why a socket was disconnected (specification 11). Depends on nothing.

use std::fmt;

/// Why a socket was disconnected, as the server sees it: the first cause, fixed when it occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// The client's Close, FIN or reset, an I/O error, or `cut` by the server.
    TransportClose,
    /// The client sent a ping or an invalid frame, or broke a rule of long-polling.
    TransportError,
    /// The pong did not come.
    PingTimeout,
    /// An Engine.IO packet of no known type.
    ParseError,
    /// `close_engine`, a Socket.IO packet that cannot be decoded, or one that the state does not allow.
    ForcedClose,
    /// Another connection has resumed this session.
    SessionTakenOver,
    /// The client's `disconnect()`.
    ClientNamespaceDisconnect,
    /// The server's `disconnect()` or `disconnect_connection()`.
    ServerNamespaceDisconnect,
    /// The server shuts down.
    ServerShuttingDown,
    /// The send queue is full, or the client takes nothing.
    SlowConsumer,
    /// The idle policy.
    Idle,
}

impl Reason {
    /// The text that handlers and logs see; the official server's where it has the reason.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TransportClose => "transport close",
            Self::TransportError => "transport error",
            Self::PingTimeout => "ping timeout",
            Self::ParseError => "parse error",
            Self::ForcedClose => "forced close",
            Self::SessionTakenOver => "session taken over",
            Self::ClientNamespaceDisconnect => "client namespace disconnect",
            Self::ServerNamespaceDisconnect => "server namespace disconnect",
            Self::ServerShuttingDown => "server shutting down",
            Self::SlowConsumer => "slow consumer",
            Self::Idle => "idle",
        }
    }

    /// Can the session be resumed after it?
    pub const fn is_resumable(self) -> bool {
        !matches!(self, Self::ClientNamespaceDisconnect | Self::ServerNamespaceDisconnect | Self::Idle)
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
