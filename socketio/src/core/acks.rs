//! Acks: ours to clients, and theirs that we wait for (specification 9).
//!
//! ```text
//! what is waited for          id          ends by
//! one socket, `Once`          below 2^40  answer, deadline, its disconnect
//! one session, `Redeliver`    from 2^40   answer over any connection, deadline, an end that cannot be resumed
//! a broadcast                 either      all expected have answered, deadline; `Once`: who is cut is not expected any more
//! ```

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use super::node_message::NodeMessage;
use super::state::{
    Ack, AckThen, Answer, Answers, AnswersThen, FIRST_ASK, Group, Io, Item, Scope, SocketKey, SpaceKey,
    State, Timer, Wait,
};
use crate::error::{AckError, AckSendError};
use crate::packet::{self, Args, ArgsBuf, Frames, ToArgs, queued_frames};
use crate::reason::Reason;
use crate::store::NodeId;

impl Ack {
    /// Answers with a list of arguments (a tuple), after what this handler call has done before is committed; `Err`: nothing is
    /// sent.
    pub fn send(self, io: &mut Io<'_>, args: impl ToArgs) -> Result<(), AckSendError> {
        io.answer(&self, &args)
    }
}

impl Io<'_> {
    // ---- ours

    fn answer(&mut self, ack: &Ack, args: &dyn ToArgs) -> Result<(), AckSendError> {
        let Some(socket) = self.state.live(ack.socket) else {
            self.state.stats.acks_after_disconnect += 1;
            return Err(AckSendError::Disconnected);
        };
        let Some(space) = self.state.spaces.get(socket.space) else { return Err(AckSendError::Disconnected) };
        let frames = packet::ack(&space.name, ack.id, args)
            .map_err(|error| AckSendError::Arguments(error.to_string().into()))?;
        let (size, limit) = (queued_frames(&frames), self.state.config.output.send_queue);
        if size > limit {
            self.state.stats.events_too_large += 1;
            return Err(AckSendError::TooLarge { size, limit });
        }
        let Scope { pending, call } = self.state.scope;
        if pending {
            let item = Item::Ack { socket: ack.socket, frames, call };
            if self.refuses_entries() || self.push_item(item).is_err() {
                self.state.stats.acks_withheld += 1;
                return Err(AckSendError::StoreUnavailable);
            }
        } else {
            self.send_ack(ack.socket, &frames);
        }
        Ok(())
    }

    pub(super) fn send_ack(&mut self, socket: SocketKey, frames: &Frames) {
        if self.state.live(socket).is_some() {
            self.state.stats.acks_sent += 1;
            self.send(socket, frames);
        }
    }

    // ---- theirs

    pub(super) fn wait_for_socket(&mut self, socket: SocketKey, timeout: Duration, then: AckThen) -> u64 {
        let id = self.state.waits.next_id();
        let deadline = self.now.saturating_add(timeout);
        self.keep_wait(id, Wait::Socket { socket, deadline, then });
        id
    }

    pub(super) fn wait_for_session(&mut self, sid: Arc<str>, timeout: Duration, then: AckThen) -> u64 {
        let id = self.state.new_ask_id();
        let deadline = self.now.saturating_add(timeout);
        self.keep_wait(id, Wait::Session { sid, deadline, then });
        id
    }

    /// Waits for the answers of a group, whose members [`Io::expect_answers`] tells.
    pub(super) fn wait_for_group(&mut self, redeliver: bool, timeout: Duration, then: AnswersThen) -> u64 {
        let id = if redeliver { self.state.new_ask_id() } else { self.state.waits.next_id() };
        let group = Group {
            expected: HashSet::new(),
            answered: HashSet::new(),
            answers: Vec::new(),
            awaited: HashSet::new(),
            missing_nodes: Vec::new(),
            redeliver,
            deadline: self.now.saturating_add(timeout),
            then,
        };
        self.keep_wait(id, Wait::Group(Box::new(group)));
        id
    }

    /// Another node waits for what these sockets answer.
    pub(super) fn wait_for_node(&mut self, origin: NodeId, id: u64, timeout: Duration) -> u64 {
        let own = self.state.waits.next_id();
        let deadline = self.now.saturating_add(timeout);
        self.keep_wait(own, Wait::Node { origin, id, deadline });
        own
    }

    /// A group waits for other nodes, too, until they have said whom they ask; one whose event is logged, for this node as well:
    /// others may have read it before.
    pub(super) fn await_nodes(&mut self, id: u64) {
        let mut nodes = self.other_nodes();
        let own = self.state.cluster.as_ref().map(|cluster| cluster.node.clone());
        if let Some(Wait::Group(group)) = self.state.waits.map.get_mut(&id) {
            nodes.extend(own.filter(|_| group.redeliver));
            group.awaited = nodes;
        }
    }

    fn keep_wait(&mut self, id: u64, wait: Wait) {
        let State { timers, waits, .. } = &mut *self.state;
        timers.set(wait.deadline(), Timer::Wait(id));
        waits.map.insert(id, wait);
        // Most answers come long before their deadline.
        timers.forget_waits(waits.len(), |id| waits.map.contains_key(&id));
    }

    /// The event is on its way to these sockets.
    pub(super) fn expect_answers(&mut self, id: u64, targets: &[SocketKey]) {
        let Some(Wait::Group(group)) = self.state.waits.map.get_mut(&id) else {
            return self.tell_expected(id, targets);
        };
        let redeliver = group.redeliver;
        if let Some(cluster) = &self.state.cluster {
            group.awaited.remove(&cluster.node);
        }
        let live = targets.iter().filter_map(|key| self.state.sockets.get(*key));
        group.expected.extend(live.filter(|it| it.is_connected()).map(|socket| Arc::clone(&socket.id)));
        if !redeliver {
            for key in targets {
                self.owes(*key, id);
            }
        }
        self.finish_group_if_done(id);
    }

    /// An ask of another node is on its way to these sockets.
    fn tell_expected(&mut self, id: u64, targets: &[SocketKey]) {
        if self.state.cluster.is_none() || self.state.waits.map.contains_key(&id) {
            return;
        }
        let asked = targets.iter().filter_map(|key| self.state.live(*key));
        let sids = asked.map(|socket| Arc::clone(&socket.id)).collect();
        self.tell(None, &NodeMessage::Expect { id, sids });
    }

    /// A client's ACK.
    pub(super) fn on_ack(&mut self, key: SocketKey, id: u64, args: Args<'_>) {
        let Some(socket) = self.state.live(key) else { return };
        let (sid, space) = (Arc::clone(&socket.id), socket.space);
        let is_ask = id >= FIRST_ASK && self.note_answered(key, space, id);
        let fits = match self.state.waits.map.get(&id) {
            Some(Wait::Socket { socket, .. }) => *socket == key,
            Some(Wait::Session { sid: asked, .. }) => *asked == sid,
            Some(Wait::Group(_)) => return self.on_group_answer(key, id, sid, args),
            Some(Wait::Node { origin, id: of_origin, .. }) => {
                let (origin, of_origin) = (origin.clone(), *of_origin);
                self.forget_pending(key, id);
                let args = ArgsBuf::new(&args).unwrap_or_default();
                return self.tell(Some(&origin), &NodeMessage::Answer { id: of_origin, sid, args });
            }
            None if is_ask => {
                // An ask of another node.
                let args = ArgsBuf::new(&args).unwrap_or_default();
                return self.tell(None, &NodeMessage::Answer { id, sid, args });
            }
            None => false,
        };
        if !fits {
            self.state.stats.acks_unknown += u64::from(!is_ask);
            return;
        }
        self.forget_pending(key, id);
        if let Some(Wait::Socket { then, .. } | Wait::Session { then, .. }) = self.state.waits.map.remove(&id)
        {
            self.state.stats.acks_received += 1;
            self.guarded(|io| then(io, Ok(args)));
        }
    }

    fn on_group_answer(&mut self, key: SocketKey, id: u64, sid: Arc<str>, args: Args<'_>) {
        let Some(Wait::Group(group)) = self.state.waits.map.get_mut(&id) else { return };
        let asked = group.redeliver || group.expected.contains(&sid);
        if !asked || !group.answered.insert(Arc::clone(&sid)) {
            self.state.stats.acks_unknown += 1;
            return;
        }
        self.state.stats.acks_received += 1;
        group.expected.remove(&sid);
        group.answers.push(Answer { id: sid, args: ArgsBuf::new(&args).unwrap_or_default() });
        self.forget_pending(key, id);
        self.finish_group_if_done(id);
    }

    pub(super) fn finish_group_if_done(&mut self, id: u64) {
        let Some(Wait::Group(group)) = self.state.waits.map.get(&id) else { return };
        if !group.expected.is_empty() || !group.awaited.is_empty() {
            return;
        }
        self.finish_group(id, None);
    }

    fn finish_group(&mut self, id: u64, error: Option<AckError>) {
        let Some(Wait::Group(group)) = self.state.waits.map.remove(&id) else { return };
        let Group { expected, answers, awaited, mut missing_nodes, then, .. } = *group;
        missing_nodes.extend(awaited);
        let answers = Answers { answers, missing: expected.len(), error, missing_nodes };
        self.later(move |io| then(io, answers));
    }

    /// An ask of the log that this session has answered is not sent to it again.
    fn note_answered(&mut self, key: SocketKey, space: SpaceKey, id: u64) -> bool {
        let Some(log) = self.log(space) else { return false };
        if !log.ask_ids.contains_key(&id) {
            return false;
        }
        let Some(session_key) = self.state.live(key).and_then(|socket| socket.session) else { return false };
        let asks = self.state.spaces.get(space).and_then(|space| space.log.as_ref());
        let Some(session) = self.state.sessions.get_mut(session_key) else { return false };
        if session.record.answered.contains(&id) {
            return false;
        }
        // Those whose deadline has passed are known no more.
        session.record.answered.retain(|old| asks.is_some_and(|log| log.ask_ids.contains_key(old)));
        session.record.answered.push(id);
        self.mark_unsaved(session_key);
        true
    }

    /// A socket is asked. Before its list grows, what is over is taken from it: a group's end, or another node's, is not looked
    /// for in the lists of all.
    pub(super) fn owes(&mut self, key: SocketKey, id: u64) {
        let State { sockets, waits, .. } = &mut *self.state;
        let Some(socket) = sockets.get_mut(key).filter(|socket| socket.is_connected()) else { return };
        let pending = &mut socket.pending_acks;
        if pending.len() == pending.capacity() {
            pending.retain(|id| waits.map.contains_key(id));
        }
        pending.push(id);
    }

    fn forget_pending(&mut self, key: SocketKey, id: u64) {
        if let Some(socket) = self.state.sockets.get_mut(key)
            && let Some(index) = socket.pending_acks.iter().position(|pending| *pending == id)
        {
            socket.pending_acks.swap_remove(index);
        }
    }

    /// A socket has ended: what only it could answer is over.
    pub(super) fn abandon_acks(&mut self, key: SocketKey, acks: &[u64], reason: Reason) {
        let sid =
            self.state.sockets.get(key).map(|socket| (Arc::clone(&socket.id), socket.session.is_some()));
        let Some((sid, has_session)) = sid else { return };
        let over = !reason.is_resumable() || !has_session;
        for id in acks {
            match self.state.waits.map.get_mut(id) {
                Some(Wait::Session { .. }) if !over => {}
                Some(Wait::Socket { .. } | Wait::Session { .. }) => {
                    self.fail_wait(*id, AckError::Disconnected);
                }
                Some(Wait::Group(group)) => {
                    group.expected.remove(&sid);
                    self.finish_group_if_done(*id);
                }
                Some(Wait::Node { origin, id, .. }) => {
                    let (origin, id) = (origin.clone(), *id);
                    self.tell(Some(&origin), &NodeMessage::Gone { id, sid: Arc::clone(&sid) });
                }
                None => {}
            }
        }
    }

    /// An ack will not come.
    pub(super) fn fail_wait(&mut self, id: u64, why: AckError) {
        match self.state.waits.map.get(&id) {
            Some(Wait::Group(_)) => self.finish_group(id, Some(why)),
            Some(Wait::Socket { socket, .. }) => {
                let socket = *socket;
                self.forget_pending(socket, id);
                self.fail_one(id, why);
            }
            Some(Wait::Session { .. }) => self.fail_one(id, why),
            Some(Wait::Node { .. }) => drop(self.state.waits.map.remove(&id)),
            None => {}
        }
    }

    fn fail_one(&mut self, id: u64, why: AckError) {
        if let Some(Wait::Socket { then, .. } | Wait::Session { then, .. }) = self.state.waits.map.remove(&id)
        {
            self.later(move |io| then(io, Err(why)));
        }
    }

    pub(super) fn wait_due(&mut self, id: u64) {
        if self.state.waits.map.get(&id).is_some_and(|wait| wait.deadline() <= self.now) {
            self.state.stats.acks_timed_out += 1;
            self.fail_wait(id, AckError::Timeout);
        }
    }
}
