//! Listeners: accept until `WouldBlock`; rest when the process has no descriptors left. No connection is looked at here.

use std::{
    io,
    net::{SocketAddr, ToSocketAddrs},
    os::fd::OwnedFd,
    path::Path,
};

use mio::{
    Interest, Registry, Token,
    net::{TcpListener, TcpStream, UnixListener},
};
use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::unix;
use crate::{
    config::{ListenerConfig, ProxyProtocol},
    error::BindError,
    hub::Newcomer,
};

/// A socket that listens already: bound with options of its own, inherited, or received from another process.
#[derive(Debug)]
#[non_exhaustive]
pub enum ListeningSocket {
    /// By TCP.
    Tcp(std::net::TcpListener),
    /// In the Unix domain.
    Unix(std::os::unix::net::UnixListener),
}

impl From<std::net::TcpListener> for ListeningSocket {
    fn from(socket: std::net::TcpListener) -> Self {
        Self::Tcp(socket)
    }
}

impl From<std::os::unix::net::UnixListener> for ListeningSocket {
    fn from(socket: std::os::unix::net::UnixListener) -> Self {
        Self::Unix(socket)
    }
}

impl ListeningSocket {
    /// The address; `None` of a Unix domain socket.
    pub fn local_addr(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(socket) => socket.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// One more descriptor of the same socket: a new connection is accepted by the first descriptor that asks.
    ///
    /// # Errors
    /// If the system has no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(match self {
            Self::Tcp(socket) => socket.try_clone()?.into(),
            Self::Unix(socket) => socket.try_clone()?.into(),
        })
    }

    /// Binds the first address that can be bound.
    pub(super) fn bind(
        address: impl ToSocketAddrs,
        settings: &ListenerConfig,
        sharing: Sharing,
    ) -> Result<Self, BindError> {
        let mut last = BindError::NoAddress;
        for address in address.to_socket_addrs().map_err(BindError::Resolve)? {
            match open(address, settings, sharing) {
                Ok(socket) => return Ok(Self::Tcp(socket)),
                Err(source) => last = BindError::Listen { address, source },
            }
        }
        Err(last)
    }

    /// Binds a path. Nothing that is there already is removed.
    pub(super) fn bind_unix(path: &Path, settings: &ListenerConfig) -> Result<Self, BindError> {
        let open = || -> io::Result<_> {
            let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
            socket.bind(&SockAddr::unix(path)?)?;
            socket.listen(backlog(settings))?;
            Ok(Self::Unix(socket.into()))
        };
        open().map_err(|source| BindError::ListenUnix { path: path.to_owned(), source })
    }
}

/// Whether other loops of the same server are bound to the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sharing {
    Alone,
    /// Others will be.
    First,
    Further,
}

/// One listening socket and what is set for it.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Watched,
    state: State,
    /// Connections accepted per turn.
    batch: usize,
    /// A lasting error was reported, and no connection accepted since.
    failing: bool,
    proxy_protocol: Option<ProxyProtocol>,
    #[cfg(feature = "tls")]
    tls: Option<crate::config::ServerTls>,
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

#[derive(Debug)]
enum Watched {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Watched {
    /// The stream of either kind, see [`Sockets`](super::socket::Sockets).
    fn accept(&self) -> io::Result<(TcpStream, Newcomer)> {
        match self {
            Self::Tcp(socket) => socket.accept().map(|(stream, peer)| (stream, Newcomer::tcp(peer))),
            Self::Unix(socket) => socket.accept().map(|(stream, _)| {
                let newcomer = Newcomer::unix(unix::credentials(&stream));
                let stream = OwnedFd::from(std::os::unix::net::UnixStream::from(stream));
                (TcpStream::from_std(stream.into()), newcomer)
            }),
        }
    }
}

impl Listener {
    /// Watches a socket, which becomes non-blocking. `TCP_NODELAY` is set here: accepted sockets inherit it on Linux, so it costs no
    /// call for each.
    pub(super) fn watch(
        socket: ListeningSocket,
        settings: &ListenerConfig,
        registry: &Registry,
        token: Token,
    ) -> io::Result<Self> {
        let socket = match socket {
            ListeningSocket::Tcp(socket) => {
                socket.set_nonblocking(true)?;
                SockRef::from(&socket).set_tcp_nodelay(true)?;
                let mut socket = TcpListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE)?;
                Watched::Tcp(socket)
            }
            ListeningSocket::Unix(socket) => {
                socket.set_nonblocking(true)?;
                let mut socket = UnixListener::from_std(socket);
                registry.register(&mut socket, token, Interest::READABLE)?;
                Watched::Unix(socket)
            }
        };
        Ok(Self {
            socket,
            state: State::Drained,
            batch: settings.accept_batch,
            failing: false,
            proxy_protocol: settings.proxy_protocol.clone(),
            #[cfg(feature = "tls")]
            tls: settings.tls.clone(),
        })
    }

    /// What the connections begin with, if they do not begin plain.
    #[cfg(feature = "tls")]
    pub(super) fn tls(&self) -> Option<crate::config::ServerTls> {
        self.tls.clone()
    }

    /// Closes it. Another process may have the same socket, and then what connects to that would go on waking us.
    pub(super) fn close(mut self, registry: &Registry) {
        let _ = match &mut self.socket {
            Watched::Tcp(socket) => registry.deregister(socket),
            Watched::Unix(socket) => registry.deregister(socket),
        };
    }

    /// The address; `None` of a Unix domain socket.
    pub(super) fn local_addr(&self) -> Option<SocketAddr> {
        match &self.socket {
            Watched::Tcp(socket) => socket.local_addr().ok(),
            Watched::Unix(_) => None,
        }
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

    /// What the settings of this listener add to what the system says.
    fn introduce(&self, newcomer: Newcomer) -> Newcomer {
        let newcomer = match &self.proxy_protocol {
            Some(settings) => newcomer.proxy_protocol(settings),
            None => newcomer,
        };
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            return newcomer.then_tls();
        }
        newcomer
    }

    /// Accepts what waits, up to a batch. `failed` gets every error: those of one connection, after which the next one is accepted,
    /// and the one that makes the listener rest, with `true` for the first such error since a connection was accepted.
    pub(super) fn accept(
        &mut self,
        mut take: impl FnMut(TcpStream, Newcomer),
        mut failed: impl FnMut(io::Error, bool),
    ) {
        self.state = State::More;
        for _ in 0..self.batch {
            match self.socket.accept() {
                Ok((stream, newcomer)) => {
                    self.failing = false;
                    take(stream, self.introduce(newcomer));
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

fn open(
    address: SocketAddr,
    settings: &ListenerConfig,
    sharing: Sharing,
) -> io::Result<std::net::TcpListener> {
    if sharing == Sharing::First && !settings.reuse_port {
        // What the loops need lets in other processes of the same user, too. A server that has the port already is found without it.
        bound(address, settings, false)?;
    }
    let socket = bound(address, settings, sharing != Sharing::Alone || settings.reuse_port)?;
    socket.listen(backlog(settings))?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, settings: &ListenerConfig, reuse_port: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    // Some systems do not let it be cleared, and on those it is set.
    if address.is_ipv6() && socket.only_v6()? != settings.only_v6 {
        socket.set_only_v6(settings.only_v6)?;
    }
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    Ok(socket)
}

fn backlog(settings: &ListenerConfig) -> i32 {
    i32::try_from(settings.listen_backlog).unwrap_or(i32::MAX)
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
