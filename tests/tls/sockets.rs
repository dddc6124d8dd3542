//! TLS over real sockets. The other side is rustls, blocking.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread,
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, Config, Event, Handler, Server, ShutdownPlan,
    close::{Cause, Initiator},
    error::{HandshakeError, TlsError},
    http::{ConnectRequest, DetachedStream, Response, Upgrade, UpgradeRequest},
    testing::{REQUEST, frame},
    tls::{
        ClientTls, Identities, ServerTls, TlsStream, TlsVersion,
        rustls::{
            ClientConfig, ClientConnection, StreamOwned,
            client::Resumption,
            crypto::ring,
            pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject as _},
            version,
        },
    },
};
use testkit::net::{Echo, wait_until};

use crate::{certificates::Authority, peer};

type Stream = StreamOwned<ClientConnection, TcpStream>;

fn with_tls(tls: &ServerTls) -> Config {
    let mut config = Config::default();
    config.listener.tls = Some(tls.clone());
    config
}

fn over(socket: TcpStream, config: &Arc<ClientConfig>, name: &str) -> Stream {
    socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration");
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    StreamOwned::new(ClientConnection::new(Arc::clone(config), name).expect("a client"), socket)
}

/// After the opening handshake.
fn upgraded(mut stream: Stream) -> io::Result<Stream> {
    stream.write_all(REQUEST)?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
    }
    assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
    Ok(stream)
}

/// One server with an authority, and clients that believe it.
struct Setting {
    echo: Echo,
    client: Arc<ClientConfig>,
}

impl Setting {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let authority = Authority::new();
        let mut config = with_tls(&ServerTls::new(authority.identity_for(&["localhost"])));
        change(&mut config);
        Self { echo: Echo::start(config), client: peer::client_config(&authority) }
    }

    fn open(&self) -> Stream {
        upgraded(over(self.echo.connect(), &self.client, "localhost")).expect("it is let in")
    }

    fn last_failure(&self) -> HandshakeError {
        wait_until("a handshake has failed", || !self.echo.failed.lock().expect("not poisoned").is_empty());
        self.echo.failed.lock().expect("not poisoned").pop().expect("there is one")
    }

    fn last_report(&self) -> adjourn::CloseReport {
        wait_until("one has closed", || !self.echo.closed.lock().expect("not poisoned").is_empty());
        self.echo.closed.lock().expect("not poisoned").pop().expect("there is one")
    }
}

fn read_to_end(stream: &mut Stream) -> (Vec<u8>, io::Result<usize>) {
    let mut rest = Vec::new();
    let result = stream.read_to_end(&mut rest);
    (rest, result)
}

