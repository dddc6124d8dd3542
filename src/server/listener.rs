//! Listeners: accept until `WouldBlock`; rest when the process has no descriptors left. No connection is looked at here.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
};

use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream},
};
use socket2::{Domain, Protocol, Socket, Type};

use crate::{config::ListenerConfig, error::BindError};

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    socket: TcpListener,
    state: State,
    /// Connections accepted per turn.
    batch: usize,
    /// A lasting error was reported, and no connection accepted since.
    failing: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The poll says when there is more.
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
        settings: &ListenerConfig,
        shared: bool,
        registry: &Registry,
        token: Token,
    ) -> Result<Self, BindError> {
        let mut last = BindError::NoAddress;
        for address in address.to_socket_addrs().map_err(BindError::Resolve)? {
            match open(address, settings, shared) {
                Ok(socket) => {
                    return Self::watch(socket, settings, registry, token).map_err(BindError::Poll);
                }
                Err(source) => last = BindError::Listen { address, source },
            }
        }
        Err(last)
    }

    /// Watches a socket that listens already, in non-blocking mode.
    pub(super) fn watch(
        socket: std::net::TcpListener,
        settings: &ListenerConfig,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let mut socket = TcpListener::from_std(socket);
        registry.register(&mut socket, token, Interest::READABLE)?;
        Ok(Self { socket, state: State::Drained, batch: settings.accept_batch, failing: false })
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

    /// What waits is the next turn's.
    pub(super) fn put_off(&mut self) {
        self.state = State::More;
    }

    /// Accepts what waits, up to a batch. `failed` gets every error: those of one connection, after which the next one is accepted,
    /// and the one that makes the listener rest, with `true` for the first such error since a connection was accepted.
    pub(super) fn accept(
        &mut self,
        mut take: impl FnMut(TcpStream, SocketAddr),
        mut failed: impl FnMut(io::Error, bool),
    ) {
        self.state = State::More;
        for _ in 0..self.batch {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    self.failing = false;
                    take(stream, peer);
                }
                Err(error) => match Failure::of(&error) {
                    Failure::Drained => {
                        self.state = State::Drained;
                        return;
                    }
                    Failure::Interrupted => {}
                    Failure::OneConnection => failed(error, false),
                    Failure::Lasting => {
                        failed(error, !std::mem::replace(&mut self.failing, true));
                        self.state = State::Resting;
                        return;
                    }
                },
            }
        }
    }
}

/// What a failed `accept` means for the next one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    /// No connection waits.
    Drained,
    /// A signal came first: again.
    Interrupted,
    /// The connection that was to be accepted has failed already; Linux reports errors of its network here, too. A peer can
    /// cause them, so the others do not wait for it.
    OneConnection,
    /// No descriptor or memory is left (EMFILE, ENFILE, ENOBUFS, ENOMEM), so the connection stays in the kernel's queue; or
    /// an error that is not known, which may last as well.
    Lasting,
}

impl Failure {
    fn of(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::WouldBlock => Self::Drained,
            io::ErrorKind::Interrupted => Self::Interrupted,
            io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
            | io::ErrorKind::TimedOut => Self::OneConnection,
            _ if error.raw_os_error() == Some(rustix::io::Errno::PROTO.raw_os_error()) => Self::OneConnection,
            _ => Self::Lasting,
        }
    }
}

fn open(address: SocketAddr, settings: &ListenerConfig, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn one_bad_connection_does_not_make_the_others_wait() {
        let rows = [
            (Errno::AGAIN, Failure::Drained),
            (Errno::INTR, Failure::Interrupted),
            (Errno::CONNABORTED, Failure::OneConnection),
            (Errno::PROTO, Failure::OneConnection),
            (Errno::NETDOWN, Failure::OneConnection),
            (Errno::NETUNREACH, Failure::OneConnection),
            (Errno::HOSTUNREACH, Failure::OneConnection),
            (Errno::MFILE, Failure::Lasting),
            (Errno::NFILE, Failure::Lasting),
            (Errno::NOBUFS, Failure::Lasting),
            (Errno::NOMEM, Failure::Lasting),
            (Errno::PERM, Failure::Lasting),
        ];
        for (errno, expected) in rows {
            assert_eq!(Failure::of(&errno.into()), expected, "{errno:?}");
        }
    }
}
