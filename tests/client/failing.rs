//! Servers, networks and names that fail, misbehave or say nothing.

use super::*;

#[test]
fn a_port_that_refuses() {
    let address = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        listener.local_addr().expect("bound")
    };
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::default();
    let id = client.connect(to(address), 7).expect("room");
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    let refused = HandshakeError::Io(std::io::ErrorKind::ConnectionRefused);
    assert_eq!(recorder.failed, [(Some(id), address, refused)]);
    run_dry(&mut client, &mut recorder);
    assert_eq!(client.clients().send(id, "x"), Err(SendError::NotFound));
}

#[test]
fn a_name_that_is_none() {
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::default();
    client.connect(request("ws://no-such-host.invalid/"), 7).expect("room");
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    // A resolver that cannot be reached is as slow as it likes.
    assert!(matches!(recorder.one_failure(), HandshakeError::NotResolved | HandshakeError::ConnectTimeout));
}

#[test]
fn urls_that_cannot_be_connected_to() {
    let secure = ConnectRequest::new("wss://localhost/").map(drop);
    assert_eq!(secure, if cfg!(feature = "tls") { Ok(()) } else { Err(UrlError::Tls) });
    assert_eq!(ConnectRequest::new("http://localhost/").map(drop), Err(UrlError::Scheme));
    let reserved = request("ws://localhost/").header("Sec-WebSocket-Key", "x").map(drop);
    assert!(matches!(reserved, Err(RequestError::Header(_))));
}

#[test]
fn a_server_that_accepts_and_says_nothing() {
    let mut config = config();
    config.handshake.handshake_timeout = SHORT;
    let mut recorder = Recorder::default();
    let took = against(config, &mut recorder, |mut stream, _| {
        assert_eq!(read_to_end(&mut stream).0, 0, "nothing follows the request");
    });
    assert_eq!(recorder.one_failure(), HandshakeError::Timeout);
    assert!(took >= SHORT && took < SHORT * 10, "{took:?}");
}

