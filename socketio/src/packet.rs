//! ROOM: Engine.IO and Socket.IO packets <-> bytes (SESSIONS.md 2, 6). Knows `links` and `offset` only.
//!
//! Stateless but for the attachments that a connection still has to send ([`Decoder`]). No sockets, rooms or time enter.

mod args;
mod binary;
mod decode;
mod encode;
mod error;
mod query;

pub use args::{Args, ArgsBuf, ArgsEncoder, ToArgs};
pub use binary::{Binary, Raw};
pub use decode::{Decoder, Packet, PacketKind, PacketLimits};
pub use encode::{Event, Frames, ack, connect, connect_error, disconnect, is_reserved};
pub use error::{ArgsError, DecodeError, EncodeError};
pub use query::Query;
