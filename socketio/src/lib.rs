//! A Socket.IO server on [`adjourn`] whose sessions survive what ends their connections.

pub mod config;
pub mod core;
pub mod engine;
pub mod error;
pub mod links;
pub mod offset;
pub mod packet;
pub mod reason;
pub mod stats;
pub mod store;
