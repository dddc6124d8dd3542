//! What a loop counts, for operators: a snapshot of plain numbers. Nothing here decides anything; who counts what is the hub's.

use std::time::Duration;

#[doc(inline)]
pub use crate::{close::Traffic, event::Stats};
use crate::{
    close::{Cause, CloseReport, Initiator, Lost},
    error::HandshakeError,
    id::ConnectionId,
    shutdown::{CLOSE_PHASE_BUCKETS, ShutdownPhase},
};

/// What one loop, or several together, have counted since they began, and how they are now. Some 2 KiB; taking it allocates nothing.
///
/// [`Handle::loop_stats`](crate::Handle::loop_stats) has it from any thread as of the end of the loop's last turn, without waiting for the
/// loop; [`Clients::loop_stats`](crate::Clients::loop_stats) inside callbacks. Feature `metrics` writes it as `OpenMetrics` text.
#[derive(Clone, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoopStats {
    /// The number of the loop, as in the ids of its connections; `None` of the sum of several.
    pub number: Option<u8>,
    /// Who is there.
    pub connections: Stats,
    /// Where the shutdown is; of several loops, the one that is farthest.
    pub phase: ShutdownPhase,
    /// Counted since the loop began.
    pub totals: Totals,
    /// How much of each limit of the loop is used.
    pub caps: Caps,
}

impl LoopStats {
    /// The numbers of several loops together; nothing but zeros of none.
    pub fn sum<'s>(loops: impl IntoIterator<Item = &'s Self>) -> Self {
        let mut loops = loops.into_iter();
        let mut sum = loops.next().cloned().unwrap_or_default();
        loops.for_each(|stats| sum.add(stats));
        sum
    }

    /// Adds the numbers of another loop.
    pub fn add(&mut self, other: &Self) {
        self.number = None;
        self.connections.add(&other.connections);
        self.phase = self.phase.max(other.phase);
        self.totals.add(&other.totals);
        self.caps.add(&other.caps);
    }
}

