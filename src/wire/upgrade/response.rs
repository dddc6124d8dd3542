//! What the server sends back: 101, or an answer that ends the connection. Every text of an application has a type that
//! proves that it can break no line. No request enters.

use std::borrow::Cow;
use std::io::Write as _;
use std::time::Duration;

use thiserror::Error;

use super::accepted::Accepted;
use super::lists::Subprotocol;
use super::token::is_token;

/// Appends the answer that ends HTTP and begins frames (RFC 6455 §4.2.2, step 5). Allocates only as `out` grows.
pub fn write_switching_protocols(
    out: &mut Vec<u8>,
    accepted: &Accepted,
    subprotocol: Option<Subprotocol<'_>>,
    extensions: Option<HeaderValue<'_>>,
    extra: &[ExtraHeader],
) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ",
    );
    out.extend_from_slice(accepted.accept_key().as_bytes());
    out.extend_from_slice(b"\r\n");
    if let Some(subprotocol) = subprotocol {
        write_line(out, "Sec-WebSocket-Protocol", subprotocol.as_str());
    }
    if let Some(HeaderValue(extensions)) = extensions {
        write_line(out, "Sec-WebSocket-Extensions", extensions);
    }
    for ExtraHeader { name, value } in extra {
        write_line(out, name, value);
    }
    out.extend_from_slice(b"\r\n");
}

/// An HTTP answer of the application, after which the connection ends. It cannot be an interim one or a 101, its headers
/// cannot break out of their lines, and the library writes its framing (`Content-Length`, `Connection: close`).
///
/// ```
/// use adjourn::http::Response;
///
/// let health = Response::new(200)?.header("Content-Type", "text/plain")?.body("alive\n");
/// let mut out = vec![];
/// health.write(&mut out);
/// assert!(out.starts_with(b"HTTP/1.1 200 OK\r\n") && out.ends_with(b"\r\n\r\nalive\n"));
/// assert!(Response::new(101).is_err());
/// # Ok::<(), adjourn::http::ResponseError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    status: u16,
    headers: Vec<ExtraHeader>,
    body: Cow<'static, [u8]>,
}

impl Response {
    /// An answer without a body. Only final statuses, 200 to 599, are allowed. The library adds to a 426 which
    /// upgrade is required (RFC 9110 §15.5.22).
    pub const fn new(status: u16) -> Result<Self, ResponseError> {
        match status {
            200..=599 => Ok(Self { status, headers: Vec::new(), body: Cow::Borrowed(&[]) }),
            _ => Err(ResponseError::InvalidStatus(status)),
        }
    }

    /// 503 with `Retry-After` in seconds, rounded up. Allocates.
    pub fn unavailable(retry_after: Duration) -> Self {
        let seconds = retry_after.as_secs().saturating_add(u64::from(retry_after.subsec_nanos() > 0));
        let retry_after = ExtraHeader { name: "Retry-After".into(), value: seconds.to_string().into() };
        Self { status: 503, headers: vec![PLAIN_TEXT, retry_after], body: b"try again later\n".into() }
    }

    pub(super) fn plain_text(status: u16, text: &'static str) -> Self {
        Self { status, headers: vec![PLAIN_TEXT], body: Cow::Borrowed(text.as_bytes()) }
    }

    /// Adds one header line. A name may be repeated, as in `Set-Cookie`. Allocates.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, ResponseError> {
        self.headers.push(ExtraHeader::new(name, value)?);
        Ok(self)
    }

    /// Sets the body. A 204, 205 or 304 has none (RFC 9110 §6.4.1), so theirs is not sent.
    #[must_use]
    pub fn body(mut self, body: impl Into<Body>) -> Self {
        self.body = body.into().0;
        self
    }

    /// The status code.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Bytes that it owns or refers to.
    pub(crate) fn size(&self) -> usize {
        let headers = self.headers.iter().map(|header| header.name.len() + header.value.len());
        headers.sum::<usize>() + self.body.len()
    }

    /// Appends the whole answer to `out`. Allocates only as `out` grows.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        if allows_body(self.status) {
            out.extend_from_slice(&self.body);
        }
    }

    /// Appends the answer to a HEAD request: the same without its body (RFC 9110 §9.3.2).
    pub fn write_head(&self, out: &mut Vec<u8>) {
        write_status_line(out, self.status);
        for ExtraHeader { name, value } in &self.headers {
            write_line(out, name, value);
        }
        write_framing(out, self.status, self.body.len());
    }
}

/// Bytes for a [`Response`]: from a string or bytes, static or owned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Body(Cow<'static, [u8]>);

