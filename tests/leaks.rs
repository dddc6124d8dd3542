//! A client that sends garbage, half a request, nothing, or a reset at any point leaves no descriptor and no slot.
//!
//! One test, because it counts the descriptors of the whole process.

use std::{io::Write as _, net::Shutdown, time::Duration};

use adjourn::{Config, ShutdownPlan, error::HandshakeError};
use socket2::SockRef;
use testkit::net::{Echo, REQUEST, descriptors, frame, wait_until};

/// How a client goes.
#[derive(Clone, Copy, Debug)]
enum Going {
    Fin,
    Reset,
    /// It stays, says nothing more, and reads nothing.
    Silent,
}

#[test]
fn whatever_a_client_does_it_leaves_nothing_behind() {
    let mut config = Config::default();
    config.handshake.handshake_timeout = Duration::from_millis(300);
    config.connection.close_timeout = Duration::from_millis(300);
    config.connection.linger_timeout = Duration::from_millis(300);
    config.connection.heartbeat.interval = Some(Duration::from_millis(300));
    config.connection.heartbeat.timeout = Duration::from_millis(300);
    let server = Echo::start(config);
    server.stats();
    let before = descriptors();

    let session =
        [REQUEST, &frame(1, b"hello"), &frame(9, b"ping"), &frame(2, &[7; 300]), &frame(8, b"\x03\xe8")]
            .concat();
    let garbage = [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"GET / HTTP/1.1\nHost: bare line feeds\n\n",
        b"\0\0\0\0\0\0\0\0",
        b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 777\r\n\r\n",
    ];
    let cut_sessions = (0..=session.len()).map(|cut| session[..cut].to_vec());
    let garbage_first = garbage.iter().map(|bytes| bytes.to_vec());
    let garbage_later = garbage.iter().map(|bytes| [REQUEST, bytes].concat());
    let inputs: Vec<_> = cut_sessions.chain(garbage_first).chain(garbage_later).collect();

    let mut silent = Vec::new();
    for going in [Going::Fin, Going::Reset, Going::Silent] {
        for input in &inputs {
            let mut client = server.connect();
            client.write_all(input).expect("the kernel takes a few bytes");
            match going {
                Going::Fin => client.shutdown(Shutdown::Write).expect("it is connected"),
                Going::Reset => SockRef::from(&client).set_linger(Some(Duration::ZERO)).expect("a socket"),
                Going::Silent => silent.push(client),
            }
        }
    }
    let clients = 3 * inputs.len();

    server.wait_until_empty();
    drop(silent);
    wait_until("the descriptors are given back", || descriptors() == before);

    // Each of them is accounted for exactly once. (The plain request of the garbage is refused like the rest.)
    let closed = server.closed.lock().expect("not poisoned").len();
    let failed = server.failed.lock().expect("not poisoned").clone();
    assert_eq!(closed + failed.len(), clients);
    for cause in [
        HandshakeError::Timeout,
        HandshakeError::BadRequest,
        HandshakeError::BadVersion,
        HandshakeError::PeerFin,
    ] {
        assert!(failed.contains(&cause), "{cause:?} is among them");
    }
    let report = server.shut_down(ShutdownPlan::hard());
    assert_eq!((report.live_at_start, report.ended()), (0, 0));
}
