//! The checker's side of what passes between the loop and its transport, and between the loop and its application.
//!
//! The loop does not say when it has parsed something or has judged somebody. So the checker writes down what came in, and
//! takes the consequence when something is seen that only this consequence explains, or when the loop must be done with it:
//! with what was read, when it turns to its transport again; with the end of the input, when it turns to anything else; with
//! what was due, when it says that nothing is due any more.

use std::io;

use adjourn::{clients::State, close::CloseTiming, conn::InputKind, shutdown::ShutdownPhase};

use super::{
    alarms::Alarm,
    checker::{Checker, after, ensure, trace},
};

/// How a connection's input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Eof,
    Error(io::ErrorKind),
}

impl Checker {
    /// The loop is about to read.
    pub fn will_read(&mut self, conn: u32) {
        self.parsing_ends();
        self.take_end(Some(conn));
        self.ended = None;
        // What was held back has been parsed before more is read.
        self.settle(conn);
        let deferred = self.is_deferred(conn);
        ensure!(self, conn, "a_deferred_one_is_not_read", !deferred, "nobody has decided on it");
        if self.state(conn) == Some(State::Open) && self.of(conn).paused && !self.of(conn).discards {
            let due = self.is_due(conn, Alarm::Pause);
            let left = self.of(conn).left;
            ensure!(self, conn, "a_paused_one_is_not_read", due, "left: {left:?}");
            self.pause_ends(conn);
            self.settle(conn);
        }
        let (now, over) = (self.now, self.is_over_budget());
        let facts = self.of(conn);
        (facts.tried_at, facts.eof_read) = (now, false);
        let probed = self.is_judged(conn);
        self.share(conn).reads += 1;
        if over && !probed {
            self.turn.beyond += 1;
            let beyond = self.turn.beyond;
            ensure!(self, conn, "a_turn_is_bounded", beyond <= 1, "{:?}", self.turn);
        }
        let (reads, shares) = (self.share(conn).reads, self.shares(conn));
        // One more finds out that there is nothing, or the end; and again when the application lets it read on.
        let most = (self.config.event_loop.reads_per_turn + 1) * shares + 1;
        ensure!(self, conn, "reads_are_shared", reads <= most, "{reads} of {most}");
    }

    /// The application may not answer any more: the automatic answer was due.
    pub fn answered_in_time(&mut self, conn: u32) {
        if self.is_unanswered(conn) && self.is_due(conn, Alarm::Flush) {
            self.flush_budget_over(conn);
        }
    }

    /// Whether the flush budget was used up when the outcome was fixed.
    pub fn flush_was_due(&self, conn: u32) -> bool {
        self.ending_of(conn).is_some_and(|ending| {
            let at = ending.ended.unwrap_or(self.now);
            let cut = self.cut_by_grace(conn, Alarm::Flush).is_some_and(|cut| cut <= at);
            !ending.flush_over && (cut || ending.flush_deadline.saturating_sub(ending.uncertainty) <= at)
        })
    }

    /// Whether it may have been judged without a sign of it yet.
    pub fn may_be_judged(&self, conn: u32) -> bool {
        [Alarm::Heartbeat, Alarm::Discard, Alarm::Stall, Alarm::Close]
            .iter()
            .any(|alarm| self.is_due(conn, *alarm))
    }

    /// A read found that there is nothing more for now.
    pub fn drained(&mut self, conn: u32) {
        self.of(conn).drained_at = self.now;
    }

    /// The input of a connection is at its end, as a read has said.
    pub fn ends(&mut self, conn: u32, end: End) {
        trace!(self, "#{conn} ends: {end:?}");
        self.drained(conn);
        let end = self.of(conn).failing.take().map_or(end, End::Error);
        self.ended = Some((conn, end));
    }

    /// A read found that there is nothing.
    pub fn blocked(&mut self, conn: u32) {
        self.drained(conn);
        if let Some(kind) = self.of(conn).failing {
            self.ends(conn, End::Error(kind));
        }
    }

    /// The loop is about to write.
    pub fn will_write(&mut self, conn: u32) {
        trace!(self, "#{conn} is to be written");
        self.parsing_ends();
        self.take_end(Some(conn));
        self.touch(conn);
        let now = self.now;
        self.of(conn).offered_at = now;
        if self.state(conn) == Some(State::Connecting) {
            // Its refusal may be reported after it was written.
            return self.of(conn).may_write = true;
        }
        let state = self.state(conn);
        let again = self.writing == Some(conn);
        self.of(conn).may_write |= !again;
        if !again {
            self.of(conn).may_write = matches!(
                state,
                Some(
                    State::Open
                        | State::LocalClosing
                        | State::RemoteClosing
                        | State::Failing
                        | State::Refusing
                )
            );
        }
        self.writing = Some(conn);
    }

    /// A write failed: what can still be read comes first, then this error.
    pub fn failed(&mut self, conn: u32, kind: io::ErrorKind) {
        trace!(self, "#{conn} has failed: {kind:?}");
        self.touch(conn);
        if self.ended.is_some_and(|(ended, end)| ended == conn && end != End::Eof) {
            return; // The first error counts.
        }
        self.ended.take_if(|(ended, _)| *ended == conn);
        // If it was due, this was its probe, and what is read of it now has a share of its own.
        self.is_judged(conn);
        let facts = self.of(conn);
        // That it takes nothing more is no stall.
        (facts.failing, facts.refused) = (facts.failing.or(Some(kind)), None);
        if self.state(conn) == Some(State::Open) && self.of(conn).paused && !self.of(conn).discards {
            self.pause_ends(conn);
        }
    }

