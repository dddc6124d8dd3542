//! SIGKILL at random points (specification 22): a publisher that repeats what was not acknowledged, a subscriber that counts,
//! and between them a server that is killed again and again. Each event arrives once, in order, over sessions that go on.
//!
//! The server is this program again, as a child; `ADJOURN_KILLS` says how often it is killed.

#![cfg(all(unix, feature = "sqlite"))]

use std::io::{BufRead as _, BufReader};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::KeyFrom;
use adjourn_socketio::store::{AckValue, SqliteStore, StoreError};
use adjourn_socketio::{Conn, SocketIo};
use serde_json::{Value, json};
use tungstenite::{Message, WebSocket};

/// How often the server is killed, unless said otherwise.
const KILLS: u64 = 200;
/// A wait that no honest run comes near.
const PATIENCE: Duration = Duration::from_secs(30);
const ROOM: &str = "all";

// ---- the server

/// Not a test: the child's program.
#[test]
#[ignore = "run by the test below as a child"]
fn server() {
    let (Ok(file), Ok(port)) = (env::var("ADJOURN_KILL_FILE"), env::var("ADJOURN_KILL_PORT")) else { return };
    let mut io = SocketIo::new(SocketIoConfig::default(), open(Path::new(&file))).expect("starts");
    let namespace = io.namespace("/");
    namespace.on("join", |socket, _, ack| {
        socket.join(ROOM).expect("joins");
        if let Some(ack) = ack {
            let _ = ack.send(socket.io(), (true,));
        }
    });
    namespace.on_once("say", KeyFrom::argument(0), |call, tx| {
        let key: String = call.args.as_args().get(0)?;
        tx.emit_to(&[ROOM.into()], "said", (key,))?;
        Ok(AckValue::new(("stored",))?)
    });
    let port: u16 = port.parse().expect("a port");
    let mut server: adjourn::Server<Conn> = bind(port);
    println!("listening {}", server.local_addr().expect("bound").port());
    io.run(&mut server).expect("serves");
}

/// The process that was killed gives its lock back when it is wholly gone.
fn open(file: &Path) -> SqliteStore {
    let end = Instant::now() + PATIENCE;
    loop {
        match SqliteStore::open(file) {
            Err(StoreError::InUse) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            store => return store.expect("opens"),
        }
    }
}

fn bind(port: u16) -> adjourn::Server<Conn> {
    let end = Instant::now() + PATIENCE;
    loop {
        match adjourn::Server::bind(("127.0.0.1", port), adjourn::Config::default()) {
            Err(_) if Instant::now() < end => thread::sleep(Duration::from_millis(1)),
            server => return server.expect("binds"),
        }
    }
}

/// The server as a child; killed at the end.
struct Served {
    child: Child,
    out: BufReader<ChildStdout>,
}

impl Served {
    fn start(file: &Path, port: u16) -> Self {
        let mut child = Command::new(env::current_exe().expect("a path"))
            .args(["--exact", "server", "--ignored", "--nocapture"])
            .env("ADJOURN_KILL_FILE", file)
            .env("ADJOURN_KILL_PORT", port.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starts");
        let out = BufReader::new(child.stdout.take().expect("piped"));
        Self { child, out }
    }

    /// The port it listens on, once it does.
    fn port(&mut self) -> u16 {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.out.read_line(&mut line).expect("reads") > 0, "the server has ended");
            // The test harness writes on the same line before.
            if let Some((_, port)) = line.trim().split_once("listening ") {
                return port.parse().expect("a port");
            }
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        // SIGKILL.
        self.child.kill().expect("kills");
        self.child.wait().expect("ends");
    }
}

// ---- the clients

/// A session, over one connection after the other.
struct Session {
    port: u16,
    socket: Option<WebSocket<TcpStream>>,
    sid: Option<String>,
    pid: Option<String>,
    offset: Option<String>,
}

impl Session {
    fn new(port: u16) -> Self {
        Self { port, socket: None, sid: None, pid: None, offset: None }
    }

