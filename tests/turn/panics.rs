//! A panic in a callback that the application catches around the turn (3.5).

use std::collections::VecDeque;
use std::panic::AssertUnwindSafe;
use std::panic::catch_unwind;

use adjourn::{
    Clients, CloseFrame, Config, Event, Handler, ShutdownPlan,
    close::CloseTiming,
    config::OnOverflow,
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    shutdown::Pace,
    testing::{Clock, Memory, REQUEST, Session, frame},
};

use crate::app::{App, MS, READABLE, SECOND, address, config, nothing, open, open_at, rest, text_of, turn};

#[test]
fn nothing_of_a_read_is_lost_to_a_panic() {
    let app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, message, .. } = event {
            assert_ne!(message.as_text(), Some("panic"), "as it was asked to");
            clients.send(*id, message).expect("room");
        }
    });
    let mut session = Session::open(Config::default(), app);
    let bytes = [frame(0x81, b"one"), frame(0x81, b"panic"), frame(0x81, b"two"), frame(0x81, b"three")];
    let panic = catch_unwind(AssertUnwindSafe(|| session.read(&bytes.concat())));
    assert!(panic.is_err());
    session.turn();
    session.read(&frame(0x81, b"four"));
    assert_eq!(session.take_written(), b"\x81\x03one\x81\x03two\x81\x05three\x81\x04four");
}

/// It is another connection's callback that panics.
#[test]
fn a_panic_takes_nothing_from_other_connections() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, message, .. } = event {
            assert_ne!(message.as_text(), Some("panic"), "as it was asked to");
            clients.send(*id, message).expect("room");
        }
    });
    let mut driver = open(Config::default(), 3, &mut app);
    for (slot, text) in ["one", "panic", "two"].into_iter().enumerate() {
        let socket = driver.transport().socket(slot);
        socket.written.clear();
        socket.input = frame(0x81, text.as_bytes());
    }
    driver.begin_turn(&mut app);
    driver.ready(0, READABLE, &mut app);
    assert!(catch_unwind(AssertUnwindSafe(|| driver.ready(1, READABLE, &mut app))).is_err());
    driver.ready(2, READABLE, &mut app);
    driver.end_turn(&mut app);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(driver.transport().socket(0).written, b"\x81\x03one");
    assert_eq!(driver.transport().socket(2).written, b"\x81\x03two");
    assert_eq!(driver.stats().open, 3);
}

#[test]
fn a_panic_in_on_upgrade_is_answered_with_500() {
    struct Refuses;

    impl Handler for Refuses {
        type Data = ();

        fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            panic!("as it was asked to")
        }

        fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
            assert!(matches!(event, Event::HandshakeFailed { .. }), "{event:?}");
        }
    }

    let mut session = Session::new(Config::default(), Refuses);
    assert!(catch_unwind(AssertUnwindSafe(|| session.read(REQUEST))).is_err());
    session.turn();
    assert!(session.take_written().starts_with(b"HTTP/1.1 500 "));
    session.end();
}

/// When the callback of a large message panicked, the frames after it stayed in the socket until the next readiness
/// event (3.5).
#[test]
fn after_a_panic_on_a_large_message_the_socket_is_read_on() {
    let app = App::new(|_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { message, .. } = event {
            assert!(message.len() < 1000, "as it was asked to");
        }
    });
    let mut session = Session::open(Config::default(), app);
    let bytes = [frame(0x82, &vec![0; 200_000]), frame(0x81, b"hello")].concat();
    assert!(catch_unwind(AssertUnwindSafe(|| session.read(&bytes))).is_err());
    session.turn();
    session.turn();
    assert_eq!(session.socket().input.len(), 0, "unread");
    assert_eq!(session.handler().count("Message"), 2);
}

/// After a panic in `on_upgrade` the FIN after the request was not read. The refused connection lingered for its
/// whole time and was then closed with unread input, which reset the answer away (3.5, 7.2).
#[test]
fn after_a_panic_in_on_upgrade_the_socket_is_read_on() {
    struct Panics;

    impl Handler for Panics {
        type Data = ();

        fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            panic!("as it was asked to")
        }

        fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
    }

    let mut session = Session::new(Config::default(), Panics);
    session.socket().eof = true;
    session.socket().input = REQUEST.to_vec();
    let ready = Readiness { readable: true, writable: false, ended: true };
    assert!(catch_unwind(AssertUnwindSafe(|| session.ready(ready))).is_err());
    session.turn();
    session.turn();
    assert!(session.take_written().starts_with(b"HTTP/1.1 500 "));
    assert!(session.is_gone(), "the FIN is there");
}

