//! What waits for the store: the data. `commits.rs` has the rules.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use super::super::command::{StoreCall, StoreCommand, Ticket};
use super::arena::NumberMap;
use super::{ConnectingKey, Io, SessionKey, SocketKey, SpaceKey};
use crate::error::{EmitError, OnceError};
use crate::links::Frame;
use crate::offset::{Offset, Position};
use crate::packet::{Event, Frames};
use crate::reason::Reason;
use crate::store::{Attach, NewEntry, OnceKey, Run, SessionChange, StoreError, TransactContext, Transacted};

pub(crate) type EmitThen = Box<dyn FnOnce(&mut Io<'_>, Result<Offset, EmitError>) + Send>;
pub(crate) type TransactThen = Box<dyn FnOnce(&mut Io<'_>, Result<Transacted, OnceError>) + Send>;
pub(crate) type SavedThen = Box<dyn FnOnce(&mut Io<'_>, Result<(), StoreError>) + Send>;

/// Something that has its place in the order of calls.
pub(crate) enum Item {
    Entry(Box<QueuedEntry>),
    /// The session begins.
    Create(ConnectingKey),
    Member(MemberChange),
    Disconnect {
        socket: SocketKey,
        reason: Reason,
        with_connection: bool,
        due: Duration,
    },
    /// An ack, after the effects of its handler call.
    Ack {
        socket: SocketKey,
        frames: Frames,
        call: u64,
    },
    /// What was done to a session before it is committed.
    Saved {
        session: Option<SessionKey>,
        then: SavedThen,
        call: u64,
    },
    Attach {
        connecting: ConnectingKey,
        ask: Box<Attach>,
    },
    Transact(Box<Transaction>),
    /// Took effect before its place: `effect_timeout`.
    Done,
}

/// What this process has appended to a shared log and not read back yet: it takes effect as it is read.
pub(crate) struct Reading {
    pub(crate) space: SpaceKey,
    /// In the order of calls; those with a position are entries.
    pub(crate) items: VecDeque<(Option<Position>, ReadBack)>,
}

pub(crate) enum ReadBack {
    Item(Item),
    /// An entry of a transaction.
    Appended,
    Join(Caller, Arc<str>),
    /// A transaction is complete.
    Transacted(Caller, TransactThen, Box<Transacted>),
}

pub(crate) struct QueuedEntry {
    pub(crate) space: SpaceKey,
    pub(crate) new: NewEntry,
    pub(crate) event: Option<Event>,
    pub(crate) bytes: u64,
    pub(crate) then: Option<EmitThen>,
    /// Dispatched at this position before its commit.
    pub(crate) delivered: Option<Position>,
    /// The handler call, [`Scope::call`](super::Scope::call).
    pub(crate) call: u64,
}

/// The socket whose call waits, its session, which outlives it, and the handler call.
#[derive(Clone, Copy)]
pub(crate) struct Caller {
    pub(crate) space: SpaceKey,
    pub(crate) socket: SocketKey,
    pub(crate) session: Option<SessionKey>,
    pub(crate) call: u64,
}

/// A socket joins or leaves a room at a place in the log that is not known yet.
pub(crate) struct MemberChange {
    pub(crate) caller: Caller,
    pub(crate) room: Arc<str>,
    pub(crate) join: bool,
    pub(crate) due: Duration,
}

pub(crate) struct Transaction {
    pub(crate) key: Option<OnceKey>,
    pub(crate) context: TransactContext,
    pub(crate) caller: Caller,
    /// What it holds, at least.
    pub(crate) bytes: u64,
    pub(crate) run: Run<'static>,
    /// Has `run` been called?
    pub(crate) begun: Arc<AtomicBool>,
    pub(crate) then: TransactThen,
}

/// A call of the writer that has not been answered.
pub(crate) enum InFlight {
    Commit {
        taken: Vec<Item>,
        sessions: Vec<SessionKey>,
        removed: Vec<SessionChange>,
        /// The shared log that it appends to.
        appends: Option<SpaceKey>,
    },
    Attach(ConnectingKey),
    Transact {
        caller: Caller,
        bytes: u64,
        begun: Arc<AtomicBool>,
        then: TransactThen,
    },
    Trim(SpaceKey),
    Expire,
    DropLog(Arc<str>),
}

/// A call of the reader that has not been answered.
pub(crate) enum Read {
    /// The first page of a session that is being resumed, up to a position.
    First(ConnectingKey, SpaceKey, Position),
    /// A page for a socket that is catching up.
    Next(SocketKey, SpaceKey, Position),
    /// The asks of a log that was found at the start.
    Asks(SpaceKey),
}

pub(crate) struct Sent {
    pub(crate) ticket: Ticket,
    pub(crate) at: Duration,
    pub(crate) call: InFlight,
}

#[derive(Default)]
pub(crate) struct Queue {
    pub(crate) items: VecDeque<Item>,
    /// Of what waits or is in flight.
    pub(crate) bytes: u64,
    pub(crate) in_flight: VecDeque<Sent>,
    pub(crate) reads: NumberMap<u64, Read>,
    /// On a shared store: committed, and not read back.
    pub(crate) readings: VecDeque<Reading>,
    pub(crate) commands: VecDeque<StoreCommand>,
    /// Sessions to be saved.
    pub(crate) unsaved: Vec<SessionKey>,
    /// Saves of sessions that are not in memory any more.
    pub(crate) orphans: Vec<SessionChange>,
    /// They are saved then, or with the next commit before.
    pub(crate) flush_at: Option<Duration>,
    /// The last commit failed: what would only try again waits until then.
    pub(crate) retry_at: Option<Duration>,
    /// The last handler call of which an entry or a transaction has failed: its acks, which are next in the queue, are not sent.
    pub(crate) failed_call: Option<u64>,
    /// The store does not answer, since then.
    pub(crate) down_since: Option<Duration>,
    /// A store that is down is tried again then.
    pub(crate) probe_at: Option<Duration>,
    /// Entries that are not dispatched, and transactions: what is pushed after them waits for them.
    pub(crate) undelivered: usize,
    /// The first membership change or disconnect that waits is overdue then.
    pub(crate) effects_due: Option<Duration>,
    tickets: u64,
    /// The earliest of its entries among the timers.
    pub(crate) armed: Option<Duration>,
}

/// Transactions in flight at a time: more than the loop needs to keep the store busy. Those that wait here can still be refused.
const TRANSACTIONS: usize = 16;

/// What the front of the queue asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Wait,
    TakeEffect,
    Send,
    Seal,
}

impl Queue {
    pub(crate) fn ticket(&mut self) -> Ticket {
        self.tickets += 1;
        Ticket(self.tickets)
    }

    /// Hands a call to the writer.
    pub(crate) fn write(&mut self, call: StoreCall, in_flight: InFlight, now: Duration) {
        let ticket = self.ticket();
        self.in_flight.push_back(Sent { ticket, at: now, call: in_flight });
        self.commands.push_back(StoreCommand { ticket, call });
    }

    /// Hands a call to the reader.
    pub(crate) fn read(&mut self, call: StoreCall, read: Read) {
        let ticket = self.ticket();
        self.reads.insert(ticket.0, read);
        self.commands.push_back(StoreCommand { ticket, call });
    }

    /// Is an item an ack, or a `saved`, of a handler call of which something has failed?
    pub(crate) fn tells_failure(&self, item: &Item) -> bool {
        item.told().is_some_and(|call| self.failed_call == Some(call))
    }

    pub(crate) fn has_unsaved(&self) -> bool {
        !self.unsaved.is_empty() || !self.orphans.is_empty()
    }

    /// Is a commit in flight, or not read back?
    pub(crate) fn commits(&self) -> bool {
        let in_flight = self.in_flight.iter().any(|sent| matches!(sent.call, InFlight::Commit { .. }));
        in_flight || !self.readings.is_empty()
    }

    /// Transactions in flight.
    fn transactions(&self) -> usize {
        self.in_flight.iter().filter(|sent| matches!(sent.call, InFlight::Transact { .. })).count()
    }

    /// What the front of the queue asks for.
    pub(crate) fn step(&self, now: Duration, is_saved: impl FnOnce(&str) -> bool) -> Step {
        if self.commits() {
            return Step::Wait;
        }
        let seal_unless_saved = |saved: Step| match self.has_unsaved() {
            false => saved,
            true if self.retry_at.is_some_and(|at| at > now) => Step::Wait,
            true => Step::Seal,
        };
        match self.items.front() {
            Some(Item::Transact(_)) => match self.transactions() {
                TRANSACTIONS.. => Step::Wait,
                _ => Step::Send,
            },
            _ if self.transactions() > 0 => Step::Wait,
            Some(Item::Entry(entry)) if entry.delivered.is_some() => match self.retry_at {
                Some(at) if at > now => Step::Wait,
                _ => Step::Seal,
            },
            Some(Item::Entry(_) | Item::Create(_)) => Step::Seal,
            Some(Item::Member(_) | Item::Disconnect { .. } | Item::Done) => Step::TakeEffect,
            Some(Item::Ack { .. } | Item::Saved { .. }) => seal_unless_saved(Step::TakeEffect),
            Some(Item::Attach { ask, .. }) if is_saved(&ask.pid) => Step::Send,
            Some(Item::Attach { .. }) => seal_unless_saved(Step::Send),
            None if self.flush_at.is_some_and(|at| at <= now) => seal_unless_saved(Step::Wait),
            None => Step::Wait,
        }
    }
}

impl Item {
    /// What it counts for in [`Queue::bytes`] from [`Io::push_item`] until it takes effect or fails. Entries have their own, and
    /// what begins sessions is bounded by them.
    pub(crate) fn size(&self) -> u64 {
        let held = match self {
            Self::Ack { frames, .. } => frames.iter().map(Frame::len).sum(),
            Self::Member(change) => change.room.len(),
            Self::Saved { .. } | Self::Disconnect { .. } => 0,
            Self::Entry(_) | Self::Create(_) | Self::Attach { .. } | Self::Transact(_) | Self::Done => {
                return 0;
            }
        };
        (size_of::<Self>() + held) as u64
    }

    /// The handler call that is told whether what it did before is committed.
    pub(crate) const fn told(&self) -> Option<u64> {
        match self {
            Self::Ack { call, .. } | Self::Saved { call, .. } => Some(*call),
            _ => None,
        }
    }

    /// Overdue from then on.
    pub(crate) fn due(&self) -> Option<Duration> {
        match self {
            Self::Member(MemberChange { due, .. }) | Self::Disconnect { due, .. } => Some(*due),
            _ => None,
        }
    }
}
