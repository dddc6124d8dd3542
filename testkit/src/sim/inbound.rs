//! The checker's way in: what the hub was handed of a peer's bytes, and what it must make of them.

use adjourn::{
    clients::State,
    close::{Cause, CloseTiming, Initiator},
    config::OnPeerClose,
    conn::InputKind,
    error::ProtocolError,
};

use super::{
    alarms::Alarm,
    checker::{Checker, answer_to, ensure, trace},
    facts::{Delivery, Expected},
    frames::{Breach, Found},
};

impl Checker {
    /// The loop has read these bytes.
    pub fn read(&mut self, conn: u32, bytes: &[u8]) {
        trace!(self, "#{conn} is read: {} bytes", bytes.len());
        let now = self.now;
        self.touch(conn);
        self.turn.bytes += bytes.len();
        self.counted.received_bytes += bytes.len() as u64;
        // A Ping may have been queued by now, in an earlier slice, unnoticed.
        let beats = self.of(conn).pinged.is_none() && self.is_due(conn, Alarm::Heartbeat);
        let facts = self.of(conn);
        facts.may_beat += u32::from(beats);
        facts.last_inbound = now;
        facts.rested = false;
        facts.has_sent = true;
        facts.delayed = facts.delayed && facts.paused && facts.state == Some(State::Open);
        if facts.pinged.take().is_some() {
            self.set_heartbeat_alarm(conn);
        }
        let facts = self.of(conn);
        if !facts.opened && matches!(facts.state, Some(State::Refusing | State::Lingering)) {
            // Nothing of it is a request.
            facts.read_in_head = false;
            return self.hold(conn, bytes);
        }
        facts.in_handshake += bytes.len() as u64;
        if facts.head_done {
            return self.hold(conn, bytes);
        }
        let mut head = bytes.len();
        for (at, byte) in bytes.iter().enumerate() {
            facts.head_matched = match (facts.head_matched, byte) {
                (0 | 2, b'\r') | (1 | 3, b'\n') => facts.head_matched + 1,
                (_, b'\r') => 1,
                _ => 0,
            };
            if facts.head_matched == 4 {
                facts.head_done = true;
                head = at + 1;
                break;
            }
        }
        facts.read_in_head = true;
        self.hold(conn, &bytes[head..]);
    }

