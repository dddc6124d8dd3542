//! The turn: when what is read, delivered, written, judged and done. It is the same code for sockets and for memory.
//!
//! ```text
//!   begin_turn     what the turn before put off: events, reads, writes
//!   ready, accept, act, ...   what the transport says became ready: read, deliver, reply in batches
//!   end_turn       write the rest, judge what is due, sweep, act: FIN, abort, release
//! ```
//!
//! A turn is bounded, whatever callbacks do (specification, section 3): each connection has a share of it, and all
//! together a budget. What exceeds either enters the run queue of the next turn, and the wait before it is zero.
//!
//! An application may catch a panic of its own around a turn and go on with the next one: which read the callback
//! interrupted, and what of it is not parsed, is remembered; the next turn first ends the interrupted one.

use std::{
    io::{self, IoSlice},
    net::SocketAddr,
    sync::{Arc, atomic::AtomicBool},
};

use super::{
    clients::Clients,
    connecting::FailedConnect,
    handler::Handler,
    schedule::Action,
    sweep::ShutdownRequest,
    table::Hub,
    transport::{Readiness, Transport},
};
use crate::{
    adopt::Adoption,
    config::{Abort, Config},
    conn::{Ahead, ConnectRequest, Extent, Found, Probe, QueuedEvent, Writer},
    error::{AdoptRefusal, ConnectError},
    event::{SourceId, Stats},
    id::ConnectionId,
    newcomer::Newcomer,
    shutdown::{ShutdownPhase, ShutdownReport},
    stats::LoopStats,
    time::Time,
};

/// The loop: all connections of one thread, and the turns in which they live.
///
/// It neither waits nor has a clock: a transport of yours says what became ready, and when to come again is
/// [`Driver::poll_timeout`]. Here the transport is [`testing::Memory`](crate::testing::Memory).
///
/// ```
/// use adjourn::{
///     Config, Event, accept_all,
///     hub::{Driver, Readiness},
///     testing::{Memory, REQUEST, frame},
/// };
///
/// let mut handler = accept_all::<()>(|clients, event| {
///     if let Event::Message { id, message, .. } = event {
///         let _ = clients.send(id, message);
///     }
/// });
/// let mut driver = Driver::new(Config::default(), 0, 1, Memory::default());
/// let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("there is room");
/// driver.transport().socket(slot).input = [REQUEST, &frame(0x81, b"hello")].concat();
///
/// driver.begin_turn(&mut handler);
/// driver.ready(slot, Readiness { readable: true, ..Readiness::default() }, &mut handler);
/// driver.end_turn(&mut handler);
/// assert!(driver.transport().socket(slot).written.ends_with(b"\x81\x05hello"));
/// ```
pub struct Driver<D, T> {
    pub(super) hub: Hub<D>,
    pub(super) transport: T,
    /// The one receive buffer.
    pub(super) buffer: Vec<u8>,
    /// What was read earlier and is parsed now.
    pub(super) held: Vec<u8>,
    /// Where joined messages are lent from.
    pub(super) scratch: Vec<u8>,
    /// What is being read. There is something between turns only if a callback has panicked.
    pub(super) parsing: Option<Parsing>,
    /// A turn has begun and has not ended. Between turns this says that a callback has panicked.
    in_turn: bool,
    /// Slots whose reading a panic has cut off: the next turn reads on.
    recovered: Vec<usize>,
    /// Connects that failed at once: it is the next turn that reports them.
    pub(super) failed_connects: Vec<FailedConnect>,
    /// Connections that were read since replies were written last.
    pub(super) reads: u32,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Parsing {
    pub(super) slot: usize,
    /// `None` if nothing is being parsed: it was, or is yet to be read.
    pub(super) from: Option<ParsedFrom>,
}

/// Where the bytes lie that are being parsed.
#[derive(Clone, Copy, Debug)]
pub(super) enum ParsedFrom {
    /// The first `n` of the receive buffer.
    ReceiveBuffer(usize),
    /// All of [`Driver::held`].
    HeldBytes,
}

/// When a socket has been read wholly.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Until {
    /// A read did not fill its buffer, and the socket has not announced its end: mostly that saves a system call.
    ShortRead,
    /// A read would block: its end, if it has one, is found although nothing has announced it.
    Blocked,
}

