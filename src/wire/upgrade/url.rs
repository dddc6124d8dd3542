//! WebSocket URLs (§3). Parsed by hand, because only a simple form of URL is allowed. No name is resolved here.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use thiserror::Error;

/// The ports of `ws://` and `wss://` (RFC 6455 §3).
const DEFAULT_PORT: u16 = 80;
const DEFAULT_SECURE_PORT: u16 = 443;

/// A `ws://` or `wss://` URL, checked: no part of it can end a line of a request.
///
/// ```
/// use adjourn::http::Url;
///
/// let url = Url::parse("ws://example.com:9001/chat?room=1")?;
/// assert_eq!((url.host(), url.port(), url.target()), ("example.com", 9001, "/chat?room=1"));
/// # Ok::<(), adjourn::wire::upgrade::UrlError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    secure: bool,
    /// With its brackets if it is an IPv6 address.
    host: Box<str>,
    port: u16,
    target: Box<str>,
}

impl Url {
    /// Takes `ws://host[:port][/path][?query]`, and `wss://` with the feature `tls`. The host is a name in ASCII or an IP address, IPv6 in brackets. Path and
    /// query are what RFC 3986 allows there: anything else must come percent-encoded, and nothing is encoded or resolved
    /// here. Allocates host and target.
    ///
    /// # Errors
    /// Says what is wrong; `wss://` is an error without the feature `tls`.
    pub fn parse(url: &str) -> Result<Self, UrlError> {
        let (scheme, rest) = url.split_once("://").ok_or(UrlError::Scheme)?;
        let secure = scheme.eq_ignore_ascii_case("wss");
        if secure && !cfg!(feature = "tls") {
            return Err(UrlError::Tls);
        }
        if !secure && !scheme.eq_ignore_ascii_case("ws") {
            return Err(UrlError::Scheme);
        }
        let (authority, target) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        if target.contains('#') {
            return Err(UrlError::Fragment);
        }
        if authority.contains('@') {
            return Err(UrlError::UserInfo);
        }
        let (host, port) = split_port(authority, if secure { DEFAULT_SECURE_PORT } else { DEFAULT_PORT })?;
        if !is_host(host) {
            return Err(UrlError::Host);
        }
        if !is_target(target.as_bytes()) {
            return Err(UrlError::Target);
        }
        let target = if target.starts_with('/') { target.into() } else { format!("/{target}").into() };
        Ok(Self { secure, host: host.into(), port, target })
    }

    /// Whether it is `wss://`.
    pub const fn is_secure(&self) -> bool {
        self.secure
    }

    /// The host as in the URL: an IPv6 address with its brackets.
    pub const fn host(&self) -> &str {
        &self.host
    }

    /// The port; if the URL names none, 80 of `ws://` and 443 of `wss://`.
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Path and query, as in the request line.
    pub const fn target(&self) -> &str {
        &self.target
    }

    /// The target up to the `?`.
    pub fn path(&self) -> &str {
        self.target.split_once('?').map_or(&self.target, |(path, _)| path)
    }

    /// The host, if it is an address.
    pub fn address(&self) -> Option<IpAddr> {
        match inside_brackets(&self.host) {
            Some(inside) => inside.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            None => self.host.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
        }
    }

    /// The port, if `Host` must name it.
    pub(super) fn unusual_port(&self) -> Option<u16> {
        let usual = if self.secure { DEFAULT_SECURE_PORT } else { DEFAULT_PORT };
        (self.port != usual).then_some(self.port)
    }
}

