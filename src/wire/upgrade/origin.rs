//! Origins as browsers write them (RFC 6454): what makes an allow-list, and who is on it. The list itself is a setting.

use std::str::FromStr;

use super::{refusal::Refusal, request::Request, response::Response, url::is_host};
use crate::config::{Origin, OriginError, Origins};

impl Origins {
    /// Allows these origins and no others. Allocates.
    ///
    /// # Errors
    /// If one of them could never match, since no browser sends it: with a path, be it a slash, without a
    /// scheme, with a wildcard, or with a name that is not in ASCII (write it in Punycode).
    pub fn new<S: AsRef<str>>(origins: impl IntoIterator<Item = S>) -> Result<Self, OriginError> {
        let parse = |origin: S| origin.as_ref().parse();
        Ok(Self { allowed: origins.into_iter().map(parse).collect::<Result<_, _>>()?, none: false })
    }

    /// Also allows requests without an `Origin`. Browsers always send one, so no page gets in by this.
    #[must_use]
    pub fn or_none(mut self) -> Self {
        self.none = true;
        self
    }

    /// Whether the request comes from one of them. Allocates nothing.
    pub fn allows(&self, request: &Request<'_>) -> bool {
        match request.origin() {
            None => self.none,
            Some(origin) => Parts::of(origin)
                .is_some_and(|parts| self.allowed.iter().any(|allowed| allowed.parts().is_same(&parts))),
        }
    }

    /// As [`Origins::allows`], with an answer for the others: 403.
    ///
    /// ```
    /// use adjourn::http::{Origins, Upgrade, UpgradeRequest};
    ///
    /// fn on_upgrade<'r>(chat: &Origins, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
    ///     match chat.check(request) {
    ///         Ok(()) => Upgrade::accept(()),
    ///         Err(answer) => Upgrade::Reject(answer),
    ///     }
    /// }
    /// ```
    ///
    /// # Errors
    /// The answer for [`Upgrade::Reject`](crate::http::Upgrade::Reject).
    pub fn check(&self, request: &Request<'_>) -> Result<(), Response> {
        if self.allows(request) {
            return Ok(());
        }
        Err(Response::plain_text(Refusal::FOREIGN_ORIGIN.status(), Refusal::FOREIGN_ORIGIN.text()))
    }
}

impl FromStr for Origin {
    type Err = OriginError;

    fn from_str(origin: &str) -> Result<Self, OriginError> {
        let Parts { scheme, host, port } =
            Parts::of(origin).ok_or_else(|| OriginError { origin: origin.into() })?;
        Ok(Self { scheme: scheme.into(), host: host.into(), port })
    }
}

impl Origin {
    fn parts(&self) -> Parts<'_> {
        Parts { scheme: &self.scheme, host: &self.host, port: self.port }
    }
}

/// The triple of RFC 6454 §4. The port is `None` if it is the scheme's own.
struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<u16>,
}

impl<'a> Parts<'a> {
    /// As §6.2 serialises it; a redundant port is allowed.
    fn of(origin: &'a str) -> Option<Self> {
        let (scheme, authority) = origin.split_once("://")?;
        let of_a_scheme = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
        if !scheme.starts_with(|first: char| first.is_ascii_alphabetic()) || !scheme.bytes().all(of_a_scheme)
        {
            return None;
        }
        // The colons of an IPv6 address stand before its bracket.
        let after_host = authority.rfind(']').map_or(0, |bracket| bracket + 1);
        let (host, port) = match authority.get(after_host..)?.find(':') {
            None => (authority, None),
            Some(colon) => {
                let (host, port) = authority.split_at(after_host + colon);
                (host, Some(port_number(port.get(1..)?)?))
            }
        };
        let port = port.filter(|port| Some(*port) != own_port(scheme));
        is_host(host).then_some(Self { scheme, host, port })
    }

    fn is_same(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme)
            && self.host.eq_ignore_ascii_case(other.host)
            && self.port == other.port
    }
}

/// Digits only, without a leading zero.
fn port_number(digits: &str) -> Option<u16> {
    let plain = digits.bytes().all(|byte| byte.is_ascii_digit()) && !digits.starts_with('0');
    digits.parse().ok().filter(|_| plain)
}

