//! What happened, counted over all worlds.

use std::{collections::BTreeMap, time::Duration};

use adjourn::{
    CloseReport, clients::State, conn::InputKind, error::HandshakeError, shutdown::ShutdownReport,
};

/// Counts.
#[derive(Clone, Debug)]
pub struct Tally {
    pub worlds: u64,
    pub connections: u64,
    pub turns: u64,
    pub events: u64,
    /// Virtual time.
    pub lived: Duration,
    pub endings: BTreeMap<&'static str, u64>,
    pub failures: BTreeMap<String, u64>,
    pub clean: u64,
    pub shutdowns: u64,
    pub longest_shutdown: Duration,
    /// State x input.
    covered: [[u64; InputKind::ALL.len()]; State::ALL.len()],
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            worlds: 0,
            connections: 0,
            turns: 0,
            events: 0,
            lived: Duration::ZERO,
            endings: BTreeMap::new(),
            failures: BTreeMap::new(),
            clean: 0,
            shutdowns: 0,
            longest_shutdown: Duration::ZERO,
            covered: [[0; InputKind::ALL.len()]; State::ALL.len()],
        }
    }
}

impl Tally {
    pub fn cover(&mut self, state: State, input: InputKind) {
        self.covered[state as usize][input as usize] += 1;
    }

    pub fn closed(&mut self, closed: &CloseReport) {
        *self.endings.entry(closed.cause.name()).or_default() += 1;
        self.clean += u64::from(closed.was_clean());
    }

    pub fn failed_handshake(&mut self, cause: HandshakeError) {
        *self.failures.entry(format!("{cause:?}")).or_default() += 1;
    }

    pub fn shutdown(&mut self, report: &ShutdownReport) {
        self.shutdowns += 1;
        self.longest_shutdown = self.longest_shutdown.max(report.took);
    }

    pub fn add(&mut self, other: &Self) {
        self.worlds += other.worlds;
        self.connections += other.connections;
        self.turns += other.turns;
        self.events += other.events;
        self.lived += other.lived;
        self.clean += other.clean;
        self.shutdowns += other.shutdowns;
        self.longest_shutdown = self.longest_shutdown.max(other.longest_shutdown);
        for (cause, count) in &other.endings {
            *self.endings.entry(cause).or_default() += count;
        }
        for (cause, count) in &other.failures {
            *self.failures.entry(cause.clone()).or_default() += count;
        }
        for (mine, theirs) in self.covered.iter_mut().flatten().zip(other.covered.iter().flatten()) {
            *mine += theirs;
        }
    }

    /// The rows of the table that have an effect and can be met by way of the hub; how many were; and which were not.
    pub fn coverage(&self) -> (usize, usize, Vec<(State, InputKind)>) {
        let rows: Vec<_> = rows_with_an_effect().into_iter().filter(|row| can_happen(*row)).collect();
        let count = rows.len();
        let met = |(state, input): (State, InputKind)| self.covered[state as usize][input as usize] > 0;
        let missing: Vec<_> = rows.into_iter().filter(|row| !met(*row)).collect();
        (count, count - missing.len(), missing)
    }
}

/// The rows of the transition table that do something, as the documentation has them; a test of the crate compares that
/// with the code.
pub fn rows_with_an_effect() -> Vec<(State, InputKind)> {
    let table = include_str!("../../../docs/transitions.md");
    let mut rows = Vec::new();
    for line in table.lines().filter(|line| line.starts_with("| ") && !line.ends_with("| same | - | - |")) {
        let mut cells = line.trim_matches('|').split('|').map(str::trim);
        let (Some(state), Some(inputs)) = (cells.next(), cells.next()) else { continue };
        let Some(state) = State::ALL.into_iter().find(|known| format!("{known:?}") == state) else {
            continue;
        };
        for input in inputs.split(", ") {
            rows.extend(
                InputKind::ALL.into_iter().find(|known| format!("{known:?}") == input).map(|i| (state, i)),
            );
        }
    }
    rows
}

/// Some rows are there for completeness only: nobody has an id before `Open`, some inputs are distinguished by the
/// state itself, nobody connects, no invariant is broken, and no pause lasts too long.
fn can_happen((state, input): (State, InputKind)) -> bool {
    match input {
        InputKind::ConnectFailed | InputKind::Internal => false,
        InputKind::Terminate => state != State::Refusing,
        InputKind::PeerCloseAfterFlush | InputKind::ViolationAfterFlush => state != State::Open,
        _ => true,
    }
}
