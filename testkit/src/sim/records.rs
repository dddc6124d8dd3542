//! A layer of records between the loop and its link, as TLS is one: bytes go in pieces that arrive whole or not at all. It reads
//! ahead and holds back, it has something to write although the loop has not, and it says that something was taken when
//! the kernel has all of its record. No cipher, but numbers and sums, so that nothing is lost, doubled or changed unnoticed.
//!
//! ```text
//!   kind (1) | number (1) | length (2) | payload | sum (1)
//! ```

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    mem,
};

use adjourn::hub::{Ahead, Noticed};

use super::{chance::Rng, link::Link};

const HEAD: usize = 4;
/// What the sides begin with.
const HELLO: u8 = 1;
const DATA: u8 = 2;
/// Nothing for the reader, as a ticket is.
const QUIET: u8 = 3;
/// Nothing for the reader either, but it is to be answered, as an update of keys.
const UPDATE: u8 = 4;
/// No more data follows.
const NOTIFY: u8 = 5;
const ALERT: u8 = 6;

/// The records of one direction, as they are made and as they are taken apart.
#[derive(Debug, Default)]
struct Sealed {
    sent: u8,
    received: u8,
    /// The beginning of a record.
    kept: Vec<u8>,
}

impl Sealed {
    fn seal(&mut self, kind: u8, payload: &[u8], out: &mut Vec<u8>) {
        let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
        out.extend_from_slice(&[kind, self.sent, length[0], length[1]]);
        out.extend(payload.iter().map(|byte| byte ^ 0x5a));
        out.push(sum(payload));
        self.sent = self.sent.wrapping_add(1);
    }

    /// The next record of what has come; an error if it is none.
    fn open(&mut self) -> Result<Option<(u8, Vec<u8>)>, ()> {
        let [kind, number, high, low, ..] = *self.kept else { return Ok(None) };
        let length = usize::from(u16::from_be_bytes([high, low]));
        if !(HELLO..=ALERT).contains(&kind) || number != self.received {
            return Err(());
        }
        let Some(payload) = self.kept.get(HEAD..=HEAD + length) else { return Ok(None) };
        let plain: Vec<u8> = payload[..length].iter().map(|byte| byte ^ 0x5a).collect();
        if payload[length] != sum(&plain) {
            return Err(());
        }
        self.kept.drain(..=HEAD + length);
        self.received = self.received.wrapping_add(1);
        Ok(Some((kind, plain)))
    }
}

fn sum(bytes: &[u8]) -> u8 {
    bytes.iter().fold(7, |sum, byte| sum.rotate_left(3) ^ byte)
}

/// The layer of one connection, at both of its ends.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct Records {
    rng: Rng,
    /// The longest payload.
    most: usize,
    /// Only one record is delivered at a time, though there may be more.
    stingy: bool,

    server: Sealed,
    plain: VecDeque<u8>,
    /// What the kernel did not take.
    out: Vec<u8>,
    /// Data in records that are in `out` or were in it, and that was not reported as taken.
    ahead: Vec<u8>,
    /// Data that the loop has read.
    pub delivered: usize,
    secured: bool,
    notified: bool,
    eof: bool,
    /// A FIN or an error comes after what there is to read, as the kernel has said.
    ended: bool,
    /// The loop has read the end of the peer's side.
    end_read: bool,
    failed: bool,
    progressed: bool,
    noticed: Noticed,
    /// The session is over: what comes is passed on as it is, and FIN follows when `out` is written.
    over: bool,
    fin_waits: bool,

    peer: Sealed,
    greeted: bool,
}

impl Records {
    pub fn new(mut rng: Rng) -> Self {
        Self {
            most: if rng.bool() { rng.usize(1..300) } else { rng.usize(300..16_384) },
            stingy: rng.u8(..3) == 0,
            rng,
            server: Sealed::default(),
            plain: VecDeque::new(),
            out: Vec::new(),
            ahead: Vec::new(),
            delivered: 0,
            secured: false,
            notified: false,
            eof: false,
            ended: false,
            end_read: false,
            failed: false,
            progressed: false,
            noticed: Noticed::default(),
            over: false,
            fin_waits: false,
            peer: Sealed::default(),
            greeted: false,
        }
    }

    // The peer's end.

