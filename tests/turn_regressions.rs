//! Bugs of the turn, in virtual time. Each test is named after the rule that holds now; the comment above it says what was
//! wrong. Numbers in comments are rules of `docs/specification.md`.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    io::ErrorKind,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, Event, Handler, ShutdownPlan,
    close::{Cause, CloseTiming},
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    shutdown::Pace,
    testing::{Clock, Memory, REQUEST, Session, frame},
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
const READABLE: Readiness = Readiness { readable: true, writable: false, ended: false };

/// Calls `act` at each event, and records the names of the events and the reports of the ends.
struct App<F> {
    act: F,
    closed: Vec<CloseReport>,
    events: Vec<String>,
}

impl<F: FnMut(&mut Clients<'_, ()>, &Event<'_>)> App<F> {
    fn new(act: F) -> Self {
        Self { act, closed: Vec::new(), events: Vec::new() }
    }

    fn count(&self, what: &str) -> usize {
        self.events.iter().filter(|event| *event == what).count()
    }
}

impl<F: FnMut(&mut Clients<'_, ()>, &Event<'_>)> Handler for App<F> {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        let text = format!("{event:?}");
        self.events.push(text.split([' ', '{']).next().unwrap_or_default().to_owned());
        (self.act)(clients, &event);
        if let Event::Close { report: closed, .. } = event {
            self.closed.push(*closed);
        }
    }
}

fn nothing() -> App<impl FnMut(&mut Clients<'_, ()>, &Event<'_>)> {
    App::new(|_: &mut Clients<'_, ()>, _: &Event<'_>| {})
}

fn config(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

fn address() -> SocketAddr {
    ([127, 0, 0, 1], 40_000).into()
}

fn turn<H: Handler<Data = ()>>(
    driver: &mut Driver<(), Memory>,
    handler: &mut H,
    ready: &[(usize, Readiness)],
) {
    driver.begin_turn(handler);
    for (slot, readiness) in ready {
        driver.ready(*slot, *readiness, handler);
    }
    driver.end_turn(handler);
}

fn rest<H: Handler<Data = ()>>(driver: &mut Driver<(), Memory>, handler: &mut H) {
    for _ in 0..100 {
        if !driver.has_more() {
            return;
        }
        turn(driver, handler, &[]);
    }
}

/// A loop with `n` open connections, on `clock`.
fn open_at<H: Handler<Data = ()>>(
    config: Config,
    n: usize,
    handler: &mut H,
    clock: &Clock,
) -> Driver<(), Memory> {
    let mut driver = Driver::new(config, 0, 1, Memory::new(clock));
    for _ in 0..n {
        let slot = driver.accept(address()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        turn(&mut driver, handler, &[(slot, READABLE)]);
        rest(&mut driver, handler);
    }
    assert_eq!(driver.stats().open, n);
    driver
}

fn open<H: Handler<Data = ()>>(config: Config, n: usize, handler: &mut H) -> Driver<(), Memory> {
    open_at(config, n, handler, &Clock::default())
}

fn id_of(driver: &mut Driver<(), Memory>, slot: usize) -> adjourn::ConnectionId {
    driver.clients().iter().find(|client| client.id().slot() == slot).expect("open").id()
}

fn unread(driver: &mut Driver<(), Memory>) -> usize {
    driver.transport().sockets.iter().map(|socket| socket.input.len()).sum()
}

// What a turn may do.

/// A command of another thread delivered all waiting events at once, also in a turn that had used up `turn_callbacks`
/// (3.5).
#[test]
fn a_command_delivers_no_more_than_a_turn_may() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.turn_callbacks = 10), 200, &mut app);
    let ids: Vec<_> = driver.clients().iter().map(|client| client.id()).collect();
    for id in ids {
        driver.clients().close(id, CloseFrame::NORMAL);
    }
    let before = app.events.len();
    driver.begin_turn(&mut app);
    driver.act(&mut app, |_, _| {});
    driver.end_turn(&mut app);
    let n = app.events.len() - before;
    assert!(n <= 20, "{n} callbacks in a turn of 10");
}

