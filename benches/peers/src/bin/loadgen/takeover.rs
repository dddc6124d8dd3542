//! Compressed echoes with context takeover on both sides: no two messages of a window are the same, and each refers to
//! those before it, as the messages of a real client do.

use crate::frame::{self, Found};
use crate::lab::{Conn, Lab, Report, Result, SHORT, Window, float, json};
use crate::sys;
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use std::io::{ErrorKind, Read as _};
use std::time::{Duration, Instant};

const BUFFER: usize = 256 << 10;
const STUCK: Duration = Duration::from_secs(5);
/// More than a window: what a message refers to lies in its own round of the cycle or in the one before.
const CYCLE: usize = 48 << 10;

struct Message {
    frame: Vec<u8>,
    payload: Vec<u8>,
}

/// The messages of a connection: the first ones, and those that follow again and again.
struct Script {
    first: Vec<Message>,
    cycle: Vec<Message>,
}

impl Script {
    fn new(size: usize) -> Result<Self> {
        let count = CYCLE.div_ceil(size).max(4) as u64;
        let mut deflate = Compress::new(Compression::default(), false);
        let mut messages = || -> Result<Vec<Message>> {
            (0..count)
                .map(|number| {
                    let payload = json(size, 7 + number);
                    let mut small = Vec::with_capacity(size + 64);
                    deflate.compress_vec(&payload, &mut small, FlushCompress::Sync)?;
                    let end = small.strip_suffix(&[0, 0, 0xff, 0xff]).ok_or("no sync marker")?;
                    Ok(Message { frame: frame::client_frame(frame::TEXT, true, end), payload })
                })
                .collect()
        };
        Ok(Self { first: messages()?, cycle: messages()? })
    }

    fn get(&self, number: usize) -> &Message {
        let length = self.first.len();
        self.first.get(number).unwrap_or_else(|| &self.cycle[(number - length) % length])
    }
}

/// What is known of one connection's exchange.
struct Exchange {
    /// Messages whose echo is back.
    done: usize,
    echo: Vec<u8>,
    inflate: Decompress,
}

impl Exchange {
    /// Inflates the echo that is complete, and insists that it is the message.
    fn check(&mut self, rsv1: bool, message: &Message) -> Result<()> {
        if !rsv1 {
            return Err("an echo is not compressed".into());
        }
        self.echo.extend_from_slice(&[0, 0, 0xff, 0xff]);
        let mut plain = Vec::with_capacity(message.payload.len() + 64);
        if self.inflate.decompress_vec(&self.echo, &mut plain, FlushDecompress::Sync)? != Status::Ok {
            return Err("an echo ends in the middle".into());
        }
        if plain != message.payload {
            return Err(format!("a wrong echo: {} bytes for {}", plain.len(), message.payload.len()).into());
        }
        Ok(())
    }
}

/// `--conns` connections with one message of `--size` bytes in flight. All echoes of the first round are inflated and
/// compared; afterwards those of the first connection are.
pub fn takeover(lab: &mut Lab) -> Result<()> {
    let conns: usize = lab.options.number("conns", 64)?;
    let seconds = |name, default| lab.options.number(name, default).map(Duration::from_secs_f64);
    let (warmup, secs) = (seconds("warmup", 0.5)?, seconds("secs", 1.5)?);
    let script = Script::new(lab.options.number("size", 1024)?)?;
    lab.open(conns, 64, "/echo", None)?;
    let mut exchanges: Vec<_> =
        (0..conns).map(|_| Exchange { done: 0, echo: Vec::new(), inflate: Decompress::new(false) }).collect();
    for index in 0..conns {
        lab.conns[index].stream.socket().set_nonblocking(true)?;
        lab.watch(index)?;
    }
    let rounds = 2 * script.first.len();
    let mut buffer = vec![0; BUFFER];
    let mut run = Run { lab, script: &script, exchanges: &mut exchanges, buffer: &mut buffer, bytes: 0 };
    run.window(Duration::ZERO, rounds, conns)?;
    run.window(warmup, 0, 1)?;
    run.bytes = 0;
    let window = run.window(secs, 0, 1)?;
    let bytes = run.bytes;
    let mut report = Report::default();
    window.report(&mut report);
    report.number("reply_bytes", float(bytes) / float(window.units));
    report.number("rss_bytes", lab.memory()?.rss);
    report.print();
    Ok(())
}

struct Run<'r> {
    lab: &'r mut Lab,
    script: &'r Script,
    exchanges: &'r mut [Exchange],
    buffer: &'r mut [u8],
    /// Of all echoes.
    bytes: u64,
}

impl Run<'_> {
    /// Until `length` is over and each connection has had `least` echoes. Those of the first `checked` are compared.
    fn window(&mut self, length: Duration, least: usize, checked: usize) -> Result<Window> {
        self.lab.settle(SHORT)?;
        let (server, client, start) = (self.lab.server_cpu()?, sys::own_cpu()?, Instant::now());
        let (mut units, mut busy) = (0, self.exchanges.len());
        let goal = self.exchanges.iter().map(|exchange| exchange.done).max().unwrap_or(0) + least;
        (0..busy).try_for_each(|index| self.send(index))?;
        while busy > 0 {
            let ready = self.lab.epoll.wait(STUCK)?;
            if ready == 0 {
                return Err(format!("stuck: {busy} connections wait for an echo").into());
            }
            let more = start.elapsed() < length;
            for event in 0..ready {
                let event = self.lab.epoll.get(event);
                if event.readable && self.receive(event.key, event.key < checked)? {
                    units += 1;
                    if more || self.exchanges[event.key].done < goal {
                        self.send(event.key)?;
                    } else {
                        busy -= 1;
                    }
                }
            }
        }
        let wall = start.elapsed();
        let client = sys::own_cpu()? - client;
        self.lab.settle(SHORT)?;
        Ok(Window { units, wall, server: self.lab.server_cpu()? - server, client })
    }

    fn send(&mut self, index: usize) -> Result<()> {
        let frame = &self.script.get(self.exchanges[index].done).frame;
        let conn = &mut self.lab.conns[index];
        conn.sent = 0;
        conn.send(frame)?;
        if conn.sent < frame.len() { Err("a message does not fit into the socket".into()) } else { Ok(()) }
    }

    /// Reads all there is. True when the echo is complete.
    fn receive(&mut self, index: usize, checked: bool) -> Result<bool> {
        let Conn { stream, scanner, .. } = &mut self.lab.conns[index];
        let exchange = &mut self.exchanges[index];
        let (mut complete, mut rsv1) = (0, true);
        loop {
            let n = match stream.read(self.buffer) {
                Ok(0) => return Err("the server closed a connection".into()),
                Ok(n) => n,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error.into()),
            };
            self.bytes += n as u64;
            let echo = &mut exchange.echo;
            let mut keep = |part: &[u8]| {
                if checked {
                    echo.extend_from_slice(part);
                }
            };
            scanner.scan(&self.buffer[..n], &mut keep, &mut |found| match found {
                Found::Message { .. } => complete += 1,
                Found::Data { rsv1: compressed, .. } => rsv1 = compressed,
                _ => {}
            });
            if n < self.buffer.len() {
                break;
            }
        }
        if complete == 0 {
            return Ok(false);
        }
        if checked {
            exchange.check(rsv1, self.script.get(exchange.done))?;
            exchange.echo.clear();
        }
        exchange.done += 1;
        if complete == 1 { Ok(true) } else { Err("two messages for one".into()) }
    }
}
