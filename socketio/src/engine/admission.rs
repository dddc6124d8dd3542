//! Which request is answered how: the table of specification 2, as a function.

use std::borrow::Cow;

use super::config::EngineConfig;
use crate::links::Response;
use crate::packet::{Query, quoted};

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
    request: &EngineRequest<'_>,
    config: &EngineConfig,
    session: impl FnOnce(&str) -> Option<SessionState>,
    new_session: impl FnOnce() -> Result<(), Refusal>,
) -> Result<Admission, Refusal> {
    let query = request.query;
    let repeated = ["EIO", "transport", "sid"].iter().any(|name| query.count(name) > 1);
    if repeated || query.get("j").is_some() {
        return Err(Refusal::bad_request());
    }
    let transport = match query.get("transport") {
        Some("websocket") if config.websocket => Transport::WebSocket,
        Some("polling") if config.polling => Transport::Polling,
        _ => return Err(Refusal::unknown_transport()),
    };
    let get = request.method == "GET";
    let session = match query.get("sid") {
        None => None,
        Some(sid) => {
            let state =
                session(sid).filter(|state| *state != SessionState::Closing || get && !request.upgrade);
            Some(state.ok_or(Refusal::unknown_session())?)
        }
    };
    match session {
        Some(_) if request.upgrade => (),
        Some(state) => {
            let polling = transport == Transport::Polling && state != SessionState::WebSocket;
            if !polling || !(get || request.method == "POST") {
                return Err(Refusal::bad_request());
            }
        }
        None if !get => return Err(Refusal::bad_method()),
        None => (),
    }
    if request.upgrade != (transport == Transport::WebSocket) {
        return Err(Refusal::bad_request());
    }
    if request.upgrade && request.detached {
        return Err(Refusal { close: true, ..Refusal::bad_request() });
    }
    if query.get("EIO") != Some("4") {
        return Err(Refusal::unsupported_version());
    }
    match (session, transport) {
        (None, transport) => {
            new_session()?;
            Ok(match transport {
                Transport::Polling => Admission::OpenPolling,
                Transport::WebSocket => Admission::OpenWebSocket,
            })
        }
        (Some(SessionState::Polling), Transport::WebSocket) => Ok(Admission::Probe),
        (Some(_), Transport::WebSocket) => Ok(Admission::ProbeRefused),
        (Some(_), Transport::Polling) if get => Ok(Admission::Poll),
        (Some(_), Transport::Polling) => Ok(Admission::Post),
    }
}

/// The parameter `transport`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Transport {
    Polling,
    WebSocket,
}

impl Refusal {
    /// 400, code 0.
    pub const fn unknown_transport() -> Self {
        Self::new(400, 0, "Transport unknown")
    }

    /// 400, code 1.
    pub const fn unknown_session() -> Self {
        Self::new(400, 1, "Session ID unknown")
    }

    /// 400, code 2.
    pub const fn bad_method() -> Self {
        Self::new(400, 2, "Bad handshake method")
    }

    /// 400, code 3.
    pub const fn bad_request() -> Self {
        Self::new(400, 3, "Bad request")
    }

    /// 400, code 5.
    pub const fn unsupported_version() -> Self {
        Self::new(400, 5, "Unsupported protocol version")
    }

    /// 403, code 4; `message` of the application, if it has one.
    pub fn forbidden(message: Option<String>) -> Self {
        let refusal = Self::new(403, 4, "Forbidden");
        message.map_or(refusal.clone(), |message| Self { message: Cow::Owned(message), ..refusal })
    }

    /// 503: shutdown, or a limit.
    pub const fn unavailable() -> Self {
        Self::new(503, 503, "Service unavailable")
    }

    /// The answer: `{"code":n,"message":".."}`.
    pub fn response(&self) -> Response {
        let message = quoted(&self.message);
        Response {
            status: self.status,
            content_type: Some("application/json"),
            body: format!("{{\"code\":{},\"message\":{message}}}", self.code).into(),
            close: self.close,
        }
    }

    const fn new(status: u16, code: u16, message: &'static str) -> Self {
        Self { status, code, message: Cow::Borrowed(message), close: false }
    }
}
