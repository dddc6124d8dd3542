//! A world: one hub, its driver, links, peers and a clock, all from one seed.
//!
//! The driver does what `server.rs` does, turn by turn: edge-triggered reads and writes, then deadlines, then whatever
//! is left to deliver and to do. Nothing else of the crate's server is here, and no socket, thread or real time.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use adjourn::{Phase, Time, hub::Hub};

use super::{
    app::App,
    book::{Book, Failure, ensure},
    chance::Rng,
    link::Link,
    peer::{Doing, Peer, Reading},
    scenario::{self, Size},
    tally::Tally,
};

/// What is on the agenda.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Item {
    /// A peer connects.
    Connect(u32),
    /// Bytes arrive at the server, at the peer.
    Up(u32),
    Down(u32),
    /// A peer acts of its own accord.
    Act(u32),
    /// A slow peer reads on.
    Slow(u32),
    /// An RST arrives at the server.
    Reset(u32),
    /// The application asks for something between two turns.
    Command,
    /// Naps are over.
    Wake,
    Shutdown,
    CutShort,
    /// Whoever is left leaves.
    Leave,
}

/// What a socket has become.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    pub conn: u32,
    pub readable: bool,
    pub writable: bool,
    pub ended: bool,
}

/// A world under way.
pub struct World {
    pub size: Size,
    pub hub: Hub<u32>,
    pub app: App,
    pub links: Vec<Link>,
    pub peers: Vec<Peer>,
    pub wishes: Vec<&'static str>,
    /// The connection in each slot.
    pub slots: Vec<Option<u32>>,
    pub agenda: BinaryHeap<Reverse<(u64, u64, Item)>>,
    pub scheduled: u64,
    pub edges: Vec<Edge>,
    pub arrivals: Vec<u32>,
    /// Slots that may have more to read although no edge will say so.
    pub readable: Vec<usize>,
    pub buffer: Vec<u8>,
    pub scratch: Vec<u8>,
    /// From so many missing bytes on, a message is read straight into its own buffer.
    pub direct: u64,
    pub rng: Rng,
    /// Replies wait for so many reads ...
    pub batch: u32,
    /// ... or so many bytes.
    pub batch_bytes: usize,
    pub reads: u32,
    pub now: u64,
    /// How late a turn may begin, in milliseconds.
    pub late: u64,
    pub turns: u64,
    /// Bytes were read or written in the last turn.
    pub moved: bool,
    /// Turns without time going on, or a byte.
    pub spins: u64,
}

/// Lives through the world of these choices. Returns what happened, or the first check that failed.
pub fn live(
    rng: Rng,
    size: Size,
    tracing: bool,
    progress: &mut dyn FnMut(u64, &Book),
) -> Result<Tally, Failure> {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(rng, size, tracing);
        world.run(progress);
        let book = &mut world.app.book;
        book.tally.worlds = 1;
        book.tally.connections = u64::from(size.connections);
        book.tally.turns = world.turns;
        book.tally.lived = Duration::from_micros(world.now);
        match book.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut book.tally)),
        }
    }));
    run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
        Err(Failure { check: "nothing_panics", text, at: 0, connection: None })
    })
}

impl World {
    fn new(mut rng: Rng, size: Size, tracing: bool) -> Self {
        let config = scenario::config(&mut rng, size);
        let plan = scenario::plan(&mut rng, size);
        let n = size.connections;
        let hub = Hub::new(config.clone(), 0, rng.u64(..));
        let max_payload = config.max_payload;
        let buffer = vec![0; config.read_buffer];
        let mut app = App::new(Book::new(config, n as usize, tracing), rng.fork(), plan);
        if !size.crowd {
            app.nerve = [0, 5, 20, 50][rng.usize(..4)];
            app.echo = [0, 30, 100][rng.usize(..3)];
            app.sweeps_left = rng.u32(..6);
            app.may_shut_down = size.shutdown != Some(false) && rng.u8(..3) == 0;
        }
        let mut world = Self {
            size,
            hub,
            app,
            links: Vec::with_capacity(n as usize),
            peers: Vec::with_capacity(n as usize),
            wishes: Vec::with_capacity(n as usize),
            slots: Vec::new(),
            agenda: BinaryHeap::new(),
            scheduled: 0,
            edges: Vec::new(),
            arrivals: Vec::new(),
            readable: Vec::new(),
            buffer,
            scratch: Vec::new(),
            batch: [1, 3, 64][rng.usize(..3)],
            batch_bytes: [1, 1000, 16 << 10][rng.usize(..3)],
            reads: 0,
            direct: [1, 100, 32 << 10][rng.usize(..3)],
            late: if size.crowd || rng.bool() { 0 } else { rng.u64(1..40) },
            now: 0,
            turns: 0,
            moved: false,
            spins: 0,
            rng,
        };
        world.populate(max_payload);
        world
    }

