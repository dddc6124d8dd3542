//! What each target does with a fuzzer's bytes: a `check` that panics on a finding. `tests/fuzz_inputs.rs` runs the same
//! on the inputs that are kept.

pub mod against_reference;
pub mod against_tungstenite;
pub mod any_split;
pub mod connection;
pub mod deflate;
pub mod header;
pub mod seeds;
pub mod upgrade_request;
pub mod upgrade_response;

mod head;
mod input;
mod peer;
mod reference;
mod scribe;
pub mod seen;
