//! [`Socket`]: one client in one namespace, as handlers see it.

use std::sync::Arc;
use std::time::Duration;

use super::broadcast::{Broadcast, IntoRooms};
use super::state::{
    AckMode, AckOptions, AckThen, Address, Handshake, Io, Reliability, ResumeOutcome, SocketInfo, SocketKey,
    SocketState, SpaceKey, State, Transport,
};
use crate::error::{AckError, ChangeError, EmitError};
use crate::offset::Offset;
use crate::packet::{Args, Event, ToArgs};
use crate::reason::Reason;
use crate::store::StoreError;

/// A socket, for the length of a call. After its disconnect, calls do nothing and say so.
pub struct Socket<'a> {
    io: Io<'a>,
    key: SocketKey,
}

impl<'a> Socket<'a> {
    pub(super) const fn new(io: Io<'a>, key: SocketKey) -> Self {
        Self { io, key }
    }

    fn state(&self) -> &SocketState {
        self.io.state.sockets.get(self.key).expect("a socket is kept until its on_disconnect has returned")
    }

    pub(super) const fn key(&self) -> SocketKey {
        self.key
    }

    /// The layer.
    pub fn io(&mut self) -> &mut Io<'a> {
        &mut self.io
    }

    /// Its id; it keeps it when its session is resumed.
    pub fn id(&self) -> &Arc<str> {
        &self.state().id
    }

    /// How it connected.
    pub fn handshake(&self) -> &Arc<Handshake> {
        &self.state().handshake
    }

    /// Who it is, as a middleware has said.
    pub fn principal(&self) -> &Arc<str> {
        &self.state().principal
    }

    /// Is it a new session, or one that goes on?
    pub fn resume(&self) -> &ResumeOutcome {
        &self.state().outcome
    }

    /// Is it connected?
    pub fn is_connected(&self) -> bool {
        self.state().is_connected()
    }

    /// Names its connection: sockets of several namespaces that share one have the same.
    pub fn connection(&self) -> u64 {
        self.state().conn.as_u64()
    }

    /// Over what it speaks now.
    pub fn transport(&self) -> Transport {
        if self.state().link.is_some() { Transport::WebSocket } else { Transport::Polling }
    }

    /// Bytes queued that the client has not taken.
    pub fn unsent(&mut self) -> usize {
        self.io.unsent(self.key)
    }

    // ---- events

    /// Emits to this socket: durably with recovery, else at once.
    pub fn emit(&mut self, event: &str, args: impl ToArgs) -> Result<(), EmitError> {
        let space = self.connected()?;
        let to = Address::one(self.id());
        self.io.emit(Some(space), &to, event, &args, None)
    }

    /// The same; `then` gets its offset once it is logged (epoch 0 without recovery), or the error.
    pub fn emit_then(
        &mut self,
        event: &str,
        args: impl ToArgs,
        then: impl FnOnce(&mut Io<'_>, Result<Offset, EmitError>) + Send + 'static,
    ) -> Result<(), EmitError> {
        let space = self.connected()?;
        let to = Address::one(self.id());
        self.io.emit(Some(space), &to, event, &args, Some(Box::new(then)))
    }

    /// Emits at once, or not at all if the client has too much unsent already; `false`: dropped.
    pub fn emit_volatile(&mut self, event: &str, args: impl ToArgs) -> bool {
        let Ok((space, event)) = self.encode(event, &args) else { return false };
        self.io.deliver_to(space, &[self.key], &event, Reliability::Volatile) > 0
    }

    /// Emits and waits for the client's answer. With [`AckMode::Once`] it is sent at once and not logged.
    pub fn emit_with_ack(
        &mut self,
        event: &str,
        args: impl ToArgs,
        options: AckOptions,
        then: impl FnOnce(&mut Io<'_>, Result<Args<'_>, AckError>) + Send + 'static,
    ) -> Result<(), EmitError> {
        let (_, event) = self.encode(event, &args)?;
        self.ask(event, options, Box::new(then))
    }

    fn ask(&mut self, event: Event, options: AckOptions, then: AckThen) -> Result<(), EmitError> {
        let limit = self.io.state.config.counts.pending_acks_per_socket;
        let space = self.state().space;
        let State { sockets, waits, .. } = &mut *self.io.state;
        let pending = sockets.get_mut(self.key).map_or(0, |socket| {
            if socket.pending_acks.len() >= limit {
                socket.pending_acks.retain(|id| waits.map.contains_key(id));
            }
            socket.pending_acks.len()
        });
        if pending >= limit {
            self.io.state.stats.acks_refused += 1;
            return Err(EmitError::TooManyAcks { pending });
        }
        let redeliver = options.mode == AckMode::Redeliver && self.io.log(space).is_some();
        let id = if redeliver {
            self.io.check_emit(event.size())?;
            self.io.wait_for_session(Arc::clone(self.id()), options.timeout, then)
        } else {
            self.io.wait_for_socket(self.key, options.timeout, then)
        };
        self.io.owes(self.key, id);
        if redeliver {
            let to = Address::one(self.id());
            self.io.log_ask(space, &to, event, id, options.timeout);
            return Ok(());
        }
        self.io.state.stats.events_out += 1;
        self.io.send(self.key, &event.frames_with_ack(id));
        Ok(())
    }

    /// All sockets in these rooms but this one.
    pub fn to(&mut self, rooms: impl IntoRooms) -> Broadcast<'_> {
        self.broadcast().to(rooms)
    }

    /// All sockets of the namespace but this one.
    pub fn broadcast(&mut self) -> Broadcast<'_> {
        let (space, id) = (self.state().space, Arc::clone(self.id()));
        let namespace = Arc::clone(&self.state().handshake.namespace);
        Broadcast::new(self.io.reborrow(), Some(space), namespace, Some(id))
    }

    fn connected(&self) -> Result<SpaceKey, EmitError> {
        if self.is_connected() { Ok(self.state().space) } else { Err(EmitError::Disconnected) }
    }

    fn encode(&mut self, event: &str, args: &dyn ToArgs) -> Result<(SpaceKey, Event), EmitError> {
        let space = self.connected()?;
        let handshake = Arc::clone(self.handshake());
        Ok((space, self.io.event(&handshake.namespace, event, args)?))
    }

    // ---- rooms and data

    /// The rooms it is in, its own id among them, with changes that wait for their place in the log. Allocates.
    pub fn rooms(&self) -> Vec<Arc<str>> {
        info_of(self.state()).rooms
    }

    /// Joins a room, after what was emitted before.
    pub fn join(&mut self, room: &str) -> Result<(), ChangeError> {
        self.io.change_room(self.key, room, true)
    }

    /// Leaves a room, after what was emitted before.
    pub fn leave(&mut self, room: &str) -> Result<(), ChangeError> {
        self.io.change_room(self.key, room, false)
    }

    /// The session's data: the text of a JSON object. It survives with the session.
    pub fn data(&self) -> Option<&Arc<str>> {
        self.state().data.as_ref()
    }

    /// Replaces the session's data by a JSON object.
    pub fn set_data(&mut self, data: &str) -> Result<(), ChangeError> {
        self.io.set_data(self.key, data)
    }

    /// Calls back when what was done before is committed; at once if nothing waits.
    pub fn saved(&mut self, then: impl FnOnce(&mut Io<'_>, Result<(), StoreError>) + Send + 'static) {
        let session = self.state().session;
        self.io.when_saved(session, Box::new(then));
    }

    /// What `fetch` says of it.
    pub fn info(&self) -> SocketInfo {
        info_of(self.state())
    }

    // ---- ends

    /// Ends this socket: its client gets `io server disconnect` and does not come back by itself. Behind what has been
    /// emitted before.
    pub fn disconnect(&mut self) {
        self.io.request_disconnect(self.key, Reason::ServerNamespaceDisconnect, false);
    }

    /// The same for all sockets of its connection, which ends too.
    pub fn disconnect_connection(&mut self) {
        self.io.request_disconnect(self.key, Reason::ServerNamespaceDisconnect, true);
    }

    /// Closes its connection; the client comes back and resumes. At once.
    pub fn close_engine(&mut self) {
        let conn = self.state().conn;
        self.io.close_conn(conn, Reason::ForcedClose);
    }

    /// Ends its TCP connection without a Close; the client comes back and resumes. At once.
    pub fn cut(&mut self) {
        let conn = self.state().conn;
        self.io.cut_conn(conn);
    }

    /// Sends `event` at once, ahead of what waits for the log, and disconnects after `after`, then behind what has been emitted before.
    /// `Err`: it was not sent, and nothing follows; a client whose send queue has no room for it is disconnected as too slow.
    pub fn warn_then_disconnect(
        &mut self,
        event: &str,
        args: impl ToArgs,
        after: Duration,
    ) -> Result<(), EmitError> {
        let (space, event) = self.encode(event, &args)?;
        self.io.deliver_to(space, &[self.key], &event, Reliability::Direct);
        self.connected()?;
        let key = self.key;
        let end = move |io: &mut Io<'_>| io.request_disconnect(key, Reason::ServerNamespaceDisconnect, false);
        if after.is_zero() {
            end(&mut self.io);
        } else {
            self.io.after(after, end);
        }
        Ok(())
    }
}