#[test]
fn both_sides_close_with_close_notify_and_without() {
    let setting = Setting::new(|_| {});
    // The peer closes.
    let mut stream = setting.open();
    stream
        .write_all(&[frame(0x81, b"hello"), frame(0x88, &1000_u16.to_be_bytes())].concat())
        .expect("it reads");
    let (got, result) = read_to_end(&mut stream);
    assert_eq!(got, b"\x81\x05hello\x88\x02\x03\xe8");
    assert!(result.is_ok(), "close_notify came before FIN: {result:?}");
    drop(stream);
    let report = setting.last_report();
    assert!(report.was_clean() && report.cause == Cause::PeerClose && !report.truncated());
    // The server closes; the peer answers and ends without close_notify, as browsers do.
    let mut stream = setting.open();
    setting.echo.ask(|clients| {
        let id = clients.iter().next().expect("there is one").id();
        clients.close(id, CloseFrame::GOING_AWAY)
    });
    let mut close = [0; 4];
    stream.read_exact(&mut close).expect("the Close");
    stream.write_all(&frame(0x88, &1001_u16.to_be_bytes())).expect("it reads");
    let (rest, result) = read_to_end(&mut stream);
    assert!(rest.is_empty() && result.is_ok());
    stream.sock.shutdown(Shutdown::Both).expect("a socket");
    let report = setting.last_report();
    assert!(report.was_clean() && report.initiator == Initiator::Local && !report.truncated());
    // FIN alone, and a reset.
    let stream = setting.open();
    stream.sock.shutdown(Shutdown::Write).expect("a socket");
    let report = setting.last_report();
    assert!(report.cause == Cause::PeerFin && report.truncated());
    let mut stream = setting.open();
    stream.conn.send_close_notify();
    stream.flush().expect("it is written");
    stream.sock.shutdown(Shutdown::Write).expect("a socket");
    let report = setting.last_report();
    assert!(report.cause == Cause::PeerFin && !report.truncated());
    let (_, result) = read_to_end(&mut stream);
    assert!(result.is_ok(), "its own close_notify: {result:?}");
    let stream = setting.open();
    socket2::SockRef::from(&stream.sock).set_linger(Some(Duration::ZERO)).expect("a socket");
    drop(stream);
    assert_eq!(setting.last_report().cause, Cause::PeerReset);
    setting.echo.wait_until_empty();
    setting.echo.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_slow_handshake_has_its_time_and_so_has_its_request() {
    let setting = Setting::new(|config| config.handshake.handshake_timeout = Duration::from_millis(300));
    // Not a byte; a part of a ClientHello; a handshake and no request.
    let silent = setting.echo.connect();
    assert_eq!(setting.last_failure(), HandshakeError::Timeout);
    let mut partial = setting.echo.connect();
    partial.write_all(b"\x16\x03\x01\x02\x00\x01\x00").expect("it reads");
    assert_eq!(setting.last_failure(), HandshakeError::Timeout);
    let mut secured = over(setting.echo.connect(), &setting.client, "localhost");
    secured.conn.complete_io(&mut secured.sock).expect("a handshake");
    assert_eq!(setting.last_failure(), HandshakeError::Timeout);
    let (answer, result) = read_to_end(&mut secured);
    assert!(answer.starts_with(b"HTTP/1.1 408 ") && result.is_ok(), "{result:?}");
    drop((silent, partial, secured));
    setting.echo.wait_until_empty();
    let answers = setting.echo.handle.loop_stats().totals.answers;
    let sent: Vec<_> = answers.iter().filter(|(_, count)| *count > 0).collect();
    assert_eq!(sent, [(408, 1)], "without a session there is none");
}

#[test]
fn what_is_no_tls_gets_an_alert() {
    let setting = Setting::new(|_| {});
    for bytes in [REQUEST.to_vec(), vec![0x55; 70_000]] {
        let mut plain = setting.echo.connect();
        let _ = plain.write_all(&bytes);
        assert_eq!(setting.last_failure(), HandshakeError::Tls(TlsError::NotTls));
        let mut answer = Vec::new();
        let _ = plain.read_to_end(&mut answer);
        assert!(bytes.len() > 1_000 || answer.first() == Some(&0x15), "{answer:?}");
    }
    setting.echo.wait_until_empty();
}

#[test]
fn large_messages_of_slow_readers_come_whole() {
    let setting = Setting::new(|config| config.connection.max_payload = 32 << 20);
    for version in [&version::TLS12, &version::TLS13] {
        let mut config = ClientConfig::clone(&setting.client);
        config.resumption = Resumption::disabled();
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .expect("a version")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anybody))
            .with_no_client_auth();
        let stream = over(setting.echo.connect(), &Arc::new(config), "localhost");
        let mut stream = upgraded(stream).expect("it is let in");
        let payload: Vec<u8> = (0..8_u32 << 20).map(|at| at.to_le_bytes()[1]).collect();
        let message = frame(0x82, &payload);
        stream.write_all(&message).expect("it reads");
        thread::sleep(Duration::from_millis(100));
        let mut head = [0; 10];
        stream.read_exact(&mut head).expect("the header");
        let mut echoed = vec![0; payload.len()];
        stream.read_exact(&mut echoed).expect("the payload");
        assert!(echoed == payload, "it comes back as it was");
        stream.write_all(&frame(0x88, b"")).expect("it reads");
        let (rest, result) = read_to_end(&mut stream);
        assert!(rest == b"\x88\x00" && result.is_ok());
        assert!(setting.last_report().was_clean());
    }
    setting.echo.wait_until_empty();
}

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

mod anybody {
    use adjourn::tls::rustls::{
        DigitallySignedStruct, Error, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::ring,
        pki_types::{CertificateDer, ServerName, UnixTime},
    };

    impl ServerCertVerifier for super::Anybody {
        fn verify_server_cert(
            &self,
            _: &CertificateDer<'_>,
            _: &[CertificateDer<'_>],
            _: &ServerName<'_>,
            _: &[u8],
            _: UnixTime,
        ) -> Result<ServerCertVerified, Error> {
            Ok(ServerCertVerified::assertion())
        }

        fn verify_tls12_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn verify_tls13_signature(
            &self,
            _: &[u8],
            _: &CertificateDer<'_>,
            _: &DigitallySignedStruct,
        ) -> Result<HandshakeSignatureValid, Error> {
            Ok(HandshakeSignatureValid::assertion())
        }

        fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
            ring::default_provider().signature_verification_algorithms.supported_schemes()
        }
    }
}

