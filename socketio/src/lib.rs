//! A Socket.IO server on [`adjourn`] whose sessions survive what ends their connections.

pub mod config;
pub mod core;
mod driver;
pub mod engine;
pub mod error;
pub mod links;
pub mod offset;
pub mod packet;
pub mod reason;
pub mod stats;
pub mod store;

pub use driver::{Conn, DrainReport, EngineServer, RequestHead, SocketIo, SocketIoHandle, StartError};
#[cfg(feature = "polling")]
pub use driver::{HttpError, PeerAddr};
