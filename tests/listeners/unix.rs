//! Unix domain sockets.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    os::unix::net::{UnixListener, UnixStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use adjourn::{
    Config, Event, Server, ShutdownPlan, Workers,
    error::BindError,
    http::{Adopt, DetachedStream, Role},
};
use testkit::net::{frame, wait_until};
use tungstenite::Message;

use crate::serving::{Directory, Running, Seen, read_head, upgrade};

fn connect(path: &std::path::Path) -> UnixStream {
    let stream = UnixStream::connect(path).expect("it listens");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
    stream
}

#[test]
fn a_peer_has_credentials_and_no_address() {
    let directory = Directory::new();
    let path = directory.file("s");
    let running = Running::start(Server::bind_unix(&path, Config::default()).expect("a new path"));
    let (mut client, _) = tungstenite::client("ws://localhost/", connect(&path)).expect("a handshake");
    for _ in 0..2 {
        let (Seen::Upgrade { peer, credentials } | Seen::Open { peer, credentials }) = running.next() else {
            panic!("it is asked, then it opens");
        };
        assert_eq!(peer, "0.0.0.0:0");
        if cfg!(any(target_os = "linux", target_os = "android")) {
            let credentials = credentials.expect("the kernel knows them");
            let own = (
                std::process::id(),
                rustix::process::geteuid().as_raw(),
                rustix::process::getegid().as_raw(),
            );
            assert_eq!((credentials.pid(), credentials.uid(), credentials.gid()), own);
        }
    }
    // More than the kernel takes at once: the rest leaves as there is room.
    let large = Message::binary(vec![7; 8 << 20]);
    client.send(large.clone()).expect("it is open");
    thread::sleep(Duration::from_millis(50));
    assert_eq!(client.read().expect("an echo"), large);
    client.close(None).expect("it is open");
    while client.read().is_ok() {}
    let Seen::Closed { code, clean } = running.next() else { panic!("it closes") };
    assert_eq!((code, clean), (1005, true));
    running.stop();
    assert!(path.exists(), "the file stays");
}

#[test]
fn limits_per_address_do_not_count_it() {
    let directory = Directory::new();
    let path = directory.file("s");
    let mut config = Config::default();
    config.event_loop.max_connections_per_address = Some(1);
    let mut server = Server::bind("127.0.0.1:0", config).expect("a port is free");
    let address = server.local_addr().expect("it listens");
    server.listen_unix(&path).expect("a new path");
    let running = Running::start(server);
    let unix: Vec<_> = (0..3).map(|_| upgrade(connect(&path))).collect();
    let tcp = upgrade(std::net::TcpStream::connect(address).expect("it listens"));
    let mut refused = std::net::TcpStream::connect(address).expect("it listens");
    assert_eq!(refused.read(&mut [0]).unwrap_or(0), 0, "the second one of the address is closed");
    let (peer, error) = std::iter::from_fn(|| Some(running.next()))
        .find_map(|seen| if let Seen::Failed { peer, error } = seen { Some((peer, error)) } else { None })
        .expect("it never ends");
    assert_eq!(peer, refused.local_addr().expect("a socket").to_string());
    assert_eq!(error, "too many connections: max_connections_per_address is reached");
    let report = running.stop();
    assert_eq!(report.live_at_start, 4);
    drop((unix, tcp));
}

#[test]
fn what_is_at_the_path_is_not_removed() {
    let directory = Directory::new();
    let path = directory.file("s");
    let server = Server::<()>::bind_unix(&path, Config::default()).expect("a new path");
    drop(server);
    let refusal = Server::<()>::bind_unix(&path, Config::default()).map(drop).expect_err("its file stays");
    let BindError::ListenUnix { path: named, source } = &refusal else { panic!("{refusal}") };
    assert_eq!((named, source.kind()), (&path, ErrorKind::AddrInUse));
    assert!(refusal.to_string().contains(&*path.to_string_lossy()), "{refusal}");
    std::fs::remove_file(&path).expect("it is there");
    Server::<()>::bind_unix(&path, Config::default()).expect("the path is new again");
    let absent = directory.file("absent/s");
    assert!(Server::<()>::bind_unix(&absent, Config::default()).is_err(), "no such directory");
}

#[test]
fn a_setting_that_cannot_work_leaves_no_file() {
    let directory = Directory::new();
    let path = directory.file("s");
    let mut config = Config::default();
    config.listener.accept_batch = 0;
    assert!(Server::<()>::bind_unix(&path, config.clone()).is_err());
    assert!(Workers::<()>::bind_unix(&path, 2, config).is_err());
    assert!(Workers::<()>::bind_unix(&path, 0, Config::default()).is_err());
    assert!(!path.exists());
}

