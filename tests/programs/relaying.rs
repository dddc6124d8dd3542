//! `examples/relay.rs`, between a client that is not ours and an upstream.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    time::Duration,
};

use adjourn::{
    Clients, CloseCode, CloseFrame, Config, ConnectionId, Event, Handler, Message,
    config::Heartbeat,
    http::{Accept, Response, Upgrade, UpgradeRequest},
};
use testkit::net::wait_until;
use tungstenite::{
    client::IntoClientRequest as _,
    protocol::{CloseFrame as TheirFrame, frame::coding::CloseCode as TheirCode},
};

use crate::{
    Running, connect, next,
    relay::{self, Relay},
};

/// An upstream that speaks `chat.v1`, echoes, and closes with 4001 when told `bye`.
struct Upstream;

impl Handler for Upstream {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if request.path() == "/forbidden" {
            return Upgrade::Reject(Response::new(403).expect("a final status"));
        }
        Upgrade::Accept(Accept::new(()).subprotocol(request.subprotocol("chat.v1")))
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Message { id, message: Message::Text("bye"), closing: false } => {
                clients.close(
                    id,
                    CloseFrame::new(CloseCode::new(4001).expect("a legal code"), "as you wish")
                        .expect("short"),
                );
            }
            Event::Message { id, message, closing: false } => {
                clients.send(id, message).expect("room");
            }
            _ => {}
        }
    }
}

fn relay_to(upstream: SocketAddr, enough: usize, mut config: Config) -> Running<ConnectionId> {
    // Silence and time must not be what ends a connection here.
    config.connection.heartbeat = Heartbeat { interval: None, timeout: Duration::from_secs(20) };
    Running::start(config, move |server| {
        let mut relay = Relay::new(upstream.to_string());
        relay.enough = enough;
        relay::serve(server, &mut relay).expect("the poll works");
    })
}

#[test]
fn messages_and_the_subprotocol_pass_through_it() {
    let upstream = Running::of(Upstream);
    let relay = relay_to(upstream.address, 256 << 10, relay::config());
    let mut request = format!("ws://{}/room?x=1", relay.address).into_client_request().expect("a URL");
    request.headers_mut().insert("Sec-WebSocket-Protocol", "chat.v2, chat.v1".parse().expect("a value"));
    let stream = TcpStream::connect(relay.address).expect("it listens");
    let (mut client, response) = tungstenite::client(request, stream).expect("101");
    assert_eq!(response.headers()["Sec-WebSocket-Protocol"], "chat.v1");
    client.send("hello".into()).expect("it is open");
    assert_eq!(next(&mut client), Ok("hello".into()));
}

#[test]
fn a_close_of_either_end_and_its_answer_pass_through_it() {
    let upstream = Running::of(Upstream);
    let relay = relay_to(upstream.address, 256 << 10, relay::config());
    let mut client = connect(relay.address, "/").expect("101");
    client.send("bye".into()).expect("it is open");
    assert_eq!(next(&mut client), Err(4001));
    let mut client = connect(relay.address, "/").expect("101");
    let frame = TheirFrame { code: TheirCode::Library(4002), reason: "enough".into() };
    client.close(Some(frame)).expect("it is open");
    assert_eq!(next(&mut client), Err(4002));
    wait_until("both sides have ended", || relay.ask(|clients| clients.stats().total()) == 0);
}

#[test]
fn without_an_upstream_a_client_gets_502() {
    let nobody = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
    let relay = relay_to(nobody.expect("a port is free"), 256 << 10, relay::config());
    assert_eq!(connect(relay.address, "/").err(), Some(502));
    let upstream = Running::of(Upstream);
    let relay = relay_to(upstream.address, 256 << 10, relay::config());
    assert_eq!(connect(relay.address, "/forbidden").err(), Some(502));
}

/// A side was paused for what the other had unsent, less than 16 KiB of it, and no `Drain` came to resume it.
#[test]
fn a_small_backlog_of_one_side_paused_the_other_for_ever() {
    let upstream = Running::of(Upstream);
    let relay = relay_to(upstream.address, 0, relay::config());
    let mut client = connect(relay.address, "/").expect("101");
    for n in 0..200 {
        client.send(format!("message {n}").into()).expect("it is open");
    }
    for n in 0..200 {
        assert_eq!(next(&mut client), Ok(format!("message {n}")));
    }
}

/// A side that was paused while its peer left was never ended, nor was the other, which waited for it.
#[test]
fn a_peer_that_left_a_paused_side_kept_both_for_ever() {
    for reset in [false, true] {
        // It upgrades and then reads nothing, so that the client's side is paused.
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port is free");
        let mut config = relay::config();
        config.connection.close_timeout = Duration::from_millis(300);
        let relay = relay_to(listener.local_addr().expect("it listens"), 0, config);
        let accepted = std::thread::spawn(move || upgrade(&listener));
        let mut client = connect(relay.address, "/").expect("101");
        let _upstream = accepted.join().expect("an upgrade");
        // No more than that, or the peer's FIN would wait behind what does not fit into the kernel.
        wait_until("it is paused", || {
            client.send(vec![b'x'; 16 << 10].into()).expect("it is open");
            is_paused(&relay)
        });
        if reset {
            socket2::SockRef::from(client.get_ref()).set_linger(Some(Duration::ZERO)).expect("a socket");
        }
        drop(client);
        wait_until("both sides have ended", || relay.ask(|clients| clients.stats().total()) == 0);
    }
}

/// Whether the client's side is.
fn is_paused(relay: &Running<ConnectionId>) -> bool {
    relay.ask(|clients| clients.iter().any(|side| !side.is_outgoing() && side.is_paused()))
}

fn upgrade(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().expect("a connection");
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("a request");
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).expect("text");
    let line = |line: &str| Some(line.to_ascii_lowercase().strip_prefix("sec-websocket-key: ")?.len());
    let key = request.lines().find_map(|text| line(text).map(|n| &text[text.len() - n..])).expect("a key");
    let accept = tungstenite::handshake::derive_accept_key(key.as_bytes());
    write!(
        stream,
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
    )
    .expect("it reads");
    stream
}
