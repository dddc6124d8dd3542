//! From bytes to what the application is handed, and what happens to the rest.

use super::{
    Arriving, CloseTiming, Conn, Context, Cursor, Item,
    broken::{Broken, broken},
    deflate::Inflate,
    inbox::{InboxError, Limits},
    life::Life,
    state::{Failure, Input, State},
};
use crate::{
    close::{CloseCode, CloseFrame},
    config::{ClosingData, Config},
    error::{ProtocolError, Violation},
    wire::header::Opcode,
};

impl Conn {
    /// The next thing that `cursor` holds for the application. What is not for it is dealt with on the way; after a message
    /// that was inflated, and is not for it, there may be more although this is `None`.
    pub(crate) fn next<'b>(&mut self, cursor: &mut Cursor<'b>, cx: &mut Context<'_>) -> Option<Item<'b>> {
        loop {
            let open = matches!(self.life, Life::Open { .. });
            if !open && !self.parses_frames() {
                self.take_unparsed(cursor, cx);
                return None;
            }
            match self.parse(cursor, cx) {
                Ok(None) => {
                    self.inbox.tidy();
                    return None;
                }
                // Most messages: there is nothing to give back, and no ending to ask.
                Ok(Some(item @ Item::Message(..))) if open && self.inbox.is_empty() => {
                    self.count_received(cx);
                    return Some(item);
                }
                Ok(Some(item)) => {
                    self.inbox.tidy();
                    let inflated = self.note_inflated(&item, cursor, cx);
                    let item = self.admit(item, cursor, cx);
                    if item.is_some() || inflated {
                        return item;
                    }
                }
                Err(error) => self.handle_inbox_error(error, cx),
            }
        }
    }

    /// A data message was received whole.
    #[inline]
    fn count_received(&mut self, cx: &mut Context<'_>) {
        cx.common.totals.received_messages += 1;
        if let Some(traffic) = self.details.traffic_mut() {
            traffic.received_messages += 1;
        }
    }

    /// Counts what was inflated. Says whether something was, or may have been.
    fn note_inflated(&self, item: &Item<'_>, cursor: &mut Cursor<'_>, cx: &mut Context<'_>) -> bool {
        let inflated = self.compression().is_some() && matches!(item, Item::JoinedMessage(_));
        if inflated {
            cx.common.inflated += cursor.scratch().len();
        }
        inflated
    }

