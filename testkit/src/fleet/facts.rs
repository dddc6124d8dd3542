//! What is known of a world: its clock, its agenda, its connections, and what must be true of them.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap},
    net::SocketAddr,
    time::Duration,
};

use adjourn::{
    Config, ConnectionId, ShutdownPlan, Time,
    config::ProxyProtocol,
    error::{AdoptRefusal, ConnectionLimit, HandshakeError, ProxyFault},
    hub::{Readiness, ShutdownRequest},
    shutdown::Pace,
};

use super::{Summary, client_address};
use crate::sim::{Failure, Rng};

/// How a connection comes to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Accepted; this is what it begins with.
    Accepted(Header),
    Adopted,
    /// One of our own.
    Dialled,
}

/// What a connection begins with, before its request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    None,
    V1,
    V2,
    /// The proxy speaks for itself.
    Local,
    Unknown,
    /// The beginning of one, and no more.
    Cut,
    /// It begins like a header and is none.
    Wrong,
}

/// What is on the agenda of a loop.
#[derive(Clone, Debug)]
pub enum Item {
    Arrive(u32),
    /// The peer of a connection acts.
    Peer(u32),
    /// What became of a connect.
    Connected(u32, bool),
    /// A handle asks for something.
    Command(u8),
    Shutdown,
    Relay(ShutdownRequest),
}

/// One connection.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct Link {
    pub how: How,
    pub number: usize,
    pub from: SocketAddr,
    /// Who it is counted as, and shown as with or without a proxy.
    pub counted: Option<SocketAddr>,
    pub slot: Option<usize>,
    pub id: Option<ConnectionId>,
    pub opened: bool,
    pub closed: bool,
    pub failed: bool,
    pub refused: bool,
    /// Messages that the application got.
    pub delivered: u32,
    /// The turn in which a connect failed at once.
    pub failed_at_once: Option<u64>,
    pub connected: Option<bool>,
    // The kernel.
    pub input: Vec<u8>,
    pub eof: bool,
    pub error: Option<std::io::ErrorKind>,
    pub written: Vec<u8>,
    pub fin: bool,
    // The peer.
    pub head_done: bool,
    pub sent: u32,
    pub acts: u8,
    pub peer_closed: bool,
    pub peer_gone: bool,
    pub answers: bool,
    /// Timers: key, and when it is due.
    pub timers: BTreeMap<u64, u64>,
}

/// One loop.
#[derive(Debug, Default)]
pub struct LoopFacts {
    pub edges: Vec<(usize, Readiness)>,
    pub orders: Vec<Item>,
    pub turn: u64,
    pub connects: u32,
    pub sweeps_at: Option<u64>,
    pub done: Option<u64>,
    /// The loop's own timers: key, and when it is due.
    pub timers: BTreeMap<u64, u64>,
}

pub struct World {
    pub now: u64,
    pub rng: Rng,
    pub loops: Vec<LoopFacts>,
    pub links: Vec<Link>,
    pub failure: Option<Failure>,
    pub summary: Summary,
    pub plan: ShutdownPlan,
    pub config: Config,
    pub proxies: Option<ProxyProtocol>,
    agenda: BinaryHeap<Reverse<(u64, u64)>>,
    items: BTreeMap<u64, (usize, Item)>,
    latest: u64,
    ids: BTreeSet<ConnectionId>,
    /// When Close frames of the shutdown were queued.
    pub swept: Vec<u64>,
    pub asked_at: Option<u64>,
    live_at_sweep: usize,
    /// Something was asked for that makes the shutdown shorter.
    pub shortened: bool,
    /// Connects that may still follow one that has failed or ended.
    pub redials: u32,
    spins: u64,
    tracing: bool,
}

