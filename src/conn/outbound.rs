//! Messages -> frames; the backlog; what "full" means.
//!
//! What a connection is told during a turn goes into the loop's one [`Cork`], and the connection remembers only which
//! range of it is its own: a burst leaves in one write, and a broadcast is one range that many share. What the kernel
//! would not take moves into the connection's [`Backlog`].
//!
//! A backlog is a queue of chunks of whole frames. Frames describe themselves, so no list of messages is kept: to
//! drop what has not begun, or to count what is lost, the headers are walked.

use std::{collections::VecDeque, io::IoSlice, rc::Rc};

use crate::wire::{
    header::{self, Opcode},
    keys::MaskKeys,
};

/// Frames below this many bytes are joined in one chunk; above it a chunk is closed.
const CHUNK: usize = 64 << 10;
/// At most this many slices go into one `writev`.
pub(crate) const MAX_SLICES: usize = 64;

/// The loop's one output buffer: all that was formatted in this turn and not yet written or moved to a backlog.
#[derive(Debug)]
pub(crate) struct Cork {
    pub(crate) bytes: Vec<u8>,
    /// Connections that own a range of it.
    users: usize,
    pub(crate) spares: Spares,
    /// What frames in the client's role are masked with.
    pub(crate) keys: MaskKeys,
}

impl Cork {
    /// More than this is moved to the owner's backlog rather than grow the cork.
    const FULL: usize = 256 << 10;
    /// Capacity that is kept when the cork is empty.
    const KEPT: usize = 1 << 20;

    pub(crate) const fn new(keys: MaskKeys) -> Self {
        Self { bytes: Vec::new(), users: 0, spares: Spares(Vec::new()), keys }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.bytes.len() > Self::FULL
    }

    /// Keeps what is there although nobody owns it yet; ends with [`Cork::let_go`].
    pub(crate) fn hold(&mut self) {
        self.acquire();
    }

    pub(crate) fn let_go(&mut self) {
        self.release();
    }

    fn acquire(&mut self) {
        self.users += 1;
    }

    fn release(&mut self) {
        self.users -= 1;
        if self.users == 0 {
            self.bytes.clear();
            if self.bytes.capacity() > Self::KEPT {
                self.bytes.shrink_to(Self::KEPT);
            }
        }
    }
}

/// Buffers of large messages that were written, kept for the next ones. An allocator gives such pieces back to the system,
/// and then every page of a new one is a fault: a fifth of the time of a message of 1 MiB.
#[derive(Debug, Default)]
pub(crate) struct Spares(Vec<Vec<u8>>);

impl Spares {
    /// A smaller buffer is not worth it.
    const WORTH: usize = 128 << 10;
    /// Bytes that are kept, at most.
    const KEPT: usize = 8 << 20;

    fn keep(&mut self, mut buffer: Vec<u8>) {
        let kept: usize = self.0.iter().map(Vec::capacity).sum();
        if buffer.capacity() >= Self::WORTH && kept + buffer.capacity() <= Self::KEPT {
            buffer.clear();
            self.0.push(buffer);
        }
    }

    /// Puts a message that has begun to arrive into a spare buffer, if there is one. Copies what is there.
    pub(crate) fn lend(&mut self, message: &mut Vec<u8>) {
        if message.capacity() < Self::WORTH
            && let Some(mut spare) = self.0.pop()
        {
            spare.extend_from_slice(message);
            *message = spare;
        }
    }
}

/// A connection's range of the cork. Empty = none.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Corked {
    start: u32,
    end: u32,
}

impl Corked {
    pub(crate) const fn is_empty(self) -> bool {
        self.start == self.end
    }

    pub(crate) const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    pub(crate) fn bytes(self, cork: &Cork) -> &[u8] {
        cork.bytes.get(self.start as usize..self.end as usize).unwrap_or_default()
    }

