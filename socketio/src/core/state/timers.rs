//! What is due when. Entries are never taken out: one that finds nothing to do does nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

use super::arena::{Arena, Key};
use super::{ConnKey, ConnectingKey, SocketKey, SpaceKey, Then};

/// Something that may be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// Heartbeat, upgrade, CONNECT, attachments.
    Conn(ConnKey),
    /// An ack has not come.
    Wait(u64),
    /// A middleware or the store has not answered.
    Connecting(ConnectingKey),
    /// The idle policy.
    Idle(SocketKey),
    /// A call of the application.
    Call(Key<Then>),
    /// A dynamic namespace may be dropped.
    Space(SpaceKey),
    /// The next page of a replay.
    Replay(SocketKey),
    /// The queue to the store: flush, stall, probe, effects.
    Store,
    /// Trims logs, expires sessions.
    Upkeep,
    /// Saves a part of the connected sessions.
    Checkpoint,
}

#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Duration, u64, Timer)>>,
    /// Equal times fire in the order in which they were set.
    count: u64,
    pub(crate) calls: Arena<Then>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Duration, timer: Timer) {
        self.count += 1;
        self.heap.push(Reverse((at, self.count, timer)));
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.0.0)
    }

    pub(crate) fn pop(&mut self, now: Duration) -> Option<(Duration, Timer)> {
        let due = self.heap.peek().is_some_and(|entry| entry.0.0 <= now);
        due.then(|| self.heap.pop()).flatten().map(|Reverse((at, _, timer))| (at, timer))
    }
}
