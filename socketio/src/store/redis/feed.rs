//! What all nodes append. On one server a blocking read of all logs; in a cluster, where keys of one command must be on one
//! server, each log is asked again and again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Connection, Value};

use super::keys::Keys;
use super::scripts::Scripts;
use super::servers::Servers;
use super::values;
use super::writer::begun;
use crate::offset::Position;
use crate::store::{Entry, Feed, FeedItem, StoreError};

/// Entries of one log that a read takes: the fewest, and after a read that had no room for more so many as make `BYTES`, at most the most.
const FEWEST: usize = 16;
const MOST: usize = 256;
const BYTES: u64 = 1 << 20;
/// The pause between two rounds in a cluster, and after a failure.
const PAUSE: Duration = Duration::from_millis(4);
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct RedisFeed {
    servers: Servers,
    scripts: Scripts,
    keys: Keys,
    node: Arc<str>,
    timeout: Duration,
    /// Of blocking reads, and which life of the server it reads.
    connection: Option<Connection>,
    /// Up to where each log was read; `None`: not begun.
    logs: BTreeMap<Arc<str>, Option<Position>>,
    /// Entries that the next read takes.
    count: usize,
}

impl RedisFeed {
    pub(super) fn new(servers: Servers, keys: Keys, node: Arc<str>, timeout: Duration) -> Self {
        let (scripts, logs) = (Scripts::new(), BTreeMap::new());
        Self { servers, scripts, keys, node, timeout, connection: None, logs, count: FEWEST }
    }

    /// Finds the tails of logs that are new here, or may have lost something.
    fn begin_logs(&mut self, items: &mut Vec<FeedItem>) -> Result<(), StoreError> {
        let new: Vec<Arc<str>> =
            self.logs.iter().filter(|(_, at)| at.is_none()).map(|(name, _)| Arc::clone(name)).collect();
        for namespace in new {
            let key = self.keys.log(&namespace);
            let answer = self.servers.run(&self.scripts.begin, &key, &self.node, &Vec::new(), 0)?;
            let log = begun(&answer)?;
            self.logs.insert(Arc::clone(&namespace), Some(log.tail));
            items.push(FeedItem::Began { namespace, epoch: log.epoch, floor: log.floor, tail: log.tail });
        }
        Ok(())
    }

    /// A new connection may show a server that has lost what was read: its tail is below.
    fn check_tails(&mut self, items: &mut Vec<FeedItem>) -> Result<(), StoreError> {
        let read: Vec<(Arc<str>, Position)> =
            self.logs.iter().filter_map(|(name, at)| Some((Arc::clone(name), (*at)?))).collect();
        for (namespace, at) in read {
            let key = self.keys.log(&namespace);
            let answer = self.servers.run(&self.scripts.begin, &key, &self.node, &Vec::new(), 0)?;
            if begun(&answer)?.tail < at {
                self.fell(&namespace, true, items);
            }
        }
        Ok(())
    }

    fn fell(&mut self, namespace: &Arc<str>, lost: bool, items: &mut Vec<FeedItem>) {
        tracing::warn!(target: "adjourn_socketio", %namespace, lost, "fell behind the log");
        self.logs.insert(Arc::clone(namespace), None);
        items.push(FeedItem::Fell { namespace: Arc::clone(namespace), lost });
    }

