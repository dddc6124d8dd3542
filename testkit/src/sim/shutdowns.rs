//! Sweeps and shutdowns: whom they must reach, when they must end, and what their reports must say.

use std::time::Duration;

use adjourn::{
    CloseFrame, ShutdownPlan,
    clients::{State, Stats},
    close::{Cause, CloseTiming, Initiator, Lost},
    conn::InputKind,
    shutdown::{LameDuckPolicy, ListenerInShutdown, Pace, ShutdownPhase, ShutdownReport, SweepReport},
};

use super::{
    alarms::{Alarm, SERVER},
    checker::{Checker, after, ensure, trace},
    facts::{Expected, Facts},
};

/// How long a shutdown may take beyond its plan.
const TOLERANCE: u64 = 250_000;

/// A shutdown that was asked for.
#[derive(Debug)]
pub struct ShutdownFacts {
    pub plan: ShutdownPlan,
    pub asked: u64,
    /// How late turns had been until then.
    pub late: u64,
    /// When it must be done.
    pub bound: u64,
    pub done: bool,
    /// When it was done at the earliest.
    pub done_after: u64,
    /// A second one, an escalation or an abort came.
    pub cut: bool,
    /// One of them that must be in the report.
    pub escalated: bool,
    pub phases: Vec<(ShutdownPhase, u64)>,
    /// When the grace began at the earliest.
    pub grace_began: Option<u64>,
    /// The same of the soft sweep, and how many connections it has closed.
    pub sweep_began: Option<u64>,
    pub swept: u64,
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

impl ShutdownFacts {
    /// Whether a valid upgrade gets a 503 in this phase.
    pub fn refuses(&self, phase: ShutdownPhase) -> bool {
        match phase {
            ShutdownPhase::Serving if self.plan.lame_duck.is_zero() => true,
            ShutdownPhase::Serving | ShutdownPhase::LameDuck => {
                !matches!(self.plan.listeners, LameDuckPolicy::Serve | LameDuckPolicy::HandOver)
            }
            ShutdownPhase::SoftSweep
            | ShutdownPhase::Grace
            | ShutdownPhase::HardSweep
            | ShutdownPhase::Done => true,
        }
    }

    /// Whether the listeners are open in this phase. `None`: it depends on who is left.
    pub fn listens(&self, phase: ShutdownPhase) -> Option<bool> {
        let plain = self.plan.listener_in_shutdown == ListenerInShutdown::PlainHttp;
        match phase {
            ShutdownPhase::Serving => Some(true),
            ShutdownPhase::LameDuck => {
                Some(!matches!(self.plan.listeners, LameDuckPolicy::Close | LameDuckPolicy::HandOver))
            }
            ShutdownPhase::SoftSweep | ShutdownPhase::Grace => Some(plain),
            ShutdownPhase::HardSweep => (!plain).then_some(false),
            ShutdownPhase::Done => Some(false),
        }
    }
}

impl Checker {
    // Sweeps.

    pub fn swept(&mut self, conn: u32, frame: &CloseFrame) {
        if let Some(&sweep) = self.sweep_frames.get(frame.reason()) {
            self.cover(conn, InputKind::Close);
            self.begin_local(conn, Cause::LocalClose, frame.clone(), CloseTiming::default());
            return self.join_sweep(conn, sweep);
        }
        if self.is_soft_sweep(frame) {
            self.cover(conn, InputKind::Close);
            self.begin_local(conn, Cause::ShutdownSoft, frame.clone(), CloseTiming::default());
            self.check_soft_pace();
        }
    }

    /// One more connection has got the Close of the soft sweep: not too soon for its rate (8.5). That it ends in time follows from the
    /// bound of the shutdown.
    fn check_soft_pace(&mut self) {
        let now = self.now;
        let Some(shutdown) = &mut self.shutdown else { return };
        shutdown.swept += 1;
        let (Pace::Rate(rate), Some(began), false) = (shutdown.plan.pace, shutdown.sweep_began, shutdown.cut)
        else {
            return;
        };
        #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
        let earliest = (shutdown.swept as f64 - 1.0) / rate;
        let (nth, took) = (shutdown.swept, Duration::from_micros(now.saturating_sub(began)).as_secs_f64());
        let right = took + 0.001 >= earliest;
        ensure!(self, None, "a_soft_sweep_keeps_its_rate", right, "the {nth}th of {rate}/s after {took} s");
    }

    /// Whether this is the Close of the soft sweep. That the phase has begun may be delivered later, when callbacks are used up.
    pub fn is_soft_sweep(&self, frame: &CloseFrame) -> bool {
        let began = self.phase >= ShutdownPhase::SoftSweep || self.may_hold();
        began && self.shutdown.as_ref().is_some_and(|shutdown| shutdown.plan.frame == *frame)
    }

