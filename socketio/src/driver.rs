//! Joins the core to adjourn's loop, the store's threads and HTTP. The only clock, threads and randomness.
//!
//! ```text
//! adjourn's loop: events ----------> bridge --> core inputs
//! HTTP thread: heads, bodies ------> inbox, taken between two turns --> core inputs
//! store threads: answers ----------> the same
//! other threads: calls, acks ------> the core's inbox, taken between two turns
//! ```
//! What the core sends goes to adjourn at once; what it asks of the store is made at once if the store is inline, else by
//! the store's threads. A thread that queues something for the loop wakes it.

use std::io;
use std::time::Duration;

use adjourn::Server;
#[cfg(feature = "signals")]
use adjourn::shutdown::ShutdownPlan;

use self::bridge::Bridge;
use crate::config::{ConfigError, SocketIoConfig};
use crate::core::{EngineSession, Io, Namespace, Observed};
use crate::links::FrameRef;
use crate::packet::{Args, ArgsBuf};
use crate::stats::SocketIoStats;
use crate::store::{NodeId, Store, StoreError};

mod bridge;
mod conn;
#[cfg(feature = "polling")]
mod cors;
mod engine_server;
mod handle;
mod hearing;
mod links;
mod nodes;
#[cfg(feature = "polling")]
mod polling;
mod request;
mod route;
mod shutdown;
mod storage;
mod wake;

pub use self::conn::Conn;
pub use self::engine_server::EngineServer;
pub use self::handle::SocketIoHandle;
#[cfg(feature = "polling")]
pub use self::polling::{HttpError, PeerAddr};
pub use self::request::RequestHead;
pub use self::shutdown::DrainReport;

/// A Socket.IO server: namespaces with their handlers, on one of adjourn's loops.
pub struct SocketIo {
    bridge: Bridge,
}

