//! permessage-deflate through the sans-IO core: what is compressed, inflated, limited, shared and given back.

use std::{net::SocketAddr, time::Duration};

use adjourn::{
    Clients, CloseFrame, CloseReport, Config, ConnectionId, Event, Handler, Server, ShutdownPlan,
    close::Cause,
    config::Deflate,
    error::ProtocolError,
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Memory, Socket},
    wire::deflate::codec::{Deflater, Inflater},
};

mod broadcasts;
mod properties;

const OFFER: &str = "permessage-deflate; client_max_window_bits";
const LIMIT: usize = 100_000;

/// Echoes, and writes down.
#[derive(Default)]
struct Echo {
    events: Vec<String>,
    closed: Vec<CloseReport>,
    ids: Vec<ConnectionId>,
    /// Pauses a connection at each of its messages.
    pauses: bool,
}

impl Handler for Echo {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => self.ids.push(id),
            Event::Message { id, message, closing } => {
                let kind = if message.is_text() { "Text" } else { "Binary" };
                self.events.push(format!("{kind} {} {closing}", hash(message.as_bytes())));
                let _ = clients.send(id, message);
                if self.pauses {
                    clients.pause(id);
                }
            }
            Event::Close { report: mut closed, .. } => {
                (closed.duration, closed.close_phase) = (Duration::ZERO, Duration::ZERO);
                let mut told = closed.clone();
                // How much of what is in vain had been read by then is a matter of the cuts.
                (told.lost.trailing_bytes, told.lost.inbound_partial_bytes) = (0, 0);
                self.events.push(format!("{told:?}"));
                self.closed.push(*closed);
            }
            other => self.events.push(format!("{other:?}")),
        }
    }
}

fn hash(bytes: &[u8]) -> String {
    let sum = bytes.iter().fold(0_u64, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte) + 1));
    format!("{} bytes {sum:x}", bytes.len())
}

/// A loop in memory.
struct Bench {
    driver: Driver<(), Memory>,
    echo: Echo,
}

impl Bench {
    fn new(deflate: Option<Deflate>) -> Self {
        let mut config = Config::default();
        config.connection.max_payload = LIMIT;
        config.deflate = deflate;
        Self { driver: Driver::new(config, 0, 1, Memory::default()), echo: Echo::default() }
    }

    /// Opens a connection; returns its slot and the head of the answer.
    fn open(&mut self, offer: &str) -> (usize, String) {
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        let slot = self.driver.accept(peer).expect("there is room");
        let offer =
            if offer.is_empty() { String::new() } else { format!("Sec-WebSocket-Extensions: {offer}\r\n") };
        let request = format!(
            "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n{offer}\r\n"
        );
        self.read(slot, request.as_bytes());
        let head = String::from_utf8(self.take(slot)).expect("ASCII");
        (slot, head)
    }

    fn read(&mut self, slot: usize, bytes: &[u8]) {
        self.socket(slot).input.extend_from_slice(bytes);
        self.ready(slot, Readiness { readable: true, ..Readiness::default() });
    }

    fn eof(&mut self, slot: usize) {
        self.socket(slot).eof = true;
        self.ready(slot, Readiness { readable: true, ended: true, ..Readiness::default() });
    }

    /// The kernel takes so many bytes from now on.
    fn make_room(&mut self, slot: usize, room: usize) {
        self.socket(slot).room = room;
        self.ready(slot, Readiness { writable: true, ..Readiness::default() });
    }

    fn ready(&mut self, slot: usize, readiness: Readiness) {
        self.driver.begin_turn(&mut self.echo);
        self.driver.ready(slot, readiness, &mut self.echo);
        self.rest();
    }

