//! Headers, masks, UTF-8: a room without state, so a round is a loop.

use std::hint::black_box;

use adjourn::wire::{
    header::{self, Opcode},
    mask,
    utf8::Utf8,
};

use crate::{Bench, Round, again};

const TIMES: u32 = 100;

const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

pub(crate) const BENCHES: &[Bench] = &[
    bench("header/parse/small", "header", || parse(5, Some(KEY))),
    bench("header/parse/small-unmasked", "header", || parse(5, None)),
    bench("header/parse/126", "header", || parse(1 << 10, Some(KEY))),
    bench("header/parse/127", "header", || parse(1 << 20, Some(KEY))),
    bench("header/write/small", "header", || write(5, None)),
    bench("header/write/small-masked", "header", || write(5, Some(KEY))),
    bench("header/write/126", "header", || write(1 << 10, None)),
    bench("header/write/127", "header", || write(1 << 20, None)),
    bench("mask/125", "payload", || apply(125, 0)),
    bench("mask/125-from-3", "payload", || apply(125, 3)),
    bench("mask/1KiB", "payload", || apply(1 << 10, 0)),
    bench("mask/1KiB-from-1", "payload", || apply(1 << 10, 1)),
    bench("mask/64KiB", "payload", || apply(64 << 10, 0)),
    bench("mask/64KiB-from-3", "payload", || apply(64 << 10, 3)),
    bench("utf8/ascii", "KiB", || validate("The quick brown fox jumps. ", 1 << 10)),
    bench("utf8/mixed", "KiB", || validate("Grüße an alle, 😀 and naïve. ", 1 << 10)),
    bench("utf8/cjk", "KiB", || validate("東京都千代田区", 1 << 10)),
    bench("utf8/ascii-in-pieces-of-100", "KiB", || validate("The quick brown fox jumps. ", 100)),
    bench("utf8/mixed-in-pieces-of-100", "KiB", || validate("Grüße an alle, 😀 and naïve. ", 100)),
    bench("utf8/cjk-in-pieces-of-100", "KiB", || validate("東京都千代田区", 100)),
    bench("utf8/cjk-in-pieces-of-1", "KiB", || validate("東京都千代田区", 1)),
];

const fn bench(name: &'static str, unit: &'static str, prepare: fn() -> Round) -> Bench {
    Bench { name, unit, units: TIMES, prepare }
}

fn parse(length: u64, key: Option<[u8; 4]>) -> Round {
    let mut bytes = Vec::new();
    header::write(&mut bytes, true, false, Opcode::Binary, key, length);
    bytes.extend_from_slice(&[0; 32]);
    again(move || {
        for _ in 0..TIMES {
            let header = header::parse(black_box(&bytes)).expect("it is valid").expect("it is whole");
            black_box(header);
        }
    })
}

fn write(length: u64, key: Option<[u8; 4]>) -> Round {
    let mut out = Vec::new();
    again(move || {
        for _ in 0..TIMES {
            out.clear();
            header::write(&mut out, true, false, Opcode::Binary, black_box(key), black_box(length));
            black_box(&out);
        }
    })
}

/// A payload whose first bytes came with an earlier read, and which begins at no particular address.
fn apply(length: usize, offset: usize) -> Round {
    let mut bytes = vec![0x5a; length + 1];
    again(move || {
        for _ in 0..TIMES {
            mask::apply(black_box(&mut bytes[1..]), black_box(KEY), black_box(offset));
        }
    })
}

/// The text again and again, about a KiB of it, in pieces.
fn validate(text: &str, piece: usize) -> Round {
    let text = text.repeat(1024 / text.len() + 1);
    let end = text.floor_char_boundary(1024);
    let text = text[..end].to_owned();
    again(move || {
        for _ in 0..TIMES {
            let mut utf8 = Utf8::default();
            for piece in black_box(text.as_bytes()).chunks(piece) {
                utf8.feed(piece).expect("it is valid");
            }
            utf8.finish().expect("it is whole");
        }
    })
}
