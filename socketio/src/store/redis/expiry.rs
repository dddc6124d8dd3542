//! Sessions and once keys whose time is over, and which nodes are alive.

use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::values::{self, digits as number};
use super::writer::RedisWriter;
use crate::store::{Millis, SessionSummary, StoreError, millis};

/// A node without a heartbeat for so long is dead.
const NODE_SILENCE: Duration = Duration::from_secs(5);

impl RedisWriter {
    pub(super) fn expire_in(
        &mut self,
        namespace: &Arc<str>,
        alive: &[Vec<u8>],
        now: Millis,
        max: usize,
    ) -> Result<Vec<SessionSummary>, StoreError> {
        let window = self.settings.window;
        let mut arguments = vec![
            number(millis(window)),
            number(millis(window / 4).saturating_add(millis(NODE_SILENCE))),
            number(millis(self.settings.once_window)),
            number(self.settings.max_sessions as u64),
            number(max as u64),
            number(alive.len() as u64),
        ];
        arguments.extend(alive.iter().cloned());
        let answer = self.run(|scripts| &scripts.expire, namespace, &arguments, now)?;
        let gone = values::list(&answer).ok_or_else(values::damaged)?;
        let summary = |pair: &[Value]| {
            let [record, evicted] = pair else { return None };
            let record = values::record(namespace, "", 0, values::bytes(record)?)?;
            Some(record.summary(values::text(evicted) == Some("1")))
        };
        Ok(gone.chunks(2).filter_map(summary).collect())
    }

    /// The nodes that have written a heartbeat lately, and this one.
    pub(super) fn alive(&mut self) -> Result<Vec<Vec<u8>>, StoreError> {
        let key = self.keys.nodes();
        let since = self.servers.time()?.saturating_sub(millis(NODE_SILENCE));
        let nodes = self
            .servers
            .command(&key, |key| redis::cmd("ZRANGEBYSCORE").arg(key).arg(since).arg("+inf").take())?;
        let mut alive: Vec<Vec<u8>> = values::list(&nodes)
            .unwrap_or_default()
            .iter()
            .filter_map(values::bytes)
            .map(<[u8]>::to_vec)
            .collect();
        alive.push(self.node.as_bytes().to_vec());
        Ok(alive)
    }
}
