//! The store of logs, sessions and once keys. Blocking; knows `offset` and `error` only (specification 12 to 17).
//!
//! Writer and reader each run on a thread of their own; a store that is `inline` runs on the loop. The shared suite in
//! `tests/store.rs` is written against these traits, and every store passes it.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

pub use memory::MemoryStore;
pub use records::{
    AckValue, Attach, AttachError, Attached, Batch, Committed, Entry, EntryKind, LogLimits, Membership,
    NewEntry, OnceFinish, OnceKey, OnceState, Page, ResumeRefusal, SessionChange, SessionRecord,
    SessionSummary, Trimmed,
};
#[cfg(feature = "redis")]
pub use redis::RedisStore;
#[cfg(feature = "sqlite")]
pub use sqlite::{SqliteStore, Synchronous};
#[cfg(feature = "redis")]
pub use tx::{Lists, NoLists};
pub use tx::{NoSql, Run, RunError, TransactContext, TransactError, Transacted, Tx, TxEffect};

pub use crate::error::StoreError;
use crate::offset::Position;

#[cfg(any(feature = "sqlite", feature = "redis"))]
mod encoding;
mod memory;
mod records;
#[cfg(feature = "redis")]
mod redis;
mod resume;
#[cfg(feature = "sqlite")]
mod sqlite;
mod tx;

/// Milliseconds since the Unix epoch by the store's clock.
pub type Millis = u64;

/// The name of a process among those that share a store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NodeId(pub Arc<str>);

/// Where logs, sessions and once keys are kept.
pub trait Store: Send {
    /// Opens it for this process: the epoch is increased, the ends of earlier epochs are recorded, sessions found
    /// connected become away as of `now`, `Running` keys of an earlier life of this store are released where the store knows that (SQLite).
    fn open(
        self: Box<Self>,
        node: NodeId,
        settings: &StoreSettings,
        now: Millis,
    ) -> Result<Parts, StoreError>;
    /// Do its calls return at once, so that they may run on the loop?
    fn inline(&self) -> bool;
}

impl<S: Store + ?Sized> Store for Box<S> {
    fn open(
        self: Box<Self>,
        node: NodeId,
        settings: &StoreSettings,
        now: Millis,
    ) -> Result<Parts, StoreError> {
        (*self).open(node, settings, now)
    }

    fn inline(&self) -> bool {
        (**self).inline()
    }
}

/// What a store needs to know of the configuration.
#[derive(Clone, Debug)]
pub struct StoreSettings {
    /// How long a session can be away.
    pub window: Duration,
    /// How long a finished once key is kept.
    pub once_window: Duration,
    /// Most once keys kept; over it the oldest finished ones go.
    pub max_once_keys: usize,
    /// Most sessions kept; over it those longest away go.
    pub max_sessions: usize,
    /// Most bytes of a kept ack.
    pub max_ack: usize,
    /// Most bytes of log that one resume may have to read.
    pub max_replay: u64,
    /// Most entries and bytes of a log; on a shared store also of one that no node reads.
    pub log_entries: u64,
    /// See `log_entries`.
    pub log_bytes: u64,
}

/// An open store.
pub struct Parts {
    /// This life.
    pub epoch: u64,
    /// Tail and floor of each namespace that has a log.
    pub logs: Vec<LogState>,
    /// Commits, attaches, once keys.
    pub writer: Box<dyn Writer>,
    /// Pages of the log.
    pub reader: Box<dyn Reader>,
    /// What concerns other nodes, on stores that several processes share.
    pub shared: Option<Shared>,
}

/// A log when the store was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogState {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The newest entry.
    pub tail: Position,
    /// The newest entry trimmed.
    pub floor: Position,
}

/// All calls take effect as a whole or not at all. `now` is the store's time.
pub trait Writer: Send {
    /// Entries, session changes, results of once keys: one transaction. A failed one leaves no gap.
    fn commit(&mut self, batch: &Batch, now: Millis) -> Result<Committed, StoreError>;
    /// Takes a session for this node (specification 13, steps 2 and 3). A refusal changes nothing.
    fn attach(&mut self, ask: &Attach, now: Millis) -> Result<Attached, AttachError>;
    /// The state of a once key; `First` marks it `Running` until `now + lease`.
    fn once_begin(&mut self, key: &OnceKey, lease: Duration, now: Millis) -> Result<OnceState, StoreError>;
    /// Runs the application's code in one transaction with its entries, joins, and the result of `key`.
    /// With `key` done already, `run` is not called.
    fn transact(
        &mut self,
        key: Option<&OnceKey>,
        context: &TransactContext,
        run: Run<'_>,
        now: Millis,
    ) -> Result<Transacted, TransactError>;
    /// Trims the log of a namespace; the floor is written first.
    fn trim(&mut self, namespace: &str, limits: &LogLimits, now: Millis) -> Result<Trimmed, StoreError>;
    /// Forgets the log of a namespace that has no session any more; `false`: it has one, and nothing happens. Positions
    /// still only grow: a log of this name that begins later has positions above those of the old one.
    fn drop_log(&mut self, namespace: &str) -> Result<bool, StoreError>;
    /// Removes at most `max` sessions whose time is over, or that are too many, and says which. Forgets old once keys.
    fn expire(&mut self, now: Millis, max: usize) -> Result<Vec<SessionSummary>, StoreError>;
}

