//! The application: asks for anything at any time, in every callback and between turns, and checks each answer.

use std::{cell::RefCell, rc::Rc, time::Duration};

use adjourn::{
    Abort, Accept, Broadcast, Cause, Clients, CloseFrame, Event, Handler, Kind, Lost, Message, Overrides,
    Pace, SendError, ShutdownPlan, State, Timing, Upgrade, UpgradeRequest, conn::InputKind,
    wire::upgrade::Response,
};

use super::{
    book::{Book, ensure, trace},
    chance::Rng,
    facts::{Given, Own, SweepBook},
    frames::{NUMBER, numbered},
};

/// The application of one world.
pub struct App {
    pub book: Book,
    pub rng: Rng,
    /// How many of a hundred events it answers with commands.
    pub nerve: u8,
    /// How many of a hundred messages it echoes.
    pub echo: u8,
    /// It pauses nobody any more and begins no sweeps: the world is to end.
    pub calm: bool,
    /// It may begin a shutdown out of a callback.
    pub may_shut_down: bool,
    pub plan: ShutdownPlan,
    pub sweeps_left: u32,
    /// Paused connections, and when they are to be resumed.
    pub naps: Vec<(u64, u32)>,
    /// The connection whose `Close` is being delivered: its id is not stale yet.
    farewell: Option<u32>,
}

impl App {
    pub fn new(book: Book, rng: Rng, plan: ShutdownPlan) -> Self {
        Self {
            book,
            rng,
            nerve: 0,
            echo: 0,
            calm: false,
            may_shut_down: false,
            plan,
            sweeps_left: 0,
            naps: Vec::new(),
            farewell: None,
        }
    }
}

impl Handler for App {
    type Data = u32;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, u32> {
        let conn = Book::at_address(request.peer_addr());
        let path = request.path().as_bytes();
        if !request.is_upgrade() && path.get(1) == Some(&b'p') {
            self.book.answered(conn);
        }
        let text = |status| Response::new(status).map(|response| response.body("hello\n"));
        match (path.get(1), text(if path.get(1) == Some(&b'r') { 403 } else { 200 })) {
            (Some(b'r'), Ok(response)) => Upgrade::Reject(response),
            (Some(b'p'), Ok(response)) if !request.is_upgrade() => Upgrade::Answer(response),
            (Some(b'o'), _) => {
                let (own, overrides) = self.overrides();
                self.book.of(conn).own = Some(Box::new(own));
                Upgrade::Accept(Accept::new(conn).overrides(overrides))
            }
            _ => Upgrade::accept(conn),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, u32>, event: Event<'_>) {
        let conn = event.id().and_then(|id| clients.get(id).map(|client| *client.data()));
        self.book.tally.events += 1;
        self.book.event(&event, conn);
        let known = event.id().is_none() || conn.is_some();
        ensure!(self.book, conn, "data_until_close", known, "{event:?}");
        if let (Event::Close { .. }, Some(_)) = (&event, conn) {
            self.farewell = conn;
        }
        if let Event::Message { id, message, .. } = event
            && let Some(conn) = conn.filter(|_| self.rng.u8(..100) < self.echo)
        {
            let length = message.len();
            if self.expected(clients, conn).is_some() {
                let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
                let result = clients.send(id, message);
                self.sent(conn, None, length, queued, result);
            }
        }
        if self.rng.u8(..100) < self.nerve {
            for _ in 0..self.rng.u8(1..4) {
                self.command(clients, conn);
            }
        }
        self.farewell = None;
    }
}

impl App {
    /// What differs for one connection.
    fn overrides(&mut self) -> (Own, Overrides) {
        let rng = &mut self.rng;
        let mut own = Own::default();
        if rng.bool() {
            own.close_timeout = Some(Duration::from_millis(rng.u64(..3000)));
        }
        if rng.bool() {
            own.flush_budget = Some(Duration::from_millis(rng.u64(..2000)));
        }
        if rng.bool() {
            own.heartbeat = Some(adjourn::Heartbeat {
                interval: rng.bool().then(|| Duration::from_millis(rng.u64(1..4000))),
                timeout: Duration::from_millis(rng.u64(1..3000)),
            });
        }
        if rng.bool() {
            own.stall_timeout = Some(rng.bool().then(|| Duration::from_millis(rng.u64(1..4000))));
        }
        if rng.bool() {
            own.max_payload = Some(rng.usize(..5000));
        }
        if rng.bool() {
            own.max_backlog = Some(rng.usize(..100_000));
        }
        if rng.bool() {
            own.answer = Some([adjourn::Answer::Auto, adjourn::Answer::Manual][rng.usize(..2)]);
        }
        if rng.bool() {
            let policies = [adjourn::OnPeerClose::FlushQueued, adjourn::OnPeerClose::DropQueued];
            own.on_peer_close = Some(policies[rng.usize(..2)]);
        }
        let mut overrides = Overrides::default();
        overrides.close_timeout = own.close_timeout;
        overrides.flush_budget = own.flush_budget;
        overrides.heartbeat = own.heartbeat;
        overrides.stall_timeout = own.stall_timeout;
        overrides.max_payload = own.max_payload;
        overrides.max_backlog = own.max_backlog;
        overrides.answer = own.answer;
        overrides.on_peer_close = own.on_peer_close;
        (own, overrides)
    }

