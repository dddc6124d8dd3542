//! Frames -> messages: fragments, limits, control frames in between (§5.4, §5.5). What a message or a Close means for the
//! connection is decided elsewhere.
//!
//! A message that lies whole in the loop's buffer is lent from there. Only what the buffer's end or fragmentation cuts, or
//! what is read although the application does not want it, is copied, into [`Kept`], which is freed when it is empty.

use std::{mem, str, sync::Arc};

use super::{
    arriving::Arriving,
    broken::{Broken, broken, part, part_mut},
    deflate::{Inflate, Target},
    output::{BufferPool, Lent, OWN_BUFFER},
};
use crate::{
    error::{ProtocolError, Violation},
    message::{Message, MessageKind},
    wire::{
        header::{self, Header, MAX_HEADER, Opcode, Prefix},
        mask,
        utf8::Utf8,
    },
};

/// The longest control frame: a header with a mask and 125 bytes (§5.5).
const MAX_CONTROL: usize = 2 + 4 + 125;

/// A buffer of up to this many bytes is not worth giving back.
const SMALL_BUFFER: u64 = 16 << 10;

/// What is still unread of the loop's buffer, and where a joined message is lent from.
///
/// Pieces are split off the front, so that an event borrows the buffer and not the connection.
#[derive(Debug)]
pub struct Cursor<'b> {
    rest: &'b mut [u8],
    scratch: &'b mut Vec<u8>,
    /// What was in it, as long as the application looks at it.
    lent: Option<Arc<Vec<u8>>>,
}

impl<'b> Cursor<'b> {
    /// A cursor over `bytes` as read from the socket. `scratch` is the loop's: messages that had to be joined are
    /// lent from it until the next one.
    pub fn new(bytes: &'b mut [u8], scratch: &'b mut Vec<u8>) -> Self {
        Self { rest: bytes, scratch, lent: None }
    }

    /// Bytes not consumed yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn rest(&self) -> &[u8] {
        self.rest
    }

    /// Takes `n` bytes off the front, or what there is.
    pub(crate) fn take(&mut self, n: usize) -> &'b mut [u8] {
        let rest = mem::take(&mut self.rest);
        let (piece, rest) = rest.split_at_mut(n.min(rest.len()));
        self.rest = rest;
        piece
    }

    pub(crate) fn take_all(&mut self) -> &'b mut [u8] {
        mem::take(&mut self.rest)
    }

    /// Lends `joined` as if it had been read whole: it becomes the scratch buffer.
    pub(crate) fn lend(&mut self, joined: Vec<u8>) {
        *self.scratch = joined;
    }

    /// The joined message. A large one can be sent on without a copy until [`Cursor::take_back`].
    pub(crate) fn joined_message(&mut self, lent: &mut Lent) -> &[u8] {
        if self.scratch.len() < OWN_BUFFER {
            return self.scratch;
        }
        let message = Arc::new(mem::take(self.scratch));
        lent.set(Some(Arc::clone(&message)));
        self.lent.insert(message)
    }

    /// The application has looked at it. Unless it was sent on, its buffer is kept for the next one: in the pool, or as the
    /// scratch buffer if it is small.
    pub(crate) fn take_back(&mut self, lent: &mut Lent, pool: &mut BufferPool) {
        lent.set(None);
        match self.lent.take().and_then(Arc::into_inner) {
            Some(buffer) if BufferPool::is_worth(&buffer) => pool.keep(buffer),
            Some(buffer) => *self.scratch = buffer,
            None => {}
        }
    }

    pub(crate) fn scratch(&mut self) -> &mut Vec<u8> {
        self.scratch
    }

    /// The payload of a control frame that was joined.
    pub(super) fn joined(&self, at: usize) -> Result<&[u8], Broken> {
        part(self.scratch, at..)
    }
}

/// The limits of one connection that parsing enforces.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) max_payload: u64,
    pub(crate) max_fragments: u32,
    /// A server wants masks, a client refuses them (§5.1).
    pub(crate) expect_mask: bool,
    /// Compression was negotiated: RSV1 has a meaning (RFC 7692 §6).
    pub(crate) deflate: bool,
}

