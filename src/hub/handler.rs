//! What an application is to the loop: someone who decides on upgrades and hears of events.

use std::marker::PhantomData;

use super::{
    clients::Clients,
    decision::{Upgrade, UpgradeRequest},
};
use crate::event::Event;

/// An application. Its callbacks run on the loop's thread, one at a time; what they ask for happens when they return.
///
/// Every call of [`Clients`] is legal inside every callback and in every state; none panics. [`handler`] and [`accept_all`] make
/// handlers of closures.
///
/// ```
/// use adjourn::{
///     Clients, Config, Event, Handler,
///     http::{Response, Upgrade, UpgradeRequest},
///     testing::{Session, frame},
/// };
///
/// /// Each connection has a name; one without a name is refused.
/// struct Greeter;
///
/// impl Handler for Greeter {
///     type Data = String;
///
///     fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, String> {
///         match request.query_value("name") {
///             Some(name) => Upgrade::accept(name.into_owned()),
///             None => Upgrade::Reject(Response::new(403).expect("a status")),
///         }
///     }
///
///     fn on_event(&mut self, clients: &mut Clients<'_, String>, event: Event<'_>) {
///         if let Event::Open { id } = event
///             && let Some(client) = clients.get(id)
///         {
///             let _ = clients.send(id, format!("hello, {}", client.data()));
///         }
///     }
/// }
///
/// let mut session = Session::new(Config::default(), Greeter);
/// session.read(
///     b"GET /?name=J%C3%BCrgen HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
///     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
/// );
/// assert!(session.take_written().ends_with("hello, Jürgen".as_bytes()));
/// ```
pub trait Handler {
    /// What the application keeps for each connection, made in [`Handler::on_upgrade`] or given to
    /// [`Clients::connect`], and dropped after `Close`.
    type Data;

    /// A complete head of an HTTP request: of a valid upgrade, or of a plain request, which the application may answer or
    /// [detach](Upgrade::detach). A decision that takes time can be [deferred](Upgrade::Defer).
    ///
    /// A plain request may have any method and a body, see [`Request::body_length`](crate::http::Request::body_length). One that is accepted nevertheless is
    /// refused with 426, and one with a body that is not detached with 400. An upgrade that is detached nevertheless is refused with 400.
    /// An invalid upgrade never gets here, and neither does a request whose body has no certain length.
    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, Self::Data>;

    /// Something happened.
    fn on_event(&mut self, clients: &mut Clients<'_, Self::Data>, event: Event<'_>);
}

/// A handler made of two closures: what decides on requests, and what events are delivered to. What they share goes through a
/// `Cell` or a `RefCell`, or they are methods of a [`Handler`] of your own.
///
/// ```no_run
/// use adjourn::{Config, Event, Server, handler, http::Upgrade};
///
/// let mut server = Server::bind("127.0.0.1:9001", Config::default())?;
/// server.run_with(&mut handler(
///     |request| Upgrade::accept(request.path().to_owned()),
///     |clients, event| {
///         if let Event::Message { id, message, .. } = event {
///             // The room is the path, kept as the connection's data.
///             let room = clients.get(id).map(|client| client.data().clone());
///             clients.broadcast(message, |client| Some(client.data()) == room.as_ref());
///         }
///     },
/// ))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn handler<D>(
    on_upgrade: impl for<'r> FnMut(&UpgradeRequest<'r>) -> Upgrade<'r, D>,
    on_event: impl FnMut(&mut Clients<'_, D>, Event<'_>),
) -> impl Handler<Data = D> {
    Closures { on_upgrade, on_event, data: PhantomData }
}

/// A handler that accepts every valid upgrade, with the default of its data, and delivers events to a closure.
pub fn accept_all<D: Default>(
    on_event: impl FnMut(&mut Clients<'_, D>, Event<'_>),
) -> impl Handler<Data = D> {
    handler(|_| Upgrade::accept(D::default()), on_event)
}

struct Closures<U, E, D> {
    on_upgrade: U,
    on_event: E,
    data: PhantomData<fn() -> D>,
}

impl<D, U, E> Handler for Closures<U, E, D>
where
    U: for<'r> FnMut(&UpgradeRequest<'r>) -> Upgrade<'r, D>,
    E: FnMut(&mut Clients<'_, D>, Event<'_>),
{
    type Data = D;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, D> {
        (self.on_upgrade)(request)
    }

    fn on_event(&mut self, clients: &mut Clients<'_, D>, event: Event<'_>) {
        (self.on_event)(clients, event);
    }
}
