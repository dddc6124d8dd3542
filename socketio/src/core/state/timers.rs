//! What is due when. An entry that finds nothing to do does nothing; only those of acks are taken out before their time, many at once.

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

/// So many entries of acks that are over are no matter.
const WAITS: usize = 1024;

#[derive(Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Duration, u64, Timer)>>,
    /// Equal times fire in the order in which they were set.
    count: u64,
    /// Entries of acks.
    waits: usize,
    pub(crate) calls: Arena<Then>,
}

impl Timers {
    pub(crate) fn set(&mut self, at: Duration, timer: Timer) {
        self.count += 1;
        self.waits += usize::from(matches!(timer, Timer::Wait(_)));
        self.heap.push(Reverse((at, self.count, timer)));
    }

    pub(crate) fn len(&self) -> usize {
        self.heap.len()
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.heap.peek().map(|entry| entry.0.0)
    }

    pub(crate) fn pop(&mut self, now: Duration) -> Option<(Duration, Timer)> {
        let due = self.heap.peek().is_some_and(|entry| entry.0.0 <= now);
        let Reverse((at, _, timer)) = due.then(|| self.heap.pop()).flatten()?;
        self.waits -= usize::from(matches!(timer, Timer::Wait(_)));
        Some((at, timer))
    }

    /// Takes out the entries of acks that nobody waits for, if they are the greater part: so each costs little.
    pub(crate) fn forget_waits(&mut self, waiting: usize, is_waiting: impl Fn(u64) -> bool) {
        if self.waits <= waiting.saturating_mul(2).saturating_add(WAITS) {
            return;
        }
        let mut left = 0;
        self.heap.retain(|Reverse((_, _, timer))| match timer {
            Timer::Wait(id) => {
                let waits = is_waiting(*id);
                left += usize::from(waits);
                waits
            }
            _ => true,
        });
        self.waits = left;
    }
}
