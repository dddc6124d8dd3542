//! Rows of the application in a transaction: a lock of the namespace, taken when they are first asked for.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use redis::Value;

use super::values;
use super::writer::RedisWriter;
use crate::store::{Lists, StoreError};

/// How long the lock is held at most.
const LEASE_MS: u64 = 30_000;
/// How long it is waited for.
const PATIENCE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(1);

/// The lists of one transaction.
pub(super) struct LockedLists<'w> {
    writer: &'w mut RedisWriter,
    namespace: Arc<str>,
    /// Empty: not taken yet.
    lock: String,
    appended: Vec<(String, Vec<u8>)>,
}

impl<'w> LockedLists<'w> {
    pub(super) fn new(writer: &'w mut RedisWriter, namespace: &Arc<str>) -> Self {
        Self { writer, namespace: Arc::clone(namespace), lock: String::new(), appended: Vec::new() }
    }

    /// The lock, empty if it was not taken, and the rows to append.
    pub(super) fn into_parts(self) -> (String, Vec<(String, Vec<u8>)>) {
        (self.lock, self.appended)
    }

    fn lock(&mut self) -> Result<(), StoreError> {
        if !self.lock.is_empty() {
            return Ok(());
        }
        let call = self.writer.number_call();
        let holder = format!("{} {call}", self.writer.node);
        let key = self.writer.keys.of(&self.namespace, "lock");
        let end = Instant::now() + PATIENCE;
        loop {
            let taken = self.writer.servers.command(&key, |key| {
                redis::cmd("SET").arg(key).arg(&holder).arg("NX").arg("PX").arg(LEASE_MS).take()
            })?;
            // An answer that was lost may have taken it.
            let ours = taken != Value::Nil || {
                let holds = self.writer.servers.command(&key, |key| redis::cmd("GET").arg(key).take())?;
                values::text(&holds) == Some(&*holder)
            };
            if ours {
                self.lock = holder;
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(StoreError::Failed("another transaction holds the lists".into()));
            }
            std::thread::sleep(PAUSE);
        }
    }

    fn key(&self, list: &str) -> String {
        self.writer.keys.of(&self.namespace, &format!("list:{list}"))
    }
}

impl Lists for LockedLists<'_> {
    fn append(&mut self, list: &str, row: &[u8]) -> Result<u64, StoreError> {
        self.lock()?;
        let stored =
            self.writer.servers.command(&self.key(list), |key| redis::cmd("LLEN").arg(key).take())?;
        let stored = values::number(&stored).ok_or_else(values::damaged)?;
        self.appended.push((list.to_owned(), row.to_vec()));
        Ok(stored + self.appended.iter().filter(|(name, _)| name == list).count() as u64)
    }

    fn rows(&mut self, list: &str, after: u64) -> Result<Vec<Bytes>, StoreError> {
        self.lock()?;
        let stored = self
            .writer
            .servers
            .command(&self.key(list), |key| redis::cmd("LRANGE").arg(key).arg(after).arg(-1).take())?;
        let stored = values::list(&stored).ok_or_else(values::damaged)?;
        Ok(stored.iter().filter_map(values::bytes).map(Bytes::copy_from_slice).collect())
    }
}
