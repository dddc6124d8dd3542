//! The larger examples, driven over sockets by clients that are not ours.

#[expect(dead_code, reason = "its main function is not called")]
#[path = "../../examples/adopt.rs"]
mod adopt;
mod chatting;
#[expect(dead_code, reason = "its main function is not called")]
#[path = "../../examples/deferred_upgrade.rs"]
mod deferred_upgrade;
mod doors;
#[expect(dead_code, reason = "its main function is not called")]
#[path = "../../examples/http_and_ws.rs"]
mod http_and_ws;
#[expect(dead_code, reason = "its main function is not called")]
#[path = "../../examples/own_loop.rs"]
mod own_loop;
#[expect(dead_code, reason = "its main function is not called")]
#[path = "../../examples/relay.rs"]
mod relay;
mod relaying;
#[expect(dead_code, reason = "its main function is not called")]
#[path = "../../examples/rooms.rs"]
mod rooms;

use std::{
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use adjourn::{Clients, Config, Handle, Handler, Server, ShutdownPlan};
use tungstenite::{Error, Message, WebSocket, handshake::HandshakeError};

type Client = WebSocket<TcpStream>;

/// A server on a thread of its own, until it is dropped.
struct Running<D> {
    address: SocketAddr,
    handle: Handle<D>,
    thread: Option<JoinHandle<()>>,
}

impl<D: Send + 'static> Running<D> {
    fn start(config: Config, serve: impl FnOnce(&mut Server<D>) + Send + 'static) -> Self {
        let (sender, receiver) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut server = Server::bind("127.0.0.1:0", config).expect("a port is free");
            let address = server.local_addr().expect("it listens");
            sender.send((address, server.handle())).expect("the test waits for it");
            serve(&mut server);
        });
        let (address, handle) = receiver.recv().expect("the server starts");
        Self { address, handle, thread: Some(thread) }
    }

    fn of<H: Handler<Data = D> + Send + 'static>(mut handler: H) -> Self {
        Self::start(Config::default(), move |server| {
            server.run_with(&mut handler).expect("the poll works");
        })
    }

    /// What `question` says on the loop's thread.
    fn ask<T: Send + 'static>(&self, question: impl FnOnce(&mut Clients<'_, D>) -> T + Send + 'static) -> T {
        let (sender, receiver) = mpsc::channel();
        let answer = self.handle.defer(move |clients| {
            let _ = sender.send(question(clients));
        });
        answer.expect("the server runs");
        receiver.recv_timeout(Duration::from_secs(20)).expect("the loop turns")
    }
}

impl<D> Drop for Running<D> {
    fn drop(&mut self) {
        self.handle.shutdown(ShutdownPlan::hard()).expect("the server runs");
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || ended.is_some_and(|ended| ended.is_ok()), "the server has panicked");
    }
}

/// A client, or the status that it got instead of 101.
fn connect(address: SocketAddr, path: &str) -> Result<Client, u16> {
    let stream = TcpStream::connect(address).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("more than zero");
    match tungstenite::client(format!("ws://{address}{path}"), stream) {
        Ok((client, _)) => Ok(client),
        Err(HandshakeError::Failure(Error::Http(response))) => Err(response.status().as_u16()),
        Err(error) => panic!("{error}"),
    }
}

/// The next text, or the code of the Close.
fn next(client: &mut Client) -> Result<String, u16> {
    loop {
        match client.read().expect("a frame in time") {
            Message::Text(text) => return Ok(text.to_string()),
            Message::Close(frame) => {
                // Tungstenite sends its answer by the next call.
                let _ = client.flush();
                return Err(frame.map_or(1005, |frame| frame.code.into()));
            }
            _ => {}
        }
    }
}

/// The core over a transport that is not ours: echoes, and a shutdown that ends.
#[test]
fn a_loop_of_ones_own_serves() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = listener.local_addr().expect("it listens");
    let thread = thread::spawn(move || own_loop::serve(&listener).map_err(|error| error.to_string()));
    let stream = TcpStream::connect(address).expect("it listens");
    let (mut client, _) = tungstenite::client(format!("ws://{address}/"), stream).expect("a handshake");
    let long = "long ".repeat(100_000);
    for text in ["hello", &long] {
        client.send(Message::text(text)).expect("it reads");
        assert_eq!(client.read().expect("an echo"), Message::text(text));
    }
    client.send(Message::text("bye")).expect("it reads");
    assert!(client.read().expect("a Close").is_close());
    assert!(matches!(client.read(), Err(Error::ConnectionClosed)));
    thread.join().expect("no panic").expect("no error");
}
