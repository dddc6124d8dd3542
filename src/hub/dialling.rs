//! The connects of a turn: begun, and what has become of them.

#[cfg(feature = "tls")]
use std::io;

use super::{connecting::FailedConnect, driver::Driver, transport::Transport};

impl<D, T: Transport> Driver<D, T> {
    /// Begins what a connection of ours needs next.
    pub(super) fn begin_connect(&mut self, slot: usize) {
        if let Some((id, target)) = self.hub.target(slot)
            && let Err(error) = self.transport.connect(slot, id, target)
        {
            self.failed_connects.push(FailedConnect { id, address: target.address(), kind: error.kind() });
        }
    }

    /// Finds out what has become of a connect. Returns whether it has succeeded.
    pub(super) fn finish_connect(&mut self, slot: usize) -> bool {
        match self.transport.connected(slot) {
            Ok(true) => {
                #[cfg(feature = "tls")]
                if let Err(error) = self.secure(slot) {
                    self.hub.handle_error(slot, &error);
                    return false;
                }
                self.hub.handle_connected(slot);
                return true;
            }
            Ok(false) => {}
            Err(error) => {
                if let Some((id, _)) = self.hub.target(slot) {
                    self.hub.handle_connect_failed(id, error.kind());
                }
            }
        }
        false
    }

    /// Begins TLS on a connection of ours, if its URL asks for it.
    #[cfg(feature = "tls")]
    fn secure(&mut self, slot: usize) -> io::Result<()> {
        let Self { hub, transport, .. } = self;
        hub.tls_target(slot).map_or(Ok(()), |(host, config)| transport.secure(slot, host, config))
    }
}
