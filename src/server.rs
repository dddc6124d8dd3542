//! ROOM: the mio driver. One turn = wait, read, deliver, write, expire. The only clock, and the only sockets.
//!
//! Everything that decides is in the hub; this room carries bytes. It owns one receive buffer for all connections, and
//! per connection a descriptor and a flag. Sockets are edge-triggered: a read that does not fill the buffer has drained
//! the socket, so an echoed message costs one read, one write and a share of one `epoll_wait`.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use mio::{Events, Poll, Token, Waker, event::Event as Readiness};

mod handle;
mod listener;
mod outq;
#[cfg(feature = "signals")]
mod signals;
mod socket;


pub use self::handle::Handle;
use self::{
    handle::{Command, Shared},
    listener::Listener,
    socket::Sockets,
};
use crate::{
    config::{Abort, Config},
    conn::Cursor,
    error::BindError,
    event::Event,
    handler::{Handler, Upgrade, UpgradeRequest},
    hub::{Action, Clients, Hub},
    id::ConnectionId,
    shutdown::{Phase, ShutdownReport},
    time::Time,
};

const WAKER: Token = Token(usize::MAX);
const SIGNALS: Token = Token(usize::MAX - 1);
/// Listeners are numbered downwards from here; connections, by their slots, upwards from 0.
const LISTENERS: usize = usize::MAX - 2;
/// Events per wait.
const EVENTS: usize = 1024;
/// From this many missing bytes on, a message is read straight into its own buffer.
const DIRECT: u64 = 32 << 10;
/// How long `accept` rests when the process has no descriptors left and none is given back.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A WebSocket server: one loop, any number of listeners and connections.
///
/// `D` is what the application keeps for each connection; with [`Server::run`] there is nothing.
pub struct Server<D = ()> {
    events: Events,
    turn: Loop<D>,
}

/// All of the server but the events of the present turn.
struct Loop<D> {
    poll: Poll,
    hub: Hub<D>,
    sockets: Sockets,
    listeners: Vec<Listener>,
    /// The one receive buffer.
    buffer: Vec<u8>,
    /// Where joined messages are lent from.
    scratch: Vec<u8>,
    /// Slots that may have more to read although no event will say so.
    readable: Vec<usize>,
    start: Instant,
    commands: mpsc::Receiver<Command<D>>,
    sender: mpsc::Sender<Command<D>>,
    shared: Arc<Shared>,
    /// A descriptor was given back since `accept` last ran out of them.
    descriptor_freed: bool,
    #[cfg(feature = "signals")]
    signals: Option<signals::Signals>,
}

impl<D> std::fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("hub", &self.turn.hub).finish_non_exhaustive()
    }
}

impl<D> Server<D> {
    /// A server with one listener. Further ones can be added by [`Server::listen`].
    ///
    /// # Errors
    /// If the address cannot be resolved or bound, or the system denies a poll.
    pub fn bind(address: impl ToSocketAddrs, config: Config) -> Result<Self, BindError> {
        let mut server = Self::new(config).map_err(BindError::Poll)?;
        server.listen(address)?;
        Ok(server)
    }

    /// A server without a listener.
    ///
    /// # Errors
    /// If the system denies a poll.
    pub fn new(config: Config) -> io::Result<Self> {
        Self::numbered(config, 0)
    }

