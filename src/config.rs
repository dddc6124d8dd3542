//! Every number that a user may set, its default, and the reason for that default. Grouped by who owns the setting, so that a
//! group can be replaced as a whole: one per listener, one per loop, one per connection. No behaviour may enter.
//!
//! ```text
//!   Config
//!     listener: ListenerConfig       one listening socket: its queue, its accept batch, the proxies before it
//!     handshake: HandshakeConfig     from TCP to Open, both roles: time, size of the head, origins
//!     client: ClientConfig           connections of our own, before there is TCP: connect timeout, resolver threads
//!     event_loop: LoopConfig         what the connections of one loop share: places, buffers, the bounds of a turn
//!     connection: ConnectionConfig   one connection from Open to its end: sizes, timers, how it is ended
//!     deflate: Option<Deflate>       compression; it belongs to the loop, which owns the compressors
//! ```
//!
//! [`Config::connection`] is the default for every connection. A connection that differs has a [`ConnectionConfig`] of its
//! own, whole, given when its upgrade is accepted or when it is begun: [`ConnectionConfig::share`] checks it and makes it
//! cheap to clone.
//!
//! [`Config::validate`] refuses what cannot work, instead of using something else in its place. Whoever takes a [`Config`]
//! calls it.
//!
//! # What is no setting
//!
//! | constant | value | why it is none |
//! | --- | --- | --- |
//! | queued bytes from which on a `Drain` is owed | 16 KiB | part of the rules: [specification](crate::guide::specification), section 11 |
//! | Pongs that wait for one connection | 1, the newest | specification, section 4 |
//! | bytes probed before a closing handshake is judged | 8 MiB | specification, section 3 |
//! | replies that wait for each other | 16 KiB, 64 connections or one tick of the coarse clock | measured; a turn ends with all of them written |
//! | payload from which on a buffer is queued rather than copied | 16 KiB | measured; no effect but on speed |
//! | large messages read past the receive buffer | from 32 KiB on, 256 KiB a read | measured; no effect but on speed |
//! | output buffer of a loop | full at 256 KiB, 1 MiB kept | what exceeds it is queued per connection, within `max_backlog` |
//! | deflated message of a loop | 1 MiB kept | one buffer |
//! | kernel events fetched at once | 1,024; 128 while something is due | what is left is fetched in the next turn |
//! | PROXY header | 107 bytes in version 1, 4,096 in version 2 | the former is the protocol's; of the latter 232 are addresses, the rest is ignored |
//! | commands of other threads in one turn | 1,024, and no more than `turn_callbacks` | what is left is executed in the next turn, which does not wait |
//! | rest of `accept` without descriptors | until the next turn, at most 100 ms | retries cost one call |
//! | slots and events for which room is kept | 4,096 | some 100 KiB |

mod address_range;
mod check;
mod connection;
#[cfg(feature = "deflate")]
mod deflate;
mod event_loop;
mod handshake;
mod listener;
pub(crate) mod origins;
mod proxy_protocol;
#[cfg(feature = "tls")]
pub(crate) mod tls;

#[cfg(feature = "deflate")]
pub use self::deflate::Deflate;
#[cfg(feature = "tls")]
pub(crate) use self::tls::{ClientTls, ServerTls, TlsSession, TlsVersion, take_asked_name};
pub use self::{
    address_range::{AddressRange, AddressRangeError},
    connection::{
        Abort, CloseAnswer, ClosingData, ConnectionConfig, ControlRate, Heartbeat, OnOverflow, OnPeerClose,
        SharedConfig,
    },
    event_loop::{LoopConfig, OnTotalOverflow},
    handshake::{ClientConfig, HandshakeConfig},
    listener::ListenerConfig,
    proxy_protocol::ProxyProtocol,
};
pub(crate) use self::{
    event_loop::LEAST_HANDLE_QUEUE,
    origins::{Origin, OriginError, Origins},
};
use crate::error::ConfigError;

/// The settings of a loop with its listeners and connections. Change what matters and keep the rest:
///
/// ```
/// use std::time::Duration;
///
/// let mut config = adjourn::Config::default();
/// config.connection.close_timeout = Duration::from_secs(3);
/// config.event_loop.max_connections = 10_000;
/// config.validate()?;
/// # Ok::<(), adjourn::error::ConfigError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct Config {
    /// Of each listener.
    pub listener: ListenerConfig,
    /// Of each connection until it is open, in both roles.
    pub handshake: HandshakeConfig,
    /// Of connections that are begun here, until there is a TCP connection.
    pub client: ClientConfig,
    /// Of the loop, for all its connections together.
    pub event_loop: LoopConfig,
    /// Of each connection from `Open` on, unless it has settings of its own.
    pub connection: ConnectionConfig,
    /// Whether and how messages are compressed, where the other side agrees: a server accepts what clients offer, and
    /// connections begun here offer it. `None`, the default: not at all; compression costs more time than it saves on a local
    /// network, so it is for those who ask for it.
    #[cfg(feature = "deflate")]
    pub deflate: Option<Deflate>,
}

impl Config {
    /// Checks that each setting can be what it says. [`Server`](crate::Server) and [`Workers`](crate::Workers) do so
    /// before they listen.
    ///
    /// # Errors
    /// The first setting that cannot, with its value and its limit. Allocates then.
    pub fn validate(&self) -> Result<(), ConfigError> {
        self.listener.validate()?;
        self.handshake.validate()?;
        self.client.validate()?;
        self.event_loop.validate()?;
        self.connection.validate()?;
        #[cfg(feature = "deflate")]
        if let Some(deflate) = &self.deflate {
            deflate.validate()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
