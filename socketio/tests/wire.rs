//! Sections 2 and 4 of specification over real TCP: literal requests, and the bytes that come back.
#![cfg(feature = "polling")]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use adjourn_socketio::config::{Cors, CorsOrigin, SocketIoConfig};
use adjourn_socketio::store::MemoryStore;
use adjourn_socketio::{Conn, SocketIo, SocketIoHandle};

/// A server with an event `echo`, and the reasons with which its sockets disconnect.
struct Wire {
    address: SocketAddr,
    handle: SocketIoHandle,
    reasons: Receiver<String>,
}

impl Wire {
    fn new(adapt: impl FnOnce(&mut SocketIoConfig) + Send + 'static) -> Self {
        let (started, address) = mpsc::channel();
        let (told, reasons) = mpsc::channel();
        thread::spawn(move || {
            let mut config = SocketIoConfig::default();
            config.recovery = None;
            config.input.max_payload = 1000;
            adapt(&mut config);
            let mut io = SocketIo::new(config, MemoryStore::new()).expect("settings");
            io.allow_request(|head| match head.header("x-forbidden") {
                Some(why) => Err(why.to_owned()),
                None => Ok(()),
            });
            let main = io.namespace("/");
            main.on("echo", |socket, args, _| socket.emit("echo", args).expect("connected"));
            main.on_disconnect(move |_, end| drop(told.send(end.reason.to_string())));
            let mut server: adjourn::Server<Conn> =
                adjourn::Server::bind("127.0.0.1:0", adjourn::Config::default()).expect("a port");
            let address = server.local_addr().expect("bound");
            started.send((address, io.handle(&server))).expect("the test waits");
            io.run(&mut server).expect("runs");
        });
        let (address, handle) = address.recv().expect("started");
        Self { address, handle, reasons }
    }

    /// Waits until the server has a request that it has not answered: a GET, or the head of a POST.
    fn wait_for_request(&self) {
        let end = Instant::now() + Duration::from_secs(5);
        let (told, waiting) = mpsc::channel();
        loop {
            let told = told.clone();
            let ask = move |io: &mut adjourn_socketio::Io<'_>| {
                told.send(io.stats().requests_waiting).expect("the test waits");
            };
            self.handle.defer(ask).expect("it runs");
            match waiting.recv_timeout(Duration::from_secs(5)).expect("an answer") {
                0 => assert!(Instant::now() < end, "no request has come"),
                _ => return,
            }
        }
    }

    fn connect(&self) -> Client {
        let stream = TcpStream::connect(self.address).expect("listens");
        stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a time");
        Client { stream, read: Vec::new() }
    }

    /// One request on a connection of its own.
    fn ask(&self, request: &str) -> Answer {
        self.connect().ask(request)
    }

    /// A session on polling, with a socket.
    fn session(&self) -> String {
        let open = self.ask(&get("EIO=4&transport=polling"));
        let sid = open.body.get(9..29).expect("a handshake").to_owned();
        assert_eq!(self.ask(&post(&sid, "40")).body, "ok");
        let connected = self.ask(&get(&format!("EIO=4&transport=polling&sid={sid}"))).body;
        assert!(connected.starts_with(r#"40{"sid":""#), "{connected}");
        sid
    }

    #[track_caller]
    fn reason(&self, expected: &str) {
        assert_eq!(self.reasons.recv_timeout(Duration::from_secs(5)).as_deref(), Ok(expected));
    }
}

struct Client {
    stream: TcpStream,
    read: Vec<u8>,
}

/// An HTTP response.
#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1).filter_map(|line| line.split_once(": "));
        lines.filter(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
    }

    #[track_caller]
    fn is_refusal(&self, status: u16, body: &str) {
        assert_eq!((self.status, self.body.as_str()), (status, body));
        assert_eq!(self.header("content-type"), Some("application/json"));
        assert_eq!(self.header("cache-control"), Some("no-store"));
        assert_eq!(self.header("content-length"), Some(body.len().to_string().as_str()));
    }
}

