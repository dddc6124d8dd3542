//! Bytes that the kernel refused, as chunks of whole frames. Frames describe themselves, so no list of messages is kept:
//! to drop what has not begun, or to count what is lost, the headers are walked.
//!
//! Of what a frame means only this is known here: a data frame is a message, and a newer Pong replaces an older one. What
//! waits for what is the outbox's business.

use std::{collections::VecDeque, io::IoSlice, sync::Arc};

use super::output::{Broken, BufferPool, broken, part};
use crate::{
    message::MessageKind,
    wire::header::{self, Header, Opcode},
};

/// Frames below this many bytes are joined in one chunk; above it a chunk is closed.
const CHUNK: usize = 64 << 10;
/// At most this many slices go into one `writev`.
pub(super) const MAX_SLICES: usize = 64;

/// What the header of a frame says besides its length and mask. An opcode alone is a frame without RSV1.
#[derive(Clone, Copy, Debug)]
pub(super) struct FrameHead {
    pub(super) opcode: Opcode,
    /// The payload is compressed (RFC 7692 §6).
    pub(super) rsv1: bool,
}

impl FrameHead {
    pub(super) const fn compressed(opcode: Opcode) -> Self {
        Self { opcode, rsv1: true }
    }
}

impl From<Opcode> for FrameHead {
    fn from(opcode: Opcode) -> Self {
        Self { opcode, rsv1: false }
    }
}

/// The opcode of a message of this kind.
pub(super) const fn opcode(kind: MessageKind) -> Opcode {
    match kind {
        MessageKind::Text => Opcode::Text,
        MessageKind::Binary => Opcode::Binary,
    }
}

/// What a piece of the backlog holds. However its bytes are owned or shared is its own business: all else asks for
/// [`Chunk::bytes`] and, for a payload, relies on its header being the end of the chunk before.
#[derive(Debug)]
enum Chunk {
    /// HTTP: not a message.
    Raw(Vec<u8>),
    /// Whole frames; the payload of the last one may be the next chunk.
    Frames(Vec<u8>),
    /// The payload of the frame whose header ends the chunk before.
    Payload(Body),
    /// One whole frame that several backlogs share.
    Shared(Arc<[u8]>),
    /// One Pong: replaced by a newer one as long as it is not begun.
    Pong(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Raw(bytes) | Self::Frames(bytes) | Self::Pong(bytes) => bytes,
            Self::Payload(body) => body.bytes(),
            Self::Shared(bytes) => bytes,
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
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Lent(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            #[cfg(feature = "bytes")]
            Self::Bytes(bytes) => bytes,
        }
    }

    /// The buffer, if it is not shared.
    fn into_buffer(self) -> Option<Vec<u8>> {
        match self {
            Self::Owned(bytes) => Some(bytes),
            Self::Lent(bytes) => Arc::into_inner(bytes),
            Self::Shared(_) => None,
            #[cfg(feature = "bytes")]
            Self::Bytes(_) => None,
        }
    }

    /// The same, masked.
    fn masked(self, key: [u8; 4]) -> Self {
        let mut bytes = match self {
            Self::Owned(bytes) => bytes,
            shared => shared.bytes().to_vec(),
        };
        crate::wire::mask::apply(&mut bytes, key, 0);
        Self::Owned(bytes)
    }
}

/// Messages that were dropped: whole ones, their payload, and whether one was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Dropped {
    pub(super) messages: u64,
    pub(super) bytes: u64,
    pub(super) partial: u64,
}

/// What the kernel would not take, oldest first.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    chunks: VecDeque<Chunk>,
    /// Bytes of the first chunk that are written.
    written: usize,
    /// All bytes that are not.
    len: usize,
    /// Chunks that have left the queue, so that `pong` can name one by its number.
    popped: u64,
    pong: Option<u64>,
}

impl Backlog {
    pub(super) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are not written.
    pub(super) const fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push_raw(&mut self, bytes: Vec<u8>) {
        self.len += bytes.len();
        self.chunks.push_back(Chunk::Raw(bytes));
    }

    /// Formats one frame after what is queued.
    pub(super) fn push_frame(&mut self, mask: Option<[u8; 4]>, head: impl Into<FrameHead>, payload: &[u8]) {
        let before = self.len;
        let tail = self.tail(payload.len());
        let start = tail.len();
        write_frame(tail, mask, head, payload);
        self.len = before + tail.len() - start;
    }

    /// Queues a frame whose payload is not copied.
    pub(super) fn push_owned(&mut self, mask: Option<[u8; 4]>, head: impl Into<FrameHead>, payload: Body) {
        let (head, len) = (head.into(), payload.bytes().len());
        if len < CHUNK / 4 {
            return self.push_frame(mask, head, payload.bytes());
        }
        let payload = match mask {
            Some(key) => payload.masked(key),
            None => payload,
        };
        let tail = self.tail(0);
        let start = tail.len();
        header::write(tail, true, head.rsv1, head.opcode, mask, len as u64);
        let added = tail.len() - start + len;
        self.chunks.push_back(Chunk::Payload(payload));
        self.len += added;
    }

