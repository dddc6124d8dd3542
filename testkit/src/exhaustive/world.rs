//! One world: two cores, two kernels, two links, and the commands that lead through it.

use std::{cell::RefCell, rc::Rc, time::Duration};

use adjourn::{
    Clients, CloseCode, CloseFrame, Config, ConnectionId, Event, Handler, Time,
    clients::{State, Stats},
    config::Heartbeat,
    http::{ConnectRequest, Upgrade, UpgradeRequest},
    hub::{Driver, Readiness},
};

use super::{
    facts::{Facts, LAST, PLAIN, Timers},
    wire::{CLIENT, End, Kernel, Net, SERVER, Shared, name},
};

/// What can happen next. A number is a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    Send(usize),
    Close(usize),
    /// The server's drops its queue first, the client's does not.
    Kick(usize),
    Terminate(usize),
    /// Pauses, or resumes if it is paused.
    Pause(usize),
    /// What is on the link to this side arrives, and its core is notified.
    Deliver(usize),
    /// It arrives, and the core is not notified yet: its loop is busy elsewhere.
    Arrive(usize),
    /// The kernel of this side has room for as many writes as its link holds, for one at least, and its core is notified.
    Room(usize),
    /// There is room, and the core is not notified yet.
    Free(usize),
    /// It has room for three bytes.
    Crack(usize),
    /// The peer of this side half-closes: FIN is on the link.
    Fin(usize),
    /// An invalid Close is on the link to this side.
    Invalid(usize),
    /// The network resets the connection: both sides are about to learn it.
    Reset,
    /// Time passes until the earliest deadline of either core.
    Deadline,
}

impl Command {
    pub(super) const ALL: [Self; 26] = {
        use Command as C;
        [
            C::Deliver(SERVER),
            C::Deliver(CLIENT),
            C::Arrive(SERVER),
            C::Arrive(CLIENT),
            C::Send(SERVER),
            C::Send(CLIENT),
            C::Close(SERVER),
            C::Close(CLIENT),
            C::Kick(SERVER),
            C::Kick(CLIENT),
            C::Terminate(SERVER),
            C::Terminate(CLIENT),
            C::Pause(SERVER),
            C::Pause(CLIENT),
            C::Room(SERVER),
            C::Room(CLIENT),
            C::Free(SERVER),
            C::Free(CLIENT),
            C::Crack(SERVER),
            C::Crack(CLIENT),
            C::Fin(SERVER),
            C::Fin(CLIENT),
            C::Invalid(SERVER),
            C::Invalid(CLIENT),
            C::Reset,
            C::Deadline,
        ]
    };

    /// The command without its side.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Send(_) => "send",
            Self::Close(_) => "close",
            Self::Kick(_) => "kick",
            Self::Terminate(_) => "terminate",
            Self::Pause(_) => "pause",
            Self::Deliver(_) => "deliver",
            Self::Arrive(_) => "arrive",
            Self::Room(_) => "room",
            Self::Free(_) => "free",
            Self::Crack(_) => "crack",
            Self::Fin(_) => "fin",
            Self::Invalid(_) => "invalid",
            Self::Reset => "reset",
            Self::Deadline => "deadline",
        }
    }

    /// Whether the application asks for it, which may be refused.
    pub(super) const fn is_asked(self) -> bool {
        matches!(self, Self::Send(_) | Self::Close(_) | Self::Kick(_) | Self::Terminate(_))
    }

    /// Touches nothing but its side's core and kernel and the end of the link from there, and reads no link.
    const fn is_one_sided(self) -> Option<usize> {
        match self {
            Self::Send(side)
            | Self::Close(side)
            | Self::Kick(side)
            | Self::Terminate(side)
            | Self::Pause(side)
            | Self::Room(side)
            | Self::Free(side)
            | Self::Crack(side) => Some(side),
            Self::Deliver(_)
            | Self::Arrive(_)
            | Self::Fin(_)
            | Self::Invalid(_)
            | Self::Reset
            | Self::Deadline => None,
        }
    }

    /// Whether this after `before` leads to the same as the other way round, and that is tried too.
    pub(super) const fn is_needless_after(self, before: Self) -> bool {
        matches!((before.is_one_sided(), self.is_one_sided()), (Some(CLIENT), Some(SERVER)))
    }

    /// The sides whose state it may change.
    pub(super) const fn sides(self) -> &'static [usize] {
        match self {
            Self::Send(side)
            | Self::Close(side)
            | Self::Kick(side)
            | Self::Terminate(side)
            | Self::Pause(side)
            | Self::Deliver(side)
            | Self::Arrive(side)
            | Self::Room(side)
            | Self::Free(side)
            | Self::Crack(side)
            | Self::Fin(side)
            | Self::Invalid(side) => {
                if side == SERVER {
                    &[SERVER]
                } else {
                    &[CLIENT]
                }
            }
            Self::Reset | Self::Deadline => &[SERVER, CLIENT],
        }
    }
}

