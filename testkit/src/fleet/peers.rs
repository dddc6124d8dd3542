//! The peers: clients of ours, and servers that we are a client of. They send numbered messages, answer a Close or do not, and leave.

use std::net::{IpAddr, SocketAddr};

use adjourn::{hub::Readiness, testing::REQUEST};

use super::{
    client_address,
    facts::{Header, How, Item, World},
};

impl World {
    /// What a connection that is adopted has sent already: messages, and the beginning of one.
    pub fn tail(&mut self, link: u32) -> Vec<u8> {
        let mut tail = Vec::new();
        for _ in 0..self.rng.u8(..4) {
            tail.extend(self.message(link));
        }
        let mut next = self.message(link);
        let rest = next.split_off(self.rng.usize(..next.len()));
        tail.extend(next);
        self.of(link).input = rest;
        tail
    }

    /// The next message of a peer, masked if it is a client.
    fn message(&mut self, link: u32) -> Vec<u8> {
        let number = self.link(link).sent;
        self.of(link).sent += 1;
        self.frame(link, 0x81, format!("{link}.{number}").as_bytes())
    }

    fn frame(&self, link: u32, first: u8, payload: &[u8]) -> Vec<u8> {
        if self.link(link).how == How::Dialled {
            let length = u8::try_from(payload.len()).expect("a short one");
            return [&[first, length], payload].concat();
        }
        adjourn::testing::frame(first, payload)
    }

    fn says(&mut self, link: u32, bytes: &[u8]) {
        self.of(link).input.extend_from_slice(bytes);
        self.notify(link, Readiness { readable: true, ..Readiness::default() });
    }

    fn leaves(&mut self, link: u32, resets: bool) {
        let known = self.of(link);
        known.peer_gone = true;
        if resets {
            known.error = Some(std::io::ErrorKind::ConnectionReset);
            known.input.clear();
        } else {
            known.eof = true;
        }
        self.notify(link, Readiness { readable: true, writable: resets, ended: true });
    }

    /// Its time has come to do something of its own accord.
    pub fn peer_acts(&mut self, link: u32) {
        let known = self.link(link);
        if known.slot.is_none() || known.peer_gone {
            return;
        }
        let (how, number) = (known.how, known.number);
        if known.fin {
            if known.answers {
                self.leaves(link, false);
            }
            return;
        }
        if let (How::Accepted(header), false) = (how, known.head_done) {
            self.of(link).head_done = true;
            return self.requests(link, header);
        }
        if !self.link(link).head_done || self.link(link).peer_closed {
            return;
        }
        // What was cut is whole now.
        if !self.link(link).input.is_empty() {
            self.notify(link, Readiness { readable: true, ..Readiness::default() });
        }
        if self.link(link).acts == 0 {
            match self.rng.u8(..6) {
                0 => {
                    let close = self.frame(link, 0x88, &4000_u16.to_be_bytes());
                    self.of(link).peer_closed = true;
                    self.says(link, &close);
                }
                1 => self.leaves(link, true),
                2 => self.leaves(link, false),
                _ => {}
            }
            return;
        }
        self.of(link).acts -= 1;
        let message = self.message(link);
        self.says(link, &message);
        self.soon(1_500_000, number, Item::Peer(link));
    }

    fn requests(&mut self, link: u32, header: Header) {
        let number = self.link(link).number;
        let client = client_address(link);
        let mut bytes = match header {
            Header::None => Vec::new(),
            Header::V1 => {
                format!("PROXY TCP4 {} 198.51.100.1 {} 443\r\n", client.ip(), client.port()).into_bytes()
            }
            Header::V2 => v2(0x21, client),
            Header::Local => v2(0x20, client),
            Header::Unknown => b"PROXY UNKNOWN\r\n".to_vec(),
            Header::Cut => {
                let mut whole = v2(0x21, client);
                whole.truncate(self.rng.usize(13..whole.len()));
                if self.rng.bool() {
                    self.of(link).eof = true;
                }
                return self.says(link, &whole);
            }
            Header::Wrong => match self.rng.u8(..3) {
                0 => b"PROXY TCP9 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
                1 => v2(0x31, client),
                _ => [&b"PROXY TCP4 "[..], &[b'1'; 120], b"\r\n"].concat(),
            },
        };
        bytes.extend_from_slice(REQUEST);
        if self.rng.bool() {
            bytes.extend(self.message(link));
        }
        self.says(link, &bytes);
        self.soon(500_000, number, Item::Peer(link));
    }

