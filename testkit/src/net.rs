//! A server on a thread of its own, for tests over real sockets.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    sync::{Arc, Mutex, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use adjourn::{
    Clients, CloseReport, Config, Event, Handle, Server, ShutdownPlan, clients::Stats, error::HandshakeError,
    shutdown::ShutdownReport,
};

pub const REQUEST: &[u8] =
    b"GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// An echo server that keeps its reports.
pub struct Echo {
    pub address: SocketAddr,
    pub handle: Handle,
    pub closed: Arc<Mutex<Vec<CloseReport>>>,
    pub failed: Arc<Mutex<Vec<HandshakeError>>>,
    /// What `accept` failed with.
    pub not_accepted: Arc<Mutex<Vec<String>>>,
    thread: Option<JoinHandle<ShutdownReport>>,
}

impl Echo {
    pub fn start(config: Config) -> Self {
        let (sender, receiver) = mpsc::channel();
        let (closed, failed) = <(Arc<Mutex<Vec<_>>>, Arc<Mutex<Vec<_>>>)>::default();
        let (closed_there, failed_there) = (Arc::clone(&closed), Arc::clone(&failed));
        let not_accepted = Arc::<Mutex<Vec<_>>>::default();
        let not_accepted_there = Arc::clone(&not_accepted);
        let thread = std::thread::spawn(move || {
            let mut server = Server::bind("127.0.0.1:0", config).expect("a port is free");
            let address = server.local_addr().expect("it listens");
            sender.send((address, server.handle())).expect("the test waits for it");
            server
                .run(|clients, event| match event {
                    Event::Message { id, message, closing: false } => {
                        let _ = clients.send(id, message);
                    }
                    Event::Close { report: closed, .. } => {
                        closed_there.lock().expect("not poisoned").push(*closed);
                    }
                    Event::HandshakeFailed { error: cause, .. } => {
                        failed_there.lock().expect("not poisoned").push(cause);
                    }
                    Event::AcceptFailed { error } => {
                        not_accepted_there.lock().expect("not poisoned").push(error.to_string());
                    }
                    _ => {}
                })
                .expect("the poll works")
        });
        let (address, handle) = receiver.recv().expect("the server starts");
        Self { address, handle, closed, failed, not_accepted, thread: Some(thread) }
    }

    pub fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a duration above zero");
        stream
    }

    /// A connection after its opening handshake, which takes exactly the bytes of the 101.
    pub fn open(&self) -> TcpStream {
        let mut stream = self.connect();
        stream.write_all(REQUEST).expect("the server reads");
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            stream.read_exact(&mut byte).expect("the server answers");
            head.push(byte[0]);
        }
        assert!(head.starts_with(b"HTTP/1.1 101 "), "{}", String::from_utf8_lossy(&head));
        stream
    }

    /// Asks the loop something.
    pub fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Clients<'_, ()>) -> T + Send + 'static,
    ) -> T {
        let (sender, receiver) = mpsc::channel();
        self.handle
            .defer(move |clients| sender.send(question(clients)).expect("the test waits"))
            .expect("the server runs");
        receiver.recv_timeout(Duration::from_secs(10)).expect("the loop turns")
    }

    pub fn stats(&self) -> Stats {
        self.ask(|clients| clients.stats())
    }

    /// Waits until the loop holds no connection in any state.
    pub fn wait_until_empty(&self) {
        wait_until("the server is empty", || self.stats().total() == 0);
    }

    pub fn shut_down(mut self, plan: ShutdownPlan) -> ShutdownReport {
        self.handle.shutdown(plan).expect("the server runs");
        self.thread.take().expect("once").join().expect("no callback panics")
    }
}

/// Polls for a condition that another thread brings about.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::yield_now();
    }
}

/// A masked frame of a client.
pub fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let key = [1, 2, 3, 4];
    let mut out = vec![0x80 | opcode];
    match payload.len() {
        n @ 0..126 => out.push(0x80 | u8::try_from(n).expect("below 126")),
        n => {
            out.push(0x80 | 0x7e);
            out.extend_from_slice(&u16::try_from(n).expect("short").to_be_bytes());
        }
    }
    out.extend_from_slice(&key);
    out.extend(payload.iter().zip(key.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// How many descriptors this process has.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").expect("Linux").count()
}
