//! The end: the raw phases for connections, the same pace for polling sessions, then the store is flushed (specification 19).

use std::time::Duration;

use adjourn::shutdown::{Pace, ShutdownPlan, ShutdownReport};

use crate::core::ShutdownCounts;

/// How a server went down.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// The connections' part.
    pub raw: ShutdownReport,
    /// Sockets that were disconnected by it.
    pub sockets: u64,
    /// Polling sessions that were closed by it.
    pub polling: u64,
    /// Sessions that can be resumed.
    pub resumable: u64,
    /// Sessions that the store did not take.
    pub unsaved_sessions: u64,
    /// Entries that the store did not take.
    pub unflushed_entries: u64,
}

impl DrainReport {
    pub(super) fn new(raw: ShutdownReport, counts: ShutdownCounts) -> Self {
        let ShutdownCounts { sockets, polling, resumable, unsaved_sessions, unflushed_entries, .. } = counts;
        Self { raw, sockets, polling, resumable, unsaved_sessions, unflushed_entries }
    }
}

/// How far the sweep of the polling sessions is.
#[derive(Debug)]
pub(super) struct Sweep {
    pace: Pace,
    grace: Duration,
    begun: Option<Begun>,
}

#[derive(Clone, Copy, Debug)]
struct Begun {
    at: Duration,
    /// Sessions at that time, and those swept since.
    total: usize,
    swept: usize,
}

impl Sweep {
    pub(super) fn new(plan: &ShutdownPlan) -> Self {
        Self { pace: plan.pace, grace: plan.grace, begun: None }
    }

    /// The plan that holds from now on, unless the sweep has begun.
    pub(super) fn set_plan(&mut self, plan: &ShutdownPlan) {
        if self.begun.is_none() {
            *self = Self::new(plan);
        }
    }

    /// Begins with `total` polling sessions; a second call changes nothing.
    pub(super) fn begin(&mut self, total: usize, now: Duration) {
        self.begun.get_or_insert(Begun { at: now, total, swept: 0 });
    }

    pub(super) const fn has_begun(&self) -> bool {
        self.begun.is_some()
    }

    /// How many sessions are to be swept now.
    pub(super) fn due(&mut self, now: Duration) -> usize {
        let Some(begun) = &mut self.begun else { return 0 };
        let due = due(self.pace, begun.total, now.saturating_sub(begun.at));
        let new = due.saturating_sub(begun.swept);
        begun.swept += new;
        new
    }

    /// When to look again.
    pub(super) fn next(&self, now: Duration) -> Option<Duration> {
        let begun = self.begun.filter(|begun| begun.swept < begun.total)?;
        Some(now.saturating_add(STEP).max(begun.at))
    }

    /// When the last has to be gone.
    pub(super) fn end(&self) -> Option<Duration> {
        let begun = self.begun?;
        Some(begun.at.saturating_add(length(self.pace, begun.total)).saturating_add(self.grace))
    }
}

/// How often a sweep that is spread over time goes on.
const STEP: Duration = Duration::from_millis(20);

/// How long it takes to sweep `total` sessions.
fn length(pace: Pace, total: usize) -> Duration {
    match pace {
        Pace::Spread(time) => time,
        Pace::Rate(rate) => {
            let per_second = if rate > 0.0 { rate } else { 1.0 };
            #[allow(clippy::cast_precision_loss, reason = "there are fewer than 2^52 sessions")]
            Duration::try_from_secs_f64(total as f64 / per_second).unwrap_or(Duration::MAX)
        }
        // `AtOnce`, and paces that later versions of adjourn may have: polling sessions then go first.
        _ => Duration::ZERO,
    }
}

/// How many of `total` are due after `elapsed`: their share of the time, and all at its end.
fn due(pace: Pace, total: usize, elapsed: Duration) -> usize {
    let (length, elapsed) = (length(pace, total).as_micros(), elapsed.as_micros());
    if elapsed >= length {
        return total;
    }
    usize::try_from(total as u128 * elapsed / length).unwrap_or(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    #[test]
    fn polling_sessions_have_the_plans_pace() {
        for (pace, total, elapsed, expected) in [
            (Pace::AtOnce, 5, ms(0), 5),
            (Pace::Spread(ms(100)), 10, ms(0), 0),
            (Pace::Spread(ms(100)), 10, ms(55), 5),
            (Pace::Spread(ms(100)), 10, ms(100), 10),
            (Pace::Rate(10.0), 10, ms(500), 5),
            (Pace::Rate(10.0), 10, ms(1000), 10),
            (Pace::Rate(-1.0), 2, ms(1000), 1),
            (Pace::Spread(Duration::MAX), 2, ms(1000), 0),
            (Pace::AtOnce, 0, ms(0), 0),
        ] {
            assert_eq!(due(pace, total, elapsed), expected, "{pace:?} {total} {elapsed:?}");
        }
    }

    #[test]
    fn each_session_is_swept_once() {
        let mut plan = ShutdownPlan::soft(ms(500));
        plan.pace = Pace::Spread(ms(100));
        let mut sweep = Sweep::new(&plan);
        assert_eq!((sweep.due(ms(5)), sweep.end()), (0, None));
        sweep.begin(10, ms(1000));
        sweep.begin(99, ms(1001));
        assert_eq!((sweep.due(ms(1050)), sweep.due(ms(1050)), sweep.due(ms(2000))), (5, 0, 5));
        assert_eq!((sweep.next(ms(2000)), sweep.end()), (None, Some(ms(1600))));
    }
}
