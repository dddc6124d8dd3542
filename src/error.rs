//! What can go wrong, whose fault it is, and what to do next: one small enum for each kind of call or event.

use thiserror::Error;

/// How a peer broke RFC 6455 in its frames. The answer is a Close frame with code 1002; for compressed data that cannot
/// be inflated it is 1007, as in npm ws and most other libraries, and for too many control frames 1008.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// A reserved bit is set and no negotiated extension gives it a meaning (RFC 6455 §5.2).
    #[error("reserved bit set without an extension that uses it")]
    ReservedBits,
    /// An opcode that RFC 6455 §5.2 does not define.
    #[error("reserved opcode {0:#x}")]
    ReservedOpcode(u8),
    /// A length that a shorter form could carry (RFC 6455 §5.2).
    #[error("payload length is not in its shortest form")]
    NonMinimalLength,
    /// A 64-bit length whose top bit is set (RFC 6455 §5.2).
    #[error("payload length has its top bit set")]
    LengthTopBit,
    /// A control frame without FIN (RFC 6455 §5.5).
    #[error("fragmented control frame")]
    FragmentedControl,
    /// A control frame of more than 125 bytes (RFC 6455 §5.5).
    #[error("control frame of more than 125 bytes")]
    ControlTooLong,
    /// A client's frame without a mask (RFC 6455 §5.1).
    #[error("client frame is not masked")]
    Unmasked,
    /// A server's frame with a mask (RFC 6455 §5.1).
    #[error("server frame is masked")]
    Masked,
    /// A continuation frame with no message to continue (RFC 6455 §5.4).
    #[error("continuation frame without a message to continue")]
    UnexpectedContinuation,
    /// A new data frame inside an unfinished message (RFC 6455 §5.4).
    #[error("new message before the last fragment of the one before")]
    ExpectedContinuation,
    /// A Close payload of one byte (RFC 6455 §5.5.1).
    #[error("Close payload of one byte")]
    CloseLength,
    /// A Close code that must not be on the wire (RFC 6455 §7.4).
    #[error("Close code {0} must not be sent")]
    CloseCode(u16),
    /// More Pings and Pongs than [`ConnectionConfig::control_rate`](crate::config::ConnectionConfig::control_rate) allows. No rule of RFC 6455, but one
    /// of ours.
    #[error("more control frames than control_rate allows")]
    ControlFlood,
    /// A compressed message that is no DEFLATE data, or not all of it (RFC 7692 §7.2.2).
    #[error("compressed message is no valid DEFLATE data")]
    InvalidDeflate,
}

/// The names of an enum's variants from one list, for logs and counters: the compiler sees that none is missing.
macro_rules! names {
    ($($name:ident,)*) => {
        /// The names of all of them.
        pub const NAMES: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

        /// The name without fields, for logs and counters.
        pub const fn name(self) -> &'static str {
            match self {
                $(Self::$name { .. } => stringify!($name),)*
            }
        }
    };
}
pub(crate) use names;

