//! What is known of one side from its wire and from its application's commands, and what its events must be therefore.

use std::time::Duration;

use adjourn::{
    CloseFrame, CloseReport, Event,
    close::{Cause, Initiator},
};

use super::{
    table::{Begun, CAUSES, Code, Ended, Ours, ROWS, Theirs},
    wire::{Payload, Stream},
};

/// A deadline fires within this time (section 3).
const SLACK: u64 = 50_000;
/// First byte of an ordinary message's payload, and of a kick's, which may follow a gap.
pub(super) const PLAIN: u8 = b'm';
pub(super) const LAST: u8 = b'k';
/// Bytes of every message's payload: one of the above, and its number.
pub(super) const PAYLOAD: u64 = 2;

/// A side's timers, in microseconds.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Timers {
    pub(super) close: u64,
    pub(super) flush: u64,
    pub(super) linger: u64,
    pub(super) stall: u64,
    /// Interval and timeout.
    pub(super) heartbeat: Option<(u64, u64)>,
}

/// One side.
#[derive(Debug, Default)]
#[allow(clippy::struct_excessive_bools)]
pub(super) struct Facts {
    timers: Timers,
    /// The handshake is over: from here on there are frames.
    handshaken: bool,
    /// What the kernel took.
    pub(super) out: Stream,
    /// What the core read, until nothing may be parsed any more.
    inn: Stream,
    /// Messages for which `send` said yes, and those of kicks.
    pub(super) accepted: u64,
    asked: Option<Asked>,
    theirs: Option<Arrived>,
    invalid: Option<Arrived>,
    /// When a heartbeat's end failed it.
    failed: Option<u64>,
    terminated: bool,
    pub(super) fin_read: bool,
    /// A read or a write said that the connection is reset.
    pub(super) error: bool,
    /// What the kernel said at an abort.
    pub(super) unsent: Option<u32>,
    /// The last inbound byte, or the end of a pause.
    heard: u64,
    pub(super) paused: bool,
    /// Something waits since a write came short, and this is when the kernel took a byte last.
    stalled: Option<u64>,
    pub(super) drain_owed: bool,
    opened: Option<u64>,
    delivered: u64,
    next: u8,
    skipped: u64,
    closing: bool,
    /// When its end was reported, and whether it was clean.
    pub(super) reported: Option<(u64, bool)>,
    /// The row of the table by which it ended.
    pub(super) row: Option<usize>,
    /// The name of the cause.
    pub(super) cause: Option<&'static str>,
}

#[derive(Debug)]
struct Asked {
    payload: Payload,
    kicked: bool,
    at: u64,
}

/// A Close that was read.
#[derive(Debug)]
struct Arrived {
    payload: Payload,
    at: u64,
    /// Ours was wholly in the kernel.
    flushed: bool,
}

type Verdict = Result<(), String>;

fn require(rule: bool, what: impl FnOnce() -> String) -> Verdict {
    if rule { Ok(()) } else { Err(what()) }
}

impl Facts {
    pub(super) fn new(timers: Timers) -> Self {
        Self { timers, ..Self::default() }
    }

    /// The handshake is over.
    pub(super) fn handshaken(&mut self) {
        assert!(self.opened.is_some(), "it was accepted");
        self.handshaken = true;
    }

    // What the application asked for, and what the core said.

    /// Whether `send`, `close` and `kick` must say yes.
    pub(super) fn is_open(&self) -> bool {
        let ends = self.asked.is_some() || self.theirs.is_some() || self.invalid.is_some();
        self.opened.is_some() && !ends && self.failed.is_none() && self.is_established()
    }

    /// Whether `terminate` must say yes.
    pub(super) fn is_established(&self) -> bool {
        self.reported.is_none() && !self.terminated
    }

    pub(super) fn sent(&mut self, yes: bool) -> Verdict {
        require(yes == self.is_open(), || format!("send says {yes}"))?;
        self.accepted += u64::from(yes);
        Ok(())
    }

    pub(super) fn asked(&mut self, frame: &CloseFrame, kicked: bool, yes: bool, now: u64) -> Verdict {
        require(yes == self.is_open(), || format!("close or kick says {yes}"))?;
        if yes {
            self.asked = Some(Asked { payload: payload_of(frame), kicked, at: now });
            self.accepted += u64::from(kicked);
        }
        Ok(())
    }

