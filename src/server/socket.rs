//! The transport over sockets: read, write, FIN, reset, connect, and the clocks.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Interest, Poll, Token, net::TcpStream};
use socket2::SockRef;

use super::{mailbox::Shared, platform, resolver::Resolver, unix::is_unix};
use crate::{
    config::Config, conn::Target, detach::DetachedStream, hub::Transport, id::ConnectionId, time::Time,
};

/// The sockets of all connections by slot (four bytes each, and one more), and the poll that waits for them. Unix sockets are held by
/// their descriptors like the others: what is done to a stream socket does not depend on its family, except where [`is_unix`] is
/// called.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) poll: Poll,
    pub(super) resolver: Resolver,
    pub(super) shared: Arc<Shared>,
    streams: Vec<Option<TcpStream>>,
    watches: Vec<Watch>,
    used: usize,
    /// What the kernel may hold for a connection that closes with a backlog.
    #[cfg_attr(not(target_os = "linux"), allow(dead_code))]
    notsent_lowat: Option<u32>,
    start: Instant,
    watch: Stopwatch,
}

/// What is watched for besides input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Nothing,
    /// Room for writes: from the first time on that the kernel took less than it was offered, and for connects of ours.
    /// Being edge-triggered it costs nothing afterwards.
    Writes,
}

impl Sockets {
    pub(super) fn new(poll: Poll, shared: Arc<Shared>, config: &Config) -> Self {
        Self {
            poll,
            resolver: Resolver::new(config.client.resolver_threads),
            shared,
            streams: Vec::new(),
            watches: Vec::new(),
            used: 0,
            notsent_lowat: config.event_loop.notsent_lowat,
            start: Instant::now(),
            watch: Stopwatch::default(),
        }
    }

    /// Takes in a socket for `slot` and watches it.
    ///
    /// # Errors
    /// If the system does not watch one more.
    pub(super) fn insert(&mut self, slot: usize, mut stream: TcpStream) -> io::Result<()> {
        platform::keep_from_sigpipe(&stream)?;
        self.poll.registry().register(&mut stream, Token(slot), Interest::READABLE)?;
        self.put(slot, stream, Watch::Nothing);
        Ok(())
    }

    /// Takes in a socket that somebody else has made, as [`Sockets::insert`] does. It stays the caller's if that fails.
    ///
    /// # Errors
    /// If its mode cannot be set, or the system does not watch one more.
    pub(super) fn adopt(&mut self, slot: usize, stream: &std::net::TcpStream) -> io::Result<()> {
        stream.set_nonblocking(true)?;
        if !is_unix(stream) {
            stream.set_nodelay(true)?;
        }
        self.insert(slot, TcpStream::from_std(stream.try_clone()?))
    }

    fn put(&mut self, slot: usize, stream: TcpStream, watch: Watch) {
        if self.streams.len() <= slot {
            self.streams.resize_with(slot + 1, || None);
            self.watches.resize(slot + 1, Watch::Nothing);
        }
        if let (Some(place), Some(watches)) = (self.streams.get_mut(slot), self.watches.get_mut(slot)) {
            (*place, *watches) = (Some(stream), watch);
            self.used += 1;
        }
    }

    /// How many sockets there are.
    pub(super) const fn len(&self) -> usize {
        self.used
    }

    /// Begins to connect. The socket becomes writable when that has succeeded or failed.
    fn dial(&mut self, slot: usize, address: SocketAddr) -> io::Result<()> {
        self.release(slot);
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        let interest = Interest::READABLE | Interest::WRITABLE;
        self.poll.registry().register(&mut stream, Token(slot), interest)?;
        self.put(slot, stream, Watch::Writes);
        Ok(())
    }

    fn get_mut(&mut self, slot: usize) -> Option<&mut TcpStream> {
        self.streams.get_mut(slot)?.as_mut()
    }

    /// Closes a descriptor. Others of the same socket may be left: one that the application keeps of a stream that was adopted, or
    /// those of a child between `fork` and `exec`. Closing alone would leave it watched then, under a slot that is given out again.
    fn release(&mut self, slot: usize) {
        if let Some(mut stream) = self.streams.get_mut(slot).and_then(Option::take) {
            let _ = self.poll.registry().deregister(&mut stream);
            self.note_released();
        }
    }

