//! What adjourn keeps for each connection.

use std::fmt;

use crate::core::Peer;

/// What adjourn keeps for each connection of the layer.
pub struct Conn {
    /// Until `Open`.
    purpose: Option<Box<Purpose>>,
}

/// What a WebSocket was accepted for.
pub(super) enum Purpose {
    /// A session that begins.
    Session(Peer),
    /// A probe of the session with this `sid`.
    Probe(Box<str>),
    /// 101, then an empty Close.
    Refused,
}

/// Not what it was accepted for, which may be the name of a session.
impl fmt::Debug for Conn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Conn").finish_non_exhaustive()
    }
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
