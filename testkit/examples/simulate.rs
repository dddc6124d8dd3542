//! Lives through simulated worlds: hostile peers, slow links, a whole shutdown, in virtual time and from a seed.
//!
//! ```text
//! cargo run --release --example simulate -- --worlds 1000 --connections 24 [--seed 0] [--shutdown] [--spread SECONDS] [--keep-going]
//! ```
//!
//! With `--loops` they are worlds of several loops, connections of our own, adopted ones and those of proxies.
//! With `--exhaustive K` it tries all worlds of up to K commands instead: a server and a client of this crate, and every order.
//!
//! A world of more than 10,000 connections is a crowd: mostly quiet peers and ordinary settings.

#![allow(missing_docs)]

use std::{
    io::Write as _,
    process::ExitCode,
    time::{Duration, Instant},
};

use testkit::{
    exhaustive, fleet,
    sim::{self, Rng, Size, Tally},
};

fn main() -> ExitCode {
    let number = |name: &str| {
        let mut args = std::env::args().skip_while(|arg| arg != name);
        args.nth(1).and_then(|value| value.parse::<u64>().ok())
    };
    if let Some(depth) = number("--exhaustive") {
        return explore(usize::try_from(depth).unwrap_or(usize::MAX));
    }
    let worlds = number("--worlds").unwrap_or(1);
    if std::env::args().any(|arg| arg == "--loops") {
        return live_in_fleets(number("--seed").unwrap_or(0), worlds);
    }
    let connections = u32::try_from(number("--connections").unwrap_or(24)).unwrap_or(u32::MAX);
    let first = number("--seed").unwrap_or(0);
    let size = Size {
        connections,
        shutdown: std::env::args().any(|arg| arg == "--shutdown").then_some(true),
        crowd: connections > 10_000,
        pace: number("--spread").map(|seconds| adjourn::shutdown::Pace::Spread(Duration::from_secs(seconds))),
    };
    let tracing = std::env::var_os("ADJOURN_SIM_TRACE").is_some();
    let start = Instant::now();
    let mut bar = Bar { worlds, drawn: start };
    let mut tally = Tally::default();
    let keeps_going = std::env::args().any(|arg| arg == "--keep-going");
    let mut failures = 0_u64;
    for world in 0..worlds {
        let seed = first + world;
        let lived = sim::live(Rng::with_seed(seed), size, tracing, &mut |now, checker| {
            bar.draw(
                world,
                &format!("{:>4} s, {} open, {} closed", now / 1_000_000, checker.opens, checker.closes),
            );
        });
        match lived {
            Ok(one) => tally.add(&one),
            Err(failure) => {
                eprintln!();
                println!(
                    "check {} failed in world {seed} at {} us, connection {:?}: {}",
                    failure.check, failure.at, failure.connection, failure.text
                );
                println!(
                    "replay: cargo run --release --example simulate -- --connections {connections} --seed {seed}"
                );
                if !keeps_going {
                    return ExitCode::FAILURE;
                }
                failures += 1;
            }
        }
        bar.draw(world + 1, "");
    }
    bar.end();
    summarize(&tally, start.elapsed());
    if failures > 0 {
        println!("failed        {failures} of {worlds} worlds");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Worlds of several loops.
fn live_in_fleets(first: u64, worlds: u64) -> ExitCode {
    let (start, tracing) = (Instant::now(), std::env::var_os("ADJOURN_SIM_TRACE").is_some());
    let keeps_going = std::env::args().any(|arg| arg == "--keep-going");
    let (mut all, mut failures) = (fleet::Summary::default(), 0_u64);
    for seed in first..first + worlds {
        match fleet::live(seed, tracing) {
            Ok(one) => all.add(one),
            Err(failure) => {
                println!(
                    "check {} failed in world {seed} at {} us, connection {:?}: {}",
                    failure.check, failure.at, failure.connection, failure.text
                );
                println!("replay: cargo run --release --example simulate -- --loops --seed {seed}");
                failures += 1;
                if !keeps_going {
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    println!("{all:?}, {failures} failed, {:.1?}", start.elapsed());
    if failures > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// All worlds of up to `depth` commands.
fn explore(depth: usize) -> ExitCode {
    let start = Instant::now();
    let explored = exhaustive::explore(depth, &mut |done, so_far| {
        let _ = write!(std::io::stderr(), "\r{done} of 9 pairs of links, {} worlds", so_far.worlds);
    });
    eprintln!();
    match explored {
        Err(failure) => {
            println!("{failure}");
            ExitCode::FAILURE
        }
        Ok(summary) => {
            print!("{summary}");
            println!("peak memory   {}", peak_memory().unwrap_or_else(|| "unknown".into()));
            println!("time taken    {:.1?}", start.elapsed());
            let missing = summary.missing();
            if missing.is_empty() {
                return ExitCode::SUCCESS;
            }
            println!("rows of section 5 that no world met: {missing:?}");
            ExitCode::FAILURE
        }
    }
}

/// Progress, on stderr, ten times a second at most.
struct Bar {
    worlds: u64,
    drawn: Instant,
}

impl Bar {
    fn draw(&mut self, done: u64, what: &str) {
        if self.drawn.elapsed() >= Duration::from_millis(100) {
            self.drawn = Instant::now();
            let filled = usize::try_from(done * 40 / self.worlds.max(1)).unwrap_or(40);
            let _ =
                write!(std::io::stderr(), "\r[{:<40}] {done}/{} {what:<60}", "#".repeat(filled), self.worlds);
        }
    }

    fn end(&self) {
        let _ = writeln!(std::io::stderr(), "\r[{}] {} worlds {:<60}", "#".repeat(40), self.worlds, "");
    }
}

fn summarize(tally: &Tally, took: Duration) {
    let (rows, met, missing) = tally.coverage();
    println!("worlds        {}", tally.worlds);
    println!("connections   {}", tally.connections);
    println!("virtual time  {:.0?}, {} turns, {} events", tally.lived, tally.turns, tally.events);
    println!("shutdowns     {}, the longest took {:?}", tally.shutdowns, tally.longest_shutdown);
    println!(
        "transitions   {met} of {rows} rows of the table (state x input with an effect); not {missing:?}"
    );
    let endings: u64 = tally.endings.values().sum();
    println!("endings       {endings}, {} of them clean", tally.clean);
    for (cause, count) in &tally.endings {
        println!("  {cause:<22}{count:>12}");
    }
    println!("handshakes that failed");
    for (cause, count) in &tally.failures {
        println!("  {cause:<22}{count:>12}");
    }
    println!("peak memory   {}", peak_memory().unwrap_or_else(|| "unknown".into()));
    println!("time taken    {took:.1?}");
}

/// Linux: the most that was resident.
fn peak_memory() -> Option<String> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().to_owned())
}
