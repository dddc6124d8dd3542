//! The chat of the Socket.IO tutorial, page and database on one port, whose messages are neither lost nor doubled: cut the
//! network, kill the server, start it again.
//!
//!     chat [--port 3000] [--db chat.db] [--client-bundle FILE] [--recovery MS]

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use adjourn::{Config, Server, ShutdownPlan};
use adjourn_socketio::{AckValue, Args, Io, KeyFrom, OnceCall, OnceError, RunError};
use adjourn_socketio::{Socket, SocketIo, SocketIoConfig, SqliteStore, Tx};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;

const PAGE: &str = include_str!("page.html");
const BUNDLE: &str = "/socket.io/socket.io.js";
const CDN: &str = "https://cdn.socket.io/4.8.1/socket.io.min.js";
const TABLE: &str = "CREATE TABLE IF NOT EXISTS messages
    (id INTEGER PRIMARY KEY AUTOINCREMENT, client_offset TEXT UNIQUE, content TEXT NOT NULL)";

const INSERT: &str = "INSERT INTO messages (content, client_offset) VALUES (?, ?) ON CONFLICT DO NOTHING";

/// The client's key; a message without one is stored each time.
fn key(args: Args<'_>) -> Option<String> {
    args.get(1).ok().or_else(|| Some(format!("{:x}", getrandom::u64().ok()?)))
}

/// Row and event in one transaction, so that the ack means both.
fn store(call: &OnceCall, tx: &mut Tx<'_>) -> Result<AckValue, RunError> {
    let (text, key): (String, Option<String>) =
        (call.args.as_args().get(0)?, call.args.as_args().get(1).ok());
    if text.is_empty() || text.len() > 2000 {
        return Err("a message has 1 to 2,000 bytes".into());
    }
    // The layer knows a key for a day, the table for ever.
    if tx.sql()?.execute(INSERT, (&text, key))? == 1 {
        let id = tx.sql()?.last_insert_rowid();
        tx.emit_to(&["chat".into()], "chat message", (text, id))?;
    }
    Ok(AckValue::new(())?)
}

/// All rows that a client has not seen, then the room: no message can come between.
fn catch_up(tx: &mut Tx<'_>, seen: i64) -> Result<(), RunError> {
    let mut query = tx.sql()?.prepare("SELECT content, id FROM messages WHERE id > ? ORDER BY id")?;
    let rows = query.query_map([seen], |row| Ok((row.get(0)?, row.get(1)?)))?;
    let rows: Vec<(String, i64)> = rows.collect::<Result<_, _>>()?;
    drop(query);
    for row in rows {
        tx.emit("chat message", row)?;
    }
    tx.join("chat");
    Ok(())
}

fn connected(socket: &mut Socket<'_>) {
    println!("{} {:?} {:?}", socket.id(), socket.transport(), socket.resume());
    // Not all that resume have it: what they asked for may have failed after they were cut.
    if socket.rooms().iter().any(|room| &**room == "chat") {
        return;
    }
    let auth = serde_json::from_str::<serde_json::Value>(socket.handshake().auth().unwrap_or("{}"));
    let seen = auth.map_or(0, |auth| auth["serverOffset"].as_i64().unwrap_or(0));
    let id = Arc::clone(socket.id());
    // Without its room it would hear nothing. It comes back and tries again.
    let again = move |io: &mut Io<'_>, done: Result<(), OnceError>| {
        if let (Err(error), Some(mut socket)) = (done, io.socket("/", &id)) {
            eprintln!("{id}: {error}");
            socket.close_engine();
        }
    };
    if socket.transact(move |tx| catch_up(tx, seen), again).is_err() {
        socket.close_engine();
    }
}

fn page(path: &str, bundle: &Bytes) -> hyper::http::Result<hyper::Response<Full<Bytes>>> {
    let answer = hyper::Response::builder();
    match path {
        "/" => answer.header("content-type", "text/html; charset=utf-8").body(PAGE.into()),
        BUNDLE if bundle.is_empty() => answer.status(302).header("location", CDN).body(Full::default()),
        BUNDLE => answer.header("content-type", "text/javascript").body(bundle.clone().into()),
        _ => answer.status(404).body(Full::default()),
    }
}

/// Port, database, client bundle and window by the command line; or what is wrong with it.
fn command_line() -> Result<(u16, String, String, u64), String> {
    let names = ["--port", "--db", "--client-bundle", "--recovery"];
    let mut values = ["3000", "chat.db", "", "120000"].map(String::from);
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let (name, value) = arg.split_once('=').map_or((&*arg, None), |(name, value)| (name, Some(value)));
        let place = names.iter().position(|known| *known == name).ok_or(format!("{name}: no such option"))?;
        let value = value.map(str::to_owned).or_else(|| args.next());
        values[place] = value.ok_or(format!("{name} needs a value"))?;
    }
    let [port, db, bundle, window] = values;
    let port = port.parse().map_err(|wrong| format!("--port {port}: {wrong}"))?;
    Ok((port, db, bundle, window.parse().map_err(|wrong| format!("--recovery {window}: {wrong}"))?))
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let (port, db, bundle, window) = command_line().unwrap_or_else(|wrong| {
        eprintln!("chat: {wrong}");
        std::process::exit(2)
    });
    let bundle = if bundle.is_empty() { Bytes::new() } else { std::fs::read(bundle)?.into() };
    let database = SqliteStore::open(&db)?;
    database.connection().execute_batch(TABLE)?;
    let mut config = SocketIoConfig::default();
    config.recovery.get_or_insert_default().window = Duration::from_millis(window);
    let mut io = SocketIo::new(config, database)?;
    let chat = io.namespace("/");
    chat.on_connection(connected);
    chat.on_once("chat message", KeyFrom::with(key), store);
    chat.on("cut me", |socket, _, _| socket.cut());
    io.http(service_fn(move |request| std::future::ready(page(request.uri().path(), &bundle))));

    let mut server = Server::bind((Ipv4Addr::LOCALHOST, port), Config::default())?;
    io.shutdown_on_signals(&mut server, ShutdownPlan::soft(Duration::from_secs(2)))?;
    println!("open http://localhost:{port} in two windows; Ctrl-C stops the server");
    let report = io.run(&mut server)?;
    println!("drained: {} sessions can be resumed, {} unsaved", report.resumable, report.unsaved_sessions);
    Ok(())
}
