//! The application's view: what it may ask of its connections, and what it may know of one.

use std::{slice, time::Duration};

use super::{
    client::Client,
    decision::{Accept, UpgradeRequest},
    sweep::ShutdownRequest,
    table::Hub,
};
use crate::{
    close::{CloseFrame, CloseTiming},
    config::Abort,
    conn::{ConnectRequest, Frames, Pause, State},
    error::{ConnectError, DecideError, SendError},
    event::Stats,
    id::ConnectionId,
    message::Payload,
    shutdown::{Escalation, Pace, ShutdownPhase, ShutdownPlan, SweepId},
    stats::LoopStats,
    wire::{header::frame_length, upgrade::Response},
};

/// The connections of one loop, as callbacks see them.
///
/// Every call is legal at every moment; a repeated or late one does nothing and says so. What is asked for happens when
/// the callback has returned, before the turn ends.
///
/// ```
/// use adjourn::{CloseFrame, Config, SendError, accept_all, testing::Session};
///
/// let mut session = Session::open(Config::default(), accept_all::<u32>(|_, _| {}));
/// session.act(|clients, _| {
///     let id = clients.iter().next().expect("one is open").id();
///     *clients.get_mut(id).expect("its data") = 42;
///     assert_eq!(clients.broadcast("to those that count", |client| *client.data() > 40).sent, 1);
///     assert!(clients.close(id, CloseFrame::GOING_AWAY));
///     assert!(!clients.close(id, CloseFrame::NORMAL), "it is closing already");
///     assert_eq!(clients.send(id, "late"), Err(SendError::Closing));
/// });
/// assert!(session.take_written().ends_with(b"\x81\x13to those that count\x88\x02\x03\xe9"));
/// ```
#[derive(Debug)]
pub struct Clients<'h, D = ()> {
    hub: &'h mut Hub<D>,
}

impl<'h, D> Clients<'h, D> {
    pub(super) const fn new(hub: &'h mut Hub<D>) -> Self {
        Self { hub }
    }
}

/// Whom a broadcast reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Broadcast {
    /// Connections for which the message was queued.
    pub sent: usize,
    /// Those whose backlog had no room for it.
    pub refused: usize,
}

/// Whom [`Clients::send_to`] reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SentTo {
    /// Connections for which all messages were queued.
    pub sent: usize,
    /// The others in the order of the list, and why. Nothing was queued for them.
    pub refused: Vec<(ConnectionId, SendError)>,
}

