//! Everything that a request can be refused for: status, cause and text, one line each.

use super::response::{ExtraHeader, PLAIN_TEXT, write_framing, write_line, write_status_line};
use crate::error::{HandshakeError, ProxyFault};

/// Why a request is refused, and the answer that says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: u16,
    cause: HandshakeError,
    text: &'static str,
}

impl Refusal {
    /// The request was not complete within `handshake_timeout`.
    pub const TIMEOUT: Self =
        Self { status: 408, cause: HandshakeError::Timeout, text: "the request took too long\n" };

    /// The application failed while it looked at the request.
    pub const INTERNAL: Self =
        Self { status: 500, cause: HandshakeError::Rejected, text: "the application failed\n" };

    // What the scanner sees.
    pub(super) const MALFORMED: Self = Self::bad("not an HTTP/1.1 request\n");
    pub(super) const EMPTY_LINE: Self = Self::bad("empty line before the request\n");
    pub(super) const BARE_LF: Self = Self::bad("line that ends in a bare LF\n");
    pub(super) const BARE_CR: Self = Self::bad("CR without LF\n");
    pub(super) const FOLDED: Self = Self::bad("folded header line\n");
    pub(super) const CONTROL_CHARACTER: Self = Self::bad("control character in the request head\n");
    pub(super) const HEAD_TOO_LONG: Self = Self::too_large("request head has too many bytes\n");
    pub(super) const TOO_MANY_HEADERS: Self = Self::too_large("request head has too many lines\n");

    // For every request.
    pub(super) const HTTP_VERSION: Self =
        Self { status: 505, cause: HandshakeError::BadRequest, text: "only HTTP/1.1 is spoken here\n" };
    pub(super) const TARGET: Self = Self::bad("request target is not a path\n");
    pub(super) const AUTHORITY: Self = Self::bad("request target and Host name different servers\n");
    pub(super) const HOST: Self = Self::bad("Host must be there once and name a server\n");
    pub(super) const ORIGIN: Self = Self::bad("Origin must be there at most once, in ASCII\n");
    pub(super) const FRAMING: Self = Self::bad("length of the body is ambiguous\n");
    /// A request with a body that was not detached.
    pub const BODY: Self = Self::bad("requests with a body are not taken\n");

    // From §4.2.1.
    pub(super) const NOT_AN_UPGRADE: Self =
        Self { status: 426, cause: HandshakeError::BadRequest, text: "only WebSocket is spoken here\n" };
    pub(super) const OLD_HTTP: Self = Self::bad("WebSocket needs HTTP/1.1\n");
    pub(super) const METHOD: Self =
        Self { status: 405, cause: HandshakeError::BadRequest, text: "WebSocket needs GET\n" };
    pub(super) const CONNECTION: Self = Self::bad("Connection must include Upgrade\n");
    pub(super) const VERSION_LINES: Self = Self::bad("Sec-WebSocket-Version must be there exactly once\n");
    pub(super) const VERSION: Self = Self {
        status: 426,
        cause: HandshakeError::BadVersion,
        text: "only WebSocket version 13 is spoken here\n",
    };
    pub(super) const KEY: Self =
        Self::bad("Sec-WebSocket-Key must be there once and hold 16 bytes in base64\n");
    pub(super) const SUBPROTOCOLS: Self =
        Self::bad("Sec-WebSocket-Protocol must list tokens, none of them twice\n");
    pub(super) const EXTENSIONS: Self = Self::bad("Sec-WebSocket-Extensions is malformed\n");

    // From the application.
    /// The application detached a request that asks for a WebSocket.
    pub const NOT_PLAIN: Self =
        Self { status: 400, cause: HandshakeError::Rejected, text: "there is no WebSocket here\n" };

    // Before the request.
    /// It does not begin with the PROXY header that is wanted, or begins with one that is not.
    pub const fn of_proxy_header(fault: ProxyFault) -> Self {
        let text = match fault {
            ProxyFault::Missing => "a PROXY header is required here\n",
            ProxyFault::Untrusted => "a PROXY header is not taken from this address\n",
            ProxyFault::Malformed => "malformed PROXY header\n",
            ProxyFault::TooLong => "PROXY header of too many bytes\n",
        };
        Self { status: 400, cause: HandshakeError::ProxyHeader(fault), text }
    }

