//! What a connection keeps in each part of its life: the states of `state.rs` with their data. Nothing that means
//! something in one state only may stand beside it.

use super::{
    closing::Closing,
    dialling::Dialling,
    head::HeadBuffer,
    state::{PeerFin, State},
    watch::{Times, Watch},
};
use crate::{detach::Handover, time::Time};

/// A state and what belongs to it.
#[derive(Debug)]
pub(super) enum Life {
    /// A server's connection whose request is not complete; `head` is what has come of it.
    Connecting {
        since: Time,
        head: Option<Box<HeadBuffer>>,
    },
    /// The request is complete, and the application has yet to decide on it. What follows waits.
    Deferred(Box<Deferred>),
    /// A client's connection that is being made.
    Dialling(Box<Dialling>),
    Refusing {
        since: Time,
        discarded: u32,
        /// The peer's FIN, if it was read.
        fin: Option<PeerFin>,
        /// Of the answer.
        status: u16,
        /// A byte of the answer is written.
        begun: bool,
    },
    Open {
        watch: Watch,
        times: Times,
    },
    /// `Open`, and the application does not want input.
    Paused(Box<Paused>),
    LocalClosing {
        closing: Box<Closing>,
        /// Reading was paused: what comes is counted and not delivered.
        paused: bool,
    },
    RemoteClosing {
        closing: Box<Closing>,
        /// The application has yet to answer the peer's Close.
        unanswered: bool,
    },
    Failing(Box<Closing>),
    Lingering {
        since: Time,
        discarded: u32,
    },
    /// `Closed`, and its stream goes to the application.
    Detached(Box<Handover>),
    Closed {
        /// What is yet to be reported: when the abort is done, or before it lingers.
        unreported: Option<Box<Closing>>,
        /// The peer sent more than `linger_bytes`: the descriptor is closed with a reset.
        reset: bool,
    },
}

/// An upgrade that the application has deferred.
#[derive(Debug)]
pub(super) struct Deferred {
    /// When it was accepted from the listener.
    pub(super) since: Time,
    /// The request's head.
    pub(super) head: Vec<u8>,
}

/// One that is paused.
#[derive(Debug)]
pub(super) struct Paused {
    pub(super) watch: Watch,
    pub(super) times: Times,
    pub(super) since: Time,
    /// Reading goes on, and what comes is counted and not delivered.
    pub(super) discards: bool,
    /// When that begins at the latest, because the peer has left.
    pub(super) left: Option<Time>,
    /// When we close, because the peer has not left and input has been discarded for long enough.
    pub(super) closes: Option<Time>,
    /// What was discarded.
    pub(super) messages: u64,
    pub(super) bytes: u64,
}

impl Life {
    #[inline]
    pub(super) const fn state(&self) -> State {
        match self {
            Self::Connecting { .. } | Self::Deferred(_) | Self::Dialling(_) => State::Connecting,
            Self::Refusing { .. } => State::Refusing,
            Self::Open { .. } | Self::Paused(_) => State::Open,
            Self::LocalClosing { .. } => State::LocalClosing,
            Self::RemoteClosing { .. } => State::RemoteClosing,
            Self::Failing(_) => State::Failing,
            Self::Lingering { .. } => State::Lingering,
            Self::Detached(_) | Self::Closed { .. } => State::Closed,
        }
    }

    /// The facts of its ending, from the first Close or failure until they are reported.
    pub(super) fn closing(&self) -> Option<&Closing> {
        match self {
            Self::LocalClosing { closing, .. }
            | Self::RemoteClosing { closing, .. }
            | Self::Failing(closing) => Some(closing),
            Self::Closed { unreported, .. } => unreported.as_deref(),
            Self::Connecting { .. }
            | Self::Deferred(_)
            | Self::Lingering { .. }
            | Self::Dialling(_)
            | Self::Refusing { .. }
            | Self::Open { .. }
            | Self::Paused(_)
            | Self::Detached(_) => None,
        }
    }

    pub(super) fn closing_mut(&mut self) -> Option<&mut Closing> {
        match self {
            Self::LocalClosing { closing, .. }
            | Self::RemoteClosing { closing, .. }
            | Self::Failing(closing) => Some(closing),
            Self::Closed { unreported, .. } => unreported.as_deref_mut(),
            Self::Connecting { .. }
            | Self::Deferred(_)
            | Self::Lingering { .. }
            | Self::Dialling(_)
            | Self::Refusing { .. }
            | Self::Open { .. }
            | Self::Paused(_)
            | Self::Detached(_) => None,
        }
    }

    /// The peer's FIN, if it was read. An open connection ends by it at once, so it need not keep it.
    pub(super) fn peer_fin(&self) -> Option<PeerFin> {
        match self {
            Self::Refusing { fin, .. } => *fin,
            life => life.closing()?.fin,
        }
    }