    /// The state that the book has for a connection whose id is still good. `None` if the id is stale, or if a sweep
    /// has just told it and the event is still to come.
    fn expected(&mut self, clients: &Clients<'_, u32>, conn: u32) -> Option<State> {
        let facts = &self.book.facts[conn as usize];
        let (id, state) = (facts.id?, facts.state);
        let stale = (facts.closed && self.farewell != Some(conn)) || state.is_none();
        let seen = clients.get(id).map(|client| client.state());
        if stale {
            ensure!(self.book, conn, "stale_ids_name_nobody", seen.is_none(), "{seen:?}");
            return None;
        }
        // A lingering time of nothing is over before it is reported, and so may be a small budget.
        let config = &self.book.config;
        let spent = facts.discarded + facts.undecided > config.linger_bytes;
        let swift = (config.linger_timeout.is_zero() || spent) && state == Some(State::Lingering);
        if seen != state && !(swift && seen == Some(State::Closed)) {
            // A closing handshake that had no time is over before its Close is reported, too.
            let ending = facts.busy.as_ref().and_then(|busy| busy.ending.as_ref());
            let over = ending.is_some_and(|ending| ending.deadline <= self.book.now + 1);
            let sweeping = clients.phase() >= adjourn::Phase::SoftSweep
                || self.book.sweeps.values().any(|sweep| !sweep.done);
            ensure!(self.book, conn, "state_by_the_book", sweeping || over, "{seen:?} instead of {state:?}");
            return None;
        }
        state
    }

