//! The inputs that the fuzzers begin with and those that are kept, on the bodies of the fuzz targets. The worlds among
//! them are lived through by `tests/sim`.

#![cfg(feature = "deflate")]
#![allow(missing_docs, unreachable_pub, dead_code, clippy::unwrap_used)]

use targets::{
    against_reference, against_tungstenite, any_split, connection, deflate, header, seeds, upgrade_request,
    upgrade_response,
};

#[path = "../fuzz/src/targets/mod.rs"]
mod targets;

fn run(target: &str, input: &[u8]) {
    match target {
        "header" => header::check(input),
        "upgrade_request" => upgrade_request::check(input),
        "upgrade_response" => upgrade_response::check(input),
        "connection" => connection::check(input),
        "any_split" => any_split::check(input),
        "deflate" => deflate::check(input),
        "against_reference" => against_reference::check(input),
        "against_tungstenite" => against_tungstenite::check(input),
        "world" => {}
        other => panic!("no such target: {other}"),
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
    for (target, name, input) in seeds::kept() {
        println!("{target}: {name}");
        run(target, &input);
    }
}
