//! The fuzz targets of `adjourn-socketio` and what they begin with.

#[path = "../../socketio/tests/support/resume_target.rs"]
mod resume_target;
#[path = "../../socketio/tests/support/session_target.rs"]
#[allow(dead_code, reason = "properties.rs uses the rest")]
mod session_target;
#[path = "../../socketio/tests/support/targets.rs"]
mod targets;
#[allow(dead_code, reason = "the tests of the core use the rest")]
#[path = "../../socketio/tests/core/world.rs"]
mod world;

/// An Engine.IO packet.
pub fn engine_packet(bytes: &[u8]) {
    targets::engine_packet(bytes);
}

/// A payload of long-polling.
pub fn payload_split(bytes: &[u8]) {
    targets::payload_split(bytes);
}

/// The messages of a connection: Socket.IO packets and their attachments.
pub fn socket_packet(bytes: &[u8]) {
    targets::socket_packet(bytes);
}

/// The query of a request.
pub fn query(bytes: &[u8]) {
    targets::query(bytes);
}

/// Everything that can happen to an Engine.IO session.
pub fn session(bytes: &[u8]) {
    session_target::session(bytes);
}

/// CONNECTs that offer sessions, beside an honest client.
pub fn resume(bytes: &[u8]) {
    resume_target::resume(bytes);
}

/// What each of them begins with.
pub const SEEDS: [(&str, &[&[u8]]); 6] = [
    ("engine_packet", &[b"0{}", b"1", b"2probe", b"3", b"4hello", b"5", b"6", b"bAQIDBA==", b"b+/8="]),
    ("payload_split", &[b"4a\x1ebAQI=\x1e4b", b"\x1e\x1e", b"2", b"b"]),
    (
        "socket_packet",
        &[
            b"0{\"token\":\"123\"}",
            b"1/custom,",
            b"2/custom,12[\"m\",1.5e3,\"\\ud800\",[{}],null,true]",
            b"3456[1,\"2\"]",
            b"52-[\"m\",{\"_placeholder\":true,\"num\":1},[{\"num\":0,\"_placeholder\":true}]]\xff\x01\xff\x02\x03\xff1",
            b"61-/a,7[{\"_placeholder\":true,\"num\":0e0}]\xff\x00",
            b"2[-1]\xff2[\"connect\"]",
        ],
    ),
    ("query", &[b"EIO=4&transport=polling&sid=a%20b+c&t=%e2%82%ac", b"a=1&a=2&=&b", b"%&=%zz"]),
    (
        "session",
        &[
            // polling: GET, send, GET, POST, pings
            b"\0\x01\0\0\x01\x0a\0\x01\0\0\x01\x01\0\x01\x02\x0b\x0f\0\0\x0f\x01\0\x01\x02\0\x0f\0\0",
            // polling: GET, probe, 2probe, send, 5, send
            b"\0\x01\0\0\x01\x05\0\x01\x06\0\x01\x0a\x02\x01\x07\0\x01\x0b\x01\x0f\x08\0",
            // WebSocket: send, pong, the end of the link
            b"\x01\x01\x0a\0\x0f\x08\0\x0f\x08\0\x0f\x08\0\x01\x09\0",
            // polling: sends, an orderly close, GETs
            b"\0\x01\x0a\x02\x01\x0a\x02\x01\x0d\x01\x01\0\0\x01\0\0\x01\0\0",
        ],
    ),
    (
        "resume",
        &[
            // a session, an event, away, an event, its resume
            b"\x0d\x3f\0\0\x05\0\0\0\x05\0",
            b"\x07\x02{}\0\0\x07\x1a{\"pid\":\"#\",\"offset\":\"@\"}\0\0\x02\0",
            b"\x07\x0b{\"pid\":\"#\"}\x04\0\x07\x18{\"pid\":\"#\",\"offset\":1}\x03\xff",
        ],
    ),
];
