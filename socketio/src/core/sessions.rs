//! Sessions of this process: what is saved when, and the rooms they remember (specification 13).
//!
//! ```text
//! state of a session          socket    saved as            left by
//! held                        some      connected           disconnect, take-over
//! away, not saved yet         none      away                commit: it is the store's alone
//! ended, not saved yet        none      removed             commit
//! lost                        any       not at all          its socket's end
//! ```

use std::sync::Arc;

use super::state::{
    Caller, Connecting, ConnectingKey, Io, Item, MemberChange, Observation, Progress, Session, SessionKey,
    SocketKey, SpaceKey, State, Upcall,
};
use super::upkeep::EXPIRE_SLICE;
use crate::error::ChangeError;
use crate::offset::Position;
use crate::reason::Reason;
use crate::store::{Membership, SessionChange, SessionRecord, SessionSummary, StoreError};

impl Io<'_> {
    // ---- rooms

    /// A socket joins or leaves a room: at once, or behind the entries that are not committed yet.
    pub(super) fn change_room(&mut self, key: SocketKey, room: &str, join: bool) -> Result<(), ChangeError> {
        let limit = self.state.config.input.max_room_name;
        if room.len() > limit {
            self.state.stats.rooms_refused += 1;
            return Err(ChangeError::RoomName { length: room.len(), limit });
        }
        let (space, session) = self.room_change_allowed(key, join)?;
        let waits = self.state.queue.undelivered > 0 && self.log(space).is_some();
        let Some(socket) = self.state.live_mut(key) else { return Err(ChangeError::Disconnected) };
        if !waits && socket.pending_rooms.is_empty() {
            let position = self.log(space).map_or(Position::START, |log| log.dispatched);
            self.place_room(key, &Arc::from(room), join, position);
        } else {
            let room: Arc<str> = Arc::from(room);
            let due = self.now + self.state.config.times.effect_timeout;
            let caller = Caller { space, socket: key, session, call: self.state.scope.call };
            let change = MemberChange { caller, room: Arc::clone(&room), join, due };
            if self.push_item(Item::Member(change)).is_err() {
                self.state.stats.rooms_refused += 1;
                return Err(ChangeError::StoreUnavailable);
            }
            if let Some(socket) = self.state.live_mut(key) {
                socket.pending_rooms.push((room, join));
            }
            if let Some(session) = session.and_then(|key| self.state.sessions.get_mut(key)) {
                session.pending += 1;
            }
        }
        self.state.scope.pending |= session.is_some();
        Ok(())
    }

    fn room_change_allowed(
        &mut self,
        key: SocketKey,
        join: bool,
    ) -> Result<(SpaceKey, Option<SessionKey>), ChangeError> {
        let limit = self.state.config.counts.rooms_per_socket;
        let Some(socket) = self.state.live(key) else { return Err(ChangeError::Disconnected) };
        let remembered = socket.session.and_then(|session| self.state.sessions.get(session));
        let kept = remembered.map_or(socket.rooms.len(), |session| session.record.memberships.len());
        if join && kept + socket.pending_rooms.len() >= limit {
            self.state.stats.rooms_refused += 1;
            return Err(ChangeError::TooManyRooms { limit });
        }
        Ok((socket.space, socket.session))
    }

    /// A change that has waited reaches its place.
    pub(super) fn place_change(&mut self, change: MemberChange) {
        let MemberChange { caller, room, join, .. } = change;
        if let Some(socket) = self.state.sockets.get_mut(caller.socket)
            && let Some(index) =
                socket.pending_rooms.iter().position(|waits| waits.0 == room && waits.1 == join)
        {
            socket.pending_rooms.remove(index);
        }
        if let Some(session) = caller.session.and_then(|key| self.state.sessions.get_mut(key)) {
            session.pending -= 1;
        }
        let position = self.log(caller.space).map_or(Position::START, |log| log.dispatched);
        self.place_for(caller, &room, join, position);
    }

    /// A change of rooms that has waited: of the socket, or if that is gone, of what its session remembers. Entries since then
    /// are read when it is resumed.
    pub(super) fn place_for(&mut self, caller: Caller, room: &Arc<str>, join: bool, position: Position) {
        if self.state.live(caller.socket).is_some() {
            return self.place_room(caller.socket, room, join, position);
        }
        if let Some(key) = caller.session
            && let Some(session) = self.state.sessions.get_mut(key)
        {
            change_membership(&mut session.record.memberships, room, join, position, Change::Ahead);
            self.mark_unsaved(key);
        }
    }

    /// A socket is in a room, or is not, from `position` on.
    pub(super) fn place_room(&mut self, key: SocketKey, room: &Arc<str>, join: bool, position: Position) {
        let Some(socket) = self.state.live(key) else { return };
        let how = if socket.is_catching_up() { Change::Ahead } else { Change::Newest };
        let (space, session) = (socket.space, socket.session);
        self.index_room(space, key, room, join);
        let Some(key) = session else { return };
        let Some(session) = self.state.sessions.get_mut(key) else { return };
        if change_membership(&mut session.record.memberships, room, join, position, how) {
            self.mark_unsaved(key);
        }
    }

    /// Who gets what is dispatched or sent directly from now on.
    pub(super) fn index_room(&mut self, space: SpaceKey, key: SocketKey, room: &Arc<str>, join: bool) {
        let State { spaces, sockets, .. } = &mut *self.state;
        let Some(space) = spaces.get_mut(space) else { return };
        let changed =
            if join { space.rooms.join(key, room, sockets) } else { space.rooms.leave(key, room, sockets) };
        if changed {
            let room = || Arc::clone(room);
            self.state
                .notice(key, || if join { Observation::Joined(room()) } else { Observation::Left(room()) });
        }
    }

    // ---- saving

    pub(super) fn mark_unsaved(&mut self, key: SessionKey) {
        let Some(session) = self.state.sessions.get_mut(key) else { return };
        if !session.dirty {
            session.dirty = true;
            self.state.queue.unsaved.push(key);
        }
        let Some(recovery) = &self.state.config.recovery else { return };
        let at = self.now + recovery.session_flush;
        let flush_at = &mut self.state.queue.flush_at;
        *flush_at = Some(flush_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// What the next commit saves.
    pub(super) fn snapshot_unsaved(&mut self, changes: &mut Vec<SessionChange>) -> Vec<SessionKey> {
        let unsaved = std::mem::take(&mut self.state.queue.unsaved);
        let mut saved = Vec::with_capacity(unsaved.len());
        for key in unsaved {
            self.note_progress(key);
            let Some(session) = self.state.sessions.get_mut(key) else { continue };
            session.dirty = false;
            if session.lost {
                self.forget_if_done(key);
                continue;
            }
            session.saving += 1;
            let record = &session.record;
            changes.push(if session.ended {
                SessionChange::Remove {
                    namespace: Arc::clone(&record.namespace),
                    pid: Arc::clone(&record.pid),
                    generation: record.generation,
                }
            } else {
                SessionChange::Save(record.clone())
            });
            saved.push(key);
        }
        saved
    }

    /// Brings a session's record up to its socket.
    pub(super) fn note_progress(&mut self, key: SessionKey) {
        let Some(session) = self.state.sessions.get_mut(key) else { return };
        let Some(socket) = session.socket.and_then(|socket| self.state.sockets.get(socket)) else { return };
        let log = self.state.spaces.get(socket.space).and_then(|space| space.log.as_ref());
        let (dispatched, floor) = log.map_or_else(Default::default, |log| (log.dispatched, log.floor));
        let reached = match &socket.progress {
            Progress::CatchingUp(replay) => replay.position,
            _ => dispatched.max(socket.start),
        };
        let record = &mut session.record;
        record.checkpoint = record.checkpoint.max(reached);
        record.last = record.last.max(socket.last);
        record.data.clone_from(&socket.data);
        record.forget_before(floor);
    }

    pub(super) fn sessions_saved(&mut self, saved: &[SessionKey], stale: &[usize]) {
        for (index, key) in saved.iter().enumerate() {
            let Some(session) = self.state.sessions.get_mut(*key) else { continue };
            session.saving -= 1;
            if stale.contains(&index) && !session.ended {
                // Another process holds it, or will in a moment, or it is in the store no more. Of a shared log, the fence
                // says which: a client whose session is nobody's stays, and learns it when it comes back.
                session.lost = true;
                if let Some(socket) = session.socket.filter(|_| self.state.cluster.is_none()) {
                    self.take_over(socket);
                }
            }
            self.forget_if_done(*key);
        }
    }

    pub(super) fn sessions_not_saved(&mut self, sessions: Vec<SessionKey>) {
        for key in sessions {
            if let Some(session) = self.state.sessions.get_mut(key) {
                session.saving -= 1;
                self.mark_unsaved(key);
            }
        }
        self.drop_surplus_sessions();
    }

    /// A session that is saved and has no socket is the store's alone.
    pub(super) fn forget_if_done(&mut self, key: SessionKey) {
        let done = self.state.sessions.get(key).is_some_and(|session| {
            let settled = session.saving == 0 && session.pending == 0;
            session.socket.is_none() && settled && (session.lost || !session.dirty)
        });
        if done {
            self.remove_session(key);
        }
    }

    /// While the store fails, sessions that cannot be saved are kept up to `max_sessions`.
    fn drop_surplus_sessions(&mut self) {
        let Some(recovery) = &self.state.config.recovery else { return };
        let surplus = self.state.sessions.len().saturating_sub(recovery.max_sessions);
        if surplus == 0 {
            return;
        }
        let away = self.state.sessions.iter().filter(|(_, session)| session.socket.is_none());
        let keys: Vec<SessionKey> = away.map(|(key, _)| key).take(surplus).collect();
        self.state.stats.unsaved_sessions += keys.len() as u64;
        for key in keys {
            self.remove_session(key);
        }
    }

    // ---- beginning and end

    /// The record of a session that begins with the batch that is being sealed.
    pub(super) fn new_record(&mut self, key: ConnectingKey) -> Option<SessionRecord> {
        let Connecting { space, id, pid, principal, .. } = self.state.connecting.get(key)?;
        let (space, id, pid, principal) = (*space, Arc::clone(id), pid.clone()?, Arc::clone(principal));
        let first = self.log(space)?.dispatched;
        let namespace = Arc::clone(&self.state.spaces.get(space)?.name);
        let record = SessionRecord {
            pid,
            sid: id,
            namespace,
            principal,
            generation: 1,
            first,
            checkpoint: first,
            last: first,
            earlier: Vec::new(),
            data: None,
            answered: Vec::new(),
            memberships: Vec::new(),
            away: None,
        };
        self.state.connecting.get_mut(key)?.record = Some(record.clone());
        Some(record)
    }

    /// A session whose record is in the store.
    pub(super) fn hold_session(&mut self, record: SessionRecord, socket: Option<SocketKey>) -> SessionKey {
        let session =
            Session { record, socket, dirty: false, saving: 0, pending: 0, ended: false, lost: false };
        let pid = Arc::clone(&session.record.pid);
        let key = self.state.sessions.insert(session);
        self.state.by_pid.insert(pid, key);
        key
    }

    fn remove_session(&mut self, key: SessionKey) {
        if let Some(session) = self.state.sessions.remove(key)
            && self.state.by_pid.get(&session.record.pid) == Some(&key)
        {
            self.state.by_pid.remove(&session.record.pid);
        }
    }

    /// Is what this process knows of a session in the store?
    pub(super) fn is_saved(&self, pid: &str) -> bool {
        let session = self.state.by_pid.get(pid).and_then(|key| self.state.sessions.get(*key));
        session.is_none_or(|session| session.lost || (!session.dirty && session.saving == 0))
    }

    /// A CONNECT does not resume this session any more. Returns whether it could: nobody has attached it since.
    pub(super) fn end_claim(&mut self, key: ConnectingKey, record: &SessionRecord) -> bool {
        let Some(claim) = self.state.claims.get(&record.sid).copied().filter(|claim| claim.by == key) else {
            return false;
        };
        self.state.claims.remove(&record.sid);
        claim.generation == record.generation
    }

    /// A session that was announced to nobody: a new one ends, one that was to be resumed is away from now on.
    pub(super) fn give_up_session(&mut self, mut record: SessionRecord) {
        if record.generation == 1 {
            let remove =
                SessionChange::Remove { namespace: record.namespace, pid: record.pid, generation: 1 };
            self.state.queue.orphans.push(remove);
            self.state.queue.flush_at.get_or_insert(self.now);
            return;
        }
        record.away = Some(self.state.millis(self.now));
        let key = self.hold_session(record, None);
        self.mark_unsaved(key);
    }

    /// The socket of a session is disconnected.
    pub(super) fn leave_session(&mut self, key: SessionKey, reason: Reason) {
        self.note_progress(key);
        let away = self.state.millis(self.now);
        let Some(session) = self.state.sessions.get_mut(key) else { return };
        session.socket = None;
        match reason {
            Reason::SessionTakenOver => session.lost = true,
            reason if reason.is_resumable() => session.record.away = Some(away),
            _ => session.ended = true,
        }
        if session.lost {
            return self.forget_if_done(key);
        }
        self.mark_unsaved(key);
    }

    pub(super) fn expired(&mut self, answer: Result<Vec<SessionSummary>, StoreError>) {
        let Ok(list) = answer else { return };
        let more = list.len() >= EXPIRE_SLICE;
        for summary in list {
            self.state.stats.sessions_expired += 1;
            self.state.upcalls.push_back(Upcall::Expired(summary));
        }
        if more {
            self.expire_sessions();
        }
    }
}

/// How a change of rooms relates to what is recorded already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// After everything that is recorded.
    Newest,
    /// The same, by a session that catches up: entries before it are still to be read.
    Ahead,
    /// An entry that is read in a replay. Changes at its position and above were made after it, or were its own.
    Replayed,
}

