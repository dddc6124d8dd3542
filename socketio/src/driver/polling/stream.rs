//! The stream of an HTTP connection: what the loop had read, then the socket, or its TLS session. It notes what it is at.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::activity::Activity;
#[cfg(feature = "tls")]
use super::tls::TlsIo;

/// What carries a connection, registered with the runtime.
pub(super) enum Carrier {
    Tcp(TcpStream),
    #[cfg(feature = "tls")]
    Tls(TlsIo),
}

/// What carries a connection, as the loop hands it over.
pub(in crate::driver) enum Handed {
    Tcp(std::net::TcpStream),
    #[cfg(feature = "tls")]
    Tls(adjourn::tls::TlsStream),
}

pub(super) struct Io {
    /// What is left of what the loop had read.
    received: Bytes,
    carrier: Carrier,
    activity: Rc<RefCell<Activity>>,
}

impl Handed {
    /// To be called on the HTTP thread.
    pub(super) fn register(self) -> io::Result<Carrier> {
        match self {
            Self::Tcp(stream) => TcpStream::from_std(stream).map(Carrier::Tcp),
            #[cfg(feature = "tls")]
            Self::Tls(stream) => TlsIo::new(stream).map(Carrier::Tls),
        }
    }
}

impl Io {
    pub(super) fn new(carrier: Carrier, received: Vec<u8>, activity: Rc<RefCell<Activity>>) -> Self {
        Self { received: received.into(), carrier, activity }
    }

    /// Writes what the socket takes at once, a short text as a rule.
    pub(super) fn write_once(&mut self, bytes: &[u8]) {
        match &mut self.carrier {
            Carrier::Tcp(stream) => {
                let _ = stream.try_write(bytes);
            }
            #[cfg(feature = "tls")]
            Carrier::Tls(stream) => stream.write_once(bytes),
        }
    }

    fn wrote(&self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        let mut activity = self.activity.borrow_mut();
        match result {
            Poll::Ready(_) => activity.wrote(),
            Poll::Pending => activity.blocked(Instant::now()),
        }
        result
    }
}

impl AsyncRead for Io {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.received.is_empty() {
            let before = buffer.filled().len();
            ready!(match &mut self.carrier {
                Carrier::Tcp(stream) => Pin::new(stream).poll_read(cx, buffer),
                #[cfg(feature = "tls")]
                Carrier::Tls(stream) => stream.poll_read(cx, buffer),
            })?;
            if buffer.filled().len() == before {
                return Poll::Ready(Ok(()));
            }
        } else {
            let part = self.received.len().min(buffer.remaining());
            buffer.put_slice(self.received.get(..part).unwrap_or_default());
            self.received.advance(part);
        }
        self.activity.borrow_mut().received(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Io {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let result = match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write(cx, bytes),
            #[cfg(feature = "tls")]
            Carrier::Tls(stream) => stream.poll_write(cx, bytes),
        };
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
            // Without `is_write_vectored` hyper makes one slice of a small response.
            #[cfg(feature = "tls")]
            Carrier::Tls(stream) => {
                let first = slices.iter().find(|slice| !slice.is_empty());
                stream.poll_write(cx, first.map_or(&[], |slice| slice))
            }
        };
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Carrier::Tcp(stream) => stream.is_write_vectored(),
            #[cfg(feature = "tls")]
            Carrier::Tls(_) => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_flush(cx),
            // What is encrypted and not written yet: the peer takes nothing.
            #[cfg(feature = "tls")]
            Carrier::Tls(stream) => {
                let flushed = stream.poll_flush(cx);
                if flushed.is_pending() {
                    self.activity.borrow_mut().blocked(Instant::now());
                }
                flushed
            }
        })?;
        self.activity.borrow_mut().flushed(Instant::now());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.carrier {
            Carrier::Tcp(stream) => Pin::new(stream).poll_shutdown(cx),
            #[cfg(feature = "tls")]
            Carrier::Tls(stream) => stream.poll_shutdown(cx),
        }
    }
}
