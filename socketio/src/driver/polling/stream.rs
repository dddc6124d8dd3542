//! The stream of a detached connection: first the bytes that the loop had read, then the socket. It notes what it is at.

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

pub(super) struct Io {
    /// What is left of what the loop had read.
    received: Bytes,
    stream: TcpStream,
    activity: Rc<RefCell<Activity>>,
}

impl Io {
    pub(super) fn new(stream: TcpStream, received: Vec<u8>, activity: Rc<RefCell<Activity>>) -> Self {
        Self { received: received.into(), stream, activity }
    }

    /// Writes what the socket takes at once, a short text as a rule.
    pub(super) fn write_once(&self, bytes: &[u8]) {
        let _ = self.stream.try_write(bytes);
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
            ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
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
        let result = Pin::new(&mut self.stream).poll_write(cx, bytes);
        self.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let result = Pin::new(&mut self.stream).poll_write_vectored(cx, slices);
        self.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_flush(cx))?;
        self.activity.borrow_mut().flushed(Instant::now());
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
