//! An application that writes down what it hears.

use adjourn::{Clients, Event, Handler, Upgrade, UpgradeRequest, testing::describe};

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

impl Handler for Scribe {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        self.events.push(format!("upgrade {} {:?}", request.path(), request.query()));
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        seen::event(&event);
        self.events.push(describe(&event));
        if let Event::Message { id, message, .. } = event
            && self.echoes
        {
            let _ = clients.send(id, message);
        }
    }
}
