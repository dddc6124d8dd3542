//! Any bytes as a PROXY header: the same verdict for every cut. What is understood is what a second, plain reading finds, and within
//! the limits; nothing is asked for that could exceed them.

use std::net::{IpAddr, SocketAddr};

use adjourn::{
    error::ProxyFault,
    wire::proxy::{MAX_HEADER, ProxyHeader},
};

use super::{
    input::{Input, pieces},
    seen,
};

type Verdict = Result<Option<ProxyHeader>, ProxyFault>;

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let cuts = input.cuts();
    let bytes = input.rest();
    let whole = ProxyHeader::parse(bytes);

    let (mut here, mut cut): (_, Verdict) = (0, Ok(None));
    for piece in pieces(bytes, &cuts) {
        here += piece.len();
        if cut == Ok(None) {
            cut = ProxyHeader::parse(&bytes[..here]);
        }
    }
    assert_eq!(whole, cut, "pieces of {cuts:?}");

    match whole {
        Err(fault) => seen::note("ProxyFault", || format!("{fault:?}")),
        Ok(None) => assert!(bytes.len() < MAX_HEADER, "more is asked for than a header may have"),
        Ok(Some(header)) => {
            let taken = bytes.get(..header.len).expect("a header is no longer than what has come");
            let is_text = taken.starts_with(b"PROXY ");
            assert!(header.len <= if is_text { 107 } else { MAX_HEADER });
            let client = if is_text { of_text(taken) } else { of_binary(taken) };
            assert_eq!(header.client, client, "{}", taken.escape_ascii());
            let named = if client.is_some() { "Client" } else { "Nobody" };
            seen::note(if is_text { "ProxyHeader1" } else { "ProxyHeader2" }, || named.to_owned());
        }
    }
}

/// By the words of the line.
fn of_text(line: &[u8]) -> Option<SocketAddr> {
    let line = str::from_utf8(line).ok().filter(|line| !line.starts_with("PROXY UNKNOWN"))?;
    let line = line.strip_suffix("\r\n").expect("it ends in CRLF");
    let [_, family, source, destination, port, _] = line.split(' ').collect::<Vec<_>>()[..] else {
        panic!("six words: {line:?}");
    };
    let [source, destination]: [IpAddr; 2] = [source, destination].map(|ip| ip.parse().expect("an address"));
    assert_eq!((source.is_ipv4(), destination.is_ipv4()), (family == "TCP4", family == "TCP4"));
    Some(SocketAddr::new(source, port.parse().expect("a port")))
}

/// By the places of the bytes.
fn of_binary(bytes: &[u8]) -> Option<SocketAddr> {
    assert_eq!(usize::from(u16::from_be_bytes([bytes[14], bytes[15]])) + 16, bytes.len());
    let port = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    match (bytes[12], bytes[13]) {
        (0x21, 0x11) => {
            let ip: [u8; 4] = bytes[16..20].try_into().expect("four bytes");
            Some(SocketAddr::new(ip.into(), port(24)))
        }
        (0x21, 0x21) => {
            let ip: [u8; 16] = bytes[16..32].try_into().expect("sixteen bytes");
            Some(SocketAddr::new(ip.into(), port(48)))
        }
        _ => None,
    }
}
