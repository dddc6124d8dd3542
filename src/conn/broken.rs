//! Invariants of this crate that do not hold, and how they are noticed where a connection could be lost by one.

use std::slice::SliceIndex;

use thiserror::Error;

/// An invariant of this crate does not hold: a range of our own is out of bounds, or what we wrote cannot be read back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("an invariant of this crate is broken")]
pub(crate) struct Broken;

/// A part of our own bytes that cannot be out of bounds. Should it be, debug builds panic; in release builds the caller
/// fails the connection with 1011 and [`Cause::Internal`](crate::close::Cause::Internal).
#[inline]
pub(super) fn part<I: SliceIndex<[u8]>>(bytes: &[u8], range: I) -> Result<&I::Output, Broken> {
    bytes.get(range).ok_or_else(broken)
}

/// The same, to be changed.
#[inline]
pub(super) fn part_mut<I: SliceIndex<[u8]>>(bytes: &mut [u8], range: I) -> Result<&mut I::Output, Broken> {
    bytes.get_mut(range).ok_or_else(broken)
}

/// Says that something is broken that [`part`] cannot see.
#[cold]
pub(super) fn broken() -> Broken {
    debug_assert!(false, "an invariant of this crate is broken");
    Broken
}
