//! Reads the log on a connection of its own, which the writer does not block.

use std::fs::File;
use std::ops::Range;
use std::sync::Arc;

use rusqlite::{OptionalExtension as _, TransactionBehavior, params};

use super::rows::{self, ENTRY_COLUMNS, integer};
use super::{Shared, lock};
use crate::offset::Position;
use crate::store::{Entry, EntryKind, Millis, Page, Reader, StoreError};

#[derive(Debug)]
pub(super) struct SqliteReader {
    connection: Shared,
    _lock: Option<Arc<File>>,
}

impl SqliteReader {
    pub(super) fn new(connection: Shared, lock: Option<Arc<File>>) -> Self {
        Self { connection, _lock: lock }
    }
}

impl Reader for SqliteReader {
    fn page(&mut self, namespace: &str, of: Range<Position>, bytes: usize) -> Result<Page, StoreError> {
        let mut connection = lock(&self.connection);
        // One view of floor and entries.
        let tx = connection.transaction_with_behavior(TransactionBehavior::Deferred)?;
        let floor: Option<i64> = tx
            .prepare_cached("SELECT floor FROM sio_floor WHERE nsp = ?1")?
            .query_row([namespace], |row| row.get(0))
            .optional()?;
        let floor = rows::position(floor.unwrap_or(0));
        let mut page = Page { trimmed: Some(floor).filter(|floor| of.start < *floor), ..Page::default() };
        let mut statement = tx.prepare_cached(&format!(
            "SELECT {ENTRY_COLUMNS} FROM sio_log WHERE nsp = ?1 AND pos > ?2 AND pos <= ?3 ORDER BY pos"
        ))?;
        let name = Arc::from(namespace);
        let mut found =
            statement.query(params![namespace, integer(of.start.number), integer(of.end.number)])?;
        let mut taken = 0;
        while let Some(row) = found.next()? {
            let (entry, size) = rows::entry(&name, row)?;
            if !page.entries.is_empty() && taken + size > bytes as u64 {
                return Ok(page);
            }
            taken += size;
            page.entries.push(entry);
        }
        page.complete = true;
        Ok(page)
    }

    fn asks(&mut self, namespace: &str, of: Range<Position>, now: Millis) -> Result<Vec<Entry>, StoreError> {
        let connection = lock(&self.connection);
        let mut statement = connection.prepare_cached(&format!(
            "SELECT {ENTRY_COLUMNS} FROM sio_log WHERE nsp = ?1 AND until_ms > ?2 AND pos > ?3 AND pos <= ?4 \
             ORDER BY pos"
        ))?;
        let name = Arc::from(namespace);
        let range = params![namespace, integer(now), integer(of.start.number), integer(of.end.number)];
        let mut asks = Vec::new();
        for entry in statement.query_map(range, |row| rows::entry(&name, row))? {
            let (entry, _) = entry?;
            if entry.new.kind == EntryKind::Ask {
                asks.push(entry);
            }
        }
        Ok(asks)
    }
}