impl Client {
    fn write(&mut self, bytes: &str) {
        self.stream.write_all(bytes.as_bytes()).expect("connected");
    }

    fn ask(&mut self, request: &str) -> Answer {
        self.write(request);
        self.answer(!request.starts_with("HEAD "))
    }

    /// Reads one response.
    fn answer(&mut self, with_body: bool) -> Answer {
        let end = loop {
            if let Some(at) = self.read.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            self.more();
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).expect("ASCII");
        let status = head.get(9..12).expect("a status").parse().expect("digits");
        let mut answer = Answer { status, head, body: String::new() };
        let length: usize =
            answer.header("content-length").map_or(0, |length| length.parse().expect("digits"));
        if with_body {
            while self.read.len() < length {
                self.more();
            }
            answer.body = String::from_utf8(self.read.drain(..length).collect()).expect("UTF-8");
        }
        answer
    }

    fn more(&mut self) {
        let mut bytes = [0; 4096];
        let count = self.stream.read(&mut bytes).expect("an answer in time");
        assert!(count > 0, "the connection ended: {:?}", String::from_utf8_lossy(&self.read));
        self.read.extend_from_slice(&bytes[..count]);
    }

    /// Exactly these bytes come next.
    #[track_caller]
    fn expect(&mut self, bytes: &[u8]) {
        while self.read.len() < bytes.len() {
            self.more();
        }
        assert_eq!(self.read.drain(..bytes.len()).collect::<Vec<_>>(), bytes);
    }

