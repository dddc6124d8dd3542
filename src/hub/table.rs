//! The connections of a loop: their slots, the run queue, the event queue, and what happens to one of them.
//!
//! Nothing here is re-entrant: a callback only ever leaves events and pending work behind, which the
//! [driver](super::driver) takes up when the callback has returned. A slot is freed by the last action of its connection,
//! when all its events are delivered.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::SocketAddr,
    time::Duration,
};

use slab::Slab;

use super::{
    admission::Admission,
    client::{Client, Predicate},
    deadlines::Deadlines,
    handler::Handler,
    slot::{Share, Slot},
    slots::SlotSet,
    sweep::Sweeps,
};
use crate::{
    config::{Abort, Config},
    conn::{Conn, Context, Cork, Cursor, Deflate, Item, Listed, Note, Probe, State, Todo, Transmitted},
    error::HandshakeCause,
    event::{Data, Event, Message, Stats},
    id::{ConnectionId, MAX_SLOTS},
    shutdown::{Phase, ShutdownReport},
    time::Time,
    wire::{header::Opcode, keys::MaskKeys},
};

/// All connections of one loop. `D` is what the application keeps for each.
pub(crate) struct Hub<D> {
    pub(super) config: Config,
    pub(super) worker: u8,
    pub(super) now: Time,
    pub(super) slots: Slab<Slot<D>>,
    /// The slots that are in use.
    used: SlotSet,
    pub(super) generation: u32,
    pub(super) admission: Admission,
    deadlines: Deadlines,
    pub(super) cork: Cork,
    deflate: Deflate,
    /// The event queue.
    pub(super) notes: VecDeque<Note>,
    /// The run queue: slots with something pending for the driver.
    run: VecDeque<u32>,
    /// Of the next turn's run queue, those that had nothing of this turn because its budget was used up: they come first.
    unserved: VecDeque<u32>,
    /// The others: those whose share of this turn is used up.
    served: VecDeque<u32>,
    /// The slot that is being read. It enters the run queue when its read is over: a large reply is written before that,
    /// and then there is nothing to list.
    reading: Option<u32>,
    /// The application is looking at this slot's request.
    pub(super) deciding: Option<usize>,
    /// Connections that began to close since the clock was read last.
    began_closing: Vec<u32>,
    /// The connection whose `Close` was delivered last: its data is dropped when the callback has returned.
    drop_data_of: Option<usize>,
    pub(super) turn: Turn,
    pub(super) stats: Stats,
    pub(super) sweeps: Sweeps<Predicate<D>>,
}

/// What is left of the present turn (specification, section 3).
#[derive(Debug, Default)]
pub(super) struct Turn {
    /// Tells turns apart; wraps.
    number: u8,
    bytes: usize,
    callbacks: u32,
    judgements: usize,
    /// Bytes that the read of the present slot left unparsed when the last event of it was made.
    pub(super) unparsed: usize,
    /// A message was inflated.
    inflated: bool,
}

/// Slots and events for which room is kept when there are none.
const ROOM: usize = 4096;

/// What a driver has to do next for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Deliver what [`Hub::poll_event`] has now.
    Deliver,
    /// Offer what is queued to the kernel.
    Write(usize),
    /// Read from this slot's socket although it has not become readable anew.
    Read(usize),
    /// Find or connect to what [`Hub::target`] says.
    Connect(usize),
    /// Shut down the sending side.
    Fin(usize),
    /// End it in this style, never [`Abort::Auto`].
    Abort(usize, Abort),
    /// Close the descriptor, with a reset if the flag says so. The slot is free and may be given out again.
    Release(usize, bool),
}

/// A slot whose deadline is due.
#[derive(Clone, Copy, Debug)]
pub(super) struct Judgement {
    pub(super) slot: usize,
    /// Where the connection is in its life, before it is probed.
    state: State,
    pub(super) probe: Probe,
}

/// Where the next bytes of a connection come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextRead {
    Socket,
    /// They were read before.
    Held,
    /// It is not to be read.
    None,
    /// It has had its share of the turn.
    Later,
}

