//! A request head as HTTP (RFC 9110, RFC 9112). Only `is_upgrade` knows WebSocket.

use std::{borrow::Cow, fmt, str};

use httparse::Header;

use super::head::Head;
use super::headers::{HeaderStorage, Single, list_contains, single, values};
use super::lists::{Extensions, Subprotocol, Subprotocols};
use super::refusal::Refusal;
use super::url::is_unreserved_or_sub_delim;

/// An HTTP request that asks to become a WebSocket, or a plain one.
///
/// It borrows the head it was parsed from, so an application copies what it wants to keep. Paths, queries and values
/// are as the client sent them, and `..` is not resolved; [`Request::decoded_path`] and [`Request::query_pairs`] decode them. Compare
/// whole paths, or check before any use as a file name.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    pub(super) method: &'a str,
    path: &'a str,
    query: Option<&'a str>,
    pub(super) http_1_1: bool,
    host: Option<&'a str>,
    origin: Option<&'a str>,
    body: BodyLength,
    pub(super) headers: &'a [Header<'a>],
}

/// How the end of a request's body is found (RFC 9112 §6.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyLength {
    /// There is no body.
    Zero,
    /// `Content-Length` says how many bytes there are, one at least.
    Known(u64),
    /// `Transfer-Encoding: chunked`.
    Chunked,
}

impl<'head> Head<'head> {
    /// Takes the head apart and checks what holds for every request:
    ///
    /// * HTTP/1.1, or HTTP/1.0 for a plain request such as a load balancer's probe.
    /// * The target is a path, with or without a query, or an `http` or `https` URL whose authority is that of `Host`
    ///   (RFC 9112 §3.2.2). No `*`, no fragment (RFC 6455 §3), only ASCII.
    /// * One `Host` that could be the name of a server; HTTP/1.0 may omit it.
    /// * At most one `Origin` (RFC 6454 §7.3), in ASCII, so that [`Request::origin`] can be relied upon.
    /// * A body, if there is one, of a length that every reader finds alike: one `Content-Length`, in decimal digits without
    ///   leading zeros, or one `Transfer-Encoding: chunked` in HTTP/1.1, and never both.
    ///   [`Accepted::check`](super::Accepted::check) allows none.
    ///
    /// Allocates if there are more than 32 headers.
    pub fn parse<'a>(self, storage: &'a mut HeaderStorage<'head>) -> Result<Request<'a>, Refusal>
    where
        'head: 'a,
    {
        let mut parsed = httparse::Request::new(&mut []);
        match parsed.parse_with_uninit_headers(self.bytes, storage.room_for(self.header_lines)) {
            Ok(httparse::Status::Complete(length)) if length == self.len() => {}
            Err(httparse::Error::Version) if names_an_http_version(self.bytes) => {
                return Err(Refusal::HTTP_VERSION);
            }
            Ok(_) | Err(_) => return Err(Refusal::MALFORMED),
        }
        let httparse::Request { method: Some(method), path: Some(target), version: Some(version), headers } =
            parsed
        else {
            return Err(Refusal::MALFORMED);
        };
        let headers: &'a [Header<'a>] = headers;
        let http_1_1 = version == 1;
        let body = body_length(headers, http_1_1)?;
        let host = match single(headers, "Host") {
            Single::One(value) => Some(host(value).ok_or(Refusal::HOST)?),
            Single::None if !http_1_1 => None,
            Single::None | Single::Several => return Err(Refusal::HOST),
        };
        let origin = match single(headers, "Origin") {
            Single::One(value) if value.is_ascii() => str::from_utf8(value).ok(),
            Single::None => None,
            Single::One(_) | Single::Several => return Err(Refusal::ORIGIN),
        };
        let (path, query) = split_target(target, host)?;
        Ok(Request { method, path, query, http_1_1, host, origin, body, headers })
    }
}

