//! What a resumed session missed, page by page (specification 13, steps 4 and 5).
//!
//! ```text
//! first page read --> CONNECT, asks, page --> catching up --(reached `dispatched`)--> live
//!                                              ^      |
//!                                              `page--'  when nothing is unsent
//! ```
//!
//! The log is read from where the session's rooms were saved, if that is before what the client has received: a crash may have
//! taken join and leave entries that had been dispatched, but not saved. Events are sent above `start` only.
//!
//! While it catches up, a socket gets nothing that is dispatched: it reads that from the log, too.

use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use super::command::StoreCall;
use super::dispatch::room_names;
use super::sessions::{Change, change_membership, was_member};
use super::state::{
    BoundTo, ConnKey, ConnectingKey, Io, Progress, Read, Replay, Resume, ResumeOutcome, SessionKey,
    SocketKey, SocketState, SpaceKey, State, Timer,
};
use crate::links::Frame;
use crate::offset::{Offset, Position};
use crate::packet::{self, Event, queued_size};
use crate::store::{
    Entry, EntryKind, Millis, NewEntry, Page, ResumeRefusal, SessionChange, SessionRecord, StoreError,
};

/// Entries of a page, if they are as large as those of the log on average: a turn in which others wait.
const PAGE_ENTRIES: u64 = 128;

/// The next page waits for a later input, also if no byte of this one is unsent: others have their turn.
const PAUSE: Duration = Duration::from_nanos(1);

/// What a page means for one session.
#[derive(Default)]
struct PageFrames {
    /// Bytes that the client's queue has room for.
    room: usize,
    /// Something did not fit: it is the first of the next page.
    full: bool,
    frames: Vec<Frame>,
    events: u64,
    /// A disconnect entry: with its connection?
    disconnect: Option<bool>,
}

