//! Header values that are lists: subprotocols (§11.3.4) and extension offers (§9.1). One pass, whatever the bytes. Which of
//! them are chosen does not enter.

use std::borrow::Cow;
use std::{slice, str};

use httparse::Header;

use super::headers::trim;
use super::token::{is_token, is_token_byte};

/// A subprotocol that the client has offered. It can only come from
/// [`Request::subprotocol`](super::Request::subprotocol) or [`Request::subprotocols`](super::Request::subprotocols).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subprotocol<'a>(&'a str);

impl<'a> Subprotocol<'a> {
    /// The token as the client wrote it.
    pub const fn as_str(self) -> &'a str {
        self.0
    }
}

/// The subprotocols of a request, in the client's order of preference (RFC 6455 §4.1). Ends at the first that is not a token,
/// which a WebSocket handshake refuses with 400.
#[derive(Clone, Debug)]
pub struct Subprotocols<'a> {
    headers: slice::Iter<'a, Header<'a>>,
    line: Option<&'a [u8]>,
    failed: bool,
}

impl<'a> Subprotocols<'a> {
    const NAME: &'static str = "Sec-WebSocket-Protocol";

    pub(super) fn new(headers: &'a [Header<'a>]) -> Self {
        Self { headers: headers.iter(), line: None, failed: false }
    }

    /// RFC 6455 §4.1: if the header is present it names at least one, each is a token, and "MUST all be unique strings". Allocates
    /// if there are more than a few, to find duplicates by sorting, so that thousands of names take no quadratic time.
    pub(super) fn are_valid(mut self) -> bool {
        const FEW: usize = 8;
        let present = self.headers.clone().any(|header| header.name.eq_ignore_ascii_case(Self::NAME));
        let mut first = [""; FEW];
        let mut count = 0;
        let every = self.clone();
        for Subprotocol(token) in self.by_ref() {
            if let Some(place) = first.get_mut(count) {
                *place = token;
            }
            count += 1;
        }
        if self.failed || (present && count == 0) {
            return false;
        }
        let unique = |sorted: &mut [&str]| {
            sorted.sort_unstable();
            sorted.windows(2).all(|pair| pair.first() != pair.last())
        };
        match first.get_mut(..count) {
            Some(few) => unique(few),
            None => unique(&mut every.map(Subprotocol::as_str).collect::<Vec<_>>()),
        }
    }
}

impl<'a> Iterator for Subprotocols<'a> {
    type Item = Subprotocol<'a>;

    fn next(&mut self) -> Option<Subprotocol<'a>> {
        while !self.failed {
            let Some(line) = self.line else {
                self.line =
                    Some(self.headers.find(|header| header.name.eq_ignore_ascii_case(Self::NAME))?.value);
                continue;
            };
            let mut parts = line.splitn(2, |&byte| byte == b',');
            let element = trim(parts.next().unwrap_or_default());
            self.line = parts.next();
            if element.is_empty() {
                continue;
            }
            match str::from_utf8(element) {
                Ok(token) if is_token(element) => return Some(Subprotocol(token)),
                _ => self.failed = true,
            }
        }
        None
    }
}

/// One extension that the client offers, with its parameters (RFC 6455 §9.1).
#[derive(Clone, Debug)]
pub struct Extension<'a> {
    /// The extension's registered name, as the client wrote it. Names and parameters are case-sensitive (RFC 6455 §9.1
    /// does not say otherwise).
    pub name: &'a str,
    parameters: &'a [u8],
}

impl<'a> Extension<'a> {
    /// The parameters in order. A name may be repeated: whether that is an error is up to the extension.
    pub const fn parameters(&self) -> Parameters<'a> {
        Parameters { cursor: Cursor { rest: self.parameters } }
    }
}

/// The parameters of one extension: name, and value if it has one. A quoted value is returned without its quotes.
///
/// Allocates for a value with a backslash, which no common client sends.
#[derive(Clone, Debug)]
pub struct Parameters<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Parameters<'a> {
    type Item = (&'a str, Option<Cow<'a, str>>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.cursor.parameter().ok()??;
        Some((
            name,
            value.map(|raw| if raw.contains('\\') { raw.replace('\\', "").into() } else { raw.into() }),
        ))
    }
}

