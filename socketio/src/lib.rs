//! A Socket.IO server on [`adjourn`] whose sessions survive what ends their connections.

pub mod engine;
pub mod links;
pub mod offset;
pub mod packet;
pub mod reason;
pub mod store;
