//! Carries out what [`step`] asks for: the only place where a connection's state changes.

use std::time::Duration;

use super::{
    Conn, Context, Cursor, Ended, Inbound, Item, Note, Timing, Todo, Unpacker,
    outbound::{self, Backlog, Cork, Dropped},
    state::{Effect, Input, State, Step, step},
    tally::Tally,
};
use crate::{
    close::{Cause, CloseFrame, Closed, Initiator, Lost},
    config::{Abort, Answer, OnPeerClose},
    error::HandshakeCause,
    event::Message,
    shutdown::SweepId,
    time::Time,
    wire::{
        header::{Opcode, frame_length},
        upgrade::HeadScanner,
    },
};

/// The facts of an ending, from which [`Closed`] is made.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) initiator: Initiator,
    pub(super) cause: Cause,
    pub(super) sent: Option<CloseFrame>,
    /// Bytes until our Close is wholly in the kernel.
    pub(super) to_flush: usize,
    pub(super) received: Option<CloseFrame>,
    pub(super) lost: Lost,
    pub(super) began: Time,
    pub(super) deadline: Time,
    pub(super) flush_deadline: Time,
    /// Bytes of messages delivered since.
    pub(super) delivered: u64,
    /// Bytes that were read since the deadline, to see whether the peer's Close waits in the kernel.
    pub(super) probed: u64,
    /// The application has yet to answer the peer's Close.
    pub(super) unanswered: bool,
    pub(super) sweeps: Vec<SweepId>,
    pub(super) abort: Abort,
    /// At an abort: where it was and how much was queued.
    pub(super) aborted: (State, usize),
}

impl Ending {
    pub(super) fn new(initiator: Initiator, cause: Cause, now: Time) -> Self {
        Self {
            initiator,
            cause,
            sent: None,
            to_flush: 0,
            received: None,
            lost: Lost::default(),
            began: now,
            deadline: Time::NEVER,
            flush_deadline: Time::NEVER,
            delivered: 0,
            probed: 0,
            unanswered: false,
            sweeps: Vec::new(),
            abort: Abort::Reset,
            aborted: (State::Open, 0),
        }
    }

    pub(super) fn sent_flushed(&self) -> bool {
        self.sent.is_some() && self.to_flush == 0
    }

    pub(super) fn count(&mut self, dropped: Dropped) {
        self.lost.messages += dropped.messages;
        self.lost.bytes += dropped.bytes;
        self.lost.partial += dropped.partial;
    }
}

/// Why an input happens; what its effects need to know.
pub(super) enum Why<'m> {
    Nothing,
    /// `close`, `kick` and sweeps.
    Close {
        frame: CloseFrame,
        cause: Cause,
        timing: Timing,
    },
    Kick {
        message: Message<'m>,
        frame: CloseFrame,
        drop_queued: bool,
        timing: Timing,
    },
    PeerClose(CloseFrame),
    Answer(CloseFrame),
    /// We fail it with this Close.
    Fail {
        cause: Cause,
        frame: CloseFrame,
        timing: Timing,
    },
    /// It ends without a Close of its own.
    End {
        cause: Cause,
        initiator: Initiator,
        abort: Abort,
    },
    Handshake {
        cause: Option<HandshakeCause>,
        response: Vec<u8>,
    },
}

impl Conn {
    /// Lets `input` happen: the only place where `state` changes.
    pub(super) fn apply(&mut self, input: Input, mut why: Why<'_>, cx: &mut Context<'_>) {
        let Step { next, effects } = step(self.state, input);
        let before = std::mem::replace(&mut self.state, next);
        if before == State::Open && next != State::Open {
            self.tally = Tally::default();
            // §11: a closing connection holds no compression context.
            if let Some(coding) = self.coding_mut() {
                coding.release_deflater();
            }
        }
        self.todo.add(Todo::ALARM);
        self.note_cause(before, input, &why, cx.now);
        for effect in effects {
            self.carry_out(*effect, before, &mut why, cx);
        }
    }

