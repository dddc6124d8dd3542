//! Upgrades that the application decides on later: in virtual time, and over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread,
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, Config, ConnectionId, Event, Handler, SendError, Server, ShutdownPlan,
    error::DecideError,
    http::{Accept, Response, Upgrade, UpgradeRequest},
    shutdown::{LameDuckPolicy, ShutdownPhase},
    testing::{REQUEST, Session, frame},
};

/// Defers everything, and says what it hears.
#[derive(Default)]
struct Later {
    deferred: Vec<ConnectionId>,
    events: Vec<String>,
}

impl Handler for Later {
    type Data = u8;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, u8> {
        self.deferred.push(request.id());
        Upgrade::Defer
    }

    fn on_event(&mut self, clients: &mut Clients<'_, u8>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                let data = clients.get(id).map(|client| *client.data());
                self.events.push(format!("Open {id} {data:?}"));
            }
            Event::Message { message, .. } => self.events.push(format!("{:?}", message.as_text())),
            Event::HandshakeFailed { id, error, .. } => self.events.push(format!("{error:?} {id:?}")),
            Event::Phase { phase, .. } => self.events.push(phase.name().to_owned()),
            event => self.events.push(format!("{event:?}")),
        }
    }
}

/// A connection whose upgrade waits for a decision.
fn deferred(config: Config) -> (Session<Later>, ConnectionId) {
    let mut session = Session::new(config, Later::default());
    session.read(REQUEST);
    let id = session.handler().deferred[0];
    assert!(session.take_written().is_empty(), "nothing is said");
    (session, id)
}

fn accept(session: &mut Session<Later>, id: ConnectionId) -> Result<(), DecideError> {
    session.act(|clients, _| clients.accept(id, |_| Accept::new(7)))
}

fn reject(session: &mut Session<Later>, id: ConnectionId) -> Result<(), DecideError> {
    let response = Response::new(502).expect("a status");
    session.act(|clients, _| clients.reject(id, &response))
}

fn failed(cause: &str, id: ConnectionId) -> String {
    format!("{cause} {:?}", Some(id))
}

#[test]
fn what_is_accepted_later_is_a_connection_like_any_other() {
    let (mut session, id) = deferred(Config::default());
    session.advance(Duration::from_secs(9));
    assert_eq!(accept(&mut session, id), Ok(()));
    assert!(session.take_written().starts_with(b"HTTP/1.1 101 "));
    assert_eq!(session.handler().events, [format!("Open {id} Some(7)")]);
    session.read(&frame(0x81, b"hello"));
    assert_eq!(session.handler().events[1..], ["Some(\"hello\")"]);
    session.advance(Duration::from_secs(20));
    assert_eq!(session.stats().open, 1, "the handshake's timeout is over");
    assert_eq!(accept(&mut session, id), Err(DecideError::NotFound), "once");
    assert_eq!(reject(&mut session, id), Err(DecideError::NotFound));
    assert_eq!(session.stats().open, 1);
}

#[test]
fn the_request_can_be_asked_again_for_what_it_offers() {
    let mut session = Session::new(Config::default(), Later::default());
    let request = String::from_utf8(REQUEST.to_vec()).expect("ASCII");
    let request = request.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: chat, superchat\r\n\r\n");
    // In two pieces.
    session.read(&request.as_bytes()[..50]);
    session.read(&request.as_bytes()[50..]);
    let id = session.handler().deferred[0];
    let accepted = session.act(|clients, _| {
        clients.accept(id, |request| {
            assert_eq!((request.id(), request.path()), (id, "/"));
            assert_eq!(request.subprotocol("other"), None);
            Accept::new(0).subprotocol(request.subprotocol("superchat"))
        })
    });
    assert_eq!(accepted, Ok(()));
    let answer = String::from_utf8(session.take_written()).expect("ASCII");
    assert!(answer.contains("\r\nSec-WebSocket-Protocol: superchat\r\n"), "{answer}");
    assert!(answer.contains("\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"), "{answer}");
    session.act(|clients, _| {
        assert_eq!(clients.get(id).expect("it is open").subprotocol(), Some("superchat"));
    });
}

