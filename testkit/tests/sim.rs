//! The proof, in virtual time: worlds of seeded peers, links and applications, and after each step every rule of
//! the closing specification that can be derived from what really happened on the wire.
//!
//! `ADJOURN_SIM_SEED=n cargo test --test sim` lives through one world again, `ADJOURN_SIM_TRACE=1` says what happens in
//! it. `src/sim/README.md` lists the checks, and which bugs they are known to catch.

#![allow(missing_docs)]

use testkit::{
    kept,
    sim::{self, Rng, Size, Tally},
};

const LITTLE: Size = Size { connections: 24, shutdown: None, crowd: false, pace: None };

fn live(seed: u64, size: Size) -> Tally {
    let tracing = std::env::var_os("ADJOURN_SIM_TRACE").is_some();
    sim::live(Rng::with_seed(seed), size, tracing, &mut |_, _| {}).unwrap_or_else(|failure| {
        panic!(
            "check {} failed at {} us, connection {:?}: {}\nreplay with ADJOURN_SIM_SEED={seed}",
            failure.check, failure.at, failure.connection, failure.text
        )
    })
}

#[test]
fn every_rule_holds_in_every_world() {
    if let Some(seed) = std::env::var("ADJOURN_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        live(seed, LITTLE);
        return;
    }
    let mut tally = Tally::default();
    for seed in 0..400 {
        tally.add(&live(seed, LITTLE));
    }
    let (rows, met, missing) = tally.coverage();
    assert!(met * 100 >= rows * 90, "{met} of {rows} rows of the table were met; not {missing:?}");
}

/// The worlds among `fuzz/inputs.txt`.
#[test]
fn every_world_that_the_fuzzer_keeps() {
    for (_, name, bytes) in kept::inputs().into_iter().filter(|(target, ..)| target == "world") {
        let (size, choices) = sim::of_bytes(&bytes);
        if let Err(failure) = sim::live(choices, size, false, &mut |_, _| {}) {
            panic!("{name}: check {} failed: {}", failure.check, failure.text);
        }
    }
}

#[test]
fn a_crowd_goes_down() {
    let crowd = Size { connections: 5_000, shutdown: Some(true), crowd: true, pace: None };
    let tally = live(7, crowd);
    assert_eq!(tally.shutdowns, 1);
}
