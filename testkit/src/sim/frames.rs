//! An independent reading of RFC 6455, as small as it can be: what a server and a client put on the wire.
//!
//! Nothing of the crate is used here, so that a mistake there is not repeated.

use super::{
    answers::{Answer, header},
    chance::Rng,
    deflate::{Agreed, Fault, Inflate},
};

/// The opcodes, as on the wire (§5.2).
pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// Bytes of the number at the front of a payload that [`numbered`] made.
pub const NUMBER: usize = 10;

/// A payload that says which message it is, as far as it has room: `#` and nine digits, then letters.
pub fn numbered(number: u64, length: usize) -> Vec<u8> {
    let mut payload = format!("#{number:09x}").into_bytes();
    payload.resize(length, letter(number));
    payload
}

fn letter(number: u64) -> u8 {
    b"abcdefghijklmnopqrstuvwxyz"[(number % 26) as usize]
}

/// What was seen in a server's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Seen {
    /// An HTTP head.
    Answer(Answer),
    /// The first byte of a frame with this opcode.
    Begun(u8),
    /// A data frame is complete; its number, if its payload was made by [`numbered`] and is long enough.
    Data {
        length: u64,
        number: Option<u64>,
    },
    Close(Vec<u8>),
    Ping,
    Pong(Vec<u8>),
}

/// The bytes of a server: an HTTP answer, then whole frames if that was 101, else a body.
#[derive(Clone, Debug, Default)]
pub struct ServerStream {
    part: Part,
    /// Header, then the first bytes of the payload.
    head: [u8; 10],
    have: u8,
    opcode: u8,
    length: u64,
    done: u64,
    /// The HTTP head, a control frame's payload, or that of a compressed message.
    kept: Vec<u8>,
    compressed: bool,
    deflate: Option<Box<(Agreed, Inflate)>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Part {
    #[default]
    Http,
    Body,
    Header,
    Payload,
}

impl ServerStream {
    /// Of a server that has to agree to this if it agrees to the upgrade.
    pub fn agreeing(agreed: Option<Agreed>) -> Self {
        let deflate = agreed.map(|agreed| Box::new((agreed, agreed.of_server())));
        Self { deflate, ..Self::default() }
    }

    /// See [`ServerStream::agreeing`].
    pub fn agreed(&self) -> Option<&Agreed> {
        self.deflate.as_ref().map(|deflate| &deflate.0)
    }

    /// Takes bytes off the front until something is seen; `None` when they are used up.
    ///
    /// # Errors
    /// What a client would have to call a violation.
    pub fn pull(&mut self, bytes: &mut &[u8]) -> Result<Option<Seen>, String> {
        loop {
            match self.part {
                Part::Http => {
                    let Some(byte) = take_one(bytes) else { return Ok(None) };
                    self.kept.push(byte);
                    if self.kept.ends_with(b"\r\n\r\n") {
                        return self.end_head().map(Some);
                    }
                    if self.kept.len() > 8192 {
                        return Err("an HTTP head without end".into());
                    }
                }
                Part::Body => {
                    *bytes = &[];
                    return Ok(None);
                }
                Part::Header => {
                    let Some(byte) = take_one(bytes) else { return Ok(None) };
                    self.head[usize::from(self.have)] = byte;
                    self.have += 1;
                    if self.have == 1 {
                        return self.begin(byte).map(Some);
                    }
                    if self.header_is_whole()? {
                        (self.part, self.have, self.done) = (Part::Payload, 0, 0);
                    }
                }
                Part::Payload => {
                    let left = self.length - self.done;
                    let n = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
                    let (piece, rest) = bytes.split_at(n);
                    *bytes = rest;
                    self.absorb(piece)?;
                    if self.done < self.length {
                        return Ok(None);
                    }
                    return self.end_frame().map(Some);
                }
            }
        }
    }

