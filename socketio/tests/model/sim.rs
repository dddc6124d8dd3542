//! A world: an application that emits, joins and leaves, clients (`readers`), a store that is late, a server that crashes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::config::{Durability, SocketIoConfig};
use adjourn_socketio::core::{Core, Io};
use adjourn_socketio::store::EntryKind;

use super::list::{Fate, Lineage, List, Maybe, Op, What};
use super::readers::Reader;
use super::world::{StoreMode, World};

pub(super) const WINDOW: Duration = Duration::from_secs(20);
/// `recovery.session_flush`: what a session has reached is saved so much later.
pub(super) const SESSION_FLUSH: Duration = Duration::from_millis(20);
const ROOMS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Default)]
pub(crate) struct Totals {
    steps: u64,
    events: u64,
    pub(super) resumes: u64,
    pub(super) refusals: u64,
    crashes: u64,
    pub(super) taken_over: u64,
    slow: u64,
    trimmed: u64,
    replayed: u64,
}

impl Totals {
    pub(crate) fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.events += other.events;
        self.resumes += other.resumes;
        self.refusals += other.refusals;
        self.crashes += other.crashes;
        self.taken_over += other.taken_over;
        self.slow += other.slow;
        self.trimmed += other.trimmed;
        self.replayed += other.replayed;
    }
}

/// A small generator: the same worlds everywhere.
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn room(&mut self) -> String {
        ROOMS[usize::try_from(self.below(3)).expect("small")].to_owned()
    }
}

pub(crate) struct Sim {
    pub(super) random: Random,
    pub(super) world: World,
    config: SocketIoConfig,
    pub(super) readers: Vec<Reader>,
    pub(super) lineages: BTreeMap<String, Lineage>,
    pub(super) list: Arc<Mutex<List>>,
    numbers: u64,
    pub(super) totals: Totals,
    pub(super) lossy_log: bool,
    phantoms: bool,
}

fn set_up(core: &mut Core, log: &Arc<Mutex<Vec<String>>>) {
    let (connected, ended) = (Arc::clone(log), Arc::clone(log));
    core.namespace("/")
        .on_connection(move |socket| {
            let note = format!("+{} {}", socket.id(), socket.resume().as_str());
            connected.lock().expect("not poisoned").push(note);
        })
        .on_disconnect(move |socket, end| {
            let note = format!("-{} {}", socket.id(), end.reason);
            ended.lock().expect("not poisoned").push(note);
        });
}

