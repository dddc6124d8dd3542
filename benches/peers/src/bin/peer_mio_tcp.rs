//! The floor: what mio and the kernel cost, and nothing else. Replies are written when they are known.

use adjourn_peers::floor::Server;
use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::time::Instant;

const LISTENER: Token = Token(usize::MAX);
const SIGTERM: Token = Token(usize::MAX - 1);

fn main() -> io::Result<()> {
    let mut listener = TcpListener::from_std(adjourn_peers::listen(adjourn_peers::port_from_args())?);
    let sigterm = adjourn_peers::sigterm_fd()?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&sigterm.as_raw_fd()), SIGTERM, Interest::READABLE)?;
    let mut listener = Some(listener);
    let mut events = Events::with_capacity(1024);
    let mut server = Server::new(true);
    let mut deadline: Option<Instant> = None;
    while listener.is_some() || !server.is_empty() {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            break;
        }
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => {
                    if let Some(listener) = &listener {
                        accept(listener, &mut server, &poll)?;
                    }
                }
                SIGTERM => {
                    deadline = Some(Instant::now() + adjourn_peers::grace());
                    listener = None;
                    server.close_all();
                }
                Token(key) => server.ready(key, event.is_readable(), event.is_writable()),
            }
        }
    }
    Ok(())
}

fn accept(listener: &TcpListener, server: &mut Server<TcpStream>, poll: &Poll) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => server.insert(stream, |stream, key| {
                poll.registry().register(stream, Token(key), Interest::READABLE | Interest::WRITABLE)
            })?,
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}
