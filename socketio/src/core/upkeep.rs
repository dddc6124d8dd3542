//! What is done now and then: trimming, expiry, checkpoints, the idle policy (specification 11, 12, 13).

use std::sync::Arc;
use std::time::Duration;

use super::command::StoreCall;
use super::state::{InFlight, Io, Reliability, SessionKey, SocketKey, SpaceKey, Timer, Trim};
use crate::packet::Event;
use crate::reason::Reason;
use crate::store::{LogLimits, SessionRecord, StoreError, Trimmed};

/// Sessions that one call of `expire` removes at most.
pub(super) const EXPIRE_SLICE: usize = 256;
/// Logs that one look tries to drop at most.
const DROP_SLICE: usize = 64;
/// Earlier checkpoints of a session: there is one in four of a window, and the log is kept for one and a quarter.
const EARLIER: usize = 6;
/// A checkpoint's round is made in this number of parts.
const CHECKPOINT_PARTS: u32 = 16;
/// On a shared store, in one of this number of rounds each session is saved: others see by that that it is held.
const ROUNDS: usize = 4;

/// Keeps what is known of a session now beside what will be known later; `false`: nothing is new.
fn put_aside(record: &mut SessionRecord) -> bool {
    let pair = (record.checkpoint, record.last);
    if record.earlier.first() == Some(&pair) {
        return false;
    }
    record.earlier.insert(0, pair);
    record.earlier.truncate(EARLIER);
    true
}

