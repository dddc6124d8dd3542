//! The clock's side of the checker: what is due when, computed from the facts alone.
//!
//! An alarm may be early; what is really due is asked when it rings. So activity costs nothing here either.

use std::{cmp::Reverse, time::Duration};

use adjourn::{clients::State, close::CloseTiming, conn::InputKind};

use super::{
    checker::{Checker, after, answer_to, ensure, trace},
    facts::Expected,
};

/// Nobody in particular: the whole server.
pub const SERVER: u32 = u32::MAX;

/// What can be due.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    Stall,
    Heartbeat,
    /// The end of a pause that lasts too long, or whose peer has left.
    Pause,
    /// The end of discarding what a peer sends that has not left.
    Discard,
    Close,
    Flush,
    Handshake,
    /// Lingering, or an HTTP answer's time to live.
    Linger,
    /// A timer of the application.
    Timer,
    /// The bound of the whole shutdown.
    Shutdown,
}

impl Checker {
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
            Alarm::Handshake => (state == State::Connecting)
                .then(|| after(facts.since, self.config.handshake.handshake_timeout)),
            Alarm::Linger => matches!(state, State::Refusing | State::Lingering).then(|| {
                after(facts.since, self.settings(conn).linger_timeout.max(Duration::from_micros(1)))
            }),
            Alarm::Heartbeat => {
                let heartbeat = self.settings(conn).heartbeat;
                let interval = heartbeat
                    .interval
                    .filter(|_| state == State::Open && (!facts.paused || facts.discards))?;
                Some(match facts.pinged {
                    None => after(facts.last_inbound, interval),
                    Some(pinged) => after(pinged, heartbeat.timeout.max(Duration::from_micros(1))),
                })
            }
            Alarm::Pause => {
                if state != State::Open || !facts.paused || facts.discards {
                    return None;
                }
                let most = self.settings(conn).pause_timeout.map(|timeout| {
                    after(
                        after(facts.paused_since, timeout),
                        self.close_timeout(conn, CloseTiming::default()),
                    )
                });
                [most, facts.left].into_iter().flatten().min()
            }
            Alarm::Discard => facts.closes.filter(|_| state == State::Open).map(|(at, _)| at),
            Alarm::Stall => {
                let timeout = self.settings(conn).stall_timeout.filter(|_| state == State::Open)?;
                Some(after(facts.refused?.max(facts.progress), timeout))
            }
            Alarm::Close => ending.filter(|_| state.is_closing()).map(|ending| ending.deadline),
            Alarm::Flush => ending
                .filter(|ending| state.is_closing() && !ending.flush_over)
                .map(|ending| ending.flush_deadline),
            Alarm::Timer => {
                facts.timers.iter().map(|(_, at, _)| *at).min().filter(|_| state.is_established())
            }
            Alarm::Shutdown => None,
        }
    }

    /// The next turn would be at `wake`: was there something due before?
    pub fn check_wake(&mut self, wake: u64) {
        let (mut later, mut early) = (Vec::new(), Vec::new());
        while let Some(&Reverse((at, conn, alarm))) = self.alarms.peek()
            && at < wake
        {
            self.alarms.pop();
            match self.due(conn, alarm) {
                None => {}
                Some(due) if due.saturating_add(999) >= wake => self.set_alarm(due, conn, alarm),
                // What was due again at once is due in the next millisecond.
                Some(due) if due <= self.now && wake <= self.now + 1000 => {
                    later.push(Reverse((at, conn, alarm)));
                }
                // What was told late may have been done before the checker knew of it.
                Some(due)
                    if self.uncertainty(conn, alarm) > 0
                        && due.saturating_sub(self.uncertainty(conn, alarm)) <= self.now + 1000 =>
                {
                    early.push((conn, alarm));
                }
                // Its grace may have brought it forward.
                Some(_)
                    if alarm == Alarm::Flush
                        && self.cut_by_grace(conn, alarm).is_some_and(|cut| cut <= self.now) => {}
                Some(due) => {
                    let text = format!("{alarm:?} is due at {due}, and nothing would happen before {wake}");
                    return self.fail("woken_for_every_deadline", conn, text);
                }
            }
        }
        self.alarms.extend(later);
        for (conn, _) in early.into_iter().filter(|(_, alarm)| *alarm == Alarm::Flush) {
            self.flush_budget_over(conn);
        }
    }

    /// What was due by now must have happened, unless the loop says by `next` that something is still due, or had to put
    /// off what follows (`strict` is false).
    pub fn ring(&mut self, next: Option<u64>, strict: bool) {
        // What was due besides, and what fell due while this turn judged, is due in the next millisecond.
        let done = next.is_none_or(|at| at > self.now + 1000);
        let all_done = strict && done;
        let mut later = Vec::new();
        while let Some(&Reverse((at, conn, alarm))) = self.alarms.peek()
            && at <= self.now
        {
            self.alarms.pop();
            match self.due(conn, alarm) {
                None => {}
                Some(due) if due > self.now => self.set_alarm(due, conn, alarm),
                Some(due) if all_done || (done && self.is_silent(conn, alarm)) => self.fire(conn, alarm, due),
                Some(_) => later.push(Reverse((at, conn, alarm))),
            }
        }
        self.alarms.extend(later);
    }

    /// Whether nothing but its consequences shows that it was done.
    fn is_silent(&self, conn: u32, alarm: Alarm) -> bool {
        alarm == Alarm::Pause || alarm == Alarm::Heartbeat && self.facts[conn as usize].pinged.is_none()
    }

    fn fire(&mut self, conn: u32, alarm: Alarm, due: u64) {
        let now = self.now;
        if alarm == Alarm::Shutdown {
            let text = format!("the shutdown is not done at {now}");
            return self.fail("shutdown_ends_by_its_bound", None, text);
        }
        trace!(self, "#{conn} {alarm:?} was due at {due}");
        self.touch(conn);
        match alarm {
            Alarm::Heartbeat if self.of(conn).pinged.is_none() => self.heart_beats(conn),
            Alarm::Flush => self.flush_budget_over(conn),
            Alarm::Pause => self.pause_ends(conn),
            _ => {
                let text = format!("{alarm:?} was due at {due}, in {:?}", self.state(conn));
                self.fail("what_is_due_is_done", conn, text);
            }
        }
    }

    /// A heartbeat's Ping is sent.
    pub fn heart_beats(&mut self, conn: u32) {
        trace!(self, "#{conn} heart beats");
        // Deadlines go in slices: it may have been sent in an earlier turn, and nobody has told.
        let now = self.now;
        let earliest = self.due(conn, Alarm::Heartbeat).unwrap_or(now).min(self.turn.began);
        self.cover(conn, InputKind::HeartbeatIdle);
        let facts = self.of(conn);
        // Its silence has filled the bucket of its control frames.
        (facts.pinged, facts.bucket, facts.rested) = (Some(now), (0, 0), false);
        facts.uncertainty = now - earliest;
        self.busy(conn).pings_due += 1;
        self.set_heartbeat_alarm(conn);
    }

    /// What had not begun is dropped.
    pub fn flush_budget_over(&mut self, conn: u32) {
        trace!(self, "#{conn} flush budget is over");
        self.check_probe(conn, Alarm::Flush);
        self.cover(conn, InputKind::FlushBudget);
        let ahead = self.of(conn).ahead;
        let busy = self.busy(conn);
        (busy.pongs_dropped, busy.begun) = (true, ahead);
        let Some(ending) = &mut busy.ending else { return };
        (ending.flush_over, ending.none_begins) = (true, true);
        if std::mem::take(&mut ending.unanswered) {
            let received = ending.received.clone().unwrap_or_default();
            ending.sent = Some(Expected::Frame(answer_to(received.0, &received.1)));
        }
    }

    /// The kernel took less than it was offered, at `now`: the loop reads the clock for that. A stall begins, or goes on if the
    /// kernel took nothing.
    pub fn refused(&mut self, conn: u32, now: u64) {
        // Until the loop reads the clock again, everything happens at one moment.
        let loops = self.now;
        let facts = self.of(conn);
        if facts.progress == loops {
            facts.progress = now;
        }
        if facts.refused.is_none_or(|since| since == loops) && facts.failing.is_none() {
            facts.refused = Some(now);
            self.set_stall_alarm(conn);
        }
    }

    /// The kernel took all that it was offered: that is no stall, whatever is queued besides.
    pub fn took_all(&mut self, conn: u32) {
        self.of(conn).refused = None;
    }

    pub fn set_stall_alarm(&mut self, conn: u32) {
        if let Some(at) = self.due(conn, Alarm::Stall) {
            self.set_alarm(at, conn, Alarm::Stall);
        }
    }

    /// Nothing is queued: every Ping that was due is on the wire, and the newest of the peer's Pings is answered.
    pub fn check_control_frames(&mut self, conn: u32) {
        self.of(conn).may_beat = 0;
        let state = self.state(conn);
        let Some(busy) = &self.facts[conn as usize].busy else { return };
        let (pings, due) = (busy.pings, busy.pings_due);
        let open = state == Some(State::Open);
        let dropped = busy.pongs_dropped || self.is_due(conn, Alarm::Flush);
        let answers = matches!(state, Some(State::Open | State::LocalClosing)) && !dropped;
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
        if self.config.event_loop.max_handshakes.is_some() {
            let (half_open, limit) = self.half_open();
            ensure!(self, None, "handshakes_are_limited", half_open <= limit, "{half_open} of {limit}");
        }
    }
}