/// The layer cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A setting of the connections cannot be.
    #[error(transparent)]
    Connection(#[from] adjourn::error::ConfigError),
    /// The store cannot be opened.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A thread cannot be started.
    #[error("a thread cannot be started: {0}")]
    Thread(#[from] io::Error),
}

impl SocketIo {
    /// Opens the store, and with it a new epoch. Handlers are given next, then [`SocketIo::run`].
    ///
    /// # Errors
    /// If a setting cannot be, the store cannot be opened, or a thread cannot be started.
    pub fn new(config: SocketIoConfig, store: impl Store + 'static) -> Result<Self, StartError> {
        config.check()?;
        // One process a store: the name matters where several share one.
        let node = NodeId(std::process::id().to_string().into());
        Ok(Self { bridge: Bridge::new(config, Box::new(store), node)? })
    }

    /// The handlers of a namespace. It exists from now on. `chat` is `/chat`.
    ///
    /// # Panics
    /// If no client can connect to it: a packet cannot name it, since there is a comma in it, or it is longer than `input.max_name`.
    pub fn namespace(&mut self, name: &str) -> &mut Namespace {
        self.bridge.core.namespace(name)
    }

    /// The handlers of all namespaces whose names `matching` accepts: they are made on demand, and dropped when nobody can
    /// need them. `matching` gets the name and the JSON text of the client's `auth`.
    pub fn namespace_matching(
        &mut self,
        matching: impl Fn(&str, Option<&str>) -> bool + Send + 'static,
    ) -> &mut Namespace {
        self.bridge.core.namespace_matching(matching)
    }

    /// Serves Engine.IO alone: `handler` gets each message, which is not read as Socket.IO. See [`EngineServer`].
    pub fn on_engine_message(
        &mut self,
        handler: impl FnMut(&mut EngineSession<'_>, FrameRef<'_>) + Send + 'static,
    ) {
        self.bridge.core.on_engine_message(handler);
    }

    /// Asked for each request that wants to open a session; an error is a 403 with its text, a panic one without.
    pub fn allow_request(
        &mut self,
        allow: impl FnMut(&RequestHead<'_>) -> Result<(), String> + Send + 'static,
    ) {
        self.bridge.set_allow_request(Box::new(allow));
    }

    /// Gives headers, a cookie for example, for the first answer to each session: the 101 or the first response.
    pub fn initial_headers(
        &mut self,
        headers: impl FnMut(&RequestHead<'_>) -> Vec<(String, String)> + Send + 'static,
    ) {
        self.bridge.set_initial_headers(Box::new(headers));
    }

    /// Serves all HTTP requests that are not the engine's, on the same port: a hyper service, called on the HTTP thread. It
    /// finds the peer's address, [`PeerAddr`], among the extensions of a request. Without one they get 404.
    #[cfg(feature = "polling")]
    pub fn http<S, B>(&mut self, service: S)
    where
        S: hyper::service::Service<hyper::Request<hyper::body::Incoming>, Response = hyper::Response<B>>
            + Send
            + 'static,
        S::Future: 'static,
        S::Error: Into<HttpError>,
        B: hyper::body::Body + 'static,
        B::Error: Into<HttpError>,
    {
        self.bridge.set_service(polling::boxed_service(service));
    }

    /// Called with `false` when the store is declared down, with `true` when it is back.
    pub fn on_store_state(&mut self, handler: impl FnMut(bool) + Send + 'static) {
        self.bridge.core.on_store_state(handler);
    }

    /// Called when another process on the same store emits `event` with [`Io::server_side_emit`](crate::core::Io::server_side_emit);
    /// what it returns is the answer, where one is wanted.
    pub fn on_server_event(
        &mut self,
        event: &str,
        handler: impl FnMut(&mut Io<'_>, Args<'_>) -> Option<ArgsBuf> + Send + 'static,
    ) {
        self.bridge.core.on_server_event(event, handler);
    }

    /// The counters now. Allocates.
    pub fn stats(&self) -> SocketIoStats {
        self.bridge.core.stats()
    }

    /// Calls `observer` for what happens to the sockets of all namespaces: see [`Core::observe`](crate::core::Core::observe). The
    /// admin namespace is one.
    pub fn observe(&mut self, except: &str, observer: impl FnMut(&mut Io<'_>, &Observed) + Send + 'static) {
        self.bridge.core.observe(except, observer);
    }

    /// Opens a namespace for the official admin page: see [`admin`](crate::admin). To be called once.
    #[cfg(feature = "admin")]
    pub fn admin(&mut self, config: crate::admin::AdminConfig) {
        crate::admin::install(&mut self.bridge.core, config);
    }

    /// A handle for other threads.
    pub fn handle(&self, server: &Server<Conn>) -> SocketIoHandle {
        self.bridge.handle(server)
    }

    /// Lets SIGTERM and SIGINT drain the server by `plan`, as adjourn's `shutdown_on_signals` does; the polling sessions
    /// have the plan's pace, too.
    ///
    /// # Errors
    /// If the handlers cannot be installed.
    #[cfg(feature = "signals")]
    pub fn shutdown_on_signals(&mut self, server: &mut Server<Conn>, plan: ShutdownPlan) -> io::Result<()> {
        self.bridge.set_plan(&plan);
        server.shutdown_on_signals(plan)
    }

    /// Serves until a shutdown is complete and the store is flushed.
    ///
    /// # Errors
    /// If the system's poll fails, or a thread cannot be started.
    pub fn run(&mut self, server: &mut Server<Conn>) -> io::Result<DrainReport> {
        loop {
            if let Some(report) = self.turn(server, None)? {
                return Ok(report);
            }
        }
    }

    /// One turn: waits for something to happen, `timeout` at most, and deals with it. Gives the report once a shutdown is
    /// complete; that turn waits for polling sessions until the plan's end, and flushes the store, which takes `storage.flush_timeout`
    /// at most.
    ///
    /// # Errors
    /// If the system's poll fails, or a thread cannot be started.
    pub fn turn(
        &mut self,
        server: &mut Server<Conn>,
        timeout: Option<Duration>,
    ) -> io::Result<Option<DrainReport>> {
        self.bridge.start(server)?;
        let wait = self.bridge.begin_turn(timeout);
        let report = server.poll_with(wait, &mut self.bridge)?;
        self.bridge.take_inputs(&mut server.clients());
        Ok(report.map(|raw| self.bridge.finish(raw, &mut server.clients())))
    }
}