/// The first certificate that the server has shown.
fn shown(stream: &Stream) -> CertificateDer<'static> {
    stream.conn.peer_certificates().expect("a handshake")[0].clone().into_owned()
}

#[test]
fn certificates_are_replaced_while_it_runs() {
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let echo = Echo::start(with_tls(&tls));
    let client = peer::client_config(&authority);
    let before = upgraded(over(echo.connect(), &client, "localhost")).expect("it is let in");
    tls.replace(&ServerTls::new(authority.identity_for(&["localhost"])));
    let after = upgraded(over(echo.connect(), &client, "localhost")).expect("it is let in");
    assert!(shown(&before) != shown(&after), "the new one");
    let mut before = before;
    before.write_all(&frame(0x81, b"still here")).expect("it reads");
    let mut echoed = [0; 12];
    before.read_exact(&mut echoed).expect("it answers");
    // Tickets are taken as long as nothing is replaced.
    let resumed = upgraded(over(echo.connect(), &client, "localhost")).expect("it is let in");
    assert_eq!(
        resumed.conn.handshake_kind(),
        Some(adjourn::tls::rustls::HandshakeKind::Resumed),
        "by a ticket"
    );
}

/// What a request has said of its session.
#[derive(Debug, PartialEq)]
struct Said {
    name: Option<String>,
    version: TlsVersion,
    protocol: Option<Vec<u8>>,
    certificates: Vec<CertificateDer<'static>>,
}

struct Asking(mpsc::Sender<Option<Said>>);

impl Handler for Asking {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        let said = request.tls().map(|tls| Said {
            name: tls.server_name().map(Into::into),
            version: tls.version(),
            protocol: tls.protocol().map(Into::into),
            certificates: tls.peer_certificates().to_vec(),
        });
        self.0.send(said).expect("the test waits");
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}

#[test]
fn an_application_sees_the_name_and_the_certificates_of_a_client() {
    let authority = Authority::new();
    let (one, other) = (authority.identity_for(&["one.example"]), authority.identity_for(&["other.example"]));
    let identities = Identities::by_name(move |name| match name {
        Some("one.example") => Some(one.clone()),
        Some("other.example") => Some(other.clone()),
        _ => None,
    });
    let roots = authority.pem();
    let tls = ServerTls::with_client_certificates(identities, roots.as_bytes(), true).expect("a root");
    let (sender, said) = mpsc::channel();
    let mut server = Server::bind("127.0.0.1:0", with_tls(&tls)).expect("a port is free");
    let (address, handle) = (server.local_addr().expect("it listens"), server.handle());
    let failed = Arc::<Mutex<Vec<_>>>::default();
    let failures = Arc::clone(&failed);
    let thread = thread::spawn(move || {
        struct Noting(Asking, Arc<Mutex<Vec<HandshakeError>>>);
        impl Handler for Noting {
            type Data = ();
            fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
                self.0.on_upgrade(request)
            }
            fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
                if let Event::HandshakeFailed { error, .. } = event {
                    self.1.lock().expect("not poisoned").push(error);
                }
            }
        }
        server.run_with(&mut Noting(Asking(sender), failures)).expect("the poll works")
    });
    let (chain, key) = authority.files_for(&["client.example"]);
    let chain: Vec<_> =
        CertificateDer::pem_slice_iter(chain.as_bytes()).collect::<Result<_, _>>().expect("PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(peer::roots(&authority))
        .with_client_auth_cert(chain.clone(), key)
        .expect("they belong together");
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let config = Arc::new(config);
    for (name, version) in [("one.example", TlsVersion::V1_3), ("other.example", TlsVersion::V1_3)] {
        // The second time it is a resumed session.
        for _ in 0..2 {
            let stream = TcpStream::connect(address).expect("it listens");
            let mut stream = upgraded(over(stream, &config, name)).expect("it is let in");
            let expected = Said {
                name: Some(name.into()),
                version,
                protocol: Some(b"http/1.1".to_vec()),
                certificates: chain.clone(),
            };
            assert_eq!(said.recv().expect("it runs"), Some(expected));
            // The tickets.
            stream.sock.set_read_timeout(Some(Duration::from_millis(20))).expect("a duration");
            let _ = stream.read(&mut [0]);
        }
    }
    // Without a certificate, and with another protocol.
    let stream = TcpStream::connect(address).expect("it listens");
    upgraded(over(stream, &peer::client_config(&authority), "one.example"))
        .expect_err("a certificate is due");
    let mut odd = ClientConfig::clone(&config);
    odd.alpn_protocols = vec![b"h2".to_vec()];
    odd.resumption = Resumption::disabled();
    let stream = TcpStream::connect(address).expect("it listens");
    upgraded(over(stream, &Arc::new(odd), "one.example")).expect_err("no protocol in common");
    handle.shutdown(ShutdownPlan::hard()).expect("it runs");
    thread.join().expect("no panic");
    assert_eq!(
        *failed.lock().expect("not poisoned"),
        [TlsError::NoPeerCertificate, TlsError::Incompatible].map(HandshakeError::Tls)
    );
}

