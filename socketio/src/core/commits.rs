//! What waits for the store, in the order of calls (specification 8, 17).
//!
//! One queue for all namespaces. At most one commit is in flight; what is pushed meanwhile is the next batch. The front of
//! the queue decides:
//!
//! ```text
//! front                 nothing in flight        commit in flight   transaction in flight
//! entry, create         seal a batch             wait               wait
//! member, disconnect    takes effect             wait               wait
//! ack, saved            done if nothing is       wait               wait
//!                       unsaved, else seal
//! attach                sent if its session is   wait               wait
//!                       saved, else seal
//! transaction           sent                     wait               sent, up to 16
//! (empty)               seal at `flush_at`       wait               wait
//! ```
//!
//! A sealed batch is unsaved sessions and items from the front. When it is committed its items take effect in order:
//! an entry is dispatched, a membership change applied at the position reached (which makes its session unsaved), an ack
//! sent. So an ack ends a batch that has membership changes before it: it is first in the next one, with the sessions. An ack in a
//! later batch than the entries of its handler call is not sent if those have failed.

use std::sync::Arc;
use std::time::Duration;

use super::command::StoreCall;
use super::state::{
    InFlight, Io, Item, ReadBack, SavedThen, SessionKey, SpaceKey, Step, Then, Timer, Transaction, Upcall,
};
use crate::store::{Batch, SessionChange, StoreError};

