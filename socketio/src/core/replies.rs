//! What the store answers, and what becomes of it (specification 8, 17).

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::command::{StoreCall, StoreReply, Ticket};
use super::state::{
    Caller, InFlight, Io, Item, QueuedEntry, Read, Sent, SessionKey, SocketKey, SpaceKey, State,
    TransactThen, Upcall,
};
use crate::config::EmitPolicy;
use crate::error::{AckError, EmitError, OnceError};
use crate::offset::{Offset, Position};
use crate::store::{
    Batch, Committed, Entry, LogState, NewEntry, SessionChange, StoreError, TransactError, Transacted,
    TxEffect,
};

impl Io<'_> {
    /// An answer of the store. One that nobody waits for is ignored.
    pub(super) fn on_store_reply(&mut self, ticket: Ticket, reply: StoreReply) {
        if let Some(read) = self.state.queue.reads.remove(&ticket.0) {
            return self.on_read(read, reply);
        }
        // The writer answers in the order of its calls.
        let queue = &mut self.state.queue;
        let Some(at) = queue.in_flight.iter().position(|sent| sent.ticket == ticket) else { return };
        let Some(Sent { call, at: sent_at, .. }) = queue.in_flight.remove(at) else { return };
        if let Some(next) = queue.in_flight.front_mut() {
            // It could not begin before.
            next.at = self.now;
        }
        self.state.stats.commit_time_max =
            self.state.stats.commit_time_max.max(self.now.saturating_sub(sent_at));
        self.store_answered(!reply.is_failure());
        match (call, reply) {
            (InFlight::Commit { taken, sessions, appends, .. }, StoreReply::Commit(Ok(done))) => {
                self.committed(taken, &sessions, &done, appends);
            }
            (InFlight::Commit { taken, sessions, removed, appends }, StoreReply::Commit(Err(error))) => {
                self.commit_failed(taken, sessions, removed, &error);
                self.append_answered(appends);
            }
            (InFlight::Attach(connecting), StoreReply::Attach(answer)) => self.attached(connecting, answer),
            (InFlight::Transact { caller, bytes, then, .. }, StoreReply::Transact(answer)) => {
                self.state.queue.bytes -= bytes;
                self.transacted(caller, then, answer);
            }
            (InFlight::Trim(space), StoreReply::Trim(answer)) => self.trimmed(space, &answer),
            (InFlight::Expire, StoreReply::Expire(answer)) => self.expired(answer),
            (InFlight::DropLog(name), StoreReply::DropLog(Ok(true))) => self.log_dropped(&name),
            // It has sessions whose time is not over yet, or the store fails.
            (InFlight::DropLog(name), StoreReply::DropLog(_)) => self.state.drop_again.push_back(name),
            _ => debug_assert!(false, "the answer to another call"),
        }
    }

    fn on_read(&mut self, read: Read, reply: StoreReply) {
        match (read, reply) {
            (Read::First(connecting, space, to), StoreReply::Page(page)) => {
                self.read_done(space);
                self.first_page_read(connecting, to, page);
            }
            (Read::Next(socket, space, to), StoreReply::Page(page)) => {
                self.read_done(space);
                self.page_read(socket, to, page);
            }
            (Read::Asks(space), StoreReply::Asks(asks)) => {
                if let (Ok(asks), Some(log)) = (asks, self.log(space)) {
                    for entry in asks {
                        log.keep_ask(entry);
                    }
                }
            }
            _ => debug_assert!(false, "the answer to another call"),
        }
    }

    fn committed(
        &mut self,
        taken: Vec<Item>,
        sessions: &[SessionKey],
        done: &Committed,
        appends: Option<SpaceKey>,
    ) {
        self.state.queue.retry_at = None;
        self.sessions_saved(sessions, &done.stale);
        // Sessions that begin: they get the entries of this batch.
        for item in &taken {
            if let Item::Create(key) = item {
                self.created(*key, true);
            }
        }
        if let Some(space) = appends {
            return self.await_reading(space, taken, &done.positions);
        }
        let mut positions = done.positions.iter();
        for item in taken {
            match item {
                Item::Entry(entry) => {
                    let Some(position) = positions.next() else { continue };
                    self.entry_committed(*entry, *position);
                }
                Item::Create(_) => {}
                other => self.take_effect_if_held(other),
            }
        }
    }

    /// As [`Io::take_effect`], but for acks of sessions that are somebody else's.
    pub(super) fn take_effect_if_held(&mut self, item: Item) {
        match item {
            Item::Ack { socket, .. } if self.is_lost(socket) => self.fails(item, &lost()),
            other => self.take_effect(other),
        }
    }

    /// Does somebody else hold the session of a socket?
    fn is_lost(&self, socket: SocketKey) -> bool {
        let session = self.state.sockets.get(socket).and_then(|socket| socket.session);
        session.and_then(|session| self.state.sessions.get(session)).is_some_and(|session| session.lost)
    }

    pub(super) fn entry_committed(&mut self, entry: QueuedEntry, position: Position) {
        let QueuedEntry { space, new, event, bytes, then, delivered, .. } = entry;
        self.state.queue.bytes -= bytes;
        if let Some(log) = self.log(space) {
            log.uncommitted -= 1;
            log.committed = position;
        }
        if delivered.is_none() {
            self.state.queue.undelivered -= 1;
            let entry = Entry { position, at: self.state.millis(self.now), new };
            // A shared log may have been read past it, when entries were lost.
            if self.state.cluster.is_none() || position > self.dispatched(space) {
                self.dispatch(space, &entry, event.as_ref());
            }
        } else {
            debug_assert_eq!(delivered, Some(position), "nobody else writes this log");
        }
        let epoch = self.state.epoch_of(space);
        if let Some(then) = then {
            self.later(move |io| then(io, Ok(Offset { epoch, position })));
        }
    }

    fn commit_failed(
        &mut self,
        taken: Vec<Item>,
        sessions: Vec<SessionKey>,
        removed: Vec<SessionChange>,
        error: &StoreError,
    ) {
        self.state.stats.commits_failed += 1;
        tracing::warn!(target: "adjourn_socketio", %error, "a commit failed");
        let retry_at = self.now + self.state.config.storage.probe;
        self.state.queue.retry_at = Some(retry_at);
        self.sessions_not_saved(sessions);
        self.state.queue.orphans.extend(removed);
        let mut again = Vec::new();
        for item in taken {
            match item {
                Item::Entry(entry) if entry.delivered.is_some() => again.push(Item::Entry(entry)),
                Item::Entry(entry) => self.entry_failed(*entry, &EmitError::StoreUnavailable),
                Item::Create(key) => self.created(key, false),
                other => self.fails(other, error),
            }
        }
        // What clients have seen is written until it is.
        for item in again.into_iter().rev() {
            self.state.queue.items.push_front(item);
        }
    }

    pub(super) fn entry_failed(&mut self, entry: QueuedEntry, why: &EmitError) {
        let QueuedEntry { space, new, bytes, then, call, .. } = entry;
        self.state.queue.failed_call = Some(call);
        self.state.queue.bytes -= bytes;
        self.state.queue.undelivered -= 1;
        self.state.stats.emits_failed += 1;
        if let Some(log) = self.log(space) {
            log.uncommitted -= 1;
        }
        if let Some(id) = new.ack {
            self.fail_wait(id, AckError::StoreUnavailable);
        }
        if let Some(then) = then {
            let why = why.clone();
            self.later(move |io| then(io, Err(why)));
        }
    }

    fn transacted(&mut self, caller: Caller, then: TransactThen, answer: Result<Transacted, TransactError>) {
        if self.state.cluster.is_some() && self.log(caller.space).is_some() {
            match answer {
                Ok(done) if !done.repeat => return self.await_transaction(caller, then, done),
                answer => {
                    self.transaction_over(caller, then, answer);
                    return self.append_answered(Some(caller.space));
                }
            }
        }
        if let Ok(done) = &answer {
            for (effect, position) in &done.effects {
                self.transaction_effect(caller, effect, *position);
            }
        }
        self.transaction_over(caller, then, answer);
    }

    pub(super) fn transaction_over(
        &mut self,
        caller: Caller,
        then: TransactThen,
        answer: Result<Transacted, TransactError>,
    ) {
        self.state.queue.undelivered -= 1;
        if let Some(key) = caller.session {
            if let Some(session) = self.state.sessions.get_mut(key) {
                session.pending -= 1;
            }
            self.forget_if_done(key);
        }
        let answer = match answer {
            Ok(done) => {
                if done.repeat {
                    self.state.stats.once_repeats += 1;
                } else {
                    self.state.stats.once_first += 1;
                }
                Ok(done)
            }
            Err(error) => {
                self.state.stats.once_rolled_back += 1;
                self.state.queue.failed_call = Some(caller.call);
                Err(match error {
                    TransactError::Run(error) => OnceError::Application(error),
                    TransactError::Panicked => OnceError::Panicked,
                    TransactError::Running { .. } => OnceError::Busy,
                    TransactError::Store(error) => OnceError::Store(error),
                })
            }
        };
        self.later(move |io| then(io, answer));
    }

    fn transaction_effect(&mut self, caller: Caller, effect: &TxEffect, position: Position) {
        let new = match effect {
            TxEffect::Emit(new) => new,
            TxEffect::Join(room) => return self.place_for(caller, room, true, position),
        };
        let Some(space) = self.space(&new.namespace) else { return self.unused_log_grows(new, position) };
        let Some(log) = self.log(space) else { return self.deliver_entry(space, new) };
        log.committed = position;
        let entry = Entry { position, at: self.state.millis(self.now), new: new.clone() };
        self.dispatch(space, &entry, None);
    }

    /// An entry of a namespace that is not in use: its positions continue after this one, and upkeep drops the log if no client can join it.
    fn unused_log_grows(&mut self, new: &NewEntry, position: Position) {
        if self.state.config.recovery.is_none() {
            return;
        }
        let State { logs_found, drop_again, .. } = &mut *self.state;
        let log = logs_found.entry(Arc::clone(&new.namespace)).or_insert_with(|| {
            drop_again.push_back(Arc::clone(&new.namespace));
            let floor = Position { number: position.number.saturating_sub(1), ..position };
            LogState { namespace: Arc::clone(&new.namespace), tail: position, floor }
        });
        log.tail = position;
    }

    // ---- up and down

    /// A call has been answered; a failed one leaves the store as it was: down if it was down.
    fn store_answered(&mut self, well: bool) {
        let queue = &mut self.state.queue;
        if queue.down_since.is_none() {
            return;
        }
        if !well {
            queue.probe_at = Some(self.now + self.state.config.storage.probe);
            return;
        }
        let since = queue.down_since.take().unwrap_or(self.now);
        queue.probe_at = None;
        queue.retry_at = None;
        self.state.stats.store_down_time += self.now.saturating_sub(since);
        tracing::warn!(target: "adjourn_socketio", "store_up");
        self.state.upcalls.push_back(Upcall::StoreState(true));
    }

    /// Flush, stall, probe and overdue effects.
    pub(super) fn on_store_timer(&mut self) {
        self.state.queue.armed = None;
        self.apply_overdue_effects();
        let stalled = self.stalls_at().is_some_and(|at| at <= self.now);
        let queue = &mut self.state.queue;
        if stalled && queue.down_since.is_none() {
            queue.down_since = Some(self.now);
            self.state.stats.store_downs += 1;
            tracing::warn!(target: "adjourn_socketio", "store_down");
            self.state.upcalls.push_back(Upcall::StoreState(false));
            self.connecting_without_store();
            if self.state.config.storage.on_emit == EmitPolicy::Refuse {
                self.refuse_queued();
            }
        }
        let queue = &mut self.state.queue;
        if queue.probe_at.is_some_and(|at| at <= self.now) {
            queue.probe_at = None;
            if queue.in_flight.is_empty() {
                let probe = InFlight::Commit {
                    taken: Vec::new(),
                    sessions: Vec::new(),
                    removed: Vec::new(),
                    appends: None,
                };
                queue.write(StoreCall::Commit(Batch::default()), probe, self.now);
            }
        }
    }

    /// When the store is to be declared down if it does not answer. What runs in a transaction is the application's code,
    /// which has its lease; until it runs, the time is the store's.
    pub(super) fn stalls_at(&self) -> Option<Duration> {
        let (stall, lease) = (self.state.config.storage.stall, self.state.config.once.lease);
        let sent = self.state.queue.in_flight.front()?;
        let runs = matches!(&sent.call, InFlight::Transact { begun, .. } if begun.load(Ordering::Relaxed));
        Some(sent.at.saturating_add(if runs { stall.max(lease) } else { stall }))
    }

    /// Is the store declared down?
    pub(super) const fn is_store_down(&self) -> bool {
        self.state.queue.down_since.is_some()
    }

    /// Does it take nothing that is to be committed, since it is down?
    pub(super) fn refuses_entries(&self) -> bool {
        self.is_store_down() && self.state.config.storage.on_emit == EmitPolicy::Refuse
    }

    /// Entries and transactions that wait when the store is declared down were accepted before; under `Refuse` they fail then.
    fn refuse_queued(&mut self) {
        let items = std::mem::take(&mut self.state.queue.items);
        for item in items {
            match item {
                Item::Entry(entry) if entry.delivered.is_none() => {
                    self.entry_failed(*entry, &EmitError::StoreUnavailable);
                }
                Item::Transact(transaction) => {
                    self.state.queue.bytes -= transaction.bytes;
                    let error = TransactError::Store(down());
                    self.transaction_over(transaction.caller, transaction.then, Err(error));
                }
                item if matches!(item, Item::Ack { .. }) || self.state.queue.tells_failure(&item) => {
                    self.fails(item, &down());
                }
                other => self.state.queue.items.push_back(other),
            }
        }
    }
}

fn lost() -> StoreError {
    StoreError::Failed(Arc::from("somebody else holds the session"))
}

fn down() -> StoreError {
    StoreError::Failed(Arc::from("it does not answer"))
}

impl StoreReply {
    /// Did the store itself fail?
    const fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Commit(Err(_))
                | Self::Attach(Err(crate::store::AttachError::Store(_)))
                | Self::Transact(Err(TransactError::Store(_)))
                | Self::Trim(Err(_))
                | Self::Expire(Err(_))
                | Self::DropLog(Err(_))
                | Self::Page(Err(_))
                | Self::Asks(Err(_))
        )
    }
}
