//! [`Io`]: the layer as the application's code sees it, between two inputs.

use std::sync::Arc;
use std::time::Duration;

use super::broadcast::Broadcast;
use super::namespace::full_name;
use super::socket::Socket;
use super::state::{ConnKey, Io, SocketKey, SpaceKey, Timer};
use crate::engine::SlowConsumer;
use crate::links::{Frame, LinkId, SendRefused};
use crate::offset::Position;
use crate::reason::Reason;
use crate::stats::SocketIoStats;
use crate::store::Millis;

impl Io<'_> {
    pub(super) fn reborrow(&mut self) -> Io<'_> {
        Io { state: &mut *self.state, links: &mut *self.links, now: self.now }
    }

    /// All sockets of a namespace; one that does not exist has none. `chat` is `/chat`.
    pub fn of(&mut self, namespace: &str) -> Broadcast<'_> {
        let namespace = &*full_name(namespace);
        let space = self.space(namespace);
        Broadcast::new(self.reborrow(), space, Arc::from(namespace), None)
    }

    /// The socket with this id, if it is connected to this process.
    pub fn socket(&mut self, namespace: &str, id: &str) -> Option<Socket<'_>> {
        let space = self.space(&full_name(namespace))?;
        let key = *self.state.spaces.get(space)?.by_id.get(id)?;
        self.state.live(key)?;
        Some(Socket::new(self.reborrow(), key))
    }

    /// Calls `then` after `delay`, with 0 in the next turn of the loop. Allocates the box.
    pub fn after(&mut self, delay: Duration, then: impl FnOnce(&mut Io<'_>) + Send + 'static) {
        let key = self.state.timers.calls.insert(Box::new(then));
        // What is due now is done before others have their turn, and this may be one of a chain.
        let at = self.now.saturating_add(delay.max(Duration::from_nanos(1)));
        self.state.timers.set(at, Timer::Call(key));
    }

    /// The time since the start of the process's layer, monotonic.
    pub const fn now(&self) -> Duration {
        self.now
    }

    /// The time by the store's clock.
    pub fn store_time(&self) -> Millis {
        self.state.millis(self.now)
    }

    /// The counters now. Allocates.
    pub fn stats(&self) -> SocketIoStats {
        self.state.stats()
    }

    // ---- connections below

    /// Sends to one socket's connection; a client that is too slow is disconnected.
    pub(super) fn send(&mut self, key: SocketKey, frames: &[Frame]) {
        let Some(socket) = self.state.sockets.get(key) else { return };
        let conn = socket.conn;
        if let Some(link) = socket.link {
            self.state.stats.bytes_out += bytes_of(frames);
            if let Err(why) = self.links.send(link, frames) {
                self.link_refused(link, why);
            }
            return;
        }
        self.send_conn(conn, frames);
    }

    pub(super) fn send_conn(&mut self, key: ConnKey, frames: &[Frame]) {
        self.state.stats.bytes_out += bytes_of(frames);
        let Some((conn, mut cx)) = self.state.engine_of(key, self.now, self.links) else { return };
        if conn.engine.send(frames, &mut cx) == Err(SlowConsumer) {
            self.too_slow(key);
        }
    }

    /// A link did not take what was sent: the client is too slow, or the end of the link is about to be reported.
    pub(super) fn link_refused(&mut self, link: LinkId, why: SendRefused) {
        if why == SendRefused::Gone {
            return;
        }
        let Some(key) = self.state.by_link.get(&link).copied() else { return };
        let Some((conn, mut cx)) = self.state.engine_of(key, self.now, self.links) else { return };
        if conn.engine.close(Reason::SlowConsumer, &mut cx) {
            self.too_slow(key);
        }
    }

    fn too_slow(&mut self, key: ConnKey) {
        self.state.stats.slow_consumers += 1;
        let span = self.state.span_of(key).entered();
        tracing::info!(target: "adjourn_socketio", "slow_consumer");
        drop(span);
        // Long-polling has no Close code.
        let code = self.state.conns.get(key).and_then(|conn| conn.link).map(|_| 1013);
        self.end_conn(key, Reason::SlowConsumer, code);
    }

    /// Would a volatile event be sent to it now?
    pub(super) fn takes_volatile(&mut self, key: SocketKey) -> bool {
        let limit = self.state.config.output.volatile_limit;
        let Some(socket) = self.state.live(key).filter(|socket| !socket.is_catching_up()) else {
            return false;
        };
        if let Some(link) = socket.link {
            return self.links.unsent(link) <= limit;
        }
        let Some((conn, mut cx)) = self.state.engine_of(socket.conn, self.now, self.links) else {
            return false;
        };
        conn.engine.takes_volatile(limit, &mut cx)
    }

    /// Bytes that wait for the client of a socket.
    pub(super) fn unsent(&mut self, key: SocketKey) -> usize {
        let Some(socket) = self.state.sockets.get(key) else { return 0 };
        if let Some(link) = socket.link {
            return self.links.unsent(link);
        }
        let Some((conn, mut cx)) = self.state.engine_of(socket.conn, self.now, self.links) else { return 0 };
        conn.engine.unsent(&mut cx)
    }

    /// The namespace, if it is in use.
    pub(super) fn space(&self, namespace: &str) -> Option<SpaceKey> {
        self.state.space_names.get(namespace).copied()
    }

    /// Entries up to here have been dispatched.
    pub(super) fn dispatched(&mut self, space: SpaceKey) -> Position {
        self.log(space).map_or(Position::START, |log| log.dispatched)
    }
}

/// Bytes of the messages, for the counters.
pub(super) fn bytes_of(frames: &[Frame]) -> u64 {
    frames.iter().map(|frame| frame.len() as u64).sum()
}
