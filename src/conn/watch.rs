//! What is known of the peer of an established connection: when its last byte came ([`Times`]), and whether it owes us an
//! answer or how fast its control frames come ([`Watch`]).
//!
//! The last two exclude each other, so they share a word: a control frame is inbound, and what is inbound answers our Ping
//! and ends a rest. Our Ping, on the other hand, is the end of a silence, and forgives what came before it. Control frames
//! that were read before our Ping or a rest and are parsed after it, having been held back, are no more than one read brings:
//! they end neither, and are not counted.

use std::time::Duration;

use crate::{
    config::{ControlRate, Heartbeat},
    time::Time,
};

/// What is known of an established connection's past.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    pub(super) opened: Time,
    pub(super) last_inbound: Time,
}

impl Times {
    /// How long nothing has come. A silence longer than a [`Watch`] can hold is shortened to that.
    pub(super) fn silence(&mut self, now: Time) -> Duration {
        self.last_inbound = self.last_inbound.max(now - Heartbeat::LONGEST);
        now.since(self.last_inbound)
    }
}

const _: () = assert!(Heartbeat::LONGEST.as_millis() <= VALUE as u128, "a watch can hold it");

/// Whether the peer owes us an answer, or how fast its control frames come: two bits say which of these it is, so that a
/// [`Life`](super::life::Life) needs no more than 24 bytes.
///
/// ```text
///   NOTHING   -
///   ASKED     our Ping is unanswered; value: milliseconds from the last inbound byte until it was sent
///   RESTED    reading was paused; value: milliseconds from the last inbound byte until it was resumed, since silence
///             that we imposed is not the peer's
///   TOKEN     value: the token that the peer's last control frame took, counted from the hub's beginning, modulo
///             `TOKENS`
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Watch(u32);

const VALUE: u32 = u32::MAX >> 2;
const KIND: u32 = !VALUE;
const ASKED: u32 = 1 << 30;
const RESTED: u32 = 2 << 30;
const TOKEN: u32 = 3 << 30;
const TOKENS: u32 = 1 << 30;
const _: () = assert!(ControlRate::MOST <= TOKENS / 2, "what is ahead of the clock is not in the past");

impl Watch {
    /// Neither was asked for, nor has anything come that is counted.
    pub(super) const NOTHING: Self = Self(0);

    /// Our Ping is sent, `silent` after the last inbound byte.
    pub(super) fn asked(silent: Duration) -> Self {
        Self(ASKED | millis_up(silent))
    }

    /// Reading is resumed, `silent` after the last inbound byte.
    pub(super) fn rested(silent: Duration) -> Self {
        if silent.is_zero() { Self::NOTHING } else { Self(RESTED | millis_up(silent)) }
    }

    /// How long after the last inbound byte our Ping was sent, if it is unanswered.
    pub(super) fn unanswered(self) -> Option<Duration> {
        (self.0 & KIND == ASKED).then(|| Duration::from_millis((self.0 & VALUE).into()))
    }

    /// How long after the last inbound byte reading went on, if nothing has come since.
    pub(super) fn rest(self) -> Option<Duration> {
        (self.0 & KIND == RESTED).then(|| Duration::from_millis((self.0 & VALUE).into()))
    }

    /// Bytes have come. Says whether that was waited for.
    #[inline]
    pub(super) const fn end_silence(&mut self) -> bool {
        let waited = matches!(self.0 & KIND, ASKED | RESTED);
        if waited {
            *self = Self::NOTHING;
        }
        waited
    }

    /// One more control frame of the peer. Says whether it is within `rate`.
    ///
    /// A bucket that holds `burst` tokens and fills at `per_second`, kept as the one number that says all of it: the
    /// token that the last frame took. It is at most `burst` ahead of the clock, or it is in the past, which 30 bits tell
    /// apart as long as they do not come round to the very same burst.
    pub(super) fn control(&mut self, rate: ControlRate, now: Time) -> bool {
        if self.rest().is_some() || self.unanswered().is_some() {
            // It was read before the rest, or before our Ping, and held back since: it ends neither, and is not counted.
            return true;
        }
        let burst = rate.burst;
        let tokens = now.since(Time::ZERO).as_micros().saturating_mul(rate.per_second.into()) / 1_000_000;
        let clock = u32::try_from(tokens % u128::from(TOKENS)).unwrap_or_default();
        let ahead = if self.0 & KIND == TOKEN { self.0.wrapping_sub(clock) % TOKENS } else { 0 };
        let ahead = if ahead > burst { 0 } else { ahead };
        if ahead == burst {
            return false;
        }
        self.0 = TOKEN | ((clock + ahead + 1) % TOKENS);
        true
    }
}

