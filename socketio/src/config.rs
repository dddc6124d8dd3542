//! The settings, each with the reason for its default (specification 18). Depends on nothing.

use std::time::Duration;

/// The longest time that a setting may be: 10 years. No sum of a few such times overflows, and every store can keep it.
const LONGEST: Duration = Duration::from_hours(10 * 366 * 24);

/// The longest timer of JavaScript: one that is longer fires at once, and a client with such a heartbeat would be timed out as soon as it
/// is connected.
const LONGEST_OF_CLIENTS: Duration = Duration::from_millis((1 << 31) - 1);

/// The settings of a [`SocketIo`](crate::core::Core). Every limit has a counter in
/// [`SocketIoStats`](crate::stats::SocketIoStats) for what was over it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct SocketIoConfig {
    /// The path of the engine, matched with and without the last slash. Default `/socket.io/`, the official one.
    pub path: String,
    /// Is long-polling offered? Default: yes, if the feature `polling` is on.
    pub polling: bool,
    /// Is WebSocket offered? Default: yes.
    pub websocket: bool,
    /// The heartbeat and the time that things may take.
    pub times: Times,
    /// Sizes of what a client sends.
    pub input: InputLimits,
    /// Sizes of what waits for a client.
    pub output: OutputLimits,
    /// How many of each thing there may be.
    pub counts: CountLimits,
    /// Sessions and the log; `None`: no recovery. Default: on, with a window of 2 minutes.
    pub recovery: Option<Recovery>,
    /// Exactly once.
    pub once: OnceLimits,
    /// The store's queue and what to do while it does not answer.
    pub storage: Storage,
    /// Disconnects clients that send no events. Default: off.
    pub idle: Option<IdlePolicy>,
    /// Names (lower case) of the request headers that a handshake keeps. Default: `cookie authorization user-agent
    /// origin x-forwarded-for`; all others are dropped, since a connection keeps its handshake as long as it lives.
    pub keep_headers: Vec<String>,
    /// Origins that may open a session; `None`: any. Default: any, as officially.
    pub origins: Option<Vec<String>>,
    /// Cross-origin requests over polling. Default: off.
    pub cors: Option<Cors>,
}

/// The heartbeat and the time that things may take (specification 4, 5, 7).
#[derive(Clone, Debug)]
pub struct Times {
    /// A ping so long after the last pong. Default 25 s, the official one.
    pub ping_interval: Duration,
    /// The pong is due so long after its ping. Default 20 s, the official one.
    pub ping_timeout: Duration,
    /// A connection without a socket is closed after it. Default 45 s, the official one.
    pub connect_timeout: Duration,
    /// An upgrade has to be complete by then. Default 10 s, the official one.
    pub upgrade_timeout: Duration,
    /// How long an orderly close may take. Default 10 s: the raw crate's.
    pub close_timeout: Duration,
    /// A membership change or a disconnect waits for the log at most so long. Default 1 s.
    pub effect_timeout: Duration,
}

/// Sizes of what a client sends (specification 6, 18).
#[derive(Clone, Debug)]
pub struct InputLimits {
    /// Bytes of a message or a polling body. Default 1,000,000: the official one; the handshake carries it.
    pub max_payload: usize,
    /// Attachments of a packet. Default 10, as in the official parser's newest version.
    pub max_attachments: usize,
    /// Bytes of all attachments of a packet, not below `max_payload`. Default 4,000,000, four of the largest messages: attachments of an
    /// honest client are few.
    pub max_attachment_bytes: usize,
    /// Depth of JSON. Default 128: what `serde_json` takes.
    pub max_depth: usize,
    /// Bytes of the name of a namespace or an event. Default 1,024.
    pub max_name: usize,
    /// Bytes of the name of a room. Default 512.
    pub max_room_name: usize,
}

