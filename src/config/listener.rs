//! The settings of a listening socket.

use super::{
    check::{positive, within},
    proxy_protocol::ProxyProtocol,
};
use crate::error::ConfigError;

/// The settings of one listener.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ListenerConfig {
    /// Connections that may wait in the kernel for `accept`, 1 to 2,147,483,647. 4,096: what Linux caps it at by default.
    pub listen_backlog: u32,
    /// Connections accepted in one turn, 1 at least; the rest is accepted in the next turn. 256: some milliseconds, so that a
    /// flood of new connections leaves time for those that are open. A larger batch accepts faster and makes the others
    /// wait longer.
    pub accept_batch: usize,
    /// Whether a listener on an IPv6 address leaves IPv4 alone (`IPV6_V6ONLY`). `false`: `[::]` takes both, whatever the system's
    /// default is. Set it to listen on `0.0.0.0` with the same port, too. Not for sockets that are bound already.
    pub only_v6: bool,
    /// Whether other sockets may be bound to the same port (`SO_REUSEPORT`), those of other processes of the same user: the kernel spreads
    /// new connections over them. `false`: the second server on a port fails, which is what it should mostly do.
    /// [`Workers`](crate::Workers) need no setting for their own loops. Not for Unix domain sockets, nor for those that are bound already.
    ///
    /// It is no way to restart without refusing anyone: connections that wait in the queue of a socket are reset when it closes. Hand
    /// over the socket itself.
    pub reuse_port: bool,
    /// Whether connections begin with a PROXY header that says whom a proxy speaks for. `None`: they do not.
    pub proxy_protocol: Option<ProxyProtocol>,
    /// Connections begin with a TLS handshake, which is a part of [`handshake_timeout`](super::HandshakeConfig::handshake_timeout) and of the
    /// limits on handshakes. A PROXY header comes before it, in plain. `None`, the default: plain.
    #[cfg(feature = "tls")]
    pub tls: Option<super::ServerTls>,
}

impl Default for ListenerConfig {
    fn default() -> Self {
        Self {
            listen_backlog: 4096,
            accept_batch: 256,
            only_v6: false,
            reuse_port: false,
            proxy_protocol: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }
}

impl ListenerConfig {
    pub(crate) fn validate(&self) -> Result<(), ConfigError> {
        within("listener.listen_backlog", self.listen_backlog, 1..=i32::MAX.unsigned_abs())?;
        positive("listener.accept_batch", self.accept_batch)?;
        self.proxy_protocol.as_ref().map_or(Ok(()), ProxyProtocol::validate)
    }
}
