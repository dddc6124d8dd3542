//! A server with the admin namespace, and the official admin page on the same port.
//!
//!     npm install @socket.io/admin-ui
//!     ADMIN_PASSWORD=secret cargo run --example admin --features admin -- node_modules/@socket.io/admin-ui/ui/dist
//!
//! Open <http://127.0.0.1:3000/>; server URL `http://127.0.0.1:3000`, user `admin`, that password. Clients may send `echo`, and
//! `join` with the name of a room.

use std::path::{Component, Path};
use std::time::Duration;

use adjourn::{Config, Server, ShutdownPlan};
use adjourn_socketio::{MemoryStore, SocketIo, SocketIoConfig, admin::AdminConfig};
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::service::service_fn;

/// The file that a path names.
fn page(folder: &str, path: &str) -> hyper::http::Result<hyper::Response<Full<Bytes>>> {
    let name = if path == "/" { "index.html" } else { path.trim_start_matches('/') };
    let kind = match name.rsplit_once('.') {
        Some((_, "html")) => "text/html; charset=utf-8",
        Some((_, "js")) => "text/javascript",
        Some((_, "css")) => "text/css",
        Some((_, "svg")) => "image/svg+xml",
        _ => "application/octet-stream",
    };
    let answer = hyper::Response::builder();
    let inside = Path::new(name).components().all(|part| matches!(part, Component::Normal(_)));
    match inside.then(|| std::fs::read(Path::new(folder).join(name))) {
        Some(Ok(file)) => answer.header("content-type", kind).body(Full::new(file.into())),
        _ => answer.status(404).body(Full::default()),
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = std::env::args().nth(1).ok_or("the folder of the admin page is missing")?;
    let port = std::env::args().nth(2).map_or(Ok(3000), |port| port.parse::<u16>())?;
    let mut io = SocketIo::new(SocketIoConfig::default(), MemoryStore::new())?;
    io.admin(AdminConfig::basic("admin", std::env::var("ADMIN_PASSWORD")?));
    let all = io.namespace("/");
    all.on("echo", |socket, args, ack| {
        socket.emit("echo", args).ok();
        ack.map(|ack| ack.send(socket.io(), args));
    });
    all.on("join", |socket, args, _| {
        if let Ok(room) = args.get::<String>(0) {
            socket.join(&room).ok();
        }
    });
    io.http(service_fn(move |request| {
        let answer = page(&folder, request.uri().path());
        async move { answer }
    }));

    let mut server = Server::bind(("127.0.0.1", port), Config::default())?;
    io.shutdown_on_signals(&mut server, ShutdownPlan::soft(Duration::from_secs(2)))?;
    println!("http://127.0.0.1:{}/", server.local_addr().map_or(port, |address| address.port()));
    io.run(&mut server)?;
    Ok(())
}
