//! A connection's one deadline, and what is due at it.

use std::time::Duration;

use super::{
    CloseTiming, Conn, Context,
    life::{Life, Paused},
    state::{Failure, Input, State},
    watch::{Times, Watch},
};
use crate::{
    close::{Cause, CloseCode, CloseFrame},
    config::{Config, ConnectionConfig},
    time::Time,
    wire::upgrade::Refusal,
};

/// How a due connection is looked at before it is judged (specification, section 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Probe {
    /// It waits for input: what the kernel holds is read.
    pub(crate) read: bool,
    /// It waits for output: what is queued is offered to the kernel.
    pub(crate) write: bool,
    /// A closing handshake is at its end: what is read and written may take several turns.
    pub(crate) closing: bool,
}

/// What a probe has found.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found {
    /// How far the input was read.
    pub(crate) read: Extent,
    /// The connection's share of the turn is written, and the kernel would take more.
    pub(crate) takes_more: bool,
}

/// How far the input of a connection was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// Not at all: the turn has no room for the events that come first.
    Not,
    /// There is more to read than one turn may.
    Partly,
    Wholly,
}

/// What is read and written, at most, to see whether a connection whose `close_timeout` is over can be completed, or what
/// was queued before its Close can be sent although `flush_budget` is over.
const MOST_PROBED: u64 = 8 << 20;

impl Conn {
    /// When [`Conn::handle_timeout`] is to be called next. Only ever moves earlier by an event, later by activity.
    pub(crate) fn deadline(&self, config: &Config) -> Option<Time> {
        match &self.life {
            Life::Connecting { since, .. } => Some(since.after(config.handshake.handshake_timeout)),
            Life::Deferred(deferred) => Some(deferred.since.after(config.handshake.handshake_timeout)),
            Life::Dialling(dialling) => Some(dialling.deadline),
            Life::Refusing { since, .. } | Life::Lingering { since, .. } => {
                Some(since.after(self.settings(config).linger_timeout))
            }
            Life::Open { watch, times } => {
                let due = earlier(self.heartbeat_due(*watch, *times, config), self.stall_due(config));
                earlier(due, self.release_due(config))
            }
            Life::Paused(paused) => {
                let due = if paused.discards {
                    earlier(self.heartbeat_due(paused.watch, paused.times, config), paused.closes)
                } else {
                    self.pause_end(paused, config)
                };
                earlier(earlier(due, self.stall_due(config)), self.release_due(config))
            }
            Life::LocalClosing { closing, .. }
            | Life::RemoteClosing { closing, .. }
            | Life::Failing(closing) => Some(closing.due()),
            Life::Detached(_) | Life::Closed { .. } => None,
        }
    }

    fn heartbeat_due(&self, watch: Watch, times: Times, config: &Config) -> Option<Time> {
        let heartbeat = self.settings(config).heartbeat;
        let interval = heartbeat.interval?;
        let silent_since = times.last_inbound;
        Some(match watch.unanswered() {
            Some(after) => silent_since.after(after).after(heartbeat.timeout),
            None => silent_since.after(watch.rest().unwrap_or_default()).after(interval),
        })
    }

    fn stall_due(&self, config: &Config) -> Option<Time> {
        let since = self.outbox.waiting_since()?;
        Some(since.after(self.settings(config).stall_timeout?))
    }

    /// When memory is given back that an open connection has not used for long enough.
    fn release_due(&self, config: &Config) -> Option<Time> {
        self.compression()?.release_due(config)
    }

    /// When reading goes on although nobody has resumed. Heartbeats rest until then.
    fn pause_end(&self, paused: &Paused, config: &Config) -> Option<Time> {
        let settings = self.settings(config);
        let pause_timeout = settings.pause_timeout;
        let by_setting =
            pause_timeout.map(|timeout| paused.since.after(timeout).after(settings.close_timeout));
        earlier(by_setting, paused.left)
    }

    /// The settings that apply to it: its own, or those of all connections.
    #[inline]
    pub(super) fn settings<'c>(&'c self, config: &'c Config) -> &'c ConnectionConfig {
        self.details.settings(&config.connection)
    }

