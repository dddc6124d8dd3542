//! What the hub reports, compared with the facts.

use std::time::Duration;

use adjourn::{
    Abort, Cause, CloseFrame, Closed, ConnectionId, Event, HandshakeCause, Initiator, LameDuckPolicy, Lost,
    Pace, Phase, ShutdownPlan, ShutdownReport, State, Stats, SweepReport, Timing, conn::Input,
};

use crate::{
    alarms::{Alarm, SERVER},
    book::{Book, Expected, after, ensure, trace},
};

/// How long a shutdown may take beyond its plan.
const TOLERANCE: u64 = 250_000;

/// A shutdown that was asked for.
#[derive(Debug)]
pub struct ShutdownBook {
    pub plan: ShutdownPlan,
    pub asked: u64,
    /// How late turns had been until then.
    pub late: u64,
    /// When it must be done.
    pub bound: u64,
    pub done: bool,
    /// A second one, an escalation or an abort came.
    pub cut: bool,
    pub phases: Vec<(Phase, u64)>,
    /// Established connections when it was asked for, and `Open` events until then.
    pub live: u64,
    pub opens: u64,
    /// Since then.
    pub ended: u64,
    pub groups: [u64; 5],
    pub lost: Lost,
    pub longest: Duration,
    pub refused: u64,
    /// Handshakes that were cut.
    pub cut_handshakes: u64,
}

impl Book {
    /// The connection with this address.
    pub fn at_address(peer: std::net::SocketAddr) -> u32 {
        match peer.ip() {
            std::net::IpAddr::V4(ip) => u32::from(ip) & 0x00ff_ffff,
            std::net::IpAddr::V6(ip) => (u128::from(ip) & 0x00ff_ffff) as u32,
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
        let Some(conn) = conn else { return self.server_event(event) };
        self.touch(conn);
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
            Event::Close { closed, .. } => self.closed(conn, closed),
            Event::Drain { .. } => {
                ensure!(self, conn, "no_drain_behind_closing", !closing, "after Closing");
            }
            _ => {}
        }
    }

    fn server_event(&mut self, event: &Event<'_>) {
        match event {
            Event::HandshakeFailed { peer, cause, .. } => {
                self.handshake_failed(Self::at_address(*peer), *cause)
            }
            Event::SweepDone { sweep, report } => self.sweep_done(sweep.as_u32(), report),
            Event::Phase { phase, stats } => self.phase_begins(*phase, *stats),
            _ => {}
        }
    }

    fn opened(&mut self, conn: u32, id: ConnectionId) {
        self.cover(conn, Input::Upgrade);
        let now = self.now;
        self.opens += 1;
        let state = self.state(conn);
        ensure!(self, conn, "open_after_a_handshake", state == Some(State::Connecting), "{state:?}");
        let refuses = |shutdown: &ShutdownBook| shutdown.plan.listeners == LameDuckPolicy::Refuse;
        let lame = self.phase == Phase::LameDuck && self.shutdown.as_ref().is_some_and(refuses);
        let latched = self.phase >= Phase::SoftSweep || lame;
        ensure!(self, conn, "no_open_behind_the_latch", !latched, "in {:?}", self.phase);
        let failed = self.of(conn).failed;
        ensure!(self, conn, "open_or_failed", !failed, "HandshakeFailed was reported");
        let facts = self.of(conn);
        (facts.opened, facts.id) = (true, Some(id));
        (facts.state, facts.since) = (Some(State::Open), now);
        self.set_heartbeat_alarm(conn);
    }

