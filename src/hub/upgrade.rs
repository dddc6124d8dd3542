//! The opening handshake of a server: finds the end of a request, asks the application, and answers.

use std::net::SocketAddr;

use super::{
    handler::{Handler, Upgrade, UpgradeRequest},
    table::Hub,
};
use crate::{
    config::SharedConfig,
    conn::{Compression, Cursor, WholeHead},
    detach::Take,
    error::HandshakeError,
    wire::upgrade::{
        BodyLength, HeaderStorage, HeaderValue, Refusal, Request, Response, write_switching_protocols,
    },
};

impl<D> Hub<D> {
    /// Whatever the parsing of this slot was at, a callback has panicked: the bytes at the end of `bytes` that were not
    /// parsed are kept, and a request that the application was looking at is answered with 500. Read on then.
    pub(super) fn recover(&mut self, slot: usize, bytes: &[u8]) {
        let unparsed = bytes.len().saturating_sub(self.turn.unparsed);
        if self.deciding.take().is_some() {
            self.answer(slot, Answered::refusal(Refusal::INTERNAL, false));
        } else if let Some(rest) = bytes.get(unparsed..).filter(|rest| !rest.is_empty()) {
            self.with(slot, |conn, cx| conn.recover(rest, cx));
        }
    }

    /// A connection that has no request yet: looks for the end of its head, and answers it.
    pub(super) fn next_head<H: Handler<Data = D>>(
        &mut self,
        slot: usize,
        cursor: &mut Cursor<'_>,
        handler: &mut H,
    ) {
        let Some(conn) = self.slots.get_mut(slot).map(|entry| &mut entry.conn) else { return };
        let peer = conn.peer();
        let answer = match conn.take_request(cursor, &self.config) {
            Ok(None) => return,
            Ok(Some(mut head)) => {
                self.turn.unparsed = cursor.remaining();
                self.deciding = Some(slot);
                let mut storage = HeaderStorage::new();
                let answer = match head.get().and_then(|head| Request::parse(head, &mut storage)) {
                    Ok(request) => self.decide(peer, request, handler),
                    Err(refusal) => Answered::refusal(refusal, false),
                };
                self.deciding = None;
                match answer {
                    Answered::Detach(take) => return self.detach(slot, take, head, cursor),
                    answer => answer,
                }
            }
            Err(refusal) => Answered::refusal(refusal, false),
        };
        self.answer(slot, answer);
    }

    /// Who answers a request, and how: we if it is invalid, the application if it is not.
    fn decide<H: Handler<Data = D>>(
        &mut self,
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
            Response::unavailable(self.config.handshake.retry_after).write(&mut response);
            return Answered::Refuse { response, cause: Some(HandshakeError::ShuttingDown) };
        }
        if accepted.is_ok()
            && self.config.handshake.origins.as_ref().is_some_and(|origins| !origins.allows(&request))
        {
            return Answered::refusal(Refusal::FOREIGN_ORIGIN, false);
        }
        let has_body = request.body_length() != BodyLength::Zero;
        let request = UpgradeRequest { request, peer, ready: self.is_ready() };
        self.note_callback_begins();
        match (handler.on_upgrade(&request), accepted) {
            (Upgrade::Detach(take), Err(_)) => Answered::Detach(take),
            (Upgrade::Detach(_), Ok(_)) => Answered::refusal(Refusal::NOT_PLAIN, false),
            _ if has_body => Answered::refusal(Refusal::BODY, request.is_head()),
            (Upgrade::Accept(accept), Ok(accepted)) => {
                let (compression, extensions) = Compression::accept(&self.config, &request).unzip();
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
                    config: accept.config,
                    compression,
                    data: accept.data,
                }
            }
            (Upgrade::Accept(_), Err(refusal)) => Answered::refusal(refusal, request.is_head()),
            (Upgrade::Reject(response), _) => {
                Answered::response(&response, request.is_head(), Some(HandshakeError::Rejected))
            }
            (Upgrade::Answer(response), _) => Answered::response(&response, request.is_head(), None),
        }
    }

    /// The application takes the connection out of the loop, with all that was read of it.
    fn detach(&mut self, slot: usize, take: Take, head: WholeHead<'_>, cursor: &mut Cursor<'_>) {
        let head_len = head.len();
        let mut received = head.into_bytes();
        received.extend_from_slice(cursor.take_all());
        self.with(slot, |conn, cx| conn.detach(take, received, head_len, cx));
    }

    fn answer(&mut self, slot: usize, answer: Answered<D>) {
        match answer {
            // It was taken off before.
            Answered::Detach(_) => {}
            Answered::Open { response, path, subprotocol, config, compression, data } => {
                if let Some(entry) = self.slots.get_mut(slot) {
                    entry.data = Some(data);
                }
                self.with(slot, |conn, cx| {
                    conn.establish(response, &path, subprotocol.as_deref(), config, compression, cx);
                });
            }
            Answered::Refuse { response, cause } => {
                if cause == Some(HandshakeError::ShuttingDown) {
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
        config: Option<SharedConfig>,
        compression: Option<Compression>,
        data: D,
    },
    Refuse {
        response: Vec<u8>,
        cause: Option<HandshakeError>,
    },
    Detach(Take),
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

    fn response(answer: &Response, head_only: bool, cause: Option<HandshakeError>) -> Self {
        let mut response = Vec::new();
        if head_only {
            answer.write_head(&mut response);
        } else {
            answer.write(&mut response);
        }
        Self::Refuse { response, cause }
    }
}