    /// Whether the bytes end between two frames, or between the parts of HTTP.
    pub fn at_boundary(&self) -> bool {
        match self.part {
            Part::Http => self.kept.is_empty(),
            Part::Body => true,
            Part::Header => self.have == 0,
            Part::Payload => false,
        }
    }

    /// The data frame that has begun and is not whole: its length, once the header says it.
    #[expect(clippy::option_option, reason = "nothing is cut; cut in its header; cut in its payload")]
    pub fn cut_data(&self) -> Option<Option<u64>> {
        let begun = !self.at_boundary() && matches!(self.part, Part::Header | Part::Payload);
        (begun && self.opcode < CLOSE).then(|| (self.part == Part::Payload).then_some(self.length))
    }

    fn end_head(&mut self) -> Result<Seen, String> {
        let head = std::mem::take(&mut self.kept);
        let head = String::from_utf8_lossy(&head);
        let answer = Answer::parse(&head).ok_or_else(|| format!("no HTTP status in {head:?}"))?;
        let status = answer.status;
        self.part = if status == 101 { Part::Header } else { Part::Body };
        let extensions = header(&head, "sec-websocket-extensions");
        let right = match (self.agreed(), extensions) {
            (Some(agreed), Some(said)) => agreed.is_said_by(said),
            (None, said) => said.is_none(),
            (Some(_), None) => status != 101,
        };
        if !right {
            return Err(format!("{status} with {extensions:?} instead of {:?}", self.agreed()));
        }
        Ok(Seen::Answer(answer))
    }

    fn begin(&mut self, byte: u8) -> Result<Seen, String> {
        self.opcode = byte & 15;
        self.compressed = byte & 0x40 != 0;
        let compresses = self.deflate.is_some() && self.opcode < CLOSE;
        if byte & 0x30 != 0 || byte & 0x80 == 0 || (self.compressed && !compresses) {
            return Err(format!("a frame that begins with {byte:#x}"));
        }
        match self.opcode {
            TEXT | BINARY | CLOSE | PING | PONG => Ok(Seen::Begun(self.opcode)),
            other => Err(format!("opcode {other:#x}")),
        }
    }

    fn header_is_whole(&mut self) -> Result<bool, String> {
        let have = usize::from(self.have);
        let second = self.head[1];
        if second & 0x80 != 0 {
            return Err("a masked frame of a server".into());
        }
        let (extra, least) = match second {
            126 => (2, 126),
            127 => (8, 0x1_0000),
            _ => (0, 0),
        };
        if have < 2 + extra {
            return Ok(false);
        }
        self.length = match extra {
            0 => u64::from(second),
            _ => self.head[2..2 + extra].iter().fold(0, |length, byte| length << 8 | u64::from(*byte)),
        };
        if self.length < least || (self.opcode >= CLOSE && self.length > 125) {
            return Err(format!("length {} in a form of {extra} bytes, opcode {}", self.length, self.opcode));
        }
        Ok(true)
    }

    fn absorb(&mut self, piece: &[u8]) -> Result<(), String> {
        self.done += piece.len() as u64;
        if self.opcode >= CLOSE || self.compressed {
            self.kept.extend_from_slice(piece);
            return Ok(());
        }
        self.look_at(piece)
    }

    /// At the next bytes of a message.
    fn look_at(&mut self, piece: &[u8]) -> Result<(), String> {
        let prefix = piece.len().min(NUMBER.saturating_sub(usize::from(self.have)));
        for byte in &piece[..prefix] {
            self.head[usize::from(self.have)] = *byte;
            self.have += 1;
        }
        if let Some(number) = self.number() {
            let letter = letter(number);
            if piece[prefix..].iter().any(|byte| *byte != letter) {
                return Err(format!("the payload of message {number} is not what was sent"));
            }
        }
        Ok(())
    }

