//! Any bytes as a server's answer to a client: the same verdict and the same events however they are cut, and a
//! connection only where another reading of §4.1 allows one.

use std::time::Duration;

use adjourn::{
    CloseFrame, Config, ConnectionId, ShutdownPlan, http::ConnectRequest, hub::Readiness, testing::Session,
};
use tungstenite::handshake::derive_accept_key;

use super::{
    head::{PlainHead, trim},
    input::{Input, pieces},
    peer,
    scribe::Scribe,
    seen,
};

const SUBPROTOCOLS: [&str; 2] = ["chat", "superchat"];

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.u8();
    let cuts = input.cuts();
    let mut config = Config::default();
    (config.connection.max_payload, config.handshake.max_head, config.handshake.max_headers) =
        (4096, 2048, 20);
    config.deflate = (how & 1 == 1).then(|| peer::settings(&mut input));
    let offers = if how & 2 == 2 { &SUBPROTOCOLS[..] } else { &[] };
    // Fuzzers are bad at SHA-1: a # stands for the key that our request asks for.
    let mut dialled = Dialled::new(config.clone(), offers);
    let key = dialled.key();
    let accept = derive_accept_key(key.as_bytes());
    let mut answer = Vec::new();
    for byte in input.rest() {
        match byte {
            b'#' => answer.extend_from_slice(accept.as_bytes()),
            byte => answer.push(*byte),
        }
    }

    dialled.act(how >> 4);
    let (events, written) = dialled.run(&answer, &[]);
    let mut again = Dialled::new(config.clone(), offers);
    again.act(how >> 4);
    let (events_again, written_again) = again.run(&answer, &cuts);
    assert_eq!(events, events_again, "events, in pieces of {cuts:?}");
    assert_eq!(written, written_again, "what is written, in pieces of {cuts:?}");

    let opened = events.first().is_some_and(|event| event.starts_with("Open"));
    let ends =
        events.iter().filter(|event| event.starts_with("Close ") || event.starts_with("HandshakeFailed"));
    assert_eq!(ends.count(), 1, "one end: {events:?}");
    assert!(!opened || permits(&answer, &accept, offers, config.deflate.is_some()), "{events:?}");
}

/// Whether §4.1 lets a client go on with this answer.
fn permits(answer: &[u8], accept: &str, offers: &[&str], deflate: bool) -> bool {
    let Some(head) = PlainHead::read(answer) else { return false };
    let upgrade = head.value("upgrade").is_some_and(|value| value.eq_ignore_ascii_case(b"websocket"));
    let protocols = head.values("sec-websocket-protocol");
    let offered = |value: &&[u8]| offers.iter().any(|offer| offer.as_bytes() == *value);
    let extensions = head.values("sec-websocket-extensions");
    (head.first == b"HTTP/1.1 101" || head.first.starts_with(b"HTTP/1.1 101 "))
        && upgrade
        && head.lists("connection", "upgrade")
        && head.value("sec-websocket-accept") == Some(accept.as_bytes())
        && (protocols.is_empty() || (protocols.len() == 1 && protocols.iter().all(offered)))
        && (extensions.is_empty() || (deflate && permits_extension(&head.list("sec-websocket-extensions"))))
}

/// RFC 7692 §7.1: one extension, no parameter twice, none that is unknown.
fn permits_extension(extensions: &[&[u8]]) -> bool {
    const PARAMETERS: [&[u8]; 4] = [
        b"server_no_context_takeover",
        b"client_no_context_takeover",
        b"server_max_window_bits",
        b"client_max_window_bits",
    ];
    let [extension] = extensions else { return false };
    let mut parts = extension.split(|byte| *byte == b';').map(trim);
    let mut seen: Vec<&[u8]> = Vec::new();
    parts.next() == Some(b"permessage-deflate")
        && parts.all(|part| {
            let mut sides = part.splitn(2, |byte| *byte == b'=').map(trim);
            let name = sides.next().unwrap_or_default();
            let fresh = PARAMETERS.contains(&name) && !seen.contains(&name);
            seen.push(name);
            fresh && sides.next().is_some() == name.ends_with(b"bits")
        })
}

/// One connection of ours, with the network played by hand.
struct Dialled {
    session: Session<Scribe>,
    id: ConnectionId,
}

impl Dialled {
    fn new(config: Config, offers: &[&str]) -> Self {
        let mut request = ConnectRequest::new("ws://127.0.0.1:9001/chat").expect("a URL");
        for offer in offers {
            request = request.subprotocol(offer).expect("a token");
        }
        let (mut session, id) = Session::connect(config, request, (), Scribe::echoing());
        session.socket().connected = Some(true);
        session.ready(Readiness { writable: true, ..Readiness::default() });
        Self { session, id }
    }

    /// The key of the request that was written.
    fn key(&mut self) -> String {
        let request = PlainHead::read(&self.session.socket().written).expect("a request");
        String::from_utf8(request.value("sec-websocket-key").expect("a key").to_vec()).expect("ASCII")
    }

    /// What the application may do before the answer is here.
    fn act(&mut self, what: u8) {
        let id = self.id;
        self.session.act(|clients, _| match what & 7 {
            1 => {
                let error = clients.send(id, "too early").expect_err("it is not open");
                seen::note("SendError", || format!("{error:?}"));
                clients.ping(id, &[0; 126]).expect_err("that, too");
            }
            2 => assert!(clients.close(id, CloseFrame::NORMAL)),
            3 => assert!(clients.kick_now(id, "bye", CloseFrame::NORMAL)),
            4 => assert!(clients.terminate(id)),
            5 => clients.shutdown(ShutdownPlan::hard()),
            _ => {}
        });
        match what & 7 {
            6 => self.session.advance(Duration::from_secs(5)),
            7 => self.session.advance(Duration::from_secs(15)),
            _ => {}
        }
    }

    /// The server says this in these pieces, then FIN. Returns the events and what was written.
    fn run(mut self, bytes: &[u8], cuts: &[u16]) -> (Vec<String>, Vec<u8>) {
        for piece in pieces(bytes, cuts).filter(|piece| !piece.is_empty()) {
            self.session.read(piece);
        }
        self.session.end();
        let written = self.session.take_written();
        (std::mem::take(&mut self.session.handler().events), written)
    }
}
