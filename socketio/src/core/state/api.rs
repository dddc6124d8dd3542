//! What the application and the driver see besides sockets: who is connected, how it ended, what was answered.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::ConnectingKey;
use super::inbox::Inbox;
use crate::error::{AckError, ConnectError};
use crate::offset::Position;
use crate::packet::{ArgsBuf, Query};
use crate::reason::Reason;
use crate::store::{Millis, ResumeRefusal};

/// Over what a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// HTTP long-polling.
    Polling,
    /// WebSocket.
    WebSocket,
}

/// The request that opened a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// All parameters, the engine's own included.
    pub query: Query,
    /// Those in `keep_headers`: the name in lower case, the value.
    pub headers: Vec<(String, String)>,
    /// The path without the query.
    pub path: String,
    /// Where the TCP connection came from.
    pub address: Option<SocketAddr>,
    /// When, by the store's clock.
    pub time: Millis,
    /// Over what it began.
    pub transport: Transport,
}

/// Who connects to a namespace.
#[derive(Clone)]
pub struct Handshake {
    pub(in crate::core) peer: Arc<Peer>,
    pub(in crate::core) namespace: Arc<str>,
    pub(in crate::core) auth: Option<Arc<str>>,
}

impl Handshake {
    /// The request that opened the connection.
    pub fn peer(&self) -> &Peer {
        &self.peer
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// What the client sent with CONNECT: the text of a JSON object, as it came. It may hold a `pid`: do not log it.
    pub fn auth(&self) -> Option<&str> {
        self.auth.as_deref()
    }

    /// The first value of a query parameter.
    pub fn query(&self, name: &str) -> Option<&str> {
        self.peer.query.get(name)
    }

    /// The value of a header that is kept; `name` in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.peer.headers.iter().find(|header| header.0 == name).map(|header| header.1.as_str())
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake")
            .field("namespace", &self.namespace)
            .field("address", &self.peer.address)
            .finish_non_exhaustive()
    }
}

/// The answer of a middleware, now or later, from this thread or another. Dropped, it refuses with `internal error`.
pub struct Verdict {
    pub(in crate::core) to: Option<(Inbox, ConnectingKey, usize)>,
}

impl Verdict {
    /// The client may connect. `principal` says who it is, so that nobody else resumes its session; empty: nobody in
    /// particular. If several middlewares give one, the last counts.
    pub fn accept(mut self, principal: impl Into<Arc<str>>) {
        self.answer(Ok(principal.into()));
    }

    /// The client gets `connect_error`.
    pub fn refuse(mut self, error: ConnectError) {
        self.answer(Err(error));
    }

    fn answer(&mut self, verdict: Result<Arc<str>, ConnectError>) {
        if let Some((inbox, key, check)) = self.to.take() {
            inbox.push_answer(move |io| io.verdict(key, check, verdict));
        }
    }
}

impl Drop for Verdict {
    fn drop(&mut self) {
        self.answer(Err(ConnectError { message: "internal error".to_owned(), data: None }));
    }
}

impl ConnectError {
    /// An error without data.
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), data: None }
    }
}

/// Why an event of a client was dropped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EventError(pub String);

/// How a socket ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Disconnect {
    /// The first cause.
    pub reason: Reason,
    /// The code that its WebSocket ended with, if there was one and the end is known.
    pub close_code: Option<u16>,
    /// Its session can be resumed until then (by [`Io::now`](super::Io::now)).
    pub resumable_until: Option<Duration>,
    /// Bytes that were queued and not taken.
    pub unsent: usize,
    /// The rooms that it was in, without its own id.
    pub rooms: Vec<Arc<str>>,
}

/// Is this socket a new session, or one that goes on?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ResumeOutcome {
    /// A new session; no other was asked for.
    Fresh,
    /// The session goes on, with its id, rooms and data.
    Resumed {
        /// Events in the first page of what it missed.
        missed: u64,
        /// Was that all?
        complete: bool,
        /// For how long it had been away.
        away: Duration,
        /// It has everything up to here.
        from: Position,
        /// The first page reaches up to here.
        to: Position,
    },
    /// A new session, since the one that was asked for cannot be resumed.
    Refused(ResumeRefusal),
}