impl<'a> Request<'a> {
    /// The method, `GET` for every WebSocket. Case-sensitive.
    pub const fn method(&self) -> &'a str {
        self.method
    }

    /// Whether the answer must come without its body, since the method is HEAD.
    pub fn is_head(&self) -> bool {
        self.method == "HEAD"
    }

    /// The target up to the `?`: begins with a slash.
    pub const fn path(&self) -> &'a str {
        self.path
    }

    /// The target after its first `?`.
    pub const fn query(&self) -> Option<&'a str> {
        self.query
    }

    /// The path with its percent-encoding decoded. `None` if that is not UTF-8. Allocates if something was encoded.
    ///
    /// A `%2F` has become a slash, and `..` is not resolved: check it before any use as a file name.
    pub fn decoded_path(&self) -> Option<Cow<'a, str>> {
        percent_encoding::percent_decode_str(self.path).decode_utf8().ok()
    }

    /// The names and values of the query, in their order, decoded as HTML forms are encoded: percent-encoding, and `+` for a
    /// blank. What is not UTF-8 then has U+FFFD in its place. Allocates for those that were encoded.
    pub fn query_pairs(&self) -> impl Iterator<Item = (Cow<'a, str>, Cow<'a, str>)> {
        form_urlencoded::parse(self.query.unwrap_or_default().as_bytes())
    }

    /// The first value of that name in the query, decoded as by [`Request::query_pairs`]. Empty if the name stands there without
    /// one.
    ///
    /// ```
    /// use adjourn::http::{Upgrade, UpgradeRequest};
    ///
    /// fn on_upgrade<'r>(request: &UpgradeRequest<'r>) -> Upgrade<'r, String> {
    ///     let name = request.query_value("name").unwrap_or("nobody".into()); // ?name=J%C3%BCrgen
    ///     Upgrade::accept(name.into_owned())
    /// }
    /// ```
    pub fn query_value(&self, name: &str) -> Option<Cow<'a, str>> {
        self.query_pairs().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// The value of `Host`, with its port if it has one. `None` only for HTTP/1.0.
    pub const fn host(&self) -> Option<&'a str> {
        self.host
    }

    /// The value of `Origin`: the page whose script wants to connect, as sent by every browser. There is never more than
    /// one. Compare it as a whole with those you allow; other programs send none, or anything.
    pub const fn origin(&self) -> Option<&'a str> {
        self.origin
    }

    /// How long its body is. The body itself is no part of a request here.
    pub const fn body_length(&self) -> BodyLength {
        self.body
    }

    /// The value of the first line of that name, in any case, without the blanks around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        values(self.headers, name).next()
    }

    /// As [`Request::header`], as text. `None` also if the value is not UTF-8, so the header may be present.
    pub fn header_text(&self, name: &str) -> Option<&'a str> {
        self.header(name).and_then(|value| str::from_utf8(value).ok())
    }

    /// All header lines as name and value, in order.
    pub fn headers(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        self.headers.iter().map(|header| (header.name, header.value))
    }

    /// The subprotocols that the client offers, in its order of preference.
    pub fn subprotocols(&self) -> Subprotocols<'a> {
        Subprotocols::new(self.headers)
    }

    /// That subprotocol, if the client offers it: it can be put into a 101.
    pub fn subprotocol(&self, name: &str) -> Option<Subprotocol<'a>> {
        self.subprotocols().find(|offered| offered.as_str() == name)
    }

    /// The extensions that the client offers, in order.
    pub fn extensions(&self) -> Extensions<'a> {
        Extensions::new(self.headers)
    }

    /// Whether the client asks for a WebSocket; if not, the application may answer in plain HTTP. An `Upgrade` in an
    /// HTTP/1.0 request does not count (RFC 9110 §7.8).
    pub fn is_upgrade(&self) -> bool {
        self.http_1_1 && self.wants_websocket()
    }

    pub(super) fn wants_websocket(&self) -> bool {
        list_contains(self.headers, "Upgrade", "websocket")
    }
}

/// Without header values: a log is no place for cookies.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Request")
            .field("method", &self.method)
            .field("path", &self.path)
            .field("host", &self.host)
            .field("origin", &self.origin)
            .finish_non_exhaustive()
    }
}

