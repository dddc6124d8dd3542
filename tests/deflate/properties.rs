//! What holds for all messages, offers and cuts.

use proptest::prelude::*;

use super::*;

fn any_message() -> impl Strategy<Value = (u8, Vec<u8>)> {
    let words =
        prop::collection::vec(prop::sample::select(vec!["price", "\"id\":", "é", "7", "{}, "]), 0..400)
            .prop_map(|words| (1, words.concat().into_bytes()));
    let noise = prop::collection::vec(any::<u8>(), 0..1000).prop_map(|bytes| (2, bytes));
    let zeros = (0..LIMIT).prop_map(|length| (2, vec![0; length]));
    prop_oneof![4 => words, 2 => noise, 1 => zeros]
}

fn any_offer() -> impl Strategy<Value = String> {
    let bits = |name: &'static str| {
        prop_oneof![Just(String::new()), (8..=15_u8).prop_map(move |bits| format!("; {name}={bits}"))]
    };
    let flag = |name: &'static str| {
        prop::bool::ANY.prop_map(move |on| if on { format!("; {name}") } else { String::new() })
    };
    (
        flag("server_no_context_takeover"),
        flag("client_no_context_takeover"),
        bits("server_max_window_bits"),
        prop_oneof![1 => Just("; client_max_window_bits".to_owned()), 3 => bits("client_max_window_bits")],
    )
        .prop_map(|(a, b, c, d)| format!("permessage-deflate{a}{b}{c}{d}"))
}

/// What a session of these pieces looks like.
fn session(deflate: Deflate, offer: &str, bytes: &[u8], cuts: &[usize]) -> (Vec<String>, Vec<u8>) {
    let mut bench = Bench::new(Some(deflate));
    let (slot, _) = bench.open(offer);
    let mut from = 0;
    for cut in cuts.iter().copied().chain([bytes.len()]) {
        let to = cut.clamp(from, bytes.len());
        if to > from {
            bench.read(slot, &bytes[from..to]);
        }
        from = to;
    }
    bench.eof(slot);
    (std::mem::take(&mut bench.echo.events), bench.take(slot))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(100) })]

    #[test]
    fn messages_come_back_as_they_were(
        (server_keeps, client_keeps, offer) in (any::<bool>(), any::<bool>(), any_offer()),
        messages in prop::collection::vec((any_message(), prop::collection::vec(any::<usize>(), 0..4)), 1..6),
        mut cuts in prop::collection::vec(0..3000_usize, 0..12),
    ) {
        let mut bench = Bench::new(Some(settings(server_keeps, client_keeps)));
        let (slot, head) = bench.open(&offer);
        let mut peer = Peer::of(&head);
        let bytes: Vec<u8> = messages.iter().flat_map(|((opcode, payload), cuts)| peer.message(*opcode, payload, cuts)).collect();
        cuts.sort_unstable();
        let mut from = 0;
        for cut in cuts.into_iter().chain([bytes.len()]) {
            let to = cut.clamp(from, bytes.len());
            if to > from {
                bench.read(slot, &bytes[from..to]);
            }
            from = to;
        }
        let frames = bench.frames(slot);
        prop_assert_eq!(frames.len(), messages.len());
        for (frame, ((opcode, payload), _)) in frames.iter().zip(&messages) {
            prop_assert_eq!(frame.first & 0xBF, 0x80 | opcode);
            let inflated = peer.inflate(frame);
            prop_assert!(&inflated == payload);
        }
    }

    /// One byte wrong, anywhere: the same events and the same bytes, whatever the cuts.
    #[test]
    fn any_split_of_wrong_bytes_gives_the_same_events(
        keeps: bool,
        messages in prop::collection::vec((any_message(), prop::collection::vec(any::<usize>(), 0..4)), 1..4),
        (place, byte) in (any::<prop::sample::Index>(), any::<u8>()),
        mut cuts in prop::collection::vec(0..3000_usize, 0..12),
    ) {
        let mut peer = Peer::of(if keeps { "" } else { "client_no_context_takeover server_no_context_takeover" });
        let mut bytes: Vec<u8> = messages.iter().flat_map(|((opcode, payload), cuts)| peer.message(*opcode, payload, cuts)).collect();
        let place = place.index(bytes.len());
        bytes[place] = byte;
        cuts.sort_unstable();
        let deflate = settings(keeps, keeps);
        prop_assert_eq!(session(deflate, OFFER, &bytes, &[]), session(deflate, OFFER, &bytes, &cuts));
    }
}
