//! What a client may say: requests, offers of compression, streams of frames that are nearly right.

use adjourn::{config::Deflate, testing};
use flate2::{Compress, Compression, FlushCompress};

use super::input::Input;

/// Settings of compression, every one of them.
pub fn settings(input: &mut Input<'_>) -> Deflate {
    let mut settings = Deflate::default();
    let flags = input.u8();
    settings.server_no_context_takeover = flags & 1 == 0;
    settings.client_no_context_takeover = flags & 2 == 0;
    settings.threshold = if flags & 4 == 0 { 0 } else { 100 };
    settings.takeover_window_bits = if flags & 8 == 0 { 12 } else { 15 };
    settings.level = (flags >> 4).min(9);
    let windows = input.u8();
    settings.server_max_window_bits = 15 - (windows & 7);
    settings.client_max_window_bits = 15 - (windows >> 4 & 7);
    settings
}

/// A value of `Sec-WebSocket-Extensions`: one of a few good ones, or anything that a header line can hold.
pub fn offer(input: &mut Input<'_>) -> Vec<u8> {
    const GOOD: [&str; 7] = [
        "permessage-deflate",
        "permessage-deflate; client_max_window_bits",
        "permessage-deflate; client_no_context_takeover; server_no_context_takeover",
        "permessage-deflate; server_max_window_bits=9; client_max_window_bits=9",
        "permessage-deflate; server_no_context_takeover; client_max_window_bits=10",
        "foo; bar=1, permessage-deflate; client_max_window_bits=\"8\"",
        "permessage-deflate; server_max_window_bits=8",
    ];
    match GOOD.get(usize::from(input.u8() & 15)) {
        Some(good) => good.as_bytes().to_vec(),
        None => input.piece().iter().filter(|byte| !byte.is_ascii_control()).copied().collect(),
    }
}

/// An upgrade request that makes this offer.
pub fn request(offer: &[u8]) -> Vec<u8> {
    let head = testing::REQUEST.strip_suffix(b"\r\n").expect("it ends in an empty line");
    [head, b"Sec-WebSocket-Extensions: ", offer, b"\r\n\r\n"].concat()
}

/// Frames until the input is used up: right ones, broken ones, stray bytes.
pub fn stream(input: &mut Input<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    while !input.is_empty() {
        step(input, &mut out);
    }
    out
}

/// A few bytes of the input's, as a piece of such a stream.
pub fn step(input: &mut Input<'_>, out: &mut Vec<u8>) {
    match input.u8() % 8 {
        0..=2 => {
            let first = input.u8();
            out.extend_from_slice(&testing::frame(first, input.piece()));
        }
        3 => {
            // The usual kinds: text, binary, Ping, Pong, Close, and fragments.
            let first =
                input.pick(&[0x81, 0x82, 0x89, 0x8a, 0x88, 0x01, 0x02, 0x00, 0x80, 0xc1, 0xc2, 0x41, 0x42]);
            out.extend_from_slice(&testing::frame(first, input.piece()));
        }
        4 => out.extend_from_slice(input.piece()),
        5 => {
            let (first, length, byte) =
                (input.pick(&[0x81, 0x82, 0x01, 0x00, 0x80]), input.u16(), input.u8());
            out.extend_from_slice(&testing::frame(first, &vec![byte; usize::from(length % 5000)]));
        }
        6 => {
            let (kind, cut, payload) = (input.pick(&[1, 2]), usize::from(input.u8()), pack(input.piece()));
            let (first, rest) = payload.split_at(cut.min(payload.len()));
            out.extend_from_slice(&testing::frame(0x40 | kind, first));
            out.extend_from_slice(&testing::frame(0x80, rest));
        }
        _ => {
            // As much as can be made of little.
            let (kind, length, byte) = (input.pick(&[0xc1, 0xc2]), input.u16(), input.u8());
            out.extend_from_slice(&testing::frame(kind, &pack(&vec![byte; usize::from(length)])));
        }
    }
}

/// A message as a client without context takeover compresses it (RFC 7692 §7.2.1).
pub fn pack(message: &[u8]) -> Vec<u8> {
    Packer::new(15, true).pack(message)
}

/// A client's compressor.
pub struct Packer {
    stream: Compress,
    forgets: bool,
}

impl Packer {
    pub fn new(bits: u8, forgets: bool) -> Self {
        Self { stream: Compress::new_with_window_bits(Compression::fast(), false, bits.max(9)), forgets }
    }

    pub fn pack(&mut self, message: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(message.len() + 64);
        if self.forgets {
            self.stream.reset();
        }
        self.stream.compress_vec(message, &mut out, FlushCompress::Sync).expect("a Vec takes every byte");
        assert!(out.len() < out.capacity(), "there was room for the flush");
        // Behind a flush there is nothing to flush; §7.2.3.6 has one byte for it.
        match out.len() {
            0 => vec![0],
            n => out[..n - 4].to_vec(),
        }
    }
}
