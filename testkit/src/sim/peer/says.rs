//! What a peer sends: requests, messages, Closes, and what is none of these.

use super::{Doing, Kind, Peer};
use crate::sim::{
    chance::Rng,
    frames::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, client_frame, close_bytes},
};

impl Peer {
    pub(super) fn request(&mut self, path: &str, doing: &mut Doing) {
        let extensions = self.offer.take().map(|offer| format!("Sec-WebSocket-Extensions: {offer}\r\n"));
        let extensions = extensions.unwrap_or_default();
        let head = format!(
            "GET {path} HTTP/1.1\r\nHost: sim\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{extensions}\r\n"
        );
        match self.kind {
            Kind::NeverUpgrades => match self.rng.u8(..4) {
                0 => doing.fin = true,
                1 => (doing.reset, doing.gone) = (true, true),
                _ => {}
            },
            Kind::HalfRequest => {
                let n = self.rng.usize(1..head.len() - 1);
                doing.bytes.extend_from_slice(&head.as_bytes()[..n]);
                match self.rng.u8(..6) {
                    0 => doing.fin = true,
                    1 => (doing.reset, doing.gone) = (true, true),
                    _ => {}
                }
            }
            Kind::OtherRequest => self.other_request(path, &head, doing),
            _ => {
                doing.bytes.extend_from_slice(head.as_bytes());
                if self.rng.u8(..6) == 0 {
                    self.message(doing, 30);
                }
            }
        }
    }

    fn other_request(&mut self, path: &str, head: &str, doing: &mut Doing) {
        let which = self.rng.u8(..6);
        let text = match which {
            0 => format!("GET {path} HTTP/1.1\r\nHost: sim\r\n\r\n"),
            1 => head.replace("13", "12"),
            2 => head.replace("Host: sim", "Host: sim\r\nContent-Length: 3"),
            3 => head
                .replace("Host: sim", &format!("Host: sim\r\nX: {}", "y".repeat(self.rng.usize(..20_000)))),
            4 => head.replace("\r\n", "\n"),
            _ => format!("HEAD {path} HTTP/1.1\r\nHost: sim\r\n\r\n"),
        };
        let goes_on = self.rng.bool();
        let text = if which == 0 && goes_on {
            format!("POST {path} HTTP/1.1\r\nHost: sim\r\nContent-Length: 900\r\n\r\n")
        } else {
            text
        };
        doing.bytes.extend_from_slice(text.as_bytes());
        if goes_on {
            doing.bytes.extend_from_slice(&[b'z'; 700]);
        }
        doing.fin = self.rng.u8(..3) == 0;
    }

    pub(super) fn send_close(&mut self, doing: &mut Doing) {
        let rng = &mut self.rng;
        let legal = [1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999];
        let payload = if self.kind == Kind::IllegalCloser {
            match rng.u8(..5) {
                0 => vec![3],
                1 => close_bytes([0, 999, 1004, 1005, 1006, 1015, 2999, 5000][rng.usize(..8)], b"no"),
                2 => close_bytes(1000, &[0xff, 0xfe]),
                3 => close_bytes(1000, &[b'x'; 124]),
                _ => close_bytes(u16::MAX, b""),
            }
        } else if rng.u8(..5) == 0 {
            Vec::new()
        } else {
            let reason = "bye-".repeat(rng.usize(..31));
            close_bytes(legal[rng.usize(..legal.len())], &reason.as_bytes()[..reason.len().min(123)])
        };
        self.frame(doing, 0x80 | CLOSE, &payload);
        self.close_sent = true;
    }

