//! The application: asks for anything at any time, in every callback and between turns, and checks each answer.

use std::{cell::RefCell, panic::resume_unwind, rc::Rc, sync::Arc, time::Duration};

use adjourn::{
    Clients, CloseFrame, Event, Handler, SendError, ShutdownPlan,
    clients::State,
    close::Cause,
    config::{Abort, ConnectionConfig, SharedConfig},
    conn::InputKind,
    http::BodyLength,
    http::{Accept, Response, Upgrade, UpgradeRequest},
    shutdown::ShutdownPhase,
};

use super::{
    chance::Rng,
    checker::{Checker, ensure, trace},
    commands::{Room, framed},
    outside::{Item, Outside},
    scenario::Behaviour,
};

/// From here on the loop hands out a message that came in pieces in a buffer of its own, which may be sent on as it is.
const LARGE: usize = 16 << 10;

/// What a callback of the simulated application panics with.
pub struct Injected;

/// The application of one world.
pub struct App {
    outside: Rc<RefCell<Outside>>,
    pub rng: Rng,
    /// How many of a hundred events it answers with commands.
    pub command_percent: u8,
    /// How it behaves.
    pub behaviour: Behaviour,
    /// How many of a hundred messages it echoes.
    pub echo: u8,
    /// It pauses nobody any more and begins no sweeps: the world is to end.
    pub calm: bool,
    /// It may begin a shutdown out of a callback.
    pub may_shut_down: bool,
    pub plan: ShutdownPlan,
    pub sweeps_left: u32,
    /// Paused connections, and when they are to be resumed.
    pub pauses: Vec<(u64, u32)>,
    /// The connection whose `Close` was delivered last: its id may not be stale yet.
    closed_last: Option<u32>,
}

impl App {
    pub fn new(outside: Rc<RefCell<Outside>>, rng: Rng, plan: ShutdownPlan) -> Self {
        Self {
            outside,
            rng,
            command_percent: 0,
            behaviour: Behaviour::default(),
            echo: 0,
            calm: false,
            may_shut_down: false,
            plan,
            sweeps_left: 0,
            pauses: Vec::new(),
            closed_last: None,
        }
    }
}