    /// What goes onto the link for these bytes of the peer's, and for the end of its side.
    pub fn wrap(&mut self, bytes: &[u8], ends: bool, garbles: bool) -> Vec<u8> {
        let (mut out, mut rest) = (Vec::new(), bytes);
        if !mem::replace(&mut self.greeted, true) {
            self.peer.seal(HELLO, &[9; 20], &mut out);
        }
        while !rest.is_empty() {
            match self.rng.u8(..16) {
                0 => self.peer.seal(QUIET, &[0; 30], &mut out),
                1 => self.peer.seal(UPDATE, &[], &mut out),
                _ => {}
            }
            let (piece, more) = rest.split_at(rest.len().min(self.rng.usize(1..=self.most)));
            self.peer.seal(DATA, piece, &mut out);
            rest = more;
        }
        if ends && self.rng.u8(..4) > 0 {
            self.peer.seal(NOTIFY, &[], &mut out);
        }
        if garbles && !out.is_empty() && self.rng.u8(..8) == 0 {
            let at = self.rng.usize(..out.len());
            out[at] ^= 0x10;
        }
        out
    }

    /// What the peer reads.
    pub fn unwrap(&mut self, bytes: &[u8]) -> Result<Vec<u8>, String> {
        self.peer.kept.extend_from_slice(bytes);
        let mut plain = Vec::new();
        loop {
            match self.peer.open() {
                Ok(None) => return Ok(plain),
                Ok(Some((DATA, bytes))) => plain.extend(bytes),
                Ok(Some(_)) => {}
                Err(()) => return Err(format!("{:?} is no record", self.peer.kept)),
            }
        }
    }

    // The server's end.

    /// What was encrypted has to be offered again as it was.
    pub fn is_offered_again(&self, slices: &[IoSlice<'_>]) -> bool {
        slices
            .iter()
            .flat_map(|slice| slice.iter())
            .zip(&self.ahead)
            .all(|(offered, sealed)| offered == sealed)
    }

    /// Data in a record that the kernel has not wholly taken.
    pub fn ahead(&self) -> usize {
        self.ahead.len()
    }

    /// Something is here that the loop has not read.
    pub fn holds(&self) -> bool {
        !self.plain.is_empty() || (self.notified || self.failed) && !self.end_read && !self.over
    }

    /// See [`Readiness::ended`](adjourn::hub::Readiness::ended).
    pub fn note_ended(&mut self) {
        self.ended = true;
    }

    /// The last read said that there may be more.
    pub fn has_more(&self) -> bool {
        self.noticed.more
    }

    pub fn is_truncated(&self) -> bool {
        self.secured && self.eof && !self.notified && !self.over
    }

    pub fn take_noticed(&mut self) -> Noticed {
        mem::take(&mut self.noticed)
    }

    pub fn take_ahead(&mut self) -> Ahead {
        Ahead { bytes: self.ahead.len(), progressed: mem::take(&mut self.progressed) }
    }

    fn read(&mut self, link: &mut Link, buffer: &mut [u8]) -> io::Result<usize> {
        let mut filled = self.deliver(buffer);
        // What was kept does not show whether the link has more.
        let mut drained = filled == 0;
        if filled == 0 && !self.failed {
            let mut bytes = vec![0; self.rng.usize(1..=buffer.len().max(64))];
            let result = link.read(&mut bytes);
            if result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock) {
                self.ended = false;
                self.end_read |= self.notified;
                return if self.notified { Ok(0) } else { result };
            }
            let n = result?;
            drained = n < bytes.len() && (n == 0 || !self.ended);
            self.eof |= n == 0;
            if n > 0 && !self.notified {
                self.server.kept.extend_from_slice(&bytes[..n]);
                self.take_in();
                filled = self.deliver(buffer);
                // What fails here fails again.
                let _ = self.flush(link);
            }
        }
        self.noticed.more = !drained || self.holds();
        self.end_read |= filled == 0 && (self.failed || self.notified);
        match () {
            () if filled > 0 => Ok(filled),
            () if self.failed => Err(io::ErrorKind::InvalidData.into()),
            () if self.notified || self.eof => Ok(0),
            () if drained => Err(io::ErrorKind::WouldBlock.into()),
            () => Err(io::ErrorKind::Interrupted.into()),
        }
    }

    fn deliver(&mut self, buffer: &mut [u8]) -> usize {
        let most = if self.stingy { self.most.min(buffer.len()) } else { buffer.len() };
        let n = most.min(self.plain.len());
        for (to, from) in buffer.iter_mut().zip(self.plain.drain(..n)) {
            *to = from;
        }
        self.delivered += n;
        n
    }

