//! When deadlines fire (3.3), and what is looked at before a connection is given up (3.4).

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, Event,
    close::{Cause, CloseTiming},
    http::ConnectRequest,
    hub::{Driver, Readiness},
    shutdown::Pace,
    testing::{Clock, Memory, REQUEST, Session, frame},
};

use crate::app::{App, MS, READABLE, SECOND, address, config, id_of, nothing, open, open_at, rest, turn};

/// The loop stalls for longer than the heartbeat's timeout; each Pong lies in the kernel by then, and its edge comes late.
#[test]
fn a_pong_that_lies_in_the_kernel_is_no_silence() {
    let config = config(|config| config.connection.heartbeat.interval = Some(SECOND));
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
        let id = id_of(&mut driver, 0);
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
    let config = config(|config| {
        config.connection.stall_timeout = Some(SECOND);
        config.connection.heartbeat.interval = None;
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

/// A stall was counted from when the kernel took something last, although it took all that it was offered then: what exceeded the
/// connection's share waited for a late turn, in which the first refusal ended the connection (3.1, 3.3).
#[test]
fn what_waits_for_the_next_turn_is_no_stall() {
    let config = config(|config| {
        config.connection.stall_timeout = Some(SECOND);
        config.connection.heartbeat.interval = None;
        config.event_loop.write_bytes_per_turn = 10 << 10;
    });
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            clients.send(*id, vec![b'x'; 20 << 10]).expect("room");
        }
    });
    let clock = Clock::default();
    let mut driver = open_at(config, 1, &mut app, &clock);
    let socket = driver.transport().socket(0);
    (socket.input, socket.room) = (frame(0x81, b"go"), 10 << 10);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    assert_eq!(driver.transport().socket(0).room, 0, "the share is written");
    for (passes, open) in [(2 * SECOND, 1), (990 * MS, 1), (20 * MS, 0)] {
        clock.pass(passes);
        turn(&mut driver, &mut app, &[]);
        assert_eq!(driver.stats().open, open, "{:?}", app.closed);
    }
    assert_eq!(app.closed[0].cause, Cause::WriteStall);
}

/// A callback that ran while a silent peer was looked at took longer than `stall_timeout`. What the connection had queued just before
/// that was not offered to the kernel again, and it ended as a stall (3.4).
#[test]
fn what_falls_due_while_a_silent_one_is_read_is_looked_at_first() {
    let config = config(|config| {
        config.connection.heartbeat.interval = Some(10 * SECOND);
        config.connection.stall_timeout = Some(SECOND);
    });
    for (room, causes) in [(usize::MAX, vec![]), (0, vec![Cause::WriteStall])] {
        let clock = Clock::default();
        let slow = clock.clone();
        let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
            if matches!(event, Event::Message { .. }) {
                slow.pass(2 * SECOND);
            }
        });
        let mut driver = open_at(config.clone(), 1, &mut app, &clock);
        clock.pass(10 * SECOND);
        turn(&mut driver, &mut app, &[]);
        clock.pass(60 * SECOND);
        let id = id_of(&mut driver, 0);
        driver.clients().send(id, "more than ten bytes").expect("room");
        let socket = driver.transport().socket(0);
        socket.input = [frame(0x8A, b""), frame(0x81, b"slow")].concat();
        (socket.room, socket.takes) = (room, [10].into());
        turn(&mut driver, &mut app, &[]);
        assert_eq!((app.count("Message"), driver.stats().open), (1, 1), "{:?}", app.closed);
        clock.pass(MS);
        turn(&mut driver, &mut app, &[]);
        let ends: Vec<_> = app.closed.iter().map(|closed| closed.cause).collect();
        assert_eq!(ends, causes);
        let whole = driver.transport().socket(0).written.ends_with(b"more than ten bytes");
        assert_eq!(whole, ends.is_empty());
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
    let mut session =
        Session::open(config(|config| config.connection.flush_budget = Some(10 * SECOND)), nothing());
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

