//! Types of other crates and ours, and a stream that tungstenite's handshake has upgraded.
#![cfg(all(feature = "tungstenite", feature = "bytes"))]

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use adjourn::{
    CloseCode, CloseFrame, Config, Event, Message, Payload, Server,
    error::NotData,
    http::{Adopt, Role},
    testing::{REQUEST, frame},
};
use tungstenite::{
    handshake::{
        machine::{HandshakeMachine, RoundResult, StageResult},
        server::{Request, create_response, write_response},
    },
    protocol::{self, frame::coding},
};

#[test]
fn messages_convert_both_ways() {
    for ours in [Message::Text("text"), Message::Binary(b"\x00\xff"), Message::Text("")] {
        let theirs = protocol::Message::from(ours);
        assert_eq!(Message::try_from(&theirs), Ok(ours));
        assert_eq!(Payload::try_from(theirs), Ok(ours.into()));
    }
    let control = [protocol::Message::Ping("x".into()), protocol::Message::Close(None)];
    for message in control {
        assert_eq!(Message::try_from(&message), Err(NotData));
        assert_eq!(Payload::try_from(message), Err(NotData));
    }
}

#[test]
fn close_frames_convert_both_ways_and_illegal_ones_do_not() {
    let frames = [
        CloseFrame::EMPTY,
        CloseFrame::NORMAL,
        CloseFrame::new(CloseCode::new(4000).expect("legal"), "bye").expect("short"),
    ];
    for frame in frames {
        let theirs: Option<protocol::CloseFrame> = (&frame).into();
        assert_eq!(CloseFrame::try_from(theirs), Ok(frame));
    }
    for (code, reason) in [(1006, String::new()), (999, String::new()), (1000, "x".repeat(124))] {
        let theirs = protocol::CloseFrame { code: code.into(), reason: reason.into() };
        assert!(CloseFrame::try_from(Some(theirs)).is_err(), "{code}");
    }
    assert_eq!(coding::CloseCode::from(CloseCode::GOING_AWAY), coding::CloseCode::Away);
    assert_eq!(CloseCode::try_from(coding::CloseCode::Away), Ok(CloseCode::GOING_AWAY));
    for role in [Role::Server, Role::Client] {
        assert_eq!(Role::from(protocol::Role::from(role)), role);
    }
}

/// Its machine reads the request and the first frame with it, which is its tail.
#[test]
fn a_stream_upgraded_by_tungstenite_is_adopted_with_its_tail() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut client = TcpStream::connect(listener.local_addr().expect("it listens")).expect("it listens");
    client.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
    client.write_all(&[REQUEST, &frame(0x81, b"early")].concat()).expect("it reads");
    let (stream, _) = listener.accept().expect("somebody connects");
    let mut machine = HandshakeMachine::start_read(stream);
    let (request, stream, tail): (Request, _, _) = loop {
        match machine.single_round().expect("a request") {
            RoundResult::StageFinished(StageResult::DoneReading { result, stream, tail }) => {
                break (result, stream, tail);
            }
            RoundResult::Incomplete(more) | RoundResult::WouldBlock(more) => machine = more,
            RoundResult::StageFinished(StageResult::DoneWriting(_)) => unreachable!("it reads"),
        }
    };
    let mut head = Vec::new();
    write_response(&mut head, &create_response(&request).expect("a handshake")).expect("a vector");
    (&stream).write_all(&head).expect("it reads");
    let mut server = Server::outgoing(Config::default()).expect("a poll");
    let adopt = Adopt::new(stream, protocol::Role::Server.into(), ()).received(tail);
    let id = server.adopt(adopt.path(request.uri().path())).expect("there is room");
    let mut messages = 0;
    let mut echo = |clients: &mut adjourn::Clients<'_, ()>, event: Event<'_>| {
        if let Event::Message { id, message, .. } = event {
            messages += 1;
            clients.send(id, message).expect("it is open");
            clients.close(id, CloseFrame::NORMAL);
        }
    };
    while server.clients().get(id).is_some_and(|client| client.state() == adjourn::clients::State::Open) {
        server.poll(Some(Duration::from_secs(1)), &mut echo).expect("the poll works");
    }
    assert_eq!(messages, 1);
    let mut answer = vec![0; head.len() + 11];
    client.read_exact(&mut answer).expect("an answer");
    assert_eq!(&answer[head.len()..], b"\x81\x05early\x88\x02\x03\xe8");
}

#[cfg(feature = "http")]
#[test]
fn responses_of_the_http_crate_are_ours() {
    let response = http::Response::builder().status(404).header("X-A", "b").body("none\n").expect("valid");
    let mut out = Vec::new();
    adjourn::http::Response::try_from(response).expect("a final one").write(&mut out);
    assert!(out.starts_with(b"HTTP/1.1 404 Not Found\r\nx-a: b\r\n") && out.ends_with(b"\r\n\r\nnone\n"));
    let switching = http::Response::builder().status(101).body("").expect("valid");
    assert!(adjourn::http::Response::try_from(switching).is_err());
}
