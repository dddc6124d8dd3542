//! Sockets: read into the shared buffer, write from the cork, FIN, reset.

use std::{
    io::{self, Read as _, Write as _},
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
    /// Whether write interest is registered. It is, from the first time on that the kernel took less than it was offered;
    /// being edge-triggered it costs nothing afterwards.
    watches_writes: Vec<bool>,
    used: usize,
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
        if self.streams.len() <= slot {
            self.streams.resize_with(slot + 1, || None);
            self.watches_writes.resize(slot + 1, false);
        }
        if let (Some(place), Some(watches)) = (self.streams.get_mut(slot), self.watches_writes.get_mut(slot))
        {
            (*place, *watches) = (Some(stream), false);
            self.used += 1;
        }
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
        if let Some(watches) = self.watches_writes.get_mut(slot)
            && !*watches
        {
            registry.reregister(stream, Token(slot), Interest::READABLE | Interest::WRITABLE)?;
            *watches = true;
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
    const LEAST: usize = 64 << 10;
    let from = message.len();
    let room = (message.capacity() - from).max(from).max(LEAST);
    let asked = usize::try_from(left).unwrap_or(usize::MAX).min(room);
    message.resize(from + asked, 0);
    let result = stream.read(message.get_mut(from..).unwrap_or_default());
    message.truncate(from + result.as_ref().copied().unwrap_or(0));
    result.map(|n| (n, asked, from))
}

/// Measures callbacks by the kernel's coarse clock, which costs a few nanoseconds and is good to a few milliseconds.
pub(super) struct Stopwatch(Duration);

impl Stopwatch {
    /// What is shorter than this is nobody's fault.
    const NOTEWORTHY: Duration = Duration::from_millis(10);

    pub(super) fn start() -> Self {
        Self(Self::coarse())
    }

    pub(super) fn noteworthy(&self) -> Option<Duration> {
        Some(Self::coarse().saturating_sub(self.0)).filter(|took| *took >= Self::NOTEWORTHY)
    }

    fn coarse() -> Duration {
        let time = clock_gettime(ClockId::MonotonicCoarse);
        Duration::try_from(time).unwrap_or_default()
    }
}
