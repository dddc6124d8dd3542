//! What is known of one connection, of its ending, and of one sweep.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
};

use adjourn::{
    CloseFrame, ConnectionId,
    clients::State,
    close::{Cause, Initiator, Lost},
    config::SharedConfig,
    error::HandshakeError,
    shutdown::Pace,
};

use super::{
    answers::Answer,
    frames::{ClientStream, ServerStream},
};

/// A Close frame of ours, as far as it is known beforehand.
#[derive(Clone, Debug)]
pub enum Expected {
    Frame(CloseFrame),
    /// With a reason that is the crate's business.
    Code(u16),
}

/// One connection.
#[derive(Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct Facts {
    /// Its slot was free before its `HandshakeFailed` was delivered.
    pub freed_unreported: bool,
    /// Its time is up: what it holds is parsed to find a Close, and nothing of it is delivered.
    pub searched: bool,
    /// Where it is, as far as the facts say. `None` before it was accepted and after its slot was freed.
    pub state: Option<State>,
    pub id: Option<ConnectionId>,
    /// `Open`, `Closing`, `Close` and `HandshakeFailed` were delivered.
    pub opened: bool,
    pub closing: bool,
    pub closed: bool,
    pub failed: bool,
    pub paused: bool,
    /// Since when it has been paused, and when input is discarded at the latest because the peer has left.
    pub paused_since: u64,
    pub left: Option<u64>,
    /// A pause has lasted too long: what comes is read, counted and not delivered.
    pub discards: bool,
    /// When it is closed for that if its peer has not left, and by how much that may be earlier.
    pub closes: Option<(u64, u64)>,
    /// The socket has failed so; what can be read of it comes before that counts.
    pub failing: Option<std::io::ErrorKind>,
    /// The application was to decide on its upgrade later, under this id; has done so; and as many as may wait waited already.
    pub deferred: Option<ConnectionId>,
    pub decided: bool,
    pub accepted: bool,
    pub turned_away: bool,
    /// More was sent to it than fits before its `Open` was delivered: how much was queued, and when.
    pub overflowed: Option<(u64, u64)>,
    /// The answer to its request, and why its handshake has failed.
    pub answered: Option<Answer>,
    pub refused_for: Option<HandshakeError>,
    /// The request's head is complete.
    pub head_done: bool,
    pub head_matched: u8,
    /// A byte has come.
    pub has_sent: bool,
    /// Bytes that were read before it was known to be refused or open.
    pub in_handshake: u64,
    /// When the first byte of an answer was written.
    pub answer_began: Option<u64>,
    /// FIN was sent after the answer.
    pub fin_sent: bool,
    pub touched: bool,
    /// The peer's FIN was handed in.
    pub eof: bool,
    /// That came without the end that its layer of records has for it.
    pub truncated: bool,
    /// How many bytes of what is queued are in a record that the kernel has not wholly taken; and whether what is being taken was
    /// in such a record when the rest was dropped.
    pub ahead: usize,
    pub in_ahead: bool,
    /// When its last write began, it was not at its end.
    pub may_write: bool,
    /// The next end of its side is an abort.
    pub must_abort: bool,
    /// It was read with an HTTP head, and the checker does not know yet whether that is an upgrade.
    pub read_in_head: bool,
    /// What was read may be parsed later: it was paused, or a callback panicked.
    pub delayed: bool,
    /// When it may have been parsed, if it was not delayed after all.
    pub parsed_at: u64,
    /// The loop says that its control frames were too many.
    pub flooded: bool,
    /// It was paused or resumed while it closed, and nobody knows what of the input that is held was parsed before.
    pub maybe_paused: bool,
    /// It was closed while its input was or may have been discarded, and nobody knows whether what is held was parsed before: all of it, or
    /// nothing.
    pub maybe_discarded: bool,
    /// How many Pings of the heartbeat may be queued: one was due when it was read or paused.
    pub may_beat: u32,
    /// The callback that paused it, or what did so outside of any, by its number.
    pub delayed_by: u64,
    /// A FIN was read that counts only when the replies had their chance.
    pub eof_read: bool,
    /// It was judged or swept when that was so: nobody knows whether the FIN had counted.
    pub eof_unsure: bool,
    /// What the kernel held at an abort.
    pub unsent: Option<u32>,
    /// When it was last read, found drained, offered something.
    pub tried_at: u64,
    pub drained_at: u64,
    pub offered_at: u64,
    /// By how much what is due may be due earlier: the clock went on in the turn in which its time began.
    pub uncertainty: u64,
    pub share: Share,
    /// The application's timers: key, when it is due, and whether the callback that set it has yet to return.
    pub timers: Vec<(u64, u64, bool)>,
    /// The application has seen that something is queued, or that no more is taken: a `Drain` is owed.
    pub owed: bool,
    /// Something makes it possible that one is owed; what exactly was queued then is not known here.
    pub may_owe: bool,
    /// A message of this many bytes was refused because of what others had queued, and nothing was queued for it: a `Drain` is owed when
    /// there is room.
    pub awaits_room: Option<usize>,
    /// It was aborted.
    pub aborted: bool,
    /// Accepted, answered, opened, or ended: when this part of its life began.
    pub since: u64,
    /// By how much its end may have been earlier.
    pub ended_early: u64,
    /// When the application accepted it: `Open` may be delivered later.
    pub opened_at: u64,
    /// Bytes that came while it lingered.
    pub discarded: u64,
    /// How many more these are if the parser did not consume the frame that broke a rule.
    pub undecided: u64,
    pub last_inbound: u64,
    /// The control frames of the peer: how many its bucket holds, and when that was so, in tokens.
    pub bucket: (u128, u128),
    /// Nothing was read since it was resumed: what is parsed was held back, and is not counted.
    pub rested: bool,
    /// When a heartbeat's Ping was due that is not answered.
    pub pinged: Option<u64>,
    pub wire: ServerStream,
    /// A Close frame has begun, is complete, on the wire.
    pub close_begun: bool,
    pub close_done: bool,
    /// Since when the link has not taken all that it is offered, and when it last took something.
    pub refused: Option<u64>,
    pub progress: u64,
    /// Settings of its own.
    pub own: Option<SharedConfig>,
    pub busy: Option<Box<Busy>>,
}