    /// One random command, about `conn` or about anybody.
    pub fn command(&mut self, clients: &mut Clients<'_, u32>, conn: Option<u32>) {
        let all = u32::try_from(self.book.facts.len()).unwrap_or(u32::MAX);
        let anybody = self.rng.u32(..all);
        let conn = conn.filter(|_| self.rng.u8(..10) < 7).unwrap_or(anybody);
        let what = self.rng.u8(..100);
        match what {
            0..3 => return self.broadcast(clients),
            3..5 => return self.sweep(clients),
            5 => return self.shut_down(clients),
            _ => {}
        }
        let Some(id) = self.book.of(conn).id else { return };
        let Some(state) = self.expected(clients, conn) else {
            return self.command_on_a_stale_id(clients, conn);
        };
        trace!(self.book, "#{conn} command {what} in {state:?}");
        self.book.touch(conn);
        match what {
            6..30 => self.send(clients, conn, what < 12),
            30..40 => {
                let payload = vec![b'q'; self.rng.usize(..=125)];
                let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
                let result = clients.ping(id, &payload);
                if self.judge_send(conn, payload.len(), queued, &result) {
                    let busy = self.book.busy(conn);
                    busy.pings_due += 1;
                }
            }
            40..52 => {
                let timing = self.timing();
                let frame = self.frame();
                self.book.cover(conn, InputKind::Close);
                let began = clients.close_with(id, frame.clone(), timing);
                ensure!(
                    self.book,
                    conn,
                    "close_answers",
                    began == (state == State::Open),
                    "{began} in {state:?}"
                );
                if state == State::Open {
                    self.book.begin_local(conn, Cause::LocalClose, frame, timing);
                } else {
                    self.book.shorten(conn, timing);
                }
            }
            52..60 => self.kick(clients, conn, state),
            60..66 => {
                let style =
                    [None, Some(Abort::Reset), Some(Abort::Fin), Some(Abort::Auto)][self.rng.usize(..4)];
                self.book.cover(conn, InputKind::Terminate);
                let ended = match style {
                    None => clients.terminate(id),
                    Some(style) => clients.terminate_with(id, style),
                };
                let right = ended == state.is_established();
                ensure!(self.book, conn, "terminate_answers", right, "{ended} in {state:?}");
                if state.is_established() {
                    let style = style.unwrap_or(self.book.config.terminate);
                    let asked = Some(style).filter(|style| *style != Abort::Auto);
                    self.book.abort(conn, Cause::Terminated, adjourn::Initiator::Local, asked);
                }
            }
            66..74 if !self.calm => {
                clients.pause(id);
                self.book.of(conn).paused = true;
                let until = self.book.now + self.rng.u64(1..4_000_000);
                self.naps.push((until, conn));
            }
            74..82 => {
                clients.resume(id);
                self.book.called_resume(conn);
            }
            82..95 => {
                let unanswered = self.book.is_unanswered(conn) && state == State::RemoteClosing;
                let frame = self.frame();
                let answered = clients.answer_close(id, frame.clone());
                ensure!(
                    self.book,
                    conn,
                    "answer_close_answers",
                    answered == unanswered,
                    "{answered} in {state:?}"
                );
                if unanswered {
                    self.book.called_answer(conn, frame);
                }
            }
            _ => {
                let client = clients.get(id);
                let right = client.is_some_and(|client| client.id() == id && *client.data() == conn);
                ensure!(self.book, conn, "get_finds_it", right, "in {state:?}");
            }
        }
    }

    fn command_on_a_stale_id(&mut self, clients: &mut Clients<'_, u32>, conn: u32) {
        let facts = self.book.of(conn);
        let (Some(id), true) = (facts.id, facts.closed && self.farewell != Some(conn)) else { return };
        let refused = !clients.close(id, CloseFrame::NORMAL)
            && !clients.terminate(id)
            && !clients.kick(id, "last", CloseFrame::NORMAL, true)
            && !clients.answer_close(id, CloseFrame::EMPTY)
            && !clients.pause(id)
            && !clients.resume(id)
            && clients.send(id, "x") == Err(SendError::NotFound)
            && clients.ping(id, b"") == Err(SendError::NotFound)
            && clients.get_mut(id).is_none();
        ensure!(self.book, conn, "stale_ids_do_nothing", refused, "an operation on a stale id did something");
    }

    fn send(&mut self, clients: &mut Clients<'_, u32>, conn: u32, big: bool) {
        let Some(id) = self.book.of(conn).id else { return };
        let (number, payload) = self.payload(big);
        let length = payload.len();
        let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
        let result = match (self.rng.bool(), String::from_utf8(payload)) {
            (true, Ok(text)) => clients.send(id, text),
            (false, Ok(text)) => clients.send(id, text.as_bytes()),
            (_, Err(error)) => clients.send(id, error.into_bytes()),
        };
        self.sent(conn, number, length, queued, result);
    }

    fn sent(
        &mut self,
        conn: u32,
        number: Option<u64>,
        length: usize,
        queued: usize,
        result: Result<(), SendError>,
    ) {
        if self.judge_send(conn, length, queued, &result) {
            self.book.called_send(conn, number, length);
        }
    }

