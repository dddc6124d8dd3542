//! A core over a memory store, in virtual time, with links that remember what was sent; and a client that behaves as the
//! official one does.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::{Core, CoreSetup, Peer, StoreCall, StoreCommand, StoreReply, Ticket, Transport};
use adjourn_socketio::engine::PostBody;
use adjourn_socketio::links::{Frame, FrameRef, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::packet::Query;
use adjourn_socketio::reason::Reason;
use adjourn_socketio::store::{
    MemoryStore, NewEntry, NodeId, Parts, Reader, Store, StoreError, StoreSettings, Writer,
};
use serde_json::Value;

/// The store's time at the start of the first core.
const WALL: u64 = 1_700_000_000_000;

#[derive(Default)]
pub(crate) struct Wire {
    pub(crate) links: HashMap<LinkId, Link>,
    pub(crate) responses: HashMap<RequestId, Response>,
    pub(crate) aborted: Vec<RequestId>,
}

#[derive(Default)]
pub(crate) struct Link {
    pub(crate) out: Vec<Frame>,
    pub(crate) closed: Option<LinkClose>,
    /// Bytes that wait, while the client does not read.
    pub(crate) unsent: usize,
    pub(crate) stuck: bool,
    pub(crate) limit: usize,
}

impl Links for Wire {
    fn send(&mut self, link: LinkId, frames: &[Frame]) -> Result<(), SendRefused> {
        let link = self.links.get_mut(&link).filter(|link| link.closed.is_none()).ok_or(SendRefused::Gone)?;
        let bytes: usize = frames.iter().map(Frame::len).sum();
        if link.stuck && link.unsent + bytes > link.limit {
            return Err(SendRefused::Full);
        }
        link.unsent += if link.stuck { bytes } else { 0 };
        link.out.extend_from_slice(frames);
        Ok(())
    }

    fn send_to(&mut self, links: &[LinkId], frames: &[Frame], refused: &mut Vec<(LinkId, SendRefused)>) {
        for link in links {
            if let Err(why) = self.send(*link, frames) {
                refused.push((*link, why));
            }
        }
    }

    fn unsent(&mut self, link: LinkId) -> usize {
        self.links.get(&link).map_or(0, |link| link.unsent)
    }

    fn close(&mut self, link: LinkId, how: LinkClose) {
        if let Some(link) = self.links.get_mut(&link) {
            link.closed.get_or_insert(how);
        }
    }

    fn respond(&mut self, request: RequestId, response: Response) {
        self.responses.insert(request, response);
    }

    fn abort(&mut self, request: RequestId) {
        self.aborted.push(request);
    }
}

/// How the store answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StoreMode {
    /// At once.
    Inline,
    /// When [`World::run_store`] says so.
    Held,
    /// At once, with an error.
    Failing,
}

pub(crate) struct World {
    pub(crate) core: Core,
    pub(crate) wire: Wire,
    pub(crate) now: Duration,
    pub(crate) log: Arc<Mutex<Vec<String>>>,
    pub(crate) mode: StoreMode,
    /// An input is not followed by turns of the loop.
    pub(crate) halts: bool,
    writer: Box<dyn Writer>,
    reader: Box<dyn Reader>,
    held_writes: VecDeque<StoreCommand>,
    held_reads: VecDeque<StoreCommand>,
    /// What the store has appended.
    pub(crate) appended: Vec<NewEntry>,
    /// Prints what the store is asked and answers.
    pub(crate) traces: bool,
    store: Option<MemoryStore>,
    settings: StoreSettings,
    next_link: u64,
    next_request: u64,
}

pub(crate) fn quick() -> SocketIoConfig {
    SocketIoConfig::default()
}

/// Randomness that is none: names differ, that is all.
fn counting_random(seed: u8) -> adjourn_socketio::core::Random {
    let mut count: u64 = 0;
    Box::new(move |buffer| {
        count += 1;
        buffer.fill(seed);
        for (byte, number) in buffer.iter_mut().zip(count.to_be_bytes()) {
            *byte = number;
        }
    })
}