fn own_port(scheme: &str) -> Option<u16> {
    if scheme.eq_ignore_ascii_case("http") {
        Some(80)
    } else if scheme.eq_ignore_ascii_case("https") {
        Some(443)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{HeadLimits, HeadScanner, HeaderStorage};
    use super::*;

    /// What the list says to a request with these lines.
    fn asked(origins: &Origins, lines: &str) -> Result<bool, Refusal> {
        let head = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let limits = HeadLimits { max_head: 4096, max_headers: 10 };
        let mut scanner = HeadScanner::default();
        let head = scanner.scan(head.as_bytes(), &limits)?.expect("a whole head");
        let mut storage = HeaderStorage::new();
        Ok(origins.allows(&head.parse(&mut storage)?))
    }

    #[test]
    fn an_origin_matches_as_a_whole() {
        let rows = [
            // Allowed, asking, whether it gets in.
            ("https://example.com", "https://example.com", true),
            ("https://example.com", "HTTPS://Example.COM", true),
            ("https://EXAMPLE.com", "https://example.com", true),
            ("https://example.com", "https://example.com:443", true),
            ("https://example.com:443", "https://example.com", true),
            ("http://example.com:80", "http://example.com", true),
            ("http://localhost:3000", "http://localhost:3000", true),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000", true),
            ("http://[::1]:3000", "http://[::1]:3000", true),
            ("chrome-extension://abcdefghijklmnop", "chrome-extension://abcdefghijklmnop", true),
            ("https://xn--bcher-kva.example", "https://xn--bcher-kva.example", true),
            // Another scheme, port or host.
            ("https://example.com", "http://example.com", false),
            ("https://example.com", "https://example.com:80", false),
            ("https://example.com", "https://example.com:8443", false),
            ("https://example.com:8443", "https://example.com", false),
            ("http://localhost:3000", "http://localhost:3001", false),
            ("http://localhost:3000", "http://localhost:30000", false),
            ("http://localhost:3000", "http://127.0.0.1:3000", false),
            // Look-alikes.
            ("https://example.com", "https://example.com.evil.net", false),
            ("https://example.com", "https://example.comevil.net", false),
            ("https://example.com", "https://evilexample.com", false),
            ("https://example.com", "https://www.example.com", false),
            ("https://example.com", "https://example.co", false),
            ("https://example.com", "https://xample.com", false),
            ("https://example.com", "https://example.com.", false),
            ("https://example.com", "https://exampleXcom", false),
            ("https://example.com", "https://evil.net/https://example.com", false),
            ("https://example.com", "https://example.com@evil.net", false),
            ("https://example.com", "https://evil.net@example.com", false),
            ("https://example.com", "https://example.com#evil.net", false),
            ("https://example.com", "https://example.com?evil.net", false),
            ("https://example.com", "https://example.com\\evil.net", false),
            ("https://example.com", "https://example.com:443.evil.net", false),
            ("https://example.com", "https://example.com:", false),
            ("https://example.com", "https://example.com:0443", false),
            ("https://example.com", "https://example.com:+443", false),
            ("https://example.com", "https://example.com:65979", false),
            // No origin of a page.
            ("https://example.com", "https://example.com/", false),
            ("https://example.com", "https://example.com https://evil.net", false),
            ("https://example.com", "https://example.com, https://evil.net", false),
            ("https://example.com", "example.com", false),
            ("https://example.com", "//example.com", false),
            ("https://example.com", "null", false),
            ("https://example.com", "*", false),
            ("https://example.com", "", false),
        ];
        for (allowed, asking, expected) in rows {
            let origins = Origins::new([allowed]).expect(allowed).or_none();
            let line = format!("Origin: {asking}\r\n");
            assert_eq!(asked(&origins, &line), Ok(expected), "{asking:?} where {allowed:?} may");
        }
    }

    #[test]
    fn none_and_several() {
        let origins = Origins::new(["https://a.example", "https://b.example"]).expect("origins");
        assert_eq!(asked(&origins, "Origin: https://b.example\r\n"), Ok(true));
        assert_eq!(asked(&origins, ""), Ok(false), "no Origin");
        assert_eq!(asked(&origins.clone().or_none(), ""), Ok(true), "no Origin, where that is allowed");
        let both = "Origin: https://a.example\r\nOrigin: https://a.example\r\n";
        assert_eq!(asked(&origins, both), Err(Refusal::ORIGIN), "two Origins");
        let nobody = Origins::new::<&str>([]).expect("nobody");
        assert_eq!(asked(&nobody, "Origin: https://a.example\r\n"), Ok(false));
    }

    #[test]
    fn what_could_never_match_is_no_origin() {
        let rows = [
            "",
            "null",
            "*",
            "example.com",
            "https://",
            "https://example.com/",
            "https://example.com/path",
            "https://*.example.com",
            "https://bücher.example",
            "https://example.com:",
            "https://example.com:0",
            "https://example.com:99999",
            "https://user@example.com",
            "://example.com",
            "1http://example.com",
            "https://example.com ",
            " https://example.com",
            "https://[::1",
            "https://[example]",
            "https://a,b",
        ];
        for origin in rows {
            let error = Origins::new([origin]).expect_err(origin);
            assert!(error.to_string().starts_with(&format!("{origin:?} is not")), "{error}");
        }
    }

    proptest! {
        /// Whatever stands around an origin that is allowed, or in it, is another one.
        #[test]
        fn nothing_else_gets_in(before in "[!-~]{0,3}", at in 0usize..20, put in "[!-~]{0,3}", after in "[!-~]{0,3}") {
            const ALLOWED: &str = "https://example.com";
            let origins = Origins::new([ALLOWED]).expect("an origin");
            let (start, end) = ALLOWED.split_at(at.min(ALLOWED.len()));
            let asking = format!("{before}{start}{put}{end}{after}");
            let same = asking.eq_ignore_ascii_case(ALLOWED) || asking.eq_ignore_ascii_case("https://example.com:443");
            prop_assert_eq!(asked(&origins, &format!("Origin: {asking}\r\n")), Ok(same), "{}", asking);
        }
    }
}
