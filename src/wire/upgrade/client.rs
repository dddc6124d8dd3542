//! The client's side of the opening handshake (§4.1): the request that is written, and the check of the response.
//!
//! ```text
//!   Offer, ClientKey -> write ...... bytes -> HeadScanner -> Head -> ServerResponse -> check() -> Switched
//!                                                  |                      |               |
//!                                                  +----------------------+---------------+-> HandshakeError
//! ```

use std::borrow::Cow;
use std::io::Write as _;
use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use httparse::{Header, ParserConfig};
use thiserror::Error;

use super::accepted::Accepted;
use super::head::Head;
use super::headers::{HeaderStorage, Single, list_contains, single, values};
use super::lists::Extensions;
use super::refusal::Refusal;
use super::response::{ExtraHeader, HeaderValue, ResponseError, write_line};
use super::token::is_token;
use super::url::{Url, UrlError};
use crate::error::{HandshakeError, ResponseFault};

/// What a client asks a server for. Each part is checked when it is added: none can break a line of the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    url: Url,
    origin: Option<Box<str>>,
    subprotocols: Vec<Box<str>>,
    /// The value of `Sec-WebSocket-Extensions`. Without one, a response that names an extension fails.
    extensions: Option<Box<str>>,
    headers: Vec<ExtraHeader>,
}

impl Offer {
    /// Asks for that URL and nothing else.
    pub const fn new(url: Url) -> Self {
        Self { url, origin: None, subprotocols: Vec::new(), extensions: None, headers: Vec::new() }
    }

    /// Where to.
    pub const fn url(&self) -> &Url {
        &self.url
    }

    /// Offers one more subprotocol. Those offered before are preferred to it.
    ///
    /// # Errors
    /// If it is not a token, or offered already (§4.1).
    pub fn subprotocol(&mut self, name: &str) -> Result<(), RequestError> {
        if !is_token(name.as_bytes()) {
            return Err(RequestError::InvalidSubprotocol);
        }
        if self.subprotocols.iter().any(|offered| **offered == *name) {
            return Err(RequestError::RepeatedSubprotocol);
        }
        self.subprotocols.push(name.into());
        Ok(())
    }

    /// Offers these extensions.
    pub(crate) fn extensions(&mut self, value: HeaderValue<'_>) {
        self.extensions = Some(value.as_str().into());
    }

    /// Says which page or program connects.
    ///
    /// # Errors
    /// If the value has a character that is not visible ASCII.
    pub fn origin(&mut self, origin: &str) -> Result<(), RequestError> {
        if origin.is_empty() || !origin.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(RequestError::InvalidOrigin);
        }
        self.origin = Some(origin.into());
        Ok(())
    }

    /// Adds one header line.
    ///
    /// # Errors
    /// If it could break out of its line, or is one that the library writes: those that [`ExtraHeader`] refuses, `Host`, and
    /// `Origin`, which has a method of its own.
    pub fn header(
        &mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<(), RequestError> {
        let header = ExtraHeader::new(name, value)?;
        if ["Host", "Origin"].iter().any(|reserved| header.name.eq_ignore_ascii_case(reserved)) {
            return Err(ResponseError::ReservedName.into());
        }
        self.headers.push(header);
        Ok(())
    }

    /// Appends the request (§4.1). Allocates only as `out` grows.
    pub fn write(&self, key: &ClientKey, out: &mut Vec<u8>) {
        for part in ["GET ", self.url.target(), " HTTP/1.1\r\nHost: ", self.url.host()] {
            out.extend_from_slice(part.as_bytes());
        }
        if let Some(port) = self.url.unusual_port() {
            write!(out, ":{port}").expect("a Vec takes every byte");
        }
        out.extend_from_slice(
            b"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n",
        );
        write_line(out, "Sec-WebSocket-Key", key.as_str());
        if let Some(origin) = &self.origin {
            write_line(out, "Origin", origin);
        }
        if !self.subprotocols.is_empty() {
            write_line(out, "Sec-WebSocket-Protocol", &self.subprotocols.join(", "));
        }
        if let Some(extensions) = &self.extensions {
            write_line(out, "Sec-WebSocket-Extensions", extensions);
        }
        for ExtraHeader { name, value } in &self.headers {
            write_line(out, name, value);
        }
        out.extend_from_slice(b"\r\n");
    }
}