/// When the `Open` callback of a client connection panicked, the next turn parsed the HTTP response again, as frames,
/// and failed the connection with 1002 (4.1).
#[test]
fn after_a_panic_on_open_a_client_goes_on() {
    let mut panicked = false;
    let app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if matches!(event, Event::Open { .. }) && !panicked {
            panicked = true;
            panic!("as it was asked to");
        }
    });
    let request = ConnectRequest::new("ws://127.0.0.1:9001/").expect("a URL");
    let (mut session, _) = Session::connect(Config::default(), request, (), app);
    session.socket().connected = Some(true);
    session.ready(Readiness { writable: true, ..Readiness::default() });
    let written = String::from_utf8(session.take_written()).expect("ASCII");
    let key = written.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    let head = format!(
        "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    );
    let bytes = [head.as_bytes(), b"\x81\x05hello"].concat();
    assert!(catch_unwind(AssertUnwindSafe(|| session.read(&bytes))).is_err());
    session.turn();
    assert_eq!(session.handler().events, ["Open", "Message"]);
    assert_eq!(session.stats().open, 1);
}

/// When a callback panicked while the request of another connection was being read, that request was kept as if it
/// were incomplete: a whole request, sent in time, ended in a 408 (4.1).
#[test]
fn after_a_panic_the_request_of_another_connection_is_answered() {
    let mut app = App::new(|_: &mut Clients<'_, ()>, event: &Event<'_>| {
        assert!(!matches!(event, Event::HandshakeFailed { .. }), "as it was asked to");
    });
    let config = config(|config| config.event_loop.max_connections_per_address = Some(1));
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    let slot = driver.accept(address()).expect("room");
    driver.transport().socket(slot).input = REQUEST.to_vec();
    let panic = catch_unwind(AssertUnwindSafe(|| {
        driver.begin_turn(&mut app);
        assert_eq!(driver.accept(address()), None);
        driver.ready(slot, READABLE, &mut app);
    }));
    assert!(panic.is_err());
    turn(&mut driver, &mut app, &[]);
    rest(&mut driver, &mut app);
    assert_eq!(app.events, ["HandshakeFailed", "Open"]);
}

/// Messages that were kept after a panic were delivered first in the next turn, and panicked again. For as long as a
/// peer had such messages, no turn reached the sockets, commands and deadlines (3.5).
#[test]
fn a_peer_whose_messages_panic_does_not_keep_the_turn() {
    let mut app = App::new(|_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { message, .. } = event {
            assert_ne!(message.as_text(), Some("panic"), "as it was asked to");
        }
    });
    let mut driver = open(Config::default(), 2, &mut app);
    driver.transport().socket(0).input = frame(0x81, b"panic").repeat(100);
    driver.transport().socket(1).input = frame(0x81, b"hello");
    // As in `Server`, a readiness event is kept until it was handled.
    let mut ready = VecDeque::from([0, 1]);
    let mut ends = 0;
    for _ in 0..20 {
        let _ = catch_unwind(AssertUnwindSafe(|| {
            driver.begin_turn(&mut app);
            while let Some(slot) = ready.pop_front() {
                driver.ready(slot, READABLE, &mut app);
            }
            driver.end_turn(&mut app);
            ends += 1;
        }));
    }
    assert_eq!(
        driver.transport().socket(1).input.len(),
        0,
        "unread after 20 turns, of which {ends} came to their end"
    );
}

/// The hard sweep ended its connections after the predicates of other sweeps were asked, so each panic of a predicate
/// delayed it by a turn (8.7).
#[test]
fn a_predicate_that_panics_does_not_delay_the_hard_sweep() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 50, &mut app);
    driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| panic!("as it was asked to"));
    driver.clients().shutdown(ShutdownPlan::soft(10 * SECOND));
    driver.clients().abort();
    for _ in 0..10 {
        let _ = catch_unwind(AssertUnwindSafe(|| turn(&mut driver, &mut app, &[])));
    }
    assert_eq!(driver.stats().open, 0);
}

