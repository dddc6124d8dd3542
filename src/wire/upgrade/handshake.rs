//! What RFC 6455 asks of a request that wants to become a WebSocket (§4.2.1). No answer is written here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::accepted::Accepted;
use super::headers::{Single, list_contains, single};
use super::refusal::Refusal;
use super::request::{BodyLength, Request};

impl Accepted {
    /// Checks what RFC 6455 §4.2.1 asks of a handshake:
    ///
    /// * `Upgrade` lists `websocket`, or it is 426.
    /// * There is no body: it would be read as frames.
    /// * The method is GET, or it is 405; `Connection` lists `Upgrade`.
    /// * `Sec-WebSocket-Version` is present once (else 400) and 13 (else 426).
    /// * `Sec-WebSocket-Key` is present once: 16 bytes in base64 with its padding.
    /// * `Sec-WebSocket-Protocol` and `Sec-WebSocket-Extensions`, if present, follow their grammar.
    ///
    /// Where no status is named it is 400. Hashes the key (RFC 6455 §4.2.2, step 5.4). Allocates if more than a few
    /// subprotocols are offered.
    pub fn check(request: &Request<'_>) -> Result<Self, Refusal> {
        if !request.wants_websocket() {
            return Err(Refusal::NOT_AN_UPGRADE);
        }
        if request.body_length() != BodyLength::Zero {
            return Err(Refusal::BODY);
        }
        if !request.http_1_1 {
            return Err(Refusal::OLD_HTTP);
        }
        if request.method != "GET" {
            return Err(Refusal::METHOD);
        }
        if !list_contains(request.headers, "Connection", "upgrade") {
            return Err(Refusal::CONNECTION);
        }
        // Before the key: another version may well have another kind of key.
        match single(request.headers, "Sec-WebSocket-Version") {
            Single::One(b"13") => {}
            Single::One(_) => return Err(Refusal::VERSION),
            Single::None | Single::Several => return Err(Refusal::VERSION_LINES),
        }
        let Single::One(key) = single(request.headers, "Sec-WebSocket-Key") else {
            return Err(Refusal::KEY);
        };
        if !is_sixteen_bytes(key) {
            return Err(Refusal::KEY);
        }
        if !request.subprotocols().are_valid() {
            return Err(Refusal::SUBPROTOCOLS);
        }
        if !request.extensions().are_valid() {
            return Err(Refusal::EXTENSIONS);
        }
        Ok(Self::of(key))
    }
}