/// Writes that the links hold: from the server, from the client.
pub(super) type Capacities = [usize; 2];

pub(super) struct World {
    pub(super) net: Shared,
    cores: [Core; 2],
    capacities: Capacities,
    /// Messages are numbered.
    sent: [u8; 2],
}

struct Core {
    driver: Driver<(), Kernel>,
    app: App,
    slot: usize,
    id: Option<ConnectionId>,
}

/// Passes its events to the side's facts.
struct App {
    net: Shared,
    side: usize,
    id: Option<ConnectionId>,
}

impl Handler for App {
    type Data = ();

    fn on_upgrade<'r>(&mut self, _: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        Upgrade::accept(())
    }

    fn on_event(&mut self, _: &mut Clients<'_, ()>, event: Event<'_>) {
        let net = &mut *self.net.borrow_mut();
        net.note(|| format!("{} gets {event:?}", name(self.side)));
        let (unread, room) = (net.has_unread(self.side), net.ends[self.side].room > 0);
        let verdict = net.facts[self.side].event(&event, unread, room, net.now);
        net.require(self.side, verdict);
        if let Event::Open { id } = event {
            self.id = Some(id);
        }
    }
}

const SECOND: u64 = 1_000_000;
/// No two of them, and no sums, are equal: who is due is never a matter of order.
const TIMERS: [Timers; 2] = [
    Timers {
        close: 10 * SECOND,
        flush: 5 * SECOND,
        linger: 2 * SECOND,
        stall: 23 * SECOND,
        heartbeat: Some((31 * SECOND, 19 * SECOND)),
    },
    Timers { close: 7 * SECOND, flush: 3 * SECOND, linger: 4 * SECOND, stall: 13 * SECOND, heartbeat: None },
];

fn config(side: usize) -> Config {
    let (mut config, timers) = (Config::default(), TIMERS[side]);
    let time = Duration::from_micros;
    config.connection.close_timeout = time(timers.close);
    config.connection.flush_budget = Some(time(timers.flush));
    config.connection.linger_timeout = time(timers.linger);
    config.connection.stall_timeout = Some(time(timers.stall));
    let (interval, timeout) = timers.heartbeat.unzip();
    config.connection.heartbeat =
        Heartbeat { interval: interval.map(time), timeout: timeout.map_or(Duration::ZERO, time) };
    config.event_loop.read_buffer = 1 << 10;
    config
}

/// With which frame a side closes; the client's is empty.
fn frame(side: usize) -> CloseFrame {
    if side == SERVER { CloseFrame::GOING_AWAY } else { CloseFrame::EMPTY }
}

/// With which frame it kicks.
fn last_frame(side: usize) -> CloseFrame {
    let code = if side == SERVER { 3000 } else { 4000 };
    CloseFrame::of(CloseCode::new(code).expect("a code for applications"))
}

/// A Close with 1005, which must not be on the wire (§7.4.1); masked by zeros where a mask must be.
const INVALID: [&[u8]; 2] = [&[0x88, 0x82, 0, 0, 0, 0, 0x03, 0xED], &[0x88, 0x02, 0x03, 0xED]];

/// More than any world needs.
const MANY: usize = 100;

