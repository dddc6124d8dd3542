//! Replays the corpora and says what they reach: rows of the transition table, and every way to fail by name.
//!
//! ```text
//! cargo run --release --bin coverage [TARGET...]
//! ```

use std::{fs, path::Path};

use adjourn::conn::{Input, State, coverage, step};
use adjourn_fuzz::{TARGETS, targets::seen};

/// What there is to reach, by its enum.
const NAMES: [(&str, &str); 6] = [
    (
        "Cause",
        "PeerClose LocalClose Crossed Kicked Protocol TooBig InvalidUtf8 Overflow HeartbeatTimeout WriteStall \
         CloseTimeout PeerFin PeerFinDuringClose PeerReset PeerResetDuringClose Io Terminated ShutdownSoft ShutdownHard",
    ),
    (
        "ProtocolError",
        "ReservedBits ReservedOpcode NonMinimalLength LengthTopBit FragmentedControl ControlTooLong Unmasked Masked \
         UnexpectedContinuation ExpectedContinuation CloseLength CloseCode InvalidDeflate",
    ),
    (
        "HandshakeCause",
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
    let only: Vec<_> = std::env::args().skip(1).collect();
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    seen::watch();
    for (target, check) in
        TARGETS.iter().filter(|(name, _)| only.is_empty() || only.iter().any(|o| o == name))
    {
        let mut inputs = 0;
        for entry in fs::read_dir(corpora.join(target)).into_iter().flatten().flatten() {
            check(&fs::read(entry.path()).expect("an input can be read"));
            inputs += 1;
        }
        println!("{target}: {inputs} inputs");
    }
    rows();
    names();
}

/// Rows that have an effect. One without is a no-op that `tests/transitions.rs` has covered.
fn rows() {
    let counts = State::ALL.map(|state| Input::ALL.map(|input| coverage::count(state, input)));
    let (mut reached, mut missing) = (0, Vec::new());
    for (state, counts) in State::ALL.into_iter().zip(counts) {
        for (input, count) in Input::ALL.into_iter().zip(counts) {
            let row = step(state, input);
            if row.next == state && row.effects.is_empty() {
                continue;
            }
            if count > 0 {
                reached += 1;
                println!("{count:>12}  {state:?} x {input:?}");
            } else {
                missing.push(format!("{state:?} x {input:?}"));
            }
        }
    }
    println!("rows of the transition table with an effect: {reached} of {} reached", reached + missing.len());
    for row in missing {
        println!("  not {row}");
    }
}

fn names() {
    let counts = seen::counts();
    for (kind, names) in NAMES {
        let all: Vec<_> = names.split_whitespace().map(|name| format!("{kind}::{name}")).collect();
        let missing: Vec<_> = all.iter().filter(|name| !counts.contains_key(*name)).collect();
        for name in &all {
            if let Some(count) = counts.get(name) {
                println!("{count:>12}  {name}");
            }
        }
        println!("{kind}: {} of {} reached; not {missing:?}", all.len() - missing.len(), all.len());
    }
    for unknown in counts.keys().filter(|name| {
        !NAMES.iter().any(|(kind, names)| {
            name.strip_prefix(kind)
                .is_some_and(|name| names.split_whitespace().any(|known| name[2..] == *known))
        })
    }) {
        println!("not on the list: {unknown}");
    }
}
