//! The two kernels and the links between them, and what was seen on the wire.

use std::{
    cell::RefCell,
    io::{self, IoSlice},
    rc::Rc,
    time::Duration,
};

use adjourn::{
    ConnectionId, Time,
    conn::Target,
    http::DetachedStream,
    hub::{Readiness, Transport},
};

use super::facts::Facts;

/// Index of the server's side. The other is the client's.
pub(super) const SERVER: usize = 0;
pub(super) const CLIENT: usize = 1;

/// Both kernels, both links, the clock, and what each side is known to have done.
#[derive(Debug)]
pub(super) struct Net {
    /// Microseconds.
    pub(super) now: u64,
    pub(super) ends: [End; 2],
    pub(super) facts: [Facts; 2],
    /// The first rule that was broken.
    pub(super) failure: Option<String>,
    pub(super) trace: Option<Vec<String>>,
    /// Counts what can be seen of the cores.
    pub(super) activity: u64,
}

pub(super) type Shared = Rc<RefCell<Net>>;

/// The kernel of one side, and the link to it.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct End {
    /// On its way to this side.
    pub(super) link: Vec<u8>,
    pub(super) link_fin: bool,
    pub(super) link_reset: bool,
    /// In the kernel, unread.
    pub(super) arrived: Vec<u8>,
    pub(super) fin: bool,
    pub(super) reset: bool,
    /// Something has arrived, and the core has not been notified yet.
    pub(super) edge: bool,
    /// Writes that the kernel takes before it is full.
    pub(super) room: usize,
    /// Of the next write the kernel takes this much and is full then.
    pub(super) crack: bool,
    /// A write came short, and nothing was said since.
    pub(super) waiting: bool,
    pub(super) fin_sent: bool,
    pub(super) closed: bool,
    /// A hash of every input of this side's core, in order: the core is a function of them.
    pub(super) history: u64,
}

/// Bytes of a write that a crack lets through: less than any frame has that carries something.
const CRACK: usize = 3;

impl Net {
    pub(super) fn fail(&mut self, side: usize, what: impl FnOnce() -> String) {
        if self.failure.is_none() {
            self.failure = Some(format!("{}: {}", name(side), what()));
        }
    }

    pub(super) fn note(&mut self, what: impl FnOnce() -> String) {
        self.activity += 1;
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            trace.push(format!("{:>9} us  {}", now, what()));
        }
    }

    /// Hands a rule's verdict on.
    pub(super) fn require(&mut self, side: usize, verdict: Result<(), String>) {
        if let Err(what) = verdict {
            self.fail(side, || what);
        }
    }

    /// The core of a side gets an input, now.
    pub(super) fn note_input(&mut self, side: usize, what: u64) {
        mix(&mut self.ends[side].history, self.now);
        mix(&mut self.ends[side].history, what);
    }

    /// Whether something is on the link to `side`, or has arrived unnoticed.
    pub(super) fn is_loaded(&self, side: usize) -> bool {
        let end = &self.ends[side];
        !end.link.is_empty()
            || (end.edge && !end.closed)
            || (end.link_fin && !end.fin)
            || (end.link_reset && !end.reset)
    }

    /// What is on the link to `side` arrives, and its core is yet to be notified.
    pub(super) fn arrive(&mut self, side: usize) {
        let end = &mut self.ends[side];
        let mut bytes = std::mem::take(&mut end.link);
        (end.fin, end.reset) = (end.link_fin, end.link_reset);
        if !end.closed {
            end.arrived.append(&mut bytes);
            end.edge = true;
        } else if !bytes.is_empty() {
            // There is nobody any more.
            self.ends[1 - side].link_reset = true;
        }
    }

    /// What the transport has to say of what has arrived.
    pub(super) fn take_edge(&mut self, side: usize) -> Option<Readiness> {
        let end = &mut self.ends[side];
        let edge = std::mem::take(&mut end.edge) && !end.closed;
        edge.then_some(Readiness { readable: true, writable: end.reset, ended: end.fin || end.reset })
    }

    /// Whether a core has not read all that it could.
    pub(super) fn has_unread(&self, side: usize) -> bool {
        let (end, facts) = (&self.ends[side], &self.facts[side]);
        !end.arrived.is_empty() || (end.fin && !facts.fin_read)
    }

    /// What has arrived was taken, unless it is the application that does not want it.
    pub(super) fn check_taken(&mut self, side: usize) {
        let (end, facts) = (&self.ends[side], &self.facts[side]);
        if facts.paused && facts.is_open() {
            return;
        }
        if !end.closed && !end.arrived.is_empty() {
            self.fail(side, || "does not read what has arrived".into());
        } else if !end.closed && end.reset {
            self.fail(side, || "does not end when it is reset".into());
        }
    }

    /// The server closes TCP first, as soon as the outcome is fixed (§7.1.1).
    pub(super) fn check_fin(&mut self, side: usize) {
        let (end, facts) = (&self.ends[side], &self.facts[side]);
        if side == SERVER && facts.reported.is_some() && !end.fin_sent && !end.closed {
            return self.fail(side, || "reports its end and sends no FIN".into());
        }
        let clean = facts.reported.is_some_and(|(_, clean)| clean);
        if side == CLIENT && clean && !facts.fin_read && end.fin_sent {
            self.fail(side, || "sends FIN before the server does".into());
        }
    }

    /// What both cores, links and kernels are, as one number.
    pub(super) fn fingerprint(&self) -> u64 {
        let mut hash = self.now;
        for end in &self.ends {
            mix(&mut hash, end.history);
            mix_bytes(&mut hash, &end.link);
            mix_bytes(&mut hash, &end.arrived);
            let flags = [
                end.link_fin,
                end.link_reset,
                end.fin,
                end.reset,
                end.crack,
                end.edge,
                end.waiting,
                end.fin_sent,
                end.closed,
            ];
            let flags = flags.into_iter().fold(end.room as u64, |bits, flag| bits << 1 | u64::from(flag));
            mix(&mut hash, flags);
        }
        hash
    }
}