impl World {
    /// Both cores, with an open connection between them.
    pub(super) fn new(capacities: Capacities, trace: bool) -> Self {
        let end = || End { room: usize::MAX, ..End::default() };
        let facts = |side: usize| Facts::new(TIMERS[side]);
        let net = Rc::new(RefCell::new(Net {
            now: 0,
            ends: [end(), end()],
            facts: [facts(SERVER), facts(CLIENT)],
            failure: None,
            trace: None,
            activity: 0,
        }));
        let core = |side: usize| {
            let kernel = Kernel { net: Rc::clone(&net), side };
            let app = App { net: Rc::clone(&net), side, id: None };
            Core { driver: Driver::new(config(side), 0, 1 + side as u64, kernel), app, slot: 0, id: None }
        };
        let cores = [core(SERVER), core(CLIENT)];
        let mut world = Self { net, cores, capacities, sent: [0; 2] };
        world.shake_hands();
        for side in [SERVER, CLIENT] {
            let net = &mut *world.net.borrow_mut();
            net.facts[side].handshaken();
            net.ends[side].room = capacities[side];
            net.trace = trace.then(Vec::new);
        }
        world
    }

    fn shake_hands(&mut self) {
        let request = ConnectRequest::new("ws://127.0.0.1:9/").expect("a URL");
        let [server, client] = &mut self.cores;
        let id = client.driver.connect(request, ()).expect("room for one");
        client.slot = id.slot();
        server.slot = server.driver.accept(([127, 0, 0, 1], 40_000).into()).expect("room for one");
        self.turn(CLIENT, None);
        self.turn(CLIENT, Some(Readiness { writable: true, ..Readiness::default() }));
        self.deliver(SERVER);
        self.deliver(CLIENT);
        for core in &mut self.cores {
            core.id = core.app.id;
        }
    }

    /// Whether a command does anything here. What an application asks for in vain does not.
    pub(super) fn is_live(&mut self, command: Command) -> bool {
        let due = self.due();
        let net = self.net.borrow();
        let (ends, facts) = (&net.ends, &net.facts);
        let takes = |side: usize| !ends[side].closed && !ends[side].fin_sent;
        let is_joined = |side: usize| !ends[side].link_fin && !ends[side].link_reset && !ends[side].closed;
        match command {
            Command::Send(side) | Command::Close(side) | Command::Kick(side) => facts[side].is_open(),
            Command::Terminate(side) | Command::Pause(side) => facts[side].is_established(),
            Command::Deliver(side) => net.is_loaded(side),
            Command::Arrive(side) => net.is_loaded(side) && !ends[side].closed && !ends[side].edge,
            Command::Room(side) => {
                let full = ends[side].room < self.capacities[side].max(1);
                takes(side) && (full || ends[side].waiting)
            }
            Command::Free(side) | Command::Crack(side) => {
                takes(side) && ends[side].waiting && ends[side].room == 0
            }
            Command::Fin(side) => is_joined(side),
            Command::Invalid(side) => {
                let out = &facts[1 - side].out;
                is_joined(side) && out.cut.is_empty() && out.close.is_none()
            }
            Command::Reset => ends.iter().any(|end| !end.link_reset && !end.closed),
            Command::Deadline => due.is_some(),
        }
    }

    /// Lets a command happen.
    pub(super) fn apply(&mut self, command: Command) {
        self.net.borrow_mut().note(|| format!("{command:?}"));
        match command {
            Command::Send(side) => self.send(side),
            Command::Close(side) => self.close(side, frame(side)),
            Command::Kick(side) => self.kick(side),
            Command::Terminate(side) => self.ask(side, b'T', |clients, id, facts, _| {
                facts.terminated(id.is_some_and(|id| clients.terminate(id)))
            }),
            Command::Pause(side) => self.pause(side),
            Command::Deliver(side) => self.deliver(side),
            Command::Arrive(side) => self.net.borrow_mut().arrive(side),
            Command::Room(side) => self.make_room(side, self.capacities[side].max(1)),
            Command::Free(side) => {
                self.net.borrow_mut().ends[side].room = self.capacities[side].max(1);
            }
            Command::Crack(side) => {
                self.net.borrow_mut().ends[side].crack = true;
                self.writable(side);
            }
            Command::Fin(side) => self.net.borrow_mut().ends[side].link_fin = true,
            Command::Invalid(side) => {
                self.net.borrow_mut().ends[side].link.extend_from_slice(INVALID[side]);
            }
            Command::Reset => {
                for end in &mut self.net.borrow_mut().ends {
                    end.link_reset = true;
                }
            }
            Command::Deadline => self.pass_until_something_happens(),
        }
    }

