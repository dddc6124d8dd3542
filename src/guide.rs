//! The guide: what cannot be said at one item. The pages lie in `docs/`.

/// How a connection ends, an introduction: the idea, the states, the life of a close, the report, points of interpretation.
#[doc = include_str!("../docs/how_a_connection_ends.md")]
pub mod how_a_connection_ends {}

/// The closing specification: the rules, numbered, and which of them are not implemented yet.
#[doc = include_str!("../docs/specification.md")]
pub mod specification {}

/// Which test stands for which rule of the specification.
#[doc = include_str!("../docs/rules_and_tests.md")]
pub mod rules_and_tests {}

/// Where things live, the farthest way of a byte and the farthest way of a close.
#[doc = include_str!("../docs/architecture.md")]
pub mod architecture {}

/// The transition table, as the tests read it.
#[doc = include_str!("../docs/transitions.md")]
pub mod transitions {}

/// Known attacks on WebSocket servers: what each does, what comes of it, and what it costs, measured.
#[doc = include_str!("../docs/attacks.md")]
pub mod attacks {}

/// What other servers do where peers lose data or hang, with versions.
#[doc = include_str!("../docs/what_others_do.md")]
pub mod what_others_do {}

/// How to take a server down under an orchestrator.
#[doc = include_str!("../docs/shutting_down.md")]
pub mod shutting_down {}

/// The verdicts of the Autobahn test suite on both roles, and the command that asks for them.
#[doc = include_str!("../docs/autobahn.md")]
pub mod autobahn {}

/// The page in `docs/performance.md`: this crate beside its peers, and where the time goes.
#[doc = include_str!("../docs/performance.md")]
pub mod performance {}
