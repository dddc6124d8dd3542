//! Calling the application: events, commands and handed-over streams, each measured, and the timers that a callback starts.

use std::time::Duration;

use super::{clients::Clients, driver::Driver, handler::Handler, table::Hub, transport::Transport};
use crate::{event::Event, id::ConnectionId, stats::SlowCallback};

/// A callback that takes less is not reported.
const NOTEWORTHY: Duration = Duration::from_millis(10);

impl<D, T: Transport> Driver<D, T> {
    /// The application acts, as in a callback: by a command of another thread, for example.
    pub fn act<H: Handler<Data = D>, R>(
        &mut self,
        handler: &mut H,
        act: impl FnOnce(&mut Clients<'_, D>, &mut H) -> R,
    ) -> R {
        self.before_callback();
        let result = act(&mut Clients::new(&mut self.hub), handler);
        self.after_callback("Command");
        self.deliver(handler);
        result
    }

    /// The application is about to run. What happened before is not its doing, and timers that were started before do not
    /// wait for it.
    pub(super) fn before_callback(&mut self) {
        self.lap(unseen);
        self.start_timers();
    }

    /// The application has run, for something that is no event.
    pub(super) fn after_callback(&mut self, what: &'static str) {
        self.lap(|_| (None, what));
    }

    /// See [`start_timers`].
    pub(super) fn start_timers(&mut self) {
        start_timers(&mut self.hub, &mut self.transport);
    }

    /// A callback has returned. Says whether the coarse clock has moved; asks `what` it was if it took long: the connection that it was
    /// about, and what was delivered.
    #[inline]
    pub(super) fn lap(&mut self, what: impl FnOnce(&Hub<D>) -> (Option<ConnectionId>, &'static str)) -> bool {
        let Some(took) = self.transport.lap() else { return false };
        let now = self.transport.now();
        self.hub.callback_returned(now);
        if took >= NOTEWORTHY {
            let (id, event) = what(&self.hub);
            self.hub.note_callback(SlowCallback { took, event, id });
        }
        true
    }

    /// Delivers what waits, each callback measured, as far as the turn's budget goes.
    #[inline]
    pub(super) fn deliver<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        if self.hub.has_events() {
            self.deliver_waiting(handler);
        }
    }

    #[inline(never)]
    fn deliver_waiting<H: Handler<Data = D>>(&mut self, handler: &mut H) {
        self.lap(unseen);
        while !self.hub.is_out_of_callbacks()
            && let Some(event) = self.hub.poll_event()
        {
            let what = (event.id(), event.name());
            call(&mut self.hub, &mut self.transport, event, handler);
            self.lap(|_| what);
        }
    }

    /// Takes a connection out of the loop and gives it to the application.
    pub(super) fn detach(&mut self, slot: usize) {
        let stream = self.transport.detach(slot);
        let handover = self.hub.free_detached(slot);
        if let (Some(stream), Some(handover)) = (stream, handover) {
            self.before_callback();
            self.hub.note_callback_begins();
            handover.give(stream);
            self.after_callback("Detach");
        }
    }
}

/// No callback: what came before one.
const fn unseen<D>(_: &Hub<D>) -> (Option<ConnectionId>, &'static str) {
    (None, "Turn")
}

/// Timers that were started since the clock was read last start now (specification, 3.3).
#[inline]
pub(super) fn start_timers<D, T: Transport>(hub: &mut Hub<D>, transport: &mut T) {
    if hub.has_unarmed() {
        hub.callback_returned(transport.now());
    }
}

/// Hands one event to the application.
#[inline]
pub(super) fn call<D, T: Transport, H: Handler<Data = D>>(
    hub: &mut Hub<D>,
    transport: &mut T,
    event: Event<'_>,
    handler: &mut H,
) {
    start_timers(hub, transport);
    hub.note_callback_begins();
    handler.on_event(&mut Clients::new(hub), event);
}