/// The extensions that a request offers, over all its lines, in order. Ends at the first that does not follow the
/// grammar, which a WebSocket handshake refuses with 400.
#[derive(Clone, Debug)]
pub struct Extensions<'a> {
    headers: slice::Iter<'a, Header<'a>>,
    cursor: Cursor<'a>,
    failed: bool,
}

impl<'a> Extensions<'a> {
    const NAME: &'static str = "Sec-WebSocket-Extensions";

    pub(super) fn new(headers: &'a [Header<'a>]) -> Self {
        Self { headers: headers.iter(), cursor: Cursor { rest: &[] }, failed: false }
    }

    /// Lets `look` see the elements of one value of the header.
    #[cfg(feature = "deflate")]
    pub(crate) fn with_value<T>(value: &str, look: impl FnOnce(Extensions<'_>) -> T) -> T {
        let headers = [Header { name: Self::NAME, value: value.as_bytes() }];
        look(Extensions::new(&headers))
    }

    /// RFC 6455 §9.1: "if the value does not conform to the ABNF the recipient fails the connection".
    pub(crate) fn are_valid(mut self) -> bool {
        let present = self.headers.clone().any(|header| header.name.eq_ignore_ascii_case(Self::NAME));
        let count = self.by_ref().count();
        !self.failed && (!present || count > 0)
    }
}

impl<'a> Iterator for Extensions<'a> {
    type Item = Extension<'a>;

    fn next(&mut self) -> Option<Extension<'a>> {
        while !self.failed {
            if self.cursor.at_end_of_list() {
                self.cursor.rest =
                    self.headers.find(|header| header.name.eq_ignore_ascii_case(Self::NAME))?.value;
                continue;
            }
            match self.cursor.extension() {
                Ok(extension) => return Some(extension),
                Err(Malformed) => self.failed = true,
            }
        }
        None
    }
}

/// The bytes of one line that are not read yet. Every method moves forward and none goes back.
///
/// ```text
///   extension-list  = 1#extension
///   extension       = extension-token *( ";" extension-param )
///   extension-param = token [ "=" (token | quoted-string) ]    ; what is quoted must be a token once unescaped
/// ```
#[derive(Clone, Debug)]
struct Cursor<'a> {
    rest: &'a [u8],
}

/// The line does not follow the grammar.
struct Malformed;

impl<'a> Cursor<'a> {
    /// Skips what may separate two elements; returns whether there is no further element.
    fn at_end_of_list(&mut self) -> bool {
        while let [b' ' | b'\t' | b',', after @ ..] = self.rest {
            self.rest = after;
        }
        self.rest.is_empty()
    }

    fn extension(&mut self) -> Result<Extension<'a>, Malformed> {
        let name = self.token()?;
        let parameters = self.rest;
        while self.parameter()?.is_some() {}
        // The parameters end at a comma or with the line.
        Ok(Extension {
            name,
            parameters: parameters.get(..parameters.len() - self.rest.len()).unwrap_or_default(),
        })
    }

    /// One `; name [= value]`, the value still escaped; `None` at the end of the extension.
    fn parameter(&mut self) -> Result<Option<(&'a str, Option<&'a str>)>, Malformed> {
        self.skip_blanks();
        match self.rest {
            [] | [b',', ..] => return Ok(None),
            [b';', after @ ..] => self.rest = after,
            _ => return Err(Malformed),
        }
        self.skip_blanks();
        let name = self.token()?;
        self.skip_blanks();
        let [b'=', after @ ..] = self.rest else {
            return Ok(Some((name, None)));
        };
        self.rest = after;
        self.skip_blanks();
        let value = if let [b'"', after @ ..] = self.rest {
            self.rest = after;
            self.quoted()?
        } else {
            self.token()?
        };
        Ok(Some((name, Some(value))))
    }

    /// Everything up to the closing quote, backslashes included.
    fn quoted(&mut self) -> Result<&'a str, Malformed> {
        let mut length = 0;
        let mut rest = self.rest;
        loop {
            match rest {
                [b'"', after @ ..] if length > 0 => {
                    let value = self.text(length);
                    self.rest = after;
                    return value;
                }
                [b'\\', byte, after @ ..] if is_token_byte(*byte) => {
                    length += 2;
                    rest = after;
                }
                [byte, after @ ..] if is_token_byte(*byte) => {
                    length += 1;
                    rest = after;
                }
                _ => return Err(Malformed),
            }
        }
    }

    fn token(&mut self) -> Result<&'a str, Malformed> {
        let length = self.rest.iter().take_while(|&&byte| is_token_byte(byte)).count();
        if length == 0 {
            return Err(Malformed);
        }
        let token = self.text(length)?;
        self.rest = self.rest.get(length..).unwrap_or_default();
        Ok(token)
    }

    fn text(&self, length: usize) -> Result<&'a str, Malformed> {
        let bytes = self.rest.get(..length).ok_or(Malformed)?;
        str::from_utf8(bytes).map_err(|_| Malformed)
    }

    fn skip_blanks(&mut self) {
        while let [b' ' | b'\t', after @ ..] = self.rest {
            self.rest = after;
        }
    }
}

