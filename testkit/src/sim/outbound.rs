//! The checker's way out: what the link took of the hub's bytes, and how the server's side of the connection ended.

use adjourn::{clients::State, close::Cause, config::Abort, conn::InputKind, shutdown::ShutdownPhase};

use super::{
    alarms::Alarm,
    checker::{Checker, after, ensure, frame_of, payload_of, trace},
    facts::Expected,
    frames::{CLOSE, Found, PONG, Seen},
};

impl Checker {
    /// The link took these bytes.
    pub fn wrote(&mut self, conn: u32, bytes: &[u8]) {
        let now = self.now;
        self.turn.bytes += bytes.len();
        self.counted.sent_bytes += bytes.len() as u64;
        trace!(self, "#{conn}: the kernel takes {} bytes", bytes.len());
        let share = self.share(conn);
        share.written += bytes.len();
        share.writes += 1;
        let (written, much) = (share.written, share.had_written() >= 16 << 10);
        // From so much on that is queued at a time one is owed.
        self.of(conn).may_owe |= much;
        let most = self.config.event_loop.write_bytes_per_turn * self.shares(conn) as usize;
        ensure!(self, conn, "writes_are_shared", written <= most, "{written} of {most}");
        self.answer_begins(conn);
        let facts = self.of(conn);
        facts.progress = now;
        let may = facts.may_write;
        ensure!(self, conn, "nothing_written_after_the_end", may, "{} bytes", bytes.len());
        let begun = self.of(conn).busy.as_mut().map_or(0, |busy| {
            let begun = busy.begun.min(bytes.len());
            busy.begun -= begun;
            begun
        });
        let (begun, rest) = bytes.split_at(begun);
        for (mut bytes, in_ahead) in [(begun, true), (rest, false)] {
            self.of(conn).in_ahead = in_ahead;
            loop {
                match self.of(conn).wire.pull(&mut bytes) {
                    Ok(None) => break,
                    Ok(Some(seen)) => self.saw(conn, seen),
                    Err(text) => return self.fail("whole_frames_on_the_wire", conn, text),
                }
            }
        }
    }

    pub fn saw(&mut self, conn: u32, seen: Seen) {
        if !matches!(seen, Seen::Begun(8..)) {
            trace!(self, "#{conn} writes {seen:?}");
        }
        let opened = self.of(conn).opened;
        match seen {
            Seen::Answer(answer) => {
                let status = answer.status;
                let refused = self.state(conn) == Some(State::Refusing);
                // Its event may be for the next turn, when this one has called as many callbacks as it may.
                let late = status != 101 || self.of(conn).decided;
                let unreported = late && self.state(conn) == Some(State::Connecting) && self.may_hold();
                let right = (status == 101) == opened && (status == 101) != refused || unreported;
                ensure!(self, conn, "the_answer_fits", right, "{status} in {:?}", self.state(conn));
                self.saw_answer(conn, answer);
            }
            Seen::Begun(opcode) => {
                let close = self.of(conn).close_begun;
                let right = !close || opcode == PONG;
                ensure!(self, conn, "only_pongs_after_a_close", right, "opcode {opcode}");
                if opcode == CLOSE {
                    self.of(conn).close_begun = true;
                } else if opcode < CLOSE && self.of(conn).in_ahead {
                    self.busy(conn).spared += 1;
                } else if opcode < CLOSE {
                    let over = self.ending(conn).is_some_and(|ending| ending.none_begins);
                    ensure!(self, conn, "flush_budget", !over, "a message begins after the flush budget");
                }
            }
            Seen::Data { length, number } => self.handed(conn, length, number),
            Seen::Ping => {
                if self.busy(conn).pings == self.busy(conn).pings_due && self.is_pause_due(conn) {
                    // None is due while it is paused: the pause is over.
                    self.pause_ends(conn);
                    self.settle(conn);
                }
                let busy = self.busy(conn);
                busy.pings += 1;
                let more = busy.pings > busy.pings_due;
                let may_beat = self.of(conn).may_beat > 0;
                let due = self.due(conn, Alarm::Heartbeat).is_some_and(|due| due <= self.now);
                if more && (due || !may_beat && self.is_due(conn, Alarm::Heartbeat)) {
                    self.heart_beats(conn);
                } else if more && may_beat {
                    self.of(conn).may_beat -= 1;
                    self.busy(conn).pings_due += 1;
                }
            }
            Seen::Pong(payload) => {
                if self.is_pause_due(conn) && self.busy(conn).last_ping.as_ref() != Some(&payload) {
                    // It answers what was held: the pause is over.
                    self.pause_ends(conn);
                    self.settle(conn);
                } else if self.of(conn).maybe_discarded && self.answers_held(conn, &payload) {
                    // What was held was parsed before it was closed.
                    self.settle(conn);
                }
                let busy = self.busy(conn);
                (busy.last_pong, busy.pongs_out) = (Some(payload), busy.pongs_out + 1);
            }
            Seen::Close(payload) => self.close_flushed(conn, &payload),
        }
    }