    pub fn swept_and_terminated(&mut self, conn: u32, frame: &CloseFrame) {
        let (now, since) = (self.now, self.settled_at.min(self.turn.began));
        let soft = self.shutdown.as_ref().is_some_and(|shutdown| shutdown.plan.frame == *frame);
        let sweep = self.sweep_frames.get(frame.reason()).copied();
        let ending = self.busy(conn).ending.as_mut();
        let Some(ending) = ending.filter(|ending| ending.began >= since && ending.sent.is_none()) else {
            return;
        };
        if soft || sweep.is_some() {
            (ending.sent, ending.noticed_late) = (Some(Expected::Frame(frame.clone())), true);
            ending.uncertainty = now - since;
            self.start_with_the_return(conn, None);
        }
        if let Some(sweep) = sweep {
            self.join_sweep(conn, sweep);
        }
    }

    pub fn join_sweep(&mut self, conn: u32, sweep: u32) {
        if let Some(ending) = &mut self.busy(conn).ending {
            ending.sweeps.push(sweep);
        }
        if let Some(facts) = self.sweeps.get_mut(&sweep) {
            facts.reached += 1;
        }
        self.check_pace(sweep);
    }

    /// One more connection has got the Close of a sweep: neither too soon nor too late for its pace (8.5).
    fn check_pace(&mut self, sweep: u32) {
        let Some(facts) = self.sweeps.get(&sweep).filter(|facts| !facts.terminates) else { return };
        #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
        let (nth, most) = (facts.reached as f64 - 1.0, facts.most as f64);
        let (earliest, length) = match facts.pace {
            Pace::Rate(rate) => (nth / rate, most / rate),
            Pace::Spread(over) => (0.0, over.as_secs_f64()),
            _ => (0.0, 0.0),
        };
        let since = |at: u64| Duration::from_micros(self.now.saturating_sub(at)).as_secs_f64();
        let took = since(facts.began);
        let late = Duration::from_micros(self.late - facts.late + TOLERANCE).as_secs_f64();
        let right = took + 0.001 >= earliest && took <= length + late;
        let text =
            format!("the {}th of {:?} after {took} s, late by {late} s at most", facts.reached, facts.pace);
        ensure!(self, None, "a_sweep_keeps_its_pace", right, "sweep {sweep}: {text}");
    }

    /// The hub has just looked at its sweeps: those whom a `terminate_where` chose end in this turn.
    pub fn check_sweeps(&mut self) {
        let mut ended = Vec::new();
        for (id, sweep) in &mut self.sweeps {
            let chosen = sweep.chosen.lock().expect("not poisoned");
            let fresh = chosen.get(sweep.seen..).unwrap_or_default().to_vec();
            sweep.seen = chosen.len();
            ended.extend(fresh.into_iter().map(|conn| (*id, sweep.terminates, sweep.began, conn)));
        }
        ended.sort_unstable();
        for (sweep, terminates, began, conn) in ended {
            let opened = self.of(conn).opened_at;
            ensure!(self, conn, "sweeps_know_no_later_ones", opened <= began, "sweep {sweep} chose it");
            if terminates {
                self.cover(conn, InputKind::Terminate);
                self.abort(conn, Cause::Terminated, Initiator::Local, Some(self.settings(conn).terminate));
                self.join_sweep(conn, sweep);
            }
        }
    }