    fn act<T>(&mut self, act: impl FnOnce(&mut Clients<'_, ()>) -> T) -> T {
        self.driver.begin_turn(&mut self.echo);
        let result = self.driver.act(&mut self.echo, |clients, _| act(clients));
        self.rest();
        result
    }

    fn rest(&mut self) {
        self.driver.end_turn(&mut self.echo);
        while self.driver.has_more() {
            self.driver.begin_turn(&mut self.echo);
            self.driver.end_turn(&mut self.echo);
        }
    }

    fn socket(&mut self, slot: usize) -> &mut Socket {
        self.driver.transport().socket(slot)
    }

    fn take(&mut self, slot: usize) -> Vec<u8> {
        std::mem::take(&mut self.socket(slot).written)
    }

    /// The frames that were sent since the last time.
    fn frames(&mut self, slot: usize) -> Vec<Frame> {
        let bytes = self.take(slot);
        let mut rest = bytes.as_slice();
        let mut frames = Vec::new();
        while !rest.is_empty() {
            let (frame, after) = Frame::parse(rest).expect("whole frames");
            frames.push(frame);
            rest = after;
        }
        frames
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Frame {
    first: u8,
    payload: Vec<u8>,
}

impl Frame {
    fn parse(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let (length, header) = match *bytes.get(1)? {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?, 10),
            length => (usize::from(length), 2),
        };
        let payload = bytes.get(header..header + length)?.to_vec();
        Some((Self { first: bytes[0], payload }, &bytes[header + length..]))
    }
}

/// A client's frame.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let key = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match u16::try_from(payload.len()) {
        Ok(n @ 0..=125) => out.push(0x80 | n.to_le_bytes()[0]),
        Ok(n) => {
            out.push(0xFE);
            out.extend_from_slice(&n.to_be_bytes());
        }
        Err(_) => {
            out.push(0xFF);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// One side's codec, as the parameters say.
struct Peer {
    deflater: Deflater,
    inflater: Inflater,
    sends_keeping: bool,
    receives_keeping: bool,
}

impl Peer {
    fn of(head: &str) -> Self {
        let bits = head
            .split("client_max_window_bits=")
            .nth(1)
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok());
        Self {
            deflater: Deflater::new(bits.unwrap_or(15), 6),
            inflater: Inflater::default(),
            sends_keeping: !head.contains("client_no_context_takeover"),
            receives_keeping: !head.contains("server_no_context_takeover"),
        }
    }

    /// A message in frames cut at these places; not compressed if that makes it larger.
    fn message(&mut self, opcode: u8, payload: &[u8], cuts: &[usize]) -> Vec<u8> {
        let mut packed = Vec::new();
        let compressed = self.deflater.message(payload, &mut packed);
        if !self.sends_keeping {
            self.deflater.reset();
        }
        let bytes = if compressed { packed.as_slice() } else { payload };
        fragments(opcode | if compressed { 0x40 } else { 0 }, bytes, cuts)
    }

    fn inflate(&mut self, frame: &Frame) -> Vec<u8> {
        if frame.first & 0x40 == 0 {
            return frame.payload.clone();
        }
        let mut out = Vec::new();
        self.inflater.feed(&frame.payload, &mut out, usize::MAX - 1).expect("valid");
        self.inflater.finish(self.receives_keeping, &mut out, usize::MAX - 1).expect("whole");
        out
    }
}

fn fragments(first: u8, bytes: &[u8], cuts: &[usize]) -> Vec<u8> {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).chain([0, bytes.len()]).collect();
    cuts.sort_unstable();
    let last = cuts.len() - 2;
    let pieces = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).enumerate();
    pieces
        .flat_map(|(index, piece)| {
            let opcode = if index == 0 { first } else { 0 };
            frame(opcode | if index == last { 0x80 } else { 0 }, piece)
        })
        .collect()
}

fn settings(server_keeps: bool, client_keeps: bool) -> Deflate {
    let mut deflate = Deflate::default();
    deflate.threshold = 20;
    deflate.server_no_context_takeover = !server_keeps;
    deflate.client_no_context_takeover = !client_keeps;
    deflate
}

fn deflated(payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    assert!(Deflater::new(15, 6).message(payload, &mut out), "smaller");
    out
}

#[test]
fn a_message_below_the_threshold_goes_as_it_is() {
    let mut deflate = Deflate::default();
    deflate.threshold = 100;
    let mut bench = Bench::new(Some(deflate));
    let (slot, head) = bench.open(OFFER);
    let mut peer = Peer::of(&head);
    let noise: Vec<u8> = std::iter::repeat_with({
        let mut random = fastrand::Rng::with_seed(1);
        move || random.u8(..)
    })
    .take(500)
    .collect();
    for (payload, compressed) in
        [(vec![b'a'; 99], false), (vec![b'a'; 100], true), (noise, false), (vec![], false)]
    {
        bench.read(slot, &frame(0x82, &payload));
        let frames = bench.frames(slot);
        assert_eq!(frames.len(), 1);
        assert_eq!(frames[0].first, if compressed { 0xC2 } else { 0x82 }, "{} bytes", payload.len());
        assert_eq!(peer.inflate(&frames[0]), payload);
        assert_eq!(frames[0].payload.len() < payload.len(), compressed);
    }
    let agreed =
        bench.driver.clients().iter().next().and_then(|client| client.deflate()).expect("negotiated");
    assert!(head.contains(&agreed.to_string()), "{head}: {agreed}");
}

