//! One loop on one thread: waits, says what became ready, and lets the driver do the rest.

use std::{
    collections::VecDeque,
    hash::{BuildHasher as _, RandomState},
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    sync::Arc,
    time::Duration,
};

use mio::{Events, Token, event::Event as Ready};

#[cfg(feature = "signals")]
use super::signals;
use super::{
    adopting::adopt_into,
    carrier::Carrier,
    handle::{Command, Handle},
    listener::{Listener, ListeningSocket, Sharing},
    number::LoopNumber,
    parts::{LISTENERS, MailboxOwner, Parts, WAKER},
    siblings::Siblings,
    socket::Sockets,
    sources::{Sources, source_of},
    trace::{self, Trace},
};
use crate::{
    adopt::Adopt,
    config::{Config, ListenerConfig},
    conn::ConnectRequest,
    error::{AdoptError, BindError, ConnectError},
    event::Event,
    hub::{Clients, Driver, Handler, Readiness, Transport as _, accept_all},
    id::ConnectionId,
    shutdown::ShutdownReport,
    stats::Cap,
};

/// Commands of other threads that a turn executes at most.
const COMMANDS: usize = 1024;
/// Events per wait.
const EVENTS: usize = 1024;
/// Events per wait while something is due: then the answers to the first Close of a sweep do not keep the last one waiting.
const FEW_EVENTS: usize = 128;
/// How long `accept` rests when the process has no descriptors left and none is given back.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// A WebSocket server, client, or both: one loop, any number of listeners and connections.
///
/// `D` is what the application keeps for each connection; with [`Server::run`] there is nothing. It is `Send` if `D` is, so it can
/// be made on one thread and run on another; all callbacks run on the thread that runs it. Other threads speak to it by a [`Handle`].
///
/// ```
/// use std::{thread, time::Duration};
///
/// use adjourn::{Config, Event, Server, ShutdownPlan};
///
/// let mut server = Server::bind("127.0.0.1:0", Config::default())?;
/// let (address, handle) = (server.local_addr(), server.handle());
/// let thread = thread::spawn(move || {
///     server.run(|clients, event| match event {
///         Event::Message { id, message, .. } => {
///             // An echo. If the peer reads too slowly, the error says so, and nothing was queued.
///             if let Err(error) = clients.send(id, message) {
///                 eprintln!("{id}: {error}");
///             }
///         }
///         Event::Close { id, report } => println!("{id}: {report}"),
///         _ => {}
///     })
/// });
/// println!("listening on {address:?}");
/// // ... and later, from any thread:
/// handle.shutdown(ShutdownPlan::soft(Duration::from_secs(10)))?;
/// let report = thread.join().expect("no callback panics")?;
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Server<D = ()> {
    events: Events,
    few_events: Events,
    number: LoopNumber,
    /// What became ready and was not dealt with. There is something between turns only if a callback has panicked.
    ready: Vec<(Token, Readiness)>,
    /// How many of them were dealt with.
    dispatched: usize,
    /// The last wait has filled its buffer: the poll may have more, and a poll that watches it may not say so again.
    has_more_events: bool,
    /// There may be commands of other threads to execute.
    has_commands: bool,
    /// Those that were taken from the mailbox.
    commands: VecDeque<(usize, Command<D>)>,
    driver: Driver<D, Carrier>,
    listeners: Vec<Listener>,
    /// Made on first use.
    sources: Option<Sources>,
    trace: Trace,
    mailbox: MailboxOwner<D>,
    /// The other loops that shut down with this one.
    siblings: Siblings<D>,
    #[cfg(feature = "signals")]
    watcher: Option<signals::Watcher>,
    /// Kept for as long as the server lives.
    #[cfg(feature = "signals")]
    #[allow(dead_code, reason = "its Drop removes the signal handlers")]
    signals: Option<signals::Signals>,
}

impl<D> std::fmt::Debug for Server<D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("driver", &self.driver).finish_non_exhaustive()
    }
}

