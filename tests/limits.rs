//! Limits on what a peer may ask for, each from both sides: what is within them, and what becomes of the rest.

use std::time::Duration;

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, ConnectionId, Event, Handler,
    clients::ReadyState,
    close::{Cause, Initiator},
    config::ControlRate,
    error::{ConnectionLimit, HandshakeError, ProtocolError},
    http::{Accept, ExtraHeader, Origins, Response, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Memory, REQUEST, Session, Socket, frame},
};
use proptest::prelude::*;

const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;

#[derive(Default)]
struct Keeper {
    id: Option<ConnectionId>,
    /// Of the last request.
    path: String,
    heard: usize,
    closed: Option<CloseReport>,
    failed: Option<HandshakeError>,
}

impl Handler for Keeper {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        request.path().clone_into(&mut self.path);
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => self.id = Some(id),
            Event::Ping { .. } | Event::Pong { .. } | Event::Message { .. } => self.heard += 1,
            Event::Close { report: closed, .. } => self.closed = Some(*closed),
            Event::HandshakeFailed { error: cause, .. } => self.failed = Some(cause),
            _ => {}
        }
    }
}

// The rate of control frames.

fn at_rate(per_second: u32, burst: u32) -> Session<Keeper> {
    let mut config = Config::default();
    config.connection.control_rate = Some(ControlRate { per_second, burst });
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
    config.connection.control_rate = None;
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

// Violations.

/// A header that was cut kept a violation to itself until the rest of it was there: `82 7e` alone got no answer.
#[test]
fn a_violation_is_failed_with_the_first_byte_that_shows_it() {
    use ProtocolError as E;
    let fragment: &[u8] = &[0x01, 0x80, 0, 0, 0, 0];
    let too_big = |limit| Cause::TooBig { limit };
    let rows: &[(&str, &[u8], &[u8], Cause)] = &[
        ("not masked", &[], &[0x82, 0x05], Cause::Protocol(E::Unmasked)),
        ("not masked, 16 bits of length", &[], &[0x82, 0x7e], Cause::Protocol(E::Unmasked)),
        ("not masked, 64 bits of length", &[], &[0x82, 0x7f], Cause::Protocol(E::Unmasked)),
        ("a fragment not masked", fragment, &[0x80, 0x7e], Cause::Protocol(E::Unmasked)),
        ("RSV1", &[], &[0xc2], Cause::Protocol(E::ReservedBits)),
        ("RSV2", &[], &[0xa2], Cause::Protocol(E::ReservedBits)),
        ("RSV1 on a Ping", &[], &[0xc9], Cause::Protocol(E::ReservedBits)),
        ("opcode 3", &[], &[0x83], Cause::Protocol(E::ReservedOpcode(3))),
        ("a fragmented Ping", &[], &[0x09], Cause::Protocol(E::FragmentedControl)),
        ("a long Ping", &[], &[0x89, 0xfe], Cause::Protocol(E::ControlTooLong)),
        ("a long Close in a message", fragment, &[0x88, 0xff], Cause::Protocol(E::ControlTooLong)),
        ("nothing to continue", &[], &[0x80], Cause::Protocol(E::UnexpectedContinuation)),
        ("a new message in another", fragment, &[0x81], Cause::Protocol(E::ExpectedContinuation)),
        ("a fragment too many", &[fragment, &[0, 0x80, 0, 0, 0, 0]].concat(), &[0x00], too_big(2)),
        ("5 in 16 bits", &[], &[0x82, 0xfe, 0, 5], Cause::Protocol(E::NonMinimalLength)),
        ("5 in 64 bits", &[], &[0x82, 0xff, 0, 0, 0, 0, 0, 0], Cause::Protocol(E::NonMinimalLength)),
        ("the top bit of a length", &[], &[0x82, 0xff, 0x80], Cause::Protocol(E::LengthTopBit)),
        ("2^56 bytes and more", &[], &[0x82, 0xff, 0x01], too_big(1000)),
        ("1,024 bytes", &[], &[0x82, 0xfe, 0x04], too_big(1000)),
        ("1,001 bytes", &[], &[0x82, 0xfe, 0x03, 0xe9], too_big(1000)),
    ];
    for (name, before, bytes, cause) in rows {
        let open = || {
            let mut config = Config::default();
            (config.connection.max_payload, config.connection.max_fragments) = (1000, 2);
            let mut session = Session::open(config, Keeper::default());
            session.read(before);
            session
        };
        let mut session = open();
        for byte in *bytes {
            assert_eq!(session.handler().closed, None, "{name}: not before its last byte");
            session.read(&[*byte]);
        }
        let closed = session.handler().closed.as_ref().unwrap_or_else(|| panic!("{name}"));
        assert_eq!(closed.cause, *cause, "{name}");
        // The same in one read, and whatever comes behind it.
        for rest in [[0; 20], [0xff; 20]] {
            let mut session = open();
            session.read(&[bytes, rest.as_slice()].concat());
            let closed = session.handler().closed.as_ref().unwrap_or_else(|| panic!("{name}"));
            assert_eq!(closed.cause, *cause, "{name}, in one read");
        }
    }
}

/// A message that is not fragmented failed where the end of a read cut it, and passed where none did.
#[test]
fn a_limit_on_fragments_concerns_fragments_only() {
    for cut in 0..8 {
        let mut config = Config::default();
        config.connection.max_fragments = 0;
        let mut session = Session::open(config, Keeper::default());
        let message = frame(TEXT, b"hi");
        let (start, rest) = message.split_at(cut);
        session.read(start);
        session.read(rest);
        assert_eq!((session.handler().heard, session.handler().closed.is_none()), (1, true), "cut at {cut}");
    }
}

// Paths.

/// A quiet connection kept a path of up to 15 KB, as its peer chose.
#[test]
fn a_path_that_is_too_long_is_seen_and_not_kept() {
    for (length, kept) in [(1, true), (14, true), (15, true), (256, true), (257, false), (15_000, false)] {
        let path = format!("/{}", "x".repeat(length - 1));
        let request = REQUEST.strip_prefix(b"GET /").expect("its beginning");
        let mut session = Session::new(Config::default(), Keeper::default());
        session.read(&[b"GET ", path.as_bytes(), request].concat());
        session.take_written();
        assert_eq!(session.handler().path, path, "the application sees it whole");
        let id = session.handler().id.expect("it is open");
        session.act(|clients, _| {
            let client = clients.get(id).expect("it is open");
            assert_eq!(client.path(), kept.then_some(path.as_str()), "{length}");
        });
    }
}

// Origins.

fn asked_from(origin: &str) -> (Session<Keeper>, String) {
    let mut config = Config::default();
    config.handshake.origins = Some(Origins::new(["https://example.com"]).expect("an origin"));
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
        ("Origin: https://example.com.evil.net\r\n", "403", Some(HandshakeError::OriginRefused)),
        ("Origin: null\r\n", "403", Some(HandshakeError::OriginRefused)),
        ("", "403", Some(HandshakeError::OriginRefused)),
        (
            "Origin: https://example.com\r\nOrigin: https://example.com\r\n",
            "400",
            Some(HandshakeError::BadRequest),
        ),
    ];
    for (origin, status, failed) in rows {
        let (mut session, answer) = asked_from(origin);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{origin:?}: {answer}");
        assert_eq!(session.handler().failed, failed, "{origin:?}");
        assert_eq!(session.handler().id.is_some(), status == "101", "{origin:?}");
    }
}

