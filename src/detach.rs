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
/// and what followed it, the beginning of a body or of a further request. The new server reads these bytes before it reads from the stream.
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
    /// The same, with its TLS session.
    #[cfg(feature = "tls")]
    Tls(TlsStream),
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

    /// The same for a plain TCP socket; `None` if it is none: a Unix domain socket, TLS, or a test in memory.
    ///
    /// The socket is non-blocking: call [`TcpStream::set_nonblocking`] before blocking reads.
    pub fn into_tcp(self) -> Option<(TcpStream, Vec<u8>)> {
        match self.stream {
            DetachedStream::Tcp(stream) => Some((stream, self.received)),
            #[cfg(feature = "tls")]
            DetachedStream::Tls(_) => None,
            DetachedStream::Unix(_) | DetachedStream::Memory => None,
        }
    }
}

/// A TLS connection that was taken out of the loop: plaintext is read and written, and the session goes on. The socket is non-blocking
/// as it was accepted; then reads and writes return `WouldBlock` as a socket's do, and [`Write::flush`](std::io::Write::flush) has to be called
/// again until it succeeds, when the socket is writable: the last record may still wait here.
///
/// Reading returns zero after the peer's `close_notify`, and after a FIN without one. Dropping it closes the socket without `close_notify`:
/// call [`TlsStream::shutdown_write`] first.
#[cfg(feature = "tls")]
#[derive(Debug)]
pub struct TlsStream(Box<dyn SecureStream + Send>);

/// What a [`TlsStream`] is made of; the session is the server's business.
#[cfg(feature = "tls")]
pub(crate) trait SecureStream: std::io::Read + std::io::Write + fmt::Debug {
    fn socket(&self) -> &TcpStream;
    fn shutdown_write(&mut self) -> std::io::Result<()>;
}

#[cfg(feature = "tls")]
impl TlsStream {
    pub(crate) fn new(stream: impl SecureStream + Send + 'static) -> Self {
        Self(Box::new(stream))
    }

    /// The socket, to be watched or set up; one of the Unix domain is seen as one of TCP. What is read from it or written to it directly breaks the session.
    pub fn socket(&self) -> &TcpStream {
        self.0.socket()
    }

    /// Sends what was written before, `close_notify`, and FIN after it. Nothing can be written any more.
    ///
    /// # Errors
    /// The socket's. After `WouldBlock` call it again when the socket is writable: it is not done yet.
    pub fn shutdown_write(&mut self) -> std::io::Result<()> {
        self.0.shutdown_write()
    }
}

#[cfg(feature = "tls")]
impl std::io::Read for TlsStream {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.read(buffer)
    }
}

#[cfg(feature = "tls")]
impl std::io::Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

#[cfg(feature = "tls")]
impl std::os::fd::AsFd for TlsStream {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.socket().as_fd()
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
