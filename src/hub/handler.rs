//! What an application is to the loop: someone who decides on upgrades and hears of events.

use std::{net::SocketAddr, ops::Deref};

use super::clients::Clients;
use crate::{
    config::SharedConfig,
    event::Event,
    wire::upgrade::{ExtraHeader, Request, Response, Subprotocol},
};

/// An application. Its callbacks run on the loop's thread, one at a time; what they ask for happens when they return.
///
/// Every call of [`Clients`] is legal inside every callback and in every state; none panics.
pub trait Handler {
    /// What the application keeps for each connection, made in [`Handler::on_upgrade`] or given to
    /// [`Clients::connect`], and dropped after `Close`.
    type Data;

    /// A complete HTTP request: a valid upgrade, or a plain request that the application may answer.
    ///
    /// A plain request that is accepted nevertheless is refused with 426; an invalid upgrade never gets here.
    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Self::Data>;

    /// Something happened.
    fn on_event(&mut self, clients: &mut Clients<'_, Self::Data>, event: Event<'_>);
}

/// A request together with what only the server knows. Derefs to [`Request`].
#[derive(Clone, Copy, Debug)]
pub struct UpgradeRequest<'r> {
    pub(crate) request: Request<'r>,
    pub(crate) peer: SocketAddr,
    pub(crate) ready: bool,
}

impl UpgradeRequest<'_> {
    /// The address of the peer.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
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
#[derive(Debug)]
pub enum Upgrade<'r, D> {
    /// 101: a connection begins.
    Accept(Accept<'r, D>),
    /// This response; `HandshakeFailed(Rejected)` is reported.
    Reject(Response),
    /// This response to a plain request: nothing failed, nothing is reported.
    Answer(Response),
}

impl<D> Upgrade<'_, D> {
    /// Accepts with `data` and nothing else.
    pub fn accept(data: D) -> Self {
        Self::Accept(Accept::new(data))
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