    /// Writes down who and why, before the effects make use of it. The first cause of an ending is its cause.
    pub(super) fn note_cause(&mut self, before: State, input: Input, why: &Why<'_>, now: Time) {
        if self.state == before || !before.is_established() {
            return;
        }
        let fresh = match why {
            Why::Close { cause, .. } | Why::Fail { cause, .. } => (Initiator::Local, *cause),
            Why::Kick { .. } => (Initiator::Local, Cause::Kicked),
            Why::PeerClose(_) => (Initiator::Remote, Cause::PeerClose),
            Why::End { cause, initiator, .. } => (*initiator, *cause),
            Why::Nothing | Why::Answer(_) | Why::Handshake { .. } => return,
        };
        let work = self.work.get_or_insert_default();
        let Some(ending) = &mut work.ending else {
            work.ending = Some(Box::new(Ending::new(fresh.0, fresh.1, now)));
            return;
        };
        match (before, why) {
            // Ours was queued and not wholly in the kernel: they crossed (§7.1.5 still takes the peer's code).
            (State::LocalClosing, Why::PeerClose(_)) if input == Input::PeerClose => {
                (ending.initiator, ending.cause) = (Initiator::Both, Cause::Crossed);
            }
            // Answered: the cause is why we closed. And the first failure stays the cause, whatever ends it then.
            (State::LocalClosing, Why::PeerClose(_)) | (State::Failing, _) => {}
            _ => ending.cause = fresh.1,
        }
    }

    pub(super) fn carry_out(
        &mut self,
        effect: Effect,
        before: State,
        why: &mut Why<'_>,
        cx: &mut Context<'_>,
    ) {
        match effect {
            Effect::Establish | Effect::Answer => self.queue_response(effect, why, cx),
            Effect::ReportFailure => {
                if let Why::Handshake { cause: Some(cause), .. } = why {
                    let id = self.flags.client.then_some(cx.id);
                    cx.notes.push_back(Note::Failed(id, self.peer(), *cause));
                }
            }
            // The callers of `apply` or of `step` have these at hand and do them on the spot.
            Effect::Deliver | Effect::Discard | Effect::QueuePong | Effect::Refuse => {}
            Effect::QueueMessage => {
                if let Why::Kick { message, drop_queued, .. } = why {
                    let message = std::mem::replace(message, Message::binary(&[]));
                    if *drop_queued {
                        self.drop_unbegun(cx);
                    }
                    self.push_message(message, cx);
                }
            }
            Effect::QueuePing => {
                self.tally = Tally::asked(cx.now.since(self.last_inbound));
                self.push_control(Opcode::Ping, &[], cx.cork, cx.now);
            }
            Effect::DropInbound => self.drop_inbound(cx),
            Effect::DropUnbegun => self.drop_unbegun(cx),
            Effect::CutFlushBudget => {
                if let Some(ending) = self.ending_mut() {
                    // Due in the next turn: what was queued before the failure has this one to get out.
                    ending.flush_deadline = cx.now.after(Duration::from_micros(1));
                }
            }
            Effect::ReportClosing => self.report_closing(cx),
            Effect::QueueClose => self.queue_close(why, cx),
            Effect::QueueAnswer => self.queue_answer(why, cx),
            Effect::KeepPeerClose => {
                if let (Why::PeerClose(frame), Some(ending)) = (why, self.ending_mut()) {
                    ending.received = Some(frame.clone());
                }
            }
            Effect::ShortenDeadline => {
                if let Why::Close { timing, .. } | Why::Kick { timing, .. } = why
                    && let Some(timeout) = timing.close_timeout
                {
                    self.shorten(cx.now.after(timeout), cx.now);
                }
            }
            Effect::ResumeReading => {
                if self.flags.paused {
                    self.todo.add(Todo::READ);
                }
            }
            Effect::Report => {
                if let Some(ending) = self.ending_mut() {
                    ending.aborted = (before, 0);
                }
                self.report(None, cx);
            }
            Effect::Fin => {
                // §7.1.1: the server closes first; we wait for its FIN as long as we would for an answer to ours.
                if !self.flags.client {
                    self.todo.add(Todo::FIN);
                }
                (self.since, self.tally) = if before == State::Refusing {
                    (self.since, self.tally)
                } else {
                    (cx.now, Tally::default())
                };
                if self.flags.eof {
                    self.apply(Input::Eof, Why::Nothing, cx);
                }
            }
            Effect::Abort => self.begin_abort(before, why, cx),
            Effect::Release => {
                self.todo = Todo(Todo::RELEASE);
                self.drop_everything(cx.cork);
            }
        }
    }

    pub(super) fn queue_response(&mut self, effect: Effect, why: &mut Why<'_>, cx: &mut Context<'_>) {
        let Why::Handshake { response, .. } = why else { return };
        self.since = cx.now;
        if effect == Effect::Answer
            && let Some(work) = &mut self.work
        {
            work.held = Vec::new();
        }
        // A client has nothing to answer to a 101.
        if !response.is_empty() {
            self.backlog(cx.now).push_raw(std::mem::take(response));
            self.todo.add(Todo::WRITE);
        }
        if effect == Effect::Establish {
            if let Some(work) = &mut self.work {
                work.head = HeadScanner::default();
            }
            cx.notes.push_back(Note::Open(cx.id));
        }
    }