    /// The server ends the connection.
    fn ends(&mut self) {
        let mut rest = Vec::new();
        let _ = self.stream.read_to_end(&mut rest);
        assert!(rest.is_empty() && self.read.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
    }

    /// A text message, masked with zeroes.
    fn send(&mut self, text: &str) {
        let length = u8::try_from(text.len()).expect("short");
        self.stream.write_all(&[0x81, 0x80 | length, 0, 0, 0, 0]).expect("connected");
        self.write(text);
    }
}

fn get(query: &str) -> String {
    format!("GET /socket.io/?{query} HTTP/1.1\r\nHost: a\r\n\r\n")
}

fn post(sid: &str, body: &str) -> String {
    format!("{}\r\nContent-Length: {}\r\n\r\n{body}", post_head(sid), body.len())
}

fn post_head(sid: &str) -> String {
    format!("POST /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: a")
}

fn upgrade(query: &str) -> String {
    format!(
        "GET /socket.io/?{query} HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: \
         13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
}

const UNKNOWN_TRANSPORT: &str = r#"{"code":0,"message":"Transport unknown"}"#;
const UNKNOWN_SID: &str = r#"{"code":1,"message":"Session ID unknown"}"#;
const BAD_METHOD: &str = r#"{"code":2,"message":"Bad handshake method"}"#;
const BAD_REQUEST: &str = r#"{"code":3,"message":"Bad request"}"#;
const BAD_VERSION: &str = r#"{"code":5,"message":"Unsupported protocol version"}"#;

#[test]
fn s2_refusals_of_plain_requests_and_of_upgrades_are_the_same_and_instead_of_the_101() {
    let wire = Wire::new(|_| ());
    for (query, body) in [
        ("EIO=4", UNKNOWN_TRANSPORT),
        ("EIO=4&transport=abc", UNKNOWN_TRANSPORT),
        ("EIO=4&transport=polling&sid=x", UNKNOWN_SID),
        ("EIO=3&transport=polling&j=1", BAD_REQUEST),
        ("EIO=4&EIO=4&transport=polling", BAD_REQUEST),
    ] {
        wire.ask(&get(query)).is_refusal(400, body);
        wire.ask(&upgrade(query)).is_refusal(400, body);
    }
    wire.ask(&get("EIO=3&transport=polling")).is_refusal(400, BAD_VERSION);
    wire.ask(&upgrade("EIO=3&transport=websocket")).is_refusal(400, BAD_VERSION);
    wire.ask(&upgrade("EIO=4&transport=polling")).is_refusal(400, BAD_REQUEST);
    wire.ask(&get("EIO=4&transport=websocket")).is_refusal(400, BAD_REQUEST);
    for method in ["POST", "PUT", "DELETE", "OPTIONS"] {
        let request = get("EIO=4&transport=polling").replace("GET ", &format!("{method} "));
        wire.ask(&request).is_refusal(400, BAD_METHOD);
    }
    let head = wire.ask(&get("EIO=4&transport=polling").replace("GET ", "HEAD "));
    assert_eq!((head.status, head.body.as_str()), (400, ""));
    let forbidden = get("EIO=4&transport=polling").replace("Host: a", "Host: a\r\nX-Forbidden: not you");
    wire.ask(&forbidden).is_refusal(403, r#"{"code":4,"message":"not you"}"#);
    let forbidden =
        upgrade("EIO=4&transport=websocket").replace("Host: a", "Host: a\r\nX-Forbidden: not you");
    wire.ask(&forbidden).is_refusal(403, r#"{"code":4,"message":"not you"}"#);
}

#[test]
fn s2_the_path_is_matched_with_and_without_its_last_slash_and_others_are_not_the_engines() {
    let wire = Wire::new(|_| ());
    for path in ["/socket.io/?", "/socket.io?", "/socket.io/more?"] {
        let request = get("EIO=4&transport=polling").replace("/socket.io/?", path);
        assert_eq!(wire.ask(&request).status, 200, "{path}");
    }
    for path in ["/?", "/socket.iox/?", "/other/socket.io/?"] {
        assert_eq!(
            wire.ask(&get("EIO=4&transport=polling").replace("/socket.io/?", path)).status,
            404,
            "{path}"
        );
        assert_eq!(wire.ask(&upgrade("EIO=4&transport=websocket").replace("/socket.io/?", path)).status, 404);
    }
    assert_eq!(wire.ask("GET /socket.io/socket.io.js HTTP/1.1\r\nHost: a\r\n\r\n").status, 404);
}

#[test]
fn s2_a_second_upgrade_gets_101_and_an_empty_close_and_the_session_lives() {
    let wire = Wire::new(|_| ());
    let sid = wire.session();
    let query = format!("EIO=4&transport=websocket&sid={sid}");
    let mut probe = wire.connect();
    assert_eq!(probe.ask(&upgrade(&query)).status, 101);
    let mut second = wire.connect();
    assert_eq!(second.ask(&upgrade(&query)).status, 101);
    second.expect(&[0x88, 0]);
    probe.send("2probe");
    probe.expect(b"\x81\x063probe");
    probe.send("5");
    let mut third = wire.connect();
    assert_eq!(third.ask(&upgrade(&query)).status, 101);
    third.expect(&[0x88, 0]);
    probe.send(r#"42["echo",1]"#);
    probe.expect(b"\x81\x0c42[\"echo\",1]");
    wire.ask(&get(&format!("EIO=4&transport=polling&sid={sid}"))).is_refusal(400, BAD_REQUEST);
}

#[test]
fn s2_an_upgrade_on_a_detached_connection_is_code_3_and_closes_it() {
    let wire = Wire::new(|_| ());
    let mut client = wire.connect();
    assert_eq!(client.ask(&get("EIO=4&transport=polling")).status, 200);
    let refused = client.ask(&upgrade("EIO=4&transport=websocket"));
    refused.is_refusal(400, BAD_REQUEST);
    assert_eq!(refused.header("connection"), Some("close"));
    client.ends();
}

#[test]
fn s4_gets_and_posts_on_one_connection() {
    let wire = Wire::new(|_| ());
    let mut client = wire.connect();
    let open = client.ask(&get("EIO=4&transport=polling"));
    assert_eq!(open.header("content-type"), Some("text/plain; charset=UTF-8"));
    assert_eq!(open.header("cache-control"), Some("no-store"));
    assert_eq!(open.header("content-length"), Some(open.body.len().to_string().as_str()));
    let sid = open.body[9..29].to_owned();
    let posted = client.ask(&post(&sid, "40"));
    assert_eq!((posted.status, posted.body.as_str()), (200, "ok"));
    assert_eq!(posted.header("content-type"), Some("text/html"));
    assert_eq!(posted.header("cache-control"), Some("no-store"));
    client.ask(&get(&format!("EIO=4&transport=polling&sid={sid}")));
    // Two events and a binary one in one payload come back in one answer.
    let payload = "42[\"echo\",1]\u{1e}451-[\"echo\",{\"_placeholder\":true,\"num\":0}]\u{1e}bAQI=\u{1e}42[\"echo\",\"é\"]";
    assert_eq!(client.ask(&post(&sid, payload)).body, "ok");
    assert_eq!(client.ask(&get(&format!("EIO=4&transport=polling&sid={sid}"))).body, payload);
}

#[test]
fn s4_bodies_chunked_expected_and_in_the_packet_of_their_head() {
    let wire = Wire::new(|_| ());
    let sid = wire.session();
    let poll = get(&format!("EIO=4&transport=polling&sid={sid}"));
    let chunked = "\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n42[\"e\r\n7\r\ncho\",1]\r\n0\r\n\r\n";
    assert_eq!(wire.ask(&format!("{}{chunked}", post_head(&sid))).body, "ok");
    assert_eq!(wire.ask(&poll).body, r#"42["echo",1]"#);
    let mut client = wire.connect();
    client.write(&format!("{}\r\nContent-Length: 12\r\nExpect: 100-continue\r\n\r\n", post_head(&sid)));
    assert_eq!(client.answer(false).status, 100);
    assert_eq!(client.ask(r#"42["echo",2]"#).body, "ok");
    assert_eq!(wire.ask(&poll).body, r#"42["echo",2]"#);
    // Head and half of the body at once, the rest later: what `detach` hands over is read first.
    let mut client = wire.connect();
    client.write(&format!("{}\r\nContent-Length: 12\r\n\r\n42[\"ec", post_head(&sid)));
    wire.wait_for_request();
    assert_eq!(client.ask(r#"ho",3]"#).body, "ok");
    assert_eq!(wire.ask(&poll).body, r#"42["echo",3]"#);
}

#[test]
fn s4_over_max_payload_is_413_announced_or_not_and_the_session_is_kept() {
    let wire = Wire::new(|_| ());
    let sid = wire.session();
    // Nothing of the body is sent.
    let announced = wire.ask(&format!("{}\r\nContent-Length: 1001\r\n\r\n", post_head(&sid)));
    assert_eq!((announced.status, announced.body.as_str()), (413, ""));
    let chunk = format!("\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n{}\r\n", "4".repeat(1001));
    assert_eq!(wire.ask(&format!("{}{chunk}", post_head(&sid))).status, 413);
    assert_eq!(wire.ask(&post(&sid, r#"42["echo",1]"#)).body, "ok");
}

#[test]
fn s4_requests_that_overlap_or_die_are_transport_errors() {
    let wire = Wire::new(|_| ());
    let poll = |sid: &str| get(&format!("EIO=4&transport=polling&sid={sid}"));

    let sid = wire.session();
    let mut held = wire.connect();
    held.write(&poll(&sid));
    wire.wait_for_request();
    wire.ask(&poll(&sid)).is_refusal(400, BAD_REQUEST);
    assert_eq!(held.answer(true).body, "1");
    wire.reason("transport error");
    wire.ask(&poll(&sid)).is_refusal(400, UNKNOWN_SID);

    let sid = wire.session();
    let mut slow = wire.connect();
    slow.write(&format!("{}\r\nContent-Length: 12\r\n\r\n42[", post_head(&sid)));
    wire.wait_for_request();
    wire.ask(&post(&sid, "3")).is_refusal(400, BAD_REQUEST);
    wire.reason("transport error");

    let sid = wire.session();
    let mut held = wire.connect();
    held.write(&poll(&sid));
    wire.wait_for_request();
    drop(held);
    wire.reason("transport error");

    let sid = wire.session();
    let mut dying = wire.connect();
    dying.write(&format!("{}\r\nContent-Length: 12\r\n\r\n42[", post_head(&sid)));
    wire.wait_for_request();
    drop(dying);
    wire.reason("transport error");
    wire.ask(&poll(&sid)).is_refusal(400, UNKNOWN_SID);
}

#[test]
fn s4_bad_packets_bad_content_and_closes_have_their_reasons() {
    let wire = Wire::new(|_| ());
    let sid = wire.session();
    wire.ask(&post(&sid, "abc")).is_refusal(400, BAD_REQUEST);
    wire.reason("parse error");
    let sid = wire.session();
    wire.ask(&post(&sid, "3").replace("Host: a", "Host: a\r\nContent-Type: application/octet-stream"))
        .is_refusal(400, BAD_REQUEST);
    wire.reason("transport error");
    let sid = wire.session();
    let mut held = wire.connect();
    held.write(&get(&format!("EIO=4&transport=polling&sid={sid}")));
    wire.wait_for_request();
    assert_eq!(wire.ask(&post(&sid, "1")).body, "ok");
    assert_eq!(held.answer(true).body, "6");
    wire.reason("transport close");
    let sid = wire.session();
    assert_eq!(wire.ask(&post(&sid, "4nonsense")).body, "ok");
    wire.reason("forced close");
    assert_eq!(wire.ask(&get(&format!("EIO=4&transport=polling&sid={sid}"))).body, "1");
    wire.ask(&get(&format!("EIO=4&transport=polling&sid={sid}"))).is_refusal(400, UNKNOWN_SID);
}

#[test]
fn s4_cors_is_on_every_answer_refusals_too() {
    let wire = Wire::new(|config| {
        let origin = CorsOrigin::List(vec!["http://good".to_owned()]);
        let cors = Cors { origin, credentials: true, ..Cors::default() };
        config.cors = Some(cors);
    });
    let from =
        |request: &str, origin: &str| request.replace("Host: a", &format!("Host: a\r\nOrigin: {origin}"));
    for query in ["EIO=4&transport=polling", "EIO=4", "EIO=4&transport=polling&sid=x"] {
        let allowed = wire.ask(&from(&get(query), "http://good"));
        assert_eq!(allowed.header("access-control-allow-origin"), Some("http://good"), "{query}");
        assert_eq!(allowed.header("access-control-allow-credentials"), Some("true"));
        assert_eq!(allowed.header("vary"), Some("Origin"));
        let other = wire.ask(&from(&get(query), "http://bad"));
        assert_eq!(other.header("access-control-allow-origin"), None);
        assert_eq!(other.header("vary"), Some("Origin"));
    }
    let preflight = get("EIO=4&transport=polling").replace("GET ", "OPTIONS ").replace(
        "Host: a",
        "Host: a\r\nAccess-Control-Request-Method: POST\r\nAccess-Control-Request-Headers: x-a",
    );
    let answer = wire.ask(&from(&preflight, "http://good"));
    // No `Content-Length`: RFC 9110 §8.6 forbids it on a 204.
    assert_eq!((answer.status, answer.header("content-length")), (204, None));
    assert_eq!(answer.header("access-control-allow-methods"), Some("GET,HEAD,PUT,PATCH,POST,DELETE"));
    assert_eq!(answer.header("access-control-allow-headers"), Some("x-a"));
}
