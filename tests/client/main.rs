//! The client's role over real sockets: against our own server, tungstenite's, and servers that misbehave.

use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, ConnectionId, Event, Handler, SendError, Server, ShutdownPlan,
    clients::ReadyState,
    close::{Cause, Initiator},
    error::{ConnectError, HandshakeError, ProtocolError, ResponseFault},
    http::{ConnectRequest, RequestError, Upgrade, UpgradeRequest, UrlError},
};
use tungstenite::handshake::derive_accept_key;

mod failing;

/// Whatever goes wrong, a test ends.
const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

/// Writes down what happens; what it does on `Open` and on messages is up to the test.
#[derive(Default)]
struct Recorder {
    opened: Vec<ConnectionId>,
    messages: Vec<(ConnectionId, Vec<u8>)>,
    closed: Vec<(ConnectionId, CloseReport)>,
    failed: Vec<(Option<ConnectionId>, SocketAddr, HandshakeError)>,
    /// Sent on `Open`.
    greeting: Option<Vec<u8>>,
    /// Messages are sent back.
    echo: bool,
    /// Closes with 1000 after this many messages.
    close_after: Option<usize>,
    /// The server chooses the last subprotocol that is offered.
    last_subprotocol: bool,
}

impl Recorder {
    fn client(greeting: &str, close_after: usize) -> Self {
        Self { greeting: Some(greeting.into()), close_after: Some(close_after), ..Self::default() }
    }

    fn ended(&self) -> usize {
        self.closed.len() + self.failed.len()
    }

    fn one_failure(&self) -> HandshakeError {
        assert!(
            self.opened.is_empty() && self.closed.is_empty() && self.failed.len() == 1,
            "{:?}",
            self.failed
        );
        self.failed[0].2
    }
}

impl Handler for Recorder {
    type Data = u32;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, u32> {
        let mut accept = adjourn::http::Accept::new(0);
        if self.last_subprotocol {
            accept = accept.subprotocol(request.subprotocols().last());
        }
        Upgrade::Accept(accept)
    }

    fn on_event(&mut self, clients: &mut Clients<'_, u32>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                self.opened.push(id);
                let outgoing = clients.get(id).is_some_and(|client| client.is_outgoing());
                if let Some(greeting) = self.greeting.as_ref().filter(|_| outgoing) {
                    clients.send(id, greeting).expect("room");
                }
            }
            Event::Message { id, message, closing } => {
                let outgoing = clients.get(id).is_some_and(|client| client.is_outgoing());
                if outgoing {
                    self.messages.push((id, message.as_bytes().to_vec()));
                }
                if self.echo && !closing && !outgoing {
                    clients.send(id, message).expect("room");
                }
                let count = self.messages.iter().filter(|(other, _)| *other == id).count();
                if outgoing && self.close_after == Some(count) {
                    assert!(clients.close(id, CloseFrame::NORMAL));
                }
            }
            Event::Close { id, report: closed } => self.closed.push((id, *closed)),
            Event::HandshakeFailed { id, peer, error: cause } => {
                if let Some(id) = id {
                    assert_eq!(
                        clients.get(id).map(|client| *client.data()),
                        Some(7),
                        "its data is still there"
                    );
                }
                self.failed.push((id, peer, cause));
            }
            _ => {}
        }
    }
}

fn config() -> Config {
    let mut config = Config::default();
    config.client.connect_timeout = Duration::from_secs(5);
    config.handshake.handshake_timeout = Duration::from_secs(5);
    config.connection.close_timeout = Duration::from_secs(5);
    config
}

fn request(url: &str) -> ConnectRequest {
    ConnectRequest::new(url).expect("a URL")
}

fn to(address: SocketAddr) -> ConnectRequest {
    request(&format!("ws://{address}/test?x=1"))
}

/// Turns until `done`.
fn run(client: &mut Server<u32>, recorder: &mut Recorder, done: impl Fn(&Recorder) -> bool) {
    let start = Instant::now();
    while !done(recorder) {
        assert!(
            start.elapsed() < LONG,
            "it hangs: {:?} {:?} {:?} {:?}",
            recorder.opened,
            recorder.messages,
            recorder.closed,
            recorder.failed
        );
        client.poll_with(Some(Duration::from_millis(20)), recorder).expect("poll");
    }
}

