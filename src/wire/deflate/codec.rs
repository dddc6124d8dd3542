//! DEFLATE streams as messages: what is cut off their ends and put back (§7.2), and the limits while inflating.
//!
//! The codec is `flate2` with its `zlib-rs` backend, chosen by measurement: microseconds per message on one core, JSON,
//! level 3, best of seven, and the bytes that came out.
//!
//! ```text
//!                          1 KiB                                16 KiB
//!                deflate        takeover  inflate     deflate        takeover  inflate
//!   zlib-rs      10.1   337 B      7.9      2.2        85   3866 B      85       17
//!   zlib (C)     10.9   357 B      9.3      2.3       112   4182 B     119       42
//!   cloudflare   14.6   357 B     13.2      3.4       133   4182 B     166       32
//!   miniz_oxide  10.6   351 B     10.5      4.6       166   4022 B     163       27
//!   libdeflate    5.8   330 B       -       2.0        61   3626 B       -       13
//! ```
//!
//! `zlib-ng` needs a tool more than a C compiler to build. libdeflate makes whole streams only: no takeover, every message with BFINAL set, which receivers
//! that keep one inflater for all messages get wrong, and one more dependency in C. What it saves is not worth that.
//!
//! Levels, of the same messages without takeover: 1 takes 3.5 and 36 microseconds for 458 and 5,824 bytes, 2 takes 8.9
//! and 59 for 344 and 4,043, 6 takes 10.2 and 126 for 336 and 3,720.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use thiserror::Error;

/// What a flushed stream ends with: cut off by the sender, put back by the receiver (§7.2.1, §7.2.2).
const TAIL: [u8; 4] = [0, 0, 0xFF, 0xFF];
/// An empty block that ends a stream.
const LAST_BLOCK: [u8; 5] = [1, 0, 0, 0xFF, 0xFF];
/// Output grows by this much at least, and by [`MOST_GROWTH`] at most.
const LEAST_GROWTH: usize = 2 << 10;
const MOST_GROWTH: usize = 1 << 20;

/// zlib has no windows of 256 bytes. Its 512 reach back 250 bytes at most, so they serve for both.
const LEAST_BITS: u8 = 9;

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

/// Inflates the messages of one sender, or, without context takeover, of any. About 48 KiB with a window of 15 bits.
#[derive(Debug)]
pub struct Inflater {
    stream: Decompress,
    bits: u8,
    /// A block with BFINAL was the last thing seen.
    ended: bool,
}

impl Inflater {
    /// For senders whose window has at most so many bits. Allocates the window.
    pub fn new(window_bits: u8) -> Self {
        let bits = window_bits.clamp(LEAST_BITS, 15);
        Self { stream: Decompress::new_with_window_bits(false, bits), bits, ended: false }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        if self.bits == 15 {
            self.stream.reset(false);
        } else {
            // `reset` would make it one of 15 bits.
            self.stream = Decompress::new_with_window_bits(false, self.bits);
        }
        self.ended = false;
    }

    /// Inflates the next piece of a message to the end of `out`, which grows with what comes and is at most one byte
    /// longer than `limit` at the end. What was inflated before an error is there, too.
    ///
    /// # Errors
    /// The message cannot be finished then.
    pub fn feed(&mut self, mut piece: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), InflateError> {
        loop {
            if self.ended {
                if piece.is_empty() {
                    return Ok(());
                }
                // §7.2.3.4: BFINAL ends a stream and not the message. The next one begins with an empty window, as
                // every deflate library has it.
                self.reset();
            }
            if out.len() == out.capacity() {
                let room = limit.saturating_add(1).saturating_sub(out.len());
                out.reserve_exact(
                    out.len().max(4 * piece.len()).clamp(LEAST_GROWTH, MOST_GROWTH).min(room.max(1)),
                );
            }
            let (taken, made) = (self.stream.total_in(), out.len());
            let status = self.stream.decompress_vec(piece, out, FlushDecompress::Sync);
            let taken = usize::try_from(self.stream.total_in() - taken).unwrap_or(usize::MAX);
            piece = piece.get(taken..).unwrap_or_default();
            if out.len() > limit {
                out.truncate(limit.saturating_add(1));
                return Err(InflateError::TooBig);
            }
            match status {
                Err(_) => return Err(InflateError::Corrupt),
                Ok(Status::StreamEnd) => self.ended = true,
                Ok(Status::Ok | Status::BufError) => {
                    let stuck = taken == 0 && out.len() == made;
                    if out.len() < out.capacity() && (piece.is_empty() || stuck) {
                        return if piece.is_empty() { Ok(()) } else { Err(InflateError::Corrupt) };
                    }
                }
            }
        }
    }

    /// The message has ended: puts back what its sender cut off (§7.2.2). `keep` says that the next message may refer
    /// to this one.
    ///
    /// # Errors
    /// If the message ended in the middle of a block. Without `keep` all such messages are found, with it most.
    pub fn finish(&mut self, keep: bool, out: &mut Vec<u8>, limit: usize) -> Result<(), InflateError> {
        let whole = out.len();
        if !self.ended {
            self.feed(&TAIL, out, limit)?;
        }
        // §7.2.1: it was cut off the end of a block without content.
        if out.len() > whole {
            return Err(InflateError::Corrupt);
        }
        if !keep {
            if !self.ended {
                self.feed(&LAST_BLOCK, out, limit)?;
            }
            if !self.ended || out.len() > whole {
                return Err(InflateError::Corrupt);
            }
            self.reset();
        }
        Ok(())
    }
}

/// Deflates the messages for one receiver, or, without context takeover, for any. About 350 KiB with a window of 15
/// bits, 240 KiB with 9.
#[derive(Debug)]
pub struct Deflater {
    stream: Compress,
}

impl Deflater {
    /// A window of at most so many bits, and a level of 0 to 9. Allocates.
    pub fn new(window_bits: u8, level: u8) -> Self {
        let level = Compression::new(u32::from(level.min(9)));
        let stream = Compress::new_with_window_bits(level, false, window_bits.clamp(LEAST_BITS, 15));
        Self { stream }
    }

    /// Forgets everything.
    pub fn reset(&mut self) {
        self.stream.reset();
    }

    /// Deflates a message to the end of `out`, if that makes it smaller, and says so. If not, `out` is as it was, and
    /// the window is empty.
    #[must_use]
    pub fn message(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let smaller = self.deflate(payload, out);
        if !smaller {
            out.truncate(start);
            self.reset();
        }
        smaller
    }

    fn deflate(&mut self, payload: &[u8], out: &mut Vec<u8>) -> bool {
        let start = out.len();
        let most = payload.len() + TAIL.len();
        let mut rest = payload;
        loop {
            // Room for a flush: zlib would begin another one if it does not fit.
            let free = out.capacity() - out.len();
            if free < 64 {
                out.reserve((rest.len() / 2).clamp(LEAST_GROWTH, MOST_GROWTH));
            }
            let taken = self.stream.total_in();
            if self.stream.compress_vec(rest, out, FlushCompress::Sync).is_err() {
                return false;
            }
            let taken = usize::try_from(self.stream.total_in() - taken).unwrap_or(usize::MAX);
            rest = rest.get(taken..).unwrap_or_default();
            if out.len() - start >= most {
                return false;
            }
            if rest.is_empty() && out.len() < out.capacity() {
                break;
            }
        }
        let tail = out.len().saturating_sub(TAIL.len());
        if tail <= start || out.get(tail..) != Some(&TAIL) {
            return false;
        }
        out.truncate(tail);
        true
    }
}
