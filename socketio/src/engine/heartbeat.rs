//! Pings, and the pongs that are due (specification 5).

use std::time::Duration;

use super::config::EngineConfig;

/// A ping that goes out later than this after it was due gives the client its whole timeout.
const LATE: Duration = Duration::from_millis(50);

/// When to look again for a pong that may have come, and has not been read.
const AGAIN: Duration = Duration::from_millis(10);

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
        /// The timeout is over, and the loop has not read what may have come.
        late: bool,
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

    /// To be called until it says `Nothing`. All input that had arrived by `heard` has been handled.
    pub(super) fn handle_timeout(&mut self, now: Duration, heard: Duration, config: &EngineConfig) -> Beat {
        match *self {
            Self::Ping { due } if due <= now => {
                let from = if now > due + LATE { now } else { due };
                *self = Self::Pong { due: from + config.ping_timeout, restarted: false, late: false };
                Beat::SendPing
            }
            Self::Pong { due, restarted, .. } if due <= now && heard < due => {
                *self = Self::Pong { due: now + AGAIN, restarted, late: true };
                Beat::Nothing
            }
            Self::Pong { due, .. } if due <= now => Beat::Expired,
            Self::Ping { .. } | Self::Pong { .. } => Beat::Nothing,
        }
    }

    /// A pong; without a ping it means nothing.
    pub(super) fn pong(&mut self, now: Duration, config: &EngineConfig) {
        match self {
            Self::Ping { .. } => (),
            // The client has been waiting for the next ping as long as the loop was behind.
            Self::Pong { late: true, .. } => *self = Self::Ping { due: now },
            Self::Pong { late: false, .. } => *self = Self::new(now, config),
        }
    }

    /// A packet other than a pong: the first one while a pong is due restarts the timeout.
    pub(super) fn packet(&mut self, now: Duration, config: &EngineConfig) {
        match self {
            Self::Ping { .. } | Self::Pong { restarted: true, .. } => (),
            Self::Pong { restarted: false, .. } => {
                *self = Self::Pong { due: now + config.ping_timeout, restarted: true, late: false };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn nobody_is_ended_for_a_silence_that_was_not_listened_to() {
        let config =
            EngineConfig { ping_interval: ms(1000), ping_timeout: ms(800), ..EngineConfig::default() };
        let mut heartbeat = Heartbeat::new(ms(0), &config);
        assert_eq!(heartbeat.handle_timeout(ms(1000), ms(1000), &config), Beat::SendPing);
        // The loop was blocked from 1,100 on.
        assert_eq!(heartbeat.handle_timeout(ms(4000), ms(1100), &config), Beat::Nothing);
        assert!(heartbeat.due() > ms(4000));
        let mut answered = heartbeat;
        answered.pong(ms(4001), &config);
        assert_eq!(answered.due(), ms(4001), "the next ping goes out at once");
        assert_eq!(heartbeat.handle_timeout(heartbeat.due(), heartbeat.due(), &config), Beat::Expired);
    }
}
