//! ROOM: many connections. A slab of them, their deadlines, sweeps, and the user's view. No clock and no socket enters:
//! a driver reads, writes and waits; the hub says what to read, what to write and how long to wait.
//!
//! A driver's turn:
//!
//! ```text
//! begin_turn(now)
//! for each ready socket:   handle_writable, then read and
//!                            while next(slot, cursor, handler) gives an event: the handler gets it
//!                            (before each: while poll_event gives one, the handler gets it)
//!                          handle_eof / handle_reset
//!                          now and then: while poll_write gives a slot, transmit
//! handle_timeout()
//! while poll_event or poll_action give something: the handler gets it / do it
//! wait until poll_timeout() at most
//! ```
//!
//! Nothing is re-entrant: a callback only ever leaves notes and things to do behind, which the loop above takes up when
//! the callback has returned. A slot is freed by the last action of its connection, when all its events are delivered.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::SocketAddr,
    time::Duration,
};

use slab::Slab;

mod admission;
mod clients;
mod connecting;
mod deadlines;
mod sweep;

use self::{admission::Admission, deadlines::Deadlines, sweep::Sweeps};
pub use self::{
    clients::{Broadcast, Client, Clients, ReadyState},
    sweep::ShutdownRequest,
};
use crate::{
    config::{Abort, Config},
    conn::{Common, Compression, Conn, Context, Cursor, Item, Note, Pending, State},
    error::HandshakeCause,
    event::{Data, Event, Message, Stats},
    handler::{Handler, Upgrade, UpgradeRequest},
    id::ConnectionId,
    shutdown::{LameDuckPolicy, Phase, ShutdownReport},
    time::Time,
    wire::{
        header::Opcode,
        keys::MaskKeys,
        upgrade::{HeaderStorage, HeaderValue, Refusal, Request, Response, write_switching_protocols},
    },
};

/// All connections of one loop. `D` is what the application keeps for each.
pub struct Hub<D> {
    config: Config,
    worker: u8,
    now: Time,
    slots: Slab<Slot<D>>,
    /// One past the highest slot that was ever in use.
    slots_high: usize,
    generation: u32,
    admission: Admission,
    deadlines: Deadlines,
    common: Common,
    notes: VecDeque<Note>,
    /// Slots with something for the driver to do.
    listed: VecDeque<u32>,
    /// The slot that is being read. What it leaves to do is listed when the next one is read: a large reply is written
    /// before that, and then there is nothing to list.
    reading: Option<u32>,
    /// The connection whose `Close` was delivered last: its data goes when the callback has returned.
    farewell: Option<usize>,
    stats: Stats,
    sweeps: Sweeps<D>,
    rng: fastrand::Rng,
}

/// Notes and slots to deal with for which room is kept when there are none.
const ROOM: usize = 4096;

struct Slot<D> {
    conn: Conn,
    data: Option<D>,
}

impl<D> Slot<D> {
    /// Whether it is this connection's, and the application may still name it.
    #[inline]
    fn is(&self, id: ConnectionId, worker: u8) -> bool {
        self.conn.generation == id.generation() && worker == id.worker() && self.data.is_some()
    }
}

/// What a driver has to do next for a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Call [`Hub::transmit`] with a writer for this slot's socket.
    Write(usize),
    /// Read from this slot's socket although it has not become readable anew. First comes what
    /// [`Hub::take_held`] gives.
    Read(usize),
    /// Find or connect to what [`Hub::target`] says.
    Connect(usize),
    /// Shut down the sending side.
    Fin(usize),
    /// End it in this style, never [`Abort::Auto`]; then call [`Hub::handle_aborted`], or for a FIN
    /// [`Hub::handle_aborted_by_fin`].
    Abort(usize, Abort),
    /// Close the descriptor, with a reset if the flag says so. The slot is free and may be given out again.
    Release(usize, bool),
}

impl<D> std::fmt::Debug for Hub<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hub").field("now", &self.now).field("stats", &self.stats).finish_non_exhaustive()
    }
}

