//! What adjourn keeps for each connection.

use crate::core::Peer;

/// What adjourn keeps for each connection of the layer.
#[derive(Debug)]
pub struct Conn {
    /// Until `Open`.
    purpose: Option<Box<Purpose>>,
}

/// What a WebSocket was accepted for.
#[derive(Debug)]
pub(super) enum Purpose {
    /// A session that begins.
    Session(Peer),
    /// A probe of the session with this `sid`.
    Probe(Box<str>),
    /// 101, then an empty Close.
    Refused,
}

impl Conn {
    pub(super) fn new(purpose: Purpose) -> Self {
        Self { purpose: Some(Box::new(purpose)) }
    }

    /// The first time, what it was accepted for.
    pub(super) fn take_purpose(&mut self) -> Option<Purpose> {
        self.purpose.take().map(|purpose| *purpose)
    }
}
