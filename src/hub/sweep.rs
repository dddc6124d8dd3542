//! All sweeps of a hub: the shutdown, and those by predicate. No connection and no hub enters: `poll_*` names the next
//! slot or connection, `handle_*` takes the outcome. The caller limits how many it takes in a turn, so that the loop keeps its
//! deadlines.

use std::time::Duration;

mod chosen;
mod pace;
mod search;
mod shutdown;

pub(super) use self::{
    chosen::{Chosen, Doing},
    shutdown::Shutdown,
};
use crate::{
    close::CloseReport,
    id::ConnectionId,
    shutdown::{
        Escalation, LongestCallback, Pace, ShutdownPhase, ShutdownPlan, ShutdownReport, SlowestConnection,
        SweepId, SweepReport,
    },
    time::Time,
};

/// What a loop was asked about a shutdown: all loops of a server go down as one.
#[derive(Clone, Debug)]
pub enum ShutdownRequest {
    /// Begin one, or shorten the one that runs.
    Shutdown(ShutdownPlan),
    /// Enter the next phase.
    Escalate(Escalation),
    /// Jump to the hard sweep.
    Abort(Escalation),
}

/// How many connections there are when a shutdown is asked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    /// Established, and those whose `Close` was not delivered yet.
    pub(super) live: usize,
    pub(super) open: usize,
}

/// `P` is what decides for a sweep whom it concerns.
#[derive(Debug)]
pub(super) struct Sweeps<P> {
    last_id: u32,
    running: Vec<(Chosen, P)>,
    shutdown: Option<Box<Shutdown>>,
    /// What this loop was asked, for the others.
    requests: Vec<ShutdownRequest>,
    /// How many connections the other loops have: all share a rate.
    live_elsewhere: usize,
    longest_callback: LongestCallback,
    rng: fastrand::Rng,
    /// Connections in the state Closed: they have an action left.
    pub(super) closed: usize,
    /// Connections that are not established any more and whose `Close` was not delivered yet.
    pub(super) undelivered: usize,
}

impl<P> Sweeps<P> {
    /// `seed` is for the moments of a spread sweep.
    pub(super) fn new(seed: u64) -> Self {
        Self {
            last_id: 0,
            running: Vec::new(),
            shutdown: None,
            requests: Vec::new(),
            live_elsewhere: 0,
            longest_callback: None,
            rng: fastrand::Rng::with_seed(seed),
            closed: 0,
            undelivered: 0,
        }
    }

    // The shutdown.

    pub(super) fn phase(&self) -> ShutdownPhase {
        self.shutdown.as_ref().map_or(ShutdownPhase::Serving, |shutdown| shutdown.phase())
    }

    /// Whether no shutdown was asked for.
    pub(super) const fn is_ready(&self) -> bool {
        self.shutdown.is_none()
    }

