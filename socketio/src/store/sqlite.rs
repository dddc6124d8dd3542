//! Logs, sessions and once keys in one SQLite file, which may hold the application's tables, too (specification 15).
//!
//! One process a file, one writer, WAL: readers are not blocked. What a call reports as done survives a killed process
//! with [`Synchronous::Normal`], and a power failure with [`Synchronous::Full`].

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use self::reader::SqliteReader;
use self::writer::SqliteWriter;
use super::{Millis, NodeId, Parts, Store, StoreError, StoreSettings};

mod known;
mod once;
mod reader;
mod rows;
mod sessions;
mod writer;

/// The version of the tables that this crate writes.
const SCHEMA_VERSION: i64 = 1;
const SCHEMA: &str = include_str!("sqlite/schema.sql");

/// How long a call waits for another process that has the file locked, unless said otherwise. Longer than the layer takes to
/// declare the store down: who holds the lock so long is waited for, and meanwhile nobody else waits.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// Prepared statements kept, ours and the application's.
const STATEMENTS_KEPT: usize = 128;

/// When what was committed is on the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Synchronous {
    /// A commit survives the end of the process, and a power failure once the log was checkpointed. Fast.
    #[default]
    Normal,
    /// A commit survives a power failure. Each commit waits for the disk.
    Full,
}

/// A store in a SQLite file, or in memory with the path `:memory:`.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Connection,
    /// `None`: in memory, where reader and writer share the connection.
    file: Option<LockedFile>,
    synchronous: Synchronous,
    busy_timeout: Duration,
}

/// The file, and the lock on the file beside it that keeps other processes out.
#[derive(Debug)]
struct LockedFile {
    path: PathBuf,
    lock: File,
}

/// A connection of the writer or the reader. In memory they share it.
type Shared = Arc<Mutex<Connection>>;

impl SqliteStore {
    /// Opens or creates the file and our tables in it.
    ///
    /// # Errors
    /// [`StoreError::InUse`]: another process has it open. [`StoreError::Schema`]: a newer version of this crate wrote
    /// it. [`StoreError::Failed`]: it cannot be opened, or is no SQLite file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StoreError> {
        let path = path.as_ref();
        let (writer, file) = if path.as_os_str() == ":memory:" {
            (Connection::open_in_memory()?, None)
        } else {
            let file = LockedFile::open(path)?;
            (Connection::open(&file.path)?, Some(file))
        };
        configure(&writer, BUSY_TIMEOUT)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        let mut store =
            Self { writer, file, synchronous: Synchronous::default(), busy_timeout: BUSY_TIMEOUT };
        store.create_tables()?;
        Ok(store)
    }

    /// Chooses when what was committed is on the disk.
    #[must_use]
    pub fn synchronous(mut self, synchronous: Synchronous) -> Self {
        self.synchronous = synchronous;
        self
    }

    /// How long a call waits for another process that has the file locked; then it fails. Default 5 s.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The connection, to create the application's own tables before the server starts. Names that begin with `sio_`
    /// are ours.
    pub fn connection(&self) -> &Connection {
        &self.writer
    }

    fn create_tables(&mut self) -> Result<(), StoreError> {
        let tx = self.writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let ours: i64 =
            tx.query_row("SELECT count(*) FROM sqlite_schema WHERE name = 'sio_meta'", [], |row| row.get(0))?;
        if ours == 0 {
            tx.execute_batch(SCHEMA)?;
            tx.execute("INSERT INTO sio_meta VALUES ('schema_version', ?1)", [SCHEMA_VERSION])?;
        }
        let found = meta(&tx, "schema_version")?.unwrap_or(0);
        if found != SCHEMA_VERSION {
            return Err(StoreError::Schema { found, known: SCHEMA_VERSION });
        }
        Ok(tx.commit()?)
    }

    /// Begins a new epoch. Gives its number.
    fn begin_epoch(&mut self, now: Millis) -> Result<u64, StoreError> {
        let tx = self.writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let before = meta(&tx, "epoch")?.unwrap_or(0);
        tx.execute(
            "INSERT OR REPLACE INTO sio_epoch SELECT nsp, ?1, max(floor, ifnull((SELECT max(pos) FROM sio_log \
             WHERE sio_log.nsp = sio_floor.nsp), 0)) FROM sio_floor",
            [before],
        )?;
        let kept = i64::try_from(super::EPOCHS_KEPT).unwrap_or(i64::MAX);
        tx.execute("DELETE FROM sio_epoch WHERE epoch <= ?1", [before.saturating_sub(kept)])?;
        tx.execute("INSERT OR REPLACE INTO sio_meta VALUES ('epoch', ?1)", [before + 1])?;
        tx.execute("UPDATE sio_session SET away_ms = ?1 WHERE away_ms IS NULL", [rows::integer(now)])?;
        tx.execute("DELETE FROM sio_once WHERE state = ?1", [rows::RUNNING])?;
        tx.commit()?;
        Ok(rows::unsigned(before + 1))
    }
}