/// Sizes of what waits for a client (specification 4, 9, 13).
#[derive(Clone, Debug)]
pub struct OutputLimits {
    /// Bytes that may wait for one connection; over it the client is a slow consumer. An event that is larger (attachments count as
    /// base64) is refused when it is emitted. Default 4 MiB.
    pub send_queue: usize,
    /// Volatile events are dropped above this number of unsent bytes. Default 64 KiB.
    pub volatile_limit: usize,
    /// Bytes of a polling response. Default 1 MiB; one packet is never cut.
    pub max_poll_response: usize,
}

/// How many of each thing there may be (specification 18).
#[derive(Clone, Debug)]
pub struct CountLimits {
    /// Namespaces of one connection. Default 32.
    pub namespaces_per_connection: usize,
    /// Namespaces made on demand. Default 10,000.
    pub dynamic_namespaces: usize,
    /// Rooms of a socket, those that its session remembers included. Default 4,096.
    pub rooms_per_socket: usize,
    /// Bytes of a session's data. Default 64 KiB.
    pub session_data: usize,
    /// Acks of one socket that the server waits for. Default 1,024.
    pub pending_acks_per_socket: usize,
    /// Connections that have not sent one CONNECT. Default 16,384.
    pub sessions_without_connect: usize,
    /// Sessions over long-polling at a time. They need no connection of their own: adjourn's limits do not count them. Default 65,536.
    pub polling_sessions: usize,
    /// Calls of other threads that wait. Default 100,000.
    pub inbox: usize,
    /// HTTP connections at a time. Default 10,000.
    pub http_connections: usize,
    /// An HTTP request's head has to be complete by then. Default 10 s.
    pub http_head_timeout: Duration,
    /// An HTTP connection without a request is closed after it. Default 20 s.
    pub http_idle_timeout: Duration,
}

/// Sessions and the log (specification 12, 13).
#[derive(Clone, Debug)]
pub struct Recovery {
    /// How long a session may be away, and the age at which log entries go. Default 2 minutes, the official example's.
    pub window: Duration,
    /// A resumed session skips the middlewares. Default `false`: a credential that was revoked must not live on.
    pub skip_middleware: bool,
    /// Sessions in all; over it those longest away are dropped. Default 1,000,000.
    pub max_sessions: usize,
    /// Entries of one namespace's log. Default 1,000,000.
    pub log_entries: u64,
    /// Bytes of one namespace's log. Default 256 MiB; [`MemoryStore`](crate::store) users should say 64 MiB.
    pub log_bytes: u64,
    /// Bytes of log read and sent at a time for one resume; more of them is a longer turn of the loop, in which others wait. Default 16 KiB.
    pub replay_page: usize,
    /// Bytes of the replay that go out before the CONNECT answer. Default 0, see specification 13 step 5.
    pub replay_before_connect: usize,
    /// Bytes of log that one resume may read. Default 256 MiB.
    pub max_replay: u64,
    /// Session changes are saved at most so much later. Default 20 ms: a batch of joins is one commit.
    pub session_flush: Duration,
    /// The event that tells a client why its session was not resumed. Default: none.
    pub failed_event: Option<String>,
    /// When an event is delivered. Default [`Durability::AfterCommit`].
    pub durability: Durability,
}

/// When a durable event is delivered (specification 12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// After the store has committed it: what a client has seen is in the log.
    AfterCommit,
    /// At once; what a crash took is replaced by what was logged after it. For stores whose positions count.
    BeforeCommit,
}

/// Exactly once (specification 15).
#[derive(Clone, Debug)]
pub struct OnceLimits {
    /// Keys kept; over it the oldest done go. Default 1,000,000.
    pub max_keys: usize,
    /// Bytes of an ack that is kept. Default 64 KiB.
    pub max_ack: usize,
    /// How long one run may take. Default 30 s.
    pub lease: Duration,
    /// How long a done key is known. Default 24 h: longer than a client retries.
    pub window: Duration,
    /// Bytes of a key. Default 256.
    pub max_key: usize,
}

