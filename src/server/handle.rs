//! A handle for other threads: queue a command, wake the loop, never wait for it.

use std::{
    fmt,
    sync::{Arc, mpsc},
};

use super::{
    adopting::WaitingAdopt,
    mailbox::{Mailbox, Room},
};
use crate::{
    adopt::Adopt,
    close::{CloseFrame, CloseTiming},
    config::{Abort, LEAST_HANDLE_QUEUE},
    error::{AdoptError, HandleError},
    event::Stats,
    hub::{Accept, Client, Clients, Driver, Handler, ShutdownRequest, Transport, UpgradeRequest},
    id::ConnectionId,
    message::Payload,
    shutdown::{Escalation, ShutdownPlan},
    stats::LoopStats,
    wire::upgrade::Response,
};

/// Speaks to a server from other threads. Every call queues a command and returns at once; the loop executes commands in
/// the order in which they were queued. What comes of them is seen in the events.
///
/// `Ok` says that the loop will execute the command, unless the server is dropped before it gets to it. Once
/// [`Server::run`](super::Server::run) has returned, every call fails with [`HandleError::Stopped`]. Commands that wait
/// have at most [`LoopConfig::max_handle_queue`](crate::config::LoopConfig::max_handle_queue) bytes; beyond that a call fails with
/// [`HandleError::Full`], except for those about a shutdown, which always have room.
///
/// ```
/// use std::thread;
///
/// use adjourn::{Config, Server, ShutdownPlan};
///
/// let mut server = Server::bind("127.0.0.1:0", Config::default())?;
/// let handle = server.handle();
/// let thread = thread::spawn(move || server.run(|_, _| {}));
///
/// handle.broadcast("hello, all", |client| client.path() == Some("/news"))?;
/// // Whatever `Clients` can do and know, another thread has it done by `defer`, and learns by `ask`.
/// let stats = handle.ask(|clients| clients.stats())?.recv()?;
/// assert_eq!(stats.open, 0);
///
/// handle.shutdown(ShutdownPlan::hard())?;
/// thread.join().expect("no callback panics")?;
/// assert!(handle.defer(|_| {}).is_err(), "it has stopped");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Handle<D = ()> {
    mailbox: Arc<Mailbox<Command<D>>>,
}

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<D> fmt::Debug for Handle<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("ready", &self.ready()).finish_non_exhaustive()
    }
}

/// What a thread wants a loop to do.
pub(super) enum Command<D> {
    Send(ConnectionId, Payload<'static>),
    Close(ConnectionId, CloseFrame, CloseTiming),
    Terminate(ConnectionId, Option<Abort>),
    Defer(Deferred<D>),
    /// The loop does it: a socket is its transport's business.
    Adopt(WaitingAdopt<D>),
    Ask(ShutdownRequest),
    /// What another loop was asked: it is not passed on again.
    Relay(ShutdownRequest),
}

/// The smallest queue has room for one without a payload, and for what a closure may hold.
const _: () = assert!(size_of::<Command<()>>() <= LEAST_HANDLE_QUEUE / 2);

type Deferred<D> = Box<dyn FnOnce(&mut Clients<'_, D>) + Send>;

impl<D> Command<D> {
    /// A command for a connection that is gone does nothing, as the same call in a callback would. A message that cannot
    /// be queued is counted in [`Stats::unsent`](crate::clients::Stats::unsent).
    pub(super) fn execute<T: Transport, H: Handler<Data = D>>(
        self,
        driver: &mut Driver<D, T>,
        handler: &mut H,
    ) {
        match self {
            Self::Ask(request) => driver.ask(request),
            Self::Relay(request) => driver.apply_request(request),
            command => {
                let unsent = driver.act(handler, |clients, _| command.act(clients));
                driver.note_unsent(unsent);
            }
        }
    }

    /// Returns how many messages could not be queued.
    fn act(self, clients: &mut Clients<'_, D>) -> usize {
        match self {
            Self::Send(id, payload) => return usize::from(clients.send(id, payload).is_err()),
            Self::Close(id, frame, timing) => {
                clients.close_with(id, frame, timing);
            }
            Self::Terminate(id, None) => {
                clients.terminate(id);
            }
            Self::Terminate(id, Some(style)) => {
                clients.terminate_with(id, style);
            }
            Self::Defer(act) => act(clients),
            Self::Adopt(_) | Self::Ask(_) | Self::Relay(_) => {}
        }
        0
    }
}

impl<D> Handle<D> {
    pub(super) const fn new(mailbox: Arc<Mailbox<Command<D>>>) -> Self {
        Self { mailbox }
    }

    fn push(&self, command: Command<D>, payload: usize) -> Result<(), HandleError> {
        self.mailbox.push(command, payload, Room::Limited)
    }

    /// Queues a message. Copies it once, unless it is owned or shared. If it cannot be sent when the loop gets to it, it is
    /// dropped and counted in [`Stats::unsent`](crate::clients::Stats::unsent); use [`Handle::defer`] to see what
    /// [`Clients::send`] returns.
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn send<'m>(&self, id: ConnectionId, message: impl Into<Payload<'m>>) -> Result<(), HandleError> {
        let message = message.into().into_owned();
        let bytes = message.len();
        self.push(Command::Send(id, message), bytes)
    }

    /// How many connections the loop had, by state, at the end of its last turn. Does not wait for the loop.
    pub fn stats(&self) -> Stats {
        self.mailbox.shared().stats(|stats| stats.connections)
    }

    /// All that the loop had counted at the end of its last turn, and how much of its limits is used. Does not wait for the loop, so it
    /// works while a callback hangs. Copies some 2 KiB, and asks the system for the limit on descriptors.
    pub fn loop_stats(&self) -> LoopStats {
        let mut stats = self.mailbox.shared().stats(LoopStats::clone);
        stats.caps.handle_queue = self.mailbox.cap();
        stats.caps.descriptors.limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
        stats
    }

    /// See [`Clients::close`].
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn close(&self, id: ConnectionId, frame: CloseFrame) -> Result<(), HandleError> {
        self.push(Command::Close(id, frame, CloseTiming::default()), 0)
    }

    /// See [`Clients::terminate`].
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn terminate(&self, id: ConnectionId) -> Result<(), HandleError> {
        self.push(Command::Terminate(id, None), 0)
    }

    /// See [`Clients::accept`]. If the upgrade does not wait any more when the loop gets to it, `decide` is dropped.
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn accept<F>(&self, id: ConnectionId, decide: F) -> Result<(), HandleError>
    where
        F: for<'r> FnOnce(&UpgradeRequest<'r>) -> Accept<'r, D> + Send + 'static,
    {
        self.defer(move |clients| {
            let _ = clients.accept(id, decide);
        })
    }

