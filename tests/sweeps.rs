//! Sweeps and shutdowns in virtual time. The kernel takes everything, and peers say only what a test says.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use adjourn::{
    Clients, CloseFrame, Config, ConnectionId, Event, Handler, ShutdownPlan, Time,
    http::{Response, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
    shutdown::{
        Escalation, LameDuckPolicy, ListenerInShutdown, Pace, ShutdownPhase, ShutdownReport, SweepReport,
    },
    testing::{Clock, Memory, REQUEST, Socket},
};

const SECOND: Duration = Duration::from_secs(1);

/// Accepts every upgrade, answers plain HTTP, and writes down what happened.
struct App {
    clock: Clock,
    /// Who was closed by us, and when.
    closings: Vec<(Duration, ConnectionId)>,
    phases: Vec<ShutdownPhase>,
    sweeps: Vec<SweepReport>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        if request.path() == "/health" {
            Upgrade::Answer(Response::new(200).expect("a status"))
        } else {
            Upgrade::accept(())
        }
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        match event {
            Event::Closing { id, .. } => self.closings.push((self.clock.now(), id)),
            Event::Phase { phase, .. } => self.phases.push(phase),
            Event::SweepDone { report, .. } => self.sweeps.push(report),
            _ => {}
        }
    }
}

/// A loop in memory, and what happened.
struct World {
    driver: Driver<(), Memory>,
    clock: Clock,
    app: App,
}

impl World {
    fn new(connections: usize) -> Self {
        let mut config = Config::default();
        config.connection.heartbeat.interval = None;
        Self::with(config, connections)
    }

    fn with(config: Config, connections: usize) -> Self {
        let clock = Clock::default();
        clock.pass(SECOND);
        let app = App { clock: clock.clone(), closings: Vec::new(), phases: Vec::new(), sweeps: Vec::new() };
        let mut world = Self { driver: Driver::new(config, 0, 7, Memory::new(&clock)), clock, app };
        for _ in 0..connections {
            world.open();
        }
        world.turn();
        world
    }

    fn accept(&mut self) -> usize {
        let slot = self.driver.accept(([127, 0, 0, 1], 40_000).into()).expect("there is room");
        *self.driver.transport().socket(slot) = Socket::default();
        slot
    }

    fn request(&mut self, slot: usize) {
        self.read(slot, REQUEST);
    }

    fn read(&mut self, slot: usize, bytes: &[u8]) {
        self.driver.transport().socket(slot).input.extend_from_slice(bytes);
        self.turn_with(&[(slot, Readiness { readable: true, ..Readiness::default() })]);
    }

    fn open(&mut self) -> usize {
        let slot = self.accept();
        self.request(slot);
        slot
    }

    /// The peers of these leave, without a Close.
    fn leave(&mut self, slots: impl IntoIterator<Item = usize>) {
        let ended = Readiness { readable: true, ended: true, ..Readiness::default() };
        let ready: Vec<_> = slots.into_iter().map(|slot| (slot, ended)).collect();
        for (slot, _) in &ready {
            self.driver.transport().socket(*slot).eof = true;
        }
        self.turn_with(&ready);
    }

    fn turn(&mut self) {
        self.turn_with(&[]);
    }

    fn turn_with(&mut self, ready: &[(usize, Readiness)]) {
        self.driver.begin_turn(&mut self.app);
        for (slot, readiness) in ready {
            self.driver.ready(*slot, *readiness, &mut self.app);
        }
        self.driver.end_turn(&mut self.app);
    }

    /// Lets time pass, one turn for each moment at which the loop asks for one.
    fn pass(&mut self, by: Duration) {
        let until = self.clock.now() + by;
        loop {
            let due = self.driver.poll_timeout().map(|due| due.since(Time::ZERO));
            let due = due.filter(|due| *due <= until);
            // A turn takes time; or else what is due again and again would stop the clock.
            let step = due.unwrap_or(until).saturating_sub(self.clock.now()).max(Duration::from_micros(1));
            self.clock.pass(step);
            self.turn();
            if due.is_none() || self.driver.phase() == ShutdownPhase::Done {
                return;
            }
        }
    }

    fn shut_down(&mut self, change: impl FnOnce(&mut ShutdownPlan)) {
        let mut plan = ShutdownPlan::default();
        change(&mut plan);
        self.driver.clients().shutdown(plan);
    }

    fn report(&self) -> &ShutdownReport {
        self.driver.shutdown_report().expect("it is done")
    }

    fn answer(&mut self, slot: usize) -> String {
        String::from_utf8_lossy(&self.driver.transport().socket(slot).written).into_owned()
    }
}