/// A handler that began a connect and closed it in each `HandshakeFailed` caused the next `HandshakeFailed` at once,
/// so the turn never ended and no slot was freed (3.5).
#[test]
fn connects_given_up_on_each_failure_do_not_keep_the_turn() {
    const STOP: usize = 20_000;
    let mut calls = 0;
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if matches!(event, Event::Message { .. } | Event::HandshakeFailed { .. }) && calls < STOP {
            calls += 1;
            let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
            let id = clients.connect(request, ()).expect("room");
            clients.close(id, CloseFrame::NORMAL);
        }
    });
    let mut driver = open(Config::default(), 1, &mut app);
    driver.transport().socket(0).input = frame(0x81, b"go");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    let n = app.count("HandshakeFailed");
    assert!(n <= 2 * 4096, "{n} callbacks in one turn");
}

/// All connects that a callback asked for were begun in one turn, however many they were, and the next turn retried
/// all that had failed (3.5).
#[test]
fn connects_have_a_budget() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 1, &mut app);
    driver.begin_turn(&mut app);
    driver.act(&mut app, |clients, _| {
        for _ in 0..20_000 {
            let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
            clients.connect(request, ()).expect("room");
        }
    });
    driver.end_turn(&mut app);
    let n: usize = driver.transport().sockets.iter().map(|socket| socket.targets).sum();
    assert!(n <= 4096, "{n} connects in one turn");
}

/// `sweep_slice` bounded each sweep instead of the turn: with many sweeps at a time, each of them asked its predicate
/// a whole slice of questions per turn (9.2).
#[test]
fn many_sweeps_share_the_slice_of_a_turn() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.sweep_slice = 10), 100, &mut app);
    let asked = Rc::new(Cell::new(0));
    for _ in 0..50 {
        let asked = Rc::clone(&asked);
        driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, move |_| {
            asked.set(asked.get() + 1);
            false
        });
    }
    turn(&mut driver, &mut app, &[]);
    assert!(asked.get() <= 20, "{} questions in a turn of 10", asked.get());
}

/// After a failed write the socket was read to its end, without regard to `reads_per_turn` and the budgets of the
/// turn. A peer that filled the receive buffer with small frames and reset caused a million callbacks in one turn
/// (3.5).
#[test]
fn what_is_read_after_a_failed_write_is_bounded() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            let _ = clients.send(*id, "reply");
        }
    });
    let mut driver = open(Config::default(), 1, &mut app);
    let input = frame(0x82, b"").repeat(1_000_000);
    let socket = driver.transport().socket(0);
    (socket.input, socket.error) = (input, Some(ErrorKind::ConnectionReset));
    let before = unread(&mut driver);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    let n = before - unread(&mut driver);
    assert!(n <= 4 * (64 << 10), "{n} bytes read, {} callbacks in one turn", app.events.len());
}

/// While events waited for the next turn, the loop wrote nothing and ended no connection. Refused newcomers that
/// produced events as fast as `turn_callbacks` allowed stopped all output for ever (3.5).
#[test]
fn events_that_wait_do_not_stop_the_writes() {
    let mut app = nothing();
    let config = config(|config| (config.max_connections, config.turn_callbacks) = (2, 100));
    let mut driver = open(config, 2, &mut app);
    let id = id_of(&mut driver, 0);
    let before = driver.transport().socket(0).written.len();
    let newcomers = |driver: &mut Driver<(), Memory>| {
        (0..256).for_each(|_| assert_eq!(driver.accept(address()), None));
    };
    driver.begin_turn(&mut app);
    newcomers(&mut driver);
    driver.end_turn(&mut app);
    driver.clients().send(id, "hello").expect("room");
    for _ in 0..50 {
        driver.begin_turn(&mut app);
        newcomers(&mut driver);
        driver.end_turn(&mut app);
    }
    assert_eq!(driver.transport().socket(0).written.len() - before, 7);
}

/// When a write failed while input was held for the next turn, the held input was dropped, and the peer's Close with
/// it (4.9).
#[cfg(feature = "deflate")]
#[test]
fn a_close_that_is_held_by_the_budget_counts_although_a_write_fails() {
    use adjourn::wire::deflate::codec::Deflater;

    let mut config = config(|config| config.turn_bytes = 1 << 20);
    config.deflate = Some(adjourn::config::Deflate::default());
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            let _ = clients.send(*id, "reply");
        }
    });
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    let slot = driver.accept(address()).expect("room");
    let head = REQUEST.strip_suffix(b"\r\n").expect("an empty line ends it");
    driver.transport().socket(slot).input =
        [head, b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"].concat();
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    let mut bomb = Vec::new();
    assert!(Deflater::new(15, 9).message(&vec![0; 900_000], &mut bomb));
    let close = frame(0x88, &1000_u16.to_be_bytes());
    let socket = driver.transport().socket(slot);
    socket.input = [frame(0xC2, &bomb).repeat(3), close].concat();
    socket.error = Some(ErrorKind::BrokenPipe);
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    rest(&mut driver, &mut app);
    let received: Vec<_> = app.closed.iter().map(|closed| closed.received.is_some()).collect();
    assert_eq!(received, [true], "{:?}", app.closed);
}

