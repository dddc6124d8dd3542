//! `ConnectionId`: slot + generation, so that a stale id never touches the slot's next tenant.

use std::fmt;

/// Names one connection for as long as the process lives.
///
/// Packs the loop (8 bits), the slot in that loop's slab (24 bits) and the generation (32 bits). A slot is used
/// again, a generation is not: an operation on the id of a connection that has ended does nothing and says so.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(u64);

/// The most connections that one loop can hold: what 24 bits number.
pub const MAX_SLOTS: usize = 1 << 24;

impl ConnectionId {
    pub(crate) const fn new(worker: u8, slot: u32, generation: u32) -> Self {
        Self((worker as u64) << 56 | ((slot & 0x00ff_ffff) as u64) << 32 | generation as u64)
    }

    /// The loop that owns the connection; 0 unless there are several.
    pub const fn worker(self) -> u8 {
        self.0.to_be_bytes()[0]
    }

    /// The slot in the loop's slab.
    pub const fn slot(self) -> usize {
        ((self.0 >> 32) & 0x00ff_ffff) as usize
    }

    /// Which tenant of the slot this is.
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
        write!(f, "{}-{}-{}", self.worker(), self.slot(), self.generation())
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
        assert_eq!((id.worker(), id.slot(), id.generation()), (3, 0x00ab_cdef, 0xdead_beef));
        assert_eq!(id.to_string(), "3-11259375-3735928559");
    }
}
