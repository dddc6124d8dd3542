//! What a connection's output is offered to. Nothing is decided here.

use std::io::{self, IoSlice};

/// Takes what it can of a connection's output.
pub(crate) trait Writer {
    /// Writes what it can; see [`Transport::write`](crate::hub::Transport::write).
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize>;

    /// What has become of that which the last write did not report as taken.
    fn ahead(&mut self) -> Ahead {
        Ahead::default()
    }
}

/// What a transport that encrypts has done with bytes that it has not reported as taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ahead {
    /// The next bytes to be written, this many, are encrypted, and have to be offered again as they are.
    pub bytes: usize,
    /// The kernel has taken some of the ciphertext since this was asked last.
    pub progressed: bool,
}

impl<F: FnMut(&[IoSlice<'_>]) -> io::Result<usize>> Writer for F {
    #[inline]
    fn write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self(slices)
    }
}
