//! Connections that were refused a message because of what others hold, while nothing was queued for themselves: no write of
//! their own will bring the `Drain` that they wait for. The hub says when there is room.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::ConnectionId;

/// See above. One entry for each connection at most, until it gets its `Drain` or ends.
#[derive(Debug, Default)]
pub(crate) struct WaitingForRoom {
    /// What each was refused: the smallest of it, if that was more than one message.
    by_id: BTreeMap<ConnectionId, Place>,
    /// The smallest first; of equal ones, the one that has waited longest.
    by_size: BTreeSet<(Place, ConnectionId)>,
    /// Numbers those that come.
    latest: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    bytes: usize,
    number: u64,
}

impl WaitingForRoom {
    /// A connection waits for room for `bytes`. O(log waiting), allocates.
    pub(super) fn add(&mut self, id: ConnectionId, bytes: usize) {
        let before = self.by_id.get(&id).copied();
        if before.is_some_and(|before| before.bytes <= bytes) {
            return;
        }
        self.latest += 1;
        let place = Place { bytes, number: before.map_or(self.latest, |before| before.number) };
        if let Some(before) = self.by_id.insert(id, place) {
            self.by_size.remove(&(before, id));
        }
        self.by_size.insert((place, id));
    }

    /// A connection waits no longer.
    pub(crate) fn remove(&mut self, id: ConnectionId) {
        if !self.by_id.is_empty()
            && let Some(place) = self.by_id.remove(&id)
        {
            self.by_size.remove(&(place, id));
        }
    }

    /// Takes out one for which `room` bytes are enough. Returns what it needs of them, too.
    pub(crate) fn take(&mut self, room: usize) -> Option<(ConnectionId, usize)> {
        let (place, id) = self.by_size.first().copied().filter(|(place, _)| place.bytes <= room)?;
        self.remove(id);
        Some((id, place.bytes))
    }

    /// Whether there is one for which `room` bytes are enough.
    #[inline]
    pub(crate) fn has_one_for(&self, room: usize) -> bool {
        !self.by_size.is_empty() && self.by_size.first().is_some_and(|(place, _)| place.bytes <= room)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(slot: u32) -> ConnectionId {
        ConnectionId::new(0, slot, 1)
    }

    #[test]
    fn the_smallest_comes_first_and_of_equal_ones_the_one_that_came_first() {
        let mut waiting = WaitingForRoom::default();
        for (slot, bytes) in [(5, 70), (4, 90), (3, 70), (2, 80), (4, 60), (4, 65), (3, 70)] {
            waiting.add(id(slot), bytes);
        }
        assert_eq!((waiting.by_id.len(), waiting.by_size.len()), (4, 4), "each is there once");
        assert!(!waiting.has_one_for(59) && waiting.take(59).is_none());
        assert!(waiting.has_one_for(60));
        waiting.remove(id(2));
        let taken: Vec<_> = std::iter::from_fn(|| waiting.take(100)).collect();
        assert_eq!(taken, [(id(4), 60), (id(5), 70), (id(3), 70)]);
        assert!(waiting.by_id.is_empty() && waiting.by_size.is_empty() && !waiting.has_one_for(usize::MAX));
    }
}
