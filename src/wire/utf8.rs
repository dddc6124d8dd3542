//! UTF-8 across pieces; fails at the first byte that no continuation can make valid (§8.1). Knows no frame.

use std::str;

use thiserror::Error;

/// A text message, or the reason of a Close, is not UTF-8. The answer is a Close frame with code 1007.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("text is not valid UTF-8")]
pub struct InvalidUtf8;

/// Validates one message, piece by piece. A few bytes; start each message with [`Utf8::default`].
///
/// Between pieces it remembers what a cut character still needs: how many bytes, and the range of the next one, which is
/// narrower after E0, ED, F0 and F4 (RFC 3629 §4). So `F0 80` fails at `80`, although two more bytes are missing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Utf8 {
    missing: u8,
    lowest: u8,
    highest: u8,
}

impl Utf8 {
    /// Takes the next piece, of any length. After an error the message is lost: do not feed more.
    #[inline]
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), InvalidUtf8> {
        let mut rest = bytes;
        while self.missing > 0 {
            let Some((&byte, after)) = rest.split_first() else {
                return Ok(());
            };
            self.step(byte)?;
            rest = after;
        }
        match str::from_utf8(rest) {
            Ok(_) => Ok(()),
            Err(error) if error.error_len().is_some() => Err(InvalidUtf8),
            // The last character is cut: at most three bytes of it have arrived.
            Err(error) => rest.iter().skip(error.valid_up_to()).try_for_each(|&byte| self.step(byte)),
        }
    }

    /// The message ends here: fails if it ends inside a character.
    #[inline]
    pub const fn finish(self) -> Result<(), InvalidUtf8> {
        if self.missing == 0 { Ok(()) } else { Err(InvalidUtf8) }
    }

    fn step(&mut self, byte: u8) -> Result<(), InvalidUtf8> {
        if self.missing > 0 {
            if byte < self.lowest || byte > self.highest {
                return Err(InvalidUtf8);
            }
            *self = Self { missing: self.missing - 1, lowest: 0x80, highest: 0xBF };
            return Ok(());
        }
        // RFC 3629 §4, the table of well-formed sequences: overlong forms, surrogates and what lies beyond U+10FFFF
        // are kept out by the second byte.
        let (missing, lowest, highest) = match byte {
            0x00..=0x7F => (0, 0x80, 0xBF),
            0xC2..=0xDF => (1, 0x80, 0xBF),
            0xE0 => (2, 0xA0, 0xBF),
            0xE1..=0xEC | 0xEE | 0xEF => (2, 0x80, 0xBF),
            0xED => (2, 0x80, 0x9F),
            0xF0 => (3, 0x90, 0xBF),
            0xF1..=0xF3 => (3, 0x80, 0xBF),
            0xF4 => (3, 0x80, 0x8F),
            0x80..=0xC1 | 0xF5..=0xFF => return Err(InvalidUtf8),
        };
        *self = Self { missing, lowest, highest };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The index of the byte at which the verdict falls, or the length of the whole if none does before its end.
    fn first_bad_byte(bytes: &[u8]) -> Option<usize> {
        // By definition: a prefix is bad if std finds an error in it that more bytes could not complete.
        (1..=bytes.len())
            .find(|&end| str::from_utf8(&bytes[..end]).is_err_and(|error| error.error_len().is_some()))
            .map(|end| end - 1)
    }

    fn fails_at(bytes: &[u8]) -> Option<usize> {
        let mut utf8 = Utf8::default();
        bytes.iter().position(|&byte| utf8.feed(&[byte]).is_err())
    }

    #[test]
    fn fails_at_the_first_bad_byte() {
        let rows: &[(&str, &[u8], Option<usize>)] = &[
            ("ASCII", b"Hello", None),
            ("nothing", b"", None),
            ("two, three and four bytes", "é€😀".as_bytes(), None),
            ("the last code point", &[0xF4, 0x8F, 0xBF, 0xBF], None),
            ("the code points beside the surrogates", &[0xED, 0x9F, 0xBF, 0xEE, 0x80, 0x80], None),
            ("C0 leads nothing", &[0x41, 0xC0], Some(1)),
            ("C1 leads nothing", &[0xC1, 0x80], Some(0)),
            ("a continuation byte alone", &[0x80], Some(0)),
            ("an overlong three bytes", &[0xE0, 0x9F], Some(1)),
            ("a surrogate", &[0xED, 0xA0, 0x80], Some(1)),
            ("an overlong four bytes", &[0xF0, 0x80], Some(1)),
            ("beyond U+10FFFF", &[0xF4, 0x90], Some(1)),
            ("F5 leads nothing", &[0xF5], Some(0)),
            ("FF", &[0xFF], Some(0)),
            ("ASCII inside a character", &[0xE2, 0x82, 0x41], Some(2)),
            ("a new lead inside a character", &[0xF1, 0x80, 0x80, 0xC2], Some(3)),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(fails_at(bytes), *expected, "{name}");
            assert_eq!(first_bad_byte(bytes), *expected, "{name}, by definition");
        }
    }

    #[test]
    fn a_message_does_not_end_inside_a_character() {
        let rows: &[(&str, &[u8], Result<(), InvalidUtf8>)] = &[
            ("whole", "é".as_bytes(), Ok(())),
            ("empty", b"", Ok(())),
            ("cut after one of two", &[0xC3], Err(InvalidUtf8)),
            ("cut after two of three", &[0x41, 0xE2, 0x82], Err(InvalidUtf8)),
            ("cut after three of four", &[0xF0, 0x9F, 0x98], Err(InvalidUtf8)),
        ];
        for (name, bytes, expected) in rows {
            let mut utf8 = Utf8::default();
            assert_eq!(utf8.feed(bytes), Ok(()), "{name}");
            assert_eq!(utf8.finish(), *expected, "{name}");
        }
        assert!(size_of::<Utf8>() <= 8);
    }

    /// Bytes near the edges of UTF-8, so that sequences are right or wrong by a hair.
    fn edgy() -> impl Strategy<Value = Vec<u8>> {
        let character = any::<char>().prop_map(|char| char.to_string().into_bytes());
        let edge = proptest::sample::select(vec![
            0x00, 0x41, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1, 0xED, 0xEF,
            0xF0, 0xF4, 0xF5,
        ])
        .prop_map(|byte: u8| vec![byte]);
        let ascii = (0..40_usize).prop_map(|length| vec![b'a'; length]);
        proptest::collection::vec(prop_oneof![4 => character, 1 => edge, 1 => ascii], 0..12)
            .prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_verdict_at_the_same_byte(
            bytes in edgy(),
            cuts in proptest::collection::vec(0..64_usize, 0..8),
        ) {
            let bad = first_bad_byte(&bytes);
            prop_assert_eq!(fails_at(&bytes), bad);

            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).chain([0, bytes.len()]).collect();
            cuts.sort_unstable();
            let mut utf8 = Utf8::default();
            for piece in cuts.windows(2) {
                let bad_here = bad.is_some_and(|bad| (piece[0]..piece[1]).contains(&bad));
                prop_assert_eq!(utf8.feed(&bytes[piece[0]..piece[1]]).is_err(), bad_here);
                if bad_here {
                    return Ok(());
                }
            }
            prop_assert_eq!(utf8.finish().is_ok(), str::from_utf8(&bytes).is_ok());
        }
    }
}