    pub fn sweep_done(&mut self, id: u32, report: &SweepReport) {
        trace!(self, "sweep {id} is done: {report:?}");
        let Some(sweep) = self.sweeps.get_mut(&id) else {
            return self.fail("sweep_done_once", None, format!("sweep {id} is not known"));
        };
        let before = std::mem::replace(&mut sweep.done, true);
        let now = self.now;
        let (began, terminates, rest) = (sweep.began, sweep.terminates, sweep.rest);
        let right = report.matched == sweep.reached
            && sweep.ended == sweep.reached
            && (report.clean, report.timed_out, report.lost) == (sweep.clean, sweep.timed_out, sweep.lost);
        let text = format!("{report:?} instead of {sweep:?}");
        ensure!(self, None, "sweep_done_once", !before, "sweep {id}");
        ensure!(self, None, "sweep_report", right, "{text}");
        // A hard sweep may have come first; the checker knows when the abort is asked for.
        let Some((of, rest)) = rest.filter(|_| self.phase != ShutdownPhase::HardSweep) else { return };
        let missed = self.facts.iter().zip(0_u32..).find(|(facts, conn)| {
            let meant =
                facts.state.is_some_and(|state| state == State::Open || terminates && state.is_closing());
            // It may have run out of time in the same turn.
            let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
            let over = ending.is_some_and(|ending| ending.deadline <= now + 1);
            conn % of == rest && meant && facts.since < began && !over && !self.may_be_judged(*conn)
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
            _ => None,
        };
        let bound = paced.map_or(u64::MAX, |paced| after(after(lame_duck, paced), plan.grace) + TOLERANCE);
        // Deferred upgrades that were accepted in this callback: their `Open` is to come.
        let accepted = |facts: &&Facts| facts.decided && facts.accepted && !facts.opened;
        let unreported = self.facts.iter().filter(accepted).count() as u64;
        self.shutdown = Some(ShutdownFacts {
            plan: plan.clone(),
            asked: now,
            late: self.late,
            bound,
            done: false,
            done_after: 0,
            cut: false,
            escalated: false,
            phases: Vec::new(),
            grace_began: None,
            sweep_began: None,
            swept: 0,
            live: self.opens + unreported - self.closes,
            opens: self.opens + unreported,
            ended: 0,
            groups: [0; 5],
            lost: Lost::default(),
            longest: Duration::ZERO,
            refused: 0,
            cut_handshakes: 0,
        });
        self.set_alarm(bound, SERVER, Alarm::Shutdown);
    }

    pub fn phase_begins(&mut self, phase: ShutdownPhase, stats: Stats) {
        let (now, before) = (self.now, self.phase);
        trace!(self, "{phase:?} begins: {stats:?}");
        ensure!(self, None, "phases_in_order", phase > before, "{phase:?} after {before:?}");
        self.phase = phase;
        let live = self.opens - self.closes;
        let Some(shutdown) = &mut self.shutdown else {
            return self.fail("phases_in_order", None, format!("{phase:?} without a shutdown"));
        };
        shutdown.phases.push((phase, now));
        if phase == ShutdownPhase::SoftSweep {
            shutdown.sweep_began = Some(self.settled_at.min(self.turn.began));
        }
        if phase == ShutdownPhase::Grace {
            shutdown.grace_began = Some(self.settled_at.min(self.turn.began));
        }
        if phase >= ShutdownPhase::SoftSweep && shutdown.bound == u64::MAX {
            let Pace::Rate(rate) = shutdown.plan.pace else { return };
            #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
            let paced = Duration::try_from_secs_f64(live as f64 / rate).unwrap_or(Duration::MAX);
            shutdown.bound = after(after(now, paced), shutdown.plan.grace) + TOLERANCE;
            let bound = shutdown.bound;
            self.set_alarm(bound, SERVER, Alarm::Shutdown);
        }
        if phase == ShutdownPhase::Grace {
            self.check_soft_sweep();
        }
        if phase == ShutdownPhase::Done {
            ensure!(self, None, "every_close_before_done", live == 0, "{live} are open");
            let open: Vec<_> =
                self.sweeps.iter().filter(|(_, sweep)| !sweep.done).map(|(id, _)| *id).collect();
            ensure!(self, None, "every_sweep_before_done", open.is_empty(), "sweeps {open:?} are not done");
            let empty = stats == Stats::default();
            ensure!(self, None, "nobody_left_when_done", empty, "{stats:?}");
            let after = self.settled_at.min(self.turn.began);
            if let Some(shutdown) = &mut self.shutdown {
                (shutdown.done, shutdown.done_after) = (true, after);
            }
        }
    }

    /// Every Close of the soft sweep is queued: nobody may be open, or connecting without a byte.
    pub fn check_soft_sweep(&mut self) {
        // Where plain HTTP is served, those that came since may be silent.
        let since = self
            .shutdown
            .as_ref()
            .filter(|shutdown| shutdown.plan.listener_in_shutdown == ListenerInShutdown::PlainHttp);
        let since = since.map_or(u64::MAX, |shutdown| shutdown.asked);
        let mut all = self.facts.iter().zip(0_u32..);
        let missed = all.find(|(facts, conn)| match facts.state {
            Some(State::Open) => !self.may_be_judged(*conn),
            // What waits for the application could only get a 503.
            Some(State::Connecting) => {
                let waits = self.is_deferred(*conn) && !self.is_due(*conn, Alarm::Handshake);
                (!facts.has_sent || waits && !self.failure_due.contains(conn)) && facts.since < since
            }
            _ => false,
        });
        let missed = missed.map(|(_, conn)| conn);
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
        let text = format!("{report:?}\n  expected {shutdown:?}");
        let ended = report.ended() == shutdown.ended && groups == shutdown.groups;
        let late = self.opens - shutdown.opens;
        let live = report.live_at_start == shutdown.live && shutdown.live + late == shutdown.ended;
        let phases: Duration = report.phases.iter().map(|phase| phase.length).sum();
        let mut gaps = report.phases.windows(2);
        let no_gaps = gaps.all(|pair| pair[0].start + pair[0].length == pair[1].start);
        let first = report.phases.first().map_or(report.took, |phase| phase.start);
        let names: Vec<_> = report.phases.iter().map(|phase| phase.phase).collect();
        let seen: Vec<_> = shutdown
            .phases
            .iter()
            .map(|phase| phase.0)
            .filter(|phase| *phase != ShutdownPhase::Done)
            .collect();
        let histogram = report.close_phases.iter().sum::<u64>() == report.ended();
        let slowest = report.slowest.len() as u64 == report.ended().min(10)
            && report.slowest.is_sorted_by(|a, b| a.close_phase >= b.close_phase)
            && report.slowest.first().is_none_or(|slow| slow.close_phase == shutdown.longest);
        let done = shutdown.phases.last().map_or(self.now, |(_, at)| *at);
        let since = |at: u64| Duration::from_micros(at.saturating_sub(shutdown.asked));
        let took = (since(shutdown.done_after)..=since(done)).contains(&report.took);
        let escalated = report.escalated_by.is_some();
        let cut = if escalated { shutdown.cut } else { !shutdown.escalated };
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
}
