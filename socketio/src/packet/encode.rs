//! Socket.IO packets for clients, as frames of Engine.IO messages.

use std::fmt::Write;
use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;

use super::args::{ArgsEncoder, ToArgs, Written};
use super::engine_packet::encoded_len;
use super::error::{DecodeError, EncodeError};
use super::header::{Header, PacketKind, is_reserved};
use super::json;
use crate::links::Frame;
use crate::offset::Offset;

/// Most bytes of an event's name.
const MAX_NAME: usize = 1024;

/// Bytes that a packet begins with room for, so that a small one is not moved while it is written.
const USUAL: usize = 192;

/// At least the bytes of an offset as an element (three numbers of 20 digits), and of an ack id.
const OFFSET: usize = 66;

/// At least the bytes of a WebSocket frame's header, or of what separates packets in a polling response.
const HEADERS: usize = 12;

/// The frames of one packet: the text, then its attachments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frames {
    /// Without attachments.
    One([Frame; 1]),
    /// With some.
    Many(Vec<Frame>),
}

impl Deref for Frames {
    type Target = [Frame];

    fn deref(&self) -> &[Frame] {
        match self {
            Self::One(frame) => frame,
            Self::Many(frames) => frames,
        }
    }
}

/// An event, encoded once for all its receivers, the log included. Its variants (with an offset, with an ack id) cost a copy of the text each.
#[derive(Clone, Debug)]
pub struct Event {
    /// `4` and the packet.
    text: String,
    /// Where the array begins in `text`.
    array: usize,
    ends_in_string: bool,
    attachments: Arc<[Bytes]>,
}

impl Event {
    /// Encodes an event.
    pub fn new(namespace: &str, name: &str, args: &(impl ToArgs + ?Sized)) -> Result<Self, EncodeError> {
        if is_reserved(name) {
            return Err(EncodeError::ReservedName(name.to_owned()));
        }
        if name.len() > MAX_NAME {
            return Err(EncodeError::NameLength { length: name.len(), limit: MAX_NAME });
        }
        let mut text = header("42", namespace);
        let array = text.len();
        text.push('[');
        text.push_str(&json::quoted(name));
        let mut out = ArgsEncoder::new(text);
        args.to_args(&mut out)?;
        let Written { text, elements, attachments } = out.finish()?;
        let ends_in_string = ends_in_string(&text, &elements);
        let (text, array) = with_count(text, array, attachments.len());
        Ok(Self { text, array, ends_in_string, attachments: attachments.into() })
    }

    /// One that a log has kept: what [`Event::packet`] and [`Event::attachments`] gave.
    pub fn from_packet(packet: &str, attachments: Arc<[Bytes]>) -> Result<Self, DecodeError> {
        let header = Header::read(packet)?;
        let scan = json::scan(packet, header.payload, usize::MAX, false)?;
        if header.kind != PacketKind::Event || header.ack.is_some() || scan.elements.is_empty() {
            return Err(DecodeError::Payload);
        }
        if header.attachments.unwrap_or(0) != attachments.len() {
            return Err(DecodeError::Attachments);
        }
        Ok(Self {
            text: format!("4{packet}"),
            array: header.payload + 1,
            ends_in_string: ends_in_string(packet, &scan.elements),
            attachments,
        })
    }

    /// The packet, without offset and ack id.
    pub fn packet(&self) -> &str {
        self.text.get(1..).unwrap_or_default()
    }

    /// Its name and arguments: a JSON array, with placeholders for attachments.
    pub fn array(&self) -> &str {
        self.text.get(self.array..).unwrap_or_default()
    }

    /// Its attachments.
    pub const fn attachments(&self) -> &Arc<[Bytes]> {
        &self.attachments
    }

