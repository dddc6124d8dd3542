//! Plain tungstenite on mio: one loop, replies are buffered by the library and flushed when a socket is drained.
//! `BENCH_READ_BUFFER` sets its read buffer (see `peer_tokio_tungstenite`).

use mio::net::{TcpListener, TcpStream};
use mio::unix::SourceFd;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd as _;
use std::rc::Rc;
use std::time::Instant;
use tungstenite::handshake::server::{
    Callback, ErrorResponse, NoCallback, Request, Response, ServerHandshake,
};
use tungstenite::handshake::{HandshakeError, MidHandshake};
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tungstenite::{Error, Message, WebSocket};

const LISTENER: Token = Token(usize::MAX);
const SIGTERM: Token = Token(usize::MAX - 1);

struct Conn {
    phase: Phase,
    broadcast: bool,
}

// Nearly all connections are in the large variant: a box would only add an allocation to each.
#[allow(clippy::large_enum_variant)]
enum Phase {
    Handshake(Box<MidHandshake<ServerHandshake<TcpStream, Look>>>, Rc<Cell<bool>>),
    Open(WebSocket<TcpStream>),
    Gone,
}

/// Notes whether the request was for `/broadcast`.
struct Look(Rc<Cell<bool>>);

impl Callback for Look {
    fn on_request(self, request: &Request, response: Response) -> Result<Response, ErrorResponse> {
        self.0.set(request.uri().path() == "/broadcast");
        NoCallback.on_request(request, response)
    }
}

fn main() -> io::Result<()> {
    let mut listener = TcpListener::from_std(adjourn_peers::listen(adjourn_peers::port_from_args())?);
    let sigterm = adjourn_peers::sigterm_fd()?;
    let mut poll = Poll::new()?;
    poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
    poll.registry().register(&mut SourceFd(&sigterm.as_raw_fd()), SIGTERM, Interest::READABLE)?;
    let mut listener = Some(listener);
    let mut events = Events::with_capacity(1024);
    let read_buffer = usize::try_from(adjourn_peers::env_number("BENCH_READ_BUFFER", 4096)).unwrap_or(4096);
    let mut server = Server {
        conns: Slab::new(),
        config: WebSocketConfig::default().read_buffer_size(read_buffer),
        relay: Vec::new(),
    };
    let mut deadline: Option<Instant> = None;
    while listener.is_some() || !server.conns.is_empty() {
        let timeout = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        if timeout.is_some_and(|timeout| timeout.is_zero()) {
            break;
        }
        match poll.poll(&mut events, timeout) {
            Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        for event in &events {
            match event.token() {
                LISTENER => {
                    if let Some(listener) = &listener {
                        server.accept(listener, &poll)?;
                    }
                }
                SIGTERM => {
                    deadline = Some(Instant::now() + adjourn_peers::grace());
                    listener = None;
                    server.close_all();
                }
                Token(key) => {
                    if server.conns.contains(key) && server.ready(key, event.is_readable()).is_none() {
                        server.conns.remove(key);
                    }
                }
            }
        }
    }
    Ok(())
}

struct Server {
    conns: Slab<Conn>,
    config: WebSocketConfig,
    /// What one turn of a connection wants relayed.
    relay: Vec<Message>,
}

impl Server {
    fn accept(&mut self, listener: &TcpListener, poll: &Poll) -> io::Result<()> {
        loop {
            match listener.accept() {
                Ok((mut stream, _)) => {
                    let entry = self.conns.vacant_entry();
                    let both = Interest::READABLE | Interest::WRITABLE;
                    poll.registry().register(&mut stream, Token(entry.key()), both)?;
                    let broadcast = Rc::new(Cell::new(false));
                    let mid = ServerHandshake::start(stream, Look(Rc::clone(&broadcast)), Some(self.config));
                    let phase = Phase::Handshake(Box::new(mid), broadcast);
                    entry.insert(Conn { phase, broadcast: false });
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// `None` ends the connection.
    fn ready(&mut self, key: usize, readable: bool) -> Option<()> {
        let conn = &mut self.conns[key];
        if matches!(conn.phase, Phase::Handshake(..)) {
            if !readable {
                return Some(()); // the first event of a fresh socket only says that it can be written
            }
            let Phase::Handshake(mid, broadcast) = std::mem::replace(&mut conn.phase, Phase::Gone) else {
                return None;
            };
            match mid.handshake() {
                Ok(socket) => {
                    conn.broadcast = broadcast.get();
                    conn.phase = Phase::Open(socket);
                }
                Err(HandshakeError::Interrupted(mid)) => {
                    conn.phase = Phase::Handshake(Box::new(mid), broadcast);
                    return Some(());
                }
                Err(HandshakeError::Failure(_)) => return None,
            }
        }
        let Phase::Open(socket) = &mut conn.phase else { return None };
        if !readable {
            return keep(socket.flush());
        }
        loop {
            match socket.read() {
                Ok(message @ (Message::Text(_) | Message::Binary(_))) if conn.broadcast => {
                    self.relay.push(message);
                }
                Ok(message @ (Message::Text(_) | Message::Binary(_))) => keep(socket.write(message))?,
                Ok(_) => {}
                Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => break,
                Err(_) => return None,
            }
        }
        keep(socket.flush())?;
        if !self.relay.is_empty() {
            for (other, conn) in &mut self.conns {
                if let Phase::Open(socket) = &mut conn.phase
                    && conn.broadcast
                    && other != key
                {
                    for message in &self.relay {
                        // A failed write shows as a failed read when its event comes.
                        let _ = socket.write(message.clone());
                    }
                    let _ = socket.flush();
                }
            }
            self.relay.clear();
        }
        Some(())
    }

    fn close_all(&mut self) {
        self.conns.retain(|_, conn| match &mut conn.phase {
            Phase::Open(socket) => {
                let frame = CloseFrame { code: CloseCode::Away, reason: "".into() };
                keep(socket.close(Some(frame))).and_then(|()| keep(socket.flush())).is_some()
            }
            _ => false,
        });
    }
}

/// A full socket is no error: the library keeps the bytes, and the next writable event sends them.
fn keep(result: Result<(), Error>) -> Option<()> {
    match result {
        Ok(()) => Some(()),
        Err(Error::Io(error)) if error.kind() == ErrorKind::WouldBlock => Some(()),
        Err(_) => None,
    }
}
