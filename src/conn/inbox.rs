//! Frames -> messages: fragments, limits, control frames in between (§5.4, §5.5). What a message or a Close means for the
//! connection is decided elsewhere.
//!
//! A message that lies whole in the loop's buffer is lent from there. Only what the buffer's end or fragmentation cuts, or
//! what is read although the application does not want it, is copied, into [`Kept`], which is freed when it is empty.

use std::{mem, str};

use super::{
    deflate::{Inflate, Target},
    output::{Broken, part, part_mut},
};
use crate::{
    error::{ProtocolError, Violation},
    event::Kind,
    wire::{
        header::{self, Header, Opcode},
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
}

impl<'b> Cursor<'b> {
    /// A cursor over `bytes` as read from the socket. `scratch` is the loop's: messages that had to be joined are
    /// lent from it until the next one.
    pub fn new(bytes: &'b mut [u8], scratch: &'b mut Vec<u8>) -> Self {
        Self { rest: bytes, scratch }
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
    pub(crate) fn lend(&mut self, joined: &mut Vec<u8>) {
        *self.scratch = mem::take(joined);
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
#[derive(Debug)]
pub(crate) enum Item<'b> {
    Message(Kind, &'b mut [u8]),
    JoinedMessage(Kind),
    Control(Opcode, &'b mut [u8]),
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
    kind: Option<Kind>,
    /// Its payload so far, unmasked, of all fragments; as it came if it is compressed.
    message: Vec<u8>,
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
    pub(super) fn direct(&mut self, worth: u64) -> Option<(&mut Vec<u8>, u64)> {
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
    ) -> Result<Option<Kind>, InboxError> {
        let Some(Kept { frame: Some(frame), message, utf8, kind, .. }) = self.kept.as_deref_mut() else {
            return Ok(None);
        };
        let fresh = part_mut(message, from..)?;
        frame.absorb(fresh);
        if *kind == Some(Kind::Text) {
            utf8.feed(fresh).map_err(|_| Violation::InvalidUtf8)?;
        }
        let Some(kept) = self.kept.as_deref_mut() else { return Ok(None) };
        let complete = if kept.end_frame() { kept.end_message()? } else { None };
        if complete.is_some() {
            *scratch = mem::take(&mut kept.message);
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
            None => match Kept::whole(cursor, limits, inflate)? {
                Whole::Item(item) => Ok(Some(item)),
                Whole::Empty => Ok(None),
                Whole::Bad(payload, violation) => {
                    // Kept, so that it is counted as lost.
                    self.kept.get_or_insert_default().message = payload.to_vec();
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
    fn whole<'b>(
        cursor: &mut Cursor<'b>,
        limits: Limits,
        inflate: &mut Inflate<'_>,
    ) -> Result<Whole<'b>, Violation> {
        if cursor.rest.is_empty() {
            return Ok(Whole::Empty);
        }
        let Some(header) = header::parse(cursor.rest)? else { return Ok(Whole::Cut) };
        limits.check(&header)?;
        let kind = match header.opcode {
            Opcode::Text => Some(Kind::Text),
            Opcode::Binary => Some(Kind::Binary),
            Opcode::Continuation => return Err(ProtocolError::UnexpectedContinuation.into()),
            Opcode::Close | Opcode::Ping | Opcode::Pong => None,
        };
        if kind.is_some() {
            limits.check_announced(&header, header.rsv1, 0)?;
        }
        let here = (cursor.rest.len() - header.header_length) as u64;
        if header.length > here || !header.fin {
            return Ok(Whole::Cut);
        }
        cursor.take(header.header_length);
        let payload = cursor.take(usize::try_from(header.length).unwrap_or(usize::MAX));
        if let Some(key) = header.mask {
            mask::apply(payload, key, 0);
        }
        match kind {
            None => Ok(Whole::Item(Item::Control(header.opcode, payload))),
            Some(kind) if header.rsv1 => {
                let mut utf8 = Utf8::default();
                let target = Target { message: cursor.scratch, kind: Some(kind), utf8: &mut utf8, limits };
                let inflated = inflate.whole(payload, target);
                Ok(match inflated.and_then(|()| utf8.finish().map_err(|_| Violation::InvalidUtf8)) {
                    Ok(()) => Whole::Item(Item::JoinedMessage(kind)),
                    Err(violation) => Whole::Bad(payload, violation),
                })
            }
            Some(Kind::Text) if str::from_utf8(payload).is_err() => {
                Ok(Whole::Bad(payload, Violation::InvalidUtf8))
            }
            Some(kind) => Ok(Whole::Item(Item::Message(kind, payload))),
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
                    cursor.lend(&mut self.message);
                    return Ok(Some(Item::JoinedMessage(kind)));
                }
                if self.frame.is_some() {
                    return Ok(None);
                }
            }
            let (header, spilled) = if self.spill.is_empty() {
                (header::parse(cursor.rest)?, false)
            } else {
                (self.complete_header(cursor)?, true)
            };
            let Some(header) = header else {
                if !spilled {
                    self.spill.extend_from_slice(cursor.take_all());
                }
                return Ok(None);
            };
            limits.check(&header)?;
            if header.opcode.is_control() {
                return self.control(cursor, &header, spilled);
            }
            self.begin_frame(&header, limits)?;
            if !spilled {
                cursor.take(header.header_length);
            }
            self.spill = Vec::new();
        }
    }

    /// Moves bytes from the cursor to the spilled beginning of a header until that is whole.
    fn complete_header(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<Header>, Violation> {
        loop {
            if let Some(header) = header::parse(&self.spill)? {
                return Ok(Some(header));
            }
            match cursor.take(1) {
                [] => return Ok(None),
                byte => self.spill.extend_from_slice(byte),
            }
        }
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

    /// §5.4: a data frame begins; the message's kind and limits are known from here on.
    fn begin_frame(&mut self, header: &Header, limits: Limits) -> Result<(), Violation> {
        let kind = match (header.opcode, self.kind) {
            (Opcode::Text, None) => Kind::Text,
            (Opcode::Binary, None) => Kind::Binary,
            (Opcode::Continuation, Some(kind)) => kind,
            (Opcode::Continuation, None) => return Err(ProtocolError::UnexpectedContinuation.into()),
            _ => return Err(ProtocolError::ExpectedContinuation.into()),
        };
        // Of a compressed message it is what was received that is announced; what it inflates to is seen at its end.
        limits.check_announced(header, header.rsv1 || self.compressed, self.message.len() as u64)?;
        if self.kind.is_none() {
            self.fragments = 0;
            self.utf8 = Utf8::default();
            self.compressed = header.rsv1;
            // A buffer left over from a large message is not for a small one that may stay for long.
            if self.message.capacity() as u64 > header.length.saturating_mul(4).max(SMALL_BUFFER) {
                self.message = Vec::new();
            }
        }
        self.fragments += 1;
        if self.fragments > limits.max_fragments {
            return Err(Violation::TooBig { limit: u64::from(limits.max_fragments) });
        }
        self.kind = Some(kind);
        self.frame = Some(Frame { fin: header.fin, mask: header.mask, done: 0, left: header.length });
        Ok(())
    }

    /// Takes what the cursor has of the frame's payload. Returns the kind if that completed the message.
    fn absorb(
        &mut self,
        cursor: &mut Cursor<'_>,
        limits: Limits,
        inflate: &mut Inflate<'_>,
    ) -> Result<Option<Kind>, Violation> {
        let Some(frame) = &mut self.frame else { return Ok(None) };
        let piece = cursor.take(usize::try_from(frame.left).unwrap_or(usize::MAX));
        frame.absorb(piece);
        // Before its UTF-8 is checked: it is counted as lost then.
        self.message.extend_from_slice(piece);
        if self.kind == Some(Kind::Text) && !self.compressed {
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
        let target = Target { message: &mut self.message, kind: self.kind, utf8: &mut self.utf8, limits };
        let result = inflate
            .whole(&compressed, target)
            .and_then(|()| self.utf8.finish().map_err(|_| Violation::InvalidUtf8));
        if result.is_err() {
            self.message = compressed;
        }
        result
    }

    /// If the frame is complete, ends it. Says whether it was the message's last.
    fn end_frame(&mut self) -> bool {
        let Some(Frame { fin, left: 0, .. }) = self.frame else { return false };
        self.frame = None;
        fin
    }

    fn end_message(&mut self) -> Result<Option<Kind>, Violation> {
        if self.kind == Some(Kind::Text) {
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

impl Limits {
    /// What is true of every frame: masks as the role has it (§5.1), no reserved bit (§5.2).
    fn check(self, header: &Header) -> Result<(), Violation> {
        match (self.expect_mask, header.mask) {
            (true, None) => Err(ProtocolError::Unmasked.into()),
            (false, Some(_)) => Err(ProtocolError::Masked.into()),
            _ if header.rsv1 && !self.allows_rsv1(header.opcode) => Err(ProtocolError::ReservedBits.into()),
            _ => Ok(()),
        }
    }

    /// RFC 7692 §6: RSV1 is for the first frame of a message, once compression was negotiated.
    fn allows_rsv1(self, opcode: Opcode) -> bool {
        self.deflate && matches!(opcode, Opcode::Text | Opcode::Binary)
    }

    /// The whole message so far and announced, against `max_payload`; compressed, with what DEFLATE costs where it cannot
    /// save anything.
    fn check_announced(self, header: &Header, compressed: bool, so_far: u64) -> Result<(), Violation> {
        let slack = if compressed { self.max_payload / 256 + 64 } else { 0 };
        if so_far.saturating_add(header.length) > self.max_payload.saturating_add(slack) {
            return Err(Violation::TooBig { limit: self.max_payload });
        }
        Ok(())
    }
}
