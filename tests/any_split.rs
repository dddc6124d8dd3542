//! Properties of the sans-IO core: any split of the same bytes gives the same events and the same answer, and no bytes
//! whatsoever make it panic, spin or keep anything.

use std::{io, net::SocketAddr, time::Duration};

use adjourn::{
    Clients, Config, Event, Handler, Time, Upgrade, UpgradeRequest,
    conn::Cursor,
    hub::{Action, Hub},
};
use proptest::prelude::*;

const REQUEST: &[u8] =
    b"GET /chat?x=1 HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// Writes every event down and echoes messages.
#[derive(Default)]
struct Scribe {
    events: Vec<String>,
}

impl Handler for Scribe {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        self.events.push(format!("upgrade {} {:?}", request.path(), request.query()));
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Message { id, message, closing } => {
                self.events.push(format!("message {:?} {:?} {closing}", message.kind(), message.as_bytes()));
                let _ = clients.send(id, message);
            }
            Event::Close { mut closed, .. } => {
                // How much of what is in vain had been read by then is a matter of the cuts.
                (closed.duration, closed.close_phase) = (Duration::ZERO, Duration::ZERO);
                (closed.lost.trailing_bytes, closed.lost.inbound_partial_bytes) = (0, 0);
                self.events.push(format!("{closed:?}"));
            }
            other => self.events.push(format!("{other:?}")),
        }
    }
}

/// One connection of a hub whose kernel takes everything at once.
struct Bench {
    hub: Hub<()>,
    slot: usize,
    scribe: Scribe,
    written: Vec<u8>,
    fin: bool,
    gone: bool,
    now: Duration,
}

impl Bench {
    fn new() -> Self {
        let mut config = Config::default();
        config.max_payload = 1000;
        config.max_head = 2000;
        let mut hub = Hub::new(config, 0, 1);
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        let slot = hub.accept(peer).expect("there is room");
        let (scribe, written) = (Scribe::default(), Vec::new());
        Self { hub, slot, scribe, written, fin: false, gone: false, now: Duration::ZERO }
    }

    fn read(&mut self, bytes: &[u8]) {
        if self.gone || bytes.is_empty() {
            return;
        }
        self.hub.begin_turn(Time::from_start(self.now));
        let (mut bytes, mut scratch) = (bytes.to_vec(), Vec::new());
        let mut cursor = Cursor::new(&mut bytes, &mut scratch);
        self.hub.handle_readable(self.slot);
        while let Some(event) = self.hub.next(self.slot, &mut cursor, &mut self.scribe) {
            self.scribe.on_event(&mut self.hub.clients(), event);
            self.deliver();
        }
        assert_eq!(cursor.remaining(), 0, "all that was read is dealt with");
        self.settle();
    }

    fn deliver(&mut self) {
        while let Some(event) = self.hub.poll_event() {
            self.scribe.on_event(&mut self.hub.clients(), event);
        }
    }

    fn settle(&mut self) {
        for steps in 0.. {
            assert!(steps < 100, "it spins");
            self.deliver();
            let Some(action) = self.hub.poll_action() else { return };
            match action {
                Action::Write(slot) => {
                    let written = &mut self.written;
                    let done = self.hub.transmit(slot, &mut |slices| {
                        slices.iter().for_each(|slice| written.extend_from_slice(slice));
                        Ok(slices.iter().map(|slice| slice.len()).sum())
                    });
                    done.expect("this kernel takes everything");
                }
                Action::Fin(_) => self.fin = true,
                Action::Abort(slot, _) => self.hub.handle_aborted(slot, None),
                Action::Release(..) => self.gone = true,
                Action::Read(_) | Action::Connect(_) => {}
            }
        }
    }

    /// The peer goes, and time passes until nothing is left.
    fn end(&mut self) {
        if !self.gone {
            self.hub.handle_eof(self.slot);
            self.settle();
        }
        for steps in 0.. {
            let Some(due) = self.hub.poll_timeout() else { break };
            assert!(steps < 10, "it does not end");
            self.now = self.now.max(due.since(Time::ZERO));
            self.hub.begin_turn(due);
            self.hub.handle_timeout();
            self.settle();
        }
        assert!(self.gone, "the slot is free");
        assert_eq!(self.hub.stats().total(), 0);
    }
}

