//! A range of addresses, as `10.0.0.0/8` writes it. Whom it lets do what is decided elsewhere.

use std::{fmt, net::IpAddr, str::FromStr};

use thiserror::Error;

/// Addresses that share a prefix: `10.0.0.0/8`, `fd00::/8`, or one address alone. IPv4 addresses that are mapped into IPv6 are IPv4
/// addresses here.
///
/// ```
/// use adjourn::config::AddressRange;
///
/// let range: AddressRange = "10.1.0.0/16".parse()?;
/// assert!(range.contains("10.1.2.3".parse()?));
/// assert!(range.contains("::ffff:10.1.2.3".parse()?));
/// assert!(!range.contains("10.2.0.0".parse()?));
/// assert!("10.1.2.3/16".parse::<AddressRange>().is_err(), "it is a single host, or a typing error");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddressRange {
    /// All bits after the prefix are zero.
    first: IpAddr,
    /// 32 at most for IPv4, 128 for IPv6.
    prefix: u8,
}

/// A text that is no range of addresses.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{text:?} is not an address or ADDRESS/PREFIX without bits after the prefix")]
pub struct AddressRangeError {
    text: Box<str>,
}

/// Bits of the prefix that maps IPv4 into IPv6.
const MAPPED: u8 = 96;

impl AddressRange {
    /// The addresses whose first `prefix` bits are those of `first`. `None` if the prefix is longer than an address, or if `first` has bits set after the prefix.
    pub fn new(first: IpAddr, prefix: u8) -> Option<Self> {
        let (first, prefix) = match (first, first.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(ip)) if prefix >= MAPPED => (IpAddr::V4(ip), prefix - MAPPED),
            _ => (first, prefix),
        };
        let range = Self { first, prefix };
        let most = if first.is_ipv4() { 32 } else { 128 };
        (prefix <= most && masked(first, prefix) == bits(first)).then_some(range)
    }

    /// Whether an address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.first.is_ipv4() && masked(address, self.prefix) == bits(self.first)
    }
}

/// At the top.
fn bits(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(ip) => u128::from(ip.to_bits()) << 96,
        IpAddr::V6(ip) => ip.to_bits(),
    }
}

fn masked(address: IpAddr, prefix: u8) -> u128 {
    bits(address) & u128::MAX.checked_shl(128 - u32::from(prefix.min(128))).unwrap_or(0)
}

impl From<IpAddr> for AddressRange {
    fn from(address: IpAddr) -> Self {
        let address = address.to_canonical();
        Self { first: address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for AddressRange {
    type Err = AddressRangeError;

    fn from_str(text: &str) -> Result<Self, AddressRangeError> {
        let range = match text.split_once('/') {
            None => text.parse::<IpAddr>().ok().map(Self::from),
            Some((address, prefix)) => {
                // Neither a sign nor zeroes in front.
                let plain = prefix == "0" || prefix.starts_with(|first: char| matches!(first, '1'..='9'));
                let prefix = if plain { prefix.parse().ok() } else { None };
                address.parse().ok().zip(prefix).and_then(|(address, prefix)| Self::new(address, prefix))
            }
        };
        range.ok_or_else(|| AddressRangeError { text: text.into() })
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_and_what_is_in_them() {
        let rows = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("10.0.0.0/8", "a00::", false),
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.0", false),
            ("192.0.2.1/32", "192.0.2.1", true),
            ("192.0.2.0/31", "192.0.2.1", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "::1", true),
            ("::/0", "127.0.0.1", false),
            ("::1", "::1", true),
            ("fd00::/8", "fdff::1", true),
            ("fd00::/8", "fe00::", false),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
        ];
        for (range, address, expected) in rows {
            let parsed: AddressRange = range.parse().expect(range);
            assert_eq!(parsed.contains(address.parse().expect(address)), expected, "{range} {address}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{range}");
        }
    }

    #[test]
    fn what_is_no_range_is_refused() {
        let rows = [
            "",
            "10.0.0.0/",
            "/8",
            "10.0.0.0/33",
            "::/129",
            "10.0.0.1/8",
            "10.0.0.0/08",
            "10.0.0.0/+8",
            "10.0.0.0/8/8",
            "10.0.0/8",
            "host",
            "fd00::1/8",
            "10.0.0.0 /8",
            "10.0.0.0/256",
        ];
        for text in rows {
            let error = text.parse::<AddressRange>().expect_err(text);
            assert!(error.to_string().starts_with(&format!("{text:?} is not an address")), "{error}");
        }
    }
}
