//! A second kind of worlds, in virtual time and from a seed: several loops that go down as one, and the ways in that the
//! [simulation](crate::sim) has not: connections of our own that are made again when they fail or end, adopted ones, and those of
//! proxies. Peers are few and simple, and so are the checks. Every loop is `adjourn::hub::Driver`.

mod app;
mod facts;
mod peers;
mod wires;

use std::{cell::RefCell, rc::Rc, time::Duration};

use adjourn::{
    CloseCode, CloseFrame, Config, ShutdownPlan,
    clients::Stats,
    config::ProxyProtocol,
    hub::{Driver, Newcomer, ShutdownRequest},
    shutdown::{Pace, ShutdownPhase},
};

use self::{
    app::App,
    facts::{Header, How, Item, World, at, micros},
    wires::Wires,
};
use crate::sim::{Failure, Rng};

impl Summary {
    /// Adds what another world had.
    pub const fn add(&mut self, other: Self) {
        self.worlds += other.worlds;
        self.loops += other.loops;
        self.opened += other.opened;
        self.connects += other.connects;
        self.failed += other.failed;
        self.timers += other.timers;
    }
}

/// Every shutdown is over by then, in microseconds.
const LIFETIME: u64 = 300_000_000;

struct Loop {
    driver: Driver<u32, Wires>,
    app: App,
    /// What the loops that go down with it have asked, and has not been applied.
    relayed: Vec<ShutdownRequest>,
    /// Open connections, as the other loops know it.
    published: usize,
}

/// What a world had.
#[derive(Clone, Copy, Debug, Default)]
pub struct Summary {
    /// Worlds.
    pub worlds: u64,
    /// Loops of them.
    pub loops: u64,
    /// Connections that were opened, in either role.
    pub opened: u64,
    /// Connects, and those that failed.
    pub connects: u64,
    /// Handshakes that failed, in either role.
    pub failed: u64,
    /// Timers that fired.
    pub timers: u64,
}

/// Lives through the world of this seed. Returns what it had, or the first check that failed.
///
/// # Errors
/// The first check that failed.
pub fn live(seed: u64, tracing: bool) -> Result<Summary, Failure> {
    let mut rng = Rng::with_seed(seed);
    let world = Rc::new(RefCell::new(World::new(rng.fork(), tracing)));
    let (config, proxies) = (config(&mut rng), proxies(&mut rng));
    let plan = plan(&mut rng);
    world.borrow_mut().begin(&config, proxies.as_ref(), plan.clone());
    let count = world.borrow().loops.len();
    let mut loops: Vec<_> = (0..count)
        .map(|number| Loop {
            driver: Driver::new(
                config.clone(),
                u8::try_from(number).unwrap_or(u8::MAX),
                rng.u64(..),
                Wires::new(Rc::clone(&world), number),
            ),
            app: App::new(Rc::clone(&world), number),
            relayed: Vec::new(),
            published: 0,
        })
        .collect();
    while let Some(now) = next(&loops, &world) {
        world.borrow_mut().go_to(now);
        let orders = world.borrow_mut().happen();
        for (number, item) in orders {
            pass(&mut loops[number], item, &world, proxies.as_ref());
        }
        for number in 0..loops.len() {
            if is_due(&loops[number], number, &world) {
                turn(&mut loops, number, &world);
            }
        }
        // A loop that was not asked would go on for ever.
        if world.borrow().failure.is_some() || now > LIFETIME {
            break;
        }
    }
    for one in &loops {
        let mut world = world.borrow_mut();
        let left = one.driver.stats();
        let done = one.driver.phase() == ShutdownPhase::Done;
        world.check("shutdown_reaches_every_loop", None, done, || format!("{:?}", one.driver.phase()));
        world.check("no_slot_lost", None, left == Stats::default(), || format!("{left:?}"));
    }
    let mut world = world.borrow_mut();
    world.check_end(&plan);
    world.failure.take().map_or(Ok(world.summary), Err)
}

/// When the next turn of any loop is.
fn next(loops: &[Loop], world: &Rc<RefCell<World>>) -> Option<u64> {
    let world = world.borrow();
    let mut next = world.next();
    for (number, one) in loops.iter().enumerate() {
        let done = one.driver.phase() == ShutdownPhase::Done && world.loops[number].done.is_some();
        let now = !world.loops[number].edges.is_empty() || !one.relayed.is_empty() || one.driver.has_more();
        let due = if now { Some(world.now) } else { one.driver.poll_timeout().map(micros) };
        next = [next, due.filter(|_| !done)].into_iter().flatten().min();
    }
    next.map(|at| at.next_multiple_of(1000).max(world.now))
}

fn is_due(one: &Loop, number: usize, world: &Rc<RefCell<World>>) -> bool {
    let world = world.borrow();
    let facts = &world.loops[number];
    let done = one.driver.phase() == ShutdownPhase::Done && facts.done.is_some();
    let due = one.driver.poll_timeout().is_some_and(|due| micros(due) <= world.now);
    let asked = !facts.edges.is_empty() || !facts.orders.is_empty() || !one.relayed.is_empty();
    !done && (due || asked || one.driver.has_more())
}