impl World {
    pub fn new(mut rng: Rng, tracing: bool) -> Self {
        let loops = rng.usize(1..5);
        Self {
            now: 0,
            loops: std::iter::repeat_with(LoopFacts::default).take(loops).collect(),
            links: Vec::new(),
            failure: None,
            summary: Summary { worlds: 1, loops: loops as u64, ..Summary::default() },
            plan: ShutdownPlan::default(),
            config: Config::default(),
            proxies: None,
            agenda: BinaryHeap::new(),
            items: BTreeMap::new(),
            latest: 0,
            ids: BTreeSet::new(),
            swept: Vec::new(),
            asked_at: None,
            live_at_sweep: 0,
            shortened: false,
            redials: rng.u32(..200),
            spins: 0,
            rng,
            tracing,
        }
    }

    /// Puts what is to happen on the agenda.
    pub fn begin(&mut self, config: &Config, proxies: Option<&ProxyProtocol>, plan: ShutdownPlan) {
        (self.config, self.proxies, self.plan) = (config.clone(), proxies.cloned(), plan);
        // Most connections are one loop's.
        let favourite = self.rng.usize(..self.loops.len());
        for _ in 0..self.rng.u32(5..60) {
            let any = self.rng.usize(..self.loops.len());
            let number = if self.rng.u8(..3) > 0 { favourite } else { any };
            let how = if self.rng.u8(..5) == 0 {
                How::Adopted
            } else if proxies.is_some() {
                How::Accepted(Header::drawn(&mut self.rng))
            } else {
                How::Accepted(Header::None)
            };
            let link = self.add_link(how, number);
            let arrives = self.rng.u64(..8_000_000);
            self.at(arrives, number, Item::Arrive(link));
        }
        for _ in 0..self.rng.u8(..40) {
            let (number, what) = (self.rng.usize(..self.loops.len()), self.rng.u8(..));
            let when = self.rng.u64(..12_000_000);
            self.at(when, number, Item::Command(what));
        }
        let number = self.rng.usize(..self.loops.len());
        let when = self.rng.u64(8_000_000..10_000_000);
        self.at(when, number, Item::Shutdown);
    }

    pub fn add_link(&mut self, how: How, number: usize) -> u32 {
        let link = u32::try_from(self.links.len()).unwrap_or(u32::MAX);
        let trusted = link % 4 != 3;
        let (from, counted) = match (how, &self.proxies) {
            (How::Accepted(header), Some(_)) => {
                let from = at(if trusted { [10, 0, 0, 1] } else { [203, 0, 113, 1] }, link);
                let counted = match header {
                    Header::V1 | Header::V2 if trusted => Some(client_address(link)),
                    _ if trusted => None,
                    _ => Some(from),
                };
                (from, counted)
            }
            _ => (client_address(link), Some(client_address(link))),
        };
        self.links.push(Link {
            how,
            number,
            from,
            counted: counted.filter(|_| how != How::Dialled),
            slot: None,
            id: None,
            opened: false,
            closed: false,
            failed: false,
            refused: false,
            delivered: 0,
            failed_at_once: None,
            connected: None,
            input: Vec::new(),
            eof: false,
            error: None,
            written: Vec::new(),
            fin: false,
            head_done: how == How::Adopted,
            sent: 0,
            acts: self.rng.u8(..6),
            peer_closed: false,
            peer_gone: false,
            answers: self.rng.u8(..4) > 0,
            timers: BTreeMap::new(),
        });
        link
    }

    pub fn link(&self, link: u32) -> &Link {
        &self.links[link as usize]
    }

    pub fn of(&mut self, link: u32) -> &mut Link {
        &mut self.links[link as usize]
    }

    pub fn trace(&self, text: impl FnOnce() -> String) {
        if self.tracing {
            eprintln!("{:>10} us  {}", self.now, text());
        }
    }

    pub fn check(
        &mut self,
        check: &'static str,
        link: Option<u32>,
        holds: bool,
        text: impl FnOnce() -> String,
    ) {
        if !holds && self.failure.is_none() {
            let text = text();
            self.trace(|| format!("FAILED {check} ({link:?}): {text}"));
            self.failure = Some(Failure { check, text, at: self.now, connection: link });
        }
    }

