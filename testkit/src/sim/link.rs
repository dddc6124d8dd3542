//! A TCP connection as two kernels see it: bytes in order, late, in pieces; buffers that fill; FIN in order; RST at
//! once, taking with it what is in flight.

use std::{collections::VecDeque, io};

use super::{chance::Rng, records::Records};

/// One direction.
#[derive(Debug, Default)]
pub struct Pipe {
    /// In flight or in the receiver's kernel, oldest first.
    bytes: VecDeque<u8>,
    /// How many of them are in the receiver's kernel.
    arrived: usize,
    /// The sender has sent its FIN after the bytes.
    fin_sent: bool,
    /// It is in the receiver's kernel.
    fin_arrived: bool,
    /// A delivery is on the agenda.
    pub moving: bool,
}

impl Pipe {
    pub fn used(&self) -> usize {
        self.bytes.len()
    }

    /// Bytes that the receiver could read now.
    pub fn arrived(&self) -> usize {
        self.arrived
    }

    pub fn fin_arrived(&self) -> bool {
        self.fin_arrived
    }

    /// Whether something is still on its way.
    pub fn has_more(&self) -> bool {
        self.arrived < self.bytes.len() || self.fin_sent != self.fin_arrived
    }

    pub fn put(&mut self, bytes: &[u8]) {
        self.bytes.extend(bytes);
    }

    pub fn send_fin(&mut self) {
        self.fin_sent = true;
    }

    /// Moves some of what is on its way to the receiver, which has room for `room` bytes. Returns whether it noticed.
    pub fn deliver(&mut self, room: usize, rng: &mut Rng) -> bool {
        let flying = self.bytes.len() - self.arrived;
        let most = flying.min(room.saturating_sub(self.arrived));
        let n = if rng.u8(..4) == 0 && most > 1 { rng.usize(1..=most) } else { most };
        self.arrived += n;
        let fin = self.fin_sent && !self.fin_arrived && self.arrived == self.bytes.len();
        self.fin_arrived |= fin;
        n > 0 || fin
    }

    /// The receiver reads what is there, as much as fits.
    pub fn read(&mut self, buffer: &mut [u8]) -> usize {
        let n = self.arrived.min(buffer.len());
        for (to, from) in buffer.iter_mut().zip(self.bytes.drain(..n)) {
            *to = from;
        }
        self.arrived -= n;
        if self.bytes.is_empty() {
            self.bytes = VecDeque::new();
        }
        n
    }

    /// What is in flight is lost, and with `all` also what the receiver has not read.
    fn lose(&mut self, all: bool) {
        self.bytes.truncate(if all { 0 } else { self.arrived });
        self.arrived = self.bytes.len();
        self.fin_sent = self.fin_arrived;
    }
}

/// A connection between a peer and the server's socket.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct Link {
    /// From the peer to the server.
    pub up: Pipe,
    /// From the server to the peer.
    pub down: Pipe,
    /// What lies between the server and its socket, and at the peer's end.
    pub records: Option<Box<Records>>,
    pub slot: Option<u32>,
    /// Bytes that fit into the server's send buffer and the peer's receive buffer together.
    pub capacity: u32,
    /// How long bytes travel, in microseconds.
    pub latency: u32,
    /// A write was refused, and the server was not notified of room since.
    refused: bool,
    /// The server has asked to be notified of room.
    awaited: bool,
    /// The peer has closed its socket: what arrives there is answered with RST.
    pub peer_gone: bool,
    /// All that a peer with a request of its own kind has said, and how much of that was read when the connection was detached.
    pub said: Vec<u8>,
    pub taken: usize,
    /// The server has closed its socket.
    pub server_gone: bool,
    /// An RST has come or gone.
    dead: bool,
    /// The error that no call has returned yet.
    error: Option<io::ErrorKind>,
}

impl Link {
    pub fn new(capacity: u32, latency: u32) -> Self {
        Self {
            up: Pipe::default(),
            down: Pipe::default(),
            records: None,
            slot: None,
            capacity,
            latency,
            refused: false,
            awaited: false,
            peer_gone: false,
            said: Vec::new(),
            taken: 0,
            server_gone: false,
            dead: false,
            error: None,
        }
    }

    /// The server reads. As in Linux, what came before an RST can still be read, an error is returned once, and then
    /// there is EOF.
    pub fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.up.arrived() > 0 {
            return Ok(self.up.read(buffer));
        }
        if let Some(kind) = self.error.take() {
            return Err(kind.into());
        }
        if self.dead || self.up.fin_arrived() { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }

    /// The error that the socket has failed with. It is returned once.
    pub fn take_error(&mut self) -> Option<io::ErrorKind> {
        self.error.take()
    }

    /// How much the server may write, `offered` bytes at most. Zero is `WouldBlock`.
    pub fn room(&mut self, offered: usize) -> io::Result<usize> {
        if self.dead {
            return Err(self.error.take().unwrap_or(io::ErrorKind::BrokenPipe).into());
        }
        let free = (self.capacity as usize).saturating_sub(self.down.used());
        self.refused |= free < offered;
        Ok(free.min(offered))
    }

    /// The server asks to be notified of room.
    pub fn await_writable(&mut self) {
        self.awaited = true;
    }

    /// The server will be notified of room.
    pub fn is_awaited(&self) -> bool {
        self.awaited && self.refused
    }

    /// Whether the server's socket has become writable again, and it wants to know: a third of the buffer is free.
    pub fn becomes_writable(&mut self) -> bool {
        let enough = self.down.used() * 3 <= self.capacity as usize * 2;
        enough && self.awaited && std::mem::take(&mut self.refused)
    }

    /// An RST of the peer has arrived at the server, or another error. `all`: what was not read is gone as well.
    pub fn handle_reset(&mut self, kind: io::ErrorKind, all: bool) {
        self.up.lose(all);
        self.down.lose(true);
        (self.dead, self.error, self.peer_gone) = (true, Some(kind), true);
    }

    /// The server's socket ends with RST.
    pub fn send_reset(&mut self) {
        self.up.lose(true);
        self.down.lose(true);
        (self.dead, self.server_gone) = (true, true);
    }

    pub fn is_dead(&self) -> bool {
        self.dead
    }
}
