//! Socket.IO packets from the messages of one connection.

use std::borrow::Cow;
use std::ops::Range;

use bytes::Bytes;

use super::args::Args;
use super::error::DecodeError;
use crate::links::FrameRef;

/// What a packet may hold (SESSIONS.md 18).
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

#[derive(Debug)]
struct Waiting {}

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
        _message: FrameRef<'a>,
        _limits: &PacketLimits,
    ) -> Result<Option<Packet<'a>>, DecodeError> {
        todo!()
    }

    /// Are attachments outstanding?
    pub const fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }
}

impl Packet<'_> {
    /// Its type.
    pub const fn kind(&self) -> PacketKind {
        self.kind
    }

    /// Its namespace, `/` if it names none.
    pub fn namespace(&self) -> &str {
        todo!()
    }

    /// The ack id: of an event, if it asks for an ack; of an ack, always.
    pub const fn ack(&self) -> Option<u64> {
        self.ack
    }

    /// What a CONNECT carries: the text of a JSON object.
    pub fn auth(&self) -> Option<&str> {
        todo!()
    }

    /// The event's name; a number is its spelling, a lone surrogate U+FFFD. Empty for other packets.
    pub fn name(&self) -> Cow<'_, str> {
        todo!()
    }

    /// The arguments of an event or an ack.
    pub fn args(&self) -> Args<'_> {
        todo!()
    }
}
