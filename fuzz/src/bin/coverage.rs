//! Replays the corpora and says what they reach: rows of the transition table, and every way to fail by name.
//!
//! ```text
//! cargo run --release --bin coverage [--keep] [TARGET...]
//! ```
//!
//! `--keep` writes lines for `inputs.txt` instead: short inputs that reach what those before them do not.

use std::{collections::BTreeSet, fs, path::Path};

use adjourn::{
    clients::State,
    conn::{InputKind, coverage},
};
use testkit::{
    kept,
    sim::rows_with_an_effect,
    targets::{TARGETS, seen},
};

/// The longest input that is worth a line.
const MOST_KEPT: usize = 250;

/// What there is to reach, by its enum.
const NAMES: [(&str, &str); 6] = [
    (
        "Cause",
        "PeerClose LocalClose Crossed Kicked Protocol TooBig InvalidUtf8 Overflow HeartbeatTimeout WriteStall \
         CloseTimeout Internal PeerFin PeerFinDuringClose PeerReset PeerResetDuringClose Io Terminated ShutdownSoft ShutdownHard",
    ),
    (
        "ProtocolError",
        "ReservedBits ReservedOpcode NonMinimalLength LengthTopBit FragmentedControl ControlTooLong Unmasked Masked \
         UnexpectedContinuation ExpectedContinuation CloseLength CloseCode InvalidDeflate ControlFlood",
    ),
    (
        "HandshakeError",
        "Timeout ConnectTimeout NotResolved Status Cancelled BadRequest HeadTooLarge BadVersion Rejected PeerFin \
         PeerReset Io ShuttingDown TooManyConnections",
    ),
    ("ResponseFault", "Malformed Upgrade Connection AcceptKey Subprotocol Extensions"),
    ("SendError", "NotFound Connecting Closing Overflow ControlTooLong"),
    // By the words of the answer.
    (
        "Refusal",
        "not_an_HTTP/1.1_request empty_line_before_the_request line_that_ends_in_a_bare_LF CR_without_LF \
         folded_header_line control_character_in_the_request_head request_head_has_too_many_bytes \
         request_head_has_too_many_lines only_HTTP/1.1_is_spoken_here request_target_is_not_a_path \
         request_target_and_Host_name_different_servers Host_must_be_there_once_and_name_a_server \
         Origin_must_be_there_at_most_once,_in_ASCII requests_with_a_body_are_not_taken only_WebSocket_is_spoken_here \
         WebSocket_needs_HTTP/1.1 WebSocket_needs_GET Connection_must_include_Upgrade \
         Sec-WebSocket-Version_must_be_there_exactly_once only_WebSocket_version_13_is_spoken_here \
         Sec-WebSocket-Key_must_be_there_once_and_hold_16_bytes_in_base64 \
         Sec-WebSocket-Protocol_must_list_tokens,_none_of_them_twice Sec-WebSocket-Extensions_is_malformed",
    ),
];

fn main() {
    let mut only: Vec<_> = std::env::args().skip(1).collect();
    let keeping = only.first().is_some_and(|first| first == "--keep");
    if keeping {
        only.remove(0);
    }
    let rows = Rows::new();
    seen::watch();
    for (target, check) in
        TARGETS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name))
    {
        let inputs = corpus(target);
        for input in &inputs {
            let before = if keeping { names_reached(&rows) } else { BTreeSet::new() };
            check(input);
            if keeping && input.len() <= MOST_KEPT {
                keep(target, input, &names_reached(&rows) - &before);
            }
        }
        if !keeping {
            println!("{target}: {} inputs", inputs.len());
        }
    }
    if !keeping {
        rows.print();
        print_names();
    }
}

/// The inputs of a target: those that are kept, then the corpus, short ones first.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let kept = kept::inputs().into_iter().filter(|kept| kept.0 == target).map(|(_, _, input)| input);
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(target);
    let files = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut inputs: Vec<_> = files.map(|file| fs::read(file.path()).expect("an input can be read")).collect();
    inputs.sort_by_key(|input| (input.len(), input.clone()));
    kept.chain(inputs).collect()
}

/// A line of `inputs.txt` for an input that reaches something new.
fn keep(target: &str, input: &[u8], news: BTreeSet<String>) {
    if !news.is_empty() {
        let hex = input.iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        println!("{target} {} {hex}", news.into_iter().collect::<Vec<_>>().join(", "));
    }
}

fn names_reached(rows: &Rows) -> BTreeSet<String> {
    let rows = rows.counts().filter(|(_, count)| *count > 0).map(|(row, _)| row);
    rows.chain(seen::counts().into_keys()).collect()
}

/// The rows of the transition table that have an effect. One without is a no-op that `tests/transitions.rs` has covered.
struct Rows(Vec<(State, InputKind)>);

impl Rows {
    fn new() -> Self {
        Self(rows_with_an_effect())
    }

    fn counts(&self) -> impl Iterator<Item = (String, u64)> {
        self.0
            .iter()
            .map(|(state, input)| (format!("{state:?} x {input:?}"), coverage::count(*state, *input)))
    }

    fn print(&self) {
        let mut missing = Vec::new();
        for (row, count) in self.counts() {
            match count {
                0 => missing.push(row),
                _ => println!("{count:>12}  {row}"),
            }
        }
        let all = self.0.len();
        println!("rows of the transition table with an effect: {} of {all} reached", all - missing.len());
        for row in missing {
            println!("  not {row}");
        }
    }
}

fn print_names() {
    let counts = seen::counts();
    for (kind, names) in NAMES {
        let all: Vec<_> = names.split_whitespace().map(|name| format!("{kind}::{name}")).collect();
        let (reached, missing): (Vec<_>, Vec<_>) = all.iter().partition(|name| counts.contains_key(*name));
        for name in &reached {
            println!("{:>12}  {name}", counts[*name]);
        }
        println!("{kind}: {} of {} reached; not {missing:?}", reached.len(), all.len());
    }
    let known = |name: &str| {
        NAMES.iter().any(|(kind, names)| names.split_whitespace().any(|n| name == format!("{kind}::{n}")))
    };
    for unknown in counts.keys().filter(|name| !known(name)) {
        println!("not on the list: {unknown}");
    }
}
