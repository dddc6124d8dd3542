//! Connections that the application takes out of the loop: in memory, and over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use adjourn::{
    Clients, Config, Event, Handler, Server, ShutdownPlan,
    http::{BodyLength, Detached, Response, Upgrade, UpgradeRequest},
    shutdown::ListenerInShutdown,
    testing::{REQUEST, Session, frame},
};

/// Accepts upgrades, answers `/health`, and detaches everything else, `/ws` also if it is an upgrade.
struct OnePort {
    detached: mpsc::Sender<Detached>,
    bodies: Vec<BodyLength>,
    events: Vec<String>,
}

impl OnePort {
    fn new() -> (Self, mpsc::Receiver<Detached>) {
        let (detached, receiver) = mpsc::channel();
        (Self { detached, bodies: Vec::new(), events: Vec::new() }, receiver)
    }
}

impl Handler for OnePort {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        self.bodies.push(request.body_length());
        if request.is_upgrade() && request.path() != "/ws" {
            return Upgrade::accept(());
        }
        if request.path() == "/health" {
            return Upgrade::Answer(Response::new(200).expect("a status").body("fine\n"));
        }
        let detached = self.detached.clone();
        Upgrade::detach(move |connection| drop(detached.send(connection)))
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::HandshakeFailed { error: cause, .. } => self.events.push(format!("{cause:?}")),
            Event::Phase { .. } => {}
            event => self.events.push(format!("{event:?}")),
        }
    }
}

fn session() -> (Session<OnePort>, mpsc::Receiver<Detached>) {
    let (handler, detached) = OnePort::new();
    (Session::new(Config::default(), handler), detached)
}

const PLAIN: &[&[u8]] = &[
    b"GET /page HTTP/1.1\r\nHost: a\r\n\r\n",
    b"GET /page HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n",
    b"HEAD /page HTTP/1.0\r\n\r\n",
    b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhel",
    b"PUT /api HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"DELETE /api HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n\x00\xff",
    b"BREW /pot HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n",
];

#[test]
fn every_byte_that_was_read_goes_along_however_it_was_cut() {
    for request in PLAIN {
        let head_len = request.windows(4).position(|four| four == b"\r\n\r\n").expect("a head") + 4;
        for cut in 0..=request.len() {
            let (mut session, detached) = session();
            session.read(&request[..cut]);
            assert_eq!(detached.try_recv().is_ok(), cut >= head_len, "with the last byte of the head");
            if cut >= head_len {
                continue;
            }
            session.read(&request[cut..]);
            let connection = detached.try_recv().expect("it was detached");
            assert_eq!(connection.peer_addr(), ([127, 0, 0, 1], 40_000).into());
            assert_eq!(connection.received(), *request);
            assert_eq!(connection.head(), &request[..head_len]);
            assert_eq!(connection.rest(), &request[head_len..]);
            assert!(session.is_gone(), "the slot is free");
            let socket = session.socket();
            assert!(socket.detached && socket.written.is_empty() && !socket.fin && socket.closed.is_none());
            assert!(session.handler().events.is_empty(), "{:?}", session.handler().events);
        }
    }
}

#[test]
fn a_fin_behind_the_request_is_left_to_who_takes_it() {
    let (mut session, detached) = session();
    session.socket().input.extend_from_slice(PLAIN[0]);
    session.read_eof();
    assert!(detached.try_recv().is_ok());
    assert!(session.is_gone() && session.handler().events.is_empty());
}

#[test]
fn what_asks_for_a_websocket_is_not_detached() {
    let (mut session, detached) = session();
    let request = String::from_utf8(REQUEST.to_vec()).expect("ASCII").replace("GET / ", "GET /ws ");
    session.read(request.as_bytes());
    assert!(detached.try_recv().is_err());
    assert!(session.take_written().starts_with(b"HTTP/1.1 400 "));
    assert_eq!(session.handler().events, ["Rejected"]);
}

