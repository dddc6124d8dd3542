//! What a loop needs from the world: bytes in and out, ends, and a clock. Nothing here decides anything.

use std::{
    io::{self, IoSlice},
    time::Duration,
};

#[cfg(feature = "tls")]
use crate::config::{ClientTls, TlsSession};
use crate::{
    conn::{Ahead, Target},
    detach::DetachedStream,
    id::ConnectionId,
    time::Time,
};

/// What carries the bytes of a loop's connections, and its clock. Connections are named by their slots: small numbers that
/// are used again after [`Transport::close`] or [`Transport::detach`].
///
/// Nothing here may block. The errors are those of a socket; `WouldBlock` and `Interrupted` are none.
pub trait Transport {
    /// Reads into `buffer`. Zero is the peer's FIN. Less than fits says that there is no more for now.
    ///
    /// # Errors
    /// `WouldBlock` if there is nothing: [`Readiness`] will say when there is.
    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize>;

    /// Writes what it can take of `slices`. A short count says that it takes no more for now, and so does `WouldBlock`;
    /// [`Transport::await_writable`] is called then.
    ///
    /// # Errors
    /// What keeps it from ever taking more.
    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// A write came short: [`Readiness::writable`] is to say when there is room again. `closing`: the connection closes, and
    /// the less of its backlog is out of reach, the sooner its Close gets through.
    ///
    /// # Errors
    /// If it can not be watched.
    fn await_writable(&mut self, slot: usize, closing: bool) -> io::Result<()>;

    /// Sends FIN after what was written.
    fn shutdown_write(&mut self, slot: usize);

    /// Ends the connection of a slot and forgets it: by RST if `reset` says so.
    fn close(&mut self, slot: usize, reset: bool);

    /// Takes the connection of a slot out, as it is, for the application: nothing is shut down or closed. `None` if it is gone.
    fn detach(&mut self, slot: usize) -> Option<DetachedStream>;

    /// Begins a connection of ours in `slot`, in place of an earlier attempt, or looks up its name. The outcome is for
    /// [`Transport::connected`] or [`Driver::handle_resolved`](super::Driver::handle_resolved).
    ///
    /// # Errors
    /// If it fails at once.
    fn connect(&mut self, slot: usize, id: ConnectionId, target: Target<'_>) -> io::Result<()>;

    /// A slot that connects became writable: whether the connection is there, or not yet.
    ///
    /// # Errors
    /// Why it will not be.
    fn connected(&mut self, slot: usize) -> io::Result<bool>;

    /// The error that a socket has failed with, if it has: for one that is not read. Returned once.
    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind>;

    /// Bytes that were written and not acknowledged by the peer. `None` if that is not known.
    fn unsent(&mut self, slot: usize) -> Option<u32>;

    /// Readiness of this slot, as the connection is to have it: a layer of this transport may have dealt with it, or a part of it.
    #[inline]
    fn ready(&mut self, _slot: usize, readiness: Readiness) -> Readiness {
        readiness
    }

    /// What the last read has found besides its bytes. Asked once after each read, also after one that failed.
    #[inline]
    fn noticed(&mut self, _slot: usize) -> Noticed {
        Noticed::default()
    }

    /// What a layer has done with bytes that the last write was offered and did not report as taken.
    #[inline]
    fn ahead(&mut self, _slot: usize) -> Ahead {
        Ahead::default()
    }

    /// Whether the FIN that was read came without the end that a layer has for it.
    #[inline]
    fn is_truncated(&mut self, _slot: usize) -> bool {
        false
    }

    /// A TCP connection of ours is there, and goes on in TLS. `host` is the URL's.
    ///
    /// # Errors
    /// If it cannot.
    #[cfg(feature = "tls")]
    fn secure(&mut self, _slot: usize, _host: &str, _config: &ClientTls) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The PROXY header of an accepted connection is complete, or there is none, and it goes on in TLS. `early` was read after the header.
    ///
    /// # Errors
    /// If it cannot.
    #[cfg(feature = "tls")]
    fn secure_accepted(&mut self, _slot: usize, _early: &[u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The time. It never goes back.
    fn now(&mut self) -> Time;

    /// How long it is since this was called last, by a clock that is cheap to read and may be coarse; `None` if it has not
    /// moved.
    fn lap(&mut self) -> Option<Duration>;
}

/// What a read has found besides its bytes. A socket finds nothing; a layer over one may.
#[derive(Debug, Default)]
pub struct Noticed {
    /// There may be more to read although the buffer was not filled.
    pub more: bool,
    /// There may be room for writes, as by [`Readiness::writable`].
    pub writable: bool,
    /// Bytes that came and are none of the connection's: its peer is there, and they count for the turn's budget. More than came, if
    /// much had to be computed for them.
    pub beside: usize,
    /// The TLS handshake is complete.
    #[cfg(feature = "tls")]
    pub secured: Option<Box<TlsSession>>,
}

impl Noticed {
    #[inline]
    pub(super) const fn is_nothing(&self) -> bool {
        #[cfg(feature = "tls")]
        if self.secured.is_some() {
            return false;
        }
        !self.more && !self.writable && self.beside == 0
    }
}

/// What a socket has become, as an edge: it is said once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// There may be something to read.
    pub readable: bool,
    /// There may be room for writes.
    pub writable: bool,
    /// A FIN or an error comes after what there is to read.
    pub ended: bool,
}
