//! Entries of transactions for other namespaces. Those are on servers of their own, so they are no part of the script: it leaves
//! them in a list, in their order, and any node appends them from there, once each.

use std::sync::Arc;

use redis::{Value, cmd};

use super::values::{self, Arguments};
use super::writer::RedisWriter;
use crate::offset::Position;
use crate::store::{Millis, StoreError, TransactContext, TxEffect, encoding};

/// Entries that are forwarded at a time.
const SLICE: usize = 1024;

/// The entries for other namespaces, each as it lies in the list behind its number.
pub(super) fn posted(effects: &[TxEffect], context: &TransactContext) -> Vec<Vec<u8>> {
    let post = |effect: &TxEffect| match effect {
        TxEffect::Emit(new) if context.logged && new.namespace != context.namespace => {
            let mut parts = vec![new.namespace.as_bytes().to_vec()];
            values::push_entry(&mut parts, new);
            Some(encoding::chunks(parts.iter().map(Vec::as_slice)))
        }
        TxEffect::Emit(_) | TxEffect::Join(_) => None,
    };
    effects.iter().filter_map(post).collect()
}

/// Is an effect of the transaction's own namespace?
pub(super) fn is_of(effect: &TxEffect, context: &TransactContext) -> bool {
    match effect {
        TxEffect::Emit(new) => context.logged && new.namespace == context.namespace,
        TxEffect::Join(_) => true,
    }
}

/// The position of each effect. Those of other namespaces are the last of `others`; where they are not known, nobody asks for them.
pub(super) fn placed(
    effects: &[TxEffect],
    context: &TransactContext,
    own: &[Position],
    others: &[Position],
) -> Result<Vec<Position>, StoreError> {
    let is_posted = |effect: &&TxEffect| context.logged && !is_of(effect, context);
    let posted = effects.iter().filter(is_posted).count();
    let (mut own, mut others) = (own.iter(), others.iter().skip(others.len().saturating_sub(posted)));
    let place = |effect: &TxEffect| match effect {
        TxEffect::Emit(_) if !context.logged => Ok(Position::START),
        effect if is_posted(&effect) => Ok(others.next().copied().unwrap_or_default()),
        _ => own.next().copied().ok_or_else(values::damaged),
    };
    effects.iter().map(place).collect()
}

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
