//! How the checker begins and ends the end of a connection, and takes back what it knew too early.

use adjourn::{
    CloseFrame,
    clients::State,
    close::{Cause, CloseTiming, Initiator},
};

use super::{
    alarms::Alarm,
    checker::{Checker, after, trace},
    facts::{Ending, Expected, Undo},
};

impl Checker {
    pub fn begin_ending(
        &mut self,
        conn: u32,
        state: State,
        initiator: Initiator,
        cause: Cause,
        timing: CloseTiming,
    ) {
        let now = self.now;
        if self.state(conn) == Some(State::Open) && state.is_closing() {
            self.start_with_the_return(conn, None);
            self.unpaused(conn);
            let may_discard = self.of(conn).discards || self.may_have_ended_pause(conn);
            let facts = self.of(conn);
            let holds = facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
            facts.maybe_discarded = may_discard && facts.delayed && holds;
        }
        let deadline = after(now, self.close_timeout(conn, timing));
        let flush_deadline = after(now, self.flush_budget(conn, timing));
        trace!(self, "#{conn} {state:?} by {cause:?}, until {deadline}, flushes until {flush_deadline}");
        self.of(conn).state = Some(state);
        let (lost_in, lost_in_bytes) = std::mem::take(&mut self.busy(conn).discarded);
        self.busy(conn).ending = Some(Ending {
            initiator,
            cause,
            or_causes: Vec::new(),
            aborted_in: None,
            aborted_by: None,
            uncertainty: 0,
            noticed_late: false,
            ended: None,
            early: 0,
            sent: None,
            received: None,
            began: now,
            deadline,
            flush_deadline,
            flush_over: false,
            none_begins: false,
            unanswered: false,
            lost_in,
            lost_in_bytes,
            or_lost_in: (0, 0),
            taken_in: 0,
            partial_in: (0, 0),
            trailing: (0, 0),
            sweeps: Vec::new(),
            style: None,
            unsent: None,
        });
        self.set_alarm(deadline, conn, Alarm::Close);
        self.set_alarm(flush_deadline, conn, Alarm::Flush);
        self.touch(conn);
    }

    /// We close it, or a sweep does.
    pub fn begin_local(&mut self, conn: u32, cause: Cause, frame: CloseFrame, timing: CloseTiming) {
        self.begin_ending(conn, State::LocalClosing, Initiator::Local, cause, timing);
        if let Some(ending) = self.ending(conn) {
            ending.sent = Some(Expected::Frame(frame));
        }
    }

    /// We fail it (§7.1.7).
    pub fn begin_failing(&mut self, conn: u32, cause: Cause, code: u16, timing: CloseTiming) {
        self.begin_ending(conn, State::Failing, Initiator::Local, cause, timing);
        if let Some(ending) = self.ending(conn) {
            ending.sent = Some(Expected::Code(code));
        }
        self.cut_flush_budget(conn);
    }

    /// A failing connection has one more write for what is queued.
    pub fn cut_flush_budget(&mut self, conn: u32) {
        let at = self.now + 1;
        if let Some(ending) = self.ending(conn) {
            (ending.flush_deadline, ending.flush_over) = (at, false);
        }
        self.set_alarm(at, conn, Alarm::Flush);
    }

    /// Its outcome is fixed and FIN follows: `Close` is due.
    pub fn finish(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        (facts.state, facts.since) = (Some(State::Lingering), now);
        let half_closed = facts.eof;
        let early = now - self.of(conn).parsed_at.clamp(self.of(conn).tried_at.min(now), now);
        self.of(conn).ended_early = early;
        if let Some(ending) = self.ending(conn).filter(|ending| ending.ended.is_none()) {
            (ending.ended, ending.early) = (Some(now), early);
        }
        self.close_due.push(conn);
        if half_closed {
            self.of(conn).state = Some(State::Closed);
            return self.release_due.push(conn);
        }
        let at = after(now, self.settings(conn).linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    /// It ends without ceremony: `Close` is due. The first failure stays the cause.
    pub fn abort(
        &mut self,
        conn: u32,
        cause: Cause,
        initiator: Initiator,
        style: Option<adjourn::config::Abort>,
    ) {
        trace!(self, "#{conn} is to be aborted: {cause:?}");
        let failing = self.state(conn) == Some(State::Failing);
        if self.state(conn) == Some(State::Open) {
            self.begin_ending(conn, State::Closed, initiator, cause, CloseTiming::default());
        }
        self.keep_undo(conn);
        if self.parsing == Some(conn)
            && matches!(self.state(conn), Some(State::Failing | State::RemoteClosing))
        {
            // What is being parsed may have been looked at before.
            let left = self.busy(conn).held.len() as u64;
            if let Some(ending) = self.ending(conn) {
                ending.trailing.1 += left;
            }
        }
        self.drop_inbound(conn, None);
        self.of(conn).state = Some(State::Closed);
        if let Some(ending) = self.ending(conn) {
            (ending.style, ending.aborted_by) = (style, Some((cause, initiator, style)));
            if !failing {
                ending.cause = cause;
            }
        }
        // A FIN that waits for replies has not counted if the application, or a sweep, was first.
        self.of(conn).eof_read &= cause != Cause::Terminated;
        self.of(conn).must_abort = true;
        self.close_due.push(conn);
    }

    /// What was read may have been parsed before the abort, or not: the report will show it.
    fn keep_undo(&mut self, conn: u32) {
        if self.state(conn) == Some(State::LocalClosing) && self.of(conn).delayed && self.is_end_next(conn) {
            self.keep(conn);
        }
    }

    /// Keeps what is known of it, for [`Checker::undo_abort`] or [`Checker::undo_parsing`].
    pub fn keep(&mut self, conn: u32) {
        let state = self.state(conn);
        let busy = self.busy(conn);
        let undo = Undo {
            state,
            held: busy.held.clone(),
            inbound: busy.inbound.clone(),
            ending: busy.ending.clone(),
        };
        busy.undo = Some(Box::new(undo));
    }

    /// It was parsed.
    pub fn undo_abort(&mut self, conn: u32) {
        self.abort_again(conn, Self::settle);
    }

    /// It was not parsed.
    pub fn undo_parsing(&mut self, conn: u32) {
        self.abort_again(conn, |_, _| {});
    }

    fn abort_again(&mut self, conn: u32, after: impl FnOnce(&mut Self, u32)) {
        let busy = self.busy(conn);
        let Some(undo) = busy.undo.take() else { return };
        let Some((by, ending)) = busy.ending.take().and_then(|ending| Some((ending.aborted_by?, ending)))
        else {
            return;
        };
        (busy.held, busy.inbound, busy.ending) = (undo.held, undo.inbound, undo.ending);
        self.of(conn).state = undo.state;
        after(self, conn);
        let (after, (cause, initiator, style)) = (ending, by);
        self.abort(conn, cause, initiator, style);
        self.of(conn).must_abort = false;
        if let Some(ending) = self.ending(conn) {
            (ending.ended, ending.unsent, ending.sweeps) = (after.ended, after.unsent, after.sweeps);
            ending.or_causes.extend(after.or_causes);
        }
    }
}
