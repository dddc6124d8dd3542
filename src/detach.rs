//! A connection that an application takes out of the loop: what it gets, and what is kept until it gets it. Nothing is read or
//! written here.

use std::{
    fmt,
    net::{SocketAddr, TcpStream},
    os::unix::net::UnixStream,
};

/// The connection of a plain HTTP request, taken out of the loop by [`Upgrade::Detach`](crate::http::Upgrade::Detach).
///
/// Nothing was written to it. What was read of it is in [`Detached::received`]: the head of the request, which is complete,
/// and what followed it, the beginning of a body or of a further request. Whoever serves it reads all of this again before the stream.
pub struct Detached {
    stream: DetachedStream,
    peer: SocketAddr,
    received: Vec<u8>,
    head_len: usize,
}

/// What carries a detached connection.
#[derive(Debug)]
#[non_exhaustive]
pub enum DetachedStream {
    /// The socket as it was accepted: non-blocking, with `TCP_NODELAY`.
    Tcp(TcpStream),
    /// The same of a Unix domain socket.
    Unix(UnixStream),
    /// There is no socket: [`testing`](crate::testing) and other transports in memory.
    Memory,
}

impl Detached {
    /// The peer's address: `0.0.0.0:0` of one on a Unix domain socket.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// Every byte that was read: the head, its empty line included, and what followed it.
    pub fn received(&self) -> &[u8] {
        &self.received
    }

    /// The head of the request as it came.
    pub fn head(&self) -> &[u8] {
        self.received.get(..self.head_len).unwrap_or(&self.received)
    }

    /// What was read after the head. The rest of a body is still to come.
    pub fn rest(&self) -> &[u8] {
        self.received.get(self.head_len..).unwrap_or_default()
    }

    /// The stream, and every byte that was read of it. Allocates nothing.
    pub fn into_parts(self) -> (DetachedStream, Vec<u8>) {
        (self.stream, self.received)
    }

    /// The same for a TCP socket; `None` if it is none: a Unix domain socket, or a test in memory.
    ///
    /// The socket is non-blocking: call [`TcpStream::set_nonblocking`] before blocking reads.
    pub fn into_tcp(self) -> Option<(TcpStream, Vec<u8>)> {
        match self.stream {
            DetachedStream::Tcp(stream) => Some((stream, self.received)),
            DetachedStream::Unix(_) | DetachedStream::Memory => None,
        }
    }
}

/// Without what was received: a log is no place for cookies.
impl fmt::Debug for Detached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Detached")
            .field("stream", &self.stream)
            .field("peer", &self.peer)
            .field("received", &self.received.len())
            .finish_non_exhaustive()
    }
}

/// What an application gives to have a connection: called once, on the loop's thread, with the connection.
pub(crate) type Take = Box<dyn FnOnce(Detached) + Send>;

/// A connection that is about to leave the loop: everything but its stream.
pub struct Handover {
    take: Take,
    peer: SocketAddr,
    received: Vec<u8>,
    head_len: usize,
}

impl Handover {
    /// `received` begins with a head of `head_len` bytes.
    pub(crate) fn new(take: Take, peer: SocketAddr, received: Vec<u8>, head_len: usize) -> Self {
        Self { take, peer, received, head_len }
    }

    /// Calls the application.
    pub(crate) fn give(self, stream: DetachedStream) {
        let Self { take, peer, received, head_len } = self;
        take(Detached { stream, peer, received, head_len });
    }
}

impl fmt::Debug for Handover {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handover").field("peer", &self.peer).finish_non_exhaustive()
    }
}