#[test]
fn who_is_rejected_gets_that_response() {
    let (mut session, id) = deferred(Config::default());
    assert_eq!(reject(&mut session, id), Ok(()));
    assert!(session.take_written().starts_with(b"HTTP/1.1 502 "));
    assert_eq!(session.handler().events, [failed("Rejected", id)]);
    assert_eq!(accept(&mut session, id), Err(DecideError::NotFound));
    session.end();
    assert_eq!(session.handler().events.len(), 1);
}

/// Frames behind the head, in the same read and later ones, wait for the decision.
#[test]
fn nothing_is_read_before_the_decision() {
    let mut session = Session::new(Config::default(), Later::default());
    session.read(&[REQUEST, &frame(0x81, b"one"), &frame(0x81, b"two")[..3]].concat());
    let rest = [&frame(0x81, b"two")[3..], &frame(0x81, b"three")].concat();
    session.read(&rest);
    assert_eq!(session.socket().input, rest, "it lies in the kernel");
    assert!(session.handler().events.is_empty());
    let id = session.handler().deferred[0];
    assert_eq!(accept(&mut session, id), Ok(()));
    let expected = [&format!("Open {id} Some(7)"), "Some(\"one\")", "Some(\"two\")", "Some(\"three\")"];
    assert_eq!(session.handler().events, expected);
}

#[test]
fn the_handshakes_timeout_runs_on() {
    let (mut session, id) = deferred(Config::default());
    session.advance(Duration::from_millis(9_999));
    assert!(session.handler().events.is_empty());
    session.advance(Duration::from_millis(1));
    assert!(session.take_written().starts_with(b"HTTP/1.1 408 "));
    assert_eq!(session.handler().events, [failed("Timeout", id)]);
    assert_eq!(accept(&mut session, id), Err(DecideError::NotFound), "it is too late");
    assert!(session.take_written().is_empty());
}

#[test]
fn a_peer_that_has_left_is_reported_at_once() {
    type Leave = fn(&mut Session<Later>);
    let rows: [(&str, Leave); 2] = [("PeerFin", Session::read_eof), ("PeerReset", Session::reset)];
    for (cause, leave) in rows {
        // With frames that nobody will read, and without.
        for behind in [vec![], frame(0x81, b"hello")] {
            let (mut session, id) = deferred(Config::default());
            session.read(&behind);
            leave(&mut session);
            assert_eq!(session.handler().events, [failed(cause, id)]);
            assert!(session.is_gone() && session.take_written().is_empty());
            assert_eq!(accept(&mut session, id), Err(DecideError::NotFound));
        }
    }
    let mut session = Session::new(Config::default(), Later::default());
    session.socket().input.extend_from_slice(REQUEST);
    session.read_eof();
    let id = session.handler().deferred[0];
    assert_eq!(session.handler().events, [failed("PeerFin", id)], "the FIN came with the request");
}

#[test]
fn an_id_is_not_good_for_the_next_one_in_its_place() {
    let (mut session, first) = deferred(Config::default());
    session.read_eof();
    assert_eq!(session.driver().accept(([127, 0, 0, 1], 40_000).into()), Some(0));
    session.read(REQUEST);
    let second = session.handler().deferred[1];
    assert_eq!((first.slot(), second.slot()), (0, 0));
    assert_eq!(accept(&mut session, first), Err(DecideError::NotFound));
    assert_eq!(reject(&mut session, first), Err(DecideError::NotFound));
    assert_eq!(accept(&mut session, second), Ok(()));
}

#[test]
fn a_deferred_one_takes_no_commands_but_the_decision() {
    let (mut session, id) = deferred(Config::default());
    session.act(|clients, _| {
        assert!(clients.get(id).is_none() && clients.is_empty());
        assert_eq!(clients.send(id, "x"), Err(SendError::NotFound));
        assert!(!clients.close(id, CloseFrame::NORMAL) && !clients.terminate(id) && !clients.pause(id));
        assert!(!clients.resume(id));
        clients.broadcast("x", |_| true);
    });
    assert!(session.take_written().is_empty());
    assert_eq!(accept(&mut session, id), Ok(()));
}