    // The agenda.

    pub fn at(&mut self, at: u64, number: usize, item: Item) {
        self.latest += 1;
        self.agenda.push(Reverse((at.next_multiple_of(1000), self.latest)));
        self.items.insert(self.latest, (number, item));
    }

    pub fn soon(&mut self, most: u64, number: usize, item: Item) {
        let by = self.rng.u64(..most);
        self.at(self.now + by, number, item);
    }

    pub fn next(&self) -> Option<u64> {
        self.agenda.peek().map(|Reverse((at, _))| *at)
    }

    pub fn go_to(&mut self, now: u64) {
        self.spins = if now == self.now { self.spins + 1 } else { 0 };
        self.check("time_goes_on", None, self.spins < 20_000, || "many turns at one moment".to_owned());
        self.now = now;
    }

    /// What is on the agenda until now: what peers do is done; the rest is for the loops.
    pub fn happen(&mut self) -> Vec<(usize, Item)> {
        let mut orders = Vec::new();
        while let Some(&Reverse((at, key))) = self.agenda.peek()
            && at <= self.now
        {
            self.agenda.pop();
            match self.items.remove(&key) {
                Some((_, Item::Peer(link))) => self.peer_acts(link),
                Some((_, Item::Connected(link, succeeds))) => {
                    self.of(link).connected = Some(succeeds);
                    self.notify(link, Readiness { writable: true, ..Readiness::default() });
                }
                Some(order) => orders.push(order),
                None => {}
            }
        }
        orders
    }

    /// The kernel says this of a connection.
    pub fn notify(&mut self, link: u32, readiness: Readiness) {
        let Link { slot, number, .. } = self.links[link as usize];
        if let Some(slot) = slot {
            self.loops[number].edges.push((slot, readiness));
        }
    }

    pub fn relay(&mut self, number: usize, request: ShutdownRequest) {
        // As long as it takes to wake a thread.
        self.soon(30_000, number, Item::Relay(request));
    }

    pub fn begin_turn(&mut self, number: usize) -> Vec<(usize, Readiness)> {
        let facts = &mut self.loops[number];
        (facts.turn, facts.connects) = (facts.turn + 1, 0);
        std::mem::take(&mut facts.edges)
    }

    pub fn end_turn(&mut self, number: usize) {
        let most = self.config.event_loop.turn_callbacks.saturating_mul(3);
        let connects = self.loops[number].connects;
        self.check("a_turn_is_bounded", None, connects <= most, || format!("{connects} connects"));
        for link in 0..u32::try_from(self.links.len()).unwrap_or(u32::MAX) {
            if self.link(link).number == number && !self.link(link).written.is_empty() {
                self.peer_reads(link);
            }
        }
        let now = self.now;
        let late = self.loops[number].timers.iter().find(|(_, due)| **due + 50_000 < now);
        let late = late.map(|(key, due)| (*key, *due));
        let done = self.loops[number].done.is_some();
        self.check("timers_fire", None, late.is_none() || done, || format!("{late:?}"));
    }

    // What happens to connections.

    /// An id was given out.
    pub fn note_id(&mut self, link: u32, id: ConnectionId) {
        let known = self.link(link).id;
        if known == Some(id) {
            return;
        }
        let fresh = known.is_none() && self.ids.insert(id);
        let right = fresh && usize::from(id.loop_number()) == self.link(link).number;
        self.check("ids_do_not_collide", Some(link), right, || format!("{id:?}, known: {known:?}"));
        self.of(link).id = Some(id);
    }

    pub fn accepted(&mut self, link: u32) {
        self.trace(|| format!("#{link} is accepted"));
        let number = self.link(link).number;
        self.soon(200_000, number, Item::Peer(link));
    }

