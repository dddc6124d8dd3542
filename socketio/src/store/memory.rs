//! Logs, sessions and once keys in memory: fast, bounded, and gone with the process.
//!
//! Its calls return at once, so the driver makes them on the loop. A clone is the same store: to open it again is a new
//! life on the same data, which is how tests and the simulation restart a server.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::resume::{self, LogView};
use super::{
    AckValue, Attach, AttachError, Attached, Batch, Committed, Entry, EntryKind, LogLimits, LogState,
    Membership, Millis, NewEntry, NodeId, OnceFinish, OnceKey, OnceState, Page, Parts, Reader, Run,
    SessionChange, SessionRecord, SessionSummary, Store, StoreError, StoreSettings, TRIM_SLICE,
    TransactContext, TransactError, Transacted, Trimmed, Tx, TxEffect, Writer, millis,
};
use crate::offset::Position;

/// A store in memory.
#[derive(Clone, Default)]
pub struct MemoryStore {
    state: Arc<Mutex<State>>,
}

#[derive(Clone, Default)]
struct State {
    settings: StoreSettings,
    epoch: u64,
    /// Where a log begins: at or above the tail of every log that was dropped.
    base: u64,
    logs: HashMap<Arc<str>, Log>,
    sessions: HashMap<Arc<str>, SessionRecord>,
    /// Sessions that are away, those longest away first.
    away: BTreeSet<(Millis, Arc<str>)>,
    once: Once,
}

#[derive(Clone, Debug, Default)]
struct Log {
    /// The entry at index i has position `floor + 1 + i`.
    entries: VecDeque<Entry>,
    floor: u64,
    bytes: u64,
    /// The last position of each earlier epoch.
    ends: BTreeMap<u64, u64>,
}

#[derive(Clone, Debug, Default)]
struct Once {
    keys: HashMap<OnceKey, OnceEntry>,
    /// The end of the lease of those that run, or the time at which the others were done. The number makes it unique.
    running: BTreeMap<(Millis, u64), OnceKey>,
    done: BTreeMap<(Millis, u64), OnceKey>,
    next: u64,
}

#[derive(Clone, Debug)]
enum OnceEntry {
    Running { place: (Millis, u64) },
    Done { ack: AckValue, place: (Millis, u64) },
}

impl MemoryStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// A copy of what is stored now, as a file is copied: later changes of either are not seen by the other.
    #[must_use]
    pub fn snapshot(&self) -> Self {
        Self { state: Arc::new(Mutex::new(self.lock().clone())) }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No call of the application runs under the lock.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Nothing of what is stored: names of sessions are credentials.
impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}

impl Store for MemoryStore {
    fn open(
        self: Box<Self>,
        _node: NodeId,
        settings: &StoreSettings,
        now: Millis,
    ) -> Result<Parts, StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        state.settings = settings.clone();
        for log in state.logs.values_mut() {
            log.ends.insert(state.epoch, log.tail());
            while log.ends.len() > super::EPOCHS_KEPT {
                log.ends.pop_first();
            }
        }
        state.epoch += 1;
        for session in state.sessions.values_mut() {
            if session.away.is_none() {
                session.away = Some(now);
                state.away.insert((now, Arc::clone(&session.pid)));
            }
        }
        state.once.release();
        let logs = state.logs.iter().map(|(namespace, log)| log.state(namespace)).collect();
        let epoch = state.epoch;
        drop(guard);
        Ok(Parts { epoch, logs, writer: self.clone(), reader: self, shared: None })
    }

    fn inline(&self) -> bool {
        true
    }
}

impl Writer for MemoryStore {
    fn commit(&mut self, batch: &Batch, now: Millis) -> Result<Committed, StoreError> {
        let mut state = self.lock();
        let max_ack = state.settings.max_ack;
        if batch.once.iter().any(|finish| finish.ack.as_ref().is_some_and(|ack| ack.bytes() > max_ack)) {
            return Err(StoreError::Full("max_ack"));
        }
        let positions = batch.entries.iter().map(|new| state.append(new.clone(), now)).collect();
        let mut stale = Vec::new();
        for (index, change) in batch.sessions.iter().enumerate() {
            if !state.change_session(change) {
                stale.push(index);
            }
        }
        for OnceFinish { key, ack } in &batch.once {
            state.once.finish(key, ack.as_ref(), now);
        }
        Ok(Committed { positions, stale })
    }

