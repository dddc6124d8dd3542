//! Section 20: what `tracing` is told, and in which span. A program of its own, whose tests run one after the other: a place in the code
//! is looked at by the subscribers of all threads.

use std::fmt::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjourn::shutdown::ShutdownPlan;
use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::engine::{EngineRequest, Refusal};
use adjourn_socketio::packet::Query;
use adjourn_socketio::store::MemoryStore;
use adjourn_socketio::{Conn, SocketIo};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "core/world.rs"]
mod world;

use world::{Client, StoreMode, World, quick};

/// Remembers events as `[span] message`, at `debug` and above.
#[derive(Clone, Default)]
struct Capture(Arc<Mutex<Captured>>);

#[derive(Default)]
struct Captured {
    /// The fields of each span.
    spans: Vec<String>,
    entered: Vec<u64>,
    events: Vec<String>,
}

impl Capture {
    /// The events since the last call.
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().expect("not poisoned").events)
    }
}

/// The fields as text; `message` alone without its name.
struct Fields<'t>(&'t mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        match field.name() {
            "message" => write!(self.0, "{value:?} "),
            name => write!(self.0, "{name}={value:?} "),
        }
        .expect("memory");
    }
}

impl Subscriber for Capture {
    fn enabled(&self, of: &Metadata<'_>) -> bool {
        of.target() == "adjourn_socketio" && *of.level() <= tracing::Level::DEBUG
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = format!("{} ", span.metadata().name());
        span.record(&mut Fields(&mut text));
        let mut captured = self.0.lock().expect("not poisoned");
        captured.spans.push(text);
        Id::from_u64(captured.spans.len() as u64)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        let mut captured = self.0.lock().expect("not poisoned");
        let index = usize::try_from(span.into_u64() - 1).expect("small");
        values.record(&mut Fields(&mut captured.spans[index]));
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = String::new();
        event.record(&mut Fields(&mut text));
        let mut captured = self.0.lock().expect("not poisoned");
        let span = captured.entered.last().copied().unwrap_or_default();
        let text = format!("[{span}] {}", text.trim_end());
        captured.events.push(text);
    }

    fn enter(&self, span: &Id) {
        self.0.lock().expect("not poisoned").entered.push(span.into_u64());
    }

    fn exit(&self, span: &Id) {
        let mut captured = self.0.lock().expect("not poisoned");
        let last = captured.entered.pop();
        assert_eq!(last, Some(span.into_u64()), "spans are left in order");
    }
}

fn world_with(config: SocketIoConfig) -> World {
    World::new(config, |core, _| {
        core.namespace("/").on("echo", |_, _, _| {}).on("panic", |_, _, _| panic!("a bad handler"));
    })
}

fn say(world: &mut World, number: u32) {
    world.call(|io| io.of("/").emit("n", (number,)).expect("is logged"));
}

/// Runs with a subscriber of its own.
fn captured(run: impl FnOnce(&Capture)) -> Capture {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let capture = Capture::default();
    tracing::subscriber::with_default(capture.clone(), || run(&capture));
    capture
}

/// The first word after the span of each event.
fn names(events: &[String]) -> Vec<&str> {
    events.iter().map(|event| event.split(' ').nth(1).expect("a message")).collect()
}

#[test]
fn s20_each_event_is_told_by_its_name() {
    captured(|capture| {
        let mut config = quick();
        config.recovery.as_mut().expect("is on").log_entries = 20;
        let mut world = world_with(config);
        let query = Query::parse("EIO=3&transport=websocket");
        let request = EngineRequest { method: "GET", query: &query, upgrade: true, detached: false };
        let refused: Option<Refusal> = world.core.admit(&request, || Ok(())).err();
        assert_eq!((refused.map(|refused| refused.code), names(&capture.take())), (Some(5), vec!["refused"]));

        let mut client = Client::new(&mut world);
        assert_eq!(names(&capture.take()), ["connected"]);
        client.emit(&mut world, r#"["panic"]"#);
        assert_eq!(names(&capture.take()), ["handler_panic"]);
        client.roam(&mut world);
        assert_eq!(names(&capture.take()), ["disconnected", "resumed"]);
        world.message(client.link.expect("is open"), "4x");
        assert_eq!(names(&capture.take()), ["decode_error", "disconnected"]);

        for number in 0..60 {
            say(&mut world, number);
        }
        assert!(names(&capture.take()).iter().all(|name| *name == "trimmed"));
        world.advance(Duration::from_secs(20));
        capture.take();
        client.connect(&mut world);
        let events = capture.take();
        assert_eq!(names(&events), ["resume_refused", "connected"], "{events:?}");

        let link = client.link.expect("is open");
        world.stick(link, 10);
        say(&mut world, 0);
        assert_eq!(names(&capture.take()), ["slow_consumer", "disconnected"]);
        world.mode = StoreMode::Held;
        say(&mut world, 0);
        world.advance(Duration::from_secs(2));
        world.run_store();
        assert_eq!(names(&capture.take())[..2], ["store_down", "store_up"]);
    });
}

#[test]
fn s20_what_happens_on_a_connection_is_in_its_span() {
    let capture = captured(|capture| {
        let mut world = world_with(quick());
        let (mut first, mut second) = (Client::new(&mut world), Client::new(&mut world));
        second.emit(&mut world, r#"["panic"]"#);
        first.emit(&mut world, r#"["panic"]"#);
        let events = capture.take();
        assert_eq!(events[2..], ["[2] handler_panic", "[1] handler_panic"], "{events:?}");
        // What the store answers later is the connection's, too; and a take-over is told in both.
        world.mode = StoreMode::Held;
        first.link = Some(world.open());
        first.send_connect(&mut world);
        world.run_store();
        let spans: Vec<String> = capture.take().iter().map(|event| event[..3].to_owned()).collect();
        assert_eq!(spans, ["[1]", "[3]"], "disconnected, resumed");
        world.mode = StoreMode::Inline;
        second.cut(&mut world);
        assert!(capture.take()[0].starts_with("[2] disconnected"));
        ping_timeout(&mut world, capture);
    });
    let captured = capture.0.lock().expect("not poisoned");
    assert!(captured.spans[0].starts_with("connection link=1 id="), "{:?}", captured.spans);
    assert!(captured.entered.is_empty());
}

fn ping_timeout(world: &mut World, capture: &Capture) {
    world.advance(Duration::from_mins(2));
    assert!(capture.take().iter().any(|event| event.starts_with("[3] disconnected")));
}

#[test]
fn s20_nothing_is_told_for_each_event_of_a_client() {
    captured(|capture| {
        let mut world = world_with(quick());
        let mut client = Client::new(&mut world);
        capture.take();
        for _ in 0..10 {
            client.emit(&mut world, r#"["echo",1]"#);
            say(&mut world, 1);
        }
        assert!(capture.take().is_empty());
    });
}

#[test]
fn s20_a_drained_server_says_so() {
    captured(|capture| {
        let mut io = SocketIo::new(SocketIoConfig::default(), MemoryStore::new()).expect("starts");
        let mut server: adjourn::Server<Conn> =
            adjourn::Server::bind("127.0.0.1:0", adjourn::Config::default()).expect("binds");
        io.handle(&server).drain(ShutdownPlan::soft(Duration::ZERO)).expect("it will run");
        io.run(&mut server).expect("serves");
        assert_eq!(capture.take(), ["[0] drained resumable=0"]);
    });
}