#[cfg(test)]
#[expect(clippy::type_complexity, reason = "rows of tables")]
mod tests {
    use proptest::prelude::*;

    use super::super::headers::list_contains;
    use super::*;

    fn lines<'a>(name: &'a str, values: &[&'a [u8]]) -> Vec<Header<'a>> {
        let noise = Header { name: "X-Noise", value: b"chat, \"" };
        values.iter().flat_map(|value| [noise, Header { name, value }]).collect()
    }

    #[test]
    fn subprotocols_are_unique_tokens() {
        let rows: &[(&str, &[&[u8]], Option<&[&str]>)] = &[
            ("no line, no offer", &[], Some(&[])),
            ("one", &[b"chat"], Some(&["chat"])),
            ("two, in order", &[b"v2.chat, v1.chat"], Some(&["v2.chat", "v1.chat"])),
            ("over two lines", &[b"b,a", b"c"], Some(&["b", "a", "c"])),
            ("blanks and tabs around", &[b"\t a \t,\tb "], Some(&["a", "b"])),
            ("empty elements are ignored", &[b",a,,b,"], Some(&["a", "b"])),
            ("names are case-sensitive", &[b"chat, Chat"], Some(&["chat", "Chat"])),
            (
                "nine, which are too many for the short way",
                &[b"9,8,7,6,5,4,3,2,1"],
                Some(&["9", "8", "7", "6", "5", "4", "3", "2", "1"]),
            ),
            (
                "property names of some languages",
                &[b"constructor, __proto__"],
                Some(&["constructor", "__proto__"]),
            ),
            ("an empty line", &[b""], None),
            ("nothing but commas", &[b", ,"], None),
            ("the same twice", &[b"chat, x, chat"], None),
            ("the same twice, over two lines", &[b"chat", b"chat"], None),
            ("the same twice among many", &[b"1,2,3,4,5,6,7,8,9,3"], None),
            ("a blank inside", &[b"my chat"], None),
            ("a slash", &[b"chat/2"], None),
            ("quotes", &[b"\"chat\""], None),
            ("a byte beyond ASCII", &[b"ch\xC3\xA4t"], None),
        ];
        for (name, values, expected) in rows {
            let headers = lines("sec-websocket-protocol", values);
            let offered = Subprotocols::new(&headers);
            assert_eq!(offered.clone().are_valid(), expected.is_some(), "{name}");
            if let Some(expected) = expected {
                assert_eq!(offered.map(Subprotocol::as_str).collect::<Vec<_>>(), *expected, "{name}");
            }
        }
    }

    #[test]
    fn extensions_follow_the_grammar() {
        let rows: &[(&str, &[&[u8]], Option<&str>)] = &[
            ("no line, no offer", &[], Some("")),
            ("a name", &[b"foo"], Some("foo")),
            ("a parameter without a value", &[b"foo; bar"], Some("foo;bar")),
            ("a parameter with one", &[b"foo; bar=1"], Some("foo;bar=1")),
            ("a value in quotes", &[b"foo; bar=\"1\""], Some("foo;bar=1")),
            ("a value in quotes with backslashes", &[b"foo; bar=\"\\1\\0\""], Some("foo;bar=10")),
            (
                "blanks wherever they may stand",
                &[b" \tfoo ;\tbar = 1 ; baz , qux\t"],
                Some("foo;bar=1;baz|qux"),
            ),
            (
                "what Chromium sends",
                &[b"permessage-deflate; client_max_window_bits"],
                Some("permessage-deflate;client_max_window_bits"),
            ),
            (
                "two offers of one extension",
                &[b"permessage-deflate; server_max_window_bits=10, permessage-deflate"],
                Some("permessage-deflate;server_max_window_bits=10|permessage-deflate"),
            ),
            ("over two lines", &[b"foo, bar; a", b"baz"], Some("foo|bar;a|baz")),
            ("the same parameter twice", &[b"foo; a; a=2"], Some("foo;a;a=2")),
            ("empty elements are ignored", &[b",foo,,bar,"], Some("foo|bar")),
            (
                "a name that means something elsewhere",
                &[b"constructor; __proto__=1"],
                Some("constructor;__proto__=1"),
            ),
            ("an empty line", &[b""], None),
            ("nothing but commas", &[b",,"], None),
            ("a comma and a semicolon", &[b",;"], None),
            ("no name", &[b"; a"], None),
            ("a semicolon at the end", &[b"foo;"], None),
            ("two semicolons", &[b"foo;;a"], None),
            ("no value", &[b"foo; a="], None),
            ("no parameter name", &[b"foo; =1"], None),
            ("an empty value in quotes", &[b"foo; a=\"\""], None),
            ("a quote that is never closed", &[b"foo; a=\"1"], None),
            ("a quote closed on the next line", &[b"foo; a=\"1", b"2\""], None),
            ("an escaped closing quote", &[b"foo; a=\"1\\\""], None),
            ("a blank in quotes, which is no token", &[b"foo; a=\"1 2\""], None),
            ("a comma in quotes, which is no token", &[b"foo; a=\"1,2\""], None),
            ("something after the quotes", &[b"foo; a=\"1\"2"], None),
            ("two names", &[b"foo bar"], None),
            ("a slash", &[b"foo/bar"], None),
            ("a byte beyond ASCII", &[b"foo; a=\xFF"], None),
        ];
        for (name, values, expected) in rows {
            let headers = lines("SEC-WEBSOCKET-EXTENSIONS", values);
            let offered = Extensions::new(&headers);
            assert_eq!(offered.clone().are_valid(), expected.is_some(), "{name}");
            if let Some(expected) = expected {
                assert_eq!(written(offered), *expected, "{name}");
            }
        }
    }

    fn written(extensions: Extensions<'_>) -> String {
        let one = |extension: Extension<'_>| {
            let parameters = extension.parameters().map(|(name, value)| match value {
                Some(value) => format!(";{name}={value}"),
                None => format!(";{name}"),
            });
            format!("{}{}", extension.name, parameters.collect::<String>())
        };
        extensions.map(one).collect::<Vec<_>>().join("|")
    }