    /// Bytes of the text and of all attachments.
    pub fn size(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// Is it too large for a send queue of `limit` bytes, by [`queued_size`]?
    pub fn check_size(&self, limit: usize) -> Result<(), EncodeError> {
        let size = queued_size(&self.text, &self.attachments);
        if size > limit { Err(EncodeError::TooLarge { size, limit }) } else { Ok(()) }
    }

    /// Would a client take its last element for an offset (specification 12)?
    pub const fn ends_in_string(&self) -> bool {
        self.ends_in_string
    }

    /// As it is: a copy of the text.
    pub fn frames(&self) -> Frames {
        frames(self.text.clone(), &self.attachments)
    }

    /// As it is, for a single receiver: without a copy.
    pub fn into_frames(self) -> Frames {
        frames(self.text, &self.attachments)
    }

    /// With `offset` as one more element.
    pub fn frames_with_offset(&self, offset: Offset) -> Frames {
        let open = self.text.strip_suffix(']').unwrap_or(&self.text);
        frames(format!("{open},\"{offset}\"]"), &self.attachments)
    }

    /// Asking for an ack.
    pub fn frames_with_ack(&self, id: u64) -> Frames {
        let (header, array) = self.text.split_at_checked(self.array).unwrap_or((&self.text, ""));
        frames(format!("{header}{id}{array}"), &self.attachments)
    }
}

/// The most that an event takes in a send queue, whatever the transport: with an offset or an ack id, with the headers of its
/// messages, and attachments as base64.
pub fn queued_size(packet: &str, attachments: &[Bytes]) -> usize {
    let attachments = attachments.iter().map(|bytes| bytes.len().div_ceil(3).saturating_mul(4) + HEADERS);
    attachments.fold(packet.len() + OFFSET + HEADERS, usize::saturating_add)
}

/// The same of frames as they are.
pub fn queued_frames(frames: &[Frame]) -> usize {
    frames.iter().map(|frame| encoded_len(frame) + HEADERS).fold(0, usize::saturating_add)
}

/// `0{"sid":..}`, with `pid` if there is one.
pub fn connect(namespace: &str, sid: &str, pid: Option<&str>) -> Frame {
    let mut text = header("40", namespace);
    text.push_str("{\"sid\":");
    text.push_str(&json::quoted(sid));
    if let Some(pid) = pid {
        text.push_str(",\"pid\":");
        text.push_str(&json::quoted(pid));
    }
    text.push('}');
    Frame::text(text)
}

/// `4{"message":..}`; `data` is JSON text.
pub fn connect_error(namespace: &str, message: &str, data: Option<&str>) -> Frame {
    let mut text = header("44", namespace);
    text.push_str("{\"message\":");
    text.push_str(&json::quoted(message));
    if let Some(data) = data {
        text.push_str(",\"data\":");
        text.push_str(data);
    }
    text.push('}');
    Frame::text(text)
}

/// `1`.
pub fn disconnect(namespace: &str) -> Frame {
    Frame::text(header("41", namespace))
}

/// The answer to the event with that ack id.
pub fn ack(namespace: &str, id: u64, args: &(impl ToArgs + ?Sized)) -> Result<Frames, EncodeError> {
    let mut text = header("43", namespace);
    write!(text, "{id}").expect("memory");
    let array = text.len();
    text.push('[');
    let mut out = ArgsEncoder::new(text);
    args.to_args(&mut out)?;
    let Written { text, attachments, .. } = out.finish()?;
    Ok(frames(with_count(text, array, attachments.len()).0, &attachments))
}

/// The types of message and packet, and the namespace unless it is `/`.
fn header(types: &str, namespace: &str) -> String {
    let mut text = String::with_capacity(USUAL + namespace.len());
    text.push_str(types);
    if namespace != "/" {
        text.push_str(namespace);
        text.push(',');
    }
    text
}

/// `2` and `3` become `5n-` and `6n-` if there are attachments; also where the array begins then.
fn with_count(text: String, array: usize, attachments: usize) -> (String, usize) {
    if attachments == 0 {
        return (text, array);
    }
    let types = if text.starts_with("42") { "45" } else { "46" };
    let rest = text.get(2..).unwrap_or_default();
    let written = format!("{types}{attachments}-{rest}");
    let array = array + (written.len() - text.len());
    (written, array)
}

/// Is the last element of the array a string? Without arguments that is the event's name.
fn ends_in_string(text: &str, elements: &[Range<usize>]) -> bool {
    elements.last().is_none_or(|last| text.get(last.clone()).is_some_and(|last| last.starts_with('"')))
}

fn frames(text: String, attachments: &[Bytes]) -> Frames {
    let text = Frame::text(text);
    if attachments.is_empty() {
        return Frames::One([text]);
    }
    let binary = attachments.iter().map(|bytes| Frame::Binary(bytes.clone()));
    Frames::Many(std::iter::once(text).chain(binary).collect())
}
