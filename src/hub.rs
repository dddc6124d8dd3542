//! Many connections. A slab of them, their deadlines, sweeps, the application's view, and the turn.
//!
//! No clock and no socket enters: [`Driver`] runs the one turn of this crate over any [`Transport`]. The server's
//! transport is sockets; the simulation's, the benches' and [`testing`](crate::testing)'s are memory.
//!
//! An application's own transport implements [`Transport`] and has its turns by [`Driver`]; `examples/own_loop.rs` does so over
//! `std` sockets. Without any socket, over memory:
//!
//! ```
//! use adjourn::{
//!     Config, Event, accept_all,
//!     hub::{Driver, Readiness},
//!     testing::{Memory, REQUEST, frame},
//! };
//!
//! let mut driver: Driver<(), _> = Driver::new(Config::default(), 0, 42, Memory::default());
//! let mut echo = accept_all(|clients, event| {
//!     if let Event::Message { id, message, .. } = event {
//!         let _ = clients.send(id, message);
//!     }
//! });
//! let slot = driver.accept(([127, 0, 0, 1], 40_000).into()).expect("there is room");
//! driver.transport().socket(slot).input = [REQUEST, &frame(0x81, b"hello")].concat();
//!
//! driver.begin_turn(&mut echo);
//! driver.ready(slot, Readiness { readable: true, ..Readiness::default() }, &mut echo);
//! driver.end_turn(&mut echo);
//! assert!(driver.transport().socket(slot).written.ends_with(b"\x81\x05hello"));
//! ```
//!
//! ```text
//!   driver      the turn: when what is read, delivered, written, judged and done
//!     reading        one socket's share of a turn
//!     callbacks      calling the application, and what a callback took
//!     dialling       the connects of a turn
//!     transport      what carries the bytes
//!     schedule       who is served when, and who is due
//!     parsing        from bytes that were read to events
//!     socket_events  what the transport reports of a socket: its end, room to write
//!     layer_events   what a layer of the transport, TLS, reports besides bytes
//!     table     the connections, and their event queue
//!       handler      what an application is to the loop
//!       decision     a request as it sees it, and what it decides
//!       clients      what it may ask of the connections, and what it may know of one
//!       upgrade      the opening handshake of a server
//!       connecting   connections of our own
//!       adopting     connections whose handshake was somebody else's
//!       admission    who is let in
//!       deadlines    one deadline a connection, earliest first
//!       timers       the application's timers, earliest first
//!       application_events  what the application has asked for itself: its timers and sources
//!       sweeping     sweeps over the connections
//!         sweep      shutdown and sweeps as state machines, without connections
//!       memory_limits  the cap on all backlogs together, and the room of a former crowd
//!       slots        which slots are in use
//! ```

mod admission;
mod adopting;
mod application_events;
mod callbacks;
mod client;
mod clients;
mod connecting;
mod deadlines;
mod decision;
mod dialling;
mod driver;
mod handler;
mod layer_events;
mod memory_limits;
mod parsing;
mod reading;
mod schedule;
mod slot;
mod slots;
mod socket_events;
mod sweep;
mod sweeping;
mod table;
mod timers;
mod transport;
mod upgrade;

pub use self::{
    client::{Client, ReadyState},
    clients::{Broadcast, Clients, SentTo},
    decision::{Accept, Upgrade, UpgradeRequest},
    driver::Driver,
    handler::{Handler, accept_all, handler},
    sweep::ShutdownRequest,
    transport::{Noticed, Readiness, Transport},
};
#[doc(inline)]
pub use crate::{adopt::Adoption, conn::Ahead, newcomer::Newcomer};
