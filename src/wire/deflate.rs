//! permessage-deflate (RFC 7692): what both sides agree on, and what RSV1 means. §7 without a name is RFC 7692's.
//!
//! ```text
//!   client                                     server
//!   offer() ──── Sec-WebSocket-Extensions ───> accept() ── parameters
//!   check_answer() <──── the 101's line ────────┘
//!        └── parameters
//! ```
//!
//! The codec is `zlib-rs`, which is pure Rust; see [`codec`] for why. No message enters here.

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

/// The largest window, which is the default of §7.1.2.
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

/// As in the 101, without the windows of the largest size.
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

/// The server's side: accepts the first offer that it can, and returns the line of the 101. `None` declines them all,
/// which is no failure: the connection is not compressed. Allocates the answer.
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

/// The client's side: checks the 101 against what [`offer`] made of the same settings. `None`: the server declined.
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
    Line::read(extension.parameters())?.check(settings).map(Some)
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
    /// In an offer it may have no value: any window is accepted.
    client_bits: Option<Option<u8>>,
}

impl Line {
    /// §7.1: a parameter that is unknown, repeated, or has an invalid value makes all of them invalid.
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
        // §7.1.2.1: the same or less than the offer; without a value in it a server may still limit itself.
        let server = self.server_bits.unwrap_or(MAX_BITS).min(settings.server_max_window_bits);
        let client = match self.client_bits {
            Some(hint) => hint.unwrap_or(MAX_BITS).min(settings.client_max_window_bits),
            None if settings.client_max_window_bits < MAX_BITS => return None,
            None => MAX_BITS,
        };
        let answer = Self {
            server_no_takeover: self.server_no_takeover || settings.server_no_context_takeover,
            // If the client offers it (§7.1.1.2), it must not use its window, so none is kept.
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

    /// This answer, checked against what `settings` offered.
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

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::wire::upgrade::{Extensions, HeadLimits, HeadScanner, HeaderStorage};

    /// Reads lines of `Sec-WebSocket-Extensions` as a request's.
    fn with_lines<T>(lines: &[&str], then: impl FnOnce(Extensions<'_>) -> T) -> T {
        let lines: Vec<_> =
            lines.iter().map(|line| format!("Sec-WebSocket-Extensions: {line}\r\n")).collect();
        let lines = lines.concat();
        let bytes = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        let limits = HeadLimits { max_head: 4096, max_headers: 10 };
        let head = HeadScanner::default().scan(bytes.as_bytes(), &limits).expect("a head").expect("whole");
        let mut storage = HeaderStorage::new();
        then(head.parse(&mut storage).expect("a request").extensions())
    }

    fn settings(takeover: bool, server: u8, client: u8) -> Deflate {
        Deflate {
            server_no_context_takeover: !takeover,
            client_no_context_takeover: !takeover,
            server_max_window_bits: server,
            client_max_window_bits: client,
            ..Deflate::default()
        }
    }

    #[test]
    fn a_server_answers_offers() {
        let keeping = settings(true, 15, 15);
        let frugal = Deflate::default();
        let narrow = settings(true, 10, 11);
        let rows: &[(&str, Deflate, &[&str], Option<&str>)] = &[
            ("no offer", keeping, &[], None),
            ("another extension", keeping, &["x-webkit-deflate-frame"], None),
            ("a bare offer", keeping, &["permessage-deflate"], Some("permessage-deflate")),
            (
                "a bare offer to a server without takeover",
                frugal,
                &["permessage-deflate"],
                Some("permessage-deflate; server_no_context_takeover; client_no_context_takeover"),
            ),
            (
                "what browsers send",
                keeping,
                &["permessage-deflate; client_max_window_bits"],
                Some("permessage-deflate"),
            ),
            (
                "the server must not keep a window",
                keeping,
                &["permessage-deflate; server_no_context_takeover"],
                Some("permessage-deflate; server_no_context_takeover"),
            ),
            (
                "the client will not keep one",
                keeping,
                &["permessage-deflate; client_no_context_takeover"],
                Some("permessage-deflate; client_no_context_takeover"),
            ),
            (
                "a smaller window for the server",
                keeping,
                &["permessage-deflate; server_max_window_bits=10"],
                Some("permessage-deflate; server_max_window_bits=10"),
            ),
            (
                "the largest window, asked for, is answered",
                keeping,
                &["permessage-deflate; server_max_window_bits=15"],
                Some("permessage-deflate; server_max_window_bits=15"),
            ),
            (
                "the smallest",
                keeping,
                &["permessage-deflate; server_max_window_bits=8; client_max_window_bits=8"],
                Some("permessage-deflate; server_max_window_bits=8; client_max_window_bits=8"),
            ),
            (
                "a client with a smaller window of its own",
                keeping,
                &["permessage-deflate; client_max_window_bits=12"],
                Some("permessage-deflate; client_max_window_bits=12"),
            ),
            (
                "values in quotes",
                keeping,
                &["permessage-deflate; server_max_window_bits=\"9\"; client_max_window_bits=\"1\\0\""],
                Some("permessage-deflate; server_max_window_bits=9; client_max_window_bits=10"),
            ),
            (
                "a server with smaller windows",
                narrow,
                &["permessage-deflate; client_max_window_bits"],
                Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"),
            ),
            (
                "the smaller one of each holds",
                narrow,
                &["permessage-deflate; server_max_window_bits=12; client_max_window_bits=9"],
                Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=9"),
            ),
            ("a client that cannot be limited", narrow, &["permessage-deflate"], None),
            (
                "the second offer will do",
                narrow,
                &["permessage-deflate, permessage-deflate; client_max_window_bits"],
                Some("permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"),
            ),
            (
                "the first one that will do, not the best",
                keeping,
                &["permessage-deflate; server_max_window_bits=9", "permessage-deflate"],
                Some("permessage-deflate; server_max_window_bits=9"),
            ),
            (
                "after others and an illegal one",
                keeping,
                &["foo, permessage-deflate; bar, permessage-deflate; server_max_window_bits=9"],
                Some("permessage-deflate; server_max_window_bits=9"),
            ),
            ("no value where one must be", keeping, &["permessage-deflate; server_max_window_bits"], None),
            (
                "a value where none may be",
                keeping,
                &["permessage-deflate; server_no_context_takeover=1"],
                None,
            ),
            (
                "a value where none may be",
                keeping,
                &["permessage-deflate; client_no_context_takeover=1"],
                None,
            ),
            ("an unknown parameter", keeping, &["permessage-deflate; foo=1"], None),
            (
                "a parameter in another case",
                keeping,
                &["permessage-deflate; Server_No_Context_Takeover"],
                None,
            ),
            (
                "the same twice",
                keeping,
                &["permessage-deflate; server_no_context_takeover; server_no_context_takeover"],
                None,
            ),
            (
                "the same twice with values",
                keeping,
                &["permessage-deflate; server_max_window_bits=9; server_max_window_bits=9"],
                None,
            ),
            (
                "the same twice, with and without a value",
                keeping,
                &["permessage-deflate; client_max_window_bits; client_max_window_bits=9"],
                None,
            ),
        ];
        for (name, settings, lines, expected) in rows {
            let answer = with_lines(lines, |offers| accept(settings, offers)).map(|(_, answer)| answer);
            assert_eq!(answer.as_deref(), *expected, "{name}");
        }
    }

    #[test]
    fn windows_that_do_not_exist_decline_the_offer() {
        for value in ["0", "7", "16", "99", "abc", "015", "08", "-1", "+9", "9.0", "0x9", "256", "4294967305"]
        {
            for name in [SERVER_BITS, CLIENT_BITS] {
                let line = format!("{NAME}; {name}={value}");
                assert_eq!(
                    with_lines(&[&line], |offers| accept(&Deflate::default(), offers)),
                    None,
                    "{line}"
                );
                let answered = with_lines(&[&line], |answer| check_answer(&Deflate::default(), answer));
                assert_eq!(answered, Err(AnswerError::Malformed), "{line}");
            }
        }
    }

    #[test]
    fn a_client_offers_and_checks_the_answer() {
        use AnswerError::{BeyondOffer, Malformed, NotOffered};
        let keeping = settings(true, 15, 15);
        let frugal = Deflate::default();
        let narrow = settings(true, 10, 11);
        assert_eq!(offer(&keeping), "permessage-deflate; client_max_window_bits");
        assert_eq!(
            offer(&frugal),
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; client_max_window_bits"
        );
        assert_eq!(
            offer(&narrow),
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=11"
        );
        let agreed = |server_no, client_no, server, client| {
            Ok(Some(DeflateParameters {
                server_no_context_takeover: server_no,
                client_no_context_takeover: client_no,
                server_max_window_bits: server,
                client_max_window_bits: client,
            }))
        };
        let rows: &[(&str, Deflate, &str, Result<Option<DeflateParameters>, AnswerError>)] = &[
            ("declined", keeping, "", Ok(None)),
            ("as offered", keeping, "permessage-deflate", agreed(false, false, 15, 15)),
            (
                "all that a server may ask",
                keeping,
                "permessage-deflate; server_no_context_takeover; client_no_context_takeover; \
                 server_max_window_bits=8; client_max_window_bits=\"9\"",
                agreed(true, true, 8, 9),
            ),
            (
                "a server need not repeat what a client does anyway",
                frugal,
                "permessage-deflate; server_no_context_takeover",
                agreed(true, true, 15, 15),
            ),
            ("it must grant what was asked", frugal, "permessage-deflate", Err(BeyondOffer)),
            (
                "narrower windows",
                narrow,
                "permessage-deflate; server_max_window_bits=9; client_max_window_bits=10",
                agreed(false, false, 9, 10),
            ),
            ("the window that was asked for", narrow, "permessage-deflate", Err(BeyondOffer)),
            (
                "a window wider than asked for",
                narrow,
                "permessage-deflate; server_max_window_bits=11",
                Err(BeyondOffer),
            ),
            (
                "a window wider than offered",
                narrow,
                "permessage-deflate; server_max_window_bits=10; client_max_window_bits=12",
                Err(BeyondOffer),
            ),
            ("no value in an answer", keeping, "permessage-deflate; client_max_window_bits", Err(Malformed)),
            ("an unknown parameter", keeping, "permessage-deflate; foo", Err(Malformed)),
            (
                "the same twice",
                keeping,
                "permessage-deflate; client_no_context_takeover; client_no_context_takeover",
                Err(Malformed),
            ),
            ("another extension", keeping, "foo", Err(NotOffered)),
            ("one more extension", keeping, "permessage-deflate, foo", Err(NotOffered)),
            ("two answers", keeping, "permessage-deflate, permessage-deflate", Err(NotOffered)),
        ];
        for (name, settings, line, expected) in rows {
            let lines: &[&str] = if line.is_empty() { &[] } else { &[line] };
            assert_eq!(with_lines(lines, |answer| check_answer(settings, answer)), *expected, "{name}");
        }
    }

    fn any_settings() -> impl Strategy<Value = Deflate> {
        (any::<bool>(), any::<bool>(), 8..=15_u8, 8..=15_u8).prop_map(
            |(server_no, client_no, server, client)| Deflate {
                server_no_context_takeover: server_no,
                client_no_context_takeover: client_no,
                server_max_window_bits: server,
                client_max_window_bits: client,
                ..Deflate::default()
            },
        )
    }

    proptest! {
        /// Whatever the settings: the two sides agree on the same, and on no more than either allows.
        #[test]
        fn both_sides_agree(client in any_settings(), server in any_settings()) {
            let offered = offer(&client);
            let (agreed, answer) = with_lines(&[&offered], |offers| accept(&server, offers)).expect("acceptable");
            let checked = with_lines(&[&answer], |answer| check_answer(&client, answer));
            prop_assert_eq!(checked, Ok(Some(agreed)));
            for settings in [client, server] {
                prop_assert!(agreed.server_no_context_takeover || !settings.server_no_context_takeover);
                prop_assert!(agreed.client_no_context_takeover || !settings.client_no_context_takeover);
                prop_assert!(agreed.server_max_window_bits <= settings.server_max_window_bits);
                prop_assert!(agreed.client_max_window_bits <= settings.client_max_window_bits);
            }
            // What is shown is what the 101 says, but for windows of 15 bits.
            prop_assert_eq!(agreed.to_string(), answer.replace("; server_max_window_bits=15", ""));
        }
    }
}
