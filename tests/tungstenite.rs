//! The server against tungstenite's client: an opponent that is not ours, in the same process.

use std::{net::TcpStream, time::Duration};

use adjourn::{
    CloseCode, CloseFrame, Config, ShutdownPlan,
    close::{Cause, Initiator},
};
use testkit::net::{Echo, wait_until};
use tungstenite::{
    Message, WebSocket,
    protocol::{CloseFrame as TheirFrame, frame::coding::CloseCode as TheirCode},
};

fn client(server: &Echo) -> WebSocket<TcpStream> {
    let stream = server.connect();
    let (socket, response) = tungstenite::client("ws://localhost/chat", stream).expect("a handshake");
    assert_eq!(response.status(), 101);
    socket
}

#[test]
fn echoes_text_and_binary_of_every_size() {
    let server = Echo::start(Config::default());
    let mut client = client(&server);
    for size in [0, 1, 125, 126, 127, 65_535, 65_536, 1 << 20, 5 << 20] {
        let text = Message::text("ä".repeat(size / 2) + &"x".repeat(size % 2));
        let bytes: Vec<u8> = (0..size).map(|i| u8::try_from(i % 251).expect("below 251")).collect();
        for message in [text, Message::binary(bytes)] {
            client.send(message.clone()).expect("it is open");
            assert_eq!(client.read().expect("an echo"), message);
        }
    }
    server.shut_down(ShutdownPlan::hard());
}

#[test]
fn joins_fragments_with_a_ping_in_between() {
    use tungstenite::protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    };
    let server = Echo::start(Config::default());
    let mut client = client(&server);
    let data =
        |opcode, fin, text: &'static str| Message::Frame(Frame::message(text, OpCode::Data(opcode), fin));
    let ping = Message::Frame(Frame::ping("p"));
    for frame in [
        data(Data::Text, false, "one "),
        ping,
        data(Data::Continue, false, "two "),
        data(Data::Continue, true, "three"),
    ] {
        client.send(frame).expect("it is open");
    }
    assert_eq!(client.read().expect("a pong"), Message::Pong("p".into()));
    assert_eq!(client.read().expect("an echo"), Message::text("one two three"));
    server.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_close_of_the_client_is_answered_with_its_code_and_reason() {
    let server = Echo::start(Config::default());
    let mut client = client(&server);
    client
        .close(Some(TheirFrame { code: TheirCode::Library(4321), reason: "enough".into() }))
        .expect("it is open");
    let answer = client.read().expect("the answer");
    assert_eq!(
        answer,
        Message::Close(Some(TheirFrame { code: TheirCode::Library(4321), reason: "enough".into() }))
    );
    server.wait_until_empty();
    let closed = server.closed.lock().expect("not poisoned")[0].clone();
    assert_eq!((closed.code(), closed.reason(), closed.was_clean()), (4321, "enough", true));
    assert_eq!((closed.initiator, closed.cause), (Initiator::Remote, Cause::PeerClose));
    server.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_close_of_the_server_reaches_the_client_behind_what_was_sent_before() {
    let server = Echo::start(Config::default());
    let mut client = client(&server);
    wait_until("it is open", || server.stats().open == 1);
    server.ask(|clients| {
        let id = clients.iter().next().expect("it is open").id();
        for number in 0..100 {
            clients.send(id, format!("message {number}")).expect("there is room");
        }
        assert!(
            clients.close(id, CloseFrame::new(CloseCode::new(3001).expect("legal"), "bye").expect("short"))
        );
        assert!(!clients.close(id, CloseFrame::EMPTY), "a second close is a no-op");
        assert!(clients.send(id, "late").is_err(), "nothing is sent behind a Close");
    });
    for number in 0..100 {
        assert_eq!(client.read().expect("a message"), Message::text(format!("message {number}")));
    }
    let close = client.read().expect("the Close");
    assert_eq!(close, Message::Close(Some(TheirFrame { code: TheirCode::Iana(3001), reason: "bye".into() })));
    assert!(matches!(client.read(), Err(tungstenite::Error::ConnectionClosed)), "an orderly end");
    server.wait_until_empty();
    let closed = server.closed.lock().expect("not poisoned")[0].clone();
    assert_eq!((closed.code(), closed.was_clean(), closed.lost.messages), (3001, true, 0));
    server.shut_down(ShutdownPlan::hard());
}

#[test]
fn a_shutdown_closes_everyone_with_1001_and_adds_up() {
    let server = Echo::start(Config::default());
    let mut clients: Vec<_> = (0..50).map(|_| client(&server)).collect();
    wait_until("all are open", || server.stats().open == 50);
    let reading = std::thread::spawn(move || {
        for client in &mut clients {
            let close = client.read().expect("the Close");
            assert_eq!(close, Message::Close(Some(TheirFrame { code: TheirCode::Away, reason: "".into() })));
            while client.read().is_ok() {}
        }
    });
    let report = server.shut_down(ShutdownPlan::soft(Duration::from_secs(10)));
    reading.join().expect("every client saw 1001");
    assert_eq!((report.live_at_start, report.clean, report.ended()), (50, 50, 50));
}
