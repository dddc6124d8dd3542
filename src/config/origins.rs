//! Whose pages may connect: an allow-list of origins, against what is called cross-site WebSocket hijacking. How an origin is
//! written, and what a request says, is known in `wire`.

use thiserror::Error;

/// The origins whose pages may connect.
///
/// A browser lets the script of *any* page open a WebSocket to any server, sends the server's cookies along, and says in
/// `Origin` whose page it was; the server has to refuse. A server that knows its users by cookies, or is reachable from a
/// browser inside a network that others are not in, wants this list. [`HandshakeConfig::origins`](crate::config::HandshakeConfig::origins) applies it
/// to every upgrade; a handler that has several asks [`Origins::check`].
///
/// An origin matches as a whole: scheme, host and port, nothing more and nothing less. `https://example.com` is not
/// `http://example.com`, nor `https://example.com.evil.net`, `https://evilexample.com`, `https://www.example.com`, or
/// `https://example.com:8443`. As RFC 6454 §5 has it, letters of scheme and host match in any case, and a port that is the
/// scheme's own (80, 443) may be named or not.
///
/// `null` never matches: any page can send it, by a sandboxed frame. Programs that are not browsers send *no* `Origin` at
/// all; they are refused too, unless [`Origins::or_none`] allows them. Two `Origin` lines are answered by 400 before any list
/// is consulted.
///
/// ```
/// use adjourn::{http::Origins, Config};
///
/// let mut config = Config::default();
/// config.handshake.origins = Some(Origins::new(["https://example.com", "http://localhost:3000"])?);
/// # Ok::<(), adjourn::http::OriginError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origins {
    pub(crate) allowed: Vec<Origin>,
    /// Requests without an `Origin` are allowed, too.
    pub(crate) none: bool,
}

/// A text that is no origin that a page could have.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{origin:?} is not scheme://host or scheme://host:port, as a browser writes an origin")]
pub struct OriginError {
    pub(crate) origin: Box<str>,
}

/// One of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Origin {
    pub(crate) scheme: Box<str>,
    pub(crate) host: Box<str>,
    /// `None` if it is the scheme's own.
    pub(crate) port: Option<u16>,
}