impl<D> std::fmt::Debug for Hub<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("now", &self.now).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<D> Hub<D> {
    /// An empty hub. `worker` goes into its ids; `seed` is for the instants of a spread sweep, and for the masks
    /// and keys of connections of our own, which must be unpredictable (§5.3): take it from the system's entropy.
    pub(super) fn new(config: Config, worker: u8, seed: u64) -> Self {
        Self {
            admission: Admission::new(&config),
            config,
            worker,
            now: Time::ZERO,
            slots: Slab::new(),
            used: SlotSet::default(),
            generation: 0,
            deadlines: Deadlines::default(),
            cork: Cork::new(MaskKeys::new(seed)),
            deflate: Deflate::default(),
            notes: VecDeque::new(),
            run: VecDeque::new(),
            unserved: VecDeque::new(),
            served: VecDeque::new(),
            reading: None,
            deciding: None,
            began_closing: Vec::new(),
            drop_data_of: None,
            turn: Turn::default(),
            stats: Stats::default(),
            sweeps: Sweeps::new(seed),
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
        self.stats
    }

    /// The phase of the shutdown.
    pub(super) fn phase(&self) -> Phase {
        self.sweeps.phase()
    }

    /// False from the call of `shutdown` on.
    pub(super) const fn is_ready(&self) -> bool {
        self.sweeps.is_ready()
    }

    /// Whether the listeners are to stay open.
    pub(super) fn is_listening(&self) -> bool {
        self.sweeps.is_listening()
    }

    /// The report, once the phase is [`Phase::Done`].
    pub(super) fn shutdown_report(&self) -> Option<&ShutdownReport> {
        self.sweeps.report()
    }

    /// Tells the report of a running shutdown about a callback: how long it took, and whose event it was.
    pub(super) fn note_callback(&mut self, took: Duration, id: Option<ConnectionId>) {
        self.sweeps.handle_callback(took, id);
    }

    /// The established connection of a slot.
    pub(super) fn client_at(&self, slot: usize) -> Option<Client<'_, D>> {
        let entry = self.slots.get(slot)?;
        if !entry.conn.state().is_established() {
            return None;
        }
        let key = u32::try_from(slot).ok()?;
        Client::new(ConnectionId::new(self.worker, key, entry.conn.generation), entry, self.now)
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

    /// A turn begins: what the one before put off is served first, and every share is whole again.
    pub(super) fn begin_turn(&mut self) {
        self.finish_read();
        self.turn = Turn {
            number: self.turn.number.wrapping_add(1),
            bytes: self.config.turn_bytes,
            callbacks: self.config.turn_callbacks,
            judgements: 0,
            unparsed: 0,
            inflated: false,
        };
        while let Some(key) = self.unserved.pop_front().or_else(|| self.served.pop_front()) {
            if let Some(Slot { conn, .. }) = self.slots.get_mut(key as usize)
                && conn.listed == Listed::Next
            {
                conn.listed = Listed::Now;
                self.run.push_back(key);
            }
        }
    }

    /// The clock was read, and no callback has run since it was read last: everything until the next call happens at `now`.
    pub(super) fn set_now(&mut self, now: Time) {
        self.began_closing.clear();
        self.now = self.now.max(now);
    }

    /// The clock was read after a callback: what it has asked for begins now. Timers of connections that began to close
    /// since the clock was read last start at `now`.
    pub(super) fn callback_returned(&mut self, now: Time) {
        let by = now.since(self.now);
        self.now = self.now.max(now);
        if self.began_closing.is_empty() {
            return;
        }
        for key in self.began_closing.drain(..) {
            if let Some(entry) = self.slots.get_mut(key as usize) {
                entry.conn.shift_timers(by);
            }
        }
        self.began_closing.shrink_to(ROOM);
    }

    /// Whether a connection began to close since the clock was read last.
    pub(super) const fn has_unarmed(&self) -> bool {
        !self.began_closing.is_empty()
    }

    /// The turn has done as much as one may: the rest is the next one's.
    #[inline]
    pub(super) const fn is_over_budget(&self) -> bool {
        self.turn.bytes == 0 || self.turn.callbacks == 0
    }

    /// A callback is about to be called.
    #[inline]
    pub(super) const fn note_callback_begins(&mut self) {
        self.turn.callbacks = self.turn.callbacks.saturating_sub(1);
    }

    /// The turn has called as many callbacks as one may.
    pub(super) const fn is_out_of_callbacks(&self) -> bool {
        self.turn.callbacks == 0
    }

    /// `n` bytes are about to be parsed.
    pub(super) const fn begin_parsing(&mut self, n: usize) {
        self.turn.unparsed = n;
    }

    /// If the turn is over its budget because of what was inflated: keeps the rest of a read for the next turn.
    pub(super) fn hold_if_inflated(&mut self, slot: usize, cursor: &mut Cursor<'_>) {
        if self.turn.inflated && self.is_over_budget() && cursor.remaining() > 0 {
            self.hold(slot, cursor.take_all());
        }
    }

    /// A TCP connection was accepted. Returns its slot, or `None` if there are too many, in all or from there: close it.
    /// One that was refused, or the oldest handshake, may have to go for it.
    pub(super) fn accept(&mut self, peer: SocketAddr) -> Option<usize> {
        if !self.admission.admits(peer) || !self.make_room() {
            self.notes.push_back(Note::Failed(None, peer, HandshakeCause::TooManyConnections));
            return None;
        }
        let generation = self.next_generation();
        let conn = Conn::new(peer, generation, self.now);
        let slot = self.insert(conn, None);
        self.sweeps.handle_accepted(generation);
        let id = ConnectionId::new(self.worker, u32::try_from(slot).unwrap_or(u32::MAX), generation);
        if let Some(oldest) = self.admission.accepted(id, peer) {
            self.with(oldest, Conn::evict);
        }
        Some(slot)
    }

    /// Whether one more connection fits, after one may have been closed for it. Those that are closed do not count: their
    /// descriptors go before the turn ends.
    pub(super) fn make_room(&mut self) -> bool {
        if let Some(slot) = self.admission.next_to_evict(self.stats.total()) {
            self.with(slot, Conn::evict);
        }
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
        self.set_alarm(slot);
        slot
    }

    /// Whether the socket of this slot is to be read now. If not, an [`Action::Read`] will say when.
    pub(super) fn wants_read(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.wants_read())
    }

