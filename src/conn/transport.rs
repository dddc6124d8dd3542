//! What the transport does to a connection: bytes come, the kernel takes some, the socket fails.

use std::io;

use super::{
    Conn, Context, Pending, QueuedEvent,
    broken::Broken,
    life::Life,
    outbox::WriteError,
    state::{Input, PeerFin},
    writer::Writer,
};
use crate::time::Time;

/// From this many queued bytes on, a `Drain` is owed.
const DRAIN_FROM: usize = 16 << 10;

/// What a write has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Transmitted {
    /// Bytes that the kernel took.
    pub(crate) bytes: usize,
    /// The kernel took less than it was offered.
    pub(crate) blocked: bool,
}

impl Conn {
    /// `n` bytes arrived, whatever they are.
    #[inline]
    pub(crate) fn note_inbound(&mut self, n: usize, now: Time) {
        if let Some(traffic) = self.details.traffic_mut() {
            traffic.received_bytes += n as u64;
        }
        self.note_heard(n, now);
    }

    /// `n` bytes came from the peer, to whichever layer.
    #[inline]
    pub(crate) fn note_heard(&mut self, n: usize, now: Time) {
        let waited = match &mut self.life {
            Life::Open { watch, times } => {
                times.last_inbound = now;
                watch.end_silence()
            }
            Life::Paused(paused) => {
                paused.times.last_inbound = now;
                paused.watch.end_silence()
            }
            life => {
                if let Some(closing) = life.closing_mut() {
                    closing.times.last_inbound = now;
                    closing.note_probed(n, now);
                }
                false
            }
        };
        if waited {
            // The next Ping is due before the end of the wait for this answer would have been.
            self.pending.add(Pending::DEADLINE);
        }
    }

    /// The peer's FIN was read. A connection that holds its input is not read from: see [`Conn::handle_read_closed`].
    pub(crate) fn handle_eof(&mut self, fin: PeerFin, cx: &mut Context<'_>) {
        debug_assert!(!self.holds_input(), "what comes before the FIN is yet to be parsed");
        self.apply(Input::Eof { fin }, cx);
    }

    /// Reading is paused: input waits for the application.
    pub(crate) fn holds_input(&self) -> bool {
        self.life.holds_input()
    }

    /// The socket says that the peer has left, and reading is paused: nothing was read, so its Close may still be there.
    /// Of no effect if reading is not paused: then the next read shows it.
    pub(crate) fn handle_read_closed(&mut self, cx: &mut Context<'_>) {
        match &self.life {
            // It does not wait for its upgrade any more.
            Life::Deferred(_) => self.apply(Input::Eof { fin: PeerFin::default() }, cx),
            life if life.holds_input() => self.apply(Input::PeerLeftPaused, cx),
            _ => {}
        }
    }

    /// The socket failed before a read reported it. What the peer sent before, its Close perhaps, is to be read first,
    /// although reading may be paused; then call [`Conn::handle_reset`].
    pub(crate) fn handle_failed(&mut self, cx: &mut Context<'_>) {
        if self.outbox.handle_failed(&mut cx.common.output).is_err() {
            return self.fail_internally(Broken, cx);
        }
        if self.life.holds_input() {
            self.apply(Input::PauseEnd, cx);
        }
    }

    /// The socket failed: reset, EPIPE or another error.
    pub(crate) fn handle_reset(&mut self, kind: io::ErrorKind, cx: &mut Context<'_>) {
        self.apply(Input::Reset { kind }, cx);
    }

    /// The kernel takes more again.
    pub(crate) fn handle_writable(&mut self) {
        self.outbox.handle_writable();
        self.want_write();
    }

    /// Asks for a write, unless the kernel has just refused one.
    pub(super) fn want_write(&mut self) {
        let queued = self.queued();
        self.note_queued(queued);
        if queued > 0 && !self.outbox.is_blocked() {
            self.pending.add(Pending::WRITE);
        }
    }

    #[inline]
    pub(super) fn note_queued(&self, queued: usize) {
        if queued >= DRAIN_FROM {
            self.drain_owed.set(true);
        }
    }

    /// Offers what is queued to the kernel, `limit` bytes at most, in as few writes as it takes. The writer returns how
    /// much it took.
    ///
    /// # Errors
    /// The socket's, other than `WouldBlock`. The connection still stands: read what the peer sent before, then
    /// report the error by [`Conn::handle_reset`].
    pub(crate) fn transmit<W>(
        &mut self,
        limit: usize,
        cx: &mut Context<'_>,
        writer: &mut W,
    ) -> io::Result<Transmitted>
    where
        W: Writer,
    {
        let (waited, common) = (self.outbox.waiting_since().is_some(), &mut *cx.common);
        let written = match self.outbox.transmit(&mut common.output, &mut common.pool, limit, cx.now, writer)
        {
            Ok(written) => written,
            Err(WriteError::Io(error)) => return Err(error),
            Err(WriteError::Broken) => {
                self.fail_internally(Broken, cx);
                return Ok(Transmitted::default());
            }
        };
        let done = Transmitted { bytes: written.bytes, blocked: written.refused };
        common.totals.sent_bytes += written.bytes as u64;
        if let Some(traffic) = self.details.traffic_mut() {
            traffic.sent_bytes += written.bytes as u64;
        }
        if !self.outbox.owns_buffers() {
            // Most writes: all is in the kernel, and nothing waited for that.
            self.note_drained();
            return Ok(done);
        }
        if let Some(closing) = self.life.closing_mut() {
            closing.note_probed(written.bytes, cx.now);
        }
        if self.outbox.has_backlog() {
            if written.refused {
                if !waited {
                    self.pending.add(Pending::DEADLINE);
                }
                common.totals.short_writes += 1;
                self.drain_owed.set(true);
            } else {
                self.pending.add(Pending::WRITE);
            }
        } else {
            self.note_drained();
        }
        if let Life::Refusing { status, .. } = self.life
            && !self.outbox.has_backlog()
        {
            cx.common.totals.answers.count(status);
            self.apply(Input::Flushed, cx);
        } else if written.flushed_close {
            self.apply(Input::Flushed, cx);
        }
        self.outbox.tidy();
        Ok(done)
    }

    /// All that was queued is in the kernel: asks for the `Drain`, if one is owed.
    #[inline]
    pub(super) fn note_drained(&mut self) {
        if self.drain_owed.get() && self.queued() == 0 {
            self.pending.add(Pending::DRAIN);
        }
    }

    /// Others hold less: there is room for what this one was refused.
    pub(crate) fn handle_room(&mut self) {
        self.note_drained();
    }

    /// Emits the `Drain` that is owed, unless something is queued again.
    pub(crate) fn report_drain(&mut self, cx: &mut Context<'_>) {
        if self.queued() == 0 && self.drain_owed.take() && self.takes_sends() {
            cx.event_queue.push_back(QueuedEvent::Drain(cx.id));
        }
    }

    /// Keeps bytes that were read and not parsed. They come before what is read next.
    pub(crate) fn hold(&mut self, bytes: &[u8]) {
        self.inbox.hold(bytes);
        self.inbox.tidy();
    }

    /// Whether something was read and not parsed that can be parsed now.
    #[inline]
    pub(crate) fn has_held_to_parse(&self) -> bool {
        self.inbox.has_held() && self.parses_frames()
    }
}
