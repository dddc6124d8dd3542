//! The client's role in virtual time and without a socket: which address is tried when, what is on the wire whatever the
//! kernel takes, who sends FIN.

use std::{io::ErrorKind, net::SocketAddr, time::Duration};

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, ConnectionId, Event, Handler, Payload, ShutdownPlan,
    close::Cause,
    error::{HandshakeError, ProtocolError},
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Memory, Session},
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
    closed: Vec<CloseReport>,
    failed: Vec<(Option<ConnectionId>, SocketAddr, HandshakeError)>,
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
            Event::Close { report: closed, .. } => self.closed.push(*closed),
            Event::HandshakeFailed { id, peer, error: cause } => self.failed.push((id, peer, cause)),
            Event::Ping { .. } => self.pings += 1,
            _ => {}
        }
    }
}

/// One client's connection, and the network played by hand.
struct World {
    session: Session<Log>,
    id: ConnectionId,
}

impl World {
    fn new(config: Config, url: &str) -> Self {
        let request = ConnectRequest::new(url).expect("a URL");
        let (session, id) = Session::connect(config, request, (), Log::default());
        Self { session, id }
    }

    /// The same, established.
    fn open(config: Config) -> Self {
        let mut world = Self::new(config, "ws://127.0.0.1:9001/");
        world.connected(true);
        let response = world.response();
        world.session.take_written();
        world.receive(response.as_bytes());
        assert_eq!(world.log().opened, 1);
        world
    }

    fn log(&mut self) -> &mut Log {
        self.session.handler()
    }

    fn response(&mut self) -> String {
        let request = String::from_utf8(self.session.socket().written.clone()).expect("ASCII");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        format!(
            "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
            derive_accept_key(key.as_bytes())
        )
    }

    fn resolved(&mut self, count: u16) {
        self.session.driver().handle_resolved(self.id, addresses(count));
        self.session.turn();
    }

    /// The present attempt to connect succeeds, or is refused.
    fn connected(&mut self, succeeds: bool) {
        self.session.socket().connected = Some(succeeds);
        self.writable();
    }

    fn wait(&mut self, time: Duration) {
        self.session.advance(time);
    }

    /// The kernel says that it takes more.
    fn writable(&mut self) {
        self.session.ready(Readiness { writable: true, ..Readiness::default() });
    }

    fn receive(&mut self, bytes: &[u8]) {
        self.session.read(bytes);
    }

