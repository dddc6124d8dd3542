//! One connection without a socket, for tests and fuzzers of your own handler.
//!
//! A [`Session`] feeds bytes to the very hub that serves, with time as a parameter and a kernel that takes as much as it is told to, and
//! collects what the connection writes. Nothing in it is random, and nothing waits.
//!
//! ```
//! use adjourn::{Clients, Config, Event, Handler, Upgrade, UpgradeRequest, testing::{Session, frame}};
//!
//! struct Shout;
//!
//! impl Handler for Shout {
//!     type Data = ();
//!
//!     fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
//!         Upgrade::accept(())
//!     }
//!
//!     fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
//!         if let Event::Message { id, message, .. } = event {
//!             let _ = clients.send(id, message.as_text().unwrap_or_default().to_uppercase());
//!         }
//!     }
//! }
//!
//! let mut session = Session::open(Config::default(), Shout);
//! session.read(&frame(0x81, b"hello"));
//! assert_eq!(session.take_written(), b"\x81\x05HELLO");
//! ```
//!
//! # Fuzzing your handler
//!
//! A fuzz target needs nothing else: bytes in, frames out, and whatever your handler promises as assertions. With
//! `cargo fuzz init` in your crate, this is the body of `fuzz_target!`. Each input is read as frames with their first byte
//! and the length of their payload, so that what reaches the handler is mostly well-formed; [`Session::end`] panics if
//! anything is left of the connection.
//!
//! ```
//! # use adjourn::{Clients, Config, Event, Handler, Upgrade, UpgradeRequest};
//! use std::time::Duration;
//!
//! use adjourn::testing::{Session, frame};
//!
//! # struct Chat { open: bool }
//! # impl Chat {
//! #     fn new() -> Self { Self { open: false } }
//! #     fn is_tidy(&self) -> bool { !self.open }
//! # }
//! # impl Handler for Chat {
//! #     type Data = ();
//! #     fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> { Upgrade::accept(()) }
//! #     fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
//! #         match event {
//! #             Event::Open { .. } => self.open = true,
//! #             Event::Close { .. } => self.open = false,
//! #             _ => {}
//! #         }
//! #     }
//! # }
//! fn fuzz(mut bytes: &[u8]) {
//!     let mut session = Session::open(Config::default(), Chat::new());
//!     while let [first, length, rest @ ..] = bytes {
//!         let (payload, rest) = rest.split_at(rest.len().min(usize::from(*length)));
//!         session.read(&frame(*first, payload));
//!         // A peer that reads slowly, and time that passes.
//!         session.make_room(usize::from(*length));
//!         session.advance(Duration::from_millis(100));
//!         bytes = rest;
//!     }
//!     session.end();
//!     assert!(session.handler().is_tidy());
//! }
//! # fuzz(b"\x81\x05hello\x82\x00\x88\x02\x03\xe8");
//! # fuzz(b"\x81\x05hello\xff\xff");
//! ```

use std::{io, net::SocketAddr, time::Duration};

use crate::{
    config::Config,
    conn::Cursor,
    event::Event,
    handler::Handler,
    hub::{Action, Clients, Hub},
    time::Time,
};

/// An upgrade request that any server accepts.
pub const REQUEST: &[u8] =
    b"GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
    Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// More steps than a turn of one connection can need.
const MANY: usize = 10_000;

/// One connection of a hub of its own.
#[derive(Debug)]
pub struct Session<H: Handler> {
    hub: Hub<H::Data>,
    slot: usize,
    handler: H,
    written: Vec<u8>,
    now: Duration,
    /// Bytes that the kernel still takes.
    room: usize,
    fin: bool,
    gone: bool,
}

impl<H: Handler> Session<H> {
    /// A connection that was accepted and has not said anything.
    ///
    /// # Panics
    /// If the settings allow no connection at all.
    pub fn new(config: Config, handler: H) -> Self {
        let mut hub = Hub::new(config, 0, 1);
        let peer: SocketAddr = ([127, 0, 0, 1], 40_000).into();
        let slot = hub.accept(peer).expect("a session wants room for one connection");
        Self {
            hub,
            slot,
            handler,
            written: Vec::new(),
            now: Duration::ZERO,
            room: usize::MAX,
            fin: false,
            gone: false,
        }
    }

    /// A connection after its opening handshake.
    pub fn open(config: Config, handler: H) -> Self {
        let mut session = Self::new(config, handler);
        session.read(REQUEST);
        session.written.clear();
        session
    }

    /// Bytes arrive from the peer, in one piece.
    ///
    /// # Panics
    /// If the connection does not deal with all of them, or never comes to rest: both are bugs of this crate.
    pub fn read(&mut self, bytes: &[u8]) {
        if self.gone || bytes.is_empty() {
            return;
        }
        let (mut bytes, mut scratch) = (bytes.to_vec(), Vec::new());
        let mut cursor = Cursor::new(&mut bytes, &mut scratch);
        self.hub.handle_readable(self.slot);
        while let Some(event) = self.hub.next(self.slot, &mut cursor, &mut self.handler) {
            self.handler.on_event(&mut self.hub.clients(), event);
            deliver(&mut self.hub, &mut self.handler);
        }
        assert_eq!(cursor.remaining(), 0, "all that was read is dealt with");
        self.settle();
    }

