//! The client's role in virtual time and without a socket: which address is tried when, what is on the wire whatever the
//! kernel takes, who sends FIN.

use std::{
    collections::VecDeque,
    io::{self, ErrorKind},
    net::SocketAddr,
    time::Duration,
};

use adjourn::{
    Cause, Clients, CloseFrame, Closed, Config, ConnectRequest, ConnectionId, Event, Handler, HandshakeCause,
    Message, ProtocolError, ShutdownPlan, Time, Upgrade, UpgradeRequest,
    conn::{Cursor, Target},
    hub::{Action, Hub},
    wire::{
        header::{self, Opcode},
        mask,
    },
};
use proptest::prelude::*;
use tungstenite::handshake::derive_accept_key;

const SECOND: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Log {
    opened: usize,
    closed: Vec<Closed>,
    failed: Vec<(Option<ConnectionId>, SocketAddr, HandshakeCause)>,
    pings: usize,
}

impl Handler for Log {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { .. } => self.opened += 1,
            Event::Close { closed, .. } => self.closed.push(*closed),
            Event::HandshakeFailed { id, peer, cause } => self.failed.push((id, peer, cause)),
            Event::Ping { .. } => self.pings += 1,
            _ => {}
        }
    }
}

/// One client's connection, and the network played by hand.
struct World {
    hub: Hub<()>,
    log: Log,
    now: Duration,
    id: ConnectionId,
    /// What the kernel takes, write by write; everything if there is nothing here.
    takes: VecDeque<usize>,
    sent: Vec<u8>,
    done: Vec<Action>,
}

impl World {
    fn new(config: Config, url: &str) -> Self {
        let mut hub = Hub::new(config, 0, 42);
        let id = hub.connect(ConnectRequest::new(url).expect("a URL"), ()).expect("room");
        let (log, sent, done) = (Log::default(), Vec::new(), Vec::new());
        Self { hub, log, now: Duration::ZERO, id, takes: VecDeque::new(), sent, done }
    }

    /// The same, established.
    fn open(config: Config) -> Self {
        let mut world = Self::new(config, "ws://127.0.0.1:9001/");
        world.settle();
        world.hub.handle_connected(world.id.slot());
        world.settle();
        let response = world.response();
        world.sent.clear();
        world.receive(response.as_bytes());
        assert_eq!(world.log.opened, 1);
        world
    }

    fn response(&self) -> String {
        let request = String::from_utf8(self.sent.clone()).expect("ASCII");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        format!(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
    }

    fn wait(&mut self, time: Duration) {
        self.now += time;
        self.turn();
    }

    fn turn(&mut self) {
        self.hub.begin_turn(Time::from_start(self.now));
        self.hub.handle_timeout();
        self.settle();
    }

    fn deliver(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            self.log.on_event(&mut self.hub.clients(), event);
        }
    }

    fn settle(&mut self) {
        loop {
            self.deliver();
            let Some(action) = self.hub.poll_action() else { return };
            self.done.push(action);
            match action {
                Action::Write(slot) => {
                    let (takes, sent) = (&mut self.takes, &mut self.sent);
                    let written = self.hub.transmit(slot, &mut |slices| {
                        let offered: Vec<u8> =
                            slices.iter().flat_map(|slice| slice.iter().copied()).collect();
                        let n = takes.pop_front().unwrap_or(usize::MAX).min(offered.len());
                        sent.extend_from_slice(&offered[..n]);
                        if n == 0 { Err(io::Error::from(ErrorKind::WouldBlock)) } else { Ok(n) }
                    });
                    written.expect("the writer never fails");
                }
                Action::Abort(slot, _) => self.hub.handle_aborted(slot, None),
                Action::Connect(_) | Action::Read(_) | Action::Fin(_) | Action::Release(..) => {}
            }
        }
    }

    /// The kernel says that it takes more.
    fn writable(&mut self) {
        self.hub.handle_writable(self.id.slot());
        self.settle();
    }