#[test]
fn early_data_is_not_accepted() {
    let authority = Authority::new();
    let mut server =
        adjourn::tls::rustls::ServerConfig::clone(&peer::server_config(&authority, &["localhost"]));
    server.max_early_data_size = 16_384;
    let echo = Echo::start(with_tls(&ServerTls::from_rustls(server)));
    let mut client = ClientConfig::clone(&peer::client_config(&authority));
    client.enable_early_data = true;
    let client = Arc::new(client);
    for _ in 0..2 {
        let mut stream = over(echo.connect(), &client, "localhost");
        assert!(stream.conn.early_data().is_none(), "no ticket allows any");
        stream = upgraded(stream).expect("it is let in");
        stream.sock.set_read_timeout(Some(Duration::from_millis(20))).expect("a duration");
        let _ = stream.read(&mut [0]);
    }
}

#[test]
fn a_shutdown_sweeps_tls_connections() {
    let setting = Setting::new(|_| {});
    let mut streams: Vec<_> = (0..20).map(|_| setting.open()).collect();
    let mut silent = over(setting.echo.connect(), &setting.client, "localhost");
    silent.conn.complete_io(&mut silent.sock).expect("a handshake");
    let Setting { echo, .. } = setting;
    let thread = thread::spawn(move || echo.shut_down(ShutdownPlan::soft(Duration::from_secs(1))));
    for (at, stream) in streams.iter_mut().enumerate() {
        let mut close = [0; 4];
        stream.read_exact(&mut close).expect("the Close");
        assert_eq!(close, *b"\x88\x02\x03\xe9");
        if at % 2 == 0 {
            stream.write_all(&frame(0x88, &1001_u16.to_be_bytes())).expect("it reads");
            let (rest, result) = read_to_end(stream);
            assert!(rest.is_empty() && result.is_ok(), "{result:?}");
        }
    }
    let (rest, _) = read_to_end(&mut silent);
    assert!(rest.is_empty());
    let report = thread.join().expect("no panic");
    assert_eq!((report.clean, report.terminated), (10, 10), "{report}");
}

#[test]
fn a_client_of_ours_and_a_server_of_ours() {
    let (authority, other) = (Authority::new(), Authority::named("another root"));
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let echo = Echo::start(with_tls(&tls));
    let url = format!("wss://localhost:{}/", echo.address.port());
    let rows = [
        (url.clone(), authority.pem(), None),
        (url, other.pem(), Some(TlsError::PeerCertificate)),
        (
            format!("wss://127.0.0.1:{}/", echo.address.port()),
            authority.pem(),
            Some(TlsError::PeerCertificate),
        ),
    ];
    for (url, roots, expected) in rows {
        let mut config = Config::default();
        config.client.tls = ClientTls::with_roots(roots.as_bytes()).expect("a root");
        let mut client = Server::<()>::outgoing(config).expect("a poll");
        client.connect(ConnectRequest::new(&url).expect("a URL"), ()).expect("there is room");
        let (mut failed, mut report) = (None, None);
        while failed.is_none() && report.is_none() {
            let turned = client.poll(Some(Duration::from_secs(10)), |clients, event| match event {
                Event::Open { id } => clients.send(id, vec![7; 300_000]).expect("it fits"),
                Event::Message { id, message, .. } => {
                    assert_eq!(message.len(), 300_000);
                    clients.close(id, CloseFrame::NORMAL);
                }
                Event::Close { report: closed, .. } => report = Some(*closed),
                Event::HandshakeFailed { error, .. } => failed = Some(error),
                _ => {}
            });
            turned.expect("the poll works");
        }
        assert_eq!(failed, expected.map(HandshakeError::Tls), "{url}");
        assert!(report.is_none_or(|report| report.was_clean() && !report.truncated()));
        // Until the server's FIN is here.
        for _ in 0..100 {
            if client.clients().stats().total() == 0 {
                break;
            }
            client.poll(Some(Duration::from_millis(20)), |_, _| {}).expect("the poll works");
        }
        assert_eq!(client.clients().stats().total(), 0);
    }
    echo.wait_until_empty();
    assert!(echo.closed.lock().expect("not poisoned").iter().all(|report| !report.truncated()));
}