#[test]
fn a_server_that_trickles_its_response() {
    let mut config = config();
    config.handshake.handshake_timeout = SHORT;
    let mut recorder = Recorder::default();
    let took = against(config, &mut recorder, |mut stream, key| {
        for byte in switching(&key).bytes().take(100) {
            thread::sleep(Duration::from_millis(10));
            if stream.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    assert_eq!(recorder.one_failure(), HandshakeError::Timeout, "bytes do not extend it");
    assert!(took < SHORT * 10, "{took:?}");
}

#[test]
fn a_network_that_says_nothing() {
    // A listener whose queue is full: Linux drops further SYNs, as a firewall would.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("bind");
    socket.listen(0).expect("listen");
    let address = socket.local_addr().expect("bound").as_socket().expect("an address");
    let _filler: Vec<_> =
        (0..4).map(|_| TcpStream::connect_timeout(&address, Duration::from_millis(50))).collect();
    let mut client = Server::outgoing(config()).expect("a poll");
    let mut recorder = Recorder::default();
    let start = Instant::now();
    client.connect(to(address).connect_timeout(SHORT), 7).expect("room");
    run(&mut client, &mut recorder, |recorder| recorder.ended() == 1);
    assert_eq!(recorder.one_failure(), HandshakeError::ConnectTimeout);
    let took = start.elapsed();
    assert!(took >= SHORT && took < SHORT * 10, "{took:?}");
}

#[test]
fn responses_that_are_not_what_was_asked_for() {
    use HandshakeError::{BadResponse, HeadTooLarge, PeerFin, Status};
    type Answer = fn(String) -> Vec<u8>;
    let rows: &[(&str, Answer, HandshakeError)] = &[
        ("nothing but FIN", |_| vec![], PeerFin),
        ("half a response", |key| switching(&key).into_bytes()[..50].to_vec(), PeerFin),
        (
            "a wrong accept key",
            |key| switching(&key.to_lowercase()).into_bytes(),
            BadResponse(ResponseFault::AcceptKey),
        ),
        ("200", |_| b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_vec(), Status(200)),
        ("503", |_| b"HTTP/1.1 503 Service Unavailable\r\n\r\n".to_vec(), Status(503)),
        (
            "another protocol",
            |_| b"220 mail.example.com ESMTP\r\n\r\n".to_vec(),
            BadResponse(ResponseFault::Malformed),
        ),
        ("bytes", |_| vec![0, 1, 2, 3, 255], BadResponse(ResponseFault::Malformed)),
        ("a head without an end", |_| vec![b'H'; 100_000], HeadTooLarge),
        (
            "an extension that nobody asked for",
            |key| {
                let response = switching(&key);
                response.replace("\r\n\r\n", "\r\nSec-WebSocket-Extensions: x\r\n\r\n").into_bytes()
            },
            BadResponse(ResponseFault::Extensions),
        ),
        (
            "a subprotocol that nobody asked for",
            |key| {
                let response = switching(&key);
                response.replace("\r\n\r\n", "\r\nSec-WebSocket-Protocol: x\r\n\r\n").into_bytes()
            },
            BadResponse(ResponseFault::Subprotocol),
        ),
    ];
    for (name, answer, expected) in rows {
        let mut recorder = Recorder::default();
        let answer = *answer;
        against(config(), &mut recorder, move |mut stream, key| {
            // The client may be gone before it has read all of it.
            let _ = stream.write_all(&answer(key));
            let _ = stream.shutdown(Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        assert_eq!(recorder.one_failure(), *expected, "{name}");
    }
}

#[test]
fn a_response_in_pieces_of_one_byte_and_frames_right_behind_it() {
    for piece in [1, 7, usize::MAX] {
        let mut recorder = Recorder { close_after: Some(2), ..Recorder::default() };
        against(config(), &mut recorder, move |mut stream, key| {
            stream.set_nodelay(true).expect("a socket");
            let mut bytes = switching(&key).into_bytes();
            bytes.extend_from_slice(b"\x81\x05first\x01\x03sec\x89\x04ping\x80\x03ond");
            for piece in bytes.chunks(piece.min(bytes.len())) {
                stream.write_all(piece).expect("sent");
                if piece.len() < 100 {
                    thread::sleep(Duration::from_micros(200));
                }
            }
            let (pong, payload, _) = read_frame(&mut stream);
            assert_eq!((pong, payload.as_slice()), (0xA, b"ping".as_slice()));
            let (close, payload, _) = read_frame(&mut stream);
            assert_eq!((close, payload.as_slice()), (8, [3, 0xE8].as_slice()));
            stream.write_all(&[0x88, 2, 3, 0xE8]).expect("sent");
        });
        let texts: Vec<_> = recorder.messages.iter().map(|message| message.1.as_slice()).collect();
        assert_eq!(texts, [b"first".as_slice(), b"second"]);
        assert!(recorder.closed[0].1.was_clean());
    }
}

#[test]
fn a_server_that_masks() {
    let mut recorder = Recorder::default();
    against(config(), &mut recorder, |mut stream, key| {
        stream.write_all(switching(&key).as_bytes()).expect("sent");
        stream.write_all(&[0x81, 0x81, 1, 2, 3, 4, b'x' ^ 1]).expect("sent");
        let (close, payload, _) = read_frame(&mut stream);
        assert_eq!((close, &payload[..2]), (8, [3, 0xEA].as_slice()), "§5.1: 1002");
    });
    let (_, closed) = &recorder.closed[0];
    assert_eq!((closed.cause, closed.effective_code()), (Cause::Protocol(ProtocolError::Masked), 1002));
    assert!(!closed.was_clean() && recorder.messages.is_empty());
}

/// §7.1.1: "The client SHOULD wait for the server to close the connection".
#[test]
fn the_client_waits_for_the_servers_fin() {
    let mut recorder = Recorder::client("hello", 1);
    against(config(), &mut recorder, |mut stream, key| {
        stream.write_all(switching(&key).as_bytes()).expect("sent");
        assert_eq!(read_frame(&mut stream).1, b"hello");
        stream.write_all(b"\x81\x02hi").expect("sent");
        assert_eq!(read_frame(&mut stream).0, 8);
        stream.write_all(&[0x88, 2, 3, 0xE8]).expect("sent");
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a socket");
        let error = stream.read(&mut [0; 16]).expect_err("neither a byte nor FIN before ours");
        assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut));
        stream.shutdown(Shutdown::Write).expect("FIN");
        stream.set_read_timeout(Some(LONG)).expect("a socket");
        let (more, took) = read_to_end(&mut stream);
        assert!(
            more == 0 && took < Duration::from_millis(500),
            "then the client's FIN comes at once: {took:?}"
        );
    });
    assert!(recorder.closed[0].1.was_clean());
}

#[test]
fn the_client_does_not_wait_for_ever() {
    let mut config = config();
    config.connection.linger_timeout = SHORT;
    let mut recorder = Recorder::default();
    against(config, &mut recorder, |mut stream, key| {
        stream.write_all(switching(&key).as_bytes()).expect("sent");
        stream.write_all(&[0x88, 2, 3, 0xE9]).expect("sent");
        assert_eq!(read_frame(&mut stream).1, [3, 0xE9]);
        let (more, took) = read_to_end(&mut stream);
        assert!(more == 0 && took >= SHORT / 2 && took < SHORT * 8, "{took:?}");
    });
    let (_, closed) = &recorder.closed[0];
    assert!(closed.was_clean());
    assert_eq!((closed.code(), closed.cause, closed.initiator), (1001, Cause::PeerClose, Initiator::Remote));
}
