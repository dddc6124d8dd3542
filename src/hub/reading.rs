//! The reading of a turn: one socket's share of it, parsed and delivered.

use std::io;

use super::{
    clients::Clients,
    driver::{BATCH_BYTES, BATCH_READS, Driver, Parsing, deliver},
    handler::Handler,
    incoming::NextRead,
    transport::Transport,
};
use crate::conn::Cursor;

/// From this many missing bytes on, a message is read straight into its own buffer.
const DIRECT: u64 = 32 << 10;
/// The most that is read straight into a message's own buffer at once.
const DIRECT_READ: usize = 256 << 10;

impl<D, T: Transport> Driver<D, T> {
    /// Reads what one socket has, for its share of the turn, and writes large replies. `ended` says that a FIN or
    /// an error may come after a short read. Returns whether all was read.
    pub(super) fn read<H: Handler<Data = D>>(&mut self, slot: usize, ended: bool, handler: &mut H) -> bool {
        self.hub.begin_read(slot);
        let drained = match self.read_share(slot, ended, handler) {
            Ok(drained) => drained,
            Err(error) => {
                self.read_last(slot, error.kind(), handler);
                true
            }
        };
        if self.hub.holds_input(slot) && self.hub.has_ended(slot) {
            // The edge has come, and will not come again.
            self.handle_left_while_paused(slot);
        }
        self.hub.finish_read();
        let ticked = self.lap(|hub| hub.id_at(slot));
        self.reads += 1;
        if self.reads >= BATCH_READS || ticked || self.hub.corked() >= BATCH_BYTES {
            self.write_batch(handler);
        }
        drained
    }

    /// # Errors
    /// Those of a write.
    fn read_share<H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        ended: bool,
        handler: &mut H,
    ) -> io::Result<bool> {
        loop {
            match self.hub.next_read(slot, &mut self.held) {
                NextRead::Socket => {}
                NextRead::Held => {
                    self.feed(slot, None, handler);
                    self.held = Vec::new();
                    if self.hub.is_over_budget() {
                        self.hub.put_off_read(slot);
                        return Ok(false);
                    }
                    continue;
                }
                NextRead::None => break,
                NextRead::Later => {
                    self.hub.put_off_read(slot);
                    return Ok(false);
                }
            }
            let read = self.read_once(slot, handler);
            let drained = matches!(read, Ok(Read::Short)) && !ended;
            match read {
                Ok(Read::Full | Read::Short) => {}
                Ok(Read::Eof) => {
                    self.write_now(slot, 0)?;
                    if self.hub.has_put_off_write(slot) {
                        // The FIN stays where it is until the replies have had their chance.
                        self.hub.put_off_read(slot);
                        return Ok(false);
                    }
                    self.hub.handle_eof(slot);
                    break;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    self.write_now(slot, 0)?;
                    self.hub.handle_reset(slot, error.kind());
                    break;
                }
            }
            self.write_now(slot, BATCH_BYTES)?;
            if drained {
                break;
            }
            if self.hub.is_over_budget() {
                self.hub.put_off_read(slot);
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn read_once<H: Handler<Data = D>>(&mut self, slot: usize, handler: &mut H) -> io::Result<Read> {
        if let Some((message, left)) = self.hub.direct(slot, DIRECT) {
            let from = message.len();
            // It grows with what arrives, never by what was announced.
            let asked = usize::try_from(left).unwrap_or(usize::MAX).min(from.clamp(1, DIRECT_READ));
            message.resize(from + asked, 0);
            let result = self.transport.read(slot, message.get_mut(from..).unwrap_or_default());
            message.truncate(from + result.as_ref().copied().unwrap_or(0));
            let n = result?;
            if n > 0 {
                self.hub.handle_readable(slot, n);
                let mut cursor = Cursor::new(&mut [], &mut self.scratch);
                if let Some(event) = self.hub.handle_direct(slot, from, &mut cursor) {
                    self.hub.note_callback_begins();
                    handler.on_event(&mut Clients::new(&mut self.hub), event);
                }
                self.deliver(handler);
            }
            return Ok(Read::of(n, asked));
        }
        let n = self.transport.read(slot, &mut self.buffer)?;
        if n > 0 {
            self.hub.handle_readable(slot, n);
            self.feed(slot, Some(n), handler);
        }
        Ok(Read::of(n, self.buffer.len()))
    }

    /// Parses what was read, the first bytes of `buffer` or all of `held`, and delivers what is in it.
    fn feed<H: Handler<Data = D>>(&mut self, slot: usize, of_buffer: Option<usize>, handler: &mut H) {
        self.parsing = Some(Parsing { slot, of_buffer });
        let Self { hub, buffer, held, scratch, .. } = self;
        let bytes = match of_buffer {
            Some(n) => buffer.get_mut(..n).unwrap_or_default(),
            None => held.as_mut_slice(),
        };
        hub.begin_parsing(bytes.len());
        let mut cursor = Cursor::new(bytes, scratch);
        deliver(hub, handler);
        while let Some(event) = hub.next(slot, &mut cursor, handler) {
            hub.note_callback_begins();
            handler.on_event(&mut Clients::new(hub), event);
            deliver(hub, handler);
            hub.hold_if_inflated(slot, &mut cursor);
        }
        deliver(hub, handler);
        self.parsing = None;
    }

    /// A write has failed: what the peer sent before it went away, its Close perhaps, comes first.
    pub(super) fn read_last<H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        kind: io::ErrorKind,
        handler: &mut H,
    ) {
        self.hub.handle_write_failed(slot);
        while self.hub.take_held(slot, &mut self.held) {
            self.feed(slot, None, handler);
            self.held = Vec::new();
        }
        while self.hub.wants_read(slot)
            && matches!(self.read_once(slot, handler), Ok(Read::Full | Read::Short))
        {}
        self.hub.handle_reset(slot, kind);
        self.deliver(handler);
    }
}

/// How a read went.
enum Read {
    /// The buffer was filled: there may be more.
    Full,
    /// There is no more for now.
    Short,
    Eof,
}

impl Read {
    const fn of(n: usize, asked: usize) -> Self {
        match n {
            0 => Self::Eof,
            n if n < asked => Self::Short,
            _ => Self::Full,
        }
    }
}
