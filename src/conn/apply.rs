//! Carries out what [`step`] asks for: the only place where a connection's state changes.

use std::time::Duration;

use super::{
    Conn, Context, Cursor, Ended, Pending, QueuedEvent,
    closing::End,
    inbox::Item,
    life::Life,
    state::{Effect, Input, PeerFin, State, step},
    watch::Watch,
};
use crate::{
    close::{Cause, CloseCode, CloseFrame, Initiator},
    config::{Abort, CloseAnswer, OnPeerClose},
    message::Payload,
    stats::AnswerCounts,
    wire::header::Opcode,
};

/// What effects must know of the state that was left.
#[derive(Clone, Copy)]
struct Before {
    paused: bool,
    /// The peer's FIN, if it was read.
    fin: Option<PeerFin>,
    /// The application knows its id, and was to decide on its upgrade.
    deferred: bool,
}

impl Conn {
    /// Lets `input` happen.
    pub(super) fn apply(&mut self, mut input: Input<'_>, cx: &mut Context<'_>) {
        let state = self.state();
        let mut step = step(state, &mut input);
        let before = Before {
            paused: self.life.is_paused(),
            fin: self.life.peer_fin(),
            deferred: self.deferred().is_some(),
        };
        self.pending.add(Pending::DEADLINE);
        if step.next != state {
            if state == State::Open
                && let Some(compression) = self.details.compression_mut()
            {
                // §11: a closing connection holds no compression context.
                compression.release_deflater();
            }
            self.life.enter(step.next, cx.now);
        }
        if let Some(closing) = self.life.closing_mut() {
            closing.initiator = step.initiator.unwrap_or(closing.initiator);
            closing.cause = step.cause.unwrap_or(closing.cause);
            if !step.next.is_established() && state.is_established() {
                let flushed = self.outbox.has_flushed_close();
                let queued = if step.next == State::Closed { self.outbox.len() } else { 0 };
                closing.end = End { state, queued, flushed };
            }
        }
        while let Some(effect) = step.poll_effect() {
            self.execute(effect, before, cx);
        }
    }

    fn execute(&mut self, effect: Effect<'_, '_>, before: Before, cx: &mut Context<'_>) {
        match effect {
            Effect::Establish(response) => {
                // A client has nothing to answer to a 101.
                if !response.is_empty() {
                    self.push_http(std::mem::take(response), cx);
                }
                cx.event_queue.push_back(QueuedEvent::Open(cx.id));
            }
            Effect::Answer(response) => {
                if let Life::Refusing { status, .. } = &mut self.life {
                    *status = AnswerCounts::status_of(response);
                }
                self.push_http(std::mem::take(response), cx);
            }
            Effect::HandOver(handover) => {
                self.pending = Pending::only(Pending::RELEASE);
                self.drop_everything(cx);
                if let Some(handover) = handover.take() {
                    self.life = Life::Detached(handover);
                }
            }
            Effect::ReportFailure(cause) => {
                let id = (self.client || before.deferred).then_some(cx.id);
                cx.event_queue.push_back(QueuedEvent::Failed(id, self.peer(), cause));
            }
            Effect::QueueMessage(message) => {
                let message = std::mem::replace(message, Payload::from(&[]));
                self.push_message(message, cx);
            }
            Effect::QueuePing => {
                self.life.note_asked(cx.now);
                self.push_ping(&[], cx);
            }
            Effect::DropInbound => self.drop_inbound(cx),
            Effect::DropUnbegun => self.drop_unbegun(cx),
            Effect::CutFlushBudget => {
                if let Some(closing) = self.life.closing_mut() {
                    // Due in the next turn: what was queued before the failure has this one to be written.
                    closing.flush_deadline = Some(cx.now.after(Duration::from_micros(1)));
                }
            }
            Effect::ReportClosing => self.report_closing(cx),
            Effect::StartTimers(timing) => {
                if let Some(closing) = self.life.closing_mut() {
                    closing.start_timers(*timing, self.details.settings(&cx.config.connection), cx.now);
                }
            }
            Effect::QueueClose(frame) => self.push_close(frame.clone(), cx),
            Effect::QueueAnswer(frame) => self.queue_answer(frame, cx),
            Effect::KeepPeerClose(frame) => {
                if let Some(closing) = self.life.closing_mut() {
                    closing.received = Some(frame.clone());
                }
            }
            Effect::ShortenDeadline(timing) => {
                if let Some(timeout) = timing.close_timeout {
                    self.shorten(cx.now.after(timeout), cx.now);
                }
            }
            Effect::ResumeReading => {
                if before.paused {
                    self.pending.add(Pending::READ);
                }
            }
            Effect::KeepEof(fin) => self.life.keep_peer_fin(fin),
            Effect::StartPauseDeadline => {
                let close_timeout = self.settings(cx.config).close_timeout;
                if let Life::Paused(paused) = &mut self.life {
                    paused.left.get_or_insert(cx.now.after(close_timeout));
                }
            }
            Effect::DiscardInput => self.discard_input(cx),
            Effect::Report => {
                self.report(None, cx);
                self.life.enter(State::Lingering, cx.now);
            }
            Effect::Fin => {
                // §7.1.1: the server closes first; we wait for its FIN as long as we would for an answer to ours.
                if !self.client {
                    self.pending.add(Pending::FIN);
                }
                if let Some(fin) = before.fin {
                    self.apply(Input::Eof { fin }, cx);
                }
            }
            Effect::Abort(style) => self.begin_abort(style, cx),
            Effect::Release(reset) => {
                if let Life::Closed { reset: by_reset, .. } = &mut self.life {
                    *by_reset = reset;
                }
                self.pending = Pending::only(Pending::RELEASE);
                self.drop_everything(cx);
            }
        }
    }

