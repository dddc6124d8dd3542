//! The same bytes to a server of this crate and to one of tungstenite: the same messages, or one of these differences.
//!
//! | We say | tungstenite |
//! | --- | --- |
//! | 1002: a length that is not in its shortest form, or has its top bit set (§5.2) | takes it |
//! | 1002: the same of a control frame, which must not use the longer forms (§5.5) | takes it up to 125 bytes |
//! | 1002: a Close code that must not be sent (§7.4) | tells the application of a Close 1002 |
//! | a Close with 1014, which is registered | the same |
//! | 1007: bad text in a frame that is not all here (§8.1) | waits for the whole frame |
//! | 1002, 1007: a Close reason or a header that is wrong before it is whole | waits for the whole frame |
//! | 1009: a message too large, at the header that says so | when it is here; a frame, at once |
//! | 1009: too many fragments | no such limit |

use std::io::{self, Read, Write};

use adjourn::{close::Cause, error::ProtocolError};
use tungstenite::{
    Message, WebSocket,
    protocol::{Role, WebSocketConfig},
};

use super::{
    against_reference::listen,
    input::Input,
    peer,
    reference::{Heard, Limits},
};

const LIMITS: Limits = Limits { payload: 3000, fragments: 20 };

#[expect(clippy::match_same_arms, reason = "a row for each difference")]
pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.u8();
    let cuts = input.cuts();
    let bytes = if how & 1 == 0 { input.rest().to_vec() } else { peer::stream(&mut input) };
    let listener = listen(&bytes, &cuts, &LIMITS);
    let (ours, cause) = (listener.heard, listener.closed.expect("it has ended").cause);
    let (theirs, end) = ask(&bytes);

    let common = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
    let difference = match (&ours[common..], &theirs[common..]) {
        ([], []) => None,
        ([], more) => Some((None, more.first())),
        ([next, ..], more) => Some((Some(next), more.first())),
    };
    let as_1002 = Heard::Close(Some((1002, "Protocol violation".to_owned())));
    match (difference, cause, end) {
        // The messages are the same; now the end.
        (None, Cause::PeerClose, Their::Close) => assert!(matches!(ours.last(), Some(Heard::Close(_)))),
        (None, Cause::PeerFin, Their::Bytes) => {}
        (None, Cause::Protocol(_) | Cause::InvalidUtf8 | Cause::TooBig { .. }, Their::Failed) => {}
        // They wait for what would have followed.
        (None, Cause::Protocol(_) | Cause::InvalidUtf8 | Cause::TooBig { .. }, Their::Bytes) => {}
        (
            Some((None, _)),
            Cause::Protocol(ProtocolError::NonMinimalLength | ProtocolError::LengthTopBit),
            _,
        ) => {}
        (
            Some((None, Some(Heard::Ping(_) | Heard::Pong(_) | Heard::Close(_)))),
            Cause::Protocol(ProtocolError::ControlTooLong),
            _,
        ) => {}
        (Some((None, Some(close))), Cause::Protocol(ProtocolError::CloseCode(_)), _) if *close == as_1002 => {
        }
        (Some((Some(Heard::Close(Some((1014, _)))), Some(close))), _, _) if *close == as_1002 => {}
        (Some((None, _)), Cause::TooBig { limit: 20 }, _) => {}
        (difference, cause, end) => {
            panic!("{difference:?}, {cause:?}, {end:?}, not on the list:\n{ours:?}\n{theirs:?}")
        }
    }
}

/// How it ended for them.
#[derive(Debug)]
enum Their {
    Close,
    Bytes,
    Failed,
}

fn ask(bytes: &[u8]) -> (Vec<Heard>, Their) {
    let payload = usize::try_from(LIMITS.payload).expect("small");
    let config = WebSocketConfig::default()
        .read_buffer_size(4096)
        .max_message_size(Some(payload))
        .max_frame_size(Some(payload));
    let mut socket = WebSocket::from_raw_socket(Pipe(bytes), Role::Server, Some(config));
    let mut heard = Vec::new();
    loop {
        heard.push(match socket.read() {
            Ok(Message::Text(text)) => Heard::Text(text.to_string()),
            Ok(Message::Binary(bytes)) => Heard::Binary(bytes.to_vec()),
            Ok(Message::Ping(bytes)) => Heard::Ping(bytes.to_vec()),
            Ok(Message::Pong(bytes)) => Heard::Pong(bytes.to_vec()),
            Ok(Message::Close(frame)) => {
                let close = frame.map(|frame| (u16::from(frame.code), frame.reason.to_string()));
                heard.push(Heard::Close(close));
                return (heard, Their::Close);
            }
            Ok(Message::Frame(_)) => unreachable!("frames are not read"),
            Err(tungstenite::Error::Protocol(
                tungstenite::error::ProtocolError::ResetWithoutClosingHandshake,
            )) => return (heard, Their::Bytes),
            Err(_) => return (heard, Their::Failed),
        });
    }
}

/// Bytes that a peer has sent before it left. What is written to it goes nowhere.
struct Pipe<'a>(&'a [u8]);

impl Read for Pipe<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer)
    }
}

impl Write for Pipe<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
