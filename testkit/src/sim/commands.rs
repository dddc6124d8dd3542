//! What the application sends and sweeps, and what each call must answer.

use std::{
    sync::{Arc, Mutex, atomic::Ordering},
    time::Duration,
};

use adjourn::{
    Clients, CloseCode, CloseFrame, ConnectionId, SendError,
    clients::State,
    close::{Cause, CloseTiming, Lost},
    conn::InputKind,
    shutdown::Pace,
};

use super::{
    app::App,
    checker::{Checker, ensure, trace},
    facts::SweepFacts,
    frames::{NUMBER, numbered},
    scenario,
};

impl App {
    pub fn send(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32, big: bool) {
        let Some(id) = checker.of(conn).id else { return };
        let (number, payload) = self.payload(checker, big);
        let length = payload.len();
        let room = Room::of(checker, clients, id);
        let result = match (self.rng.bool(), String::from_utf8(payload)) {
            (true, Ok(text)) => clients.send(id, text),
            (false, Ok(text)) => clients.send(id, text.as_bytes()),
            (_, Err(error)) => clients.send(id, error.into_bytes()),
        };
        Self::sent(checker, conn, number, length, room, result);
    }

    pub fn sent(
        checker: &mut Checker,
        conn: u32,
        number: Option<u64>,
        length: usize,
        room: Room,
        result: Result<(), SendError>,
    ) {
        if Self::judge_send(checker, conn, framed(length), room, &result) {
            checker.called_send(conn, number, length);
        }
    }

    /// Whether `send` or `ping` gave the right answer for `frame` bytes; returns whether it queued something.
    pub fn judge_send(
        checker: &mut Checker,
        conn: u32,
        frame: usize,
        room: Room,
        result: &Result<(), SendError>,
    ) -> bool {
        let limit = checker.settings(conn).max_backlog;
        checker.of(conn).may_owe |= result.is_err();
        if *result == Err(SendError::Closing) {
            checker.answered_in_time(conn);
        }
        // For a message that never fits there is nothing to wait for.
        checker.of(conn).owed |= room.queued > 0;
        let state = checker.state(conn);
        let takes = state == Some(State::Open) || checker.is_unanswered(conn);
        let fits = room.queued + frame <= limit;
        let right = match result {
            Ok(()) => takes && fits && room.may_fit(frame),
            Err(SendError::Closing) => !takes,
            Err(SendError::Overflow { .. }) => takes && !(fits && room.must_fit(frame)),
            Err(_) => false,
        };
        let text = format!("{result:?} in {state:?}: {frame} more bytes, at most {limit}; {room:?}");
        ensure!(checker, conn, "send_answers", right, "{text}");
        if takes && !fits {
            checker.overflowed(conn, room.queued as u64);
        } else if takes && result.is_err() {
            room.await_it(checker, conn, frame);
        }
        result.is_ok()
    }

    pub fn payload(&mut self, checker: &mut Checker, big: bool) -> (Option<u64>, Vec<u8>) {
        checker.numbers += 1;
        let number = checker.numbers;
        let length = if big { self.rng.usize(..90_000) } else { self.rng.usize(..200) };
        let payload = numbered(number, length);
        (Some(number).filter(|_| length >= NUMBER), payload)
    }

    pub fn frame(&mut self, checker: &mut Checker) -> CloseFrame {
        checker.numbers += 1;
        let (number, rng) = (checker.numbers, &mut self.rng);
        let code = [1000, 1001, 1008, 1011, 1012, 3999, 4000][rng.usize(..7)];
        let code = CloseCode::new(code).expect("a legal code");
        match rng.u8(..4) {
            0 => CloseFrame::EMPTY,
            1 => CloseFrame::of(code),
            2 => CloseFrame::new(code, format!("app {number}")).unwrap_or_default(),
            _ => CloseFrame::truncating(code, format!("app {number} {}", "ü".repeat(70))),
        }
    }

    pub fn timing(&mut self) -> CloseTiming {
        let rng = &mut self.rng;
        let mut some = |most: u64| match rng.u8(..6) {
            0 => Some(Duration::ZERO),
            1 | 2 => Some(Duration::from_micros(rng.u64(..most))),
            _ => None,
        };
        CloseTiming { close_timeout: some(4_000_000), flush_budget: some(2_000_000) }
    }

