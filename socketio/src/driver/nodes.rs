//! The threads of a shared store that concern other nodes: the feed, messages out with heartbeats, messages in.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, TryRecvError};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::wake::Waker;
use crate::core::FeedCommand;
use crate::store::{Bus, BusReceiver, Feed, FeedItem, Shared};

/// How long one read of the feed waits: a namespace that is new is read after that time at most.
const FEED_WAIT: Duration = Duration::from_millis(40);
/// The time between two heartbeats.
const BEAT: Duration = Duration::from_secs(1);
/// Bytes of items that wait for the loop; more is read when there are fewer.
const WAITING: usize = 16 << 20;
/// Bytes of messages that wait for the bus. More are dropped: none is promised to arrive.
const UNSENT: usize = 16 << 20;
/// What is counted for an item or a message besides its content.
const OVERHEAD: usize = 64;

/// The threads. They end when this is dropped, each after its present call.
pub(super) struct Nodes {
    to_feed: Sender<FeedCommand>,
    to_bus: Sender<FeedCommand>,
    /// Bytes that wait for the bus.
    unsent: Arc<AtomicUsize>,
    line: Arc<Line>,
}

/// What waits for the loop.
struct Line {
    state: Mutex<LineState>,
    room: Condvar,
    waker: Waker,
}

#[derive(Default)]
struct LineState {
    items: Vec<FeedItem>,
    bytes: usize,
    closed: bool,
}

impl Nodes {
    pub(super) fn start(shared: Shared, waker: &Waker) -> io::Result<Self> {
        let Shared { feed, bus, receiver, .. } = shared;
        let line = Arc::new(Line { state: Mutex::default(), room: Condvar::new(), waker: waker.clone() });
        let (to_feed, commands) = mpsc::channel();
        let of_feed = Arc::clone(&line);
        thread::Builder::new().name("sio-feed".into()).spawn(move || run_feed(feed, &commands, &of_feed))?;
        let (to_bus, commands) = mpsc::channel();
        let of_bus = Arc::clone(&line);
        let unsent = Arc::new(AtomicUsize::new(0));
        let sent = Arc::clone(&unsent);
        thread::Builder::new()
            .name("sio-bus-out".into())
            .spawn(move || run_bus(bus, &commands, &sent, &of_bus))?;
        let of_receiver = Arc::clone(&line);
        thread::Builder::new().name("sio-bus-in".into()).spawn(move || receive(receiver, &of_receiver))?;
        Ok(Self { to_feed, to_bus, unsent, line })
    }

    /// `false`: a message was dropped, since too many wait for a store that is slow or does not answer.
    pub(super) fn submit(&self, command: FeedCommand) -> bool {
        let thread = if let FeedCommand::Send(_, message) = &command {
            if self.unsent.load(Ordering::Relaxed) >= UNSENT {
                return false;
            }
            self.unsent.fetch_add(message.len() + OVERHEAD, Ordering::Relaxed);
            &self.to_bus
        } else {
            &self.to_feed
        };
        // A thread that has panicked reads nothing: its namespaces wait.
        let _ = thread.send(command);
        true
    }

    /// What has come since the last call.
    pub(super) fn take_items(&self) -> Vec<FeedItem> {
        let mut state = self.line.lock();
        state.bytes = 0;
        let items = std::mem::take(&mut state.items);
        drop(state);
        self.line.room.notify_all();
        items
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        self.line.lock().closed = true;
        self.line.room.notify_all();
    }
}

impl Line {
    fn lock(&self) -> std::sync::MutexGuard<'_, LineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for room. `false`: nobody takes anything any more.
    fn push(&self, items: impl IntoIterator<Item = FeedItem>) -> bool {
        let mut state = self.lock();
        while state.bytes >= WAITING && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        let before = state.items.len();
        for item in items {
            state.bytes += bytes_of(&item);
            state.items.push(item);
        }
        let new = state.items.len() > before;
        drop(state);
        if new {
            self.waker.wake();
        }
        true
    }
}

