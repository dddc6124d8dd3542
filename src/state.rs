//! The names of the states of a connection. The tables of their transitions and capabilities are in `conn/state.rs`.

/// Where a connection is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// TCP is there, the HTTP upgrade is not complete. A client's connection begins here, with its name and TCP.
    Connecting,
    /// An HTTP answer that is not 101 is being flushed, then lingers.
    Refusing,
    /// Established.
    Open,
    /// Our Close is queued or sent, the peer's has not been received.
    LocalClosing,
    /// The peer's Close was received, ours is not flushed.
    RemoteClosing,
    /// We fail the connection (RFC 6455 §7.1.7): an error Close is queued, input is discarded.
    Failing,
    /// The outcome is fixed, our FIN is sent (a client waits for the server's first), input is discarded until EOF.
    Lingering,
    /// Ended: the descriptor is closed, or will be before the turn ends.
    Closed,
}

impl std::fmt::Display for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self, f)
    }
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
