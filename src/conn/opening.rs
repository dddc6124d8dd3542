//! The client's side of the opening handshake: addresses tried in order, then the request, then the response (§4.1).
//!
//! All of it is the state `Connecting`. What it needs lives in the connection's [`Work`](super::Work) and goes with it.
//!
//! ```text
//!   Resolving ── addresses ──> Dialling ── TCP is there ──> Waiting ── 101 ──> Open
//!       │                       │    ^                         │
//!       │                       └────┘ the next address        │
//!       └── no address, no address left, a timeout, any other response: HandshakeFailed
//! ```

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::{
    Coding, Conn, ConnectRequest, Context, Cursor, Flags, Todo, Work,
    lifecycle::Why,
    peer::Peer,
    state::{Input, State},
};
use crate::{
    config::{Config, Overrides},
    error::HandshakeCause,
    time::Time,
    wire::upgrade::{ClientKey, HeadLimits, HeadScanner, HeaderStorage, HeaderValue, Offer, ServerResponse},
};

/// A handshake of ours that is not complete.
#[derive(Debug)]
pub(crate) struct Opening {
    stage: Stage,
    offer: Offer,
    overrides: Option<Overrides>,
    key: ClientKey,
    /// Those that were not tried yet, the next one last.
    addresses: Vec<SocketAddr>,
    /// Why the address before could not be connected to.
    failure: HandshakeCause,
    /// When the present stage or attempt must be over.
    deadline: Time,
    /// When TCP must be there.
    give_up: Time,
    /// Bytes of interim responses (1xx) that were skipped.
    interim: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Resolving,
    Dialling,
    Waiting,
}

