//! The opening handshake of both roles, until there are frames: the head of a request (§4.2.1) or response (§4.2.2),
//! and for a client finding the server before. Who answers a request is the hub's business.
//!
//! A client's way; all of it is the state `Connecting`:
//!
//! ```text
//!   Resolving ── addresses ──> Dialling ── TCP is there ──> Waiting ── 101 ──> Open
//!       │                       │    ^                         │
//!       │                       └────┘ the next address        │
//!       └── no address, no address left, a timeout, any other response: HandshakeFailed
//! ```

use std::net::SocketAddr;

use super::{
    Compression, Conn, ConnectRequest, Context, Cursor, Pending,
    details::Details,
    dialling::{Dialling, Stage},
    head::{HeadBuffer, WholeHead, take_head},
    life::{Deferred, Life},
    peer::{HeaderTaken, Peer},
    state::Input,
};
use crate::{
    adopt::Role,
    config::{Config, SharedConfig},
    detach::{Handover, Take},
    error::{HandshakeError, ProxyFault},
    newcomer::{NO_ADDRESS, Newcomer},
    time::Time,
    wire::upgrade::{ClientKey, HeadLimits, HeaderStorage, HeaderValue, Refusal, ServerResponse},
};

/// What a driver is to do for a connection that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'c> {
    /// Find the addresses of this name and port.
    Name(&'c str, u16),
    /// Begin a TCP connection to this address, in place of any other for the same slot.
    Address(SocketAddr),
}

impl Target<'_> {
    /// The address; `None` of a name.
    pub(crate) const fn address(self) -> Option<SocketAddr> {
        match self {
            Self::Name(..) => None,
            Self::Address(address) => Some(address),
        }
    }
}

impl Conn {
    /// A connection of ours, to be made.
    pub(crate) fn dial(
        request: ConnectRequest,
        key: ClientKey,
        generation: u32,
        config: &Config,
        now: Time,
    ) -> Self {
        let ConnectRequest { mut offer, config: own, connect_timeout, .. } = request;
        if let Some(value) =
            Compression::offer(config).as_deref().and_then(|value| HeaderValue::new(value).ok())
        {
            offer.extensions(value);
        }
        let nowhere = SocketAddr::new(NO_ADDRESS.ip(), offer.url().port());
        let give_up = now.after(connect_timeout.unwrap_or(config.client.connect_timeout));
        let address = offer.url().address().map(|ip| SocketAddr::new(ip, offer.url().port()));
        let dialling = Dialling {
            since: now,
            head: None,
            stage: if address.is_some() { Stage::Dialling } else { Stage::Resolving },
            offer,
            config: own,
            #[cfg(feature = "tls")]
            tls: request.tls,
            key,
            addresses: Vec::new(),
            failure: HandshakeError::NotResolved,
            deadline: give_up,
            give_up,
            interim: 0,
        };
        let mut conn = Self::new(&Newcomer::tcp(address.unwrap_or(nowhere)), generation, now);
        conn.client = true;
        conn.life = Life::Dialling(Box::new(dialling));
        conn.pending.add(Pending::CONNECT);
        conn
    }

    /// One whose opening handshake is complete, with what was read after it. Call [`Conn::establish`] next.
    pub(crate) fn adopted(
        newcomer: &Newcomer,
        role: Role,
        received: &[u8],
        generation: u32,
        now: Time,
    ) -> Self {
        let mut conn = Self::new(newcomer, generation, now);
        conn.client = role == Role::Client;
        conn.inbox.hold(received);
        conn.pending.add(Pending::READ);
        conn
    }

    /// We are the client: masks, and the client's side of each rule.
    pub(crate) const fn is_client(&self) -> bool {
        self.client
    }

    const fn dialling(&self) -> Option<&Dialling> {
        match &self.life {
            Life::Dialling(dialling) => Some(dialling),
            _ => None,
        }
    }

    /// The handshake, if it is at this stage.
    fn dialling_at(&mut self, stage: Stage) -> Option<&mut Dialling> {
        match &mut self.life {
            Life::Dialling(dialling) if dialling.stage == stage => Some(dialling),
            _ => None,
        }
    }

    /// Bytes of a request have been received.
    pub(crate) const fn has_request_bytes(&self) -> bool {
        matches!(self.life, Life::Connecting { head: Some(_), .. } | Life::Deferred(_))
    }

    /// The application will decide on the request with this head later. Nothing is read until then.
    pub(crate) fn defer(&mut self, head: Vec<u8>) {
        if let Life::Connecting { since, .. } = self.life {
            self.life = Life::Deferred(Box::new(Deferred { since, head }));
        }
    }

    /// The head of the request that waits for the application's decision, if one does.
    pub(crate) fn deferred(&self) -> Option<&[u8]> {
        match &self.life {
            Life::Deferred(deferred) => Some(&deferred.head),
            _ => None,
        }
    }

    /// Whether a PROXY header may come before the request.
    pub(crate) const fn awaits_proxy_header(&self) -> bool {
        self.peer.is_unread()
    }