impl From<&'static str> for Body {
    fn from(text: &'static str) -> Self {
        Self(Cow::Borrowed(text.as_bytes()))
    }
}

impl From<String> for Body {
    fn from(text: String) -> Self {
        Self(Cow::Owned(text.into_bytes()))
    }
}

impl From<&'static [u8]> for Body {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Cow::Borrowed(bytes))
    }
}

impl From<Vec<u8>> for Body {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Cow::Owned(bytes))
    }
}

/// A header line that an application adds to an answer. Checked when it is made: it cannot end its line, and it is
/// none of those that the library writes, because the meaning of two of them would depend on the parser.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExtraHeader {
    pub(super) name: Cow<'static, str>,
    pub(super) value: Cow<'static, str>,
}

impl ExtraHeader {
    /// Takes a name that is a token and not reserved, and a value without control characters other than tabs.
    pub fn new(
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, ResponseError> {
        let (name, value) = (name.into(), value.into());
        if !is_token(name.as_bytes()) {
            return Err(ResponseError::InvalidName);
        }
        if is_reserved(&name) {
            return Err(ResponseError::ReservedName);
        }
        HeaderValue::new(&value)?;
        Ok(Self { name, value })
    }
}

/// A header value that cannot end its line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeaderValue<'a>(&'a str);

impl<'a> HeaderValue<'a> {
    /// Refuses control characters other than tabs (RFC 9110 §5.5).
    pub fn new(value: &'a str) -> Result<Self, ResponseError> {
        // By bytes: U+0080 to U+009F are controls too, but in UTF-8 they have no byte that any parser takes for one.
        if value.bytes().all(|byte| byte == b'\t' || !byte.is_ascii_control()) {
            Ok(Self(value))
        } else {
            Err(ResponseError::InvalidValue)
        }
    }

