//! The threads of a shared store that concern other nodes: the feed, messages out with heartbeats, messages in.

use std::io;
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
/// Items that wait for the loop; the feed reads on when there are fewer.
const ITEMS: usize = 1024;

/// The threads. They end when this is dropped, each after its present call.
pub(super) struct Nodes {
    to_feed: Sender<FeedCommand>,
    to_bus: Sender<FeedCommand>,
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
        thread::Builder::new().name("sio-bus-out".into()).spawn(move || run_bus(bus, &commands, &of_bus))?;
        let of_receiver = Arc::clone(&line);
        thread::Builder::new().name("sio-bus-in".into()).spawn(move || receive(receiver, &of_receiver))?;
        Ok(Self { to_feed, to_bus, line })
    }

    pub(super) fn submit(&self, command: FeedCommand) {
        let thread = if matches!(command, FeedCommand::Send(..)) { &self.to_bus } else { &self.to_feed };
        // A thread that has panicked reads nothing: its namespaces wait.
        let _ = thread.send(command);
    }

    /// What has come since the last call.
    pub(super) fn take_items(&self) -> Vec<FeedItem> {
        let items = std::mem::take(&mut self.line.lock().items);
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
        while state.items.len() >= ITEMS && !state.closed {
            state = self.room.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.closed {
            return false;
        }
        let before = state.items.len();
        state.items.extend(items);
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

fn run_bus(mut bus: Box<dyn Bus>, commands: &Receiver<FeedCommand>, line: &Line) {
    let mut next = Instant::now();
    loop {
        match commands.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(FeedCommand::Send(to, message)) => bus.send(to.as_ref(), &message),
            Ok(_) => {}
            Err(RecvTimeoutError::Disconnected) => return,
            Err(RecvTimeoutError::Timeout) => {
                next = Instant::now() + BEAT;
                if let Ok(nodes) = bus.beat()
                    && !line.push([FeedItem::Nodes(nodes)])
                {
                    return;
                }
            }
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
