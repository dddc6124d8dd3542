//! Instruction counts of the parts that every byte passes: wire, connection, hub. See `benches/README.md`.
//!
//! ```text
//! benches/instructions/run                        counts, and compares with benches/instructions.tsv
//! benches/instructions/run --update               counts, and writes that file
//! benches/instructions/run --scale                counts with up to 1,000,000 connections: NAME:CONNECTIONS, tab, count
//! benches/instructions/run --profile NAME         writes a profile of one benchmark for callgrind_annotate
//! ```
//!
//! which is `cargo bench --bench instructions -- ...` once valgrind is there. Without `--bench`, which cargo adds, each benchmark runs once, uncounted: that is what `cargo test --benches` does.

mod book;
mod crowd;
mod hub;
mod valgrind;
mod wire;

use std::process::ExitCode;

/// Something to count.
pub(crate) struct Bench {
    pub(crate) name: &'static str,
    /// What a count is per.
    pub(crate) unit: &'static str,
    /// How many of them a round has.
    pub(crate) units: u32,
    /// Makes what a round needs, and what only the first one would have to make; the round is what it returns.
    pub(crate) prepare: fn() -> Round,
}

/// The part that is counted.
pub(crate) type Round = Box<dyn FnMut()>;

/// A round that has happened once already, so that buffers have grown and memory has been asked for.
pub(crate) fn again(mut round: impl FnMut() + 'static) -> Round {
    round();
    Box::new(round)
}

fn benches() -> Vec<&'static Bench> {
    wire::BENCHES.iter().chain(hub::BENCHES).collect()
}

/// Valgrind counts between entering and leaving this function.
#[inline(never)]
fn measured(round: &mut dyn FnMut()) {
    round();
    std::hint::black_box(());
}

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    let counted = std::env::args().any(|arg| arg == "--bench");
    let args: Vec<&str> = args.iter().map(String::as_str).collect();
    let done = match *args {
        ["--measure", name] => find(name).map(run),
        ["--measure-late", name] => find(name).and_then(|bench| {
            let mut round = (bench.prepare)();
            valgrind::count_from_here().map(|()| measured(&mut *round))
        }),
        ["--scale"] => scale(),
        ["--profile", name] => find(name).and_then(|bench| valgrind::profile(bench.name)),
        ["--update"] => valgrind::count(&benches(), "--measure").and_then(|counts| book::update(&counts)),
        [] if counted => valgrind::count(&benches(), "--measure").and_then(|counts| book::compare(&counts)),
        [] => {
            benches().into_iter().for_each(run);
            Ok(())
        }
        _ => Err(format!("what is {args:?}? --update, --scale, --profile NAME or nothing")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("instructions: {error}");
            ExitCode::FAILURE
        }
    }
}

fn scale() -> Result<(), String> {
    for count in valgrind::count(&hub::SCALE.iter().collect::<Vec<_>>(), "--measure-late")? {
        println!("{count}");
    }
    Ok(())
}

fn find(name: &str) -> Result<&'static Bench, String> {
    let found = wire::BENCHES.iter().chain(hub::BENCHES).chain(hub::SCALE).find(|bench| bench.name == name);
    found.ok_or_else(|| format!("no benchmark is called {name}"))
}

fn run(bench: &Bench) {
    measured(&mut *(bench.prepare)());
}