/// What comes to a loop from outside: a connection, a command, or what another loop was asked.
fn pass(one: &mut Loop, item: Item, world: &Rc<RefCell<World>>, proxies: Option<&ProxyProtocol>) {
    match item {
        Item::Relay(request) => one.relayed.push(request),
        Item::Arrive(link) => accept(one, link, world, proxies),
        item => world.borrow_mut().loops[one.app.number].orders.push(item),
    }
}

fn accept(one: &mut Loop, link: u32, world: &Rc<RefCell<World>>, proxies: Option<&ProxyProtocol>) {
    let (how, address) = {
        let world = world.borrow();
        let link = world.link(link);
        (link.how, link.from)
    };
    if how == How::Adopted {
        let tail = world.borrow_mut().tail(link);
        let adoption = adjourn::hub::Adoption::new(adjourn::http::Role::Server, link).received(tail);
        let adopted = one.driver.adopt(&Newcomer::tcp(address), adoption, |wires, slot| {
            wires.insert(slot, link);
            Ok(())
        });
        return world.borrow_mut().adopted(link, adopted);
    }
    if !one.driver.is_listening() {
        return;
    }
    let newcomer = Newcomer::tcp(address);
    let newcomer = match proxies {
        Some(settings) => newcomer.proxy_protocol(settings),
        None => newcomer,
    };
    let slot = one.driver.accept_newcomer(&newcomer);
    if let Some(slot) = slot {
        one.driver.transport().insert(slot, link);
        world.borrow_mut().accepted(link);
    }
}

fn turn(loops: &mut [Loop], number: usize, world: &Rc<RefCell<World>>) {
    let elsewhere: usize = loops.iter().map(|other| other.published).sum::<usize>() - loops[number].published;
    let Loop { driver, app, relayed, published } = &mut loops[number];
    let edges = world.borrow_mut().begin_turn(number);
    driver.begin_turn(app);
    for (slot, readiness) in edges {
        driver.ready(slot, readiness, app);
    }
    let orders = std::mem::take(&mut world.borrow_mut().loops[number].orders);
    for order in orders {
        driver.act(app, |clients, app| app.apply(clients, &order));
    }
    for request in relayed.drain(..) {
        driver.apply_request(request);
    }
    if !driver.is_ready() {
        driver.set_live_elsewhere(elsewhere);
    }
    driver.end_turn(app);
    *published = driver.stats().open;
    let requests = driver.take_requests();
    let mut world = world.borrow_mut();
    for request in requests {
        for other in (0..world.loops.len()).filter(|other| *other != number) {
            world.relay(other, request.clone());
        }
    }
    world.end_turn(number);
}

fn config(rng: &mut Rng) -> Config {
    let mut config = Config::default();
    let mut ms = |least: u64, most: u64| Duration::from_millis(rng.u64(least..most));
    config.connection.close_timeout = ms(100, 2000);
    config.connection.linger_timeout = ms(1, 500);
    config.handshake.handshake_timeout = ms(200, 3000);
    config.client.connect_timeout = ms(200, 3000);
    if rng.bool() {
        config.event_loop.max_connections_per_address = Some(rng.u32(1..6));
    }
    if rng.u8(..3) == 0 {
        config.event_loop.turn_callbacks = rng.u32(1..20);
    }
    if rng.u8(..3) == 0 {
        config.event_loop.read_buffer = rng.usize(1..200);
    }
    config
}

/// The listeners of half of the worlds are for proxies.
fn proxies(rng: &mut Rng) -> Option<ProxyProtocol> {
    let mut settings = ProxyProtocol::required_from(vec!["10.0.0.0/8".parse().expect("a range")]);
    settings.required = rng.bool();
    rng.bool().then_some(settings)
}

fn plan(rng: &mut Rng) -> ShutdownPlan {
    let mut plan = ShutdownPlan::default();
    plan.frame = CloseFrame::truncating(CloseCode::GOING_AWAY, "shutdown");
    plan.lame_duck = Duration::from_millis(if rng.bool() { 0 } else { rng.u64(..1000) });
    plan.grace = Duration::from_millis(rng.u64(..3000));
    plan.pace = match rng.u8(..4) {
        0 => Pace::AtOnce,
        1 => Pace::Spread(Duration::from_millis(rng.u64(..3000))),
        _ => Pace::Rate(f64::from(rng.u32(5..40))),
    };
    plan
}

impl Header {
    /// A header, or none.
    fn drawn(rng: &mut Rng) -> Self {
        [
            Self::None,
            Self::V1,
            Self::V1,
            Self::V2,
            Self::V2,
            Self::Local,
            Self::Unknown,
            Self::Cut,
            Self::Wrong,
        ][rng.usize(..9)]
    }
}

/// Where a client of a proxy, or one without, comes from: few addresses, so that a limit on each is reached.
fn client_address(link: u32) -> std::net::SocketAddr {
    at([192, 0, 2, u8::try_from(link % 3).unwrap_or(0)], link)
}
