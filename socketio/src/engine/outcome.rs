//! Arguments and results of the calls of a session.

use std::borrow::Cow;
use std::time::Duration;

use super::config::EngineConfig;
use crate::links::{FrameRef, Links, RequestId};
use crate::reason::Reason;

/// The environment of a call.
pub struct Context<'a> {
    /// Monotonic time since the start of the process.
    pub now: Duration,
    /// The settings.
    pub config: &'a EngineConfig,
    /// The connections that output is sent to.
    pub links: &'a mut dyn Links,
}

/// The result of an input, for the layer above. Output was sent through [`Links`] during the call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Nothing to report.
    Nothing,
    /// A packet that has no meaning from a client (open, upgrade, noop). The core counts it.
    Ignored,
    /// A message.
    Message(Message<'a>),
    /// The session has moved to WebSocket, onto the link of the probe.
    Upgraded,
    /// The probe was closed; the session stays on polling.
    ProbeFailed,
    /// The session has ended. Reported once; not reported if the layer above ended it.
    Ended(Reason),
}

/// A message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text, without the packet type.
    Text(&'a str),
    /// Binary; owned if it was base64.
    Binary(Cow<'a, [u8]>),
}

/// The body of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostBody<'a> {
    /// The whole body.
    Complete(&'a [u8]),
    /// It exceeded `max_payload` while it was read.
    TooLarge,
}

/// The packets of a POST that are not handled yet: see [`super::Engine::next_packet`].
#[derive(Debug)]
pub struct PostPackets<'a> {
    pub(super) request: Option<RequestId>,
    pub(super) rest: Option<&'a str>,
}

impl Message<'_> {
    /// Borrows it for [`crate::packet::Decoder::decode`].
    pub fn borrow(&self) -> FrameRef<'_> {
        match self {
            Self::Text(text) => FrameRef::Text(text),
            Self::Binary(bytes) => FrameRef::Binary(bytes),
        }
    }
}