    #[inline]
    pub(super) fn parse<'b>(
        &mut self,
        cursor: &mut Cursor<'b>,
        cx: &mut Context<'_>,
    ) -> Result<Option<Item<'b>>, InboxError> {
        let limits = self.limits(cx.config);
        let compression = self.details.compression_mut();
        let mut inflate = Inflate { compression, shared: &mut cx.common.deflate };
        self.inbox.next(cursor, limits, &mut inflate)
    }

    #[inline]
    fn limits(&self, config: &Config) -> Limits {
        let settings = self.settings(config);
        Limits {
            max_payload: settings.max_payload as u64,
            max_fragments: settings.max_fragments,
            expect_mask: !self.client,
            deflate: self.compression().is_some(),
        }
    }

    /// Input of a state in which no frames are parsed: held for later, or discarded.
    fn take_unparsed(&mut self, cursor: &mut Cursor<'_>, cx: &mut Context<'_>) {
        let rest = cursor.take_all();
        if self.life.holds_input() {
            self.inbox.hold(rest);
            self.inbox.tidy();
        } else {
            self.handle_discarded(rest.len(), cx);
        }
    }

    /// A callback has panicked, and this was read and not parsed: held if it still counts, discarded if not.
    pub(crate) fn recover(&mut self, rest: &[u8], cx: &mut Context<'_>) {
        if self.state().capabilities().discards {
            self.handle_discarded(rest.len(), cx);
        } else {
            self.hold(rest);
        }
    }

    /// Bytes of a state in which nothing is parsed.
    fn handle_discarded(&mut self, n: usize, cx: &mut Context<'_>) {
        if n == 0 || !self.state().capabilities().discards {
            return;
        }
        match &mut self.life {
            Life::Refusing { discarded, .. } | Life::Lingering { discarded, .. } => {
                *discarded = discarded.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
                if u64::from(*discarded) > self.details.settings(&cx.config.connection).linger_bytes {
                    self.apply(Input::LingerEnd { exceeded: true }, cx);
                }
            }
            life => {
                if let Some(closing) = life.closing_mut() {
                    closing.lost.trailing_bytes += n as u64;
                }
            }
        }
    }

    /// A closing handshake is to end: the peer's Close may be among what was read and not parsed. Messages before it are
    /// counted, and not delivered.
    pub(super) fn parse_held(&mut self, cx: &mut Context<'_>) {
        let Life::LocalClosing { paused, .. } = &mut self.life else { return };
        *paused = true;
        let (mut held, mut scratch) = (self.inbox.take_held(), Vec::new());
        let mut cursor = Cursor::new(&mut held, &mut scratch);
        let mut before = usize::MAX;
        while (1..before).contains(&cursor.remaining()) {
            before = cursor.remaining();
            self.next(&mut cursor, cx);
        }
    }

    /// Deals with a whole item; gives it back if the application is to see it.
    fn admit<'b>(
        &mut self,
        item: Item<'b>,
        cursor: &mut Cursor<'b>,
        cx: &mut Context<'_>,
    ) -> Option<Item<'b>> {
        match &item {
            Item::Message(message) => self.deliver(message.len(), cx).then_some(item),
            Item::JoinedMessage(_) => self.deliver(cursor.scratch().len(), cx).then_some(item),
            Item::Control(opcode, payload) => self.control(*opcode, payload, cx).then_some(item),
            Item::JoinedControl(opcode, at) => match cursor.joined(*at) {
                Ok(payload) => self.control(*opcode, payload, cx).then_some(item),
                Err(broken) => {
                    self.fail_internally(broken, cx);
                    None
                }
            },
        }
    }

    /// Whether a message is delivered. Otherwise it is counted.
    fn deliver(&mut self, len: usize, cx: &mut Context<'_>) -> bool {
        self.count_received(cx);
        let settings = self.details.settings(&cx.config.connection);
        match &mut self.life {
            Life::Paused(paused) => {
                paused.messages += 1;
                paused.bytes += len as u64;
                false
            }
            Life::LocalClosing { closing, paused } => {
                closing.delivered += len as u64;
                let over_budget = closing.delivered > settings.closing_bytes;
                let discarded = *paused || over_budget || settings.closing_data == ClosingData::Discard;
                if discarded {
                    closing.lost.inbound_messages += 1;
                    closing.lost.inbound_bytes += len as u64;
                }
                !discarded
            }
            life => life.state().capabilities().delivers,
        }
    }

    /// A control frame. Returns whether it is delivered.
    fn control(&mut self, opcode: Opcode, payload: &[u8], cx: &mut Context<'_>) -> bool {
        if opcode == Opcode::Close {
            self.handle_close(payload, cx);
            return false;
        }
        let totals = &mut cx.common.totals;
        *if opcode == Opcode::Ping { &mut totals.received_pings } else { &mut totals.received_pongs } += 1;
        if !self.is_within_rate(cx) {
            self.fail(ProtocolError::ControlFlood.into(), cx);
            return false;
        }
        if opcode == Opcode::Ping {
            self.push_pong(payload, cx);
        }
        self.state().capabilities().delivers && !matches!(self.life, Life::Paused(_))
    }

    fn handle_close(&mut self, payload: &[u8], cx: &mut Context<'_>) {
        match CloseFrame::parse(payload) {
            Ok(frame) if self.outbox.has_flushed_close() => {
                self.apply(Input::PeerCloseAfterFlush { frame }, cx);
            }
            Ok(frame) => self.apply(Input::PeerClose { frame }, cx),
            Err(violation) => self.fail(violation, cx),
        }
    }

    /// Whether the peer may send one more Ping or Pong now. A connection that is closing has a deadline instead.
    fn is_within_rate(&mut self, cx: &Context<'_>) -> bool {
        match (self.settings(cx.config).control_rate, self.life.watch_mut()) {
            (Some(rate), Some(watch)) => watch.control(rate, cx.now),
            _ => true,
        }
    }

    /// §7.1.7: the peer broke a rule.
    fn fail(&mut self, violation: Violation, cx: &mut Context<'_>) {
        let frame = match violation {
            Violation::Protocol(ProtocolError::InvalidDeflate) => {
                CloseFrame::with_constant(CloseCode::INVALID_DATA, "invalid compressed data")
            }
            // No rule of the protocol, but one of ours.
            Violation::Protocol(ProtocolError::ControlFlood) => {
                CloseFrame::with_constant(CloseCode::POLICY, "too many control frames")
            }
            Violation::Protocol(_) => CloseFrame::with_constant(CloseCode::PROTOCOL, "protocol error"),
            Violation::TooBig { .. } => CloseFrame::with_constant(CloseCode::TOO_BIG, "message too big"),
            Violation::InvalidUtf8 => CloseFrame::with_constant(CloseCode::INVALID_DATA, "invalid UTF-8"),
        };
        let failure = Failure { cause: violation.into(), frame, timing: CloseTiming::DEFAULT };
        let input = if self.outbox.has_flushed_close() {
            Input::ViolationAfterFlush { failure }
        } else {
            Input::Violation { failure }
        };
        self.apply(input, cx);
    }

    /// Text that was checked as it arrived is none.
    #[cold]
    pub(crate) fn fail_checked_text(&mut self, cx: &mut Context<'_>) {
        self.fail_internally(broken(), cx);
    }

    fn handle_inbox_error(&mut self, error: InboxError, cx: &mut Context<'_>) {
        match error {
            InboxError::Violation(violation) => self.fail(violation, cx),
            InboxError::Broken => self.fail_internally(Broken, cx),
        }
    }

    /// Takes what was read and could not be parsed, because the connection was paused. Empty as long as it is.
    #[inline]
    pub(crate) fn take_held(&mut self) -> Vec<u8> {
        if self.inbox.has_held() && self.parses_frames() { self.inbox.take_held() } else { Vec::new() }
    }

    /// If the rest of a large message is due: the buffer to append it to, and how many bytes are due. Then call
    /// [`Conn::handle_direct`].
    #[inline]
    pub(crate) fn direct(&mut self, worth: u64) -> Option<(&mut Arriving, u64)> {
        if self.inbox.is_empty() || !self.parses_frames() {
            return None;
        }
        self.inbox.direct(worth)
    }

    /// Bytes were appended to what [`Conn::direct`] lent. Returns the message if that completed it.
    pub(crate) fn handle_direct<'b>(
        &mut self,
        from: usize,
        cursor: &mut Cursor<'b>,
        cx: &mut Context<'_>,
    ) -> Option<Item<'b>> {
        match self.inbox.appended(from, cursor.scratch()) {
            Ok(kind) => {
                let kind = kind?;
                self.inbox.tidy();
                let item = Item::JoinedMessage(kind);
                self.note_inflated(&item, cursor, cx);
                self.admit(item, cursor, cx)
            }
            Err(error) => {
                self.handle_inbox_error(error, cx);
                None
            }
        }
    }

    /// Whether it is established and not closing, to mark what is delivered.
    pub(crate) const fn is_open(&self) -> bool {
        matches!(self.life.state(), State::Open)
    }
}