impl World {
    pub(crate) fn new(
        config: SocketIoConfig,
        set_up: impl FnOnce(&mut Core, &Arc<Mutex<Vec<String>>>),
    ) -> Self {
        let recovery = config.recovery.clone().unwrap_or_default();
        let settings = StoreSettings {
            window: recovery.window,
            max_sessions: recovery.max_sessions,
            max_replay: recovery.max_replay,
            ..StoreSettings::default()
        };
        let store = MemoryStore::new();
        let parts = open(&store, &settings, Duration::ZERO);
        let (core, writer, reader) = core_on(parts, config);
        let mut world = Self {
            core,
            wire: Wire::default(),
            now: Duration::ZERO,
            log: Arc::default(),
            mode: StoreMode::Inline,
            halts: false,
            writer,
            reader,
            held_writes: VecDeque::new(),
            held_reads: VecDeque::new(),
            appended: Vec::new(),
            traces: std::env::var_os("MODEL_TRACE").is_some(),
            store: Some(store),
            settings,
            next_link: 0,
            next_request: 0,
        };
        set_up(&mut world.core, &world.log);
        world.serve_store();
        world
    }

    /// The process is killed, and another one starts on the same store. What was held is lost.
    pub(crate) fn restart(
        &mut self,
        config: SocketIoConfig,
        set_up: impl FnOnce(&mut Core, &Arc<Mutex<Vec<String>>>),
    ) {
        self.held_writes.clear();
        self.held_reads.clear();
        self.wire = Wire::default();
        let store = self.store.as_ref().expect("a memory store");
        let parts = open(store, &self.settings, self.now);
        (self.core, self.writer, self.reader) = core_on(parts, config);
        set_up(&mut self.core, &self.log);
        self.serve_store();
        let now = self.now;
        self.core.handle_timeout(now, &mut self.wire);
        self.serve_store();
    }

    /// What the handlers have noted since the last call.
    pub(crate) fn noted(&self) -> Vec<String> {
        std::mem::take(&mut *self.log.lock().expect("not poisoned"))
    }

    /// One input, then the store, then what is due within a nanosecond, as a loop's next turns would have it.
    pub(crate) fn input(&mut self, input: impl FnOnce(&mut Core, Duration, &mut Wire)) {
        input(&mut self.core, self.now, &mut self.wire);
        self.turns();
    }

    fn turns(&mut self) {
        self.serve_store();
        while !self.halts
            && let Some(at) = self.core.next_timeout().filter(|at| *at <= self.now + Duration::from_nanos(1))
        {
            self.now = self.now.max(at);
            self.core.handle_timeout(self.now, &mut self.wire);
            self.serve_store();
        }
    }

    fn serve_store(&mut self) {
        while let Some(command) = self.core.poll_store() {
            match self.mode {
                StoreMode::Inline => self.answer(command, false),
                StoreMode::Failing => self.answer(command, true),
                StoreMode::Held if command.call.is_read() => self.held_reads.push_back(command),
                StoreMode::Held => self.held_writes.push_back(command),
            }
        }
    }

    fn answer(&mut self, command: StoreCommand, fails: bool) {
        let StoreCommand { ticket, call } = command;
        if let StoreCall::Commit(batch) = &call
            && !fails
        {
            self.appended.extend(batch.entries.iter().cloned());
        }
        if let StoreCall::Commit(batch) = &call
            && self.traces
        {
            eprintln!("{:?} {:?}", self.now, batch.sessions);
        }
        let now = self.core.store_time(self.now);
        let reply =
            if fails { failure(&call) } else { call.execute(&mut *self.writer, &mut *self.reader, now) };
        if self.traces {
            eprintln!("{:?} {reply:?}", self.now);
        }
        self.core.store_reply(ticket, reply, self.now, &mut self.wire);
    }

    /// Asks the store beside the core.
    pub(crate) fn ask_store(&mut self, call: StoreCall) -> StoreReply {
        let now = self.core.store_time(self.now);
        call.execute(&mut *self.writer, &mut *self.reader, now)
    }

