//! Connections whose 101 somebody else has sent: in memory, and over real sockets.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, Config, ConnectionId, Event, Handler, Server, ShutdownPlan,
    error::{AdoptError, AdoptRefusal, ConnectionLimit, HandleError},
    http::{Accept, Adopt, Role, Upgrade, UpgradeRequest},
    hub::{Adoption, Driver, Newcomer, Readiness},
    testing::{Memory, REQUEST, frame},
};

/// Echoes, and says what it hears.
#[derive(Default)]
struct Echo(Vec<String>);

impl Handler for Echo {
    type Data = &'static str;

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, &'static str> {
        Upgrade::accept("by a request")
    }

    fn on_event(&mut self, clients: &mut Clients<'_, &'static str>, event: Event<'_>) {
        let Some(id) = event.id() else { return };
        match event {
            Event::Open { .. } => {
                let client = clients.get(id).expect("it is open");
                self.0.push(format!("Open {} {:?}", client.data(), client.subprotocol()));
            }
            Event::Message { message, .. } => {
                self.0.push(format!("{} bytes", message.len()));
                clients.send(id, message).expect("it is open");
            }
            Event::Close { report, .. } => self.0.push(report.cause.name().to_owned()),
            _ => {}
        }
    }
}

struct Loop {
    driver: Driver<&'static str, Memory>,
    echo: Echo,
}

impl Loop {
    fn new(config: Config) -> Self {
        Self { driver: Driver::new(config, 0, 1, Memory::default()), echo: Echo::default() }
    }

    fn adopt(&mut self, adoption: Adoption<&'static str>) -> Result<usize, AdoptRefusal> {
        let adopted = self.driver.adopt(&Newcomer::tcp(peer()), adoption, |_, _| Ok(()));
        self.turn(None);
        adopted.map(ConnectionId::slot)
    }

    fn read(&mut self, slot: usize, bytes: &[u8]) {
        self.driver.transport().socket(slot).input.extend_from_slice(bytes);
        self.turn(Some(slot));
    }

    fn turn(&mut self, ready: Option<usize>) {
        self.driver.begin_turn(&mut self.echo);
        if let Some(slot) = ready {
            let readiness = Readiness { readable: true, ..Readiness::default() };
            self.driver.ready(slot, readiness, &mut self.echo);
        }
        self.driver.end_turn(&mut self.echo);
        while self.driver.has_more() && self.driver.shutdown_report().is_none() {
            self.driver.begin_turn(&mut self.echo);
            self.driver.end_turn(&mut self.echo);
        }
    }

    fn written(&mut self, slot: usize) -> Vec<u8> {
        std::mem::take(&mut self.driver.transport().socket(slot).written)
    }
}

fn peer() -> SocketAddr {
    ([192, 0, 2, 1], 4000).into()
}

fn adoption() -> Adoption<&'static str> {
    Adoption::new(Role::Server, "adopted")
}

/// However the first frames are spread over what was read behind the head and what is still to come.
#[test]
fn an_adopted_connection_goes_on_where_its_handshake_ended() {
    let bytes = [frame(0x81, b"hello"), frame(0x82, &[7; 300])].concat();
    for cut in 0..=bytes.len() {
        let mut world = Loop::new(Config::default());
        let slot = world.adopt(adoption().received(&bytes[..cut])).expect("there is room");
        world.read(slot, &bytes[cut..]);
        assert_eq!(world.echo.0, ["Open adopted None", "5 bytes", "300 bytes"], "{cut}");
        let written = world.written(slot);
        assert!(written.starts_with(b"\x81\x05hello\x82\x7e\x01\x2c\x07"), "no head is written: {cut}");
        assert_eq!(written.len(), 7 + 304);
        world.read(slot, &frame(0x88, b"\x03\xe8"));
        assert_eq!(world.written(slot), b"\x88\x02\x03\xe8");
        assert_eq!(world.echo.0[3..], ["PeerClose"]);
    }
}

