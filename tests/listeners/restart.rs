//! The example `restart`: while one process takes over from another, nobody is refused.

use std::{
    io::{BufRead as _, BufReader, ErrorKind, Read as _},
    net::{SocketAddr, TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use tungstenite::{Message, WebSocket, protocol::frame::coding::CloseCode};

use crate::{example_restart, serving::Directory};

/// Starts the example in a process of its own, and returns when it listens.
fn start(address: SocketAddr, control: &str) -> (Child, BufReader<std::process::ChildStdout>) {
    let mut child = Command::new(std::env::current_exe().expect("it runs"))
        .args(["--exact", "restart::the_example", "--ignored", "--nocapture"])
        .env("RESTART", format!("{address} {control}"))
        .stdout(Stdio::piped())
        .spawn()
        .expect("it starts");
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = String::new();
    while !lines.contains("listening on") {
        assert!(output.read_line(&mut lines).expect("text") > 0, "it ended: {lines}");
    }
    (child, output)
}

#[test]
#[ignore = "a process of its own, for the test below"]
fn the_example() {
    let arguments = std::env::var("RESTART").expect("the test says where");
    let (address, control) = arguments.split_once(' ').expect("two words");
    example_restart::run(address, control).expect("it serves");
}

fn connect(address: SocketAddr) -> Result<WebSocket<TcpStream>, String> {
    let stream = TcpStream::connect(address).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a duration above zero");
    let (mut client, _) =
        tungstenite::client("ws://localhost/", stream).map_err(|error| format!("handshake: {error}"))?;
    client.send(Message::text("hello")).map_err(|error| format!("send: {error}"))?;
    match client.read() {
        // It may have been told to go before it said anything.
        Ok(Message::Text(_) | Message::Close(_)) => Ok(client),
        other => Err(format!("no echo: {other:?}")),
    }
}

/// How the server ended it.
fn ending(client: &mut WebSocket<TcpStream>) -> Option<CloseCode> {
    loop {
        match client.read() {
            Ok(Message::Close(frame)) => {
                // The answer is sent by the next call.
                let _ = client.read();
                return frame.map(|frame| frame.code);
            }
            Ok(_) => {}
            Err(_) => return None,
        }
    }
}

#[test]
fn nobody_is_refused_and_everybody_is_sent_over() {
    const OLD: usize = 50;
    let directory = Directory::new();
    let control = directory.file("control").to_string_lossy().into_owned();
    // A port that was free a moment ago.
    let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let (mut old, mut old_output) = start(address, &control);
    let mut clients: Vec<_> = (0..OLD).map(|_| connect(address).expect("it serves")).collect();

    let (stop, begun) = (AtomicBool::new(false), Instant::now());
    let (mut new, told) = thread::scope(|scope| {
        let knock = || {
            let (mut count, mut longest) = (0_u32, Duration::ZERO);
            while !stop.load(Ordering::Relaxed) {
                let begun = Instant::now();
                let client = connect(address).unwrap_or_else(|error| panic!("client {count}: {error}"));
                longest = longest.max(begun.elapsed());
                count += 1;
                drop(client);
                thread::sleep(Duration::from_millis(2));
            }
            (count, longest)
        };
        let knocking: Vec<_> = (0..3).map(|_| scope.spawn(knock)).collect();
        thread::sleep(Duration::from_millis(200));
        let (new, new_output) = start(address, &control);
        for client in &mut clients {
            assert_eq!(ending(client), Some(CloseCode::Restart));
        }
        let mut told = String::new();
        old_output.read_to_string(&mut told).expect("text");
        assert!(old.wait().expect("our child").success(), "{told}");
        let took = begun.elapsed();
        thread::sleep(Duration::from_millis(200));
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<_> =
            knocking.into_iter().map(|thread| thread.join().expect("nobody is refused")).collect();
        let count: u32 = counts.iter().map(|(count, _)| count).sum();
        let longest = counts.iter().map(|(_, longest)| *longest).max().unwrap_or_default();
        println!(
            "{count} connections while it took {took:?}, none refused; the longest wait was {longest:?}"
        );
        assert!(count > 50, "{count} connections");
        ((new, new_output), told)
    });
    let after = connect(address).expect("the new one serves");
    drop(after);
    new.0.kill().expect("it runs");
    new.0.wait().expect("our child");
    println!("{told}");
    let all_well = "0 timed out, 0 terminated, 0 failed; 0 messages lost";
    assert!(told.contains(&format!("{OLD} clean")) && told.contains(all_well), "{told}");
}

#[test]
fn a_successor_that_fails_changes_nothing() {
    let directory = Directory::new();
    let control = directory.file("control").to_string_lossy().into_owned();
    let address = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr()).expect("a port");
    let (mut old, _output) = start(address, &control);
    for _ in 0..2 {
        // It takes the listener and goes.
        let mut successor = wait_for(|| std::os::unix::net::UnixStream::connect(&control));
        successor.read_exact(&mut [0]).expect("the listener comes with a byte");
        drop(successor);
        drop(connect(address).expect("the old one serves"));
    }
    old.kill().expect("it runs");
    old.wait().expect("our child");
    let refused = TcpStream::connect(address).expect_err("nobody listens");
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);
}

fn wait_for<T>(mut attempt: impl FnMut() -> std::io::Result<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match attempt() {
            Ok(value) => return value,
            Err(error) => assert!(Instant::now() < deadline, "{error}"),
        }
        thread::yield_now();
    }
}
