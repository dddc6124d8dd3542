//! The checker: what the simulated wire, the peers and the application really did to each connection, and so what the hub
//! must say and do. A second implementation of the closing specification that shares no line with the first.
//!
//! Facts come from three sides: from the links ([`Checker::wrote`], [`Checker::delivered`], [`Checker::eof`], [`Checker::reset`]), from
//! the application (`called_*`), and from the clock (`alarms.rs`). What the hub reports is only compared with them
//! (`reports.rs`), with one exception: which instant a paced sweep chose is the hub's own business.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::{Arc, atomic::AtomicUsize},
    time::Duration,
};

use adjourn::{
    CloseCode, CloseFrame, Config, ConnectionId, clients::State, close::CloseTiming,
    config::ConnectionConfig, conn::InputKind, error::DecideError, shutdown::ShutdownPhase,
};

use super::{
    alarms::Alarm,
    facts::{Busy, Ending, Facts, SweepFacts},
    frames::{ClientLimits, ClientStream, close_bytes},
    observe::End,
    shutdowns::ShutdownFacts,
    tally::Tally,
    turns::TurnFacts,
};

/// A check that failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub check: &'static str,
    /// What was seen.
    pub text: String,
    /// When, in microseconds.
    pub at: u64,
    /// Of which connection.
    pub connection: Option<u32>,
}

/// Fails the named check unless the condition holds.
macro_rules! ensure {
    ($checker:expr, $conn:expr, $check:literal, $condition:expr, $($text:tt)+) => {
        if !$condition {
            $checker.fail($check, $conn, format!($($text)+));
        }
    };
}
pub(crate) use ensure;

/// Writes to stderr if the run is traced.
macro_rules! trace {
    ($checker:expr, $($text:tt)+) => {
        if $checker.tracing {
            eprintln!("{:>12} us  {}", $checker.now, format!($($text)+));
        }
    };
}
pub(crate) use trace;

/// All facts of a world.
pub struct Checker {
    pub now: u64,
    pub config: Config,
    pub facts: Vec<Facts>,
    pub failure: Option<Failure>,
    pub alarms: BinaryHeap<Reverse<(u64, u32, Alarm)>>,
    /// Connections that something happened to in this turn.
    pub touched: Vec<u32>,
    /// Those whose `Close`, `HandshakeFailed`, or release is due by the end of this turn.
    pub close_due: Vec<u32>,
    pub failure_due: Vec<u32>,
    pub release_due: Vec<u32>,
    /// Connections in the order in which they were accepted; those whose handshake is over are taken out in time.
    pub handshakes: Vec<u32>,
    pub sweeps: HashMap<u32, SweepFacts>,
    /// By the reason of their Close frames.
    pub sweep_frames: HashMap<String, u32>,
    pub shutdown: Option<ShutdownFacts>,
    pub phase: ShutdownPhase,
    /// By how much turns began late, added up; and as it was when the loop read the clock last.
    pub late: u64,
    pub late_then: u64,
    pub turn: TurnFacts,
    /// When the last turn ended that was not cut short: the loop has judged nothing since, but in the present turn.
    pub judged_at: u64,
    /// When the first turn began after one that left nothing for the next: what is noticed late happened then at the earliest.
    pub settled_at: u64,
    /// What was read of this connection is being parsed.
    pub parsing: Option<u32>,
    /// The input of this connection has ended; replies may be written before that counts.
    pub ended: Option<(u32, End)>,
    /// The last thing the loop did was to write to this connection.
    pub writing: Option<u32>,
    /// Connections that began to close since the loop read the clock last, or whose deadline, which is kept here, was made
    /// shorter.
    pub unarmed: Vec<(u32, Option<u64>)>,
    /// Connections whose timers were set since the loop read the clock last.
    pub timers_set: Vec<u32>,
    /// How many handshakes had to make room, as far as was known when somebody came.
    pub evictions: u64,
    /// How often the application could ask for something: in a callback, or outside of any.
    pub calls: u64,
    pub opens: u64,
    pub closes: u64,
    pub numbers: u64,
    /// How often predicates of sweeps were asked in this turn.
    pub asked: Arc<AtomicUsize>,
    pub counted: Counted,
    pub tally: Tally,
    pub tracing: bool,
}

/// What the loop has to count, too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    pub accepted: u64,
    pub detached: u64,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    pub sent_messages: u64,
    pub short_writes: u64,
}

