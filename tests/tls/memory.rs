//! The layer over kernels in memory, in virtual time: whatever the kernels take at once, and however they cut what comes, a
//! conversation over TLS is the plain one.

use std::time::Duration;

use adjourn::{
    CloseFrame, Config,
    close::Cause,
    config::ProxyProtocol,
    error::{HandshakeError, TlsError},
    http::ConnectRequest,
    hub::{Newcomer, Readiness},
    testing::{REQUEST, frame},
    tls::{ClientTls, Identities, ServerTls, TlsSession, TlsVersion},
};

use crate::{
    certificates::Authority,
    peer::{self, Peer},
    world::World,
};

#[test]
fn any_capacity_and_any_pieces_give_the_same_conversation() {
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let client = peer::client_config(&authority);
    let long: Vec<u8> = (0..40_000_u32).map(|byte| byte.to_le_bytes()[0]).collect();
    let sizes = [1, 2, 3, 5, 7, 16, 21, 22, 23, 64, 255, 1000, 16_384, 16_406, 16_500, 100_000, usize::MAX];
    for takes in sizes {
        for gets in sizes {
            // The smallest kernels need many turns for a long message.
            let long = if takes.min(gets) < 16 { &long[..500] } else { &long };
            let peer = Peer::client(client.clone(), "localhost");
            let mut world = World::server(Config::default(), &tls, peer);
            (world.takes, world.gets) = (takes, gets);
            world.peer.send(REQUEST);
            world.settle();
            let head = std::mem::take(&mut world.peer.received);
            assert!(head.starts_with(b"HTTP/1.1 101 "), "{takes} {gets}: {head:?}");
            for payload in [&b"hello"[..], long] {
                world.peer.send(&frame(0x82, payload));
            }
            world.peer.send(&frame(0x89, b"ping"));
            world.peer.send(&frame(0x88, &1000_u16.to_be_bytes()));
            world.settle();
            assert_eq!(world.seen.borrow().messages, [b"hello", long], "{takes} {gets}");
            let got = &world.peer.received;
            assert!(got.starts_with(b"\x82\x05hello\x82"), "{takes} {gets}");
            assert!(got.ends_with(b"\x8a\x04ping\x88\x02\x03\xe8"), "{takes} {gets}");
            assert!(world.peer.closed && world.socket().fin, "close_notify and FIN: {takes} {gets}");
            let report = world.report();
            assert!(report.was_clean() && !report.truncated(), "{takes} {gets}: {report:?}");
            world.peer.send_close_notify();
            world.fin = true;
            world.settle();
            assert_eq!(world.driver.stats().total(), 0, "{takes} {gets}");
        }
    }
}

/// The layer reads more at once than the loop has room for: when that has been handed over, the kernel may still have some, or
/// may have got more and said so while there was something to hand over.
#[test]
fn what_the_kernel_holds_is_read_although_the_read_buffer_is_small() {
    for (room, gets) in [1, 100, 1000, 5000].into_iter().flat_map(|room| [(room, 3000), (room, usize::MAX)]) {
        let mut config = Config::default();
        config.event_loop.read_buffer = room;
        let mut world = World::open(config);
        world.gets = gets;
        let messages = vec![vec![7; 1000]; 40];
        for message in &messages {
            world.peer.send(&frame(0x82, message));
        }
        world.settle();
        assert_eq!(world.seen.borrow().messages.len(), messages.len(), "{room}, {gets}");
    }
}