#[test]
fn what_is_no_frame_behind_the_head_fails_it() {
    let mut world = Loop::new(Config::default());
    let slot = world.adopt(adoption().received("GET /again HTTP/1.1\r\n\r\n")).expect("there is room");
    assert!(world.written(slot).starts_with(b"\x88\x10\x03\xea"));
    assert_eq!(world.echo.0, ["Open adopted None", "Protocol"]);
}

#[test]
fn a_client_masks() {
    let mut world = Loop::new(Config::default());
    let slot =
        world.adopt(Adoption::new(Role::Client, "ours").received(*b"\x81\x05hello")).expect("there is room");
    let written = world.written(slot);
    assert_eq!((written.len(), &written[..2]), (11, &b"\x81\x85"[..]));
    world.read(slot, &frame(0x81, b"masked"));
    assert_eq!(world.echo.0, ["Open ours None", "5 bytes", "Protocol"]);
}

#[test]
fn adopted_ones_count_like_all_others() {
    let mut config = Config::default();
    (config.event_loop.max_connections, config.event_loop.max_connections_per_address) = (2, Some(1));
    let mut world = Loop::new(config);
    let slot = world.adopt(adoption()).expect("there is room");
    let limit = ConnectionLimit::PerAddress;
    assert_eq!(world.adopt(adoption()), Err(AdoptRefusal::TooManyConnections { limit }));
    assert_eq!(world.driver.accept(peer()), None, "they share the address's share");
    world.turn(None);
    assert!(world.driver.accept(([192, 0, 2, 2], 1).into()).is_some());
    let mut config = Config::default();
    config.event_loop.max_connections = 1;
    let mut full = Loop::new(config);
    full.adopt(adoption()).expect("there is room");
    let limit = ConnectionLimit::Connections;
    assert_eq!(full.adopt(adoption()), Err(AdoptRefusal::TooManyConnections { limit }));
    // Its share is given back.
    world.read(slot, &frame(0x88, b""));
    world.driver.transport().socket(slot).eof = true;
    world.turn(Some(slot));
    assert!(world.adopt(adoption()).is_ok());
}

#[test]
fn nothing_is_left_of_one_that_is_refused() {
    let mut world = Loop::new(Config::default());
    let refused =
        world.driver.adopt(&Newcomer::tcp(peer()), adoption(), |_, _| Err(io::ErrorKind::OutOfMemory.into()));
    assert_eq!(refused, Err(AdoptRefusal::Io(io::ErrorKind::OutOfMemory)));
    for value in ["permessage-deflate; unknown", "permessage-deflate, foo", "x-webkit-deflate-frame", "a;;"] {
        assert_eq!(world.adopt(adoption().extensions(value)), Err(AdoptRefusal::Extensions), "{value}");
    }
    assert!(world.echo.0.is_empty() && world.driver.stats().total() == 0);
    assert!(world.adopt(adoption().extensions("")).is_ok(), "an empty value says nothing");
}

/// Nobody else is closed for it, either.
#[test]
fn a_handshake_does_not_go_for_a_stream_that_cannot_be_watched() {
    let mut config = Config::default();
    config.event_loop.max_connections = 1;
    let mut world = Loop::new(config);
    world.driver.accept(peer()).expect("there is room");
    world.turn(None);
    let refused =
        world.driver.adopt(&Newcomer::tcp(peer()), adoption(), |_, _| Err(io::ErrorKind::OutOfMemory.into()));
    world.turn(None);
    assert_eq!(refused, Err(AdoptRefusal::Io(io::ErrorKind::OutOfMemory)));
    assert_eq!((world.driver.stats().connecting, &world.echo.0[..]), (1, &[][..]));
    assert!(world.adopt(adoption()).is_ok(), "now it goes");
}

