//! What a store keeps, and what its calls take and give.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Millis, StoreError};
use crate::offset::{Offset, Position};
use crate::secret::Secret;

/// What an entry of the log does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKind {
    /// An event for the sockets in `rooms`.
    Event,
    /// An event that asks for an ack until a deadline.
    Ask,
    /// Sockets in `rooms` join the rooms named in `packet` (a JSON array).
    Join,
    /// Sockets in `rooms` leave them.
    Leave,
    /// Sockets in `rooms` are disconnected; `packet` is `true` if their connections end, too.
    Disconnect,
    /// The session of the socket in `rooms` was attached; `packet` is its generation now (shared stores).
    Fence,
    /// The log's epoch is the number in `packet` from here on (shared stores).
    Epoch,
}

/// An entry that is to be appended. `packet` is the encoded Socket.IO packet without an offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewEntry {
    /// The log.
    pub namespace: Arc<str>,
    /// What it does.
    pub kind: EntryKind,
    /// Whom it concerns; none: all.
    pub rooms: Arc<[Arc<str>]>,
    /// Whom it does not.
    pub except: Arc<[Arc<str>]>,
    /// The encoded packet, or the argument of a membership change.
    pub packet: Arc<str>,
    /// Its attachments.
    pub attachments: Arc<[Bytes]>,
    /// The ack id of an `Ask`.
    pub ack: Option<u64>,
    /// Its deadline.
    pub until: Option<Millis>,
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its place.
    pub position: Position,
    /// When it was appended.
    pub at: Millis,
    /// What was appended.
    pub new: NewEntry,
}

/// One transaction of the writer.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// Appended in this order.
    pub entries: Vec<NewEntry>,
    /// Saved or removed if the generation is still the one given.
    pub sessions: Vec<SessionChange>,
    /// Results of keys that `once_begin` marked.
    pub once: Vec<OnceFinish>,
}

/// What a commit did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// The position of each entry, in the batch's order.
    pub positions: Vec<Position>,
    /// Indices into `Batch::sessions` of those whose generation is no longer current: nothing was written for them.
    pub stale: Vec<usize>,
}

/// A change of a session.
#[derive(Clone)]
pub enum SessionChange {
    /// Writes it whole. Generation 1 and unknown: creates it.
    Save(SessionRecord),
    /// Ends it.
    Remove {
        /// Its namespace.
        namespace: Arc<str>,
        /// The session.
        pid: Arc<str>,
        /// Only if this is its generation.
        generation: u64,
    },
}

/// A session as the store keeps it (specification 13). `Debug` shows 6 characters of its `pid`.
#[derive(Clone, PartialEq, Eq)]
pub struct SessionRecord {
    /// Its secret name.
    pub pid: Arc<str>,
    /// The socket's id.
    pub sid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Who it is.
    pub principal: Arc<str>,
    /// Increased by each attach.
    pub generation: u64,
    /// The log's tail when it began.
    pub first: Position,
    /// All entries up to here that concern it are at or below `last`.
    pub checkpoint: Position,
    /// The newest event known to concern it.
    pub last: Position,
    /// The application's data: a JSON object.
    pub data: Option<Arc<str>>,
    /// What `checkpoint` and `last` were before, the newest first: a client that did not get the newest event, and whose other
    /// events are older than the log, can still be resumed.
    pub earlier: Vec<(Position, Position)>,
    /// Ack ids of unexpired `Ask` entries that it has answered.
    pub answered: Vec<u64>,
    /// In which rooms it was, and when.
    pub memberships: Vec<Membership>,
    /// Since when it is away; `None`: connected.
    pub away: Option<Millis>,
}

/// Member of `room` for `from < position <= to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The room.
    pub room: Arc<str>,
    /// Not yet at this position.
    pub from: Position,
    /// Still at this position; `None`: a member now.
    pub to: Option<Position>,
}

