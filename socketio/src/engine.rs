//! One Engine.IO session as a value: transports, heartbeat, upgrade, closing (specification 2 to 5). Time is a parameter.
//!
//! The core keeps the sessions, finds them by `sid` and by link, and calls them. Nothing of Socket.IO enters, no clock, no randomness.

mod admission;
mod config;
mod heartbeat;
mod outcome;
mod polling;
mod session;
mod sid;

pub use admission::{Admission, EngineRequest, Refusal, SessionState, admit};
pub use config::EngineConfig;
pub use outcome::{Context, Message, Outcome, PostBody, PostPackets};
pub use session::{Engine, SlowConsumer};
pub use sid::Sid;