    /// What was received and will not be delivered is counted, frames behind a `pause` too.
    pub(super) fn drop_inbound(&mut self, cx: &mut Context<'_>) {
        let mut held = self.take_held();
        let (messages, bytes) = if held.is_empty() { (0, 0) } else { self.count_held(&mut held, cx) };
        if let Some(coding) = self.coding_mut() {
            coding.release_inflater();
        }
        let Some(work) = &mut self.work else { return };
        let partial = std::mem::take(&mut work.inbound).partial_bytes();
        if let Some(ending) = &mut work.ending {
            ending.lost.inbound_messages += messages;
            ending.lost.inbound_bytes += bytes;
            ending.lost.inbound_partial_bytes += partial;
        }
    }

    /// Messages among frames that were read and not parsed, and their bytes.
    fn count_held(&mut self, held: &mut [u8], cx: &mut Context<'_>) -> (u64, u64) {
        let limits = self.limits(cx.config);
        let mut scratch = Vec::new();
        let mut cursor = Cursor::new(held, &mut scratch);
        let (mut messages, mut bytes) = (0, 0);
        let coding = self.extras.as_mut().and_then(|extras| extras.coding.as_mut());
        let mut unpacker = Unpacker { coding, shared: cx.deflate };
        while let Ok(Some(item)) = Inbound::next(&mut self.work, &mut cursor, limits, &mut unpacker) {
            let len = match item {
                Item::Message(_, payload) => payload.len(),
                Item::JoinedMessage(_) => cursor.scratch().len(),
                // §5.5.1: nothing behind a Close counts.
                Item::Control(Opcode::Close, _) | Item::JoinedControl(Opcode::Close, _) => break,
                Item::Control(..) | Item::JoinedControl(..) => continue,
            };
            (messages, bytes) = (messages + 1, bytes + len as u64);
        }
        (messages, bytes)
    }

    /// Drops what has not begun, except a Close of ours.
    pub(super) fn drop_unbegun(&mut self, cx: &mut Context<'_>) {
        self.uncork(cx.cork, cx.now);
        let mask = self.mask(cx.cork);
        let Some(work) = &mut self.work else { return };
        let Some(ending) = &mut work.ending else { return };
        let close_len = ending.sent.as_ref().map(|frame| frame_length(frame.payload_len(), mask.is_some()));
        if close_len.is_some_and(|close| ending.to_flush <= close) {
            return; // Nothing is queued before it.
        }
        ending.count(work.backlog.drop_unbegun());
        if let Some(frame) = &ending.sent {
            push_close(&mut work.backlog, mask, frame);
            ending.to_flush = work.backlog.len();
        }
    }

    pub(super) fn report_closing(&mut self, cx: &mut Context<'_>) {
        let Some(ending) = self.ending() else { return };
        let (initiator, frame) = match &ending.received {
            Some(received) => (Initiator::Remote, received),
            None => (Initiator::Local, ending.sent.as_ref().unwrap_or(&CloseFrame::EMPTY)),
        };
        cx.notes.push_back(Note::Closing(cx.id, initiator, frame.clone()));
    }

    /// Queues our Close behind what is queued; its place is always there. Starts both timers.
    pub(super) fn queue_close(&mut self, why: &Why<'_>, cx: &mut Context<'_>) {
        let (Why::Close { frame, timing, .. }
        | Why::Kick { frame, timing, .. }
        | Why::Fail { frame, timing, .. }) = why
        else {
            return;
        };
        self.start_timers(*timing, cx);
        self.push_close_frame(frame.clone(), cx);
    }

    pub(super) fn queue_answer(&mut self, why: &Why<'_>, cx: &mut Context<'_>) {
        let frame = match why {
            Why::PeerClose(received) => {
                self.start_timers(Timing::default(), cx);
                let overrides = self.overrides();
                let on_peer_close =
                    overrides.and_then(|o| o.on_peer_close).unwrap_or(cx.config.on_peer_close);
                let answer = overrides.and_then(|o| o.answer).unwrap_or(cx.config.answer);
                if on_peer_close == OnPeerClose::DropQueued {
                    self.drop_unbegun(cx);
                }
                if let (Answer::Manual, Some(ending)) = (answer, self.ending_mut()) {
                    ending.unanswered = true;
                    return;
                }
                received.answer()
            }
            Why::Answer(frame) => frame.clone(),
            _ => return,
        };
        self.push_close_frame(frame, cx);
    }