/// Why a request cannot be sent. The fault is the caller's; nothing changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not a URL that can be connected to.
    #[error(transparent)]
    Url(#[from] UrlError),
    /// The name of a subprotocol is not a token.
    #[error("subprotocol is not a token")]
    InvalidSubprotocol,
    /// A subprotocol is offered already.
    #[error("subprotocol is offered already")]
    RepeatedSubprotocol,
    /// The origin is empty or has a character that is not visible ASCII.
    #[error("origin is not visible ASCII")]
    InvalidOrigin,
    /// A header line cannot be sent.
    #[error(transparent)]
    Header(#[from] ResponseError),
}

/// The nonce of one opening handshake in base64: "randomly selected 16-byte value" (§4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientKey([u8; 24]);

impl ClientKey {
    /// The key of that nonce, which must be another for every handshake.
    #[expect(clippy::missing_panics_doc, reason = "the sizes fit")]
    pub fn new(nonce: [u8; 16]) -> Self {
        let mut text = [0; 24];
        STANDARD.encode_slice(nonce, &mut text).expect("16 bytes are 24 in base64");
        Self(text)
    }

    /// The value of `Sec-WebSocket-Key`.
    #[expect(clippy::missing_panics_doc, reason = "base64 is ASCII")]
    pub fn as_str(&self) -> &str {
        str::from_utf8(&self.0).expect("base64 is ASCII")
    }
}

/// A response head, understood as HTTP.
#[derive(Clone, Copy)]
pub struct ServerResponse<'a> {
    status: u16,
    headers: &'a [Header<'a>],
}

impl<'a> ServerResponse<'a> {
    /// Takes the head apart. HTTP/1.1 only: nothing older can upgrade (RFC 9110 §7.8).
    ///
    /// Allocates if there are more than 32 headers.
    ///
    /// # Errors
    /// If it is not the head of an HTTP/1.1 response.
    pub fn parse<'head>(
        head: Head<'head>,
        storage: &'a mut HeaderStorage<'head>,
    ) -> Result<Self, HandshakeError> {
        let mut parsed = httparse::Response::new(&mut []);
        let result = ParserConfig::default().parse_response_with_uninit_headers(
            &mut parsed,
            head.bytes,
            storage.room_for(head.header_lines),
        );
        match (result, parsed) {
            (
                Ok(httparse::Status::Complete(length)),
                httparse::Response { version: Some(1), code: Some(status), headers, .. },
            ) if length == head.len() => Ok(Self { status, headers }),
            _ => Err(HandshakeError::BadResponse(ResponseFault::Malformed)),
        }
    }

    /// The status code.
    pub const fn status(&self) -> u16 {
        self.status
    }

    /// Whether another response follows it (RFC 9110 §15.2): a client that cannot use this one skips it. A 101 is the last
    /// response of its connection.
    pub const fn is_interim(&self) -> bool {
        self.status / 100 == 1 && self.status != 101
    }

    /// The value of the first line of that name, in any case, without the blanks around it.
    pub fn header(&self, name: &str) -> Option<&'a [u8]> {
        values(self.headers, name).next()
    }

    /// Checks what §4.1 asks of the answer to `offer`:
    ///
    /// * The status is 101. Redirections and demands for authentication are not followed.
    /// * `Upgrade` is present once and is `websocket`; `Connection` lists `Upgrade`.
    /// * `Sec-WebSocket-Accept` is present once and made from our key.
    /// * `Sec-WebSocket-Protocol`, if present, is present once and names a subprotocol that was offered. A server may omit
    ///   it; what that means is up to the application.
    /// * `Sec-WebSocket-Extensions`, if present, follows its grammar, and something was offered.
    ///
    /// # Errors
    /// The first of these that does not hold.
    pub fn check(&self, offer: &Offer, key: &ClientKey) -> Result<Switched<'a>, HandshakeError> {
        if self.status != 101 {
            return Err(HandshakeError::Status(self.status));
        }
        let fault = |fault| Err(HandshakeError::BadResponse(fault));
        if !matches!(single(self.headers, "Upgrade"), Single::One(value) if value.eq_ignore_ascii_case(b"websocket"))
        {
            return fault(ResponseFault::Upgrade);
        }
        if !list_contains(self.headers, "Connection", "upgrade") {
            return fault(ResponseFault::Connection);
        }
        let expected = Accepted::of(key.as_str().as_bytes());
        if !matches!(
            single(self.headers, "Sec-WebSocket-Accept"),
            Single::One(value) if value == expected.accept_key().as_bytes()
        ) {
            return fault(ResponseFault::AcceptKey);
        }
        let subprotocol = match single(self.headers, "Sec-WebSocket-Protocol") {
            Single::None => None,
            Single::One(value) => match str::from_utf8(value) {
                Ok(name) if offer.subprotocols.iter().any(|offered| **offered == *name) => Some(name),
                _ => return fault(ResponseFault::Subprotocol),
            },
            Single::Several => return fault(ResponseFault::Subprotocol),
        };
        let extensions = Extensions::new(self.headers);
        let named = values(self.headers, "Sec-WebSocket-Extensions").next().is_some();
        if !extensions.clone().are_valid() || (named && offer.extensions.is_none()) {
            return fault(ResponseFault::Extensions);
        }
        Ok(Switched { subprotocol, extensions })
    }
}

