//! Which connection is meant when a slot is used again (1.1).

use std::io::ErrorKind;

use adjourn::{
    Clients, CloseFrame, Config, Event, Handler,
    http::ConnectRequest,
    hub::{Driver, Readiness},
    testing::{Clock, Memory, REQUEST, frame},
};

use crate::app::{App, MS, READABLE, SECOND, address, config, id_of, nothing, open, open_at, rest, turn};

const ENDED: Readiness = Readiness { ended: true, ..READABLE };

/// In a turn that has begun, slot 0 is that of a new connection: the one before it has left, and was closed by `begin_turn`.
fn give_out_again<H: Handler<Data = ()>>(driver: &mut Driver<(), Memory>, app: &mut H) {
    // The FIN is read in the next turn, because one read is the share of a turn.
    let socket = driver.transport().socket(0);
    (socket.input, socket.eof) = (frame(0x8A, b""), true);
    turn(driver, app, &[(0, ENDED)]);
    assert_eq!(driver.stats().open, 2);
    for _ in 0..3 {
        driver.begin_turn(app);
        if driver.stats().total() == 1 {
            break;
        }
        driver.end_turn(app);
    }
    let slot = driver.accept(address()).expect("room");
    assert_eq!(slot, 0, "freed by begin_turn, and given out again");
}

/// An event fetched for a socket that was closed in the same turn was taken for one of the new connection in its
/// slot. If that event said that the peer had left, the newcomer's input was discarded `close_timeout` after its
/// first pause (1.1).
#[test]
fn a_stale_event_does_not_say_that_a_newcomer_has_left() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            clients.pause(*id);
        }
    });
    let mut driver = open(config(|config| config.event_loop.reads_per_turn = 1), 2, &mut app);
    let clock = driver.transport().clock.clone();
    give_out_again(&mut driver, &mut app);
    *driver.transport().socket(0) = adjourn::testing::Socket::default();
    driver.ready(0, ENDED, &mut app);
    driver.end_turn(&mut app);
    driver.transport().socket(0).input = REQUEST.to_vec();
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    driver.transport().socket(0).input = frame(0x81, b"pause");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    rest(&mut driver, &mut app);
    assert_eq!(driver.stats().open, 2);
    clock.pass(20 * SECOND);
    turn(&mut driver, &mut app, &[]);
    rest(&mut driver, &mut app);
    let id = id_of(&mut driver, 0);
    driver.clients().resume(id);
    driver.transport().socket(0).input = frame(0x81, b"hello");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(app.count("Message"), 2, "{:?}", app.closed);
}

/// The same event, when the newcomer's request has arrived and its upgrade is deferred, so that nothing more is read of it: a client
/// that waited was refused as one that had left (1.1).
#[test]
fn a_stale_event_does_not_end_a_newcomer_that_waits_for_the_application() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.event_loop.reads_per_turn = 1), 2, &mut app);
    give_out_again(&mut driver, &mut app);
    app.defers = true;
    *driver.transport().socket(0) =
        adjourn::testing::Socket { input: REQUEST.to_vec(), ..Default::default() };
    driver.ready(0, ENDED, &mut app);
    driver.end_turn(&mut app);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    rest(&mut driver, &mut app);
    assert_eq!((app.count("HandshakeFailed"), driver.stats().total()), (0, 2));
}

/// A connect attempt that failed at once in the turn in which its deadline was due was counted as two failures, and
/// the second took an address that had not been tried (3.5).
#[test]
fn an_address_is_not_skipped_for_a_failure_of_another() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { .. } = event {
            slow.pass(4 * SECOND);
        }
    });
    let config = config(|config| config.client.connect_timeout = 9 * SECOND);
    let mut driver = open_at(config, 1, &mut app, &clock);
    let request = ConnectRequest::new("ws://example.org:9/").expect("a URL");
    let id = driver.connect(request, ()).expect("room");
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(id.slot()).fails_at_once = [ErrorKind::ConnectionRefused; 3].into();
    driver.transport().socket(0).input = frame(0x81, b"go");
    driver.begin_turn(&mut app);
    driver.handle_resolved(id, (1..=3).map(|host| ([10, 0, 0, host], 9).into()).collect());
    driver.ready(0, READABLE, &mut app);
    driver.end_turn(&mut app);
    rest(&mut driver, &mut app);
    let targets = driver.transport().socket(id.slot()).targets;
    assert_eq!(targets, 1 + 3, "the name, and three addresses");
}

/// An attempt that failed at once in the turn in which its deadline was due was counted against the next one, which was
/// under way already: its address was given up (3.5).
#[test]
fn a_failure_is_not_that_of_the_next_address() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { .. } = event {
            slow.pass(4 * SECOND);
        }
    });
    let config = config(|config| config.client.connect_timeout = 9 * SECOND);
    let mut driver = open_at(config, 1, &mut app, &clock);
    let request = ConnectRequest::new("ws://example.org:9/").expect("a URL");
    let id = driver.connect(request, ()).expect("room");
    turn(&mut driver, &mut app, &[]);
    let socket = driver.transport().socket(id.slot());
    (socket.fails_at_once, socket.targets) = ([ErrorKind::ConnectionRefused].into(), 0);
    driver.handle_resolved(id, (1..=3).map(|host| ([10, 0, 0, host], 9).into()).collect());
    driver.begin_turn(&mut app);
    assert_eq!(driver.transport().socket(id.slot()).targets, 1, "it has failed");
    driver.transport().socket(0).input = frame(0x81, b"slow");
    driver.ready(0, READABLE, &mut app);
    driver.end_turn(&mut app);
    rest(&mut driver, &mut app);
    let socket = driver.transport().socket(id.slot());
    assert_eq!((socket.targets, socket.target.as_deref()), (2, Some("10.0.0.2:9")), "under way");
}