/// What a driver is to do for a connection that is being made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'c> {
    /// Find the addresses of this name and port.
    Name(&'c str, u16),
    /// Begin a TCP connection to this address, in place of any other for the same slot.
    Address(SocketAddr),
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
        let ConnectRequest { mut offer, overrides, connect_timeout } = request;
        if let Some(value) = Coding::offer(config).as_deref().and_then(|value| HeaderValue::new(value).ok()) {
            offer.extensions(value);
        }
        let nowhere = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), offer.url().port());
        let give_up = now.after(connect_timeout.unwrap_or(config.connect_timeout));
        let address = offer.url().address().map(|ip| SocketAddr::new(ip, offer.url().port()));
        let opening = Opening {
            stage: if address.is_some() { Stage::Dialling } else { Stage::Resolving },
            offer,
            overrides,
            key,
            addresses: Vec::new(),
            failure: HandshakeCause::NotResolved,
            deadline: give_up,
            give_up,
            interim: 0,
        };
        let mut conn = Self::new(address.unwrap_or(nowhere), generation, now);
        conn.flags = Flags { client: true, ..Flags::default() };
        conn.work = Some(Box::new(Work { opening: Some(Box::new(opening)), ..Work::default() }));
        conn.todo.add(Todo::CONNECT);
        conn
    }

    /// We are the client: masks, and the client's side of each rule.
    pub(crate) const fn is_client(&self) -> bool {
        self.flags.client
    }

    fn opening(&self) -> Option<&Opening> {
        self.work.as_ref()?.opening.as_deref()
    }

    fn opening_mut(&mut self) -> Option<&mut Opening> {
        self.work.as_mut()?.opening.as_deref_mut()
    }

    /// When the handshake must be over, or the present step of it.
    pub(super) fn connecting_deadline(&self, config: &Config) -> Time {
        self.opening().map_or_else(|| self.since.after(config.handshake_timeout), |opening| opening.deadline)
    }

    /// TCP is not there yet, so there is nothing to read.
    pub(crate) fn is_dialling(&self) -> bool {
        self.opening().is_some_and(|opening| opening.stage != Stage::Waiting)
    }

    /// What the driver is to do for [`Todo::CONNECT`].
    pub(crate) fn target(&self) -> Option<Target<'_>> {
        let opening = self.opening()?;
        match opening.stage {
            Stage::Resolving => Some(Target::Name(opening.offer.url().host(), opening.offer.url().port())),
            Stage::Dialling => Some(Target::Address(self.peer())),
            Stage::Waiting => None,
        }
    }

    /// The name's addresses; none if it has none.
    pub(crate) fn handle_resolved(&mut self, mut addresses: Vec<SocketAddr>, cx: &mut Context<'_>) {
        if let Some(opening) = self.opening_mut().filter(|opening| opening.stage == Stage::Resolving) {
            addresses.reverse();
            opening.addresses = addresses;
            opening.stage = Stage::Dialling;
            self.dial_next(cx);
        }
    }

    /// TCP is there: the request goes out.
    pub(crate) fn handle_connected(&mut self, cx: &mut Context<'_>) {
        let deadline = cx.now.after(cx.config.handshake_timeout);
        let Some(opening) = self.opening_mut().filter(|opening| opening.stage == Stage::Dialling) else {
            return;
        };
        opening.stage = Stage::Waiting;
        opening.deadline = deadline;
        opening.addresses = Vec::new();
        let mut request = Vec::with_capacity(256);
        opening.offer.write(&opening.key, &mut request);
        self.backlog(cx.now).push_raw(request);
        self.todo.add(Todo::WRITE | Todo::ALARM);
    }

    /// The present address cannot be connected to.
    pub(crate) fn handle_connect_failed(&mut self, kind: std::io::ErrorKind, cx: &mut Context<'_>) {
        if let Some(opening) = self.opening_mut().filter(|opening| opening.stage != Stage::Waiting) {
            opening.failure = match opening.stage {
                Stage::Resolving => HandshakeCause::NotResolved,
                Stage::Dialling | Stage::Waiting => HandshakeCause::Io(kind),
            };
            opening.stage = Stage::Dialling;
            self.dial_next(cx);
        }
    }

    /// Of the time that is left, each address that is left has an equal share: one that swallows packets leaves the
    /// others theirs.
    fn dial_next(&mut self, cx: &mut Context<'_>) {
        let Some(opening) = self.opening_mut() else { return };
        let left = u32::try_from(opening.addresses.len()).unwrap_or(u32::MAX);
        let failure = opening.failure;
        let Some(address) = opening.addresses.pop() else { return self.give_up(failure, cx) };
        opening.deadline = cx.now.after(opening.give_up.since(cx.now) / left.max(1));
        self.peer = Peer::from(address);
        self.todo.add(Todo::CONNECT | Todo::ALARM);
    }

    /// The deadline of [`Conn::connecting_deadline`] is due.
    pub(super) fn handle_opening_timeout(&mut self, cx: &mut Context<'_>) {
        let Some(opening) = self.opening_mut() else { return };
        match opening.stage {
            Stage::Waiting => self.give_up(HandshakeCause::Timeout, cx),
            Stage::Dialling if opening.give_up > cx.now => {
                opening.failure = HandshakeCause::ConnectTimeout;
                self.dial_next(cx);
            }
            Stage::Resolving | Stage::Dialling => self.give_up(HandshakeCause::ConnectTimeout, cx),
        }
    }

    /// There will be no connection. Nothing is owed to the server, not even an answer.
    pub(crate) fn give_up(&mut self, cause: HandshakeCause, cx: &mut Context<'_>) {
        self.apply(Input::ConnectFailed, Why::Handshake { cause: Some(cause), response: Vec::new() }, cx);
    }

    /// What the server answers. Takes the response's head off the cursor; what is behind it are frames.
    pub(crate) fn handle_response(&mut self, cursor: &mut Cursor<'_>, cx: &mut Context<'_>) {
        let Some(work) = self.work.as_deref_mut().filter(|_| self.state == State::Connecting) else { return };
        let Work { held, head: scanner, opening: Some(opening), .. } = work else { return };
        let switched = loop {
            // Interim responses and the last one together are no longer than one may be.
            let max_head = cx.config.max_head.saturating_sub(opening.interim);
            let limits = HeadLimits { max_head, max_headers: cx.config.max_headers };
            let before = held.len();
            held.extend_from_slice(cursor.rest());
            let head = match scanner.scan(held, &limits) {
                Ok(Some(head)) => head,
                Ok(None) => {
                    cursor.take_all();
                    return;
                }
                Err(refusal) => return self.give_up(refusal.cause_in_response(), cx),
            };
            let length = head.len();
            cursor.take(length.saturating_sub(before));
            let mut storage = HeaderStorage::new();
            let response = ServerResponse::parse(head, &mut storage);
            if !response.is_ok_and(|response| response.is_interim()) {
                break response.and_then(|response| {
                    let switched = response.check(&opening.offer, &opening.key)?;
                    let coding = Coding::answered(cx.config, switched.extensions)?;
                    Ok((switched.subprotocol.map(str::to_owned), coding))
                });
            }
            opening.interim += length;
            held.clear();
            *scanner = HeadScanner::default();
        };
        *held = Vec::new();
        match switched {
            Ok((subprotocol, coding)) => {
                let Some(opening) = work.opening.take() else { return };
                let path = opening.offer.url().path();
                self.establish(Vec::new(), path, subprotocol.as_deref(), opening.overrides, coding, cx);
            }
            Err(cause) => self.give_up(cause, cx),
        }
    }
}
