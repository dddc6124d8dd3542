//! The other nodes of a shared store: the data. `cluster.rs` has the rules.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use super::super::command::FeedCommand;
use super::api::{Fetched, ServerAnswers, SocketInfo};
use super::{Address, Io};
use crate::packet::ArgsBuf;
use crate::store::NodeId;

/// What a node knows of the others.
pub(crate) struct Cluster {
    pub(crate) node: NodeId,
    /// Those that are alive, but this one.
    pub(crate) others: HashSet<NodeId>,
    /// For the driver.
    pub(crate) commands: VecDeque<FeedCommand>,
    /// Requests that wait for other nodes.
    pub(crate) requests: HashMap<u64, NodeRequest>,
    pub(crate) next_request: u64,
}

/// A request to the nodes that were alive when it was made.
pub(crate) struct NodeRequest {
    /// Those that have not answered.
    pub(crate) awaited: HashSet<NodeId>,
    /// They died before they had answered.
    pub(crate) dead: Vec<NodeId>,
    pub(crate) kind: RequestKind,
}

pub(crate) enum RequestKind {
    Fetch { namespace: Arc<str>, to: Address, sockets: Vec<SocketInfo>, then: FetchThen },
    Server { answers: Vec<(NodeId, ArgsBuf)>, then: ServerThen },
}

pub(crate) type FetchThen = Box<dyn FnOnce(&mut Io<'_>, Fetched) + Send>;
pub(crate) type ServerThen = Box<dyn FnOnce(&mut Io<'_>, ServerAnswers) + Send>;

impl Cluster {
    pub(crate) fn new(node: NodeId) -> Self {
        Self {
            node,
            others: HashSet::new(),
            commands: VecDeque::new(),
            requests: HashMap::new(),
            next_request: 0,
        }
    }
}
