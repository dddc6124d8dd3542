//! The PROXY header before the request: whom it is taken from, what its address is for, and its bounds, in virtual time.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use adjourn::{
    Clients, Config, Event, Handler, ShutdownPlan,
    config::ProxyProtocol,
    error::HandshakeError,
    http::{Upgrade, UpgradeRequest},
    hub::{Driver, Newcomer, Readiness},
    testing::{Clock, Memory, REQUEST, Socket, frame},
};
use proptest::prelude::*;

const V1: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x0c\xc0\x00\x02\x01\xc6\x33\x64\x01\x9c\x40\x01\xbb";
const V2_OF_IPV6: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\
    \x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x02\x9c\x40\x01\xbb";
const V2_OF_MAPPED: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x21\x00\x24\0\0\0\0\0\0\0\0\0\0\xff\xff\xc0\x00\x02\x01\
    \0\0\0\0\0\0\0\0\0\0\xff\xff\xc6\x33\x64\x01\x9c\x40\x01\xbb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";

const CLIENT: &str = "192.0.2.1:40000";
const PROXY: &str = "10.0.0.7:5000";
const STRANGER: &str = "203.0.113.9:6000";

/// Whose it was, and what had been read of it.
type DetachedOnce = (SocketAddr, Vec<u8>);

/// Who was seen, and what failed.
#[derive(Default)]
struct App {
    asked: Vec<(SocketAddr, Option<SocketAddr>)>,
    opened: Vec<(SocketAddr, Option<SocketAddr>)>,
    detached: Arc<Mutex<Vec<DetachedOnce>>>,
    failed: Vec<(SocketAddr, HandshakeError)>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if !request.is_upgrade() {
            let detached = Arc::clone(&self.detached);
            return Upgrade::detach(move |it| {
                let seen = (it.peer_addr(), it.received().to_vec());
                detached.lock().expect("not poisoned").push(seen);
            });
        }
        self.asked.push((request.peer_addr(), request.proxy_addr()));
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                let client = clients.get(id).expect("it is open");
                self.opened.push((client.peer_addr(), client.proxy_addr()));
            }
            Event::Message { id, message, .. } => clients.send(id, message).expect("it is open"),
            Event::HandshakeFailed { peer, error, .. } => self.failed.push((peer, error)),
            _ => {}
        }
    }
}

struct World {
    driver: Driver<(), Memory>,
    clock: Clock,
    app: App,
    settings: ProxyProtocol,
}

impl World {
    fn new(change: impl FnOnce(&mut Config, &mut ProxyProtocol)) -> Self {
        let trusted = vec!["10.0.0.0/8".parse().expect("a range")];
        let (mut config, mut settings) = (Config::default(), ProxyProtocol::required_from(trusted));
        change(&mut config, &mut settings);
        let clock = Clock::default();
        clock.pass(Duration::from_secs(1));
        let driver = Driver::new(config, 0, 7, Memory::new(&clock));
        let mut world = Self { driver, clock, app: App::default(), settings };
        world.turn();
        world
    }

    fn optional() -> Self {
        Self::new(|_, settings| settings.required = false)
    }

    fn accept(&mut self, newcomer: Newcomer) -> Option<usize> {
        let slot = self.driver.accept_newcomer(&newcomer.proxy_protocol(&self.settings));
        if let Some(slot) = slot {
            *self.driver.transport().socket(slot) = Socket::default();
        }
        self.turn();
        slot
    }

    fn accept_from(&mut self, address: &str) -> usize {
        self.accept(Newcomer::tcp(address.parse().expect("an address"))).expect("room")
    }

    fn turn(&mut self) {
        self.turn_with(None);
    }

    fn turn_with(&mut self, ready: Option<usize>) {
        self.driver.begin_turn(&mut self.app);
        if let Some(slot) = ready {
            let readable = Readiness { readable: true, ..Readiness::default() };
            self.driver.ready(slot, readable, &mut self.app);
        }
        self.driver.end_turn(&mut self.app);
    }

