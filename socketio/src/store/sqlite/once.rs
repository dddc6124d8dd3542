//! Rows of once keys.

use rusqlite::{Connection, params};

use super::known::{Change, Known};
use super::rows::{self, DONE, RUNNING, integer, unsigned};
use crate::store::{AckValue, Millis, OnceKey, OnceState, StoreError, StoreSettings, encoding};

/// The state of a once key; nothing is marked.
pub(super) fn look(
    tx: &Connection,
    key: &OnceKey,
    settings: &StoreSettings,
    now: Millis,
) -> Result<OnceState, StoreError> {
    let mut statement =
        tx.prepare_cached("SELECT state, at_ms, ack FROM sio_once WHERE scope = ?1 AND key = ?2")?;
    let mut found = statement.query(params![key.scope, key.key])?;
    let Some(row) = found.next()? else { return Ok(OnceState::First) };
    let at = unsigned(row.get(1)?);
    Ok(match row.get::<_, i64>(0)? {
        RUNNING if at > now => OnceState::Running { until: at },
        DONE if !settings.is_forgotten(at, now) => OnceState::Done(rows::read_ack(row, 2)?),
        _ => OnceState::First,
    })
}

/// Drops a lease that has run out, or the oldest finished key, if there are as many keys as there may be.
pub(super) fn make_room(
    tx: &Connection,
    known: &Known,
    change: &mut Change,
    settings: &StoreSettings,
    now: Millis,
) -> Result<(), StoreError> {
    let count = known.once.saturating_add_signed(change.once);
    let Some(excess) = (count + 1).checked_sub(settings.max_once_keys).filter(|excess| *excess > 0) else {
        return Ok(());
    };
    let dropped = tx
        .prepare_cached(
            "DELETE FROM sio_once WHERE (scope, key) IN (SELECT scope, key FROM sio_once WHERE state = ?1 OR \
             at_ms <= ?2 ORDER BY at_ms LIMIT ?3)",
        )?
        .execute(params![DONE, integer(now), integer(excess as u64)])?;
    change.once -= dropped.cast_signed();
    if dropped < excess { Err(StoreError::Full("max_once_keys")) } else { Ok(()) }
}

pub(super) fn finish(
    tx: &Connection,
    change: &mut Change,
    key: &OnceKey,
    ack: Option<&AckValue>,
    now: Millis,
) -> Result<(), StoreError> {
    if ack.is_some() {
        return write(tx, change, key, ack, now);
    }
    let removed = tx
        .prepare_cached("DELETE FROM sio_once WHERE scope = ?1 AND key = ?2")?
        .execute(params![key.scope, key.key])?;
    change.once -= removed.cast_signed();
    Ok(())
}

/// Marks a key as done, with its ack, or as running.
pub(super) fn write(
    tx: &Connection,
    change: &mut Change,
    key: &OnceKey,
    ack: Option<&AckValue>,
    at: Millis,
) -> Result<(), StoreError> {
    let inserted = tx
        .prepare_cached("INSERT OR IGNORE INTO sio_once VALUES (?1, ?2, ?3, NULL, ?4)")?
        .execute(params![key.scope, key.key, RUNNING, integer(at)])?;
    change.once += inserted.cast_signed();
    let state = if ack.is_some() { DONE } else { RUNNING };
    tx.prepare_cached("UPDATE sio_once SET state = ?3, ack = ?4, at_ms = ?5 WHERE scope = ?1 AND key = ?2")?
        .execute(params![key.scope, key.key, state, ack.map(encoding::ack), integer(at)])?;
    Ok(())
}