    /// Each of these took quadratic or exponential time somewhere (CVE-2021-32640, websocket-extensions < 0.1.4). At a
    /// megabyte anything but one pass would take minutes.
    #[test]
    fn hostile_lists_take_one_pass() {
        const MEGABYTE: usize = 1 << 20;
        let of =
            |head: &str, unit: &str| format!("{head}{}", unit.repeat(MEGABYTE / unit.len())).into_bytes();
        for value in [
            of("a; b=\"", "\\c"),
            of("a; b=\"", "c"),
            of("a", " "),
            of("", " "),
            of("", " ,"),
            of("a", ";b"),
            of("a", ",a"),
            of("a;b=", "\""),
            of("a;b", "= "),
            of("", "\t\t x"),
        ] {
            let extensions = lines("Sec-WebSocket-Extensions", &[&value]);
            let _ = Extensions::new(&extensions).are_valid();
            let _ = written(Extensions::new(&extensions));
            let subprotocols = lines("Sec-WebSocket-Protocol", &[&value]);
            let _ = Subprotocols::new(&subprotocols).are_valid();
            let _ = list_contains(&subprotocols, "Sec-WebSocket-Protocol", "x");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics_and_what_is_valid_is_complete(value in "[a-b\\\\\",;= \t\u{e9}]{0,24}") {
            let headers = lines("Sec-WebSocket-Extensions", &[value.as_bytes()]);
            let extensions = Extensions::new(&headers);
            if extensions.clone().are_valid() {
                // Written back plainly and read again it is the same.
                let plain = written(extensions).replace('|', ",");
                let again = lines("Sec-WebSocket-Extensions", &[plain.as_bytes()]);
                prop_assert!(Extensions::new(&again).are_valid());
                prop_assert_eq!(written(Extensions::new(&again)).replace('|', ","), plain);
            }
            let headers = lines("Sec-WebSocket-Protocol", &[value.as_bytes()]);
            let _ = Subprotocols::new(&headers).are_valid();
        }
    }
}
