//! A socket that catches up: the data. `replay.rs` in the parent has the rules.

use crate::offset::Position;

/// Of a socket that catches up.
pub(crate) struct Replay {
    /// Entries up to here have been sent, or do not concern it.
    pub(crate) position: Position,
    /// Events up to here had been received before.
    pub(crate) start: Position,
    /// Asks up to here, and at or below `start`, have been sent again or need not be.
    pub(crate) asks: Position,
    /// Join, leave and disconnect entries up to here had been applied before.
    pub(crate) applied: Position,
    /// The next page is being read, or is put off.
    pub(crate) waiting: bool,
}

impl Replay {
    /// Have the asks been sent again whose answers may have been lost?
    pub(crate) fn asked_again(&self) -> bool {
        self.asks >= self.start
    }
}