fn run_feed(mut feed: Box<dyn Feed>, commands: &Receiver<FeedCommand>, line: &Line) {
    loop {
        match commands.try_recv() {
            Ok(FeedCommand::Follow(namespace)) => feed.follow(&namespace),
            Ok(FeedCommand::Leave(namespace)) => feed.leave(&namespace),
            Ok(FeedCommand::Send(..)) => {}
            Err(TryRecvError::Disconnected) => return,
            Err(TryRecvError::Empty) => {
                if !line.push(feed.next(FEED_WAIT)) {
                    return;
                }
            }
        }
    }
}

fn run_bus(mut bus: Box<dyn Bus>, commands: &Receiver<FeedCommand>, unsent: &AtomicUsize, line: &Line) {
    let mut next = Instant::now();
    loop {
        let now = Instant::now();
        // Also while messages wait: they can be more than the store takes.
        if now >= next {
            next = now + BEAT;
            if let Ok(nodes) = bus.beat()
                && !line.push([FeedItem::Nodes(nodes)])
            {
                return;
            }
            continue;
        }
        match commands.recv_timeout(next.saturating_duration_since(now)) {
            Ok(FeedCommand::Send(to, message)) => {
                bus.send(to.as_ref(), &message);
                unsent.fetch_sub(message.len() + OVERHEAD, Ordering::Relaxed);
            }
            Ok(_) | Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn receive(mut receiver: Box<dyn BusReceiver>, line: &Line) {
    loop {
        let message = receiver.next().map(|(node, message)| FeedItem::Message(node, message));
        if !line.push(message) {
            return;
        }
    }
}

fn bytes_of(item: &FeedItem) -> usize {
    let content = match item {
        FeedItem::Entries(_, list) => list.iter().fold(0, |sum: usize, entry| {
            sum.saturating_add(usize::try_from(entry.new.bytes()).unwrap_or(usize::MAX))
                .saturating_add(OVERHEAD)
        }),
        FeedItem::Message(_, message) => message.len(),
        _ => 0,
    };
    content.saturating_add(OVERHEAD)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{NodeId, StoreError};

    struct Noting(Arc<Mutex<Vec<&'static str>>>);

    impl Bus for Noting {
        fn send(&mut self, _: Option<&NodeId>, _: &[u8]) {
            self.0.lock().expect("not poisoned").push("message");
        }
        fn beat(&mut self) -> Result<Vec<NodeId>, StoreError> {
            self.0.lock().expect("not poisoned").push("beat");
            Ok(Vec::new())
        }
    }

    fn line() -> Line {
        Line { state: Mutex::default(), room: Condvar::new(), waker: Waker::default() }
    }

    #[test]
    fn a_heartbeat_does_not_wait_until_there_is_no_message() {
        let (sender, commands) = mpsc::channel();
        for _ in 0..3 {
            sender.send(FeedCommand::Send(None, Vec::new())).expect("there is a receiver");
        }
        drop(sender);
        let noted = Arc::default();
        let unsent = AtomicUsize::new(3 * OVERHEAD);
        run_bus(Box::new(Noting(Arc::clone(&noted))), &commands, &unsent, &line());
        assert_eq!(*noted.lock().expect("not poisoned"), ["beat", "message", "message", "message"]);
        assert_eq!(unsent.into_inner(), 0);
    }

    #[test]
    fn messages_for_a_store_that_does_not_answer_are_dropped_at_last() {
        let (to_feed, _feed) = mpsc::channel();
        let (to_bus, bus) = mpsc::channel();
        let nodes = Nodes { to_feed, to_bus, unsent: Arc::default(), line: Arc::new(line()) };
        let send = || nodes.submit(FeedCommand::Send(None, vec![0; 1 << 20]));
        let kept = (0..100).filter(|_| send()).count();
        assert_eq!((kept, bus.try_iter().count()), (16, 16));
    }
}
