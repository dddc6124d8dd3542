//! DEFLATE streams as messages: what is cut off their ends and put back (§7.2), and the limits while inflating.
//!
//! The codec is `zlib-rs`: the fastest of those that can keep a window between messages, and pure Rust. CONTRIBUTING.md has
//! the measurements. No frame and no header enters.

use std::fmt;

use thiserror::Error;
use zlib_rs::{Deflate, DeflateConfig, DeflateFlush, Inflate, InflateFlush, Status};

/// What a flushed stream ends with: cut off by the sender, put back by the receiver (§7.2.1, §7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// An empty block that ends a stream.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xFF, 0xFF];
/// Output grows by this much at least, and at first by [`MOST_GROWTH`] at most.
const LEAST_GROWTH: usize = 2 << 10;
const MOST_GROWTH: usize = 1 << 20;
/// Nothing is to come out of what was cut off.
const TAIL_ROOM: usize = 64;
/// A flush fits into this.
const FLUSH_ROOM: usize = 64;

/// zlib has no windows of 256 bytes. Its 512 reach back 250 bytes at most, so they serve for both.
const LEAST_BITS: u8 = 9;
/// The largest window.
const MOST_BITS: u8 = 15;

/// zlib's `memLevel`: a block has 2,047 symbols at most. With the usual 8 it has 16,383, and messages are as small within a thousandth,
/// but each one begins by zeroing 96 KiB for them instead of 12, and a compressor is 98 KiB larger.
const MEMORY_LEVEL: i32 = 5;

/// The least of zlib's levels that is used: in `zlib-rs` 0.6.8, 0 and 1 panic if the output has to grow in the middle of a message
/// that does not become smaller.
const LEAST_LEVEL: i32 = 2;

/// Why a message cannot be inflated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum InflateError {
    /// It is more than the limit.
    #[error("inflates to more than the limit")]
    TooBig,
    /// It is no DEFLATE data, or not all of it.
    #[error("no valid DEFLATE data")]
    Corrupt,
}

/// Inflates the messages of one sender, or, without context takeover, of any. 46 KiB: `zlib-rs` always has the largest
/// window, whatever the sender's is.
pub struct Inflater {
    stream: Inflate,
    /// The last block had BFINAL.
    ended: bool,
}

impl fmt::Debug for Inflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inflater").field("ended", &self.ended).finish_non_exhaustive()
    }
}

impl Default for Inflater {
    fn default() -> Self {
        Self { stream: Inflate::new(false, MOST_BITS), ended: false }
    }
}

impl Inflater {
    /// Forgets everything.
    pub fn reset(&mut self) {
        self.stream.reset(false);
        self.ended = false;
    }

    /// Inflates the next piece of a message to the end of `out`, which grows with what comes and is at most one byte
    /// longer than `limit` at the end. What was inflated before an error stays in it.
    ///
    /// # Errors
    /// The message cannot be finished then.
    pub fn feed(&mut self, piece: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), InflateError> {
        self.inflate(piece, (4 * piece.len()).clamp(LEAST_GROWTH, MOST_GROWTH), out, limit)
    }

    /// The same; `out` grows by `growth` at first.
    fn inflate(
        &mut self,
        mut piece: &[u8],
        mut growth: usize,
        out: &mut Vec<u8>,
        limit: usize,
    ) -> Result<(), InflateError> {
        loop {
            if self.ended {
                if piece.is_empty() {
                    return Ok(());
                }
                // §7.2.3.4: BFINAL ends a stream and not the message. The next one begins with an empty window, as
                // every deflate library has it.
                self.reset();
            }
            let start = out.len();
            let most = limit.saturating_add(1).saturating_sub(start).max(1);
            let room = grow(out, growth.min(most), 1);
            let taken = self.stream.total_in();
            let made = self.stream.total_out();
            let status = self.stream.decompress(
                piece,
                out.get_mut(start..).unwrap_or_default(),
                InflateFlush::SyncFlush,
            );
            let taken = difference(self.stream.total_in(), taken);
            let made = difference(self.stream.total_out(), made);
            out.truncate(start + made);
            piece = piece.get(taken..).unwrap_or_default();
            if out.len() > limit {
                out.truncate(limit.saturating_add(1));
                return Err(InflateError::TooBig);
            }
            match status {
                Err(_) => return Err(InflateError::Corrupt),
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(Status::Ok | Status::BufError) => {
                    let stuck = taken == 0 && made == 0;
                    if made < room && (piece.is_empty() || stuck) {
                        return if piece.is_empty() { Ok(()) } else { Err(InflateError::Corrupt) };
                    }
                }
            }
            // By what has come out at least, so that each byte is moved a few times at most.
            growth = growth.max(out.len());
        }
    }

