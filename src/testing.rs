//! One connection without a socket, for tests and fuzzers of your own handler.
//!
//! A [`Session`] feeds bytes to the very hub that serves, with time as a parameter and a kernel that takes as much as it is allowed to, and
//! collects what the connection writes. Nothing in it is random, and nothing waits.
//!
//! ```
//! use adjourn::{http::{Upgrade, UpgradeRequest}, testing::{frame, Session}, Clients, Config, Event, Handler};
//!
//! struct Shout;
//!
//! impl Handler for Shout {
//!     type Data = ();
//!
//!     fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
//!         Upgrade::accept(())
//!     }
//!
//!     fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
//!         if let Event::Message { id, message, .. } = event {
//!             let _ = clients.send(id, message.as_text().unwrap_or_default().to_uppercase());
//!         }
//!     }
//! }
//!
//! let mut session = Session::open(Config::default(), Shout);
//! session.read(&frame(0x81, b"hello"));
//! assert_eq!(session.take_written(), b"\x81\x05HELLO");
//! ```
//!
//! # Fuzzing your handler
//!
//! A fuzz target needs nothing else: bytes in, frames out, and whatever your handler promises as assertions. With
//! `cargo fuzz init` in your crate, this is the body of `fuzz_target!`. Each input is read as frames with their first byte
//! and the length of their payload, so that what reaches the handler is mostly well-formed; [`Session::end`] panics if
//! anything is left of the connection.
//!
//! ```
//! # use adjourn::{http::{Upgrade, UpgradeRequest}, Clients, Config, Event, Handler};
//! use std::time::Duration;
//!
//! use adjourn::testing::{Session, frame};
//!
//! # struct Chat { open: bool }
//! # impl Chat {
//! #     fn new() -> Self { Self { open: false } }
//! #     fn is_tidy(&self) -> bool { !self.open }
//! # }
//! # impl Handler for Chat {
//! #     type Data = ();
//! #     fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> { Upgrade::accept(()) }
//! #     fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
//! #         match event {
//! #             Event::Open { .. } => self.open = true,
//! #             Event::Close { .. } => self.open = false,
//! #             _ => {}
//! #         }
//! #     }
//! # }
//! fn fuzz(mut bytes: &[u8]) {
//!     let mut session = Session::open(Config::default(), Chat::new());
//!     while let [first, length, rest @ ..] = bytes {
//!         let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
//!         session.read(&frame(*first, payload));
//!         // A peer that reads slowly, and time that passes.
//!         session.make_room(usize::from(*length));
//!         session.advance(Duration::from_millis(100));
//!         bytes = rest;
//!     }
//!     session.end();
//!     assert!(session.handler().is_tidy());
//! }
//! # fuzz(b"\x81\x05hello\x82\x00\x88\x02\x03\xe8");
//! # fuzz(b"\x81\x05hello\xff\xff");
//! ```

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::{
    config::Config,
    conn::{ConnectRequest, Target},
    detach::DetachedStream,
    event::{Event, Stats},
    hub::{Clients, Driver, Handler, Transport},
    id::ConnectionId,
    stats::LoopStats,
    time::Time,
};

pub use crate::hub::Readiness;

/// An upgrade request that any server accepts.
pub const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// More steps of less than a [`TICK`] than there can be in a row, and more [`STRIDE`]s than the longest timeouts have.
const MANY: usize = 10_000;
const TICK: Duration = Duration::from_millis(1);
/// [`Session::end`] lets so much time pass at a time, at least: a handler may have a timer that never ends.
const STRIDE: Duration = Duration::from_millis(100);
/// Turns that one call takes, at most. A handler that sends whenever there is room would never finish.
const AT_ONCE: usize = 100;

/// A clock that stands still until [`Clock::pass`] is called. Its clones are the same clock: a handler that has one can be slow.
#[derive(Clone, Debug, Default)]
pub struct Clock(Arc<AtomicU64>);

impl Clock {
    /// Time since the loop was made.
    pub fn now(&self) -> Duration {
        Duration::from_micros(self.0.load(Ordering::Relaxed))
    }

