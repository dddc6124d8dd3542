//! A Socket.IO server on [`adjourn`] whose sessions survive what ends their connections, for unmodified official clients.
//!
//! [`SocketIo`] has namespaces, [`Namespace`] their handlers; handlers get a [`Socket`]. What is emitted is appended to the log of
//! its namespace and then delivered, so a client that comes back gets what it missed, once and in order. Where the log is
//! kept: [`MemoryStore`], [`SqliteStore`]. The settings, with the reason for each default: [`config`].
//!
//! ```no_run
//! use adjourn_socketio::{MemoryStore, SocketIo, SocketIoConfig};
//!
//! let mut io = SocketIo::new(SocketIoConfig::default(), MemoryStore::new())?;
//! io.namespace("/").on("echo", |socket, args, ack| {
//!     if let Some(ack) = ack {
//!         ack.send(socket.io(), args).ok();
//!     }
//! });
//! let mut server = adjourn::Server::bind("127.0.0.1:3000", adjourn::Config::default())?;
//! io.run(&mut server)?;
//! # Ok::<_, Box<dyn std::error::Error>>(())
//! ```
//!
//! The modules, each using those to its left only: `store`, `packet`, `engine`, `core`, and the driver, which has the only clock, the
//! only sockets and the only threads. All but the driver can be run in virtual time. A number in brackets, as in "(specification
//! 13)", is a section of `docs/specification.md`, where each rule has its tests.

#[cfg(feature = "admin")]
pub mod admin;
pub mod config;
pub mod core;
mod driver;
#[cfg(feature = "redis")]
mod emitter;
pub mod engine;
pub mod error;
pub mod links;
#[cfg(feature = "metrics")]
pub mod metrics;
pub mod offset;
pub mod packet;
pub mod reason;
mod secret;
pub mod stats;
pub mod store;

pub use config::SocketIoConfig;
pub use core::{Ack, Broadcast, Io, KeyFrom, KeyScope, Namespace, OnceCall, ResumeOutcome, Socket};
pub use driver::{Conn, DrainReport, EngineServer, RequestHead, SocketIo, SocketIoHandle, StartError};
#[cfg(feature = "polling")]
pub use driver::{HttpError, PeerAddr};
#[cfg(feature = "redis")]
pub use emitter::{Emitter, PublishError};
pub use error::OnceError;
pub use packet::{Args, Binary};
pub use reason::Reason;
#[cfg(feature = "redis")]
pub use store::RedisStore;
#[cfg(feature = "sqlite")]
pub use store::SqliteStore;
pub use store::{AckValue, MemoryStore, RunError, Tx};

#[cfg(all(doctest, feature = "sqlite", feature = "signals"))]
#[doc = include_str!("../README.md")]
struct Readme;
