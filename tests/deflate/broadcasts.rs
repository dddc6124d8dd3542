//! Messages that several connections get: compressed once for all who can get the same.

use super::*;

/// Six clients: one without the extension, two that can get the same, one with a window of its own, one with context takeover, and a
/// last one.
fn open_all(bench: &mut Bench, last: &str) -> Vec<(usize, Peer)> {
    let offers = [
        "",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover; server_max_window_bits=9",
        "permessage-deflate",
        last,
    ];
    offers
        .into_iter()
        .map(|offer| {
            let (slot, head) = bench.open(offer);
            (slot, Peer::of(&head))
        })
        .collect()
}

#[test]
fn a_broadcast_is_compressed_once_for_all_who_can_get_the_same() {
    let mut bench = Bench::new(Some(settings(true, true)));
    let mut clients = open_all(&mut bench, "permessage-deflate");
    for (round, length) in [5, 300, 300, 30_000, 90_000].into_iter().enumerate() {
        let text = prices(round, length);
        let sent = bench.act(|clients| clients.broadcast(&text, |_| true));
        assert_eq!((sent.sent, sent.refused), (6, 0));
        let frames: Vec<_> = clients
            .iter_mut()
            .map(|(slot, peer)| {
                let frames = bench.frames(*slot);
                assert_eq!(frames.len(), 1);
                assert_eq!(peer.inflate(&frames[0]), text.as_bytes(), "{length}");
                frames[0].clone()
            })
            .collect();
        let compressed: Vec<_> = frames.iter().map(|frame| frame.first & 0x40 != 0).collect();
        let expected = if length < 20 { [false; 6] } else { [false, true, true, true, true, true] };
        assert_eq!(compressed, expected);
        assert_eq!(frames[1], frames[2], "the same frame");
        if round == 2 {
            assert!(frames[4].payload.len() < frames[1].payload.len(), "refers to the one before");
        }
    }
}

/// Some get both messages by one frame each, some compressed, some with a window of their own, and nobody gets one alone.
#[test]
fn several_messages_to_a_list_are_compressed_once_for_all_who_can_get_the_same() {
    let mut bench = Bench::new(Some(settings(true, true)));
    let mut clients = open_all(&mut bench, "");
    let ids: Vec<_> = bench.act(|clients| clients.iter().map(|client| client.id()).collect());
    for (round, lengths) in [[5, 300], [300, 5], [300, 30_000], [90_000, 300]].into_iter().enumerate() {
        let texts = lengths.map(|length| prices(round, length));
        let sent = bench.act(|clients| clients.send_to(ids.iter().copied(), &texts));
        assert_eq!((sent.sent, sent.refused), (6, vec![]));
        let frames: Vec<_> = clients
            .iter_mut()
            .map(|(slot, peer)| {
                let frames = bench.frames(*slot);
                assert_eq!(frames.len(), 2);
                for (frame, text) in frames.iter().zip(&texts) {
                    assert_eq!(peer.inflate(frame), text.as_bytes());
                }
                frames
            })
            .collect();
        let compressed: Vec<_> = frames
            .iter()
            .map(|frames| frames.iter().filter(|frame| frame.first & 0x40 != 0).count())
            .collect();
        let some = lengths.iter().filter(|length| **length >= 20).count();
        assert_eq!(compressed, [0, some, some, some, some, 0]);
        assert_eq!((&frames[1], &frames[0]), (&frames[2], &frames[5]), "the same frames");
    }
}
