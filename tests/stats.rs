//! What a loop counts for operators: each number once, where the thing happened.

use std::time::Duration;

use adjourn::{
    Clients, Config, Event, Handler, ShutdownPlan,
    close::Traffic,
    http::{Response, Upgrade, UpgradeRequest},
    shutdown::ShutdownPhase,
    stats::LoopStats,
    testing::{REQUEST, Session, frame},
};
use testkit::net::{Echo, wait_until};

/// Echoes; takes as long as it is told to; refuses paths below `/no`.
#[derive(Default)]
struct App {
    slow: Option<(adjourn::testing::Clock, Duration)>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        match request.path() {
            "/no" => Upgrade::Reject(Response::new(403).expect("a status")),
            "/plain" => Upgrade::Answer(Response::new(200).expect("a status")),
            _ => Upgrade::accept(()),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        if let Event::Message { id, message, .. } = event {
            if let Some((clock, pause)) = &self.slow {
                clock.pass(*pause);
            }
            let _ = clients.send(id, message);
        }
    }
}

fn open() -> Session<App> {
    Session::open(Config::default(), App::default())
}

fn request(path: &str) -> Vec<u8> {
    String::from_utf8_lossy(REQUEST).replacen("GET / ", &format!("GET {path} "), 1).into_bytes()
}

/// The counts that are not zero.
fn some<K>(counts: impl Iterator<Item = (K, u64)>) -> Vec<(K, u64)> {
    counts.filter(|(_, count)| *count > 0).collect()
}

#[test]
fn messages_and_bytes_are_counted_each_way() {
    let mut session = open();
    let before = session.loop_stats().totals;
    assert_eq!((before.accepted, before.opened, before.opened_outgoing), (1, 1, 0));
    assert_eq!(before.received_bytes, REQUEST.len() as u64);

    let incoming = [frame(0x81, b"hello"), frame(0x89, b"?"), frame(0x8a, b"!")].concat();
    session.read(&incoming);
    let after = session.loop_stats().totals;
    assert_eq!(after.received_bytes - before.received_bytes, incoming.len() as u64);
    assert_eq!(after.sent_bytes - before.sent_bytes, session.take_written().len() as u64);
    assert_eq!((after.received_messages, after.sent_messages), (1, 1));
    assert_eq!((after.received_pings, after.received_pongs, after.sent_pings), (1, 1, 0));
}

#[test]
fn a_message_in_fragments_is_one_and_a_large_one_too() {
    let mut session = open();
    session.read(&[frame(0x01, b"hel"), frame(0x80, b"lo")].concat());
    session.read(&frame(0x82, &vec![0; 300_000]));
    let totals = session.loop_stats().totals;
    assert_eq!((totals.received_messages, totals.sent_messages), (2, 2));
}

#[test]
fn a_broadcast_counts_for_each_that_gets_it_and_one_without_room_is_refused() {
    let mut config = Config::default();
    config.connection.max_backlog = 100;
    let mut session = Session::open(config, App::default());
    session.act(|clients, _| {
        assert_eq!(clients.broadcast("to all", |_| true).sent, 1);
        assert_eq!(clients.broadcast(vec![0; 200], |_| true).refused, 1);
    });
    let totals = session.loop_stats().totals;
    assert_eq!((totals.sent_messages, totals.refused_messages), (1, 1));
}

#[test]
fn an_ending_is_counted_by_cause_code_and_initiator() {
    let mut session = open();
    session.read(&frame(0x88, &[0x0f, 0xa1]));
    session.read_eof();
    let LoopStats { connections, totals, .. } = session.loop_stats();
    assert_eq!(connections.total(), 0);
    let causes: Vec<_> = totals.closed.by_cause().filter(|(.., count)| *count > 0).collect();
    assert_eq!(causes, [("PeerClose", true, 1)]);
    assert_eq!(some(totals.closed.by_code()), [(4000, 1)], "codes that peers choose are counted together");
    assert_eq!(some(totals.closed.by_initiator()), [(adjourn::close::Initiator::Remote, 1)]);
    assert_eq!((totals.closed.total(), totals.durations.count(), totals.close_phases.count()), (1, 1, 1));
}

