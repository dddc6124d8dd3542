//! Sockets passed as systemd does it: descriptors from 3 on, `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES`.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _},
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    process::{Child, Command, Stdio},
};

use adjourn::listeners::{Inherited, ListeningSocket};

use crate::{
    example_activated,
    serving::{Directory, upgrade},
};

/// Runs one of the ignored tests below in a process of its own, whose descriptors 3 and 4 are these. The shell's process becomes the
/// test's, so `$$` is its number.
fn start(test: &str, descriptors: [OwnedFd; 2], variables: &str) -> Child {
    let [third, fourth] = descriptors;
    let script = format!(
        "exec 3<&0 4<&2 </dev/null 2>/dev/null; export {variables}; exec \"$0\" --exact {test} --ignored --nocapture"
    );
    Command::new("sh")
        .args(["-c", &script])
        .arg(std::env::current_exe().expect("it runs"))
        .stdin(Stdio::from(third))
        .stderr(Stdio::from(fourth))
        .stdout(Stdio::piped())
        .spawn()
        .expect("there is a shell")
}

#[test]
fn an_example_serves_the_sockets_that_it_was_started_with() {
    let directory = Directory::new();
    let path = directory.file("s");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = tcp.local_addr().expect("it listens");
    let unix = UnixListener::bind(&path).expect("a new path");
    let variables = "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=chat.socket:chat.socket";
    let mut child = start("activation::the_example", [tcp.into(), unix.into()], variables);
    let mut output = BufReader::new(child.stdout.take().expect("a pipe"));
    let mut lines = String::new();
    while !lines.contains("a path") {
        assert!(output.read_line(&mut lines).expect("text") > 0, "it ended: {lines}");
    }
    assert!(lines.contains(&format!("listening on {address}")), "{lines}");
    drop(upgrade(TcpStream::connect(address).expect("it listens")));
    drop(upgrade(UnixStream::connect(&path).expect("it listens")));
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it runs");
    output.read_to_string(&mut lines).expect("text");
    assert!(child.wait().expect("our child").success(), "{lines}");
}

#[test]
#[ignore = "a process of its own, for the test above"]
fn the_example() {
    example_activated::main().expect("it serves");
}

#[test]
fn what_was_not_asked_for_is_left_alone() {
    let tcp = || TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let file = || OwnedFd::from(File::open("/proc/self/stat").expect("Linux"));
    let rows = [
        // What is in the store of descriptors may be of any kind, also a listener.
        (
            "a file that is stored",
            [tcp().into(), file()],
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=chat.socket:stored",
            "taken 1, open [false, true]",
        ),
        (
            "a listener that is stored",
            [tcp().into(), tcp().into()],
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=stored:chat.socket",
            "taken 1, open [true, false]",
        ),
        (
            "another unit's",
            [tcp().into(), tcp().into()],
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=a:b",
            "taken 0, open [true, true]",
        ),
        (
            "no names",
            [tcp().into(), tcp().into()],
            "LISTEN_PID=$$ LISTEN_FDS=2",
            "taken 0, open [true, true]",
        ),
        (
            "one without a name",
            [tcp().into(), tcp().into()],
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=:chat.socket",
            "taken 1, open [true, false]",
        ),
        (
            "fewer descriptors",
            [tcp().into(), tcp().into()],
            "LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=chat.socket",
            "taken 1, open [false, true]",
        ),
        (
            "another process's",
            [tcp().into(), tcp().into()],
            "LISTEN_PID=1 LISTEN_FDS=2 LISTEN_FDNAMES=chat.socket:chat.socket",
            "taken 0, open [true, true]",
        ),
        ("nothing", [tcp().into(), tcp().into()], "NOTHING=1", "taken 0, open [true, true]"),
        (
            "a file of this name",
            [tcp().into(), file()],
            "LISTEN_PID=$$ LISTEN_FDS=2 LISTEN_FDNAMES=other:chat.socket",
            "refused, open [true, true]",
        ),
    ];
    for (what, descriptors, variables, expected) in rows {
        let mut child = start("activation::takes_and_tells", descriptors, variables);
        let mut told = String::new();
        child.stdout.take().expect("a pipe").read_to_string(&mut told).expect("text");
        assert!(child.wait().expect("our child").success(), "{what}: {told}");
        assert!(told.contains(expected), "{what}: {told}");
    }
}

#[test]
#[ignore = "a process of its own, for the test above"]
fn takes_and_tells() {
    let mut inherited = Inherited::from_environment();
    let taken = inherited.take("chat.socket").map(|sockets| sockets.len());
    // What was taken is closed by now.
    let open = [3, 4].map(|number| std::fs::exists(format!("/proc/self/fd/{number}")).expect("Linux"));
    match taken {
        Ok(taken) => println!("taken {taken}, open {open:?}"),
        Err(_) => println!("refused, open {open:?}"),
    }
    assert!(inherited.take("chat.socket").map_or(true, |again| again.is_empty()), "once");
    assert!(std::env::var_os("LISTEN_FDS").is_none(), "a child does not take them for its own");
}

#[test]
fn sockets_are_known_by_their_kind() {
    let socket = ListeningSocket::from(TcpListener::bind("127.0.0.1:0").expect("a port is free"));
    assert_eq!(socket.try_clone().expect("a descriptor").local_addr(), socket.local_addr());
    let directory = Directory::new();
    let socket = ListeningSocket::from(UnixListener::bind(directory.file("s")).expect("a new path"));
    assert_eq!((socket.local_addr(), socket.try_clone().expect("a descriptor").local_addr()), (None, None));
}
