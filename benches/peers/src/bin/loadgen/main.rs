//! A light load generator for WebSocket servers on the loopback: one thread, raw epoll.
//!
//! `loadgen MODE --name value ... -- SERVER ARGS...` starts the server itself (pinned to `--server-cores`), waits until
//! it accepts, checks that its answers are correct, measures, kills it, and prints one line of JSON. Every frame is
//! masked before the clock starts. While the clock runs, bytes are counted and thrown away inside the kernel, so that
//! the server is the slower side. CPU time is that of the server's whole process (user and system, all threads), read
//! from its CPU clock in nanoseconds while the server is at rest, before and after.

mod frame;
mod lab;
mod modes;
mod slow;
mod sweep;
mod sys;
mod takeover;

use lab::{Lab, Options, Result};

fn main() {
    if let Err(error) = run() {
        eprintln!("loadgen: {error}");
        std::process::exit(1);
    }
}

fn run() -> Result<()> {
    let options = Options::parse(std::env::args().skip(1))?;
    let mode = options.mode.clone();
    let run: fn(&mut Lab) -> Result<()> = match mode.as_str() {
        "echo" => modes::echo,
        "broadcast" => modes::broadcast,
        "accept" => modes::accept,
        "idle" => modes::idle,
        "slow" => slow::slow,
        "sweep" => sweep::sweep,
        "takeover" => takeover::takeover,
        _ => return Err(format!("no such mode: {mode} (see main.rs)").into()),
    };
    run(&mut Lab::start(options)?)
}