    fn populate(&mut self, max_payload: usize) {
        let crowd = self.size.crowd;
        for conn in 0..self.size.connections {
            let rng = &mut self.rng;
            let kind = scenario::kind(rng, self.size);
            let acts = if crowd { u8::from(rng.u8(..20) == 0) } else { rng.u8(..8) };
            let capacity = match rng.u8(..4) {
                _ if crowd => 64 << 10,
                0 => rng.u32(1..300),
                1 => rng.u32(300..5000),
                _ => rng.u32(5000..200_000),
            };
            let latency = match rng.u8(..4) {
                0 if !crowd => 0,
                3 => rng.u32(1..200_000),
                _ => rng.u32(1..20_000),
            };
            let mut peer = Peer::new(kind, acts, max_payload, rng.fork());
            peer.stays = crowd && rng.u8(..50) > 0;
            self.peers.push(peer);
            self.links.push(Link::new(capacity, latency));
            self.wishes.push(scenario::wish(rng, self.size));
            let most = if crowd || self.rng.u8(..3) > 0 { 10_000_000 } else { 1_000 };
            let at = self.rng.u64(..most);
            self.at(at, Item::Connect(conn));
        }
        let shutdown = self.size.shutdown.unwrap_or_else(|| self.rng.u8(..10) < 7);
        if crowd {
            for _ in 0..20 {
                let at = self.rng.u64(10_000_000..15_000_000);
                self.at(at, Item::Command);
            }
            self.at(15_000_000, if shutdown { Item::Shutdown } else { Item::Leave });
            self.at(600_000_000, Item::Leave);
            return;
        }
        for _ in 0..self.rng.u8(..60) {
            let at = self.rng.u64(..25_000_000);
            self.at(at, Item::Command);
        }
        if shutdown {
            let at = self.rng.u64(..20_000_000);
            self.at(at, Item::Shutdown);
            for _ in 0..self.rng.u8(..3) {
                let later = at + self.rng.u64(..8_000_000);
                self.at(later, Item::CutShort);
            }
        }
        self.at(40_000_000, Item::Leave);
        for second in 41..60 {
            self.at(second * 1_000_000, Item::Wake);
        }
    }

    /// Everything happens at whole milliseconds, as fine as the hub's deadlines are.
    fn at(&mut self, at: u64, item: Item) {
        self.scheduled += 1;
        self.agenda.push(Reverse((at.next_multiple_of(1000), self.scheduled, item)));
    }

    pub fn soon(&mut self, by: u64, item: Item) {
        self.at(self.now + by, item);
    }

    fn run(&mut self, progress: &mut dyn FnMut(u64, &Book)) {
        while self.app.book.failure.is_none() {
            if self.hub.phase() == Phase::Done && self.readable.is_empty() {
                return self.end();
            }
            let Some(wake) = self.next_wake() else { return self.end() };
            self.app.book.check_wake(wake);
            let late =
                if self.late > 0 && self.rng.u8(..8) == 0 { self.rng.u64(..self.late) * 1000 } else { 0 };
            let busy = std::mem::take(&mut self.moved);
            self.app.book.late += late;
            self.spins = if wake + late == self.now && !busy { self.spins + 1 } else { 0 };
            self.now = wake + late;
            self.app.book.now = self.now;
            self.happen();
            self.turn();
            self.turns += 1;
            let endless = self.spins > 10_000 + 4 * u64::from(self.size.connections);
            let (due, readable) = (self.hub.poll_timeout().map(micros), &self.readable);
            let text = format!("{} turns at one moment; due {due:?}, readable {readable:?}", self.spins);
            ensure!(self.app.book, None, "time_goes_on", !endless, "{text}");
            if self.turns.is_multiple_of(1024) {
                progress(self.now, &self.app.book);
            }
        }
    }