/// A client asks for a session. `Debug` shows 6 characters of its `pid`.
#[derive(Clone)]
pub struct Attach {
    /// Its secret name.
    pub pid: Arc<str>,
    /// The namespace it connects to.
    pub namespace: Arc<str>,
    /// Who it is; `None`: not checked.
    pub principal: Option<Arc<str>>,
    /// What it has received, if it says so in our form.
    pub offset: Option<Offset>,
}

/// A session that is ours now.
#[derive(Clone, Debug)]
pub struct Attached {
    /// As stored, with the new generation, `away` = `None`; while away, join, leave and disconnect entries were not applied to it.
    pub session: SessionRecord,
    /// Since when it had been away, if it was.
    pub away: Option<Millis>,
    /// The replay begins after it (step 3).
    pub start: Position,
    /// The newest entry now.
    pub tail: Position,
}

/// Why a session cannot be resumed (specification 13, step 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ResumeRefusal {
    /// No such session.
    #[error("unknown session")]
    UnknownSession,
    /// Its time is over.
    #[error("the session has expired")]
    Expired,
    /// The log does not reach back to what it has received.
    #[error("the log begins after {floor}, which is later than what the client has")]
    OffsetTrimmed {
        /// The newest entry trimmed.
        floor: Position,
    },
    /// The offset is above the log's tail.
    #[error("the offset is above the log's tail")]
    OffsetInvalid,
    /// The session is somebody else's.
    #[error("the session belongs to another principal")]
    PrincipalMismatch,
    /// More than `max_replay` bytes would have to be read.
    #[error("the replay would be too large")]
    ReplayTooLarge,
    /// The store does not answer.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// Why an attach did not happen.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AttachError {
    /// The session cannot be resumed; nothing was changed.
    #[error("{why}")]
    Refused {
        /// Why.
        why: ResumeRefusal,
        /// What the client has received by its offset, clamped to the log; `START` if the offset says nothing. The fresh
        /// session's `first` is not below it.
        received: Position,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A key under which something is done once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OnceKey {
    /// Namespace, event and principal (or session), joined so that they cannot be confused.
    pub scope: Arc<str>,
    /// The application's key: at most 256 bytes.
    pub key: Arc<str>,
}

/// The state of a once key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OnceState {
    /// Ours to run.
    First,
    /// Somebody runs it, at most until then.
    Running {
        /// The end of the lease.
        until: Millis,
    },
    /// Done: the arguments of the ack, a JSON array, byte for byte.
    Done(AckValue),
}

/// The arguments of an ack: a JSON array, and its attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AckValue {
    /// The array, encoded; placeholders stand for attachments.
    pub json: Arc<str>,
    /// What the placeholders stand for.
    pub attachments: Arc<[Bytes]>,
}

/// The result of a key that [`Writer::once_begin`](crate::store::Writer::once_begin) marked as running.
#[derive(Clone, Debug)]
pub struct OnceFinish {
    /// The key.
    pub key: OnceKey,
    /// The ack; `None`: released, the next try runs anew.
    pub ack: Option<AckValue>,
}

/// How much of a log is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogLimits {
    /// Older entries go.
    pub age: Duration,
    /// Most entries.
    pub entries: u64,
    /// Most bytes of packets, attachments and rooms.
    pub bytes: u64,
    /// On a shared store: what is above stays, this node has not read it.
    pub read: Option<Position>,
}

impl LogLimits {
    /// A log is kept for longer than sessions: their checkpoints are a quarter of a window old.
    pub(crate) fn of(window: Duration, entries: u64, bytes: u64) -> Self {
        Self { age: window + window / 4, entries, bytes, read: None }
    }
}

/// What a trim did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Trimmed {
    /// The floor now.
    pub floor: Position,
    /// Entries that went.
    pub removed: u64,
    /// Entries and bytes that are left.
    pub entries: u64,
    /// Bytes that are left.
    pub bytes: u64,
    /// Is there more to trim? (A call trims a bounded number of entries.)
    pub more: bool,
}