#[test]
fn a_plain_request_is_detached_with_its_socket() {
    let directory = Directory::new();
    let path = directory.file("s");
    let running = Running::start(Server::bind_unix(&path, Config::default()).expect("a new path"));
    let mut client = connect(&path);
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\nmore").expect("it is read");
    let Seen::Detached(detached) = running.next() else { panic!("it is plain") };
    assert_eq!(detached.rest(), b"more");
    let (DetachedStream::Unix(mut stream), _) = detached.into_parts() else { panic!("a Unix domain socket") };
    stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("it is read");
    drop(stream);
    assert!(read_head(&mut client).starts_with("HTTP/1.1 204 "));
    running.stop();
}

#[test]
fn one_that_is_adopted_works_in_both_roles() {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let mut server = Server::outgoing(Config::default()).expect("a poll");
    server.adopt(Adopt::unix(ours, Role::Server, ())).expect("room");
    let running = Running::start(server);
    let mut client =
        tungstenite::WebSocket::from_raw_socket(theirs, tungstenite::protocol::Role::Client, None);
    client.send(Message::text("hello")).expect("it is open");
    assert_eq!(client.read().expect("an echo"), Message::text("hello"));
    running.stop();

    let (ours, mut theirs) = UnixStream::pair().expect("a pair");
    let mut client = Server::outgoing(Config::default()).expect("a poll");
    client.adopt(Adopt::unix(ours, Role::Client, ())).expect("room");
    let running = Running::start(client);
    theirs.write_all(b"\x81\x02hi").expect("it is read");
    let mut echo = [0; 8];
    theirs.read_exact(&mut echo).expect("an echo");
    assert_eq!(&echo[..2], b"\x81\x82", "masked, as a client's");
    running.stop();
}

#[test]
fn one_that_is_terminated_or_leaves_is_reported() {
    let directory = Directory::new();
    let path = directory.file("s");
    let running = Running::start(Server::bind_unix(&path, Config::default()).expect("a new path"));
    let mut client = upgrade(connect(&path));
    running
        .handle
        .defer(|clients| {
            let id = clients.iter().next().map(|client| client.id()).expect("it is open");
            clients.terminate(id);
        })
        .expect("it runs");
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    drop(upgrade(connect(&path)));
    let endings: Vec<_> = std::iter::from_fn(|| Some(running.next()))
        .filter_map(|seen| match seen {
            Seen::Closed { code, clean } => Some((code, clean)),
            _ => None,
        })
        .take(2)
        .collect();
    assert_eq!(endings, [(1006, false), (1006, false)]);
    running.stop();
}

#[test]
fn all_loops_serve_one_path() {
    let directory = Directory::new();
    let path = directory.file("s");
    let workers = Workers::bind_unix(&path, 3, Config::default()).expect("a new path");
    assert_eq!(workers.local_addr(), None);
    serve_all(workers, || connect(&path));
}

#[test]
fn all_loops_serve_a_socket_that_was_bound_elsewhere() {
    let directory = Directory::new();
    let path = directory.file("s");
    let socket = UnixListener::bind(&path).expect("a new path");
    let workers = Workers::on([socket.into()], 2, Config::default()).expect("it listens");
    serve_all(workers, || connect(&path));
}

fn serve_all(workers: Workers, connect: impl Fn() -> UnixStream) {
    let handle = workers.handle();
    let echoed = Arc::<Mutex<u32>>::default();
    let echoed_there = Arc::clone(&echoed);
    let thread = thread::spawn(move || {
        workers.run(|clients, event| {
            if let Event::Message { id, message, .. } = event {
                *echoed_there.lock().expect("not poisoned") += 1;
                let _ = clients.send(id, message);
            }
        })
    });
    let mut clients: Vec<_> = (0..20).map(|_| upgrade(connect())).collect();
    for client in &mut clients {
        client.write_all(&frame(1, b"hello")).expect("it is open");
        let mut echo = [0; 7];
        client.read_exact(&mut echo).expect("an echo");
        assert_eq!(&echo, b"\x81\x05hello");
    }
    wait_until("all are open", || handle.stats().open == 20);
    handle.shutdown(ShutdownPlan::hard()).expect("they run");
    let report = thread.join().expect("no callback panics").expect("the polls work");
    assert_eq!((report.live_at_start, *echoed.lock().expect("not poisoned")), (20, 20));
}