    fn number(&self) -> Option<u64> {
        let digits = self.head.strip_prefix(b"#").filter(|_| usize::from(self.have) == NUMBER)?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn end_frame(&mut self) -> Result<Seen, String> {
        if self.compressed {
            self.inflate()?;
        }
        let seen = match self.opcode {
            CLOSE => Seen::Close(std::mem::take(&mut self.kept)),
            PONG => Seen::Pong(std::mem::take(&mut self.kept)),
            PING => {
                self.kept = Vec::new();
                Seen::Ping
            }
            _ => Seen::Data { length: self.length, number: self.number() },
        };
        (self.part, self.have) = (Part::Header, 0);
        Ok(seen)
    }

    /// The message as it was before it was compressed.
    fn inflate(&mut self) -> Result<(), String> {
        let packed = std::mem::take(&mut self.kept);
        let Some((agreed, inflate)) = self.deflate.as_deref_mut() else { return Ok(()) };
        let message = inflate.message(&packed, usize::MAX);
        let message =
            message.map_err(|(_, fault)| format!("{} compressed bytes: {fault:?}", packed.len()))?;
        if let Some(objection) = agreed.objects(packed.len(), message.len()) {
            return Err(objection);
        }
        self.length = message.len() as u64;
        self.look_at(&message)
    }
}

fn take_one(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// How a client breaks the protocol, as far as the code of the answer shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    Protocol,
    TooBig,
    Utf8,
    /// It is said to be compressed, and cannot be inflated.
    Deflate,
    /// More control frames than the settings allow.
    Flood,
}

/// What was found in a client's bytes.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    Message { text: bool, payload: Vec<u8> },
    Ping(Vec<u8>),
    Pong(Vec<u8>),
    Close(Option<u16>, String),
    Breach(Breach),
}

/// The bytes of a client after its request.
#[derive(Clone, Debug, Default)]
pub struct ClientStream {
    head: Vec<u8>,
    frame: Option<ClientFrame>,
    message: Option<Underway>,
    /// How much of a text is known to be UTF-8.
    checked: usize,
    /// Bytes since the last frame that was in order.
    since_frame: u64,
    deflate: Option<Box<Inflate>>,
    /// A compressed message was not as it has to be.
    broken: Option<Breach>,
}

/// The message under way.
#[derive(Clone, Debug)]
struct Underway {
    text: bool,
    compressed: bool,
    /// So far, and as it came.
    payload: Vec<u8>,
    fragments: u32,
}

#[derive(Clone, Debug)]
struct ClientFrame {
    fin: bool,
    opcode: u8,
    key: [u8; 4],
    done: usize,
    left: u64,
    control: Vec<u8>,
}

/// What a server lets a client do.
#[derive(Clone, Copy, Debug)]
pub struct ClientLimits {
    pub max_payload: u64,
    pub max_fragments: u32,
}

impl ClientStream {
    /// Of a client with which this was agreed on.
    pub fn agreeing(agreed: Option<&Agreed>) -> Self {
        Self { deflate: agreed.map(|agreed| Box::new(agreed.of_client())), ..Self::default() }
    }

    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.head.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// Payload of the message that is not finished.
    pub fn partial(&self) -> u64 {
        self.message.as_ref().map_or(0, |message| message.payload.len() as u64)
    }

    /// Bytes since the last frame that was in order.
    pub fn since_frame(&self) -> u64 {
        self.since_frame
    }

    /// Takes bytes off the front until something is found; `None` when they are used up.
    pub fn pull(&mut self, bytes: &mut &[u8], limits: ClientLimits) -> Option<Found> {
        if let Some(breach) = self.broken {
            return Some(Found::Breach(breach));
        }
        loop {
            if self.frame.is_none() {
                let byte = take_one(bytes)?;
                self.since_frame += 1;
                self.head.push(byte);
                match self.header(limits) {
                    Ok(frame) => self.frame = frame,
                    Err(breach) => return Some(Found::Breach(breach)),
                }
                if self.frame.is_some() {
                    self.head = Vec::new();
                }
                continue;
            }
            let before = bytes.len();
            let found = self.payload(bytes, limits);
            self.since_frame += (before - bytes.len()) as u64;
            match found {
                Some(Found::Breach(breach)) => return Some(Found::Breach(breach)),
                Some(found) => {
                    self.since_frame = 0;
                    return Some(found);
                }
                None if self.frame.is_some() => return None,
                None => self.since_frame = 0,
            }
        }
    }