impl Io<'_> {
    /// Does what the front of the queue asks for, until it has to wait.
    pub(super) fn advance_queue(&mut self) {
        loop {
            if self.front_waits_for_log() {
                break;
            }
            match self.state.queue.step(self.now, |pid| self.is_saved(pid)) {
                Step::Wait => break,
                Step::Seal => self.seal_batch(),
                Step::Send => self.send_front(),
                Step::TakeEffect => match self.state.queue.items.pop_front() {
                    Some(item) if self.state.queue.tells_failure(&item) => self.fails(item, &earlier()),
                    Some(item) => self.take_effect(item),
                    None => {}
                },
            }
        }
        self.arm_store_timer();
    }

    /// An item whose effects wait for no commit any more.
    pub(super) fn take_effect(&mut self, item: Item) {
        self.state.queue.bytes -= item.size();
        match item {
            Item::Member(change) => self.place_change(change),
            Item::Disconnect { socket, reason, with_connection, .. } => {
                self.place_disconnect(socket, reason, with_connection);
            }
            Item::Ack { socket, frames, .. } => self.send_ack(socket, &frames),
            Item::Saved { session, then, .. } => self.saved(session, then, Ok(())),
            Item::Done | Item::Entry(_) | Item::Create(_) | Item::Attach { .. } | Item::Transact(_) => {}
        }
    }

    /// An item whose effects, or some before them of the same handler call, are not committed.
    pub(super) fn fails(&mut self, item: Item, error: &StoreError) {
        let size = item.size();
        match item {
            Item::Ack { .. } => {
                self.state.queue.bytes -= size;
                self.state.stats.acks_withheld += 1;
            }
            Item::Saved { session, then, .. } => {
                self.state.queue.bytes -= size;
                self.saved(session, then, Err(error.clone()));
            }
            other => self.take_effect(other),
        }
    }

    fn send_front(&mut self) {
        let queue = &mut self.state.queue;
        match queue.items.pop_front() {
            // One that has been given up takes nothing from its holder.
            Some(Item::Attach { connecting, .. }) if self.state.connecting.get(connecting).is_none() => {}
            Some(Item::Attach { connecting, ask }) => {
                queue.write(StoreCall::Attach(*ask), InFlight::Attach(connecting), self.now);
            }
            Some(Item::Transact(transaction)) => {
                let Transaction { key, context, caller, bytes, run, begun, then } = *transaction;
                let call = StoreCall::Transact(key, context, run);
                if let Some(log) = self.log(caller.space) {
                    log.appending += 1;
                }
                let queue = &mut self.state.queue;
                let in_flight = InFlight::Transact { caller, bytes, begun, then };
                queue.write(call, in_flight, self.now);
            }
            _ => {}
        }
    }

    fn seal_batch(&mut self) {
        let mut batch = Batch::default();
        let sessions = self.snapshot_unsaved(&mut batch.sessions);
        let removed = self.state.queue.orphans.clone();
        batch.sessions.extend(removed.iter().cloned());
        self.state.queue.orphans.clear();
        self.state.queue.flush_at = None;
        let (mut taken, mut aside, mut failed) = (Vec::new(), Vec::new(), Vec::new());
        let mut changes = false;
        let early = self.delivers_early();
        let shared = self.state.cluster.is_some();
        let mut appends = None;
        while let Some(item) = self.state.queue.items.front() {
            if shared && (self.front_waits_for_log() || is_of_another_log(item, appends)) {
                break;
            }
            if self.state.queue.tells_failure(item) {
                failed.extend(self.state.queue.items.pop_front());
                continue;
            }
            match item {
                // What has been delivered is committed with the sessions that know of it.
                Item::Entry(entry)
                    if entry.delivered.is_none()
                        && batch.entries.len() >= self.state.config.storage.batch =>
                {
                    break;
                }
                Item::Entry(entry) => {
                    appends = Some(entry.space).filter(|_| shared);
                    batch.entries.push(entry.new.clone());
                }
                Item::Create(key) => {
                    let key = *key;
                    if let Some(record) = self.new_record(key) {
                        batch.sessions.push(SessionChange::Save(record));
                    }
                }
                Item::Member(_) => changes = true,
                Item::Ack { .. } | Item::Saved { .. } if changes => break,
                Item::Ack { .. } | Item::Saved { .. } | Item::Disconnect { .. } | Item::Done => {}
                Item::Attach { .. } if early => {
                    aside.extend(self.state.queue.items.pop_front());
                    continue;
                }
                Item::Attach { .. } | Item::Transact(_) => break,
            }
            taken.extend(self.state.queue.items.pop_front());
        }
        for item in failed {
            self.fails(item, &earlier());
        }
        for attach in aside.into_iter().rev() {
            self.state.queue.items.push_front(attach);
        }
        self.state.stats.batches += 1;
        self.state.stats.batch_entries += batch.entries.len() as u64;
        if let Some(log) = appends.and_then(|space| self.log(space)) {
            log.appending += 1;
        }
        let in_flight = InFlight::Commit { taken, sessions, removed, appends };
        self.state.queue.write(StoreCall::Commit(batch), in_flight, self.now);
    }

    /// Does the front of the queue need a log that is not read yet (shared stores)?
    fn front_waits_for_log(&self) -> bool {
        if self.state.cluster.is_none() {
            return false;
        }
        let of = |key| self.state.connecting.get(key).map(|connecting| connecting.space);
        let space = match self.state.queue.items.front() {
            Some(Item::Entry(entry)) => Some(entry.space),
            Some(Item::Create(key)) => of(*key),
            Some(Item::Attach { connecting, .. }) => of(*connecting),
            Some(Item::Transact(transaction)) => Some(transaction.caller.space),
            _ => None,
        };
        let log = space.and_then(|space| self.state.spaces.get(space)).and_then(|space| space.log.as_ref());
        log.is_some_and(|log| log.epoch.is_none())
    }

    /// Puts an item that is no entry behind the others; gives it back if the queue is full.
    pub(super) fn push_item(&mut self, item: Item) -> Result<(), Item> {
        let bytes = self.state.queue.bytes.saturating_add(item.size());
        if bytes > self.state.config.storage.queue as u64 {
            return Err(item);
        }
        let queue = &mut self.state.queue;
        queue.bytes = bytes;
        queue.effects_due = queue.effects_due.or(item.due());
        queue.items.push_back(item);
        Ok(())
    }

    /// Calls back when what was called before is committed: at once if nothing waits.
    pub(super) fn when_saved(&mut self, session: Option<SessionKey>, then: SavedThen) {
        let call = self.state.scope.call;
        match self.push_item(Item::Saved { session, then, call }) {
            Ok(()) => {
                if let Some(session) = session.and_then(|key| self.state.sessions.get_mut(key)) {
                    session.pending += 1;
                }
            }
            Err(Item::Saved { then, .. }) => {
                self.later(move |io| then(io, Err(StoreError::Full("what waits for it"))));
            }
            Err(_) => {}
        }
    }

    pub(super) fn saved(
        &mut self,
        session: Option<SessionKey>,
        then: SavedThen,
        result: Result<(), StoreError>,
    ) {
        let mut result = result;
        if let Some(key) = session
            && let Some(session) = self.state.sessions.get_mut(key)
        {
            session.pending -= 1;
            if session.lost || session.ended {
                // What this socket did last is in no session: it has ended, or somebody else holds it.
                result = Err(StoreError::Failed(Arc::from("the session has ended")));
            }
            self.forget_if_done(key);
        }
        self.later(move |io| then(io, result));
    }

    /// Calls back after the present input or handler.
    pub(super) fn later(&mut self, then: impl FnOnce(&mut Io<'_>) + Send + 'static) {
        let then: Then = Box::new(then);
        self.state.upcalls.push_back(Upcall::Then(then));
    }

    /// Membership changes and disconnects that have waited for `effect_timeout` take effect where the log is now.
    pub(super) fn apply_overdue_effects(&mut self) {
        let now = self.now;
        let queue = &mut self.state.queue;
        if queue.effects_due.is_none_or(|due| due > now) {
            return;
        }
        let in_flight = queue.in_flight.iter_mut().filter_map(|sent| match &mut sent.call {
            InFlight::Commit { taken, .. } => Some(taken.iter_mut()),
            _ => None,
        });
        let (mut overdue, mut next) = (Vec::new(), None);
        let read_back = queue.readings.iter_mut().flat_map(|reading| reading.items.iter_mut());
        let read_back = read_back.filter_map(|(_, item)| match item {
            ReadBack::Item(item) => Some(item),
            _ => None,
        });
        let mut is_overdue = |item: &mut Item| match item.due() {
            Some(due) if due <= now => {
                overdue.push(std::mem::replace(item, Item::Done));
                true
            }
            // Pushed in the order of time.
            due => {
                next = next.or(due);
                false
            }
        };
        for item in in_flight.flatten().chain(read_back) {
            is_overdue(item);
        }
        queue.items.retain_mut(|item| !is_overdue(item));
        queue.effects_due = next;
        self.state.stats.effects_overdue += overdue.len() as u64;
        for item in overdue {
            self.take_effect(item);
        }
    }

    /// The earliest time at which the queue needs to be looked at.
    fn store_deadline(&self) -> Option<Duration> {
        let queue = &self.state.queue;
        let stalled = self.stalls_at().filter(|_| queue.down_since.is_none());
        let retry = queue.retry_at.filter(|_| !queue.commits() && queue.has_unsaved());
        let flush = queue.flush_at.filter(|_| !queue.commits());
        let flush = flush.map(|at| queue.retry_at.map_or(at, |retry| at.max(retry)));
        [stalled, queue.effects_due, retry, flush, queue.probe_at].into_iter().flatten().min()
    }

    fn arm_store_timer(&mut self) {
        let Some(at) = self.store_deadline() else { return };
        if self.state.queue.armed.is_none_or(|armed| at < armed) {
            self.state.queue.armed = Some(at);
            self.state.timers.set(at, Timer::Store);
        }
    }
}

fn earlier() -> StoreError {
    StoreError::Failed(Arc::from("something that was done before failed"))
}

/// A batch appends to one shared log only: it is read back as a whole.
fn is_of_another_log(item: &Item, appends: Option<SpaceKey>) -> bool {
    matches!((item, appends), (Item::Entry(entry), Some(space)) if entry.space != space)
}