/// A message that was read straight into its own buffer was delivered before the events that waited, so that a
/// `Message` marked `closing` preceded its `Closing` (1.3, 1.4).
#[test]
fn a_large_message_does_not_overtake_its_closing() {
    let mut config = config(|config| config.turn_callbacks = 1);
    config.read_buffer = 64 << 10;
    let shared = Rc::new(RefCell::new(Vec::new()));
    let events = Rc::clone(&shared);
    let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| match event {
        Event::Closing { id, .. } if id.slot() == 1 => events.borrow_mut().push("Closing".to_owned()),
        Event::Message { closing, .. } => events.borrow_mut().push(format!("Message {closing}")),
        _ => {}
    });
    let mut driver = open(config, 2, &mut app);
    let message = frame(0x82, &vec![0; 100_000]);
    driver.transport().socket(1).input = message[..60_000].to_vec();
    turn(&mut driver, &mut app, &[(1, READABLE)]);
    rest(&mut driver, &mut app);
    let (other, id) = (id_of(&mut driver, 0), id_of(&mut driver, 1));
    driver.clients().close(other, CloseFrame::NORMAL);
    let timing = CloseTiming { close_timeout: Some(Duration::ZERO), flush_budget: None };
    driver.clients().close_with(id, CloseFrame::NORMAL, timing);
    driver.transport().socket(1).input = message[60_000..].to_vec();
    for _ in 0..5 {
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(*shared.borrow(), ["Closing", "Message true"]);
}

// Deadlines.

/// A loop whose streams used up `turn_bytes` in every turn ended one due connection per turn, so deadlines became
/// late without bound (3.3, 3.5).
#[test]
fn deadlines_are_served_beside_endless_streams() {
    let mut streams = 0;
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| match event {
        Event::Open { id } if streams < 40 => {
            streams += 1;
            let _ = clients.send(*id, vec![b'x'; 256 << 10]);
        }
        Event::Drain { id } => {
            let _ = clients.send(*id, vec![b'x'; 256 << 10]);
        }
        _ => {}
    });
    let mut driver = Driver::new(Config::default(), 0, 1, Memory::default());
    for _ in 0..340 {
        let slot = driver.accept(address()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        turn(&mut driver, &mut app, &[(slot, READABLE)]);
        turn(&mut driver, &mut app, &[]);
    }
    (0..100).for_each(|_| turn(&mut driver, &mut app, &[]));
    for slot in 40..340 {
        let id = id_of(&mut driver, slot);
        driver.clients().close(id, CloseFrame::NORMAL);
    }
    (0..50).for_each(|_| turn(&mut driver, &mut app, &[]));
    let clock = driver.transport().clock.clone();
    clock.pass(10 * SECOND);
    for _ in 0..50 {
        clock.pass(MS);
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(driver.stats().closing, 0, "50 turns of 1 ms after their close_timeout");
}

/// When a stalled loop continued after the deadline, the probe wrote one turn's share of the backlog and the
/// connection was aborted, although the kernel would have taken everything (3.4).
#[test]
fn a_backlog_that_the_kernel_takes_is_no_close_timeout() {
    let mut session = Session::open(Config::default(), nothing());
    session.socket().room = 0;
    session.act(|clients, _| {
        let id = clients.iter().next().map(|client| client.id()).expect("open");
        clients.send(id, vec![b'x'; 2 << 20]).expect("room");
    });
    session.read(&frame(0x88, &1000_u16.to_be_bytes()));
    session.socket().room = usize::MAX;
    session.clock().pass(60 * SECOND);
    session.turn();
    session.turn();
    let [closed] = &session.handler().closed[..] else { panic!("it has ended") };
    assert_eq!((closed.was_clean(), closed.cause), (true, Cause::PeerClose), "{closed:?}");
}

/// The probe of a close of ours stopped after one turn's share of writes: messages were dropped although the kernel
/// would have taken them and the Close (3.4).
#[test]
fn a_close_of_ours_that_the_kernel_takes_by_shares_is_flushed() {
    let mut session = Session::open(config(|config| config.flush_budget = Some(10 * SECOND)), nothing());
    session.socket().room = 0;
    session.act(|clients, _| {
        let id = clients.iter().next().map(|client| client.id()).expect("open");
        clients.send(id, vec![b'x'; 2 << 20]).expect("room");
        clients.close(id, CloseFrame::NORMAL);
    });
    session.socket().room = usize::MAX;
    session.clock().pass(60 * SECOND);
    session.turn();
    let closed = session.handler().closed.clone();
    assert!(closed.iter().all(|closed| closed.lost.messages == 0 && closed.sent_flushed), "{closed:?}");
}

/// After a stall longer than `connect_timeout`, connects that had succeeded in the meantime were reported as
/// timeouts: the socket was not asked first (3.4).
#[test]
fn a_connect_that_has_succeeded_is_no_connect_timeout() {
    let request = ConnectRequest::new("ws://127.0.0.1:9001/").expect("a URL");
    let (mut session, _) = Session::connect(Config::default(), request, (), nothing());
    session.socket().connected = Some(true);
    session.clock().pass(60 * SECOND);
    session.turn();
    assert_eq!(session.handler().events, [""; 0]);
    assert!(session.take_written().starts_with(b"GET / "));
}

// After a caught panic.

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
    let config = config(|config| config.max_connections_per_address = Some(1));
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

// What a slow callback asks for.

/// A spread began before the callback that asked for it: after a callback of 900 ms, nine in ten connections of a
/// spread over 1 s were closed at once (3.3, 8.5).
#[test]
fn a_spread_begins_when_the_callback_returns() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { .. } = event {
            clients.close_where(CloseFrame::NORMAL, Pace::Spread(SECOND), |_| true);
            slow.pass(900 * MS);
        }
    });
    let mut driver = open_at(Config::default(), 100, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"go");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    let n = driver.stats().closing;
    assert!(n <= 10, "{n} of 100 at once");
}

