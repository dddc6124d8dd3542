//! WebSocket, pages and an API on one port: hyper serves whatever asks for no WebSocket.
//!
//! `cargo run --example http_and_ws`, then open <http://127.0.0.1:9001/> and <ws://127.0.0.1:9001>.

use std::{convert::Infallible, error::Error, future, io::Cursor, thread};

use adjourn::{
    Clients, Config, Event, Handler, Server,
    http::{Detached, Upgrade, UpgradeRequest},
};
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{io::AsyncReadExt as _, net::TcpStream, runtime};

/// Echoes over WebSocket, and passes all else on.
pub(crate) struct OnePort(runtime::Handle);

impl OnePort {
    /// Starts a thread for hyper.
    pub(crate) fn new() -> Result<Self, Box<dyn Error>> {
        let runtime = runtime::Builder::new_current_thread().enable_io().build()?;
        let port = Self(runtime.handle().clone());
        thread::spawn(move || runtime.block_on(future::pending::<()>()));
        Ok(port)
    }
}

impl Handler for OnePort {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if request.is_upgrade() {
            return Upgrade::accept(());
        }
        let pages = self.0.clone();
        Upgrade::detach(move |connection| drop(pages.spawn(serve(connection))))
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        if let Event::Message { id, message, closing: false } = event {
            let _ = clients.send(id, message);
        }
    }
}

/// What the loop has read comes first, then the socket.
async fn serve(connection: Detached) -> Option<()> {
    let (stream, received) = connection.into_tcp()?;
    let (reader, writer) = TcpStream::from_std(stream).ok()?.into_split();
    let stream = TokioIo::new(tokio::io::join(Cursor::new(received).chain(reader), writer));
    let page = |request: Request<Incoming>| async move {
        Ok::<_, Infallible>(Response::new(format!("{} {}\n", request.method(), request.uri())))
    };
    http1::Builder::new().serve_connection(stream, service_fn(page)).await.ok()
}

fn main() -> Result<(), Box<dyn Error>> {
    Server::bind("127.0.0.1:9001", Config::default())?.run_with(&mut OnePort::new()?)?;
    Ok(())
}
