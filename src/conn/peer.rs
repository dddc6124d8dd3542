//! Who the peer is, in 16 bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::newcomer::{NO_ADDRESS, Origin, PeerCredentials};

/// IPv4 and credentials inline, IPv6 on the heap.
#[derive(Debug)]
pub(super) enum Peer {
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddr>),
    Unix(PeerCredentials),
    /// On a Unix domain socket, where the system has no credentials.
    Unknown,
}

const _: () = assert!(size_of::<Peer>() <= 16);

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self::V4(ip, address.port()),
            IpAddr::V6(_) => Self::V6(Box::new(address)),
        }
    }
}

impl From<Origin> for Peer {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Tcp(address) => Self::from(address),
            Origin::Unix(credentials) => credentials.map_or(Self::Unknown, Self::Unix),
        }
    }
}

impl Peer {
    /// Its address, by which it is counted, too.
    pub(super) fn known_address(&self) -> Option<SocketAddr> {
        match self {
            Self::V4(ip, port) => Some(SocketAddr::new(IpAddr::V4(*ip), *port)),
            Self::V6(address) => Some(**address),
            Self::Unix(_) | Self::Unknown => None,
        }
    }

    /// What is shown of it.
    pub(super) fn address(&self) -> SocketAddr {
        self.known_address().unwrap_or(NO_ADDRESS)
    }

    pub(super) const fn credentials(&self) -> Option<PeerCredentials> {
        match self {
            Self::Unix(credentials) => Some(*credentials),
            Self::V4(..) | Self::V6(_) | Self::Unknown => None,
        }
    }
}