    pub(super) fn terminated(&mut self, yes: bool) -> Verdict {
        require(yes == self.is_established(), || format!("terminate says {yes}"))?;
        self.terminated = true;
        Ok(())
    }

    pub(super) fn paused(&mut self, paused: bool, buffered: usize, now: u64) {
        self.paused = paused;
        if paused {
            self.drain_owed |= buffered > 0;
        } else {
            self.heard = now;
        }
    }

    // What the kernel saw.

    pub(super) fn read(&mut self, bytes: &[u8], now: u64) -> Verdict {
        self.heard = now;
        if !self.handshaken || self.reported.is_some() {
            return Ok(());
        }
        require(!self.terminated, || "is read after terminate".into())?;
        if self.failed.is_some() {
            self.inn.after_close.extend_from_slice(bytes);
            return Ok(());
        }
        let before = self.inn.close.is_some();
        self.inn.push(bytes);
        if let (false, Some(payload)) = (before, &self.inn.close) {
            let arrived = Arrived { payload: payload.clone(), at: now, flushed: self.out.close.is_some() };
            if is_valid(payload) {
                self.theirs = Some(arrived);
            } else {
                self.invalid = Some(arrived);
            }
        }
        Ok(())
    }

    pub(super) fn written(&mut self, bytes: &[u8], offered: usize, now: u64) -> Verdict {
        if !self.handshaken {
            return Ok(());
        }
        require(self.reported.is_none(), || "writes after its end was reported".into())?;
        require(!self.terminated, || "writes after terminate".into())?;
        let begun = self.out.push(bytes);
        require(self.out.has_only_pongs_after_close(), || "a frame after its Close".into())?;
        // A failure has no budget.
        let failed = self.failed.or(self.invalid.as_ref().map(|close| close.at));
        let over = failed.or(self.began().map(|began| began + self.timers.flush));
        require(begun == 0 || over.is_none_or(|over| now <= over + SLACK), || {
            "a message begins after the flush budget".into()
        })?;
        if bytes.len() == offered {
            self.stalled = None;
            return Ok(());
        }
        self.drain_owed = true;
        if self.stalled.is_none() || !bytes.is_empty() {
            self.stalled = Some(now);
        }
        Ok(())
    }

    pub(super) fn fin_sent(&self) -> Verdict {
        require(self.out.cut.is_empty(), || "FIN after a cut frame".into())?;
        let closes = self.began().is_some();
        require(!closes || self.out.close.is_some(), || "FIN before its Close is in the kernel".into())
    }

    pub(super) fn descriptor_closed(&self, reset: bool, fin_sent: bool, now: u64) -> Verdict {
        if !reset && !fin_sent {
            self.fin_sent()?;
        }
        let Some((at, clean)) = self.reported else { return Ok(()) };
        require(!(clean && reset), || "a clean end, and then a reset".into())?;
        require(now <= at + self.timers.linger + SLACK, || "lingers for too long".into())
    }

    // What the application gets.

    /// `unread`: something lies in the kernel that was not read. `room`: it would take a write.
    pub(super) fn event(&mut self, event: &Event<'_>, unread: bool, room: bool, now: u64) -> Verdict {
        require(self.reported.is_none(), || format!("after its Close: {event:?}"))?;
        require(self.opened.is_some() || matches!(event, Event::Open { .. }), || {
            format!("before its Open: {event:?}")
        })?;
        match event {
            Event::Open { .. } => {
                require(self.opened.is_none(), || "a second Open".into())?;
                (self.opened, self.heard) = (Some(now), now);
                Ok(())
            }
            Event::Message { message, closing, .. } => self.message(message.as_bytes(), *closing),
            Event::Ping { .. } | Event::Pong { .. } => Ok(()),
            Event::Drain { .. } => self.drain(),
            Event::Closing { initiator, frame, .. } => {
                self.closing(*initiator, frame, now)?;
                require(self.failed.is_none() || !unread, || "silent, and its input unread".into())
            }
            Event::Close { report: closed, .. } => self.close(closed, unread, room, now),
            other => Err(format!("unexpected: {other:?}")),
        }
    }