impl Io<'_> {
    // ---- the first page

    pub(super) fn read_first_page(&mut self, key: ConnectingKey, space: SpaceKey, resume: Resume) {
        let start = self.replay_begin(space, resume);
        if let Some((entries, reached)) = self.recent_page(space, start) {
            return self.finish_resume(key, &entries, reached);
        }
        self.read_page(space, start, |to| Read::First(key, space, to));
    }

    /// A page of the entries after a position, and what it reaches, if all of them are in memory.
    fn recent_page(&mut self, space: SpaceKey, after: Position) -> Option<(Vec<Entry>, Position)> {
        let limit = self.page_bytes(space) as u64;
        let log = self.log(space)?;
        let dispatched = log.dispatched;
        let mut bytes = 0;
        let fits = |entry: &&Entry| {
            let first = bytes == 0;
            bytes += entry.new.bytes();
            first || bytes <= limit
        };
        let entries: Vec<Entry> = log.recent_after(after)?.take_while(fits).cloned().collect();
        let reached = entries.last().map_or(dispatched, |entry| entry.position);
        Some((entries, reached))
    }

    /// Bytes of a page: as configured, and fewer where entries are small, since a turn costs what its entries are many.
    fn page_bytes(&self, space: SpaceKey) -> usize {
        let limit = self.state.config.recovery.as_ref().map_or(0, |recovery| recovery.replay_page);
        let log = self.state.spaces.get(space).and_then(|space| space.log.as_ref());
        let small = log.map_or(u64::MAX, |log| log.mean_bytes().saturating_mul(PAGE_ENTRIES));
        limit.min(usize::try_from(small).unwrap_or(usize::MAX))
    }

    fn read_page(&mut self, space: SpaceKey, after: Position, read: impl FnOnce(Position) -> Read) {
        let bytes = self.page_bytes(space);
        let Some(log) = self.log(space) else { return };
        log.reads += 1;
        let to = log.committed;
        let Some(name) = self.state.spaces.get(space).map(|space| Arc::clone(&space.name)) else { return };
        self.state.queue.read(StoreCall::Page(name, after..to, bytes), read(to));
    }

    pub(super) fn read_done(&mut self, space: SpaceKey) {
        if let Some(log) = self.log(space) {
            log.reads -= 1;
            self.trim_if_due(space);
        }
    }

    pub(super) fn first_page_read(
        &mut self,
        key: ConnectingKey,
        to: Position,
        page: Result<Page, StoreError>,
    ) {
        let Some(space) = self.state.connecting.get(key).map(|connecting| connecting.space) else { return };
        if self.is_unread(space) {
            return self.resume_when_read(key, space, Position::START);
        }
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        let Some(resume) = connecting.resume else { return };
        match page {
            Ok(Page { entries, trimmed, complete }) if trimmed.is_none_or(|floor| floor <= resume.start) => {
                let reached = end_of_page(&entries, complete, to, resume.start.min(resume.applied));
                self.finish_resume(key, &entries, reached);
            }
            // It was trimmed after the attach: the session is of no use any more.
            Ok(Page { trimmed, .. }) => {
                let floor = trimmed.unwrap_or_default();
                if let Some(record) = connecting.record.take() {
                    self.end_claim(key, &record);
                    let SessionRecord { namespace, pid, generation, .. } = record;
                    self.state.queue.orphans.push(SessionChange::Remove { namespace, pid, generation });
                    self.state.queue.flush_at.get_or_insert(self.now);
                }
                self.resume_refused(key, ResumeRefusal::OffsetTrimmed { floor });
            }
            Err(_) => {
                if let Some(record) = connecting.record.take() {
                    self.end_claim(key, &record);
                    self.give_up_session(record);
                }
                self.resume_refused(key, ResumeRefusal::StoreUnavailable);
            }
        }
    }

    /// Where reading begins: what has been trimmed of the entries below `start` is saved long since.
    fn replay_begin(&mut self, space: SpaceKey, resume: Resume) -> Position {
        let floor = self.log(space).map_or(Position::START, |log| log.floor);
        resume.start.min(resume.applied.max(floor))
    }

    fn finish_resume(&mut self, key: ConnectingKey, entries: &[Entry], reached: Position) {
        let Some(connecting) = self.state.connecting.get_mut(key) else { return };
        let conn = connecting.conn;
        let (Some(mut record), Some(resume)) = (connecting.record.take(), connecting.resume) else { return };
        if !self.end_claim(key, &record) {
            // It was attached again meanwhile, perhaps by an earlier connection of this very client, which has left it. A fresh
            // session would lose what it has missed; a client that is cut comes back, and the last to come has the session.
            return self.cut_conn(conn);
        }
        let Some(connecting) = self.state.connecting.remove(key) else { return };
        let space = connecting.space;
        let pid = Arc::clone(&record.pid);
        let Resume { away, start, applied } = resume;
        let open: Vec<Arc<str>> =
            record.memberships.iter().filter(|it| it.to.is_none()).map(|it| Arc::clone(&it.room)).collect();
        let asks = record.first;
        record.earlier = earlier_of(&record, start);
        let session = self.hold_session(record, None);
        let position = start.min(applied);
        let replay = Replay { position, start, applied, asks, waiting: false };
        let progress = Progress::CatchingUp(Box::new(replay));
        let outcome = ResumeOutcome::Fresh;
        let socket = self.insert_socket(key, connecting, Some(session), start, progress, outcome);
        for room in open {
            self.index_room(space, socket, &room, true);
        }
        // What else is on the connection may be catching up, too.
        let name = self.state.spaces.get(space).map_or("", |space| &space.name);
        let connect = packet::connect(name, &pid, Some(&pid)).len();
        let room = self.room(socket).saturating_sub(connect);
        let page = self.page_frames(socket, session, entries, reached, room);
        let reached = if page.full { self.replayed(socket) } else { reached };
        let now = self.state.millis(self.now);
        let away = away.map_or(Duration::ZERO, |since| Duration::from_millis(now.saturating_sub(since)));
        let complete = reached >= self.dispatched(space);
        let outcome =
            ResumeOutcome::Resumed { missed: page.events, complete, away, from: start, to: reached };
        if let Some(socket) = self.state.sockets.get_mut(socket) {
            socket.outcome = outcome;
        }
        self.state.stats.resumes += 1;
        self.send_first_page(socket, &pid, page.frames);
        self.arm_conn(conn);
        if let Some(with_connection) = page.disconnect {
            return self.disconnect_by_server(socket, with_connection);
        }
        self.pause_replay(socket);
    }

    /// CONNECT, then the replay; a part of it before, for clients whose listeners need that.
    fn send_first_page(&mut self, key: SocketKey, pid: &str, mut frames: Vec<Frame>) {
        let recovery = self.state.config.recovery.as_ref();
        let before = recovery.map_or(0, |recovery| recovery.replay_before_connect);
        let mut bytes = 0;
        let early = frames.iter().take_while(|frame| {
            bytes += frame.len();
            bytes <= before
        });
        let early = early.count();
        let late = frames.split_off(early);
        if !frames.is_empty() {
            self.send(key, &frames);
        }
        self.answer_connect(key, Some(pid));
        if !late.is_empty() {
            self.send(key, &late);
        }
    }

    /// Bytes that the queue of a socket's client has room for.
    fn room(&mut self, key: SocketKey) -> usize {
        self.state.config.output.send_queue.saturating_sub(self.unsent(key))
    }

    /// Up to where a socket that catches up has got.
    fn replayed(&self, key: SocketKey) -> Position {
        let socket = self.state.sockets.get(key);
        match socket.map(|socket| &socket.progress) {
            Some(Progress::CatchingUp(replay)) => replay.position,
            _ => Position::START,
        }
    }

    /// Asks at or below the start whose answer may have been lost, as many as fit.
    fn ask_again(&mut self, key: SocketKey, session: SessionKey, page: &mut PageFrames) {
        let now = self.state.millis(self.now);
        let limit = self.state.config.output.send_queue;
        let State { sockets, sessions, spaces, .. } = &mut *self.state;
        let (Some(socket), Some(session)) = (sockets.get_mut(key), sessions.get(session)) else { return };
        let log = spaces.get(socket.space).and_then(|space| space.log.as_ref());
        let Progress::CatchingUp(replay) = &mut socket.progress else { return };
        if replay.asked_again() {
            return;
        }
        let range = (Bound::Excluded(replay.asks), Bound::Included(replay.start));
        for (position, entry) in log.into_iter().flat_map(|log| log.asks.range(range)) {
            let concerned = concerns(&entry.new, *position, &session.record);
            let size = queued_size(&entry.new.packet, &entry.new.attachments);
            if concerned && size <= limit && is_open(entry, &session.record, now) {
                if !page.takes(size) {
                    return;
                }
                page.frames.extend(ask_frames(entry).into_iter().flatten());
            }
            replay.asks = *position;
        }
        replay.asks = replay.start;
    }

    // ---- pages

    /// Makes the frames of a page, and applies what it does to the session.
    fn page_frames(
        &mut self,
        key: SocketKey,
        session: SessionKey,
        entries: &[Entry],
        reached: Position,
        room: usize,
    ) -> PageFrames {
        let mut page = PageFrames { room, ..PageFrames::default() };
        self.ask_again(key, session, &mut page);
        let now = self.state.millis(self.now);
        let epoch = self.state.sockets.get(key).map_or(0, |socket| self.state.epoch_of(socket.space));
        let limit = self.state.config.output.send_queue;
        for entry in if page.full { &[] } else { entries } {
            let Some(held) = self.state.sessions.get(session) else { break };
            let Some(socket) = self.state.sockets.get_mut(key) else { break };
            let Progress::CatchingUp(replay) = &mut socket.progress else { break };
            if entry.position <= replay.position {
                continue;
            }
            let (first_time, sent) = (entry.position > replay.applied, entry.position <= replay.start);
            let concerned = concerns(&entry.new, entry.position, &held.record);
            let is_due = match entry.new.kind {
                EntryKind::Event => concerned && !sent,
                EntryKind::Ask => concerned && !sent && is_open(entry, &held.record, now),
                _ => false,
            };
            let size = queued_size(&entry.new.packet, &entry.new.attachments);
            // One that is too large for any page is passed over, as in `dispatch_event`.
            let too_large = is_due && size > limit;
            self.state.stats.events_too_large += u64::from(too_large);
            if is_due && !too_large && !page.takes(size) {
                break;
            }
            replay.position = entry.position;
            if !concerned || too_large {
                continue;
            }
            match entry.new.kind {
                EntryKind::Event if is_due => {
                    socket.last = socket.last.max(entry.position);
                    let offset = Offset { epoch, position: entry.position };
                    page.push(event_frames(entry, offset));
                }
                EntryKind::Ask if is_due => page.push(ask_frames(entry)),
                EntryKind::Join | EntryKind::Leave if first_time => {
                    self.replay_rooms(key, session, entry);
                }
                EntryKind::Disconnect if first_time => {
                    page.disconnect = Some(&*entry.new.packet == "true");
                    break;
                }
                _ => {}
            }
        }
        if page.disconnect.is_none()
            && !page.full
            && let Some(socket) = self.state.sockets.get_mut(key)
            && let Progress::CatchingUp(replay) = &mut socket.progress
        {
            replay.position = replay.position.max(reached);
        }
        self.state.stats.replayed_events += page.events;
        self.state.stats.replayed_bytes += page.frames.iter().map(|frame| frame.len() as u64).sum::<u64>();
        page
    }

    /// A join or leave entry is read.
    fn replay_rooms(&mut self, key: SocketKey, session: SessionKey, entry: &Entry) {
        for room in room_names(&entry.new.packet) {
            self.replay_room(key, session, &room, entry.new.kind == EntryKind::Join, entry.position);
        }
    }

    /// The same for one room. What a handler has changed since stands.
    fn replay_room(
        &mut self,
        key: SocketKey,
        session: SessionKey,
        room: &Arc<str>,
        join: bool,
        at: Position,
    ) {
        let Some(held) = self.state.sessions.get_mut(session) else { return };
        let changed = change_membership(&mut held.record.memberships, room, join, at, Change::Replayed);
        let member = held.record.memberships.iter().any(|member| member.room == *room && member.to.is_none());
        if changed {
            self.mark_unsaved(session);
        }
        if let Some(space) = self.state.sockets.get(key).map(|socket| socket.space) {
            self.index_room(space, key, room, member);
        }
    }

    /// Sends the next page, or reads it, or goes live.
    pub(super) fn continue_replay(&mut self, key: SocketKey) {
        let Some((space, session, position)) = self.next_page_of(key) else { return };
        let Some((entries, reached)) = self.recent_page(space, position) else {
            self.wait_for_page(key);
            return self.read_page(space, position, |to| Read::Next(key, space, to));
        };
        self.send_page(key, session, &entries, reached);
        self.pause_replay(key);
    }

    /// After a page: others have their turn, and the client's queue drains.
    fn pause_replay(&mut self, key: SocketKey) {
        if self.next_page_of(key).is_some() {
            self.wait_for_page(key);
            self.state.timers.set(self.now + PAUSE, Timer::Replay(key));
        }
    }

    /// Of a socket whose next page can be sent now, its namespace, its session, and where it is. One that has reached the end goes live.
    fn next_page_of(&mut self, key: SocketKey) -> Option<(SpaceKey, SessionKey, Position)> {
        let socket = self.state.live(key)?;
        let (space, session, conn) = (socket.space, socket.session?, socket.conn);
        let Progress::CatchingUp(replay) = &socket.progress else { return None };
        let (position, asked_again) = (replay.position, replay.asked_again());
        if replay.waiting {
            return None;
        }
        if asked_again && position >= self.dispatched(space) {
            self.go_live(key, conn, position);
            self.keep_caught_up(session);
            return None;
        }
        // If something is unsent, `drained` follows.
        (self.unsent(key) == 0).then_some((space, session, position))
    }

    fn wait_for_page(&mut self, key: SocketKey) {
        if let Some(replay) = self.replay_of(key) {
            replay.waiting = true;
        }
    }

    /// The pause after a page is over.
    pub(super) fn replay_due(&mut self, key: SocketKey) {
        if let Some(replay) = self.replay_of(key) {
            replay.waiting = false;
            self.continue_replay(key);
        }
    }

    fn send_page(&mut self, key: SocketKey, session: SessionKey, entries: &[Entry], reached: Position) {
        let room = self.room(key);
        let page = self.page_frames(key, session, entries, reached, room);
        if !page.frames.is_empty() {
            self.send(key, &page.frames);
        }
        if let Some(with_connection) = page.disconnect {
            self.disconnect_by_server(key, with_connection);
        }
    }

    pub(super) fn page_read(&mut self, key: SocketKey, to: Position, page: Result<Page, StoreError>) {
        let Some(replay) = self.replay_of(key) else { return };
        replay.waiting = false;
        let (position, known) = (replay.position, replay.position.max(replay.start));
        let Some(socket) = self.state.live(key) else { return };
        let (Some(session), conn) = (socket.session, socket.conn) else { return };
        if let Ok(Page { entries, trimmed, complete }) = page
            && trimmed.is_none_or(|floor| floor <= known)
        {
            let reached = end_of_page(&entries, complete, to, position);
            self.send_page(key, session, &entries, reached);
            return self.pause_replay(key);
        }
        // Entries are missing, or cannot be read: the client comes back and step 6 tells it.
        self.state.stats.replays_overtaken += 1;
        self.cut_conn(conn);
    }

    fn go_live(&mut self, key: SocketKey, conn: ConnKey, position: Position) {
        if let Some(socket) = self.state.sockets.get_mut(key) {
            socket.start = position;
            socket.progress = Progress::Live;
        }
        if let Some(conn) = self.state.conns.get_mut(conn) {
            conn.replays -= 1;
        }
    }

    fn replay_of(&mut self, key: SocketKey) -> Option<&mut Replay> {
        match &mut self.state.live_mut(key)?.progress {
            Progress::CatchingUp(replay) => Some(replay),
            _ => None,
        }
    }

    /// A client has taken what was queued for it.
    pub(super) fn on_drained(&mut self, key: ConnKey) {
        if self.state.conns.get(key).is_none_or(|conn| conn.replays == 0) {
            return;
        }
        for bound in self.bound_to(key) {
            if let BoundTo::Socket(socket) = bound.to {
                self.continue_replay(socket);
            }
        }
    }
}