#[test]
fn a_paced_shutdown_waited_for_connections_that_were_gone() {
    for pace in [Pace::Spread(300 * SECOND), Pace::Rate(0.1)] {
        let mut world = World::new(20);
        world.shut_down(|plan| plan.pace = pace);
        world.pass(SECOND);
        world.leave(0..20);
        world.pass(5 * SECOND);
        assert!(world.report().took <= 4 * SECOND, "{pace:?}: {:?}", world.report().took);
    }
}

#[test]
fn a_second_shutdown_with_a_shorter_pace_was_ignored() {
    let rows = [
        (Pace::Spread(100 * SECOND), Pace::Spread(10 * SECOND), 10),
        (Pace::Spread(100 * SECOND), Pace::Rate(4.0), 5),
        (Pace::Rate(0.2), Pace::Rate(2.0), 10),
        (Pace::Rate(0.2), Pace::Spread(10 * SECOND), 10),
        (Pace::Rate(0.2), Pace::AtOnce, 0),
    ];
    for (first, second, seconds) in rows {
        for lame_duck in [Duration::ZERO, 60 * SECOND] {
            let mut world = World::new(20);
            world.shut_down(|plan| (plan.pace, plan.lame_duck) = (first, lame_duck));
            if lame_duck.is_zero() {
                world.pass(Duration::from_millis(10));
                assert_eq!(world.driver.phase(), ShutdownPhase::SoftSweep);
            }
            let asked = world.clock.now() + lame_duck;
            world.shut_down(|plan| (plan.pace, plan.lame_duck) = (second, lame_duck));
            world.pass(lame_duck + 200 * SECOND);
            assert_eq!(world.app.closings.len(), 20, "{first:?}, {second:?}");
            let last = world.app.closings.last().expect("twenty").0.saturating_sub(asked);
            assert!(
                last <= seconds * SECOND + Duration::from_millis(1),
                "{first:?}, {second:?}: the last after {last:?}"
            );
            assert!(second == Pace::AtOnce || last > seconds * SECOND / 2, "{last:?}: still a pace");
            assert_eq!(world.report().escalated_by, Some(Escalation::Shutdown));
        }
    }
}

#[test]
fn a_second_shutdown_with_a_longer_pace_changes_nothing() {
    let rows = [
        (Pace::AtOnce, Pace::Rate(1.0)),
        (Pace::Spread(10 * SECOND), Pace::Spread(100 * SECOND)),
        (Pace::Spread(10 * SECOND), Pace::Rate(1.0)),
        (Pace::Rate(2.0), Pace::Rate(1.0)),
        (Pace::Rate(2.0), Pace::Spread(100 * SECOND)),
    ];
    for (first, second) in rows {
        let mut world = World::new(20);
        world.shut_down(|plan| plan.pace = first);
        world.pass(Duration::from_millis(10));
        let asked = world.clock.now();
        world.shut_down(|plan| plan.pace = second);
        world.pass(100 * SECOND);
        let last = world.app.closings.last().expect("twenty").0.saturating_sub(asked);
        assert!(last <= 10 * SECOND, "{first:?}, {second:?}: the last after {last:?}");
        assert_eq!(world.report().escalated_by, None, "{first:?}, {second:?}");
    }
}

#[test]
fn a_hub_was_ready_until_the_turn_of_its_shutdown_ended() {
    use LameDuckPolicy::{Close, HandOver, Refuse, Serve};
    let rows = [
        (Duration::ZERO, Refuse, 503),
        (Duration::ZERO, Serve, 503),
        (SECOND, Refuse, 503),
        (SECOND, Close, 503),
        (SECOND, Serve, 101),
        (SECOND, HandOver, 101),
        (Duration::ZERO, HandOver, 503),
    ];
    for (lame_duck, listeners, status) in rows {
        let mut world = World::new(0);
        let slot = world.accept();
        world.shut_down(|plan| (plan.lame_duck, plan.listeners) = (lame_duck, listeners));
        assert!(!world.driver.is_ready() && !world.driver.clients().is_ready());
        world.request(slot);
        world.turn();
        let answer = world.answer(slot);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lame_duck:?}, {listeners:?}: {answer}");
    }
}

#[test]
fn a_sweep_included_one_that_opened_later_in_the_same_turn() {
    let mut world = World::new(0);
    let (early, late) = (world.open(), world.accept());
    world.driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| true);
    world.request(late);
    world.turn();
    let closed: Vec<_> = world.app.closings.iter().map(|(_, id)| id.slot()).collect();
    assert_eq!(closed, [early]);
}