/// The transport for tests, `Memory`, kept the unread input, the FIN and the error of a closed connection for the
/// next one in its slot. `Transport::close` says that it forgets them.
#[test]
fn memory_forgets_a_connection_that_is_closed() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 1, &mut app);
    driver.transport().socket(0).eof = true;
    turn(&mut driver, &mut app, &[(0, Readiness { ended: true, ..READABLE })]);
    rest(&mut driver, &mut app);
    assert_eq!(driver.stats().total(), 0);
    let slot = driver.accept(address()).expect("room");
    driver.transport().socket(slot).input = REQUEST.to_vec();
    turn(&mut driver, &mut app, &[(slot, Readiness { ended: true, ..READABLE })]);
    rest(&mut driver, &mut app);
    assert_eq!(driver.stats().open, 1, "{:?}", app.events);
}

/// 3.3: a connection in a slot that was used again before the clock ticked had its timers shifted for its predecessor, too.
#[test]
fn timers_of_a_newcomer_are_not_shifted_for_the_one_before() {
    let clock = Clock::default();
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Close { id, .. } = event
            && id.slot() == 0
        {
            let other = clients.iter().map(|client| client.id()).find(|id| id.slot() == 1).expect("two");
            clients.close(other, CloseFrame::NORMAL);
            clients.terminate(other);
        }
    });
    let config = config(|config| config.client.connect_timeout = 10 * SECOND);
    let mut driver = open_at(config, 3, &mut app, &clock);
    let id = id_of(&mut driver, 0);
    driver.clients().terminate(id);
    driver.begin_turn(&mut app);
    assert_eq!(driver.stats().total(), 1);
    let slow = clock.clone();
    driver.act(&mut app, |clients, _| {
        for _ in 0..2 {
            let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
            clients.connect(request, ()).expect("room");
        }
        slow.pass(5 * SECOND);
    });
    driver.end_turn(&mut app);
    rest(&mut driver, &mut app);
    clock.pass(10 * SECOND + 100 * MS);
    turn(&mut driver, &mut app, &[]);
    rest(&mut driver, &mut app);
    assert_eq!(app.count("HandshakeFailed"), 2, "10.1 s after the callback returned");
}

/// 4.11: an event of the connection that had the slot before said of a connection of ours that its server had left.
#[test]
fn a_stale_event_does_not_say_that_a_server_has_left() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| match event {
        Event::Open { id } if id.slot() == 0 => {
            clients.pause(*id);
        }
        _ => {}
    });
    let clock = Clock::default();
    let mut driver = open_at(Config::default(), 2, &mut app, &clock);
    let id = id_of(&mut driver, 0);
    driver.clients().terminate(id);
    driver.begin_turn(&mut app);
    assert_eq!(driver.stats().total(), 1);
    *driver.transport().socket(0) = adjourn::testing::Socket::default();
    let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
    let id = driver.act(&mut app, |clients, _| clients.connect(request, ()).expect("room"));
    assert_eq!(id.slot(), 0);
    driver.ready(0, ENDED, &mut app);
    driver.end_turn(&mut app);
    driver.transport().socket(0).connected = Some(true);
    turn(&mut driver, &mut app, &[(0, Readiness { writable: true, ..Readiness::default() })]);
    let written = String::from_utf8(driver.transport().socket(0).written.clone()).expect("ASCII");
    let key = written.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    driver.transport().socket(0).input = format!(
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .into_bytes();
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(driver.stats().open, 2);
    for _ in 0..10 {
        clock.pass(2 * SECOND);
        turn(&mut driver, &mut app, &[]);
        rest(&mut driver, &mut app);
    }
    driver.clients().resume(id);
    driver.transport().socket(0).input = b"\x81\x05hello".to_vec();
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    rest(&mut driver, &mut app);
    assert_eq!(app.count("Message"), 1, "{:?}", app.closed);
}

/// `max_handshakes` took the smallest generation for the oldest handshake, so the newest one was evicted after
/// generations had wrapped (4.1).
#[test]
fn the_oldest_handshake_is_evicted_also_when_generations_wrap() {
    let mut app = nothing();
    let config = config(|config| config.event_loop.max_handshakes = Some(2));
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    driver.continue_generations(u32::MAX - 2);
    let slots: Vec<_> = (0..3).map(|_| driver.accept(address()).expect("room")).collect();
    turn(&mut driver, &mut app, &[]);
    let closed: Vec<_> = slots.iter().map(|slot| driver.transport().socket(*slot).closed.is_some()).collect();
    assert_eq!(closed, [true, false, false]);
}
