//! Acks that are waited for: the data. `acks.rs` has the rules.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::api::{Answer, Answers};
use super::arena::NumberMap;
use super::{Io, SocketKey};
use crate::error::AckError;
use crate::packet::Args;
use crate::store::NodeId;

/// Ids from here on belong to `Redeliver` acks: they mean the same over any connection.
pub(crate) const FIRST_ASK: u64 = 1 << 40;

/// Gets the answer to an event that asked for one.
pub(crate) type AckThen = Box<dyn FnOnce(&mut Io<'_>, Result<Args<'_>, AckError>) + Send>;
/// Gets the answers to a broadcast.
pub(crate) type AnswersThen = Box<dyn FnOnce(&mut Io<'_>, Answers) + Send>;

/// What a client waits for: its event asked for an ack. It can be sent to other threads, and comes back with
/// [`Inbox::push`](super::inbox::Inbox::push). Dropped unused, it sends nothing.
#[derive(Debug)]
pub struct Ack {
    pub(crate) socket: SocketKey,
    pub(crate) id: u64,
}

/// Acks that we wait for.
#[derive(Default)]
pub(crate) struct Waits {
    pub(crate) map: NumberMap<u64, Wait>,
    next: u64,
}

/// What is waited for.
pub(crate) enum Wait {
    Socket {
        socket: SocketKey,
        deadline: Duration,
        then: AckThen,
    },
    Session {
        sid: Arc<str>,
        deadline: Duration,
        then: AckThen,
    },
    Group(Box<Group>),
    /// Another node waits: the id is its own.
    Node {
        origin: NodeId,
        id: u64,
        deadline: Duration,
    },
}

/// A broadcast with acks.
pub(crate) struct Group {
    pub(crate) expected: HashSet<Arc<str>>,
    pub(crate) answered: HashSet<Arc<str>>,
    pub(crate) answers: Vec<Answer>,
    /// Nodes that have not said yet whom they ask, and those that died before.
    pub(crate) awaited: HashSet<NodeId>,
    pub(crate) missing_nodes: Vec<NodeId>,
    pub(crate) redeliver: bool,
    pub(crate) deadline: Duration,
    pub(crate) then: AnswersThen,
}

impl Waits {
    /// An id below [`FIRST_ASK`]. They are unique in the process, so in each connection too.
    pub(crate) fn next_id(&mut self) -> u64 {
        self.next = (self.next + 1) % FIRST_ASK;
        self.next
    }

    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }
}

impl Wait {
    pub(crate) const fn deadline(&self) -> Duration {
        match self {
            Self::Socket { deadline, .. } | Self::Session { deadline, .. } | Self::Node { deadline, .. } => {
                *deadline
            }
            Self::Group(group) => group.deadline,
        }
    }
}
