//! Timers of the application, of connections and of the loop: never early, and at most 50 ms late (3.6).

use std::{cell::RefCell, rc::Rc};

use adjourn::{
    Clients, CloseFrame, Config, ConnectionId, Event,
    testing::{Clock, frame},
};

use crate::app::{App, MS, READABLE, SECOND, config, id_of, nothing, open, open_at, turn};

#[test]
fn a_timer_fires_once_when_it_was_set_for_last() {
    let (fired, clock) = (Rc::<RefCell<Vec<_>>>::default(), Clock::default());
    let (log, now) = (Rc::clone(&fired), clock.clone());
    let mut app = App::new(move |_: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Timer { id, key } = event {
            log.borrow_mut().push((id.map(ConnectionId::slot), *key, now.now().as_secs()));
        }
    });
    let mut driver = open_at(Config::default(), 2, &mut app, &clock);
    let ids = [0, 1].map(|slot| id_of(&mut driver, slot));
    let mut clients = driver.clients();
    assert!(clients.set_timer(ids[0], 4 * SECOND, 7));
    assert!(clients.set_timer(ids[0], 2 * SECOND, 7), "moved");
    assert!(clients.set_timer(ids[1], 3 * SECOND, 7));
    assert!(clients.set_timer(ids[1], 3 * SECOND, 8));
    assert!(clients.clear_timer(ids[1], 8) && !clients.clear_timer(ids[1], 8));
    clients.set_loop_timer(SECOND, 7);
    clients.set_loop_timer(5 * SECOND, 9);
    assert!(clients.clear_loop_timer(9) && !clients.clear_loop_timer(9));
    for _ in 0..100 {
        turn(&mut driver, &mut app, &[]);
        clock.pass(100 * MS);
    }
    assert_eq!(*fired.borrow(), [(None, 7, 1), (Some(0), 7, 2), (Some(1), 7, 3)]);
}

/// Timers that were due together were all taken out before the first of their callbacks: one that this callback moved fired at
/// once, and again when it was due.
#[test]
fn a_timer_that_another_one_moves_fires_when_it_was_moved_to() {
    let (fired, clock) = (Rc::<RefCell<Vec<_>>>::default(), Clock::default());
    let (log, now) = (Rc::clone(&fired), clock.clone());
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Timer { key, .. } = event {
            log.borrow_mut().push((*key, now.now().as_secs()));
            if *key == 1 {
                clients.set_loop_timer(SECOND, 2);
                assert!(clients.clear_loop_timer(3));
            }
        }
    });
    let mut driver = open_at(Config::default(), 0, &mut app, &clock);
    for key in [1, 2, 3] {
        driver.clients().set_loop_timer(SECOND, key);
    }
    for _ in 0..30 {
        clock.pass(100 * MS);
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(*fired.borrow(), [(1, 1), (2, 2)]);
}

#[test]
fn the_loop_wakes_up_for_a_timer() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.connection.heartbeat.interval = None), 1, &mut app);
    driver.clients().set_loop_timer(SECOND, 1);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(driver.poll_timeout().map(|at| at.since(adjourn::Time::ZERO)), Some(SECOND));
    assert!(!driver.has_more());
}

#[test]
fn a_timer_begins_when_the_callback_returns() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Message { id, .. } = event {
            clients.set_timer(*id, 10 * SECOND, 1);
            slow.pass(3 * SECOND);
        }
    });
    let mut driver = open_at(Config::default(), 1, &mut app, &clock);
    driver.transport().socket(0).input = frame(0x81, b"slow");
    let start = clock.now();
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    while app.count("Timer") == 0 {
        clock.pass(MS);
        turn(&mut driver, &mut app, &[]);
    }
    assert_eq!(clock.now(), start + 13 * SECOND);
}

/// A timer set anew at each message is how an application finds who is idle, whatever Pongs come.
#[test]
fn an_idle_application_is_found_by_a_timer() {
    let mut app = App::new(|clients: &mut Clients<'_, ()>, event: &Event<'_>| match event {
        Event::Open { id } | Event::Message { id, .. } => {
            assert!(clients.set_timer(*id, 60 * SECOND, 0));
        }
        Event::Timer { id: Some(id), .. } => {
            assert!(clients.close(*id, CloseFrame::NORMAL));
        }
        _ => {}
    });
    let clock = Clock::default();
    let mut driver = open_at(Config::default(), 2, &mut app, &clock);
    for _ in 0..12 {
        clock.pass(10 * SECOND);
        driver.transport().socket(0).input = frame(0x8A, b"");
        driver.transport().socket(1).input = frame(0x81, b"hello");
        turn(&mut driver, &mut app, &[(0, READABLE), (1, READABLE)]);
    }
    assert_eq!(app.count("Timer"), 1);
    assert_eq!(driver.stats().open, 1);
}

#[test]
fn a_timer_goes_with_its_connection() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 2, &mut app);
    let [gone, stays] = [0, 1].map(|slot| id_of(&mut driver, slot));
    for id in [gone, stays] {
        assert!(driver.clients().set_timer(id, SECOND, 0));
    }
    driver.clients().terminate(gone);
    assert!(!driver.clients().set_timer(gone, SECOND, 1), "too late");
    turn(&mut driver, &mut app, &[]);
    assert!(!driver.clients().clear_timer(gone, 0));
    let slot = driver.accept(crate::app::address()).expect("room");
    assert_eq!(slot, gone.slot(), "used again");
    driver.transport().clock.pass(2 * SECOND);
    turn(&mut driver, &mut app, &[]);
    assert_eq!(app.events.iter().filter(|event| *event == "Timer").count(), 1, "{:?}", app.events);
}

/// Timers have the budget of a turn (3.5), and none is lost.
#[test]
fn many_timers_take_several_turns() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.event_loop.turn_callbacks = 10), 1, &mut app);
    (0..1000).for_each(|key| driver.clients().set_loop_timer(SECOND, key));
    driver.transport().clock.pass(SECOND);
    for _ in 0..200 {
        let before = app.count("Timer");
        turn(&mut driver, &mut app, &[]);
        assert!(app.count("Timer") - before <= 30, "three budgets of a turn");
    }
    assert_eq!(app.count("Timer"), 1000);
}