    fn attach(&mut self, ask: &Attach, now: Millis) -> Result<Attached, AttachError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let log = state.logs.get(&ask.namespace);
        let view = state.view(log);
        let start = resume::judge(
            ask,
            state.sessions.get(&ask.pid),
            view,
            &state.settings,
            now,
            |epoch| log.and_then(|log| log.ends.get(&epoch)).copied().map(Position::counter),
            |start| Ok(log.map_or(0, |log| log.bytes_after(start, state.settings.max_replay))),
        )?;
        let session = state.sessions.get_mut(&ask.pid).expect("judged to be there");
        session.generation += 1;
        session.forget_before(view.floor);
        let away = session.away.take();
        if let Some(away) = away {
            state.away.remove(&(away, Arc::clone(&session.pid)));
        }
        Ok(Attached { session: session.clone(), away, start, tail: view.tail })
    }

    fn once_begin(&mut self, key: &OnceKey, lease: Duration, now: Millis) -> Result<OnceState, StoreError> {
        let mut guard = self.lock();
        let State { once, settings, .. } = &mut *guard;
        let state = once.look(key, settings, now);
        if state == OnceState::First {
            once.make_room(settings, now)?;
            once.begin(key, now.saturating_add(millis(lease)));
        }
        Ok(state)
    }

    fn transact(
        &mut self,
        key: Option<&OnceKey>,
        context: &TransactContext,
        run: Run<'_>,
        now: Millis,
    ) -> Result<Transacted, TransactError> {
        if let Some(key) = key {
            let mut guard = self.lock();
            let State { once, settings, .. } = &mut *guard;
            if let Some(ack) = once.look(key, settings, now).result()? {
                return Ok(Transacted::repeat(ack));
            }
            once.make_room(settings, now)?;
        }
        let (ack, effects) = Tx::new(context).run(run)?;
        let mut state = self.lock();
        if key.is_some() && ack.bytes() > state.settings.max_ack {
            return Err(StoreError::Full("max_ack").into());
        }
        if let Some(key) = key {
            state.once.finish(key, Some(&ack), now);
        }
        let session_current = state.is_current(context);
        let effects = effects
            .into_iter()
            .map(|effect| {
                let position = match &effect {
                    TxEffect::Emit(new) if context.logged => state.append(new.clone(), now),
                    TxEffect::Emit(_) => Position::START,
                    TxEffect::Join(room) => state.join(context, room, session_current),
                };
                (effect, position)
            })
            .collect();
        Ok(Transacted { ack, repeat: false, effects, session_current })
    }

    fn trim(&mut self, namespace: &str, limits: &LogLimits, now: Millis) -> Result<Trimmed, StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let Some(log) = state.logs.get_mut(namespace) else { return Ok(Trimmed::nothing(state.base)) };
        let mut removed = 0;
        while removed < TRIM_SLICE && log.is_over(limits, now) {
            if let Some(entry) = log.entries.pop_front() {
                log.floor += 1;
                log.bytes -= entry.new.bytes();
                removed += 1;
            }
        }
        Ok(Trimmed {
            floor: Position::counter(log.floor),
            removed,
            entries: log.entries.len() as u64,
            bytes: log.bytes,
            more: log.is_over(limits, now),
        })
    }

    fn drop_log(&mut self, namespace: &str) -> Result<bool, StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        if state.sessions.values().any(|session| &*session.namespace == namespace) {
            return Ok(false);
        }
        if let Some(log) = state.logs.remove(namespace) {
            state.base = state.base.max(log.tail());
        }
        Ok(true)
    }

    fn expire(&mut self, now: Millis, max: usize) -> Result<Vec<SessionSummary>, StoreError> {
        let mut guard = self.lock();
        let state = &mut *guard;
        let mut gone = Vec::new();
        while gone.len() < max {
            let Some((away, pid)) = state.away.first() else { break };
            let over = resume::is_over(*away, &state.settings, now);
            if !over && state.sessions.len() <= state.settings.max_sessions {
                break;
            }
            let pid = Arc::clone(pid);
            state.away.pop_first();
            if let Some(session) = state.sessions.remove(&pid) {
                gone.push(session.summary(!over));
            }
        }
        state.once.expire(&state.settings, now, max);
        Ok(gone)
    }
}

