//! [`Broadcast`]: all sockets of a namespace, or those in some rooms (specification 10), and the way of a durable event into
//! the queue.

use std::sync::Arc;
use std::time::Duration;

use super::node_message::NodeMessage;
use super::state::{
    AckMode, AckOptions, Address, Answers, AnswersThen, EmitThen, Fetched, Io, Item, QueuedEntry,
    Reliability, ShutdownPhase, SocketInfo, SocketKey, SpaceKey,
};
use crate::config::Durability;
use crate::error::EmitError;
use crate::links::Frame;
use crate::offset::{Offset, Position};
use crate::packet::{EncodeError, Event, ToArgs};
use crate::reason::Reason;
use crate::store::{Entry, EntryKind, NewEntry};

/// Whom an event, a join or a disconnect concerns.
pub struct Broadcast<'a> {
    io: Io<'a>,
    /// `None`: the namespace does not exist, so it has no sockets.
    space: Option<SpaceKey>,
    namespace: Arc<str>,
    rooms: Vec<Arc<str>>,
    except: Vec<Arc<str>>,
    local: bool,
}

/// One room, or several.
pub trait IntoRooms {
    /// Adds the names.
    fn add_to(self, rooms: &mut Vec<Arc<str>>);
}

impl IntoRooms for &str {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        rooms.push(Arc::from(self));
    }
}

impl IntoRooms for String {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        rooms.push(Arc::from(self));
    }
}

impl IntoRooms for &String {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        rooms.push(Arc::from(self.as_str()));
    }
}

impl IntoRooms for &Arc<str> {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        rooms.push(Arc::clone(self));
    }
}

impl<T: IntoRooms + Clone> IntoRooms for &[T] {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        for room in self {
            room.clone().add_to(rooms);
        }
    }
}

impl<T: IntoRooms, const N: usize> IntoRooms for [T; N] {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        for room in self {
            room.add_to(rooms);
        }
    }
}

impl<T: IntoRooms> IntoRooms for Vec<T> {
    fn add_to(self, rooms: &mut Vec<Arc<str>>) {
        for room in self {
            room.add_to(rooms);
        }
    }
}

impl<'a> Broadcast<'a> {
    pub(super) fn new(
        io: Io<'a>,
        space: Option<SpaceKey>,
        namespace: Arc<str>,
        not: Option<Arc<str>>,
    ) -> Self {
        Self { io, space, namespace, rooms: Vec::new(), except: not.into_iter().collect(), local: false }
    }

    /// Sockets in any of these rooms; called again, in any of all.
    #[must_use]
    pub fn to(mut self, rooms: impl IntoRooms) -> Self {
        rooms.add_to(&mut self.rooms);
        self
    }

    /// Not the sockets in any of these rooms.
    #[must_use]
    pub fn except(mut self, rooms: impl IntoRooms) -> Self {
        rooms.add_to(&mut self.except);
        self
    }

    /// The sockets of this process only; such events are never logged.
    #[must_use]
    pub const fn local(mut self) -> Self {
        self.local = true;
        self
    }

    fn address(&self) -> Address {
        Address { rooms: Arc::from(self.rooms.as_slice()), except: Arc::from(self.except.as_slice()) }
    }

    /// Emits: durably with recovery, else at once.
    pub fn emit(self, event: &str, args: impl ToArgs) -> Result<(), EmitError> {
        self.send(event, &args, None)
    }

