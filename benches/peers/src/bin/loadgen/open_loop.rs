//! Messages that leave by the clock, whatever the server does. What a message waits is counted from the instant at which it
//! was due, so that a server that stalls pays for all that would have been sent meanwhile (coordinated omission).

use crate::frame::{self, Found};
use crate::histogram::Histogram;
use crate::lab::{Lab, Report, Result, SHORT, Window, Work, float};
use crate::modes::{drop_all, saturate, seconds};
use crate::sys;
use adjourn_peers::epoll::Ready;
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::time::{Duration, Instant};

/// Messages that may leave before answers are looked for again.
const BURST: u32 = 16;
/// How long answers may stay away at the end.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is sent, and when.
pub struct Plan {
    /// The messages leave on this many connections in turn.
    pub conns: usize,
    pub per_sec: f64,
    pub length: Duration,
    /// Never sleep: sends are punctual, and the server wakes nobody.
    pub spin: bool,
}

/// What came of it.
pub struct Outcome {
    pub window: Window,
    pub latency: Histogram,
    /// How late the load generator itself was: its own share of the latencies.
    pub late: Histogram,
}

impl Outcome {
    pub fn report(&self, name: &str, report: &mut Report) {
        let (latency, late) = (&self.latency, &self.late);
        for (text, share) in [
            ("p50", 0.5),
            ("p75", 0.75),
            ("p90", 0.9),
            ("p95", 0.95),
            ("p99", 0.99),
            ("p995", 0.995),
            ("p999", 0.999),
            ("p9999", 0.9999),
        ] {
            report.number(&format!("{name}_{text}_us"), latency.quantile_us(share));
        }
        report.number(&format!("{name}_max_us"), latency.max_us());
        report.number(&format!("{name}_late_p50_us"), late.quantile_us(0.5));
        report.number(&format!("{name}_late_p99_us"), late.quantile_us(0.99));
        report.number(&format!("{name}_per_sec"), float(self.window.units) / self.window.wall.as_secs_f64());
        report.number(
            &format!("{name}_cpu_us"),
            self.window.server.as_secs_f64() * 1e6 / float(self.window.units),
        );
        report.number(
            &format!("{name}_server_busy"),
            self.window.server.as_secs_f64() / self.window.wall.as_secs_f64(),
        );
        report.number(
            &format!("{name}_client_busy"),
            self.window.client.as_secs_f64() / self.window.wall.as_secs_f64(),
        );
    }
}

/// What happens beside the messages.
pub trait Beside {
    /// Called again and again; true while the messages have to go on, however long the plan says.
    fn step(&mut self, _lab: &mut Lab) -> Result<bool> {
        Ok(false)
    }

    /// An event of a key that is none of the plan's connections.
    fn ready(&mut self, lab: &mut Lab, event: Ready) -> Result<()>;
}

/// Nothing.
pub struct Alone;

impl Beside for Alone {
    fn ready(&mut self, _: &mut Lab, event: Ready) -> Result<()> {
        Err(format!("an event of connection {}, which is none", event.key).into())
    }
}

/// Sends by the plan and waits for all answers. The connections have to be watched, and an answer has `reply` bytes.
pub fn drive(
    lab: &mut Lab,
    plan: &Plan,
    work: &Work,
    reply: u64,
    beside: &mut impl Beside,
) -> Result<Outcome> {
    lab.settle(SHORT)?;
    let mut waiting: Vec<VecDeque<Duration>> = vec![VecDeque::new(); plan.conns];
    let (mut latency, mut late) = (Histogram::default(), Histogram::default());
    let (server, client, start) = (lab.server_cpu()?, sys::own_cpu()?, Instant::now());
    let interval = Duration::from_secs_f64(1.0 / plan.per_sec);
    let mut due = Duration::ZERO;
    let (mut sent, mut answered, mut end) = (0_u64, 0_u64, None);
    loop {
        let more = beside.step(lab)?;
        let mut burst = 0;
        while end.is_none() && burst < BURST {
            if due >= plan.length && !more {
                end = Some(start.elapsed());
                break;
            }
            let now = start.elapsed();
            if due > now {
                break;
            }
            late.record(now - due);
            let index = usize::try_from(sent % plan.conns as u64)?;
            lab.conns[index].sent = 0;
            lab.conns[index].send(&work.frame)?;
            if lab.conns[index].sent < work.frame.len() {
                return Err("the server takes no more bytes".into());
            }
            waiting[index].push_back(due);
            (sent, burst, due) = (sent + 1, burst + 1, due + interval);
        }
        if let Some(end) = end {
            if answered == sent {
                break;
            }
            if start.elapsed() > end + PATIENCE {
                return Err(format!("{} of {sent} messages are without an answer", sent - answered).into());
            }
        }
        let ready = if plan.spin || end.is_none() && due <= start.elapsed() {
            lab.epoll.wait(Duration::ZERO)?
        } else {
            lab.epoll.wait(Duration::from_millis(1))?
        };
        for event in 0..ready {
            let event = lab.epoll.get(event);
            if event.key >= plan.conns {
                beside.ready(lab, event)?;
                continue;
            }
            let conn = &mut lab.conns[event.key];
            if !event.readable {
                continue;
            }
            match sys::discard(conn.fd(), usize::from(u16::MAX)) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => conn.got += n as u64,
                Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
                Err(error) => return Err(error.into()),
            }
            let now = start.elapsed();
            while conn.got >= reply {
                conn.got -= reply;
                let due = waiting[event.key].pop_front().ok_or("more came back than was sent")?;
                latency.record(now.saturating_sub(due));
                answered += 1;
            }
        }
    }
    let wall = end.unwrap_or_default();
    let client = sys::own_cpu()? - client;
    lab.settle(SHORT)?;
    let window = Window { units: sent, wall, server: lab.server_cpu()? - server, client };
    Ok(Outcome { window, latency, late })
}

