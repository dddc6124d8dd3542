// The links of README.md lead to files; of two definitions the first one wins, so these lead to pages of the documentation.
//! [attacks]: crate::guide::attacks
//! [autobahn]: crate::guide::autobahn
//! [coming_from]: crate::guide::coming_from
//! [how_a_connection_ends]: crate::guide::how_a_connection_ends
//! [in_production]: crate::guide::in_production
//! [performance]: crate::guide::performance
//! [shutting_down]: crate::guide::shutting_down
//! [specification]: crate::guide::specification
//! [which_example]: crate::guide::which_example
//! [security]: https://docs.rs/crate/adjourn/latest/source/SECURITY.md
//! [socketio]: https://docs.rs/adjourn-socketio
//! [example_rooms]: https://docs.rs/crate/adjourn/latest/source/examples/rooms.rs
//! [example_client]: https://docs.rs/crate/adjourn/latest/source/examples/client.rs
//! [example_echo]: https://docs.rs/crate/adjourn/latest/source/examples/echo.rs
//! [example_graceful_shutdown]: https://docs.rs/crate/adjourn/latest/source/examples/graceful_shutdown.rs
//! [example_own_loop]: https://docs.rs/crate/adjourn/latest/source/examples/own_loop.rs
//! [example_pull]: https://docs.rs/crate/adjourn/latest/source/examples/pull.rs
//! [example_relay]: https://docs.rs/crate/adjourn/latest/source/examples/relay.rs
//!
#![cfg_attr(feature = "signals", doc = include_str!("../README.md"))]
#![cfg_attr(
    not(feature = "signals"),
    doc = "A WebSocket server and client whose connections end on time. README.md needs the feature `signals`."
)]
// Without the feature, what only a driver of the core uses is not reachable.
#![cfg_attr(
    not(feature = "unstable-core"),
    allow(
        clippy::struct_field_names,
        dead_code,
        unfulfilled_lint_expectations,
        unreachable_pub,
        unused_imports
    )
)]

#[cfg(not(unix))]
compile_error!(
    "adjourn needs Unix: after a read that does not fill its buffer it waits for the next edge, and mio's poll on Windows arms a \
     socket again only after a read that would block"
);

mod adopt;
pub mod close;
pub mod config;
#[cfg(feature = "unstable-core")]
pub mod conn;
#[cfg(not(feature = "unstable-core"))]
mod conn;
mod detach;
pub mod error;
mod event;
pub mod guide;
pub mod http;
#[cfg(feature = "unstable-core")]
pub mod hub;
#[cfg(not(feature = "unstable-core"))]
mod hub;
mod id;
#[cfg(any(feature = "http", feature = "tungstenite"))]
mod interop;
mod message;
#[cfg(feature = "metrics")]
pub mod metrics;
mod newcomer;
mod server;
pub mod shutdown;
mod state;
pub mod stats;
pub mod testing;
mod time;
#[cfg(feature = "unstable-core")]
pub mod wire;
#[cfg(not(feature = "unstable-core"))]
mod wire;

#[doc(inline)]
pub use crate::{
    close::{CloseCode, CloseFrame, CloseReport},
    config::Config,
    error::SendError,
    event::Event,
    hub::{Client, Clients, Handler, accept_all, handler},
    id::ConnectionId,
    message::{Message, Payload},
    server::{Handle, Server, Workers, WorkersHandle},
    shutdown::ShutdownPlan,
    time::Time,
};

/// TLS on both sides of the crate (feature `tls`): certificates, whom to believe, and what a handshake has agreed on.
///
/// Set [`ListenerConfig::tls`](config::ListenerConfig::tls) and a server speaks TLS; connect to a `wss://` URL and a client does.
/// [`TlsError`](error::TlsError) says why a handshake failed.
#[cfg(feature = "tls")]
pub mod tls {
    #[cfg(feature = "unstable-core")]
    #[doc(inline)]
    pub use crate::server::Tls;
    #[doc(inline)]
    pub use crate::{
        config::tls::{ClientTls, Identities, Identity, ServerTls, TlsConfigError, TlsSession, TlsVersion},
        detach::TlsStream,
    };
    pub use rustls;
}

/// Listening sockets beside those that [`Server::bind`] opens, and who connects to them.
pub mod listeners {
    #[doc(inline)]
    pub use crate::{newcomer::PeerCredentials, server::ListeningSocket};

    #[cfg(feature = "activation")]
    #[doc(inline)]
    pub use crate::server::Inherited;
}

/// Sources of the application's own on the loop, see [`Server::sources`].
pub mod sources {
    #[doc(inline)]
    pub use crate::{event::SourceId, server::Sources};
}

/// What may be known of connections, beside [`Clients`] and [`Client`]: states and counts.
pub mod clients {
    #[doc(inline)]
    pub use crate::{
        event::Stats,
        hub::{Broadcast, ReadyState, SentTo},
        id::MAX_SLOTS,
        state::State,
    };
}
