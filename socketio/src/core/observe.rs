//! What an observer of all namespaces sees, such as the admin namespace. While there is none, nothing of it is made.

use std::sync::Arc;

use super::state::{Io, Observation, Observed, SocketKey, State, Upcall};
use crate::packet::{Args, Event};

/// Observations that may wait for the observer; more are dropped and counted.
const MAX_PENDING: usize = 10_000;

pub(super) type Observer = Box<dyn FnMut(&mut Io<'_>, &Observed) + Send>;

impl State {
    /// Leaves an observation for the observer, if there is one.
    pub(super) fn notice(&mut self, key: SocketKey, what: impl FnOnce() -> Observation) {
        let Some(observing) = &mut self.observing else { return };
        let Some(socket) = self.sockets.get(key) else { return };
        let Some(space) = self.spaces.get(socket.space) else { return };
        if observing.pending >= MAX_PENDING {
            observing.dropped += 1;
            return;
        }
        observing.pending += 1;
        let observed =
            Observed { namespace: Arc::clone(&space.name), id: Arc::clone(&socket.id), what: what() };
        self.upcalls.push_back(Upcall::Observed(Box::new(observed)));
    }

    /// Are events of this socket to be copied for an observer?
    fn observes_events_of(&self, key: SocketKey) -> bool {
        let Some(observing) = &self.observing else { return false };
        let space = self.sockets.get(key).and_then(|socket| self.spaces.get(socket.space));
        space.is_some_and(|space| space.name != observing.except)
    }

    pub(super) fn notice_received(&mut self, key: SocketKey, name: &str, args: Args<'_>) {
        if self.observes_events_of(key) {
            self.notice(key, || Observation::Received(array(name, args)));
        }
    }

    /// The targets share one copy of the text.
    pub(super) fn notice_sent(&mut self, targets: &[SocketKey], event: &Event) {
        let Some(first) = targets.first() else { return };
        if !self.observes_events_of(*first) {
            return;
        }
        let text: Arc<str> = Arc::from(event.array());
        for key in targets {
            self.notice(*key, || Observation::Sent(Arc::clone(&text)));
        }
    }

    /// The observer gets the oldest observation now.
    pub(super) fn observed_one(&mut self) {
        if let Some(observing) = &mut self.observing {
            observing.pending -= 1;
        }
    }
}

impl Io<'_> {
    /// How many observations were dropped since the last call of this, because more than 10,000 waited for the observer.
    pub fn take_dropped_observations(&mut self) -> u64 {
        self.state.observing.as_mut().map_or(0, |observing| std::mem::take(&mut observing.dropped))
    }
}

fn array(name: &str, args: Args<'_>) -> Arc<str> {
    let mut json = serde_json::Value::from(name).to_string();
    json.insert(0, '[');
    for arg in (0..args.len()).filter_map(|index| args.raw(index)) {
        json.push(',');
        json.push_str(arg);
    }
    json.push(']');
    Arc::from(json)
}
