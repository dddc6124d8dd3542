//! Turns of the hub: what a message, a delivery, a connection and a deadline cost, without the kernel's share.

use std::time::Duration;

use adjourn::{
    CloseFrame, Config, ShutdownPlan,
    shutdown::Pace,
    testing::{REQUEST, frame},
};

use crate::{Bench, Round, again, crowd::Crowd};

/// Turns of a round, where a round is of the same turn again and again.
const TIMES: u32 = 100;
const MANY: u32 = 10_000;
const MOST: u32 = 1_000_000;

/// As long as those of browsers are.
const BROWSER: &[u8] = b"GET /chat?room=42 HTTP/1.1\r\nHost: server.example.com\r\nConnection: Upgrade\r\n\
    Pragma: no-cache\r\nCache-Control: no-cache\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n\
    Upgrade: websocket\r\nOrigin: https://www.example.com\r\nSec-WebSocket-Version: 13\r\n\
    Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9,de;q=0.8\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
    Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n";

pub(crate) const BENCHES: &[Bench] = &[
    bench("turn/alone", "message", TIMES, || one_busy(1)),
    bench("turn/1-of-100", "message", TIMES, || one_busy(100)),
    bench("turn/1-of-10000", "message", TIMES, || one_busy(MANY)),
    bench("turn/all-of-100", "message", 100, || all_busy(100)),
    bench("turn/all-of-10000", "message", MANY, || all_busy(MANY)),
    bench("turn/16-in-one-read", "message", TIMES * 16, || repeat(1, REQUEST, &data(0x82, 125).repeat(16))),
    bench("turn/text", "message", TIMES, || repeat(1, REQUEST, &data(0x81, 125))),
    bench("turn/1KiB", "message", TIMES, || repeat(1, REQUEST, &data(0x82, 1 << 10))),
    bench("turn/16KiB", "message", TIMES, || repeat(1, REQUEST, &data(0x82, 16 << 10))),
    bench("turn/two-fragments", "message", TIMES, || {
        repeat(1, REQUEST, &[data(0x02, 60), data(0x80, 65)].concat())
    }),
    bench("turn/cut-in-two-reads", "message", TIMES, cut),
    bench("turn/ping", "ping", TIMES, || repeat(1, REQUEST, &data(0x89, 8))),
    bench("turn/nothing-with-1", "turn", TIMES, || nothing(1)),
    bench("turn/nothing-with-10000", "turn", TIMES, || nothing(MANY)),
    bench("turn/compressed-2KiB", "message", TIMES, compressed),
    bench("broadcast/100", "delivery", 100, || broadcast(100)),
    bench("broadcast/10000", "delivery", MANY, || broadcast(MANY)),
    bench("broadcast/10-of-a-former-10000", "delivery", 10, broadcast_after_a_peak),
    bench("connection/accept-and-upgrade", "connection", TIMES, || join(0, REQUEST)),
    bench("connection/accept-and-upgrade-browser", "connection", TIMES, || join(0, BROWSER)),
    bench("connection/accept-and-upgrade-beside-10000", "connection", TIMES, || join(MANY, REQUEST)),
    bench("connection/closed-by-the-peer", "connection", TIMES, closed_by_the_peer),
    bench("sweep/close-10000", "connection", MANY, close_sweep),
    bench("sweep/terminate-10000", "connection", MANY, terminate_sweep),
    bench("shutdown/10000-answer", "connection", MANY, || shutdown(true)),
    bench("shutdown/10000-do-not", "connection", MANY, || shutdown(false)),
    bench("deadline/10000-heartbeats", "connection", MANY, || heartbeats(MANY)),
    bench("deadline/10000-moved-by-activity", "connection", MANY, moved),
];

/// The same with more and more connections, `what:connections`. A million take a while to make, so only `--scale` counts them.
pub(crate) const SCALE: &[Bench] = &[
    bench("a turn with one message, per message:100", "message", TIMES, || one_busy(100)),
    bench("a turn with one message, per message:10000", "message", TIMES, || one_busy(MANY)),
    bench("a turn with one message, per message:1000000", "message", TIMES, || one_busy(MOST)),
    bench("a turn with nothing to do, per turn:100", "turn", TIMES, || nothing(100)),
    bench("a turn with nothing to do, per turn:10000", "turn", TIMES, || nothing(MANY)),
    bench("a turn with nothing to do, per turn:1000000", "turn", TIMES, || nothing(MOST)),
    bench("a newcomer beside them, per connection:100", "connection", TIMES, || join(100, REQUEST)),
    bench("a newcomer beside them, per connection:10000", "connection", TIMES, || join(MANY, REQUEST)),
    bench("a newcomer beside them, per connection:1000000", "connection", TIMES, || join(MOST, REQUEST)),
    bench("a broadcast, per delivery:100", "delivery", 100, || broadcast(100)),
    bench("a broadcast, per delivery:10000", "delivery", MANY, || broadcast(MANY)),
    bench("a broadcast, per delivery:1000000", "delivery", MOST, || broadcast(MOST)),
    bench("all are due for a Ping, per connection:100", "connection", 100, || heartbeats(100)),
    bench("all are due for a Ping, per connection:10000", "connection", MANY, || heartbeats(MANY)),
    bench("all are due for a Ping, per connection:1000000", "connection", MOST, || heartbeats(MOST)),
];

