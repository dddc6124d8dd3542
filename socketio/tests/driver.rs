//! The layer on a real loop: what the application decides about requests, calls of other threads, and the end.

use std::io::{Read, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use adjourn::shutdown::ShutdownPlan;
use adjourn::tls::{Identity, ServerTls};
use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::Io;
use adjourn_socketio::offset::Position;
use adjourn_socketio::store::{
    Entry, MemoryStore, Millis, NodeId, Page, Parts, Reader, Store, StoreError, StoreSettings,
};
use adjourn_socketio::{Conn, DrainReport, SocketIo, SocketIoHandle};

const PATIENCE: Duration = Duration::from_secs(10);
const POLL: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n";
const UPGRADE: &str = "GET /socket.io/?EIO=4&transport=websocket HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
     Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";

struct Served {
    address: SocketAddr,
    handle: SocketIoHandle,
    thread: JoinHandle<DrainReport>,
}

impl Served {
    fn start(config: SocketIoConfig, set_up: impl FnOnce(&mut SocketIo) + Send + 'static) -> Self {
        Self::start_on(config, set_up, bind)
    }

    fn start_on(
        config: SocketIoConfig,
        set_up: impl FnOnce(&mut SocketIo) + Send + 'static,
        bind: impl FnOnce() -> adjourn::Server<Conn> + Send + 'static,
    ) -> Self {
        let (sender, started) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut io = SocketIo::new(config, MemoryStore::new()).expect("starts");
            set_up(&mut io);
            let mut server = bind();
            let address = server.local_addr().expect("bound");
            sender.send((address, io.handle(&server))).expect("somebody waits");
            io.run(&mut server).expect("serves")
        });
        let (address, handle) = started.recv().expect("started");
        Self { address, handle, thread }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream
    }

    /// The beginning of the answer, its head at least.
    fn ask(&self, request: &str) -> String {
        read_head(&mut self.send(request))
    }

    fn send(&self, request: &str) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(request.as_bytes()).expect("writes");
        stream
    }

    /// Drains with this grace; gives the report and how long it took.
    fn drain(self, grace: Duration) -> (DrainReport, Duration) {
        let begun = Instant::now();
        self.handle.drain(ShutdownPlan::soft(grace)).expect("it runs");
        (self.thread.join().expect("serves to the end"), begun.elapsed())
    }
}

fn bind() -> adjourn::Server<Conn> {
    adjourn::Server::bind("127.0.0.1:0", adjourn::Config::default()).expect("binds")
}