    pub fn kick(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32, state: State) {
        let Some(id) = checker.of(conn).id else { return };
        let big = self.rng.u8(..4) == 0;
        let (number, payload) = self.payload(checker, big);
        let (frame, drop_queued, length) = (self.frame(checker), self.rng.bool(), payload.len());
        checker.cover(conn, InputKind::Kick);
        let began = if drop_queued {
            clients.kick_now(id, payload, frame.clone())
        } else {
            clients.kick(id, payload, frame.clone())
        };
        ensure!(checker, conn, "kick_answers", began == (state == State::Open), "{began} in {state:?}");
        if state != State::Open {
            return;
        }
        if drop_queued {
            checker.mark_to_drop(conn);
        }
        checker.called_send(conn, number, length);
        checker.begin_local(conn, Cause::Kicked, frame, CloseTiming::default());
    }

    pub fn broadcast(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        let big = self.rng.u8(..3) == 0;
        let (number, payload) = self.payload(checker, big);
        self.send_to_some(checker, clients, number, &payload);
    }

    /// A broadcast to some of those who are there.
    pub fn send_to_some(
        &mut self,
        checker: &mut Checker,
        clients: &mut Clients<'_, u32>,
        number: Option<u64>,
        payload: &[u8],
    ) {
        let (length, frame) = (payload.len(), framed(payload.len()));
        let (of, rest) = (self.rng.u32(1..4), self.rng.u32(..4));
        let mut chosen = Vec::new();
        let seen = &*checker;
        let result = clients.broadcast(payload, |client| {
            let conn = *client.data();
            let takes = conn % of == rest % of;
            if takes {
                let queued = client.buffered_amount();
                chosen.push((conn, client.id(), queued, queued + frame <= seen.settings(conn).max_backlog));
            }
            takes
        });
        // Where all together may hold only so much, the loop is asked who was reached.
        let mut room = Room::of_shared(checker, clients);
        for (conn, id, queued, fits) in &mut chosen {
            room.queued = *queued;
            // It was asked how much is queued, now as well.
            checker.of(*conn).may_owe = true;
            // A message that is queued may take the place of Pongs that are superseded, and be shorter than they.
            let reached = clients.get(*id).is_some_and(|client| client.buffered_amount() != *queued);
            if *fits && !reached && !room.must_fit(frame) {
                *fits = false;
                room.await_it(checker, *conn, frame);
            }
        }
        let sent = chosen.iter().filter(|(.., fits)| *fits).count();
        let expected = (sent, chosen.len() - sent);
        let right = (result.sent, result.refused) == expected;
        ensure!(checker, None, "broadcast_answers", right, "{result:?} instead of {expected:?}");
        for (conn, _, queued, fits) in chosen {
            checker.touch(conn);
            if fits {
                checker.called_send(conn, number, length);
            } else if queued + frame > checker.settings(conn).max_backlog {
                checker.overflowed(conn, queued as u64);
            }
        }
    }

    /// Several messages for some connections: all of them for each, or none. Some of the ids are stale.
    pub fn send_to(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        let messages: Vec<_> = (0..self.rng.u8(1..4))
            .map(|_| {
                let big = self.rng.u8(..4) == 0;
                self.payload(checker, big)
            })
            .collect();
        let frames = messages.iter().map(|(_, payload)| framed(payload.len())).sum();
        let (of, rest) = (self.rng.u32(1..4), self.rng.u32(..4));
        let all = u32::try_from(checker.facts.len()).unwrap_or(u32::MAX);
        let (mut ids, mut chosen) = (Vec::new(), Vec::new());
        for conn in (0..all).filter(|conn| conn % of == rest % of) {
            let Some(id) = checker.of(conn).id else { continue };
            let known = self.expected(checker, clients, conn).is_some();
            if known || clients.get(id).is_none() {
                let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
                checker.of(conn).may_owe |= queued > 0;
                ids.push(id);
                chosen.push((conn, queued, known));
            }
        }
        let result =
            clients.send_to(ids.iter().copied(), messages.iter().map(|(_, payload)| payload.as_slice()));
        // Its frames are made once: for the first that it reaches.
        let all = Room::of_shared(checker, clients);
        let mut refused = result.refused.iter().peekable();
        let mut sent = 0;
        for (id, (conn, queued, known)) in ids.into_iter().zip(chosen) {
            let sent_one =
                refused.next_if(|refused| refused.0 == id).map_or(Ok(()), |refused| Err(refused.1));
            if !known {
                ensure!(
                    checker,
                    conn,
                    "send_to_answers",
                    sent_one == Err(SendError::NotFound),
                    "{sent_one:?}"
                );
                continue;
            }
            checker.touch(conn);
            if Self::judge_send(checker, conn, frames, Room { queued, ..all }, &sent_one) {
                sent += 1;
                for (number, payload) in &messages {
                    checker.called_send(conn, *number, payload.len());
                }
            }
        }
        let right = result.sent == sent && refused.next().is_none();
        ensure!(checker, None, "send_to_answers", right, "{result:?}, {sent} were reached");
    }

