//! After a peak: what the loop, the allocator and the compressors give back, and the buffers that are kept on purpose.

use adjourn::{
    Config,
    hub::Readiness,
    testing::{REQUEST, frame},
};

use crate::{App, Fleet, live, low};

/// Slots, deadlines and queues are those of the connections that are left, not of those that were.
#[test]
fn the_room_of_a_crowd_is_given_back() {
    let mut fleet = Fleet::new(Config::default());
    fleet.open(10, usize::MAX, REQUEST);
    let before = live();
    for _ in 0..2 {
        fleet.open(5_000, usize::MAX, REQUEST);
        let peak = live() - before;
        assert!(peak > 500_000, "{peak} bytes");
        for id in fleet.app.open.split_off(10) {
            fleet.act(|clients| clients.terminate(id));
        }
        assert_eq!(fleet.driver.stats().total(), 10);
        fleet.app = App { open: std::mem::take(&mut fleet.app.open), ..App::default() };
        fleet.app.open.shrink_to_fit();
        let sockets = &mut fleet.driver.transport().sockets;
        sockets.truncate(10);
        sockets.shrink_to_fit();
        let left = live().saturating_sub(before);
        assert!(left < 10_000, "{left} bytes are left");
    }
}

/// Bytes of the process that are in memory: what an allocator keeps counts, too.
#[cfg(target_os = "linux")]
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("it has this line");
    let kib: usize = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// Each is behind by messages of its own, and small things are allocated in between and stay. When the readers are gone, so is
/// what they were behind by, the second time, too.
#[cfg(target_os = "linux")]
#[test]
fn what_slow_readers_were_behind_by_goes_back_to_the_system() {
    const MIB: usize = 1 << 20;
    let mut fleet = Fleet::new(Config::default());
    let mut small = Vec::new();
    for _ in 0..3 {
        fleet.open(50, 0, REQUEST);
        let (before, ids) = (resident(), fleet.app.open.clone());
        for n in 0..2_000 {
            small.push(vec![0_u8; 100]);
            fleet.act(|clients| {
                for id in &ids {
                    clients.send(*id, &[low(n); 1000]).expect("there is room");
                }
            });
        }
        let held = resident() - before;
        assert!((80 * MIB..130 * MIB).contains(&held), "{held} bytes are held of 100,000 messages");
        for id in ids {
            fleet.act(|clients| clients.terminate(id));
        }
        let left = resident().saturating_sub(before);
        assert!(left < 12 * MIB, "{left} bytes are left");
    }
}

