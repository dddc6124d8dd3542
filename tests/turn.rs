//! The turn, in virtual time: what bounds it, what is looked at before a connection is given up, and what a slow or a
//! panicking callback changes. Numbers in comments are sections of `docs/specification.md`.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, Event, Handler, ShutdownPlan,
    close::Cause,
    http::{Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    shutdown::Pace,
    testing::{Clock, Memory, REQUEST, Session, frame},
};

const SECOND: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);
/// What a connection may write in a turn by default.
const SHARE: usize = (1 << 20) + (64 << 10);

/// Does what it is told to at each event, and writes down the ends.
struct App<F> {
    act: F,
    closed: Vec<CloseReport>,
    events: Vec<String>,
}

impl<F: FnMut(&mut Clients<'_, ()>, &Event<'_>)> App<F> {
    fn new(act: F) -> Self {
        Self { act, closed: Vec::new(), events: Vec::new() }
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

const READABLE: Readiness = Readiness { readable: true, writable: false, ended: false };

/// A loop with `n` open connections.
fn open<H: Handler<Data = ()>>(config: Config, n: usize, handler: &mut H) -> Driver<(), Memory> {
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    for _ in 0..n {
        let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        turn(&mut driver, handler, &[(slot, READABLE)]);
    }
    driver
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

fn written(driver: &mut Driver<(), Memory>) -> usize {
    driver.transport().sockets.iter().map(|socket| socket.written.len()).sum()
}

// 3: a turn is bounded.

/// The documented way to stream is to send on `Drain`. While the kernel takes everything, that must not keep a turn.
#[test]
fn whoever_refills_on_drain_has_a_share_of_a_turn() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Open { id } | Event::Drain { id } = event {
            clients.send(*id, vec![b'x'; 64 << 10]).expect("room");
        }
    });
    let mut driver = open(Config::default(), 1, &mut app);
    for _ in 0..20 {
        let (before, drains) = (written(&mut driver), app.events.len());
        turn(&mut driver, &mut app, &[]);
        let n = written(&mut driver) - before;
        assert!(n > 0 && n <= SHARE, "{n} bytes in one turn");
        assert!(app.events.len() - drains <= 1, "one Drain in one turn");
        assert!(driver.has_more(), "the next turn does not wait");
    }
}

#[test]
fn a_backlog_is_written_in_shares_while_the_kernel_takes_all() {
    let mut app = App::new(|_: &mut Clients<'_, ()>, _: &Event<'_>| {});
    let mut driver = open(Config::default(), 1, &mut app);
    let id = driver.clients().iter().next().map(|client| client.id()).expect("open");
    let before = written(&mut driver);
    driver.clients().send(id, vec![b'x'; 10 << 20]).expect("room");
    let mut turns = 0;
    while driver.has_more() {
        let before = written(&mut driver);
        turn(&mut driver, &mut app, &[]);
        assert!(written(&mut driver) - before <= SHARE);
        turns += 1;
    }
    assert!((10..=12).contains(&turns), "{turns} turns for 10 MiB");
    assert_eq!(written(&mut driver) - before, (10 << 20) + 10);
}

/// All together have a budget. What it leaves undone is done in the next turns, in order, and nobody starves.
#[test]
fn all_connections_together_have_a_budget() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } | Event::Drain { id } = event {
            clients.send(*id, vec![b'x'; 256 << 10]).expect("room");
        }
    });
    let mut driver = open(Config::default(), 64, &mut app);
    let go = frame(0x81, b"go");
    for slot in 0..64 {
        driver.transport().socket(slot).input = go.clone();
    }
    let ready: Vec<_> = (0..64).map(|slot| (slot, READABLE)).collect();
    let before: Vec<_> = driver.transport().sockets.iter().map(|socket| socket.written.len()).collect();
    let mut total = written(&mut driver);
    turn(&mut driver, &mut app, &ready);
    for _ in 0..20 {
        let now = written(&mut driver);
        assert!(now - total <= (4 << 20) + SHARE, "{} bytes in one turn", now - total);
        total = now;
        turn(&mut driver, &mut app, &[]);
    }
    for (slot, before) in before.into_iter().enumerate() {
        let n = driver.transport().socket(slot).written.len() - before;
        assert!(n >= 256 << 10, "slot {slot} has been served {n} bytes");
    }
}

/// An edge that was fetched when the budget was used up is dealt with in the next turn.
#[test]
fn no_edge_is_dropped() {
    let mut config = Config::default();
    config.turn_callbacks = 10;
    let mut app = App::new(|_: &mut Clients<'_, ()>, _: &Event<'_>| {});
    let mut driver = open(config, 100, &mut app);
    let ready: Vec<_> = (0..100).map(|slot| (slot, READABLE)).collect();
    for (slot, _) in &ready {
        driver.transport().socket(*slot).input = frame(0x81, b"hello");
    }
    app.events.clear();
    turn(&mut driver, &mut app, &ready);
    let mut turns = 1;
    assert_eq!(app.events.len(), 10, "the budget");
    while driver.has_more() {
        turn(&mut driver, &mut app, &[]);
        turns += 1;
        assert!(turns < 20);
    }
    assert_eq!((app.events.len(), turns), (100, 10), "each once");
}

