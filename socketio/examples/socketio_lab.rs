//! A server for tests that others write: every way that a session can go, on demand.

use std::io::Write as _;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use adjourn::Server;
use adjourn::tls::{Identity, ServerTls};
use adjourn_socketio::stats::SocketIoStats;
use adjourn_socketio::store::{MemoryStore, SqliteStore, Store, StoreError, Synchronous};
use adjourn_socketio::{Conn, DrainReport, SocketIo};
use hyper::service::service_fn;
use serde_json::{Value, json};

use self::events::{Lab, check_token};
use self::http::LateHandle;
use self::options::{Options, StoreOption, Suite};
use self::rows::{Rows, TABLE};

#[path = "socketio_lab/events.rs"]
mod events;
#[path = "socketio_lab/http.rs"]
mod http;
#[path = "socketio_lab/options.rs"]
mod options;
#[path = "socketio_lab/process.rs"]
mod process;
#[path = "socketio_lab/rows.rs"]
mod rows;
#[path = "socketio_lab/suite.rs"]
mod suite;

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(wrong) => {
            eprintln!("socketio_lab: {wrong}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("socketio_lab: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    let (store, rows) = open_store(options)?;
    let mut io = SocketIo::new(options.config.clone(), store)?;
    let handle: LateHandle = Arc::new(OnceLock::new());
    match options.suite {
        Some(Suite::Socket) => suite::serve_socket(&mut io),
        Some(Suite::Engine) => suite::serve_engine(&mut io),
        None => serve_lab(&mut io, &Lab::new(Arc::clone(&handle), rows, options.plan.clone(), options.log)),
    }
    #[cfg(feature = "admin")]
    if let Some(password) = &options.admin {
        io.admin(adjourn_socketio::admin::AdminConfig::basic("admin", password));
    }
    let of_http = Arc::clone(&handle);
    io.http(service_fn(move |request| http::serve(Arc::clone(&of_http), request)));
    let mut config = adjourn::Config::default();
    if let Some((chain, key)) = options.tls_cert.as_ref().zip(options.tls_key.as_ref()) {
        config.listener.tls = Some(ServerTls::new(Identity::from_files(chain, key)?));
    }
    let mut server: Server<Conn> = Server::bind(("127.0.0.1", options.port), config)?;
    io.shutdown_on_signals(&mut server, options.plan.clone())?;
    // It was empty.
    let _ = handle.set(io.handle(&server));
    let address = server.local_addr().ok_or("no address")?;
    let (addr, port, pid) = (address.to_string(), address.port(), std::process::id());
    print_line(&json!({ "event": "listening", "addr": addr, "port": port, "pid": pid }));
    let report = if options.log { run_logged(&mut io, &mut server)? } else { io.run(&mut server)? };
    print_line(&drained(&report));
    Ok(())
}

fn open_store(options: &Options) -> Result<(Box<dyn Store>, Rows), StoreError> {
    match &options.store {
        StoreOption::Memory => Ok((Box::new(MemoryStore::new()), Rows::memory())),
        StoreOption::Sqlite(file) => {
            let synchronous = if options.full_sync { Synchronous::Full } else { Synchronous::Normal };
            let store = SqliteStore::open(file)?.synchronous(synchronous);
            store.connection().execute_batch(TABLE)?;
            Ok((Box::new(store), Rows::Sqlite))
        }
        StoreOption::Redis(url) => open_redis(url, &options.stream),
    }
}

#[cfg(feature = "redis")]
fn open_redis(url: &str, stream: &str) -> Result<(Box<dyn Store>, Rows), StoreError> {
    Ok((Box::new(adjourn_socketio::store::RedisStore::new(url, stream)?), Rows::Redis))
}

#[cfg(not(feature = "redis"))]
fn open_redis(_: &str, _: &str) -> Result<(Box<dyn Store>, Rows), StoreError> {
    Err(StoreError::Failed("this build has no Redis store: --features redis".into()))
}

fn serve_lab(io: &mut SocketIo, lab: &Lab) {
    for name in ["/", "/plain", "/auth"] {
        lab.serve(io.namespace(name));
    }
    io.namespace("/auth").check(|handshake, verdict| match check_token(handshake) {
        Ok(()) => verdict.accept(""),
        Err(error) => verdict.refuse(error),
    });
    let is_dynamic = |name: &str| {
        let digits = name.strip_prefix("/dyn-");
        digits.is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    };
    lab.serve_echo(io.namespace_matching(move |name, _| is_dynamic(name)));
}

/// The same as `run`, with a line for each refusal and each change of the store's state.
fn run_logged(io: &mut SocketIo, server: &mut Server<Conn>) -> Result<DrainReport, Failure> {
    io.on_store_state(|up| print_line(&json!({ "event": "store", "state": if up { "up" } else { "down" } })));
    let mut before = refusals(&io.stats());
    loop {
        let report = io.turn(server, Some(Duration::from_secs(1)))?;
        let now = refusals(&io.stats());
        for ((code, before), (_, now)) in before.iter().zip(&now) {
            for _ in *before..*now {
                print_line(&json!({ "event": "refused", "code": code }));
            }
        }
        before = now;
        if let Some(report) = report {
            return Ok(report);
        }
    }
}

fn refusals(stats: &SocketIoStats) -> [(u16, u64); 7] {
    [
        (0, stats.refused_transport),
        (1, stats.refused_session),
        (2, stats.refused_method),
        (3, stats.refused_request),
        (4, stats.refused_forbidden),
        (5, stats.refused_version),
        (503, stats.refused_unavailable),
    ]
}

fn drained(report: &DrainReport) -> Value {
    let raw = &report.raw;
    json!({
        "event": "drained",
        "sockets": report.sockets,
        "polling": report.polling,
        "resumable": report.resumable,
        "unsaved_sessions": report.unsaved_sessions,
        "unflushed_entries": report.unflushed_entries,
        "live_at_start": raw.live_at_start,
        "refused_503": raw.refused_503,
        "clean": raw.clean,
        "by_peer": raw.by_peer,
        "timed_out": raw.timed_out,
        "terminated": raw.terminated,
        "failed": raw.failed,
        "lost_messages": raw.lost.messages,
        "lost_bytes": raw.lost.bytes,
        "took_ms": u64::try_from(raw.took.as_millis()).unwrap_or(u64::MAX),
    })
}

/// One JSON object a line, at once.
fn print_line(line: &Value) {
    let mut out = std::io::stdout().lock();
    // A reader that has gone is no reason to stop serving.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
