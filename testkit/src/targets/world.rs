//! The simulation, from a fuzzer's bytes instead of a seed: every choice of the world takes the next of
//! them, and when there are no more, a generator that they have seeded goes on.

use super::seen;
use crate::sim;

/// `ADJOURN_SIM_TRACE=1` says what happens in it.
pub fn check(bytes: &[u8]) {
    let (size, choices) = sim::of_bytes(bytes);
    let tracing = std::env::var_os("ADJOURN_SIM_TRACE").is_some();
    match sim::live(choices, size, tracing, &mut |_, _| {}) {
        Ok(tally) => {
            tally.endings.keys().for_each(|cause| seen::note("Cause", || (*cause).to_owned()));
            tally.failures.keys().for_each(|cause| seen::note("HandshakeError", || cause.clone()));
        }
        Err(failure) => panic!(
            "check {} failed at {} us, connection {:?}: {}",
            failure.check, failure.at, failure.connection, failure.text
        ),
    }
}
