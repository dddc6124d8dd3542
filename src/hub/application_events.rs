//! The application's own events: its timers and its sources.

use std::time::Duration;

use super::{table::Hub, transport::Readiness};
use crate::{conn::QueuedEvent, event::SourceId, id::ConnectionId};

impl<D> Hub<D> {
    /// A source of the application's own became ready. One event waits for each at most.
    pub(super) fn handle_source(&mut self, source: SourceId, readiness: Readiness) {
        let waiting = self.ready_sources.entry(source).or_insert_with(|| {
            self.event_queue.push_back(QueuedEvent::Source(source));
            Readiness::default()
        });
        waiting.readable |= readiness.readable;
        waiting.writable |= readiness.writable;
        waiting.ended |= readiness.ended;
    }

    // Timers of the application.

    /// Sets a timer of the loop, or of a connection that is established; says whether it did.
    pub(super) fn set_timer(&mut self, owner: Option<ConnectionId>, after: Duration, key: u64) -> bool {
        let established = |id| self.find(id).is_some_and(|entry| entry.conn.state().is_established());
        let may = owner.is_none_or(established);
        if may {
            self.timers.set((owner, key), self.now.after(after));
        }
        may
    }

    /// How many timers are due, as far as this turn may deliver them. Those that their callbacks set anew are for the next turn.
    pub(super) fn timers_due(&self) -> usize {
        let most = usize::try_from(self.turn.callbacks).unwrap_or(usize::MAX);
        if self.has_undelivered() { 0 } else { self.timers.count_due(self.now, most) }
    }

    /// Takes out the next timer that is due, for the next callback: that may move or clear the others.
    pub(super) fn fire_timer(&mut self) {
        if !self.is_out_of_callbacks()
            && let Some((at, (id, key))) = self.timers.poll(self.now)
        {
            self.common.totals.lateness.record(self.now.since(at));
            self.event_queue.push_back(QueuedEvent::Timer(id, key));
        }
    }
}
