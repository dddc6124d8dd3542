//! What the hub reports, compared with the facts.

use std::net::{IpAddr, SocketAddr};

use adjourn::{
    CloseFrame, ConnectionId, Event,
    clients::{State, Stats},
    close::Initiator,
    conn::InputKind,
    error::HandshakeError,
    shutdown::ShutdownPhase,
    stats::LoopStats,
};

use super::{
    alarms::Alarm,
    checker::{Checker, ensure, trace},
    facts::{Expected, Given},
    shutdowns::ShutdownFacts,
};

impl Checker {
    /// The connection with this address.
    pub fn at_address(peer: SocketAddr) -> u32 {
        match peer.ip() {
            IpAddr::V4(ip) => u32::from(ip) & 0x00ff_ffff,
            IpAddr::V6(ip) => (u128::from(ip) & 0x00ff_ffff) as u32,
        }
    }

    /// Compares an event with the facts, before the application hears of it. `conn` is the connection, if it is about
    /// one.
    pub fn event(&mut self, event: &Event<'_>, conn: Option<u32>) {
        if let Event::Message { message, closing, .. } = event {
            trace!(self, "{conn:?} event Message of {} bytes, closing: {closing}", message.len());
        } else {
            trace!(self, "{conn:?} event {event:?}");
        }
        self.calls += 1;
        self.turn.callbacks += 1;
        self.take_end(None);
        let Some(conn) = conn else { return self.server_event(event) };
        self.touch(conn);
        if let Some(given) = given(event) {
            self.delivered(conn, given);
        }
        let facts = self.of(conn);
        let (opened, closing, closed) = (facts.opened, facts.closing, facts.closed);
        ensure!(self, conn, "nothing_after_close", !closed, "{event:?}");
        let opening = matches!(event, Event::Open { .. });
        ensure!(self, conn, "open_comes_first_and_once", opened != opening, "{event:?}");
        match event {
            Event::Open { id } => self.opened(conn, *id),
            Event::Message { closing: marked, .. } => {
                ensure!(self, conn, "no_message_behind_closing", *marked || !closing, "after Closing");
            }
            Event::Closing { initiator, frame, .. } => {
                ensure!(self, conn, "one_closing", !closing, "{event:?}");
                self.of(conn).closing = true;
                self.closing(conn, *initiator, frame);
            }
            Event::Close { report: closed, .. } => self.closed(conn, closed),
            Event::Timer { .. } => self.timer_fired(conn, event),
            Event::Drain { .. } => {
                self.share(conn).drains += 1;
                (self.of(conn).owed, self.of(conn).awaits_room) = (false, None);
                let (drains, most) = (self.share(conn).drains, if self.turn.after_cut { 2 } else { 1 });
                ensure!(self, conn, "one_drain_per_turn", drains <= most, "{drains}");
                // Until it has answered the peer's Close, the application may send.
                let manual = self.ending_of(conn).is_some_and(|ending| ending.received.is_some());
                ensure!(self, conn, "no_drain_behind_closing", !closing || manual, "after Closing");
            }
            _ => {}
        }
        // What was under way before this callback does not wait for it.
        self.unarmed.clear();
        self.start_timers(0);
    }

    pub fn server_event(&mut self, event: &Event<'_>) {
        match event {
            Event::HandshakeFailed { peer, error: cause, .. } => {
                self.handshake_failed(Self::at_address(*peer), *cause);
            }
            Event::SweepDone { sweep, report } => {
                self.check_sweeps();
                self.sweep_done(sweep.as_u32(), report);
            }
            Event::Phase { phase, stats } => self.phase_begins(*phase, *stats),
            _ => {}
        }
    }

    pub fn opened(&mut self, conn: u32, id: ConnectionId) {
        self.cover(conn, InputKind::Upgrade);
        let now = self.now;
        self.opens += 1;
        let state = self.state(conn);
        ensure!(self, conn, "open_after_a_handshake", state == Some(State::Connecting), "{state:?}");
        let latched = match &self.shutdown {
            // A shutdown may have been asked for since it was accepted.
            Some(_) if self.facts[conn as usize].decided => self.phase >= ShutdownPhase::SoftSweep,
            Some(shutdown) => shutdown.refuses(self.phase),
            None => false,
        };
        ensure!(self, conn, "no_open_behind_the_latch", !latched, "in {:?}", self.phase);
        let failed = self.of(conn).failed;
        ensure!(self, conn, "open_or_failed", !failed, "HandshakeFailed was reported");
        let facts = self.of(conn);
        (facts.opened, facts.id) = (true, Some(id));
        (facts.state, facts.since) = (Some(State::Open), now);
        self.set_heartbeat_alarm(conn);
        // A part of the answer to its request may have been refused.
        self.set_stall_alarm(conn);
        if let Some((queued, at)) = self.of(conn).overflowed {
            self.overflowed(conn, queued);
            if let Some(ending) = self.ending(conn) {
                ending.uncertainty = now - at;
            }
        }
    }