#[cfg(feature = "deflate")]
#[test]
fn what_was_agreed_on_holds() {
    let mut config = Config::default();
    config.deflate = Some(adjourn::config::Deflate::default());
    let mut world = Loop::new(config);
    let value = "permessage-deflate; server_no_context_takeover; client_max_window_bits=10";
    let slot = world.adopt(adoption().extensions(value)).expect("it is known");
    let id = world.driver.clients().iter().next().expect("it is open").id();
    let agreed =
        world.driver.clients().get(id).and_then(|client| client.deflate()).expect("it was agreed on");
    assert!(agreed.server_no_context_takeover && !agreed.client_no_context_takeover);
    assert_eq!((agreed.server_max_window_bits, agreed.client_max_window_bits), (15, 10));
    // RFC 7692 §7.2.3.1: "Hello".
    world.read(slot, &frame(0xc1, b"\xf2\x48\xcd\xc9\xc9\x07\x00"));
    assert_eq!(world.echo.0[1..], ["5 bytes"]);
}

#[test]
fn nobody_enters_behind_the_latch() {
    let mut world = Loop::new(Config::default());
    world.adopt(adoption()).expect("there is room");
    world.driver.clients().shutdown(ShutdownPlan::soft(Duration::from_secs(5)));
    world.turn(None);
    world.turn(None);
    assert_eq!(world.adopt(adoption()), Err(AdoptRefusal::ShuttingDown));
}

// Over real sockets.

const SWITCHING: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\n\r\n";

/// A client, and the server's end of its connection after a handshake that somebody else has done.
fn upgraded(listener: &TcpListener) -> (TcpStream, TcpStream) {
    let mut client = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
    let (mut stream, _) = listener.accept().expect("somebody connects");
    stream.write_all(SWITCHING).expect("it is connected");
    client.read_exact(&mut [0; SWITCHING.len()]).expect("a 101");
    (client, stream)
}

#[test]
fn a_stream_enters_from_any_thread() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (sender, receiver) = mpsc::channel();
    let (mut first, stream) = upgraded(&listener);
    let server = thread::spawn(move || {
        let mut server = Server::outgoing(Config::default()).expect("a poll");
        let early = Adopt::new(stream, Role::Server, "before it runs").received(frame(0x81, b"early"));
        server.adopt(early.subprotocol("chat").path("/x")).expect("there is room");
        sender.send(server.handle()).expect("the test waits");
        let mut echo = Echo::default();
        let report = server.run_with(&mut echo).expect("the poll works");
        (echo.0, report)
    });
    let handle = receiver.recv().expect("the server starts");
    let mut message = [0; 7];
    first.read_exact(&mut message).expect("an echo");
    assert_eq!(&message, b"\x81\x05early");
    let (mut second, stream) = upgraded(&listener);
    let (done, answers) = mpsc::channel();
    handle.adopt(Adopt::new(stream, Role::Server, "by its handle"), move |adopted| {
        done.send(adopted.expect("there is room")).expect("the test waits");
    });
    let id = answers.recv_timeout(Duration::from_secs(10)).expect("it is done");
    second.write_all(&frame(0x82, b"bytes")).expect("it reads");
    second.read_exact(&mut message).expect("an echo");
    assert_eq!(&message, b"\x82\x05bytes");
    handle.close(id, CloseFrame::NORMAL).expect("it runs");
    second.read_exact(&mut message[..4]).expect("a Close");
    assert_eq!(&message[..4], b"\x88\x02\x03\xe8");
    second.write_all(&frame(0x88, b"\x03\xe8")).expect("it reads");
    assert_eq!(second.read(&mut message).expect("a FIN"), 0);
    drop(first);
    handle.shutdown(ShutdownPlan::soft(Duration::from_secs(5))).expect("it runs");
    let (events, _) = server.join().expect("no panic");
    assert_eq!(events[..2], ["Open before it runs Some(\"chat\")", "5 bytes"]);
    assert!(events.contains(&"Open by its handle None".to_owned()), "{events:?}");
    assert!(events.contains(&"LocalClose".to_owned()), "{events:?}");
}

