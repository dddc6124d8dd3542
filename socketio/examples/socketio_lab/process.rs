//! What the process uses, and what it counts for all connections.

use std::sync::atomic::AtomicU64;

use rustix::time::{ClockId, clock_gettime};

/// Events whose arguments had wrong types.
pub(crate) static WRONG_ARGUMENTS: AtomicU64 = AtomicU64::new(0);

/// User and system time in microseconds.
pub(crate) fn cpu_us() -> i64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    time.tv_sec * 1_000_000 + time.tv_nsec / 1000
}

/// Resident bytes; 0 where the system does not say.
pub(crate) fn rss() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    pages.unwrap_or(0) * rustix::param::page_size() as u64
}

/// Open descriptors; 0 where the system does not say.
pub(crate) fn fds() -> u64 {
    // Reading the directory has one open.
    std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count().saturating_sub(1) as u64)
}
