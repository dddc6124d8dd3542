//! What an observer of all namespaces sees.

use std::sync::Arc;

use crate::reason::Reason;

/// Something that happened to a socket.
#[derive(Clone, Debug)]
pub struct Observed {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its id.
    pub id: Arc<str>,
    /// What happened.
    pub what: Observation,
}

/// What an observer receives about a socket: first `Connected`, last `Disconnected`.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Observation {
    /// It has connected; its `on_connection` comes next.
    Connected,
    /// Its connection was upgraded from polling to WebSocket.
    Upgraded,
    /// It is in this room now.
    Joined(Arc<str>),
    /// It is not in this room any more.
    Left(Arc<str>),
    /// Its client sent an event: name and arguments as a JSON array, with placeholders for attachments.
    Received(Arc<str>),
    /// It was sent an event that is not replayed: the same.
    Sent(Arc<str>),
    /// It has ended.
    Disconnected(Reason),
}

/// What the state has to know of an observer.
pub(crate) struct Observing {
    /// The namespace whose events are not observed: it may be the one that they are sent to.
    pub(crate) except: Arc<str>,
    /// Observations that wait for it.
    pub(crate) pending: usize,
    /// Observations that were dropped, since the observer asked.
    pub(crate) dropped: u64,
}

impl Observing {
    pub(crate) fn new(except: Arc<str>) -> Self {
        Self { except, pending: 0, dropped: 0 }
    }
}