impl Io<'_> {
    // ---- trim and expiry

    /// The time between two looks at the logs and the sessions that are away.
    fn upkeep_interval(&self) -> Option<Duration> {
        let window = self.state.config.recovery.as_ref()?.window;
        Some((window / 8).clamp(Duration::from_millis(10), Duration::from_secs(1)))
    }

    pub(super) fn arm_upkeep(&mut self) {
        if let Some(interval) = self.upkeep_interval() {
            self.state.timers.set(self.now + interval, Timer::Upkeep);
        }
        if let Some(part) = self.checkpoint_part() {
            self.state.timers.set(self.now + part, Timer::Checkpoint);
        }
    }

    pub(super) fn on_upkeep(&mut self) {
        let Some(interval) = self.upkeep_interval() else { return };
        self.state.timers.set(self.now + interval, Timer::Upkeep);
        if self.is_store_down() {
            return;
        }
        self.expire_sessions();
        self.drop_unused_logs();
        let now = self.state.millis(self.now);
        let spaces: Vec<SpaceKey> = self.state.spaces.iter().map(|(key, _)| key).collect();
        for space in spaces {
            let at = self.now;
            let Some(log) = self.log(space) else { continue };
            log.forget_asks(now);
            if log.entries + log.new_entries > 0 && log.next_trim <= at {
                self.want_trim(space);
            }
        }
    }

    /// Tries once more to drop logs whose namespaces were dropped, unless they are in use again.
    fn drop_unused_logs(&mut self) {
        let some = self.state.drop_again.len().min(DROP_SLICE);
        let names: Vec<Arc<str>> = self.state.drop_again.drain(..some).collect();
        for name in names {
            if self.space(&name).is_some() {
                continue;
            }
            let call = StoreCall::DropLog(Arc::clone(&name));
            self.state.queue.write(call, InFlight::DropLog(name), self.now);
        }
    }

    pub(super) fn expire_sessions(&mut self) {
        let queue = &mut self.state.queue;
        if !queue.in_flight.iter().any(|sent| matches!(sent.call, InFlight::Expire)) {
            queue.write(StoreCall::Expire(EXPIRE_SLICE), InFlight::Expire, self.now);
        }
    }

    /// Before the first session of a new log: its positions begin above those of logs that were dropped, and the answer to a
    /// trim says where.
    pub(super) fn find_log(&mut self, space: SpaceKey) {
        if self.state.cluster.is_some() {
            return;
        }
        if let Some(log) = self.log(space)
            && !std::mem::replace(&mut log.known, true)
        {
            self.want_trim(space);
        }
    }

    /// After an append: is the log longer than it may be?
    pub(super) fn trim_if_due(&mut self, space: SpaceKey) {
        let Some(recovery) = &self.state.config.recovery else { return };
        let (entries, bytes) = (recovery.log_entries, recovery.log_bytes);
        let Some(log) = self.log(space) else { return };
        let over = log.entries + log.new_entries > entries || log.bytes + log.new_bytes > bytes;
        // A part of the limit each time, so that not each append trims.
        let much = log.new_entries > entries / 16 || log.new_bytes > bytes / 16;
        if log.trim == Trim::Wanted || (over && much) {
            self.want_trim(space);
        }
    }

    /// Trims, unless a page is being read: then as soon as it has been.
    fn want_trim(&mut self, space: SpaceKey) {
        let Some(recovery) = &self.state.config.recovery else { return };
        let limits = LogLimits::of(recovery.window, recovery.log_entries, recovery.log_bytes);
        let next = self.now + recovery.window / 8;
        let shared = self.state.cluster.is_some();
        let Some(log) = self.log(space).filter(|log| !shared || log.epoch.is_some()) else { return };
        let limits = LogLimits { read: Some(log.dispatched).filter(|_| shared), ..limits };
        match log.trim {
            Trim::Running => return,
            _ if log.reads > 0 => {
                log.trim = Trim::Wanted;
                return;
            }
            _ => log.trim = Trim::Running,
        }
        log.next_trim = next;
        log.new_entries = 0;
        log.new_bytes = 0;
        let Some(name) = self.state.spaces.get(space).map(|space| Arc::clone(&space.name)) else { return };
        self.state.queue.write(StoreCall::Trim(name, limits), InFlight::Trim(space), self.now);
    }

    pub(super) fn trimmed(&mut self, space: SpaceKey, answer: &Result<Trimmed, StoreError>) {
        let Some(log) = self.log(space) else { return };
        log.trim = Trim::No;
        let Ok(trimmed) = answer else { return };
        log.raise_floor(trimmed.floor);
        log.entries = trimmed.entries;
        log.bytes = trimmed.bytes;
        self.state.stats.log_trimmed += trimmed.removed;
        if trimmed.removed > 0 {
            tracing::debug!(target: "adjourn_socketio", removed = trimmed.removed, "trimmed");
        }
        if trimmed.more {
            self.want_trim(space);
        }
    }

    // ---- checkpoints

    fn checkpoint_part(&self) -> Option<Duration> {
        let window = self.state.config.recovery.as_ref()?.window;
        Some((window / 4 / CHECKPOINT_PARTS).max(Duration::from_millis(1)))
    }

    /// Saves a part of the sessions whose log has moved on, so that a quiet one does not fall behind the floor.
    pub(super) fn on_checkpoint(&mut self) {
        let Some(part) = self.checkpoint_part() else { return };
        self.state.timers.set(self.now + part, Timer::Checkpoint);
        let parts = CHECKPOINT_PARTS as usize;
        let turn = self.state.checkpoint_turn;
        self.state.checkpoint_turn = (turn + 1) % (parts * ROUNDS);
        let renews = self.state.cluster.is_some() && turn < parts;
        for index in (turn % parts..self.state.sessions.slots()).step_by(parts) {
            let Some(key) = self.state.sessions.key_at(index) else { continue };
            if self.keep_checkpoint(key, renews) {
                self.mark_unsaved(key);
            }
        }
    }

    /// Puts a connected session's checkpoint aside, for a client that has not got what comes next; is it to be saved, since there
    /// is a newer one, or anyway?
    fn keep_checkpoint(&mut self, key: SessionKey, renews: bool) -> bool {
        let Some(session) = self.state.sessions.get_mut(key) else { return false };
        let Some(socket) = session.socket.and_then(|socket| self.state.sockets.get(socket)) else {
            return false;
        };
        let record = &mut session.record;
        put_aside(record);
        let log = self.state.spaces.get(socket.space).and_then(|space| space.log.as_ref());
        log.is_some_and(|log| renews || log.dispatched > record.checkpoint)
    }

    /// A session has caught up. Of a log that was trimmed while its replay waited, its client has the end by this alone.
    pub(super) fn keep_caught_up(&mut self, key: SessionKey) {
        self.note_progress(key);
        if self.state.sessions.get_mut(key).is_some_and(|session| put_aside(&mut session.record)) {
            self.mark_unsaved(key);
        }
    }

    // ---- idle

    /// After its CONNECT, and after an event that follows a warning: the next warning may be due before the end that was near.
    pub(super) fn arm_idle(&mut self, key: SocketKey) {
        let Some(policy) = &self.state.config.idle else { return };
        let at = self.now.saturating_add(policy.after.saturating_sub(policy.warn_before));
        if let Some(socket) = self.state.live_mut(key) {
            socket.idle_warned = false;
            self.set_idle(key, at);
        }
    }

    fn set_idle(&mut self, key: SocketKey, at: Duration) {
        if let Some(socket) = self.state.live_mut(key) {
            socket.idle_at = at;
            self.state.timers.set(at, Timer::Idle(key));
        }
    }

    pub(super) fn idle_due(&mut self, key: SocketKey, at: Duration) {
        let Some(policy) = self.state.config.idle.clone() else { return };
        let Some(socket) = self.state.live_mut(key).filter(|socket| socket.idle_at == at) else { return };
        let end = socket.last_event.saturating_add(policy.after);
        let warning = end.saturating_sub(policy.warn_before);
        if self.now >= end {
            return self.request_disconnect(key, Reason::Idle, false);
        }
        if self.now < warning {
            return self.set_idle(key, warning);
        }
        if !std::mem::replace(&mut socket.idle_warned, true) {
            let space = socket.space;
            let left = u64::try_from(end.saturating_sub(self.now).as_millis()).unwrap_or(u64::MAX);
            let namespace = Arc::clone(&socket.handshake.namespace);
            if let Ok(event) = Event::new(&namespace, &policy.warn_event, &(left,)) {
                self.deliver_to(space, &[key], &event, Reliability::Direct);
            }
        }
        self.set_idle(key, end);
    }
}
