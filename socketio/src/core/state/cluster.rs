//! The other nodes of a shared store: the data. `cluster.rs` has the rules.

use std::collections::{HashSet, VecDeque};

use super::super::cluster::FeedCommand;
use crate::store::NodeId;

/// What a node knows of the others.
pub(crate) struct Cluster {
    pub(crate) node: NodeId,
    /// Those that are alive, but this one.
    pub(crate) others: HashSet<NodeId>,
    /// For the driver.
    pub(crate) commands: VecDeque<FeedCommand>,
}
