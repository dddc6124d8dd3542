//! Engine.IO and Socket.IO packets <-> bytes (specification 2, 6). Knows `links` and `offset` only.
//!
//! Stateless but for the attachments that a connection still has to send ([`Decoder`]). No sockets, rooms or time enter.

mod args;
mod binary;
mod decode;
mod encode;
mod engine_packet;
mod error;
mod header;
mod json;
mod query;

pub use args::{Args, ArgsBuf, ArgsEncoder, ToArgs};
pub use binary::{Binary, Raw};
pub use decode::{Decoder, Packet, PacketLimits};
pub use encode::{Event, Frames, ack, connect, connect_error, disconnect, queued_frames, queued_size};
pub use engine_packet::{EnginePacket, EnginePacketError, encoded_len, push_packet, split_payload};
pub use error::{ArgsError, DecodeError, EncodeError};
pub use header::{PacketKind, is_namespace, is_reserved};
pub(crate) use json::quoted;
pub use query::Query;