    pub(super) fn start_timers(&mut self, timing: Timing, cx: &Context<'_>) {
        let (config, overrides) = (cx.config, self.overrides());
        let close_timeout =
            timing.close_timeout.or(overrides.and_then(|o| o.close_timeout)).unwrap_or(config.close_timeout);
        let flush_budget = timing
            .flush_budget
            .or(overrides.and_then(|o| o.flush_budget))
            .or(config.flush_budget)
            .unwrap_or(close_timeout / 2)
            .min(close_timeout);
        if let Some(ending) = self.ending_mut() {
            ending.began = cx.now;
            ending.deadline = cx.now.after(close_timeout);
            ending.flush_deadline = cx.now.after(flush_budget);
        }
    }

    pub(super) fn push_close_frame(&mut self, frame: CloseFrame, cx: &mut Context<'_>) {
        let mut payload = Vec::with_capacity(frame.payload_len());
        frame.write_payload(&mut payload);
        self.push_frame(Opcode::Close, &payload, cx.cork, cx.now);
        // Also while the kernel takes nothing: the driver then lets it hold less, so that the Close can overtake the rest.
        self.todo.add(Todo::WRITE);
        let queued = self.buffered_amount();
        if let Some(work) = &mut self.work {
            work.backlog.pin_pong();
        }
        if let Some(ending) = self.ending_mut() {
            ending.unanswered = false;
            ending.sent = Some(frame);
            ending.to_flush = queued;
        }
    }

    /// Asks for the abort; it is carried out, and reported, before the turn ends.
    pub(super) fn begin_abort(&mut self, before: State, why: &Why<'_>, cx: &mut Context<'_>) {
        let queued = self.buffered_amount();
        if !before.is_established() {
            self.todo = Todo(Todo::RELEASE);
            return self.drop_everything(cx.cork);
        }
        let style = match why {
            Why::End { abort: Abort::Auto, .. } if queued > 0 => Abort::Reset,
            Why::End { abort: Abort::Auto, .. } => Abort::Fin,
            Why::End { abort, .. } => *abort,
            _ => Abort::Reset,
        };
        let unsent = outbound::count(self.corked.bytes(cx.cork));
        self.corked.clear(cx.cork);
        self.todo = Todo(Todo::ABORT);
        let Some(work) = &mut self.work else { return };
        if let Some(ending) = &mut work.ending {
            ending.abort = style;
            ending.aborted = (before, queued);
            ending.count(unsent);
            ending.count(work.backlog.drop_all());
        }
    }

    /// How the abort that is due is to be done.
    pub(crate) fn abort_due(&self) -> Abort {
        self.ending().map_or(Abort::Reset, |ending| ending.abort)
    }

    /// The driver has aborted it; the kernel held so many bytes. Behind a FIN the descriptor lingers.
    pub(crate) fn handle_aborted(&mut self, kernel_unsent: Option<u32>, by_fin: bool, cx: &mut Context<'_>) {
        self.todo = Todo(if by_fin { Todo::READ } else { Todo::RELEASE });
        self.report(kernel_unsent, cx);
        if by_fin {
            self.apply(Input::AbortedByFin, Why::Nothing, cx);
        }
    }

    /// The outcome is fixed: says so, and gives everything back.
    pub(super) fn report(&mut self, kernel_unsent: Option<u32>, cx: &mut Context<'_>) {
        let Some(ending) = self.work.as_mut().and_then(|work| work.ending.take()) else { return };
        let Ending { initiator, cause, to_flush, sent, received, mut lost, began, sweeps, aborted, .. } =
            *ending;
        lost.kernel_unsent = kernel_unsent;
        let had_close = sent.is_some() || received.is_some();
        let closed = Closed {
            initiator,
            cause,
            sent_flushed: sent.is_some() && to_flush == 0,
            sent,
            received,
            lost,
            duration: cx.now.since(self.since),
            close_phase: if had_close { cx.now.since(began) } else { Duration::ZERO },
        };
        self.drop_everything(cx.cork);
        let (state, queued) = aborted;
        cx.notes.push_back(Note::Close(cx.id, Ended { closed: Box::new(closed), sweeps, state, queued }));
    }

    pub(super) fn drop_everything(&mut self, cork: &mut Cork) {
        self.corked.clear(cork);
        self.work = None;
        self.extras = None;
    }
}

/// A Close behind a rebuilt backlog.
fn push_close(backlog: &mut Backlog, mask: Option<[u8; 4]>, frame: &CloseFrame) {
    let mut payload = Vec::with_capacity(frame.payload_len());
    frame.write_payload(&mut payload);
    backlog.push_frame(mask, Opcode::Close, &payload);
}
