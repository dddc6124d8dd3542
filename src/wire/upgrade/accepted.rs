//! The answer to a client's key (§4.2.2, step 5.4): the server makes it, the client compares it. No header enters.

use std::str;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};

/// Appended to the client's key before it is hashed (RFC 6455 §1.3): a server that does not know WebSocket would not do so.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// A handshake that follows RFC 6455 §4.2.1: what a 101 is made from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    accept_key: [u8; 28],
}

impl Accepted {
    /// RFC 6455 §4.2.2, step 5.4: base64 of SHA-1 of the key as it was sent and the GUID.
    pub(super) fn of(key: &[u8]) -> Self {
        let digest = Sha1::new().chain_update(key).chain_update(GUID).finalize();
        let mut accept_key = [0; 28];
        STANDARD.encode_slice(digest, &mut accept_key).expect("20 bytes are 28 in base64");
        Self { accept_key }
    }

    /// The value of `Sec-WebSocket-Accept`.
    #[expect(clippy::missing_panics_doc, reason = "base64 is ASCII")]
    pub fn accept_key(&self) -> &str {
        str::from_utf8(&self.accept_key).expect("base64 is ASCII")
    }
}
