//! Names to addresses, off the loop: the system's resolver blocks, so it runs on threads of its own.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use super::mailbox::Shared;
use crate::id::ConnectionId;

/// A host and a port.
type Name = (Box<str>, u16);
type Found = (Name, Vec<SocketAddr>);
type Lookup = fn(&Name) -> Vec<SocketAddr>;

/// One loop's resolver. It has no thread before there is a name. Dropping it ends its threads: those that wait at once, those
/// in a lookup when that returns.
#[derive(Debug)]
pub(super) struct Resolver {
    /// Who waits for which name: a thousand connections to one server are one lookup.
    waiting: HashMap<Name, Vec<ConnectionId>>,
    /// What the connection of a slot waits for.
    asked: HashMap<usize, Name>,
    lookup: Lookup,
    /// Names that are looked up at the same time.
    most: usize,
    threads: Option<Threads>,
}

#[derive(Debug)]
struct Threads {
    running: usize,
    names: Arc<Names>,
    answers: Receiver<Found>,
    answer: Sender<Found>,
}

/// The names that no thread has taken yet.
#[derive(Debug, Default)]
struct Names {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    names: VecDeque<Name>,
    stopped: bool,
}

impl Resolver {
    /// Asks the system, on `most` threads.
    pub(super) fn new(most: usize) -> Self {
        Self::with(
            |(host, port)| (&**host, *port).to_socket_addrs().map_or(Vec::new(), Iterator::collect),
            most,
        )
    }

    fn with(lookup: Lookup, most: usize) -> Self {
        Self { waiting: HashMap::new(), asked: HashMap::new(), lookup, most, threads: None }
    }

    /// Ends its threads, and forgets who waits.
    pub(super) fn stop(&mut self) {
        (self.waiting, self.asked) = (HashMap::new(), HashMap::new());
        self.threads = None;
    }

    /// Asks for the addresses of a name. `shared` wakes the loop when they are found.
    ///
    /// # Errors
    /// If there is no thread and none can be made.
    pub(super) fn ask(
        &mut self,
        id: ConnectionId,
        host: &str,
        port: u16,
        shared: &Arc<Shared>,
    ) -> io::Result<()> {
        let name: Name = (host.into(), port);
        if let Some(waiting) = self.waiting.get_mut(&name) {
            waiting.push(id);
            self.asked.insert(id.slot(), name);
            return Ok(());
        }
        let threads = self.threads.get_or_insert_with(Threads::new);
        if threads.running < self.most.min(self.waiting.len() + 1) {
            threads.spawn(self.lookup, shared)?;
        }
        threads.names.push(name.clone());
        self.asked.insert(id.slot(), name.clone());
        self.waiting.insert(name, vec![id]);
        Ok(())
    }

    /// The connection of a slot has ended. If it was the only one that waited for a name, that is not looked up, unless a thread has begun.
    pub(super) fn forget(&mut self, slot: usize) {
        let Some(name) = self.asked.remove(&slot) else { return };
        let Entry::Occupied(mut waiting) = self.waiting.entry(name) else { return };
        waiting.get_mut().retain(|id| id.slot() != slot);
        let unasked = waiting.get().is_empty();
        if unasked && self.threads.as_ref().is_some_and(|threads| threads.names.remove(waiting.key())) {
            waiting.remove();
        }
    }

    /// The next name that was looked up, and who waits for it. Without addresses if it has none.
    pub(super) fn poll(&mut self) -> Option<(Vec<ConnectionId>, Vec<SocketAddr>)> {
        let (name, addresses) = self.threads.as_ref()?.answers.try_recv().ok()?;
        let ids = self.waiting.remove(&name).unwrap_or_default();
        for id in &ids {
            self.asked.remove(&id.slot());
        }
        Some((ids, addresses))
    }
}

impl Threads {
    fn new() -> Self {
        let (answer, answers) = mpsc::channel();
        Self { running: 0, names: Arc::default(), answers, answer }
    }

    /// One more, unless the system denies it and there is one already.
    fn spawn(&mut self, lookup: Lookup, shared: &Arc<Shared>) -> io::Result<()> {
        let (names, answer, shared) = (Arc::clone(&self.names), self.answer.clone(), Arc::clone(shared));
        let work = move || {
            while let Some(name) = names.take() {
                let addresses = lookup(&name);
                // The loop may have ended meanwhile.
                if answer.send((name, addresses)).is_err() {
                    return;
                }
                // If that fails, the loop looks when something else wakes it.
                let _ = shared.wake();
            }
        };
        match thread::Builder::new().name("adjourn-resolver".into()).spawn(work) {
            Ok(_) => self.running += 1,
            Err(error) if self.running == 0 => return Err(error),
            Err(_) => {}
        }
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.names.stop();
    }
}

