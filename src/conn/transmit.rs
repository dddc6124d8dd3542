//! From messages to the kernel: the cork, the backlog, and the writes.

use std::{
    io::{self, IoSlice},
    rc::Rc,
};

use super::{
    Conn, Context, DRAIN_FROM, Note, Todo, Transmitted,
    deflate::Sharing,
    lifecycle::Why,
    outbound::{self, Backlog, Cork, Head, MAX_SLICES},
    state::{Input, State},
};
use crate::{
    config::Config,
    event::{Data, Kind, Message},
    time::Time,
    wire::header::{MAX_HEADER, Opcode, frame_length},
};

impl Conn {
    /// A key for the next frame, if we are the client (§5.3).
    pub(super) fn mask(&self, cork: &mut Cork) -> Option<[u8; 4]> {
        self.flags.client.then(|| cork.keys.mask())
    }

    #[inline]
    pub(super) fn has_backlog(&self) -> bool {
        self.work.as_ref().is_some_and(|work| !work.backlog.is_empty())
    }

    pub(super) fn backlog(&mut self, now: Time) -> &mut Backlog {
        let work = self.work.get_or_insert_default();
        if work.backlog.is_empty() {
            work.progress = now;
            self.todo.add(Todo::ALARM);
        }
        &mut work.backlog
    }

    fn has_queued_close(&self) -> bool {
        self.ending().is_some_and(|ending| ending.sent.is_some())
    }

    /// Moves what is in the cork to the backlog.
    pub(super) fn uncork(&mut self, cork: &mut Cork, now: Time) {
        if !self.corked.is_empty() {
            let corked = self.corked;
            let keep_pongs = self.has_queued_close();
            self.backlog(now).push_rest(corked.bytes(cork), 0, keep_pongs);
            self.corked.clear(cork);
        }
    }

    /// The way of most messages: nothing is special about the connection, nothing waits but in the cork, and there is
    /// room. Says whether that was so; if not, nothing has happened.
    #[inline]
    pub(super) fn send_plainly(&mut self, message: &Message<'_>, cx: &mut Context<'_>) -> bool {
        let (payload, cork) = (message.as_bytes(), &mut *cx.cork);
        let room = self.corked.reaches_end(cork) && !cork.is_full() && payload.len() < OWN_BUFFER;
        if !(room && self.is_plain(payload.len() + MAX_HEADER, cx.config)) {
            return false;
        }
        let start = cork.bytes.len();
        outbound::write_frame(&mut cork.bytes, None, opcode(message.kind), payload);
        let end = cork.bytes.len();
        self.corked.extend(cork, start, end);
        self.note_corked();
        true
    }

    /// The same for a broadcast whose frame is in the cork.
    #[inline]
    pub(crate) fn share_plainly(&mut self, frames: &Frames<'_>, cx: &mut Context<'_>) -> bool {
        let Some(Shared::Corked(start, end)) = frames.plain else { return false };
        let plain = self.is_plain(end - start, cx.config) && self.corked.extend(cx.cork, start, end);
        if plain {
            self.note_corked();
        }
        plain
    }

    /// Nothing is special about the connection, nothing waits but in the cork, and there is room for so many bytes more.
    #[inline]
    fn is_plain(&self, bytes: usize, config: &Config) -> bool {
        let plain = self.state == State::Open && self.work.is_none() && self.extras.is_none();
        let ready = !self.flags.blocked && !self.flags.client;
        plain && ready && self.corked.len() + bytes <= config.max_backlog
    }

    #[inline]
    fn note_corked(&mut self) {
        self.flags.behind |= self.corked.len() >= DRAIN_FROM;
        self.todo.add(Todo::WRITE);
    }

    pub(super) fn push_message(&mut self, message: Message<'_>, cx: &mut Context<'_>) {
        let opcode = opcode(message.kind);
        let open = self.state == State::Open;
        let coding = self.extras.as_mut().and_then(|extras| extras.coding.as_mut());
        if let Some(packed) =
            coding.and_then(|coding| coding.deflate(message.as_bytes(), open, cx.deflate, cx.config))
        {
            return self.push_packed(opcode, packed, cx.cork, cx.now);
        }
        let (cork, now) = (&mut *cx.cork, cx.now);
        match message.data {
            Data::Borrowed(payload) => self.push_frame(opcode, payload, cork, now),
            Data::Scratch(payload) if payload.len() < OWN_BUFFER => {
                self.push_frame(opcode, payload, cork, now);
            }
            Data::Owned(payload) if payload.len() < OWN_BUFFER => {
                self.push_frame(opcode, &payload, cork, now);
            }
            Data::Scratch(payload) => self.push_owned(opcode, std::mem::take(payload), cork, now),
            Data::Owned(payload) => self.push_owned(opcode, payload, cork, now),
        }
    }