    fn message(&mut self, bytes: &[u8], closing: bool) -> Verdict {
        let &[kind @ (PLAIN | LAST), number] = bytes else {
            return Err(format!("a message that nobody sent: {bytes:02x?}"));
        };
        require(closing == self.asked.is_some(), || format!("a message marked closing: {closing}"))?;
        require(closing == self.closing, || "a message on the wrong side of Closing".into())?;
        require(number >= self.next, || format!("message {number} after {}", self.next))?;
        if kind == PLAIN {
            self.skipped += u64::from(number - self.next);
        }
        self.next = number + 1;
        self.delivered += 1;
        Ok(())
    }

    fn drain(&mut self) -> Verdict {
        require(std::mem::take(&mut self.drain_owed), || "a Drain that is not owed".into())?;
        require(!self.closing, || "a Drain after Closing".into())?;
        require(self.out.cut.is_empty() && self.out.messages == self.accepted, || {
            "a Drain while something is queued".into()
        })
    }

    fn closing(&mut self, initiator: Initiator, frame: &CloseFrame, now: u64) -> Verdict {
        require(!self.closing, || "a second Closing".into())?;
        self.closing = true;
        let expected = match (&self.asked, &self.theirs, &self.invalid) {
            (Some(asked), ..) => (Initiator::Local, Some(asked.payload.clone())),
            (None, Some(theirs), _) => (Initiator::Remote, Some(theirs.payload.clone())),
            (None, None, Some(_)) => (Initiator::Local, None),
            (None, None, None) => {
                let silent = self.is_silent(now) && frame.code() == Some(1011);
                require(silent, || format!("Closing for no reason: {frame:?}"))?;
                self.failed = Some(now);
                (Initiator::Local, None)
            }
        };
        require(initiator == expected.0, || format!("Closing by {initiator:?}"))?;
        let same = expected.1.is_none_or(|payload| payload == payload_of(frame));
        require(same, || format!("Closing with {frame:?}"))
    }

    /// Nothing was heard for so long that a heartbeat ends it.
    fn is_silent(&self, now: u64) -> bool {
        let due = self.timers.heartbeat.map(|(interval, timeout)| self.heard + interval + timeout);
        due.is_some_and(|due| now >= due) && !self.paused
    }

    /// When the end began, if it did before it was there.
    fn began(&self) -> Option<u64> {
        let arrived = self.theirs.as_ref().or(self.invalid.as_ref()).map(|close| close.at);
        self.asked.as_ref().map(|asked| asked.at).or(arrived).or(self.failed)
    }

    fn begun(&self) -> Begun {
        match (&self.asked, &self.theirs, &self.invalid) {
            (Some(_), _, Some(_)) => Begun::InvalidAnswer,
            (None, _, Some(_)) => Begun::InvalidClose,
            (Some(_), Some(theirs), None) if !theirs.flushed => Begun::Both,
            (Some(_), _, None) => Begun::Us,
            (None, Some(_), None) => Begun::Peer,
            (None, None, None) if self.failed.is_some() => Begun::Failure,
            (None, None, None) => Begun::Nobody,
        }
    }

    fn ended(&self, begun: Begun, now: u64) -> Result<Ended, String> {
        let over = |since: Option<u64>, time: u64| since.is_some_and(|since| now >= since + time);
        if self.terminated {
            return Ok(Ended::Terminate);
        }
        if self.theirs.is_some() && self.out.close.is_some() {
            return Ok(Ended::Orderly);
        }
        if self.error {
            return Ok(Ended::Reset);
        }
        if self.theirs.is_none() && self.fin_read {
            return Ok(Ended::Fin);
        }
        if over(self.began(), self.timers.close) {
            return Ok(Ended::Timeout);
        }
        if matches!(begun, Begun::Failure | Begun::InvalidClose | Begun::InvalidAnswer) {
            return Ok(Ended::Orderly);
        }
        if begun == Begun::Nobody && over(self.stalled, self.timers.stall) {
            return Ok(Ended::Stall);
        }
        if begun == Begun::Nobody && self.is_silent(now) {
            return Ok(Ended::Heartbeat);
        }
        Err(format!("ends for no reason, begun by {begun:?}"))
    }