impl Handler for App {
    type Data = u32;

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, u32> {
        let outside = Rc::clone(&self.outside);
        let outside = &mut *outside.borrow_mut();
        let checker = &mut outside.checker;
        let conn = Checker::at_address(request.peer_addr());
        checker.deciding(conn);
        let (ready, asked) = (request.is_ready(), checker.shutdown.is_some());
        ensure!(checker, conn, "not_ready_from_the_call_on", ready != asked, "{ready} for `on_upgrade`");
        let path = request.path().as_bytes();
        let text = |status| Response::new(status).map(|response| response.body("hello\n"));
        if self.rng.u16(..1000) < self.behaviour.panics {
            checker.panics();
            resume_unwind(Box::new(Injected));
        }
        // What comes without an upgrade is answered, or every second one served elsewhere; a body keeps it from being answered.
        let plain = !request.is_upgrade() && path.get(1) == Some(&b'p');
        if plain && conn % 2 == 1 {
            checker.detached(conn);
            let handed = Arc::clone(&outside.handed);
            return Upgrade::detach(move |detached| {
                let received = detached.into_parts().1;
                handed.lock().expect("not poisoned").push((conn, received));
            });
        }
        if plain && request.body_length() == BodyLength::Zero {
            checker.answered(conn);
        }
        // A crowd's settings are ordinary ones, and fewer may wait by them.
        if request.is_upgrade() && path.get(1) == Some(&b'a') && conn % 5 == 2 && !outside.size.crowd {
            checker.defers(conn, request.id());
            outside.soon(u64::from(conn * 397 % 4000) * 1000, Item::Decide(conn));
            return Upgrade::Defer;
        }
        match (path.get(1), text(if path.get(1) == Some(&b'r') { 403 } else { 200 })) {
            (Some(b'r'), Ok(response)) => Upgrade::Reject(response),
            (Some(b'p'), Ok(response)) if !request.is_upgrade() => Upgrade::Answer(response),
            (Some(b'o'), _) => {
                let own = self.own(&checker.config.connection);
                checker.of(conn).own = Some(own.clone());
                Upgrade::Accept(Accept::new(conn).config(own))
            }
            _ => Upgrade::accept(conn),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, u32>, event: Event<'_>) {
        let outside = Rc::clone(&self.outside);
        let outside = &mut *outside.borrow_mut();
        let checker = &mut outside.checker;
        let conn = event.id().and_then(|id| clients.get(id).map(|client| *client.data()));
        checker.tally.events += 1;
        self.closed_last = None;
        checker.event(&event, conn);
        // An upgrade that was deferred has an id, and no data.
        let failed = matches!(event, Event::HandshakeFailed { .. });
        let known = event.id().is_none() || conn.is_some() || failed;
        ensure!(checker, conn, "data_until_close", known, "{event:?}");
        if let (Event::Close { .. }, Some(_)) = (&event, conn) {
            self.closed_last = conn;
        }
        let drained = matches!(event, Event::Drain { .. });
        if let Event::Message { id, message, .. } = event
            && let Some(conn) = conn.filter(|_| self.rng.u8(..100) < self.echo)
        {
            let length = message.len();
            let whole = message.as_bytes();
            // One that came in a buffer of its own is sent on, or a part of it is, or echoed.
            if length >= LARGE && length % 3 > 0 {
                let sent_on = if length % 3 == 1 { whole } else { whole.get(..length / 2).unwrap_or(whole) };
                self.send_to_some(checker, clients, None, sent_on);
            } else if self.expected(checker, clients, conn).is_some() {
                let room = Room::of(checker, clients, id);
                let result = clients.send(id, message);
                Self::sent(checker, conn, None, length, room, result);
            }
        }
        if let Some(conn) = conn.filter(|_| drained) {
            self.refill(checker, clients, conn);
        }
        if self.rng.u8(..100) < self.command_percent {
            for _ in 0..self.rng.u8(1..4) {
                self.command(checker, clients, conn);
            }
        }
        if self.rng.u8(..100) < self.behaviour.slow {
            let took = self.rng.u64(..self.behaviour.slow_ms) * 1000;
            outside.pass(took);
        }
        if self.rng.u16(..1000) < self.behaviour.panics {
            outside.checker.panics();
            resume_unwind(Box::new(Injected));
        }
    }
}

impl App {
    /// What the agenda asks for, between two turns.
    pub fn apply_order(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, order: Item) {
        // The loop does not read while it lets the application act.
        checker.parsing_ends();
        checker.calls += 1;
        match order {
            Item::Command => self.command(checker, clients, None),
            Item::Decide(conn) => Self::decide(checker, clients, conn),
            Item::Shutdown if checker.shutdown.is_none() => self.begin_shutdown(checker, clients),
            Item::CutShort if checker.shutdown.is_some() => self.cut_short(checker, clients),
            Item::Leave => {
                self.calm = true;
                for pause in &mut self.pauses {
                    pause.0 = 0;
                }
            }
            _ => {}
        }
        self.wake(checker, clients);
    }

    /// Decides on an upgrade that it has deferred.
    fn decide(checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32) {
        let Some(id) = checker.of(conn).deferred else { return };
        let accepts = conn.is_multiple_of(2);
        let result = if accepts {
            clients.accept(id, |request| {
                assert_eq!((request.id(), Checker::at_address(request.peer_addr())), (id, conn));
                Accept::new(conn)
            })
        } else {
            clients.reject(id, &Response::unavailable(Duration::ZERO))
        };
        checker.decided(conn, accepts, result);
    }

    /// Sends more as soon as all is sent.
    fn refill(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32) {
        if self.behaviour.refills > 0
            && !self.calm
            && self.expected(checker, clients, conn) == Some(State::Open)
        {
            self.behaviour.refills -= 1;
            self.send(checker, clients, conn, true);
        }
    }

    /// What differs for one connection.
    fn own(&mut self, common: &ConnectionConfig) -> SharedConfig {
        let rng = &mut self.rng;
        let mut own = common.clone();
        if rng.bool() {
            own.close_timeout = Duration::from_millis(rng.u64(..3000));
        }
        if rng.bool() {
            own.flush_budget = Some(Duration::from_millis(rng.u64(..2000)));
        }
        if rng.bool() {
            own.heartbeat = adjourn::config::Heartbeat {
                interval: rng.bool().then(|| Duration::from_millis(rng.u64(1..4000))),
                timeout: Duration::from_millis(rng.u64(1..3000)),
            };
        }
        if rng.bool() {
            own.stall_timeout = rng.bool().then(|| Duration::from_millis(rng.u64(1..4000)));
        }
        if rng.bool() {
            own.max_payload = rng.usize(..5000);
        }
        if rng.bool() {
            own.max_backlog = rng.usize(..100_000);
        }
        if rng.bool() {
            own.answer =
                [adjourn::config::CloseAnswer::Auto, adjourn::config::CloseAnswer::Manual][rng.usize(..2)];
        }
        if rng.bool() {
            let policies =
                [adjourn::config::OnPeerClose::FlushQueued, adjourn::config::OnPeerClose::DropQueued];
            own.on_peer_close = policies[rng.usize(..2)];
        }
        let mut beside = rng.beside();
        if beside.bool() {
            own.linger_timeout = Duration::from_millis(beside.u64(..2000));
        }
        if beside.bool() {
            own.linger_bytes = beside.u64(..60_000);
        }
        if beside.bool() {
            own.closing_bytes = beside.u64(..3000);
        }
        if beside.bool() {
            own.max_fragments = beside.u32(1..12);
        }
        if beside.bool() {
            own.pause_timeout = beside.bool().then(|| Duration::from_millis(beside.u64(..3000)));
        }
        if beside.bool() {
            let styles = [Abort::Auto, Abort::Reset, Abort::Fin];
            (own.abort, own.terminate) = (styles[beside.usize(..3)], styles[beside.usize(..3)]);
        }
        // A budget of more than there is time is all of it.
        own.flush_budget = own.flush_budget.map(|budget| budget.min(own.close_timeout));
        own.share().expect("valid settings")
    }