/// Why an opening handshake ended without a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum HandshakeError {
    /// `handshake_timeout` ran out.
    #[error("the handshake took longer than handshake_timeout")]
    Timeout,
    /// Client: `connect_timeout` ran out before there was a TCP connection.
    #[error("connecting took longer than connect_timeout")]
    ConnectTimeout,
    /// Client: the name has no address, or could not be looked up.
    #[error("the name could not be resolved")]
    NotResolved,
    /// Client: the server answered with this status instead of 101.
    #[error("the server answered with status {0} instead of 101")]
    Status(u16),
    /// Client: not a response that RFC 6455 §4.1 allows.
    #[error("the server's response is no answer to the upgrade: {0}")]
    BadResponse(ResponseFault),
    /// Client: `close`, `kick` or `terminate` was called before the handshake was complete.
    #[error("given up before the handshake was complete")]
    Cancelled,
    /// Not a request that RFC 6455 §4.2.1 allows.
    #[error("not a valid upgrade request")]
    BadRequest,
    /// The request's or response's head is over `max_head` bytes or `max_headers` lines.
    #[error("the head exceeds max_head or max_headers")]
    HeadTooLarge,
    /// A `Sec-WebSocket-Version` other than 13.
    #[error("another version of WebSocket than 13")]
    BadVersion,
    /// The application's `on_upgrade` refused it, or panicked.
    #[error("refused by the application")]
    Rejected,
    /// The request's `Origin` is not in [`HandshakeConfig::origins`](crate::config::HandshakeConfig::origins). Answered with
    /// 403; the application was not asked.
    #[error("its origin may not connect")]
    OriginRefused,
    /// The peer sent FIN first.
    #[error("the peer closed the TCP connection")]
    PeerFin,
    /// The peer reset the TCP connection.
    #[error("the peer reset the TCP connection")]
    PeerReset,
    /// The TLS handshake failed. The peer got an alert, if it could be sent.
    #[error("the TLS handshake failed: {0}")]
    Tls(TlsError),
    /// The socket failed in another way; for a client, its connect was refused.
    #[error("the socket failed: {0}")]
    Io(std::io::ErrorKind),
    /// We are shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// The PROXY header, or the want of one, see [`ListenerConfig::proxy_protocol`](crate::config::ListenerConfig::proxy_protocol).
    #[error("{0}")]
    ProxyHeader(ProxyFault),
    /// A limit on connections was reached: this one was not let in, or its handshake was the oldest.
    #[error("too many connections: {limit} is reached")]
    TooManyConnections {
        /// Which one.
        limit: ConnectionLimit,
    },
}

impl HandshakeError {
    names! {
        Timeout,
        ConnectTimeout,
        NotResolved,
        Status,
        BadResponse,
        Cancelled,
        BadRequest,
        HeadTooLarge,
        BadVersion,
        Rejected,
        OriginRefused,
        PeerFin,
        PeerReset,
        Tls,
        Io,
        ShuttingDown,
        ProxyHeader,
        TooManyConnections,
    }
}

/// Why a TLS handshake failed (feature `tls`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// What the peer sent is no TLS: plain HTTP on this port, for example.
    #[error("the peer does not speak TLS")]
    NotTls,
    /// There is no version, cipher suite or protocol (ALPN) that both sides know.
    #[error("the peer and this side have no version, cipher suite or protocol in common")]
    Incompatible,
    /// There is no certificate for the name that the client asks for.
    #[error("there is no certificate for the name that the client asks for")]
    NoIdentity,
    /// The peer showed no certificate, and has to.
    #[error("the peer has shown no certificate")]
    NoPeerCertificate,
    /// The peer's certificate was refused: not signed by a root that is trusted here, expired, or of another name.
    #[error("the certificate of the peer is refused")]
    PeerCertificate,
    /// The peer ended the handshake with this alert (RFC 8446 §6.2), 48 for an unknown root, for example.
    #[error("the peer has sent the alert {0}")]
    Alert(u8),
    /// The peer broke a rule of TLS, or sent more than a handshake may have.
    #[error("the peer breaks the rules of TLS")]
    Protocol,
    /// Something failed on this side.
    #[error("TLS failed on this side")]
    Internal,
}

/// What is wrong with a PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ProxyFault {
    /// The listener requires a header, and there is none.
    #[error("no PROXY header, and one is required")]
    Missing,
    /// The address is not among the [trusted](crate::config::ProxyProtocol::trusted) ones: it has sent a header, or the listener
    /// requires one and so lets nobody in from there.
    #[error("a PROXY header is not taken from this address")]
    Untrusted,
    /// It begins like a header and is none.
    #[error("malformed PROXY header")]
    Malformed,
    /// It is longer than a header may be: 107 bytes in version 1, 4,096 in version 2.
    #[error("PROXY header of too many bytes")]
    TooLong,
}

