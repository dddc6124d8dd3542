//! The connections of a loop: their slots, the run queue, the event queue, and what happens to one of them.
//!
//! Nothing here is re-entrant: a callback only ever leaves events and pending work behind, which the
//! [driver](super::driver) takes up when the callback has returned. A slot is freed by the last action of its connection,
//! when all its events are delivered.

use std::{
    collections::{BTreeMap, VecDeque},
    mem,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use slab::Slab;

use super::{
    admission::Admission,
    client::{Client, Predicate},
    deadlines::Deadlines,
    slot::{Share, Slot},
    slots::SlotSet,
    sweep::Sweeps,
    timers::Timers,
    transport::Readiness,
};
use crate::{
    close::{Cause, CloseFrame, CloseTiming},
    config::Config,
    conn::{Common, Conn, Context, Listed, Pending, QueuedEvent, State},
    detach::Handover,
    error::{ConnectionLimit, HandshakeError, ProxyFault},
    event::{Event, SourceId, Stats},
    id::{ConnectionId, MAX_SLOTS},
    newcomer::{HeaderRule, Newcomer},
    shutdown::{ShutdownPhase, ShutdownReport},
    stats::{Cap, Caps, LoopStats, SlowCallback},
    time::Time,
    wire::keys::MaskKeys,
};

/// All connections of one loop. `D` is what the application keeps for each.
pub(crate) struct Hub<D> {
    pub(super) config: Config,
    pub(super) loop_number: u8,
    pub(super) now: Time,
    pub(super) slots: Slab<Slot<D>>,
    /// The slots that are in use.
    pub(super) used: SlotSet,
    pub(super) generation: u32,
    pub(super) admission: Admission,
    pub(super) deadlines: Deadlines,
    pub(super) common: Common,
    /// The event queue.
    pub(super) event_queue: VecDeque<QueuedEvent>,
    /// The run queue: slots with something pending for the driver.
    pub(super) run: VecDeque<u32>,
    /// Of the next turn's run queue, those that had nothing of this turn because its budget was used up: they come first.
    pub(super) unserved: VecDeque<u32>,
    /// The others: those whose share of this turn is used up.
    pub(super) served: VecDeque<u32>,
    /// The slot that is being read. It enters the run queue when its read is over: a large reply is written before that,
    /// and then there is nothing to list.
    pub(super) reading: Option<u32>,
    /// The application is looking at this slot's request.
    pub(super) deciding: Option<usize>,
    /// Connections whose timers were started since the clock was read last: they start when the callback has returned.
    pub(super) unarmed: Vec<Unarmed>,
    /// The connection whose `Close` was delivered last: its data is dropped when the callback has returned.
    pub(super) drop_data_of: Option<usize>,
    pub(super) turn: Turn,
    pub(super) stats: Stats,
    pub(super) timers: Timers,
    /// What the application's own sources have become, of those whose event waits.
    pub(super) ready_sources: BTreeMap<SourceId, Readiness>,
    pub(super) sweeps: Sweeps<Predicate<D>>,
    /// By slot, what the TLS handshake of a connection has agreed on, until the application has decided on its request.
    #[cfg(feature = "tls")]
    pub(super) secured: std::collections::HashMap<usize, Box<crate::config::TlsSession>>,
    /// Ciphertext that was read after the PROXY header of the slot that is being read.
    #[cfg(feature = "tls")]
    pub(super) early: Option<Vec<u8>>,
    /// A shutdown was asked for, of this loop or of one that shuts down with it: handles look at it.
    pub(super) shutdown_asked: Arc<AtomicBool>,
}

/// A connection whose timers are to start when the present callback has returned.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unarmed {
    pub(super) id: ConnectionId,
    /// Its deadline, if it had one already that was made shorter.
    pub(super) before: Option<Time>,
}

