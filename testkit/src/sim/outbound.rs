//! The checker's way out: what the link took of the hub's bytes, and how the server's side of the connection ended.

use adjourn::{clients::State, close::Cause, config::Abort, conn::InputKind, shutdown::ShutdownPhase};

use super::{
    alarms::Alarm,
    checker::{Checker, after, ensure, frame_of, payload_of, trace},
    facts::Expected,
    frames::{CLOSE, PONG, Seen},
};

impl Checker {
    /// The link took these bytes.
    pub fn wrote(&mut self, conn: u32, bytes: &[u8]) {
        let now = self.now;
        self.turn.bytes += bytes.len();
        trace!(self, "#{conn} is taken {} bytes", bytes.len());
        let share = self.share(conn);
        share.written += bytes.len();
        share.writes += 1;
        let written = share.written;
        let most = self.config.event_loop.write_bytes_per_turn * self.shares(conn) as usize;
        ensure!(self, conn, "writes_are_shared", written <= most, "{written} of {most}");
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
            Seen::Answer(status) => {
                let refused = self.state(conn) == Some(State::Refusing);
                // Its event may be for the next turn, when this one has called as many callbacks as it may.
                let late = status != 101 || self.of(conn).decided;
                let untold = late && self.state(conn) == Some(State::Connecting) && self.may_hold();
                let right = (status == 101) == opened && (status == 101) != refused || untold;
                ensure!(self, conn, "the_answer_fits", right, "{status} in {:?}", self.state(conn));
            }
            Seen::Begun(opcode) => {
                let close = self.of(conn).close_begun;
                let right = !close || opcode == PONG;
                ensure!(self, conn, "only_pongs_behind_a_close", right, "opcode {opcode}");
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
                }
                self.busy(conn).last_pong = Some(payload);
            }
            Seen::Close(payload) => self.close_flushed(conn, &payload),
        }
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

    /// FIN is sent: behind whole frames, and behind a Close or an HTTP answer.
    pub fn sent_fin(&mut self, conn: u32) {
        self.touch(conn);
        if self.state(conn) == Some(State::Refusing) {
            self.cover(conn, InputKind::Flushed);
            self.of(conn).state = Some(State::Lingering);
        }
        let facts = &self.facts[conn as usize];
        // Behind an abort by FIN it comes once more.
        // A Pong behind the Close may be cut: nobody parses it.
        let whole = facts.wire.at_boundary() || facts.aborted || facts.close_done;
        let after_close = facts.close_done || !facts.opened || facts.aborted;
        ensure!(self, conn, "fin_behind_whole_frames", whole, "a frame is cut");
        ensure!(self, conn, "fin_behind_a_close", after_close, "without a Close");
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
                ensure!(self, conn, "no_fin_behind_a_cut_frame", !hides, "{style:?}");
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

    /// It was aborted by FIN: its descriptor waits for the peer's.
    pub fn lingers(&mut self, conn: u32) {
        self.cover(conn, InputKind::AbortedByFin);
        let now = self.now;
        let facts = self.of(conn);
        if facts.eof && !facts.eof_unsure {
            return self.release_due.push(conn);
        }
        (facts.state, facts.since) = (Some(State::Lingering), now);
        let at = after(now, self.settings(conn).linger_timeout);
        self.set_alarm(at, conn, Alarm::Linger);
    }

    /// The slot is free.
    pub fn released(&mut self, conn: u32) {
        trace!(self, "#{conn} is released in {:?}", self.state(conn));
        if self.phase == ShutdownPhase::HardSweep && !self.release_due.contains(&conn) {
            self.cover(conn, InputKind::HardSweep);
        }
        let facts = self.of(conn);
        facts.gone_untold = facts.state == Some(State::Connecting) && !facts.failed && !facts.opened;
        facts.state = None;
        facts.busy = None;
        let (opened, closed) = (facts.opened, facts.closed);
        ensure!(self, conn, "released_after_close", opened == closed, "opened: {opened}, closed: {closed}");
    }
}
