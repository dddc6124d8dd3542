//! One word of a connection that counts what its present state needs counted.
//!
//! What is counted in one state means nothing in another, so they share the word:
//!
//! ```text
//!   Open                 0                      nothing
//!                        0 | milliseconds       our Ping is unanswered; it came so long after the last inbound byte
//!                        1 | token, 31 bits     the peer's control frames: when the last of them would have been due
//!   Refusing, Lingering  bytes discarded
//! ```
//!
//! The two of `Open` exclude each other: a control frame is inbound, and what is inbound answers our Ping. That Ping, on
//! the other hand, is the end of a silence, and forgives what came before it.

use std::time::Duration;

use crate::{config::ControlRate, time::Time};

/// See above. Leaving a state clears it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Tally(u32);

/// Set: a token. So a Ping that is unanswered is a positive number.
const TOKEN: u32 = 1 << 31;

impl Tally {
    /// Our Ping is sent, so long after the last inbound byte.
    pub(super) fn asked(silent: Duration) -> Self {
        let silent = u32::try_from(silent.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        Self(silent.clamp(1, TOKEN - 1))
    }

    /// How long after the last inbound byte our Ping was sent, if it is unanswered.
    pub(super) fn unanswered(self) -> Option<Duration> {
        (self.0 != 0 && self.0 < TOKEN).then(|| Duration::from_millis(self.0.into()))
    }

    /// One more control frame of the peer. Says whether it is within `rate`.
    ///
    /// A bucket that holds `burst` tokens and fills at `per_second`, kept as the one number that says all of it: the
    /// token that the last frame took, counted from the hub's beginning. It is at most `burst` ahead of the clock, or
    /// it is in the past, which 31 bits tell apart as long as they do not come round to the very same burst.
    pub(super) fn control(&mut self, rate: ControlRate, now: Time) -> bool {
        let burst = rate.burst.min(TOKEN / 2);
        let tokens = now.since(Time::ZERO).as_micros().saturating_mul(rate.per_second.into()) / 1_000_000;
        let clock = u32::try_from(tokens % u128::from(TOKEN)).unwrap_or_default();
        let ahead = match self.0 {
            last if last >= TOKEN => last.wrapping_sub(clock) % TOKEN,
            _ => 0,
        };
        let ahead = if ahead > burst { 0 } else { ahead };
        if ahead == burst {
            return false;
        }
        self.0 = TOKEN | ((clock + ahead + 1) % TOKEN);
        true
    }

    /// So many bytes more were discarded. Returns how many that are.
    pub(super) fn discard(&mut self, n: usize) -> u64 {
        self.0 = self.0.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        self.discarded()
    }

    /// Bytes that were discarded.
    pub(super) const fn discarded(self) -> u64 {
        self.0 as u64
    }
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
        let mut tally = Tally::default();
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
            assert_eq!(tally.control(rate, at(ms * 1000)), within, "at {ms} ms");
        }
        // A second of silence fills the bucket, and no more than that.
        for within in [true, true, true, false] {
            assert_eq!(tally.control(rate, at(9_000_000)), within);
        }
    }

    #[test]
    fn a_ping_of_ours_and_their_control_frames_share_a_word() {
        let mut tally = Tally::asked(Duration::from_micros(30_000_001));
        assert_eq!(tally.unanswered(), Some(Duration::from_millis(30_001)));
        assert!(tally.control(ControlRate::default(), Time::ZERO));
        assert_eq!(tally.unanswered(), None);
        assert_eq!(Tally::asked(Duration::ZERO).unanswered(), Some(Duration::from_millis(1)));
        assert!(Tally::asked(Duration::MAX).unanswered().is_some());
        assert_eq!(Tally::default().unanswered(), None);
    }

    #[test]
    fn no_tokens_at_all() {
        let mut tally = Tally::default();
        assert!(!tally.control(ControlRate { per_second: 1000, burst: 0 }, at(5_000_000)));
        let once = ControlRate { per_second: 0, burst: 1 };
        assert!(tally.control(once, Time::ZERO));
        assert!(!tally.control(once, at(1 << 50)));
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
            let (mut tally, mut now) = (Tally::default(), start);
            let (mut level, mut seen) = (0u128, tokens(start));
            for step in steps {
                now += step;
                level = level.saturating_sub(tokens(now) - seen);
                seen = tokens(now);
                let within = level < u128::from(burst);
                prop_assert_eq!(tally.control(rate, at(now)), within, "at {}", now);
                level += u128::from(within);
            }
        }
    }
}
