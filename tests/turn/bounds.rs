//! What a turn may do, whatever callbacks and peers do (3.5), and what it may not lose by that.

use std::cell::RefCell;
use std::io::ErrorKind;
use std::rc::Rc;
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};
use std::time::Duration;

use adjourn::{
    Clients, CloseFrame, Config, Event,
    close::CloseTiming,
    http::ConnectRequest,
    hub::{Driver, Readiness},
    shutdown::Pace,
    testing::{Clock, Memory, REQUEST, frame},
};

use crate::app::{
    App, READABLE, SECOND, SHARE, address, config, id_of, nothing, open, open_at, rest, turn, unread, written,
};

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

/// Whoever was probed, because it had stalled, had two `Drain`s in a turn: a probe writes as much as it likes, and no more.
#[test]
fn a_probe_brings_no_second_drain() {
    let clock = Clock::default();
    let slow = clock.clone();
    let mut app = App::new(move |clients: &mut Clients<'_, ()>, event: &Event<'_>| {
        if let Event::Drain { id } = event {
            clients.send(*id, vec![b'x'; 64 << 10]).expect("room");
            if id.slot() == 1 {
                slow.pass(2 * SECOND);
            }
        }
    });
    let config = config(|config| config.connection.stall_timeout = Some(SECOND));
    let mut driver = open_at(config, 2, &mut app, &clock);
    for slot in [0, 1] {
        let id = id_of(&mut driver, slot);
        driver.transport().socket(slot).takes = [10, 64 << 10, 10].into();
        driver.clients().send(id, vec![b'x'; 32 << 10]).expect("room");
    }
    turn(&mut driver, &mut app, &[]);
    assert_eq!(app.count("Drain"), 0);
    turn(&mut driver, &mut app, &[0, 1].map(|slot| (slot, Readiness { writable: true, ..READABLE })));
    assert_eq!(app.count("Drain"), 2, "one for each");
    assert_eq!(clock.now(), 2 * SECOND);
}

#[test]
fn a_backlog_is_written_in_shares_while_the_kernel_takes_all() {
    let mut app = nothing();
    let mut driver = open(Config::default(), 1, &mut app);
    let id = id_of(&mut driver, 0);
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
    config.event_loop.turn_callbacks = 10;
    let mut app = nothing();
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

/// A read whose frames inflate to more than the turn's budget is cut between two frames; the rest is held.
#[cfg(feature = "deflate")]
#[test]
fn what_inflates_beyond_the_budget_is_held() {
    use adjourn::wire::deflate::codec::Deflater;

    let mut config = Config::default();
    config.deflate = Some(adjourn::config::Deflate::default());
    config.event_loop.turn_bytes = 1 << 20;
    let mut app = nothing();
    let mut driver = Driver::new(config, 0, 1, Memory::default());
    let slot = driver.accept(address()).expect("room");
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

/// A command of another thread delivered all waiting events at once, also in a turn that had used up `turn_callbacks`
/// (3.5).
#[test]
fn a_command_delivers_no_more_than_a_turn_may() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.event_loop.turn_callbacks = 10), 200, &mut app);
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
    let mut driver = open(config(|config| config.event_loop.sweep_slice = 10), 100, &mut app);
    let asked = Arc::new(AtomicUsize::new(0));
    for _ in 0..50 {
        let asked = Arc::clone(&asked);
        driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, move |_| {
            asked.fetch_add(1, Ordering::Relaxed);
            false
        });
    }
    turn(&mut driver, &mut app, &[]);
    let asked = asked.load(Ordering::Relaxed);
    assert!(asked <= 20, "{asked} questions in a turn of 10");
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
    let config =
        config(|config| (config.event_loop.max_connections, config.event_loop.turn_callbacks) = (2, 100));
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

    let mut config = config(|config| config.event_loop.turn_bytes = 1 << 20);
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
    let mut config = config(|config| config.event_loop.turn_callbacks = 1);
    config.event_loop.read_buffer = 64 << 10;
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

/// 3.5: messages that were inflated only to be discarded had no budget.
#[cfg(feature = "deflate")]
#[test]
fn what_is_inflated_to_be_discarded_has_a_budget() {
    use adjourn::wire::deflate::codec::Deflater;
    let mut app = nothing();
    let config = config(|config| {
        config.deflate = Some(adjourn::config::Deflate::default());
        config.event_loop.turn_bytes = 64 << 10;
        config.connection.closing_data = adjourn::config::ClosingData::Discard;
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

/// 3.5: no slot was freed while an event of anybody waited. Who accepts waits for the events of those that were refused.
#[test]
fn slots_are_freed_although_events_wait() {
    let mut app = nothing();
    let config =
        config(|config| (config.event_loop.turn_callbacks, config.event_loop.max_connections) = (10, 1));
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

/// 1: when there was room for many events, those that waited for the next turn were thrown away with it.
#[test]
fn no_event_of_many_is_dropped() {
    let mut app = nothing();
    let mut driver = open(config(|config| config.event_loop.turn_callbacks = 1000), 5000, &mut app);
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

/// A connection's share of a turn had no end at the greatest `reads_per_turn`, because the counter stopped there (3.5).
#[test]
fn a_share_of_255_reads_has_an_end() {
    let mut app = nothing();
    let config = config(|config| {
        (config.event_loop.reads_per_turn, config.event_loop.read_buffer) = (255, 512);
        config.event_loop.turn_callbacks = u32::MAX;
    });
    let mut driver = open(config, 1, &mut app);
    driver.transport().socket(0).input = frame(0x82, b"").repeat(100_000);
    let before = unread(&mut driver);
    turn(&mut driver, &mut app, &[(0, READABLE)]);
    let n = before - unread(&mut driver);
    assert!(n <= 255 * 512, "{} reads", n / 512);
}

/// A connection's share of a turn had no end at the greatest `write_bytes_per_turn`, because the counter stopped there
/// (3.5).
#[test]
fn a_share_of_64_mib_has_an_end() {
    let mut app = nothing();
    let config = config(|config| {
        (config.event_loop.write_bytes_per_turn, config.event_loop.turn_bytes) = (65_535 << 10, 1 << 30);
        config.connection.max_backlog = 1 << 30;
        config.event_loop.reads_per_turn = 20;
    });
    let mut driver = open(config, 1, &mut app);
    let id = id_of(&mut driver, 0);
    let before = driver.transport().socket(0).written.len();
    for _ in 0..5 {
        driver.clients().send(id, vec![0; 33 << 20]).expect("room");
    }
    turn(&mut driver, &mut app, &[]);
    let n = driver.transport().socket(0).written.len() - before;
    assert!(n <= 64 << 20, "{} MiB", n >> 20);
}

/// The smallest bounds are served in many turns (3.5: a bound is at least one).
#[test]
fn budgets_of_one_do_not_stop_a_loop() {
    for set in [
        |config: &mut Config| config.event_loop.turn_bytes = 1,
        |config: &mut Config| config.event_loop.turn_callbacks = 1,
    ] {
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
