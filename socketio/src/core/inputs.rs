//! What comes in: requests, links, time, answers of the store. Each input handles first what has expired, and last what it has
//! caused in handlers and for the store.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tracing::field::Empty;

use super::Core;
use super::command::{StoreReply, Ticket};
use super::state::{BoundTo, Conn, ConnKey, Io, Observation, Peer, ShutdownPhase, Timer};
use crate::engine::{Admission, Context, Engine, EngineRequest, Outcome, PostBody, Refusal, admit};
use crate::links::{FrameRef, LinkId, Links, RequestId};
use crate::packet::Decoder;
use crate::reason::Reason;

/// Packets of a POST that are handled at once. A body of `max_payload` may hold half a million.
const POST_SLICE: usize = 512;

/// How often one input looks for calls of other threads. What calls leave in the inbox again waits for the next turn after that.
const INBOX_LOOKS: usize = 16;

impl Core {
    // ---- requests

    /// Decides what a request is for (specification 2). `allow` is asked last, for new sessions only: `Origin` and the
    /// application's `allow_request`. It ends nothing, so that it needs no links: call [`Core::handle_timeout`] before.
    pub fn admit(
        &mut self,
        request: &EngineRequest<'_>,
        allow: impl FnOnce() -> Result<(), Refusal>,
    ) -> Result<Admission, Refusal> {
        let state = &self.state;
        let find = |sid: &str| state.conns.get(*state.by_sid.get(sid)?)?.engine.state();
        let new_session = || {
            let counts = &state.config.counts;
            let many = !request.upgrade && state.polling >= counts.polling_sessions;
            let full = many || state.unconnected >= counts.sessions_without_connect;
            if full || state.shutdown != ShutdownPhase::Running {
                return Err(Refusal::unavailable());
            }
            allow()
        };
        let admitted = admit(request, &state.engine, find, new_session);
        if let Err(refusal) = &admitted {
            self.state.stats.refused(refusal.code);
            tracing::debug!(target: "adjourn_socketio", code = refusal.code, "refused");
        }
        admitted
    }

    /// A WebSocket that was admitted as a new session is open.
    pub fn open_websocket(&mut self, link: LinkId, peer: Peer, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        let sid = self.state.new_sid();
        let mut cx = self.state.context(now, links);
        let engine = Engine::open_websocket(sid, link, &mut cx);
        self.open(engine, Some(link), peer, now, links);
    }

    /// A GET that was admitted as a new session.
    pub fn open_polling(&mut self, request: RequestId, peer: Peer, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        let sid = self.state.new_sid();
        let mut cx = self.state.context(now, links);
        let engine = Engine::open_polling(sid, request, &mut cx);
        self.open(engine, None, peer, now, links);
    }

    fn open(
        &mut self,
        engine: Engine,
        link: Option<LinkId>,
        peer: Peer,
        now: Duration,
        links: &mut dyn Links,
    ) {
        let sid: Arc<str> = Arc::from(engine.sid().as_str());
        let engine_only = self.on_engine_message.is_some();
        let conn = Conn {
            engine,
            decoder: Decoder::new(),
            peer: Arc::new(peer),
            bound: Vec::new(),
            left: Vec::new(),
            connected: engine_only,
            connect_deadline: (!engine_only).then(|| now + self.state.config.times.connect_timeout),
            attachments_deadline: None,
            armed: None,
            link,
            probe: None,
            posting: false,
            replays: 0,
            span: tracing::info_span!(target: "adjourn_socketio", "connection", id = Empty, link = link.map(|link| link.0)),
        };
        self.state.stats.connections_opened += 1;
        let key = self.state.conns.insert(conn);
        let span = self.state.span_of(key);
        span.record("id", tracing::field::debug(key));
        let _entered = span.entered();
        self.state.by_sid.insert(sid, key);
        match link {
            Some(link) => {
                self.state.by_link.insert(link, key);
            }
            None => self.state.polling += 1,
        }
        self.state.unconnected += usize::from(!engine_only);
        self.io(now, links).settle_conn(key);
        self.settle(now, links);
    }

