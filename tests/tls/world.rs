//! A loop over kernels in memory, in virtual time, with one connection over TLS; the other side of it is rustls.

use std::{cell::RefCell, rc::Rc, time::Duration};

use adjourn::{
    Clients, CloseReport, Config, ConnectionId, Event, Handler,
    error::HandshakeError,
    http::{Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Clock, Memory, REQUEST},
    tls::{ServerTls, Tls, TlsSession},
};

use crate::{
    certificates::Authority,
    peer::{self, Peer},
};

/// What a handler has seen.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) id: Option<ConnectionId>,
    pub(crate) tls: Option<TlsSession>,
    /// Upgrades are deferred, and this is the last one.
    pub(crate) defers: bool,
    pub(crate) deferred: Option<ConnectionId>,
    pub(crate) messages: Vec<Vec<u8>>,
    pub(crate) closing: bool,
    pub(crate) report: Option<CloseReport>,
    pub(crate) failed: Option<HandshakeError>,
}

pub(crate) struct Echo(pub(crate) Rc<RefCell<Seen>>);

impl Handler for Echo {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        let seen = &mut *self.0.borrow_mut();
        seen.tls = request.tls().cloned();
        if seen.defers {
            seen.deferred = Some(request.id());
            return Upgrade::Defer;
        }
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        let seen = &mut *self.0.borrow_mut();
        match event {
            Event::Open { id } => seen.id = Some(id),
            Event::Message { id, message, .. } => {
                seen.messages.push(message.as_bytes().to_vec());
                let _ = clients.send(id, message);
            }
            Event::Closing { .. } => seen.closing = true,
            Event::Close { report, .. } => seen.report = Some(*report),
            Event::HandshakeFailed { error, .. } => seen.failed = Some(error),
            _ => {}
        }
    }
}

/// A loop with one connection, and its peer.
pub(crate) struct World {
    pub(crate) driver: Driver<(), Tls<Memory>>,
    pub(crate) handler: Echo,
    pub(crate) seen: Rc<RefCell<Seen>>,
    pub(crate) slot: usize,
    pub(crate) clock: Clock,
    pub(crate) peer: Peer,
    /// Bytes that our kernel takes between two turns, and that it gets at once.
    pub(crate) takes: usize,
    pub(crate) gets: usize,
    /// On their way to us.
    pub(crate) up: Vec<u8>,
    /// All ciphertext that we have written.
    pub(crate) down: Vec<u8>,
    /// FIN follows what is on its way.
    pub(crate) fin: bool,
}

impl World {
    pub(crate) fn of(
        config: Config,
        peer: Peer,
        begin: impl FnOnce(&mut Driver<(), Tls<Memory>>) -> usize,
    ) -> Self {
        let (clock, seen) = (Clock::default(), Rc::<RefCell<Seen>>::default());
        let mut driver = Driver::new(config, 0, 7, Tls::new(Memory::new(&clock)));
        let slot = begin(&mut driver);
        let handler = Echo(Rc::clone(&seen));
        Self {
            driver,
            handler,
            seen,
            slot,
            clock,
            peer,
            takes: usize::MAX,
            gets: usize::MAX,
            up: Vec::new(),
            down: Vec::new(),
            fin: false,
        }
    }

    /// We are the server.
    pub(crate) fn server(config: Config, tls: &ServerTls, peer: Peer) -> Self {
        Self::of(config, peer, |driver| {
            let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("there is room");
            driver.transport().accept(slot, tls).expect("it can serve");
            slot
        })
    }

    /// A server whose client believes it, before their handshake.
    pub(crate) fn fresh(config: Config) -> Self {
        let authority = Authority::new();
        let tls = ServerTls::new(authority.identity_for(&["localhost"]));
        Self::server(config, &tls, Peer::client(peer::client_config(&authority), "localhost"))
    }

    /// A server whose handshakes are complete, and that has got an upgrade.
    pub(crate) fn open(config: Config) -> Self {
        let mut world = Self::fresh(config);
        world.peer.send(REQUEST);
        world.settle();
        assert!(world.peer.received.starts_with(b"HTTP/1.1 101 "));
        world.peer.received.clear();
        world
    }

    pub(crate) fn turn(&mut self, readiness: Readiness) {
        self.driver.begin_turn(&mut self.handler);
        self.driver.ready(self.slot, readiness, &mut self.handler);
        self.driver.end_turn(&mut self.handler);
    }

    pub(crate) fn socket(&mut self) -> &mut adjourn::testing::Socket {
        let slot = self.slot;
        self.driver.transport().socket(slot)
    }

    /// What both kernels do before the next turn. Says whether they did something.
    pub(crate) fn carry(&mut self) -> bool {
        let out = self.peer.take_output();
        self.up.extend_from_slice(&out);
        let n = self.up.len().min(self.gets);
        let (piece, takes) = (self.up.drain(..n).collect::<Vec<_>>(), self.takes);
        let fin = self.fin && self.up.is_empty();
        let socket = self.socket();
        socket.input.extend_from_slice(&piece);
        socket.eof |= fin;
        let written = std::mem::take(&mut socket.written);
        let refilled = socket.room < takes;
        socket.room = takes;
        self.down.extend_from_slice(&written);
        self.peer.feed(&written);
        let moved = !piece.is_empty() || !written.is_empty() || refilled;
        self.turn(Readiness { readable: n > 0 || fin, writable: refilled, ended: fin });
        moved || self.driver.has_more()
    }

    pub(crate) fn settle(&mut self) {
        for steps in 0.. {
            assert!(steps < 2_000_000, "it does not come to rest");
            if !self.carry() {
                return;
            }
        }
    }

    pub(crate) fn advance(&mut self, by: Duration) {
        self.clock.pass(by);
        self.turn(Readiness::default());
        self.settle();
    }

    pub(crate) fn act(&mut self, act: impl FnOnce(&mut Clients<'_, ()>, ConnectionId)) {
        let id = self.seen.borrow().id.expect("it is open");
        self.driver.act(&mut self.handler, |clients, _| act(clients, id));
        self.turn(Readiness::default());
        self.settle();
    }

    pub(crate) fn report(&self) -> CloseReport {
        self.seen.borrow().report.clone().expect("it has ended")
    }
}
