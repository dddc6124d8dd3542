//! A session that is given arbitrary inputs, as a function of bytes: a fuzz target, and properties.

use std::collections::BTreeSet;
use std::time::Duration;

use adjourn_socketio::engine::{Context, Engine, EngineConfig, Outcome, PostBody, Sid};
use adjourn_socketio::links::{Frame, FrameRef, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::reason::Reason;

/// The network below, which checks what must hold whatever comes.
#[derive(Default)]
struct Net {
    /// Requests without an answer.
    open: BTreeSet<u64>,
    /// How many of the numbered messages have gone out.
    delivered: usize,
    /// Links that were closed.
    closed: BTreeSet<u64>,
    /// All that happened.
    log: Vec<String>,
}

impl Net {
    fn packet(&mut self, text: &str) {
        if let Some(number) = text.strip_prefix('4') {
            assert_eq!(number, self.delivered.to_string(), "lost, doubled or out of order");
            self.delivered += 1;
        }
    }

    fn answered(&mut self, request: RequestId) {
        assert!(self.open.remove(&request.0), "request {} is answered twice", request.0);
    }
}

impl Links for Net {
    fn send(&mut self, link: LinkId, frames: &[Frame]) -> Result<(), SendRefused> {
        assert!(!self.closed.contains(&link.0), "sent behind a Close");
        for frame in frames {
            if let FrameRef::Text(text) = frame.borrow() {
                self.packet(text);
            }
        }
        self.log.push(format!("L{} < {frames:?}", link.0));
        Ok(())
    }

    fn send_to(&mut self, _: &[LinkId], _: &[Frame], _: &mut Vec<(LinkId, SendRefused)>) {
        unreachable!("for broadcasts of the core")
    }

    fn unsent(&mut self, _link: LinkId) -> usize {
        0
    }

    fn close(&mut self, link: LinkId, how: LinkClose) {
        assert!(self.closed.insert(link.0), "closed twice");
        self.log.push(format!("L{} {how:?}", link.0));
    }

    fn respond(&mut self, request: RequestId, response: Response) {
        self.answered(request);
        let body = std::str::from_utf8(&response.body).expect("UTF-8");
        if response.content_type == Some("text/plain; charset=UTF-8") {
            body.split('\u{1e}').for_each(|packet| self.packet(packet));
        }
        self.log.push(format!("{} = {} {body:?}", request.0, response.status));
    }

    fn abort(&mut self, request: RequestId) {
        self.answered(request);
        self.log.push(format!("{} aborted", request.0));
    }
}

/// A session in its net.
struct World {
    engine: Engine,
    config: EngineConfig,
    net: Net,
    now: Duration,
    next: u64,
    /// Requests whose body has not come yet.
    posts: Vec<u64>,
    links: Vec<u64>,
    sent: usize,
    /// Has the end been told, or given by the layer above?
    over: bool,
}

fn config() -> EngineConfig {
    EngineConfig {
        ping_interval: Duration::from_millis(30),
        ping_timeout: Duration::from_millis(20),
        upgrade_timeout: Duration::from_millis(40),
        close_timeout: Duration::from_millis(25),
        max_payload: 40,
        max_poll_response: 12,
        send_queue: 60,
        polling: true,
        websocket: true,
    }
}

impl World {
    fn new(websocket: bool) -> Self {
        let (config, mut net, now) = (config(), Net::default(), Duration::ZERO);
        let mut cx = Context { now, heard: now, config: &config, links: &mut net };
        let sid = Sid::from_random([1; 15]);
        let engine = if websocket {
            Engine::open_websocket(sid, LinkId(0), &mut cx)
        } else {
            // Its answer is that of request 0.
            let mut opened = Net { open: BTreeSet::from([0]), ..Net::default() };
            Engine::open_polling(sid, RequestId(0), &mut Context { links: &mut opened, ..cx })
        };
        let links = if websocket { vec![0] } else { vec![] };
        Self { engine, config, net, now, next: 1, posts: Vec::new(), links, sent: 0, over: false }
    }

    fn with<T>(&mut self, call: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> T {
        let mut cx = Context { now: self.now, heard: self.now, config: &self.config, links: &mut self.net };
        let result = call(&mut self.engine, &mut cx);
        let unsent = self.engine.unsent(&mut cx);
        assert!(unsent <= self.config.send_queue, "{unsent} bytes queued");
        result
    }

    fn outcome(&mut self, outcome: &Outcome<'_>) {
        if let Outcome::Ended(_) = outcome {
            assert!(!self.over, "a second end: {outcome:?}");
            self.over = true;
        }
        if *outcome != Outcome::Nothing {
            self.net.log.push(format!("{outcome:?}"));
        }
        assert_eq!(self.engine.is_open(), !self.over, "after {outcome:?}");
    }

    /// Time passes; what falls due meanwhile is handled when it falls due, and `also` at other times.
    fn pass(&mut self, until: Duration, also: Option<Duration>) {
        while let Some(due) = self.engine.next_timeout().filter(|due| *due <= until) {
            assert!(due >= self.now, "a timeout of the past");
            self.now = due;
            self.tick();
        }
        if let Some(also) = also {
            self.now = self.now.max(also.min(until));
            self.tick();
        }
        self.now = until;
    }

    fn tick(&mut self) {
        let before = self.net.log.len();
        let due = self.engine.next_timeout().is_some_and(|due| due <= self.now);
        let outcome = self.with(Engine::handle_timeout);
        self.outcome(&outcome);
        assert!(due || self.net.log.len() == before, "a call before its time did something");
        assert!(self.engine.next_timeout().is_none_or(|next| next > self.now), "nothing was done about it");
    }

    fn request(&mut self) -> RequestId {
        self.next += 1;
        self.net.open.insert(self.next);
        RequestId(self.next)
    }

    /// One input.
    fn step(&mut self, choice: u8, argument: u8) {
        let outcome = match choice % 14 {
            0 => {
                let request = self.request();
                self.with(|engine, cx| engine.poll(request, cx))
            }
            1 => {
                let request = self.request();
                self.posts.push(request.0);
                let kind = (argument % 16 == 15).then_some("application/octet-stream");
                let length = (argument % 16 == 14).then_some(1000);
                self.with(|engine, cx| engine.begin_post(request, kind, length, cx))
            }
            2 | 3 => return self.post(argument),
            4 => {
                let request = self.pick(argument);
                self.net.open.remove(&request.0);
                self.posts.retain(|post| *post != request.0);
                self.with(|engine, cx| engine.request_gone(request, cx))
            }
            5 => {
                self.next += 1;
                let link = LinkId(self.next);
                self.links.push(self.next);
                self.with(|engine, cx| engine.probe(link, cx))
            }
            6 => self.message(argument, "2probe"),
            7 => self.message(argument, "5"),
            8 => {
                let texts = ["3", "4x", "3", "b*", "2", "", "6", "1", "3", "bAQI=", "4", "3"];
                self.message(argument / 16, texts[usize::from(argument % 12)])
            }
            9 => {
                let Some(link) = self.link(argument) else { return };
                self.links.retain(|other| *other != link.0);
                self.net.closed.insert(link.0);
                self.with(|engine, cx| engine.link_ended(link, Reason::TransportClose, cx))
            }
            10..=12 => return self.send(argument),
            _ => return self.end(argument),
        };
        self.outcome(&outcome);
    }

    fn post(&mut self, argument: u8) {
        let Some(request) = self.posts.pop().map(RequestId) else { return };
        let texts: [&[u8]; 8] =
            [b"3", b"4a\x1e4b", b"4a\x1ebAQI=\x1e3", b"1", b"x", b"4\xff", b"2", b"4a\x1e1\x1e4b"];
        let body = match argument % 32 {
            31 => PostBody::TooLarge,
            30 => PostBody::Complete(&[b'4'; 41]),
            other => PostBody::Complete(texts[usize::from(other % 8) * usize::from(other > 8)]),
        };
        let mut packets = match self.with(|engine, cx| engine.post(request, body, cx)) {
            Ok(packets) => packets,
            Err(outcome) => return self.outcome(&outcome),
        };
        while let Some(outcome) = self.with(|engine, cx| engine.next_packet(&mut packets, cx)) {
            self.outcome(&outcome);
            // What the layer above may do about a message.
            match argument {
                200..220 => self.send(argument),
                220..240 => self.end(argument),
                _ => (),
            }
        }
        assert!(!self.net.open.contains(&request.0), "a POST is without an answer");
    }

    fn message(&mut self, which: u8, text: &str) -> Outcome<'static> {
        let Some(link) = self.link(which) else { return Outcome::Nothing };
        match self.with(|engine, cx| engine.message(link, FrameRef::Text(text), cx)) {
            Outcome::Message(_) | Outcome::Nothing => Outcome::Nothing,
            Outcome::Ignored => Outcome::Ignored,
            Outcome::Upgraded => Outcome::Upgraded,
            Outcome::ProbeFailed => Outcome::ProbeFailed,
            Outcome::Ended(reason) => Outcome::Ended(reason),
        }
    }

    /// One to three numbered messages.
    fn send(&mut self, argument: u8) {
        let count = usize::from(argument % 3) + 1;
        let frames: Vec<_> = (0..count).map(|index| Frame::text(format!("4{}", self.sent + index))).collect();
        let open = self.engine.is_open();
        match self.with(|engine, cx| engine.send(&frames, cx)) {
            Ok(()) if open => self.sent += count,
            Ok(()) => (),
            Err(_) => {
                assert!(!self.over && !self.engine.is_open());
                self.over = true;
            }
        }
    }

    fn end(&mut self, argument: u8) {
        let reasons = [Reason::ForcedClose, Reason::SessionTakenOver, Reason::ServerShuttingDown];
        let ended = match argument % 16 {
            0 => self.with(Engine::cut),
            reason @ 1..=3 => self.with(|engine, cx| engine.close(reasons[usize::from(reason - 1)], cx)),
            _ => return,
        };
        assert_eq!(ended, !self.over);
        self.over = true;
    }

    fn pick(&self, argument: u8) -> RequestId {
        let index = usize::from(argument) % self.net.open.len().max(1);
        RequestId(self.net.open.iter().nth(index).copied().unwrap_or(9999))
    }

    /// A link that has not been closed.
    fn link(&self, argument: u8) -> Option<LinkId> {
        let open: Vec<_> = self.links.iter().filter(|link| !self.net.closed.contains(link)).collect();
        open.get(usize::from(argument) % open.len().max(1)).map(|link| LinkId(**link))
    }

    /// All is over: whoever waits has been answered, and nothing is left to do.
    fn finish(mut self) -> Net {
        self.pass(self.now + Duration::from_secs(10), None);
        assert!(self.over, "nobody answers its pings");
        assert_eq!((self.engine.state(), self.engine.next_timeout()), (None, None));
        assert!(self.net.open.is_empty(), "without an answer: {:?}", self.net.open);
        self.net
    }
}

/// The first byte chooses the transport, then each three bytes are a time, an input and its argument.
pub(crate) fn session(bytes: &[u8]) {
    let log = |ticks: bool| {
        let (first, rest) = bytes.split_first().unwrap_or((&0, &[]));
        let mut world = World::new(first % 2 == 1);
        for step in rest.chunks_exact(3) {
            let until = world.now + Duration::from_millis(u64::from(step[0] % 16));
            let also = world.now + Duration::from_millis(u64::from(step[0] / 16));
            world.pass(until, ticks.then_some(also));
            world.step(step[1], step[2]);
        }
        world.finish().log
    };
    assert_eq!(log(false), log(true), "calls of handle_timeout before their time change something");
}

/// What is sent and received while a session is upgraded, in one of the ways to interleave both directions; `sends` has a bit
/// for each step of the client before which the server sends a message.
pub(crate) fn upgrade(sends: u32) {
    let client: [(&str, &str); 11] = [
        ("get", ""),
        ("post", "40"),
        ("get", ""),
        ("probe", ""),
        ("post", "41\u{1e}42"),
        ("ws", "2probe"),
        ("get", ""),
        ("post", "43"),
        ("ws", "5"),
        ("ws", "44"),
        ("ws", "45"),
    ];
    let mut world = World::new(false);
    let (mut received, mut held) = (Vec::new(), None);
    for (step, (kind, text)) in client.iter().enumerate() {
        for _ in 0..(sends >> (2 * step)) & 3 {
            world.send(0);
        }
        let outcomes = match *kind {
            // One GET at a time.
            "get" if held.is_some_and(|held: u64| world.net.open.contains(&held)) => vec![],
            "get" => {
                let request = world.request();
                held = Some(request.0);
                vec![world.with(|engine, cx| engine.poll(request, cx))]
            }
            "probe" => vec![world.with(|engine, cx| engine.probe(LinkId(9), cx))],
            "ws" => vec![world.with(|engine, cx| engine.message(LinkId(9), FrameRef::Text(text), cx))],
            _ => {
                let request = world.request();
                world.with(|engine, cx| engine.begin_post(request, None, None, cx));
                let body = PostBody::Complete(text.as_bytes());
                let mut packets = world.with(|engine, cx| engine.post(request, body, cx)).expect("open");
                let mut next = || world.with(|engine, cx| engine.next_packet(&mut packets, cx));
                std::iter::from_fn(&mut next).collect()
            }
        };
        for outcome in &outcomes {
            world.outcome(outcome);
            received.extend(match outcome {
                Outcome::Message(message) => Some(format!("{:?}", message.borrow())),
                _ => None,
            });
        }
    }
    let expected: Vec<_> = (0..6).map(|number| format!("Text(\"{number}\")")).collect();
    assert_eq!(received, expected, "what the client sent");
    assert_eq!(world.net.delivered, world.sent, "what the server sent");
    assert_eq!(world.engine.link(), Some(LinkId(9)));
    world.finish();
}