impl Names {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, name: Name) {
        self.lock().names.push_back(name);
        self.changed.notify_one();
    }

    /// Takes a name out that no thread has taken; says whether there was one.
    fn remove(&self, name: &Name) -> bool {
        let names = &mut self.lock().names;
        let place = names.iter().position(|queued| queued == name);
        place.is_some_and(|place| names.remove(place).is_some())
    }

    /// The next name, when there is one; `None` when the loop has ended, whatever is queued.
    fn take(&self) -> Option<Name> {
        let mut queue = self.lock();
        loop {
            if queue.stopped {
                return None;
            }
            if let Some(name) = queue.names.pop_front() {
                return Some(name);
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn stop(&self) {
        *self.lock() = Queue { names: VecDeque::new(), stopped: true };
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        time::{Duration, Instant},
    };

    use mio::{Events, Poll, Token, Waker};

    use super::*;

    #[test]
    fn one_question_for_all_who_ask_it_and_the_loop_is_woken() {
        let mut poll = Poll::new().expect("a poll");
        let shared =
            Arc::new(Shared::new(Waker::new(poll.registry(), Token(0)).expect("a waker"), Arc::default()));
        let mut resolver = Resolver::new(4);
        let id = |n| ConnectionId::new(0, n, n);
        for n in 0..100 {
            // Numbers are resolved at once, wherever this runs: ten names, ten askers each.
            resolver.ask(id(n), &format!("127.0.0.{}", n % 10), 80, &shared).expect("a thread");
        }
        assert_eq!(resolver.waiting.len(), 10);
        assert_eq!(resolver.threads.as_ref().map(|threads| threads.running), Some(4));
        let (start, mut found) = (Instant::now(), 0);
        while found < 10 {
            assert!(start.elapsed() < Duration::from_secs(10), "{found} of 10");
            poll.poll(&mut Events::with_capacity(8), Some(Duration::from_secs(10))).expect("poll");
            shared.heard();
            while let Some((ids, addresses)) = resolver.poll() {
                let [address] = addresses[..] else { panic!("{addresses:?}") };
                let expected: Vec<_> = (0..100)
                    .filter(|n| address.to_string() == format!("127.0.0.{}:80", n % 10))
                    .map(id)
                    .collect();
                assert_eq!(ids, expected);
                found += 1;
            }
        }
        assert!(resolver.waiting.is_empty());
    }

    fn shared() -> Arc<Shared> {
        let poll = Poll::new().expect("a poll");
        Arc::new(Shared::new(Waker::new(poll.registry(), Token(0)).expect("a waker"), Arc::default()))
    }

    /// Waits until the threads of a resolver hold `shared` no more.
    fn wait_for_the_end_of_all_threads(shared: &Arc<Shared>) {
        let start = Instant::now();
        while Arc::strong_count(shared) > 1 {
            assert!(start.elapsed() < Duration::from_secs(10), "a thread is left");
            thread::yield_now();
        }
    }

    /// Names whose askers had given up were looked up all the same, and those of others waited for that: where enough names had a server
    /// that did not answer, nobody got an address in time.
    #[test]
    fn names_that_nobody_waits_for_were_looked_up() {
        static LOOKUPS: Mutex<Vec<Box<str>>> = Mutex::new(Vec::new());
        static GATE: Mutex<()> = Mutex::new(());
        let lookups = || LOOKUPS.lock().expect("no panic").clone();
        let closed = GATE.lock();
        let lookup: Lookup = |(host, _)| {
            LOOKUPS.lock().expect("no panic").push(host.clone());
            drop(GATE.lock());
            Vec::new()
        };
        let (mut resolver, shared) = (Resolver::with(lookup, 1), shared());
        let id = |n| ConnectionId::new(0, n, n);
        for (n, name) in [(0, "a"), (1, "b"), (2, "c"), (3, "c"), (4, "d")] {
            resolver.ask(id(n), name, 80, &shared).expect("a thread");
        }
        while lookups().is_empty() {
            thread::yield_now();
        }
        // One that is looked up already, one that nobody else asked for, one that somebody else waits for.
        for slot in [0, 1, 2] {
            resolver.forget(slot);
        }
        resolver.ask(id(5), "a", 80, &shared).expect("a thread");
        drop(closed);
        let start = Instant::now();
        let mut found = Vec::new();
        while found.len() < 3 {
            assert!(start.elapsed() < Duration::from_secs(10), "{found:?}");
            found.extend(resolver.poll().map(|(ids, _)| ids));
            thread::yield_now();
        }
        assert_eq!(found, [vec![id(5)], vec![id(3)], vec![id(4)]]);
        assert_eq!(lookups().iter().map(|name| &**name).collect::<String>(), "acd");
        assert!(resolver.waiting.is_empty() && resolver.asked.is_empty());
    }

    #[test]
    fn threads_that_wait_end_with_the_resolver() {
        let shared = shared();
        let mut resolver = Resolver::new(4);
        resolver.ask(ConnectionId::new(0, 0, 0), "127.0.0.1", 80, &shared).expect("a thread");
        assert_eq!(Arc::strong_count(&shared), 2);
        drop(resolver);
        wait_for_the_end_of_all_threads(&shared);
    }

    /// A thread took what was queued before it saw that the loop had ended: with a slow resolver it lived on for minutes.
    #[test]
    fn names_that_are_queued_are_not_looked_up_after_the_end() {
        static LOOKUPS: AtomicUsize = AtomicUsize::new(0);
        static GATE: Mutex<()> = Mutex::new(());
        let closed = GATE.lock();
        let lookup: Lookup = |_| {
            LOOKUPS.fetch_add(1, Ordering::AcqRel);
            drop(GATE.lock());
            Vec::new()
        };
        let mut resolver = Resolver::with(lookup, 3);
        let shared = shared();
        for n in 0..100 {
            resolver.ask(ConnectionId::new(0, n, n), &format!("host-{n}"), 80, &shared).expect("a thread");
        }
        while LOOKUPS.load(Ordering::Acquire) < 3 {
            thread::yield_now();
        }
        drop(resolver);
        drop(closed);
        wait_for_the_end_of_all_threads(&shared);
        assert_eq!(LOOKUPS.load(Ordering::Acquire), 3);
    }
}
