//! One connection as a value. Bytes and `now` in; events, bytes and a deadline out. No clock and no socket
//! enters, and no other connection.
//!
//! What a connection does is [`state::step`]; `apply.rs` carries it out, so nothing begins or ends anywhere else.
//! `connection.rs` has the value and its parts: `life` (the state with its data), `inbox` (what was received and not
//! delivered), `outbox` (what is queued, and where our Close stands), `closing` (the facts of an ending).
//!
//! A quiet connection is that value and nothing more: what its parts own besides is on the heap and is freed when it is
//! empty.

mod apply;
mod arriving;
mod backlog;
mod backlogs;
mod broadcast;
mod broken;
mod chunk;
mod closing;
mod commands;
mod connect;
mod connection;
mod context;
#[cfg(fuzzing)]
pub mod coverage;
#[cfg_attr(not(feature = "deflate"), path = "conn/no_deflate.rs")]
mod deflate;
mod details;
mod dialling;
mod head;
mod inbox;
mod life;
mod opening;
mod outbox;
mod output;
mod peer;
mod pending;
mod queued_event;
mod receiving;
mod segment;
pub mod state;
mod timers;
mod transport;
mod waiting;
mod watch;
mod writer;

pub(crate) use self::{
    arriving::Arriving,
    broadcast::Frames,
    commands::Pause,
    connection::Conn,
    context::{Common, Context},
    deflate::Compression,
    head::WholeHead,
    inbox::Item,
    pending::{Listed, Pending},
    queued_event::{Ended, QueuedEvent},
    timers::{Extent, Found, Probe},
    transport::Transmitted,
    writer::Writer,
};
pub use self::{
    connect::ConnectRequest,
    inbox::Cursor,
    opening::Target,
    state::{
        Capabilities, Effect, Failure, Input, InputKind, Parses, PeerFin, State, Step, TakesSends, step,
    },
    writer::Ahead,
};
pub(crate) use crate::close::CloseTiming;
pub use crate::detach::Handover;

#[cfg(test)]
mod tests;