fn read_head(stream: &mut impl Read) -> String {
    let (mut text, mut buffer) = (String::new(), [0; 4096]);
    while !text.contains("\r\n\r\n") {
        let n = stream.read(&mut buffer).expect("in time");
        if n == 0 {
            break;
        }
        text.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    text
}

#[test]
fn the_application_allows_requests_and_adds_headers_over_both_transports() {
    let served = Served::start(SocketIoConfig::default(), |io| {
        io.allow_request(|head| match head.query().get("token") {
            Some("bad") => Err("go away".to_owned()),
            _ => Ok(()),
        });
        io.initial_headers(|head| vec![("set-cookie".to_owned(), format!("path={}", head.path()))]);
    });
    for request in [POLL, UPGRADE] {
        let answer = served.ask(request);
        assert!(answer.to_lowercase().contains("set-cookie: path=/socket.io/\r\n"), "{answer}");
        let refused = served.ask(&request.replace("EIO=4", "EIO=4&token=bad"));
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
        assert!(refused.ends_with("{\"code\":4,\"message\":\"go away\"}"), "{refused}");
    }
    served.drain(Duration::ZERO);
}

#[test]
fn origins_that_are_not_in_the_list_are_refused_over_both_transports() {
    let mut config = SocketIoConfig::default();
    config.origins = Some(vec!["https://a.example".to_owned()]);
    let served = Served::start(config, |_| {});
    for (request, accepted) in [(POLL, "HTTP/1.1 200 "), (UPGRADE, "HTTP/1.1 101 ")] {
        for (origin, status) in [
            ("", accepted),
            ("Origin: https://a.example\r\n", accepted),
            ("Origin: https://b.example\r\n", "HTTP/1.1 403 "),
            ("Origin: null\r\n", "HTTP/1.1 403 "),
        ] {
            let answer = served.ask(&request.replace("Host: a\r\n", &format!("Host: a\r\n{origin}")));
            assert!(answer.starts_with(status), "{origin:?}: {answer}");
        }
    }
    served.drain(Duration::ZERO);
}

#[test]
fn other_paths_are_not_found_without_a_service() {
    let served = Served::start(SocketIoConfig::default(), |_| {});
    for request in [POLL, UPGRADE] {
        let answer = served.ask(&request.replace("/socket.io/", "/elsewhere/"));
        assert!(answer.starts_with("HTTP/1.1 404 "), "{answer}");
    }
    served.drain(Duration::ZERO);
}

#[test]
fn both_transports_are_served_on_a_unix_socket() {
    let path = std::env::temp_dir().join(format!("adjourn-socketio-{}.sock", std::process::id()));
    let of_server = path.clone();
    let served = Served::start_on(
        SocketIoConfig::default(),
        |_| {},
        move || {
            let mut server = bind();
            server.listen_unix(of_server).expect("listens");
            server
        },
    );
    for (request, status) in [
        (POLL, "HTTP/1.1 200 "),
        (UPGRADE, "HTTP/1.1 101 "),
        (&POLL.replace("EIO=4", "EIO=3"), "HTTP/1.1 400 "),
    ] {
        let mut stream = UnixStream::connect(&path).expect("connects");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        // Twice, as the connection is kept.
        for _ in 0..=usize::from(request == POLL) {
            stream.write_all(request.as_bytes()).expect("writes");
            let answer = read_head(&mut stream);
            assert!(answer.starts_with(status), "{answer}");
        }
    }
    served.drain(Duration::ZERO);
    let _ = std::fs::remove_file(path);
}

#[test]
fn both_transports_are_served_over_the_loops_own_tls() {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("it signs itself");
    let (chain, key) = (certified.cert.pem(), certified.signing_key.serialize_pem());
    let served = Served::start_on(
        SocketIoConfig::default(),
        |io| {
            io.namespace("/").on("length", |socket, args, ack| {
                let length = args.get::<String>(0).map_or(0, |text| text.len());
                ack.expect("asked").send(socket.io(), (length,)).expect("connected");
            });
        },
        move || {
            let mut config = adjourn::Config::default();
            let identity = Identity::from_pem(chain.as_bytes(), key.as_bytes()).expect("a pair");
            config.listener.tls = Some(ServerTls::new(identity));
            adjourn::Server::bind("127.0.0.1:0", config).expect("binds")
        },
    );
    let mut roots = rustls::RootCertStore::empty();
    roots.add(certified.cert.der().clone()).expect("a certificate");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let config = Arc::new(config);
    let connect = || {
        let name = "localhost".try_into().expect("a name");
        let session = rustls::ClientConnection::new(Arc::clone(&config), name).expect("settings");
        rustls::StreamOwned::new(session, served.connect())
    };
    let mut stream = connect();
    stream.write_all(UPGRADE.as_bytes()).expect("writes");
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    let mut stream = connect();
    stream.write_all(POLL.as_bytes()).expect("writes");
    let opened = read_head(&mut stream);
    let sid = opened.split("\"sid\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a sid");
    let poll = POLL.replace(" HTTP", &format!("&sid={sid} HTTP"));
    let mut post = |body: &str| {
        let head = poll.replace("GET", "POST");
        let head = head.trim_end_matches("\r\n");
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).expect("writes");
        assert!(read_head(&mut stream).starts_with("HTTP/1.1 200 "));
        stream.write_all(poll.as_bytes()).expect("writes");
        read_head(&mut stream)
    };
    assert!(post("40").contains("40{\"sid\":"));
    // A body of many records.
    let answer = post(&format!("420[\"length\",\"{}\"]", "x".repeat(900_000)));
    assert!(answer.contains("430[900000]"), "{answer}");
    served.drain(Duration::ZERO);
}

#[test]
fn calls_of_other_threads_are_made_on_the_loop() {
    let served = Served::start(SocketIoConfig::default(), |io| {
        io.namespace("/");
    });
    let (sender, called) = mpsc::channel();
    let call =
        move |io: &mut Io<'_>| sender.send(io.of("/").emit("nobody", ()).is_ok()).expect("somebody waits");
    served.handle.defer(call).expect("room");
    assert_eq!(called.recv_timeout(PATIENCE), Ok(true));
    assert!(served.handle.ready());
    assert_eq!(served.handle.stats().map(|stats| stats.connects), Some(0));
    served.drain(Duration::ZERO);
}