    /// Lets time pass.
    pub fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros, Ordering::Relaxed);
    }
}

/// Both kernels of a loop's connections, in memory: what was sent to it can be read, and what it writes is collected.
#[derive(Debug, Default)]
pub struct Memory {
    /// The time that it is.
    pub clock: Clock,
    /// By slot.
    pub sockets: Vec<Socket>,
    last_lap: Duration,
}

/// One connection of [`Memory`].
#[derive(Debug)]
pub struct Socket {
    /// Bytes that wait to be read.
    pub input: Vec<u8>,
    /// The peer has sent FIN after them.
    pub eof: bool,
    /// The socket has failed.
    pub error: Option<io::ErrorKind>,
    /// Bytes that the kernel takes of the next writes, one by one. Beyond them, `room` counts.
    pub takes: VecDeque<usize>,
    /// Bytes that the kernel still takes.
    pub room: usize,
    /// What it took.
    pub written: Vec<u8>,
    /// FIN was sent.
    pub fin: bool,
    /// It was ended, by a reset or not.
    pub closed: Option<bool>,
    /// The application took it out of the loop.
    pub detached: bool,
    /// Where it was asked to connect to last, as `host:port`.
    pub target: Option<String>,
    /// How often it was asked to connect.
    pub targets: usize,
    /// The next connects fail at once like that, one by one.
    pub fails_at_once: VecDeque<io::ErrorKind>,
    /// Whether that has succeeded; `None`: not known yet.
    pub connected: Option<bool>,
}

impl Default for Socket {
    fn default() -> Self {
        Self {
            input: Vec::new(),
            eof: false,
            error: None,
            takes: VecDeque::new(),
            room: usize::MAX,
            written: Vec::new(),
            fin: false,
            closed: None,
            detached: false,
            target: None,
            targets: 0,
            fails_at_once: VecDeque::new(),
            connected: None,
        }
    }
}

impl Memory {
    /// Kernels whose time is that of `clock`.
    pub fn new(clock: &Clock) -> Self {
        Self { clock: clock.clone(), ..Self::default() }
    }

    /// The socket of a slot.
    pub fn socket(&mut self, slot: usize) -> &mut Socket {
        if self.sockets.len() <= slot {
            self.sockets.resize_with(slot + 1, Socket::default);
        }
        &mut self.sockets[slot]
    }
}

impl Transport for Memory {
    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let socket = self.socket(slot);
        let n = socket.input.len().min(buffer.len());
        if n == 0 && !socket.eof {
            return Err(socket.error.take().unwrap_or(io::ErrorKind::WouldBlock).into());
        }
        for (to, from) in buffer.iter_mut().zip(socket.input.drain(..n)) {
            *to = from;
        }
        Ok(n)
    }

    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let socket = self.socket(slot);
        if let Some(kind) = socket.error {
            return Err(kind.into());
        }
        let taken = socket.takes.pop_front();
        let (before, mut room) = (socket.written.len(), taken.unwrap_or(socket.room));
        for slice in slices {
            let piece = slice.get(..room).unwrap_or(slice);
            socket.written.extend_from_slice(piece);
            room -= piece.len();
        }
        let n = socket.written.len() - before;
        if taken.is_none() {
            socket.room -= n;
        }
        if n == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(n) }
    }

    fn await_writable(&mut self, _: usize, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn shutdown_write(&mut self, slot: usize) {
        self.socket(slot).fin = true;
    }

    fn close(&mut self, slot: usize, reset: bool) {
        let socket = self.socket(slot);
        socket.closed.get_or_insert(reset);
        // The slot may be given out again.
        socket.input.clear();
        (socket.eof, socket.error, socket.connected) = (false, None, None);
    }

    fn detach(&mut self, slot: usize) -> Option<DetachedStream> {
        let socket = self.socket(slot);
        socket.detached = true;
        // The slot may be given out again.
        socket.input.clear();
        (socket.eof, socket.error) = (false, None);
        Some(DetachedStream::Memory)
    }

    fn connect(&mut self, slot: usize, _: ConnectionId, target: Target<'_>) -> io::Result<()> {
        let socket = self.socket(slot);
        socket.targets += 1;
        (socket.connected, socket.target) = (
            None,
            Some(match target {
                Target::Name(host, port) => format!("{host}:{port}"),
                Target::Address(address) => address.to_string(),
            }),
        );
        if let Target::Address(_) = target
            && let Some(kind) = socket.fails_at_once.pop_front()
        {
            return Err(kind.into());
        }
        Ok(())
    }

    fn connected(&mut self, slot: usize) -> io::Result<bool> {
        match self.socket(slot).connected {
            Some(false) => Err(io::ErrorKind::ConnectionRefused.into()),
            connected => Ok(connected.is_some()),
        }
    }

    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind> {
        self.socket(slot).error.take()
    }

    fn unsent(&mut self, _: usize) -> Option<u32> {
        None
    }

    fn now(&mut self) -> Time {
        Time::from_start(self.clock.now())
    }

    fn lap(&mut self) -> Option<Duration> {
        let now = self.clock.now();
        let lap = now.saturating_sub(std::mem::replace(&mut self.last_lap, now));
        (!lap.is_zero()).then_some(lap)
    }
}

