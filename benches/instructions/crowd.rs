//! A hub with many connections, and the turn of a driver as in `server.rs`, without sockets.

use std::{
    hint::black_box,
    io,
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use adjourn::{
    Clients, Config, Event, Handler, Time, Upgrade, UpgradeRequest,
    conn::Cursor,
    hub::{Action, Hub},
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

/// Many connections with one kernel that takes everything.
pub(crate) struct Crowd {
    pub(crate) hub: Hub<()>,
    now: Duration,
    scratch: Vec<u8>,
    /// What the kernel took.
    pub(crate) written: u64,
    pub(crate) released: u32,
    /// Since replies were written last.
    reads: u32,
    readable: Vec<usize>,
}

impl Crowd {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            hub: Hub::new(config, 0, 1),
            now: Duration::from_secs(1),
            scratch: Vec::new(),
            written: 0,
            released: 0,
            reads: 0,
            readable: Vec::new(),
        }
    }

    /// `n` open connections, in slots from 0 on.
    pub(crate) fn open(config: Config, n: u32, request: &[u8]) -> Self {
        let mut crowd = Self::new(config);
        for _ in 0..n {
            crowd.join(&mut request.to_vec());
        }
        assert_eq!(crowd.hub.stats().open, n as usize, "all are open");
        crowd
    }

    /// A connection is accepted and says its request.
    pub(crate) fn join(&mut self, request: &mut [u8]) {
        let peer = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
        let slot = self.hub.accept(peer).expect("there is room");
        self.turn(slot, request);
    }

    pub(crate) fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    /// One turn in which one connection has something to read.
    pub(crate) fn turn(&mut self, slot: usize, bytes: &mut [u8]) {
        self.begin();
        self.read(slot, bytes);
        self.end();
    }

    pub(crate) fn begin(&mut self) {
        self.reads = 0;
        self.hub.begin_turn(Time::from_start(self.now));
    }

    pub(crate) fn read(&mut self, slot: usize, bytes: &mut [u8]) {
        assert!(self.hub.take_held(slot).is_empty() && self.hub.wants_read(slot), "it is not paused");
        assert!(self.hub.direct(slot, 32 << 10).is_none(), "no large message is under way");
        self.hub.handle_readable(slot);
        let mut cursor = Cursor::new(bytes, &mut self.scratch);
        while let Some(event) = self.hub.next(slot, &mut cursor, &mut Echo) {
            Echo.on_event(&mut self.hub.clients(), event);
            deliver(&mut self.hub);
        }
        deliver(&mut self.hub);
        self.reads += 1;
        if self.reads >= 64 || self.hub.corked() >= 16 << 10 {
            self.reads = 0;
            while let Some(slot) = self.hub.poll_write() {
                self.write(slot);
            }
        }
    }

    /// The turn's end. Returns whether there is more to do at once.
    pub(crate) fn end(&mut self) -> bool {
        self.settle();
        self.hub.handle_timeout();
        self.settle();
        assert!(self.hub.take_requests().is_empty(), "nobody asks for a shutdown of several loops");
        black_box((self.hub.is_ready(), self.hub.is_listening(), self.hub.shutdown_report()));
        self.hub.has_more() || self.hub.poll_timeout().is_some_and(|at| at <= Time::from_start(self.now))
    }

    /// Turns without input, as long as there is something to do.
    pub(crate) fn rest(&mut self) {
        loop {
            self.begin();
            if !self.end() {
                return;
            }
            self.now += Duration::from_millis(1);
        }
    }

    fn settle(&mut self) {
        loop {
            deliver(&mut self.hub);
            match self.hub.poll_action() {
                None => return,
                Some(Action::Write(slot)) => self.write(slot),
                Some(Action::Read(slot)) => self.readable.push(slot),
                Some(Action::Fin(_)) => {}
                Some(Action::Abort(slot, _)) => self.hub.handle_aborted(slot, None),
                Some(Action::Release(..)) => self.released += 1,
                Some(Action::Connect(slot)) => unreachable!("nobody connects from slot {slot}"),
            }
        }
    }

    fn write(&mut self, slot: usize) {
        let written = &mut self.written;
        let done = self.hub.transmit(slot, &mut |slices| {
            let offered = black_box(slices).iter().map(|slice| slice.len()).sum();
            *written += offered as u64;
            io::Result::Ok(offered)
        });
        done.expect("this kernel has no errors");
    }
}

fn deliver(hub: &mut Hub<()>) {
    while let Some(event) = hub.poll_event() {
        Echo.on_event(&mut hub.clients(), event);
    }
}