    /// The message has ended: puts back what its sender cut off (§7.2.2). `keep` says that the next message may refer
    /// to this one.
    ///
    /// # Errors
    /// If the message ended in the middle of a block. Without `keep` all such messages are detected, with it most.
    pub fn finish(&mut self, keep: bool, out: &mut Vec<u8>, limit: usize) -> Result<(), InflateError> {
        let whole = out.len();
        if !self.ended {
            self.inflate(&TAIL, TAIL_ROOM, out, limit).map_err(|_| InflateError::Corrupt)?;
        }
        if !keep && !self.ended {
            self.inflate(&LAST_BLOCK, TAIL_ROOM, out, limit).map_err(|_| InflateError::Corrupt)?;
        }
        // §7.2.1: what was cut off belongs to a block without content.
        if out.len() > whole || (!keep && !self.ended) {
            return Err(InflateError::Corrupt);
        }
        if !keep {
            self.reset();
        }
        Ok(())
    }
}

/// Deflates the messages for one receiver, or, without context takeover, for any. 270 KiB with a window of 15 bits,
/// 160 KiB with 12, 145 KiB with 9.
pub struct Deflater {
    stream: Deflate,
    /// Level 0: no message becomes smaller.
    stores: bool,
}

impl fmt::Debug for Deflater {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deflater").finish_non_exhaustive()
    }
}

impl Deflater {
    /// A window of at most `window_bits`, and a level of 0 to 9. Level 0 makes nothing smaller; 1 is the same as 2. Allocates.
    pub fn new(window_bits: u8, level: u8) -> Self {
        // Negative: no zlib header.
        let window_bits = -i32::from(window_bits.clamp(LEAST_BITS, MOST_BITS));
        let config = DeflateConfig {
            level: i32::from(level).clamp(LEAST_LEVEL, 9),
            window_bits,
            mem_level: MEMORY_LEVEL,
            ..DeflateConfig::default()
        };
        Self { stream: Deflate::new_with_config(config), stores: level == 0 }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.stream.reset();
    }

    /// Deflates a message to the end of `out`, if that makes it smaller, and returns whether. If not, `out` is unchanged, and
    /// the window is empty.
    #[must_use]
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        if self.stores {
            return false;
        }
        let start = out.len();
        let smaller = self.deflate(payload, out);
        if !smaller {
            out.truncate(start);
            self.reset();
        }
        smaller
    }

    fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let before = out.len();
        let most = payload.len() + TAIL.len();
        let mut rest = payload;
        loop {
            let start = out.len();
            // Room for a flush: zlib would begin another one if it does not fit.
            let room = grow(out, (rest.len() / 2).clamp(LEAST_GROWTH, MOST_GROWTH), FLUSH_ROOM);
            let taken = self.stream.total_in();
            let made = self.stream.total_out();
            let status =
                self.stream.compress(rest, out.get_mut(start..).unwrap_or_default(), DeflateFlush::SyncFlush);
            let taken = difference(self.stream.total_in(), taken);
            let made = difference(self.stream.total_out(), made);
            out.truncate(start + made);
            if status.is_err() {
                return false;
            }
            rest = rest.get(taken..).unwrap_or_default();
            if out.len() - before >= most {
                return false;
            }
            if rest.is_empty() && made < room {
                break;
            }
        }
        let tail = out.len().saturating_sub(TAIL.len());
        if tail <= before || out.get(tail..) != Some(&TAIL) {
            return false;
        }
        out.truncate(tail);
        true
    }
}

/// Makes `out` longer by `n` zeroes, to be overwritten, or by as many as it has room for, if those are `least`. Returns by how many.
fn grow(out: &mut Vec<u8>, n: usize, least: usize) -> usize {
    let free = out.capacity() - out.len();
    let by = if free < least { n } else { n.min(free) };
    out.reserve_exact(by);
    out.resize(out.len() + by, 0);
    by
}

