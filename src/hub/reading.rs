//! The reading of a turn: one socket's share of it, parsed and delivered.

use std::io;

use super::{
    calling::{call, start_timers},
    driver::{BATCH_BYTES, BATCH_READS, Bytes, Driver, Parsing},
    handler::Handler,
    incoming::NextRead,
    transport::Transport,
};
use crate::conn::{Cursor, Extent, PeerFin};

/// From this many missing bytes on, a message is read straight into its own buffer.
const DIRECT: u64 = 32 << 10;
/// The most that is read straight into a message's own buffer at once.
const DIRECT_READ: usize = 256 << 10;

impl<D, T: Transport> Driver<D, T> {
    /// Reads what one socket has, for its share of the turn, and writes large replies. `ended` says that a FIN or
    /// an error may come after a short read. Returns whether all was read.
    pub(super) fn read<H: Handler<Data = D>>(&mut self, slot: usize, ended: bool, handler: &mut H) -> Extent {
        self.parsing = Some(Parsing { slot, bytes: Bytes::None });
        self.hub.begin_read(slot);
        let extent = self.read_share(slot, ended, handler);
        if extent != Extent::Wholly {
            self.hub.put_off_read(slot);
        } else if let Some(kind) = self.hub.take_failed(slot) {
            self.hub.handle_reset(slot, kind);
        } else if self.hub.has_ended(slot) && self.hub.holds_input(slot) {
            // The edge has come, and will not come again.
            self.handle_left_while_paused(slot);
        }
        self.hub.finish_read();
        self.parsing = None;
        let ticked = self.lap(|hub| match hub.id_at(slot) {
            Some(id) => (Some(id), "Message"),
            None => (None, "Upgrade"),
        });
        self.reads += 1;
        if self.reads >= BATCH_READS || ticked || self.hub.batched() >= BATCH_BYTES {
            self.write_batch();
        }
        extent
    }

    fn read_share<H: Handler<Data = D>>(&mut self, slot: usize, ended: bool, handler: &mut H) -> Extent {
        let mut extent = Extent::Not;
        loop {
            // What has happened before comes before what is read now.
            self.deliver(handler);
            if self.hub.has_undelivered() {
                return extent;
            }
            match self.hub.next_read(slot, &mut self.held) {
                NextRead::Socket => {}
                NextRead::Held => {
                    self.feed(slot, Bytes::Held, handler);
                    self.held = Vec::new();
                    if self.hub.is_over_budget() {
                        return extent;
                    }
                    continue;
                }
                NextRead::None => return Extent::Wholly,
                NextRead::Later => return extent,
            }
            extent = Extent::Partly;
            let read = self.read_once(slot, handler);
            // A write has failed: what comes first was to be read, and that was all of it.
            let failed = self.hub.has_failed(slot);
            let drained = matches!(read, Ok(Read::Short)) && !ended && !failed;
            match read {
                Ok(Read::Full | Read::Short) => {}
                Ok(Read::Eof) if failed => return Extent::Wholly,
                Ok(Read::Eof) => {
                    self.write_now(slot, 0);
                    if self.hub.has_failed(slot) {
                        return Extent::Wholly;
                    }
                    if self.hub.has_put_off_write(slot) {
                        // The FIN stays where it is until the replies have had their chance.
                        return Extent::Partly;
                    }
                    let fin = PeerFin { truncated: self.transport.is_truncated(slot) };
                    self.hub.handle_eof(slot, fin);
                    return Extent::Wholly;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // There is no end yet, whatever the poll has said.
                    self.hub.note_not_ended(slot);
                    return Extent::Wholly;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) if failed => return Extent::Wholly,
                Err(error) => {
                    self.write_now(slot, 0);
                    self.hub.handle_error(slot, &error);
                    return Extent::Wholly;
                }
            }
            self.write_now(slot, BATCH_BYTES);
            if drained && !self.hub.has_failed(slot) {
                return Extent::Wholly;
            }
            if self.hub.is_over_budget_of(slot) {
                return Extent::Partly;
            }
        }
    }

    fn read_once<H: Handler<Data = D>>(&mut self, slot: usize, handler: &mut H) -> io::Result<Read> {
        if let Some((message, left)) = self.hub.direct(slot, DIRECT) {
            let from = message.len();
            // It grows with what arrives, never by what was announced.
            let asked = usize::try_from(left).unwrap_or(usize::MAX).min(from.clamp(1, DIRECT_READ));
            let result = self.transport.read(slot, message.room(asked));
            message.advance(result.as_ref().copied().unwrap_or(0));
            let more = self.hub.handle_noticed(slot, self.transport.noticed(slot));
            let n = result?;
            if n > 0 {
                self.hub.handle_readable(slot, n);
                let mut cursor = Cursor::new(&mut [], &mut self.scratch);
                if let Some(event) = self.hub.handle_direct(slot, from, &mut cursor) {
                    call(&mut self.hub, &mut self.transport, event, handler);
                }
                self.hub.take_back(&mut cursor);
            }
            return Ok(Read::of(n, asked, more));
        }
        let result = self.transport.read(slot, &mut self.buffer);
        let more = self.hub.handle_noticed(slot, self.transport.noticed(slot));
        let n = result?;
        if n > 0 {
            self.hub.handle_readable(slot, n);
            self.feed(slot, Bytes::OfBuffer(n), handler);
        }
        Ok(Read::of(n, self.buffer.len(), more))
    }

    /// Parses what was read, the first bytes of `buffer` or all of `held`, and delivers what is in it, as far as the turn's
    /// budget goes. The rest is held.
    fn feed<H: Handler<Data = D>>(&mut self, slot: usize, which: Bytes, handler: &mut H) {
        self.parsing = Some(Parsing { slot, bytes: which });
        let Self { hub, transport, buffer, held, scratch, .. } = self;
        let bytes = match which {
            Bytes::None => &mut [],
            Bytes::OfBuffer(n) => buffer.get_mut(..n).unwrap_or_default(),
            Bytes::Held => held.as_mut_slice(),
        };
        hub.begin_parsing(bytes.len());
        let mut cursor = Cursor::new(bytes, scratch);
        loop {
            while !hub.is_out_of_callbacks()
                && let Some(event) = hub.poll_event()
            {
                call(hub, transport, event, handler);
            }
            if hub.is_to_hold(slot) {
                break;
            }
            // What is parsed next happens after the callback that has returned.
            start_timers(hub, transport);
            let before = cursor.remaining();
            if let Some(event) = hub.next(slot, &mut cursor, handler) {
                call(hub, transport, event, handler);
            } else if !(1..before).contains(&cursor.remaining()) {
                break;
            }
        }
        hub.take_back(&mut cursor);
        #[cfg(feature = "tls")]
        if let Some(early) = hub.early.take() {
            match transport.secure_accepted(slot, &early) {
                // The session may have plaintext, or something to say.
                Ok(()) => hub.put_off_read(slot),
                Err(error) => hub.handle_error(slot, &error),
            }
        }
        if cursor.remaining() > 0 {
            hub.hold(slot, cursor.take_all());
        }
        self.parsing = Some(Parsing { slot, bytes: Bytes::None });
    }
}

/// How a read went.
enum Read {
    /// There may be more: the buffer was filled, or the transport says so.
    Full,
    /// There is no more for now.
    Short,
    Eof,
}

impl Read {
    const fn of(n: usize, asked: usize, more: bool) -> Self {
        match n {
            0 => Self::Eof,
            n if n < asked && !more => Self::Short,
            _ => Self::Full,
        }
    }
}
