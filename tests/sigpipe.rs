//! No write raises SIGPIPE: a server that has left the signal at its default would be ended by a peer.

#![cfg(unix)]

use std::{
    io::Write as _,
    net::{Shutdown, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use adjourn::{
    Config, Event, Server,
    testing::{REQUEST, frame},
};
use signal_hook::{consts::SIGPIPE, flag};
use socket2::SockRef;

#[test]
fn a_peer_that_resets_raises_no_sigpipe() {
    let raised = Arc::new(AtomicBool::new(false));
    flag::register(SIGPIPE, Arc::clone(&raised)).expect("a handler");
    let mut server = Server::bind("127.0.0.1:0", Config::default()).expect("a port");
    let address = server.local_addr().expect("it listens");
    for _ in 0..20 {
        let mut peer = TcpStream::connect(address).expect("it listens");
        peer.write_all(REQUEST).expect("there is room");
        let mut app = Flood::default();
        let mut peer = Some(peer);
        while !app.ended {
            server.poll_with(Some(Duration::from_secs(5)), &mut app).expect("the poll works");
            if app.closing {
                // Much waits for it. What is sent to a socket that was reset behind its FIN is EPIPE.
                peer.take();
            } else if app.queued
                && let Some(peer) = &mut peer
            {
                SockRef::from(&*peer).set_linger(Some(Duration::ZERO)).expect("a socket");
                peer.write_all(&frame(0x88, b"")).expect("there is room");
                peer.shutdown(Shutdown::Write).expect("a socket");
            }
        }
    }
    assert!(!raised.load(Ordering::Acquire), "SIGPIPE");
}

#[derive(Default)]
struct Flood {
    queued: bool,
    closing: bool,
    ended: bool,
}

impl adjourn::Handler for Flood {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &adjourn::http::UpgradeRequest<'r>) -> adjourn::http::Upgrade<'r, ()> {
        adjourn::http::Upgrade::accept(())
    }

    fn on_event(&mut self, clients: &mut adjourn::Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                for _ in 0..200 {
                    clients.send(id, vec![0; 100_000]).expect("room");
                }
                self.queued = true;
            }
            Event::Closing { .. } => self.closing = true,
            Event::Close { .. } => self.ended = true,
            _ => {}
        }
    }
}
