//! An independent reading of RFC 6455, as small as it can be: what a server and a client put on the wire.
//!
//! Nothing of the crate is used here, so that a mistake there is not repeated.

use super::chance::Rng;

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
    /// An HTTP head with this status.
    Answer(u16),
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
    /// The HTTP head, or a control frame's payload.
    kept: Vec<u8>,
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
                    return Ok(Some(self.end_frame()));
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
        let status = head.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        let status = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        let status =
            status.ok_or_else(|| format!("no HTTP status in {:?}", String::from_utf8_lossy(&head)))?;
        self.part = if status == 101 { Part::Header } else { Part::Body };
        Ok(Seen::Answer(status))
    }

    fn begin(&mut self, byte: u8) -> Result<Seen, String> {
        if byte & 0x70 != 0 || byte & 0x80 == 0 {
            return Err(format!("a frame that begins with {byte:#x}"));
        }
        self.opcode = byte & 15;
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
        if self.opcode >= CLOSE {
            self.kept.extend_from_slice(piece);
            self.done += piece.len() as u64;
            return Ok(());
        }
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
        self.done += piece.len() as u64;
        Ok(())
    }

    fn number(&self) -> Option<u64> {
        let digits = self.head.strip_prefix(b"#").filter(|_| usize::from(self.have) == NUMBER)?;
        u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()
    }

    fn end_frame(&mut self) -> Seen {
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
        seen
    }
}

fn take_one(bytes: &mut &[u8]) -> Option<u8> {
    let (first, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*first)
}

/// How a client breaks the protocol, as far as the code of the answer tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Breach {
    Protocol,
    TooBig,
    Utf8,
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

/// The bytes of a client behind its request.
#[derive(Clone, Debug, Default)]
pub struct ClientStream {
    head: Vec<u8>,
    frame: Option<ClientFrame>,
    /// The message under way: text or not, its payload so far, and its fragments.
    message: Option<(bool, Vec<u8>, u32)>,
    /// How much of a text is known to be UTF-8.
    checked: usize,
    /// Bytes since the last frame that was in order.
    since_frame: u64,
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
    /// Nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.head.is_empty() && self.frame.is_none() && self.message.is_none()
    }

    /// Payload of the message that is not finished.
    pub fn partial(&self) -> u64 {
        self.message.as_ref().map_or(0, |(_, payload, _)| payload.len() as u64)
    }

    /// Bytes since the last frame that was in order.
    pub fn since_frame(&self) -> u64 {
        self.since_frame
    }

    /// Takes bytes off the front until something is found; `None` when they are used up.
    pub fn pull(&mut self, bytes: &mut &[u8], limits: ClientLimits) -> Option<Found> {
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
            let found = self.payload(bytes);
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
        let (so_far, fragments) = self.message.as_ref().map_or((0, 0), |m| (m.1.len() as u64, m.2));
        if first & 0x70 != 0 || !matches!(opcode, 0..=2 | 8..=10) || (control && !fin) {
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
        if !control && so_far.saturating_add(length) > limits.max_payload {
            return Err(Breach::TooBig);
        }
        let whole = 2 + extra + 4;
        if self.head.len() < whole {
            return Ok(None);
        }
        if !control {
            self.message.get_or_insert((opcode == TEXT, Vec::new(), 0)).2 += 1;
        }
        let key = [self.head[whole - 4], self.head[whole - 3], self.head[whole - 2], self.head[whole - 1]];
        Ok(Some(ClientFrame { fin, opcode, key, done: 0, left: length, control: Vec::new() }))
    }

    fn payload(&mut self, bytes: &mut &[u8]) -> Option<Found> {
        let frame = self.frame.as_mut()?;
        let n = usize::try_from(frame.left).unwrap_or(usize::MAX).min(bytes.len());
        let (piece, rest) = bytes.split_at(n);
        *bytes = rest;
        let target = match &mut self.message {
            Some((_, payload, _)) if frame.opcode < CLOSE => payload,
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
            if !self.text_is_utf8(last) {
                return Some(Found::Breach(Breach::Utf8));
            }
            if whole {
                self.frame = None;
            }
            let (text, payload, _) = self.message.take_if(|_| last)?;
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

    fn text_is_utf8(&mut self, last: bool) -> bool {
        let Some((true, payload, _)) = &self.message else { return true };
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