    pub(super) fn keep_peer_fin(&mut self, read: PeerFin) {
        match self {
            Self::Refusing { fin, .. } => *fin = Some(read),
            life => {
                if let Some(closing) = life.closing_mut() {
                    closing.fin = Some(read);
                }
            }
        }
    }

    /// Takes the facts of the ending, to report them.
    pub(super) fn take_unreported(&mut self) -> Option<Box<Closing>> {
        match self {
            Self::Closed { unreported, .. } => unreported.take(),
            _ => None,
        }
    }

    /// The watch over an established connection that is not closing.
    pub(super) fn watch_mut(&mut self) -> Option<&mut Watch> {
        match self {
            Self::Open { watch, .. } => Some(watch),
            Self::Paused(paused) => Some(&mut paused.watch),
            _ => None,
        }
    }

    /// Our Ping is sent.
    pub(super) fn note_asked(&mut self, now: Time) {
        let (watch, times) = match self {
            Self::Open { watch, times } => (watch, times),
            Self::Paused(paused) => (&mut paused.watch, &mut paused.times),
            _ => return,
        };
        *watch = Watch::asked(times.silence(now));
    }

    /// What was read and is not parsed has to wait for the application.
    pub(super) fn holds_input(&self) -> bool {
        match self {
            Self::Paused(paused) => !paused.discards,
            Self::Deferred(_) => true,
            _ => false,
        }
    }

    pub(super) const fn is_paused(&self) -> bool {
        matches!(self, Self::Paused(_) | Self::LocalClosing { paused: true, .. })
    }

    /// Since when it has been established, or in the part of its life before or after that.
    pub(super) fn since(&self) -> Time {
        match self {
            Self::Connecting { since, .. } | Self::Refusing { since, .. } | Self::Lingering { since, .. } => {
                *since
            }
            Self::Deferred(deferred) => deferred.since,
            Self::Dialling(dialling) => dialling.since,
            Self::Open { times, .. } => times.opened,
            Self::Paused(paused) => paused.times.opened,
            Self::LocalClosing { closing, .. }
            | Self::RemoteClosing { closing, .. }
            | Self::Failing(closing) => closing.times.opened,
            Self::Detached(_) => Time::ZERO,
            Self::Closed { unreported, .. } => {
                unreported.as_ref().map_or(Time::ZERO, |closing| closing.times.opened)
            }
        }
    }

    pub(super) fn last_inbound(&self) -> Time {
        match self {
            Self::Open { times, .. } => times.last_inbound,
            Self::Paused(paused) => paused.times.last_inbound,
            life => life.closing().map_or_else(|| life.since(), |closing| closing.times.last_inbound),
        }
    }

    /// Goes on in `next`, another state, with what that keeps of this one. Allocates when closing begins.
    pub(super) fn enter(&mut self, next: State, now: Time) {
        let before = std::mem::replace(self, Self::Closed { unreported: None, reset: false });
        let paused = before.is_paused();
        let (since, discarded) = match before {
            Self::Refusing { since, discarded, .. } => (since, discarded),
            _ => (now, 0),
        };
        *self = match (next, before.into_closing(now)) {
            (State::Refusing, _) => {
                Self::Refusing { since: now, discarded: 0, fin: None, status: 0, begun: false }
            }
            (State::Open, _) => {
                let times = Times { opened: now, last_inbound: now };
                Self::Open { watch: Watch::NOTHING, times }
            }
            (State::LocalClosing, Some(closing)) => Self::LocalClosing { closing, paused },
            (State::RemoteClosing, Some(closing)) => Self::RemoteClosing { closing, unanswered: false },
            (State::Failing, Some(closing)) => Self::Failing(closing),
            (State::Lingering, None) => Self::Lingering { since, discarded },
            // Its ending is reported first.
            (State::Lingering | State::Closed, unreported) => Self::Closed { unreported, reset: false },
            (State::Connecting | State::LocalClosing | State::RemoteClosing | State::Failing, _) => {
                debug_assert!(false, "the table has no such way");
                return;
            }
        };
    }

    /// What is known of the ending of a connection that ends now, or was ending.
    fn into_closing(self, now: Time) -> Option<Box<Closing>> {
        match self {
            Self::Open { times, .. } => Some(Box::new(Closing::new(times, now))),
            Self::Paused(paused) => {
                let mut closing = Closing::new(paused.times, now);
                closing.lost.inbound_messages = paused.messages;
                closing.lost.inbound_bytes = paused.bytes;
                Some(Box::new(closing))
            }
            Self::LocalClosing { closing, .. }
            | Self::RemoteClosing { closing, .. }
            | Self::Failing(closing) => Some(closing),
            Self::Closed { unreported, .. } => unreported,
            Self::Lingering { .. }
            | Self::Connecting { .. }
            | Self::Deferred(_)
            | Self::Dialling(_)
            | Self::Refusing { .. }
            | Self::Detached(_) => None,
        }
    }
}

const _: () = assert!(size_of::<Life>() <= 24);