/// The store's queue and what to do while it does not answer (specification 17).
#[derive(Clone, Debug)]
pub struct Storage {
    /// Bytes of entries, arguments of transactions, acks and changes of rooms that wait for the store. Default 64 MiB. On a shared store as many of each log may be read while an append to
    /// it is not answered; over it the sockets of the namespace are cut, and resume.
    pub queue: usize,
    /// Entries of one commit. Default 1,024.
    pub batch: usize,
    /// A call that takes longer makes the store *down*. Default 1 s.
    pub stall: Duration,
    /// A store that is down is tried so often. Default 250 ms.
    pub probe: Duration,
    /// What a durable emit does while the store is down. Default [`EmitPolicy::Refuse`].
    pub on_emit: EmitPolicy,
    /// What a CONNECT does while the store is down. Default: waits up to 2 s, then a session without recovery.
    pub on_connect: ConnectPolicy,
    /// How long the end of a shutdown waits for what is queued. Default 2 s.
    pub flush_timeout: Duration,
}

/// What a durable emit does while the store is down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EmitPolicy {
    /// The call fails.
    Refuse,
    /// It waits, up to [`Storage::queue`] bytes.
    Queue,
}

/// What a CONNECT does while the store does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectPolicy {
    /// It waits so long, then it gets a session that cannot be resumed.
    WaitUpTo(Duration),
    /// It gets a session that cannot be resumed.
    FreshSession,
    /// It is refused: CONNECT_ERROR `store unavailable`.
    Refuse,
}

/// Disconnects clients that send no events (specification 11).
#[derive(Clone, Debug)]
pub struct IdlePolicy {
    /// Disconnected so long after the last event.
    pub after: Duration,
    /// Warned so long before.
    pub warn_before: Duration,
    /// The warning's event; its argument is the milliseconds that are left.
    pub warn_event: String,
}

/// Cross-origin requests, as the official option `cors` (specification 4).
#[derive(Clone, Debug)]
pub struct Cors {
    /// Who may.
    pub origin: CorsOrigin,
    /// `Access-Control-Allow-Credentials: true`.
    pub credentials: bool,
    /// `Access-Control-Expose-Headers`.
    pub exposed_headers: Vec<String>,
    /// `Access-Control-Allow-Methods`. Default `GET,HEAD,PUT,PATCH,POST,DELETE`.
    pub methods: Vec<String>,
    /// `Access-Control-Allow-Headers`; empty: what the preflight asks for.
    pub allowed_headers: Vec<String>,
    /// `Access-Control-Max-Age` in seconds.
    pub max_age: Option<u64>,
}

/// Which origins may make cross-origin requests.
#[derive(Clone, Debug)]
pub enum CorsOrigin {
    /// `*`.
    Any,
    /// Those in the list; the one that asks is mirrored.
    List(Vec<String>),
}

impl Default for SocketIoConfig {
    fn default() -> Self {
        let headers = ["cookie", "authorization", "user-agent", "origin", "x-forwarded-for"];
        Self {
            path: "/socket.io/".to_owned(),
            polling: cfg!(feature = "polling"),
            websocket: true,
            times: Times::default(),
            input: InputLimits::default(),
            output: OutputLimits::default(),
            counts: CountLimits::default(),
            recovery: Some(Recovery::default()),
            once: OnceLimits::default(),
            storage: Storage::default(),
            idle: None,
            keep_headers: headers.map(str::to_owned).to_vec(),
            origins: None,
            cors: None,
        }
    }
}

impl Default for Times {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            connect_timeout: Duration::from_secs(45),
            upgrade_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(10),
            effect_timeout: Duration::from_secs(1),
        }
    }
}

impl Default for InputLimits {
    fn default() -> Self {
        Self {
            max_payload: 1_000_000,
            max_attachments: 10,
            max_attachment_bytes: 4_000_000,
            max_depth: 128,
            max_name: 1024,
            max_room_name: 512,
        }
    }
}

impl Default for OutputLimits {
    fn default() -> Self {
        Self { send_queue: 4 << 20, volatile_limit: 64 << 10, max_poll_response: 1 << 20 }
    }
}

