//! A PROXY header comes before TLS.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use adjourn::{
    Config, ShutdownPlan,
    config::ProxyProtocol,
    error::{ConnectionLimit, HandshakeError, ProxyFault},
    testing::{REQUEST, frame},
    tls::ServerTls,
};
use testkit::net::{Echo, wait_until};

use crate::{
    certificates::Authority,
    peer::{self, Peer},
};

const HEADER: &[u8] = b"PROXY TCP4 192.0.2.1 198.51.100.1 40000 443\r\n";

struct Setting {
    authority: Authority,
    echo: Echo,
}

impl Setting {
    fn new(required: bool) -> Self {
        let authority = Authority::new();
        let mut config = Config::default();
        config.listener.tls = Some(ServerTls::new(authority.identity_for(&["localhost"])));
        let mut proxies = ProxyProtocol::required_from(vec!["127.0.0.1".parse().expect("an address")]);
        proxies.required = required;
        config.listener.proxy_protocol = Some(proxies);
        config.event_loop.max_connections_per_address = Some(1);
        Self { echo: Echo::start(config), authority }
    }

    /// A client that sends these bytes before its first, cut there if that is said.
    fn connect(&self, header: &[u8], cut: Option<usize>) -> (TcpStream, Peer) {
        let mut stream = self.echo.connect();
        let mut peer = Peer::client(peer::client_config(&self.authority), "localhost");
        peer.send(&[REQUEST, &frame(0x81, b"hello")].concat());
        let bytes = [header, &peer.take_output()].concat();
        let (first, second) = bytes.split_at(cut.unwrap_or(bytes.len()));
        stream.set_nodelay(true).expect("a socket");
        stream.write_all(first).expect("it reads");
        if !second.is_empty() {
            std::thread::sleep(Duration::from_millis(2));
            stream.write_all(second).expect("it reads");
        }
        (stream, peer)
    }

    fn last_failure(&self) -> HandshakeError {
        wait_until("a handshake has failed", || !self.echo.failed.lock().expect("not poisoned").is_empty());
        self.echo.failed.lock().expect("not poisoned").pop().expect("there is one")
    }
}

/// Passes bytes on until the echo has come.
fn talk(stream: &mut TcpStream, peer: &mut Peer) {
    let mut buffer = [0; 4096];
    while !peer.received.ends_with(b"\x81\x05hello") {
        let n = stream.read(&mut buffer).expect("an answer");
        assert!(n > 0 && peer.failed.is_none(), "{:?} {:?}", peer.failed, peer.received.escape_ascii());
        peer.feed(&buffer[..n]);
        stream.write_all(&peer.take_output()).expect("it reads");
    }
}

#[test]
fn the_header_may_come_in_any_pieces_with_and_without_the_first_record() {
    let setting = Setting::new(true);
    let beyond = [HEADER.len() - 1, HEADER.len(), HEADER.len() + 1, HEADER.len() + 100];
    for cut in [None, Some(1)].into_iter().chain(beyond.map(Some)) {
        let (mut stream, mut peer) = setting.connect(HEADER, cut);
        talk(&mut stream, &mut peer);
        let shown = setting.echo.ask(|clients| {
            let client = clients.iter().next().expect("it is open");
            (client.peer_addr().to_string(), client.proxy_addr().map(|address| address.ip().to_string()))
        });
        assert_eq!(shown, ("192.0.2.1:40000".to_owned(), Some("127.0.0.1".to_owned())), "{cut:?}");
        drop(stream);
        setting.echo.wait_until_empty();
    }
    setting.echo.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_header_that_may_be_missing_is_told_from_a_record() {
    let setting = Setting::new(false);
    for header in [&b""[..], HEADER] {
        for cut in [None, Some(1), Some(100)] {
            let (mut stream, mut peer) = setting.connect(header, cut);
            talk(&mut stream, &mut peer);
            drop(stream);
            setting.echo.wait_until_empty();
        }
    }
    setting.echo.shut_down(ShutdownPlan::hard());
}

#[test]
fn who_is_refused_gets_no_answer_that_is_no_tls() {
    let setting = Setting::new(true);
    let end_of = |mut stream: TcpStream| {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
        rest
    };
    assert_eq!(end_of(setting.connect(b"", None).0), b"");
    assert_eq!(setting.last_failure(), HandshakeError::ProxyHeader(ProxyFault::Missing));
    assert_eq!(end_of(setting.connect(b"PROXY TCP4\r\n", None).0), b"");
    assert_eq!(setting.last_failure(), HandshakeError::ProxyHeader(ProxyFault::Malformed));
    let (mut stream, mut peer) = setting.connect(HEADER, None);
    talk(&mut stream, &mut peer);
    assert_eq!(end_of(setting.connect(HEADER, None).0), b"");
    let limit = ConnectionLimit::PerAddress;
    assert_eq!(setting.last_failure(), HandshakeError::TooManyConnections { limit });
    setting.echo.shut_down(ShutdownPlan::hard());
}