    fn read(&mut self, slot: usize, bytes: &[u8]) {
        self.driver.transport().socket(slot).input.extend_from_slice(bytes);
        self.turn_with(Some(slot));
    }

    fn written(&mut self, slot: usize) -> String {
        let written = std::mem::take(&mut self.driver.transport().socket(slot).written);
        String::from_utf8_lossy(&written).into_owned()
    }

    fn status(&mut self, slot: usize) -> String {
        self.written(slot).lines().next().unwrap_or_default().to_owned()
    }
}

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

#[test]
fn the_address_of_the_header_is_the_peers() {
    let rows: [(&str, &[u8], &str, Option<&str>); 6] = [
        ("version 1", V1, CLIENT, Some(PROXY)),
        ("version 2", V2, CLIENT, Some(PROXY)),
        ("IPv6", V2_OF_IPV6, "[2001:db8::1]:40000", Some(PROXY)),
        ("IPv4 that is mapped", V2_OF_MAPPED, CLIENT, Some(PROXY)),
        ("local", LOCAL, PROXY, None),
        ("unknown", UNKNOWN, PROXY, None),
    ];
    for (what, header, client, proxy) in rows {
        let bytes = [header, REQUEST, &frame(0x81, b"hello")].concat();
        for cut in 0..=bytes.len() {
            let mut world = World::new(|_, _| {});
            let slot = world.accept_from(PROXY);
            world.read(slot, &bytes[..cut]);
            world.read(slot, &bytes[cut..]);
            let seen = vec![(address(client), proxy.map(address))];
            assert_eq!((&world.app.asked, &world.app.opened), (&seen, &seen), "{what}, cut after {cut}");
            assert!(world.written(slot).ends_with("\u{fffd}\u{5}hello"), "{what}, cut after {cut}");
        }
    }
}

#[test]
fn what_is_no_header_is_refused_where_one_is_required() {
    let rows: [(&str, &[u8], &str); 5] = [
        ("a request", REQUEST, "no PROXY header, and one is required"),
        ("an empty line", b"\r\nGET", "no PROXY header, and one is required"),
        ("a bad address", b"PROXY TCP4 1.2.3 5.6.7.8 1 2\r\n", "malformed PROXY header"),
        (
            "a line without an end",
            &[&b"PROXY UNKNOWN "[..], &[b'x'; 93]].concat(),
            "PROXY header of too many bytes",
        ),
        (
            "a long one of version 2",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            "PROXY header of too many bytes",
        ),
    ];
    for (what, bytes, error) in rows {
        for cut in 0..=bytes.len() {
            let mut world = World::new(|_, _| {});
            let slot = world.accept_from(PROXY);
            world.read(slot, &bytes[..cut]);
            world.read(slot, &bytes[cut..]);
            let failed: Vec<_> =
                world.app.failed.iter().map(|(peer, error)| (*peer, error.to_string())).collect();
            assert_eq!(failed, [(address(PROXY), error.to_owned())], "{what}, cut after {cut}");
            assert!(matches!(world.app.failed[0].1, HandshakeError::ProxyHeader(_)));
            assert_eq!(world.status(slot), "HTTP/1.1 400 Bad Request", "{what}, cut after {cut}");
        }
    }
}

#[test]
fn nobody_else_gets_in_where_one_is_required() {
    let mut world = World::new(|_, _| {});
    assert_eq!(world.accept(Newcomer::tcp(address(STRANGER))), None);
    assert_eq!(world.accept(Newcomer::unix(None)), None);
    let failed: Vec<_> =
        world.app.failed.iter().map(|(peer, error)| (peer.to_string(), error.to_string())).collect();
    let error = "a PROXY header is not taken from this address".to_owned();
    assert_eq!(failed, [(STRANGER.to_owned(), error.clone()), ("0.0.0.0:0".to_owned(), error)]);

    let mut world = World::new(|_, settings| settings.trust_unix = true);
    let slot = world.accept(Newcomer::unix(None)).expect("it is trusted");
    world.read(slot, &[V2, REQUEST].concat());
    assert_eq!(world.app.opened, [(address(CLIENT), Some(address("0.0.0.0:0")))]);
}

