//! Every number a user may set, its default, and why that default.

use std::time::Duration;

pub(crate) mod origins;

pub(crate) use self::origins::{Origin, OriginError, Origins};

/// The settings of a server. Change what matters and keep the rest:
///
/// ```
/// use std::time::Duration;
///
/// let mut config = adjourn::Config::default();
/// config.close_timeout = Duration::from_secs(3);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Config {
    /// Bytes of one message, over all its fragments; more is failed with 1009 at the header that announces it.
    /// 16 MiB: what most peers default to or below, and small enough that a message fits in memory many times.
    pub max_payload: usize,
    /// Fragments of one message; more is failed with 1009. 1 Mi: fragments cost no memory here, so the limit only
    /// bounds the work behind one message; 16 MiB in fragments of 16 bytes still pass.
    pub max_fragments: u32,
    /// Bytes that may be queued for one connection. 64 MiB: four of the largest messages.
    pub max_backlog: usize,
    /// Bytes of commands that may wait for a loop: what other threads ask of it by a [`Handle`](crate::Handle), payloads
    /// and some hundred bytes for each command. More fails with [`HandleError::Full`](crate::error::HandleError::Full). 64 MiB: as
    /// much as may be queued for one connection.
    pub max_handle_queue: usize,
    /// What becomes of a connection whose next message would exceed `max_backlog`. Refuse: the caller learns it
    /// and decides.
    pub on_overflow: OnOverflow,
    /// From accept to the last byte of the upgrade request, however it trickles; a client's, from TCP to the response. 10 s: a slow mobile link's worst.
    pub handshake_timeout: Duration,
    /// Client: from `connect` until there is a TCP connection, the name's resolution included; `handshake_timeout` follows
    /// it. Several addresses share it. 10 s: as long as for a handshake.
    pub connect_timeout: Duration,
    /// When to ask a silent peer for a sign of life, and how long to wait for it.
    pub heartbeat: Heartbeat,
    /// Pings and Pongs that a peer may send; more is failed with 1008. Each is work and makes an answer, so this bounds what
    /// a peer gets for a few bytes; data messages are the application's to bound. `None`: as many as it likes.
    pub control_rate: Option<ControlRate>,
    /// How long the kernel may take nothing while something is queued. 30 s: several TCP retransmissions.
    pub stall_timeout: Option<Duration>,
    /// How long a connection may stay paused. Then `close_timeout` starts, and at its end, unless
    /// [`Clients::resume`](crate::Clients::resume) is called before, reading goes on and what comes is discarded and counted. A peer's
    /// FIN does the same at once. `None`: as long as the application likes.
    pub pause_timeout: Option<Duration>,
    /// From `close`, the peer's Close or a failure to the end, whatever happens. 10 s: a slow reader's chance to
    /// read what is queued, and a third of what users complain about in others.
    pub close_timeout: Duration,
    /// The part of `close_timeout` that queued data may use before it is dropped in favour of the Close frame.
    /// `None` is half of `close_timeout`.
    pub flush_budget: Option<Duration>,
    /// How long a connection may wait for the peer's FIN after its end was reported. 2 s: a few round trips.
    pub linger_timeout: Duration,
    /// Bytes that are read and discarded meanwhile. 16 MiB: one message of the largest size in flight.
    pub linger_bytes: u64,
    /// How timeouts and the hard sweep end a TCP connection. Auto: FIN if all our bytes are in the kernel.
    pub abort: Abort,
    /// How `terminate` ends a TCP connection. Reset: the caller asked for no ceremony.
    pub terminate: Abort,
    /// What becomes of queued messages when the peer closes. Flush: the peer may still be reading.
    pub on_peer_close: OnPeerClose,
    /// Who answers the peer's Close. Auto: this crate.
    pub answer: CloseAnswer,
    /// What becomes of messages that arrive after `close`. Deliver: the peer sent them before it knew.
    pub closing_data: ClosingData,
    /// Bytes of messages delivered after `close`; more is counted and discarded. 16 MiB: one of the largest.
    pub closing_bytes: u64,
    /// Bytes of an upgrade request's head; more is refused with 431. A response's head has the same limits. 16 KiB: cookies and tokens are long.
    pub max_head: usize,
    /// Bytes of a request's path that a connection keeps for [`Client::path`](crate::Client::path); a longer one is not kept.
    /// 256: paths that name a room or a user are shorter, and a peer chooses how long they are, up to `max_head`. Those
    /// of up to 14 bytes cost nothing, longer ones a buffer. 0: none is kept, for applications that look at it in `on_upgrade`
    /// only.
    pub max_path_kept: usize,
    /// Header lines of an upgrade request; more is refused with 431. 100: as npm ws and hyper have it.
    pub max_headers: usize,
    /// Connections of one loop in any state. Where all places are taken, a newcomer gets that of the oldest connection whose
    /// request was refused, or else that of the oldest handshake; if there is neither, it is closed at accept. The default
    /// is the most that a loop can number. With [`Workers`](crate::Workers) this limit and the next two are for each loop.
    pub max_connections: usize,
    /// Of these, connections from one IPv4 address, or one /64 of IPv6: a site is given that many, and chooses among them
    /// as it likes. More are closed at accept. A connection whose request was refused does not count. The kernel spreads an
    /// address over several loops by its ports, so each may have as many. `None`: no limit and nothing counted, since a proxy
    /// or a whole company may share one address; with a limit, 30 to 60 bytes an address.
    pub max_connections_per_address: Option<u32>,
    /// Connections whose handshake is not complete. With one more, the oldest of them is closed: an honest client finishes
    /// within two round trips, a slow-loris client does not. `None` is half of `max_connections`, within 64 and 16,384: so
    /// large servers always have places for connections, their request heads take at most 256 MiB, and with round trips of
    /// 200 ms even 80,000 new ones a second push nobody out.
    pub max_handshakes: Option<usize>,
    /// Connections whose upgrade the application has [deferred](crate::http::Upgrade::Defer). One more is refused with 503;
    /// none of them is closed for another one. 1,024: as many answers as a database owes at a time, and with their request heads
    /// and what was read after these 80 MiB at most.
    pub max_deferred: usize,
    /// Whose pages may connect; others get 403, before the application is asked. `None`: everybody's, or the application
    /// decides. A server that knows its users by cookies wants a list here.
    pub origins: Option<Origins>,
    /// What `Retry-After` says, in whole seconds, when a shutdown refuses a handshake. 5 s.
    pub retry_after: Duration,
    /// Bytes of the loop's one receive buffer, and so of one read. 64 KiB: past that a read saves no time.
    pub read_buffer: usize,
    /// Reads per connection and turn before others get theirs. 4: 256 KiB with the default buffer. 255 at most, 1 at least.
    pub reads_per_turn: u32,
    /// Bytes written per connection and turn before others get theirs. 1 MiB and 64 KiB: a message of 1 MiB leaves in one
    /// piece, while it is in the processor's caches; in pieces of 256 KiB it cost a sixth more. 64 MiB at most.
    pub write_bytes_per_turn: usize,
    /// Bytes that all connections together read, inflate and write in one turn of the loop; what exceeds them waits for the
    /// next turn. 4 MiB: about a millisecond of the kernel's time, so that deadlines and others' commands come that soon.
    pub turn_bytes: usize,
    /// Callbacks in one turn of the loop. 4,096: for the same reason.
    pub turn_callbacks: u32,
    /// Connections that a sweep, or expiring deadlines, touch per turn. 4,096: a few milliseconds to look at and some ten to write to, so that
    /// the last Close frame of a large sweep does not wait for the answers to the first.
    pub sweep_slice: usize,
    /// Bytes not yet sent that the kernel may hold for a connection that closes with a backlog (`TCP_NOTSENT_LOWAT`,
    /// Linux). What the kernel holds cannot be overtaken by a Close frame; what is in the backlog can be dropped for it
    /// when `flush_budget` is used up. 128 KiB; `None` leaves it to the kernel, which may hold megabytes. Only closing
    /// connections have it: for all of them it would cost a fifth of the time of large messages.
    pub notsent_lowat: Option<u32>,
    /// Connections that may wait in the kernel for `accept`. 4,096: what Linux caps it at by default.
    pub listen_backlog: u32,
    /// Whether and how messages are compressed, where the other side agrees: a server accepts what clients offer, and
    /// connections of ours offer it. `None`: not at all; compression costs more time than it saves on a local network,
    /// so it is for those who ask for it.
    #[cfg(feature = "deflate")]
    pub deflate: Option<Deflate>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            max_payload: 16 << 20,
            max_fragments: 1 << 20,
            max_backlog: 64 << 20,
            max_handle_queue: 64 << 20,
            on_overflow: OnOverflow::Refuse,
            handshake_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(10),
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
            max_head: 16 << 10,
            max_headers: 100,
            max_path_kept: 256,
            max_connections: crate::id::MAX_SLOTS,
            max_connections_per_address: None,
            max_handshakes: None,
            max_deferred: 1024,
            origins: None,
            retry_after: Duration::from_secs(5),
            read_buffer: 64 << 10,
            reads_per_turn: 4,
            write_bytes_per_turn: (1 << 20) + (64 << 10),
            turn_bytes: 4 << 20,
            turn_callbacks: 4096,
            sweep_slice: 4096,
            notsent_lowat: Some(128 << 10),
            listen_backlog: 4096,
            #[cfg(feature = "deflate")]
            deflate: None,
        }
    }
}