    /// See [`Clients::reject`].
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn reject(&self, id: ConnectionId, response: Response) -> Result<(), HandleError> {
        let bytes = response.size();
        let reject = move |clients: &mut Clients<'_, D>| {
            let _ = clients.reject(id, &response);
        };
        self.push(Command::Defer(Box::new(reject)), bytes)
    }

    /// See [`Server::adopt`](super::Server::adopt). `done` is called once with what becomes of it: on the loop's thread, or on this
    /// one, before this returns, if the loop cannot be asked.
    pub fn adopt(&self, adopt: Adopt<D>, done: impl FnOnce(Result<ConnectionId, AdoptError>) + Send + 'static)
    where
        D: Send + 'static,
    {
        let bytes = adopt.adoption.size() + size_of::<Adopt<D>>() + size_of_val(&done);
        let command = Command::Adopt(WaitingAdopt::new(adopt, done));
        if let Err((why, Some(Command::Adopt(waiting)))) =
            self.mailbox.push_or_return(command, bytes, Room::Limited)
        {
            waiting.refuse(why);
        }
    }

    /// Calls `act` on the loop's thread.
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn defer(&self, act: impl FnOnce(&mut Clients<'_, D>) + Send + 'static) -> Result<(), HandleError> {
        let bytes = size_of_val(&act);
        self.push(Command::Defer(Box::new(act)), bytes)
    }

    /// Asks the loop something: `question` is called on its thread, and the answer comes to the receiver that is returned at once. If
    /// the loop stops before, receiving fails.
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Clients<'_, D>) -> R + Send + 'static,
    ) -> Result<mpsc::Receiver<R>, HandleError> {
        let (tell, answer) = mpsc::sync_channel(1);
        self.defer(move |clients| {
            // Nobody may be waiting for it any more.
            let _ = tell.send(question(clients));
        })?;
        Ok(answer)
    }

    /// As [`Clients::broadcast`]. Copies the message once, unless it is owned or shared. Connections that have no room for it do
    /// not get it; [`Handle::defer`] lets you see which.
    ///
    /// # Errors
    /// If the server has stopped, or too much waits for it.
    pub fn broadcast<'m>(
        &self,
        message: impl Into<Payload<'m>>,
        to: impl FnMut(&Client<'_, D>) -> bool + Send + 'static,
    ) -> Result<(), HandleError> {
        let message = message.into().into_owned();
        let bytes = message.len() + size_of_val(&to);
        let act = move |clients: &mut Clients<'_, D>| {
            clients.broadcast(message, to);
        };
        self.push(Command::Defer(Box::new(act)), bytes)
    }

    /// Begins a shutdown, or shortens the one that runs.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn shutdown(&self, plan: ShutdownPlan) -> Result<(), HandleError> {
        self.request(ShutdownRequest::Shutdown(plan))
    }

    /// Takes a running shutdown to its next phase.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn escalate(&self) -> Result<(), HandleError> {
        self.request(ShutdownRequest::Escalate(Escalation::Escalate))
    }

    /// Takes a running shutdown to its hard sweep.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn abort(&self) -> Result<(), HandleError> {
        self.request(ShutdownRequest::Abort(Escalation::Abort))
    }

    /// Asks this loop, which passes it on to those that shut down with it.
    pub(super) fn request(&self, request: ShutdownRequest) -> Result<(), HandleError> {
        let begins = matches!(request, ShutdownRequest::Shutdown(_));
        self.push_request(Command::Ask(request), begins)
    }

    pub(super) fn relay(&self, request: ShutdownRequest) -> Result<(), HandleError> {
        let begins = matches!(request, ShutdownRequest::Shutdown(_));
        self.push_request(Command::Relay(request), begins)
    }

    fn push_request(&self, request: Command<D>, begins: bool) -> Result<(), HandleError> {
        self.mailbox.push(request, 0, Room::Always)?;
        if begins {
            self.mailbox.shared().set_not_ready();
        }
        Ok(())
    }

    /// Whether the server is ready for new clients: false once a shutdown has begun. For health checks; does not wait.
    pub fn ready(&self) -> bool {
        self.mailbox.shared().is_ready()
    }
}