    /// Whether a Pong before our Close answers a Ping that was read and is not known to be parsed.
    fn answers_held(&mut self, conn: u32, pong: &[u8]) -> bool {
        let (limits, closes) = (self.limits(conn), self.of(conn).close_begun);
        let busy = self.busy(conn);
        if closes || busy.last_ping.as_deref() == Some(pong) {
            return false;
        }
        let (mut rest, mut inbound) = (&*busy.held.make_contiguous(), busy.inbound.clone());
        std::iter::from_fn(|| inbound.pull(&mut rest, limits))
            .take_while(|found| !matches!(found, Found::Close(..) | Found::Breach(_)))
            .any(|found| matches!(found, Found::Ping(ping) if ping == pong))
    }

    /// A message is wholly in the kernel: which, and which were passed over?
    pub fn handed(&mut self, conn: u32, length: u64, number: Option<u64>) {
        let busy = self.busy(conn);
        busy.handed += 1;
        busy.handed_bytes += length;
        loop {
            let to_drop = busy.to_drop > 0;
            busy.to_drop = busy.to_drop.saturating_sub(1);
            match busy.queued.pop_front() {
                Some((n, len)) if n == number && len == length => {
                    let again = busy.queued.iter().skip(busy.to_drop).any(|later| *later == (number, length));
                    if to_drop && number.is_none() && again {
                        continue; // One without a number looks like another.
                    }
                    let spared = busy.spared > 0;
                    busy.spared -= usize::from(to_drop && spared);
                    if to_drop && !spared {
                        self.fail(
                            "dropped_is_dropped",
                            conn,
                            format!("message {number:?} was to be dropped"),
                        );
                    }
                    return;
                }
                // Passed over: it must have been dropped, which the account at the end will show.
                Some(_) => {}
                None => {
                    let text =
                        format!("message {number:?} of {length} bytes, which was not sent, or not in order");
                    return self.fail("messages_in_order", conn, text);
                }
            }
        }
    }

    pub fn close_flushed(&mut self, conn: u32, payload: &[u8]) {
        if self.state(conn) == Some(State::Open) {
            self.explain_close(conn, &frame_of(payload));
        }
        let unanswered = self.ending_of(conn).is_some_and(|ending| ending.unanswered);
        if unanswered && self.is_due(conn, Alarm::Flush) {
            self.flush_budget_over(conn);
        }
        self.of(conn).close_done = true;
        self.cover(conn, InputKind::Flushed);
        let expected = self.ending(conn).and_then(|ending| ending.sent.clone());
        let right = match &expected {
            None => false,
            Some(Expected::Frame(frame)) => payload == payload_of(frame),
            Some(Expected::Code(code)) => payload.get(..2) == Some(&code.to_be_bytes()),
        };
        ensure!(self, conn, "the_close_that_was_meant", right, "{payload:?} instead of {expected:?}");
        match self.state(conn) {
            Some(State::RemoteClosing | State::Failing) => {
                // What was read before came too late for the peer.
                self.settle(conn);
                self.finish(conn);
            }
            Some(State::LocalClosing) => {
                // The peer's may have been parsed before.
                if self.of(conn).delayed
                    && let Some(ending) = self.ending(conn)
                {
                    ending.or_causes.push(Cause::Crossed);
                }
            }
            state => self.fail("the_close_that_was_meant", conn, format!("a Close in {state:?}")),
        }
    }

    /// What is queued and has not begun is to be dropped.
    pub fn mark_to_drop(&mut self, conn: u32) {
        let (spared, ahead) = (self.of(conn).wire.cut_data().is_some(), self.of(conn).ahead);
        let busy = self.busy(conn);
        (busy.to_drop, busy.spared, busy.pongs_dropped) = (busy.queued.len(), usize::from(spared), true);
        busy.begun = ahead;
    }

    // The end of the server's side.

    /// FIN is sent: after whole frames, and after a Close or an HTTP answer.
    pub fn sent_fin(&mut self, conn: u32) {
        self.touch(conn);
        if self.state(conn) == Some(State::Refusing) {
            self.cover(conn, InputKind::Flushed);
            self.of(conn).state = Some(State::Lingering);
        }
        self.of(conn).fin_sent = true;
        let facts = &self.facts[conn as usize];
        // After an abort by FIN it is sent once more.
        // A Pong after the Close may be cut: nobody parses it.
        let whole = facts.wire.at_boundary() || facts.aborted || facts.close_done;
        let after_close = facts.close_done || !facts.opened || facts.aborted;
        ensure!(self, conn, "fin_after_whole_frames", whole, "a frame is cut");
        ensure!(self, conn, "fin_after_a_close", after_close, "without a Close");
    }