/// Declares the plain counters once: as fields, for sums, and with their documentation for those who print them.
macro_rules! counters {
    ($($(#[doc = $doc:literal])+ $name:ident,)*) => {
        /// What a loop has counted since it began.
        #[derive(Clone, Copy, Debug, PartialEq)]
        #[non_exhaustive]
        pub struct Totals {
            $($(#[doc = $doc])+ pub $name: u64,)*
            /// Opening handshakes that failed, by cause.
            pub handshakes_failed: FailureCounts,
            /// HTTP answers other than 101, by status: those that the kernel took wholly.
            pub answers: AnswerCounts,
            /// Connections that ended, by what their reports say.
            pub closed: CloseCounts,
            /// What all of them lost. Its `kernel_unsent` ends at 4 GiB; [`Totals::unacknowledged_bytes`] does not.
            pub lost: Lost,
            /// How long connections were open.
            pub durations: Histogram,
            /// How long closing them took, from the first Close to the end; of those that had one.
            pub close_phases: Histogram,
            /// How long turns took. Measured by the clock that callbacks are measured by, which is good to a few milliseconds: shorter
            /// turns count as 0.
            pub turns: Histogram,
            /// How late deadlines and timers were served, each from the moment at which it was due.
            pub lateness: Histogram,
            /// Callbacks that took 10 ms or more: how long they took together.
            pub slow_callback_time: Duration,
            /// The longest of them.
            pub longest_callback: Option<SlowCallback>,
        }

        impl Default for Totals {
            fn default() -> Self {
                Self {
                    $($name: 0,)*
                    handshakes_failed: FailureCounts::default(),
                    answers: AnswerCounts::default(),
                    closed: CloseCounts::default(),
                    lost: Lost::ZERO,
                    durations: Histogram::new(const { &micros(&DURATION_BUCKETS) }),
                    close_phases: Histogram::new(const { &micros(&CLOSE_PHASE_BUCKETS) }),
                    turns: Histogram::new(const { &micros(&TURN_BUCKETS) }),
                    lateness: Histogram::new(const { &micros(&TURN_BUCKETS) }),
                    slow_callback_time: Duration::ZERO,
                    longest_callback: None,
                }
            }
        }

        impl Totals {
            /// The plain counters: name, what it counts, number.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, &'static str, u64)> {
                [$((stringify!($name), concat!($($doc),+).trim_ascii(), self.$name),)*].into_iter()
            }

            /// Adds the numbers of another loop.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
                self.handshakes_failed.0.add(&other.handshakes_failed.0);
                self.answers.0.add(&other.answers.0);
                self.closed.add(&other.closed);
                self.lost.add(&other.lost);
                self.durations.add(&other.durations);
                self.close_phases.add(&other.close_phases);
                self.turns.add(&other.turns);
                self.lateness.add(&other.lateness);
                self.slow_callback_time += other.slow_callback_time;
                self.longest_callback = self.longest_callback.max(other.longest_callback);
            }
        }
    };
}

counters! {
    /// TCP connections accepted and let in.
    accepted,
    /// Connections that opened in the server's role, adopted ones too.
    opened,
    /// Connections that opened in the client's role.
    opened_outgoing,
    /// Of those that opened, connections whose handshake somebody else had made.
    adopted,
    /// Plain HTTP connections handed to the application.
    detached,
    /// Bytes read from sockets, headers and HTTP included.
    received_bytes,
    /// Bytes that the kernel took, headers and HTTP included.
    sent_bytes,
    /// Data messages received whole, those that were discarded too.
    received_messages,
    /// Data messages accepted for sending, once for each connection that gets them.
    sent_messages,
    /// Messages that found no room: `max_backlog` or `max_backlog_total` was reached.
    refused_messages,
    /// Pings received.
    received_pings,
    /// Pongs received.
    received_pongs,
    /// Pings sent, heartbeats too.
    sent_pings,
    /// Times that the kernel took less than it was offered.
    short_writes,
    /// Bytes that the kernel held unacknowledged when connections were aborted.
    unacknowledged_bytes,
    /// Callbacks that took 10 ms or more.
    slow_callbacks,
    /// Callbacks that panicked, where the application caught the panic and went on.
    panics,
}

/// The upper bounds of [`Totals::turns`] and [`Totals::lateness`]. 50 ms is what a deadline may be late by.
pub const TURN_BUCKETS: [Duration; 10] = [
    Duration::from_millis(1),
    Duration::from_millis(2),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(20),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(300),
    Duration::from_secs(1),
    Duration::from_secs(5),
];

/// The upper bounds of [`Totals::durations`].
pub const DURATION_BUCKETS: [Duration; 9] = [
    Duration::from_secs(1),
    Duration::from_secs(10),
    Duration::from_mins(1),
    Duration::from_mins(5),
    Duration::from_mins(30),
    Duration::from_hours(2),
    Duration::from_hours(8),
    Duration::from_hours(24),
    Duration::from_hours(7 * 24),
];

/// Lengths of time by size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Histogram {
    /// In microseconds, as the sum is: compared once for each length, which is less work than to compare [`Duration`]s.
    bounds: &'static [u64],
    /// One for each bound, and one for what exceeds all of them.
    counts: [u64; MOST_BUCKETS],
    sum: u64,
}

const MOST_BUCKETS: usize = 11;

const fn micros<const N: usize>(bounds: &[Duration; N]) -> [u64; N] {
    assert!(N < MOST_BUCKETS, "there is room for what exceeds all bounds");
    let (mut micros, mut index) = ([0; N], 0);
    while index < N {
        micros[index] = bounds[index].as_secs() * 1_000_000 + bounds[index].subsec_micros() as u64;
        index += 1;
    }
    micros
}

impl Histogram {
    const fn new(bounds: &'static [u64]) -> Self {
        Self { bounds, counts: [0; MOST_BUCKETS], sum: 0 }
    }

    pub(crate) fn record(&mut self, length: Duration) {
        let length = length.as_secs() * 1_000_000 + u64::from(length.subsec_micros());
        self.sum += length;
        let bucket = self.bounds.iter().take_while(|bound| length > **bound).count();
        if let Some(count) = self.counts.get_mut(bucket) {
            *count += 1;
        }
    }

    /// Records a length of 0.
    #[inline]
    pub(crate) const fn record_zero(&mut self) {
        self.counts[0] += 1;
    }

    /// The buckets: the upper bound of each, which is `None` for the last one, and how many are in it and in none before.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<Duration>, u64)> {
        let bounds = self.bounds.iter().map(|bound| Some(Duration::from_micros(*bound))).chain([None]);
        bounds.zip(self.counts)
    }

    /// How many were recorded.
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// Their sum.
    pub const fn sum(&self) -> Duration {
        Duration::from_micros(self.sum)
    }

    fn add(&mut self, other: &Self) {
        add_each(&mut self.counts, &other.counts);
        self.sum += other.sum;
    }
}