#[test]
fn what_an_ending_lost_is_added_up() {
    let mut session = open();
    session.make_room(0);
    session.act(|clients, _| {
        let id = clients.iter().next().expect("one is open").id();
        clients.send(id, "never sent").expect("there is room");
        clients.send(id, "nor this").expect("there is room");
        clients.terminate(id);
    });
    let totals = session.loop_stats().totals;
    assert_eq!((totals.lost.messages, totals.lost.bytes), (2, 18));
    assert_eq!(totals.sent_messages, 2, "accepted, and lost");
    let causes: Vec<_> = totals.closed.by_cause().filter(|(.., count)| *count > 0).collect();
    assert_eq!(causes, [("Terminated", false, 1)]);
}

#[test]
fn refusals_are_counted_by_cause_and_by_status() {
    let rows: [(&[u8], &str, u16); 4] = [
        (&request("/no"), "Rejected", 403),
        (b"nonsense\r\n\r\n", "BadRequest", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "BadRequest", 426),
        (b"", "Timeout", 408),
    ];
    for (bytes, cause, status) in rows {
        let mut session = Session::new(Config::default(), App::default());
        session.read(bytes);
        session.advance(Duration::from_mins(1));
        let totals = session.loop_stats().totals;
        assert_eq!(some(totals.handshakes_failed.iter()), [(cause, 1)], "{cause}");
        assert_eq!(some(totals.answers.iter()), [(status, 1)], "{cause}");
        assert_eq!((totals.opened, totals.closed.total()), (0, 0));
    }
}

#[test]
fn an_answer_that_was_not_sent_is_not_counted() {
    let mut session = Session::new(Config::default(), App::default());
    session.make_room(3);
    session.read(&request("/no"));
    session.advance(Duration::from_mins(1));
    let totals = session.loop_stats().totals;
    assert_eq!((some(totals.answers.iter()), totals.handshakes_failed.total()), (vec![], 1));
}

#[test]
fn a_plain_answer_is_no_failure() {
    let mut session = Session::new(Config::default(), App::default());
    session.read(b"GET /plain HTTP/1.1\r\nHost: a\r\n\r\n");
    let totals = session.loop_stats().totals;
    assert_eq!((some(totals.answers.iter()), totals.handshakes_failed.total()), (vec![(200, 1)], 0));
}

#[test]
fn the_longest_callback_has_a_name_and_its_turn_is_long() {
    let mut session = open();
    let clock = session.clock();
    session.handler().slow = Some((clock.clone(), Duration::from_millis(40)));
    session.read(&frame(0x81, b"slow"));
    session.handler().slow = Some((clock, Duration::from_millis(15)));
    session.read(&frame(0x81, b"less"));
    let totals = session.loop_stats().totals;
    let longest = totals.longest_callback.expect("it took 40 ms");
    assert_eq!((longest.took, longest.event), (Duration::from_millis(40), "Message"));
    assert!(longest.id.is_some());
    assert_eq!((totals.slow_callbacks, totals.slow_callback_time), (2, Duration::from_millis(55)));
    assert_eq!(totals.turns.sum(), Duration::from_millis(55), "the others took no time");
}

#[test]
fn a_deadline_that_is_served_late_is_counted_as_late() {
    let mut session = open();
    session.clock().pass(Duration::from_millis(30_070));
    session.turn();
    let lateness = session.loop_stats().totals.lateness;
    assert_eq!((lateness.count(), lateness.sum()), (1, Duration::from_millis(70)));
    assert_eq!(session.loop_stats().totals.sent_pings, 1);
}

#[test]
fn each_cap_has_its_limit_beside_it() {
    let mut config = Config::default();
    config.event_loop.max_connections = 7;
    config.event_loop.max_connections_per_address = Some(5);
    let session = Session::new(config, App::default());
    let caps = session.loop_stats().caps;
    assert_eq!((caps.connections.used, caps.connections.limit), (1, Some(7)));
    assert_eq!((caps.handshakes.used, caps.handshakes.limit), (1, Some(64)));
    assert_eq!((caps.deferred.used, caps.deferred.limit), (0, Some(1024)));
    assert_eq!((caps.per_address.used, caps.per_address.limit), (1, Some(5)));
}

