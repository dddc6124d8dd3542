//! Three nodes on one shared store in virtual time. Links between nodes and store delay, hold everything back for a while, and lose it with a
//! node that dies; logs of two namespaces are read in any order to each other; calls fail; messages between nodes are lost and overtake each other;
//! nodes have clocks that are minutes apart; clients roam, also before the old node has noticed. `CLUSTER_WORLDS` sets how many
//! worlds, `CLUSTER_SEED` runs one; a failure names its seed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::SocketIoConfig;
use adjourn_socketio::config::ConnectPolicy;
use adjourn_socketio::core::{Core, CoreSetup, FeedCommand, Peer, StoreCall, StoreReply, Ticket, Transport};
use adjourn_socketio::links::{Frame, FrameRef, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::offset::Position;
use adjourn_socketio::packet::Query;
use adjourn_socketio::reason::Reason;
use adjourn_socketio::store::{
    Batch, EntryKind, FeedItem, MemoryStore, NewEntry, NodeId, Parts, Store as _, StoreError, StoreSettings,
};

use super::cluster_client::{Client, SPACES, Seat};

const NODES: usize = 3;
const CLIENTS: usize = 4;
const STEPS: usize = 600;
/// Rounds without anything after which nothing comes any more, and the most rounds until then.
const QUIET: usize = 12;
const DRAIN: usize = 5000;
const END: Position = Position::counter(u64::MAX);
const WALL: u64 = 3_600_000;

/// What cores send, by link.
#[derive(Default)]
struct Wire {
    out: HashMap<LinkId, VecDeque<String>>,
    closed: HashSet<LinkId>,
}

impl Links for Wire {
    fn send(&mut self, link: LinkId, frames: &[Frame]) -> Result<(), SendRefused> {
        let out =
            self.out.get_mut(&link).filter(|_| !self.closed.contains(&link)).ok_or(SendRefused::Gone)?;
        for frame in frames {
            if let Frame::Text(text) = frame {
                out.push_back(text.as_str().to_owned());
            }
        }
        Ok(())
    }
    fn send_to(&mut self, links: &[LinkId], frames: &[Frame], refused: &mut Vec<(LinkId, SendRefused)>) {
        for link in links {
            if let Err(why) = self.send(*link, frames) {
                refused.push((*link, why));
            }
        }
    }
    fn unsent(&mut self, _: LinkId) -> usize {
        0
    }
    fn close(&mut self, link: LinkId, _: LinkClose) {
        self.closed.insert(link);
    }
    fn respond(&mut self, _: RequestId, _: Response) {}
    fn abort(&mut self, _: RequestId) {}
}

/// The outcome of each emit, as its sender learned it.
type Told = Arc<Mutex<HashMap<u64, bool>>>;

struct Node {
    name: NodeId,
    core: Core,
    wire: Wire,
    /// What its monotonic clock is ahead of the world's.
    ahead: Duration,
    writes: VecDeque<(Ticket, StoreCall)>,
    reads: VecDeque<(Ticket, StoreCall)>,
    written: VecDeque<(Ticket, StoreReply)>,
    answers: VecDeque<(Ticket, StoreReply)>,
    follows: [bool; 2],
    /// Up to where it has read each log; `None`: not begun.
    read: [Option<Position>; 2],
    /// Until then nothing passes between it and the store.
    held_until: Duration,
}

struct World {
    random: u64,
    now: Duration,
    store: Parts,
    nodes: Vec<Node>,
    lives: u64,
    clients: Vec<Client>,
    /// Links that their clients have left, and that the node does not know of yet.
    left: Vec<(usize, LinkId)>,
    links: u64,
    messages: Vec<(NodeId, Option<NodeId>, Vec<u8>)>,
    told: Told,
    emitted: u64,
    crashes: usize,
    tails: [Position; 2],
    logs: [Vec<u64>; 2],
    /// Has anything happened in this round?
    busy: bool,
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Box::new(MemoryStore::new());
        let store = store.open(NodeId("store".into()), &StoreSettings::default(), 0).expect("opens");
        let mut world = Self {
            random: seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1,
            now: Duration::ZERO,
            store,
            nodes: Vec::new(),
            lives: seed * 1000,
            clients: (0..CLIENTS).map(|i| Client::new(i % 2 == 0)).collect(),
            left: Vec::new(),
            links: 0,
            messages: Vec::new(),
            told: Told::default(),
            emitted: 0,
            crashes: 0,
            tails: [Position::START; 2],
            logs: [Vec::new(), Vec::new()],
            busy: false,
        };
        for _ in 0..NODES {
            let node = world.born();
            world.nodes.push(node);
        }
        world.tell_who_is_alive();
        world
    }

    fn born(&mut self) -> Node {
        self.lives += 1;
        let (ahead, wall) = (self.below(600_000) as u64, self.below(1_200_000) as u64);
        Node::new(self.lives, Duration::from_millis(ahead), WALL + wall)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from((self.random >> 11) % limit as u64).expect("small")
    }

    fn store_time(&self) -> u64 {
        WALL + u64::try_from(self.now.as_millis()).expect("small")
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let node = self.below(NODES);
        self.collect(node);
        let space = self.below(2);
        match self.below(64) {
            0..=15 => self.write(node, true),
            16..=20 => self.read(node),
            21..=35 => self.answer(node),
            36..=46 => self.feed(node, space),
            47..=51 => self.emit(node, space),
            52..=55 => self.roam(),
            56..=59 => self.notice(),
            60 => self.message(true),
            61 if self.below(5) == 0 => self.hold(node),
            62 if self.below(6) == 0 => self.fall(node, space),
            63 if self.below(6) == 0 => self.crash(node),
            _ => self.volatile(node, space),
        }
        for client in 0..CLIENTS {
            self.receive(client);
        }
    }

    fn collect(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        let now = self.now + node.ahead;
        node.core.handle_timeout(now, &mut node.wire);
        while let Some(command) = node.core.poll_store() {
            let list = if command.call.is_read() { &mut node.reads } else { &mut node.writes };
            list.push_back((command.ticket, command.call));
        }
        while let Some(command) = node.core.poll_feed() {
            match command {
                FeedCommand::Follow(name) => node.follows[usize::from(&*name == SPACES[1])] = true,
                FeedCommand::Send(to, bytes) => self.messages.push((node.name.clone(), to, bytes)),
                FeedCommand::Leave(_) => {}
            }
        }
    }

    fn hold(&mut self, node: usize) {
        let until = self.now + Duration::from_millis(20 + self.below(200) as u64);
        self.nodes[node].held_until = until;
    }

    fn write(&mut self, node: usize, may_fail: bool) {
        let fails = may_fail && self.below(60) == 0;
        if self.nodes[node].held_until > self.now {
            return;
        }
        let Some((ticket, call)) = self.nodes[node].writes.pop_front() else { return };
        self.busy |= !matches!(call, StoreCall::Trim(..) | StoreCall::Expire(_) | StoreCall::DropLog(_));
        // A session that could not be saved would not be announced as one that can be resumed.
        let reply = match call {
            StoreCall::Commit(batch) if fails && batch.sessions.is_empty() && !batch.entries.is_empty() => {
                StoreReply::Commit(Err(StoreError::Failed("refused".into())))
            }
            call => self.run(call),
        };
        self.nodes[node].written.push_back((ticket, reply));
    }

    fn run(&mut self, call: StoreCall) -> StoreReply {
        let now = self.store_time();
        let space = match &call {
            StoreCall::Attach(ask) => usize::from(&*ask.namespace == SPACES[1]),
            _ => 0,
        };
        let Ok(mut reply) = call.write(&mut *self.store.writer, now) else { panic!("a write") };
        if let StoreReply::Attach(Ok(attached)) = &mut reply {
            let fence = NewEntry {
                namespace: SPACES[space].into(),
                kind: EntryKind::Fence,
                rooms: [Arc::clone(&attached.session.sid)].into(),
                except: Arc::new([]),
                packet: attached.session.generation.to_string().into(),
                attachments: Arc::new([]),
                ack: None,
                until: None,
            };
            let batch = Batch { entries: vec![fence], ..Batch::default() };
            attached.tail = self.store.writer.commit(&batch, now).expect("commits").positions[0];
        }
        for (space, name) in SPACES.iter().enumerate() {
            let page = self.store.reader.page(name, self.tails[space]..END, usize::MAX).expect("a page");
            for entry in page.entries {
                self.tails[space] = entry.position;
                if entry.new.kind == EntryKind::Event {
                    self.logs[space].push(number_of(&entry.new.packet));
                }
            }
        }
        reply
    }

    fn read(&mut self, node: usize) {
        let now = self.store_time();
        if self.nodes[node].held_until > self.now {
            return;
        }
        let Some((ticket, call)) = self.nodes[node].reads.pop_front() else { return };
        self.busy = true;
        let Ok(reply) = call.read(&mut *self.store.reader, now) else { panic!("a read") };
        self.nodes[node].answers.push_back((ticket, reply));
    }

    /// Writes and reads are answered by threads of their own.
    fn answer(&mut self, index: usize) {
        let of_writer = self.below(2) == 0;
        let node = &mut self.nodes[index];
        if node.held_until > self.now {
            return;
        }
        let first = if of_writer { &mut node.written } else { &mut node.answers };
        if let Some((ticket, reply)) = first.pop_front() {
            self.busy |=
                !matches!(reply, StoreReply::Trim(_) | StoreReply::Expire(_) | StoreReply::DropLog(_));
            node.core.store_reply(ticket, reply, self.now + node.ahead, &mut node.wire);
        }
    }

    fn feed(&mut self, index: usize, space: usize) {
        let bytes = 1 + self.below(200);
        let node = &mut self.nodes[index];
        if !node.follows[space] || node.held_until > self.now {
            return;
        }
        let namespace: Arc<str> = SPACES[space].into();
        let item = match node.read[space] {
            None => {
                let tail = self.tails[space];
                node.read[space] = Some(tail);
                FeedItem::Began { namespace, epoch: 1, floor: Position::START, tail }
            }
            Some(at) => {
                let page = self.store.reader.page(&namespace, at..END, bytes).expect("a page");
                let Some(last) = page.entries.last() else { return };
                node.read[space] = Some(last.position);
                FeedItem::Entries(namespace, page.entries)
            }
        };
        self.busy = true;
        node.core.feed_input(item, self.now + node.ahead, &mut node.wire);
    }

    /// The log was trimmed before the node has read it.
    fn fall(&mut self, index: usize, space: usize) {
        let node = &mut self.nodes[index];
        if node.read[space].take().is_some() {
            let item = FeedItem::Fell { namespace: SPACES[space].into(), lost: false };
            node.core.feed_input(item, self.now + node.ahead, &mut node.wire);
        }
    }

    /// Every third goes to all, the others to one of two rooms.
    fn emit(&mut self, index: usize, space: usize) {
        let number = self.emitted;
        self.emitted += 1;
        let (told, now) = (Arc::clone(&self.told), self.now);
        let node = &mut self.nodes[index];
        let call = |io: &mut adjourn_socketio::Io<'_>| {
            let of_then = Arc::clone(&told);
            let then = move |_: &mut adjourn_socketio::Io<'_>, offset: Result<_, _>| {
                let before = of_then.lock().expect("not poisoned").insert(number, offset.is_ok());
                assert_eq!(before, None, "told twice");
            };
            let to = io.of(SPACES[space]);
            let to = match number % 3 {
                1 => to.to("even"),
                2 => to.to("odd"),
                _ => to,
            };
            if to.emit_then("e", (number,), then).is_err() {
                told.lock().expect("not poisoned").insert(number, false);
            }
        };
        node.core.call(call, now + node.ahead, &mut node.wire);
    }

    /// To all nodes; what is appended to it may not end recovery.
    fn volatile(&mut self, index: usize, space: usize) {
        let node = &mut self.nodes[index];
        let call = |io: &mut adjourn_socketio::Io<'_>| {
            io.of(SPACES[space]).emit_volatile("v", ());
        };
        node.core.call(call, self.now + node.ahead, &mut node.wire);
    }

    /// Of the messages between nodes any one arrives, or is lost.
    fn message(&mut self, may_be_lost: bool) {
        if self.messages.is_empty() {
            return;
        }
        let index = self.below(self.messages.len());
        let (from, to, bytes) = self.messages.swap_remove(index);
        if may_be_lost && self.below(10) == 0 {
            return;
        }
        for node in &mut self.nodes {
            if node.name != from && to.as_ref().is_none_or(|to| *to == node.name) {
                let item = FeedItem::Message(from.clone(), bytes.clone());
                node.core.feed_input(item, self.now + node.ahead, &mut node.wire);
            }
        }
    }

    fn tell_who_is_alive(&mut self) {
        let names: Vec<NodeId> = self.nodes.iter().map(|node| node.name.clone()).collect();
        for node in &mut self.nodes {
            node.core.feed_input(FeedItem::Nodes(names.clone()), self.now + node.ahead, &mut node.wire);
        }
    }

    /// SIGKILL. Some of the calls that were under way have been done. Another process takes its place.
    fn crash(&mut self, index: usize) {
        self.crashes += 1;
        for _ in 0..self.below(3) {
            if let Some((_, call)) = self.nodes[index].writes.pop_front() {
                self.run(call);
            }
        }
        self.nodes[index] = self.born();
        self.left.retain(|(node, _)| *node != index);
        for client in self.clients.iter_mut().filter(|client| client.node == index) {
            client.link = None;
        }
        self.tell_who_is_alive();
    }

    /// A client leaves its connection, which the node does not know yet, and opens one to any node.
    fn roam(&mut self) {
        let (index, node) = (self.below(CLIENTS), self.below(NODES));
        self.connect(index, node);
    }

    fn connect(&mut self, index: usize, node: usize) {
        self.links += 1;
        self.busy = true;
        let link = LinkId(self.links);
        let client = &mut self.clients[index];
        if let Some(old) = client.link.replace(link) {
            self.left.push((client.node, old));
        }
        client.node = node;
        let peer = Peer {
            query: Query::default(),
            headers: Vec::new(),
            path: "/socket.io/".to_owned(),
            address: None,
            time: 0,
            transport: Transport::WebSocket,
        };
        let connects = client.connects();
        let node = &mut self.nodes[node];
        let now = self.now + node.ahead;
        node.wire.out.insert(link, VecDeque::new());
        node.core.open_websocket(link, peer, now, &mut node.wire);
        for connect in &connects {
            node.core.websocket_message(link, FrameRef::Text(connect), now, &mut node.wire);
        }
    }

    /// A node notices that a client has gone.
    fn notice(&mut self) {
        if self.left.is_empty() {
            return;
        }
        self.busy = true;
        let index = self.below(self.left.len());
        let (node, link) = self.left.swap_remove(index);
        let node = &mut self.nodes[node];
        node.wire.out.remove(&link);
        node.core.websocket_ended(link, Reason::TransportClose, None, self.now + node.ahead, &mut node.wire);
    }

    fn receive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(link) = client.link else { return };
        let node = &mut self.nodes[client.node];
        let frames = node.wire.out.get_mut(&link).map(std::mem::take).unwrap_or_default();
        let lengths = [self.logs[0].len(), self.logs[1].len()];
        for frame in frames {
            self.busy = true;
            if let Some(reply) = client.frame(&frame, lengths) {
                let now = self.now + node.ahead;
                node.core.websocket_message(link, FrameRef::Text(&reply), now, &mut node.wire);
            }
        }
        if node.wire.closed.contains(&link) || client.seats.iter().any(|seat| seat.ended) {
            client.link = None;
            self.left.push((client.node, link));
        }
    }

    /// Everything arrives; then every client has the same end of each log, without a gap.
    fn finish(&mut self) -> usize {
        for node in &mut self.nodes {
            node.held_until = Duration::ZERO;
        }
        for index in 0..CLIENTS {
            let node = self.below(NODES);
            self.connect(index, node);
        }
        let mut quiet = 0;
        for round in 0.. {
            assert!(round < DRAIN, "it does not come to rest");
            self.busy = false;
            self.round();
            quiet = if self.busy { 0 } else { quiet + 1 };
            // What is left are timers.
            self.now += Duration::from_millis(if self.busy { 1 } else { 50 });
            if quiet == QUIET {
                // A join whose commit has failed is not acked: its client asks again.
                let Some(index) = self.clients.iter().position(|client| !client.has_joined()) else { break };
                let node = self.below(NODES);
                self.connect(index, node);
                quiet = 0;
            }
        }
        self.judge();
        self.clients.iter().flat_map(|client| &client.seats).map(|seat| seat.resumed).sum()
    }

    fn round(&mut self) {
        for node in 0..NODES {
            self.collect(node);
            self.write(node, false);
            self.read(node);
            self.answer(node);
            self.answer(node);
            self.feed(node, 0);
            self.feed(node, 1);
        }
        self.notice();
        self.message(false);
        for client in 0..CLIENTS {
            self.receive(client);
            if self.clients[client].link.is_none() {
                // An attach of an abandoned connection came later and took the session.
                let node = self.below(NODES);
                self.connect(client, node);
            }
        }
    }

    fn judge(&self) {
        for node in &self.nodes {
            assert_eq!(node.core.resuming(), 0, "sessions are still being resumed");
        }
        let told = self.told.lock().expect("not poisoned");
        let mut times: HashMap<u64, usize> = HashMap::new();
        for number in self.logs.iter().flatten() {
            *times.entry(*number).or_default() += 1;
        }
        for number in 0..self.emitted {
            let times = times.get(&number).copied().unwrap_or_default();
            let fits = match told.get(&number) {
                Some(logged) => times == usize::from(*logged),
                None => times <= 1 && self.crashes > 0,
            };
            assert!(fits, "emit {number} is {times} times in a log, its sender got {:?}", told.get(&number));
        }
        for (index, client) in self.clients.iter().enumerate() {
            for (seat, log) in client.seats.iter().zip(&self.logs) {
                seat.judge(log, client.even).unwrap_or_else(|why| panic!("client {index}: {why}"));
            }
        }
    }
}

