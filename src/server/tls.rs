//! TLS as a layer: a transport around a transport (specification, section 12). Which slot has a session, and when something of it goes
//! to the transport below. Records are `session`'s, and rustls is `engine`'s. No socket is named here, so that the same code runs over memory.
//!
//! ```text
//!   hub      read, write, FIN, close
//!   Tls      Plain, Waiting for the end of a PROXY header: passed on | Secured: a session | Ending: raw input, and what is left of our close_notify
//!   below    sockets, or links in memory
//! ```

mod engine;
mod session;
mod stream;

use std::{
    io::{self, IoSlice},
    mem,
    ops::{Deref, DerefMut},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use rustls::{ServerConfig, pki_types::ServerName};

use self::{
    engine::{Engine, failed},
    session::{Raw, Scratch, Session},
    stream::TlsSocket,
};
use crate::{
    config::{ClientTls, ServerTls},
    conn::Target,
    detach::{DetachedStream, TlsStream},
    error::TlsError,
    hub::{Ahead, Noticed, Readiness, Transport},
    id::ConnectionId,
    time::Time,
};

/// A transport whose connections may be TLS: those for which [`Tls::accept`] or [`Transport::secure`] was called. The others pass
/// through it as they are.
#[derive(Debug)]
pub struct Tls<T> {
    below: T,
    /// By slot; nothing is here as long as all are plain.
    layers: Vec<Layer>,
    /// Those that are not plain.
    used: usize,
    scratch: Scratch,
}

#[derive(Debug, Default)]
enum Layer {
    #[default]
    Plain,
    /// A PROXY header comes before the session.
    Waiting(Arc<ServerConfig>),
    Secured(Box<Session>),
    /// The session is over, and what comes in is discarded as it is. The rest of our `close_notify`, after which comes FIN.
    Ending(Vec<u8>),
}

impl<T: Transport> Tls<T> {
    /// All connections are plain so far.
    pub fn new(below: T) -> Self {
        Self { below, layers: Vec::new(), used: 0, scratch: Scratch::default() }
    }

    /// The connection that was accepted for this slot begins with a TLS handshake.
    ///
    /// # Errors
    /// If the settings cannot serve anybody.
    pub fn accept(&mut self, slot: usize, tls: &ServerTls) -> io::Result<()> {
        let engine = Engine::server(tls.current()).map_err(|error| failed(TlsError::from(&error)))?;
        self.put(slot, Layer::Secured(Box::new(Session::new(engine))));
        Ok(())
    }

    /// The same after a PROXY header: see [`Transport::secure_accepted`].
    pub fn accept_after_header(&mut self, slot: usize, tls: &ServerTls) {
        self.put(slot, Layer::Waiting(tls.current()));
    }

    fn put(&mut self, slot: usize, layer: Layer) {
        if self.layers.len() <= slot {
            self.layers.resize_with(slot + 1, Layer::default);
        }
        if let Some(place) = self.layers.get_mut(slot) {
            let before = mem::replace(place, layer);
            self.used += usize::from(matches!(before, Layer::Plain));
        }
    }

    fn take(&mut self, slot: usize) -> Layer {
        let layer = self.layers.get_mut(slot).map(mem::take).unwrap_or_default();
        if !matches!(layer, Layer::Plain) {
            self.used -= 1;
            if self.used == 0 {
                (self.layers, self.scratch) = (Vec::new(), Scratch::default());
            }
        }
        layer
    }

    #[inline]
    fn session(&mut self, slot: usize) -> Option<&mut Session> {
        match self.layers.get_mut(slot) {
            Some(Layer::Secured(session)) => Some(session),
            _ => None,
        }
    }

    /// Writes what is left of a `close_notify`, and FIN after it.
    fn go_on_ending(&mut self, slot: usize) {
        let Some(Layer::Ending(rest)) = self.layers.get_mut(slot) else { return };
        if rest.is_empty() {
            return;
        }
        let mut below = Below { below: &mut self.below, slot };
        if session::flush(rest, &mut below).is_ok() && !rest.is_empty() {
            // If it cannot be watched, `linger_timeout` ends it.
            let _ = self.below.await_writable(slot, true);
            return;
        }
        *rest = Vec::new();
        self.below.shutdown_write(slot);
    }
}

/// The transport below: the loop's sockets, for example.
impl<T> Deref for Tls<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.below
    }
}

impl<T> DerefMut for Tls<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.below
    }
}

impl<T: Transport> Transport for Tls<T> {
    #[inline]
    fn read(&mut self, slot: usize, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(Layer::Secured(session)) = self.layers.get_mut(slot) else {
            return self.below.read(slot, buffer);
        };
        let mut below = Below { below: &mut self.below, slot };
        let result = session.read(&mut below, &mut self.scratch, buffer);
        if session.wants_write() {
            // It may have been refused here for the first time.
            self.below.await_writable(slot, false)?;
        }
        result
    }

    #[inline]
    fn write(&mut self, slot: usize, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.layers.get_mut(slot) {
            None | Some(Layer::Plain) => self.below.write(slot, slices),
            Some(Layer::Secured(session)) => {
                let mut below = Below { below: &mut self.below, slot };
                session.write(&mut below, &mut self.scratch, slices)
            }
            // Nobody who waits for TLS understands something else.
            Some(Layer::Waiting(_) | Layer::Ending(_)) => Err(io::ErrorKind::BrokenPipe.into()),
        }
    }

