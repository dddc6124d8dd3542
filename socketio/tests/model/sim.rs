//! A world: clients that connect, roam and are cut, an application that emits, joins and leaves, a store that is late, a
//! server that crashes.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::config::{Durability, SocketIoConfig};
use adjourn_socketio::core::{Core, Io};
use adjourn_socketio::links::{FrameRef, LinkId};
use adjourn_socketio::store::EntryKind;

use super::list::{Fate, Lineage, List, Maybe, Op, What};
use super::world::{StoreMode, World};

const WINDOW: Duration = Duration::from_secs(20);
/// `recovery.session_flush`: what a session has reached is saved so much later.
const SESSION_FLUSH: Duration = Duration::from_millis(20);
const ROOMS: [&str; 3] = ["a", "b", "c"];

#[derive(Debug, Default)]
pub(crate) struct Totals {
    steps: u64,
    events: u64,
    resumes: u64,
    refusals: u64,
    crashes: u64,
    taken_over: u64,
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
struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % limit
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    fn room(&mut self) -> String {
        ROOMS[usize::try_from(self.below(3)).expect("small")].to_owned()
    }
}

/// A client that reads when it likes.
#[derive(Debug, Default)]
struct Reader {
    link: Option<LinkId>,
    /// A connection that it has left without telling.
    zombie: Option<LinkId>,
    /// Its CONNECT has been answered on this link.
    connected: bool,
    sid: String,
    pid: Option<String>,
    offset: Option<String>,
    /// When it had last read all that it was to get.
    current: Duration,
    /// The same, as far as the store surely knows: what a crash leaves of it.
    current_in_store: Duration,
    /// Whether its session may be refused without it being a bug.
    doomed: bool,
    /// The list's ends when its CONNECT was sent: committed, and called.
    asked_at: usize,
    asked_when: Duration,
}

pub(crate) struct Sim {
    random: Random,
    world: World,
    config: SocketIoConfig,
    readers: Vec<Reader>,
    lineages: BTreeMap<String, Lineage>,
    list: Arc<Mutex<List>>,
    numbers: u64,
    totals: Totals,
    lossy_log: bool,
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

    // ---- clients

    fn connect(&mut self, who: usize) {
        if self.readers[who].link.is_some() {
            if self.random.chance(50) {
                return;
            }
            // It has moved to another network; the server does not know.
            self.leave_link(who, false);
        }
        let link = self.world.open();
        let asked_at = self
            .list
            .lock()
            .expect("not poisoned")
            .ops
            .iter()
            .filter(|op| op.entry)
            .take_while(|op| op.fate != Fate::Pending)
            .count();
        let asked_at = self.entry_index(asked_at);
        if self.random.chance(20) {
            self.world.stick(link, 3000 + usize::try_from(self.random.below(20_000)).expect("small"));
        }
        let reader = &mut self.readers[who];
        reader.link = Some(link);
        reader.connected = false;
        reader.asked_at = asked_at;
        reader.asked_when = self.world.now;
        let auth = match (&reader.pid, &reader.offset) {
            (Some(pid), Some(offset)) => format!("{{\"pid\":\"{pid}\",\"offset\":\"{offset}\"}}"),
            (Some(pid), None) => format!("{{\"pid\":\"{pid}\"}}"),
            (None, _) => String::new(),
        };
        self.world.message(link, &format!("40{auth}"));
    }

    /// The place in the list of the entry with this number.
    fn entry_index(&self, count: usize) -> usize {
        let list = self.list.lock().expect("not poisoned");
        let mut entries = list.ops.iter().enumerate().filter(|(_, op)| op.entry);
        entries.nth(count).map_or(list.ops.len(), |(index, _)| index)
    }

    /// It reads a part of what came, and the rest is lost; the server hears of it now or later.
    fn leave_link(&mut self, who: usize, told: bool) {
        self.read(who, true);
        let reader = &mut self.readers[who];
        let Some(link) = reader.link.take() else { return };
        reader.connected = false;
        if told {
            self.world.cut(link);
        } else if let Some(older) = reader.zombie.replace(link) {
            self.world.cut(older);
        }
    }

    fn cut(&mut self, who: usize) {
        self.leave_link(who, true);
    }

    /// The server hears of a connection that was left before.
    fn bury(&mut self, who: usize) {
        if let Some(link) = self.readers[who].zombie.take() {
            self.world.cut(link);
        }
    }

