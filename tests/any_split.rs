//! Properties of the sans-IO core: any split of the same bytes gives the same events and the same answer, and no bytes
//! whatsoever make it panic, spin or keep anything.

use adjourn::{
    Clients, Config, Event, Handler,
    http::{Upgrade, UpgradeRequest},
    testing::{REQUEST, Session, describe},
};
use proptest::prelude::*;

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
        self.events.push(describe(&event));
        if let Event::Message { id, message, .. } = event {
            let _ = clients.send(id, message);
        }
    }
}

fn new_session() -> Session<Scribe> {
    let mut config = Config::default();
    config.connection.max_payload = 1000;
    config.handshake.max_head = 2000;
    Session::new(config, Scribe::default())
}

/// What a session of these bytes looks like if they arrive in these pieces.
fn session(bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>) {
    let mut session = new_session();
    let mut from = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let to = cut.clamp(from, bytes.len());
        session.read(&bytes[from..to]);
        from = to;
    }
    session.end();
    let written = session.take_written();
    (std::mem::take(&mut session.handler().events), written)
}

/// A masked frame; `lie` breaks it in one of several ways.
#[expect(clippy::cast_possible_truncation, reason = "the arms say how long the payload is")]
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
            out.push(masked | 0x7e);
            out.extend_from_slice(&(n as u16).to_be_bytes());
        }
        n @ 0..126 => out.push(masked | n as u8),
        n => {
            out.push(masked | 0x7e);
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
        let ends = events.iter().filter(|event| event.starts_with("Close ") || event.starts_with("HandshakeFailed"));
        prop_assert_eq!(ends.count(), 1, "exactly one end: {:?}", events);
    }

    /// A reset at any point does the same.
    #[test]
    fn a_reset_at_any_point_is_reported_once(frames in frames(), at in 0usize..1200) {
        let bytes = [REQUEST, &frames].concat();
        let mut session = new_session();
        session.read(&bytes[..at.min(bytes.len())]);
        session.reset();
        prop_assert!(session.is_gone());
        let events = &session.handler().events;
        let ends = events.iter().filter(|e| e.starts_with("Close ") || e.starts_with("HandshakeFailed"));
        prop_assert_eq!(ends.count(), 1);
    }
}
