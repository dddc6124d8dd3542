//! The one writer of the file: each call is one transaction.
//!
//! Tails, floors and counts are kept here, too, and follow a transaction only when it has committed.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior, params};

use super::known::{Change, Known, Log, write_log};
use super::rows::{self, DONE, ENTRY_BYTES, EntryColumns, integer, unsigned};
use super::{Shared, lock, once, sessions};
use crate::offset::Position;
use crate::store::resume::{self, LogView};
use crate::store::{
    Attach, AttachError, Attached, Batch, Committed, LogLimits, LogState, Millis, NewEntry, OnceFinish,
    OnceKey, OnceState, Run, SessionSummary, StoreError, StoreSettings, TRIM_SLICE, TransactContext,
    TransactError, Transacted, Trimmed, Tx, TxEffect, Writer, millis,
};

#[derive(Debug)]
pub(super) struct SqliteWriter {
    connection: Shared,
    _lock: Option<Arc<File>>,
    settings: StoreSettings,
    epoch: u64,
    known: Known,
}

impl SqliteWriter {
    pub(super) fn new(
        connection: Shared,
        lock_file: Option<Arc<File>>,
        epoch: u64,
        settings: StoreSettings,
    ) -> Result<(Self, Vec<LogState>), StoreError> {
        let known = Known::read(&lock(&connection))?;
        let logs = known
            .logs
            .iter()
            .map(|(namespace, log)| LogState {
                namespace: Arc::clone(namespace),
                tail: Position::counter(log.tail),
                floor: Position::counter(log.floor),
            })
            .collect();
        Ok((Self { connection, _lock: lock_file, settings, epoch, known }, logs))
    }
}

impl Writer for SqliteWriter {
    fn commit(&mut self, batch: &Batch, now: Millis) -> Result<Committed, StoreError> {
        let max_ack = self.settings.max_ack;
        if batch.once.iter().any(|finish| finish.ack.as_ref().is_some_and(|ack| ack.bytes() > max_ack)) {
            return Err(StoreError::Full("max_ack"));
        }
        let mut connection = lock(&self.connection);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change = Change::default();
        let mut committed = Committed::default();
        for new in &batch.entries {
            committed.positions.push(append(&tx, &self.known, &mut change, new, now)?);
        }
        for (index, session) in batch.sessions.iter().enumerate() {
            if !sessions::change(&tx, &mut change, session)? {
                committed.stale.push(index);
            }
        }
        for OnceFinish { key, ack } in &batch.once {
            once::finish(&tx, &mut change, key, ack.as_ref(), now)?;
        }
        self.known.commit(tx, change)?;
        Ok(committed)
    }

    fn attach(&mut self, ask: &Attach, now: Millis) -> Result<Attached, AttachError> {
        let mut connection = lock(&self.connection);
        let tx =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let session = sessions::read(&tx, &ask.pid).map_err(StoreError::from)?;
        let log = self.known.log(&ask.namespace);
        let view = LogView {
            epoch: self.epoch,
            tail: Position::counter(log.tail),
            floor: Position::counter(log.floor),
        };
        let ends = match ask.offset {
            Some(offset) => end_of_epoch(&tx, &ask.namespace, offset.epoch).map_err(StoreError::from)?,
            None => None,
        };
        let bytes = |start| bytes_after(&tx, &ask.namespace, log, start, self.settings.max_replay);
        let start = resume::judge(ask, session.as_ref(), view, &self.settings, now, |_| ends, bytes)?;
        let mut session = session.expect("judged to be there");
        session.generation += 1;
        let away = session.away.take();
        session.forget_before(view.floor);
        tx.prepare_cached("UPDATE sio_session SET generation = ?2, away_ms = NULL WHERE pid = ?1")
            .and_then(|mut update| update.execute(params![session.pid, integer(session.generation)]))
            .and_then(|_| tx.commit())
            .map_err(StoreError::from)?;
        Ok(Attached { session, away, start, tail: view.tail })
    }