    /// What was received and will not be delivered is counted, frames that were held back by a `pause` too.
    fn drop_inbound(&mut self, cx: &mut Context<'_>) {
        let mut held = self.inbox.take_held();
        let (messages, bytes) = if held.is_empty() { (0, 0) } else { self.count_held(&mut held, cx) };
        cx.common.totals.received_messages += messages;
        if let Some(compression) = self.details.compression_mut() {
            compression.release_inflater();
        }
        let partial = self.inbox.drop_partial();
        if let Some(closing) = self.life.closing_mut() {
            closing.lost.inbound_messages += messages;
            closing.lost.inbound_bytes += bytes;
            closing.lost.inbound_partial_bytes += partial;
        }
    }

    /// Messages among frames that were read and not parsed, and their bytes.
    fn count_held(&mut self, held: &mut [u8], cx: &mut Context<'_>) -> (u64, u64) {
        let mut scratch = Vec::new();
        let mut cursor = Cursor::new(held, &mut scratch);
        let (mut messages, mut bytes) = (0, 0);
        while let Ok(Some(item)) = self.parse(&mut cursor, cx) {
            let len = match item {
                Item::Message(message) => message.len(),
                Item::JoinedMessage(_) => cursor.scratch().len(),
                // §5.5.1: nothing after a Close counts.
                Item::Control(Opcode::Close, _) | Item::JoinedControl(Opcode::Close, _) => break,
                Item::Control(..) | Item::JoinedControl(..) => continue,
            };
            (messages, bytes) = (messages + 1, bytes + len as u64);
        }
        (messages, bytes)
    }

    /// Drops what has not begun, except a Close of ours.
    pub(super) fn drop_unbegun(&mut self, cx: &mut Context<'_>) {
        let mask = self.mask(cx);
        let Some(closing) = self.life.closing_mut() else { return };
        let output = &mut cx.common.output;
        match self.outbox.drop_unbegun(mask, closing.sent.as_ref(), output) {
            Ok(dropped) => closing.count(dropped),
            Err(broken) => self.fail_internally(broken, cx),
        }
    }

    fn report_closing(&self, cx: &mut Context<'_>) {
        let Some(closing) = self.life.closing() else { return };
        let (initiator, frame) = match &closing.received {
            Some(received) => (Initiator::Remote, received),
            None => (Initiator::Local, closing.sent.as_ref().unwrap_or(&CloseFrame::EMPTY)),
        };
        cx.event_queue.push_back(QueuedEvent::Closing(cx.id, initiator, frame.clone()));
    }

    fn queue_answer(&mut self, frame: &CloseFrame, cx: &mut Context<'_>) {
        let settings = self.settings(cx.config);
        let (on_peer_close, answer) = (settings.on_peer_close, settings.answer);
        if on_peer_close == OnPeerClose::DropQueued {
            self.drop_unbegun(cx);
        }
        match (answer, &mut self.life) {
            (CloseAnswer::Manual, Life::RemoteClosing { unanswered, .. }) => *unanswered = true,
            _ => self.push_close(frame.clone(), cx),
        }
    }