#[test]
fn newcomers_do_not_get_the_place_of_a_deferred_one() {
    let mut config = Config::default();
    (config.event_loop.max_handshakes, config.event_loop.max_connections) = (Some(1), 3);
    let (mut session, id) = deferred(config);
    for port in 1..6 {
        session.driver().accept(([127, 0, 0, 1], port).into());
        session.turn();
    }
    let evicted = session
        .handler()
        .events
        .iter()
        .filter(|event| *event == "TooManyConnections { limit: Handshakes } None")
        .count();
    assert_eq!((evicted, session.handler().events.len()), (4, 4), "{:?}", session.handler().events);
    assert_eq!(accept(&mut session, id), Ok(()));
}

#[test]
fn one_more_than_may_be_deferred_is_refused() {
    let mut config = Config::default();
    config.event_loop.max_deferred = 1;
    let (mut session, first) = deferred(config.clone());
    let slot = session.driver().accept(([127, 0, 0, 1], 2).into()).expect("there is room");
    session.driver().transport().socket(slot).input.extend_from_slice(REQUEST);
    let readiness = adjourn::hub::Readiness { readable: true, ..Default::default() };
    let mut handler = Later::default();
    session.driver().begin_turn(&mut handler);
    session.driver().ready(slot, readiness, &mut handler);
    session.driver().end_turn(&mut handler);
    assert_eq!(handler.events, ["TooManyConnections { limit: Deferred } None"]);
    let written = std::mem::take(&mut session.driver().transport().socket(slot).written);
    assert!(written.starts_with(b"HTTP/1.1 503 ") && written.windows(11).any(|part| part == b"Retry-After"));
    // When the first one is decided there is a place again.
    assert_eq!(accept(&mut session, first), Ok(()));
    config.event_loop.max_deferred = 0;
    let mut session = Session::new(config, Later::default());
    session.read(REQUEST);
    assert!(session.take_written().starts_with(b"HTTP/1.1 503 "));
}

/// Every way out gives the place back.
#[test]
fn places_of_deferred_ones_are_given_back() {
    let mut config = Config::default();
    config.event_loop.max_deferred = 1;
    let (mut session, mut id) = deferred(config);
    for way in 0..12 {
        match way % 4 {
            0 => assert_eq!(reject(&mut session, id), Ok(())),
            1 => session.read_eof(),
            2 => session.advance(Duration::from_secs(10)),
            _ => {
                assert_eq!(accept(&mut session, id), Ok(()));
                session.act(|clients, _| clients.terminate(id));
            }
        }
        session.end();
        assert_eq!(session.driver().accept(([127, 0, 0, 1], 40_000).into()), Some(0));
        session.take_written();
        session.read(REQUEST);
        assert!(session.take_written().is_empty(), "{way}: it is deferred, too");
        id = *session.handler().deferred.last().expect("it was asked");
    }
}

