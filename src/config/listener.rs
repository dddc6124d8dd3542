//! The settings of a listening socket.

use super::check::{positive, within};
use crate::error::ConfigError;

/// The settings of one listener.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// Connections that may wait in the kernel for `accept`, 1 to 2,147,483,647. 4,096: what Linux caps it at by default.
    pub listen_backlog: u32,
    /// Connections accepted in one turn, 1 at least; the rest is accepted in the next turn. 256: some milliseconds, so that a
    /// flood of new connections leaves time for those that are open. A larger batch accepts faster and makes the others
    /// wait longer.
    pub accept_batch: usize,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self { listen_backlog: 4096, accept_batch: 256 }
    }
}

impl ListenerConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("listener.listen_backlog", self.listen_backlog, 1..=i32::MAX.unsigned_abs())?;
        positive("listener.accept_batch", self.accept_batch)
    }
}
