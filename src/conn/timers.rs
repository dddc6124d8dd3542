//! A connection's one deadline, and what is due at it.

use std::time::Duration;

use super::{
    Conn, Context, Probe,
    lifecycle::{Ending, Why},
    state::{Input, State},
};
use crate::{
    close::{Cause, CloseCode, CloseFrame, Initiator},
    config::Config,
    conn::Timing,
    error::HandshakeCause,
    time::Time,
    wire::upgrade::Refusal,
};

impl Conn {
    /// When [`Conn::handle_timeout`] is to be called next. Only ever moves earlier by an event, later by activity.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Time> {
        match self.state {
            State::Connecting => Some(self.connecting_deadline(config)),
            State::Refusing | State::Lingering => Some(self.since.after(config.linger_timeout)),
            State::Open => match (self.heartbeat_due(config), self.stall_due(config)) {
                (Some(heartbeat), Some(stall)) => Some(heartbeat.min(stall)),
                (heartbeat, stall) => heartbeat.or(stall),
            },
            State::LocalClosing | State::RemoteClosing | State::Failing => {
                self.ending().map(|ending| ending.deadline.min(ending.flush_deadline))
            }
            State::Closed => None,
        }
    }

    pub(super) fn heartbeat_due(&self, config: &Config) -> Option<Time> {
        let heartbeat = self.overrides().and_then(|o| o.heartbeat).unwrap_or(config.heartbeat);
        let interval = heartbeat.interval?;
        if self.flags.paused {
            return None;
        }
        Some(match self.tally.unanswered() {
            None => self.last_inbound.after(interval),
            Some(after) => self.last_inbound.after(after).after(heartbeat.timeout),
        })
    }

    pub(super) fn stall_due(&self, config: &Config) -> Option<Time> {
        let timeout = self.overrides().and_then(|o| o.stall_timeout).unwrap_or(config.stall_timeout)?;
        let work = self.work.as_ref()?;
        (!work.backlog.is_empty()).then(|| work.progress.after(timeout))
    }

    /// What to look at before [`Conn::handle_timeout`] may end it (specification, section 3): an answer may lie unread in
    /// the kernel, or the kernel may take more by now.
    pub(crate) fn probe(&self, now: Time, config: &Config) -> Probe {
        let (read, write) = match self.state {
            State::Connecting => (!self.is_dialling(), false),
            State::Open => {
                let is_due = |due: Option<Time>| due.is_some_and(|due| due <= now);
                let waits_for_pong = self.tally.unanswered().is_some();
                (waits_for_pong && is_due(self.heartbeat_due(config)), is_due(self.stall_due(config)))
            }
            State::LocalClosing => (self.ending().is_some_and(|ending| ending.deadline <= now), true),
            State::RemoteClosing | State::Failing => (false, true),
            State::Refusing | State::Lingering | State::Closed => (false, false),
        };
        let closing = self.state == State::LocalClosing;
        Probe { read, write: write && self.buffered_amount() > 0, closing }
    }

    /// The same before the hard sweep of a shutdown ends it.
    pub(crate) fn probe_at_hard_sweep(&self) -> Probe {
        let closing = self.state == State::LocalClosing;
        Probe { read: closing, write: self.state.is_closing() && self.buffered_amount() > 0, closing }
    }

    /// Whether an answer that is overdue may still be looked for behind what was read so far.
    pub(crate) fn may_be_probed_again(&self) -> bool {
        /// What is read of a connection whose `close_timeout` is over.
        const MOST: u64 = 8 << 20;
        self.state == State::LocalClosing && self.ending().is_some_and(|ending| ending.probed < MOST)
    }

    /// The callback in which closing began has returned, `by` later: its timers start now.
    pub(crate) fn shift_timers(&mut self, by: Duration) {
        if let Some(ending) = self.ending_mut() {
            for at in [&mut ending.began, &mut ending.deadline, &mut ending.flush_deadline] {
                *at = at.after(by);
            }
        }
    }

    /// Carries out what is due at `now`; nothing if nothing is.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.config).is_none_or(|due| due > cx.now) {
            return;
        }
        match self.state {
            State::Connecting if self.is_client() => self.handle_opening_timeout(cx),
            State::Connecting => {
                let mut response = Vec::new();
                Refusal::TIMEOUT.write(&mut response);
                let why = Why::Handshake { cause: Some(HandshakeCause::Timeout), response };
                self.apply(Input::HandshakeTimeout, why, cx);
            }
            State::Refusing | State::Lingering => self.apply(Input::LingerEnd, Why::Nothing, cx),
            State::Open => self.handle_open_timeout(cx),
            State::LocalClosing | State::RemoteClosing | State::Failing => {
                if self.ending().is_some_and(|ending| ending.deadline <= cx.now) {
                    let (flushed, state) = (self.ending().is_some_and(Ending::sent_flushed), self.state);
                    let cause = Cause::CloseTimeout { flushed };
                    let abort = self.abort_style(cx.config);
                    let initiator = Initiator::Local;
                    debug_assert!(state.is_closing());
                    self.apply(Input::CloseTimeout, Why::End { cause, initiator, abort }, cx);
                } else {
                    self.handle_flush_budget(cx);
                }
            }
            State::Closed => {}
        }
    }

    pub(super) fn handle_open_timeout(&mut self, cx: &mut Context<'_>) {
        let abort = self.abort_style(cx.config);
        if self.stall_due(cx.config).is_some_and(|due| due <= cx.now) {
            let why = Why::End { cause: Cause::WriteStall, initiator: Initiator::Local, abort };
            return self.apply(Input::WriteStall, why, cx);
        }
        if self.tally.unanswered().is_none() {
            return self.apply(Input::HeartbeatIdle, Why::Nothing, cx);
        }
        let cause = Cause::HeartbeatTimeout;
        if self.buffered_amount() == 0 {
            let frame = CloseFrame::with_constant(CloseCode::INTERNAL_ERROR, "heartbeat timeout");
            // The Close has this turn to get into the kernel; then comes the abort.
            let timing = Timing { close_timeout: Some(Duration::ZERO), flush_budget: None };
            self.apply(Input::HeartbeatTimeout, Why::Fail { cause, frame, timing }, cx);
        } else {
            self.apply(
                Input::HeartbeatTimeoutQueued,
                Why::End { cause, initiator: Initiator::Local, abort },
                cx,
            );
        }
    }

    /// Drops what has not begun if `flush_budget` is used up, or answers the peer's Close in the application's place.
    pub(crate) fn handle_flush_budget(&mut self, cx: &mut Context<'_>) {
        match self.ending_mut() {
            Some(ending) if ending.flush_deadline <= cx.now => ending.flush_deadline = Time::NEVER,
            _ => return,
        }
        self.apply(Input::FlushBudget, Why::Nothing, cx);
        if let Some(frame) = self.ending().filter(|e| e.unanswered).and_then(|e| e.received.clone()) {
            self.apply(Input::AnswerClose, Why::Answer(frame.answer()), cx);
        }
    }
}
