//! The scripts, each behind the common part.

use redis::Script;

macro_rules! script {
    ($name:literal) => {
        Script::new(concat!(include_str!("prelude.lua"), include_str!($name)))
    };
}

/// All scripts of the store.
pub(super) struct Scripts {
    pub(super) asks: Script,
    pub(super) begin: Script,
    pub(super) commit: Script,
    pub(super) drop: Script,
    pub(super) expire: Script,
    pub(super) forward: Script,
    pub(super) forwarded: Script,
    pub(super) look: Script,
    pub(super) once_begin: Script,
    pub(super) page: Script,
    pub(super) release: Script,
    pub(super) take: Script,
    pub(super) transact: Script,
    pub(super) trim: Script,
}

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            asks: script!("asks.lua"),
            begin: script!("begin.lua"),
            commit: script!("commit.lua"),
            drop: script!("drop.lua"),
            expire: script!("expire.lua"),
            forward: script!("forward.lua"),
            forwarded: script!("forwarded.lua"),
            look: script!("look.lua"),
            once_begin: script!("once_begin.lua"),
            page: script!("page.lua"),
            release: script!("release.lua"),
            take: script!("take.lua"),
            transact: script!("transact.lua"),
            trim: script!("trim.lua"),
        }
    }
}
