//! Who the peer is, in 16 bytes.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::inbox::Cursor;
use crate::{
    error::ProxyFault,
    newcomer::{HeaderRule, NO_ADDRESS, Newcomer, Origin, PeerCredentials, canonical},
    wire::proxy::ProxyHeader,
};

/// IPv4 and credentials inline, also where an IPv4 proxy speaks for an IPv4 client; anything else on the heap.
#[derive(Debug)]
pub(super) enum Peer {
    V4(Ipv4Addr, u16),
    V6(Box<SocketAddr>),
    Unix(PeerCredentials),
    /// On a Unix domain socket, where the system has no credentials.
    Unknown,
    /// A client that a proxy speaks for, both of IPv4.
    Proxied4 {
        client: (Ipv4Addr, u16),
        proxy: (Ipv4Addr, u16),
    },
    Proxied(Box<Proxied>),
    /// A PROXY header may come.
    Unread(Box<Unread>),
}

const _: () = assert!(size_of::<Peer>() <= 16);

#[derive(Debug)]
pub(super) struct Proxied {
    /// `None`: the proxy speaks for itself.
    client: Option<SocketAddr>,
    proxy: Origin,
}

#[derive(Debug)]
pub(super) struct Unread {
    newcomer: Newcomer,
    /// What has come of the header.
    bytes: Vec<u8>,
}

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

impl From<&Newcomer> for Peer {
    fn from(newcomer: &Newcomer) -> Self {
        match newcomer.header {
            HeaderRule::Ignored => Self::from(newcomer.from),
            HeaderRule::Required | HeaderRule::Optional | HeaderRule::Forbidden | HeaderRule::Impossible => {
                Self::Unread(Box::new(Unread { newcomer: newcomer.clone(), bytes: Vec::new() }))
            }
        }
    }
}

/// What came where a PROXY header may come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum HeaderTaken {
    /// It is not complete.
    NotYet,
    /// It was taken off.
    Whole,
    /// There is none, and none need be. These bytes were taken off before that was known.
    None(Vec<u8>),
}

impl Peer {
    /// The address that it is counted by: not that of a trusted proxy, which speaks for others.
    pub(super) fn counted_address(&self) -> Option<SocketAddr> {
        match self {
            Self::V4(ip, port) | Self::Proxied4 { client: (ip, port), .. } => {
                Some(SocketAddr::new(IpAddr::V4(*ip), *port))
            }
            Self::V6(address) => Some(**address),
            Self::Proxied(proxied) => proxied.client,
            Self::Unread(unread) => unread.newcomer.counted_address(),
            Self::Unix(_) | Self::Unknown => None,
        }
    }

    /// What is shown of it.
    pub(super) fn address(&self) -> SocketAddr {
        match self {
            Self::Proxied(proxied) => proxied.client.unwrap_or(proxied.proxy.address()),
            Self::Unread(unread) => unread.newcomer.from.address(),
            peer => peer.counted_address().unwrap_or(NO_ADDRESS),
        }
    }

    /// What is shown of the proxy that speaks for it.
    pub(super) fn proxy_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Proxied4 { proxy: (ip, port), .. } => Some(SocketAddr::new(IpAddr::V4(*ip), *port)),
            Self::Proxied(proxied) => proxied.client.map(|_| proxied.proxy.address()),
            Self::V4(..) | Self::V6(_) | Self::Unix(_) | Self::Unknown | Self::Unread(_) => None,
        }
    }

    pub(super) fn credentials(&self) -> Option<PeerCredentials> {
        let origin = match self {
            Self::Unix(credentials) => return Some(*credentials),
            Self::Proxied(proxied) => proxied.proxy,
            Self::Unread(unread) => unread.newcomer.from,
            Self::V4(..) | Self::V6(_) | Self::Unknown | Self::Proxied4 { .. } => return None,
        };
        match origin {
            Origin::Unix(credentials) => credentials,
            Origin::Tcp(_) => None,
        }
    }

    /// Whether a PROXY header may come.
    pub(super) const fn is_unread(&self) -> bool {
        matches!(self, Self::Unread(_))
    }

    /// Whether TLS begins after the PROXY header.
    #[cfg(feature = "tls")]
    pub(super) const fn continues_in_tls(&self) -> bool {
        match self {
            Self::Unread(unread) => unread.newcomer.then_tls,
            _ => false,
        }
    }

    /// Takes a header off the cursor, if one comes, and is then the one that it names.
    pub(super) fn take_header(&mut self, cursor: &mut Cursor<'_>) -> Result<HeaderTaken, ProxyFault> {
        let Self::Unread(unread) = self else { return Ok(HeaderTaken::None(Vec::new())) };
        let Unread { newcomer, bytes } = &mut **unread;
        let (rule, from) = (newcomer.header, newcomer.from);
        let before = bytes.len();
        let parsed = if before == 0 {
            ProxyHeader::parse(cursor.rest())
        } else {
            bytes.extend_from_slice(cursor.rest());
            ProxyHeader::parse(bytes)
        };
        match (parsed, rule) {
            (Ok(None), _) => {
                let rest = cursor.take_all();
                if before == 0 {
                    bytes.extend_from_slice(rest);
                }
                Ok(HeaderTaken::NotYet)
            }
            (Err(ProxyFault::Missing), HeaderRule::Optional) => {
                bytes.truncate(before);
                let taken = std::mem::take(bytes);
                *self = Self::Proxied(Box::new(Proxied { client: None, proxy: from }));
                Ok(HeaderTaken::None(taken))
            }
            (Err(ProxyFault::Missing), HeaderRule::Forbidden) => {
                bytes.truncate(before);
                let taken = std::mem::take(bytes);
                *self = Self::from(from);
                Ok(HeaderTaken::None(taken))
            }
            (Ok(Some(header)), HeaderRule::Required | HeaderRule::Optional) => {
                cursor.take(header.len.saturating_sub(before));
                *self = Self::named_by(header.client.map(canonical), from);
                Ok(HeaderTaken::Whole)
            }
            (Ok(Some(_)), HeaderRule::Ignored | HeaderRule::Forbidden | HeaderRule::Impossible) => {
                cursor.take_all();
                Err(ProxyFault::Untrusted)
            }
            (Err(fault), rule) => {
                cursor.take_all();
                Err(if rule == HeaderRule::Forbidden { ProxyFault::Untrusted } else { fault })
            }
        }
    }

    fn named_by(client: Option<SocketAddr>, proxy: Origin) -> Self {
        match (client, proxy) {
            (Some(SocketAddr::V4(client)), Origin::Tcp(SocketAddr::V4(proxy))) => {
                Self::Proxied4 { client: (*client.ip(), client.port()), proxy: (*proxy.ip(), proxy.port()) }
            }
            (client, proxy) => Self::Proxied(Box::new(Proxied { client, proxy })),
        }
    }
}