/// A limit on connections. Displays as the name of the setting.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ConnectionLimit {
    /// [`LoopConfig::max_connections`](crate::config::LoopConfig::max_connections).
    Connections,
    /// [`LoopConfig::max_connections_per_address`](crate::config::LoopConfig::max_connections_per_address).
    PerAddress,
    /// [`LoopConfig::max_handshakes`](crate::config::LoopConfig::max_handshakes).
    Handshakes,
    /// [`LoopConfig::max_deferred`](crate::config::LoopConfig::max_deferred).
    Deferred,
}

impl std::fmt::Display for ConnectionLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Connections => "max_connections",
            Self::PerAddress => "max_connections_per_address",
            Self::Handshakes => "max_handshakes",
            Self::Deferred => "max_deferred",
        })
    }
}

/// What is wrong with a server's response to a client's opening handshake (RFC 6455 §4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum ResponseFault {
    /// It is not the head of an HTTP/1.1 response.
    #[error("not an HTTP/1.1 response")]
    Malformed,
    /// `Upgrade` is not present exactly once, or is not `websocket`.
    #[error("Upgrade is not websocket")]
    Upgrade,
    /// `Connection` does not list `Upgrade`.
    #[error("Connection does not include Upgrade")]
    Connection,
    /// `Sec-WebSocket-Accept` is not present exactly once, or not made from our key.
    #[error("Sec-WebSocket-Accept is not the answer to our key")]
    AcceptKey,
    /// It names a subprotocol that was not offered, or several.
    #[error("Sec-WebSocket-Protocol names a subprotocol that was not offered")]
    Subprotocol,
    /// It names an extension that was not offered, or with parameters that were not.
    #[error("Sec-WebSocket-Extensions does not match the offer")]
    Extensions,
}

/// Why a connection is failed (RFC 6455 §7.1.7) because of what the peer sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Violation {
    /// A rule of RFC 6455 was broken: 1002.
    #[error(transparent)]
    Protocol(#[from] ProtocolError),
    /// A message or the number of its fragments is over the limit: 1009.
    #[error("message exceeds the limit of {limit}")]
    TooBig {
        /// `max_payload` in bytes or `max_fragments`.
        limit: u64,
    },
    /// Text or a Close reason is not UTF-8: 1007.
    #[error("text is not UTF-8")]
    InvalidUtf8,
}

/// Why a message was not queued. No part of it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SendError {
    /// No connection has this id any more.
    #[error("no such connection")]
    NotFound,
    /// The opening handshake of this client's connection is not complete.
    #[error("the connection is not open yet")]
    Connecting,
    /// The closing handshake has begun, or the connection has ended.
    #[error("the connection is closing")]
    Closing,
    /// The peer reads too slowly: the message would take its backlog over `max_backlog`, or all backlogs of the loop over
    /// [`max_backlog_total`](crate::config::LoopConfig::max_backlog_total). If something is queued for this connection, a
    /// [`Drain`](crate::Event::Drain) says when nothing is; if nothing is, it says when what others hold leaves room for
    /// the message. For a message that is larger than the limit itself there is nothing to wait for, unless something is queued.
    #[error("{queued} bytes are queued and {message} more exceed max_backlog or max_backlog_total ({limit})")]
    Overflow {
        /// Bytes queued already: for this connection, or for all of them.
        queued: usize,
        /// Bytes of the message with its header.
        message: usize,
        /// The limit that it exceeds.
        limit: usize,
    },
    /// A Ping or Pong of more than 125 bytes (RFC 6455 §5.5).
    #[error("a control frame carries at most 125 bytes, not {0}")]
    ControlTooLong(usize),
}

/// Why a connection was not begun. No event follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// `max_connections` is reached.
    #[error("there are {0} connections, as many as max_connections allows")]
    TooManyConnections(usize),
    /// A shutdown closes the connections.
    #[error("shutting down")]
    ShuttingDown,
}

/// A message of another crate is a control frame, and no data message.
#[cfg(feature = "tungstenite")]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("a control frame is no data message")]
pub struct NotData;