    // From the settings.
    /// The request's `Origin` is none of [`HandshakeConfig::origins`](crate::config::HandshakeConfig::origins).
    pub const FOREIGN_ORIGIN: Self = Self {
        status: 403,
        cause: HandshakeError::OriginRefused,
        text: "this origin may not connect here\n",
    };

    const fn bad(text: &'static str) -> Self {
        Self { status: 400, cause: HandshakeError::BadRequest, text }
    }

    const fn too_large(text: &'static str) -> Self {
        Self { status: 431, cause: HandshakeError::HeadTooLarge, text }
    }

    /// Whether the request is valid HTTP that does not ask for a WebSocket.
    pub fn is_for_plain_http(&self) -> bool {
        *self == Self::NOT_AN_UPGRADE
    }

    /// The status code of the answer.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// What the report of the failed handshake will say.
    pub const fn cause(&self) -> HandshakeError {
        self.cause
    }

    /// What was wrong, as one line: the body of the answer.
    pub const fn text(&self) -> &'static str {
        self.text
    }

    /// Appends the whole answer to `out`. Allocates only as `out` grows.
    pub fn write(&self, out: &mut Vec<u8>) {
        self.write_head(out);
        out.extend_from_slice(self.text.as_bytes());
    }

    /// Appends the answer to a HEAD request: the same without its body.
    pub fn write_head(&self, out: &mut Vec<u8>) {
        write_status_line(out, self.status);
        let ExtraHeader { name, value } = PLAIN_TEXT;
        write_line(out, &name, &value);
        if self.status == 405 {
            // RFC 9110 §15.5.6 wants it of every 405.
            write_line(out, "Allow", "GET");
        }
        write_framing(out, self.status, self.text.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_have_their_status_and_cause() {
        let rows = [
            (Refusal::MALFORMED, 400, HandshakeError::BadRequest),
            (Refusal::BARE_LF, 400, HandshakeError::BadRequest),
            (Refusal::BODY, 400, HandshakeError::BadRequest),
            (Refusal::FRAMING, 400, HandshakeError::BadRequest),
            (Refusal::VERSION_LINES, 400, HandshakeError::BadRequest),
            (Refusal::METHOD, 405, HandshakeError::BadRequest),
            (Refusal::TIMEOUT, 408, HandshakeError::Timeout),
            (Refusal::NOT_AN_UPGRADE, 426, HandshakeError::BadRequest),
            (Refusal::VERSION, 426, HandshakeError::BadVersion),
            (Refusal::HEAD_TOO_LONG, 431, HandshakeError::HeadTooLarge),
            (Refusal::TOO_MANY_HEADERS, 431, HandshakeError::HeadTooLarge),
            (Refusal::HTTP_VERSION, 505, HandshakeError::BadRequest),
        ];
        for (refusal, status, cause) in rows {
            assert_eq!((refusal.status(), refusal.cause()), (status, cause), "{}", refusal.text());
        }
    }

    #[test]
    fn refusals_on_the_wire() {
        let rows: &[(&str, Refusal, &str)] = &[
            (
                "400",
                Refusal::BARE_CR,
                "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Content-Length: 14\r\nConnection: close\r\n\r\nCR without LF\n",
            ),
            (
                "405",
                Refusal::METHOD,
                "HTTP/1.1 405 Method Not Allowed\r\nContent-Type: text/plain; charset=utf-8\r\nAllow: GET\r\n\
                Content-Length: 20\r\nConnection: close\r\n\r\nWebSocket needs GET\n",
            ),
            (
                "426",
                Refusal::VERSION,
                "HTTP/1.1 426 Upgrade Required\r\nContent-Type: text/plain; charset=utf-8\r\n\
                Content-Length: 41\r\nSec-WebSocket-Version: 13\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\r\n\
                only WebSocket version 13 is spoken here\n",
            ),
        ];
        for (name, refusal, expected) in rows {
            assert_eq!(written(|out| refusal.write(out)), *expected, "{name}");
            assert_eq!(
                format!("{}{}", written(|out| refusal.write_head(out)), refusal.text()),
                *expected,
                "{name}"
            );
        }
    }

    fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
        let mut out = vec![];
        write(&mut out);
        String::from_utf8(out).expect("all of it is ASCII here")
    }
}
