//! The connection: its parts, and what the hub may read of it. Nothing changes here: `opening`, `receiving`, `commands`,
//! `transport` and `timers` do that, by way of `apply`.

use std::{cell::Cell, net::SocketAddr};

use super::{
    deflate::Compression,
    details::Details,
    inbox::Inbox,
    life::Life,
    outbox::Outbox,
    peer::Peer,
    pending::{Listed, Pending},
    state::{Parses, State},
};
use crate::{
    close::Traffic,
    newcomer::{Newcomer, PeerCredentials},
    time::Time,
};

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(super) life: Life,
    pub(super) outbox: Outbox,
    pub(super) inbox: Inbox,
    pub(super) details: Details,
    pub(super) peer: Peer,
    pub(crate) generation: u32,
    pub(crate) pending: Pending,
    /// Whether the hub has it in its run queue.
    pub(crate) listed: Listed,
    /// We are the client.
    pub(super) client: bool,
    /// The application waits, or may wait, for all that is queued to be in the kernel.
    pub(super) drain_owed: Cell<bool>,
}

/// What a quiet connection costs beside its socket, its deadline and the application's data.
const _: () = assert!(size_of::<Conn>() <= 88);

impl Conn {
    pub(crate) fn new(newcomer: &Newcomer, generation: u32, now: Time) -> Self {
        Self {
            life: Life::Connecting { since: now, head: None },
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            details: Details::default(),
            peer: Peer::from(newcomer),
            generation,
            pending: Pending::default(),
            listed: Listed::No,
            client: false,
            drain_owed: Cell::new(false),
        }
    }

    // What others may look at.

    #[inline]
    pub(crate) const fn state(&self) -> State {
        self.life.state()
    }

    /// The peer's address, as it is shown: unspecified of one that has none.
    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.address()
    }

    /// The address that it is counted by. `None`: it is not.
    pub(crate) fn counted_address(&self) -> Option<SocketAddr> {
        self.peer.counted_address()
    }

    /// The address of the proxy that speaks for it.
    pub(crate) fn proxy(&self) -> Option<SocketAddr> {
        self.peer.proxy_address()
    }

    /// Of a peer on a Unix domain socket.
    pub(crate) fn peer_credentials(&self) -> Option<PeerCredentials> {
        self.peer.credentials()
    }

    pub(crate) fn path(&self) -> Option<&str> {
        self.details.path()
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.details.subprotocol()
    }

    pub(crate) fn traffic(&self) -> Option<Traffic> {
        self.details.traffic()
    }

    pub(crate) fn compression(&self) -> Option<&Compression> {
        self.details.compression()
    }

    pub(crate) fn since(&self) -> Time {
        self.life.since()
    }

    pub(crate) fn last_inbound(&self) -> Time {
        self.life.last_inbound()
    }

    pub(crate) const fn is_paused(&self) -> bool {
        self.life.is_paused()
    }

    /// Bytes that were accepted and are not in the kernel, headers included.
    #[inline]
    pub(crate) fn queued(&self) -> usize {
        self.outbox.len()
    }

    /// Of these, the bytes that the kernel refused.
    pub(crate) fn backlog_len(&self) -> usize {
        self.outbox.backlog_len()
    }

    /// What is queued, for the application, which will wait for a `Drain` if this is not 0.
    pub(crate) fn buffered_amount(&self) -> usize {
        let queued = self.queued();
        if queued > 0 {
            self.drain_owed.set(true);
        }
        queued
    }

    /// The peer's Close waits for the application's answer.
    pub(crate) const fn is_unanswered(&self) -> bool {
        matches!(self.life, Life::RemoteClosing { unanswered: true, .. })
    }

    /// Its descriptor is to be closed with a reset: it lingered for more bytes than it may, so the peer will not stop.
    pub(crate) const fn is_released_by_reset(&self) -> bool {
        matches!(self.life, Life::Closed { reset: true, .. })
    }

    /// Whether it owns a buffer. A quiet connection does not.
    pub(crate) fn owns_buffers(&self) -> bool {
        let ending = self.life.closing().is_some();
        ending || self.has_request_bytes() || self.outbox.owns_buffers() || !self.inbox.is_empty()
    }

    /// Whether frames are parsed now.
    pub(crate) fn parses_frames(&self) -> bool {
        self.state().capabilities().parses == Parses::Frames && !self.life.holds_input()
    }

    /// Whether the driver should read. What was held back by a `pause` has to be parsed before anything new.
    #[inline]
    pub(crate) fn wants_read(&self) -> bool {
        if let Life::Open { .. } = self.life {
            return !self.inbox.has_held();
        }
        let capabilities = self.state().capabilities();
        match capabilities.parses {
            Parses::Head => !self.is_dialling() && !self.life.holds_input(),
            Parses::Frames => !self.life.holds_input() && !self.inbox.has_held(),
            Parses::Nothing => capabilities.discards,
        }
    }
}