    /// When the next turn is: when something happens, or when the hub says.
    fn next_wake(&self) -> Option<u64> {
        if !self.readable.is_empty() || self.hub.has_more() {
            return Some(self.now);
        }
        let world = self.agenda.peek().map(|Reverse((at, ..))| *at);
        let hub = self.hub.poll_timeout().map(micros);
        [world, hub].into_iter().flatten().min().map(|at| at.next_multiple_of(1000).max(self.now))
    }

    fn end(&mut self) {
        if let Some(report) = self.hub.shutdown_report().cloned() {
            self.app.book.check_shutdown_report(&report);
        }
        let timeout = self.hub.poll_timeout().map(micros);
        self.app.book.check_end(self.hub.stats(), timeout);
    }

    // The world outside.

    fn happen(&mut self) {
        while let Some(&Reverse((at, _, item))) = self.agenda.peek()
            && at <= self.now
        {
            self.agenda.pop();
            match item {
                Item::Connect(conn) => self.arrivals.push(conn),
                Item::Up(conn) => self.arrive_up(conn),
                Item::Down(conn) => self.arrive_down(conn),
                Item::Act(conn) => self.act(conn),
                Item::Slow(conn) => self.consume(conn, true),
                Item::Reset(conn) => self.arrive_reset(conn),
                Item::Command | Item::Wake | Item::Shutdown | Item::CutShort => self.commands(item),
                Item::Leave => self.leave(),
            }
        }
    }

    /// Other threads' commands are carried out within the turn; here it is enough that the turn has begun.
    fn commands(&mut self, item: Item) {
        self.hub.begin_turn(time(self.now));
        let clients = &mut self.hub.clients();
        match item {
            Item::Command => self.app.command(clients, None),
            Item::Shutdown if self.app.book.shutdown.is_none() => self.app.begin_shutdown(clients),
            Item::CutShort if self.app.book.shutdown.is_some() => self.app.cut_short(clients),
            _ => {}
        }
        self.app.wake(clients);
        self.deliver();
    }

    fn leave(&mut self) {
        self.app.calm = true;
        for nap in &mut self.app.naps {
            nap.0 = 0;
        }
        for conn in 0..self.size.connections {
            let doing = self.peers[conn as usize].leave();
            self.carry_out(conn, &doing);
        }
    }

    fn act(&mut self, conn: u32) {
        let wish = self.wishes[conn as usize];
        let doing = self.peers[conn as usize].act(wish);
        self.carry_out(conn, &doing);
        self.consume(conn, false);
    }

    pub fn carry_out(&mut self, conn: u32, doing: &Doing) {
        let link = &mut self.links[conn as usize];
        if link.slot.is_none() && !link.server_gone {
            return;
        }
        if let Some(again) = doing.again {
            self.soon(again, Item::Act(conn));
        }
        let link = &mut self.links[conn as usize];
        if link.is_dead() || link.peer_gone {
            return;
        }
        let latency = u64::from(link.latency);
        link.peer_gone |= doing.gone;
        if doing.reset {
            link.peer_gone = true;
            return self.soon(latency, Item::Reset(conn));
        }
        link.up.put(&doing.bytes);
        if doing.fin {
            link.up.send_fin();
        }
        if link.up.has_more() && !std::mem::replace(&mut link.up.moving, true) {
            self.soon(latency, Item::Up(conn));
        }
    }

    fn arrive_up(&mut self, conn: u32) {
        const RECEIVE_BUFFER: usize = 256 << 10;
        let link = &mut self.links[conn as usize];
        link.up.moving = false;
        if link.is_dead() {
            return;
        }
        if link.server_gone {
            // A closed socket answers with RST; the peer has nothing left to say anyway.
            link.peer_gone = true;
            return;
        }
        let noticed = link.up.deliver(RECEIVE_BUFFER, &mut self.rng);
        let again = link.up.has_more() && link.up.arrived() < RECEIVE_BUFFER;
        let ended = link.up.fin_arrived();
        if again {
            link.up.moving = true;
            let jitter = self.rng.u64(..5000);
            self.soon(jitter, Item::Up(conn));
        }
        if noticed {
            self.edges.push(Edge { conn, readable: true, writable: false, ended });
        }
    }

