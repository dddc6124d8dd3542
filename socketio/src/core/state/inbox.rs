//! Calls from other threads: a bounded queue that wakes the loop.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Io;

/// A call that is made on the loop.
pub type Call = Box<dyn FnOnce(&mut Io<'_>) + Send>;

/// Where other threads leave calls for the loop. Clones share the queue.
#[derive(Clone)]
pub struct Inbox {
    shared: Arc<Shared>,
}

struct Shared {
    queue: Mutex<Waiting>,
    limit: usize,
    wake: Box<dyn Fn() + Send + Sync>,
}

#[derive(Default)]
struct Waiting {
    calls: VecDeque<Call>,
    closed: bool,
}

/// A call was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InboxError {
    /// Too many wait.
    #[error("{limit} calls wait for the loop, the most that counts.inbox allows")]
    Full {
        /// The limit.
        limit: usize,
    },
    /// The server has ended.
    #[error("the server has ended")]
    Ended,
}

impl Inbox {
    pub(in crate::core) fn new(limit: usize, wake: Box<dyn Fn() + Send + Sync>) -> Self {
        Self { shared: Arc::new(Shared { queue: Mutex::default(), limit, wake }) }
    }

    /// Has `call` made on the loop, after those pushed before. Allocates the box only.
    pub fn push(&self, call: impl FnOnce(&mut Io<'_>) + Send + 'static) -> Result<(), InboxError> {
        let limit = self.shared.limit;
        self.push_within(limit, Box::new(call))
    }

    /// An answer that the loop waits for: what it answers is bounded elsewhere.
    pub(in crate::core) fn push_answer(&self, call: impl FnOnce(&mut Io<'_>) + Send + 'static) {
        // The limit is out of reach.
        let _ = self.push_within(usize::MAX, Box::new(call));
    }

    fn push_within(&self, limit: usize, call: Call) -> Result<(), InboxError> {
        let mut queue = self.queue();
        if queue.closed {
            return Err(InboxError::Ended);
        }
        if queue.calls.len() >= limit {
            return Err(InboxError::Full { limit });
        }
        queue.calls.push_back(call);
        let first = queue.calls.len() == 1;
        drop(queue);
        if first {
            (self.shared.wake)();
        }
        Ok(())
    }

    /// All that was pushed.
    pub(in crate::core) fn take(&self) -> VecDeque<Call> {
        std::mem::take(&mut self.queue().calls)
    }

    /// Takes no more calls. Those that wait are not made.
    pub(in crate::core) fn close(&self) {
        let mut queue = self.queue();
        queue.closed = true;
        let calls = std::mem::take(&mut queue.calls);
        drop(queue);
        // Without the lock: dropping a call may answer a middleware, which puts a call into the inbox.
        drop(calls);
    }

    fn queue(&self) -> MutexGuard<'_, Waiting> {
        // A panic between lock and unlock cannot leave the queue half changed.
        self.shared.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
