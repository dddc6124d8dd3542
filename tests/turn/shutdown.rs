//! The shutdown beside everything else that a turn does (8.7, 8.8, 8.11).

use std::time::Duration;

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, Event, ShutdownPlan,
    close::{Cause, CloseTiming},
    shutdown::Pace,
    testing::{Clock, frame},
};

use crate::app::{
    App, MS, READABLE, SECOND, WRITABLE, config, id_of, nothing, open, open_at, rest, turn, unread,
};

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

/// The hard sweep probed a whole slice of connections without regard to the budgets of the turn: peers that flooded
/// instead of answering decided how long the turn took, and so when Done came (3.5, 8.7).
#[test]
fn the_probes_of_the_hard_sweep_have_the_budget_of_the_turn() {
    let mut app = nothing();
    let config = config(|config| config.event_loop.turn_bytes = 1 << 20);
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

/// `Handle::ready` stayed true until the turn of the shutdown had ended (8.11).
#[test]
fn a_handle_is_not_ready_from_the_call_of_shutdown_on() {
    let mut server = adjourn::Server::<()>::outgoing(Config::default()).expect("a poll");
    let handle = server.handle();
    assert!(handle.ready() && server.clients().is_ready());
    server.clients().shutdown(ShutdownPlan::soft(10 * SECOND));
    assert!(!server.clients().is_ready());
    assert!(!handle.ready(), "asked by the loop's own thread");
    let mut server = adjourn::Server::<()>::outgoing(Config::default()).expect("a poll");
    let handle = server.handle();
    handle.shutdown(ShutdownPlan::hard()).expect("a loop");
    assert!(!handle.ready(), "asked by a handle");
    assert!(!server.clients().is_ready(), "asked by a handle");
}

/// The same for loops that shut down together: each of them learned it by a message.
#[test]
fn no_loop_is_ready_from_the_call_of_shutdown_on() {
    let workers = adjourn::Workers::<()>::bind("127.0.0.1:0", 3, Config::default()).expect("bound");
    let handles = workers.handle();
    let handle = handles.iter().last().expect("three loops").clone();
    handle.shutdown(ShutdownPlan::hard()).expect("a loop");
    assert!(handles.iter().all(|handle| !handle.ready()));
}

/// 8: the hard sweep had only what judging had left of its budget: one peer that flooded behind its deadline kept it from everybody.
#[test]
fn the_hard_sweep_does_not_wait_for_a_flooding_peer() {
    let clock = Clock::default();
    let mut app = nothing();
    let config = config(|config| config.event_loop.turn_callbacks = 100);
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
    let mut driver = open(config(|config| config.event_loop.turn_callbacks = 10), 100, &mut app);
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

/// An answer that was read, and could not be parsed because the callbacks of the turn were used up by what came before it,
/// did not count: the hard sweep ended the connection with 1006 (3.4).
#[test]
fn the_hard_sweep_parses_what_was_read_before_it_ends() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.event_loop.turn_callbacks = 10), 1, &mut app);
    let id = id_of(&mut driver, 0);
    driver.clients().close(id, CloseFrame::NORMAL);
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(0).input =
        [frame(0x82, b"message").repeat(50), frame(0x88, &1000_u16.to_be_bytes())].concat();
    driver.clients().shutdown(ShutdownPlan::hard());
    (0..20).for_each(|_| turn(&mut driver, &mut app, &[]));
    let [closed] = &app.closed[..] else { panic!("it has ended") };
    assert!(closed.was_clean(), "{closed:?}");
    assert_eq!(app.count("Message") as u64 + closed.lost.inbound_messages, 50, "delivered, or counted");
    assert!(driver.shutdown_report().is_some());
}

/// The probe of the hard sweep was charged to the connection's share of the turn: if that was used up, messages and the Close were
/// dropped although the kernel took them (3.4).
#[test]
fn the_probe_of_the_hard_sweep_has_a_share_of_its_own() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 1, &mut app);
    let id = id_of(&mut driver, 0);
    driver.transport().socket(0).room = 0;
    driver.clients().send(id, vec![b'x'; 2 << 20]).expect("room");
    driver.clients().close(id, CloseFrame::NORMAL);
    driver.clients().shutdown(ShutdownPlan::soft(10 * SECOND));
    turn(&mut driver, &mut app, &[]);
    driver.transport().socket(0).room = usize::MAX;
    driver.clients().abort();
    while app.closed.is_empty() {
        turn(&mut driver, &mut app, &[(0, WRITABLE)]);
    }
    let [closed] = &app.closed[..] else { panic!("it has ended") };
    assert!(closed.sent_flushed && closed.lost.messages + closed.lost.partial == 0, "{closed:?}");
}

/// A connection that was closing already kept its flush budget, and the hard sweep ended it with the Close still in its
/// queue (8.3).
#[test]
fn the_flush_budget_of_a_closing_connection_is_cut_by_grace() {
    for spread in [Duration::ZERO, 4 * SECOND] {
        let (mut app, clock) = (nothing(), Clock::default());
        let mut driver =
            open_at(config(|config| config.connection.close_timeout = 30 * SECOND), 3, &mut app, &clock);
        driver.transport().socket(0).room = 0;
        let id = id_of(&mut driver, 0);
        (0..2).for_each(|_| driver.clients().send(id, vec![b'x'; 1000]).expect("room"));
        let timing = CloseTiming { close_timeout: Some(60 * SECOND), flush_budget: None };
        driver.clients().close_with(id, CloseFrame::NORMAL, timing);
        turn(&mut driver, &mut app, &[]);
        let mut plan = ShutdownPlan::soft(10 * SECOND);
        plan.pace = Pace::Spread(spread);
        driver.clients().shutdown(plan);
        while driver.shutdown_report().is_none() {
            turn(&mut driver, &mut app, &[]);
            if clock.now() == spread + 6 * SECOND {
                let queued = driver.clients().get(id).map(|client| client.buffered_amount());
                assert_eq!(queued, Some(4), "half of what was left: the Close");
            }
            clock.pass(50 * MS);
        }
        let causes: Vec<_> = app.closed.iter().map(|closed| closed.cause).collect();
        assert_eq!(causes.iter().filter(|cause| **cause == Cause::ShutdownHard).count(), 3, "{causes:?}");
        assert!(clock.now() <= spread + 11 * SECOND);
    }
}