/// Changes a list of memberships; `false`: nothing changed.
///
/// A change is recorded also where it changes nothing, if an entry below it may be read later: what was left where it was not
/// joined is `(p, p]`. So entries can be read twice, and below changes that were made later.
pub(super) fn change_membership(
    list: &mut Vec<Membership>,
    room: &Arc<str>,
    join: bool,
    at: Position,
    how: Change,
) -> bool {
    let replayed = how == Change::Replayed;
    let holds = |member: &Membership| {
        let begun = if replayed { member.from < at } else { member.from <= at };
        member.room == *room && begun && member.to.is_none_or(|to| to > at)
    };
    let there = list.iter().position(|member| member.room == *room && member.from == at);
    if join {
        let is_member =
            list.iter().any(|member| holds(member) && !(how == Change::Ahead && member.from < at));
        if is_member || (replayed && there.is_some()) {
            return false;
        }
        // What was recorded for a later position stands.
        let later = list.iter().filter(|member| member.room == *room && member.from > at);
        let to = later.map(|member| member.from).min();
        match there.and_then(|index| list.get_mut(index)) {
            // It was left there, too.
            Some(marker) => marker.to = to,
            None => insert(list, Membership { room: Arc::clone(room), from: at, to }),
        }
        return true;
    }
    let mut changed = false;
    for member in list.iter_mut().filter(|member| holds(member)) {
        member.to = Some(at);
        changed = true;
    }
    if how == Change::Ahead && there.is_none() {
        insert(list, Membership { room: Arc::clone(room), from: at, to: Some(at) });
        return true;
    }
    changed
}