impl Io<'_> {
    /// The rooms of a socket as its application sees them, without its own id.
    pub(super) fn shown_rooms(&self, key: SocketKey) -> Vec<Arc<str>> {
        self.state.sockets.get(key).map_or_else(Vec::new, shown_rooms)
    }

    pub(super) fn info(&self, key: SocketKey) -> Option<SocketInfo> {
        self.state.live(key).map(info_of)
    }

    fn set_data(&mut self, key: SocketKey, data: &str) -> Result<(), ChangeError> {
        let limit = self.state.config.counts.session_data;
        if data.len() > limit {
            self.state.stats.data_refused += 1;
            return Err(ChangeError::Data { length: data.len(), limit });
        }
        let is_value = serde_json::from_str::<serde::de::IgnoredAny>(data).is_ok();
        if !is_value || !data.trim_start().starts_with('{') {
            return Err(ChangeError::NotAnObject);
        }
        let Some(socket) = self.state.live_mut(key) else { return Err(ChangeError::Disconnected) };
        socket.data = Some(Arc::from(data));
        if let Some(session) = socket.session {
            self.state.scope.pending = true;
            self.mark_unsaved(session);
        }
        Ok(())
    }
}

/// The rooms of a socket with the changes that wait, without its own id.
fn shown_rooms(socket: &SocketState) -> Vec<Arc<str>> {
    let mut rooms: Vec<Arc<str>> = socket.rooms.iter().map(|joined| Arc::clone(&joined.name)).collect();
    for (room, join) in &socket.pending_rooms {
        rooms.retain(|shown| shown != room);
        if *join {
            rooms.push(Arc::clone(room));
        }
    }
    rooms
}

fn info_of(socket: &SocketState) -> SocketInfo {
    let mut rooms = shown_rooms(socket);
    rooms.push(Arc::clone(&socket.id));
    SocketInfo {
        id: Arc::clone(&socket.id),
        rooms,
        data: socket.data.clone(),
        handshake: Arc::clone(&socket.handshake),
    }
}