    /// Reads what has come, or a part of it.
    fn read(&mut self, who: usize, part: bool) {
        let Some(link) = self.readers[who].link else { return };
        let Some(wire) = self.world.wire.links.get_mut(&link) else { return };
        let limit = if part { self.random.below(wire.out.len() as u64 + 1) } else { wire.out.len() as u64 };
        let frames: Vec<_> = wire.out.drain(..usize::try_from(limit).expect("small")).collect();
        let (closed, waits) = (wire.closed.is_some(), wire.unsent > 0);
        for frame in &frames {
            if let FrameRef::Text(text) = frame.borrow() {
                self.packet(who, text);
            }
        }
        if !part && waits {
            self.world.drain(link);
        }
        if !part && closed {
            self.cut(who);
        } else if !part && self.readers[who].connected && self.is_read(who) {
            let (reader, now) = (&mut self.readers[who], self.world.now);
            if now >= reader.current + SESSION_FLUSH {
                reader.current_in_store = reader.current;
            }
            reader.current = now;
        }
    }

    fn packet(&mut self, who: usize, text: &str) {
        if let Some(connect) = text.strip_prefix("40") {
            self.on_connect(who, connect);
        } else if let Some(event) = text.strip_prefix("42") {
            self.on_event(who, event);
        } else if text == "41" {
            let reader = &mut self.readers[who];
            reader.connected = false;
            if !reader.doomed {
                // Taken over by a connection that this client has left meanwhile: it has to connect again by itself.
                self.totals.taken_over += 1;
            }
        }
    }

    fn on_connect(&mut self, who: usize, json: &str) {
        let field = |name: &str| {
            let rest = json.split(&format!("\"{name}\":\"")).nth(1)?;
            rest.split('"').next().map(str::to_owned)
        };
        let sid = field("sid").expect("a sid");
        let now = self.world.now;
        let reader = &mut self.readers[who];
        let resumed = reader.sid == sid;
        if !resumed && reader.pid.is_some() {
            let too_long = reader.current + WINDOW <= now;
            assert!(
                reader.doomed || too_long || self.lossy_log,
                "refused without a reason: {}, {:?}",
                reader.sid,
                self.world.log
            );
            self.totals.refusals += 1;
            if let Some(lineage) = self.lineages.get_mut(&reader.sid) {
                lineage.over = true;
            }
        }
        self.totals.resumes += u64::from(resumed);
        reader.pid = field("pid");
        assert!(reader.pid.is_some(), "the store works");
        reader.connected = true;
        if !resumed {
            reader.current = reader.asked_when;
            reader.current_in_store = reader.asked_when;
            reader.sid.clone_from(&sid);
            reader.doomed = false;
            let end = self.list.lock().expect("not poisoned").ops.len();
            let began = (reader.asked_at, end);
            self.lineages.insert(sid.clone(), Lineage { sid, began, received: Vec::new(), over: false });
        }
    }

    fn on_event(&mut self, who: usize, json: &str) {
        let reader = &mut self.readers[who];
        let (_, last) = json.rsplit_once(',').unwrap_or(("", json));
        reader.offset = last.strip_suffix(']').map(|last| last.trim_matches(['"', '[']).to_owned());
        let Some(rest) = json.strip_prefix("[\"n\",") else { return };
        let number = rest.split(',').next().and_then(|number| number.parse().ok()).expect("a number");
        let lineage = self.lineages.get_mut(&reader.sid).expect("began");
        lineage.received.push(number);
    }

    fn slow(&mut self, who: usize) {
        if let Some(link) = self.readers[who].link {
            self.world.stick(link, 2000);
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

    fn is_read(&self, who: usize) -> bool {
        let link = self.readers[who].link.and_then(|link| self.world.wire.links.get(&link));
        link.is_some_and(|link| link.out.is_empty() && link.closed.is_none())
            && self.world.core.stats().replays == 0
    }

    fn connect_well(&mut self, who: usize) {
        self.connect(who);
        if let Some(link) = self.readers[who].link.and_then(|link| self.world.wire.links.get_mut(&link)) {
            link.stuck = false;
        }
        self.read(who, false);
    }

    fn received(&self, who: usize) -> usize {
        self.lineages.get(&self.readers[who].sid).map_or(0, |lineage| lineage.received.len())
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
