//! Compression in the life of a connection: who owns which context, and for how long (RFC 7692 §7).
//!
//! ```text
//!                         no context takeover              context takeover
//!   deflating             the loop's, per window size      the connection's, from its first message until closing, or
//!                                                          until it has sent nothing for a while, if that is set
//!   inflating             the loop's                       the connection's, from its first message until the peer's
//!                                                          Close or a failure
//! ```
//!
//! A message is inflated when all of it is here. One that is cut, by fragments or by the end of a read, waits as it came:
//! so a peer has to send every byte that it makes us hold, and the loop holds one inflated message at a time.

use std::fmt;

use crate::{
    adopt::Role,
    config::{Config, Deflate},
    error::{HandshakeError, ProtocolError, ResponseFault, Violation},
    message::MessageKind,
    time::Time,
    wire::{
        deflate::{
            DeflateParameters, accept, check_answer,
            codec::{Deflater, InflateError, Inflater},
            offer,
        },
        upgrade::{Extensions, Request},
        utf8::Utf8,
    },
};

/// Capacity that the loop's output buffer keeps.
const KEPT: usize = 1 << 20;

/// What the connections of a loop share.
#[derive(Default)]
pub(crate) struct Shared {
    /// By bits of the window, from 9 on; 8 is served by 9.
    deflaters: [Option<Deflater>; 7],
    inflater: Option<Inflater>,
    /// The message that was deflated last.
    compressed: Vec<u8>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Shared {
    /// Deflates a message that refers to none before it. `None` if that is not worth it.
    pub(crate) fn deflate(&mut self, payload: &[u8], window: u8, config: &Config) -> Option<&mut Vec<u8>> {
        let settings = config.deflate.filter(|settings| worth(payload, settings.threshold))?;
        let bits = window.clamp(9, 15);
        let deflater = self.deflaters.get_mut(usize::from(bits - 9))?;
        let deflater = deflater.get_or_insert_with(|| Deflater::new(bits, settings.level));
        let compressed = emptied(&mut self.compressed);
        let smaller = deflater.message(payload, compressed);
        if smaller {
            deflater.reset();
        }
        smaller.then_some(compressed)
    }
}

fn worth(payload: &[u8], threshold: usize) -> bool {
    payload.len() >= threshold.max(1)
}

fn emptied(buffer: &mut Vec<u8>) -> &mut Vec<u8> {
    buffer.clear();
    if buffer.capacity() > KEPT {
        *buffer = Vec::new();
    }
    buffer
}

/// A connection that has negotiated compression.
#[derive(Debug)]
pub(crate) struct Compression {
    agreed: DeflateParameters,
    /// Our messages, and the peer's, may refer to earlier ones.
    sends_keeping: bool,
    receives_keeping: bool,
    /// The bits of our window, as agreed.
    window: u8,
    /// With context takeover only, and only once it was needed.
    deflater: Option<Box<Deflater>>,
    inflater: Option<Box<Inflater>>,
    /// When the deflater was used last.
    deflated: Time,
}

/// Which frame of a broadcast a connection gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sharing {
    /// The message as it is.
    Plain,
    /// Compressed with a window of this many bits, 9 to 15, and without reference to other messages.
    Compressed(u8),
    /// One of its own.
    Nothing,
}

impl Compression {
    /// The server's answer to a request's offers, and how the 101 says it.
    pub(crate) fn accept(config: &Config, request: &Request<'_>) -> Option<(Self, String)> {
        let (agreed, answer) = accept(config.deflate.as_ref()?, request.extensions())?;
        Some((Self::server(agreed), answer))
    }

    /// What a request of ours offers.
    pub(crate) fn offer(config: &Config) -> Option<String> {
        config.deflate.as_ref().map(offer)
    }

    /// What the response to that offer agrees to.
    pub(crate) fn answered(
        config: &Config,
        extensions: Extensions<'_>,
    ) -> Result<Option<Self>, HandshakeError> {
        let Some(settings) = &config.deflate else { return Ok(None) };
        let agreed = check_answer(settings, extensions);
        let agreed = agreed.map_err(|_| HandshakeError::BadResponse(ResponseFault::Extensions))?;
        Ok(agreed.map(Self::client))
    }

    /// What a 101 that somebody else has sent says. `None` if that is not known here; the inner `None`: nothing was agreed on.
    #[expect(clippy::option_option, reason = "not known, known and nothing, something")]
    pub(crate) fn agreed_on(role: Role, value: &str) -> Option<Option<Self>> {
        if value.trim().is_empty() {
            return Some(None);
        }
        // The 101 may say everything that can be said.
        let any = Deflate {
            server_no_context_takeover: false,
            client_no_context_takeover: false,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            ..Deflate::default()
        };
        let agreed = Extensions::with_value(value, |extensions| {
            let agreed = check_answer(&any, extensions.clone()).ok();
            agreed.filter(|_| extensions.are_valid())
        })?;
        Some(agreed.map(|agreed| match role {
            Role::Server => Self::server(agreed),
            Role::Client => Self::client(agreed),
        }))
    }