/// Keeps the list in the order of rooms.
fn insert(list: &mut Vec<Membership>, new: Membership) {
    let place = list.partition_point(|member| *member.room <= *new.room);
    list.insert(place, new);
}

/// Was it in the room at that position? The list is in the order of rooms: a replay asks this for each entry.
pub(super) fn was_member(list: &[Membership], room: &str, at: Position) -> bool {
    let first = list.partition_point(|member| *member.room < *room);
    let of_room = list.iter().skip(first).take_while(|member| *member.room == *room);
    of_room.into_iter().any(|member| member.from < at && member.to.is_none_or(|to| at <= to))
}

#[cfg(test)]
mod tests {
    use super::*;

    use Change::{Ahead, Newest, Replayed};

    fn list(changes: &[(bool, u64, Change)]) -> Vec<(u64, Option<u64>)> {
        let mut list = Vec::new();
        for (join, at, how) in changes {
            change_membership(&mut list, &Arc::from("r"), *join, Position::counter(*at), *how);
        }
        list.iter().map(|member| (member.from.number, member.to.map(|to| to.number))).collect()
    }

    #[test]
    fn memberships_are_intervals() {
        assert_eq!(list(&[(true, 1, Newest), (true, 2, Newest), (false, 5, Newest)]), [(1, Some(5))]);
        let again = [(true, 1, Newest), (false, 3, Newest), (true, 4, Newest)];
        assert_eq!(list(&again), [(1, Some(3)), (4, None)]);
        let same_place = [(true, 1, Newest), (false, 1, Newest), (true, 1, Newest), (false, 1, Newest)];
        assert_eq!(list(&same_place), [(1, Some(1))]);
    }

