//! The report of an ending, compared with the facts: the specification of endings, and the accounts.

use std::time::Duration;

use adjourn::{
    CloseReport,
    clients::State,
    close::{Cause, Initiator},
    conn::InputKind,
};

use super::{
    checker::{Checker, ensure},
    facts::{Ending, Expected},
};

impl Checker {
    pub fn closed(&mut self, conn: u32, closed: &CloseReport) {
        self.closes += 1;
        self.of(conn).closed = true;
        self.tally.closed(closed);
        self.search(conn);
        if !matches!(self.state(conn), Some(State::Lingering | State::Closed)) {
            self.catch_up(conn);
        }
        if !matches!(self.state(conn), Some(State::Lingering | State::Closed)) {
            self.give_up(conn);
        }
        let by_input = |cause, received: bool| {
            received || matches!(cause, Cause::Protocol(_) | Cause::TooBig { .. } | Cause::InvalidUtf8)
        };
        let told = by_input(closed.cause, closed.received.is_some());
        let known =
            self.ending_of(conn).is_some_and(|ending| by_input(ending.cause, ending.received.is_some()));
        match (known, told) {
            (false, true) => self.undo_abort(conn),
            (true, false) => self.undo_parsing(conn),
            _ => {}
        }
        let state = self.state(conn);
        let due = matches!(state, Some(State::Lingering | State::Closed));
        ensure!(self, conn, "close_has_a_reason", due, "{closed:?} in {state:?}");
        if let Some(ending) = &mut self.busy(conn).ending
            && ending.or_causes.contains(&closed.cause)
        {
            ending.cause = closed.cause;
            match closed.cause {
                Cause::Crossed => ending.initiator = Initiator::Both,
                Cause::HeartbeatTimeout | Cause::WriteStall | Cause::ShutdownHard
                    if ending.initiator == Initiator::Transport =>
                {
                    ending.initiator = Initiator::Local;
                }
                _ => {}
            }
            if let (Cause::ShutdownHard, Some(state)) = (closed.cause, ending.aborted_in) {
                self.tally.cover(state, InputKind::HardSweep);
            }
        }
        // The automatic answer may have been queued before something else ended it.
        let unanswered = self.ending_of(conn).is_some_and(|ending| ending.unanswered);
        if unanswered && closed.sent.is_some() && self.flush_was_due(conn) {
            self.flush_budget_over(conn);
        }
        self.check_table(conn, closed);
        self.check_account(conn, closed);
        self.check_inbound(conn, closed);
        self.count_ending(conn, closed);
        let facts = self.of(conn);
        facts.paused = false;
        facts.refused = None;
        facts.timers.clear();
        facts.busy = None;
    }

