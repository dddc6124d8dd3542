//! `examples/http_and_ws.rs`, `examples/adopt.rs` and `examples/deferred_upgrade.rs`.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use adjourn::{Clients, Config, Event, Server};
use tungstenite::Message;

use crate::{Running, adopt, connect, deferred_upgrade::Door, http_and_ws::OnePort, next};

/// What an HTTP server answers, until it closes.
fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
    stream.write_all(request.as_bytes()).expect("it reads");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    answer
}

#[test]
fn pages_an_api_and_websocket_share_a_port() {
    let server = Running::of(OnePort::new().expect("a runtime"));
    let page = ask(server.address, "GET /page HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n") && page.ends_with("\r\nGET /page\n"), "{page}");
    // Two requests on one connection, the first with a body.
    let both = ask(
        server.address,
        "POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi\
         DELETE /api HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
    );
    assert!(both.contains("\r\nPOST /api\n") && both.ends_with("\r\nDELETE /api\n"), "{both}");
    let mut client = connect(server.address, "/").expect("101");
    client.send(Message::text("hello")).expect("it is open");
    assert_eq!(next(&mut client), Ok("hello".into()));
}

#[test]
fn a_hyper_server_hands_upgraded_streams_over() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let server = Running::start(Config::default(), |server: &mut Server<()>| {
        let echo = |clients: &mut Clients<'_, ()>, event: Event<'_>| {
            if let Event::Message { id, message, .. } = event {
                clients.send(id, message).expect("it is open");
            }
        };
        server.run(echo).expect("the poll works");
    });
    let handle = server.handle.clone();
    thread::spawn(move || adopt::serve(listener, &handle));
    let page = ask(address, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    assert!(page.ends_with("\r\na page\n"), "{page}");
    for round in 0..3 {
        let mut client = connect(address, "/").expect("101");
        let text = format!("round {round}");
        client.send(Message::text(&text)).expect("it is open");
        assert_eq!(next(&mut client), Ok(text));
        client.close(None).expect("it is open");
        assert_eq!(next(&mut client), Err(1005));
    }
}

#[test]
fn who_may_enter_is_decided_elsewhere() {
    let (sender, handles) = std::sync::mpsc::channel();
    let server = Running::start(Config::default(), move |server| {
        sender.send(()).expect("the test waits");
        let mut door = Door::new(server.handle());
        server.run_with(&mut door).expect("the poll works");
    });
    handles.recv().expect("it starts");
    let mut ada = connect(server.address, "/ada").expect("101");
    assert_eq!(next(&mut ada), Ok("hello, ada".into()));
    assert_eq!(connect(server.address, "/eve").err(), Some(403));
    assert!(connect(server.address, "/bob").is_ok());
}
