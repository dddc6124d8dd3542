//! The world outside the loop: its clock, what is on the agenda, the links with the two kernels at their ends, the peers.
//!
//! The loop's transport (`wire.rs`) and its handler (`app.rs`) share it.

use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::{Arc, Mutex},
    time::Duration,
};

use adjourn::Time;

use super::{
    chance::Rng,
    checker::{Checker, ensure},
    deflate,
    frames::ServerStream,
    link::Link,
    peer::{Doing, Kind, Peer, Reading},
    records::Records,
    scenario::{self, Size},
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
    /// The application decides on an upgrade that it has deferred.
    Decide(u32),
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

/// Everything but the loop and its application.
pub struct Outside {
    pub size: Size,
    pub checker: Checker,
    pub links: Vec<Link>,
    pub peers: Vec<Peer>,
    paths: Vec<&'static str>,
    /// The connection in each slot.
    slots: Vec<Option<u32>>,
    agenda: BinaryHeap<Reverse<(u64, u64, Item)>>,
    scheduled: u64,
    /// What the kernel will report to the loop next.
    pub edges: Vec<Edge>,
    pub arrivals: Vec<u32>,
    /// What the application is to be asked before the next turn.
    pub orders: Vec<Item>,
    pub rng: Rng,
    /// The clock, in microseconds. The checker's is the loop's idea of it.
    pub now: u64,
    /// Bytes were read or written in this turn.
    pub moved: bool,
    /// What the application got of connections that it has taken out of the loop in this turn.
    pub handed: Handed,
}

/// See [`Outside::handed`].
pub type Handed = Arc<Mutex<Vec<(u32, Vec<u8>)>>>;

impl Outside {
    pub fn new(size: Size, checker: Checker, rng: Rng, max_payload: usize) -> Self {
        let n = size.connections as usize;
        let mut outside = Self {
            size,
            checker,
            links: Vec::with_capacity(n),
            peers: Vec::with_capacity(n),
            paths: Vec::with_capacity(n),
            slots: Vec::new(),
            agenda: BinaryHeap::new(),
            scheduled: 0,
            edges: Vec::new(),
            arrivals: Vec::new(),
            orders: Vec::new(),
            rng,
            now: 0,
            moved: false,
            handed: Handed::default(),
        };
        outside.populate(max_payload);
        outside
    }

    fn populate(&mut self, max_payload: usize) {
        let crowd = self.size.crowd;
        let settings = scenario::deflate(&self.checker.config);
        let mut beside = self.rng.beside();
        let layered = !crowd && beside.u8(..5) == 0;
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
            if let Some(settings) = settings {
                let (offer, agreed) = deflate::offer(settings, &mut rng.beside());
                self.checker.of(conn).wire = ServerStream::agreeing(agreed);
                peer.compress(offer, agreed);
            }
            peer.stays = crowd && rng.u8(..50) > 0;
            self.peers.push(peer);
            self.links.push(Link::new(capacity, latency));
            if layered && beside.u8(..4) > 0 {
                self.links[conn as usize].records = Some(Box::new(Records::new(beside.fork())));
            }
            self.paths.push(scenario::path(rng, self.size));
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

    /// When the next thing on the agenda happens.
    pub fn next(&self) -> Option<u64> {
        self.agenda.peek().map(|Reverse((at, ..))| *at)
    }

    /// The connection in a slot.
    pub fn conn(&self, slot: usize) -> Option<u32> {
        self.slots.get(slot).copied().flatten()
    }

    /// A connection was accepted into this slot.
    pub fn accepted(&mut self, conn: u32, slot: usize) {
        if self.slots.len() <= slot {
            self.slots.resize(slot + 1, None);
        }
        let before = self.slots[slot].replace(conn);
        ensure!(self.checker, conn, "slots_are_free", before.is_none(), "{slot} is taken by {before:?}");
        self.links[conn as usize].slot = u32::try_from(slot).ok();
        self.checker.accepted(conn);
        let delay = self.rng.u64(..50_000);
        self.soon(delay, Item::Act(conn));
    }

    /// The slot is free again. Returns whose it was.
    pub fn released(&mut self, slot: usize) -> Option<u32> {
        self.slots.get_mut(slot)?.take()
    }

    /// What was taken out of the loop came with every byte that was read, and no other.
    pub fn check_handed(&mut self) {
        let handed = std::mem::take(&mut *self.handed.lock().expect("not poisoned"));
        for (conn, received) in handed {
            let link = &self.links[conn as usize];
            let right = link.said.get(..link.taken) == Some(&received);
            let text = format!("{} bytes of {}, {} were read", received.len(), link.said.len(), link.taken);
            ensure!(self.checker, conn, "detached_with_every_byte", right, "{text}");
        }
    }

    /// Time goes on while a callback runs: what arrives meanwhile lies in the kernel.
    pub fn pass(&mut self, micros: u64) {
        self.now += micros;
        self.checker.late += micros;
        self.happen();
    }

    /// What is on the agenda until now.
    pub fn happen(&mut self) {
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
                Item::Leave => {
                    for conn in 0..self.size.connections {
                        let doing = self.peers[conn as usize].leave();
                        self.carry_out(conn, &doing);
                    }
                    self.orders.push(item);
                }
                Item::Command | Item::Decide(_) | Item::Wake | Item::Shutdown | Item::CutShort => {
                    self.orders.push(item);
                }
            }
        }
    }

    fn act(&mut self, conn: u32) {
        let path = self.paths[conn as usize];
        let doing = self.peers[conn as usize].act(path);
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
        match &mut link.records {
            Some(records) if !doing.bytes.is_empty() || doing.fin => {
                let garbles = self.peers[conn as usize].kind == Kind::Garbage;
                link.up.put(&records.wrap(&doing.bytes, doing.fin, garbles));
            }
            _ => link.up.put(&doing.bytes),
        }
        if self.peers[conn as usize].kind == Kind::OtherRequest {
            link.said.extend_from_slice(&doing.bytes);
        }
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
        let waits = acting || !std::mem::replace(&mut peer.waits_to_read, true);
        let slow = peer.reading != Reading::Eager && link.down.arrived() > 0;
        peer.waits_to_read = slow;
        let read = match &mut link.records {
            Some(records) => records.unwrap(&bytes[..n]),
            None => Ok(bytes[..n].to_vec()),
        };
        let read = read.unwrap_or_else(|text| {
            self.checker.fail("whole_records_on_the_wire", conn, text);
            Vec::new()
        });
        let doing = peer.receive(&read);
        let fin = link.down.fin_arrived() && link.down.arrived() == 0 && !peer.ended;
        self.notify_if_writable(conn);
        self.carry_out(conn, &doing);
        if slow && waits {
            self.soon(20_000, Item::Slow(conn));
        }
        if fin {
            let facts = &self.checker.facts[conn as usize];
            let (opened, closed, aborted) = (facts.opened, facts.closed, facts.aborted);
            let whole = self.peers[conn as usize].at_boundary();
            let text = format!("opened: {opened}, closed: {closed}");
            let orderly = facts.close_done && !facts.aborted;
            let seen = self.peers[conn as usize].has_seen_close();
            let (checker, whole) = (&mut self.checker, whole || closed || aborted || !opened);
            ensure!(checker, conn, "fin_reaches_the_peer_after_whole_frames", whole, "{text}");
            ensure!(checker, conn, "the_close_reaches_the_peer", !orderly || seen, "{text}");
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

    pub fn notify_if_writable(&mut self, conn: u32) {
        if self.links[conn as usize].becomes_writable() {
            self.edges.push(Edge { conn, readable: false, writable: true, ended: false });
        }
    }

    pub fn set_down_moving(&mut self, conn: u32) {
        let link = &mut self.links[conn as usize];
        if link.down.has_more() && !std::mem::replace(&mut link.down.moving, true) {
            let latency = u64::from(link.latency);
            self.soon(latency, Item::Down(conn));
        }
    }

    /// The layer between the loop and a link may have written something of its own.
    pub fn layer_has_written(&mut self, conn: u32) {
        if self.links[conn as usize].records.is_some() {
            self.notify_if_writable(conn);
            self.set_down_moving(conn);
        }
    }

    /// What did not fit into the server's receive buffer comes now.
    pub fn refill(&mut self, conn: u32) {
        let link = &mut self.links[conn as usize];
        if link.up.has_more() && !link.is_dead() && !std::mem::replace(&mut link.up.moving, true) {
            self.soon(1, Item::Up(conn));
        }
    }
}

pub fn time(micros: u64) -> Time {
    Time::from_start(Duration::from_micros(micros))
}

pub fn micros(time: Time) -> u64 {
    u64::try_from(time.since(Time::ZERO).as_micros()).unwrap_or(u64::MAX)
}

/// An address from which the connection follows.
pub fn address(conn: u32) -> SocketAddr {
    let ip = if conn % 16 == 15 {
        IpAddr::V6(Ipv6Addr::from(0xfd00_u128 << 112 | u128::from(conn)))
    } else {
        IpAddr::V4(Ipv4Addr::from(0x0a00_0000 | conn))
    };
    SocketAddr::new(ip, 4000)
}