#[test]
fn what_waits_for_slow_readers_is_a_cap() {
    let mut config = Config::default();
    config.event_loop.max_backlog_total = Some(1000);
    let mut session = Session::open(config, App::default());
    session.make_room(0);
    session.act(|clients, _| {
        let id = clients.iter().next().expect("one is open").id();
        clients.send(id, vec![0; 500]).expect("there is room");
        clients.send(id, vec![0; 500]).expect_err("there is not");
    });
    session.act(|clients, _| {
        let client = clients.iter().next().expect("one is open");
        assert_eq!(client.backlog(), 504);
    });
    let LoopStats { totals, caps, .. } = session.loop_stats();
    assert_eq!((caps.backlog.used, caps.backlog.limit), (504, Some(1000)));
    assert_eq!((totals.sent_messages, totals.refused_messages), (1, 1));
}

#[test]
fn the_traffic_of_one_connection_is_counted_if_that_was_asked_for() {
    assert_eq!(traffic_of(Config::default()), None);
    let mut config = Config::default();
    config.connection.count_traffic = true;
    let traffic = traffic_of(config).expect("it is counted");
    assert_eq!((traffic.received_messages, traffic.sent_messages), (2, 3));
    assert_eq!(traffic.received_bytes, 2 * frame(0x81, b"hello").len() as u64 + 8);
    assert!(traffic.sent_bytes > 3 * 7);
}

/// Of a connection that sends two messages and a Close, and gets three messages and a Close.
fn traffic_of(config: Config) -> Option<Traffic> {
    struct Keep(Option<Traffic>);
    impl Handler for Keep {
        type Data = ();
        fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            Upgrade::accept(())
        }
        fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
            match event {
                Event::Message { id, message, .. } => clients.send(id, message).expect("there is room"),
                Event::Close { report, .. } => self.0 = report.traffic,
                _ => {}
            }
        }
    }
    let mut session = Session::open(config, Keep(None));
    session.read(&frame(0x81, b"hello"));
    session.read(&frame(0x81, b"hello"));
    session.act(|clients, _| {
        let counted = clients.iter().next().and_then(|client| client.traffic());
        assert_eq!(counted.map(|traffic| traffic.received_messages), counted.map(|_| 2));
        clients.broadcast("three", |_| true);
    });
    session.read(&frame(0x88, &[0x03, 0xe8]));
    session.handler().0
}

#[test]
fn numbers_of_several_loops_add_up() {
    let mut other = open();
    other.read(&frame(0x81, b"hello"));
    let sum = LoopStats::sum(&[open().loop_stats(), other.loop_stats()]);
    assert_eq!((sum.number, sum.connections.open, sum.phase), (None, 2, ShutdownPhase::Serving));
    assert_eq!((sum.totals.opened, sum.totals.received_messages), (2, 1));
    assert_eq!((sum.caps.connections.used, sum.caps.deferred.limit), (2, Some(2 * 1024)));
    assert_eq!(LoopStats::sum([]), LoopStats::default());
    let counters: Vec<_> = sum.totals.counters().filter(|(name, ..)| *name == "opened").collect();
    assert_eq!(counters, [("opened", "Connections that opened in the server's role, adopted ones too.", 2)]);
}

#[test]
fn a_handle_sees_them_without_the_loop() {
    let server = Echo::start(Config::default());
    let stream = server.open();
    let stats = || server.handle.loop_stats();
    wait_until("the connection is counted", || stats().totals.opened == 1);
    server.handle.defer(|_| std::thread::sleep(Duration::from_millis(300))).expect("the server runs");
    let hanging = stats();
    assert_eq!(hanging.connections.open, 1);
    assert_eq!(hanging.caps.descriptors.used, 2, "a listener and a connection");
    assert!(hanging.caps.descriptors.limit.is_some());
    assert!(hanging.caps.handle_queue.limit.is_some());
    drop(stream);
    server.wait_until_empty();
    wait_until("its end is counted", || stats().totals.closed.total() == 1);
    let handle = server.handle.clone();
    server.shut_down(ShutdownPlan::soft(Duration::from_secs(1)));
    assert_eq!(handle.loop_stats().phase, ShutdownPhase::Done, "the last numbers stay");
}
