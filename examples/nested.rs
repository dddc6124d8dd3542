//! A program with a mio loop of its own: the server is one more source of it, beside a UDP socket whose datagrams go to all
//! clients. `nested [PORT]`, then for example `printf hello | nc -u -w0 127.0.0.1 PORT`; the datagram `stop` shuts it down.

use std::{
    io,
    os::fd::{AsFd, AsRawFd},
    time::Duration,
};

use adjourn::{Clients, Config, Server, ShutdownPlan, shutdown::ShutdownReport};
use mio::{Events, Interest, Poll, Token, net::UdpSocket, unix::SourceFd};

const SERVER: Token = Token(0);
const DATAGRAMS: Token = Token(1);

fn relay(udp: &UdpSocket, mut clients: Clients<'_, ()>) -> io::Result<()> {
    let mut buffer = [0; 2048];
    loop {
        match udp.recv(&mut buffer) {
            Ok(4) if buffer.starts_with(b"stop") => clients.shutdown(ShutdownPlan::default()),
            Ok(n) => drop(clients.broadcast(&buffer[..n], |_| true)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        }
    }
}

pub(crate) fn run(mut server: Server, mut udp: UdpSocket) -> io::Result<ShutdownReport> {
    let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(64));
    let server_fd = server.as_fd().as_raw_fd();
    poll.registry().register(&mut SourceFd(&server_fd), SERVER, Interest::READABLE)?;
    poll.registry().register(&mut udp, DATAGRAMS, Interest::READABLE)?;
    loop {
        match poll.poll(&mut events, server.next_timeout()) {
            // A signal came first.
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if events.iter().any(|event| event.token() == DATAGRAMS) {
            relay(&udp, server.clients())?;
        }
        if let Some(report) = server.poll(Some(Duration::ZERO), |_, event| println!("{event:?}"))? {
            return Ok(report);
        }
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let port = std::env::args().nth(1).map_or(Ok(9001), |port| port.parse())?;
    let server = Server::bind(("127.0.0.1", port), Config::default())?;
    run(server, UdpSocket::bind(([127, 0, 0, 1], port).into())?)?;
    Ok(())
}
