//! What was reached, by name. Nothing is noted before [`watch`], so that fuzzing pays for a look at a flag.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
};

use adjourn::{Event, close::Cause, error::HandshakeError};

thread_local! {
    static WATCHING: Cell<bool> = const { Cell::new(false) };
    static SEEN: RefCell<BTreeMap<String, u64>> = const { RefCell::new(BTreeMap::new()) };
}

/// Begins to take notes on this thread.
pub fn watch() {
    WATCHING.set(true);
}

/// How often each name was noted on this thread.
pub fn counts() -> BTreeMap<String, u64> {
    SEEN.with_borrow(Clone::clone)
}

/// `what` is a value of an enum: its fields are left out of the name.
pub fn note(kind: &str, what: impl FnOnce() -> String) {
    if WATCHING.get() {
        let what = what();
        let name = what.split_once([' ', '{', '(']).map_or(&what[..], |(name, _)| name);
        SEEN.with_borrow_mut(|seen| *seen.entry(format!("{kind}::{name}")).or_default() += 1);
    }
}

/// How a connection or a handshake ended.
pub fn event(event: &Event<'_>) {
    match event {
        Event::Close { report: closed, .. } => {
            note("Cause", || closed.cause.name().to_owned());
            if let Cause::Protocol(error) = closed.cause {
                note("ProtocolError", || format!("{error:?}"));
            }
        }
        Event::HandshakeFailed { error: HandshakeError::BadResponse(fault), .. } => {
            note("ResponseFault", || format!("{fault:?}"));
        }
        Event::HandshakeFailed { error: cause, .. } => note("HandshakeError", || format!("{cause:?}")),
        _ => {}
    }
}
