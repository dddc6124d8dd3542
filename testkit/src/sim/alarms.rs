//! The clock's side of the book: what is due when, computed from the facts alone.
//!
//! An alarm may be early; what is really due is asked when it rings. So activity costs nothing here either.

use std::{cmp::Reverse, time::Duration};

use adjourn::{Cause, ConnectionId, Initiator, Phase, State, Timing, conn::InputKind};

use super::{
    book::{Book, after, answer_to, ensure, trace},
    facts::Expected,
};

/// Nobody in particular: the whole server.
pub const SERVER: u32 = u32::MAX;

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    Stall,
    Heartbeat,
    Close,
    Flush,
    Handshake,
    /// Lingering, or an HTTP answer's time to live.
    Linger,
    /// The bound of the whole shutdown.
    Shutdown,
}

impl Book {
    /// Deadlines are kept in whole milliseconds, rounded up.
    pub fn set_alarm(&mut self, at: u64, conn: u32, alarm: Alarm) {
        let at = at.checked_next_multiple_of(1000).unwrap_or(u64::MAX);
        self.alarms.push(Reverse((at, conn, alarm)));
    }

    /// When this is really due; `None` if it is not any more.
    pub fn due(&self, conn: u32, alarm: Alarm) -> Option<u64> {
        if conn == SERVER {
            return self.shutdown.as_ref().filter(|shutdown| !shutdown.done).map(|shutdown| {
                // A phase that ends in a late turn is that much longer.
                shutdown.bound.saturating_add(self.late - shutdown.late)
            });
        }
        let facts = &self.facts[conn as usize];
        let state = facts.state?;
        let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
        match alarm {
            Alarm::Handshake => {
                (state == State::Connecting).then(|| after(facts.since, self.config.handshake_timeout))
            }
            Alarm::Linger => matches!(state, State::Refusing | State::Lingering)
                .then(|| after(facts.since, self.config.linger_timeout.max(Duration::from_micros(1)))),
            Alarm::Heartbeat => {
                let heartbeat = self.heartbeat(conn);
                let interval = heartbeat.interval.filter(|_| state == State::Open && !facts.paused)?;
                Some(match facts.pinged {
                    None => after(facts.last_inbound, interval),
                    Some(pinged) => after(pinged, heartbeat.timeout.max(Duration::from_micros(1))),
                })
            }
            Alarm::Stall => {
                let timeout = self.stall_timeout(conn).filter(|_| state == State::Open)?;
                Some(after(facts.behind?.max(facts.progress), timeout))
            }
            Alarm::Close => ending.filter(|_| state.is_closing()).map(|ending| ending.deadline),
            Alarm::Flush => ending
                .filter(|ending| state.is_closing() && !ending.flush_over)
                .map(|ending| ending.flush_deadline),
            Alarm::Shutdown => None,
        }
    }

    /// The next turn would be at `wake`: was there something due before?
    pub fn check_wake(&mut self, wake: u64) {
        while let Some(&Reverse((at, conn, alarm))) = self.alarms.peek()
            && at < wake
        {
            self.alarms.pop();
            match self.due(conn, alarm) {
                None => {}
                Some(due) if due.saturating_add(999) < wake => {
                    let text = format!("{alarm:?} is due at {due}, and nothing would happen before {wake}");
                    return self.fail("woken_for_every_deadline", conn, text);
                }
                Some(due) => self.set_alarm(due, conn, alarm),
            }
        }
    }

    /// The hub is about to look at its deadlines: what must it do? `queued` says how many bytes it has for one.
    ///
    /// Returns whether it must do anything.
    pub fn ring(&mut self, queued: impl Fn(ConnectionId) -> usize) -> bool {
        let mut fired = false;
        while let Some(&Reverse((at, conn, alarm))) = self.alarms.peek()
            && at <= self.now
        {
            self.alarms.pop();
            match self.due(conn, alarm) {
                None => {}
                Some(due) if due > self.now => self.set_alarm(due, conn, alarm),
                Some(_) if self.is_overtaken(alarm) => fired = true,
                Some(due) => {
                    trace!(self, "#{conn} {alarm:?} was due at {due}");
                    self.fire(conn, alarm, &queued);
                    fired = true;
                }
            }
        }
        fired
    }

    /// When deadlines and a hard sweep both go in slices, either may come first.
    fn is_overtaken(&self, alarm: Alarm) -> bool {
        self.sweeps_hard_in_slices() && !matches!(alarm, Alarm::Handshake | Alarm::Linger | Alarm::Shutdown)
    }

    pub fn sweeps_hard_in_slices(&self) -> bool {
        self.phase == Phase::HardSweep && self.config.sweep_slice <= self.facts.len()
    }

