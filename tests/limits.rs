//! Limits on what a peer may ask for, each from both sides: what is within them, and what becomes of the rest.

use std::time::Duration;

use adjourn::{
    Accept, Cause, Clients, CloseFrame, Closed, Config, ConnectionId, ControlRate, Event, Handler,
    HandshakeCause, Initiator, Origins, ProtocolError, Upgrade, UpgradeRequest,
    testing::{REQUEST, Session, frame},
    wire::upgrade::{ExtraHeader, Response},
};
use proptest::prelude::*;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

#[derive(Default)]
struct Keeper {
    id: Option<ConnectionId>,
    heard: usize,
    closed: Option<Closed>,
    failed: Option<HandshakeCause>,
}

impl Handler for Keeper {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => self.id = Some(id),
            Event::Ping { .. } | Event::Pong { .. } | Event::Message { .. } => self.heard += 1,
            Event::Close { closed, .. } => self.closed = Some(*closed),
            Event::HandshakeFailed { cause, .. } => self.failed = Some(cause),
            _ => {}
        }
    }
}

// The rate of control frames.

fn at_rate(per_second: u32, burst: u32) -> Session<Keeper> {
    let mut config = Config::default();
    config.control_rate = Some(ControlRate { per_second, burst });
    Session::open(config, Keeper::default())
}

#[test]
fn a_burst_of_control_frames_is_heard_and_one_more_is_against_our_policy() {
    for opcode in [PING, PONG] {
        let mut session = at_rate(10, 100);
        session.read(&frame(opcode, b"x").repeat(100));
        assert_eq!(session.handler().heard, 100);
        session.take_written();
        session.read(&frame(opcode, b"x").repeat(3));
        assert_eq!(session.handler().heard, 100, "nothing is parsed behind a violation");
        assert_eq!(session.take_written(), b"\x88\x19\x03\xf0too many control frames");
        let closed = session.handler().closed.clone().expect("it is failed");
        assert_eq!(closed.cause, Cause::Protocol(ProtocolError::ControlFlood));
        assert_eq!(
            (closed.effective_code(), closed.was_clean(), closed.initiator),
            (1008, false, Initiator::Local)
        );
    }
}

#[test]
fn a_steady_rate_is_heard_for_ever() {
    let mut session = at_rate(10, 2);
    for _ in 0..1000 {
        session.advance(Duration::from_millis(100));
        session.read(&frame(PING, b""));
    }
    assert_eq!(session.handler().heard, 1000);
    assert!(session.handler().closed.is_none());
}

#[test]
fn data_messages_are_not_counted() {
    let mut session = at_rate(0, 1);
    session.read(&frame(TEXT, b"x").repeat(1000));
    session.read(&frame(PING, b""));
    assert_eq!(session.handler().heard, 1001);
}

#[test]
fn behind_our_close_there_is_a_deadline_and_no_rate() {
    let mut session = at_rate(0, 1);
    let id = session.handler().id.expect("it is open");
    session.act(|clients, _| assert!(clients.close(id, CloseFrame::NORMAL)));
    session.read(&frame(PING, b"").repeat(100));
    assert_eq!(session.handler().heard, 100);
    session.read(&frame(CLOSE, &[0x03, 0xe8]));
    assert!(session.handler().closed.clone().expect("it has ended").was_clean());
}

#[test]
fn no_rate_is_no_limit() {
    let mut config = Config::default();
    config.control_rate = None;
    let mut session = Session::open(config, Keeper::default());
    session.read(&frame(PING, b"").repeat(200_000));
    assert_eq!(session.handler().heard, 200_000);
    assert!(session.handler().closed.is_none());
}

#[test]
fn the_default_rate_bears_a_hundred_thousand_at_once_and_not_a_million() {
    let mut session = Session::open(Config::default(), Keeper::default());
    session.read(&frame(PING, b"").repeat(100_000));
    assert!(session.handler().closed.is_none());
    for _ in 0..900 {
        session.advance(Duration::from_millis(1));
        session.read(&frame(PING, b"").repeat(1000));
    }
    assert!(session.handler().closed.is_some());
}