/// A compressor is freed when its connection has sent nothing compressed for `release_after`, and not before. A peer that keeps
/// its window inflates what follows, and may itself refer to what it sent before.
#[cfg(feature = "deflate")]
#[test]
fn a_quiet_connection_gives_its_compressor_back() {
    use std::time::Duration;

    const COMPRESSOR: usize = 155_000;
    let mut deflate = adjourn::config::Deflate::default();
    (deflate.server_no_context_takeover, deflate.client_no_context_takeover) = (false, false);
    deflate.release_after = Some(Duration::from_mins(1));
    let mut config = Config::default();
    (config.deflate, config.connection.heartbeat.interval) = (Some(deflate), None);
    let mut fleet = Fleet::new(config);
    let request = str::from_utf8(REQUEST).expect("ASCII").trim_end();
    let request = format!("{request}\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n");
    fleet.open(4, usize::MAX, request.as_bytes());
    let ids = fleet.app.open.clone();
    let mut inflating: Vec<_> = (0..4).map(|_| flate2::Decompress::new(false)).collect();
    // Not similar to itself, so that it is small only beside another one.
    let mut random = fastrand::Rng::with_seed(1);
    let text: String = (0..3000).map(|_| random.alphanumeric()).collect();
    let mut length = |fleet: &mut Fleet, slot: usize| {
        let written = std::mem::take(&mut fleet.driver.transport().socket(slot).written);
        let header = if written[1] < 126 { 2 } else { 4 };
        assert_eq!(written[0], 0xC1, "one text message, compressed");
        let payload = [&written[header..], &[0, 0, 0xFF, 0xFF]].concat();
        let mut message = Vec::with_capacity(4000);
        inflating[slot]
            .decompress_vec(&payload, &mut message, flate2::FlushDecompress::Sync)
            .expect("valid DEFLATE data");
        assert!(message == text.as_bytes(), "{} bytes", message.len());
        written.len()
    };
    let pass = |fleet: &mut Fleet, seconds| {
        fleet.clock.pass(Duration::from_secs(seconds));
        fleet.act(|_| {});
    };
    let before = live();
    let held = || (live() - before) / COMPRESSOR;

    assert_eq!(fleet.act(|clients| clients.broadcast(text.as_str(), |_| true).sent), 4);
    assert!((0..4).all(|slot| length(&mut fleet, slot) > 2000), "the first is as large as it is");
    assert_eq!(held(), 4);
    pass(&mut fleet, 59);
    assert_eq!(held(), 4);
    fleet.act(|clients| clients.send(ids[0], text.as_str())).expect("open");
    assert!(length(&mut fleet, 0) < 100, "it refers to the one before");
    pass(&mut fleet, 1);
    assert_eq!(held(), 1);
    pass(&mut fleet, 58);
    assert_eq!(held(), 1, "it was used 59 seconds ago");
    pass(&mut fleet, 1);
    assert_eq!(held(), 0);
    assert_eq!(fleet.driver.poll_timeout(), None, "nothing else is due");

    // Those that were freed are made again, and freed again.
    for _ in 0..2 {
        assert_eq!(fleet.act(|clients| clients.broadcast(text.as_str(), |_| true).sent), 4);
        assert!((0..4).all(|slot| length(&mut fleet, slot) > 2000), "it refers to nothing");
        fleet.act(|clients| clients.send(ids[3], text.as_str())).expect("open");
        assert!(length(&mut fleet, 3) < 100);
        assert_eq!(held(), 4);
        pass(&mut fleet, 60);
        assert_eq!(held(), 0);
    }

    // The inflater stays.
    for payload in [&[0xf2, 0x48, 0xcd, 0xc9, 0xc9, 0x07, 0x00][..], &[0xf2, 0x00, 0x11, 0x00, 0x00]] {
        let socket = fleet.driver.transport().socket(2);
        socket.input = [&[0xC1, 0x80 | low(payload.len()), 0, 0, 0, 0], payload].concat();
        fleet.ready(2, Readiness { readable: true, ..Readiness::default() });
        pass(&mut fleet, 1000);
    }
    assert_eq!(fleet.app.heard, ["Hello", "Hello"], "the second refers to the first");
}

/// Buffers of large messages serve the next ones, whether they were sent on or only looked at, and no more of them is kept
/// than the setting says.
#[test]
fn buffers_of_large_messages_are_used_again_and_bounded() {
    let mut config = Config::default();
    config.event_loop.buffer_pool = 2 << 20;
    let mut fleet = Fleet::new(config);
    fleet.open(1, usize::MAX, REQUEST);
    let mut receives = |n: usize| {
        fleet.driver.transport().socket(0).input = frame(0x82, &vec![low(n); n]);
        fleet.ready(0, Readiness { readable: true, ..Readiness::default() });
        fleet.driver.transport().socket(0).input = Vec::new();
        live()
    };
    let before = receives(100);
    let kept = receives(1_000_000) - before;
    assert!((1_000_000..(2 << 20) + 10_000).contains(&kept), "{kept} bytes are kept");
    for n in [1_000_000, 600_000, 900_000] {
        let again = receives(n) - before;
        assert!(again <= kept + 1000, "{again} bytes instead of {kept} after one of {n} more");
    }
    let after_the_largest = receives(10_000_000) - before;
    assert!(after_the_largest <= (2 << 20) + 10_000, "{after_the_largest} bytes are kept");
}
