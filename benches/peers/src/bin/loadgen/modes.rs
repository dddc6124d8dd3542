//! What is measured while the server serves: echo, broadcast, accept, idle memory.

use crate::frame::Found;
use crate::lab::{Conn, LONG, Lab, Memory, Report, Result, SHORT, Window, Work, float};
use crate::sys;
use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

/// More than any burst, so that a read that returns less has drained the socket.
const ALL: usize = 64 << 20;
/// Where each message has to be parsed (see [`Count`]), read this much at a time.
const BUFFER: usize = 256 << 10;
/// How long nothing at all may happen before a run has failed.
const STUCK: Duration = Duration::from_secs(5);

/// `--conns` connections, each with `--depth` messages of `--size` bytes in flight: a burst leaves in one write, and
/// the next one follows when the last echo is back. `--quiet` more connections say nothing.
pub fn echo(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 64)?;
    let depth: usize = lab.options.number("depth", 1)?;
    let quiet: usize = lab.options.number("quiet", 0)?;
    let work = Work::from_options(&lab.options)?;
    let burst = work.frame.repeat(depth);
    lab.open(conns, 64, "/echo", None)?;
    let reply = lab.exchange(0, &work)?;
    for index in 0..conns {
        if lab.exchange(index, &work)? != reply && !work.deflated {
            return Err("echoes of one message differ in length".into());
        }
        lab.watch(index)?;
    }
    lab.check_sizes(0)?;
    lab.open(quiet, 64, "/echo", None)?;
    let mut count = if work.deflated || lab.options.flag("tls") {
        Count::Messages(depth as u64, vec![0; BUFFER])
    } else {
        Count::Bytes(reply * depth as u64)
    };
    echo_window(lab, conns, &burst, &mut count, depth, seconds(lab, "warmup", 0.5)?)?;
    let window = echo_window(lab, conns, &burst, &mut count, depth, seconds(lab, "secs", 1.5)?)?;
    for index in 0..lab.conns.len().min(conns + 1) {
        lab.exchange(index, &work)?;
    }
    let mut report = Report::default();
    window.report(&mut report);
    report.number("reply_bytes", float(reply));
    report.number("rss_bytes", lab.memory()?.rss);
    report.print();
    Ok(())
}

/// How the end of a burst of echoes is recognised.
enum Count {
    /// By the number of bytes, which are discarded unread.
    Bytes(u64),
    /// By the number of messages. Compressed echoes need this, because some zlibs compress one message to different lengths;
    /// encrypted ones too.
    Messages(u64, Vec<u8>),
}

impl Count {
    /// Reads all there is. True when the burst is complete.
    fn take(&mut self, conn: &mut Conn) -> Result<bool> {
        let whole = match self {
            Self::Bytes(whole) => match sys::discard(conn.fd(), ALL) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => {
                    conn.got += n as u64;
                    *whole
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error.into()),
            },
            Self::Messages(whole, buffer) => loop {
                let n = match conn.stream.read(buffer) {
                    Ok(0) => return Err("the server closed a connection".into()),
                    Ok(n) => n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break *whole,
                    Err(error) => return Err(error.into()),
                };
                let got = &mut conn.got;
                conn.scanner.scan(&buffer[..n], &mut |_| {}, &mut |found| {
                    *got += u64::from(matches!(found, Found::Message { .. }));
                });
                if n < buffer.len() && conn.stream.is_plain() {
                    break *whole;
                }
            },
        };
        if conn.got > whole {
            return Err("more came back than was sent".into());
        }
        let complete = conn.got == whole;
        if complete {
            conn.got = 0;
        }
        Ok(complete)
    }
}

pub fn seconds(lab: &Lab, name: &str, default: f64) -> Result<Duration> {
    Ok(Duration::from_secs_f64(lab.options.number(name, default)?))
}

