//! TLS (feature `tls`): over kernels in memory, in virtual time, and over real sockets. The other side is rustls.

mod certificates;
mod edges;
mod memory;
mod peer;
mod proxied;
mod sockets;
mod world;
