//! What the peers have in common: the command line, the listening socket, the upgrade request, SIGTERM.
//!
//! Every peer is `NAME PORT` and behaves like `examples/bench_server.rs`: `/echo`, `/broadcast`, and a graceful
//! shutdown with 1001 on SIGTERM that takes at most `BENCH_CLOSE_TIMEOUT_MS`.

pub mod epoll;
pub mod floor;
pub mod tasks;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha1::{Digest as _, Sha1};
use socket2::{Domain, Protocol, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpListener};
use std::os::fd::{FromRawFd as _, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

/// The port from the command line; any other command line ends the process with 2.
pub fn port_from_args() -> u16 {
    let mut args = std::env::args().skip(1);
    match (args.next().and_then(|port| port.parse().ok()), args.next()) {
        (Some(port), None) => port,
        _ => {
            eprintln!("usage: {} PORT", std::env::args().next().unwrap_or_default());
            std::process::exit(2);
        }
    }
}

/// A non-blocking listener whose children inherit `TCP_NODELAY`: one system call less per connection.
pub fn listen(port: u16) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_tcp_nodelay(true)?;
    socket.bind(&SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, port)).into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

/// How long a shutdown waits for the peers' Close frames.
pub fn grace() -> Duration {
    Duration::from_millis(env_number("BENCH_CLOSE_TIMEOUT_MS", 2000))
}

/// A number from the environment.
pub fn env_number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// The certificate and the key (PEM), if the row is one with TLS.
pub fn tls_files() -> Option<(PathBuf, PathBuf)> {
    let file = |name| std::env::var_os(name).map(PathBuf::from);
    file("BENCH_TLS_CERT").zip(file("BENCH_TLS_KEY"))
}

/// SIGTERM as a descriptor that becomes readable. The signal itself is blocked from here on.
pub fn sigterm_fd() -> io::Result<OwnedFd> {
    // SAFETY: plain system calls on a signal set that lives on this stack; the descriptor is ours alone.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut set);
        libc::sigaddset(&raw mut set, libc::SIGTERM);
        if libc::sigprocmask(libc::SIG_BLOCK, &raw const set, std::ptr::null_mut()) != 0 {
            return Err(io::Error::last_os_error());
        }
        let fd = libc::signalfd(-1, &raw const set, libc::SFD_NONBLOCK | libc::SFD_CLOEXEC);
        if fd < 0 { Err(io::Error::last_os_error()) } else { Ok(OwnedFd::from_raw_fd(fd)) }
    }
}

/// What a peer needs to know of an upgrade request.
pub struct Upgrade {
    pub broadcast: bool,
    pub key: String,
    /// Bytes of the request, the empty line included.
    pub len: usize,
}

/// Reads an upgrade request: `None` while the empty line has not come.
///
/// Good for a benchmark on the loopback only: it believes whatever the load generator says.
pub fn parse_upgrade(head: &[u8]) -> Option<Upgrade> {
    let len = head.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let text = std::str::from_utf8(&head[..len]).ok()?;
    let mut lines = text.split("\r\n");
    let path = lines.next()?.split(' ').nth(1)?;
    let key = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("sec-websocket-key").then(|| value.trim().to_owned())
    })?;
    Some(Upgrade { broadcast: path.starts_with("/broadcast"), key, len })
}

/// The answer that accepts an upgrade.
pub fn accept_response(key: &str) -> String {
    let mut sha1 = Sha1::new();
    sha1.update(key.as_bytes());
    sha1.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    let accept = STANDARD.encode(sha1.finalize());
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: {accept}\r\n\r\n"
    )
}
