//! Hostile CONNECTs against a core on the memory store, beside an honest client: a fuzz target, and properties.

use std::collections::BTreeMap;
use std::time::Duration;

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::Core;
use adjourn_socketio::links::LinkId;

use super::world::{Client, World, quick};

/// Time in all, at most: shorter than the window, so that the honest client is never too late.
const TIME: Duration = Duration::from_mins(1);

struct Scene {
    world: World,
    honest: Client,
    emitted: u32,
    /// The sessions that were given to hostile clients: `pid` -> `sid`.
    theirs: BTreeMap<String, String>,
    /// The last of them, and what was last seen of its offsets.
    pid: String,
    offset: String,
    links: Vec<LinkId>,
}

fn config() -> SocketIoConfig {
    let mut config = quick();
    config.times.ping_interval = Duration::from_hours(1);
    config.times.connect_timeout = Duration::from_secs(5);
    config.recovery.as_mut().expect("is on by default").replay_page = 1024;
    config
}

fn set_up(core: &mut Core) {
    core.namespace("/").on("join", |socket, args, _| {
        let Ok(room) = args.get::<String>(0) else { return };
        socket.join(&room).ok();
    });
    core.namespace("/other");
}

impl Scene {
    fn new() -> Self {
        let mut world = World::new(config(), |core, _| set_up(core));
        let honest = Client::new(&mut world);
        Self {
            world,
            honest,
            emitted: 0,
            theirs: BTreeMap::new(),
            pid: String::new(),
            offset: String::new(),
            links: Vec::new(),
        }
    }

    fn emit(&mut self) {
        let number = self.emitted;
        self.emitted += 1;
        self.world.call(|io| io.of("/").emit("n", (number,)).expect("is logged"));
    }

    fn pass(&mut self, by: Duration) {
        let left = TIME.saturating_sub(self.world.now);
        self.world.advance(by.min(left));
        self.honest.pump(&mut self.world);
    }

    fn crash(&mut self) {
        self.honest.pump(&mut self.world);
        self.honest.link = None;
        self.links.clear();
        self.world.restart(config(), |core, _| set_up(core));
        self.honest.connect(&mut self.world);
    }

    /// A `pid` and an offset, each right, almost right, or wrong.
    fn auth(&self, choice: u8, argument: u8) -> String {
        let honest = self.honest.pid.clone().unwrap_or_default();
        let pid = match choice % 8 {
            0..=3 => format!("\"{}\"", self.pid),
            4 => format!("\"{}\"", self.pid.to_lowercase()),
            5 => format!("\"{}\"", honest.get(..6).unwrap_or_default()),
            6 => format!("\"{}\"", self.honest.sid),
            _ => "[{\"pid\":7}]".to_owned(),
        };
        let offset = match argument % 12 {
            0..=2 => format!("\"{}\"", self.offset),
            3 => format!("\"1-{argument}\""),
            4 => format!("\"2-{argument}\""),
            5 => format!("\"0-{argument}\""),
            6 => "\"1-18446744073709551615\"".to_owned(),
            7 => "\"18446744073709551615-1\"".to_owned(),
            8 => "\"1-18446744073709551616\"".to_owned(),
            9 => format!("\"1-{argument}-{argument}\""),
            10 => "{\"a\":null}".to_owned(),
            _ => return format!("{{\"pid\":{pid}}}"),
        };
        format!("{{\"pid\":{pid},\"offset\":{offset}}}")
    }

    /// A stranger CONNECTs with this `auth`.
    fn connect(&mut self, auth: &str, stays: bool) {
        let link = self.world.open();
        self.links.push(link);
        self.world.message(link, &format!("40{auth}"));
        self.read(link, auth);
        if !stays {
            self.world.cut(link);
            self.links.retain(|other| *other != link);
        }
    }

    fn read(&mut self, link: LinkId, auth: &str) {
        for text in self.world.received(link) {
            if let Some(json) = text.strip_prefix("40{") {
                let field = |name: &str| {
                    let rest = json.split(&format!("\"{name}\":\"")).nth(1).expect("the field");
                    rest.split('"').next().expect("a text").to_owned()
                };
                let (sid, pid) = (field("sid"), field("pid"));
                assert_ne!(sid, self.honest.sid, "somebody else's session for {auth}");
                if let Some((known, _)) = self.theirs.iter().find(|(_, theirs)| **theirs == sid) {
                    assert!(*known == pid && auth.contains(&pid), "resumed without its pid: {auth}");
                }
                self.theirs.insert(pid.clone(), sid);
                self.pid = pid;
            } else if let Some(array) = text.strip_prefix("42[") {
                let last = array.trim_end_matches(']').rsplit(',').next().expect("one at least");
                last.trim_matches('"').clone_into(&mut self.offset);
            }
        }
    }

    fn check(&mut self) {
        let mut ids = Vec::new();
        self.world.call(|io| ids = io.of("/").sockets().into_iter().map(|socket| socket.id).collect());
        ids.sort();
        let all = ids.len();
        ids.dedup();
        assert_eq!(ids.len(), all, "two sockets with one id");
        assert!(self.world.core.stats().handler_panics == 0);
    }

    /// Whatever strangers did: the honest client has each event once, in order, and its session.
    fn finish(mut self) {
        let sid = self.honest.sid.clone();
        self.honest.cut(&mut self.world);
        self.emit();
        self.honest.connect(&mut self.world);
        self.honest.pump(&mut self.world);
        assert_eq!(self.honest.sid, sid, "its session");
        let expected: Vec<String> = (0..self.emitted).map(|number| format!(r#"["n",{number}]"#)).collect();
        assert_eq!(self.honest.events, expected);
    }
}

/// Each two bytes are an action and its argument; action 7 takes the bytes that follow as the JSON of `auth`.
pub(crate) fn resume(bytes: &[u8]) {
    let mut scene = Scene::new();
    let mut rest = bytes;
    while let [action, argument, tail @ ..] = rest {
        rest = tail;
        match action % 8 {
            0 | 1 => scene.emit(),
            2 => scene.honest.roam(&mut scene.world),
            3 => scene.pass(Duration::from_millis(u64::from(*argument) * 40)),
            4 if *argument < 8 => scene.crash(),
            4..=6 => {
                let auth = scene.auth(*argument, argument.rotate_left(3) ^ *action);
                scene.connect(&auth, action / 8 % 2 == 0);
            }
            _ => {
                let (raw, after) = rest.split_at(usize::from(*argument % 64).min(rest.len()));
                rest = after;
                // The names that a stranger knows: of its own session.
                let auth = String::from_utf8_lossy(raw).replace('#', &scene.pid).replace('@', &scene.offset);
                scene.connect(&auth, true);
            }
        }
        scene.check();
    }
    scene.finish();
}