    fn arrive_down(&mut self, conn: u32) {
        let link = &mut self.links[conn as usize];
        link.down.moving = false;
        if link.is_dead() {
            return;
        }
        let latency = u64::from(link.latency);
        let noticed = link.down.deliver(usize::MAX, &mut self.rng);
        if link.down.has_more() {
            link.down.moving = true;
            let jitter = self.rng.u64(..5000);
            self.soon(jitter, Item::Down(conn));
        }
        if !noticed {
            return;
        }
        if self.links[conn as usize].peer_gone {
            // Data for a closed socket: RST comes back.
            if self.links[conn as usize].down.arrived() > 0 {
                self.soon(latency, Item::Reset(conn));
            }
            return;
        }
        self.consume(conn, false);
    }

    /// The peer reads, as it likes to. A slow one reads when it acts.
    fn consume(&mut self, conn: u32, acting: bool) {
        let (link, peer) = (&mut self.links[conn as usize], &mut self.peers[conn as usize]);
        if link.is_dead() || link.peer_gone {
            return;
        }
        let most = match peer.reading {
            Reading::Eager => usize::MAX,
            Reading::Slow(n) if acting => usize::from(n),
            Reading::Slow(_) => 0,
            Reading::Stopped => return,
        };
        let mut bytes = vec![0; most.min(link.down.arrived())];
        let n = link.down.read(&mut bytes);
        let waits = acting || !std::mem::replace(&mut peer.dawdles, true);
        let slow = peer.reading != Reading::Eager && link.down.arrived() > 0;
        peer.dawdles = slow;
        let doing = peer.receive(&bytes[..n]);
        let fin = link.down.fin_arrived() && link.down.arrived() == 0 && !peer.ended;
        if link.feeds() {
            self.edges.push(Edge { conn, readable: false, writable: true, ended: false });
        }
        self.carry_out(conn, &doing);
        if slow && waits {
            self.soon(20_000, Item::Slow(conn));
        }
        if fin {
            let facts = &self.app.book.facts[conn as usize];
            let (opened, closed) = (facts.opened, facts.closed);
            let whole = self.peers[conn as usize].at_boundary();
            let text = format!("opened: {opened}, closed: {closed}");
            let orderly = facts.close_done && !facts.aborted;
            let seen = self.peers[conn as usize].has_seen_close();
            let (book, whole) = (&mut self.app.book, whole || closed || !opened);
            ensure!(book, conn, "fin_reaches_the_peer_behind_whole_frames", whole, "{text}");
            ensure!(book, conn, "the_close_reaches_the_peer", !orderly || seen, "{text}");
            let doing = self.peers[conn as usize].receive_fin();
            self.carry_out(conn, &doing);
        }
    }

    fn arrive_reset(&mut self, conn: u32) {
        let link = &mut self.links[conn as usize];
        if link.is_dead() || link.server_gone {
            return;
        }
        let all = self.rng.u8(..4) == 0;
        let timed_out = self.rng.u8(..8) == 0;
        let kind = if timed_out { io::ErrorKind::TimedOut } else { io::ErrorKind::ConnectionReset };
        link.handle_reset(kind, all);
        self.edges.push(Edge { conn, readable: true, writable: true, ended: true });
    }

    // The driver: a turn as in `server.rs`.

    // After every turn.
}

pub fn time(micros: u64) -> Time {
    Time::from_start(Duration::from_micros(micros))
}

pub fn micros(time: Time) -> u64 {
    u64::try_from(time.since(Time::ZERO).as_micros()).unwrap_or(u64::MAX)
}

/// An address that tells the connection.
pub fn address(conn: u32) -> SocketAddr {
    let ip = if conn % 16 == 15 {
        IpAddr::V6(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(conn)))
    } else {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | conn))
    };
    SocketAddr::new(ip, 4000)
}
