//! The numbers that are kept, what may differ from them, and which must be equal to each other.

use std::{fmt::Write as _, fs, process::Command};

use crate::Bench;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.tsv");

/// A count may differ from the one that is kept by this many percent and two instructions, in either direction: what has become
/// better is to be kept, or the next change may spoil it unseen.
const MARGIN: u64 = 10;

/// What must not depend on how many connections there are: the first may differ from the second by the percentage beside them.
const RELATIONS: &[(&str, &str, u64)] = &[
    ("turn/1-of-100", "turn/alone", 5),
    ("turn/1-of-10000", "turn/alone", 5),
    ("turn/nothing-with-10000", "turn/nothing-with-1", 5),
    ("turn/all-of-10000", "turn/all-of-100", 20),
    ("broadcast/10000", "broadcast/100", 20),
    ("connection/accept-and-upgrade-beside-10000", "connection/accept-and-upgrade", 5),
];

/// The instructions of one benchmark.
pub(crate) struct Count {
    name: &'static str,
    unit: &'static str,
    per_unit: Tenths,
}

impl Count {
    pub(crate) fn new(bench: &Bench, instructions: u64) -> Self {
        let per_unit = Tenths(instructions * 10 / u64::from(bench.units));
        Self { name: bench.name, unit: bench.unit, per_unit }
    }
}

impl std::fmt::Display for Count {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}\t{}", self.name, self.per_unit)
    }
}

/// Instructions, to one decimal place.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Tenths(u64);

impl Tenths {
    fn parse(text: &str) -> Option<Self> {
        let (whole, tenths) = text.split_once('.')?;
        Some(Self(whole.parse::<u64>().ok()? * 10 + tenths.parse::<u64>().ok().filter(|n| *n < 10)?))
    }

    /// Whether it is within `percent` of another, and two instructions.
    const fn is_near(self, other: Self, percent: u64) -> bool {
        self.0.abs_diff(other.0) <= other.0 * percent / 100 + 20
    }
}

impl std::fmt::Display for Tenths {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&format!("{}.{}", self.0 / 10, self.0 % 10))
    }
}

/// Writes the file.
pub(crate) fn update(counts: &[Count]) -> Result<(), String> {
    let mut text = format!(
        "# Instructions per unit, see benches/README.md. Written by `benches/instructions/run --update`.\n# {}\n",
        circumstances()?
    );
    for Count { name, unit, per_unit } in counts {
        println!("{name:<44}{per_unit:>12} per {unit}");
        let _ = writeln!(text, "{name}\t{per_unit}\t{unit}");
    }
    fs::write(FILE, text).map_err(|error| format!("{FILE}: {error}"))?;
    verdict(&disproportions(counts))
}

/// Holds the counts against the file, and against each other.
pub(crate) fn compare(counts: &[Count]) -> Result<(), String> {
    let kept = fs::read_to_string(FILE).map_err(|error| format!("{FILE}: {error}"))?;
    let now = circumstances()?;
    let before = kept.lines().find_map(|line| line.strip_prefix("# rustc")).unwrap_or_default();
    if now.strip_prefix("rustc") != Some(before) {
        println!("kept with rustc{before}\ncounted with {now}: this alone may change the numbers\n");
    }
    let mut rows = rows(&kept)?;
    let mut complaints = Vec::new();
    println!("{:<44}{:>12}{:>12}", "instructions", "kept", "now");
    for Count { name, unit, per_unit } in counts {
        let Some(index) = rows.iter().position(|(kept, _)| kept == name) else {
            println!("{name:<44}{:>12}{per_unit:>12} per {unit}", "-");
            complaints.push(format!("{name} is not in the file"));
            continue;
        };
        let (_, kept) = rows.remove(index);
        println!("{name:<44}{kept:>12}{per_unit:>12} per {unit}{}", change(*per_unit, kept));
        if !per_unit.is_near(kept, MARGIN) {
            let more = if per_unit.0 > kept.0 { "more" } else { "less" };
            complaints.push(format!("{name}: {per_unit} is {more} than {kept} by over {MARGIN} %"));
        }
    }
    complaints.extend(rows.iter().map(|(name, _)| format!("{name} is in the file and nowhere else")));
    if !complaints.is_empty() {
        complaints.push("if that is as it should be: benches/instructions/run --update".into());
    }
    complaints.extend(disproportions(counts));
    verdict(&complaints)
}

fn rows(kept: &str) -> Result<Vec<(&str, Tenths)>, String> {
    let rows = kept.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut cells = line.split('\t');
        cells.next().zip(cells.next().and_then(Tenths::parse)).ok_or_else(|| format!("{FILE}: {line:?}"))
    });
    rows.collect()
}

fn change(now: Tenths, kept: Tenths) -> String {
    if now == kept {
        return String::new();
    }
    let sign = if now.0 > kept.0 { '+' } else { '-' };
    let per_mille = now.0.abs_diff(kept.0) * 1000 / kept.0.max(1);
    format!(", {sign}{} %", Tenths(per_mille))
}

fn disproportions(counts: &[Count]) -> Vec<String> {
    let find = |name: &str| counts.iter().find(|count| count.name == name).map(|count| count.per_unit);
    let apart = RELATIONS.iter().filter_map(|&(one, other, percent)| {
        let (Some(a), Some(b)) = (find(one), find(other)) else {
            return Some(format!("{one} and {other} were not both counted"));
        };
        let near = a.is_near(b, percent);
        (!near).then(|| format!("{one}, {a}, differs from {other}, {b}, by over {percent} %"))
    });
    apart.collect()
}

fn verdict(complaints: &[String]) -> Result<(), String> {
    if complaints.is_empty() { Ok(()) } else { Err(complaints.join("\n  ")) }
}

/// What the counts depend on besides the code.
fn circumstances() -> Result<String, String> {
    let version = |program: &str| {
        let output = Command::new(program).arg("--version").output();
        let output = output.map_err(|error| format!("{program} does not start: {error}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let rustc = std::env::var("RUSTC").unwrap_or_else(|_| "rustc".into());
    Ok(format!("{}, {}, {}", version(&rustc)?, version("valgrind")?, std::env::consts::ARCH))
}
