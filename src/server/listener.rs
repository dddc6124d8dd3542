//! Listeners: accept until `WouldBlock`; rest when the process has no descriptors left.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{config::Config, error::BindError};

/// Connections accepted per turn, so that a flood of them leaves time for those that are there.
const BATCH: usize = 256;

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// An event will say when there is more.
    Drained,
    /// There may be more.
    More,
    /// There is more, and no descriptor for it.
    Resting,
}

impl Listener {
    /// Binds the first address that can be bound. `TCP_NODELAY` is set here: accepted sockets inherit it on Linux, so it
    /// costs no call for each. With `shared` several loops may bind the same port.
    pub(super) fn bind(
        address: impl ToSocketAddrs,
        config: &Config,
        shared: bool,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, BindError> {
        let mut last = BindError::NoAddress;
        for address in address.to_socket_addrs().map_err(BindError::Resolve)? {
            match open(address, config, shared) {
                Ok(socket) => {
                    let mut socket = TcpListener::from_std(socket);
                    registry.register(&mut socket, token, Interest::READABLE).map_err(BindError::Poll)?;
                    return Ok(Self { socket, state: State::Drained });
                }
                Err(source) => last = BindError::Listen { address, source },
            }
        }
        Err(last)
    }

    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        self.socket.local_addr().ok()
    }

    pub(super) fn is_resting(&self) -> bool {
        self.state == State::Resting
    }

    pub(super) fn has_more(&self) -> bool {
        self.state == State::More
    }

    /// Accepts what waits, up to a batch.
    pub(super) fn accept(&mut self, mut take: impl FnMut(TcpStream, SocketAddr)) {
        for _ in 0..BATCH {
            match self.socket.accept() {
                Ok((stream, peer)) => take(stream, peer),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.state = State::Drained;
                    return;
                }
                // The connection that was to be accepted failed already (ECONNABORTED and its like): the next one.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // No descriptor is left (EMFILE, ENFILE, ENOBUFS, ENOMEM: the connection stays in the kernel's queue), or
                // something else that may last: try again later rather than at once.
                Err(_) => {
                    self.state = State::Resting;
                    return;
                }
            }
        }
        self.state = State::More;
    }
}

fn open(address: SocketAddr, config: &Config, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(config.listen_backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}
