//! Which request is answered how: the table of SESSIONS.md 2, as a function.

use std::borrow::Cow;

use super::config::EngineConfig;
use crate::links::Response;
use crate::packet::Query;

/// A request for the engine's path.
#[derive(Clone, Copy, Debug)]
pub struct EngineRequest<'a> {
    /// The method, as it came.
    pub method: &'a str,
    /// The query, decoded.
    pub query: &'a Query,
    /// Is it a WebSocket upgrade?
    pub upgrade: bool,
    /// Did it come on a connection that was detached before, so that an upgrade cannot be served?
    pub detached: bool,
}

/// What a session is at, as far as requests are concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionState {
    /// On polling.
    Polling,
    /// On polling, with a probe.
    Upgrading,
    /// On WebSocket.
    WebSocket,
    /// On polling, closing: GETs fetch what is queued.
    Closing,
}

/// What a request that is not refused is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// A new session on polling: `Engine::open_polling`.
    OpenPolling,
    /// A new session on WebSocket: 101, then `Engine::open_websocket`.
    OpenWebSocket,
    /// `Engine::poll`.
    Poll,
    /// `Engine::begin_post`, `Engine::post`.
    Post,
    /// 101, then `Engine::probe`.
    Probe,
    /// 101, then an empty Close. The session is untouched.
    ProbeRefused,
}

/// A request is refused; an upgrade by the same answer, instead of the 101.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The HTTP status: 400, 403 or 503. The driver adds `Retry-After` to a 503.
    pub status: u16,
    /// The code in the body: 0 to 5 as the official server's, 503 for a 503.
    pub code: u16,
    /// The message in the body.
    pub message: Cow<'static, str>,
    /// `Connection: close`.
    pub close: bool,
}

/// Decides what a request is for. `session` finds the session of a `sid`; `new_session` is asked last and for new sessions only:
/// rows 7 (shutdown, limits) and 8 (`Origin`, `allow_request`).
pub fn admit(
    _request: &EngineRequest<'_>,
    _config: &EngineConfig,
    _session: impl FnOnce(&str) -> Option<SessionState>,
    _new_session: impl FnOnce() -> Result<(), Refusal>,
) -> Result<Admission, Refusal> {
    todo!()
}

impl Refusal {
    /// 400, code 1.
    pub const fn unknown_session() -> Self {
        Self { status: 400, code: 1, message: Cow::Borrowed("Session ID unknown"), close: false }
    }

    /// 400, code 3.
    pub const fn bad_request() -> Self {
        Self { status: 400, code: 3, message: Cow::Borrowed("Bad request"), close: false }
    }

    /// 403, code 4; `message` of the application, if it has one.
    pub fn forbidden(message: Option<String>) -> Self {
        let message = message.map_or(Cow::Borrowed("Forbidden"), Cow::Owned);
        Self { status: 403, code: 4, message, close: false }
    }

    /// 503: shutdown, or a limit.
    pub const fn unavailable() -> Self {
        Self { status: 503, code: 503, message: Cow::Borrowed("Service unavailable"), close: false }
    }

    /// The answer: `{"code":n,"message":".."}`.
    pub fn response(&self) -> Response {
        todo!()
    }
}
