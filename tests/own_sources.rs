//! A loop that is nested in another one, sources of the application's own, timers, a listener of the application's own, and
//! what a handle knows: over sockets. Both examples run here as they are.

#![allow(missing_docs)]

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use adjourn::{
    Clients, Config, Event, Handler, Server, ShutdownPlan, Workers,
    error::{BindError, HandleError},
    http::{Upgrade, UpgradeRequest},
    shutdown::ShutdownReport,
};
use testkit::net::{REQUEST, frame, wait_until};

#[allow(dead_code)]
#[path = "../examples/nested.rs"]
mod nested;
#[allow(dead_code)]
#[path = "../examples/own_sources.rs"]
mod own_sources;

/// A client after its handshake.
fn open(address: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("the server listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
    stream.write_all(REQUEST).expect("the server reads");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).expect("the server answers");
        head.push(byte[0]);
    }
    stream
}

fn read(stream: &mut TcpStream, n: usize) -> Vec<u8> {
    let mut bytes = vec![0; n];
    stream.read_exact(&mut bytes).expect("so many come");
    bytes
}

fn address(port: u16) -> SocketAddr {
    ([127, 0, 0, 1], port).into()
}

/// Runs a server and a UDP socket on a thread of its own; returns where they are, and the thread.
fn start(
    run: impl FnOnce(Server, mio::net::UdpSocket) -> io::Result<ShutdownReport> + Send + 'static,
) -> (SocketAddr, SocketAddr, JoinHandle<ShutdownReport>) {
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let server = Server::bind(address(0), Config::default()).expect("a port is free");
        let udp = mio::net::UdpSocket::bind(address(0)).expect("a port is free");
        sender
            .send((server.local_addr().expect("it listens"), udp.local_addr().expect("bound")))
            .expect("the test waits");
        run(server, udp).expect("the poll works")
    });
    let (server, udp) = receiver.recv().expect("it starts");
    (server, udp, thread)
}

#[test]
fn a_server_is_a_source_of_another_loop() {
    let (server, udp, thread) = start(nested::run);
    let mut client = open(server);
    let sender = UdpSocket::bind(address(0)).expect("a port is free");
    sender.send_to(b"hello", udp).expect("sent");
    assert_eq!(read(&mut client, 7), b"\x82\x05hello");
    client.write_all(&frame(0x9, b"?")).expect("the server reads");
    assert_eq!(read(&mut client, 3), b"\x8a\x01?");
    sender.send_to(b"stop", udp).expect("sent");
    assert_eq!(read(&mut client, 4)[..2], *b"\x88\x02");
    client.write_all(&frame(0x8, &1001_u16.to_be_bytes())).expect("the server reads");
    assert_eq!(thread.join().expect("no panic").clean, 1);
}

#[test]
fn sources_of_the_application_are_on_the_loop() {
    let (mut commands, receiver) = mio::unix::pipe::new().expect("a pipe");
    let (server, udp, thread) = start(move |server, udp| own_sources::run(server, udp, receiver));
    let mut client = open(server);
    let sender = UdpSocket::bind(address(0)).expect("a port is free");
    for n in 0..100_u8 {
        sender.send_to(&[n], udp).expect("sent");
        assert_eq!(read(&mut client, 3), [0x82, 1, n]);
        commands.write_all(b"x").expect("there is room");
    }
    drop(commands);
    assert_eq!(read(&mut client, 4)[..2], *b"\x88\x02");
    drop(client);
    assert_eq!(thread.join().expect("no panic").ended(), 1);
}

#[test]
fn a_listener_of_the_application_is_accepted_from() {
    let listener = TcpListener::bind(address(0)).expect("a port is free");
    let at = listener.local_addr().expect("bound");
    let waits = TcpStream::connect(at).expect("it listens already");
    let mut server = Server::outgoing(Config::default()).expect("a poll");
    server.listen_on(listener).expect("it can be watched");
    assert_eq!(server.local_addr(), Some(at));
    let handle = server.handle();
    let thread = thread::spawn(move || {
        let client = open(at);
        wait_until("both are counted", || (handle.stats().open, handle.stats().connecting) == (1, 1));
        handle.shutdown(ShutdownPlan::hard()).expect("it runs");
        drop((client, waits));
    });
    server.run(|_, _| {}).expect("the poll works");
    thread.join().expect("no panic");
    let late = server.listen_on(TcpListener::bind(address(0)).expect("a port is free"));
    assert!(matches!(late, Err(BindError::ShuttingDown)));
}

#[test]
fn a_handle_broadcasts_and_knows_how_many_there_are() {
    let workers = Workers::<()>::bind(address(0), 2, Config::default()).expect("a port is free");
    let (at, handle) = (workers.local_addr().expect("bound"), workers.handle());
    let thread = thread::spawn(move || workers.run_with(|_| AcceptAll).expect("the polls work"));
    let mut clients: Vec<_> = (0..8).map(|_| open(at)).collect();
    wait_until("all are counted", || handle.stats().open == 8);
    handle.broadcast("hello", |_| true).expect("they run");
    for client in &mut clients {
        assert_eq!(read(client, 7), b"\x81\x05hello");
    }
    drop(clients);
    wait_until("none is counted", || handle.stats().total() == 0);
    handle.shutdown(ShutdownPlan::hard()).expect("they run");
    thread.join().expect("no panic");
    assert_eq!(handle.broadcast("late", |_| true), Err(HandleError::Stopped));
}

struct AcceptAll;

impl Handler for AcceptAll {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, _: Event<'_>) {}
}