#[test]
fn nothing_is_negotiated_that_was_not_asked_for_on_both_sides() {
    for (deflate, offer) in [(None, OFFER), (Some(Deflate::default()), ""), (None, "")] {
        let mut bench = Bench::new(deflate);
        let (slot, head) = bench.open(offer);
        assert!(!head.contains("Sec-WebSocket-Extensions"), "{head}");
        assert_eq!(bench.driver.clients().iter().next().and_then(|client| client.deflate()), None);
        bench.read(slot, &frame(0xC1, &deflated(&[b'a'; 50])));
        assert_eq!(bench.echo.closed[0].cause, Cause::Protocol(ProtocolError::ReservedBits));
    }
}

#[test]
fn rsv1_is_for_the_first_frame_of_a_message() {
    let packed = deflated(&[b'a'; 200]);
    let (first, second) = packed.split_at(4);
    let rows: &[(&str, Vec<u8>, Option<u16>)] = &[
        ("a whole message", frame(0xC1, &packed), None),
        ("two fragments", [frame(0x41, first), frame(0x80, second)].concat(), None),
        ("an empty last fragment", [frame(0x41, &packed), frame(0x80, b"")].concat(), None),
        ("an empty first fragment", [frame(0x41, b""), frame(0x80, &packed)].concat(), None),
        ("an empty compressed message", frame(0xC1, b""), None),
        ("another empty one", frame(0xC1, b"\0"), None),
        ("a Ping between", [frame(0x41, first), frame(0x89, b""), frame(0x80, second)].concat(), None),
        ("a continuation", [frame(0x41, first), frame(0xC0, second)].concat(), Some(1002)),
        ("a continuation of a plain message", [frame(0x01, b"a"), frame(0xC0, b"b")].concat(), Some(1002)),
        ("a Ping", frame(0xC9, b""), Some(1002)),
        ("a Pong", frame(0xCA, b""), Some(1002)),
        ("a Close", frame(0xC8, b""), Some(1002)),
        ("RSV2 as well", frame(0xE1, &packed), Some(1002)),
        ("no DEFLATE data", frame(0xC2, &[0xFF; 20]), Some(1007)),
        ("half a message", frame(0xC2, first), Some(1007)),
        ("text that is not UTF-8", frame(0xC1, &deflated(&[0xFF; 50])), Some(1007)),
        (
            "text that ends inside a character",
            frame(0xC1, &deflated("ü".repeat(30).as_bytes().split_last().expect("some").1)),
            Some(1007),
        ),
        ("too much", frame(0xC2, &deflated(&vec![0; LIMIT + 1])), Some(1009)),
        ("just not too much", frame(0xC2, &deflated(&vec![0; LIMIT])), None),
        (
            "bad text before too much",
            frame(0xC1, &deflated(&[vec![b'a'; 10], vec![0xFF; 2 * LIMIT]].concat())),
            Some(1007),
        ),
        (
            "bad text behind too much",
            frame(0xC1, &deflated(&[vec![b'a'; LIMIT + 1], vec![0xFF; 9]].concat())),
            Some(1009),
        ),
        (
            "announced to be too much even compressed",
            frame(0x42, &[0, 0, 0, 0xFF, 0xFF])
                .into_iter()
                .chain([0x80, 0xFF, 0, 0, 0, 0, 0, 2, 0, 0, 1, 2, 3, 4])
                .collect(),
            Some(1009),
        ),
        ("compressed to more than it was", frame(0xC2, &stored(LIMIT)), None),
    ];
    for (server_keeps, client_keeps) in [(false, false), (true, true)] {
        for (name, bytes, expected) in rows {
            // All at once, and byte by byte.
            for step in [bytes.len(), 1, 4096] {
                if step == 1 && bytes.len() > 10_000 {
                    continue;
                }
                let mut bench = Bench::new(Some(settings(server_keeps, client_keeps)));
                let (slot, _) = bench.open(OFFER);
                for piece in bytes.chunks(step) {
                    bench.read(slot, piece);
                }
                let close = bench.frames(slot).into_iter().find(|frame| frame.first == 0x88);
                let code = close.map(|frame| u16::from_be_bytes([frame.payload[0], frame.payload[1]]));
                assert_eq!(code, *expected, "{name}, by {step}");
            }
        }
    }
}