#[test]
fn a_shutdown_ends_by_its_bound_beside_endless_streams() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Open { id } | Event::Drain { id } = event {
            let _ = clients.send(*id, vec![b'x'; 256 << 10]);
        }
    });
    let mut driver = open(Config::default(), 40, &mut app);
    let clock = driver.transport().clock.clone();
    let start = clock.now();
    driver.clients().shutdown(ShutdownPlan::soft(100 * MS));
    while driver.shutdown_report().is_none() {
        turn(&mut driver, &mut app, &[]);
        clock.pass(MS);
        assert!(clock.now() <= start + 350 * MS, "grace + 250 ms");
    }
}

/// A read whose frames inflate to more than the turn's budget is cut between two frames; the rest is held.
#[cfg(feature = "deflate")]
#[test]
fn what_inflates_beyond_the_budget_is_held() {
    use adjourn::wire::deflate::codec::Deflater;

    let mut config = Config::default();
    config.deflate = Some(adjourn::config::Deflate::default());
    config.turn_bytes = 1 << 20;
    let mut app = App::new(|_: &mut Clients<'_, ()>, _: &Event<'_>| {});
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("room");
    let head = REQUEST.strip_suffix(b"\r\n").expect("an empty line ends it");
    driver.transport().socket(slot).input =
        [head, b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"].concat();
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    let mut bomb = Vec::new();
    assert!(Deflater::new(15, 9).message(&vec![0; 900_000], &mut bomb));
    driver.transport().socket(slot).input = frame(0xC2, &bomb).repeat(20);
    app.events.clear();
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    assert_eq!(app.events.len(), 2, "900,000 bytes twice are over 1 MiB");
    let mut turns = 1;
    while driver.has_more() {
        turn(&mut driver, &mut app, &[]);
        turns += 1;
    }
    assert_eq!((app.events.len(), turns), (20, 11));
}

// 3: probe before judgement.

fn quiet(change: impl FnOnce(&mut Config)) -> Config {
    let mut config = Config::default();
    change(&mut config);
    config
}

fn nothing() -> App<impl FnMut(&mut Clients<'_, ()>, &Event<'_>)> {
    App::new(|_: &mut Clients<'_, ()>, _: &Event<'_>| {})
}

/// The loop stalls for longer than the heartbeat's timeout; each Pong lies in the kernel by then, and its edge comes late.
#[test]
fn a_pong_that_lies_in_the_kernel_is_no_silence() {
    let config = quiet(|config| config.heartbeat.interval = Some(SECOND));
    let mut app = nothing();
    let mut driver = open(config, 600, &mut app);
    let clock = driver.transport().clock.clone();
    clock.pass(SECOND);
    turn(&mut driver, &mut app, &[]);
    for slot in 0..600 {
        driver.transport().socket(slot).input = frame(0x8A, b"");
    }
    clock.pass(60 * SECOND);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(driver.stats().open, 600, "nobody is called silent");
    clock.pass(60 * SECOND);
    turn(&mut driver, &mut app, &[]);
    clock.pass(60 * SECOND);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(driver.stats().open, 0, "who says nothing is");
}

#[test]
fn an_answer_that_lies_in_the_kernel_is_no_close_timeout() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 601, &mut app);
    let clock = driver.transport().clock.clone();
    driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| true);
    turn(&mut driver, &mut app, &[]);
    for slot in 0..600 {
        driver.transport().socket(slot).input = frame(0x88, &1000_u16.to_be_bytes());
    }
    clock.pass(60 * SECOND);
    turn(&mut driver, &mut app, &[]);
    turn(&mut driver, &mut app, &[]);
    let clean = app.closed.iter().filter(|closed| closed.was_clean()).count();
    assert_eq!(clean, 600);
    let others: Vec<_> = app.closed.iter().filter(|closed| !closed.was_clean()).collect();
    assert!(matches!(others[..], [CloseReport { cause: Cause::CloseTimeout { flushed: true }, .. }]));
}

/// The answer may lie behind more messages than one turn reads, 8 MiB at most.
#[test]
fn an_answer_is_looked_for_over_several_turns_but_not_for_ever() {
    for (megabytes, clean) in [(6, true), (9, false)] {
        let mut app = nothing();
        let mut driver = open(Config::default(), 1, &mut app);
        let clock = driver.transport().clock.clone();
        let id = driver.clients().iter().next().map(|client| client.id()).expect("open");
        driver.clients().close(id, CloseFrame::NORMAL);
        turn(&mut driver, &mut app, &[]);
        let mut input = frame(0x82, &vec![0; 100_000]).repeat(10 * megabytes);
        input.extend(frame(0x88, b""));
        driver.transport().socket(0).input = input;
        clock.pass(60 * SECOND);
        for _ in 0..100 {
            turn(&mut driver, &mut app, &[]);
            clock.pass(MS);
        }
        let ends: Vec<_> = app.closed.iter().map(|closed| (closed.was_clean(), closed.cause)).collect();
        let cause = if clean { Cause::LocalClose } else { Cause::CloseTimeout { flushed: true } };
        assert_eq!(ends, [(clean, cause)], "{megabytes} MB in front of it");
    }
}