    #[test]
    fn an_entry_that_is_read_again_changes_nothing() {
        // Joined by the entry at 10, left by a handler at once; joined and left by entries.
        let left = [(true, 10, Newest), (false, 10, Newest)];
        assert_eq!(list(&[left[0], left[1], (true, 10, Replayed)]), [(10, Some(10))]);
        let both = [(true, 10, Newest), (false, 12, Newest), (true, 10, Replayed), (false, 12, Replayed)];
        assert_eq!(list(&both), [(10, Some(12))]);
        // Left by the entry at 10, joined by a handler at once.
        let back = [(true, 5, Newest), (false, 10, Newest), (true, 10, Newest), (false, 10, Replayed)];
        assert_eq!(list(&back), [(5, Some(10)), (10, None)]);
    }

    #[test]
    fn an_entry_that_is_read_after_a_later_change_does_not_undo_it() {
        // Left at 20 by a handler, then the entry that joined at 10 is read.
        assert_eq!(list(&[(false, 20, Ahead), (true, 10, Replayed)]), [(20, Some(20)), (10, Some(20))]);
        // Joined at 20 by a handler, then the entry that left at 10 is read.
        let joined = [(true, 5, Newest), (true, 20, Ahead), (false, 10, Replayed)];
        assert_eq!(list(&joined), [(5, Some(10)), (20, None)]);
    }
}
