//! A peer's address in 16 bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// IPv4 inline, IPv6 on the heap.
#[derive(Debug)]
pub(super) enum Peer {
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddr>),
}

impl From<SocketAddr> for Peer {
    fn from(address: SocketAddr) -> Self {
        match address.ip() {
            IpAddr::V4(ip) => Self::V4(ip, address.port()),
            IpAddr::V6(_) => Self::V6(Box::new(address)),
        }
    }
}

impl Peer {
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::V4(ip, port) => SocketAddr::new(IpAddr::V4(*ip), *port),
            Self::V6(address) => **address,
        }
    }
}
