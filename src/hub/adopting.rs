//! Connections whose opening handshake somebody else has completed: they are open at once.

use std::io;

use super::table::Hub;
use crate::{
    adopt::{Adoption, Role},
    conn::{Compression, Conn},
    error::{AdoptRefusal, ConnectionLimit},
    id::ConnectionId,
    newcomer::Newcomer,
};

impl<D> Hub<D> {
    /// Takes a connection in; `Open` follows. `insert` puts its stream into the slot that it is given.
    ///
    /// # Errors
    /// If there are too many connections, a shutdown refuses it, what was agreed on is not known here, or `insert` fails.
    /// Then it is as if nothing had been asked.
    pub(super) fn adopt(
        &mut self,
        newcomer: &Newcomer,
        adoption: Adoption<D>,
        insert: impl FnOnce(usize) -> io::Result<()>,
    ) -> Result<ConnectionId, AdoptRefusal> {
        if self.cuts_handshakes() {
            return Err(AdoptRefusal::ShuttingDown);
        }
        let Adoption { role, data, received, path, subprotocol, extensions, config } = adoption;
        let compression = match extensions.as_deref() {
            Some(value) => Compression::agreed_on(role, value).ok_or(AdoptRefusal::Extensions)?,
            None => None,
        };
        if role == Role::Server && !self.admission.admits(newcomer.counted_address()) {
            return Err(AdoptRefusal::TooManyConnections { limit: ConnectionLimit::PerAddress });
        }
        if !self.can_make_room() {
            return Err(AdoptRefusal::TooManyConnections { limit: ConnectionLimit::Connections });
        }
        // Nobody is closed for a connection that does not come.
        insert(self.slots.vacant_key()).map_err(|error| AdoptRefusal::Io(error.kind()))?;
        self.make_room();
        self.common.totals.adopted += 1;
        let generation = self.next_generation();
        let slot = self.insert(Conn::adopted(newcomer, role, &received, generation, self.now), Some(data));
        let id = ConnectionId::new(self.loop_number, u32::try_from(slot).unwrap_or(u32::MAX), generation);
        if role == Role::Server {
            self.admission.adopted(id, newcomer.counted_address());
        }
        let subprotocol = subprotocol.as_deref();
        self.with(slot, |conn, cx| conn.establish(Vec::new(), &path, subprotocol, config, compression, cx));
        Ok(id)
    }
}
