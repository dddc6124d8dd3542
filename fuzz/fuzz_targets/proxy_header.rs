#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testkit::targets::proxy_header::check(bytes));
