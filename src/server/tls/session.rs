//! One TLS session over a raw stream: which bytes wait where, and what becomes of them. It reads and writes through [`Raw`], so it is
//! the same over a socket of a loop, in memory, and in a stream that an application has taken out. No slot and no event here.
//!
//! A session owns three buffers, each absent when empty: a part of a record that came, plaintext that did not fit into the reader's buffer,
//! and ciphertext that the kernel refused, of one record of data at most.

use std::{
    io::{self, IoSlice},
    mem,
};

use super::engine::{Engine, MAX_PAYLOAD, Seal, failed};
use crate::{
    error::TlsError,
    hub::{Ahead, Noticed},
};

/// Ciphertext that is read at once.
const READ: usize = 64 << 10;
/// The most that may be kept of records that are not complete: as much as a handshake message may have (RFC 8446 §4), with its records.
const MAX_KEPT: usize = 64 << 10;

/// What a read of a handshake counts for in a turn, at least: 16 of them with their signatures and key exchanges take some milliseconds.
const HANDSHAKE_COST: usize = 256 << 10;

/// What carries ciphertext.
pub(super) trait Raw {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize>;
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize>;
}

/// Buffers that all sessions of a loop share. Nothing is in them between calls.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    cipher: Vec<u8>,
    plain: Vec<u8>,
    out: Vec<u8>,
}

#[derive(Debug)]
pub(super) struct Session {
    engine: Engine,
    /// Ciphertext that came and is no whole record, or no whole handshake message.
    kept: Vec<u8>,
    /// Plaintext that the reader had no room for, from `plain_at` on.
    plain: Vec<u8>,
    plain_at: usize,
    /// Ciphertext that the kernel did not take.
    out: Vec<u8>,
    /// Plaintext in records that are in `out` or were in it, and that was not reported as taken.
    ahead: usize,
    failed: Option<TlsError>,
    noticed: Noticed,
    facts: Facts,
}

#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
struct Facts {
    /// The handshake is complete.
    secured: bool,
    /// The peer's `close_notify` came.
    closed: bool,
    /// The peer's FIN came.
    eof: bool,
    /// The kernel may have more, although nobody will say so again: the last read was filled, or `ended` is set.
    undrained: bool,
    /// A FIN or an error was announced, and follows what there is to read.
    ended: bool,
    /// The kernel has taken ciphertext since that was asked last.
    progressed: bool,
}

impl Session {
    pub(super) fn new(engine: Engine) -> Self {
        Self {
            engine,
            kept: Vec::new(),
            plain: Vec::new(),
            plain_at: 0,
            out: Vec::new(),
            ahead: 0,
            failed: None,
            noticed: Noticed::default(),
            facts: Facts::default(),
        }
    }

    /// A client speaks first.
    pub(super) fn begin(&mut self, raw: &mut impl Raw) -> io::Result<()> {
        let progress = self.engine.process(&mut [], &mut self.out, |_| {});
        self.failed = progress.failed;
        self.flush(raw)
    }

    /// Ciphertext that was read before there was a session. What is wrong with it is found by the next read.
    pub(super) fn take_early(&mut self, raw: &mut impl Raw, scratch: &mut Scratch, early: &[u8]) {
        scratch.cipher.resize(early.len().max(MAX_KEPT + READ), 0);
        if let Some(place) = scratch.cipher.get_mut(..early.len()) {
            place.copy_from_slice(early);
        }
        self.take_in(scratch, early.len(), &mut []);
        self.noticed.beside = HANDSHAKE_COST;
        let _ = self.flush(raw);
    }

