//! The application's timers, earliest first: each has an owner, a connection or the loop itself, and a key. Who has none
//! costs nothing. No connection enters.

use std::{
    collections::{BTreeMap, BTreeSet},
    mem,
    time::Duration,
};

use crate::{id::ConnectionId, time::Time};

/// Whose timer it is, `None` being the loop, and which of them.
pub(super) type Timer = (Option<ConnectionId>, u64);

#[derive(Debug, Default)]
pub(super) struct Timers {
    due: BTreeMap<Timer, Time>,
    queue: BTreeSet<(Time, Timer)>,
    /// Those that the present callback has set: their time begins when it has returned.
    unarmed: Vec<Timer>,
}

impl Timers {
    /// When the next one fires.
    pub(super) fn next(&self) -> Option<Time> {
        self.queue.first().map(|(at, _)| *at)
    }

    /// Sets or moves one. O(log n); allocates.
    pub(super) fn set(&mut self, timer: Timer, at: Time) {
        self.put(timer, at);
        self.unarmed.push(timer);
    }

    fn put(&mut self, timer: Timer, at: Time) {
        if let Some(before) = self.due.insert(timer, at) {
            self.queue.remove(&(before, timer));
        }
        self.queue.insert((at, timer));
    }

    /// Removes one; says whether it was set. O(log n).
    pub(super) fn clear(&mut self, timer: Timer) -> bool {
        let due = self.due.remove(&timer);
        due.is_some_and(|at| self.queue.remove(&(at, timer)))
    }

    /// Removes all timers of a connection.
    pub(super) fn clear_all(&mut self, id: ConnectionId) {
        while let Some((timer, _)) = self.due.range((Some(id), 0)..=(Some(id), u64::MAX)).next() {
            self.clear(*timer);
        }
    }

    /// How many are due at `now`, counted to `most`. O(count).
    #[inline]
    pub(super) fn count_due(&self, now: Time, most: usize) -> usize {
        if self.queue.is_empty() {
            return 0;
        }
        self.queue.iter().take(most).take_while(|(at, _)| *at <= now).count()
    }

    /// Takes out the first one that is due at `now`, and since when it was.
    pub(super) fn poll(&mut self, now: Time) -> Option<(Time, Timer)> {
        let (at, timer) = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.clear(timer);
        Some((at, timer))
    }

    pub(super) const fn has_unarmed(&self) -> bool {
        !self.unarmed.is_empty()
    }

    /// The callback that has set timers has returned, `by` later: they begin now.
    #[inline]
    pub(super) fn callback_returned(&mut self, by: Duration) {
        if !self.unarmed.is_empty() {
            self.arm(by);
        }
    }

    fn arm(&mut self, by: Duration) {
        let mut unarmed = mem::take(&mut self.unarmed);
        unarmed.sort_unstable();
        unarmed.dedup();
        for timer in unarmed.drain(..) {
            if let Some(at) = self.due.get(&timer) {
                self.put(timer, at.after(by));
            }
        }
        self.unarmed = unarmed;
        self.unarmed.shrink_to(64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    #[test]
    fn each_fires_once_at_its_last_time_and_none_of_a_connection_that_has_ended() {
        let [a, b] = [1, 2].map(|slot| ConnectionId::new(0, slot, 9));
        let mut timers = Timers::default();
        for (timer, seconds) in
            [((Some(a), 0), 5), ((Some(a), u64::MAX), 6), ((Some(b), 0), 3), ((None, 0), 4), ((None, 0), 7)]
        {
            timers.set(timer, at(seconds));
        }
        timers.set((Some(b), 1), at(1));
        assert!(timers.clear((Some(b), 1)));
        assert!(!timers.clear((Some(b), 1)), "once");
        timers.callback_returned(Duration::from_secs(1));
        assert!(!timers.has_unarmed());
        assert_eq!((timers.next(), timers.poll(at(3))), (Some(at(4)), None), "never early");
        assert_eq!(timers.poll(at(4)), Some((at(4), (Some(b), 0))));
        timers.clear_all(a);
        assert_eq!(timers.poll(at(100)), Some((at(8), (None, 0))));
        assert_eq!((timers.poll(at(100)), timers.next()), (None, None));
    }
}