    /// Lets everything run to its end: there is room, all is delivered, and then all deadlines come.
    pub(super) fn end(&mut self) {
        self.net.borrow_mut().note(|| "the end".to_owned());
        for side in [SERVER, CLIENT] {
            self.make_room(side, usize::MAX);
            if self.net.borrow().facts[side].paused && self.net.borrow().facts[side].is_established() {
                self.pause(side);
            }
        }
        self.deliver_all();
        if [SERVER, CLIENT].into_iter().all(|side| self.net.borrow().facts[side].is_open()) {
            for side in [SERVER, CLIENT] {
                let net = &mut *self.net.borrow_mut();
                let sent = net.facts[1 - side].accepted;
                let verdict = net.facts[side].check_at_rest(sent);
                net.require(side, verdict);
            }
            self.close(SERVER, frame(SERVER));
            self.deliver_all();
        }
        for _ in 0..MANY {
            if self.due().is_none() || self.net.borrow().failure.is_some() {
                break;
            }
            self.pass();
            self.deliver_all();
        }
        for side in [SERVER, CLIENT] {
            let stats = self.cores[side].driver.stats();
            let net = &mut *self.net.borrow_mut();
            if stats != Stats::default() {
                net.fail(side, || format!("stuck: {stats:?}"));
            } else if net.facts[side].reported.is_none() {
                net.fail(side, || "gone without a Close".into());
            } else if !net.ends[side].closed {
                net.fail(side, || "gone, and its descriptor is open".into());
            }
        }
    }

    /// Where a side is, as far as it can be seen.
    pub(super) fn state(&mut self, side: usize) -> State {
        let core = &mut self.cores[side];
        let stats = core.driver.stats();
        if stats.lingering > 0 {
            return State::Lingering;
        }
        let clients = core.driver.clients();
        let client = core.id.and_then(|id| clients.get(id).map(|client| client.state()));
        client.unwrap_or(State::Closed)
    }

    // Commands.

    fn send(&mut self, side: usize) {
        let message = self.message(side, PLAIN);
        self.ask(side, b'S', move |clients, id, facts, _| {
            facts.sent(id.is_some_and(|id| clients.send(id, &message).is_ok()))
        });
    }

    fn close(&mut self, side: usize, frame: CloseFrame) {
        self.ask(side, b'C', move |clients, id, facts, now| {
            let yes = id.is_some_and(|id| clients.close(id, frame.clone()));
            facts.asked(&frame, false, yes, now)
        });
    }

    fn kick(&mut self, side: usize) {
        let (message, frame) = (self.message(side, LAST), last_frame(side));
        self.ask(side, b'K', move |clients, id, facts, now| {
            let yes = id.is_some_and(|id| {
                if side == SERVER {
                    clients.kick_now(id, &message, frame.clone())
                } else {
                    clients.kick(id, &message, frame.clone())
                }
            });
            facts.asked(&frame, true, yes, now)
        });
    }

    fn pause(&mut self, side: usize) {
        self.ask(side, b'P', |clients, id, facts, now| {
            let Some(id) = id else { return Err("Open had no id".into()) };
            let buffered = clients.get(id).map_or(0, |client| client.buffered_amount());
            let pauses = !facts.paused;
            // What comes is given in these two states alone.
            let state = clients.get(id).map(|client| client.state());
            let gives = matches!(state, Some(State::Open | State::LocalClosing));
            let yes = if pauses { clients.pause(id) } else { clients.resume(id) };
            facts.paused(pauses, buffered, now);
            if yes == gives { Ok(()) } else { Err(format!("pause or resume says {yes}")) }
        });
    }

