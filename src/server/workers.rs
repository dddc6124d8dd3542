//! Several loops, each with its own connections, shut down as one.
//!
//! Every loop has a listener of its own on the same port (`SO_REUSEPORT`), so the kernel spreads new connections and no
//! loop waits for another. A loop forwards each shutdown request to the others.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    path::Path,
    sync::{Arc, atomic::AtomicUsize},
    thread,
};

#[cfg(feature = "signals")]
use super::signals::Signals;
use super::{
    event_loop::Server,
    handle::Handle,
    listener::{ListeningSocket, Sharing},
    parts::Parts,
    siblings::Siblings,
};
use crate::{
    close::CloseFrame,
    config::Config,
    error::{BindError, ConfigError, HandleError},
    event::{Event, Stats},
    hub::{Client, Clients, Handler, ShutdownRequest, accept_all},
    id::ConnectionId,
    message::Payload,
    shutdown::{Escalation, ShutdownPlan, ShutdownReport},
    stats::LoopStats,
};

/// Several loops on one address, each on a thread of its own. The kernel spreads new connections over them, and a shutdown concerns
/// all of them. A connection stays on its loop; what is said to those of other loops goes by [`WorkersHandle`].
///
/// ```
/// use std::time::Duration;
///
/// use adjourn::{Config, Event, ShutdownPlan, Workers};
///
/// let workers = Workers::bind("127.0.0.1:0", 2, Config::default())?;
/// let handle = workers.handle();
/// let elsewhere = handle.clone();
/// std::thread::spawn(move || handle.shutdown(ShutdownPlan::soft(Duration::from_secs(5))));
/// let report = workers.run(|_, event| {
///     if let Event::Message { message, .. } = event {
///         let _ = elsewhere.broadcast(message, |_| true); // to all clients of all loops
///     }
/// })?;
/// println!("{report}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Workers<D = ()> {
    parts: Vec<Parts<D>>,
    address: Option<SocketAddr>,
    /// Kept for as long as the loops live.
    #[cfg(feature = "signals")]
    signals: Option<Signals>,
}

