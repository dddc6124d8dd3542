//! A header that parses is written back to the same bytes; a cut header asks for more or fails as the whole one does;
//! what can be peeked at is what will be parsed.

use adjourn::wire::header::{MAX_HEADER, parse, peek, write};

use super::seen;

pub fn check(bytes: &[u8]) {
    let whole = parse(bytes);
    let _ = whole.map_err(|error| seen::note("ProtocolError", || format!("{error:?}")));
    for cut in 0..bytes.len().min(MAX_HEADER) {
        match (parse(&bytes[..cut]), &whole) {
            (Ok(None), _) => {}
            (early, whole) => assert_eq!(&early, whole, "cut at {cut}"),
        }
    }
    assert!(bytes.len() < MAX_HEADER || whole != Ok(None), "{MAX_HEADER} bytes are enough for every header");
    let Ok(Some(header)) = whole else { return };
    let mut again = Vec::new();
    write(&mut again, header.fin, header.rsv1, header.opcode, header.mask, header.length);
    assert_eq!(again, bytes[..header.header_length]);
    assert_eq!(peek(bytes), Ok(Some(header.prefix())));
}
