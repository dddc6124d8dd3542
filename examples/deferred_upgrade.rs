//! Authentication in another thread: the loop goes on while a slow question is answered. Then the client gets its 101 or a 403.
//!
//! `cargo run --example deferred_upgrade`, then connect to <ws://127.0.0.1:9001/ada> or to <ws://127.0.0.1:9001/eve>.

use std::{error::Error, sync::mpsc, thread, time::Duration};

use adjourn::{
    Clients, Config, ConnectionId, Event, Handle, Handler, Server,
    http::{Accept, Response, Upgrade, UpgradeRequest},
};

/// Asks who may enter.
pub(crate) struct Door(mpsc::SyncSender<(ConnectionId, String)>);

impl Door {
    /// Starts the thread that decides.
    pub(crate) fn new(handle: Handle<String>) -> Self {
        let (questions, asked) = mpsc::sync_channel::<(ConnectionId, String)>(64);
        thread::spawn(move || {
            for (id, name) in asked {
                thread::sleep(Duration::from_millis(50)); // a database
                let answered = match name.as_str() {
                    "ada" | "bob" => handle.accept(id, |_| Accept::new(name)),
                    _ => Response::new(403).map_or(Ok(()), |refusal| handle.reject(id, refusal)),
                };
                answered.expect("the server runs");
            }
        });
        Self(questions)
    }
}

impl Handler for Door {
    type Data = String;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, String> {
        let name = request.path().trim_start_matches('/').to_owned();
        match self.0.try_send((request.id(), name)) {
            Ok(()) => Upgrade::Defer,
            Err(_) => Upgrade::Reject(Response::unavailable(Duration::from_secs(1))),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, String>, event: Event<'_>) {
        match event {
            Event::Open { id } => {
                let name = clients.get(id).map(|client| client.data().clone()).unwrap_or_default();
                let _ = clients.send(id, format!("hello, {name}"));
            }
            Event::HandshakeFailed { peer, error, .. } => println!("{peer}: {error}"),
            _ => {}
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut server = Server::bind("127.0.0.1:9001", Config::default())?;
    server.run_with(&mut Door::new(server.handle()))?;
    Ok(())
}