#[test]
fn a_client_speaks_to_a_server_of_any_capacity() {
    let authority = Authority::new();
    let server = peer::server_config(&authority, &["localhost"]);
    for takes in [1, 7, 64, 300, usize::MAX] {
        let mut config = Config::default();
        config.client.tls = ClientTls::with_roots(authority.pem().as_bytes()).expect("a root");
        let request = ConnectRequest::new("wss://localhost/chat").expect("a URL");
        let mut connecting = None;
        let mut world = World::of(config, Peer::server(server.clone()), |driver| {
            let id = driver.connect(request, ()).expect("there is room");
            connecting.insert(id).slot()
        });
        (world.takes, world.gets) = (takes, takes);
        world.turn(Readiness::default());
        world.driver.handle_resolved(connecting.expect("it connects"), vec![([127, 0, 0, 1], 443).into()]);
        world.turn(Readiness::default());
        assert_eq!(world.socket().target.as_deref(), Some("127.0.0.1:443"));
        world.socket().connected = Some(true);
        world.turn(Readiness { writable: true, ..Readiness::default() });
        world.settle();
        let request = String::from_utf8(std::mem::take(&mut world.peer.received)).expect("a request");
        assert!(request.starts_with("GET /chat HTTP/1.1\r\nHost: localhost\r\n"), "{takes}: {request}");
        let key = request.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
        world.peer.send(&switching_protocols(key));
        world.settle();
        assert_eq!(world.seen.borrow().failed, None, "{takes}");
        world.peer.send(b"\x82\x05hello");
        world.settle();
        assert_eq!(world.seen.borrow().messages, [b"hello"], "{takes}");
        world.act(|clients, id| {
            let _ = clients.close(id, CloseFrame::NORMAL);
        });
        assert_eq!(world.peer.received.len(), 11 + 8, "the echo and the Close, masked: {takes}");
        world.peer.send(b"\x88\x02\x03\xe8");
        world.settle();
        assert!(world.report().was_clean(), "{takes}");
        assert!(!world.peer.closed, "the server ends first (§7.1.1): {takes}");
        world.peer.send_close_notify();
        world.settle();
        world.settle();
        let written = std::mem::take(&mut world.socket().written);
        world.peer.feed(&written);
        assert_eq!(world.driver.stats().total(), 0, "close_notify is the server's FIN: {takes}");
        assert!(world.peer.closed || takes < 64, "its own close_notify is the last thing: {takes}");
    }
}

fn switching_protocols(key: &str) -> Vec<u8> {
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes()
}

#[test]
fn a_proxy_header_comes_before_tls_and_not_in_it() {
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let proxies = ProxyProtocol::required_from(vec!["127.0.0.1/32".parse().expect("a range")]);
    let header = b"PROXY TCP4 192.0.2.7 198.51.100.1 40000 443\r\n";
    let serve = |first: &[u8], inside: &[u8]| {
        let peer = Peer::client(peer::client_config(&authority), "localhost");
        let mut world = World::of(Config::default(), peer, |driver| {
            let newcomer = Newcomer::tcp(([127, 0, 0, 1], 40_000).into()).proxy_protocol(&proxies).then_tls();
            let slot = driver.accept_newcomer(&newcomer).expect("there is room");
            driver.transport().accept_after_header(slot, &tls);
            slot
        });
        world.gets = 7;
        world.up.extend_from_slice(first);
        world.peer.send(inside);
        world.peer.send(REQUEST);
        world.settle();
        world
    };
    let mut world = serve(header, b"");
    assert!(
        world.peer.received.starts_with(b"HTTP/1.1 101 "),
        "{:?} {:?} {:?}",
        world.seen.borrow().failed,
        world.peer.failed,
        world.up.len()
    );
    world.act(|clients, id| {
        let client = clients.get(id).expect("it is open");
        assert_eq!(client.peer_addr(), ([192, 0, 2, 7], 40_000).into());
    });
    // Without one there is no TLS either, whatever a client says inside.
    let world = serve(b"", header);
    assert!(matches!(world.seen.borrow().failed, Some(HandshakeError::ProxyHeader(_))));
    assert!(world.peer.received.is_empty());
    // A second one is no request.
    let world = serve(header, header);
    assert_eq!(world.seen.borrow().failed, Some(HandshakeError::BadRequest));
}

/// What the peer has got, in whole frames of a server.
fn frames(mut bytes: &[u8]) -> Vec<(u8, usize)> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = bytes {
        let (length, rest) = match length {
            126 => (usize::from(u16::from_be_bytes([rest[0], rest[1]])), &rest[2..]),
            127 => (
                u64::from_be_bytes(rest[..8].try_into().expect("eight")).try_into().expect("short"),
                &rest[8..],
            ),
            short => (usize::from(*short), rest),
        };
        frames.push((*first, length));
        bytes = &rest[length..];
    }
    frames
}

