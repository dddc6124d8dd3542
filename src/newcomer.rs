//! A connection as a listener accepts it: where it comes from. Nothing is read or decided here.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::ProxyProtocol;

/// Who connected to a Unix domain socket, as the kernel knows it: the process that called `connect`, or made the pair.
///
/// Linux and Android only (`SO_PEERCRED`); elsewhere there is none. There is none either for a process in a PID namespace that is not visible
/// from here, as that of the host is not from a container: let it in by the permissions of the socket's directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerCredentials {
    pid: u32,
    uid: u32,
    gid: u32,
}

impl PeerCredentials {
    pub(crate) const fn new(pid: u32, uid: u32, gid: u32) -> Self {
        Self { pid, uid, gid }
    }

    /// The process. It may have ended, and its number may be another one's by now.
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The effective user.
    pub const fn uid(&self) -> u32 {
        self.uid
    }

    /// The effective group.
    pub const fn gid(&self) -> u32 {
        self.gid
    }
}

/// What is shown of a peer that has no address: of one on a Unix domain socket, and of a server whose name is not resolved.
pub(crate) const NO_ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

/// A connection that was accepted, for [`Driver::accept_newcomer`](crate::hub::Driver::accept_newcomer).
#[derive(Clone, Debug)]
pub struct Newcomer {
    pub(crate) from: Origin,
    pub(crate) header: HeaderRule,
    /// TLS begins after the PROXY header.
    #[cfg(feature = "tls")]
    pub(crate) then_tls: bool,
}

/// What is done about a PROXY header of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HeaderRule {
    /// Nothing: none is known of.
    Ignored,
    /// It has to come, from a trusted peer.
    Required,
    /// It may come, from a trusted peer.
    Optional,
    /// It must not come: the peer is not trusted.
    Forbidden,
    /// It would have to come, and the peer is not trusted.
    Impossible,
}

/// The other end of a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    Tcp(SocketAddr),
    /// With its credentials, where the system has them.
    Unix(Option<PeerCredentials>),
}

impl Newcomer {
    /// One that was accepted from this address. An IPv4 address that is mapped into IPv6, as a socket for both has it, is shown and
    /// counted as the IPv4 address.
    pub fn tcp(peer: SocketAddr) -> Self {
        Self::from(Origin::Tcp(canonical(peer)))
    }

    /// One that was accepted from a Unix domain socket. It has no address: limits per address do not count it.
    pub const fn unix(credentials: Option<PeerCredentials>) -> Self {
        Self::from(Origin::Unix(credentials))
    }

    const fn from(from: Origin) -> Self {
        Self {
            from,
            header: HeaderRule::Ignored,
            #[cfg(feature = "tls")]
            then_tls: false,
        }
    }

    /// The same, with TLS after its PROXY header, if that may come: [`Transport::secure_accepted`](crate::hub::Transport::secure_accepted)
    /// begins it.
    #[cfg(feature = "tls")]
    #[must_use]
    pub const fn then_tls(mut self) -> Self {
        self.then_tls = true;
        self
    }

    /// Whether a PROXY header may come first.
    pub const fn awaits_header(&self) -> bool {
        !matches!(self.header, HeaderRule::Ignored)
    }

    /// The same at a listener with these settings.
    #[must_use]
    pub fn proxy_protocol(mut self, settings: &ProxyProtocol) -> Self {
        let trusted = match self.from {
            Origin::Tcp(address) => settings.trusts(address.ip()),
            Origin::Unix(_) => settings.trust_unix,
        };
        self.header = match (trusted, settings.required) {
            (true, true) => HeaderRule::Required,
            (true, false) => HeaderRule::Optional,
            (false, false) => HeaderRule::Forbidden,
            (false, true) => HeaderRule::Impossible,
        };
        self
    }

    /// The address that it is counted by from the beginning. A trusted peer speaks for others.
    pub(crate) const fn counted_address(&self) -> Option<SocketAddr> {
        match self.header {
            HeaderRule::Ignored | HeaderRule::Forbidden => self.from.known_address(),
            HeaderRule::Required | HeaderRule::Optional | HeaderRule::Impossible => None,
        }
    }
}

/// An IPv4 address as such, although a socket for both families has it as one of IPv6.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Origin {
    /// Its address, if it has one.
    pub(crate) const fn known_address(self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(address),
            Self::Unix(_) => None,
        }
    }

    /// What is shown of it.
    pub(crate) const fn address(self) -> SocketAddr {
        match self {
            Self::Tcp(address) => address,
            Self::Unix(_) => NO_ADDRESS,
        }
    }
}
