//! A header that parses is written back to the same bytes; a cut header asks for more or fails as the whole one does.
#![no_main]

use adjourn::wire::header::{parse, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let whole = parse(bytes);
    for cut in 0..bytes.len().min(14) {
        match (parse(&bytes[..cut]), &whole) {
            (Ok(None), _) => {}
            (early, whole) => assert_eq!(&early, whole, "cut at {cut}"),
        }
    }
    if let Ok(Some(header)) = whole {
        let mut again = Vec::new();
        write(&mut again, header.fin, header.rsv1, header.opcode, header.mask, header.length);
        assert_eq!(again, bytes[..header.header_length]);
    }
});
