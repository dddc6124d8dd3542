//! Who is served when: the run queue, the shares and budgets of a turn, and what is due.
//!
//! ```text
//!   run        this turn's. What is urgent (an abort, a FIN, a release) always stands here
//!   unserved   the next turn's: had nothing of this one because its budget was used up. They come first
//!   served     the next turn's: have had their share of this one
//! ```

use std::{io, time::Duration};

use super::{
    slot::{Slot, SocketEnd},
    table::{Hub, KEPT_CAPACITY, Turn, Unarmed, list},
};
use crate::{
    config::Abort,
    conn::{Conn, Found, Listed, Pending, Probe, State, Transmitted, Writer},
    time::Time,
};

/// What a driver has to do next for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Deliver what [`Hub::poll_event`] has now.
    Deliver,
    /// Offer what is queued to the kernel.
    Write(usize),
    /// Read from this slot's socket although it has not become readable anew.
    Read(usize),
    /// Find or connect to what [`Hub::target`] says.
    Connect(usize),
    /// Shut down the sending side.
    Fin(usize),
    /// End it in this style, never [`Abort::Auto`].
    Abort(usize, Abort),
    /// Close the descriptor, with a reset if the flag says so. The slot is free and may be given out again.
    Release(usize, bool),
    /// Take the connection out and hand it over: call [`Hub::free_detached`].
    Detach(usize),
}

/// A slot whose deadline is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    pub(super) slot: usize,
    /// Where the connection is in its life, before it is probed.
    state: State,
    pub(super) probe: Probe,
}

impl<D> Hub<D> {
    /// A turn begins: what the one before put off is served first, and every share is whole again.
    pub(super) fn begin_turn(&mut self) {
        self.turn = Turn {
            number: self.turn.number.wrapping_add(1),
            last_generation: self.generation,
            ..Turn::default()
        };
        self.renew_budget();
        if !(self.unserved.is_empty() && self.served.is_empty()) {
            self.run_what_was_put_off();
        }
        if self.common.has_room_for_waiting() {
            self.report_room();
        }
    }

    #[inline(never)]
    fn run_what_was_put_off(&mut self) {
        while let Some(key) = self.unserved.pop_front().or_else(|| self.served.pop_front()) {
            if let Some(Slot { conn, .. }) = self.slots.get_mut(key as usize)
                && conn.listed == Listed::Next
            {
                conn.listed = Listed::Now;
                self.run.push_back(key);
            }
        }
        self.unserved.shrink_to(KEPT_CAPACITY);
        self.served.shrink_to(KEPT_CAPACITY);
    }

    /// The clock was read, and the turn's first callback is yet to come.
    pub(super) const fn note_turn_begins(&mut self) {
        self.turn.began = self.now;
    }

    /// The turn is over, and lasted until the clock was read last.
    #[inline]
    pub(super) fn note_turn_ends(&mut self) {
        self.common.output.end_turn();
        if self.now == self.turn.began {
            self.common.totals.turns.record_zero();
        } else {
            let took = self.now.since(self.turn.began);
            self.common.totals.turns.record(took);
        }
    }

    /// A callback has panicked, and the application has caught that.
    pub(super) const fn note_panic(&mut self) {
        self.common.totals.panics += 1;
    }

    fn renew_budget(&mut self) {
        self.turn.bytes = self.config.event_loop.turn_bytes;
        self.turn.handshakes = self.turn.bytes;
        self.turn.callbacks = self.config.event_loop.turn_callbacks;
        self.turn.inflated = false;
    }

    /// What is due comes now. It has as much of a budget as the rest of the turn.
    pub(super) fn begin_judging(&mut self) {
        self.renew_budget();
        self.turn.judged_until = Some(self.now);
    }

    /// Judging is over, and the hard sweep comes now. It has as much again.
    pub(super) fn begin_hard_sweep(&mut self) {
        self.renew_budget();
        self.turn.judged_until = None;
    }

