//! When the process has no descriptors left, `accept` rests; when some are given back, it goes on.
//!
//! One test, because it lowers the limit of the whole process.

use std::net::TcpStream;

use adjourn::{Config, ShutdownPlan};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use testkit::net::{Echo, descriptors, wait_until};

#[test]
fn accept_rests_without_descriptors_and_resumes() {
    let server = Echo::start(Config::default());
    let first = server.open();
    let before = getrlimit(Resource::Nofile);
    let limit = descriptors() as u64 + 30;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: before.maximum })
        .expect("lowering is allowed");

    // Each connection takes a descriptor of the client and one of the server, so most likely some are left waiting.
    let mut clients: Vec<TcpStream> =
        std::iter::from_fn(|| TcpStream::connect(server.address).ok()).collect();
    assert!(clients.len() > 10, "{} clients", clients.len());
    assert!(descriptors_are_used_up(), "the clients took what the server left");

    // Room again: the others get their turn, and everything still works.
    let wanted = clients.len() / 3;
    clients.truncate(wanted);
    wait_until("the rest is accepted", || server.stats().connecting == wanted);
    drop(clients);
    wait_until("they are gone", || server.stats().connecting == 0);
    setrlimit(Resource::Nofile, before).expect("up to the maximum is allowed");
    let second = server.open();
    assert_eq!(server.stats().open, 2);
    drop((first, second));
    server.shut_down(ShutdownPlan::hard());
}

/// Whether this process can open no further file.
fn descriptors_are_used_up() -> bool {
    std::fs::File::open("/dev/null").is_err()
}
