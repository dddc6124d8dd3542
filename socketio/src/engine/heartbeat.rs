//! When a ping is sent and when its pong is due (SESSIONS.md 5).

use std::time::Duration;

use super::config::EngineConfig;

/// If a ping is sent later than this after it was due, the timeout counts from the sending.
const LATE: Duration = Duration::from_millis(50);

/// The next deadline: that of a ping, or that of a pong.
#[derive(Clone, Copy, Debug)]
pub(super) enum Heartbeat {
    /// A ping is sent at `due`.
    Ping { due: Duration },
    /// The session expires at `due`.
    Pong {
        due: Duration,
        /// Has a packet restarted the timeout? It can do so once.
        restarted: bool,
    },
}

/// What the session has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Beat {
    Nothing,
    SendPing,
    Expired,
}

impl Heartbeat {
    /// The state after the open, and after a pong.
    pub(super) fn new(now: Duration, config: &EngineConfig) -> Self {
        Self::Ping { due: now + config.ping_interval }
    }

    pub(super) const fn due(&self) -> Duration {
        match self {
            Self::Ping { due } | Self::Pong { due, .. } => *due,
        }
    }

    /// Returns the next action due at `now`. Call it again until it returns `Nothing`.
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

    /// Handles a pong; one without a ping is ignored.
    pub(super) fn pong(&mut self, now: Duration, config: &EngineConfig) {
        match self {
            Self::Ping { .. } => (),
            Self::Pong { .. } => *self = Self::new(now, config),
        }
    }

    /// Handles a packet other than a pong: the first one while a pong is due restarts the timeout.
    pub(super) fn packet(&mut self, now: Duration, config: &EngineConfig) {
        match self {
            Self::Ping { .. } | Self::Pong { restarted: true, .. } => (),
            Self::Pong { restarted: false, .. } => {
                *self = Self::Pong { due: now + config.ping_timeout, restarted: true };
            }
        }
    }
}