    fn act<R>(&mut self, act: impl FnOnce(&mut Clients<'_, ()>, ConnectionId) -> R) -> R {
        let id = self.id;
        self.session.act(|clients, _| act(clients, id))
    }

    /// The same between two turns.
    fn queue<R>(&mut self, act: impl FnOnce(&mut Clients<'_, ()>, ConnectionId) -> R) -> R {
        act(&mut self.session.driver().clients(), self.id)
    }

    fn close(&mut self) {
        assert!(self.act(|clients, id| clients.close(id, CloseFrame::NORMAL)));
    }

    fn target(&mut self) -> Option<String> {
        self.session.socket().target.clone()
    }

    fn owns_buffers(&mut self) -> bool {
        self.act(|clients, id| clients.get(id).expect("open").owns_buffers())
    }

    fn causes(&mut self) -> Vec<Cause> {
        self.log().closed.iter().map(|closed| closed.cause).collect()
    }

    /// What is on the wire as frames, unmasked; the last one may be cut.
    fn frames(&mut self) -> (Vec<(Opcode, Vec<u8>)>, usize) {
        let (mut frames, mut rest) = (Vec::new(), self.session.socket().written.as_slice());
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
    config.client.connect_timeout = 9 * SECOND;
    let mut world = World::new(config, "ws://server.example/");
    assert_eq!(world.target().as_deref(), Some("server.example:80"));
    world.resolved(3);
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:1"));
    world.wait(Duration::from_millis(2999));
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:1"), "a third of the time is its own");
    world.wait(Duration::from_millis(2));
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:2"));
    world.connected(false);
    assert_eq!(world.target().as_deref(), Some("10.0.0.1:3"), "at once, and with all the time that is left");
    assert_eq!(world.session.socket().targets, 4, "one name, three addresses");
    world.wait(Duration::from_millis(5998));
    assert!(world.log().failed.is_empty());
    world.wait(Duration::from_millis(2));
    let expected = (Some(world.id), addresses(3)[2], HandshakeError::ConnectTimeout);
    assert_eq!(world.log().failed, [expected]);
    assert_eq!(world.session.socket().closed, Some(false));
    assert!(world.session.is_gone());
    world.resolved(1);
    world.connected(true);
    assert_eq!(world.log().failed.len(), 1, "what comes late does nothing");
}

/// Its deadline was set by what was queued, and not any more when a stall began with a refusal.
#[test]
fn a_handshake_timeout_that_ends_before_the_connect_would_have() {
    let mut config = Config::default();
    (config.client.connect_timeout, config.handshake.handshake_timeout) = (9 * SECOND, SECOND);
    let mut world = World::new(config, "ws://server.example/");
    world.resolved(1);
    world.connected(true);
    world.wait(SECOND);
    let expected = (Some(world.id), addresses(1)[0], HandshakeError::Timeout);
    assert_eq!(world.log().failed, [expected]);
}

#[test]
fn ways_not_to_find_a_server() {
    type Act = fn(&mut World);
    let rows: &[(&str, Act, HandshakeError)] = &[
        ("no address", |w| w.resolved(0), HandshakeError::NotResolved),
        ("a resolver that is too slow", |w| w.wait(11 * SECOND), HandshakeError::ConnectTimeout),
        (
            "two that refuse",
            |w| {
                w.resolved(2);
                w.connected(false);
                assert!(w.log().failed.is_empty(), "there is another one");
                w.connected(false);
            },
            HandshakeError::Io(ErrorKind::ConnectionRefused),
        ),
        (
            "two that fail at once",
            |w| {
                w.session.socket().fails_at_once = [ErrorKind::NetworkUnreachable; 2].into();
                w.resolved(2);
            },
            HandshakeError::Io(ErrorKind::NetworkUnreachable),
        ),
        (
            "TCP, and no response",
            |w| {
                w.resolved(1);
                w.wait(9 * SECOND);
                w.connected(true);
                w.wait(9 * SECOND);
                assert!(w.log().failed.is_empty(), "the handshake has a time of its own");
                w.wait(2 * SECOND);
            },
            HandshakeError::Timeout,
        ),
        (
            "a reset behind the request",
            |w| {
                w.resolved(1);
                w.connected(true);
                w.session.reset();
            },
            HandshakeError::PeerReset,
        ),
    ];
    for (name, act, expected) in rows {
        let mut world = World::new(Config::default(), "ws://server.example/");
        act(&mut world);
        assert_eq!(
            world.log().failed.iter().map(|failed| failed.2).collect::<Vec<_>>(),
            [*expected],
            "{name}"
        );
        assert!(world.session.is_gone(), "{name}");
    }
}

/// Connecting again on each failure, where each fails at once, takes one attempt a turn: the loop goes on serving.
#[test]
fn a_connect_that_fails_at_once_is_reported_in_the_next_turn() {
    struct Stubborn(u32);

    impl Handler for Stubborn {
        type Data = ();

        fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            Upgrade::accept(())
        }

        fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
            if let Event::HandshakeFailed { .. } = event {
                self.0 += 1;
                let again = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
                clients.connect(again, ()).expect("room");
            }
        }
    }

    let mut memory = Memory::default();
    for slot in 0..4 {
        memory.socket(slot).fails_at_once = [ErrorKind::NetworkUnreachable; 100].into();
    }
    let (mut driver, mut handler) = (Driver::new(Config::default(), 0, 1, memory), Stubborn(0));
    driver.connect(ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL"), ()).expect("room");
    for turns in 0..100 {
        driver.begin_turn(&mut handler);
        driver.end_turn(&mut handler);
        assert!(handler.0 <= turns, "{} failures in {turns} turns", handler.0);
        assert!(driver.has_more(), "it goes on");
    }
    assert!(handler.0 > 40, "{} failures", handler.0);
}

#[test]
fn the_same_seed_says_the_same_bytes() {
    let sent = || {
        let mut world = World::open(Config::default());
        world.act(|clients, id| clients.send(id, "hello")).expect("room");
        world.session.take_written()
    };
    assert_eq!(sent(), sent());
}

#[test]
fn a_quiet_client_owns_no_buffer() {
    let mut world = World::open(Config::default());
    assert!(!world.owns_buffers());
    world.act(|clients, id| clients.send(id, "hello")).expect("room");
    world.receive(b"\x81\x02hi");
    assert!(!world.owns_buffers());
}

/// §7.1.1, in every way that a closing can go.
#[test]
fn the_client_never_sends_fin_first() {
    type Act = fn(&mut World);
    let rows: &[(&str, Act, Cause)] = &[
        (
            "its own close, answered",
            |w| {
                w.close();
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
            assert_eq!(world.causes(), [*cause], "{name}");
            assert_eq!(world.session.stats().lingering, 1, "{name}: reported, and waiting for the server");
            assert_eq!(world.frames().0.last().map(|frame| frame.0), Some(Opcode::Close), "{name}");
            if fin_comes {
                world.session.read_eof();
            } else {
                world.wait(Duration::from_millis(1999));
                assert_eq!(world.session.stats().lingering, 1, "{name}: for linger_timeout");
                world.wait(Duration::from_millis(2));
            }
            assert_eq!(world.session.socket().closed, Some(false), "{name}");
            assert!(!world.session.sent_fin(), "{name}");
            assert!(world.session.is_gone(), "{name}");
            assert_eq!(world.log().closed.len(), 1, "{name}");
        }
    }
}

#[test]
fn of_pongs_that_wait_only_the_newest_is_sent() {
    let mut world = World::open(Config::default());
    world.session.socket().takes = [3, 0, 0, 0, 0].into();
    world.act(|clients, id| clients.send(id, vec![b'x'; 1000])).expect("room");
    for payload in [*b"1", *b"2", *b"3"] {
        world.receive(&[&[0x89, 1], payload.as_slice()].concat());
    }
    world.session.socket().takes.clear();
    world.writable();
    assert_eq!(world.log().pings, 3);
    let (frames, rest) = world.frames();
    assert_eq!(rest, 0);
    assert_eq!(frames, [(Opcode::Binary, vec![b'x'; 1000]), (Opcode::Pong, b"3".to_vec())]);
}

#[test]
fn the_latch_of_a_shutdown() {
    let mut config = Config::default();
    // The sweep gets to the second connection one turn later.
    config.event_loop.sweep_slice = 1;
    let mut log = Log::default();
    let mut driver = Driver::new(config, 0, 42, Memory::default());
    let request = |port| ConnectRequest::new(&format!("ws://127.0.0.1:{port}/")).expect("a URL");
    let first = driver.connect(request(1), ()).expect("room");
    let second = driver.connect(request(2), ()).expect("room");
    let turn = |driver: &mut Driver<(), Memory>, log: &mut Log, readiness| {
        driver.begin_turn(log);
        driver.ready(second.slot(), readiness, log);
        driver.end_turn(log);
    };
    let readable = Readiness { readable: true, ..Readiness::default() };
    turn(&mut driver, &mut log, Readiness::default());
    driver.transport().socket(second.slot()).connected = Some(true);
    turn(&mut driver, &mut log, Readiness { writable: true, ..Readiness::default() });
    driver.transport().socket(second.slot()).input = b"HTTP/1.1 101 Switch".to_vec();
    turn(&mut driver, &mut log, readable);
    driver.clients().shutdown(ShutdownPlan::default());
    turn(&mut driver, &mut log, Readiness::default());
    assert!(log.failed.is_empty(), "the latch is set, the sweep has not begun");
    assert_eq!(driver.connect(request(3), ()), Err(adjourn::error::ConnectError::ShuttingDown));
    driver.transport().socket(second.slot()).input = b"ing Protocols\r\n".to_vec();
    turn(&mut driver, &mut log, readable);
    let failed = |log: &Log| log.failed.iter().map(|f| (f.0, f.2)).collect::<Vec<_>>();
    let cause = HandshakeError::ShuttingDown;
    assert_eq!(failed(&log)[0], (Some(second), cause));
    for _ in 0..5 {
        turn(&mut driver, &mut log, Readiness::default());
    }
    assert_eq!(failed(&log), [(Some(second), cause), (Some(first), cause)]);
    assert_eq!(log.opened, 0);
    assert!(driver.shutdown_report().is_some());
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
            Act::Text(text) => Payload::from(text),
            Act::Bytes(bytes) => Payload::from(bytes),
            Act::Owned(size) => Payload::from(vec![b'o'; *size]),
            Act::Broadcast(size) => {
                let payload = vec![b'b'; *size];
                assert_eq!(world.queue(|clients, _| clients.broadcast(&payload, |_| true)).sent, 1);
                accepted.push(payload);
                continue;
            }
            Act::Ping => {
                world.queue(|clients, id| clients.ping(id, b"ours")).expect("room");
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
        world.queue(|clients, id| clients.send(id, message)).expect("room");
    }
    world.session.turn();
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
        world.session.socket().takes = takes.into();
        let accepted = play(&mut world, &acts);
        world.close();
        world.session.socket().takes.clear();
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
        world.session.socket().takes = takes.into_iter().chain([0; 100]).collect();
        let accepted = play(&mut world, &acts);
        world.close();
        if budget {
            // The flush budget runs out, then the kernel takes all, and the server answers.
            world.wait(6 * SECOND);
            world.session.socket().takes.clear();
            world.writable();
            world.receive(&[0x88, 2, 3, 0xE8]);
        } else {
            world.wait(6 * SECOND);
            world.wait(6 * SECOND);
        }
        let closed = world.log().closed.pop().expect("it has ended");
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
        world.connected(true);
        let response = world.response();
        (world, format!("{interim}{response}"))
    };
    for size in [1, 7, 60, 1000] {
        let (mut world, response) = dialled(Config::default());
        let bytes = [response.as_bytes(), &[0x89, 0]].concat();
        bytes.chunks(size).for_each(|piece| world.receive(piece));
        assert_eq!(
            (world.log().opened, world.log().pings),
            (1, 1),
            "in pieces of {size}: {:?}",
            world.log().failed
        );
    }
    // Together they have one response's limit.
    for (spare, opened) in [(0, 1), (1, 0)] {
        let (_, response) = dialled(Config::default());
        let mut config = Config::default();
        config.handshake.max_head = response.len() - spare;
        let (mut world, response) = dialled(config);
        world.receive(response.as_bytes());
        assert_eq!(world.log().opened, opened, "{spare} bytes less than enough");
    }
}