    pub fn sweep(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        if self.sweeps_left == 0 || self.calm || clients.phase() == adjourn::shutdown::ShutdownPhase::Done {
            return;
        }
        self.sweeps_left -= 1;
        checker.numbers += 1;
        let reason = format!("sweep {}", checker.numbers);
        let chosen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let (list, asked) = (Arc::clone(&chosen), Arc::clone(&checker.asked));
        let (of, rest, kind) = (self.rng.u32(1..4), self.rng.u32(..4), self.rng.u8(..4));
        let predicate = move |client: &adjourn::Client<'_, u32>| {
            let conn = *client.data();
            asked.fetch_add(1, Ordering::Relaxed);
            let chosen = match kind {
                0 => client.buffered_amount() > 0,
                1 => client.idle_for() > Duration::from_millis(200),
                _ => conn % of == rest % of,
            };
            if chosen {
                list.lock().expect("not poisoned").push(conn);
            }
            chosen
        };
        let terminates = self.rng.u8(..3) == 0;
        let mut pace = Pace::AtOnce;
        let id = if terminates {
            clients.terminate_where(predicate)
        } else {
            let frame = CloseFrame::new(CloseCode::new(4001).expect("a legal code"), reason.clone())
                .unwrap_or_default();
            pace = self.pace();
            clients.close_where(frame, pace, predicate)
        };
        trace!(checker, "sweep {} ({reason}), terminates: {terminates}", id.as_u32());
        checker.sweep_frames.insert(reason, id.as_u32());
        let sweep = SweepFacts {
            terminates,
            chosen,
            seen: 0,
            began: checker.now,
            late: checker.late_then,
            pace,
            most: checker.facts.iter().filter(|facts| facts.state.is_some()).count(),
            rest: (kind > 1).then_some((of, rest % of)),
            reached: 0,
            ended: 0,
            clean: 0,
            timed_out: 0,
            lost: Lost::default(),
            done: false,
        };
        let before = checker.sweeps.insert(id.as_u32(), sweep);
        ensure!(checker, None, "sweep_ids_are_new", before.is_none(), "{id:?}");
    }

    pub fn pace(&mut self) -> Pace {
        match self.rng.u8(..3) {
            0 => Pace::AtOnce,
            1 => Pace::Rate(f64::from(self.rng.u32(1..200))),
            _ => Pace::Spread(Duration::from_millis(self.rng.u64(..3000))),
        }
    }
}

/// How much is queued when a message comes.
#[derive(Clone, Copy, Debug)]
pub struct Room {
    /// For its connection.
    pub queued: usize,
    /// For all of them, and how much that may be: `None` is without a limit.
    total: Option<(usize, usize)>,
    /// Others get the message, too: its bytes may be here, and `total` is what it was after that.
    shares: bool,
    /// So often they may have been here until the call returned: in the output buffer, in a block, and by size of window.
    copies: usize,
}

impl Room {
    pub fn of(checker: &Checker, clients: &Clients<'_, u32>, id: ConnectionId) -> Self {
        let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
        Self { queued, ..Self::of_all(checker, clients) }
    }

    pub fn of_all(checker: &Checker, clients: &Clients<'_, u32>) -> Self {
        let limit = checker.config.event_loop.max_backlog_total;
        let total = limit.map(|limit| {
            let used = clients.loop_stats().caps.backlog.used;
            (usize::try_from(used).unwrap_or(usize::MAX), limit)
        });
        Self { queued: 0, total, shares: false, copies: 0 }
    }

    /// The same of a message that others get, too, when it was sent.
    fn of_shared(checker: &Checker, clients: &Clients<'_, u32>) -> Self {
        let windows = if scenario::deflate(&checker.config).is_some() { 8 } else { 0 };
        Self { shares: true, copies: 2 + windows, ..Self::of_all(checker, clients) }
    }

    /// Whether `frame` more bytes must be accepted.
    pub fn must_fit(self, frame: usize) -> bool {
        self.total.is_none_or(|(total, limit)| total + frame * (1 + self.copies) <= limit)
    }

    fn may_fit(self, frame: usize) -> bool {
        self.shares || self.must_fit(frame)
    }

    /// `frame` bytes were refused because of what others hold.
    fn await_it(self, checker: &mut Checker, conn: u32, frame: usize) {
        if self.queued == 0 && self.total.is_some_and(|(_, limit)| frame <= limit) {
            let awaits = &mut checker.of(conn).awaits_room;
            *awaits = Some(awaits.map_or(frame, |before| before.min(frame)));
        }
    }
}

/// The length of a server's frame with `length` bytes of payload.
pub fn framed(length: usize) -> usize {
    let header = match length {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    };
    header + length
}