#[test]
fn a_fin_without_close_notify_before_a_close_is_a_truncation() {
    for (notify, truncated) in [(true, false), (false, true)] {
        let mut world = World::open(Config::default());
        world.peer.send(&frame(0x81, b"first"));
        if notify {
            world.peer.send_close_notify();
        }
        world.fin = true;
        world.settle();
        let report = world.report();
        assert_eq!((report.cause, report.truncated()), (Cause::PeerFin, truncated));
        assert_eq!(world.seen.borrow().messages, [b"first"]);
    }
    // In answer to a Close of ours.
    let mut world = World::open(Config::default());
    world.act(|clients, id| {
        let _ = clients.close(id, CloseFrame::NORMAL);
    });
    world.fin = true;
    world.settle();
    let report = world.report();
    assert_eq!((report.cause, report.truncated()), (Cause::PeerFinDuringClose, true));
    // Behind both Closes it changes nothing: browsers do that.
    let mut world = World::open(Config::default());
    world.act(|clients, id| {
        let _ = clients.close(id, CloseFrame::NORMAL);
    });
    world.peer.send(&frame(0x88, &1000_u16.to_be_bytes()));
    world.fin = true;
    world.settle();
    assert!(world.report().was_clean() && !world.report().truncated());
    assert_eq!(world.driver.stats().total(), 0);
    // While reading is paused it is remembered.
    let mut world = World::open(Config::default());
    world.act(|clients, id| {
        let _ = clients.pause(id);
    });
    world.fin = true;
    world.settle();
    world.advance(Duration::from_secs(11));
    let report = world.report();
    assert_eq!((report.cause, report.truncated()), (Cause::PeerFin, true));
}

#[test]
fn a_peer_that_has_ended_its_side_still_gets_the_answer_to_its_close() {
    let mut world = World::open(Config::default());
    world.takes = 0;
    world.peer.send(&frame(0x88, &1000_u16.to_be_bytes()));
    world.peer.send_close_notify();
    world.settle();
    assert!(world.seen.borrow().closing && world.seen.borrow().report.is_none());
    world.takes = usize::MAX;
    world.settle();
    assert!(world.report().was_clean());
    assert_eq!(world.peer.received, b"\x88\x02\x03\xe8");
    assert!(world.peer.closed);
}

#[test]
fn close_notify_and_fin_wait_for_room_although_nothing_is_queued() {
    let mut world = World::open(Config::default());
    world.act(|clients, id| {
        let _ = clients.close(id, CloseFrame::NORMAL);
    });
    world.takes = 0;
    world.socket().room = 0;
    world.peer.send(&frame(0x88, &1000_u16.to_be_bytes()));
    world.settle();
    assert!(world.report().was_clean(), "the outcome is fixed");
    assert_eq!((world.peer.closed, world.socket().fin), (false, false));
    assert_eq!(world.driver.stats().lingering, 1);
    world.takes = 1;
    world.settle();
    assert_eq!((world.peer.closed, world.socket().fin), (true, true));
    // Lingering: whatever comes is discarded, as it is.
    world.up.extend_from_slice(&[0xff; 100]);
    world.settle();
    world.fin = true;
    world.settle();
    assert_eq!(world.driver.stats().total(), 0);
}

#[test]
fn what_is_encrypted_has_begun() {
    let mut config = Config::default();
    config.connection.close_timeout = Duration::from_secs(4);
    for (takes, kept) in [(0, 3), (1, 3), (100, 3)] {
        let mut world = World::open(config.clone());
        (world.takes, world.socket().room) = (0, takes);
        // Of one record: three messages and a Pong. Then some that do not fit into it.
        world.act(move |clients, id| {
            for _ in 0..kept {
                clients.send(id, vec![7; 5_000]).expect("it fits");
            }
        });
        world.act(|clients, id| {
            for _ in 0..5 {
                clients.send(id, vec![8; 5_000]).expect("it fits");
            }
            clients.close(id, CloseFrame::NORMAL);
        });
        // The flush budget is used up: what has not begun is dropped.
        world.advance(Duration::from_millis(2_500));
        world.takes = usize::MAX;
        world.settle();
        let got = frames(&world.peer.received);
        assert_eq!(got, [(0x82, 5_000), (0x82, 5_000), (0x82, 5_000), (0x88, 2)], "{takes}");
        world.peer.send(&frame(0x88, &1000_u16.to_be_bytes()));
        world.settle();
        let report = world.report();
        assert!(report.was_clean(), "{report:?}");
        assert_eq!((report.lost.messages, report.lost.bytes, report.lost.partial), (5, 25_000, 0), "{takes}");
    }
}

