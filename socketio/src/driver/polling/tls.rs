//! A TLS session that the loop hands over, as tokio reads and writes it. The session is adjourn's; only the waiting is done here.

use std::io::{self, Read as _, Write as _};
use std::task::{Context, Poll, ready};

use adjourn::tls::TlsStream;
use tokio::io::{Interest, ReadBuf};
use tokio::net::TcpStream;

pub(super) struct TlsIo {
    stream: TlsStream,
    /// The socket once more, for tokio to watch: without `unsafe` it watches only what it owns. Nothing is read from it.
    readiness: TcpStream,
}

impl TlsIo {
    /// To be called within the runtime. Takes one descriptor more.
    pub(super) fn new(stream: TlsStream) -> io::Result<Self> {
        let readiness = TcpStream::from_std(stream.socket().try_clone()?)?;
        Ok(Self { stream, readiness })
    }

    /// Writes what the socket takes at once.
    pub(super) fn write_once(&mut self, bytes: &[u8]) {
        let _ = self.stream.write(bytes).and_then(|_| self.stream.flush());
    }

    pub(super) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read =
            ready!(self.poll(cx, Interest::READABLE, |stream| stream.read(buffer.initialize_unfilled())))?;
        buffer.advance(read);
        Poll::Ready(Ok(()))
    }

    pub(super) fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll(cx, Interest::WRITABLE, |stream| stream.write(bytes))
    }

    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Interest::WRITABLE, io::Write::flush)
    }

    /// `close_notify`, then FIN.
    pub(super) fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll(cx, Interest::WRITABLE, TlsStream::shutdown_write)
    }

    /// Calls `act` until the socket has what it waits for; first without a look at the socket, since the session may hold what was
    /// decrypted already.
    fn poll<T>(
        &mut self,
        cx: &mut Context<'_>,
        interest: Interest,
        mut act: impl FnMut(&mut TlsStream) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        let Self { stream, readiness } = self;
        let mut result = act(stream);
        loop {
            match result {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return Poll::Ready(result),
            }
            ready!(if interest.is_readable() {
                readiness.poll_read_ready(cx)
            } else {
                readiness.poll_write_ready(cx)
            })?;
            // Found not ready, it is watched anew.
            result = readiness.try_io(interest, || act(stream));
        }
    }
}