    fn once_begin(&mut self, key: &OnceKey, lease: Duration, now: Millis) -> Result<OnceState, StoreError> {
        let mut connection = lock(&self.connection);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let state = once::look(&tx, key, &self.settings, now)?;
        if state == OnceState::First {
            let mut change = Change::default();
            once::make_room(&tx, &self.known, &mut change, &self.settings, now)?;
            once::write(&tx, &mut change, key, None, now.saturating_add(millis(lease)))?;
            self.known.commit(tx, change)?;
        }
        Ok(state)
    }

    fn transact(
        &mut self,
        key: Option<&OnceKey>,
        context: &TransactContext,
        run: Run<'_>,
        now: Millis,
    ) -> Result<Transacted, TransactError> {
        let mut connection = lock(&self.connection);
        let tx =
            connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(StoreError::from)?;
        let mut change = Change::default();
        if let Some(key) = key {
            if let Some(ack) = once::look(&tx, key, &self.settings, now)?.result()? {
                return Ok(Transacted::repeat(ack));
            }
            once::make_room(&tx, &self.known, &mut change, &self.settings, now)?;
        }
        let (ack, effects) = Tx::with_sql(context, &tx).run(run)?;
        if tx.is_autocommit() {
            return Err(TransactError::Run("the application's code ended the transaction".into()));
        }
        if key.is_some() && ack.bytes() > self.settings.max_ack {
            return Err(StoreError::Full("max_ack").into());
        }
        let transacted = (|| {
            if let Some(key) = key {
                once::finish(&tx, &mut change, key, Some(&ack), now)?;
            }
            let session_current = sessions::is_current(&tx, context)?;
            let mut placed = Vec::with_capacity(effects.len());
            for effect in effects {
                let position = match &effect {
                    TxEffect::Emit(new) if context.logged => append(&tx, &self.known, &mut change, new, now)?,
                    TxEffect::Emit(_) => Position::START,
                    TxEffect::Join(room) => {
                        let tail = change.log(&self.known, &context.namespace).tail;
                        if session_current && let Some((pid, _)) = &context.session {
                            sessions::join(&tx, pid, room, tail)?;
                        }
                        Position::counter(tail)
                    }
                };
                placed.push((effect, position));
            }
            self.known.commit(tx, change)?;
            Ok(Transacted { ack, repeat: false, effects: placed, session_current })
        })();
        transacted.map_err(TransactError::Store)
    }

    fn trim(&mut self, namespace: &str, limits: &LogLimits, now: Millis) -> Result<Trimmed, StoreError> {
        let Some((name, log)) = self.known.logs.get_key_value(namespace) else {
            return Ok(Trimmed::nothing(self.known.base));
        };
        let (name, mut log) = (Arc::clone(name), *log);
        let before = log;
        let mut connection = lock(&self.connection);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let more = {
            let mut oldest = tx.prepare_cached(&format!(
                "SELECT pos, at_ms, {ENTRY_BYTES} FROM sio_log WHERE nsp = ?1 AND pos > ?2 ORDER BY pos LIMIT ?3"
            ))?;
            let mut oldest = oldest.query(params![
                namespace,
                integer(log.floor),
                integer(TRIM_SLICE.saturating_add(1))
            ])?;
            let oldest = &mut oldest;
            loop {
                let Some(row) = oldest.next()? else { break false };
                let at = unsigned(row.get(1)?);
                let over = log.entries > limits.entries
                    || log.bytes > limits.bytes
                    || at.saturating_add(millis(limits.age)) <= now;
                if !over || before.entries - log.entries == TRIM_SLICE {
                    break over;
                }
                log.floor = unsigned(row.get(0)?);
                log.entries = log.entries.saturating_sub(1);
                log.bytes = log.bytes.saturating_sub(unsigned(row.get(2)?));
            }
        };
        if log.floor > before.floor {
            write_log(&tx, namespace, log)?;
            tx.prepare_cached("DELETE FROM sio_log WHERE nsp = ?1 AND pos <= ?2")?
                .execute(params![namespace, integer(log.floor)])?;
            let change = Change { logs: HashMap::from([(name, log)]), ..Change::default() };
            self.known.commit(tx, change)?;
        }
        Ok(Trimmed {
            floor: Position::counter(log.floor),
            removed: before.entries - log.entries,
            entries: log.entries,
            bytes: log.bytes,
            more,
        })
    }

