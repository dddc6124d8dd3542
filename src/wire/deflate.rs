//! permessage-deflate (RFC 7692): what both sides agree on, and what RSV1 means. §7 without a name is RFC 7692's.
//!
//! ```text
//!   client                                     server
//!   offer() ──── Sec-WebSocket-Extensions ───> accept() ── parameters
//!   check_answer() <──── the 101's line ────────┘
//!        └── parameters
//! ```
//!
//! The codec is `flate2` on `zlib-rs`, which is pure Rust; see [`codec`] for why.

use std::fmt;

use thiserror::Error;

use super::upgrade::{Extension, Parameters};
use crate::config::Deflate;

pub mod codec;

const NAME: &str = "permessage-deflate";
const SERVER_NO_TAKEOVER: &str = "server_no_context_takeover";
const CLIENT_NO_TAKEOVER: &str = "client_no_context_takeover";
const SERVER_BITS: &str = "server_max_window_bits";
const CLIENT_BITS: &str = "client_max_window_bits";

/// The largest window, and so the one that holds where nothing else is said (§7.1.2).
const MAX_BITS: u8 = 15;

/// What a connection's two sides agreed on (§7.1). A window of `n` bits is 2^n bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct DeflateParameters {
    /// The server begins every message with an empty window.
    pub server_no_context_takeover: bool,
    /// The client begins every message with an empty window.
    pub client_no_context_takeover: bool,
    /// The server's window: 8 to 15.
    pub server_max_window_bits: u8,
    /// The client's window: 8 to 15.
    pub client_max_window_bits: u8,
}

/// As the 101 would say it, without the windows that are as large as they can be.
impl fmt::Display for DeflateParameters {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let smaller = |bits| (bits < MAX_BITS).then_some(bits);
        let line = Line {
            server_no_takeover: self.server_no_context_takeover,
            client_no_takeover: self.client_no_context_takeover,
            server_bits: smaller(self.server_max_window_bits),
            client_bits: smaller(self.client_max_window_bits).map(Some),
        };
        line.fmt(f)
    }
}

/// The server's side: takes the first offer that it can, and says how the 101 answers it. `None` declines them all,
/// which is no failure: the connection goes on uncompressed. Allocates the answer.
pub fn accept<'a>(
    settings: &Deflate,
    offers: impl IntoIterator<Item = Extension<'a>>,
) -> Option<(DeflateParameters, String)> {
    offers
        .into_iter()
        .filter(|offer| offer.name == NAME)
        .find_map(|offer| Line::read(offer.parameters()).ok()?.accept(settings))
}

/// The client's side: the value of the request's `Sec-WebSocket-Extensions`. Allocates.
pub fn offer(settings: &Deflate) -> String {
    let settings = settings.clamped();
    Line {
        server_no_takeover: settings.server_no_context_takeover,
        client_no_takeover: settings.client_no_context_takeover,
        server_bits: (settings.server_max_window_bits < MAX_BITS).then_some(settings.server_max_window_bits),
        // Always there, or the server could not ask for less (§7.1.2.2).
        client_bits: Some(
            (settings.client_max_window_bits < MAX_BITS).then_some(settings.client_max_window_bits),
        ),
    }
    .to_string()
}

/// The client's side: holds the 101 against what [`offer`] made of the same settings. `None`: the server declined.
///
/// # Errors
/// If the answer is not one to that offer: the handshake has failed (§7.1, RFC 6455 §4.1).
pub fn check_answer<'a>(
    settings: &Deflate,
    answer: impl IntoIterator<Item = Extension<'a>>,
) -> Result<Option<DeflateParameters>, AnswerError> {
    let mut answer = answer.into_iter();
    let Some(extension) = answer.next() else { return Ok(None) };
    if extension.name != NAME || answer.next().is_some() {
        return Err(AnswerError::NotOffered);
    }
    Line::read(extension.parameters())?.check(&settings.clamped()).map(Some)
}

/// Why a server's answer to an offer fails the handshake.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum AnswerError {
    /// An extension that was not offered, or more than one.
    #[error("the server answers with an extension that was not offered")]
    NotOffered,
    /// A parameter that is unknown, is there twice, or has no value that it may have (§7.1).
    #[error("the server's answer has an unknown, a repeated or an ill-valued parameter")]
    Malformed,
    /// The server did not agree to something that was a condition of the offer, or claims more than was offered.
    #[error("the server's answer goes beyond the offer")]
    BeyondOffer,
}

/// The parameters of one offer or answer, each in a form that §7.1 allows.
#[expect(clippy::option_option, reason = "not there, there without a value, with one")]
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    server_no_takeover: bool,
    client_no_takeover: bool,
    server_bits: Option<u8>,
    /// In an offer it may have no value: "ask what you like".
    client_bits: Option<Option<u8>>,
}