// Who is let in: many connections of one loop, whose peers read everything and say no more than they are made to.

struct House {
    driver: Driver<(), Memory>,
    keeper: Keeper,
    accepted: u16,
}

impl House {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        change(&mut config);
        let driver = Driver::new(config, 0, 1, Memory::default());
        Self { driver, keeper: Keeper::default(), accepted: 0 }
    }

    /// One more TCP connection; its slot, if it was let in.
    fn accept(&mut self) -> Option<usize> {
        self.accepted += 1;
        let slot = self.driver.accept(([192, 0, 2, 1], self.accepted).into());
        if let Some(slot) = slot {
            *self.driver.transport().socket(slot) = Socket::default();
        }
        self.turn();
        slot
    }

    /// One more connection that sends this. The state that it is in then; `None` if it was not let in.
    fn connect(&mut self, bytes: &[u8]) -> Option<ReadyState> {
        let before = self.driver.stats();
        let slot = self.accept()?;
        self.driver.transport().socket(slot).input = bytes.to_vec();
        self.driver.begin_turn(&mut self.keeper);
        let readable = Readiness { readable: true, ..Readiness::default() };
        self.driver.ready(slot, readable, &mut self.keeper);
        self.driver.end_turn(&mut self.keeper);
        let open = self.driver.stats().open > before.open;
        Some(if open { ReadyState::Open } else { ReadyState::Closed })
    }

    fn advance(&mut self, by: Duration) {
        self.driver.transport().clock.pass(by);
        self.turn();
    }

    fn turn(&mut self) {
        self.driver.begin_turn(&mut self.keeper);
        self.driver.end_turn(&mut self.keeper);
    }
}

