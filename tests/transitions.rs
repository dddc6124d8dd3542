//! The tables of a connection's states exist once as data, in `docs/transitions.md`, written from the specification; the
//! code must do exactly what they say for every pair of a state and an input.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    io::ErrorKind,
};

use adjourn::{
    CloseFrame, Payload,
    clients::State,
    close::{Cause, CloseTiming},
    config::Abort,
    conn::{Effect, Failure, Input, InputKind, PeerFin, Step, TakesSends, step},
    error::{ConnectionLimit, HandshakeError},
};

const TABLES: &str = include_str!("../docs/transitions.md");

/// No step gives such a cause by itself.
const OWN: Cause = Cause::TooBig { limit: 12_345 };

/// The inputs of a kind, and how the table names them.
fn samples(kind: InputKind) -> Vec<(String, Input<'static>)> {
    let response = || b"HTTP/1.1".to_vec();
    let frame = CloseFrame::NORMAL;
    let failure = || Failure { cause: OWN, frame: CloseFrame::NORMAL, timing: CloseTiming::default() };
    let style = Abort::Auto;
    let timing = CloseTiming::default();
    let kick = |drop_queued| Input::Kick {
        message: Payload::from("bye"),
        drop_queued,
        frame: CloseFrame::NORMAL,
        timing,
    };
    let input = match kind {
        InputKind::Upgrade => Input::Upgrade { response: response() },
        InputKind::Refusal => Input::Refusal { response: response(), cause: HandshakeError::Rejected },
        InputKind::PlainAnswer => Input::PlainAnswer { response: response() },
        InputKind::Detached => Input::Detached { handover: None },
        InputKind::HandshakeTimeout => Input::HandshakeTimeout { response: response() },
        InputKind::SweptSilent => Input::SweptSilent,
        InputKind::Evicted => Input::Evicted { limit: ConnectionLimit::Handshakes },
        InputKind::ConnectFailed => Input::ConnectFailed { cause: HandshakeError::Timeout },
        InputKind::PeerClose => Input::PeerClose { frame },
        InputKind::PeerCloseAfterFlush => Input::PeerCloseAfterFlush { frame },
        InputKind::Violation => Input::Violation { failure: failure() },
        InputKind::ViolationAfterFlush => Input::ViolationAfterFlush { failure: failure() },
        InputKind::Eof => Input::Eof { fin: PeerFin::default() },
        InputKind::PeerLeftPaused => Input::PeerLeftPaused,
        InputKind::Reset => Input::Reset { kind: ErrorKind::ConnectionReset },
        InputKind::Flushed => Input::Flushed,
        InputKind::AbortedByFin => {
            return vec![
                ("AbortedByFin".into(), Input::AbortedByFin { eof: false }),
                ("AbortedByFin after EOF".into(), Input::AbortedByFin { eof: true }),
            ];
        }
        InputKind::Close => Input::Close { frame, cause: OWN, timing },
        InputKind::Kick => {
            return vec![("Kick".into(), kick(false)), ("Kick with drop_queued".into(), kick(true))];
        }
        InputKind::AnswerClose => Input::AnswerClose { frame },
        InputKind::Terminate => Input::Terminate { style },
        InputKind::HardSweep => Input::HardSweep { style },
        InputKind::Overflow => Input::Overflow { failure: failure() },
        InputKind::Internal => Input::Internal { failure: failure() },
        InputKind::CloseTimeout => Input::CloseTimeout { flushed: true, style },
        InputKind::FlushBudget => Input::FlushBudget,
        InputKind::HeartbeatIdle => Input::HeartbeatIdle,
        InputKind::HeartbeatTimeout => Input::HeartbeatTimeout { failure: failure() },
        InputKind::HeartbeatTimeoutQueued => Input::HeartbeatTimeoutQueued { style },
        InputKind::WriteStall => Input::WriteStall { style },
        InputKind::PauseEnd => Input::PauseEnd,
        InputKind::LingerEnd => Input::LingerEnd { exceeded: true },
    };
    vec![(format!("{kind:?}"), input)]
}

/// What a row says: the next state, who ended it and why, and what is done.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Row {
    next: String,
    ended: String,
    done: Vec<String>,
}

impl Row {
    fn of(state: State, mut step: Step<'_, '_>) -> Self {
        let next = if step.next == state { "same".to_owned() } else { format!("{:?}", step.next) };
        let cause = step.cause.map(|cause| if cause == OWN { "its own" } else { cause.name() });
        let ended = match (step.initiator, cause) {
            (Some(initiator), Some(cause)) => format!("{initiator:?}, {cause}"),
            (None, Some(cause)) => cause.to_owned(),
            (Some(_), None) => "an initiator without a cause".to_owned(),
            (None, None) => "-".to_owned(),
        };
        let done = std::iter::from_fn(|| step.poll_effect()).map(|effect| effect.name().to_owned()).collect();
        Self { next, ended, done }
    }

    fn cells(&self) -> String {
        let done = if self.done.is_empty() { "-".to_owned() } else { self.done.join(", ") };
        format!("{} | {} | {done}", self.next, self.ended)
    }

    fn does(&self, effect: &str) -> bool {
        self.done.iter().any(|done| done == effect)
    }
}

/// Every pair of a state and an input, and what the code does.
fn code() -> Vec<(State, String, Row)> {
    let mut rows = Vec::new();
    for state in State::ALL {
        for (name, mut input) in InputKind::ALL.into_iter().flat_map(samples) {
            rows.push((state, name, Row::of(state, step(state, &mut input))));
        }
    }
    rows
}

