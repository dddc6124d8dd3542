//! Requests between the nodes of a shared store (specification 16): each names the nodes that were alive when it was made,
//! and ends when each has answered or is dead, or at its timeout with those that are missing.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::Core;
use super::command::FeedCommand;
use super::node_message::{NodeMessage, bytes_of};
use super::state::{
    Address, Answer, FetchThen, Fetched, Io, NodeRequest, Reliability, RequestKind, ServerAnswers,
    SocketInfo, Wait,
};
use crate::error::EmitError;
use crate::packet::{Args, ArgsBuf, Event, ToArgs};
use crate::store::NodeId;

/// Bytes of sockets in one message, nearly. A hundred nodes that answer at once are below what Redis keeps for a slow subscriber.
const FETCH_BYTES: usize = 256 << 10;

/// The handler of an event of `server_side_emit`; what it returns is the answer, where one is wanted.
pub(super) type ServerHandler = Box<dyn FnMut(&mut Io<'_>, Args<'_>) -> Option<ArgsBuf> + Send>;

impl Core {
    /// The handler of an event that another node emits with [`Io::server_side_emit`].
    pub fn on_server_event(
        &mut self,
        event: &str,
        handler: impl FnMut(&mut Io<'_>, Args<'_>) -> Option<ArgsBuf> + Send + 'static,
    ) {
        self.server_handlers.insert(Box::from(event), Box::new(handler));
    }

    pub(super) fn server_event(
        io: &mut Io<'_>,
        handlers: &mut HashMap<Box<str>, ServerHandler>,
        from: &NodeId,
        request: Option<u64>,
        event: &str,
        args: &ArgsBuf,
    ) {
        let mut answer = None;
        if let Some(handler) = handlers.get_mut(event) {
            io.guarded(|io| answer = handler(io, args.as_args()));
        }
        if let Some(request) = request {
            io.tell(Some(from), &NodeMessage::ServerAnswer { request, args: answer });
        }
    }
}

