//! The peers: each of a kind, with a script drawn from its own seed.

use std::collections::VecDeque;

use super::{
    answers::Answer,
    chance::Rng,
    deflate::{Agreed, Squeeze},
    frames::{CLOSE, PING, PONG, Seen, ServerStream},
};

mod says;

/// What kind of a client it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Talks, answers Pings and Closes, sends FIN after the server's.
    Polite,
    /// Opens a connection, reads, and never says anything again.
    Silent,
    /// Silent, and reads nothing either.
    Deaf,
    /// Polite, but reads a few bytes at a time.
    SlowReader,
    /// Polite, but writes a few bytes at a time.
    Trickler,
    /// Sends FIN and goes on reading.
    HalfCloser,
    /// Ends by RST.
    Resetter,
    /// Sends what is no frame.
    Garbage,
    /// Sends messages in many fragments, with control frames in between.
    Fragmenter,
    /// Polite, but stops reading for a while.
    Pauser,
    /// Connects and sends no request.
    NeverUpgrades,
    /// Sends half a request.
    HalfRequest,
    /// A request that is no upgrade: plain HTTP, malformed, with a body, too long.
    OtherRequest,
    /// Closes, with any code.
    Closer,
    /// Sends a Close that is not allowed.
    IllegalCloser,
    /// Sends Pings and more Pings.
    Pinger,
    /// Goes on sending after its Close.
    TalksOn,
    /// Closes as soon as a Close is under way to it.
    Crosser,
    /// Sends more than fits anywhere, also when nobody listens any more.
    Flooder,
    /// Closes its socket without a word, whatever is under way to it.
    Vanisher,
}

impl Kind {
    pub const ALL: [Self; 20] = [
        Self::Polite,
        Self::Silent,
        Self::Deaf,
        Self::SlowReader,
        Self::Trickler,
        Self::HalfCloser,
        Self::Resetter,
        Self::Garbage,
        Self::Fragmenter,
        Self::Pauser,
        Self::NeverUpgrades,
        Self::HalfRequest,
        Self::OtherRequest,
        Self::Closer,
        Self::IllegalCloser,
        Self::Pinger,
        Self::TalksOn,
        Self::Crosser,
        Self::Flooder,
        Self::Vanisher,
    ];
}

/// How it reads what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At once.
    Eager,
    /// At most this many bytes per act.
    Slow(u16),
    /// Not at all, for now or for ever.
    Stopped,
}

/// What a peer wants done.
#[derive(Debug, Default)]
pub struct Doing {
    /// To be sent, in this order: bytes, then FIN; or RST at once.
    pub bytes: Vec<u8>,
    pub fin: bool,
    pub reset: bool,
    /// It closes its socket: what arrives from now on is answered with RST.
    pub gone: bool,
    /// When it wants to act again, in microseconds.
    pub again: Option<u64>,
}

/// A client.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct Peer {
    pub kind: Kind,
    pub reading: Reading,
    pub rng: Rng,
    stream: ServerStream,
    /// Things still to do while open.
    acts: u8,
    requested: bool,
    open: bool,
    close_sent: bool,
    close_seen: bool,
    done: bool,
    /// The server's bytes ended by FIN or RST.
    pub ended: bool,
    max_payload: usize,
    /// The longest message that it sends now and then: where it is long, the rest of it is read into its own buffer.
    longest: usize,
    /// What a trickler has yet to send.
    drip: VecDeque<u8>,
    /// It does not close of its own accord.
    pub stays: bool,
    /// A slow read is on the agenda.
    pub waits_to_read: bool,
    /// It has done the last thing of its own accord.
    finished: bool,
    /// The compression that it offers, and what compresses its messages if that is agreed on.
    offer: Option<String>,
    squeeze: Option<Squeeze>,
}

impl Peer {
    pub fn new(kind: Kind, acts: u8, max_payload: usize, mut rng: Rng) -> Self {
        let reading = match kind {
            Kind::Deaf => Reading::Stopped,
            Kind::SlowReader => Reading::Slow(rng.u16(1..2000)),
            _ => Reading::Eager,
        };
        let mut beside = rng.beside();
        let longest = if beside.u8(..6) == 0 { beside.usize(40_000..400_000) } else { 20_000 };
        Self {
            kind,
            reading,
            longest,
            rng,
            stream: ServerStream::default(),
            acts,
            requested: false,
            open: false,
            close_sent: false,
            close_seen: false,
            done: false,
            ended: false,
            max_payload,
            drip: VecDeque::new(),
            stays: false,
            waits_to_read: false,
            finished: false,
            offer: None,
            squeeze: None,
        }
    }

