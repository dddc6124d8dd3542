//! What a server says to `tracing`: a span for each connection, and events with all facts as fields.

use std::{
    collections::BTreeMap,
    fmt,
    io::{Read as _, Write as _},
    sync::{Arc, Mutex},
    time::Duration,
};

use adjourn::{
    Config, Event, Server, ShutdownPlan, handler,
    http::{Response, Upgrade},
    testing::frame,
};
use testkit::net::REQUEST;
use tracing::{
    Level, Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id},
};
use tracing_subscriber::{
    Layer, Registry,
    layer::{Context, SubscriberExt as _},
    registry::LookupSpan,
};

type Fields = BTreeMap<String, String>;

/// One event: its level, what it says, its fields, and those of the span that it is in.
#[derive(Clone, Debug)]
struct Said {
    level: Level,
    message: String,
    fields: Fields,
    span: Option<Fields>,
}

/// Keeps everything that has the target `adjourn`.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Vec<Said>>>);

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Capture {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut fields = Read::default();
        attributes.record(&mut fields);
        context.span(id).expect("it was made").extensions_mut().insert(fields.0);
    }

    fn on_event(&self, event: &tracing::Event<'_>, context: Context<'_, S>) {
        if event.metadata().target() != "adjourn" {
            return;
        }
        let mut fields = Read::default();
        event.record(&mut fields);
        let span = context.event_span(event);
        self.0.lock().expect("not poisoned").push(Said {
            level: *event.metadata().level(),
            message: fields.0.remove("message").unwrap_or_default(),
            fields: fields.0,
            span: span.and_then(|span| span.extensions().get::<Fields>().cloned()),
        });
    }
}

#[derive(Default)]
struct Read(Fields);

impl Visit for Read {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.0.insert(field.name().into(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name().into(), value.into());
    }
}

/// A timer whose callback takes long.
const BLOCK: u64 = 1;

/// Everything that a server says while `clients` runs, on a thread of its own, against its address.
fn said(clients: impl FnOnce(std::net::SocketAddr) + Send + 'static) -> Vec<Said> {
    let capture = Capture::default();
    let subscriber = Registry::default().with(capture.clone());
    tracing::subscriber::with_default(subscriber, || {
        let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("a port is free");
        let (address, handle) = (server.local_addr().expect("it listens"), server.handle());
        let thread = std::thread::spawn(move || {
            clients(address);
            handle.shutdown(ShutdownPlan::soft(Duration::from_secs(5))).expect("it runs");
        });
        server
            .run_with(&mut handler(
                |request| match request.path() {
                    "/no" => Upgrade::Reject(Response::new(403).expect("a status")),
                    _ => Upgrade::accept(()),
                },
                |clients, event| {
                    if let Event::Message { id, message, .. } = event {
                        tracing::info!(target: "adjourn", "the application's own");
                        if message.as_text() == Some("block") {
                            clients.set_timer(id, Duration::ZERO, BLOCK);
                            // Due while the other one blocks.
                            clients.set_loop_timer(Duration::from_millis(20), BLOCK);
                        }
                        if message.as_text() == Some("sweep") {
                            clients.terminate_where(|_| false);
                        }
                    }
                    if let Event::Timer { id: Some(_), .. } = event {
                        std::thread::sleep(Duration::from_millis(120));
                    }
                },
            ))
            .expect("the poll works");
        thread.join().expect("no client panics");
    });
    capture.0.lock().expect("not poisoned").clone()
}

fn open(address: std::net::SocketAddr) -> std::net::TcpStream {
    let mut stream = std::net::TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
    stream.write_all(REQUEST).expect("the server reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the server answers");
        head.push(byte[0]);
    }
    stream
}

fn only<'s>(said: &'s [Said], message: &str) -> &'s Said {
    let found: Vec<_> = said.iter().filter(|said| said.message == message).collect();
    assert_eq!(found.len(), 1, "{message}: {said:#?}");
    found[0]
}

#[test]
fn a_connection_has_a_span_and_its_close_has_all_facts() {
    let said = said(|address| {
        let mut stream = open(address);
        stream.write_all(&frame(0x81, b"hello")).expect("the server reads");
        stream.write_all(&frame(0x88, b"\x0f\xa1bye")).expect("the server reads");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let request = only(&said, "request");
    assert_eq!((request.level, request.fields["path"].as_str()), (Level::DEBUG, "/chat"));
    assert_eq!(request.fields["decision"], "accept");

    let open = only(&said, "open");
    let span = open.span.clone().expect("it is in the span of its connection");
    assert_eq!((span["path"].as_str(), span["role"].as_str()), ("/chat", "server"));
    assert!(span["peer"].starts_with("127.0.0.1:"));
    let own = only(&said, "the application's own");
    assert_eq!(own.span.as_ref(), Some(&span), "what the application says is in it, too");

    let close = only(&said, "close");
    assert_eq!((close.level, close.span.as_ref()), (Level::INFO, Some(&span)));
    let expected = [
        ("code", "4001"),
        ("effective_code", "4001"),
        ("reason", "bye"),
        ("was_clean", "true"),
        ("initiator", "Remote"),
        ("cause", "PeerClose"),
        ("sent", "4001"),
        ("sent_flushed", "true"),
        ("received", "4001"),
        ("lost.messages", "0"),
        ("lost.trailing_bytes", "0"),
    ];
    for (name, value) in expected {
        assert_eq!(close.fields[name], value, "{name}");
    }
    assert!(close.fields.contains_key("duration") && close.fields.contains_key("close_phase"));
}

#[test]
fn a_refusal_has_its_reason_and_a_shutdown_its_phases() {
    let said = said(|address| {
        let mut stream = std::net::TcpStream::connect(address).expect("it listens");
        let request = String::from_utf8_lossy(REQUEST).replace("/chat", "/no?token=secret");
        stream.write_all(request.as_bytes()).expect("the server reads");
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let request = only(&said, "request");
    assert_eq!((request.fields["decision"].as_str(), request.fields["status"].as_str()), ("reject", "403"));
    let failed = only(&said, "handshake failed");
    assert_eq!((failed.level, failed.fields["cause"].as_str()), (Level::INFO, "Rejected"));
    assert!(!format!("{said:?}").contains("secret"), "no query is said");
    let phases: Vec<_> = said.iter().filter(|said| said.message == "shutdown").collect();
    let phases: Vec<_> = phases.iter().map(|said| said.fields["phase"].as_str()).collect();
    assert_eq!(phases.last(), Some(&"Done"));
    assert!(phases.contains(&"SoftSweep"));
}

#[test]
fn late_turns_long_callbacks_and_sweeps_are_said() {
    let said = said(|address| {
        let mut stream = open(address);
        stream.write_all(&frame(0x81, b"sweep")).expect("the server reads");
        stream.write_all(&frame(0x81, b"block")).expect("the server reads");
        std::thread::sleep(Duration::from_millis(300));
    });
    let long = only(&said, "long callback");
    assert_eq!((long.level, long.fields["event"].as_str()), (Level::WARN, "Timer"));
    assert!(long.span.is_some(), "it is said whose it was");
    let late = said.iter().find(|said| said.message == "late turn").expect("a timer was due meanwhile");
    assert_eq!(late.level, Level::WARN);
    only(&said, "sweep done");
}