/// When a slow callback closed a connection and panicked, `close_timeout` was not counted from the end of that
/// callback (3.3).
#[test]
fn close_timeout_begins_when_the_callback_ends_by_a_panic() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            let timing = CloseTiming { close_timeout: Some(400 * MS), flush_budget: None };
            clients.close_with(*id, CloseFrame::NORMAL, timing);
            slow.pass(600 * MS);
            panic!("as it was asked to");
        }
    });
    let mut driver = open_at(Config::default(), 1, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"go");
    let panic = catch_unwind(AssertUnwindSafe(|| turn(&mut driver, &mut app, &[(0, READABLE)])));
    assert!(panic.is_err());
    turn(&mut driver, &mut app, &[]);
    clock.pass(20 * MS);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(driver.stats().closing, 1, "20 ms of 400 have passed: {:?}", app.closed);
}

/// 3.5: a connection whose callback terminated it and panicked was forgotten if another one was read before the turn had its end.
#[test]
fn a_connection_terminated_before_a_panic_ends_although_another_is_read() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            if text_of(event) == b"pause" {
                clients.pause(*id);
                return;
            }
            let other = clients.iter().map(|client| client.id()).find(|other| other != id).expect("two");
            clients.resume(other);
            clients.terminate(*id);
            panic!("as it was asked to");
        }
    });
    let mut driver = open(Config::default(), 2, &mut app);
    driver.transport().socket(1).input = frame(0x81, b"pause");
    turn(&mut driver, &mut app, &[(1, READABLE)]);
    driver.transport().socket(0).input = frame(0x81, b"go");
    assert!(catch_unwind(AssertUnwindSafe(|| turn(&mut driver, &mut app, &[(0, READABLE)]))).is_err());
    rest(&mut driver, &mut app);
    assert_eq!(app.count("Close"), 1, "3: in the same turn");
}

/// 3.5: a second panic, at the end of the turn that the first one had left, made the loop forget what was to be read.
#[test]
fn after_two_panics_the_socket_is_read_on() {
    let mut panics = 2;
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event
            && panics == 2
        {
            panics -= 1;
            let other = clients.iter().map(|client| client.id()).find(|other| other != id).expect("two");
            clients.close(other, CloseFrame::NORMAL);
            panic!("as it was asked to");
        }
        if let Event::Closing { .. } = event
            && panics == 1
        {
            panics -= 1;
            panic!("as it was asked to");
        }
    });
    let mut driver = open(Config::default(), 2, &mut app);
    driver.transport().socket(0).input = frame(0x81, b"hello").repeat(2);
    assert!(catch_unwind(AssertUnwindSafe(|| turn(&mut driver, &mut app, &[(0, READABLE)]))).is_err());
    driver.transport().socket(0).input = frame(0x81, b"hello");
    assert!(catch_unwind(AssertUnwindSafe(|| turn(&mut driver, &mut app, &[]))).is_err());
    rest(&mut driver, &mut app);
    assert_eq!(app.count("Message"), 3, "nothing that was received is lost");
}

/// 9: a predicate that panicked for everybody stopped all reads until it had been asked about everybody.
#[test]
fn a_predicate_that_panics_does_not_stop_the_reads() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 50, &mut app);
    driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| panic!("as it was asked to"));
    let mut ready = Vec::new();
    for _ in 0..10 {
        // As `Server::poll` does.
        let _ = catch_unwind(AssertUnwindSafe(|| {
            if ready.is_empty() {
                driver.transport().socket(0).input = frame(0x81, b"hello");
                ready.push(0);
            }
            driver.begin_turn(&mut app);
            while let Some(slot) = ready.pop() {
                driver.ready(slot, READABLE, &mut app);
            }
            driver.end_turn(&mut app);
        }));
    }
    assert!(app.count("Message") >= 4, "{} messages in ten turns", app.count("Message"));
}

/// What a panic left unparsed of a connection that failed in the same callback was held for ever, and not counted (4.10, 5.4).
#[test]
fn what_comes_after_a_failure_is_counted_behind_a_panic() {
    let app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            clients.send(*id, [0; 1000].as_slice()).expect("as it was asked to");
        }
    });
    let config = config(|config| {
        (config.connection.max_backlog, config.connection.on_overflow) = (100, OnOverflow::Fail);
    });
    let mut session = Session::open(config, app);
    let bytes = [frame(0x81, b"one"), frame(0x81, b"two"), frame(0x81, b"three")].concat();
    assert!(catch_unwind(AssertUnwindSafe(|| session.read(&bytes))).is_err());
    session.turn();
    let lost = session.handler().closed.first().expect("failed").lost;
    assert_eq!(lost.trailing_bytes, 20, "two frames");
}