/// DEFLATE data that is larger than what it holds.
fn stored(length: usize) -> Vec<u8> {
    let blocks = vec![7; length];
    let mut out: Vec<u8> = blocks
        .chunks(2000)
        .flat_map(|block| {
            let length = u16::try_from(block.len()).expect("short");
            [&[0][..], &length.to_le_bytes(), &(!length).to_le_bytes(), block].concat()
        })
        .collect();
    out.push(0);
    assert!(out.len() > length);
    out
}

/// Text that can be compressed, and better with what came before.
fn prices(round: usize, length: usize) -> String {
    let words = (0..=length / 3).map(|n| format!("{}, ", n * 7919 % 1000));
    format!("{round}: {}", words.collect::<String>()).chars().take(length).collect()
}

/// A connection's own compressor looks back no further than it is told to, whatever was agreed on.
#[test]
fn a_kept_window_is_as_large_as_its_setting() {
    let mut random = fastrand::Rng::with_seed(1);
    let text: Vec<u8> =
        std::iter::repeat_with(|| random.alphanumeric()).map(|c| c as u8).take(5000).collect();
    for (bits, offer, refers) in [
        (12, OFFER, false),
        (13, OFFER, true),
        (15, "permessage-deflate; server_max_window_bits=12", false),
        (15, "permessage-deflate; server_max_window_bits=13", true),
    ] {
        let mut deflate = settings(true, true);
        deflate.takeover_window_bits = bits;
        let mut bench = Bench::new(Some(deflate));
        let (slot, head) = bench.open(offer);
        let mut peer = Peer::of(&head);
        for again in [false, true] {
            bench.read(slot, &frame(0x82, &text));
            let frames = bench.frames(slot);
            assert_eq!(frames[0].payload.len() < 1000, again && refers, "{bits} bits, {offer}");
            assert_eq!(peer.inflate(&frames[0]), text);
        }
    }
}

/// Whatever the kernel takes: what was accepted is what was handed over and what is reported as lost.
#[test]
fn a_cut_at_every_byte_is_accounted_for() {
    let lengths = [30, 5, 400, 40_000, 0, 700];
    let messages: Vec<_> = (0..).zip(lengths).map(|(n, length)| prices(n, length)).collect();
    for keeping in [false, true] {
        let mut total = usize::MAX;
        let mut room = 0;
        while room <= total {
            let mut bench = Bench::new(Some(settings(keeping, keeping)));
            let (slot, head) = bench.open(OFFER);
            let mut peer = Peer::of(&head);
            let id = bench.echo.ids[0];
            bench.make_room(slot, room);
            let mut buffered = 0;
            for message in &messages {
                buffered = bench.act(|clients| {
                    clients.send(id, message).expect("there is room");
                    clients.get(id).expect("it is open").buffered_amount()
                });
            }
            bench.act(|clients| clients.terminate(id));
            let written = bench.take(slot);
            let mut rest = written.as_slice();
            let mut whole = 0;
            while let Some((frame, after)) = Frame::parse(rest) {
                assert_eq!(peer.inflate(&frame), messages[whole].as_bytes());
                (whole, rest) = (whole + 1, after);
            }
            let lost = bench.echo.closed[0].lost;
            assert_eq!(
                whole as u64 + lost.messages + lost.partial,
                messages.len() as u64,
                "{room}: {lost:?}"
            );
            assert_eq!(lost.partial, u64::from(!rest.is_empty()));
            if room == 0 {
                assert!(lost.bytes < 20_000, "compressed: {lost:?}");
                total = buffered + written.len();
            }
            // Every byte of the small ones, and some of the large one.
            room += if room > 600 && room + 800 < total { 97 } else { 1 };
        }
    }
}

