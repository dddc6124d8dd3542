//! [`SocketIoHandle`]: the layer from other threads.

use std::sync::mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use adjourn::Handle;
use adjourn::error::HandleError;
use adjourn::shutdown::ShutdownPlan;
use adjourn::stats::LoopStats;

use super::conn::Conn;
use crate::core::{Inbox, InboxError, Io};
use crate::stats::SocketIoStats;

/// How long [`SocketIoHandle::stats`] waits.
const STATS_TIMEOUT: Duration = Duration::from_secs(1);

/// Speaks to the layer from other threads. Clones speak to the same.
#[derive(Clone)]
pub struct SocketIoHandle {
    inbox: Inbox,
    server: Handle<Conn>,
    plan: PlanCell,
}

/// The plan of a drain, which the loop looks at when it begins.
pub(super) type PlanCell = Arc<Mutex<Option<ShutdownPlan>>>;

impl SocketIoHandle {
    pub(super) const fn new(inbox: Inbox, server: Handle<Conn>, plan: PlanCell) -> Self {
        Self { inbox, server, plan }
    }

    /// Has `call` made on the loop's thread, in the order of pushing. Does not wait.
    ///
    /// # Errors
    /// If `counts.inbox` calls wait already, or the server has ended.
    pub fn defer(&self, call: impl FnOnce(&mut Io<'_>) + Send + 'static) -> Result<(), InboxError> {
        self.inbox.push(call)
    }

    /// The counters now; `None` if the loop does not answer within a second. Waits for the loop: on its own thread, ask
    /// [`Io::stats`].
    pub fn stats(&self) -> Option<SocketIoStats> {
        let (sender, stats) = mpsc::sync_channel(1);
        self.defer(move |io| drop(sender.send(io.stats()))).ok()?;
        stats.recv_timeout(STATS_TIMEOUT).ok()
    }

    /// What the loop below counts, as [`Handle::loop_stats`] has it. Does not wait.
    pub fn loop_stats(&self) -> LoopStats {
        self.server.loop_stats()
    }

    /// False once a shutdown has begun.
    pub fn ready(&self) -> bool {
        self.server.ready()
    }

    /// Begins the shutdown by `plan`, or shortens the one that runs.
    ///
    /// # Errors
    /// If the server has stopped.
    pub fn drain(&self, plan: ShutdownPlan) -> Result<(), HandleError> {
        *self.plan.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan.clone());
        self.server.shutdown(plan)
    }
}
