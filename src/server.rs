//! ROOM: the mio driver. One turn = wait, read, deliver, write, expire. The only clock, and the only sockets.
//!
//! Everything that decides is in the hub; this room carries bytes. It owns one receive buffer for all connections, and
//! per connection a descriptor and a flag. Sockets are edge-triggered: a read that does not fill the buffer has drained
//! the socket, so an echoed message costs one read, one write and a share of one `epoll_wait`.

use std::{
    hash::{BuildHasher as _, RandomState},
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker, event::Event as Readiness};

mod handle;
mod listener;
mod outq;
mod resolver;
#[cfg(feature = "signals")]
mod signals;
mod socket;
mod workers;

pub use self::{
    handle::Handle,
    workers::{Workers, WorkersHandle},
};
use self::{
    handle::{Command, Shared},
    listener::Listener,
    resolver::Resolver,
    socket::{Sockets, Stopwatch},
};
use crate::{
    config::{Abort, Config},
    conn::{Cursor, Target},
    connect::ConnectRequest,
    error::{BindError, ConnectError},
    event::Event,
    handler::{Handler, Upgrade, UpgradeRequest},
    hub::{Action, Clients, Hub},
    id::ConnectionId,
    shutdown::{Phase, ShutdownReport},
    time::Time,
};

const WAKER: Token = Token(usize::MAX);
/// Listeners are numbered downwards from here; connections, by their slots, upwards from 0.
const LISTENERS: usize = usize::MAX - 1;
/// Commands of other threads that a turn carries out.
const COMMANDS: usize = 1024;
/// Events per wait.
const EVENTS: usize = 1024;
/// Events per wait while something is due: then the answers to the first Close of a sweep do not keep the last one waiting.
const FEW_EVENTS: usize = 128;
/// Replies wait for each other, so that reads follow reads and writes follow writes, which suits the processor's caches:
/// 3 % of a small echo. They wait until there are so many bytes of them, which suits the caches, too ...
const BATCH_BYTES: usize = 16 << 10;
/// ... or so many connections were read, or the clock has moved by a tick of a few milliseconds.
const BATCH_READS: u32 = 64;
/// From this many missing bytes on, a message is read straight into its own buffer.
const DIRECT: u64 = 32 << 10;
/// How long `accept` rests when the process has no descriptors left and none is given back.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A WebSocket server, client, or both: one loop, any number of listeners and connections.
///
/// `D` is what the application keeps for each connection; with [`Server::run`] there is nothing.
pub struct Server<D = ()> {
    events: Events,
    few_events: Events,
    turn: Loop<D>,
}

/// All of the server but the events of the present turn.
struct Loop<D> {
    parts: Parts<D>,
    hub: Hub<D>,
    sockets: Sockets,
    resolver: Resolver,
    /// The one receive buffer.
    buffer: Vec<u8>,
    /// Where joined messages are lent from.
    scratch: Vec<u8>,
    /// Slots that may have more to read although no event will say so.
    readable: Vec<usize>,
    start: Instant,
    /// Between callbacks: how long each took.
    watch: Stopwatch,
    /// Connections that were read since replies were written last.
    reads: u32,
    /// Kept for as long as the server lives.
    #[cfg(feature = "signals")]
    #[allow(dead_code, reason = "its Drop removes the signal handlers")]
    signals: Option<signals::Signals>,
}

/// What a loop is made of, before it has a thread to run on.
#[derive(Debug)]
struct Parts<D> {
    config: Config,
    worker: u8,
    poll: Poll,
    listeners: Vec<Listener>,
    commands: mpsc::Receiver<Command<D>>,
    sender: mpsc::Sender<Command<D>>,
    shared: Arc<Shared>,
    /// The other loops that shut down with this one.
    peers: Vec<Handle<D>>,
    #[cfg(feature = "signals")]
    watcher: Option<signals::Watcher>,
}

impl<D> Parts<D> {
    fn new(config: Config, worker: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        let shared = Arc::new(Shared::new(Waker::new(poll.registry(), WAKER)?));
        let (sender, commands) = mpsc::channel();
        Ok(Self {
            config,
            worker,
            poll,
            listeners: Vec::new(),
            commands,
            sender,
            shared,
            peers: Vec::new(),
            #[cfg(feature = "signals")]
            watcher: None,
        })
    }

    fn listen(&mut self, address: impl ToSocketAddrs, shared: bool) -> Result<SocketAddr, BindError> {
        let token = Token(LISTENERS - self.listeners.len());
        let listener = Listener::bind(address, &self.config, shared, self.poll.registry(), token)?;
        let bound = listener.local_addr().ok_or(BindError::NoAddress)?;
        self.listeners.push(listener);
        Ok(bound)
    }

