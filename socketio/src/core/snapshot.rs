//! The numbers of now (specification 20).

use super::state::State;
use crate::stats::SocketIoStats;

impl State {
    /// The counters, with what is counted when it is asked for.
    pub(super) fn stats(&self) -> SocketIoStats {
        let mut stats = self.stats.clone();
        stats.connections_polling = self.polling as u64;
        stats.connections_websocket = (self.conns.len() - self.polling) as u64;
        stats.requests_waiting = self.conns.iter().map(|(_, conn)| conn.engine.waiting()).sum();
        let held = self.sessions.iter().filter(|(_, session)| session.socket.is_some()).count() as u64;
        stats.sessions_connected = held;
        stats.sessions_unsaved = self.sessions.len() as u64 - held;
        stats.acks_pending = self.waits.len() as u64;
        stats.namespaces = self.spaces.len() as u64;
        stats.logs_unused = self.logs_found.len() as u64;
        stats.rooms = self.spaces.iter().map(|(_, space)| space.rooms.len() as u64).sum();
        stats.replays = self.sockets.iter().filter(|(_, socket)| socket.is_catching_up()).count() as u64;
        stats.store_queue = self.queue.bytes;
        let sockets =
            self.spaces.iter().map(|(_, space)| (space.name.to_string(), space.everyone.len() as u64));
        stats.sockets = sockets.collect();
        stats
    }
}
