//! SIGTERM and SIGINT as a shutdown plan.
//!
//! A thread of its own counts them, not the loop: a callback that hangs must not keep the third signal from ending the
//! process, and signals that come while it hangs must not become one.

use std::{io, thread, time::Duration};

use signal_hook::{
    consts::{SIGINT, SIGTERM},
    iterator,
    low_level::emulate_default_handler,
};

use crate::{
    error::HandleError,
    hub::ShutdownRequest,
    shutdown::{Escalation, ShutdownPlan},
};

/// The thread that waits for signals. Dropping this ends it.
#[derive(Debug)]
pub(super) struct Signals {
    handle: iterator::Handle,
}

impl Signals {
    /// `ask` is called on the thread; an error of it means that there is no server any more.
    pub(super) fn install(
        plan: ShutdownPlan,
        ask: impl Fn(ShutdownRequest) -> Result<(), HandleError> + Send + 'static,
    ) -> io::Result<Self> {
        let mut source = iterator::Signals::new([SIGTERM, SIGINT])?;
        let handle = source.handle();
        thread::Builder::new().name("adjourn-signals".into()).spawn(move || {
            for (count, signal) in (1u32..).zip(source.forever()) {
                let asked = match (count, signal) {
                    (1, SIGINT) => ask(ShutdownRequest::Shutdown(ShutdownPlan {
                        lame_duck: Duration::ZERO,
                        ..plan.clone()
                    })),
                    (1, _) => ask(ShutdownRequest::Shutdown(plan.clone())),
                    (2, _) => ask(ShutdownRequest::Abort(Escalation::Signal)),
                    _ => Ok(()),
                };
                // Whoever sends a third has seen that not even the hard sweep helps; a server that has stopped and
                // whose process goes on is no reason to ignore signals either.
                if (count > 2 || asked.is_err()) && emulate_default_handler(signal).is_err() {
                    return;
                }
            }
        })?;
        Ok(Self { handle })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.handle.close();
    }
}