    /// The clock was read, and no callback has run since it was read last: everything until the next call happens at `now`.
    pub(super) fn set_now(&mut self, now: Time) {
        if self.has_unarmed() {
            // What was asked for before has begun already.
            self.callback_returned(self.now);
        }
        self.now = self.now.max(now);
    }

    /// The clock was read after a callback: what it has asked for begins at `now`.
    pub(super) fn callback_returned(&mut self, now: Time) {
        let by = now.since(self.now);
        self.now = self.now.max(now);
        if self.timers.has_unarmed() {
            self.timers.callback_returned(by);
        }
        if self.unarmed.is_empty() {
            return;
        }
        for Unarmed { id, before } in self.unarmed.drain(..) {
            if let Some(entry) = self.slots.get_mut(id.slot())
                && entry.conn.generation == id.generation()
            {
                entry.unarmed = false;
                entry.conn.shift_timers(by, before);
            }
        }
        self.unarmed.shrink_to(KEPT_CAPACITY);
    }

    /// Whether timers were started since the clock was read last.
    pub(super) const fn has_unarmed(&self) -> bool {
        !self.unarmed.is_empty() || self.timers.has_unarmed()
    }

    /// The turn has done as much as one may: the rest is the next one's.
    #[inline]
    pub(super) const fn is_over_budget(&self) -> bool {
        self.turn.bytes == 0 || self.turn.callbacks == 0
    }

    /// The turn has done as much as one may for this slot.
    #[inline]
    pub(super) fn is_over_budget_of(&self, slot: usize) -> bool {
        self.is_over_budget() || (self.turn.handshakes == 0 && self.is_connecting(slot))
    }

    /// A callback is about to be called.
    #[inline]
    pub(super) const fn note_callback_begins(&mut self) {
        self.turn.callbacks = self.turn.callbacks.saturating_sub(1);
    }

    /// The turn has called as many callbacks as one may.
    pub(super) const fn is_out_of_callbacks(&self) -> bool {
        self.turn.callbacks == 0
    }

