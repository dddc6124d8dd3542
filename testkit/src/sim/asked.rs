//! What the application has asked for, as the checker writes it down.

use adjourn::{
    CloseFrame,
    clients::State,
    close::{Cause, CloseTiming},
    config::OnOverflow,
    conn::InputKind,
};

use super::{
    alarms::Alarm,
    checker::{Checker, after, trace},
    facts::Expected,
};

impl Checker {
    /// `send` was accepted; also a kick's message.
    pub fn called_send(&mut self, conn: u32, number: Option<u64>, length: usize) {
        trace!(self, "#{conn} is sent {number:?} of {length} bytes");
        self.counted.sent_messages += 1;
        let busy = self.busy(conn);
        busy.queued.push_back((number, length as u64));
        busy.accepted += 1;
        busy.accepted_bytes += length as u64;
        let much = busy.accepted_bytes - busy.handed_bytes >= 15 << 10;
        self.of(conn).may_owe |= much;
        self.touch(conn);
    }

    /// `max_backlog` was exceeded and the policy is to end such a connection.
    pub fn overflowed(&mut self, conn: u32, queued: u64) {
        self.cover(conn, InputKind::Overflow);
        if !self.of(conn).opened {
            // It is open, and its `Open` is yet to be delivered.
            let now = self.now;
            self.of(conn).overflowed.get_or_insert((queued, now));
            return;
        }
        if self.state(conn) == Some(State::Open) && self.settings(conn).on_overflow == OnOverflow::Fail {
            self.begin_failing(conn, Cause::Overflow { queued }, 1013, CloseTiming::default());
            self.drop_inbound(conn, None);
        }
    }

    /// A later `close` may shorten the deadline.
    pub fn shorten(&mut self, conn: u32, timing: CloseTiming) {
        let Some(timeout) = timing.close_timeout else { return };
        let (at, half) = (after(self.now, timeout), after(self.now, timeout / 2));
        if let Some(ending) = self.ending(conn).filter(|ending| at < ending.deadline) {
            let before = std::mem::replace(&mut ending.deadline, at);
            // The Close still needs its part of what is left.
            if ending.flush_deadline != u64::MAX {
                ending.flush_deadline = ending.flush_deadline.min(half);
            }
            let flush = ending.flush_deadline;
            self.start_with_the_return(conn, Some(before));
            self.set_alarm(at, conn, Alarm::Close);
            self.set_alarm(flush, conn, Alarm::Flush);
        }
    }

    pub fn called_answer(&mut self, conn: u32, frame: CloseFrame) {
        self.cover(conn, InputKind::AnswerClose);
        self.touch(conn);
        if let Some(ending) = self.ending(conn) {
            (ending.unanswered, ending.sent) = (false, Some(Expected::Frame(frame)));
        }
    }

    pub fn is_unanswered(&self, conn: u32) -> bool {
        let facts = &self.facts[conn as usize];
        let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
        facts.state == Some(State::RemoteClosing) && ending.is_some_and(|ending| ending.unanswered)
    }

    /// `resume` said whether input is delivered from now on. Returns whether that is right.
    pub fn called_resume(&mut self, conn: u32, delivers: bool) -> bool {
        if !delivers && self.is_pause_due(conn) {
            // The answer shows that the pause has ended.
            self.pause_ends(conn);
        }
        let state = self.state(conn);
        if state == Some(State::Open) && self.of(conn).discards {
            return !delivers; // Too late.
        }
        self.note_pause_in_closing(conn);
        if std::mem::take(&mut self.of(conn).paused) {
            self.rest(conn);
        }
        self.unpaused(conn);
        self.touch(conn);
        delivers == matches!(state, Some(State::Open | State::LocalClosing))
    }

    /// It is paused or resumed while it closes: what is parsed before is delivered or discarded by what was so before.
    pub fn note_pause_in_closing(&mut self, conn: u32) {
        let facts = self.of(conn);
        let holds = facts.busy.as_ref().is_some_and(|busy| !busy.held.is_empty());
        facts.maybe_paused |= facts.state == Some(State::LocalClosing) && holds;
    }

    /// Silence that we imposed is not the peer's.
    pub fn rest(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        facts.rested |= now > facts.last_inbound;
        (facts.last_inbound, facts.pinged, facts.bucket) = (now, None, (0, 0));
        facts.uncertainty = 0;
        self.set_heartbeat_alarm(conn);
    }
}