    fn fire(&mut self, conn: u32, alarm: Alarm, queued: &impl Fn(ConnectionId) -> usize) {
        let now = self.now;
        if alarm == Alarm::Shutdown {
            let text = format!("the shutdown is not done at {now}");
            return self.fail("shutdown_ends_by_its_bound", None, text);
        }
        self.touch(conn);
        match alarm {
            Alarm::Shutdown => {}
            Alarm::Handshake => {
                self.cover(conn, InputKind::HandshakeTimeout);
                self.failure_due.push(conn);
            }
            Alarm::Linger => {
                self.cover(conn, InputKind::LingerEnd);
                self.release_due.push(conn);
            }
            Alarm::Stall => {
                self.cover(conn, InputKind::WriteStall);
                self.abort(conn, Cause::WriteStall, Initiator::Local, Some(self.config.abort));
            }
            Alarm::Heartbeat => {
                // What is due at once goes by the order of the rows in §3 backwards: a stalled one gets no Close.
                if self.due(conn, Alarm::Stall).is_some_and(|due| due <= now) {
                    return self.fire(conn, Alarm::Stall, queued);
                }
                let queued = self.of(conn).id.map_or(0, queued);
                self.heartbeat_due(conn, queued);
            }
            Alarm::Close => self.close_timed_out(conn),
            Alarm::Flush => {
                if self.due(conn, Alarm::Close).is_some_and(|due| due <= now) {
                    return self.fire(conn, Alarm::Close, queued);
                }
                self.cover(conn, InputKind::FlushBudget);
                self.flush_budget_over(conn);
            }
        }
    }

    pub fn close_timed_out(&mut self, conn: u32) {
        self.cover(conn, InputKind::CloseTimeout);
        let flushed = self.of(conn).close_done;
        self.abort(conn, Cause::CloseTimeout { flushed }, Initiator::Local, Some(self.config.abort));
    }

    fn heartbeat_due(&mut self, conn: u32, queued: usize) {
        let now = self.now;
        if self.of(conn).pinged.is_none() {
            self.cover(conn, InputKind::HeartbeatIdle);
            // Its silence has filled the bucket of its control frames.
            let facts = self.of(conn);
            (facts.pinged, facts.bucket, facts.rested) = (Some(now), (0, 0), false);
            self.busy(conn).pings_due += 1;
            return self.set_heartbeat_alarm(conn);
        }
        if queued > 0 {
            self.cover(conn, InputKind::HeartbeatTimeoutQueued);
            return self.abort(conn, Cause::HeartbeatTimeout, Initiator::Local, Some(self.config.abort));
        }
        self.cover(conn, InputKind::HeartbeatTimeout);
        // "Close 1011 if the backlog is empty, then abort": it has one turn.
        let timing = Timing { close_timeout: Some(Duration::from_micros(1)), flush_budget: None };
        self.begin_failing(conn, Cause::HeartbeatTimeout, 1011, timing);
        self.drop_inbound(conn, None);
    }

    fn flush_budget_over(&mut self, conn: u32) {
        let close_begun = self.of(conn).close_begun;
        let busy = self.busy(conn);
        busy.pongs_dropped |= !close_begun;
        let Some(ending) = &mut busy.ending else { return };
        ending.flush_over = true;
        if std::mem::take(&mut ending.unanswered) {
            let received = ending.received.clone().unwrap_or_default();
            ending.sent = Some(Expected::Frame(answer_to(received.0, &received.1)));
        }
    }

    /// So many bytes are queued at the end of a turn.
    pub fn note_queue(&mut self, conn: u32, queued: usize) {
        let now = self.now;
        let facts = self.of(conn);
        if queued == 0 {
            facts.behind = None;
        } else if facts.behind.is_none() {
            facts.behind = Some(now);
            if let Some(at) = self.due(conn, Alarm::Stall) {
                self.set_alarm(at, conn, Alarm::Stall);
            }
        }
    }

    /// Nothing is queued: every Ping that was due is on the wire, and the newest of the peer's Pings is answered.
    pub fn check_control_frames(&mut self, conn: u32) {
        let state = self.state(conn);
        let Some(busy) = &self.facts[conn as usize].busy else { return };
        let (pings, due) = (busy.pings, busy.pings_due);
        let open = state == Some(State::Open);
        let answers = matches!(state, Some(State::Open | State::LocalClosing)) && !busy.pongs_dropped;
        let answered = busy.last_ping.is_none() || busy.last_ping == busy.last_pong;
        let text = format!("{:?} for {:?}", busy.last_pong, busy.last_ping);
        ensure!(self, conn, "pings_are_sent", !open || pings == due, "{pings} of {due}");
        ensure!(self, conn, "pings_are_answered", !answers || answered, "{text}");
    }

    /// All that was due in this turn has been done?
    pub fn check_turn(&mut self) {
        for conn in std::mem::take(&mut self.close_due) {
            let closed = self.of(conn).closed;
            let text = "a Close was due by the end of this turn";
            ensure!(self, conn, "close_is_reported_in_its_turn", closed, "{text}");
        }
        for conn in std::mem::take(&mut self.failure_due) {
            let failed = self.of(conn).failed;
            let text = "a HandshakeFailed was due by the end of this turn";
            ensure!(self, conn, "handshake_failure_in_its_turn", failed, "{text}");
        }
        for conn in std::mem::take(&mut self.release_due) {
            let state = self.state(conn);
            ensure!(self, conn, "released_in_its_turn", state.is_none(), "still in {state:?}");
        }
        if self.config.max_handshakes.is_some() {
            let (half_open, limit) = self.half_open();
            ensure!(self, None, "handshakes_are_limited", half_open <= limit, "{half_open} of {limit}");
        }
    }
}
