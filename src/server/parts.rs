//! What a loop is made of before it has a thread to run on.

use std::sync::{Arc, atomic::AtomicBool};

use mio::{Poll, Token, Waker};

#[cfg(feature = "signals")]
use super::signals;
use super::{
    handle::{Command, Handle},
    listener::{Listener, ListeningSocket},
    mailbox::{Mailbox, Shared},
    number::LoopNumber,
    siblings::Siblings,
};
use crate::{config::Config, error::BindError};

/// What wakes the poll for commands and signals.
pub(super) const WAKER: Token = Token(usize::MAX);
/// Listeners are numbered downwards from here; connections, by their slots, upwards from 0.
pub(super) const LISTENERS: usize = usize::MAX - 1;

/// What a loop is made of, before it has a thread to run on.
#[derive(Debug)]
pub(super) struct Parts<D> {
    pub(super) config: Config,
    pub(super) number: LoopNumber,
    pub(super) poll: Poll,
    pub(super) listeners: Vec<Listener>,
    pub(super) mailbox: MailboxOwner<D>,
    pub(super) shared: Arc<Shared>,
    /// The other loops that shut down with this one.
    pub(super) siblings: Siblings<D>,
    #[cfg(feature = "signals")]
    pub(super) watcher: Option<signals::Watcher>,
}

impl<D> Parts<D> {
    /// `shutdown_asked` is shared with the loops that shut down with this one.
    pub(super) fn new(config: Config, shutdown_asked: Arc<AtomicBool>) -> Result<Self, BindError> {
        config.validate()?;
        let number = LoopNumber::take()?;
        let poll = Poll::new().map_err(BindError::Poll)?;
        let waker = Waker::new(poll.registry(), WAKER).map_err(BindError::Poll)?;
        let shared = Arc::new(Shared::new(waker, shutdown_asked));
        let mailbox =
            MailboxOwner(Arc::new(Mailbox::new(Arc::clone(&shared), config.event_loop.max_handle_queue)));
        Ok(Self {
            config,
            number,
            poll,
            listeners: Vec::new(),
            mailbox,
            shared,
            siblings: Siblings::default(),
            #[cfg(feature = "signals")]
            watcher: None,
        })
    }

    pub(super) fn listen_on(&mut self, socket: ListeningSocket) -> Result<(), BindError> {
        let token = Token(LISTENERS - self.listeners.len());
        let listener = Listener::watch(socket, &self.config.listener, self.poll.registry(), token);
        self.listeners.push(listener.map_err(BindError::Poll)?);
        Ok(())
    }

    pub(super) fn handle(&self) -> Handle<D> {
        self.mailbox.handle()
    }
}

/// The loop's end of its mailbox. Dropping it makes every call of a handle fail with `Stopped`.
#[derive(Debug)]
pub(super) struct MailboxOwner<D>(pub(super) Arc<Mailbox<Command<D>>>);

impl<D> MailboxOwner<D> {
    pub(super) fn handle(&self) -> Handle<D> {
        Handle::new(Arc::clone(&self.0))
    }
}

impl<D> Drop for MailboxOwner<D> {
    fn drop(&mut self) {
        self.0.stop();
    }
}
