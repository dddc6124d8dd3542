//! Finds the end of a request or response head, however it is cut, and looks at no byte twice. What it says does not enter.

use super::refusal::Refusal;
use super::token::is_token_byte;

/// How large a request head may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadLimits {
    /// Bytes of the request line, the header lines and the empty line.
    pub max_head: usize,
    /// Header lines, without the request line.
    pub max_headers: usize,
}

/// Looks for the empty line that ends a request head. One per connection, until it has a head.
///
/// Request smuggling needs two parsers that disagree about where a line or a head ends. So lines end in CRLF and nothing
/// else, although RFC 9112 §2.2 would allow a bare LF and empty lines before the request.
#[derive(Clone, Copy, Debug, Default)]
pub struct HeadScanner {
    seen: usize,
    header_lines: usize,
    place: Place,
}

/// A whole request head: proof that its line ends and its limits were checked.
#[derive(Clone, Copy, Debug)]
pub struct Head<'a> {
    pub(super) bytes: &'a [u8],
    pub(super) header_lines: usize,
}

/// What the next byte of the head may be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Start,
    InLine,
    AfterCr,
    LineStart,
    AfterLastCr,
    End,
}

impl Head<'_> {
    /// Bytes of the head. The first frame follows them.
    #[expect(clippy::len_without_is_empty, reason = "a head is never empty")]
    pub const fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl HeadScanner {
    /// Continues in `bytes`, which are all that have arrived on this connection so far, from its first byte on. `None`:
    /// the head is not complete. Each byte is looked at once, over all calls. Once it has returned a head or a
    /// refusal it returns the same again.
    ///
    /// A head that breaks a rule is refused with the byte that shows it, so a TLS greeting on the wrong port does not
    /// wait for the handshake timeout; one that exceeds a limit, as soon as that is certain.
    pub fn scan<'a>(&mut self, bytes: &'a [u8], limits: &HeadLimits) -> Result<Option<Head<'a>>, Refusal> {
        let mut rest = bytes.get(self.seen..limits.max_head.min(bytes.len())).unwrap_or_default();
        while let [byte, after @ ..] = rest {
            match self.place {
                Place::End => break,
                Place::InLine if is_plain(*byte) => {
                    let plain = plain_run(rest);
                    self.seen += plain;
                    rest = rest.get(plain..).unwrap_or_default();
                }
                _ => {
                    self.place = self.step(*byte, limits)?;
                    self.seen += 1;
                    rest = after;
                }
            }
        }
        if self.place == Place::End {
            return Ok(bytes.get(..self.seen).map(|bytes| Head { bytes, header_lines: self.header_lines }));
        }
        if self.seen >= limits.max_head { Err(Refusal::HEAD_TOO_LONG) } else { Ok(None) }
    }

    fn step(&mut self, byte: u8, limits: &HeadLimits) -> Result<Place, Refusal> {
        match (self.place, byte) {
            (Place::Start, b'\r' | b'\n') => Err(Refusal::EMPTY_LINE),
            (Place::Start, byte) if !is_token_byte(byte) => Err(Refusal::MALFORMED),
            (Place::LineStart, b'\r') => Ok(Place::AfterLastCr),
            // RFC 9112 §5.2: a server rejects obs-fold or joins the lines. Joined lines can hide something from a filter.
            (Place::LineStart, b' ' | b'\t') => Err(Refusal::FOLDED),
            (Place::InLine, b'\r') => Ok(Place::AfterCr),
            (Place::AfterCr, b'\n') => Ok(Place::LineStart),
            (Place::AfterLastCr, b'\n') | (Place::End, _) => Ok(Place::End),
            (Place::AfterCr | Place::AfterLastCr, _) => Err(Refusal::BARE_CR),
            (Place::InLine | Place::LineStart, b'\n') => Err(Refusal::BARE_LF),
            (Place::InLine | Place::LineStart, 0..=0x08 | 0x0B..=0x1F | 0x7F) => {
                Err(Refusal::CONTROL_CHARACTER)
            }
            (Place::LineStart, _) if self.header_lines >= limits.max_headers => {
                Err(Refusal::TOO_MANY_HEADERS)
            }
            (Place::LineStart, _) => {
                self.header_lines += 1;
                Ok(Place::InLine)
            }
            (Place::Start | Place::InLine, _) => Ok(Place::InLine),
        }
    }
}

/// A byte that may be inside a line and has no meaning for the scanner. A tab, which is rare, is handled apart.
#[inline]
const fn is_plain(byte: u8) -> bool {
    !byte.is_ascii_control()
}

/// How many plain bytes come first. Nearly all of a head is plain, so it looks at eight bytes at a time.
fn plain_run(bytes: &[u8]) -> usize {
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let control = control_bytes(u64::from_le_bytes(*word));
        if control != 0 {
            return index * 8 + control.trailing_zeros() as usize / 8;
        }
    }
    words.len() * 8 + rest.iter().take_while(|&&byte| is_plain(byte)).count()
}

