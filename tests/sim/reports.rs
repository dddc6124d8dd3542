//! What the hub reports, compared with the facts.

use std::time::Duration;

use adjourn::{
    Abort, Cause, CloseFrame, Closed, ConnectionId, Event, HandshakeCause, Initiator, Lost, Pace, Phase, ShutdownPlan,
    ShutdownReport, State, Stats, SweepReport, Timing, conn::Input,
};

use crate::{
    alarms::{Alarm, SERVER},
    book::{Book, Expected, after, ensure, payload_of, trace},
};

/// How long a shutdown may take beyond its plan.
const TOLERANCE: u64 = 250_000;

/// A shutdown that was asked for.
#[derive(Debug)]
pub struct ShutdownBook {
    pub plan: ShutdownPlan,
    pub asked: u64,
    /// When it must be done.
    pub bound: u64,
    pub done: bool,
    /// A second one, an escalation or an abort came.
    pub cut: bool,
    pub phases: Vec<(Phase, u64)>,
    /// Since the soft sweep began.
    pub ended: u64,
    pub live: Option<u64>,
    pub groups: [u64; 5],
    pub lost: Lost,
    pub longest: Duration,
    pub refused: u64,
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
        if !matches!(event, Event::Message { .. }) {
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
            Event::HandshakeFailed { peer, cause } => self.handshake_failed(Self::at_address(*peer), *cause),
            Event::SweepDone { sweep, report } => self.sweep_done(sweep.as_u32(), report),
            Event::Phase { phase, stats } => self.phase_begins(*phase, *stats),
            _ => {}
        }
    }

    fn opened(&mut self, conn: u32, id: ConnectionId) {
        self.cover(conn, Input::Upgrade);
        let (now, order) = (self.now, self.opens);
        self.opens += 1;
        let state = self.state(conn);
        ensure!(self, conn, "open_after_a_handshake", state == Some(State::Connecting), "{state:?}");
        let latched = self.phase >= Phase::SoftSweep;
        ensure!(self, conn, "no_open_behind_the_latch", !latched, "in {:?}", self.phase);
        let failed = self.of(conn).failed;
        ensure!(self, conn, "open_or_failed", !failed, "HandshakeFailed was reported");
        let facts = self.of(conn);
        (facts.opened, facts.id, facts.order) = (true, Some(id), order);
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
        ensure!(self, conn, "open_or_failed", !opened && !failed, "{cause:?}, opened: {opened}, failed: {failed}");
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
                ensure!(self, conn, "503_in_a_shutdown", connecting && self.phase >= Phase::LameDuck, "{text}");
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
            }
            HandshakeCause::TooManyConnections => {
                ensure!(self, conn, "too_many_connections", state.is_none(), "{text}");
            }
            _ => self.fail("known_causes", conn, text),
        }
    }

    fn closing(&mut self, conn: u32, initiator: Initiator, frame: &CloseFrame) {
        // Sweeps choose the moment; so here, and only here, the hub is believed.
        if self.state(conn) == Some(State::Open) && initiator == Initiator::Local {
            self.swept(conn, frame);
        }
        let facts = &self.facts[conn as usize];
        let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
        let Some(ending) = ending else {
            return self.fail("closing_has_a_reason", conn, format!("{initiator:?} {frame:?} in {:?}", facts.state));
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
            ended.extend(fresh.into_iter().map(|conn| (*id, sweep.terminates, sweep.order, conn)));
        }
        ended.sort_unstable();
        for (sweep, terminates, order, conn) in ended {
            let opened = self.of(conn).order;
            ensure!(self, conn, "sweeps_know_no_later_ones", opened < order, "sweep {sweep} chose it");
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
        if !matches!(state, Some(State::Lingering | State::Closed)) {
            let hard = self.phase == Phase::HardSweep && cause_of(closed, state) == "ShutdownHard";
            ensure!(self, conn, "close_has_a_reason", hard, "{closed:?} in {state:?}");
            self.cover(conn, Input::HardSweep);
            let style = self.shutdown.as_ref().and_then(|shutdown| shutdown.plan.abort);
            let style = style.unwrap_or(self.config.abort);
            self.abort(conn, Cause::ShutdownHard, Initiator::Local, Some(style).filter(|s| *s != Abort::Auto));
        }
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
        ensure!(self, conn, "close_effective_code", closed.effective_code() == effective, "{effective}; {text}");
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
        ensure!(self, conn, "inbound_lost", messages, "{text}");
        ensure!(self, conn, "inbound_partial", partial, "{text}");
        ensure!(self, conn, "inbound_trailing", trailing, "{text}");
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
        if let Some(shutdown) = self.shutdown.as_mut().filter(|_| self.phase >= Phase::SoftSweep) {
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
        let right = report.matched == sweep.told
            && sweep.ended == sweep.told
            && (report.clean, report.timed_out, report.lost) == (sweep.clean, sweep.timed_out, sweep.lost);
        let text = format!("{report:?} instead of {sweep:?}");
        ensure!(self, None, "sweep_done_once", !before, "sweep {id}");
        ensure!(self, None, "sweep_report", right, "{text}");
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
            bound,
            done: false,
            cut: false,
            phases: Vec::new(),
            ended: 0,
            live: None,
            groups: [0; 5],
            lost: Lost::default(),
            longest: Duration::ZERO,
            refused: 0,
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
        if phase >= Phase::SoftSweep && shutdown.live.is_none() {
            shutdown.live = Some(live);
            if let Pace::Rate(rate) = shutdown.plan.pace {
                let paced = Duration::try_from_secs_f64(live as f64 / rate).unwrap_or(Duration::MAX);
                shutdown.bound = after(after(now, paced), shutdown.plan.grace) + TOLERANCE;
                let bound = shutdown.bound;
                self.set_alarm(bound, SERVER, Alarm::Shutdown);
            }
        }
        if phase == Phase::Done {
            ensure!(self, None, "every_close_before_done", live == 0, "{live} are open");
            let open: Vec<_> = self.sweeps.iter().filter(|(_, sweep)| !sweep.done).map(|(id, _)| *id).collect();
            ensure!(self, None, "every_sweep_before_done", open.is_empty(), "sweeps {open:?} are not done");
            let empty = stats == Stats::default();
            ensure!(self, None, "nobody_left_when_done", empty, "{stats:?}");
            if let Some(shutdown) = &mut self.shutdown {
                shutdown.done = true;
            }
        }
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
        let live = Some(report.live_at_start) == shutdown.live && report.live_at_start == shutdown.ended;
        let phases: Duration = report.phases.iter().map(|phase| phase.length).sum();
        let mut gaps = report.phases.windows(2);
        let no_gaps = gaps.all(|pair| pair[0].start + pair[0].length == pair[1].start);
        let names: Vec<_> = report.phases.iter().map(|phase| phase.phase).collect();
        let seen: Vec<_> =
            shutdown.phases.iter().map(|phase| phase.0).filter(|phase| *phase != Phase::Done).collect();
        let histogram = report.close_phases.iter().sum::<u64>() == report.ended();
        let slowest = report.slowest.len() as u64 == report.ended().min(10)
            && report.slowest.is_sorted_by(|a, b| a.close_phase >= b.close_phase)
            && report.slowest.first().is_none_or(|slow| slow.close_phase == shutdown.longest);
        let took = report.took == Duration::from_micros(self.now - shutdown.asked);
        let first = report.phases.first().map_or(report.took, |phase| phase.start);
        let cut = report.escalated_by.is_none() || shutdown.cut;
        let lost = report.lost == shutdown.lost;
        let refused = report.refused_503 == shutdown.refused;
        ensure!(self, None, "report_counts_every_ending", ended, "{text}");
        ensure!(self, None, "report_live_at_start", live, "{text}");
        ensure!(self, None, "report_phases", no_gaps && names == seen && first + phases == report.took, "{text}");
        ensure!(self, None, "report_histogram", histogram, "{text}");
        ensure!(self, None, "report_slowest", slowest, "{text}");
        ensure!(self, None, "report_took", took, "{text}");
        ensure!(self, None, "report_escalation", cut, "{text}");
        ensure!(self, None, "report_lost", lost, "{text}");
        ensure!(self, None, "report_refused", refused, "{text}");
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
        let facts = &self.facts[conn as usize];
        let whole = facts.wire.at_boundary();
        let after_close = facts.close_done || !facts.opened;
        ensure!(self, conn, "fin_behind_whole_frames", whole, "a frame is cut");
        ensure!(self, conn, "fin_behind_a_close", after_close, "without a Close");
    }

    /// The connection is aborted in this style.
    pub fn aborted(&mut self, conn: u32, style: Abort) {
        let Some(ending) = self.ending_of(conn) else { return };
        let asked = ending.style;
        match asked {
            Some(Abort::Auto) | None => {
                let cut = !self.facts[conn as usize].wire.at_boundary();
                let fin = style == Abort::Fin;
                ensure!(self, conn, "no_fin_behind_a_cut_frame", !(fin && cut), "{style:?}");
            }
            Some(asked) => ensure!(self, conn, "abort_style", asked == style, "{style:?} instead of {asked:?}"),
        }
    }

    /// It was aborted by FIN: its descriptor waits for the peer's.
    pub fn lingers(&mut self, conn: u32) {
        self.cover(conn, Input::AbortedByFin);
        let now = self.now;
        let facts = self.of(conn);
        (facts.state, facts.since) = (Some(State::Lingering), now);
        if facts.eof {
            self.release_due.push(conn);
        } else {
            let at = after(now, self.config.linger_timeout);
            self.set_alarm(at, conn, Alarm::Linger);
        }
    }

    /// The slot is free.
    pub fn released(&mut self, conn: u32) {
        trace!(self, "#{conn} is released in {:?}", self.state(conn));
        let facts = self.of(conn);
        facts.state = None;
        facts.busy = None;
        let (opened, closed) = (facts.opened, facts.closed);
        ensure!(self, conn, "released_after_close", opened == closed, "opened: {opened}, closed: {closed}");
    }
}

fn cause_of(closed: &Closed, state: Option<State>) -> &'static str {
    // What fails keeps its first cause.
    if state == Some(State::Failing) { "ShutdownHard" } else { closed.cause.name() }
}
