//! One deadline per connection, earliest first.
//!
//! A binary heap of (time, slot) with the place of each slot beside it, so that a deadline can be moved. Activity does
//! not touch it: an entry may be early, and is corrected when it fires. So the cost of a turn depends on the deadlines that
//! fire in it, and a message costs nothing, however many connections there are. No connection enters.

use crate::time::Time;

/// The queue. Eight bytes a connection, and four for its place.
#[derive(Debug, Default)]
pub(crate) struct Deadlines {
    heap: Vec<Entry>,
    /// The index of each slot in the heap; `NOWHERE` if it has no deadline.
    places: Vec<u32>,
}

const NOWHERE: u32 = u32::MAX;

/// A deadline and its slot in one number: 40 bits of milliseconds, rounded up, which are 34 years, and 24 bits for the
/// slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Entry(u64);

impl Entry {
    fn new(at: Time, slot: u32) -> Self {
        Self(at.as_millis_up().min(u64::MAX >> 24) << 24 | u64::from(slot))
    }

    fn at(self) -> Time {
        Time::from_millis(self.0 >> 24)
    }

    const fn slot(self) -> u32 {
        (self.0 & 0x00ff_ffff) as u32
    }
}

impl Deadlines {
    /// The earliest deadline.
    pub(crate) fn next(&self) -> Option<Time> {
        self.heap.first().map(|entry| entry.at())
    }

    /// When `slot` is due.
    pub(crate) fn due(&self, slot: u32) -> Option<Time> {
        let place = *self.places.get(slot as usize)?;
        self.heap.get(place as usize).map(|entry| entry.at())
    }

    /// Sets or moves the deadline of `slot`. O(log n).
    pub(crate) fn set(&mut self, slot: u32, at: Time) {
        if self.places.len() <= slot as usize {
            self.places.resize(slot as usize + 1, NOWHERE);
        }
        if let Some(place) = self.places.get(slot as usize).copied().filter(|place| *place != NOWHERE) {
            let place = place as usize;
            let fresh = Entry::new(at, slot);
            let before = std::mem::replace(&mut self.heap[place], fresh);
            if fresh < before { self.rise(place) } else { self.sink(place) }
        } else {
            self.heap.push(Entry::new(at, slot));
            self.rise(self.heap.len() - 1);
        }
    }

    /// Removes the deadline of `slot`. O(log n).
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(place) = self.places.get_mut(slot as usize) else { return };
        let place = std::mem::replace(place, NOWHERE);
        if place == NOWHERE {
            return;
        }
        let place = place as usize;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            // The entry that was moved from the end may have to rise or sink.
            self.rise(place);
            self.sink(self.places[self.heap[place].slot() as usize] as usize);
        }
        if self.heap.is_empty() {
            *self = Self::default();
        }
    }

    /// Gives back room that `slots` slots do not need.
    pub(crate) fn shrink(&mut self, slots: usize) {
        self.places.truncate(slots);
        self.places.shrink_to_fit();
        self.heap.shrink_to_fit();
    }

    /// The slot that is due at `now`, earliest first. It stays in the queue until it is set again or removed.
    pub(crate) fn first_due(&self, now: Time) -> Option<u32> {
        self.heap.first().filter(|entry| entry.at() <= now).map(|entry| entry.slot())
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    fn rise(&mut self, mut place: usize) {
        let entry = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if self.heap[parent] <= entry {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, entry);
    }

    fn sink(&mut self, mut place: usize) {
        let entry = self.heap[place];
        loop {
            let mut child = 2 * place + 1;
            if child + 1 < self.heap.len() && self.heap[child + 1] < self.heap[child] {
                child += 1;
            }
            if child >= self.heap.len() || self.heap[child] >= entry {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, entry);
    }

    fn put(&mut self, place: usize, entry: Entry) {
        self.heap[place] = entry;
        self.places[entry.slot() as usize] = u32::try_from(place).unwrap_or(NOWHERE);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_start(Duration::from_millis(ms))
    }

    proptest! {
        /// Whatever is set, moved and removed: the first due is always a minimum of a plain map.
        #[test]
        fn agrees_with_a_map(ops in prop::collection::vec((0u32..40, prop::option::of(0u64..1000)), 0..400)) {
            let (mut deadlines, mut map) = (Deadlines::default(), BTreeMap::new());
            for (slot, ms) in ops {
                if let Some(ms) = ms {
                    deadlines.set(slot, at(ms));
                    map.insert(slot, at(ms));
                } else {
                    deadlines.remove(slot);
                    map.remove(&slot);
                }
                prop_assert_eq!(deadlines.next(), map.values().min().copied());
                prop_assert_eq!(deadlines.len(), map.len());
                prop_assert_eq!(deadlines.due(slot), map.get(&slot).copied());
            }
            while let Some(slot) = deadlines.first_due(Time::NEVER) {
                prop_assert_eq!(map.get(&slot).copied(), map.values().min().copied());
                deadlines.remove(slot);
                map.remove(&slot);
            }
            prop_assert!(map.is_empty());
        }
    }
}
