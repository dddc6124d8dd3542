//! What the application asks of a connection: messages to send, and its end. Whether that is possible is the tables' to
//! say.

use super::{
    CloseTiming, Conn, Context, Frames, Pending,
    backlog::{FrameHead, opcode},
    broadcast::Shared,
    broken::Broken,
    chunk::Body,
    deflate::Sharing,
    life::{Life, Paused},
    output::OWN_BUFFER,
    state::{Failure, Input, State, TakesSends},
    watch::Watch,
};
use crate::{
    close::{Cause, CloseCode, CloseFrame},
    config::{Abort, Config, OnOverflow},
    error::{ConnectionLimit, HandshakeError, SendError},
    message::{Data, Payload},
    shutdown::SweepId,
    time::Time,
    wire::header::{MAX_CONTROL_PAYLOAD, Opcode, frame_length},
};

/// What became of a call of [`Conn::pause`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pause {
    /// The input of this connection is not held, or no longer.
    Not,
    /// It is held from now on, for a time that has an end by itself.
    Begins,
    /// It is held.
    Holds,
}

impl Conn {
    // Messages.

    /// Queues a message, or says why not.
    #[inline]
    pub(crate) fn send(&mut self, message: Payload<'_>, cx: &mut Context<'_>) -> Result<(), SendError> {
        if !self.send_plainly(&message, cx) {
            let length = frame_length(message.len(), self.client);
            self.check_send(length, length, cx)?;
            self.push_message(message, cx);
        }
        Ok(())
    }

    /// The way of most messages: nothing is special about the connection, nothing waits but in the output buffer, and
    /// there is room. Says whether that was so; if not, nothing has happened.
    #[inline]
    fn send_plainly(&mut self, message: &Payload<'_>, cx: &mut Context<'_>) -> bool {
        let payload = message.as_bytes();
        if !self.is_plain() || payload.len() >= OWN_BUFFER {
            return false;
        }
        let (head, output) = (opcode(message.kind).into(), &mut cx.common.output);
        let queued = self.outbox.push_plain(head, payload, cx.config.connection.max_backlog, output);
        self.note_plain(queued, 1, cx)
    }