    /// Where the next bytes of a slot come from, and takes that read off its share of the turn. What was read earlier, and
    /// could not be parsed because the connection was paused, is moved to `held`.
    #[inline]
    pub(super) fn next_read(&mut self, slot: usize, held: &mut Vec<u8>) -> NextRead {
        let (turn, most) = (self.turn.number, self.config.reads_per_turn.max(1));
        let Some(entry) = self.slots.get_mut(slot) else { return NextRead::None };
        let reads = entry.share.of(turn).reads;
        let holds = entry.conn.has_held_to_parse();
        if !holds && !entry.conn.wants_read() {
            return NextRead::None;
        }
        if u32::from(reads) >= most {
            return NextRead::Later;
        }
        entry.share.reads = reads.saturating_add(1);
        if holds {
            *held = entry.conn.take_held();
            return NextRead::Held;
        }
        NextRead::Socket
    }

    /// What is left to read of this slot is the next turn's.
    pub(super) fn put_off_read(&mut self, slot: usize) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        entry.conn.todo.add(Todo::READ);
        self.put_off(slot);
    }

    /// Moves a slot to the next turn's run queue.
    fn put_off(&mut self, slot: usize) {
        let turn = self.turn.number;
        if let (Some(entry), Ok(key)) = (self.slots.get_mut(slot), u32::try_from(slot))
            && entry.conn.listed != Listed::Next
            && !entry.conn.todo.is_urgent()
        {
            entry.conn.listed = Listed::Next;
            let queue = if entry.share.of(turn).is_whole() { &mut self.unserved } else { &mut self.served };
            queue.push_back(key);
        }
    }

    /// `n` bytes of this slot were read.
    pub(super) fn handle_readable(&mut self, slot: usize, n: usize) {
        self.turn.bytes = self.turn.bytes.saturating_sub(n);
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.conn.note_inbound(n, self.now);
        }
    }

    /// A slot is about to be read: it does not enter the run queue before [`Hub::finish_read`].
    pub(super) fn begin_read(&mut self, slot: usize) {
        self.reading = u32::try_from(slot).ok();
    }

    pub(super) fn finish_read(&mut self) {
        if let Some(key) = self.reading.take()
            && let Some(Slot { conn, .. }) = self.slots.get_mut(key as usize)
        {
            list(conn, key, &mut self.run);
        }
    }

    /// Keeps bytes that were read and not parsed for the next turn.
    pub(super) fn hold(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.conn.hold(bytes);
        }
        self.put_off_read(slot);
    }

    /// The next event that the bytes under the cursor bring; `None` when they are used up. Upgrade requests go to
    /// `handler` at once. Deliver what [`Hub::poll_event`] has before each call.
    pub(super) fn next<'c, H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        cursor: &'c mut Cursor<'_>,
        handler: &mut H,
    ) -> Option<Event<'c>> {
        if cursor.remaining() == 0 {
            return None;
        }
        let conn = &self.slots.get(slot)?.conn;
        if conn.state() == State::Connecting {
            if conn.is_client() {
                self.next_response(slot, cursor);
            } else {
                self.next_head(slot, cursor, handler);
            }
            if !self.notes.is_empty() {
                return self.poll_event();
            }
        }
        let (item, id, closing, inflates) = self.with(slot, |conn, cx| {
            let item = conn.next(cursor, cx);
            (item, cx.id, conn.state() != State::Open, conn.coding().is_some())
        })?;
        let item = item?;
        self.turn.unparsed = cursor.remaining();
        if inflates && matches!(item, Item::JoinedMessage(_)) {
            // A few bytes may inflate to many.
            self.turn.bytes = self.turn.bytes.saturating_sub(cursor.scratch().len());
            self.turn.inflated = true;
        }
        Some(to_event(item, id, closing, cursor))
    }

    /// If the rest of a large message is due on this slot: the buffer to append it to as it comes from the socket,
    /// and how many bytes are due. Then call [`Hub::handle_direct`].
    pub(super) fn direct(&mut self, slot: usize, worth: u64) -> Option<(&mut Vec<u8>, u64)> {
        let (message, left) = self.slots.get_mut(slot)?.conn.direct(worth)?;
        self.cork.spares.lend(message);
        Some((message, left))
    }

    /// Bytes were appended to the buffer that [`Hub::direct`] lent, behind its first `from`.
    pub(super) fn handle_direct<'c>(
        &mut self,
        slot: usize,
        from: usize,
        cursor: &'c mut Cursor<'_>,
    ) -> Option<Event<'c>> {
        let (item, id, closing) = self.with(slot, |conn, cx| {
            let item = conn.handle_direct(from, cursor, cx);
            (item, cx.id, conn.state() != State::Open)
        })?;
        Some(to_event(item?, id, closing, cursor))
    }

    /// The peer's FIN was read.
    pub(super) fn handle_eof(&mut self, slot: usize) {
        self.with(slot, Conn::handle_eof);
    }

    /// The socket failed.
    pub(super) fn handle_reset(&mut self, slot: usize, kind: io::ErrorKind) {
        self.with(slot, |conn, cx| conn.handle_reset(kind, cx));
    }

    /// The kernel takes more from this slot again.
    pub(super) fn handle_writable(&mut self, slot: usize) {
        self.with(slot, |conn, _| conn.handle_writable());
    }

    /// Offers what is queued for this slot to `writer`, within its share of the turn. `writer` returns how much it took.
    ///
    /// # Errors
    /// The writer's, other than `WouldBlock`. Read what the peer may have sent before, then call
    /// [`Hub::handle_reset`].
    pub(super) fn transmit<W>(&mut self, slot: usize, writer: &mut W) -> io::Result<Transmitted>
    where
        W: FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        let (turn, most) = (self.turn.number, self.config.write_bytes_per_turn);
        let done = self.with_if(
            slot,
            |_| true,
            |conn, share, cx| {
                let share = share.of(turn);
                conn.todo.take(Todo::WRITE);
                let done = conn.transmit(share.writable(most), cx, writer)?;
                share.note_written(done.bytes);
                if done.more {
                    conn.todo.add(Todo::WRITE);
                }
                io::Result::Ok(done)
            },
        );
        let done = done.unwrap_or(Ok(Transmitted::default()))?;
        self.turn.bytes = self.turn.bytes.saturating_sub(done.bytes);
        Ok(done)
    }

    /// Whether a write is pending for this slot, its share of the turn allows it, and it is worth at least `worth` bytes:
    /// to write before the end of its input is dealt with, or while much is still in the processor's caches.
    pub(super) fn wants_write(&mut self, slot: usize, worth: usize) -> bool {
        let turn = self.turn.number;
        self.slots.get_mut(slot).is_some_and(|entry| {
            entry.conn.todo.has(Todo::WRITE)
                && entry.conn.buffered_amount() >= worth
                && entry.share.of(turn).writable(self.config.write_bytes_per_turn) > 0
        })
    }

    /// Whether a write is pending for this slot that must wait for the next turn.
    pub(super) fn has_put_off_write(&mut self, slot: usize) -> bool {
        let turn = self.turn.number;
        self.slots.get_mut(slot).is_some_and(|entry| {
            entry.conn.todo.has(Todo::WRITE)
                && entry.share.of(turn).writable(self.config.write_bytes_per_turn) == 0
        })
    }

    /// Bytes that were queued in this turn and wait to be written.
    pub(super) const fn corked(&self) -> usize {
        self.cork.bytes.len()
    }

    /// The next slot for which a write is all that is pending, in the middle of a turn: for writes that are not to wait for
    /// the turn's end. `None` leaves the rest to [`Hub::poll_action`].
    pub(super) fn poll_write(&mut self) -> Option<usize> {
        loop {
            let slot = *self.run.front()? as usize;
            if let Some(slot) = self.poll_mere_write(slot) {
                return Some(slot);
            }
            // What was written at once may still be listed, and must not keep the others waiting.
            let entry = self.slots.get_mut(slot);
            if entry.as_ref().is_some_and(|entry| !entry.conn.todo.is_idle()) {
                return None;
            }
            self.run.pop_front();
            if let Some(entry) = entry {
                entry.conn.listed = Listed::No;
            }
        }
    }

    /// Takes the slot at the front of the run queue if a write is all that is pending for it, and may be done now.
    #[inline]
    fn poll_mere_write(&mut self, slot: usize) -> Option<usize> {
        let (turn, most) = (self.turn.number, self.config.write_bytes_per_turn);
        let over = self.is_over_budget();
        let entry = self.slots.get_mut(slot)?;
        let now = entry.conn.todo == Todo::only_write() && entry.conn.listed == Listed::Now;
        if !now || over || entry.share.of(turn).writable(most) == 0 {
            return None;
        }
        self.run.pop_front();
        entry.conn.listed = Listed::No;
        entry.conn.todo.take(Todo::WRITE);
        Some(slot)
    }

    /// [`Action::Abort`] was carried out by closing the descriptor; the kernel held so many bytes that it had not got
    /// acknowledged.
    pub(super) fn handle_aborted(&mut self, slot: usize, kernel_unsent: Option<u32>) {
        self.with(slot, |conn, cx| conn.handle_aborted(kernel_unsent, false, cx));
    }

    /// [`Action::Abort`] was carried out by a FIN. The descriptor is still there and lingers: input that is unread, or
    /// still under way, would be answered by a reset if it were closed.
    pub(super) fn handle_aborted_by_fin(&mut self, slot: usize, kernel_unsent: Option<u32>) {
        self.with(slot, |conn, cx| conn.handle_aborted(kernel_unsent, true, cx));
    }

    /// When [`Hub::handle_timeout`] has something to do next.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match (self.deadlines.next(), self.poll_sweeps()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// The next slot whose deadline is due, and what to look at before it is judged by [`Hub::judge`]. A turn judges a
    /// slice of them.
    pub(super) fn poll_judgement(&mut self) -> Option<Judgement> {
        if self.turn.judgements >= self.config.sweep_slice.max(1)
            || (self.turn.judgements > 0 && self.is_over_budget())
        {
            return None;
        }
        let slot = self.deadlines.first_due(self.now)? as usize;
        self.turn.judgements += 1;
        let entry = self.slots.get_mut(slot)?;
        let due = entry.conn.deadline(&self.config).is_some_and(|at| at <= self.now);
        let probe = if due { entry.conn.probe(self.now, &self.config) } else { Probe::default() };
        if probe.read || probe.write {
            // Whatever it has had of this turn: a probe is a share of its own.
            entry.share = Share::whole(self.turn.number);
        }
        Some(Judgement { slot, state: entry.conn.state(), probe })
    }

    /// Carries out what is due for a slot, if it still is; and finds out when it is due next. `unread`: an answer to our Close
    /// was looked for, and there is more to read than one turn may.
    pub(super) fn judge(&mut self, Judgement { slot, state, .. }: Judgement, unread: bool) {
        let Ok(key) = u32::try_from(slot) else { return };
        let due = self.with(slot, |conn, cx| {
            // What the probe has brought about may be due as well, but it was not probed.
            let due = conn.state() == state && conn.deadline(cx.config).is_some_and(|at| at <= cx.now);
            if due && unread && conn.may_be_probed_again() {
                conn.handle_flush_budget(cx);
            } else if due {
                conn.handle_timeout(cx);
            }
            conn.todo.take(Todo::ALARM);
            conn.deadline(cx.config)
        });
        match due.flatten() {
            // What is due again at once is due in the next turn, when there has been a chance to write.
            Some(at) => self.deadlines.set(key, at.max(self.now.after(Duration::from_micros(1)))),
            None => self.deadlines.remove(key),
        }
    }

    // What the driver takes out.

    /// The next event that waits. The data of a connection whose `Close` this returned is dropped by the next call.
    #[inline]
    pub(super) fn poll_event(&mut self) -> Option<Event<'static>> {
        if self.has_events() { self.poll_note() } else { None }
    }

    fn poll_note(&mut self) -> Option<Event<'static>> {
        self.drop_data();
        let note = self.notes.pop_front()?;
        Some(match note {
            Note::Open(id) => Event::Open { id },
            Note::Drain(id) => Event::Drain { id },
            Note::Closing(id, initiator, frame) => Event::Closing { id, initiator, frame },
            Note::Failed(id, peer, cause) => {
                self.drop_data_of = id.map(ConnectionId::slot);
                Event::HandshakeFailed { id, peer, cause }
            }
            Note::SweepDone(sweep, report) => Event::SweepDone { sweep, report },
            Note::Phase(phase, stats) => Event::Phase { phase, stats },
            Note::Close(id, ended) => {
                self.drop_data_of = Some(id.slot());
                self.record_close(id, &ended);
                Event::Close { id, closed: ended.closed }
            }
        })
    }

    /// Whether [`Hub::poll_event`] has something.
    #[inline]
    pub(super) fn has_events(&self) -> bool {
        self.drop_data_of.is_some() || !self.notes.is_empty()
    }

    /// Whether there is something for this turn to deliver or do.
    #[inline]
    pub(super) fn has_work(&self) -> bool {
        self.has_events() || !self.run.is_empty()
    }

    /// Whether an event waits to be delivered.
    pub(super) fn has_undelivered(&self) -> bool {
        !self.notes.is_empty()
    }

    /// Whether something waits to be delivered or done: then a driver does not wait for its sockets.
    pub(super) fn has_more(&self) -> bool {
        !(self.notes.is_empty() && self.run.is_empty() && self.unserved.is_empty() && self.served.is_empty())
            || self.reading.is_some()
    }

    /// The next thing to do. Deliver what [`Hub::poll_event`] has before each call. When the turn is over its budget, or a
    /// connection over its share, what can wait is put off.
    pub(super) fn poll_action(&mut self) -> Option<Action> {
        self.drop_data();
        while let Some(&key) = self.run.front() {
            let slot = key as usize;
            // Most of them.
            if let Some(slot) = self.poll_mere_write(slot) {
                return Some(Action::Write(slot));
            }
            if let Some(action) = self.action(slot) {
                return Some(action);
            }
            self.run.pop_front();
            if let Some(entry) = self.slots.get_mut(slot)
                && entry.conn.listed == Listed::Now
            {
                entry.conn.listed = Listed::No;
                if !entry.conn.todo.is_idle() {
                    self.put_off(slot);
                }
            }
        }
        // After a sweep of many there is no need for so much room.
        if self.run.capacity() > ROOM || self.notes.capacity() > ROOM {
            (self.run, self.notes) = <(VecDeque<_>, VecDeque<_>)>::default();
        }
        None
    }

    fn action(&mut self, slot: usize) -> Option<Action> {
        let (turn, over) = (self.turn.number, self.is_over_budget());
        let entry = self.slots.get_mut(slot)?;
        let share = *entry.share.of(turn);
        let todo = &mut entry.conn.todo;
        if todo.take(Todo::ABORT) {
            Some(Action::Abort(slot, entry.conn.abort_due()))
        } else if !over && share.writable(self.config.write_bytes_per_turn) > 0 && todo.take(Todo::WRITE) {
            Some(Action::Write(slot))
        } else if todo.take(Todo::FIN) {
            Some(Action::Fin(slot))
        } else if !over && u32::from(share.reads) < self.config.reads_per_turn.max(1) && todo.take(Todo::READ)
        {
            Some(Action::Read(slot))
        } else if todo.take(Todo::CONNECT) {
            Some(Action::Connect(slot))
        } else if todo.take(Todo::RELEASE) {
            self.run.pop_front();
            Some(self.free(slot))
        } else if !over && !share.drained && todo.take(Todo::DRAIN) {
            entry.share.of(turn).drained = true;
            self.with(slot, Conn::report_drain);
            Some(Action::Deliver)
        } else {
            None
        }
    }

    /// Frees a slot.
    fn free(&mut self, slot: usize) -> Action {
        let entry = self.slots.get(slot);
        let reset = entry.is_some_and(|entry| entry.conn.exceeded_linger(&self.config));
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
        Action::Release(slot, reset)
    }

    fn drop_data(&mut self) {
        if let Some(entry) = self.drop_data_of.take().and_then(|slot| self.slots.get_mut(slot)) {
            entry.data = None;
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

    /// Lets something happen to a connection, and keeps the books about it.
    #[inline]
    pub(super) fn with<R>(
        &mut self,
        slot: usize,
        happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        self.with_if(slot, |_| true, |conn, _, cx| happen(conn, cx))
    }

    #[inline]
    fn with_if<R>(
        &mut self,
        slot: usize,
        meant: impl FnOnce(&Slot<D>) -> bool,
        happen: impl FnOnce(&mut Conn, &mut Share, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let Slot { conn, share, .. } = self.slots.get_mut(slot).filter(|entry| meant(entry))?;
        let before = conn.state();
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let id = ConnectionId::new(self.worker, key, conn.generation);
        let mut cx = Context {
            config: &self.config,
            cork: &mut self.cork,
            deflate: &mut self.deflate,
            now: self.now,
            notes: &mut self.notes,
            id,
        };
        let result = happen(conn, share, &mut cx);
        let after = conn.state();
        if self.reading != Some(key) {
            list(conn, key, &mut self.run);
        }
        let alarm = conn.todo.take(Todo::ALARM);
        if before != after {
            self.sweeps.undelivered += usize::from(before.is_established() && !after.is_established());
            if !conn.is_client() {
                self.admission.changed(id, || conn.peer(), before, after);
            }
            if (before, after) == (State::Connecting, State::Open) {
                self.sweeps.handle_opened(id, self.now);
            }
            if before == State::Open && after.is_closing() {
                self.began_closing.push(key);
            }
            *self.counter(before) -= 1;
            *self.counter(after) += 1;
        }
        if alarm {
            self.set_alarm(slot);
        }
        Some(result)
    }

    /// The same for a connection that an application names. `None` if the id is stale.
    pub(super) fn with_id<R>(
        &mut self,
        id: ConnectionId,
        happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let worker = self.worker;
        self.with_if(id.slot(), |entry| entry.is(id, worker), |conn, _, cx| happen(conn, cx))
    }

    pub(super) fn find(&self, id: ConnectionId) -> Option<&Slot<D>> {
        self.slots.get(id.slot()).filter(|entry| entry.is(id, self.worker))
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
    fn set_alarm(&mut self, slot: usize) {
        let Some(entry) = self.slots.get(slot) else { return };
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let Some(at) = entry.conn.deadline(&self.config) else { return };
        if self.deadlines.due(key).is_none_or(|due| at < due) {
            self.deadlines.set(key, at);
        }
    }
}

/// Puts a connection with something pending into the run queue of this turn, unless it is there, or in the next one's and
/// can wait.
#[inline]
fn list(conn: &mut Conn, key: u32, run: &mut VecDeque<u32>) {
    let listed = match conn.listed {
        Listed::No => conn.todo.is_idle(),
        Listed::Now => true,
        Listed::Next => !conn.todo.is_urgent(),
    };
    if !listed {
        conn.listed = Listed::Now;
        run.push_back(key);
    }
}

fn to_event<'c>(item: Item<'c>, id: ConnectionId, closing: bool, cursor: &'c mut Cursor<'_>) -> Event<'c> {
    match item {
        Item::Message(kind, payload) => {
            Event::Message { id, message: Message { kind, data: Data::Borrowed(payload) }, closing }
        }
        Item::JoinedMessage(kind) => {
            Event::Message { id, message: Message { kind, data: Data::Scratch(cursor.scratch()) }, closing }
        }
        Item::Control(opcode, payload) => control_event(opcode, id, payload),
        Item::JoinedControl(opcode, at) => {
            control_event(opcode, id, cursor.scratch().get(at..).unwrap_or_default())
        }
    }
}

fn control_event(opcode: Opcode, id: ConnectionId, payload: &[u8]) -> Event<'_> {
    if opcode == Opcode::Ping { Event::Ping { id, payload } } else { Event::Pong { id, payload } }
}