/// A frame or message that is complete. `Joined` ones lie in the cursor's scratch buffer.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Item<'b> {
    Message(Message<'b>),
    JoinedMessage(MessageKind),
    Control(Opcode, &'b [u8]),
    /// The payload begins at this offset of the scratch buffer.
    JoinedControl(Opcode, usize),
}

/// Why nothing more can be parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum InboxError {
    /// The peer broke a rule.
    Violation(Violation),
    /// We broke one of ours.
    Broken,
}

impl<V: Into<Violation>> From<V> for InboxError {
    fn from(violation: V) -> Self {
        Self::Violation(violation.into())
    }
}

impl From<Broken> for InboxError {
    fn from(_: Broken) -> Self {
        Self::Broken
    }
}

/// What a connection has received and not delivered.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    kept: Option<Box<Kept>>,
}

/// What is kept between two reads. Default = nothing.
#[derive(Debug, Default)]
struct Kept {
    /// What was read and not parsed, because reading is paused.
    held: Vec<u8>,
    /// The beginning of a header, or of a whole control frame, that the buffer's end cut.
    spill: Vec<u8>,
    /// The data frame under way.
    frame: Option<Frame>,
    /// The message under way: its kind, set by its first frame.
    kind: Option<MessageKind>,
    /// Its payload so far, unmasked, of all fragments; as it came if it is compressed.
    message: Arriving,
    utf8: Utf8,
    fragments: u32,
    /// It is compressed.
    compressed: bool,
}

/// A data frame whose payload is not all here.
#[derive(Clone, Copy, Debug)]
struct Frame {
    fin: bool,
    mask: Option<[u8; 4]>,
    /// How much of it has arrived, for the mask's phase.
    done: u64,
    left: u64,
}

impl Inbox {
    /// Nothing is kept at all.
    #[inline]
    pub(super) const fn is_empty(&self) -> bool {
        self.kept.is_none()
    }

    #[inline]
    pub(super) fn has_held(&self) -> bool {
        self.kept.as_ref().is_some_and(|kept| !kept.held.is_empty())
    }

    /// Keeps bytes for later, after those that it holds already.
    pub(super) fn hold(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.kept.get_or_insert_default().held.extend_from_slice(bytes);
        }
    }

    pub(super) fn take_held(&mut self) -> Vec<u8> {
        self.kept.as_mut().map(|kept| mem::take(&mut kept.held)).unwrap_or_default()
    }

    /// Forgets the message under way, and says how much of its payload was received.
    pub(super) fn drop_partial(&mut self) -> u64 {
        self.kept.take().map_or(0, |kept| kept.message.len() as u64)
    }

    /// Gives back what a quiet connection does not need.
    #[inline]
    pub(super) fn tidy(&mut self) {
        if self.kept.as_ref().is_some_and(|kept| kept.is_idle() && kept.held.is_empty()) {
            self.kept = None;
        }
    }

    #[cfg(all(test, feature = "deflate"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.kept.as_ref().map_or(0, |kept| kept.message.capacity() + kept.spill.capacity())
    }

    /// If at least `worth` bytes of the message are here and as many of the frame still to come: the buffer to read them
    /// into, and how many. The caller appends what it reads and calls [`Inbox::appended`].
    pub(super) fn direct(&mut self, worth: u64) -> Option<(&mut Arriving, u64)> {
        let kept = self.kept.as_deref_mut()?;
        let left = kept.frame?.left;
        // What has arrived pays for the room that the next read is given.
        let worthwhile = left >= worth && kept.message.len() as u64 >= worth && !kept.compressed;
        worthwhile.then_some((&mut kept.message, left))
    }

    /// Takes in what was appended to the buffer of [`Inbox::direct`] from `from` on, masked as it came. Returns
    /// the message's kind if that completed it; it then lies in `scratch`.
    pub(super) fn appended(
        &mut self,
        from: usize,
        scratch: &mut Vec<u8>,
    ) -> Result<Option<MessageKind>, InboxError> {
        let Some(Kept { frame: Some(frame), message, utf8, kind, .. }) = self.kept.as_deref_mut() else {
            return Ok(None);
        };
        let fresh = message.get_mut(from).ok_or_else(broken)?;
        frame.absorb(fresh);
        if *kind == Some(MessageKind::Text) {
            utf8.feed(fresh).map_err(|_| Violation::InvalidUtf8)?;
        }
        let Some(kept) = self.kept.as_deref_mut() else { return Ok(None) };
        let complete = if kept.end_frame() { kept.end_message()? } else { None };
        if complete.is_some() {
            *scratch = mem::take(&mut kept.message).into_message();
        }
        Ok(complete)
    }

    /// The next item off the cursor; `None` when it is used up. Allocates when something is cut.
    ///
    /// # Errors
    /// The first violation. Nothing after it may be parsed.
    #[inline]
    pub(super) fn next<'b>(
        &mut self,
        cursor: &mut Cursor<'b>,
        limits: Limits,
        inflate: &mut Inflate<'_>,
    ) -> Result<Option<Item<'b>>, InboxError> {
        match self.kept.as_deref_mut().filter(|kept| !kept.is_idle()) {
            None => match Kept::whole(cursor, limits, inflate) {
                Whole::Item(item) => Ok(Some(item)),
                Whole::Empty => Ok(None),
                Whole::Bad(payload, violation) => {
                    // Kept, so that it is counted as lost.
                    self.kept.get_or_insert_default().message = payload.to_vec().into();
                    Err(violation.into())
                }
                Whole::Cut => self.kept.get_or_insert_default().resume(cursor, limits, inflate),
            },
            Some(kept) => kept.resume(cursor, limits, inflate),
        }
    }
}

