//! Entries of transactions for other namespaces. Those are on servers of their own, so they are no part of the script: it leaves
//! them in a list, in their order, and any node appends them from there, once each.

use std::sync::Arc;

use redis::{Value, cmd};

use super::values::{self, Arguments};
use super::writer::RedisWriter;
use crate::offset::Position;
use crate::store::{Millis, StoreError, encoding};

/// Entries that are forwarded at a time.
const SLICE: usize = 1024;

impl RedisWriter {
    /// Appends what waits in the list of a namespace. Gives the positions.
    pub(super) fn forward(&mut self, namespace: &str, now: Millis) -> Result<Vec<Position>, StoreError> {
        let key = self.keys.of(namespace, "outbox");
        let mut positions = Vec::new();
        for _ in 0..SLICE {
            let first = self.servers.command(&key, |key| cmd("LINDEX").arg(key).arg(0).take())?;
            if first == Value::Nil {
                break;
            }
            let (sent, to, entry) = read(&first).ok_or_else(values::damaged)?;
            // Another node may have dropped its log, and taken it from the set.
            self.listed.remove(&to);
            self.list(&to)?;
            let mut arguments = vec![namespace.as_bytes().to_vec(), sent.clone()];
            arguments.extend(entry);
            let answer = self.run(|scripts| &scripts.forward, &to, &arguments, now)?;
            positions.push(values::position(&answer).ok_or_else(values::damaged)?);
            self.run(|scripts| &scripts.forwarded, namespace, &vec![sent], now)?;
        }
        Ok(positions)
    }
}

/// `<number> <namespace, fields>`
fn read(posted: &Value) -> Option<(Vec<u8>, Arc<str>, Arguments)> {
    let posted = values::bytes(posted)?;
    let (sent, parts) = posted.split_at(posted.iter().position(|byte| *byte == b' ')?);
    let parts = encoding::read_chunks(parts.get(1..)?)?;
    let (to, entry) = parts.split_first()?;
    Some((
        sent.to_vec(),
        std::str::from_utf8(to).ok()?.into(),
        entry.iter().map(|part| part.to_vec()).collect(),
    ))
}
