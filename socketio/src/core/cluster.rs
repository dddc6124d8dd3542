//! Several nodes on one shared store (specification 16).
//!
//! ```text
//! emit -> queue -> commit -> (answer: positions) -> reading --(read back)--> takes effect, as entries of other nodes do
//! ```
//!
//! A node dispatches only what it reads back, its own entries included, so every client of every node sees one order. What is
//! read of a log while an append of this node to it is not answered is held: only the answer says which entries are its own.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::command::FeedCommand;
use super::node_message::NodeMessage;
use super::state::{Caller, Cluster, ConnectingKey, Io, Item, ReadBack, Reading, SpaceKey, TransactThen};
use crate::links::Links;
use crate::offset::Position;
use crate::store::{Entry, FeedItem, NodeId, Transacted, TxEffect};

impl Core {
    /// The store is shared: this is the node's name. Before namespaces are registered.
    pub fn share(&mut self, node: NodeId) {
        self.state.cluster = Some(Cluster::new(node));
        // Others may use what this one does not.
        self.state.drop_again.clear();
    }

    /// The next call for the feed or the bus of a shared store. Ask again after each input, until there is none.
    pub fn poll_feed(&mut self) -> Option<FeedCommand> {
        self.state.cluster.as_mut()?.commands.pop_front()
    }

    /// What the feed has read.
    pub fn feed_input(&mut self, item: FeedItem, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        if let FeedItem::Message(from, bytes) = &item {
            return self.message_of_node(from, bytes, now, links);
        }
        self.with_io(now, links, |io| match item {
            FeedItem::Began { namespace, epoch, floor, tail } => io.log_began(&namespace, epoch, floor, tail),
            FeedItem::Entries(namespace, entries) => io.entries_read(&namespace, entries),
            FeedItem::Fell { namespace, lost } => io.fell_behind(&namespace, lost),
            FeedItem::Nodes(nodes) => io.nodes_alive(nodes),
            FeedItem::Message(..) => {}
        });
        self.settle(now, links);
    }
}

impl Core {
    fn message_of_node(&mut self, from: &NodeId, bytes: &[u8], now: Duration, links: &mut dyn Links) {
        let Self { state, server_handlers, .. } = self;
        let mut io = Io { state, links: &mut *links, now };
        match NodeMessage::from_bytes(bytes) {
            Some(NodeMessage::ServerEvent { request, event, args }) => {
                Self::server_event(&mut io, server_handlers, from, request, &event, &args);
            }
            Some(message) => io.node_message(from, message),
            None => {}
        }
        self.settle(now, links);
    }
}