    /// What to look at before [`Conn::handle_timeout`] may end it (specification, section 3): an answer may lie unread in
    /// the kernel, or the kernel may take more by now.
    pub(crate) fn probe(&self, now: Time, config: &Config) -> Probe {
        let (read, write, closing) = match &self.life {
            Life::Connecting { .. } => (true, false, false),
            Life::Dialling(_) => (!self.is_dialling(), false, false),
            Life::Open { watch, times } => {
                (self.is_silent(*watch, *times, now, config), self.is_stalled(now, config), false)
            }
            Life::Paused(paused) => {
                let (watch, times) = (paused.watch, paused.times);
                let closes = paused.closes.is_some_and(|at| at <= now);
                let silent = paused.discards && self.is_silent(watch, times, now, config);
                (closes || silent, self.is_stalled(now, config), false)
            }
            Life::LocalClosing { closing, .. } => (closing.deadline <= now, true, true),
            Life::RemoteClosing { closing, .. } | Life::Failing(closing) => {
                (false, true, closing.deadline <= now)
            }
            Life::Deferred(_)
            | Life::Refusing { .. }
            | Life::Lingering { .. }
            | Life::Detached(_)
            | Life::Closed { .. } => (false, false, false),
        };
        Probe { read, write: write && self.queued() > 0, closing }
    }

    /// The same before the hard sweep of a shutdown ends it.
    pub(crate) fn probe_at_hard_sweep(&self) -> Probe {
        let closing = matches!(self.life, Life::LocalClosing { .. });
        let write = self.state().is_closing() && self.queued() > 0;
        Probe { read: closing, write, closing }
    }

    /// Does what is due after a probe. What one turn did not see the end of is probed on in the next turn, see
    /// [`MOST_PROBED`].
    pub(crate) fn handle_probed(&mut self, probe: Probe, found: Found, cx: &mut Context<'_>) {
        if self.is_open() && !probe.write && self.probe(cx.now, cx.config).write {
            // That fell due while the probe's callbacks ran: the next turn asks the kernel whether it takes more.
            return;
        }
        let goes_on = found.takes_more || (probe.closing && found.read == Extent::Partly);
        let may_go_on = self.life.closing().is_some_and(|closing| closing.probed < MOST_PROBED);
        match found.read {
            Extent::Not => {}
            // A failing connection has no flush budget.
            _ if goes_on && may_go_on && found.takes_more && self.state() != State::Failing => {}
            _ if goes_on && may_go_on => self.handle_flush_budget(cx),
            Extent::Partly | Extent::Wholly => self.handle_timeout(cx),
        }
    }

    /// The kernel took less than it was offered, at `now`, and not at `then`, which was taken for the time.
    pub(crate) fn note_refused(&mut self, then: Time, now: Time) {
        self.outbox.note_refused(then, now);
    }

    /// The callback in which the timers were started has returned, `by` later: they start now. Where there was a deadline
    /// `before`, which was made shorter, it does not become longer by that.
    pub(crate) fn shift_timers(&mut self, by: Duration, before: Option<Time>) {
        match &mut self.life {
            Life::Refusing { since, .. } => *since = since.after(by),
            Life::Paused(paused) => paused.since = paused.since.after(by),
            Life::Dialling(dialling) => {
                dialling.deadline = dialling.deadline.after(by);
                dialling.give_up = dialling.give_up.after(by);
            }
            life => match (life.closing_mut(), before) {
                (Some(closing), None) => closing.shift(by),
                (Some(closing), Some(before)) => closing.deadline = closing.deadline.after(by).min(before),
                (None, _) => {}
            },
        }
    }

    /// When its closing handshake is over at the latest, if it has begun.
    pub(crate) fn closing_deadline(&self) -> Option<Time> {
        self.life.closing().map(|closing| closing.deadline)
    }

    /// A Ping has waited for its answer for as long as it may.
    fn is_silent(&self, watch: Watch, times: Times, now: Time, config: &Config) -> bool {
        watch.unanswered().is_some() && self.heartbeat_due(watch, times, config).is_some_and(|due| due <= now)
    }

    fn is_stalled(&self, now: Time, config: &Config) -> bool {
        self.stall_due(config).is_some_and(|due| due <= now)
    }

