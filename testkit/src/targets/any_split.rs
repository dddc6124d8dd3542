//! One piece against many: the same bytes give the same events and the same answer, however they are cut; before and
//! after the upgrade, with compression and without.

use adjourn::{
    Config,
    testing::{REQUEST, Session},
};

use super::{
    input::{Input, pieces},
    peer,
    scribe::Scribe,
};

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let how = input.u8();
    let cuts = input.cuts();
    let mut config = Config::default();
    (config.connection.max_payload, config.connection.max_fragments) = (4096, 64);
    let request = match how & 3 {
        0 => Vec::new(),
        1 => REQUEST.to_vec(),
        _ => {
            config.deflate = Some(peer::settings(&mut input));
            peer::request(&peer::offer(&mut input))
        }
    };
    let bytes = if how & 4 == 0 { input.rest().to_vec() } else { peer::stream(&mut input) };
    // What stands in front of the bytes is cut, too, unless it is in the way.
    let (first, bytes) =
        if how & 8 == 0 { (request, bytes) } else { (Vec::new(), [request, bytes].concat()) };
    let (whole, cut) = (run(&config, &first, &bytes, &[]), run(&config, &first, &bytes, &cuts));
    assert_eq!(whole.0, cut.0, "events, in pieces of {cuts:?}");
    assert_eq!(whole.1, cut.1, "what is written, in pieces of {cuts:?}");
}

fn run(config: &Config, first: &[u8], bytes: &[u8], cuts: &[u16]) -> (Vec<String>, Vec<u8>) {
    let mut session = Session::new(config.clone(), Scribe::echoing());
    session.read(first);
    for piece in pieces(bytes, cuts) {
        session.read(piece);
    }
    session.end();
    let written = session.take_written();
    (std::mem::take(&mut session.handler().events), written)
}