struct Detaching(mpsc::Sender<(DetachedStream, Vec<u8>)>);

impl Handler for Detaching {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if request.is_upgrade() {
            return Upgrade::Reject(Response::new(403).expect("a status"));
        }
        let sender = self.0.clone();
        Upgrade::detach(move |detached| sender.send(detached.into_parts()).expect("the test waits"))
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}

/// A client that has sent `request`, and what it was detached as. The server goes on until the test has done its part.
fn with_detached(request: &[u8], test: impl FnOnce(Stream, TlsStream, Vec<u8>)) {
    let authority = Authority::new();
    let tls = ServerTls::new(authority.identity_for(&["localhost"]));
    let mut server = Server::bind("127.0.0.1:0", with_tls(&tls)).expect("a port is free");
    let (address, handle) = (server.local_addr().expect("it listens"), server.handle());
    let (sender, detached) = mpsc::channel();
    let thread = thread::spawn(move || server.run_with(&mut Detaching(sender)).expect("the poll works"));
    let stream = TcpStream::connect(address).expect("it listens");
    let mut stream = over(stream, &peer::client_config(&authority), "localhost");
    stream.write_all(request).expect("it reads");
    let (served, received) = detached.recv().expect("it is detached");
    let DetachedStream::Tls(served) = served else { panic!("{served:?}") };
    test(stream, served, received);
    handle.shutdown(ShutdownPlan::hard()).expect("it runs");
    thread.join().expect("no panic");
}

#[test]
fn a_detached_connection_has_its_session() {
    let body = vec![0x42; 400_000];
    let head = b"POST /page HTTP/1.1\r\nHost: localhost\r\nContent-Length: 400000\r\n\r\n";
    with_detached(&[&head[..], &body[..10]].concat(), |mut stream, mut served, received| {
        served.socket().set_nonblocking(false).expect("a socket");
        let server_side = thread::spawn(move || {
            let mut got = received[head.len()..].to_vec();
            let mut rest = vec![0; 400_000 - got.len()];
            served.read_exact(&mut rest).expect("the body");
            got.append(&mut rest);
            served.write_all(&got).expect("it reads");
            served.flush().expect("it reads");
            served.shutdown_write().expect("it reads");
            let mut end = Vec::new();
            served.read_to_end(&mut end).expect("close_notify");
            got
        });
        stream.write_all(&body[10..]).expect("it reads");
        let (answer, result) = read_to_end(&mut stream);
        assert!(answer == body && result.is_ok());
        stream.conn.send_close_notify();
        stream.flush().expect("it reads");
        assert!(server_side.join().expect("no panic") == body);
    });
}

#[test]
fn a_detached_connection_ends_when_all_is_written_and_not_before() {
    let request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    with_detached(request, |mut stream, mut served, _| {
        let (bytes, mut written) = (vec![0x42; 20_000], 0);
        let full = loop {
            match served.write(&bytes) {
                Ok(n) => written += n,
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        let early = served.shutdown_write().expect_err("the kernel is full");
        assert_eq!(early.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(served.write(b"x").expect_err("it ends").kind(), io::ErrorKind::BrokenPipe);
        let client = thread::spawn(move || read_to_end(&mut stream));
        served.socket().set_nonblocking(false).expect("a socket");
        served.shutdown_write().expect("it reads");
        let (got, result) = client.join().expect("no panic");
        assert_eq!(got.len(), written);
        result.expect("close_notify is the last thing");
    });
}

#[test]
fn a_detached_connection_has_read_all_with_close_notify_although_no_fin_follows() {
    let request = b"GET /page HTTP/1.1\r\nHost: localhost\r\n\r\n";
    with_detached(request, |mut stream, mut served, _| {
        stream.conn.writer().write_all(b"the last bytes").expect("a buffer");
        stream.conn.send_close_notify();
        let mut ciphertext = Vec::new();
        while stream.conn.wants_write() {
            stream.conn.write_tls(&mut ciphertext).expect("a vector");
        }
        // In one piece.
        stream.sock.write_all(&ciphertext).expect("it reads");
        served.socket().set_nonblocking(false).expect("a socket");
        let (sender, receiver) = mpsc::channel();
        thread::spawn(move || {
            let mut rest = Vec::new();
            let _ = sender.send(served.read_to_end(&mut rest).map(|_| rest));
        });
        let rest = receiver.recv_timeout(Duration::from_secs(10)).expect("it waits for no FIN");
        assert_eq!(rest.expect("close_notify is the end"), b"the last bytes");
    });
}
