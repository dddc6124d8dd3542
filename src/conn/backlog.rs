//! Bytes that the kernel refused, as chunks of whole frames. Frames describe themselves, so no list of messages is kept:
//! to drop what has not begun, or to count what is lost, the headers are walked.
//!
//! Of what a frame means only this is known here: a data frame is a message, and a newer Pong replaces an older one. What
//! waits for what is the outbox's business.

use std::{collections::VecDeque, io::IoSlice};

use super::{
    backlogs::{Backlogs, Piece},
    broken::{Broken, broken, part},
    chunk::{Body, Chunk},
    output::{BufferPool, OWN_BUFFER, OutputBuffer},
    segment::Segment,
};
use crate::{
    message::MessageKind,
    wire::header::{self, Header, Opcode},
};

/// The first frames of a backlog are joined in chunks of this size from the allocator, which is where most backlogs end. A
/// larger backlog has segments.
const CHUNK: usize = 16 << 10;
/// A longer frame has a chunk of its own.
const LONG: usize = Segment::SIZE / 4;
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
    /// Of these, the first ones, which the transport has encrypted and not got rid of: what they belong to has begun.
    ahead: usize,
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

    pub(super) fn push_raw(&mut self, bytes: Vec<u8>, backlogs: &mut Backlogs) {
        self.grow(bytes.len(), backlogs);
        self.chunks.push_back(Chunk::Raw(bytes));
    }

    /// Formats one frame after what is queued.
    pub(super) fn push_frame(
        &mut self,
        mask: Option<[u8; 4]>,
        head: impl Into<FrameHead>,
        payload: &[u8],
        backlogs: &mut Backlogs,
    ) {
        let head = head.into();
        self.append(header::MAX_HEADER + payload.len(), backlogs, |out| {
            write_frame(out, mask, head, payload);
        });
    }

    /// Queues a frame whose payload is not copied.
    pub(super) fn push_owned(
        &mut self,
        mask: Option<[u8; 4]>,
        head: impl Into<FrameHead>,
        payload: Body,
        backlogs: &mut Backlogs,
    ) {
        let (head, len) = (head.into(), payload.bytes().len());
        if len < OWN_BUFFER {
            return self.push_frame(mask, head, payload.bytes(), backlogs);
        }
        let payload = match mask {
            Some(key) => payload.masked(key),
            None => payload,
        };
        self.append(header::MAX_HEADER, backlogs, |out| {
            header::write(out, true, head.rsv1, head.opcode, mask, len as u64);
        });
        self.chunks.push_back(Chunk::Payload(payload));
        self.grow(len, backlogs);
    }

    /// Queues frames that several backlogs share.
    pub(super) fn push_piece(&mut self, piece: Piece, backlogs: &mut Backlogs) {
        self.len += piece.len();
        if let Some(Chunk::Shared(last)) = self.chunks.back_mut()
            && last.extend(piece)
        {
            return;
        }
        backlogs.add_user(piece);
        self.chunks.push_back(Chunk::Shared(piece));
    }

    /// Queues the frame of a Pong, or replaces the one that is queued and not begun (§5.5.3).
    pub(super) fn push_pong(&mut self, frame: Vec<u8>, backlogs: &mut Backlogs) {
        let waiting = self.pong.and_then(|number| usize::try_from(number.checked_sub(self.popped)?).ok());
        let begun = waiting.is_some_and(|index| self.has_begun(index));
        self.grow(frame.len(), backlogs);
        if let Some(old) = waiting.filter(|_| !begun).and_then(|index| self.chunks.get_mut(index)) {
            let before = old.len();
            *old = Chunk::Pong(frame);
            self.shrink(before, backlogs);
        } else {
            self.pong = Some(self.popped + self.chunks.len() as u64);
            self.chunks.push_back(Chunk::Pong(frame));
        }
        self.check();
    }

    /// Whether bytes of this chunk are written, or encrypted.
    fn has_begun(&self, index: usize) -> bool {
        let begun = self.written + self.ahead;
        // Mostly nothing or one record, so few chunks are looked at.
        self.chunks
            .iter()
            .take(index)
            .try_fold(begun, |left, chunk| left.checked_sub(chunk.len()))
            .is_some_and(|left| left > 0)
    }

    /// The transport has encrypted this many of the first bytes, and written none of them wholly.
    pub(super) fn set_ahead(&mut self, bytes: usize) {
        self.ahead = bytes.min(self.len);
    }

    /// See [`Backlog::set_ahead`].
    pub(super) const fn ahead(&self) -> usize {
        self.ahead
    }

    /// Takes over what the kernel left of `start..end` of the output buffer, which begins at a frame's first byte, and of which
    /// the first `skip` bytes are written. Frames that others get too are shared with their backlogs. Of several Pongs only
    /// the newest stays, unless all are to be kept.
    pub(super) fn push_rest(
        &mut self,
        (start, end): (usize, usize),
        skip: usize,
        keep_pongs: bool,
        output: &mut OutputBuffer,
    ) -> Result<(), Broken> {
        let (mut at, written) = (start, start + skip);
        while at < end {
            let (until, shared) = output.first_part(at, end);
            let skip = written.saturating_sub(at);
            match shared {
                // Written.
                _ if until <= written => {}
                Some(number) => {
                    let piece = output.frozen(number)?;
                    self.push_piece(piece, &mut output.backlogs);
                    self.begin(skip);
                }
                None => self.push_own(output, (at, until), skip, keep_pongs)?,
            }
            at = until;
        }
        self.check();
        Ok(())
    }

    /// The same for frames that no other connection gets: copies them.
    fn push_own(
        &mut self,
        output: &mut OutputBuffer,
        (start, end): (usize, usize),
        skip: usize,
        keep_pongs: bool,
    ) -> Result<(), Broken> {
        let (bytes, backlogs) = output.get_beside_backlogs(start, end)?;
        let mut at = 0;
        while at < bytes.len() {
            let (opcode, length) = frame_at(part(bytes, at..)?)?;
            let end = at + length;
            let frame = part(bytes, at..end)?;
            if end <= skip {
                // Written.
            } else if at < skip {
                self.grow(frame.len(), backlogs);
                self.chunks.push_back(Chunk::Frames(frame.to_vec()));
                self.begin(skip - at);
                backlogs.shrink(skip - at);
            } else if opcode == Opcode::Pong && !keep_pongs {
                self.push_pong(frame.to_vec(), backlogs);
            } else {
                self.append(frame.len(), backlogs, |out| out.extend_from_slice(frame));
            }
            at = end;
        }
        Ok(())
    }

    /// The first `n` bytes of what was just pushed are written.
    fn begin(&mut self, n: usize) {
        if n > 0 {
            debug_assert_eq!(self.chunks.len(), 1, "what is cut is the first");
            self.written = n;
            self.len -= n;
        }
    }

    /// It owns `n` bytes more.
    fn grow(&mut self, n: usize, backlogs: &mut Backlogs) {
        self.len += n;
        backlogs.grow(n);
    }

    /// It owns `n` bytes less.
    fn shrink(&mut self, n: usize, backlogs: &mut Backlogs) {
        self.len -= n;
        backlogs.shrink(n);
    }

    /// From now on a newer Pong is queued after what is here, and no Pong that is here is replaced.
    pub(super) fn pin_pong(&mut self) {
        self.pong = None;
    }

    /// Appends `most` bytes of frames at most, which `format` writes.
    fn append(&mut self, most: usize, backlogs: &mut Backlogs, format: impl FnOnce(&mut Vec<u8>)) {
        let is_large = self.len >= CHUNK;
        let fits = match self.chunks.back() {
            Some(Chunk::Frames(tail)) => tail.len() + most <= CHUNK,
            Some(Chunk::Segment(segment)) => segment.has_room_for(most),
            _ => false,
        };
        if !fits {
            let segment = if is_large && most <= LONG { backlogs.segment() } else { None };
            self.chunks.push_back(segment.map_or_else(|| Chunk::Frames(Vec::new()), Chunk::Segment));
        }
        let added = match self.chunks.back_mut() {
            Some(Chunk::Frames(tail)) => {
                let before = tail.len();
                format(tail);
                tail.len() - before
            }
            Some(Chunk::Segment(segment)) => {
                let mut frames = Vec::with_capacity(most);
                format(&mut frames);
                let appended = segment.append(&frames);
                debug_assert!(appended, "there was room");
                if appended { frames.len() } else { 0 }
            }
            _ => unreachable!("a chunk of frames was just found or pushed"),
        };
        self.grow(added, backlogs);
    }

    /// Fills `slices` with what is to be written next, `limit` bytes at most; returns how many it filled, and their bytes.
    pub(super) fn slices<'a>(
        &'a self,
        slices: &mut [IoSlice<'a>; MAX_SLICES],
        limit: usize,
        backlogs: &'a Backlogs,
    ) -> Result<(usize, usize), Broken> {
        let (mut count, mut offered) = (0, 0);
        for (place, chunk) in slices.iter_mut().zip(&self.chunks) {
            let bytes = chunk.bytes(backlogs)?;
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
    pub(super) fn advance(&mut self, n: usize, pool: &mut BufferPool, backlogs: &mut Backlogs) {
        debug_assert!(n <= self.len, "no more is taken than was offered");
        let mut left = n.min(self.len);
        self.len -= left;
        self.ahead = self.ahead.saturating_sub(left);
        while let Some(front) = self.chunks.front() {
            let rest = front.len() - self.written;
            let taken = left.min(rest);
            if front.owned() > 0 {
                backlogs.shrink(taken);
            }
            left -= taken;
            if taken < rest {
                self.written += taken;
                break;
            }
            match self.pop() {
                Some(Chunk::Payload(written)) => {
                    if let Some(buffer) = written.into_buffer() {
                        pool.keep(buffer);
                    }
                }
                Some(written) => written.release(backlogs),
                None => {}
            }
        }
        self.check();
    }

    /// The sum is what it says.
    fn check(&self) {
        debug_assert_eq!(
            self.chunks.iter().map(Chunk::len).sum::<usize>(),
            self.len + self.written,
            "all that is queued is counted"
        );
    }

    /// Bytes that are not written and that no other backlog has.
    fn owned(&self) -> usize {
        let written = if matches!(self.chunks.front(), Some(Chunk::Shared(_))) { 0 } else { self.written };
        self.chunks.iter().map(Chunk::owned).sum::<usize>() - written
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
    pub(super) fn drop_unbegun(&mut self, backlogs: &mut Backlogs) -> Result<Dropped, Broken> {
        self.split(true, backlogs)
    }

    /// Drops everything, and counts it.
    pub(super) fn drop_all(&mut self, backlogs: &mut Backlogs) -> Result<Dropped, Broken> {
        // What was not written counts as lost, encrypted or not.
        self.ahead = 0;
        let mut dropped = self.split(false, backlogs)?;
        dropped.partial = u64::from(self.is_cut()?);
        self.clear(backlogs);
        Ok(dropped)
    }

    /// Drops everything.
    pub(super) fn clear(&mut self, backlogs: &mut Backlogs) {
        backlogs.shrink(self.owned());
        for chunk in std::mem::take(self).chunks {
            chunk.release(backlogs);
        }
    }

    /// Whether a data frame has begun on the wire and is not finished. Asked when only what has begun is left.
    fn is_cut(&self) -> Result<bool, Broken> {
        Ok(match self.chunks.front() {
            Some(Chunk::Payload(_)) => true,
            Some(Chunk::Frames(frames)) => !frame_at(frames)?.0.is_control(),
            Some(Chunk::Raw(_) | Chunk::Segment(_) | Chunk::Shared(_) | Chunk::Pong(_)) | None => false,
        })
    }

    /// Walks all frames: keeps what has begun (as one chunk that starts with that frame), counts the others.
    fn split(&mut self, keep_raw: bool, backlogs: &mut Backlogs) -> Result<Dropped, Broken> {
        let mut kept = Self { popped: self.popped, ahead: self.ahead, ..Self::default() };
        backlogs.shrink(self.owned());
        let written = std::mem::take(&mut self.written);
        let mut chunks = std::mem::take(&mut self.chunks).into_iter();
        let split = kept.keep_begun(&mut chunks, written, keep_raw, backlogs);
        // There are such only if the walk was given up.
        for chunk in chunks {
            chunk.release(backlogs);
        }
        backlogs.grow(kept.owned());
        *self = kept;
        self.check();
        split
    }

    /// Takes out of `chunks`, of whose first `written` bytes are written, what has begun; counts the others.
    fn keep_begun(
        &mut self,
        chunks: &mut impl Iterator<Item = Chunk>,
        mut written: usize,
        keep_raw: bool,
        backlogs: &mut Backlogs,
    ) -> Result<Dropped, Broken> {
        let mut dropped = Dropped::default();
        // Counted from the present chunk on.
        let mut begun = written + self.ahead;
        while let Some(chunk) = chunks.next() {
            let mut len = chunk.len();
            match chunk {
                Chunk::Raw(_) if !keep_raw => {}
                // A payload alone: its header is written, so it has begun.
                Chunk::Raw(_) | Chunk::Payload(_) => self.keep(chunk, written),
                Chunk::Frames(_) | Chunk::Segment(_) | Chunk::Shared(_) | Chunk::Pong(_) => {
                    let frames = chunk.bytes(backlogs);
                    let walked = frames
                        .and_then(|frames| self.keep_frame(frames, (written, begun), chunks, &mut dropped));
                    chunk.release(backlogs);
                    len += walked?;
                }
            }
            written = 0;
            begun = begun.saturating_sub(len);
        }
        Ok(dropped)
    }

    /// Of frames of which `written` bytes are written and `begun` have begun, keeps those that have begun and are not written. The
    /// payload of the last one may be the next of `chunks`. Returns the bytes of that.
    fn keep_frame(
        &mut self,
        frames: &[u8],
        (written, begun): (usize, usize),
        chunks: &mut impl Iterator<Item = Chunk>,
        dropped: &mut Dropped,
    ) -> Result<usize, Broken> {
        let (mut at, mut beyond) = (0, 0);
        while at < frames.len() {
            let frame = part(frames, at..)?;
            let (opcode, length) = frame_at(frame)?;
            let here = length.min(frame.len());
            let payload = if here < length { chunks.next() } else { None };
            let end = at + here;
            beyond += payload.as_ref().map_or(0, Chunk::len);
            if at < begun && (end > written || payload.is_some()) {
                self.keep(Chunk::Frames(part(frame, ..here)?.to_vec()), written.saturating_sub(at));
                if let Some(payload) = payload {
                    self.keep(payload, 0);
                }
            } else if at >= begun && !opcode.is_control() {
                dropped.messages += 1;
                dropped.bytes += payload_len(frame)?;
            }
            at = end;
        }
        Ok(beyond)
    }

    /// Appends a chunk of which `written` bytes are written. Only the first chunk has such bytes.
    fn keep(&mut self, chunk: Chunk, written: usize) {
        debug_assert!(written == 0 || self.chunks.is_empty(), "what has begun is the first");
        self.written = self.written.max(written);
        self.len += chunk.len() - written;
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
