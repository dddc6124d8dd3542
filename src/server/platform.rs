//! What differs between Unix systems: the coarse clock, and how a write by several slices is kept from raising SIGPIPE. No state.

use std::{
    io::{self, IoSlice},
    time::Duration,
};

use mio::net::TcpStream;
use rustix::time::{ClockId, clock_gettime};

/// What the coarse clock shows, since some moment: it costs a few nanoseconds and is good to a few milliseconds.
#[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
#[inline]
pub(super) fn coarse_clock() -> Duration {
    since_boot(ClockId::MonotonicCoarse)
}

/// Here is none, so the fine one is cut to ticks: a turn's replies wait for each other until the clock ticks.
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
pub(super) fn coarse_clock() -> Duration {
    cut_to_ticks(since_boot(ClockId::Monotonic))
}

#[inline]
fn since_boot(clock: ClockId) -> Duration {
    let now = clock_gettime(clock);
    // Neither is negative: the clock began at boot.
    Duration::new(u64::try_from(now.tv_sec).unwrap_or(0), u32::try_from(now.tv_nsec).unwrap_or(0))
}

/// A tick of Linux at 250 Hz.
#[cfg(any(test, not(any(target_os = "linux", target_os = "android", target_os = "freebsd"))))]
fn cut_to_ticks(now: Duration) -> Duration {
    const TICK: u32 = 4_000_000;
    Duration::new(now.as_secs(), now.subsec_nanos() / TICK * TICK)
}

/// `std` writes by send(2) with `MSG_NOSIGNAL`, but by writev(2) without it: then SIGPIPE would be the peer's to raise
/// wherever it has its default.
#[cfg(not(target_vendor = "apple"))]
pub(super) fn write_vectored(stream: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};

    Ok(sendmsg(stream, slices, &mut SendAncillaryBuffer::default(), SendFlags::NOSIGNAL)?)
}

/// Here the flag is the socket's: see [`keep_from_sigpipe`].
#[cfg(target_vendor = "apple")]
pub(super) fn write_vectored(stream: &mut TcpStream, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    io::Write::write_vectored(stream, slices)
}

/// No write to this socket raises SIGPIPE from now on.
#[cfg(target_vendor = "apple")]
pub(super) fn keep_from_sigpipe(stream: &TcpStream) -> io::Result<()> {
    socket2::SockRef::from(stream).set_nosigpipe(true)
}

/// Writes say so themselves.
#[cfg(not(target_vendor = "apple"))]
#[expect(clippy::unnecessary_wraps, reason = "the signature is that of the other")]
pub(super) const fn keep_from_sigpipe(_: &TcpStream) -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fine_clock_is_cut_to_ticks() {
        let rows = [(0, 0), (3_999_999, 0), (4_000_000, 4_000_000), (1_007_999_999, 1_004_000_000)];
        for (nanos, cut) in rows {
            assert_eq!(cut_to_ticks(Duration::from_nanos(nanos)), Duration::from_nanos(cut), "{nanos}");
        }
        assert!(coarse_clock() <= since_boot(ClockId::Monotonic));
    }
}
