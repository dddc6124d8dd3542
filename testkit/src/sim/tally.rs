//! What happened, counted over all worlds.

use std::{collections::BTreeMap, time::Duration};

use adjourn::{
    Closed, HandshakeCause, ShutdownReport, State,
    conn::{Input, step},
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
    covered: [[u64; Input::ALL.len()]; State::ALL.len()],
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
            covered: [[0; Input::ALL.len()]; State::ALL.len()],
        }
    }
}

impl Tally {
    pub fn cover(&mut self, state: State, input: Input) {
        self.covered[state as usize][input as usize] += 1;
    }

    pub fn closed(&mut self, closed: &Closed) {
        *self.endings.entry(closed.cause.name()).or_default() += 1;
        self.clean += u64::from(closed.was_clean());
    }

    pub fn failed_handshake(&mut self, cause: HandshakeCause) {
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
    pub fn coverage(&self) -> (usize, usize, Vec<(State, Input)>) {
        let (mut rows, mut missing) = (0, Vec::new());
        for state in State::ALL {
            for input in Input::ALL {
                let row = step(state, input);
                if (row.next == state && row.effects.is_empty()) || !can_happen(state, input) {
                    continue;
                }
                rows += 1;
                if self.covered[state as usize][input as usize] == 0 {
                    missing.push((state, input));
                }
            }
        }
        (rows, rows - missing.len(), missing)
    }
}

/// Some rows are there for completeness only: nobody has an id before `Open`, and some inputs are told from others by
/// the state itself, and the one of a client that cannot connect.
fn can_happen(state: State, input: Input) -> bool {
    let named = matches!(input, Input::Send | Input::Close | Input::Kick | Input::Terminate);
    match state {
        State::Connecting | State::Refusing => {
            !named && !matches!(input, Input::SendUnanswered | Input::ConnectFailed)
        }
        State::Open => {
            !matches!(input, Input::SendUnanswered | Input::PeerCloseAfterFlush | Input::ViolationAfterFlush)
        }
        State::RemoteClosing => true,
        State::LocalClosing | State::Failing | State::Lingering | State::Closed => {
            input != Input::SendUnanswered
        }
    }
}
