//! The reading of a turn: one socket's share of it, parsed and delivered.

use std::io;

use super::{
    callbacks::{call, start_timers},
    driver::{BATCH_BYTES, BATCH_READS, Driver, ParsedFrom, Parsing, Until},
    handler::Handler,
    parsing::NextRead,
    slot::SocketEnd,
    transport::Transport,
};
use crate::conn::{Cursor, Extent, PeerFin};

/// From this many missing bytes on, a message is read straight into its own buffer.
const DIRECT: u64 = 32 << 10;
/// The most that is read straight into a message's own buffer at once.
const DIRECT_READ: usize = 256 << 10;

impl<D, T: Transport> Driver<D, T> {
    /// Reads what one socket has, for its share of the turn, parses and delivers it, and writes large replies. When all is
    /// read, what the socket has said of its end counts. Returns how far it was read.
    pub(super) fn read<H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        until: Until,
        handler: &mut H,
    ) -> Extent {
        self.parsing = Some(Parsing { slot, from: None });
        self.hub.begin_read(slot);
        let extent = self.read_share(slot, until, handler);
        match self.hub.socket_end(slot) {
            _ if extent != Extent::Wholly => self.hub.put_off_read(slot),
            SocketEnd::Failed(kind) => self.hub.handle_reset(slot, kind),
            SocketEnd::Announced if self.hub.holds_input(slot) => self.handle_left_while_paused(slot),
            SocketEnd::None | SocketEnd::Announced => {}
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

    fn read_share<H: Handler<Data = D>>(&mut self, slot: usize, until: Until, handler: &mut H) -> Extent {
        let mut extent = Extent::Not;
        loop {
            // What has happened before comes before what is read now.
            self.deliver(handler);
            if self.hub.has_undelivered() {
                return extent;
            }
            let progress = match self.hub.next_read(slot, &mut self.held) {
                NextRead::Socket => {
                    extent = Extent::Partly;
                    self.read_socket(slot, until, handler)
                }
                NextRead::HeldBytes => self.read_held(slot, handler),
                NextRead::Nothing => Progress::Done,
                NextRead::Later => Progress::PutOff,
            };
            match progress {
                Progress::More => {}
                Progress::PutOff => return extent,
                Progress::Done => return Extent::Wholly,
            }
        }
    }

    /// Parses what was read earlier.
    fn read_held<H: Handler<Data = D>>(&mut self, slot: usize, handler: &mut H) -> Progress {
        self.feed(slot, ParsedFrom::HeldBytes, handler);
        self.held = Vec::new();
        if self.hub.is_over_budget() { Progress::PutOff } else { Progress::More }
    }

    /// Reads the socket once, and writes the replies if they are large.
    fn read_socket<H: Handler<Data = D>>(&mut self, slot: usize, until: Until, handler: &mut H) -> Progress {
        let is_short = match self.read_once(slot, handler) {
            Read::Full => false,
            Read::Short => until == Until::ShortRead,
            Read::Blocked => {
                self.hub.handle_no_end(slot);
                return Progress::Done;
            }
            Read::Fin => return self.handle_fin(slot),
            Read::Failed(error) => {
                self.handle_read_error(slot, &error);
                return Progress::Done;
            }
        };
        self.write_now(slot, BATCH_BYTES);
        if is_short && matches!(self.hub.socket_end(slot), SocketEnd::None) {
            Progress::Done
        } else if self.hub.is_over_budget_of(slot) {
            Progress::PutOff
        } else {
            Progress::More
        }
    }

    /// The peer's FIN was read. The replies to what came before it have their chance first.
    fn handle_fin(&mut self, slot: usize) -> Progress {
        self.write_now(slot, 0);
        if self.hub.has_failed(slot) {
            return Progress::Done;
        }
        if self.hub.has_put_off_write(slot) {
            // The FIN is read again when the rest of them is written.
            return Progress::PutOff;
        }
        let fin = PeerFin { truncated: self.transport.is_truncated(slot) };
        self.hub.handle_eof(slot, fin);
        Progress::Done
    }

    /// A read has failed. If a write had failed before, that is how the connection ends.
    fn handle_read_error(&mut self, slot: usize, error: &io::Error) {
        if !self.hub.has_failed(slot) {
            self.write_now(slot, 0);
            self.hub.handle_error(slot, error);
        }
    }

    /// The peer of a paused connection has left: nothing is read that would show it.
    fn handle_left_while_paused(&mut self, slot: usize) {
        match self.transport.take_error(slot) {
            Some(kind) => self.hub.handle_reset(slot, kind),
            None => self.hub.handle_read_closed(slot),
        }
    }

    fn read_once<H: Handler<Data = D>>(&mut self, slot: usize, handler: &mut H) -> Read {
        if let Some((message, left)) = self.hub.direct(slot, DIRECT) {
            let from = message.len();
            // It grows with what arrives, never by what was announced.
            let asked = usize::try_from(left).unwrap_or(usize::MAX).min(from.clamp(1, DIRECT_READ));
            let result = self.transport.read(slot, message.room(asked));
            message.advance(result.as_ref().copied().unwrap_or(0));
            let more = self.hub.handle_noticed(slot, self.transport.noticed(slot));
            if let Ok(n @ 1..) = result {
                self.hub.handle_readable(slot, n);
                let mut cursor = Cursor::new(&mut [], &mut self.scratch);
                if let Some(event) = self.hub.handle_direct(slot, from, &mut cursor) {
                    call(&mut self.hub, &mut self.transport, event, handler);
                }
                self.hub.take_back(&mut cursor);
            }
            return Read::of(result, asked, more);
        }
        let result = self.transport.read(slot, &mut self.buffer);
        let more = self.hub.handle_noticed(slot, self.transport.noticed(slot));
        if let Ok(n @ 1..) = result {
            self.hub.handle_readable(slot, n);
            self.feed(slot, ParsedFrom::ReceiveBuffer(n), handler);
        }
        Read::of(result, self.buffer.len(), more)
    }

    /// Parses what was read, the first bytes of `buffer` or all of `held`, and delivers what is in it, as far as the turn's
    /// budget goes. The rest is held.
    fn feed<H: Handler<Data = D>>(&mut self, slot: usize, from: ParsedFrom, handler: &mut H) {
        self.parsing = Some(Parsing { slot, from: Some(from) });
        let Self { hub, transport, buffer, held, scratch, .. } = self;
        let bytes = match from {
            ParsedFrom::ReceiveBuffer(n) => buffer.get_mut(..n).unwrap_or_default(),
            ParsedFrom::HeldBytes => held.as_mut_slice(),
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
            } else if [0, before].contains(&cursor.remaining()) {
                // All is parsed, or nothing can be parsed now.
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
        self.parsing = Some(Parsing { slot, from: None });
    }
}

/// What a step of a connection's share has led to.
enum Progress {
    /// There may be more to read, and the share is not used up.
    More,
    /// The rest is the next turn's.
    PutOff,
    /// All was read.
    Done,
}

/// How a read of a socket went.
enum Read {
    /// There may be more: the buffer was filled, or the transport says so.
    Full,
    /// There is no more for now, but for an end that the socket has announced.
    Short,
    /// There is nothing for now, and no end.
    Blocked,
    Fin,
    Failed(io::Error),
}

impl Read {
    fn of(result: io::Result<usize>, asked: usize, more: bool) -> Self {
        match result {
            Ok(0) => Self::Fin,
            Ok(n) if n < asked && !more => Self::Short,
            Ok(_) => Self::Full,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Self::Blocked,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Self::Full,
            Err(error) => Self::Failed(error),
        }
    }
}