impl SocketState {
    /// How far a socket has got that catches up.
    pub(super) fn replayed(&self) -> Option<Position> {
        match &self.progress {
            Progress::CatchingUp(replay) => Some(replay.position.max(replay.start)),
            _ => None,
        }
    }
}

impl PageFrames {
    /// Takes `size` bytes of the room. Returns whether they fit; if not, the page ends before them.
    const fn takes(&mut self, size: usize) -> bool {
        match self.room.checked_sub(size) {
            Some(left) => self.room = left,
            None => self.full = true,
        }
        !self.full
    }

    fn push(&mut self, frames: Option<Vec<Frame>>) {
        if let Some(frames) = frames {
            self.events += 1;
            self.frames.extend(frames);
        }
    }
}

/// What a page reaches that was to end at `to`.
fn end_of_page(entries: &[Entry], complete: bool, to: Position, start: Position) -> Position {
    if complete { to } else { entries.last().map_or(start, |entry| entry.position) }
}

/// What the client has now, and what was known of the session: it may get nothing of what comes next.
fn earlier_of(record: &SessionRecord, start: Position) -> Vec<(Position, Position)> {
    let newest = (record.checkpoint, record.last);
    let known = std::iter::once(&newest).chain(&record.earlier).find(|pair| pair.0 == start);
    let received = known.copied().unwrap_or((start, start));
    if received == newest { vec![newest] } else { vec![newest, received] }
}

/// Is an entry addressed to the session, by its rooms at that position?
fn concerns(new: &NewEntry, at: Position, record: &SessionRecord) -> bool {
    let is_in = |room: &Arc<str>| *room == record.sid || was_member(&record.memberships, room, at);
    (new.rooms.is_empty() || new.rooms.iter().any(is_in)) && !new.except.iter().any(is_in)
}

/// Is an ask still to be answered by the session?
fn is_open(entry: &Entry, record: &SessionRecord, now: Millis) -> bool {
    let answered = entry.new.ack.is_none_or(|id| record.answered.contains(&id));
    !answered && entry.new.until.is_some_and(|until| until > now)
}

fn event_frames(entry: &Entry, offset: Offset) -> Option<Vec<Frame>> {
    let event = Event::from_packet(&entry.new.packet, Arc::clone(&entry.new.attachments)).ok()?;
    Some(event.frames_with_offset(offset).to_vec())
}

fn ask_frames(entry: &Entry) -> Option<Vec<Frame>> {
    let event = Event::from_packet(&entry.new.packet, Arc::clone(&entry.new.attachments)).ok()?;
    Some(event.frames_with_ack(entry.new.ack?).to_vec())
}
