//! Drives the sweeps over the hub's connections: asks predicates, closes, ends, and reports.

use std::sync::atomic::Ordering;

use super::{
    client::{Client, Predicate},
    sweep::{Doing, Present, ShutdownRequest},
    table::Hub,
};
use crate::{
    close::{Cause, CloseFrame, CloseTiming},
    conn::{Conn, Ended, Probe, QueuedEvent, State},
    id::ConnectionId,
    shutdown::{Pace, ShutdownPhase, SlowestConnection, SweepId},
    time::Time,
};

impl<D> Hub<D> {
    // What is asked for.

    pub(super) fn begin_close_where(
        &mut self,
        frame: CloseFrame,
        pace: Pace,
        predicate: Predicate<D>,
    ) -> SweepId {
        self.sweeps.begin(Doing::Close(frame), pace, predicate, self.now)
    }

    pub(super) fn begin_terminate_where(&mut self, predicate: Predicate<D>) -> SweepId {
        self.sweeps.begin(Doing::Terminate, Pace::AtOnce, predicate, self.now)
    }

    /// Applies a request, and keeps it for [`Hub::take_requests`].
    pub(super) fn ask(&mut self, request: ShutdownRequest) {
        self.sweeps.keep_request(request.clone());
        self.apply_request(request);
    }

    /// Applies what another loop was asked.
    pub(super) fn apply_request(&mut self, request: ShutdownRequest) {
        if matches!(request, ShutdownRequest::Shutdown(_)) {
            self.shutdown_asked.store(true, Ordering::Release);
        }
        let live = self.stats.open + self.stats.closing + self.sweeps.undelivered;
        let present = Present { live, open: self.stats.open };
        if let Some(phase) = self.sweeps.handle_request(request, present, self.now) {
            self.event_queue.push_back(QueuedEvent::Phase(phase, self.stats));
        }
    }

    /// What this loop was asked since the last call, to be forwarded to those that go down with it.
    pub(super) fn take_requests(&mut self) -> Vec<ShutdownRequest> {
        self.sweeps.take_requests()
    }

    /// How many connections are open in the loops that go down with this one: a shutdown's rate is shared among them by
    /// that. It is looked at when the soft sweep has found its connections, and when a further shutdown is asked for.
    pub(super) const fn set_live_elsewhere(&mut self, live: usize) {
        self.sweeps.set_live_elsewhere(live);
    }

    // Time passes.

    /// When the sweeps have something to do next.
    pub(super) fn poll_sweeps(&self) -> Option<Time> {
        if self.sweeps.is_idle() {
            return None;
        }
        self.sweeps.poll_timeout(self.slots.len(), self.now, |id| !self.is_open(id))
    }

    /// One slice of all sweeps by predicate. The shutdown is first, so that a predicate that panics does not delay it.
    pub(super) fn advance_sweeps(&mut self) {
        if self.sweeps.running() > 0 {
            // One slice for all of them, however many there are.
            let (mut questions, mut actions) = (self.slice(), self.slice());
            for index in 0..self.sweeps.running() {
                self.search(index, &mut questions);
                self.act_on_due(index, &mut actions);
            }
            self.report_sweeps();
        }
    }

    fn slice(&self) -> usize {
        self.config.event_loop.sweep_slice
    }

    fn is_open(&self, id: ConnectionId) -> bool {
        self.find(id).is_some_and(|entry| entry.conn.state() == State::Open)
    }

    // Sweeps by predicate.

    fn search(&mut self, index: usize, left: &mut usize) {
        while *left > 0 {
            let Some(slot) = self.sweeps.poll_search(index, self.slots_end(), self.now) else { return };
            *left -= 1;
            let Some(id) = self.matching(index, slot) else { continue };
            if self.sweeps.get(index).is_some_and(|(sweep, _)| sweep.handle_match(id)) {
                self.sweep_one(index, id);
            }
        }
    }

    /// The connection in a slot, if it is one of those that the sweep is for and its predicate chooses it.
    fn matching(&mut self, index: usize, slot: usize) -> Option<ConnectionId> {
        let (sweep, predicate) = self.sweeps.get(index)?;
        let entry = self.slots.get(slot)?;
        let state = entry.conn.state();
        let eligible = match sweep.doing() {
            Doing::Close(_) => state == State::Open,
            Doing::Terminate => state.is_established(),
        };
        let id = ConnectionId::new(self.loop_number, u32::try_from(slot).ok()?, entry.conn.generation);
        if !eligible || !sweep.includes(id, entry.conn.since()) {
            return None;
        }
        predicate(&Client::new(id, entry, self.now)?).then_some(id)
    }

    fn act_on_due(&mut self, index: usize, left: &mut usize) {
        while *left > 0 {
            let Some((sweep, _)) = self.sweeps.get(index) else { return };
            let Some((at, id)) = sweep.poll_due() else { return };
            let is_open = self.is_open(id);
            if is_open && at > self.now {
                return;
            }
            if let Some((sweep, _)) = self.sweeps.get(index) {
                sweep.pop_due();
            }
            *left -= 1;
            self.sweep_one(index, id);
        }
    }

    /// Closes or terminates one connection. One that has ended, or closes for another reason, does not belong to the sweep.
    fn sweep_one(&mut self, index: usize, id: ConnectionId) {
        let Some((sweep, _)) = self.sweeps.get(index) else { return };
        let (sweep, doing) = (sweep.id(), sweep.doing().clone());
        let joined = self.with_id(id, |conn, cx| {
            let begun = match doing {
                Doing::Close(frame) => conn.close(frame, Cause::LocalClose, CloseTiming::default(), cx),
                Doing::Terminate => conn.terminate(None, cx),
            };
            if begun {
                conn.join_sweep(sweep);
            }
            begun
        });
        if joined != Some(true)
            && let Some((sweep, _)) = self.sweeps.get(index)
        {
            sweep.handle_unmatch();
        }
    }