/// A part of a log.
#[derive(Clone, Debug, Default)]
pub struct Page {
    /// In order.
    pub entries: Vec<Entry>,
    /// Has the log been trimmed beyond the start of what was asked for? Then entries are missing.
    pub trimmed: Option<Position>,
    /// Does this page reach the end of what was asked for?
    pub complete: bool,
}

/// A session that has ended without being resumed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SessionSummary {
    /// The socket's id.
    pub sid: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Who it was.
    pub principal: Arc<str>,
    /// Its data.
    pub data: Option<Arc<str>>,
    /// Was it dropped before its time because there were too many?
    pub evicted: bool,
}

impl NewEntry {
    /// Bytes that count for the limits of a log: packet, attachments, and the names of rooms.
    pub fn bytes(&self) -> u64 {
        let names = self.rooms.iter().chain(&*self.except).map(|room| room.len());
        let attachments = self.attachments.iter().map(Bytes::len);
        names.chain(attachments).fold(self.packet.len(), usize::saturating_add) as u64
    }
}

impl Trimmed {
    /// Of a log that does not exist: one that begins later has positions above `base`.
    pub(super) fn nothing(base: u64) -> Self {
        Self { floor: Position::counter(base), ..Self::default() }
    }
}

impl AckValue {
    /// Its bytes, attachments included.
    pub fn bytes(&self) -> usize {
        self.attachments.iter().map(Bytes::len).fold(self.json.len(), usize::saturating_add)
    }
}

impl SessionChange {
    /// The namespace of the session.
    pub fn namespace(&self) -> &Arc<str> {
        match self {
            Self::Save(record) => &record.namespace,
            Self::Remove { namespace, .. } => namespace,
        }
    }

    /// The session, and the generation that must be the stored one.
    pub fn key(&self) -> (&Arc<str>, u64) {
        match self {
            Self::Save(record) => (&record.pid, record.generation),
            Self::Remove { pid, generation, .. } => (pid, *generation),
        }
    }
}

impl fmt::Debug for SessionChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Save(record) => f.debug_tuple("Save").field(record).finish(),
            Self::Remove { namespace, pid, generation } => f
                .debug_struct("Remove")
                .field("namespace", namespace)
                .field("pid", &Secret(pid))
                .field("generation", generation)
                .finish(),
        }
    }
}

impl fmt::Debug for SessionRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionRecord")
            .field("pid", &Secret(&self.pid))
            .field("sid", &self.sid)
            .field("namespace", &self.namespace)
            .field("principal", &self.principal)
            .field("generation", &self.generation)
            .field("first", &self.first)
            .field("checkpoint", &self.checkpoint)
            .field("last", &self.last)
            .field("data", &self.data)
            .field("earlier", &self.earlier)
            .field("answered", &self.answered)
            .field("memberships", &self.memberships)
            .field("away", &self.away)
            .finish()
    }
}

impl fmt::Debug for Attach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attach")
            .field("pid", &Secret(&self.pid))
            .field("namespace", &self.namespace)
            .field("principal", &self.principal)
            .field("offset", &self.offset)
            .finish()
    }
}

impl SessionRecord {
    /// Drops memberships that ended at or below the log's floor: no entry that is left can ask for them.
    pub fn forget_before(&mut self, floor: Position) {
        self.memberships.retain(|member| member.to.is_none_or(|to| to > floor));
    }

    pub(super) fn summary(self, evicted: bool) -> SessionSummary {
        let Self { sid, namespace, principal, data, .. } = self;
        SessionSummary { sid, namespace, principal, data, evicted }
    }
}

impl Membership {
    /// Adds a membership of `room` after `tail`, unless there is one already.
    pub fn join(memberships: &mut Vec<Self>, room: &Arc<str>, tail: Position) {
        if !memberships.iter().any(|member| member.room == *room && member.to.is_none()) {
            memberships.push(Self { room: Arc::clone(room), from: tail, to: None });
        }
    }
}
