//! The settings of compression.

use std::time::Duration;

use super::check::{ensure, within};
use crate::error::ConfigError;

/// How messages are compressed: permessage-deflate (RFC 7692).
///
/// As it is by default, a connection keeps nothing between messages: the loop has one inflater (46 KiB), and a compressor
/// (270 KiB) per size of window that its peers ask for, which is one. Both are made for the first message that needs
/// them. *Context takeover* lets messages refer to earlier ones, which makes similar messages much smaller, and costs
/// each connection a compressor (160 KiB) or an inflater (46 KiB) of its own, from the first message that needs it until it
/// closes. A compressor can be freed before, when the connection is quiet: [`Deflate::release_after`].
///
/// A message is inflated when all of it is here. One that is cut, by fragments or by the end of a read, waits as it came, so
/// a peer has to send every byte that it makes us hold. Inflating never allocates more than what has come out by then,
/// [`ConnectionConfig::max_payload`](super::ConnectionConfig::max_payload) at most.
///
/// ```
/// let mut deflate = adjourn::config::Deflate::default();
/// deflate.threshold = 256;
/// let mut config = adjourn::Config::default();
/// config.deflate = Some(deflate);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deflate {
    /// From 1 (fastest; 2 is the same) to 9 (smallest); with 0 nothing is compressed. 3: most of what can be saved, in two thirds of the time that 6
    /// takes.
    pub level: u8,
    /// Bytes below which a message of ours is sent as it is. 1,024, as npm ws has it: what fits in a packet anyway
    /// gains nothing but work.
    pub threshold: usize,
    /// The server's messages do not refer to earlier ones: on a server, no compressor per connection. A client
    /// that asks for it gets it in any case. True: a quiet connection owns no buffer.
    pub server_no_context_takeover: bool,
    /// The client's messages do not refer to earlier ones: on a server, no inflater per connection (46 KiB). A client
    /// that offers it is taken at its word in any case. True, for the same reason.
    pub client_no_context_takeover: bool,
    /// The largest window of the server, 8 to 15 bits; the client may ask for less. 15: a smaller one makes messages
    /// larger and saves little, since a compressor with 9 bits still takes 145 KiB.
    pub server_max_window_bits: u8,
    /// The largest window of the client, 8 to 15 bits. With less than 15, an offer of a client that cannot be limited is
    /// declined. 15: an inflater's memory does not depend on it.
    pub client_max_window_bits: u8,
    /// With context takeover: the largest window of a connection's own compressor, 8 to 15 bits, within what was agreed on. 12: the messages of
    /// a loop's connections take turns, so what a compressor touches is out of the processor's caches each time. Against 15
    /// bits it takes two thirds of the time and of the memory, and messages of similar JSON become 3 to 6 % larger.
    pub takeover_window_bits: u8,
    /// With context takeover: how long a connection may send nothing compressed before its compressor is freed, more than 0. Its next
    /// message begins an empty window, which every receiver can inflate, so it is larger than it would have been, and a
    /// compressor is allocated again. An inflater stays: only the peer knows what its next message refers to. `None`, the
    /// default: until the connection closes.
    pub release_after: Option<Duration>,
}

impl Default for Deflate {
    fn default() -> Self {
        Self {
            level: 3,
            threshold: 1024,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
            takeover_window_bits: 12,
            release_after: None,
        }
    }
}

impl Deflate {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        within("deflate.level", self.level, 0..=9)?;
        within("deflate.server_max_window_bits", self.server_max_window_bits, 8..=15)?;
        within("deflate.client_max_window_bits", self.client_max_window_bits, 8..=15)?;
        within("deflate.takeover_window_bits", self.takeover_window_bits, 8..=15)?;
        if let Some(quiet) = self.release_after {
            let more = "more than 0; None switches it off";
            ensure(!quiet.is_zero(), "deflate.release_after", quiet, more)?;
        }
        Ok(())
    }
}