impl Sim {
    pub(crate) fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut config = SocketIoConfig::default();
        config.times.ping_interval = Duration::from_hours(1);
        let lossy_log = random.chance(20);
        let phantoms = random.chance(25);
        {
            let recovery = config.recovery.as_mut().expect("is on by default");
            recovery.window = WINDOW;
            recovery.replay_page = 1024 + usize::try_from(random.below(3)).expect("small") * 700;
            recovery.log_entries = if lossy_log { 8 + random.below(60) } else { 100_000 };
            recovery.replay_before_connect = if random.chance(20) { 200 } else { 0 };
            recovery.durability = if phantoms { Durability::BeforeCommit } else { Durability::AfterCommit };
        }
        config.storage.batch = if random.chance(30) { 3 } else { 1024 };
        let mut world = World::new(config.clone(), set_up);
        if random.chance(60) {
            world.mode = StoreMode::Held;
        }
        let readers = (0..=random.below(4)).map(|_| Reader::default()).collect();
        Self {
            random,
            world,
            config,
            readers,
            lineages: BTreeMap::new(),
            list: Arc::default(),
            numbers: 0,
            totals: Totals::default(),
            lossy_log,
            phantoms,
        }
    }

    pub(crate) fn run(mut self) -> Totals {
        let steps = 20 + self.random.below(150);
        for _ in 0..steps {
            self.step();
            self.note_appended();
            self.totals.steps += 1;
        }
        self.heal();
        self.judge();
        let stats = self.world.core.stats();
        self.totals.trimmed += stats.log_trimmed;
        self.totals.slow += stats.slow_consumers;
        self.totals.replayed += stats.replayed_events;
        self.totals
    }

    fn step(&mut self) {
        let who = usize::try_from(self.random.below(self.readers.len() as u64)).expect("small");
        let action = self.random.below(100);
        if std::env::var_os("MODEL_TRACE").is_some() {
            let reader = &self.readers[who];
            eprintln!(
                "{action} of {who}: {reader:?} noted {:?}",
                self.world.log.lock().expect("not poisoned").last()
            );
        }
        match action {
            0..30 => self.emit(),
            30..36 => self.emit_unlogged(),
            36..48 => self.member(who),
            48..53 => self.rooms_by_entry(),
            53..63 => self.connect(who),
            63..70 => self.cut(who),
            70..72 => self.bury(who),
            72..82 => self.read(who, false),
            82..90 => self.run_store(),
            90..93 => self.slow(who),
            93..96 => self.pass_time(who),
            96..98 => self.end(who),
            98 => self.burst(),
            _ => self.crash(),
        }
    }

    // ---- the application

    fn next_number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    fn any_room(&mut self) -> String {
        let sids: Vec<String> = self.lineages.keys().cloned().collect();
        if self.random.chance(25) && !sids.is_empty() {
            let index = usize::try_from(self.random.below(sids.len() as u64)).expect("small");
            return sids[index].clone();
        }
        self.random.room()
    }

    fn emit(&mut self) {
        let number = self.next_number();
        let rooms: Vec<String> = (0..self.random.below(3)).map(|_| self.any_room()).collect();
        let except: Vec<String> = if self.random.chance(25) { vec![self.any_room()] } else { Vec::new() };
        self.emit_to(number, rooms, except);
    }

    fn emit_to(&mut self, number: u64, rooms: Vec<String>, except: Vec<String>) {
        let what = What::Emit { number, rooms: rooms.clone(), except: except.clone() };
        self.push(what, true);
        self.world.call(move |io| {
            let all = io.of("/").to(rooms).except(except);
            all.emit("n", (number, "x".repeat(20))).expect("the store takes it");
        });
        self.totals.events += 1;
    }

    fn burst(&mut self) {
        let room = self.random.room();
        for _ in 0..self.random.below(400) {
            let number = self.next_number();
            self.emit_to(number, vec![room.clone()], Vec::new());
        }
    }

    fn emit_unlogged(&mut self) {
        let room = self.random.room();
        let volatile = self.random.chance(50);
        self.world.call(move |io| {
            if volatile {
                io.of("/").to(room).emit_volatile("v", ("text",));
            } else {
                io.of("/").to(room).local().emit("v", ("text",)).expect("goes");
            }
        });
    }

    fn push(&mut self, what: What, entry: bool) -> usize {
        let mut list = self.list.lock().expect("not poisoned");
        list.ops.push(Op { what, fate: Fate::Pending, entry });
        list.ops.len() - 1
    }

    /// A handler of the socket joins or leaves a room.
    fn member(&mut self, who: usize) {
        let (sid, room, join) = (self.readers[who].sid.clone(), self.random.room(), self.random.chance(65));
        let mut connected = false;
        self.world.call(|io| connected = io.socket("/", &sid).is_some());
        if !connected {
            return;
        }
        let index = self.push(What::Member { sid: sid.clone(), room: room.clone(), join }, false);
        let list = Arc::clone(&self.list);
        self.world.call(move |io| {
            let mut socket = io.socket("/", &sid).expect("is connected");
            if join { socket.join(&room) } else { socket.leave(&room) }.expect("fits");
            let shown = socket.rooms().iter().any(|shown| **shown == *room);
            assert_eq!(shown, join, "shown at once");
            socket.saved(move |_: &mut Io<'_>, saved| {
                if saved.is_ok() {
                    list.lock().expect("not poisoned").ops[index].fate = Fate::Kept;
                }
            });
        });
    }

    fn rooms_by_entry(&mut self) {
        let (to, room, join) = (self.any_room(), self.random.room(), self.random.chance(60));
        self.push(What::Rooms { rooms: vec![to.clone()], room: room.clone(), join }, true);
        self.world.call(move |io| {
            let sockets = io.of("/").to(to);
            if join { sockets.join(room) } else { sockets.leave(room) }.expect("the store takes it");
        });
    }

    /// Somebody ends a session for good.
    fn end(&mut self, who: usize) {
        let reader = &mut self.readers[who];
        reader.doomed = true;
        let (sid, link) = (reader.sid.clone(), reader.link);
        if let Some(lineage) = self.lineages.get_mut(&sid) {
            lineage.over = true;
        }
        if self.random.chance(50) {
            self.world.call(|io| {
                if let Some(mut socket) = io.socket("/", &sid) {
                    socket.disconnect();
                }
            });
        } else if let Some(link) = link.filter(|_| self.readers[who].connected) {
            self.world.message(link, "41");
            self.readers[who].connected = false;
            self.cut(who);
        }
    }

    // ---- the world

    fn run_store(&mut self) {
        for _ in 0..=self.random.below(6) {
            let read = self.random.chance(50);
            self.world.step_store(read);
            self.note_appended();
        }
    }

    fn note_appended(&mut self) {
        let mut list = self.list.lock().expect("not poisoned");
        for entry in std::mem::take(&mut self.world.appended) {
            list.appended(|what| match (what, entry.kind) {
                (What::Emit { number, .. }, EntryKind::Event) => {
                    entry.packet.starts_with(&format!("2[\"n\",{number},"))
                }
                (What::Rooms { join, .. }, EntryKind::Join) => *join,
                (What::Rooms { join, .. }, EntryKind::Leave) => !join,
                _ => false,
            });
        }
    }

    fn pass_time(&mut self, who: usize) {
        // A store that is late for long is another test.
        self.world.run_store();
        self.note_appended();
        let long = self.random.chance(15);
        let millis = if long { self.random.below(30_000) } else { self.random.below(500) };
        let held = std::mem::replace(&mut self.world.mode, StoreMode::Inline);
        self.world.advance(Duration::from_millis(millis));
        self.world.mode = held;
        self.note_appended();
        self.read(who, false);
    }

    fn crash(&mut self) {
        if self.random.chance(50) {
            return;
        }
        for who in 0..self.readers.len() {
            self.read(who, true);
            let reader = &mut self.readers[who];
            reader.link = None;
            reader.zombie = None;
            reader.connected = false;
            if self.world.now < reader.current + SESSION_FLUSH {
                reader.current = reader.current_in_store;
            }
        }
        self.note_appended();
        self.list.lock().expect("not poisoned").crash();
        self.world.noted();
        self.world.restart(self.config.clone(), set_up);
        self.totals.crashes += 1;
    }

    /// Everybody comes back and reads all.
    fn heal(&mut self) {
        self.world.run_store();
        self.world.mode = StoreMode::Inline;
        self.note_appended();
        for who in 0..self.readers.len() {
            self.bury(who);
            for _ in 0..200 {
                self.world.run_store();
                if self.readers[who].link.is_none() || !self.readers[who].connected {
                    self.leave_link(who, true);
                    self.connect_well(who);
                }
                let before = self.received(who);
                self.read(who, false);
                if self.readers[who].connected && self.received(who) == before && self.is_read(who) {
                    break;
                }
            }
            assert!(self.readers[who].connected, "it comes back in the end");
        }
        self.note_appended();
    }

    fn judge(&mut self) {
        let list = self.list.lock().expect("not poisoned").clone();
        for lineage in self.lineages.values_mut() {
            let current = self.readers.iter().any(|reader| reader.sid == lineage.sid);
            lineage.over |= !current;
            list.check(lineage, self.phantoms);
        }
        for reader in &self.readers {
            let lineage = &self.lineages[&reader.sid];
            let (_, expected) = list.expected(lineage, self.phantoms);
            let (sid, mut rooms) = (reader.sid.clone(), Vec::new());
            self.world.call(|io| rooms = io.socket("/", &sid).expect("is connected").rooms());
            for (room, maybe) in expected {
                let is_in = rooms.iter().any(|shown| **shown == *room);
                let fits = match maybe {
                    Maybe::Yes => is_in,
                    Maybe::No => !is_in,
                    Maybe::Perhaps => true,
                };
                assert!(fits, "room {room} of {sid}: {maybe:?}, but {rooms:?}\n{list}");
            }
        }
        self.judge_handlers();
    }

    /// Each connection is told once, and once its end.
    fn judge_handlers(&mut self) {
        let mut open: BTreeMap<String, i32> = BTreeMap::new();
        for note in self.world.noted() {
            let sid = note[1..].split(' ').next().expect("an id").to_owned();
            let count = open.entry(sid).or_default();
            *count += if note.starts_with('+') { 1 } else { -1 };
            assert!((0..=1).contains(count), "never two with one id: {note}");
        }
        for (sid, count) in open {
            let mut connected = false;
            self.world.call(|io| connected = io.socket("/", &sid).is_some());
            assert_eq!(count == 1, connected, "{sid}");
        }
    }
}
