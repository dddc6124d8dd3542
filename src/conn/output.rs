//! What the connections of a loop share for writing: the output buffer, and the pool of large buffers. No socket and no
//! connection enters.

use std::sync::Arc;

use super::{
    arriving::Arriving,
    backlogs::{Backlogs, OWN_BLOCK, Piece, WORTH_SHARING},
    broken::{Broken, broken, part},
};
use crate::wire::header::MAX_HEADER;

/// The loop's one output buffer: what was formatted in this turn and neither written nor moved to a backlog yet.
/// Connections remember which range of it is theirs.
#[derive(Debug)]
pub(crate) struct OutputBuffer {
    bytes: Vec<u8>,
    /// Connections that own a range of it, and broadcasts under way.
    users: usize,
    /// A range is numbered in 32 bits, so no byte may lie beyond this; less in tests.
    limit: usize,
    /// Frames of broadcasts among the bytes, in order.
    shared: Vec<SharedFrame>,
    /// What was frozen for frames that are here, or for a broadcast under way: kept until the buffer is empty.
    frozen: Vec<Piece>,
    /// Where that is.
    pub(super) backlogs: Backlogs,
}

/// A frame in the output buffer that several connections get. The first backlog that has to wait for it freezes it; the
/// others refer to that.
#[derive(Debug)]
struct SharedFrame {
    start: usize,
    end: usize,
    frozen: Option<Piece>,
}

impl OutputBuffer {
    /// Beyond this, frames are queued in the backlog of their connection rather than here.
    const FULL: usize = 256 << 10;
    /// Capacity that is kept when the buffer is empty.
    const KEPT: usize = 1 << 20;

    /// An empty one. All backlogs together may hold `max_backlogs` bytes.
    pub(super) fn new(max_backlogs: usize) -> Self {
        Self {
            bytes: Vec::new(),
            users: 0,
            limit: u32::MAX as usize,
            shared: Vec::new(),
            frozen: Vec::new(),
            backlogs: Backlogs::new(max_backlogs),
        }
    }

    #[cfg(test)]
    pub(super) fn with_limit(limit: usize) -> Self {
        Self { limit, ..Self::new(usize::MAX) }
    }

    /// Bytes that were formatted, some of which may have been written since.
    pub(crate) const fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether a frame with less than 16 KiB of payload fits.
    #[inline]
    pub(super) const fn has_room(&self) -> bool {
        self.bytes.len() <= Self::FULL && self.fits(OWN_BUFFER + MAX_HEADER)
    }

    /// Whether `more` bytes may be queued, here or in the backlogs.
    #[inline]
    pub(crate) const fn fits(&self, more: usize) -> bool {
        self.queued().saturating_add(more) <= self.backlogs.limit()
    }

    /// Bytes that may still be queued, here and in the backlogs.
    pub(super) const fn room(&self) -> usize {
        self.backlogs.limit().saturating_sub(self.queued())
    }

    /// Bytes that may be queued, here and in the backlogs.
    pub(crate) const fn max_backlogs(&self) -> usize {
        self.backlogs.limit()
    }

    /// Bytes that all backlogs hold.
    pub(crate) const fn backlog_total(&self) -> usize {
        self.backlogs.total()
    }

    /// Bytes that are here or in the backlogs.
    pub(crate) const fn queued(&self) -> usize {
        self.bytes.len() + self.backlogs.total()
    }

    /// Whether a frame of `len` bytes fits.
    pub(super) const fn has_room_for(&self, len: usize) -> bool {
        self.has_room() && len <= self.limit.saturating_sub(self.bytes.len())
    }

    /// Lets `format` append; returns the range of what it did.
    #[inline]
    pub(super) fn append(&mut self, format: impl FnOnce(&mut Vec<u8>)) -> (usize, usize) {
        let start = self.bytes.len();
        format(&mut self.bytes);
        (start, self.bytes.len())
    }

    /// Lets `format` append a frame that several connections get; returns its range.
    pub(super) fn append_shared(&mut self, format: impl FnOnce(&mut Vec<u8>)) -> (usize, usize) {
        let (start, end) = self.append(format);
        if end - start >= WORTH_SHARING {
            self.shared.push(SharedFrame { start, end, frozen: None });
        }
        (start, end)
    }

    /// Freezes a frame that several connections get and that is too large to be copied for each.
    pub(super) fn freeze(&mut self, frame: Vec<u8>) -> Piece {
        let piece = self.backlogs.freeze_owned(frame);
        self.frozen.push(piece);
        piece
    }

    /// The part of `start..end` that begins at `start`: either a frame that others get too, or what lies before the next
    /// such frame. Returns its end and, for [`OutputBuffer::frozen`], the number of that frame.
    pub(super) fn first_part(&self, start: usize, end: usize) -> (usize, Option<usize>) {
        let number = self.shared.partition_point(|frame| frame.end <= start);
        match self.shared.get(number) {
            Some(frame) if frame.start <= start => (frame.end.min(end), Some(number)),
            Some(frame) => (frame.start.min(end), None),
            None => (end, None),
        }
    }

    /// The frame of that number, frozen.
    pub(super) fn frozen(&mut self, number: usize) -> Result<Piece, Broken> {
        let frame = self.shared.get_mut(number).ok_or_else(broken)?;
        if let Some(piece) = frame.frozen {
            return Ok(piece);
        }
        let bytes = part(&self.bytes, frame.start..frame.end)?;
        let piece = if bytes.len() < OWN_BLOCK {
            self.backlogs.freeze(bytes)
        } else {
            self.backlogs.freeze_owned(bytes.to_vec())
        };
        self.frozen.push(piece);
        frame.frozen = Some(piece);
        Ok(piece)
    }

