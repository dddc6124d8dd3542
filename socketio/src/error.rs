//! Errors of the layer's calls. Depends on nothing.

use std::sync::Arc;

/// An emit that did not happen: nobody gets the event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EmitError {
    /// The event's name is reserved (`connect`, `disconnect` and so on).
    #[error("the event name {0:?} is reserved")]
    Reserved(Box<str>),
    /// The arguments cannot be written as JSON.
    #[error("the arguments cannot be encoded: {0}")]
    Arguments(Box<str>),
    /// No client could be sent the event.
    #[error("an event of {size} bytes, attachments as base64, exceeds send_queue ({limit})")]
    TooLarge {
        /// Bytes that it takes in a send queue.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The socket is disconnected.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The store does not answer, or its queue is full.
    #[error("the store is not available")]
    StoreUnavailable,
    /// The server is shutting down.
    #[error("the server is shutting down")]
    ShuttingDown,
    /// Too many acks of this socket are awaited.
    #[error("{pending} acks of this socket are awaited, the most that pending_acks_per_socket allows")]
    TooManyAcks {
        /// How many.
        pending: usize,
    },
}

/// An ack that was asked for did not come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckError {
    /// Not in time.
    #[error("no answer in time")]
    Timeout,
    /// The socket was disconnected first.
    #[error("the socket was disconnected before it answered")]
    Disconnected,
    /// The event could not be logged, so nobody got it.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// An ack of ours that was not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AckSendError {
    /// The client could not be sent it.
    #[error("an ack of {size} bytes, attachments as base64, exceeds send_queue ({limit})")]
    TooLarge {
        /// Bytes that it takes in a send queue.
        size: usize,
        /// The limit.
        limit: usize,
    },
    /// The socket is disconnected.
    #[error("the socket is disconnected")]
    Disconnected,
    /// It has to wait for what this handler call has done, and the store is down or its queue is full.
    #[error("the store is not available")]
    StoreUnavailable,
    /// The arguments cannot be written as JSON.
    #[error("the arguments cannot be encoded: {0}")]
    Arguments(Box<str>),
}

/// A middleware's refusal: what the client gets as `connect_error`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectError {
    /// `error.message`.
    pub message: String,
    /// `error.data`: JSON.
    pub data: Option<String>,
}

/// A change of a socket's rooms or data that did not happen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChangeError {
    /// The socket is disconnected.
    #[error("the socket is disconnected")]
    Disconnected,
    /// The room's name is too long.
    #[error("a room name of {length} bytes exceeds max_room_name ({limit})")]
    RoomName {
        /// Its length in bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The socket has too many rooms, those that its session remembers included.
    #[error("more rooms than rooms_per_socket ({limit})")]
    TooManyRooms {
        /// The limit.
        limit: usize,
    },
    /// The data is too long.
    #[error("session data of {length} bytes exceeds session_data ({limit})")]
    Data {
        /// Its length in bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The data is no JSON object.
    #[error("session data is a JSON object")]
    NotAnObject,
    /// The change has to wait for the store, whose queue is full.
    #[error("the store is not available")]
    StoreUnavailable,
}

/// Something that was to be done once did not happen; a later try runs anew.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OnceError {
    /// The application refused.
    #[error("{0}")]
    Application(Box<dyn std::error::Error + Send + Sync>),
    /// The application's code panicked.
    #[error("the application's code panicked")]
    Panicked,
    /// The key is empty or too long.
    #[error("a once key of {length} bytes; it has 1 to {limit}")]
    Key {
        /// Its length in bytes.
        length: usize,
        /// The limit.
        limit: usize,
    },
    /// The socket is disconnected.
    #[error("the socket is disconnected")]
    Disconnected,
    /// Another try did not end within its lease.
    #[error("another try of this key has not ended")]
    Busy,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// The store failed.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// Another process has it open.
    #[error("the store is in use by another process")]
    InUse,
    /// It was made by a newer version.
    #[error("the store has schema version {found}; this crate knows {known}")]
    Schema {
        /// What the file says.
        found: i64,
        /// What this crate writes.
        known: i64,
    },
    /// The call failed; nothing of it happened.
    #[error("the store failed: {0}")]
    Failed(Arc<str>),
    /// A limit of the store is reached.
    #[error("the store is full: {0}")]
    Full(&'static str),
}
