//! What an HTTP connection is at, and when it has been at it for too long. Time is a parameter.

use std::time::Duration;

use tokio::time::Instant;

/// The limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// From the first byte of a head to its last.
    pub(super) head: Duration,
    /// Between an answer and the next request; and how long the peer may take nothing.
    pub(super) idle: Duration,
}

/// What a connection is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Nothing of a request has come.
    Idle { since: Instant },
    /// A head has begun.
    Head { since: Instant },
    /// A request is served; its answer's body may still be written.
    Busy,
    /// The answer is made, and to be flushed.
    Flushing,
}

/// How a connection is ended that took too long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// A head is not complete: 408.
    Head,
    /// No request, or an answer that is not taken: just closed.
    Idle,
}

/// The phase of a connection, and since when the peer takes nothing.
#[derive(Debug)]
pub(super) struct Activity {
    limits: Limits,
    phase: Phase,
    blocked_since: Option<Instant>,
}

impl Activity {
    /// A connection whose first head, or part of it, has come already.
    pub(super) fn new(limits: Limits, now: Instant) -> Self {
        Self { limits, phase: Phase::Head { since: now }, blocked_since: None }
    }

    /// Bytes have come.
    pub(super) fn received(&mut self, now: Instant) {
        if let Phase::Idle { .. } = self.phase {
            self.phase = Phase::Head { since: now };
        }
    }

    /// A head is complete.
    pub(super) fn request(&mut self) {
        self.phase = Phase::Busy;
    }

    /// All of the answer's body was given to the connection.
    pub(super) fn answered(&mut self) {
        self.phase = Phase::Flushing;
    }

    /// The peer has taken something.
    pub(super) fn wrote(&mut self) {
        self.blocked_since = None;
    }

    /// The peer takes nothing.
    pub(super) fn blocked(&mut self, now: Instant) {
        self.blocked_since.get_or_insert(now);
    }

    /// Nothing is left to be written.
    pub(super) fn flushed(&mut self, now: Instant) {
        self.blocked_since = None;
        if self.phase == Phase::Flushing {
            self.phase = Phase::Idle { since: now };
        }
    }

    /// When the connection is overdue, and how it is ended then.
    pub(super) fn deadline(&self) -> Option<(Instant, Overdue)> {
        let blocked = self.blocked_since.map(|since| (since + self.limits.idle, Overdue::Idle));
        let phase = match self.phase {
            Phase::Idle { since } => Some((since + self.limits.idle, Overdue::Idle)),
            Phase::Head { since } => Some((since + self.limits.head, Overdue::Head)),
            Phase::Busy | Phase::Flushing => None,
        };
        [blocked, phase].into_iter().flatten().min_by_key(|(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: Duration::from_secs(10), idle: Duration::from_secs(20) };

    fn seconds(start: Instant, n: u64) -> Instant {
        start + Duration::from_secs(n)
    }

    #[test]
    fn a_head_has_10_seconds_from_its_first_byte_however_it_trickles() {
        let start = Instant::now();
        let mut activity = Activity::new(LIMITS, start);
        activity.received(seconds(start, 9));
        assert_eq!(activity.deadline(), Some((seconds(start, 10), Overdue::Head)));
        activity.request();
        assert_eq!(activity.deadline(), None, "a GET is held as long as its session likes");
        activity.answered();
        activity.flushed(seconds(start, 30));
        assert_eq!(activity.deadline(), Some((seconds(start, 50), Overdue::Idle)));
        activity.received(seconds(start, 45));
        activity.received(seconds(start, 46));
        assert_eq!(activity.deadline(), Some((seconds(start, 55), Overdue::Head)));
    }

    #[test]
    fn an_answer_that_is_not_taken_ends_the_connection() {
        let start = Instant::now();
        let mut activity = Activity::new(LIMITS, start);
        activity.request();
        activity.answered();
        activity.blocked(seconds(start, 1));
        activity.blocked(seconds(start, 5));
        assert_eq!(activity.deadline(), Some((seconds(start, 21), Overdue::Idle)));
        activity.wrote();
        assert_eq!(activity.deadline(), None);
    }

    #[test]
    fn a_body_that_is_written_piece_by_piece_is_not_idle() {
        let start = Instant::now();
        let mut activity = Activity::new(LIMITS, start);
        activity.request();
        activity.flushed(seconds(start, 1));
        assert_eq!(activity.deadline(), None);
    }
}
