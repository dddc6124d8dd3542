//! specification 22, "model": random worlds against a naive list of what was called, in virtual time, from one seed.
//!
//! `MODEL_WORLDS=100000 cargo test --release -p adjourn-socketio --test model` runs many; `MODEL_SEED=n` runs one again.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "core/world.rs"]
mod world;

#[path = "model/list.rs"]
mod list;
#[path = "model/readers.rs"]
mod readers;
#[path = "model/sim.rs"]
mod sim;

use sim::Sim;

#[test]
fn random_worlds_give_what_a_naive_list_says() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("MODEL_SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("MODEL_WORLDS").unwrap_or(400),
    };
    let mut totals = sim::Totals::default();
    for seed in seeds {
        let run = std::panic::catch_unwind(|| Sim::new(seed).run());
        match run {
            Ok(totals_of_world) => totals.add(&totals_of_world),
            Err(panic) => {
                eprintln!("world {seed} failed: MODEL_SEED={seed} runs it again");
                std::panic::resume_unwind(panic);
            }
        }
    }
    println!("{totals:?}");
}