#[test]
fn a_plain_request_cannot_be_deferred() {
    let mut session = Session::new(Config::default(), Later::default());
    session.read(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(session.take_written().starts_with(b"HTTP/1.1 426 "));
    let id = session.handler().deferred[0];
    assert_eq!(accept(&mut session, id), Err(DecideError::NotFound));
}

#[test]
fn a_soft_sweep_refuses_what_is_deferred() {
    let (mut session, id) = deferred(Config::default());
    session.act(|clients, _| clients.shutdown(ShutdownPlan::soft(Duration::from_secs(30))));
    session.advance(Duration::from_millis(1));
    assert!(session.take_written().starts_with(b"HTTP/1.1 503 "));
    assert!(session.handler().events.contains(&failed("ShuttingDown", id)), "{:?}", session.handler().events);
    assert_eq!(accept(&mut session, id), Err(DecideError::NotFound));
    session.end();
    let report = session.driver().shutdown_report().expect("nobody is left").clone();
    assert_eq!((report.refused_503, report.handshakes_cut), (1, 0));
    assert!(report.took < Duration::from_secs(3), "it did not wait for a decision: {:?}", report.took);
}

/// Its request came before the latch, whatever becomes of those that come now.
#[test]
fn a_decision_in_a_lame_duck_stands() {
    for policy in [LameDuckPolicy::Serve, LameDuckPolicy::Refuse, LameDuckPolicy::Close] {
        let (mut session, id) = deferred(Config::default());
        let mut plan = ShutdownPlan::soft(Duration::from_secs(5));
        (plan.lame_duck, plan.listeners) = (Duration::from_secs(5), policy);
        session.act(|clients, _| clients.shutdown(plan));
        assert_eq!(session.driver().phase(), ShutdownPhase::LameDuck);
        assert_eq!(accept(&mut session, id), Ok(()));
        assert!(session.take_written().starts_with(b"HTTP/1.1 101 "));
    }
}

#[test]
fn a_hard_sweep_ends_what_is_deferred() {
    let (mut session, id) = deferred(Config::default());
    session.act(|clients, _| {
        clients.shutdown(ShutdownPlan::soft(Duration::from_secs(30)));
        clients.abort();
    });
    assert!(session.is_gone());
    assert!(session.handler().events.contains(&failed("ShuttingDown", id)), "{:?}", session.handler().events);
}

#[test]
fn a_panic_in_the_decision_leaves_it_undecided() {
    let (mut session, id) = deferred(Config::default());
    let panic = catch_unwind(AssertUnwindSafe(|| {
        session.act(|clients, _| clients.accept(id, |_| panic!("as it was asked to")))
    }));
    assert!(panic.is_err());
    assert_eq!(accept(&mut session, id), Ok(()));
    assert!(session.take_written().starts_with(b"HTTP/1.1 101 "));
}

// Over real sockets.

/// Another thread decides by the path.
#[test]
fn another_thread_decides() {
    struct Asks(mpsc::Sender<(ConnectionId, String)>);

    impl Handler for Asks {
        type Data = String;

        fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, String> {
            self.0.send((request.id(), request.path().to_owned())).expect("the thread waits");
            Upgrade::Defer
        }

        fn on_event(&mut self, clients: &mut Clients<'_, String>, event: Event<'_>) {
            if let Event::Open { id } = event {
                let name = clients.get(id).map(|client| client.data().clone()).unwrap_or_default();
                clients.send(id, name).expect("it is open");
            }
        }
    }

    let (questions, asked) = mpsc::channel::<(ConnectionId, String)>();
    let (sender, receiver) = mpsc::channel();
    let server = thread::spawn(move || {
        let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("a port is free");
        sender.send((server.local_addr().expect("it listens"), server.handle())).expect("the test waits");
        server.run_with(&mut Asks(questions)).expect("the poll works")
    });
    let (address, handle) = receiver.recv().expect("the server starts");
    let judge = handle.clone();
    thread::spawn(move || {
        for (id, path) in asked {
            match path.strip_prefix("/user/") {
                Some(name) => {
                    let name = name.to_owned();
                    judge.accept(id, move |_| Accept::new(name)).expect("it runs");
                }
                None => judge.reject(id, Response::new(403).expect("a status")).expect("it runs"),
            }
        }
    });
    let ask = |path: &str| {
        let mut stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
        let request = String::from_utf8(REQUEST.to_vec()).expect("ASCII");
        let request = request.replace("GET / ", &format!("GET {path} "));
        stream.write_all(request.as_bytes()).expect("it reads");
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("an answer");
            answer.extend(byte);
        }
        if answer.starts_with(b"HTTP/1.1 101 ") {
            answer = vec![0; 5];
            stream.read_exact(&mut answer).expect("a message");
        }
        answer
    };
    for _ in 0..3 {
        assert_eq!(ask("/user/ada"), b"\x81\x03ada");
        assert!(ask("/nobody").starts_with(b"HTTP/1.1 403 "));
    }
    handle.shutdown(ShutdownPlan::hard()).expect("it runs");
    server.join().expect("no panic");
}
