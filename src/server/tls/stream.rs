//! A TLS connection that an application has taken out of the loop: its socket and its session, as a stream.

use std::{
    fmt,
    io::{self, IoSlice, Read, Write},
    net::{Shutdown, TcpStream},
};

use super::session::{Raw, Scratch, Session};
use crate::detach::SecureStream;

pub(super) struct TlsSocket {
    socket: Socket,
    session: Box<Session>,
    scratch: Scratch,
    /// What is to be written before FIN, `close_notify` last, once our side is ended.
    ending: Option<Vec<u8>>,
}

struct Socket {
    stream: TcpStream,
    /// The last read has found nothing.
    drained: bool,
}

impl Raw for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = self.stream.read(buffer);
        self.drained = result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
        result
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }
}

impl TlsSocket {
    pub(super) fn new(socket: TcpStream, session: Box<Session>) -> Self {
        let socket = Socket { stream: socket, drained: false };
        Self { socket, session, scratch: Scratch::default(), ending: None }
    }
}

impl Read for TlsSocket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.session.has_ended() {
            // A blocking socket would wait for the FIN, which need not come.
            return Ok(0);
        }
        loop {
            let result = self.session.read(&mut self.socket, &mut self.scratch, buffer);
            match result {
                // Records that are not for the reader: on to the next ones.
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // It was a part of a record. A blocking socket waits for the rest.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock && !self.socket.drained => {}
                result => return result,
            }
        }
    }
}

impl Write for TlsSocket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.ending.is_some() {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let result = self.session.write(&mut self.socket, &mut self.scratch, &[IoSlice::new(bytes)]);
        // What is encrypted is taken: the next write may be of other bytes.
        match (result, self.session.report_ahead()) {
            (Ok(taken), ahead) => Ok(taken + ahead),
            (Err(error), ahead) if ahead > 0 && error.kind() == io::ErrorKind::WouldBlock => Ok(ahead),
            (Err(error), _) => Err(error),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.flush(&mut self.socket)?;
        if self.session.wants_write() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
    }
}

impl SecureStream for TlsSocket {
    fn socket(&self) -> &TcpStream {
        &self.socket.stream
    }

    fn shutdown_write(&mut self) -> io::Result<()> {
        let Self { socket, session, ending, .. } = self;
        let rest = ending.get_or_insert_with(|| session.end());
        super::session::flush(rest, socket)?;
        if rest.is_empty() {
            socket.stream.shutdown(Shutdown::Write)
        } else {
            Err(io::ErrorKind::WouldBlock.into())
        }
    }
}

impl fmt::Debug for TlsSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsSocket").field("socket", &self.socket.stream).finish_non_exhaustive()
    }
}