    fn note_released(&mut self) {
        self.used -= 1;
        if self.used == 0 {
            (self.streams, self.watches) = (Vec::new(), Vec::new());
        }
    }
}

/// A socket that the driver names and that is gone: there is nothing to read, and nothing can be written.
fn gone() -> io::Error {
    io::ErrorKind::WouldBlock.into()
}

impl Transport for Sockets {
    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize> {
        self.get_mut(slot).ok_or_else(gone)?.read(buffer)
    }

    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let stream = self.get_mut(slot).ok_or_else(gone)?;
        match slices {
            [slice] => stream.write(slice),
            slices => platform::write_vectored(stream, slices),
        }
    }

    fn await_writable(&mut self, slot: usize, closing: bool) -> io::Result<()> {
        let Some(Some(stream)) = self.streams.get_mut(slot) else { return Ok(()) };
        #[cfg(target_os = "linux")]
        if let (Some(lowat), true) = (self.notsent_lowat, closing)
            && !is_unix(stream)
        {
            SockRef::from(&*stream).set_tcp_notsent_lowat(lowat)?;
        }
        #[cfg(not(target_os = "linux"))]
        let _ = closing;
        if let Some(watch) = self.watches.get_mut(slot)
            && *watch == Watch::Nothing
        {
            let interest = Interest::READABLE | Interest::WRITABLE;
            self.poll.registry().reregister(stream, Token(slot), interest)?;
            *watch = Watch::Writes;
        }
        Ok(())
    }

    fn shutdown_write(&mut self, slot: usize) {
        if let Some(stream) = self.get_mut(slot) {
            // It fails if the peer is gone already; the read that follows says so.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn close(&mut self, slot: usize, reset: bool) {
        if let Some(stream) = self.get_mut(slot).filter(|_| reset) {
            // It fails only for a socket that is broken already, which close ends as well.
            let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
        }
        self.resolver.forget(slot);
        self.release(slot);
    }

    fn detach(&mut self, slot: usize) -> Option<DetachedStream> {
        let mut stream = self.streams.get_mut(slot)?.take()?;
        self.note_released();
        // If it fails, the socket is watched until it is closed, and wakes the slot's next connection for nothing.
        let _ = self.poll.registry().deregister(&mut stream);
        let stream = std::net::TcpStream::from(stream);
        if is_unix(&stream) {
            return Some(DetachedStream::Unix(OwnedFd::from(stream).into()));
        }
        Some(DetachedStream::Tcp(stream))
    }

    fn connect(&mut self, slot: usize, id: ConnectionId, target: Target<'_>) -> io::Result<()> {
        match target {
            Target::Name(host, port) => self.resolver.ask(id, host, port, &self.shared),
            Target::Address(address) => self.dial(slot, address),
        }
    }

    fn connected(&mut self, slot: usize) -> io::Result<bool> {
        let Some(stream) = self.get_mut(slot) else { return Ok(false) };
        let result = stream.take_error().and_then(|error| match error {
            Some(error) => Err(error),
            None => match stream.peer_addr() {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                Err(error) => Err(error),
            },
        });
        if result.is_err() {
            self.release(slot);
        }
        result
    }

    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind> {
        Some(self.get_mut(slot)?.take_error().ok()??.kind())
    }

    fn unsent(&mut self, slot: usize) -> Option<u32> {
        // Of a Unix domain socket it would be memory, not bytes.
        self.get_mut(slot).filter(|stream| !is_unix(&**stream)).and_then(|stream| super::outq::unsent(stream))
    }

    fn now(&mut self) -> Time {
        Time::from_start(self.start.elapsed())
    }

    #[inline]
    fn lap(&mut self) -> Option<Duration> {
        self.watch.lap()
    }
}

/// Measures callbacks by the kernel's coarse clock, which costs a few nanoseconds and is good to a few milliseconds.
#[derive(Debug, Default)]
struct Stopwatch {
    last: Duration,
}

impl Stopwatch {
    /// Ends one lap and begins the next; `None` if the clock has not moved.
    #[inline]
    fn lap(&mut self) -> Option<Duration> {
        let now = platform::coarse_clock();
        let lap = now.saturating_sub(std::mem::replace(&mut self.last, now));
        (!lap.is_zero()).then_some(lap)
    }
}
