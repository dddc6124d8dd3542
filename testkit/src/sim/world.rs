//! A world: a loop, which is the crate's own driver over links for sockets, its application, and the world outside; all
//! from one seed.

use std::{
    cell::RefCell,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    time::Duration,
};

use adjourn::{
    Client, Clients,
    clients::State,
    hub::{Driver, Readiness},
    shutdown::ShutdownPhase,
};

use super::{
    app::{App, Injected},
    chance::Rng,
    checker::{Checker, Failure, ensure},
    commands::Room,
    outside::{Outside, address, micros},
    scenario::{self, Behaviour, Size},
    tally::Tally,
    wire::Wire,
};

/// A world under way.
pub struct World {
    driver: Driver<u32, Wire>,
    app: App,
    outside: Rc<RefCell<Outside>>,
    rng: Rng,
    behaviour: Behaviour,
    /// A panic has cut the last turn short.
    cut: bool,
    turns: u64,
    /// Turns without time going on, or a byte.
    spins: u64,
}

/// Lives through the world of these choices. Returns what happened, or the first check that failed.
pub fn live(
    rng: Rng,
    size: Size,
    tracing: bool,
    progress: &mut dyn FnMut(u64, &Checker),
) -> Result<Tally, Failure> {
    let run = catch_unwind(AssertUnwindSafe(|| {
        let mut world = World::new(rng, size, tracing);
        world.run(progress);
        let outside = &mut *world.outside.borrow_mut();
        let checker = &mut outside.checker;
        checker.tally.worlds = 1;
        checker.tally.connections = u64::from(size.connections);
        checker.tally.turns = world.turns;
        checker.tally.lived = Duration::from_micros(outside.now);
        match checker.failure.take() {
            Some(failure) => Err(failure),
            None => Ok(std::mem::take(&mut checker.tally)),
        }
    }));
    run.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").to_owned();
        Err(Failure { check: "nothing_panics", text, at: 0, connection: None })
    })
}

impl World {
    fn new(mut rng: Rng, size: Size, tracing: bool) -> Self {
        let config = scenario::config(&mut rng, size);
        let plan = scenario::plan(&mut rng, size);
        if tracing {
            eprintln!("CONFIG {config:?}");
        }
        let seed = rng.u64(..);
        let checker = Checker::new(config.clone(), size.connections as usize, tracing);
        let outside = Outside::new(size, checker, rng.fork(), config.connection.max_payload);
        let outside = Rc::new(RefCell::new(outside));
        let mut app = App::new(Rc::clone(&outside), rng.fork(), plan);
        let behaviour = scenario::behaviour(&mut rng, size);
        app.behaviour = behaviour;
        if !size.crowd {
            app.command_percent = [0, 5, 20, 50][rng.usize(..4)];
            app.echo = [0, 30, 100][rng.usize(..3)];
            app.sweeps_left = rng.u32(..6);
            app.may_shut_down = size.shutdown != Some(false) && rng.u8(..3) == 0;
            if behaviour.hostile {
                (app.command_percent, app.sweeps_left) = (100, 30);
            }
        }
        Self {
            driver: Driver::new(config, 0, seed, Wire::new(Rc::clone(&outside))),
            app,
            outside,
            behaviour,
            cut: false,
            rng,
            turns: 0,
            spins: 0,
        }
    }

    fn run(&mut self, progress: &mut dyn FnMut(u64, &Checker)) {
        while self.outside.borrow().checker.failure.is_none() {
            let told = self.outside.borrow().checker.phase;
            if self.driver.phase() == ShutdownPhase::Done && told == ShutdownPhase::Done {
                return self.end();
            }
            let Some(wake) = self.next_wake() else { return self.end() };
            let most = self.behaviour.late;
            let late = if most > 0 && self.rng.u8(..8) == 0 { self.rng.u64(..most) * 1000 } else { 0 };
            self.begin_turn(wake, late);
            self.cut = self.turn().is_none();
            if !self.cut {
                self.check_turn();
            }
            self.turns += 1;
            if self.turns.is_multiple_of(1024) {
                let outside = self.outside.borrow();
                progress(outside.now, &outside.checker);
            }
        }
    }

    /// When the next turn is: when something happens, or when the loop says.
    fn next_wake(&self) -> Option<u64> {
        let outside = self.outside.borrow();
        if self.cut || self.driver.has_more() || !outside.edges.is_empty() {
            return Some(outside.checker.now);
        }
        let due = self.driver.poll_timeout().map(micros);
        let next = [outside.next(), due].into_iter().flatten().min();
        next.map(|at| at.next_multiple_of(1000).max(outside.checker.now))
    }

