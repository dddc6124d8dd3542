//! Engine.IO packets (specification 2), and the payloads of long-polling that are made of them (4).

use std::borrow::Cow;

use base64::alphabet;
use base64::engine::{DecodePaddingMode, Engine as _, GeneralPurpose, GeneralPurposeConfig};

use crate::links::{Frame, FrameRef};

/// Between the packets of a payload.
const SEPARATOR: char = '\u{1e}';

/// Padded when written; read also without padding, as browsers and node do.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A packet, from a WebSocket message or a part of a payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnginePacket<'a> {
    /// `0`
    Open,
    /// `1`
    Close,
    /// `2` and data: `probe`, if it is one.
    Ping(&'a str),
    /// `3` and data.
    Pong(&'a str),
    /// `4` and text.
    Text(&'a str),
    /// A binary message, or `b` and base64.
    Binary(Cow<'a, [u8]>),
    /// `5`
    Upgrade,
    /// `6`
    Noop,
}

/// Empty text, another first character, or bad base64: `parse error`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an Engine.IO packet")]
pub struct EnginePacketError;

impl<'a> EnginePacket<'a> {
    /// Reads a packet. Only base64 is copied.
    pub fn decode(frame: FrameRef<'a>) -> Result<Self, EnginePacketError> {
        let text = match frame {
            FrameRef::Binary(bytes) => return Ok(Self::Binary(Cow::Borrowed(bytes))),
            FrameRef::Text(text) => text,
        };
        let mut data = text.chars();
        match data.next().ok_or(EnginePacketError)? {
            '0' => Ok(Self::Open),
            '1' => Ok(Self::Close),
            '2' => Ok(Self::Ping(data.as_str())),
            '3' => Ok(Self::Pong(data.as_str())),
            '4' => Ok(Self::Text(data.as_str())),
            '5' => Ok(Self::Upgrade),
            '6' => Ok(Self::Noop),
            'b' => {
                let bytes = BASE64.decode(data.as_str()).map_err(|_| EnginePacketError)?;
                Ok(Self::Binary(Cow::Owned(bytes)))
            }
            _ => Err(EnginePacketError),
        }
    }
}

/// Takes the first packet off a payload.
pub fn split_payload(payload: &str) -> (&str, Option<&str>) {
    payload.split_once(SEPARATOR).map_or((payload, None), |(first, rest)| (first, Some(rest)))
}

/// How many bytes [`push_packet`] writes, with a separator.
pub fn encoded_len(frame: &Frame) -> usize {
    match frame {
        Frame::Text(_) => frame.len() + 1,
        Frame::Binary(_) => frame.len().div_ceil(3) * 4 + 2,
    }
}

/// Appends a packet to a payload: binary as `b` and base64.
pub fn push_packet(payload: &mut String, frame: &Frame) {
    if !payload.is_empty() {
        payload.push(SEPARATOR);
    }
    match frame.borrow() {
        FrameRef::Text(text) => payload.push_str(text),
        FrameRef::Binary(bytes) => {
            payload.push('b');
            BASE64.encode_string(bytes, payload);
        }
    }
}
