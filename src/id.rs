//! `ConnectionId`: slot + generation, so that a stale id never touches the slot's next tenant.

use std::fmt;

/// Names one connection, among all of the process.
///
/// Packs the number of the loop (8 bits), the slot in that loop's slab (24 bits) and the generation (32 bits). Each loop of
/// the process has a number of its own, and a connection gets the generation after that of the one before it on its loop;
/// a later loop that gets the number of a dropped one continues its generations. So an operation on the id of a
/// connection that has ended does nothing and says so, on whichever loop. Generations wrap: two connections can have one
/// id if a multiple of 2^32 others lie between them, never at the same time.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// The most connections that one loop can hold: what 24 bits number.
pub const MAX_SLOTS: usize = 1 << 24;

impl ConnectionId {
    /// `worker` is the number of the loop.
    pub(crate) const fn new(worker: u8, slot: u32, generation: u32) -> Self {
        Self((worker as u64) << 56 | ((slot & 0x00ff_ffff) as u64) << 32 | generation as u64)
    }

    /// The number of the loop that owns the connection: 0 for the first of the process, unless there are several.
    pub const fn loop_number(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// The slot in the loop's slab.
    pub const fn slot(self) -> usize {
        ((self.0 >> 32) & 0x00ff_ffff) as usize
    }

    /// Which connection of its loop number this is, modulo 2^32.
    pub const fn generation(self) -> u32 {
        (self.0 & 0xffff_ffff) as u32
    }

    /// The id as one number, for logs and maps.
    pub const fn as_u64(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.loop_number(), self.slot(), self.generation())
    }
}

impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConnectionId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packs_and_unpacks() {
        let id = ConnectionId::new(3, 0x00ab_cdef, 0xdead_beef);
        assert_eq!((id.loop_number(), id.slot(), id.generation()), (3, 0x00ab_cdef, 0xdead_beef));
        assert_eq!(id.to_string(), "3-11259375-3735928559");
    }
}
