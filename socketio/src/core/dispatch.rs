//! The log of a namespace, and its dispatch: delivery follows the log (specification 12).
//!
//! ```text
//! emit -> queue -> commit -> dispatch(P): live sockets get it, `dispatched` = P
//!                                         sockets that catch up read it from the log later
//! ```

use std::sync::Arc;

use super::io::bytes_of;
use super::state::{Address, Io, Log, Progress, Reliability, SocketKey, SpaceKey};
use crate::links::{Frame, LinkId};
use crate::offset::{Offset, Position};
use crate::packet::{Event, Frames, queued_size};
use crate::store::{Entry, EntryKind, NewEntry};

/// The frames of one event for all its receivers, made when the first needs them.
pub(super) struct Variants<'e> {
    event: &'e Event,
    plain: Option<Frames>,
    cursor: Option<Frames>,
}

impl<'e> Variants<'e> {
    pub(super) const fn new(event: &'e Event) -> Self {
        Self { event, plain: None, cursor: None }
    }

    fn plain(&mut self) -> &Frames {
        self.plain.get_or_insert_with(|| self.event.frames())
    }

    fn cursor(&mut self, cursor: Offset) -> &Frames {
        self.cursor.get_or_insert_with(|| self.event.frames_with_offset(cursor))
    }
}

