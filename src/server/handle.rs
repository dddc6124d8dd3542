//! A handle for other threads: push, wake, never wait.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
};

use mio::Waker;

use crate::{
    close::CloseFrame,
    config::Abort,
    conn::Timing,
    error::HandleError,
    event::{Kind, Message},
    hub::{Clients, Hub, ShutdownRequest},
    id::ConnectionId,
    shutdown::{Escalation, ShutdownPlan},
};

/// What the loop and its handles share.
#[derive(Debug)]
pub(super) struct Shared {
    waker: Waker,
    /// A wake-up is under way: a further one is not needed.
    woken: AtomicBool,
    ready: AtomicBool,
}

impl Shared {
    pub(super) const fn new(waker: Waker) -> Self {
        Self { waker, woken: AtomicBool::new(false), ready: AtomicBool::new(true) }
    }

    pub(super) fn wake(&self) -> io::Result<()> {
        if self.woken.swap(true, Ordering::AcqRel) { Ok(()) } else { self.waker.wake() }
    }

    /// The loop is about to look at what was pushed.
    pub(super) fn heard(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }

    /// The loop wakes itself: it has not looked at everything. If that fails, the next command wakes it.
    pub(super) fn wake_again(&self) {
        let _ = self.wake();
    }

    pub(super) fn set_ready(&self, ready: bool) {
        if self.ready.load(Ordering::Relaxed) != ready {
            self.ready.store(ready, Ordering::Release);
        }
    }
}

/// Speaks to a server from other threads. Every call pushes a command and returns at once; the loop carries commands
/// out in the order of their pushing. What it answers comes as events.
#[derive(Debug)]
pub struct Handle<D = ()> {
    sender: Sender<Command<D>>,
    shared: Arc<Shared>,
}

impl<D> Clone for Handle<D> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), shared: Arc::clone(&self.shared) }
    }
}

pub(super) enum Command<D> {
    Send(ConnectionId, Kind, Vec<u8>),
    Close(ConnectionId, CloseFrame, Timing),
    Terminate(ConnectionId, Option<Abort>),
    Defer(Deferred<D>),
    Ask(ShutdownRequest),
    /// What another loop was asked: not to be told on.
    Relay(ShutdownRequest),
}

type Deferred<D> = Box<dyn FnOnce(&mut Clients<'_, D>) + Send>;

impl<D> Command<D> {
    /// A command for a connection that is gone does nothing, as the same call in a callback would.
    pub(super) fn carry_out(self, hub: &mut Hub<D>) {
        let mut clients = hub.clients();
        match self {
            Self::Send(id, Kind::Text, payload) => {
                if let Ok(text) = String::from_utf8(payload) {
                    let _ = clients.send(id, text);
                }
            }
            Self::Send(id, Kind::Binary, payload) => {
                let _ = clients.send(id, payload);
            }
            Self::Close(id, frame, timing) => {
                clients.close_with(id, frame, timing);
            }
            Self::Terminate(id, None) => {
                clients.terminate(id);
            }
            Self::Terminate(id, Some(style)) => {
                clients.terminate_with(id, style);
            }
            Self::Defer(act) => act(&mut clients),
            Self::Ask(request) => hub.ask(request),
            Self::Relay(request) => hub.apply_request(request),
        }
    }
}

impl<D> Handle<D> {
    pub(super) const fn new(sender: Sender<Command<D>>, shared: Arc<Shared>) -> Self {
        Self { sender, shared }
    }

    fn push(&self, command: Command<D>) -> Result<(), HandleError> {
        self.sender.send(command).map_err(|_| HandleError::Stopped)?;
        self.shared.wake().map_err(|_| HandleError::Stopped)
    }

    /// Queues a message. Copies it once. A message that cannot be queued when the loop gets to it is dropped without a
    /// word; use [`Handle::defer`] to see what [`Clients::send`] says.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn send<'m>(&self, id: ConnectionId, message: impl Into<Message<'m>>) -> Result<(), HandleError> {
        let message = message.into();
        self.push(Command::Send(id, message.kind(), message.into_bytes()))
    }

    /// See [`Clients::close`].
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn close(&self, id: ConnectionId, frame: CloseFrame) -> Result<(), HandleError> {
        self.push(Command::Close(id, frame, Timing::default()))
    }

    /// See [`Clients::terminate`].
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn terminate(&self, id: ConnectionId) -> Result<(), HandleError> {
        self.push(Command::Terminate(id, None))
    }

    /// Calls `act` on the loop's thread.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn defer(&self, act: impl FnOnce(&mut Clients<'_, D>) + Send + 'static) -> Result<(), HandleError> {
        self.push(Command::Defer(Box::new(act)))
    }

    /// Begins a shutdown, or shortens the one that runs.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn shutdown(&self, plan: ShutdownPlan) -> Result<(), HandleError> {
        self.ask(ShutdownRequest::Shutdown(plan))
    }

    /// Takes a running shutdown to its next phase.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn escalate(&self) -> Result<(), HandleError> {
        self.ask(ShutdownRequest::Escalate(Escalation::Escalate))
    }

    /// Takes a running shutdown to its hard sweep.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn abort(&self) -> Result<(), HandleError> {
        self.ask(ShutdownRequest::Abort(Escalation::Abort))
    }

    /// What concerns this loop and those that go down with it.
    pub(super) fn ask(&self, request: ShutdownRequest) -> Result<(), HandleError> {
        self.push(Command::Ask(request))
    }

    pub(super) fn relay(&self, request: ShutdownRequest) -> Result<(), HandleError> {
        self.push(Command::Relay(request))
    }

    /// Whether the server is ready for new clients: false once a shutdown has begun. For health checks; does not wait.
    pub fn ready(&self) -> bool {
        self.shared.ready.load(Ordering::Acquire)
    }
}
