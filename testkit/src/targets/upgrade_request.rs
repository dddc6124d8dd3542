//! Any bytes as a request head: refused or understood, the same for every cut. What is accepted has what §4.2.1 asks
//! for, in the eyes of another parser; what is answered is one HTTP head.

use adjourn::{
    http::{HeaderValue, Request},
    wire::upgrade::{Accepted, HeadLimits, HeadScanner, HeaderStorage, Refusal, write_switching_protocols},
};
use tungstenite::handshake::derive_accept_key;

use super::{
    head::PlainHead,
    input::{Input, pieces},
    seen,
};

const LIMITS: HeadLimits = HeadLimits { max_head: 4096, max_headers: 50 };

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let cuts = input.cuts();
    let bytes = input.rest();
    let length =
        |scanner: &mut HeadScanner, bytes| scanner.scan(bytes, &LIMITS).map(|head| head.map(|h| h.len()));
    let whole = length(&mut HeadScanner::default(), bytes);

    let (mut scanner, mut here, mut cut) = (HeadScanner::default(), 0, Ok(None));
    for piece in pieces(bytes, &cuts) {
        here += piece.len();
        if cut == Ok(None) {
            cut = length(&mut scanner, &bytes[..here]);
        }
    }
    assert_eq!(whole, cut, "pieces of {cuts:?}");

    let head = match HeadScanner::default().scan(bytes, &LIMITS) {
        Ok(Some(head)) => head,
        Ok(None) => return,
        Err(refusal) => return refuse(refusal),
    };
    assert!(bytes[..head.len()].ends_with(b"\r\n\r\n"));
    let mut storage = HeaderStorage::new();
    match head.parse(&mut storage) {
        Err(refusal) => refuse(refusal),
        Ok(request) => judge(bytes, &request),
    }
}

fn judge(bytes: &[u8], request: &Request<'_>) {
    let plain = PlainHead::read(bytes).expect("what is understood has lines with colons");
    assert!(request.path().starts_with('/') || request.path().is_empty());
    assert_eq!(request.host().map(str::as_bytes), plain.value("host"));
    assert_eq!(request.origin().map(str::as_bytes), plain.value("origin"));
    assert!(request.headers().all(|(name, _)| !name.is_empty()));
    let (tokens, extensions) = (request.subprotocols().count(), request.extensions().count());
    assert!(tokens + extensions <= bytes.len());

    let accepted = match Accepted::check(request) {
        Err(refusal) => return refuse(refusal),
        Ok(accepted) => accepted,
    };
    assert!(plain.first.starts_with(b"GET ") && plain.first.ends_with(b" HTTP/1.1"));
    assert!(plain.lists("upgrade", "websocket") && plain.lists("connection", "upgrade"));
    assert_eq!(plain.value("sec-websocket-version"), Some(&b"13"[..]));
    let key = plain.value("sec-websocket-key").expect("a key");
    assert!(is_sixteen_bytes(key), "{}", key.escape_ascii());
    assert_eq!(accepted.accept_key(), derive_accept_key(key));
    assert!(plain.values("content-length").iter().all(|value| *value == b"0"));
    assert!(plain.values("transfer-encoding").is_empty());
    let offered: Vec<_> = request.subprotocols().map(|token| token.as_str().as_bytes()).collect();
    assert_eq!(offered, plain.list("sec-websocket-protocol"));

    let (mut answer, extension) = (Vec::new(), HeaderValue::new("foo; bar=1").expect("a value"));
    write_switching_protocols(&mut answer, &accepted, request.subprotocols().last(), Some(extension), &[]);
    let ends = answer.windows(4).filter(|window| window == b"\r\n\r\n").count();
    assert_eq!(ends, 1, "nothing from outside ends the head");
    let answer = PlainHead::read(&answer).expect("lines");
    assert_eq!(answer.value("sec-websocket-protocol"), offered.last().copied());
}

fn refuse(refusal: Refusal) {
    let mut answer = Vec::new();
    refusal.write(&mut answer);
    assert!(answer.starts_with(b"HTTP/1.1 4") || answer.starts_with(b"HTTP/1.1 505 "));
    seen::note("Refusal", || refusal.text().trim().replace(' ', "_"));
}

/// Base64 of 16 bytes: 22 letters, the last of which has four bits that are not used, and two signs of padding.
fn is_sixteen_bytes(key: &[u8]) -> bool {
    let letter = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/');
    key.len() == 24 && key.ends_with(b"==") && key[..22].iter().all(letter) && b"AQgw".contains(&key[21])
}
