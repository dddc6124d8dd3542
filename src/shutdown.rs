//! The vocabulary of shutdowns and sweeps: plans, phases, paces and reports.

use std::{fmt, net::SocketAddr, time::Duration};

use crate::{
    close::{Cause, CloseFrame, CloseReport, Lost},
    config::Abort,
    id::ConnectionId,
    state::State,
};

/// Names one `close_where` or `terminate_where`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SweepId(pub(crate) u32);

impl SweepId {
    /// The number; sweeps of one loop are numbered from 1.
    pub const fn as_u32(self) -> u32 {
        self.0
    }
}

/// How a sweep went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SweepReport {
    /// Connections that the predicate chose.
    pub matched: u64,
    /// Those whose closing handshake was clean.
    pub clean: u64,
    /// Those that ran out of time.
    pub timed_out: u64,
    /// What they lost, added up.
    pub lost: Lost,
}

/// How the Close frames of a sweep are spread over time. Clients that are all closed in one instant all reconnect in one
/// instant.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum Pace {
    /// As fast as the loop can.
    AtOnce,
    /// This many per second; a number that is not above 0 counts as 1. A shutdown of several loops shares it among them by how
    /// many connections each has; a `close_where` concerns one loop.
    Rate(f64),
    /// Each at a uniformly random instant within this time.
    Spread(Duration),
}

/// What the listeners do during the lame-duck phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LameDuckPolicy {
    /// New connections are served as before.
    Serve,
    /// Handshakes get 503 and `Retry-After`.
    Refuse,
    /// The listeners are closed; handshakes that had begun get 503 and `Retry-After`.
    Close,
    /// The listeners are closed, and handshakes that had begun are completed: for a restart in which another process accepts from the
    /// same sockets, so that nobody is refused. The lame duck has to be longer than a handshake takes.
    HandOver,
}

/// What the listeners do once the Close frames go out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ListenerInShutdown {
    /// They are closed.
    #[default]
    Close,
    /// They stay open until no connection is left that came before. [`Handler::on_upgrade`](crate::Handler::on_upgrade)
    /// answers plain HTTP, such as health checks, or [detaches](crate::http::Upgrade::Detach) it, as before; upgrades get 503 and
    /// `Retry-After`. Connections that come now do not prolong the shutdown.
    PlainHttp,
}

/// How a server goes down. Phases may have length zero. The default: no lame duck, 1001 to every open connection at once, 10 s of
/// grace.
///
/// ```text
/// Serving -> LameDuck -> SoftSweep -> Grace -> HardSweep -> Done
/// ```
///
/// It ends within lame duck + pace + grace + 250 ms, whatever the peers do.
///
/// ```
/// use std::time::Duration;
///
/// use adjourn::{CloseFrame, Config, Server, ShutdownPlan, shutdown::Pace};
///
/// let mut plan = ShutdownPlan::soft(Duration::from_secs(8)); // grace
/// plan.lame_duck = Duration::ZERO; // a few seconds if a load balancer must notice first
/// plan.frame = CloseFrame::SERVICE_RESTART;
/// plan.pace = Pace::Spread(Duration::from_secs(20)); // so that clients do not come back in one instant
///
/// let mut server = Server::bind("127.0.0.1:0", Config::default())?;
/// server.clients().shutdown(plan); // or by `Handle::shutdown`, or `Server::shutdown_on_signals`
/// let report = server.run(|_, _| {})?;
/// assert_eq!((report.ended(), report.escalated_by), (0, None));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct ShutdownPlan {
    /// How long the server only says that it is not ready, so that load balancers look elsewhere.
    pub lame_duck: Duration,
    /// What the listeners do meanwhile.
    pub listeners: LameDuckPolicy,
    /// What the listeners do afterwards, unless the lame duck has closed them.
    pub listener_in_shutdown: ListenerInShutdown,
    /// The Close frame for every open connection.
    pub frame: CloseFrame,
    /// How the frames are spread over time.
    pub pace: Pace,
    /// How long the peers have to answer, from the last Close frame on.
    pub grace: Duration,
    /// How those are ended that have not; `None` is the server's [`ConnectionConfig::abort`](crate::config::ConnectionConfig::abort).
    pub abort: Option<Abort>,
}

