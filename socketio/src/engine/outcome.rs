//! What goes into a session, and what comes out.

use std::borrow::Cow;
use std::time::Duration;

use super::config::EngineConfig;
use crate::links::{FrameRef, Links, RequestId};
use crate::reason::Reason;

/// What each call of a session gets.
pub struct Context<'a> {
    /// Since the start, monotonic.
    pub now: Duration,
    /// All input that had arrived by then has been handed over: `now`, unless the loop is behind. Nobody is ended for a silence
    /// that was not listened to.
    pub heard: Duration,
    /// The settings.
    pub config: &'a EngineConfig,
    /// The connections below.
    pub links: &'a mut dyn Links,
}

/// What an input led to. What it sends has been sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<'a> {
    /// Nothing for the layer above.
    Nothing,
    /// A packet without a meaning from a client (open, upgrade, noop): to be counted.
    Ignored,
    /// A message.
    Message(Message<'a>),
    /// The session is on WebSocket now: on the link that was the probe.
    Upgraded,
    /// The probe is closed; the session polls on.
    ProbeFailed,
    /// The session has ended. Said once, and never by a session that the layer above has closed.
    Ended(Reason),
}

/// A message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// Text, without the type.
    Text(&'a str),
    /// Binary; owned if it was base64.
    Binary(Cow<'a, [u8]>),
}

/// The body of a POST.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PostBody<'a> {
    /// All of it.
    Complete(&'a [u8]),
    /// It exceeded `max_payload` while it was read.
    TooLarge,
}

/// The packets of a POST that are still to be handled. See `Engine::next_packet`.
#[derive(Debug)]
pub struct PostPackets<'a> {
    pub(super) request: Option<RequestId>,
    pub(super) rest: Option<&'a str>,
}

impl Message<'_> {
    /// A view, for [`crate::packet::Decoder::decode`].
    pub fn borrow(&self) -> FrameRef<'_> {
        match self {
            Self::Text(text) => FrameRef::Text(text),
            Self::Binary(bytes) => FrameRef::Binary(bytes),
        }
    }
}
