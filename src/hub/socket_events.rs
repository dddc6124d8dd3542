//! What the transport reports of a connection's socket: its end, a failure, room to write, an abort.

use std::io;

use super::{
    slot::{Slot, SocketEnd},
    table::Hub,
};
use crate::{
    conn::{Conn, PeerFin, Pending},
    time::Time,
};

impl<D> Hub<D> {
    /// The peer's FIN was read.
    pub(super) fn handle_eof(&mut self, slot: usize, fin: PeerFin) {
        self.with(slot, |conn, cx| conn.handle_eof(fin, cx));
    }

    /// The socket failed.
    pub(super) fn handle_reset(&mut self, slot: usize, kind: io::ErrorKind) {
        self.with(slot, |conn, cx| conn.handle_reset(kind, cx));
    }

    /// Whether this slot is not read because it is paused: then the end of its input is not found by reading.
    pub(super) fn holds_input(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.holds_input())
    }

    /// The socket of a paused slot says that the peer has left.
    pub(super) fn handle_read_closed(&mut self, slot: usize) {
        self.with(slot, Conn::handle_read_closed);
    }

    /// What the socket of this slot has said of its end that no read has shown yet.
    #[inline]
    pub(super) fn socket_end(&self, slot: usize) -> SocketEnd {
        self.slots.get(slot).map_or(SocketEnd::None, |entry| entry.end)
    }

    /// A write to this slot has failed, and what the peer sent before it is not read to its end.
    pub(super) fn has_failed(&self, slot: usize) -> bool {
        matches!(self.socket_end(slot), SocketEnd::Failed(_))
    }

    /// A write has failed. What the peer sent before, its Close perhaps, is read first; then comes [`Hub::handle_reset`].
    pub(super) fn handle_failed(&mut self, slot: usize, kind: io::ErrorKind) {
        if let Some(entry) = self.slots.get_mut(slot)
            && !matches!(entry.end, SocketEnd::Failed(_))
        {
            entry.end = SocketEnd::Failed(kind);
            self.with(slot, |conn, cx| {
                conn.handle_failed(cx);
                conn.pending.add(Pending::READ);
            });
        }
    }

    /// The socket says that a FIN or an error comes after what there is to read.
    pub(super) fn handle_announced_end(&mut self, slot: usize) {
        if let Some(Slot { end: end @ SocketEnd::None, .. }) = self.slots.get_mut(slot) {
            *end = SocketEnd::Announced;
        }
    }

    /// A read would block: there is no FIN or error, whatever the socket has said.
    pub(super) fn handle_no_end(&mut self, slot: usize) {
        if let Some(Slot { end: end @ SocketEnd::Announced, .. }) = self.slots.get_mut(slot) {
            *end = SocketEnd::None;
        }
    }

    /// Whether something is queued for this slot.
    pub(super) fn has_queued(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.queued() > 0)
    }

    /// The kernel took less of this slot than it was offered, at `now`.
    pub(super) fn note_refused(&mut self, slot: usize, now: Time) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.conn.note_refused(self.now, now);
        }
    }

    /// Whether the connection of this slot came in the present turn, so that what was polled before is not about it.
    pub(super) fn is_new_in_this_turn(&self, slot: usize) -> bool {
        let came = self.generation.wrapping_sub(self.turn.last_generation);
        came > 0
            && self.slots.get(slot).is_some_and(|entry| {
                // From 0 for the first that came in this turn.
                let number = entry.conn.generation.wrapping_sub(self.turn.last_generation).wrapping_sub(1);
                number < came
            })
    }

    /// The kernel takes more from this slot again.
    pub(super) fn handle_writable(&mut self, slot: usize) {
        self.with(slot, |conn, _| conn.handle_writable());
    }

    /// An abort was executed by closing the descriptor; the kernel held `kernel_unsent` bytes that were not acknowledged.
    pub(super) fn handle_aborted(&mut self, slot: usize, kernel_unsent: Option<u32>) {
        self.with(slot, |conn, cx| conn.handle_aborted(kernel_unsent, false, cx));
    }

    /// An abort was executed by a FIN. The descriptor is still there and lingers: input that is unread, or
    /// still under way, would be answered by a reset if it were closed.
    pub(super) fn handle_aborted_by_fin(&mut self, slot: usize, kernel_unsent: Option<u32>) {
        self.with(slot, |conn, cx| conn.handle_aborted(kernel_unsent, true, cx));
    }
}
