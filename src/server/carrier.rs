//! The transport of a loop: its sockets, with the feature `tls` through the layer for it.

#[cfg(not(feature = "tls"))]
pub(super) use super::socket::Sockets as Carrier;

#[cfg(feature = "tls")]
pub(super) type Carrier = super::tls::Tls<super::socket::Sockets>;