#[test]
fn what_is_not_detached_gets_what_it_got_before() {
    let rows: &[(&str, &[u8], &str, &str)] = &[
        ("plain and answered", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n", "200", ""),
        (
            "a body, answered",
            b"POST /health HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\n!",
            "400",
            "BadRequest",
        ),
        (
            "chunks, answered",
            b"POST /health HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "400",
            "BadRequest",
        ),
    ];
    for (what, request, status, event) in rows {
        let (mut session, detached) = session();
        session.read(request);
        let answer = String::from_utf8(session.take_written()).expect("ASCII");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{what}: {answer}");
        assert!(detached.try_recv().is_err(), "{what}");
        let events: Vec<_> = Some(*event).filter(|event| !event.is_empty()).into_iter().collect();
        assert_eq!(session.handler().events, events, "{what}");
        assert_eq!(session.handler().bodies.len(), 1, "{what}: the application was asked");
    }
}

/// Two readers that disagree about where a body ends serve two different requests.
#[test]
fn ambiguous_framing_reaches_nobody() {
    let rows = [
        "Content-Length: 5\r\nContent-Length: 5",
        "Content-Length: 5\r\nContent-Length: 6",
        "Content-Length: 5, 6",
        "Content-Length: +5",
        "Content-Length: 5 5",
        "Content-Length: 0x5",
        "Content-Length: 99999999999999999999",
        "Content-Length: 5\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 0",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding: \"chunked\"",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding : chunked",
        "Content-Length : 5",
        "Content-Length: 5\r\n Transfer-Encoding: chunked",
        "X: y\nContent-Length: 5",
        "X: y\rContent-Length: 5",
    ];
    for lines in rows {
        let (mut session, detached) = session();
        session.read(format!("POST /api HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\nhello").as_bytes());
        assert!(detached.try_recv().is_err(), "{lines}");
        assert!(session.handler().bodies.is_empty(), "{lines}: the application was asked");
        assert!(session.take_written().starts_with(b"HTTP/1.1 400 "), "{lines}");
        assert_eq!(session.handler().events, ["BadRequest"], "{lines}");
    }
}

#[test]
fn a_shutdown_ends_around_one_that_is_detached() {
    let (mut session, detached) = session();
    session.read(&PLAIN[0][..5]);
    session.act(|clients, _| clients.shutdown(ShutdownPlan::soft(Duration::from_secs(5))));
    session.read(&PLAIN[0][5..]);
    assert_eq!(detached.try_recv().expect("it was detached").received(), PLAIN[0]);
    session.turn();
    let report = session.driver().shutdown_report().expect("nobody is left").clone();
    assert_eq!((report.refused_503, report.handshakes_cut, report.ended()), (0, 0, 0));
}

#[test]
fn a_place_is_free_as_soon_as_it_is_detached() {
    let (handler, detached) = OnePort::new();
    let mut config = Config::default();
    (config.event_loop.max_connections, config.event_loop.max_connections_per_address) = (1, Some(1));
    let mut session = Session::new(config, handler);
    for _ in 0..3 {
        session.read(PLAIN[0]);
        assert!(detached.try_recv().is_ok());
        let slot = session.driver().accept(([127, 0, 0, 1], 40_000).into());
        assert_eq!(slot, Some(0));
    }
    session.read(REQUEST);
    assert_eq!(session.stats().open, 1);
}

#[test]
fn a_panic_of_who_takes_it_leaves_the_loop_whole() {
    struct Panics;

    impl Handler for Panics {
        type Data = ();

        fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            if request.is_upgrade() {
                Upgrade::accept(())
            } else {
                Upgrade::detach(|_| panic!("as it was asked to"))
            }
        }

        fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
            if let Event::Message { id, message, .. } = event {
                clients.send(id, message).expect("it is open");
            }
        }
    }

    let mut session = Session::new(Config::default(), Panics);
    let panic = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| session.read(PLAIN[0])));
    assert!(panic.is_err());
    session.turn();
    assert!(session.is_gone());
    assert_eq!(session.driver().accept(([127, 0, 0, 1], 40_001).into()), Some(0));
    session.read(REQUEST);
    session.take_written();
    session.read(&frame(0x81, b"hello"));
    assert_eq!(session.take_written(), b"\x81\x05hello");
}

// Over real sockets.

fn serve()
-> (std::net::SocketAddr, adjourn::Handle, mpsc::Receiver<Detached>, thread::JoinHandle<Vec<String>>) {
    let (mut handler, detached) = OnePort::new();
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("a port is free");
        sender.send((server.local_addr().expect("it listens"), server.handle())).expect("the test waits");
        server.run_with(&mut handler).expect("the poll works");
        handler.events
    });
    let (address, handle) = receiver.recv().expect("the server starts");
    (address, handle, detached, thread)
}

