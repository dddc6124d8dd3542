//! A connection that enters the loop after its 101: what is known of it. Nothing is read or written here.

use std::{
    fmt,
    net::TcpStream,
    os::{fd::OwnedFd, unix::net::UnixStream},
};

use crate::config::SharedConfig;

/// Which side of a connection this is (RFC 6455 §4): a client masks its frames, a server must not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// The peer sent the request.
    Server,
    /// The peer sent the 101.
    Client,
}

/// A WebSocket connection whose opening handshake somebody else has completed, for
/// [`Server::adopt`](crate::Server::adopt) and [`Handle::adopt`](crate::Handle::adopt). From `Open` on it is a connection like any
/// other.
///
/// What the handshake has agreed on has to be said here: this crate has not seen it. Keep no other descriptor of the stream, by
/// [`TcpStream::try_clone`] for example: as long as there is one, an abort resets nothing, and the peer does not learn of it.
///
/// ```
/// use std::net::TcpStream;
///
/// use adjourn::{Server, http::{Adopt, Role}};
///
/// # fn upgraded(server: &mut Server<&'static str>, stream: TcpStream, read_behind_the_head: Vec<u8>) {
/// let adopt = Adopt::new(stream, Role::Server, "its data").received(read_behind_the_head).subprotocol("chat");
/// if let Err(refused) = server.adopt(adopt) {
///     println!("{}", refused.why);
/// }
/// # }
/// ```
pub struct Adopt<D> {
    pub(crate) stream: TcpStream,
    pub(crate) adoption: Adoption<D>,
}

/// An [`Adopt`] without its stream: what the core needs.
pub struct Adoption<D> {
    pub(crate) role: Role,
    pub(crate) data: D,
    pub(crate) received: Vec<u8>,
    pub(crate) path: String,
    pub(crate) subprotocol: Option<String>,
    pub(crate) extensions: Option<String>,
    pub(crate) config: Option<SharedConfig>,
}

impl<D> Adopt<D> {
    /// A connection with the data that the application keeps for it. The stream becomes non-blocking, with `TCP_NODELAY`.
    pub const fn new(stream: TcpStream, role: Role, data: D) -> Self {
        Self { stream, adoption: Adoption::new(role, data) }
    }

    /// The same of a Unix domain socket, of either role: a client has sent the request and read the 101 itself.
    ///
    /// If it is not taken in, [`AdoptError::stream`](crate::error::AdoptError::stream) is its descriptor, which an `OwnedFd` turns into a
    /// `UnixStream` again.
    pub fn unix(stream: UnixStream, role: Role, data: D) -> Self {
        Self::new(OwnedFd::from(stream).into(), role, data)
    }

    /// What was read after the head of the request or response: the first frames, or their beginning.
    #[must_use]
    pub fn received(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.adoption.received = bytes.into();
        self
    }

    /// The path that was asked for, for [`Client::path`](crate::Client::path).
    #[must_use]
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.adoption.path = path.into();
        self
    }

    /// The subprotocol that the 101 named, for [`Client::subprotocol`](crate::Client::subprotocol).
    #[must_use]
    pub fn subprotocol(mut self, subprotocol: impl Into<String>) -> Self {
        self.adoption.subprotocol = Some(subprotocol.into());
        self
    }

    /// The value of `Sec-WebSocket-Extensions` in the 101. Only permessage-deflate is known, with the feature `deflate`; anything
    /// else is refused with [`AdoptRefusal::Extensions`](crate::error::AdoptRefusal::Extensions). Messages are compressed if
    /// [`Config::deflate`](crate::Config::deflate) is set.
    #[must_use]
    pub fn extensions(mut self, value: impl Into<String>) -> Self {
        self.adoption.extensions = Some(value.into());
        self
    }

    /// Settings of its own.
    #[must_use]
    pub fn config(mut self, config: SharedConfig) -> Self {
        self.adoption.config = Some(config);
        self
    }
}

impl<D> Adoption<D> {
    /// Nothing but the role and the application's data.
    pub const fn new(role: Role, data: D) -> Self {
        Self {
            role,
            data,
            received: Vec::new(),
            path: String::new(),
            subprotocol: None,
            extensions: None,
            config: None,
        }
    }

    /// See [`Adopt::received`].
    #[must_use]
    pub fn received(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.received = bytes.into();
        self
    }

    /// See [`Adopt::extensions`].
    #[must_use]
    pub fn extensions(mut self, value: impl Into<String>) -> Self {
        self.extensions = Some(value.into());
        self
    }

    /// Bytes that it holds.
    pub(crate) fn size(&self) -> usize {
        let strings = [Some(&self.path), self.subprotocol.as_ref(), self.extensions.as_ref()];
        let strings = strings.into_iter().flatten().map(String::len).sum::<usize>();
        self.received.len() + strings
    }
}

impl<D> fmt::Debug for Adopt<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adopt")
            .field("stream", &self.stream)
            .field("adoption", &self.adoption)
            .finish_non_exhaustive()
    }
}

/// Without what was received.
impl<D> fmt::Debug for Adoption<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Adoption")
            .field("role", &self.role)
            .field("received", &self.received.len())
            .field("path", &self.path)
            .field("subprotocol", &self.subprotocol)
            .field("extensions", &self.extensions)
            .finish_non_exhaustive()
    }
}