#[test]
fn a_predicate_that_panics_loses_no_sweep_and_no_shutdown() {
    let mut config = Config::default();
    (config.event_loop.sweep_slice, config.connection.heartbeat.interval) = (4, None);
    let mut world = World::with(config, 20);
    world.driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |client| {
        assert!(client.id().slot() != 3, "this is what the test wants");
        client.id().slot() < 10
    });
    world.driver.clients().close_where(CloseFrame::NORMAL, Pace::AtOnce, |client| client.id().slot() == 15);
    world.shut_down(|plan| plan.lame_duck = 5 * SECOND);
    let mut panics = 0;
    for _ in 0..20 {
        world.clock.pass(Duration::from_millis(1));
        panics += u32::from(catch_unwind(AssertUnwindSafe(|| world.turn())).is_err());
    }
    assert_eq!(panics, 1, "one connection is asked about once");
    let mut closed: Vec<_> = world.app.closings.iter().map(|(_, id)| id.slot()).collect();
    closed.sort_unstable();
    assert_eq!(closed, [0, 1, 2, 4, 5, 6, 7, 8, 9, 15]);
    world.leave(0..20);
    let matched: Vec<_> = world.app.sweeps.iter().map(|report| report.matched).collect();
    assert_eq!(matched, [9, 1]);
    world.pass(20 * SECOND);
    assert_eq!(world.report().ended(), 20);
}

#[test]
fn a_predicate_that_panics_every_time_holds_nothing_up() {
    let mut world = World::new(50);
    world
        .driver
        .clients()
        .close_where(CloseFrame::NORMAL, Pace::AtOnce, |_| panic!("this is what the test wants"));
    world.shut_down(|plan| plan.grace = SECOND);
    for _ in 0..10 {
        world.clock.pass(Duration::from_millis(1));
        let _ = catch_unwind(AssertUnwindSafe(|| world.turn()));
    }
    assert_eq!(world.app.closings.len(), 50, "all have got the Close of the shutdown");
}

#[test]
fn plain_http_is_served_until_the_hard_sweep_is_over() {
    const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for listener in [ListenerInShutdown::PlainHttp, ListenerInShutdown::Close] {
        let mut config = Config::default();
        config.event_loop.sweep_slice = 1;
        let mut world = World::with(config, 6);
        world.shut_down(|plan| plan.listener_in_shutdown = listener);
        world.driver.clients().abort();
        world.turn();
        assert_eq!(world.driver.phase(), ShutdownPhase::HardSweep);
        assert_eq!(world.driver.is_listening(), listener == ListenerInShutdown::PlainHttp);
        if !world.driver.is_listening() {
            continue;
        }
        // While the sweep has others to end, these are served, and a flood of them does not prolong it.
        let (mut turns, mut answered) = (0, 0);
        while world.driver.is_listening() {
            let slot = world.accept();
            world.read(slot, HEALTH);
            world.turn();
            answered += usize::from(world.answer(slot).starts_with("HTTP/1.1 200 "));
            turns += 1;
            assert!(turns < 30, "the newcomers hold it up");
        }
        assert!(answered >= 2, "{answered} of {turns}");
        for _ in 0..40 {
            world.turn();
        }
        assert_eq!((world.driver.phase(), world.driver.stats().total()), (ShutdownPhase::Done, 0));
        assert_eq!(world.report().terminated, 6);
    }
}

#[test]
fn a_listener_for_plain_http_stays_and_holds_nothing_up() {
    const HEALTH: &[u8] = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let mut world = World::new(3);
    world.shut_down(|plan| plan.listener_in_shutdown = ListenerInShutdown::PlainHttp);
    world.turn();
    // Accepted while the soft sweep looks for silent connections, and afterwards.
    let (early, late) = (world.accept(), world.accept());
    world.turn();
    assert_eq!((world.driver.phase(), world.driver.is_listening()), (ShutdownPhase::Grace, true));
    for (slot, request, status) in [(early, HEALTH, 200), (late, REQUEST, 503)] {
        world.read(slot, request);
        world.turn();
        let answer = world.answer(slot);
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    }
    world.pass(SECOND);
    // One lingers, one is silent, one is in the middle of its request: none of them matters.
    let (silent, slow) = (world.accept(), world.accept());
    world.read(slow, &HEALTH[..10]);
    world.turn();
    assert_ne!(silent, slow);
    assert_eq!((world.driver.phase(), world.driver.stats().total()), (ShutdownPhase::Grace, 7));
    world.leave(0..3);
    for _ in 0..6 {
        world.turn();
    }
    assert_eq!(
        (world.driver.phase(), world.driver.stats().total(), world.driver.is_listening()),
        (ShutdownPhase::Done, 0, false)
    );
    let report = world.report();
    assert_eq!(
        (report.refused_503, report.handshakes_cut, report.live_at_start, report.by_peer),
        (1, 2, 3, 3)
    );
}
