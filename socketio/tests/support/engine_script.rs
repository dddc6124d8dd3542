//! Scripts for one Engine.IO session in virtual time: a row is an input and what it led to, both as text.
//!
//! Inputs, after the time in milliseconds: `get R`, `post R payload`, `begin R [type|length]`, `body R payload`, `raw R hex`,
//! `large R`, `gone R`, `probe L`, `ws L text`, `bin L hex`, `ended L`, `send frames..`, `send-bin hex`, `close reason`, `cut`,
//! `tick`, `full`. Packets of a payload are separated by `|`, here for 0x1E.
//!
//! Outputs: `R=200 payload`, `R=400/3` (status and code), `R aborted`, `L<text`, `L<[bytes]`, `L closed`, `L quick`, `L 1013`,
//! `L cut`; then what the input led to: `"message"`, `<bytes>`, `ignored`, `upgraded`, `probe failed`, `! reason`.

use std::time::Duration;

use adjourn_socketio::engine::{Context, Engine, EngineConfig, Message, Outcome, PostBody, Sid};
use adjourn_socketio::links::{Frame, FrameRef, LinkClose, LinkId, Links, RequestId, Response, SendRefused};
use adjourn_socketio::reason::Reason;

/// What happened, in order.
#[derive(Default)]
pub(crate) struct Recorder {
    pub(crate) lines: Vec<String>,
    pub(crate) full: bool,
    pub(crate) unsent: usize,
}

impl Links for Recorder {
    fn send(&mut self, link: LinkId, frames: &[Frame]) -> Result<(), SendRefused> {
        if self.full {
            return Err(SendRefused::Full);
        }
        self.lines.extend(frames.iter().map(|frame| format!("L{}<{}", link.0, show(frame.borrow()))));
        Ok(())
    }

    fn send_to(&mut self, links: &[LinkId], frames: &[Frame], refused: &mut Vec<(LinkId, SendRefused)>) {
        for link in links {
            refused.extend(self.send(*link, frames).err().map(|why| (*link, why)));
        }
    }

    fn unsent(&mut self, _link: LinkId) -> usize {
        self.unsent
    }

    fn close(&mut self, link: LinkId, how: LinkClose) {
        let how = match how {
            LinkClose::Empty { quick: false } => "closed",
            LinkClose::Empty { quick: true } => "quick",
            LinkClose::SlowConsumer => "1013",
            LinkClose::Cut => "cut",
        };
        self.lines.push(format!("L{} {how}", link.0));
    }

    fn respond(&mut self, request: RequestId, response: Response) {
        let body = std::str::from_utf8(&response.body).expect("UTF-8").replace('\u{1e}', "|");
        let line = match response.status {
            200 => format!("{}=200 {body}", request.0),
            413 => format!("{}=413", request.0),
            status => {
                let code = body.split([':', ',']).nth(1).expect("a code");
                format!("{}={status}/{code}", request.0)
            }
        };
        self.lines.push(line);
    }

    fn abort(&mut self, request: RequestId) {
        self.lines.push(format!("{} aborted", request.0));
    }
}

/// A session, its settings and its time.
pub(crate) struct Script {
    pub(crate) engine: Engine,
    pub(crate) config: EngineConfig,
    pub(crate) links: Recorder,
    pub(crate) now: Duration,
    /// Is every message sent back?
    pub(crate) echo: bool,
}

pub(crate) fn config() -> EngineConfig {
    EngineConfig {
        ping_interval: Duration::from_millis(300),
        ping_timeout: Duration::from_millis(200),
        upgrade_timeout: Duration::from_secs(1),
        close_timeout: Duration::from_millis(500),
        max_payload: 100,
        max_poll_response: 30,
        send_queue: 100,
        polling: true,
        websocket: true,
    }
}

pub(crate) fn sid() -> Sid {
    Sid::from_random([7; 15])
}

impl Script {
    /// A session that GET 1 has opened.
    pub(crate) fn polling() -> Self {
        Self::open(|cx| Engine::open_polling(sid(), RequestId(1), cx))
    }

    /// A session on link 1.
    pub(crate) fn websocket() -> Self {
        Self::open(|cx| Engine::open_websocket(sid(), LinkId(1), cx))
    }

