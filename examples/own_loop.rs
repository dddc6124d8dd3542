//! The core without mio: a loop of one's own drives the turn that the server runs, over plain `std` sockets. It asks every
//! socket in every turn, so it is no faster than a clock of a millisecond; a real transport waits for readiness.
//!
//! `cargo run --example own_loop --features unstable-core`, then connect to <ws://127.0.0.1:9001>; send `bye` to end the server.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::{Shutdown, TcpListener, TcpStream},
    thread::sleep,
    time::{Duration, Instant},
};

use adjourn::{
    Config, ConnectionId, Event, Message, ShutdownPlan, Time, accept_all,
    conn::Target,
    http::DetachedStream,
    hub::{Driver, Readiness, Transport},
};

/// The connections, by slot.
struct Sockets {
    streams: Vec<Option<TcpStream>>,
    start: Instant,
    lap: Instant,
}

impl Sockets {
    fn get(&mut self, slot: usize) -> io::Result<&mut TcpStream> {
        self.streams.get_mut(slot).and_then(Option::as_mut).ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    fn insert(&mut self, slot: usize, stream: TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        self.streams.resize_with(self.streams.len().max(slot + 1), || None);
        self.streams[slot] = Some(stream);
        Ok(())
    }
}

impl Transport for Sockets {
    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.get(slot)?.read(buffer)
    }

    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.get(slot)?.write_vectored(slices)
    }

    fn await_writable(&mut self, _: usize, _: bool) -> io::Result<()> {
        Ok(()) // The loop below says in every turn that it is.
    }

    fn shutdown_write(&mut self, slot: usize) {
        let _ = self.get(slot).and_then(|stream| stream.shutdown(Shutdown::Write));
    }

    fn close(&mut self, slot: usize, _reset: bool) {
        self.streams[slot] = None; // `std` cannot reset a connection.
    }

    fn detach(&mut self, slot: usize) -> Option<DetachedStream> {
        self.streams[slot].take().map(DetachedStream::Tcp)
    }

    fn connect(&mut self, _: usize, _: ConnectionId, _: Target<'_>) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn connected(&mut self, _: usize) -> io::Result<bool> {
        Ok(false)
    }

    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind> {
        Some(self.get(slot).ok()?.take_error().ok()??.kind())
    }

    fn unsent(&mut self, _: usize) -> Option<u32> {
        None
    }

    fn now(&mut self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    fn lap(&mut self) -> Option<Duration> {
        let lap = self.lap.elapsed();
        self.lap += lap;
        Some(lap).filter(|lap| !lap.is_zero())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    serve(&TcpListener::bind("127.0.0.1:9001")?)
}

/// Echoes until somebody says `bye`.
pub(crate) fn serve(listener: &TcpListener) -> Result<(), Box<dyn std::error::Error>> {
    listener.set_nonblocking(true)?;
    println!("listening on ws://{}", listener.local_addr()?);
    let sockets = Sockets { streams: Vec::new(), start: Instant::now(), lap: Instant::now() };
    let mut driver: Driver<(), _> = Driver::new(Config::default(), 0, 42, sockets);
    let mut handler = accept_all(|clients, event| match event {
        Event::Message { message: Message::Text("bye"), .. } => {
            clients.shutdown(ShutdownPlan::soft(Duration::from_secs(1)));
        }
        Event::Message { id, message, .. } => drop(clients.send(id, message)),
        Event::Close { id, report } => println!("{id}: {report}"),
        _ => {}
    });
    while driver.shutdown_report().is_none() {
        driver.begin_turn(&mut handler);
        for slot in 0..driver.transport().streams.len() {
            if driver.transport().streams[slot].is_some() {
                let ready = Readiness { readable: true, writable: true, ended: true };
                driver.ready(slot, ready, &mut handler);
            }
        }
        if driver.is_listening()
            && let Ok((stream, peer)) = listener.accept()
            && let Some(slot) = driver.accept(peer)
        {
            driver.transport().insert(slot, stream)?;
        }
        driver.end_turn(&mut handler);
        if !driver.has_more() {
            sleep(Duration::from_millis(1));
        }
    }
    Ok(())
}
