//! What the writer knows of the file without reading it, and what a transaction changes of it.

use std::collections::HashMap;
use std::collections::hash_map::Entry as MapEntry;
use std::sync::Arc;

use rusqlite::{Connection, Transaction, params};

use super::meta;
use super::rows::{integer, unsigned};
use crate::store::StoreError;

/// What is known of the file without reading it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// Where a log begins: at or above the tail of every log that was dropped.
    pub(super) base: u64,
    pub(super) logs: HashMap<Arc<str>, Log>,
    pub(super) sessions: usize,
    pub(super) once: usize,
}

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Log {
    pub(super) tail: u64,
    pub(super) floor: u64,
    pub(super) entries: u64,
    pub(super) bytes: u64,
}

/// What a transaction changes of [`Known`] if it commits.
#[derive(Default)]
pub(super) struct Change {
    pub(super) logs: HashMap<Arc<str>, Log>,
    pub(super) sessions: isize,
    pub(super) once: isize,
}

impl Known {
    pub(super) fn read(connection: &Connection) -> Result<Self, StoreError> {
        let count = |table: &str| -> Result<usize, StoreError> {
            let count =
                connection.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?;
            Ok(usize::try_from(unsigned(count)).unwrap_or(usize::MAX))
        };
        let mut logs = HashMap::new();
        let mut statement = connection.prepare(
            "SELECT nsp, floor, entries, bytes, max(floor, ifnull((SELECT max(pos) FROM sio_log WHERE sio_log.nsp = \
             sio_floor.nsp), 0)) FROM sio_floor",
        )?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let number = |index| row.get(index).map(unsigned);
            let log = Log { floor: number(1)?, entries: number(2)?, bytes: number(3)?, tail: number(4)? };
            logs.insert(row.get(0)?, log);
        }
        let base = unsigned(meta(connection, "base")?.unwrap_or(0));
        Ok(Self { base, logs, sessions: count("sio_session")?, once: count("sio_once")? })
    }

    pub(super) fn log(&self, namespace: &str) -> Log {
        let new = Log { tail: self.base, floor: self.base, ..Log::default() };
        self.logs.get(namespace).copied().unwrap_or(new)
    }

    /// Writes the changed logs and commits; what is known follows only then.
    pub(super) fn commit(&mut self, tx: Transaction<'_>, change: Change) -> Result<(), StoreError> {
        for (namespace, log) in &change.logs {
            write_log(&tx, namespace, *log)?;
        }
        tx.commit()?;
        self.logs.extend(change.logs);
        self.sessions = self.sessions.saturating_add_signed(change.sessions);
        self.once = self.once.saturating_add_signed(change.once);
        Ok(())
    }
}

impl Change {
    pub(super) fn log(&mut self, known: &Known, namespace: &Arc<str>) -> &mut Log {
        match self.logs.entry(Arc::clone(namespace)) {
            MapEntry::Occupied(log) => log.into_mut(),
            MapEntry::Vacant(place) => place.insert(known.log(namespace)),
        }
    }
}

pub(super) fn write_log(tx: &Connection, namespace: &str, log: Log) -> Result<(), StoreError> {
    tx.prepare_cached("INSERT OR REPLACE INTO sio_floor VALUES (?1, ?2, ?3, ?4)")?.execute(params![
        namespace,
        integer(log.floor),
        integer(log.entries),
        integer(log.bytes)
    ])?;
    Ok(())
}
