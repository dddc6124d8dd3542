//! The core in virtual time: one file for each part of SESSIONS.md.

#[path = "core/world.rs"]
mod world;

#[path = "core/basics.rs"]
mod basics;
#[path = "core/recovery.rs"]
mod recovery;
