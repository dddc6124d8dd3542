//! The turns: when one begins and ends, what it may do, and what each connection has had of it.

use std::sync::atomic::Ordering;

use adjourn::clients::State;

use super::{
    alarms::Alarm,
    checker::{Checker, ensure, trace},
    facts::Share,
};

/// What the present turn has done.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct TurnFacts {
    /// Tells turns apart.
    pub number: u64,
    pub began: u64,
    pub callbacks: u32,
    pub bytes: usize,
    /// Of messages that may have been inflated.
    pub inflated: usize,
    /// How often the budget may have been granted anew since these were counted: for what is due, and after a turn that a
    /// panic has cut short, which is ended first.
    pub grants: u32,
    /// One of these was used up.
    pub renewed: bool,
    /// The turn before was cut short.
    pub after_cut: bool,
    /// Reads that began although the budget was used up, probes excepted.
    pub beyond: u32,
    /// A callback panicked.
    pub panicked: bool,
    /// Connections that the hard sweep has ended, and nothing else.
    pub swept: usize,
    /// It has not come to its end.
    pub open: bool,
    /// Something is left for the next turn.
    pub unsettled: bool,
    /// The loop may be judging what is due.
    pub judges: bool,
}

impl Checker {
    /// The loop has read the clock. What began to close since then did so in a callback that has returned, and its time
    /// begins now (section 3 of the specification).
    pub fn set_now(&mut self, now: u64) {
        let (by, cut) = (now - self.now, self.turn.panicked || self.turn.after_cut);
        let before_that = std::mem::replace(&mut self.now, now);
        self.late_then = self.late;
        self.start_timers(by);
        for (conn, before) in std::mem::take(&mut self.unarmed) {
            if by == 0 || self.state(conn).is_none() {
                continue;
            }
            if self.state(conn) == Some(State::Refusing) {
                // An answer that no turn has offered to the kernel yet has its time from when it was queued.
                self.of(conn).since += by;
                self.of(conn).ended_early += by;
            }
            if self.state(conn) == Some(State::Open) && self.of(conn).paused && !self.of(conn).discards {
                self.of(conn).paused_since += by;
            }
            // The timers of one whose outcome is fixed have had their time.
            let Some(ending) = self.ending(conn).filter(|ending| ending.ended.is_none()) else { continue };
            // It may have been judged before the clock was read, and one that the loop closed may have been armed then.
            let due = ending.deadline.min(ending.flush_deadline) <= before_that;
            ending.uncertainty += if cut || due || ending.noticed_late { by } else { 0 };
            if let Some(before) = before {
                ending.deadline = ending.deadline.saturating_add(by).min(before);
            } else {
                for at in [&mut ending.began, &mut ending.deadline, &mut ending.flush_deadline] {
                    *at = at.saturating_add(by);
                }
            }
            let (deadline, flush) = (ending.deadline, ending.flush_deadline);
            self.set_alarm(deadline, conn, Alarm::Close);
            self.set_alarm(flush, conn, Alarm::Flush);
        }
    }

    // The turn.

    pub fn begin_turn(&mut self) {
        if !self.turn.unsettled {
            self.settled_at = self.now;
        }
        self.asked.store(0, Ordering::Relaxed);
        let (number, after_cut) = (self.turn.number + 1, self.turn.open);
        trace!(self, "turn {number} begins; after a panic: {after_cut}");
        self.turn = TurnFacts {
            number,
            began: self.now,
            open: true,
            unsettled: true,
            after_cut,
            judges: after_cut,
            grants: if after_cut { 3 } else { 0 },
            ..TurnFacts::default()
        };
    }

    /// The loop is about to judge what is due, and to end what the hard sweep ends: each has a budget of its own.
    pub fn grant(&mut self) {
        self.turn.grants += 2;
        self.turn.judges = true;
    }

    /// The turn is over. `has_more`: the loop will not wait. `next`: when something is due next, as it says.
    pub fn end_turn(&mut self, has_more: bool, next: Option<u64>) {
        self.parsing_ends();
        self.take_end(None);
        self.check_sweeps();
        let asked = self.asked.load(Ordering::Relaxed);
        let most = self.config.event_loop.sweep_slice;
        ensure!(self, None, "sweeps_have_slices", asked <= most, "{asked} connections in a turn");
        self.turn.unsettled = has_more;
        (self.turn.open, self.turn.judges) = (false, false);
        self.judged_at = self.now;
        // Where a turn has little, whatever is not urgent may be the next one's.
        let tight =
            self.config.event_loop.turn_bytes < 1 << 20 || self.config.event_loop.turn_callbacks < 1000;
        let strict = !has_more || !(tight || self.turn.panicked);
        trace!(self, "turn ends; has_more {has_more}, next {next:?}");
        self.ring(next, strict);
        if strict {
            self.check_turn();
        }
    }