/// Opens the first connections, checks them, and watches them. Returns the length of an answer.
pub fn prepare(lab: &mut Lab, conns: usize, work: &Work) -> Result<u64> {
    lab.open(conns, 64, "/echo", None)?;
    let mut reply = 0;
    for index in 0..conns {
        let wire = lab.exchange(index, work)?;
        if index > 0 && wire != reply {
            return Err("echoes of one message differ in length".into());
        }
        reply = wire;
        lab.watch(index)?;
    }
    lab.check_sizes(0)?;
    Ok(reply)
}

/// What the server can do at most, and then how long an echo takes at 30, 60 and 90 % of it.
pub fn latency(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 1000)?;
    let length = seconds(lab, "secs", 1.5)?;
    let work = Work::from_options(&lab.options)?;
    let reply = prepare(lab, conns, &work)?;
    lab.spin = true;
    saturate(lab, conns, &work, reply, seconds(lab, "warmup", 0.5)?)?;
    let most = saturate(lab, conns, &work, reply, length)?;
    let mut report = Report::default();
    most.report(&mut report);
    let per_sec = float(most.units) / most.wall.as_secs_f64();
    for (name, share) in [("at30", 0.3), ("at60", 0.6), ("at90", 0.9)] {
        let mut plan = Plan { conns, per_sec: per_sec * share, length: length / 4, spin: true };
        drive(lab, &plan, &work, reply, &mut Alone)?;
        plan.length = length;
        drive(lab, &plan, &work, reply, &mut Alone)?.report(name, &mut report);
    }
    lab.exchange(0, &work)?;
    report.print();
    Ok(())
}

/// `--rate` echoes a second over `--conns` connections, by a load generator that sleeps in between.
pub fn paced(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 512)?;
    let work = Work::from_options(&lab.options)?;
    let reply = prepare(lab, conns, &work)?;
    let mut plan = Plan {
        conns,
        per_sec: lab.options.number("rate", 20_000.0)?,
        length: seconds(lab, "warmup", 0.5)?,
        spin: false,
    };
    drive(lab, &plan, &work, reply, &mut Alone)?;
    plan.length = seconds(lab, "secs", 1.5)?;
    let outcome = drive(lab, &plan, &work, reply, &mut Alone)?;
    let mut report = Report::default();
    outcome.window.report(&mut report);
    outcome.report("paced", &mut report);
    report.print();
    Ok(())
}

/// Connections that say nothing but answer a Ping.
struct Quiet {
    pings: u64,
    buffer: Vec<u8>,
}

impl Beside for Quiet {
    fn ready(&mut self, lab: &mut Lab, event: Ready) -> Result<()> {
        let conn = &mut lab.conns[event.key];
        if !event.readable {
            return Ok(());
        }
        let n = match conn.stream.read(&mut self.buffer) {
            Ok(0) => return Err("the server closed a quiet connection".into()),
            Ok(n) => n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        let (mut pongs, mut problem) = (Vec::new(), None);
        conn.scanner.scan(&self.buffer[..n], &mut |_| {}, &mut |found| match found {
            Found::Ping(data) => pongs.extend(frame::client_frame(frame::PONG, false, &data)),
            Found::Pong => {}
            other => problem = Some(format!("a quiet connection got {other:?}")),
        });
        self.pings += u64::from(!pongs.is_empty());
        conn.stream.write_all(&pongs)?;
        problem.map_or(Ok(()), |problem| Err(problem.into()))
    }
}

/// `--conns` connections, of which the first `--busy` exchange `--rate` messages a second, for `--window` seconds: long enough
/// for a heartbeat, which the others answer.
pub fn crowd(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 18_000)?;
    let busy: usize = lab.options.number("busy", 180)?;
    let work = Work::from_options(&lab.options)?;
    prepare(lab, 16, &work)?;
    drop_all(lab);
    lab.settle(crate::lab::LONG)?;
    let before = lab.memory()?;
    let reply = prepare(lab, busy, &work)?;
    lab.open(conns - busy, 64, "/echo", None)?;
    for index in busy..conns {
        lab.conns[index].stream.socket().set_nonblocking(true)?;
        lab.watch(index)?;
    }
    let mut quiet = Quiet { pings: 0, buffer: vec![0; 4096] };
    let plan = Plan {
        conns: busy,
        per_sec: lab.options.number("rate", 1800.0)?,
        length: Duration::from_secs_f64(lab.options.number("window", 31.0)?),
        spin: false,
    };
    let outcome = drive(lab, &plan, &work, reply, &mut quiet)?;
    lab.settle(crate::lab::LONG)?;
    let after = lab.memory()?;
    let mut report = Report::default();
    outcome.window.report(&mut report);
    outcome.report("crowd", &mut report);
    report.number("pings", float(quiet.pings));
    report.number("bytes_per_conn", (after.anonymous - before.anonymous) / float(conns as u64));
    report.number("rss_mib", after.rss / 1_048_576.0);
    report.print();
    Ok(())
}