impl Default for ShutdownPlan {
    /// No lame duck, 1001 to every open connection at once, 10 s of grace.
    fn default() -> Self {
        Self {
            lame_duck: Duration::ZERO,
            listeners: LameDuckPolicy::Refuse,
            listener_in_shutdown: ListenerInShutdown::Close,
            frame: CloseFrame::GOING_AWAY,
            pace: Pace::AtOnce,
            grace: Duration::from_secs(10),
            abort: None,
        }
    }
}

impl ShutdownPlan {
    /// The default with this `grace`: closes every connection with 1001 at once, waits, and aborts the rest. A grace shorter than
    /// [`ConnectionConfig::close_timeout`](crate::config::ConnectionConfig::close_timeout) cuts those that are still reading.
    pub fn soft(grace: Duration) -> Self {
        Self { grace, ..Self::default() }
    }

    /// Closes every connection with 1001, and aborts in the next turn what is left.
    pub fn hard() -> Self {
        Self::soft(Duration::ZERO)
    }
}

/// Where a shutdown is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ShutdownPhase {
    /// None has been asked for.
    #[default]
    Serving,
    /// Not ready any more; connections are served as before.
    LameDuck,
    /// The Close frames go out.
    SoftSweep,
    /// Waiting for the answers.
    Grace,
    /// What is left is aborted.
    HardSweep,
    /// No connection is left.
    Done,
}

impl ShutdownPhase {
    /// Every phase, in their order.
    pub const ALL: [Self; 6] =
        [Self::Serving, Self::LameDuck, Self::SoftSweep, Self::Grace, Self::HardSweep, Self::Done];

    /// The phase's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Serving => "Serving",
            Self::LameDuck => "LameDuck",
            Self::SoftSweep => "SoftSweep",
            Self::Grace => "Grace",
            Self::HardSweep => "HardSweep",
            Self::Done => "Done",
        }
    }
}

impl fmt::Display for ShutdownPhase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What cut a shutdown short.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Escalation {
    /// `escalate()` entered the next phase.
    Escalate,
    /// `abort()` jumped to the hard sweep.
    Abort,
    /// A further `shutdown()` had a shorter plan.
    Shutdown,
    /// A second signal.
    Signal,
}

/// One of the connections that took longest to close.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SlowestConnection {
    /// The connection.
    pub id: ConnectionId,
    /// Its peer.
    pub peer: SocketAddr,
    /// Its state just before it ended.
    pub state: State,
    /// Bytes that were queued for it then.
    pub queued: usize,
    /// From the first Close to the end.
    pub close_phase: Duration,
}

/// The upper bounds of the buckets of [`ShutdownReport::close_phases`]; the last bucket has none.
pub const CLOSE_PHASE_BUCKETS: [Duration; 9] = [
    Duration::from_millis(1),
    Duration::from_millis(3),
    Duration::from_millis(10),
    Duration::from_millis(30),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(3),
    Duration::from_secs(10),
];

/// How long the longest callback took, and the connection whose event it was.
pub(crate) type LongestCallback = Option<(Duration, Option<ConnectionId>)>;

/// How many of the slowest connections a report names.
const SLOWEST: usize = 10;

/// How a shutdown went. What is counted: every connection that ended since the call of `shutdown`.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct ShutdownReport {
    /// When each phase began, from the call of `shutdown`, and how long it took.
    pub phases: Vec<PhaseTiming>,
    /// Established connections when `shutdown` was called.
    pub live_at_start: u64,
    /// Handshakes answered with 503.
    pub refused_503: u64,
    /// Handshakes cut without an answer.
    pub handshakes_cut: u64,
    /// Ended by a clean closing handshake that we began.
    pub clean: u64,
    /// Ended by the peer: its Close came first, or its FIN or reset.
    pub by_peer: u64,
    /// Ran out of `close_timeout`.
    pub timed_out: u64,
    /// Aborted by the hard sweep or by `terminate`.
    pub terminated: u64,
    /// Failed for what the peer sent, or by a heartbeat, a stall or an error.
    pub failed: u64,
    /// Close phases by length, see [`CLOSE_PHASE_BUCKETS`].
    pub close_phases: [u64; CLOSE_PHASE_BUCKETS.len() + 1],
    /// What all of them lost.
    pub lost: Lost,
    /// The ten that took longest, slowest first.
    pub slowest: Vec<SlowestConnection>,
    /// What cut it short first, if anything did.
    pub escalated_by: Option<Escalation>,
    /// The longest callback of the server's life, if one took 10 ms or more, and the connection whose event it was.
    pub longest_callback: LongestCallback,
    /// From the call to `Done`.
    pub took: Duration,
}