impl Line {
    /// §7.1: a parameter that is unknown, is there twice, or has a value it must not have spoils the whole.
    fn read(parameters: Parameters<'_>) -> Result<Self, AnswerError> {
        let mut line = Self::default();
        for (name, value) in parameters {
            let value = value.as_deref();
            let fresh = match name {
                SERVER_NO_TAKEOVER if value.is_none() => {
                    !std::mem::replace(&mut line.server_no_takeover, true)
                }
                CLIENT_NO_TAKEOVER if value.is_none() => {
                    !std::mem::replace(&mut line.client_no_takeover, true)
                }
                SERVER_BITS => {
                    let bits = value.and_then(window_bits).ok_or(AnswerError::Malformed)?;
                    line.server_bits.replace(bits).is_none()
                }
                CLIENT_BITS => {
                    let bits = value.map(|value| window_bits(value).ok_or(AnswerError::Malformed));
                    line.client_bits.replace(bits.transpose()?).is_none()
                }
                _ => false,
            };
            if !fresh {
                return Err(AnswerError::Malformed);
            }
        }
        Ok(line)
    }

    /// The answer to this offer, if the settings allow one.
    fn accept(self, settings: &Deflate) -> Option<(DeflateParameters, String)> {
        let settings = settings.clamped();
        // §7.1.2.1: the same or less than the offer; where it says nothing, a server may still limit itself.
        let server = self.server_bits.unwrap_or(MAX_BITS).min(settings.server_max_window_bits);
        let client = match self.client_bits {
            Some(hint) => hint.unwrap_or(MAX_BITS).min(settings.client_max_window_bits),
            None if settings.client_max_window_bits < MAX_BITS => return None,
            None => MAX_BITS,
        };
        let answer = Self {
            server_no_takeover: self.server_no_takeover || settings.server_no_context_takeover,
            // A client that hints at it (§7.1.1.2) is taken at its word: then its window need not be kept.
            client_no_takeover: self.client_no_takeover || settings.client_no_context_takeover,
            server_bits: (self.server_bits.is_some() || server < MAX_BITS).then_some(server),
            // §7.1.2.2: only if it was offered.
            client_bits: self.client_bits.and((client < MAX_BITS).then_some(Some(client))),
        };
        let agreed = DeflateParameters {
            server_no_context_takeover: answer.server_no_takeover,
            client_no_context_takeover: answer.client_no_takeover,
            server_max_window_bits: server,
            client_max_window_bits: client,
        };
        Some((agreed, answer.to_string()))
    }

    /// This answer, held against what was offered by `settings`.
    fn check(self, settings: &Deflate) -> Result<DeflateParameters, AnswerError> {
        let server = match self.server_bits {
            Some(bits) if bits <= settings.server_max_window_bits => bits,
            None if settings.server_max_window_bits == MAX_BITS => MAX_BITS,
            _ => return Err(AnswerError::BeyondOffer),
        };
        let client = match self.client_bits {
            Some(Some(bits)) if bits <= settings.client_max_window_bits => bits,
            Some(Some(_)) => return Err(AnswerError::BeyondOffer),
            // §7.1.2.2: without a value it is an offer, not an answer.
            Some(None) => return Err(AnswerError::Malformed),
            None => settings.client_max_window_bits,
        };
        if settings.server_no_context_takeover && !self.server_no_takeover {
            return Err(AnswerError::BeyondOffer);
        }
        Ok(DeflateParameters {
            server_no_context_takeover: self.server_no_takeover,
            client_no_context_takeover: self.client_no_takeover || settings.client_no_context_takeover,
            server_max_window_bits: server,
            client_max_window_bits: client,
        })
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(NAME)?;
        let flags =
            [(self.server_no_takeover, SERVER_NO_TAKEOVER), (self.client_no_takeover, CLIENT_NO_TAKEOVER)];
        for (_, name) in flags.into_iter().filter(|(set, _)| *set) {
            write!(f, "; {name}")?;
        }
        let windows = [(self.server_bits.map(Some), SERVER_BITS), (self.client_bits, CLIENT_BITS)];
        for (bits, name) in windows {
            match bits {
                Some(Some(bits)) => write!(f, "; {name}={bits}")?,
                Some(None) => write!(f, "; {name}")?,
                None => {}
            }
        }
        Ok(())
    }
}

/// §7.1.2: "a decimal integer value without leading zeroes between 8 to 15".
fn window_bits(value: &str) -> Option<u8> {
    match value {
        "8" => Some(8),
        "9" => Some(9),
        "10" => Some(10),
        "11" => Some(11),
        "12" => Some(12),
        "13" => Some(13),
        "14" => Some(14),
        "15" => Some(15),
        _ => None,
    }
}