impl Reader for MemoryStore {
    fn page(&mut self, namespace: &str, of: Range<Position>, bytes: usize) -> Result<Page, StoreError> {
        let state = self.lock();
        let Some(log) = state.logs.get(namespace) else {
            return Ok(Page { complete: true, ..Page::default() });
        };
        let mut page = Page { trimmed: log.trimmed(of.start), ..Page::default() };
        let mut taken = 0;
        for entry in log.between(&of) {
            if taken > 0 && taken + entry.new.bytes() > bytes as u64 {
                return Ok(page);
            }
            taken += entry.new.bytes().max(1);
            page.entries.push(entry.clone());
        }
        page.complete = true;
        Ok(page)
    }

    fn asks(&mut self, namespace: &str, of: Range<Position>, now: Millis) -> Result<Vec<Entry>, StoreError> {
        let state = self.lock();
        let Some(log) = state.logs.get(namespace) else { return Ok(Vec::new()) };
        let open =
            |entry: &&Entry| entry.new.kind == EntryKind::Ask && entry.new.until.is_some_and(|t| t > now);
        Ok(log.between(&of).filter(open).cloned().collect())
    }
}

impl State {
    fn view(&self, log: Option<&Log>) -> LogView {
        LogView {
            epoch: self.epoch,
            tail: Position::counter(log.map_or(self.base, Log::tail)),
            floor: Position::counter(log.map_or(self.base, |log| log.floor)),
        }
    }

    fn append(&mut self, new: NewEntry, at: Millis) -> Position {
        if !self.logs.contains_key(&new.namespace) {
            self.logs.insert(Arc::clone(&new.namespace), Log { floor: self.base, ..Log::default() });
        }
        let log = self.logs.get_mut(&new.namespace).expect("it was made if it was missing");
        let position = Position::counter(log.tail() + 1);
        log.bytes += new.bytes();
        log.entries.push_back(Entry { position, at, new });
        position
    }

    /// Is the session of `context` still held by its generation?
    fn is_current(&self, context: &TransactContext) -> bool {
        context.session.as_ref().is_some_and(|(pid, generation)| {
            self.sessions.get(pid).is_some_and(|session| session.generation == *generation)
        })
    }

    /// Saves a join at the log's tail, and gives the tail.
    fn join(&mut self, context: &TransactContext, room: &Arc<str>, current: bool) -> Position {
        let tail = self.view(self.logs.get(&context.namespace)).tail;
        let session = context.session.as_ref().and_then(|(pid, _)| self.sessions.get_mut(pid));
        if let Some(session) = session.filter(|_| current) {
            Membership::join(&mut session.memberships, room, tail);
        }
        tail
    }

    /// Applies a change unless its generation is no longer current.
    fn change_session(&mut self, change: &SessionChange) -> bool {
        let (pid, generation) = change.key();
        let stored = self.sessions.get(pid);
        let current = match (stored, change) {
            (Some(stored), _) => stored.generation == generation,
            (None, SessionChange::Save(_)) => generation == 1,
            (None, SessionChange::Remove { .. }) => false,
        };
        if !current {
            return false;
        }
        if let Some(away) = stored.and_then(|stored| stored.away) {
            self.away.remove(&(away, Arc::clone(pid)));
        }
        match change {
            SessionChange::Save(record) => {
                if let Some(away) = record.away {
                    self.away.insert((away, Arc::clone(pid)));
                }
                self.sessions.insert(Arc::clone(pid), record.clone());
            }
            SessionChange::Remove { .. } => {
                self.sessions.remove(pid);
            }
        }
        true
    }
}

impl Log {
    fn tail(&self) -> u64 {
        self.floor + self.entries.len() as u64
    }