#[test]
fn who_is_not_adopted_gets_the_stream_back() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut config = Config::default();
    config.event_loop.max_connections = 1;
    let mut server: Server<&'static str> = Server::outgoing(config).expect("a poll");
    let (_first, stream) = upgraded(&listener);
    server.adopt(Adopt::new(stream, Role::Server, "first")).expect("there is room");
    let (mut client, stream) = upgraded(&listener);
    let refused = server.adopt(Adopt::new(stream, Role::Server, "second"));
    let AdoptError { mut stream, why, .. } = refused.expect_err("there is no room");
    assert_eq!(why, AdoptRefusal::TooManyConnections { limit: ConnectionLimit::Connections });
    stream.write_all(b"\x88\x02\x03\xf5").expect("it is connected");
    drop(stream);
    let mut close = Vec::new();
    client.read_to_end(&mut close).expect("a Close and a FIN");
    assert_eq!(close, b"\x88\x02\x03\xf5");
    // A loop that is gone, and one that goes without having looked.
    for queued in [false, true] {
        let server: Server<&'static str> = Server::outgoing(Config::default()).expect("a poll");
        let handle = server.handle();
        let mut server = Some(server).filter(|_| queued);
        let (mut client, stream) = upgraded(&listener);
        let (done, answers) = mpsc::channel();
        handle.adopt(Adopt::new(stream, Role::Server, ""), move |adopted| {
            done.send(adopted.expect_err("nobody is there")).expect("the test waits");
        });
        drop(server.take());
        let AdoptError { mut stream, why, .. } = answers.try_recv().expect("it was told");
        assert_eq!(why, AdoptRefusal::Handle(HandleError::Stopped));
        stream.write_all(b"bye").expect("it is connected");
        client.read_exact(&mut [0; 3]).expect("what was written");
    }
}

/// Defers everything, and keeps the id.
#[derive(Default)]
struct Later {
    deferred: Option<ConnectionId>,
    failed: Vec<String>,
}

impl Handler for Later {
    type Data = &'static str;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, &'static str> {
        self.deferred = Some(request.id());
        Upgrade::Defer
    }

    fn on_event(&mut self, _: &mut Clients<'_, &'static str>, event: Event<'_>) {
        if let Event::HandshakeFailed { error, .. } = event {
            self.failed.push(error.to_string());
        }
    }
}

/// A socket of which the application kept a descriptor was still watched when its connection had ended. What became of it was said of
/// the connection that had its slot by then.
#[test]
fn a_clone_that_was_kept_spoke_for_the_next_connection() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let (first, stream) = upgraded(&listener);
    let kept = stream.try_clone().expect("a descriptor is left");
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("a port is free");
    let address = server.local_addr().expect("it listens");
    let mut later = Later::default();
    let turn = |server: &mut Server<_>, later: &mut Later| {
        server.poll_with(Some(Duration::from_millis(100)), later).expect("the poll works");
    };
    let id = server.adopt(Adopt::new(stream, Role::Server, "adopted")).expect("there is room");
    turn(&mut server, &mut later);
    assert!(server.clients().terminate(id));
    while server.clients().stats().total() > 0 {
        turn(&mut server, &mut later);
    }
    let mut second = TcpStream::connect(address).expect("it listens");
    second.write_all(REQUEST).expect("it reads");
    let next = loop {
        turn(&mut server, &mut later);
        if let Some(id) = later.deferred {
            break id;
        }
    };
    assert_eq!(next.slot(), id.slot());
    drop(first);
    turn(&mut server, &mut later);
    assert_eq!(later.failed, [""; 0], "it is still there");
    server.clients().accept(next, |_| Accept::new("next")).expect("it waits");
    drop((kept, second));
}