/// A callback that took long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct SlowCallback {
    /// How long.
    pub took: Duration,
    /// What was delivered: the name of an [`Event`](crate::Event), `Upgrade` for a request, `Command` for what a handle asked
    /// for, `Sweep` for predicates, and `Turn` for what the loop itself did. Callbacks for what came by one read are measured together.
    pub event: &'static str,
    /// The connection, if it was about one that is established.
    pub id: Option<ConnectionId>,
}

/// Counters by name: what names there are is fixed, so their number is bounded whatever peers do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Named<const N: usize> {
    counts: [u64; N],
}

impl<const N: usize> Default for Named<N> {
    fn default() -> Self {
        Self { counts: [0; N] }
    }
}

impl<const N: usize> Named<N> {
    /// The last key stands for all that have none.
    fn count<K: PartialEq>(&mut self, keys: &[K; N], key: &K) {
        let place = keys.iter().position(|other| other == key).unwrap_or(N - 1);
        if let Some(count) = self.counts.get_mut(place) {
            *count += 1;
        }
    }

    fn iter<K: Copy>(&self, keys: &'static [K; N]) -> impl Iterator<Item = (K, u64)> {
        keys.iter().copied().zip(self.counts)
    }

    fn add(&mut self, other: &Self) {
        add_each(&mut self.counts, &other.counts);
    }
}

fn add_each(counts: &mut [u64], others: &[u64]) {
    for (mine, theirs) in counts.iter_mut().zip(others) {
        *mine += theirs;
    }
}

/// Opening handshakes that failed, by the [name](HandshakeError::name) of the cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FailureCounts(Named<{ HandshakeError::NAMES.len() }>);

impl FailureCounts {
    pub(crate) fn count(&mut self, error: HandshakeError) {
        self.0.count(&HandshakeError::NAMES, &error.name());
    }

    /// Every cause and how many failed by it.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter(&HandshakeError::NAMES)
    }

    /// How many failed.
    pub fn total(&self) -> u64 {
        self.0.counts.iter().sum()
    }
}

/// Statuses that are counted each by itself; 0 are all others.
const STATUSES: [u16; 24] = [
    200, 204, 206, 301, 302, 303, 304, 307, 308, 400, 401, 403, 404, 405, 408, 413, 426, 429, 431, 500, 502,
    503, 505, 0,
];

/// HTTP answers by status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AnswerCounts(Named<{ STATUSES.len() }>);

impl AnswerCounts {
    /// The status of an answer by its status line, `HTTP/1.1 404 Not Found`; 0 if it has none.
    pub(crate) fn status_of(answer: &[u8]) -> u16 {
        let digits = answer.get(9..12).unwrap_or_default();
        str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok()).unwrap_or(0)
    }

    /// Counts an answer of this status.
    pub(crate) fn count(&mut self, status: u16) {
        self.0.count(&STATUSES, &status);
    }

    /// Every status that is counted by itself, and how often it was the answer; 0 is any other.
    pub fn iter(&self) -> impl Iterator<Item = (u16, u64)> {
        self.0.iter(&STATUSES)
    }
}