impl Checker {
    pub fn new(config: Config, connections: usize, tracing: bool) -> Self {
        Self {
            now: 0,
            config,
            facts: std::iter::repeat_with(Facts::default).take(connections).collect(),
            failure: None,
            alarms: BinaryHeap::new(),
            touched: Vec::new(),
            close_due: Vec::new(),
            failure_due: Vec::new(),
            release_due: Vec::new(),
            handshakes: Vec::new(),
            sweeps: HashMap::new(),
            sweep_frames: HashMap::new(),
            shutdown: None,
            phase: ShutdownPhase::Serving,
            late: 0,
            late_then: 0,
            turn: TurnFacts::default(),
            judged_at: 0,
            settled_at: 0,
            parsing: None,
            ended: None,
            writing: None,
            unarmed: Vec::new(),
            timers_set: Vec::new(),
            evictions: 0,
            calls: 0,
            opens: 0,
            closes: 0,
            numbers: 0,
            asked: Arc::default(),
            counted: Counted::default(),
            tally: Tally::default(),
            tracing,
        }
    }

    pub fn fail(&mut self, check: &'static str, connection: impl Into<Option<u32>>, text: String) {
        let connection = connection.into();
        trace!(self, "FAILED {check} ({connection:?}): {text}");
        if self.failure.is_none() {
            self.failure = Some(Failure { check, text, at: self.now, connection });
        }
    }

    pub fn of(&mut self, conn: u32) -> &mut Facts {
        &mut self.facts[conn as usize]
    }

    pub fn state(&self, conn: u32) -> Option<State> {
        self.facts[conn as usize].state
    }

    pub fn busy(&mut self, conn: u32) -> &mut Busy {
        let facts = self.of(conn);
        facts.busy.get_or_insert_with(|| {
            let inbound = ClientStream::agreeing(facts.wire.agreed());
            Box::new(Busy { inbound, ..Busy::default() })
        })
    }

    pub fn ending(&mut self, conn: u32) -> Option<&mut Ending> {
        self.of(conn).busy.as_mut()?.ending.as_mut()
    }

    pub fn touch(&mut self, conn: u32) {
        if !std::mem::replace(&mut self.of(conn).touched, true) {
            self.touched.push(conn);
        }
    }

    /// Counts an input in the state it came in.
    pub fn cover(&mut self, conn: u32, input: InputKind) {
        if let Some(state) = self.state(conn) {
            self.tally.cover(state, input);
        }
    }

    // What it is set to.

    pub fn settings(&self, conn: u32) -> &ConnectionConfig {
        self.facts[conn as usize].own.as_deref().unwrap_or(&self.config.connection)
    }

    pub fn limits(&self, conn: u32) -> ClientLimits {
        let settings = self.settings(conn);
        ClientLimits { max_payload: settings.max_payload as u64, max_fragments: settings.max_fragments }
    }

    pub fn close_timeout(&self, conn: u32, timing: CloseTiming) -> Duration {
        timing.close_timeout.unwrap_or(self.settings(conn).close_timeout)
    }

    pub fn flush_budget(&self, conn: u32, timing: CloseTiming) -> Duration {
        let close_timeout = self.close_timeout(conn, timing);
        let budget = timing.flush_budget.or(self.settings(conn).flush_budget);
        budget.unwrap_or(close_timeout / 2).min(close_timeout)
    }

    // The handshake.

    pub fn accepted(&mut self, conn: u32) {
        let now = self.now;
        self.counted.accepted += 1;
        let facts = self.of(conn);
        (facts.state, facts.since, facts.last_inbound) = (Some(State::Connecting), now, now);
        self.handshakes.push(conn);
        self.evictions += u64::from(self.is_overfull());
        let at = after(now, self.config.handshake.handshake_timeout);
        self.set_alarm(at, conn, Alarm::Handshake);
        self.touch(conn);
    }

    /// Forgets handshakes that are over. Returns how many are not, and how many of these there may be.
    pub fn half_open(&mut self) -> (usize, usize) {
        let facts = &self.facts;
        self.handshakes.retain(|conn| {
            let facts = &facts[*conn as usize];
            facts.state == Some(State::Connecting) && (facts.deferred.is_none() || facts.turned_away)
        });
        let limit = self.config.event_loop.max_handshakes.unwrap_or(usize::MAX);
        (self.handshakes.len(), limit)
    }

    /// There are more connections than there may be, with the newcomer that is to get a place.
    pub fn is_overfull(&self) -> bool {
        let live = self.facts.iter().filter(|facts| facts.state.is_some_and(|state| state != State::Closed));
        // Counted only where there may be too many.
        self.facts.len() > self.config.event_loop.max_connections
            && live.count() > self.config.event_loop.max_connections
    }

    /// The application answered in plain HTTP.
    pub fn answered(&mut self, conn: u32) {
        self.cover(conn, InputKind::PlainAnswer);
        self.begin_refusing(conn);
    }

    /// The application will decide on its upgrade later.
    pub fn defers(&mut self, conn: u32, id: ConnectionId) {
        let waiting =
            (0..self.facts.len()).filter(|conn| self.is_deferred(u32::try_from(*conn).unwrap_or(0)));
        let crowded = waiting.count() >= self.config.event_loop.max_deferred;
        let facts = self.of(conn);
        (facts.deferred, facts.turned_away) = (Some(id), crowded);
    }

