//! `<type>[<n>-][<namespace>,][<ack id>]`: what stands before the JSON of a packet (specification 6).

use std::ops::Range;

use super::error::DecodeError;

/// The largest integer that JavaScript holds exactly.
const MAX_ACK: u64 = (1 << 53) - 1;

/// The type of a packet from a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PacketKind {
    /// CONNECT.
    Connect,
    /// DISCONNECT.
    Disconnect,
    /// EVENT or BINARY_EVENT.
    Event,
    /// ACK or BINARY_ACK.
    Ack,
}

/// What stands before the JSON.
#[derive(Debug)]
pub(super) struct Header {
    pub(super) kind: PacketKind,
    /// How many attachments follow; only of the binary types.
    pub(super) attachments: Option<usize>,
    /// Where the namespace is; empty: none is named.
    pub(super) namespace: Range<usize>,
    pub(super) ack: Option<u64>,
    /// Where the JSON begins.
    pub(super) payload: usize,
}

impl Header {
    pub(super) fn read(text: &str) -> Result<Self, DecodeError> {
        let (kind, binary) = match text.as_bytes().first() {
            Some(b'0') => (PacketKind::Connect, false),
            Some(b'1') => (PacketKind::Disconnect, false),
            Some(b'2') => (PacketKind::Event, false),
            Some(b'3') => (PacketKind::Ack, false),
            Some(b'4') => return Err(DecodeError::ConnectError),
            Some(b'5') => (PacketKind::Event, true),
            Some(b'6') => (PacketKind::Ack, true),
            _ => return Err(DecodeError::UnknownType),
        };
        let mut at = 1;
        let mut attachments = None;
        if binary {
            let digits = digits(text, at);
            at = digits.end + 1;
            if text.as_bytes().get(digits.end) != Some(&b'-') {
                return Err(DecodeError::Attachments);
            }
            let count = text.get(digits).and_then(|digits| digits.parse().ok()).filter(|count| *count > 0);
            attachments = Some(count.ok_or(DecodeError::Attachments)?);
        }
        let mut namespace = at..at;
        if text.as_bytes().get(at) == Some(&b'/') {
            let rest = text.get(at..).unwrap_or_default();
            let length = rest.find(',').unwrap_or(rest.len());
            namespace.end = at + length;
            at = (namespace.end + 1).min(text.len());
        }
        let id = digits(text, at);
        let payload = id.end;
        let ack = if id.is_empty() {
            None
        } else {
            let id: Option<u64> = text.get(id).and_then(|digits| digits.parse().ok());
            Some(id.filter(|id| *id <= MAX_ACK).ok_or(DecodeError::AckId)?)
        };
        Ok(Self { kind, attachments, namespace, ack, payload })
    }
}

/// Can a client name this namespace, if names have `max` bytes at most?
pub fn is_namespace(name: &str, max: usize) -> bool {
    name.starts_with('/') && !name.contains(',') && name.len() <= max
}

/// Names that neither side may give to an event.
pub fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener"
    )
}

/// The ASCII digits from `start` on.
fn digits(text: &str, start: usize) -> Range<usize> {
    let rest = text.as_bytes().get(start..).unwrap_or_default();
    start..start + rest.iter().take_while(|byte| byte.is_ascii_digit()).count()
}
