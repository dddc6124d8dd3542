//! The inputs that the fuzzers begin with and those that are kept, on the bodies of the fuzz targets. The worlds among
//! them are lived through by `sim.rs`.

#![cfg(feature = "deflate")]

use testkit::{
    kept,
    targets::{TARGETS, seeds},
};

fn run(target: &str, input: &[u8]) {
    let known = TARGETS.iter().find(|(name, _)| *name == target);
    let (name, check) = known.unwrap_or_else(|| panic!("no such target: {target}"));
    if *name != "world" {
        check(input);
    }
}

#[test]
fn every_seed_holds_on_its_target_and_so_does_its_first_half() {
    for (target, inputs) in seeds::all() {
        for input in &inputs {
            run(target, input);
            run(target, &input[..input.len() / 2]);
        }
    }
}

#[test]
fn every_kept_input_holds() {
    for (target, name, input) in kept::inputs() {
        println!("{target}: {name}");
        run(&target, &input);
    }
}
