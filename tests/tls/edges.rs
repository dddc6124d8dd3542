//! A poll says once that a socket has something. Whatever is in the ciphertext that came by then is found without being told again.

use adjourn::{
    Config,
    close::Cause,
    error::{HandshakeError, TlsError},
    hub::Readiness,
    testing::{REQUEST, frame},
    tls::ServerTls,
};

use crate::{certificates::Authority, memory::World, peer, peer::Peer};

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
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let peer = Peer::client(peer::client_config(&authority), "localhost");
    let mut world = World::server(Config::default(), &tls, peer);
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
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let peer = Peer::client(peer::client_config(&authority), "localhost");
    let mut world = World::server(Config::default(), &tls, peer);
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