    /// The same; `then` gets its offset once it is logged (epoch 0 without recovery), or the error.
    pub fn emit_then(
        self,
        event: &str,
        args: impl ToArgs,
        then: impl FnOnce(&mut Io<'_>, Result<Offset, EmitError>) + Send + 'static,
    ) -> Result<(), EmitError> {
        self.send(event, &args, Some(Box::new(then)))
    }

    fn send(mut self, event: &str, args: &dyn ToArgs, then: Option<EmitThen>) -> Result<(), EmitError> {
        let to = self.address();
        if !self.local {
            return self.io.emit(self.space, &to, event, args, then);
        }
        let event = self.io.event(&self.namespace, event, args)?;
        if let Some(space) = self.space {
            self.io.deliver(space, &to, &event, Reliability::Direct);
        }
        self.io.emitted(then);
        Ok(())
    }

    /// Emits at once to those who have little unsent. Returns to how many of this process.
    pub fn emit_volatile(mut self, event: &str, args: impl ToArgs) -> usize {
        let (Some(space), Ok(event)) = (self.space, self.io.event(&self.namespace, event, &args)) else {
            return 0;
        };
        let to = self.address();
        let sent = self.io.deliver(space, &to, &event, Reliability::Volatile);
        if !self.local {
            self.io.tell_event(&self.namespace, &to, event, true);
        }
        sent
    }

    /// Emits and collects one answer of each socket that is connected when the event is sent.
    pub fn emit_with_acks(
        mut self,
        event: &str,
        args: impl ToArgs,
        options: AckOptions,
        then: impl FnOnce(&mut Io<'_>, Answers) + Send + 'static,
    ) -> Result<(), EmitError> {
        let event = self.io.event(&self.namespace, event, &args)?;
        let then: AnswersThen = Box::new(then);
        let Some(space) = self.space else {
            let none = Answers { answers: Vec::new(), missing: 0, error: None, missing_nodes: Vec::new() };
            self.io.later(move |io| then(io, none));
            return Ok(());
        };
        let to = self.address();
        let redeliver = options.mode == AckMode::Redeliver && !self.local && self.io.log(space).is_some();
        if redeliver {
            self.io.check_emit(event.size())?;
            let id = self.io.wait_for_group(true, options.timeout, then);
            self.io.await_nodes(id);
            self.io.log_ask(space, &to, event, id, options.timeout);
            self.io.tell(None, &NodeMessage::Asked { id, namespace: self.namespace });
            return Ok(());
        }
        let id = self.io.wait_for_group(false, options.timeout, then);
        let targets = self.io.state.targets(space, &to);
        self.io.send_all(&targets, &event.frames_with_ack(id));
        if !self.local && self.io.state.cluster.is_some() {
            self.io.await_nodes(id);
            let (namespace, event) = (Arc::clone(&self.namespace), Box::new(event));
            let ask = NodeMessage::Ask { id, namespace, to, event, timeout: options.timeout };
            self.io.tell(None, &ask);
        }
        self.io.expect_answers(id, &targets);
        self.io.state.done_with(targets);
        Ok(())
    }

    /// The sockets join a room, those of sessions that are away too, when they are resumed.
    pub fn join(self, room: impl IntoRooms) -> Result<(), EmitError> {
        self.change_rooms(room, EntryKind::Join)
    }

    /// The sockets leave a room, those of sessions that are away too.
    pub fn leave(self, room: impl IntoRooms) -> Result<(), EmitError> {
        self.change_rooms(room, EntryKind::Leave)
    }

    fn change_rooms(mut self, rooms: impl IntoRooms, kind: EntryKind) -> Result<(), EmitError> {
        let mut names = Vec::new();
        rooms.add_to(&mut names);
        let Some(space) = self.space else { return Ok(()) };
        let to = self.address();
        if self.local || self.io.log(space).is_none() {
            let targets = self.io.state.targets(space, &to);
            for key in &targets {
                for room in &names {
                    // One that is full or has ended is counted, and the others go on.
                    let _ = self.io.change_room(*key, room, kind == EntryKind::Join);
                }
            }
            self.io.state.done_with(targets);
            return Ok(());
        }
        let names: Vec<&str> = names.iter().map(|name| &**name).collect();
        let packet = serde_json::to_string(&names).map_err(EncodeError::from)?;
        self.io.log_entry(space, &to, kind, &packet, None)
    }

    /// The sockets are disconnected, with their connections if `with_connection`; sessions that are away end when they come
    /// back.
    pub fn disconnect(mut self, with_connection: bool) -> Result<(), EmitError> {
        let Some(space) = self.space else { return Ok(()) };
        let to = self.address();
        if self.local || self.io.log(space).is_none() {
            let targets = self.io.state.targets(space, &to);
            for key in &targets {
                self.io.request_disconnect(*key, Reason::ServerNamespaceDisconnect, with_connection);
            }
            self.io.state.done_with(targets);
            return Ok(());
        }
        self.io.log_entry(
            space,
            &to,
            EntryKind::Disconnect,
            if with_connection { "true" } else { "false" },
            None,
        )
    }

    /// Finds the sockets on all processes: within `timeout`, with the names of processes that did not answer. On a store of one
    /// process `then` is called at once.
    pub fn fetch(mut self, timeout: Duration, then: impl FnOnce(&mut Io<'_>, Fetched) + Send + 'static) {
        let sockets = self.sockets();
        if !self.local && self.io.state.cluster.is_some() {
            let to = self.address();
            return self.io.fetch_from_nodes(&self.namespace, to, sockets, timeout, Box::new(then));
        }
        let fetched = Fetched { sockets, missing_nodes: Vec::new() };
        self.io.later(move |io| then(io, fetched));
    }

    /// The sockets of this process.
    pub fn sockets(&mut self) -> Vec<SocketInfo> {
        let Some(space) = self.space else { return Vec::new() };
        let to = self.address();
        let targets = self.io.state.targets(space, &to);
        let sockets = targets.iter().filter_map(|key| self.io.info(*key)).collect();
        self.io.state.done_with(targets);
        sockets
    }
}

impl From<EncodeError> for EmitError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::ReservedName(name) => Self::Reserved(name.into()),
            EncodeError::TooLarge { size, limit } => Self::TooLarge { size, limit },
            other => Self::Arguments(other.to_string().into()),
        }
    }
}

