//! What the floors have in common: they answer the upgrade with a correct 101 and then only count. Each received frame has the
//! length of the first one (the load generator's messages are all alike), and for each the same prebuilt server frame goes
//! out. So they read as many bytes as a WebSocket server reads and write as many as it writes, but never look at them: no
//! header, no mask, no copy. A read that does not fill the buffer has drained the socket (edge-triggered), and the replies
//! to everything that came with one read leave with one write.

use slab::Slab;
use std::io::{self, ErrorKind, Read, Write};

const GOING_AWAY: [u8; 4] = [0x88, 2, 0x03, 0xe9];

struct Conn<S> {
    stream: S,
    upgraded: bool,
    broadcast: bool,
    /// Bytes of an incomplete frame so far.
    partial: u32,
    /// Bytes still to be written of the endless row of replies.
    owed: u64,
    /// Position within a reply where the row goes on.
    at: u32,
    /// 0: not closing. Otherwise one more than the bytes of the Close frame that are out.
    closing: u8,
}

/// What the first frame has taught.
#[derive(Default)]
struct Frames {
    first: Vec<u8>,
    frame_len: usize,
    reply_len: usize,
    /// As many replies in a row as fit into 64 KiB (at least one).
    row: Vec<u8>,
}

impl Frames {
    /// Reads the first frame; its payload, unmasked, is every reply.
    fn learn(&mut self, bytes: &[u8]) {
        self.first.extend_from_slice(bytes);
        let head = &self.first;
        if head.len() < 14 {
            return;
        }
        let (size, at) = match head[1] & 0x7f {
            126 => (usize::from(u16::from_be_bytes([head[2], head[3]])), 4),
            127 => (u32::from_be_bytes([head[6], head[7], head[8], head[9]]) as usize, 10),
            short => (usize::from(short), 2),
        };
        if head.len() < at + 4 + size {
            return;
        }
        let mut reply = head[..at].to_vec();
        reply[1] &= 0x7f;
        let (mask, payload) = head[at..at + 4 + size].split_at(4);
        reply.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
        self.frame_len = at + 4 + size;
        self.reply_len = reply.len();
        self.row = reply.repeat((65536 / reply.len()).max(1));
        self.first = Vec::new();
    }
}

/// All connections of a floor. `S` is a non-blocking stream.
pub struct Server<S> {
    conns: Slab<Conn<S>>,
    frames: Frames,
    buffer: Vec<u8>,
    /// Connections that are owed replies, if these wait for [`Server::write_all`].
    waiting: Option<Vec<usize>>,
}

impl<S: Read + Write> Server<S> {
    /// Replies are written at once, or all of them by [`Server::write_all`].
    pub fn new(at_once: bool) -> Self {
        let waiting = if at_once { None } else { Some(Vec::new()) };
        Self { conns: Slab::new(), frames: Frames::default(), buffer: vec![0; 512 * 1024], waiting }
    }

    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// Takes in a connection, which `register` watches under the key that it is given.
    ///
    /// # Errors
    /// Those of `register`.
    pub fn insert(
        &mut self,
        mut stream: S,
        register: impl FnOnce(&mut S, usize) -> io::Result<()>,
    ) -> io::Result<()> {
        let entry = self.conns.vacant_entry();
        register(&mut stream, entry.key())?;
        entry.insert(Conn {
            stream,
            upgraded: false,
            broadcast: false,
            partial: 0,
            owed: 0,
            at: 0,
            closing: 0,
        });
        Ok(())
    }

    /// A connection has become ready.
    pub fn ready(&mut self, key: usize, readable: bool, writable: bool) {
        if !self.conns.contains(key) {
            return;
        }
        if readable && self.read(key).is_none() {
            self.conns.remove(key);
            return;
        }
        if writable
            && self.conns[key].owed + u64::from(self.conns[key].closing) > 0
            && write(&mut self.conns[key], &self.frames).is_none()
        {
            self.conns.remove(key);
        }
    }

    /// Writes the replies that wait.
    pub fn write_all(&mut self) {
        let mut waiting = self.waiting.take().unwrap_or_default();
        for key in waiting.drain(..) {
            if self.conns.get_mut(key).is_some_and(|conn| write(conn, &self.frames).is_none()) {
                self.conns.remove(key);
            }
        }
        self.waiting = Some(waiting);
    }

    /// `None` ends the connection.
    fn read(&mut self, key: usize) -> Option<()> {
        loop {
            let conn = &mut self.conns[key];
            let n = match conn.stream.read(&mut self.buffer) {
                Ok(0) => return None,
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
                Err(_) => return None,
            };
            if conn.upgraded {
                if conn.closing > 0 && conn.owed == 0 {
                    return None; // the answer to our Close: nothing else is expected here
                }
                let count = self.count(key, n);
                if count > 0 {
                    self.reply(key, count)?;
                }
            } else {
                let upgrade = crate::parse_upgrade(&self.buffer[..n])?;
                conn.stream.write_all(crate::accept_response(&upgrade.key).as_bytes()).ok()?;
                conn.upgraded = true;
                conn.broadcast = upgrade.broadcast;
            }
            if n < self.buffer.len() {
                return Some(());
            }
        }
    }

    /// How many frames end within the `n` bytes just read.
    fn count(&mut self, key: usize, n: usize) -> usize {
        if self.frames.frame_len == 0 {
            self.frames.learn(&self.buffer[..n]);
            return usize::from(self.frames.frame_len > 0);
        }
        let have = self.conns[key].partial as usize + n;
        // The length is below 2^32 because it was read from 32 bits.
        self.conns[key].partial = u32::try_from(have % self.frames.frame_len).unwrap_or(0);
        have / self.frames.frame_len
    }

    fn reply(&mut self, key: usize, count: usize) -> Option<()> {
        let bytes = (count * self.frames.reply_len) as u64;
        if !self.conns[key].broadcast {
            self.conns[key].owed += bytes;
            if let Some(waiting) = &mut self.waiting {
                waiting.push(key);
                return Some(());
            }
            return write(&mut self.conns[key], &self.frames);
        }
        for (other, conn) in &mut self.conns {
            if other != key && conn.broadcast {
                conn.owed += bytes;
                if let Some(waiting) = &mut self.waiting {
                    waiting.push(other);
                    continue;
                }
                // A failed write shows as a failed read when its event comes.
                let _ = write(conn, &self.frames);
            }
        }
        Some(())
    }

    /// Sends a Close to all.
    pub fn close_all(&mut self) {
        let frames = &self.frames;
        self.conns.retain(|_, conn| {
            conn.closing = 1;
            conn.upgraded && write(conn, frames).is_some()
        });
    }
}

/// Writes what is owed, then the Close frame. `None` ends the connection.
fn write<S: Write>(conn: &mut Conn<S>, frames: &Frames) -> Option<()> {
    while conn.owed > 0 {
        let at = conn.at as usize;
        let available = frames.row.len() - at;
        let n = available.min(usize::try_from(conn.owed).unwrap_or(usize::MAX));
        match conn.stream.write(&frames.row[at..at + n]) {
            Ok(n) => {
                conn.owed -= n as u64;
                conn.at = u32::try_from((at + n) % frames.reply_len).unwrap_or(0);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(_) => return None,
        }
    }
    while (1..=4).contains(&conn.closing) {
        match conn.stream.write(&GOING_AWAY[usize::from(conn.closing) - 1..]) {
            Ok(n) => conn.closing += u8::try_from(n).unwrap_or(4),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Some(()),
            Err(_) => return None,
        }
    }
    Some(())
}