    fn close(&mut self, closed: &CloseReport, unread: bool, room: bool, now: u64) -> Verdict {
        let paused = self.paused && self.is_open();
        self.reported = Some((now, closed.was_clean()));
        let ended = self.check_row(closed, now)?;
        // Probe before judgement (section 3), and what the peer sent before its reset counts.
        let waited = matches!(ended, Ended::Heartbeat | Ended::Reset)
            || (ended == Ended::Timeout && self.begun() == Begun::Us);
        require(paused || !waited || !unread, || format!("ended by {ended:?}, and its input unread"))?;
        let writes = ended == Ended::Stall || (ended == Ended::Timeout && self.out.close.is_none());
        require(!writes || !room, || format!("ended by {ended:?}, and there is room"))?;
        self.check_frames(closed)?;
        self.check_times(closed, now)?;
        self.check_lost(closed)
    }

    /// Who, why and with which codes; and what fixed that.
    fn check_row(&mut self, closed: &CloseReport, now: u64) -> Result<Ended, String> {
        let begun = self.begun();
        let ended = self.ended(begun, now)?;
        let theirs = match &self.theirs {
            None => Theirs::None,
            Some(close) if close.payload.is_empty() => Theirs::Empty,
            Some(_) => Theirs::Code,
        };
        let ours = match (begun, &self.out.close) {
            (Begun::Nobody, _) => Ours::None,
            (_, None) => Ours::Queued,
            (_, Some(_)) => Ours::Flushed,
        };
        let case = || format!("{begun:?}, theirs {theirs:?}, ours {ours:?}, ended by {ended:?}");
        let mut matching = ROWS.iter().enumerate().filter(|(_, row)| {
            row.begun == begun
                && row.theirs.contains(&theirs)
                && row.ours.contains(&ours)
                && row.ended.contains(&ended)
        });
        let (Some((index, row)), None) = (matching.next(), matching.next()) else {
            return Err(format!("not one row, but none or several for {}", case()));
        };
        self.row = Some(index);
        let of = |code| match code {
            Code::Theirs => self.theirs.as_ref().map_or(0, |close| code_of(&close.payload)),
            Code::Ours => closed.sent.as_ref().map_or(0, CloseFrame::code_or_1005),
            Code::Abnormal => 1006,
        };
        let expected = (of(row.code), of(row.effective), row.clean, row.initiator);
        let got = (closed.code(), closed.effective_code(), closed.was_clean(), closed.initiator);
        require(got == expected, || format!("{}: {got:?} instead of {expected:?}; {}", row.case, case()))?;
        let cause = CAUSES.iter().find(|(b, e, _)| b.contains(&begun) && e.contains(&ended));
        let Some((.., cause)) = cause else { return Err(format!("no cause for {}", case())) };
        let kicked = self.asked.as_ref().is_some_and(|asked| asked.kicked);
        let cause = if kicked && *cause == "LocalClose" { "Kicked" } else { *cause };
        self.cause = Some(cause);
        require(closed.cause.name() == cause, || {
            format!("{:?} instead of {cause}; {}", closed.cause, case())
        })?;
        if let Cause::CloseTimeout { flushed } = closed.cause {
            let right = flushed == (ours == Ours::Flushed);
            require(right, || format!("CloseTimeout {{ flushed: {flushed} }}"))?;
        }
        Ok(ended)
    }

    /// The frames of the report are those of the wire and of the commands.
    fn check_frames(&self, closed: &CloseReport) -> Verdict {
        let (sent, received) =
            (closed.sent.as_ref().map(payload_of), closed.received.as_ref().map(payload_of));
        let theirs = self.theirs.as_ref().map(|close| close.payload.clone());
        require(received == theirs, || format!("received {received:?} instead of {theirs:?}"))?;
        require(closed.sent_flushed == self.out.close.is_some(), || "sent_flushed".into())?;
        require(self.out.close.is_none() || self.out.close == sent, || {
            format!("sent {sent:?}, and {:?} on the wire", self.out.close)
        })?;
        let right = match (&self.asked, theirs, self.began()) {
            (Some(asked), ..) => sent.as_ref() == Some(&asked.payload),
            // §5.5.1, and a browser's CloseEvent keeps the reason.
            (None, Some(theirs), _) => sent == Some(theirs),
            (None, None, Some(_)) => {
                let code = if self.invalid.is_some() { 1002 } else { 1011 };
                sent.as_ref().is_some_and(|sent| code_of(sent) == code)
            }
            (None, None, None) => sent.is_none(),
        };
        require(right, || format!("sent {:?}", closed.sent))?;
        let announced = closed.sent.is_some() || closed.received.is_some();
        require(announced == self.closing, || format!("Closing was reported: {}", self.closing))
    }

