//! Listeners of every kind, over real sockets: Unix domain sockets, IPv4 and IPv6, shared ports.

mod serving;
mod tcp;
mod unix;
