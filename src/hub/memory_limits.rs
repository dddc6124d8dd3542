//! Memory that connections share: the cap on all backlogs of a loop together, who waits for it, and the room of a former crowd.

use super::table::{Hub, KEPT_CAPACITY};
use crate::{
    config::OnTotalOverflow,
    conn::{Conn, Frames, State},
    error::SendError,
    id::ConnectionId,
    wire::header::frame_length,
};

impl<D> Hub<D> {
    /// Queues messages that others get too: all of them, or none.
    #[inline]
    pub(super) fn send_shared(
        &mut self,
        id: ConnectionId,
        frames: &mut [Frames<'_>],
    ) -> Result<(), SendError> {
        let sent = self.with_id(id, |conn, cx| conn.send_shared(frames, cx));
        match sent.unwrap_or(Err(SendError::NotFound)) {
            Err(SendError::Overflow { .. }) if self.make_room_for(length(frames)) => {
                let sent = self.with_id(id, |conn, cx| conn.send_shared(frames, cx));
                sent.unwrap_or(Err(SendError::NotFound))
            }
            sent => sent,
        }
    }

    /// The same after an `Overflow`, if room can be made; says whether they are queued.
    #[cold]
    pub(super) fn sends_with_room(&mut self, id: ConnectionId, frames: &mut [Frames<'_>]) -> bool {
        self.make_room_for(length(frames))
            && self.with_id(id, |conn, cx| conn.send_shared(frames, cx)) == Some(Ok(()))
    }

    /// Those that were refused because of what others held get their `Drain`, as many as there is room for now; a slice in a turn.
    pub(super) fn report_room(&mut self) {
        let mut taken = 0_usize;
        for _ in 0..self.config.event_loop.sweep_slice {
            let Some((id, bytes)) = self.common.take_waiting(taken) else { return };
            taken = taken.saturating_add(bytes);
            self.with_id(id, |conn, _| conn.handle_room());
        }
    }

    /// Gives back what a former crowd needed when no slot beyond a quarter of it is in use.
    pub(super) fn shrink(&mut self) {
        let (room, end) = (self.slots.capacity(), self.slots_end());
        if room > KEPT_CAPACITY && end < room / 4 {
            self.slots.shrink_to_fit();
            self.deadlines.shrink(end);
        }
    }

    /// If `more` bytes would exceed [`LoopConfig::max_backlog_total`](crate::config::LoopConfig::max_backlog_total), fails the
    /// open connections with the largest backlogs until there is room, for an eighth of the limit at least, if that is the
    /// policy. Says whether it failed one. Only such a call costs O(connections).
    #[cold]
    pub(super) fn make_room_for(&mut self, more: usize) -> bool {
        let limit = self.common.output.max_backlogs();
        let policy = self.config.event_loop.on_total_overflow;
        if policy == OnTotalOverflow::Refuse || more > limit || self.common.output.fits(more) {
            return false;
        }
        let mut largest: Vec<(usize, usize)> =
            std::iter::successors(self.next_slot(0), |slot| self.next_slot(slot + 1))
                .filter_map(|slot| {
                    let conn = &self.slots.get(slot)?.conn;
                    (conn.state() == State::Open && conn.backlog_len() > 0)
                        .then(|| (conn.backlog_len(), slot))
                })
                .collect();
        largest.sort_unstable_by(|a, b| b.cmp(a));
        let mut failed = false;
        for (_, slot) in largest {
            let output = &self.common.output;
            if output.fits(more) && output.queued() <= limit - limit / 8 {
                break;
            }
            self.with(slot, Conn::make_room);
            failed = true;
        }
        failed
    }
}

/// Bytes of frames that were made for one connection.
fn length(frames: &[Frames<'_>]) -> usize {
    frames.iter().map(|frames| frame_length(frames.len(), true)).sum()
}
