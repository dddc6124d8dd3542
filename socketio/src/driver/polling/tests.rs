//! The HTTP thread over real sockets, with a loop that the test plays itself.

use std::collections::VecDeque;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Response as HttpResponse;
use hyper::service::service_fn;

use super::{Handed, Http, HttpInput, HttpService, HttpSettings, PeerAddr, boxed_service};
use crate::config::Cors;
use crate::driver::wake::Waker;
use crate::links::{RequestId, Response};

struct World {
    http: Http,
    listener: TcpListener,
    inputs: VecDeque<HttpInput>,
}

fn settings() -> HttpSettings {
    HttpSettings {
        path: "/socket.io/".to_owned(),
        max_payload: 100,
        max_connections: 2,
        max_inputs: 3,
        head_timeout: Duration::from_millis(200),
        idle_timeout: Duration::from_millis(400),
        retry_after: Duration::from_secs(5),
        cors: None,
    }
}

impl World {
    fn new(settings: HttpSettings, service: Option<HttpService>) -> Self {
        let http = Http::start(settings, service, Waker::default()).expect("a thread");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        Self { http, listener, inputs: VecDeque::new() }
    }

    /// A client whose connection was detached after the loop had read `received`.
    fn detached(&self, received: &str) -> TcpStream {
        let client = TcpStream::connect(self.listener.local_addr().expect("bound")).expect("connects");
        client.set_read_timeout(Some(Duration::from_secs(5))).expect("a timeout");
        let (stream, peer) = self.listener.accept().expect("accepts");
        stream.set_nonblocking(true).expect("non-blocking");
        self.http.take_seat().expect("room").hand_over(Handed::Tcp(stream), received.into(), peer);
        client
    }

    fn input(&mut self) -> HttpInput {
        let end = Instant::now() + Duration::from_secs(5);
        loop {
            self.http.take_inputs(&mut self.inputs);
            match self.inputs.pop_front() {
                Some(input) => return input,
                None => assert!(Instant::now() < end, "nothing came"),
            }
            std::thread::yield_now();
        }
    }

    /// The next input, a head: its number, method and target.
    fn head(&mut self) -> (RequestId, String) {
        match self.input() {
            HttpInput::Head { request, head, .. } => (request, format!("{} {}", head.method, head.uri)),
            other => panic!("{other:?}"),
        }
    }

    fn respond(&mut self, request: RequestId, body: &'static str) {
        self.http.respond(request, response(200, body, false));
    }
}

fn response(status: u16, body: &'static str, close: bool) -> Response {
    Response {
        status,
        content_type: Some("text/plain; charset=UTF-8"),
        body: Bytes::from_static(body.as_bytes()),
        close,
    }
}

/// Reads one response with a length.
fn read(client: &mut TcpStream) -> String {
    let (mut bytes, mut byte) = (Vec::new(), [0]);
    loop {
        if client.read(&mut byte).expect("in time") == 0 {
            break;
        }
        bytes.extend(byte);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if length.and_then(|length| length.parse().ok()).unwrap_or(0) == body.len() {
                break;
            }
        }
    }
    String::from_utf8(bytes).expect("text")
}

const GET: &str = "GET /socket.io/?EIO=4&transport=polling HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn what_the_loop_had_read_comes_first_and_the_connection_is_kept() {
    let mut world = World::new(settings(), None);
    let mut client = world.detached(GET);
    let (request, target) = world.head();
    assert_eq!(target, "GET /socket.io/?EIO=4&transport=polling");
    world.respond(request, "0{}");
    let text = read(&mut client);
    assert!(text.starts_with("HTTP/1.1 200 OK\r\n"), "{text}");
    for part in [
        "content-type: text/plain; charset=UTF-8\r\n",
        "cache-control: no-store\r\n",
        "content-length: 3\r\n",
        "\r\n\r\n0{}",
    ] {
        assert!(text.contains(part), "{part:?} in {text}");
    }
    client.write_all(GET.as_bytes()).expect("writes");
    let (request, _) = world.head();
    world.http.respond(request, response(503, "no", true));
    let text = read(&mut client);
    assert!(text.contains("retry-after: 5\r\n") && text.contains("connection: close\r\n"), "{text}");
    assert_eq!(client.read(&mut [0]).expect("ends"), 0);
}