/// Reads the log, beside the writer.
pub trait Reader: Send {
    /// The entries in `of.start < position <= of.end`, in order, until `bytes` of them are there (at least one).
    fn page(&mut self, namespace: &str, of: Range<Position>, bytes: usize) -> Result<Page, StoreError>;
    /// The `ask` entries in `of.start < position <= of.end` whose deadline is after `now`, in order.
    fn asks(&mut self, namespace: &str, of: Range<Position>, now: Millis) -> Result<Vec<Entry>, StoreError>;
}

/// What all nodes append, on stores that several processes share.
pub trait Feed: Send {
    /// Reads the log of a namespace from its tail on; [`FeedItem::Began`] says where that is.
    fn follow(&mut self, namespace: &Arc<str>);
    /// Does not read it any more.
    fn leave(&mut self, namespace: &str);
    /// What has come since the last call, each log in its order; waits at most `wait`. A store that does not answer gives
    /// nothing.
    fn next(&mut self, wait: Duration) -> Vec<FeedItem>;
}

/// Messages between the nodes of a shared store: at most once, unlogged.
pub trait Bus: Send {
    /// Sends to one node, or to all others. What cannot be sent is lost.
    fn send(&mut self, to: Option<&NodeId>, message: &[u8]);
    /// Says that this node is alive, and which nodes are.
    fn beat(&mut self) -> Result<Vec<NodeId>, StoreError>;
}

/// The receiving side of a [`Bus`].
pub trait BusReceiver: Send {
    /// The next message for this node. Waits a few seconds at most, and returns from time to time without one.
    fn next(&mut self) -> Option<(NodeId, Vec<u8>)>;
}

/// The sides of a shared store that concern other nodes.
pub struct Shared {
    /// The name of this node among all that have ever been.
    pub node: NodeId,
    /// The store's time when it was opened.
    pub time: Millis,
    /// The logs.
    pub feed: Box<dyn Feed>,
    /// Messages to other nodes.
    pub bus: Box<dyn Bus>,
    /// Messages from other nodes.
    pub receiver: Box<dyn BusReceiver>,
}

/// What a node learns from the others.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FeedItem {
    /// The log of a namespace is read from `tail` on.
    Began {
        /// The namespace.
        namespace: Arc<str>,
        /// The log's epoch at its tail.
        epoch: u64,
        /// The newest entry trimmed.
        floor: Position,
        /// The newest entry.
        tail: Position,
    },
    /// The next entries of a log.
    Entries(Arc<str>, Vec<Entry>),
    /// Entries were trimmed before this node has read them, or the store has lost (`lost`) what it had. [`FeedItem::Began`]
    /// follows.
    Fell {
        /// The namespace.
        namespace: Arc<str>,
        /// Did the store lose data?
        lost: bool,
    },
    /// A message of another node.
    Message(NodeId, Vec<u8>),
    /// The nodes that are alive.
    Nodes(Vec<NodeId>),
}

/// Most entries that one call of `trim` removes.
const TRIM_SLICE: u64 = 4096;

/// Earlier epochs of a log whose ends are kept. Sessions live `window` long, so offsets of older ones are of no session
/// unless the server restarted more often than that within it; such a checkpoint counts as unknown, and the replay begins at `first`.
const EPOCHS_KEPT: usize = 1024;

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(2),
            once_window: Duration::from_hours(24),
            max_once_keys: 1_000_000,
            max_sessions: 1_000_000,
            max_ack: 64 << 10,
            max_replay: 256 << 20,
            log_entries: 1_000_000,
            log_bytes: 256 << 20,
        }
    }
}

impl StoreSettings {
    /// Is a once key forgotten that was done at `at`?
    fn is_forgotten(&self, at: Millis, now: Millis) -> bool {
        now >= at.saturating_add(millis(self.once_window))
    }
}

/// A duration in the store's unit.
fn millis(duration: Duration) -> Millis {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
