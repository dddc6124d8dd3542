//! Socket.IO packets from the messages of one connection.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::args::Args;
use super::error::DecodeError;
use super::header::{Header, PacketKind, is_reserved};
use super::json::{self, Kind, Placeholder, ScanError};
use crate::links::FrameRef;

/// What a packet may hold (specification 18).
#[derive(Clone, Debug)]
pub struct PacketLimits {
    /// Most attachments of one packet.
    pub max_attachments: usize,
    /// Deepest nesting of the payload, its outermost array or object counted as 1.
    pub max_depth: usize,
    /// Most bytes of all attachments of one packet.
    pub max_attachment_bytes: usize,
    /// Most bytes of a namespace, and of an event's name.
    pub max_name: usize,
}

impl Default for PacketLimits {
    fn default() -> Self {
        Self { max_attachments: 10, max_depth: 128, max_attachment_bytes: 4_000_000, max_name: 1024 }
    }
}

/// Makes packets of the messages of one connection: collects attachments.
#[derive(Debug, Default)]
pub struct Decoder {
    waiting: Option<Box<Waiting>>,
}

/// A packet whose attachments are outstanding.
#[derive(Debug)]
struct Waiting {
    packet: Packet<'static>,
    outstanding: usize,
    /// Bytes that the outstanding attachments may still have.
    room: usize,
}

/// A packet from a client. Text is borrowed from the message unless it had attachments.
#[derive(Debug)]
pub struct Packet<'a> {
    text: Cow<'a, str>,
    kind: PacketKind,
    namespace: Range<usize>,
    ack: Option<u64>,
    payload: Range<usize>,
    elements: Vec<Range<usize>>,
    attachments: Vec<Bytes>,
}

impl Decoder {
    /// One that waits for nothing.
    pub const fn new() -> Self {
        Self { waiting: None }
    }

    /// Takes one message; a packet if it is complete. After an error the connection has to end.
    pub fn decode<'a>(
        &mut self,
        message: FrameRef<'a>,
        limits: &PacketLimits,
    ) -> Result<Option<Packet<'a>>, DecodeError> {
        match message {
            FrameRef::Text(_) if self.is_waiting() => Err(DecodeError::TextOutstanding),
            FrameRef::Text(text) => self.text(text, limits),
            FrameRef::Binary(bytes) => self.binary(bytes),
        }
    }

    /// Are attachments outstanding?
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    fn text<'a>(&mut self, text: &'a str, limits: &PacketLimits) -> Result<Option<Packet<'a>>, DecodeError> {
        let (packet, outstanding) = Packet::read(text, limits)?;
        if outstanding == 0 {
            return Ok(Some(packet));
        }
        let (packet, room) = (packet.into_owned(), limits.max_attachment_bytes);
        self.waiting = Some(Box::new(Waiting { packet, outstanding, room }));
        Ok(None)
    }

    fn binary(&mut self, bytes: &[u8]) -> Result<Option<Packet<'static>>, DecodeError> {
        let mut waiting = self.waiting.take().ok_or(DecodeError::BinaryUnexpected)?;
        waiting.room = waiting.room.checked_sub(bytes.len()).ok_or(DecodeError::AttachmentBytes)?;
        waiting.outstanding = waiting.outstanding.saturating_sub(1);
        waiting.packet.attachments.push(Bytes::copy_from_slice(bytes));
        if waiting.outstanding == 0 {
            return Ok(Some(waiting.packet));
        }
        self.waiting = Some(waiting);
        Ok(None)
    }
}

impl<'a> Packet<'a> {
    /// Reads the text of a packet. Also: how many attachments follow it.
    fn read(text: &'a str, limits: &PacketLimits) -> Result<(Self, usize), DecodeError> {
        let header = Header::read(text)?;
        let attachments = header.attachments.unwrap_or(0);
        if attachments > limits.max_attachments {
            return Err(DecodeError::Attachments);
        }
        if header.namespace.len() > limits.max_name {
            return Err(DecodeError::NameLength);
        }
        let mut packet = Self {
            text: Cow::Borrowed(text),
            kind: header.kind,
            namespace: header.namespace,
            ack: header.ack,
            payload: header.payload..text.len(),
            elements: Vec::new(),
            attachments: Vec::new(),
        };
        packet.read_payload(attachments, limits)?;
        Ok((packet, attachments))
    }