/// Where all places were taken by half-open connections, and the limit on handshakes is higher than that on connections.
#[test]
fn half_open_connections_lock_nobody_out_of_a_small_house() {
    for max_connections in [1, 10, 64] {
        let mut house = House::new(|config| config.event_loop.max_connections = max_connections);
        for _ in 0..200 {
            assert!(house.accept().is_some(), "{max_connections}");
            assert!(house.driver.stats().total() <= max_connections);
        }
        assert_eq!(
            house.keeper.failed,
            Some(HandshakeError::TooManyConnections { limit: ConnectionLimit::Connections })
        );
        for _ in 0..max_connections {
            assert_eq!(house.connect(REQUEST), Some(ReadyState::Open), "{max_connections}");
        }
        assert_eq!(house.accept(), None, "established connections stay");
        assert_eq!(house.driver.stats().open, max_connections);
    }
}

/// Three limits had one cause.
#[test]
fn too_many_connections_names_its_limit() {
    let failed = |limits: fn(&mut Config)| {
        let mut house = House::new(limits);
        house.accept();
        house.accept();
        house.turn();
        house.keeper.failed.expect("one too many")
    };
    let rows: [(fn(&mut Config), _, _); 3] = [
        (|config| config.event_loop.max_connections = 1, ConnectionLimit::Connections, "max_connections"),
        (
            |config| config.event_loop.max_connections_per_address = Some(1),
            ConnectionLimit::PerAddress,
            "max_connections_per_address",
        ),
        (|config| config.event_loop.max_handshakes = Some(1), ConnectionLimit::Handshakes, "max_handshakes"),
    ];
    for (limits, limit, name) in rows {
        let error = failed(limits);
        assert_eq!(error, HandshakeError::TooManyConnections { limit });
        assert_eq!(error.to_string(), format!("too many connections: {name} is reached"));
    }
}

/// 600 bad requests a second, whose senders stay: they linger for `linger_timeout`, so there were 1,200 at any time.
#[test]
fn refused_connections_that_linger_lock_nobody_out() {
    let mut house = House::new(|config| config.event_loop.max_connections = 1000);
    for tick in 0..300 {
        house.advance(Duration::from_millis(10));
        for _ in 0..6 {
            assert_eq!(house.connect(b"GET / HTTP/1.1\r\n\r\n"), Some(ReadyState::Closed), "{tick}");
        }
        assert_eq!(house.connect(REQUEST), Some(ReadyState::Open), "{tick}");
        assert!(house.driver.stats().total() <= 1000);
    }
    let stats = house.driver.stats();
    assert_eq!((stats.open, stats.lingering), (300, 700), "as many of the others as there is room for");
}

/// A refused connection is not one of its address any more.
#[test]
fn refused_connections_lock_nobody_out_of_their_address() {
    let mut house = House::new(|config| config.event_loop.max_connections_per_address = Some(2));
    for _ in 0..10 {
        assert_eq!(house.connect(b"GET / HTTP/1.1\r\n\r\n"), Some(ReadyState::Closed));
    }
    assert_eq!(house.connect(REQUEST), Some(ReadyState::Open));
    assert_eq!(house.connect(REQUEST), Some(ReadyState::Open));
    assert_eq!(house.accept(), None);
    house.advance(Duration::from_secs(3));
    assert_eq!(house.driver.stats().total(), 2, "the refused ones are gone");
    assert_eq!(house.accept(), None, "and were not counted twice");
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