impl ResumeOutcome {
    /// Does a session go on?
    pub const fn is_resumed(&self) -> bool {
        matches!(self, Self::Resumed { .. })
    }

    /// `fresh`, `resumed`, or the refusal's name.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Resumed { .. } => "resumed",
            Self::Refused(why) => refusal_name(*why),
        }
    }
}

/// The name of a refusal, as `failed_event` has it.
pub(crate) const fn refusal_name(why: ResumeRefusal) -> &'static str {
    match why {
        ResumeRefusal::UnknownSession => "UnknownSession",
        ResumeRefusal::Expired => "Expired",
        ResumeRefusal::OffsetTrimmed { .. } => "OffsetTrimmed",
        ResumeRefusal::OffsetInvalid => "OffsetInvalid",
        ResumeRefusal::PrincipalMismatch => "PrincipalMismatch",
        ResumeRefusal::ReplayTooLarge => "ReplayTooLarge",
        ResumeRefusal::StoreUnavailable => "StoreUnavailable",
    }
}

/// How an event that asks for an ack is delivered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AckMode {
    /// Sent once, to sockets that are connected.
    #[default]
    Once,
    /// Logged, and sent again after a resume until it is answered: at least once. Without recovery as `Once`.
    Redeliver,
}

/// For how long an ack is waited for, and what becomes of the event meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct AckOptions {
    /// The answer has to come by then.
    pub timeout: Duration,
    /// How the event is delivered.
    pub mode: AckMode,
}

impl AckOptions {
    /// Sent once.
    pub const fn once(timeout: Duration) -> Self {
        Self { timeout, mode: AckMode::Once }
    }

    /// Sent again after a resume.
    pub const fn redeliver(timeout: Duration) -> Self {
        Self { timeout, mode: AckMode::Redeliver }
    }
}

/// The answers to a broadcast with acks.
#[derive(Clone, Debug)]
pub struct Answers {
    /// What came in time, in that order.
    pub answers: Vec<Answer>,
    /// How many were expected and did not come.
    pub missing: usize,
    /// Why it ended before all had answered.
    pub error: Option<AckError>,
    /// Nodes that have not said whom they asked.
    pub missing_nodes: Vec<crate::store::NodeId>,
}

/// The answers to `server_side_emit_with_acks`.
#[derive(Clone, Debug)]
pub struct ServerAnswers {
    /// Of the nodes that have a handler, in the order in which they came.
    pub answers: Vec<(crate::store::NodeId, ArgsBuf)>,
    /// Nodes that are dead, or did not answer in time.
    pub missing_nodes: Vec<crate::store::NodeId>,
}

/// One socket's answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The socket's id.
    pub id: Arc<str>,
    /// The arguments.
    pub args: ArgsBuf,
}

/// A socket as `fetch` finds it.
#[derive(Clone, Debug)]
pub struct SocketInfo {
    /// Its id.
    pub id: Arc<str>,
    /// Its rooms, its own id among them.
    pub rooms: Vec<Arc<str>>,
    /// Its session's data: the text of a JSON object.
    pub data: Option<Arc<str>>,
    /// How it connected.
    pub handshake: Arc<Handshake>,
}

/// The sockets that `fetch` found.
#[derive(Clone, Debug)]
pub struct Fetched {
    /// In no particular order.
    pub sockets: Vec<SocketInfo>,
    /// Processes that did not answer in time.
    pub missing_nodes: Vec<crate::store::NodeId>,
}

/// What a shutdown has found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ShutdownCounts {
    /// Sockets connected when the sweep began.
    pub sockets: u64,
    /// Connections on polling then.
    pub polling: u64,
    /// Sessions that can be resumed.
    pub resumable: u64,
    /// Sessions that are not saved.
    pub unsaved_sessions: u64,
    /// Entries that are not committed.
    pub unflushed_entries: u64,
}
