//! What an application may know of one connection.

use std::{net::SocketAddr, time::Duration};

use super::slot::Slot;
use crate::{close::Traffic, conn::State, id::ConnectionId, newcomer::PeerCredentials, time::Time};

/// What decides for a sweep whom it concerns.
pub(super) type Predicate<D> = Box<dyn FnMut(&Client<'_, D>) -> bool + Send>;

/// A connection's state in the words of the WHATWG.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReadyState {
    /// The opening handshake is not complete.
    Connecting,
    /// Established.
    Open,
    /// The closing handshake has begun.
    Closing,
    /// Ended.
    Closed,
}

/// What may be known of a connection.
pub struct Client<'h, D = ()> {
    id: ConnectionId,
    slot: &'h Slot<D>,
    data: &'h D,
    now: Time,
}

impl<D> std::fmt::Debug for Client<'_, D> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("id", &self.id).field("state", &self.state()).finish_non_exhaustive()
    }
}

impl<'h, D> Client<'h, D> {
    pub(super) fn new(id: ConnectionId, slot: &'h Slot<D>, now: Time) -> Option<Self> {
        Some(Self { id, slot, data: slot.data.as_ref()?, now })
    }

    /// Its id.
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The peer's address, as a trusted proxy names it; `0.0.0.0:0` of one on a Unix domain socket.
    pub fn peer_addr(&self) -> SocketAddr {
        self.slot.conn.peer()
    }

    /// The address of the proxy whose PROXY header named the peer; `None` if none did.
    pub fn proxy_addr(&self) -> Option<SocketAddr> {
        self.slot.conn.proxy()
    }

    /// Which process connected, if by a Unix domain socket: the peer, or the proxy that speaks for it.
    pub fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.slot.conn.peer_credentials()
    }

    /// Where it is in its life.
    pub const fn state(&self) -> State {
        self.slot.conn.state()
    }

    /// The same in the words of the WHATWG.
    pub const fn ready_state(&self) -> ReadyState {
        match self.state() {
            State::Connecting | State::Refusing => ReadyState::Connecting,
            State::Open => ReadyState::Open,
            State::LocalClosing | State::RemoteClosing | State::Failing => ReadyState::Closing,
            State::Lingering | State::Closed => ReadyState::Closed,
        }
    }

    /// Bytes accepted by `send` that are not in the kernel yet, headers included. If there are some, an
    /// [`Event::Drain`](crate::Event::Drain) will say when there are none.
    pub fn buffered_amount(&self) -> usize {
        self.slot.conn.buffered_amount()
    }

    /// Bytes of its backlog: what the kernel has refused so far. Unlike [`Client::buffered_amount`] it asks for no `Drain`. For lists of slow
    /// consumers.
    pub fn backlog(&self) -> usize {
        self.slot.conn.backlog_len()
    }

    /// The subprotocol that was agreed on.
    pub fn subprotocol(&self) -> Option<&str> {
        self.slot.conn.subprotocol()
    }

    /// How its messages may be compressed; `None` if that was not agreed on.
    #[cfg(feature = "deflate")]
    pub fn deflate(&self) -> Option<crate::wire::deflate::DeflateParameters> {
        self.slot.conn.compression().map(crate::conn::Compression::agreed)
    }

    /// The request's path, without its query. `None` if it is longer than
    /// [`HandshakeConfig::max_path_kept`](crate::config::HandshakeConfig::max_path_kept); [`Handler::on_upgrade`](crate::Handler::on_upgrade) sees
    /// paths of any length.
    pub fn path(&self) -> Option<&str> {
        self.slot.conn.path()
    }

    /// What it has received and sent, if [`ConnectionConfig::count_traffic`](crate::config::ConnectionConfig::count_traffic) asks for that.
    pub fn traffic(&self) -> Option<Traffic> {
        self.slot.conn.traffic()
    }

    /// Whether we are its client: it was begun by [`Clients::connect`](super::Clients::connect).
    pub const fn is_outgoing(&self) -> bool {
        self.slot.conn.is_client()
    }

    /// Since `Open`.
    pub fn age(&self) -> Duration {
        self.now.since(self.slot.conn.since())
    }

    /// Since the last byte came, whatever it was: a Pong counts, so an idle peer that answers heartbeats is not idle by this.
    /// For the application's idleness, set a timer anew at each message: [`Clients::set_timer`](super::Clients::set_timer).
    pub fn idle_for(&self) -> Duration {
        self.now.since(self.slot.conn.last_inbound())
    }

    /// Whether reading is paused.
    pub const fn is_paused(&self) -> bool {
        self.slot.conn.is_paused()
    }

    /// Whether it owns a buffer at the moment. A quiet connection does not.
    pub fn owns_buffers(&self) -> bool {
        self.slot.conn.owns_buffers()
    }

    /// The application's data.
    pub const fn data(&self) -> &'h D {
        self.data
    }
}
