//! The parts of a backlog: how their bytes are owned or shared. What is queued after what is the backlog's business.

use std::sync::Arc;

use super::{
    backlogs::{Backlogs, Piece},
    broken::Broken,
    segment::Segment,
};

/// A part of the backlog. However its bytes are owned or shared is its own business: all else asks for [`Chunk::bytes`]
/// and, for a payload, relies on its header being the end of the chunk before.
#[derive(Debug)]
pub(super) enum Chunk {
    /// HTTP: not a message.
    Raw(Vec<u8>),
    /// Whole frames; the payload of the last one may be the next chunk.
    Frames(Vec<u8>),
    /// The same in a segment.
    Segment(Segment),
    /// The payload of the frame whose header ends the chunk before.
    Payload(Body),
    /// Whole frames that several backlogs share.
    Shared(Piece),
    /// One Pong: replaced by a newer one as long as it is not begun.
    Pong(Vec<u8>),
}

impl Chunk {
    pub(super) fn bytes<'a>(&'a self, backlogs: &'a Backlogs) -> Result<&'a [u8], Broken> {
        match self {
            Self::Raw(bytes) | Self::Frames(bytes) | Self::Pong(bytes) => Ok(bytes),
            Self::Segment(segment) => Ok(segment.bytes()),
            Self::Payload(body) => Ok(body.bytes()),
            Self::Shared(piece) => backlogs.bytes(*piece),
        }
    }

    pub(super) fn len(&self) -> usize {
        match self {
            Self::Raw(bytes) | Self::Frames(bytes) | Self::Pong(bytes) => bytes.len(),
            Self::Segment(segment) => segment.bytes().len(),
            Self::Payload(body) => body.bytes().len(),
            Self::Shared(piece) => piece.len(),
        }
    }

    /// Bytes that no other backlog has.
    pub(super) fn owned(&self) -> usize {
        if matches!(self, Self::Shared(_)) { 0 } else { self.len() }
    }

    /// It is dropped.
    pub(super) fn release(self, backlogs: &mut Backlogs) {
        match self {
            Self::Shared(piece) => backlogs.release(piece),
            Self::Segment(segment) => backlogs.take_back(segment),
            Self::Raw(_) | Self::Frames(_) | Self::Payload(_) | Self::Pong(_) => {}
        }
    }
}

/// A payload in a buffer of its own, which is queued as it is.
#[derive(Debug)]
pub(super) enum Body {
    Owned(Vec<u8>),
    /// A message that came in and is sent on.
    Lent(Arc<Vec<u8>>),
    Shared(Arc<[u8]>),
    #[cfg(feature = "bytes")]
    Bytes(bytes::Bytes),
}

impl Body {
    pub(super) fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Lent(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            #[cfg(feature = "bytes")]
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The buffer, if it is not shared.
    pub(super) fn into_buffer(self) -> Option<Vec<u8>> {
        match self {
            Self::Owned(bytes) => Some(bytes),
            Self::Lent(bytes) => Arc::into_inner(bytes),
            Self::Shared(_) => None,
            #[cfg(feature = "bytes")]
            Self::Bytes(_) => None,
        }
    }

    /// The same, masked.
    pub(super) fn masked(self, key: [u8; 4]) -> Self {
        let mut bytes = match self {
            Self::Owned(bytes) => bytes,
            shared => shared.bytes().to_vec(),
        };
        crate::wire::mask::apply(&mut bytes, key, 0);
        Self::Owned(bytes)
    }
}