/// A second close with a shorter `close_timeout` was counted from the time before its callback (3.3).
#[test]
fn a_shorter_close_timeout_begins_when_the_callback_returns() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            slow.pass(300 * MS);
            let timing = CloseTiming { close_timeout: Some(400 * MS), flush_budget: None };
            clients.close_with(*id, CloseFrame::NORMAL, timing);
            slow.pass(300 * MS);
        }
    });
    let mut driver = open_at(Config::default(), 1, &mut app, &clock);
    let id = id_of(&mut driver, 0);
    driver.clients().close(id, CloseFrame::NORMAL);
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(0).input = frame(0x81, b"shorter");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    clock.pass(20 * MS);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(driver.stats().closing, 1, "20 ms of 400 have passed: {:?}", app.closed);
}

/// A stall was counted from the time before the callback that queued the message: after a callback longer than
/// `stall_timeout`, the first refusal of the kernel ended the connection (3.1, 3.3).
#[test]
fn a_stall_begins_when_the_kernel_takes_nothing() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            clients.send(*id, vec![b'x'; 20 << 10]).expect("room");
            slow.pass(600 * MS);
        }
    });
    let config = config(|config| config.stall_timeout = Some(500 * MS));
    let mut driver = open_at(config, 1, &mut app, &clock);
    let socket = driver.transport().socket(0);
    (socket.input, socket.room) = (frame(0x81, b"go"), 0);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(driver.stats().open, 1, "{:?}", app.closed);
}

/// A connect that a slow callback asked for had used up its `connect_timeout` before it was begun (3.3).
#[test]
fn a_connect_timeout_begins_when_the_callback_returns() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { .. } = event {
            let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
            clients.connect(request, ()).expect("room");
            slow.pass(600 * MS);
        }
    });
    let config = config(|config| config.connect_timeout = 500 * MS);
    let mut driver = open_at(config, 1, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"go");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(app.count("HandshakeFailed"), 0, "{:?}", app.events);
}