/// A side's transport.
#[derive(Debug)]
pub(super) struct Kernel {
    pub(super) net: Shared,
    pub(super) side: usize,
}

impl Transport for Kernel {
    fn read(&mut self, _: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let net = &mut *self.net.borrow_mut();
        let (now, side) = (net.now, self.side);
        let end = &mut net.ends[side];
        let n = end.arrived.len().min(buffer.len());
        if end.closed {
            net.fail(side, || "reads from a descriptor that it has closed".into());
        } else if n > 0 {
            buffer[..n].copy_from_slice(&end.arrived[..n]);
            end.arrived.drain(..n);
            mix_bytes(&mut end.history, &buffer[..n]);
            net.note(|| format!("{} reads {:02x?}", name(side), &buffer[..n]));
            let verdict = net.facts[side].read(&buffer[..n], now);
            net.require(side, verdict);
            return Ok(n);
        } else if end.fin {
            mix(&mut end.history, 1);
            net.facts[side].fin_read = true;
            net.note(|| format!("{} reads FIN", name(side)));
            return Ok(0);
        } else if end.reset {
            mix(&mut end.history, 2);
            net.facts[side].error = true;
            net.note(|| format!("{} reads a reset", name(side)));
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        mix(&mut net.ends[side].history, 3);
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn write(&mut self, _: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let net = &mut *self.net.borrow_mut();
        let (now, side) = (net.now, self.side);
        let mut bytes = Vec::with_capacity(slices.iter().map(|slice| slice.len()).sum());
        for slice in slices {
            bytes.extend_from_slice(slice);
        }
        let offered = bytes.len();
        let end = &mut net.ends[side];
        if end.closed || end.fin_sent {
            net.fail(side, || "writes after its FIN".into());
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if end.reset {
            mix(&mut end.history, 4);
            net.facts[side].error = true;
            net.note(|| format!("{} writes to a reset connection", name(side)));
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        if end.crack {
            (end.crack, end.room) = (false, 0);
            bytes.truncate(CRACK);
        } else if end.room == 0 {
            bytes.clear();
        } else {
            end.room -= 1;
        }
        mix(&mut end.history, 5 + bytes.len() as u64);
        net.note(|| format!("{} writes {bytes:02x?} of {offered} bytes", name(side)));
        let verdict = net.facts[side].written(&bytes, offered, now);
        net.require(side, verdict);
        let there = &mut net.ends[1 - side];
        if !there.link_fin && !there.link_reset {
            there.link.extend_from_slice(&bytes);
        }
        if bytes.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(bytes.len()) }
    }

    fn await_writable(&mut self, _: usize, _: bool) -> io::Result<()> {
        self.net.borrow_mut().ends[self.side].waiting = true;
        Ok(())
    }

    fn shutdown_write(&mut self, _: usize) {
        let net = &mut *self.net.borrow_mut();
        let side = self.side;
        net.note(|| format!("{} sends FIN", name(side)));
        if net.ends[side].closed {
            net.fail(side, || "sends FIN on a closed descriptor".into());
        }
        net.ends[side].fin_sent = true;
        let verdict = net.facts[side].fin_sent();
        net.require(side, verdict);
        net.ends[1 - side].link_fin = true;
    }

    fn detach(&mut self, _: usize) -> Option<DetachedStream> {
        self.net.borrow_mut().fail(self.side, || "detaches what nobody took".into());
        None
    }

    fn close(&mut self, _: usize, reset: bool) {
        let net = &mut *self.net.borrow_mut();
        let (now, side) = (net.now, self.side);
        net.note(|| format!("{} closes its descriptor{}", name(side), if reset { ", by reset" } else { "" }));
        let end = &mut net.ends[side];
        if std::mem::replace(&mut end.closed, true) {
            return; // By a reset, when it was aborted.
        }
        let (unread, ended, fin_sent) = (!end.arrived.is_empty(), end.reset, end.fin_sent);
        let verdict = net.facts[side].descriptor_closed(reset, fin_sent, now);
        net.require(side, verdict);
        if ended {
            return; // There is nobody to tell.
        }
        let there = &mut net.ends[1 - side];
        if reset {
            // It overtakes what the other side has not taken yet.
            there.link.clear();
            (there.link_fin, there.link_reset) = (there.fin, true);
        } else if unread {
            there.link_reset = true;
        } else {
            there.link_fin = true;
        }
    }

    fn connect(&mut self, _: usize, _: ConnectionId, _: Target<'_>) -> io::Result<()> {
        Ok(())
    }

    fn connected(&mut self, _: usize) -> io::Result<bool> {
        Ok(true)
    }

    fn take_error(&mut self, _: usize) -> Option<io::ErrorKind> {
        let net = &mut *self.net.borrow_mut();
        let reset = net.ends[self.side].reset;
        mix(&mut net.ends[self.side].history, 7 + u64::from(reset));
        net.facts[self.side].error |= reset;
        reset.then_some(io::ErrorKind::ConnectionReset)
    }

    fn unsent(&mut self, _: usize) -> Option<u32> {
        let net = &mut *self.net.borrow_mut();
        let unsent = u32::try_from(net.ends[1 - self.side].link.len()).ok();
        mix(&mut net.ends[self.side].history, unsent.map_or(6, |n| u64::from(n) << 8));
        net.facts[self.side].unsent = unsent;
        unsent
    }

    fn now(&mut self) -> Time {
        Time::from_start(Duration::from_micros(self.net.borrow().now))
    }

    fn lap(&mut self) -> Option<Duration> {
        None
    }
}

pub(super) fn name(side: usize) -> &'static str {
    if side == SERVER { "server" } else { "client" }
}

/// Adds to a hash. What was added, and in which order, decides the outcome.
fn mix(hash: &mut u64, word: u64) {
    let mut z = (*hash ^ word).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    *hash = z ^ (z >> 31);
}

fn mix_bytes(hash: &mut u64, bytes: &[u8]) {
    mix(hash, bytes.len() as u64);
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        mix(hash, u64::from_le_bytes(word));
    }
}

/// Frames in one direction, as any reader of RFC 6455 would cut them. All of them are short.
#[derive(Debug, Default)]
pub(super) struct Stream {
    /// A frame that is not whole.
    pub(super) cut: Vec<u8>,
    /// Whole data messages.
    pub(super) messages: u64,
    pub(super) close: Option<Payload>,
    /// Bytes after the Close.
    pub(super) after_close: Vec<u8>,
}

/// A Close frame's payload.
pub(super) type Payload = Vec<u8>;

impl Stream {
    /// Takes bytes, and says how many data messages have begun with them.
    pub(super) fn push(&mut self, bytes: &[u8]) -> u64 {
        let mut begun = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            if self.close.is_some() {
                self.after_close.extend_from_slice(&bytes[at..]);
                break;
            }
            self.cut.push(byte);
            begun += u64::from(self.cut.len() == 1 && byte & 0x0F < 8);
            let Some(whole) = whole(&self.cut) else { continue };
            if self.cut.len() == whole {
                match self.cut[0] & 0x0F {
                    0..8 => self.messages += 1,
                    8 => self.close = Some(payload(&self.cut)),
                    _ => {}
                }
                self.cut.clear();
            }
        }
        begun
    }

