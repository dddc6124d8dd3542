//! The clients of a world: they connect and resume, read what has come or a part of it, and are cut.

use std::time::Duration;

use adjourn_socketio::links::{FrameRef, LinkId};

use super::list::{Fate, Lineage};
use super::sim::{SESSION_FLUSH, Sim, WINDOW};

/// A client that reads when it likes.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) link: Option<LinkId>,
    /// A connection that it has left without telling.
    pub(super) zombie: Option<LinkId>,
    /// Its CONNECT has been answered on this link.
    pub(super) connected: bool,
    pub(super) sid: String,
    pub(super) pid: Option<String>,
    pub(super) offset: Option<String>,
    /// When it had last read all that it was to get.
    pub(super) current: Duration,
    /// The same, as far as the store surely knows: what a crash leaves of it.
    pub(super) current_in_store: Duration,
    /// Whether its session may be refused without it being a bug.
    pub(super) doomed: bool,
    /// The list's ends when its CONNECT was sent: committed, and called.
    pub(super) asked_at: usize,
    pub(super) asked_when: Duration,
}

impl Sim {
    pub(super) fn connect(&mut self, who: usize) {
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
    pub(super) fn entry_index(&self, count: usize) -> usize {
        let list = self.list.lock().expect("not poisoned");
        let mut entries = list.ops.iter().enumerate().filter(|(_, op)| op.entry);
        entries.nth(count).map_or(list.ops.len(), |(index, _)| index)
    }

    /// It reads a part of what came, and the rest is lost; the server hears of it now or later.
    pub(super) fn leave_link(&mut self, who: usize, told: bool) {
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

    pub(super) fn cut(&mut self, who: usize) {
        self.leave_link(who, true);
    }

    /// The server hears of a connection that was left before.
    pub(super) fn bury(&mut self, who: usize) {
        if let Some(link) = self.readers[who].zombie.take() {
            self.world.cut(link);
        }
    }

    /// Reads what has come, or a part of it.
    pub(super) fn read(&mut self, who: usize, part: bool) {
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

    pub(super) fn slow(&mut self, who: usize) {
        if let Some(link) = self.readers[who].link {
            self.world.stick(link, 2000);
        }
    }

    pub(super) fn is_read(&self, who: usize) -> bool {
        let link = self.readers[who].link.and_then(|link| self.world.wire.links.get(&link));
        link.is_some_and(|link| link.out.is_empty() && link.closed.is_none())
            && self.world.core.stats().replays == 0
    }

    pub(super) fn connect_well(&mut self, who: usize) {
        self.connect(who);
        if let Some(link) = self.readers[who].link.and_then(|link| self.world.wire.links.get_mut(&link)) {
            link.stuck = false;
        }
        self.read(who, false);
    }

    pub(super) fn received(&self, who: usize) -> usize {
        self.lineages.get(&self.readers[who].sid).map_or(0, |lineage| lineage.received.len())
    }
}
