//! An application that writes down what it hears.

use adjourn::{
    Clients, Event, Handler,
    http::{Upgrade, UpgradeRequest},
    testing::describe,
};

use super::seen;

/// Writes every event down, and echoes messages if it is told to.
#[derive(Default)]
pub struct Scribe {
    pub echoes: bool,
    pub events: Vec<String>,
}

impl Scribe {
    pub fn echoing() -> Self {
        Self { echoes: true, events: Vec::new() }
    }
}

/// An event in words. No `Drain`: when the kernel is offered what is queued is a matter of the cuts.
pub fn heard(event: &Event<'_>) -> Option<String> {
    seen::event(event);
    (!matches!(event, Event::Drain { .. })).then(|| describe(event))
}

impl Handler for Scribe {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        self.events.push(format!("upgrade {} {:?}", request.path(), request.query()));
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        self.events.extend(heard(&event));
        if let Event::Message { id, message, .. } = event
            && self.echoes
        {
            let _ = clients.send(id, message);
        }
    }
}
