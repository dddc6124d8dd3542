//! A server against a parser that was written from the RFC alone: the same messages, the same verdict, the same code; in
//! one piece and in many.

use adjourn::{
    Clients, CloseReport, Config, Event, Handler,
    close::Initiator,
    http::{Upgrade, UpgradeRequest},
    testing::{REQUEST, Session},
};

use super::{
    input::{Input, pieces},
    peer,
    reference::{self, End, Heard, Limits},
    seen,
};

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.u8();
    let cuts = input.cuts();
    let limits = Limits { payload: 3000, fragments: 20 };
    let bytes = if how & 1 == 0 { input.rest().to_vec() } else { peer::stream(&mut input) };
    let (heard, end) = reference::read(&bytes, &limits);
    for cuts in [&[][..], &cuts] {
        let listener = listen(&bytes, cuts, &limits);
        assert_eq!(listener.heard, heard, "in pieces of {cuts:?}");
        let closed = listener.closed.expect("it has ended");
        let failed = closed.sent.as_ref().and_then(adjourn::CloseFrame::code);
        match (closed.initiator, end) {
            (Initiator::Remote, End::Close) => {
                assert_eq!(failed, closed.received.and_then(|frame| frame.code()));
            }
            (Initiator::Transport, End::Bytes { .. }) => assert_eq!(closed.sent, None),
            (Initiator::Local, End::Failed(code)) => assert_eq!(failed, Some(code), "{:?}", closed.cause),
            // Nobody has to wait for the rest of a header that is wrong already.
            (Initiator::Local, End::Bytes { in_header: true }) => {
                for byte in [0x00, 0x7F, 0x80, 0xFF] {
                    let (_, end) = reference::read(&[&bytes[..], &[byte; 14]].concat(), &limits);
                    assert_eq!(end, End::Failed(1002), "{:?}, whatever follows", closed.cause);
                }
                assert_eq!(failed, Some(1002));
            }
            (initiator, end) => panic!("{initiator:?}, {:?}, but the reference says {end:?}", closed.cause),
        }
    }
}

/// What a server without compression tells its application of these bytes behind the upgrade request.
pub fn listen(bytes: &[u8], cuts: &[u16], limits: &Limits) -> Listener {
    let mut config = Config::default();
    config.connection.max_payload = usize::try_from(limits.payload).expect("small");
    config.connection.max_fragments = limits.fragments;
    let mut session = Session::new(config, Listener::default());
    session.read(REQUEST);
    for piece in pieces(bytes, cuts) {
        session.read(piece);
    }
    session.end();
    std::mem::take(session.handler())
}

#[derive(Default)]
pub struct Listener {
    pub heard: Vec<Heard>,
    pub closed: Option<CloseReport>,
}

impl Handler for Listener {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        seen::event(&event);
        match event {
            Event::Message { message, .. } => self.heard.push(match message.as_text() {
                Some(text) => Heard::Text(text.to_owned()),
                None => Heard::Binary(message.as_bytes().to_vec()),
            }),
            Event::Ping { payload, .. } => self.heard.push(Heard::Ping(payload.to_vec())),
            Event::Pong { payload, .. } => self.heard.push(Heard::Pong(payload.to_vec())),
            Event::Closing { initiator: Initiator::Remote, frame, .. } => {
                let close = frame.code().map(|code| (code, frame.reason().to_owned()));
                self.heard.push(Heard::Close(close));
            }
            Event::Close { report: closed, .. } => self.closed = Some(*closed),
            _ => {}
        }
    }
}