/// Codes that are counted each by itself, and the first of each range of the others.
const CODES: [u16; 18] = [
    1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 3000,
    4000,
];

/// Connections that ended: by cause, initiator and code. Each sum of them is how many ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CloseCounts {
    clean: Named<{ Cause::NAMES.len() }>,
    unclean: Named<{ Cause::NAMES.len() }>,
    initiators: Named<{ INITIATORS.len() }>,
    codes: Named<{ CODES.len() }>,
}

const INITIATORS: [Initiator; 4] =
    [Initiator::Local, Initiator::Remote, Initiator::Both, Initiator::Transport];

impl CloseCounts {
    fn count(&mut self, report: &CloseReport) {
        let causes = if report.was_clean() { &mut self.clean } else { &mut self.unclean };
        causes.count(&Cause::NAMES, &report.cause.name());
        self.initiators.count(&INITIATORS, &report.initiator);
        let code = match report.effective_code() {
            code @ ..3000 => code,
            code => code / 1000 * 1000,
        };
        self.codes.count(&CODES, &code);
    }

    fn add(&mut self, other: &Self) {
        self.clean.add(&other.clean);
        self.unclean.add(&other.unclean);
        self.initiators.add(&other.initiators);
        self.codes.add(&other.codes);
    }

    /// By the [name](Cause::name) of the cause, and whether the ending was clean.
    pub fn by_cause(&self) -> impl Iterator<Item = (&'static str, bool, u64)> {
        let clean = self.clean.iter(&Cause::NAMES).map(|(name, count)| (name, true, count));
        clean.chain(self.unclean.iter(&Cause::NAMES).map(|(name, count)| (name, false, count)))
    }

    /// By who ended them.
    pub fn by_initiator(&self) -> impl Iterator<Item = (Initiator, u64)> {
        self.initiators.iter(&INITIATORS)
    }

    /// By [`CloseReport::effective_code`]; 3000 and 4000 are all codes of their thousand, which peers choose as they like.
    pub fn by_code(&self) -> impl Iterator<Item = (u16, u64)> {
        self.codes.iter(&CODES)
    }

    /// How many ended.
    pub fn total(&self) -> u64 {
        self.initiators.counts.iter().sum()
    }
}

impl Totals {
    /// A connection has ended.
    pub(crate) fn count_close(&mut self, report: &CloseReport) {
        self.closed.count(report);
        self.lost.add(&report.lost);
        self.unacknowledged_bytes += u64::from(report.lost.kernel_unsent.unwrap_or_default());
        self.durations.record(report.duration);
        if report.sent.is_some() || report.received.is_some() {
            self.close_phases.record(report.close_phase);
        }
    }

    /// A callback has taken long.
    pub(crate) fn count_callback(&mut self, slow: SlowCallback) {
        self.slow_callbacks += 1;
        self.slow_callback_time += slow.took;
        self.longest_callback = self.longest_callback.max(Some(slow));
    }
}

/// A limit of a loop, and how much of it is used now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cap {
    /// What is used.
    pub used: u64,
    /// What may be; `None` if there is no limit.
    pub limit: Option<u64>,
}

impl Cap {
    pub(crate) fn new(used: usize, limit: Option<usize>) -> Self {
        Self { used: used as u64, limit: limit.map(|limit| limit as u64) }
    }

    fn add(&mut self, other: Self) {
        self.used += other.used;
        self.limit = self.limit.zip(other.limit).map(|(mine, theirs)| mine.saturating_add(theirs));
    }
}