/// How messages are compressed: permessage-deflate (RFC 7692).
///
/// As it is by default, a connection keeps nothing between messages: the loop has one inflater (46 KiB), and a compressor
/// (370 KiB) per size of window that its peers ask for, which is one. Both are made for the first message that needs
/// them. *Context takeover* lets messages refer to earlier ones, which makes similar messages much smaller, and costs
/// each connection a compressor or an inflater of its own, from the first message that needs it until it closes.
///
/// A message is inflated when all of it is here. One that is cut, by fragments or by the end of a read, waits as it came, so
/// a peer has to send every byte that it makes us hold. Inflating never allocates more than what has come out by then,
/// [`Config::max_payload`] at most.
///
/// ```
/// let mut deflate = adjourn::config::Deflate::default();
/// deflate.threshold = 256;
/// let mut config = adjourn::Config::default();
/// config.deflate = Some(deflate);
/// ```
#[cfg(feature = "deflate")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Deflate {
    /// From 0 (stored) and 1 (fastest) to 9 (smallest). 3: most of what can be saved, in two thirds of the time that 6
    /// takes.
    pub level: u8,
    /// Bytes below which a message of ours is sent as it is. 1,024, as npm ws has it: what fits in a packet anyway
    /// gains nothing but work.
    pub threshold: usize,
    /// The server's messages do not refer to earlier ones: on a server, no compressor per connection (370 KiB). A client
    /// that asks for it gets it in any case. True: a quiet connection owns no buffer.
    pub server_no_context_takeover: bool,
    /// The client's messages do not refer to earlier ones: on a server, no inflater per connection (46 KiB). A client
    /// that offers it is taken at its word in any case. True, for the same reason.
    pub client_no_context_takeover: bool,
    /// The largest window of the server, 8 to 15 bits; the client may ask for less. 15: a smaller one makes messages
    /// larger and saves little, since a compressor with 9 bits still takes 245 KiB.
    pub server_max_window_bits: u8,
    /// The largest window of the client, 8 to 15 bits. With less than 15, an offer of a client that cannot be limited is
    /// declined. 15: an inflater's memory does not depend on it.
    pub client_max_window_bits: u8,
}

