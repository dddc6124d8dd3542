//! Names to addresses, off the loop: the system's resolver waits, so threads of its own do the waiting.

use std::{
    collections::HashMap,
    io,
    net::{SocketAddr, ToSocketAddrs},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use super::mailbox::Shared;
use crate::id::ConnectionId;

/// At most so many names are looked up at once; further ones wait, within their `connect_timeout`.
const THREADS: usize = 4;

/// A host and a port.
type Name = (Box<str>, u16);
type Found = (Name, Vec<SocketAddr>);

/// One loop's resolver. It has no thread before there is a name.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    /// Who waits for which name: a thousand connections to one server are one question.
    waiting: HashMap<Name, Vec<ConnectionId>>,
    threads: Option<Threads>,
}

#[derive(Debug)]
struct Threads {
    running: usize,
    questions: Sender<Name>,
    /// The threads take turns at waiting for a question.
    queue: Arc<Mutex<Receiver<Name>>>,
    answers: Receiver<Found>,
    answer: Sender<Found>,
}

impl Resolver {
    /// Asks for the addresses of a name. `shared` wakes the loop when they are there.
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
            return Ok(());
        }
        let threads = self.threads.get_or_insert_with(Threads::new);
        if threads.running < THREADS.min(self.waiting.len() + 1) {
            threads.spawn(shared)?;
        }
        // The queue is kept here, so it is never closed.
        let _ = threads.questions.send(name.clone());
        self.waiting.insert(name, vec![id]);
        Ok(())
    }

    /// The next name that was found or not, and who waits for it.
    pub(super) fn poll(&mut self) -> Option<(Vec<ConnectionId>, Vec<SocketAddr>)> {
        let (name, addresses) = self.threads.as_ref()?.answers.try_recv().ok()?;
        Some((self.waiting.remove(&name).unwrap_or_default(), addresses))
    }
}

impl Threads {
    fn new() -> Self {
        let (questions, queue) = mpsc::channel();
        let (answer, answers) = mpsc::channel();
        Self { running: 0, questions, queue: Arc::new(Mutex::new(queue)), answers, answer }
    }

    /// One more, unless the system denies it and there is one already.
    fn spawn(&mut self, shared: &Arc<Shared>) -> io::Result<()> {
        let (queue, answer, shared) = (Arc::clone(&self.queue), self.answer.clone(), Arc::clone(shared));
        let work = move || {
            while let Some(name) = take(&queue) {
                let addresses = (&*name.0, name.1).to_socket_addrs().map_or(Vec::new(), Iterator::collect);
                // The loop may have ended meanwhile: then nobody waits, and the queue is closed.
                let _ = answer.send((name, addresses));
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

/// The next question; `None` when the loop has ended.
fn take(queue: &Mutex<Receiver<Name>>) -> Option<Name> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mio::{Events, Poll, Token, Waker};

    use super::*;

    #[test]
    fn one_question_for_all_who_ask_it_and_the_loop_is_woken() {
        let mut poll = Poll::new().expect("a poll");
        let shared = Arc::new(Shared::new(Waker::new(poll.registry(), Token(0)).expect("a waker")));
        let mut resolver = Resolver::default();
        let id = |n| ConnectionId::new(0, n, n);
        for n in 0..100 {
            // Numbers are resolved at once, wherever this runs: ten names, ten askers each.
            resolver.ask(id(n), &format!("127.0.0.{}", n % 10), 80, &shared).expect("a thread");
        }
        assert_eq!(resolver.waiting.len(), 10);
        assert_eq!(resolver.threads.as_ref().map(|threads| threads.running), Some(THREADS));
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
}