    fn receive(&mut self, bytes: &[u8]) {
        let (mut bytes, mut scratch) = (bytes.to_vec(), Vec::new());
        let slot = self.id.slot();
        self.hub.handle_readable(slot);
        let mut cursor = Cursor::new(&mut bytes, &mut scratch);
        while let Some(event) = self.hub.next(slot, &mut cursor, &mut self.log) {
            self.log.on_event(&mut self.hub.clients(), event);
            while let Some(event) = self.hub.poll_event() {
                self.log.on_event(&mut self.hub.clients(), event);
            }
        }
        self.settle();
    }

    fn target(&self) -> Option<String> {
        Some(match self.hub.target(self.id.slot())?.1 {
            Target::Name(host, port) => format!("{host} {port}"),
            Target::Address(address) => address.to_string(),
        })
    }

    fn did(&self, what: impl Fn(&Action) -> bool) -> bool {
        self.done.iter().any(what)
    }

    /// What is on the wire as frames, unmasked; the last one may be cut.
    fn frames(&self) -> (Vec<(Opcode, Vec<u8>)>, usize) {
        let (mut frames, mut rest) = (Vec::new(), self.sent.as_slice());
        while let Ok(Some(frame)) = header::parse(rest) {
            let key = frame.mask.expect("§5.1: masked");
            let end = frame.header_length + usize::try_from(frame.length).expect("it fits");
            let Some(payload) = rest.get(frame.header_length..end) else { break };
            let mut payload = payload.to_vec();
            mask::apply(&mut payload, key, 0);
            frames.push((frame.opcode, payload));
            rest = &rest[end..];
        }
        (frames, rest.len())
    }
}

fn addresses(count: u16) -> Vec<SocketAddr> {
    (1..=count).map(|port| SocketAddr::from(([10, 0, 0, 1], port))).collect()
}

#[test]
fn addresses_are_tried_in_order_and_share_the_time() {
    let mut config = Config::default();
    config.connect_timeout = 9 * SECOND;
    let mut world = World::new(config, "ws://server.example/");
    world.settle();
    assert_eq!(world.target().as_deref(), Some("server.example 80"));
    world.hub.handle_resolved(world.id, addresses(3));
    world.settle();
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:1"));
    world.wait(Duration::from_millis(2999));
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:1"), "a third of the time is its own");
    world.wait(Duration::from_millis(2));
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:2"));
    world.hub.handle_connect_failed(world.id.slot(), ErrorKind::ConnectionRefused);
    world.settle();
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:3"), "at once, and with all the time that is left");
    let connects = world.done.iter().filter(|action| matches!(action, Action::Connect(_))).count();
    assert_eq!(connects, 4, "one name, three addresses");
    world.wait(Duration::from_millis(5998));
    assert!(world.log.failed.is_empty());
    world.wait(Duration::from_millis(2));
    let expected = (Some(world.id), addresses(3)[2], HandshakeCause::ConnectTimeout);
    assert_eq!(world.log.failed, [expected]);
    assert!(world.did(|action| matches!(action, Action::Release(_, false))));
    assert_eq!(world.hub.stats().total(), 0);
    world.hub.handle_resolved(world.id, addresses(1));
    world.hub.handle_connected(world.id.slot());
    world.settle();
    assert_eq!(world.log.failed.len(), 1, "what comes late does nothing");
}

