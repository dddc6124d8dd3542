//! The lower floor: what the kernel costs a server that reads all ready sockets first and then sends all replies, without mio.

use adjourn_peers::{epoll::Epoll, floor::Server};
use std::io::{self, ErrorKind};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

const LISTENER: usize = usize::MAX;
const SIGTERM: usize = usize::MAX - 1;

fn main() -> io::Result<()> {
    let listener = adjourn_peers::listen(adjourn_peers::port_from_args())?;
    let sigterm = adjourn_peers::sigterm_fd()?;
    let mut epoll = Epoll::new()?;
    epoll.add(listener.as_raw_fd(), LISTENER)?;
    epoll.add(sigterm.as_raw_fd(), SIGTERM)?;
    let mut listener = Some(listener);
    let mut server = Server::new(false);
    let mut deadline: Option<Instant> = None;
    while listener.is_some() || !server.is_empty() {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            break;
        }
        for index in 0..epoll.wait(timeout.unwrap_or(Duration::from_secs(1_000_000)))? {
            let ready = epoll.get(index);
            match ready.key {
                LISTENER => {
                    if let Some(listener) = &listener {
                        accept(listener, &mut server, &epoll)?;
                    }
                }
                SIGTERM => {
                    deadline = Some(Instant::now() + adjourn_peers::grace());
                    listener = None;
                    server.close_all();
                }
                key => server.ready(key, ready.readable || ready.ended, ready.writable),
            }
        }
        server.write_all();
    }
    Ok(())
}

fn accept(listener: &TcpListener, server: &mut Server<TcpStream>, epoll: &Epoll) -> io::Result<()> {
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                stream.set_nonblocking(true)?;
                server.insert(stream, |stream, key| epoll.add(stream.as_raw_fd(), key))?;
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
            Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
            Err(error) => return Err(error),
        }
    }
}
