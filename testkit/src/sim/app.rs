//! The application: asks for anything at any time, in every callback and between turns, and checks each answer.

use std::{
    cell::RefCell,
    panic::resume_unwind,
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};

use adjourn::{
    Clients, CloseCode, CloseFrame, Event, Handler, SendError, ShutdownPlan,
    clients::State,
    close::{Cause, CloseTiming, Lost},
    config::{Abort, ConnectionConfig, SharedConfig},
    conn::InputKind,
    http::BodyLength,
    http::{Accept, Response, Upgrade, UpgradeRequest},
    shutdown::Pace,
};

use super::{
    book::{Book, ensure, trace},
    chance::Rng,
    facts::SweepBook,
    frames::{NUMBER, numbered},
    outside::{Item, Outside},
    scenario::Manner,
};

/// What a callback of the simulated application panics with.
pub struct Injected;

/// The application of one world.
pub struct App {
    outside: Rc<RefCell<Outside>>,
    pub rng: Rng,
    /// How many of a hundred events it answers with commands.
    pub nerve: u8,
    /// How it behaves.
    pub manner: Manner,
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
    /// The connection whose `Close` was delivered last: its id may not be stale yet.
    farewell: Option<u32>,
}

impl App {
    pub fn new(outside: Rc<RefCell<Outside>>, rng: Rng, plan: ShutdownPlan) -> Self {
        Self {
            outside,
            rng,
            nerve: 0,
            manner: Manner::default(),
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
        let outside = Rc::clone(&self.outside);
        let outside = &mut *outside.borrow_mut();
        let book = &mut outside.book;
        let conn = Book::at_address(request.peer_addr());
        book.deciding(conn);
        let path = request.path().as_bytes();
        let text = |status| Response::new(status).map(|response| response.body("hello\n"));
        if self.rng.u16(..1000) < self.manner.panics {
            book.panics();
            resume_unwind(Box::new(Injected));
        }
        // What comes without an upgrade is answered, or every second one served elsewhere; a body keeps it from being answered.
        let plain = !request.is_upgrade() && path.get(1) == Some(&b'p');
        if plain && conn % 2 == 1 {
            book.detached(conn);
            let handed = Arc::clone(&outside.handed);
            return Upgrade::detach(move |detached| {
                let received = detached.into_parts().1;
                handed.lock().expect("not poisoned").push((conn, received));
            });
        }
        if plain && request.body_length() == BodyLength::Zero {
            book.answered(conn);
        }
        if request.is_upgrade() && path.get(1) == Some(&b'a') && conn % 5 == 2 {
            book.defers(conn, request.id());
            outside.soon(u64::from(conn * 397 % 4000) * 1000, Item::Decide(conn));
            return Upgrade::Defer;
        }
        match (path.get(1), text(if path.get(1) == Some(&b'r') { 403 } else { 200 })) {
            (Some(b'r'), Ok(response)) => Upgrade::Reject(response),
            (Some(b'p'), Ok(response)) if !request.is_upgrade() => Upgrade::Answer(response),
            (Some(b'o'), _) => {
                let own = self.own(&book.config.connection);
                book.of(conn).own = Some(own.clone());
                Upgrade::Accept(Accept::new(conn).config(own))
            }
            _ => Upgrade::accept(conn),
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, u32>, event: Event<'_>) {
        let outside = Rc::clone(&self.outside);
        let outside = &mut *outside.borrow_mut();
        let book = &mut outside.book;
        let conn = event.id().and_then(|id| clients.get(id).map(|client| *client.data()));
        book.tally.events += 1;
        self.farewell = None;
        book.event(&event, conn);
        // An upgrade that was deferred has an id, and no data.
        let failed = matches!(event, Event::HandshakeFailed { .. });
        let known = event.id().is_none() || conn.is_some() || failed;
        ensure!(book, conn, "data_until_close", known, "{event:?}");
        if let (Event::Close { .. }, Some(_)) = (&event, conn) {
            self.farewell = conn;
        }
        let drained = matches!(event, Event::Drain { .. });
        if let Event::Message { id, message, .. } = event
            && let Some(conn) = conn.filter(|_| self.rng.u8(..100) < self.echo)
        {
            let length = message.len();
            if self.expected(book, clients, conn).is_some() {
                let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
                let result = clients.send(id, message);
                Self::sent(book, conn, None, length, queued, result);
            }
        }
        if let Some(conn) = conn.filter(|_| drained) {
            self.refill(book, clients, conn);
        }
        if self.rng.u8(..100) < self.nerve {
            for _ in 0..self.rng.u8(1..4) {
                self.command(book, clients, conn);
            }
        }
        if self.rng.u8(..100) < self.manner.slow {
            let took = self.rng.u64(..self.manner.slow_ms) * 1000;
            outside.pass(took);
        }
        if self.rng.u16(..1000) < self.manner.panics {
            outside.book.panics();
            resume_unwind(Box::new(Injected));
        }
    }
}

impl App {
    /// What the agenda asks for, between two turns.
    pub fn obey(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>, order: Item) {
        // The loop does not read while it lets the application act.
        book.feeding_ends();
        match order {
            Item::Command => self.command(book, clients, None),
            Item::Decide(conn) => Self::decide(book, clients, conn),
            Item::Shutdown if book.shutdown.is_none() => self.begin_shutdown(book, clients),
            Item::CutShort if book.shutdown.is_some() => self.cut_short(book, clients),
            Item::Leave => {
                self.calm = true;
                for nap in &mut self.naps {
                    nap.0 = 0;
                }
            }
            _ => {}
        }
        self.wake(book, clients);
    }

    /// Decides on an upgrade that it has deferred.
    fn decide(book: &mut Book, clients: &mut Clients<'_, u32>, conn: u32) {
        let Some(id) = book.of(conn).deferred else { return };
        let accepts = conn.is_multiple_of(2);
        let result = if accepts {
            clients.accept(id, |request| {
                assert_eq!((request.id(), Book::at_address(request.peer_addr())), (id, conn));
                Accept::new(conn)
            })
        } else {
            clients.reject(id, &Response::unavailable(Duration::ZERO))
        };
        book.decided(conn, accepts, result);
    }

    /// Sends more as soon as all is sent.
    fn refill(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>, conn: u32) {
        if self.manner.refills > 0 && !self.calm && self.expected(book, clients, conn) == Some(State::Open) {
            self.manner.refills -= 1;
            self.send(book, clients, conn, true);
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

    /// The state that the book has for a connection whose id is still good. `None` if the id is stale, or if a sweep
    /// has just told it and the event is still to come.
    fn expected(&mut self, book: &mut Book, clients: &Clients<'_, u32>, conn: u32) -> Option<State> {
        let id = book.of(conn).id?;
        let seen = clients.get(id).map(|client| client.state());
        if seen != book.state(conn) {
            book.catch_up(conn);
            if seen != book.state(conn) && matches!(seen, None | Some(State::Closed)) {
                book.give_up(conn);
            }
            book.explain_state(conn, seen);
        }
        let facts = &book.facts[conn as usize];
        let state = facts.state;
        let stale = facts.closed && (self.farewell != Some(conn) || seen.is_none()) || state.is_none();
        if stale {
            ensure!(book, conn, "stale_ids_name_nobody", seen.is_none(), "{seen:?}");
            return None;
        }
        // A lingering time of nothing is over before it is reported, and so may be a small budget.
        let settings = book.settings(conn);
        let spent = facts.discarded + facts.undecided > settings.linger_bytes;
        let swift = (settings.linger_timeout.is_zero() || spent || facts.eof_unsure)
            && state == Some(State::Lingering);
        if seen != state && !(swift && seen == Some(State::Closed)) {
            let sweeping = clients.phase() >= adjourn::shutdown::ShutdownPhase::SoftSweep
                || book.sweeps.values().any(|sweep| !sweep.done);
            ensure!(book, conn, "state_by_the_book", sweeping, "{seen:?} instead of {state:?}");
            return None;
        }
        state
    }

    /// One random command, about `conn` or about anybody.
    pub fn command(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>, conn: Option<u32>) {
        let all = u32::try_from(book.facts.len()).unwrap_or(u32::MAX);
        let anybody = self.rng.u32(..all);
        let conn = conn.filter(|_| self.rng.u8(..10) < 7).unwrap_or(anybody);
        let what = self.rng.u8(..100);
        match what {
            0..2 => return self.broadcast(book, clients),
            2 => return self.send_to(book, clients),
            3..5 => return self.sweep(book, clients),
            5 => return self.shut_down(book, clients),
            _ => {}
        }
        let Some(id) = book.of(conn).id else { return };
        let Some(state) = self.expected(book, clients, conn) else {
            return self.command_on_a_stale_id(book, clients, conn);
        };
        trace!(book, "#{conn} command {what} in {state:?}");
        book.touch(conn);
        match what {
            6..30 => self.send(book, clients, conn, what < 12),
            30..40 => {
                let payload = vec![b'q'; self.rng.usize(..=125)];
                let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
                let result = clients.ping(id, &payload);
                if Self::judge_send(book, conn, framed(payload.len()), queued, &result) {
                    let busy = book.busy(conn);
                    busy.pings_due += 1;
                }
            }
            40..52 => {
                let timing = self.timing();
                let frame = self.frame(book);
                book.cover(conn, InputKind::Close);
                let began = clients.close_with(id, frame.clone(), timing);
                ensure!(book, conn, "close_answers", began == (state == State::Open), "{began} in {state:?}");
                if state == State::Open {
                    book.begin_local(conn, Cause::LocalClose, frame, timing);
                } else {
                    book.shorten(conn, timing);
                }
            }
            52..60 => self.kick(book, clients, conn, state),
            60..66 => {
                let style =
                    [None, Some(Abort::Reset), Some(Abort::Fin), Some(Abort::Auto)][self.rng.usize(..4)];
                book.cover(conn, InputKind::Terminate);
                let ended = match style {
                    None => clients.terminate(id),
                    Some(style) => clients.terminate_with(id, style),
                };
                let right = ended == state.is_established();
                ensure!(book, conn, "terminate_answers", right, "{ended} in {state:?}");
                if state.is_established() {
                    let style = style.unwrap_or(book.settings(conn).terminate);
                    let asked = Some(style).filter(|style| *style != Abort::Auto);
                    book.abort(conn, Cause::Terminated, adjourn::close::Initiator::Local, asked);
                }
            }
            66..74 if !self.calm => {
                clients.pause(id);
                book.called_pause(conn);
                let until = book.now + self.rng.u64(1..4_000_000);
                self.naps.push((until, conn));
            }
            74..82 => {
                clients.resume(id);
                book.called_resume(conn);
            }
            82..95 => {
                let frame = self.frame(book);
                let answered = clients.answer_close(id, frame.clone());
                if !answered {
                    book.answered_in_time(conn);
                }
                let unanswered = book.is_unanswered(conn) && state == State::RemoteClosing;
                ensure!(
                    book,
                    conn,
                    "answer_close_answers",
                    answered == unanswered,
                    "{answered} in {state:?}"
                );
                if unanswered {
                    book.called_answer(conn, frame);
                }
            }
            _ => {
                let client = clients.get(id);
                let right = client.is_some_and(|client| client.id() == id && *client.data() == conn);
                ensure!(book, conn, "get_finds_it", right, "in {state:?}");
            }
        }
    }

    fn command_on_a_stale_id(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>, conn: u32) {
        let facts = book.of(conn);
        let (Some(id), true) = (facts.id, facts.closed && self.farewell != Some(conn)) else { return };
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
        ensure!(book, conn, "stale_ids_do_nothing", refused, "an operation on a stale id did something");
    }

    fn send(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>, conn: u32, big: bool) {
        let Some(id) = book.of(conn).id else { return };
        let (number, payload) = self.payload(book, big);
        let length = payload.len();
        let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
        let result = match (self.rng.bool(), String::from_utf8(payload)) {
            (true, Ok(text)) => clients.send(id, text),
            (false, Ok(text)) => clients.send(id, text.as_bytes()),
            (_, Err(error)) => clients.send(id, error.into_bytes()),
        };
        Self::sent(book, conn, number, length, queued, result);
    }

    fn sent(
        book: &mut Book,
        conn: u32,
        number: Option<u64>,
        length: usize,
        queued: usize,
        result: Result<(), SendError>,
    ) {
        if Self::judge_send(book, conn, framed(length), queued, &result) {
            book.called_send(conn, number, length);
        }
    }

    /// Whether `send` or `ping` gave the right answer for `frame` bytes; returns whether it queued something.
    fn judge_send(
        book: &mut Book,
        conn: u32,
        frame: usize,
        queued: usize,
        result: &Result<(), SendError>,
    ) -> bool {
        let limit = book.settings(conn).max_backlog;
        if *result == Err(SendError::Closing) {
            book.answered_in_time(conn);
        }
        let state = book.state(conn);
        let takes = state == Some(State::Open) || book.is_unanswered(conn);
        let fits = queued + frame <= limit;
        let right = match result {
            Ok(()) => takes && fits,
            Err(SendError::Closing) => !takes,
            Err(SendError::Overflow { .. }) => takes && !fits,
            Err(_) => false,
        };
        let text = format!("{result:?} in {state:?}: {queued} queued, {frame} more, at most {limit}");
        ensure!(book, conn, "send_answers", right, "{text}");
        if takes && !fits {
            book.overflowed(conn, queued as u64);
        }
        result.is_ok()
    }

    fn payload(&mut self, book: &mut Book, big: bool) -> (Option<u64>, Vec<u8>) {
        book.numbers += 1;
        let number = book.numbers;
        let length = if big { self.rng.usize(..90_000) } else { self.rng.usize(..200) };
        let payload = numbered(number, length);
        (Some(number).filter(|_| length >= NUMBER), payload)
    }

    fn frame(&mut self, book: &mut Book) -> CloseFrame {
        book.numbers += 1;
        let (number, rng) = (book.numbers, &mut self.rng);
        let code = [1000, 1001, 1008, 1011, 1012, 3999, 4000][rng.usize(..7)];
        let code = CloseCode::new(code).expect("a legal code");
        match rng.u8(..4) {
            0 => CloseFrame::EMPTY,
            1 => CloseFrame::of(code),
            2 => CloseFrame::new(code, format!("app {number}")).unwrap_or_default(),
            _ => CloseFrame::truncating(code, format!("app {number} {}", "ü".repeat(70))),
        }
    }

    fn timing(&mut self) -> CloseTiming {
        let rng = &mut self.rng;
        let mut some = |most: u64| match rng.u8(..6) {
            0 => Some(Duration::ZERO),
            1 | 2 => Some(Duration::from_micros(rng.u64(..most))),
            _ => None,
        };
        CloseTiming { close_timeout: some(4_000_000), flush_budget: some(2_000_000) }
    }

    fn kick(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>, conn: u32, state: State) {
        let Some(id) = book.of(conn).id else { return };
        let big = self.rng.u8(..4) == 0;
        let (number, payload) = self.payload(book, big);
        let (frame, drop_queued, length) = (self.frame(book), self.rng.bool(), payload.len());
        book.cover(conn, InputKind::Kick);
        let began = if drop_queued {
            clients.kick_now(id, payload, frame.clone())
        } else {
            clients.kick(id, payload, frame.clone())
        };
        ensure!(book, conn, "kick_answers", began == (state == State::Open), "{began} in {state:?}");
        if state != State::Open {
            return;
        }
        if drop_queued {
            book.condemn(conn);
        }
        book.called_send(conn, number, length);
        book.begin_local(conn, Cause::Kicked, frame, CloseTiming::default());
    }

    fn broadcast(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        let big = self.rng.u8(..3) == 0;
        let (number, payload) = self.payload(book, big);
        let (length, frame) = (payload.len(), framed(payload.len()));
        let (of, rest) = (self.rng.u32(1..4), self.rng.u32(..4));
        let mut chosen = Vec::new();
        let seen = &*book;
        let result = clients.broadcast(payload.as_slice(), |client| {
            let conn = *client.data();
            let takes = conn % of == rest % of;
            if takes {
                let queued = client.buffered_amount();
                chosen.push((conn, queued, queued + frame <= seen.settings(conn).max_backlog));
            }
            takes
        });
        let sent = chosen.iter().filter(|(_, _, fits)| *fits).count();
        let expected = (sent, chosen.len() - sent);
        let right = (result.sent, result.refused) == expected;
        ensure!(book, None, "broadcast_answers", right, "{result:?} instead of {expected:?}");
        for (conn, queued, fits) in chosen {
            book.touch(conn);
            if fits {
                book.called_send(conn, number, length);
            } else {
                book.overflowed(conn, queued as u64);
            }
        }
    }

    /// Several messages for some connections: all of them for each, or none. Some of the ids are stale.
    fn send_to(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        let messages: Vec<_> = (0..self.rng.u8(1..4))
            .map(|_| {
                let big = self.rng.u8(..4) == 0;
                self.payload(book, big)
            })
            .collect();
        let frames = messages.iter().map(|(_, payload)| framed(payload.len())).sum();
        let (of, rest) = (self.rng.u32(1..4), self.rng.u32(..4));
        let all = u32::try_from(book.facts.len()).unwrap_or(u32::MAX);
        let (mut ids, mut chosen) = (Vec::new(), Vec::new());
        for conn in (0..all).filter(|conn| conn % of == rest % of) {
            let Some(id) = book.of(conn).id else { continue };
            let known = self.expected(book, clients, conn).is_some();
            if known || clients.get(id).is_none() {
                let queued = clients.get(id).map_or(0, |client| client.buffered_amount());
                ids.push(id);
                chosen.push((conn, queued, known));
            }
        }
        let told =
            clients.send_to(ids.iter().copied(), messages.iter().map(|(_, payload)| payload.as_slice()));
        let mut refused = told.refused.iter().peekable();
        let mut sent = 0;
        for (id, (conn, queued, known)) in ids.into_iter().zip(chosen) {
            let result = refused.next_if(|refused| refused.0 == id).map_or(Ok(()), |refused| Err(refused.1));
            if !known {
                ensure!(book, conn, "send_to_answers", result == Err(SendError::NotFound), "{result:?}");
                continue;
            }
            book.touch(conn);
            if Self::judge_send(book, conn, frames, queued, &result) {
                sent += 1;
                for (number, payload) in &messages {
                    book.called_send(conn, *number, payload.len());
                }
            }
        }
        let right = told.sent == sent && refused.next().is_none();
        ensure!(book, None, "send_to_answers", right, "{told:?}, {sent} were reached");
    }

    fn sweep(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        if self.sweeps_left == 0 || self.calm || clients.phase() == adjourn::shutdown::ShutdownPhase::Done {
            return;
        }
        self.sweeps_left -= 1;
        book.numbers += 1;
        let reason = format!("sweep {}", book.numbers);
        let chosen: Arc<Mutex<Vec<u32>>> = Arc::default();
        let list = Arc::clone(&chosen);
        let (of, rest, kind) = (self.rng.u32(1..4), self.rng.u32(..4), self.rng.u8(..4));
        let predicate = move |client: &adjourn::Client<'_, u32>| {
            let conn = *client.data();
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
        let id = if terminates {
            clients.terminate_where(predicate)
        } else {
            let frame = CloseFrame::new(CloseCode::new(4001).expect("a legal code"), reason.clone())
                .unwrap_or_default();
            clients.close_where(frame, self.pace(), predicate)
        };
        trace!(book, "sweep {} ({reason}), terminates: {terminates}", id.as_u32());
        book.sweep_frames.insert(reason, id.as_u32());
        let sweep = SweepBook {
            terminates,
            chosen,
            seen: 0,
            began: book.now,
            rest: (kind > 1).then_some((of, rest % of)),
            told: 0,
            ended: 0,
            clean: 0,
            timed_out: 0,
            lost: Lost::default(),
            done: false,
        };
        let before = book.sweeps.insert(id.as_u32(), sweep);
        ensure!(book, None, "sweep_ids_are_new", before.is_none(), "{id:?}");
    }

    fn pace(&mut self) -> Pace {
        match self.rng.u8(..3) {
            0 => Pace::AtOnce,
            1 => Pace::Rate(f64::from(self.rng.u32(1..200))),
            _ => Pace::Spread(Duration::from_millis(self.rng.u64(..3000))),
        }
    }

    fn shut_down(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        let begun = book.shutdown.is_some();
        if !self.may_shut_down || self.rng.u8(..8) > 0 {
            return;
        }
        if begun { self.cut_short(book, clients) } else { self.begin_shutdown(book, clients) }
    }

    pub fn begin_shutdown(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        let plan = self.plan.clone();
        book.called_shutdown(&plan);
        clients.shutdown(plan);
    }

    /// Something that can only make a running shutdown shorter.
    pub fn cut_short(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        trace!(book, "the shutdown is cut short");
        if let Some(shutdown) = &mut book.shutdown {
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
    pub fn wake(&mut self, book: &mut Book, clients: &mut Clients<'_, u32>) {
        let now = book.now;
        let over: Vec<_> = self.naps.extract_if(.., |nap| nap.0 <= now).map(|nap| nap.1).collect();
        for conn in over {
            if let (Some(id), Some(_)) = (book.of(conn).id, self.expected(book, clients, conn)) {
                clients.resume(id);
                book.called_resume(conn);
            }
        }
    }
}

/// Bytes of a server's frame with so many of payload.
fn framed(length: usize) -> usize {
    let header = match length {
        0..126 => 2,
        126..0x1_0000 => 4,
        _ => 10,
    };
    header + length
}
