//! A light load generator for WebSocket servers on the loopback: one thread, raw epoll.
//!
//! `loadgen MODE --name value ... -- SERVER ARGS...` starts the server itself (pinned to `--server-cores`), waits until
//! it accepts, checks that its answers are correct, measures, kills it, and prints one line of JSON. Every frame is
//! masked before the clock starts. While the clock runs, bytes are counted and thrown away inside the kernel, so that
//! the server is the slower side. CPU time is that of the server's whole process (user and system, all threads), read
//! from its CPU clock in nanoseconds while the server is at rest, before and after. `loadgen certificate DIRECTORY` makes
//! what the rows with TLS need.

mod frame;
mod histogram;
mod lab;
mod modes;
mod open_loop;
mod slow;
mod storm;
mod stream;
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
    let args: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, directory] = &args[..]
        && mode == "certificate"
    {
        return stream::make_certificate(directory.as_ref());
    }
    let options = Options::parse(args.into_iter())?;
    let mode = options.mode.clone();
    let run: fn(&mut Lab) -> Result<()> = match mode.as_str() {
        "echo" => modes::echo,
        "broadcast" => modes::broadcast,
        "accept" => modes::accept,
        "idle" => modes::idle,
        "slow" => slow::slow,
        "sweep" => sweep::sweep,
        "takeover" => takeover::takeover,
        "latency" => open_loop::latency,
        "paced" => open_loop::paced,
        "crowd" => open_loop::crowd,
        "storm" => storm::storm,
        _ => return Err(format!("no such mode: {mode}").into()),
    };
    run(&mut Lab::start(options)?)
}