    pub(super) fn push_shared(&mut self, frame: &Arc<[u8]>) {
        self.len += frame.len();
        self.chunks.push_back(Chunk::Shared(Arc::clone(frame)));
    }

    /// Queues the frame of a Pong, or replaces the one that is queued and not begun (§5.5.3).
    pub(super) fn push_pong(&mut self, frame: Vec<u8>) {
        let waiting = self.pong.and_then(|number| usize::try_from(number.checked_sub(self.popped)?).ok());
        let begun = waiting == Some(0) && self.written > 0;
        self.len += frame.len();
        if let Some(old) = waiting.filter(|_| !begun).and_then(|index| self.chunks.get_mut(index)) {
            self.len -= old.bytes().len();
            *old = Chunk::Pong(frame);
        } else {
            self.pong = Some(self.popped + self.chunks.len() as u64);
            self.chunks.push_back(Chunk::Pong(frame));
        }
        self.check();
    }

    /// Takes over what the kernel left of a range of the output buffer. `bytes` begins at a frame's first byte, and its
    /// first `skip` bytes are written. Of several Pongs only the newest stays, unless all are to be kept.
    pub(super) fn push_rest(&mut self, bytes: &[u8], skip: usize, keep_pongs: bool) -> Result<(), Broken> {
        let mut at = 0;
        while at < bytes.len() {
            let (opcode, length) = frame_at(part(bytes, at..)?)?;
            let end = at + length;
            let frame = part(bytes, at..end)?;
            if end <= skip {
                // Written.
            } else if at < skip {
                debug_assert!(self.chunks.is_empty(), "what is cut is the first");
                self.written = skip - at;
                self.len += end - skip;
                self.chunks.push_back(Chunk::Frames(frame.to_vec()));
            } else if opcode == Opcode::Pong && !keep_pongs {
                self.push_pong(frame.to_vec());
            } else {
                self.tail(frame.len()).extend_from_slice(frame);
                self.len += frame.len();
            }
            at = end;
        }
        self.check();
        Ok(())
    }

    /// From now on a newer Pong is queued after what is here, and no Pong that is here is replaced.
    pub(super) fn pin_pong(&mut self) {
        self.pong = None;
    }

    /// The chunk that takes `more` bytes of frames.
    fn tail(&mut self, more: usize) -> &mut Vec<u8> {
        let fits = matches!(self.chunks.back(), Some(Chunk::Frames(tail)) if tail.len() + more <= CHUNK);
        if !fits {
            self.chunks.push_back(Chunk::Frames(Vec::new()));
        }
        match self.chunks.back_mut() {
            Some(Chunk::Frames(tail)) => tail,
            _ => unreachable!("a chunk of frames was just found or pushed"),
        }
    }

    /// Fills `slices` with what is to be written next, `limit` bytes at most; returns how many it filled, and their bytes.
    pub(super) fn slices<'a>(
        &'a self,
        slices: &mut [IoSlice<'a>; MAX_SLICES],
        limit: usize,
    ) -> Result<(usize, usize), Broken> {
        let (mut count, mut offered) = (0, 0);
        for (place, chunk) in slices.iter_mut().zip(&self.chunks) {
            let bytes = chunk.bytes();
            let bytes = if count == 0 { part(bytes, self.written..)? } else { bytes };
            let bytes = bytes.get(..limit - offered).unwrap_or(bytes);
            *place = IoSlice::new(bytes);
            (count, offered) = (count + 1, offered + bytes.len());
            if offered == limit {
                break;
            }
        }
        Ok((count, offered))
    }

    /// The kernel took `n` bytes. Chunks that are written whole are freed, or kept in the pool.
    pub(super) fn advance(&mut self, n: usize, pool: &mut BufferPool) {
        debug_assert!(n <= self.len, "no more is taken than was offered");
        let mut left = n.min(self.len);
        self.len -= left;
        while let Some(front) = self.chunks.front() {
            let rest = front.bytes().len() - self.written;
            if left < rest {
                self.written += left;
                break;
            }
            left -= rest;
            if let Some(Chunk::Payload(written)) = self.pop()
                && let Some(buffer) = written.into_buffer()
            {
                pool.keep(buffer);
            }
        }
        self.check();
    }

    /// The sum is what it says.
    fn check(&self) {
        debug_assert_eq!(
            self.chunks.iter().map(|chunk| chunk.bytes().len()).sum::<usize>(),
            self.len + self.written,
            "all that is queued is counted"
        );
    }