    fn read_payload(&mut self, attachments: usize, limits: &PacketLimits) -> Result<(), DecodeError> {
        match self.kind {
            PacketKind::Connect | PacketKind::Disconnect if self.payload.is_empty() => return Ok(()),
            PacketKind::Disconnect => return Err(DecodeError::Payload),
            PacketKind::Ack if self.ack.is_none() => return Err(DecodeError::AckId),
            PacketKind::Event | PacketKind::Ack if self.payload.is_empty() => {
                return Err(DecodeError::Payload);
            }
            PacketKind::Connect | PacketKind::Event | PacketKind::Ack => (),
        }
        let scan = json::scan(&self.text, self.payload.start, limits.max_depth, attachments > 0)?;
        let kind = if self.kind == PacketKind::Connect { Kind::Object } else { Kind::Array };
        if scan.kind != kind {
            return Err(DecodeError::Payload);
        }
        let index = |placeholder: &Placeholder| placeholder.num.as_ref()?.index;
        if !scan.placeholders.iter().all(|found| index(found).is_some_and(|index| index < attachments)) {
            return Err(DecodeError::Placeholder);
        }
        self.elements = scan.elements;
        if self.kind == PacketKind::Event { self.check_name(limits.max_name) } else { Ok(()) }
    }

    fn check_name(&self, max_name: usize) -> Result<(), DecodeError> {
        match self.name_text().as_bytes().first() {
            Some(b'"' | b'-' | b'0'..=b'9') => (),
            _ => return Err(DecodeError::Payload),
        }
        let name = self.name();
        if name.len() > max_name {
            return Err(DecodeError::NameLength);
        }
        if is_reserved(&name) { Err(DecodeError::ReservedName) } else { Ok(()) }
    }

    fn into_owned(self) -> Packet<'static> {
        Packet {
            text: Cow::Owned(self.text.into_owned()),
            kind: self.kind,
            namespace: self.namespace,
            ack: self.ack,
            payload: self.payload,
            elements: self.elements,
            attachments: self.attachments,
        }
    }
}

impl Packet<'_> {
    /// Its type.
    pub const fn kind(&self) -> PacketKind {
        self.kind
    }

    /// Its namespace, `/` if it names none.
    pub fn namespace(&self) -> &str {
        match self.text.get(self.namespace.clone()) {
            None | Some("") => "/",
            Some(namespace) => namespace,
        }
    }

    /// The ack id: of an event, if it asks for an ack; of an ack, always.
    pub const fn ack(&self) -> Option<u64> {
        self.ack
    }

    /// What a CONNECT carries: the text of a JSON object.
    pub fn auth(&self) -> Option<&str> {
        let auth = self.text.get(self.payload.clone())?;
        if self.kind == PacketKind::Connect && !auth.is_empty() { Some(auth) } else { None }
    }

    /// The event's name; a number is its spelling, a lone surrogate U+FFFD. Empty for other packets.
    pub fn name(&self) -> Cow<'_, str> {
        let text = self.name_text();
        if text.starts_with('"') { json::unescape(text) } else { Cow::Borrowed(text) }
    }

    /// The arguments of an event or an ack.
    pub fn args(&self) -> Args<'_> {
        let names = usize::from(self.kind == PacketKind::Event);
        let elements = self.elements.get(names..).unwrap_or_default();
        Args::new(&self.text, elements, &self.attachments)
    }

    /// The first element of an event, as JSON text.
    fn name_text(&self) -> &str {
        let first = self.elements.first().filter(|_| self.kind == PacketKind::Event);
        first.and_then(|name| self.text.get(name.clone())).unwrap_or_default()
    }
}

impl From<ScanError> for DecodeError {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Invalid => Self::Json,
            ScanError::Depth => Self::Depth,
        }
    }
}