impl<D: 'static> Workers<D> {
    /// Binds `count` loops (1 to 255) to the same address.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound, the system denies a poll, or there are too many loops in the process.
    #[expect(clippy::needless_pass_by_value, reason = "the shape of `Server::bind`")]
    pub fn bind(address: impl ToSocketAddrs, count: u8, config: Config) -> Result<Self, BindError> {
        let mut parts = loops(count, &config)?;
        let mut address = address.to_socket_addrs().map_err(BindError::Resolve)?.collect::<Vec<_>>();
        let mut sharing = if count > 1 { Sharing::First } else { Sharing::Alone };
        for part in &mut parts {
            // The others bind what the first was given for port 0.
            let socket = ListeningSocket::bind(address.as_slice(), &config.listener, sharing)?;
            sharing = Sharing::Further;
            address = vec![socket.local_addr().ok_or(BindError::NoAddress)?];
            part.listen_on(socket)?;
        }
        Ok(Self::new(parts, address.first().copied()))
    }

    /// Binds `count` loops (1 to 255) to the same Unix domain socket, as [`Server::bind_unix`]. Newcomers go to the loop that accepts
    /// them first: an idle one gets more than a busy one.
    ///
    /// # Errors
    /// If the path cannot be bound, the system denies a poll or a descriptor, or there are too many loops in the process.
    #[expect(clippy::needless_pass_by_value, reason = "the shape of `Server::bind`")]
    pub fn bind_unix(path: impl AsRef<Path>, count: u8, config: Config) -> Result<Self, BindError> {
        let parts = loops(count, &config)?;
        let socket = ListeningSocket::bind_unix(path.as_ref(), &config.listener)?;
        Self::sharing([socket], parts)
    }

    /// `count` loops (1 to 255) that all listen on these sockets, which listen already, as [`Server::listen_on`] does. Newcomers go to
    /// the loop that accepts them first.
    ///
    /// # Errors
    /// If one cannot be switched or watched, the system denies a poll or a descriptor, or there are too many loops in the process.
    #[expect(clippy::needless_pass_by_value, reason = "the shape of `Server::bind`")]
    pub fn on(
        sockets: impl IntoIterator<Item = ListeningSocket>,
        count: u8,
        config: Config,
    ) -> Result<Self, BindError> {
        let parts = loops(count, &config)?;
        Self::sharing(sockets, parts)
    }

    /// Each loop listens on each socket.
    fn sharing(
        sockets: impl IntoIterator<Item = ListeningSocket>,
        mut parts: Vec<Parts<D>>,
    ) -> Result<Self, BindError> {
        let mut address = None;
        for socket in sockets {
            address = address.or_else(|| socket.local_addr());
            for part in &mut parts {
                part.listen_on(socket.try_clone().map_err(BindError::Poll)?)?;
            }
        }
        Ok(Self::new(parts, address))
    }

    /// Loops that shut down as one.
    fn new(mut parts: Vec<Parts<D>>, address: Option<SocketAddr>) -> Self {
        let handles: Vec<_> = parts.iter().map(Parts::handle).collect();
        let open: Arc<[_]> = handles.iter().map(|_| AtomicUsize::new(0)).collect();
        for (own, part) in parts.iter_mut().enumerate() {
            let others = handles.iter().enumerate().filter(|(other, _)| *other != own);
            let others = others.map(|(_, handle)| handle.clone()).collect();
            part.siblings = Siblings { others, open: Arc::clone(&open), own };
        }
        Self {
            parts,
            address,
            #[cfg(feature = "signals")]
            signals: None,
        }
    }

    /// The address that all loops listen on, the first of several; `None` of a Unix domain socket.
    pub const fn local_addr(&self) -> Option<SocketAddr> {
        self.address
    }

    /// A handle for all loops.
    pub fn handle(&self) -> WorkersHandle<D> {
        WorkersHandle { loops: self.parts.iter().map(|part| (part.number.get(), part.handle())).collect() }
    }

    /// As [`Server::shutdown_on_signals`], for all loops.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    #[cfg(feature = "signals")]
    pub fn shutdown_on_signals(&mut self, plan: ShutdownPlan) -> io::Result<()> {
        let loops = self.parts.iter().map(|part| Arc::clone(&part.shared)).collect();
        let (signals, watchers) = Signals::install(plan, loops)?;
        for (part, watcher) in self.parts.iter_mut().zip(watchers) {
            part.watcher = Some(watcher);
        }
        self.signals = Some(signals);
        Ok(())
    }

    /// Serves until the shutdown of all loops is complete; returns their reports as one. The first loop runs on the
    /// calling thread. `make` is called once on the thread of each loop, with its place among them, from 0.
    ///
    /// # Errors
    /// The first error of a loop's poll, or that a thread could not be started. The other loops are shut down then, by
    /// [`ShutdownPlan::hard`].
    ///
    /// # Panics
    /// If a callback does.
    pub fn run_with<H, F>(self, make: F) -> io::Result<ShutdownReport>
    where
        H: Handler<Data = D>,
        F: Fn(u8) -> H + Sync,
    {
        #[cfg(feature = "signals")]
        let _signals = self.signals;
        let parts = self.parts;
        thread::scope(|scope| {
            let mut parts = (0..).zip(parts);
            let (_, first) = parts.next().ok_or(io::ErrorKind::InvalidInput)?;
            let make = &make;
            let mut others = Vec::new();
            let mut denied = None;
            for (place, part) in parts.by_ref() {
                let run = move || serve(part, || make(place));
                match thread::Builder::new().spawn_scoped(scope, run) {
                    Ok(thread) => others.push(thread),
                    Err(error) => {
                        denied = Some(error);
                        break;
                    }
                }
            }
            let mut result = match denied {
                None => serve(first, || make(0)),
                Some(error) => {
                    // Their listeners close before a client could connect and be refused.
                    drop((ShutDownSiblings::of(&first), first, parts));
                    Err(error)
                }
            };
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = match (result, other) {
                    (Ok(mut all), Ok(one)) => {
                        all.merge(one);
                        Ok(all)
                    }
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
            result
        })
    }
}

/// Loops that listen on nothing yet.
fn loops<D>(count: u8, config: &Config) -> Result<Vec<Parts<D>>, BindError> {
    if count == 0 {
        return Err(ConfigError::new("count of Workers::bind", "0".into(), "from 1 to 255".into()).into());
    }
    let shutdown_asked = Arc::default();
    (0..count).map(|_| Parts::new(config.clone(), Arc::clone(&shutdown_asked))).collect()
}

impl Workers<()> {
    /// Serves as [`Workers::run_with`]. Every valid upgrade is accepted; all loops share the closure.
    ///
    /// # Errors
    /// As [`Workers::run_with`].
    pub fn run<F>(self, on_event: F) -> io::Result<ShutdownReport>
    where
        F: Fn(&mut Clients<'_, ()>, Event<'_>) + Sync,
    {
        self.run_with(|_| accept_all(&on_event))
    }
}

/// Runs one loop. However it ends, the others do not go on alone.
fn serve<H: Handler<Data: 'static>>(
    parts: Parts<H::Data>,
    make: impl FnOnce() -> H,
) -> io::Result<ShutdownReport> {
    let mut peers = ShutDownSiblings::of(&parts);
    let report = Server::from_parts(parts).run_with(&mut make())?;
    peers.0.clear();
    Ok(report)
}

/// A loop that fails, or whose callback panics, takes the others down.
struct ShutDownSiblings<D>(Vec<Handle<D>>);

impl<D> ShutDownSiblings<D> {
    fn of(parts: &Parts<D>) -> Self {
        Self(parts.siblings.others.clone())
    }
}

impl<D> Drop for ShutDownSiblings<D> {
    fn drop(&mut self) {
        for sibling in &self.0 {
            // One that has stopped is down already.
            let _ = sibling.shutdown(ShutdownPlan::hard());
        }
    }
}

/// Speaks to all loops of [`Workers`] from other threads, as a [`Handle`] does to one.
#[derive(Debug)]
pub struct WorkersHandle<D = ()> {
    /// By the number that is in the ids of their connections.
    loops: Vec<(u8, Handle<D>)>,
}

