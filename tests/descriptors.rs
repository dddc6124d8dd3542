//! When the process has no descriptors left, `accept` rests; when some are given back, it goes on.
//!
//! One test, because it lowers the limit of the whole process.

mod common;

use std::net::TcpStream;

use adjourn::{Config, ShutdownPlan};
use common::{Echo, descriptors, wait_until};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn accept_rests_without_descriptors_and_resumes() {
    let server = Echo::start(Config::default());
    let first = server.open();
    let before = getrlimit(Resource::Nofile);
    let limit = descriptors() as u64 + 30;
    setrlimit(Resource::Nofile, Rlimit { current: Some(limit), maximum: before.maximum })
        .expect("lowering is allowed");

    // Each connection takes a descriptor of the client and one of the server: some are left waiting.
    let mut clients: Vec<TcpStream> =
        std::iter::from_fn(|| TcpStream::connect(server.address).ok()).collect();
    assert!(clients.len() > 15 && clients.len() < 31, "{} clients", clients.len());
    wait_until("some are accepted", || server.stats().connecting > 0);
    assert!(server.stats().connecting < clients.len(), "some must wait");

    // Room again: the others get their turn, and everything still works.
    let wanted = clients.len() / 2;
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
