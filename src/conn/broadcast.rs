//! The frames of a message that many get: each is made for the first connection that gets it, and shared by the others.

use std::sync::Arc;

use super::{
    Context,
    backlog::{FrameHead, opcode, write_frame},
    backlogs::{OWN_BLOCK, Piece},
    deflate::Sharing,
    output::{Lent, OutputBuffer},
};
use crate::{message::Payload, wire::header::frame_length};

/// From this many bytes of payload on a frame is not put into the output buffer: what is queued after it would leave the caches.
const LARGE: usize = 64 << 10;

/// A shared frame: a range of the output buffer or, if it is large, frozen at once.
#[derive(Clone, Copy)]
pub(super) enum Shared {
    Range(usize, usize),
    Frozen(Piece),
}

/// See above.
#[expect(clippy::option_option, reason = "not tried, tried in vain, made")]
pub(crate) struct Frames<'m> {
    message: Payload<'m>,
    plain: Option<Shared>,
    /// A connection got the message as it lies in the buffer that it came in.
    sent_on: bool,
    /// By the bits of the window, from 9 on. An inner `None`: compressing it is not worth it.
    compressed: [Option<Option<Shared>>; 7],
}

impl<'m> Frames<'m> {
    /// The output buffer must be locked as long as these are in use.
    pub(crate) fn new(message: Payload<'m>) -> Self {
        Self { message, plain: None, sent_on: false, compressed: [const { None }; 7] }
    }

    /// Bytes of payload.
    pub(crate) fn len(&self) -> usize {
        self.message.len()
    }

    pub(super) fn message(&self) -> Payload<'_> {
        self.message.borrowed()
    }

    /// Where the frames without compression lie in the output buffer, if they were made and one follows the other.
    #[inline]
    pub(super) fn plain_range(messages: &[Self]) -> Option<(usize, usize)> {
        let mut all = None;
        for frames in messages {
            let &Shared::Range(start, end) = frames.plain.as_ref()? else { return None };
            all = match all {
                None => Some((start, end)),
                Some((first, last)) if last == start => Some((first, end)),
                Some(_) => return None,
            };
        }
        all
    }

    /// Whether the frame that a connection gets was made for another one.
    pub(super) fn is_made(&self, sharing: Sharing) -> bool {
        match sharing {
            Sharing::Nothing => false,
            Sharing::Plain => self.plain.is_some(),
            Sharing::Compressed(window) => match self.compressed.get(usize::from(window).saturating_sub(9)) {
                Some(Some(None)) => self.plain.is_some(),
                made => matches!(made, Some(Some(Some(_)))),
            },
        }
    }

    /// A large message that came in and is sent on: to the first connection as it is, so that a relay to one other copies nothing. The
    /// others share a copy, which they may keep for longer.
    pub(super) fn send_on(&mut self, sharing: Sharing, lent: &Lent) -> Option<Arc<Vec<u8>>> {
        if self.sent_on || self.plain.is_some() || !matches!(sharing, Sharing::Plain) {
            return None;
        }
        let message = lent.get(self.message.as_bytes());
        self.sent_on = message.is_some();
        message
    }

    pub(super) fn get(&mut self, sharing: Sharing, cx: &mut Context<'_>) -> Option<Shared> {
        let opcode = opcode(self.message.kind);
        let payload = self.message.as_bytes();
        match sharing {
            Sharing::Nothing => return None,
            Sharing::Plain => {}
            Sharing::Compressed(window) => {
                let place = self.compressed.get_mut(usize::from(window).saturating_sub(9))?;
                let compressed = place.get_or_insert_with(|| {
                    let payload = cx.common.deflate.deflate(payload, window, cx.config)?;
                    Some(Shared::new(FrameHead::compressed(opcode), payload, &mut cx.common.output))
                });
                if compressed.is_some() {
                    return *compressed;
                }
            }
        }
        Some(*self.plain.get_or_insert_with(|| Shared::new(opcode.into(), payload, &mut cx.common.output)))
    }
}

impl Shared {
    fn new(head: FrameHead, payload: &[u8], output: &mut OutputBuffer) -> Self {
        let length = frame_length(payload.len(), false);
        if payload.len() >= LARGE || (payload.len() >= OWN_BLOCK && !output.has_room_for(length)) {
            let mut frame = Vec::with_capacity(length);
            write_frame(&mut frame, None, head, payload);
            return Self::Frozen(output.freeze(frame));
        }
        let (start, end) = output.append_shared(|out| write_frame(out, None, head, payload));
        Self::Range(start, end)
    }
}