    /// The next packet, without the leading `4`; connects if there is no connection. `None`: nothing for 20 ms, or a cut.
    fn next(&mut self) -> Option<String> {
        if self.socket.is_none() {
            self.socket = self.connect();
        }
        let text = match self.socket.as_mut()?.read() {
            Ok(Message::Text(text)) => text.to_string(),
            Ok(_) => return None,
            Err(tungstenite::Error::Io(error)) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return None;
            }
            Err(_) => {
                self.socket = None;
                return None;
            }
        };
        if text == "2" {
            self.send("3");
        }
        text.strip_prefix('4').map(str::to_owned)
    }

    /// A connection whose CONNECT is answered. `None`: the server is not there, or was killed meanwhile.
    fn connect(&mut self) -> Option<WebSocket<TcpStream>> {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        let url = format!("ws://127.0.0.1:{}/socket.io/?EIO=4&transport=websocket", self.port);
        let (mut socket, _) = tungstenite::client(url, stream).ok()?;
        let auth = json!({ "pid": self.pid, "offset": self.offset });
        let connect = if self.pid.is_some() { format!("40{auth}") } else { "40".to_owned() };
        socket.send(Message::text(connect)).ok()?;
        loop {
            let message = socket.read().ok()?;
            let Some(answer) = message.to_text().ok()?.strip_prefix("40") else { continue };
            let answer: Value = serde_json::from_str(answer).expect("JSON");
            let text = |name: &str| answer.get(name).and_then(Value::as_str).map(str::to_owned);
            if self.sid.is_some() {
                assert_eq!((text("sid"), text("pid")), (self.sid.clone(), self.pid.clone()), "not resumed");
            }
            (self.sid, self.pid) = (text("sid"), text("pid"));
            socket.get_ref().set_read_timeout(Some(Duration::from_millis(20))).ok()?;
            return Some(socket);
        }
    }

    fn send(&mut self, text: &str) {
        if let Some(socket) = &mut self.socket
            && socket.send(Message::text(text)).is_err()
        {
            self.socket = None;
        }
    }

    /// An event with this ack id, sent again over each connection until it is answered. Gives the answer.
    fn ask(&mut self, id: u64, event: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let answer = format!("3{id}");
        let mut sent = false;
        loop {
            assert!(Instant::now() < end, "{event} was not answered");
            if self.socket.is_none() {
                self.socket = self.connect();
                sent = false;
            }
            if !sent {
                self.send(&format!("42{id}{event}"));
                sent = self.socket.is_some();
            }
            if let Some(arguments) = self.next().as_deref().and_then(|packet| packet.strip_prefix(&answer)) {
                return arguments.to_owned();
            }
        }
    }
}

#[test]
fn each_event_arrives_once_and_in_order_however_often_the_server_is_killed() {
    let kills: u64 = env::var("ADJOURN_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(KILLS);
    let directory = Directory::new();
    let file = directory.0.join("kill.db");
    let mut served = Served::start(&file, 0);
    let port = served.port();
    let (ended, stored) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let complete = Arc::new(AtomicBool::new(false));
    let mut subscriber = Session::new(port);
    subscriber.ask(0, "[\"join\"]");
    let publisher = thread::spawn({
        let (ended, stored) = (Arc::clone(&ended), Arc::clone(&stored));
        move || {
            let mut session = Session::new(port);
            while !ended.load(Ordering::Acquire) {
                let n = stored.load(Ordering::Acquire);
                assert_eq!(session.ask(n, &format!("[\"say\",\"{n}\"]")), "[\"stored\"]");
                stored.store(n + 1, Ordering::Release);
            }
        }
    });
    let counter = thread::spawn({
        let (complete, stored) = (Arc::clone(&complete), Arc::clone(&stored));
        move || {
            let (mut expected, mut last) = (0, Instant::now());
            while !complete.load(Ordering::Acquire) || expected < stored.load(Ordering::Acquire) {
                assert!(last.elapsed() < PATIENCE, "{expected} did not arrive");
                let Some(packet) = subscriber.next() else { continue };
                let Some(event) = packet.strip_prefix('2') else { continue };
                let (name, n, offset): (String, String, String) =
                    serde_json::from_str(event).expect("an event");
                assert_eq!((&*name, n), ("said", expected.to_string()));
                (expected, last, subscriber.offset) = (expected + 1, Instant::now(), Some(offset));
            }
            expected
        }
    });
    let seed = u64::from(std::process::id());
    for kill in 0..kills {
        // From right after the start to some events later.
        thread::sleep(Duration::from_micros(
            seed.wrapping_add(kill).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 48,
        ));
        drop(served);
        served = Served::start(&file, port);
        served.port();
    }
    ended.store(true, Ordering::Release);
    publisher.join().expect("the publisher's part");
    complete.store(true, Ordering::Release);
    let arrived = counter.join().expect("the subscriber's part");
    drop(served);
    check(&file, arrived);
    assert_eq!(arrived, stored.load(Ordering::Acquire));
    assert!(arrived > kills, "hardly anything happened between the kills: {arrived} events");
}

/// The file is sound, and its log has no gap.
fn check(file: &Path, entries: u64) {
    let sql = rusqlite::Connection::open(file).expect("opens");
    let sound: String = sql.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(sound, "ok");
    let log = "SELECT count(*), ifnull(max(pos), 0) FROM sio_log WHERE nsp = '/'";
    let (count, last): (i64, i64) =
        sql.query_row(log, [], |row| Ok((row.get(0)?, row.get(1)?))).expect("counts");
    let entries = i64::try_from(entries).expect("a count");
    assert_eq!((count, last), (entries, entries));
}

/// Removed at the end.
struct Directory(PathBuf);

impl Directory {
    fn new() -> Self {
        let directory = env::temp_dir().join(format!("adjourn-kill-{}", std::process::id()));
        std::fs::create_dir_all(&directory).expect("a directory");
        Self(directory)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