/// At least one: the Ping and the byte before it are not at the same moment.
fn millis_up(silent: Duration) -> u32 {
    u32::try_from(silent.as_micros().div_ceil(1000)).unwrap_or(VALUE).clamp(1, VALUE)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(us: u64) -> Time {
        Time::from_start(Duration::from_micros(us))
    }

    #[test]
    fn a_burst_and_then_the_rate() {
        let rate = ControlRate { per_second: 10, burst: 3 };
        let mut watch = Watch::default();
        // Milliseconds, and whether a frame is within the rate then.
        let rows = [
            (0, true),
            (0, true),
            (0, true),
            (0, false),
            (99, false),
            (100, true),
            (150, false),
            (200, true),
        ];
        for (ms, within) in rows {
            assert_eq!(watch.control(rate, at(ms * 1000)), within, "at {ms} ms");
        }
        // A second of silence fills the bucket, and no more than that.
        for within in [true, true, true, false] {
            assert_eq!(watch.control(rate, at(9_000_000)), within);
        }
    }

    #[test]
    fn a_ping_of_ours_and_their_control_frames_share_a_word() {
        let mut watch = Watch::asked(Duration::from_micros(30_000_001));
        assert_eq!(watch.unanswered(), Some(Duration::from_millis(30_001)));
        assert!(watch.control(ControlRate { per_second: 0, burst: 0 }, Time::ZERO), "it was held back");
        assert_eq!(
            watch.unanswered(),
            Some(Duration::from_millis(30_001)),
            "what was read before answers nothing"
        );
        assert!(watch.end_silence());
        assert!(watch.control(ControlRate::default(), Time::ZERO));
        assert_eq!((watch.unanswered(), watch.rest()), (None, None));
        assert_eq!(Watch::asked(Duration::ZERO).unanswered(), Some(Duration::from_millis(1)));
        assert!(Watch::asked(Duration::MAX).unanswered().is_some());
        assert_eq!(Watch::rested(Duration::ZERO), Watch::NOTHING);
        let mut rested = Watch::rested(Duration::from_secs(2));
        assert!(rested.control(ControlRate { per_second: 0, burst: 0 }, Time::ZERO), "it was held back");
        assert_eq!(rested.rest(), Some(Duration::from_secs(2)));
        for (mut watch, waited) in [(Watch::asked(Duration::ZERO), true), (Watch::NOTHING, false)] {
            assert_eq!((watch.end_silence(), watch), (waited, Watch::NOTHING));
        }
    }

    #[test]
    fn no_tokens_at_all() {
        let mut watch = Watch::default();
        assert!(!watch.control(ControlRate { per_second: 1000, burst: 0 }, at(5_000_000)));
        let once = ControlRate { per_second: 0, burst: 1 };
        assert!(watch.control(once, Time::ZERO));
        assert!(!watch.control(once, at(1 << 50)));
    }

    proptest! {
        /// The bucket as everyone writes it, with a level and the moment at which that was right.
        #[test]
        fn agrees_with_a_plain_bucket(
            per_second in 0u32..2_000_000,
            burst in 0u32..200,
            start in 0u64..1 << 52,
            steps in prop::collection::vec(0u64..200_000, 0..400),
        ) {
            let rate = ControlRate { per_second, burst };
            let tokens = |us: u64| u128::from(us) * u128::from(per_second) / 1_000_000;
            let (mut watch, mut now) = (Watch::default(), start);
            let (mut level, mut seen) = (0u128, tokens(start));
            for step in steps {
                now += step;
                level = level.saturating_sub(tokens(now) - seen);
                seen = tokens(now);
                let within = level < u128::from(burst);
                prop_assert_eq!(watch.control(rate, at(now)), within, "at {}", now);
                level += u128::from(within);
            }
        }
    }
}
