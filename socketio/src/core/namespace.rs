//! The application's handlers of a namespace, or of all that a predicate makes (specification 7, 21).

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::once::{KeyFrom, OnceCall, OnceRun};
use super::socket::Socket;
use super::state::{Ack, Disconnect, EventError, Handshake, Verdict};
use crate::packet::Args;
use crate::store::{AckValue, RunError, SessionSummary, Tx};

pub(super) type Check = Box<dyn FnMut(&Handshake, Verdict) + Send>;
pub(super) type OnConnection = Box<dyn FnMut(&mut Socket<'_>) + Send>;
pub(super) type OnDisconnect = Box<dyn FnMut(&mut Socket<'_>, &Disconnect) + Send>;
pub(super) type OnEvent = Box<dyn FnMut(&mut Socket<'_>, Args<'_>, Option<Ack>) + Send>;
pub(super) type OnAny = Box<dyn FnMut(&mut Socket<'_>, &str, Args<'_>) + Send>;
pub(super) type Filter = Box<dyn FnMut(&mut Socket<'_>, &str, Args<'_>) -> Result<(), EventError> + Send>;
pub(super) type OnEventError = Box<dyn FnMut(&mut Socket<'_>, &str, &EventError) + Send>;
pub(super) type OnExpired = Box<dyn FnMut(&SessionSummary) + Send>;

/// The handlers of a namespace. They run on the loop's thread, in the order in which events arrive; one that panics is
/// counted, and its client gets no ack. A handler given twice replaces the first, but checks and filters add up.
#[derive(Default)]
pub struct Namespace {
    pub(super) checks: Vec<Check>,
    pub(super) filters: Vec<Filter>,
    pub(super) connection: Option<OnConnection>,
    pub(super) disconnect: Option<OnDisconnect>,
    pub(super) events: HashMap<Box<str>, Handler>,
    pub(super) any: Option<OnAny>,
    pub(super) event_error: Option<OnEventError>,
    pub(super) expired: Option<OnExpired>,
}

/// The name of a namespace: `chat` is `/chat`, as officially.
pub(super) fn full_name(name: &str) -> Cow<'_, str> {
    if name.starts_with('/') { Cow::Borrowed(name) } else { Cow::Owned(format!("/{name}")) }
}

/// What an event does.
pub(super) enum Handler {
    Each(OnEvent),
    Once(KeyFrom, OnceRun),
}

impl Namespace {
    /// A middleware: asked for each CONNECT, in order; the first refusal ends it.
    pub fn check(&mut self, check: impl FnMut(&Handshake, Verdict) + Send + 'static) -> &mut Self {
        self.checks.push(Box::new(check));
        self
    }

    /// Called for each socket, after its CONNECT was answered.
    pub fn on_connection(&mut self, handler: impl FnMut(&mut Socket<'_>) + Send + 'static) -> &mut Self {
        self.connection = Some(Box::new(handler));
        self
    }

    /// Called once for each socket that `on_connection` was called for. Rooms and data can still be read.
    pub fn on_disconnect(
        &mut self,
        handler: impl FnMut(&mut Socket<'_>, &Disconnect) + Send + 'static,
    ) -> &mut Self {
        self.disconnect = Some(Box::new(handler));
        self
    }

    /// Called for each event of that name. The ack is there if the client asked for one.
    pub fn on(
        &mut self,
        event: &str,
        handler: impl FnMut(&mut Socket<'_>, Args<'_>, Option<Ack>) + Send + 'static,
    ) -> &mut Self {
        self.events.insert(Box::from(event), Handler::Each(Box::new(handler)));
        self
    }

    /// Called before the handler of each event, also of those that have none.
    pub fn on_any(
        &mut self,
        handler: impl FnMut(&mut Socket<'_>, &str, Args<'_>) + Send + 'static,
    ) -> &mut Self {
        self.any = Some(Box::new(handler));
        self
    }

    /// A middleware of events: an error drops the event, without an ack.
    pub fn filter(
        &mut self,
        filter: impl FnMut(&mut Socket<'_>, &str, Args<'_>) -> Result<(), EventError> + Send + 'static,
    ) -> &mut Self {
        self.filters.push(Box::new(filter));
        self
    }

    /// Called when a filter has dropped an event, or an event of [`Namespace::on_once`] came without its key.
    pub fn on_event_error(
        &mut self,
        handler: impl FnMut(&mut Socket<'_>, &str, &EventError) + Send + 'static,
    ) -> &mut Self {
        self.event_error = Some(Box::new(handler));
        self
    }

    /// Called once per key, however often, over whatever connection and process, the event comes (specification 15).
    ///
    /// The handler runs in a transaction of the store (see [`Socket::transact`] for when and where): what it writes, the key, and
    /// what it emits are committed together. The client gets the ack it returns, each time; an ack that is larger than
    /// `output.send_queue` or `once.max_ack` is an error, and nothing has happened.
    pub fn on_once(
        &mut self,
        event: &str,
        key: KeyFrom,
        handler: impl FnMut(&OnceCall, &mut Tx<'_>) -> Result<AckValue, RunError> + Send + 'static,
    ) -> &mut Self {
        self.events.insert(Box::from(event), Handler::Once(key, Arc::new(Mutex::new(handler))));
        self
    }

    /// Called once for each session that has ended without being resumed.
    pub fn on_session_expired(&mut self, handler: impl FnMut(&SessionSummary) + Send + 'static) -> &mut Self {
        self.expired = Some(Box::new(handler));
        self
    }
}
