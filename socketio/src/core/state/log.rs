//! The log of a namespace as this process sees it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ConnectingKey;
use super::arena::NumberMap;
use crate::offset::Position;
use crate::store::{Entry, EntryKind, LogState, Millis};

/// Entries and bytes of [`Log::recent`]: what a short absence misses needs no call of the store.
const RECENT_ENTRIES: usize = 256;
const RECENT_BYTES: u64 = 256 << 10;

/// A namespace's log as this process sees it.
pub(crate) struct Log {
    /// Is it known where it begins?
    pub(crate) known: bool,
    /// Of a shared log: the epoch of what is dispatched; `None`: it is not read yet.
    pub(crate) epoch: Option<u64>,
    /// Appends of this process to a shared log that are not answered yet: what is read meanwhile is held.
    pub(crate) appending: u32,
    pub(crate) held: VecDeque<Entry>,
    pub(crate) held_bytes: u64,
    /// Sessions that are resumed when a shared log is read up to there.
    pub(crate) resumes: Vec<(Position, ConnectingKey)>,
    /// Entries up to here have been dispatched.
    pub(crate) dispatched: Position,
    /// The newest entry trimmed.
    pub(crate) floor: Position,
    /// Entries up to here are in the store: as `dispatched`, but with `BeforeCommit`.
    pub(crate) committed: Position,
    /// Entries that wait for their commit, or are in it.
    pub(crate) uncommitted: usize,
    /// The newest entries, without a gap.
    recent: VecDeque<Entry>,
    recent_bytes: u64,
    /// The entry before the first recent one.
    recent_after: Position,
    /// Unexpired asks, by position and by id.
    pub(crate) asks: BTreeMap<Position, Entry>,
    pub(crate) ask_ids: NumberMap<u64, Position>,
    /// Pages being read: the log is not trimmed meanwhile.
    pub(crate) reads: u32,
    /// A trim waits, or runs: no page is read meanwhile.
    pub(crate) trim: Trim,
    /// Appended since the last trim.
    pub(crate) new_entries: u64,
    pub(crate) new_bytes: u64,
    /// In all, as of the last trim.
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    /// It is looked at again then.
    pub(crate) next_trim: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trim {
    No,
    Wanted,
    Running,
}

impl Log {
    pub(crate) fn new(found: Option<LogState>) -> Self {
        let known = found.is_some();
        let (tail, floor) = found.map_or_else(Default::default, |log| (log.tail, log.floor));
        Self {
            known,
            epoch: None,
            appending: 0,
            held: VecDeque::new(),
            held_bytes: 0,
            resumes: Vec::new(),
            dispatched: tail,
            committed: tail,
            floor,
            uncommitted: 0,
            recent: VecDeque::new(),
            recent_bytes: 0,
            recent_after: tail,
            asks: BTreeMap::new(),
            ask_ids: NumberMap::default(),
            reads: 0,
            trim: Trim::No,
            new_entries: 0,
            new_bytes: 0,
            // Not known before the first trim.
            entries: u64::from(tail > floor),
            bytes: 0,
            next_trim: Duration::ZERO,
        }
    }

    /// A shared log is read from its tail on, for the first time or again.
    pub(crate) fn begin(&mut self, epoch: u64, floor: Position, tail: Position) {
        self.known = true;
        self.epoch = Some(epoch);
        self.floor = floor;
        self.dispatched = tail;
        self.committed = tail;
        self.recent.clear();
        self.recent_bytes = 0;
        self.recent_after = tail;
        self.entries = u64::from(tail > floor);
    }

    /// An entry is dispatched.
    pub(crate) fn append(&mut self, entry: &Entry) {
        let bytes = entry.new.bytes();
        self.dispatched = entry.position;
        self.new_entries += 1;
        self.new_bytes += bytes;
        if entry.new.kind == EntryKind::Ask {
            self.keep_ask(entry.clone());
        }
        self.recent_bytes += bytes;
        self.recent.push_back(entry.clone());
        while self.recent.len() > RECENT_ENTRIES || self.recent_bytes > RECENT_BYTES {
            // What is not in the store yet can be read from here alone.
            let committed = self.recent.front().is_some_and(|oldest| oldest.position <= self.committed);
            let Some(oldest) = self.recent.pop_front_if(|_| committed) else { break };
            self.recent_bytes -= oldest.new.bytes();
            self.recent_after = oldest.position;
        }
    }

    /// Bytes of an entry on average, 1 at least.
    pub(crate) fn mean_bytes(&self) -> u64 {
        let entries = self.entries.saturating_add(self.new_entries).max(1);
        (self.bytes.saturating_add(self.new_bytes) / entries).max(1)
    }

    /// Entries up to `floor` are gone, or have never been in a log that is new.
    pub(crate) fn raise_floor(&mut self, floor: Position) {
        self.floor = self.floor.max(floor);
        if self.epoch.is_some() {
            // What others have trimmed of a shared log before it was read here is missed, not dispatched: the feed says so.
            return;
        }
        self.dispatched = self.dispatched.max(floor);
        self.committed = self.committed.max(floor);
        if self.recent.is_empty() {
            self.recent_after = self.dispatched;
        }
    }

    pub(crate) fn keep_ask(&mut self, entry: Entry) {
        if let Some(id) = entry.new.ack {
            self.ask_ids.insert(id, entry.position);
            self.asks.insert(entry.position, entry);
        }
    }

    /// Forgets asks whose deadline has passed.
    pub(crate) fn forget_asks(&mut self, now: Millis) {
        self.asks.retain(|_, entry| entry.new.until.is_some_and(|until| until > now));
        let asks = &self.asks;
        self.ask_ids.retain(|_, position| asks.contains_key(position));
    }

    /// The entries after `position`, if all of them are in memory.
    pub(crate) fn recent_after(&self, position: Position) -> Option<impl Iterator<Item = &Entry>> {
        (position >= self.recent_after).then(|| {
            let first = self.recent.partition_point(|entry| entry.position <= position);
            self.recent.range(first..)
        })
    }
}