#[test]
fn ways_not_to_find_a_server() {
    type Act = fn(&mut World);
    let io = |kind| HandshakeCause::Io(kind);
    let rows: &[(&str, Act, HandshakeCause)] = &[
        ("no address", |w| w.hub.handle_resolved(w.id, vec![]), HandshakeCause::NotResolved),
        ("a resolver that is too slow", |w| w.wait(11 * SECOND), HandshakeCause::ConnectTimeout),
        (
            "two that refuse, each in its way",
            |w| {
                w.hub.handle_resolved(w.id, addresses(2));
                w.hub.handle_connect_failed(w.id.slot(), ErrorKind::ConnectionRefused);
                w.hub.handle_connect_failed(w.id.slot(), ErrorKind::HostUnreachable);
            },
            io(ErrorKind::HostUnreachable),
        ),
        (
            "TCP, and no response",
            |w| {
                w.hub.handle_resolved(w.id, addresses(1));
                w.settle();
                w.wait(9 * SECOND);
                w.hub.handle_connected(w.id.slot());
                w.settle();
                w.wait(9 * SECOND);
                assert!(w.log.failed.is_empty(), "the handshake has a time of its own");
                w.wait(2 * SECOND);
            },
            HandshakeCause::Timeout,
        ),
        (
            "a reset behind the request",
            |w| {
                w.hub.handle_resolved(w.id, addresses(1));
                w.hub.handle_connected(w.id.slot());
                w.hub.handle_reset(w.id.slot(), ErrorKind::ConnectionReset);
            },
            HandshakeCause::PeerReset,
        ),
    ];
    for (name, act, expected) in rows {
        let mut world = World::new(Config::default(), "ws://server.example/");
        world.settle();
        act(&mut world);
        world.settle();
        assert_eq!(world.log.failed.iter().map(|failed| failed.2).collect::<Vec<_>>(), [*expected], "{name}");
        assert_eq!(world.hub.stats().total(), 0, "{name}");
    }
}

#[test]
fn the_same_seed_says_the_same_bytes() {
    let sent = || {
        let mut world = World::open(Config::default());
        world.hub.clients().send(world.id, "hello").expect("room");
        world.settle();
        world.sent
    };
    assert_eq!(sent(), sent());
}

#[test]
fn a_quiet_client_owns_no_buffer() {
    let mut world = World::open(Config::default());
    assert!(!world.hub.clients().get(world.id).expect("open").owns_buffers());
    world.hub.clients().send(world.id, "hello").expect("room");
    world.receive(b"\x81\x02hi");
    assert!(!world.hub.clients().get(world.id).expect("open").owns_buffers());
}

/// §7.1.1, in every way that a closing can go.
#[test]
fn the_client_never_sends_fin_first() {
    type Act = fn(&mut World);
    let rows: &[(&str, Act, Cause)] = &[
        (
            "its own close, answered",
            |w| {
                w.hub.clients().close(w.id, CloseFrame::NORMAL);
                w.settle();
                w.receive(&[0x88, 2, 3, 0xE8]);
            },
            Cause::LocalClose,
        ),
        ("the server's close", |w| w.receive(&[0x88, 2, 3, 0xE8]), Cause::PeerClose),
        ("a masked frame", |w| w.receive(&[0x81, 0x80, 1, 2, 3, 4]), Cause::Protocol(ProtocolError::Masked)),
    ];
    for fin_comes in [true, false] {
        for (name, act, cause) in rows {
            let mut world = World::open(Config::default());
            act(&mut world);
            assert_eq!(
                world.log.closed.iter().map(|closed| closed.cause).collect::<Vec<_>>(),
                [*cause],
                "{name}"
            );
            assert_eq!(world.hub.stats().lingering, 1, "{name}: reported, and waiting for the server");
            assert_eq!(world.frames().0.last().map(|frame| frame.0), Some(Opcode::Close), "{name}");
            if fin_comes {
                world.hub.handle_eof(world.id.slot());
                world.settle();
            } else {
                world.wait(Duration::from_millis(1999));
                assert_eq!(world.hub.stats().lingering, 1, "{name}: for linger_timeout");
                world.wait(Duration::from_millis(2));
            }
            assert!(world.did(|action| matches!(action, Action::Release(_, false))), "{name}");
            assert!(!world.did(|action| matches!(action, Action::Fin(_))), "{name}");
            assert_eq!((world.hub.stats().total(), world.log.closed.len()), (0, 1), "{name}");
        }
    }
}