    /// Whether a valid upgrade gets a 503.
    pub(super) fn refuses_handshakes(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.refuses_handshakes())
    }

    /// Whether the listeners stay open.
    pub(super) fn is_listening(&self) -> bool {
        self.shutdown.as_ref().is_none_or(|shutdown| shutdown.is_listening())
    }

    pub(super) fn report(&self) -> Option<&ShutdownReport> {
        self.shutdown.as_ref()?.report()
    }

    /// The shutdown that was asked for.
    pub(super) fn shutdown(&mut self) -> Option<&mut Shutdown> {
        self.shutdown.as_deref_mut()
    }

    pub(super) const fn set_live_elsewhere(&mut self, live: usize) {
        self.live_elsewhere = live;
    }

    /// What is asked of this loop and of the others. See [`Sweeps::take_requests`].
    pub(super) fn keep_request(&mut self, request: ShutdownRequest) {
        self.requests.push(request);
    }

    pub(super) fn take_requests(&mut self) -> Vec<ShutdownRequest> {
        std::mem::take(&mut self.requests)
    }

    /// Returns a phase that begins with the request.
    pub(super) fn handle_request(
        &mut self,
        request: ShutdownRequest,
        present: Present,
        now: Time,
    ) -> Option<ShutdownPhase> {
        match (&mut self.shutdown, request) {
            (None, ShutdownRequest::Shutdown(plan)) => {
                self.shutdown = Some(Box::new(Shutdown::new(plan, present.live, now)));
            }
            (None, ShutdownRequest::Escalate(_) | ShutdownRequest::Abort(_)) => {}
            (Some(shutdown), ShutdownRequest::Shutdown(plan)) => {
                shutdown.handle_plan(&plan, present.open, self.live_elsewhere, now);
            }
            (Some(shutdown), ShutdownRequest::Escalate(by)) => shutdown.handle_escalation(by, now),
            (Some(shutdown), ShutdownRequest::Abort(by)) => {
                return shutdown.handle_abort(by, now).then_some(ShutdownPhase::HardSweep);
            }
        }
        None
    }

    /// A connection was accepted.
    pub(super) fn handle_accepted(&mut self, generation: u32) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.handle_accepted(generation);
        }
    }

    /// A connection is gone, and its slot free.
    pub(super) fn handle_released(&mut self, generation: u32) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.handle_released(generation);
        }
    }

    /// A valid upgrade got a 503.
    pub(super) fn handle_refused(&mut self) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.handle_refused();
        }
    }

    /// Keeps the longest callback since the start.
    pub(super) fn handle_callback(&mut self, took: Duration, id: Option<ConnectionId>) {
        if self.longest_callback.is_none_or(|(longest, _)| took > longest) {
            self.longest_callback = Some((took, id));
        }
    }

    /// See [`Shutdown::poll_phase`].
    pub(super) fn poll_phase(&mut self, slots: usize, now: Time) -> Option<ShutdownPhase> {
        let shutdown = self.shutdown.as_mut()?;
        let phase = shutdown.poll_phase(slots, now)?;
        if phase == ShutdownPhase::Done {
            shutdown.handle_callback(self.longest_callback);
            self.running.iter_mut().for_each(|(sweep, _)| sweep.handle_nobody_left());
        }
        Some(phase)
    }

    /// The next slot for the soft sweep to look at; `end` is one past the last.
    pub(super) fn poll_soft_search(&mut self, end: usize) -> Option<usize> {
        self.shutdown.as_mut()?.poll_soft_search(end, self.live_elsewhere, &mut self.rng)
    }

    /// The next slot for the grace to look at, and when it ends for one that was closing already; `end` is one past the last.
    pub(super) fn poll_cut(&mut self, end: usize) -> Option<(usize, Time)> {
        self.shutdown.as_mut()?.poll_cut(end)
    }

    /// The hard sweep may end `slice` slots in this turn, of `slots` that are in use.
    pub(super) fn begin_hard_slice(&mut self, slice: usize, slots: usize) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.begin_slice(slice, slots);
        }
    }

    /// The next slot for the hard sweep to end; `end` is one past the last.
    pub(super) fn poll_hard_sweep(&mut self, end: usize) -> Option<usize> {
        self.shutdown.as_mut()?.poll_hard_sweep(end)
    }

    // Sweeps by predicate. They are named by their place among those that run.

    pub(super) fn begin(&mut self, doing: Doing, pace: Pace, predicate: P, now: Time) -> SweepId {
        self.last_id = self.last_id.wrapping_add(1);
        let id = SweepId(self.last_id);
        self.running.push((Chosen::new(id, doing, pace, now), predicate));
        id
    }

    pub(super) const fn running(&self) -> usize {
        self.running.len()
    }

    pub(super) fn get(&mut self, index: usize) -> Option<&mut (Chosen, P)> {
        self.running.get_mut(index)
    }

    /// The next slot for a sweep to look at; `end` is one past the last.
    pub(super) fn poll_search(&mut self, index: usize, end: usize, now: Time) -> Option<usize> {
        self.running.get_mut(index)?.0.poll_search(end, now, &mut self.rng)
    }

    /// The next sweep that is done.
    pub(super) fn poll_done(&mut self) -> Option<(SweepId, SweepReport)> {
        let index = self.running.iter().position(|(sweep, _)| sweep.poll_report().is_some())?;
        let (sweep, _) = self.running.remove(index);
        Some((sweep.id(), sweep.poll_report()?))
    }

    // Both.

    /// Whether there is no shutdown, and no sweep.
    pub(super) const fn is_idle(&self) -> bool {
        self.running.is_empty() && self.shutdown.is_none()
    }

    /// A connection has opened.
    pub(super) fn handle_opened(&mut self, id: ConnectionId, now: Time) {
        self.running.iter_mut().for_each(|(sweep, _)| sweep.handle_opened(id, now));
    }

    /// The `Close` of a connection was delivered. `members` are the sweeps that it belongs to.
    pub(super) fn handle_closed(
        &mut self,
        members: &[SweepId],
        closed: &CloseReport,
        about: SlowestConnection,
    ) {
        for (sweep, _) in self.running.iter_mut().filter(|(sweep, _)| members.contains(&sweep.id())) {
            sweep.handle_closed(closed);
        }
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.handle_closed(closed, about);
        }
    }

    /// When there is something to do next. `is_gone` says whether a connection that is scheduled is not open any
    /// more: its moment is skipped then.
    pub(super) fn poll_timeout(
        &self,
        slots: usize,
        now: Time,
        is_gone: impl Fn(ConnectionId) -> bool,
    ) -> Option<Time> {
        let unless_gone = |timeout: Option<Time>, first: Option<(Time, ConnectionId)>| match first {
            Some((_, id)) if is_gone(id) => Some(now),
            _ => timeout,
        };
        let sweeps =
            self.running.iter().map(|(sweep, _)| unless_gone(sweep.poll_timeout(now), sweep.poll_due()));
        let shutdown = self.shutdown.as_deref();
        let shutdown =
            shutdown.map(|shutdown| unless_gone(shutdown.poll_timeout(slots, now), shutdown.poll_due()));
        sweeps.chain(shutdown).flatten().min()
    }
}