/// One message in flight on each connection, as fast as the server answers. The connections are watched already.
pub fn saturate(lab: &mut Lab, conns: usize, work: &Work, reply: u64, length: Duration) -> Result<Window> {
    echo_window(lab, conns, &work.frame, &mut Count::Bytes(reply), 1, length)
}

fn echo_window(
    lab: &mut Lab,
    conns: usize,
    burst: &[u8],
    count: &mut Count,
    depth: usize,
    length: Duration,
) -> Result<Window> {
    lab.settle(SHORT)?;
    let (server, client, start) = (lab.server_cpu()?, sys::own_cpu()?, Instant::now());
    let mut units = 0;
    let mut busy = conns;
    for conn in &mut lab.conns[..conns] {
        conn.sent = 0;
        conn.send(burst)?;
    }
    while busy > 0 {
        let ready = lab.wait(STUCK)?;
        if ready == 0 {
            return Err(format!("stuck: {busy} connections wait for an echo").into());
        }
        let more = start.elapsed() < length;
        for event in 0..ready {
            let event = lab.epoll.get(event);
            let conn = &mut lab.conns[event.key];
            if event.writable && (conn.sent < burst.len() || !conn.stream.is_plain()) {
                conn.send(burst)?;
            }
            if !event.readable {
                continue;
            }
            if count.take(conn)? {
                units += depth as u64;
                if more {
                    conn.sent = 0;
                    conn.send(burst)?;
                } else {
                    busy -= 1;
                }
            }
        }
    }
    let wall = start.elapsed();
    let client = sys::own_cpu()? - client;
    lab.settle(SHORT)?;
    Ok(Window { units, wall, server: lab.server_cpu()? - server, client })
}

/// One sender, `--receivers` receivers; the sender writes `--burst` messages at once and goes on when all of them have
/// arrived everywhere. The unit is a delivery.
pub fn broadcast(lab: &mut Lab) -> Result<()> {
    let receivers: usize = lab.options.number("receivers", 2000)?;
    let burst: usize = lab.options.number("burst", 1)?;
    let work = Work::from_options(&lab.options)?;
    lab.open(receivers + 1, 64, "/broadcast", None)?;
    lab.conns[0].stream.socket().set_nonblocking(false)?;
    lab.conns[0].stream.write_all(&work.frame)?;
    lab.conns[0].stream.socket().set_nonblocking(true)?;
    let mut reply = 0;
    for index in 1..=receivers {
        let wire = lab.expect(index, &work)?;
        if index > 1 && wire != reply {
            return Err("deliveries of one message differ in length".into());
        }
        reply = wire;
    }
    for index in 0..=receivers {
        lab.watch(index)?;
    }
    let frames = work.frame.repeat(burst);
    let mut count = Count::Bytes(reply * burst as u64);
    broadcast_window(lab, &frames, &mut count, burst, seconds(lab, "warmup", 0.5)?)?;
    let window = broadcast_window(lab, &frames, &mut count, burst, seconds(lab, "secs", 1.5)?)?;
    let mut report = Report::default();
    window.report(&mut report);
    report.print();
    Ok(())
}

fn broadcast_window(
    lab: &mut Lab,
    frames: &[u8],
    count: &mut Count,
    burst: usize,
    length: Duration,
) -> Result<Window> {
    let receivers = (lab.conns.len() - 1) as u64;
    lab.settle(SHORT)?;
    let (server, client, start) = (lab.server_cpu()?, sys::own_cpu()?, Instant::now());
    let mut rounds = 0;
    while rounds == 0 || start.elapsed() < length {
        rounds += 1;
        lab.conns[0].sent = 0;
        lab.conns[0].send(frames)?;
        let mut left = receivers;
        while left > 0 {
            let ready = lab.wait(STUCK)?;
            if ready == 0 {
                return Err(format!("stuck: {left} receivers wait").into());
            }
            for event in 0..ready {
                let event = lab.epoll.get(event);
                let conn = &mut lab.conns[event.key];
                if event.key == 0 && event.writable {
                    conn.send(frames)?;
                }
                if !event.readable {
                    continue;
                }
                if event.key == 0 {
                    return Err("the sender got its own message".into());
                }
                if count.take(conn)? {
                    left -= 1;
                }
            }
        }
    }
    let wall = start.elapsed();
    let client = sys::own_cpu()? - client;
    lab.settle(SHORT)?;
    let units = rounds * receivers * burst as u64;
    Ok(Window { units, wall, server: lab.server_cpu()? - server, client })
}