    /// The value.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// Why an application's answer or header line cannot be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum ResponseError {
    /// An interim answer, a 101, or no status at all.
    #[error("status {0} is not that of a final answer (200 to 599)")]
    InvalidStatus(u16),
    /// The name of a header is not a token.
    #[error("header name is not a token")]
    InvalidName,
    /// The value of a header has a control character in it.
    #[error("header value has a control character in it")]
    InvalidValue,
    /// The header is one that the library writes itself.
    #[error("header is written by the library itself")]
    ReservedName,
}

pub(super) const PLAIN_TEXT: ExtraHeader =
    ExtraHeader { name: Cow::Borrowed("Content-Type"), value: Cow::Borrowed("text/plain; charset=utf-8") };

/// The headers that say where an answer ends and which protocol follows it.
fn is_reserved(name: &str) -> bool {
    const NAMES: [&str; 7] = [
        "Connection",
        "Content-Length",
        "Keep-Alive",
        "Proxy-Connection",
        "Trailer",
        "Transfer-Encoding",
        "Upgrade",
    ];
    const PREFIX: &[u8] = b"Sec-WebSocket-";
    NAMES.iter().any(|reserved| name.eq_ignore_ascii_case(reserved))
        || name.as_bytes().get(..PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(PREFIX))
}

const fn allows_body(status: u16) -> bool {
    !matches!(status, 204 | 205 | 304)
}

pub(super) fn write_status_line(out: &mut Vec<u8>, status: u16) {
    let reason = match status {
        200 => "OK",
        204 => "No Content",
        301 => "Moved Permanently",
        302 => "Found",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        // RFC 9112 §4: the phrase may be empty, the blank before it is required.
        _ => "",
    };
    write!(out, "HTTP/1.1 {status} {reason}\r\n").expect("a Vec takes every byte");
}

/// The lines that end a head: how long the body is, and that nothing follows it.
pub(super) fn write_framing(out: &mut Vec<u8>, status: u16, body: usize) {
    // RFC 9110 §8.6: never in a 204. A 304's would speak of a body that we do not know.
    if !matches!(status, 204 | 304) {
        let length = if allows_body(status) { body } else { 0 };
        write!(out, "Content-Length: {length}\r\n").expect("a Vec takes every byte");
    }
    if status == 426 {
        // RFC 9110 §15.5.22: a 426 names the protocol it wants; §4.4: and we name its version.
        write_line(out, "Sec-WebSocket-Version", "13");
        write_line(out, "Upgrade", "websocket");
        write_line(out, "Connection", "Upgrade, close");
    } else {
        write_line(out, "Connection", "close");
    }
    out.extend_from_slice(b"\r\n");
}

pub(super) fn write_line(out: &mut Vec<u8>, name: &str, value: &str) {
    for part in [name, ": ", value, "\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = vec![];
        write(&mut out);
        String::from_utf8(out).expect("all of it is ASCII here")
    }

    #[test]
    fn header_lines_are_checked_when_made() {
        let rows: &[(&str, &str, &str, Result<(), ResponseError>)] = &[
            ("a plain one", "X-Trace", "a b\tc", Ok(())),
            ("an empty value", "X-Empty", "", Ok(())),
            ("text beyond ASCII", "X-Name", "Zoë", Ok(())),
            ("one that only looks reserved", "Connection-Id", "7", Ok(())),
            ("an empty name", "", "x", Err(ResponseError::InvalidName)),
            ("a blank in the name", "X Y", "x", Err(ResponseError::InvalidName)),
            ("a colon in the name", "X:", "x", Err(ResponseError::InvalidName)),
            ("a new line in the name", "X\r\nY", "x", Err(ResponseError::InvalidName)),
            ("a CR in the value", "X", "a\rb", Err(ResponseError::InvalidValue)),
            ("an LF in the value", "X", "a\nSet-Cookie: b", Err(ResponseError::InvalidValue)),
            ("a NUL in the value", "X", "a\0", Err(ResponseError::InvalidValue)),
            ("a DEL in the value", "X", "a\x7F", Err(ResponseError::InvalidValue)),
            ("an escape in the value", "X", "\x1B[2J", Err(ResponseError::InvalidValue)),
            ("Connection", "connection", "x", Err(ResponseError::ReservedName)),
            ("Upgrade", "UPGRADE", "x", Err(ResponseError::ReservedName)),
            ("Content-Length", "Content-length", "1", Err(ResponseError::ReservedName)),
            ("Transfer-Encoding", "Transfer-Encoding", "chunked", Err(ResponseError::ReservedName)),
            ("Sec-WebSocket-Accept", "sec-websocket-accept", "x", Err(ResponseError::ReservedName)),
            ("any Sec-WebSocket header", "Sec-WebSocket-New", "x", Err(ResponseError::ReservedName)),
        ];
        for (what, name, value, expected) in rows {
            assert_eq!(ExtraHeader::new(*name, *value).map(|_| ()), *expected, "{what}");
        }
    }

    #[test]
    fn a_response_is_final() {
        for status in [0, 100, 101, 199, 600, u16::MAX] {
            assert_eq!(Response::new(status), Err(ResponseError::InvalidStatus(status)));
        }
        for status in [200, 299, 404, 599] {
            assert_eq!(Response::new(status).map(|response| response.status()), Ok(status));
        }
    }

    #[test]
    fn responses_on_the_wire() {
        let with_body = |status| Response::new(status).expect("final").body("hello\n");
        let rows: &[(&str, Response, &str)] = &[
            (
                "a body",
                with_body(200),
                "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n",
            ),
            (
                "no body",
                Response::new(404).expect("final"),
                "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ),
            (
                "a 204 has neither body nor length",
                with_body(204),
                "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
            ),
            ("a 304 too", with_body(304), "HTTP/1.1 304 Not Modified\r\nConnection: close\r\n\r\n"),
            (
                "a 205 says zero",
                with_body(205),
                "HTTP/1.1 205 \r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            ),
            (
                "two headers of one name",
                with_body(401)
                    .header("A", "1")
                    .and_then(|response| response.header("A", "2"))
                    .expect("allowed"),
                "HTTP/1.1 401 Unauthorized\r\nA: 1\r\nA: 2\r\nContent-Length: 6\r\nConnection: close\r\n\r\nhello\n",
            ),
            (
                "a 426 names the upgrade",
                Response::new(426).expect("final"),
                "HTTP/1.1 426 Upgrade Required\r\nContent-Length: 0\r\nSec-WebSocket-Version: 13\r\n\
                 Upgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n",
            ),
            (
                "unavailable, in whole seconds rounded up",
                Response::unavailable(Duration::from_millis(4001)),
                "HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 5\r\n\
                 Content-Length: 16\r\nConnection: close\r\n\r\ntry again later\n",
            ),
        ];
        for (name, response, expected) in rows {
            assert_eq!(written(|out| response.write(out)), *expected, "{name}");
        }
        assert_eq!(
            written(|out| with_body(200).write_head(out)),
            "HTTP/1.1 200 OK\r\nContent-Length: 6\r\nConnection: close\r\n\r\n",
            "the answer to HEAD tells the length and sends nothing"
        );
    }
}