#[test]
fn a_drain_ends_within_its_bound_whatever_clients_do() {
    let served = Served::start(SocketIoConfig::default(), |_| {});
    // One that answers no Close, one that polls never again, one that holds a GET, one that sends half a head.
    let mut websocket = served.send(UPGRADE);
    assert!(read_head(&mut websocket).starts_with("HTTP/1.1 101 "));
    let mut polling = served.send(POLL);
    let opened = read_head(&mut polling);
    assert!(opened.starts_with("HTTP/1.1 200 "), "{opened}");
    let mut held = served.send(POLL);
    let sid =
        |opened: &str| opened.split("\"sid\":\"").nth(1).and_then(|rest| rest.get(..20)).map(str::to_owned);
    let mut opened = read_head(&mut held);
    while sid(&opened).is_none() {
        opened.push_str(&read_head(&mut held));
    }
    let get = POLL.replace("EIO=4", &format!("EIO=4&sid={}", sid(&opened).expect("a session")));
    held.write_all(get.as_bytes()).expect("writes");
    let _half = served.send("GET /socket.io/?EIO=4 HTTP/1.1\r\n");
    // So that the GET is held.
    let stats = served.handle.stats().expect("it runs");
    assert_eq!((stats.connections_polling, stats.connections_websocket), (2, 1));
    let grace = Duration::from_millis(300);
    let (report, took) = served.drain(grace);
    assert!(took < grace + Duration::from_millis(2250), "{took:?}");
    assert_eq!((report.polling, report.raw.terminated), (2, 1), "{report:?}");
    let answer = read_head(&mut held);
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\n1"), "{answer:?}");
}

#[test]
fn a_panic_of_allow_request_or_initial_headers_costs_its_request_alone() {
    let served = Served::start(SocketIoConfig::default(), |io| {
        io.allow_request(|head| {
            assert_ne!(head.query().get("panic"), Some("allow"), "asked for");
            Ok(())
        });
        io.initial_headers(|head| {
            assert_ne!(head.query().get("panic"), Some("headers"), "asked for");
            vec![("x-greeting".to_owned(), "hello".to_owned())]
        });
    });
    for (request, opened) in [(POLL, "HTTP/1.1 200 "), (UPGRADE, "HTTP/1.1 101 ")] {
        let refused = served.ask(&request.replace("EIO=4", "EIO=4&panic=allow"));
        assert!(refused.starts_with("HTTP/1.1 403 "), "{refused}");
        let bare = served.ask(&request.replace("EIO=4", "EIO=4&panic=headers"));
        assert!(bare.starts_with(opened) && !bare.contains("x-greeting"), "{bare}");
        let answer = served.ask(request);
        assert!(answer.starts_with(opened) && answer.contains("x-greeting: hello\r\n"), "{answer}");
    }
    assert_eq!(served.handle.stats().map(|stats| stats.handler_panics), Some(4));
    served.drain(Duration::ZERO);
}

#[test]
fn a_drain_does_not_wait_for_http_connections_that_are_kept_alive() {
    let served = Served::start(SocketIoConfig::default(), |_| {});
    let mut idle = served.send(&POLL.replace("EIO=4", "EIO=3"));
    assert!(read_head(&mut idle).starts_with("HTTP/1.1 400 "));
    let (_, took) = served.drain(Duration::from_secs(8));
    assert!(took < Duration::from_secs(4), "{took:?}");
}

/// Each emit is answered, and the answer emits.
fn emit_without_end(io: &mut Io<'_>, stop: Arc<AtomicBool>) {
    if !stop.load(Ordering::Relaxed) {
        let _ = io.of("/").emit_then("n", (), move |io, _| emit_without_end(io, stop));
    }
}

#[test]
fn a_chain_of_emits_on_a_store_in_memory_leaves_others_their_turn() {
    let served = Served::start(SocketIoConfig::default(), |io| {
        io.namespace("/");
    });
    let stop = Arc::new(AtomicBool::new(false));
    let of_chain = Arc::clone(&stop);
    served.handle.defer(move |io| emit_without_end(io, of_chain)).expect("room");
    let mut answer = [0; 12];
    let read = served.send(POLL).read_exact(&mut answer);
    stop.store(true, Ordering::Relaxed);
    read.expect("the loop serves others, too");
    assert_eq!(&answer, b"HTTP/1.1 200");
    served.drain(Duration::ZERO);
}

