//! What holds whatever comes: the bodies of the fuzz targets on generated inputs, and on those that a fuzzer found worth keeping.

#[path = "support/resume_target.rs"]
mod resume_target;
#[path = "support/session_target.rs"]
mod session_target;
#[path = "support/targets.rs"]
mod targets;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "core/world.rs"]
mod world;

use proptest::collection::vec;
use proptest::prelude::*;

/// Pieces that packets are made of, so that what is generated is often valid, or almost.
fn packets() -> impl Strategy<Value = Vec<u8>> {
    let pieces: [&[u8]; 40] = [
        b"2",
        b"3",
        b"5",
        b"6",
        b"0",
        b"1",
        b"51-",
        b"62-",
        b"1-",
        b"/a,",
        b"/b",
        b",",
        b"12",
        b"[",
        b"]",
        b"{",
        b"}",
        b"\"m\"",
        b"\"connect\"",
        b"\"",
        b"\\",
        b"\\ud800",
        b":",
        b"1.5e3",
        b"-0",
        b"true",
        b"null",
        b" ",
        br#"{"_placeholder":true,"num":0}"#,
        br#"{"_placeholder":true,"num":1}"#,
        br#""_placeholder":true"#,
        br#""num":"#,
        b"\xff",
        b"\xff\x01\x02",
        b"[\"m\",1]",
        b"[1,[2,[3]]]",
        "é".as_bytes(),
        b"\x1e",
        b"b",
        b"AQI=",
    ];
    vec(proptest::sample::select(pieces.to_vec()), 0..14).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn engine_packets(bytes in packets(), random in vec(any::<u8>(), 0..12)) {
        targets::engine_packet(&bytes);
        targets::engine_packet(&random);
        targets::engine_packet(&[b"b", &bytes[..]].concat());
    }

    #[test]
    fn payloads(bytes in packets()) {
        targets::payload_split(&bytes);
    }

    #[test]
    fn socket_packets(bytes in packets(), text in r#"[0-7][0-9]{0,2}-?(/[a-c]{0,3},)?[0-9]{0,17}[\[{]("m"|1)?[,:\]}"a\\0 \[]{0,10}\]?"#) {
        targets::socket_packet(&bytes);
        targets::socket_packet(text.as_bytes());
    }

    #[test]
    fn queries(text in "[a-c=&%+0-9EF]{0,30}", random in vec(any::<u8>(), 0..20)) {
        targets::query(text.as_bytes());
        targets::query(&random);
    }

    /// Every request is answered once, what is sent goes out once and in order, the end is told once, memory is bounded, and
    /// calls of `handle_timeout` before their time change nothing.
    #[test]
    fn sessions(bytes in vec(any::<u8>(), 0..120)) {
        session_target::session(&bytes);
    }

    /// Whatever strangers offer as a session: none gets another's, and an honest client beside them misses nothing.
    #[test]
    fn resumes(bytes in vec(any::<u8>(), 0..80)) {
        resume_target::resume(&bytes);
    }
}

/// specification 22, "upgrade at every point of a stream": before each step of the client the server sends none, or one message.
#[test]
fn nothing_is_lost_doubled_or_out_of_order_by_an_upgrade_at_every_point() {
    for sends in 0_u32..1 << 11 {
        let spread = (0..11).map(|step| (sends >> step & 1) << (2 * step)).sum();
        session_target::upgrade(spread);
    }
    for step in 0..11 {
        session_target::upgrade(3 << (2 * step));
    }
}
