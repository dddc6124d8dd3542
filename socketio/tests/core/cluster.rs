//! Three nodes on one shared log in virtual time: answers of the store and what the feed reads come late and in any order
//! among nodes; clients roam, also before the old node has noticed. `CLUSTER_WORLDS` sets how many worlds, a failure names its
//! seed.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use adjourn_socketio::SocketIoConfig;
use adjourn_socketio::core::{Core, CoreSetup, FeedCommand, Peer, StoreCall, StoreReply, Ticket, Transport};
use adjourn_socketio::links::{Frame, FrameRef, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::offset::Position;
use adjourn_socketio::packet::Query;
use adjourn_socketio::reason::Reason;
use adjourn_socketio::store::{
    Batch, EntryKind, FeedItem, MemoryStore, NewEntry, NodeId, Parts, Store as _, StoreSettings,
};

const NODES: usize = 3;
const CLIENTS: usize = 4;
const STEPS: usize = 600;
const DRAIN: usize = 3000;
const END: Position = Position::counter(u64::MAX);

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

struct Node {
    core: Core,
    wire: Wire,
    writes: VecDeque<(Ticket, StoreCall)>,
    reads: VecDeque<(Ticket, StoreCall)>,
    answers: VecDeque<(Ticket, StoreReply)>,
    /// Up to where it has read the log; `None`: it does not.
    read: Option<Position>,
    follows: bool,
}

#[derive(Default)]
struct Client {
    node: usize,
    link: Option<LinkId>,
    sid: Option<String>,
    pid: Option<String>,
    offset: Option<String>,
    got: Vec<u64>,
    resumed: usize,
}

struct World {
    random: u64,
    now: Duration,
    store: Parts,
    nodes: Vec<Node>,
    clients: Vec<Client>,
    /// Links that their clients have left, and that the node does not know of yet.
    left: Vec<(usize, LinkId)>,
    links: u64,
    emitted: u64,
}

impl World {
    fn new(seed: u64) -> Self {
        let store = Box::new(MemoryStore::new());
        let store = store.open(NodeId("store".into()), &StoreSettings::default(), 0).expect("opens");
        let nodes = (0..NODES).map(|i| Node::new(i as u64 + seed * 10)).collect();
        let clients = (0..CLIENTS).map(|_| Client::default()).collect();
        let random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
        Self { random, now: Duration::ZERO, store, nodes, clients, left: Vec::new(), links: 0, emitted: 0 }
    }

    fn below(&mut self, limit: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from((self.random >> 11) % limit as u64).expect("small")
    }

    fn tail(&mut self) -> Position {
        let page = self.store.reader.page("/", Position::START..END, usize::MAX).expect("a page");
        page.entries.last().map_or(Position::START, |entry| entry.position)
    }

    fn step(&mut self) {
        self.now += Duration::from_millis(1);
        let node = self.below(NODES);
        self.collect(node);
        match self.below(12) {
            0..=2 => self.write(node),
            3 => self.read(node),
            4..=6 => self.answer(node),
            7 | 8 => self.feed(node),
            9 => self.emit(node),
            10 => self.roam(),
            _ => self.notice(),
        }
        for client in 0..CLIENTS {
            self.receive(client);
        }
    }

    fn collect(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        node.core.handle_timeout(self.now, &mut node.wire);
        while let Some(command) = node.core.poll_store() {
            let list = if command.call.is_read() { &mut node.reads } else { &mut node.writes };
            list.push_back((command.ticket, command.call));
        }
        while let Some(command) = node.core.poll_feed() {
            node.follows |= matches!(command, FeedCommand::Follow(_));
        }
    }

    fn write(&mut self, node: usize) {
        let now = u64::try_from(self.now.as_millis()).expect("small");
        let Some((ticket, call)) = self.nodes[node].writes.pop_front() else { return };
        let Ok(mut reply) = call.write(&mut *self.store.writer, now) else { panic!("a write") };
        if let StoreReply::Attach(Ok(attached)) = &mut reply {
            let fence = NewEntry {
                namespace: "/".into(),
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
        self.nodes[node].answers.push_back((ticket, reply));
    }

    fn read(&mut self, node: usize) {
        let now = u64::try_from(self.now.as_millis()).expect("small");
        let Some((ticket, call)) = self.nodes[node].reads.pop_front() else { return };
        let Ok(reply) = call.read(&mut *self.store.reader, now) else { panic!("a read") };
        self.nodes[node].answers.push_back((ticket, reply));
    }

    fn answer(&mut self, node: usize) {
        let now = self.now;
        let node = &mut self.nodes[node];
        if let Some((ticket, reply)) = node.answers.pop_front() {
            node.core.store_reply(ticket, reply, now, &mut node.wire);
        }
    }

    fn feed(&mut self, node: usize) {
        let bytes = 1 + self.below(200);
        let tail = self.tail();
        let now = self.now;
        let node = &mut self.nodes[node];
        let item = match node.read {
            _ if !node.follows => return,
            None => {
                node.read = Some(tail);
                FeedItem::Began { namespace: "/".into(), epoch: 1, floor: Position::START, tail }
            }
            Some(at) => {
                let page = self.store.reader.page("/", at..END, bytes).expect("a page");
                let Some(last) = page.entries.last() else { return };
                node.read = Some(last.position);
                FeedItem::Entries("/".into(), page.entries)
            }
        };
        node.core.feed_input(item, now, &mut node.wire);
    }

    fn emit(&mut self, node: usize) {
        let number = self.emitted;
        self.emitted += 1;
        let node = &mut self.nodes[node];
        node.core.call(|io| io.of("/").emit("e", (number,)).expect("emits"), self.now, &mut node.wire);
    }

    /// A client leaves its connection, which the node does not know yet, and opens one to any node.
    fn roam(&mut self) {
        let (index, node) = (self.below(CLIENTS), self.below(NODES));
        self.connect(index, node);
    }

    fn connect(&mut self, index: usize, node: usize) {
        self.links += 1;
        let link = LinkId(self.links);
        let client = &mut self.clients[index];
        if let Some(old) = client.link.replace(link) {
            self.left.push((client.node, old));
        }
        client.node = node;
        let auth = match (&client.pid, &client.offset) {
            (Some(pid), Some(offset)) => format!(r#"{{"pid":"{pid}","offset":"{offset}"}}"#),
            (Some(pid), None) => format!(r#"{{"pid":"{pid}"}}"#),
            _ => String::new(),
        };
        let peer = Peer {
            query: Query::default(),
            headers: Vec::new(),
            path: "/socket.io/".to_owned(),
            address: None,
            time: 0,
            transport: Transport::WebSocket,
        };
        let node = &mut self.nodes[node];
        node.wire.out.insert(link, VecDeque::new());
        node.core.open_websocket(link, peer, self.now, &mut node.wire);
        let connect = format!("40{auth}");
        node.core.websocket_message(link, FrameRef::Text(&connect), self.now, &mut node.wire);
    }

    /// A node notices that a client has gone.
    fn notice(&mut self) {
        if self.left.is_empty() {
            return;
        }
        let index = self.below(self.left.len());
        let (node, link) = self.left.swap_remove(index);
        let node = &mut self.nodes[node];
        node.wire.out.remove(&link);
        node.core.websocket_ended(link, Reason::TransportClose, None, self.now, &mut node.wire);
    }

    fn receive(&mut self, index: usize) {
        let client = &mut self.clients[index];
        let Some(link) = client.link else { return };
        let frames = self.nodes[client.node].wire.out.get_mut(&link).map(std::mem::take).unwrap_or_default();
        for frame in frames {
            if let Some(answer) = frame.strip_prefix("40") {
                let answer: serde_json::Value = serde_json::from_str(answer).expect("JSON");
                let text = |name: &str| answer[name].as_str().map(str::to_owned);
                assert!(text("pid").is_some(), "a session that cannot be resumed");
                if client.pid.is_some() {
                    assert_eq!((&client.pid, &client.sid), (&text("pid"), &text("sid")), "not resumed");
                    client.resumed += 1;
                }
                (client.pid, client.sid) = (text("pid"), text("sid"));
            } else if let Some(event) = frame.strip_prefix("42") {
                let event: (String, u64, String) = serde_json::from_str(event).expect("an event");
                client.got.push(event.1);
                client.offset = Some(event.2);
            }
        }
        if self.nodes[client.node].wire.closed.contains(&link) {
            client.link = None;
        }
    }

    /// Everything arrives; then every client has the same end of one log, without a gap.
    fn finish(&mut self) -> usize {
        for index in 0..CLIENTS {
            let node = self.below(NODES);
            self.connect(index, node);
        }
        for _ in 0..DRAIN {
            let node = self.below(NODES);
            self.now += Duration::from_millis(1);
            self.collect(node);
            self.write(node);
            self.read(node);
            self.answer(node);
            self.feed(node);
            self.notice();
            for client in 0..CLIENTS {
                self.receive(client);
                if self.clients[client].link.is_none() {
                    // An attach of a connection that it had left came later and took the session.
                    self.connect(client, node);
                }
            }
        }
        let page = self.store.reader.page("/", Position::START..END, usize::MAX).expect("a page");
        let events = page.entries.iter().filter(|entry| entry.new.kind == EntryKind::Event);
        let log: Vec<u64> = events
            .map(|entry| {
                let event: (String, u64) = serde_json::from_str(&entry.new.packet[1..]).expect("an event");
                event.1
            })
            .collect();
        assert_eq!(log.len() as u64, self.emitted, "an emit is missing in the log, or twice");
        for client in &self.clients {
            assert!(log.ends_with(&client.got), "got {:?}\nof {log:?}", client.got);
        }
        self.clients.iter().map(|client| client.resumed).sum()
    }
}

impl Node {
    fn new(seed: u64) -> Self {
        let mut random = seed.wrapping_mul(0xD129_0B26_4F1C_7A35) | 1;
        let setup = CoreSetup {
            epoch: 0,
            logs: Vec::new(),
            wall: 0,
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
        config.storage.on_connect = adjourn_socketio::config::ConnectPolicy::WaitUpTo(Duration::from_mins(1));
        let mut core = Core::new(config, setup).expect("a configuration");
        core.share(NodeId(format!("n{seed}").into()));
        core.namespace("/");
        Self {
            core,
            wire: Wire::default(),
            writes: VecDeque::new(),
            reads: VecDeque::new(),
            answers: VecDeque::new(),
            read: None,
            follows: false,
        }
    }
}

#[test]
fn s16_clients_that_roam_between_three_nodes_see_one_log_without_a_gap() {
    let worlds = std::env::var("CLUSTER_WORLDS").ok().and_then(|text| text.parse().ok()).unwrap_or(60_u64);
    let mut resumed = 0;
    for seed in 1..=worlds {
        println!("seed {seed}");
        let mut world = World::new(seed);
        for _ in 0..STEPS {
            world.step();
        }
        resumed += world.finish();
    }
    assert!(resumed > 500, "{resumed} resumes");
}
