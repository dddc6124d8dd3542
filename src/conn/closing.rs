//! The facts of an ending, from the first Close or failure until they are reported. Judgements are derived from them by
//! [`CloseReport`]; no effect is carried out here.

use std::time::Duration;

use super::{
    backlog::Dropped,
    state::{PeerFin, State},
    watch::Times,
};
use crate::{
    close::{Cause, CloseFrame, CloseReport, CloseTiming, Initiator, Lost, Traffic},
    config::{Abort, ConnectionConfig},
    shutdown::SweepId,
    time::Time,
};

/// See above. Where our Close stands on its way to the kernel is the outbox's to know.
#[derive(Debug)]
pub(super) struct Closing {
    pub(super) times: Times,
    pub(super) initiator: Initiator,
    pub(super) cause: Cause,
    pub(super) sent: Option<CloseFrame>,
    pub(super) received: Option<CloseFrame>,
    pub(super) lost: Lost,
    pub(super) began: Time,
    pub(super) deadline: Time,
    /// `None` when the flush budget is used up, or has not begun.
    pub(super) flush_deadline: Option<Time>,
    /// Bytes of messages delivered since it began.
    pub(super) delivered: u64,
    /// Bytes that were read and written since a deadline was due, to see what can be completed after all.
    pub(super) probed: u64,
    /// The peer's FIN, if it was read.
    pub(super) fin: Option<PeerFin>,
    pub(super) sweeps: Vec<SweepId>,
    /// How TCP is to be aborted.
    pub(super) abort: Abort,
    /// Just before the end: the state, how much was queued, and whether our Close was wholly in the kernel.
    pub(super) end: End,
}

/// What only the last step of an ending knows.
#[derive(Clone, Copy, Debug)]
pub(super) struct End {
    pub(super) state: State,
    pub(super) queued: usize,
    pub(super) flushed: bool,
}

impl Closing {
    /// An ending that begins now. The step that begins it says who ends it and why.
    pub(super) const fn new(times: Times, now: Time) -> Self {
        Self {
            times,
            initiator: Initiator::Transport,
            cause: Cause::PeerFin,
            sent: None,
            received: None,
            lost: Lost::ZERO,
            began: now,
            deadline: Time::NEVER,
            flush_deadline: None,
            delivered: 0,
            probed: 0,
            fin: None,
            sweeps: Vec::new(),
            abort: Abort::Reset,
            end: End { state: State::Open, queued: 0, flushed: false },
        }
    }

    /// What of our messages was dropped.
    pub(super) const fn count(&mut self, dropped: Dropped) {
        self.lost.messages += dropped.messages;
        self.lost.bytes += dropped.bytes;
        self.lost.partial += dropped.partial;
    }

    /// One closing timeout bounds flush and answer. What the call says precedes the settings.
    pub(super) fn start_timers(&mut self, timing: CloseTiming, settings: &ConnectionConfig, now: Time) {
        let close_timeout = timing.close_timeout.unwrap_or(settings.close_timeout);
        let flush_budget = timing.flush_budget.or(settings.flush_budget).unwrap_or(close_timeout / 2);
        // A call may ask for less time than the settings give to the data.
        let flush_budget = flush_budget.min(close_timeout);
        self.began = now;
        self.deadline = now.after(close_timeout);
        self.flush_deadline = Some(now.after(flush_budget));
    }

    /// The callback in which it began has returned, `by` later: the timers start now.
    pub(super) fn shift(&mut self, by: Duration) {
        for at in [&mut self.began, &mut self.deadline].into_iter().chain(&mut self.flush_deadline) {
            *at = at.after(by);
        }
    }

    /// The earlier of its deadlines.
    pub(super) fn due(&self) -> Time {
        self.flush_deadline.map_or(self.deadline, |at| at.min(self.deadline))
    }

    /// Bytes were read or written: they count if a deadline is due.
    #[inline]
    pub(super) fn note_probed(&mut self, bytes: usize, now: Time) {
        if self.due() <= now {
            self.probed += bytes as u64;
        }
    }

    /// The flush budget is used up.
    pub(super) fn end_flushing(&mut self, now: Time) {
        self.flush_deadline = None;
        if self.deadline > now {
            self.probed = 0;
        }
    }

    /// Cuts it to `deadline` at the latest.
    pub(super) fn shorten(&mut self, deadline: Time, now: Time) {
        if deadline < self.deadline {
            self.deadline = deadline;
            self.shorten_flushing(deadline, now);
        }
    }

    /// Leaves the Close its part of the time up to `end`.
    pub(super) fn shorten_flushing(&mut self, end: Time, now: Time) {
        if let Some(at) = &mut self.flush_deadline {
            *at = (*at).min(now.after(end.since(now) / 2));
        }
    }

    /// The report, and the sweeps that it belongs to.
    pub(super) fn into_report(
        self,
        kernel_unsent: Option<u32>,
        traffic: Option<Traffic>,
        now: Time,
    ) -> (CloseReport, Vec<SweepId>) {
        let had_close = self.sent.is_some() || self.received.is_some();
        let closed = CloseReport {
            initiator: self.initiator,
            cause: self.cause,
            sent_flushed: self.end.flushed,
            sent: self.sent,
            received: self.received,
            lost: Lost { kernel_unsent, ..self.lost },
            duration: now.since(self.times.opened),
            truncated: self.fin.is_some_and(|fin| fin.truncated),
            close_phase: if had_close { now.since(self.began) } else { Duration::ZERO },
            traffic,
        };
        (closed, self.sweeps)
    }
}