/// Without header values: a log is no place for cookies.
impl std::fmt::Debug for ServerResponse<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ServerResponse").field("status", &self.status).finish_non_exhaustive()
    }
}

/// What the server agreed to. Frames follow.
#[derive(Clone, Debug)]
pub struct Switched<'a> {
    /// One of those that were offered, or none.
    pub subprotocol: Option<&'a str>,
    /// Those that the server chose. Whether each was offered, with these parameters, is up to the extension.
    pub extensions: Extensions<'a>,
}

impl Refusal {
    /// What a client reports if the scanner refused its server's response.
    pub fn cause_in_response(&self) -> HandshakeError {
        match self.cause() {
            HandshakeError::HeadTooLarge => HandshakeError::HeadTooLarge,
            _ => HandshakeError::BadResponse(ResponseFault::Malformed),
        }
    }
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::super::{HeadLimits, HeadScanner, write_switching_protocols};
    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head: 16_384, max_headers: 100 };
    /// The nonce of §1.3.
    const NONCE: [u8; 16] = *b"the sample nonce";

    fn key() -> ClientKey {
        ClientKey::new(NONCE)
    }

    fn offer() -> Offer {
        let mut offer = Offer::new(Url::parse("ws://server.example.com/chat").expect("a URL"));
        offer.subprotocol("chat").expect("a token");
        offer.subprotocol("superchat").expect("a token");
        offer
    }

    fn judge(bytes: &[u8], offer: &Offer) -> Result<Option<String>, HandshakeError> {
        let head =
            HeadScanner::default().scan(bytes, &LIMITS).map_err(|refusal| refusal.cause_in_response())?;
        let mut storage = HeaderStorage::new();
        let response = ServerResponse::parse(head.expect("a whole head"), &mut storage)?;
        Ok(response.check(offer, &key())?.subprotocol.map(str::to_owned))
    }

    /// The response of §1.3, with one thing changed: lines that begin so are taken out, the new lines put in.
    fn response(without: &str, with: &[&str]) -> Vec<u8> {
        let lines = [
            "HTTP/1.1 101 Switching Protocols",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
        ];
        let kept = lines.iter().filter(|line| without.is_empty() || !line.starts_with(without));
        let (first, rest): (Vec<&str>, Vec<&str>) =
            with.iter().chain(kept).partition(|line| line.starts_with("HTTP/"));
        first
            .iter()
            .chain(&rest)
            .flat_map(|line| [line, "\r\n"])
            .chain(["\r\n"])
            .collect::<String>()
            .into_bytes()
    }

    #[test]
    fn the_example_of_section_1_3() {
        assert_eq!(key().as_str(), "dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(Accepted::of(key().as_str().as_bytes()).accept_key(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn responses_to_an_offer_of_two_subprotocols() {
        use ResponseFault as F;
        let bad = |fault| Err(HandshakeError::BadResponse(fault));
        let status = |status| Err(HandshakeError::Status(status));
        let rows: &[(&str, &str, &[&str], Result<Option<&str>, HandshakeError>)] = &[
            ("as it should be", "", &[], Ok(None)),
            ("the first subprotocol", "", &["Sec-WebSocket-Protocol: chat"], Ok(Some("chat"))),
            ("the second subprotocol", "", &["Sec-WebSocket-Protocol:\tsuperchat "], Ok(Some("superchat"))),
            ("no reason phrase", "HTTP", &["HTTP/1.1 101 "], Ok(None)),
            ("another reason phrase", "HTTP", &["HTTP/1.1 101 Web Socket Protocol Handshake"], Ok(None)),
            ("Upgrade in capitals", "Upgrade", &["UPGRADE: WebSocket"], Ok(None)),
            ("Connection with others", "Connection", &["Connection: keep-alive, upgrade"], Ok(None)),
            ("Connection over two lines", "", &["Connection: keep-alive"], Ok(None)),
            (
                "headers that mean nothing here",
                "",
                &["Server: x", "Date: now", "Content-Length: 0"],
                Ok(None),
            ),
            ("200", "HTTP", &["HTTP/1.1 200 OK"], status(200)),
            ("a redirection", "HTTP", &["HTTP/1.1 302 Found", "Location: ws://elsewhere/"], status(302)),
            ("a demand for a password", "HTTP", &["HTTP/1.1 401 Unauthorized"], status(401)),
            ("426", "HTTP", &["HTTP/1.1 426 Upgrade Required"], status(426)),
            ("503", "HTTP", &["HTTP/1.1 503 Service Unavailable"], status(503)),
            ("an interim answer", "HTTP", &["HTTP/1.1 100 Continue"], status(100)),
            ("a status of four digits", "HTTP", &["HTTP/1.1 1010 X"], bad(F::Malformed)),
            ("a status of two digits", "HTTP", &["HTTP/1.1 10"], bad(F::Malformed)),
            ("HTTP/1.0", "HTTP", &["HTTP/1.0 101 Switching Protocols"], bad(F::Malformed)),
            ("HTTP/2", "HTTP", &["HTTP/2 101"], bad(F::Malformed)),
            ("a line without a colon", "", &["Server"], bad(F::Malformed)),
            ("a blank before the colon", "", &["Server : x"], bad(F::Malformed)),
            ("no Upgrade", "Upgrade", &[], bad(F::Upgrade)),
            ("two Upgrades", "", &["Upgrade: websocket"], bad(F::Upgrade)),
            ("another upgrade", "Upgrade", &["Upgrade: h2c"], bad(F::Upgrade)),
            ("a list of upgrades", "Upgrade", &["Upgrade: websocket, h2c"], bad(F::Upgrade)),
            ("no Connection", "Connection", &[], bad(F::Connection)),
            ("Connection: close", "Connection", &["Connection: close"], bad(F::Connection)),
            ("no accept key", "Sec-WebSocket-A", &[], bad(F::AcceptKey)),
            ("an empty accept key", "Sec-WebSocket-A", &["Sec-WebSocket-Accept:"], bad(F::AcceptKey)),
            (
                "the accept key of another key",
                "Sec-WebSocket-A",
                &["Sec-WebSocket-Accept: HSmrc0sMlYUkAGmm5OPpG2HaGWk="],
                bad(F::AcceptKey),
            ),
            (
                "the accept key in other capitals",
                "Sec-WebSocket-A",
                &["Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
                bad(F::AcceptKey),
            ),
            (
                "our own key sent back",
                "Sec-WebSocket-A",
                &["Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ=="],
                bad(F::AcceptKey),
            ),
            (
                "the accept key twice",
                "",
                &["Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo="],
                bad(F::AcceptKey),
            ),
            ("a subprotocol that was not offered", "", &["Sec-WebSocket-Protocol: x"], bad(F::Subprotocol)),
            ("one in other capitals", "", &["Sec-WebSocket-Protocol: Chat"], bad(F::Subprotocol)),
            ("two at once", "", &["Sec-WebSocket-Protocol: chat, superchat"], bad(F::Subprotocol)),
            (
                "two lines",
                "",
                &["Sec-WebSocket-Protocol: chat", "Sec-WebSocket-Protocol: chat"],
                bad(F::Subprotocol),
            ),
            ("an empty one", "", &["Sec-WebSocket-Protocol:"], bad(F::Subprotocol)),
            ("one that is not UTF-8", "", &["Sec-WebSocket-Protocol: \u{e4}"], bad(F::Subprotocol)),
            ("an extension", "", &["Sec-WebSocket-Extensions: permessage-deflate"], bad(F::Extensions)),
            ("an empty list of extensions", "", &["Sec-WebSocket-Extensions:"], bad(F::Extensions)),
        ];
        for (name, without, with, expected) in rows {
            let expected = expected.map(|subprotocol| subprotocol.map(str::to_owned));
            assert_eq!(judge(&response(without, with), &offer()), expected, "{name}");
        }
    }

    #[test]
    fn without_subprotocols_or_with_extensions_offered() {
        let plain = Offer::new(Url::parse("ws://a/").expect("a URL"));
        let chat = response("", &["Sec-WebSocket-Protocol: chat"]);
        assert_eq!(judge(&chat, &plain), Err(HandshakeError::BadResponse(ResponseFault::Subprotocol)));
        let deflate = Offer { extensions: Some("permessage-deflate".into()), ..plain };
        assert_eq!(
            judge(&response("", &["Sec-WebSocket-Extensions: permessage-deflate"]), &deflate),
            Ok(None)
        );
        assert_eq!(
            judge(&response("", &["Sec-WebSocket-Extensions: permessage-deflate;"]), &deflate),
            Err(HandshakeError::BadResponse(ResponseFault::Extensions)),
            "the grammar holds for what was offered too"
        );
    }

    #[test]
    fn heads_that_the_scanner_does_not_take() {
        let malformed = Err(HandshakeError::BadResponse(ResponseFault::Malformed));
        let endless = vec![b'H'; 20_000];
        let rows: &[(&str, &[u8], Result<Option<String>, HandshakeError>)] = &[
            ("a TLS alert", &[0x15, 3, 3, 0, 2, 2, 10], malformed.clone()),
            ("bare LFs", b"HTTP/1.1 101 X\nUpgrade: websocket\n\n", malformed.clone()),
            ("a folded line", b"HTTP/1.1 101 X\r\nA: b\r\n c\r\n\r\n", malformed.clone()),
            ("an empty line in front", b"\r\nHTTP/1.1 101 X\r\n\r\n", malformed.clone()),
            ("another protocol's greeting", b"SSH-2.0-OpenSSH_9.6\r\n\r\n", malformed),
            ("a head without an end", &endless, Err(HandshakeError::HeadTooLarge)),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(judge(bytes, &offer()), *expected, "{name}");
        }
    }

    #[test]
    fn requests_on_the_wire() {
        let mut full = Offer::new(Url::parse("ws://server.example.com:9001/chat?x=1").expect("a URL"));
        full.origin("http://example.com").expect("an origin");
        full.subprotocol("chat").expect("a token");
        full.subprotocol("superchat").expect("a token");
        full.header("Authorization", "Bearer x").expect("a header");
        let rows = [
            (
                "everything",
                full,
                "GET /chat?x=1 HTTP/1.1\r\nHost: server.example.com:9001\r\nUpgrade: websocket\r\n\
                 Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                 Origin: http://example.com\r\nSec-WebSocket-Protocol: chat, superchat\r\n\
                 Authorization: Bearer x\r\n\r\n",
            ),
            (
                "an address and nothing else",
                Offer::new(Url::parse("ws://[::1]").expect("a URL")),
                "GET / HTTP/1.1\r\nHost: [::1]\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                 Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n",
            ),
        ];
        for (name, offer, expected) in rows {
            let mut out = vec![];
            offer.write(&key(), &mut out);
            assert_eq!(String::from_utf8(out).expect("ASCII"), expected, "{name}");
        }
    }

    #[test]
    fn what_cannot_be_offered() {
        let mut offer = offer();
        let reserved = Err(RequestError::Header(ResponseError::ReservedName));
        assert_eq!(offer.subprotocol("chat"), Err(RequestError::RepeatedSubprotocol));
        for name in ["", "a b", "a,b", "chat/2", "a\r\nb"] {
            assert_eq!(offer.subprotocol(name), Err(RequestError::InvalidSubprotocol), "{name:?}");
        }
        for name in ["", "http://a b", "a\r\nX: y", "http://zoë.example"] {
            assert_eq!(offer.origin(name), Err(RequestError::InvalidOrigin), "{name:?}");
        }
        for name in ["host", "Origin", "Upgrade", "Sec-WebSocket-Key", "Content-Length"] {
            assert_eq!(offer.header(name, "x"), reserved, "{name:?}");
        }
        assert_eq!(offer.header("X", "a\nb"), Err(RequestError::Header(ResponseError::InvalidValue)));
    }

    proptest! {
        /// Our own server takes what our client asks for, and the client takes the server's answer.
        #[test]
        fn both_sides_agree(nonce: [u8; 16], path in "/[a-z0-9/]{0,20}", names in proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3)) {
            let key = ClientKey::new(nonce);
            let mut offer = Offer::new(Url::parse(&format!("ws://localhost:9001{path}?q")).expect("a URL"));
            for name in &names {
                offer.subprotocol(name).expect("a token");
            }
            let mut bytes = vec![];
            offer.write(&key, &mut bytes);
            let head = HeadScanner::default().scan(&bytes, &LIMITS).expect("valid").expect("whole");
            let mut storage = HeaderStorage::new();
            let request = head.parse(&mut storage).expect("a request");
            prop_assert_eq!((request.path(), request.query(), request.host()), (&*path, Some("q"), Some("localhost:9001")));
            let accepted = Accepted::check(&request).expect("a handshake");
            let chosen = request.subprotocols().last();
            let mut answer = vec![];
            write_switching_protocols(&mut answer, &accepted, chosen, None, &[]);
            let head = HeadScanner::default().scan(&answer, &LIMITS).expect("valid").expect("whole");
            let mut storage = HeaderStorage::new();
            let response = ServerResponse::parse(head, &mut storage).expect("a response");
            let switched = response.check(&offer, &key).expect("what was asked for");
            prop_assert_eq!(switched.subprotocol, names.last().copied());
        }

        /// One byte changed anywhere: refused, or still an answer to this key.
        #[test]
        fn one_wrong_byte_does_not_panic(place in 0..120_usize, byte: u8) {
            let mut bytes = response("", &["Sec-WebSocket-Protocol: chat"]);
            let length = bytes.len();
            bytes[place % length] = byte;
            if let Ok(Some(head)) = HeadScanner::default().scan(&bytes, &LIMITS) {
                let mut storage = HeaderStorage::new();
                let _ = ServerResponse::parse(head, &mut storage).and_then(|response| response.check(&offer(), &key()).map(drop));
            }
        }
    }
}