impl Io<'_> {
    /// Calls the handlers of this event on the other nodes, at most once each, unlogged. Without a shared store there are none.
    pub fn server_side_emit(&mut self, event: &str, args: impl ToArgs) -> Result<(), EmitError> {
        let args = ArgsBuf::new(&args)?;
        self.tell(None, &NodeMessage::ServerEvent { request: None, event: event.into(), args });
        Ok(())
    }

    /// The same; `then` gets the answers of the nodes that have the handler, and the names of those that did not answer.
    pub fn server_side_emit_with_acks(
        &mut self,
        event: &str,
        args: impl ToArgs,
        timeout: Duration,
        then: impl FnOnce(&mut Io<'_>, ServerAnswers) + Send + 'static,
    ) -> Result<(), EmitError> {
        let args = ArgsBuf::new(&args)?;
        let kind = RequestKind::Server { answers: Vec::new(), then: Box::new(then) };
        if let Some(request) = self.request(timeout, kind) {
            self.tell(None, &NodeMessage::ServerEvent { request: Some(request), event: event.into(), args });
        }
        Ok(())
    }

    pub(super) fn tell(&mut self, to: Option<&NodeId>, message: &NodeMessage) {
        if let Some(cluster) = &mut self.state.cluster {
            cluster.commands.push_back(FeedCommand::Send(to.cloned(), message.to_bytes()));
        }
    }

    /// The nodes that a request waits for.
    pub(super) fn other_nodes(&self) -> HashSet<NodeId> {
        self.state.cluster.as_ref().map(|cluster| cluster.others.clone()).unwrap_or_default()
    }

    /// The sockets in these rooms on all nodes.
    pub(super) fn fetch_from_nodes(
        &mut self,
        namespace: &Arc<str>,
        to: Address,
        own: Vec<SocketInfo>,
        timeout: Duration,
        then: FetchThen,
    ) {
        let namespace = Arc::clone(namespace);
        let kind =
            RequestKind::Fetch { namespace: Arc::clone(&namespace), to: to.clone(), sockets: own, then };
        if let Some(request) = self.request(timeout, kind) {
            self.tell(None, &NodeMessage::Fetch { request, namespace, to, after: 0 });
        }
    }

    /// Begins a request to all other nodes; without any it is over at once.
    fn request(&mut self, timeout: Duration, kind: RequestKind) -> Option<u64> {
        let awaited = self.other_nodes();
        let request = NodeRequest { awaited, dead: Vec::new(), kind };
        let Some(cluster) = self.state.cluster.as_mut().filter(|_| !request.awaited.is_empty()) else {
            self.end_request(request);
            return None;
        };
        cluster.next_request += 1;
        let number = cluster.next_request;
        cluster.requests.insert(number, request);
        self.after(timeout, move |io| {
            let request = io.state.cluster.as_mut().and_then(|cluster| cluster.requests.remove(&number));
            if let Some(request) = request {
                io.end_request(request);
            }
        });
        Some(number)
    }

    fn end_request(&mut self, request: NodeRequest) {
        let missing: Vec<NodeId> = request.dead.into_iter().chain(request.awaited).collect();
        match request.kind {
            RequestKind::Fetch { mut sockets, then, .. } => {
                // One that has moved meanwhile was found twice.
                let mut seen = HashSet::new();
                sockets.retain(|socket| seen.insert(Arc::clone(&socket.id)));
                let fetched = Fetched { sockets, missing_nodes: missing };
                self.later(move |io| then(io, fetched));
            }
            RequestKind::Server { answers, then } => {
                let answers = ServerAnswers { answers, missing_nodes: missing };
                self.later(move |io| then(io, answers));
            }
        }
    }

    /// A node has answered a request.
    fn answered(&mut self, number: u64, from: &NodeId, add: impl FnOnce(&mut RequestKind)) {
        let Some(cluster) = &mut self.state.cluster else { return };
        let Some(request) = cluster.requests.get_mut(&number) else { return };
        if !request.awaited.remove(from) {
            return;
        }
        add(&mut request.kind);
        if request.awaited.is_empty()
            && let Some(request) = cluster.requests.remove(&number)
        {
            self.end_request(request);
        }
    }

    /// These nodes are dead: nobody waits for them.
    pub(super) fn nodes_gone(&mut self, gone: &HashSet<NodeId>) {
        let Some(cluster) = &mut self.state.cluster else { return };
        // Who is dead is named as missing.
        for request in cluster.requests.values_mut() {
            request.dead.extend(request.awaited.extract_if(|node| gone.contains(node)));
        }
        let over = |request: &NodeRequest| request.awaited.is_empty();
        let done: Vec<u64> =
            cluster.requests.iter().filter(|(_, request)| over(request)).map(|(number, _)| *number).collect();
        for number in done {
            let request = self.state.cluster.as_mut().and_then(|cluster| cluster.requests.remove(&number));
            if let Some(request) = request {
                self.end_request(request);
            }
        }
        self.group_nodes_gone(gone);
    }

    /// A message that needs no handler of the application.
    pub(super) fn node_message(&mut self, from: &NodeId, message: NodeMessage) {
        match message {
            NodeMessage::Fetch { request, namespace, to, after } => {
                let (sockets, more) = self.sockets_in(&namespace, &to, after);
                self.tell(Some(from), &NodeMessage::Sockets { request, sockets, more });
            }
            NodeMessage::Sockets { request, sockets, more: Some(after) } => {
                self.sockets_and_more(request, from, sockets, after);
            }
            NodeMessage::Sockets { request, sockets: found, more: None } => {
                self.answered(request, from, |kind| {
                    if let RequestKind::Fetch { sockets, .. } = kind {
                        sockets.extend(found);
                    }
                });
            }
            NodeMessage::ServerAnswer { request, args } => self.answered(request, from, |kind| {
                if let (RequestKind::Server { answers, .. }, Some(args)) = (kind, args) {
                    answers.push((from.clone(), args));
                }
            }),
            NodeMessage::Event { namespace, to, event, volatile } => {
                let how = if volatile { Reliability::Volatile } else { Reliability::Direct };
                if let Some(space) = self.space(&namespace) {
                    self.deliver(space, &to, &event, how);
                }
            }
            NodeMessage::Ask { id, namespace, to, event, timeout } => {
                self.ask_for_node(from, id, &namespace, &to, &event, timeout);
            }
            NodeMessage::Asked { id, namespace } => {
                let space = self.space(&namespace);
                let reads = space.and_then(|space| self.log(space)).is_some_and(|log| log.epoch.is_some());
                if !reads {
                    self.tell(Some(from), &NodeMessage::Expect { id, sids: Vec::new() });
                }
            }
            NodeMessage::Expect { id, sids } => self.expect_of_node(from, id, sids),
            NodeMessage::Answer { id, sid, args } => self.answer_of_node(id, sid, args),
            NodeMessage::Gone { id, sid } => self.gone_at_node(id, &sid),
            NodeMessage::ServerEvent { .. } => {}
        }
    }

    /// The sockets after a number, as many as one message may hold, and the number of the last one if there are more.
    fn sockets_in(&mut self, namespace: &str, to: &Address, after: u64) -> (Vec<SocketInfo>, Option<u64>) {
        let Some(space) = self.space(namespace) else { return (Vec::new(), None) };
        let mut targets = self.state.targets(space, to);
        targets.retain(|key| key.as_u64() > after);
        targets.sort_unstable_by_key(|key| key.as_u64());
        let (mut sockets, mut bytes, mut more) = (Vec::new(), 0, None);
        for (index, key) in targets.iter().enumerate() {
            let Some(info) = self.info(*key) else { continue };
            bytes += bytes_of(&info);
            sockets.push(info);
            if bytes >= FETCH_BYTES && index + 1 < targets.len() {
                more = Some(key.as_u64());
                break;
            }
        }
        self.state.done_with(targets);
        (sockets, more)
    }

    /// A part of the answer of a node, which is asked for the next one.
    fn sockets_and_more(&mut self, request: u64, from: &NodeId, found: Vec<SocketInfo>, after: u64) {
        let Some(cluster) = &mut self.state.cluster else { return };
        let Some(asked) = cluster.requests.get_mut(&request) else { return };
        let RequestKind::Fetch { namespace, to, sockets, .. } = &mut asked.kind else { return };
        if asked.awaited.contains(from) {
            sockets.extend(found);
            let (namespace, to) = (Arc::clone(namespace), to.clone());
            self.tell(Some(from), &NodeMessage::Fetch { request, namespace, to, after });
        }
    }

    /// Another node asks sockets of this one: it gets their ids, then each answer.
    fn ask_for_node(
        &mut self,
        origin: &NodeId,
        origin_id: u64,
        namespace: &str,
        to: &Address,
        event: &Event,
        timeout: Duration,
    ) {
        let mut sids = Vec::new();
        if let Some(space) = self.space(namespace) {
            let id = self.wait_for_node(origin.clone(), origin_id, timeout);
            let targets = self.state.targets(space, to);
            self.send_all(&targets, &event.frames_with_ack(id));
            for key in &targets {
                self.owes(*key, id);
                sids.extend(self.state.live(*key).map(|socket| Arc::clone(&socket.id)));
            }
            self.state.done_with(targets);
        }
        self.tell(Some(origin), &NodeMessage::Expect { id: origin_id, sids });
    }

    fn expect_of_node(&mut self, from: &NodeId, id: u64, sids: Vec<Arc<str>>) {
        let Some(Wait::Group(group)) = self.state.waits.map.get_mut(&id) else { return };
        if group.awaited.remove(from) {
            let answered = &group.answered;
            group.expected.extend(sids.into_iter().filter(|sid| !answered.contains(sid)));
            self.finish_group_if_done(id);
        }
    }

    fn answer_of_node(&mut self, id: u64, sid: Arc<str>, args: ArgsBuf) {
        match self.state.waits.map.get_mut(&id) {
            Some(Wait::Group(group)) if !group.answered.contains(&sid) => {
                self.state.stats.acks_received += 1;
                group.answered.insert(Arc::clone(&sid));
                group.expected.remove(&sid);
                group.answers.push(Answer { id: sid, args });
                self.finish_group_if_done(id);
            }
            Some(Wait::Session { sid: asked, .. }) if *asked == sid => {
                if let Some(Wait::Session { then, .. }) = self.state.waits.map.remove(&id) {
                    self.state.stats.acks_received += 1;
                    self.guarded(|io| then(io, Ok(args.as_args())));
                }
            }
            _ => {}
        }
    }

    fn gone_at_node(&mut self, id: u64, sid: &str) {
        if let Some(Wait::Group(group)) = self.state.waits.map.get_mut(&id) {
            group.answered.insert(sid.into());
            group.expected.remove(sid);
            self.finish_group_if_done(id);
        }
    }

    fn group_nodes_gone(&mut self, gone: &HashSet<NodeId>) {
        let mut touched = Vec::new();
        for (id, wait) in &mut self.state.waits.map {
            if let Wait::Group(group) = wait {
                let lost: Vec<NodeId> = group.awaited.intersection(gone).cloned().collect();
                if !lost.is_empty() {
                    group.awaited.retain(|node| !gone.contains(node));
                    group.missing_nodes.extend(lost);
                    touched.push(*id);
                }
            }
        }
        for id in touched {
            self.finish_group_if_done(id);
        }
    }
}