impl Default for CountLimits {
    fn default() -> Self {
        Self {
            namespaces_per_connection: 32,
            dynamic_namespaces: 10_000,
            rooms_per_socket: 4096,
            session_data: 64 << 10,
            pending_acks_per_socket: 1024,
            sessions_without_connect: 16_384,
            polling_sessions: 65_536,
            inbox: 100_000,
            http_connections: 10_000,
            http_head_timeout: Duration::from_secs(10),
            http_idle_timeout: Duration::from_secs(20),
        }
    }
}

impl Default for Recovery {
    fn default() -> Self {
        Self {
            window: Duration::from_mins(2),
            skip_middleware: false,
            max_sessions: 1_000_000,
            log_entries: 1_000_000,
            log_bytes: 256 << 20,
            replay_page: 16 << 10,
            replay_before_connect: 0,
            max_replay: 256 << 20,
            session_flush: Duration::from_millis(20),
            failed_event: None,
            durability: Durability::AfterCommit,
        }
    }
}

impl Default for OnceLimits {
    fn default() -> Self {
        Self {
            max_keys: 1_000_000,
            max_ack: 64 << 10,
            lease: Duration::from_secs(30),
            window: Duration::from_hours(24),
            max_key: 256,
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            queue: 64 << 20,
            batch: 1024,
            stall: Duration::from_secs(1),
            probe: Duration::from_millis(250),
            on_emit: EmitPolicy::Refuse,
            on_connect: ConnectPolicy::WaitUpTo(Duration::from_secs(2)),
            flush_timeout: Duration::from_secs(2),
        }
    }
}

impl Default for Cors {
    fn default() -> Self {
        let methods = ["GET", "HEAD", "PUT", "PATCH", "POST", "DELETE"];
        Self {
            origin: CorsOrigin::Any,
            credentials: false,
            exposed_headers: Vec::new(),
            methods: methods.map(str::to_owned).to_vec(),
            allowed_headers: Vec::new(),
            max_age: None,
        }
    }
}

/// A setting that cannot be, or settings that do not fit each other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{setting}: {why}")]
pub struct ConfigError {
    /// The setting.
    pub setting: &'static str,
    /// Why not.
    pub why: &'static str,
}

impl SocketIoConfig {
    /// Does each setting make sense, alone and beside the others?
    pub fn check(&self) -> Result<(), ConfigError> {
        let rules = [
            (self.path.starts_with('/'), "path", "must begin with a slash"),
            (self.polling || self.websocket, "polling", "one of polling and websocket must be on"),
            (!self.times.ping_interval.is_zero(), "times.ping_interval", "must not be 0"),
            (
                self.times.ping_interval.saturating_add(self.times.ping_timeout) <= LONGEST_OF_CLIENTS,
                "times.ping_interval",
                "with ping_timeout at most 2,147,483,647 ms: clients have no longer timer",
            ),
            (!self.times.ping_timeout.is_zero(), "times.ping_timeout", "must not be 0"),
            (!self.times.connect_timeout.is_zero(), "times.connect_timeout", "must not be 0"),
            (self.input.max_payload > 0, "input.max_payload", "must not be 0"),
            (
                self.input.max_attachment_bytes >= self.input.max_payload,
                "input.max_attachment_bytes",
                "must not be below input.max_payload: an attachment is a message",
            ),
            (self.input.max_depth > 0, "input.max_depth", "must not be 0"),
            (self.input.max_depth <= 128, "input.max_depth", "the JSON parser takes 128 at most"),
            (self.output.send_queue >= 1024, "output.send_queue", "must be 1,024 bytes or more"),
            (
                self.output.volatile_limit <= self.output.send_queue,
                "output.volatile_limit",
                "must not be above output.send_queue",
            ),
            (self.counts.namespaces_per_connection > 0, "counts.namespaces_per_connection", "must not be 0"),
            (self.counts.inbox > 0, "counts.inbox", "must not be 0"),
            (self.storage.batch > 0, "storage.batch", "must not be 0"),
            (!self.storage.stall.is_zero(), "storage.stall", "must not be 0"),
        ];
        check_all(&rules)?;
        check_all(
            &self.all_times().map(|(time, name)| (time <= LONGEST, name, "must not be above 10 years")),
        )?;
        self.recovery.as_ref().map_or(Ok(()), |recovery| recovery.check(self.output.send_queue))?;
        self.idle.as_ref().map_or(Ok(()), IdlePolicy::check)
    }

