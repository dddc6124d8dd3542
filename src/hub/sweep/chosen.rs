//! One `close_where` or `terminate_where`: whom it may concern, who waits for its moment, and its report. Predicates
//! are asked elsewhere.

use std::collections::HashSet;

use super::{pace::Schedule, search::Search};
use crate::{
    close::{Cause, CloseFrame, CloseReport},
    id::ConnectionId,
    shutdown::{Pace, SweepId, SweepReport},
    time::Time,
};

/// What happens to the connections that a predicate chooses.
#[derive(Clone, Debug)]
pub(in crate::hub) enum Doing {
    Close(CloseFrame),
    Terminate,
}

#[derive(Debug)]
pub(in crate::hub) struct Chosen {
    id: SweepId,
    doing: Doing,
    began: Time,
    /// Those that opened at the moment at which the sweep began, but after it.
    later: HashSet<ConnectionId>,
    search: Search,
    schedule: Schedule,
    /// Matched, and `Close` was not delivered yet.
    outstanding: u64,
    report: SweepReport,
}

impl Chosen {
    pub(super) fn new(id: SweepId, doing: Doing, pace: Pace, now: Time) -> Self {
        Self {
            id,
            doing,
            began: now,
            later: HashSet::new(),
            search: Search::default(),
            schedule: Schedule::new(pace, now),
            outstanding: 0,
            report: SweepReport::default(),
        }
    }

    pub(in crate::hub) const fn id(&self) -> SweepId {
        self.id
    }

    pub(in crate::hub) const fn doing(&self) -> &Doing {
        &self.doing
    }

    /// A connection has opened.
    pub(super) fn handle_opened(&mut self, id: ConnectionId, now: Time) {
        if now == self.began && !self.search.is_complete() {
            self.later.insert(id);
        }
    }

    /// Whether a connection was open when the sweep began.
    pub(in crate::hub) fn includes(&self, id: ConnectionId, opened: Time) -> bool {
        opened < self.began || opened == self.began && !self.later.contains(&id)
    }

    /// The next slot to look at. After the last one, those that were found get their moments.
    pub(super) fn poll_search(&mut self, end: usize, now: Time, rng: &mut fastrand::Rng) -> Option<usize> {
        if self.search.is_complete() {
            return None;
        }
        if !self.search.has_begun() {
            // The callback that asked for it has returned.
            self.schedule.begin(now);
        }
        let slot = self.search.next(end);
        if slot.is_none() {
            self.later = HashSet::new();
            self.schedule.set(0, rng);
        }
        slot
    }

    /// The predicate has chosen a connection. Returns whether its moment is now.
    pub(in crate::hub) fn handle_match(&mut self, id: ConnectionId) -> bool {
        self.report.matched += 1;
        self.outstanding += 1;
        let immediate = self.schedule.is_immediate();
        if !immediate {
            self.schedule.push(id);
        }
        immediate
    }

    /// The next connection that waits, and its moment.
    pub(in crate::hub) fn poll_due(&self) -> Option<(Time, ConnectionId)> {
        self.schedule.first()
    }

    /// The connection that [`Chosen::poll_due`] gave waits no longer.
    pub(in crate::hub) fn pop_due(&mut self) {
        self.schedule.pop();
    }

    /// A connection that matched has ended, or closes for another reason: it does not belong to the sweep any more.
    pub(in crate::hub) const fn handle_unmatch(&mut self) {
        self.report.matched -= 1;
        self.outstanding -= 1;
    }

    /// The `Close` of a connection that belongs to the sweep was delivered.
    pub(super) fn handle_closed(&mut self, closed: &CloseReport) {
        self.outstanding -= 1;
        self.report.clean += u64::from(closed.was_clean());
        self.report.timed_out += u64::from(matches!(closed.cause, Cause::CloseTimeout { .. }));
        self.report.lost.add(&closed.lost);
    }

    /// The hub has no connection left.
    pub(super) fn handle_nobody_left(&mut self) {
        self.search.complete();
        let gone = self.schedule.clear() as u64;
        self.report.matched -= gone;
        self.outstanding -= gone;
    }

    /// When there is something to do, other than at once.
    pub(super) fn poll_timeout(&self, now: Time) -> Option<Time> {
        if self.search.is_complete() { self.schedule.first().map(|first| first.0) } else { Some(now) }
    }

    /// Its report, once the last connection that belongs to it has ended.
    pub(super) fn poll_report(&self) -> Option<SweepReport> {
        (self.schedule.is_done() && self.outstanding == 0).then_some(self.report)
    }
}