fn connect(address: std::net::SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
    stream
}

#[test]
fn a_detached_socket_is_served_by_somebody_else() {
    let (address, handle, detached, thread) = serve();
    for _ in 0..3 {
        let mut client = connect(address);
        client.write_all(b"POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\nabc").expect("it reads");
        let connection = detached.recv_timeout(Duration::from_secs(10)).expect("it is detached");
        assert_eq!(connection.peer_addr(), client.local_addr().expect("it is connected"));
        let (mut stream, received) = connection.into_tcp().expect("a socket");
        assert_eq!(
            stream.read(&mut [0]).expect_err("nothing is there").kind(),
            std::io::ErrorKind::WouldBlock
        );
        assert!(stream.nodelay().expect("a socket"));
        stream.set_nonblocking(false).expect("a socket");
        client.write_all(b"def").expect("it reads");
        client.shutdown(Shutdown::Write).expect("it is connected");
        let mut body = received;
        stream.read_to_end(&mut body).expect("a body");
        assert!(body.ends_with(b"\r\n\r\nabcdef"), "{}", String::from_utf8_lossy(&body));
        stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("it reads");
        drop(stream);
        let mut answer = String::new();
        client.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 204 "), "{answer}");
    }
    // Its slot serves others.
    let mut client = connect(address);
    client.write_all(REQUEST).expect("it reads");
    let mut head = [0; 12];
    client.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 101");
    drop(client);
    handle.shutdown(ShutdownPlan::hard()).expect("it runs");
    let events = thread.join().expect("no panic");
    assert!(!events.iter().any(|event| event == "PeerFin"), "{events:?}");
}

/// Upgrades get 503 while one connection takes its time to close; pages are served as before.
#[test]
fn one_port_serves_pages_until_the_server_is_down() {
    let (address, handle, detached, thread) = serve();
    let mut slow = connect(address);
    slow.write_all(REQUEST).expect("it reads");
    slow.read_exact(&mut [0; 129]).expect("a 101");
    let mut plan = ShutdownPlan::soft(Duration::from_secs(30));
    plan.listener_in_shutdown = ListenerInShutdown::PlainHttp;
    handle.shutdown(plan).expect("it runs");
    let mut close = [0; 4];
    slow.read_exact(&mut close).expect("a Close");
    assert_eq!((close[0], &close[2..]), (0x88, &1001_u16.to_be_bytes()[..]));
    let mut late = connect(address);
    late.write_all(REQUEST).expect("it reads");
    let mut head = [0; 12];
    late.read_exact(&mut head).expect("an answer");
    assert_eq!(&head, b"HTTP/1.1 503");
    let mut page = connect(address);
    page.write_all(PLAIN[0]).expect("it reads");
    let connection = detached.recv_timeout(Duration::from_secs(10)).expect("it is detached");
    assert_eq!(connection.received(), PLAIN[0]);
    slow.write_all(&frame(0x88, &close[2..])).expect("it reads");
    drop((slow, late));
    thread.join().expect("it is down, although a page is being served");
    let (mut stream, _) = connection.into_tcp().expect("a socket");
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("it is connected");
}

/// The stream of one that nobody serves on is closed by dropping it, and the loop does not hear of it.
#[test]
fn a_detached_socket_outlives_the_loop() {
    let (address, handle, detached, thread) = serve();
    let mut client = connect(address);
    client.write_all(PLAIN[0]).expect("it reads");
    let connection = detached.recv_timeout(Duration::from_secs(10)).expect("it is detached");
    handle.shutdown(ShutdownPlan::hard()).expect("it runs");
    assert!(thread.join().expect("no panic").is_empty());
    assert!(TcpListener::bind(address).is_ok() || cfg!(not(target_os = "linux")), "the port is free");
    let (mut stream, _) = connection.into_tcp().expect("a socket");
    stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").expect("it is connected");
    drop(stream);
    let mut answer = String::new();
    client.read_to_string(&mut answer).expect("an answer");
    assert_eq!(answer, "HTTP/1.1 200 OK\r\n\r\n");
}