    fn read(&mut self, wait: Duration, items: &mut Vec<FeedItem>) -> Result<(), StoreError> {
        self.begin_logs(items)?;
        let followed: Vec<(Arc<str>, Position)> =
            self.logs.iter().filter_map(|(name, at)| Some((Arc::clone(name), (*at)?))).collect();
        if followed.is_empty() || !items.is_empty() {
            if items.is_empty() {
                std::thread::sleep(wait);
            }
            return Ok(());
        }
        if self.servers.is_cluster() {
            return self.read_each(&followed, wait, items);
        }
        if self.connection.is_none() {
            let connection = self.servers.dedicated()?;
            connection.set_read_timeout(Some(self.timeout + wait))?;
            self.connection = Some(connection);
            self.check_tails(items)?;
            return Ok(());
        }
        let mut command = redis::cmd("XREAD");
        let block = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).max(1);
        command.arg("COUNT").arg(self.count).arg("BLOCK").arg(block).arg("STREAMS");
        for (name, _) in &followed {
            command.arg(self.keys.log(name));
        }
        for (_, at) in &followed {
            command.arg(values::position_text(*at));
        }
        let Some(connection) = &mut self.connection else { return Ok(()) };
        let answer = command.query::<Value>(connection)?;
        self.take(&followed, &answer, items)
    }

    fn read_each(
        &mut self,
        followed: &[(Arc<str>, Position)],
        wait: Duration,
        items: &mut Vec<FeedItem>,
    ) -> Result<(), StoreError> {
        let rounds = wait.as_micros() / PAUSE.as_micros().max(1);
        for _ in 0..=rounds {
            for one in followed {
                let (at, count) = (values::position_text(one.1), self.count);
                let answer = self.servers.command(&self.keys.log(&one.0), |key| {
                    redis::cmd("XREAD").arg("COUNT").arg(count).arg("STREAMS").arg(key).arg(&at).take()
                })?;
                self.take(std::slice::from_ref(one), &answer, items)?;
            }
            if self.servers.take_reconnected()
                && let Err(error) = self.check_tails(items)
            {
                self.servers.check_again();
                return Err(error);
            }
            if !items.is_empty() {
                break;
            }
            std::thread::sleep(PAUSE);
        }
        Ok(())
    }

    /// `[[key, [entry, ..]], ..]`, or nil.
    fn take(
        &mut self,
        followed: &[(Arc<str>, Position)],
        answer: &Value,
        items: &mut Vec<FeedItem>,
    ) -> Result<(), StoreError> {
        let (asked, mut full) = (std::mem::replace(&mut self.count, FEWEST), None);
        for log in values::list(answer).unwrap_or_default() {
            let Some([key, list]) = values::list(log) else { return Err(values::damaged()) };
            let key = values::text(key).ok_or_else(values::damaged)?;
            let Some((name, at)) = followed.iter().find(|(name, _)| self.keys.log(name) == key) else {
                continue;
            };
            let largest = self.take_log(name, *at, list, items)?;
            if values::list(list).is_some_and(|list| list.len() >= asked) {
                let fit = usize::try_from(BYTES / largest.max(1)).unwrap_or(MOST);
                self.count = fit.clamp(FEWEST, MOST).min(full.unwrap_or(MOST));
                full = Some(self.count);
            }
        }
        Ok(())
    }

    /// `[entry, ..]`, what follows `at`. Gives the bytes of the largest one.
    fn take_log(
        &mut self,
        name: &Arc<str>,
        at: Position,
        list: &Value,
        items: &mut Vec<FeedItem>,
    ) -> Result<u64, StoreError> {
        let (mut last, mut largest) = (at, 0);
        let mut entries = Vec::new();
        let mut missed = None;
        for value in values::list(list).ok_or_else(values::damaged)? {
            let (entry, before) = values::chained(name, value).ok_or_else(values::damaged)?;
            let next = Position { number: last.number.saturating_add(1), ..last };
            if before.map_or(entry.position != next, |before| before != last) {
                // A log that begins anew is not the one that was read.
                missed = Some(before == Some(Position::START));
                break;
            }
            last = entry.position;
            largest = largest.max(entry.new.bytes());
            entries.push(entry);
        }
        self.logs.insert(Arc::clone(name), Some(last));
        push_entries(items, name, entries);
        if let Some(lost) = missed {
            self.fell(name, lost, items);
        }
        Ok(largest)
    }
}

fn push_entries(items: &mut Vec<FeedItem>, namespace: &Arc<str>, entries: Vec<Entry>) {
    if !entries.is_empty() {
        items.push(FeedItem::Entries(Arc::clone(namespace), entries));
    }
}

impl Feed for RedisFeed {
    fn follow(&mut self, namespace: &Arc<str>) {
        self.logs.insert(Arc::clone(namespace), None);
    }

    fn leave(&mut self, namespace: &str) {
        self.logs.remove(namespace);
    }

    fn next(&mut self, wait: Duration) -> Vec<FeedItem> {
        let mut items = Vec::new();
        if let Err(error) = self.read(wait, &mut items) {
            tracing::debug!(target: "adjourn_socketio", %error, "the logs cannot be read");
            self.connection = None;
            std::thread::sleep(FAILURE_PAUSE);
        }
        items
    }
}