const fn bench(name: &'static str, unit: &'static str, units: u32, prepare: fn() -> Round) -> Bench {
    Bench { name, unit, units, prepare }
}

/// A client's frame. Its bytes are unmasked where they lie, so every other time the payload is what would be on the wire,
/// and in between it is what that stands for. The mask changes only bits that keep letters ASCII.
fn data(first: u8, length: usize) -> Vec<u8> {
    const KEY: [u8; 4] = [1, 2, 3, 1];
    let mut bytes = frame(first, &vec![b'a'; length]);
    let at = bytes.len() - length;
    bytes[at - 4..at].copy_from_slice(&KEY);
    bytes[at..].fill(b'p');
    bytes
}

/// A round of turns in which the last of `n` connections gets the same bytes.
fn repeat(n: u32, request: &[u8], bytes: &[u8]) -> Round {
    let (mut crowd, bytes) = (Crowd::open(Config::default(), n, request), bytes.to_vec());
    again(move || {
        let before = crowd.kernel().written;
        for _ in 0..TIMES {
            crowd.turn(n as usize - 1, &bytes);
        }
        assert!(crowd.kernel().written > before, "there are answers");
    })
}

fn one_busy(n: u32) -> Round {
    repeat(n, REQUEST, &data(0x82, 125))
}

fn all_busy(n: u32) -> Round {
    let mut config = Config::default();
    // One turn for all, so that no instruction of a second one is among them.
    (config.event_loop.turn_callbacks, config.event_loop.turn_bytes) = (u32::MAX, usize::MAX);
    let (mut crowd, bytes) = (Crowd::open(config, n, REQUEST), data(0x82, 125));
    again(move || {
        let before = crowd.kernel().written;
        crowd.begin();
        for slot in 0..n as usize {
            crowd.read(slot, &bytes);
        }
        crowd.end();
        assert_eq!(crowd.kernel().written - before, 127 * u64::from(n), "all have got their answers");
    })
}

fn cut() -> Round {
    let (mut crowd, mut bytes) = (Crowd::open(Config::default(), 1, REQUEST), data(0x82, 125));
    again(move || {
        for _ in 0..TIMES {
            let (first, second) = bytes.split_at_mut(70);
            crowd.turn(0, first);
            crowd.turn(0, second);
        }
    })
}

fn nothing(n: u32) -> Round {
    let mut crowd = Crowd::open(Config::default(), n, REQUEST);
    again(move || {
        for _ in 0..TIMES {
            crowd.begin();
            crowd.end();
        }
    })
}

