//! The book's ears: what passes between the loop and its transport, and between the loop and its application.
//!
//! The loop does not say when it has parsed something or has judged somebody. So the book writes down what came in, and
//! takes the consequence when something is seen that only this consequence explains, or when the loop must be done with it:
//! with what was read, when it turns to its transport again; with the end of the input, when it turns to anything else; with
//! what was due, when it says that nothing is due any more.

use std::{io, time::Duration};

use adjourn::{
    CloseFrame,
    clients::State,
    close::{Cause, CloseTiming, Initiator},
    config::ClosingData,
    conn::InputKind,
    shutdown::ShutdownPhase,
};

use super::{
    alarms::Alarm,
    book::{Book, after, ensure, trace},
    facts::Share,
    frames::Found,
};

/// How a connection's input ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Eof,
    Error(io::ErrorKind),
}

/// What the present turn has done.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct TurnBook {
    /// Tells turns apart.
    pub number: u64,
    pub began: u64,
    pub callbacks: u32,
    pub bytes: usize,
    /// How often the budget may have been granted anew since these were counted: for what is due, and behind a turn that a
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
    /// It has not come to its end.
    pub open: bool,
    /// Something is left for the next turn.
    pub unsettled: bool,
}

impl Book {
    /// The loop has read the clock. What began to close since then did so in a callback that has returned, and its time
    /// begins now (section 3 of the specification).
    pub fn set_now(&mut self, now: u64) {
        let (by, cut) = (now - self.now, self.turn.panicked || self.turn.after_cut);
        self.now = now;
        for (conn, before) in std::mem::take(&mut self.unarmed) {
            if by == 0 || self.state(conn).is_none() {
                continue;
            }
            if self.state(conn) == Some(State::Refusing) {
                self.of(conn).since += by;
            }
            // The timers of one whose outcome is fixed have had their time.
            let Some(ending) = self.ending(conn).filter(|ending| ending.ended.is_none()) else { continue };
            // Behind a panic it may have been judged before the clock was read.
            ending.slop += if cut { by } else { 0 };
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
        let (number, after_cut) = (self.turn.number + 1, self.turn.open);
        self.turn = TurnBook {
            number,
            began: self.now,
            open: true,
            unsettled: true,
            after_cut,
            grants: if after_cut { 3 } else { 0 },
            ..TurnBook::default()
        };
    }

    /// The loop is about to judge what is due, and to end what the hard sweep ends: each has a budget of its own.
    pub fn grant(&mut self) {
        self.turn.grants += 2;
    }

    /// The turn is over. `has_more`: the loop will not wait. `next`: when something is due next, as it says.
    pub fn end_turn(&mut self, has_more: bool, next: Option<u64>) {
        self.feeding_ends();
        self.take_end(None);
        self.check_sweeps();
        self.turn.unsettled = has_more;
        self.turn.open = false;
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

    /// The turn has done as much as a turn may. When a budget was granted anew, only what exceeds the one before tells.
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
        used_up || self.turn.renewed || self.turn.after_cut
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

    // The transport.

    /// The loop is about to read.
    pub fn will_read(&mut self, conn: u32) {
        self.feeding_ends();
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

    /// Whether something is due: then it is probed before it is judged.
    fn is_judged(&mut self, conn: u32) -> bool {
        let all =
            [Alarm::Handshake, Alarm::Heartbeat, Alarm::Close, Alarm::Flush, Alarm::Stall, Alarm::Linger];
        // The hard sweep probes, too, and may not have been told.
        let hard = self.shutdown.is_some();
        let due = hard || all.iter().any(|alarm| self.is_due(conn, *alarm));
        self.share(conn).probed |= due;
        due
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
            !ending.flush_over && (cut || ending.flush_deadline.saturating_sub(ending.slop) <= at)
        })
    }

    /// Whether it may have been judged, and that is not told yet.
    pub fn may_be_judged(&self, conn: u32) -> bool {
        [Alarm::Heartbeat, Alarm::Stall, Alarm::Close].iter().any(|alarm| self.is_due(conn, *alarm))
    }

    /// How many shares of a turn a connection may have: a probe has one of its own.
    pub fn shares(&mut self, conn: u32) -> u32 {
        self.is_judged(conn);
        let shares = if self.share(conn).probed { 2 } else { 1 };
        // A turn that a panic has cut short is ended first.
        if self.turn.after_cut { shares + 2 } else { shares }
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
        self.feeding_ends();
        self.take_end(Some(conn));
        self.touch(conn);
        let now = self.now;
        self.of(conn).offered_at = now;
        if self.state(conn) == Some(State::Connecting) {
            // Its refusal may be told after it was written.
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
        let facts = self.of(conn);
        // That it takes nothing more is no stall.
        (facts.failing, facts.behind) = (facts.failing.or(Some(kind)), None);
        if self.state(conn) == Some(State::Open) && self.of(conn).paused && !self.of(conn).discards {
            self.pause_ends(conn);
        }
    }

    /// The socket of a paused connection says that it has failed: what is unread does not count.
    pub fn reset_while_paused(&mut self, conn: u32, kind: io::ErrorKind) {
        self.feeding_ends();
        self.take_end(None);
        self.reset(conn, kind);
    }

    /// The socket of a paused connection says that its peer has left.
    pub fn left_while_paused(&mut self, conn: u32) {
        self.feeding_ends();
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

    fn set_pause_alarm(&mut self, conn: u32) {
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
        (facts.discards, facts.slop) = (true, now - earliest);
        facts.delayed = facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
        self.touch(conn);
    }

    /// The loop is about to end its side of a connection, somehow. Returns whether that is an abort, as opposed to what
    /// follows a Close, an HTTP answer or an end that is known.
    pub fn is_abort(&mut self, conn: u32) -> bool {
        self.feeding_ends();
        self.check_sweeps();
        self.catch_up(conn);
        self.take_end(None);
        if !self.of(conn).must_abort && self.state(conn).is_some_and(State::is_established) {
            self.give_up(conn);
        }
        let facts = self.of(conn);
        let closing = facts.state.is_some_and(State::is_established);
        facts.must_abort || closing
    }

    // Consequences.

    /// The loop turns to something else: what it has read was parsed.
    pub fn feeding_ends(&mut self) {
        self.writing = None;
        if let Some(conn) = self.feeding.take()
            && !self.of(conn).delayed
        {
            let parses =
                matches!(self.state(conn), Some(State::Connecting | State::Open | State::LocalClosing));
            let facts = self.of(conn);
            let holds = facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
            if parses && holds && self.may_hold() {
                self.touch(conn);
                return self.of(conn).delayed = true;
            }
            self.settle(conn);
        }
    }

    /// The loop has taken note of the end of some input, unless it is the one of `but`, which may be written to before.
    pub fn take_end(&mut self, but: Option<u32>) {
        let Some((conn, end)) = self.ended.take_if(|(conn, _)| Some(*conn) != but) else { return };
        match end {
            // The FIN stays in the kernel until the replies have had their chance.
            End::Eof if self.has_written_its_share(conn) => self.of(conn).eof_read = true,
            End::Eof => self.eof(conn),
            End::Error(kind) => self.reset(conn, kind),
        }
    }

    /// All that can be read of a socket that has failed was read: it ends by that failure, or by what was due besides.
    pub fn give_up(&mut self, conn: u32) {
        if let Some(kind) = self.of(conn).failing.take() {
            let judged = self.may_be_judged(conn);
            self.reset(conn, kind);
            self.or_judged(conn, judged);
        }
    }

    fn or_judged(&mut self, conn: u32, judged: bool) {
        let flushed = self.of(conn).close_done;
        let hard = self.phase == ShutdownPhase::HardSweep;
        let Some(ending) = self.ending(conn).filter(|_| judged || hard) else { return };
        ending.style = None;
        if judged {
            let causes = [Cause::HeartbeatTimeout, Cause::WriteStall, Cause::CloseTimeout { flushed }];
            ending.or_causes.extend(causes);
        }
        if hard {
            ending.or_causes.push(Cause::ShutdownHard);
        }
    }

    /// Something is seen of a connection that what is known does not explain: takes whatever consequence is open.
    pub fn catch_up(&mut self, conn: u32) {
        if self.feeding == Some(conn) {
            self.feeding = None;
        }
        if self.is_pause_due(conn) {
            self.pause_ends(conn);
            self.of(conn).delayed = false;
        }
        let discards = self.state(conn) == Some(State::Open) && self.of(conn).discards;
        if discards || !self.of(conn).delayed || self.is_end_next(conn) {
            self.settle(conn);
        }
        if self.ended.is_some_and(|(ended, _)| ended == conn) {
            self.take_end(None);
        }
        if std::mem::take(&mut self.of(conn).eof_read) {
            let judged = self.may_be_judged(conn);
            self.eof(conn);
            // Or it was judged before its end was taken note of.
            self.of(conn).eof_unsure = judged || self.phase == ShutdownPhase::HardSweep;
            self.or_judged(conn, judged);
        }
    }

    /// Whether what was held back begins with what ends the input: a Close, or a rule that is broken.
    pub fn is_end_next(&mut self, conn: u32) -> bool {
        let (limits, most) = (self.limits(conn), self.settings(conn).closing_bytes);
        let discards = self.of(conn).paused || self.settings(conn).closing_data == ClosingData::Discard;
        let closing = self.state(conn) == Some(State::LocalClosing);
        let Some(busy) = &mut self.of(conn).busy else { return false };
        let mut taken = busy.ending.as_ref().map_or(0, |ending| ending.taken_in);
        let (mut rest, mut inbound) = (&*busy.held.make_contiguous(), busy.inbound.clone());
        loop {
            match inbound.pull(&mut rest, limits) {
                Some(Found::Message { payload, .. }) if closing => {
                    taken += payload.len() as u64;
                    if !discards && taken <= most {
                        return false;
                    }
                }
                Some(Found::Close(..) | Found::Breach(_)) => return true,
                _ => return false,
            }
        }
    }

    /// A Close of ours is seen, or told, and the book knows no reason: a heartbeat, a sweep.
    pub fn explain_close(&mut self, conn: u32, frame: &CloseFrame) {
        // A sweep says so by its frame: what was held back need not have been parsed.
        let swept = self.is_soft_sweep(frame) || self.sweep_frames.contains_key(frame.reason());
        if swept {
            // A sweep comes when all that was read this turn was parsed, but for what is held.
            self.feeding_ends();
        } else {
            self.catch_up(conn);
        }
        match self.state(conn) {
            Some(State::Open) => {}
            // By one sweep closed and by the next terminated, before the first was heard of.
            Some(State::Closed) => return self.swept_and_terminated(conn, frame),
            _ => return,
        }
        if matches!(frame.code(), Some(1002 | 1008)) {
            // More control frames than may be.
            self.settle(conn);
        }
        if self.state(conn) != Some(State::Open) {
            return;
        }
        if frame.code() == Some(1011) && self.is_heart_still(conn) {
            self.heart_stopped(conn);
        } else {
            self.swept(conn, frame);
        }
        let slop = self.now - self.settled_at;
        if let Some(ending) = self.ending(conn) {
            ending.slop = slop;
        }
    }

    /// A heartbeat's Ping was not answered in time.
    fn is_heart_still(&self, conn: u32) -> bool {
        if self.facts[conn as usize].pinged.is_some() {
            return self.is_due(conn, Alarm::Heartbeat);
        }
        // Its Ping may have been sent in a slice of which nobody has told.
        let timeout = u64::try_from(self.settings(conn).heartbeat.timeout.as_micros()).unwrap_or(u64::MAX);
        self.due(conn, Alarm::Heartbeat).is_some_and(|due| due.saturating_add(timeout) <= self.now)
    }

    /// "Close 1011 if the backlog is empty, then abort": it has one turn.
    fn heart_stopped(&mut self, conn: u32) {
        self.check_probe(conn, Alarm::Heartbeat);
        self.cover(conn, InputKind::HeartbeatTimeout);
        let queued = self.of(conn).busy.as_ref().map_or(0, |busy| busy.queued.len());
        ensure!(self, conn, "no_close_behind_a_backlog", queued == 0, "{queued} messages are queued");
        let timing = CloseTiming { close_timeout: Some(Duration::ZERO), flush_budget: None };
        self.begin_failing(conn, Cause::HeartbeatTimeout, 1011, timing);
        self.drop_inbound(conn, None);
    }

    /// An abort is seen that nobody asked for: something was due, or it is the hard sweep. What exactly, the report says.
    pub fn explain_abort(&mut self, conn: u32) {
        let state = self.state(conn);
        let hard = self.phase == ShutdownPhase::HardSweep && state.is_some_and(State::is_established);
        let over = |alarm| self.is_due(conn, alarm);
        let open = state == Some(State::Open);
        let close = state.is_some_and(State::is_closing) && over(Alarm::Close);
        let reasons = [
            (
                close,
                InputKind::CloseTimeout,
                Cause::CloseTimeout { flushed: self.facts[conn as usize].close_done },
            ),
            (open && over(Alarm::Stall), InputKind::WriteStall, Cause::WriteStall),
            (open && self.is_heart_still(conn), InputKind::HeartbeatTimeoutQueued, Cause::HeartbeatTimeout),
            (hard, InputKind::HardSweep, Cause::ShutdownHard),
        ];
        let mut reasons = reasons.into_iter().filter(|(applies, ..)| *applies);
        let Some((_, input, cause)) = reasons.next() else {
            let facts = &self.facts[conn as usize];
            let text = format!(
                "in {state:?}, {:?}; behind since {:?}, progress at {}, Ping at {:?}",
                self.phase, facts.behind, facts.progress, facts.pinged
            );
            return self.fail("abort_has_a_reason", conn, text);
        };
        let others: Vec<_> = reasons.map(|(_, _, cause)| cause).collect();
        self.share(conn).probed = true;
        match cause {
            Cause::CloseTimeout { .. } if others.is_empty() => self.check_probe(conn, Alarm::Close),
            Cause::WriteStall if others.is_empty() => self.check_probe(conn, Alarm::Stall),
            Cause::HeartbeatTimeout if others.is_empty() => self.check_probe(conn, Alarm::Heartbeat),
            _ => {}
        }
        self.cover(conn, input);
        let asked = match cause {
            _ if !others.is_empty() => None,
            Cause::ShutdownHard => {
                let asked = self.shutdown.as_ref().and_then(|shutdown| shutdown.plan.abort);
                asked.or(Some(self.settings(conn).abort))
            }
            _ => Some(self.settings(conn).abort),
        };
        self.abort(conn, cause, Initiator::Local, asked);
        if let Some(ending) = self.ending(conn) {
            (ending.or_causes, ending.aborted_in) = (others, state);
        }
    }

    /// It was judged, and the application acts before that is told.
    pub fn explain_state(&mut self, conn: u32, seen: Option<State>) {
        self.check_sweeps();
        let known = self.state(conn);
        match seen {
            Some(State::Closed) if known.is_some_and(State::is_established) => self.explain_abort(conn),
            Some(State::Failing) if known == Some(State::Open) && self.is_heart_still(conn) => {
                self.heart_stopped(conn);
            }
            _ => {}
        }
    }

    /// Whether something was due at the earliest that may be meant.
    pub fn is_due(&self, conn: u32, alarm: Alarm) -> bool {
        self.due_at_the_earliest(conn, alarm).is_some_and(|due| due <= self.now)
    }

    /// When something may be due: a shutdown's grace may have cut it.
    fn due_at_the_earliest(&self, conn: u32, alarm: Alarm) -> Option<u64> {
        let due = self.due(conn, alarm)?.saturating_sub(self.slop(conn, alarm));
        Some(self.cut_by_grace(conn, alarm).map_or(due, |cut| cut.min(due)))
    }

    /// The deadline of a connection that was closing already is the end of the grace at the latest, and its flush budget half of
    /// what was left. Which turn has found it is not known.
    pub fn cut_by_grace(&self, conn: u32, alarm: Alarm) -> Option<u64> {
        let shutdown = self.shutdown.as_ref()?;
        let began = shutdown.grace_began?;
        let ending = self.ending_of(conn).filter(|ending| ending.cause != Cause::ShutdownSoft)?;
        let grace = if shutdown.cut { Duration::ZERO } else { shutdown.plan.grace };
        match alarm {
            Alarm::Close => Some(after(began, grace)),
            Alarm::Flush if !ending.flush_over => Some(after(began, grace / 2)),
            _ => None,
        }
    }

    /// By how much an alarm may be due earlier.
    pub fn slop(&self, conn: u32, alarm: Alarm) -> u64 {
        match alarm {
            Alarm::Shutdown => 0,
            Alarm::Close | Alarm::Flush => self.ending_of(conn).map_or(0, |ending| ending.slop),
            _ => self.facts[conn as usize].slop,
        }
    }

    /// Who waits for its peer is looked at before it is ended: what answers may lie in the kernel (section 3).
    pub fn check_probe(&mut self, conn: u32, alarm: Alarm) {
        let Some(due) = self.due_at_the_earliest(conn, alarm) else { return };
        let state = self.state(conn);
        let spent = self.has_written_its_share(conn);
        let facts = &self.facts[conn as usize];
        let ending = self.ending_of(conn);
        let close_waits = ending.is_some_and(|ending| ending.sent.is_some()) && !facts.close_done;
        let dropped = ending.is_some_and(|ending| ending.flush_over);
        let waiting = facts.busy.as_ref().is_some_and(|busy| busy.queued.len() > busy.condemned);
        // Behind a Close there is no message.
        let waits = waiting && !dropped && !facts.close_begun;
        let queued = !facts.wire.at_boundary() || close_waits || waits;
        let read = match (alarm, state) {
            // It is read until nothing is left, but no more than 8 MiB.
            (Alarm::Close, Some(State::LocalClosing)) => facts.drained_at >= due,
            (Alarm::Handshake | Alarm::Heartbeat, _) => facts.tried_at >= due,
            _ => true,
        };
        let waits_for_room = matches!(alarm, Alarm::Close | Alarm::Flush | Alarm::Stall);
        let written =
            !waits_for_room || !queued || spent || facts.failing.is_some() || facts.offered_at >= due;
        let text = format!(
            "{alarm:?} in {state:?} was due at {due}; tried at {}, drained at {}, offered at {}",
            facts.tried_at, facts.drained_at, facts.offered_at
        );
        ensure!(self, conn, "probed_before_judged", read && written, "{text}");
    }

    /// `pause` was called.
    pub fn called_pause(&mut self, conn: u32) {
        self.note_pause_in_closing(conn);
        let (now, feeding, callback) = (self.now, self.feeding == Some(conn), self.tally.events);
        // Its Ping may be queued already.
        let beats = self.of(conn).pinged.is_none() && self.is_due(conn, Alarm::Heartbeat);
        self.of(conn).may_beat |= beats;
        let facts = self.of(conn);
        let holds = feeding || facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
        if facts.state == Some(State::Open) && holds && !facts.delayed {
            (facts.delayed, facts.delayed_by) = (true, callback);
        }
        if facts.state == Some(State::Open) && !facts.paused {
            (facts.paused_since, facts.left, facts.eof_read) = (now, None, false);
        }
        facts.paused = true;
        self.set_pause_alarm(conn);
    }

    /// It is not paused any more, or its state does not care. If the callback that paused it has not returned, nothing is
    /// held back.
    pub fn unpaused(&mut self, conn: u32) {
        let callback = self.tally.events;
        let facts = self.of(conn);
        facts.delayed &= facts.delayed_by != callback;
    }

    /// The application looks at a request: it is whole.
    pub fn deciding(&mut self, conn: u32) {
        self.turn.callbacks += 1;
        self.take_end(None);
        self.touch(conn);
    }

    /// A callback panics: what is left of the read that it came from is for the next turn.
    pub fn panics(&mut self) {
        self.turn.panicked = true;
        if let Some(conn) = self.feeding.take() {
            self.of(conn).delayed = true;
        }
    }
}