    /// It reads what has come.
    pub fn peer_reads(&mut self, link: u32) {
        let mut written = std::mem::take(&mut self.of(link).written);
        if self.link(link).peer_gone {
            return;
        }
        if self.link(link).how == How::Dialled && !self.link(link).head_done {
            let Some(end) = find(&written, b"\r\n\r\n") else {
                self.of(link).written = written;
                return;
            };
            self.of(link).head_done = true;
            return self.answers(link, &written[..end]);
        }
        // A 101, if it is one, and what comes after it.
        if written.starts_with(b"HTTP/1.1 ") {
            let end = find(&written, b"\r\n\r\n").unwrap_or(written.len());
            written.drain(..end);
        }
        while let Some((first, length)) = frame_of(&written) {
            written.drain(..length);
            if first == 0x88 && self.link(link).answers && !self.link(link).peer_closed {
                self.of(link).peer_closed = true;
                let close = self.frame(link, 0x88, &1001_u16.to_be_bytes());
                self.says(link, &close);
            } else if first == 0x89 {
                let pong = self.frame(link, 0x8a, &[]);
                self.says(link, &pong);
            }
        }
        // An answer that is no 101 may have a body. Its kernel takes everything, so no frame is cut.
        let whole = written.is_empty() || !self.link(link).opened;
        self.check("whole_frames_on_the_wire", Some(link), whole, || format!("{written:?}"));
    }

    /// A server that we are a client of answers.
    fn answers(&mut self, link: u32, request: &[u8]) {
        let number = self.link(link).number;
        match self.rng.u8(..8) {
            0 => self.says(link, b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"),
            1 => self.says(link, b"220 mail.example.com ESMTP\r\n"),
            2 => self.leaves(link, false),
            3 => self.leaves(link, true),
            4 => {}
            _ => {
                let mut answer = answer_to(request);
                if self.rng.bool() {
                    answer.extend(self.message(link));
                }
                self.says(link, &answer);
                self.soon(1_000_000, number, Item::Peer(link));
            }
        }
    }
}

/// The 101 that a client expects.
#[cfg(feature = "deflate")]
fn answer_to(request: &[u8]) -> Vec<u8> {
    let text = String::from_utf8_lossy(request);
    let key = text.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).unwrap_or_default();
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

/// Without the crate that makes the key there is none.
#[cfg(not(feature = "deflate"))]
fn answer_to(_: &[u8]) -> Vec<u8> {
    b"HTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n".to_vec()
}

/// A header of version 2.
fn v2(command: u8, client: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(ip) = client.ip() else { return Vec::new() };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n".to_vec();
    header.extend([command, 0x11, 0, 12]);
    header.extend(ip.octets());
    header.extend([198, 51, 100, 1]);
    header.extend(client.port().to_be_bytes());
    header.extend(443_u16.to_be_bytes());
    header
}

/// First byte and whole length of the frame that begins here, if all of it is here.
fn frame_of(bytes: &[u8]) -> Option<(u8, usize)> {
    let [first, second, ..] = *bytes else { return None };
    let masked = usize::from(second >> 7) * 4;
    let length = match second & 0x7f {
        126 => 4 + usize::from(u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?])),
        short => 2 + usize::from(short),
    };
    (bytes.len() >= length + masked).then_some((first, length + masked))
}

fn find(bytes: &[u8], pattern: &[u8]) -> Option<usize> {
    bytes.windows(pattern.len()).position(|window| window == pattern).map(|at| at + pattern.len())
}
