//! The simulation: worlds of seeded peers, links and applications in virtual time, and after each step every rule of the
//! closing specification that can be derived from what really happened on the wire.
//!
//! `README.md` beside the files of this module lists the checks, and which bugs they are known to catch.

mod alarms;
mod answers;
mod app;
mod asked;
mod chance;
mod checker;
mod commands;
mod deflate;
mod endings;
mod explain;
mod facts;
mod frames;
mod inbound;
mod link;
mod observe;
mod outbound;
mod outcome;
mod outside;
mod peer;
mod records;
mod reports;
mod scenario;
mod shutdowns;
mod tally;
mod timing;
mod turns;
mod wire;
mod world;

pub use chance::Rng;
pub use checker::{Checker, Failure};
pub use scenario::{Size, of_bytes};
pub use tally::{Tally, rows_with_an_effect};
pub use world::live;
