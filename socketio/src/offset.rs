//! Positions in a log, and the offsets that clients carry (specification 12, 14). Depends on nothing.

use std::fmt;
use std::str::FromStr;

/// The place of an entry in the log of a namespace. Positions of one log only grow.
///
/// The memory and the SQLite store count from 1 without gaps; Redis gives `milliseconds-n`. A counter is a position whose
/// `time` is 0. [`Position::START`] comes before every entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Position {
    /// Milliseconds of the store's clock; 0 where positions are a counter.
    pub time: u64,
    /// The counter.
    pub number: u64,
}

impl Position {
    /// Before the first entry.
    pub const START: Self = Self { time: 0, number: 0 };

    /// The position `number` of a log that counts.
    pub const fn counter(number: u64) -> Self {
        Self { time: 0, number }
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.time {
            0 => write!(f, "{}", self.number),
            time => write!(f, "{time}-{}", self.number),
        }
    }
}

/// What a client shows to say what it has received: `<epoch>-<position>`.
///
/// An epoch is one life of the log's writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset {
    /// The life of the log's writer in which the position was given.
    pub epoch: u64,
    /// The position.
    pub position: Position,
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, self.position)
    }
}

/// The text is no offset of this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an offset is `<epoch>-<n>` or `<epoch>-<milliseconds>-<n>`, in decimal digits")]
pub struct OffsetError;

impl FromStr for Offset {
    type Err = OffsetError;

    fn from_str(text: &str) -> Result<Self, OffsetError> {
        let mut numbers = text.split('-').map(number);
        let mut next = || numbers.next().transpose();
        let (Some(epoch), Some(second), third, None) = (next()?, next()?, next()?, next()?) else {
            return Err(OffsetError);
        };
        let position = match third {
            Some(number) => Position { time: second, number },
            None => Position::counter(second),
        };
        Ok(Self { epoch, position })
    }
}

/// Decimal digits only: `u64::from_str` would take a `+`, too.
fn number(digits: &str) -> Result<u64, OffsetError> {
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(OffsetError);
    }
    digits.parse().map_err(|_| OffsetError)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_are_read_as_they_were_written() {
        for text in ["1-0", "3-17", "2-1700000000000-4", "18446744073709551615-1"] {
            assert_eq!(text.parse::<Offset>().map(|offset| offset.to_string()).as_deref(), Ok(text));
        }
    }

    #[test]
    fn other_texts_are_no_offsets() {
        for text in
            ["", "1", "-", "1-", "-1", "+1-2", "1-2-3-4", "a-1", "1-1 ", "99999999999999999999-1", "1--2"]
        {
            assert_eq!(text.parse::<Offset>(), Err(OffsetError), "{text:?}");
        }
    }
}