    fn check_times(&self, closed: &CloseReport, now: u64) -> Verdict {
        let since = |at: u64| Duration::from_micros(now - at);
        let phase = self.began().map_or(Duration::ZERO, since);
        let most = Duration::from_micros(self.timers.close + SLACK);
        require(phase <= most, || format!("closes for {phase:?}, and {most:?} is the most"))?;
        require(closed.close_phase == phase, || {
            format!("close_phase {:?}, not {phase:?}", closed.close_phase)
        })?;
        let lived = self.opened.map_or(Duration::ZERO, since);
        require(closed.duration == lived, || format!("duration {:?}, not {lived:?}", closed.duration))
    }

    /// Conservation in both directions.
    fn check_lost(&self, closed: &CloseReport) -> Verdict {
        let lost = &closed.lost;
        let handed = self.out.messages;
        require(self.accepted == handed + lost.messages + lost.partial, || {
            format!("{} accepted, {handed} handed to the kernel, {lost:?}", self.accepted)
        })?;
        require(lost.partial == u64::from(self.out.is_message_cut()), || format!("partial: {lost:?}"))?;
        require(lost.bytes == PAYLOAD * lost.messages, || format!("bytes: {lost:?}"))?;
        let read = self.inn.messages;
        require(read == self.delivered + lost.inbound_messages, || {
            format!("{read} messages read, {} delivered, {lost:?}", self.delivered)
        })?;
        require(lost.inbound_bytes == PAYLOAD * lost.inbound_messages, || {
            format!("inbound bytes: {lost:?}")
        })?;
        require(self.skipped <= lost.inbound_messages, || format!("{} skipped, {lost:?}", self.skipped))?;
        // Only of messages: what has come of a cut control frame is not counted.
        let cut = self.inn.cut_payload();
        require(lost.inbound_partial_bytes == cut, || format!("{cut} bytes of a cut frame, {lost:?}"))?;
        let close = self.theirs.as_ref().or(self.invalid.as_ref());
        // If ours was out by then, that was the end, and the rest is nobody's.
        let trailing =
            if close.is_some_and(|close| close.flushed) { 0 } else { self.inn.after_close.len() as u64 };
        require(lost.trailing_bytes == trailing, || format!("{trailing} trailing bytes, {lost:?}"))?;
        require(lost.kernel_unsent == self.unsent, || format!("{:?} unsent, {lost:?}", self.unsent))
    }

    // What must be when everything has come to rest.

    /// Nothing is queued, everything has arrived, nobody has closed.
    pub(super) fn check_at_rest(&self, sent: u64) -> Verdict {
        require(self.out.cut.is_empty() && self.out.messages == self.accepted, || {
            format!("{} messages accepted, {} on the wire", self.accepted, self.out.messages)
        })?;
        require(self.delivered == sent, || format!("{sent} messages sent, {} delivered", self.delivered))?;
        require(!self.drain_owed, || "a Drain is owed and does not come".into())
    }
}

pub(super) fn payload_of(frame: &CloseFrame) -> Payload {
    let code = frame.code().map(u16::to_be_bytes);
    code.into_iter().flatten().chain(frame.reason().bytes()).collect()
}

fn code_of(payload: &[u8]) -> u16 {
    payload.first_chunk().map_or(1005, |code| u16::from_be_bytes(*code))
}

/// §7.4.
fn is_valid(payload: &[u8]) -> bool {
    let code = matches!(code_of(payload), 1000..=1003 | 1007..=1014 | 3000..=4999);
    payload.is_empty() || (payload.len() > 1 && code && std::str::from_utf8(&payload[2..]).is_ok())
}