    /// Keeps what is there although no connection owns it yet; ends with [`OutputBuffer::unlock`].
    pub(crate) fn lock(&mut self) {
        self.users += 1;
    }

    /// See [`OutputBuffer::lock`].
    #[inline]
    pub(crate) fn unlock(&mut self) {
        debug_assert!(self.users > 0, "it was locked before");
        self.users = self.users.saturating_sub(1);
        if self.users == 0 {
            self.bytes.clear();
            // Mostly there were no broadcasts.
            if self.bytes.capacity() > Self::KEPT || !self.shared.is_empty() || !self.frozen.is_empty() {
                self.give_back();
            }
        }
    }

    /// Nobody uses the buffer: frees what an empty one does not need.
    #[inline(never)]
    fn give_back(&mut self) {
        self.bytes.shrink_to(Self::KEPT);
        self.shared.clear();
        for piece in self.frozen.drain(..) {
            self.backlogs.release(piece);
        }
    }

    /// A turn has ended.
    #[inline]
    pub(crate) fn end_turn(&mut self) {
        if self.backlogs.has_unmapped() {
            self.backlogs.map_waiting();
        }
    }

    pub(super) fn get(&self, start: usize, end: usize) -> Result<&[u8], Broken> {
        part(&self.bytes, start..end)
    }

    /// The same, to be moved to a backlog.
    pub(super) fn get_beside_backlogs(
        &mut self,
        start: usize,
        end: usize,
    ) -> Result<(&[u8], &mut Backlogs), Broken> {
        Ok((part(&self.bytes, start..end)?, &mut self.backlogs))
    }
}

/// A connection's range of the output buffer. Empty = none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Range {
    start: u32,
    end: u32,
}

impl Range {
    #[inline]
    pub(super) const fn is_empty(self) -> bool {
        self.start == self.end
    }

    #[inline]
    pub(super) const fn len(self) -> usize {
        (self.end - self.start) as usize
    }

    /// Where it begins and ends.
    pub(super) const fn bounds(self) -> (usize, usize) {
        (self.start as usize, self.end as usize)
    }

    #[inline]
    pub(super) fn bytes(self, output: &OutputBuffer) -> Result<&[u8], Broken> {
        debug_assert!(self.is_empty() || output.users > 0, "its owner is a user");
        output.get(self.start as usize, self.end as usize)
    }

    /// Adds `start..end` of the output buffer if it follows what is there; says whether it did.
    #[inline]
    pub(super) fn extend(&mut self, output: &mut OutputBuffer, start: usize, end: usize) -> bool {
        debug_assert!(end <= output.limit, "it was asked whether there is room");
        let (Ok(start), Ok(end)) = (u32::try_from(start), u32::try_from(end)) else { return false };
        if self.is_empty() {
            output.lock();
            *self = Self { start, end };
            return true;
        }
        let follows = self.end == start;
        if follows {
            self.end = end;
        }
        follows
    }

    /// Whether something appended to the output buffer now would follow.
    #[inline]
    pub(super) const fn reaches_end(self, output: &OutputBuffer) -> bool {
        self.is_empty() || self.end as usize == output.bytes.len()
    }

    /// Forgets the range: it is written, or moved elsewhere.
    #[inline]
    pub(super) fn clear(&mut self, output: &mut OutputBuffer) {
        if !self.is_empty() {
            *self = Self::default();
            output.unlock();
        }
    }
}

/// From here on a payload that has its own buffer is queued as that, instead of copied.
pub(super) const OWN_BUFFER: usize = 16 << 10;

/// The large message that the application is looking at. If it is sent on, it is counted instead of copied.
#[derive(Debug, Default)]
pub(crate) struct Lent(Option<Arc<Vec<u8>>>);

impl Lent {
    pub(crate) const fn is_some(&self) -> bool {
        self.0.is_some()
    }

    pub(super) fn set(&mut self, message: Option<Arc<Vec<u8>>>) {
        self.0 = message;
    }

    /// The message, if `payload` is all of it.
    pub(super) fn get(&self, payload: &[u8]) -> Option<Arc<Vec<u8>>> {
        self.0.as_ref().filter(|message| std::ptr::eq(message.as_slice(), payload)).map(Arc::clone)
    }
}

/// Buffers of large messages that were written, kept for the next ones. An allocator gives such pieces back to the
/// system, and then every page of a new one is a fault.
#[derive(Debug)]
pub(crate) struct BufferPool {
    buffers: Vec<Vec<u8>>,
    /// Bytes that are kept, at most.
    limit: usize,
}

impl BufferPool {
    /// A smaller buffer is not worth it.
    const WORTH: usize = 128 << 10;

    pub(crate) const fn new(limit: usize) -> Self {
        Self { buffers: Vec::new(), limit }
    }

    /// Whether a buffer is large enough to be kept.
    pub(super) const fn is_worth(buffer: &Vec<u8>) -> bool {
        buffer.capacity() >= Self::WORTH
    }

    /// Keeps a buffer, with what is in it: that much of it need not be zeroed before it is read into.
    pub(super) fn keep(&mut self, buffer: Vec<u8>) {
        let kept: usize = self.buffers.iter().map(Vec::capacity).sum();
        if Self::is_worth(&buffer) && kept + buffer.capacity() <= self.limit {
            self.buffers.push(buffer);
        }
    }

    /// Puts a message that has begun to arrive into a pooled buffer, if there is one. Copies what has arrived.
    pub(crate) fn lend(&mut self, message: &mut Arriving) {
        if message.capacity() < Self::WORTH
            && let Some(pooled) = self.buffers.pop()
        {
            let mut pooled = Arriving::reusing(pooled);
            pooled.append(message.as_slice());
            *message = pooled;
        }
    }
}