/// Turns until every descriptor is given back.
fn run_dry(client: &mut Server<u32>, recorder: &mut Recorder) {
    let start = Instant::now();
    while client.clients().stats().total() > 0 {
        assert!(start.elapsed() < LONG, "{:?}", client.clients().stats());
        client.poll_with(Some(Duration::from_millis(20)), recorder).expect("poll");
    }
}

/// One connection to a server that `serve` plays by hand; it gets the stream behind the request, and the accept key.
fn against(
    config: Config,
    recorder: &mut Recorder,
    serve: impl FnOnce(TcpStream, String) + Send + 'static,
) -> Duration {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("accept");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let key = read_request(&mut stream);
        serve(stream, derive_accept_key(key.as_bytes()));
    });
    let mut client = Server::outgoing(config).expect("a poll");
    let start = Instant::now();
    let id = client.connect(to(address), 7).expect("room");
    run(&mut client, recorder, |recorder| recorder.ended() == 1);
    let took = start.elapsed();
    for named in recorder.failed.iter().map(|failed| failed.0) {
        assert_eq!(named, Some(id));
    }
    run_dry(&mut client, recorder);
    assert_eq!(recorder.ended(), 1, "exactly one end");
    server.join().expect("the server's thread");
    took
}

/// Reads a request's head; returns its key.
fn read_request(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        head.extend_from_slice(&byte);
    }
    let head = String::from_utf8(head).expect("ASCII");
    assert!(head.starts_with("GET /test?x=1 HTTP/1.1\r\nHost: 127.0.0.1:"), "{head}");
    let key = head.lines().find_map(|line| line.strip_prefix("Sec-WebSocket-Key: ")).expect("a key");
    key.to_owned()
}

fn switching(accept_key: &str) -> String {
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept_key}\r\n\r\n"
    )
}

/// One frame off a client: opcode and payload. It must be masked, and its key is returned too.
fn read_frame(stream: &mut TcpStream) -> (u8, Vec<u8>, [u8; 4]) {
    let mut head = [0; 2];
    stream.read_exact(&mut head).expect("a header");
    assert_eq!(head[1] & 0x80, 0x80, "§5.1: a client's frame is masked");
    let length = match head[1] & 0x7F {
        126 => {
            let mut length = [0; 2];
            stream.read_exact(&mut length).expect("a length");
            usize::from(u16::from_be_bytes(length))
        }
        127 => {
            let mut length = [0; 8];
            stream.read_exact(&mut length).expect("a length");
            usize::try_from(u64::from_be_bytes(length)).expect("it fits")
        }
        short => usize::from(short),
    };
    let mut key = [0; 4];
    stream.read_exact(&mut key).expect("a key");
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).expect("a payload");
    for (index, byte) in payload.iter_mut().enumerate() {
        *byte ^= key[index % 4];
    }
    (head[0] & 0x0F, payload, key)
}

/// Reads until FIN; how long that took.
fn read_to_end(stream: &mut TcpStream) -> (usize, Duration) {
    let start = Instant::now();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).expect("FIN, not a reset");
    (rest.len(), start.elapsed())
}

/// Our own echo server on another thread.
fn echo_server(recorder: Recorder) -> (SocketAddr, adjourn::Handle<u32>, thread::JoinHandle<Recorder>) {
    let (tell, told) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut server = Server::bind("127.0.0.1:0", config()).expect("bind");
        tell.send((server.local_addr().expect("bound"), server.handle())).expect("the test waits");
        let mut recorder = Recorder { echo: true, ..recorder };
        server.run_with(&mut recorder).expect("a poll");
        recorder
    });
    let (address, handle) = told.recv().expect("it is bound");
    (address, handle, thread)
}

