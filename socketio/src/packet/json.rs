//! One pass over a JSON text: is it valid, how deep, where are its elements and placeholders. Builds no values.
//!
//! Accepts exactly RFC 8259, which is what `JSON.parse` takes: any spelling of numbers, lone surrogates as escapes.

use std::borrow::Cow;
use std::ops::Range;

/// Beyond this the scanner's own stack would be at risk, whatever the settings say.
const DEEPEST: usize = 512;

/// What a text holds.
#[derive(Debug)]
pub(super) struct Scan {
    pub(super) kind: Kind,
    /// The elements, if it is an array.
    pub(super) elements: Vec<Range<usize>>,
    /// The placeholders in it, if they were asked for, in order.
    pub(super) placeholders: Vec<Placeholder>,
}

/// The kind of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Object,
    Array,
    Text,
    Number,
    True,
    Other,
}

/// An object with `"_placeholder":true`.
#[derive(Clone, Debug)]
pub(super) struct Placeholder {
    /// Its `num`, if it has one.
    pub(super) num: Option<Num>,
}

/// The `num` of a placeholder.
#[derive(Clone, Debug)]
pub(super) struct Num {
    /// Where it stands.
    pub(super) at: Range<usize>,
    /// Which attachment that is; `None`: no integer.
    pub(super) index: Option<usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ScanError {
    /// Not JSON.
    Invalid,
    /// Deeper than allowed.
    Depth,
}

/// Scans the JSON text that is `text[from..]`; all ranges are those of `text`.
pub(super) fn scan(text: &str, from: usize, max_depth: usize, placeholders: bool) -> Result<Scan, ScanError> {
    let mut scanner = Scanner {
        text,
        at: from,
        max_depth: max_depth.min(DEEPEST),
        wanted: placeholders,
        placeholders: Vec::new(),
    };
    scanner.space();
    let mut elements = Vec::new();
    let kind = match scanner.peek() {
        Some(b'[') => scanner.array(1, |element| elements.push(element))?,
        _ => scanner.value(0)?,
    };
    scanner.space();
    if scanner.at != text.len() {
        return Err(ScanError::Invalid);
    }
    Ok(Scan { kind, elements, placeholders: scanner.placeholders })
}

/// A text as a JSON string.
pub(crate) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}

/// The text that a JSON string stands for; lone surrogates become U+FFFD.
pub(super) fn unescape(quoted: &str) -> Cow<'_, str> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    let mut units = Vec::with_capacity(inner.len());
    let mut rest = inner.chars();
    while let Some(next) = rest.next() {
        let unit = match next {
            '\\' => escape(&mut rest),
            other => {
                units.extend_from_slice(other.encode_utf16(&mut [0; 2]));
                continue;
            }
        };
        units.push(unit);
    }
    Cow::Owned(String::from_utf16_lossy(&units))
}

/// The UTF-16 unit of the escape that has begun. The text was scanned, so that it is one.
fn escape(rest: &mut std::str::Chars<'_>) -> u16 {
    match rest.next() {
        Some('u') => {
            let digits = rest.as_str().get(..4).unwrap_or_default();
            let unit = u16::from_str_radix(digits, 16).unwrap_or(0xFFFD);
            let _ = rest.nth(3);
            unit
        }
        Some('b') => 8,
        Some('f') => 12,
        Some('n') => 10,
        Some('r') => 13,
        Some('t') => 9,
        Some('"') => 34,
        Some('\\') => 92,
        Some('/') => 47,
        _ => 0xFFFD,
    }
}