    /// the specification of endings, from what the wire saw.
    pub fn check_table(&mut self, conn: u32, closed: &CloseReport) {
        let facts = &self.facts[conn as usize];
        let Some(ending) = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref()) else { return };
        let received = closed.received.as_ref().map(|frame| (frame.code(), frame.reason().to_owned()));
        let flushed = facts.close_done;
        let (sent_right, sent_code) = match (&ending.sent, &closed.sent) {
            (None, None) => (true, None),
            (Some(Expected::Frame(expected)), Some(sent)) => (expected == sent, Some(sent.code_or_1005())),
            (Some(Expected::Code(code)), Some(sent)) => (sent.code() == Some(*code), Some(*code)),
            _ => (false, None),
        };
        let code = ending.received.as_ref().map_or(1006, |(code, _)| code.unwrap_or(1005));
        let effective = match (&ending.received, ending.initiator, sent_code) {
            (Some(_), _, _) => code,
            (None, Initiator::Local, Some(sent)) => sent,
            _ => 1006,
        };
        let clean = ending.received.is_some() && flushed;
        let cause = ending.cause.name();
        let same_cause = closed.cause.name() == cause
            && match (closed.cause, ending.cause) {
                (Cause::CloseTimeout { flushed: a }, Cause::CloseTimeout { flushed: b }) => a == b,
                (Cause::Overflow { queued: a }, Cause::Overflow { queued: b }) => a == b,
                _ => true,
            };
        let had_close = closed.sent.is_some() || closed.received.is_some();
        let ended = ending.ended.unwrap_or(self.now);
        let phase = if had_close { Duration::from_micros(ended - ending.began) } else { Duration::ZERO };
        let uncertainty = if had_close { Duration::from_micros(ending.uncertainty) } else { Duration::ZERO };
        let early = Duration::from_micros(ending.early);
        let phase_right = (phase.saturating_sub(early)..=phase + uncertainty).contains(&closed.close_phase);
        let text = format!("{closed:?}; expected {ending:?}, flushed: {flushed}");
        ensure!(self, conn, "close_sent", sent_right, "{text}");
        ensure!(self, conn, "close_sent_flushed", closed.sent_flushed == flushed, "{text}");
        ensure!(self, conn, "close_received", received == self.received(conn), "{text}");
        ensure!(self, conn, "close_code", closed.code() == code, "{text}");
        ensure!(
            self,
            conn,
            "close_effective_code",
            closed.effective_code() == effective,
            "{effective}; {text}"
        );
        ensure!(self, conn, "close_was_clean", closed.was_clean() == clean, "{text}");
        let initiator = self.ending_of(conn).map(|ending| ending.initiator);
        ensure!(self, conn, "close_initiator", Some(closed.initiator) == initiator, "{text}");
        ensure!(self, conn, "close_cause", same_cause, "{cause}; {text}");
        ensure!(self, conn, "close_phase", phase_right, "{phase:?}; {text}");
        let by_fin = matches!(closed.cause, Cause::PeerFin | Cause::PeerFinDuringClose);
        let truncated = self.of(conn).truncated;
        let right = if by_fin { closed.truncated() == truncated } else { truncated || !closed.truncated() };
        ensure!(self, conn, "truncation_is_told", right, "truncated: {truncated}; {text}");
        let closing = self.of(conn).closing;
        ensure!(self, conn, "closing_before_close", closing == had_close, "Closing: {closing}; {text}");
    }

    pub fn ending_of(&self, conn: u32) -> Option<&Ending> {
        self.facts[conn as usize].busy.as_ref()?.ending.as_ref()
    }

    pub fn received(&self, conn: u32) -> Option<(Option<u16>, String)> {
        self.ending_of(conn)?.received.clone()
    }

    /// Accepted by `send` = wholly handed to the kernel + `messages` + `partial`, in messages and in bytes.
    pub fn check_account(&mut self, conn: u32, closed: &CloseReport) {
        let facts = &self.facts[conn as usize];
        let Some(busy) = &facts.busy else { return };
        let lost = &closed.lost;
        let text = format!(
            "accepted {} ({} bytes), handed {} ({} bytes), {lost:?}",
            busy.accepted, busy.accepted_bytes, busy.handed, busy.handed_bytes
        );
        let cut = facts.wire.cut_data();
        let partial = u64::from(cut.is_some());
        let missing = (busy.accepted - busy.handed).saturating_sub(partial);
        let missing_bytes = busy.accepted_bytes - busy.handed_bytes;
        // How long the others of a connection that compresses are on the wire, nobody knows.
        let compresses = facts.wire.agreed().is_some();
        let bytes_right = match cut {
            _ if compresses => lost.bytes <= missing_bytes && (lost.messages > 0 || lost.bytes == 0),
            None => lost.bytes == missing_bytes,
            Some(Some(length)) => lost.bytes + length == missing_bytes,
            // Not even its header is whole: it is one of those that are missing.
            Some(None) => busy.queued.iter().any(|(_, length)| lost.bytes + length == missing_bytes),
        };
        ensure!(self, conn, "conservation_partial", lost.partial == partial, "{text}, cut: {cut:?}");
        ensure!(self, conn, "conservation", lost.messages == missing, "{text}, cut: {cut:?}");
        ensure!(self, conn, "conservation_of_bytes", bytes_right, "{text}, cut: {cut:?}");
    }

    /// What came in and was not delivered is counted.
    pub fn check_inbound(&mut self, conn: u32, closed: &CloseReport) {
        let Some(ending) = self.ending_of(conn) else { return };
        let lost = &closed.lost;
        let text = format!(
            "{lost:?}; expected {} messages, {} bytes, partial {:?}, trailing {:?}",
            ending.lost_in, ending.lost_in_bytes, ending.partial_in, ending.trailing
        );
        let counted = (lost.inbound_messages, lost.inbound_bytes);
        let (more, more_bytes) = ending.or_lost_in;
        let messages = counted == (ending.lost_in, ending.lost_in_bytes)
            || counted == (ending.lost_in + more, ending.lost_in_bytes + more_bytes);
        let (least, most) = ending.partial_in;
        let partial = (least..=most).contains(&lost.inbound_partial_bytes);
        let trailing = (ending.trailing.0..=ending.trailing.1).contains(&lost.trailing_bytes);
        let unsent = lost.kernel_unsent == ending.unsent;
        ensure!(self, conn, "inbound_lost", messages, "{text}");
        ensure!(self, conn, "inbound_partial", partial, "{text}");
        ensure!(self, conn, "inbound_trailing", trailing, "{text}");
        ensure!(self, conn, "kernel_unsent", unsent, "{text}");
    }

    pub fn count_ending(&mut self, conn: u32, closed: &CloseReport) {
        let sweeps = self.ending_of(conn).map(|ending| ending.sweeps.clone()).unwrap_or_default();
        for sweep in sweeps {
            if let Some(checker) = self.sweeps.get_mut(&sweep) {
                checker.ended += 1;
                checker.clean += u64::from(closed.was_clean());
                checker.timed_out += u64::from(matches!(closed.cause, Cause::CloseTimeout { .. }));
                checker.lost.add(&closed.lost);
            }
        }
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.ended += 1;
            shutdown.lost.add(&closed.lost);
            shutdown.longest = shutdown.longest.max(closed.close_phase);
            let group = match closed.cause.name() {
                "LocalClose" | "Kicked" | "ShutdownSoft" | "Crossed" => 0,
                "PeerClose" | "PeerFin" | "PeerFinDuringClose" | "PeerReset" | "PeerResetDuringClose" => 1,
                "CloseTimeout" => 2,
                "Terminated" | "ShutdownHard" => 3,
                _ => 4,
            };
            shutdown.groups[group] += 1;
        }
    }
}