/// What is left of the present turn (specification, section 3).
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Tells turns apart; wraps.
    pub(super) number: u8,
    /// The generation of the connection that came last before it.
    pub(super) last_generation: u32,
    /// When it began.
    pub(super) began: Time,
    pub(super) bytes: usize,
    /// The same for what layers compute for handshakes, so that those who are there do not wait for those who come.
    pub(super) handshakes: usize,
    pub(super) callbacks: u32,
    pub(super) judgements: usize,
    /// What is due until then is judged in this turn, and each connection once.
    pub(super) judged_until: Option<Time>,
    /// Bytes that the read of the present slot left unparsed when the last event of it was made.
    pub(super) unparsed: usize,
    /// A message was inflated.
    pub(super) inflated: bool,
}

/// Slots and events for which room is kept when there are none.
pub(super) const KEPT_CAPACITY: usize = 4096;

impl<D> std::fmt::Debug for Hub<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("now", &self.now).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<D> Hub<D> {
    /// An empty hub. `loop_number` is part of its ids; `seed` is for the instants of a spread sweep, and for the masks
    /// and keys of connections of our own, which must be unpredictable (§5.3): take it from the system's entropy.
    pub(super) fn new(config: Config, loop_number: u8, seed: u64) -> Self {
        Self {
            admission: Admission::new(&config.event_loop),
            loop_number,
            now: Time::ZERO,
            slots: Slab::new(),
            used: SlotSet::default(),
            generation: 0,
            deadlines: Deadlines::default(),
            common: Common::new(&config.event_loop, MaskKeys::new(seed)),
            event_queue: VecDeque::new(),
            run: VecDeque::new(),
            unserved: VecDeque::new(),
            served: VecDeque::new(),
            reading: None,
            deciding: None,
            unarmed: Vec::new(),
            drop_data_of: None,
            turn: Turn::default(),
            stats: Stats::default(),
            timers: Timers::default(),
            ready_sources: BTreeMap::new(),
            sweeps: Sweeps::new(seed),
            #[cfg(feature = "tls")]
            secured: std::collections::HashMap::new(),
            #[cfg(feature = "tls")]
            early: None,
            shutdown_asked: Arc::default(),
            config,
        }
    }

    /// Connections get generations after `last` from now on: for a loop that takes over the number of another one, so that
    /// no id is given out twice.
    pub(super) const fn continue_generations(&mut self, last: u32) {
        self.generation = last;
    }

    /// The generation of the connection that came last.
    pub(super) const fn generation(&self) -> u32 {
        self.generation
    }

    /// The settings.
    pub(super) const fn config(&self) -> &Config {
        &self.config
    }

    /// How many connections there are, by state. O(1).
    pub(super) const fn stats(&self) -> Stats {
        let mut stats = self.stats;
        stats.internal_errors = self.common.internal_errors;
        stats.backlog_total = self.common.output.backlog_total();
        stats
    }

    /// All that is counted. What only the server knows is zero.
    pub(super) fn loop_stats(&self) -> LoopStats {
        let mut stats = LoopStats::default();
        self.write_loop_stats(&mut stats);
        stats
    }

    /// The same, copied once: it is written in each turn.
    pub(super) fn write_loop_stats(&self, stats: &mut LoopStats) {
        let (output, limit) = (&self.common.output, self.config.event_loop.max_backlog_total);
        stats.number = Some(self.loop_number);
        stats.connections = self.stats();
        stats.phase = self.phase();
        stats.totals = self.common.totals;
        stats.caps =
            Caps { backlog: Cap::new(output.queued(), limit), ..self.admission.caps(self.stats.total()) };
    }

    /// The phase of the shutdown.
    pub(super) fn phase(&self) -> ShutdownPhase {
        self.sweeps.phase()
    }

    /// False from the call of `shutdown` on.
    pub(super) fn is_ready(&self) -> bool {
        !self.shutdown_asked.load(Ordering::Acquire)
    }

    /// Whether the listeners are to stay open.
    pub(super) fn is_listening(&self) -> bool {
        self.sweeps.is_listening()
    }

    /// The report, once the phase is [`ShutdownPhase::Done`].
    pub(super) fn shutdown_report(&self) -> Option<&ShutdownReport> {
        self.sweeps.report()
    }

    /// A callback has taken long.
    pub(super) fn note_callback(&mut self, slow: SlowCallback) {
        self.sweeps.handle_callback(slow.took, slow.id);
        self.common.totals.count_callback(slow);
    }