    fn hold(&mut self, conn: u32, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.busy(conn).held.extend(bytes);
        }
        self.parsing = Some(conn);
    }

    /// The application gets a message, a Ping or a Pong: it must be the next one of what was read.
    pub fn delivered(&mut self, conn: u32, delivery: Delivery<'_>) {
        self.parsing = Some(conn);
        let facts = self.of(conn);
        (facts.delayed, facts.maybe_discarded) = (false, false);
        let mut held = std::mem::take(&mut self.busy(conn).held);
        let mut rest = &*held.make_contiguous();
        let before = rest.len();
        self.match_next(conn, &mut rest, delivery);
        let used = before - rest.len();
        held.drain(..used);
        self.of(conn).maybe_paused &= !held.is_empty();
        self.busy(conn).held = held;
    }

    fn match_next(&mut self, conn: u32, bytes: &mut &[u8], delivery: Delivery<'_>) {
        while let Some(found) = self.pull(conn, bytes) {
            match (&found, delivery) {
                (Found::Message { text, payload }, _)
                    if self.is_discarded(conn, payload.len(), delivery.is(*text, payload)) =>
                {
                    trace!(self, "#{conn} discards {} bytes, text: {text}", payload.len());
                }
                (Found::Message { text, payload }, Delivery::Message { text: t, payload: p, closing }) => {
                    let state = self.state(conn);
                    ensure!(
                        self,
                        conn,
                        "message_is_what_was_sent",
                        *text == t && payload == p,
                        "other payload"
                    );
                    ensure!(
                        self,
                        conn,
                        "closing_mark",
                        closing == (state != Some(State::Open)),
                        "{closing} in {state:?}"
                    );
                    return;
                }
                (Found::Ping(payload), Delivery::Ping(p)) if payload == p => {
                    let within = self.is_within_rate(conn);
                    ensure!(self, conn, "control_rate", within, "one Ping too many was delivered");
                    let busy = self.busy(conn);
                    (busy.last_ping, busy.pings_in) = (Some(p.to_vec()), busy.pings_in + 1);
                    return;
                }
                (Found::Pong(payload), Delivery::Pong(p)) if payload == p => {
                    let within = self.is_within_rate(conn);
                    ensure!(self, conn, "control_rate", within, "one Pong too many was delivered");
                    return;
                }
                _ => {
                    let text = format!("{delivery:?} was delivered for {found:?}");
                    return self.fail("nothing_but_what_was_sent", conn, text);
                }
            }
        }
        self.fail("nothing_but_what_was_sent", conn, format!("{delivery:?} was delivered for nothing"));
    }

    /// What was read has been parsed, and nothing more is delivered of it.
    pub fn settle(&mut self, conn: u32) {
        let state = self.state(conn);
        let facts = self.of(conn);
        let Some(busy) = facts.busy.as_mut().filter(|busy| !busy.held.is_empty()) else { return };
        if state == Some(State::Connecting) || (state == Some(State::Open) && facts.paused && !facts.discards)
        {
            return;
        }
        let mut held = std::mem::take(&mut busy.held);
        let late = std::mem::take(&mut facts.delayed);
        // How much of what comes after a bad request counts as part of it is up to the scanner.
        let refused = !facts.opened && matches!(state, Some(State::Refusing | State::Lingering));
        if std::mem::take(&mut facts.read_in_head) && refused {
            return;
        }
        let parsed_at = facts.parsed_at;
        self.take_rest(conn, held.make_contiguous(), late);
        let facts = self.of(conn);
        (facts.maybe_paused, facts.maybe_discarded) = (false, false);
        let now = self.now;
        let changed = late && self.state(conn) != state;
        if let Some(ending) = self.ending(conn).filter(|_| changed) {
            // It may have been parsed when it was read.
            ending.uncertainty = ending.uncertainty.max(now.saturating_sub(parsed_at)).max(1);
        }
    }

    /// `late`: it may have been parsed when it was read.
    fn take_rest(&mut self, conn: u32, mut bytes: &[u8], late: bool) {
        while !bytes.is_empty() {
            let discards = self.state(conn) == Some(State::Open) && self.of(conn).discards;
            let discards = discards || self.of(conn).searched || self.of(conn).maybe_discarded;
            match self.state(conn) {
                Some(State::Open | State::LocalClosing) => {}
                Some(State::RemoteClosing | State::Failing) => {
                    let n = bytes.len() as u64;
                    let parsed = std::mem::take(&mut self.busy(conn).maybe_parsed);
                    if let Some(ending) = self.ending(conn) {
                        ending.trailing.0 += n.saturating_sub(parsed);
                        ending.trailing.1 += n;
                    }
                    return;
                }
                _ => {
                    // It may have been parsed before our Close was flushed.
                    let n = bytes.len() as u64;
                    if let Some(ending) = self.ending(conn)
                        && ending.or_causes.contains(&Cause::Crossed)
                    {
                        ending.trailing.1 += n;
                    }
                    if late {
                        // Then it did not come while it lingered.
                        self.of(conn).undecided += n;
                        return;
                    }
                    return self.discarded(conn, bytes.len());
                }
            }
            match self.pull(conn, &mut bytes) {
                None => return,
                Some(Found::Message { payload, .. }) if self.is_discarded(conn, payload.len(), false) => {}
                Some(Found::Close(code, reason)) => self.peer_closed(conn, code, reason),
                Some(Found::Breach(breach)) => self.peer_broke(conn, breach),
                Some(Found::Ping(_) | Found::Pong(_)) if !self.is_within_rate(conn) => {
                    self.peer_broke(conn, Breach::Flood);
                }
                Some(Found::Ping(payload)) if discards => {
                    let busy = self.busy(conn);
                    (busy.last_ping, busy.pings_in) = (Some(payload), busy.pings_in + 1);
                }
                Some(Found::Pong(_)) if discards => {}
                Some(found) => {
                    let text = format!("{:?}: {found:?} was not", self.turn);
                    return self.fail("all_that_was_sent_is_delivered", conn, text);
                }
            }
        }
    }

    /// Whether one more Ping or Pong is within the rate; if so, counts it.
    fn is_within_rate(&mut self, conn: u32) -> bool {
        let state = self.state(conn);
        // What was failed for being too much was parsed when it was read, at the earliest.
        let facts = &self.facts[conn as usize];
        let now = if facts.flooded { facts.tried_at.min(self.now) } else { self.now };
        let Some(rate) = self.settings(conn).control_rate.filter(|_| state == Some(State::Open)) else {
            return true;
        };
        if self.of(conn).rested || self.of(conn).pinged.is_some() {
            // Read before, and held back.
            return true;
        }
        let tokens = u128::from(now) * u128::from(rate.per_second) / 1_000_000;
        let (level, seen) = self.of(conn).bucket;
        let level = level.saturating_sub(tokens.saturating_sub(seen));
        let within = level < u128::from(rate.burst);
        self.of(conn).bucket = (level + u128::from(within), tokens.max(seen));
        within
    }

    /// Bytes came while it lingers: they have a budget.
    pub fn discarded(&mut self, conn: u32, n: usize) {
        let most = self.settings(conn).linger_bytes;
        let facts = self.of(conn);
        if !matches!(facts.state, Some(State::Refusing | State::Lingering)) {
            return;
        }
        facts.discarded += n as u64;
        let all = facts.discarded;
        trace!(self, "#{conn} lingers, and {n} bytes are discarded, {all} in all");
        let facts = self.of(conn);
        if facts.discarded > most {
            facts.state = Some(State::Closed);
            self.cover(conn, InputKind::LingerEnd);
            self.release_due.push(conn);
        }
    }

    pub fn pull(&mut self, conn: u32, bytes: &mut &[u8]) -> Option<Found> {
        let limits = self.limits(conn);
        let found = self.busy(conn).inbound.pull(bytes, limits);
        if let Some(Found::Message { payload, .. }) = &found
            && self.of(conn).wire.agreed().is_some()
        {
            self.turn.inflated += payload.len();
        }
        found
    }

    /// Whether a message that comes during our closing is counted instead of delivered; if so, counts it. `delivered`: it is
    /// what is delivered now.
    pub fn is_discarded(&mut self, conn: u32, len: usize, delivered: bool) -> bool {
        let (facts, state) = (&self.facts[conn as usize], self.state(conn));
        let paused = if facts.maybe_paused { !delivered } else { facts.paused };
        let maybe_discarded = facts.maybe_discarded;
        if state == Some(State::Open) && self.of(conn).discards {
            let discarded = &mut self.busy(conn).discarded;
            *discarded = (discarded.0 + 1, discarded.1 + len as u64);
            return true;
        }
        let (most, policy) = (self.settings(conn).closing_bytes, self.settings(conn).closing_data);
        let Some(ending) = self.ending(conn).filter(|_| state == Some(State::LocalClosing)) else {
            return false;
        };
        ending.taken_in += if maybe_discarded { 0 } else { len as u64 };
        let discarded = maybe_discarded
            || paused
            || policy == adjourn::config::ClosingData::Discard
            || ending.taken_in > most;
        if discarded {
            ending.lost_in += 1;
            ending.lost_in_bytes += len as u64;
        }
        discarded
    }

    /// A valid Close was parsed.
    pub fn peer_closed(&mut self, conn: u32, code: Option<u16>, reason: String) {
        trace!(self, "#{conn} gets Close {code:?} {reason:?}");
        let flushed = self.of(conn).close_done;
        self.cover(conn, if flushed { InputKind::PeerCloseAfterFlush } else { InputKind::PeerClose });
        if self.state(conn) == Some(State::Open) {
            self.begin_ending(
                conn,
                State::RemoteClosing,
                Initiator::Remote,
                Cause::PeerClose,
                CloseTiming::default(),
            );
            let settings = self.settings(conn);
            let manual = settings.answer == adjourn::config::CloseAnswer::Manual;
            let drops = settings.on_peer_close == OnPeerClose::DropQueued;
            let answer = answer_to(code, &reason);
            if drops {
                self.mark_to_drop(conn);
            }
            if let Some(ending) = self.ending(conn) {
                ending.received = Some((code, reason));
                ending.unanswered = manual;
                ending.sent = (!manual).then_some(Expected::Frame(answer));
            }
        } else {
            if !flushed && let Some(ending) = self.ending(conn) {
                (ending.initiator, ending.cause) = (Initiator::Both, Cause::Crossed);
            }
            if let Some(ending) = self.ending(conn) {
                ending.received = Some((code, reason));
            }
            if flushed {
                self.finish(conn);
            } else {
                self.of(conn).state = Some(State::RemoteClosing);
            }
        }
        self.drop_inbound(conn, None);
    }

    /// A rule was broken.
    pub fn peer_broke(&mut self, conn: u32, breach: Breach) {
        trace!(self, "#{conn} breaks a rule: {breach:?}");
        let flushed = self.of(conn).close_done;
        self.cover(conn, if flushed { InputKind::ViolationAfterFlush } else { InputKind::Violation });
        let (cause, code) = match breach {
            Breach::Protocol => (Cause::Protocol(ProtocolError::ReservedBits), 1002),
            Breach::TooBig => (Cause::TooBig { limit: 0 }, 1009),
            Breach::Utf8 => (Cause::InvalidUtf8, 1007),
            Breach::Deflate => (Cause::Protocol(ProtocolError::InvalidDeflate), 1007),
            Breach::Flood => (Cause::Protocol(ProtocolError::ControlFlood), 1008),
        };
        if self.state(conn) == Some(State::Open) {
            self.begin_failing(conn, cause, code, CloseTiming::default());
            self.drop_inbound(conn, Some(breach));
            return;
        }
        if let Some(ending) = self.ending(conn) {
            ending.cause = cause;
        }
        self.drop_inbound(conn, Some(breach));
        if flushed {
            self.finish(conn);
        } else {
            self.of(conn).state = Some(State::Failing);
            self.cut_flush_budget(conn);
        }
    }

    /// What was received and will not be delivered: a message that is not whole, and what was held back.
    pub fn drop_inbound(&mut self, conn: u32, breach: Option<Breach>) {
        let (limits, breached) = (self.limits(conn), breach.is_some());
        let parsing = self.parsing == Some(conn);
        let may_hold = self.may_hold() || self.may_inflate_too_much(conn);
        let busy = self.busy(conn);
        let parsed = busy.inbound.partial();
        let (mut messages, mut bytes) = (0, 0);
        let mut or_lost = (0, 0);
        if parsing && may_hold {
            let (mut rest, mut inbound) = (&*busy.held.make_contiguous(), busy.inbound.clone());
            while let Some(Found::Message { .. } | Found::Ping(_) | Found::Pong(_)) = {
                let found = inbound.pull(&mut rest, limits);
                if let Some(Found::Message { payload, .. }) = &found {
                    or_lost = (or_lost.0 + 1, or_lost.1 + payload.len() as u64);
                }
                found
            } {}
        }
        if parsing {
            // What is being parsed is not held back; but whether the last part of it was parsed nobody knows.
            let all = busy.inbound.pull(&mut &*busy.held.make_contiguous(), limits).is_none();
            busy.maybe_parsed = if all { busy.held.len() as u64 } else { 0 };
        } else {
            let mut held = std::mem::take(&mut busy.held);
            let mut rest = &*held.make_contiguous();
            loop {
                match busy.inbound.pull(&mut rest, limits) {
                    Some(Found::Message { payload, .. }) => {
                        (messages, bytes) = (messages + 1, bytes + payload.len());
                    }
                    Some(Found::Ping(_) | Found::Pong(_)) => {}
                    Some(Found::Close(..) | Found::Breach(_)) | None => break,
                }
            }
        }
        let inbound = std::mem::take(&mut busy.inbound);
        let undecided = if breached { inbound.since_frame() } else { 0 };
        let partial = inbound.partial();
        if let Some(ending) = &mut busy.ending {
            ending.or_lost_in = or_lost;
            ending.lost_in += messages;
            ending.lost_in_bytes += bytes as u64;
            ending.partial_in.0 += if parsing { parsed.min(partial) } else { partial };
            ending.partial_in.1 += parsed.max(partial);
            // Where exactly a breach is noticed is the parser's business.
            ending.trailing.1 += undecided;
        }
        self.of(conn).undecided = undecided;
    }

    // What else the transport reports.

    /// The peer's FIN is handed to the hub.
    pub fn eof(&mut self, conn: u32) {
        trace!(self, "#{conn} reads EOF in {:?}", self.state(conn));
        self.touch(conn);
        self.cover(conn, InputKind::Eof);
        self.of(conn).eof = true;
        let auto = Some(adjourn::config::Abort::Auto);
        match self.state(conn) {
            Some(State::Connecting) => self.failure_due.push(conn),
            Some(State::Open) => self.abort(conn, Cause::PeerFin, Initiator::Transport, auto),
            Some(State::LocalClosing) => self.abort(conn, Cause::PeerFinDuringClose, Initiator::Local, auto),
            Some(State::Failing) => self.abort(conn, Cause::PeerFin, Initiator::Local, auto),
            Some(State::Lingering) => self.release(conn),
            Some(State::Refusing | State::RemoteClosing | State::Closed) | None => {}
        }
    }

    /// An error of the socket is handed to the hub.
    pub fn reset(&mut self, conn: u32, kind: std::io::ErrorKind) {
        use std::io::ErrorKind::{BrokenPipe, ConnectionReset};
        trace!(self, "#{conn} reads {kind:?} in {:?}", self.state(conn));
        let reset = matches!(kind, ConnectionReset | BrokenPipe);
        let cause = |cause| if reset { cause } else { Cause::Io(kind) };
        self.touch(conn);
        self.cover(conn, InputKind::Reset);
        match self.state(conn) {
            Some(State::Connecting) => self.failure_due.push(conn),
            Some(State::Open) => {
                let cause = cause(Cause::PeerReset);
                self.abort(conn, cause, Initiator::Transport, Some(adjourn::config::Abort::Reset));
            }
            Some(State::LocalClosing | State::RemoteClosing | State::Failing) => {
                let cause = cause(Cause::PeerResetDuringClose);
                self.abort(conn, cause, Initiator::Local, Some(adjourn::config::Abort::Reset));
            }
            Some(State::Refusing | State::Lingering) => self.release(conn),
            Some(State::Closed) | None => {}
        }
    }

    pub fn release(&mut self, conn: u32) {
        self.of(conn).state = Some(State::Closed);
        self.release_due.push(conn);
    }
}