/// The cells of the rows of a table of the documentation, by its number.
fn documented(number: usize) -> Vec<Vec<&'static str>> {
    let table = TABLES.split("| --- | --- | --- | --- | --- |").nth(number).expect("there is such a table");
    let rows = table.lines().skip(1).take_while(|line| line.starts_with("| "));
    rows.map(|row| row.trim_matches('|').split('|').map(str::trim).collect()).collect()
}

#[test]
fn every_state_and_input_does_what_the_table_says() {
    let mut table = BTreeMap::new();
    for cells in documented(2) {
        let [state, inputs, next, ended, done] = cells[..] else { panic!("a row has five cells: {cells:?}") };
        for input in inputs.split(", ") {
            let row = format!("{next} | {ended} | {done}");
            assert!(
                table.insert((state.to_owned(), input.to_owned()), row).is_none(),
                "twice in the table: {state} x {input}"
            );
        }
    }
    let mut wrong = String::new();
    for (state, input, row) in code() {
        let said = table.remove(&(format!("{state:?}"), input.clone()));
        if said.as_deref() != Some(row.cells().as_str()) {
            writeln!(wrong, "{state:?} x {input}: {}; the table says {said:?}", row.cells())
                .expect("a string");
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(table.is_empty(), "rows for nothing that exists: {table:?}");
}

#[test]
fn every_state_is_capable_of_what_the_table_says() {
    let rows = documented(1);
    assert_eq!(rows.len(), State::ALL.len());
    for (state, cells) in State::ALL.into_iter().zip(rows) {
        let capabilities = state.capabilities();
        let yes = |flag: bool| if flag { "yes" } else { "no" };
        let takes_sends = match capabilities.takes_sends {
            TakesSends::Yes => "yes",
            TakesSends::UntilAnswered => "until answered",
            TakesSends::No => "no",
        };
        let parses = format!("{:?}", capabilities.parses);
        let (delivers, discards) = (yes(capabilities.delivers), yes(capabilities.discards));
        assert_eq!(cells, [&format!("`{state:?}`"), &parses, delivers, takes_sends, discards]);
    }
}

/// An effect or an input that no row has is scenery.
#[test]
fn every_input_and_every_effect_has_a_row() {
    let code = code();
    for input in InputKind::ALL {
        let has_row = code.iter().any(|(_, name, row)| {
            *name == format!("{input:?}") && (row.next != "same" || !row.done.is_empty())
        });
        assert!(has_row, "{input:?} does nothing in any state");
    }
    let done: BTreeSet<_> = code.iter().flat_map(|(_, _, row)| row.done.iter().map(String::as_str)).collect();
    assert_eq!(done, BTreeSet::from(Effect::NAMES));
}

/// What must hold for any table of this kind, whatever its rows say.
#[test]
fn the_table_has_the_shape_that_the_specification_asks_for() {
    for (state, input, row) in code() {
        let pair = format!("{state:?} x {input}");
        let next = State::ALL.into_iter().find(|next| format!("{next:?}") == row.next).unwrap_or(state);
        let ends = state.is_established() && !next.is_established();
        if ends {
            let reports = u8::from(row.does("Report")) + u8::from(row.does("Abort"));
            assert_eq!(reports, 1, "{pair}: an ending is reported once");
            let report = if next == State::Lingering { "Report" } else { "Abort" };
            assert!(row.does(report), "{pair}: by {report}");
        } else {
            assert!(!row.does("Report") && !row.does("Abort"), "{pair}: nothing has ended");
        }
        assert!(next >= state || next == State::Lingering, "{pair}: no way back");
        if row.does("QueueClose") {
            let ours = state == State::Open || input == "AnswerClose";
            assert!(ours, "{pair}: at most one Close of ours");
        }
        let named = row.ended != "-";
        let begins = state == State::Open && next != State::Open;
        assert!(!begins || row.ended.contains(", "), "{pair}: whoever begins an ending is named");
        assert!(!named || next != state, "{pair}: what does not end has no cause");
        assert!(state != State::Failing || !named, "{pair}: the first failure stays the cause");
        if row.does("DropInbound") {
            let parses = format!("{:?}", state.capabilities().parses);
            assert_eq!(parses, "Frames", "{pair}: there is nothing else to drop");
        }
        let stops = state.capabilities().delivers && !next.capabilities().delivers;
        assert_eq!(
            row.does("DropInbound"),
            stops,
            "{pair}: what was received and is not delivered is counted"
        );
    }
}

/// Whatever the peer and the application do: an ending ends by inputs that only time brings about.
#[test]
fn time_alone_leads_from_every_state_but_open_to_the_end() {
    let timers = ["HandshakeTimeout", "CloseTimeout", "LingerEnd"];
    for state in State::ALL.into_iter().filter(|state| *state != State::Open) {
        let mut here = format!("{state:?}");
        for _ in 0..State::ALL.len() {
            let way = code().into_iter().find(|(from, input, row)| {
                format!("{from:?}") == here && timers.contains(&input.as_str()) && row.next != "same"
            });
            let Some((_, _, row)) = way else { break };
            here = row.next;
        }
        assert_eq!(here, "Closed", "{state:?}");
    }
}

#[test]
#[ignore = "prints the first table, to be compared by eye with the specification"]
fn print() {
    for state in State::ALL {
        let mut rows: Vec<(String, Vec<String>)> = Vec::new();
        for (_, input, row) in code().into_iter().filter(|row| row.0 == state) {
            match rows.iter_mut().find(|(cells, _)| *cells == row.cells()) {
                Some((_, inputs)) => inputs.push(input),
                None => rows.push((row.cells(), vec![input])),
            }
        }
        rows.sort_by_key(|(cells, _)| cells.as_str() == "same | - | -");
        for (cells, inputs) in rows {
            println!("| {state:?} | {} | {cells} |", inputs.join(", "));
        }
    }
}