/// Replies wait for each other, so that reads follow reads and writes follow writes, which suits the processor's caches.
/// They wait until there are this many bytes of them, which suits the caches, too ...
pub(super) const BATCH_BYTES: usize = 16 << 10;
/// ... or this many connections were read, or the coarse clock has moved.
pub(super) const BATCH_READS: u32 = 64;
impl<D, T: std::fmt::Debug> std::fmt::Debug for Driver<D, T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("hub", &self.hub)
            .field("transport", &self.transport)
            .finish_non_exhaustive()
    }
}

impl<D, T: Transport> Driver<D, T> {
    /// A loop without a connection. `loop_number` is part of its ids; `seed` is for the instants of a spread sweep, and for the
    /// masks and keys of connections of our own, which must be unpredictable (§5.3): take it from the system's entropy.
    ///
    /// # Panics
    /// If a setting cannot work: see [`Config::validate`].
    pub fn new(config: Config, loop_number: u8, seed: u64, transport: T) -> Self {
        if let Err(error) = config.validate() {
            panic!("{error}");
        }
        Self {
            buffer: vec![0; config.event_loop.read_buffer],
            hub: Hub::new(config, loop_number, seed),
            transport,
            held: Vec::new(),
            scratch: Vec::new(),
            parsing: None,
            in_turn: false,
            recovered: Vec::new(),
            failed_connects: Vec::new(),
            reads: 0,
        }
    }

    /// What carries the bytes.
    pub const fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// The same, to look at.
    pub const fn as_transport(&self) -> &T {
        &self.transport
    }

    /// The settings.
    pub const fn config(&self) -> &Config {
        self.hub.config()
    }