impl<D> Clone for WorkersHandle<D> {
    fn clone(&self) -> Self {
        Self { loops: self.loops.clone() }
    }
}

impl<D> WorkersHandle<D> {
    /// The handle of the loop that owns a connection. `None` if it belongs to another server.
    pub fn of(&self, id: ConnectionId) -> Option<&Handle<D>> {
        self.loops.iter().find(|(number, _)| *number == id.loop_number()).map(|(_, handle)| handle)
    }

    /// The handles of all loops.
    pub fn iter(&self) -> impl Iterator<Item = &Handle<D>> {
        self.loops.iter().map(|(_, handle)| handle)
    }

    /// As [`Handle::send`], on the loop that owns the connection.
    ///
    /// # Errors
    /// As [`Handle::send`]; and [`HandleError::UnknownLoop`] if the id belongs to another server.
    pub fn send<'m>(&self, id: ConnectionId, message: impl Into<Payload<'m>>) -> Result<(), HandleError> {
        self.owner(id)?.send(id, message)
    }

    /// As [`Handle::close`], on the loop that owns the connection.
    ///
    /// # Errors
    /// As [`WorkersHandle::send`].
    pub fn close(&self, id: ConnectionId, frame: CloseFrame) -> Result<(), HandleError> {
        self.owner(id)?.close(id, frame)
    }

    /// As [`Handle::terminate`], on the loop that owns the connection.
    ///
    /// # Errors
    /// As [`WorkersHandle::send`].
    pub fn terminate(&self, id: ConnectionId) -> Result<(), HandleError> {
        self.owner(id)?.terminate(id)
    }

    fn owner(&self, id: ConnectionId) -> Result<&Handle<D>, HandleError> {
        self.of(id).ok_or(HandleError::UnknownLoop)
    }

    /// Calls `act` once on the thread of every loop that runs.
    ///
    /// # Errors
    /// If all loops have stopped, or too much waits for one of them: then the others call it, and [`WorkersHandle::iter`] with
    /// [`Handle::defer`] says which do.
    pub fn defer(
        &self,
        act: impl Fn(&mut Clients<'_, D>) + Clone + Send + 'static,
    ) -> Result<(), HandleError> {
        self.each(|handle| {
            let act = act.clone();
            handle.defer(move |clients| act(clients))
        })
    }

    /// How many connections all loops have, by state. See [`Handle::stats`].
    pub fn stats(&self) -> Stats {
        let mut all = Stats::default();
        self.iter().for_each(|handle| all.add(&handle.stats()));
        all
    }

    /// What each loop had counted at the end of its last turn. See [`Handle::loop_stats`]; [`LoopStats::sum`] makes them one.
    pub fn loop_stats(&self) -> Vec<LoopStats> {
        let of =
            |(number, handle): &(u8, Handle<D>)| LoopStats { number: Some(*number), ..handle.loop_stats() };
        self.loops.iter().map(of).collect()
    }

    /// As [`Handle::broadcast`], for the connections of every loop that runs. The message is copied for each loop, unless it is shared
    /// ([`Payload`]).
    ///
    /// # Errors
    /// If all loops have stopped, or too much waits for one of them: then the connections of the others get it.
    pub fn broadcast<'m>(
        &self,
        message: impl Into<Payload<'m>>,
        to: impl FnMut(&Client<'_, D>) -> bool + Clone + Send + 'static,
    ) -> Result<(), HandleError> {
        let message = message.into();
        self.each(|handle| handle.broadcast(message.clone(), to.clone()))
    }

    /// Begins a shutdown of all loops, or shortens the one that runs.
    ///
    /// # Errors
    /// If the loops have stopped.
    pub fn shutdown(&self, plan: ShutdownPlan) -> Result<(), HandleError> {
        self.ask(&ShutdownRequest::Shutdown(plan))
    }

    /// Takes a running shutdown to its next phase.
    ///
    /// # Errors
    /// If the loops have stopped.
    pub fn escalate(&self) -> Result<(), HandleError> {
        self.ask(&ShutdownRequest::Escalate(Escalation::Escalate))
    }

    /// Takes a running shutdown to its hard sweep.
    ///
    /// # Errors
    /// If the loops have stopped.
    pub fn abort(&self) -> Result<(), HandleError> {
        self.ask(&ShutdownRequest::Abort(Escalation::Abort))
    }

    fn ask(&self, request: &ShutdownRequest) -> Result<(), HandleError> {
        self.each(|handle| handle.relay(request.clone()))
    }

    /// Does it for every loop, and returns the first error. One that has stopped already is none as long as another has not.
    fn each(&self, act: impl Fn(&Handle<D>) -> Result<(), HandleError>) -> Result<(), HandleError> {
        let done = self.iter().map(act).filter(|done| *done != Err(HandleError::Stopped)).collect::<Vec<_>>();
        if done.is_empty() { Err(HandleError::Stopped) } else { done.into_iter().collect() }
    }

    /// Whether the server is ready for new clients.
    pub fn ready(&self) -> bool {
        self.iter().all(Handle::ready)
    }
}
