//! ROOM: sockets, rooms, namespaces, acks, log, recovery, once (SESSIONS.md 6 to 15). Sans-IO: inputs and `now` in, output
//! through [`Links`](crate::links::Links) and store calls out. No clock, no randomness, no threads, no `adjourn` enter.

mod command;

pub use command::{StoreCall, StoreCommand, StoreReply, Ticket};
