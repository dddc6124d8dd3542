//! The shutdown as a state machine. It knows its plan, the time, and whom it has found; no connections enter.
//!
//! ```text
//! Serving -> LameDuck -> SoftSweep -> Grace -> HardSweep -> Done
//! ```
//!
//! `Serving` lasts from the call until the turn's deadlines are looked at. A phase is entered in a turn of its own: what
//! the one before asked for, such as the last Close frames, has been written by then.

use std::time::Duration;

use super::{pace::Schedule, search::Search};
use crate::{
    close::{CloseFrame, CloseReport},
    config::Abort,
    id::ConnectionId,
    shutdown::{
        Escalation, LameDuckPolicy, ListenerInShutdown, LongestCallback, Pace, PhaseTiming, ShutdownPhase,
        ShutdownPlan, ShutdownReport, SlowestConnection,
    },
    time::Time,
};

#[derive(Debug)]
pub(in crate::hub) struct Shutdown {
    plan: ShutdownPlan,
    phase: ShutdownPhase,
    asked: Time,
    phase_began: Time,
    /// Lame duck and grace: when they end.
    phase_ends: Time,
    /// Soft and hard sweep; in the grace, for those whose flush budget is cut.
    search: Search,
    /// Slots that the hard sweep may still end in this turn.
    left_in_turn: usize,
    schedule: Schedule,
    /// Connections that were accepted since the soft sweep began. They can never open, and do not delay the end.
    late: usize,
    /// Nobody else is left: the hard sweep ends them, and the listeners close.
    only_late: bool,
    /// The generation of the first of them.
    first_late: Option<u32>,
    report: ShutdownReport,
}

impl Shutdown {
    /// `live` is how many connections are established.
    pub(super) fn new(plan: ShutdownPlan, live: usize, now: Time) -> Self {
        Self {
            phase: ShutdownPhase::Serving,
            asked: now,
            phase_began: now,
            phase_ends: now,
            search: Search::default(),
            left_in_turn: 0,
            schedule: Schedule::new(plan.pace, now),
            late: 0,
            only_late: false,
            first_late: None,
            report: ShutdownReport { live_at_start: live as u64, ..ShutdownReport::default() },
            plan,
        }
    }

    pub(super) const fn phase(&self) -> ShutdownPhase {
        self.phase
    }

    pub(in crate::hub) const fn frame(&self) -> &CloseFrame {
        &self.plan.frame
    }

    /// How the hard sweep ends connections, if the plan says so.
    pub(in crate::hub) const fn abort(&self) -> Option<Abort> {
        self.plan.abort
    }

    /// Whether a valid upgrade gets a 503.
    pub(super) fn refuses_handshakes(&self) -> bool {
        match self.phase {
            ShutdownPhase::Serving if self.plan.lame_duck.is_zero() => true,
            ShutdownPhase::Serving | ShutdownPhase::LameDuck => match self.plan.listeners {
                LameDuckPolicy::Serve | LameDuckPolicy::HandOver => false,
                LameDuckPolicy::Refuse | LameDuckPolicy::Close => true,
            },
            ShutdownPhase::SoftSweep
            | ShutdownPhase::Grace
            | ShutdownPhase::HardSweep
            | ShutdownPhase::Done => true,
        }
    }

    /// Whether the listeners stay open.
    pub(super) fn is_listening(&self) -> bool {
        match self.phase {
            ShutdownPhase::Serving => true,
            ShutdownPhase::LameDuck => match self.plan.listeners {
                LameDuckPolicy::Serve | LameDuckPolicy::Refuse => true,
                LameDuckPolicy::Close | LameDuckPolicy::HandOver => false,
            },
            ShutdownPhase::SoftSweep | ShutdownPhase::Grace => self.serves_plain_http(),
            ShutdownPhase::HardSweep => self.serves_plain_http() && !self.only_late,
            ShutdownPhase::Done => false,
        }
    }

    fn serves_plain_http(&self) -> bool {
        self.plan.listener_in_shutdown == ListenerInShutdown::PlainHttp
    }

    /// Whether the hard sweep leaves a connection alone for now: plain HTTP is served until nobody else is left.
    pub(in crate::hub) fn spares(&self, generation: u32) -> bool {
        self.serves_plain_http() && !self.only_late && self.is_late(generation)
    }

    // What is asked of it.

