//! The bodies of the fuzz targets. `README.md` beside `Cargo.toml` says what each of them proves.

pub mod simulation;
pub mod targets;

/// What a target does with its input.
pub type Check = fn(&[u8]);

/// The targets by name.
pub const TARGETS: [(&str, Check); 9] = [
    ("header", targets::header::check),
    ("upgrade_request", targets::upgrade_request::check),
    ("upgrade_response", targets::upgrade_response::check),
    ("connection", targets::connection::check),
    ("any_split", targets::any_split::check),
    ("deflate", targets::deflate::check),
    ("against_reference", targets::against_reference::check),
    ("against_tungstenite", targets::against_tungstenite::check),
    ("world", simulation::check),
];

#[path = "../../tests/sim/alarms.rs"]
mod alarms;
#[path = "../../tests/sim/app.rs"]
mod app;
#[path = "../../tests/sim/book.rs"]
mod book;
#[path = "../../tests/sim/chance.rs"]
mod chance;
#[path = "../../tests/sim/driver.rs"]
mod driver;
#[path = "../../tests/sim/endings.rs"]
mod endings;
#[path = "../../tests/sim/facts.rs"]
mod facts;
#[path = "../../tests/sim/frames.rs"]
mod frames;
#[path = "../../tests/sim/inbound.rs"]
mod inbound;
#[path = "../../tests/sim/link.rs"]
mod link;
#[path = "../../tests/sim/outbound.rs"]
mod outbound;
#[path = "../../tests/sim/peer.rs"]
mod peer;
#[path = "../../tests/sim/reports.rs"]
mod reports;
#[path = "../../tests/sim/scenario.rs"]
mod scenario;
#[path = "../../tests/sim/shutdowns.rs"]
mod shutdowns;
#[allow(dead_code, reason = "one world has nothing to add up")]
#[path = "../../tests/sim/tally.rs"]
mod tally;
#[path = "../../tests/sim/world.rs"]
mod world;
