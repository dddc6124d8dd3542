//! What was read: where the next bytes come from, and the events in them.

use std::mem;

use super::{handler::Handler, table::Hub};
use crate::{
    conn::{Arriving, Conn, Cursor, Item, Parses},
    event::Event,
    id::ConnectionId,
    message::{Message, MessageKind},
    wire::header::Opcode,
};

/// Where the next bytes of a connection come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NextRead {
    Socket,
    /// What was read earlier and is not parsed.
    HeldBytes,
    /// It is not to be read.
    Nothing,
    /// It has had its share of the turn.
    Later,
}

impl<D> Hub<D> {
    /// Where the next bytes of a slot come from, and takes that read off its share of the turn. What was read earlier, and
    /// could not be parsed because the connection was paused, is moved to `held`.
    #[inline]
    pub(super) fn next_read(&mut self, slot: usize, held: &mut Vec<u8>) -> NextRead {
        let turn = self.turn.number;
        let Some(entry) = self.slots.get_mut(slot) else { return NextRead::Nothing };
        let reads = entry.share.of(turn).reads;
        let holds = entry.conn.has_held_to_parse();
        if !holds && !entry.conn.wants_read() {
            return NextRead::Nothing;
        }
        if !entry.share.may_read(&self.config) {
            return NextRead::Later;
        }
        entry.share.reads = reads.saturating_add(1);
        if holds {
            *held = entry.conn.take_held();
            return NextRead::HeldBytes;
        }
        NextRead::Socket
    }

    /// Keeps bytes that were read and not parsed for the next turn.
    pub(super) fn hold(&mut self, slot: usize, bytes: &[u8]) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.conn.hold(bytes);
        }
        self.put_off_read(slot);
    }

    /// The next event that the bytes under the cursor bring. `None` when they are used up, or after a message that was
    /// inflated to be discarded. Upgrade requests go to
    /// `handler` at once. Deliver what [`Hub::poll_event`] has before each call.
    pub(super) fn next<'c, H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        cursor: &'c mut Cursor<'_>,
        handler: &mut H,
    ) -> Option<Event<'c>> {
        if cursor.remaining() == 0 {
            return None;
        }
        let conn = &self.slots.get(slot)?.conn;
        match (conn.state().capabilities().parses, conn.is_client()) {
            (Parses::Frames | Parses::Nothing, _) => return self.next_item(slot, cursor),
            (Parses::Head, false) => self.next_head(slot, cursor, handler),
            (Parses::Head, true) => self.next_response(slot, cursor),
        }
        self.turn.unparsed = cursor.remaining();
        // What comes after a head is of the state that the head has led to, and that is reported first.
        if self.has_undelivered() { self.poll_event() } else { self.next_item(slot, cursor) }
    }

    /// The same after the head: frames, or what is to be held or discarded.
    #[inline]
    fn next_item<'c>(&mut self, slot: usize, cursor: &'c mut Cursor<'_>) -> Option<Event<'c>> {
        let (item, id, closing) = self.with(slot, |conn, cx| {
            let item = conn.next(cursor, cx);
            (item, cx.id, !conn.is_open())
        })?;
        self.turn.unparsed = cursor.remaining();
        self.charge_inflated();
        self.event_of(item?, id, closing, cursor)
    }

    /// A few bytes may inflate to many.
    #[inline]
    fn charge_inflated(&mut self) {
        if self.common.inflated > 0 {
            self.turn.bytes = self.turn.bytes.saturating_sub(mem::take(&mut self.common.inflated));
            self.turn.inflated = true;
        }
    }

    /// If the rest of a large message is due on this slot: the buffer to append it to as it comes from the socket,
    /// and how many bytes are due. Then call [`Hub::handle_direct`].
    pub(super) fn direct(&mut self, slot: usize, worth: u64) -> Option<(&mut Arriving, u64)> {
        let (message, left) = self.slots.get_mut(slot)?.conn.direct(worth)?;
        self.common.pool.lend(message);
        Some((message, left))
    }

    /// Bytes were appended to the buffer that [`Hub::direct`] lent, after its first `from`.
    pub(super) fn handle_direct<'c>(
        &mut self,
        slot: usize,
        from: usize,
        cursor: &'c mut Cursor<'_>,
    ) -> Option<Event<'c>> {
        let (item, id, closing) = self.with(slot, |conn, cx| {
            let item = conn.handle_direct(from, cursor, cx);
            (item, cx.id, !conn.is_open())
        })?;
        self.charge_inflated();
        self.event_of(item?, id, closing, cursor)
    }

    /// The application has looked at what was read.
    #[inline]
    pub(super) fn take_back(&mut self, cursor: &mut Cursor<'_>) {
        if self.common.lent.is_some() {
            cursor.take_back(&mut self.common.lent, &mut self.common.pool);
        }
    }

    /// Most items are messages that lie whole in the receive buffer.
    #[inline]
    fn event_of<'c>(
        &mut self,
        item: Item<'c>,
        id: ConnectionId,
        closing: bool,
        cursor: &'c mut Cursor<'_>,
    ) -> Option<Event<'c>> {
        match item {
            Item::Message(message) => Some(Event::Message { id, message, closing }),
            Item::JoinedMessage(kind) => self.event_of_joined(kind, id, closing, cursor),
            Item::Control(opcode, payload) => Some(control_event(opcode, id, payload)),
            Item::JoinedControl(opcode, at) => {
                let payload = cursor.scratch().get(at..).unwrap_or_default();
                Some(control_event(opcode, id, payload))
            }
        }
    }

    #[inline(never)]
    fn event_of_joined<'c>(
        &mut self,
        kind: MessageKind,
        id: ConnectionId,
        closing: bool,
        cursor: &'c mut Cursor<'_>,
    ) -> Option<Event<'c>> {
        let payload = cursor.joined_message(&mut self.common.lent);
        let message = match kind {
            MessageKind::Binary => Message::Binary(payload),
            MessageKind::Text => {
                let Ok(text) = str::from_utf8(payload) else {
                    self.with(id.slot(), Conn::fail_checked_text);
                    return None;
                };
                Message::Text(text)
            }
        };
        Some(Event::Message { id, message, closing })
    }

    /// `n` bytes of this slot were read.
    #[inline]
    pub(super) fn handle_readable(&mut self, slot: usize, n: usize) {
        self.turn.bytes = self.turn.bytes.saturating_sub(n);
        self.common.totals.received_bytes += n as u64;
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.conn.note_inbound(n, self.now);
        }
    }

    /// `n` bytes are about to be parsed.
    pub(super) const fn begin_parsing(&mut self, n: usize) {
        self.turn.unparsed = n;
    }

    /// Whether the rest of a read is to be held for the next turn: this one calls no more callbacks, or what was inflated
    /// is more than it may be. What is discarded or held by the connection is not.
    #[inline]
    pub(super) fn is_to_hold(&self, slot: usize) -> bool {
        let over = self.turn.callbacks == 0 || (self.turn.inflated && self.turn.bytes == 0);
        over && self.slots.get(slot).is_some_and(|entry| entry.conn.parses_frames())
    }
}

fn control_event(opcode: Opcode, id: ConnectionId, payload: &[u8]) -> Event<'_> {
    if opcode == Opcode::Ping { Event::Ping { id, payload } } else { Event::Pong { id, payload } }
}
