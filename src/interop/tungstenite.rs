//! tungstenite's messages, Close frames, codes and roles, and ours.

use ::tungstenite::protocol::{self as theirs, frame::coding::CloseCode as TheirCode};

use crate::{
    adopt::Role,
    close::{CloseCode, CloseFrame, CloseFrameError},
    error::NotData,
    message::{Message, Payload},
};

impl From<Message<'_>> for theirs::Message {
    /// Copies the payload.
    fn from(message: Message<'_>) -> Self {
        match message {
            Message::Text(text) => Self::text(text),
            Message::Binary(bytes) => Self::binary(bytes.to_vec()),
        }
    }
}

impl<'a> TryFrom<&'a theirs::Message> for Message<'a> {
    type Error = NotData;

    /// Fails for control frames.
    fn try_from(message: &'a theirs::Message) -> Result<Self, NotData> {
        match message {
            theirs::Message::Text(text) => Ok(Self::Text(text)),
            theirs::Message::Binary(bytes) => Ok(Self::Binary(bytes)),
            _ => Err(NotData),
        }
    }
}

impl TryFrom<theirs::Message> for Payload<'static> {
    type Error = NotData;

    /// Fails for control frames. Binary payloads are shared, text is copied.
    fn try_from(message: theirs::Message) -> Result<Self, NotData> {
        match message {
            theirs::Message::Text(text) => Ok(text.as_str().to_owned().into()),
            theirs::Message::Binary(bytes) => Ok(bytes.into()),
            _ => Err(NotData),
        }
    }
}

impl From<CloseCode> for TheirCode {
    fn from(code: CloseCode) -> Self {
        code.as_u16().into()
    }
}

impl TryFrom<TheirCode> for CloseCode {
    type Error = CloseFrameError;

    /// Fails for codes that must not be on the wire (RFC 6455 §7.4), 1006 among them.
    fn try_from(code: TheirCode) -> Result<Self, CloseFrameError> {
        Self::new(code.into())
    }
}

impl From<&CloseFrame> for Option<theirs::CloseFrame> {
    /// `None` for an empty one.
    fn from(frame: &CloseFrame) -> Self {
        let code = frame.code()?.into();
        Some(theirs::CloseFrame { code, reason: frame.reason().into() })
    }
}

impl TryFrom<Option<theirs::CloseFrame>> for CloseFrame {
    type Error = CloseFrameError;

    /// Fails if the code must not be on the wire, or the reason is longer than 123 bytes.
    fn try_from(frame: Option<theirs::CloseFrame>) -> Result<Self, CloseFrameError> {
        let Some(frame) = frame else { return Ok(Self::EMPTY) };
        Self::new(frame.code.try_into()?, frame.reason.as_str().to_owned())
    }
}

impl From<Role> for theirs::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Server => Self::Server,
            Role::Client => Self::Client,
        }
    }
}

impl From<theirs::Role> for Role {
    fn from(role: theirs::Role) -> Self {
        match role {
            theirs::Role::Server => Self::Server,
            theirs::Role::Client => Self::Client,
        }
    }
}
