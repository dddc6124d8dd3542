//! From a message to the handlers (specification 6, 7), and the calls that wait for a handler to return.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::namespace::{Handler, Namespace};
use super::socket::Socket;
use super::state::{
    Ack, BoundTo, ConnKey, ConnectStep, ConnectingKey, EventError, Io, Progress, ResumeOutcome, Scope,
    SocketKey, SpaceKey, Upcall, Verdict,
};
use super::{Core, Predicate};
use crate::links::{FrameRef, Links};
use crate::packet::{DecodeError, Packet, PacketKind};
use crate::reason::Reason;

impl Core {
    /// A message of an Engine.IO session.
    pub(super) fn message(
        &mut self,
        key: ConnKey,
        frame: FrameRef<'_>,
        now: Duration,
        links: &mut dyn Links,
    ) {
        if let Some(handler) = &mut self.on_engine_message {
            return Io { state: &mut self.state, links, now }.engine_message(key, frame, handler);
        }
        let Some(conn) = self.state.conns.get_mut(key) else { return };
        self.state.stats.messages_in += 1;
        self.state.stats.bytes_in += frame.len() as u64;
        match conn.decoder.decode(frame, &self.state.packets) {
            Ok(Some(packet)) => {
                conn.attachments_deadline = None;
                self.packet(key, &packet, now, links);
            }
            Ok(None) => {
                let times = &self.state.config.times;
                let deadline = now + times.ping_interval + times.ping_timeout;
                conn.attachments_deadline.get_or_insert(deadline);
            }
            Err(error) => {
                match error {
                    // It can be read, but no state of a client allows it (specification 6.3).
                    DecodeError::ConnectError => self.state.stats.state_error(error.name()),
                    _ => self.state.stats.decode_error(error.name()),
                }
                tracing::debug!(target: "adjourn_socketio", %error, "decode_error");
                self.io(now, links).close_conn(key, Reason::ForcedClose);
            }
        }
    }

    fn packet(&mut self, key: ConnKey, packet: &Packet<'_>, now: Duration, links: &mut dyn Links) {
        let Some(conn) = self.state.conns.get(key) else { return };
        let namespace = packet.namespace();
        let spaces = &self.state.spaces;
        let is_named = |space: SpaceKey| spaces.get(space).is_some_and(|space| *space.name == *namespace);
        let bound = conn.bound.iter().find(|bound| is_named(bound.space)).map(|bound| bound.to);
        match (packet.kind(), bound) {
            (PacketKind::Connect, None) => self.connect(key, packet, now, links),
            (PacketKind::Event, Some(BoundTo::Socket(socket))) => self.event(socket, packet, now, links),
            (PacketKind::Ack, Some(BoundTo::Socket(socket))) => {
                let Some(id) = packet.ack() else { return };
                self.io(now, links).on_ack(socket, id, packet.args());
            }
            (PacketKind::Disconnect, Some(BoundTo::Socket(socket))) => self.with_io(now, links, |io| {
                io.disconnect_socket(socket, Reason::ClientNamespaceDisconnect, None);
            }),
            (PacketKind::Disconnect, Some(BoundTo::Connecting(connecting))) => {
                self.io(now, links).abandon_connecting(connecting);
            }
            // The client may not know yet that its socket is disconnected.
            (PacketKind::Event | PacketKind::Ack | PacketKind::Disconnect, None)
                if conn.left.iter().any(|left| **left == *namespace) =>
            {
                self.state.stats.packets_late += 1;
            }
            (_, bound) => {
                let kind = match bound {
                    None => "not_connected",
                    Some(BoundTo::Socket(_)) => "connected_already",
                    Some(BoundTo::Connecting(_)) => "not_answered",
                };
                self.with_io(now, links, |io| {
                    io.state.stats.state_error(kind);
                    tracing::debug!(target: "adjourn_socketio", kind, "a packet that the state does not allow");
                    io.close_conn(key, Reason::ForcedClose);
                });
            }
        }
    }