impl<D: 'static> Server<D> {
    /// A server with one listener. Further ones can be added by [`Server::listen`].
    ///
    /// # Errors
    /// If the address cannot be resolved or bound, the system denies a poll, or there are too many loops in the process.
    pub fn bind(address: impl ToSocketAddrs, config: Config) -> Result<Self, BindError> {
        let mut server = Self::from_parts(Parts::new(config, Arc::default())?);
        server.listen(address)?;
        Ok(server)
    }

    /// A loop without a listener: a client, or a server that is yet to listen.
    ///
    /// # Errors
    /// If the system denies a poll, or there are 256 loops in the process already.
    pub fn outgoing(config: Config) -> io::Result<Self> {
        Parts::new(config, Arc::default()).map(Self::from_parts).map_err(|error| match error {
            BindError::Poll(error) => error,
            BindError::Config(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
            other => io::Error::other(other),
        })
    }

    pub(super) fn from_parts(parts: Parts<D>) -> Self {
        // Its keys are the system's entropy, its hash does not give them away.
        let seed = RandomState::new().hash_one(parts.number.get());
        let shutdown_asked = Arc::clone(parts.shared.shutdown_asked());
        let sockets = Sockets::new(parts.poll, parts.shared, &parts.config);
        #[cfg(feature = "tls")]
        let sockets = super::tls::Tls::new(sockets);
        let mut driver = Driver::new(parts.config, parts.number.get(), seed, sockets);
        driver.share_shutdown_asked(shutdown_asked);
        driver.continue_generations(parts.number.generation());
        let mut server = Self {
            events: Events::with_capacity(EVENTS),
            few_events: Events::with_capacity(FEW_EVENTS),
            number: parts.number,
            ready: Vec::new(),
            dispatched: 0,
            has_more_events: false,
            has_commands: false,
            driver,
            listeners: parts.listeners,
            sources: None,
            trace: Trace::default(),
            commands: VecDeque::new(),
            mailbox: parts.mailbox,
            siblings: parts.siblings,
            #[cfg(feature = "signals")]
            watcher: parts.watcher,
            #[cfg(feature = "signals")]
            signals: None,
        };
        server.publish_stats();
        server
    }

    /// A server with one listener on a Unix domain socket, as [`Server::listen_unix`].
    ///
    /// # Errors
    /// If the path cannot be bound, the system denies a poll, or there are too many loops in the process.
    pub fn bind_unix(path: impl AsRef<Path>, config: Config) -> Result<Self, BindError> {
        let mut server = Self::from_parts(Parts::new(config, Arc::default())?);
        server.listen_unix(path)?;
        Ok(server)
    }

    /// Listens on one more address. Returns the address bound, with the port that the system chose for port 0.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound, or a shutdown has closed the listeners.
    pub fn listen(&mut self, address: impl ToSocketAddrs) -> Result<SocketAddr, BindError> {
        if !self.driver.is_listening() {
            return Err(BindError::ShuttingDown);
        }
        let socket = ListeningSocket::bind(address, &self.driver.config().listener, Sharing::Alone)?;
        let bound = socket.local_addr().ok_or(BindError::NoAddress)?;
        self.listen_on(socket)?;
        Ok(bound)
    }

    /// Listens on one more Unix domain socket. Who may connect is decided by the permissions of its file, which the process's umask
    /// sets, and of its directory; [`UpgradeRequest::peer_credentials`](crate::http::UpgradeRequest::peer_credentials) says who did.
    ///
    /// Nothing is removed here: neither what is at the path already, which makes this fail with `AddrInUse`, nor the file when the
    /// listener closes. Remove it before, if no other server listens on it.
    ///
    /// ```
    /// use adjourn::{Config, Server};
    ///
    /// # let directory = std::env::temp_dir().join(format!("adjourn-{}", std::process::id()));
    /// # std::fs::create_dir_all(&directory)?;
    /// # let path = directory.join("chat.sock");
    /// let mut server = Server::<()>::bind_unix(&path, Config::default())?;
    /// // ...
    /// drop(server);
    /// std::fs::remove_file(&path)?;
    /// # std::fs::remove_dir(&directory)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// If the path cannot be bound, or a shutdown has closed the listeners.
    pub fn listen_unix(&mut self, path: impl AsRef<Path>) -> Result<(), BindError> {
        if !self.driver.is_listening() {
            return Err(BindError::ShuttingDown);
        }
        self.listen_on(ListeningSocket::bind_unix(path.as_ref(), &self.driver.config().listener)?)
    }

    /// Listens on a socket that listens already: one that was bound with options of its own, or inherited from another
    /// process, by TCP or in the Unix domain. It is switched to non-blocking mode, with `TCP_NODELAY`.
    ///
    /// # Errors
    /// If it cannot be switched or watched, or a shutdown has closed the listeners.
    pub fn listen_on(&mut self, socket: impl Into<ListeningSocket>) -> Result<(), BindError> {
        let settings = self.driver.config().listener.clone();
        self.listen_on_with(socket, &settings)
    }

    /// The same with settings of its own, in place of [`Config::listener`].
    ///
    /// # Errors
    /// As [`Server::listen_on`], and if a setting cannot work.
    pub fn listen_on_with(
        &mut self,
        socket: impl Into<ListeningSocket>,
        settings: &ListenerConfig,
    ) -> Result<(), BindError> {
        if !self.driver.is_listening() {
            return Err(BindError::ShuttingDown);
        }
        settings.validate()?;
        let token = Token(LISTENERS - self.listeners.len());
        let registry = self.driver.transport().poll.registry();
        let listener = Listener::watch(socket.into(), settings, registry, token).map_err(BindError::Poll)?;
        self.listeners.push(listener);
        Ok(())
    }

    /// What watches sources of the application's own on this loop. Allocates, and duplicates a descriptor.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn sources(&mut self) -> io::Result<Sources> {
        if let Some(sources) = &self.sources {
            return Ok(sources.clone());
        }
        let sources = Sources::new(self.driver.transport().poll.registry())?;
        self.sources = Some(sources.clone());
        Ok(sources)
    }

    /// How long a loop of the application's own may wait at most before it calls [`Server::poll_with`], which it does with a timeout
    /// of zero; `None` if there is nothing to wait for but the descriptor. To be asked after each call.
    ///
    /// The descriptor is that of [`AsFd`](std::os::fd::AsFd): it is readable when there is something to do, and can be watched by
    /// another poll, level-triggered or edge-triggered.
    pub fn next_timeout(&mut self) -> Option<Duration> {
        let due = self.due();
        self.wait(None, due)
    }

    /// Begins a connection as a client: as [`Clients::connect`] does, between two calls of [`Server::poll_with`] or before the
    /// loop runs. Its timeout starts now.
    ///
    /// # Errors
    /// If there are too many connections, or a shutdown is closing them.
    pub fn connect(&mut self, request: ConnectRequest, data: D) -> Result<ConnectionId, ConnectError> {
        self.driver.connect(request, data)
    }

    /// Takes in a connection whose 101 somebody else has sent, between two calls of [`Server::poll`] or before the loop runs. `Open` is
    /// its first event. It counts for [`LoopConfig::max_connections`](crate::config::LoopConfig::max_connections) and, in the server's
    /// role, for `max_connections_per_address`. Costs one `dup` of the descriptor.
    ///
    /// # Errors
    /// If there are too many connections, a shutdown closes them, or the stream or what was agreed on cannot be used. The error
    /// has the stream.
    pub fn adopt(&mut self, adopt: Adopt<D>) -> Result<ConnectionId, AdoptError> {
        adopt_into(&mut self.driver, adopt)
    }

    /// The address of the first listener; `None` once the listeners are closed, and of a Unix domain socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        self.listeners.first().and_then(Listener::local_addr)
    }

    /// A handle for other threads.
    pub fn handle(&self) -> Handle<D> {
        self.mailbox.handle()
    }

    /// The connections, between two calls of [`Server::poll_with`].
    pub fn clients(&mut self) -> Clients<'_, D> {
        self.driver.clients()
    }

    /// Lets SIGTERM and SIGINT shut the server down by `plan`: the first SIGTERM begins the whole plan, the first
    /// SIGINT the plan without its lame duck, a second signal jumps to the hard sweep, a third one does what it does by
    /// default.
    ///
    /// Handlers that others have installed are called as well. After the last server of the process is dropped, a signal
    /// does what it did before the first: it is handled by others, ignored, or ends the process. It ends the process
    /// also if a handler was registered through the crate `signal-hook` since then, because that cannot be seen: register
    /// such a handler before.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    #[cfg(feature = "signals")]
    pub fn shutdown_on_signals(&mut self, plan: crate::shutdown::ShutdownPlan) -> io::Result<()> {
        let loops = vec![Arc::clone(&self.driver.transport().shared)];
        let (signals, mut watchers) = signals::Signals::install(plan, loops)?;
        (self.signals, self.watcher) = (Some(signals), watchers.pop());
        Ok(())
    }

    /// Serves until a shutdown is complete; returns its report. [`handler`](crate::handler) makes a handler of two closures.
    ///
    /// # Errors
    /// If the system's poll fails.
    pub fn run_with<H: Handler<Data = D>>(&mut self, handler: &mut H) -> io::Result<ShutdownReport> {
        loop {
            if let Some(report) = self.poll_with(None, handler)? {
                return Ok(report);
            }
        }
    }

    /// One turn: waits for something to happen, `timeout` at most, and deals with it. Returns the report once a
    /// shutdown is complete.
    ///
    /// A panic in a callback leaves this function. It may be caught and the function called again: nothing that was received is lost,
    /// and a request that the callback was looking at is answered with 500.
    ///
    /// # Errors
    /// If the system's poll fails.
    pub fn poll_with<H: Handler<Data = D>>(
        &mut self,
        timeout: Option<Duration>,
        handler: &mut H,
    ) -> io::Result<Option<ShutdownReport>> {
        let mut observed = self.trace.observe(handler);
        let handler = observed.handler();
        let due_at = self.driver.poll_timeout();
        let due = self.due();
        let timeout = self.wait(timeout, due);
        let late = due.is_some_and(|due| due.is_zero());
        let events = if late { &mut self.few_events } else { &mut self.events };
        if let Err(error) = self.driver.transport().poll.poll(events, timeout)
            && error.kind() != io::ErrorKind::Interrupted
        {
            return Err(error);
        }
        trace::turn_begins(due_at, || self.driver.transport().now());
        self.ready.drain(..self.dispatched);
        self.dispatched = 0;
        // What a panic has left was polled before the turn of the panic.
        self.ready.retain(|&(Token(slot), _)| !self.driver.is_new_in_this_turn(slot));
        self.ready.extend(events.iter().map(|event| (event.token(), readiness(event))));
        self.has_more_events = self.ready.len() >= events.capacity();
        self.driver.begin_turn(handler);
        while let Some(&(token, readiness)) = self.ready.get(self.dispatched) {
            // Before a callback may panic.
            self.dispatched += 1;
            self.dispatch(token, readiness, handler);
        }
        if self.has_commands {
            self.handle_wake_up(handler);
        }
        if !self.driver.is_ready() {
            self.driver.set_live_elsewhere(self.siblings.open_elsewhere());
        }
        self.driver.end_turn(handler);
        self.forward_requests();
        self.tend_listeners();
        self.publish_stats();
        Ok(self.report(handler))
    }

    /// The report of a shutdown that is complete. Commands that were queued before are executed, later ones refused.
    fn report<H: Handler<Data = D>>(&mut self, handler: &mut H) -> Option<ShutdownReport> {
        // `Done` is delivered first.
        self.driver.shutdown_report().filter(|_| !self.driver.has_undelivered())?;
        self.commands.extend(self.mailbox.0.stop());
        self.execute_commands(handler);
        // This loop is done, the others may not be.
        self.forward_requests();
        self.driver.transport().resolver.stop();
        self.driver.shutdown_report().cloned()
    }

    /// For handles, and for the loops that shut down with this one.
    fn publish_stats(&mut self) {
        let (driver, listeners) = (&self.driver, self.listeners.len());
        self.siblings.publish(driver.stats().open);
        let sockets = driver.as_transport();
        sockets.shared.publish(|stats| {
            driver.write_loop_stats(stats);
            stats.caps.descriptors = Cap::new(sockets.len() + listeners, None);
        });
    }

    /// How long it is until the hub has something to do.
    fn due(&mut self) -> Option<Duration> {
        let now = self.driver.transport().now();
        self.driver.poll_timeout().map(|at| at.since(now))
    }

    /// How long the poll may wait.
    fn wait(&self, limit: Option<Duration>, due: Option<Duration>) -> Option<Duration> {
        let unfinished = self.dispatched < self.ready.len() || self.has_commands || self.has_more_events;
        if unfinished || self.driver.has_more() || self.listeners.iter().any(Listener::has_more) {
            return Some(Duration::ZERO);
        }
        let rest = self.listeners.iter().any(Listener::is_resting).then_some(ACCEPT_REST);
        [limit, due, rest].into_iter().flatten().min()
    }

    fn dispatch<H: Handler<Data = D>>(&mut self, token: Token, readiness: Readiness, handler: &mut H) {
        match token {
            WAKER => self.has_commands = true,
            Token(number) if number > LISTENERS - self.listeners.len() => self.accept(LISTENERS - number),
            token => match source_of(token) {
                Some(source) => self.driver.handle_source(source, readiness),
                None => self.driver.ready(token.0, readiness, handler),
            },
        }
    }

    /// Commands of other threads, signals, and names that were looked up.
    fn handle_wake_up<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        // A budget of its own, so that neither commands nor callbacks keep the others waiting.
        let callbacks = usize::try_from(self.driver.config().event_loop.turn_callbacks).unwrap_or(COMMANDS);
        self.mailbox.0.take(&mut self.commands, callbacks.min(COMMANDS));
        #[cfg(feature = "signals")]
        while let Some(request) = self.watcher.as_mut().and_then(signals::Watcher::poll) {
            // Every loop has a watcher of its own.
            self.driver.apply_request(request);
        }
        self.execute_commands(handler);
        while let Some((ids, addresses)) = self.driver.transport().resolver.poll() {
            for id in ids {
                self.driver.handle_resolved(id, addresses.clone());
            }
        }
        self.has_commands = false;
    }

    fn execute_commands<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        while let Some((_, command)) = self.commands.pop_front() {
            match command {
                Command::Adopt(waiting) => waiting.execute(&mut self.driver),
                command => command.execute(&mut self.driver, handler),
            }
        }
    }

    /// What this loop was asked about a shutdown concerns all loops.
    fn forward_requests(&mut self) {
        for request in self.driver.take_requests() {
            self.siblings.forward(&request);
        }
    }

    /// The listeners' part of a turn's end.
    fn tend_listeners(&mut self) {
        if !self.driver.is_listening() {
            for listener in self.listeners.drain(..) {
                listener.close(self.driver.transport().poll.registry());
            }
        }
        for index in 0..self.listeners.len() {
            if self.listeners.get(index).is_some_and(|listener| listener.has_more() || listener.is_resting())
            {
                self.accept(index);
            }
        }
    }

    fn accept(&mut self, index: usize) {
        let (listeners, driver) = (&mut self.listeners, &mut self.driver);
        let Some(listener) = listeners.get_mut(index) else { return };
        if driver.has_undelivered() {
            // Each that is refused leaves an event: they do not become more than can be delivered.
            return listener.put_off();
        }
        let mut errors = Vec::new();
        #[cfg(feature = "tls")]
        let tls = listener.tls();
        let take = |stream, newcomer| {
            let Some(slot) = driver.accept_newcomer(&newcomer) else { return };
            let inserted = driver.transport().insert(slot, stream);
            #[cfg(feature = "tls")]
            let inserted = inserted.and_then(|()| match &tls {
                None => Ok(()),
                Some(tls) if newcomer.awaits_header() => {
                    driver.transport().accept_after_header(slot, tls);
                    Ok(())
                }
                Some(tls) => driver.transport().accept(slot, tls),
            });
            if let Err(error) = inserted {
                driver.handle_reset(slot, error.kind());
            }
        };
        listener.accept(take, |error, lasting| errors.push((error, lasting)));
        for (error, lasting) in errors {
            trace::accept_failed(&error, lasting);
            driver.note_accept_error(error, lasting);
        }
    }
}

/// The descriptor of the loop's poll, for the poll of a loop that drives this one: see [`Server::next_timeout`].
impl<D> AsFd for Server<D> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.driver.as_transport().poll.registry().as_fd()
    }
}

impl<D> Drop for Server<D> {
    fn drop(&mut self) {
        self.number.set_generation(self.driver.generation());
    }
}

fn readiness(event: &Ready) -> Readiness {
    Readiness {
        readable: event.is_readable(),
        writable: event.is_writable(),
        ended: event.is_read_closed() || event.is_error(),
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
        self.run_with(&mut accept_all(on_event))
    }

    /// One turn, as [`Server::poll_with`]. Every valid upgrade is accepted.
    ///
    /// # Errors
    /// If the system's poll fails.
    pub fn poll<F>(&mut self, timeout: Option<Duration>, on_event: F) -> io::Result<Option<ShutdownReport>>
    where
        F: FnMut(&mut Clients<'_, ()>, Event<'_>),
    {
        self.poll_with(timeout, &mut accept_all(on_event))
    }
}
