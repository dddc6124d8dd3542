//! What a client's connection keeps until it is open. Data only: `opening` acts on it.

use std::net::SocketAddr;

use super::head::HeadBuffer;
use crate::{
    config::SharedConfig,
    error::HandshakeError,
    time::Time,
    wire::upgrade::{ClientKey, Offer},
};

/// A handshake of ours that is not complete.
#[derive(Debug)]
pub(super) struct Dialling {
    pub(super) since: Time,
    pub(super) stage: Stage,
    pub(super) head: Option<Box<HeadBuffer>>,
    pub(super) offer: Offer,
    pub(super) config: Option<SharedConfig>,
    /// Its own settings of TLS.
    #[cfg(feature = "tls")]
    pub(super) tls: Option<crate::config::ClientTls>,
    pub(super) key: ClientKey,
    /// Those that were not tried yet, the next one last.
    pub(super) addresses: Vec<SocketAddr>,
    /// Why the address before could not be connected to.
    pub(super) failure: HandshakeError,
    /// When the present stage or attempt must be over.
    pub(super) deadline: Time,
    /// When TCP must be there.
    pub(super) give_up: Time,
    /// Bytes of interim responses (1xx) that were skipped.
    pub(super) interim: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    Resolving,
    Dialling,
    Waiting,
}