    fn take_in(&mut self) {
        while !self.notified {
            match self.server.open() {
                Ok(None) => return,
                Ok(Some((HELLO, _))) => {
                    self.server.seal(HELLO, &[8; 50], &mut self.out);
                    (self.secured, self.noticed.writable) = (true, true);
                }
                Ok(Some((DATA, bytes))) => self.plain.extend(bytes),
                Ok(Some((UPDATE, _))) => self.server.seal(UPDATE, &[], &mut self.out),
                Ok(Some((NOTIFY, _))) => self.notified = true,
                Ok(Some(_)) => {}
                Err(()) => {
                    self.failed = true;
                    return self.server.seal(ALERT, &[], &mut self.out);
                }
            }
        }
    }

    fn write(&mut self, link: &mut Link, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if self.failed || self.over || !self.secured {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let all: Vec<u8> = slices.iter().flat_map(|slice| slice.iter().copied()).collect();
        self.flush(link)?;
        if !self.out.is_empty() {
            return Ok(0);
        }
        let mut taken = self.ahead.len().min(all.len());
        self.ahead.drain(..taken);
        while taken < all.len() {
            let payload = &all[taken..all.len().min(taken + self.most)];
            self.server.seal(DATA, payload, &mut self.out);
            let before = self.out.len();
            self.put(link)?;
            if !self.out.is_empty() {
                self.progressed |= self.out.len() < before;
                self.ahead = payload.to_vec();
                break;
            }
            taken += payload.len();
        }
        Ok(taken)
    }

    fn flush(&mut self, link: &mut Link) -> io::Result<()> {
        let before = self.out.len();
        let result = self.put(link);
        self.progressed |= self.out.len() < before;
        result
    }

    fn put(&mut self, link: &mut Link) -> io::Result<()> {
        if !self.out.is_empty() {
            let n = link.room(self.out.len())?;
            link.down.put(&self.out[..n]);
            self.out.drain(..n);
        }
        Ok(())
    }

    /// Ends the server's side: what is still to be written, and [`NOTIFY`] if no record is cut.
    fn end(&mut self) {
        if mem::replace(&mut self.over, true) {
            return;
        }
        if !self.ahead.is_empty() && !self.out.is_empty() || !self.secured {
            self.out = Vec::new();
        } else if !self.failed {
            self.server.seal(NOTIFY, &[], &mut self.out);
        }
    }
}

/// What the loop does, by way of the layer if there is one.
impl Link {
    fn with_records<T>(&mut self, act: impl FnOnce(&mut Records, &mut Self) -> T) -> Option<T> {
        let mut records = self.records.take()?;
        let result = act(&mut records, self);
        if !records.out.is_empty() {
            self.await_writable();
        }
        self.records = Some(records);
        Some(result)
    }

    pub fn read_by_layer(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match &self.records {
            Some(records) if !records.over => {
                self.with_records(|records, link| records.read(link, buffer)).unwrap_or(Ok(0))
            }
            _ => self.read(buffer),
        }
    }

    /// Zero is `WouldBlock`.
    pub fn write_by_layer(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some(result) = self.with_records(|records, link| records.write(link, slices)) {
            return result;
        }
        let mut left = self.room(slices.iter().map(|slice| slice.len()).sum())?;
        let room = left;
        for slice in slices {
            let piece = &slice[..left.min(slice.len())];
            left -= piece.len();
            self.down.put(piece);
        }
        Ok(room)
    }

    /// There may be room: what the layer has to say goes first.
    pub fn flush_layer(&mut self) {
        let ends = self.with_records(|records, link| {
            let _ = records.flush(link);
            records.out.is_empty() && mem::take(&mut records.fin_waits)
        });
        if ends == Some(true) {
            self.down.send_fin();
        }
    }

    /// FIN, after what the layer has to say.
    pub fn end_by_layer(&mut self) {
        match &mut self.records {
            Some(records) => {
                records.end();
                records.fin_waits = true;
                self.flush_layer();
            }
            None => self.down.send_fin(),
        }
    }

    /// The descriptor is closed: what the layer has to say, if there is room, and then FIN.
    pub fn close_by_layer(&mut self) {
        self.end_by_layer();
        self.down.send_fin();
        if let Some(records) = &mut self.records {
            records.out = Vec::new();
        }
    }
}
