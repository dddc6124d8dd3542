//! A poll says once that a socket has something. Whatever is in the ciphertext that came by then is found without being told again;
//! and ciphertext is a sign of life, and work of a turn, although nothing is in it for the connection.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use adjourn::{
    Config,
    close::Cause,
    config::ProxyProtocol,
    error::{HandshakeError, TlsError},
    http::Accept,
    hub::{Driver, Newcomer, Readiness},
    testing::{Clock, Memory, REQUEST, frame},
    tls::{ServerTls, Tls},
};

use crate::{
    certificates::Authority,
    peer,
    peer::Peer,
    world::{Echo, World},
};

/// Everything comes at once, FIN too if `fin`, and the poll says so once.
fn arrive(world: &mut World, ciphertext: &[u8], fin: bool) {
    let socket = world.socket();
    socket.input.extend_from_slice(ciphertext);
    socket.eof = fin;
    world.turn(Readiness { readable: true, writable: false, ended: fin });
    while world.driver.has_more() {
        world.turn(Readiness::default());
    }
}

fn feed_peer(world: &mut World) {
    let written = std::mem::take(&mut world.socket().written);
    world.peer.feed(&written);
}

#[test]
fn a_fin_behind_a_part_of_a_record_is_found() {
    let mut world = World::open(Config::default());
    world.peer.send(&frame(0x81, b"hello"));
    let ciphertext = world.peer.take_output();
    arrive(&mut world, &ciphertext[..ciphertext.len() - 1], true);
    let report = world.report();
    assert_eq!((report.cause, report.truncated()), (Cause::PeerFin, true));
    assert_eq!(world.driver.stats().total(), 0);
}

#[test]
fn a_fin_behind_a_part_of_a_handshake_is_found() {
    let mut world = World::fresh(Config::default());
    let hello = world.peer.take_output();
    arrive(&mut world, &hello[..hello.len() - 1], true);
    assert_eq!(world.seen.borrow().failed, Some(HandshakeError::PeerFin));
    assert_eq!(world.driver.stats().total(), 0);
}