/// One phase of a shutdown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct PhaseTiming {
    /// The phase.
    pub phase: ShutdownPhase,
    /// When it began, from the call of `shutdown`.
    pub start: Duration,
    /// How long it took.
    pub length: Duration,
}

/// One line for a log: `42 ended in 1.5s: 40 clean, 1 by the peer, 0 timed out, 1 terminated, 0 failed; 3 messages lost`.
impl fmt::Display for ShutdownReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { clean, by_peer, timed_out, terminated, failed, lost, took, .. } = self;
        let (ended, lost) = (self.ended(), lost.messages + lost.partial);
        write!(
            f,
            "{ended} ended in {took:?}: {clean} clean, {by_peer} by the peer, {timed_out} timed out, "
        )?;
        write!(f, "{terminated} terminated, {failed} failed; {lost} messages lost")
    }
}

impl ShutdownReport {
    /// Connections that ended since the call, each counted once: those that were live at the start, and those that opened
    /// in a lame duck that serves.
    pub const fn ended(&self) -> u64 {
        self.clean + self.by_peer + self.timed_out + self.terminated + self.failed
    }

    /// Adds the report of another loop that went down at the same time.
    pub(crate) fn merge(&mut self, other: Self) {
        for theirs in &other.phases {
            match self.phases.iter_mut().find(|mine| mine.phase == theirs.phase) {
                Some(mine) => {
                    mine.start = mine.start.min(theirs.start);
                    mine.length = mine.length.max(theirs.length);
                }
                None => self.phases.push(*theirs),
            }
        }
        self.phases.sort_by_key(|timing| timing.phase);
        self.live_at_start += other.live_at_start;
        self.refused_503 += other.refused_503;
        self.handshakes_cut += other.handshakes_cut;
        self.clean += other.clean;
        self.by_peer += other.by_peer;
        self.timed_out += other.timed_out;
        self.terminated += other.terminated;
        self.failed += other.failed;
        for (mine, theirs) in self.close_phases.iter_mut().zip(other.close_phases) {
            *mine += theirs;
        }
        self.lost.add(&other.lost);
        self.slowest.extend(other.slowest);
        self.slowest.sort_by_key(|slow| std::cmp::Reverse(slow.close_phase));
        self.slowest.truncate(SLOWEST);
        self.escalated_by = self.escalated_by.or(other.escalated_by);
        self.longest_callback = self.longest_callback.max(other.longest_callback);
        self.took = self.took.max(other.took);
    }

    /// Counts the ending of a connection.
    pub(crate) fn count(&mut self, closed: &CloseReport, about: SlowestConnection) {
        *match closed.cause {
            Cause::LocalClose | Cause::Kicked | Cause::ShutdownSoft | Cause::Crossed => &mut self.clean,
            Cause::PeerClose
            | Cause::PeerFin
            | Cause::PeerFinDuringClose
            | Cause::PeerReset
            | Cause::PeerResetDuringClose => &mut self.by_peer,
            Cause::CloseTimeout { .. } => &mut self.timed_out,
            Cause::Terminated | Cause::ShutdownHard => &mut self.terminated,
            Cause::Protocol(_)
            | Cause::TooBig { .. }
            | Cause::InvalidUtf8
            | Cause::Overflow { .. }
            | Cause::HeartbeatTimeout
            | Cause::Internal
            | Cause::WriteStall
            | Cause::Io(_) => &mut self.failed,
        } += 1;
        let bucket = CLOSE_PHASE_BUCKETS.iter().take_while(|bound| closed.close_phase > **bound).count();
        if let Some(count) = self.close_phases.get_mut(bucket) {
            *count += 1;
        }
        self.lost.add(&closed.lost);
        let place = self.slowest.iter().take_while(|other| other.close_phase >= about.close_phase).count();
        if place < SLOWEST {
            self.slowest.insert(place, about);
            self.slowest.truncate(SLOWEST);
        }
    }
}
