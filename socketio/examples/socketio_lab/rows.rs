//! The rows of the event `store`: a table of the store's file with SQLite, a list with memory.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use adjourn_socketio::store::{RunError, Tx};
use serde::Serialize;

/// One row.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) id: i64,
    pub(crate) client_offset: String,
    pub(crate) content: String,
}

/// Where the rows are. Used within a transaction only.
#[derive(Clone)]
pub(crate) enum Rows {
    Memory(Arc<Mutex<HashMap<Arc<str>, Vec<Row>>>>),
    Sqlite,
    #[cfg(feature = "redis")]
    Redis,
}

/// The list of rows in Redis: the client offset's length, the client offset, the content.
#[cfg(feature = "redis")]
const LIST: &str = "rows";

/// The id is counted in each namespace.
pub(crate) const TABLE: &str = "CREATE TABLE IF NOT EXISTS lab_rows (nsp TEXT NOT NULL, id INTEGER NOT NULL, \
     client_offset TEXT NOT NULL, content TEXT NOT NULL, PRIMARY KEY (nsp, id), UNIQUE (nsp, client_offset))";

impl Rows {
    pub(crate) fn memory() -> Self {
        Self::Memory(Arc::default())
    }

    /// Inserts a row; gives its id.
    pub(crate) fn insert(
        &self,
        tx: &mut Tx<'_>,
        client_offset: &str,
        content: &str,
    ) -> Result<i64, RunError> {
        #[cfg(feature = "redis")]
        if matches!(self, Self::Redis) {
            let row = format!("{}:{client_offset}{content}", client_offset.len());
            return Ok(i64::try_from(tx.lists()?.append(LIST, row.as_bytes())?)?);
        }
        let namespace = tx.namespace();
        match self {
            #[cfg(feature = "redis")]
            Self::Redis => unreachable!("done above"),
            Self::Memory(rows) => {
                let mut rows = lock(rows);
                let rows = rows.entry(Arc::clone(namespace)).or_default();
                let id = rows.last().map_or(1, |row| row.id + 1);
                let (client_offset, content) = (client_offset.to_owned(), content.to_owned());
                rows.push(Row { id, client_offset, content });
                Ok(id)
            }
            Self::Sqlite => {
                let mut insert = tx.sql()?.prepare_cached(
                    "INSERT INTO lab_rows SELECT ?1, ifnull(max(id), 0) + 1, ?2, ?3 FROM lab_rows WHERE nsp = ?1 \
                     RETURNING id",
                )?;
                Ok(insert.query_row((&**namespace, client_offset, content), |row| row.get(0))?)
            }
        }
    }

    /// The rows with a larger id than `after` whose client offset begins with `prefix`, by id.
    pub(crate) fn select(&self, tx: &mut Tx<'_>, after: i64, prefix: &str) -> Result<Vec<Row>, RunError> {
        let namespace = Arc::clone(tx.namespace());
        let chosen = |row: &Row| row.id > after && row.client_offset.starts_with(prefix);
        match self {
            #[cfg(feature = "redis")]
            Self::Redis => {
                let first = after.max(0);
                let rows = tx.lists()?.rows(LIST, u64::try_from(first)?)?;
                let rows = (first + 1..).zip(&rows).filter_map(|(id, row)| read_row(id, row));
                Ok(rows.filter(chosen).collect())
            }
            Self::Memory(rows) => {
                let rows = lock(rows);
                let rows = rows.get(&namespace).into_iter().flatten();
                Ok(rows.filter(|row| chosen(row)).cloned().collect())
            }
            Self::Sqlite => {
                let sql = tx.sql()?;
                let mut select = sql.prepare_cached(
                    "SELECT id, client_offset, content FROM lab_rows WHERE nsp = ?1 AND id > ?2 ORDER BY id",
                )?;
                let rows = select.query_map((&*namespace, after), |row| {
                    Ok(Row { id: row.get(0)?, client_offset: row.get(1)?, content: row.get(2)? })
                });
                let rows: Result<Vec<Row>, _> = rows.and_then(Iterator::collect);
                Ok(rows?.into_iter().filter(chosen).collect())
            }
        }
    }
}

#[cfg(feature = "redis")]
fn read_row(id: i64, row: &[u8]) -> Option<Row> {
    let (length, rest) = std::str::from_utf8(row).ok()?.split_once(':')?;
    let (client_offset, content) = rest.split_at_checked(length.parse().ok()?)?;
    Some(Row { id, client_offset: client_offset.to_owned(), content: content.to_owned() })
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
