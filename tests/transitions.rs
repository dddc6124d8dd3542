//! The transition table exists once as data, in `docs/transitions.md`, written from the specification; the code must do
//! exactly what it says for every pair of a state and an input.

use std::{collections::BTreeMap, fmt::Write as _};

use adjourn::conn::{Effect, Input, State, step};

const TABLE: &str = include_str!("../docs/transitions.md");

/// (state, input) -> (next state, effects), as the file has it. A row may name several inputs.
fn table() -> BTreeMap<(String, String), (String, String)> {
    let mut table = BTreeMap::new();
    for line in TABLE
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| State ") && !line.starts_with("| ---"))
    {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [state, inputs, next, effects] = cells[..] else { panic!("a row has four cells: {line}") };
        for input in inputs.split(", ") {
            let next = if next == "same" { state } else { next };
            let row = (next.to_owned(), effects.to_owned());
            let pair = (state.to_owned(), input.to_owned());
            assert!(table.insert(pair, row).is_none(), "twice in the table: {state} x {input}");
        }
    }
    table
}

fn names(effects: &[Effect]) -> String {
    let names: Vec<_> = effects.iter().map(|effect| format!("{effect:?}")).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(", ") }
}

#[test]
fn every_state_and_input_does_what_the_table_says() {
    let mut table = table();
    let mut wrong = String::new();
    for state in State::ALL {
        for input in Input::ALL {
            let Some((next, effects)) = table.remove(&(format!("{state:?}"), format!("{input:?}"))) else {
                writeln!(wrong, "missing: {state:?} x {input:?}").expect("a string");
                continue;
            };
            let step = step(state, input);
            let done = (format!("{:?}", step.next), names(step.effects));
            if done != (next.clone(), effects.clone()) {
                writeln!(wrong, "{state:?} x {input:?}: {done:?}, the table says {next}, {effects}")
                    .expect("a string");
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(table.is_empty(), "rows for nothing that exists: {table:?}");
}

#[test]
fn the_lists_of_states_and_inputs_are_complete_and_without_repetition() {
    for (index, state) in State::ALL.iter().enumerate() {
        assert!(!State::ALL[..index].contains(state));
    }
    for (index, input) in Input::ALL.iter().enumerate() {
        assert!(!Input::ALL[..index].contains(input));
    }
}

/// What must hold for any table of this kind, whatever its rows say.
#[test]
fn the_table_has_the_shape_that_the_specification_asks_for() {
    for state in State::ALL {
        for input in Input::ALL {
            let step = step(state, input);
            let pair = format!("{state:?} x {input:?}");
            let reports = step.effects.iter().filter(|e| matches!(e, Effect::Report | Effect::Abort)).count();
            assert!(reports <= 1, "{pair}: reported at most once");
            if step.next == State::Lingering && state.is_established() {
                assert!(step.effects.contains(&Effect::Report), "{pair}: lingering begins with the report");
            }
            if step.next == State::Closed && state.is_established() {
                assert!(
                    step.effects.contains(&Effect::Abort),
                    "{pair}: an established connection ends by an abort"
                );
            }
            assert!(step.next >= state || step.next == State::Lingering, "{pair}: no way back");
            if step.effects.contains(&Effect::QueueClose) {
                assert_eq!(state, State::Open, "{pair}: at most one Close of ours");
            }
        }
    }
}

/// Every closing state ends by its deadline, whatever came before.
#[test]
fn every_state_has_an_end() {
    for state in State::ALL {
        let ends = match state {
            State::Connecting => Input::HandshakeTimeout,
            State::Refusing | State::Lingering => Input::LingerEnd,
            State::Open => Input::Terminate,
            State::LocalClosing | State::RemoteClosing | State::Failing => Input::CloseTimeout,
            State::Closed => continue,
        };
        assert_ne!(step(state, ends).next, state, "{state:?} is left by {ends:?}");
    }
}
