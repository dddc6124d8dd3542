//! SIGTERM and SIGINT as a shutdown plan.
//!
//! The signal handler counts them, not the loop: a callback that hangs must not keep the third signal from ending the
//! process, and signals that come while it hangs must not become one. It is a handler and not a thread that waits for
//! them, because a process of one thread has cheaper system calls: its descriptors need no counting, and glibc's `send` and
//! `recv` no guard against cancellation. That is 1 to 2 % of a small echo.

use std::{
    ffi::c_int,
    fs, io,
    sync::{
        Arc, Mutex, PoisonError,
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

/// How many [`Signals`] there are. Without any, the signals do again what they did before the first.
static INSTALLED: AtomicUsize = AtomicUsize::new(0);

/// The handlers of one server. Dropping this removes them.
#[derive(Debug)]
pub(super) struct Signals {
    ids: Vec<SigId>,
}

/// The signals that came, and the loops that they wake.
#[derive(Debug)]
struct Received {
    first: AtomicI32,
    count: AtomicU32,
    loops: Vec<Arc<Shared>>,
}

/// One loop's view of the signals.
#[derive(Clone, Debug)]
pub(super) struct Watcher {
    received: Arc<Received>,
    plan: ShutdownPlan,
    seen: u32,
}

impl Signals {
    /// Wakes `loops` for each signal. Each of them gets a watcher, in their order, to ask what the signals want.
    pub(super) fn install(plan: ShutdownPlan, loops: Vec<Arc<Shared>>) -> io::Result<(Self, Vec<Watcher>)> {
        restore_defaults_after_the_last()?;
        let received = Arc::new(Received { first: AtomicI32::new(0), count: AtomicU32::new(0), loops });
        INSTALLED.fetch_add(1, Ordering::AcqRel);
        let mut signals = Self { ids: Vec::new() };
        for signal in SIGNALS {
            let received = Arc::clone(&received);
            signals.ids.push(on_signal(signal, move || received.note(signal))?);
        }
        let count = received.loops.len();
        Ok((signals, vec![Watcher { received, plan, seen: 0 }; count]))
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

impl Received {
    /// Runs in a signal handler: atomic operations and system calls only.
    fn note(&self, signal: c_int) {
        let _ = self.first.compare_exchange(0, signal, Ordering::AcqRel, Ordering::Acquire);
        if self.count.fetch_add(1, Ordering::AcqRel) < 2 {
            for woken in &self.loops {
                // If that fails, the next signal tries again, and the third needs no loop.
                let _ = woken.wake();
            }
        } else {
            // Not even the hard sweep has helped. This fails for unknown signals only.
            let _ = emulate_default_handler(signal);
        }
    }
}

impl Watcher {
    /// The next request that the signals make, if there is one.
    pub(super) fn poll(&mut self) -> Option<ShutdownRequest> {
        if self.seen >= self.received.count.load(Ordering::Acquire).min(2) {
            return None;
        }
        self.seen += 1;
        Some(match (self.seen, self.received.first.load(Ordering::Acquire)) {
            (1, SIGINT) => {
                ShutdownRequest::Shutdown(ShutdownPlan { lame_duck: Duration::ZERO, ..self.plan.clone() })
            }
            (1, _) => ShutdownRequest::Shutdown(self.plan.clone()),
            _ => ShutdownRequest::Abort(Escalation::Signal),
        })
    }
}

/// `signal_hook` never gives a signal back, so without this a process would ignore it after its last server. It concerns
/// signals with their default disposition: an earlier handler is called by `signal_hook`, and an ignored signal stays ignored.
fn restore_defaults_after_the_last() -> io::Result<()> {
    static DONE: Mutex<bool> = Mutex::new(false);
    let mut done = DONE.lock().unwrap_or_else(PoisonError::into_inner);
    if !*done {
        let defaults = SIGNALS.map(has_default);
        for (signal, _) in SIGNALS.into_iter().zip(defaults).filter(|(_, has_default)| *has_default) {
            on_signal(signal, move || {
                if INSTALLED.load(Ordering::Acquire) == 0 {
                    let _ = emulate_default_handler(signal);
                }
            })?;
        }
        *done = true;
    }
    Ok(())
}

/// Whether a signal is neither ignored nor handled by this process. Where there is no `/proc`, this is what is assumed.
fn has_default(signal: c_int) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    !["SigIgn:", "SigCgt:"].iter().any(|set| is_in_set(signal, set, &status))
}

/// Whether a signal is in a set as `/proc` shows it: a hexadecimal number whose lowest bit is signal 1.
fn is_in_set(signal: c_int, set: &str, status: &str) -> bool {
    let bits = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix(set)?.trim(), 16).ok());
    bits.zip(u32::try_from(signal - 1).ok()).is_some_and(|(bits, at)| bits.unbounded_shr(at) & 1 == 1)
}

#[allow(unsafe_code)]
fn on_signal(signal: c_int, act: impl Fn() + Send + Sync + 'static) -> io::Result<SigId> {
    // SAFETY: `act` must do nothing that a signal handler may not do (signal-safety(7)). Both actions above use atomics,
    // write(2) and read(2) on an eventfd or pipe, which is how mio wakes, and signal_hook's `emulate_default_handler`,
    // which is made for handlers. Neither allocates, locks or panics; signal_hook keeps `errno`.
    unsafe { register(signal, act) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_of_signals_are_read_as_the_kernel_writes_them() {
        let status =
            "Name:\tx\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001002\nSigCgt:\t0000000180004000\n";
        assert!(is_in_set(SIGINT, "SigIgn:", status) && !is_in_set(SIGTERM, "SigIgn:", status));
        assert!(is_in_set(SIGTERM, "SigCgt:", status) && !is_in_set(SIGINT, "SigCgt:", status));
        for status in ["", "SigIgn:", "SigIgn:\tnonsense\n"] {
            assert!(!is_in_set(SIGINT, "SigIgn:", status), "{status}");
        }
    }
}