    fn begin_turn(&mut self, wake: u64, late: u64) {
        let outside = &mut *self.outside.borrow_mut();
        outside.checker.check_wake(wake);
        // A callback may have taken longer.
        let wake = wake.max(outside.now);
        outside.checker.late += late;
        let busy = std::mem::take(&mut outside.moved);
        self.spins = if wake + late == outside.now && !busy { self.spins + 1 } else { 0 };
        let endless = self.spins > 10_000 + 4 * u64::from(outside.size.connections);
        let text =
            format!("{} turns at one moment; due {:?}", self.spins, self.driver.poll_timeout().map(micros));
        ensure!(outside.checker, None, "time_goes_on", !endless, "{text}");
        outside.now = wake + late;
        outside.happen();
    }

    /// One turn. `None` if a callback has panicked: what is left of it is for the next one.
    fn turn(&mut self) -> Option<()> {
        let orders = std::mem::take(&mut self.outside.borrow_mut().orders);
        let (before, within): (Vec<_>, Vec<_>) = orders.into_iter().partition(|_| self.rng.bool());
        for order in before {
            let clients = &mut self.driver.clients();
            let checker = &mut self.outside.borrow_mut().checker;
            self.app.apply_order(checker, clients, order);
        }
        self.outside.borrow_mut().checker.begin_turn();
        self.outside.borrow_mut().orders.extend(within);
        if !self.outside.borrow().size.crowd {
            self.rng.shuffle(&mut self.outside.borrow_mut().edges);
        }
        self.outside.borrow_mut().edges.reverse();
        self.go_on(Driver::begin_turn)?;
        // What is told while a callback runs is for the next wait.
        let told = self.outside.borrow().edges.len();
        for left in (0..told).rev() {
            let edge = self.outside.borrow_mut().edges.swap_remove(left);
            let Some(slot) = self.outside.borrow().links[edge.conn as usize].slot else { continue };
            let readiness = Readiness { readable: edge.readable, writable: edge.writable, ended: edge.ended };
            self.outside.borrow_mut().checker.touch(edge.conn);
            self.go_on(|driver, app| driver.ready(slot as usize, readiness, app))?;
        }
        let arrivals = std::mem::take(&mut self.outside.borrow_mut().arrivals);
        for conn in arrivals {
            self.accept(conn);
        }
        let orders = std::mem::take(&mut self.outside.borrow_mut().orders);
        for order in orders {
            let outside = Rc::clone(&self.outside);
            self.go_on(|driver, app| {
                driver.act(app, |clients, app| {
                    app.apply_order(&mut outside.borrow_mut().checker, clients, order);
                });
            })?;
        }
        self.outside.borrow_mut().checker.grant();
        self.go_on(Driver::end_turn)
    }

    /// Lets the loop go on; `None` if a callback has panicked.
    fn go_on(&mut self, act: impl FnOnce(&mut Driver<u32, Wire>, &mut App)) -> Option<()> {
        let Self { driver, app, .. } = self;
        match catch_unwind(AssertUnwindSafe(|| act(driver, app))) {
            Ok(()) => Some(()),
            Err(panic) if panic.is::<Injected>() => None,
            Err(panic) => resume_unwind(panic),
        }
    }

    fn accept(&mut self, conn: u32) {
        let slot = self.driver.is_listening().then(|| self.driver.accept(address(conn))).flatten();
        let outside = &mut *self.outside.borrow_mut();
        match slot {
            Some(slot) => outside.accepted(conn, slot),
            None => outside.links[conn as usize].server_gone = true,
        }
    }

    // After every turn.

    fn check_turn(&mut self) {
        let has_more = self.driver.has_more();
        let due = self.driver.poll_timeout().map(micros);
        let clients = self.driver.clients();
        let outside = &mut *self.outside.borrow_mut();
        let touched = std::mem::take(&mut outside.checker.touched);
        for &conn in &touched {
            let client = outside.checker.of(conn).id.and_then(|id| clients.get(id));
            if let Some(client) = client.filter(|client| client.state().is_established()) {
                outside.checker.of(conn).owed |= client.buffered_amount() > 0;
            }
        }
        outside.check_handed();
        outside.checker.end_turn(has_more, due);
        let (held, answers) = (clients.stats().backlog_total, clients.stats().connecting > 0);
        let has_owner =
            held == 0 || answers || has_more || clients.iter().any(|client| client.owns_buffers());
        ensure!(outside.checker, None, "backlogs_are_given_back", has_owner, "{held} bytes of nobody");
        if !has_more {
            check_room(&clients, &mut outside.checker);
        }
        for conn in touched {
            outside.checker.of(conn).touched = false;
            if has_more {
                // What is left of it is for the next turn.
                outside.checker.touch(conn);
            } else {
                let told = outside.edges.iter().any(|edge| edge.conn == conn);
                check_connection(&clients, outside, conn, told);
            }
        }
    }

