//! Rows of sessions and their memberships.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension as _, params};

use super::known::{Change, Known};
use super::rows::{self, SESSION_COLUMNS, integer, unsigned};
use crate::offset::Position;
use crate::store::{
    Membership, Millis, SessionChange, SessionRecord, SessionSummary, StoreError, StoreSettings,
    TransactContext, resume,
};

pub(super) fn read(tx: &Connection, pid: &str) -> rusqlite::Result<Option<SessionRecord>> {
    let mut statement =
        tx.prepare_cached(&format!("SELECT {SESSION_COLUMNS} FROM sio_session WHERE pid = ?1"))?;
    let Some(mut session) = statement.query_row([pid], rows::session).optional()? else { return Ok(None) };
    let mut members = tx.prepare_cached("SELECT room, from_pos, to_pos FROM sio_member WHERE pid = ?1")?;
    session.memberships = members.query_map([pid], rows::membership)?.collect::<Result<_, _>>()?;
    Ok(Some(session))
}

fn generation(tx: &Connection, pid: &str) -> rusqlite::Result<Option<u64>> {
    tx.prepare_cached("SELECT generation FROM sio_session WHERE pid = ?1")?
        .query_row([pid], |row| row.get(0).map(unsigned))
        .optional()
}

/// Is the session of `context` still held by its generation?
pub(super) fn is_current(tx: &Connection, context: &TransactContext) -> Result<bool, StoreError> {
    let Some((pid, held)) = &context.session else { return Ok(false) };
    Ok(generation(tx, pid)? == Some(*held))
}

/// Applies a change unless its generation is no longer current.
pub(super) fn change(
    tx: &Connection,
    change: &mut Change,
    session: &SessionChange,
) -> Result<bool, StoreError> {
    let (pid, held) = session.key();
    let stored = generation(tx, pid)?;
    match session {
        SessionChange::Save(record) if stored == Some(held) || (stored.is_none() && held == 1) => {
            change.sessions += isize::from(stored.is_none());
            write_session(tx, record)?;
            Ok(true)
        }
        SessionChange::Remove { .. } if stored == Some(held) => {
            remove_session(tx, change, pid)?;
            Ok(true)
        }
        _ => Ok(false),
    }
}

fn write_session(tx: &Connection, record: &SessionRecord) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT OR REPLACE INTO sio_session VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        record.pid,
        record.namespace,
        record.sid,
        record.principal,
        integer(record.generation),
        integer(record.first.number),
        integer(record.checkpoint.number),
        integer(record.last.number),
        record.data.as_ref().map(|data| data.as_bytes()),
        rows::answered(&record.answered),
        record.away.map(integer),
        rows::pairs(&record.earlier),
    ])?;
    // Most memberships are there already: rows that do not change are not written.
    for member in &record.memberships {
        write_member(tx, &record.pid, member)?;
    }
    let stored: i64 = tx
        .prepare_cached("SELECT count(*) FROM sio_member WHERE pid = ?1")?
        .query_row([&record.pid], |row| row.get(0))?;
    if unsigned(stored) != record.memberships.len() as u64 {
        tx.prepare_cached("DELETE FROM sio_member WHERE pid = ?1")?.execute([&record.pid])?;
        for member in &record.memberships {
            write_member(tx, &record.pid, member)?;
        }
    }
    Ok(())
}

fn write_member(tx: &Connection, pid: &str, member: &Membership) -> Result<(), StoreError> {
    tx.prepare_cached(
        "INSERT INTO sio_member VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET to_pos = excluded.to_pos \
         WHERE to_pos IS NOT excluded.to_pos",
    )?
    .execute(params![
        pid,
        member.room,
        integer(member.from.number),
        member.to.map(|to| integer(to.number))
    ])?;
    Ok(())
}

/// Adds a membership after `tail`, unless there is one already.
pub(super) fn join(tx: &Connection, pid: &str, room: &Arc<str>, tail: u64) -> Result<(), StoreError> {
    let member: i64 = tx
        .prepare_cached("SELECT count(*) FROM sio_member WHERE pid = ?1 AND room = ?2 AND to_pos IS NULL")?
        .query_row(params![pid, room], |row| row.get(0))?;
    if member > 0 {
        return Ok(());
    }
    let from = Position::counter(tail);
    write_member(tx, pid, &Membership { room: Arc::clone(room), from, to: None })
}

fn remove_session(tx: &Connection, change: &mut Change, pid: &str) -> Result<(), StoreError> {
    tx.prepare_cached("DELETE FROM sio_session WHERE pid = ?1")?.execute([pid])?;
    tx.prepare_cached("DELETE FROM sio_member WHERE pid = ?1")?.execute([pid])?;
    change.sessions -= 1;
    Ok(())
}

/// Removes at most `max` sessions: those whose time is over, and those longest away while there are too many.
pub(super) fn expire(
    tx: &Connection,
    known: &Known,
    change: &mut Change,
    settings: &StoreSettings,
    now: Millis,
    max: usize,
) -> Result<Vec<SessionSummary>, StoreError> {
    let candidates: Vec<SessionRecord> = tx
        .prepare_cached(&format!(
            "SELECT {SESSION_COLUMNS} FROM sio_session WHERE away_ms IS NOT NULL ORDER BY away_ms LIMIT ?1"
        ))?
        .query_map([integer(max as u64)], rows::session)?
        .collect::<Result<_, _>>()?;
    let mut gone = Vec::new();
    for session in candidates {
        let over = session.away.is_some_and(|away| resume::is_over(away, settings, now));
        if !over && known.sessions.saturating_add_signed(change.sessions) <= settings.max_sessions {
            break;
        }
        remove_session(tx, change, &session.pid)?;
        gone.push(session.summary(!over));
    }
    Ok(gone)
}