#[cfg(feature = "deflate")]
impl Default for Deflate {
    fn default() -> Self {
        Self {
            level: 3,
            threshold: 1024,
            server_no_context_takeover: true,
            client_no_context_takeover: true,
            server_max_window_bits: 15,
            client_max_window_bits: 15,
        }
    }
}

#[cfg(feature = "deflate")]
impl Deflate {
    /// With windows that exist.
    pub(crate) fn clamped(mut self) -> Self {
        self.server_max_window_bits = self.server_max_window_bits.clamp(8, 15);
        self.client_max_window_bits = self.client_max_window_bits.clamp(8, 15);
        self
    }
}

/// When a silent peer is asked for a sign of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    /// Silence after which a Ping is sent; `None` switches heartbeats off. 30 s: below the idle timeout of common
    /// proxies (60 s).
    pub interval: Option<Duration>,
    /// Silence after that Ping which ends the connection with 1011. 20 s.
    pub timeout: Duration,
}

/// How many control frames a peer may send: a bucket of `burst`, filled again at `per_second`. It costs a connection no
/// memory. A Ping of ours, which follows a silence, fills it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ControlRate {
    /// In the long run. 1,000: a Ping behind every message of a busy peer, and far above any heartbeat.
    pub per_second: u32,
    /// At once. 100,000: with the longest payloads fewer bytes than one message of the default `max_payload`, and more than
    /// an honest peer sends while it is not read from.
    pub burst: u32,
}

impl Default for ControlRate {
    fn default() -> Self {
        Self { per_second: 1000, burst: 100_000 }
    }
}

/// What becomes of a connection whose next message would exceed `max_backlog`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverflow {
    /// `send` says no, and nothing else happens.
    Refuse,
    /// `send` says no, and the connection is failed with 1013: a slow consumer.
    Fail,
}

/// What becomes of queued messages when the peer closes.
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

/// What becomes of messages that arrive after `close`.
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
    /// FIN if all our bytes are in the kernel, else RST: FIN behind a cut frame would look like an orderly end.
    Auto,
}

/// Settings of one connection that differ from the server's. `None` keeps the server's.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Overrides {
    /// See [`Config::close_timeout`].
    pub close_timeout: Option<Duration>,
    /// See [`Config::flush_budget`].
    pub flush_budget: Option<Duration>,
    /// See [`Config::heartbeat`].
    pub heartbeat: Option<Heartbeat>,
    /// See [`Config::stall_timeout`].
    pub stall_timeout: Option<Option<Duration>>,
    /// See [`Config::pause_timeout`].
    pub pause_timeout: Option<Option<Duration>>,
    /// See [`Config::max_payload`].
    pub max_payload: Option<usize>,
    /// See [`Config::max_backlog`].
    pub max_backlog: Option<usize>,
    /// See [`Config::abort`].
    pub abort: Option<Abort>,
    /// See [`Config::answer`].
    pub answer: Option<CloseAnswer>,
    /// See [`Config::on_peer_close`].
    pub on_peer_close: Option<OnPeerClose>,
}