    /// Whether `send` or `ping` gave the right answer; returns whether it queued something.
    fn judge_send(
        &mut self,
        conn: u32,
        length: usize,
        queued: usize,
        result: &Result<(), SendError>,
    ) -> bool {
        let limit = self.book.max_backlog(conn);
        let frame = length
            + if length < 126 {
                2
            } else if length < 0x1_0000 {
                4
            } else {
                10
            };
        let state = self.book.state(conn);
        let takes = state == Some(State::Open) || self.book.is_unanswered(conn);
        let fits = queued + frame <= limit;
        let right = match result {
            Ok(()) => takes && fits,
            Err(SendError::Closing) => !takes,
            Err(SendError::Overflow { .. }) => takes && !fits,
            Err(_) => false,
        };
        let text = format!("{result:?} in {state:?}: {queued} queued, {frame} more, at most {limit}");
        ensure!(self.book, conn, "send_answers", right, "{text}");
        if takes && !fits {
            self.book.overflowed(conn, queued as u64);
        }
        result.is_ok()
    }

    fn payload(&mut self, big: bool) -> (Option<u64>, Vec<u8>) {
        self.book.numbers += 1;
        let number = self.book.numbers;
        let length = if big { self.rng.usize(..90_000) } else { self.rng.usize(..200) };
        let payload = numbered(number, length);
        (Some(number).filter(|_| length >= NUMBER), payload)
    }

    fn frame(&mut self) -> CloseFrame {
        self.book.numbers += 1;
        let (number, rng) = (self.book.numbers, &mut self.rng);
        let code = [1000, 1001, 1008, 1011, 1012, 3999, 4000][rng.usize(..7)];
        match rng.u8(..4) {
            0 => CloseFrame::EMPTY,
            1 => CloseFrame::new(code, "").unwrap_or_default(),
            2 => CloseFrame::new(code, format!("app {number}")).unwrap_or_default(),
            _ => CloseFrame::truncating(code, format!("app {number} {}", "ü".repeat(70))).unwrap_or_default(),
        }
    }

    fn timing(&mut self) -> Timing {
        let rng = &mut self.rng;
        let mut some = |most: u64| match rng.u8(..6) {
            0 => Some(Duration::ZERO),
            1 | 2 => Some(Duration::from_micros(rng.u64(..most))),
            _ => None,
        };
        Timing { close_timeout: some(4_000_000), flush_budget: some(2_000_000) }
    }

    fn kick(&mut self, clients: &mut Clients<'_, u32>, conn: u32, state: State) {
        let Some(id) = self.book.of(conn).id else { return };
        let big = self.rng.u8(..4) == 0;
        let (number, payload) = self.payload(big);
        let (frame, drop_queued, length) = (self.frame(), self.rng.bool(), payload.len());
        self.book.cover(conn, InputKind::Kick);
        let began = clients.kick(id, payload, frame.clone(), drop_queued);
        ensure!(self.book, conn, "kick_answers", began == (state == State::Open), "{began} in {state:?}");
        if state != State::Open {
            return;
        }
        if drop_queued {
            self.book.condemn(conn);
        }
        self.book.called_send(conn, number, length);
        self.book.begin_local(conn, Cause::Kicked, frame, Timing::default());
    }

    fn broadcast(&mut self, clients: &mut Clients<'_, u32>) {
        let big = self.rng.u8(..3) == 0;
        let (number, payload) = self.payload(big);
        let length = payload.len();
        let frame = length
            + if length < 126 {
                2
            } else if length < 0x1_0000 {
                4
            } else {
                10
            };
        let (of, rest) = (self.rng.u32(1..4), self.rng.u32(..4));
        let mut chosen = Vec::new();
        let book = &self.book;
        let result = clients.broadcast(payload.as_slice(), |client| {
            let conn = *client.data();
            let takes = conn % of == rest % of;
            if takes {
                let queued = client.buffered_amount();
                chosen.push((conn, queued, queued + frame <= book.max_backlog(conn)));
            }
            takes
        });
        let sent = chosen.iter().filter(|(_, _, fits)| *fits).count();
        let expected = Broadcast { sent, refused: chosen.len() - sent };
        ensure!(
            self.book,
            None,
            "broadcast_answers",
            result == expected,
            "{result:?} instead of {expected:?}"
        );
        for (conn, queued, fits) in chosen {
            self.book.touch(conn);
            if fits {
                self.book.called_send(conn, number, length);
            } else {
                self.book.overflowed(conn, queued as u64);
            }
        }
    }

