//! Bytes <-> frames. Stateless but for what a caller hands back in. No connection, no time, no socket enters.

#[cfg(feature = "deflate")]
pub mod deflate;
pub mod header;
pub mod keys;
pub mod mask;
pub mod proxy;
pub mod upgrade;
pub mod utf8;
