//! Engine.IO alone, over the driver of Socket.IO.

use std::io;
use std::time::Duration;

use adjourn::Server;

use super::{Conn, DrainReport, SocketIo, SocketIoHandle, StartError};
use crate::config::SocketIoConfig;
use crate::core::EngineSession;
use crate::links::FrameRef;
use crate::store::MemoryStore;

/// A server of Engine.IO without Socket.IO: a path (`SocketIoConfig::path`) and a handler for messages.
///
/// ```no_run
/// # use adjourn_socketio::{Conn, EngineServer, config::SocketIoConfig, links::FrameRef};
/// let mut config = SocketIoConfig::default();
/// config.path = "/engine.io/".into();
/// let mut echo = EngineServer::new(config, |session, message| match message {
///     FrameRef::Text(text) => session.send_text(text),
///     FrameRef::Binary(bytes) => session.send_binary(bytes.to_vec()),
/// })?;
/// let mut server: adjourn::Server<Conn> = adjourn::Server::bind("127.0.0.1:3000", adjourn::Config::default())?;
/// echo.run(&mut server)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct EngineServer {
    io: SocketIo,
}

impl EngineServer {
    /// A server that calls `handler` for each message. Settings of Socket.IO, recovery among them, do not apply.
    ///
    /// # Errors
    /// If a setting is invalid, or a thread cannot be started.
    pub fn new(
        mut config: SocketIoConfig,
        handler: impl FnMut(&mut EngineSession<'_>, FrameRef<'_>) + Send + 'static,
    ) -> Result<Self, StartError> {
        config.recovery = None;
        let mut io = SocketIo::new(config, MemoryStore::new())?;
        io.on_engine_message(handler);
        Ok(Self { io })
    }

    /// A handle for other threads.
    pub fn handle(&self, server: &Server<Conn>) -> SocketIoHandle {
        self.io.handle(server)
    }

    /// As [`SocketIo::run`].
    ///
    /// # Errors
    /// If the system's poll fails, or a thread cannot be started.
    pub fn run(&mut self, server: &mut Server<Conn>) -> io::Result<DrainReport> {
        self.io.run(server)
    }

    /// As [`SocketIo::turn`].
    ///
    /// # Errors
    /// If the system's poll fails, or a thread cannot be started.
    pub fn turn(
        &mut self,
        server: &mut Server<Conn>,
        timeout: Option<Duration>,
    ) -> io::Result<Option<DrainReport>> {
        self.io.turn(server, timeout)
    }
}
