//! How other threads reach a loop: a bounded queue of commands, and one wake-up for as many of them as wait.
//!
//! ```text
//!   a thread:   push, then set `woken`; if it was clear, wake the poll
//!   the loop:   clear `woken`, then take
//! ```
//!
//! The order of each line is what matters: a command that the loop's `take` misses was pushed after the flag was cleared, so
//! its own wake-up is sent. The types are generic over flag, lock and waker, so that the tests run this code, and not a copy,
//! in every order that loom can think of. No command is looked into here.

use std::{
    collections::VecDeque,
    fmt, io, mem,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use mio::Waker;

use crate::{
    error::HandleError,
    stats::{Cap, LoopStats},
};

/// An atomic flag whose swap is ordered both ways.
pub(super) trait Flag {
    fn new(value: bool) -> Self;
    fn swap(&self, value: bool) -> bool;
}

/// A lock around a `T`.
pub(super) trait Lock<T> {
    fn new(value: T) -> Self;
    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R;
}

/// Interrupts the loop's wait, or its next one if it does not wait now.
pub(super) trait Wake {
    fn wake(&self) -> io::Result<()>;
}

impl Flag for AtomicBool {
    fn new(value: bool) -> Self {
        Self::new(value)
    }

    fn swap(&self, value: bool) -> bool {
        self.swap(value, Ordering::AcqRel)
    }
}

impl<T> Lock<T> for Mutex<T> {
    fn new(value: T) -> Self {
        Self::new(value)
    }

    fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
        act(&mut self.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for Waker {
    fn wake(&self) -> io::Result<()> {
        self.wake()
    }
}

/// What a loop shares with everything that may wake it: handles, resolver threads, signal handlers.
#[derive(Debug)]
pub(super) struct Shared<W = Waker, F = AtomicBool> {
    waker: W,
    /// A wake-up is under way: a further one is not needed.
    woken: F,
    /// A shutdown was asked for, of one of the loops that shut down together.
    shutdown_asked: Arc<AtomicBool>,
    /// As the loop published them last.
    stats: Mutex<LoopStats>,
}

impl<W: Wake, F: Flag> Shared<W, F> {
    pub(super) fn new(waker: W, shutdown_asked: Arc<AtomicBool>) -> Self {
        Self { waker, woken: F::new(false), shutdown_asked, stats: Mutex::default() }
    }

    /// Wakes the loop, unless it is being woken already. Safe in a signal handler: an atomic swap and a system call.
    ///
    /// # Errors
    /// If the system denies it. The next call tries again.
    pub(super) fn wake(&self) -> io::Result<()> {
        if self.woken.swap(true) {
            return Ok(());
        }
        self.waker.wake().inspect_err(|_| {
            self.woken.swap(false);
        })
    }

    /// The loop is about to look at what it was woken for.
    pub(super) fn heard(&self) {
        self.woken.swap(false);
    }

    /// The loop writes its numbers at the end of a turn.
    pub(super) fn publish(&self, write: impl FnOnce(&mut LoopStats)) {
        write(&mut self.stats.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Looks at them.
    pub(super) fn stats<R>(&self, look: impl FnOnce(&LoopStats) -> R) -> R {
        look(&self.stats.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn is_ready(&self) -> bool {
        !self.shutdown_asked.load(Ordering::Acquire)
    }

    /// Whether a shutdown was asked for, for all loops that shut down together.
    pub(super) const fn shutdown_asked(&self) -> &Arc<AtomicBool> {
        &self.shutdown_asked
    }

    /// A shutdown was asked for.
    pub(super) fn set_not_ready(&self) {
        self.shutdown_asked.store(true, Ordering::Release);
    }
}

/// The queue between threads and one loop.
pub(super) struct Mailbox<T, W = Waker, F = AtomicBool, L = Mutex<Queue<T>>> {
    shared: Arc<Shared<W, F>>,
    queue: L,
    /// Bytes that may wait.
    limit: usize,
    item: std::marker::PhantomData<fn(T) -> T>,
}

/// What waits, each item with its bytes.
pub(super) struct Queue<T> {
    items: VecDeque<(usize, T)>,
    bytes: usize,
    stopped: bool,
}

/// Whether an item has room only within the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Room {
    Limited,
    Always,
}

/// Room for items that is kept when there are none.
const KEPT: usize = 1024;

impl<T, W: Wake, F: Flag, L: Lock<Queue<T>>> Mailbox<T, W, F, L> {
    pub(super) fn new(shared: Arc<Shared<W, F>>, limit: usize) -> Self {
        let queue = L::new(Queue { items: VecDeque::new(), bytes: 0, stopped: false });
        Self { shared, queue, limit, item: std::marker::PhantomData }
    }

    pub(super) const fn shared(&self) -> &Arc<Shared<W, F>> {
        &self.shared
    }

    /// Queues an item that holds `payload` bytes beside itself, and wakes the loop.
    ///
    /// # Errors
    /// If the loop has stopped, or the item has no room. If the loop cannot be woken the item is queued all the same.
    pub(super) fn push(&self, item: T, payload: usize, room: Room) -> Result<(), HandleError> {
        self.push_or_return(item, payload, room).map_err(|(error, _)| error)
    }

    /// The same; returns the item if it was not queued.
    pub(super) fn push_or_return(
        &self,
        item: T,
        payload: usize,
        room: Room,
    ) -> Result<(), (HandleError, Option<T>)> {
        let bytes = payload.saturating_add(size_of::<T>());
        self.queue.with(|queue| {
            if queue.stopped {
                return Err((HandleError::Stopped, Some(item)));
            }
            let total = queue.bytes.saturating_add(bytes);
            if room == Room::Limited && total > self.limit {
                return Err((HandleError::Full, Some(item)));
            }
            queue.bytes = total;
            queue.items.push_back((bytes, item));
            Ok(())
        })?;
        self.shared.wake().map_err(|error| (HandleError::NotWoken(error.kind()), None))
    }

    /// Moves what waits into `taken`, up to `most` items. If more wait, the loop's next wait ends at once.
    pub(super) fn take(&self, taken: &mut VecDeque<(usize, T)>, most: usize) {
        // Before the queue is looked at: a push after that look has to wake the loop again.
        self.shared.heard();
        let left = self.queue.with(|queue| {
            let most = most.min(queue.items.len());
            queue.bytes -= queue.items.iter().take(most).map(|(bytes, _)| bytes).sum::<usize>();
            taken.extend(queue.items.drain(..most));
            queue.items.shrink_to(KEPT.max(queue.items.len()));
            !queue.items.is_empty()
        });
        if left {
            // If that fails, the next push wakes the loop.
            let _ = self.shared.wake();
        }
    }

    /// Bytes that wait, and how many may.
    pub(super) fn cap(&self) -> Cap {
        Cap::new(self.queue.with(|queue| queue.bytes), Some(self.limit))
    }

    /// Nothing is queued any more. Returns what was queued and not taken.
    pub(super) fn stop(&self) -> VecDeque<(usize, T)> {
        self.queue.with(|queue| {
            (queue.stopped, queue.bytes) = (true, 0);
            mem::take(&mut queue.items)
        })
    }
}

impl<T, W, F, L> fmt::Debug for Mailbox<T, W, F, L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox").field("limit", &self.limit).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU32;

    use super::*;

    /// Fails as often as `failures` says, then counts.
    #[derive(Default)]
    struct Faulty {
        failures: AtomicU32,
        woken: AtomicU32,
    }

    impl Wake for Faulty {
        fn wake(&self) -> io::Result<()> {
            if self.failures.load(Ordering::Relaxed) > 0 {
                self.failures.fetch_sub(1, Ordering::Relaxed);
                return Err(io::ErrorKind::OutOfMemory.into());
            }
            self.woken.fetch_add(1, Ordering::Relaxed);
            Ok(())
        }
    }

    fn mailbox(failures: u32, limit: usize) -> Mailbox<u64, Faulty> {
        let faulty = Faulty { failures: failures.into(), ..Faulty::default() };
        Mailbox::new(Arc::new(Shared::new(faulty, Arc::default())), limit)
    }

    fn woken(mailbox: &Mailbox<u64, Faulty>) -> u32 {
        mailbox.shared.waker.woken.load(Ordering::Relaxed)
    }

    fn take(mailbox: &Mailbox<u64, Faulty>, most: usize) -> Vec<u64> {
        let mut taken = VecDeque::new();
        mailbox.take(&mut taken, most);
        taken.into_iter().map(|(_, item)| item).collect()
    }

    #[test]
    fn a_wake_up_that_fails_is_tried_again_by_the_next_push() {
        let mailbox = mailbox(1, usize::MAX);
        let denied = HandleError::NotWoken(io::ErrorKind::OutOfMemory);
        assert_eq!(mailbox.push(1, 0, Room::Limited), Err(denied));
        assert_eq!(mailbox.push(2, 0, Room::Limited), Ok(()));
        assert_eq!(woken(&mailbox), 1, "the second push woke the loop");
        assert_eq!(take(&mailbox, 9), [1, 2]);
    }

    #[test]
    fn many_pushes_are_one_wake_up() {
        let mailbox = mailbox(0, usize::MAX);
        for item in 0..5 {
            assert_eq!(mailbox.push(item, 0, Room::Limited), Ok(()));
        }
        assert_eq!(woken(&mailbox), 1);
        assert_eq!(take(&mailbox, 2), [0, 1]);
        assert_eq!(woken(&mailbox), 2, "three are left");
        assert_eq!(take(&mailbox, 3), [2, 3, 4]);
        assert_eq!(woken(&mailbox), 2, "none is left");
    }

    #[test]
    fn the_queue_has_a_bound_and_gives_it_back() {
        let mailbox = mailbox(0, 100);
        assert_eq!(mailbox.push(1, 84, Room::Limited), Ok(()), "92 bytes");
        assert_eq!(mailbox.push(2, 1, Room::Limited), Err(HandleError::Full));
        assert_eq!(mailbox.push(3, 0, Room::Limited), Ok(()), "exactly 100");
        assert_eq!(mailbox.push(4, 0, Room::Limited), Err(HandleError::Full));
        assert_eq!(mailbox.push(5, 1000, Room::Always), Ok(()));
        assert_eq!(take(&mailbox, 1), [1]);
        assert_eq!(mailbox.push(6, 0, Room::Limited), Err(HandleError::Full));
        assert_eq!(take(&mailbox, 9), [3, 5]);
        assert_eq!(mailbox.push(7, 92, Room::Limited), Ok(()));
    }

    #[test]
    fn what_was_accepted_before_the_stop_is_handed_out_and_nothing_after_it() {
        let mailbox = mailbox(0, 100);
        assert_eq!(mailbox.push(1, 0, Room::Limited), Ok(()));
        assert_eq!(mailbox.stop(), [(8, 1)]);
        for room in [Room::Limited, Room::Always] {
            assert_eq!(mailbox.push(2, 0, room), Err(HandleError::Stopped));
        }
        assert!(take(&mailbox, 9).is_empty() && mailbox.stop().is_empty());
    }
}

/// The wake-up protocol in every order of two threads and a loop, by loom: a wake-up that is lost is a deadlock.
#[cfg(test)]
mod model {
    use loom::{
        sync::{Condvar, Mutex, atomic},
        thread,
    };

    use super::*;

    /// An `eventfd` and the poll that waits for it.
    struct Poll {
        signalled: Mutex<bool>,
        changed: Condvar,
    }

    impl Poll {
        fn wait(&self) {
            let mut signalled = self.signalled.lock().expect("no panic");
            while !*signalled {
                signalled = self.changed.wait(signalled).expect("no panic");
            }
            *signalled = false;
        }
    }

    impl Wake for Poll {
        fn wake(&self) -> io::Result<()> {
            *self.signalled.lock().expect("no panic") = true;
            self.changed.notify_one();
            Ok(())
        }
    }

    impl Flag for atomic::AtomicBool {
        fn new(value: bool) -> Self {
            Self::new(value)
        }

        fn swap(&self, value: bool) -> bool {
            self.swap(value, Ordering::AcqRel)
        }
    }

    impl<T> Lock<T> for Mutex<T> {
        fn new(value: T) -> Self {
            Self::new(value)
        }

        fn with<R>(&self, act: impl FnOnce(&mut T) -> R) -> R {
            act(&mut self.lock().expect("no panic"))
        }
    }

    /// A flag that is read and written in two steps: the protocol, broken on purpose.
    struct Torn(atomic::AtomicBool);

    impl Flag for Torn {
        fn new(value: bool) -> Self {
            Self(atomic::AtomicBool::new(value))
        }

        fn swap(&self, value: bool) -> bool {
            let before = self.0.load(Ordering::Acquire);
            self.0.store(value, Ordering::Release);
            before
        }
    }

    type Modelled<F> = Mailbox<u8, Poll, F, Mutex<Queue<u8>>>;

    type Take<F> = fn(&Modelled<F>, &mut VecDeque<(usize, u8)>, usize);

    /// For each number in `pushers` a thread pushes that many items; the loop takes `most` at a time until it has all.
    fn model<F: Flag + Send + Sync + 'static>(pushers: &'static [usize], most: usize, take: Take<F>) {
        loom::model(move || {
            let poll = Poll { signalled: Mutex::new(false), changed: Condvar::new() };
            let mailbox =
                Arc::new(Modelled::<F>::new(Arc::new(Shared::new(poll, Arc::default())), usize::MAX));
            for items in pushers {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || {
                    for _ in 0..*items {
                        assert_eq!(mailbox.push(0, 0, Room::Limited), Ok(()));
                    }
                });
            }
            let (mut left, mut taken) = (pushers.iter().sum::<usize>(), VecDeque::new());
            while left > 0 {
                mailbox.shared.waker.wait();
                take(&mailbox, &mut taken, most);
                left -= taken.drain(..).count();
            }
        });
    }

    #[test]
    fn no_command_waits_without_a_wake_up() {
        model::<atomic::AtomicBool>(&[2], 9, Mailbox::take);
        model::<atomic::AtomicBool>(&[2], 1, Mailbox::take);
        model::<atomic::AtomicBool>(&[1, 1], 9, Mailbox::take);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_flag_in_two_steps_loses_a_wake_up() {
        model::<Torn>(&[3], 9, Mailbox::take);
    }

    #[test]
    #[should_panic(expected = "deadlock")]
    fn a_flag_that_is_cleared_after_the_look_loses_a_wake_up() {
        model::<atomic::AtomicBool>(&[2], 9, |mailbox, taken, _| {
            mailbox.queue.with(|queue| mem::swap(&mut queue.items, taken));
            mailbox.shared.heard();
        });
    }

    #[test]
    fn a_command_that_was_accepted_is_handed_out_although_the_loop_stops() {
        loom::model(|| {
            let poll = Poll { signalled: Mutex::new(false), changed: Condvar::new() };
            let mailbox = Arc::new(Modelled::<atomic::AtomicBool>::new(
                Arc::new(Shared::new(poll, Arc::default())),
                usize::MAX,
            ));
            let pusher = {
                let mailbox = Arc::clone(&mailbox);
                thread::spawn(move || mailbox.push(1, 0, Room::Limited))
            };
            let mut taken = VecDeque::new();
            mailbox.take(&mut taken, 9);
            taken.extend(mailbox.stop());
            let accepted = pusher.join().expect("it pushed");
            assert_eq!(accepted.is_ok(), taken.len() == 1, "{accepted:?}");
        });
    }
}
