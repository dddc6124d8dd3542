//! The core in virtual time: one file for each part of specification.

#[path = "core/world.rs"]
mod world;

#[cfg(feature = "admin")]
#[path = "core/admin.rs"]
mod admin;
#[path = "core/basics.rs"]
mod basics;
#[path = "core/cluster.rs"]
mod cluster;
#[path = "core/cluster_client.rs"]
mod cluster_client;
#[path = "core/events.rs"]
mod events;
#[path = "core/failures.rs"]
mod failures;
#[path = "core/limits.rs"]
mod limits;
#[path = "core/nodes.rs"]
mod nodes;
#[path = "core/once.rs"]
mod once;
#[path = "core/recovery.rs"]
mod recovery;
#[path = "core/resumes.rs"]
mod resumes;
#[path = "core/rules.rs"]
mod rules;
#[path = "core/turns.rs"]
mod turns;
#[path = "core/withheld.rs"]
mod withheld;