    /// All times, by name.
    fn all_times(&self) -> [(Duration, &'static str); 18] {
        let Self { times, counts, once, storage, .. } = self;
        let (recovery, idle) = (self.recovery.as_ref(), self.idle.as_ref());
        let patience = match storage.on_connect {
            ConnectPolicy::WaitUpTo(patience) => patience,
            ConnectPolicy::FreshSession | ConnectPolicy::Refuse => Duration::ZERO,
        };
        [
            (times.ping_interval, "times.ping_interval"),
            (times.ping_timeout, "times.ping_timeout"),
            (times.connect_timeout, "times.connect_timeout"),
            (times.upgrade_timeout, "times.upgrade_timeout"),
            (times.close_timeout, "times.close_timeout"),
            (times.effect_timeout, "times.effect_timeout"),
            (counts.http_head_timeout, "counts.http_head_timeout"),
            (counts.http_idle_timeout, "counts.http_idle_timeout"),
            (recovery.map_or(Duration::ZERO, |recovery| recovery.window), "recovery.window"),
            (recovery.map_or(Duration::ZERO, |recovery| recovery.session_flush), "recovery.session_flush"),
            (once.lease, "once.lease"),
            (once.window, "once.window"),
            (storage.stall, "storage.stall"),
            (storage.probe, "storage.probe"),
            (storage.flush_timeout, "storage.flush_timeout"),
            (patience, "storage.on_connect"),
            (idle.map_or(Duration::ZERO, |idle| idle.after), "idle.after"),
            (idle.map_or(Duration::ZERO, |idle| idle.warn_before), "idle.warn_before"),
        ]
    }
}

impl Recovery {
    fn check(&self, send_queue: usize) -> Result<(), ConfigError> {
        check_all(&[
            (!self.window.is_zero(), "recovery.window", "must not be 0; `recovery: None` turns it off"),
            (self.log_entries > 0, "recovery.log_entries", "must not be 0"),
            (self.log_bytes > 0, "recovery.log_bytes", "must not be 0"),
            (self.max_sessions > 0, "recovery.max_sessions", "must not be 0"),
            (self.replay_page >= 1024, "recovery.replay_page", "must be 1,024 bytes or more"),
            (self.replay_page <= send_queue, "recovery.replay_page", "must not be above output.send_queue"),
        ])
    }
}

impl IdlePolicy {
    fn check(&self) -> Result<(), ConfigError> {
        check_all(&[
            (self.warn_before <= self.after, "idle.warn_before", "must not be above idle.after"),
            (!self.after.is_zero(), "idle.after", "must not be 0"),
        ])
    }
}

fn check_all(rules: &[(bool, &'static str, &'static str)]) -> Result<(), ConfigError> {
    match rules.iter().find(|rule| !rule.0) {
        Some(&(_, setting, why)) => Err(ConfigError { setting, why }),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_fit_each_other() {
        assert_eq!(SocketIoConfig::default().check(), Ok(()));
    }

    #[test]
    fn settings_that_do_not_fit_are_named() {
        let mut config = SocketIoConfig::default();
        config.output.volatile_limit = config.output.send_queue + 1;
        assert_eq!(config.check().map_err(|error| error.setting), Err("output.volatile_limit"));
        let idle = IdlePolicy {
            after: Duration::from_secs(1),
            warn_before: Duration::from_secs(2),
            warn_event: "idle".to_owned(),
        };
        let config = SocketIoConfig { idle: Some(idle), ..SocketIoConfig::default() };
        assert_eq!(config.check().map_err(|error| error.setting), Err("idle.warn_before"));
    }
}