    /// Queues a message that was compressed.
    fn push_packed(&mut self, opcode: Opcode, payload: &mut Vec<u8>, cork: &mut Cork, now: Time) {
        let head = Head::compressed(opcode);
        if payload.len() < OWN_BUFFER {
            self.push_frame(head, payload, cork, now);
        } else {
            self.push_owned(head, std::mem::take(payload), cork, now);
        }
    }

    pub(super) fn push_owned(&mut self, head: impl Into<Head>, payload: Vec<u8>, cork: &mut Cork, now: Time) {
        let mask = self.mask(cork);
        self.uncork(cork, now);
        self.backlog(now).push_owned(mask, head, payload);
        self.want_write();
    }

    pub(super) fn push_frame(&mut self, head: impl Into<Head>, payload: &[u8], cork: &mut Cork, now: Time) {
        let mask = self.mask(cork);
        if !self.flags.blocked && !self.has_backlog() && self.corked.reaches_end(cork) && !cork.is_full() {
            let start = cork.bytes.len();
            outbound::write_frame(&mut cork.bytes, mask, head, payload);
            let end = cork.bytes.len();
            self.corked.extend(cork, start, end);
        } else {
            self.uncork(cork, now);
            self.backlog(now).push_frame(mask, head, payload);
        }
        self.want_write();
    }

    /// A control frame goes behind what is queued; of Pongs in the backlog only the newest is kept (§5.5.3).
    pub(super) fn push_control(&mut self, opcode: Opcode, payload: &[u8], cork: &mut Cork, now: Time) {
        if opcode == Opcode::Pong && self.flags.blocked && self.has_backlog() {
            let mask = self.mask(cork);
            self.backlog(now).push_pong(mask, payload);
            return self.want_write();
        }
        if let (Opcode::Pong, Some(work)) = (opcode, &mut self.work) {
            // It goes behind all others, so a newer one must not take the place of one in front of it.
            work.backlog.pin_pong();
        }
        self.push_frame(opcode, payload, cork, now);
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
        W: FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        let mut done = Transmitted::default();
        if !self.corked.is_empty() {
            let corked = self.corked;
            let bytes = corked.bytes(cx.cork);
            let offered = bytes.get(..limit).unwrap_or(bytes);
            done.bytes = accepted(writer(&[IoSlice::new(offered)]))?;
            done.blocked = done.bytes < offered.len();
            if done.bytes < bytes.len() {
                self.flags.behind = true;
                let keep_pongs = self.has_queued_close();
                self.backlog(cx.now).push_rest(bytes, done.bytes, keep_pongs);
            }
            self.corked.clear(cx.cork);
        } else if self.has_backlog() {
            self.transmit_backlog(limit, cx, writer, &mut done)?;
        } else {
            return Ok(done);
        }
        done.more = !done.blocked && self.has_backlog();
        self.flags.blocked = done.blocked || done.more;
        self.note_drained();
        self.handle_written(done.bytes, cx);
        Ok(done)
    }