/// Why a text is not the URL of a server that can be connected to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum UrlError {
    /// It begins with neither `ws://` nor `wss://`.
    #[error("the URL does not begin with ws:// or wss://")]
    Scheme,
    /// It begins with `wss://`, and this crate was built without the feature `tls`.
    #[error("built without the feature `tls`: only ws:// URLs can be connected to")]
    Tls,
    /// It names a user.
    #[error("the URL has a user name in it; use a header for that")]
    UserInfo,
    /// The host is empty, or has a character that no name or address has.
    #[error("the URL's host is neither a name in ASCII nor an IP address")]
    Host,
    /// The port is not a number from 1 to 65535.
    #[error("the URL's port is not a number from 1 to 65535")]
    Port,
    /// It has a fragment, which RFC 6455 §3 forbids.
    #[error("the URL has a fragment (#), which a WebSocket URL must not have")]
    Fragment,
    /// Path or query hold something that must be percent-encoded.
    #[error("the URL's path or query has a character that must be percent-encoded")]
    Target,
}

fn split_port(authority: &str, default: u16) -> Result<(&str, u16), UrlError> {
    // The colons of an IPv6 address stand before its bracket.
    let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
    let Some(colon) = authority.get(after_host..).and_then(|rest| rest.find(':')) else {
        return Ok((authority, default));
    };
    let (host, port) = authority.split_at(after_host + colon);
    match port.get(1..).unwrap_or_default() {
        // RFC 3986 §3.2.3: a port may be empty, which is the default.
        "" => Ok((host, default)),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => match digits.parse() {
            Ok(port) if port > 0 => Ok((host, port)),
            _ => Err(UrlError::Port),
        },
        _ => Err(UrlError::Port),
    }
}

fn inside_brackets(host: &str) -> Option<&str> {
    host.strip_prefix('[')?.strip_suffix(']')
}

pub(super) fn is_host(host: &str) -> bool {
    if let Some(inside) = inside_brackets(host) {
        return inside.parse::<Ipv6Addr>().is_ok();
    }
    let of_a_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    !host.is_empty() && !host.starts_with('.') && host.bytes().all(of_a_name)
}