#[test]
fn control_frames_do_not_disturb_the_heartbeat() {
    let mut session = at_rate(1000, 1000);
    let (interval, timeout) = (Duration::from_secs(30), Duration::from_secs(20));
    for _ in 0..3 {
        session.read(&frame(PONG, b""));
        session.take_written();
        session.advance(interval + Duration::from_millis(1));
        assert_eq!(session.take_written(), [PING, 0], "silence is asked about");
    }
    session.advance(timeout);
    assert_eq!(session.handler().closed.clone().expect("it is given up").cause, Cause::HeartbeatTimeout);
}

proptest! {
    /// The rate depends on time, not on how the bytes were cut.
    #[test]
    fn any_split_of_a_flood_gives_the_same_answer(
        gaps in prop::collection::vec((0u64..400, 1usize..40), 1..30),
        cut in 1usize..20,
    ) {
        let [mut whole, mut pieces] = [(), ()].map(|()| at_rate(50, 60));
        for (ms, count) in gaps {
            let pings = frame(PING, b"abc").repeat(count);
            whole.advance(Duration::from_millis(ms));
            whole.read(&pings);
            pieces.advance(Duration::from_millis(ms));
            pings.chunks(cut).for_each(|piece| pieces.read(piece));
        }
        prop_assert_eq!(whole.handler().heard, pieces.handler().heard);
        prop_assert_eq!(whole.handler().closed.is_some(), pieces.handler().closed.is_some());
        prop_assert_eq!(whole.take_written(), pieces.take_written());
    }
}

// Origins.

fn asked_from(origin: &str) -> (Session<Keeper>, String) {
    let mut config = Config::default();
    config.origins = Some(Origins::new(["https://example.com"]).expect("an origin"));
    let mut session = Session::new(config, Keeper::default());
    let (request, end) = REQUEST.split_at(REQUEST.len() - 2);
    session.read(&[request, origin.as_bytes(), end].concat());
    let answer = String::from_utf8(session.take_written()).expect("an answer in ASCII");
    (session, answer)
}

#[test]
fn pages_of_the_list_get_a_101_and_others_a_403() {
    let rows = [
        ("Origin: https://example.com\r\n", "101", None),
        ("Origin: https://example.com.evil.net\r\n", "403", Some(HandshakeCause::Rejected)),
        ("Origin: null\r\n", "403", Some(HandshakeCause::Rejected)),
        ("", "403", Some(HandshakeCause::Rejected)),
        (
            "Origin: https://example.com\r\nOrigin: https://example.com\r\n",
            "400",
            Some(HandshakeCause::BadRequest),
        ),
    ];
    for (origin, status, failed) in rows {
        let (mut session, answer) = asked_from(origin);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin:?}: {answer}");
        assert_eq!(session.handler().failed, failed, "{origin:?}");
        assert_eq!(session.handler().id.is_some(), status == "101", "{origin:?}");
    }
}

// What an application puts into an answer.

/// Answers every request with what it is told.
struct Teller<F>(F);

impl<F: FnMut() -> Upgrade<'static, ()>> Handler for Teller<F> {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        (self.0)()
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}

fn answered(answer: impl FnMut() -> Upgrade<'static, ()>) -> Vec<u8> {
    let mut session = Session::new(Config::default(), Teller(answer));
    session.read(REQUEST);
    session.take_written()
}

/// A piece of text as an attacker would have an application pass it on.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("\r\n".to_owned()),
        Just("\r".to_owned()),
        Just("\n".to_owned()),
        Just("\0".to_owned()),
        Just("\u{85}".to_owned()),
        Just("\u{2028}".to_owned()),
        Just("\r\n\r\nHTTP/1.1 200 OK\r\n".to_owned()),
        Just("Set-Cookie: a=b".to_owned()),
        "[ -~]{0,8}",
        any::<String>(),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| pieces.concat())
}

type Lines = Vec<(String, Vec<u8>)>;

