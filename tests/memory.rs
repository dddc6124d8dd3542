//! What backlogs cost, and that it comes back: allocations are counted, in bytes.
#![expect(unsafe_code, reason = "there is no other way to count allocations")]

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    time::Duration,
};

use adjourn::{
    Clients, Config, ConnectionId, Event, Handler, SendError,
    close::{Cause, CloseReport},
    config::OnTotalOverflow,
    http::{Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    testing::{Clock, Memory, REQUEST, frame},
};

struct Counting;

thread_local! {
    /// Bytes that this thread has allocated and not freed: a test and its loop are one thread.
    static LIVE: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    LIVE.set(LIVE.get() + bytes);
}

// SAFETY: it is `System`, which is called with what it was given.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        count(-layout.size().cast_signed());
        // SAFETY: as above.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

fn live() -> usize {
    LIVE.get().cast_unsigned()
}

/// Keeps who is open, and how the others ended.
#[derive(Default)]
struct App {
    open: Vec<ConnectionId>,
    ended: Vec<CloseReport>,
    drained: Vec<ConnectionId>,
    /// Each message is broadcast to all others.
    relays: bool,
    /// Short messages.
    heard: Vec<String>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Message { id, message, .. } if self.relays => {
                clients.broadcast(message, |client| client.id() != id);
            }
            Event::Open { id } => self.open.push(id),
            Event::Drain { id } => self.drained.push(id),
            Event::Message { message, .. } => self.heard.extend(message.as_text().map(str::to_owned)),
            Event::Close { id, report, .. } => {
                if let Some(at) = self.open.iter().position(|open| *open == id) {
                    self.open.remove(at);
                }
                self.ended.push(*report);
            }
            _ => {}
        }
    }
}

/// A loop in memory. Its peers read nothing unless a test says so.
struct Fleet {
    driver: Driver<(), Memory>,
    app: App,
    clock: Clock,
}

impl Fleet {
    fn new(config: Config) -> Self {
        let clock = Clock::default();
        Self { driver: Driver::new(config, 0, 1, Memory::new(&clock)), app: App::default(), clock }
    }

    /// So many open connections, each of whose kernels takes `room` more bytes.
    fn open(&mut self, connections: usize, room: usize, request: &[u8]) {
        for _ in 0..connections {
            let slot = self.driver.accept(([127, 0, 0, 1], 40_000).into()).expect("there is room");
            let socket = self.driver.transport().socket(slot);
            (socket.input, socket.room) = (request.to_vec(), usize::MAX);
            self.ready(slot, Readiness { readable: true, ..Readiness::default() });
            let socket = self.driver.transport().socket(slot);
            (socket.written, socket.room, socket.input) = (Vec::new(), room, Vec::new());
        }
    }

    fn ready(&mut self, slot: usize, readiness: Readiness) {
        self.driver.begin_turn(&mut self.app);
        self.driver.ready(slot, readiness, &mut self.app);
        self.rest();
    }

    fn rest(&mut self) {
        self.driver.end_turn(&mut self.app);
        while self.driver.has_more() {
            self.driver.begin_turn(&mut self.app);
            self.driver.end_turn(&mut self.app);
        }
    }

