//! Values <-> columns. No statements.

use std::sync::Arc;

use rusqlite::Row;
use rusqlite::types::Type;

use crate::offset::Position;
use crate::store::{AckValue, Entry, Membership, NewEntry, SessionRecord, encoding};

/// `sio_once.state`.
pub(super) const RUNNING: i64 = 0;
/// `sio_once.state`.
pub(super) const DONE: i64 = 1;

/// What [`entry`] reads, behind the namespace.
pub(super) const ENTRY_COLUMNS: &str =
    "pos, at_ms, kind, rooms, except_rooms, packet, attachments, ack, until_ms";
/// The bytes of an entry, for the limits of a log.
pub(super) const ENTRY_BYTES: &str = "ifnull(length(rooms), 0) + ifnull(length(except_rooms), 0) + length(packet) + ifnull(length(attachments), 0)";
/// What [`session`] reads.
pub(super) const SESSION_COLUMNS: &str =
    "pid, nsp, sid, principal, generation, first, checkpoint, last, data, answered, away_ms, earlier";

/// A number as SQLite has it; one above `i64::MAX` is a time that never comes.
pub(super) fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A number that was written by [`integer`].
pub(super) fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}

pub(super) fn position(number: i64) -> Position {
    Position::counter(unsigned(number))
}

/// The columns of an entry behind its namespace and position, as they are written.
pub(super) struct EntryColumns<'e> {
    pub(super) kind: i64,
    pub(super) rooms: Option<Vec<u8>>,
    pub(super) except: Option<Vec<u8>>,
    pub(super) packet: &'e [u8],
    pub(super) attachments: Option<Vec<u8>>,
}

impl<'e> EntryColumns<'e> {
    pub(super) fn of(new: &'e NewEntry) -> Self {
        Self {
            kind: encoding::kind_number(new.kind),
            rooms: encoding::names(&new.rooms),
            except: encoding::names(&new.except),
            packet: new.packet.as_bytes(),
            attachments: encoding::attachments(&new.attachments),
        }
    }

    /// The same sum as [`ENTRY_BYTES`].
    pub(super) fn bytes(&self) -> u64 {
        let length = |blob: &Option<Vec<u8>>| blob.as_ref().map_or(0, Vec::len);
        (length(&self.rooms) + length(&self.except) + self.packet.len() + length(&self.attachments)) as u64
    }
}

/// An entry of `namespace` from [`ENTRY_COLUMNS`]; its bytes are those of [`ENTRY_BYTES`].
pub(super) fn entry(namespace: &Arc<str>, row: &Row<'_>) -> rusqlite::Result<(Entry, u64)> {
    let length = |index| -> rusqlite::Result<usize> {
        Ok(row.get_ref(index)?.as_bytes_or_null()?.map_or(0, <[u8]>::len))
    };
    let bytes = length(3)? + length(4)? + length(5)? + length(6)?;
    let new = NewEntry {
        namespace: Arc::clone(namespace),
        kind: encoding::kind_of(row.get(2)?).ok_or_else(|| damaged(2))?,
        rooms: read_names(row, 3)?,
        except: read_names(row, 4)?,
        packet: text(row, 5)?,
        attachments: row
            .get_ref(6)?
            .as_bytes_or_null()?
            .map_or(Some(Vec::new()), encoding::read_chunks)
            .ok_or_else(|| damaged(6))?
            .into(),
        ack: row.get::<_, Option<i64>>(7)?.map(unsigned),
        until: row.get::<_, Option<i64>>(8)?.map(unsigned),
    };
    Ok((Entry { position: position(row.get(0)?), at: unsigned(row.get(1)?), new }, bytes as u64))
}

/// A session from [`SESSION_COLUMNS`], without its memberships.
pub(super) fn session(row: &Row<'_>) -> rusqlite::Result<SessionRecord> {
    let data = match row.get_ref(8)?.as_bytes_or_null()? {
        Some(_) => Some(text(row, 8)?),
        None => None,
    };
    let answered = match row.get_ref(9)?.as_bytes_or_null()? {
        Some(json) => serde_json::from_slice(json).map_err(|_| damaged(9))?,
        None => Vec::new(),
    };
    Ok(SessionRecord {
        pid: row.get(0)?,
        namespace: row.get(1)?,
        sid: row.get(2)?,
        principal: row.get(3)?,
        generation: unsigned(row.get(4)?),
        first: position(row.get(5)?),
        checkpoint: position(row.get(6)?),
        last: position(row.get(7)?),
        data,
        earlier: read_pairs(row, 11)?,
        answered,
        memberships: Vec::new(),
        away: row.get::<_, Option<i64>>(10)?.map(unsigned),
    })
}

/// A membership from `room, from_pos, to_pos`.
pub(super) fn membership(row: &Row<'_>) -> rusqlite::Result<Membership> {
    Ok(Membership {
        room: row.get(0)?,
        from: position(row.get(1)?),
        to: row.get::<_, Option<i64>>(2)?.map(position),
    })
}

/// Pairs of positions, as a JSON array.
pub(super) fn pairs(pairs: &[(Position, Position)]) -> Option<Vec<u8>> {
    let numbers: Vec<(u64, u64)> = pairs.iter().map(|pair| (pair.0.number, pair.1.number)).collect();
    (!numbers.is_empty()).then(|| serde_json::to_vec(&numbers).expect("numbers have a JSON form"))
}

fn read_pairs(row: &Row<'_>, index: usize) -> rusqlite::Result<Vec<(Position, Position)>> {
    let Some(json) = row.get_ref(index)?.as_bytes_or_null()? else { return Ok(Vec::new()) };
    let numbers: Vec<(u64, u64)> = serde_json::from_slice(json).map_err(|_| damaged(index))?;
    Ok(numbers.into_iter().map(|pair| (Position::counter(pair.0), Position::counter(pair.1))).collect())
}

pub(super) fn answered(ids: &[u64]) -> Option<Vec<u8>> {
    (!ids.is_empty()).then(|| serde_json::to_vec(ids).expect("numbers have a JSON form"))
}

/// An ack in the column `index`.
pub(super) fn read_ack(row: &Row<'_>, index: usize) -> rusqlite::Result<AckValue> {
    encoding::read_ack(row.get_ref(index)?.as_bytes()?).ok_or_else(|| damaged(index))
}

fn read_names(row: &Row<'_>, index: usize) -> rusqlite::Result<Arc<[Arc<str>]>> {
    let Some(json) = row.get_ref(index)?.as_bytes_or_null()? else { return Ok(Arc::new([])) };
    encoding::read_names(json).ok_or_else(|| damaged(index))
}

fn text(row: &Row<'_>, index: usize) -> rusqlite::Result<Arc<str>> {
    std::str::from_utf8(row.get_ref(index)?.as_bytes()?).map(Arc::from).map_err(|_| damaged(index))
}

/// The file does not hold what this crate writes.
fn damaged(column: usize) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, Type::Blob, "damaged".into())
}