impl Kept {
    /// Nothing is cut.
    fn is_idle(&self) -> bool {
        self.spill.is_empty() && self.frame.is_none() && self.kind.is_none()
    }

    /// The common case: nothing is kept, and a whole message or control frame lies at the front.
    #[inline]
    fn whole<'b>(cursor: &mut Cursor<'b>, limits: Limits, inflate: &mut Inflate<'_>) -> Whole<'b> {
        if cursor.rest.is_empty() {
            return Whole::Empty;
        }
        // What is cut or breaks a rule is the general case's.
        let Ok(Some(header)) = header::parse(cursor.rest) else { return Whole::Cut };
        if limits.check(&header.prefix(), None).is_err() {
            return Whole::Cut;
        }
        let kind = match header.opcode {
            Opcode::Text => Some(MessageKind::Text),
            Opcode::Binary => Some(MessageKind::Binary),
            Opcode::Continuation | Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        let here = (cursor.rest.len() - header.header_length) as u64;
        if header.length > here || !header.fin {
            return Whole::Cut;
        }
        cursor.take(header.header_length);
        let payload = cursor.take(usize::try_from(header.length).unwrap_or(usize::MAX));
        if let Some(key) = header.mask {
            mask::apply(payload, key, 0);
        }
        let payload: &'b [u8] = payload;
        match kind {
            None => Whole::Item(Item::Control(header.opcode, payload)),
            Some(kind) if header.rsv1 => {
                let mut utf8 = Utf8::default();
                let target = Target {
                    message: cursor.scratch,
                    kind: Some(kind),
                    utf8: &mut utf8,
                    max_payload: limits.max_payload,
                };
                let inflated = inflate.whole(payload, target);
                match inflated.and_then(|()| utf8.finish().map_err(|_| Violation::InvalidUtf8)) {
                    Ok(()) => Whole::Item(Item::JoinedMessage(kind)),
                    Err(violation) => Whole::Bad(payload, violation),
                }
            }
            Some(MessageKind::Text) => match str::from_utf8(payload) {
                Ok(text) => Whole::Item(Item::Message(Message::Text(text))),
                Err(_) => Whole::Bad(payload, Violation::InvalidUtf8),
            },
            Some(MessageKind::Binary) => Whole::Item(Item::Message(Message::Binary(payload))),
        }
    }

    /// The general case: something is kept, or must be.
    fn resume<'b>(
        &mut self,
        cursor: &mut Cursor<'b>,
        limits: Limits,
        inflate: &mut Inflate<'_>,
    ) -> Result<Option<Item<'b>>, InboxError> {
        loop {
            if self.frame.is_some() {
                if let Some(kind) = self.absorb(cursor, limits, inflate)? {
                    cursor.lend(mem::take(&mut self.message).into_message());
                    return Ok(Some(Item::JoinedMessage(kind)));
                }
                if self.frame.is_some() {
                    return Ok(None);
                }
            }
            let underway = self.underway();
            let (header, spilled) = match header::parse(cursor.rest) {
                Ok(Some(header))
                    if self.spill.is_empty() && limits.check(&header.prefix(), underway).is_ok() =>
                {
                    (header, false)
                }
                _ => match self.cut_header(cursor, limits, underway)? {
                    Some(header) => (header, true),
                    None => return Ok(None),
                },
            };
            if header.opcode.is_control() {
                return self.control(cursor, &header, spilled);
            }
            self.begin_frame(&header);
            if !spilled {
                cursor.take(header.header_length);
            }
            self.spill = Vec::new();
        }
    }

    /// The next header, which is cut or breaks a rule. Collects it in `spill`; `None` if the rest of it is not here, and what
    /// is here breaks no rule. Of several violations it returns the one that the fewest bytes show, however they are cut.
    #[cold]
    fn cut_header(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: Limits,
        underway: Option<Underway>,
    ) -> Result<Option<Header>, Violation> {
        if self.spill.is_empty() {
            for end in 1..=cursor.rest.len().min(MAX_HEADER) {
                limits.check_cut(cursor.rest.get(..end).unwrap_or_default(), underway)?;
            }
            debug_assert_eq!(header::parse(cursor.rest), Ok(None), "it breaks no rule, so it is cut");
            self.spill.extend_from_slice(cursor.take_all());
            return Ok(None);
        }
        loop {
            limits.check_cut(&self.spill, underway)?;
            if let Some(header) = header::parse(&self.spill)? {
                return Ok(Some(header));
            }
            match cursor.take(1) {
                [] => return Ok(None),
                byte => self.spill.extend_from_slice(byte),
            }
        }
    }

    fn underway(&self) -> Option<Underway> {
        self.kind.map(|_| Underway {
            compressed: self.compressed,
            received: self.message.len() as u64,
            fragments: self.fragments,
        })
    }

    /// A control frame: lent if it lies whole in the buffer, else collected in `spill`.
    fn control<'b>(
        &mut self,
        cursor: &mut Cursor<'b>,
        header: &Header,
        spilled: bool,
    ) -> Result<Option<Item<'b>>, InboxError> {
        let whole = header.header_length + usize::try_from(header.length).unwrap_or(MAX_CONTROL);
        if !spilled && cursor.rest.len() >= whole {
            cursor.take(header.header_length);
            let payload = cursor.take(whole - header.header_length);
            if let Some(key) = header.mask {
                mask::apply(payload, key, 0);
            }
            return Ok(Some(Item::Control(header.opcode, payload)));
        }
        let missing = whole.saturating_sub(self.spill.len());
        self.spill.extend_from_slice(cursor.take(missing));
        if self.spill.len() < whole {
            return Ok(None);
        }
        if let Some(key) = header.mask {
            mask::apply(part_mut(&mut self.spill, header.header_length..)?, key, 0);
        }
        cursor.scratch.clear();
        cursor.scratch.extend_from_slice(&self.spill);
        self.spill = Vec::new();
        Ok(Some(Item::JoinedControl(header.opcode, header.header_length)))
    }

    /// §5.4: a data frame begins, whose header was checked.
    fn begin_frame(&mut self, header: &Header) {
        if self.kind.is_none() {
            self.kind =
                Some(if header.opcode == Opcode::Text { MessageKind::Text } else { MessageKind::Binary });
            self.fragments = 0;
            self.utf8 = Utf8::default();
            self.compressed = header.rsv1;
            // A buffer left over from a large message is not for a small one that may stay for long.
            if self.message.capacity() as u64 > header.length.saturating_mul(4).max(SMALL_BUFFER) {
                self.message = Arriving::default();
            }
        }
        self.fragments += 1;
        self.frame = Some(Frame { fin: header.fin, mask: header.mask, done: 0, left: header.length });
    }

    /// Takes what the cursor has of the frame's payload. Returns the kind if that completed the message.
    fn absorb(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: Limits,
        inflate: &mut Inflate<'_>,
    ) -> Result<Option<MessageKind>, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(None) };
        let piece = cursor.take(usize::try_from(frame.left).unwrap_or(usize::MAX));
        frame.absorb(piece);
        // Before its UTF-8 is checked: it is counted as lost then.
        self.message.append(piece);
        if self.kind == Some(MessageKind::Text) && !self.compressed {
            self.utf8.feed(piece).map_err(|_| Violation::InvalidUtf8)?;
        }
        if !self.end_frame() {
            return Ok(None);
        }
        if self.compressed {
            self.inflate(limits, inflate)?;
        }
        self.end_message()
    }

    /// Inflates the message, which is all here. Not before: a peer would have to send a thousandth of what it makes us hold.
    fn inflate(&mut self, limits: Limits, inflate: &mut Inflate<'_>) -> Result<(), Violation> {
        let compressed = mem::take(&mut self.message);
        let mut message = Vec::new();
        let target = Target {
            message: &mut message,
            kind: self.kind,
            utf8: &mut self.utf8,
            max_payload: limits.max_payload,
        };
        let result = inflate
            .whole(compressed.as_slice(), target)
            .and_then(|()| self.utf8.finish().map_err(|_| Violation::InvalidUtf8));
        self.message = if result.is_ok() { message.into() } else { compressed };
        result
    }

    /// If the frame is complete, ends it. Says whether it was the message's last.
    fn end_frame(&mut self) -> bool {
        let Some(Frame { fin, left: 0, .. }) = self.frame else { return false };
        self.frame = None;
        fin
    }

    fn end_message(&mut self) -> Result<Option<MessageKind>, Violation> {
        if self.kind == Some(MessageKind::Text) {
            self.utf8.finish().map_err(|_| Violation::InvalidUtf8)?;
        }
        self.compressed = false;
        Ok(self.kind.take())
    }
}

