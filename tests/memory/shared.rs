//! What several connections wait for is held once.

use std::time::Duration;

use adjourn::{
    Config,
    hub::Readiness,
    testing::{REQUEST, frame},
};

use crate::{Fleet, live, low, unmasked};

/// How one of them may go.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Going {
    /// It reads everything.
    Reads,
    Terminated,
    /// Its socket fails.
    Reset,
    /// It is closed, and takes nothing until all timeouts are over.
    Closed,
    /// It is closed with its queue dropped first.
    Kicked,
}

/// A megabyte for a hundred that do not read is a megabyte, whatever becomes of them.
#[test]
fn slow_readers_of_a_broadcast_share_it_and_it_is_freed_when_they_are_gone() {
    for going in [Going::Reads, Going::Terminated, Going::Reset, Going::Closed, Going::Kicked] {
        let mut config = Config::default();
        config.connection.heartbeat.interval = None;
        config.connection.stall_timeout = None;
        let mut fleet = Fleet::new(config);
        // Every third has begun with a broadcast, whose rest is its first backlog.
        fleet.open(67, 0, REQUEST);
        fleet.open(33, 500, REQUEST);
        let before = live();
        for n in 0..1000_usize {
            assert_eq!(fleet.broadcast(&[low(n); 1000]), 100);
        }
        let (held, shared) = (live() - before, fleet.held());
        assert!((1_004_000..1_100_000).contains(&shared), "{going:?}: {shared} bytes are counted");
        assert!(held < 1_900_000, "{going:?}: {held} bytes are held for a megabyte");
        for id in fleet.app.open.clone() {
            let slot = id.slot();
            match going {
                Going::Reads => {
                    assert_eq!(
                        fleet.act(|clients| clients.get(id).map(|client| client.buffered_amount())),
                        Some(1_004_000 - if slot < 67 { 0 } else { 500 })
                    );
                    let mut read = Vec::new();
                    while read.len() < 1_004_000 - 500 {
                        read.extend(fleet.reads(slot, 77_777));
                    }
                    let expected: Vec<u8> = (0..1000)
                        .flat_map(|n| [&[0x82, 126, 3, 232][..], &[low(n); 1000]].concat())
                        .collect();
                    assert!(expected.ends_with(&read), "slot {slot}");
                }
                Going::Terminated => assert!(fleet.act(|clients| clients.terminate(id))),
                Going::Reset => {
                    fleet.driver.transport().socket(slot).error = Some(std::io::ErrorKind::ConnectionReset);
                    fleet.ready(slot, Readiness { readable: true, writable: true, ended: true });
                }
                Going::Closed => assert!(fleet.act(|clients| clients.close(id, adjourn::CloseFrame::NORMAL))),
                Going::Kicked => {
                    assert!(fleet.act(|clients| clients.kick_now(id, "go", adjourn::CloseFrame::NORMAL)));
                }
            }
        }
        for _ in 0..30 {
            fleet.clock.pass(Duration::from_secs(1));
            fleet.act(|_| {});
        }
        assert_eq!(fleet.held(), 0, "{going:?}");
        if going != Going::Reads {
            assert_eq!(fleet.app.ended.len(), 100, "{going:?}");
            let lost: u64 =
                fleet.app.ended.iter().map(|report| report.lost.messages + report.lost.partial).sum();
            assert_eq!(lost, 100_000 + if going == Going::Kicked { 100 } else { 0 }, "{going:?}");
        }
        fleet.app.ended = Vec::new();
        let left = live().saturating_sub(before);
        assert!(left < 50_000, "{going:?}: {left} bytes are left");
    }
}

