//! permessage-deflate (RFC 7692): any offers against any settings; what a client compresses arrives as it was and is
//! echoed so that the client's inflater gives it back; whatever is in a compressed message, it inflates to no more than
//! `max_payload`, and the same for every cut.

use adjourn::{
    Clients, Config, Event, Handler,
    http::{DeflateParameters, Upgrade, UpgradeRequest},
    testing::{Session, frame},
    wire::{
        deflate::codec::Inflater,
        header::{self, Opcode},
    },
};
use flate2::{Decompress, FlushDecompress};

use super::{
    input::{Input, pieces},
    peer::{self, Packer},
    scribe::heard,
};

const LIMIT: usize = 2000;

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let cuts = input.cuts();
    let mut config = Config::default();
    config.connection.max_payload = LIMIT;
    let settings = peer::settings(&mut input);
    config.deflate = Some(settings);
    let request = peer::request(&peer::offer(&mut input));
    let mut session = open(&config, &request);
    let Some(agreed) = session.handler().agreed else { return };
    check_agreement(&settings, agreed);

    // What is good goes to one connection, and all of it to two that must agree.
    let mut client = Client::new(agreed);
    let mut all = Vec::new();
    while !input.is_empty() {
        let how = input.u8();
        let text = how & 1 == 1;
        let payload = match how >> 1 & 3 {
            0 => input.piece().to_vec(),
            1 => vec![input.u8(); usize::from(input.u16())],
            _ => {
                // A compressed message of the fuzzer's own making.
                let (payload, fin) = (input.piece(), if how & 8 == 0 { 0x80 } else { 0 });
                check_codec(payload);
                all.extend(frame(fin | 0x40 | if text { 1 } else { 2 }, payload));
                if fin == 0 {
                    all.extend(frame(0x80, input.piece()));
                }
                // From here on the two sides' windows may differ.
                break;
            }
        };
        let packed = client.packer.pack(&payload);
        let opcode = if text { 0x41 } else { 0x42 };
        let message = match how >> 4 {
            0 => frame(0x80 | opcode, &packed),
            cut => {
                let (first, rest) = packed.split_at(packed.len() * usize::from(cut) / 16);
                [frame(opcode, first), frame(0x89, b""), frame(0x80, rest)].concat()
            }
        };
        session.read(&message);
        all.extend(message);
        if payload.len() > LIMIT || (text && str::from_utf8(&payload).is_err()) {
            let events = &session.handler().events;
            assert!(events.last().is_some_and(|event| event.starts_with("Close")), "{events:?}");
            break;
        }
        client.hear(&session.take_written());
        assert_eq!(client.heard.pop().as_deref(), Some(&payload[..]), "the echo, {agreed:?}");
    }
    while !input.is_empty() {
        peer::step(&mut input, &mut all);
    }
    drop(session);
    assert_eq!(
        run(&config, &request, &all, &[]),
        run(&config, &request, &all, &cuts),
        "in pieces of {cuts:?}"
    );
}

fn open(config: &Config, request: &[u8]) -> Session<Echo> {
    let mut session = Session::new(config.clone(), Echo::default());
    session.read(request);
    session.take_written();
    session
}

fn run(config: &Config, request: &[u8], bytes: &[u8], cuts: &[u16]) -> (Vec<String>, Vec<u8>) {
    let mut session = open(config, request);
    for piece in pieces(bytes, cuts) {
        session.read(piece);
    }
    session.end();
    let written = session.take_written();
    (std::mem::take(&mut session.handler().events), written)
}

/// §7.1: neither side's window is larger than it wanted, and who wanted no takeover has none.
fn check_agreement(settings: &adjourn::config::Deflate, agreed: DeflateParameters) {
    for (ours, agreed) in [
        (settings.server_max_window_bits, agreed.server_max_window_bits),
        (settings.client_max_window_bits, agreed.client_max_window_bits),
    ] {
        assert!((8..=ours).contains(&agreed), "{agreed:?}");
    }
    assert!(!settings.server_no_context_takeover || agreed.server_no_context_takeover);
    assert!(!settings.client_no_context_takeover || agreed.client_no_context_takeover);
}

/// The limit holds for memory, too.
fn check_codec(payload: &[u8]) {
    let (mut inflater, mut out) = (Inflater::default(), Vec::new());
    let fed = inflater.feed(payload, &mut out, LIMIT);
    let finished = fed.and_then(|()| inflater.finish(false, &mut out, LIMIT));
    assert!(out.len() <= LIMIT + 1 && out.capacity() <= LIMIT + 2, "{} of {}", out.len(), out.capacity());
    assert!(finished.is_err() || out.len() <= LIMIT);
}

#[derive(Default)]
struct Echo {
    agreed: Option<DeflateParameters>,
    events: Vec<String>,
}

impl Handler for Echo {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        self.events.extend(heard(&event));
        match event {
            Event::Open { id } => self.agreed = clients.get(id).and_then(|client| client.deflate()),
            Event::Message { id, message, .. } => {
                assert!(message.len() <= LIMIT);
                let _ = clients.send(id, message);
            }
            _ => {}
        }
    }
}

/// A client that is not ours, but for the header.
struct Client {
    packer: Packer,
    inflate: Decompress,
    forgets: bool,
    heard: Vec<Vec<u8>>,
}

impl Client {
    fn new(agreed: DeflateParameters) -> Self {
        Self {
            packer: Packer::new(agreed.client_max_window_bits, agreed.client_no_context_takeover),
            inflate: Decompress::new_with_window_bits(false, agreed.server_max_window_bits.max(9)),
            forgets: agreed.server_no_context_takeover,
            heard: Vec::new(),
        }
    }

    fn hear(&mut self, mut bytes: &[u8]) {
        while let Some(header) = header::parse(bytes).expect("what we write are frames") {
            let end = header.header_length + usize::try_from(header.length).expect("small");
            let payload = &bytes[header.header_length..end];
            bytes = &bytes[end..];
            match header.opcode {
                Opcode::Text | Opcode::Binary if header.rsv1 => {
                    assert!(header.fin);
                    let message = self.unpack(payload);
                    self.heard.push(message);
                }
                Opcode::Text | Opcode::Binary => self.heard.push(payload.to_vec()),
                Opcode::Pong => {}
                other => panic!("{other:?}"),
            }
        }
    }

    fn unpack(&mut self, payload: &[u8]) -> Vec<u8> {
        if self.forgets {
            self.inflate.reset(false);
        }
        let mut out = Vec::with_capacity(LIMIT + 1);
        let packed = [payload, &[0, 0, 0xFF, 0xFF]].concat();
        self.inflate
            .decompress_vec(&packed, &mut out, FlushDecompress::Sync)
            .expect("what we write inflates");
        out
    }
}