    fn pop(&mut self) -> Option<Chunk> {
        self.written = 0;
        let chunk = self.chunks.pop_front()?;
        if self.pong == Some(self.popped) {
            self.pong = None;
        }
        self.popped += 1;
        Some(chunk)
    }

    /// Drops every data message and control frame that has not begun; the frame on the wire, and HTTP, stay.
    pub(super) fn drop_unbegun(&mut self) -> Result<Dropped, Broken> {
        self.split(true)
    }

    /// Drops everything, and counts it.
    pub(super) fn drop_all(&mut self) -> Result<Dropped, Broken> {
        let mut dropped = self.split(false)?;
        dropped.partial = u64::from(self.is_cut()?);
        *self = Self::default();
        Ok(dropped)
    }

    /// Whether a data frame has begun on the wire and is not finished. Asked when only what has begun is left.
    fn is_cut(&self) -> Result<bool, Broken> {
        Ok(match self.chunks.front() {
            Some(Chunk::Payload(_)) => true,
            Some(Chunk::Frames(frames)) => !frame_at(frames)?.0.is_control(),
            Some(Chunk::Raw(_) | Chunk::Shared(_) | Chunk::Pong(_)) | None => false,
        })
    }

    /// Walks all frames: keeps what has begun (as one chunk that starts with that frame), counts the others.
    fn split(&mut self, keep_raw: bool) -> Result<Dropped, Broken> {
        let mut dropped = Dropped::default();
        let mut kept = Self { popped: self.popped, ..Self::default() };
        let mut written = std::mem::take(&mut self.written);
        let mut chunks = std::mem::take(&mut self.chunks).into_iter();
        self.len = 0;
        while let Some(chunk) = chunks.next() {
            match chunk {
                Chunk::Raw(_) if !keep_raw => {}
                // A payload alone: its header is written, so it has begun.
                Chunk::Raw(_) | Chunk::Payload(_) => kept.keep(chunk, written),
                Chunk::Frames(_) | Chunk::Shared(_) | Chunk::Pong(_) => {
                    let bytes = chunk.bytes();
                    let mut at = 0;
                    while at < bytes.len() {
                        let frame = part(bytes, at..)?;
                        let (opcode, length) = frame_at(frame)?;
                        let here = length.min(frame.len());
                        let payload = if here < length { chunks.next() } else { None };
                        let end = at + here;
                        if at < written && (end > written || payload.is_some()) {
                            kept.keep(Chunk::Frames(part(frame, ..here)?.to_vec()), written - at);
                            if let Some(payload) = payload {
                                kept.keep(payload, 0);
                            }
                        } else if at >= written && !opcode.is_control() {
                            dropped.messages += 1;
                            dropped.bytes += payload_len(frame)?;
                        }
                        at = end;
                    }
                }
            }
            written = 0;
        }
        *self = kept;
        self.check();
        Ok(dropped)
    }

    /// Appends a chunk of which `written` bytes are written. Only the first chunk has such bytes.
    fn keep(&mut self, chunk: Chunk, written: usize) {
        debug_assert!(written == 0 || self.chunks.is_empty(), "what has begun is the first");
        self.written = self.written.max(written);
        self.len += chunk.bytes().len() - written;
        self.chunks.push_back(chunk);
    }
}

/// Appends one frame.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a third fewer instructions: what the caller knows falls out")]
pub(super) fn write_frame(
    out: &mut Vec<u8>,
    mask: Option<[u8; 4]>,
    head: impl Into<FrameHead>,
    payload: &[u8],
) {
    let FrameHead { opcode, rsv1 } = head.into();
    header::write(out, true, rsv1, opcode, mask, payload.len() as u64);
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(key), Some(payload)) = (mask, out.get_mut(start..)) {
        crate::wire::mask::apply(payload, key, 0);
    }
}

/// The opcode and whole length of the frame at the front of our own output.
fn frame_at(bytes: &[u8]) -> Result<(Opcode, usize), Broken> {
    let header = parse(bytes)?;
    let payload = usize::try_from(header.length).map_err(|_| broken())?;
    Ok((header.opcode, header.header_length.checked_add(payload).ok_or_else(broken)?))
}

fn payload_len(frame: &[u8]) -> Result<u64, Broken> {
    Ok(parse(frame)?.length)
}

fn parse(bytes: &[u8]) -> Result<Header, Broken> {
    header::parse(bytes).ok().flatten().ok_or_else(broken)
}

/// Counts the messages of a range of the output buffer that is dropped before any of it was written.
pub(super) fn count(mut bytes: &[u8]) -> Result<Dropped, Broken> {
    let mut dropped = Dropped::default();
    while !bytes.is_empty() {
        let (opcode, length) = frame_at(bytes)?;
        if !opcode.is_control() {
            dropped.messages += 1;
            dropped.bytes += payload_len(bytes)?;
        }
        bytes = part(bytes, length..)?;
    }
    Ok(dropped)
}
