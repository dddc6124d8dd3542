//! What arrives and what is sent: text or bytes.

use std::{borrow::Cow, fmt, sync::Arc};

/// The two kinds of data messages (RFC 6455 §5.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MessageKind {
    /// UTF-8.
    Text,
    /// Bytes.
    Binary,
}

/// A data message that came in, whole and unmasked, lent from the loop's buffers until the callback returns.
///
/// It can be sent as it is, to as many as you like, and looked at by `match`:
///
/// ```
/// use adjourn::{Clients, Event, Message};
///
/// fn on_event(clients: &mut Clients<'_>, event: Event<'_>) {
///     match event {
///         Event::Message { id, message: Message::Text("ping"), .. } => {
///             let _ = clients.send(id, "pong");
///         }
///         Event::Message { id, message, .. } => {
///             let _ = clients.send(id, message);
///         }
///         _ => {}
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Message<'a> {
    /// Valid UTF-8.
    Text(&'a str),
    /// Bytes.
    Binary(&'a [u8]),
}

impl<'a> Message<'a> {
    /// Whether it is text.
    pub const fn is_text(&self) -> bool {
        matches!(self, Self::Text(_))
    }

    /// The payload.
    #[inline]
    pub const fn as_bytes(&self) -> &'a [u8] {
        match self {
            Self::Text(text) => text.as_bytes(),
            Self::Binary(bytes) => bytes,
        }
    }

    /// The payload as text; `None` if the message is binary.
    pub const fn as_text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Binary(_) => None,
        }
    }

    /// Bytes of payload.
    pub const fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    pub const fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// A copy to keep, which can be sent later, or from another thread. Allocates.
    pub fn into_owned(self) -> Payload<'static> {
        Payload::from(self).into_owned()
    }
}

impl AsRef<[u8]> for Message<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<'a> From<&'a str> for Message<'a> {
    fn from(text: &'a str) -> Self {
        Self::Text(text)
    }
}

impl<'a> From<&'a [u8]> for Message<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self::Binary(bytes)
    }
}

/// A message to send. Whatever is text or bytes converts into one, a message that came in too; nothing is copied by that.
///
/// Text is sent as a text message (RFC 6455 §5.6), bytes as a binary one. Borrowed payloads are copied into the loop's output buffer when
/// they are queued. One of 16 KiB or more that is owned or shared is queued as it is, and so is a message that was
/// received in several pieces, if it is sent before its callback returns. A client's frames are masked, which needs a copy of what is
/// shared.
///
/// ```
/// use std::sync::Arc;
///
/// use adjourn::{Clients, ConnectionId, Payload};
///
/// fn greet(clients: &mut Clients<'_>, id: ConnectionId, picture: Arc<[u8]>) {
///     let _ = clients.send(id, "hello");
///     let _ = clients.send(id, format!("you are {id}"));
///     let _ = clients.send(id, picture); // counted, not copied
/// }
///
/// let kept: Payload<'static> = Payload::from("kept").into_owned();
/// assert_eq!(kept.as_message().as_text(), Some("kept"));
/// ```
#[derive(Clone)]
pub struct Payload<'a> {
    pub(crate) kind: MessageKind,
    pub(crate) data: Data<'a>,
}

/// Where a payload lies.
#[derive(Clone)]
pub(crate) enum Data<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
    Shared(Arc<[u8]>),
    #[cfg(feature = "bytes")]
    Bytes(bytes::Bytes),
}

impl Data<'_> {
    #[inline]
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
            Self::Shared(bytes) => bytes,
            #[cfg(feature = "bytes")]
            Self::Bytes(bytes) => bytes,
        }
    }
}

impl<'a> Payload<'a> {
    const fn text(data: Data<'a>) -> Self {
        Self { kind: MessageKind::Text, data }
    }

    const fn binary(data: Data<'a>) -> Self {
        Self { kind: MessageKind::Binary, data }
    }

    /// Whether it is text.
    pub const fn is_text(&self) -> bool {
        matches!(self.kind, MessageKind::Text)
    }

    /// The payload.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.data.as_slice()
    }

    /// The same as a message, to look at. Checks the UTF-8 of text once more.
    pub fn as_message(&self) -> Message<'_> {
        let bytes = self.as_bytes();
        match str::from_utf8(bytes) {
            Ok(text) if self.is_text() => Message::Text(text),
            _ => Message::Binary(bytes),
        }
    }

    /// Bytes of payload.
    pub fn len(&self) -> usize {
        self.as_bytes().len()
    }

    /// Whether the payload is empty.
    pub fn is_empty(&self) -> bool {
        self.as_bytes().is_empty()
    }

    /// One that borrows nothing, to keep or to send to another thread. Copies what is borrowed; the rest is moved.
    pub fn into_owned(self) -> Payload<'static> {
        let data = match self.data {
            Data::Borrowed(bytes) => Data::Owned(bytes.to_vec()),
            Data::Owned(bytes) => Data::Owned(bytes),
            Data::Shared(bytes) => Data::Shared(bytes),
            #[cfg(feature = "bytes")]
            Data::Bytes(bytes) => Data::Bytes(bytes),
        };
        Payload { kind: self.kind, data }
    }

    /// The same, borrowed, for another send.
    pub fn borrowed(&self) -> Payload<'_> {
        Payload { kind: self.kind, data: Data::Borrowed(self.as_bytes()) }
    }
}

impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_message().fmt(f)
    }
}

impl PartialEq for Payload<'_> {
    fn eq(&self, other: &Payload<'_>) -> bool {
        (self.kind, self.as_bytes()) == (other.kind, other.as_bytes())
    }
}

impl Eq for Payload<'_> {}

impl AsRef<[u8]> for Payload<'_> {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<'a> From<Message<'a>> for Payload<'a> {
    #[inline]
    fn from(message: Message<'a>) -> Self {
        match message {
            Message::Text(text) => text.into(),
            Message::Binary(bytes) => bytes.into(),
        }
    }
}

impl<'a> From<&Message<'a>> for Payload<'a> {
    fn from(message: &Message<'a>) -> Self {
        (*message).into()
    }
}

impl<'a> From<&'a Payload<'_>> for Payload<'a> {
    fn from(payload: &'a Payload<'_>) -> Self {
        payload.borrowed()
    }
}

impl<'a> From<&'a str> for Payload<'a> {
    #[inline]
    fn from(text: &'a str) -> Self {
        Self::text(Data::Borrowed(text.as_bytes()))
    }
}

impl<'a> From<&'a String> for Payload<'a> {
    fn from(text: &'a String) -> Self {
        text.as_str().into()
    }
}

impl From<String> for Payload<'_> {
    fn from(text: String) -> Self {
        Self::text(Data::Owned(text.into_bytes()))
    }
}

impl From<Arc<str>> for Payload<'_> {
    fn from(text: Arc<str>) -> Self {
        Self::text(Data::Shared(text.into()))
    }
}

impl<'a> From<Cow<'a, str>> for Payload<'a> {
    fn from(text: Cow<'a, str>) -> Self {
        match text {
            Cow::Borrowed(text) => text.into(),
            Cow::Owned(text) => text.into(),
        }
    }
}

impl<'a> From<&'a [u8]> for Payload<'a> {
    #[inline]
    fn from(bytes: &'a [u8]) -> Self {
        Self::binary(Data::Borrowed(bytes))
    }
}

impl<'a, const N: usize> From<&'a [u8; N]> for Payload<'a> {
    fn from(bytes: &'a [u8; N]) -> Self {
        bytes.as_slice().into()
    }
}

impl<'a> From<&'a Vec<u8>> for Payload<'a> {
    fn from(bytes: &'a Vec<u8>) -> Self {
        bytes.as_slice().into()
    }
}

impl From<Vec<u8>> for Payload<'_> {
    fn from(bytes: Vec<u8>) -> Self {
        Self::binary(Data::Owned(bytes))
    }
}

impl From<Arc<[u8]>> for Payload<'_> {
    fn from(bytes: Arc<[u8]>) -> Self {
        Self::binary(Data::Shared(bytes))
    }
}

impl<'a> From<Cow<'a, [u8]>> for Payload<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => bytes.into(),
            Cow::Owned(bytes) => bytes.into(),
        }
    }
}

/// Binary. Cloning `Bytes` counts, so a large one is queued for many connections without a copy.
#[cfg(feature = "bytes")]
impl From<bytes::Bytes> for Payload<'_> {
    fn from(bytes: bytes::Bytes) -> Self {
        Self::binary(Data::Bytes(bytes))
    }
}

/// Binary, counted.
#[cfg(feature = "bytes")]
impl From<&bytes::Bytes> for Payload<'_> {
    fn from(bytes: &bytes::Bytes) -> Self {
        bytes.clone().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_text_or_bytes_is_a_payload() {
        let shared: Arc<[u8]> = Arc::from(*b"hi");
        let (owned, sent) = ("hi".to_owned(), Payload::from("hi"));
        let rows: [(Payload<'_>, bool); 14] = [
            ("hi".into(), true),
            ((&owned).into(), true),
            ("hi".to_owned().into(), true),
            (Arc::<str>::from("hi").into(), true),
            (Cow::Borrowed("hi").into(), true),
            (Cow::<str>::Owned("hi".to_owned()).into(), true),
            (Message::Text("hi").into(), true),
            ((&Message::Binary(b"hi")).into(), false),
            (b"hi".into(), false),
            (b"hi".as_slice().into(), false),
            (b"hi".to_vec().into(), false),
            (shared.into(), false),
            (Cow::<[u8]>::Owned(b"hi".to_vec()).into(), false),
            (Payload::from(&sent), true),
        ];
        for (payload, is_text) in rows {
            let message = if is_text { Message::Text("hi") } else { Message::Binary(b"hi") };
            assert_eq!((payload.as_message(), payload.is_text(), payload.len()), (message, is_text, 2));
            assert_eq!((payload.borrowed(), payload.as_ref()), (message.into(), b"hi".as_slice()));
            assert_eq!(payload.clone().into_owned(), payload);
        }
        assert_ne!(Payload::from("hi"), Payload::from(b"hi"), "text is not bytes");
        assert!(Payload::from("").is_empty());
    }

    #[cfg(feature = "bytes")]
    #[test]
    fn bytes_are_binary_and_counted() {
        let bytes = bytes::Bytes::from(vec![7; 100_000]);
        let payload = Payload::from(&bytes).into_owned();
        assert_eq!((payload.is_text(), payload.as_bytes().as_ptr()), (false, bytes.as_ptr()));
    }
}