/// What one of them gets alone stands where it was sent, between what all get.
#[test]
fn own_messages_keep_their_place_among_shared_ones() {
    for room in [0, 1, 99, 104, 150, 1000, 5000] {
        let mut fleet = Fleet::new(Config::default());
        fleet.open(3, 0, REQUEST);
        let ids = fleet.app.open.clone();
        let mut expected = vec![Vec::new(); 3];
        for round in 0..100_u8 {
            // Small and large: copied, frozen into a block of many frames, into one of its own, and mapped if it waits.
            let size = [100, 300, 1000, 20_000, 10, 400, 700, 5000][usize::from(round) % 8];
            let shared = vec![round; size];
            // At times nobody gets anything alone, and what is shared has gaps for one that was left out.
            let alone = round % 20 >= 10;
            fleet.act(|clients| {
                for (own, id) in (0..).zip(&ids) {
                    if alone && (round + own) % 3 != 0 {
                        clients.send(*id, &[100 + own; 70]).expect("there is room");
                    }
                    if alone && (round + own) % 5 == 0 {
                        clients.ping(*id, b"ping").expect("there is room");
                    }
                }
                clients.broadcast(&shared, |client| client.id().slot() != usize::from(round) % 7);
            });
            for (own, expected) in (0..).zip(&mut expected) {
                if alone && (round + own) % 3 != 0 {
                    expected.extend(unmasked(0x82, &[100 + own; 70]));
                }
                if alone && (round + own) % 5 == 0 {
                    expected.extend(unmasked(0x89, b"ping"));
                }
                if own != round % 7 {
                    expected.extend(unmasked(0x82, &shared));
                }
            }
            for (slot, expected) in expected.iter_mut().enumerate() {
                let read = fleet.reads(slot, room);
                assert!(expected.starts_with(&read), "room {room}, round {round}, slot {slot}");
                expected.drain(..read.len());
            }
        }
        for (slot, expected) in expected.iter().enumerate() {
            assert!(fleet.reads(slot, usize::MAX) == *expected, "room {room}, slot {slot}");
        }
        assert_eq!(fleet.held(), 0);
    }
}

/// By window size: those who agreed on the same get the same bytes.
#[cfg(feature = "deflate")]
#[test]
fn slow_readers_of_a_compressed_broadcast_share_it() {
    let request = |offer: &str| {
        let head = std::str::from_utf8(REQUEST).expect("ASCII").trim_end();
        format!(
            "{head}\r\nSec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover{offer}\r\n\r\n"
        )
    };
    let mut config = Config::default();
    config.deflate = Some(adjourn::config::Deflate::default());
    let mut fleet = Fleet::new(config);
    fleet.open(50, 0, request("").as_bytes());
    fleet.open(50, 0, request("; server_max_window_bits=10").as_bytes());
    let before = live();
    // Not to be compressed to nothing.
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..200 {
        let message: String = std::iter::repeat_with(|| rng.alphabetic()).take(1000).collect();
        assert_eq!(fleet.act(|clients| clients.broadcast(&message, |_| true).sent), 100);
    }
    let (held, shared) = (live() - before, fleet.held());
    assert!(shared < 2 * 200 * 900, "{shared} bytes are counted");
    assert!(held < 1_000_000, "{held} bytes are held");
    let [first, last] = [0, 99].map(|slot| fleet.reads(slot, usize::MAX));
    assert!(first.len() > 100_000 && last.len() > 100_000);
    assert!((1..50).all(|slot| fleet.reads(slot, usize::MAX) == first));
    assert!((50..99).all(|slot| fleet.reads(slot, usize::MAX) == last));
    assert_eq!(fleet.held(), 0);
}

/// Of a large message that is relayed, the first receiver has the buffer that it came in, and the others share a copy.
#[test]
fn a_relayed_message_is_held_twice_at_most_and_reaches_everyone() {
    let message: Vec<u8> = (0..200_003).map(low).collect();
    let length = (message.len() as u64).to_be_bytes();
    let expected = [&[0x82, 127][..], &length, &message].concat();
    for receivers in [1, 2, 5] {
        for room in [0, 3, 70_000, usize::MAX] {
            let mut fleet = Fleet::new(Config::default());
            fleet.app.relays = true;
            fleet.open(1, 0, REQUEST);
            fleet.open(receivers, room, REQUEST);
            fleet.driver.transport().socket(0).input = frame(0x82, &message);
            fleet.ready(0, Readiness { readable: true, ..Readiness::default() });
            let copies = if room == usize::MAX { 0 } else { receivers.min(2) };
            let held = fleet.held();
            assert!(held <= copies * expected.len(), "{receivers} receivers, room {room}: {held} bytes");
            assert_eq!(held > 0, copies > 0, "{receivers} receivers, room {room}");
            let last = fleet.app.open[receivers];
            for slot in 1..=receivers {
                if slot == last.slot() && receivers > 1 && copies > 0 {
                    assert!(fleet.act(|clients| clients.terminate(last)));
                    let lost = fleet.app.ended[0].lost;
                    assert_eq!(lost.messages + lost.partial, 1, "{receivers} receivers, room {room}");
                } else {
                    let mut read = fleet.reads(slot, 77_777);
                    while read.len() < expected.len() {
                        read.extend(fleet.reads(slot, 77_777));
                    }
                    assert!(read == expected, "{receivers} receivers, room {room}, slot {slot}");
                }
            }
            assert_eq!(fleet.held(), 0, "{receivers} receivers, room {room}");
        }
    }
}