#[test]
fn of_pongs_that_wait_only_the_newest_is_sent() {
    let mut world = World::open(Config::default());
    world.takes = [3, 0, 0, 0, 0].into();
    world.hub.clients().send(world.id, vec![b'x'; 1000]).expect("room");
    world.settle();
    for payload in [*b"1", *b"2", *b"3"] {
        world.receive(&[&[0x89, 1], payload.as_slice()].concat());
    }
    world.takes.clear();
    world.writable();
    assert_eq!(world.log.pings, 3);
    let (frames, rest) = world.frames();
    assert_eq!(rest, 0);
    assert_eq!(frames, [(Opcode::Binary, vec![b'x'; 1000]), (Opcode::Pong, b"3".to_vec())]);
}

#[test]
fn the_latch_of_a_shutdown() {
    let mut config = Config::default();
    // The sweep gets to the second connection one turn later.
    config.sweep_slice = 1;
    let mut world = World::new(config, "ws://127.0.0.1:1/");
    let second =
        world.hub.connect(ConnectRequest::new("ws://127.0.0.1:2/").expect("a URL"), ()).expect("room");
    world.settle();
    let first = std::mem::replace(&mut world.id, second);
    world.hub.handle_connected(second.slot());
    world.settle();
    let response = world.response();
    world.receive(&response.as_bytes()[..20]);
    world.hub.clients().shutdown(ShutdownPlan::default());
    world.turn();
    assert!(world.log.failed.is_empty(), "the latch is set, the sweep has not begun");
    let late = world.hub.connect(ConnectRequest::new("ws://127.0.0.1:3/").expect("a URL"), ());
    assert_eq!(late, Err(adjourn::ConnectError::ShuttingDown));
    world.receive(&response.as_bytes()[20..]);
    assert_eq!(
        world.log.failed.iter().map(|f| (f.0, f.2)).collect::<Vec<_>>(),
        [(Some(second), HandshakeCause::ShuttingDown)]
    );
    for _ in 0..5 {
        world.turn();
    }
    assert_eq!(world.log.failed.iter().map(|f| f.0).collect::<Vec<_>>(), [Some(second), Some(first)]);
    assert!(world.log.failed.iter().all(|failed| failed.2 == HandshakeCause::ShuttingDown));
    assert_eq!(world.log.opened, 0);
    assert!(world.hub.shutdown_report().is_some());
}

/// What an application does, or the network.
#[derive(Clone, Debug)]
enum Act {
    Text(String),
    Bytes(Vec<u8>),
    /// Bytes in a vector of their own, which are not copied from 16 KiB on.
    Owned(usize),
    Ping,
    PeerPing,
    Broadcast(usize),
    Writable,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        "[a-zä]{0,200}".prop_map(Act::Text),
        proptest::collection::vec(any::<u8>(), 0..300).prop_map(Act::Bytes),
        (0..70_000_usize).prop_map(Act::Owned),
        Just(Act::Ping),
        Just(Act::PeerPing),
        (0..9_000_usize).prop_map(Act::Broadcast),
        Just(Act::Writable),
    ]
}

fn any_takes() -> impl Strategy<Value = Vec<usize>> {
    proptest::collection::vec(prop_oneof![Just(0_usize), 1..20_usize, 1..3000_usize, Just(usize::MAX)], 0..40)
}

/// Carries the acts out; returns the data messages that were accepted.
fn play(world: &mut World, acts: &[Act]) -> Vec<Vec<u8>> {
    let mut accepted = Vec::new();
    for act in acts {
        let message = match act {
            Act::Text(text) => Message::from(text),
            Act::Bytes(bytes) => Message::from(bytes),
            Act::Owned(size) => Message::from(vec![b'o'; *size]),
            Act::Broadcast(size) => {
                let payload = vec![b'b'; *size];
                assert_eq!(world.hub.clients().broadcast(&payload, |_| true).sent, 1);
                accepted.push(payload);
                continue;
            }
            Act::Ping => {
                world.hub.clients().ping(world.id, b"ours").expect("room");
                continue;
            }
            Act::PeerPing => {
                world.receive(b"\x89\x06theirs");
                continue;
            }
            Act::Writable => {
                world.writable();
                continue;
            }
        };
        accepted.push(message.as_bytes().to_vec());
        world.hub.clients().send(world.id, message).expect("room");
    }
    world.settle();
    accepted
}