    /// A further plan: what is shorter in it takes the place of what was planned. `open` and `elsewhere` are how many
    /// connections are open in this loop and in the others.
    pub(super) fn handle_plan(&mut self, plan: &ShutdownPlan, open: usize, elsewhere: usize, now: Time) {
        let mut is_shorter = false;
        if plan.lame_duck < self.plan.lame_duck && self.phase <= ShutdownPhase::LameDuck {
            is_shorter = true;
            self.plan.lame_duck = plan.lame_duck;
        }
        if self.phase <= ShutdownPhase::SoftSweep {
            is_shorter |= self.schedule.shorten(plan.pace, open, elsewhere, now);
        }
        if plan.grace < self.plan.grace && self.phase <= ShutdownPhase::Grace {
            is_shorter = true;
            self.plan.grace = plan.grace;
        }
        match self.phase {
            ShutdownPhase::LameDuck => self.end_phase_by(now.after(plan.lame_duck)),
            ShutdownPhase::Grace => self.end_phase_by(now.after(plan.grace)),
            ShutdownPhase::Serving
            | ShutdownPhase::SoftSweep
            | ShutdownPhase::HardSweep
            | ShutdownPhase::Done => {}
        }
        if is_shorter {
            self.report.escalated_by.get_or_insert(Escalation::Shutdown);
        }
    }

    /// The next phase, now; in the soft sweep, the rest of the Close frames.
    pub(super) fn handle_escalation(&mut self, by: Escalation, now: Time) {
        match self.phase {
            ShutdownPhase::Serving => self.plan.lame_duck = Duration::ZERO,
            ShutdownPhase::LameDuck | ShutdownPhase::Grace => self.end_phase_by(now),
            ShutdownPhase::SoftSweep => {
                self.schedule.shorten(Pace::AtOnce, 0, 0, now);
            }
            ShutdownPhase::HardSweep | ShutdownPhase::Done => return,
        }
        self.report.escalated_by.get_or_insert(by);
    }

    /// The hard sweep, now. Returns whether that is news.
    pub(super) fn handle_abort(&mut self, by: Escalation, now: Time) -> bool {
        if self.phase >= ShutdownPhase::HardSweep {
            return false;
        }
        self.report.escalated_by.get_or_insert(by);
        self.enter(ShutdownPhase::HardSweep, now);
        true
    }

    // What happens to connections.

    /// A connection was accepted.
    pub(super) fn handle_accepted(&mut self, generation: u32) {
        if self.phase >= ShutdownPhase::SoftSweep {
            self.first_late.get_or_insert(generation);
            self.late += 1;
        }
    }

    /// A connection is gone, and its slot free.
    pub(super) fn handle_released(&mut self, generation: u32) {
        self.late -= usize::from(self.is_late(generation));
    }

    /// Whether a connection was accepted after the soft sweep began. Generations wrap.
    pub(in crate::hub) fn is_late(&self, generation: u32) -> bool {
        self.first_late.is_some_and(|first| generation.wrapping_sub(first) <= u32::MAX / 2)
    }

    pub(super) const fn handle_refused(&mut self) {
        self.report.refused_503 += 1;
    }

    pub(in crate::hub) const fn handle_handshake_cut(&mut self) {
        self.report.handshakes_cut += 1;
    }

    /// The soft sweep has found an open connection. Returns whether its moment is now.
    pub(in crate::hub) fn handle_open(&mut self, id: ConnectionId) -> bool {
        let immediate = self.schedule.is_immediate();
        if !immediate {
            self.schedule.push(id);
        }
        immediate
    }

    /// The longest callback of the loop's life, for the report.
    pub(super) const fn handle_callback(&mut self, longest: LongestCallback) {
        self.report.longest_callback = longest;
    }

    /// The `Close` of a connection was delivered.
    pub(super) fn handle_closed(&mut self, closed: &CloseReport, about: SlowestConnection) {
        self.report.count(closed, about);
    }

    // What it wants.

    /// When there is something to do. `slots` is how many connections are left, in whichever state.
    pub(super) fn poll_timeout(&self, slots: usize, now: Time) -> Option<Time> {
        match self.phase {
            ShutdownPhase::Serving | ShutdownPhase::HardSweep => Some(now),
            ShutdownPhase::SoftSweep => Some(self.schedule.first().map_or(now, |first| first.0)),
            ShutdownPhase::Grace if slots == self.late || !self.search.is_complete() => Some(now),
            ShutdownPhase::LameDuck | ShutdownPhase::Grace => Some(self.phase_ends),
            ShutdownPhase::Done => None,
        }
    }