    fn drop_log(&mut self, namespace: &str) -> Result<bool, StoreError> {
        let mut connection = lock(&self.connection);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let sessions: i64 =
            tx.query_row("SELECT count(*) FROM sio_session WHERE nsp = ?1", [namespace], |row| row.get(0))?;
        if sessions > 0 {
            return Ok(false);
        }
        let base = self.known.base.max(self.known.log(namespace).tail);
        for table in ["sio_floor", "sio_log", "sio_epoch"] {
            tx.execute(&format!("DELETE FROM {table} WHERE nsp = ?1"), [namespace])?;
        }
        tx.execute("INSERT OR REPLACE INTO sio_meta VALUES ('base', ?1)", [integer(base)])?;
        tx.commit()?;
        self.known.base = base;
        self.known.logs.remove(namespace);
        Ok(true)
    }

    fn expire(&mut self, now: Millis, max: usize) -> Result<Vec<SessionSummary>, StoreError> {
        let mut connection = lock(&self.connection);
        let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut change = Change::default();
        let gone = sessions::expire(&tx, &self.known, &mut change, &self.settings, now, max)?;
        let before = now.checked_sub(millis(self.settings.once_window));
        if let Some(before) = before {
            let forgotten = tx
                .prepare_cached(
                    "DELETE FROM sio_once WHERE (scope, key) IN (SELECT scope, key FROM sio_once WHERE at_ms <= ?1 \
                     AND state = ?2 ORDER BY at_ms LIMIT ?3)",
                )?
                .execute(params![integer(before), DONE, integer(max as u64)])?;
            change.once -= forgotten.cast_signed();
        }
        self.known.commit(tx, change)?;
        Ok(gone)
    }
}

fn append(
    tx: &Connection,
    known: &Known,
    change: &mut Change,
    new: &NewEntry,
    now: Millis,
) -> Result<Position, StoreError> {
    let columns = EntryColumns::of(new);
    let log = change.log(known, &new.namespace);
    log.tail += 1;
    log.entries += 1;
    log.bytes += columns.bytes();
    let position = log.tail;
    tx.prepare_cached("INSERT INTO sio_log VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)")?.execute(
        params![
            new.namespace,
            integer(position),
            integer(now),
            columns.kind,
            columns.rooms,
            columns.except,
            columns.packet,
            columns.attachments,
            new.ack.map(integer),
            new.until.map(integer),
        ],
    )?;
    Ok(Position::counter(position))
}

/// The last position of an earlier epoch.
fn end_of_epoch(tx: &Connection, namespace: &str, epoch: u64) -> rusqlite::Result<Option<Position>> {
    tx.prepare_cached("SELECT last FROM sio_epoch WHERE nsp = ?1 AND epoch = ?2")?
        .query_row(params![namespace, integer(epoch)], |row| row.get(0).map(rows::position))
        .optional()
}

/// Bytes of log after `start`; not exact if they are fewer than `enough`.
fn bytes_after(
    tx: &Connection,
    namespace: &str,
    log: Log,
    start: Position,
    enough: u64,
) -> Result<u64, StoreError> {
    if log.bytes <= enough {
        return Ok(log.bytes);
    }
    let sum: i64 = tx
        .prepare_cached(&format!(
            "SELECT ifnull(sum({ENTRY_BYTES}), 0) FROM sio_log WHERE nsp = ?1 AND pos > ?2"
        ))?
        .query_row(params![namespace, integer(start.number)], |row| row.get(0))?;
    Ok(unsigned(sum))
}
