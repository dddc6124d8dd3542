//! The opening handshake of a server: finds the end of a request, asks the application, and answers.

use std::net::SocketAddr;

use super::{
    handler::{Handler, Upgrade, UpgradeRequest},
    table::Hub,
};
use crate::{
    conn::{Coding, Cursor},
    error::HandshakeCause,
    wire::upgrade::{
        HeadLimits, HeaderStorage, HeaderValue, Refusal, Request, Response, write_switching_protocols,
    },
};

impl<D> Hub<D> {
    /// Whatever the parsing of this slot was at, a callback has panicked: the bytes at the end of `bytes` that were not
    /// parsed are kept, and a request that the application was looking at is answered with 500.
    pub(super) fn recover(&mut self, slot: usize, bytes: &[u8]) {
        let unparsed = bytes.len().saturating_sub(self.turn.unparsed);
        if self.deciding.take().is_some() {
            self.answer(slot, Answered::refusal(Refusal::INTERNAL, false));
        } else {
            self.hold(slot, bytes.get(unparsed..).unwrap_or_default());
        }
    }

    /// A connection that has no request yet: looks for the end of its head, and answers it.
    pub(super) fn next_head<H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        cursor: &mut Cursor<'_>,
        handler: &mut H,
    ) {
        let limits = HeadLimits { max_head: self.config.max_head, max_headers: self.config.max_headers };
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let peer = entry.conn.peer();
        let (held, scanner) = entry.conn.head();
        let fresh = cursor.remaining();
        let mut held = std::mem::take(held);
        let before = held.len();
        if before > 0 {
            held.extend_from_slice(cursor.rest());
        }
        let bytes = if before > 0 { held.as_slice() } else { cursor.rest() };
        let (answer, consumed) = match scanner.scan(bytes, &limits) {
            Ok(None) => {
                if before == 0 {
                    held.extend_from_slice(cursor.rest());
                }
                cursor.take(fresh);
                *entry.conn.head().0 = held;
                return;
            }
            Ok(Some(head)) => {
                let consumed = head.len().saturating_sub(before);
                let mut storage = HeaderStorage::new();
                self.turn.unparsed = fresh.saturating_sub(consumed);
                self.deciding = Some(slot);
                self.note_callback_begins();
                let answer = match Request::parse(head, &mut storage) {
                    Ok(request) => self.decide(peer, request, handler),
                    Err(refusal) => Answered::refusal(refusal, false),
                };
                self.deciding = None;
                (answer, consumed)
            }
            Err(refusal) => (Answered::refusal(refusal, false), fresh),
        };
        cursor.take(consumed);
        self.answer(slot, answer);
    }

    /// Who answers a request, and how: we if it is invalid, the application if it is not.
    fn decide<H: Handler<Data = D>>(
        &self,
        peer: SocketAddr,
        request: Request<'_>,
        handler: &mut H,
    ) -> Answered<D> {
        let accepted = request.accept();
        if let Err(refusal) = &accepted
            && !refusal.is_for_plain_http()
        {
            return Answered::refusal(*refusal, request.is_head());
        }
        if accepted.is_ok() && self.sweeps.refuses_handshakes() {
            let mut response = Vec::new();
            Response::unavailable(self.config.retry_after).write(&mut response);
            return Answered::Refuse { response, cause: Some(HandshakeCause::ShuttingDown) };
        }
        if accepted.is_ok() && self.config.origins.as_ref().is_some_and(|origins| !origins.allows(&request)) {
            return Answered::refusal(Refusal::FOREIGN_ORIGIN, false);
        }
        let request = UpgradeRequest { request, peer, ready: self.is_ready() };
        match (handler.on_upgrade(&request), accepted) {
            (Upgrade::Accept(accept), Ok(accepted)) => {
                let (coding, extensions) = Coding::accept(&self.config, &request).unzip();
                let extensions = extensions.as_deref().and_then(|value| HeaderValue::new(value).ok());
                let mut response = Vec::with_capacity(192);
                write_switching_protocols(
                    &mut response,
                    &accepted,
                    accept.subprotocol,
                    extensions,
                    &accept.headers,
                );
                Answered::Open {
                    response,
                    path: request.path().into(),
                    subprotocol: accept.subprotocol.map(|chosen| chosen.as_str().into()),
                    overrides: accept.overrides,
                    coding,
                    data: accept.data,
                }
            }
            (Upgrade::Accept(_), Err(refusal)) => Answered::refusal(refusal, request.is_head()),
            (Upgrade::Reject(response), _) => {
                Answered::response(&response, request.is_head(), Some(HandshakeCause::Rejected))
            }
            (Upgrade::Answer(response), _) => Answered::response(&response, request.is_head(), None),
        }
    }

    fn answer(&mut self, slot: usize, answer: Answered<D>) {
        match answer {
            Answered::Open { response, path, subprotocol, overrides, coding, data } => {
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.data = Some(data);
                }
                self.with(slot, |conn, cx| {
                    conn.establish(response, &path, subprotocol.as_deref(), overrides, coding, cx);
                });
            }
            Answered::Refuse { response, cause } => {
                if cause == Some(HandshakeCause::ShuttingDown) {
                    self.sweeps.handle_refused();
                }
                self.with(slot, |conn, cx| conn.refuse(response, cause, cx));
            }
        }
    }
}

/// How a request was answered.
enum Answered<D> {
    Open {
        response: Vec<u8>,
        path: Box<str>,
        subprotocol: Option<Box<str>>,
        overrides: Option<crate::config::Overrides>,
        coding: Option<Coding>,
        data: D,
    },
    Refuse {
        response: Vec<u8>,
        cause: Option<HandshakeCause>,
    },
}

impl<D> Answered<D> {
    fn refusal(refusal: Refusal, head_only: bool) -> Self {
        let mut response = Vec::new();
        if head_only {
            refusal.write_head(&mut response);
        } else {
            refusal.write(&mut response);
        }
        Self::Refuse { response, cause: Some(refusal.cause()) }
    }

    fn response(answer: &Response, head_only: bool, cause: Option<HandshakeCause>) -> Self {
        let mut response = Vec::new();
        if head_only {
            answer.write_head(&mut response);
        } else {
            answer.write(&mut response);
        }
        Self::Refuse { response, cause }
    }
}