    /// It offers compression, to which its server agrees so.
    pub fn compress(&mut self, offer: Option<String>, agreed: Option<Agreed>) {
        self.offer = offer;
        self.stream = ServerStream::agreeing(agreed);
        self.squeeze = agreed.map(|agreed| agreed.squeeze(&mut self.rng));
    }

    /// Whether a FIN now would come after whole frames.
    pub fn at_boundary(&self) -> bool {
        self.stream.at_boundary()
    }

    /// It has got a Close frame.
    pub fn has_seen_close(&self) -> bool {
        self.close_seen
    }

    pub fn is_open(&self) -> bool {
        self.open && !self.close_sent && !self.done
    }

    /// It closes now, for instance because a Close is under way to it.
    pub fn close_now(&mut self) -> Doing {
        let mut doing = Doing::default();
        if self.is_open() {
            self.send_close(&mut doing);
        }
        self.dribble(doing)
    }

    /// Its time has come: it leaves, somehow.
    pub fn leave(&mut self) -> Doing {
        self.done = true;
        let how = self.rng.u8(..3);
        Doing { reset: how < 2, fin: how == 2, gone: true, ..Doing::default() }
    }

    /// Something to do of its own accord.
    pub fn act(&mut self, path: &str) -> Doing {
        let mut doing = Doing::default();
        if self.done && self.drip.is_empty() {
            return doing;
        }
        if let Some(piece) = self.next_drip() {
            doing.bytes = piece;
            doing.again = Some(self.rng.u64(1..60_000));
            return doing;
        }
        if !self.requested {
            self.requested = true;
            self.request(path, &mut doing);
            return self.dribble(doing);
        }
        if !self.open || self.done || self.finished || (self.close_sent && self.kind != Kind::TalksOn) {
            return doing;
        }
        if self.acts == 0 {
            self.finished = true;
            self.finish(&mut doing);
        } else {
            self.acts -= 1;
            self.one_thing(&mut doing);
            doing.again = Some(self.pause());
        }
        self.dribble(doing)
    }