    fn handle(&self) -> Handle<D> {
        Handle::new(self.sender.clone(), Arc::clone(&self.shared))
    }
}

impl<D> std::fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("hub", &self.turn.hub).finish_non_exhaustive()
    }
}

impl<D: 'static> Server<D> {
    /// A server with one listener. Further ones can be added by [`Server::listen`].
    ///
    /// # Errors
    /// If the address cannot be resolved or bound, or the system denies a poll.
    pub fn bind(address: impl ToSocketAddrs, config: Config) -> Result<Self, BindError> {
        let mut server = Self::new(config).map_err(BindError::Poll)?;
        server.listen(address)?;
        Ok(server)
    }

    /// A loop without a listener: a client, or a server that is yet to listen.
    ///
    /// # Errors
    /// If the system denies a poll.
    pub fn new(config: Config) -> io::Result<Self> {
        Ok(Self::from_parts(Parts::new(config, 0)?))
    }

    fn from_parts(parts: Parts<D>) -> Self {
        // Its keys are the system's entropy, its hash does not give them away.
        let seed = RandomState::new().hash_one(parts.worker);
        let mut hub = Hub::new(parts.config.clone(), parts.worker, seed);
        hub.set_loops(parts.peers.len() + 1);
        Self {
            events: Events::with_capacity(EVENTS),
            few_events: Events::with_capacity(FEW_EVENTS),
            turn: Loop {
                hub,
                sockets: Sockets::default(),
                resolver: Resolver::default(),
                buffer: vec![0; parts.config.read_buffer.max(1024)],
                scratch: Vec::new(),
                readable: Vec::new(),
                start: Instant::now(),
                watch: Stopwatch::default(),
                reads: 0,
                #[cfg(feature = "signals")]
                signals: None,
                parts,
            },
        }
    }

    /// Listens on one more address. Returns the address bound, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound.
    pub fn listen(&mut self, address: impl ToSocketAddrs) -> Result<SocketAddr, BindError> {
        self.turn.parts.listen(address, false)
    }

    /// Begins a connection as a client: as [`Clients::connect`] does, between two calls of [`Server::poll`] or before the
    /// loop runs. Its timeout starts now.
    ///
    /// # Errors
    /// If there are too many connections, or a shutdown has told them to go.
    pub fn connect(&mut self, request: ConnectRequest, data: D) -> Result<ConnectionId, ConnectError> {
        self.turn.begin();
        self.turn.hub.connect(request, data)
    }

    /// The address of the first listener; `None` once the listeners are closed.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.turn.parts.listeners.first().and_then(Listener::local_addr)
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle<D> {
        self.turn.parts.handle()
    }

    /// The connections, between two calls of [`Server::poll`].
    pub fn clients(&mut self) -> Clients<'_, D> {
        // What is asked for now begins now, not at the last turn.
        self.turn.begin();
        self.turn.hub.clients()
    }

    /// Lets SIGTERM and SIGINT shut the server down by `plan`: the first SIGTERM begins the whole plan, the first
    /// SIGINT the plan without its lame duck, a second signal jumps to the hard sweep, a third one does what it does by
    /// default.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    #[cfg(feature = "signals")]
    pub fn shutdown_on_signals(&mut self, plan: crate::shutdown::ShutdownPlan) -> io::Result<()> {
        let loops = vec![Arc::clone(&self.turn.parts.shared)];
        let (signals, mut watchers) = signals::Signals::install(plan, loops)?;
        (self.turn.signals, self.turn.parts.watcher) = (Some(signals), watchers.pop());
        Ok(())
    }

    /// Serves until a shutdown is complete; returns its report.
    ///
    /// # Errors
    /// If the system's poll fails.
    pub fn run_with<H: Handler<Data = D>>(&mut self, handler: &mut H) -> io::Result<ShutdownReport> {
        loop {
            if let Some(report) = self.poll(None, handler)? {
                return Ok(report);
            }
        }
    }

    /// One turn: waits for something to happen, `timeout` at most, and deals with it. Returns the report once a
    /// shutdown is complete.
    ///
    /// # Errors
    /// If the system's poll fails.
    pub fn poll<H: Handler<Data = D>>(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut H,
    ) -> io::Result<Option<ShutdownReport>> {
        let due = self.turn.due();
        let timeout = self.turn.wait(timeout, due);
        let late = due.is_some_and(|due| due.is_zero());
        let events = if late { &mut self.few_events } else { &mut self.events };
        if let Err(error) = self.turn.parts.poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        self.turn.begin();
        self.turn.read_again(handler);
        for event in &*events {
            self.turn.dispatch(event, handler);
        }
        self.turn.end(handler);
        Ok(self.turn.report())
    }
}

