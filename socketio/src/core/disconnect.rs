//! How sockets and connections end (specification 11).
//!
//! ```text
//! socket:      live, catching up --disconnect_socket(reason)--> ended --on_disconnect returned--> gone
//! connection:  open --end_conn(reason)--> ended: all its sockets are --engine is over--> gone
//! ```
//!
//! The first reason stays. A socket that has ended gets and causes nothing any more; its rooms and data can be read until
//! `on_disconnect` has returned.

use std::sync::Arc;
use std::time::Duration;

use super::command::StoreCall;
use super::state::{
    Bound, BoundTo, ConnKey, Connecting, ConnectingKey, Disconnect, InFlight, Io, Item, Observation,
    Progress, SocketKey, SpaceKey, State, Timer, Upcall,
};
use crate::packet;
use crate::reason::Reason;
use crate::store::LogState;

impl Io<'_> {
    /// Ends a socket: its rooms, its session's hold, its acks. Says nothing to the client.
    pub(super) fn disconnect_socket(
        &mut self,
        key: SocketKey,
        reason: Reason,
        close_code: Option<u16>,
    ) -> bool {
        if self.state.live(key).is_none() {
            return false;
        }
        let unsent = self.unsent(key);
        let resumable_until = self.resumable_until(key, reason);
        let rooms = self.shown_rooms(key);
        let Some(socket) = self.state.live(key) else { return false };
        let (space_key, conn, session) = (socket.space, socket.conn, socket.session);
        if let Some(session) = session {
            self.leave_session(session, reason);
        }
        let end = Disconnect { reason, close_code, resumable_until, unsent, rooms };
        let State { spaces, sockets, .. } = &mut *self.state;
        let Some(socket) = sockets.get_mut(key) else { return false };
        let was_catching_up = socket.is_catching_up();
        socket.progress = Progress::Ended(Box::new(end));
        let id = Arc::clone(&socket.id);
        let acks = std::mem::take(&mut socket.pending_acks);
        if let Some(space) = spaces.get_mut(space_key) {
            if space.by_id.get(&id) == Some(&key) {
                space.by_id.remove(&id);
            }
            space.rooms.leave_all(key, sockets);
            space.leave_everyone(key, sockets);
        }
        self.unbind(conn, BoundTo::Socket(key), was_catching_up);
        self.state.stats.disconnected(reason);
        self.abandon_acks(key, &acks, reason);
        self.state.notice(key, || Observation::Disconnected(reason));
        self.state.upcalls.push_back(Upcall::Disconnected(key));
        true
    }

    fn resumable_until(&mut self, key: SocketKey, reason: Reason) -> Option<Duration> {
        let window = self.state.config.recovery.as_ref().map(|recovery| recovery.window)?;
        let socket = self.state.live(key)?;
        let (space, session) = (socket.space, socket.session);
        if !reason.is_resumable() || session.is_none() {
            return None;
        }
        let until = self.now.saturating_add(window);
        if let Some(space) = self.state.spaces.get_mut(space) {
            space.resumable_until = space.resumable_until.max(until);
        }
        Some(until)
    }

    /// The connection forgets a namespace; without any it is closed after `connect_timeout`.
    pub(super) fn unbind(&mut self, key: ConnKey, to: BoundTo, was_catching_up: bool) {
        let Some(conn) = self.state.conns.get_mut(key) else { return };
        conn.bound.retain(|bound| bound.to != to);
        conn.replays -= u32::from(was_catching_up);
        if conn.bound.is_empty() && conn.engine.is_open() {
            conn.connect_deadline = Some(self.now + self.state.config.times.connect_timeout);
            self.arm_conn(key);
        }
    }

    /// The server's `disconnect`: `41`, and an empty Close if the connection is to end.
    pub(super) fn disconnect_by_server(&mut self, key: SocketKey, with_connection: bool) {
        let Some(socket) = self.state.live(key) else { return };
        let conn = socket.conn;
        self.disconnect_with_packet(key, Reason::ServerNamespaceDisconnect);
        if !with_connection {
            return;
        }
        for to in self.bound_to(conn) {
            match to.to {
                BoundTo::Socket(key) => self.disconnect_with_packet(key, Reason::ServerNamespaceDisconnect),
                BoundTo::Connecting(key) => self.abandon_connecting(key),
            }
        }
        self.close_conn(conn, Reason::ServerNamespaceDisconnect);
    }

    /// `41`, then the end of this socket alone.
    pub(super) fn disconnect_with_packet(&mut self, key: SocketKey, reason: Reason) {
        let Some(socket) = self.state.live(key) else { return };
        let conn = socket.conn;
        let Some(space) = self.state.spaces.get(socket.space) else { return };
        let name = Arc::clone(&space.name);
        let frame = packet::disconnect(&name);
        if let Some(conn) = self.state.conns.get_mut(conn) {
            conn.left.retain(|left| *left != name);
            if conn.left.len() >= self.state.config.counts.namespaces_per_connection {
                conn.left.remove(0);
            }
            conn.left.push(name);
        }
        // First the end, so that a client that is too slow for the packet has ended for this reason.
        self.disconnect_socket(key, reason, None);
        self.send(key, &[frame]);
    }

    /// The application's call, or its policy: after what was emitted before it. `with_connection` is for
    /// `ServerNamespaceDisconnect` only.
    pub(super) fn request_disconnect(&mut self, key: SocketKey, reason: Reason, with_connection: bool) {
        let Some(socket) = self.state.live(key) else { return };
        let space = socket.space;
        let waits = self.state.queue.undelivered > 0 && self.log(space).is_some();
        let due = self.now + self.state.config.times.effect_timeout;
        if !waits || self.push_item(Item::Disconnect { socket: key, reason, with_connection, due }).is_err() {
            self.place_disconnect(key, reason, with_connection);
        }
    }

    /// A disconnect that was asked for takes effect.
    pub(super) fn place_disconnect(&mut self, key: SocketKey, reason: Reason, with_connection: bool) {
        if with_connection {
            self.disconnect_by_server(key, true);
        } else {
            self.disconnect_with_packet(key, reason);
        }
    }

    /// Another connection has resumed the session of this socket.
    pub(super) fn take_over(&mut self, key: SocketKey) {
        let Some(socket) = self.state.live(key) else { return };
        let conn = socket.conn;
        self.disconnect_with_packet(key, Reason::SessionTakenOver);
        if self.bound_to(conn).is_empty() {
            self.close_conn(conn, Reason::SessionTakenOver);
        }
    }

    // ---- connections

    pub(super) fn bound_to(&self, key: ConnKey) -> Vec<Bound> {
        self.state.conns.get(key).map_or_else(Vec::new, |conn| conn.bound.clone())
    }

    /// All sockets of a connection end, in this turn.
    pub(super) fn end_conn(&mut self, key: ConnKey, reason: Reason, close_code: Option<u16>) {
        for bound in self.bound_to(key) {
            match bound.to {
                BoundTo::Socket(socket) => {
                    self.disconnect_socket(socket, reason, close_code);
                }
                BoundTo::Connecting(connecting) => self.abandon_connecting(connecting),
            }
        }
    }

    /// Closes a connection in order, for a reason of this layer.
    pub(super) fn close_conn(&mut self, key: ConnKey, reason: Reason) {
        let Some((conn, mut cx)) = self.state.engine_of(key, self.now, self.links) else { return };
        let code = conn.engine.link().map(|_| 1005);
        if conn.engine.close(reason, &mut cx) {
            self.end_conn(key, reason, code);
        }
        self.settle_conn(key);
    }

    /// Ends the TCP connection of a connection at once.
    pub(super) fn cut_conn(&mut self, key: ConnKey) {
        let Some((conn, mut cx)) = self.state.engine_of(key, self.now, self.links) else { return };
        let code = conn.engine.link().map(|_| 1006);
        if conn.engine.cut(&mut cx) {
            self.end_conn(key, Reason::TransportClose, code);
        }
        self.settle_conn(key);
    }

    /// After each input of an engine: is it over, and when is it due next?
    pub(super) fn settle_conn(&mut self, key: ConnKey) {
        let Some(conn) = self.state.conns.get(key) else { return };
        if conn.engine.state().is_some() {
            return self.arm_conn(key);
        }
        if conn.posting {
            return;
        }
        let never_connected = !conn.connected;
        let (link, probe) = (conn.link, conn.probe);
        let sid = conn.engine.sid();
        for link in [link, probe].into_iter().flatten() {
            self.state.by_link.remove(&link);
        }
        self.state.by_sid.remove(sid.as_str());
        self.state.unconnected -= usize::from(never_connected);
        // Whatever the engine said, nobody is left on it.
        self.end_conn(key, Reason::TransportClose, None);
        if let Some(conn) = self.state.conns.remove(key) {
            self.state.stats.connections_closed += 1;
            self.state.polling -= usize::from(conn.link.is_none());
        }
    }

    /// Sets a timer if the connection is due before the one that is set.
    pub(super) fn arm_conn(&mut self, key: ConnKey) {
        let Some(conn) = self.state.conns.get_mut(key) else { return };
        let engine = conn.engine.next_timeout();
        let times = [engine, conn.connect_deadline, conn.attachments_deadline];
        let Some(at) = times.into_iter().flatten().min() else { return };
        if conn.armed.is_none_or(|armed| at < armed) {
            conn.armed = Some(at);
            self.state.timers.set(at, Timer::Conn(key));
        }
    }

    // ---- after `on_disconnect`

    /// The socket is gone; its namespace too, if it was made on demand and nobody can come back.
    pub(super) fn forget_socket(&mut self, key: SocketKey) {
        let Some(socket) = self.state.sockets.remove(key) else { return };
        self.space_left(socket.space);
    }

    /// A namespace made on demand is dropped once it has no socket and no session that can be resumed.
    pub(super) fn space_left(&mut self, key: SpaceKey) {
        let Some(space) = self.state.spaces.get(key) else { return };
        if !space.dynamic || !space.everyone.is_empty() || space.connecting > 0 {
            return;
        }
        let busy =
            space.log.as_ref().is_some_and(|log| log.uncommitted > 0 || log.reads > 0 || log.appending > 0);
        let busy = busy || self.state.queue.readings.iter().any(|reading| reading.space == key);
        if space.resumable_until > self.now || busy {
            let at = space.resumable_until.max(self.now + Duration::from_millis(100));
            return self.state.timers.set(at, Timer::Space(key));
        }
        let space = self.state.spaces.remove(key);
        self.state.space_names.remove(&space.name);
        self.state.dynamic_spaces -= 1;
        self.state.stats.namespaces_dropped += 1;
        self.unfollow(&space.name);
        if let Some(log) = space.log {
            // Positions of this log only grow, also if it is used again.
            let found =
                LogState { namespace: Arc::clone(&space.name), tail: log.dispatched, floor: log.floor };
            self.state.logs_found.insert(Arc::clone(&space.name), found);
            self.state.expiring.insert(Arc::clone(&space.name), space.handlers);
            let call = StoreCall::DropLog(Arc::clone(&space.name));
            self.state.queue.write(call, InFlight::DropLog(space.name), self.now);
        }
    }

    /// A log is not in the store any more: what begins under its name finds out where positions begin, like any new log.
    pub(super) fn log_dropped(&mut self, name: &str) {
        self.state.logs_found.remove(name);
        self.state.expiring.remove(name);
        if let Some(space) = self.space(name) {
            // It is in use again since, on what was known of the old one.
            if let Some(log) = self.log(space) {
                log.known = false;
            }
            self.find_log(space);
        }
    }

    /// A CONNECT that will not be answered.
    pub(super) fn abandon_connecting(&mut self, key: ConnectingKey) {
        let Some(Connecting { conn, space, record, .. }) = self.state.connecting.remove(key) else { return };
        self.unbind(conn, BoundTo::Connecting(key), false);
        if let Some(space) = self.state.spaces.get_mut(space) {
            space.connecting -= 1;
        }
        if let Some(record) = record {
            self.end_claim(key, &record);
            self.give_up_session(record);
        }
        self.space_left(space);
    }
}