#[test]
fn a_header_from_a_stranger_is_refused_where_none_is_required() {
    let malformed: &[u8] = b"PROXY TCP4 1.2.3\r\n";
    for header in [V1, V2, V2_OF_IPV6, LOCAL, UNKNOWN, malformed] {
        let mut world = World::optional();
        let slot = world.accept_from(STRANGER);
        for byte in header {
            world.read(slot, &[*byte]);
        }
        let failed: Vec<_> =
            world.app.failed.iter().map(|(peer, error)| (*peer, error.to_string())).collect();
        assert_eq!(failed, [(address(STRANGER), "a PROXY header is not taken from this address".into())]);
        assert_eq!(world.status(slot), "HTTP/1.1 400 Bad Request");
    }
}

#[test]
fn a_request_without_a_header_is_served_where_none_is_required() {
    for from in [STRANGER, PROXY] {
        for cut in 0..=REQUEST.len() {
            let mut world = World::optional();
            let slot = world.accept_from(from);
            world.read(slot, &REQUEST[..cut]);
            world.read(slot, &REQUEST[cut..]);
            assert_eq!(world.app.opened, [(address(from), None)], "{from}, cut after {cut}");
            assert!(world.status(slot).starts_with("HTTP/1.1 101 "));
        }
        // It begins as a header does, and nothing of it is lost.
        let request = b"PROPFIND / HTTP/1.1\r\nHost: a\r\n\r\nmore";
        for cut in 0..=request.len() {
            let mut world = World::optional();
            let slot = world.accept_from(from);
            world.read(slot, &request[..cut]);
            world.read(slot, &request[cut..]);
            let detached = world.app.detached.lock().expect("not poisoned").clone();
            let [(peer, received)] = &detached[..] else { panic!("{from}, cut after {cut}: {detached:?}") };
            assert_eq!(*peer, address(from));
            assert!(request.starts_with(received), "nothing is changed");
            assert!(received.starts_with(&request[..request.len() - 4]));
        }
    }
}

