//! What happens on one process goes to the pages of the others: while there are any, several events in one message, at most once.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::{Admin, STATS_INTERVAL, locked, report};
use crate::core::{Core, Io};

/// For how long a process gets events after it has announced that it has pages. It announces that every [`STATS_INTERVAL`].
const INTEREST: Duration = STATS_INTERVAL.saturating_mul(3);
/// How long events wait for others that go with them.
const GATHER: Duration = Duration::from_millis(50);
/// Bytes of one message. What is above is left out, and the pages are sent all sockets anew.
const MAX_BYTES: usize = 1 << 20;

/// What other processes are to be told.
#[derive(Default)]
pub(super) struct Others {
    /// They have pages, until then.
    until: Duration,
    /// Events, each an array with its name first.
    events: Vec<Value>,
    bytes: usize,
    /// Some were left out.
    left_out: bool,
    /// They are sent soon.
    waits: bool,
}

/// The handlers of what other processes say.
pub(super) fn install(core: &mut Core, admin: &Arc<Admin>) {
    let this = Arc::clone(admin);
    core.on_server_event(&admin.event("watched"), move |io, _| {
        locked(&this.others).until = io.now() + INTEREST;
        None
    });
    let this = Arc::clone(admin);
    core.on_server_event(&admin.event("events"), move |io, args| {
        let Ok((events, left_out)) = args.parse::<(Vec<Vec<Value>>, bool)>() else { return None };
        for event in &events {
            if let Some((Value::String(name), arguments)) = event.split_first() {
                this.send(io, name, arguments);
            }
        }
        locked(&this.page).is_stale |= left_out;
        None
    });
}

impl Admin {
    /// An event between processes.
    fn event(&self, name: &str) -> String {
        format!("admin {name} {}", self.config.namespace)
    }

    /// Tells the others that there are pages here.
    pub(super) fn ask_others(&self, io: &mut Io<'_>) {
        report("watched", io.server_side_emit(&self.event("watched"), ()));
    }

    /// Leaves an event for the others, if they have pages.
    pub(super) fn send_to_others(self: &Arc<Self>, io: &mut Io<'_>, event: &str, arguments: Vec<Value>) {
        let mut others = locked(&self.others);
        if io.now() >= others.until {
            return;
        }
        let event = Value::Array(std::iter::once(Value::from(event)).chain(arguments).collect());
        let bytes = event.to_string().len();
        if others.bytes + bytes > MAX_BYTES {
            others.left_out = true;
        } else {
            others.bytes += bytes;
            others.events.push(event);
        }
        if !std::mem::replace(&mut others.waits, true) {
            let this = Arc::clone(self);
            io.after(GATHER, move |io| this.flush(io));
        }
    }

    fn flush(&self, io: &mut Io<'_>) {
        let Others { until, events, left_out, .. } = std::mem::take(&mut *locked(&self.others));
        locked(&self.others).until = until;
        report("events", io.server_side_emit(&self.event("events"), (events, left_out)));
    }
}
