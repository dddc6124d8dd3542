//! What connections hold in memory, and that it comes back: allocations are counted, in bytes.
#![expect(unsafe_code, reason = "there is no other way to count allocations")]

mod caps;
mod freed;
mod shared;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

use adjourn::{
    Clients, Config, ConnectionId, Event, Handler,
    close::CloseReport,
    http::{Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Clock, Memory},
};

struct Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed: a test and its loop are one thread.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
}

// SAFETY: it is `System`, which is called with what it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn live() -> usize {
    LIVE.get().cast_unsigned()
}

/// Keeps who is open, and how the others ended.
#[derive(Default)]
struct App {
    open: Vec<ConnectionId>,
    ended: Vec<CloseReport>,
    drained: Vec<ConnectionId>,
    /// Each message is broadcast to all others.
    relays: bool,
    /// Short messages.
    heard: Vec<String>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Message { id, message, .. } if self.relays => {
                clients.broadcast(message, |client| client.id() != id);
            }
            Event::Open { id } => self.open.push(id),
            Event::Drain { id } => self.drained.push(id),
            Event::Message { message, .. } => self.heard.extend(message.as_text().map(str::to_owned)),
            Event::Close { id, report, .. } => {
                if let Some(at) = self.open.iter().position(|open| *open == id) {
                    self.open.remove(at);
                }
                self.ended.push(*report);
            }
            _ => {}
        }
    }
}

/// A loop in memory. Its peers read nothing unless a test says so.
struct Fleet {
    driver: Driver<(), Memory>,
    app: App,
    clock: Clock,
}

impl Fleet {
    fn new(config: Config) -> Self {
        let clock = Clock::default();
        Self { driver: Driver::new(config, 0, 1, Memory::new(&clock)), app: App::default(), clock }
    }

    /// Opens `connections` connections, for each of which the kernel takes `room` more bytes.
    fn open(&mut self, connections: usize, room: usize, request: &[u8]) {
        for _ in 0..connections {
            let slot = self.driver.accept(([127, 0, 0, 1], 40_000).into()).expect("there is room");
            let socket = self.driver.transport().socket(slot);
            (socket.input, socket.room) = (request.to_vec(), usize::MAX);
            self.ready(slot, Readiness { readable: true, ..Readiness::default() });
            let socket = self.driver.transport().socket(slot);
            (socket.written, socket.room, socket.input) = (Vec::new(), room, Vec::new());
        }
    }

    fn ready(&mut self, slot: usize, readiness: Readiness) {
        self.driver.begin_turn(&mut self.app);
        self.driver.ready(slot, readiness, &mut self.app);
        self.rest();
    }

    fn rest(&mut self) {
        self.driver.end_turn(&mut self.app);
        while self.driver.has_more() {
            self.driver.begin_turn(&mut self.app);
            self.driver.end_turn(&mut self.app);
        }
    }

    /// What is asked for in one callback, and the turn that does it.
    fn act<T>(&mut self, act: impl FnOnce(&mut Clients<'_, ()>) -> T) -> T {
        let result = self.driver.act(&mut self.app, |clients, _| act(clients));
        self.driver.begin_turn(&mut self.app);
        self.rest();
        result
    }

    fn broadcast(&mut self, message: &[u8]) -> usize {
        self.act(|clients| clients.broadcast(message, |_| true).sent)
    }

    /// The peer of a slot reads what fits into `room`; returns it.
    fn reads(&mut self, slot: usize, room: usize) -> Vec<u8> {
        self.driver.transport().socket(slot).room = room;
        self.ready(slot, Readiness { writable: true, ..Readiness::default() });
        let socket = self.driver.transport().socket(slot);
        socket.room = 0;
        std::mem::take(&mut socket.written)
    }

    fn held(&self) -> usize {
        self.driver.stats().backlog_total
    }
}

fn low(n: usize) -> u8 {
    n.to_le_bytes()[0]
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("not so long");
    let header = match length {
        0..126 => vec![first, low(payload.len())],
        _ => [&[first, 126][..], &length.to_be_bytes()].concat(),
    };
    [&header, payload].concat()
}
