//! Names of sessions and sockets.

use std::fmt;

use base64::engine::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as URL_SAFE_NO_PAD;

use crate::secret::Secret;

/// 120 random bits as 20 characters of URL-safe base64: a `sid`, a socket's id or a `pid`. `Debug` shows 6 of them.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Sid([u8; 20]);

impl Sid {
    /// The name that these bits give.
    pub fn from_random(bits: [u8; 15]) -> Self {
        let mut text = [0; 20];
        let written = URL_SAFE_NO_PAD.encode_slice(bits, &mut text);
        debug_assert_eq!(written, Ok(20), "15 bytes are 20 characters");
        Self(text)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

impl fmt::Debug for Sid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Secret(self.as_str()).fmt(f)
    }
}
