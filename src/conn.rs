//! ROOM: one connection as a value. Bytes and `now` in; events, bytes and a deadline out. No clock and no socket
//! enters, and no other connection.
//!
//! What a connection does is [`state::step`]; `apply.rs` carries it out, so nothing begins or ends anywhere else. This file
//! coordinates the parts: `life` (the state with its data), `inbox` (what was received and not delivered), `outbox` (what
//! is queued, and where our Close stands), `closing` (the facts of an ending).
//!
//! A quiet connection is this struct and nothing more: what its parts own besides is on the heap and is freed when it is
//! empty.

use std::{cell::Cell, collections::VecDeque, net::SocketAddr, time::Duration};

mod apply;
mod backlog;
mod broadcast;
mod closing;
mod commands;
mod connect;
#[cfg(fuzzing)]
pub mod coverage;
#[cfg_attr(not(feature = "deflate"), path = "conn/no_deflate.rs")]
mod deflate;
mod details;
mod inbox;
mod life;
mod opening;
mod outbox;
mod output;
mod peer;
mod receiving;
pub mod state;
mod timers;
mod transport;
mod watch;

pub(crate) use self::{
    broadcast::Frames,
    deflate::Compression,
    inbox::Item,
    output::{BufferPool, OutputBuffer},
    timers::Probe,
    transport::Transmitted,
};
pub use self::{
    connect::ConnectRequest,
    inbox::Cursor,
    opening::Target,
    state::{Capabilities, Effect, Failure, Input, InputKind, Parses, State, Step, TakesSends, step},
};
use self::{
    details::Details,
    inbox::{Inbox, Limits},
    life::Life,
    outbox::Outbox,
    peer::Peer,
};
use crate::{
    close::{CloseFrame, Closed, Initiator},
    config::Config,
    error::HandshakeCause,
    event::{Stats, SweepReport},
    shutdown::{Phase, SweepId},
    time::Time,
    wire::keys::MaskKeys,
};

/// What a connection needs from its hub while something happens to it.
pub(crate) struct Context<'h> {
    pub(crate) config: &'h Config,
    pub(crate) common: &'h mut Common,
    pub(crate) now: Time,
    /// What is to be reported, in order.
    pub(crate) notes: &'h mut VecDeque<Note>,
    pub(crate) id: crate::ConnectionId,
}

/// What the connections of a loop share.
#[derive(Debug)]
pub(crate) struct Common {
    pub(crate) output: OutputBuffer,
    pub(crate) pool: BufferPool,
    /// What frames in the client's role are masked with.
    pub(crate) keys: MaskKeys,
    pub(crate) deflate: deflate::Shared,
    /// How often an invariant of this crate was found broken.
    pub(crate) internal_errors: u64,
}

impl Common {
    pub(crate) fn new(keys: MaskKeys) -> Self {
        Self {
            output: OutputBuffer::default(),
            pool: BufferPool::default(),
            keys,
            deflate: deflate::Shared::default(),
            internal_errors: 0,
        }
    }
}

/// A report that waits for its delivery.
#[derive(Debug)]
pub(crate) enum Note {
    Open(crate::ConnectionId),
    Drain(crate::ConnectionId),
    Closing(crate::ConnectionId, Initiator, CloseFrame),
    Close(crate::ConnectionId, Ended),
    /// With its id if it was a connection of ours.
    Failed(Option<crate::ConnectionId>, SocketAddr, HandshakeCause),
    SweepDone(SweepId, SweepReport),
    Phase(Phase, Stats),
}

/// The report of an ending, and what the hub's accounts need besides.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) closed: Box<Closed>,
    pub(crate) sweeps: Vec<SweepId>,
    /// Just before the end: where it was, and how much was queued.
    pub(crate) state: State,
    pub(crate) queued: usize,
}

/// What the driver still has to do for a connection; a set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pending(u8);

impl Pending {
    pub(crate) const WRITE: u8 = 1;
    pub(crate) const READ: u8 = 2;
    pub(crate) const FIN: u8 = 4;
    pub(crate) const ABORT: u8 = 8;
    pub(crate) const RELEASE: u8 = 16;
    /// The deadline may have moved to an earlier moment.
    pub(crate) const ALARM: u8 = 32;
    pub(crate) const CONNECT: u8 = 64;
    /// A `Drain` is owed and nothing is queued.
    pub(crate) const DRAIN: u8 = 128;
    const FOR_THE_DRIVER: u8 = !Self::ALARM;
    /// What uses up a share of a turn, and can wait for the next one.
    const SHARED: u8 = Self::WRITE | Self::READ | Self::DRAIN | Self::CONNECT | Self::ALARM;

    #[inline]
    pub(crate) fn add(&mut self, what: u8) {
        self.0 |= what;
    }

    #[inline]
    pub(crate) const fn has(self, what: u8) -> bool {
        self.0 & what != 0
    }

    /// Takes `what` out; says whether it was in.
    #[inline]
    pub(crate) fn take(&mut self, what: u8) -> bool {
        let had = self.has(what);
        self.0 &= !what;
        had
    }

    pub(crate) const fn only(what: u8) -> Self {
        Self(what)
    }

    /// Whether there is nothing for the driver to do.
    #[inline]
    pub(crate) const fn is_idle(self) -> bool {
        self.0 & Self::FOR_THE_DRIVER == 0
    }

    /// Whether something must be done before the turn ends.
    #[inline]
    pub(crate) const fn is_urgent(self) -> bool {
        self.0 & !Self::SHARED != 0
    }
}

/// Whether a connection stands in the run queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Listed {
    #[default]
    No,
    /// In this turn's.
    Now,
    /// In the next turn's.
    Next,
}

/// One connection.
#[derive(Debug)]
pub(crate) struct Conn {
    life: Life,
    outbox: Outbox,
    inbox: Inbox,
    details: Details,
    peer: Peer,
    pub(crate) generation: u32,
    pub(crate) pending: Pending,
    /// Whether the hub has it in its run queue.
    pub(crate) listed: Listed,
    /// We are the client.
    client: bool,
    /// The application waits, or may wait, for all that is queued to be in the kernel.
    drain_owed: Cell<bool>,
}

/// What a quiet connection costs beside its socket, its deadline and the application's data.
const _: () = assert!(size_of::<Conn>() <= 88);

/// How long a closing handshake may take, where the caller says otherwise than the settings.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timing {
    /// See [`Config::close_timeout`].
    pub close_timeout: Option<Duration>,
    /// See [`Config::flush_budget`].
    pub flush_budget: Option<Duration>,
}

impl Timing {
    /// As the settings have it.
    pub(crate) const DEFAULT: Self = Self { close_timeout: None, flush_budget: None };
}

impl Conn {
    pub(crate) fn new(peer: SocketAddr, generation: u32, now: Time) -> Self {
        Self {
            life: Life::Connecting { since: now, head: None },
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            details: Details::default(),
            peer: Peer::from(peer),
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

    pub(crate) fn peer(&self) -> SocketAddr {
        self.peer.address()
    }

    pub(crate) fn path(&self) -> Option<&str> {
        self.details.path()
    }

    pub(crate) fn subprotocol(&self) -> Option<&str> {
        self.details.subprotocol()
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

    /// The same for the application, which will wait for a `Drain` if this is not 0.
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
            Parses::Head => !self.is_dialling(),
            Parses::Frames => !self.life.holds_input() && !self.inbox.has_held(),
            Parses::Nothing => capabilities.discards,
        }
    }
}

#[cfg(test)]
mod tests;
