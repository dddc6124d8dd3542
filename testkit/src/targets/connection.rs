//! Bytes, cuts, time, the kernel's room and whatever an application may ask for, in callbacks and between them, as one
//! input. Nothing panics, spins or is left behind; events come in their order; what is written are frames, and nothing but
//! Pongs behind a Close; and the account of what was sent is balanced (`Lost`).

use std::time::Duration;

use adjourn::{
    Clients, CloseCode, CloseFrame, CloseReport, Config, ConnectionId, Event, Handler, Payload, ShutdownPlan,
    clients::State,
    close::{CloseTiming, Initiator},
    config::{
        Abort, CloseAnswer, ClosingData, ControlRate, Heartbeat, OnOverflow, OnPeerClose, SharedConfig,
    },
    http::{Response, Upgrade, UpgradeRequest},
    shutdown::{LameDuckPolicy, Pace},
    testing::{self, Session},
    wire::header::{self, Opcode},
};

use super::{input::Input, peer, seen};

pub fn check(bytes: &[u8]) {
    let mut input = Input(bytes);
    let config = config(&mut input);
    let offer = config.deflate.is_some().then(|| peer::offer(&mut input));
    let actor = Actor { own: own(&mut input, &config), moods: input.piece().to_vec(), ..Actor::default() };
    let mut session = Session::new(config, actor);
    let mut written = Vec::new();
    while !input.is_empty() {
        match input.u8() % 16 {
            0 => session.read(&match &offer {
                Some(offer) => peer::request(offer),
                None => testing::REQUEST.to_vec(),
            }),
            1 => session.read(b"GET /plain HTTP/1.1\r\nHost: localhost\r\n\r\n"),
            2..=5 => {
                let mut bytes = Vec::new();
                peer::step(&mut input, &mut bytes);
                let cut = usize::from(input.u8());
                let (first, rest) =
                    bytes.split_at(if cut < 200 { bytes.len() } else { cut % 20 }.min(bytes.len()));
                session.read(first);
                session.read(rest);
            }
            6 => session.advance(Duration::from_millis(u64::from(input.u16()))),
            7 => session.make_room(usize::from(input.u16())),
            8 => session.make_room(usize::MAX),
            9 => session.read_eof(),
            10 => session.reset(),
            _ => session.act(|clients, actor| actor.act(clients, &mut input)),
        }
        written.extend(session.take_written());
    }
    session.end();
    written.extend(session.take_written());
    let opened = session.handler().is_open;
    session.handler().check_end();
    let frames = if opened { frames(&written) } else { Frames::default() };
    session.handler().check_account(&frames);
}

fn config(input: &mut Input<'_>) -> Config {
    let mut config = Config::default();
    let (flags, more) = (input.u8(), input.u8());
    config.connection.max_payload = 4096;
    config.connection.max_fragments = 64;
    config.connection.max_backlog = if flags & 1 == 0 { 8192 } else { 200 };
    config.connection.on_overflow = if flags & 2 == 0 { OnOverflow::Refuse } else { OnOverflow::Fail };
    config.connection.on_peer_close =
        if flags & 4 == 0 { OnPeerClose::FlushQueued } else { OnPeerClose::DropQueued };
    config.connection.answer = if flags & 8 == 0 { CloseAnswer::Auto } else { CloseAnswer::Manual };
    config.connection.closing_data =
        if flags & 16 == 0 { ClosingData::Deliver } else { ClosingData::Discard };
    config.connection.closing_bytes = if flags & 32 == 0 { 16 << 20 } else { 100 };
    config.connection.linger_bytes = if flags & 64 == 0 { 16 << 20 } else { 300 };
    config.deflate = (flags & 128 != 0).then(|| peer::settings(input));
    config.connection.abort = [Abort::Auto, Abort::Fin, Abort::Reset][usize::from(more % 3)];
    config.connection.heartbeat.interval = (more & 4 == 0).then_some(Duration::from_secs(30));
    config.connection.control_rate = (more & 128 != 0).then_some(ControlRate { per_second: 2, burst: 3 });
    config.connection.stall_timeout = (more & 8 == 0).then_some(Duration::from_secs(30));
    config.connection.flush_budget =
        [None, Some(Duration::ZERO), Some(config.connection.close_timeout)][usize::from(more >> 4) % 3];
    config
}