/// Base64 of exactly 16 bytes, in its one canonical form.
fn is_sixteen_bytes(key: &[u8]) -> bool {
    // Three bytes for four characters: the decoder wants room for the padding too.
    let mut decoded = [0; 18];
    key.len() == 24 && STANDARD.decode_slice(key, &mut decoded) == Ok(16)
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::super::request::tests::{LIMITS, head, with_request};
    use super::super::{ExtraHeader, HeadScanner, HeaderStorage, HeaderValue, write_switching_protocols};
    use super::*;

    /// What a client sends, with one thing changed: lines of that name are taken out, the new lines put in.
    fn handshake(without: &str, with: &[&str]) -> Vec<u8> {
        let lines = [
            "GET /chat HTTP/1.1",
            "Host: server.example.com",
            "Upgrade: websocket",
            "Connection: Upgrade",
            "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
            "Sec-WebSocket-Version: 13",
        ];
        let kept = lines.into_iter().filter(|line| without.is_empty() || !line.starts_with(without));
        if without == "GET" {
            head(&with.iter().copied().chain(kept).collect::<Vec<_>>())
        } else {
            head(&kept.chain(with.iter().copied()).collect::<Vec<_>>())
        }
    }

    #[test]
    fn the_example_of_section_1_3() {
        let bytes = handshake("", &["Origin: http://example.com", "Sec-WebSocket-Protocol: chat, superchat"]);
        let written = with_request(&bytes, |request| {
            assert!(request.is_upgrade());
            assert_eq!(request.origin(), Some("http://example.com"));
            let accepted = Accepted::check(request)?;
            assert_eq!(accepted.accept_key(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
            assert_eq!(request.subprotocol("Chat"), None);
            let extra = ExtraHeader::new("X-Node", "7").expect("allowed");
            let extensions = HeaderValue::new("foo; bar=1").expect("allowed");
            let mut out = vec![];
            write_switching_protocols(&mut out, &accepted, None, None, &[]);
            out.push(b'|');
            write_switching_protocols(
                &mut out,
                &accepted,
                request.subprotocol("chat"),
                Some(extensions),
                &[extra],
            );
            Ok(out)
        });
        let expected = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n|\
            HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
            Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
            Sec-WebSocket-Extensions: foo; bar=1\r\nX-Node: 7\r\n\r\n";
        assert_eq!(written.map(|bytes| String::from_utf8(bytes).expect("ASCII")), Ok(expected.to_owned()));
    }

    #[test]
    fn handshakes() {
        let rows: &[(&str, &str, &[&str], Result<(), Refusal>)] = &[
            ("as it should be", "", &[], Ok(())),
            ("names and tokens in other cases", "Upgrade", &["UPGRADE: WebSocket"], Ok(())),
            ("Upgrade lists others", "Upgrade", &["Upgrade: h2c, websocket"], Ok(())),
            ("Upgrade on two lines", "Upgrade", &["Upgrade: h2c", "Upgrade: websocket"], Ok(())),
            ("no Upgrade", "Upgrade", &[], Err(Refusal::NOT_AN_UPGRADE)),
            ("Upgrade to something else", "Upgrade", &["Upgrade: h2c"], Err(Refusal::NOT_AN_UPGRADE)),
            (
                "Upgrade to something like it",
                "Upgrade",
                &["Upgrade: websocket/13"],
                Err(Refusal::NOT_AN_UPGRADE),
            ),
            ("HTTP/1.0", "GET", &["GET / HTTP/1.0"], Err(Refusal::OLD_HTTP)),
            ("POST", "GET", &["POST / HTTP/1.1"], Err(Refusal::METHOD)),
            ("HEAD", "GET", &["HEAD / HTTP/1.1"], Err(Refusal::METHOD)),
            ("a method in lower case", "GET", &["get / HTTP/1.1"], Err(Refusal::METHOD)),
            ("what Firefox sends", "Connection", &["Connection: keep-alive, Upgrade"], Ok(())),
            (
                "Connection on two lines",
                "Connection",
                &["Connection: keep-alive", "Connection: upgrade"],
                Ok(()),
            ),
            ("no Connection", "Connection", &[], Err(Refusal::CONNECTION)),
            ("Connection without Upgrade", "Connection", &["Connection: close"], Err(Refusal::CONNECTION)),
            ("no version", "Sec-WebSocket-V", &[], Err(Refusal::VERSION_LINES)),
            ("two versions", "", &["Sec-WebSocket-Version: 8"], Err(Refusal::VERSION_LINES)),
            ("the version twice", "", &["Sec-WebSocket-Version: 13"], Err(Refusal::VERSION_LINES)),
            ("version 8", "Sec-WebSocket-V", &["Sec-WebSocket-Version: 8"], Err(Refusal::VERSION)),
            ("version 777", "Sec-WebSocket-V", &["Sec-WebSocket-Version: 777"], Err(Refusal::VERSION)),
            ("version 013", "Sec-WebSocket-V", &["Sec-WebSocket-Version: 013"], Err(Refusal::VERSION)),
            (
                "a list of versions",
                "Sec-WebSocket-V",
                &["Sec-WebSocket-Version: 13, 8"],
                Err(Refusal::VERSION),
            ),
            ("version 13 with blanks", "Sec-WebSocket-V", &["Sec-WebSocket-Version: \t 13 \t"], Ok(())),
            ("no key", "Sec-WebSocket-K", &[], Err(Refusal::KEY)),
            ("two keys", "", &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="], Err(Refusal::KEY)),
            ("another key", "Sec-WebSocket-K", &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA=="], Ok(())),
            ("an empty key", "Sec-WebSocket-K", &["Sec-WebSocket-Key:"], Err(Refusal::KEY)),
            ("15 bytes", "Sec-WebSocket-K", &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4P"], Err(Refusal::KEY)),
            (
                "17 bytes",
                "Sec-WebSocket-K",
                &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEBE="],
                Err(Refusal::KEY),
            ),
            (
                "18 bytes",
                "Sec-WebSocket-K",
                &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEBES"],
                Err(Refusal::KEY),
            ),
            (
                "no padding",
                "Sec-WebSocket-K",
                &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEA"],
                Err(Refusal::KEY),
            ),
            (
                "bits after the end",
                "Sec-WebSocket-K",
                &["Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEB=="],
                Err(Refusal::KEY),
            ),
            (
                "letters of another base64",
                "Sec-WebSocket-K",
                &["Sec-WebSocket-Key: -_IDBAUGBwgJCgsMDQ4PEA=="],
                Err(Refusal::KEY),
            ),
            ("subprotocols", "", &["Sec-WebSocket-Protocol: a, b", "Sec-WebSocket-Protocol: c"], Ok(())),
            ("a subprotocol twice", "", &["Sec-WebSocket-Protocol: a, a"], Err(Refusal::SUBPROTOCOLS)),
            (
                "an extension",
                "",
                &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"],
                Ok(()),
            ),
            (
                "bad window bits are a matter of negotiation",
                "",
                &["Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=99"],
                Ok(()),
            ),
            (
                "half an extension",
                "",
                &["Sec-WebSocket-Extensions: permessage-deflate;"],
                Err(Refusal::EXTENSIONS),
            ),
            ("no bytes to come", "", &["Content-Length: 0"], Ok(())),
            ("a body", "", &["Content-Length: 4"], Err(Refusal::BODY)),
            ("a chunked body", "", &["Transfer-Encoding: chunked"], Err(Refusal::BODY)),
        ];
        for (name, without, with, expected) in rows {
            let found =
                with_request(&handshake(without, with), |request| Accepted::check(request).map(|_| ()));
            assert_eq!(found, *expected, "{name}");
        }
    }

    #[test]
    fn what_is_an_upgrade() {
        let rows: &[(&str, Vec<u8>, bool)] = &[
            ("a handshake", handshake("", &[]), true),
            ("a broken one still asks", handshake("Sec-WebSocket-K", &[]), true),
            ("a plain GET", handshake("Upgrade", &[]), false),
            ("HTTP/1.0 cannot ask", handshake("GET", &["GET / HTTP/1.0"]), false),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(with_request(bytes, |request| Ok(request.is_upgrade())), Ok(*expected), "{name}");
        }
    }

    proptest! {
        /// One byte changed anywhere: it is refused, or it is still a handshake with a key of 16 bytes.
        #[test]
        fn one_wrong_byte_does_not_panic(place in 0..200_usize, byte: u8) {
            let mut bytes = handshake("", &["Sec-WebSocket-Extensions: a; b=\"c\"", "Sec-WebSocket-Protocol: a, b"]);
            let length = bytes.len();
            bytes[place % length] = byte;
            let Ok(Some(head)) = HeadScanner::default().scan(&bytes, &LIMITS) else { return Ok(()) };
            let mut storage = HeaderStorage::new();
            if let Ok(request) = head.parse(&mut storage) && let Ok(accepted) = Accepted::check(&request) {
                prop_assert!(request.is_upgrade());
                prop_assert_eq!(accepted.accept_key().len(), 28);
            }
        }
    }
}