    /// The established connection of a slot.
    pub(super) fn client_at(&self, slot: usize) -> Option<Client<'_, D>> {
        let entry = self.slots.get(slot)?;
        if !entry.conn.state().is_established() {
            return None;
        }
        let key = u32::try_from(slot).ok()?;
        Client::new(ConnectionId::new(self.loop_number, key, entry.conn.generation), entry, self.now)
    }

    /// The id of the established connection in a slot.
    pub(super) fn id_at(&self, slot: usize) -> Option<ConnectionId> {
        self.client_at(slot).map(|client| client.id())
    }

    /// Whether a slot's connection is between its first Close, or its failure, and `Close`.
    pub(super) fn is_closing(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.state().is_closing())
    }

    // What the driver puts in.

    /// A connection was accepted. Returns its slot, or `None` if there are too many, in all or from there: close it.
    /// One that was refused, or the oldest handshake, may have to go for it.
    pub(super) fn accept(&mut self, newcomer: &Newcomer) -> Option<usize> {
        let refusal = if newcomer.header == HeaderRule::Impossible {
            Some(HandshakeError::ProxyHeader(ProxyFault::Untrusted))
        } else if !self.admission.admits(newcomer.counted_address()) {
            Some(HandshakeError::TooManyConnections { limit: ConnectionLimit::PerAddress })
        } else if !self.make_room() {
            Some(HandshakeError::TooManyConnections { limit: ConnectionLimit::Connections })
        } else {
            None
        };
        if let Some(error) = refusal {
            self.event_queue.push_back(QueuedEvent::Failed(None, newcomer.from.address(), error));
            return None;
        }
        self.common.totals.accepted += 1;
        let generation = self.next_generation();
        let conn = Conn::new(newcomer, generation, self.now);
        let slot = self.insert(conn, None);
        self.sweeps.handle_accepted(generation);
        let id = ConnectionId::new(self.loop_number, u32::try_from(slot).unwrap_or(u32::MAX), generation);
        if let Some(oldest) = self.admission.accepted(id, newcomer.counted_address()) {
            self.with(oldest, |conn, cx| conn.evict(ConnectionLimit::Handshakes, cx));
        }
        Some(slot)
    }

    /// Whether one more connection fits, after one may have been closed for it. Those that are closed do not count: their
    /// descriptors go before the turn ends.
    pub(super) fn make_room(&mut self) -> bool {
        if let Some(slot) = self.admission.next_to_evict(self.stats.total()) {
            self.with(slot, |conn, cx| conn.evict(ConnectionLimit::Connections, cx));
        }
        self.has_room()
    }

    /// Whether [`Hub::make_room`] would find room.
    pub(super) fn can_make_room(&self) -> bool {
        self.has_room()
            || self.admission.next_to_evict(self.stats.total()).is_some() && self.slots.len() < MAX_SLOTS
    }

    fn has_room(&self) -> bool {
        self.stats.total() < self.admission.max_connections() && self.slots.len() < MAX_SLOTS
    }

    pub(super) const fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    pub(super) fn insert(&mut self, conn: Conn, data: Option<D>) -> usize {
        let slot = self.slots.insert(Slot::new(conn, data));
        self.used.insert(slot);
        self.stats.connecting += 1;
        self.advance_deadline(slot);
        slot
    }

    /// When [`Hub::poll_judgement`] has something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let mut next = self.deadlines.next();
        for other in [self.timers.next(), self.poll_sweeps()].into_iter().flatten() {
            next = Some(next.map_or(other, |next| next.min(other)));
        }
        next
    }

    // What the driver takes out.

    /// The next event that waits. The data of a connection whose `Close` this returned is dropped by the next call.
    #[inline]
    pub(super) fn poll_event(&mut self) -> Option<Event<'static>> {
        if self.has_events() { self.pop_event() } else { None }
    }

    pub(super) fn pop_event(&mut self) -> Option<Event<'static>> {
        self.drop_data();
        let queued = self.event_queue.pop_front()?;
        Some(match queued {
            QueuedEvent::Open(id) => Event::Open { id },
            QueuedEvent::Drain(id) => Event::Drain { id },
            QueuedEvent::Closing(id, initiator, frame) => Event::Closing { id, initiator, frame },
            QueuedEvent::Failed(id, peer, cause) => {
                // One whose upgrade was deferred has none, and its slot may be another one's by now.
                self.drop_data_of = id.filter(|id| self.find(*id).is_some()).map(ConnectionId::slot);
                self.common.totals.handshakes_failed.count(cause);
                Event::HandshakeFailed { id, peer, error: cause }
            }
            QueuedEvent::AcceptFailed(error) => Event::AcceptFailed { error },
            QueuedEvent::SweepDone(sweep, report) => Event::SweepDone { sweep, report },
            QueuedEvent::Phase(phase, stats) => Event::Phase { phase, stats },
            QueuedEvent::Timer(id, key) => Event::Timer { id, key },
            QueuedEvent::Source(source) => {
                let Readiness { readable, writable, ended } =
                    self.ready_sources.remove(&source).unwrap_or_default();
                Event::Source { source, readable, writable, ended }
            }
            QueuedEvent::Close(id, ended) => {
                self.drop_data_of = Some(id.slot());
                self.record_close(id, &ended);
                Event::Close { id, report: ended.closed }
            }
        })
    }

    /// Whether [`Hub::poll_event`] has something.
    #[inline]
    pub(super) fn has_events(&self) -> bool {
        self.drop_data_of.is_some() || !self.event_queue.is_empty()
    }

    /// Frees a slot. Returns whether its descriptor is to be closed by a reset.
    pub(super) fn free(&mut self, slot: usize) -> bool {
        self.forget_secured(slot);
        let entry = self.slots.get(slot);
        let reset = entry.is_some_and(|entry| entry.conn.is_released_by_reset());
        if let Some(entry) = entry {
            self.sweeps.handle_released(entry.conn.generation);
        }
        self.deadlines.remove(u32::try_from(slot).unwrap_or(u32::MAX));
        self.slots.remove(slot);
        self.used.remove(slot);
        self.sweeps.closed -= 1;
        if self.slots.is_empty() {
            (self.slots, self.used) = (Slab::new(), SlotSet::default());
        }
        if self.slots.len() < self.slots.capacity() / 4 {
            self.shrink();
        }
        reset
    }

    /// Frees the slot of a connection that leaves the loop. Returns what goes with its stream.
    pub(super) fn free_detached(&mut self, slot: usize) -> Option<Box<Handover>> {
        self.common.totals.detached += 1;
        let handover = self.slots.get_mut(slot)?.conn.take_handover();
        self.free(slot);
        handover
    }

    pub(super) fn drop_data(&mut self) {
        if let Some(slot) = self.drop_data_of.take()
            && let (Some(entry), Ok(key)) = (self.slots.get_mut(slot), u32::try_from(slot))
        {
            entry.data = None;
            // It may be released now.
            list(&mut entry.conn, key, &mut self.run);
        }
    }

    /// One past the highest slot in use.
    pub(super) fn slots_end(&self) -> usize {
        self.used.end()
    }

    /// The first slot in use from `from` on.
    pub(super) fn next_slot(&self, from: usize) -> Option<usize> {
        self.used.next(from)
    }

    // Inside.

    /// Lets something happen to a connection, and records what follows from it: counters, the run queue, the deadline.
    #[inline]
    pub(super) fn with<R>(
        &mut self,
        slot: usize,
        happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        self.with_if(slot, |_| true, |conn, _, cx| happen(conn, cx))
    }

    #[inline]
    pub(super) fn with_if<R>(
        &mut self,
        slot: usize,
        meant: impl FnOnce(&Slot<D>) -> bool,
        happen: impl FnOnce(&mut Conn, &mut Share, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let Slot { conn, share, .. } = self.slots.get_mut(slot).filter(|entry| meant(entry))?;
        let before = conn.state();
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let id = ConnectionId::new(self.loop_number, key, conn.generation);
        let mut cx = Context {
            config: &self.config,
            common: &mut self.common,
            now: self.now,
            event_queue: &mut self.event_queue,
            id,
        };
        let result = happen(conn, share, &mut cx);
        let after = conn.state();
        if self.reading != Some(key) {
            list(conn, key, &mut self.run);
        }
        let may_be_earlier = conn.pending.take(Pending::DEADLINE);
        if before != after {
            self.record_transition(id, before, after);
        }
        if may_be_earlier {
            self.advance_deadline(slot);
        }
        Some(result)
    }

    /// A connection has another state.
    fn record_transition(&mut self, id: ConnectionId, before: State, after: State) {
        let Some(Slot { conn, .. }) = self.slots.get(id.slot()) else { return };
        if before.is_established() && !after.is_established() {
            self.sweeps.undelivered += 1;
            self.timers.clear_all(id);
            self.common.waiting.remove(id);
        }
        if !conn.is_client() {
            self.admission.changed(id, || conn.counted_address(), before, after);
        }
        if (before, after) == (State::Connecting, State::Open) {
            let totals = &mut self.common.totals;
            *if conn.is_client() { &mut totals.opened_outgoing } else { &mut totals.opened } += 1;
            self.sweeps.handle_opened(id, self.now);
        }
        if before == State::Open && after.is_closing() || after == State::Refusing {
            self.start_timers_on_return(id, None);
        }
        *self.counter(before) -= 1;
        *self.counter(after) += 1;
    }

    /// The same for a connection that an application names. `None` if the id is stale.
    pub(super) fn with_id<R>(
        &mut self,
        id: ConnectionId,
        happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let loop_number = self.loop_number;
        self.with_if(id.slot(), |entry| entry.is(id, loop_number), |conn, _, cx| happen(conn, cx))
    }

    /// Begins the closing handshake, or makes its deadline shorter. Returns whether it began.
    pub(super) fn close(&mut self, id: ConnectionId, frame: CloseFrame, timing: CloseTiming) -> bool {
        let deadline = |hub: &Self| hub.find(id).and_then(|entry| entry.conn.closing_deadline());
        let before = deadline(self);
        let begun = self.with_id(id, |conn, cx| conn.close(frame, Cause::LocalClose, timing, cx));
        if let (Some(before), Some(after)) = (before, deadline(self))
            && after < before
        {
            self.start_timers_on_return(id, Some(before));
        }
        begun.unwrap_or(false)
    }

    /// The timers of a connection start when the present callback has returned.
    pub(super) fn start_timers_on_return(&mut self, id: ConnectionId, before: Option<Time>) {
        if let Some(entry) = self.slots.get_mut(id.slot())
            && !mem::replace(&mut entry.unarmed, true)
        {
            self.unarmed.push(Unarmed { id, before });
        }
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<&Slot<D>> {
        self.slots.get(id.slot()).filter(|entry| entry.is(id, self.loop_number))
    }

    fn counter(&mut self, state: State) -> &mut usize {
        match state {
            State::Connecting | State::Refusing => &mut self.stats.connecting,
            State::Open => &mut self.stats.open,
            State::LocalClosing | State::RemoteClosing | State::Failing => &mut self.stats.closing,
            State::Lingering => &mut self.stats.lingering,
            State::Closed => &mut self.sweeps.closed,
        }
    }

    /// Moves the deadline to an earlier moment; a later one is found out when the present one fires.
    pub(super) fn advance_deadline(&mut self, slot: usize) {
        let Some(entry) = self.slots.get(slot) else { return };
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let Some(at) = entry.conn.deadline(&self.config) else { return };
        // What falls due while this turn judges is for the next one: no slot is probed twice in a turn.
        let earliest = self.turn.judged_until.map(|until| until.after(Duration::from_micros(1)));
        let at = earliest.map_or(at, |earliest| at.max(earliest));
        if self.deadlines.due(key).is_none_or(|due| at < due) {
            self.deadlines.set(key, at);
        }
    }
}

/// Puts a connection with something pending into the run queue of this turn, unless it is there, or in the next one's and
/// can wait.
#[inline]
pub(super) fn list(conn: &mut Conn, key: u32, run: &mut VecDeque<u32>) {
    let listed = match conn.listed {
        Listed::No => conn.pending.is_idle(),
        Listed::Now => true,
        Listed::Next => !conn.pending.is_urgent(),
    };
    if !listed {
        conn.listed = Listed::Now;
        run.push_back(key);
    }
}
