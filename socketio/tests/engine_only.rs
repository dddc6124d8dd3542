//! Engine.IO alone (specification 21): a callback per message, nothing of Socket.IO.

#[path = "support/engine_script.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod script;

use std::time::Duration;

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::{Core, CoreSetup, Peer, Transport};
use adjourn_socketio::engine::PostBody;
use adjourn_socketio::links::{FrameRef, LinkId, RequestId};
use adjourn_socketio::packet::Query;
use script::Recorder;

fn echo() -> Core {
    let mut config = SocketIoConfig::default();
    config.recovery = None;
    config.times.connect_timeout = Duration::from_secs(1);
    let setup = CoreSetup {
        epoch: 1,
        logs: Vec::new(),
        wall: 0,
        random: Box::new(|bytes| bytes.fill(7)),
        wake: Box::new(|| ()),
    };
    let mut core = Core::new(config, setup).expect("a configuration");
    core.on_engine_message(|session, message| match message {
        FrameRef::Text("close") => session.close(),
        FrameRef::Text("panic") => panic!("of the application"),
        FrameRef::Text(text) => session.send_text(text),
        FrameRef::Binary(bytes) => session.send_binary(bytes.to_vec()),
    });
    core
}

fn peer() -> Peer {
    Peer {
        query: Query::default(),
        headers: Vec::new(),
        path: "/engine.io/".into(),
        address: None,
        time: 0,
        transport: Transport::WebSocket,
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

#[test]
fn s21_messages_are_the_handlers_and_no_socket_io_is_read() {
    let (mut core, mut links) = (echo(), Recorder::default());
    core.open_websocket(LinkId(1), peer(), seconds(0), &mut links);
    links.lines.clear();
    // No CONNECT comes, and none is missed.
    core.handle_timeout(seconds(10), &mut links);
    for message in ["4hello", "40", "42{}", "4panic", "4"] {
        core.websocket_message(LinkId(1), FrameRef::Text(message), seconds(11), &mut links);
    }
    core.websocket_message(LinkId(1), FrameRef::Binary(&[1, 2]), seconds(11), &mut links);
    assert_eq!(links.lines, ["L1<4hello", "L1<40", "L1<42{}", "L1<4", "L1<[1, 2]"]);
    assert_eq!(core.stats().handler_panics, 1);
    links.lines.clear();
    core.websocket_message(LinkId(1), FrameRef::Text("4close"), seconds(12), &mut links);
    core.websocket_message(LinkId(1), FrameRef::Text("4late"), seconds(12), &mut links);
    assert_eq!(links.lines, ["L1 closed"]);
}

#[test]
fn s21_engine_io_alone_over_polling() {
    let (mut core, mut links) = (echo(), Recorder::default());
    core.open_polling(RequestId(1), peer(), seconds(0), &mut links);
    let sid = "BwcHBwcHBwcHBwcHBwcH";
    links.lines.clear();
    core.post_head(RequestId(2), sid, (None, None), seconds(1), &mut links);
    let body = PostBody::Complete("4hello\u{1e}bAQIDBA==".as_bytes());
    core.post_body(RequestId(2), sid, body, seconds(1), &mut links);
    core.poll(RequestId(3), sid, seconds(2), &mut links);
    assert_eq!(links.lines, ["2=200 ok", "3=200 4hello|bAQIDBA=="]);
}