/// `linger_timeout` was counted from the time before `on_upgrade`: an application that took 3 s to refuse a request
/// had the descriptor closed in the turn of its answer, and input under way reset that answer away (3.1, 7.2).
#[test]
fn a_refused_connection_lingers_after_a_slow_on_upgrade() {
    struct Slow(Option<Clock>);

    impl Handler for Slow {
        type Data = ();

        fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            self.0.iter().for_each(|clock| clock.pass(3 * SECOND));
            Upgrade::Reject(adjourn::http::Response::new(403).expect("a status"))
        }

        fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
    }

    let mut session = Session::new(Config::default(), Slow(None));
    session.handler().0 = Some(session.clock());
    session.read(REQUEST);
    assert!(session.take_written().starts_with(b"HTTP/1.1 403 "));
    assert!(!session.is_gone(), "it lingers");
}

/// Callbacks that a command caused were not measured, so the report named the connection of the next callback, or
/// none, as the one that took long (8.9).
#[test]
fn a_slow_callback_after_a_command_is_reported_for_its_own_connection() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if matches!(event, Event::Closing { .. }) {
            slow.pass(50 * MS);
        }
    });
    let mut driver = open_at(Config::default(), 2, &mut app, &clock);
    let id = id_of(&mut driver, 0);
    driver.transport().socket(1).input = frame(0x81, b"hello");
    driver.begin_turn(&mut app);
    driver.act(&mut app, |clients, _| clients.close(id, CloseFrame::NORMAL));
    driver.ready(1, READABLE, &mut app);
    driver.end_turn(&mut app);
    driver.transport().socket(0).input = frame(0x88, &1000_u16.to_be_bytes());
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    driver.clients().terminate(id);
    driver.clients().shutdown(ShutdownPlan::hard());
    driver.clients().terminate_where(|_| true);
    driver.clients().abort();
    while driver.shutdown_report().is_none() {
        turn(&mut driver, &mut app, &[]);
    }
    let longest = driver.shutdown_report().and_then(|report| report.longest_callback);
    assert_eq!(longest, Some((50 * MS, Some(id))));
}

// Shutdown.

/// The hard sweep probed a whole slice of connections without regard to the budgets of the turn: peers that flooded
/// instead of answering decided how long the turn took, and so when Done came (3.5, 8.7).
#[test]
fn the_probes_of_the_hard_sweep_have_the_budget_of_the_turn() {
    let mut app = nothing();
    let config = config(|config| config.turn_bytes = 1 << 20);
    let mut driver = open(config, 200, &mut app);
    driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| true);
    rest(&mut driver, &mut app);
    for slot in 0..200 {
        driver.transport().socket(slot).input = frame(0x82, b"").repeat(10_000);
    }
    driver.clients().shutdown(ShutdownPlan::hard());
    for _ in 0..100 {
        let (before, events) = (unread(&mut driver), app.events.len());
        turn(&mut driver, &mut app, &[]);
        let n = before - unread(&mut driver);
        let events = app.events.len() - events;
        assert!(n <= (1 << 20) + (256 << 10), "{n} bytes and {events} callbacks in one turn");
    }
}

/// `Handle::ready` stayed true until the turn of the shutdown had ended, also if a handle had asked for it (8.11). A shutdown
/// that the loop's own thread asks for is seen by handles at the end of its turn.
#[test]
fn a_handle_is_not_ready_from_the_call_of_shutdown_on() {
    let mut server = adjourn::Server::<()>::outgoing(Config::default()).expect("a poll");
    let handle = server.handle();
    server.clients().shutdown(ShutdownPlan::soft(10 * SECOND));
    assert!(!server.clients().is_ready());
    server.poll(Some(Duration::ZERO), &mut nothing()).expect("the poll works");
    assert!(!handle.ready(), "asked between two polls");
    let server = adjourn::Server::<()>::outgoing(Config::default()).expect("a poll");
    let handle = server.handle();
    handle.shutdown(ShutdownPlan::hard()).expect("a loop");
    assert!(!handle.ready(), "asked by a handle");
}