#[test]
fn the_first_answer_has_the_headers_of_the_application() {
    let mut world = World::new(settings(), None);
    let mut client = world.detached(GET);
    let (request, _) = world.head();
    let pairs =
        [("Set-Cookie", "io=1; HttpOnly"), ("Set-Cookie", "a=b"), ("no name", "x"), ("x-split", "a\r\nb: c")];
    world.http.add_headers(request, pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec());
    world.respond(request, "0{}");
    let text = read(&mut client);
    assert!(text.contains("set-cookie: io=1; HttpOnly\r\nset-cookie: a=b\r\n"), "{text}");
    assert!(!text.contains("no name") && !text.contains("x-split"), "{text}");
}

#[test]
fn a_body_follows_its_head_and_is_limited_while_it_is_read() {
    let mut world = World::new(settings(), None);
    let mut client =
        world.detached("POST /socket.io/?sid=a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n4he");
    let (request, _) = world.head();
    world.http.take_inputs(&mut world.inputs);
    assert!(world.inputs.is_empty(), "the body is not complete");
    client.write_all(b"llo").expect("writes");
    assert!(matches!(world.input(), HttpInput::Body { body: Some(body), .. } if body == "4hello"));
    world.respond(request, "ok");
    read(&mut client);
    client
        .write_all(b"POST /socket.io/?sid=a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n")
        .and_then(|()| client.write_all(&[b'x'; 100]))
        .and_then(|()| client.write_all(b"\r\n1\r\nx\r\n"))
        .expect("writes");
    let (request, _) = world.head();
    assert!(matches!(world.input(), HttpInput::Body { body: None, .. }));
    world.http.respond(request, response(413, "", true));
    assert!(read(&mut client).starts_with("HTTP/1.1 413 "));
}

#[test]
fn a_body_that_came_with_its_head_reaches_the_loop_with_it() {
    let mut world = World::new(settings(), None);
    let mut client =
        world.detached("POST /socket.io/?sid=a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n4hello");
    for _ in 0..20 {
        let (request, _) = world.head();
        let with_it = world.inputs.pop_front();
        assert!(
            matches!(&with_it, Some(HttpInput::Body { body: Some(body), .. }) if body == "4hello"),
            "{with_it:?}"
        );
        world.respond(request, "ok");
        read(&mut client);
        client
            .write_all(b"POST /socket.io/?sid=a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n4hello")
            .expect("writes");
    }
}

#[test]
fn an_answer_to_the_head_alone_ends_the_reading_of_the_body() {
    let mut world = World::new(settings(), None);
    let mut client =
        world.detached("POST /socket.io/?sid=a HTTP/1.1\r\nHost: a\r\nContent-Length: 60\r\n\r\n4he");
    let (request, _) = world.head();
    world.http.respond(request, response(400, "{}", false));
    assert!(read(&mut client).starts_with("HTTP/1.1 400 "));
}

#[test]
fn the_loop_is_told_when_a_connection_dies_before_its_answer() {
    let mut world = World::new(settings(), None);
    for death in ["GET", "half a POST"] {
        let received = match death {
            "GET" => GET,
            _ => "POST /socket.io/?sid=a HTTP/1.1\r\nHost: a\r\nContent-Length: 6\r\n\r\n4he",
        };
        let client = world.detached(received);
        let (dead, _) = world.head();
        client.shutdown(Shutdown::Both).expect("shuts down");
        drop(client);
        assert!(matches!(world.input(), HttpInput::Gone { request } if request == dead), "{death}");
        world.respond(dead, "too late");
    }
}

#[test]
fn an_abort_ends_the_connection_without_an_answer() {
    let mut world = World::new(settings(), None);
    let mut client = world.detached(GET);
    let (request, _) = world.head();
    world.http.abort(request);
    assert_eq!(read(&mut client), "");
}

