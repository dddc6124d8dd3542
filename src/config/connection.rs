//! The settings of one connection from `Open` to its end, and the small types that they are made of.

use std::{ops::Deref, sync::Arc, time::Duration};

use super::check::{ensure, within};
use crate::error::ConfigError;

/// The settings of a connection from `Open` to its end. [`Config::connection`](super::Config::connection) is the default of
/// all connections; [`ConnectionConfig::share`] makes the settings of those that differ.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ConnectionConfig {
    /// Bytes of one message, over all its fragments and after inflating; more is failed with 1009 at the header that
    /// announces it. 16 MiB: small enough that a message fits in memory many times; npm ws allows 100 MiB, tungstenite 64 MiB.
    pub max_payload: usize,
    /// Fragments of one message; more is failed with 1009. 0: no message may be fragmented. 1 Mi: fragments cost no memory here, so the limit only
    /// bounds the work for one message; 16 MiB in fragments of 16 bytes still pass.
    pub max_fragments: u32,
    /// Bytes that may be queued. 64 MiB: four of the largest messages.
    pub max_backlog: usize,
    /// What happens if the next message would exceed `max_backlog`. Refuse: the caller gets the error and decides.
    pub on_overflow: OnOverflow,
    /// When to ask a silent peer for a sign of life, and how long to wait for it.
    pub heartbeat: Heartbeat,
    /// Pings and Pongs that the peer may send; more is failed with 1008. Each is work and makes an answer, so this bounds what
    /// a peer gets for a few bytes; data messages are the application's to bound. `None`: no limit.
    pub control_rate: Option<ControlRate>,
    /// How long the kernel may take nothing while something is queued, more than 0. `None`: no limit. 30 s: several TCP
    /// retransmissions.
    pub stall_timeout: Option<Duration>,
    /// How long the connection may stay paused. Then `close_timeout` starts, and at its end, unless
    /// [`Clients::resume`](crate::Clients::resume) was called before, reading goes on and what arrives is discarded and
    /// counted. A peer's FIN does the same at once. A peer that has not left is closed with 1011 after another `close_timeout`.
    /// `None`, the default: as long as the application likes.
    pub pause_timeout: Option<Duration>,
    /// From `close`, the peer's Close or a failure to the end, whatever happens. 10 s: a slow reader's chance to read what is
    /// queued, and a third of what users complain about in others.
    pub close_timeout: Duration,
    /// The part of `close_timeout` that queued data may use before it is dropped in favour of the Close frame, at most all of
    /// it. `None`, the default, is half of it: so the peer has as long to answer as the data has to leave.
    pub flush_budget: Option<Duration>,
    /// How long the connection may wait for the peer's FIN after its end was reported. 2 s: a few round trips.
    pub linger_timeout: Duration,
    /// Bytes that are read and discarded meanwhile, less than 4 GiB - 1. 16 MiB: one message of the largest size in flight.
    pub linger_bytes: u64,
    /// How timeouts and the hard sweep end the TCP connection. Auto: FIN if all our bytes are in the kernel.
    pub abort: Abort,
    /// How `terminate` ends the TCP connection. Reset: the caller asked for no ceremony.
    pub terminate: Abort,
    /// What happens to queued messages when the peer closes. Flush: the peer may still be reading.
    pub on_peer_close: OnPeerClose,
    /// Who answers the peer's Close. Auto: this crate.
    pub answer: CloseAnswer,
    /// What happens to messages that arrive after `close`. Deliver: the peer sent them before it knew.
    pub closing_data: ClosingData,
    /// Bytes of messages delivered after `close`; more is counted and discarded. 16 MiB: one of the largest.
    pub closing_bytes: u64,
    /// Whether the messages and bytes of the connection are counted each way, for [`Client::traffic`](crate::Client::traffic) and
    /// [`CloseReport::traffic`](crate::CloseReport::traffic). Off: it costs 32 bytes and some 80 for a place to keep them, and its messages take the longer way
    /// that those with settings of their own take. [`LoopStats`](crate::stats::LoopStats) counts all connections together at no such cost.
    pub count_traffic: bool,
}

impl Default for ConnectionConfig {
    fn default() -> Self {
        Self {
            max_payload: 16 << 20,
            max_fragments: 1 << 20,
            max_backlog: 64 << 20,
            on_overflow: OnOverflow::Refuse,
            heartbeat: Heartbeat {
                interval: Some(Duration::from_secs(30)),
                timeout: Duration::from_secs(20),
            },
            control_rate: Some(ControlRate::default()),
            stall_timeout: Some(Duration::from_secs(30)),
            pause_timeout: None,
            close_timeout: Duration::from_secs(10),
            flush_budget: None,
            linger_timeout: Duration::from_secs(2),
            linger_bytes: 16 << 20,
            abort: Abort::Auto,
            terminate: Abort::Reset,
            on_peer_close: OnPeerClose::FlushQueued,
            answer: CloseAnswer::Auto,
            closing_data: ClosingData::Deliver,
            closing_bytes: 16 << 20,
            count_traffic: false,
        }
    }
}

