//! The head of an HTTP/1.1 message, taken apart in the plainest way: an opponent for `wire::upgrade`.

/// The first line, and the header lines as lower-case name and value.
pub struct PlainHead<'a> {
    pub first: &'a [u8],
    headers: Vec<(Vec<u8>, &'a [u8])>,
}

impl<'a> PlainHead<'a> {
    /// `None` if there is no empty line, or a line without a colon before it.
    pub fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut rest = bytes;
        let first = line(&mut rest)?;
        let mut headers = Vec::new();
        loop {
            match line(&mut rest)? {
                [] => return Some(Self { first, headers }),
                line => {
                    let colon = line.iter().position(|byte| *byte == b':')?;
                    headers.push((line[..colon].to_ascii_lowercase(), trim(&line[colon + 1..])));
                }
            }
        }
    }

    /// The values of all lines of that name.
    pub fn values(&self, name: &str) -> Vec<&'a [u8]> {
        let lines = self.headers.iter().filter(|(found, _)| found == name.as_bytes());
        lines.map(|(_, value)| *value).collect()
    }

    /// The value, if the line is there exactly once.
    pub fn value(&self, name: &str) -> Option<&'a [u8]> {
        match self.values(name)[..] {
            [value] => Some(value),
            _ => None,
        }
    }

    /// The lists of all lines of that name as one, without the empty elements.
    pub fn list(&self, name: &str) -> Vec<&'a [u8]> {
        let lines = self.values(name).into_iter();
        let elements = lines.flat_map(|value| value.split(|byte| *byte == b',')).map(trim);
        elements.filter(|element| !element.is_empty()).collect()
    }

    /// The same, of words that do not differ by case.
    pub fn lists(&self, name: &str, word: &str) -> bool {
        self.list(name).iter().any(|element| element.eq_ignore_ascii_case(word.as_bytes()))
    }
}

fn line<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let end = rest.windows(2).position(|pair| pair == b"\r\n")?;
    let line = &rest[..end];
    *rest = &rest[end + 2..];
    Some(line)
}

/// Without blanks and tabs around it.
pub fn trim(mut bytes: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = bytes {
        bytes = rest;
    }
    bytes
}