#[test]
fn a_conversation_with_our_own_server() {
    let (address, handle, server) = echo_server(Recorder { last_subprotocol: true, ..Recorder::default() });
    let mut recorder = Recorder::client("hello", 1);
    let mut client = Server::outgoing(config()).expect("a poll");
    let asked = to(address).subprotocol("a").and_then(|asked| asked.subprotocol("b")).expect("tokens");
    let id = client.connect(asked, 7).expect("room");
    {
        let mut clients = client.clients();
        let connecting = clients.get(id).expect("it is there at once");
        assert_eq!((connecting.ready_state(), *connecting.data()), (ReadyState::Connecting, 7));
        assert_eq!((clients.stats().connecting, clients.len()), (1, 0));
        assert_eq!(clients.send(id, "too early"), Err(SendError::Connecting));
        *clients.get_mut(id).expect("it is there") = 7;
    }
    run(&mut client, &mut recorder, |recorder| !recorder.opened.is_empty());
    assert_eq!(recorder.opened, [id]);
    {
        let clients = client.clients();
        let open = clients.get(id).expect("open");
        assert_eq!((open.path(), open.subprotocol(), open.peer_addr()), (Some("/test"), Some("b"), address));
    }
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    assert_eq!(recorder.messages, [(id, b"hello".to_vec())]);
    let (_, closed) = &recorder.closed[0];
    assert!(closed.was_clean());
    assert_eq!((closed.code(), closed.cause, closed.initiator), (1000, Cause::LocalClose, Initiator::Local));
    run_dry(&mut client, &mut recorder);
    handle.shutdown(ShutdownPlan::default()).expect("it runs");
    let server = server.join().expect("the server's thread");
    assert_eq!(server.closed.len(), 1);
    assert_eq!((server.closed[0].1.code(), server.closed[0].1.cause), (1000, Cause::PeerClose));
    assert!(server.closed[0].1.was_clean());
}

#[test]
fn client_and_server_on_one_loop() {
    let mut both = Server::bind("127.0.0.1:0", config()).expect("bind");
    let address = both.local_addr().expect("bound");
    let mut recorder = Recorder { echo: true, ..Recorder::client("to myself", 1) };
    both.connect(to(address), 7).expect("room");
    run(&mut both, &mut recorder, |recorder| recorder.ended() == 2);
    assert_eq!(recorder.messages.len(), 1);
    assert!(recorder.closed.iter().all(|(_, closed)| closed.was_clean() && closed.code() == 1000));
    run_dry(&mut both, &mut recorder);
}

#[test]
fn messages_of_all_sizes_come_back_as_they_went() {
    let (address, handle, server) = echo_server(Recorder::default());
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::default();
    let id = client.connect(to(address), 7).expect("room");
    run(&mut client, &mut recorder, |recorder| !recorder.opened.is_empty());
    let sizes = [0, 1, 125, 126, 127, 65_535, 65_536, 300_000, 3_000_000];
    let message =
        |size: usize| (0..size).map(|i| u8::try_from(i * 7 % 251).expect("small")).collect::<Vec<_>>();
    for size in sizes {
        // Borrowed ones are copied, owned ones of some size are not: both are masked.
        let borrowed = message(size);
        client.clients().send(id, &borrowed).expect("room");
        client.clients().send(id, message(size)).expect("room");
    }
    client.clients().close(id, CloseFrame::NORMAL);
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    assert!(recorder.closed[0].1.was_clean() && recorder.closed[0].1.lost == adjourn::close::Lost::default());
    handle.shutdown(ShutdownPlan::default()).expect("it runs");
    server.join().expect("the server's thread");
    // What the server echoed after our Close was queued came too, until its own Close.
    for (index, (_, payload)) in recorder.messages.iter().enumerate() {
        assert_eq!(*payload, message(sizes[index / 2]), "message {index}");
    }
}