    /// Adds `start..end` of the cork if it follows what is there; says whether it did.
    pub(crate) fn extend(&mut self, cork: &mut Cork, start: usize, end: usize) -> bool {
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { return false };
        if self.is_empty() {
            cork.acquire();
            *self = Self { start, end };
            return true;
        }
        let follows = self.end == start;
        if follows {
            self.end = end;
        }
        follows
    }

    /// Whether something appended to the cork now would follow.
    pub(crate) fn reaches_end(self, cork: &Cork) -> bool {
        self.is_empty() || self.end as usize == cork.bytes.len()
    }

    /// Forgets the range: it is written, or moved elsewhere.
    pub(crate) fn clear(&mut self, cork: &mut Cork) {
        if !self.is_empty() {
            *self = Self::default();
            cork.release();
        }
    }
}

/// What the header of a frame says besides its length and mask. An opcode alone is a frame without RSV1.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head {
    pub(crate) opcode: Opcode,
    /// The payload is compressed (RFC 7692 §6).
    pub(crate) rsv1: bool,
}

impl Head {
    pub(crate) const fn compressed(opcode: Opcode) -> Self {
        Self { opcode, rsv1: true }
    }
}

impl From<Opcode> for Head {
    fn from(opcode: Opcode) -> Self {
        Self { opcode, rsv1: false }
    }
}

/// What a piece of the backlog holds.
#[derive(Debug)]
enum Chunk {
    /// HTTP: not a message.
    Raw(Vec<u8>),
    /// Whole frames; the payload of the last one may be the next chunk.
    Frames(Vec<u8>),
    /// The payload of the frame whose header ends the chunk before.
    Payload(Vec<u8>),
    /// One whole frame that several backlogs share.
    Shared(Rc<[u8]>),
    /// One Pong: replaced by a newer one as long as it is not begun.
    Pong(Vec<u8>),
}

impl Chunk {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Raw(bytes) | Self::Frames(bytes) | Self::Payload(bytes) | Self::Pong(bytes) => bytes,
            Self::Shared(bytes) => bytes,
        }
    }
}

/// Messages that were dropped: whole ones, their payload, and whether one was cut.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Dropped {
    pub(crate) messages: u64,
    pub(crate) bytes: u64,
    pub(crate) partial: u64,
}

