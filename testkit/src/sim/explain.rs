//! What the checker concludes: an end, an abort, a Close are seen, and what is known must explain them.

use std::time::Duration;

use adjourn::{
    CloseCode, CloseFrame,
    clients::State,
    close::{Cause, CloseTiming, Initiator},
    config::ClosingData,
    conn::InputKind,
    shutdown::ShutdownPhase,
};

use super::{
    alarms::Alarm,
    checker::{Checker, after, ensure},
    frames::Found,
    observe::End,
};

/// Why a connection is closed that was paused and never resumed.
const FORGOTTEN: &str = "paused for too long";

impl Checker {
    /// The loop turns to something else: what it has read was parsed.
    pub fn parsing_ends(&mut self) {
        self.writing = None;
        if let Some(conn) = self.parsing.take()
            && !self.of(conn).delayed
        {
            let parses =
                matches!(self.state(conn), Some(State::Connecting | State::Open | State::LocalClosing));
            let facts = self.of(conn);
            let holds = facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
            if parses && holds && (self.may_hold() || self.may_inflate_too_much(conn)) {
                self.touch(conn);
                let now = self.now;
                let facts = self.of(conn);
                (facts.delayed, facts.parsed_at) = (true, now);
                return;
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

    pub fn or_judged(&mut self, conn: u32, judged: bool) {
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
        if self.parsing == Some(conn) {
            self.parsing = None;
        }
        if self.is_pause_due(conn) {
            self.pause_ends(conn);
            self.of(conn).delayed = false;
        }
        let discards = self.state(conn) == Some(State::Open) && self.of(conn).discards;
        if discards || !self.of(conn).delayed {
            self.settle(conn);
        } else if self.is_end_next(conn) {
            self.keep(conn);
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

    /// A Close of ours is seen on the wire or reported, and the checker knows no reason: a heartbeat, a sweep.
    pub fn explain_close(&mut self, conn: u32, frame: &CloseFrame) {
        // A sweep says so by its frame: what was held back need not have been parsed.
        let swept = self.is_soft_sweep(frame) || self.sweep_frames.contains_key(frame.reason());
        self.of(conn).flooded = frame.code() == Some(1008);
        if !swept {
            self.catch_up(conn);
        }
        match self.state(conn) {
            Some(State::Open) => {}
            // By one sweep closed and by the next terminated, before the first was heard of.
            Some(State::Closed | State::Lingering) => return self.swept_and_terminated(conn, frame),
            _ => return,
        }
        if matches!(frame.code(), Some(1002 | 1008)) {
            // More control frames than may be.
            self.settle(conn);
        }
        if self.state(conn) != Some(State::Open) {
            return;
        }
        if frame.reason() == FORGOTTEN && self.is_due(conn, Alarm::Discard) {
            self.pause_was_forgotten(conn);
        } else if frame.code() == Some(1011) && self.is_heart_still(conn) {
            self.heart_stopped(conn);
        } else {
            self.swept(conn, frame);
        }
        let uncertainty = self.now - self.settled_at;
        if let Some(ending) = self.ending(conn) {
            (ending.uncertainty, ending.noticed_late) = (uncertainty, true);
        }
    }

    /// Nobody has resumed it, and its peer goes on. Its Close has one turn, like that of a heartbeat.
    fn pause_was_forgotten(&mut self, conn: u32) {
        self.check_probe(conn, Alarm::Discard);
        self.cover(conn, InputKind::Close);
        let timing = CloseTiming { close_timeout: Some(Duration::ZERO), flush_budget: None };
        let code = CloseCode::new(1011).expect("a legal code");
        let frame = CloseFrame::new(code, FORGOTTEN).expect("a short reason");
        self.begin_local(conn, Cause::LocalClose, frame, timing);
    }

    /// A heartbeat's Ping was not answered in time.
    pub fn is_heart_still(&self, conn: u32) -> bool {
        if self.facts[conn as usize].pinged.is_some() {
            return self.is_due(conn, Alarm::Heartbeat);
        }
        // Its Ping may have been sent in an earlier slice, unnoticed.
        let timeout = u64::try_from(self.settings(conn).heartbeat.timeout.as_micros()).unwrap_or(u64::MAX);
        self.due(conn, Alarm::Heartbeat).is_some_and(|due| due.saturating_add(timeout) <= self.now)
    }

    /// "Close 1011 if the backlog is empty, then abort": it has one turn.
    pub fn heart_stopped(&mut self, conn: u32) {
        self.check_probe(conn, Alarm::Heartbeat);
        self.cover(conn, InputKind::HeartbeatTimeout);
        let queued = self.of(conn).busy.as_ref().map_or(0, |busy| busy.queued.len());
        ensure!(self, conn, "no_close_after_a_backlog", queued == 0, "{queued} messages are queued");
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
                "in {state:?}, {:?}; refused since {:?}, progress at {}, Ping at {:?}",
                self.phase, facts.refused, facts.progress, facts.pinged
            );
            return self.fail("abort_has_a_reason", conn, text);
        };
        let others: Vec<_> = reasons.map(|(_, _, cause)| cause).collect();
        self.share(conn).probed = true;
        if cause == Cause::ShutdownHard && others.is_empty() {
            self.swept_hard();
        }
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

    /// It was judged, and the application acts before that is delivered.
    pub fn explain_state(&mut self, conn: u32, seen: Option<State>) {
        self.check_sweeps();
        let known = self.state(conn);
        match seen {
            Some(State::Closed) if known.is_some_and(State::is_established) => self.explain_abort(conn),
            Some(State::Failing) if known == Some(State::Open) && self.is_heart_still(conn) => {
                self.heart_stopped(conn);
            }
            Some(State::LocalClosing)
                if known == Some(State::Open) && self.is_due(conn, Alarm::Discard) && !self.is_sweeping() =>
            {
                self.pause_was_forgotten(conn);
            }
            _ => {}
        }
    }

    /// Whether a sweep, or a shutdown, may close anybody.
    fn is_sweeping(&self) -> bool {
        self.shutdown.is_some() || self.sweeps.values().any(|sweep| !sweep.done)
    }

    /// Whether something was due at the earliest that may be meant.
    pub fn is_due(&self, conn: u32, alarm: Alarm) -> bool {
        self.due_at_the_earliest(conn, alarm).is_some_and(|due| due <= self.now)
    }

    /// When something may be due: a shutdown's grace may have cut it.
    pub fn due_at_the_earliest(&self, conn: u32, alarm: Alarm) -> Option<u64> {
        let due = self.due(conn, alarm)?.saturating_sub(self.uncertainty(conn, alarm));
        Some(self.cut_by_grace(conn, alarm).map_or(due, |cut| cut.min(due)))
    }

    /// The flush budget of a connection that was closing already is half of the grace at most. Which turn has found it is not known.
    pub fn cut_by_grace(&self, conn: u32, alarm: Alarm) -> Option<u64> {
        let shutdown = self.shutdown.as_ref()?;
        let began = shutdown.grace_began?;
        let ending = self.ending_of(conn).filter(|ending| ending.cause != Cause::ShutdownSoft)?;
        let grace = if shutdown.cut { Duration::ZERO } else { shutdown.plan.grace };
        (alarm == Alarm::Flush && !ending.flush_over).then(|| after(began, grace / 2))
    }

    /// By how much an alarm may be due earlier.
    pub fn uncertainty(&self, conn: u32, alarm: Alarm) -> u64 {
        match alarm {
            Alarm::Shutdown | Alarm::Timer | Alarm::Stall => 0,
            Alarm::Close | Alarm::Flush => self.ending_of(conn).map_or(0, |ending| ending.uncertainty),
            Alarm::Discard => self.facts[conn as usize].closes.map_or(0, |(_, uncertainty)| uncertainty),
            _ => self.facts[conn as usize].uncertainty,
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
        let waiting = facts.busy.as_ref().is_some_and(|busy| busy.queued.len() > busy.to_drop);
        // Behind a Close there is no message.
        let waits = waiting && !dropped && !facts.close_begun;
        let queued = !facts.wire.at_boundary() || close_waits || waits;
        let read = match (alarm, state) {
            // It is read until nothing is left, but no more than 8 MiB.
            (Alarm::Close, Some(State::LocalClosing)) => facts.drained_at >= due,
            (Alarm::Handshake | Alarm::Heartbeat | Alarm::Discard, _) => facts.tried_at >= due,
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
}