/// Sets the top bit of bytes below 0x20 and of 0x7F. The lowest set bit is right; those above it may come from a borrow.
#[inline]
const fn control_bytes(word: u64) -> u64 {
    const ONES: u64 = u64::from_le_bytes([1; 8]);
    let below = word.wrapping_sub(ONES * 0x20) & !word;
    let delete = word ^ (ONES * 0x7F);
    (below | delete.wrapping_sub(ONES) & !delete) & (ONES * 0x80)
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: HeadLimits = HeadLimits { max_head: 64, max_headers: 3 };

    fn scan(bytes: &[u8]) -> Result<Option<usize>, Refusal> {
        Ok(HeadScanner::default().scan(bytes, &LIMITS)?.map(|head| head.len()))
    }

    #[test]
    fn the_end_of_a_head() {
        let rows: &[(&str, &[u8], Result<Option<usize>, Refusal>)] = &[
            ("nothing yet", b"", Ok(None)),
            ("no end yet", b"GET / HTTP/1.1\r\nHost: a\r\n", Ok(None)),
            ("cut inside the end", b"GET / HTTP/1.1\r\nHost: a\r\n\r", Ok(None)),
            ("the shortest", b"G\r\n\r\n", Ok(Some(5))),
            ("frames after the head stay", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\x81\x80", Ok(Some(27))),
            ("anything may follow", b"G\r\n\r\n\n\r\0", Ok(Some(5))),
            ("three headers", b"G\r\na:\r\nb:\r\nc:\r\n\r\n", Ok(Some(17))),
            (
                "four headers, at the first byte of the fourth",
                b"G\r\na:\r\nb:\r\nc:\r\nd",
                Err(Refusal::TOO_MANY_HEADERS),
            ),
            ("an empty line in front", b"\r\nGET", Err(Refusal::EMPTY_LINE)),
            ("an LF in front", b"\n", Err(Refusal::EMPTY_LINE)),
            ("a TLS greeting", b"\x16\x03\x01", Err(Refusal::MALFORMED)),
            ("a blank in front", b" GET", Err(Refusal::MALFORMED)),
            ("a bare LF after the request line", b"GET / HTTP/1.1\n", Err(Refusal::BARE_LF)),
            ("a bare LF after a header", b"G\r\na: b\n", Err(Refusal::BARE_LF)),
            ("a bare LF as the last line", b"G\r\n\n", Err(Refusal::BARE_LF)),
            ("a bare CR", b"GET / HTTP/1.1\rHost", Err(Refusal::BARE_CR)),
            ("two CRs", b"GET / HTTP/1.1\r\r\n", Err(Refusal::BARE_CR)),
            ("a bare CR as the last line", b"G\r\na:\r\n\rx", Err(Refusal::BARE_CR)),
            ("a folded line", b"G\r\na: b\r\n c\r\n\r\n", Err(Refusal::FOLDED)),
            ("a tab that folds", b"G\r\n\tb", Err(Refusal::FOLDED)),
            ("a NUL in a value", b"G\r\na: \0", Err(Refusal::CONTROL_CHARACTER)),
            ("a DEL in the target", b"GET /\x7f", Err(Refusal::CONTROL_CHARACTER)),
            ("a tab in a value", b"G\r\na:\tb\r\n\r\n", Ok(Some(11))),
        ];
        for (name, bytes, expected) in rows {
            assert_eq!(scan(bytes), *expected, "{name}");
        }
    }

    #[test]
    fn a_head_may_fill_the_limit_and_no_more() {
        let head = |length: usize| format!("G{}\r\n\r\n", "x".repeat(length - 5)).into_bytes();
        assert_eq!(scan(&head(64)), Ok(Some(64)), "exactly max_head");
        assert_eq!(scan(&head(65)), Err(Refusal::HEAD_TOO_LONG), "one more");
        assert_eq!(scan(&head(80)[..63]), Ok(None), "it could still end");
        assert_eq!(
            scan(&head(80)[..64]),
            Err(Refusal::HEAD_TOO_LONG),
            "it is clear one byte before the limit is passed"
        );
        let mut with_frames = head(64);
        with_frames.extend_from_slice(&[0x81; 1000]);
        assert_eq!(scan(&with_frames), Ok(Some(64)), "frames do not count");
    }

    #[test]
    fn a_megabyte_byte_by_byte_is_looked_at_once() {
        let limits = HeadLimits { max_head: 2_000_000, max_headers: 3 };
        let mut bytes = b"GET /".to_vec();
        bytes.resize(1_000_000, b'a');
        let mut scanner = HeadScanner::default();
        for end in 1..=bytes.len() {
            assert!(matches!(scanner.scan(&bytes[..end], &limits), Ok(None)));
            assert_eq!(scanner.seen, end);
        }
    }

    proptest! {
        #[test]
        fn runs_end_at_the_first_byte_that_is_not_plain(bytes in proptest::collection::vec(
            prop_oneof![9 => 0x20..=0xFF_u8, 1 => any::<u8>()], 0..60,
        )) {
            prop_assert_eq!(plain_run(&bytes), bytes.iter().take_while(|byte| is_plain(**byte)).count());
        }

        #[test]
        fn any_split_gives_the_same(
            parts in proptest::collection::vec(
                proptest::sample::select(vec!["\r\n", "\r", "\n", "a", ": ", " ", "GET / HTTP/1.1", "\0", "\r\n\r\n", "x: y\r\n"]),
                0..14,
            ),
            cuts in proptest::collection::vec(0..100_usize, 0..6),
        ) {
            let bytes = parts.concat().into_bytes();
            let whole = scan(&bytes);
            let mut cuts: Vec<_> = cuts.into_iter().map(|cut| cut.min(bytes.len())).collect();
            cuts.sort_unstable();
            cuts.push(bytes.len());
            let mut scanner = HeadScanner::default();
            let mut pieces = Ok(None);
            for cut in cuts {
                let verdict = scanner.scan(&bytes[..cut], &LIMITS).map(|head| head.map(|head| head.len()));
                if pieces != Ok(None) {
                    prop_assert_eq!(verdict, pieces, "it answers the same again");
                }
                pieces = verdict;
            }
            prop_assert_eq!(pieces, whole);
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = scan(&bytes);
        }
    }
}