    /// A WebSocket that was admitted as a probe of this session is open.
    pub fn probe(&mut self, link: LinkId, sid: &str, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        let Some(key) = self.state.by_sid.get(sid).copied() else {
            return links.close(link, crate::links::LinkClose::Empty { quick: false });
        };
        self.state.by_link.insert(link, key);
        if let Some(conn) = self.state.conns.get_mut(key) {
            conn.probe.get_or_insert(link);
        }
        self.input(key, now, links, |engine, cx| engine.probe(link, cx));
    }

    /// A GET of this session.
    pub fn poll(&mut self, request: RequestId, sid: &str, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        match self.state.by_sid.get(sid).copied() {
            Some(key) => self.input(key, now, links, |engine, cx| engine.poll(request, cx)),
            None => links.respond(request, Refusal::unknown_session().response()),
        }
    }

    /// The head of a POST of this session; its body follows.
    pub fn post_head(
        &mut self,
        request: RequestId,
        sid: &str,
        content: (Option<&str>, Option<u64>),
        now: Duration,
        links: &mut dyn Links,
    ) {
        self.expire(now, links);
        let (content_type, length) = content;
        match self.state.by_sid.get(sid).copied() {
            Some(key) => {
                let head = |engine: &mut Engine, cx: &mut Context<'_>| {
                    engine.begin_post(request, content_type, length, cx)
                };
                self.input(key, now, links, head);
            }
            None => links.respond(request, Refusal::unknown_session().response()),
        }
    }

    /// The body of a POST. If it holds many packets only the first are handled: then this gives the length of the rest, for a further
    /// call after others have had their turn.
    pub fn post_body(
        &mut self,
        request: RequestId,
        sid: &str,
        body: PostBody<'_>,
        now: Duration,
        links: &mut dyn Links,
    ) -> Option<usize> {
        self.expire(now, links);
        let Some(key) = self.state.by_sid.get(sid).copied() else {
            links.respond(request, Refusal::unknown_session().response());
            return None;
        };
        let _entered = self.state.span_of(key).entered();
        let (conn, mut cx) = self.state.engine_of(key, now, links)?;
        let mut packets = match conn.engine.post(request, body, &mut cx) {
            Ok(packets) => packets,
            Err(outcome) => {
                self.outcome(key, outcome, now, links);
                self.settle_input(key, now, links);
                return None;
            }
        };
        conn.posting = true;
        let mut rest = None;
        for handled in 0.. {
            let Some((conn, mut cx)) = self.state.engine_of(key, now, links) else { break };
            if handled == POST_SLICE {
                rest = conn.engine.suspend_post(&mut packets);
                if rest.is_some() {
                    break;
                }
            }
            let Some(outcome) = conn.engine.next_packet(&mut packets, &mut cx) else { break };
            self.outcome(key, outcome, now, links);
            self.run_upcalls(now, links);
        }
        if let Some(conn) = self.state.conns.get_mut(key) {
            conn.posting = false;
        }
        self.settle_input(key, now, links);
        rest
    }

    /// The connection of a request died before its answer.
    pub fn request_gone(&mut self, request: RequestId, sid: &str, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        if let Some(key) = self.state.by_sid.get(sid).copied() {
            self.input(key, now, links, |engine, cx| engine.request_gone(request, cx));
        }
    }

    // ---- links

    /// A message of a WebSocket.
    pub fn websocket_message(
        &mut self,
        link: LinkId,
        frame: FrameRef<'_>,
        now: Duration,
        links: &mut dyn Links,
    ) {
        self.expire(now, links);
        let Some(key) = self.state.by_link.get(&link).copied() else { return };
        let _entered = self.state.span_of(key).entered();
        let Some((conn, mut cx)) = self.state.engine_of(key, now, links) else { return };
        let outcome = conn.engine.message(link, frame, &mut cx);
        self.outcome(key, outcome, now, links);
        self.settle_input(key, now, links);
    }

    /// A WebSocket is closing, or is closed: what that means, and the code if it is known. Said again, it changes nothing.
    pub fn websocket_ended(
        &mut self,
        link: LinkId,
        reason: Reason,
        code: Option<u16>,
        now: Duration,
        links: &mut dyn Links,
    ) {
        self.expire(now, links);
        let Some(key) = self.state.by_link.remove(&link) else { return };
        let _entered = self.state.span_of(key).entered();
        let Some((conn, mut cx)) = self.state.engine_of(key, now, links) else { return };
        let outcome = conn.engine.link_ended(link, reason, &mut cx);
        conn.probe.take_if(|probe| *probe == link);
        if let Outcome::Ended(reason) = outcome {
            self.io(now, links).end_conn(key, reason, code);
        } else {
            self.outcome(key, outcome, now, links);
        }
        self.settle_input(key, now, links);
    }

    /// The kernel has taken all that was queued for a WebSocket.
    pub fn websocket_drained(&mut self, link: LinkId, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        if let Some(key) = self.state.by_link.get(&link).copied() {
            self.settle_input(key, now, links);
        }
    }

    fn input(
        &mut self,
        key: ConnKey,
        now: Duration,
        links: &mut dyn Links,
        input: impl FnOnce(&mut Engine, &mut Context<'_>) -> Outcome<'static>,
    ) {
        let _entered = self.state.span_of(key).entered();
        let Some((conn, mut cx)) = self.state.engine_of(key, now, links) else { return };
        let outcome = input(&mut conn.engine, &mut cx);
        self.outcome(key, outcome, now, links);
        self.settle_input(key, now, links);
    }

    /// What an engine's input has led to.
    pub(super) fn outcome(
        &mut self,
        key: ConnKey,
        outcome: Outcome<'_>,
        now: Duration,
        links: &mut dyn Links,
    ) {
        match outcome {
            Outcome::Nothing => {}
            Outcome::Ignored => self.state.stats.packets_ignored += 1,
            Outcome::Message(message) => self.message(key, message.borrow(), now, links),
            Outcome::Upgraded => self.io(now, links).upgraded(key),
            Outcome::ProbeFailed => self.io(now, links).probe_failed(key),
            Outcome::Ended(reason) => self.with_io(now, links, |io| {
                let code = io.state.conns.get(key).and_then(|conn| conn.link).map(|_| 1005);
                io.end_conn(key, reason, code);
            }),
        }
    }

    fn settle_input(&mut self, key: ConnKey, now: Duration, links: &mut dyn Links) {
        self.with_io(now, links, |io| {
            io.settle_conn(key);
            io.on_drained(key);
        });
        self.settle(now, links);
    }

    // ---- time, store, other threads

    /// Does what is due. Every other input does it first, too.
    pub fn handle_timeout(&mut self, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        self.settle(now, links);
    }

    /// The store's answer to a call of [`Core::poll_store`].
    pub fn store_reply(&mut self, ticket: Ticket, reply: StoreReply, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        self.io(now, links).on_store_reply(ticket, reply);
        self.settle(now, links);
    }

    /// Makes the calls that other threads have left.
    pub fn handle_inbox(&mut self, now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        self.settle(now, links);
    }

    /// Makes one call, as a handler would.
    pub fn call(&mut self, call: impl FnOnce(&mut Io<'_>), now: Duration, links: &mut dyn Links) {
        self.expire(now, links);
        self.io(now, links).guarded(call);
        self.settle(now, links);
    }

    pub(super) fn expire(&mut self, now: Duration, links: &mut dyn Links) {
        while let Some((at, timer)) = self.state.timers.pop(now) {
            self.fire(at, timer, now, links);
        }
    }

    fn fire(&mut self, at: Duration, timer: Timer, now: Duration, links: &mut dyn Links) {
        match timer {
            Timer::Conn(key) => self.conn_due(key, at, now, links),
            Timer::Wait(id) => self.io(now, links).wait_due(id),
            Timer::Connecting(key) => self.io(now, links).connecting_due(key),
            Timer::Idle(key) => self.io(now, links).idle_due(key, at),
            Timer::Call(key) => self.with_io(now, links, |io| {
                if let Some(call) = io.state.timers.calls.remove(key) {
                    io.guarded(call);
                }
            }),
            Timer::Space(key) => self.io(now, links).space_left(key),
            Timer::Replay(key) => self.io(now, links).replay_due(key),
            Timer::Store => self.io(now, links).on_store_timer(),
            Timer::Upkeep => self.io(now, links).on_upkeep(),
            Timer::Checkpoint => self.io(now, links).on_checkpoint(),
        }
        self.run_upcalls(now, links);
    }

    fn conn_due(&mut self, key: ConnKey, at: Duration, now: Duration, links: &mut dyn Links) {
        let _entered = self.state.span_of(key).entered();
        let Some((conn, mut cx)) = self.state.engine_of(key, now, links) else { return };
        if conn.armed != Some(at) {
            return;
        }
        conn.armed = None;
        let outcome = conn.engine.handle_timeout(&mut cx);
        self.outcome(key, outcome, now, links);
        self.with_io(now, links, |io| {
            io.conn_expired(key);
            io.settle_conn(key);
        });
    }

    /// After an input: handlers, then the store's queue, until neither leads to the other.
    pub(super) fn settle(&mut self, now: Duration, links: &mut dyn Links) {
        let mut looks = 0;
        loop {
            self.run_upcalls(now, links);
            self.io(now, links).advance_queue();
            let calls = if looks < INBOX_LOOKS { self.state.inbox.take() } else { VecDeque::new() };
            looks += 1;
            if calls.is_empty() && self.state.upcalls.is_empty() {
                break;
            }
            for call in calls {
                self.io(now, links).guarded(call);
                self.run_upcalls(now, links);
            }
        }
    }
}

impl Io<'_> {
    /// The session is on WebSocket: its sockets' output goes there.
    fn upgraded(&mut self, key: ConnKey) {
        self.state.stats.upgrades += 1;
        let Some(conn) = self.state.conns.get_mut(key) else { return };
        self.state.polling -= usize::from(conn.link.is_none());
        conn.link = conn.engine.link();
        conn.probe = None;
        let link = conn.link;
        for bound in self.bound_to(key) {
            if let BoundTo::Socket(socket) = bound.to
                && let Some(state) = self.state.sockets.get_mut(socket)
            {
                state.link = link;
                self.state.notice(socket, || Observation::Upgraded);
            }
        }
    }

    fn probe_failed(&mut self, key: ConnKey) {
        self.state.stats.upgrades_failed += 1;
        let probe = self.state.conns.get_mut(key).and_then(|conn| conn.probe.take());
        if let Some(link) = probe {
            self.state.by_link.remove(&link);
        }
    }

    /// Deadlines of this layer: a CONNECT, or attachments, have not come.
    fn conn_expired(&mut self, key: ConnKey) {
        let now = self.now;
        let Some(conn) = self.state.conns.get_mut(key) else { return };
        let no_connect = conn.connect_deadline.take_if(|at| *at <= now).is_some() && conn.bound.is_empty();
        let no_attachment = conn.attachments_deadline.take_if(|at| *at <= now).is_some();
        if no_connect {
            self.state.stats.connect_timeouts += 1;
        }
        if no_attachment {
            self.state.stats.state_error("attachments_late");
        }
        if no_connect || no_attachment {
            self.close_conn(key, Reason::ForcedClose);
        }
    }
}
