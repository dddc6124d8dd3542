//! Worlds of several loops, of connections of our own, adopted ones, and those of proxies. `ADJOURN_SIM_SEED=n cargo test --test fleet`
//! lives through one again, and `ADJOURN_SIM_TRACE=1` says what happens in it. `src/sim/README.md` lists the checks.

#![allow(missing_docs)]

use testkit::fleet::{self, Summary};

fn live(seed: u64) -> Summary {
    let tracing = std::env::var_os("ADJOURN_SIM_TRACE").is_some();
    fleet::live(seed, tracing).unwrap_or_else(|failure| {
        panic!(
            "check {} failed at {} us, connection {:?}: {}\nreplay with ADJOURN_SIM_SEED={seed}",
            failure.check, failure.at, failure.connection, failure.text
        )
    })
}

#[test]
fn every_rule_holds_in_every_world_of_several_loops() {
    if let Some(seed) = std::env::var("ADJOURN_SIM_SEED").ok().and_then(|seed| seed.parse().ok()) {
        live(seed);
        return;
    }
    let mut all = Summary::default();
    for seed in 0..300 {
        all.add(live(seed));
    }
    assert!(all.opened > 5_000 && all.failed > 5_000 && all.timers > 500, "{all:?}");
}
