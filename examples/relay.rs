//! A relaying proxy: a WebSocket to `ws://127.0.0.1:9001/PATH` becomes one to `ws://UPSTREAM/PATH`. The client's upgrade is decided
//! when the upstream has answered: it gets the upstream's subprotocol, or 502. Messages and Close frames pass in both directions, and
//! what one side does not take, the other is not read for.
//!
//! `cargo run --example relay UPSTREAM [ADDRESS]`, with the `echo` example at 127.0.0.1:9002, say, as upstream.

use std::io;

use adjourn::{
    Clients, CloseCode, CloseFrame, Config, ConnectionId, Event, Handler, Message, Server,
    close::Initiator,
    config::CloseAnswer,
    http::{Accept, ConnectRequest, RequestError, Response, Upgrade, UpgradeRequest},
};

pub(crate) struct Relay {
    /// `HOST:PORT`.
    pub(crate) upstream: String,
    /// Unsent bytes of one side from which on the other is not read.
    pub(crate) enough: usize,
    /// Upgrades that wait for an answer of the upstream, which is yet to be asked.
    asked: Vec<(ConnectionId, ConnectRequest)>,
}

impl Handler for Relay {
    /// The other side.
    type Data = ConnectionId;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ConnectionId> {
        match self.request(request) {
            Ok(passed_on) => {
                self.asked.push((request.id(), passed_on));
                Upgrade::Defer
            }
            Err(_) => Upgrade::Reject(bad_gateway()),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ConnectionId>, event: Event<'_>) {
        let Some(id) = event.id() else { return };
        let Some((other, outgoing)) = clients.get(id).map(|side| (*side.data(), side.is_outgoing())) else {
            return;
        };
        match event {
            Event::Open { .. } if outgoing => accept(clients, other, id),
            Event::HandshakeFailed { .. } if outgoing => {
                // If the client has left meanwhile, there is nobody to notify.
                let _ = clients.reject(other, &bad_gateway());
            }
            Event::Message { message, .. } => self.pass(clients, id, other, message),
            Event::Drain { .. } => {
                clients.resume(other);
            }
            // Both directions end on their own: what is on its way here still arrives, and then the other's answer.
            Event::Closing { initiator: Initiator::Remote, frame, .. } => {
                clients.close(other, frame);
            }
            Event::Close { report, .. } => {
                let frame = report.received.unwrap_or_else(|| CloseFrame::of(CloseCode::BAD_GATEWAY));
                if !clients.answer_close(other, frame.clone()) {
                    clients.close(other, frame);
                }
            }
            _ => {}
        }
    }
}

impl Relay {
    pub(crate) fn new(upstream: String) -> Self {
        Self { upstream, enough: 256 << 10, asked: Vec::new() }
    }

    /// The client's request as the upstream gets it.
    fn request(&self, request: &UpgradeRequest<'_>) -> Result<ConnectRequest, RequestError> {
        let query = request.query().map(|query| format!("?{query}")).unwrap_or_default();
        let mut passed_on = ConnectRequest::new(&format!("ws://{}{}{query}", self.upstream, request.path()))?;
        for subprotocol in request.subprotocols() {
            passed_on = passed_on.subprotocol(subprotocol.as_str())?;
        }
        Ok(passed_on)
    }

    fn pass(
        &self,
        clients: &mut Clients<'_, ConnectionId>,
        id: ConnectionId,
        to: ConnectionId,
        message: Message<'_>,
    ) {
        // It fails if that side is closing, whose `Closing` event closes this side, too.
        let _ = clients.send(to, message);
        if clients.get(to).is_some_and(|side| side.buffered_amount() > self.enough) {
            clients.pause(id);
        }
    }
}

/// The upstream is there: the client gets 101 with the same subprotocol.
fn accept(clients: &mut Clients<'_, ConnectionId>, client: ConnectionId, upstream: ConnectionId) {
    let chosen = clients.get(upstream).and_then(|side| side.subprotocol().map(str::to_owned));
    let accepted = clients.accept(client, |request| {
        Accept::new(upstream).subprotocol(chosen.as_deref().and_then(|name| request.subprotocol(name)))
    });
    if accepted.is_err() {
        clients.close(upstream, CloseFrame::GOING_AWAY);
    }
}

fn bad_gateway() -> Response {
    Response::new(502).expect("a final status")
}

/// The settings of both sides: who closes gets the answer of the other end.
pub(crate) fn config() -> Config {
    let mut config = Config::default();
    config.connection.answer = CloseAnswer::Manual;
    config
}

/// Serves until a shutdown is complete.
pub(crate) fn serve(server: &mut Server<ConnectionId>, relay: &mut Relay) -> io::Result<()> {
    while server.poll_with(None, relay)?.is_none() {
        for (client, request) in relay.asked.drain(..) {
            if server.connect(request, client).is_err() {
                let _ = server.clients().reject(client, &bad_gateway());
            }
        }
    }
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let upstream = arguments.next().ok_or("usage: relay UPSTREAM_HOST:PORT [ADDRESS]")?;
    let mut server = Server::bind(arguments.next().as_deref().unwrap_or("127.0.0.1:9001"), config())?;
    println!("relaying ws://{} to ws://{upstream}", server.local_addr().ok_or("not listening")?);
    serve(&mut server, &mut Relay::new(upstream))?;
    Ok(())
}
