//! What the transport reports of a connection's socket: its end, a failure, room to write, an abort.

use std::io;

use super::table::Hub;
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

    /// The socket failed before a read reported it. What the peer sent before, its Close perhaps, is read first; see
    /// [`Hub::take_failed`].
    pub(super) fn handle_failed(&mut self, slot: usize, kind: io::ErrorKind) {
        if let Some(entry) = self.slots.get_mut(slot)
            && entry.failed.is_none()
        {
            entry.failed = Some(kind);
            self.failed += 1;
            self.with(slot, |conn, cx| {
                conn.handle_failed(cx);
                conn.pending.add(Pending::READ);
            });
        }
    }

    /// Whether it has failed like that.
    #[inline]
    pub(super) fn has_failed(&self, slot: usize) -> bool {
        self.failed > 0 && self.slots.get(slot).is_some_and(|entry| entry.failed.is_some())
    }

    /// How, for [`Hub::handle_reset`] when all was read. `None` if it has not.
    #[inline]
    pub(super) fn take_failed(&mut self, slot: usize) -> Option<io::ErrorKind> {
        if self.failed == 0 {
            return None;
        }
        let failed = self.slots.get_mut(slot)?.failed.take();
        self.failed -= usize::from(failed.is_some());
        failed
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

    /// The socket of this slot says that a FIN or an error comes after what there is to read.
    pub(super) fn note_ended(&mut self, slot: usize) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.ended = true;
        }
    }

    /// There is no FIN or error.
    pub(super) fn note_not_ended(&mut self, slot: usize) {
        if let Some(entry) = self.slots.get_mut(slot) {
            entry.ended = false;
        }
    }

    /// Whether it has said so.
    pub(super) fn has_ended(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.ended)
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