    /// The next message of a side.
    fn message(&mut self, side: usize, kind: u8) -> [u8; 2] {
        let number = self.sent[side];
        if self.net.borrow().facts[side].is_open() {
            self.sent[side] += 1;
        }
        [kind, number]
    }

    /// The application of a side asks for something, in a turn of its own. `command` is its initial.
    fn ask(
        &mut self,
        side: usize,
        command: u8,
        act: impl FnOnce(&mut Clients<'_, ()>, Option<ConnectionId>, &mut Facts, u64) -> Result<(), String>,
    ) {
        let core = &mut self.cores[side];
        let (id, app) = (core.id, &mut core.app);
        core.driver.begin_turn(app);
        core.driver.act(app, |clients, app| {
            let net = &mut *app.net.borrow_mut();
            net.note_input(side, command.into());
            let verdict = act(clients, id, &mut net.facts[side], net.now);
            net.require(side, verdict);
        });
        core.driver.end_turn(app);
        self.rest(side);
    }

    fn deliver(&mut self, side: usize) {
        let readiness = {
            let net = &mut *self.net.borrow_mut();
            net.arrive(side);
            net.take_edge(side)
        };
        if readiness.is_some() {
            self.turn(side, readiness);
            self.net.borrow_mut().check_taken(side);
        }
    }

    fn deliver_all(&mut self) {
        for _ in 0..MANY {
            let loaded: Vec<_> =
                [SERVER, CLIENT].into_iter().filter(|side| self.net.borrow().is_loaded(*side)).collect();
            if loaded.is_empty() {
                return;
            }
            for side in loaded {
                self.deliver(side);
            }
        }
        self.net.borrow_mut().fail(SERVER, || "the two never come to rest".into());
    }

    fn make_room(&mut self, side: usize, room: usize) {
        {
            let end = &mut self.net.borrow_mut().ends[side];
            (end.room, end.crack) = (room, false);
        }
        self.writable(side);
    }

    /// The kernel says so, if somebody waits for it.
    fn writable(&mut self, side: usize) {
        let waits = {
            let end = &mut self.net.borrow_mut().ends[side];
            std::mem::take(&mut end.waiting) && !end.closed
        };
        if waits {
            self.turn(side, Some(Readiness { writable: true, ..Readiness::default() }));
        }
    }

    // Turns.

    fn turn(&mut self, side: usize, readiness: Option<Readiness>) {
        let Core { driver, app, slot, .. } = &mut self.cores[side];
        let word = readiness.map_or(0, |is| 1 + u64::from(is.readable) * 2 + u64::from(is.writable) * 4);
        self.net.borrow_mut().note_input(side, word);
        driver.begin_turn(app);
        if let Some(readiness) = readiness {
            driver.ready(*slot, readiness, app);
        }
        driver.end_turn(app);
        self.rest(side);
    }

    /// Turns follow each other as long as there is something to do at once.
    fn rest(&mut self, side: usize) {
        let Core { driver, app, .. } = &mut self.cores[side];
        for _ in 0..MANY {
            if !driver.has_more() {
                self.net.borrow_mut().check_fin(side);
                return;
            }
            driver.begin_turn(app);
            driver.end_turn(app);
        }
        self.net.borrow_mut().fail(side, || "does not come to rest".into());
    }

    /// The earliest deadline of both.
    fn due(&self) -> Option<u64> {
        let due = self.cores.iter().filter_map(|core| core.driver.poll_timeout()).min()?;
        u64::try_from(due.since(Time::ZERO).as_micros()).ok()
    }

    /// Deadlines are lazy: one may find that there is nothing to do yet.
    fn pass_until_something_happens(&mut self) {
        let before = self.net.borrow().activity;
        while self.net.borrow().activity == before && self.due().is_some() {
            self.pass();
        }
    }

    /// Time passes until then.
    fn pass(&mut self) {
        let Some(due) = self.due() else { return };
        let now = {
            let net = &mut *self.net.borrow_mut();
            net.now = net.now.max(due);
            Time::from_start(Duration::from_micros(net.now))
        };
        for side in [SERVER, CLIENT] {
            if self.cores[side].driver.poll_timeout().is_some_and(|at| at <= now) {
                self.turn(side, None);
            }
        }
    }
}
