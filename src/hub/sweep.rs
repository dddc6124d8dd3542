//! Shutdown and predicate sweeps as state machines: soft, grace, hard, report.
//!
//! ```text
//! Serving -> LameDuck -> SoftSweep -> Grace -> HardSweep -> Done
//! ```
//!
//! Whatever concerns all connections is done in slices, one per turn, so that the loop keeps its deadlines. A phase is
//! entered in a turn of its own: what the one before asked for, such as the last Close frames, has been written by then.

use std::time::Duration;

use super::{Client, Hub};
use crate::{
    close::{Cause, CloseFrame, Closed},
    config::Abort,
    conn::{Ended, Note, State, Timing},
    event::SweepReport,
    id::ConnectionId,
    shutdown::{
        CLOSE_PHASE_BUCKETS, Escalation, LameDuckPolicy, Pace, Phase, PhaseTiming, ShutdownPlan,
        ShutdownReport, Slowest, SweepId,
    },
    time::Time,
};

/// How many of the slowest connections a report names.
const SLOWEST: usize = 10;

pub(super) type Predicate<D> = Box<dyn FnMut(&Client<'_, D>) -> bool>;

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

/// All sweeps that run, and the shutdown.
pub(super) struct Sweeps<D> {
    last_id: u32,
    running: Vec<Sweep<D>>,
    shutdown: Option<Box<Shutdown>>,
    /// What this loop was asked, for the others.
    requests: Vec<ShutdownRequest>,
    /// How many loops there are: they share a rate.
    loops: usize,
    longest_callback: Option<(Duration, Option<ConnectionId>)>,
    /// Connections in the state Closed: they have an action left.
    pub(super) closed: usize,
    /// Connections that are not established any more and whose `Close` was not delivered yet.
    pub(super) unbooked: usize,
}

impl<D> Default for Sweeps<D> {
    fn default() -> Self {
        Self {
            last_id: 0,
            running: Vec::new(),
            shutdown: None,
            requests: Vec::new(),
            loops: 1,
            longest_callback: None,
            closed: 0,
            unbooked: 0,
        }
    }
}

/// One `close_where` or `terminate_where`.
struct Sweep<D> {
    id: SweepId,
    what: What,
    scan: Option<Scan<D>>,
    paced: Paced,
    /// Matched and not ended.
    outstanding: u64,
    report: SweepReport,
}

#[derive(Clone)]
enum What {
    Close(CloseFrame),
    Terminate,
}

/// The search for those whom a sweep concerns.
struct Scan<D> {
    predicate: Predicate<D>,
    /// The next slot to look at.
    at: usize,
    /// The last generation that existed when the sweep began.
    newest: u32,
}

/// When each of those that were found is told.
struct Paced {
    pace: Pace,
    start: Time,
    found: u64,
    /// Who waits, and until when.
    queue: Vec<(Time, ConnectionId)>,
    /// How many of the queue have been told. It is sorted when the search is complete.
    told: usize,
}

impl Paced {
    const fn new(pace: Pace, start: Time) -> Self {
        Self { pace, start, found: 0, queue: Vec::new(), told: 0 }
    }

    /// One more was found. Returns whether it is told at once.
    fn find(&mut self, id: ConnectionId, rng: &mut fastrand::Rng) -> bool {
        let nth = self.found;
        self.found += 1;
        let at = match self.pace {
            Pace::AtOnce => return true,
            Pace::Rate(per_second) => self.start.after(nth_at(nth, per_second)),
            Pace::Spread(over) => self.start.after(over.mul_f64(rng.f64())),
        };
        self.queue.push((at, id));
        false
    }

    fn sort(&mut self) {
        self.queue.sort_unstable();
    }

    fn next(&self) -> Option<Time> {
        self.queue.get(self.told).map(|entry| entry.0)
    }

    /// Takes who is due, `limit` at most.
    fn take_due(&mut self, now: Time, limit: usize) -> Vec<ConnectionId> {
        let rest = self.queue.get(self.told..).unwrap_or_default();
        let due: Vec<_> =
            rest.iter().take(limit).take_while(|entry| entry.0 <= now).map(|entry| entry.1).collect();
        self.told += due.len();
        if self.told == self.queue.len() {
            (self.queue, self.told) = (Vec::new(), 0);
        }
        due
    }

    fn is_done(&self) -> bool {
        self.queue.is_empty()
    }

    /// The next one is not told.
    fn skip(&mut self) {
        self.told += 1;
        if self.told == self.queue.len() {
            (self.queue, self.told) = (Vec::new(), 0);
        }
    }

    /// Forgets who waits; says how many they were.
    fn forget(&mut self) -> u64 {
        let waiting = self.queue.len() - self.told;
        (self.queue, self.told) = (Vec::new(), 0);
        waiting as u64
    }
}

/// A rate that is not above zero would never end: it counts as one a second.
fn nth_at(nth: u64, per_second: f64) -> Duration {
    let per_second = if per_second > 0.0 { per_second } else { 1.0 };
    #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
    Duration::try_from_secs_f64(nth as f64 / per_second).unwrap_or(Duration::MAX)
}

/// A shutdown that runs, or is done.
struct Shutdown {
    plan: ShutdownPlan,
    phase: Phase,
    asked: Time,
    phase_began: Time,
    /// Lame duck and grace: when they end.
    phase_ends: Time,
    /// Soft and hard sweep: the next slot.
    at: usize,
    scanned: bool,
    paced: Paced,
    report: ShutdownReport,
}

impl Shutdown {
    fn new(plan: ShutdownPlan, now: Time) -> Self {
        Self {
            phase: Phase::Serving,
            asked: now,
            phase_began: now,
            phase_ends: now,
            at: 0,
            scanned: false,
            paced: Paced::new(plan.pace, now),
            report: ShutdownReport::default(),
            plan,
        }
    }
}

impl Shutdown {
    /// The rest of the Close frames go out at once.
    fn hurry(&mut self, now: Time) {
        for entry in &mut self.paced.queue {
            entry.0 = entry.0.min(now);
        }
        (self.plan.pace, self.paced.pace) = (Pace::AtOnce, Pace::AtOnce);
    }
}

impl<D> Sweeps<D> {
    pub(super) fn phase(&self) -> Phase {
        self.shutdown.as_ref().map_or(Phase::Serving, |shutdown| shutdown.phase)
    }

    pub(super) fn listener_policy(&self) -> LameDuckPolicy {
        self.shutdown.as_ref().map_or(LameDuckPolicy::Serve, |shutdown| shutdown.plan.listeners)
    }

    pub(super) fn report(&self) -> Option<&ShutdownReport> {
        self.shutdown
            .as_ref()
            .filter(|shutdown| shutdown.phase == Phase::Done)
            .map(|shutdown| &shutdown.report)
    }

    pub(super) fn note_refused(&mut self) {
        if let Some(shutdown) = &mut self.shutdown {
            shutdown.report.refused_503 += 1;
        }
    }

    /// Keeps the longest callback since the start.
    pub(super) fn note_callback(&mut self, took: Duration, id: Option<ConnectionId>) {
        if self.longest_callback.is_none_or(|(longest, _)| took > longest) {
            self.longest_callback = Some((took, id));
        }
    }
}

impl<D> Hub<D> {
    // Predicate sweeps.

    pub(super) fn begin_close_where(
        &mut self,
        frame: CloseFrame,
        pace: Pace,
        predicate: Predicate<D>,
    ) -> SweepId {
        self.begin_sweep(What::Close(frame), pace, predicate)
    }

    pub(super) fn begin_terminate_where(&mut self, predicate: Predicate<D>) -> SweepId {
        self.begin_sweep(What::Terminate, Pace::AtOnce, predicate)
    }

    fn begin_sweep(&mut self, what: What, pace: Pace, predicate: Predicate<D>) -> SweepId {
        self.sweeps.last_id += 1;
        let id = SweepId(self.sweeps.last_id);
        let scan = Some(Scan { predicate, at: 0, newest: self.generation });
        let paced = Paced::new(pace, self.now);
        self.sweeps.running.push(Sweep {
            id,
            what,
            scan,
            paced,
            outstanding: 0,
            report: SweepReport::default(),
        });
        id
    }

    /// When the sweeps have something to do next.
    pub(super) fn poll_sweeps(&self) -> Option<Time> {
        let sweeps = self
            .sweeps
            .running
            .iter()
            .filter_map(|sweep| if sweep.scan.is_some() { Some(self.now) } else { sweep.paced.next() });
        sweeps.chain(self.poll_shutdown()).min()
    }

    fn poll_shutdown(&self) -> Option<Time> {
        let shutdown = self.sweeps.shutdown.as_ref()?;
        match shutdown.phase {
            Phase::Serving | Phase::HardSweep => Some(self.now),
            Phase::SoftSweep => {
                Some(if shutdown.scanned { shutdown.paced.next().unwrap_or(self.now) } else { self.now })
            }
            Phase::Grace if self.slots.is_empty() => Some(self.now),
            Phase::LameDuck | Phase::Grace => Some(shutdown.phase_ends),
            Phase::Done => None,
        }
    }

    /// One slice of every sweep, and one step of the shutdown.
    pub(super) fn advance_sweeps(&mut self) {
        for index in 0..self.sweeps.running.len() {
            self.advance_sweep(index);
        }
        self.end_sweeps();
        self.advance_shutdown();
    }

    fn advance_sweep(&mut self, index: usize) {
        let slice = self.config.sweep_slice.max(1);
        let Some(sweep) = self.sweeps.running.get_mut(index) else { return };
        let (id, what, running_for) = (sweep.id, sweep.what.clone(), self.now.since(sweep.paced.start));
        if let Some(mut scan) = sweep.scan.take() {
            let end = (scan.at + slice).min(self.slots_end());
            for slot in scan.at..end {
                let Some(client) = self.client_at(slot) else { continue };
                // Accepted before the sweep began is not enough: it may have opened since.
                let older = !is_newer(client.id().generation(), scan.newest, self.generation)
                    && client.age() >= running_for;
                let eligible = matches!(what, What::Terminate) || client.state() == State::Open;
                if !older || !eligible || !(scan.predicate)(&client) {
                    continue;
                }
                let client = client.id();
                let Some(sweep) = self.sweeps.running.get_mut(index) else { return };
                sweep.report.matched += 1;
                sweep.outstanding += 1;
                if sweep.paced.find(client, &mut self.rng) {
                    self.sweep_one(id, &what, client, index);
                }
            }
            scan.at = end;
            let complete = end >= self.slots_end();
            if let Some(sweep) = self.sweeps.running.get_mut(index) {
                if complete {
                    sweep.paced.sort();
                } else {
                    sweep.scan = Some(scan);
                }
            }
        }
        self.skip_the_gone(index);
        let Some(sweep) = self.sweeps.running.get_mut(index).filter(|sweep| sweep.scan.is_none()) else {
            return;
        };
        for client in sweep.paced.take_due(self.now, slice) {
            self.sweep_one(id, &what, client, index);
        }
    }

    /// A paced sweep does not wait for the instant of those who have left before it.
    fn skip_the_gone(&mut self, index: usize) {
        while let Some(sweep) = self.sweeps.running.get(index).filter(|sweep| sweep.scan.is_none()) {
            let Some(&(_, next)) = sweep.paced.queue.get(sweep.paced.told) else { return };
            if self.find(next).is_some_and(|entry| entry.conn.state().is_established()) {
                return;
            }
            let Some(sweep) = self.sweeps.running.get_mut(index) else { return };
            sweep.paced.skip();
            sweep.report.matched -= 1;
            sweep.outstanding -= 1;
        }
    }

    /// Tells one connection. One that has ended, or is closing for another reason, no longer belongs to the sweep.
    fn sweep_one(&mut self, id: SweepId, what: &What, client: ConnectionId, index: usize) {
        let joined = self.with_id(client, |conn, cx| {
            match what {
                What::Close(frame) => {
                    if !conn.close(frame.clone(), Cause::LocalClose, Timing::default(), cx) {
                        return false;
                    }
                }
                What::Terminate => {
                    if !conn.terminate(None, cx) {
                        return false;
                    }
                }
            }
            conn.join_sweep(id);
            true
        });
        if joined != Some(true)
            && let Some(sweep) = self.sweeps.running.get_mut(index)
        {
            sweep.report.matched -= 1;
            sweep.outstanding -= 1;
        }
    }

    fn end_sweeps(&mut self) {
        let notes = &mut self.notes;
        self.sweeps.running.retain(|sweep| {
            let done = sweep.scan.is_none() && sweep.paced.is_done() && sweep.outstanding == 0;
            if done {
                notes.push_back(Note::SweepDone(sweep.id, sweep.report));
            }
            !done
        });
    }

    /// A connection has ended: the sweeps that it belonged to and the shutdown want to know.
    pub(super) fn book(&mut self, id: ConnectionId, ended: &Ended) {
        let closed = &ended.closed;
        self.sweeps.unbooked -= 1;
        for member in &ended.sweeps {
            if let Some(sweep) = self.sweeps.running.iter_mut().find(|sweep| sweep.id == *member) {
                sweep.outstanding -= 1;
                sweep.report.clean += u64::from(closed.was_clean());
                sweep.report.timed_out += u64::from(matches!(closed.cause, Cause::CloseTimeout { .. }));
                sweep.report.lost.add(&closed.lost);
            }
        }
        if !ended.sweeps.is_empty() {
            self.end_sweeps();
        }
        let peer = self.slots.get(id.slot()).map(|entry| entry.conn.peer());
        if let (Some(shutdown), Some(peer)) = (&mut self.sweeps.shutdown, peer) {
            let (state, queued, close_phase) = (ended.state, ended.queued, closed.close_phase);
            shutdown.report.count(closed, Slowest { id, peer, state, queued, close_phase });
        }
    }

    // The shutdown.

    /// How many loops go down as one. A paced sweep's rate is shared among them.
    pub const fn set_loops(&mut self, loops: usize) {
        self.sweeps.loops = loops;
    }

    /// Does what is asked, and keeps it for [`Hub::take_requests`].
    pub fn ask(&mut self, request: ShutdownRequest) {
        if self.sweeps.loops > 1 {
            self.sweeps.requests.push(request.clone());
        }
        self.obey(request);
    }

    /// Does what another loop was asked.
    pub fn obey(&mut self, request: ShutdownRequest) {
        match request {
            ShutdownRequest::Shutdown(plan) => self.shutdown(plan),
            ShutdownRequest::Escalate(by) => self.escalate(by),
            ShutdownRequest::Abort(by) => self.abort(by),
        }
    }

    /// What the other loops are to be told.
    pub fn take_requests(&mut self) -> Vec<ShutdownRequest> {
        std::mem::take(&mut self.sweeps.requests)
    }

    /// Begins a shutdown. If one runs already, what is shorter in this plan than in that takes its place.
    fn shutdown(&mut self, plan: ShutdownPlan) {
        let now = self.now;
        let live = self.stats.open + self.stats.closing + self.sweeps.unbooked;
        let Some(shutdown) = &mut self.sweeps.shutdown else {
            let mut shutdown = Box::new(Shutdown::new(plan, now));
            shutdown.report.live_at_start = live as u64;
            self.sweeps.shutdown = Some(shutdown);
            return;
        };
        let (lame_duck, grace) =
            (shutdown.plan.lame_duck.min(plan.lame_duck), shutdown.plan.grace.min(plan.grace));
        let shorter = lame_duck < shutdown.plan.lame_duck || grace < shutdown.plan.grace;
        (shutdown.plan.lame_duck, shutdown.plan.grace) = (lame_duck, grace);
        if plan.pace == Pace::AtOnce
            && shutdown.plan.pace != Pace::AtOnce
            && shutdown.phase <= Phase::SoftSweep
        {
            shutdown.hurry(now);
            shutdown.report.escalated_by.get_or_insert(Escalation::Shutdown);
        }
        match shutdown.phase {
            Phase::LameDuck => shutdown.phase_ends = shutdown.phase_ends.min(now.after(lame_duck)),
            Phase::Grace => shutdown.phase_ends = shutdown.phase_ends.min(now.after(grace)),
            Phase::Serving | Phase::SoftSweep | Phase::HardSweep | Phase::Done => {}
        }
        if shorter && shutdown.phase < Phase::HardSweep {
            shutdown.report.escalated_by.get_or_insert(Escalation::Shutdown);
        }
    }

    /// Takes a running shutdown to its next phase.
    fn escalate(&mut self, by: Escalation) {
        let now = self.now;
        let Some(shutdown) = &mut self.sweeps.shutdown else { return };
        match shutdown.phase {
            Phase::Serving => shutdown.plan.lame_duck = Duration::ZERO,
            Phase::LameDuck | Phase::Grace => shutdown.phase_ends = now,
            // The rest of the Close frames go out at once.
            Phase::SoftSweep => shutdown.hurry(now),
            Phase::HardSweep | Phase::Done => return,
        }
        shutdown.report.escalated_by.get_or_insert(by);
    }

    /// Takes a running shutdown to its hard sweep.
    fn abort(&mut self, by: Escalation) {
        let Some(shutdown) = self.sweeps.shutdown.as_mut().filter(|s| s.phase < Phase::HardSweep) else {
            return;
        };
        shutdown.report.escalated_by.get_or_insert(by);
        self.enter(Phase::HardSweep);
    }

    fn advance_shutdown(&mut self) {
        let Some(shutdown) = &self.sweeps.shutdown else { return };
        let (now, grace) = (self.now, shutdown.plan.grace);
        match shutdown.phase {
            Phase::Serving if shutdown.plan.lame_duck.is_zero() => self.enter_soft_sweep(),
            Phase::Serving => {
                let ends = now.after(shutdown.plan.lame_duck);
                self.enter(Phase::LameDuck);
                self.set_phase_end(ends);
            }
            Phase::LameDuck if shutdown.phase_ends <= now => self.enter_soft_sweep(),
            Phase::SoftSweep => {
                self.soft_sweep_slice();
                if self.sweeps.shutdown.as_ref().is_some_and(|s| s.scanned && s.paced.is_done()) {
                    self.enter(Phase::Grace);
                    self.set_phase_end(now.after(grace));
                }
            }
            Phase::Grace if self.slots.is_empty() => self.enter_done(),
            Phase::Grace if shutdown.phase_ends <= now => self.enter(Phase::HardSweep),
            Phase::HardSweep => self.hard_sweep_slice(),
            Phase::LameDuck | Phase::Grace | Phase::Done => {}
        }
    }

    fn set_phase_end(&mut self, at: Time) {
        if let Some(shutdown) = &mut self.sweeps.shutdown {
            shutdown.phase_ends = at;
        }
    }

    fn enter(&mut self, phase: Phase) {
        let (now, stats) = (self.now, self.stats);
        let Some(shutdown) = &mut self.sweeps.shutdown else { return };
        if shutdown.phase != Phase::Serving {
            let timing = PhaseTiming {
                phase: shutdown.phase,
                start: shutdown.phase_began.since(shutdown.asked),
                length: now.since(shutdown.phase_began),
            };
            shutdown.report.phases.push(timing);
        }
        shutdown.phase = phase;
        shutdown.phase_began = now;
        (shutdown.at, shutdown.scanned) = (0, false);
        self.notes.push_back(Note::Phase(phase, stats));
    }

    /// The latch: from here on no handshake becomes a connection.
    fn enter_soft_sweep(&mut self) {
        let now = self.now;
        self.enter(Phase::SoftSweep);
        #[expect(clippy::cast_precision_loss, reason = "a handful of loops")]
        let loops = self.sweeps.loops as f64;
        if let Some(shutdown) = &mut self.sweeps.shutdown {
            let pace = match shutdown.plan.pace {
                Pace::Rate(per_second) => Pace::Rate(per_second / loops),
                pace => pace,
            };
            shutdown.paced = Paced::new(pace, now);
        }
    }

    fn soft_sweep_slice(&mut self) {
        let Some(mut shutdown) = self.sweeps.shutdown.take() else { return };
        let slice = self.config.sweep_slice.max(1);
        if !shutdown.scanned {
            let end = (shutdown.at + slice).min(self.slots_end());
            for slot in shutdown.at..end {
                let Some(entry) = self.slots.get(slot) else { continue };
                if entry.conn.state() == State::Connecting
                    && (entry.conn.is_client() || !entry.conn.has_request_bytes())
                {
                    shutdown.report.handshakes_cut += 1;
                    self.with(slot, super::super::conn::Conn::sweep_silent);
                }
                let Some(client) = self.client_at(slot).filter(|client| client.state() == State::Open) else {
                    continue;
                };
                let client = client.id();
                if shutdown.paced.find(client, &mut self.rng) {
                    self.close_softly(client, &shutdown.plan.frame);
                }
            }
            shutdown.at = end;
            shutdown.scanned = end >= self.slots_end();
            if shutdown.scanned {
                shutdown.paced.sort();
            }
        }
        if shutdown.scanned {
            for client in shutdown.paced.take_due(self.now, slice) {
                self.close_softly(client, &shutdown.plan.frame);
            }
        }
        self.sweeps.shutdown = Some(shutdown);
    }

    fn close_softly(&mut self, client: ConnectionId, frame: &CloseFrame) {
        self.with_id(client, |conn, cx| {
            conn.close(frame.clone(), Cause::ShutdownSoft, Timing::default(), cx)
        });
    }

    fn hard_sweep_slice(&mut self) {
        let Some(mut shutdown) = self.sweeps.shutdown.take() else { return };
        let style: Option<Abort> = shutdown.plan.abort;
        let end = (shutdown.at + self.config.sweep_slice.max(1)).min(self.slots_end());
        for slot in shutdown.at..end {
            let Some(entry) = self.slots.get(slot) else { continue };
            if entry.conn.state() == State::Connecting {
                shutdown.report.handshakes_cut += 1;
            }
            self.with(slot, |conn, cx| conn.hard_sweep(style, cx));
        }
        // Whoever is in an earlier slot now was accepted since; the listeners are closed, so that ends.
        shutdown.at = if end >= self.slots_end() { 0 } else { end };
        self.sweeps.shutdown = Some(shutdown);
        if self.slots.is_empty() {
            self.enter_done();
        }
    }

    fn enter_done(&mut self) {
        let now = self.now;
        // Nobody is left, so whoever a paced sweep would still tell has ended.
        for sweep in &mut self.sweeps.running {
            let gone = sweep.paced.forget();
            sweep.scan = None;
            sweep.report.matched -= gone;
            sweep.outstanding -= gone;
        }
        self.end_sweeps();
        let longest = self.sweeps.longest_callback;
        self.enter(Phase::Done);
        if let Some(shutdown) = &mut self.sweeps.shutdown {
            shutdown.report.took = now.since(shutdown.asked);
            shutdown.report.longest_callback = longest;
        }
    }
}

/// Whether a generation began after `newest` did, which was the newest once; generations wrap.
const fn is_newer(generation: u32, newest: u32, current: u32) -> bool {
    generation != newest && generation.wrapping_sub(newest) <= current.wrapping_sub(newest)
}

impl ShutdownReport {
    /// Adds the report of another loop that went down at the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        for theirs in &other.phases {
            match self.phases.iter_mut().find(|mine| mine.phase == theirs.phase) {
                Some(mine) => {
                    mine.start = mine.start.min(theirs.start);
                    mine.length = mine.length.max(theirs.length);
                }
                None => self.phases.push(*theirs),
            }
        }
        self.phases.sort_by_key(|timing| timing.phase);
        self.live_at_start += other.live_at_start;
        self.refused_503 += other.refused_503;
        self.handshakes_cut += other.handshakes_cut;
        self.clean += other.clean;
        self.by_peer += other.by_peer;
        self.timed_out += other.timed_out;
        self.terminated += other.terminated;
        self.failed += other.failed;
        for (mine, theirs) in self.close_phases.iter_mut().zip(other.close_phases) {
            *mine += theirs;
        }
        self.lost.add(&other.lost);
        self.slowest.extend(other.slowest);
        self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.close_phase));
        self.slowest.truncate(SLOWEST);
        self.escalated_by = self.escalated_by.or(other.escalated_by);
        self.longest_callback = self.longest_callback.max(other.longest_callback);
        self.took = self.took.max(other.took);
    }

    fn count(&mut self, closed: &Closed, slow: Slowest) {
        *match closed.cause {
            Cause::LocalClose | Cause::Kicked | Cause::ShutdownSoft | Cause::Crossed => &mut self.clean,
            Cause::PeerClose
            | Cause::PeerFin
            | Cause::PeerFinDuringClose
            | Cause::PeerReset
            | Cause::PeerResetDuringClose => &mut self.by_peer,
            Cause::CloseTimeout { .. } => &mut self.timed_out,
            Cause::Terminated | Cause::ShutdownHard => &mut self.terminated,
            Cause::Protocol(_)
            | Cause::TooBig { .. }
            | Cause::InvalidUtf8
            | Cause::Overflow { .. }
            | Cause::HeartbeatTimeout
            | Cause::Internal
            | Cause::WriteStall
            | Cause::Io(_) => &mut self.failed,
        } += 1;
        let bucket = CLOSE_PHASE_BUCKETS.iter().take_while(|bound| closed.close_phase > **bound).count();
        if let Some(count) = self.close_phases.get_mut(bucket) {
            *count += 1;
        }
        self.lost.add(&closed.lost);
        let place = self.slowest.iter().take_while(|other| other.close_phase >= slow.close_phase).count();
        if place < SLOWEST {
            self.slowest.insert(place, slow);
            self.slowest.truncate(SLOWEST);
        }
    }
}