    fn transmit_backlog<W>(
        &mut self,
        limit: usize,
        cx: &mut Context<'_>,
        writer: &mut W,
        done: &mut Transmitted,
    ) -> io::Result<()>
    where
        W: FnMut(&[IoSlice<'_>]) -> io::Result<usize>,
    {
        while let Some(work) = self.work.as_mut().filter(|_| done.bytes < limit) {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let (count, offered) = work.backlog.slices(limit - done.bytes, &mut slices);
            if offered == 0 {
                break;
            }
            let n = accepted(writer(slices.get(..count).unwrap_or_default()))?;
            if n > 0 {
                work.progress = cx.now;
                work.backlog.advance(n, &mut cx.cork.spares);
                done.bytes += n;
            }
            if n < offered {
                self.flags.behind = true;
                done.blocked = true;
                break;
            }
        }
        Ok(())
    }

    /// Everything is in the kernel: asks for the `Drain` that is owed.
    fn note_drained(&mut self) {
        if self.flags.behind && self.buffered_amount() == 0 {
            self.todo.add(Todo::DRAIN);
        }
    }

    /// Reports the `Drain` that is owed, unless something is queued again.
    pub(crate) fn report_drain(&mut self, cx: &mut Context<'_>) {
        if self.flags.behind && self.buffered_amount() == 0 {
            self.flags.behind = false;
            if self.state == State::Open {
                cx.notes.push_back(Note::Drain(cx.id));
            }
        }
    }

    /// `n` more bytes are in the kernel: was the Close, or the HTTP answer, among them?
    pub(super) fn handle_written(&mut self, n: usize, cx: &mut Context<'_>) {
        if let Some(ending) = self.ending_mut() {
            let due = ending.to_flush > 0;
            ending.to_flush = ending.to_flush.saturating_sub(n);
            if due && ending.to_flush == 0 && ending.sent.is_some() {
                self.apply(Input::Flushed, Why::Nothing, cx);
            }
        } else if self.state == State::Refusing && !self.has_backlog() {
            self.apply(Input::Flushed, Why::Nothing, cx);
        }
        self.tidy();
    }

    /// Gives back what a quiet connection does not need.
    pub(super) fn tidy(&mut self) {
        if let Some(work) = &self.work
            && work.ending.is_none()
            && work.inbound.is_idle()
            && work.backlog.is_empty()
            && work.held.is_empty()
            && self.state != State::Connecting
        {
            self.work = None;
        }
    }
}

/// A broadcast's frame: a range of the cork, or, if it is large, counted.
pub(super) enum Shared {
    Corked(usize, usize),
    Counted(Rc<[u8]>),
}

/// The frames of a broadcast: each is made for the first connection that gets it.
#[expect(clippy::option_option, reason = "not tried, tried in vain, made")]
pub(crate) struct Frames<'m> {
    message: Message<'m>,
    plain: Option<Shared>,
    /// By the bits of the window, from 9 on. An inner `None`: compressing it is not worth it.
    packed: [Option<Option<Shared>>; 7],
}

impl<'m> Frames<'m> {
    /// The cork must be held as long as these are in use.
    pub(crate) fn new(message: Message<'m>) -> Self {
        Self { message, plain: None, packed: [const { None }; 7] }
    }

    pub(super) fn message(&self) -> Message<'_> {
        self.message.reborrow()
    }

    pub(super) fn get(&mut self, sharing: Sharing, cx: &mut Context<'_>) -> Option<&Shared> {
        let opcode = opcode(self.message.kind);
        let payload = self.message.as_bytes();
        match sharing {
            Sharing::Nothing => return None,
            Sharing::Plain => {}
            Sharing::Packed(window) => {
                let packed =
                    self.packed.get_mut(usize::from(window).saturating_sub(9))?.get_or_insert_with(|| {
                        let packed = cx.deflate.deflate(payload, window, cx.config)?;
                        Some(Shared::new(Head::compressed(opcode), packed, cx.cork))
                    });
                if packed.is_some() {
                    return packed.as_ref();
                }
            }
        }
        Some(self.plain.get_or_insert_with(|| Shared::new(opcode.into(), payload, cx.cork)))
    }
}

impl Shared {
    fn new(head: Head, payload: &[u8], cork: &mut Cork) -> Self {
        if payload.len() >= COUNTED {
            let mut frame = Vec::with_capacity(frame_length(payload.len(), false));
            outbound::write_frame(&mut frame, None, head, payload);
            return Self::Counted(frame.into());
        }
        let start = cork.bytes.len();
        outbound::write_frame(&mut cork.bytes, None, head, payload);
        Self::Corked(start, cork.bytes.len())
    }
}

fn opcode(kind: Kind) -> Opcode {
    match kind {
        Kind::Text => Opcode::Text,
        Kind::Binary => Opcode::Binary,
    }
}

/// A broadcast's frame with at least this much payload is counted, not copied, by those who cannot send it at once.
const COUNTED: usize = 4 << 10;

/// From here on a payload that has its own buffer is queued as that, instead of copied.
const OWN_BUFFER: usize = 16 << 10;

/// `WouldBlock` is a write of nothing.
fn accepted(result: io::Result<usize>) -> io::Result<usize> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(0),
        other => other,
    }
}
