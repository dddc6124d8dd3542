//! Sockets: read into the shared buffer, write from the cork, FIN, reset.

use std::{
    io::{self, Read as _, Write as _},
    net::SocketAddr,
    time::Duration,
};

use mio::{Interest, Registry, Token, net::TcpStream};
use rustix::time::{ClockId, clock_gettime};
use socket2::SockRef;

use crate::hub::Hub;

/// The sockets of all connections, by slot: four bytes each, and one.
#[derive(Debug, Default)]
pub(super) struct Sockets {
    streams: Vec<Option<TcpStream>>,
    watches: Vec<Watch>,
    used: usize,
}

/// What is watched for besides input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Watch {
    Nothing,
    /// Room for writes: from the first time on that the kernel took less than it was offered. Being edge-triggered it costs
    /// nothing afterwards.
    Writes,
    /// The outcome of a connect of ours, and room for writes from then on.
    Connect,
}

impl Sockets {
    /// Takes in a socket for `slot` and watches it.
    pub(super) fn insert<D>(
        &mut self,
        slot: usize,
        mut stream: TcpStream,
        registry: &Registry,
        hub: &mut Hub<D>,
    ) {
        if let Err(error) = registry.register(&mut stream, Token(slot), Interest::READABLE) {
            return hub.handle_reset(slot, error.kind());
        }
        self.put(slot, stream, Watch::Nothing);
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

    /// Begins to connect, in place of an attempt that `slot` may have had before. It becomes writable when that has
    /// succeeded or failed: see [`Sockets::connected`].
    pub(super) fn connect(
        &mut self,
        slot: usize,
        address: SocketAddr,
        registry: &Registry,
    ) -> io::Result<()> {
        self.release(slot, false);
        let mut stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        registry.register(&mut stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
        self.put(slot, stream, Watch::Connect);
        Ok(())
    }

    pub(super) fn is_connecting(&self, slot: usize) -> bool {
        self.watches.get(slot) == Some(&Watch::Connect)
    }

    /// How the connect of a slot went: whether it is there, or not yet.
    ///
    /// # Errors
    /// Why it will not be. The socket is gone then.
    pub(super) fn connected(&mut self, slot: usize) -> io::Result<bool> {
        let Some(stream) = self.get_mut(slot) else { return Ok(false) };
        let result = stream.take_error().and_then(|error| match error {
            Some(error) => Err(error),
            None => match stream.peer_addr() {
                Ok(_) => Ok(true),
                Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(false),
                Err(error) => Err(error),
            },
        });
        match (&result, self.watches.get_mut(slot)) {
            (Ok(true), Some(watch)) => *watch = Watch::Writes,
            (Err(_), _) => self.release(slot, false),
            _ => {}
        }
        result
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut TcpStream> {
        self.streams.get_mut(slot)?.as_mut()
    }

    /// Closes the descriptor, by a reset if that is asked for.
    pub(super) fn release(&mut self, slot: usize, reset: bool) {
        let Some(stream) = self.streams.get_mut(slot).and_then(Option::take) else { return };
        if reset {
            // It fails only for a socket that is broken already, which close ends as well.
            let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        }
        self.used -= 1;
        if self.used == 0 {
            *self = Self::default();
        }
    }

    /// Sends FIN.
    pub(super) fn fin(&mut self, slot: usize) {
        if let Some(stream) = self.get_mut(slot) {
            // It fails if the peer is gone already; the read that follows says so.
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    /// How much the kernel holds that is not acknowledged.
    pub(super) fn unsent(&mut self, slot: usize) -> Option<u32> {
        self.get_mut(slot).and_then(|stream| super::outq::unsent(stream))
    }

    /// Writes what the hub has for `slot`, and watches for room if the kernel does not take all.
    pub(super) fn transmit<D>(
        &mut self,
        slot: usize,
        hub: &mut Hub<D>,
        registry: &Registry,
    ) -> io::Result<()> {
        let Some(Some(stream)) = self.streams.get_mut(slot) else { return Ok(()) };
        let mut full = false;
        hub.transmit(slot, &mut |slices| {
            let offered: usize = slices.iter().map(|slice| slice.len()).sum();
            let result = loop {
                let result = match slices {
                    [slice] => stream.write(slice),
                    slices => stream.write_vectored(slices),
                };
                if !matches!(&result, Err(error) if error.kind() == io::ErrorKind::Interrupted) {
                    break result;
                }
            };
            full = match &result {
                Ok(n) => *n < offered,
                Err(error) => error.kind() == io::ErrorKind::WouldBlock,
            };
            result
        })?;
        if !full {
            return Ok(());
        }
        #[cfg(target_os = "linux")]
        if let (Some(lowat), true) = (hub.config().notsent_lowat, hub.is_closing(slot)) {
            SockRef::from(&*stream).set_tcp_notsent_lowat(lowat)?;
        }
        if let Some(watch) = self.watches.get_mut(slot)
            && *watch == Watch::Nothing
        {
            registry.reregister(stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
            *watch = Watch::Writes;
        }
        Ok(())
    }
}

/// Reads up to `left` bytes of a large message to the end of `message`, which grows with what arrives and never by what
/// was announced. Returns how many came, how many were asked for, and the length before.
pub(super) fn read_direct(
    stream: &mut TcpStream,
    message: &mut Vec<u8>,
    left: u64,
) -> io::Result<(usize, usize, usize)> {
    const MOST: usize = 256 << 10;
    let from = message.len();
    let asked = usize::try_from(left).unwrap_or(usize::MAX).min(from.clamp(1, MOST));
    message.resize(from + asked, 0);
    let result = stream.read(message.get_mut(from..).unwrap_or_default());
    message.truncate(from + result.as_ref().copied().unwrap_or(0));
    result.map(|n| (n, asked, from))
}

/// Measures callbacks by the kernel's coarse clock, which costs a few nanoseconds and is good to a few milliseconds.
#[derive(Debug, Default)]
pub(super) struct Stopwatch {
    seconds: i64,
    nanos: i64,
}

impl Stopwatch {
    /// Ends one lap and begins the next.
    #[inline]
    pub(super) fn lap(&mut self) -> Lap {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        let lap = Lap((now.tv_sec - self.seconds) * 1_000_000_000 + (now.tv_nsec - self.nanos));
        *self = Self { seconds: now.tv_sec, nanos: now.tv_nsec };
        lap
    }
}

/// How long something took, in nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lap(i64);

impl Lap {
    /// What is shorter than this is nobody's fault.
    const NOTEWORTHY: i64 = 10_000_000;

    /// How long it was, if that is worth a note.
    #[inline]
    pub(super) fn noteworthy(self) -> Option<Duration> {
        (self.0 >= Self::NOTEWORTHY).then(|| Duration::from_nanos(self.0.unsigned_abs()))
    }

    /// Whether the clock has moved: up to some milliseconds have passed.
    #[inline]
    pub(super) const fn has_ticked(self) -> bool {
        self.0 > 0
    }
}