    fn numbered(config: Config, worker: u8) -> io::Result<Self> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let (sender, commands) = mpsc::channel();
        let buffer = vec![0; config.read_buffer.max(1024)];
        Ok(Self {
            events: Events::with_capacity(EVENTS),
            turn: Loop {
                poll,
                hub: Hub::new(config, worker, fastrand::u64(..)),
                sockets: Sockets::default(),
                listeners: Vec::new(),
                buffer,
                scratch: Vec::new(),
                readable: Vec::new(),
                start: Instant::now(),
                commands,
                sender,
                shared: Arc::new(Shared::new(waker)),
                descriptor_freed: false,
                #[cfg(feature = "signals")]
                signals: None,
            },
        })
    }

    /// Listens on one more address. Returns the address bound, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound.
    pub fn listen(&mut self, address: impl ToSocketAddrs) -> Result<SocketAddr, BindError> {
        self.turn.listen(address, false)
    }

    /// The address of the first listener; `None` once the listeners are closed.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.turn.listeners.first().and_then(Listener::local_addr)
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle<D> {
        Handle::new(self.turn.sender.clone(), Arc::clone(&self.turn.shared))
    }

    /// The connections, between two calls of [`Server::poll`].
    pub const fn clients(&mut self) -> Clients<'_, D> {
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
        self.turn.signals = Some(signals::Signals::install(self.turn.poll.registry(), SIGNALS, plan)?);
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
        let timeout = self.turn.wait(timeout);
        if let Err(error) = self.turn.poll.poll(&mut self.events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        self.turn.begin();
        self.turn.read_again(handler);
        for event in &self.events {
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
    fn listen(&mut self, address: impl ToSocketAddrs, shared: bool) -> Result<SocketAddr, BindError> {
        let token = Token(LISTENERS - self.listeners.len());
        let listener = Listener::bind(address, self.hub.config(), shared, self.poll.registry(), token)?;
        let bound = listener.local_addr().ok_or(BindError::NoAddress)?;
        self.listeners.push(listener);
        Ok(bound)
    }

    fn now(&self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    /// How long the poll may wait.
    fn wait(&self, limit: Option<Duration>) -> Option<Duration> {
        if !self.readable.is_empty() || self.hub.phase() == Phase::Done {
            return Some(Duration::ZERO);
        }
        let due = self.hub.poll_timeout().map(|at| at.since(self.now()));
        let rest = self.listeners.iter().any(Listener::is_resting).then_some(ACCEPT_REST);
        [limit, due, rest].into_iter().flatten().min()
    }

    fn begin(&mut self) {
        let now = self.now();
        self.hub.begin_turn(now);
    }

    fn dispatch<H: Handler<Data = D>>(&mut self, event: &Readiness, handler: &mut H) {
        match event.token() {
            WAKER => self.obey(handler),
            SIGNALS => self.heed_signals(),
            Token(number) if number > LISTENERS - self.listeners.len() => self.accept(LISTENERS - number),
            Token(slot) => {
                if event.is_writable() {
                    self.hub.handle_writable(slot);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    let ended = event.is_read_closed() || event.is_error();
                    self.read(slot, ended, handler);
                }
            }
        }
    }

    /// The turn's end: what is due, all that callbacks asked for, and the listeners.
    fn end<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.hub.handle_timeout();
        self.settle(handler);
        if !self.hub.is_listening() {
            self.listeners.clear();
        }
        for index in 0..self.listeners.len() {
            let resting = self.listeners.get(index).is_some_and(Listener::is_resting);
            let pending = self.listeners.get(index).is_some_and(|listener| listener.has_more());
            if pending || resting {
                self.accept(index);
            }
        }
        self.descriptor_freed = false;
        self.shared.set_ready(self.hub.is_ready());
    }

    fn report(&self) -> Option<ShutdownReport> {
        self.hub.shutdown_report().cloned()
    }

    /// Commands of other threads.
    fn obey<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.shared.heard();
        while let Ok(command) = self.commands.try_recv() {
            command.carry_out(&mut self.hub.clients());
            self.deliver(handler);
        }
    }

    #[cfg(feature = "signals")]
    fn heed_signals(&mut self) {
        if let Some(signals) = &mut self.signals {
            signals.heed(&mut self.hub);
        }
    }

    #[cfg(not(feature = "signals"))]
    fn heed_signals(&mut self) {}

    fn accept(&mut self, index: usize) {
        let Some(listener) = self.listeners.get_mut(index) else { return };
        let (hub, sockets, registry) = (&mut self.hub, &mut self.sockets, self.poll.registry());
        listener.accept(|stream, peer| {
            if let Some(slot) = hub.accept(peer) {
                sockets.insert(slot, stream, registry, hub);
            }
        });
    }

    /// Slots whose turn at reading ended before their data did.
    fn read_again<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        for slot in std::mem::take(&mut self.readable) {
            self.read(slot, true, handler);
        }
    }

    /// Reads what one socket has, for its share of the turn, and writes what that brought forth. `on` says that a short
    /// read may have something behind it: a FIN, an error.
    fn read<H: Handler<Data = D>>(&mut self, slot: usize, on: bool, handler: &mut H) {
        let watch = socket::Stopwatch::start();
        let mut held = self.hub.take_held(slot);
        if !held.is_empty() {
            self.feed(slot, &mut held, handler);
            self.write_now(slot);
        }
        let mut reads = self.hub.config().reads_per_turn.max(1);
        while self.hub.wants_read(slot) {
            if reads == 0 {
                self.readable.push(slot);
                break;
            }
            reads -= 1;
            match self.read_once(slot, handler) {
                Ok(Read::Full) => {}
                Ok(Read::Short) if on => {}
                Ok(Read::Short) => break,
                Ok(Read::Eof) => {
                    self.hub.handle_eof(slot);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.hub.handle_reset(slot, error.kind());
                    break;
                }
            }
            self.write_now(slot);
        }
        if let Some(took) = watch.noteworthy() {
            let id = self.hub.id_at(slot);
            self.hub.note_callback(took, id);
        }
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

    /// Writes what an input brought forth for its own connection, while that is at hand.
    fn write_now(&mut self, slot: usize) {
        if self.hub.wants_write(slot) && self.sockets.get_mut(slot).is_some() && self.write(slot).is_err() {
            // The read that follows finds out the same, after what the peer sent before.
            self.readable.push(slot);
        }
    }

    fn write(&mut self, slot: usize) -> io::Result<()> {
        let Some(socket) = self.sockets.entry(slot) else { return Ok(()) };
        socket.transmit(slot, &mut self.hub, self.poll.registry())
    }

    /// Delivers and does until nothing is left to deliver or do.
    fn settle<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        loop {
            self.deliver_watched(handler);
            match self.hub.poll_action() {
                None => return,
                Some(Action::Write(slot)) => {
                    if let Err(error) = self.write(slot) {
                        // What the peer sent before it went away comes first: its Close may be there.
                        self.read(slot, true, handler);
                        self.deliver(handler);
                        self.hub.handle_reset(slot, error.kind());
                    }
                }
                Some(Action::Read(slot)) => self.readable.push(slot),
                Some(Action::Fin(slot)) => {
                    if let Some(stream) = self.sockets.get_mut(slot) {
                        // An error means that the peer is gone already; the read that follows says so.
                        let _ = stream.shutdown(std::net::Shutdown::Write);
                    }
                }
                Some(Action::Abort(slot, style)) => {
                    let unsent = self.sockets.abort(slot, style == Abort::Reset);
                    self.descriptor_freed = true;
                    self.hub.handle_aborted(slot, unsent);
                }
                Some(Action::Release(slot, reset)) => {
                    self.sockets.release(slot, reset);
                    self.descriptor_freed = true;
                }
            }
        }
    }

    fn deliver_watched<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        while let Some(event) = self.hub.poll_event() {
            let watch = socket::Stopwatch::start();
            let id = event.id();
            handler.on_event(&mut self.hub.clients(), event);
            if let Some(took) = watch.noteworthy() {
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
            Self::HandshakeFailed { .. } | Self::SweepDone { .. } | Self::Phase { .. } => None,
        }
    }
}
