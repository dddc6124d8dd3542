//! Rows of the application in a transaction: a lock of the namespace, taken when they are first asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Value;

use super::keys::Keys;
use super::servers::Servers;
use super::values;
use crate::store::{Lists, StoreError};

/// How long the lock is held at most: a node that is killed in a transaction stops the others for so long. A transaction that
/// takes longer fails as a whole.
const LEASE_MS: u64 = 5_000;
/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(6);
const PAUSE: Duration = Duration::from_millis(1);

/// The lists of one transaction.
pub(super) struct LockedLists<'w> {
    servers: &'w mut Servers,
    keys: &'w Keys,
    namespace: Arc<str>,
    /// Who takes the lock.
    holder: String,
    locked: bool,
    appended: Vec<(String, Vec<u8>)>,
}

impl<'w> LockedLists<'w> {
    pub(super) fn new(
        servers: &'w mut Servers,
        keys: &'w Keys,
        namespace: &Arc<str>,
        holder: String,
    ) -> Self {
        let namespace = Arc::clone(namespace);
        Self { servers, keys, namespace, holder, locked: false, appended: Vec::new() }
    }

    /// Who holds the lock, empty if it was not taken, and the rows to append.
    pub(super) fn into_parts(self) -> (String, Vec<(String, Vec<u8>)>) {
        (if self.locked { self.holder } else { String::new() }, self.appended)
    }

    fn lock(&mut self) -> Result<(), StoreError> {
        if self.locked {
            return Ok(());
        }
        let key = self.keys.of(&self.namespace, "lock");
        let holder = &self.holder;
        let end = Instant::now() + PATIENCE;
        loop {
            let taken = self.servers.command(&key, |key| {
                redis::cmd("SET").arg(key).arg(holder).arg("NX").arg("PX").arg(LEASE_MS).take()
            })?;
            // An answer that was lost may have taken it.
            self.locked = taken != Value::Nil || {
                let holds = self.servers.command(&key, |key| redis::cmd("GET").arg(key).take())?;
                values::text(&holds) == Some(holder)
            };
            if self.locked {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(StoreError::Failed("another transaction holds the lists".into()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn key(&self, list: &str) -> String {
        self.keys.of(&self.namespace, &format!("list:{list}"))
    }
}

impl Lists for LockedLists<'_> {
    fn append(&mut self, list: &str, row: &[u8]) -> Result<u64, StoreError> {
        self.lock()?;
        let stored = self.servers.command(&self.key(list), |key| redis::cmd("LLEN").arg(key).take())?;
        let stored = values::number(&stored).ok_or_else(values::damaged)?;
        self.appended.push((list.to_owned(), row.to_vec()));
        Ok(stored + self.appended.iter().filter(|(name, _)| name == list).count() as u64)
    }

    fn rows(&mut self, list: &str, after: u64) -> Result<Vec<Bytes>, StoreError> {
        self.lock()?;
        let stored = self
            .servers
            .command(&self.key(list), |key| redis::cmd("LRANGE").arg(key).arg(after).arg(-1).take())?;
        let stored = values::list(&stored).ok_or_else(values::damaged)?;
        Ok(stored.iter().filter_map(values::bytes).map(Bytes::copy_from_slice).collect())
    }
}
