//! ROOM: one Engine.IO session as a value: transports, heartbeat, upgrade, closing (SESSIONS.md 2 to 5). Time is a parameter.
//!
//! The core owns the sessions, finds them by `sid` or link, and calls them. May not enter: Socket.IO, clocks, randomness, sockets.

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