    /// Looks at the header so far. A breach counts with the first byte that shows it.
    fn header(&mut self, limits: ClientLimits) -> Result<Option<ClientFrame>, Breach> {
        let first = self.head[0];
        let (fin, opcode) = (first & 0x80 != 0, first & 15);
        let control = opcode >= CLOSE;
        let message = self.message.as_ref();
        let (so_far, fragments) = message.map_or((0, 0), |m| (m.payload.len() as u64, m.fragments));
        let compressed = first & 0x40 != 0;
        if compressed && (self.deflate.is_none() || !matches!(opcode, TEXT | BINARY)) {
            return Err(Breach::Protocol);
        }
        if first & 0x30 != 0 || !matches!(opcode, 0..=2 | 8..=10) || (control && !fin) {
            return Err(Breach::Protocol);
        }
        let in_message = self.message.is_some();
        if (opcode == CONTINUATION && !in_message) || (matches!(opcode, TEXT | BINARY) && in_message) {
            return Err(Breach::Protocol);
        }
        if !control && fragments >= limits.max_fragments {
            return Err(Breach::TooBig);
        }
        let Some(&second) = self.head.get(1) else { return Ok(None) };
        let (short, masked) = (second & 0x7f, second & 0x80 != 0);
        if (control && short > 125) || !masked {
            return Err(Breach::Protocol);
        }
        let extra = match short {
            126 => 2,
            127 => 8,
            _ => 0,
        };
        // What is missing of the length counts as zeros.
        let byte = |at: usize| self.head.get(2 + at).copied().unwrap_or(0);
        let length = match extra {
            0 => u64::from(short),
            _ => (0..extra).fold(0, |length, at| length << 8 | u64::from(byte(at))),
        };
        let least = if extra == 8 { 0x1_0000 } else { 126 };
        let shortable = self.head.get(2..2 + extra).is_some() && extra > 0 && length < least;
        if shortable || length >> 63 != 0 || (extra == 8 && self.head.get(2..8) == Some(&[0; 6])) {
            return Err(Breach::Protocol);
        }
        // What cannot be compressed may be a little longer so.
        let packed = compressed || message.is_some_and(|message| message.compressed);
        let slack = if packed { limits.max_payload / 256 + 64 } else { 0 };
        if !control && so_far.saturating_add(length) > limits.max_payload.saturating_add(slack) {
            return Err(Breach::TooBig);
        }
        let whole = 2 + extra + 4;
        if self.head.len() < whole {
            return Ok(None);
        }
        if !control {
            let fresh = || Underway { text: opcode == TEXT, compressed, payload: Vec::new(), fragments: 0 };
            self.message.get_or_insert_with(fresh).fragments += 1;
        }
        let key = [self.head[whole - 4], self.head[whole - 3], self.head[whole - 2], self.head[whole - 1]];
        Ok(Some(ClientFrame { fin, opcode, key, done: 0, left: length, control: Vec::new() }))
    }

    fn payload(&mut self, bytes: &mut &[u8], limits: ClientLimits) -> Option<Found> {
        let frame = self.frame.as_mut()?;
        let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at(n);
        *bytes = rest;
        let target = match &mut self.message {
            Some(message) if frame.opcode < CLOSE => &mut message.payload,
            _ => &mut frame.control,
        };
        for byte in piece {
            target.push(byte ^ frame.key[frame.done & 3]);
            frame.done += 1;
        }
        frame.left -= n as u64;
        let (whole, fin, opcode) = (frame.left == 0, frame.fin, frame.opcode);
        if opcode < CLOSE {
            let last = whole && fin;
            if last && self.message.as_ref().is_some_and(|message| message.compressed) {
                let found = self.inflated(limits);
                self.broken = match &found {
                    Found::Breach(breach) => Some(*breach),
                    _ => None,
                };
                return Some(found);
            }
            if !self.text_is_utf8(last) {
                return Some(Found::Breach(Breach::Utf8));
            }
            if whole {
                self.frame = None;
            }
            let Underway { text, payload, .. } = self.message.take_if(|_| last)?;
            self.checked = 0;
            return Some(Found::Message { text, payload });
        }
        let frame = self.frame.take_if(|_| whole)?;
        Some(match opcode {
            PING => Found::Ping(frame.control),
            PONG => Found::Pong(frame.control),
            _ => close_payload(&frame.control),
        })
    }

