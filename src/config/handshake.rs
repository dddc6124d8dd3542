//! The settings of the opening handshake, and of what a client does before it.

use std::time::Duration;

use super::{
    check::{ensure, positive, within},
    origins::Origins,
};
use crate::error::ConfigError;

/// The settings of a connection until it is open. A connection has no settings of its own yet, so these are the same for
/// all of a loop.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct HandshakeConfig {
    /// On a server: from accept to the last byte of the upgrade request, however slowly it arrives. On a client: from the TCP
    /// connection to the response. More than 0. 10 s: a slow mobile link's worst.
    pub handshake_timeout: Duration,
    /// Bytes of an upgrade request's head, 1 at least; a longer one is refused with 431. A response's head has the same limit.
    /// 16 KiB: cookies and tokens are long.
    pub max_head: usize,
    /// Header lines of an upgrade request or of a response, 1 at least; more are refused with 431. 100: as in npm ws and hyper.
    pub max_headers: usize,
    /// Bytes of a request's path that a connection keeps for [`Client::path`](crate::Client::path); a longer path is not kept.
    /// 256: paths that name a room or a user are shorter, and the peer chooses the length, up to `max_head`. Paths of up to 14
    /// bytes cost nothing, longer ones a buffer. 0: no path is kept, for applications that look at it in `on_upgrade` only.
    pub max_path_kept: usize,
    /// On a server: whose pages may connect; others get 403 without a call of `on_upgrade`. `None`, the default: all, or the
    /// application decides. A server that knows its users by cookies needs a list here.
    pub origins: Option<Origins>,
    /// On a server: what `Retry-After` says, in whole seconds, when a shutdown refuses a handshake. 5 s: about the time in
    /// which a load balancer notices.
    pub retry_after: Duration,
}

impl Default for HandshakeConfig {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(10),
            max_head: 16 << 10,
            max_headers: 100,
            max_path_kept: 256,
            origins: None,
            retry_after: Duration::from_secs(5),
        }
    }
}

impl HandshakeConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let timeout = self.handshake_timeout;
        ensure(!timeout.is_zero(), "handshake.handshake_timeout", timeout, "more than 0")?;
        positive("handshake.max_head", self.max_head)?;
        positive("handshake.max_headers", self.max_headers)
    }
}

/// The settings of connections that are begun here, until there is a TCP connection.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ClientConfig {
    /// From `connect` until there is a TCP connection, the resolution of the name included, more than 0; `handshake_timeout` follows
    /// it. All addresses of a name share it. 10 s: as long as for a handshake.
    /// [`ConnectRequest::connect_timeout`](crate::http::ConnectRequest::connect_timeout) is for one connection.
    pub connect_timeout: Duration,
    /// Names that are resolved at the same time, each on a thread of its own, 1 to 1,024; further names wait, within
    /// their `connect_timeout`. There is no thread before there is a name. 4: most clients know few names, and a resolver that
    /// does not answer blocks one thread for each.
    pub resolver_threads: usize,
    /// The TLS of connections to `wss://` URLs. By default servers are believed whose certificates lead to one of Mozilla's roots.
    /// [`ConnectRequest::tls`](crate::http::ConnectRequest::tls) is for one connection.
    #[cfg(feature = "tls")]
    pub tls: super::ClientTls,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            resolver_threads: 4,
            #[cfg(feature = "tls")]
            tls: super::ClientTls::default(),
        }
    }
}

impl ClientConfig {
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let timeout = self.connect_timeout;
        ensure(!timeout.is_zero(), "client.connect_timeout", timeout, "more than 0")?;
        within("client.resolver_threads", self.resolver_threads, 1..=1024)
    }
}
