//! Collects the head of a request or response from the bytes that arrive. `wire/upgrade` parses it.

use super::inbox::Cursor;
use crate::wire::upgrade::{Head, HeadLimits, HeadScanner, Refusal};

/// What has arrived of a head that is not complete.
#[derive(Debug, Default)]
pub(super) struct HeadBuffer {
    bytes: Vec<u8>,
    scanner: HeadScanner,
}

impl HeadBuffer {
    /// The beginning of a head, not looked at yet.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, scanner: HeadScanner::default() }
    }

    /// All that has come.
    #[cfg(feature = "tls")]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A complete head, taken off the input.
#[derive(Debug)]
pub(crate) struct WholeHead<'b> {
    bytes: HeadBytes<'b>,
    scanner: HeadScanner,
    limits: HeadLimits,
}

#[derive(Debug)]
enum HeadBytes<'b> {
    Lent(&'b [u8]),
    Joined(Vec<u8>),
}

impl HeadBytes<'_> {
    fn as_slice(&self) -> &[u8] {
        match self {
            Self::Lent(bytes) => bytes,
            Self::Joined(bytes) => bytes,
        }
    }
}

impl WholeHead<'_> {
    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.bytes.as_slice().len()
    }

    /// Its bytes. Copies them if they were lent.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        match self.bytes {
            HeadBytes::Lent(bytes) => bytes.to_vec(),
            HeadBytes::Joined(bytes) => bytes,
        }
    }

    /// The head, to be parsed.
    ///
    /// # Errors
    /// None, since it was found to be complete.
    pub(crate) fn get(&mut self) -> Result<Head<'_>, Refusal> {
        let head = self.scanner.scan(self.bytes.as_slice(), &self.limits)?;
        debug_assert!(head.is_some(), "it is complete");
        head.ok_or(Refusal::TIMEOUT)
    }
}

/// Takes bytes off the cursor until a head is complete. What is after it stays there.
pub(super) fn take_head<'b>(
    buffer: &mut Option<Box<HeadBuffer>>,
    cursor: &mut Cursor<'b>,
    limits: HeadLimits,
) -> Result<Option<WholeHead<'b>>, Refusal> {
    let Some(mut joined) = buffer.take() else {
        let mut scanner = HeadScanner::default();
        let length = scanner.scan(cursor.rest(), &limits).map(|head| head.map(|head| head.len()));
        return match length {
            Ok(Some(length)) => {
                Ok(Some(WholeHead { bytes: HeadBytes::Lent(cursor.take(length)), scanner, limits }))
            }
            Ok(None) => {
                *buffer = Some(Box::new(HeadBuffer { bytes: cursor.take_all().to_vec(), scanner }));
                Ok(None)
            }
            Err(refusal) => {
                cursor.take_all();
                Err(refusal)
            }
        };
    };
    let before = joined.bytes.len();
    joined.bytes.extend_from_slice(cursor.rest());
    match joined.scanner.scan(&joined.bytes, &limits).map(|head| head.map(|head| head.len())) {
        Ok(Some(length)) => {
            cursor.take(length.saturating_sub(before));
            let HeadBuffer { mut bytes, scanner } = *joined;
            bytes.truncate(length);
            Ok(Some(WholeHead { bytes: HeadBytes::Joined(bytes), scanner, limits }))
        }
        Ok(None) => {
            cursor.take_all();
            *buffer = Some(joined);
            Ok(None)
        }
        Err(refusal) => {
            cursor.take_all();
            Err(refusal)
        }
    }
}