#[test]
fn room_that_the_kernel_has_is_no_stall() {
    let config = quiet(|config| {
        config.stall_timeout = Some(SECOND);
        config.heartbeat.interval = None;
    });
    for (room, ends) in [(usize::MAX, 0), (0, 1)] {
        let mut session = Session::open(config.clone(), nothing());
        session.socket().room = 10;
        session.act(|clients, _| {
            let id = clients.iter().next().map(|client| client.id()).expect("open");
            clients.send(id, "more than ten bytes").expect("room");
        });
        session.socket().room = room;
        session.clock().pass(60 * SECOND);
        session.turn();
        let causes: Vec<_> = session.handler().closed.iter().map(|closed| closed.cause).collect();
        assert_eq!(causes.len(), ends, "{causes:?}");
        assert!(causes.iter().all(|cause| *cause == Cause::WriteStall));
    }
}

#[test]
fn a_request_that_lies_in_the_kernel_is_no_timeout() {
    let mut session = Session::new(Config::default(), nothing());
    session.socket().input = REQUEST.to_vec();
    session.clock().pass(60 * SECOND);
    session.turn();
    assert_eq!(session.handler().events, ["Open"]);
}

// 3: deadlines are armed when the callback returns.

#[test]
fn close_timeout_begins_when_the_callback_returns() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            slow.pass(300 * MS);
            let timing = adjourn::close::CloseTiming { close_timeout: Some(400 * MS), flush_budget: None };
            clients.close_with(*id, CloseFrame::NORMAL, timing);
            slow.pass(300 * MS);
        }
    });
    let mut driver = Driver::new(Config::default(), 0, 1, Memory::new(&clock));
    let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("room");
    driver.transport().socket(slot).input = REQUEST.to_vec();
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    driver.transport().socket(slot).input = frame(0x81, b"close");
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    let due = driver.poll_timeout().map(|at| at.since(adjourn::Time::ZERO));
    assert!(due.is_some_and(|due| due >= 600 * MS), "{due:?}");
    clock.pass(20 * MS);
    driver.transport().socket(slot).input = frame(0x88, &1000_u16.to_be_bytes());
    turn(&mut driver, &mut app, &[(slot, READABLE)]);
    let [closed] = &app.closed[..] else { panic!("{:?}", app.closed) };
    assert!(closed.was_clean(), "{closed:?}");
    assert_eq!((closed.duration, closed.close_phase), (620 * MS, 20 * MS));
}

#[test]
fn what_is_asked_between_two_turns_begins_then_and_is_reported_first() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 1, &mut app);
    let clock = driver.transport().clock.clone();
    clock.pass(5 * SECOND);
    let id = driver.clients().iter().next().map(|client| client.id()).expect("open");
    driver.clients().close(id, CloseFrame::NORMAL);
    clock.pass(SECOND);
    assert_eq!(driver.clients().len(), 1, "asking does not move the deadline");
    driver.transport().socket(0).input =
        [frame(0x81, b"hello"), frame(0x88, &1000_u16.to_be_bytes())].concat();
    clock.pass(SECOND);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(app.events, ["Open", "Closing", "Message", "Close"]);
    assert_eq!(app.closed[0].close_phase, 2 * SECOND);
}

// 8: every callback is measured.

#[test]
fn slow_commands_and_predicates_are_in_the_report() {
    for what in ["command", "predicate", "event"] {
        let clock = Clock::default();
        let slow = clock.clone();
        let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
            if what == "event" && matches!(event, Event::Phase { .. }) {
                slow.pass(50 * MS);
            }
        });
        let memory = Memory::new(&clock);
        let mut driver = Driver::new(Config::default(), 0, 1, memory);
        let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("room");
        driver.transport().socket(slot).input = REQUEST.to_vec();
        turn(&mut driver, &mut app, &[(slot, READABLE)]);
        let slow = clock.clone();
        driver.act(&mut app, |clients, _| match what {
            "command" => clock.pass(50 * MS),
            "predicate" => {
                clients.close_where(CloseFrame::NORMAL, Pace::AtOnce, move |_| {
                    slow.pass(50 * MS);
                    false
                });
            }
            _ => {}
        });
        turn(&mut driver, &mut app, &[]);
        driver.clients().shutdown(ShutdownPlan::hard());
        while driver.shutdown_report().is_none() {
            turn(&mut driver, &mut app, &[]);
        }
        let longest = driver.shutdown_report().and_then(|report| report.longest_callback);
        assert!(longest.is_some_and(|(took, _)| took >= 50 * MS), "{what}: {longest:?}");
    }
}

// A panic that the application catches around a turn.

#[test]
fn nothing_of_a_read_is_lost_to_a_panic() {
    let app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, message, .. } = event {
            assert_ne!(message.as_text(), Some("panic"), "as it was asked to");
            clients.send(*id, message.reborrow()).expect("room");
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
            clients.send(*id, message.reborrow()).expect("room");
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