    fn sweep(&mut self, clients: &mut Clients<'_, u32>) {
        if self.sweeps_left == 0 || self.calm || clients.phase() == adjourn::Phase::Done {
            return;
        }
        self.sweeps_left -= 1;
        self.book.numbers += 1;
        let reason = format!("sweep {}", self.book.numbers);
        let chosen: Rc<RefCell<Vec<u32>>> = Rc::default();
        let list = Rc::clone(&chosen);
        let (of, rest, kind) = (self.rng.u32(1..4), self.rng.u32(..4), self.rng.u8(..4));
        let predicate = move |client: &adjourn::Client<'_, u32>| {
            let conn = *client.data();
            let chosen = match kind {
                0 => client.buffered_amount() > 0,
                1 => client.idle_for() > Duration::from_millis(200),
                _ => conn % of == rest % of,
            };
            if chosen {
                list.borrow_mut().push(conn);
            }
            chosen
        };
        let terminates = self.rng.u8(..3) == 0;
        let id = if terminates {
            clients.terminate_where(predicate)
        } else {
            let frame = CloseFrame::new(4001, reason.clone()).unwrap_or_default();
            clients.close_where(frame, self.pace(), predicate)
        };
        trace!(self.book, "sweep {} ({reason}), terminates: {terminates}", id.as_u32());
        self.book.sweep_frames.insert(reason, id.as_u32());
        let sweep = SweepBook {
            terminates,
            chosen,
            seen: 0,
            began: self.book.now,
            rest: (kind > 1).then_some((of, rest % of)),
            told: 0,
            ended: 0,
            clean: 0,
            timed_out: 0,
            lost: Lost::default(),
            done: false,
        };
        let before = self.book.sweeps.insert(id.as_u32(), sweep);
        ensure!(self.book, None, "sweep_ids_are_new", before.is_none(), "{id:?}");
    }

    fn pace(&mut self) -> Pace {
        match self.rng.u8(..3) {
            0 => Pace::AtOnce,
            1 => Pace::Rate(f64::from(self.rng.u32(1..200))),
            _ => Pace::Spread(Duration::from_millis(self.rng.u64(..3000))),
        }
    }

    fn shut_down(&mut self, clients: &mut Clients<'_, u32>) {
        let begun = self.book.shutdown.is_some();
        if !self.may_shut_down || self.rng.u8(..8) > 0 {
            return;
        }
        if begun { self.cut_short(clients) } else { self.begin_shutdown(clients) }
    }

    pub fn begin_shutdown(&mut self, clients: &mut Clients<'_, u32>) {
        let plan = self.plan.clone();
        self.book.called_shutdown(&plan);
        clients.shutdown(plan);
    }

    /// Something that can only make a running shutdown shorter.
    pub fn cut_short(&mut self, clients: &mut Clients<'_, u32>) {
        trace!(self.book, "the shutdown is cut short");
        if let Some(shutdown) = &mut self.book.shutdown {
            shutdown.cut = true;
        }
        match self.rng.u8(..3) {
            0 => clients.escalate(),
            1 => clients.abort(),
            _ => {
                let mut plan = self.plan.clone();
                plan.grace = Duration::from_millis(self.rng.u64(..4000));
                plan.lame_duck = Duration::from_millis(self.rng.u64(..2000));
                clients.shutdown(plan);
            }
        }
    }

    /// Ends the naps that are over.
    pub fn wake(&mut self, clients: &mut Clients<'_, u32>) {
        let now = self.book.now;
        let over: Vec<_> = self.naps.extract_if(.., |nap| nap.0 <= now).map(|nap| nap.1).collect();
        for conn in over {
            if let (Some(id), Some(_)) = (self.book.of(conn).id, self.expected(clients, conn)) {
                clients.resume(id);
                self.book.called_resume(conn);
            }
        }
    }
}

/// What the hub gave, for the book.
pub fn given<'a>(event: &'a Event<'_>) -> Option<Given<'a>> {
    Some(match event {
        Event::Message { message, closing, .. } => Given::Message {
            text: Message::kind(message) == Kind::Text,
            payload: message.as_bytes(),
            closing: *closing,
        },
        Event::Ping { payload, .. } => Given::Ping(payload),
        Event::Pong { payload, .. } => Given::Pong(payload),
        _ => return None,
    })
}
