//! Any bytes as a request head: refused or understood, the same for every cut, and what is answered is one HTTP head.
#![no_main]

use adjourn::wire::upgrade::{HeadLimits, HeadScanner, HeaderStorage, Request, write_switching_protocols};
use libfuzzer_sys::fuzz_target;

const LIMITS: HeadLimits = HeadLimits { max_head: 4096, max_headers: 50 };

fuzz_target!(|input: (u16, &[u8])| {
    let (cut, bytes) = input;
    let whole = HeadScanner::default().scan(bytes, &LIMITS).map(|head| head.map(|head| head.len()));

    let mut scanner = HeadScanner::default();
    let first = scanner.scan(&bytes[..usize::from(cut).min(bytes.len())], &LIMITS).map(|head| head.map(|h| h.len()));
    let second = match first {
        Ok(None) => scanner.scan(bytes, &LIMITS).map(|head| head.map(|head| head.len())),
        done => done,
    };
    assert_eq!(whole, second, "cut at {cut}");

    if let Ok(Some(head)) = HeadScanner::default().scan(bytes, &LIMITS) {
        let mut storage = HeaderStorage::new();
        match Request::parse(head, &mut storage) {
            Err(refusal) => refusal.write(&mut Vec::new()),
            Ok(request) => {
                let _ = (request.path(), request.query(), request.host(), request.origin(), request.is_upgrade());
                let (tokens, extensions) = (request.subprotocols().count(), request.extensions().count());
                assert!(tokens + extensions <= bytes.len());
                match request.accept() {
                    Err(refusal) => refusal.write(&mut Vec::new()),
                    Ok(accepted) => {
                        let mut answer = Vec::new();
                        write_switching_protocols(&mut answer, &accepted, request.subprotocols().next(), None, &[]);
                        let ends = answer.windows(4).filter(|window| window == b"\r\n\r\n").count();
                        assert_eq!(ends, 1, "nothing from outside ends the head");
                    }
                }
            }
        }
    }
});
