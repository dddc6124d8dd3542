//! What can be wrong with a packet, or with arguments.

/// The client's packet is invalid: the connection ends with `forced close` (specification 6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The first character is none of `0` to `6`.
    #[error("unknown packet type")]
    UnknownType,
    /// A CONNECT_ERROR, which only servers send.
    #[error("CONNECT_ERROR from a client")]
    ConnectError,
    /// The number of attachments is missing, no integer, 0 or above `max_attachments`.
    #[error("invalid number of attachments")]
    Attachments,
    /// The ack id is above 2^53 - 1, or missing in an ACK.
    #[error("invalid ack id")]
    AckId,
    /// The payload is missing, or not of the kind that the packet type has.
    #[error("the payload is not of the kind that the packet has")]
    Payload,
    /// The payload is no JSON text.
    #[error("the payload is no JSON")]
    Json,
    /// The payload is nested deeper than `max_depth`.
    #[error("the payload is nested too deeply")]
    Depth,
    /// The event's name is reserved.
    #[error("the event name is reserved")]
    ReservedName,
    /// The namespace or the event's name is longer than `max_name`.
    #[error("the namespace or event name is too long")]
    NameLength,
    /// A placeholder names an attachment that there is not.
    #[error("a placeholder is out of range")]
    Placeholder,
    /// Text while attachments are outstanding.
    #[error("text while attachments are outstanding")]
    TextOutstanding,
    /// A binary message while no attachment is outstanding.
    #[error("binary message without an attachment outstanding")]
    BinaryUnexpected,
    /// The attachments of one packet exceed `max_attachment_bytes`.
    #[error("the attachments of a packet are too large")]
    AttachmentBytes,
}

impl DecodeError {
    /// Its name among the counters.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnknownType => "unknown_type",
            Self::ConnectError => "connect_error",
            Self::Attachments => "attachments",
            Self::AckId => "ack_id",
            Self::Payload => "payload",
            Self::Json => "json",
            Self::Depth => "depth",
            Self::ReservedName => "reserved_name",
            Self::NameLength => "name_length",
            Self::Placeholder => "placeholder",
            Self::TextOutstanding => "text_outstanding",
            Self::BinaryUnexpected => "binary_unexpected",
            Self::AttachmentBytes => "attachment_bytes",
        }
    }
}

/// What the application gave cannot be sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EncodeError {
    /// The event's name is reserved.
    #[error("event name {0:?} is reserved")]
    ReservedName(String),
    /// The event's name is too long.
    #[error("event name of {length} bytes exceeds {limit}")]
    NameLength {
        /// Its length in bytes.
        length: usize,
        /// The limit in bytes.
        limit: usize,
    },
    /// More attachments than official clients accept.
    #[error("{count} attachments exceed {limit}")]
    TooManyAttachments {
        /// Their number.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// No client could be sent it.
    #[error("an event of {size} bytes, attachments as base64, exceeds send_queue ({limit})")]
    TooLarge {
        /// Bytes that it takes in a send queue.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// An argument that came as JSON holds a placeholder for an attachment that there is not: receivers would refuse the packet.
    #[error("an argument holds a placeholder without its attachment")]
    Placeholder,
    /// An argument cannot be written as JSON.
    #[error("argument is no JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// An argument is not what the application asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArgsError {
    /// There are fewer arguments.
    #[error("argument {index} is missing: there are {length}")]
    Missing {
        /// The one asked for, from 0.
        index: usize,
        /// How many there are.
        length: usize,
    },
    /// It has another type.
    #[error("argument {index}: {source}")]
    Type {
        /// Its index, from 0.
        index: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
}