#[test]
fn records_larger_than_the_receive_buffer_come_whole() {
    let payload: Vec<u8> = (0..500_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    for read_buffer in [4 << 10, 10_000, 16 << 10, 20_000, 64 << 10] {
        let mut config = Config::default();
        config.event_loop.read_buffer = read_buffer;
        let mut world = World::open(config);
        for payload in payload.chunks(1_000) {
            world.peer.send(&frame(0x82, payload));
        }
        let ciphertext = world.peer.take_output();
        arrive(&mut world, &ciphertext, false);
        assert_eq!(world.seen.borrow().messages.concat().len(), payload.len(), "{read_buffer}");
        assert!(world.socket().input.is_empty(), "{read_buffer}");
    }
}

#[test]
fn a_close_notify_behind_a_message_is_found() {
    let mut world = World::open(Config::default());
    world.peer.send(&frame(0x81, b"last"));
    world.peer.send_close_notify();
    let ciphertext = world.peer.take_output();
    arrive(&mut world, &ciphertext, false);
    assert_eq!(world.seen.borrow().messages, [b"last"]);
    let report = world.report();
    assert_eq!((report.cause, report.truncated()), (Cause::PeerFin, false));
}

#[test]
fn a_broken_record_behind_a_message_is_found() {
    let mut world = World::open(Config::default());
    world.peer.send(&frame(0x81, b"last"));
    let mut ciphertext = world.peer.take_output();
    ciphertext.extend_from_slice(b"\x17\x03\x03\x00\x20an application did not write this");
    arrive(&mut world, &ciphertext, false);
    assert_eq!(world.seen.borrow().messages, [b"last"]);
    assert!(matches!(world.report().cause, Cause::Io(_)), "{:?}", world.report());
    feed_peer(&mut world);
    assert!(world.peer.failed.as_ref().is_some_and(|error| error.contains("BadRecordMac")), "it is told");
}

#[test]
fn a_broken_record_behind_a_request_is_found() {
    let mut world = World::fresh(Config::default());
    let hello = world.peer.take_output();
    arrive(&mut world, &hello, false);
    feed_peer(&mut world);
    world.peer.send(&REQUEST[..REQUEST.len() - 1]);
    let mut ciphertext = world.peer.take_output();
    ciphertext.extend_from_slice(b"\x17\x03\x03\x00\x20an application did not write this");
    arrive(&mut world, &ciphertext, false);
    assert_eq!(world.seen.borrow().failed, Some(HandshakeError::Tls(TlsError::Protocol)));
    assert_eq!(world.driver.stats().total(), 0);
}

#[test]
fn a_proxy_that_is_late_gets_no_answer_in_http() {
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let proxies = ProxyProtocol::required_from(vec!["127.0.0.1/32".parse().expect("a range")]);
    let peer = Peer::client(peer::client_config(&authority), "localhost");
    let mut world = World::of(Config::default(), peer, |driver| {
        let newcomer = Newcomer::tcp(([127, 0, 0, 1], 40_000).into()).proxy_protocol(&proxies).then_tls();
        let slot = driver.accept_newcomer(&newcomer).expect("there is room");
        driver.transport().accept_after_header(slot, &tls);
        slot
    });
    arrive(&mut world, b"PROXY TCP4", false);
    world.clock.pass(Duration::from_secs(10));
    arrive(&mut world, b"", false);
    assert_eq!(world.seen.borrow().failed, Some(HandshakeError::Timeout));
    assert_eq!(world.socket().written, b"");
    assert_eq!(world.driver.stats().total(), 0);
}

#[test]
fn a_record_that_comes_slowly_is_no_silence() {
    let mut config = Config::default();
    config.connection.heartbeat.interval = Some(Duration::from_secs(2));
    config.connection.heartbeat.timeout = Duration::from_secs(1);
    let mut world = World::open(config);
    world.peer.send(&frame(0x82, &[7; 10_000]));
    let ciphertext = world.peer.take_output();
    for piece in ciphertext.chunks(500) {
        world.clock.pass(Duration::from_secs(1));
        arrive(&mut world, piece, false);
    }
    assert_eq!(world.seen.borrow().report, None);
    assert_eq!(world.seen.borrow().messages, [vec![7; 10_000]]);
    // Without a byte it is one.
    for _ in 0..4 {
        world.clock.pass(Duration::from_secs(1));
        arrive(&mut world, b"", false);
    }
    assert_eq!(world.report().cause, Cause::HeartbeatTimeout);
}

#[test]
fn handshakes_that_come_at_once_are_the_work_of_several_turns_and_nobody_else_waits() {
    const PEERS: usize = 100;
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let client = peer::client_config(&authority);
    let clock = Clock::default();
    let mut driver = Driver::<(), _>::new(Config::default(), 0, 7, Tls::new(Memory::new(&clock)));
    let mut handler = Echo(Rc::<RefCell<_>>::default());
    let hello = Peer::client(client, "localhost").take_output();
    for slot in 0..=PEERS {
        assert_eq!(driver.accept(([127, 0, 0, 1], 40_000).into()), Some(slot));
        if slot < PEERS {
            driver.transport().accept(slot, &tls).expect("it can serve");
            driver.transport().socket(slot).input = hello.clone();
        }
    }
    // The last one is there already, and is plain.
    driver.transport().socket(PEERS).input = REQUEST.to_vec();
    let readable = Readiness { readable: true, ..Readiness::default() };
    driver.begin_turn(&mut handler);
    driver.ready(PEERS, readable, &mut handler);
    driver.end_turn(&mut handler);
    let mut answered = vec![0];
    while answered.last() < Some(&PEERS) {
        let socket = driver.transport().socket(PEERS);
        socket.written.clear();
        socket.input = frame(0x81, b"hello");
        driver.begin_turn(&mut handler);
        let first = if answered.len() == 1 { 0 } else { PEERS };
        for slot in first..=PEERS {
            driver.ready(slot, readable, &mut handler);
        }
        driver.end_turn(&mut handler);
        let greeted = (0..PEERS).filter(|slot| !driver.transport().socket(*slot).written.is_empty()).count();
        assert!((1..=20).contains(&(greeted - answered[answered.len() - 1])), "{answered:?} {greeted}");
        answered.push(greeted);
        assert_eq!(driver.transport().socket(PEERS).written, b"\x81\x05hello", "{answered:?}");
    }
    assert_eq!(driver.stats().connecting, PEERS);
}

#[test]
fn records_may_be_as_small_as_settings_of_rustls_ask_for() {
    let (authority, message) = (Authority::new(), vec![7; 50_000]);
    for size in [32, 100, 400, 16_389] {
        let mut settings = Arc::unwrap_or_clone(peer::server_config(&authority, &["localhost"]));
        settings.max_fragment_size = Some(size);
        let peer = Peer::client(peer::client_config(&authority), "localhost");
        let mut world = World::server(Config::default(), &ServerTls::from_rustls(settings), peer);
        world.peer.send(REQUEST);
        world.peer.send(&frame(0x82, &message));
        world.settle();
        assert_eq!(world.seen.borrow().report, None, "{size}");
        assert!(world.peer.received.ends_with(&message), "{size}");
    }
}

/// The decision about a deferred upgrade panics, and is made again: what the TLS handshake has agreed on is still known.
#[test]
fn a_panic_does_not_lose_what_was_agreed_on() {
    let mut world = World::fresh(Config::default());
    world.seen.borrow_mut().defers = true;
    world.peer.send(REQUEST);
    world.settle();
    let id = world.seen.borrow().deferred.expect("it was asked");
    let decide = |world: &mut World, panics: bool| {
        let mut known = false;
        let decided = catch_unwind(AssertUnwindSafe(|| {
            world.driver.clients().accept(id, |request| {
                known = request.tls().is_some();
                assert!(!panics, "on purpose");
                Accept::new(())
            })
        }));
        (decided.is_ok(), known)
    };
    assert_eq!(decide(&mut world, true), (false, true));
    assert_eq!(decide(&mut world, false), (true, true));
    world.turn(Readiness::default());
    world.settle();
    assert!(world.peer.received.starts_with(b"HTTP/1.1 101 "));
}
