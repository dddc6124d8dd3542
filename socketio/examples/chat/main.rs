//! The chat of the Socket.IO tutorial, page and database on one port, whose messages are neither lost nor doubled: cut the
//! network, kill the server, start it again.
//!
//!     cargo run --example chat -- [--port 3000] [--db chat.db] [--client-bundle FILE] [--recovery MS]

use std::convert::Infallible;
use std::time::Duration;

use adjourn::shutdown::ShutdownPlan;
use adjourn_socketio::SocketIo;
use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::{KeyFrom, ResumeOutcome, Socket};
use adjourn_socketio::store::{AckValue, RunError, SqliteStore, Tx};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use rusqlite::params;

const PAGE: &str = include_str!("page.html");
const CDN: &str = "https://cdn.socket.io/4.8.3/socket.io.min.js";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages
    (id INTEGER PRIMARY KEY AUTOINCREMENT, client_offset TEXT UNIQUE, content TEXT NOT NULL)";

struct Options {
    port: u16,
    db: String,
    bundle: Option<String>,
    recovery: u64,
}

impl Options {
    fn parse() -> Result<Self, String> {
        let mut options = Self { port: 3000, db: "chat.db".into(), bundle: None, recovery: 120_000 };
        let mut args = std::env::args().skip(1);
        while let Some(name) = args.next() {
            let value = args.next().ok_or(format!("{name} needs a value"))?;
            let number = || value.parse::<u64>().map_err(|error| format!("{name} {value}: {error}"));
            match name.as_str() {
                "--port" => {
                    options.port = u16::try_from(number()?).map_err(|error| format!("{name}: {error}"))?
                }
                "--db" => options.db = value,
                "--client-bundle" => options.bundle = Some(value),
                "--recovery" => options.recovery = number()?,
                _ => return Err(format!("{name}: no such option")),
            }
        }
        Ok(options)
    }
}

/// Row and event in one transaction, so that the ack means both.
fn store(tx: &mut Tx<'_>, text: &str, key: Option<&str>) -> Result<AckValue, RunError> {
    tx.sql()?.execute("INSERT INTO messages (content, client_offset) VALUES (?, ?)", params![text, key])?;
    let id = tx.sql()?.last_insert_rowid();
    tx.emit_to(&["chat".into()], "chat message", (text, id))?;
    Ok(AckValue::new(())?)
}

/// All rows that a client has not seen, then the room: no message can come between.
fn catch_up(tx: &mut Tx<'_>, seen: i64) -> Result<(), RunError> {
    let mut newer = Vec::new();
    let mut query = tx.sql()?.prepare_cached("SELECT content, id FROM messages WHERE id > ? ORDER BY id")?;
    for row in query.query_map([seen], |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)))? {
        newer.push(row?);
    }
    drop(query);
    for (content, id) in newer {
        tx.emit("chat message", (content, id))?;
    }
    tx.join("chat");
    Ok(())
}

fn connected(socket: &mut Socket<'_>) {
    println!("{} {:?} {:?}", socket.id(), socket.transport(), socket.resume());
    if matches!(socket.resume(), ResumeOutcome::Resumed { .. }) {
        return;
    }
    let auth: serde_json::Value =
        serde_json::from_str(socket.handshake().auth().unwrap_or("{}")).unwrap_or_default();
    let seen = auth["serverOffset"].as_i64().unwrap_or(0);
    if let Err(error) = socket.transact(move |tx| catch_up(tx, seen), |_, done| drop(done)) {
        eprintln!("{}: {error}", socket.id());
    }
}

fn page(request: &Request<Incoming>, bundle: Option<&Bytes>) -> Response<Full<Bytes>> {
    let answer = Response::builder();
    let answer = match (request.uri().path(), bundle) {
        ("/", _) => answer.header("content-type", "text/html; charset=utf-8").body(PAGE.into()),
        ("/socket.io/socket.io.js", Some(bundle)) => {
            answer.header("content-type", "text/javascript").body(bundle.clone().into())
        }
        ("/socket.io/socket.io.js", None) => answer.status(302).header("location", CDN).body(Full::default()),
        _ => answer.status(404).body(Full::default()),
    };
    answer.expect("constant headers")
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let options = Options::parse().unwrap_or_else(|error| {
        eprintln!("chat: {error}");
        std::process::exit(2)
    });
    let database = SqliteStore::open(&options.db)?;
    database.connection().execute_batch(TABLE)?;
    let mut config = SocketIoConfig::default();
    config.recovery.get_or_insert_default().window = Duration::from_millis(options.recovery);
    let mut io = SocketIo::new(config, database)?;

    let chat = io.namespace("/");
    chat.on_connection(connected);
    chat.on_once("chat message", KeyFrom::argument(1), |call, tx| {
        let text: String = call.args.as_args().get(0)?;
        if text.is_empty() || text.len() > 2000 {
            return Err("a message has 1 to 2,000 bytes".into());
        }
        store(tx, &text, Some(&call.key))
    });
    chat.on("cut me", |socket, _, _| socket.cut());

    let bundle = options.bundle.map(std::fs::read).transpose()?.map(Bytes::from);
    io.http(service_fn(move |request| {
        let answer = page(&request, bundle.as_ref());
        async move { Ok::<_, Infallible>(answer) }
    }));
    let mut server =
        adjourn::Server::bind((std::net::Ipv4Addr::LOCALHOST, options.port), adjourn::Config::default())?;
    io.shutdown_on_signals(&mut server, ShutdownPlan::default())?;
    println!("open http://localhost:{} in two windows; Ctrl-C stops the server", options.port);
    let report = io.run(&mut server)?;
    println!("drained: {report:?}");
    Ok(())
}