    fn handshake_failed(&mut self, conn: u32, cause: HandshakeCause) {
        trace!(self, "#{conn} HandshakeFailed({cause:?})");
        self.touch(conn);
        self.tally.failed_handshake(cause);
        let facts = self.of(conn);
        let (state, opened, failed, head, spoke) =
            (facts.state, facts.opened, facts.failed, facts.head_done, facts.spoke);
        facts.failed = true;
        ensure!(
            self,
            conn,
            "open_or_failed",
            !opened && !failed,
            "{cause:?}, opened: {opened}, failed: {failed}"
        );
        let connecting = state == Some(State::Connecting);
        let text = format!("{cause:?} in {state:?}, head complete: {head}, a byte seen: {spoke}");
        match cause {
            HandshakeCause::Timeout => {
                let due = self.failure_due.contains(&conn);
                ensure!(self, conn, "handshake_timeout", connecting && due, "{text}");
                self.begin_refusing(conn);
            }
            HandshakeCause::BadRequest
            | HandshakeCause::HeadTooLarge
            | HandshakeCause::BadVersion
            | HandshakeCause::Rejected => {
                self.cover(conn, Input::Refusal);
                ensure!(self, conn, "refused_for_its_request", connecting && spoke, "{text}");
                self.begin_refusing(conn);
            }
            HandshakeCause::PeerFin | HandshakeCause::PeerReset | HandshakeCause::Io(_) => {
                let due = self.failure_due.contains(&conn);
                ensure!(self, conn, "handshake_ended_by_the_peer", connecting && due, "{text}");
                self.of(conn).state = Some(State::Closed);
                self.release_due.push(conn);
            }
            HandshakeCause::ShuttingDown if head => {
                self.cover(conn, Input::Refusal);
                let serves = |shutdown: &ShutdownBook| shutdown.plan.listeners == LameDuckPolicy::Serve;
                let lame = self.phase == Phase::LameDuck && !self.shutdown.as_ref().is_some_and(serves);
                let late = self.phase >= Phase::SoftSweep || lame;
                ensure!(self, conn, "503_in_a_shutdown", connecting && late, "{text}, {:?}", self.phase);
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.refused += 1;
                }
                self.begin_refusing(conn);
            }
            HandshakeCause::ShuttingDown => {
                let hard = self.phase == Phase::HardSweep;
                self.cover(conn, if hard { Input::HardSweep } else { Input::SweptSilent });
                let silent = self.phase >= Phase::SoftSweep && (hard || !spoke);
                ensure!(self, conn, "cut_without_a_byte", connecting && silent, "{text}, {:?}", self.phase);
                self.of(conn).state = Some(State::Closed);
                self.release_due.push(conn);
                if let Some(shutdown) = &mut self.shutdown {
                    shutdown.cut_handshakes += 1;
                }
            }
            HandshakeCause::TooManyConnections => {
                ensure!(self, conn, "too_many_connections", state.is_none(), "{text}");
            }
            _ => self.fail("known_causes", conn, text),
        }
    }

    fn closing(&mut self, conn: u32, initiator: Initiator, frame: &CloseFrame) {
        // Sweeps choose the moment; so here, and only here, the hub is believed.
        if initiator == Initiator::Local {
            match self.state(conn) {
                Some(State::Open) => {
                    self.swept(conn, frame);
                    self.forget_flush_budget_of_a_slice(conn);
                }
                // By one sweep closed and by the next terminated, before the first was heard of.
                Some(State::Closed) => self.swept_and_terminated(conn, frame),
                _ => {}
            }
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
        ensure!(self, conn, "closing_says_what_happened", right, "{text}");
    }

    fn swept(&mut self, conn: u32, frame: &CloseFrame) {
        if let Some(&sweep) = self.sweep_frames.get(frame.reason()) {
            self.cover(conn, Input::Close);
            self.begin_local(conn, Cause::LocalClose, frame.clone(), Timing::default());
            return self.join_sweep(conn, sweep);
        }
        let soft = self.shutdown.as_ref().is_some_and(|shutdown| shutdown.plan.frame == *frame);
        if soft && self.phase >= Phase::SoftSweep {
            self.cover(conn, Input::Close);
            self.begin_local(conn, Cause::ShutdownSoft, frame.clone(), Timing::default());
        }
    }

    /// A budget of nothing may be over already, by the next slice of the turn's deadlines.
    fn forget_flush_budget_of_a_slice(&mut self, conn: u32) {
        let now = self.now;
        if self.sliced == now
            && let Some(ending) =
                self.busy(conn).ending.as_mut().filter(|ending| ending.flush_deadline <= now)
        {
            ending.flush_deadline = u64::MAX;
            self.busy(conn).pongs_dropped = true;
        }
    }

    fn swept_and_terminated(&mut self, conn: u32, frame: &CloseFrame) {
        let now = self.now;
        let soft = self.shutdown.as_ref().is_some_and(|shutdown| shutdown.plan.frame == *frame);
        let sweep = self.sweep_frames.get(frame.reason()).copied();
        let ending = self.busy(conn).ending.as_mut();
        let Some(ending) = ending.filter(|ending| ending.began == now && ending.sent.is_none()) else {
            return;
        };
        if soft || sweep.is_some() {
            ending.sent = Some(Expected::Frame(frame.clone()));
        }
        if let Some(sweep) = sweep {
            self.join_sweep(conn, sweep);
        }
    }

    fn join_sweep(&mut self, conn: u32, sweep: u32) {
        if let Some(ending) = &mut self.busy(conn).ending {
            ending.sweeps.push(sweep);
        }
        if let Some(book) = self.sweeps.get_mut(&sweep) {
            book.told += 1;
        }
    }

    /// The hub has just looked at its sweeps: those whom a `terminate_where` chose end in this turn.
    pub fn check_sweeps(&mut self) {
        let mut ended = Vec::new();
        for (id, sweep) in &mut self.sweeps {
            let chosen = sweep.chosen.borrow();
            let fresh = chosen.get(sweep.seen..).unwrap_or_default().to_vec();
            sweep.seen = chosen.len();
            ended.extend(fresh.into_iter().map(|conn| (*id, sweep.terminates, sweep.began, conn)));
        }
        ended.sort_unstable();
        for (sweep, terminates, began, conn) in ended {
            let opened = self.of(conn).since;
            ensure!(self, conn, "sweeps_know_no_later_ones", opened <= began, "sweep {sweep} chose it");
            if terminates {
                self.cover(conn, Input::Terminate);
                self.abort(conn, Cause::Terminated, Initiator::Local, Some(self.config.terminate));
                self.join_sweep(conn, sweep);
            }
        }
    }

    fn closed(&mut self, conn: u32, closed: &Closed) {
        self.closes += 1;
        self.of(conn).closed = true;
        self.tally.closed(closed);
        let state = self.state(conn);
        let due = matches!(state, Some(State::Lingering | State::Closed));
        ensure!(self, conn, "close_has_a_reason", due, "{closed:?} in {state:?}");
        self.check_table(conn, closed);
        self.check_account(conn, closed);
        self.check_inbound(conn, closed);
        self.count_ending(conn, closed);
        let facts = self.of(conn);
        facts.paused = false;
        facts.behind = None;
        facts.busy = None;
    }

    /// CLOSING.md §5, from what the wire saw.
    fn check_table(&mut self, conn: u32, closed: &Closed) {
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
        let phase = if had_close { Duration::from_micros(self.now - ending.began) } else { Duration::ZERO };
        let text = format!("{closed:?}; by the book {ending:?}, flushed: {flushed}");
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
        ensure!(self, conn, "close_phase", closed.close_phase == phase, "{phase:?}; {text}");
        let closing = self.of(conn).closing;
        ensure!(self, conn, "closing_before_close", closing == had_close, "Closing: {closing}; {text}");
    }

    fn ending_of(&self, conn: u32) -> Option<&crate::book::Ending> {
        self.facts[conn as usize].busy.as_ref()?.ending.as_ref()
    }

    fn received(&self, conn: u32) -> Option<(Option<u16>, String)> {
        self.ending_of(conn)?.received.clone()
    }

    /// Accepted by `send` = wholly handed to the kernel + `messages` + `partial`, in messages and in bytes.
    fn check_account(&mut self, conn: u32, closed: &Closed) {
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
        let bytes_right = match cut {
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
    fn check_inbound(&mut self, conn: u32, closed: &Closed) {
        let Some(ending) = self.ending_of(conn) else { return };
        let lost = &closed.lost;
        let text = format!(
            "{lost:?}; by the book {} messages, {} bytes, partial {:?}, trailing {:?}",
            ending.lost_in, ending.lost_in_bytes, ending.partial_in, ending.trailing
        );
        let messages = (lost.inbound_messages, lost.inbound_bytes) == (ending.lost_in, ending.lost_in_bytes);
        let partial = (ending.partial_in.0..=ending.partial_in.1).contains(&lost.inbound_partial_bytes);
        let trailing = (ending.trailing.0..=ending.trailing.1).contains(&lost.trailing_bytes);
        let unsent = lost.kernel_unsent == ending.unsent;
        ensure!(self, conn, "inbound_lost", messages, "{text}");
        ensure!(self, conn, "inbound_partial", partial, "{text}");
        ensure!(self, conn, "inbound_trailing", trailing, "{text}");
        ensure!(self, conn, "kernel_unsent", unsent, "{text}");
    }

    fn count_ending(&mut self, conn: u32, closed: &Closed) {
        let sweeps = self.ending_of(conn).map(|ending| ending.sweeps.clone()).unwrap_or_default();
        for sweep in sweeps {
            if let Some(book) = self.sweeps.get_mut(&sweep) {
                book.ended += 1;
                book.clean += u64::from(closed.was_clean());
                book.timed_out += u64::from(matches!(closed.cause, Cause::CloseTimeout { .. }));
                book.lost.add(&closed.lost);
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

    fn sweep_done(&mut self, id: u32, report: &SweepReport) {
        trace!(self, "sweep {id} is done: {report:?}");
        let Some(sweep) = self.sweeps.get_mut(&id) else {
            return self.fail("sweep_done_once", None, format!("sweep {id} is not known"));
        };
        let before = std::mem::replace(&mut sweep.done, true);
        let (began, terminates, rest) = (sweep.began, sweep.terminates, sweep.rest);
        let right = report.matched == sweep.told
            && sweep.ended == sweep.told
            && (report.clean, report.timed_out, report.lost) == (sweep.clean, sweep.timed_out, sweep.lost);
        let text = format!("{report:?} instead of {sweep:?}");
        ensure!(self, None, "sweep_done_once", !before, "sweep {id}");
        ensure!(self, None, "sweep_report", right, "{text}");
        let Some((of, rest)) = rest else { return };
        let missed = self.facts.iter().zip(0_u32..).find(|(facts, conn)| {
            let meant =
                facts.state.is_some_and(|state| state == State::Open || terminates && state.is_closing());
            conn % of == rest && meant && facts.since < began
        });
        let missed = missed.map(|(_, conn)| conn);
        ensure!(self, missed, "sweeps_miss_nobody", missed.is_none(), "sweep {id}");
    }

    // The shutdown.

    /// `shutdown` was called.
    pub fn called_shutdown(&mut self, plan: &ShutdownPlan) {
        let now = self.now;
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.cut = true;
            return;
        }
        trace!(self, "shutdown by {plan:?}");
        let lame_duck = after(now, plan.lame_duck);
        // How many there are is known when the sweep begins; a rate's bound is set then.
        let paced = match plan.pace {
            Pace::AtOnce => Some(Duration::ZERO),
            Pace::Spread(over) => Some(over),
            Pace::Rate(_) => None,
        };
        let bound = paced.map_or(u64::MAX, |paced| after(after(lame_duck, paced), plan.grace) + TOLERANCE);
        self.shutdown = Some(ShutdownBook {
            plan: plan.clone(),
            asked: now,
            late: self.late,
            bound,
            done: false,
            cut: false,
            phases: Vec::new(),
            live: self.opens - self.closes,
            opens: self.opens,
            ended: 0,
            groups: [0; 5],
            lost: Lost::default(),
            longest: Duration::ZERO,
            refused: 0,
            cut_handshakes: 0,
        });
        self.set_alarm(bound, SERVER, Alarm::Shutdown);
    }

    fn phase_begins(&mut self, phase: Phase, stats: Stats) {
        let (now, before) = (self.now, self.phase);
        trace!(self, "{phase:?} begins: {stats:?}");
        ensure!(self, None, "phases_in_order", phase > before, "{phase:?} after {before:?}");
        self.phase = phase;
        let live = self.opens - self.closes;
        let Some(shutdown) = &mut self.shutdown else {
            return self.fail("phases_in_order", None, format!("{phase:?} without a shutdown"));
        };
        shutdown.phases.push((phase, now));
        if phase >= Phase::SoftSweep && shutdown.bound == u64::MAX {
            let Pace::Rate(rate) = shutdown.plan.pace else { return };
            let paced = Duration::try_from_secs_f64(live as f64 / rate).unwrap_or(Duration::MAX);
            shutdown.bound = after(after(now, paced), shutdown.plan.grace) + TOLERANCE;
            let bound = shutdown.bound;
            self.set_alarm(bound, SERVER, Alarm::Shutdown);
        }
        if phase == Phase::Grace {
            self.check_soft_sweep();
        }
        if phase == Phase::Done {
            ensure!(self, None, "every_close_before_done", live == 0, "{live} are open");
            let open: Vec<_> =
                self.sweeps.iter().filter(|(_, sweep)| !sweep.done).map(|(id, _)| *id).collect();
            ensure!(self, None, "every_sweep_before_done", open.is_empty(), "sweeps {open:?} are not done");
            let empty = stats == Stats::default();
            ensure!(self, None, "nobody_left_when_done", empty, "{stats:?}");
            if let Some(shutdown) = &mut self.shutdown {
                shutdown.done = true;
            }
        }
    }

    /// Every Close of the soft sweep is queued: nobody may be open, or connecting without a byte.
    fn check_soft_sweep(&mut self) {
        let missed = self.facts.iter().position(|facts| match facts.state {
            Some(State::Open) => true,
            Some(State::Connecting) => !facts.spoke,
            _ => false,
        });
        let missed = missed.and_then(|conn| u32::try_from(conn).ok());
        let state = missed.and_then(|conn| self.state(conn));
        ensure!(self, missed, "soft_sweep_misses_nobody", missed.is_none(), "{state:?}");
    }

    /// The shutdown is complete: does its report add up?
    pub fn check_shutdown_report(&mut self, report: &ShutdownReport) {
        trace!(self, "{report:?}");
        self.tally.shutdown(report);
        let Some(shutdown) = &self.shutdown else {
            return self.fail("shutdown_report", None, "of no shutdown".into());
        };
        let groups = [report.clean, report.by_peer, report.timed_out, report.terminated, report.failed];
        let text = format!("{report:?}\n  by the book {shutdown:?}");
        let ended = report.ended() == shutdown.ended && groups == shutdown.groups;
        let late = self.opens - shutdown.opens;
        let live = report.live_at_start == shutdown.live && shutdown.live + late == shutdown.ended;
        let phases: Duration = report.phases.iter().map(|phase| phase.length).sum();
        let mut gaps = report.phases.windows(2);
        let no_gaps = gaps.all(|pair| pair[0].start + pair[0].length == pair[1].start);
        let first = report.phases.first().map_or(report.took, |phase| phase.start);
        let names: Vec<_> = report.phases.iter().map(|phase| phase.phase).collect();
        let seen: Vec<_> =
            shutdown.phases.iter().map(|phase| phase.0).filter(|phase| *phase != Phase::Done).collect();
        let histogram = report.close_phases.iter().sum::<u64>() == report.ended();
        let slowest = report.slowest.len() as u64 == report.ended().min(10)
            && report.slowest.is_sorted_by(|a, b| a.close_phase >= b.close_phase)
            && report.slowest.first().is_none_or(|slow| slow.close_phase == shutdown.longest);
        let took = report.took == Duration::from_micros(self.now - shutdown.asked);
        let cut = report.escalated_by.is_none() || shutdown.cut;
        let lost = report.lost == shutdown.lost;
        let refused = report.refused_503 == shutdown.refused;
        let handshakes = report.handshakes_cut == shutdown.cut_handshakes;
        ensure!(self, None, "report_counts_every_ending", ended, "{text}");
        ensure!(self, None, "report_live_at_start", live, "{text}");
        ensure!(
            self,
            None,
            "report_phases",
            no_gaps && names == seen && first + phases == report.took,
            "{text}"
        );
        ensure!(self, None, "report_histogram", histogram, "{text}");
        ensure!(self, None, "report_slowest", slowest, "{text}");
        ensure!(self, None, "report_took", took, "{text}");
        ensure!(self, None, "report_escalation", cut, "{text}");
        ensure!(self, None, "report_lost", lost, "{text}");
        ensure!(self, None, "report_refused", refused, "{text}");
        ensure!(self, None, "report_handshakes_cut", handshakes, "{text}");
    }

    /// The world is over: nothing may be left.
    pub fn check_end(&mut self, stats: Stats, timeout: Option<u64>) {
        let empty = stats == Stats::default();
        ensure!(self, None, "no_slot_lost", empty, "{stats:?}");
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

    /// FIN is sent: behind whole frames, and behind a Close or an HTTP answer.
    pub fn sent_fin(&mut self, conn: u32) {
        if self.state(conn) == Some(State::Refusing) {
            self.cover(conn, Input::Flushed);
            self.of(conn).state = Some(State::Lingering);
        }
        let facts = &self.facts[conn as usize];
        // Behind an abort by FIN it comes once more.
        // A Pong behind the Close may be cut: nobody parses it.
        let whole = facts.wire.at_boundary() || facts.aborted || facts.close_done;
        let after_close = facts.close_done || !facts.opened || facts.aborted;
        ensure!(self, conn, "fin_behind_whole_frames", whole, "a frame is cut");
        ensure!(self, conn, "fin_behind_a_close", after_close, "without a Close");
    }

    /// The hub wants the connection aborted in this style.
    pub fn aborted(&mut self, conn: u32, style: Abort, unsent: Option<u32>) {
        let state = self.state(conn);
        let now = self.now;
        // A deadline that was over when it was set is due in this turn or in the next.
        let over = self.ending_of(conn).is_some_and(|ending| ending.deadline <= now + 1);
        if over && state.is_some_and(State::is_closing) {
            self.close_timed_out(conn);
        } else if state != Some(State::Closed) {
            let hard = self.phase == Phase::HardSweep && state.is_some_and(State::is_established);
            ensure!(self, conn, "abort_has_a_reason", hard, "in {state:?}, {:?}", self.phase);
            self.cover(conn, Input::HardSweep);
            let asked = self.shutdown.as_ref().and_then(|shutdown| shutdown.plan.abort);
            self.abort(conn, Cause::ShutdownHard, Initiator::Local, asked.or(Some(self.config.abort)));
        }
        let asked = self.ending_of(conn).and_then(|ending| ending.style);
        if let None | Some(Abort::Auto) = asked {
            let cut = !self.facts[conn as usize].wire.at_boundary();
            let fin = style == Abort::Fin;
            ensure!(self, conn, "no_fin_behind_a_cut_frame", !(fin && cut), "{style:?}");
        } else {
            ensure!(self, conn, "abort_style", asked == Some(style), "{style:?} instead of {asked:?}");
        }
        self.of(conn).aborted = true;
        if let Some(ending) = &mut self.busy(conn).ending {
            ending.unsent = unsent;
        }
    }

    /// It was aborted by FIN: its descriptor waits for the peer's.
    pub fn lingers(&mut self, conn: u32) {
        self.cover(conn, Input::AbortedByFin);
        let now = self.now;
        let facts = self.of(conn);
        if facts.eof {
            return self.release_due.push(conn);
        }
        (facts.state, facts.since) = (Some(State::Lingering), now);
        let at = after(now, self.config.linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    /// The slot is free.
    pub fn released(&mut self, conn: u32) {
        trace!(self, "#{conn} is released in {:?}", self.state(conn));
        if self.phase == Phase::HardSweep && !self.release_due.contains(&conn) {
            self.cover(conn, Input::HardSweep);
        }
        let facts = self.of(conn);
        facts.state = None;
        facts.busy = None;
        let (opened, closed) = (facts.opened, facts.closed);
        ensure!(self, conn, "released_after_close", opened == closed, "opened: {opened}, closed: {closed}");
    }
}
