//! When each connection of a sweep gets its Close: the arithmetic of [`Pace`]. Ids and moments enter; no connections.

use std::{collections::VecDeque, time::Duration};

use crate::{id::ConnectionId, shutdown::Pace, time::Time};

/// Every pace that was asked for one sweep. All of them hold, so the shortest decides.
#[derive(Clone, Copy, Debug)]
struct Paces {
    at_once: bool,
    rate: Option<f64>,
    spread: Option<Duration>,
}

impl Paces {
    fn new(pace: Pace) -> Self {
        let mut paces = Self { at_once: false, rate: None, spread: None };
        paces.add(pace);
        paces
    }

    fn add(&mut self, pace: Pace) {
        match pace {
            Pace::AtOnce => self.at_once = true,
            Pace::Rate(rate) => {
                let rate = valid(rate);
                self.rate = Some(self.rate.map_or(rate, |other| other.max(rate)));
            }
            Pace::Spread(over) => self.spread = Some(self.spread.map_or(over, |other| other.min(over))),
        }
    }

    /// How long a sweep of `count` connections takes, in all loops together.
    fn length(&self, count: usize) -> Duration {
        if self.at_once {
            return Duration::ZERO;
        }
        let rate = self.rate.map(|rate| seconds(as_f64(count) / rate));
        rate.into_iter().chain(self.spread).min().unwrap_or(Duration::MAX)
    }
}

/// The connections of a sweep that wait for their Close, and until when.
#[derive(Debug)]
pub(super) struct Schedule {
    paces: Paces,
    start: Time,
    /// Sorted once the search for them is complete; until then they have no moment of their own.
    waiting: VecDeque<(Time, ConnectionId)>,
    is_set: bool,
}

impl Schedule {
    pub(super) fn new(pace: Pace, start: Time) -> Self {
        Self { paces: Paces::new(pace), start, waiting: VecDeque::new(), is_set: false }
    }

    /// The first moment is `start` instead of what [`Schedule::new`] was given.
    pub(super) const fn begin(&mut self, start: Time) {
        self.start = start;
    }

    /// Whether those that are found need not wait.
    pub(super) const fn is_immediate(&self) -> bool {
        self.paces.at_once
    }

    /// One more connection was found.
    pub(super) fn push(&mut self, id: ConnectionId) {
        self.waiting.push_back((self.start, id));
    }

    /// All were found: gives each its moment. A rate is for all loops together; `elsewhere` is how many connections the
    /// other loops have.
    pub(super) fn set(&mut self, elsewhere: usize, rng: &mut fastrand::Rng) {
        self.is_set = true;
        if let Some(over) = self.paces.spread {
            for entry in &mut self.waiting {
                entry.0 = self.start.after(seconds(over.as_secs_f64() * rng.f64()));
            }
            self.waiting.make_contiguous().sort_unstable();
        } else if self.paces.rate.is_some() {
            self.waiting.iter_mut().for_each(|entry| entry.0 = Time::NEVER);
        }
        if let Some(rate) = self.paces.rate {
            self.limit_to_rate(rate, elsewhere, self.start);
        }
        if self.paces.at_once {
            self.limit_to(self.start);
        }
    }

    /// Adds a pace; it holds from `now` on, or from the start if that is yet to come. Returns whether the sweep is
    /// shorter for it, if it is one of `count` connections in this loop.
    pub(super) fn shorten(&mut self, pace: Pace, count: usize, elsewhere: usize, now: Time) -> bool {
        if !self.is_set {
            let before = self.paces.length(count + elsewhere);
            self.paces.add(pace);
            return self.paces.length(count + elsewhere) < before;
        }
        let before = self.last();
        match pace {
            Pace::AtOnce => self.limit_to(now),
            Pace::Rate(rate) => self.limit_to_rate(valid(rate), elsewhere, now),
            Pace::Spread(over) => self.limit_to_spread(over, now),
        }
        self.last() < before
    }

    /// The earliest that waits.
    pub(super) fn first(&self) -> Option<(Time, ConnectionId)> {
        self.waiting.front().copied().filter(|_| self.is_set)
    }