    /// Reads plaintext, by one read of ciphertext at most: zero after the peer's `close_notify` or FIN. There may be more after a short read,
    /// see [`Session::take_noticed`].
    ///
    /// # Errors
    /// `WouldBlock` if there is no more for now, `Interrupted` if nothing of what was read is for the reader and there may be more.
    pub(super) fn read(
        &mut self,
        raw: &mut impl Raw,
        scratch: &mut Scratch,
        buffer: &mut [u8],
    ) -> io::Result<usize> {
        let mut filled = self.take_plain(buffer);
        // What was kept does not tell what the kernel has got since.
        self.facts.undrained |= filled > 0;
        if filled == 0 && self.failed.is_none() {
            let room = buffer.len().saturating_sub(self.kept.len()).clamp(READ / 4, READ);
            let start = self.kept.len();
            scratch.cipher.resize(MAX_KEPT + READ, 0);
            let place = scratch.cipher.get_mut(start..start + room).unwrap_or_default();
            let result = raw.read(place);
            if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                // What was said of an end was said of the connection that had this place before.
                (self.facts.ended, self.facts.undrained) = (false, false);
                return if self.facts.closed { Ok(0) } else { result };
            }
            let n = result?;
            self.facts.undrained = n == room || (n > 0 && self.facts.ended);
            if n == 0 {
                self.facts.eof = true;
            } else if !self.facts.closed {
                let handshakes = !self.facts.secured;
                filled = self.take_in(scratch, start + n, buffer);
                self.noticed.beside =
                    n.saturating_sub(filled).max(if handshakes { HANDSHAKE_COST } else { 0 });
                // What fails to be written is seen when the application writes, or when this is read again.
                let _ = self.flush(raw);
            }
        }
        // An end that came with the bytes is for the next read.
        let ends = filled > 0 && (self.failed.is_some() || self.facts.closed);
        self.noticed.more = self.facts.undrained || !self.plain.is_empty() || ends;
        match self.failed {
            _ if filled > 0 => Ok(filled),
            Some(error) => Err(failed(error)),
            None if self.facts.closed || self.facts.eof => Ok(0),
            None if self.facts.undrained => Err(io::ErrorKind::Interrupted.into()),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// The kernel has said that a FIN or an error comes after what there is to read. It says so once.
    pub(super) const fn note_ended(&mut self) {
        self.facts.ended = true;
    }

    /// Decrypts what was kept and the bytes after it, up to `end`. Returns how much plaintext is in `buffer`; the rest is kept.
    fn take_in(&mut self, scratch: &mut Scratch, end: usize, buffer: &mut [u8]) -> usize {
        let Scratch { cipher, .. } = scratch;
        let input = cipher.get_mut(..end).unwrap_or_default();
        if let Some(place) = input.get_mut(..self.kept.len()) {
            place.copy_from_slice(&self.kept);
        }
        let (mut filled, rest) = (0, &mut self.plain);
        let progress = self.engine.process(input, &mut self.out, |bytes| {
            let room = buffer.get_mut(filled..).unwrap_or_default();
            let (fits, more) = bytes.split_at(bytes.len().min(room.len()));
            if let Some(place) = room.get_mut(..fits.len()) {
                place.copy_from_slice(fits);
            }
            filled += fits.len();
            rest.extend_from_slice(more);
        });
        let left = input.get(progress.used..).unwrap_or_default();
        self.kept.clear();
        if left.len() > MAX_KEPT {
            self.failed = Some(TlsError::Protocol);
        } else if !progress.closed && progress.failed.is_none() {
            self.kept.extend_from_slice(left);
        }
        if self.kept.is_empty() {
            self.kept = Vec::new();
        }
        self.facts.closed |= progress.closed;
        self.failed = self.failed.or(progress.failed);
        if progress.may_write && !self.facts.secured {
            self.facts.secured = true;
            self.noticed.writable = true;
            self.noticed.secured = Some(Box::new(self.engine.describe()));
        }
        filled
    }

    fn take_plain(&mut self, buffer: &mut [u8]) -> usize {
        let rest = self.plain.get(self.plain_at..).unwrap_or_default();
        let n = rest.len().min(buffer.len());
        if let (Some(place), Some(bytes)) = (buffer.get_mut(..n), rest.get(..n)) {
            place.copy_from_slice(bytes);
        }
        self.plain_at += n;
        if self.plain_at >= self.plain.len() {
            (self.plain, self.plain_at) = (Vec::new(), 0);
        }
        n
    }

    /// Writes plaintext. Reported as taken is what is in records that the kernel has taken wholly; the next write has to begin with
    /// what was not reported.
    ///
    /// # Errors
    /// `WouldBlock` if nothing was taken.
    pub(super) fn write(
        &mut self,
        raw: &mut impl Raw,
        scratch: &mut Scratch,
        slices: &[IoSlice<'_>],
    ) -> io::Result<usize> {
        if let Some(error) = self.failed {
            return Err(failed(error));
        }
        if !self.facts.secured {
            // A server has nothing to say before it; what it would answer a request that is late can not be encrypted.
            let kind =
                if self.engine.is_client() { io::ErrorKind::WouldBlock } else { io::ErrorKind::BrokenPipe };
            return Err(kind.into());
        }
        let offered = slices.iter().map(|slice| slice.len()).sum::<usize>();
        self.flush(raw)?;
        if !self.out.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let mut taken = self.ahead.min(offered);
        self.ahead -= taken;
        let Scratch { plain, out, .. } = scratch;
        while taken < offered {
            let payload = gather(slices, taken, plain);
            out.clear();
            if let Err(error) = self.engine.seal(Seal::Data(payload), &mut self.kept, out) {
                self.failed = Some(error);
                return Err(failed(error));
            }
            let n = match raw.write(out) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => 0,
                result => result?,
            };
            if n < out.len() {
                self.facts.progressed |= n > 0;
                self.out = out.get(n..).unwrap_or_default().to_vec();
                self.ahead = payload.len();
                break;
            }
            taken += payload.len();
        }
        if taken == 0 && offered > 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(taken) }
    }

