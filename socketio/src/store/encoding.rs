//! How stores that write bytes write rooms, attachments, acks and kinds.

use std::sync::Arc;

use bytes::Bytes;

use super::{AckValue, EntryKind};

/// Names of rooms, as a JSON array; `None`: there are none.
pub(super) fn names(rooms: &[Arc<str>]) -> Option<Vec<u8>> {
    let names: Vec<&str> = rooms.iter().map(|room| &**room).collect();
    (!names.is_empty()).then(|| serde_json::to_vec(&names).expect("texts have a JSON form"))
}

/// What [`names`] wrote.
pub(super) fn read_names(json: &[u8]) -> Option<Arc<[Arc<str>]>> {
    let names: Vec<String> = serde_json::from_slice(json).ok()?;
    Some(names.into_iter().map(Arc::from).collect())
}

/// Attachments as [`read_chunks`] reads them; `None`: there are none.
pub(super) fn attachments(list: &[Bytes]) -> Option<Vec<u8>> {
    (!list.is_empty()).then(|| chunks(list.iter().map(|chunk| &**chunk)))
}

/// An ack: its JSON, then its attachments.
pub(super) fn ack(ack: &AckValue) -> Vec<u8> {
    chunks(std::iter::once(ack.json.as_bytes()).chain(ack.attachments.iter().map(|chunk| &**chunk)))
}

/// What [`ack`] wrote.
pub(super) fn read_ack(bytes: &[u8]) -> Option<AckValue> {
    let chunks = read_chunks(bytes)?;
    let (json, attachments) = chunks.split_first()?;
    Some(AckValue { json: std::str::from_utf8(json).ok()?.into(), attachments: attachments.into() })
}

/// Byte strings, each behind its length in 4 bytes, little endian.
pub(super) fn chunks<'c>(chunks: impl Iterator<Item = &'c [u8]>) -> Vec<u8> {
    let mut out = Vec::new();
    for chunk in chunks {
        let length = u32::try_from(chunk.len()).expect("a message is far below 4 GiB");
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(chunk);
    }
    out
}

/// What `chunks` wrote.
pub(super) fn read_chunks(bytes: &[u8]) -> Option<Vec<Bytes>> {
    let mut rest = Bytes::copy_from_slice(bytes);
    let mut chunks = Vec::new();
    while !rest.is_empty() {
        let length = u32::from_le_bytes(*rest.first_chunk()?);
        let end = usize::try_from(length).ok()?.checked_add(4).filter(|end| *end <= rest.len())?;
        chunks.push(rest.split_to(end).split_off(4));
    }
    Some(chunks)
}

/// Kinds as stores have them: never renumber.
pub(super) fn kind_number(kind: EntryKind) -> i64 {
    match kind {
        EntryKind::Event => 0,
        EntryKind::Ask => 1,
        EntryKind::Join => 2,
        EntryKind::Leave => 3,
        EntryKind::Disconnect => 4,
        EntryKind::Fence => 5,
        EntryKind::Epoch => 6,
    }
}

/// The kind of a number.
pub(super) fn kind_of(number: i64) -> Option<EntryKind> {
    use EntryKind::{Ask, Disconnect, Epoch, Event, Fence, Join, Leave};
    [Event, Ask, Join, Leave, Disconnect, Fence, Epoch].into_iter().find(|kind| kind_number(*kind) == number)
}