// Which connection is meant.

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
    let mut driver = open(config(|config| config.reads_per_turn = 1), 2, &mut app);
    let clock = driver.transport().clock.clone();
    let ended = Readiness { ended: true, ..READABLE };
    // The FIN is read in the next turn, because one read is the share of a turn.
    let socket = driver.transport().socket(0);
    (socket.input, socket.eof) = (frame(0x8A, b""), true);
    turn(&mut driver, &mut app, &[(0, ended)]);
    assert_eq!(driver.stats().open, 2);
    for _ in 0..3 {
        driver.begin_turn(&mut app);
        if driver.stats().total() == 1 {
            break;
        }
        driver.end_turn(&mut app);
    }
    let slot = driver.accept(address()).expect("room");
    assert_eq!(slot, 0, "freed by begin_turn, and given out again");
    *driver.transport().socket(0) = adjourn::testing::Socket::default();
    driver.ready(0, ended, &mut app);
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
    let config = config(|config| config.connect_timeout = 9 * SECOND);
    let mut driver = open_at(config, 1, &mut app, &clock);
    let request = ConnectRequest::new("ws://example.org:9/").expect("a URL");
    let id = driver.connect(request, ()).expect("room");
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(id.slot()).fails_at_once = Some(ErrorKind::ConnectionRefused);
    driver.transport().socket(0).input = frame(0x81, b"go");
    driver.begin_turn(&mut app);
    driver.handle_resolved(id, (1..=3).map(|host| ([10, 0, 0, host], 9).into()).collect());
    driver.ready(0, READABLE, &mut app);
    driver.end_turn(&mut app);
    rest(&mut driver, &mut app);
    let targets = driver.transport().socket(id.slot()).targets;
    assert_eq!(targets, 1 + 3, "the name, and three addresses");
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

// Limits.

/// With `reads_per_turn` above 255 a connection's share of a turn had no end, because the counter stopped there
/// (3.5).
#[test]
fn a_share_of_more_than_255_reads_has_an_end() {
    let mut app = nothing();
    let config = config(|config| {
        (config.reads_per_turn, config.read_buffer) = (300, 512);
        config.turn_callbacks = u32::MAX;
    });
    let mut driver = open(config, 1, &mut app);
    driver.transport().socket(0).input = frame(0x82, b"").repeat(100_000);
    let before = unread(&mut driver);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    let n = before - unread(&mut driver);
    assert!(n <= 300 * 512, "{} reads", n / 512);
}

/// With `write_bytes_per_turn` above 64 MiB a connection's share of a turn had no end, because the counter stopped
/// there (3.5).
#[test]
fn a_share_of_more_than_64_mib_has_an_end() {
    let mut app = nothing();
    let config = config(|config| {
        (config.write_bytes_per_turn, config.turn_bytes) = (65 << 20, 1 << 30);
        config.max_backlog = 1 << 30;
        config.reads_per_turn = 20;
    });
    let mut driver = open(config, 1, &mut app);
    let id = id_of(&mut driver, 0);
    let before = driver.transport().socket(0).written.len();
    for _ in 0..5 {
        driver.clients().send(id, vec![0; 33 << 20]).expect("room");
    }
    turn(&mut driver, &mut app, &[]);
    let n = driver.transport().socket(0).written.len() - before;
    assert!(n <= 66 << 20, "{} MiB", n >> 20);
}

/// With `turn_bytes` or `turn_callbacks` of zero nothing was served and the loop spun (3.5: a bound of zero
/// counts as one).
#[test]
fn budgets_of_zero_do_not_stop_a_loop() {
    for set in [|config: &mut Config| config.turn_bytes = 0, |config: &mut Config| config.turn_callbacks = 0]
    {
        let mut app = nothing();
        let mut driver = Driver::new(config(set), 0, 1, Memory::default());
        let slot = driver.accept(address()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        turn(&mut driver, &mut app, &[(slot, READABLE)]);
        rest(&mut driver, &mut app);
        assert!(!driver.has_more(), "it spins");
        assert_eq!(app.count("Open"), 1);
    }
}

/// `max_handshakes` took the smallest generation for the oldest handshake, so the newest one was evicted after
/// generations had wrapped (4.1).
#[test]
fn the_oldest_handshake_is_evicted_also_when_generations_wrap() {
    let mut app = nothing();
    let config = config(|config| config.max_handshakes = Some(2));
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    driver.continue_generations(u32::MAX - 2);
    let slots: Vec<_> = (0..3).map(|_| driver.accept(address()).expect("room")).collect();
    turn(&mut driver, &mut app, &[]);
    let closed: Vec<_> = slots.iter().map(|slot| driver.transport().socket(*slot).closed.is_some()).collect();
    assert_eq!(closed, [true, false, false]);
}

// What one read brings, and what is left when a slot is used again.

fn text_of(event: &Event<'_>) -> Vec<u8> {
    match event {
        Event::Message { message, .. } => message.as_bytes().to_vec(),
        _ => Vec::new(),
    }
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

/// 3.3: timers that one callback of a read had started were late by all callbacks of that read.
#[test]
fn a_deadline_is_late_by_its_own_callback_only() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            let other = clients.iter().map(|client| client.id()).find(|other| other != id).expect("two");
            clients.close(other, CloseFrame::NORMAL);
            slow.pass(100 * MS);
        }
    });
    let mut driver = open_at(Config::default(), 2, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"x").repeat(50);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    rest(&mut driver, &mut app);
    assert_eq!(clock.now(), 5 * SECOND);
    while clock.now() < 10 * SECOND + 200 * MS {
        clock.pass(10 * MS);
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(
        app.count("Close"),
        1,
        "10.2 s after the callback in which it was closed began, 10.1 s after it returned"
    );
}