    pub(super) fn garbage(&mut self, doing: &mut Doing) {
        if self.squeeze.is_some() && self.rng.bool() {
            return self.compressed_garbage(doing);
        }
        let first = |rng: &mut Rng| [0xC1, 0x83, 0x09, 0x80, 0x91, 0xA2, 0x8F][rng.usize(..7)];
        match self.rng.u8(..8) {
            0 => doing.bytes.extend_from_slice(b"\xff\xff\xff\xff\xff\xff"),
            1 => {
                let first = first(&mut self.rng);
                self.frame(doing, first, b"garbage");
            }
            2 => client_frame(&mut doing.bytes, &mut self.rng, 0x81, b"not masked", false),
            3 => self.frame(doing, 0x80 | PING, &[7; 126]),
            4 => {
                let mut text = "a fine text".repeat(self.rng.usize(1..2000)).into_bytes();
                let at = self.rng.usize(..text.len());
                text[at] = 0xff;
                if text.len() <= self.max_payload {
                    self.frame(doing, 0x80 | TEXT, &text);
                } else {
                    self.frame(doing, 0x80 | TEXT, b"\xc0\x80");
                }
            }
            5 => {
                // Longer than may be: announced, and only begun.
                let announced = self.max_payload as u64 + self.rng.u64(1..1 << 40);
                doing.bytes.extend_from_slice(&[0x82, 0xff]);
                doing.bytes.extend_from_slice(&announced.max(0x1_0000).to_be_bytes());
                doing.bytes.extend_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8, 9]);
            }
            6 => doing.bytes.extend_from_slice(&[0x82, 0xfe, 0, 5, 1, 2, 3, 4, 9, 9, 9, 9, 9]),
            _ => {
                for _ in 0..self.rng.u8(1..60) {
                    doing.bytes.push(self.rng.u8(..));
                }
            }
        }
    }

    /// A message that is said to be compressed: not so, or not whole, or of more than may be.
    fn compressed_garbage(&mut self, doing: &mut Doing) {
        let (which, text) = (self.rng.u8(..4), self.rng.bool());
        let most = if which == 0 { self.max_payload + self.rng.usize(1..100_000) } else { 3000 };
        let mut payload = vec![b'0'; self.rng.usize(most / 2..=most)];
        payload.iter_mut().step_by(7).for_each(|byte| *byte = self.rng.u8(b'a'..=b'z'));
        let Some(squeeze) = &mut self.squeeze else { return };
        let mut packed = squeeze.message(&payload);
        let at = self.rng.usize(..packed.len());
        match which {
            0 => {}
            1 => packed.truncate(at),
            2 => packed[at] ^= 1 << self.rng.u8(..8),
            _ => packed.iter_mut().for_each(|byte| *byte = self.rng.u8(..)),
        }
        self.frame(doing, 0xC0 | if text { TEXT } else { BINARY }, &packed);
    }

    pub(super) fn fragments(&mut self, doing: &mut Doing) {
        let text = self.rng.bool();
        let n = self.rng.u8(2..12);
        if self.squeeze.is_some() && self.rng.bool() {
            let payload = self.payload(60 * usize::from(n), text);
            let packed = self.squeeze.as_mut().map_or_else(Vec::new, |squeeze| squeeze.message(&payload));
            let mut first = 0x40 | if text { TEXT } else { BINARY };
            for piece in packed.chunks(packed.len().div_ceil(usize::from(n)).max(1)) {
                self.frame(doing, std::mem::take(&mut first), piece);
            }
            return self.frame(doing, 0x80 | CONTINUATION, &[]);
        }
        for i in 0..n {
            let first = match i {
                0 if text => TEXT,
                0 => BINARY,
                _ => CONTINUATION,
            };
            let fin = if i + 1 == n { 0x80 } else { 0 };
            let piece = self.payload(60, text);
            self.frame(doing, fin | first, &piece);
            match self.rng.u8(..12) {
                0 => self.frame(doing, 0x80 | PING, b"in between"),
                1 => self.frame(doing, 0x80 | PONG, b""),
                2 if self.kind == Kind::Closer => return self.send_close(doing),
                _ => {}
            }
        }
    }

    pub(super) fn message(&mut self, doing: &mut Doing, most: usize) {
        let text = self.rng.bool();
        let payload = self.payload(most, text);
        let opcode = if text { TEXT } else { BINARY };
        match &mut self.squeeze {
            Some(squeeze) if self.rng.u8(..4) > 0 => {
                let packed = squeeze.message(&payload);
                self.frame(doing, 0xC0 | opcode, &packed);
            }
            _ => self.frame(doing, 0x80 | opcode, &payload),
        }
    }

    /// A payload that is not taken for one of the server's.
    fn payload(&mut self, most: usize, text: bool) -> Vec<u8> {
        // Few of them are long.
        let limit = if most > 20_000 { self.max_payload } else { self.max_payload / 16 };
        let n = self.rng.usize(..=most.min(limit));
        let byte = if text { self.rng.u8(b'A'..=b'Z') } else { self.rng.u8(0x80..) };
        let mut payload = vec![byte; n];
        if text && n > 2 {
            payload[n - 2..].copy_from_slice("é".as_bytes());
        }
        payload
    }

    pub(super) fn frame(&mut self, doing: &mut Doing, first: u8, payload: &[u8]) {
        client_frame(&mut doing.bytes, &mut self.rng, first, payload, true);
    }
}