    /// Whether TLS begins after the PROXY header.
    #[cfg(feature = "tls")]
    pub(crate) const fn continues_in_tls(&self) -> bool {
        self.peer.continues_in_tls()
    }

    /// What was taken for the beginning of a request, and is none.
    #[cfg(feature = "tls")]
    pub(crate) fn take_head_bytes(&mut self) -> Vec<u8> {
        match &mut self.life {
            Life::Connecting { head, .. } => head.take().map(|head| head.into_bytes()).unwrap_or_default(),
            _ => Vec::new(),
        }
    }

    /// Takes a PROXY header off the cursor. Returns whether the request may follow: the header was taken, or there is none.
    ///
    /// # Errors
    /// What is wrong with it, whatever follows.
    pub(crate) fn take_proxy_header(&mut self, cursor: &mut Cursor<'_>) -> Result<bool, ProxyFault> {
        match self.peer.take_header(cursor)? {
            HeaderTaken::NotYet => Ok(false),
            HeaderTaken::Whole => Ok(true),
            HeaderTaken::None(bytes) => {
                if let Life::Connecting { head, .. } = &mut self.life
                    && !bytes.is_empty()
                {
                    *head = Some(Box::new(HeadBuffer::of(bytes)));
                }
                Ok(true)
            }
        }
    }