impl Server<()> {
    /// Serves until a shutdown is complete; returns its report. Every valid upgrade is accepted.
    ///
    /// # Errors
    /// If the system's poll fails.
    pub fn run<F>(&mut self, on_event: F) -> io::Result<ShutdownReport>
    where
        F: FnMut(&mut Clients<'_, ()>, Event<'_>),
    {
        self.run_with(&mut AcceptAll(on_event))
    }
}

/// The handler that [`Server::run`] makes of a closure.
struct AcceptAll<F>(F);

impl<F: FnMut(&mut Clients<'_, ()>, Event<'_>)> Handler for AcceptAll<F> {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        (self.0)(clients, event);
    }
}

impl<D> Loop<D> {
    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    /// How long it is until the hub has something to do.
    fn due(&self) -> Option<Duration> {
        self.hub.poll_timeout().map(|at| at.since(self.now()))
    }

    /// How long the poll may wait.
    fn wait(&self, limit: Option<Duration>, due: Option<Duration>) -> Option<Duration> {
        let accepting = self.parts.listeners.iter().any(Listener::has_more);
        if !self.readable.is_empty() || accepting || self.hub.has_more() || self.hub.phase() == Phase::Done {
            return Some(Duration::ZERO);
        }
        let rest = self.parts.listeners.iter().any(Listener::is_resting).then_some(ACCEPT_REST);
        [limit, due, rest].into_iter().flatten().min()
    }

    fn begin(&mut self) {
        let now = self.now();
        self.hub.begin_turn(now);
        self.watch.lap();
        self.reads = 0;
    }

    fn dispatch<H: Handler<Data = D>>(&mut self, event: &Readiness, handler: &mut H) {
        match event.token() {
            WAKER => {
                self.obey(handler);
                self.watch.lap();
            }
            Token(number) if number > LISTENERS - self.parts.listeners.len() => {
                self.accept(LISTENERS - number);
                self.watch.lap();
            }
            Token(slot) => {
                if event.is_writable() {
                    if self.sockets.is_connecting(slot) && !self.connected(slot) {
                        return;
                    }
                    self.hub.handle_writable(slot);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    let ended = event.is_read_closed() || event.is_error();
                    if ended && self.hub.holds_input(slot) {
                        self.left_while_paused(slot);
                    }
                    self.read(slot, ended, handler);
                }
            }
        }
    }

