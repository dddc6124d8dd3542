#![doc = include_str!("../README.md")]

mod close;
mod config;
pub mod conn;
mod error;
mod event;
pub mod guide;
pub mod hub;
mod id;
mod server;
mod shutdown;
mod state;
pub mod testing;
mod time;
pub mod wire;

pub use close::{
    Cause, CloseCode, CloseFrame, CloseFrameError, CloseTiming, Closed, Initiator, Lost, MAX_REASON,
};
#[cfg(feature = "deflate")]
pub use config::Deflate;
pub use config::{
    Abort, Answer, ClosingData, Config, ControlRate, Heartbeat, OnOverflow, OnPeerClose, OriginError,
    Origins, Overrides,
};
pub use conn::ConnectRequest;
pub use error::{
    BindError, ConnectError, HandleError, HandshakeError, ProtocolError, ResponseFault, SendError, Violation,
};
pub use event::{Event, Message, MessageKind, Stats, SweepReport};
pub use hub::{Accept, Broadcast, Client, Clients, Handler, ReadyState, Upgrade, UpgradeRequest};
pub use id::{ConnectionId, MAX_SLOTS};
pub use server::{Handle, Server, Workers, WorkersHandle};
pub use shutdown::{
    CLOSE_PHASE_BUCKETS, Escalation, LameDuckPolicy, ListenerInShutdown, Pace, PhaseTiming, ShutdownPhase,
    ShutdownPlan, ShutdownReport, SlowestConnection, SweepId,
};
pub use state::State;
pub use time::Time;
#[cfg(feature = "deflate")]
pub use wire::deflate::DeflateParameters;
pub use wire::upgrade::{RequestError, UrlError};