    /// The head of a request. Takes it off the cursor when it is complete; what is after it are frames, if the request is
    /// accepted. `None`: all that was received is kept, and the rest is to come. Call [`Conn::establish`] or
    /// [`Conn::refuse`] then.
    ///
    /// # Errors
    /// The rule or limit that the bytes break, whatever follows.
    pub(crate) fn take_request<'b>(
        &mut self,
        cursor: &mut Cursor<'b>,
        config: &Config,
    ) -> Result<Option<WholeHead<'b>>, Refusal> {
        match &mut self.life {
            Life::Connecting { head, .. } => {
                let (max_head, max_headers) = (config.handshake.max_head, config.handshake.max_headers);
                let limits = HeadLimits { max_head, max_headers };
                take_head(head, cursor, limits)
            }
            _ => Ok(None),
        }
    }

    /// TCP is not there yet, so there is nothing to read.
    pub(crate) fn is_dialling(&self) -> bool {
        self.dialling().is_some_and(|dialling| dialling.stage != Stage::Waiting)
    }

    /// What the driver is to do for [`Pending::CONNECT`].
    pub(crate) fn target(&self) -> Option<Target<'_>> {
        let dialling = self.dialling()?;
        match dialling.stage {
            Stage::Resolving => Some(Target::Name(dialling.offer.url().host(), dialling.offer.url().port())),
            Stage::Dialling => Some(Target::Address(self.peer())),
            Stage::Waiting => None,
        }
    }

    /// The host of a URL that asks for TLS, and the settings that this connection has for it.
    #[cfg(feature = "tls")]
    pub(crate) fn tls_target(&self) -> Option<(&str, Option<&crate::config::ClientTls>)> {
        let dialling = self.dialling().filter(|dialling| dialling.offer.url().is_secure())?;
        Some((dialling.offer.url().host(), dialling.tls.as_ref()))
    }

    /// The name's addresses; none if it has none.
    pub(crate) fn handle_resolved(&mut self, mut addresses: Vec<SocketAddr>, cx: &mut Context<'_>) {
        if let Some(dialling) = self.dialling_at(Stage::Resolving) {
            addresses.reverse();
            dialling.addresses = addresses;
            dialling.stage = Stage::Dialling;
            self.dial_next(cx);
        }
    }

    /// TCP is there: the request is sent.
    pub(crate) fn handle_connected(&mut self, cx: &mut Context<'_>) {
        let deadline = cx.now.after(cx.config.handshake.handshake_timeout);
        let Some(dialling) = self.dialling_at(Stage::Dialling) else { return };
        dialling.stage = Stage::Waiting;
        dialling.deadline = deadline;
        dialling.addresses = Vec::new();
        let mut request = Vec::with_capacity(256);
        dialling.offer.write(&dialling.key, &mut request);
        // It may be due sooner than the connect was.
        self.pending.add(Pending::DEADLINE);
        self.push_http(request, cx);
    }

    /// The present address cannot be connected to.
    pub(crate) fn handle_connect_failed(&mut self, kind: std::io::ErrorKind, cx: &mut Context<'_>) {
        let Life::Dialling(dialling) = &mut self.life else { return };
        dialling.failure = match dialling.stage {
            Stage::Resolving => HandshakeError::NotResolved,
            Stage::Dialling => HandshakeError::Io(kind),
            Stage::Waiting => return,
        };
        dialling.stage = Stage::Dialling;
        self.dial_next(cx);
    }

    /// Of the time that is left, each address that is left has an equal share: one that swallows packets leaves the
    /// others theirs.
    fn dial_next(&mut self, cx: &mut Context<'_>) {
        let Some(dialling) = self.dialling_at(Stage::Dialling) else { return };
        let left = u32::try_from(dialling.addresses.len()).unwrap_or(u32::MAX);
        let failure = dialling.failure;
        let Some(address) = dialling.addresses.pop() else { return self.give_up(failure, cx) };
        dialling.deadline = cx.now.after(dialling.give_up.since(cx.now) / left.max(1));
        self.peer = Peer::from(address);
        self.pending.add(Pending::CONNECT | Pending::DEADLINE);
    }

    /// The deadline of the present stage is due.
    pub(super) fn handle_dialling_timeout(&mut self, cx: &mut Context<'_>) {
        let Some(dialling) = self.dialling() else { return };
        match dialling.stage {
            Stage::Waiting => self.give_up(HandshakeError::Timeout, cx),
            Stage::Dialling if dialling.give_up > cx.now => {
                if let Some(dialling) = self.dialling_at(Stage::Dialling) {
                    dialling.failure = HandshakeError::ConnectTimeout;
                }
                self.dial_next(cx);
            }
            Stage::Resolving | Stage::Dialling => self.give_up(HandshakeError::ConnectTimeout, cx),
        }
    }

    /// There will be no connection. Nothing is owed to the server, not even an answer.
    pub(crate) fn give_up(&mut self, cause: HandshakeError, cx: &mut Context<'_>) {
        self.apply(Input::ConnectFailed { cause }, cx);
    }

    /// What the server answers. Takes the response's head off the cursor; what is after it are frames.
    pub(crate) fn handle_response(&mut self, cursor: &mut Cursor<'_>, cx: &mut Context<'_>) {
        let Life::Dialling(dialling) = &mut self.life else { return };
        let details = loop {
            // Interim responses and the last one together are no longer than one may be.
            let max_head = cx.config.handshake.max_head.saturating_sub(dialling.interim);
            let limits = HeadLimits { max_head, max_headers: cx.config.handshake.max_headers };
            let mut head = match take_head(&mut dialling.head, cursor, limits) {
                Ok(Some(head)) => head,
                Ok(None) => return,
                Err(refusal) => return self.give_up(refusal.cause_in_response(), cx),
            };
            let length = head.len();
            let mut storage = HeaderStorage::new();
            let response = head
                .get()
                .map_err(|refusal| refusal.cause_in_response())
                .and_then(|head| ServerResponse::parse(head, &mut storage));
            if response.as_ref().is_ok_and(ServerResponse::is_interim) {
                dialling.interim += length;
                continue;
            }
            break response.and_then(|response| {
                let switched = response.check(&dialling.offer, &dialling.key)?;
                let compression = Compression::answered(cx.config, switched.extensions)?;
                let (path, most) = (dialling.offer.url().path(), cx.config.handshake.max_path_kept);
                Ok(Details::new(path, most, switched.subprotocol, dialling.config.take(), compression))
            });
        };
        match details {
            Ok(details) => {
                self.details = details;
                self.count_traffic_if_asked(cx.config);
                self.apply(Input::Upgrade { response: Vec::new() }, cx);
            }
            Err(cause) => self.give_up(cause, cx),
        }
    }

    /// The upgrade was accepted: `response` is the 101.
    pub(crate) fn establish(
        &mut self,
        response: Vec<u8>,
        path: &str,
        subprotocol: Option<&str>,
        config: Option<SharedConfig>,
        compression: Option<Compression>,
        cx: &mut Context<'_>,
    ) {
        self.details =
            Details::new(path, cx.config.handshake.max_path_kept, subprotocol, config, compression);
        self.count_traffic_if_asked(cx.config);
        let deferred = self.deferred().is_some();
        self.apply(Input::Upgrade { response }, cx);
        if deferred {
            // What was read after the head waits, and what came since has had its edge.
            self.pending.add(Pending::READ);
        }
    }

    fn count_traffic_if_asked(&mut self, config: &Config) {
        if self.settings(config).count_traffic {
            self.details.count_traffic();
        }
    }

    /// The application takes it out of the loop, with what was read of it: a head of `head_len` bytes first.
    pub(crate) fn detach(&mut self, take: Take, received: Vec<u8>, head_len: usize, cx: &mut Context<'_>) {
        let handover = Box::new(Handover::new(take, self.peer(), received, head_len));
        self.apply(Input::Detached { handover: Some(handover) }, cx);
    }

    /// Its stream goes to the application.
    pub(crate) const fn is_detached(&self) -> bool {
        matches!(self.life, Life::Detached(_))
    }

    /// What goes with its stream, if the application takes that.
    pub(crate) fn take_handover(&mut self) -> Option<Box<Handover>> {
        let handover = std::mem::replace(&mut self.life, Life::Closed { unreported: None, reset: false });
        if let Life::Detached(handover) = handover { Some(handover) } else { None }
    }

    /// The request is refused, or answered with plain HTTP if there is no `cause`.
    pub(crate) fn refuse(&mut self, response: Vec<u8>, cause: Option<HandshakeError>, cx: &mut Context<'_>) {
        let input = match cause {
            Some(cause) => Input::Refusal { response, cause },
            None => Input::PlainAnswer { response },
        };
        self.apply(input, cx);
    }
}