    /// The state that the checker has for a connection whose id is still good. `None` if the id is stale, or if a sweep
    /// has just closed it and the event is still to come.
    pub fn expected(
        &mut self,
        checker: &mut Checker,
        clients: &Clients<'_, u32>,
        conn: u32,
    ) -> Option<State> {
        let id = checker.of(conn).id?;
        let seen = clients.get(id).map(|client| client.state());
        if seen != checker.state(conn) {
            // No input leads to LocalClosing: a sweep has closed it, and whether its pause had ended before is not known.
            let swept = seen == Some(State::LocalClosing) && checker.is_sweeping();
            if !(swept && checker.is_pause_due(conn)) {
                checker.catch_up(conn);
            }
            // Once its Close was delivered, nobody is found under its id.
            let gone = matches!(seen, None | Some(State::Closed)) && !checker.of(conn).closed;
            if seen != checker.state(conn) && gone {
                checker.give_up(conn);
            }
            checker.explain_state(conn, seen);
        }
        let facts = &checker.facts[conn as usize];
        let state = facts.state;
        let stale = facts.closed && (self.closed_last != Some(conn) || seen.is_none()) || state.is_none();
        if stale {
            ensure!(checker, conn, "stale_ids_name_nobody", seen.is_none(), "{seen:?}");
            return None;
        }
        // A lingering time of nothing is over before it is reported, and so may be a small budget.
        let settings = checker.settings(conn);
        let spent = facts.discarded + facts.undecided > settings.linger_bytes;
        let swift = (settings.linger_timeout.is_zero() || spent || facts.eof_unsure)
            && state == Some(State::Lingering);
        if seen != state && !(swift && seen == Some(State::Closed)) {
            let sweeping = clients.phase() >= ShutdownPhase::SoftSweep
                || checker.sweeps.values().any(|sweep| !sweep.done);
            ensure!(checker, conn, "state_is_as_expected", sweeping, "{seen:?} instead of {state:?}");
            return None;
        }
        state
    }