    /// Answers what was held, and what follows from it.
    pub(crate) fn run_store(&mut self) {
        while self.step_store(false) || self.step_store(true) {}
    }

    /// Answers one held call of the reader or the writer; `false`: there is none.
    pub(crate) fn step_store(&mut self, read: bool) -> bool {
        let held = if read { &mut self.held_reads } else { &mut self.held_writes };
        let Some(command) = held.pop_front() else { return false };
        self.answer(command, false);
        self.turns();
        true
    }

    /// Makes the first held call of the writer, but does not answer it yet.
    pub(crate) fn begin_held_write(&mut self) -> (Ticket, StoreReply) {
        let StoreCommand { ticket, call } = self.held_writes.pop_front().expect("one is held");
        (ticket, self.ask_store(call))
    }

    /// Answers such a call.
    pub(crate) fn deliver(&mut self, (ticket, reply): (Ticket, StoreReply)) {
        self.input(|core, now, wire| core.store_reply(ticket, reply, now, wire));
    }

    /// Answers one held call of the writer with an error.
    pub(crate) fn fail_held(&mut self) {
        let command = self.held_writes.pop_front().expect("a call is held");
        self.answer(command, true);
        self.turns();
    }

    /// Lets time pass, timer by timer.
    pub(crate) fn advance(&mut self, by: Duration) {
        let end = self.now + by;
        while let Some(at) = self.core.next_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(|core, now, wire| core.handle_timeout(now, wire));
        }
        self.now = end;
    }

    pub(crate) fn call(&mut self, call: impl FnOnce(&mut adjourn_socketio::core::Io<'_>)) {
        self.input(|core, now, wire| core.call(call, now, wire));
    }

    // ---- WebSocket

    pub(crate) fn open(&mut self) -> LinkId {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        self.wire.links.insert(link, Link { limit: 4 << 20, ..Link::default() });
        self.input(|core, now, wire| core.open_websocket(link, peer(Transport::WebSocket), now, wire));
        let open = self.received(link);
        assert!(open[0].starts_with("0{"), "{open:?}");
        link
    }

    /// A message with its Engine.IO type.
    pub(crate) fn message(&mut self, link: LinkId, text: &str) {
        self.input(|core, now, wire| core.websocket_message(link, FrameRef::Text(text), now, wire));
    }

    pub(crate) fn binary(&mut self, link: LinkId, bytes: &[u8]) {
        self.input(|core, now, wire| core.websocket_message(link, FrameRef::Binary(bytes), now, wire));
    }

    /// What was sent since the last call; binary as `<n bytes>`.
    pub(crate) fn received(&mut self, link: LinkId) -> Vec<String> {
        let Some(link) = self.wire.links.get_mut(&link) else { return Vec::new() };
        link.out
            .drain(..)
            .map(|frame| match frame.borrow() {
                FrameRef::Text(text) => text.to_owned(),
                FrameRef::Binary(bytes) => format!("<{} bytes>", bytes.len()),
            })
            .collect()
    }

    pub(crate) fn closed(&self, link: LinkId) -> Option<LinkClose> {
        self.wire.links.get(&link)?.closed
    }

    /// The TCP connection ends.
    pub(crate) fn cut(&mut self, link: LinkId) {
        self.input(|core, now, wire| {
            core.websocket_ended(link, Reason::TransportClose, Some(1006), now, wire);
        });
    }

    /// The client does not read any more.
    pub(crate) fn stick(&mut self, link: LinkId, limit: usize) {
        let link = self.wire.links.get_mut(&link).expect("is open");
        link.stuck = true;
        link.limit = limit;
    }

    /// The client has read all that was queued, and goes on to be slow.
    pub(crate) fn drain(&mut self, link: LinkId) {
        self.wire.links.get_mut(&link).expect("is open").unsent = 0;
        self.input(|core, now, wire| core.websocket_drained(link, now, wire));
    }

    // ---- polling

    pub(crate) fn request(&mut self) -> RequestId {
        self.next_request += 1;
        RequestId(self.next_request)
    }

    /// Opens a session on polling; its `sid`.
    pub(crate) fn open_polling(&mut self) -> String {
        let request = self.request();
        self.input(|core, now, wire| core.open_polling(request, peer(Transport::Polling), now, wire));
        let body = self.body(request).expect("the handshake");
        let open: Value = serde_json::from_str(&body[1..]).expect("JSON");
        open["sid"].as_str().expect("text").to_owned()
    }

    pub(crate) fn get(&mut self, sid: &str) -> RequestId {
        let request = self.request();
        self.input(|core, now, wire| core.poll(request, sid, now, wire));
        request
    }

    pub(crate) fn post(&mut self, sid: &str, body: &str) -> RequestId {
        let request = self.post_head(sid, body.len());
        let mut rest = self.post_part(request, sid, body);
        while let Some(left) = rest {
            rest = self.post_part(request, sid, &body[body.len() - left..]);
        }
        request
    }

    /// The head of a POST.
    pub(crate) fn post_head(&mut self, sid: &str, length: usize) -> RequestId {
        let request = self.request();
        let content = (Some("text/plain;charset=UTF-8"), Some(length as u64));
        self.input(|core, now, wire| core.post_head(request, sid, content, now, wire));
        request
    }

    /// Its body, or the rest of it; the length of what is left.
    pub(crate) fn post_part(&mut self, request: RequestId, sid: &str, body: &str) -> Option<usize> {
        let bytes = PostBody::Complete(body.as_bytes());
        let mut rest = None;
        self.input(|core, now, wire| rest = core.post_body(request, sid, bytes, now, wire));
        rest
    }

    pub(crate) fn body(&mut self, request: RequestId) -> Option<String> {
        let response = self.wire.responses.remove(&request)?;
        Some(String::from_utf8(response.body.to_vec()).expect("UTF-8"))
    }

    /// A WebSocket that probes and upgrades a session; its link.
    pub(crate) fn upgrade(&mut self, sid: &str) -> LinkId {
        self.next_link += 1;
        let link = LinkId(self.next_link);
        self.wire.links.insert(link, Link { limit: 4 << 20, ..Link::default() });
        self.input(|core, now, wire| core.probe(link, sid, now, wire));
        self.message(link, "2probe");
        assert_eq!(self.received(link), ["3probe"]);
        self.message(link, "5");
        link
    }
}