    /// Queues our Close after all that is queued.
    fn push_close(&mut self, frame: CloseFrame, cx: &mut Context<'_>) {
        let mask = self.mask(cx);
        let pushed = self.outbox.push_close(mask, &frame, &mut cx.common.output);
        self.note_pushed(pushed, cx);
        // Also while the kernel takes nothing: the driver then lets it hold less, so that the Close can overtake the rest.
        self.pending.add(Pending::WRITE);
        if let Life::RemoteClosing { unanswered, .. } = &mut self.life {
            *unanswered = false;
        }
        if let Some(closing) = self.life.closing_mut() {
            closing.sent = Some(frame);
        }
    }

    /// From now on a paused connection is read from again, and nothing is delivered.
    fn discard_input(&mut self, cx: &mut Context<'_>) {
        let Life::Paused(paused) = &mut self.life else { return };
        paused.discards = true;
        paused.watch = Watch::rested(paused.times.silence(cx.now));
        self.pending.add(Pending::READ);
    }

    /// Asks for the abort; it is carried out, and reported, before the turn ends.
    fn begin_abort(&mut self, style: Abort, cx: &mut Context<'_>) {
        self.pending = Pending::only(Pending::ABORT);
        let dropped = self.outbox.drop_all(&mut cx.common.output);
        if dropped.is_err() {
            cx.common.internal_errors += 1;
        }
        if let Some(closing) = self.life.closing_mut() {
            closing.abort = match style {
                Abort::Auto if closing.end.queued > 0 => Abort::Reset,
                Abort::Auto => Abort::Fin,
                style => style,
            };
            closing.count(dropped.unwrap_or_default());
        }
    }

    /// How the abort that is due is to be done.
    pub(crate) fn abort_due(&self) -> Abort {
        self.life.closing().map_or(Abort::Reset, |closing| closing.abort)
    }

    /// The driver has aborted it; `kernel_unsent` is what the kernel held. After a FIN the descriptor lingers. Of no effect unless an
    /// abort was asked for.
    pub(crate) fn handle_aborted(&mut self, kernel_unsent: Option<u32>, by_fin: bool, cx: &mut Context<'_>) {
        let Life::Closed { unreported: Some(closing), .. } = &self.life else { return };
        let eof = closing.fin.is_some();
        self.pending = Pending::only(if by_fin { Pending::READ } else { Pending::RELEASE });
        self.report(kernel_unsent, cx);
        if by_fin {
            self.apply(Input::AbortedByFin { eof }, cx);
        }
    }

    /// The outcome is fixed: says so, and gives everything back.
    fn report(&mut self, kernel_unsent: Option<u32>, cx: &mut Context<'_>) {
        let Some(closing) = self.life.take_unreported() else { return };
        let End { state, queued, .. } = closing.end;
        let (closed, sweeps) = closing.into_report(kernel_unsent, self.details.traffic(), cx.now);
        self.drop_everything(cx);
        cx.event_queue
            .push_back(QueuedEvent::Close(cx.id, Ended { closed: Box::new(closed), sweeps, state, queued }));
    }

    fn drop_everything(&mut self, cx: &mut Context<'_>) {
        self.outbox.clear(&mut cx.common.output);
        self.inbox = super::inbox::Inbox::default();
        self.details.strip();
    }

    /// An invariant of ours is broken: what was queued cannot be trusted, so it is dropped, and the connection is failed. It is
    /// counted as lost, unless it cannot even be counted.
    #[cold]
    pub(super) fn fail_internally(&mut self, _: super::broken::Broken, cx: &mut Context<'_>) {
        cx.common.internal_errors += 1;
        let dropped = self.outbox.drop_all(&mut cx.common.output).unwrap_or_default();
        self.outbox.clear(&mut cx.common.output);
        let frame = CloseFrame::with_constant(CloseCode::INTERNAL_ERROR, "internal error");
        let failure =
            super::state::Failure { cause: Cause::Internal, frame, timing: super::CloseTiming::DEFAULT };
        self.apply(Input::Internal { failure }, cx);
        if let Some(closing) = self.life.closing_mut() {
            closing.count(dropped);
        }
    }
}
