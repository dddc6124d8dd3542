#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| testkit::targets::upgrade_request::check(bytes));