#[test]
fn what_is_detached_does_not_begin_with_the_header() {
    let mut world = World::new(|_, _| {});
    let slot = world.accept_from(PROXY);
    world.read(slot, &[V1, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let detached = world.app.detached.lock().expect("not poisoned").clone();
    assert_eq!(detached, [(address(CLIENT), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n".to_vec())]);
}

#[test]
fn limits_per_address_count_the_client_and_not_the_proxy() {
    let mut world = World::new(|config, _| config.event_loop.max_connections_per_address = Some(1));
    let other = b"PROXY TCP4 192.0.2.2 198.51.100.1 40000 443\r\n";
    let (one, two, again) = (world.accept_from(PROXY), world.accept_from(PROXY), world.accept_from(PROXY));
    world.read(one, &[V1, REQUEST].concat());
    world.read(two, &[&other[..], REQUEST].concat());
    world.read(again, &[V2, REQUEST].concat());
    assert!(world.status(one).starts_with("HTTP/1.1 101 ") && world.status(two).starts_with("HTTP/1.1 101 "));
    assert_eq!(world.status(again), "HTTP/1.1 503 Service Unavailable");
    let failed: Vec<_> = world.app.failed.iter().map(|(peer, error)| (*peer, error.to_string())).collect();
    let error = "too many connections: max_connections_per_address is reached".to_owned();
    assert_eq!(failed, [(address(CLIENT), error)]);
    // The proxy's own are not counted, and the client's place is free when it leaves.
    for header in [LOCAL, UNKNOWN, LOCAL] {
        let slot = world.accept_from(PROXY);
        world.read(slot, &[header, REQUEST].concat());
        assert!(world.status(slot).starts_with("HTTP/1.1 101 "));
    }
    let id = world
        .driver
        .clients()
        .iter()
        .find(|client| client.peer_addr() == address(CLIENT))
        .map(|client| client.id());
    assert!(world.driver.clients().terminate(id.expect("it is open")));
    world.turn();
    let slot = world.accept_from(PROXY);
    world.read(slot, &[V1, REQUEST].concat());
    assert!(world.status(slot).starts_with("HTTP/1.1 101 "));
}

#[test]
fn a_stranger_is_counted_from_the_beginning() {
    let mut world = World::new(|config, settings| {
        config.event_loop.max_connections_per_address = Some(1);
        settings.required = false;
    });
    let slot = world.accept_from(STRANGER);
    assert_eq!(world.accept(Newcomer::tcp(address(STRANGER))), None);
    world.read(slot, REQUEST);
    assert_eq!(world.accept(Newcomer::tcp(address(STRANGER))), None, "once, and not twice");
    let id = world.driver.clients().iter().next().map(|client| client.id());
    assert!(world.driver.clients().terminate(id.expect("it is open")));
    world.turn();
    assert!(world.accept(Newcomer::tcp(address(STRANGER))).is_some());
}

#[test]
fn a_header_is_part_of_the_handshake_and_its_timeout() {
    let mut world = World::new(|config, _| config.handshake.handshake_timeout = Duration::from_secs(5));
    let slot = world.accept_from(PROXY);
    for byte in &V1[..9] {
        world.read(slot, &[*byte]);
        world.clock.pass(Duration::from_millis(500));
    }
    assert!(world.app.failed.is_empty());
    world.clock.pass(Duration::from_millis(550));
    world.turn();
    assert_eq!(world.app.failed, [(address(PROXY), HandshakeError::Timeout)]);
}

#[test]
fn a_shutdown_closes_one_that_has_sent_nothing_but_a_header() {
    for bytes in [&b""[..], &V1[..10], V1] {
        let mut world = World::new(|_, _| {});
        let slot = world.accept_from(PROXY);
        world.read(slot, bytes);
        world.driver.clients().shutdown(ShutdownPlan::soft(Duration::from_secs(5)));
        world.turn();
        world.turn();
        assert!(
            matches!(world.app.failed[..], [(_, HandshakeError::ShuttingDown)]),
            "{:?}",
            world.app.failed
        );
        assert_eq!(world.written(slot), "");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn any_split_of_a_header_and_what_follows_gives_the_same(
        header in proptest::sample::select(vec![V1, V2, V2_OF_IPV6, LOCAL, UNKNOWN, &V1[..20], b"PROXY x\r\n", b""]),
        required in any::<bool>(),
        from in proptest::sample::select(vec![PROXY, STRANGER]),
        cuts in proptest::collection::vec(0..300_usize, 0..6),
    ) {
        let run = |mut cuts: Vec<usize>| {
            let bytes = [header, REQUEST, &frame(0x81, b"hello")].concat();
            cuts.retain(|cut| *cut < bytes.len());
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut world = World::new(|_, settings| settings.required = required);
            let mut written = String::new();
            if let Some(slot) = world.accept(Newcomer::tcp(address(from))) {
                let mut at = 0;
                for cut in cuts {
                    world.read(slot, &bytes[at..cut]);
                    at = cut;
                }
                written = world.written(slot);
            }
            (written, world.app.asked, world.app.opened, world.app.failed)
        };
        prop_assert_eq!(run(cuts), run(vec![]));
    }
}

#[test]
fn one_that_is_refused_by_the_limit_on_its_address_is_not_the_most_of_it() {
    let mut world = World::new(|config, _| config.event_loop.max_connections_per_address = Some(2));
    for _ in 0..3 {
        let slot = world.accept_from(PROXY);
        world.read(slot, &[V1, REQUEST].concat());
    }
    let most = world.driver.loop_stats().caps.per_address;
    assert_eq!((world.app.opened.len(), world.app.failed.len()), (2, 1));
    assert_eq!((most.used, most.limit), (2, Some(2)));
}
