//! The payload of a message that arrives in pieces. What the pieces mean is the inbox's business.

/// Payload so far, at the front of a buffer. What lies after it was initialised earlier, perhaps by another message: what
/// is read next takes its place, and needs no zeroes first. Only the payload is ever handed out.
#[derive(Debug, Default)]
pub(crate) struct Arriving {
    bytes: Vec<u8>,
    len: usize,
}

impl Arriving {
    /// Nothing yet, in a buffer that was used before.
    pub(super) const fn reusing(bytes: Vec<u8>) -> Self {
        Self { bytes, len: 0 }
    }

    /// Bytes of payload.
    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    pub(super) const fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// The payload.
    pub(super) fn as_slice(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// The payload from `from` on.
    pub(super) fn get_mut(&mut self, from: usize) -> Option<&mut [u8]> {
        self.bytes.get_mut(from..self.len)
    }

    /// Copies a piece to its end.
    pub(super) fn append(&mut self, piece: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + piece.len()) {
            place.copy_from_slice(piece);
        } else {
            self.bytes.truncate(self.len);
            self.bytes.extend_from_slice(piece);
        }
        self.len += piece.len();
    }

    /// Room for `n` more bytes, to read into; see [`Arriving::advance`].
    pub(crate) fn room(&mut self, n: usize) -> &mut [u8] {
        let end = self.len + n;
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        self.bytes.get_mut(self.len..end).unwrap_or_default()
    }

    /// The first `n` bytes of [`Arriving::room`] were read, and are payload.
    pub(crate) fn advance(&mut self, n: usize) {
        debug_assert!(n <= self.bytes.len() - self.len, "no more is read than there was room for");
        self.len = self.bytes.len().min(self.len + n);
    }

    /// The payload, in its buffer.
    pub(super) fn into_message(mut self) -> Vec<u8> {
        self.bytes.truncate(self.len);
        self.bytes
    }
}

impl From<Vec<u8>> for Arriving {
    fn from(bytes: Vec<u8>) -> Self {
        Self { len: bytes.len(), bytes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_of_an_earlier_message_is_payload() {
        let mut message = Arriving::reusing(vec![9; 8]);
        assert_eq!(message.as_slice(), []);
        message.append(&[1, 2]);
        message.room(3)[0] = 3;
        message.advance(1);
        assert_eq!((message.as_slice(), message.len()), ([1, 2, 3].as_slice(), 3));
        assert_eq!(message.get_mut(2), Some([3].as_mut_slice()));
        message.append(&[4; 10]);
        assert_eq!(
            message.into_message(),
            [[1, 2, 3, 4].as_slice(), &[4; 9]].concat(),
            "it grew past what was there"
        );
    }

    #[test]
    fn room_is_zeroed_where_nothing_was_yet() {
        let mut message = Arriving::reusing(vec![9; 2]);
        assert_eq!(message.room(4), [9, 9, 0, 0]);
        message.advance(3);
        assert_eq!(message.into_message(), [9, 9, 0]);
    }
}