    fn connect(&mut self, key: ConnKey, packet: &Packet<'_>, now: Duration, links: &mut dyn Links) {
        let Some(conn) = self.state.conns.get_mut(key) else { return };
        if !std::mem::replace(&mut conn.connected, true) {
            self.state.unconnected -= 1;
        }
        let full = conn.bound.len() >= self.state.config.counts.namespaces_per_connection;
        let (namespace, auth) = (packet.namespace(), packet.auth());
        let space =
            if full { Err("too many namespaces") } else { self.find_space(namespace, auth, now, links) };
        self.with_io(now, links, |io| match space {
            Ok(space) => io.begin_connect(key, space, auth),
            Err(why) => {
                io.state.stats.namespaces_refused += u64::from(why == "too many namespaces");
                io.connect_error(key, namespace, why, None);
            }
        });
        self.run_upcalls(now, links);
    }

    /// The namespace of that name, made by a predicate if there is one.
    fn find_space(
        &mut self,
        name: &str,
        auth: Option<&str>,
        now: Duration,
        links: &mut dyn Links,
    ) -> Result<SpaceKey, &'static str> {
        if let Some(space) = self.state.space_names.get(name) {
            return Ok(*space);
        }
        let matches = |entry: &&(Predicate, usize)| {
            catch_unwind(AssertUnwindSafe(|| (entry.0)(name, auth))).unwrap_or_default()
        };
        let Some(handlers) = self.predicates.iter().find(matches).map(|entry| entry.1) else {
            return Err("Invalid namespace");
        };
        if self.state.dynamic_spaces >= self.state.config.counts.dynamic_namespaces {
            return Err("too many namespaces");
        }
        self.state.dynamic_spaces += 1;
        self.state.stats.namespaces_made += 1;
        Ok(self.io(now, links).make_space(&Arc::from(name), handlers, true))
    }

    fn event(&mut self, key: SocketKey, packet: &Packet<'_>, now: Duration, links: &mut dyn Links) {
        self.state.stats.events_in += 1;
        let Some(socket) = self.state.live_mut(key) else { return };
        socket.last_event = now;
        let (space, warned) = (socket.space, socket.idle_warned);
        if warned {
            self.io(now, links).arm_idle(key);
        }
        let Some(space) = self.state.spaces.get(space) else { return };
        let Some(handlers) = self.handlers.get_mut(space.handlers) else { return };
        let mut io = Io { state: &mut self.state, links, now };
        let ack = packet.ack().map(|id| Ack { socket: key, id });
        io.guarded(|io| dispatch_event(handlers, io, key, packet, ack));
        self.run_upcalls(now, links);
    }

    // ---- calls that wait

    /// Calls the handlers of what has happened, until nothing more has.
    pub(super) fn run_upcalls(&mut self, now: Duration, links: &mut dyn Links) {
        while let Some(upcall) = self.state.upcalls.pop_front() {
            let Self { state, handlers, on_store_state, observer, .. } = self;
            let mut io = Io { state, links: &mut *links, now };
            match upcall {
                Upcall::Connected(key) => {
                    let Some(handlers) = handlers_of(handlers, &io, key) else { continue };
                    trace_connected(&io, key);
                    if let Some(handler) = &mut handlers.connection {
                        io.guarded(|io| handler(&mut Socket::new(io.reborrow(), key)));
                    }
                }
                Upcall::Disconnected(key) => disconnected(handlers, &mut io, key),
                Upcall::Then(then) => io.guarded(then),
                Upcall::Expired(summary) => {
                    let space = io.space(&summary.namespace).and_then(|space| io.state.spaces.get(space));
                    let expiring = || io.state.expiring.get(&summary.namespace).copied();
                    let index = space.map(|space| space.handlers).or_else(expiring);
                    let handlers = index.and_then(|index| handlers.get_mut(index));
                    if let Some(handler) = handlers.and_then(|handlers| handlers.expired.as_mut()) {
                        io.guarded(|_| handler(&summary));
                    }
                }
                Upcall::Observed(observed) => {
                    io.state.observed_one();
                    if let Some(observer) = observer {
                        io.guarded(|io| observer(io, &observed));
                    }
                }
                Upcall::StoreState(up) => {
                    if let Some(handler) = on_store_state {
                        io.guarded(|_| handler(up));
                    }
                }
                Upcall::Check(key) => {
                    check(handlers, &mut io, key);
                    // Most middlewares answer at once.
                    for call in io.state.inbox.take() {
                        io.guarded(call);
                    }
                }
            }
        }
    }
}

fn handlers_of<'h>(handlers: &'h mut [Namespace], io: &Io<'_>, key: SocketKey) -> Option<&'h mut Namespace> {
    let space = io.state.spaces.get(io.state.sockets.get(key)?.space)?;
    handlers.get_mut(space.handlers)
}

