//! What a connection borrows from its hub for a call: the settings, the time, and what all connections of a loop share.

use std::collections::VecDeque;

use super::{
    deflate,
    output::{BufferPool, Lent, OutputBuffer},
    queued_event::QueuedEvent,
    waiting::WaitingForRoom,
};
use crate::{
    config::{Config, LoopConfig},
    id::ConnectionId,
    stats::Totals,
    time::Time,
    wire::keys::MaskKeys,
};

/// What a connection needs from its hub while something happens to it.
pub(crate) struct Context<'h> {
    pub(crate) config: &'h Config,
    pub(crate) common: &'h mut Common,
    pub(crate) now: Time,
    /// What is to be reported, in order.
    pub(crate) event_queue: &'h mut VecDeque<QueuedEvent>,
    pub(crate) id: ConnectionId,
}

/// What the connections of a loop share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) output: OutputBuffer,
    /// Those that were refused because of what the output buffer and all backlogs hold.
    pub(crate) waiting: WaitingForRoom,
    pub(crate) pool: BufferPool,
    pub(crate) lent: Lent,
    /// What frames in the client's role are masked with.
    pub(crate) keys: MaskKeys,
    pub(crate) deflate: deflate::Shared,
    /// Bytes that were inflated since the hub asked last.
    pub(crate) inflated: usize,
    /// How often an invariant of this crate was found broken.
    pub(crate) internal_errors: u64,
    /// What is counted for operators.
    pub(crate) totals: Totals,
}

impl Common {
    pub(crate) fn new(settings: &LoopConfig, keys: MaskKeys) -> Self {
        Self {
            output: OutputBuffer::new(settings.max_backlog_total.unwrap_or(usize::MAX)),
            waiting: WaitingForRoom::default(),
            pool: BufferPool::new(settings.buffer_pool),
            lent: Lent::default(),
            keys,
            deflate: deflate::Shared::default(),
            inflated: 0,
            internal_errors: 0,
            totals: Totals::default(),
        }
    }

    /// Takes out a connection that waits for what others hold, if `taken` bytes less than there is room for are enough for it. Returns
    /// what it needs, too.
    pub(crate) fn take_waiting(&mut self, taken: usize) -> Option<(ConnectionId, usize)> {
        self.waiting.take(self.output.room().saturating_sub(taken))
    }

    /// Whether one that waits for what others hold has room now.
    #[inline]
    pub(crate) fn has_room_for_waiting(&self) -> bool {
        self.waiting.has_one_for(self.output.room())
    }
}
