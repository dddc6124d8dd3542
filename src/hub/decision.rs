//! A request as an application sees it, and what the application decides. Nothing is decided here.

use std::{fmt, net::SocketAddr, ops::Deref};

use crate::{
    config::SharedConfig,
    detach::Detached,
    id::ConnectionId,
    newcomer::PeerCredentials,
    wire::upgrade::{ExtraHeader, Request, Response, Subprotocol},
};

/// A request together with what only the server knows. Derefs to [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'r> {
    pub(crate) request: Request<'r>,
    pub(crate) id: ConnectionId,
    pub(crate) peer: SocketAddr,
    pub(crate) proxy: Option<SocketAddr>,
    pub(crate) credentials: Option<PeerCredentials>,
    pub(crate) ready: bool,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<&'r crate::config::TlsSession>,
}

#[cfg(feature = "tls")]
impl<'r> UpgradeRequest<'r> {
    /// What the TLS handshake has agreed on: version, the name that was asked for, the client's certificates. `None` of a plain
    /// connection.
    pub const fn tls(&self) -> Option<&'r crate::config::TlsSession> {
        self.tls
    }
}

impl UpgradeRequest<'_> {
    /// The id that the connection has, or will have once it is accepted: for [`Upgrade::Defer`].
    pub const fn id(&self) -> ConnectionId {
        self.id
    }

    /// The address of the peer, as a trusted proxy names it; `0.0.0.0:0` of one on a Unix domain socket.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The address of the proxy whose PROXY header named the peer; `None` if none did. See
    /// [`ListenerConfig::proxy_protocol`](crate::config::ListenerConfig::proxy_protocol).
    pub const fn proxy_addr(&self) -> Option<SocketAddr> {
        self.proxy
    }

    /// Which process connected, if by a Unix domain socket: the peer, or the proxy that speaks for it.
    pub const fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.credentials
    }

    /// False once a shutdown has begun: what a readiness probe wants to know.
    pub const fn is_ready(&self) -> bool {
        self.ready
    }
}

impl<'r> Deref for UpgradeRequest<'r> {
    type Target = Request<'r>;

    fn deref(&self) -> &Request<'r> {
        &self.request
    }
}

/// The application's answer to a request.
#[non_exhaustive]
pub enum Upgrade<'r, D> {
    /// 101: a connection begins.
    Accept(Accept<'r, D>),
    /// This response; `HandshakeFailed(Rejected)` is reported.
    Reject(Response),
    /// This response to a plain request: nothing failed, nothing is reported.
    Answer(Response),
    /// The decision comes later, by [`Clients::accept`](crate::Clients::accept) or [`Clients::reject`](crate::Clients::reject), or the calls of that name of a
    /// [`Handle`](crate::Handle), with the [id](UpgradeRequest::id) of this request. Until then nothing is read, and
    /// [`handshake_timeout`](crate::config::HandshakeConfig::handshake_timeout) goes on. Whatever ends it without `Open` is reported as
    /// [`HandshakeFailed`](crate::Event::HandshakeFailed) with that id. There may be
    /// [`max_deferred`](crate::config::LoopConfig::max_deferred) of them; one more is refused with 503. A plain request cannot be deferred: it gets
    /// 426.
    Defer,
    /// Takes the connection of a plain request out of the loop, at the end of this turn: the function gets the stream and every byte
    /// that was read of it, on the loop's thread. Nothing is written, nothing is reported, and the slot is free. See [`Upgrade::detach`].
    Detach(Box<dyn FnOnce(Detached) + Send>),
}

impl<D: fmt::Debug> fmt::Debug for Upgrade<'_, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Accept(accept) => f.debug_tuple("Accept").field(accept).finish(),
            Self::Reject(response) => f.debug_tuple("Reject").field(response).finish(),
            Self::Answer(response) => f.debug_tuple("Answer").field(response).finish(),
            Self::Defer => f.write_str("Defer"),
            Self::Detach(_) => f.debug_tuple("Detach").finish_non_exhaustive(),
        }
    }
}

impl<D> Upgrade<'_, D> {
    /// Accepts with `data` and nothing else.
    pub fn accept(data: D) -> Self {
        Self::Accept(Accept::new(data))
    }

    /// Takes the connection of a plain request out of the loop, for another server on the same port. `take` is called once, on the
    /// loop's thread, so let it pass the connection on and return. Until then the connection counts for all limits.
    ///
    /// ```
    /// use std::sync::mpsc;
    ///
    /// use adjourn::{
    ///     Clients, Event, Handler,
    ///     http::{Detached, Upgrade, UpgradeRequest},
    /// };
    ///
    /// struct OnePort(mpsc::Sender<Detached>);
    ///
    /// impl Handler for OnePort {
    ///     type Data = ();
    ///
    ///     fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
    ///         if request.is_upgrade() {
    ///             return Upgrade::accept(());
    ///         }
    ///         let pages = self.0.clone();
    ///         Upgrade::detach(move |detached| drop(pages.send(detached)))
    ///     }
    ///
    ///     fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
    /// }
    /// ```
    pub fn detach(take: impl FnOnce(Detached) + Send + 'static) -> Self {
        Self::Detach(Box::new(take))
    }
}

/// How an upgrade is accepted.
#[derive(Debug)]
pub struct Accept<'r, D> {
    pub(crate) data: D,
    pub(crate) subprotocol: Option<Subprotocol<'r>>,
    pub(crate) headers: Vec<ExtraHeader>,
    pub(crate) config: Option<SharedConfig>,
}

impl<'r, D> Accept<'r, D> {
    /// Accepts with the data that the application keeps for this connection.
    pub const fn new(data: D) -> Self {
        Self { data, subprotocol: None, headers: Vec::new(), config: None }
    }

    /// Chooses one of the subprotocols that the client offered.
    #[must_use]
    pub fn subprotocol(mut self, chosen: Option<Subprotocol<'r>>) -> Self {
        self.subprotocol = chosen;
        self
    }

    /// Adds a header to the 101.
    #[must_use]
    pub fn header(mut self, header: ExtraHeader) -> Self {
        self.headers.push(header);
        self
    }

    /// Gives this connection settings of its own, in place of [`Config::connection`](crate::Config::connection).
    #[must_use]
    pub fn config(mut self, config: SharedConfig) -> Self {
        self.config = Some(config);
        self
    }
}