impl Io<'_> {
    /// Has a shared log read; `false`: the store is not shared.
    pub(super) fn follow(&mut self, namespace: &Arc<str>) -> bool {
        let recovers = self.state.config.recovery.is_some();
        let Some(cluster) = &mut self.state.cluster else { return false };
        if recovers {
            cluster.commands.push_back(FeedCommand::Follow(Arc::clone(namespace)));
        }
        true
    }

    pub(super) fn unfollow(&mut self, namespace: &Arc<str>) {
        if let Some(cluster) = &mut self.state.cluster {
            cluster.commands.push_back(FeedCommand::Leave(Arc::clone(namespace)));
        }
    }

    fn log_began(&mut self, namespace: &str, epoch: u64, floor: Position, tail: Position) {
        let Some(space) = self.space(namespace) else { return };
        if self.log(space).is_some_and(|log| log.epoch.is_some()) {
            // Of a namespace that was dropped and made again at once, the first tail may come before the second.
            self.fell_behind(namespace, false);
        }
        let Some(log) = self.log(space) else { return };
        log.begin(epoch, floor, tail);
        if floor < tail {
            let call = super::command::StoreCall::Asks(Arc::from(namespace), floor..tail);
            self.state.queue.read(call, super::state::Read::Asks(space));
        }
        self.read_back_to(space, tail);
        self.resume_waiting(space);
    }

    /// Is the log of a shared store not read now? Then nobody knows what a socket would miss, nor the epoch of what it is shown.
    pub(super) fn is_unread(&mut self, space: SpaceKey) -> bool {
        self.state.cluster.is_some() && self.log(space).is_some_and(|log| log.epoch.is_none())
    }

    /// Goes on with a connecting socket when the log is read, up to `tail` at least: with an attach, whose place that is, or with
    /// a new session.
    pub(super) fn resume_when_read(&mut self, key: ConnectingKey, space: SpaceKey, tail: Position) {
        if let Some(log) = self.log(space) {
            log.resumes.push((tail, key));
        }
        self.resume_waiting(space);
    }

    fn resume_waiting(&mut self, space: SpaceKey) {
        let Some(log) = self.log(space).filter(|log| log.epoch.is_some() && !log.resumes.is_empty()) else {
            return;
        };
        let dispatched = log.dispatched;
        let ready: Vec<ConnectingKey> =
            log.resumes.extract_if(.., |(tail, _)| *tail <= dispatched).map(|(_, key)| key).collect();
        for key in ready {
            match self.state.connecting.get(key).map(|connecting| connecting.resume) {
                Some(Some(resume)) => self.read_first_page(key, space, resume),
                Some(None) => self.created(key, true),
                None => {}
            }
        }
    }

    fn entries_read(&mut self, namespace: &str, entries: Vec<Entry>) {
        let Some(space) = self.space(namespace) else { return };
        let Some(log) = self.log(space).filter(|log| log.epoch.is_some()) else { return };
        if log.appending > 0 {
            log.held_bytes += entries.iter().fold(0, |sum: u64, entry| sum.saturating_add(entry.new.bytes()));
            log.held.extend(entries);
            if log.held_bytes > self.state.config.storage.queue as u64 {
                // The writer has no answer, and the feed goes on: the log is read anew from its tail on.
                self.fell_behind(namespace, false);
                self.follow(&Arc::from(namespace));
            }
            return;
        }
        for entry in entries {
            self.entry_read(space, &entry);
        }
    }

    /// An append of this process is answered: what was held is dispatched.
    pub(super) fn append_answered(&mut self, space: Option<SpaceKey>) {
        let Some(space) = space else { return };
        let Some(log) = self.log(space) else { return };
        log.appending = log.appending.saturating_sub(1);
        while let Some(log) = self.log(space)
            && log.appending == 0
            && let Some(entry) = log.held.pop_front()
        {
            log.held_bytes = log.held_bytes.saturating_sub(entry.new.bytes());
            self.entry_read(space, &entry);
        }
    }

    fn entry_read(&mut self, space: SpaceKey, entry: &Entry) {
        let Some(log) = self.log(space) else { return };
        if entry.position <= log.dispatched {
            return;
        }
        log.committed = entry.position;
        // Entries of ours that were lost by the store are passed over.
        self.read_back_to(
            space,
            Position { number: entry.position.number.saturating_sub(1), ..entry.position },
        );
        if !self.own_entry_read(space, entry) {
            self.dispatch(space, entry, None);
        }
        self.resume_waiting(space);
    }

    /// The entry is the next one of ours: it takes effect with what was called after it.
    fn own_entry_read(&mut self, space: SpaceKey, entry: &Entry) -> bool {
        let Some(index) = self.reading_of(space) else { return false };
        let reading = self.state.queue.readings.get_mut(index);
        let Some(reading) = reading else { return false };
        if reading.items.front().and_then(|item| item.0) != Some(entry.position) {
            return false;
        }
        let Some((_, item)) = reading.items.pop_front() else { return false };
        match item {
            ReadBack::Item(Item::Entry(queued)) => self.entry_committed(*queued, entry.position),
            _ => self.dispatch(space, entry, None),
        }
        self.effects_behind(space);
        true
    }

    /// Entries of ours up to `position` are not read any more: they were read past, or are lost.
    fn read_back_to(&mut self, space: SpaceKey, position: Position) {
        while let Some(index) = self.reading_of(space)
            && let Some(reading) = self.state.queue.readings.get_mut(index)
            && let Some((Some(own), _)) = reading.items.front()
            && *own <= position
        {
            let own = *own;
            let Some((_, item)) = reading.items.pop_front() else { break };
            if let ReadBack::Item(Item::Entry(queued)) = item {
                // It is at or below `dispatched`, or below what is dispatched next.
                self.entry_passed(*queued, own);
            }
            self.effects_behind(space);
        }
    }

    fn entry_passed(&mut self, queued: super::state::QueuedEntry, position: Position) {
        if let Some(log) = self.log(queued.space) {
            log.dispatched = log.dispatched.max(position);
        }
        self.entry_committed(queued, position);
    }

    /// The first batch that waits for this log.
    fn reading_of(&self, space: SpaceKey) -> Option<usize> {
        self.state.queue.readings.iter().position(|reading| reading.space == space)
    }

    /// What was called after the entry that was just read, up to the next entry.
    fn effects_behind(&mut self, space: SpaceKey) {
        while let Some(index) = self.reading_of(space) {
            let Some(reading) = self.state.queue.readings.get_mut(index) else { return };
            let Some((position, _)) = reading.items.front() else {
                self.state.queue.readings.remove(index);
                // The next batch of this log may begin with effects.
                continue;
            };
            if position.is_some() {
                return;
            }
            let Some((_, item)) = reading.items.pop_front() else { return };
            match item {
                ReadBack::Item(item) => self.take_effect_if_held(item),
                ReadBack::Join(caller, room) => {
                    let position = self.dispatched(space);
                    self.place_for(caller, &room, true, position);
                }
                ReadBack::Transacted(caller, then, done) => self.transaction_over(caller, then, Ok(*done)),
                ReadBack::Appended => {}
            }
        }
    }

    /// A batch is committed: it takes effect as it is read back.
    pub(super) fn await_reading(&mut self, space: SpaceKey, taken: Vec<Item>, positions: &[Position]) {
        let mut positions = positions.iter();
        let mut items = VecDeque::new();
        for item in taken {
            match item {
                Item::Create(_) => {}
                Item::Entry(_) => items.push_back((positions.next().copied(), ReadBack::Item(item))),
                item => items.push_back((None, ReadBack::Item(item))),
            }
        }
        self.begin_reading(space, items);
    }

    /// The same for a transaction.
    pub(super) fn await_transaction(&mut self, caller: Caller, then: TransactThen, done: Transacted) {
        let space = caller.space;
        let mut items = VecDeque::new();
        for (effect, position) in &done.effects {
            items.push_back(match effect {
                TxEffect::Emit(new) if self.space(&new.namespace) != Some(space) => continue,
                TxEffect::Emit(_) => (Some(*position), ReadBack::Appended),
                TxEffect::Join(room) => (None, ReadBack::Join(caller, Arc::clone(room))),
            });
        }
        items.push_back((None, ReadBack::Transacted(caller, then, Box::new(done))));
        self.begin_reading(space, items);
    }

    fn begin_reading(&mut self, space: SpaceKey, items: VecDeque<(Option<Position>, ReadBack)>) {
        self.state.queue.readings.push_back(Reading { space, items });
        if self.reading_of(space) == self.state.queue.readings.len().checked_sub(1) {
            self.effects_behind(space);
        }
        let dispatched = self.dispatched(space);
        self.read_back_to(space, dispatched);
        self.append_answered(Some(space));
    }

    /// This node cannot read on where it was: its sockets resume, or are refused. Sessions of a store that has lost its data
    /// are not saved again: their clients could not be told what they miss.
    fn fell_behind(&mut self, namespace: &str, lost: bool) {
        let Some(space) = self.space(namespace) else { return };
        self.state.stats.fell_behind += 1;
        if let Some(log) = self.log(space) {
            log.epoch = None;
            log.held.clear();
            log.held_bytes = 0;
        }
        let sockets = self.state.spaces.get(space).map(|space| space.everyone.clone()).unwrap_or_default();
        for key in sockets {
            if let Some(socket) = self.state.live(key) {
                let (conn, session) = (socket.conn, socket.session);
                if let Some(session) = session.and_then(|key| self.state.sessions.get_mut(key)) {
                    session.lost |= lost;
                }
                self.cut_conn(conn);
            }
        }
        if lost {
            // What this node appended may be gone, too: nothing waits for it, and acks find no socket any more.
            self.read_back_to(space, Position { time: u64::MAX, number: u64::MAX });
        }
    }

    /// A session was attached: an older holder of it here has lost it.
    pub(super) fn on_fence(&mut self, space: SpaceKey, entry: &Entry) {
        let (Some(sid), Ok(generation)) = (entry.new.rooms.first(), entry.new.packet.parse::<u64>()) else {
            return;
        };
        if let Some(claim) = self.state.claims.get_mut(sid) {
            claim.generation = claim.generation.max(generation);
        }
        let holder = self.state.spaces.get(space).and_then(|space| space.by_id.get(sid).copied());
        let Some(holder) = holder else { return };
        let session = self.state.live(holder).and_then(|socket| socket.session);
        let held = session.and_then(|session| self.state.sessions.get(session));
        if held.is_some_and(|session| session.record.generation < generation) {
            self.take_over(holder);
        }
    }

    fn nodes_alive(&mut self, nodes: Vec<NodeId>) {
        let Some(cluster) = &mut self.state.cluster else { return };
        let own = &cluster.node;
        let others: HashSet<NodeId> = nodes.into_iter().filter(|node| node != own).collect();
        let gone: HashSet<NodeId> = cluster.others.difference(&others).cloned().collect();
        cluster.others = others;
        self.state.stats.nodes = cluster.others.len() as u64 + 1;
        if !gone.is_empty() {
            tracing::info!(target: "adjourn_socketio", count = gone.len(), "node_gone");
            self.nodes_gone(&gone);
        }
    }
}