#[test]
fn a_conversation_with_tungstenite() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = listener.local_addr().expect("bound");
    let server = thread::spawn(move || {
        let mut socket = tungstenite::accept(listener.accept().expect("accept").0).expect("a handshake");
        socket.send("welcome".into()).expect("sent");
        let mut seen = Vec::new();
        loop {
            match socket.read() {
                Ok(message) if message.is_binary() => {
                    seen.push(String::from_utf8_lossy(&message.clone().into_data()).into_owned());
                    socket.send(message).expect("sent");
                    socket.send(tungstenite::Message::Ping("are you there".into())).expect("sent");
                }
                Ok(message) => seen.push(format!("{message:?}")),
                Err(tungstenite::Error::ConnectionClosed) => return seen,
                Err(error) => panic!("{error}"),
            }
        }
    });
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::client("hello", 2);
    client.connect(to(address), 7).expect("room");
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    let seen = server.join().expect("tungstenite saw an orderly end");
    assert_eq!(seen[0], "hello");
    assert!(
        seen.iter().any(|message| message.starts_with("Close(Some(CloseFrame { code: Normal")),
        "{seen:?}"
    );
    assert_eq!(
        recorder.messages.iter().map(|m| m.1.as_slice()).collect::<Vec<_>>(),
        [b"welcome".as_slice(), b"hello"]
    );
    assert!(recorder.closed[0].1.was_clean());
}

#[test]
fn a_thousand_connects_at_once() {
    const COUNT: usize = 1000;
    let (address, handle, server) = echo_server(Recorder::default());
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::client("one of many", 1);
    // By name: one question is enough for all of them.
    let url = format!("ws://localhost:{}/test", address.port());
    for _ in 0..COUNT {
        client.connect(request(&url), 7).expect("room");
    }
    assert_eq!(client.clients().stats().connecting, COUNT);
    run(&mut client, &mut recorder, |recorder| recorder.ended() == COUNT);
    assert_eq!((recorder.opened.len(), recorder.messages.len()), (COUNT, COUNT));
    assert!(recorder.closed.iter().all(|(_, closed)| closed.was_clean()));
    run_dry(&mut client, &mut recorder);
    handle.shutdown(ShutdownPlan::default()).expect("it runs");
    assert_eq!(server.join().expect("the server's thread").closed.len(), COUNT);
}

#[test]
fn every_frame_has_a_key_of_its_own() {
    let mut recorder = Recorder { echo: false, ..Recorder::client("hello", 1) };
    let (tell, told) = mpsc::channel();
    against(config(), &mut recorder, move |mut stream, key| {
        stream.write_all(switching(&key).as_bytes()).expect("sent");
        let mut keys = vec![read_frame(&mut stream).2];
        for _ in 0..50 {
            stream.write_all(b"\x89\x01x").expect("sent");
            keys.push(read_frame(&mut stream).2);
        }
        stream.write_all(b"\x81\x00").expect("sent");
        keys.push(read_frame(&mut stream).2);
        stream.write_all(&[0x88, 2, 3, 0xE8]).expect("sent");
        tell.send(keys).expect("the test waits");
    });
    let mut keys = told.recv().expect("keys");
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() >= 51, "{} of 52 are distinct", keys.len());
}

#[test]
fn a_broadcast_reaches_both_roles() {
    let mut both = Server::<u32>::bind("127.0.0.1:0", config()).expect("bind");
    let mut recorder = Recorder::default();
    let (address, handle, server) = echo_server(Recorder::default());
    let outgoing: Vec<_> = (0..3).map(|_| both.connect(to(address), 7).expect("room")).collect();
    let mut incoming: Vec<_> = (0..3)
        .map(|_| {
            let url = format!("ws://{}", both.local_addr().expect("bound"));
            thread::spawn(move || {
                let stream = TcpStream::connect(url.trim_start_matches("ws://")).expect("connect");
                tungstenite::client(url, stream).expect("a handshake").0
            })
        })
        .collect();
    run(&mut both, &mut recorder, |recorder| recorder.opened.len() == 6);
    let mut incoming: Vec<_> = incoming.drain(..).map(|thread| thread.join().expect("a client")).collect();
    for size in [5, 100_000] {
        let result = both.clients().broadcast(vec![b'x'; size], |_| true);
        assert_eq!((result.sent, result.refused), (6, 0));
        let expected = recorder.messages.len() + outgoing.len();
        run(&mut both, &mut recorder, |recorder| recorder.messages.len() == expected);
        for socket in &mut incoming {
            assert_eq!(socket.read().expect("a message").into_data(), vec![b'x'; size]);
        }
        // The echo server gave back what it was sent: unmasked rightly, from each of the three.
        assert!(recorder.messages[expected - 3..].iter().all(|(_, payload)| *payload == vec![b'x'; size]));
    }
    handle.shutdown(ShutdownPlan::default()).expect("it runs");
    run(&mut both, &mut recorder, |recorder| recorder.closed.len() == 3);
    assert!(recorder.closed.iter().all(|(_, closed)| closed.was_clean() && closed.code() == 1001));
    server.join().expect("the server's thread");
}