    /// Queues messages that others get too: all of them, or none.
    #[inline]
    pub(crate) fn send_shared(
        &mut self,
        frames: &mut [Frames<'_>],
        cx: &mut Context<'_>,
    ) -> Result<(), SendError> {
        if self.share_plainly(frames, cx) {
            return Ok(());
        }
        let (mut length, mut fresh) = (0_usize, 0_usize);
        for frames in &*frames {
            let frame = frame_length(frames.message().len(), self.client);
            length = length.saturating_add(frame);
            if !frames.is_made(self.sharing(frames, cx.config)) {
                fresh = fresh.saturating_add(frame);
            }
        }
        self.check_send(length, fresh, cx)?;
        for frames in frames {
            self.push_shared(frames, cx);
        }
        Ok(())
    }

    /// [`Conn::send_plainly`] for messages whose frames are in the output buffer, one after the other.
    #[inline]
    fn share_plainly(&mut self, frames: &[Frames<'_>], cx: &mut Context<'_>) -> bool {
        let Some((start, end)) = Frames::plain_range(frames) else { return false };
        if !self.is_plain() {
            return false;
        }
        let queued =
            self.outbox.share_plain(start, end, cx.config.connection.max_backlog, &mut cx.common.output);
        self.note_plain(queued, frames.len(), cx)
    }

    #[inline]
    fn is_plain(&self) -> bool {
        matches!(self.life, Life::Open { .. }) && self.details.is_plain() && !self.client
    }

    #[inline]
    fn note_plain(&mut self, queued: Option<usize>, messages: usize, cx: &mut Context<'_>) -> bool {
        if let Some(queued) = queued {
            cx.common.totals.sent_messages += messages as u64;
            self.note_queued(queued);
            self.pending.add(Pending::WRITE);
        }
        queued.is_some()
    }

    /// Whether frames of `message` bytes, headers included, may be queued now. `fresh` of them are not there yet.
    fn check_send(&mut self, message: usize, fresh: usize, cx: &mut Context<'_>) -> Result<(), SendError> {
        if !self.takes_sends() {
            let connecting = self.state() == State::Connecting;
            return Err(if connecting { SendError::Connecting } else { SendError::Closing });
        }
        let queued = self.queued();
        let settings = self.settings(cx.config);
        let (limit, on_overflow) = (settings.max_backlog, settings.on_overflow);
        if queued.saturating_add(message) > limit {
            cx.common.totals.refused_messages += 1;
            if on_overflow == OnOverflow::Fail {
                self.fail_slow_consumer(cx);
            } else {
                self.await_drain(queued);
            }
            return Err(SendError::Overflow { queued, message, limit });
        }
        let output = &cx.common.output;
        if fresh > 0 && !output.fits(fresh) {
            cx.common.totals.refused_messages += 1;
            let (total, limit) = (output.queued(), output.max_backlogs());
            if queued == 0 && fresh <= limit {
                // What others hold is in its way, so its own writes say nothing.
                cx.common.waiting.add(cx.id, fresh);
                self.drain_owed.set(true);
            }
            self.await_drain(queued);
            return Err(SendError::Overflow { queued: total, message: fresh, limit });
        }
        Ok(())
    }

    /// The caller waits until there is room. For a message that never fits there is nothing to wait for.
    fn await_drain(&self, queued: usize) {
        if queued > 0 {
            self.drain_owed.set(true);
        }
    }

    fn fail_slow_consumer(&mut self, cx: &mut Context<'_>) {
        let frame = CloseFrame::with_constant(CloseCode::TRY_AGAIN_LATER, "slow consumer");
        let cause = Cause::Overflow { queued: self.queued() as u64 };
        let failure = Failure { cause, frame, timing: CloseTiming::DEFAULT };
        self.apply(Input::Overflow { failure }, cx);
    }

    /// The backlogs of the loop hold too much, and this one is among the largest: fails the connection, and drops at once what has
    /// not begun.
    pub(crate) fn make_room(&mut self, cx: &mut Context<'_>) {
        self.fail_slow_consumer(cx);
        self.drop_unbegun(cx);
    }

    #[inline]
    pub(super) fn takes_sends(&self) -> bool {
        match self.state().capabilities().takes_sends {
            TakesSends::Yes => true,
            TakesSends::UntilAnswered => self.is_unanswered(),
            TakesSends::No => false,
        }
    }

    pub(super) fn push_message(&mut self, message: Payload<'_>, cx: &mut Context<'_>) {
        let head = FrameHead::from(opcode(message.kind));
        let open = self.state() == State::Open;
        let compression = self.details.compression_mut();
        let mask = self.client.then(|| cx.common.keys.mask());
        let (outbox, output) = (&mut self.outbox, &mut cx.common.output);
        let compressed = compression.and_then(|compression| {
            let had = compression.release_due(cx.config);
            let compressed =
                compression.deflate(message.as_bytes(), open, &mut cx.common.deflate, cx.config, cx.now);
            if had.is_none() && compression.release_due(cx.config).is_some() {
                self.pending.add(Pending::DEADLINE);
            }
            compressed
        });
        let head = if compressed.is_some() { FrameHead { rsv1: true, ..head } } else { head };
        let pushed = match (compressed, message.data) {
            (Some(payload), _) if payload.len() < OWN_BUFFER => {
                outbox.push_frame(mask, head, payload, output)
            }
            (Some(payload), _) => outbox.push_owned(mask, head, Body::Owned(std::mem::take(payload)), output),
            (None, Data::Borrowed(payload)) => match cx.common.lent.get(payload).filter(|_| mask.is_none()) {
                Some(lent) => outbox.push_owned(mask, head, Body::Lent(lent), output),
                None => outbox.push_frame(mask, head, payload, output),
            },
            (None, Data::Owned(payload)) if payload.len() >= OWN_BUFFER => {
                outbox.push_owned(mask, head, Body::Owned(payload), output)
            }
            (None, Data::Shared(payload)) if payload.len() >= OWN_BUFFER => {
                outbox.push_owned(mask, head, Body::Shared(payload), output)
            }
            #[cfg(feature = "bytes")]
            (None, Data::Bytes(payload)) if payload.len() >= OWN_BUFFER => {
                outbox.push_owned(mask, head, Body::Bytes(payload), output)
            }
            (None, small) => outbox.push_frame(mask, head, small.as_slice(), output),
        };
        self.count_sent(cx);
        self.note_pushed(pushed, cx);
    }

    /// A message was accepted.
    fn count_sent(&mut self, cx: &mut Context<'_>) {
        cx.common.totals.sent_messages += 1;
        if let Some(traffic) = self.details.traffic_mut() {
            traffic.sent_messages += 1;
        }
    }

    /// Something was queued, or could not be.
    pub(super) fn note_pushed(&mut self, pushed: Result<(), Broken>, cx: &mut Context<'_>) {
        match pushed {
            Ok(()) => self.want_write(),
            Err(broken) => self.fail_internally(broken, cx),
        }
    }

    /// A key for the next frame, if we are the client (§5.3).
    pub(super) fn mask(&self, cx: &mut Context<'_>) -> Option<[u8; 4]> {
        self.client.then(|| cx.common.keys.mask())
    }

    /// Which frame of a message that others get too.
    fn sharing(&self, frames: &Frames<'_>, config: &Config) -> Sharing {
        match self.compression() {
            // A masked frame cannot be shared.
            _ if self.client => Sharing::Nothing,
            Some(compression) => compression.sharing(frames.message().len(), config),
            None => Sharing::Plain,
        }
    }

    /// Queues a message that others get too. The caller has asked [`Conn::check_send`].
    fn push_shared(&mut self, frames: &mut Frames<'_>, cx: &mut Context<'_>) {
        let sharing = self.sharing(frames, cx.config);
        let outbox = &mut self.outbox;
        if let Some(lent) = frames.send_on(sharing, &cx.common.lent) {
            let head = opcode(frames.message().kind).into();
            let pushed = outbox.push_owned(None, head, Body::Lent(lent), &mut cx.common.output);
            self.count_sent(cx);
            return self.note_pushed(pushed, cx);
        }
        let pushed = match frames.get(sharing, cx) {
            Some(Shared::Range(start, end)) => outbox.push_range(start, end, &mut cx.common.output),
            Some(Shared::Frozen(frame)) => outbox.push_piece(frame, &mut cx.common.output),
            None => return self.push_message(frames.message(), cx),
        };
        self.count_sent(cx);
        self.note_pushed(pushed, cx);
    }

    pub(crate) fn ping(&mut self, payload: &[u8], cx: &mut Context<'_>) -> Result<(), SendError> {
        if payload.len() > MAX_CONTROL_PAYLOAD {
            return Err(SendError::ControlTooLong(payload.len()));
        }
        let length = frame_length(payload.len(), self.client);
        self.check_send(length, length, cx)?;
        self.push_ping(payload, cx);
        Ok(())
    }

    pub(super) fn push_ping(&mut self, payload: &[u8], cx: &mut Context<'_>) {
        let mask = self.mask(cx);
        let pushed = self.outbox.push_frame(mask, Opcode::Ping, payload, &mut cx.common.output);
        cx.common.totals.sent_pings += 1;
        self.note_pushed(pushed, cx);
    }

    pub(super) fn push_pong(&mut self, payload: &[u8], cx: &mut Context<'_>) {
        let mask = self.mask(cx);
        let pushed = self.outbox.push_pong(mask, payload, &mut cx.common.output);
        self.note_pushed(pushed, cx);
    }

    pub(super) fn push_http(&mut self, bytes: Vec<u8>, cx: &mut Context<'_>) {
        let pushed = self.outbox.push_http(bytes, &mut cx.common.output);
        self.note_pushed(pushed, cx);
    }

    // Its end.

    /// Begins the closing handshake. Returns whether this call did.
    pub(crate) fn close(
        &mut self,
        frame: CloseFrame,
        cause: Cause,
        timing: CloseTiming,
        cx: &mut Context<'_>,
    ) -> bool {
        self.begin_closing(Input::Close { frame, cause, timing }, cx)
    }

    pub(crate) fn kick(
        &mut self,
        message: Payload<'_>,
        frame: CloseFrame,
        drop_queued: bool,
        timing: CloseTiming,
        cx: &mut Context<'_>,
    ) -> bool {
        self.begin_closing(Input::Kick { message, drop_queued, frame, timing }, cx)
    }

    fn begin_closing(&mut self, input: Input<'_>, cx: &mut Context<'_>) -> bool {
        let was_open = self.state() == State::Open;
        if self.cancel(cx) {
            return true;
        }
        self.apply(input, cx);
        was_open
    }

    /// Gives up a connection of ours that is not made yet; says whether it was one. There is no peer yet.
    fn cancel(&mut self, cx: &mut Context<'_>) -> bool {
        let dialling = matches!(self.life, Life::Dialling(_));
        if dialling {
            self.give_up(HandshakeError::Cancelled, cx);
        }
        dialling
    }

    /// Answers the peer's Close where that is the application's business. Returns whether it was.
    pub(crate) fn answer_close(&mut self, frame: CloseFrame, cx: &mut Context<'_>) -> bool {
        let unanswered = self.is_unanswered();
        if unanswered {
            self.apply(Input::AnswerClose { frame }, cx);
        }
        unanswered
    }

    /// Ends it at once. Returns whether there was something to end.
    pub(crate) fn terminate(&mut self, style: Option<Abort>, cx: &mut Context<'_>) -> bool {
        if self.cancel(cx) {
            return true;
        }
        let before = self.state();
        let style = style.unwrap_or(self.settings(cx.config).terminate);
        self.apply(Input::Terminate { style }, cx);
        before != self.state()
    }

    /// The hard sweep of a shutdown.
    pub(crate) fn hard_sweep(&mut self, style: Option<Abort>, cx: &mut Context<'_>) -> bool {
        let before = self.state();
        self.parse_held(cx);
        if before != State::Lingering && self.state() == State::Lingering {
            // It has its answer. The next pass ends what is left of it, when our FIN is sent.
            return true;
        }
        let style = style.unwrap_or(self.settings(cx.config).abort);
        self.apply(Input::HardSweep { style }, cx);
        before != self.state()
    }

    /// A newcomer gets its place: it was refused, or its handshake is the oldest.
    pub(crate) fn evict(&mut self, limit: ConnectionLimit, cx: &mut Context<'_>) {
        if self.state() == State::Connecting {
            self.apply(Input::Evicted { limit }, cx);
        } else {
            self.apply(Input::LingerEnd { exceeded: false }, cx);
        }
    }

    /// The soft sweep found it without one byte of a request.
    pub(crate) fn sweep_silent(&mut self, cx: &mut Context<'_>) {
        self.apply(Input::SweptSilent, cx);
    }

    /// Its ending is cut to `deadline` at the latest.
    pub(crate) fn shorten(&mut self, deadline: Time, now: Time) {
        if let Some(closing) = self.life.closing_mut() {
            closing.shorten(deadline, now);
        }
    }

    /// A shutdown's grace ends one that the soft sweep has not begun to close at `end`, by the hard sweep: it flushes for half of
    /// what is left, so that its Close goes out.
    pub(crate) fn cut_flushing(&mut self, end: Time, now: Time) {
        if let Some(closing) = self.life.closing_mut()
            && closing.cause != Cause::ShutdownSoft
            && end < closing.deadline
        {
            closing.shorten_flushing(end, now);
            self.pending.add(Pending::DEADLINE);
        }
    }

    pub(crate) fn join_sweep(&mut self, sweep: SweepId) {
        if let Some(closing) = self.life.closing_mut() {
            closing.sweeps.push(sweep);
        }
    }

    // Whether it is read from.

    /// Stops reading. Allocates.
    pub(crate) fn pause(&mut self, now: Time) -> Pause {
        let pause = match &mut self.life {
            Life::Open { watch, times } => {
                self.life = Life::Paused(Box::new(Paused {
                    watch: *watch,
                    times: *times,
                    since: now,
                    discards: false,
                    left: None,
                    closes: None,
                    messages: 0,
                    bytes: 0,
                }));
                self.pending.add(Pending::DEADLINE);
                Pause::Begins
            }
            Life::Paused(paused) if !paused.discards => Pause::Holds,
            Life::LocalClosing { paused, .. } => {
                *paused = true;
                Pause::Holds
            }
            _ => Pause::Not,
        };
        // Most likely because of what is queued: then the application waits for the end of that.
        if self.queued() > 0 {
            self.drain_owed.set(true);
        }
        pause
    }

    /// Reads again; what was read and not parsed comes first. Says whether input is delivered now: it is too late for one whose
    /// input is being discarded.
    pub(crate) fn resume(&mut self, now: Time) -> bool {
        match &mut self.life {
            Life::Paused(paused) if !paused.discards => {
                let mut times = paused.times;
                // Silence that we imposed is not the peer's.
                let watch = Watch::rested(times.silence(now));
                self.life = Life::Open { watch, times };
            }
            Life::LocalClosing { paused, .. } if *paused => *paused = false,
            life => return matches!(life, Life::Open { .. } | Life::LocalClosing { .. }),
        }
        self.pending.add(Pending::READ | Pending::DEADLINE);
        true
    }
}
