//! The settings of the engine.

use std::time::Duration;

/// The settings that an Engine.IO session needs (specification 18).
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// From the open, and from each pong, to the next ping.
    pub ping_interval: Duration,
    /// From a ping to the end of the session without a pong.
    pub ping_timeout: Duration,
    /// For how long a WebSocket may probe a polling session.
    pub upgrade_timeout: Duration,
    /// How long a polling session that is closing waits for the client to fetch what is queued.
    pub close_timeout: Duration,
    /// Most bytes of a message, and of the body of a POST.
    pub max_payload: usize,
    /// Most bytes of the answer to a GET, but at least one packet.
    pub max_poll_response: usize,
    /// Most bytes queued on a polling session.
    pub send_queue: usize,
    /// Is long-polling served?
    pub polling: bool,
    /// Is WebSocket served?
    pub websocket: bool,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            ping_interval: Duration::from_secs(25),
            ping_timeout: Duration::from_secs(20),
            upgrade_timeout: Duration::from_secs(10),
            close_timeout: Duration::from_secs(10),
            max_payload: 1_000_000,
            max_poll_response: 1 << 20,
            send_queue: 4 << 20,
            polling: cfg!(feature = "polling"),
            websocket: true,
        }
    }
}