/// A stream was not taken in; here it is again. What was read of it is dropped.
#[derive(Debug, Error)]
#[error("connection not adopted: {why}")]
#[non_exhaustive]
pub struct AdoptError {
    /// The stream. It may have become non-blocking.
    pub stream: std::net::TcpStream,
    /// Why.
    pub why: AdoptRefusal,
}

/// Why a connection was not adopted. No event follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AdoptRefusal {
    /// There are too many connections.
    #[error("too many connections: {limit} is reached")]
    TooManyConnections {
        /// Which limit is reached.
        limit: ConnectionLimit,
    },
    /// A shutdown closes the connections.
    #[error("shutting down")]
    ShuttingDown,
    /// The extensions that were agreed on are not known here, or have parameters that cannot be.
    #[error("extensions that are not known here")]
    Extensions,
    /// The socket is not connected, or the system does not watch it.
    #[error("the socket failed: {0}")]
    Io(std::io::ErrorKind),
    /// [`Handle::adopt`](crate::Handle::adopt): the loop did not get to it, or could not be asked.
    #[error(transparent)]
    Handle(#[from] HandleError),
}

/// Why a deferred upgrade was not accepted or rejected by this call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum DecideError {
    /// No upgrade waits under this id: it was decided, its peer has left, its time ran out, or there never was one.
    #[error("no deferred upgrade has this id")]
    NotFound,
    /// The server is shutting down: the upgrade was refused with 503.
    #[error("shutting down: refused with 503")]
    ShuttingDown,
}

/// Why a handle could not pass a command on. Unless it says otherwise, the command was not queued; of a
/// [`WorkersHandle`](crate::WorkersHandle), not for one of its loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum HandleError {
    /// The loop has ended: its shutdown is complete, or the server was dropped.
    #[error("the server has stopped")]
    Stopped,
    /// Other commands wait for the loop, and this one would take them over their limit. Try again later, or send less.
    #[error("the commands that wait for the loop are at the limit of max_handle_queue")]
    Full,
    /// No loop of this server has had a connection with that id.
    #[error("the connection belongs to another server")]
    UnknownLoop,
    /// The command was queued, but the system denied to wake the loop. It executes the command when something else wakes
    /// it.
    #[error("the loop could not be woken: {0}")]
    NotWoken(std::io::ErrorKind),
}

/// A setting that cannot work: which one, what it is, and what it may be.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{setting} is {value}, but has to be {limit}")]
pub struct ConfigError {
    setting: &'static str,
    value: String,
    limit: String,
}

impl ConfigError {
    pub(crate) const fn new(setting: &'static str, value: String, limit: String) -> Self {
        Self { setting, value, limit }
    }

    /// The setting with its owner: `event_loop.reads_per_turn`.
    pub const fn setting(&self) -> &'static str {
        self.setting
    }

    /// What it is.
    pub fn value(&self) -> &str {
        &self.value
    }

    /// What it has to be: `from 1 to 255`.
    pub fn limit(&self) -> &str {
        &self.limit
    }
}

/// Why a server could not be made, or could not listen.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum BindError {
    /// The address could not be resolved.
    #[error("cannot resolve the address: {0}")]
    Resolve(#[source] std::io::Error),
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It resolves to no address.
    #[error("the address resolves to nothing")]
    NoAddress,
    /// None of the addresses could be bound; this is why the last one could not.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The path could not be bound. If something is there already (`AddrInUse`), it may be the socket of a server that is gone:
    /// such a file stays until somebody removes it.
    #[error("cannot listen on {}: {source}", path.display())]
    ListenUnix {
        /// The path.
        path: std::path::PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The system denied a poll, or to watch the listener.
    #[error("cannot poll: {0}")]
    Poll(#[source] std::io::Error),
    /// A shutdown has closed the listeners, and they stay closed.
    #[error("the server is shutting down and does not listen any more")]
    ShuttingDown,
    /// The process has 256 loops already: as many as the ids of connections can tell apart.
    #[error("there are 256 loops in this process, as many as connection ids can number")]
    TooManyLoops,
}