    /// The socket of a paused connection says that it has failed: what is unread does not count.
    pub fn reset_while_paused(&mut self, conn: u32, kind: io::ErrorKind) {
        self.parsing_ends();
        self.take_end(None);
        self.reset(conn, kind);
    }

    /// The socket of a paused connection says that its peer has left.
    pub fn left_while_paused(&mut self, conn: u32) {
        self.parsing_ends();
        self.take_end(None);
        if self.is_deferred(conn) {
            return self.eof(conn);
        }
        if self.state(conn) == Some(State::Open) && self.of(conn).paused && !self.of(conn).discards {
            self.cover(conn, InputKind::PeerLeftPaused);
            let at = after(self.now, self.close_timeout(conn, CloseTiming::default()));
            self.of(conn).left.get_or_insert(at);
            self.set_pause_alarm(conn);
        }
    }

    pub fn is_pause_due(&self, conn: u32) -> bool {
        let facts = &self.facts[conn as usize];
        let paused = facts.state == Some(State::Open) && facts.paused && !facts.discards;
        paused && self.is_due(conn, Alarm::Pause)
    }

    /// Whether the loop may have ended a pause, and parsed and discarded what was held, without a sign of it.
    pub fn may_have_ended_pause(&self, conn: u32) -> bool {
        let until = if self.turn.judges { self.now } else { self.judged_at };
        self.is_pause_due(conn)
            && self.due_at_the_earliest(conn, Alarm::Pause).is_some_and(|due| due <= until)
    }

    pub fn set_pause_alarm(&mut self, conn: u32) {
        if let Some(at) = self.due(conn, Alarm::Pause) {
            self.set_alarm(at, conn, Alarm::Pause);
        }
    }

    /// A pause is over, and not by the application: what comes is discarded.
    pub fn pause_ends(&mut self, conn: u32) {
        trace!(self, "#{conn} discards its input");
        let now = self.now;
        let earliest = self.due(conn, Alarm::Pause).unwrap_or(now).min(self.turn.began);
        self.cover(conn, InputKind::PauseEnd);
        self.rest(conn);
        let facts = self.of(conn);
        (facts.discards, facts.uncertainty) = (true, now - earliest);
        facts.delayed = facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
        if facts.left.is_none() && facts.failing.is_none() {
            let at = after(now, self.close_timeout(conn, CloseTiming::default()));
            self.of(conn).closes = Some((at, now - earliest));
            self.set_alarm(at, conn, Alarm::Discard);
        }
        self.touch(conn);
    }

    /// The loop is about to end its side of a connection, somehow. Returns whether that is an abort, as opposed to what
    /// follows a Close, an HTTP answer or an end that is known.
    pub fn is_abort(&mut self, conn: u32) -> bool {
        self.parsing_ends();
        self.check_sweeps();
        self.search(conn);
        self.catch_up(conn);
        self.take_end(None);
        if !self.of(conn).must_abort && self.state(conn).is_some_and(State::is_established) {
            self.give_up(conn);
        }
        let facts = self.of(conn);
        let closing = facts.state.is_some_and(State::is_established);
        facts.must_abort || closing
    }

    /// What was read of one whose time is up is parsed before it is ended, and no message of it is delivered.
    pub fn search(&mut self, conn: u32) {
        let over = self.phase == ShutdownPhase::HardSweep || self.is_due(conn, Alarm::Close);
        let facts = self.of(conn);
        if over && facts.delayed && !facts.must_abort && facts.state == Some(State::LocalClosing) {
            (facts.paused, facts.maybe_paused, facts.searched) = (true, false, true);
            self.settle(conn);
        }
    }

    /// `pause` was called.
    pub fn called_pause(&mut self, conn: u32) {
        self.note_pause_in_closing(conn);
        // Pongs may be queued.
        self.of(conn).may_owe = true;
        let (now, parsing, call) = (self.now, self.parsing == Some(conn), self.calls);
        // Its Ping may be queued already.
        let beats = self.of(conn).pinged.is_none() && self.is_due(conn, Alarm::Heartbeat);
        self.of(conn).may_beat += u32::from(beats);
        let facts = self.of(conn);
        let holds = parsing || facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
        if facts.state == Some(State::Open) && holds && !facts.delayed {
            (facts.delayed, facts.delayed_by) = (true, call);
        }
        if facts.state == Some(State::Open) && !facts.paused {
            (facts.paused_since, facts.left, facts.eof_read) = (now, None, false);
            facts.uncertainty = 0;
            self.start_with_the_return(conn, None);
        }
        self.of(conn).paused = true;
        self.set_pause_alarm(conn);
    }

    /// It is not paused any more, or its state does not care. If the callback that paused it has not returned, nothing is
    /// held back.
    pub fn unpaused(&mut self, conn: u32) {
        let call = self.calls;
        let facts = self.of(conn);
        facts.delayed &= facts.delayed_by != call;
    }

    /// The application looks at a request: it is whole.
    pub fn deciding(&mut self, conn: u32) {
        self.turn.callbacks += 1;
        self.of(conn).opened_at = self.now;
        self.take_end(None);
        self.touch(conn);
    }

    /// A callback panics: what is left of the read that it came from is for the next turn.
    pub fn panics(&mut self) {
        self.turn.panicked = true;
        if let Some(conn) = self.parsing.take() {
            if matches!(self.state(conn), Some(State::RemoteClosing | State::Failing)) {
                self.settle(conn);
            } else {
                self.of(conn).delayed = true;
            }
        }
    }
}