    /// One random command, about `conn` or about anybody.
    pub fn command(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: Option<u32>) {
        let all = u32::try_from(checker.facts.len()).unwrap_or(u32::MAX);
        let anybody = self.rng.u32(..all);
        let conn = conn.filter(|_| self.rng.u8(..10) < 7).unwrap_or(anybody);
        let what = self.rng.u8(..100);
        match what {
            0..2 => return self.broadcast(checker, clients),
            2 => return self.send_to(checker, clients),
            3..5 => return self.sweep(checker, clients),
            5 => return self.shut_down(checker, clients),
            _ => {}
        }
        let Some(id) = checker.of(conn).id else { return };
        let Some(state) = self.expected(checker, clients, conn) else {
            return self.command_on_a_stale_id(checker, clients, conn);
        };
        trace!(checker, "#{conn} command {what} in {state:?}");
        checker.touch(conn);
        match what {
            6..30 => self.send(checker, clients, conn, what < 12),
            30..40 => {
                let payload = vec![b'q'; self.rng.usize(..=125)];
                let room = Room::of(checker, clients, id);
                let result = clients.ping(id, &payload);
                if Self::judge_send(checker, conn, framed(payload.len()), room, &result) {
                    let busy = checker.busy(conn);
                    busy.pings_due += 1;
                }
            }
            40..52 => {
                let timing = self.timing();
                let frame = self.frame(checker);
                checker.cover(conn, InputKind::Close);
                let began = clients.close_with(id, frame.clone(), timing);
                ensure!(
                    checker,
                    conn,
                    "close_answers",
                    began == (state == State::Open),
                    "{began} in {state:?}"
                );
                if state == State::Open {
                    checker.begin_local(conn, Cause::LocalClose, frame, timing);
                } else {
                    checker.shorten(conn, timing);
                }
            }
            52..60 => self.kick(checker, clients, conn, state),
            60..66 => {
                let style =
                    [None, Some(Abort::Reset), Some(Abort::Fin), Some(Abort::Auto)][self.rng.usize(..4)];
                checker.cover(conn, InputKind::Terminate);
                let ended = match style {
                    None => clients.terminate(id),
                    Some(style) => clients.terminate_with(id, style),
                };
                let right = ended == state.is_established();
                ensure!(checker, conn, "terminate_answers", right, "{ended} in {state:?}");
                if state.is_established() {
                    let style = style.unwrap_or(checker.settings(conn).terminate);
                    checker.abort(conn, Cause::Terminated, adjourn::close::Initiator::Local, Some(style));
                }
            }
            66..74 if !self.calm => {
                clients.pause(id);
                checker.called_pause(conn);
                let until = checker.now + self.rng.u64(1..4_000_000);
                self.pauses.push((until, conn));
            }
            74..82 => {
                Self::resume(checker, clients, conn);
            }
            82..95 => {
                let frame = self.frame(checker);
                let answered = clients.answer_close(id, frame.clone());
                if !answered {
                    checker.answered_in_time(conn);
                }
                let unanswered = checker.is_unanswered(conn) && state == State::RemoteClosing;
                ensure!(
                    checker,
                    conn,
                    "answer_close_answers",
                    answered == unanswered,
                    "{answered} in {state:?}"
                );
                if unanswered {
                    checker.called_answer(conn, frame);
                }
            }
            95..97 => self.set_timer(checker, clients, conn),
            _ => {
                let client = clients.get(id);
                let right = client.is_some_and(|client| client.id() == id && *client.data() == conn);
                ensure!(checker, conn, "get_finds_it", right, "in {state:?}");
            }
        }
    }

    fn command_on_a_stale_id(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32) {
        let facts = checker.of(conn);
        let (Some(id), true) = (facts.id, facts.closed && self.closed_last != Some(conn)) else { return };
        let refused = !clients.close(id, CloseFrame::NORMAL)
            && !clients.terminate(id)
            && !clients.kick(id, "last", CloseFrame::NORMAL)
            && !clients.kick_now(id, "last", CloseFrame::NORMAL)
            && !clients.answer_close(id, CloseFrame::EMPTY)
            && !clients.pause(id)
            && !clients.resume(id)
            && clients.send(id, "x") == Err(SendError::NotFound)
            && clients.ping(id, b"") == Err(SendError::NotFound)
            && clients.get_mut(id).is_none();
        ensure!(checker, conn, "stale_ids_do_nothing", refused, "an operation on a stale id did something");
    }

    fn shut_down(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        let begun = checker.shutdown.is_some();
        if !self.may_shut_down || self.rng.u8(..8) > 0 {
            return;
        }
        if begun { self.cut_short(checker, clients) } else { self.begin_shutdown(checker, clients) }
    }

    pub fn begin_shutdown(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        let plan = self.plan.clone();
        checker.called_shutdown(&plan);
        clients.shutdown(plan);
        ensure!(checker, None, "not_ready_from_the_call_on", !clients.is_ready(), "{:?}", clients.phase());
    }

    /// Something that can only make a running shutdown shorter.
    pub fn cut_short(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        trace!(checker, "the shutdown is cut short");
        let how = self.rng.u8(..3);
        if let Some(shutdown) = &mut checker.shutdown {
            shutdown.cut = true;
            // A further plan may be no shorter.
            shutdown.escalated |= how < 2 && clients.phase() < ShutdownPhase::HardSweep;
        }
        match how {
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

    /// Ends the pauses that are over.
    pub fn wake(&mut self, checker: &mut Checker, clients: &mut Clients<'_, u32>) {
        let now = checker.now;
        let over: Vec<_> = self.pauses.extract_if(.., |pause| pause.0 <= now).map(|pause| pause.1).collect();
        for conn in over {
            if self.expected(checker, clients, conn).is_some() {
                Self::resume(checker, clients, conn);
            }
        }
    }

    fn resume(checker: &mut Checker, clients: &mut Clients<'_, u32>, conn: u32) {
        let Some(id) = checker.of(conn).id else { return };
        let delivers = clients.resume(id);
        let right = checker.called_resume(conn, delivers);
        ensure!(checker, conn, "resume_answers", right, "{delivers} in {:?}", checker.state(conn));
    }
}
