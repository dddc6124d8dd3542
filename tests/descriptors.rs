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

    // One descriptor is left, and a client takes it: `accept` fails, and says so.
    let open_null = || std::fs::File::open("/dev/null").ok();
    let mut files: Vec<_> = std::iter::from_fn(open_null).collect();
    files.pop();
    let waiting = TcpStream::connect(server.address).expect("there is a descriptor");
    wait_until("the failure is counted", || server.stats().accept_errors > 0);
    wait_until("it has been tried again", || server.stats().accept_errors > 2);
    let reports = server.not_accepted.lock().expect("not poisoned").clone();
    assert_eq!(reports.len(), 1, "once, not at each attempt: {reports:?}");
    assert!(reports[0].contains("open files"), "{reports:?}");
    drop(files);
    wait_until("it is accepted", || server.stats().connecting == 1);
    drop(waiting);
    wait_until("it is gone", || server.stats().connecting == 0);

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
