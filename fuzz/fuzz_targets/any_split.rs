//! One piece against many: the same bytes give the same events and the same answer, however they are cut.
#![no_main]

use adjourn::{
    Clients, Config, Event, Handler, Upgrade, UpgradeRequest,
    testing::{REQUEST, Session, describe},
};
use libfuzzer_sys::fuzz_target;

#[derive(Default)]
struct Scribe {
    events: Vec<String>,
}

impl Handler for Scribe {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        self.events.push(format!("upgrade {} {:?}", request.path(), request.query()));
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        self.events.push(describe(&event));
        if let Event::Message { id, message, .. } = event {
            let _ = clients.send(id, message);
        }
    }
}

fn run(upgraded: bool, bytes: &[u8], cuts: &[u16]) -> (Vec<String>, Vec<u8>) {
    let mut config = Config::default();
    config.max_payload = 4096;
    let mut session = Session::new(config, Scribe::default());
    if upgraded {
        session.read(REQUEST);
    }
    let mut rest = bytes;
    for cut in cuts {
        let (piece, after) = rest.split_at(usize::from(*cut).min(rest.len()));
        session.read(piece);
        rest = after;
    }
    session.read(rest);
    session.end();
    let written = session.take_written();
    (std::mem::take(&mut session.handler().events), written)
}

fuzz_target!(|input: (bool, Vec<u16>, &[u8])| {
    let (upgraded, cuts, bytes) = input;
    assert_eq!(run(upgraded, bytes, &[]), run(upgraded, bytes, &cuts));
});