/// 3.3: what was asked for between two turns counted as asked for when the next one began.
#[test]
fn what_is_asked_for_between_turns_begins_then() {
    let clock = Clock::default();
    let mut app = nothing();
    let mut driver = open_at(Config::default(), 1, &mut app, &clock);
    let id = id_of(&mut driver, 0);
    driver.clients().close(id, CloseFrame::NORMAL);
    clock.pass(5 * SECOND);
    turn(&mut driver, &mut app, &[]);
    clock.pass(5 * SECOND + 100 * MS);
    turn(&mut driver, &mut app, &[]);
    rest(&mut driver, &mut app);
    assert_eq!(app.count("Close"), 1, "10.1 s after the call");
}

#[test]
fn a_connect_between_turns_begins_then() {
    let clock = Clock::default();
    let mut app = nothing();
    let config = config(|config| config.connect_timeout = 10 * SECOND);
    let mut driver = open_at(config, 1, &mut app, &clock);
    let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
    driver.connect(request, ()).expect("room");
    clock.pass(5 * SECOND);
    turn(&mut driver, &mut app, &[]);
    clock.pass(5 * SECOND + 100 * MS);
    turn(&mut driver, &mut app, &[]);
    rest(&mut driver, &mut app);
    assert_eq!(app.count("HandshakeFailed"), 1, "10.1 s after the call");
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
    let config = config(|config| config.connect_timeout = 10 * SECOND);
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

/// 3.5: messages that were inflated only to be discarded had no budget.
#[cfg(feature = "deflate")]
#[test]
fn what_is_inflated_to_be_discarded_has_a_budget() {
    use adjourn::wire::deflate::codec::Deflater;
    let mut app = nothing();
    let config = config(|config| {
        config.deflate = Some(adjourn::config::Deflate::default());
        config.turn_bytes = 64 << 10;
        config.closing_data = adjourn::config::ClosingData::Discard;
    });
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    let slot = driver.accept(address()).expect("room");
    let head = REQUEST.strip_suffix(b"\r\n").expect("an empty line ends it");
    driver.transport().socket(slot).input =
        [head, b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"].concat();
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    let mut bomb = Vec::new();
    assert!(Deflater::new(15, 9).message(&vec![0; 500_000], &mut bomb));
    let id = id_of(&mut driver, slot);
    driver.clients().close(id, CloseFrame::NORMAL);
    turn(&mut driver, &mut app, &[]);
    let close = frame(0x88, &1000_u16.to_be_bytes());
    driver.transport().socket(slot).input = [frame(0xC2, &bomb).repeat(40), close].concat();
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    let inflated: u64 = app.closed.iter().map(|closed| closed.lost.inbound_bytes).sum();
    assert!(inflated <= 1 << 20, "{inflated} bytes inflated in a turn of 64 KiB");
}

/// 8: the hard sweep had only what judging had left of its budget: one peer that flooded behind its deadline kept it from everybody.
#[test]
fn the_hard_sweep_does_not_wait_for_a_flooding_peer() {
    let clock = Clock::default();
    let mut app = nothing();
    let config = config(|config| config.turn_callbacks = 100);
    let mut driver = open_at(config, 50, &mut app, &clock);
    let id = id_of(&mut driver, 49);
    let timing = CloseTiming { close_timeout: Some(SECOND), flush_budget: None };
    driver.clients().close_with(id, CloseFrame::NORMAL, timing);
    driver.clients().shutdown(ShutdownPlan::soft(SECOND));
    (0..10).for_each(|_| turn(&mut driver, &mut app, &[]));
    clock.pass(SECOND);
    driver.transport().socket(49).input = frame(0x82, b"").repeat(100_000);
    for _ in 0..250 {
        clock.pass(MS);
        turn(&mut driver, &mut app, &[(49, READABLE)]);
    }
    assert!(driver.stats().total() <= 1, "250 turns of 1 ms after the end of grace: {:?}", driver.stats());
    assert!(driver.shutdown_report().is_some(), "8: grace + 250 ms");
}

/// 3.4: while events waited for the next turn, the hard sweep ended a connection without looking for its answer.
#[test]
fn the_hard_sweep_looks_before_it_ends_while_events_wait() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.turn_callbacks = 10), 100, &mut app);
    let id = id_of(&mut driver, 0);
    driver.clients().close(id, CloseFrame::NORMAL);
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(0).input = frame(0x88, &1000_u16.to_be_bytes());
    for slot in 1..100 {
        let id = id_of(&mut driver, slot);
        driver.clients().close(id, CloseFrame::NORMAL);
    }
    driver.clients().shutdown(ShutdownPlan::soft(10 * SECOND));
    driver.clients().abort();
    for _ in 0..100 {
        turn(&mut driver, &mut app, &[]);
    }
    let first = app.closed.iter().find(|closed| closed.received.is_some());
    assert!(first.is_some_and(CloseReport::was_clean), "its answer was there");
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
    let ended = Readiness { ended: true, ..READABLE };
    let id = id_of(&mut driver, 0);
    driver.clients().terminate(id);
    driver.begin_turn(&mut app);
    assert_eq!(driver.stats().total(), 1);
    *driver.transport().socket(0) = adjourn::testing::Socket::default();
    let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
    let id = driver.act(&mut app, |clients, _| clients.connect(request, ()).expect("room"));
    assert_eq!(id.slot(), 0);
    driver.ready(0, ended, &mut app);
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