/// A WebSocket with a socket in `/`, which reads nothing more.
fn deaf(served: &Served) -> TcpStream {
    let mut stream = served.send(UPGRADE);
    assert!(read_head(&mut stream).starts_with("HTTP/1.1 101 "));
    for text in ["40", r#"42["flood"]"#] {
        let length = u8::try_from(text.len()).expect("short");
        stream.write_all(&[0x81, 0x80 | length, 0, 0, 0, 0]).expect("writes");
        stream.write_all(text.as_bytes()).expect("writes");
    }
    stream
}

/// How long it takes from the first Close until no WebSocket is left.
fn closing_time(served: &Served) -> Duration {
    let (patience, mut begun) = (Instant::now() + Duration::from_secs(20), None);
    loop {
        let connections = served.handle.loop_stats().connections;
        if connections.closing > 0 {
            begun.get_or_insert_with(Instant::now);
        }
        if let Some(begun) = begun.filter(|_| connections.open + connections.closing == 0) {
            return begun.elapsed();
        }
        assert!(Instant::now() < patience, "{connections:?}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn s5_a_slow_consumer_has_two_seconds_for_its_close() {
    let mut config = SocketIoConfig::default();
    config.recovery = None;
    config.output.send_queue = 64 << 10;
    let served = Served::start(config, |io| {
        io.namespace("/").on("flood", |socket, _, _| {
            let text = "x".repeat(16 << 10);
            while socket.emit("x", (&text,)).is_ok() {}
        });
    });
    let stream = deaf(&served);
    let took = closing_time(&served);
    assert!(took < Duration::from_secs(6), "{took:?}");
    drop(stream);
    served.drain(Duration::ZERO);
}

#[test]
fn s5_a_quick_close_takes_no_longer_than_close_timeout() {
    let mut config = SocketIoConfig::default();
    config.times.ping_interval = Duration::from_millis(50);
    config.times.ping_timeout = Duration::from_millis(50);
    config.times.close_timeout = Duration::from_millis(100);
    let served = Served::start(config, |io| {
        io.namespace("/");
    });
    let stream = deaf(&served);
    let took = closing_time(&served);
    assert!(took < Duration::from_millis(1500), "{took:?}");
    drop(stream);
    served.drain(Duration::ZERO);
}

#[test]
fn a_call_after_the_end_is_refused() {
    let mut io = SocketIo::new(SocketIoConfig::default(), MemoryStore::new()).expect("starts");
    let mut server = bind();
    let handle = io.handle(&server);
    handle.drain(ShutdownPlan::soft(Duration::ZERO)).expect("it runs");
    io.run(&mut server).expect("serves");
    assert!(handle.defer(|_| {}).is_err(), "nobody will make it");
    assert!(handle.stats().is_none());
}

/// A store that blocks, whose reader takes its time to end.
struct Blocking {
    store: MemoryStore,
    ended: Arc<AtomicBool>,
}

struct SlowReader {
    reader: Box<dyn Reader>,
    ended: Arc<AtomicBool>,
}

impl Store for Blocking {
    fn open(
        self: Box<Self>,
        node: NodeId,
        settings: &StoreSettings,
        now: Millis,
    ) -> Result<Parts, StoreError> {
        let Self { store, ended } = *self;
        let parts = Box::new(store).open(node, settings, now)?;
        Ok(Parts { reader: Box::new(SlowReader { reader: parts.reader, ended }), ..parts })
    }

    fn inline(&self) -> bool {
        false
    }
}

impl Reader for SlowReader {
    fn page(&mut self, namespace: &str, of: Range<Position>, bytes: usize) -> Result<Page, StoreError> {
        self.reader.page(namespace, of, bytes)
    }

    fn asks(&mut self, namespace: &str, of: Range<Position>, now: Millis) -> Result<Vec<Entry>, StoreError> {
        self.reader.asks(namespace, of, now)
    }
}

impl Drop for SlowReader {
    fn drop(&mut self) {
        thread::sleep(Duration::from_millis(200));
        self.ended.store(true, Ordering::SeqCst);
    }
}

#[test]
fn a_server_that_has_ended_has_closed_its_store() {
    let ended = Arc::new(AtomicBool::new(false));
    let store = Blocking { store: MemoryStore::new(), ended: Arc::clone(&ended) };
    let mut io = SocketIo::new(SocketIoConfig::default(), store).expect("starts");
    let mut server = bind();
    io.handle(&server).drain(ShutdownPlan::soft(Duration::ZERO)).expect("it runs");
    io.run(&mut server).expect("serves");
    assert!(ended.load(Ordering::SeqCst), "its file can be opened again");
}
