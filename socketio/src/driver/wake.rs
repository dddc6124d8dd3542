//! The clock, and how other threads wake the loop.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::conn::Conn;
use crate::store::Millis;

/// Since when the loop runs. The store's time follows the monotonic clock: a wall clock that is set does not move windows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    /// Until then it stands at 0.
    start: Option<Instant>,
    wall: Millis,
}

impl Clock {
    pub(super) fn new() -> Self {
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: None, wall: u64::try_from(wall.as_millis()).unwrap_or(u64::MAX) }
    }

    /// Lets it run from now on: what is asked of the store before the loop runs is not late when it does.
    pub(super) fn start(&mut self) {
        self.start.get_or_insert_with(Instant::now);
    }

    /// The time that the core is given.
    pub(super) fn now(&self) -> Duration {
        self.start.map_or(Duration::ZERO, |start| start.elapsed())
    }

    /// The same with the time of a shared store.
    pub(super) fn with_wall(self, wall: Millis) -> Self {
        Self { wall, ..self }
    }

    /// The store's time when the layer started.
    pub(super) const fn wall(&self) -> Millis {
        self.wall
    }

    /// The store's time.
    pub(super) fn millis(&self) -> Millis {
        self.wall.saturating_add(u64::try_from(self.now().as_millis()).unwrap_or(u64::MAX))
    }
}

/// Wakes the loop once it is known. One wake-up serves all that was pushed before the loop looks.
#[derive(Clone, Default)]
pub(super) struct Waker(Arc<WakerState>);

#[derive(Default)]
struct WakerState {
    handle: OnceLock<adjourn::Handle<Conn>>,
    woken: AtomicBool,
}

impl Waker {
    /// Says which loop it is. The first one stays.
    pub(super) fn attach(&self, server: &adjourn::Server<Conn>) {
        self.0.handle.get_or_init(|| server.handle());
    }

    /// Called after something was pushed.
    pub(super) fn wake(&self) {
        if self.0.woken.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(handle) = self.0.handle.get() {
            // A loop whose queue of commands is full is awake, and one that has stopped needs no call.
            let _ = handle.defer(|_| {});
        }
    }

    /// Called by the loop before it looks at what was pushed.
    pub(super) fn sleep_over(&self) {
        self.0.woken.store(false, Ordering::Release);
    }
}