    fn server(agreed: DeflateParameters) -> Self {
        Self {
            agreed,
            sends_keeping: !agreed.server_no_context_takeover,
            receives_keeping: !agreed.client_no_context_takeover,
            window: agreed.server_max_window_bits.max(9),
            deflater: None,
            inflater: None,
            deflated: Time::ZERO,
        }
    }

    fn client(agreed: DeflateParameters) -> Self {
        Self {
            agreed,
            sends_keeping: !agreed.client_no_context_takeover,
            receives_keeping: !agreed.server_no_context_takeover,
            window: agreed.client_max_window_bits.max(9),
            deflater: None,
            inflater: None,
            deflated: Time::ZERO,
        }
    }

    pub(crate) const fn agreed(&self) -> DeflateParameters {
        self.agreed
    }

    /// What others may get of a message of `len` bytes that this connection gets, too.
    pub(crate) fn sharing(&self, len: usize, config: &Config) -> Sharing {
        match config.deflate {
            Some(settings) if len >= settings.threshold.max(1) => {
                if self.sends_keeping {
                    Sharing::Nothing
                } else {
                    Sharing::Compressed(self.window)
                }
            }
            _ => Sharing::Plain,
        }
    }

    /// Deflates a message to send. `None`: it goes as it is. Only if it is `open`, more will follow.
    pub(crate) fn deflate<'s>(
        &mut self,
        payload: &[u8],
        open: bool,
        shared: &'s mut Shared,
        config: &Config,
        now: Time,
    ) -> Option<&'s mut Vec<u8>> {
        if !self.sends_keeping || !open {
            return shared.deflate(payload, self.window, config);
        }
        let settings = config.deflate.filter(|settings| worth(payload, settings.threshold))?;
        let window = self.window.min(settings.takeover_window_bits);
        let make = || Box::new(Deflater::new(window, settings.level));
        let deflater = self.deflater.get_or_insert_with(make);
        self.deflated = now;
        let compressed = emptied(&mut shared.compressed);
        deflater.message(payload, compressed).then_some(compressed)
    }

    /// When the deflater is freed, unless it is used before.
    pub(crate) fn release_due(&self, config: &Config) -> Option<Time> {
        self.deflater.as_ref()?;
        Some(self.deflated.after(config.deflate?.release_after?))
    }

    /// What will be sent does not refer to what was.
    pub(crate) fn release_deflater(&mut self) {
        self.deflater = None;
    }

    /// Nothing more will be received.
    pub(crate) fn release_inflater(&mut self) {
        self.inflater = None;
    }

    fn own_inflater(&mut self) -> &mut Inflater {
        self.inflater.get_or_insert_default()
    }
}

/// Where a message inflates to, and the rules that it is held against on the way.
pub(crate) struct Target<'t> {
    pub(crate) message: &'t mut Vec<u8>,
    pub(crate) kind: Option<MessageKind>,
    pub(crate) utf8: &'t mut Utf8,
    pub(crate) max_payload: u64,
}

impl Target<'_> {
    fn limit(&self) -> usize {
        usize::try_from(self.max_payload).unwrap_or(usize::MAX)
    }

    /// Takes in what `inflate` appends. The first violation counts: bad text before a limit or bad data after it.
    fn take(
        &mut self,
        inflate: impl FnOnce(&mut Vec<u8>, usize) -> Result<(), InflateError>,
    ) -> Result<(), Violation> {
        let (from, limit) = (self.message.len(), self.limit());
        let result = inflate(self.message, limit);
        if self.kind == Some(MessageKind::Text) {
            let fresh = self.message.get(from..self.message.len().min(limit)).unwrap_or_default();
            self.utf8.feed(fresh).map_err(|_| Violation::InvalidUtf8)?;
        }
        result.map_err(|error| match error {
            InflateError::TooBig => Violation::TooBig { limit: self.max_payload },
            InflateError::Corrupt => ProtocolError::InvalidDeflate.into(),
        })
    }
}

/// What inflates the messages of one connection.
pub(crate) struct Inflate<'c> {
    pub(crate) compression: Option<&'c mut Compression>,
    pub(crate) shared: &'c mut Shared,
}

