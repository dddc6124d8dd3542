//! A CONNECT on its way to its answer: the data. `connect.rs` has the rules.

use std::sync::Arc;
use std::time::Duration;

use super::api::Handshake;
use super::{ConnKey, ConnectingKey, SpaceKey};
use crate::offset::{Offset, Position};
use crate::store::{Millis, ResumeRefusal, SessionRecord};

/// A CONNECT that has not been answered.
pub(crate) struct Connecting {
    pub(crate) conn: ConnKey,
    pub(crate) space: SpaceKey,
    /// The socket's id, once answered.
    pub(crate) id: Arc<str>,
    /// The new session's, unless one is resumed.
    pub(crate) pid: Option<Arc<str>>,
    pub(crate) principal: Arc<str>,
    pub(crate) handshake: Arc<Handshake>,
    /// What the client wants to resume.
    pub(crate) ask: Option<Ask>,
    pub(crate) step: ConnectStep,
    /// The present step has to be over by then.
    pub(crate) deadline: Duration,
    pub(crate) refusal: Option<ResumeRefusal>,
    /// The session in the store, or on its way there.
    pub(crate) record: Option<SessionRecord>,
    pub(crate) resume: Option<Resume>,
}

#[derive(Clone)]
pub(crate) struct Ask {
    pub(crate) pid: Arc<str>,
    pub(crate) offset: Option<Offset>,
}

/// What an attach has reported.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Resume {
    pub(crate) away: Option<Millis>,
    pub(crate) start: Position,
    /// Join, leave and disconnect entries up to here have been applied to the session.
    pub(crate) applied: Position,
}

/// Who resumes a session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Claim {
    pub(crate) by: ConnectingKey,
    /// The newest generation that is known.
    pub(crate) generation: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectStep {
    /// The middleware with this number runs, or has still to answer.
    Checking(usize),
    /// The store is asked for the session, or to save a new one.
    Storing,
    /// The first page of the replay is read.
    Reading,
}
