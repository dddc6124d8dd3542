//! Shutdown (specification 19): what of it is the core's.

use std::time::Duration;

use super::Core;
use super::state::{ConnKey, ShutdownCounts, ShutdownPhase};
use crate::links::Links;
use crate::reason::Reason;

impl Core {
    /// Are new sessions taken?
    pub fn ready(&self) -> bool {
        self.state.shutdown == ShutdownPhase::Running
    }

    /// New sessions get 503 from now on; connections are untouched.
    pub fn lame_duck(&mut self) {
        self.state.shutdown = self.state.shutdown.max(ShutdownPhase::LameDuck);
    }

    /// Durable emits fail from now on. The driver closes the links, and polling sessions by [`Core::sweep_polling`].
    pub fn begin_sweep(&mut self) {
        if self.state.shutdown < ShutdownPhase::Sweeping {
            self.state.shutdown = ShutdownPhase::Sweeping;
            let counts = &mut self.state.shutdown_counts;
            counts.sockets = self.state.sockets.len() as u64;
            let on_polling = self.state.conns.iter().filter(|(_, conn)| conn.link.is_none());
            counts.polling = on_polling.count() as u64;
            counts.resumable =
                self.state.sessions.iter().filter(|(_, session)| !session.ended).count() as u64;
        }
    }

    /// Closes at most `max` polling sessions in order. Returns how many are left open.
    pub fn sweep_polling(&mut self, max: usize, now: Duration, links: &mut dyn Links) -> usize {
        let open: Vec<ConnKey> = self
            .state
            .conns
            .iter()
            .filter(|(_, conn)| conn.engine.is_open() && conn.engine.link().is_none())
            .map(|(key, _)| key)
            .collect();
        for key in open.iter().take(max) {
            self.io(now, links).close_conn(*key, Reason::ServerShuttingDown);
        }
        self.settle(now, links);
        open.len().saturating_sub(max)
    }

    /// Ends all connections that are left, with `server shutting down`.
    pub fn hard_sweep(&mut self, now: Duration, links: &mut dyn Links) {
        let left: Vec<ConnKey> = self.state.conns.iter().map(|(key, _)| key).collect();
        for key in left {
            self.with_io(now, links, |io| {
                io.end_conn(key, Reason::ServerShuttingDown, None);
                io.cut_conn(key);
            });
        }
        self.settle(now, links);
    }

    /// Saves what is unsaved now, not at its time.
    pub fn flush(&mut self, now: Duration, links: &mut dyn Links) {
        if let Some(at) = &mut self.state.queue.flush_at {
            *at = now;
        }
        self.settle(now, links);
    }

    /// Is everything in the store?
    pub fn is_flushed(&self) -> bool {
        let queue = &self.state.queue;
        queue.items.is_empty() && !queue.commits() && queue.in_flight.is_empty() && !queue.has_unsaved()
    }

    /// What the shutdown's report says.
    pub fn shutdown_counts(&self) -> ShutdownCounts {
        let unsaved =
            self.state.sessions.iter().filter(|(_, session)| session.socket.is_none() && !session.lost);
        let unflushed = self.state.spaces.iter().filter_map(|(_, space)| space.log.as_ref());
        ShutdownCounts {
            unsaved_sessions: unsaved.count() as u64 + self.state.stats.unsaved_sessions,
            unflushed_entries: unflushed.map(|log| log.uncommitted as u64).sum(),
            ..self.state.shutdown_counts
        }
    }
}
