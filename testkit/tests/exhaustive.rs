//! The small-scope proof with few commands; `simulate --exhaustive K` tries more. `src/exhaustive/README.md` says what is
//! checked, and which broken rules that is known to catch.

#![allow(missing_docs)]

use testkit::exhaustive::explore;

/// A few seconds in a debug build. `ADJOURN_EXHAUSTIVE` asks for another number.
const COMMANDS: usize = 3;

#[test]
fn every_rule_holds_in_every_small_world() {
    let asked = std::env::var("ADJOURN_EXHAUSTIVE").ok().and_then(|depth| depth.parse().ok());
    let depth = asked.unwrap_or(COMMANDS);
    let summary = explore(depth, &mut |_, _| {}).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(summary.worlds > 0 && summary.transitions.len() >= 10 * depth.min(COMMANDS));
    if depth >= COMMANDS {
        assert_eq!(summary.missing(), [""; 0], "rows of section 5 that no world met");
    }
}