/// One connection of a loop of its own.
#[derive(Debug)]
pub struct Session<H: Handler> {
    driver: Driver<H::Data, Memory>,
    slot: usize,
    handler: H,
}

impl<H: Handler> Session<H> {
    /// A connection that was accepted and has not said anything.
    ///
    /// # Panics
    /// If a setting cannot work: see [`Config::validate`].
    pub fn new(config: Config, handler: H) -> Self {
        let mut driver = Driver::new(config, 0, 1, Memory::default());
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        let slot = driver.accept(peer).expect("a session wants room for one connection");
        Self { driver, slot, handler }
    }

    /// A connection after its opening handshake.
    pub fn open(config: Config, handler: H) -> Self {
        let mut session = Self::new(config, handler);
        session.read(REQUEST);
        session.take_written();
        session
    }

    /// A connection of our own, which is yet to be connected: see [`Session::socket`] and [`Session::ready`].
    ///
    /// # Panics
    /// If a setting cannot work: see [`Config::validate`].
    pub fn connect(
        config: Config,
        request: ConnectRequest,
        data: H::Data,
        handler: H,
    ) -> (Self, ConnectionId) {
        let mut driver = Driver::new(config, 0, 42, Memory::default());
        let id = driver.connect(request, data).expect("a session wants room for one connection");
        let mut session = Self { driver, slot: id.slot(), handler };
        session.turn();
        (session, id)
    }

    /// Bytes arrive from the peer, in one piece.
    pub fn read(&mut self, bytes: &[u8]) {
        if !self.is_gone() && !bytes.is_empty() {
            self.socket().input.extend_from_slice(bytes);
            self.ready(Readiness { readable: true, ..Readiness::default() });
        }
    }

    /// The peer sends FIN.
    pub fn read_eof(&mut self) {
        self.socket().eof = true;
        self.ready(Readiness { readable: true, ended: true, ..Readiness::default() });
    }

    /// The peer resets the connection.
    pub fn reset(&mut self) {
        self.socket().error = Some(io::ErrorKind::ConnectionReset);
        self.ready(Readiness { readable: true, writable: true, ended: true });
    }

    /// Time passes, and what is due by then happens.
    ///
    /// # Panics
    /// If something is due again and again at one moment: a bug of this crate.
    pub fn advance(&mut self, by: Duration) {
        let clock = self.clock();
        let target = clock.now().saturating_add(by);
        let mut steps = 0;
        loop {
            let due = self.driver.poll_timeout().map(|at| at.since(Time::ZERO)).filter(|at| *at <= target);
            let wait = due.unwrap_or(target).saturating_sub(clock.now());
            steps = if wait < TICK { steps + 1 } else { 0 };
            assert!(steps < MANY, "time does not pass");
            clock.pass(wait);
            self.turn();
            if due.is_none() {
                return;
            }
        }
    }

