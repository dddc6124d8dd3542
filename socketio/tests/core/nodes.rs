//! Messages between nodes of a shared store, without the store: what one core sends, the others are given.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::SocketIoConfig;
use adjourn_socketio::core::{Core, CoreSetup, FeedCommand};
use adjourn_socketio::links::{Frame, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::packet::ArgsBuf;
use adjourn_socketio::store::{FeedItem, NodeId};

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