/// What a connection has had of a turn.
#[derive(Clone, Copy, Debug, Default)]
pub struct Share {
    pub turn: u64,
    pub reads: u32,
    pub probed: bool,
    pub written: usize,
    pub writes: usize,
    pub drains: u32,
    /// What it had written of a turn that was cut short.
    pub had: usize,
}

impl Share {
    /// How much it has written at most, as the loop may count it: in whole KiB.
    pub const fn had_written(&self) -> usize {
        self.had + self.written + (self.writes << 10)
    }
}

/// What only a connection has with which something is going on.
#[derive(Debug, Default)]
pub struct Busy {
    /// Messages that `send` accepted and that are not whole on the wire: number and length.
    pub queued: VecDeque<(Option<u64>, u64)>,
    /// How many of them were to be dropped at once, the one on the wire excepted.
    pub to_drop: usize,
    /// How many of these are not: they have begun, on the wire or in `begun` bytes of a record.
    pub spared: usize,
    pub begun: usize,
    pub accepted: u64,
    pub accepted_bytes: u64,
    pub handed: u64,
    pub handed_bytes: u64,
    pub inbound: ClientStream,
    /// Read, and not known to be parsed.
    pub held: VecDeque<u8>,
    /// So much of it may have been parsed when the connection failed.
    pub maybe_parsed: u64,
    /// Messages and bytes that were discarded after a pause that lasted too long.
    pub discarded: (u64, u64),
    /// What it was before an event of which only the report shows whether its input was parsed before.
    pub undo: Option<Box<Undo>>,
    pub pings_due: u64,
    pub pings: u64,
    pub last_ping: Option<Vec<u8>>,
    pub last_pong: Option<Vec<u8>>,
    /// How many Pings were parsed, and Pongs written.
    pub pings_in: u64,
    pub pongs_out: u64,
    /// Pongs were dropped with what had not begun.
    pub pongs_dropped: bool,
    pub ending: Option<Ending>,
}

/// A connection before an abort, or before what it held was taken for parsed.
#[derive(Debug)]
pub struct Undo {
    pub state: Option<State>,
    pub held: VecDeque<u8>,
    pub inbound: ClientStream,
    pub ending: Option<Ending>,
}

/// The facts of an ending.
#[derive(Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "facts, each on its own")]
pub struct Ending {
    pub initiator: Initiator,
    pub cause: Cause,
    /// What it may also be: several reasons came together.
    pub or_causes: Vec<Cause>,
    /// The state in which it was aborted for one of them.
    pub aborted_in: Option<State>,
    /// Why, by whom, and in what style it was aborted.
    pub aborted_by: Option<(Cause, Initiator, Option<adjourn::config::Abort>)>,
    /// By how much it may have begun earlier.
    pub uncertainty: u64,
    /// The loop began it, and the checker noticed it later.
    pub noticed_late: bool,
    /// When its outcome was fixed.
    pub ended: Option<u64>,
    /// By how much that may have been earlier: what ended it was read then, and may have been held.
    pub early: u64,
    pub sent: Option<Expected>,
    pub received: Option<(Option<u16>, String)>,
    pub began: u64,
    pub deadline: u64,
    pub flush_deadline: u64,
    /// The flush budget is used up, and what follows has been done.
    pub flush_over: bool,
    /// It was used up once: no message may begin.
    pub none_begins: bool,
    pub unanswered: bool,
    pub lost_in: u64,
    pub lost_in_bytes: u64,
    /// How many more messages and bytes that is if they were held when it ended.
    pub or_lost_in: (u64, u64),
    /// Payload of messages since the closing began.
    pub taken_in: u64,
    pub partial_in: (u64, u64),
    pub trailing: (u64, u64),
    pub sweeps: Vec<u32>,
    /// The abort style that was asked for; `None` is the checker's ignorance.
    pub style: Option<adjourn::config::Abort>,
    /// What the kernel held at the abort.
    pub unsent: Option<u32>,
}

/// A `close_where` or `terminate_where`.
#[derive(Debug)]
pub struct SweepFacts {
    pub terminates: bool,
    /// Whom the predicate chose, in order.
    pub chosen: Arc<Mutex<Vec<u32>>>,
    /// How many of `chosen` were looked at.
    pub seen: usize,
    /// When it began, and how late turns had been until then.
    pub began: u64,
    pub late: u64,
    pub pace: Pace,
    /// No more than that can be chosen.
    pub most: usize,
    /// If it is by number: it chooses those whose number leaves this rest.
    pub rest: Option<(u32, u32)>,
    /// How many have got its Close, or were terminated by it.
    pub reached: u64,
    pub ended: u64,
    pub clean: u64,
    pub timed_out: u64,
    pub lost: Lost,
    pub done: bool,
}

/// What the hub delivered.
#[derive(Clone, Copy, Debug)]
pub enum Delivery<'a> {
    Message { text: bool, payload: &'a [u8], closing: bool },
    Ping(&'a [u8]),
    Pong(&'a [u8]),
}

impl Delivery<'_> {
    /// Whether it is this message.
    pub fn is(&self, text: bool, payload: &[u8]) -> bool {
        matches!(self, Self::Message { text: t, payload: p, .. } if (*t, *p) == (text, payload))
    }
}