/// Request smuggling needs two readers that disagree about where a body ends, so whatever RFC 9112 §6.3 would let a server
/// repair is refused: two lengths, a list, a length beside a coding, a coding that is not `chunked` alone, or in HTTP/1.0.
fn body_length(headers: &[Header<'_>], http_1_1: bool) -> Result<BodyLength, Refusal> {
    match (single(headers, "Transfer-Encoding"), single(headers, "Content-Length")) {
        (Single::None, Single::None) => Ok(BodyLength::Zero),
        (Single::None, Single::One(length)) => decimal(length).ok_or(Refusal::FRAMING),
        (Single::One(coding), Single::None) if http_1_1 && coding.eq_ignore_ascii_case(b"chunked") => {
            Ok(BodyLength::Chunked)
        }
        _ => Err(Refusal::FRAMING),
    }
}

/// A number of bytes in its one canonical form.
fn decimal(digits: &[u8]) -> Option<BodyLength> {
    match digits {
        b"0" => Some(BodyLength::Zero),
        [b'1'..=b'9', rest @ ..] if rest.iter().all(u8::is_ascii_digit) => {
            str::from_utf8(digits).ok()?.parse().ok().map(BodyLength::Known)
        }
        _ => None,
    }
}

/// `uri-host [":" port]` (RFC 9110 §7.2), as far as its characters go: nothing that ends an authority, no user name.
fn host(value: &[u8]) -> Option<&str> {
    let of_an_authority = |&byte: &u8| is_unreserved_or_sub_delim(byte) || b":[]%".contains(&byte);
    if value.is_empty() || value.starts_with(b":") || !value.iter().all(of_an_authority) {
        return None;
    }
    str::from_utf8(value).ok()
}

/// Path and query of a request target.
fn split_target<'a>(target: &'a str, host: Option<&str>) -> Result<(&'a str, Option<&'a str>), Refusal> {
    if !target.is_ascii() || target.contains('#') {
        return Err(Refusal::TARGET);
    }
    let local = if target.starts_with('/') { target } else { after_authority(target, host)? };
    let (path, query) = match local.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (local, None),
    };
    // Of an absolute URL the path may be left out (RFC 9110 §4.2.3).
    Ok((if path.is_empty() { "/" } else { path }, query))
}

/// What follows the authority of an absolute URL. By RFC 9112 §3.2.2 it replaces `Host`; here the two must agree, so that
/// every reader of the request sees the same server.
fn after_authority<'a>(target: &'a str, host: Option<&str>) -> Result<&'a str, Refusal> {
    let (scheme, rest) = target.split_once("://").ok_or(Refusal::TARGET)?;
    if !scheme.eq_ignore_ascii_case("http") && !scheme.eq_ignore_ascii_case("https") {
        return Err(Refusal::TARGET);
    }
    let (authority, local) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    match host {
        Some(host) if host.eq_ignore_ascii_case(authority) => Ok(local),
        _ => Err(Refusal::AUTHORITY),
    }
}