impl Inflate<'_> {
    /// A message that is all here.
    pub(crate) fn whole(&mut self, payload: &[u8], mut target: Target<'_>) -> Result<(), Violation> {
        emptied(target.message);
        if payload.is_empty() {
            return Ok(());
        }
        let keep = self.keeps();
        let inflater = match &mut self.compression {
            Some(compression) if keep => compression.own_inflater(),
            _ => self.shared.inflater.get_or_insert_with(Inflater::default),
        };
        let result = target
            .take(|out, limit| inflater.feed(payload, out, limit))
            .and_then(|()| target.take(|out, limit| inflater.finish(keep, out, limit)));
        if result.is_err() {
            inflater.reset();
            *target.message = Vec::new();
        }
        result
    }

    fn keeps(&self) -> bool {
        self.compression.as_ref().is_some_and(|compression| compression.receives_keeping)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;
    use crate::{
        close::{Cause, CloseFrame, CloseTiming},
        config::Deflate,
        conn::{Common, Conn, Context, Cursor, state::State},
        id::ConnectionId,
        message::Payload,
        testing::frame,
        time::Time,
        wire::keys::MaskKeys,
    };

    fn open(takeover: bool, cx: &mut Context<'_>) -> Conn {
        let agreed = DeflateParameters {
            server_no_context_takeover: !takeover,
            client_no_context_takeover: !takeover,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        };
        let mut conn = Conn::new(&crate::newcomer::Newcomer::tcp(([127, 0, 0, 1], 1).into()), 1, Time::ZERO);
        conn.establish(Vec::new(), "/", None, None, Some(Compression::server(agreed)), cx);
        conn
    }

    fn receive(conn: &mut Conn, payload: &[u8], cx: &mut Context<'_>) {
        let length = u8::try_from(payload.len()).expect("short");
        let mut bytes = [&[0xC1, 0x80 | length, 0, 0, 0, 0], payload].concat();
        let mut scratch = Vec::new();
        assert!(conn.next(&mut Cursor::new(&mut bytes, &mut scratch), cx).is_some());
    }

    fn contexts(conn: &Conn) -> (bool, bool) {
        let compression = conn.compression().expect("negotiated");
        (compression.deflater.is_some(), compression.inflater.is_some())
    }

    #[test]
    fn contexts_are_made_when_needed_and_given_back_when_closing() {
        let config = Config { deflate: Some(Deflate::default()), ..Config::default() };
        let mut common = Common::new(&config.event_loop, MaskKeys::new(1));
        let mut event_queue = VecDeque::new();
        let mut cx = Context {
            config: &config,
            common: &mut common,
            now: Time::ZERO,
            event_queue: &mut event_queue,
            id: ConnectionId::new(0, 0, 1),
        };
        let (hello, long) = ([0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], "long ".repeat(500));

        let mut quiet = open(false, &mut cx);
        receive(&mut quiet, &hello, &mut cx);
        quiet.send(Payload::from(&long), &mut cx).expect("open");
        assert_eq!(contexts(&quiet), (false, false), "without takeover the loop has them");

        let mut conn = open(true, &mut cx);
        conn.send(Payload::from("short"), &mut cx).expect("open");
        assert_eq!(contexts(&conn), (false, false), "nothing was compressed");
        conn.send(Payload::from(&long), &mut cx).expect("open");
        assert_eq!(contexts(&conn), (true, false));
        receive(&mut conn, &hello, &mut cx);
        assert_eq!(contexts(&conn), (true, true));
        conn.close(CloseFrame::NORMAL, Cause::LocalClose, CloseTiming::default(), &mut cx);
        assert_eq!(contexts(&conn), (false, true), "the peer may still send");
        let mut close = [0x88, 0x80, 0, 0, 0, 0];
        conn.next(&mut Cursor::new(&mut close, &mut Vec::new()), &mut cx);
        assert_eq!(conn.state(), State::RemoteClosing);
        assert_eq!(contexts(&conn), (false, false));
    }

    /// 10 KB that would inflate to 10 MB are 10 KB until the message is finished.
    #[test]
    fn a_message_that_is_not_finished_is_held_as_it_came() {
        let config = Config { deflate: Some(Deflate::default()), ..Config::default() };
        let mut common = Common::new(&config.event_loop, MaskKeys::new(1));
        let mut event_queue = VecDeque::new();
        let mut compressed = Vec::new();
        assert!(Deflater::new(15, 9).message(&vec![0; 10_000_000], &mut compressed));
        let mut cx = Context {
            config: &config,
            common: &mut common,
            now: Time::ZERO,
            event_queue: &mut event_queue,
            id: ConnectionId::new(0, 0, 1),
        };
        for takeover in [false, true] {
            let mut conn = open(takeover, &mut cx);
            let pieces: Vec<_> = compressed.chunks(1000).collect();
            let mut scratch = Vec::new();
            for (number, piece) in pieces.iter().enumerate() {
                let is_last = number + 1 == pieces.len();
                let first = if number == 0 { 0x42 } else { 0 } | if is_last { 0x80 } else { 0 };
                let mut bytes = frame(first, piece);
                let item = conn.next(&mut Cursor::new(&mut bytes, &mut scratch), &mut cx).is_some();
                assert_eq!((item, contexts(&conn).1), (is_last, is_last && takeover));
                let held = conn.inbox.held_bytes();
                assert!(held <= 2 * compressed.len(), "{held} bytes are held");
            }
            assert_eq!(scratch.len(), 10_000_000);
        }
    }
}
