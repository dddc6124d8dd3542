//! A server on a thread of its own, made by the test, that tells what happens.

use std::{
    fs,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicU32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use adjourn::{
    Clients, Event, Handle, Handler, Server, ShutdownPlan,
    http::{Detached, Upgrade, UpgradeRequest},
    listeners::PeerCredentials,
    shutdown::ShutdownReport,
};
use testkit::net::REQUEST;

/// What the application was shown.
#[derive(Debug)]
pub(crate) enum Seen {
    Upgrade { peer: String, credentials: Option<PeerCredentials> },
    Open { peer: String, credentials: Option<PeerCredentials> },
    Detached(Detached),
    Failed { peer: String, error: String },
    Closed { code: u16, clean: bool },
}

/// Accepts upgrades, echoes messages, detaches plain requests.
pub(crate) struct Tell(mpsc::Sender<Seen>);

impl Tell {
    /// A test that has seen enough does not listen any more.
    fn tell(&self, seen: Seen) {
        let _ = self.0.send(seen);
    }
}

impl Handler for Tell {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if !request.is_upgrade() {
            let sender = self.0.clone();
            return Upgrade::detach(move |detached| drop(sender.send(Seen::Detached(detached))));
        }
        let peer = request.peer_addr().to_string();
        self.tell(Seen::Upgrade { peer, credentials: request.peer_credentials() });
        Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                let client = clients.get(id).expect("it is open");
                let peer = client.peer_addr().to_string();
                self.tell(Seen::Open { peer, credentials: client.peer_credentials() });
            }
            Event::Message { id, message, closing: false } => {
                let _ = clients.send(id, message);
            }
            Event::HandshakeFailed { peer, error, .. } => {
                self.tell(Seen::Failed { peer: peer.to_string(), error: error.to_string() });
            }
            Event::Close { report, .. } => {
                self.tell(Seen::Closed { code: report.effective_code(), clean: report.was_clean() });
            }
            _ => {}
        }
    }
}

pub(crate) struct Running {
    pub(crate) handle: Handle,
    pub(crate) seen: mpsc::Receiver<Seen>,
    thread: JoinHandle<ShutdownReport>,
}

impl Running {
    pub(crate) fn start(mut server: Server) -> Self {
        let (sender, seen) = mpsc::channel();
        let handle = server.handle();
        let run = move || server.run_with(&mut Tell(sender)).expect("the poll works");
        Self { handle, seen, thread: std::thread::spawn(run) }
    }

    pub(crate) fn next(&self) -> Seen {
        self.seen.recv_timeout(Duration::from_secs(10)).expect("something happens")
    }

    pub(crate) fn stop(self) -> ShutdownReport {
        self.handle.shutdown(ShutdownPlan::hard()).expect("it runs");
        self.thread.join().expect("no callback panics")
    }
}

/// Sends the request and reads the 101.
pub(crate) fn upgrade<S: Read + Write>(mut stream: S) -> S {
    stream.write_all(REQUEST).expect("it is read");
    let head = read_head(&mut stream);
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

/// Exactly the bytes of a head, or what came of one.
pub(crate) fn read_head(stream: &mut impl Read) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if stream.read(&mut byte).unwrap_or(0) == 0 {
            break;
        }
        head.push(byte[0]);
    }
    String::from_utf8_lossy(&head).into_owned()
}

/// A directory for sockets, removed with all that is in it.
pub(crate) struct Directory(PathBuf);

impl Directory {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("adjourn-{}-{number}", std::process::id()));
        fs::create_dir(&path).expect("a new directory");
        Self(path)
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        Path::new(&self.0).join(name)
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
