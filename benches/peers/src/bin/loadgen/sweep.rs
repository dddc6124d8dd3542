//! SIGTERM with many clients connected: which clients get a Close, when, in what order, and what it costs.

use crate::frame::{self, Found};
use crate::lab::{LONG, Lab, Report, Result, Work, float};
use crate::sys;
use socket2::SockRef;
use std::io::{ErrorKind, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// What has become of the clients.
#[derive(Default)]
struct Tally {
    /// Connections not yet at their end.
    open: usize,
    closes: u64,
    going_away: u64,
    /// A reset was read, or the stream ended, where a Close was due.
    reset_before_close: u64,
    eof_before_close: u64,
    reset_after_close: u64,
    broken: u64,
    delivered: u64,
    last_close: Duration,
}

/// `--conns` clients that answer the Close, `--silent` that read it and do nothing, ever. With `--unread` each sends
/// that many messages of `--size` bytes beforehand and reads nothing until after the signal.
pub fn sweep(lab: &mut Lab) -> Result<()> {
    let polite: usize = lab.options.number("conns", 10_000)?;
    let silent: usize = lab.options.number("silent", 0)?;
    let unread: usize = lab.options.number("unread", 0)?;
    let patience = Duration::from_millis(lab.options.number("patience-ms", 15_000)?);
    let all = polite + silent;
    let work = Work::from_options(&lab.options)?;
    // The reader with the small buffer makes the server keep what it has to deliver.
    lab.open(all, 64, "/echo", (unread > 0).then_some(4096))?;
    lab.exchange(0, &work)?;
    for conn in &lab.conns {
        sys::stamp_arrivals(conn.fd())?;
        conn.stream.socket().set_nonblocking(true)?;
    }
    let sent = if unread > 0 { pile_up(lab, &work, unread)? } else { 0 };
    if unread == 0 {
        for index in 0..all {
            lab.watch(index)?;
        }
    }
    lab.settle(LONG)?;
    let (exit, exited) = mpsc::channel();
    let pidfd = sys::pidfd(lab.pid)?;
    std::thread::spawn(move || exit.send(wait_for_exit(&pidfd)));

    let before = lab.server_cpu()?;
    let (start, wall) = (Instant::now(), sys::realtime()?);
    sys::signal(lab.pid, libc::SIGTERM)?;
    if unread > 0 {
        std::thread::sleep(Duration::from_millis(100));
        for index in 0..all {
            SockRef::from(lab.conns[index].stream.socket()).set_recv_buffer_size(256 * 1024)?;
            lab.watch(index)?;
        }
    }

    let mut tally = Tally { open: all, ..Tally::default() };
    let mut seen = vec![0_u8; all]; // 1: the Close has come; 2: the connection is at its end
    let mut buffer = vec![0; 256 * 1024];
    let answer = frame::client_frame(frame::CLOSE, false, &1001_u16.to_be_bytes());
    let mut exit_at = None;
    while (tally.open > 0 || exit_at.is_none()) && start.elapsed() < patience {
        let ready = lab.epoll.wait(Duration::from_millis(if exit_at.is_none() { 2 } else { 20 }))?;
        for event in 0..ready {
            let event = lab.epoll.get(event);
            if event.readable && seen[event.key] < 2 {
                read(lab, event, event.key < polite, &answer, wall, &mut buffer, &mut seen, &mut tally)?;
            }
        }
        if let Ok(at) = exited.try_recv() {
            exit_at = Some(at);
        }
    }
    let exit_at = exit_at.ok_or("the server did not exit")?;
    let (code, total) = loop {
        if let Some(end) = sys::reap(lab.pid)? {
            break end;
        }
    };
    lab.reaped();

    let mut report = Report::default();
    let ms = |at: Duration| at.as_secs_f64() * 1e3;
    report.number("units", float(all as u64));
    report.number("cpu_us_per_unit", total.saturating_sub(before).as_secs_f64() * 1e6 / float(all as u64));
    report.number("exit_ms", ms(exit_at.duration_since(start)));
    report.number("last_close_ms", ms(tally.last_close));
    report.number("exit_code", f64::from(code));
    report.number("closes", float(tally.closes));
    report.number("going_away", float(tally.going_away));
    report.number("reset_before_close", float(tally.reset_before_close));
    report.number("eof_before_close", float(tally.eof_before_close));
    report.number("cut_off", float(tally.reset_before_close + tally.eof_before_close));
    report.number("reset_after_close", float(tally.reset_after_close));
    report.number("still_open", float(tally.open as u64));
    report.number("broken", float(tally.broken));
    report.number("messages_sent", float(sent));
    report.number("messages_delivered", float(tally.delivered));
    report.print();
    Ok(())
}

/// Sends on all connections and reads on none, until everything is sent or nothing moves any more. How many whole
/// messages the server's side of the connections has taken.
fn pile_up(lab: &mut Lab, work: &Work, count: usize) -> Result<u64> {
    let pile = work.frame.repeat(count);
    let mut last_progress = Instant::now();
    let total: usize = lab.conns.len() * pile.len();
    let mut before = 0;
    while last_progress.elapsed() < Duration::from_millis(500) {
        let mut sum = 0;
        for conn in &mut lab.conns {
            conn.send(&pile)?;
            sum += conn.sent;
        }
        if sum == total {
            break;
        }
        if sum > before {
            before = sum;
            last_progress = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(lab.conns.iter().map(|conn| (conn.sent / work.frame.len()) as u64).sum())
}

#[allow(clippy::too_many_arguments)]
fn read(
    lab: &mut Lab,
    event: adjourn_peers::epoll::Ready,
    polite: bool,
    answer: &[u8],
    wall: Duration,
    buffer: &mut [u8],
    seen: &mut [u8],
    tally: &mut Tally,
) -> Result<()> {
    let key = event.key;
    loop {
        let conn = &mut lab.conns[key];
        match sys::recv_stamped(conn.fd(), buffer) {
            Ok((0, _)) => {
                tally.eof_before_close += u64::from(seen[key] == 0);
                break;
            }
            Ok((n, stamp)) => {
                let (mut close, mut ping) = (None, None);
                let scanner = &mut conn.scanner;
                scanner.scan(&buffer[..n], &mut |_| {}, &mut |found| match found {
                    Found::Message { .. } => tally.delivered += 1,
                    Found::Close(code) => close = Some(code),
                    Found::Ping(data) => ping = Some(data),
                    Found::Broken(_) => tally.broken += 1,
                    Found::Data { .. } | Found::Pong => {}
                });
                if let (Some(ping), true) = (ping, polite) {
                    let _ = conn.stream.write(&frame::client_frame(frame::PONG, false, &ping));
                }
                if let Some(code) = close {
                    seen[key] = 1;
                    tally.closes += 1;
                    tally.going_away += u64::from(code == 1001);
                    let at = stamp.map_or_else(sys::realtime, Ok)?.saturating_sub(wall);
                    tally.last_close = tally.last_close.max(at);
                    if polite {
                        // An error here shows as a reset at the next read.
                        let _ = conn.stream.write(answer);
                    }
                }
                if n < buffer.len() && !event.ended {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(_) if seen[key] == 0 => {
                tally.reset_before_close += 1;
                break;
            }
            Err(_) => {
                tally.reset_after_close += 1;
                break;
            }
        }
    }
    seen[key] = 2;
    tally.open -= 1;
    // This is the close of our side; a stream that has ended leaves epoll with it.
    let _ = lab.conns[key].stream.socket().shutdown(std::net::Shutdown::Both);
    Ok(())
}

/// Blocks until the process has ended, and says when that was.
fn wait_for_exit(pidfd: &OwnedFd) -> Instant {
    let mut poll = libc::pollfd { fd: pidfd.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one pollfd, which lives through the call.
    while unsafe { libc::poll(&raw mut poll, 1, -1) } < 1 {}
    Instant::now()
}
