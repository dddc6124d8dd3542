//! What a loop keeps for one connection: the connection, its share of the present turn, and the application's data.

use std::io;

use crate::{
    config::Config,
    conn::{Conn, Probe},
    id::ConnectionId,
};

pub(super) struct Slot<D> {
    pub(super) conn: Conn,
    pub(super) share: Share,
    pub(super) end: SocketEnd,
    /// It is in [`Hub::unarmed`](super::table::Hub).
    pub(super) unarmed: bool,
    pub(super) data: Option<D>,
}

/// What a socket has said of its end that no read has shown yet. What a read has shown of it is the connection's to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum SocketEnd {
    None,
    /// A FIN or an error comes after what there is to read. No edge will say so again.
    Announced,
    /// A write has failed like this. What the peer sent before, its Close perhaps, is read first.
    Failed(io::ErrorKind),
}

/// What a connection has used of a turn. It does not count in another turn: if a turn has the same number again, the
/// connection is put off by one turn.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Share {
    turn: u8,
    pub(super) reads: u8,
    pub(super) drained: bool,
    /// KiB written, rounded up.
    written: u16,
}

impl Share {
    /// A whole share of the turn of that number.
    pub(super) const fn whole(turn: u8) -> Self {
        Self { turn, reads: 0, drained: false, written: 0 }
    }

    /// It may read and write as much again.
    pub(super) const fn renew(&mut self) {
        (self.reads, self.written) = (0, 0);
    }

    /// Nothing of it is used up.
    pub(super) const fn is_whole(self) -> bool {
        self.reads == 0 && self.written == 0 && !self.drained
    }

    /// Whether the connection may be read once more in this turn.
    #[inline]
    pub(super) fn may_read(self, config: &Config) -> bool {
        u32::from(self.reads) < config.event_loop.reads_per_turn
    }

    /// Bytes that the connection may still write in this turn.
    #[inline]
    pub(super) fn writable(self, config: &Config) -> usize {
        config.event_loop.write_bytes_per_turn.saturating_sub(usize::from(self.written) << 10)
    }

    pub(super) fn note_written(&mut self, bytes: usize) {
        let kib = u16::try_from(bytes.div_ceil(1 << 10)).unwrap_or(u16::MAX);
        self.written = self.written.saturating_add(kib);
    }

    /// The share of this turn: a whole one, unless something was taken off it already.
    #[inline]
    pub(super) fn of(&mut self, turn: u8) -> &mut Self {
        if self.turn != turn {
            *self = Self::whole(turn);
        }
        self
    }
}

impl<D> Slot<D> {
    /// What is looked at before a judgement, whatever the connection has read and written in this turn: a probe has a share of its
    /// own of that.
    pub(super) fn begin_probe(&mut self, probe: Probe, turn: u8) -> Probe {
        if probe != Probe::default() {
            self.share.of(turn).renew();
        }
        probe
    }

    pub(super) const fn new(conn: Conn, data: Option<D>) -> Self {
        Self { conn, share: Share::whole(0), end: SocketEnd::None, unarmed: false, data }
    }

    /// Whether it is this connection's, and the application may still name it.
    #[inline]
    pub(super) fn is(&self, id: ConnectionId, loop_number: u8) -> bool {
        self.conn.generation == id.generation() && loop_number == id.loop_number() && self.data.is_some()
    }
}