    fn await_writable(&mut self, slot: usize, closing: bool) -> io::Result<()> {
        self.below.await_writable(slot, closing)
    }

    fn shutdown_write(&mut self, slot: usize) {
        match self.layers.get_mut(slot) {
            None | Some(Layer::Plain | Layer::Waiting(_)) => self.below.shutdown_write(slot),
            Some(layer @ Layer::Secured(_)) => {
                let rest = match mem::take(layer) {
                    Layer::Secured(mut session) => session.end(),
                    Layer::Plain | Layer::Waiting(_) | Layer::Ending(_) => Vec::new(),
                };
                let has_more = !rest.is_empty();
                *layer = Layer::Ending(rest);
                if has_more {
                    self.go_on_ending(slot);
                } else {
                    self.below.shutdown_write(slot);
                }
            }
            Some(Layer::Ending(_)) => {}
        }
    }

    fn close(&mut self, slot: usize, reset: bool) {
        let rest = match self.take(slot) {
            Layer::Secured(mut session) if !reset => session.end(),
            Layer::Ending(rest) if !reset => rest,
            _ => Vec::new(),
        };
        if !rest.is_empty() {
            // A client ends its session here, after the server has; nobody waits for it.
            let mut below = Below { below: &mut self.below, slot };
            let _ = session::flush(&mut { rest }, &mut below);
        }
        self.below.close(slot, reset);
    }

    fn detach(&mut self, slot: usize) -> Option<DetachedStream> {
        let layer = self.take(slot);
        let stream = self.below.detach(slot)?;
        let Layer::Secured(session) = layer else { return Some(stream) };
        let socket: OwnedFd = match stream {
            DetachedStream::Tcp(socket) => socket.into(),
            DetachedStream::Unix(socket) => socket.into(),
            stream => return Some(stream),
        };
        Some(DetachedStream::Tls(TlsStream::new(TlsSocket::new(socket.into(), session))))
    }

    fn connect(&mut self, slot: usize, id: ConnectionId, target: Target<'_>) -> io::Result<()> {
        self.below.connect(slot, id, target)
    }

    fn connected(&mut self, slot: usize) -> io::Result<bool> {
        self.below.connected(slot)
    }

    fn take_error(&mut self, slot: usize) -> Option<io::ErrorKind> {
        self.below.take_error(slot)
    }

    fn unsent(&mut self, slot: usize) -> Option<u32> {
        self.below.unsent(slot)
    }

    #[inline]
    fn ready(&mut self, slot: usize, readiness: Readiness) -> Readiness {
        let readiness = self.below.ready(slot, readiness);
        if readiness.ended
            && let Some(session) = self.session(slot)
        {
            session.note_ended();
        }
        if readiness.writable {
            match self.layers.get_mut(slot) {
                None | Some(Layer::Plain | Layer::Waiting(_)) => {}
                Some(Layer::Secured(session)) => {
                    // What fails here fails again when it is read.
                    let _ = session.flush(&mut Below { below: &mut self.below, slot });
                }
                Some(Layer::Ending(_)) => self.go_on_ending(slot),
            }
        }
        readiness
    }

    #[inline]
    fn noticed(&mut self, slot: usize) -> Noticed {
        match self.session(slot) {
            Some(session) => session.take_noticed(),
            None => self.below.noticed(slot),
        }
    }

    fn ahead(&mut self, slot: usize) -> Ahead {
        self.session(slot).map(Session::take_ahead).unwrap_or_default()
    }

    fn is_truncated(&mut self, slot: usize) -> bool {
        self.session(slot).is_some_and(|session| session.is_truncated())
    }

    fn secure(&mut self, slot: usize, host: &str, config: &ClientTls) -> io::Result<()> {
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        let name = ServerName::try_from(host).map_err(|_| failed(TlsError::PeerCertificate))?.to_owned();
        let engine =
            Engine::client(config.current(), name).map_err(|error| failed(TlsError::from(&error)))?;
        let mut session = Box::new(Session::new(engine));
        session.begin(&mut Below { below: &mut self.below, slot })?;
        if session.wants_write() {
            self.below.await_writable(slot, false)?;
        }
        self.put(slot, Layer::Secured(session));
        Ok(())
    }

    fn secure_accepted(&mut self, slot: usize, early: &[u8]) -> io::Result<()> {
        let Some(Layer::Waiting(config)) = self.layers.get(slot) else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let engine = Engine::server(Arc::clone(config)).map_err(|error| failed(TlsError::from(&error)))?;
        let mut session = Box::new(Session::new(engine));
        session.take_early(&mut Below { below: &mut self.below, slot }, &mut self.scratch, early);
        if session.wants_write() {
            self.below.await_writable(slot, false)?;
        }
        self.put(slot, Layer::Secured(session));
        Ok(())
    }

    fn now(&mut self) -> Time {
        self.below.now()
    }

    #[inline]
    fn lap(&mut self) -> Option<Duration> {
        self.below.lap()
    }
}

/// One slot of the transport below.
struct Below<'t, T> {
    below: &'t mut T,
    slot: usize,
}

impl<T: Transport> Raw for Below<'_, T> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.below.read(self.slot, buffer)
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.below.write(self.slot, &[IoSlice::new(bytes)])
    }
}
