//! Client frames, made once; server frames, scanned without keeping their payloads.

pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];

/// A whole masked frame.
pub fn client_frame(opcode: u8, rsv1: bool, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x80 | (u8::from(rsv1) << 6) | opcode];
    match payload.len() {
        len @ 0..126 => frame.push(0x80 | u8::try_from(len).unwrap_or(0)),
        len @ 126..65536 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&u16::try_from(len).unwrap_or(0).to_be_bytes());
        }
        len => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(len as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&MASK);
    frame.extend(payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What a scan has found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// A data frame's header: opcode, RSV1.
    Data {
        opcode: u8,
        rsv1: bool,
    },
    /// A complete data message; how many payload bytes it had, over all its frames.
    Message {
        payload: u64,
    },
    Ping(Vec<u8>),
    Pong,
    /// A complete Close frame and its code (1005 if it had none).
    Close(u16),
    /// Something a server must never send.
    Broken(&'static str),
}

/// Cuts a stream of server frames, however it arrives.
#[derive(Default)]
pub struct Scanner {
    head: [u8; 10],
    head_len: u8,
    /// Payload bytes of the current frame still to come.
    left: u64,
    in_payload: bool,
    in_message: bool,
    message: u64,
    control: Vec<u8>,
    pub broken: bool,
}

impl Scanner {
    /// Takes all of `bytes`; `payload` is given the data frames' payload bytes as they come.
    pub fn scan(&mut self, mut bytes: &[u8], payload: &mut dyn FnMut(&[u8]), found: &mut dyn FnMut(Found)) {
        while !bytes.is_empty() && !self.broken {
            if !self.in_payload {
                self.head[usize::from(self.head_len)] = bytes[0];
                self.head_len += 1;
                bytes = &bytes[1..];
                if usize::from(self.head_len) >= self.head_size() {
                    self.begin(found);
                }
                if !self.in_payload || self.left > 0 {
                    continue;
                }
            }
            let take = usize::try_from(self.left).unwrap_or(usize::MAX).min(bytes.len());
            let (now, rest) = bytes.split_at(take);
            bytes = rest;
            self.left -= take as u64;
            if self.head[0] & 8 != 0 {
                self.control.extend_from_slice(now);
            } else {
                self.message += take as u64;
                payload(now);
            }
            if self.left == 0 {
                self.end(found);
            }
        }
    }

    fn head_size(&self) -> usize {
        if self.head_len < 2 {
            return 2;
        }
        match self.head[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn begin(&mut self, found: &mut dyn FnMut(Found)) {
        let opcode = self.head[0] & 15;
        let rsv1 = self.head[0] & 0x40 != 0;
        let head = &self.head;
        self.left = match head[1] & 0x7f {
            126 => u64::from(u16::from_be_bytes([head[2], head[3]])),
            127 => {
                u64::from_be_bytes([head[2], head[3], head[4], head[5], head[6], head[7], head[8], head[9]])
            }
            short => u64::from(short),
        };
        let problem = match opcode {
            _ if head[1] & 0x80 != 0 => Some("a masked frame from the server"),
            _ if head[0] & 0x30 != 0 => Some("RSV2 or RSV3 is set"),
            0 if !self.in_message => Some("a continuation of nothing"),
            TEXT | BINARY if self.in_message => Some("a new message inside another one"),
            0 | TEXT | BINARY => None,
            CLOSE | PING | PONG if head[0] & 0x80 != 0 && self.left < 126 && !rsv1 => None,
            _ => Some("an illegal opcode or control frame"),
        };
        if let Some(problem) = problem {
            self.broken = true;
            found(Found::Broken(problem));
            return;
        }
        if opcode == TEXT || opcode == BINARY {
            self.in_message = true;
            self.message = 0;
            found(Found::Data { opcode, rsv1 });
        }
        self.in_payload = true;
    }

    fn end(&mut self, found: &mut dyn FnMut(Found)) {
        let opcode = self.head[0] & 15;
        let fin = self.head[0] & 0x80 != 0;
        self.in_payload = false;
        self.head_len = 0;
        let control = std::mem::take(&mut self.control);
        match opcode {
            CLOSE => {
                found(Found::Close(
                    control.first_chunk().map_or(1005, |code: &[u8; 2]| u16::from_be_bytes(*code)),
                ));
            }
            PING => found(Found::Ping(control)),
            PONG => found(Found::Pong),
            _ if fin => {
                self.in_message = false;
                found(Found::Message { payload: self.message });
            }
            _ => {}
        }
    }
}
