//! Whether connections begin with a PROXY header, and whose is believed.

use std::net::IpAddr;

use super::{address_range::AddressRange, check::ensure};
use crate::error::ConfigError;

/// A listener behind proxies that say whom they speak for, by the PROXY protocol, version 1 or 2 (haproxy's `send-proxy` and
/// `send-proxy-v2`, nginx's `proxy_protocol on`, load balancers of most clouds).
///
/// The header's address is then what [`peer_addr`](crate::http::UpgradeRequest::peer_addr) returns, what events show and what limits
/// per address count; the proxy's own is [`proxy_addr`](crate::http::UpgradeRequest::proxy_addr). The header is part of
/// `handshake_timeout`. A trusted peer that speaks for itself (`LOCAL`, `UNKNOWN`, or no header where none is required) is not counted by
/// its address. What a header adds to addresses is ignored.
///
/// Trust the proxies and nobody else: a trusted sender can claim any address.
///
/// ```
/// use adjourn::{Config, config::ProxyProtocol};
///
/// let mut config = Config::default();
/// config.listener.proxy_protocol = Some(ProxyProtocol::required_from(vec!["10.0.3.0/24".parse()?]));
/// # Ok::<(), adjourn::config::AddressRangeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ProxyProtocol {
    /// The addresses of proxies.
    pub trusted: Vec<AddressRange>,
    /// Whether peers on Unix domain sockets are trusted. `false`: say so if your proxy is the only one who can connect.
    pub trust_unix: bool,
    /// Whether every connection has to begin with a header; then nobody gets in who is not trusted. `true`. If it need not, anybody
    /// may connect without a header, and those who are not trusted are refused if they send one.
    pub required: bool,
}

impl ProxyProtocol {
    /// Every connection begins with a header from one of these addresses. The other fields have their defaults.
    pub const fn required_from(trusted: Vec<AddressRange>) -> Self {
        Self { trusted, trust_unix: false, required: true }
    }

    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let somebody = self.trust_unix || !self.trusted.is_empty();
        ensure(
            somebody,
            "listener.proxy_protocol.trusted",
            &self.trusted,
            "one range at least, or trust_unix",
        )
    }

    /// Whether this address is that of a proxy.
    pub(crate) fn trusts(&self, address: IpAddr) -> bool {
        self.trusted.iter().any(|range| range.contains(address))
    }
}
