//! Connections of our own: the client's role, from `connect` to the response.

use std::{io, net::SocketAddr};

use super::table::Hub;
use crate::{
    conn::{Conn, ConnectRequest, Cursor, Target},
    error::{ConnectError, HandshakeError},
    id::ConnectionId,
    shutdown::ShutdownPhase,
    wire::upgrade::ClientKey,
};

/// A connect that failed at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct FailedConnect {
    pub(super) id: ConnectionId,
    /// Where to; `None` if it is the name that could not be looked up.
    pub(super) address: Option<SocketAddr>,
    pub(super) kind: io::ErrorKind,
}

impl<D> Hub<D> {
    /// Begins a connection of our own: `Action::Connect` is due. See
    /// [`Clients::connect`](super::Clients::connect).
    ///
    /// # Errors
    /// If there are too many connections, or a shutdown is closing connections.
    pub(super) fn connect(&mut self, request: ConnectRequest, data: D) -> Result<ConnectionId, ConnectError> {
        if self.cuts_handshakes() {
            return Err(ConnectError::ShuttingDown);
        }
        let limit = self.admission.max_connections();
        if !self.make_room() {
            return Err(ConnectError::TooManyConnections(limit));
        }
        let key = ClientKey::new(self.common.keys.nonce());
        let generation = self.next_generation();
        let conn = Conn::dial(request, key, generation, &self.config, self.now);
        let slot = self.insert(conn, Some(data));
        // Puts it into the list of those with something to do.
        let id = self.with(slot, |_, cx| cx.id).ok_or(ConnectError::TooManyConnections(limit))?;
        self.start_timers_on_return(id, None);
        Ok(id)
    }

    /// What `Action::Connect` is about. `None` if it is not wanted any more.
    pub(super) fn target(&self, slot: usize) -> Option<(ConnectionId, Target<'_>)> {
        let conn = &self.slots.get(slot)?.conn;
        let key = u32::try_from(slot).ok()?;
        Some((ConnectionId::new(self.loop_number, key, conn.generation), conn.target()?))
    }

    /// The addresses of a name, to be tried in this order; none if it has none. Of no effect if the connection is gone.
    pub(super) fn handle_resolved(&mut self, id: ConnectionId, addresses: Vec<SocketAddr>) {
        self.with_id(id, |conn, cx| conn.handle_resolved(addresses, cx));
    }

    /// The TCP connection to the present [`Target::Address`] is there.
    pub(super) fn handle_connected(&mut self, slot: usize) {
        self.with(slot, Conn::handle_connected);
    }

    /// The present [`Target`] cannot be connected to: the next one, if there is one.
    pub(super) fn handle_connect_failed(&mut self, id: ConnectionId, kind: io::ErrorKind) {
        self.with_id(id, |conn, cx| conn.handle_connect_failed(kind, cx));
    }

    /// The same for one that failed at once, in an earlier turn. Since then its deadline may have begun the next one.
    pub(super) fn handle_connect_failed_at_once(&mut self, failed: &FailedConnect) {
        let target = self.find(failed.id).and_then(|entry| entry.conn.target());
        if target.is_some_and(|target| target.address() == failed.address) {
            self.handle_connect_failed(failed.id, failed.kind);
        }
    }

    /// Whether a connection of ours in this slot waits for TCP.
    pub(super) fn is_dialling(&self, slot: usize) -> bool {
        self.slots.get(slot).is_some_and(|entry| entry.conn.is_dialling())
    }

    /// Bytes of a response.
    pub(super) fn next_response(&mut self, slot: usize, cursor: &mut Cursor<'_>) {
        // After the latch no handshake becomes a connection, in either role.
        let late = self.cuts_handshakes();
        self.with(slot, |conn, cx| {
            if late {
                conn.give_up(HandshakeError::ShuttingDown, cx);
            } else {
                conn.handle_response(cursor, cx);
            }
        });
    }

    /// The latch of a shutdown is set.
    pub(super) fn cuts_handshakes(&self) -> bool {
        self.phase() >= ShutdownPhase::SoftSweep
    }
}