/// What the kernel would not take, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
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
    pub(crate) const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes that are not written.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn push_raw(&mut self, bytes: Vec<u8>) {
        self.len += bytes.len();
        self.chunks.push_back(Chunk::Raw(bytes));
    }

    /// Formats one frame behind what is queued.
    pub(crate) fn push_frame(&mut self, mask: Option<[u8; 4]>, head: impl Into<Head>, payload: &[u8]) {
        let before = self.len;
        let tail = self.tail(payload.len());
        let start = tail.len();
        write_frame(tail, mask, head, payload);
        self.len = before + tail.len() - start;
    }

    /// Queues a frame whose payload is not copied.
    pub(crate) fn push_owned(&mut self, mask: Option<[u8; 4]>, head: impl Into<Head>, mut payload: Vec<u8>) {
        let head = head.into();
        if payload.len() < CHUNK / 4 {
            return self.push_frame(mask, head, &payload);
        }
        if let Some(key) = mask {
            crate::wire::mask::apply(&mut payload, key, 0);
        }
        let tail = self.tail(0);
        let start = tail.len();
        header::write(tail, true, head.rsv1, head.opcode, mask, payload.len() as u64);
        let added = tail.len() - start + payload.len();
        self.chunks.push_back(Chunk::Payload(payload));
        self.len += added;
    }

    pub(crate) fn push_shared(&mut self, frame: &Rc<[u8]>) {
        self.len += frame.len();
        self.chunks.push_back(Chunk::Shared(Rc::clone(frame)));
    }

    /// Queues a Pong, or replaces the one that is queued and not begun.
    pub(crate) fn push_pong(&mut self, mask: Option<[u8; 4]>, payload: &[u8]) {
        let mut frame = Vec::with_capacity(header::frame_length(payload.len(), mask.is_some()));
        write_frame(&mut frame, mask, Opcode::Pong, payload);
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
    }

    /// Takes over what the kernel left of a range of the cork. `bytes` begins `skip` bytes before what is left, at
    /// a frame's first byte; of several Pongs only the newest stays.
    /// With `keep_pongs` all stay: a Close of ours has its place counted, and nothing in front of it may change size.
    pub(crate) fn push_rest(&mut self, bytes: &[u8], skip: usize, keep_pongs: bool) {
        if skip >= bytes.len() {
            return;
        }
        let mut at = 0;
        while let Some(rest) = bytes.get(at..).filter(|rest| !rest.is_empty()) {
            let Some((opcode, length)) = frame_at(rest) else { break };
            let frame = rest.get(..length).unwrap_or(rest);
            let end = at + frame.len();
            if end > skip {
                if at < skip {
                    self.written = skip - at;
                    self.len += end - skip;
                    self.chunks.push_back(Chunk::Frames(frame.to_vec()));
                } else if opcode == Opcode::Pong && !keep_pongs {
                    self.push_pong_frame(frame);
                } else {
                    self.tail(frame.len()).extend_from_slice(frame);
                    self.len += frame.len();
                }
            }
            at = end;
        }
    }

    /// A Close of ours, or a Pong of its own, is queued now: a newer Pong goes behind it, and leaves the one in front
    /// of it alone.
    pub(crate) fn pin_pong(&mut self) {
        self.pong = None;
    }

    fn push_pong_frame(&mut self, frame: &[u8]) {
        if let Ok(Some(parsed)) = header::parse(frame) {
            let mut payload = frame.get(parsed.header_length..).unwrap_or_default().to_vec();
            if let Some(key) = parsed.mask {
                crate::wire::mask::apply(&mut payload, key, 0);
            }
            self.push_pong(parsed.mask, &payload);
        }
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

    /// Fills `slices` with what is to be written next, `limit` bytes at most. Returns how many it filled, and their bytes.
    pub(crate) fn slices<'a>(
        &'a self,
        limit: usize,
        slices: &mut [IoSlice<'a>; MAX_SLICES],
    ) -> (usize, usize) {
        let (mut count, mut total) = (0, 0);
        for (slot, chunk) in slices.iter_mut().zip(&self.chunks) {
            let bytes = chunk.bytes();
            let bytes = if count == 0 { bytes.get(self.written..).unwrap_or_default() } else { bytes };
            let bytes = bytes.get(..limit - total).unwrap_or(bytes);
            *slot = IoSlice::new(bytes);
            (count, total) = (count + 1, total + bytes.len());
            if total == limit {
                break;
            }
        }
        (count, total)
    }

    /// The kernel took `n` bytes. Chunks that are written whole are freed.
    pub(crate) fn advance(&mut self, n: usize, spares: &mut Spares) {
        let mut left = n.min(self.len);
        self.len -= left;
        while let Some(front) = self.chunks.front() {
            let rest = front.bytes().len() - self.written;
            if left < rest {
                self.written += left;
                return;
            }
            left -= rest;
            if let Some(Chunk::Payload(written)) = self.pop() {
                spares.keep(written);
            }
        }
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

    /// Drops every data message and Pong that has not begun; the frame on the wire, and HTTP, stay. A Close that was
    /// queued goes too: the caller queues it anew.
    pub(crate) fn drop_unbegun(&mut self) -> Dropped {
        self.split(true)
    }

    /// Drops everything, and counts it.
    pub(crate) fn drop_all(&mut self) -> Dropped {
        let mut dropped = self.split(false);
        dropped.partial = u64::from(self.cut());
        *self = Self::default();
        dropped
    }

    /// Whether a data frame has begun on the wire and is not finished. Asked when only what has begun is left.
    fn cut(&self) -> bool {
        match self.chunks.front() {
            Some(Chunk::Payload(_)) => true,
            Some(Chunk::Frames(frames)) => frame_at(frames).is_some_and(|(opcode, _)| !opcode.is_control()),
            Some(Chunk::Raw(_) | Chunk::Shared(_) | Chunk::Pong(_)) | None => false,
        }
    }

    /// Walks all frames: keeps what has begun (as one chunk that starts with that frame), counts the others.
    fn split(&mut self, keep_raw: bool) -> Dropped {
        let mut dropped = Dropped::default();
        let mut kept = Self { popped: self.popped, ..Self::default() };
        let mut written = self.written;
        let mut chunks = std::mem::take(&mut self.chunks).into_iter();
        while let Some(chunk) = chunks.next() {
            match chunk {
                Chunk::Raw(bytes) => {
                    if keep_raw {
                        kept.len += bytes.len() - written;
                        kept.written = written;
                        kept.chunks.push_back(Chunk::Raw(bytes));
                    }
                }
                Chunk::Payload(payload) => {
                    // Its header is written: it has begun.
                    kept.len += payload.len() - written;
                    kept.written = written;
                    kept.chunks.push_back(Chunk::Payload(payload));
                }
                Chunk::Frames(_) | Chunk::Shared(_) | Chunk::Pong(_) => {
                    let bytes = chunk.bytes();
                    let mut at = 0;
                    while let Some((opcode, length)) = bytes.get(at..).and_then(frame_at) {
                        let here = length.min(bytes.len() - at);
                        let payload = if here < length { chunks.next() } else { None };
                        let end = at + here;
                        if end <= written && payload.is_none() {
                            at = end;
                            continue;
                        }
                        if at < written {
                            kept.written = written - at;
                            kept.len += end - written;
                            kept.chunks
                                .push_back(Chunk::Frames(bytes.get(at..end).unwrap_or_default().to_vec()));
                            if let Some(payload) = payload {
                                kept.len += payload.bytes().len();
                                kept.chunks.push_back(payload);
                            }
                        } else if !opcode.is_control() {
                            dropped.messages += 1;
                            dropped.bytes += payload_len(bytes.get(at..).unwrap_or_default());
                        }
                        at = end;
                    }
                }
            }
            written = 0;
        }
        *self = kept;
        dropped
    }
}

/// Appends one frame.
#[inline(always)]
#[expect(clippy::inline_always, reason = "a third fewer instructions: what the caller knows falls out")]
pub(crate) fn write_frame(out: &mut Vec<u8>, mask: Option<[u8; 4]>, head: impl Into<Head>, payload: &[u8]) {
    let Head { opcode, rsv1 } = head.into();
    header::write(out, true, rsv1, opcode, mask, payload.len() as u64);
    let start = out.len();
    out.extend_from_slice(payload);
    if let (Some(key), Some(payload)) = (mask, out.get_mut(start..)) {
        crate::wire::mask::apply(payload, key, 0);
    }
}

/// The opcode and whole length of the frame at the front of our own output.
fn frame_at(bytes: &[u8]) -> Option<(Opcode, usize)> {
    let header = header::parse(bytes).ok()??;
    Some((header.opcode, header.header_length.saturating_add(usize::try_from(header.length).ok()?)))
}

fn payload_len(frame: &[u8]) -> u64 {
    header::parse(frame).ok().flatten().map_or(0, |header| header.length)
}

/// Counts the messages of a range of the cork that is dropped before any of it was written.
pub(crate) fn count(mut bytes: &[u8]) -> Dropped {
    let mut dropped = Dropped::default();
    while let Some((opcode, length)) = frame_at(bytes) {
        if !opcode.is_control() {
            dropped.messages += 1;
            dropped.bytes += payload_len(bytes);
        }
        bytes = bytes.get(length..).unwrap_or_default();
    }
    dropped
}