    fn end(&mut self) {
        let outside = &mut *self.outside.borrow_mut();
        if let Some(report) = self.driver.shutdown_report() {
            outside.checker.check_shutdown_report(report);
        }
        let timeout = self.driver.poll_timeout().map(micros);
        outside.checker.check_end(&self.driver.loop_stats(), timeout);
    }
}

/// Who was refused for what others had queued has been told, if there is room now.
fn check_room(clients: &Clients<'_, u32>, checker: &mut Checker) {
    if checker.config.event_loop.max_backlog_total.is_none() {
        return;
    }
    let room = Room::of_all(checker, clients);
    for conn in 0..u32::try_from(checker.facts.len()).unwrap_or(u32::MAX) {
        let facts = checker.of(conn);
        if let (Some(State::Open), Some(id), Some(frame)) = (facts.state, facts.id, facts.awaits_room) {
            // One that has a backlog now gets its `Drain` at the end of that.
            let quiet = |client: Client<'_, u32>| client.state() == State::Open && client.backlog() == 0;
            let waits = clients.get(id).is_some_and(quiet) && room.must_fit(frame);
            ensure!(checker, conn, "who_waits_for_room_gets_it", !waits, "{frame} bytes; {room:?}");
        }
    }
}

/// What must be true of a connection when the loop is about to wait. `told`: the kernel has news of it.
fn check_connection(clients: &Clients<'_, u32>, outside: &mut Outside, conn: u32, told: bool) {
    outside.checker.settle(conn);
    outside.checker.give_up(conn);
    let facts = &outside.checker.facts[conn as usize];
    let (Some(id), Some(_), Some(state)) = (facts.id, outside.links[conn as usize].slot, facts.state) else {
        return;
    };
    let client = clients.get(id);
    let seen = client.as_ref().map(Client::state);
    let (queued, owns) =
        client.map_or((0, false), |client| (client.buffered_amount(), client.owns_buffers()));
    let expected = Some(state).filter(|_| state.is_established());
    let (link, checker) = (&outside.links[conn as usize], &mut outside.checker);
    ensure!(checker, conn, "state_is_as_expected", seen == expected, "{seen:?} instead of {expected:?}");
    if !state.is_established() {
        return;
    }
    let held = clients.stats().backlog_total;
    ensure!(
        checker,
        conn,
        "backlogs_are_counted",
        queued <= held,
        "{queued} bytes are queued, {held} in all"
    );
    let stuck = queued > 0 && !told && !link.is_awaited() && !link.is_dead();
    let (open, owed) = (state == State::Open, checker.of(conn).owed);
    let waits = open && owed && queued == 0;
    ensure!(checker, conn, "an_owed_drain_comes", !waits, "all is written");
    ensure!(checker, conn, "what_fits_is_written", !stuck, "{queued} bytes are queued");
    let facts = &checker.facts[conn as usize];
    let (busy, paused, eof) = (facts.busy.as_ref(), facts.paused, facts.eof || facts.eof_read);
    let discards = facts.discards;
    let reads = !(eof || state == State::Open && paused && !discards);
    let held_by_layer = link.records.as_ref().is_some_and(|records| records.holds());
    let unread = held_by_layer || link.up.arrived() > 0 && !link.is_dead();
    let end_unread = link.up.fin_arrived() && !eof && !link.is_dead();
    let held = busy.is_some_and(|busy| !busy.held.is_empty());
    let quiet = queued == 0 && !held && busy.is_none_or(|busy| busy.inbound.is_idle());
    let keeps = state == State::Open && quiet && owns;
    ensure!(
        checker,
        conn,
        "input_is_not_forgotten",
        told || !(reads && (unread || end_unread)),
        "{} bytes, FIN: {end_unread}",
        link.up.arrived()
    );
    ensure!(checker, conn, "a_quiet_one_owns_nothing", !keeps, "it owns a buffer");
    if queued == 0 {
        checker.check_control_frames(conn);
    }
}