fn data(frames: &[(Opcode, Vec<u8>)]) -> Vec<Vec<u8>> {
    frames.iter().filter(|frame| !frame.0.is_control()).map(|frame| frame.1.clone()).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// However little the kernel takes at a time, the wire carries the same frames.
    #[test]
    fn any_cut_of_writes_gives_the_same_frames(acts in proptest::collection::vec(any_act(), 0..12), takes in any_takes()) {
        let mut world = World::open(Config::default());
        world.takes = takes.into();
        let accepted = play(&mut world, &acts);
        world.hub.clients().close(world.id, CloseFrame::NORMAL);
        world.settle();
        world.takes.clear();
        world.writable();
        let (frames, rest) = world.frames();
        prop_assert_eq!(rest, 0);
        prop_assert_eq!(data(&frames), accepted);
        prop_assert_eq!(frames.last(), Some(&(Opcode::Close, vec![3, 0xE8])));
    }

    /// Conservation: what `send` accepted is on the wire, or counted as lost; and the frame under way is completed before
    /// the Close, if there is time for one.
    #[test]
    fn what_is_dropped_is_counted(
        acts in proptest::collection::vec(any_act(), 0..12),
        takes in any_takes(),
        budget in any::<bool>(),
    ) {
        let mut world = World::open(Config::default());
        world.takes = takes.into();
        world.takes.extend([0; 50]);
        let accepted = play(&mut world, &acts);
        world.hub.clients().close(world.id, CloseFrame::NORMAL);
        world.settle();
        if budget {
            // The flush budget runs out, then the kernel takes all, and the server answers.
            world.wait(6 * SECOND);
            world.takes.clear();
            world.writable();
            world.receive(&[0x88, 2, 3, 0xE8]);
        } else {
            world.wait(6 * SECOND);
            world.wait(6 * SECOND);
        }
        let closed = world.log.closed.pop().expect("it has ended");
        let (frames, rest) = world.frames();
        let whole = data(&frames);
        let lost = closed.lost;
        prop_assert_eq!(whole.len() as u64 + lost.messages + lost.partial, accepted.len() as u64);
        prop_assert_eq!(&whole[..], &accepted[..whole.len()], "nothing in between is left out");
        if budget {
            prop_assert_eq!((rest, lost.partial), (0, 0));
            prop_assert_eq!(frames.last().map(|frame| frame.0), Some(Opcode::Close));
            let bytes: usize = accepted[whole.len()..].iter().map(Vec::len).sum();
            prop_assert_eq!(lost.bytes, bytes as u64);
            prop_assert!(closed.was_clean());
        }
    }
}

/// A server, or a proxy before it, may send interim responses at any time (RFC 9110 §15.2): they ended the handshake.
#[test]
fn interim_responses_before_the_101_failed_the_client() {
    let early = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    let interim = format!("HTTP/1.1 100 Continue\r\n\r\n{early}{early}");
    let dialled = |config| {
        let mut world = World::new(config, "ws://127.0.0.1:9001/");
        world.settle();
        world.hub.handle_connected(world.id.slot());
        world.settle();
        let response = world.response();
        (world, format!("{interim}{response}"))
    };
    for size in [1, 7, 60, 1000] {
        let (mut world, response) = dialled(Config::default());
        let bytes = [response.as_bytes(), &[0x89, 0]].concat();
        bytes.chunks(size).for_each(|piece| world.receive(piece));
        assert_eq!(
            (world.log.opened, world.log.pings),
            (1, 1),
            "in pieces of {size}: {:?}",
            world.log.failed
        );
    }
    // Together they have one response's limit.
    for (spare, opened) in [(0, 1), (1, 0)] {
        let (_, response) = dialled(Config::default());
        let mut config = Config::default();
        config.max_head = response.len() - spare;
        let (mut world, response) = dialled(config);
        world.receive(response.as_bytes());
        assert_eq!(world.log.opened, opened, "{spare} bytes less than enough");
    }
}