impl<D> Clients<'_, D> {
    /// Begins a connection as a client and returns at once. The outcome is reported by
    /// [`Event::Open`](crate::Event::Open) or [`Event::HandshakeFailed`](crate::Event::HandshakeFailed) with the id that
    /// this returns; `data` is the application's, from now on until `Close` or `HandshakeFailed` was delivered.
    ///
    /// A name is looked up on another thread, and its addresses are tried in order. Until `Open`, the connection takes no
    /// messages, and `close` or `terminate` give it up.
    ///
    /// # Errors
    /// If there are too many connections, or a shutdown is closing them.
    pub fn connect(&mut self, request: ConnectRequest, data: D) -> Result<ConnectionId, ConnectError> {
        self.hub.connect(request, data)
    }

    /// Queues a message. What is copied and what is not, [`Payload`] says.
    ///
    /// # Errors
    /// If the connection is gone, is closing, or has no room. Nothing is queued then.
    pub fn send<'m>(&mut self, id: ConnectionId, message: impl Into<Payload<'m>>) -> Result<(), SendError> {
        let message = message.into();
        let length = frame_length(message.len(), true);
        if !self.hub.common.output.fits(length) {
            self.hub.make_room_for(length);
        }
        self.hub.with_id(id, |conn, cx| conn.send(message, cx)).unwrap_or(Err(SendError::NotFound))
    }

    /// Queues a Ping with up to 125 bytes of payload (RFC 6455 §5.5.2).
    ///
    /// # Errors
    /// As [`Clients::send`]; and if the payload is too long.
    pub fn ping(&mut self, id: ConnectionId, payload: &[u8]) -> Result<(), SendError> {
        self.hub.with_id(id, |conn, cx| conn.ping(payload, cx)).unwrap_or(Err(SendError::NotFound))
    }

    /// Queues one message for every open connection that `to` chooses, and returns who was refused. Asks `to` of every connection:
    /// for a small part of them [`Clients::send_to`] costs less. The frame is made once and shared; compressed,
    /// once per size of window. Connections with context takeover, and those in the client's role, whose frames are
    /// masked, each get one of their own.
    pub fn broadcast<'m>(
        &mut self,
        message: impl Into<Payload<'m>>,
        mut to: impl FnMut(&Client<'_, D>) -> bool,
    ) -> Broadcast {
        let mut frames = Frames::new(message.into());
        let mut result = Broadcast::default();
        let OutputLock(hub) = &mut OutputLock::new(self.hub);
        let mut from = 0;
        while let Some(slot) = hub.next_slot(from) {
            from = slot + 1;
            let Some(client) = hub.client_at(slot) else { continue };
            if client.state() != State::Open || !to(&client) {
                continue;
            }
            let id = client.id();
            match hub.with(slot, |conn, cx| conn.send_shared(slice::from_mut(&mut frames), cx)) {
                Some(Ok(())) => result.sent += 1,
                Some(Err(SendError::Overflow { .. }))
                    if hub.sends_with_room(id, slice::from_mut(&mut frames)) =>
                {
                    result.sent += 1;
                }
                _ => result.refused += 1,
            }
        }
        result
    }

    /// Queues one or several messages for each connection of a list: all of them, or none for a connection that has no
    /// room for their sum. So it is also the way to queue several messages for one connection all or none.
    ///
    /// Frames are made once and shared as in [`Clients::broadcast`]. Costs what the list is long, not how many connections
    /// there are; allocates for the messages and for those refused. An id that stands in the list twice gets the messages twice.
    ///
    /// ```
    /// # use adjourn::{Clients, ConnectionId};
    /// # fn say(clients: &mut Clients<'_, ()>, room: &[ConnectionId]) {
    /// let result = clients.send_to(room.iter().copied(), ["first", "second"]);
    /// for (id, why) in result.refused {
    ///     println!("{id} got neither: {why}");
    /// }
    /// # }
    /// ```
    pub fn send_to<'m, M: Into<Payload<'m>>>(
        &mut self,
        ids: impl IntoIterator<Item = ConnectionId>,
        messages: impl IntoIterator<Item = M>,
    ) -> SentTo {
        let mut frames: Vec<_> = messages.into_iter().map(|message| Frames::new(message.into())).collect();
        let mut result = SentTo::default();
        let OutputLock(hub) = &mut OutputLock::new(self.hub);
        for id in ids {
            match hub.send_shared(id, &mut frames) {
                Ok(()) => result.sent += 1,
                Err(why) => result.refused.push((id, why)),
            }
        }
        result
    }

    /// Accepts an upgrade that was [deferred](crate::http::Upgrade::Defer): `Open` follows. `decide` sees the request again, so that a
    /// subprotocol can be chosen; it is not called if this returns an error.
    ///
    /// # Errors
    /// If none waits under this id, or if a shutdown has begun to refuse upgrades: then the peer gets 503.
    pub fn accept<F>(&mut self, id: ConnectionId, decide: F) -> Result<(), DecideError>
    where
        F: for<'r> FnOnce(&UpgradeRequest<'r>) -> Accept<'r, D>,
    {
        self.hub.accept_deferred(id, decide)
    }

    /// Refuses an upgrade that was [deferred](crate::http::Upgrade::Defer) with this response;
    /// [`HandshakeFailed(Rejected)`](crate::error::HandshakeError::Rejected) follows, with its id.
    ///
    /// # Errors
    /// If none waits under this id.
    pub fn reject(&mut self, id: ConnectionId, response: &Response) -> Result<(), DecideError> {
        self.hub.reject_deferred(id, response)
    }

    /// Begins the closing handshake: the Close is queued after what is queued already, and the peer has `close_timeout` to take both
    /// and to answer. Returns whether this call began it; a later call can only be a no-op.
    pub fn close(&mut self, id: ConnectionId, frame: CloseFrame) -> bool {
        self.close_with(id, frame, CloseTiming::default())
    }

    /// Like [`Clients::close`], with timeouts of its own. On a connection that is closing already, it can only shorten
    /// the deadline; the first frame stands. Returns whether this call began the closing.
    pub fn close_with(&mut self, id: ConnectionId, frame: CloseFrame, timing: CloseTiming) -> bool {
        self.hub.close(id, frame, timing)
    }

    /// A last message, past the limit on what may be queued, and the Close after it, in one call. Both are queued after what is
    /// queued already, so a peer that reads too slowly may lose the message with the rest when `flush_budget` is used up, and get
    /// the Close alone; [`Clients::kick_now`] makes room for it. Returns whether this call began the closing.
    pub fn kick<'m>(&mut self, id: ConnectionId, message: impl Into<Payload<'m>>, frame: CloseFrame) -> bool {
        self.kick_with(id, message.into(), frame, false)
    }

    /// Like [`Clients::kick`], but what is queued and has not begun on the wire is dropped first, so that the message is next; it is counted in
    /// [`CloseReport::lost`](crate::CloseReport::lost).
    pub fn kick_now<'m>(
        &mut self,
        id: ConnectionId,
        message: impl Into<Payload<'m>>,
        frame: CloseFrame,
    ) -> bool {
        self.kick_with(id, message.into(), frame, true)
    }

    fn kick_with(
        &mut self,
        id: ConnectionId,
        message: Payload<'_>,
        frame: CloseFrame,
        drop_queued: bool,
    ) -> bool {
        let timing = CloseTiming::default();
        self.hub.with_id(id, |conn, cx| conn.kick(message, frame, drop_queued, timing, cx)).unwrap_or(false)
    }

    /// Answers the peer's Close, where [`CloseAnswer::Manual`](crate::config::CloseAnswer::Manual) leaves that to the application.
    /// Returns whether it did.
    pub fn answer_close(&mut self, id: ConnectionId, frame: CloseFrame) -> bool {
        self.hub.with_id(id, |conn, cx| conn.answer_close(frame, cx)).unwrap_or(false)
    }

    /// Ends the connection at once, in the style of [`ConnectionConfig::terminate`](crate::config::ConnectionConfig::terminate): no Close frame, no
    /// further byte. `Close` is reported in the same turn. Returns whether there was something to end.
    pub fn terminate(&mut self, id: ConnectionId) -> bool {
        self.hub.with_id(id, |conn, cx| conn.terminate(None, cx)).unwrap_or(false)
    }

    /// Like [`Clients::terminate`], in the style given.
    pub fn terminate_with(&mut self, id: ConnectionId, style: Abort) -> bool {
        self.hub.with_id(id, |conn, cx| conn.terminate(Some(style), cx)).unwrap_or(false)
    }

    /// Stops reading from a connection. Frames that were read already wait; heartbeats wait too. Closing reads again. If
    /// something is queued for it, an [`Event::Drain`](crate::Event::Drain) will say when it is not. Allocates.
    ///
    /// When the peer leaves, or after [`ConnectionConfig::pause_timeout`](crate::config::ConnectionConfig::pause_timeout), there is `close_timeout` left
    /// to resume. Then reading goes on, what comes is discarded and counted, and a Close is answered. A peer that has not left by
    /// then has `close_timeout` to close, before it is closed with 1011.
    ///
    /// Returns whether its input is held now: not if the connection is gone or ends for another reason than our Close.
    pub fn pause(&mut self, id: ConnectionId) -> bool {
        let pause = self.hub.with_id(id, |conn, cx| conn.pause(cx.now)).unwrap_or(Pause::Not);
        if pause == Pause::Begins {
            self.hub.start_timers_on_return(id, None);
        }
        pause != Pause::Not
    }

    /// Reads again. Returns whether input is delivered from now on: not if the connection is gone, or if it is too late because
    /// its input is being discarded, see [`Clients::pause`].
    pub fn resume(&mut self, id: ConnectionId) -> bool {
        let now = self.hub.now;
        self.hub.with_id(id, |conn, _| conn.resume(now)).unwrap_or(false)
    }

    /// Sets a timer of a connection: when `after` has passed since the present callback returned, an
    /// [`Event::Timer`](crate::Event::Timer) brings `key`, at most 50 ms late, once. The same key again moves the timer. It goes
    /// with the connection. Returns whether it was set: not if the connection is not established. O(log timers), allocates.
    ///
    /// Set anew at each message, it finds connections whose *application* is idle; [`Client::idle_for`] counts Pongs, too.
    pub fn set_timer(&mut self, id: ConnectionId, after: Duration, key: u64) -> bool {
        self.hub.set_timer(Some(id), after, key)
    }

    /// Removes a timer of a connection. Returns whether it was set.
    pub fn clear_timer(&mut self, id: ConnectionId, key: u64) -> bool {
        self.hub.timers.clear((Some(id), key))
    }

    /// Sets a timer of the loop, as [`Clients::set_timer`] does for a connection. Its keys are its own.
    pub fn set_loop_timer(&mut self, after: Duration, key: u64) {
        self.hub.set_timer(None, after, key);
    }

    /// Removes a timer of the loop. Returns whether it was set.
    pub fn clear_loop_timer(&mut self, key: u64) -> bool {
        self.hub.timers.clear((None, key))
    }

    /// Closes every open connection that `predicate` chooses, in slices of
    /// [`LoopConfig::sweep_slice`](crate::config::LoopConfig::sweep_slice) a turn, at the given pace. Connections that open later are
    /// not asked. One [`Event::SweepDone`](crate::Event::SweepDone) follows when the last of them has ended.
    pub fn close_where(
        &mut self,
        frame: CloseFrame,
        pace: Pace,
        predicate: impl FnMut(&Client<'_, D>) -> bool + Send + 'static,
    ) -> SweepId {
        self.hub.begin_close_where(frame, pace, Box::new(predicate))
    }

    /// Terminates every connection that `predicate` chooses, closing ones too, in slices. One
    /// [`Event::SweepDone`](crate::Event::SweepDone) follows.
    pub fn terminate_where(
        &mut self,
        predicate: impl FnMut(&Client<'_, D>) -> bool + Send + 'static,
    ) -> SweepId {
        self.hub.begin_terminate_where(Box::new(predicate))
    }

    /// Begins the shutdown of the whole server, or shortens the one that runs.
    pub fn shutdown(&mut self, plan: ShutdownPlan) {
        self.hub.ask(ShutdownRequest::Shutdown(plan));
    }

    /// Takes a running shutdown to its next phase.
    pub fn escalate(&mut self) {
        self.hub.ask(ShutdownRequest::Escalate(Escalation::Escalate));
    }

    /// Takes a running shutdown to its hard sweep.
    pub fn abort(&mut self) {
        self.hub.ask(ShutdownRequest::Abort(Escalation::Abort));
    }

    /// False once a shutdown has begun: what a health check should say.
    pub fn is_ready(&self) -> bool {
        self.hub.is_ready()
    }

    /// Where the shutdown is.
    pub fn phase(&self) -> ShutdownPhase {
        self.hub.phase()
    }

    /// The connection, until its [`Event::Close`](crate::Event::Close) is delivered: one that this callback has terminated, too.
    pub fn get(&self, id: ConnectionId) -> Option<Client<'_, D>> {
        let slot = self.hub.find(id)?;
        Client::new(id, slot, self.hub.now)
    }

    /// The application's data of a connection.
    pub fn get_mut(&mut self, id: ConnectionId) -> Option<&mut D> {
        self.hub.find(id)?;
        self.hub.slots.get_mut(id.slot())?.data.as_mut()
    }

    /// All established connections. O(connections).
    pub fn iter(&self) -> impl Iterator<Item = Client<'_, D>> {
        let next = |slot: &usize| self.hub.next_slot(slot + 1);
        std::iter::successors(self.hub.next_slot(0), next).filter_map(|slot| self.hub.client_at(slot))
    }

    /// How many connections are established: open and closing. O(1).
    pub fn len(&self) -> usize {
        self.hub.stats.open + self.hub.stats.closing
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many connections there are, by state. O(1).
    pub fn stats(&self) -> Stats {
        self.hub.stats()
    }

    /// All that the loop has counted, and how much of its limits is used. O(1), copies some 2 KiB.
    pub fn loop_stats(&self) -> LoopStats {
        self.hub.loop_stats()
    }
}

/// Keeps the frames of a broadcast in the output buffer, also while no connection has a range of it. Releases them when it is
/// dropped, also if a predicate panics.
struct OutputLock<'h, D>(&'h mut Hub<D>);

impl<'h, D> OutputLock<'h, D> {
    fn new(hub: &'h mut Hub<D>) -> Self {
        hub.common.output.lock();
        Self(hub)
    }
}

impl<D> Drop for OutputLock<'_, D> {
    fn drop(&mut self) {
        self.0.common.output.unlock();
    }
}