impl<D> Hub<D> {
    /// An empty hub. `worker` goes into its ids; `seed` is for the instants of a spread sweep, and for the masks
    /// and keys of connections of our own, which must be unpredictable (§5.3): take it from the system's entropy.
    pub fn new(config: Config, worker: u8, seed: u64) -> Self {
        Self {
            config,
            worker,
            now: Time::ZERO,
            slots: Slab::new(),
            slots_high: 0,
            generation: 0,
            admission: Admission::default(),
            deadlines: Deadlines::default(),
            common: Common::new(MaskKeys::new(seed)),
            notes: VecDeque::new(),
            listed: VecDeque::new(),
            reading: None,
            farewell: None,
            stats: Stats::default(),
            sweeps: Sweeps::default(),
            rng: fastrand::Rng::with_seed(seed),
        }
    }

    /// The settings.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// How many connections there are, by state. O(1).
    pub const fn stats(&self) -> Stats {
        self.stats
    }

    /// The application's view of the connections.
    pub const fn clients(&mut self) -> Clients<'_, D> {
        Clients { hub: self }
    }

    /// The phase of the shutdown.
    pub fn phase(&self) -> Phase {
        self.sweeps.phase()
    }

    /// False once a shutdown has begun.
    pub fn is_ready(&self) -> bool {
        self.phase() == Phase::Serving
    }

    /// Whether the listeners are to stay open.
    pub fn is_listening(&self) -> bool {
        match self.phase() {
            Phase::Serving => true,
            Phase::LameDuck => self.sweeps.listener_policy() != LameDuckPolicy::Close,
            Phase::SoftSweep | Phase::Grace | Phase::HardSweep | Phase::Done => false,
        }
    }

    /// The report, once the phase is [`Phase::Done`].
    pub fn shutdown_report(&self) -> Option<&ShutdownReport> {
        self.sweeps.report()
    }

    /// Tells the report of a running shutdown about a callback: how long it took, and whose event it was.
    pub fn note_callback(&mut self, took: Duration, id: Option<ConnectionId>) {
        self.sweeps.note_callback(took, id);
    }

    /// The id of the established connection in a slot.
    pub fn id_at(&self, slot: usize) -> Option<ConnectionId> {
        self.client_at(slot).map(|client| client.id())
    }

    /// Whether a slot's connection is between its first Close, or its failure, and `Close`.
    pub fn is_closing(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.state().is_closing())
    }

    // What the driver puts in.

    /// A turn begins: everything until the next call happens at `now`.
    pub fn begin_turn(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    /// A TCP connection was accepted. Returns its slot, or `None` if there are too many, in all or from there: close it.
    pub fn accept(&mut self, peer: SocketAddr) -> Option<usize> {
        if !self.admits(peer) {
            self.notes.push_back(Note::Failed(None, peer, HandshakeCause::TooManyConnections));
            return None;
        }
        let generation = self.next_generation();
        let conn = Conn::new(peer, generation, self.now);
        let slot = self.insert(Slot { conn, data: None });
        self.note_accepted(slot, peer);
        Some(slot)
    }

    fn next_generation(&mut self) -> u32 {
        self.generation = self.generation.wrapping_add(1);
        self.generation
    }

    fn insert(&mut self, entry: Slot<D>) -> usize {
        let slot = self.slots.insert(entry);
        self.slots_high = self.slots_high.max(slot + 1);
        self.stats.connecting += 1;
        self.set_alarm(slot);
        slot
    }

    /// Whether reading from this slot's socket makes sense now. If not, an [`Action::Read`] will say when.
    pub fn wants_read(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.wants_read())
    }

    /// Bytes of this slot were read and are about to be handed in by [`Hub::next`].
    pub fn handle_readable(&mut self, slot: usize) {
        self.list_what_was_read();
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.conn.note_inbound(self.now);
            self.reading = u32::try_from(slot).ok();
        }
    }

    /// What reading a slot has left to do, beyond what was done at once, is the list's from here on.
    fn list_what_was_read(&mut self) {
        if let Some(key) = self.reading.take()
            && let Some(Slot { conn, .. }) = self.slots.get_mut(key as usize)
            && !conn.pending.is_idle()
            && !conn.listed
        {
            conn.listed = true;
            self.listed.push_back(key);
        }
    }

    /// Takes what was read earlier and could not be parsed, because the connection was paused.
    pub fn take_held(&mut self, slot: usize) -> Vec<u8> {
        match self.slots.get_mut(slot) {
            Some(entry) => entry.conn.take_held(),
            _ => Vec::new(),
        }
    }

    /// The next event that the bytes under the cursor bring; `None` when they are used up. Upgrade requests go to
    /// `handler` at once. Deliver what [`Hub::poll_event`] has before each call.
    pub fn next<'c, H: Handler<Data = D>>(
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
        let (item, id, closing) = self.with(slot, |conn, cx| {
            let item = conn.next(cursor, cx);
            (item, cx.id, !conn.is_open())
        })?;
        Some(to_event(item?, id, closing, cursor))
    }

    /// If the rest of a large message is due on this slot: the buffer to append it to as it comes from the socket,
    /// and how many bytes are due. Then call [`Hub::handle_direct`].
    pub fn direct(&mut self, slot: usize, worth: u64) -> Option<(&mut Vec<u8>, u64)> {
        let (message, left) = self.slots.get_mut(slot)?.conn.direct(worth)?;
        self.common.pool.lend(message);
        Some((message, left))
    }

    /// Bytes were appended to the buffer that [`Hub::direct`] lent, behind its first `from`.
    pub fn handle_direct<'c>(
        &mut self,
        slot: usize,
        from: usize,
        cursor: &'c mut Cursor<'_>,
    ) -> Option<Event<'c>> {
        let (item, id, closing) = self.with(slot, |conn, cx| {
            let item = conn.handle_direct(from, cursor, cx);
            (item, cx.id, !conn.is_open())
        })?;
        Some(to_event(item?, id, closing, cursor))
    }

    /// The peer's FIN was read.
    pub fn handle_eof(&mut self, slot: usize) {
        self.with(slot, Conn::handle_eof);
    }

    /// The socket failed.
    pub fn handle_reset(&mut self, slot: usize, kind: io::ErrorKind) {
        self.with(slot, |conn, cx| conn.handle_reset(kind, cx));
    }

    /// Whether this slot is not read because it is paused: then the end of its input is not found by reading.
    pub fn holds_input(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.holds_input())
    }

    /// The socket of a paused slot says that the peer has left.
    pub fn handle_read_closed(&mut self, slot: usize) {
        self.with(slot, Conn::handle_read_closed);
    }

    /// A write failed. Read what the peer sent before, beginning with [`Hub::take_held`], then call [`Hub::handle_reset`].
    pub fn handle_write_failed(&mut self, slot: usize) {
        self.with(slot, Conn::handle_write_failed);
    }

    /// The kernel takes more from this slot again.
    pub fn handle_writable(&mut self, slot: usize) {
        self.with(slot, |conn, _| conn.handle_writable());
    }

    /// Offers what is queued for this slot to `writer`, which returns how much it took.
    ///
    /// # Errors
    /// The writer's, other than `WouldBlock`. Read what the peer may have sent before, then call
    /// [`Hub::handle_reset`].
    pub fn transmit<W>(&mut self, slot: usize, writer: &mut W) -> io::Result<()>
    where
        W: FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        self.with(slot, |conn, cx| {
            conn.pending.take(Pending::WRITE);
            conn.transmit(usize::MAX, cx, writer)
        })
        .unwrap_or(Ok(()))
    }

    /// Whether [`Action::Write`] is due for this slot and worth at least so many bytes: to write before the end of its
    /// input is dealt with, or while much is still in the processor's caches.
    pub fn wants_write(&self, slot: usize, worth: usize) -> bool {
        self.slots
            .get(slot)
            .is_some_and(|Slot { conn, .. }| conn.pending.has(Pending::WRITE) && conn.queued() >= worth)
    }

    /// Bytes that were queued in this turn and wait to be written.
    pub const fn corked(&self) -> usize {
        self.common.output.len()
    }

    /// The next slot for which [`Action::Write`] is all that is due, in the middle of a turn: for writes that are not to
    /// wait for the turn's end. `None` leaves the rest to [`Hub::poll_action`].
    pub fn poll_write(&mut self) -> Option<usize> {
        self.list_what_was_read();
        loop {
            let key = *self.listed.front()? as usize;
            let conn = &mut self.slots.get_mut(key)?.conn;
            // What was written at once may still be listed, and must not keep the others waiting.
            if !conn.pending.is_idle() && conn.pending != Pending::only(Pending::WRITE) {
                return None;
            }
            self.listed.pop_front();
            conn.listed = false;
            if conn.pending.take(Pending::WRITE) {
                return Some(key);
            }
        }
    }

    /// [`Action::Abort`] was carried out by closing the descriptor; the kernel held so many bytes that it had not got
    /// acknowledged.
    pub fn handle_aborted(&mut self, slot: usize, kernel_unsent: Option<u32>) {
        self.with(slot, |conn, cx| conn.handle_aborted(kernel_unsent, false, cx));
    }

    /// [`Action::Abort`] was carried out by a FIN. The descriptor is still there and lingers: input that is unread, or
    /// still under way, would be answered by a reset if it were closed.
    pub fn handle_aborted_by_fin(&mut self, slot: usize, kernel_unsent: Option<u32>) {
        self.with(slot, |conn, cx| conn.handle_aborted(kernel_unsent, true, cx));
    }

    /// When [`Hub::handle_timeout`] has something to do next.
    pub fn poll_timeout(&self) -> Option<Time> {
        match (self.deadlines.next(), self.poll_sweeps()) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    /// Carries out what is due: a slice of the deadlines and of each sweep, and the next step of a shutdown. What is left
    /// is due in the next turn, at its own `now`.
    pub fn handle_timeout(&mut self) {
        for _ in 0..self.config.sweep_slice.max(1) {
            let Some(slot) = self.deadlines.first_due(self.now) else { break };
            let key = slot as usize;
            let due = self.with(key, |conn, cx| {
                conn.handle_timeout(cx);
                conn.pending.take(Pending::ALARM);
                conn.deadline(cx.config)
            });
            match due.flatten() {
                // What is due again at once is due in the next turn, when there has been a chance to write.
                Some(at) => self.deadlines.set(slot, at.max(self.now.after(Duration::from_micros(1)))),
                None => self.deadlines.remove(slot),
            }
        }
        self.advance_sweeps();
    }

    // What the driver takes out.

    /// The next event that waits. The data of a connection whose `Close` this returned is dropped by the next call.
    #[inline]
    pub fn poll_event(&mut self) -> Option<Event<'static>> {
        if self.has_events() { self.poll_note() } else { None }
    }

    fn poll_note(&mut self) -> Option<Event<'static>> {
        self.say_farewell();
        let note = self.notes.pop_front()?;
        Some(match note {
            Note::Open(id) => Event::Open { id },
            Note::Drain(id) => Event::Drain { id },
            Note::Closing(id, initiator, frame) => Event::Closing { id, initiator, frame },
            Note::Failed(id, peer, cause) => {
                self.farewell = id.map(ConnectionId::slot);
                Event::HandshakeFailed { id, peer, cause }
            }
            Note::SweepDone(sweep, report) => Event::SweepDone { sweep, report },
            Note::Phase(phase, stats) => Event::Phase { phase, stats },
            Note::Close(id, ended) => {
                self.farewell = Some(id.slot());
                self.book(id, &ended);
                Event::Close { id, closed: ended.closed }
            }
        })
    }

    /// Whether [`Hub::poll_event`] has something.
    #[inline]
    pub fn has_events(&self) -> bool {
        self.farewell.is_some() || !self.notes.is_empty()
    }

    /// Whether something waits to be delivered or done: then a driver does not wait for its sockets.
    pub fn has_more(&self) -> bool {
        !self.notes.is_empty() || !self.listed.is_empty()
    }

    /// The next thing to do. Deliver what [`Hub::poll_event`] has before each call.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.list_what_was_read();
        self.say_farewell();
        while let Some(&slot) = self.listed.front() {
            let key = slot as usize;
            if let Some(action) = self.action(key) {
                return Some(action);
            }
            self.listed.pop_front();
            if let Some(entry) = self.slots.get_mut(key) {
                entry.conn.listed = false;
            }
        }
        // After a sweep of many there is no need for so much room.
        if self.listed.capacity() > ROOM || self.notes.capacity() > ROOM {
            (self.listed, self.notes) = <(VecDeque<_>, VecDeque<_>)>::default();
        }
        None
    }

    fn action(&mut self, key: usize) -> Option<Action> {
        let entry = self.slots.get_mut(key)?;
        let pending = &mut entry.conn.pending;
        if pending.take(Pending::ABORT) {
            Some(Action::Abort(key, entry.conn.abort_due()))
        } else if pending.take(Pending::WRITE) {
            Some(Action::Write(key))
        } else if pending.take(Pending::FIN) {
            Some(Action::Fin(key))
        } else if pending.take(Pending::READ) {
            Some(Action::Read(key))
        } else if pending.take(Pending::CONNECT) {
            Some(Action::Connect(key))
        } else if pending.take(Pending::RELEASE) {
            let reset = entry.conn.is_released_by_reset();
            self.listed.pop_front();
            self.note_released(key);
            self.deadlines.remove(u32::try_from(key).unwrap_or(u32::MAX));
            self.slots.remove(key);
            self.sweeps.closed -= 1;
            if self.slots.is_empty() {
                (self.slots, self.slots_high) = (Slab::new(), 0);
            }
            Some(Action::Release(key, reset))
        } else {
            None
        }
    }

    fn say_farewell(&mut self) {
        if let Some(entry) = self.farewell.take().and_then(|slot| self.slots.get_mut(slot)) {
            entry.data = None;
        }
    }

    // Inside.

    /// Lets something happen to a connection, and keeps the books about it.
    #[inline]
    fn with<R>(&mut self, slot: usize, happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R) -> Option<R> {
        self.with_if(slot, |_| true, happen)
    }

    #[inline]
    fn with_if<R>(
        &mut self,
        slot: usize,
        meant: impl FnOnce(&Slot<D>) -> bool,
        happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let conn = &mut self.slots.get_mut(slot).filter(|entry| meant(entry))?.conn;
        let before = conn.state();
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let mut cx = Context {
            config: &self.config,
            common: &mut self.common,
            now: self.now,
            notes: &mut self.notes,
            id: ConnectionId::new(self.worker, key, conn.generation),
        };
        let result = happen(conn, &mut cx);
        let after = conn.state();
        if !conn.pending.is_idle() && !conn.listed && self.reading != Some(key) {
            conn.listed = true;
            self.listed.push_back(key);
        }
        let alarm = conn.pending.take(Pending::ALARM);
        if before != after {
            self.sweeps.unbooked += usize::from(before.is_established() && !after.is_established());
            let shaken = before == State::Connecting && !conn.is_client();
            *self.counter(before) -= 1;
            *self.counter(after) += 1;
            if shaken {
                self.note_handshake_over();
            }
        }
        if alarm {
            self.set_alarm(slot);
        }
        Some(result)
    }

    /// The same for a connection that an application names. `None` if the id is stale.
    fn with_id<R>(
        &mut self,
        id: ConnectionId,
        happen: impl FnOnce(&mut Conn, &mut Context<'_>) -> R,
    ) -> Option<R> {
        let worker = self.worker;
        self.with_if(id.slot(), |entry| entry.is(id, worker), happen)
    }

    fn find(&self, id: ConnectionId) -> Option<&Slot<D>> {
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

    /// A connection that has no request yet: looks for the end of its head, and answers it.
    fn next_head<H: Handler<Data = D>>(&mut self, slot: usize, cursor: &mut Cursor<'_>, handler: &mut H) {
        let Some(conn) = self.slots.get_mut(slot).map(|entry| &mut entry.conn) else { return };
        let peer = conn.peer();
        let answer = match conn.take_request(cursor, &self.config) {
            Ok(None) => return,
            Ok(Some(mut head)) => {
                let mut storage = HeaderStorage::new();
                match head.get().and_then(|head| Request::parse(head, &mut storage)) {
                    Ok(request) => self.decide(peer, request, handler),
                    Err(refusal) => Answered::refusal(refusal, false),
                }
            }
            Err(refusal) => Answered::refusal(refusal, false),
        };
        self.answer(slot, answer);
    }

    /// Who answers a request, and how: we if it is invalid, the application if it is not.
    fn decide<H: Handler<Data = D>>(
        &self,
        peer: SocketAddr,
        request: Request<'_>,
        handler: &mut H,
    ) -> Answered<D> {
        let accepted = request.accept();
        if let Err(refusal) = &accepted
            && !refusal.is_for_plain_http()
        {
            return Answered::refusal(*refusal, request.is_head());
        }
        if accepted.is_ok() && self.refuses_handshakes() {
            let mut response = Vec::new();
            Response::unavailable(self.config.retry_after).write(&mut response);
            return Answered::Refuse { response, cause: Some(HandshakeCause::ShuttingDown) };
        }
        if accepted.is_ok() && self.config.origins.as_ref().is_some_and(|origins| !origins.allows(&request)) {
            return Answered::refusal(Refusal::FOREIGN_ORIGIN, false);
        }
        let request = UpgradeRequest { request, peer, ready: self.is_ready() };
        match (handler.on_upgrade(&request), accepted) {
            (Upgrade::Accept(accept), Ok(accepted)) => {
                let (compression, extensions) = Compression::accept(&self.config, &request).unzip();
                let extensions = extensions.as_deref().and_then(|value| HeaderValue::new(value).ok());
                let mut response = Vec::with_capacity(192);
                write_switching_protocols(
                    &mut response,
                    &accepted,
                    accept.subprotocol,
                    extensions,
                    &accept.headers,
                );
                Answered::Open {
                    response,
                    path: request.path().into(),
                    subprotocol: accept.subprotocol.map(|chosen| chosen.as_str().into()),
                    overrides: accept.overrides,
                    compression,
                    data: accept.data,
                }
            }
            (Upgrade::Accept(_), Err(refusal)) => Answered::refusal(refusal, request.is_head()),
            (Upgrade::Reject(response), _) => {
                Answered::response(&response, request.is_head(), Some(HandshakeCause::Rejected))
            }
            (Upgrade::Answer(response), _) => Answered::response(&response, request.is_head(), None),
        }
    }

    fn refuses_handshakes(&self) -> bool {
        match self.phase() {
            Phase::Serving => false,
            Phase::LameDuck => self.sweeps.listener_policy() == LameDuckPolicy::Refuse,
            Phase::SoftSweep | Phase::Grace | Phase::HardSweep | Phase::Done => true,
        }
    }

    fn answer(&mut self, slot: usize, answer: Answered<D>) {
        match answer {
            Answered::Open { response, path, subprotocol, overrides, compression, data } => {
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.data = Some(data);
                }
                self.with(slot, |conn, cx| {
                    conn.establish(response, &path, subprotocol.as_deref(), overrides, compression, cx);
                });
            }
            Answered::Refuse { response, cause } => {
                if cause == Some(HandshakeCause::ShuttingDown) {
                    self.sweeps.note_refused();
                }
                self.with(slot, |conn, cx| conn.refuse(response, cause, cx));
            }
        }
    }
}

/// How a request was answered.
enum Answered<D> {
    Open {
        response: Vec<u8>,
        path: Box<str>,
        subprotocol: Option<Box<str>>,
        overrides: Option<crate::config::Overrides>,
        compression: Option<Compression>,
        data: D,
    },
    Refuse {
        response: Vec<u8>,
        cause: Option<HandshakeCause>,
    },
}

impl<D> Answered<D> {
    fn refusal(refusal: Refusal, head_only: bool) -> Self {
        let mut response = Vec::new();
        if head_only {
            refusal.write_head(&mut response);
        } else {
            refusal.write(&mut response);
        }
        Self::Refuse { response, cause: Some(refusal.cause()) }
    }

    fn response(answer: &Response, head_only: bool, cause: Option<HandshakeCause>) -> Self {
        let mut response = Vec::new();
        if head_only {
            answer.write_head(&mut response);
        } else {
            answer.write(&mut response);
        }
        Self::Refuse { response, cause }
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
