//! Bytes, cuts, time steps and commands of the application as one input: nothing panics, spins or is left behind, and
//! every `Open` has its one `Close`.
#![no_main]

use std::time::Duration;

use adjourn::{
    Abort, Clients, CloseFrame, Config, ConnectionId, Event, Handler, Upgrade, UpgradeRequest,
    testing::{REQUEST, Session, frame},
};
use arbitrary::Arbitrary;
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
enum Act<'a> {
    Bytes(&'a [u8]),
    Frame(u8, &'a [u8]),
    Request,
    Wait(u16),
    Send(&'a [u8]),
    Close(u16),
    Kick(&'a [u8]),
    Terminate(u8),
    Pause,
    Resume,
    Ping(&'a [u8]),
    Answer,
    Eof,
    Reset,
}

#[derive(Default)]
struct Counter {
    id: Option<ConnectionId>,
    opened: u32,
    closed: u32,
    failed: u32,
}

impl Handler for Counter {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        assert_eq!(self.closed, 0, "nothing follows Close, but there is {event:?}");
        match event {
            Event::Open { id } => (self.id, self.opened) = (Some(id), self.opened + 1),
            Event::Message { id, message, .. } => {
                let _ = clients.send(id, message);
            }
            Event::Close { .. } => self.closed += 1,
            Event::HandshakeFailed { .. } => self.failed += 1,
            _ => {}
        }
    }
}

fuzz_target!(|acts: Vec<Act<'_>>| {
    let mut config = Config::default();
    config.max_payload = 4096;
    config.max_fragments = 64;
    config.max_backlog = 8192;
    let mut session = Session::new(config, Counter::default());
    for act in &acts {
        let id = session.handler().id;
        match (act, id) {
            (Act::Bytes(bytes), _) => session.read(bytes),
            (Act::Frame(first, payload), _) => session.read(&frame(*first, payload)),
            (Act::Request, _) => session.read(REQUEST),
            (Act::Wait(ms), _) => session.advance(Duration::from_millis(u64::from(*ms))),
            (Act::Eof, _) => session.read_eof(),
            (Act::Reset, _) => session.reset(),
            (_, None) => {}
            (act, Some(id)) => session.act(|clients, _| match act {
                Act::Send(bytes) => drop(clients.send(id, *bytes)),
                Act::Close(code) => drop(CloseFrame::new(*code, "").map(|frame| clients.close(id, frame))),
                Act::Kick(bytes) => drop(clients.kick(id, *bytes, CloseFrame::NORMAL, bytes.len() % 2 == 0)),
                Act::Terminate(style) => {
                    let style = [Abort::Reset, Abort::Fin, Abort::Auto][usize::from(style % 3)];
                    clients.terminate_with(id, style);
                }
                Act::Pause => drop(clients.pause(id)),
                Act::Resume => drop(clients.resume(id)),
                Act::Ping(bytes) => drop(clients.ping(id, bytes)),
                Act::Answer => drop(clients.answer_close(id, CloseFrame::EMPTY)),
                _ => {}
            }),
        }
    }
    session.end();
    let Counter { opened, closed, failed, .. } = *session.handler();
    assert!(opened <= 1 && closed == opened && failed <= 1 - opened, "{opened} opened, {closed} closed, {failed} failed");
});
