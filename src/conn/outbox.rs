//! What is queued for one connection, and where its Close stands in it. Who may queue something, and what is reported, is
//! decided elsewhere.
//!
//! What is sent in a turn is formatted into the loop's [`OutputBuffer`], and the connection keeps its [`Range`] of it: a
//! burst leaves in one write, and a broadcast is one range that many share. What the kernel refuses moves to a
//! [`Backlog`]. Whatever is in the backlog was queued before what is in the range, so one of them is always empty.

use std::{
    io::{self, IoSlice},
    mem,
};

use super::{
    backlog::{self, Backlog, Dropped, FrameHead, MAX_SLICES, write_frame},
    backlogs::{Backlogs, Piece},
    broken::Broken,
    chunk::Body,
    output::{BufferPool, OutputBuffer, Range},
    writer::Writer,
};
use crate::{
    close::CloseFrame,
    time::Time,
    wire::header::{Opcode, frame_length},
};

/// See above. Empty and without a queue: the connection is quiet.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    range: Range,
    queue: Option<Box<Queue>>,
}

/// What a connection needs besides its range: one of which the kernel refused something, or that is closing.
#[derive(Debug, Default)]
struct Queue {
    backlog: Backlog,
    /// Since when the kernel, which has refused a part of the backlog, has taken nothing of it. `None` if it took all that it was
    /// offered last, or was offered nothing.
    refused: Option<Time>,
    /// What is queued waits: the kernel took less than it was offered, and has not said since that it would take more; or
    /// this connection's share of the turn is used up.
    blocked: bool,
    close: Close,
}

/// Where our Close stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Close {
    #[default]
    NotQueued,
    /// It is wholly in the kernel after this many more bytes.
    Queued(usize),
    Flushed,
}

/// What a write has done.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    /// Bytes that it took.
    pub(super) bytes: usize,
    /// The kernel took less than it was offered.
    pub(super) refused: bool,
    /// Our Close is wholly in the kernel since this write.
    pub(super) flushed_close: bool,
}

/// Why a write was not done.
#[derive(Debug)]
pub(super) enum WriteError {
    Io(io::Error),
    Broken,
}

impl From<io::Error> for WriteError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<Broken> for WriteError {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

impl Outbox {
    /// Bytes that are queued, headers included.
    #[inline]
    pub(super) fn len(&self) -> usize {
        self.range.len() + self.backlog_len()
    }

    /// Bytes of the backlog.
    pub(super) fn backlog_len(&self) -> usize {
        self.queue.as_ref().map_or(0, |queue| queue.backlog.len())
    }

    #[inline]
    pub(super) fn has_backlog(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| !queue.backlog.is_empty())
    }