/// What [`Kept::whole`] found.
enum Whole<'b> {
    Item(Item<'b>),
    /// A payload that breaks a rule.
    Bad(&'b [u8], Violation),
    Empty,
    /// Not whole, or a fragment: the general case must take it.
    Cut,
}

impl Frame {
    /// Unmasks the next piece of the payload.
    fn absorb(&mut self, piece: &mut [u8]) {
        if let Some(key) = self.mask {
            mask::apply(piece, key, (self.done & 3) as usize);
        }
        self.done += piece.len() as u64;
        self.left = self.left.saturating_sub(piece.len() as u64);
    }
}

/// The message that the next data frame continues.
#[derive(Clone, Copy, Debug)]
struct Underway {
    compressed: bool,
    /// Payload so far, as it came.
    received: u64,
    fragments: u32,
}

impl Limits {
    /// The rules that depend on the connection, in the order of the bytes that they look at.
    #[inline(always)]
    #[expect(clippy::inline_always, reason = "it is in the way of every message, and most of it falls out")]
    fn check(self, header: &Prefix, underway: Option<Underway>) -> Result<(), Violation> {
        if header.rsv1 && !self.allows_rsv1(header.opcode) {
            return Err(ProtocolError::ReservedBits.into());
        }
        match (header.opcode, underway) {
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation.into()),
            (Opcode::Continuation, Some(message)) if message.fragments >= self.max_fragments => {
                return Err(Violation::TooBig { limit: u64::from(self.max_fragments) });
            }
            (Opcode::Text | Opcode::Binary, Some(_)) => {
                return Err(ProtocolError::ExpectedContinuation.into());
            }
            _ => {}
        }
        match (self.expect_mask, header.masked) {
            (true, Some(false)) => return Err(ProtocolError::Unmasked.into()),
            (false, Some(true)) => return Err(ProtocolError::Masked.into()),
            _ => {}
        }
        if header.opcode.is_control() {
            return Ok(());
        }
        // Of a compressed message it is what was received that is announced; what it inflates to is seen at its end.
        let compressed = header.rsv1 || underway.is_some_and(|message| message.compressed);
        let received = underway.map_or(0, |message| message.received);
        // Where DEFLATE cannot save anything it costs a little.
        let slack = if compressed { self.max_payload / 256 + 64 } else { 0 };
        if received.saturating_add(header.length_so_far) > self.max_payload.saturating_add(slack) {
            return Err(Violation::TooBig { limit: self.max_payload });
        }
        Ok(())
    }

    /// The same for the beginning of a header, and the rules that need no connection.
    fn check_cut(self, bytes: &[u8], underway: Option<Underway>) -> Result<(), Violation> {
        header::peek(bytes)?.map_or(Ok(()), |prefix| self.check(&prefix, underway))
    }

    /// RFC 7692 §6: RSV1 is for the first frame of a message, once compression was negotiated.
    const fn allows_rsv1(self, opcode: Opcode) -> bool {
        self.deflate && matches!(opcode, Opcode::Text | Opcode::Binary)
    }
}