    /// The turn's end: what is due, all that callbacks asked for, and the listeners.
    fn end<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        // Written before expired: what this turn queued gets its chance even if a callback blocked for long.
        self.settle(handler);
        self.hub.handle_timeout();
        self.settle(handler);
        self.tell_peers();
        if !self.hub.is_listening() {
            self.parts.listeners.clear();
        }
        for index in 0..self.parts.listeners.len() {
            if self
                .parts
                .listeners
                .get(index)
                .is_some_and(|listener| listener.has_more() || listener.is_resting())
            {
                self.accept(index);
            }
        }
        self.parts.shared.set_ready(self.hub.is_ready());
    }

    fn report(&self) -> Option<ShutdownReport> {
        self.hub.shutdown_report().cloned()
    }

    /// What this loop was asked about a shutdown concerns all loops.
    fn tell_peers(&mut self) {
        for request in self.hub.take_requests() {
            for peer in &self.parts.peers {
                // A loop that has stopped has no connections left.
                let _ = peer.relay(request.clone());
            }
        }
    }

    /// Commands of other threads.
    fn obey<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.parts.shared.heard();
        #[cfg(feature = "signals")]
        while let Some(request) = self.parts.watcher.as_mut().and_then(signals::Watcher::poll) {
            // Every loop has a watcher of its own.
            self.hub.obey(request);
        }
        for left in (0..COMMANDS).rev() {
            let Ok(command) = self.parts.commands.try_recv() else { break };
            command.carry_out(&mut self.hub);
            self.deliver(handler);
            if left == 0 {
                // There may be more, and no further wake-up for them: they get the next turn.
                self.parts.shared.wake_again();
            }
        }
        while let Some((ids, addresses)) = self.resolver.poll() {
            for id in ids {
                self.hub.handle_resolved(id, addresses.clone());
            }
        }
    }

    /// Begins what a connection of ours needs next.
    fn connect(&mut self, slot: usize) {
        let begun = match self.hub.target(slot) {
            None => return,
            Some((id, Target::Name(host, port))) => {
                let asked = self.resolver.ask(id, host, port, &self.parts.shared);
                if asked.is_err() {
                    self.hub.handle_resolved(id, Vec::new());
                }
                return;
            }
            Some((_, Target::Address(address))) => {
                self.sockets.connect(slot, address, self.parts.poll.registry())
            }
        };
        if let Err(error) = begun {
            self.hub.handle_connect_failed(slot, error.kind());
        }
    }

    /// A connect has come to something: whether it has come to a connection.
    fn connected(&mut self, slot: usize) -> bool {
        match self.sockets.connected(slot) {
            Ok(true) => self.hub.handle_connected(slot),
            Ok(false) => return false,
            Err(error) => {
                self.hub.handle_connect_failed(slot, error.kind());
                return false;
            }
        }
        true
    }

    fn accept(&mut self, index: usize) {
        let Some(listener) = self.parts.listeners.get_mut(index) else { return };
        let (hub, sockets, registry) = (&mut self.hub, &mut self.sockets, self.parts.poll.registry());
        listener.accept(|stream, peer| {
            if let Some(slot) = hub.accept(peer) {
                sockets.insert(slot, stream, registry, hub);
            }
        });
    }

    /// Slots whose turn at reading ended before their data did.
    fn read_again<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        let mut readable = std::mem::take(&mut self.readable);
        // A socket that also had an event is in the list twice; it has one share of a turn all the same.
        readable.sort_unstable();
        readable.dedup();
        for slot in readable {
            self.read(slot, true, handler);
        }
    }

    /// The peer of a paused connection has left: nothing is read that would say so.
    fn left_while_paused(&mut self, slot: usize) {
        let error = self.sockets.get_mut(slot).and_then(|stream| stream.take_error().ok().flatten());
        match error {
            Some(error) => self.hub.handle_reset(slot, error.kind()),
            None => self.hub.handle_read_closed(slot),
        }
    }

    /// Reads what one socket has, for its share of the turn, and writes what that brought forth. `ended` says that a
    /// short read has something behind it: a FIN, an error.
    fn read<H: Handler<Data = D>>(&mut self, slot: usize, ended: bool, handler: &mut H) {
        if let Err(error) = self.read_share(slot, ended, handler) {
            self.read_last(slot, error.kind(), handler);
        }
        let lap = self.watch.lap();
        if let Some(took) = lap.noteworthy() {
            let id = self.hub.id_at(slot);
            self.hub.note_callback(took, id);
        }
        self.reads += 1;
        if self.reads >= BATCH_READS || lap.has_ticked() || self.hub.corked() >= BATCH_BYTES {
            self.write_batch(handler);
        }
    }

    /// Writes the replies that wait for each other.
    fn write_batch<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.reads = 0;
        while let Some(slot) = self.hub.poll_write() {
            if let Err(error) = self.write(slot) {
                self.read_last(slot, error.kind(), handler);
            }
        }
    }

    /// A write has failed: what the peer sent before it went away, its Close perhaps, comes first.
    fn read_last<H: Handler<Data = D>>(&mut self, slot: usize, kind: io::ErrorKind, handler: &mut H) {
        self.hub.handle_write_failed(slot);
        let mut held = self.hub.take_held(slot);
        if !held.is_empty() {
            self.feed(slot, &mut held, handler);
        }
        while self.hub.wants_read(slot)
            && matches!(self.read_once(slot, handler), Ok(Read::Full | Read::Short))
        {}
        self.hub.handle_reset(slot, kind);
        self.deliver(handler);
    }

    /// # Errors
    /// Those of a write.
    fn read_share<H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        ended: bool,
        handler: &mut H,
    ) -> io::Result<()> {
        let mut held = self.hub.take_held(slot);
        if !held.is_empty() {
            self.feed(slot, &mut held, handler);
        }
        let mut reads = self.hub.config().reads_per_turn.max(1);
        while self.hub.wants_read(slot) {
            if reads == 0 {
                self.readable.push(slot);
                break;
            }
            reads -= 1;
            let read = self.read_once(slot, handler);
            let drained = matches!(read, Ok(Read::Short)) && !ended;
            match read {
                Ok(Read::Full | Read::Short) => {}
                Ok(Read::Eof) => {
                    self.write_now(slot, 0)?;
                    self.hub.handle_eof(slot);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.write_now(slot, 0)?;
                    self.hub.handle_reset(slot, error.kind());
                    break;
                }
            }
            self.write_now(slot, BATCH_BYTES)?;
            if drained {
                break;
            }
        }
        Ok(())
    }

    fn read_once<H: Handler<Data = D>>(&mut self, slot: usize, handler: &mut H) -> io::Result<Read> {
        let Some(stream) = self.sockets.get_mut(slot) else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if let Some((message, left)) = self.hub.direct(slot, DIRECT) {
            let (n, asked, from) = socket::read_direct(stream, message, left)?;
            if n > 0 {
                self.hub.handle_readable(slot);
                let mut cursor = Cursor::new(&mut [], &mut self.scratch);
                if let Some(event) = self.hub.handle_direct(slot, from, &mut cursor) {
                    handler.on_event(&mut self.hub.clients(), event);
                }
                self.deliver(handler);
            }
            return Ok(Read::of(n, asked));
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        let result = io::Read::read(stream, &mut buffer).map(|n| {
            if n > 0 {
                self.hub.handle_readable(slot);
                self.feed(slot, buffer.get_mut(..n).unwrap_or_default(), handler);
            }
            Read::of(n, buffer.len())
        });
        self.buffer = buffer;
        result
    }

    /// Parses what was read and delivers what it brings.
    fn feed<H: Handler<Data = D>>(&mut self, slot: usize, bytes: &mut [u8], handler: &mut H) {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut cursor = Cursor::new(bytes, &mut scratch);
        while let Some(event) = self.hub.next(slot, &mut cursor, handler) {
            handler.on_event(&mut self.hub.clients(), event);
            self.deliver(handler);
        }
        self.deliver(handler);
        self.scratch = scratch;
    }

    /// Delivers what waits.
    fn deliver<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        while let Some(event) = self.hub.poll_event() {
            handler.on_event(&mut self.hub.clients(), event);
        }
    }

    /// Writes what input has brought forth for its own connection, if that is at least so much.
    fn write_now(&mut self, slot: usize, worth: usize) -> io::Result<()> {
        if self.hub.wants_write(slot, worth) { self.write(slot) } else { Ok(()) }
    }

    fn write(&mut self, slot: usize) -> io::Result<()> {
        self.sockets.transmit(slot, &mut self.hub, self.parts.poll.registry())
    }

    /// Delivers and does until nothing is left to deliver or do.
    fn settle<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        loop {
            self.deliver_watched(handler);
            match self.hub.poll_action() {
                None => return,
                Some(Action::Write(slot)) => {
                    if let Err(error) = self.write(slot) {
                        self.read_last(slot, error.kind(), handler);
                    }
                }
                Some(Action::Read(slot)) => self.readable.push(slot),
                Some(Action::Connect(slot)) => self.connect(slot),
                Some(Action::Fin(slot)) => {
                    self.sockets.fin(slot);
                }
                Some(Action::Abort(slot, style)) => {
                    let unsent = self.sockets.unsent(slot);
                    if style == Abort::Reset {
                        self.sockets.release(slot, true);
                        self.hub.handle_aborted(slot, unsent);
                    } else {
                        self.sockets.fin(slot);
                        self.hub.handle_aborted_by_fin(slot, unsent);
                    }
                }
                Some(Action::Release(slot, reset)) => {
                    self.sockets.release(slot, reset);
                }
            }
        }
    }

    fn deliver_watched<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        if !self.hub.has_events() {
            return;
        }
        self.watch.lap();
        while let Some(event) = self.hub.poll_event() {
            let id = event.id();
            handler.on_event(&mut self.hub.clients(), event);
            if let Some(took) = self.watch.lap().noteworthy() {
                self.hub.note_callback(took, id);
            }
        }
    }
}

/// How a read went.
enum Read {
    /// The buffer was filled: there may be more.
    Full,
    /// The socket is drained.
    Short,
    Eof,
}

impl Read {
    const fn of(n: usize, asked: usize) -> Self {
        match n {
            0 => Self::Eof,
            n if n < asked => Self::Short,
            _ => Self::Full,
        }
    }
}

impl Event<'_> {
    /// The connection that the event is about, if it is about one.
    pub const fn id(&self) -> Option<ConnectionId> {
        match self {
            Self::Open { id }
            | Self::Message { id, .. }
            | Self::Ping { id, .. }
            | Self::Pong { id, .. }
            | Self::Drain { id }
            | Self::Closing { id, .. }
            | Self::Close { id, .. } => Some(*id),
            Self::HandshakeFailed { id, .. } => *id,
            Self::SweepDone { .. } | Self::Phase { .. } => None,
        }
    }
}