    /// Takes out the earliest that waits.
    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
        if self.waiting.is_empty() {
            self.waiting = VecDeque::new();
        }
    }

    /// Completes the search and empties the schedule. Returns how many were scheduled.
    pub(super) fn clear(&mut self) -> usize {
        self.is_set = true;
        std::mem::take(&mut self.waiting).len()
    }

    /// Whether all were found and none waits.
    pub(super) fn is_done(&self) -> bool {
        self.is_set && self.waiting.is_empty()
    }

    fn last(&self) -> Option<Time> {
        self.waiting.back().map(|entry| entry.0)
    }

    fn limit_to(&mut self, latest: Time) {
        self.waiting.iter_mut().for_each(|entry| entry.0 = entry.0.min(latest));
    }

    /// This loop's share of `rate` is what it has of all connections: then all loops are done at the same moment.
    fn limit_to_rate(&mut self, rate: f64, elsewhere: usize, from: Time) {
        let own = as_f64(self.waiting.len());
        let share = rate * own / (own + as_f64(elsewhere));
        for (nth, entry) in self.waiting.iter_mut().enumerate() {
            entry.0 = entry.0.min(from.after(seconds(as_f64(nth) / share)));
        }
    }

    /// Moves the moments closer together, so that the last is within `over`.
    fn limit_to_spread(&mut self, over: Duration, from: Time) {
        let Some(length) = self.last().map(|last| last.since(from)).filter(|length| *length > over) else {
            return;
        };
        let factor = over.as_secs_f64() / length.as_secs_f64();
        for entry in &mut self.waiting {
            entry.0 = entry.0.min(from.after(seconds(entry.0.since(from).as_secs_f64() * factor)));
        }
    }
}

/// A rate that is not above zero would never end: it counts as one a second.
const fn valid(per_second: f64) -> f64 {
    if per_second > 0.0 { per_second } else { 1.0 }
}

fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
}

#[expect(clippy::cast_precision_loss, reason = "a count of connections")]
const fn as_f64(count: usize) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn schedule(pace: Pace, count: u32, elsewhere: usize) -> Schedule {
        let mut schedule = Schedule::new(pace, Time::ZERO);
        (0..count).for_each(|slot| schedule.push(ConnectionId::new(0, slot, slot)));
        schedule.set(elsewhere, &mut fastrand::Rng::with_seed(1));
        schedule
    }

    fn moments(schedule: &Schedule) -> Vec<Duration> {
        schedule.waiting.iter().map(|entry| entry.0.since(Time::ZERO)).collect()
    }

    #[test]
    fn loops_share_a_rate_by_what_they_have() {
        // In all 20 connections at 20 a second, which a loop closes within a second however few of them it has.
        for (own, elsewhere) in [(20, 0), (19, 1), (10, 10), (4, 16), (2, 18), (1, 19)] {
            let schedule = schedule(Pace::Rate(20.0), own, elsewhere);
            let step = SECOND / own;
            let expected: Vec<_> = (0..own).map(|nth| nth * step).collect();
            for (at, expected) in moments(&schedule).iter().zip(expected) {
                assert!(
                    at.abs_diff(expected) < Duration::from_millis(1),
                    "{own} of 20: {at:?}, {expected:?}"
                );
            }
        }
    }

    #[test]
    fn a_spread_is_spread_over_its_time_and_not_over_the_slots() {
        let schedule = schedule(Pace::Spread(4 * SECOND), 1000, 0);
        let moments = moments(&schedule);
        assert!(moments.is_sorted());
        for quarter in 0..4 {
            let within = moments.iter().filter(|at| at.as_secs() == quarter).count();
            assert!((200..300).contains(&within), "{within} in second {quarter}");
        }
        let early = schedule.waiting.iter().take(500).filter(|(_, id)| id.slot() < 500).count();
        assert!((200..300).contains(&early), "{early} of the first half of the slots are in the first half");
    }

    #[test]
    fn the_shortest_pace_decides_whatever_the_order() {
        let paces = [Pace::Spread(8 * SECOND), Pace::Rate(10.0), Pace::Rate(1.0), Pace::Spread(30 * SECOND)];
        // 40 connections: the rate of ten a second takes 3.9 s.
        for first in paces {
            let mut schedule = Schedule::new(first, Time::ZERO);
            for pace in paces {
                schedule.shorten(pace, 40, 0, Time::ZERO);
            }
            (0..40).for_each(|slot| schedule.push(ConnectionId::new(0, slot, slot)));
            schedule.set(0, &mut fastrand::Rng::with_seed(1));
            assert!(schedule.last().is_some_and(|last| last <= Time::ZERO.after(4 * SECOND)), "{first:?}");
            assert!(moments(&schedule).is_sorted());
            assert!(schedule.shorten(Pace::AtOnce, 40, 0, Time::ZERO));
            assert_eq!(schedule.last(), Some(Time::ZERO));
        }
    }

    #[test]
    fn rates_and_times_that_make_no_sense_are_borne() {
        for rate in [0.0, -1.0, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE, f64::MAX] {
            let mut schedule = schedule(Pace::Rate(rate), 3, usize::MAX);
            schedule.shorten(Pace::Rate(rate), 3, 0, Time::ZERO);
            assert!(moments(&schedule).is_sorted(), "{rate}");
        }
        let mut schedule = schedule(Pace::Spread(Duration::MAX), 3, 0);
        assert!(schedule.shorten(Pace::Spread(Duration::ZERO), 3, 0, Time::ZERO));
        assert_eq!(schedule.last(), Some(Time::ZERO));
    }
}