/// 3.5: no slot was freed while an event of anybody waited. Who accepts waits for the events of those that were refused.
#[test]
fn slots_are_freed_although_events_wait() {
    let mut app = nothing();
    let config = config(|config| (config.turn_callbacks, config.max_connections) = (10, 1));
    let mut driver = open(config, 1, &mut app);
    for n in 0..200 {
        driver.begin_turn(&mut app);
        if n == 10 {
            driver.transport().socket(0).eof = true;
            driver.ready(0, Readiness { ended: true, ..READABLE }, &mut app);
        }
        for _ in 0..30 {
            if !driver.has_undelivered() {
                driver.accept(address());
            }
        }
        driver.end_turn(&mut app);
    }
    assert_eq!(app.count("Close"), 1);
    assert!(driver.transport().socket(0).closed.is_some());
}

/// 3.4: a probe that came no further than what was held ended a connection whose Pong lay in the kernel.
#[test]
fn a_pong_behind_held_messages_is_an_answer() {
    let clock = Clock::default();
    let mut app = nothing();
    let config = config(|config| {
        config.turn_callbacks = 10;
        config.reads_per_turn = 1;
    });
    let mut driver = open_at(config, 1, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x82, b"").repeat(35);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(app.count("Message"), 10);
    clock.pass(31 * SECOND);
    driver.begin_turn(&mut app);
    driver.end_turn(&mut app);
    driver.transport().socket(0).input = frame(0x8a, b"");
    clock.pass(60 * SECOND);
    driver.begin_turn(&mut app);
    driver.end_turn(&mut app);
    rest(&mut driver, &mut app);
    assert_eq!(driver.stats().open, 1, "{:?} {:?}", app.closed, app.events);
}

/// 1: when there was room for many events, those that waited for the next turn were thrown away with it.
#[test]
fn no_event_of_many_is_dropped() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.turn_callbacks = 1000), 5000, &mut app);
    let ids: Vec<_> = driver.clients().iter().map(|client| client.id()).collect();
    for id in &ids {
        driver.clients().terminate(*id);
    }
    for _ in 0..100 {
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(app.count("Close"), 5000);
}

/// 1: the same with the settings as they are.
#[test]
fn no_closing_of_many_is_dropped() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 10_000, &mut app);
    let ids: Vec<_> = driver.clients().iter().map(|client| client.id()).collect();
    for id in &ids {
        driver.clients().close(*id, CloseFrame::NORMAL);
    }
    for _ in 0..100 {
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(app.count("Closing"), 10_000);
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