/// Path and query of RFC 3986: `pchar`, `/` and `?`, and every `%` with its two digits.
fn is_target(target: &[u8]) -> bool {
    let mut rest = target;
    loop {
        rest = match rest {
            [] => return true,
            [b'%', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => after,
            [byte, after @ ..] if is_unreserved_or_sub_delim(*byte) || b":@/?".contains(byte) => after,
            _ => return false,
        };
    }
}

/// What stands for itself in every part of a URL: unreserved characters and sub-delims (RFC 3986 §2.2, §2.3).
pub(super) fn is_unreserved_or_sub_delim(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte)
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn urls() {
        let rows: &[(&str, &str, Result<(&str, u16, &str), UrlError>)] = &[
            ("a host and nothing else", "ws://example.com", Ok(("example.com", 80, "/"))),
            ("a path", "ws://example.com/chat", Ok(("example.com", 80, "/chat"))),
            ("a port", "ws://example.com:9001/", Ok(("example.com", 9001, "/"))),
            ("an empty port", "ws://example.com:/", Ok(("example.com", 80, "/"))),
            ("a query", "ws://a/b?c=d&e=?/:@", Ok(("a", 80, "/b?c=d&e=?/:@"))),
            ("a query without a path", "ws://a?b", Ok(("a", 80, "/?b"))),
            ("a colon in the path", "ws://a/b:c", Ok(("a", 80, "/b:c"))),
            ("something encoded", "ws://a/%C3%A4", Ok(("a", 80, "/%C3%A4"))),
            ("an IPv4 address", "ws://127.0.0.1:1/", Ok(("127.0.0.1", 1, "/"))),
            ("an IPv6 address", "ws://[::1]/", Ok(("[::1]", 80, "/"))),
            ("an IPv6 address with a port", "ws://[::1]:9001/", Ok(("[::1]", 9001, "/"))),
            ("a scheme in capitals", "WS://a/", Ok(("a", 80, "/"))),
            ("a name in capitals, as it stands", "ws://A.example/", Ok(("A.example", 80, "/"))),
            ("nothing", "", Err(UrlError::Scheme)),
            ("no scheme", "example.com/", Err(UrlError::Scheme)),
            ("another scheme", "http://example.com/", Err(UrlError::Scheme)),
            ("a blank in front", " ws://a/", Err(UrlError::Scheme)),
            #[cfg(not(feature = "tls"))]
            ("TLS", "wss://example.com/", Err(UrlError::Tls)),
            #[cfg(feature = "tls")]
            ("TLS", "wss://example.com/", Ok(("example.com", 443, "/"))),
            ("a user", "ws://me@example.com/", Err(UrlError::UserInfo)),
            ("a user and a password", "ws://me:secret@example.com/", Err(UrlError::UserInfo)),
            ("an at sign in the path is none", "ws://a/@", Ok(("a", 80, "/@"))),
            ("a fragment", "ws://a/b#c", Err(UrlError::Fragment)),
            ("a fragment after the host", "ws://a#c", Err(UrlError::Fragment)),
            ("an empty fragment", "ws://a/#", Err(UrlError::Fragment)),
            ("no host", "ws:///path", Err(UrlError::Host)),
            ("no host but a port", "ws://:80/", Err(UrlError::Host)),
            ("a host that is no ASCII", "ws://zoë.example/", Err(UrlError::Host)),
            ("a host with a blank", "ws://a b/", Err(UrlError::Host)),
            ("a host that ends its line", "ws://a\r\nX: y/", Err(UrlError::Port)),
            ("a host with CR LF alone", "ws://a\r\n/", Err(UrlError::Host)),
            ("a backslash", "ws://a\\b/", Err(UrlError::Host)),
            ("brackets around a name", "ws://[a]/", Err(UrlError::Host)),
            ("brackets around an IPv4 address", "ws://[1.2.3.4]/", Err(UrlError::Host)),
            ("a zone", "ws://[fe80::1%25eth0]/", Err(UrlError::Host)),
            ("an IPv6 address without brackets", "ws://::1/", Err(UrlError::Port)),
            ("something after the bracket", "ws://[::1]x/", Err(UrlError::Host)),
            ("port 0", "ws://a:0/", Err(UrlError::Port)),
            ("port 65536", "ws://a:65536/", Err(UrlError::Port)),
            ("a port with a sign", "ws://a:+1/", Err(UrlError::Port)),
            ("a blank in the path", "ws://a/b c", Err(UrlError::Target)),
            ("CR LF in the path", "ws://a/b\r\nX: y", Err(UrlError::Target)),
            ("a letter beyond ASCII", "ws://a/ä", Err(UrlError::Target)),
            ("half an encoding", "ws://a/%4", Err(UrlError::Target)),
            ("no encoding at all", "ws://a/%zz", Err(UrlError::Target)),
            ("a brace", "ws://a/{b}", Err(UrlError::Target)),
        ];
        for (name, text, expected) in rows {
            let url = Url::parse(text);
            let found =
                url.as_ref().map(|url| (url.host(), url.port(), url.target())).map_err(|error| *error);
            assert_eq!(found, *expected, "{name}");
        }
    }

    #[test]
    fn addresses_need_no_resolver() {
        let rows = [
            ("ws://127.0.0.1/", Some("127.0.0.1")),
            ("ws://[::1]/", Some("::1")),
            ("ws://localhost/", None),
            ("ws://127.0.0.1.example/", None),
        ];
        for (url, expected) in rows {
            let address = Url::parse(url).expect("a URL").address();
            assert_eq!(address.map(|address| address.to_string()).as_deref(), expected, "{url}");
        }
    }

    proptest! {
        #[test]
        fn what_is_taken_can_be_in_a_line(text in "ws://[a-c.:@\\[\\]0-9]{0,8}[/?#]?[ -~\r\n\u{e4}]{0,12}") {
            if let Ok(url) = Url::parse(&text) {
                prop_assert!(url.host().bytes().chain(url.target().bytes()).all(|byte| byte.is_ascii_graphic()));
                prop_assert!(url.target().starts_with('/'));
                prop_assert!(!url.host().is_empty());
            }
        }
    }
}