    /// What is left to read of this slot is the next turn's.
    pub(super) fn put_off_read(&mut self, slot: usize) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.conn.pending.add(Pending::READ);
        self.put_off(slot);
    }

    /// Moves a slot to the next turn's run queue, unless it has something to do that can be done in this one.
    fn put_off(&mut self, slot: usize) {
        if self.slots.get(slot).is_some_and(|entry| !entry.conn.pending.is_urgent()) {
            self.list_next(slot);
        }
    }

    fn list_next(&mut self, slot: usize) {
        let turn = self.turn.number;
        if let (Some(entry), Ok(key)) = (self.slots.get_mut(slot), u32::try_from(slot))
            && entry.conn.listed != Listed::Next
        {
            entry.conn.listed = Listed::Next;
            let queue = if entry.share.of(turn).is_whole() { &mut self.unserved } else { &mut self.served };
            queue.push_back(key);
        }
    }

    /// A slot is about to be read: it does not enter the run queue before [`Hub::finish_read`].
    pub(super) fn begin_read(&mut self, slot: usize) {
        self.reading = u32::try_from(slot).ok();
    }

    pub(super) fn finish_read(&mut self) {
        if let Some(key) = self.reading.take()
            && let Some(Slot { conn, .. }) = self.slots.get_mut(key as usize)
        {
            list(conn, key, &mut self.run);
        }
    }

    /// Offers what is queued for this slot to `writer`, within its share of the turn. `writer` returns how much it took.
    ///
    /// # Errors
    /// The writer's, other than `WouldBlock`. Call [`Hub::handle_failed`] then.
    pub(super) fn transmit<W>(&mut self, slot: usize, writer: &mut W) -> io::Result<Transmitted>
    where
        W: Writer,
    {
        let turn = self.turn.number;
        let done = self.with_if(
            slot,
            |entry| !matches!(entry.end, SocketEnd::Failed(_)),
            |conn, share, cx| {
                let share = share.of(turn);
                conn.pending.take(Pending::WRITE);
                let done = conn.transmit(share.writable(cx.config), cx, writer)?;
                share.note_written(done.bytes);
                io::Result::Ok(done)
            },
        );
        let done = done.unwrap_or(Ok(Transmitted::default()))?;
        self.turn.bytes = self.turn.bytes.saturating_sub(done.bytes);
        Ok(done)
    }

    /// Whether a write is pending for this slot, its share of the turn allows it, and it is worth at least `worth` bytes:
    /// to write before the end of its input is dealt with, or while much is still in the processor's caches.
    pub(super) fn wants_write(&mut self, slot: usize, worth: usize) -> bool {
        let turn = self.turn.number;
        self.slots.get_mut(slot).is_some_and(|entry| {
            entry.conn.pending.has(Pending::WRITE)
                && entry.conn.queued() >= worth
                && entry.share.of(turn).writable(&self.config) > 0
        })
    }

    /// Whether a write is pending for this slot that must wait for the next turn.
    pub(super) fn has_put_off_write(&mut self, slot: usize) -> bool {
        let turn = self.turn.number;
        self.slots.get_mut(slot).is_some_and(|entry| {
            entry.conn.pending.has(Pending::WRITE)
                && entry.conn.queued() > 0
                && entry.share.of(turn).writable(&self.config) == 0
        })
    }

    /// Bytes that were queued in this turn and wait to be written.
    pub(super) const fn batched(&self) -> usize {
        self.common.output.len()
    }

    /// The next slot for which a write is all that is pending, in the middle of a turn: for writes that are not to wait for
    /// the turn's end. `None` leaves the rest to [`Hub::poll_action`].
    pub(super) fn poll_write(&mut self) -> Option<usize> {
        loop {
            let slot = *self.run.front()? as usize;
            if let Some(slot) = self.poll_mere_write(slot) {
                return Some(slot);
            }
            // What was written at once may still be listed, and must not keep the others waiting.
            let entry = self.slots.get_mut(slot);
            if entry.as_ref().is_some_and(|entry| !entry.conn.pending.is_idle()) {
                return None;
            }
            self.run.pop_front();
            if let Some(entry) = entry {
                entry.conn.listed = Listed::No;
            }
        }
    }

    /// Takes the slot at the front of the run queue if a write is all that is pending for it, and may be done now.
    #[inline]
    fn poll_mere_write(&mut self, slot: usize) -> Option<usize> {
        let (turn, over) = (self.turn.number, self.turn.bytes == 0);
        let entry = self.slots.get_mut(slot)?;
        let now = entry.conn.pending == Pending::only(Pending::WRITE) && entry.conn.listed == Listed::Now;
        if !now || over || entry.share.of(turn).writable(&self.config) == 0 {
            return None;
        }
        self.run.pop_front();
        entry.conn.listed = Listed::No;
        entry.conn.pending.take(Pending::WRITE);
        Some(slot)
    }

    /// The next slot whose deadline is due, and what to look at before it is judged by [`Hub::judge`]. A turn judges a
    /// slice of them, and stops when the looking has used up its budget.
    pub(super) fn poll_judgement(&mut self) -> Option<Judgement> {
        loop {
            if self.turn.judgements >= self.config.event_loop.sweep_slice
                || (self.turn.judgements > 0 && self.is_over_budget())
            {
                return None;
            }
            let key = self.deadlines.first_due(self.turn.judged_until?)?;
            self.turn.judgements += 1;
            let slot = key as usize;
            let entry = self.slots.get_mut(slot)?;
            match entry.conn.deadline(&self.config) {
                Some(at) if at <= self.now => {
                    self.common.totals.lateness.record(self.now.since(at));
                    let probe = entry.begin_probe(entry.conn.probe(self.now, &self.config), self.turn.number);
                    return Some(Judgement { slot, state: entry.conn.state(), probe });
                }
                // Most of them: the peer was heard since the deadline was set.
                later => self.set_deadline(key, later),
            }
        }
    }

    /// When a slot that was judged is due next.
    fn set_deadline(&mut self, key: u32, at: Option<Time>) {
        match at {
            // What is due again at once is due in the next turn, when there has been a chance to write.
            Some(at) => self.deadlines.set(key, at.max(self.now.after(Duration::from_micros(1)))),
            None => self.deadlines.remove(key),
        }
    }

    /// Does what is due for a slot, if it still is, and finds out when something is due next.
    pub(super) fn judge(&mut self, Judgement { slot, state, probe }: Judgement, found: Found) {
        let Ok(key) = u32::try_from(slot) else { return };
        let due = self.with(slot, |conn, cx| {
            // What follows from the probe may be due as well, but it was not probed.
            if conn.state() == state && conn.deadline(cx.config).is_some_and(|at| at <= cx.now) {
                conn.handle_probed(probe, found, cx);
            }
            conn.pending.take(Pending::DEADLINE);
            conn.deadline(cx.config)
        });
        self.set_deadline(key, due.flatten());
    }

    /// Whether there is something for this turn to deliver or do.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.has_events() || !self.run.is_empty()
    }

    /// Whether an event waits to be delivered.
    pub(super) fn has_undelivered(&self) -> bool {
        !self.event_queue.is_empty()
    }

    /// Whether something waits to be delivered or done: then a driver does not wait for its sockets.
    pub(super) fn has_more(&self) -> bool {
        !(self.event_queue.is_empty()
            && self.run.is_empty()
            && self.unserved.is_empty()
            && self.served.is_empty())
            || self.reading.is_some()
            || self.common.has_room_for_waiting()
    }

    /// The next thing to do. Deliver what [`Hub::poll_event`] has before each call. When the turn is over its budget, or a
    /// connection over its share, what can wait is put off.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.drop_data();
        while let Some(&key) = self.run.front() {
            let slot = key as usize;
            // Most of them.
            if let Some(slot) = self.poll_mere_write(slot) {
                return Some(Action::Write(slot));
            }
            if let Some(action) = self.action(slot) {
                return Some(action);
            }
            self.run.pop_front();
            if let Some(entry) = self.slots.get_mut(slot)
                && entry.conn.listed == Listed::Now
            {
                entry.conn.listed = Listed::No;
                // What only waits for its last event is listed when that was delivered.
                let released = entry.conn.pending == Pending::only(Pending::RELEASE);
                if !entry.conn.pending.is_idle() && !released {
                    self.list_next(slot);
                }
            }
        }
        // After a sweep of many there is no need for so much room. Events that wait are not moved.
        self.run.shrink_to(KEPT_CAPACITY);
        if self.event_queue.is_empty() {
            self.event_queue.shrink_to(KEPT_CAPACITY);
        }
        None
    }

    fn action(&mut self, slot: usize) -> Option<Action> {
        let (turn, over, silent) = (self.turn.number, self.is_over_budget(), self.is_out_of_callbacks());
        let no_read = self.is_over_budget_of(slot);
        let entry = self.slots.get_mut(slot)?;
        let share = *entry.share.of(turn);
        // Its data is dropped when its last event was delivered.
        let undelivered = entry.data.is_some();
        let pending = &mut entry.conn.pending;
        if pending.take(Pending::ABORT) {
            Some(Action::Abort(slot, entry.conn.abort_due()))
        } else if self.turn.bytes > 0 && share.writable(&self.config) > 0 && pending.take(Pending::WRITE) {
            Some(Action::Write(slot))
        } else if pending.take(Pending::FIN) {
            Some(Action::Fin(slot))
        } else if !no_read && share.may_read(&self.config) && pending.take(Pending::READ) {
            Some(Action::Read(slot))
        } else if !silent && pending.take(Pending::CONNECT) {
            // Connects are asked for in callbacks, and share their budget.
            self.note_callback_begins();
            Some(Action::Connect(slot))
        } else if !undelivered && pending.take(Pending::RELEASE) {
            let detached = entry.conn.is_detached();
            self.run.pop_front();
            if detached {
                return Some(Action::Detach(slot));
            }
            let reset = self.free(slot);
            Some(Action::Release(slot, reset))
        } else if !over && !share.drained && pending.take(Pending::DRAIN) {
            entry.share.of(turn).drained = true;
            self.with(slot, Conn::report_drain);
            Some(Action::Deliver)
        } else {
            None
        }
    }
}