    /// Whether it waits for the application, as far as is known.
    pub fn is_deferred(&self, conn: u32) -> bool {
        let facts = &self.facts[conn as usize];
        facts.deferred.is_some() && !facts.decided && facts.state == Some(State::Connecting)
    }

    /// The application has decided on its upgrade.
    pub fn decided(&mut self, conn: u32, accepted: bool, result: Result<(), DecideError>) {
        let refuses =
            self.shutdown.as_ref().is_some_and(|shutdown| shutdown.refuses(self.phase) || shutdown.cut);
        let waits = self.is_deferred(conn);
        // What has happened to it may not be delivered yet.
        let over = self.is_due(conn, Alarm::Handshake) || self.failure_due.contains(&conn);
        let right = match result {
            Ok(()) => waits,
            Err(DecideError::NotFound) => !waits || over || refuses || self.of(conn).turned_away,
            Err(DecideError::ShuttingDown) => waits && accepted && refuses,
            Err(_) => false,
        };
        ensure!(self, conn, "decisions_answer", right, "{result:?}, waits: {waits}, refuses: {refuses}");
        let now = self.now;
        let facts = self.of(conn);
        facts.decided |= result != Err(DecideError::NotFound);
        facts.accepted |= accepted && result.is_ok();
        if result.is_ok() {
            // A silence before that was not the peer's.
            (facts.last_inbound, facts.opened_at) = (now, now);
        }
        self.touch(conn);
    }

    /// The application takes it out of the loop.
    pub fn detached(&mut self, conn: u32) {
        self.cover(conn, InputKind::Detached);
        self.counted.detached += 1;
        self.of(conn).state = Some(State::Closed);
        self.release_due.push(conn);
    }

    pub fn begin_refusing(&mut self, conn: u32) {
        let now = self.now;
        let early = now - self.settled_at.min(self.turn.began);
        let facts = self.of(conn);
        // The event may come after the answer. What was read before may have been discarded, or been a part of the request.
        let state = if facts.fin_sent { State::Lingering } else { State::Refusing };
        facts.undecided += facts.in_handshake;
        // Settings of its own begin with the upgrade.
        (facts.state, facts.own) = (Some(state), None);
        (facts.since, facts.ended_early) = facts.answer_began.map_or((now, early), |began| (began, 0));
        if facts.answer_began.is_none() {
            self.start_with_the_return(conn, None);
        }
        self.set_linger_alarm(conn);
    }

    /// The first byte of its answer is written: its time begins (3.1).
    pub fn answer_begins(&mut self, conn: u32) {
        let now = self.now;
        let facts = self.of(conn);
        if facts.opened || facts.answer_began.is_some() {
            return;
        }
        facts.answer_began = Some(now);
        if facts.state == Some(State::Refusing) {
            (facts.since, facts.ended_early) = (now, 0);
            self.unarmed.retain(|unarmed| unarmed.0 != conn);
            self.set_linger_alarm(conn);
        }
    }

    fn set_linger_alarm(&mut self, conn: u32) {
        let at = after(self.of(conn).since, self.settings(conn).linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    pub fn set_heartbeat_alarm(&mut self, conn: u32) {
        if let Some(at) = self.due(conn, Alarm::Heartbeat) {
            self.set_alarm(at, conn, Alarm::Heartbeat);
        }
    }

    /// What is to end it begins when the present callback has returned. `before` is its deadline, if that was made shorter.
    pub fn start_with_the_return(&mut self, conn: u32, before: Option<u64>) {
        if !self.unarmed.iter().any(|unarmed| unarmed.0 == conn) {
            self.unarmed.push((conn, before));
        }
    }
}

/// A moment, `by` later.
pub fn after(at: u64, by: Duration) -> u64 {
    at.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX))
}

/// How a Close is answered: by itself.
pub fn answer_to(code: Option<u16>, reason: &str) -> CloseFrame {
    code.and_then(|code| frame(code, reason.to_owned())).unwrap_or(CloseFrame::EMPTY)
}

/// The frame with a code and a reason, if it is legal.
fn frame(code: u16, reason: String) -> Option<CloseFrame> {
    CloseFrame::new(CloseCode::new(code).ok()?, reason).ok()
}

/// The frame that a payload on the wire is.
pub fn frame_of(payload: &[u8]) -> CloseFrame {
    match payload {
        [high, low, reason @ ..] => {
            let reason = String::from_utf8_lossy(reason).into_owned();
            frame(u16::from_be_bytes([*high, *low]), reason).unwrap_or_default()
        }
        _ => CloseFrame::EMPTY,
    }
}

/// The payload that a frame must have on the wire.
pub fn payload_of(frame: &CloseFrame) -> Vec<u8> {
    frame.code().map_or_else(Vec::new, |code| close_bytes(code, frame.reason().as_bytes()))
}