struct Scanner<'a> {
    text: &'a str,
    at: usize,
    max_depth: usize,
    wanted: bool,
    placeholders: Vec<Placeholder>,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn space(&mut self) {
        while let Some(b' ' | b'\t' | b'\n' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn take(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), ScanError> {
        if self.take(byte) { Ok(()) } else { Err(ScanError::Invalid) }
    }

    /// A value within `depth` arrays and objects.
    fn value(&mut self, depth: usize) -> Result<Kind, ScanError> {
        match self.peek() {
            Some(b'"') => self.string(),
            Some(b'{') => self.object(depth + 1),
            Some(b'[') => self.array(depth + 1, |_| ()),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.literal("true", Kind::True),
            Some(b'f') => self.literal("false", Kind::Other),
            Some(b'n') => self.literal("null", Kind::Other),
            _ => Err(ScanError::Invalid),
        }
    }

    fn array(&mut self, depth: usize, mut element: impl FnMut(Range<usize>)) -> Result<Kind, ScanError> {
        self.enter(depth)?;
        if self.take(b']') {
            return Ok(Kind::Array);
        }
        loop {
            let start = self.at;
            self.value(depth)?;
            element(start..self.at);
            self.space();
            if self.take(b']') {
                return Ok(Kind::Array);
            }
            self.expect(b',')?;
            self.space();
        }
    }

    fn object(&mut self, depth: usize) -> Result<Kind, ScanError> {
        self.enter(depth)?;
        if self.take(b'}') {
            return Ok(Kind::Object);
        }
        let before = self.placeholders.len();
        let mut is_placeholder = false;
        let mut num = None;
        loop {
            let key = self.key()?;
            let start = self.at;
            let kind = self.value(depth)?;
            if self.wanted {
                // The last one wins where a name comes twice, as in `JSON.parse`.
                match unescape(self.text.get(key).unwrap_or_default()).as_ref() {
                    "_placeholder" => is_placeholder = kind == Kind::True,
                    "num" => num = Some(self.num(start..self.at, kind)),
                    _ => (),
                }
            }
            self.space();
            if self.take(b'}') {
                break;
            }
            self.expect(b',')?;
            self.space();
        }
        if is_placeholder {
            // It is replaced as a whole: what is within it means nothing.
            self.placeholders.truncate(before);
            self.placeholders.push(Placeholder { num });
        }
        Ok(Kind::Object)
    }

    /// Past the opening bracket and the whitespace after it.
    fn enter(&mut self, depth: usize) -> Result<(), ScanError> {
        if depth > self.max_depth {
            return Err(ScanError::Depth);
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// A key, the colon, and the space around it.
    fn key(&mut self) -> Result<Range<usize>, ScanError> {
        let start = self.at;
        if self.peek() != Some(b'"') {
            return Err(ScanError::Invalid);
        }
        self.string()?;
        let key = start..self.at;
        self.space();
        self.expect(b':')?;
        self.space();
        Ok(key)
    }

    fn string(&mut self) -> Result<Kind, ScanError> {
        self.at += 1;
        loop {
            let byte = self.peek().ok_or(ScanError::Invalid)?;
            self.at += 1;
            match byte {
                b'"' => return Ok(Kind::Text),
                b'\\' => self.escaped()?,
                0..0x20 => return Err(ScanError::Invalid),
                _ => (),
            }
        }
    }

    fn escaped(&mut self) -> Result<(), ScanError> {
        let byte = self.peek().ok_or(ScanError::Invalid)?;
        self.at += 1;
        match byte {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Ok(()),
            b'u' => {
                let digits = self.text.as_bytes().get(self.at..self.at + 4).ok_or(ScanError::Invalid)?;
                if !digits.iter().all(u8::is_ascii_hexdigit) {
                    return Err(ScanError::Invalid);
                }
                self.at += 4;
                Ok(())
            }
            _ => Err(ScanError::Invalid),
        }
    }

    fn number(&mut self) -> Result<Kind, ScanError> {
        self.take(b'-');
        if !self.take(b'0') {
            self.digits()?;
        }
        if self.take(b'.') {
            self.digits()?;
        }
        if self.take(b'e') || self.take(b'E') {
            let _sign = self.take(b'+') || self.take(b'-');
            self.digits()?;
        }
        Ok(Kind::Number)
    }

    fn digits(&mut self) -> Result<(), ScanError> {
        let start = self.at;
        while let Some(b'0'..=b'9') = self.peek() {
            self.at += 1;
        }
        if self.at > start { Ok(()) } else { Err(ScanError::Invalid) }
    }

    fn literal(&mut self, word: &str, kind: Kind) -> Result<Kind, ScanError> {
        let end = self.at + word.len();
        if self.text.as_bytes().get(self.at..end) != Some(word.as_bytes()) {
            return Err(ScanError::Invalid);
        }
        self.at = end;
        Ok(kind)
    }

    fn num(&self, at: Range<usize>, kind: Kind) -> Num {
        let spelled = self.text.get(at.clone()).unwrap_or_default();
        let index = if kind == Kind::Number { integer(spelled) } else { None };
        Num { at, index }
    }
}

/// The integer that a JSON number is, however it is spelled.
pub(super) fn integer(spelled: &str) -> Option<usize> {
    if let Ok(index) = spelled.parse() {
        return Some(index);
    }
    let value: f64 = spelled.parse().ok()?;
    if value.fract() == 0.0 && (0.0..1e9).contains(&value) {
        format!("{:.0}", value.abs()).parse().ok()
    } else {
        None
    }
}
