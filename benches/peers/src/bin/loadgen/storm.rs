//! Many connections at once, while others echo.

use crate::lab::{Lab, Report, Result, Work, float};
use crate::modes::seconds;
use crate::open_loop::{Alone, Beside, Plan, drive, prepare};
use adjourn_peers::epoll::Ready;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// What stands between a newcomer's key and its index.
const FIRST: usize = 1 << 20;

/// Newcomers, `flight` of them under way at a time. A step begins one, so that the echoes' clock is not held up.
struct Storm {
    left: usize,
    flight: usize,
    under_way: usize,
    request: Vec<u8>,
    sockets: Vec<(TcpStream, State)>,
    began: Option<Instant>,
    took: Duration,
}

#[derive(PartialEq)]
enum State {
    Connecting,
    /// The request was sent, and so much of the answer has come.
    Asked(Vec<u8>),
    Open,
}

impl Beside for Storm {
    fn step(&mut self, lab: &mut Lab) -> Result<bool> {
        let began = *self.began.get_or_insert_with(Instant::now);
        if self.left > 0 && self.under_way < self.flight {
            let stream = lab.connect_later()?;
            lab.epoll.add(std::os::fd::AsRawFd::as_raw_fd(&stream), FIRST + self.sockets.len())?;
            self.sockets.push((stream, State::Connecting));
            self.left -= 1;
            self.under_way += 1;
        }
        let busy = self.left > 0 || self.under_way > 0;
        if busy {
            self.took = began.elapsed();
        }
        Ok(busy)
    }

    fn ready(&mut self, _: &mut Lab, event: Ready) -> Result<()> {
        let (stream, state) = &mut self.sockets[event.key - FIRST];
        if event.writable && *state == State::Connecting {
            if let Some(error) = stream.take_error()? {
                return Err(format!("a newcomer was refused: {error}").into());
            }
            stream.write_all(&self.request)?;
            *state = State::Asked(Vec::new());
        }
        let State::Asked(head) = state else { return Ok(()) };
        if !event.readable {
            return Ok(());
        }
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer) {
            Ok(0) => return Err("a newcomer got no answer".into()),
            Ok(n) => head.extend_from_slice(&buffer[..n]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        }
        if head.ends_with(b"\r\n\r\n") {
            if !head.starts_with(b"HTTP/1.1 101 ") {
                return Err("a newcomer was not upgraded".into());
            }
            *state = State::Open;
            self.under_way -= 1;
        }
        Ok(())
    }
}

/// `--conns` connections echo `--rate` messages a second, alone for a while and then while `--storm` newcomers arrive as fast
/// as the server takes them.
pub fn storm(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 1000)?;
    let newcomers: usize = lab.options.number("storm", 18_000)?;
    let work = Work::from_options(&lab.options)?;
    let reply = prepare(lab, conns, &work)?;
    let mut plan = Plan {
        conns,
        per_sec: lab.options.number("rate", 10_000.0)?,
        length: seconds(lab, "warmup", 0.5)?,
        spin: true,
    };
    drive(lab, &plan, &work, reply, &mut Alone)?;
    plan.length = seconds(lab, "secs", 1.5)?;
    let alone = drive(lab, &plan, &work, reply, &mut Alone)?;
    let mut storm = Storm {
        left: newcomers,
        flight: lab.options.number("flight", 256)?,
        under_way: 0,
        request: lab.request("/echo").into_bytes(),
        sockets: Vec::with_capacity(newcomers),
        began: None,
        took: Duration::ZERO,
    };
    plan.length = Duration::ZERO;
    let beside = drive(lab, &plan, &work, reply, &mut storm)?;
    for index in 0..conns {
        lab.exchange(index, &work)?;
    }
    let mut report = Report::default();
    alone.report("alone", &mut report);
    beside.report("beside", &mut report);
    report.number("units", float(newcomers as u64));
    report.number("accepts_per_sec", float(newcomers as u64) / storm.took.as_secs_f64());
    report.print();
    for (stream, _) in storm.sockets {
        lab.reset(&stream);
    }
    Ok(())
}
