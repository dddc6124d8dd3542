//! A loop with many connections, and a kernel that costs next to nothing.

use std::{
    hint::black_box,
    io::{self, IoSlice},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use adjourn::{
    Clients, Config, ConnectionId, Event, Handler, Time,
    conn::Target,
    http::{DetachedStream, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness, Transport},
};

/// Sends back what comes.
pub(crate) struct Echo;

impl Handler for Echo {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        if let Event::Message { id, message, .. } = event {
            clients.send(id, message).expect("there is room");
        }
    }
}

/// One kernel for all: what is to be read lies at hand, and what is written is counted.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    now: Duration,
    /// What the next read gives.
    input: Vec<u8>,
    eof: bool,
    pub(crate) written: u64,
}

impl Transport for Kernel {
    fn read(&mut self, _: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.input.len();
        if n == 0 && !self.eof {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        buffer[..n].copy_from_slice(&self.input);
        self.input.clear();
        Ok(n)
    }

    fn write(&mut self, _: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let offered = black_box(slices).iter().map(|slice| slice.len()).sum();
        self.written += offered as u64;
        Ok(offered)
    }

    fn await_writable(&mut self, _: usize, _: bool) -> io::Result<()> {
        Ok(())
    }

    fn shutdown_write(&mut self, _: usize) {}

    fn close(&mut self, _: usize, _: bool) {}

    fn detach(&mut self, _: usize) -> Option<DetachedStream> {
        None
    }

    fn connect(&mut self, slot: usize, _: ConnectionId, _: Target<'_>) -> io::Result<()> {
        unreachable!("nobody connects from slot {slot}")
    }

    fn connected(&mut self, _: usize) -> io::Result<bool> {
        Ok(false)
    }

    fn take_error(&mut self, _: usize) -> Option<io::ErrorKind> {
        None
    }

    fn unsent(&mut self, _: usize) -> Option<u32> {
        None
    }

    fn now(&mut self) -> Time {
        Time::from_start(self.now)
    }

    fn lap(&mut self) -> Option<Duration> {
        black_box(None)
    }
}

/// Many connections of one loop.
pub(crate) struct Crowd {
    pub(crate) driver: Driver<(), Kernel>,
}

impl Crowd {
    pub(crate) fn new(config: Config) -> Self {
        let kernel = Kernel { now: Duration::from_secs(1), ..Kernel::default() };
        Self { driver: Driver::new(config, 0, 1, kernel) }
    }

    /// `n` open connections, in slots from 0 on.
    pub(crate) fn open(config: Config, n: u32, request: &[u8]) -> Self {
        let mut crowd = Self::new(config);
        for _ in 0..n {
            crowd.join(request);
        }
        assert_eq!(crowd.driver.stats().open, n as usize, "all are open");
        crowd
    }

    pub(crate) fn kernel(&mut self) -> &mut Kernel {
        self.driver.transport()
    }

    /// A connection is accepted and says its request.
    pub(crate) fn join(&mut self, request: &[u8]) {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let slot = self.driver.accept(peer).expect("there is room");
        self.turn(slot, request);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.kernel().now += time;
    }

    /// One turn in which one connection has something to read.
    pub(crate) fn turn(&mut self, slot: usize, bytes: &[u8]) {
        self.begin();
        self.read(slot, bytes);
        self.end();
    }

    pub(crate) fn begin(&mut self) {
        self.driver.begin_turn(&mut Echo);
    }

    pub(crate) fn read(&mut self, slot: usize, bytes: &[u8]) {
        self.kernel().input.extend_from_slice(bytes);
        self.driver.ready(slot, Readiness { readable: true, ..Readiness::default() }, &mut Echo);
    }

    /// The peer of a slot sends FIN.
    pub(crate) fn end_of(&mut self, slot: usize) {
        self.begin();
        self.kernel().eof = true;
        let readiness = Readiness { readable: true, ended: true, ..Readiness::default() };
        self.driver.ready(slot, readiness, &mut Echo);
        self.kernel().eof = false;
        self.end();
    }

    /// The turn's end. Returns whether there is more to do at once.
    pub(crate) fn end(&mut self) -> bool {
        self.driver.end_turn(&mut Echo);
        assert!(self.driver.take_requests().is_empty(), "nobody asks for a shutdown of several loops");
        black_box((self.driver.is_ready(), self.driver.is_listening(), self.driver.shutdown_report()));
        let now = self.kernel().now;
        self.driver.has_more() && self.driver.shutdown_report().is_none()
            || self.driver.poll_timeout().is_some_and(|at| at <= Time::from_start(now))
    }

    /// Turns without input, as long as there is something to do.
    pub(crate) fn rest(&mut self) {
        loop {
            self.begin();
            if !self.end() {
                return;
            }
            self.pass(Duration::from_millis(1));
        }
    }
}