impl Store for SqliteStore {
    fn open(
        mut self: Box<Self>,
        _node: NodeId,
        settings: &StoreSettings,
        now: Millis,
    ) -> Result<Parts, StoreError> {
        // The epoch survives a power failure whatever was chosen: an epoch that is used twice would confuse offsets.
        self.writer.pragma_update(None, "synchronous", "FULL")?;
        let epoch = self.begin_epoch(now)?;
        let synchronous = match self.synchronous {
            Synchronous::Normal => "NORMAL",
            Synchronous::Full => "FULL",
        };
        self.writer.pragma_update(None, "synchronous", synchronous)?;
        configure(&self.writer, self.busy_timeout)?;
        let writer: Shared = Arc::new(Mutex::new(self.writer));
        let reader = match &self.file {
            Some(file) => {
                let connection = Connection::open(&file.path)?;
                configure(&connection, self.busy_timeout)?;
                Arc::new(Mutex::new(connection))
            }
            None => Arc::clone(&writer),
        };
        let lock = self.file.map(|file| Arc::new(file.lock));
        let reader = Box::new(SqliteReader::new(reader, lock.clone()));
        let (writer, logs) = SqliteWriter::new(writer, lock, epoch, settings.clone())?;
        Ok(Parts { epoch, logs, writer: Box::new(writer), reader, shared: None })
    }

    fn inline(&self) -> bool {
        false
    }
}

impl LockedFile {
    /// Creates the file if it is missing, and takes the lock beside it.
    fn open(path: &Path) -> Result<Self, StoreError> {
        let failed =
            |error: std::io::Error| StoreError::Failed(format!("{}: {error}", path.display()).into());
        let mut options = OpenOptions::new();
        options.create(true).truncate(false).read(true).write(true);
        options.open(path).map_err(failed)?;
        // One lock whatever name the file is opened by.
        let path_of_file = path.canonicalize().map_err(failed)?;
        let mut name = path_of_file.clone().into_os_string();
        name.push(".lock");
        let lock = options.open(name).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path_of_file, lock }),
            Err(TryLockError::WouldBlock) => Err(StoreError::InUse),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

fn configure(connection: &Connection, busy_timeout: Duration) -> Result<(), StoreError> {
    connection.busy_timeout(busy_timeout)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_KEPT);
    Ok(())
}

/// A number of `sio_meta`.
fn meta(connection: &Connection, key: &str) -> Result<Option<i64>, rusqlite::Error> {
    connection
        .query_row("SELECT value FROM sio_meta WHERE key = ?1", params![key], |row| row.get(0))
        .optional()
}

fn lock(connection: &Shared) -> MutexGuard<'_, Connection> {
    // A transaction that a panic left open was rolled back when it was dropped.
    connection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Failed(error.to_string().into())
    }
}