#[test]
fn a_shutdown_closes_open_ones_and_cuts_those_under_way() {
    let (address, handle, server) = echo_server(Recorder::default());
    // Accepts by way of the kernel and answers nothing.
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::default();
    let open = client.connect(to(address), 7).expect("room");
    let stuck = client.connect(to(silent.local_addr().expect("bound")), 7).expect("room");
    run(&mut client, &mut recorder, |recorder| !recorder.opened.is_empty());
    client.clients().shutdown(ShutdownPlan::default());
    let start = Instant::now();
    let report = client.run_with(&mut recorder).expect("a poll");
    assert!(start.elapsed() < Duration::from_secs(4), "nobody has to be waited for");
    assert_eq!((report.live_at_start, report.handshakes_cut, report.clean), (1, 1, 1));
    assert_eq!(recorder.closed.len(), 1);
    assert_eq!((recorder.closed[0].0, recorder.closed[0].1.cause), (open, Cause::ShutdownSoft));
    let silent = silent.local_addr().expect("bound");
    assert_eq!(recorder.failed, [(Some(stuck), silent, HandshakeError::ShuttingDown)]);
    assert_eq!(client.connect(to(address), 7), Err(ConnectError::ShuttingDown));
    handle.shutdown(ShutdownPlan::default()).expect("it runs");
    server.join().expect("the server's thread");
}

#[test]
fn giving_up_before_open() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = silent.local_addr().expect("bound");
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::default();
    let ids: Vec<_> = (0..3).map(|_| client.connect(to(address), 7).expect("room")).collect();
    let named = client.connect(request("ws://localhost/"), 7).expect("room");
    assert!(client.clients().close(ids[0], CloseFrame::NORMAL));
    assert!(client.clients().terminate(named), "before its name is known");
    client.poll_with(Some(Duration::ZERO), &mut recorder).expect("poll");
    assert!(client.clients().terminate(ids[1]));
    assert!(client.clients().kick(ids[2], "x", CloseFrame::NORMAL));
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 4);
    run_dry(&mut client, &mut recorder);
    assert!(recorder.failed.iter().all(|failed| failed.2 == HandshakeError::Cancelled));
    assert!(!client.clients().close(ids[0], CloseFrame::NORMAL), "too late");
}

#[test]
fn as_many_as_there_may_be() {
    let mut config = config();
    config.event_loop.max_connections = 1;
    let mut client = Server::outgoing(config).expect("a poll");
    client.connect(request("ws://127.0.0.1:1/"), 7).expect("room");
    assert_eq!(client.connect(request("ws://127.0.0.1:1/"), 7), Err(ConnectError::TooManyConnections(1)));
    let mut recorder = Recorder::default();
    run_dry(&mut client, &mut recorder);
    client.connect(request("ws://127.0.0.1:1/"), 7).expect("room again");
}

#[test]
fn a_callback_on_another_thread_connects() {
    let (address, server_handle, server) = echo_server(Recorder::default());
    let mut client = Server::<u32>::outgoing(config()).expect("a poll");
    let handle = client.handle();
    let mut recorder = Recorder::client("hello", 1);
    let request = to(address);
    handle
        .defer(move |clients| {
            clients.connect(request, 7).expect("room");
        })
        .expect("it runs");
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    assert!(recorder.closed[0].1.was_clean());
    server_handle.shutdown(ShutdownPlan::default()).expect("it runs");
    server.join().expect("the server's thread");
}