/// Connections are made and upgraded, `--batch` of them at a time, a thousand to a round; then they are all reset.
/// The unit is a connection; the resets are measured apart.
pub fn accept(lab: &mut Lab) -> Result<()> {
    const ROUND: usize = 1000;
    let batch: usize = lab.options.number("batch", 1)?;
    let length = seconds(lab, "secs", 1.5)?;
    let work = Work::from_options(&lab.options)?;
    lab.open(16, 16, "/echo", None)?;
    for index in 0..16 {
        lab.exchange(index, &work)?;
    }
    lab.check_sizes(0)?;
    drop_all(lab);
    let warm = Instant::now() + seconds(lab, "warmup", 0.5)?;
    while Instant::now() < warm {
        lab.open(ROUND, batch, "/echo", None)?;
        drop_all(lab);
    }
    let mut window =
        Window { units: 0, wall: Duration::ZERO, server: Duration::ZERO, client: Duration::ZERO };
    let mut closing = Duration::ZERO;
    while window.wall < length {
        lab.settle(SHORT)?;
        let (server, client, start) = (lab.server_cpu()?, sys::own_cpu()?, Instant::now());
        lab.open(ROUND, batch, "/echo", None)?;
        window.wall += start.elapsed();
        window.client += sys::own_cpu()? - client;
        lab.settle(SHORT)?;
        let opened = lab.server_cpu()?;
        window.server += opened - server;
        window.units += ROUND as u64;
        drop_all(lab);
        lab.settle(SHORT)?;
        closing += lab.server_cpu()? - opened;
    }
    let mut report = Report::default();
    window.report(&mut report);
    report.number("reset_us_per_unit", closing.as_secs_f64() * 1e6 / float(window.units));
    report.print();
    Ok(())
}

pub fn drop_all(lab: &mut Lab) {
    for conn in std::mem::take(&mut lab.conns) {
        lab.reset(conn.stream.socket());
    }
}

/// `--conns` connections that do nothing, then exchange one message each, then do nothing again. What the server's
/// memory grows by is measured after each step; a few connections have come and gone before, so that what a server
/// allocates once is not counted.
pub fn idle(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 10_000)?;
    let work = Work::from_options(&lab.options)?;
    lab.open(16, 16, "/echo", None)?;
    for index in 0..16 {
        lab.exchange(index, &work)?;
    }
    lab.check_sizes(0)?;
    drop_all(lab);
    let rest = |lab: &Lab| -> Result<Memory> {
        lab.settle(LONG)?;
        lab.memory()
    };
    let before = rest(lab)?;
    lab.open(conns, 64, "/echo", None)?;
    let opened = rest(lab)?;
    for index in 0..conns {
        lab.exchange(index, &work)?;
    }
    let exchanged = rest(lab)?;
    let each = |bytes: f64| bytes / float(conns as u64);
    let mut report = Report::default();
    report.number("units", float(conns as u64));
    report.number("bytes_opened", each(opened.anonymous - before.anonymous));
    report.number("bytes_exchanged", each(exchanged.anonymous - before.anonymous));
    report.number("rss_bytes_opened", each(opened.rss - before.rss));
    report.number("rss_bytes_exchanged", each(exchanged.rss - before.rss));
    report.number("process_pss", exchanged.pss);
    report.print();
    Ok(())
}
