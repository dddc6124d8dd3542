//! SIGTERM and SIGINT as a shutdown plan.
//!
//! The signal handler counts them, not the loop: a callback that hangs must not keep the third signal from ending the
//! process, and signals that come while it hangs must not become one. It is a handler and not a thread that waits for
//! them, because a process of one thread has cheaper system calls: its descriptors need no counting, and glibc's `send` and
//! `recv` no guard against cancellation. That is 1 to 2 % of a small echo.

use std::{
    ffi::c_int,
    io,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering},
    },
    time::Duration,
};

use signal_hook::{
    SigId,
    consts::{SIGINT, SIGTERM},
    low_level::{emulate_default_handler, register, unregister},
};

use super::mailbox::Shared;
use crate::{
    hub::ShutdownRequest,
    shutdown::{Escalation, ShutdownPlan},
};

const SIGNALS: [c_int; 2] = [SIGTERM, SIGINT];

/// How many [`Signals`] there are. Without any, the signals do again what they do by default.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

/// The handlers of one server. Dropping this removes them.
#[derive(Debug)]
pub(super) struct Signals {
    ids: Vec<SigId>,
}

/// What the handlers have seen, and whom they wake.
#[derive(Debug)]
struct Tally {
    first: AtomicI32,
    count: AtomicU32,
    loops: Vec<Arc<Shared>>,
}

/// One loop's view of the signals.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    tally: Arc<Tally>,
    plan: ShutdownPlan,
    seen: u32,
}

impl Signals {
    /// Wakes `loops` for each signal. Each of them gets a watcher, in their order, to ask what the signals want.
    pub(super) fn install(plan: ShutdownPlan, loops: Vec<Arc<Shared>>) -> io::Result<(Self, Vec<Watcher>)> {
        restore_defaults_behind_the_last()?;
        let tally = Arc::new(Tally { first: AtomicI32::new(0), count: AtomicU32::new(0), loops });
        INSTALLED.fetch_add(1, Ordering::AcqRel);
        let mut signals = Self { ids: Vec::new() };
        for signal in SIGNALS {
            let tally = Arc::clone(&tally);
            signals.ids.push(on_signal(signal, move || tally.note(signal))?);
        }
        let count = tally.loops.len();
        Ok((signals, vec![Watcher { tally, plan, seen: 0 }; count]))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        for id in self.ids.drain(..) {
            unregister(id);
        }
        INSTALLED.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Tally {
    /// Runs in a signal handler: atomic operations and system calls only.
    fn note(&self, signal: c_int) {
        let _ = self.first.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire);
        if self.count.fetch_add(1, Ordering::AcqRel) < 2 {
            for woken in &self.loops {
                // If that fails, the next signal tries again, and the third needs no loop.
                let _ = woken.wake();
            }
        } else {
            // Whoever sends a third has seen that not even the hard sweep helps. It fails for unknown signals only.
            let _ = emulate_default_handler(signal);
        }
    }
}

impl Watcher {
    /// What a signal asks for that was not asked for yet.
    pub(super) fn poll(&mut self) -> Option<ShutdownRequest> {
        if self.seen >= self.tally.count.load(Ordering::Acquire).min(2) {
            return None;
        }
        self.seen += 1;
        Some(match (self.seen, self.tally.first.load(Ordering::Acquire)) {
            (1, SIGINT) => {
                ShutdownRequest::Shutdown(ShutdownPlan { lame_duck: Duration::ZERO, ..self.plan.clone() })
            }
            (1, _) => ShutdownRequest::Shutdown(self.plan.clone()),
            _ => ShutdownRequest::Abort(Escalation::Signal),
        })
    }
}

/// A handler that was installed once cannot be taken back, so one that knows the default stays behind.
fn restore_defaults_behind_the_last() -> io::Result<()> {
    static DONE: OnceLock<()> = OnceLock::new();
    if DONE.get().is_none() {
        for signal in SIGNALS {
            on_signal(signal, move || {
                if INSTALLED.load(Ordering::Acquire) == 0 {
                    let _ = emulate_default_handler(signal);
                }
            })?;
        }
        DONE.get_or_init(|| ());
    }
    Ok(())
}

#[allow(unsafe_code)]
fn on_signal(signal: c_int, act: impl Fn() + Send + Sync + 'static) -> io::Result<SigId> {
    // SAFETY: `act` must do nothing that a signal handler may not do (signal-safety(7)). Both actions above use atomics,
    // write(2) and read(2) on an eventfd or pipe, which is how mio wakes, and signal_hook's `emulate_default_handler`,
    // which is made for handlers. Neither allocates, locks or panics; signal_hook keeps `errno`.
    unsafe { register(signal, act) }
}