    fn report_sweeps(&mut self) {
        while let Some((id, report)) = self.sweeps.poll_done() {
            self.event_queue.push_back(QueuedEvent::SweepDone(id, report));
        }
    }

    /// The `Close` of a connection is delivered now.
    pub(super) fn record_close(&mut self, id: ConnectionId, ended: &Ended) {
        self.sweeps.undelivered -= 1;
        self.common.totals.count_close(&ended.closed);
        if let Some(peer) = self.slots.get(id.slot()).map(|entry| entry.conn.peer()) {
            let (state, queued, close_phase) = (ended.state, ended.queued, ended.closed.close_phase);
            let about = SlowestConnection { id, peer, state, queued, close_phase };
            self.sweeps.handle_closed(&ended.sweeps, &ended.closed, about);
        }
        if !ended.sweeps.is_empty() {
            self.report_sweeps();
        }
    }

    // The shutdown.

    /// One step of the shutdown.
    pub(super) fn advance_shutdown(&mut self) {
        if self.sweeps.is_ready() {
            return;
        }
        match self.phase() {
            ShutdownPhase::SoftSweep => {
                self.soft_sweep_slice();
                self.enter_next_phase();
            }
            ShutdownPhase::Grace => {
                self.cut_flushing();
                self.enter_next_phase();
            }
            ShutdownPhase::HardSweep if self.slots.is_empty() => self.enter_next_phase(),
            ShutdownPhase::HardSweep => self.sweeps.begin_hard_slice(self.slice(), self.slots.len()),
            ShutdownPhase::Serving | ShutdownPhase::LameDuck | ShutdownPhase::Done => {
                self.enter_next_phase();
            }
        }
    }

    fn enter_next_phase(&mut self) {
        if let Some(phase) = self.sweeps.poll_phase(self.slots.len(), self.now) {
            self.report_sweeps();
            self.event_queue.push_back(QueuedEvent::Phase(phase, self.stats));
        }
    }

    fn soft_sweep_slice(&mut self) {
        let slice = self.slice();
        for _ in 0..slice {
            let Some(slot) = self.sweeps.poll_soft_search(self.slots_end()) else { break };
            self.sweep_softly(slot);
        }
        for _ in 0..slice {
            let Some(shutdown) = self.sweeps.shutdown() else { return };
            let Some((at, id)) = shutdown.poll_due() else { return };
            let is_open = self.is_open(id);
            if is_open && at > self.now {
                return;
            }
            if let Some(shutdown) = self.sweeps.shutdown() {
                shutdown.pop_due();
            }
            self.close_softly(id);
        }
    }

    fn sweep_softly(&mut self, slot: usize) {
        let Some(entry) = self.slots.get(slot) else { return };
        let conn = &entry.conn;
        let generation = conn.generation;
        let is_silent = conn.state() == State::Connecting && (conn.is_client() || !conn.has_request_bytes());
        let open = (conn.state() == State::Open).then(|| self.id_at(slot)).flatten();
        let Some(shutdown) = self.sweeps.shutdown().filter(|shutdown| !shutdown.is_late(generation)) else {
            return;
        };
        if conn.deferred().is_some() {
            // What it waits for could only be a 503.
            self.refuse_deferred(slot);
        } else if is_silent {
            shutdown.handle_handshake_cut();
            self.with(slot, Conn::sweep_silent);
        } else if let Some(id) = open
            && shutdown.handle_open(id)
        {
            self.close_softly(id);
        }
    }

    fn close_softly(&mut self, id: ConnectionId) {
        let Some(frame) = self.sweeps.shutdown().map(|shutdown| shutdown.frame().clone()) else { return };
        self.with_id(id, |conn, cx| conn.close(frame, Cause::ShutdownSoft, CloseTiming::default(), cx));
    }

    /// One slice of those that were closing before the soft sweep: the hard sweep ends them at the end of the grace.
    fn cut_flushing(&mut self) {
        for _ in 0..self.slice() {
            let Some((slot, end)) = self.sweeps.poll_cut(self.slots_end()) else { return };
            self.with(slot, |conn, cx| conn.cut_flushing(end, cx.now));
        }
    }

    /// The next slot that the hard sweep ends in this turn, and what to look at before: then call [`Hub::end_hard`] for it.
    /// The looking has the budget of what is due.
    pub(super) fn poll_hard_sweep(&mut self) -> Option<(usize, Probe)> {
        if self.sweeps.is_ready() || self.is_over_budget() || self.has_undelivered() {
            return None;
        }
        let slot = self.sweeps.poll_hard_sweep(self.slots_end())?;
        let turn = self.turn.number;
        let probe =
            self.slots.get_mut(slot).map(|entry| entry.begin_probe(entry.conn.probe_at_hard_sweep(), turn));
        Some((slot, probe.unwrap_or_default()))
    }

    /// Ends what is in a slot for the hard sweep, whatever it is.
    pub(super) fn end_hard(&mut self, slot: usize) {
        let Some(entry) = self.slots.get(slot) else { return };
        let (is_handshake, generation) = (entry.conn.state() == State::Connecting, entry.conn.generation);
        let Some(shutdown) = self.sweeps.shutdown().filter(|shutdown| !shutdown.spares(generation)) else {
            return;
        };
        if is_handshake {
            shutdown.handle_handshake_cut();
        }
        let style = shutdown.abort();
        self.with(slot, |conn, cx| conn.hard_sweep(style, cx));
    }
}