    pub(super) fn is_blocked(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.blocked)
    }

    /// Whether it owns memory of its own.
    pub(super) const fn owns_buffers(&self) -> bool {
        self.queue.is_some()
    }

    /// Since when the kernel has taken nothing of what it was offered, if the socket has not failed.
    pub(super) fn waiting_since(&self) -> Option<Time> {
        self.queue.as_ref()?.refused
    }

    /// The kernel took less than it was offered, at `now`, and not at `then`.
    pub(super) fn note_refused(&mut self, then: Time, now: Time) {
        if let Some(queue) = &mut self.queue
            && queue.refused == Some(then)
        {
            queue.refused = Some(now);
        }
    }

    /// The socket has failed: that the kernel takes nothing more is no stall.
    pub(super) fn handle_failed(&mut self, output: &mut OutputBuffer) -> Result<(), Broken> {
        self.backlog(output)?;
        if let Some(queue) = &mut self.queue {
            queue.refused = None;
        }
        self.tidy();
        Ok(())
    }

    /// Our Close is wholly in the kernel.
    pub(super) fn has_flushed_close(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.close == Close::Flushed)
    }

    /// What holds between any two calls.
    fn check(&self) {
        let Some(queue) = &self.queue else { return };
        debug_assert!(
            self.range.is_empty() || queue.backlog.is_empty(),
            "the backlog was queued before the range"
        );
        if let Close::Queued(left) = queue.close {
            debug_assert!((1..=self.len()).contains(&left), "our Close is among what is queued");
        }
    }

    // Queueing.

    /// Queues a frame that the output buffer has room for, if nothing is special about this outbox and no more than `most`
    /// bytes will be queued then. Says whether it did; returns what is queued.
    #[inline]
    pub(super) fn push_plain(
        &mut self,
        head: FrameHead,
        payload: &[u8],
        most: usize,
        output: &mut OutputBuffer,
    ) -> Option<usize> {
        let room = self.range.reaches_end(output) && output.has_room();
        if !room || self.queue.is_some() || self.range.len() + payload.len() + MAX_PLAIN_HEADER > most {
            return None;
        }
        let (start, end) = output.append(|out| write_frame(out, None, head, payload));
        self.range.extend(output, start, end);
        Some(self.range.len())
    }

    /// Adds a range that others share to the one that is here, under the same conditions.
    #[inline]
    pub(super) fn share_plain(
        &mut self,
        start: usize,
        end: usize,
        most: usize,
        output: &mut OutputBuffer,
    ) -> Option<usize> {
        let fits = self.queue.is_none() && self.range.len() + (end - start) <= most;
        (fits && self.range.extend(output, start, end)).then(|| self.range.len())
    }

    /// Queues a frame. Copies the payload.
    pub(super) fn push_frame(
        &mut self,
        mask: Option<[u8; 4]>,
        head: impl Into<FrameHead>,
        payload: &[u8],
        output: &mut OutputBuffer,
    ) -> Result<(), Broken> {
        let length = frame_length(payload.len(), mask.is_some());
        if self.range_is_open() && self.range.reaches_end(output) && output.has_room_for(length) {
            let (start, end) = output.append(|out| write_frame(out, mask, head, payload));
            let extended = self.range.extend(output, start, end);
            debug_assert!(extended, "there was room");
        } else {
            self.backlog(output)?.push_frame(mask, head, payload, &mut output.backlogs);
        }
        Ok(())
    }

    /// Queues a frame whose payload is not copied.
    pub(super) fn push_owned(
        &mut self,
        mask: Option<[u8; 4]>,
        head: FrameHead,
        payload: Body,
        output: &mut OutputBuffer,
    ) -> Result<(), Broken> {
        self.backlog(output)?.push_owned(mask, head, payload, &mut output.backlogs);
        Ok(())
    }

    /// Queues a frame that lies in the output buffer and that others get, too.
    pub(super) fn push_range(
        &mut self,
        start: usize,
        end: usize,
        output: &mut OutputBuffer,
    ) -> Result<(), Broken> {
        if self.range_is_open() && self.range.extend(output, start, end) {
            return Ok(());
        }
        self.backlog(output)?.push_rest((start, end), 0, false, output)
    }

    /// Queues a frame that several backlogs share.
    pub(super) fn push_piece(&mut self, frame: Piece, output: &mut OutputBuffer) -> Result<(), Broken> {
        self.backlog(output)?.push_piece(frame, &mut output.backlogs);
        Ok(())
    }

    /// Queues a Pong. Of those that the kernel did not take only the newest is kept, but none is moved across our Close.
    pub(super) fn push_pong(
        &mut self,
        mask: Option<[u8; 4]>,
        payload: &[u8],
        output: &mut OutputBuffer,
    ) -> Result<(), Broken> {
        if let Some(queue) = self.queue.as_mut().filter(|queue| queue.blocked && !queue.backlog.is_empty()) {
            let mut frame = Vec::with_capacity(frame_length(payload.len(), mask.is_some()));
            write_frame(&mut frame, mask, Opcode::Pong, payload);
            queue.backlog.push_pong(frame, &mut output.backlogs);
            return Ok(());
        }
        self.push_frame(mask, Opcode::Pong, payload, output)?;
        if let Some(queue) = &mut self.queue {
            // If it is in the backlog, to which it may have moved those before it, a newer one must not take the place of these.
            queue.backlog.pin_pong();
        }
        Ok(())
    }

    /// Queues bytes of HTTP.
    pub(super) fn push_http(&mut self, bytes: Vec<u8>, output: &mut OutputBuffer) -> Result<(), Broken> {
        self.backlog(output)?.push_raw(bytes, &mut output.backlogs);
        Ok(())
    }

    /// Queues our Close after all that is queued; its place is always there.
    pub(super) fn push_close(
        &mut self,
        mask: Option<[u8; 4]>,
        frame: &CloseFrame,
        output: &mut OutputBuffer,
    ) -> Result<(), Broken> {
        self.push_frame(mask, Opcode::Close, &close_payload(frame), output)?;
        let queued = self.len();
        let queue = self.queue.get_or_insert_default();
        debug_assert_eq!(queue.close, Close::NotQueued, "there is one Close");
        queue.backlog.pin_pong();
        queue.close = Close::Queued(queued);
        self.check();
        Ok(())
    }

    /// The range may grow: nothing waits in the backlog.
    fn range_is_open(&self) -> bool {
        self.queue.as_ref().is_none_or(|queue| !queue.blocked && queue.backlog.is_empty())
    }

    /// The backlog, after all that is in the output buffer has moved there.
    fn backlog(&mut self, output: &mut OutputBuffer) -> Result<&mut Backlog, Broken> {
        let queue = self.queue.get_or_insert_default();
        if !self.range.is_empty() {
            let range = mem::take(&mut self.range);
            // What is counted up to our Close must not change its size.
            let moved = queue.backlog.push_rest(range.bounds(), 0, queue.close != Close::NotQueued, output);
            output.unlock();
            moved?;
        }
        Ok(&mut queue.backlog)
    }

    // Writing.

    /// The kernel takes more again.
    pub(super) fn handle_writable(&mut self) {
        if let Some(queue) = &mut self.queue {
            queue.blocked = false;
        }
    }

    /// Offers what is queued to the kernel, `limit` bytes at most, in as few writes as that takes.
    pub(super) fn transmit<W>(
        &mut self,
        output: &mut OutputBuffer,
        pool: &mut BufferPool,
        limit: usize,
        now: Time,
        writer: &mut W,
    ) -> Result<Written, WriteError>
    where
        W: Writer,
    {
        if self.range.is_empty() {
            return self.transmit_backlog(&mut output.backlogs, pool, limit, now, writer);
        }
        let bytes = self.range.bytes(output)?;
        let offered = bytes.get(..limit).unwrap_or(bytes);
        let n = accepted(writer.write(&[IoSlice::new(offered)]))?;
        let refused = n < offered.len();
        if n < bytes.len() {
            let ahead = if refused { writer.ahead().bytes } else { 0 };
            let queue = self.queue.get_or_insert_default();
            queue.refused = refused.then_some(now);
            queue.blocked = true;
            // What is encrypted stays as it is.
            let keep_pongs = queue.close != Close::NotQueued || ahead > 0;
            queue.backlog.push_rest(self.range.bounds(), n, keep_pongs, output)?;
            queue.backlog.set_ahead(ahead);
        }
        self.range.clear(output);
        let flushed_close = self.note_written(n);
        self.check();
        Ok(Written { bytes: n, refused, flushed_close })
    }

    fn transmit_backlog<W>(
        &mut self,
        backlogs: &mut Backlogs,
        pool: &mut BufferPool,
        limit: usize,
        now: Time,
        writer: &mut W,
    ) -> Result<Written, WriteError>
    where
        W: Writer,
    {
        let mut written = Written::default();
        let mut left = limit;
        while let Some(queue) = self.queue.as_mut().filter(|queue| !queue.backlog.is_empty()) {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, offered) = queue.backlog.slices(&mut slices, left, backlogs)?;
            if offered == 0 {
                break;
            }
            let n = accepted(writer.write(slices.get(..count).unwrap_or(&slices)))?;
            if n > 0 {
                queue.backlog.advance(n, pool, backlogs);
                left -= n.min(left);
                written.bytes += n;
            }
            written.refused = n < offered;
            queue.blocked = written.refused || !queue.backlog.is_empty();
            let waited = queue.refused.take();
            if written.refused {
                let ahead = writer.ahead();
                queue.backlog.set_ahead(ahead.bytes);
                let progressed = n > 0 || ahead.progressed;
                queue.refused = waited.filter(|_| !progressed).or(Some(now));
            }
            written.flushed_close |= self.note_written(n);
            if written.refused {
                break;
            }
        }
        self.check();
        Ok(written)
    }

    /// `n` more bytes are in the kernel; says whether our Close is, now.
    fn note_written(&mut self, n: usize) -> bool {
        let Some(Queue { close: close @ Close::Queued(_), .. }) = self.queue.as_deref_mut() else {
            return false;
        };
        if let Close::Queued(left) = close {
            *close = if n < *left { Close::Queued(*left - n) } else { Close::Flushed };
        }
        *close == Close::Flushed
    }

    // Dropping.

    /// Drops what has not begun, except our Close, which is `frame`.
    pub(super) fn drop_unbegun(
        &mut self,
        mask: Option<[u8; 4]>,
        frame: Option<&CloseFrame>,
        output: &mut OutputBuffer,
    ) -> Result<Dropped, Broken> {
        if self.len() == 0 {
            return Ok(Dropped::default());
        }
        self.backlog(output)?;
        let queue = self.queue.get_or_insert_default();
        let payload = frame.map(close_payload).unwrap_or_default();
        let unbegun = frame_length(payload.len(), mask.is_some()) + queue.backlog.ahead();
        match queue.close {
            // Nothing is queued before it that has not begun.
            Close::Queued(left) if left <= unbegun => return Ok(Dropped::default()),
            Close::Flushed => return Ok(Dropped::default()),
            Close::Queued(_) | Close::NotQueued => {}
        }
        let dropped = queue.backlog.drop_unbegun(&mut output.backlogs)?;
        if queue.close != Close::NotQueued {
            queue.backlog.push_frame(mask, Opcode::Close, &payload, &mut output.backlogs);
            queue.close = Close::Queued(queue.backlog.len());
        }
        self.check();
        Ok(dropped)
    }

    /// Drops everything, and counts it.
    pub(super) fn drop_all(&mut self, output: &mut OutputBuffer) -> Result<Dropped, Broken> {
        let range = mem::take(&mut self.range);
        let mut dropped = Dropped::default();
        if !range.is_empty() {
            let counted = range.bytes(output).and_then(backlog::count);
            output.unlock();
            dropped = counted?;
        }
        if let Some(queue) = &mut self.queue {
            let more = queue.backlog.drop_all(&mut output.backlogs)?;
            dropped.messages += more.messages;
            dropped.bytes += more.bytes;
            dropped.partial += more.partial;
        }
        Ok(dropped)
    }

    /// Forgets everything.
    pub(super) fn clear(&mut self, output: &mut OutputBuffer) {
        self.range.clear(output);
        if let Some(mut queue) = self.queue.take() {
            queue.backlog.clear(&mut output.backlogs);
        }
    }

    /// Gives back what a quiet connection does not need.
    pub(super) fn tidy(&mut self) {
        if let Some(queue) = &self.queue
            && queue.backlog.is_empty()
            && queue.close == Close::NotQueued
        {
            self.queue = None;
        }
    }
}

/// The longest header of a frame that is not masked.
const MAX_PLAIN_HEADER: usize = crate::wire::header::MAX_HEADER;

fn close_payload(frame: &CloseFrame) -> Vec<u8> {
    let mut payload = Vec::with_capacity(frame.payload_len());
    frame.write_payload(&mut payload);
    payload
}

/// `WouldBlock` is a write of nothing.
fn accepted(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
