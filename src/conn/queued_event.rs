//! Events of the event queue: the application gets them when the hub delivers them.

use std::{io, net::SocketAddr};

use crate::{
    close::{CloseFrame, CloseReport, Initiator},
    error::HandshakeError,
    event::{SourceId, Stats},
    id::ConnectionId,
    shutdown::{ShutdownPhase, SweepId, SweepReport},
    state::State,
};

/// An event that waits for its delivery.
#[derive(Debug)]
pub(crate) enum QueuedEvent {
    Open(ConnectionId),
    Drain(ConnectionId),
    Closing(ConnectionId, Initiator, CloseFrame),
    Close(ConnectionId, Ended),
    /// With its id if it was a connection of ours.
    Failed(Option<ConnectionId>, SocketAddr, HandshakeError),
    AcceptFailed(io::Error),
    SweepDone(SweepId, SweepReport),
    Phase(ShutdownPhase, Stats),
    /// A timer of a connection, or of the loop, with its key.
    Timer(Option<ConnectionId>, u64),
    /// What it is ready for is kept by the hub.
    Source(SourceId),
}

/// The report of an ending, and what the hub records besides.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) closed: Box<CloseReport>,
    pub(crate) sweeps: Vec<SweepId>,
    /// Just before the end: where it was, and how much was queued.
    pub(crate) state: State,
    pub(crate) queued: usize,
}