    /// The peer goes, and time passes until nothing is left of the connection.
    ///
    /// # Panics
    /// If something is left after the longest timeouts: a bug of this crate.
    pub fn end(&mut self) {
        self.read_eof();
        for steps in 0.. {
            let Some(due) = self.driver.poll_timeout().filter(|_| !self.is_gone()) else { break };
            assert!(steps < MANY, "the connection does not end");
            let now = Time::from_start(self.clock().now());
            self.advance(due.since(now).max(STRIDE));
        }
        assert!(self.is_gone(), "something is left of the connection");
    }

    /// From now on the kernel takes `bytes` bytes and then no more; it takes everything unless this is called.
    pub fn make_room(&mut self, bytes: usize) {
        self.socket().room = bytes;
        self.ready(Readiness { writable: true, ..Readiness::default() });
    }

    /// The application acts, as in a callback.
    pub fn act<R>(&mut self, act: impl FnOnce(&mut Clients<'_, H::Data>, &mut H) -> R) -> R {
        let result = self.driver.act(&mut self.handler, act);
        self.turn();
        result
    }

    /// What the connection has written since this was called last.
    pub fn take_written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.socket().written)
    }

    /// The handler.
    pub const fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Whether FIN was sent.
    pub fn sent_fin(&mut self) -> bool {
        self.socket().fin
    }

    /// Whether the descriptor is closed and the slot free.
    pub const fn is_gone(&self) -> bool {
        self.driver.stats().total() == 0
    }

    /// How many connections there are, by state.
    pub const fn stats(&self) -> Stats {
        self.driver.stats()
    }

    /// All that the loop has counted.
    pub fn loop_stats(&self) -> LoopStats {
        self.driver.loop_stats()
    }

    /// The socket, to play its kernel by hand. [`Session::ready`] says what it has become.
    pub fn socket(&mut self) -> &mut Socket {
        let slot = self.slot;
        self.driver.transport().socket(slot)
    }

    /// The loop of this connection, to play it by hand.
    #[cfg(feature = "unstable-core")]
    pub const fn driver(&mut self) -> &mut Driver<H::Data, Memory> {
        &mut self.driver
    }

    /// The socket has become ready. Turns follow until the connection has nothing more to do, at most 100: for a handler that sends
    /// whenever there is room, call [`Session::turn`] for more.
    pub fn ready(&mut self, readiness: Readiness) {
        self.driver.begin_turn(&mut self.handler);
        if !self.is_gone() {
            self.driver.ready(self.slot, readiness, &mut self.handler);
        }
        self.driver.end_turn(&mut self.handler);
        self.rest();
    }

    /// A turn in which nothing becomes ready, and those that it asks for, 100 at most.
    pub fn turn(&mut self) {
        self.driver.begin_turn(&mut self.handler);
        self.driver.end_turn(&mut self.handler);
        self.rest();
    }

    fn rest(&mut self) {
        for _ in 0..AT_ONCE {
            if !self.driver.has_more() || self.driver.shutdown_report().is_some() {
                return;
            }
            self.driver.begin_turn(&mut self.handler);
            self.driver.end_turn(&mut self.handler);
        }
    }

    /// The clock of this session.
    pub fn clock(&mut self) -> Clock {
        self.driver.transport().clock.clone()
    }
}

/// A client's frame: the first byte as it is (FIN, reserved bits, opcode), the shortest length, a mask, the payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 0x7e);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 0x7f);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// An event as text that does not depend on how the bytes were cut: for comparing two sessions.
///
/// Times are left out, and so are the counts of discarded bytes: how many had arrived by then depends on the cuts. So does
/// the moment of a `Drain`: leave it out of the comparison.
pub fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Message { id, message, closing } => {
            let kind = if message.is_text() { "Text" } else { "Binary" };
            format!("Message {id} {kind} {:?} {closing}", message.as_bytes())
        }
        Event::Close { id, report } => {
            let mut report = report.clone();
            (report.duration, report.close_phase) = (Duration::ZERO, Duration::ZERO);
            (report.lost.trailing_bytes, report.lost.inbound_partial_bytes) = (0, 0);
            format!("Close {id} {report:?}")
        }
        other => format!("{other:?}"),
    }
}