/// What a session of these bytes looks like if they arrive in these pieces.
fn session(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>) {
    let mut bench = Bench::new();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let to = cut.clamp(from, bytes.len());
        bench.read(&bytes[from..to]);
        from = to;
    }
    bench.end();
    (bench.scribe.events, bench.written)
}

/// A masked frame; `lie` breaks it in one of several ways.
fn frame(opcode: u8, fin: bool, payload: &[u8], lie: u8) -> Vec<u8> {
    let mut first = opcode | if fin { 0x80 } else { 0 };
    let mask = [0x37, 0xfa, 0x21, 0x3d];
    let mut masked = 0x80;
    match lie {
        1 => first |= 0x20,
        2 => masked = 0,
        _ => {}
    }
    let mut out = vec![first];
    match payload.len() {
        n @ 0..126 if lie == 3 => {
            out.push(masked | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n @ 0..126 => out.push(masked | n as u8),
        n => {
            out.push(masked | 126);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
    }
    if masked != 0 {
        out.extend_from_slice(&mask);
        out.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, key)| byte ^ key));
    } else {
        out.extend_from_slice(payload);
    }
    out
}

fn frames() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "[a-zäöü€😀]{0,60}".prop_map(String::into_bytes),
        Just(vec![0x03, 0xe8]),
        Just(b"\x03\xe9bye".to_vec()),
    ];
    let opcode = prop_oneof![4 => Just(1u8), 4 => Just(2u8), 3 => Just(0u8), 2 => Just(9u8), 1 => Just(10u8), 1 => Just(8u8), 1 => 0u8..16];
    let lie = prop_oneof![20 => Just(0u8), 1 => 1u8..4];
    prop::collection::vec((opcode, any::<bool>(), payload, lie), 0..12).prop_map(|frames| {
        frames.into_iter().flat_map(|(opcode, fin, payload, lie)| frame(opcode, fin, &payload, lie)).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    #[test]
    fn any_split_of_the_same_bytes_gives_the_same_events(
        frames in frames(),
        mut cuts in prop::collection::vec(0usize..2500, 0..20),
    ) {
        let bytes = [REQUEST, &frames].concat();
        cuts.sort_unstable();
        let (whole, split) = (session(&bytes, &[]), session(&bytes, &cuts));
        prop_assert_eq!(whole.0, split.0, "events");
        prop_assert_eq!(whole.1, split.1, "bytes written");
    }

    #[test]
    fn byte_by_byte_gives_the_same_events(frames in frames()) {
        let bytes = [REQUEST, &frames].concat();
        let every: Vec<_> = (0..bytes.len()).collect();
        prop_assert_eq!(session(&bytes, &[]), session(&bytes, &every));
    }

    /// Stray bytes, before and after the handshake, in any pieces: no panic, no spin, nothing left behind.
    #[test]
    fn stray_bytes_end_in_nothing(
        upgraded in any::<bool>(),
        bytes in prop::collection::vec(any::<u8>(), 0..4000),
        cuts in prop::collection::vec(0usize..4000, 0..6),
    ) {
        let bytes = if upgraded { [REQUEST, &bytes].concat() } else { bytes };
        let mut cuts = cuts;
        cuts.sort_unstable();
        let (events, _) = session(&bytes, &cuts);
        let ends = events.iter().filter(|event| event.starts_with("Closed") || event.starts_with("HandshakeFailed"));
        prop_assert_eq!(ends.count(), 1, "exactly one end: {:?}", events);
    }

    /// A reset at any point does the same.
    #[test]
    fn a_reset_at_any_point_is_reported_once(frames in frames(), at in 0usize..1200) {
        let bytes = [REQUEST, &frames].concat();
        let mut bench = Bench::new();
        bench.read(&bytes[..at.min(bytes.len())]);
        if !bench.gone {
            bench.hub.handle_reset(bench.slot, io::ErrorKind::ConnectionReset);
            bench.settle();
        }
        prop_assert!(bench.gone);
        let ends = bench.scribe.events.iter().filter(|e| e.starts_with("Closed") || e.starts_with("HandshakeFailed"));
        prop_assert_eq!(ends.count(), 1);
    }
}
