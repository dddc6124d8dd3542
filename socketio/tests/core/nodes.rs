//! Messages between nodes of a shared store, without the store: what one core sends, the others are given.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::SocketIoConfig;
use adjourn_socketio::core::{AckOptions, Core, CoreSetup, FeedCommand, StoreCall, StoreReply};
use adjourn_socketio::links::{Frame, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::offset::Position;
use adjourn_socketio::packet::ArgsBuf;
use adjourn_socketio::store::{
    Batch, Committed, Entry, EntryKind, FeedItem, NewEntry, NodeId, SessionChange,
};

use super::basics::handlers;
use super::world::{Client, World, quick};

struct NoLinks;

impl Links for NoLinks {
    fn send(&mut self, _: LinkId, _: &[Frame]) -> Result<(), SendRefused> {
        Err(SendRefused::Gone)
    }
    fn send_to(&mut self, _: &[LinkId], _: &[Frame], _: &mut Vec<(LinkId, SendRefused)>) {}
    fn unsent(&mut self, _: LinkId) -> usize {
        0
    }
    fn close(&mut self, _: LinkId, _: LinkClose) {}
    fn respond(&mut self, _: RequestId, _: Response) {}
    fn abort(&mut self, _: RequestId) {}
}

struct Nodes(Vec<(NodeId, Core)>);

impl Nodes {
    fn new(count: usize) -> Self {
        let names: Vec<NodeId> = (0..count).map(|i| NodeId(format!("n{i}").into())).collect();
        let node = |name: &NodeId| {
            let setup = CoreSetup {
                epoch: 0,
                logs: Vec::new(),
                wall: 0,
                random: Box::new(|bytes| bytes.fill(7)),
                wake: Box::new(|| {}),
            };
            let mut core = Core::new(SocketIoConfig::default(), setup).expect("a configuration");
            core.share(name.clone());
            core.feed_input(FeedItem::Nodes(names.clone()), Duration::ZERO, &mut NoLinks);
            (name.clone(), core)
        };
        Self(names.iter().map(node).collect())
    }

    /// Delivers until nobody says anything any more; `dead` gets nothing.
    fn deliver(&mut self, now: Duration, dead: Option<usize>) {
        loop {
            let mut sent = Vec::new();
            for (from, core) in &mut self.0 {
                while let Some(command) = core.poll_feed() {
                    if let FeedCommand::Send(to, message) = command {
                        sent.push((from.clone(), to, message));
                    }
                }
            }
            if sent.is_empty() {
                return;
            }
            for (from, to, message) in sent {
                for (index, (name, core)) in self.0.iter_mut().enumerate() {
                    let is_for = to.as_ref().is_none_or(|to| to == name) && *name != from;
                    if is_for && dead != Some(index) {
                        let item = FeedItem::Message(from.clone(), message.clone());
                        core.feed_input(item, now, &mut NoLinks);
                    }
                }
            }
        }
    }

    fn call(&mut self, node: usize, call: impl FnOnce(&mut adjourn_socketio::Io<'_>)) {
        self.0[node].1.call(call, Duration::ZERO, &mut NoLinks);
    }
}

type Calls = Arc<Mutex<Vec<String>>>;

/// How many answered, and who did not.
type Outcome = Arc<Mutex<Option<(usize, Vec<String>)>>>;

fn with_handlers(nodes: &mut Nodes) -> Calls {
    let calls = Calls::default();
    for (name, core) in &mut nodes.0 {
        let (calls, name) = (Arc::clone(&calls), name.0.to_string());
        core.on_server_event("hello", move |_, args| {
            let said: String = args.get(0).expect("a text");
            calls.lock().expect("not poisoned").push(format!("{name} {said}"));
            ArgsBuf::new(&(name.clone(),)).ok()
        });
    }
    calls
}

#[test]
fn s16_server_side_emit_reaches_the_other_nodes_once() {
    let mut nodes = Nodes::new(3);
    let calls = with_handlers(&mut nodes);
    nodes.call(1, |io| io.server_side_emit("hello", ("x",)).expect("emits"));
    nodes.call(1, |io| io.server_side_emit("unknown", ("x",)).expect("emits"));
    nodes.deliver(Duration::ZERO, None);
    let mut calls = calls.lock().expect("not poisoned").clone();
    calls.sort();
    assert_eq!(calls, ["n0 x", "n2 x"]);
}

#[test]
fn s16_a_request_ends_with_an_answer_or_the_death_of_each_or_at_its_timeout() {
    for (fate, missing) in [("alive", vec![]), ("dies", vec!["n2"]), ("is silent", vec!["n2"])] {
        let mut nodes = Nodes::new(3);
        with_handlers(&mut nodes);
        let done = Outcome::default();
        let of_call = Arc::clone(&done);
        nodes.call(0, move |io| {
            let then = move |_: &mut adjourn_socketio::Io<'_>,
                             found: adjourn_socketio::core::ServerAnswers| {
                let missing = found.missing_nodes.iter().map(|node| node.0.to_string()).collect();
                *of_call.lock().expect("not poisoned") = Some((found.answers.len(), missing));
            };
            io.server_side_emit_with_acks("hello", ("x",), Duration::from_secs(5), then).expect("emits");
        });
        let dead = (fate != "alive").then_some(2);
        nodes.deliver(Duration::ZERO, dead);
        assert_eq!(done.lock().expect("not poisoned").is_some(), fate == "alive", "{fate}");
        let left = vec![NodeId("n0".into()), NodeId("n1".into())];
        match fate {
            "dies" => nodes.0[0].1.feed_input(FeedItem::Nodes(left), Duration::from_secs(1), &mut NoLinks),
            "is silent" => nodes.0[0].1.handle_timeout(Duration::from_secs(5), &mut NoLinks),
            _ => {}
        }
        let done = done.lock().expect("not poisoned").take().expect("done");
        let missing: Vec<String> = missing.into_iter().map(String::from).collect();
        assert_eq!(done, (2 - missing.len(), missing), "{fate}");
    }
}

#[test]
fn s16_the_death_of_a_node_ends_a_request_that_others_answer_later() {
    let mut nodes = Nodes::new(3);
    with_handlers(&mut nodes);
    let done = Outcome::default();
    let of_call = Arc::clone(&done);
    nodes.call(0, move |io| {
        io.of("/").fetch(Duration::from_mins(1), move |_, found| {
            let missing = found.missing_nodes.iter().map(|node| node.0.to_string()).collect();
            *of_call.lock().expect("not poisoned") = Some((found.sockets.len(), missing));
        });
    });
    let left = vec![NodeId("n0".into()), NodeId("n1".into())];
    nodes.0[0].1.feed_input(FeedItem::Nodes(left), Duration::from_secs(5), &mut NoLinks);
    assert!(done.lock().expect("not poisoned").is_none(), "n1 has not answered");
    nodes.deliver(Duration::from_secs(6), Some(2));
    assert_eq!(done.lock().expect("not poisoned").take(), Some((0, vec!["n2".to_owned()])));
}

const TAIL: Position = Position { time: 100, number: 1 };

/// Its log is read from `TAIL` on.
fn begin(nodes: &mut Nodes, node: usize, namespace: &str) {
    nodes.0[node].1.namespace(namespace);
    let began = FeedItem::Began { namespace: namespace.into(), epoch: 1, floor: TAIL, tail: TAIL };
    nodes.0[node].1.feed_input(began, Duration::ZERO, &mut NoLinks);
}

/// Answers the commits of a node: what they append is at these milliseconds.
fn commit(nodes: &mut Nodes, node: usize, time: u64) -> Vec<Entry> {
    let core = &mut nodes.0[node].1;
    let mut entries = Vec::new();
    while let Some(command) = core.poll_store() {
        let StoreCall::Commit(batch) = command.call else { continue };
        let place = |number| Position { time, number };
        let committed =
            Committed { positions: (1..).take(batch.entries.len()).map(place).collect(), stale: Vec::new() };
        entries.extend(batch.entries.into_iter().zip(&committed.positions).map(|(new, position)| Entry {
            position: *position,
            at: 0,
            new,
        }));
        core.store_reply(command.ticket, StoreReply::Commit(Ok(committed)), Duration::ZERO, &mut NoLinks);
    }
    entries
}

fn ask_all(nodes: &mut Nodes, namespace: &'static str) -> Outcome {
    let done = Outcome::default();
    let of_call = Arc::clone(&done);
    nodes.call(0, move |io| {
        let then = move |_: &mut adjourn_socketio::Io<'_>, all: adjourn_socketio::core::Answers| {
            let missing = all.missing_nodes.iter().map(|node| node.0.to_string()).collect();
            *of_call.lock().expect("not poisoned") = Some((all.answers.len(), missing));
        };
        let options = AckOptions::redeliver(Duration::from_secs(5));
        io.of(namespace).emit_with_acks("q", (), options, then).expect("emits");
    });
    done
}

#[test]
fn s16_a_logged_ask_is_not_over_before_the_node_that_asked_has_read_it_back() {
    let mut nodes = Nodes::new(2);
    for node in 0..2 {
        begin(&mut nodes, node, "/");
    }
    let done = ask_all(&mut nodes, "/");
    let entries = commit(&mut nodes, 0, 200);
    let read = FeedItem::Entries("/".into(), entries);
    nodes.0[1].1.feed_input(read.clone(), Duration::ZERO, &mut NoLinks);
    nodes.deliver(Duration::ZERO, None);
    assert!(done.lock().expect("not poisoned").is_none(), "its own sockets are not asked yet");
    nodes.0[0].1.feed_input(read, Duration::ZERO, &mut NoLinks);
    assert_eq!(done.lock().expect("not poisoned").take(), Some((0, Vec::new())));
}

#[test]
fn s16_a_logged_ask_does_not_wait_for_nodes_without_the_namespace() {
    let mut nodes = Nodes::new(2);
    begin(&mut nodes, 0, "/only");
    let done = ask_all(&mut nodes, "/only");
    let entries = commit(&mut nodes, 0, 200);
    nodes.0[0].1.feed_input(FeedItem::Entries("/only".into(), entries), Duration::ZERO, &mut NoLinks);
    nodes.deliver(Duration::ZERO, None);
    assert_eq!(done.lock().expect("not poisoned").take(), Some((0, Vec::new())));
}

#[test]
fn s17_entries_that_the_store_has_lost_hold_up_none_that_follow() {
    let mut nodes = Nodes::new(1);
    begin(&mut nodes, 0, "/");
    nodes.call(0, |io| io.of("/").emit("lost", ()).expect("emits"));
    assert_eq!(commit(&mut nodes, 0, 200).len(), 1);
    // The clock of the replica that has taken over is behind that of the primary.
    let core = &mut nodes.0[0].1;
    core.feed_input(FeedItem::Fell { namespace: "/".into(), lost: true }, Duration::ZERO, &mut NoLinks);
    let tail = Position { time: 150, number: 1 };
    let began = FeedItem::Began { namespace: "/".into(), epoch: 2, floor: TAIL, tail };
    core.feed_input(began, Duration::ZERO, &mut NoLinks);
    nodes.call(0, |io| io.of("/").emit("next", ()).expect("emits"));
    assert_eq!(commit(&mut nodes, 0, 160).len(), 1);
}

#[test]
fn s16_a_log_that_begins_twice_skips_nothing_in_silence() {
    let mut nodes = Nodes::new(1);
    begin(&mut nodes, 0, "/");
    let tail = Position { time: 150, number: 1 };
    let began = FeedItem::Began { namespace: "/".into(), epoch: 1, floor: TAIL, tail };
    nodes.0[0].1.feed_input(began, Duration::ZERO, &mut NoLinks);
    assert_eq!(nodes.0[0].1.stats().fell_behind, 1);
}

/// One node of several; nobody else writes its log.
fn shared_world() -> World {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").window = Duration::from_secs(8);
    let mut world = World::new(config, |core, log| {
        core.share(NodeId("n".into()));
        handlers(core.namespace("/"), log);
    });
    let (floor, tail) = (Position::START, Position::START);
    let began = FeedItem::Began { namespace: "/".into(), epoch: 1, floor, tail };
    world.input(|core, now, wire| core.feed_input(began, now, wire));
    world
}

#[test]
fn a_session_on_a_shared_store_is_saved_once_in_a_window_though_nothing_happens() {
    let mut world = shared_world();
    let _client = Client::new(&mut world);
    world.advance(Duration::from_secs(1));
    let saved = world.core.stats().batches;
    world.advance(Duration::from_secs(9));
    assert!(world.core.stats().batches > saved, "others would take it for left");
}

#[test]
fn a_session_that_a_shared_store_has_lost_is_no_reason_to_end_its_socket_for_good() {
    let mut world = shared_world();
    let mut client = Client::new(&mut world);
    client.roam(&mut world);
    let (sid, pid) = (client.sid.clone(), client.pid.clone().expect("a session"));
    let gone = SessionChange::Remove { namespace: "/".into(), pid: pid.as_str().into(), generation: 2 };
    let batch = Batch { sessions: vec![gone], ..Batch::default() };
    let StoreReply::Commit(Ok(done)) = world.ask_store(StoreCall::Commit(batch)) else { panic!("commits") };
    assert!(done.stale.is_empty());
    client.emit(&mut world, r#"["join","r"]"#);
    world.advance(Duration::from_secs(1));
    let link = client.link.expect("is open");
    let frames = world.received(link);
    assert!(
        !frames.contains(&"41".to_owned()),
        "an official client does not come back after that: {frames:?}"
    );
    assert_eq!(world.closed(link), None);
    client.roam(&mut world);
    assert_ne!(client.sid, sid, "a fresh session instead");
}

/// An entry of another node, right behind `TAIL`.
fn entry(number: u64, kind: EntryKind, room: &str, packet: &str) -> Entry {
    let new = NewEntry {
        namespace: "/".into(),
        kind,
        rooms: [room.into()].into(),
        except: Arc::new([]),
        packet: packet.into(),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    };
    Entry { position: Position { number, ..TAIL }, at: 0, new }
}

#[test]
fn s16_what_is_held_for_an_append_without_an_answer_is_bounded() {
    let mut nodes = Nodes::new(1);
    begin(&mut nodes, 0, "/");
    while nodes.0[0].1.poll_feed().is_some() {}
    nodes.call(0, |io| io.of("/").emit("x", ()).expect("emits"));
    let large = "x".repeat(1 << 20);
    for number in 2..80 {
        let read = FeedItem::Entries("/".into(), vec![entry(number, EntryKind::Event, "r", &large)]);
        nodes.0[0].1.feed_input(read, Duration::ZERO, &mut NoLinks);
    }
    assert_eq!(nodes.0[0].1.stats().fell_behind, 1);
    let follows = |command: &FeedCommand| matches!(command, FeedCommand::Follow(name) if &**name == "/");
    assert!(std::iter::from_fn(|| nodes.0[0].1.poll_feed()).any(|command| follows(&command)), "read anew");
}

#[test]
fn s13_a_session_that_another_node_takes_while_it_is_resumed_leaves_nothing_behind() {
    let mut world = shared_world();
    let mut client = Client::new(&mut world);
    let fence = entry(1, EntryKind::Fence, &client.sid, "9").new;
    let batch = Batch { entries: vec![fence.clone()], ..Batch::default() };
    let StoreReply::Commit(Ok(done)) = world.ask_store(StoreCall::Commit(batch)) else { panic!("commits") };
    client.cut(&mut world);
    let link = world.open();
    world.message(link, &format!(r#"40{{"pid":"{}"}}"#, client.pid.as_deref().expect("a session")));
    assert_eq!(world.core.resuming(), 1);
    let entries = vec![Entry { position: done.positions[0], at: 0, new: fence }];
    let read = FeedItem::Entries("/".into(), entries);
    world.input(|core, now, wire| core.feed_input(read, now, wire));
    assert!(world.closed(link).is_some(), "it comes back, and the last to come has the session");
    assert_eq!(world.core.resuming(), 0);
}

#[test]
fn s16_what_a_node_answers_to_a_fetch_comes_in_parts() {
    let mut world = shared_world();
    let auth = "x".repeat(5000);
    for _ in 0..100 {
        let link = world.open();
        world.message(link, &format!(r#"40{{"x":"{auth}"}}"#));
    }
    while world.core.poll_feed().is_some() {}
    let mut nodes = Nodes::new(1);
    let asker = nodes.0[0].0.clone();
    let both = FeedItem::Nodes(vec![asker.clone(), NodeId("n".into())]);
    nodes.0[0].1.feed_input(both, Duration::ZERO, &mut NoLinks);
    let found = Arc::new(Mutex::new(None));
    let of_call = Arc::clone(&found);
    nodes.call(0, |io| {
        io.of("/").fetch(Duration::from_secs(5), move |_, fetched| {
            let ids: HashSet<Arc<str>> =
                fetched.sockets.iter().map(|socket| Arc::clone(&socket.id)).collect();
            *of_call.lock().expect("not poisoned") = Some((ids.len(), fetched.missing_nodes.len()));
        });
    });
    let mut parts = 0;
    while let Some(FeedCommand::Send(_, question)) = nodes.0[0].1.poll_feed() {
        let question = FeedItem::Message(asker.clone(), question);
        world.input(|core, now, wire| core.feed_input(question, now, wire));
        let Some(FeedCommand::Send(_, answer)) = world.core.poll_feed() else { panic!("an answer") };
        assert!(answer.len() < 300_000, "{} bytes in one message", answer.len());
        parts += 1;
        let answer = FeedItem::Message(NodeId("n".into()), answer);
        nodes.0[0].1.feed_input(answer, Duration::ZERO, &mut NoLinks);
    }
    assert_eq!((parts, found.lock().expect("not poisoned").take()), (2, Some((100, 0))));
}
