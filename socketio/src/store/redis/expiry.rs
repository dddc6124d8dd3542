//! Sessions and once keys whose time is over, and which nodes are alive.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::values::{self, digits as number};
use super::writer::RedisWriter;
use crate::store::{
    LogLimits, Millis, SessionSummary, StoreError, StoreSettings, Writer as _, encoding, millis,
};

/// A node without a heartbeat for so long is dead.
const NODE_SILENCE: Duration = Duration::from_secs(5);
/// Slices that are trimmed of such a log at a time.
const TRIMS: usize = 16;

impl RedisWriter {
    pub(super) fn expire_in(
        &mut self,
        namespace: &Arc<str>,
        nodes: &Heard,
        now: Millis,
        max: usize,
    ) -> Result<Vec<SessionSummary>, StoreError> {
        let window = self.settings.window;
        let mut arguments = vec![
            number(self.number_call()),
            number(millis(window)),
            number(millis(window / 4).saturating_add(millis(NODE_SILENCE))),
            number(millis(self.settings.once_window)),
            number(self.settings.max_sessions as u64),
            number(max as u64),
        ];
        for list in [&nodes.alive, &nodes.silent] {
            arguments.push(number(list.len() as u64));
            arguments.extend(list.iter().cloned());
        }
        let answer = self.run(|scripts| &scripts.expire, namespace, &arguments, now)?;
        let parts = values::bytes(&answer).and_then(encoding::read_chunks).ok_or_else(values::damaged)?;
        let (flags, gone) = parts.split_first().ok_or_else(values::damaged)?;
        if flags.first() == Some(&b'1') {
            self.trim_unread(namespace, now)?;
        }
        if flags.get(1) == Some(&b'1')
            && let Err(error) = self.forward(namespace, now)
        {
            tracing::debug!(target: "adjourn_socketio", %error, "entries for other namespaces wait");
        }
        let summary = |pair: &[Bytes]| {
            let [record, evicted] = pair else { return None };
            let record = values::record(namespace, "", 0, record)?;
            Some(record.summary(&**evicted == b"1"))
        };
        Ok(gone.chunks(2).filter_map(summary).collect())
    }

    /// A log without sessions may be one that no node reads, and so none trims: an `Emitter`'s.
    fn trim_unread(&mut self, namespace: &str, now: Millis) -> Result<(), StoreError> {
        let StoreSettings { window, log_entries, log_bytes, .. } = self.settings;
        let limits = LogLimits::of(window, log_entries, log_bytes);
        for _ in 0..TRIMS {
            if !self.trim(namespace, &limits, now)?.more {
                break;
            }
        }
        Ok(())
    }

    /// Which nodes have written a heartbeat lately. This one lives.
    pub(super) fn heard(&mut self) -> Result<Heard, StoreError> {
        let now = self.servers.time()?;
        let since = now.saturating_sub(millis(NODE_SILENCE));
        let window = since.saturating_sub(millis(self.settings.window));
        let mut alive = self.nodes_between(since, "+inf")?;
        alive.push(self.node.as_bytes().to_vec());
        Ok(Heard { alive, silent: self.nodes_between(window, &format!("({since}"))? })
    }

    fn nodes_between(&mut self, from: Millis, to: &str) -> Result<Vec<Vec<u8>>, StoreError> {
        let nodes = self.servers.command(&self.keys.nodes(), |key| {
            redis::cmd("ZRANGEBYSCORE").arg(key).arg(from).arg(to).take()
        })?;
        let nodes = values::list(&nodes).unwrap_or_default();
        Ok(nodes.iter().filter_map(values::bytes).map(<[u8]>::to_vec).collect())
    }
}

/// Nodes by their heartbeats.
pub(super) struct Heard {
    alive: Vec<Vec<u8>>,
    /// Not heard of lately, and within the window of sessions. They may live: after a pause of Redis, all have been silent.
    silent: Vec<Vec<u8>>,
}
