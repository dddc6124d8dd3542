//! The header lines of a head: where they are kept while it is read, and how one is found. What they mean does not enter.

use std::fmt;
use std::mem::MaybeUninit;

use httparse::Header;

/// Room for the header lines of one [`Request`](super::Request) or response. Cheap to make: a kilobyte of stack that is not initialised, and
/// an allocation only for requests that have more lines than fit.
pub struct HeaderStorage<'a> {
    few: [MaybeUninit<Header<'a>>; HeaderStorage::FEW],
    many: Vec<MaybeUninit<Header<'a>>>,
}

impl HeaderStorage<'_> {
    /// The number of headers that need no allocation. Browsers send about 15, proxies add a few.
    pub const FEW: usize = 32;
}

impl<'a> HeaderStorage<'a> {
    /// Empty room.
    pub const fn new() -> Self {
        Self { few: [const { MaybeUninit::uninit() }; HeaderStorage::FEW], many: Vec::new() }
    }

    pub(super) fn room_for(&mut self, lines: usize) -> &mut [MaybeUninit<Header<'a>>] {
        if lines <= HeaderStorage::FEW {
            return &mut self.few;
        }
        self.many.clear();
        self.many.resize_with(lines, MaybeUninit::uninit);
        &mut self.many
    }
}

impl Default for HeaderStorage<'_> {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for HeaderStorage<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeaderStorage").finish_non_exhaustive()
    }
}

/// Whether one of the lines named `name` has `token` in its list, in any case.
pub(super) fn list_contains(headers: &[Header<'_>], name: &str, token: &str) -> bool {
    values(headers, name).flat_map(elements).any(|element| element.eq_ignore_ascii_case(token.as_bytes()))
}

/// The values of all lines of that name, in order.
pub(super) fn values<'a>(headers: &'a [Header<'a>], name: &str) -> impl Iterator<Item = &'a [u8]> {
    headers.iter().filter(move |header| header.name.eq_ignore_ascii_case(name)).map(|header| header.value)
}

/// How often a header occurs that must not be a list. Two of them are an error: a proxy and a server may disagree about
/// which of the two counts.
pub(super) enum Single<'a> {
    None,
    One(&'a [u8]),
    Several,
}

pub(super) fn single<'a>(headers: &'a [Header<'a>], name: &str) -> Single<'a> {
    let mut values = values(headers, name);
    match (values.next(), values.next()) {
        (None, _) => Single::None,
        (Some(value), None) => Single::One(value),
        (Some(_), Some(_)) => Single::Several,
    }
}

/// The elements of one line without the empty ones, which a recipient ignores (RFC 9110 §5.6.1.2).
fn elements(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&byte| byte == b',').map(trim).filter(|element| !element.is_empty())
}

/// Without the optional whitespace around it: blanks and tabs only (RFC 9110 §5.6.3).
pub(super) fn trim(bytes: &[u8]) -> &[u8] {
    let mut rest = bytes;
    while let [b' ' | b'\t', after @ ..] = rest {
        rest = after;
    }
    while let [before @ .., b' ' | b'\t'] = rest {
        rest = before;
    }
    rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn token_lists() {
        let rows: &[(&str, &[&[u8]], bool)] = &[
            ("alone", &[b"upgrade"], true),
            ("in any case", &[b"UpGrade"], true),
            ("among others", &[b"keep-alive, Upgrade"], true),
            ("on the second line", &[b"keep-alive", b"Upgrade"], true),
            ("with blanks and empty elements", &[b" ,\tUpgrade ,"], true),
            ("as part of another", &[b"upgrade-insecure"], false),
            ("with a neighbour but no comma", &[b"keep-alive upgrade"], false),
            ("in quotes", &[b"\"upgrade\""], false),
            ("not at all", &[b"close"], false),
            ("empty", &[b""], false),
        ];
        for (name, values, expected) in rows {
            let noise = Header { name: "X-Noise", value: b"upgrade" };
            let lines = values.iter().flat_map(|value| [noise, Header { name: "connection", value }]);
            let lines: Vec<_> = lines.collect();
            assert_eq!(list_contains(&lines, "Connection", "upgrade"), *expected, "{name}");
        }
    }
}