impl Io<'_> {
    /// The log of a namespace, with recovery.
    pub(super) fn log(&mut self, space: SpaceKey) -> Option<&mut Log> {
        self.state.spaces.get_mut(space)?.log.as_mut()
    }

    /// An entry has its place: it takes effect for the sockets of this process.
    pub(super) fn dispatch(&mut self, space: SpaceKey, entry: &Entry, event: Option<&Event>) {
        let Some(log) = self.log(space) else { return };
        log.append(entry);
        self.state.stats.log_entries += 1;
        self.state.stats.log_bytes += entry.new.bytes();
        let to = Address { rooms: Arc::clone(&entry.new.rooms), except: Arc::clone(&entry.new.except) };
        let targets = self.state.targets(space, &to);
        match entry.new.kind {
            EntryKind::Event | EntryKind::Ask => self.dispatch_event(space, &targets, entry, event),
            EntryKind::Join | EntryKind::Leave => {
                for room in room_names(&entry.new.packet) {
                    for key in &targets {
                        if self.follows(*key, entry.position) {
                            let join = entry.new.kind == EntryKind::Join;
                            self.place_room(*key, &room, join, entry.position);
                        }
                    }
                }
            }
            EntryKind::Disconnect => {
                let with_connection = &*entry.new.packet == "true";
                for key in &targets {
                    if self.follows(*key, entry.position) {
                        self.disconnect_by_server(*key, with_connection);
                    }
                }
            }
            EntryKind::Fence => self.on_fence(space, entry),
            EntryKind::Epoch => {
                if let (Some(log), Ok(epoch)) = (self.log(space), entry.new.packet.parse()) {
                    log.epoch = Some(epoch);
                }
            }
        }
        self.state.done_with(targets);
        self.trim_if_due(space);
    }

    fn dispatch_event(
        &mut self,
        space: SpaceKey,
        targets: &[SocketKey],
        entry: &Entry,
        event: Option<&Event>,
    ) {
        let parsed;
        let event = match event {
            Some(event) => event,
            None => match Event::from_packet(&entry.new.packet, Arc::clone(&entry.new.attachments)) {
                Ok(event) => {
                    parsed = event;
                    &parsed
                }
                Err(_) => return self.state.stats.log_entries_invalid += 1,
            },
        };
        let offset = Offset { epoch: self.state.epoch_of(space), position: entry.position };
        let frames = match entry.new.ack {
            Some(id) => event.frames_with_ack(id),
            None => event.frames_with_offset(offset),
        };
        let targets = if self.is_too_large(&entry.new) { &[] } else { targets };
        if let Some(id) = entry.new.ack {
            self.expect_answers(id, targets);
        }
        let is_event = entry.new.kind == EntryKind::Event;
        self.state.notice_sent(targets, event);
        let mut links = std::mem::take(&mut self.state.scratch.links);
        for key in targets {
            let Some(socket) = self.state.sockets.get_mut(*key) else { continue };
            if !matches!(socket.progress, Progress::Live) || entry.position <= socket.start {
                continue;
            }
            if is_event {
                socket.last = entry.position;
            }
            self.state.stats.events_out += 1;
            match socket.link {
                Some(link) => links.push(link),
                None => self.send(*key, &frames),
            }
        }
        self.send_to(&mut links, &frames);
        self.state.scratch.links = links;
    }

    /// Is a logged event larger than what a client can be sent? Another node may have logged it, or this one with
    /// another setting. A client that was sent it would exceed its send queue, again after each resume.
    pub(super) fn is_too_large(&mut self, new: &NewEntry) -> bool {
        let limit = self.state.config.output.send_queue;
        let size = queued_size(&new.packet, &new.attachments);
        if size > limit {
            self.state.stats.events_too_large += 1;
            tracing::warn!(target: "adjourn_socketio", size, limit, "event_too_large");
        }
        size > limit
    }

    /// Does an entry concern a socket now: is it live, and was it before the entry?
    fn follows(&self, key: SocketKey, position: Position) -> bool {
        self.state.live(key).is_some_and(|socket| !socket.is_catching_up() && position > socket.start)
    }

    /// Sends an event that is not logged. Returns how many sockets it went to.
    pub(super) fn deliver(
        &mut self,
        space: SpaceKey,
        to: &Address,
        event: &Event,
        how: Reliability,
    ) -> usize {
        let targets = self.state.targets(space, to);
        let sent = self.deliver_to(space, &targets, event, how);
        self.state.done_with(targets);
        sent
    }

    pub(super) fn deliver_to(
        &mut self,
        space: SpaceKey,
        targets: &[SocketKey],
        event: &Event,
        how: Reliability,
    ) -> usize {
        self.state.notice_sent(targets, event);
        let dispatched = self.log(space).map(|log| log.dispatched);
        let cursor = dispatched
            .filter(|_| event.ends_in_string())
            .map(|position| Offset { epoch: self.state.epoch_of(space), position });
        let mut variants = Variants::new(event);
        let mut links = std::mem::take(&mut self.state.scratch.links);
        let mut cursor_links = Vec::new();
        let mut sent = 0;
        for key in targets {
            let Some(socket) = self.state.live(*key) else { continue };
            let (link, has_cursor) = (socket.link, cursor.is_some() && socket.session.is_some());
            let behind = if has_cursor { socket.replayed() } else { None };
            if how == Reliability::Volatile && !self.takes_volatile(*key) {
                self.state.stats.volatile_dropped += 1;
                continue;
            }
            sent += 1;
            match (link, cursor.filter(|_| has_cursor), behind) {
                (_, Some(cursor), Some(position)) => {
                    let offset = Offset { position, ..cursor };
                    self.send(*key, &event.frames_with_offset(offset));
                }
                (Some(link), Some(_), None) => cursor_links.push(link),
                (None, Some(cursor), None) => self.send(*key, variants.cursor(cursor)),
                (Some(link), None, _) => links.push(link),
                (None, None, _) => self.send(*key, variants.plain()),
            }
        }
        self.state.stats.events_out += sent as u64;
        if !links.is_empty() {
            self.send_to(&mut links, variants.plain());
        }
        self.state.scratch.links = links;
        if let Some(cursor) = cursor.filter(|_| !cursor_links.is_empty()) {
            self.send_to(&mut cursor_links, variants.cursor(cursor));
        }
        sent
    }

    /// Sends the same frames over many links, and closes those that are too slow. Empties the list.
    pub(super) fn send_to(&mut self, links: &mut Vec<LinkId>, frames: &[Frame]) {
        self.state.stats.bytes_out += bytes_of(frames) * links.len() as u64;
        match links.as_slice() {
            [] => return,
            [link] => {
                if let Err(why) = self.links.send(*link, frames) {
                    self.state.scratch.refused.push((*link, why));
                }
            }
            many => self.links.send_to(many, frames, &mut self.state.scratch.refused),
        }
        links.clear();
        if self.state.scratch.refused.is_empty() {
            return;
        }
        let mut refused = std::mem::take(&mut self.state.scratch.refused);
        for (link, why) in refused.drain(..) {
            self.link_refused(link, why);
        }
        self.state.scratch.refused = refused;
    }
}

/// The rooms that a join or leave entry names.
pub(super) fn room_names(packet: &str) -> Vec<Arc<str>> {
    serde_json::from_str::<Vec<String>>(packet).unwrap_or_default().into_iter().map(Arc::from).collect()
}
