//! Which rows of the transition table were asked for. Built for fuzzing only (`--cfg fuzzing`).

use std::cell::RefCell;

use super::state::InputKind;
use crate::state::State;

type Rows = [[u64; InputKind::ALL.len()]; State::ALL.len()];

thread_local! {
    static ROWS: RefCell<Rows> = const { RefCell::new([[0; InputKind::ALL.len()]; State::ALL.len()]) };
}

pub(super) fn note(state: State, input: InputKind) {
    ROWS.with_borrow_mut(|rows| rows[state as usize][input as usize] += 1);
}

/// How often [`step`](super::step) was asked what `input` does in `state`, on this thread.
pub fn count(state: State, input: InputKind) -> u64 {
    ROWS.with_borrow(|rows| rows[state as usize][input as usize])
}