    /// The connections, between two turns or as a callback sees them. What is asked for happens in the next turn.
    pub fn clients(&mut self) -> Clients<'_, D> {
        // What a panic has left unparsed is held before anybody is ended.
        if self.parsing.is_some() {
            self.recover();
        }
        // What is asked for now begins now, not at the last turn.
        self.read_clock();
        Clients::new(&mut self.hub)
    }

    /// How many connections there are, by state. O(1).
    pub const fn stats(&self) -> Stats {
        self.hub.stats()
    }

    /// All that the loop has counted, and how much of its limits is used. O(1), copies some 2 KiB.
    pub fn loop_stats(&self) -> LoopStats {
        self.hub.loop_stats()
    }

    /// The same in the place of what was counted before.
    pub(crate) fn write_loop_stats(&self, stats: &mut LoopStats) {
        self.hub.write_loop_stats(stats);
    }

    /// Begins a connection as a client. See [`Clients::connect`].
    ///
    /// # Errors
    /// If there are too many connections, or a shutdown is closing them.
    pub fn connect(&mut self, request: ConnectRequest, data: D) -> Result<ConnectionId, ConnectError> {
        self.clients().connect(request, data)
    }

    /// Takes in a connection whose opening handshake is complete; `Open` follows in the next turn. `insert` puts its stream into
    /// the slot that it is given.
    ///
    /// # Errors
    /// If there are too many connections, a shutdown closes them, what was agreed on is not known here, or `insert` fails.
    pub fn adopt(
        &mut self,
        newcomer: &Newcomer,
        adoption: Adoption<D>,
        insert: impl FnOnce(&mut T, usize) -> io::Result<()>,
    ) -> Result<ConnectionId, AdoptRefusal> {
        self.read_clock();
        let Self { hub, transport, .. } = self;
        hub.adopt(newcomer, adoption, |slot| insert(transport, slot))
    }

    // Shutting down.

    /// The phase of the shutdown.
    pub fn phase(&self) -> ShutdownPhase {
        self.hub.phase()
    }

    /// False once a shutdown has begun.
    pub fn is_ready(&self) -> bool {
        self.hub.is_ready()
    }

    /// Shares with other threads whether a shutdown was asked for, of this loop or of those that go down with it.
    pub(crate) fn share_shutdown_asked(&mut self, asked: Arc<AtomicBool>) {
        self.hub.shutdown_asked = asked;
    }

    /// Whether the listeners are to stay open.
    pub fn is_listening(&self) -> bool {
        self.hub.is_listening()
    }

    /// The report, once the phase is [`ShutdownPhase::Done`].
    pub fn shutdown_report(&self) -> Option<&ShutdownReport> {
        self.hub.shutdown_report()
    }

    /// Connections get generations after `last` from now on: for a loop that takes over the number of another one, so that
    /// no id is given out twice.
    pub const fn continue_generations(&mut self, last: u32) {
        self.hub.continue_generations(last);
    }

    /// The generation of the connection that came last.
    pub const fn generation(&self) -> u32 {
        self.hub.generation()
    }

    /// How many connections are open in the loops that go down with this one: a shutdown's rate is shared among them by
    /// that. It is looked at when the soft sweep has found its connections, and when a further shutdown is asked for.
    pub const fn set_live_elsewhere(&mut self, live: usize) {
        self.hub.set_live_elsewhere(live);
    }

    /// Applies a request, and keeps it for [`Driver::take_requests`].
    pub fn ask(&mut self, request: ShutdownRequest) {
        self.hub.ask(request);
    }

    /// Applies what another loop was asked.
    pub fn apply_request(&mut self, request: ShutdownRequest) {
        self.hub.apply_request(request);
    }

    /// What this loop was asked since the last call, to be forwarded to those that go down with it.
    pub fn take_requests(&mut self) -> Vec<ShutdownRequest> {
        self.hub.take_requests()
    }

    /// Counts messages of another thread that could not be sent.
    pub const fn note_unsent(&mut self, messages: usize) {
        self.hub.stats.unsent += messages as u64;
    }

    /// A source of the application's own became ready: reported with the other events of this turn.
    pub fn handle_source(&mut self, source: SourceId, readiness: Readiness) {
        self.hub.handle_source(source, readiness);
    }

    /// Counts a failed call of `accept`, and reports it if `lasting`: newcomers wait.
    pub fn note_accept_error(&mut self, error: io::Error, lasting: bool) {
        self.hub.stats.accept_errors += 1;
        if lasting {
            self.hub.event_queue.push_back(QueuedEvent::AcceptFailed(error));
        }
    }

    // Waiting.

    /// Whether there is something to do at once: then the next wait is zero.
    pub fn has_more(&self) -> bool {
        let unfinished = self.in_turn || !self.failed_connects.is_empty();
        unfinished || self.hub.has_more() || self.hub.phase() == ShutdownPhase::Done
    }

    /// Whether events wait for the next turn, because this one has called as many callbacks as one may.
    pub fn has_undelivered(&self) -> bool {
        self.hub.has_undelivered()
    }

    /// When the next turn is due although nothing becomes ready.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.hub.poll_timeout()
    }

    // A turn.

    /// Begins a turn: serves what the one before put off.
    pub fn begin_turn<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        if self.parsing.is_some() {
            self.recover();
        }
        if self.in_turn {
            // The turn of the panic has its end before another one begins.
            self.hub.note_panic();
            self.read_clock();
            self.write_and_judge(handler);
            self.in_turn = false;
        }
        self.hub.begin_turn();
        for slot in self.recovered.drain(..) {
            // Its next message may make the callback panic again: that is not to keep the others waiting.
            self.hub.put_off_read(slot);
        }
        self.read_clock();
        self.hub.note_turn_begins();
        self.in_turn = true;
        self.transport.lap();
        self.reads = 0;
        for failed in self.failed_connects.drain(..) {
            self.hub.handle_connect_failed_at_once(&failed);
        }
        self.settle(handler);
    }

    /// A connection was accepted: its slot, or `None` if there are too many; close it then. Each that is refused is reported, so
    /// accept none while there are events that this turn may not deliver: see [`Driver::has_undelivered`].
    pub fn accept(&mut self, peer: SocketAddr) -> Option<usize> {
        self.accept_newcomer(&Newcomer::tcp(peer))
    }

    /// The same of one that did not come by TCP, or of which more is known than an address.
    pub fn accept_newcomer(&mut self, newcomer: &Newcomer) -> Option<usize> {
        self.hub.accept(newcomer)
    }

    /// A socket could not be watched, or failed otherwise.
    pub fn handle_reset(&mut self, slot: usize, kind: io::ErrorKind) {
        self.hub.handle_reset(slot, kind);
    }

    /// The addresses of a name, to be tried in this order; none if it has none. Of no effect if the connection is gone.
    pub fn handle_resolved(&mut self, id: ConnectionId, addresses: Vec<SocketAddr>) {
        self.hub.handle_resolved(id, addresses);
    }

    /// Whether the connection of a slot came in this turn, or since: what was polled before the turn is not about it.
    pub fn is_new_in_this_turn(&self, slot: usize) -> bool {
        self.hub.is_new_in_this_turn(slot)
    }

    /// A socket was ready when the turn began. Of no effect if the slot was given to another connection since: then that was said of
    /// the connection before it.
    pub fn ready<H: Handler<Data = D>>(&mut self, slot: usize, readiness: Readiness, handler: &mut H) {
        if self.hub.is_new_in_this_turn(slot) {
            return;
        }
        let readiness = self.transport.ready(slot, readiness);
        if readiness.writable {
            if self.hub.is_dialling(slot) && !self.finish_connect(slot) {
                return;
            }
            self.hub.handle_writable(slot);
        }
        if readiness.ended && !self.hub.is_dialling(slot) {
            self.hub.handle_announced_end(slot);
        }
        if readiness.readable || readiness.ended {
            if self.hub.is_over_budget_of(slot) {
                self.hub.put_off_read(slot);
            } else {
                self.read(slot, Until::ShortRead, handler);
            }
        }
    }

    /// Ends a turn: writes what waits, judges what is due, and does all that callbacks asked for.
    pub fn end_turn<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.write_and_judge(handler);
        // Last, so that a predicate that panics for everybody keeps nothing else waiting.
        self.before_callback();
        self.hub.advance_sweeps();
        self.after_callback("Sweep");
        self.settle(handler);
        self.start_timers();
        self.hub.drop_data();
        self.hub.note_turn_ends();
        self.in_turn = false;
    }

    // Inside.

    /// Written before judged: what this turn queued gets its chance even if a callback blocked for long.
    fn write_and_judge<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.settle(handler);
        self.judge(handler);
        self.settle(handler);
    }

    /// Everything until a callback is called happens now.
    fn read_clock(&mut self) {
        let now = self.transport.now();
        if self.in_turn {
            // A callback has returned by a panic.
            self.hub.callback_returned(now);
        } else {
            self.hub.set_now(now);
        }
    }

    /// A callback has panicked, and the application has caught that: nothing of the read that it came from is lost.
    fn recover(&mut self) {
        self.hub.finish_read();
        let Some(Parsing { slot, from }) = self.parsing.take() else { return };
        let bytes = match from {
            None => None,
            Some(ParsedFrom::ReceiveBuffer(n)) => self.buffer.get(..n),
            Some(ParsedFrom::HeldBytes) => self.held.get(..),
        };
        self.hub.recover(slot, bytes.unwrap_or_default());
        self.held = Vec::new();
        self.recovered.push(slot);
    }

    /// Writes what was queued for a slot, if that is at least `worth` bytes.
    pub(super) fn write_now(&mut self, slot: usize, worth: usize) {
        if self.hub.wants_write(slot, worth) {
            self.write(slot);
        }
    }

    /// Writes what was queued for a slot, as far as its share of the turn goes. Returns whether the kernel would take more.
    pub(super) fn write(&mut self, slot: usize) -> bool {
        let Self { hub, transport, .. } = self;
        let written = hub.transmit(slot, &mut Socket { transport, slot });
        let awaited = match written {
            Ok(done) if !done.blocked => return done.bytes > 0 && hub.has_queued(slot),
            Ok(_) => {
                // A callback may have run since the clock was read.
                hub.note_refused(slot, transport.now());
                transport.await_writable(slot, hub.is_closing(slot))
            }
            Err(error) => Err(error),
        };
        if let Err(error) = awaited {
            hub.handle_failed(slot, error.kind());
        }
        false
    }

    /// Writes the replies that wait for each other.
    pub(super) fn write_batch(&mut self) {
        self.reads = 0;
        while let Some(slot) = self.hub.poll_write() {
            self.write(slot);
        }
    }

    /// Ends what a deadline or the hard sweep ends. An answer may lie in the kernel, so that is looked at first. For that
    /// there is a budget of its own, so that streams do not make deadlines late.
    fn judge<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.hub.begin_judging();
        while let Some(judgement) = self.hub.poll_judgement() {
            let found = self.probe(judgement.slot, judgement.probe, handler);
            self.hub.judge(judgement, found);
        }
        for _ in 0..self.hub.timers_due() {
            self.hub.fire_timer();
            self.deliver(handler);
        }
        self.hub.advance_shutdown();
        self.hub.begin_hard_sweep();
        self.deliver(handler);
        while let Some((slot, probe)) = self.hub.poll_hard_sweep() {
            self.probe(slot, probe, handler);
            self.hub.end_hard(slot);
        }
    }

    /// Looks at what the kernel knows and we do not: whether a connect has succeeded, whether it takes more, what it holds.
    fn probe<H: Handler<Data = D>>(&mut self, slot: usize, probe: Probe, handler: &mut H) -> Found {
        if self.hub.is_dialling(slot) {
            self.finish_connect(slot);
        }
        let takes_more = probe.write && self.write(slot);
        let read = if probe.read || self.hub.has_failed(slot) {
            self.read(slot, Until::Blocked, handler)
        } else {
            Extent::Wholly
        };
        Found { read, takes_more }
    }

    /// Delivers events and executes actions until there are none but those put off.
    #[inline]
    fn settle<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        if self.hub.has_work() {
            self.work_off(handler);
        }
    }

    #[inline(never)]
    fn work_off<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        loop {
            self.deliver(handler);
            match self.hub.poll_action() {
                None => return,
                Some(Action::Deliver) => {}
                Some(Action::Write(slot)) => {
                    self.write(slot);
                }
                Some(Action::Read(slot)) => {
                    self.read(slot, Until::ShortRead, handler);
                }
                Some(Action::Connect(slot)) => self.begin_connect(slot),
                Some(Action::Fin(slot)) => self.transport.shutdown_write(slot),
                Some(Action::Abort(slot, style)) => {
                    let unsent = self.transport.unsent(slot);
                    if style == Abort::Reset {
                        self.transport.close(slot, true);
                        self.hub.handle_aborted(slot, unsent);
                    } else {
                        self.transport.shutdown_write(slot);
                        self.hub.handle_aborted_by_fin(slot, unsent);
                    }
                }
                Some(Action::Release(slot, reset)) => self.transport.close(slot, reset),
                Some(Action::Detach(slot)) => self.detach(slot),
            }
        }
    }
}

/// The socket of one slot, to write to.
struct Socket<'t, T> {
    transport: &'t mut T,
    slot: usize,
}

impl<T: Transport> Writer for Socket<'_, T> {
    #[inline]
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.transport.write(self.slot, slices) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                result => return result,
            }
        }
    }

    fn ahead(&mut self) -> Ahead {
        self.transport.ahead(self.slot)
    }
}

#[cfg(test)]
mod tests;