impl ConnectionConfig {
    /// Checks the settings and makes them the settings of any number of connections, by
    /// [`Accept::config`](crate::http::Accept::config) and [`ConnectRequest::config`](crate::http::ConnectRequest::config). Allocates once;
    /// clones are counted. Make it once for each kind of connection, not for each connection.
    ///
    /// ```
    /// use adjourn::{config::{ConnectionConfig, SharedConfig}, http::{Accept, Upgrade}};
    ///
    /// let mut sensors = ConnectionConfig::default();
    /// sensors.max_payload = 1024;
    /// let sensors: SharedConfig = sensors.share()?;
    /// // In `on_upgrade`:
    /// let upgrade = Upgrade::Accept(Accept::new(()).config(sensors.clone()));
    /// # Ok::<(), adjourn::error::ConfigError>(())
    /// ```
    ///
    /// # Errors
    /// The first setting that cannot work, with its value and its limit.
    pub fn share(self) -> Result<SharedConfig, ConfigError> {
        self.validate()?;
        Ok(SharedConfig(Arc::new(self)))
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        if let Some(rate) = self.control_rate {
            within("connection.control_rate.burst", rate.burst, 1..=ControlRate::MOST)?;
        }
        if let Some(interval) = self.heartbeat.interval {
            let more = "more than 0; None switches heartbeats off";
            ensure(!interval.is_zero(), "connection.heartbeat.interval", interval, more)?;
            let longest = Heartbeat::LONGEST;
            ensure(interval <= longest, "connection.heartbeat.interval", interval, "at most 12 days")?;
            let timeout = self.heartbeat.timeout;
            ensure(!timeout.is_zero(), "connection.heartbeat.timeout", timeout, "more than 0")?;
        }
        if let Some(timeout) = self.stall_timeout {
            let more = "more than 0; None switches it off";
            ensure(!timeout.is_zero(), "connection.stall_timeout", timeout, more)?;
        }
        if let Some(budget) = self.flush_budget {
            let limit = format!("at most connection.close_timeout ({:?})", self.close_timeout);
            ensure(budget <= self.close_timeout, "connection.flush_budget", budget, limit)?;
        }
        // What is discarded is counted in 32 bits, and the limit has to be exceeded.
        within("connection.linger_bytes", self.linger_bytes, 0..=u64::from(u32::MAX) - 1)
    }
}

/// The settings of connections that differ from the others, checked. Made by [`ConnectionConfig::share`]. Cloning counts,
/// and allocates nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct SharedConfig(Arc<ConnectionConfig>);

impl Deref for SharedConfig {
    type Target = ConnectionConfig;

    fn deref(&self) -> &ConnectionConfig {
        &self.0
    }
}

/// When a silent peer gets a Ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which a Ping is sent, 12 days at most; `None` switches heartbeats off. 30 s: below the idle timeout of common
    /// proxies (60 s).
    pub interval: Option<Duration>,
    /// Silence after that Ping which ends the connection with 1011. 20 s.
    pub timeout: Duration,
}

impl Heartbeat {
    /// The longest silence that a connection can record.
    pub(crate) const LONGEST: Duration = Duration::from_hours(12 * 24);
}

/// How many control frames a peer may send: a bucket of `burst`, filled again at `per_second`. It costs a connection no
/// memory. A Ping of ours, which follows a silence, fills it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRate {
    /// The sustained rate. 1,000 allows a Ping after every message of a busy peer, and is far above any heartbeat.
    pub per_second: u32,
    /// At once, 1 to 536,870,912: the answer to a Ping of ours is one. 100,000: with the longest payloads fewer bytes than one message of
    /// the default `max_payload`, and more than an honest peer sends while it is not read from.
    pub burst: u32,
}

impl ControlRate {
    /// The largest burst.
    pub(crate) const MOST: u32 = 1 << 29;
}

impl Default for ControlRate {
    fn default() -> Self {
        Self { per_second: 1000, burst: 100_000 }
    }
}

/// What happens to a connection whose next message would exceed `max_backlog`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverflow {
    /// `send` says no, and nothing else happens.
    Refuse,
    /// `send` says no, and the connection is failed with 1013: a slow consumer.
    Fail,
}

/// What happens to queued messages when the peer closes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnPeerClose {
    /// They are sent, for `flush_budget` at most, and then the answer.
    FlushQueued,
    /// What has not begun is dropped and counted, and the answer is sent.
    DropQueued,
}

/// Who answers the peer's Close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseAnswer {
    /// This crate, at once, with the peer's code and reason.
    Auto,
    /// The application, by `answer_close`; it may still send until then. When `flush_budget` is used up, the
    /// automatic answer goes out.
    Manual,
}

/// What happens to messages that arrive after `close`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClosingData {
    /// They are delivered, marked `closing`.
    Deliver,
    /// They are counted as lost.
    Discard,
}

/// How a TCP connection is ended that has no orderly end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Abort {
    /// RST, by `SO_LINGER` 0. What the kernel still holds is gone, on both sides.
    Reset,
    /// FIN, after the input that waits was read and discarded.
    Fin,
    /// FIN if all our bytes are in the kernel, else RST: FIN after a cut frame would look like an orderly end.
    Auto,
}
