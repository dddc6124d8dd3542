//! What the layer asks of the connections below it. Vocabulary between `core`, `engine` and `driver`; depends on nothing.
//!
//! A *link* is one WebSocket connection, a *request* one HTTP request that waits for its answer. The driver implements
//! [`Links`] over adjourn's `Clients` and the HTTP thread, the simulation over queues in virtual time.

use std::sync::Arc;

use bytes::Bytes;

/// One WebSocket connection below; the driver gives them out and never uses one twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// One HTTP request that waits for its answer; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// One WebSocket message, or one Engine.IO packet of a polling payload. Clones share the bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// UTF-8: built from `str` only, see [`Frame::text`].
    Text(Utf8),
    /// Binary.
    Binary(Bytes),
}

/// Text that is shared. It is valid by construction, so that no send looks for that again.
#[derive(Clone, Debug)]
pub struct Utf8(Shared);

#[derive(Clone, Debug)]
enum Shared {
    Static(&'static str),
    Counted(Arc<String>),
}

/// A message as it arrives: a view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameRef<'a> {
    /// Text.
    Text(&'a str),
    /// Binary.
    Binary(&'a [u8]),
}

impl FrameRef<'_> {
    /// Bytes.
    pub const fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Has it none?
    pub const fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// How the layer ends a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkClose {
    /// An empty Close after what is queued; `quick`: at most 2 s, then the abort (specification 5).
    Empty {
        /// At most 2 s for it.
        quick: bool,
    },
    /// Close 1013, the queue dropped; at most 2 s, as `quick`.
    SlowConsumer,
    /// No Close frame: the TCP connection ends at once.
    Cut,
}

/// The link does not take the frames: nothing of them was queued.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendRefused {
    /// The send queue has no room for all of them.
    Full,
    /// The link is closing, or gone.
    Gone,
}

/// The answer to a polling request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// 200, 204, 400, 403, 413, 503.
    pub status: u16,
    /// `Content-Type`; none without a body.
    pub content_type: Option<&'static str>,
    /// The body.
    pub body: Bytes,
    /// Close the HTTP connection after it.
    pub close: bool,
}

/// The connections below, as the core sees them. No call calls back.
pub trait Links {
    /// Queues all frames, or none.
    fn send(&mut self, link: LinkId, frames: &[Frame]) -> Result<(), SendRefused>;
    /// The same for many links: frames are encoded once. Those that did not take them are pushed to `refused`.
    fn send_to(&mut self, links: &[LinkId], frames: &[Frame], refused: &mut Vec<(LinkId, SendRefused)>);
    /// Bytes queued that the kernel has not taken. After an answer above 0, `drained` follows when it is 0.
    fn unsent(&mut self, link: LinkId) -> usize;
    /// Ends the link; a second call changes nothing.
    fn close(&mut self, link: LinkId, how: LinkClose);
    /// Answers a request; one that is gone is ignored.
    fn respond(&mut self, request: RequestId, response: Response);
    /// Ends the connection of a request without an answer; one that is gone is ignored.
    fn abort(&mut self, request: RequestId);
}

impl Frame {
    /// A text frame.
    pub fn text(text: impl Into<String>) -> Self {
        Self::Text(Utf8(Shared::Counted(Arc::new(text.into()))))
    }

    /// A text frame that costs no allocation.
    pub fn from_static(text: &'static str) -> Self {
        Self::Text(Utf8(Shared::Static(text)))
    }

    /// The payload's length in bytes.
    pub fn len(&self) -> usize {
        match self {
            Self::Text(text) => text.as_str().len(),
            Self::Binary(bytes) => bytes.len(),
        }
    }

    /// Is the payload empty?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// A view of it.
    pub fn borrow(&self) -> FrameRef<'_> {
        match self {
            Self::Text(text) => FrameRef::Text(text.as_str()),
            Self::Binary(bytes) => FrameRef::Binary(bytes),
        }
    }
}

impl Utf8 {
    /// The text.
    pub fn as_str(&self) -> &str {
        match &self.0 {
            Shared::Static(text) => text,
            Shared::Counted(text) => text,
        }
    }
}

impl PartialEq for Utf8 {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Utf8 {}