    /// Enters the next phase if it is time for it, and returns it. Called once a turn.
    pub(super) fn poll_phase(&mut self, slots: usize, now: Time) -> Option<ShutdownPhase> {
        let next = match self.phase {
            ShutdownPhase::Serving if self.plan.lame_duck.is_zero() => ShutdownPhase::SoftSweep,
            ShutdownPhase::Serving => ShutdownPhase::LameDuck,
            ShutdownPhase::LameDuck if self.phase_ends <= now => ShutdownPhase::SoftSweep,
            ShutdownPhase::SoftSweep if self.schedule.is_done() => ShutdownPhase::Grace,
            ShutdownPhase::Grace | ShutdownPhase::HardSweep if slots == 0 => ShutdownPhase::Done,
            // It also ends the connections that were accepted late.
            ShutdownPhase::Grace if slots == self.late || self.phase_ends <= now => ShutdownPhase::HardSweep,
            ShutdownPhase::LameDuck
            | ShutdownPhase::SoftSweep
            | ShutdownPhase::Grace
            | ShutdownPhase::HardSweep
            | ShutdownPhase::Done => {
                return None;
            }
        };
        self.enter(next, now);
        if next == ShutdownPhase::Done {
            self.report.took = now.since(self.asked);
        }
        Some(next)
    }

    /// The soft sweep: the next slot to look at. After the last one, those that were found get their moments.
    pub(super) fn poll_soft_search(
        &mut self,
        end: usize,
        elsewhere: usize,
        rng: &mut fastrand::Rng,
    ) -> Option<usize> {
        if self.phase != ShutdownPhase::SoftSweep || self.search.is_complete() {
            return None;
        }
        let slot = self.search.next(end);
        if slot.is_none() {
            self.schedule.set(elsewhere, rng);
        }
        slot
    }

    /// The grace: the next slot to look at for a connection that was closing already, and when the grace ends.
    pub(super) fn poll_cut(&mut self, end: usize) -> Option<(usize, Time)> {
        if self.phase != ShutdownPhase::Grace || self.search.is_complete() {
            return None;
        }
        Some((self.search.next(end)?, self.phase_ends))
    }

    /// The soft sweep: the next connection that waits for its Close, and its moment.
    pub(in crate::hub) fn poll_due(&self) -> Option<(Time, ConnectionId)> {
        self.schedule.first().filter(|_| self.phase == ShutdownPhase::SoftSweep)
    }

    /// The connection that [`Shutdown::poll_due`] gave waits no longer.
    pub(in crate::hub) fn pop_due(&mut self) {
        self.schedule.pop();
    }

    /// The hard sweep may end `slice` slots in this turn, of `slots` that are in use.
    pub(super) const fn begin_slice(&mut self, slice: usize, slots: usize) {
        self.only_late |= slots == self.late;
        self.left_in_turn = slice;
    }

    /// The hard sweep: the next slot to end in this turn.
    pub(super) fn poll_hard_sweep(&mut self, end: usize) -> Option<usize> {
        if self.phase != ShutdownPhase::HardSweep || self.left_in_turn == 0 {
            return None;
        }
        let slot = self.search.next(end);
        self.left_in_turn -= 1;
        if slot.is_none() {
            // An abort by FIN lingers: the next pass ends that, too.
            (self.search, self.left_in_turn) = (Search::default(), 0);
        }
        slot
    }

    /// Its report, once it is done.
    pub(super) fn report(&self) -> Option<&ShutdownReport> {
        (self.phase == ShutdownPhase::Done).then_some(&self.report)
    }

    // Inside.

    fn enter(&mut self, phase: ShutdownPhase, now: Time) {
        if self.phase != ShutdownPhase::Serving {
            self.report.phases.push(PhaseTiming {
                phase: self.phase,
                start: self.phase_began.since(self.asked),
                length: now.since(self.phase_began),
            });
        }
        (self.phase, self.phase_began, self.search) = (phase, now, Search::default());
        match phase {
            ShutdownPhase::LameDuck => self.phase_ends = now.after(self.plan.lame_duck),
            ShutdownPhase::SoftSweep => self.schedule.begin(now),
            ShutdownPhase::Grace => self.phase_ends = now.after(self.plan.grace),
            ShutdownPhase::HardSweep => self.schedule = Schedule::new(Pace::AtOnce, now),
            ShutdownPhase::Serving | ShutdownPhase::Done => {}
        }
    }