#[test]
fn a_kick_that_drops_what_is_queued_does_not_refer_to_it() {
    for keeping in [false, true] {
        for room in [0, 40, 300] {
            let mut bench = Bench::new(Some(settings(keeping, keeping)));
            let (slot, head) = bench.open(OFFER);
            let mut peer = Peer::of(&head);
            let id = bench.echo.ids[0];
            bench.make_room(slot, room);
            bench.act(|clients| {
                for n in 0..60 {
                    clients.send(id, prices(n, 500)).expect("there is room");
                }
            });
            bench.act(|clients| clients.kick_now(id, prices(0, 500), CloseFrame::GOING_AWAY));
            bench.make_room(slot, usize::MAX);
            let mut frames = bench.frames(slot);
            assert_eq!(frames.pop().map(|frame| frame.first), Some(0x88));
            assert!(!frames.is_empty() && frames.len() < 60);
            let last = frames.len() - 1;
            for (n, frame) in frames.into_iter().enumerate() {
                assert_eq!(frame.first, 0xC1);
                let expected = prices(if n == last { 0 } else { n }, 500);
                assert_eq!(peer.inflate(&frame), expected.as_bytes());
            }
        }
    }
}

#[test]
fn messages_that_come_during_our_closing_are_inflated() {
    let mut bench = Bench::new(Some(settings(true, true)));
    let (slot, head) = bench.open(OFFER);
    let mut peer = Peer::of(&head);
    let id = bench.echo.ids[0];
    let message = prices(1, 300);
    bench.read(slot, &peer.message(1, message.as_bytes(), &[]));
    bench.act(|clients| clients.close(id, CloseFrame::NORMAL));
    bench.read(slot, &peer.message(1, message.as_bytes(), &[2, 7]));
    let expected = format!("Text {} true", hash(message.as_bytes()));
    assert_eq!(bench.echo.events.iter().filter(|event| **event == expected).count(), 1);
    // What lies behind a pause is counted instead.
    let (slot, head) = bench.open(OFFER);
    let mut peer = Peer::of(&head);
    let id = bench.echo.ids[1];
    bench.echo.pauses = true;
    let messages = [vec![], vec![], vec![3]].map(|cuts| peer.message(1, message.as_bytes(), &cuts));
    bench.read(slot, &messages.concat());
    bench.act(|clients| clients.terminate(id));
    let lost = bench.echo.closed[0].lost;
    assert_eq!((lost.inbound_messages, lost.inbound_bytes), (2, 600), "{lost:?}");
}

/// Both roles on one loop, over real sockets: what the client sends comes back.
#[test]
fn the_client_role_compresses_too() {
    for (server_keeps, client_keeps) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut config = Config::default();
        config.deflate = Some(settings(server_keeps, client_keeps));
        let mut server = Server::bind("127.0.0.1:0", config).expect("a port is free");
        let url = format!("ws://{}/", server.local_addr().expect("it listens"));
        let client = server.connect(ConnectRequest::new(&url).expect("a URL"), ()).expect("there is room");
        let (mut round, mut agreed) = (0, Vec::new());
        let message = |round: usize| prices(round, [10, 500, 500, 70_000, 30_000][round]);
        let run = server.run(|clients, event| match event {
            Event::Open { id } => {
                agreed.push(clients.get(id).and_then(|client| client.deflate()).expect("negotiated"));
                if id == client {
                    clients.send(id, message(0)).expect("open");
                }
            }
            Event::Message { id, message: echo, .. } if id == client => {
                assert_eq!(echo.as_text(), Some(message(round).as_str()));
                round += 1;
                if round == 5 {
                    clients.close(id, CloseFrame::NORMAL);
                } else {
                    // A broadcast is the same for one, but for its mask.
                    let sent = clients.broadcast(message(round), |other| other.id() == id);
                    assert_eq!(sent.sent, 1);
                }
            }
            Event::Message { id, message, .. } => clients.send(id, message).expect("open"),
            Event::Close { id, report: closed } if id == client => {
                assert!(closed.was_clean(), "{closed:?}");
                clients.shutdown(ShutdownPlan::hard());
            }
            Event::HandshakeFailed { error: cause, .. } => panic!("{cause:?}"),
            _ => {}
        });
        run.expect("the poll works");
        assert_eq!(round, 5);
        assert_eq!(agreed.len(), 2);
        assert_eq!(agreed[0], agreed[1], "both sides agree");
        assert_eq!(agreed[0].server_no_context_takeover, !server_keeps);
        assert_eq!(agreed[0].client_no_context_takeover, !client_keeps);
    }
}