fn compressed() -> Round {
    use adjourn::wire::deflate::codec::Deflater;

    let items: Vec<String> = (0..40)
        .map(|n| format!(r#"{{"id":{n},"name":"item {}","price":{}}}"#, n * n, n * 17 % 101))
        .collect();
    let text = items.join(",");
    let mut packed = Vec::new();
    assert!(Deflater::new(15, 6).message(text.as_bytes(), &mut packed), "it gets smaller");
    // Masked with zeros: what compresses would not, after it was unmasked twice.
    let mut bytes = data(0xc1, packed.len());
    let at = bytes.len() - packed.len();
    bytes[at - 4..at].fill(0);
    bytes[at..].copy_from_slice(&packed);

    let mut config = Config::default();
    config.deflate = Some(adjourn::config::Deflate::default());
    let head = REQUEST.strip_suffix(b"\r\n").expect("an empty line ends it");
    let request = [head, b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"].concat();
    let mut crowd = Crowd::open(config, 1, &request);
    again(move || {
        let before = crowd.kernel().written;
        for _ in 0..TIMES {
            crowd.turn(0, &bytes);
        }
        let each = (crowd.kernel().written - before) / u64::from(TIMES);
        assert!(each > 100 && each < text.len() as u64, "the answers are compressed: {each} bytes");
    })
}

/// A message for everybody, and the writes.
fn broadcast(n: u32) -> Round {
    let mut crowd = Crowd::open(Config::default(), n, REQUEST);
    again(move || {
        crowd.begin();
        let done = crowd.driver.clients().broadcast(&[b'a'; 125], |_| true);
        assert_eq!(done.sent, n as usize, "it is for all");
        crowd.end();
    })
}

/// A message for the few that are left of a crowd.
fn broadcast_after_a_peak() -> Round {
    let mut crowd = Crowd::open(Config::default(), MANY, REQUEST);
    crowd.driver.clients().terminate_where(|client| client.id().slot() % 1000 != 999);
    crowd.rest();
    assert_eq!(crowd.driver.stats().total(), 10, "ten are left");
    again(move || {
        crowd.begin();
        let done = crowd.driver.clients().broadcast(&[b'a'; 125], |_| true);
        assert_eq!(done.sent, 10, "it is for all");
        crowd.end();
    })
}

/// Connections come to a hub that has room for them already.
fn join(beside: u32, request: &[u8]) -> Round {
    let mut crowd = Crowd::open(Config::default(), beside + TIMES, REQUEST);
    crowd.driver.clients().terminate_where(move |client| client.id().slot() >= beside as usize);
    crowd.rest();
    assert_eq!(crowd.driver.stats().total(), beside as usize, "there is room now");
    let mut requests = vec![request.to_vec(); TIMES as usize];
    Box::new(move || {
        for request in &mut requests {
            crowd.join(request);
        }
    })
}

/// A Close of the peer, its answer, the end of the stream, and the report.
fn closed_by_the_peer() -> Round {
    let mut crowd = Crowd::open(Config::default(), 2 * TIMES, REQUEST);
    let mut close = frame(0x88, &1000_u16.to_be_bytes());
    let key = close.len() - 6;
    close[key..].copy_from_slice(&[0, 0, 0, 0, 0x03, 0xe8]);
    let mut slots = (0..2 * TIMES as usize).rev();
    again(move || {
        let before = crowd.driver.stats().total();
        for slot in slots.by_ref().take(TIMES as usize) {
            crowd.turn(slot, &close);
            crowd.end_of(slot);
        }
        assert_eq!(before - crowd.driver.stats().total(), TIMES as usize, "all are gone");
    })
}

/// The Close frames of a sweep, until all are written.
fn close_sweep() -> Round {
    let mut crowd = Crowd::open(Config::default(), MANY, REQUEST);
    Box::new(move || {
        crowd.driver.clients().close_where(CloseFrame::GOING_AWAY, Pace::AtOnce, |_| true);
        crowd.rest();
        assert_eq!(crowd.driver.stats().closing, MANY as usize, "each has got a Close");
    })
}

fn terminate_sweep() -> Round {
    let mut crowd = Crowd::open(Config::default(), MANY, REQUEST);
    Box::new(move || {
        crowd.driver.clients().terminate_where(|_| true);
        crowd.rest();
        assert_eq!(crowd.driver.stats().total(), 0, "all are gone");
    })
}

/// A whole shutdown, to its report: the peers answer and send FIN, or do nothing until they are aborted.
fn shutdown(answer: bool) -> Round {
    let mut crowd = Crowd::open(Config::default(), MANY, REQUEST);
    let mut close = frame(0x88, &1001_u16.to_be_bytes());
    let key = close.len() - 6;
    close[key..].copy_from_slice(&[0, 0, 0, 0, 0x03, 0xe9]);
    Box::new(move || {
        crowd.begin();
        crowd.driver.clients().shutdown(ShutdownPlan::soft(Duration::from_secs(5)));
        crowd.driver.take_requests();
        crowd.rest();
        if answer {
            for slot in 0..MANY as usize {
                crowd.turn(slot, &close);
                crowd.end_of(slot);
            }
        } else {
            crowd.pass(Duration::from_secs(10));
        }
        crowd.rest();
        let report = crowd.driver.shutdown_report().expect("it is done");
        assert_eq!(report.clean, if answer { u64::from(MANY) } else { 0 }, "as the peers behave");
    })
}

/// All are due for a Ping.
fn heartbeats(n: u32) -> Round {
    let mut crowd = Crowd::open(Config::default(), n, REQUEST);
    let before = crowd.kernel().written;
    Box::new(move || {
        crowd.pass(Duration::from_secs(35));
        crowd.rest();
        assert!(crowd.kernel().written - before >= 2 * u64::from(n), "all have got a Ping");
    })
}

/// All deadlines fire early, because all peers have said something since, and are set anew.
fn moved() -> Round {
    let mut crowd = Crowd::open(Config::default(), MANY, REQUEST);
    let pong = data(0x8a, 0);
    crowd.pass(Duration::from_secs(20));
    for slot in 0..MANY as usize {
        crowd.turn(slot, &pong);
    }
    let before = crowd.kernel().written;
    Box::new(move || {
        crowd.pass(Duration::from_secs(15));
        crowd.rest();
        assert_eq!(crowd.kernel().written, before, "nobody was due");
    })
}
