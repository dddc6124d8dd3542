//! What each fuzz target does with a fuzzer's bytes: a `check` that panics on a finding. `fuzz/README.md` says what each of
//! them proves; `tests/fuzz_inputs.rs` runs the same on the inputs that are kept.

pub mod against_reference;
pub mod against_tungstenite;
pub mod any_split;
pub mod connection;
pub mod deflate;
pub mod header;
pub mod proxy_header;
pub mod seeds;
pub mod seen;
pub mod upgrade_request;
pub mod upgrade_response;
pub mod world;

mod head;
mod input;
mod peer;
mod reference;
mod scribe;

/// What a target does with its input.
pub type Check = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Check); 10] = [
    ("header", header::check),
    ("proxy_header", proxy_header::check),
    ("upgrade_request", upgrade_request::check),
    ("upgrade_response", upgrade_response::check),
    ("connection", connection::check),
    ("any_split", any_split::check),
    ("deflate", deflate::check),
    ("against_reference", against_reference::check),
    ("against_tungstenite", against_tungstenite::check),
    ("world", world::check),
];