impl Io<'_> {
    /// Encodes an event, unless no client could be sent it.
    pub(super) fn event(
        &mut self,
        namespace: &str,
        name: &str,
        args: &dyn ToArgs,
    ) -> Result<Event, EmitError> {
        let event = Event::new(namespace, name, args)?;
        let fits = event.check_size(self.state.config.output.send_queue);
        self.state.stats.events_too_large += u64::from(fits.is_err());
        fits?;
        Ok(event)
    }

    /// A durable event, or without recovery a direct one.
    pub(super) fn emit(
        &mut self,
        space: Option<SpaceKey>,
        to: &Address,
        name: &str,
        args: &dyn ToArgs,
        then: Option<EmitThen>,
    ) -> Result<(), EmitError> {
        let namespace =
            space.and_then(|space| self.state.spaces.get(space)).map(|space| Arc::clone(&space.name));
        let (Some(space), Some(namespace)) = (space, namespace) else {
            self.emitted(then);
            return Ok(());
        };
        let event = self.event(&namespace, name, args)?;
        if self.log(space).is_none() {
            self.deliver(space, to, &event, Reliability::Direct);
            self.tell_event(&namespace, to, event, false);
            self.emitted(then);
            return Ok(());
        }
        self.check_emit(event.size())?;
        let new = new_entry(namespace, to, EntryKind::Event, event.packet());
        let new = NewEntry { attachments: Arc::clone(event.attachments()), ..new };
        self.push_entry(space, new, Some(event), then);
        Ok(())
    }

    /// Other nodes send what is not logged, too.
    fn tell_event(&mut self, namespace: &Arc<str>, to: &Address, event: Event, volatile: bool) {
        if self.state.cluster.is_some() {
            let (namespace, to, event) = (Arc::clone(namespace), to.clone(), Box::new(event));
            self.tell(None, &NodeMessage::Event { namespace, to, event, volatile });
        }
    }

    /// What was not logged has been sent.
    fn emitted(&mut self, then: Option<EmitThen>) {
        if let Some(then) = then {
            self.later(move |io| then(io, Ok(Offset { epoch: 0, position: Position::START })));
        }
    }

    /// A membership change or a disconnect of many, as an entry.
    fn log_entry(
        &mut self,
        space: SpaceKey,
        to: &Address,
        kind: EntryKind,
        packet: &str,
        then: Option<EmitThen>,
    ) -> Result<(), EmitError> {
        self.check_emit(packet.len())?;
        let Some(namespace) = self.state.spaces.get(space).map(|space| Arc::clone(&space.name)) else {
            return Ok(());
        };
        let new = new_entry(namespace, to, kind, packet);
        self.push_entry(space, new, None, then);
        Ok(())
    }

    /// An event that is sent again until it is answered. [`Io::check_emit`] has allowed it.
    pub(super) fn log_ask(
        &mut self,
        space: SpaceKey,
        to: &Address,
        event: Event,
        id: u64,
        timeout: Duration,
    ) {
        let window = self.state.config.recovery.as_ref().map_or(Duration::ZERO, |recovery| recovery.window);
        let until = self.state.millis(self.now.saturating_add(timeout.min(window)));
        let Some(namespace) = self.state.spaces.get(space).map(|space| Arc::clone(&space.name)) else {
            return;
        };
        let new = new_entry(namespace, to, EntryKind::Ask, event.packet());
        let attachments = Arc::clone(event.attachments());
        let new = NewEntry { attachments, ack: Some(id), until: Some(until), ..new };
        self.push_entry(space, new, Some(event), None);
    }

    /// May something of `size` bytes be logged now?
    pub(super) fn check_emit(&mut self, size: usize) -> Result<(), EmitError> {
        if self.state.shutdown >= ShutdownPhase::Sweeping {
            return Err(EmitError::ShuttingDown);
        }
        let full =
            self.state.queue.bytes.saturating_add(size as u64) > self.state.config.storage.queue as u64;
        if self.refuses_entries() || full {
            self.state.stats.emits_refused += 1;
            return Err(EmitError::StoreUnavailable);
        }
        Ok(())
    }

    fn push_entry(&mut self, space: SpaceKey, new: NewEntry, event: Option<Event>, then: Option<EmitThen>) {
        let bytes = new.bytes();
        self.state.queue.bytes += bytes;
        self.state.scope.pending = true;
        let early = self.delivers_early() && self.state.queue.undelivered == 0;
        let Some(log) = self.log(space) else { return };
        log.uncommitted += 1;
        let mut delivered = None;
        if early {
            let position = Position { number: log.dispatched.number + 1, ..log.dispatched };
            let entry = Entry { position, at: self.state.millis(self.now), new: new.clone() };
            self.dispatch(space, &entry, event.as_ref());
            delivered = Some(position);
        } else {
            self.state.queue.undelivered += 1;
        }
        let event = event.filter(|_| !early);
        let call = self.state.scope.call;
        let entry = QueuedEntry { space, new, event, bytes, then, delivered, call };
        self.state.queue.items.push_back(Item::Entry(Box::new(entry)));
    }

    /// Are events delivered before they are committed?
    pub(super) fn delivers_early(&self) -> bool {
        let recovery = self.state.config.recovery.as_ref();
        // The place in a shared log is known when it is committed.
        self.state.cluster.is_none()
            && recovery.is_some_and(|recovery| recovery.durability == Durability::BeforeCommit)
    }

    /// Sends the same frames to sockets that are connected.
    pub(super) fn send_all(&mut self, targets: &[SocketKey], frames: &[Frame]) {
        let mut links = std::mem::take(&mut self.state.scratch.links);
        for key in targets {
            match self.state.live(*key).map(|socket| socket.link) {
                Some(Some(link)) => links.push(link),
                Some(None) => self.send(*key, frames),
                None => continue,
            }
            self.state.stats.events_out += 1;
        }
        self.send_to(&mut links, frames);
        self.state.scratch.links = links;
    }

    /// An entry of a transaction in a namespace without a log.
    pub(super) fn deliver_entry(&mut self, space: SpaceKey, new: &NewEntry) {
        let Ok(event) = Event::from_packet(&new.packet, Arc::clone(&new.attachments)) else { return };
        let to = Address { rooms: Arc::clone(&new.rooms), except: Arc::clone(&new.except) };
        self.deliver(space, &to, &event, Reliability::Direct);
    }
}

fn new_entry(namespace: Arc<str>, to: &Address, kind: EntryKind, packet: &str) -> NewEntry {
    NewEntry {
        namespace,
        kind,
        rooms: Arc::clone(&to.rooms),
        except: Arc::clone(&to.except),
        packet: Arc::from(packet),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    }
}