    fn end_phase_by(&mut self, at: Time) {
        if at < self.phase_ends {
            // Those that were found in the grace are cut anew.
            (self.phase_ends, self.search) = (at, Search::default());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Time {
        Time::from_start(Duration::from_secs(seconds))
    }

    fn plan(lame_duck: u64, grace: u64) -> ShutdownPlan {
        let mut plan = ShutdownPlan::soft(Duration::from_secs(grace));
        plan.lame_duck = Duration::from_secs(lame_duck);
        plan
    }

    /// Its phases and the seconds at which they begin. One connection is left until second `left`.
    fn phases(shutdown: &mut Shutdown, left: u64) -> Vec<(ShutdownPhase, u64)> {
        let mut phases = vec![];
        for second in 0..100 {
            for _ in 0..4 {
                let now = at(second);
                if let Some(phase) = shutdown.poll_phase(usize::from(second < left), now) {
                    phases.push((phase, second));
                }
                while shutdown.poll_soft_search(0, 0, &mut fastrand::Rng::with_seed(1)).is_some() {}
            }
        }
        phases
    }

    #[test]
    fn phases_begin_in_their_order_and_on_time() {
        use ShutdownPhase::{Done, Grace, HardSweep, LameDuck, SoftSweep};
        let rows = [
            (plan(3, 5), 0, vec![(LameDuck, 0), (SoftSweep, 3), (Grace, 3), (Done, 3)]),
            (plan(3, 5), 4, vec![(LameDuck, 0), (SoftSweep, 3), (Grace, 3), (Done, 4)]),
            (plan(0, 5), 9, vec![(SoftSweep, 0), (Grace, 0), (HardSweep, 5), (Done, 9)]),
            (plan(0, 0), 1, vec![(SoftSweep, 0), (Grace, 0), (HardSweep, 0), (Done, 1)]),
        ];
        for (plan, left, expected) in rows {
            let mut shutdown = Shutdown::new(plan.clone(), 1, at(0));
            assert_eq!(phases(&mut shutdown, left), expected, "{plan:?}, a connection for {left} s");
            let report = shutdown.report().expect("it is done");
            let lengths: Duration = report.phases.iter().map(|timing| timing.length).sum();
            assert_eq!((lengths, report.took), (report.took, Duration::from_secs(expected[3].1)));
        }
    }

    #[test]
    fn it_can_be_cut_and_never_prolonged() {
        let cut = |act: &dyn Fn(&mut Shutdown)| {
            let mut shutdown = Shutdown::new(plan(10, 20), 1, at(0));
            act(&mut shutdown);
            phases(&mut shutdown, 99).into_iter().map(|phase| phase.1).collect::<Vec<_>>()
        };
        assert_eq!(cut(&|_| {}), [0, 10, 10, 30, 99]);
        assert_eq!(cut(&|shutdown| shutdown.handle_plan(&plan(60, 60), 1, 0, at(0))), [0, 10, 10, 30, 99]);
        assert_eq!(cut(&|shutdown| shutdown.handle_plan(&plan(5, 60), 1, 0, at(0))), [0, 5, 5, 25, 99]);
        assert_eq!(cut(&|shutdown| shutdown.handle_plan(&plan(60, 2), 1, 0, at(0))), [0, 10, 10, 12, 99]);
        assert_eq!(cut(&|shutdown| shutdown.handle_escalation(Escalation::Escalate, at(0))), [0, 0, 20, 99]);
        let aborted = |shutdown: &mut Shutdown| {
            assert!(shutdown.handle_abort(Escalation::Abort, at(0)));
            assert!(!shutdown.handle_abort(Escalation::Abort, at(0)), "once");
            shutdown.handle_plan(&plan(60, 60), 1, 0, at(0));
        };
        assert_eq!(cut(&aborted), [99]);
    }

    #[test]
    fn the_hard_sweep_goes_round_in_slices() {
        let mut shutdown = Shutdown::new(ShutdownPlan::hard(), 1, at(0));
        assert!(shutdown.handle_abort(Escalation::Abort, at(0)));
        let mut passes = vec![];
        for _ in 0..4 {
            shutdown.begin_slice(3, 5);
            passes.push(std::iter::from_fn(|| shutdown.poll_hard_sweep(5)).collect::<Vec<_>>());
        }
        assert_eq!(passes, [vec![0, 1, 2], vec![3, 4], vec![0, 1, 2], vec![3, 4]]);
    }
}