    /// The hub wants the connection aborted in this style.
    pub fn aborted(&mut self, conn: u32, style: Abort) {
        if !self.of(conn).must_abort {
            self.explain_abort(conn);
        }
        let (unsent, now) = (self.of(conn).unsent.take(), self.now);
        if let Some(ending) = self.ending(conn) {
            ending.ended = Some(now);
        }
        self.of(conn).must_abort = false;
        let asked = self.ending_of(conn).and_then(|ending| ending.style);
        let facts = &self.facts[conn as usize];
        let cut = !facts.wire.at_boundary() || facts.ahead > 0;
        match asked {
            None => {}
            Some(Abort::Auto) => {
                let hides = cut && style == Abort::Fin;
                let waits = self.has_unsent(conn);
                ensure!(self, conn, "no_fin_after_a_cut_frame", !hides, "{style:?}");
                let hides = waits == Some(true) && style == Abort::Fin;
                ensure!(self, conn, "no_fin_before_what_waits", !hides, "something is queued");
                let needless = waits == Some(false) && style == Abort::Reset;
                ensure!(self, conn, "no_reset_without_a_backlog", !needless, "nothing is queued");
            }
            Some(asked) => {
                ensure!(self, conn, "abort_style", asked == style, "{style:?} instead of {asked:?}");
            }
        }
        self.of(conn).aborted = true;
        if let Some(ending) = &mut self.busy(conn).ending {
            ending.unsent = unsent;
        }
    }

    /// Whether something is queued that the kernel has not taken. `None`: the checker does not know.
    fn has_unsent(&self, conn: u32) -> Option<bool> {
        let facts = &self.facts[conn as usize];
        let (busy, ending) = (facts.busy.as_ref()?, self.ending_of(conn)?);
        let cut = !facts.wire.at_boundary() || facts.ahead > 0 || facts.answered.is_none();
        let close = ending.sent.is_some() && !facts.close_done;
        // What a flush budget may have dropped is still in the checker's queue, and nothing stands before a Close that is flushed.
        let messages = busy.queued.len() > busy.to_drop && !ending.flush_over && !facts.close_done;
        if cut || close || messages {
            return Some(true);
        }
        let parsed = !facts.delayed && busy.held.is_empty();
        // A Ping of the heartbeat may have been queued a moment ago.
        let interval = self.settings(conn).heartbeat.interval;
        let beats = interval.is_some_and(|interval| after(facts.last_inbound, interval) <= self.now + 999);
        // Of one that was paused it is not known since when its heartbeat has been going on.
        let beats = facts.may_beat > 0 || facts.pinged.is_none() && (beats || facts.discards);
        let control = busy.pings != busy.pings_due || busy.pings_in > busy.pongs_out || beats;
        (busy.queued.is_empty() && parsed && !control).then_some(false)
    }

    /// It was aborted by FIN: its descriptor waits for the peer's.
    pub fn lingers(&mut self, conn: u32) {
        self.cover(conn, InputKind::AbortedByFin);
        let now = self.now;
        let facts = self.of(conn);
        if facts.eof && !facts.eof_unsure {
            return self.release_due.push(conn);
        }
        (facts.state, facts.since, facts.ended_early) = (Some(State::Lingering), now, 0);
        let at = after(now, self.settings(conn).linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    /// The descriptor is about to be closed, `reset` says how. That of one that was refused, or whose outcome is known, waits for the
    /// peer's end, or for the end of its time or of its budget of bytes (section 7.2 of the specification).
    pub fn check_release(&mut self, conn: u32, reset: bool) {
        self.parsing_ends();
        self.take_end(None);
        let most = self.settings(conn).linger_bytes;
        let over = self.due(conn, Alarm::Linger).is_some_and(|due| {
            due.saturating_sub(self.facts[conn as usize].ended_early) <= self.now.saturating_add(999)
        });
        let hard = self.phase >= ShutdownPhase::HardSweep;
        let facts = &self.facts[conn as usize];
        let waits = matches!(facts.state, Some(State::Refusing | State::Lingering));
        let ended = facts.eof || facts.eof_read || facts.eof_unsure || facts.failing.is_some();
        let (exceeds, may_exceed) =
            (facts.discarded > most && !ended && !hard, facts.discarded + facts.undecided > most);
        // A newcomer has got its place.
        let evicted = !facts.opened && self.facts.len() > self.config.event_loop.max_connections;
        let right = !waits || over || hard || ended || may_exceed || evicted;
        let text =
            format!("in {:?} since {}, {} bytes were discarded", facts.state, facts.since, facts.discarded);
        ensure!(self, conn, "lingers_until_its_end", right, "{text}");
        let right = if reset { may_exceed } else { !exceeds };
        ensure!(self, conn, "too_much_is_reset", right, "{text}; by a reset: {reset}");
    }

    /// The slot is free.
    pub fn released(&mut self, conn: u32) {
        trace!(self, "#{conn} is released in {:?}", self.state(conn));
        if self.phase == ShutdownPhase::HardSweep && !self.release_due.contains(&conn) {
            self.cover(conn, InputKind::HardSweep);
        }
        let facts = self.of(conn);
        facts.freed_unreported = facts.state == Some(State::Connecting) && !facts.failed && !facts.opened;
        facts.state = None;
        facts.busy = None;
        let (opened, closed) = (facts.opened, facts.closed);
        ensure!(self, conn, "released_after_close", opened == closed, "opened: {opened}, closed: {closed}");
    }
}
