//! What the application does within a transaction of the store (specification 15).

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use super::{AckValue, Millis, NewEntry, OnceState, StoreError};
use crate::offset::Position;
use crate::secret::Secret;

/// What the application does within a transaction: rows, entries and joins that are committed together or not at all.
pub struct Tx<'t> {
    context: &'t TransactContext,
    effects: Vec<TxEffect>,
    #[cfg(feature = "sqlite")]
    sql: Option<&'t rusqlite::Connection>,
    #[cfg(feature = "redis")]
    lists: Option<&'t mut dyn Lists>,
}

/// Rows of the application in a store without SQL, by the name of a list in the namespace. Whoever has called one of these
/// is alone with the lists of the namespace until the end of its transaction.
#[cfg(feature = "redis")]
pub trait Lists {
    /// Appends a row; gives its number, from 1.
    fn append(&mut self, list: &str, row: &[u8]) -> Result<u64, StoreError>;
    /// The rows whose number is above `after`, in order.
    fn rows(&mut self, list: &str, after: u64) -> Result<Vec<bytes::Bytes>, StoreError>;
}

/// The store has no lists.
#[cfg(feature = "redis")]
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this store has no lists: open the layer on `RedisStore`")]
pub struct NoLists;

/// One call of [`Tx`], in the order of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TxEffect {
    /// Appends an entry.
    Emit(NewEntry),
    /// The socket joins a room at this place.
    Join(Arc<str>),
}

/// Whose transaction it is. `Debug` shows 6 characters of the session's `pid`.
#[derive(Clone)]
pub struct TransactContext {
    /// The log that [`Tx`] appends to.
    pub namespace: Arc<str>,
    /// The socket's own room.
    pub sid: Arc<str>,
    /// Its session, if it has one: joins are saved in the same transaction, by generation.
    pub session: Option<(Arc<str>, u64)>,
    /// Has the namespace a log? Otherwise nothing is appended: nobody would trim it.
    pub logged: bool,
    /// Bytes that [`Tx::emit`] takes at most: the size of a client's send queue.
    pub max_event: usize,
}

/// The application's part of a transaction.
pub type Run<'a> = Box<dyn FnOnce(&mut Tx<'_>) -> Result<AckValue, RunError> + Send + 'a>;

/// Any error of the application's code, so that `?` works in it; everything is rolled back.
pub type RunError = Box<dyn std::error::Error + Send + Sync>;

/// What a transaction did.
#[derive(Debug)]
pub struct Transacted {
    /// The ack; kept under the key if there was one.
    pub ack: AckValue,
    /// Was the key done already? Then nothing else happened.
    pub repeat: bool,
    /// The effects, each with its place: an emit's own (`START` if it is not logged), a join's that of the newest entry
    /// before it.
    pub effects: Vec<(TxEffect, Position)>,
    /// Was the session's generation current, so that its joins were saved?
    pub session_current: bool,
}

/// Why a transaction did not happen. Nothing of it did.
#[derive(Debug, thiserror::Error)]
pub enum TransactError {
    /// The application's code refused.
    #[error("the transaction was refused: {0}")]
    Run(RunError),
    /// The application's code panicked.
    #[error("the application's code panicked")]
    Panicked,
    /// The key is being run (a store whose keys have leases).
    #[error("the key is being run")]
    Running {
        /// The end of the lease.
        until: Millis,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store has no SQL.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("this store has no SQL: open the layer on `SqliteStore`")]
pub struct NoSql;

impl<'t> Tx<'t> {
    /// A transaction without SQL.
    pub(super) fn new(context: &'t TransactContext) -> Self {
        Self {
            context,
            effects: Vec::new(),
            #[cfg(feature = "sqlite")]
            sql: None,
            #[cfg(feature = "redis")]
            lists: None,
        }
    }

    /// A transaction with lists.
    #[cfg(feature = "redis")]
    pub(super) fn with_lists(context: &'t TransactContext, lists: &'t mut dyn Lists) -> Self {
        Self { lists: Some(lists), ..Self::new(context) }
    }

    /// A transaction on a SQLite connection, which is in that transaction.
    #[cfg(feature = "sqlite")]
    pub(super) fn with_sql(context: &'t TransactContext, sql: &'t rusqlite::Connection) -> Self {
        Self { sql: Some(sql), ..Self::new(context) }
    }

    /// The namespace of the socket.
    pub fn namespace(&self) -> &Arc<str> {
        &self.context.namespace
    }

    /// Bytes of an event at most.
    pub(crate) const fn max_event(&self) -> usize {
        self.context.max_event
    }

    /// The id of the socket, which is also the name of its own room.
    pub fn sid(&self) -> &Arc<str> {
        &self.context.sid
    }

    /// The transaction of the store's own file, for the application's tables. `COMMIT`, `ROLLBACK` and `BEGIN` are not
    /// for the application: they make the whole transaction fail.
    #[cfg(feature = "sqlite")]
    pub fn sql(&self) -> Result<&'t rusqlite::Connection, NoSql> {
        self.sql.ok_or(NoSql)
    }

    /// The application's rows beside the log of the namespace, committed with it.
    #[cfg(feature = "redis")]
    pub fn lists(&mut self) -> Result<&mut (dyn Lists + 't), NoLists> {
        match &mut self.lists {
            Some(lists) => Ok(&mut **lists),
            None => Err(NoLists),
        }
    }

    /// Appends an entry that was encoded already, to the log of its namespace, which may be another. (`emit` is the same for
    /// events of this one.)
    pub fn append(&mut self, entry: NewEntry) {
        self.effects.push(TxEffect::Emit(entry));
    }

    /// The socket joins `room` at this place of the log: it receives what comes after it.
    pub fn join(&mut self, room: impl Into<Arc<str>>) {
        self.effects.push(TxEffect::Join(room.into()));
    }

    /// Runs the application's code; a panic of it is an error like any other.
    pub(super) fn run(mut self, run: Run<'_>) -> Result<(AckValue, Vec<TxEffect>), TransactError> {
        // What the code may have left half done is dropped with the transaction.
        match catch_unwind(AssertUnwindSafe(|| run(&mut self))) {
            Ok(Ok(ack)) => Ok((ack, self.effects)),
            Ok(Err(error)) => Err(TransactError::Run(error)),
            Err(_) => Err(TransactError::Panicked),
        }
    }
}

impl fmt::Debug for TransactContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let session = self.session.as_ref().map(|(pid, generation)| (Secret(pid), generation));
        f.debug_struct("TransactContext")
            .field("namespace", &self.namespace)
            .field("sid", &self.sid)
            .field("session", &session)
            .field("logged", &self.logged)
            .field("max_event", &self.max_event)
            .finish()
    }
}

impl OnceState {
    /// What the key has given, or that it is being run; `None`: it is ours to run.
    pub(super) fn result(self) -> Result<Option<AckValue>, TransactError> {
        match self {
            Self::First => Ok(None),
            Self::Running { until } => Err(TransactError::Running { until }),
            Self::Done(ack) => Ok(Some(ack)),
        }
    }
}

impl Transacted {
    pub(super) fn repeat(ack: AckValue) -> Self {
        Self { ack, repeat: true, effects: Vec::new(), session_current: false }
    }
}
