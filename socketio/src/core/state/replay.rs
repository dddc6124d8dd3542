//! A socket that catches up: the data. `replay.rs` in the parent has the rules.

use crate::offset::Position;

/// Of a socket that catches up.
pub(crate) struct Replay {
    /// Entries up to here have been sent, or do not concern it.
    pub(crate) position: Position,
    /// Events up to here had been received before.
    pub(crate) start: Position,
    /// Join, leave and disconnect entries up to here had been applied before.
    pub(crate) applied: Position,
    /// The next page is being read, or is put off.
    pub(crate) waiting: bool,
}