    /// What is asked for in one callback, and the turn that does it.
    fn act<T>(&mut self, act: impl FnOnce(&mut Clients<'_, ()>) -> T) -> T {
        let result = self.driver.act(&mut self.app, |clients, _| act(clients));
        self.driver.begin_turn(&mut self.app);
        self.rest();
        result
    }

    fn broadcast(&mut self, message: &[u8]) -> usize {
        self.act(|clients| clients.broadcast(message, |_| true).sent)
    }

    /// The peer of a slot reads what fits into `room`; returns it.
    fn reads(&mut self, slot: usize, room: usize) -> Vec<u8> {
        self.driver.transport().socket(slot).room = room;
        self.ready(slot, Readiness { writable: true, ..Readiness::default() });
        let socket = self.driver.transport().socket(slot);
        socket.room = 0;
        std::mem::take(&mut socket.written)
    }

    fn held(&self) -> usize {
        self.driver.stats().backlog_total
    }
}

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
            // Small and large: copied, frozen when a backlog waits for it, and frozen at once.
            let size = [100, 300, 1000, 200, 10, 400, 700, 5000][usize::from(round) % 8];
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

fn low(n: usize) -> u8 {
    n.to_le_bytes()[0]
}

fn unmasked(first: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("not so long");
    let header = match length {
        0..126 => vec![first, low(payload.len())],
        _ => [&[first, 126][..], &length.to_be_bytes()].concat(),
    };
    [&header, payload].concat()
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

fn capped(total: usize, policy: OnTotalOverflow) -> Fleet {
    let mut config = Config::default();
    config.connection.heartbeat.interval = None;
    (config.event_loop.max_backlog_total, config.event_loop.on_total_overflow) = (Some(total), policy);
    Fleet::new(config)
}

#[test]
fn all_backlogs_together_hold_no_more_than_their_cap_and_count_what_is_shared_once() {
    let mut fleet = capped(100_000, OnTotalOverflow::Refuse);
    fleet.open(20, 0, REQUEST);
    let ids = fleet.app.open.clone();
    let sent = std::iter::repeat_with(|| fleet.broadcast(&[1; 996])).take_while(|sent| *sent == 20).count();
    assert_eq!(sent, 100, "1,000 bytes each, for all of them");
    assert_eq!(fleet.held(), 100_000);
    let told = fleet.act(|clients| clients.broadcast(b"no", |_| true));
    assert_eq!((told.sent, told.refused), (0, 20));
    let refused = Err(SendError::Overflow { queued: 100_000, message: 12, limit: 100_000 });
    assert_eq!(fleet.act(|clients| clients.send(ids[3], &[2; 10])), refused);

    // One that has read everything is refused, too, until the others have.
    assert_eq!(fleet.reads(3, usize::MAX).len(), 100_000);
    assert_eq!(fleet.act(|clients| clients.send(ids[3], &[2; 10])), refused);
    (0..20).for_each(|slot| drop(fleet.reads(slot, usize::MAX)));
    assert_eq!(fleet.held(), 0);
    assert_eq!(fleet.act(|clients| clients.send(ids[3], &[2; 10])), Ok(()));
    assert_eq!(fleet.app.drained.len(), 21, "the one that was refused with nothing queued is told, too");

    // Messages of their own count for each; what waits for the end of the callback counts, too.
    let mut fleet = capped(100_000, OnTotalOverflow::Refuse);
    fleet.open(20, 0, REQUEST);
    let ids = fleet.app.open.clone();
    let sends = |clients: &mut Clients<'_, ()>| {
        ids.iter().filter(|id| clients.send(**id, &[2; 9_996]).is_ok()).count()
    };
    assert_eq!(fleet.act(sends), 10);
    assert_eq!((fleet.act(sends), fleet.held()), (0, 100_000));
}

#[test]
fn the_largest_backlogs_make_room_if_that_is_the_policy() {
    let mut fleet = capped(100_000, OnTotalOverflow::CloseLargest);
    fleet.open(20, 0, REQUEST);
    let ids = fleet.app.open.clone();
    for (id, size) in ids.iter().zip((1..).map(|n| n * 400)) {
        fleet.act(|clients| clients.send(*id, vec![1; size])).expect("84,000 bytes in all");
    }
    assert_eq!(fleet.app.open.len(), 20);
    // An eighth of the cap has to be free when room is made: the one with 16,300 bytes goes.
    assert_eq!(fleet.act(|clients| clients.send(ids[0], &[1; 15_900])), Ok(()));
    assert_eq!(fleet.app.open.len(), 20, "99,900 bytes and headers");
    assert_eq!(fleet.act(|clients| clients.send(ids[1], &[2; 100])), Ok(()));
    assert!(fleet.held() <= 87_604, "{} bytes", fleet.held());
    for _ in 0..2 {
        fleet.clock.pass(Duration::from_mins(1));
        fleet.act(|_| {});
    }
    let slow: Vec<_> = (fleet.app.ended.iter())
        .filter(|report| matches!(report.cause, Cause::Overflow { .. }))
        .map(|report| (report.effective_code(), report.lost.messages))
        .collect();
    assert_eq!(slow, [(1013, 2)], "the largest has two messages");

    // What never fits closes nobody.
    let mut fleet = capped(100_000, OnTotalOverflow::CloseLargest);
    fleet.open(2, 0, REQUEST);
    let ids = fleet.app.open.clone();
    fleet.act(|clients| clients.send(ids[0], vec![1; 50_000])).expect("there is room");
    assert!(matches!(
        fleet.act(|clients| clients.send(ids[1], vec![2; 100_001])),
        Err(SendError::Overflow { .. })
    ));
    assert_eq!((fleet.app.open.len(), fleet.app.ended.len()), (2, 0));
    assert_eq!(fleet.broadcast(&vec![3; 60_000]), 1, "room was made, and one of the two is gone");
}

/// What is in its way is queued for others, so that no write of its own would bring its `Drain`.
#[test]
fn who_is_refused_for_what_others_hold_gets_a_drain_when_there_is_room() {
    let mut fleet = capped(10_000, OnTotalOverflow::Refuse);
    fleet.open(5, 0, REQUEST);
    let ids = fleet.app.open.clone();
    fleet.act(|clients| clients.send(ids[0], vec![0; 8_000])).expect("there is room");
    let sends = |fleet: &mut Fleet, by: usize, size: usize| {
        fleet.driver.transport().socket(by).room = usize::MAX;
        fleet.act(|clients| clients.send(ids[by], vec![1; size])).is_ok()
    };
    // Each is refused; one asks for less after that, one is gone before there is room, and one asks for what never fits.
    assert!(!sends(&mut fleet, 1, 9_000));
    assert!(!sends(&mut fleet, 1, 3_000) && !sends(&mut fleet, 1, 4_000));
    assert!(!sends(&mut fleet, 2, 7_000) && !sends(&mut fleet, 3, 4_000) && !sends(&mut fleet, 4, 10_000));
    fleet.act(|clients| clients.terminate(ids[3]));
    assert_eq!((fleet.app.drained.len(), fleet.driver.has_more()), (0, false));

    // 3,004 bytes of 10,000 are held: there is room for the first alone, and it takes it.
    assert_eq!(fleet.reads(0, 5_000).len(), 5_000);
    assert_eq!(fleet.app.drained, [ids[1]]);
    assert_eq!(fleet.held(), 3_004);
    fleet.driver.transport().socket(1).room = 0;
    fleet.act(|clients| clients.send(ids[1], vec![1; 3_000])).expect("there is room");
    assert_eq!(fleet.held(), 6_008);
    assert_eq!(fleet.app.drained, [ids[1]], "nor for the second, now");
    fleet.act(|clients| clients.terminate(ids[1]));
    assert_eq!(fleet.reads(0, 1_000).len(), 1_000);
    assert_eq!(fleet.app.drained, [ids[1], ids[2]]);
    assert!(sends(&mut fleet, 2, 7_000));
    fleet.reads(0, usize::MAX);
    assert_eq!(fleet.held(), 0);
    // What never fits has nothing to wait for.
    assert_eq!(fleet.app.drained, [ids[1], ids[2], ids[0]]);
}

/// Room for one message is no reason to ask a thousand for theirs.
#[test]
fn room_is_given_to_as_many_as_it_is_enough_for() {
    let mut fleet = capped(10_000, OnTotalOverflow::Refuse);
    fleet.open(101, 0, REQUEST);
    let ids = fleet.app.open.clone();
    fleet.act(|clients| clients.send(ids[0], vec![0; 9_996])).expect("there is room");
    let told = fleet.act(|clients| clients.send_to(ids.iter().skip(1).copied(), [&[1; 996]]));
    assert_eq!((told.sent, told.refused.len()), (0, 100));
    fleet.driver.begin_turn(&mut fleet.app);
    fleet.driver.transport().socket(0).room = 3_500;
    let writable = Readiness { writable: true, ..Readiness::default() };
    fleet.driver.ready(0, writable, &mut fleet.app);
    fleet.driver.end_turn(&mut fleet.app);
    assert!(fleet.driver.has_more() && fleet.app.drained.is_empty(), "it is the next turn's");
    fleet.driver.begin_turn(&mut fleet.app);
    assert_eq!(fleet.app.drained, ids[1..4], "in the order in which they asked");
    fleet.rest();
    assert_eq!(fleet.app.drained.len(), 101 - 1, "they left it to the others");
}

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