    /// Whether there is nothing but Pongs after the Close: what is read before the peer's Close is answered (§5.5.2).
    pub(super) fn has_only_pongs_after_close(&self) -> bool {
        let mut rest = self.after_close.as_slice();
        while let Some(first) = rest.first() {
            if first & 0x0F != 10 {
                return false;
            }
            rest = whole(rest).and_then(|length| rest.get(length..)).unwrap_or_default();
        }
        true
    }

    /// A data message has begun and is not whole.
    pub(super) fn is_message_cut(&self) -> bool {
        self.cut.first().is_some_and(|first| first & 0x0F < 8)
    }

    /// Payload of the message that is not whole.
    pub(super) fn cut_payload(&self) -> u64 {
        if self.is_message_cut() { self.cut.len().saturating_sub(header(&self.cut)) as u64 } else { 0 }
    }
}

fn header(frame: &[u8]) -> usize {
    if frame.get(1).is_some_and(|second| second & 0x80 != 0) { 6 } else { 2 }
}

fn whole(frame: &[u8]) -> Option<usize> {
    let length = usize::from(frame.get(1)? & 0x7F);
    assert!(length < 126, "every frame is short here");
    Some(header(frame) + length)
}

fn payload(frame: &[u8]) -> Vec<u8> {
    let header = header(frame);
    let mut payload = frame[header..].to_vec();
    if header == 6 {
        for (byte, key) in payload.iter_mut().zip(frame[2..6].iter().cycle()) {
            *byte ^= key;
        }
    }
    payload
}