fn own(input: &mut Input<'_>, config: &Config) -> Option<SharedConfig> {
    let flags = input.u8();
    if flags == 0 {
        return None;
    }
    let mut own = config.connection.clone();
    let seconds = |on: u8, n: u64| (flags & on != 0).then_some(Duration::from_secs(n));
    own.close_timeout = seconds(1, 1).unwrap_or(own.close_timeout);
    own.flush_budget = seconds(2, 3).or(own.flush_budget).map(|budget| budget.min(own.close_timeout));
    if flags & 4 != 0 {
        own.stall_timeout = seconds(1, 7);
    }
    if flags & 8 != 0 {
        own.heartbeat = Heartbeat { interval: seconds(2, 3), timeout: Duration::from_secs(2) };
    }
    if flags & 16 != 0 {
        own.max_payload = 50;
    }
    if flags & 32 != 0 {
        own.max_backlog = 1000;
    }
    if flags & 64 != 0 {
        own.answer = CloseAnswer::Manual;
    }
    if flags & 128 != 0 {
        own.abort = Abort::Fin;
    }
    own.share().ok()
}

/// An application that does anything, and knows what it may expect.
#[derive(Default)]
struct Actor {
    own: Option<SharedConfig>,
    /// What it does in its next callbacks.
    moods: Vec<u8>,
    id: Option<ConnectionId>,
    is_open: bool,
    failed: bool,
    closing: bool,
    closed: Option<CloseReport>,
    /// Messages that were accepted.
    accepted: u64,
}

impl Handler for Actor {
    type Data = ();

    fn on_upgrade<'r>(&mut self, request: &UpgradeRequest<'r>) -> Upgrade<'r, ()> {
        match self.moods.last() {
            Some(1) => Upgrade::Reject(Response::new(403).expect("a status")),
            _ if !request.is_upgrade() => {
                Upgrade::Answer(Response::new(200).expect("a status").body("hello"))
            }
            _ => {
                let accept = adjourn::http::Accept::new(()).subprotocol(request.subprotocols().next());
                Upgrade::Accept(match self.own.take() {
                    Some(own) => accept.config(own),
                    None => accept,
                })
            }
        }
    }

    fn on_event(&mut self, clients: &mut Clients<'_, ()>, event: Event<'_>) {
        if !matches!(event, Event::Phase { .. } | Event::SweepDone { .. }) {
            assert!(self.closed.is_none() && !self.failed, "there was an end, but now there is {event:?}");
            let first = matches!(event, Event::Open { .. } | Event::HandshakeFailed { .. });
            assert_eq!(self.is_open, !first, "{event:?}");
        }
        seen::event(&event);
        let mood = self.moods.pop().unwrap_or_default();
        match event {
            Event::Open { id } => (self.id, self.is_open) = (Some(id), true),
            Event::Message { id, message, closing } => {
                assert_eq!(closing, self.closing, "data behind the first Close is marked");
                if mood < 128 {
                    self.send(clients, id, message);
                    return;
                }
            }
            Event::Closing { initiator, .. } => {
                assert!(!self.closing && matches!(initiator, Initiator::Local | Initiator::Remote));
                self.closing = true;
            }
            Event::Close { report: closed, .. } => {
                assert_eq!(self.closing, closed.sent.is_some() || closed.received.is_some());
                self.closed = Some(*closed);
            }
            Event::HandshakeFailed { .. } => self.failed = true,
            _ => {}
        }
        if mood >= 100 {
            self.act(clients, &mut Input(&[mood, mood >> 1, mood >> 2, mood]));
        }
    }
}