#[test]
fn a_close_that_is_encrypted_is_not_queued_again() {
    let mut config = Config::default();
    config.connection.close_timeout = Duration::from_secs(4);
    let mut world = World::open(config);
    (world.takes, world.socket().room) = (0, 0);
    world.act(|clients, id| {
        clients.send(id, "last").expect("it fits");
        clients.close(id, CloseFrame::NORMAL);
    });
    world.advance(Duration::from_millis(2_500));
    world.takes = usize::MAX;
    world.settle();
    assert_eq!(frames(&world.peer.received), [(0x81, 4), (0x88, 2)]);
}

#[test]
fn a_pong_that_is_encrypted_is_not_replaced() {
    let mut world = World::open(Config::default());
    (world.takes, world.socket().room) = (0, 0);
    for payload in [b"first", b"other", b"third"] {
        world.peer.send(&frame(0x89, payload));
        world.settle();
    }
    world.takes = usize::MAX;
    world.settle();
    assert_eq!(world.peer.received, b"\x8a\x05first\x8a\x05third");
}

#[test]
fn nothing_is_written_after_a_reset() {
    let mut world = World::open(Config::default());
    (world.takes, world.socket().room) = (0, 0);
    world.act(|clients, id| {
        clients.send(id, vec![7; 100]).expect("it fits");
        clients.terminate(id);
    });
    world.takes = usize::MAX;
    world.socket().room = usize::MAX;
    world.turn(Readiness { writable: true, ..Readiness::default() });
    assert_eq!(world.socket().closed, Some(true), "by RST");
    assert!(world.socket().written.is_empty() && !world.socket().fin);
    assert_eq!(world.report().lost.messages, 1);
}

#[test]
fn an_abort_by_fin_in_a_cut_record_does_not_look_like_an_end() {
    let mut world = World::open(Config::default());
    (world.takes, world.socket().room) = (0, 100);
    world.act(|clients, id| {
        clients.send(id, vec![7; 1_000]).expect("it fits");
    });
    world.act(|clients, id| {
        let _ = clients.terminate_with(id, adjourn::config::Abort::Fin);
    });
    assert!(world.socket().fin && !world.peer.closed);
    // With nothing queued it is an end.
    let mut world = World::open(Config::default());
    world.act(|clients, id| {
        let _ = clients.terminate_with(id, adjourn::config::Abort::Fin);
    });
    assert!(world.socket().fin && world.peer.closed);
}

#[test]
fn ciphertext_that_is_taken_is_progress() {
    let mut config = Config::default();
    config.connection.stall_timeout = Some(Duration::from_secs(2));
    config.connection.heartbeat.interval = None;
    let mut world = World::open(config);
    (world.takes, world.socket().room) = (0, 1);
    world.act(|clients, id| {
        let _ = clients.send(id, vec![7; 1_000]);
    });
    for _ in 0..20 {
        // One byte of a record every second.
        world.advance(Duration::from_secs(1));
        world.socket().room = 1;
        world.turn(Readiness { writable: true, ..Readiness::default() });
    }
    assert!(world.seen.borrow().report.is_none(), "it is slow, not stalled");
    world.advance(Duration::from_secs(3));
    assert_eq!(world.report().cause, Cause::WriteStall);
}

#[test]
fn handshakes_that_fail() {
    let authority = Authority::new();
    let rows: [(&str, &[u8], HandshakeError); 5] = [
        ("plain HTTP", REQUEST, HandshakeError::Tls(TlsError::NotTls)),
        ("garbage", &[0xaa; 64], HandshakeError::Tls(TlsError::NotTls)),
        ("a record that is no handshake", b"\x17\x03\x03\x00\x02ab", HandshakeError::Tls(TlsError::Protocol)),
        ("an alert", b"\x15\x03\x03\x00\x02\x02\x28", HandshakeError::Tls(TlsError::Alert(40))),
        ("FIN", b"", HandshakeError::PeerFin),
    ];
    for (name, bytes, expected) in rows {
        let tls = ServerTls::new(authority.identity_for(&["localhost"]));
        let peer = Peer::client(peer::client_config(&authority), "localhost");
        let mut world = World::server(Config::default(), &tls, peer);
        let socket = world.socket();
        socket.input = bytes.to_vec();
        socket.eof = bytes.is_empty();
        world.turn(Readiness { readable: true, ..Readiness::default() });
        assert_eq!(world.seen.borrow().failed, Some(expected), "{name}");
        let alerted = world.socket().written.first() == Some(&0x15);
        assert_eq!(
            alerted,
            matches!(expected, HandshakeError::Tls(TlsError::NotTls | TlsError::Protocol)),
            "{name}"
        );
        assert_eq!(world.driver.stats().total(), 0, "{name}");
    }
    // Nobody comes, or nobody goes on.
    for bytes in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let tls = ServerTls::new(authority.identity_for(&["localhost"]));
        let peer = Peer::client(peer::client_config(&authority), "localhost");
        let mut world = World::server(Config::default(), &tls, peer);
        world.socket().input = bytes.to_vec();
        world.turn(Readiness { readable: true, ..Readiness::default() });
        world.clock.pass(Duration::from_secs(10));
        world.turn(Readiness::default());
        world.turn(Readiness::default());
        assert_eq!(world.seen.borrow().failed, Some(HandshakeError::Timeout));
        assert_eq!(world.driver.stats().total(), 0, "there is nobody to be told");
        assert!(world.socket().written.is_empty());
    }
}