    fn state(&self, namespace: &Arc<str>) -> LogState {
        LogState {
            namespace: Arc::clone(namespace),
            tail: Position::counter(self.tail()),
            floor: Position::counter(self.floor),
        }
    }

    /// The floor, if it is above `start`.
    fn trimmed(&self, start: Position) -> Option<Position> {
        Some(Position::counter(self.floor)).filter(|floor| start < *floor)
    }

    /// The entries in `of.start < position <= of.end`.
    fn between(&self, of: &Range<Position>) -> impl Iterator<Item = &Entry> {
        let index = |position: Position| {
            usize::try_from(position.number.saturating_sub(self.floor))
                .map_or(self.entries.len(), |index| index.min(self.entries.len()))
        };
        let end = index(of.end);
        self.entries.range(index(of.start).min(end)..end)
    }

    /// Bytes of the entries after `start`; not exact once they are above `enough`.
    fn bytes_after(&self, start: Position, enough: u64) -> u64 {
        if self.bytes <= enough {
            return self.bytes;
        }
        let all = start..Position::counter(self.tail());
        let mut sum = 0;
        for entry in self.between(&all) {
            sum += entry.new.bytes();
            if sum > enough {
                break;
            }
        }
        sum
    }

    /// Must the oldest entry go?
    fn is_over(&self, limits: &LogLimits, now: Millis) -> bool {
        self.entries.front().is_some_and(|oldest| {
            self.entries.len() as u64 > limits.entries
                || self.bytes > limits.bytes
                || oldest.at.saturating_add(millis(limits.age)) <= now
        })
    }
}

impl Once {
    /// The state of a key; nothing is marked.
    fn look(&self, key: &OnceKey, settings: &StoreSettings, now: Millis) -> OnceState {
        match self.keys.get(key) {
            Some(OnceEntry::Running { place: (until, _) }) if *until > now => {
                OnceState::Running { until: *until }
            }
            Some(OnceEntry::Done { ack, place: (at, _) }) if !settings.is_forgotten(*at, now) => {
                OnceState::Done(ack.clone())
            }
            _ => OnceState::First,
        }
    }

    /// Drops leases that have run out, then the oldest finished keys, until there is room for one more.
    fn make_room(&mut self, settings: &StoreSettings, now: Millis) -> Result<(), StoreError> {
        while self.keys.len() >= settings.max_once_keys {
            let lapsed = self.running.first_entry().filter(|entry| entry.key().0 <= now);
            let Some(oldest) = lapsed.or_else(|| self.done.first_entry()) else {
                return Err(StoreError::Full("max_once_keys"));
            };
            self.keys.remove(&oldest.remove());
        }
        Ok(())
    }

    fn begin(&mut self, key: &OnceKey, until: Millis) {
        self.remove(key);
        let place = self.place(until);
        self.running.insert(place, key.clone());
        self.keys.insert(key.clone(), OnceEntry::Running { place });
    }

    fn finish(&mut self, key: &OnceKey, ack: Option<&AckValue>, now: Millis) {
        self.remove(key);
        let Some(ack) = ack else { return };
        let place = self.place(now);
        self.done.insert(place, key.clone());
        self.keys.insert(key.clone(), OnceEntry::Done { ack: ack.clone(), place });
    }

    fn place(&mut self, time: Millis) -> (Millis, u64) {
        self.next += 1;
        (time, self.next)
    }

    fn remove(&mut self, key: &OnceKey) {
        match self.keys.remove(key) {
            Some(OnceEntry::Running { place }) => self.running.remove(&place),
            Some(OnceEntry::Done { place, .. }) => self.done.remove(&place),
            None => None,
        };
    }

    /// Drops at most `max` finished keys whose time is over.
    fn expire(&mut self, settings: &StoreSettings, now: Millis, max: usize) {
        for _ in 0..max {
            let oldest = self.done.first_entry().filter(|entry| settings.is_forgotten(entry.key().0, now));
            let Some(oldest) = oldest else { break };
            self.keys.remove(&oldest.remove());
        }
    }

    /// A new life of the store: nobody runs anything any more.
    fn release(&mut self) {
        for key in std::mem::take(&mut self.running).into_values() {
            self.keys.remove(&key);
        }
    }
}