    /// The turn has done as much as a turn may. When a budget was granted anew, only what exceeds the one before shows it.
    pub fn is_over_budget(&mut self) -> bool {
        let (callbacks, bytes) = (self.config.event_loop.turn_callbacks, self.config.event_loop.turn_bytes);
        while self.turn.callbacks >= callbacks || self.turn.bytes >= bytes {
            if self.turn.grants == 0 {
                return true;
            }
            self.turn.grants -= 1;
            (self.turn.callbacks, self.turn.bytes) = (0, 0);
            self.turn.renewed = true;
        }
        false
    }

    /// The turn may have called as many callbacks as it may: what would need one more is held for the next.
    pub fn may_hold(&self) -> bool {
        let used_up = self.turn.callbacks >= self.config.event_loop.turn_callbacks;
        // So is what follows a message that inflates to more than the turn has left.
        let inflated = self.turn.inflated > 0
            && self.turn.inflated + self.turn.bytes >= self.config.event_loop.turn_bytes;
        used_up || inflated || self.turn.renewed || self.turn.after_cut
    }

    /// What is parsed of a connection may inflate to more than the turn has left, and what follows that is held, too: a byte
    /// inflates to 1,032 at most.
    pub fn may_inflate_too_much(&self, conn: u32) -> bool {
        let facts = &self.facts[conn as usize];
        let Some(busy) = facts.busy.as_ref().filter(|_| facts.wire.agreed().is_some()) else { return false };
        let packed = busy.held.len() as u64 + busy.inbound.partial();
        let had = (self.turn.bytes + self.turn.inflated) as u64;
        had + packed * 1032 >= self.config.event_loop.turn_bytes as u64
    }

    /// The hard sweep has ended one more: a slice of them in a turn, and another one in a turn that a panic has cut short before.
    pub fn swept_hard(&mut self) {
        self.turn.swept += 1;
        let (swept, slices) = (self.turn.swept, if self.turn.after_cut { 2 } else { 1 });
        let most = self.config.event_loop.sweep_slice * slices;
        ensure!(self, None, "a_hard_sweep_has_slices", swept <= most, "{swept} in a turn");
    }

    /// What a connection has had of this turn.
    pub fn share(&mut self, conn: u32) -> &mut Share {
        let (turn, after_cut) = (self.turn.number, self.turn.after_cut);
        let share = &mut self.of(conn).share;
        if share.turn != turn {
            // A turn that a panic has cut short is ended first, and what it has had of that counts until then.
            let had = if after_cut && share.turn + 1 == turn { share.had_written() } else { 0 };
            *share = Share { turn, had, ..Share::default() };
        }
        share
    }

    /// It must wait for the next turn to write.
    pub fn has_written_its_share(&mut self, conn: u32) -> bool {
        let most = self.config.event_loop.write_bytes_per_turn;
        self.share(conn).had_written() >= most
    }

    /// Whether something is due: then it is probed before it is judged.
    pub fn is_judged(&mut self, conn: u32) -> bool {
        let all = [
            Alarm::Handshake,
            Alarm::Heartbeat,
            Alarm::Discard,
            Alarm::Close,
            Alarm::Flush,
            Alarm::Stall,
            Alarm::Linger,
        ];
        // The hard sweep probes, too, and its phase may not have been delivered.
        let hard = self.shutdown.is_some();
        // While the kernel takes more, a flush budget that is used up is looked at again in each turn.
        let flushes = self.ending_of(conn).is_some_and(|ending| {
            self.state(conn).is_some_and(State::is_closing)
                && ending.flush_deadline.saturating_sub(ending.uncertainty) <= self.now
        });
        // What it holds may have been parsed, and have failed it: then it has no flush budget.
        let fails = self.of(conn).delayed && self.is_end_next(conn);
        let due = flushes || fails || all.iter().any(|alarm| self.is_due(conn, *alarm));
        self.share(conn).probed |= due;
        hard || due
    }

    /// How many shares of a turn a connection may have: the probe of a deadline and that of the hard sweep have one each.
    pub fn shares(&mut self, conn: u32) -> u32 {
        self.is_judged(conn);
        let probes = u32::from(self.share(conn).probed) + u32::from(self.shutdown.is_some());
        let shares = 1 + probes;
        // A turn that a panic has cut short is ended first.
        if self.turn.after_cut { shares + 2 } else { shares }
    }
}