    pub fn adopted(&mut self, link: u32, adopted: Result<ConnectionId, AdoptRefusal>) {
        self.trace(|| format!("#{link} is adopted: {adopted:?}"));
        let number = self.link(link).number;
        match adopted {
            Ok(id) => {
                self.note_id(link, id);
                self.soon(200_000, number, Item::Peer(link));
            }
            Err(AdoptRefusal::ShuttingDown) => {
                let asked = self.asked_at.is_some();
                self.check("adopted_unless_shutting_down", Some(link), asked, String::new);
            }
            Err(AdoptRefusal::TooManyConnections { limit: ConnectionLimit::PerAddress }) => {
                self.check_refusal(link);
            }
            Err(error) => {
                self.check("adopted_unless_shutting_down", Some(link), false, || format!("{error:?}"));
            }
        }
    }

    /// How many connections of its address there are besides it.
    fn neighbours(&self, link: u32, counts: impl Fn(&Link) -> bool) -> usize {
        let (this, own) = (self.link(link), link as usize);
        let others = self.links.iter().enumerate().filter(|(index, _)| *index != own);
        let same = |other: &Link| {
            other.number == this.number
                && other.counted.map(|address| address.ip()) == this.counted.map(|address| address.ip())
        };
        others.filter(|(_, other)| same(other) && counts(other)).count()
    }

    pub fn opened(&mut self, link: u32, id: ConnectionId, peer: SocketAddr, proxy: Option<SocketAddr>) {
        self.note_id(link, id);
        self.summary.opened += 1;
        let known = self.link(link);
        let first = !known.opened && !known.failed;
        self.check("open_or_failed", Some(link), first, || "twice".to_owned());
        let done = self.loops[self.link(link).number].done.is_some();
        self.check("every_close_before_done", Some(link), !done, || "Open after Done".to_owned());
        let limit = self.config.event_loop.max_connections_per_address;
        if let Some(limit) = limit.filter(|_| self.link(link).counted.is_some()) {
            let open = self.neighbours(link, |other| other.opened && !other.closed);
            self.check("limits_count_the_header", Some(link), open < limit as usize, || {
                format!("{open} others of {peer}, of {limit}")
            });
        }
        if let How::Accepted(header) = self.link(link).how {
            self.check_header(link, header, None);
            let (from, counted) = (self.link(link).from, self.link(link).counted);
            let speaks = self.proxies.is_some() && matches!(header, Header::V1 | Header::V2);
            let expected = if speaks { (counted, Some(from)) } else { (Some(from), None) };
            let right = (Some(peer), proxy) == expected;
            self.check("the_header_decides", Some(link), right, || format!("{peer} by {proxy:?}"));
        }
        self.of(link).opened = true;
    }

    pub fn handshake_failed(&mut self, link: u32, error: HandshakeError) {
        self.trace(|| format!("#{link} failed: {error:?}"));
        self.summary.failed += 1;
        let known = self.link(link);
        let (first, at_once) = (!known.opened && !known.failed, known.failed_at_once);
        let (how, number) = (known.how, known.number);
        self.check("open_or_failed", Some(link), first, || format!("{error:?}, again"));
        let in_a_later_turn = at_once.is_none_or(|turn| turn < self.loops[number].turn);
        self.check("failed_connects_are_reported_in_the_next_turn", Some(link), in_a_later_turn, String::new);
        match (how, error) {
            (How::Accepted(_), HandshakeError::TooManyConnections { .. }) => self.check_refusal(link),
            (How::Accepted(header), HandshakeError::ProxyHeader(fault)) => {
                self.check_header(link, header, Some(fault));
            }
            _ => {}
        }
        (self.of(link).failed, self.of(link).refused) = (true, true);
    }

    /// It was refused for how many there are of its address.
    fn check_refusal(&mut self, link: u32) {
        let limit = self.config.event_loop.max_connections_per_address.unwrap_or(u32::MAX) as usize;
        let most = self.neighbours(link, |other| other.slot.is_some());
        self.check("limits_count_the_header", Some(link), most >= limit, || format!("{most} of {limit}"));
        self.of(link).refused = true;
    }