    /// Offers ciphertext to the kernel that it did not take before.
    pub(super) fn flush(&mut self, raw: &mut impl Raw) -> io::Result<()> {
        let before = self.out.len();
        let result = flush(&mut self.out, raw);
        self.facts.progressed |= self.out.len() < before;
        result
    }

    /// There is ciphertext that the kernel did not take.
    pub(super) const fn wants_write(&self) -> bool {
        !self.out.is_empty()
    }

    /// Ends our side: what is still to be written, `close_notify` last. Nothing, if a record was cut or nothing can be encrypted: then FIN
    /// alone is the truth.
    pub(super) fn end(&mut self) -> Vec<u8> {
        let mut rest = mem::take(&mut self.out);
        let cut = self.ahead > 0 && !rest.is_empty();
        if self.failed.is_some() {
            // An alert.
            return rest;
        }
        if cut
            || !self.facts.secured
            || self.engine.seal(Seal::CloseNotify, &mut self.kept, &mut rest).is_err()
        {
            return Vec::new();
        }
        rest
    }

    /// What reads have found since this was called last.
    pub(super) fn take_noticed(&mut self) -> Noticed {
        mem::take(&mut self.noticed)
    }

    /// Reports what is encrypted as taken: for a writer that need not know when it is in the kernel.
    pub(super) fn report_ahead(&mut self) -> usize {
        mem::take(&mut self.ahead)
    }

    pub(super) fn take_ahead(&mut self) -> Ahead {
        Ahead { bytes: self.ahead, progressed: mem::take(&mut self.facts.progressed) }
    }

    /// The peer's `close_notify` came, and the reader has got all that came before it.
    pub(super) const fn has_ended(&self) -> bool {
        self.facts.closed && self.plain.is_empty()
    }

    /// The peer's FIN came, and no `close_notify` before it.
    pub(super) const fn is_truncated(&self) -> bool {
        self.facts.secured && self.facts.eof && !self.facts.closed
    }
}

/// Writes the front of `out`, which then has the rest; without memory if there is none.
pub(super) fn flush(out: &mut Vec<u8>, raw: &mut impl Raw) -> io::Result<()> {
    let mut written = 0;
    let result = loop {
        let rest = out.get(written..).unwrap_or_default();
        if rest.is_empty() {
            break Ok(());
        }
        match raw.write(rest) {
            Ok(0) => break Ok(()),
            Ok(n) => written += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => break Err(error),
        }
    };
    if written >= out.len() {
        *out = Vec::new();
    } else {
        out.drain(..written);
    }
    result
}

/// The bytes of one record, from `at` on: as they lie, or joined in `joined` if they are in several slices.
fn gather<'a>(slices: &'a [IoSlice<'_>], mut at: usize, joined: &'a mut Vec<u8>) -> &'a [u8] {
    joined.clear();
    for slice in slices {
        let Some(rest) = slice.get(at..).filter(|rest| !rest.is_empty()) else {
            at = at.saturating_sub(slice.len());
            continue;
        };
        at = 0;
        if joined.is_empty() && rest.len() >= MAX_PAYLOAD {
            return rest.get(..MAX_PAYLOAD).unwrap_or(rest);
        }
        let room = MAX_PAYLOAD - joined.len();
        joined.extend_from_slice(rest.get(..room).unwrap_or(rest));
        if joined.len() == MAX_PAYLOAD {
            break;
        }
    }
    joined
}
