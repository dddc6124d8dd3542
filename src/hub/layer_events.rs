//! What a layer of the transport says besides bytes: that it has more, that it takes more, why it failed, and what a TLS handshake
//! has agreed on. Where the transport is a socket alone, nothing of this happens.

use std::io;

use super::{table::Hub, transport::Noticed};
#[cfg(feature = "tls")]
use crate::config::{ClientTls, TlsSession};
use crate::{conn::State, error::HandshakeError};

impl<D> Hub<D> {
    /// A read has failed.
    pub(super) fn handle_error(&mut self, slot: usize, error: &io::Error) {
        let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<HandshakeError>());
        match cause.filter(|_| self.is_connecting(slot)) {
            Some(cause) => {
                self.with(slot, |conn, cx| conn.give_up(*cause, cx));
            }
            None => self.handle_reset(slot, error.kind()),
        }
    }

    /// The opening handshake of this slot is not complete.
    pub(super) fn is_connecting(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.state() == State::Connecting)
    }

    /// What the transport has found when it read. Returns whether it may have more.
    #[inline]
    pub(super) fn handle_noticed(&mut self, slot: usize, noticed: Noticed) -> bool {
        !noticed.is_nothing() && self.handle_layer(slot, noticed)
    }

    // Not inlined: most transports have no layer.

    #[inline(never)]
    #[cfg_attr(
        not(feature = "tls"),
        expect(clippy::needless_pass_by_value, reason = "with TLS something is taken out")
    )]
    fn handle_layer(&mut self, slot: usize, noticed: Noticed) -> bool {
        if noticed.writable {
            self.handle_writable(slot);
        }
        if noticed.beside > 0 {
            let connecting = self.is_connecting(slot);
            let budget = if connecting { &mut self.turn.handshakes } else { &mut self.turn.bytes };
            *budget = budget.saturating_sub(noticed.beside);
            if let Some(entry) = self.slots.get_mut(slot) {
                entry.conn.note_heard(noticed.beside, self.now);
            }
        }
        #[cfg(feature = "tls")]
        if let Some(session) = noticed.secured
            && self.slots.get(slot).is_some_and(|entry| !entry.conn.is_client())
        {
            self.secured.insert(slot, session);
        }
        noticed.more
    }

    /// The host and settings of a connection of ours that is to go on in TLS.
    #[cfg(feature = "tls")]
    pub(super) fn tls_target(&self, slot: usize) -> Option<(&str, &ClientTls)> {
        let (host, own) = self.slots.get(slot)?.conn.tls_target()?;
        Some((host, own.unwrap_or(&self.config.client.tls)))
    }

    /// What the TLS handshake of this slot has agreed on, if it was one.
    #[cfg(feature = "tls")]
    pub(super) fn take_secured(&mut self, slot: usize) -> Option<Box<TlsSession>> {
        if self.secured.is_empty() { None } else { self.secured.remove(&slot) }
    }

    /// Nobody will ask for it any more.
    #[inline]
    #[cfg_attr(not(feature = "tls"), expect(clippy::unused_self, reason = "nothing is kept"))]
    pub(super) fn forget_secured(&mut self, slot: usize) {
        #[cfg(feature = "tls")]
        self.take_secured(slot);
        #[cfg(not(feature = "tls"))]
        let _ = slot;
    }
}
