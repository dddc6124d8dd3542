//! The opening handshake of a server: finds the end of a request, asks the application, and answers.

use std::net::SocketAddr;

use super::{
    decision::{Accept, Upgrade, UpgradeRequest},
    handler::Handler,
    slot::Slot,
    table::Hub,
};
use crate::{
    config::{HandshakeConfig, SharedConfig},
    conn::{Compression, Conn, Cursor, WholeHead},
    detach::Take,
    error::{ConnectionLimit, DecideError, HandshakeError},
    id::ConnectionId,
    newcomer::PeerCredentials,
    wire::upgrade::{
        Accepted, BodyLength, HeadLimits, HeadScanner, HeaderStorage, HeaderValue, Refusal, Request,
        Response, write_switching_protocols,
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
        if !self.take_proxy_header(slot, cursor) {
            return;
        }
        let Some(conn) = self.slots.get_mut(slot).map(|entry| &mut entry.conn) else { return };
        let key = u32::try_from(slot).unwrap_or(u32::MAX);
        let requester = Requester::of(ConnectionId::new(self.loop_number, key, conn.generation), conn);
        let answer = match conn.take_request(cursor, &self.config) {
            Ok(None) => return,
            Ok(Some(mut head)) => {
                self.turn.unparsed = cursor.remaining();
                self.deciding = Some(slot);
                let mut storage = HeaderStorage::new();
                let secured = Secured::take(self, slot);
                let answer = match head.get().and_then(|head| head.parse(&mut storage)) {
                    Ok(request) => self.decide(requester, request, &secured, handler),
                    Err(refusal) => Answered::refusal(refusal, false),
                };
                self.deciding = None;
                if matches!(answer, Answered::Defer) {
                    secured.put_back(self, slot);
                }
                match answer {
                    Answered::Detach(take) => return self.detach(slot, take, head, cursor),
                    Answered::Defer => return self.defer(requester.id, head),
                    answer => answer,
                }
            }
            Err(refusal) => Answered::refusal(refusal, false),
        };
        self.answer(slot, answer);
    }

    /// Reads what a proxy says of the peer, if it may. Returns whether there is something of a request.
    fn take_proxy_header(&mut self, slot: usize, cursor: &mut Cursor<'_>) -> bool {
        let Some(conn) = self.slots.get_mut(slot).map(|entry| &mut entry.conn) else { return false };
        if !conn.awaits_proxy_header() {
            return true;
        }
        #[cfg(feature = "tls")]
        let then_tls = conn.continues_in_tls();
        #[cfg(not(feature = "tls"))]
        let then_tls = false;
        let counted = conn.counted_address().is_some();
        let answer = match conn.take_proxy_header(cursor) {
            Ok(false) => return false,
            Ok(true) => {
                let address = conn.counted_address().filter(|_| !counted);
                let admitted = self.admission.admits(address);
                self.admission.take_share(address);
                if admitted {
                    #[cfg(feature = "tls")]
                    if then_tls {
                        self.keep_for_tls(slot, cursor);
                    }
                    return cursor.remaining() > 0;
                }
                cursor.take_all();
                let cause = HandshakeError::TooManyConnections { limit: ConnectionLimit::PerAddress };
                if then_tls { Err(cause) } else { Ok(self.unavailable(cause)) }
            }
            Err(fault) if then_tls => Err(HandshakeError::ProxyHeader(fault)),
            Err(fault) => Ok(Answered::refusal(Refusal::of_proxy_header(fault), false)),
        };
        match answer {
            Ok(answer) => self.answer(slot, answer),
            // The peer expects TLS, and there is no session that could carry an answer.
            Err(cause) => {
                self.with(slot, |conn, cx| conn.give_up(cause, cx));
            }
        }
        false
    }

    /// What was read after a PROXY header is ciphertext.
    #[cfg(feature = "tls")]
    fn keep_for_tls(&mut self, slot: usize, cursor: &mut Cursor<'_>) {
        let Some(entry) = self.slots.get_mut(slot) else { return };
        let mut early = entry.conn.take_head_bytes();
        early.extend_from_slice(cursor.take_all());
        self.early = Some(early);
    }

    /// Who answers a request, and how: we if it is invalid, the application if it is not.
    fn decide<H: Handler<Data = D>>(
        &mut self,
        requester: Requester,
        request: Request<'_>,
        secured: &Secured,
        handler: &mut H,
    ) -> Answered<D> {
        let accepted = Accepted::check(&request);
        if let Err(refusal) = &accepted
            && !refusal.is_for_plain_http()
        {
            return Answered::refusal(*refusal, request.is_head());
        }
        if accepted.is_ok() && self.sweeps.refuses_handshakes() {
            return self.unavailable(HandshakeError::ShuttingDown);
        }
        if accepted.is_ok()
            && self.config.handshake.origins.as_ref().is_some_and(|origins| !origins.allows(&request))
        {
            return Answered::refusal(Refusal::FOREIGN_ORIGIN, false);
        }
        let has_body = request.body_length() != BodyLength::Zero;
        let request = requester.show(request, secured, self.is_ready());
        self.note_callback_begins();
        match (handler.on_upgrade(&request), accepted) {
            (Upgrade::Detach(take), Err(_)) => Answered::Detach(take),
            (Upgrade::Detach(_), Ok(_)) => Answered::refusal(Refusal::NOT_PLAIN, false),
            _ if has_body => Answered::refusal(Refusal::BODY, request.is_head()),
            (Upgrade::Accept(accept), Ok(accepted)) => self.open(&request, &accepted, accept),
            (Upgrade::Defer, Ok(_)) if self.admission.may_defer() => Answered::Defer,
            (Upgrade::Defer, Ok(_)) => {
                self.unavailable(HandshakeError::TooManyConnections { limit: ConnectionLimit::Deferred })
            }
            (Upgrade::Accept(_) | Upgrade::Defer, Err(refusal)) => {
                Answered::refusal(refusal, request.is_head())
            }
            (Upgrade::Reject(response), _) => {
                Answered::response(&response, request.is_head(), Some(HandshakeError::Rejected))
            }
            (Upgrade::Answer(response), _) => Answered::response(&response, request.is_head(), None),
        }
    }

    /// The 101, and what is kept of the request.
    fn open(&self, request: &Request<'_>, accepted: &Accepted, accept: Accept<'_, D>) -> Answered<D> {
        let (compression, extensions) = Compression::accept(&self.config, request).unzip();
        let extensions = extensions.as_deref().and_then(|value| HeaderValue::new(value).ok());
        let mut response = Vec::with_capacity(192);
        write_switching_protocols(&mut response, accepted, accept.subprotocol, extensions, &accept.headers);
        Answered::Open {
            response,
            path: request.path().into(),
            subprotocol: accept.subprotocol.map(|chosen| chosen.as_str().into()),
            config: accept.config,
            compression,
            data: accept.data,
        }
    }

    /// 503 with `Retry-After`.
    fn unavailable(&self, cause: HandshakeError) -> Answered<D> {
        let mut response = Vec::new();
        Response::unavailable(self.config.handshake.retry_after).write(&mut response);
        Answered::Refuse { response, cause: Some(cause) }
    }

    // Upgrades that the application has deferred.

    fn defer(&mut self, id: ConnectionId, head: WholeHead<'_>) {
        self.admission.deferred(id);
        if let Some(entry) = self.slots.get_mut(id.slot()) {
            entry.conn.defer(head.into_bytes());
        }
    }

    /// Decides on a deferred upgrade. `decide` sees its request again.
    ///
    /// # Errors
    /// If there is none under this id, or a shutdown refuses it.
    pub(super) fn accept_deferred<F>(&mut self, id: ConnectionId, decide: F) -> Result<(), DecideError>
    where
        F: for<'r> FnOnce(&UpgradeRequest<'r>) -> Accept<'r, D>,
    {
        self.deferred(id).ok_or(DecideError::NotFound)?;
        if self.cuts_handshakes() {
            self.refuse_deferred(id.slot());
            return Err(DecideError::ShuttingDown);
        }
        let secured = Secured::of(self, id.slot());
        let conn = &self.deferred(id).ok_or(DecideError::NotFound)?.conn;
        let requester = Requester::of(id, conn);
        let head = conn.deferred().unwrap_or_default();
        let mut storage = HeaderStorage::new();
        let answer = match read_again(head, &self.config.handshake, &mut storage) {
            Ok((request, accepted)) => {
                let request = requester.show(request, &secured, self.is_ready());
                self.open(&request, &accepted, decide(&request))
            }
            Err(refusal) => Answered::refusal(refusal, false),
        };
        // Not before: `decide` may panic, and the application may catch that and ask again.
        self.forget_secured(id.slot());
        self.answer(id.slot(), answer);
        Ok(())
    }

    /// Refuses a deferred upgrade with this response.
    ///
    /// # Errors
    /// If there is none under this id.
    pub(super) fn reject_deferred(
        &mut self,
        id: ConnectionId,
        response: &Response,
    ) -> Result<(), DecideError> {
        self.deferred(id).ok_or(DecideError::NotFound)?;
        self.answer(id.slot(), Answered::response(response, false, Some(HandshakeError::Rejected)));
        Ok(())
    }

    /// Refuses a deferred upgrade because of a shutdown.
    pub(super) fn refuse_deferred(&mut self, slot: usize) {
        let answer = self.unavailable(HandshakeError::ShuttingDown);
        self.answer(slot, answer);
    }

    fn deferred(&self, id: ConnectionId) -> Option<&Slot<D>> {
        let entry = self.slots.get(id.slot())?;
        let same = entry.conn.generation == id.generation() && self.loop_number == id.loop_number();
        (same && entry.conn.deferred().is_some()).then_some(entry)
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
            // They were taken off before.
            Answered::Defer | Answered::Detach(_) => {}
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
    Defer,
    Detach(Take),
}