/// Status, header lines and body, as an HTTP parser of somebody else sees them.
fn read_back(answer: &[u8]) -> (u16, Lines, Vec<u8>) {
    let mut headers = [httparse::EMPTY_HEADER; 16];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = response.parse(answer).expect("an HTTP answer") else {
        panic!("the head does not end");
    };
    let lines =
        response.headers.iter().map(|header| (header.name.to_owned(), header.value.to_vec())).collect();
    (response.code.expect("a status"), lines, answer[length..].to_vec())
}

proptest! {
    /// Every string that an application can put into an answer either is refused when the answer is built, or stands
    /// there in its own place and nowhere else.
    #[test]
    fn no_string_of_an_application_breaks_out_of_its_place(
        status in 0u16..700,
        name in prop_oneof![hostile(), "[A-Za-z-]{1,12}"],
        value in hostile(),
        body in hostile(),
    ) {
        if let Ok(response) = Response::new(status).and_then(|response| response.header(name.clone(), value.clone())) {
            let answer = answered(|| Upgrade::Reject(response.clone().body(body.clone())));
            let (read_status, lines, rest) = read_back(&answer);
            prop_assert_eq!(read_status, status);
            let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
            let (first, framing) = names.split_first().expect("the header");
            prop_assert_eq!(*first, name.as_str());
            let allowed = ["Content-Length", "Connection", "Upgrade", "Sec-WebSocket-Version"];
            prop_assert!(framing.iter().all(|name| allowed.contains(name)), "{:?}", names);
            prop_assert_eq!(lines[0].1.as_slice(), value.trim_matches([' ', '\t']).as_bytes());
            let sent = if matches!(status, 204 | 205 | 304) { "" } else { body.as_str() };
            prop_assert_eq!(rest, sent.as_bytes());
            if let Some((_, length)) = lines.iter().find(|(name, _)| name == "Content-Length") {
                let wanted = sent.len().to_string();
                prop_assert_eq!(length.as_slice(), wanted.as_bytes());
            }
        }
        if let Ok(header) = ExtraHeader::new(name.clone(), value.clone()) {
            let answer = answered(|| Upgrade::Accept(Accept::new(()).header(header.clone())));
            let (read_status, lines, rest) = read_back(&answer);
            prop_assert_eq!((read_status, lines.len(), rest.len()), (101, 4, 0));
            prop_assert_eq!(&lines[3].0, &name);
        }
        prop_assert!(!value.contains(['\r', '\n', '\0']) || ExtraHeader::new("X", value).is_err());
    }
}

/// A subprotocol can only be one that the client offered, and an offer is a list of tokens.
#[test]
fn a_subprotocol_cannot_be_made_up() {
    struct Chooser;

    impl Handler for Chooser {
        type Data = ();

        fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
            let wishes = ["chat\r\nSet-Cookie: a=b", "chat\n", "", "superchat"];
            let chosen = wishes.iter().find_map(|wish| request.subprotocol(wish));
            Upgrade::Accept(Accept::new(()).subprotocol(chosen))
        }

        fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
    }

    let (request, end) = REQUEST.split_at(REQUEST.len() - 2);
    let rows = [
        ("Sec-WebSocket-Protocol: chat, superchat\r\n", 101, Some("superchat")),
        ("Sec-WebSocket-Protocol: chat\r\n", 101, None),
        ("Sec-WebSocket-Protocol: chat\r Set-Cookie: a=b\r\n", 400, None),
        ("Sec-WebSocket-Protocol: chat%0d%0aSet-Cookie: a=b\r\n", 400, None),
    ];
    for (offer, status, chosen) in rows {
        let mut session = Session::new(Config::default(), Chooser);
        session.read(&[request, offer.as_bytes(), end].concat());
        let (read_status, lines, _) = read_back(&session.take_written());
        assert_eq!(read_status, status, "{offer:?}");
        let line = lines
            .iter()
            .find(|(name, _)| name == "Sec-WebSocket-Protocol")
            .map(|(_, value)| value.as_slice());
        assert_eq!(line, chosen.map(str::as_bytes), "{offer:?}");
    }
}