/// Whether the request line ends in some version of HTTP, so that 505 tells the client more than 400.
fn names_an_http_version(head: &[u8]) -> bool {
    let line = head.split(|&byte| byte == b'\r').next().unwrap_or_default();
    matches!(line, [.., b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'])
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::{Accepted, HeadLimits, HeadScanner};
    use super::*;

    pub(crate) const LIMITS: HeadLimits = HeadLimits { max_head: 16_384, max_headers: 100 };

    pub(crate) fn with_request<T>(
        bytes: &[u8],
        then: impl FnOnce(&Request<'_>) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        let head = HeadScanner::default().scan(bytes, &LIMITS)?.expect("a whole head");
        then(&head.parse(&mut HeaderStorage::new())?)
    }

    /// A head from its request line and header lines.
    pub(crate) fn head(lines: &[&str]) -> Vec<u8> {
        lines.iter().flat_map(|line| [line, "\r\n"]).chain(["\r\n"]).collect::<String>().into_bytes()
    }

    #[test]
    fn paths_and_queries_are_decoded() {
        let decoded = |target: &str| {
            with_request(&head(&[&format!("GET {target} HTTP/1.1"), "Host: a"]), |request| {
                let pairs: Vec<_> = request.query_pairs().map(|(k, v)| format!("{k}:{v}")).collect();
                let path = request.decoded_path().map(Cow::into_owned);
                Ok((path, pairs, request.query_value("a").map(Cow::into_owned)))
            })
            .expect("a request")
        };
        let rows: &[(&str, Option<&str>, &[&str], Option<&str>)] = &[
            ("/plain", Some("/plain"), &[], None),
            ("/a%20b+c%2F", Some("/a b+c/"), &[], None),
            ("/%ff", None, &[], None),
            ("/%zz%", Some("/%zz%"), &[], None),
            ("/?", Some("/"), &[], None),
            ("/?a=1&b=2&a=3", Some("/"), &["a:1", "b:2", "a:3"], Some("1")),
            ("/?a&&=x", Some("/"), &["a:", ":x"], Some("")),
            ("/?b=x+y%2B&%61=%C3%BC?=", Some("/"), &["b:x y+", "a:ü?="], Some("ü?=")),
            ("/?a=%ff", Some("/"), &["a:\u{fffd}"], Some("\u{fffd}")),
        ];
        for (target, path, pairs, value) in rows {
            let (found, found_pairs, first) = decoded(target);
            assert_eq!((found.as_deref(), first.as_deref()), (*path, *value), "{target}");
            assert_eq!(found_pairs, *pairs, "{target}");
        }
    }

    #[test]
    fn every_request() {
        let long = "x".repeat(8_000);
        let rows: &[(&str, &[&str], Result<(), Refusal>)] = &[
            ("a plain GET", &["GET /healthz HTTP/1.1", "Host: a"], Ok(())),
            ("a probe of a load balancer", &["OPTIONS / HTTP/1.0"], Ok(())),
            ("HTTP/1.0 with a Host", &["GET / HTTP/1.0", "Host: a"], Ok(())),
            ("a long target", &[&format!("GET /{long} HTTP/1.1"), "Host: a"], Ok(())),
            ("a value beyond ASCII", &["GET / HTTP/1.1", "Host: a", "X-Name: Zoë"], Ok(())),
            ("a header without a value", &["GET / HTTP/1.1", "Host: a", "X:"], Ok(())),
            ("HTTP/2", &["PRI * HTTP/2.0"], Err(Refusal::HTTP_VERSION)),
            ("HTTP/1.2", &["GET / HTTP/1.2", "Host: a"], Err(Refusal::HTTP_VERSION)),
            ("no HTTP", &["GET / HTTPS/1.1", "Host: a"], Err(Refusal::MALFORMED)),
            ("no version", &["GET /", "Host: a"], Err(Refusal::MALFORMED)),
            ("two blanks in the request line", &["GET  / HTTP/1.1", "Host: a"], Err(Refusal::MALFORMED)),
            ("a blank after the request line", &["GET / HTTP/1.1 ", "Host: a"], Err(Refusal::MALFORMED)),
            ("a method that is no token", &["G@T / HTTP/1.1", "Host: a"], Err(Refusal::MALFORMED)),
            ("a blank before the colon", &["GET / HTTP/1.1", "Host : a"], Err(Refusal::MALFORMED)),
            ("no colon", &["GET / HTTP/1.1", "Host: a", "nonsense"], Err(Refusal::MALFORMED)),
            ("no name", &["GET / HTTP/1.1", "Host: a", ": b"], Err(Refusal::MALFORMED)),
            ("a name that is no token", &["GET / HTTP/1.1", "Host: a", "b@d: c"], Err(Refusal::MALFORMED)),
            ("a name beyond ASCII", &["GET / HTTP/1.1", "Host: a", "näme: c"], Err(Refusal::MALFORMED)),
            ("no Host", &["GET / HTTP/1.1"], Err(Refusal::HOST)),
            ("two Hosts", &["GET / HTTP/1.1", "Host: a", "host: a"], Err(Refusal::HOST)),
            ("two Hosts in HTTP/1.0", &["GET / HTTP/1.0", "Host: a", "Host: b"], Err(Refusal::HOST)),
            ("an empty Host", &["GET / HTTP/1.1", "Host: "], Err(Refusal::HOST)),
            ("a Host that is only a port", &["GET / HTTP/1.1", "Host: :80"], Err(Refusal::HOST)),
            ("a Host with a blank", &["GET / HTTP/1.1", "Host: a b"], Err(Refusal::HOST)),
            ("a Host with a user", &["GET / HTTP/1.1", "Host: u@a"], Err(Refusal::HOST)),
            ("a Host with a path", &["GET / HTTP/1.1", "Host: a/b"], Err(Refusal::HOST)),
            ("a Host with a port", &["GET / HTTP/1.1", "Host: a:8080"], Ok(())),
            ("a Host with an address", &["GET / HTTP/1.1", "Host: [::1]:80"], Ok(())),
            ("one Origin", &["GET / HTTP/1.1", "Host: a", "Origin: null"], Ok(())),
            (
                "two Origins",
                &["GET / HTTP/1.1", "Host: a", "Origin: http://a", "Origin: http://b"],
                Err(Refusal::ORIGIN),
            ),
            (
                "an Origin beyond ASCII",
                &["GET / HTTP/1.1", "Host: a", "Origin: http://ä"],
                Err(Refusal::ORIGIN),
            ),
        ];
        for (name, lines, expected) in rows {
            assert_eq!(with_request(&head(lines), |_| Ok(())), *expected, "{name}");
        }
    }

    #[test]
    fn bodies_have_one_length_for_every_reader() {
        let zero = Ok(BodyLength::Zero);
        let rows: &[(&str, &[&str], Result<BodyLength, Refusal>)] = &[
            ("nothing", &[], zero),
            ("a body of no bytes", &["Content-Length: 0"], zero),
            ("a body", &["Content-Length: 5"], Ok(BodyLength::Known(5))),
            ("blanks around", &["Content-Length: \t 5 "], Ok(BodyLength::Known(5))),
            ("the longest", &[&format!("Content-Length: {}", u64::MAX)], Ok(BodyLength::Known(u64::MAX))),
            ("one more", &["Content-Length: 18446744073709551616"], Err(Refusal::FRAMING)),
            ("chunks", &["Transfer-Encoding: chunked"], Ok(BodyLength::Chunked)),
            ("chunks in another case", &["transfer-encoding: Chunked"], Ok(BodyLength::Chunked)),
            ("no bytes, said oddly", &["Content-Length: +0"], Err(Refusal::FRAMING)),
            ("a leading zero", &["Content-Length: 05"], Err(Refusal::FRAMING)),
            ("another base", &["Content-Length: 0x5"], Err(Refusal::FRAMING)),
            ("a negative length", &["Content-Length: -1"], Err(Refusal::FRAMING)),
            ("a length and no number", &["Content-Length: "], Err(Refusal::FRAMING)),
            ("the same length twice", &["Content-Length: 5", "Content-Length: 5"], Err(Refusal::FRAMING)),
            ("two lengths", &["Content-Length: 5", "content-length: 6"], Err(Refusal::FRAMING)),
            ("a list of lengths", &["Content-Length: 5, 5"], Err(Refusal::FRAMING)),
            ("a coding that does nothing", &["Transfer-Encoding: identity"], Err(Refusal::FRAMING)),
            ("another coding", &["Transfer-Encoding: gzip"], Err(Refusal::FRAMING)),
            ("two codings", &["Transfer-Encoding: gzip, chunked"], Err(Refusal::FRAMING)),
            (
                "a coding on two lines",
                &["Transfer-Encoding: chunked", "Transfer-Encoding: identity"],
                Err(Refusal::FRAMING),
            ),
            ("half a coding", &["Transfer-Encoding: chunked,"], Err(Refusal::FRAMING)),
            (
                "a coding with a vertical tab",
                &["Transfer-Encoding: \u{B}chunked"],
                Err(Refusal::CONTROL_CHARACTER),
            ),
            (
                "a length and a coding",
                &["Content-Length: 0", "Transfer-Encoding: chunked"],
                Err(Refusal::FRAMING),
            ),
            (
                "a coding and a length",
                &["Transfer-Encoding: chunked", "Content-Length: 5"],
                Err(Refusal::FRAMING),
            ),
            ("a blank before the colon", &["Content-Length : 5"], Err(Refusal::MALFORMED)),
            ("a folded line", &["Content-Length: 5", " 0"], Err(Refusal::FOLDED)),
        ];
        for (name, lines, expected) in rows {
            let lines: Vec<_> = ["POST / HTTP/1.1", "Host: a"].iter().chain(*lines).copied().collect();
            assert_eq!(with_request(&head(&lines), |request| Ok(request.body_length())), *expected, "{name}");
        }
        let old = ["POST / HTTP/1.0", "Transfer-Encoding: chunked"];
        assert_eq!(with_request(&head(&old), |_| Ok(())), Err(Refusal::FRAMING), "HTTP/1.0 has no chunks");
    }

    #[test]
    fn targets() {
        let rows: &[(&str, &str, Result<(&str, Option<&str>), Refusal>)] = &[
            ("the root", "/", Ok(("/", None))),
            ("a path", "/a/b", Ok(("/a/b", None))),
            ("a query", "/a?b=c?d", Ok(("/a", Some("b=c?d")))),
            ("an empty query", "/?", Ok(("/", Some("")))),
            ("two slashes stay", "//evil/x", Ok(("//evil/x", None))),
            ("nothing is decoded or resolved", "/%2e%2e/../a", Ok(("/%2e%2e/../a", None))),
            ("a URL", "http://a:80/b?c", Ok(("/b", Some("c")))),
            ("a URL, its case aside", "HTTPS://A:80/b", Ok(("/b", None))),
            ("a URL without a path", "http://a:80", Ok(("/", None))),
            ("a URL with a query only", "http://a:80?c", Ok(("/", Some("c")))),
            ("a URL of another server", "http://b/", Err(Refusal::AUTHORITY)),
            ("a URL of another port", "http://a/", Err(Refusal::AUTHORITY)),
            ("a URL with a user", "http://u@a:80/", Err(Refusal::AUTHORITY)),
            ("a URL of another scheme", "ftp://a:80/", Err(Refusal::TARGET)),
            ("an authority", "a:80", Err(Refusal::TARGET)),
            ("an asterisk", "*", Err(Refusal::TARGET)),
            ("no slash in front", "a/b", Err(Refusal::TARGET)),
            ("a fragment", "/a#b", Err(Refusal::TARGET)),
            ("a byte beyond ASCII", "/ä", Err(Refusal::TARGET)),
        ];
        for (name, target, expected) in rows {
            let bytes = head(&[&format!("GET {target} HTTP/1.1"), "Host: a:80"]);
            let found = with_request(&bytes, |request| {
                Ok((request.path().to_owned(), request.query().map(str::to_owned)))
            });
            let expected = expected.map(|(path, query)| (path.to_owned(), query.map(str::to_owned)));
            assert_eq!(found, expected, "{name}");
        }
        assert_eq!(
            with_request(&head(&["GET /\u{FF}\u{0} HTTP/1.1"]), |_| Ok(())),
            Err(Refusal::CONTROL_CHARACTER),
            "a NUL in the target"
        );
        assert_eq!(
            with_request(b"GET /\xFF HTTP/1.1\r\nHost: a\r\n\r\n", |_| Ok(())),
            Err(Refusal::MALFORMED),
            "a target that is not UTF-8"
        );
    }

    #[test]
    fn headers_can_be_looked_up() {
        let bytes = head(&["HEAD / HTTP/1.1", "Host: a", "X-A:  1 ", "x-a: 2", "Cookie: s=\u{FC}"]);
        with_request(&bytes, |request| {
            assert!(request.is_head());
            assert_eq!(request.method(), "HEAD");
            assert_eq!(request.host(), Some("a"));
            assert_eq!(request.header("X-a"), Some(b"1".as_slice()));
            assert_eq!(request.header("x-b"), None);
            assert_eq!(request.header_text("cookie"), Some("s=ü"));
            assert_eq!(
                request.headers().map(|(name, _)| name).collect::<Vec<_>>(),
                ["Host", "X-A", "x-a", "Cookie"]
            );
            assert!(!format!("{request:?}").contains("s="), "no secrets in logs");
            Ok(())
        })
        .expect("a request");
    }

    #[test]
    fn more_headers_than_fit_on_the_stack() {
        for count in [31, 32, 33, 99, 100, 101, 2_000] {
            let many: Vec<_> = (1..count).map(|i| format!("X-{i}: {i}")).collect();
            let lines: Vec<_> =
                ["GET / HTTP/1.1", "Host: a"].into_iter().chain(many.iter().map(String::as_str)).collect();
            let found = with_request(&head(&lines), |request| Ok(request.headers().count()));
            let expected = if count <= 100 { Ok(count) } else { Err(Refusal::TOO_MANY_HEADERS) };
            assert_eq!(found, expected, "{count} headers");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_panic(lines in proptest::collection::vec("[ -~\u{e9}\u{0}\t]{0,20}", 0..6)) {
            let lines: Vec<_> = lines.iter().map(String::as_str).collect();
            let _ = with_request(&head(&lines), |request| Accepted::check(request).map(drop));
            let lines: Vec<_> = ["GET / HTTP/1.1", "Host: a"].into_iter().chain(lines).collect();
            let _ = with_request(&head(&lines), |request| Accepted::check(request).map(drop));
        }
    }
}