/// Whose request it is.
#[derive(Clone, Copy)]
struct Requester {
    id: ConnectionId,
    peer: SocketAddr,
    proxy: Option<SocketAddr>,
    credentials: Option<PeerCredentials>,
}

impl Requester {
    fn of(id: ConnectionId, conn: &Conn) -> Self {
        Self { id, peer: conn.peer(), proxy: conn.proxy(), credentials: conn.peer_credentials() }
    }

    /// The request as the application sees it.
    #[cfg_attr(not(feature = "tls"), expect(unused_variables, reason = "there is nothing in it"))]
    fn show<'r>(self, request: Request<'r>, secured: &'r Secured, ready: bool) -> UpgradeRequest<'r> {
        let Self { id, peer, proxy, credentials } = self;
        UpgradeRequest {
            request,
            id,
            peer,
            proxy,
            credentials,
            ready,
            #[cfg(feature = "tls")]
            tls: secured.tls.as_deref(),
        }
    }
}

/// What the TLS handshake of the connection has agreed on, if it was one.
struct Secured {
    #[cfg(feature = "tls")]
    tls: Option<Box<crate::config::TlsSession>>,
}

#[cfg_attr(not(feature = "tls"), expect(unused_variables, clippy::unused_self, reason = "there is nothing"))]
impl Secured {
    fn take<D>(hub: &mut Hub<D>, slot: usize) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls: hub.take_secured(slot),
        }
    }

    /// The same, kept for another time.
    fn of<D>(hub: &Hub<D>, slot: usize) -> Self {
        Self {
            #[cfg(feature = "tls")]
            tls: hub.secured.get(&slot).cloned(),
        }
    }

    /// The application decides later.
    fn put_back<D>(self, hub: &mut Hub<D>, slot: usize) {
        #[cfg(feature = "tls")]
        if let Some(session) = self.tls {
            hub.secured.insert(slot, session);
        }
    }
}

/// A request that was found to be a valid upgrade when it came.
fn read_again<'h>(
    head: &'h [u8],
    config: &HandshakeConfig,
    storage: &'h mut HeaderStorage<'h>,
) -> Result<(Request<'h>, Accepted), Refusal> {
    let limits = HeadLimits { max_head: config.max_head, max_headers: config.max_headers };
    let head = HeadScanner::default().scan(head, &limits)?.ok_or(Refusal::INTERNAL)?;
    let request = head.parse(storage)?;
    let accepted = Accepted::check(&request)?;
    Ok((request, accepted))
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