    pub fn handshake_failed(&mut self, conn: u32, cause: HandshakeError) {
        trace!(self, "#{conn} HandshakeFailed({cause:?})");
        self.catch_up(conn);
        self.touch(conn);
        self.tally.failed_handshake(cause);
        let facts = self.of(conn);
        let (state, opened, failed, head, has_sent) =
            (facts.state, facts.opened, facts.failed, facts.head_done, facts.has_sent);
        facts.failed = true;
        ensure!(
            self,
            conn,
            "open_or_failed",
            !opened && !failed,
            "{cause:?}, opened: {opened}, failed: {failed}"
        );
        let gone = std::mem::take(&mut self.of(conn).gone_untold);
        let connecting = state == Some(State::Connecting) || gone;
        // What waits for the application's decision is cut as if its request were not complete.
        let cut = self.phase == ShutdownPhase::HardSweep && self.is_deferred(conn);
        let text = format!("{cause:?} in {state:?}, head complete: {head}, a byte seen: {has_sent}");
        match cause {
            HandshakeError::Timeout => {
                self.cover(conn, InputKind::HandshakeTimeout);
                if !self.is_deferred(conn) {
                    self.check_probe(conn, Alarm::Handshake);
                }
                let due = self.is_due(conn, Alarm::Handshake);
                ensure!(self, conn, "handshake_timeout", connecting && due, "{text}");
                self.begin_refusing(conn);
            }
            HandshakeError::BadRequest
            | HandshakeError::HeadTooLarge
            | HandshakeError::BadVersion
            | HandshakeError::Rejected => {
                self.cover(conn, InputKind::Refusal);
                ensure!(self, conn, "refused_for_its_request", connecting && has_sent, "{text}");
                self.begin_refusing(conn);
            }
            HandshakeError::PeerFin | HandshakeError::PeerReset | HandshakeError::Io(_) => {
                let due = self.failure_due.contains(&conn);
                ensure!(self, conn, "handshake_ended_by_the_peer", connecting && due, "{text}");
                self.of(conn).state = Some(State::Closed);
                self.release_due.push(conn);
            }
            HandshakeError::ShuttingDown if head && !cut => {
                self.cover(conn, InputKind::Refusal);
                // One that was cut short may have lost its lame duck before that began.
                let refuses = |shutdown: &ShutdownFacts| {
                    shutdown.refuses(self.phase) || self.phase == ShutdownPhase::Serving && shutdown.cut
                };
                let late = self.shutdown.as_ref().is_some_and(refuses);
                ensure!(self, conn, "503_in_a_shutdown", connecting && late, "{text}, {:?}", self.phase);
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.refused += 1;
                }
                self.begin_refusing(conn);
            }
            HandshakeError::ShuttingDown if state.is_none() => {
                let right = self.phase >= ShutdownPhase::SoftSweep;
                ensure!(self, conn, "cut_without_a_byte", right, "{text}, {:?}", self.phase);
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.cut_handshakes += 1;
                }
            }
            HandshakeError::ShuttingDown => {
                let hard = self.phase == ShutdownPhase::HardSweep;
                self.cover(conn, if hard { InputKind::HardSweep } else { InputKind::SweptSilent });
                let silent = self.phase >= ShutdownPhase::SoftSweep && (hard || !has_sent);
                ensure!(self, conn, "cut_without_a_byte", connecting && silent, "{text}, {:?}", self.phase);
                self.of(conn).state = Some(State::Closed);
                self.release_due.push(conn);
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.cut_handshakes += 1;
                }
            }
            HandshakeError::TooManyConnections { .. } if state.is_none() => {}
            HandshakeError::TooManyConnections { .. } if self.of(conn).turned_away => {
                self.cover(conn, InputKind::Refusal);
                self.begin_refusing(conn);
            }
            HandshakeError::TooManyConnections { .. } => {
                self.cover(conn, InputKind::Evicted);
                let (half_open, limit) = self.half_open();
                let many = half_open > limit || self.is_overfull() || self.evictions > 0;
                self.evictions = self.evictions.saturating_sub(1);
                let right = many && self.handshakes.first() == Some(&conn);
                ensure!(self, conn, "the_oldest_handshake_goes", right, "{text}, {half_open} of {limit}");
                self.of(conn).state = Some(State::Closed);
                self.release_due.push(conn);
            }
            _ => self.fail("known_causes", conn, text),
        }
        if gone {
            self.of(conn).state = None;
            self.release_due.retain(|due| *due != conn);
        }
    }

    pub fn closing(&mut self, conn: u32, initiator: Initiator, frame: &CloseFrame) {
        if self.ending_of(conn).is_none_or(|ending| ending.sent.is_none() && ending.received.is_none()) {
            self.explain_close(conn, frame);
        }
        let facts = &self.facts[conn as usize];
        let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
        let Some(ending) = ending else {
            return self.fail(
                "closing_has_a_reason",
                conn,
                format!("{initiator:?} {frame:?} in {:?}", facts.state),
            );
        };
        // When they have crossed, ours came first.
        let remote = ending.initiator == Initiator::Remote;
        let right = match (&ending.received, &ending.sent) {
            (Some((code, reason)), _) if remote => frame.code() == *code && frame.reason() == reason,
            (_, Some(Expected::Frame(sent))) => frame == sent,
            (_, Some(Expected::Code(code))) => frame.code() == Some(*code),
            _ => false,
        };
        let right = right && (initiator == Initiator::Remote) == remote && initiator != Initiator::Both;
        let text = format!("{initiator:?} {frame:?} instead of {:?} {:?}", ending.initiator, ending.sent);
        if matches!(self.state(conn), Some(State::RemoteClosing | State::Failing)) {
            // What it held was parsed.
            self.busy(conn).undo = None;
        }
        ensure!(self, conn, "closing_says_what_happened", right, "{text}");
    }

    // The shutdown.

    /// The world is over: nothing may be left.
    pub fn check_end(&mut self, LoopStats { connections, totals, .. }: &LoopStats, timeout: Option<u64>) {
        let empty = *connections == Stats::default();
        ensure!(self, None, "no_slot_lost", empty, "{connections:?}");
        let counted =
            (totals.opened + totals.opened_outgoing, totals.closed.total(), totals.durations.count());
        let seen = (self.opens, self.closes, self.closes);
        ensure!(
            self,
            None,
            "what_is_counted_was_reported",
            counted == seen,
            "{counted:?} instead of {seen:?}"
        );
        let by_code: u64 = totals.closed.by_code().map(|(_, count)| count).sum();
        ensure!(self, None, "each_ending_has_a_code", by_code == self.closes, "{totals:?}");
        ensure!(self, None, "no_deadline_left", timeout.is_none(), "{timeout:?}");
        let (opens, closes) = (self.opens, self.closes);
        ensure!(self, None, "one_close_per_open", opens == closes, "{opens} Open, {closes} Close");
        let open: Vec<_> = self.sweeps.iter().filter(|(_, sweep)| !sweep.done).map(|(id, _)| *id).collect();
        ensure!(self, None, "sweep_done_once", open.is_empty(), "sweeps {open:?} are not done");
        for conn in 0..u32::try_from(self.facts.len()).unwrap_or(u32::MAX) {
            let facts = &self.facts[conn as usize];
            if facts.opened != facts.closed || facts.state.is_some() {
                let text = format!("opened: {}, closed: {}, {:?}", facts.opened, facts.closed, facts.state);
                return self.fail("no_connection_left", conn, text);
            }
        }
    }
}

/// What of the peer's bytes the application is given by an event.
fn given<'a>(event: &'a Event<'_>) -> Option<Given<'a>> {
    Some(match event {
        Event::Message { message, closing, .. } => {
            Given::Message { text: message.is_text(), payload: message.as_bytes(), closing: *closing }
        }
        Event::Ping { payload, .. } => Given::Ping(payload),
        Event::Pong { payload, .. } => Given::Pong(payload),
        _ => return None,
    })
}