impl Actor {
    fn act(&mut self, clients: &mut Clients<'_, ()>, input: &mut Input<'_>) {
        // A stale id is as good as none.
        let Some(id) = self.id else { return };
        match input.u8() % 20 {
            0..=2 => self.send(clients, id, input.piece()),
            3 => {
                let long = vec![input.u8(); usize::from(input.u16())];
                self.send(clients, id, long);
            }
            4 => self.accepted += clients.broadcast(input.piece(), |_| true).sent as u64,
            5 => {
                let sent = clients.ping(id, input.piece());
                let _ = sent.map_err(|error| seen::note("SendError", || format!("{error:?}")));
            }
            6 => drop(clients.close(id, frame(input))),
            7 => {
                let timing = CloseTiming {
                    close_timeout: input.flag().then(|| millis(input.u16())),
                    flush_budget: input.flag().then(|| millis(input.u16())),
                };
                clients.close_with(id, frame(input), timing);
            }
            8 => {
                let (frame, drop_queued) = (frame(input), input.flag());
                let began = if drop_queued {
                    clients.kick_now(id, input.piece(), frame)
                } else {
                    clients.kick(id, input.piece(), frame)
                };
                self.accepted += u64::from(began);
            }
            9 => drop(clients.answer_close(id, frame(input))),
            10 => drop(clients.terminate(id)),
            11 => drop(clients.terminate_with(id, input.pick(&[Abort::Reset, Abort::Fin, Abort::Auto]))),
            12 => drop(clients.pause(id)),
            13 => drop(clients.resume(id)),
            14 => {
                let state = input.pick(&[State::Open, State::LocalClosing, State::Closed]);
                clients.close_where(frame(input), pace(input), move |client| client.state() == state);
            }
            15 => drop(clients.terminate_where(|client| client.buffered_amount() > 0)),
            16 => {
                let mut plan = ShutdownPlan::default();
                plan.lame_duck = millis(u16::from(input.u8()));
                plan.listeners =
                    input.pick(&[LameDuckPolicy::Refuse, LameDuckPolicy::Serve, LameDuckPolicy::Close]);
                plan.frame = frame(input);
                plan.pace = pace(input);
                plan.grace = millis(input.u16());
                clients.shutdown(plan);
            }
            17 => clients.escalate(),
            18 => clients.abort(),
            _ => {
                let client = clients.get(id);
                assert_eq!(client.is_some_and(|client| client.state().is_established()), clients.len() == 1);
            }
        }
    }

    fn send<'m>(&mut self, clients: &mut Clients<'_, ()>, id: ConnectionId, message: impl Into<Payload<'m>>) {
        match clients.send(id, message) {
            Ok(()) => self.accepted += 1,
            Err(error) => seen::note("SendError", || format!("{error:?}")),
        }
    }

    fn check_end(&self) {
        assert!(!(self.is_open && self.failed), "it opened or it failed");
        assert_eq!(self.is_open, self.closed.is_some(), "every Open has its Close");
    }

    fn check_account(&self, frames: &Frames) {
        let Some(closed) = &self.closed else { return assert_eq!(self.accepted, 0) };
        let lost = &closed.lost;
        assert!(lost.partial <= 1);
        assert_eq!(
            self.accepted,
            frames.messages + lost.messages + lost.partial,
            "accepted; {frames:?}, {closed:?}"
        );
        assert_eq!(closed.sent_flushed, frames.close, "{frames:?}, {closed:?}");
    }
}

fn millis(n: u16) -> Duration {
    Duration::from_millis(u64::from(n))
}

fn frame(input: &mut Input<'_>) -> CloseFrame {
    let code = input.pick(&[1000, 1001, 1002, 1008, 1011, 1014, 3000, 4999, 0, 1006]);
    CloseCode::new(code)
        .map(|legal| CloseFrame::truncating(legal, ["", "bye"][usize::from(code % 2)]))
        .unwrap_or_default()
}

fn pace(input: &mut Input<'_>) -> Pace {
    match input.u8() {
        0..128 => Pace::AtOnce,
        n @ 128..192 => Pace::Rate(f64::from(n - 128)),
        n => Pace::Spread(Duration::from_millis(u64::from(n))),
    }
}

/// What a client finds behind the 101.
#[derive(Debug, Default)]
struct Frames {
    /// Whole data frames.
    messages: u64,
    /// A whole Close.
    close: bool,
}

fn frames(written: &[u8]) -> Frames {
    let head = written.windows(4).position(|window| window == b"\r\n\r\n").map(|at| at + 4);
    let mut rest = &written[head.unwrap_or(written.len())..];
    let mut frames = Frames::default();
    while let Some(header) = header::parse(rest).expect("what we write are frames") {
        // Pings are answered until the peer's Close is here (§5.5.2).
        assert!(!frames.close || header.opcode == Opcode::Pong, "{:?} follows a Close", header.opcode);
        assert!(header.mask.is_none() && header.fin && header.opcode != Opcode::Continuation);
        let Some(after) = rest.get(header.header_length + usize::try_from(header.length).expect("small")..)
        else {
            return frames;
        };
        frames.messages += u64::from(!header.opcode.is_control());
        frames.close |= header.opcode == Opcode::Close;
        rest = after;
    }
    frames
}