    /// It was let in by its header, or refused for it.
    fn check_header(&mut self, link: u32, header: Header, fault: Option<ProxyFault>) {
        use Header::{Local, None as NoHeader, Unknown, V1, V2, Wrong};
        let trusted = self.link(link).from.ip().to_string().starts_with("10.");
        let right = match (&self.proxies, header, fault) {
            (None, NoHeader, None) => true,
            (Some(_), V1 | V2 | Local | Unknown, None)
            | (Some(_), Wrong, Some(ProxyFault::Malformed | ProxyFault::TooLong)) => trusted,
            (Some(settings), NoHeader, None) => !settings.required,
            (Some(settings), NoHeader, Some(ProxyFault::Missing)) => trusted && settings.required,
            (Some(settings), _, Some(ProxyFault::Untrusted)) => {
                !trusted && (settings.required || header != NoHeader)
            }
            _ => false,
        };
        let text = || format!("{header:?} of a peer that is trusted ({trusted}): {fault:?}");
        self.check("the_header_decides", Some(link), right, text);
    }

    // The shutdown.

    pub fn sweep_begins(&mut self, number: usize) {
        let open = self.links.iter().filter(|link| link.opened && !link.closed).count();
        self.live_at_sweep = self.live_at_sweep.max(open);
        self.loops[number].sweeps_at = Some(self.now);
    }

    pub fn check_end(&mut self, plan: &ShutdownPlan) {
        for link in 0..u32::try_from(self.links.len()).unwrap_or(u32::MAX) {
            let Link { opened, closed, failed, id, how, .. } = self.links[link as usize];
            let ended = opened == closed && (how != How::Dialled || id.is_none() || closed || failed);
            self.check("one_end_each", Some(link), ended, || format!("{how:?}, opened: {opened}"));
        }
        self.check_pace(plan);
    }

    fn check_pace(&mut self, plan: &ShutdownPlan) {
        let begins = self.loops.iter().filter_map(|facts| facts.sweeps_at).min();
        let (Pace::Rate(rate), false, Some(begins)) = (plan.pace, self.shortened, begins) else { return };
        let swept = std::mem::take(&mut self.swept);
        for (before, at) in (0_u32..).zip(&swept) {
            // Loops do not begin at the same moment, and each begins with one.
            let seconds = Duration::from_micros(at - begins).as_secs_f64();
            let most = 1.25 * rate * seconds + 2.0 * f64::from(u32::try_from(self.loops.len()).unwrap_or(0));
            self.check("a_rate_is_shared", None, f64::from(before) <= most, || {
                format!("{before} were closed after {seconds} s at {rate} a second")
            });
        }
        let sweep = Duration::from_secs_f64(f64::from(u32::try_from(self.live_at_sweep).unwrap_or(0)) / rate);
        let most = plan.lame_duck + sweep + plan.grace + Duration::from_millis(350);
        let asked = self.asked_at.unwrap_or(0);
        let took = self.loops.iter().filter_map(|facts| facts.done).max().unwrap_or(asked) - asked;
        let took = Duration::from_micros(took);
        self.check("shutdown_ends_by_its_bound", None, took <= most, || format!("{took:?}, not {most:?}"));
    }
}

/// An address from whose port the connection follows.
pub fn at(ip: [u8; 4], link: u32) -> SocketAddr {
    (ip, u16::try_from(20_000 + link).unwrap_or(u16::MAX)).into()
}

/// The connection with this address.
pub fn link_at(address: SocketAddr) -> u32 {
    u32::from(address.port()).saturating_sub(20_000)
}

pub fn time(micros: u64) -> Time {
    Time::from_start(Duration::from_micros(micros))
}

pub fn micros(time: Time) -> u64 {
    u64::try_from(time.since(Time::ZERO).as_micros()).unwrap_or(u64::MAX)
}