fn dispatch_event(
    handlers: &mut Namespace,
    io: &mut Io<'_>,
    key: SocketKey,
    packet: &Packet<'_>,
    ack: Option<Ack>,
) {
    let (name, args) = (packet.name(), packet.args());
    for filter in &mut handlers.filters {
        if let Err(error) = filter(&mut Socket::new(io.reborrow(), key), &name, args) {
            return event_dropped(handlers, io, key, &name, &error);
        }
        if ends_with(io, key) {
            return;
        }
    }
    io.state.notice_received(key, &name, args);
    if let Some(any) = &mut handlers.any {
        any(&mut Socket::new(io.reborrow(), key), &name, args);
        if ends_with(io, key) {
            return;
        }
    }
    match handlers.events.get_mut(&*name) {
        Some(Handler::Each(handler)) => handler(&mut Socket::new(io.reborrow(), key), args, ack),
        Some(Handler::Once(from, run)) => {
            if let Err(error) = io.on_once_event(key, &name, from, run, args, ack) {
                event_dropped(handlers, io, key, &name, &error);
            }
        }
        None => io.state.stats.events_unhandled += 1,
    }
}

/// Has what was called of the application for an event ended the socket? Then nothing of the event follows.
fn ends_with(io: &mut Io<'_>, key: SocketKey) -> bool {
    let ended = io.state.live(key).is_none();
    io.state.stats.packets_late += u64::from(ended);
    ended
}

fn event_dropped(handlers: &mut Namespace, io: &mut Io<'_>, key: SocketKey, name: &str, error: &EventError) {
    io.state.stats.events_filtered += 1;
    if let Some(handler) = &mut handlers.event_error {
        handler(&mut Socket::new(io.reborrow(), key), name, error);
    }
}

fn disconnected(handlers: &mut [Namespace], io: &mut Io<'_>, key: SocketKey) {
    let Some(socket) = io.state.sockets.get(key) else { return };
    let Progress::Ended(end) = &socket.progress else { return };
    let end = (**end).clone();
    let span = socket.span.clone().entered();
    tracing::debug!(target: "adjourn_socketio", socket = ?key, reason = %end.reason, "disconnected");
    drop(span);
    if let Some(handler) = handlers_of(handlers, io, key).and_then(|handlers| handlers.disconnect.as_mut()) {
        io.guarded(|io| handler(&mut Socket::new(io.reborrow(), key), &end));
    }
    io.forget_socket(key);
}

/// In the span of its connection: the input may be the store's.
fn trace_connected(io: &Io<'_>, key: SocketKey) {
    let Some(socket) = io.state.sockets.get(key) else { return };
    let _entered = socket.span.enter();
    if let ResumeOutcome::Resumed { missed, complete, .. } = socket.outcome {
        tracing::debug!(target: "adjourn_socketio", socket = ?key, missed, complete, "resumed");
    } else {
        tracing::debug!(target: "adjourn_socketio", socket = ?key, "connected");
    }
}

/// Runs the next middleware of a CONNECT, or goes on to the store.
fn check(handlers: &mut [Namespace], io: &mut Io<'_>, key: ConnectingKey) {
    let Some(connecting) = io.state.connecting.get(key) else { return };
    let ConnectStep::Checking(index) = connecting.step else { return };
    let handshake = Arc::clone(&connecting.handshake);
    let space = io.state.spaces.get(connecting.space);
    let handlers = space.and_then(|space| handlers.get_mut(space.handlers));
    let Some(check) = handlers.and_then(|handlers| handlers.checks.get_mut(index)) else {
        return io.enter_store(key);
    };
    let verdict = Verdict { to: Some((io.state.inbox.clone(), key, index)) };
    // One that panics has dropped its verdict.
    io.guarded(|_| check(&handshake, verdict));
}

impl Io<'_> {
    /// Calls a handler: what it has done before is what its acks wait for; a panic costs the call alone.
    pub(super) fn guarded(&mut self, run: impl FnOnce(&mut Io<'_>)) {
        self.state.scope = Scope { pending: false, call: self.state.scope.call + 1 };
        if catch_unwind(AssertUnwindSafe(|| run(self))).is_err() {
            self.state.handler_panicked();
        }
        self.state.scope.pending = false;
    }
}