    /// A compressed message is whole. The first breach counts.
    fn inflated(&mut self, limits: ClientLimits) -> Found {
        let limit = usize::try_from(limits.max_payload).unwrap_or(usize::MAX);
        let (Some(message), Some(inflate)) = (&self.message, &mut self.deflate) else {
            return Found::Breach(Breach::Protocol);
        };
        let text = message.text;
        let is_bad = |error: std::str::Utf8Error| error.error_len().is_some();
        let payload = match inflate.message(&message.payload, limit) {
            Ok(payload) if text && std::str::from_utf8(&payload).is_err() => {
                return Found::Breach(Breach::Utf8);
            }
            Ok(payload) => payload,
            Err((begun, fault)) => {
                let begun = std::str::from_utf8(&begun[..begun.len().min(limit)]);
                let breach = match fault {
                    _ if text && begun.is_err_and(is_bad) => Breach::Utf8,
                    Fault::TooBig => Breach::TooBig,
                    Fault::Corrupt => Breach::Deflate,
                };
                return Found::Breach(breach);
            }
        };
        (self.frame, self.message) = (None, None);
        Found::Message { text, payload }
    }

    fn text_is_utf8(&mut self, last: bool) -> bool {
        let Some(Underway { text: true, compressed: false, payload, .. }) = &self.message else {
            return true;
        };
        match std::str::from_utf8(&payload[self.checked..]) {
            Ok(_) => {
                self.checked = payload.len();
                true
            }
            Err(error) => {
                self.checked += error.valid_up_to();
                error.error_len().is_none() && !last
            }
        }
    }
}

/// What a Close payload says (§5.5.1, §7.4).
fn close_payload(payload: &[u8]) -> Found {
    match payload {
        [] => Found::Close(None, String::new()),
        [_] => Found::Breach(Breach::Protocol),
        [high, low, reason @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            match (code, std::str::from_utf8(reason)) {
                (1000..=1003 | 1007..=1014 | 3000..=4999, Ok(reason)) => {
                    Found::Close(Some(code), reason.to_owned())
                }
                (1000..=1003 | 1007..=1014 | 3000..=4999, Err(_)) => Found::Breach(Breach::Utf8),
                _ => Found::Breach(Breach::Protocol),
            }
        }
    }
}

/// Appends one frame of a client. `first` is its first byte; `masked` is false for a client that breaks §5.1.
pub fn client_frame(out: &mut Vec<u8>, rng: &mut Rng, first: u8, payload: &[u8], masked: bool) {
    out.push(first);
    let mask = if masked { 0x80 } else { 0 };
    match u16::try_from(payload.len()) {
        Ok(short @ 0..=125) => out.push(mask | short.to_be_bytes()[1]),
        Ok(medium) => {
            out.push(mask | 0x7e);
            out.extend_from_slice(&medium.to_be_bytes());
        }
        Err(_) => {
            out.push(mask | 0x7f);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    let key = if masked { rng.u32(..).to_be_bytes() } else { [0; 4] };
    if masked {
        out.extend_from_slice(&key);
    }
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
}

/// The payload of a Close frame.
pub fn close_bytes(code: u16, reason: &[u8]) -> Vec<u8> {
    [&code.to_be_bytes(), reason].concat()
}