    /// The peer sends FIN.
    pub fn read_eof(&mut self) {
        if !self.gone {
            self.hub.handle_eof(self.slot);
            self.settle();
        }
    }

    /// The peer resets the connection.
    pub fn reset(&mut self) {
        if !self.gone {
            self.hub.handle_reset(self.slot, io::ErrorKind::ConnectionReset);
            self.settle();
        }
    }

    /// Time passes, and what is due by then happens.
    ///
    /// # Panics
    /// If something is due again and again at one moment: a bug of this crate.
    pub fn advance(&mut self, by: Duration) {
        let target = self.now + by;
        for steps in 0.. {
            assert!(steps < MANY, "time does not pass");
            let due = self.hub.poll_timeout().map(|at| at.since(Time::ZERO)).filter(|at| *at <= target);
            self.now = due.unwrap_or(target).max(self.now);
            self.hub.begin_turn(Time::from_start(self.now));
            self.hub.handle_timeout();
            self.settle();
            if due.is_none() {
                return;
            }
        }
    }

    /// The peer goes, and time passes until nothing is left of the connection.
    ///
    /// # Panics
    /// If something is left after the longest timeouts: a bug of this crate.
    pub fn end(&mut self) {
        self.read_eof();
        for steps in 0.. {
            let Some(due) = self.hub.poll_timeout() else { break };
            assert!(steps < MANY, "the connection does not end");
            self.advance(due.since(Time::from_start(self.now)));
        }
        assert!(self.gone && self.hub.stats().total() == 0, "something is left of the connection");
    }

    /// From now on the kernel takes so many bytes and then no more; it takes everything unless this is called.
    pub fn make_room(&mut self, bytes: usize) {
        self.room = bytes;
        if !self.gone {
            self.hub.handle_writable(self.slot);
            self.settle();
        }
    }

    /// The application acts, as in a callback.
    pub fn act(&mut self, act: impl FnOnce(&mut Clients<'_, H::Data>, &mut H)) {
        act(&mut self.hub.clients(), &mut self.handler);
        self.settle();
    }

    /// What the connection has written since this was called last.
    pub fn take_written(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.written)
    }

    /// The handler.
    pub const fn handler(&mut self) -> &mut H {
        &mut self.handler
    }

    /// Whether FIN was sent.
    pub const fn sent_fin(&self) -> bool {
        self.fin
    }

    /// Whether the descriptor is closed and the slot free.
    pub const fn is_gone(&self) -> bool {
        self.gone
    }

    fn settle(&mut self) {
        for steps in 0.. {
            assert!(steps < MANY, "the connection does not come to rest");
            deliver(&mut self.hub, &mut self.handler);
            let Some(action) = self.hub.poll_action() else { return };
            match action {
                Action::Write(slot) => {
                    let (written, room) = (&mut self.written, &mut self.room);
                    let done = self.hub.transmit(slot, &mut |slices| {
                        let before = written.len();
                        for slice in slices {
                            let piece = slice.get(..*room).unwrap_or(slice);
                            written.extend_from_slice(piece);
                            *room -= piece.len();
                        }
                        match written.len() - before {
                            0 => Err(io::ErrorKind::WouldBlock.into()),
                            n => Ok(n),
                        }
                    });
                    debug_assert!(done.is_ok(), "this kernel has no errors");
                }
                Action::Connect(_) => {}
                Action::Read(slot) => {
                    let held = self.hub.take_held(slot);
                    if !held.is_empty() {
                        self.read(&held);
                    }
                }
                Action::Fin(_) => self.fin = true,
                Action::Abort(slot, _) => self.hub.handle_aborted(slot, None),
                Action::Release(..) => self.gone = true,
            }
        }
    }
}

fn deliver<H: Handler>(hub: &mut Hub<H::Data>, handler: &mut H) {
    while let Some(event) = hub.poll_event() {
        handler.on_event(&mut hub.clients(), event);
    }
}

/// A client's frame: the first byte as it is (FIN, reserved bits, opcode), the shortest length, a mask, the payload.
pub fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const KEY: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut out = vec![first];
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..126), _) => out.push(0x80 | length),
        (_, Ok(length)) => {
            out.push(0x80 | 0x7e);
            out.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            out.push(0x80 | 0x7f);
            out.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    out.extend_from_slice(&KEY);
    out.extend(payload.iter().zip(KEY.iter().cycle()).map(|(byte, key)| byte ^ key));
    out
}

/// Whatever an event says, in words that do not depend on how the bytes were cut: for comparing two sessions.
///
/// Times are left out, and so are the counts of bytes that were received in vain: how many had arrived by then is a matter
/// of the cuts. When a `Drain` comes is one, too: leave it out of the comparison.
pub fn describe(event: &Event<'_>) -> String {
    match event {
        Event::Message { id, message, closing } => {
            format!("Message {id} {:?} {:?} {closing}", message.kind(), message.as_bytes())
        }
        Event::Close { id, closed } => {
            let mut closed = closed.clone();
            (closed.duration, closed.close_phase) = (Duration::ZERO, Duration::ZERO);
            (closed.lost.trailing_bytes, closed.lost.inbound_partial_bytes) = (0, 0);
            format!("Close {id} {closed:?}")
        }
        other => format!("{other:?}"),
    }
}