fn difference(after: u64, before: u64) -> usize {
    usize::try_from(after - before).unwrap_or(usize::MAX)
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A message in pieces.
    fn inflate(
        inflater: &mut Inflater,
        pieces: &[&[u8]],
        keep: bool,
        limit: usize,
    ) -> Result<Vec<u8>, InflateError> {
        let mut out = Vec::new();
        for piece in pieces {
            inflater.feed(piece, &mut out, limit)?;
        }
        inflater.finish(keep, &mut out, limit)?;
        Ok(out)
    }

    fn deflated(deflater: &mut Deflater, message: &[u8]) -> Option<Vec<u8>> {
        let mut out = b"before".to_vec();
        let smaller = deflater.message(message, &mut out);
        assert_eq!(&out[..6], b"before");
        assert!(smaller || out.len() == 6, "what is not smaller is not there");
        smaller.then(|| out.split_off(6))
    }

    #[test]
    fn the_examples_of_section_7_2_3() {
        let rows: &[(&str, &[u8], &[u8])] = &[
            ("one compressed block", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
            ("the same again, sharing the window", &[0xf2, 0x00, 0x11, 0x00, 0x00], b"Hello"),
            (
                "a block without compression",
                &[0x00, 0x05, 0x00, 0xfa, 0xff, 0x48, 0x65, 0x6c, 0x6c, 0x6f, 0x00],
                b"Hello",
            ),
            (
                "two blocks",
                &[0xf2, 0x48, 0x05, 0x00, 0x00, 0x00, 0xff, 0xff, 0xca, 0xc9, 0xc9, 0x07, 0x00],
                b"Hello",
            ),
            ("an empty message", &[0x00], b""),
            ("a block with BFINAL", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00], b"Hello"),
            ("and after it", &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], b"Hello"),
        ];
        let mut keeping = Inflater::default();
        for (name, packed, message) in rows {
            assert_eq!(inflate(&mut keeping, &[packed], true, 5).as_deref(), Ok(*message), "{name}");
        }
        // §7.2.3.1, in two fragments, and any other cut.
        let hello = rows[0].1;
        for cut in 0..=hello.len() {
            let (first, second) = hello.split_at(cut);
            let mut inflater = Inflater::default();
            assert_eq!(inflate(&mut inflater, &[first, second], false, 5).as_deref(), Ok(&b"Hello"[..]));
        }
        assert_eq!(
            inflate(&mut Inflater::default(), &[rows[1].1], false, 5),
            Err(InflateError::Corrupt),
            "there is nothing to refer to"
        );
    }

    #[test]
    fn odd_endings() {
        let rows: &[(&str, &[u8], Result<&[u8], InflateError>)] = &[
            ("BFINAL without the byte after it", &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00], Ok(b"Hello")),
            (
                "BFINAL, then another stream",
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00],
                Ok(b"HelloHello"),
            ),
            ("an empty last block, its length cut off", &[0x01], Ok(b"")),
            (
                "garbage after BFINAL",
                &[0xf3, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0xff, 0xff],
                Err(InflateError::Corrupt),
            ),
            ("a block of the reserved type", &[0x07], Err(InflateError::Corrupt)),
            ("nothing but ones", &[0xff; 50], Err(InflateError::Corrupt)),
            ("a stored block with a wrong length", &[0, 5, 0, 0, 0], Err(InflateError::Corrupt)),
            (
                "the four bytes that should have been cut off",
                &[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00, 0x00, 0x00, 0xff, 0xff],
                Err(InflateError::Corrupt),
            ),
        ];
        for (name, packed, expected) in rows {
            let found = inflate(&mut Inflater::default(), &[packed], false, 100);
            assert_eq!(found.as_deref(), expected.as_ref().map(|bytes| &**bytes), "{name}");
        }
    }

    /// What a message cut short inflates to must not pass for the message.
    #[test]
    fn a_truncated_message_is_no_message() {
        let message: Vec<u8> = (0..2000_u32).flat_map(|i| (i * i).to_string().into_bytes()).collect();
        let packed = deflated(&mut Deflater::new(15, 6), &message).expect("smaller");
        let mut inflater = Inflater::default();
        assert_eq!(inflate(&mut inflater, &[&packed], false, message.len()).as_ref(), Ok(&message));
        for end in 1..packed.len() {
            assert_eq!(
                inflate(&mut inflater, &[&packed[..end]], false, message.len()),
                Err(InflateError::Corrupt),
                "{end}"
            );
            inflater.reset();
        }
    }

    #[test]
    fn a_bomb_is_cut_at_the_limit() {
        let mut deflater = Deflater::new(15, 9);
        let bomb = deflated(&mut deflater, &vec![0; 8 << 20]).expect("smaller");
        assert!(bomb.len() < 10_000, "{}", bomb.len());
        for (limit, pieces) in
            [(0, 1), (1, 1000), (1000, 1), (1 << 20, 1), (1 << 20, 100), ((8 << 20) - 1, 7)]
        {
            let mut inflater = Inflater::default();
            let mut out = Vec::new();
            let result = bomb
                .chunks(bomb.len().div_ceil(pieces))
                .try_for_each(|piece| inflater.feed(piece, &mut out, limit));
            assert_eq!(result, Err(InflateError::TooBig), "{limit}");
            assert_eq!(out.len(), limit + 1);
            assert!(out.capacity() <= limit + 4096, "{} for {limit}", out.capacity());
        }
        let whole = inflate(&mut Inflater::default(), &[&bomb], true, 8 << 20);
        assert_eq!(whole.map(|whole| whole.len()), Ok(8 << 20), "what is at the limit passes");
    }

    /// The compressor's 512 bytes pass for 256, so that a window of 8 bits can be promised (§7.1.2.1).
    #[test]
    fn windows_are_kept() {
        let mut random = fastrand::Rng::with_seed(8);
        let first: Vec<u8> = std::iter::repeat_with(|| random.u8(..)).take(500).collect();
        for (bits, window, kept) in [(8, 256, true), (9, 512, true), (10, 256, false)] {
            let mut always = true;
            for (level, distance) in
                (1..=9).flat_map(|level| (200..=500).map(move |distance| (level, distance)))
            {
                let mut deflater = Deflater::new(bits, level);
                let mut out = Vec::new();
                deflater.deflate(&first, &mut out);
                let second = [&first[500 - distance..][..100], &[0; 30]].concat();
                let packed = deflated(&mut deflater, &second).expect("the zeros at least make it smaller");
                // All that it may refer to.
                let mut stream = Inflate::new(false, MOST_BITS);
                stream
                    .set_dictionary(&first[500_usize.saturating_sub(window)..])
                    .expect("a raw stream takes any");
                let mut inflater = Inflater { stream, ended: false };
                always &= inflate(&mut inflater, &[&packed], false, 1000) == Ok(second);
            }
            assert_eq!(always, kept, "{bits} bits in a window of {window} bytes");
        }
    }

    fn any_message() -> impl Strategy<Value = Vec<u8>> {
        let words = proptest::collection::vec(
            proptest::sample::select(vec!["price", "\"id\":", "é", "7", "{}, "]),
            0..800,
        )
        .prop_map(|words| words.concat().into_bytes());
        let noise = proptest::collection::vec(any::<u8>(), 0..3000);
        let zeros = (0..70_000_usize).prop_map(|length| vec![0; length]);
        // Larger than the output's first growth, and than the compressor's own buffers; in parts not to be made smaller.
        let long = (any::<u32>(), 0..150_000_usize, 1..2000_usize).prop_map(|(seed, length, run)| {
            let mut noise = seed;
            let mut byte = |at: usize| {
                noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                if (at / run).is_multiple_of(2) { noise.to_be_bytes()[0] } else { 7 }
            };
            (0..length).map(&mut byte).collect()
        });
        prop_oneof![4 => words, 2 => noise, 1 => zeros, 2 => long]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        /// Any messages, any window, level and takeover, any cuts.
        #[test]
        fn what_is_deflated_inflates_to_the_same(
            messages in proptest::collection::vec(any_message(), 1..6),
            bits in 8..=15_u8,
            level in 0..=9_u8,
            keep: bool,
            room in 0..9000_usize,
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..6),
        ) {
            let (mut deflater, mut inflater) = (Deflater::new(bits, level), Inflater::default());
            for message in &messages {
                let mut packed = Vec::with_capacity(room);
                if !deflater.message(message, &mut packed) {
                    continue;
                }
                prop_assert!(packed.len() < message.len());
                if !keep {
                    deflater.reset();
                }
                let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(packed.len())).chain([0, packed.len()]).collect();
                cuts.sort_unstable();
                let pieces: Vec<_> = cuts.windows(2).map(|cut| &packed[cut[0]..cut[1]]).collect();
                let found = inflate(&mut inflater, &pieces, keep, message.len());
                prop_assert_eq!(found.as_ref(), Ok(message));
            }
        }

        /// Anything at all: no panic, no more than the limit, and the same whatever the cuts.
        #[test]
        fn no_bytes_break_it(
            bytes in proptest::collection::vec(any::<u8>(), 0..400),
            cut in any::<proptest::sample::Index>(),
            keep: bool,
            limit in 0..2000_usize,
        ) {
            let (first, second) = bytes.split_at(cut.index(bytes.len() + 1));
            let whole = inflate(&mut Inflater::default(), &[&bytes], keep, limit);
            let pieces = inflate(&mut Inflater::default(), &[first, second], keep, limit);
            prop_assert!(whole.as_ref().map_or(0, Vec::len) <= limit);
            prop_assert_eq!(whole, pieces);
        }
    }
}