    /// Bytes of the server.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Doing {
        let mut doing = Doing::default();
        while let Ok(Some(seen)) = self.stream.pull(&mut bytes) {
            match seen {
                Seen::Answer(Answer { status: 101, .. }) => {
                    self.open = true;
                    doing.again = Some(self.pause());
                }
                Seen::Answer(_) => self.acts = 0,
                Seen::Ping if self.answers() => self.frame(&mut doing, 0x80 | PONG, &[]),
                Seen::Close(payload) => {
                    self.close_seen = true;
                    self.answer_close(&payload, &mut doing);
                }
                Seen::Begun(_) | Seen::Data { .. } | Seen::Ping | Seen::Pong(_) => {}
            }
        }
        self.dribble(doing)
    }

    /// FIN of the server, everything before it read.
    pub fn receive_fin(&mut self) -> Doing {
        self.ended = true;
        let mut doing = Doing::default();
        match self.kind {
            // They keep the server waiting for their FIN.
            Kind::Silent | Kind::Deaf | Kind::NeverUpgrades => {}
            Kind::Flooder => {
                let n = self.rng.usize(0..40_000);
                doing.bytes.resize(n, 0x11);
                doing.again = Some(1000);
            }
            Kind::Vanisher => (doing.reset, doing.gone) = (true, true),
            _ => (doing.fin, doing.gone) = (true, true),
        }
        self.done = true;
        if doing.fin && !self.drip.is_empty() {
            // Closing with something unsent: the rest goes at once.
            doing.bytes.extend(self.drip.drain(..));
        }
        doing
    }

    fn answers(&self) -> bool {
        !self.done
            && !self.close_sent
            && !matches!(self.kind, Kind::Silent | Kind::Deaf | Kind::Flooder | Kind::Vanisher)
    }

    fn answer_close(&mut self, payload: &[u8], doing: &mut Doing) {
        if !self.answers() {
            return;
        }
        match self.kind {
            Kind::HalfCloser => doing.fin = true,
            Kind::Resetter => (doing.reset, doing.gone) = (true, true),
            Kind::IllegalCloser => self.send_close(doing),
            Kind::Garbage => self.garbage(doing),
            _ => {
                if self.rng.u8(..8) == 0 {
                    self.frame(doing, 0x80 | PING, b"late");
                    self.message(doing, 40);
                }
                match self.rng.u8(..4) {
                    0 => self.send_close(doing),
                    1 => self.frame(doing, 0x80 | CLOSE, &[]),
                    _ => self.frame(doing, 0x80 | CLOSE, payload),
                }
                self.close_sent = true;
                if self.rng.u8(..6) == 0 {
                    doing.fin = true;
                }
            }
        }
        if self.kind == Kind::TalksOn {
            self.message(doing, 200);
        }
    }

    fn pause(&mut self) -> u64 {
        match self.rng.u8(..8) {
            0 => 1,
            1..6 => self.rng.u64(1..200_000),
            _ => self.rng.u64(1..3_000_000),
        }
    }

    fn one_thing(&mut self, doing: &mut Doing) {
        match self.kind {
            Kind::Silent | Kind::Deaf => {}
            Kind::Fragmenter => self.fragments(doing),
            Kind::Pinger => {
                for _ in 0..self.rng.u8(1..20) {
                    let payload = [b'p'; 125];
                    let n = self.rng.usize(..=125);
                    self.frame(doing, 0x80 | PING, &payload[..n]);
                }
            }
            Kind::Flooder => {
                for _ in 0..self.rng.u8(1..10) {
                    self.message(doing, self.longest);
                }
            }
            Kind::Pauser => {
                self.reading = if self.reading == Reading::Eager { Reading::Stopped } else { Reading::Eager };
            }
            _ => match self.rng.u8(..10) {
                0 => self.frame(doing, 0x80 | PING, b"are you there"),
                1 => self.frame(doing, 0x80 | PONG, b"here I am"),
                2 => self.fragments(doing),
                3 => self.message(doing, self.longest),
                _ => self.message(doing, 200),
            },
        }
    }

    /// The last thing that it does of its own accord.
    fn finish(&mut self, doing: &mut Doing) {
        match self.kind {
            Kind::Polite
            | Kind::SlowReader
            | Kind::Trickler
            | Kind::Pauser
            | Kind::Fragmenter
            | Kind::Pinger => {
                if self.kind == Kind::Pauser {
                    self.reading = Reading::Eager;
                }
                if !self.stays && self.rng.u8(..4) == 0 {
                    self.send_close(doing);
                }
            }
            Kind::HalfCloser => (doing.fin, self.done) = (true, true),
            Kind::Resetter => (doing.reset, doing.gone) = (true, true),
            Kind::Vanisher => (doing.fin, doing.gone) = (true, true),
            Kind::Garbage => {
                if self.rng.bool() {
                    self.message(doing, 100);
                }
                self.garbage(doing);
                if self.rng.bool() {
                    self.message(doing, 100);
                }
            }
            Kind::Closer => {
                self.send_close(doing);
                doing.fin = self.rng.u8(..4) == 0;
            }
            Kind::IllegalCloser => self.send_close(doing),
            Kind::TalksOn => {
                self.send_close(doing);
                for _ in 0..self.rng.u8(..5) {
                    self.message(doing, 500);
                }
            }
            Kind::Silent
            | Kind::Deaf
            | Kind::NeverUpgrades
            | Kind::HalfRequest
            | Kind::OtherRequest
            | Kind::Crosser
            | Kind::Flooder => {}
        }
        if doing.gone || doing.reset {
            self.done = true;
        }
    }

    /// A trickler keeps what it would send, and lets it go bit by bit.
    fn dribble(&mut self, mut doing: Doing) -> Doing {
        if self.kind == Kind::Trickler && !doing.bytes.is_empty() {
            self.drip.extend(doing.bytes.drain(..));
            let soon = self.rng.u64(1..20_000);
            doing.again = Some(doing.again.map_or(soon, |again| again.min(soon)));
        }
        if !self.drip.is_empty() {
            doing.fin = false;
        }
        doing
    }

    fn next_drip(&mut self) -> Option<Vec<u8>> {
        if self.drip.is_empty() {
            return None;
        }
        let most = if self.open { 40 } else { 80 };
        let n = self.rng.usize(1..=most).min(self.drip.len());
        Some(self.drip.drain(..n).collect())
    }
}
