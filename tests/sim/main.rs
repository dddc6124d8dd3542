//! The proof, in virtual time: worlds of seeded peers, links and applications, and after each step every rule of
//! the closing specification that can be derived from what really happened on the wire.
//!
//! `ADJOURN_SIM_SEED=n cargo test --test sim` lives through one world again, `ADJOURN_SIM_TRACE=1` says what happens in
//! it. `README.md` beside this file lists the checks, and which bugs they are known to catch.

#![allow(missing_docs, unreachable_pub, clippy::unwrap_used)]

mod alarms;
mod app;
mod book;
mod chance;
mod driver;
mod endings;
mod facts;
mod frames;
mod inbound;
mod link;
mod outbound;
mod peer;
mod reports;
mod scenario;
mod shutdowns;
mod tally;
mod world;

use chance::Rng;
use scenario::Size;
use tally::Tally;

const LITTLE: Size = Size { connections: 24, shutdown: None, crowd: false, pace: None };

fn live(seed: u64, size: Size) -> Tally {
    let tracing = std::env::var_os("ADJOURN_SIM_TRACE").is_some();
    world::live(Rng::with_seed(seed), size, tracing, &mut |_, _| {}).unwrap_or_else(|failure| {
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
    for seed in 0..300 {
        tally.add(&live(seed, LITTLE));
    }
    let (rows, met, missing) = tally.coverage();
    assert!(met * 100 >= rows * 90, "{met} of {rows} rows of the table were met; not {missing:?}");
}

/// The worlds among `fuzz/inputs.txt`, which is in the repository and not in the package.
#[test]
fn every_world_that_the_fuzzer_keeps() {
    let inputs = concat!(env!("CARGO_MANIFEST_DIR"), "/fuzz/inputs.txt");
    let inputs = std::fs::read_to_string(inputs).unwrap_or_default();
    for line in inputs.lines().filter(|line| line.starts_with("world ")) {
        let (name, hex) = line.rsplit_once(' ').unwrap();
        let bytes = hex.as_bytes().chunks(2).map(|pair| str::from_utf8(pair).unwrap());
        let bytes: Vec<_> = bytes.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect();
        let (size, choices) = scenario::of_bytes(&bytes);
        if let Err(failure) = world::live(choices, size, false, &mut |_, _| {}) {
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
