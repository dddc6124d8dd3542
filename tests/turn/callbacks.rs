//! Slow callbacks: when what they ask for begins (3.3), and whose they are in the report (8.9).

use adjourn::{
    Clients, CloseFrame, Config, Event, Handler, ShutdownPlan,
    close::{Cause, CloseTiming},
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    hub::Driver,
    shutdown::Pace,
    testing::{Clock, Memory, REQUEST, Session, frame},
};

use crate::app::{App, MS, READABLE, SECOND, address, config, id_of, nothing, open, open_at, rest, turn};

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
    let slot = driver.accept(address()).expect("room");
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
    let id = id_of(&mut driver, 0);
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
        let slot = driver.accept(address()).expect("room");
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
    let config = config(|config| config.connection.stall_timeout = Some(500 * MS));
    let mut driver = open_at(config, 1, &mut app, &clock);
    let socket = driver.transport().socket(0);
    (socket.input, socket.room) = (frame(0x81, b"go"), 0);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(driver.stats().open, 1, "{:?}", app.closed);
}

/// A stall was counted from when a large message was queued, if the clock was read again before it was written: a callback longer
/// than `stall_timeout` ended the connection that it had sent to, at the first refusal of the kernel (3.1, 3.3).
#[test]
fn a_stall_does_not_begin_when_a_message_is_queued() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            let other =
                clients.iter().map(|client| client.id()).find(|other| other != id).expect("there are two");
            clients.send(other, vec![b'x'; 20 << 10]).expect("room");
            slow.pass(600 * MS);
        }
    });
    let config = config(|config| config.connection.stall_timeout = Some(500 * MS));
    let mut driver = open_at(config, 2, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"go");
    driver.transport().socket(1).room = 0;
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    for (passes, open) in [(490 * MS, 2), (20 * MS, 1)] {
        assert_eq!(driver.stats().open, 2, "{:?}", app.closed);
        clock.pass(passes);
        turn(&mut driver, &mut app, &[]);
        assert_eq!(driver.stats().open, open, "{:?}", app.closed);
    }
    assert_eq!(app.closed[0].cause, Cause::WriteStall);
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
    let config = config(|config| config.client.connect_timeout = 500 * MS);
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
    let config = config(|config| config.client.connect_timeout = 10 * SECOND);
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

/// 3.3: a close was late by the callback that `Closing` is delivered to, too, and so was the answer to a peer's Close.
#[test]
fn a_close_does_not_wait_for_the_next_callback() {
    let peers = frame(0x88, &1000_u16.to_be_bytes());
    for (what, input) in [("our own", frame(0x81, b"x")), ("a peer's", peers), ("a command's", Vec::new())] {
        let clock = Clock::default();
        let slow = clock.clone();
        let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| match event {
            Event::Message { id, .. } => {
                clients.close(*id, CloseFrame::NORMAL);
            }
            Event::Closing { .. } => slow.pass(3 * SECOND),
            _ => {}
        });
        let mut driver = open_at(Config::default(), 1, &mut app, &clock);
        driver.transport().socket(0).room = 0;
        driver.transport().socket(0).input = input;
        let id = id_of(&mut driver, 0);
        driver.begin_turn(&mut app);
        driver.ready(0, READABLE, &mut app);
        if what == "a command's" {
            driver.act(&mut app, |clients, _| clients.close(id, CloseFrame::NORMAL));
        }
        driver.end_turn(&mut app);
        assert_eq!(clock.now(), 3 * SECOND, "{what}");
        clock.pass(7 * SECOND);
        rest(&mut driver, &mut app);
        turn(&mut driver, &mut app, &[]);
        rest(&mut driver, &mut app);
        let [closed] = &app.closed[..] else { panic!("{what}: not ended 10 s after it began") };
        assert_eq!(closed.close_phase, 10 * SECOND, "{what}");
    }
}

/// 3.3: a pause that a slow callback asked for was over before the callback had returned.
#[test]
fn a_pause_begins_when_the_callback_returns() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            clients.pause(*id);
            slow.pass(5 * SECOND);
        }
    });
    let config = config(|config| {
        config.connection.pause_timeout = Some(SECOND);
        config.connection.close_timeout = SECOND;
    });
    let mut driver = open_at(config, 1, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"x");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    rest(&mut driver, &mut app);
    assert_eq!(driver.poll_timeout().map(|at| at.since(adjourn::Time::ZERO)), Some(7 * SECOND));
}
