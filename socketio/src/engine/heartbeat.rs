//! Pings, and the pongs that are due (SESSIONS.md 5).

use std::time::Duration;

use super::config::EngineConfig;

/// A ping that goes out later than this after it was due gives the client its whole timeout.
const LATE: Duration = Duration::from_millis(50);

/// Which one of the two is waited for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heartbeat {
    /// The next ping.
    Ping { due: Duration },
    /// The pong.
    Pong {
        due: Duration,
        /// Has a packet restarted the timeout?
        restarted: bool,
    },
}

/// What is to be done now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    SendPing,
    Expired,
}

impl Heartbeat {
    /// From the open on.
    pub(super) fn new(now: Duration, config: &EngineConfig) -> Self {
        Self::Ping { due: now + config.ping_interval }
    }

    pub(super) const fn due(&self) -> Duration {
        match self {
            Self::Ping { due } | Self::Pong { due, .. } => *due,
        }
    }

    /// To be called until it says `Nothing`.
    pub(super) fn handle_timeout(&mut self, now: Duration, config: &EngineConfig) -> Beat {
        match *self {
            Self::Ping { due } if due <= now => {
                let from = if now > due + LATE { now } else { due };
                *self = Self::Pong { due: from + config.ping_timeout, restarted: false };
                Beat::SendPing
            }
            Self::Pong { due, .. } if due <= now => Beat::Expired,
            Self::Ping { .. } | Self::Pong { .. } => Beat::Nothing,
        }
    }

    /// A pong; without a ping it means nothing.
    pub(super) fn pong(&mut self, now: Duration, config: &EngineConfig) {
        match self {
            Self::Ping { .. } => (),
            Self::Pong { .. } => *self = Self::new(now, config),
        }
    }

    /// A packet other than a pong: the first one while a pong is due restarts the timeout.
    pub(super) fn packet(&mut self, now: Duration, config: &EngineConfig) {
        match self {
            Self::Ping { .. } | Self::Pong { restarted: true, .. } => (),
            Self::Pong { restarted: false, .. } => {
                *self = Self::Pong { due: now + config.ping_timeout, restarted: true };
            }
        }
    }
}