    fn open(open: impl FnOnce(&mut Context<'_>) -> Engine) -> Self {
        let (config, mut links, now) = (config(), Recorder::default(), Duration::ZERO);
        let engine = open(&mut Context { now, heard: now, config: &config, links: &mut links });
        Self { engine, config, links, now, echo: false }
    }

    pub(crate) fn echoing(mut self) -> Self {
        self.echo = true;
        self
    }

    /// Each row: an input, and what it led to, joined by `, `.
    #[track_caller]
    pub(crate) fn run(mut self, rows: &[(&str, &str)]) -> Self {
        self.links.lines.clear();
        for (input, expected) in rows {
            assert_eq!(self.input(input), *expected, "{input}");
        }
        self
    }

    /// One input; what it led to.
    pub(crate) fn input(&mut self, input: &str) -> String {
        let (time, input) = input.split_once(' ').expect("a time and an input");
        self.now = Duration::from_millis(time.parse().expect("milliseconds"));
        let (name, rest) = input.split_once(' ').unwrap_or((input, ""));
        let (number, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let number = number.parse().unwrap_or(0);
        match name {
            "post" => {
                self.apply(|engine, cx| engine.begin_post(RequestId(number), None, None, cx));
                self.post(number, PostBody::Complete(text.replace('|', "\u{1e}").as_bytes()));
            }
            "body" => self.post(number, PostBody::Complete(text.replace('|', "\u{1e}").as_bytes())),
            "raw" => self.post(number, PostBody::Complete(&hex(text))),
            "large" => self.post(number, PostBody::TooLarge),
            "full" => self.links.full = true,
            "send" => {
                let frames: Vec<_> = rest.split(' ').map(Frame::text).collect();
                self.send(&frames);
            }
            "send-bin" => self.send(&[Frame::Binary(hex(rest).into())]),
            "close" => {
                let reason = reason(rest);
                let closed = self.with(|engine, cx| engine.close(reason, cx));
                self.links.lines.extend((!closed).then(|| "no-op".to_owned()));
            }
            "cut" => {
                let cut = self.with(Engine::cut);
                self.links.lines.extend((!cut).then(|| "no-op".to_owned()));
            }
            _ => self.apply(|engine, cx| other(engine, name, number, text, cx)),
        }
        std::mem::take(&mut self.links.lines).join(", ")
    }

    pub(crate) fn with<T>(&mut self, call: impl FnOnce(&mut Engine, &mut Context<'_>) -> T) -> T {
        let mut cx = Context { now: self.now, heard: self.now, config: &self.config, links: &mut self.links };
        call(&mut self.engine, &mut cx)
    }

    fn send(&mut self, frames: &[Frame]) {
        if self.with(|engine, cx| engine.send(frames, cx)).is_err() {
            self.links.lines.push("! slow consumer".to_owned());
        }
    }

    fn post(&mut self, number: u64, body: PostBody<'_>) {
        let mut packets = match self.with(|engine, cx| engine.post(RequestId(number), body, cx)) {
            Ok(packets) => packets,
            Err(outcome) => return self.outcome(outcome),
        };
        while let Some(outcome) = self.with(|engine, cx| engine.next_packet(&mut packets, cx)) {
            self.outcome(outcome);
        }
    }

    fn apply<'a>(&mut self, call: impl FnOnce(&mut Engine, &mut Context<'_>) -> Outcome<'a>) {
        let outcome = self.with(call);
        self.outcome(outcome);
    }

    fn outcome(&mut self, outcome: Outcome<'_>) {
        let line = match &outcome {
            Outcome::Nothing => return,
            Outcome::Ignored => "ignored".to_owned(),
            Outcome::Message(Message::Text(text)) => format!("{text:?}"),
            Outcome::Message(Message::Binary(bytes)) => format!("<{bytes:?}>"),
            Outcome::Upgraded => "upgraded".to_owned(),
            Outcome::ProbeFailed => "probe failed".to_owned(),
            Outcome::Ended(reason) => format!("! {reason}"),
        };
        self.links.lines.push(line);
        let back = match outcome {
            Outcome::Message(_) if !self.echo => return,
            Outcome::Message(Message::Text(text)) => Frame::text(format!("4{text}")),
            Outcome::Message(Message::Binary(bytes)) => Frame::Binary(bytes.into_owned().into()),
            _ => return,
        };
        self.send(&[back]);
    }
}

/// Inputs that need nothing of the script.
fn other(engine: &mut Engine, name: &str, number: u64, text: &str, cx: &mut Context<'_>) -> Outcome<'static> {
    let (link, request) = (LinkId(number), RequestId(number));
    match name {
        "get" => engine.poll(request, cx),
        "begin" => {
            let content_type = Some(text).filter(|text| text.contains('/'));
            engine.begin_post(request, content_type, text.parse().ok(), cx)
        }
        "gone" => engine.request_gone(request, cx),
        "probe" => engine.probe(link, cx),
        "ended" => engine.link_ended(link, Reason::TransportClose, cx),
        "tick" => engine.handle_timeout(cx),
        "ws" => owned(engine.message(link, FrameRef::Text(text), cx)),
        "bin" => owned(engine.message(link, FrameRef::Binary(&hex(text)), cx)),
        other => panic!("no input {other:?}"),
    }
}

fn owned(outcome: Outcome<'_>) -> Outcome<'static> {
    match outcome {
        Outcome::Message(Message::Text(text)) => Outcome::Message(Message::Text(text.to_owned().leak())),
        Outcome::Message(Message::Binary(bytes)) => {
            Outcome::Message(Message::Binary(bytes.into_owned().into()))
        }
        Outcome::Nothing => Outcome::Nothing,
        Outcome::Ignored => Outcome::Ignored,
        Outcome::Upgraded => Outcome::Upgraded,
        Outcome::ProbeFailed => Outcome::ProbeFailed,
        Outcome::Ended(reason) => Outcome::Ended(reason),
    }
}

fn reason(text: &str) -> Reason {
    let all = [
        Reason::ForcedClose,
        Reason::ServerNamespaceDisconnect,
        Reason::SessionTakenOver,
        Reason::SlowConsumer,
        Reason::ServerShuttingDown,
    ];
    all.into_iter().find(|reason| reason.as_str() == text).expect("a reason of the layer above")
}

fn show(frame: FrameRef<'_>) -> String {
    match frame {
        FrameRef::Text(text) => text.to_owned(),
        FrameRef::Binary(bytes) => format!("{bytes:?}"),
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len() / 2)
        .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).expect("hexadecimal"))
        .collect()
}
