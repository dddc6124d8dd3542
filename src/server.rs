//! The transport over mio: sockets, listeners, handles and signals. The only clock, and the only sockets.
//!
//! Everything that decides is in the hub, and the order of a turn is its [driver's](crate::hub::Driver); this room waits, says
//! what became ready, and carries bytes. Sockets are edge-triggered: a read that does not fill the buffer has drained the
//! socket, so an echoed message costs one read, one write and a share of one `epoll_wait`.

mod adopting;
mod carrier;
mod event_loop;
mod handle;
#[cfg(feature = "activation")]
mod inherited;
mod listener;
mod mailbox;
mod number;
mod outq;
mod parts;
mod platform;
mod resolver;
mod siblings;
#[cfg(feature = "signals")]
mod signals;
mod socket;
mod sources;
#[cfg(feature = "tls")]
mod tls;
#[cfg_attr(not(feature = "tracing"), path = "server/no_trace.rs")]
mod trace;
mod unix;
mod workers;

#[cfg(feature = "activation")]
pub use self::inherited::Inherited;
#[cfg(feature = "tls")]
pub use self::tls::Tls;
pub use self::{
    event_loop::Server,
    handle::Handle,
    listener::ListeningSocket,
    sources::Sources,
    workers::{Workers, WorkersHandle},
};