fn number_of(packet: &str) -> u64 {
    let start = packet.find('[').expect("an array");
    let event: (String, u64) = serde_json::from_str(&packet[start..]).expect("an event");
    event.1
}

impl Node {
    fn new(life: u64, ahead: Duration, wall: u64) -> Self {
        let mut random = life.wrapping_mul(0xD129_0B26_4F1C_7A35) | 1;
        let setup = CoreSetup {
            epoch: 0,
            logs: Vec::new(),
            wall,
            random: Box::new(move |bytes| {
                for byte in bytes {
                    random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                    *byte = random.to_be_bytes()[0];
                }
            }),
            wake: Box::new(|| {}),
        };
        let mut config = SocketIoConfig::default();
        config.storage.stall = Duration::from_mins(1);
        config.storage.on_connect = ConnectPolicy::WaitUpTo(Duration::from_mins(1));
        let mut core = Core::new(config, setup).expect("a configuration");
        let name = NodeId(format!("n{life}").into());
        core.share(name.clone());
        for space in SPACES {
            core.namespace(space).on("join", |socket, args, ack| {
                let room: String = args.get(0).expect("a room");
                socket.join(&room).expect("fits");
                ack.expect("asked for").send(socket.io(), ()).expect("is connected");
            });
        }
        Self {
            name,
            core,
            wire: Wire::default(),
            ahead,
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            written: VecDeque::new(),
            answers: VecDeque::new(),
            follows: [false; 2],
            read: [None; 2],
            held_until: Duration::ZERO,
        }
    }
}

fn run(seed: u64) -> (usize, usize) {
    let mut world = World::new(seed);
    for _ in 0..STEPS {
        world.step();
    }
    let resumed = world.finish();
    let got = world.clients.iter().flat_map(|client| &client.seats).map(Seat::count).sum();
    (resumed, got)
}

#[test]
fn s16_clients_that_roam_between_three_nodes_see_one_log_without_a_gap() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let first = number("CLUSTER_SEED").unwrap_or(1);
    let worlds = number("CLUSTER_WORLDS").unwrap_or(if number("CLUSTER_SEED").is_some() { 1 } else { 400 });
    let (mut resumed, mut got) = (0, 0);
    for seed in first..first + worlds {
        let found = catch_unwind(AssertUnwindSafe(|| run(seed))).unwrap_or_else(|panic| {
            eprintln!("world {seed} failed: CLUSTER_SEED={seed}");
            resume_unwind(panic)
        });
        resumed += found.0;
        got += found.1;
    }
    eprintln!("{worlds} worlds: {resumed} resumes, {got} events received");
    assert!(resumed as u64 > 4 * worlds && got as u64 > 30 * worlds, "{resumed} resumes, {got} events");
}