/// 3.4: a probe that came no further than what was held ended a connection whose Pong lay in the kernel.
#[test]
fn a_pong_behind_held_messages_is_an_answer() {
    let clock = Clock::default();
    let mut app = nothing();
    let config = config(|config| {
        config.event_loop.turn_callbacks = 10;
        config.event_loop.reads_per_turn = 1;
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

/// After a stall of the loop the probe of a due flush budget wrote one share of a turn; then the rest was dropped,
/// although the kernel would have taken it (3.4, 6.1).
#[test]
fn what_the_kernel_takes_is_not_dropped_for_the_flush_budget() {
    // At the deadline of the flush budget, and at that of the close as well.
    for stall in [6 * SECOND, 60 * SECOND] {
        for by_peer in [false, true] {
            let (mut app, clock) = (nothing(), Clock::default());
            let mut driver = open_at(Config::default(), 1, &mut app, &clock);
            driver.transport().socket(0).room = 0;
            let id = id_of(&mut driver, 0);
            (0..50).for_each(|_| driver.clients().send(id, vec![b'x'; 100_000]).expect("room"));
            if by_peer {
                driver.transport().socket(0).input = frame(0x88, &1000_u16.to_be_bytes());
            } else {
                driver.clients().close(id, CloseFrame::NORMAL);
            }
            turn(&mut driver, &mut app, &[(0, READABLE)]);
            driver.transport().socket(0).room = usize::MAX;
            clock.pass(stall);
            for _ in 0..10 {
                turn(&mut driver, &mut app, &[]);
                clock.pass(MS);
            }
            driver.transport().socket(0).input = frame(0x88, &1000_u16.to_be_bytes());
            turn(&mut driver, &mut app, &[(0, READABLE)]);
            let [closed] = &app.closed[..] else { panic!("it has ended") };
            assert_eq!((closed.lost.messages, closed.sent_flushed), (0, true), "{stall:?}: {closed:?}");
        }
    }
}

/// What a fast reader gets beyond the flush budget has a limit (3.4).
#[test]
fn a_flush_budget_ends_after_8_mib() {
    let (mut app, clock) = (nothing(), Clock::default());
    let mut driver = open_at(config(|config| config.connection.max_backlog = 1 << 30), 1, &mut app, &clock);
    driver.transport().socket(0).room = 0;
    let id = id_of(&mut driver, 0);
    (0..400).for_each(|_| driver.clients().send(id, vec![b'x'; 100_000]).expect("room"));
    driver.clients().close(id, CloseFrame::NORMAL);
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(0).room = usize::MAX;
    let before = driver.transport().socket(0).written.len();
    clock.pass(6 * SECOND);
    for _ in 0..50 {
        turn(&mut driver, &mut app, &[]);
        clock.pass(MS);
    }
    let n = driver.transport().socket(0).written.len() - before;
    assert!((8 << 20..10 << 20).contains(&n), "{n} bytes");
    driver.transport().socket(0).input = frame(0x88, &1000_u16.to_be_bytes());
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    let [closed] = &app.closed[..] else { panic!("it has ended") };
    assert!(closed.lost.messages > 290 && closed.was_clean(), "{closed:?}");
}

/// A write had failed, and what the peer sent before was still being read: the connection ended as a stall (3.1, 4.2).
#[test]
fn a_reset_that_a_write_has_found_is_no_stall() {
    let config = config(|config| {
        config.connection.stall_timeout = Some(SECOND);
        (config.event_loop.read_buffer, config.event_loop.reads_per_turn) = (10, 1);
    });
    let mut app = nothing();
    let mut driver = open(config, 1, &mut app);
    let clock = driver.transport().clock.clone();
    let id = id_of(&mut driver, 0);
    driver.transport().socket(0).room = 0;
    driver.clients().send(id, "hello").expect("room");
    turn(&mut driver, &mut app, &[]);
    let socket = driver.transport().socket(0);
    (socket.input, socket.error) = (frame(0x82, &[0; 1000]), Some(std::io::ErrorKind::ConnectionReset));
    turn(&mut driver, &mut app, &[(0, Readiness { writable: true, ..Readiness::default() })]);
    for _ in 0..200 {
        turn(&mut driver, &mut app, &[]);
        clock.pass(100 * MS);
    }
    let causes: Vec<_> = app.closed.iter().map(|closed| closed.cause).collect();
    assert_eq!((causes, app.count("Message")), (vec![Cause::PeerReset], 1));
}

/// Pings of the peer that were read before ours, and parsed after it, made the loop forget that ours was unanswered: the
/// next one came when that one's timeout was over (3.1).
#[test]
fn control_frames_that_were_held_do_not_answer_our_ping() {
    let config = config(|config| {
        (config.connection.heartbeat.interval, config.connection.heartbeat.timeout) =
            (Some(SECOND), 10 * SECOND);
        config.event_loop.turn_callbacks = 1;
    });
    let mut app = nothing();
    let mut driver = open(config, 1, &mut app);
    let clock = driver.transport().clock.clone();
    driver.transport().socket(0).input = frame(0x89, b"").repeat(10);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    clock.pass(SECOND);
    rest(&mut driver, &mut app);
    assert_eq!(app.count("Ping"), 10);
    clock.pass(SECOND);
    driver.transport().socket(0).input = frame(0x8A, b"");
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    rest(&mut driver, &mut app);
    let next = driver.poll_timeout().map(|at| at.since(adjourn::Time::ZERO));
    assert_eq!(next, Some(3 * SECOND), "a second after the Pong");
}

/// 4.11: whoever paused a connection with a `pause_timeout` and forgot it kept a live peer for ever, and discarded what it sent.
#[test]
fn a_pause_that_is_forgotten_ends_although_the_peer_lives() {
    let config = config(|config| {
        config.connection.pause_timeout = Some(10 * SECOND);
        config.connection.close_timeout = 2 * SECOND;
    });
    let closes = [
        (None, false, Cause::CloseTimeout { flushed: true }, 14 * SECOND),
        (Some(13 * SECOND), true, Cause::PeerClose, 13 * SECOND),
    ];
    for (peer_closes, clean, cause, ends) in closes {
        let mut session = Session::open(config.clone(), nothing());
        session.act(|clients, _| {
            let id = clients.iter().next().map(|client| client.id()).expect("open");
            assert!(clients.pause(id));
        });
        let (mut sent, mut ended) = (0, None);
        while ended.is_none() && session.clock().now() < 60 * SECOND {
            session.advance(SECOND);
            if session.stats().open > 0 {
                session.read(&frame(0x81, b"x"));
                sent += 1;
            }
            if peer_closes == Some(session.clock().now()) {
                session.read(&frame(0x88, &1000_u16.to_be_bytes()));
            }
            ended = (!session.handler().closed.is_empty()).then(|| session.clock().now());
        }
        let [closed] = &session.handler().closed[..] else { panic!("never ended") };
        assert_eq!((closed.was_clean(), closed.cause, ended), (clean, cause, Some(ends)));
        assert_eq!(closed.lost.inbound_messages, sent, "each is counted");
        let code = closed.sent.as_ref().and_then(CloseFrame::code);
        assert_eq!(code, Some(if clean { 1000 } else { 1011 }));
    }
}

/// A silence of more than twelve days cannot be recorded. It was taken for a shorter one, so the Ping after it was unanswered as soon
/// as it was sent (9).
#[test]
fn a_pause_of_weeks_leaves_the_peer_its_time_to_answer() {
    let mut app = nothing();
    let config = config(|config| config.connection.heartbeat.timeout = 20 * SECOND);
    let mut driver = open(config, 1, &mut app);
    let (clock, id) = (driver.transport().clock.clone(), id_of(&mut driver, 0));
    driver.clients().pause(id);
    turn(&mut driver, &mut app, &[]);
    clock.pass(13 * 24 * 3600 * SECOND);
    turn(&mut driver, &mut app, &[]);
    driver.clients().resume(id);
    turn(&mut driver, &mut app, &[]);
    for _ in 0..35 {
        clock.pass(SECOND);
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(driver.stats().open, 1, "a Ping has been sent five seconds ago: {:?}", app.closed);
    clock.pass(20 * SECOND);
    turn(&mut driver, &mut app, &[]);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(app.closed.len(), 1, "nothing came");
}

/// A timeout without end was taken for a flush budget that is used up: a shorter one asked for later did not cut it (6.1).
#[test]
fn a_flush_budget_without_end_can_be_cut() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 1, &mut app);
    let (clock, id) = (driver.transport().clock.clone(), id_of(&mut driver, 0));
    driver.transport().socket(0).room = 100;
    driver.clients().send(id, vec![0; 10_000]).expect("it is open");
    turn(&mut driver, &mut app, &[]);
    let within = |timeout| CloseTiming { close_timeout: Some(timeout), flush_budget: None };
    driver.clients().close_with(id, CloseFrame::NORMAL, within(std::time::Duration::MAX));
    turn(&mut driver, &mut app, &[]);
    driver.clients().close_with(id, CloseFrame::NORMAL, within(4 * SECOND));
    turn(&mut driver, &mut app, &[]);
    clock.pass(2 * SECOND);
    turn(&mut driver, &mut app, &[]);
    turn(&mut driver, &mut app, &[]);
    // The rest of the frame that was begun and the Close: data that had not begun is dropped.
    let queued = driver.clients().get(id).map_or(0, |client| client.buffered_amount());
    assert!(queued < 20_000, "{queued}");
    clock.pass(2 * SECOND);
    turn(&mut driver, &mut app, &[]);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(app.closed.len(), 1);
}
