//! IPv4 and IPv6 on one port or apart, and ports that are shared.

use std::{
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _},
    time::Duration,
};

use adjourn::{Config, Server, ShutdownPlan, Workers, error::BindError, shutdown::LameDuckPolicy};
use mio::{Events, Interest, Poll, Token, unix::SourceFd};

use crate::serving::{Running, Seen, upgrade};

/// Says so, and passes, where the machine has no IPv6.
fn has_ipv6() -> bool {
    let found = TcpListener::bind("[::1]:0").is_ok();
    if !found {
        assert!(std::env::var_os("CI_REQUIRES_IPV6").is_none(), "no IPv6 on this machine");
        eprintln!("SKIPPED: this machine has no IPv6");
    }
    found
}

fn opened_by(running: &Running) -> SocketAddr {
    loop {
        if let Seen::Open { peer, .. } = running.next() {
            return peer.parse().expect("an address");
        }
    }
}

#[test]
fn a_listener_on_ipv6_takes_both_and_shows_ipv4_as_such() {
    if !has_ipv6() {
        return;
    }
    let server = Server::bind("[::]:0", Config::default()).expect("a port is free");
    let port = server.local_addr().expect("it listens").port();
    let running = Running::start(server);
    for address in
        [SocketAddr::from(([127, 0, 0, 1], port)), SocketAddr::from(([0_u16, 0, 0, 0, 0, 0, 0, 1], port))]
    {
        let client = upgrade(TcpStream::connect(address).expect("it listens"));
        assert_eq!(opened_by(&running), client.local_addr().expect("it is connected"));
    }
    running.stop();
}

#[test]
fn only_v6_leaves_ipv4_to_another_listener() {
    if !has_ipv6() {
        return;
    }
    let mut config = Config::default();
    config.listener.only_v6 = true;
    let mut server = Server::bind("[::]:0", config).expect("a port is free");
    let port = server.local_addr().expect("it listens").port();
    let of_ipv4 = SocketAddr::from(([127, 0, 0, 1], port));
    TcpStream::connect(of_ipv4).map(drop).expect_err("nobody listens there");
    // Unless somebody else has taken that port of IPv4 meanwhile.
    if server.listen(("0.0.0.0", port)).is_err() {
        return;
    }
    let running = Running::start(server);
    let client = upgrade(TcpStream::connect(of_ipv4).expect("it listens"));
    assert_eq!(opened_by(&running), client.local_addr().expect("it is connected"));
    upgrade(TcpStream::connect(("::1", port)).expect("it listens"));
    running.stop();
}

#[test]
fn a_port_is_shared_if_both_say_so() {
    let bind = |port: u16, reuse_port| {
        let mut config = Config::default();
        config.listener.reuse_port = reuse_port;
        Server::<()>::bind(("127.0.0.1", port), config)
    };
    let port = |server: &Server<()>| server.local_addr().expect("it listens").port();
    let alone = bind(0, false).expect("a port is free");
    let refusal = bind(port(&alone), true).map(drop).expect_err("the first one does not share");
    assert!(matches!(refusal, BindError::Listen { .. }), "{refusal}");
    let first = bind(0, true).expect("a port is free");
    bind(port(&first), true).expect("it is shared");
    bind(port(&first), false).map(drop).expect_err("the second one does not share");
}

/// What the loops of `Workers` need, `SO_REUSEPORT`, let a second server onto their port, and it got a part of the connections.
#[test]
fn workers_shared_their_port_with_whoever_came() {
    let bind = |port: u16, reuse_port| {
        let mut config = Config::default();
        config.listener.reuse_port = reuse_port;
        Workers::<()>::bind(("127.0.0.1", port), 2, config)
    };
    let first = bind(0, false).expect("a port is free");
    let port = first.local_addr().expect("it listens").port();
    let refusal = bind(port, false).map(drop).expect_err("nobody has said that it is shared");
    assert!(matches!(refusal, BindError::Listen { .. }), "{refusal}");
    bind(port, true).expect("now somebody has");
}

/// A closed listener whose socket another process has, too, went on waking the loop for each newcomer of that process.
#[test]
fn a_socket_that_was_handed_over_wakes_nobody() {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let mut server = Server::<()>::outgoing(Config::default()).expect("a poll");
    server.listen_on(socket.try_clone().expect("a descriptor")).expect("it listens");
    let mut plan = ShutdownPlan::soft(Duration::from_secs(1));
    (plan.listeners, plan.lame_duck) = (LameDuckPolicy::HandOver, Duration::from_mins(1));
    server.clients().shutdown(plan);
    while server.local_addr().is_some() {
        server.poll(Some(Duration::ZERO), |_, _| {}).expect("the poll works");
    }
    let (mut watch, mut events) = (Poll::new().expect("a poll"), Events::with_capacity(1));
    let descriptor = server.as_fd().as_raw_fd();
    watch
        .registry()
        .register(&mut SourceFd(&descriptor), Token(0), Interest::READABLE)
        .expect("it is watched");
    let _newcomer = TcpStream::connect(socket.local_addr().expect("it listens")).expect("it listens");
    watch.poll(&mut events, Some(Duration::from_millis(50))).expect("the poll works");
    assert!(events.is_empty(), "{events:?}");
    socket.accept().expect("it is for whoever has the socket");
}
