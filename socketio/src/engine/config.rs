//! The settings of the engine: plain data, validated in `config`.

use std::time::Duration;

/// The settings that an Engine.IO session needs (SESSIONS.md 18).
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Time from the open, and from each pong, to the next ping.
    pub ping_interval: Duration,
    /// Time from a ping to the expiry of a session that has not answered it.
    pub ping_timeout: Duration,
    /// Time that a WebSocket has to upgrade a polling session.
    pub upgrade_timeout: Duration,
    /// Time that the client of a closing polling session has to fetch the queued packets.
    pub close_timeout: Duration,
    /// Most bytes of a message, and of the body of a POST.
    pub max_payload: usize,
    /// Most bytes of the response to a GET; a response has at least one packet, whatever its size.
    pub max_poll_response: usize,
    /// Most bytes queued on a polling session, as encoded.
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
