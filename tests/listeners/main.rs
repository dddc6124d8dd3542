//! Listeners of every kind, over real sockets: Unix domain sockets, IPv4 and IPv6, shared ports, inherited ones.

#[cfg(all(feature = "activation", feature = "signals"))]
mod activation;
#[cfg(all(feature = "activation", feature = "signals"))]
#[path = "../../examples/activated.rs"]
mod example_activated;
#[expect(dead_code, reason = "its `main` is for the command line")]
#[path = "../../examples/restart.rs"]
mod example_restart;
mod restart;
mod serving;
mod tcp;
mod unix;
