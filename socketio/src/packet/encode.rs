//! Socket.IO packets for clients, as frames of Engine.IO messages.

use std::ops::Deref;
use std::sync::Arc;

use bytes::Bytes;

use super::args::ToArgs;
use super::error::{DecodeError, EncodeError};
use crate::links::Frame;
use crate::offset::Offset;

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
    pub fn new(_namespace: &str, _name: &str, _args: &(impl ToArgs + ?Sized)) -> Result<Self, EncodeError> {
        todo!()
    }

    /// One that a log has kept: what [`Event::packet`] and [`Event::attachments`] gave.
    pub fn from_packet(_packet: &str, _attachments: Arc<[Bytes]>) -> Result<Self, DecodeError> {
        todo!()
    }

    /// The packet, without offset and ack id.
    pub fn packet(&self) -> &str {
        self.text.get(1..).unwrap_or_default()
    }

    /// Its attachments.
    pub const fn attachments(&self) -> &Arc<[Bytes]> {
        &self.attachments
    }

    /// Bytes of the text and of all attachments.
    pub fn size(&self) -> usize {
        self.text.len() + self.attachments.iter().map(Bytes::len).sum::<usize>()
    }

    /// Would a client take its last element for an offset (SESSIONS.md 12)?
    pub const fn ends_in_string(&self) -> bool {
        self.ends_in_string
    }

    /// As it is.
    pub fn frames(&self) -> Frames {
        todo!()
    }

    /// With `offset` as one more element.
    pub fn frames_with_offset(&self, _offset: Offset) -> Frames {
        todo!()
    }

    /// Asking for an ack.
    pub fn frames_with_ack(&self, _id: u64) -> Frames {
        todo!()
    }
}

/// `0{"sid":..}`, with `pid` if there is one.
pub fn connect(_namespace: &str, _sid: &str, _pid: Option<&str>) -> Frame {
    todo!()
}

/// `4{"message":..}`; `data` is JSON text.
pub fn connect_error(_namespace: &str, _message: &str, _data: Option<&str>) -> Frame {
    todo!()
}

/// `1`.
pub fn disconnect(_namespace: &str) -> Frame {
    todo!()
}

/// The answer to the event with that ack id.
pub fn ack(_namespace: &str, _id: u64, _args: &(impl ToArgs + ?Sized)) -> Result<Frames, EncodeError> {
    todo!()
}

/// Names that neither side may give to an event.
pub fn is_reserved(name: &str) -> bool {
    matches!(
        name,
        "connect" | "connect_error" | "disconnect" | "disconnecting" | "newListener" | "removeListener"
    )
}
