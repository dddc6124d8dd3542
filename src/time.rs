//! Time as the core sees it: microseconds since the loop began, handed in as a parameter, eight bytes in a slot.

use std::{
    ops::{Add, AddAssign, Sub},
    time::Duration,
};

/// A moment, in microseconds since the loop was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time(u64);

impl Time {
    /// The moment at which the loop was made.
    pub const ZERO: Self = Self(0);
    /// Later than any other: a deadline that never fires.
    pub const NEVER: Self = Self(u64::MAX);

    /// The moment `since_start` after the loop was made.
    pub fn from_start(since_start: Duration) -> Self {
        Self(u64::try_from(since_start.as_micros()).unwrap_or(u64::MAX))
    }

    /// The moment that many milliseconds after the loop was made.
    pub(crate) const fn from_millis(since_start: u64) -> Self {
        Self(since_start.saturating_mul(1000))
    }

    /// This moment, `by` later. Saturates at [`Time::NEVER`].
    #[must_use]
    pub fn after(self, by: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }

    /// Whole milliseconds since the hub was made, rounded up.
    pub(crate) const fn as_millis_up(self) -> u64 {
        self.0.div_ceil(1000)
    }

    /// How long ago `earlier` was; zero if it is yet to come.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// [`Time::after`].
impl Add<Duration> for Time {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        self.after(by)
    }
}

/// [`Time::after`].
impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, by: Duration) {
        *self = self.after(by);
    }
}

/// This moment, so much earlier; not before [`Time::ZERO`].
impl Sub<Duration> for Time {
    type Output = Self;

    fn sub(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(by.as_micros()).unwrap_or(u64::MAX)))
    }
}

/// [`Time::since`].
impl Sub for Time {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_added_and_subtracted_and_saturates() {
        let second = Duration::from_secs(1);
        let mut at = Time::ZERO + second;
        at += second;
        assert_eq!((at - Time::ZERO, at - second), (2 * second, Time::from_start(second)));
        assert_eq!((Time::ZERO - at, Time::ZERO - second), (Duration::ZERO, Time::ZERO));
        assert_eq!((Time::NEVER + second, Time::ZERO + Duration::MAX), (Time::NEVER, Time::NEVER));
    }
}