#[test]
fn a_name_without_certificate_and_a_peer_that_does_not_believe() {
    let (authority, other) = (Authority::new(), Authority::named("another root"));
    let known = authority.identity_for(&["known.example"]);
    let tls = ServerTls::new(Identities::by_name(move |name| {
        (name == Some("known.example")).then(|| known.clone())
    }));
    let rows = [
        ("known.example", &authority, None),
        ("other.example", &authority, Some(TlsError::NoIdentity)),
        ("known.example", &other, Some(TlsError::Alert(48))),
    ];
    for (name, believes, expected) in rows {
        let peer = Peer::client(peer::client_config(believes), name);
        let mut world = World::server(Config::default(), &tls, peer);
        world.peer.send(REQUEST);
        world.settle();
        assert_eq!(world.seen.borrow().failed, expected.map(HandshakeError::Tls), "{name}");
        let tls = world.seen.borrow().tls.clone();
        assert_eq!(tls.as_ref().and_then(TlsSession::server_name), expected.is_none().then_some(name));
        assert!(tls.is_none_or(|tls| tls.version() == TlsVersion::V1_3 && tls.protocol().is_none()));
    }
}

#[test]
fn a_handshake_has_a_size() {
    let mut world = World::fresh(Config::default());
    // A ClientHello of 65,535 bytes, a byte in each record.
    world.socket().input.extend_from_slice(b"\x16\x03\x01\x00\x04\x01\x00\xff\xff");
    for turns in 0.. {
        assert!(turns < 100, "it is bounded");
        for _ in 0..10_000 {
            world.socket().input.extend_from_slice(b"\x16\x03\x01\x00\x01a");
        }
        world.turn(Readiness { readable: true, ..Readiness::default() });
        if world.seen.borrow().failed.is_some() {
            break;
        }
    }
    assert_eq!(world.seen.borrow().failed, Some(HandshakeError::Tls(TlsError::Protocol)));
}

#[test]
fn key_updates_cost_a_bounded_memory() {
    let mut world = World::open(Config::default());
    (world.takes, world.socket().room) = (0, 0);
    for _ in 0..1_000 {
        world.peer.update_keys();
        world.peer.send(&frame(0x8a, b""));
        world.settle();
    }
    world.takes = usize::MAX;
    world.settle();
    assert!(world.down.len() < 10_000, "{} bytes were written", world.down.len());
    world.peer.send(&frame(0x81, b"hello"));
    world.settle();
    assert_eq!(world.peer.received, b"\x81\x05hello");
}

#[test]
fn the_soft_sweep_closes_unfinished_handshakes_and_the_others_in_order() {
    let mut world = World::fresh(Config::default());
    world.gets = 10;
    world.carry();
    world.driver.act(&mut world.handler, |clients, _| {
        clients.shutdown(adjourn::ShutdownPlan::soft(Duration::from_secs(1)));
    });
    world.turn(Readiness::default());
    world.turn(Readiness::default());
    assert_eq!(world.seen.borrow().failed, Some(HandshakeError::ShuttingDown));
    assert_eq!(world.driver.stats().total(), 0);
    let mut world = World::open(Config::default());
    world.act(|clients, _| clients.shutdown(adjourn::ShutdownPlan::soft(Duration::from_secs(1))));
    world.advance(Duration::from_millis(1));
    assert_eq!(world.peer.received, b"\x88\x02\x03\xe9");
    world.peer.send(&frame(0x88, &1001_u16.to_be_bytes()));
    world.settle();
    assert_eq!(world.report().cause, Cause::ShutdownSoft);
    assert!(world.peer.closed);
}