#[test]
fn other_paths_are_the_applications() {
    let service = service_fn(|request: hyper::Request<hyper::body::Incoming>| async move {
        let peer = request.extensions().get::<PeerAddr>().is_some();
        let text = format!("{} {peer}", request.uri().path());
        Ok::<_, std::convert::Infallible>(HttpResponse::new(Full::<Bytes>::from(text)))
    });
    let world = World::new(settings(), Some(boxed_service(service)));
    let mut client = world.detached("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(read(&mut client).ends_with("\r\n\r\n/healthz true"));
    client.write_all(b"GET /socket.io/socket.io.js HTTP/1.1\r\nHost: a\r\n\r\n").expect("writes");
    assert!(read(&mut client).ends_with("\r\n\r\n/socket.io/socket.io.js true"));
    let world = World::new(settings(), None);
    let mut client = world.detached("GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(read(&mut client).starts_with("HTTP/1.1 404 "));
}

#[test]
fn preflights_are_answered_and_answers_have_the_headers_of_the_option_cors() {
    let mut world = World::new(HttpSettings { cors: Some(Cors::default()), ..settings() }, None);
    let mut client =
        world.detached("OPTIONS /socket.io/ HTTP/1.1\r\nHost: a\r\nOrigin: https://a.example\r\n\r\n");
    let text = read(&mut client);
    assert!(text.starts_with("HTTP/1.1 204 "), "{text}");
    assert!(text.contains("access-control-allow-methods: GET,"), "{text}");
    client.write_all(GET.as_bytes()).expect("writes");
    let (request, _) = world.head();
    world.respond(request, "0{}");
    assert!(read(&mut client).contains("access-control-allow-origin: *\r\n"));
}

#[test]
fn slow_heads_get_408_and_idle_connections_are_closed() {
    let mut world = World::new(settings(), None);
    let start = Instant::now();
    let mut slow = world.detached("GET /socket.io/?EIO=4");
    assert!(read(&mut slow).starts_with("HTTP/1.1 408 "));
    assert!(start.elapsed() >= settings().head_timeout);
    let mut idle = world.detached(GET);
    let (request, _) = world.head();
    // A request that the loop holds is not idle.
    std::thread::sleep(settings().idle_timeout * 2);
    world.respond(request, "6");
    read(&mut idle);
    let answered = Instant::now();
    assert_eq!(idle.read(&mut [0]).expect("ends"), 0);
    assert!(answered.elapsed() >= settings().idle_timeout / 2);
}

#[test]
fn places_are_limited_and_given_back() {
    let world = World::new(settings(), None);
    let clients = (world.detached(GET), world.detached(GET));
    assert_eq!(world.http.connections(), 2);
    assert!(world.http.take_seat().is_none());
    assert_eq!(world.http.connections(), 2);
    drop(clients);
    let end = Instant::now() + Duration::from_secs(5);
    while world.http.connections() > 0 {
        assert!(Instant::now() < end, "not given back");
        std::thread::yield_now();
    }
}

#[test]
fn a_loop_that_is_far_behind_is_not_asked() {
    let mut world = World::new(HttpSettings { max_connections: 9, ..settings() }, None);
    let mut clients: Vec<_> = (0..4).map(|_| world.detached(GET)).collect();
    // One of the four finds three waiting.
    let end = Instant::now() + Duration::from_secs(5);
    let mut refused = None;
    while refused.is_none() && Instant::now() < end {
        for client in &mut clients {
            client.set_read_timeout(Some(Duration::from_millis(20))).expect("a timeout");
            let mut text = [0; 12];
            if client.read(&mut text).is_ok() {
                refused = Some(text);
            }
        }
    }
    assert_eq!(refused.as_ref(), Some(b"HTTP/1.1 503"));
    for _ in 0..3 {
        world.head();
    }
}

#[test]
fn draining_ends_keep_alive_and_finishes_what_is_asked() {
    let mut world = World::new(settings(), None);
    let mut held = world.detached(GET);
    let (request, _) = world.head();
    world.http.drain();
    let mut late = world.detached(GET);
    let (of_late, _) = world.head();
    for (client, request) in [(&mut held, request), (&mut late, of_late)] {
        world.respond(request, "1");
        assert!(read(client).contains("connection: close\r\n"));
        assert_eq!(client.read(&mut [0]).expect("ends"), 0);
    }
    let mut cut = world.detached(GET);
    world.head();
    world.http.cut();
    assert_eq!(read(&mut cut), "");
}