/// How much of each limit of a loop is used: what comes near its limit is about to cost somebody a connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Caps {
    /// [`LoopConfig::max_connections`](crate::config::LoopConfig::max_connections).
    pub connections: Cap,
    /// [`LoopConfig::max_handshakes`](crate::config::LoopConfig::max_handshakes).
    pub handshakes: Cap,
    /// [`LoopConfig::max_deferred`](crate::config::LoopConfig::max_deferred).
    pub deferred: Cap,
    /// [`LoopConfig::max_connections_per_address`](crate::config::LoopConfig::max_connections_per_address): the most that one address has had at
    /// once since the loop began. 0 without a limit: then nothing is counted.
    pub per_address: Cap,
    /// [`LoopConfig::max_backlog_total`](crate::config::LoopConfig::max_backlog_total), in bytes: what is queued for all connections together.
    pub backlog: Cap,
    /// [`LoopConfig::max_handle_queue`](crate::config::LoopConfig::max_handle_queue), in bytes. 0 in [`Clients::loop_stats`](crate::Clients::loop_stats): the loop has taken
    /// what was queued.
    pub handle_queue: Cap,
    /// Sockets of the loop, listeners too, and the descriptors that the process may have (`RLIMIT_NOFILE`), which all its loops and whatever
    /// else it opens share. 0 without a limit in [`Clients::loop_stats`](crate::Clients::loop_stats).
    pub descriptors: Cap,
}

impl Caps {
    fn add(&mut self, other: &Self) {
        self.connections.add(other.connections);
        self.handshakes.add(other.handshakes);
        self.deferred.add(other.deferred);
        self.per_address = Cap {
            used: self.per_address.used.max(other.per_address.used),
            limit: self.per_address.limit.max(other.per_address.limit),
        };
        self.backlog.add(other.backlog);
        self.handle_queue.add(other.handle_queue);
        // One limit for the whole process.
        let limit = self.descriptors.limit.max(other.descriptors.limit);
        self.descriptors = Cap { used: self.descriptors.used + other.descriptors.used, limit };
    }

    /// All of them, each with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, Cap)> {
        [
            ("connections", self.connections),
            ("handshakes", self.handshakes),
            ("deferred", self.deferred),
            ("per_address", self.per_address),
            ("backlog_bytes", self.backlog),
            ("handle_queue_bytes", self.handle_queue),
            ("descriptors", self.descriptors),
        ]
        .into_iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_histogram_puts_a_bound_into_its_own_bucket() {
        let mut histogram = Histogram::new(const { &micros(&TURN_BUCKETS) });
        for millis in [0, 1, 2, 3, 5000, 5001] {
            histogram.record(Duration::from_millis(millis));
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts, [2, 1, 1, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((histogram.count(), histogram.sum()), (6, Duration::from_millis(10_007)));
    }

    #[test]
    fn bytes_that_the_kernel_held_are_counted_beyond_4_gib() {
        let report = CloseReport {
            initiator: Initiator::Local,
            cause: Cause::Terminated,
            sent: None,
            sent_flushed: false,
            received: None,
            lost: Lost { kernel_unsent: Some(u32::MAX), ..Lost::ZERO },
            truncated: false,
            duration: Duration::ZERO,
            close_phase: Duration::ZERO,
            traffic: None,
        };
        let mut totals = Totals::default();
        totals.count_close(&report);
        totals.count_close(&report);
        assert_eq!(totals.unacknowledged_bytes, 2 * u64::from(u32::MAX));
        assert_eq!(
            (totals.durations.count(), totals.close_phases.count()),
            (2, 0),
            "no Close, no close phase"
        );
    }

    #[test]
    fn what_has_no_place_of_its_own_is_counted_as_other() {
        let mut answers = AnswerCounts::default();
        for line in ["HTTP/1.1 404 Not Found", "HTTP/1.1 299 ", "HTTP/1.1 418 I'm", "nonsense", ""] {
            answers.count(AnswerCounts::status_of(line.as_bytes()));
        }
        let counted: Vec<_> = answers.iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(404, 1), (0, 4)]);
    }
}
