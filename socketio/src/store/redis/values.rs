//! Entries, sessions and answers <-> what Redis has. No calls.

use std::sync::Arc;

use redis::Value;

use crate::offset::Position;
use crate::store::{Entry, EntryKind, Membership, Millis, NewEntry, SessionRecord, StoreError, encoding};

/// What a script is given: its arguments behind run id, time and node.
pub(super) type Arguments = Vec<Vec<u8>>;

/// A position as two numbers.
type Pair = (u64, u64);

/// The parts of a session's record that no script looks at.
type RecordTuple = (
    (String, String),
    (Pair, Pair, Pair),
    Vec<(Pair, Pair)>,
    Option<String>,
    Vec<u64>,
    Vec<(String, Pair, Option<Pair>)>,
);

/// Redis does not hold what this crate writes.
pub(super) fn damaged() -> StoreError {
    StoreError::Failed("Redis holds something else than this crate writes".into())
}

/// A name without blanks and colons.
pub(super) fn word(name: &str) -> String {
    name.replace(|c: char| c.is_whitespace() || c == ':' || c == '|', "_")
}

pub(super) fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::BulkString(bytes) => Some(bytes),
        Value::SimpleString(text) => Some(text.as_bytes()),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    std::str::from_utf8(bytes(value)?).ok()
}

pub(super) fn number(value: &Value) -> Option<u64> {
    match value {
        Value::Int(number) => u64::try_from(*number).ok(),
        value => text(value)?.parse().ok(),
    }
}

pub(super) fn list(value: &Value) -> Option<&[Value]> {
    match value {
        Value::Array(list) => Some(list),
        _ => None,
    }
}

/// A number as an argument.
pub(super) fn digits(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

/// `<milliseconds>-<number>`
pub(super) fn position_of(text: &str) -> Option<Position> {
    let (time, number) = text.split_once('-')?;
    Some(Position { time: time.parse().ok()?, number: number.parse().ok()? })
}

pub(super) fn position(value: &Value) -> Option<Position> {
    position_of(text(value)?)
}

pub(super) fn position_text(position: Position) -> String {
    format!("{}-{}", position.time, position.number)
}

/// The fields of an entry, behind their number.
pub(super) fn push_entry(arguments: &mut Arguments, new: &NewEntry) {
    let mut fields: Vec<(&str, Vec<u8>)> =
        vec![("k", encoding::kind_number(new.kind).to_string().into_bytes())];
    fields.push(("p", new.packet.as_bytes().to_vec()));
    fields.extend(encoding::names(&new.rooms).map(|rooms| ("r", rooms)));
    fields.extend(encoding::names(&new.except).map(|rooms| ("x", rooms)));
    fields.extend(encoding::attachments(&new.attachments).map(|list| ("a", list)));
    fields.extend(new.ack.map(|id| ("i", id.to_string().into_bytes())));
    fields.extend(new.until.map(|until| ("u", until.to_string().into_bytes())));
    arguments.push((fields.len() * 2).to_string().into_bytes());
    for (name, value) in fields {
        arguments.push(name.as_bytes().to_vec());
        arguments.push(value);
    }
}

/// An entry, and the position of the one before it, if it says so.
pub(super) fn chained(namespace: &Arc<str>, value: &Value) -> Option<(Entry, Option<Position>)> {
    let entry = entry(namespace, value)?;
    let [_, fields] = list(value)? else { return None };
    let before = list(fields)?.chunks_exact(2).find(|field| field.first().and_then(bytes) == Some(b"q"));
    Some((entry, before.and_then(|field| position(field.get(1)?))))
}

/// `[id, [field, value, ..]]`. One with other fields, of a later version or not ours, keeps its place in the log, as an event
/// without a packet: it is counted when it is dispatched, and those after it are read.
pub(super) fn entry(namespace: &Arc<str>, value: &Value) -> Option<Entry> {
    let [id, fields] = list(value)? else { return None };
    let position = position(id)?;
    let nothing = NewEntry {
        namespace: Arc::clone(namespace),
        kind: EntryKind::Event,
        rooms: Arc::new([]),
        except: Arc::new([]),
        packet: "".into(),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    };
    let read = read_fields(nothing.clone(), position.time, list(fields)?);
    let (new, at) = read.unwrap_or((nothing, position.time));
    Some(Entry { position, at, new })
}

fn read_fields(mut new: NewEntry, mut at: Millis, fields: &[Value]) -> Option<(NewEntry, Millis)> {
    for field in fields.chunks_exact(2) {
        let [name, value] = field else { return None };
        match bytes(name)? {
            b"k" => new.kind = encoding::kind_of(i64::try_from(number(value)?).ok()?)?,
            b"p" => new.packet = text(value)?.into(),
            b"r" => new.rooms = encoding::read_names(bytes(value)?)?,
            b"x" => new.except = encoding::read_names(bytes(value)?)?,
            b"a" => new.attachments = encoding::read_chunks(bytes(value)?)?.into(),
            b"i" => new.ack = Some(number(value)?),
            b"u" => new.until = Some(number(value)?),
            b"t" => at = number(value)?,
            // A later version's.
            _ => {}
        }
    }
    Some((new, at))
}

/// A list of entries.
pub(super) fn entries(namespace: &str, value: &Value) -> Option<Vec<Entry>> {
    let namespace = Arc::from(namespace);
    list(value)?.iter().map(|value| entry(&namespace, value)).collect()
}

/// A session's record without what scripts look at.
pub(super) fn record_bytes(record: &SessionRecord) -> Vec<u8> {
    let pair = |position: Position| (position.time, position.number);
    let tuple: RecordTuple = (
        (record.sid.to_string(), record.principal.to_string()),
        (pair(record.first), pair(record.checkpoint), pair(record.last)),
        record.earlier.iter().map(|(checkpoint, last)| (pair(*checkpoint), pair(*last))).collect(),
        record.data.as_ref().map(ToString::to_string),
        record.answered.clone(),
        record
            .memberships
            .iter()
            .map(|member| (member.room.to_string(), pair(member.from), member.to.map(pair)))
            .collect(),
    );
    serde_json::to_vec(&tuple).expect("numbers and texts have a JSON form")
}

/// What [`record_bytes`] wrote, of a session that is connected.
pub(super) fn record(namespace: &str, pid: &str, generation: u64, bytes: &[u8]) -> Option<SessionRecord> {
    let place = |(time, number): Pair| Position { time, number };
    let ((sid, principal), (first, checkpoint, last), earlier, data, answered, memberships): RecordTuple =
        serde_json::from_slice(bytes).ok()?;
    Some(SessionRecord {
        pid: pid.into(),
        sid: sid.into(),
        namespace: namespace.into(),
        principal: principal.into(),
        generation,
        first: place(first),
        checkpoint: place(checkpoint),
        last: place(last),
        earlier: earlier.into_iter().map(|(checkpoint, last)| (place(checkpoint), place(last))).collect(),
        data: data.map(Arc::from),
        answered,
        memberships: memberships
            .into_iter()
            .map(|(room, from, to)| Membership { room: room.into(), from: place(from), to: to.map(place) })
            .collect(),
        away: None,
    })
}

/// Adds the joins of transactions, a line each: `<position> <room as JSON>`.
pub(super) fn add_joins(record: &mut SessionRecord, joins: &str) -> Option<()> {
    for line in joins.lines() {
        let (at, room) = line.split_once(' ')?;
        let room: String = serde_json::from_str(room).ok()?;
        Membership::join(&mut record.memberships, &room.into(), position_of(at)?);
    }
    Some(())
}
