//! What several of the tests, benches and fuzz targets of `adjourn` need: a simulation in virtual time, a server and raw
//! frames for tests over real sockets, the bodies of the fuzz targets, and the inputs that are kept.
//!
//! Nothing here is published, and nothing in `src` of the crate may depend on it.

#![allow(missing_docs, unreachable_pub, clippy::missing_panics_doc, clippy::unwrap_used)]

pub mod exhaustive;
pub mod fleet;
pub mod kept;
pub mod net;
pub mod sim;
#[cfg(feature = "deflate")]
pub mod targets;