fn open(store: &MemoryStore, settings: &StoreSettings, now: Duration) -> Parts {
    let at = WALL + u64::try_from(now.as_millis()).expect("some years");
    Box::new(store.clone()).open(NodeId(Arc::from("test")), settings, at).expect("opens")
}

fn core_on(parts: Parts, config: SocketIoConfig) -> (Core, Box<dyn Writer>, Box<dyn Reader>) {
    let setup = CoreSetup {
        epoch: parts.epoch,
        logs: parts.logs,
        wall: WALL,
        random: counting_random(u8::try_from(parts.epoch % 256).unwrap_or(0)),
        wake: Box::new(|| {}),
    };
    (Core::new(config, setup).expect("settings fit"), parts.writer, parts.reader)
}

fn failure(call: &StoreCall) -> StoreReply {
    let error = StoreError::Failed(Arc::from("as the test wants it"));
    match call {
        StoreCall::Commit(_) => StoreReply::Commit(Err(error)),
        StoreCall::Attach(_) => StoreReply::Attach(Err(error.into())),
        StoreCall::Transact(..) => StoreReply::Transact(Err(error.into())),
        StoreCall::Trim(..) => StoreReply::Trim(Err(error)),
        StoreCall::Expire(_) => StoreReply::Expire(Err(error)),
        StoreCall::DropLog(_) => StoreReply::DropLog(Err(error)),
        StoreCall::Page(..) => StoreReply::Page(Err(error)),
        StoreCall::Asks(..) => StoreReply::Asks(Err(error)),
    }
}

fn peer(transport: Transport) -> Peer {
    Peer {
        query: Query::default(),
        headers: Vec::new(),
        path: "/socket.io/".to_owned(),
        address: None,
        time: WALL,
        transport,
    }
}

