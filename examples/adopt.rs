//! The other way round: a hyper server owns the port, and hands the streams that it has upgraded over to a loop.
//!
//! `cargo run --example adopt`, then connect to <ws://127.0.0.1:9001>.

use std::{error::Error, future, thread};

use adjourn::{
    Config, Event, Handle, Server,
    http::{Adopt, Role},
};
use hyper::{Request, Response, body::Incoming, http, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tungstenite::handshake::derive_accept_key;

fn main() -> Result<(), Box<dyn Error>> {
    let listener = std::net::TcpListener::bind("127.0.0.1:9001")?;
    let mut server = Server::outgoing(Config::default())?;
    let handle = server.handle();
    thread::spawn(move || serve(listener, &handle));
    server.run(|clients, event| {
        if let Event::Message { id, message, closing: false } = event {
            let _ = clients.send(id, message);
        }
    })?;
    Ok(())
}

/// The HTTP server.
pub(crate) fn serve(listener: std::net::TcpListener, handle: &Handle) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        loop {
            let (stream, _) = listener.accept().await?;
            let handle = handle.clone();
            let service = service_fn(move |request| future::ready(answer(request, handle.clone())));
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::spawn(connection.with_upgrades());
        }
    })
}

fn answer(mut request: Request<Incoming>, handle: Handle) -> http::Result<Response<String>> {
    let Some(key) = request.headers().get("Sec-WebSocket-Key") else {
        return Ok(Response::new("a page\n".into()));
    };
    let accept = derive_accept_key(key.as_bytes());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.ok()?;
        let parts = upgraded.downcast::<TokioIo<TcpStream>>().ok()?;
        let stream = parts.io.into_inner().into_std().ok()?;
        handle.adopt(Adopt::new(stream, Role::Server, ()).received(parts.read_buf), drop);
        Some(())
    });
    let response = Response::builder().status(101).header("Upgrade", "websocket");
    response.header("Connection", "Upgrade").header("Sec-WebSocket-Accept", accept).body(String::new())
}