    /// Does what is due at `now`; nothing if nothing is.
    pub(crate) fn handle_timeout(&mut self, cx: &mut Context<'_>) {
        if self.deadline(cx.config).is_none_or(|due| due > cx.now) {
            return;
        }
        match &self.life {
            Life::Connecting { .. } | Life::Deferred(_) => {
                let mut response = Vec::new();
                Refusal::TIMEOUT.write(&mut response);
                self.apply(Input::HandshakeTimeout { response }, cx);
            }
            Life::Dialling(_) => self.handle_dialling_timeout(cx),
            Life::Refusing { .. } | Life::Lingering { .. } => {
                self.apply(Input::LingerEnd { exceeded: false }, cx);
            }
            Life::Open { .. } | Life::Paused(_) => self.handle_open_timeout(cx),
            Life::LocalClosing { closing, .. }
            | Life::RemoteClosing { closing, .. }
            | Life::Failing(closing) => {
                if closing.deadline <= cx.now {
                    self.parse_held(cx);
                    let flushed = self.outbox.has_flushed_close();
                    let style = self.settings(cx.config).abort;
                    self.apply(Input::CloseTimeout { flushed, style }, cx);
                } else {
                    self.handle_flush_budget(cx);
                }
            }
            Life::Detached(_) | Life::Closed { .. } => {}
        }
    }

    fn handle_open_timeout(&mut self, cx: &mut Context<'_>) {
        if self.release_due(cx.config).is_some_and(|due| due <= cx.now) {
            if let Some(compression) = self.details.compression_mut() {
                compression.release_deflater();
            }
            if self.deadline(cx.config).is_none_or(|due| due > cx.now) {
                return;
            }
        }
        let style = self.settings(cx.config).abort;
        if self.is_stalled(cx.now, cx.config) {
            return self.apply(Input::WriteStall { style }, cx);
        }
        if self.life.holds_input() {
            return self.end_pause(cx);
        }
        if let Life::Paused(paused) = &self.life
            && paused.closes.is_some_and(|at| at <= cx.now)
        {
            return self.close_paused(cx);
        }
        if self.life.watch_mut().is_none_or(|watch| watch.unanswered().is_none()) {
            return self.apply(Input::HeartbeatIdle, cx);
        }
        if self.queued() > 0 {
            return self.apply(Input::HeartbeatTimeoutQueued { style }, cx);
        }
        let frame = CloseFrame::with_constant(CloseCode::INTERNAL_ERROR, "heartbeat timeout");
        // The Close has this turn to be written; then comes the abort.
        let timing = CloseTiming { close_timeout: Some(Duration::ZERO), flush_budget: None };
        let failure = Failure { cause: Cause::HeartbeatTimeout, frame, timing };
        self.apply(Input::HeartbeatTimeout { failure }, cx);
    }

    /// Nobody has resumed in time. A peer that has left is read to its end; one that has not is given `close_timeout` to close.
    fn end_pause(&mut self, cx: &mut Context<'_>) {
        let closes = cx.now.after(self.settings(cx.config).close_timeout);
        if let Life::Paused(paused) = &mut self.life
            && paused.left.is_none()
        {
            paused.closes = Some(closes);
        }
        self.apply(Input::PauseEnd, cx);
    }

    /// The Close has this turn to be written; then comes the abort.
    fn close_paused(&mut self, cx: &mut Context<'_>) {
        let frame = CloseFrame::with_constant(CloseCode::INTERNAL_ERROR, "paused for too long");
        let timing = CloseTiming { close_timeout: Some(Duration::ZERO), flush_budget: None };
        self.apply(Input::Close { frame, cause: Cause::LocalClose, timing }, cx);
    }

    /// Drops what has not begun if `flush_budget` is used up, or answers the peer's Close in the application's place.
    pub(crate) fn handle_flush_budget(&mut self, cx: &mut Context<'_>) {
        match self.life.closing_mut() {
            Some(closing) if closing.flush_deadline.is_some_and(|at| at <= cx.now) => {
                closing.end_flushing(cx.now);
            }
            _ => return,
        }
        self.apply(Input::FlushBudget, cx);
        if self.is_unanswered()
            && let Some(frame) = self.life.closing().and_then(|closing| closing.received.clone())
        {
            self.apply(Input::AnswerClose { frame }, cx);
        }
    }
}

fn earlier(a: Option<Time>, b: Option<Time>) -> Option<Time> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}
