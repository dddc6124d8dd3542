//! What happens on a server, for `tracing` (feature `tracing`): a span for each connection, and events under the target `adjourn`.
//!
//! An observer between the loop and the application's handler, and of what the loop itself sees. It decides nothing and changes
//! nothing; no query of a request enters, which may hold a secret.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::{Level, Span, debug, enabled, error, info, info_span, trace, warn};

use crate::{
    close::{Cause, CloseFrame, CloseReport},
    error::HandshakeError,
    event::Event,
    hub::{Client, Clients, Handler, Upgrade, UpgradeRequest},
    id::ConnectionId,
    time::Time,
};

/// A callback or a turn that takes or waits longer is worth a warning: what a deadline may be late by.
const LATE: Duration = Duration::from_millis(50);

/// The spans of the connections that are open. None is kept that nobody wants.
#[derive(Clone, Debug, Default)]
pub(super) struct Trace(Arc<Mutex<HashMap<ConnectionId, Span>>>);

impl Trace {
    /// A handler that passes everything to `handler`, and says so.
    pub(super) fn observe<'a, H>(&self, handler: &'a mut H) -> Observed<'a, H> {
        Observed { handler, spans: self.clone() }
    }

    fn spans(&self) -> MutexGuard<'_, HashMap<ConnectionId, Span>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn span(&self, id: Option<ConnectionId>) -> Span {
        id.and_then(|id| self.spans().get(&id).cloned()).unwrap_or_else(Span::none)
    }

    fn begin<D>(&self, client: &Client<'_, D>) -> Span {
        let (id, role) = (client.id(), if client.is_outgoing() { "client" } else { "server" });
        let (peer, path) = (client.peer_addr(), client.path());
        let span = info_span!(target: "adjourn", "connection", %id, %peer, path, role);
        if !span.is_disabled() {
            self.spans().insert(id, span.clone());
        }
        span
    }
}

/// A turn begins that was due at `due`.
pub(super) fn turn_begins(due: Option<Time>, now: impl FnOnce() -> Time) {
    let Some(due) = due.filter(|_| enabled!(target: "adjourn", Level::WARN)) else { return };
    let late = now().since(due);
    if late >= LATE {
        warn!(target: "adjourn", late = seconds(late), "late turn");
    }
}

/// `accept` has failed; `lasting`, for the first time since it succeeded: newcomers wait.
pub(super) fn accept_failed(error: &io::Error, lasting: bool) {
    warn!(target: "adjourn", %error, lasting, "accept failed");
}

/// Tells `tracing` what the loop tells the application.
pub(super) struct Observed<'a, H> {
    handler: &'a mut H,
    spans: Trace,
}

impl<H> Observed<'_, H> {
    /// The handler for the loop.
    pub(super) const fn handler(&mut self) -> &mut Self {
        self
    }
}

impl<H: Handler> Handler for Observed<'_, H> {
    type Data = H::Data;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, H::Data> {
        let began = Instant::now();
        let answer = self.handler.on_upgrade(request);
        let (id, peer, path) = (request.id(), request.peer_addr(), request.path());
        let (decision, status) = match &answer {
            Upgrade::Accept(_) => ("accept", None),
            Upgrade::Reject(response) => ("reject", Some(response.status())),
            Upgrade::Answer(response) => ("answer", Some(response.status())),
            Upgrade::Defer => ("defer", None),
            Upgrade::Detach(_) => ("detach", None),
        };
        debug!(target: "adjourn", %id, %peer, path, decision, status, "request");
        callback_returned(began, "Upgrade");
        answer
    }

    fn on_event(&mut self, clients: &mut Clients<'_, H::Data>, event: Event<'_>) {
        let span = match &event {
            Event::Open { id } => {
                clients.get(*id).map_or_else(Span::none, |client| self.spans.begin(&client))
            }
            event => self.spans.span(event.id()),
        };
        let _entered = span.enter();
        say(&event);
        if let Event::Close { id, .. } = &event {
            self.spans.spans().remove(id);
        }
        let (began, name) = (Instant::now(), event.name());
        self.handler.on_event(clients, event);
        callback_returned(began, name);
    }
}

fn callback_returned(began: Instant, event: &'static str) {
    let took = began.elapsed();
    if took >= LATE {
        warn!(target: "adjourn", event, took = seconds(took), "long callback");
    }
}

fn say(event: &Event<'_>) {
    match event {
        Event::Open { id } => debug!(target: "adjourn", %id, "open"),
        Event::Message { id, message, closing } => {
            trace!(target: "adjourn", %id, text = message.is_text(), bytes = message.len(), closing, "message");
        }
        Event::Ping { id, payload } => trace!(target: "adjourn", %id, bytes = payload.len(), "ping"),
        Event::Pong { id, payload } => trace!(target: "adjourn", %id, bytes = payload.len(), "pong"),
        Event::Drain { id } => trace!(target: "adjourn", %id, "drain"),
        Event::Closing { id, initiator, frame } => {
            debug!(target: "adjourn", %id, %initiator, code = frame.code(), reason = frame.reason(), "closing");
        }
        Event::Close { id, report } => closed(*id, report),
        Event::HandshakeFailed { id, peer, error } => refused(*id, *peer, *error),
        // Every failure was said when it happened.
        Event::AcceptFailed { .. } => {}
        Event::SweepDone { sweep, report } => info!(target: "adjourn", ?sweep, ?report, "sweep done"),
        Event::Timer { id, key } => {
            trace!(target: "adjourn", id = id.map(tracing::field::display), key, "timer");
        }
        Event::Source { source, readable, writable, ended } => {
            trace!(target: "adjourn", ?source, readable, writable, ended, "source");
        }
        Event::Phase { phase, stats } => {
            let (open, closing, total) = (stats.open, stats.closing, stats.total());
            info!(target: "adjourn", %phase, open, closing, total, "shutdown");
        }
    }
}

fn refused(id: Option<ConnectionId>, peer: SocketAddr, error: HandshakeError) {
    let (id, cause) = (id.map(tracing::field::display), error.name());
    info!(target: "adjourn", id, %peer, cause, %error, "handshake failed");
}

/// All that the report says.
fn closed(id: ConnectionId, report: &CloseReport) {
    let CloseReport { initiator, cause, sent_flushed, lost, duration, close_phase, .. } = report;
    if *cause == Cause::Internal {
        error!(target: "adjourn", %id, "an invariant of adjourn is broken: please report it");
    }
    let (sent, received) = (&report.sent, &report.received);
    info!(
        target: "adjourn",
        %id,
        code = report.code(),
        effective_code = report.effective_code(),
        reason = report.reason(),
        was_clean = report.was_clean(),
        %initiator,
        cause = cause.name(),
        cause_detail = %cause,
        sent = sent.as_ref().map(CloseFrame::code_or_1005),
        sent_reason = sent.as_ref().map(CloseFrame::reason),
        sent_flushed,
        truncated = report.truncated(),
        received = received.as_ref().map(CloseFrame::code_or_1005),
        lost.messages,
        lost.bytes,
        lost.partial,
        lost.inbound_messages,
        lost.inbound_bytes,
        lost.inbound_partial_bytes,
        lost.trailing_bytes,
        lost.kernel_unsent,
        duration = seconds(*duration),
        close_phase = seconds(*close_phase),
        "close"
    );
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}
