//! The small-scope proof: beside random worlds, all worlds. A server and a client of this crate, joined by links that hold
//! 0, 1 or 2 writes, live through every order of up to K commands of either application and of the network between them.
//!
//! Each world is then run to its end, and what both sides report is held against what was on the wire and asked for; see
//! `exhaustive/README.md`. Cores cannot be cloned, so each order is replayed from the start.
//!
//! ```text
//!   exhaustive   every order, depth first
//!     world      two cores and what can happen to them
//!     wire       kernels, links, frames
//!     facts      what was seen, and what must be reported therefore
//!     table      section 5 of the specification, as rows
//! ```

mod facts;
mod table;
mod wire;
mod world;

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use adjourn::clients::State;

pub use self::world::Command;
use self::{
    table::{NEVER_MET, ROWS},
    world::{Capacities, World},
};

/// The capacities of the two links, in writes: each of 0, 1 and 2 in each direction.
const CAPACITIES: [Capacities; 9] = [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2], [2, 0], [2, 1], [2, 2]];

/// What was tried and met.
#[derive(Debug, Default)]
pub struct Summary {
    /// Orders of commands that were run to the end.
    pub worlds: u64,
    /// Orders that lead to where another one has led, since both cores get the same inputs.
    pub same: u64,
    /// Commands that are refused or do nothing: orders end before them.
    pub dead: u64,
    /// Ends by each row of the table.
    pub rows: Vec<u64>,
    /// Ends by each cause.
    pub causes: BTreeMap<&'static str, u64>,
    /// State, command, next state, as far as they can be seen.
    pub transitions: BTreeMap<(State, &'static str, State), u64>,
}

impl Summary {
    /// The rows: name, whether section 5 has it, how many ends were by it.
    pub fn rows(&self) -> impl Iterator<Item = (&'static str, bool, u64)> {
        ROWS.iter().zip(&self.rows).map(|(row, met)| (row.case, row.listed, *met))
    }

    /// Rows that no end was by, and that nothing excuses.
    pub fn missing(&self) -> Vec<&'static str> {
        let excused = |case| NEVER_MET.iter().any(|(name, _)| *name == case);
        self.rows()
            .filter(|(case, listed, met)| *listed && *met == 0 && !excused(*case))
            .map(|(case, ..)| case)
            .collect()
    }
}

/// A rule that was broken, and an order that breaks it.
#[derive(Debug)]
pub struct Failure {
    /// Writes that the links hold: from the server, from the client.
    pub capacities: [usize; 2],
    /// The order.
    pub commands: Vec<Command>,
    /// What was wrong.
    pub what: String,
    /// What happened, line by line.
    pub trace: Vec<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { capacities: [server, client], commands, what, trace } = self;
        writeln!(f, "{what}")?;
        writeln!(
            f,
            "links hold {server} writes of the server and {client} of the client, commands {commands:?}"
        )?;
        trace.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "worlds        {}", self.worlds)?;
        writeln!(f, "the same      {}, not tried twice", self.same)?;
        writeln!(f, "dead          {} commands that are refused or do nothing", self.dead)?;
        writeln!(f, "ends, by the row of section 5; * of other sections")?;
        for (case, listed, met) in self.rows() {
            writeln!(f, "{met:>12}{} {case}", if listed { ' ' } else { '*' })?;
        }
        writeln!(f, "ends, by cause")?;
        for (cause, met) in &self.causes {
            writeln!(f, "{met:>12}  {cause}")?;
        }
        writeln!(f, "transitions   {} (state, command: states)", self.transitions.len())?;
        for state in State::ALL {
            let from = self.transitions.iter().filter(|((before, ..), _)| *before == state);
            let mut next = BTreeMap::<_, Vec<_>>::new();
            for ((_, command, after), _) in from {
                next.entry(*command).or_default().push(*after);
            }
            for (command, after) in next {
                writeln!(f, "  {:<14}{command:<10}{after:?}", format!("{state:?}"))?;
            }
        }
        Ok(())
    }
}

/// Tries every order of up to `depth` commands. `progress` hears how many of the nine pairs of capacities are done.
///
/// # Errors
/// The first order that breaks a rule. What it begins with is tried before.
pub fn explore(depth: usize, progress: &mut dyn FnMut(usize, &Summary)) -> Result<Summary, Box<Failure>> {
    let mut summary = Summary { rows: vec![0; ROWS.len()], ..Summary::default() };
    for (done, capacities) in CAPACITIES.into_iter().enumerate() {
        progress(done, &summary);
        let mut search = Search { capacities, depth, seen: HashMap::new(), summary: &mut summary };
        search.visit(&mut Vec::new())?;
    }
    Ok(summary)
}

struct Search<'s> {
    capacities: Capacities,
    depth: usize,
    /// Worlds by their fingerprint, and how many commands may follow where they were met.
    seen: HashMap<u64, usize>,
    summary: &'s mut Summary,
}

impl Search<'_> {
    /// Tries this order, and all that begin with it.
    fn visit(&mut self, path: &mut Vec<Command>) -> Result<(), Box<Failure>> {
        let mut world = World::new(self.capacities, false);
        let last = path.last().copied();
        let mut before = [State::Open; 2];
        for (at, command) in path.iter().enumerate() {
            if at + 1 == path.len() {
                before = [world.state(0), world.state(1)];
            }
            world.apply(*command);
        }
        // A core is a function of its inputs, so orders that give both cores the same inputs lead to the same.
        let left = self.depth - path.len();
        let seen = self.seen.entry(world.net.borrow().fingerprint()).or_insert(usize::MAX);
        if *seen != usize::MAX && *seen >= left {
            self.summary.same += 1;
            return Ok(());
        }
        *seen = left;
        if let Some(last) = last {
            for side in last.sides() {
                let transition = (before[*side], last.name(), world.state(*side));
                *self.summary.transitions.entry(transition).or_default() += 1;
            }
        }
        let mut live = Vec::new();
        if left > 0 {
            for command in Command::ALL {
                if world.is_live(command) {
                    if last.is_some_and(|last| command.is_needless_after(last)) {
                        self.summary.same += 1;
                    } else {
                        live.push(command);
                    }
                } else {
                    self.summary.dead += 1;
                    if command.is_asked() {
                        // It must be refused, and nothing must come of it.
                        world.apply(command);
                    }
                }
            }
        }
        world.end();
        self.summary.worlds += 1;
        self.judge(&world, path)?;
        drop(world);
        for command in live {
            path.push(command);
            self.visit(path)?;
            path.pop();
        }
        Ok(())
    }

    fn judge(&mut self, world: &World, path: &[Command]) -> Result<(), Box<Failure>> {
        let net = world.net.borrow();
        if let Some(what) = &net.failure {
            return Err(Box::new(Failure {
                capacities: self.capacities,
                commands: path.to_vec(),
                what: what.clone(),
                trace: trace(self.capacities, path),
            }));
        }
        for facts in &net.facts {
            if let Some(met) = facts.row.and_then(|row| self.summary.rows.get_mut(row)) {
                *met += 1;
            }
            if let Some(cause) = facts.cause {
                *self.summary.causes.entry(cause).or_default() += 1;
            }
        }
        Ok(())
    }
}

/// What happens in one world.
fn trace(capacities: Capacities, commands: &[Command]) -> Vec<String> {
    let mut world = World::new(capacities, true);
    for command in commands {
        world.apply(*command);
    }
    for command in Command::ALL {
        if command.is_asked() && !world.is_live(command) {
            world.apply(command);
        }
    }
    world.end();
    let trace = world.net.borrow_mut().trace.take();
    trace.unwrap_or_default()
}
