//! Signals after the last server is dropped, each case in a process of its own.

#![cfg(feature = "signals")]

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use adjourn::{Config, Server, ShutdownPlan};
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
    low_level::raise,
};

/// Runs `case` in a child: this test again, started by `sh -c`. Returns nothing in the child itself.
fn run(name: &str, shell: &str, case: impl FnOnce()) -> Option<ExitStatus> {
    if std::env::var_os("ADJOURN_CHILD").is_some() {
        case();
        return None;
    }
    let mut child = Command::new("sh");
    child.args(["-c", shell, "sh"]).arg(std::env::current_exe().expect("it runs"));
    child.args(["--exact", name, "--test-threads=1", "--nocapture"]).env("ADJOURN_CHILD", "1");
    Some(child.status().expect("a process can be started"))
}

/// A server that listens to signals, and is dropped.
fn come_and_go() {
    let mut server = Server::<()>::bind("127.0.0.1:0", Config::default()).expect("a port is free");
    server.shutdown_on_signals(ShutdownPlan::hard()).expect("handlers can be installed");
}

#[test]
fn signals_do_again_what_they_did() {
    let status = run("signals_do_again_what_they_did", "exec \"$@\"", || {
        come_and_go();
        raise(SIGTERM).expect("it is a signal");
        unreachable!("it has ended");
    });
    assert!(status.is_none_or(|status| status.signal() == Some(SIGTERM)), "{status:?}");
}

#[test]
fn a_process_with_a_handler_of_its_own_died() {
    let status = run("a_process_with_a_handler_of_its_own_died", "exec \"$@\"", || {
        let handlers = [SIGTERM, SIGINT].map(|signal| {
            let heard = Arc::new(AtomicBool::new(false));
            flag::register(signal, Arc::clone(&heard)).expect("a handler can be installed");
            (signal, heard)
        });
        for (signal, heard) in handlers.iter().cycle().take(4) {
            come_and_go();
            raise(*signal).expect("it is a signal");
            assert!(heard.swap(false, Ordering::Relaxed));
        }
    });
    assert!(status.is_none_or(|status| status.success()), "{status:?}");
}

#[test]
fn a_process_that_was_told_to_ignore_a_signal_died() {
    let shell = "trap '' INT; exec \"$@\"";
    let status = run("a_process_that_was_told_to_ignore_a_signal_died", shell, || {
        come_and_go();
        raise(SIGINT).expect("it is a signal");
        // The other one has its default.
        raise(SIGTERM).expect("it is a signal");
        unreachable!("it has ended");
    });
    assert!(status.is_none_or(|status| status.signal() == Some(SIGTERM)), "{status:?}");
}
