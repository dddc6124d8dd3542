//! Reads the log on a connection of its own, which the writer does not block.

use std::ops::Range;
use std::sync::Arc;

use super::keys::Keys;
use super::scripts::Scripts;
use super::servers::Servers;
use super::values;
use crate::offset::Position;
use crate::store::{Entry, EntryKind, Millis, Page, Reader, StoreError};

pub(super) struct RedisReader {
    servers: Servers,
    scripts: Scripts,
    keys: Keys,
    node: Arc<str>,
}

impl RedisReader {
    pub(super) fn new(servers: Servers, keys: Keys, node: Arc<str>) -> Self {
        Self { servers, scripts: Scripts::new(), keys, node }
    }
}

impl Reader for RedisReader {
    fn page(&mut self, namespace: &str, of: Range<Position>, bytes: usize) -> Result<Page, StoreError> {
        let (from, to) = (values::position_text(of.start), values::position_text(of.end));
        let arguments = vec![from.into_bytes(), to.into_bytes(), bytes.to_string().into_bytes()];
        let key = self.keys.log(namespace);
        let answer = self.servers.run(&self.scripts.page, &key, &self.node, &arguments, 0)?;
        let Some([floor, complete, entries]) = values::list(&answer) else { return Err(values::damaged()) };
        let floor = values::position(floor).ok_or_else(values::damaged)?;
        Ok(Page {
            entries: values::entries(namespace, entries).ok_or_else(values::damaged)?,
            trimmed: Some(floor).filter(|floor| of.start < *floor),
            complete: values::text(complete) == Some("1"),
        })
    }

    fn asks(&mut self, namespace: &str, of: Range<Position>, now: Millis) -> Result<Vec<Entry>, StoreError> {
        let arguments = vec![now.to_string().into_bytes()];
        let key = self.keys.log(namespace);
        let answer = self.servers.run(&self.scripts.asks, &key, &self.node, &arguments, now)?;
        let mut asks = values::entries(namespace, &answer).ok_or_else(values::damaged)?;
        let asked = |entry: &Entry| entry.position > of.start && entry.position <= of.end;
        asks.retain(|entry| entry.new.kind == EntryKind::Ask && asked(entry));
        asks.sort_by_key(|entry| entry.position);
        Ok(asks)
    }
}
