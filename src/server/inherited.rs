//! Sockets that the process was started with, as systemd passes them. What was not asked for is left alone.

use std::{fmt, io};

use listenfd::ListenFd;

use super::listener::ListeningSocket;

/// The descriptors that a service manager has passed to this process by `LISTEN_FDS`, `LISTEN_PID` and `LISTEN_FDNAMES` (socket
/// activation, `sd_listen_fds(3)`).
///
/// They are taken by name, the `FileDescriptorName=` of a socket unit, by default the unit's own name. Those of other names stay open
/// and are not looked at, such as what the application keeps in the `FileDescriptorStore` of its service: by default they have the name
/// `stored`.
///
/// ```no_run
/// use adjourn::{Config, Server, listeners::Inherited};
///
/// let mut inherited = Inherited::from_environment();
/// let mut server = Server::<()>::outgoing(Config::default())?;
/// for socket in inherited.take("chat.socket")? {
///     server.listen_on(socket)?;
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Inherited {
    descriptors: ListenFd,
    /// Of each descriptor.
    names: Vec<String>,
}

/// Of a descriptor that was passed without a name, as `sd_listen_fds_with_names(3)` has it.
const UNNAMED: &str = "unknown";

impl Inherited {
    /// Looks at the environment. It is empty if nothing was passed, or to another process.
    ///
    /// `LISTEN_FDS` and `LISTEN_PID` are removed, so that no child takes the descriptors for its own. That is why this has to be called at
    /// the beginning of `main`, once, before there is another thread.
    pub fn from_environment() -> Self {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let descriptors = ListenFd::from_env();
        // An empty one has its place, too.
        let given = names.split(':').map(|name| if name.is_empty() { UNNAMED } else { name });
        let names =
            given.chain(std::iter::repeat(UNNAMED)).take(descriptors.len()).map(str::to_owned).collect();
        Self { descriptors, names }
    }

    /// The names, one for each descriptor in the order in which they were passed; `unknown` for one without a name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.names.iter().map(String::as_str)
    }

    /// Takes the listening sockets of this name, several if the unit listens on several addresses; none if there are none, or they were
    /// taken. They are closed in children (`FD_CLOEXEC`).
    ///
    /// # Errors
    /// If one of this name is no stream socket of TCP or the Unix domain.
    pub fn take(&mut self, name: &str) -> io::Result<Vec<ListeningSocket>> {
        let mut taken = Vec::new();
        for index in self.places(name) {
            taken.extend(match self.descriptors.take_tcp_listener(index) {
                Ok(socket) => socket.map(ListeningSocket::Tcp),
                Err(_) => self.descriptors.take_unix_listener(index)?.map(ListeningSocket::Unix),
            });
        }
        Ok(taken)
    }

    /// Takes the descriptors of this name by number, whatever they are: what was stored. They are not changed.
    ///
    /// # Errors
    /// None on Unix.
    pub fn take_raw(&mut self, name: &str) -> io::Result<Vec<std::os::fd::RawFd>> {
        let mut taken = Vec::new();
        for index in self.places(name) {
            taken.extend(self.descriptors.take_raw_fd(index)?);
        }
        Ok(taken)
    }

    fn places(&self, name: &str) -> Vec<usize> {
        let named = self.names.iter().enumerate().filter(|(_, found)| *found == name);
        named.map(|(index, _)| index).collect()
    }
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").field("names", &self.names).finish_non_exhaustive()
    }
}