/// A client that does what the official one does: it offers its `pid` and the last text that ended an event.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) link: Option<LinkId>,
    pub(crate) namespace: String,
    pub(crate) sid: String,
    pub(crate) pid: Option<String>,
    pub(crate) offset: Option<String>,
    /// Events without the offset that the server has appended.
    pub(crate) events: Vec<String>,
    /// Other packets.
    pub(crate) packets: Vec<String>,
    pub(crate) connects: usize,
    /// Answers acks by `["ok"]`.
    pub(crate) answers: bool,
}

impl Client {
    pub(crate) fn new(world: &mut World) -> Self {
        Self::of(world, "/")
    }

    pub(crate) fn of(world: &mut World, namespace: &str) -> Self {
        let mut client = Self { namespace: namespace.to_owned(), answers: true, ..Self::default() };
        client.connect(world);
        client
    }

    fn prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }

    /// Opens a connection, and CONNECTs with what it has.
    pub(crate) fn connect(&mut self, world: &mut World) {
        let link = world.open();
        self.link = Some(link);
        self.send_connect(world);
        self.pump(world);
    }

    pub(crate) fn send_connect(&mut self, world: &mut World) {
        let link = self.link.expect("is open");
        let auth = match (&self.pid, &self.offset) {
            (Some(pid), Some(offset)) => format!("{{\"pid\":\"{pid}\",\"offset\":\"{offset}\"}}"),
            (Some(pid), None) => format!("{{\"pid\":\"{pid}\"}}"),
            (None, _) => String::new(),
        };
        world.message(link, &format!("40{}{auth}", self.prefix()));
    }

    pub(crate) fn cut(&mut self, world: &mut World) {
        self.pump(world);
        if let Some(link) = self.link.take() {
            world.cut(link);
        }
    }

    /// Cut, and back.
    pub(crate) fn roam(&mut self, world: &mut World) {
        self.cut(world);
        self.connect(world);
    }

    pub(crate) fn emit(&mut self, world: &mut World, array: &str) {
        let prefix = self.prefix();
        world.message(self.link.expect("is connected"), &format!("42{prefix}{array}"));
    }

    pub(crate) fn emit_with_ack(&mut self, world: &mut World, id: u64, array: &str) {
        let prefix = self.prefix();
        world.message(self.link.expect("is connected"), &format!("42{prefix}{id}{array}"));
    }

    /// Reads what has come.
    pub(crate) fn pump(&mut self, world: &mut World) {
        let Some(link) = self.link else { return };
        for text in world.received(link) {
            self.packet(world, &text);
        }
    }

    fn packet(&mut self, world: &mut World, text: &str) {
        let prefix = self.prefix();
        if let Some(json) = text.strip_prefix(&format!("40{prefix}")) {
            let connect: Value = serde_json::from_str(json).expect("JSON");
            connect["sid"].as_str().expect("text").clone_into(&mut self.sid);
            self.pid = connect["pid"].as_str().map(str::to_owned);
            self.connects += 1;
        } else if let Some(rest) = text.strip_prefix(&format!("42{prefix}")) {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (id, json) = rest.split_at(digits);
            self.event(world, id, json);
        } else if text == "2" {
            if let Some(link) = self.link {
                world.message(link, "3");
            }
        } else {
            self.packets.push(text.to_owned());
        }
    }

    fn event(&mut self, world: &mut World, id: &str, json: &str) {
        let Value::Array(mut array) = serde_json::from_str(json).expect("JSON") else { panic!("{json}") };
        if id.is_empty()
            && self.pid.is_some()
            && let Some(Value::String(last)) = array.last()
        {
            self.offset = Some(last.clone());
            if last.contains('-') && last.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-') {
                array.pop();
            }
        }
        self.events.push(Value::Array(array).to_string());
        if !id.is_empty() && self.answers {
            let prefix = self.prefix();
            world.message(self.link.expect("is connected"), &format!("43{prefix}{id}[\"ok\"]"));
        }
    }

    /// The events since the last call.
    pub(crate) fn take(&mut self, world: &mut World) -> Vec<String> {
        self.pump(world);
        std::mem::take(&mut self.events)
    }
}
