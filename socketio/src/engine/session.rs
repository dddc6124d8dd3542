//! One session: its state and its inputs.

use std::mem;
use std::time::Duration;

use super::admission::{Refusal, SessionState};
use super::config::EngineConfig;
use super::heartbeat::{Beat, Heartbeat};
use super::outcome::{Context, Message, Outcome, PostBody, PostPackets};
use super::polling::{Polling, Probe, Queue, polled, posted, too_large};
use super::sid::Sid;
use crate::links::{Frame, FrameRef, LinkClose, LinkId, RequestId, SendRefused};
use crate::packet::{EnginePacket, EnginePacketError, split_payload};
use crate::reason::Reason;

/// One Engine.IO session. Each input first handles what has expired at `cx.now`.
#[derive(Debug)]
pub struct Engine {
    sid: Sid,
    heartbeat: Heartbeat,
    /// The POST whose body has not come yet.
    post: Option<RequestId>,
    state: State,
}

/// Where its packets come from and go to.
#[derive(Debug)]
enum State {
    WebSocket(LinkId),
    Polling(Box<Polling>),
    /// An orderly close on polling: GETs fetch what is queued until then, and `1` after it.
    Closing(Box<(Queue, Duration)>),
    Gone,
    /// Gone, without an answer to anything.
    Cut,
}

/// The send queue has no room: the session has been closed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowConsumer;

impl Engine {
    /// A session on a link that is open: sends the handshake.
    pub fn open_websocket(sid: Sid, link: LinkId, cx: &mut Context<'_>) -> Self {
        // A link that is ending already says so by its next event.
        let _ = cx.links.send(link, &[Frame::text(handshake(sid, "", cx.config))]);
        Self::new(sid, State::WebSocket(link), cx)
    }

    /// A session on polling: answers `request` by the handshake.
    pub fn open_polling(sid: Sid, request: RequestId, cx: &mut Context<'_>) -> Self {
        let upgrades = if cx.config.websocket { "\"websocket\"" } else { "" };
        cx.links.respond(request, polled(handshake(sid, upgrades, cx.config)));
        Self::new(sid, State::Polling(Box::default()), cx)
    }

    /// Requests without an answer: a GET that is held, a POST whose body has not come.
    pub fn waiting(&self) -> u64 {
        let held = matches!(&self.state, State::Polling(polling) if polling.held.is_some());
        u64::from(held) + u64::from(self.post.is_some())
    }

    fn new(sid: Sid, state: State, cx: &Context<'_>) -> Self {
        Self { sid, heartbeat: Heartbeat::new(cx.now, cx.config), post: None, state }
    }

    /// Its name: a credential.
    pub const fn sid(&self) -> Sid {
        self.sid
    }

    /// The link, on WebSocket.
    pub const fn link(&self) -> Option<LinkId> {
        match &self.state {
            State::WebSocket(link) => Some(*link),
            State::Polling(_) | State::Closing(_) | State::Gone | State::Cut => None,
        }
    }

    /// The link that probes it.
    pub fn probe_link(&self) -> Option<LinkId> {
        match &self.state {
            State::Polling(polling) => Some(polling.probe?.link),
            State::WebSocket(_) | State::Closing(_) | State::Gone | State::Cut => None,
        }
    }

    /// For [`super::admit`]; `None`: it is gone, and can be dropped after the input.
    pub fn state(&self) -> Option<SessionState> {
        match &self.state {
            State::WebSocket(_) => Some(SessionState::WebSocket),
            State::Polling(polling) if polling.probe.is_some() => Some(SessionState::Upgrading),
            State::Polling(_) => Some(SessionState::Polling),
            State::Closing(_) => Some(SessionState::Closing),
            State::Gone | State::Cut => None,
        }
    }

    /// Has nothing ended it yet?
    pub const fn is_open(&self) -> bool {
        matches!(self.state, State::WebSocket(_) | State::Polling(_))
    }

    // ---- links

    /// A message of its link, or of its probe's.
    pub fn message<'a>(&mut self, link: LinkId, frame: FrameRef<'a>, cx: &mut Context<'_>) -> Outcome<'a> {
        if let Some(ended) = self.expire(cx) {
            return ended;
        }
        if self.link() == Some(link) {
            self.packet(EnginePacket::decode(frame), cx)
        } else if self.probe_link() == Some(link) {
            self.probe_message(link, frame, cx)
        } else {
            Outcome::Nothing
        }
    }

    /// Its link, or its probe's, ends or has ended. `reason` is what that means if it was the session's.
    pub fn link_ended(&mut self, link: LinkId, reason: Reason, cx: &mut Context<'_>) -> Outcome<'static> {
        if let Some(ended) = self.expire(cx) {
            return ended;
        }
        match &mut self.state {
            State::WebSocket(own) if *own == link => {
                self.refuse_post(cx);
                self.state = State::Gone;
                Outcome::Ended(reason)
            }
            State::Polling(polling) if polling.probe.is_some_and(|probe| probe.link == link) => {
                polling.probe = None;
                Outcome::ProbeFailed
            }
            _ => Outcome::Nothing,
        }
    }

    /// A link that is open probes it (after [`super::Admission::Probe`]). Where there is nothing to probe any more, it gets a Close.
    pub fn probe(&mut self, link: LinkId, cx: &mut Context<'_>) -> Outcome<'static> {
        let ended = self.expire(cx);
        match &mut self.state {
            State::Polling(polling) if polling.probe.is_none() => {
                polling.probe = Some(Probe { link, until: cx.now + cx.config.upgrade_timeout, noop: None });
            }
            _ => cx.links.close(link, CLOSE),
        }
        ended.unwrap_or(Outcome::Nothing)
    }

    fn probe_message(&mut self, link: LinkId, frame: FrameRef<'_>, cx: &mut Context<'_>) -> Outcome<'static> {
        let State::Polling(polling) = &mut self.state else { return Outcome::Nothing };
        let Some(probe) = &mut polling.probe else { return Outcome::Nothing };
        match EnginePacket::decode(frame) {
            Ok(EnginePacket::Ping("probe")) => {
                // A link that does not take it is ending, and says so.
                let _ = cx.links.send(link, &[Frame::from_static("3probe")]);
                probe.noop = probe.noop.or(Some(cx.now));
                self.answer_noop(cx);
                Outcome::Nothing
            }
            Ok(EnginePacket::Upgrade) if probe.noop.is_some() => self.switch(link, cx),
            _ => {
                polling.probe = None;
                cx.links.close(link, CLOSE);
                Outcome::ProbeFailed
            }
        }
    }

    /// From polling to the probe's link, with all that is queued.
    fn switch(&mut self, link: LinkId, cx: &mut Context<'_>) -> Outcome<'static> {
        let State::Polling(polling) = mem::replace(&mut self.state, State::WebSocket(link)) else {
            return Outcome::Nothing;
        };
        if let Some(held) = polling.held {
            cx.links.respond(held, polled("6"));
        }
        let queued = polling.queue.into_frames();
        if !queued.is_empty() && self.send(&queued, cx).is_err() {
            return Outcome::Ended(Reason::SlowConsumer);
        }
        Outcome::Upgraded
    }

    // ---- requests

    /// A GET.
    pub fn poll(&mut self, request: RequestId, cx: &mut Context<'_>) -> Outcome<'static> {
        let ended = self.expire(cx);
        match &mut self.state {
            State::Polling(polling) if polling.held.is_some() => {
                cx.links.respond(request, Refusal::bad_request().response());
                return self.fail(Reason::TransportError, cx);
            }
            State::Polling(polling) => {
                if polling.queue.is_empty() {
                    polling.held = Some(request);
                    self.answer_noop(cx);
                } else {
                    cx.links.respond(request, polling.queue.take(cx.config.max_poll_response));
                }
            }
            State::Closing(closing) if !closing.0.is_empty() => {
                cx.links.respond(request, closing.0.take(cx.config.max_poll_response));
            }
            State::Closing(_) => {
                cx.links.respond(request, polled("1"));
                self.state = State::Gone;
            }
            State::WebSocket(_) => cx.links.respond(request, Refusal::bad_request().response()),
            State::Gone | State::Cut => cx.links.respond(request, Refusal::unknown_session().response()),
        }
        ended.unwrap_or(Outcome::Nothing)
    }

    /// The head of a POST; its body follows by [`Engine::post`].
    pub fn begin_post(
        &mut self,
        request: RequestId,
        content_type: Option<&str>,
        content_length: Option<u64>,
        cx: &mut Context<'_>,
    ) -> Outcome<'static> {
        let ended = self.expire(cx);
        let refusal = match &self.state {
            State::Polling(_) => None,
            State::WebSocket(_) => Some(Refusal::bad_request()),
            State::Closing(_) | State::Gone | State::Cut => Some(Refusal::unknown_session()),
        };
        if let Some(refusal) = refusal {
            cx.links.respond(request, refusal.response());
            return ended.unwrap_or(Outcome::Nothing);
        }
        if self.post.is_some() || content_type.is_some_and(is_octet_stream) {
            cx.links.respond(request, Refusal::bad_request().response());
            return self.fail(Reason::TransportError, cx);
        }
        let limit = cx.config.max_payload;
        if content_length.is_some_and(|length| usize::try_from(length).map_or(true, |length| length > limit))
        {
            cx.links.respond(request, too_large());
        } else {
            self.post = Some(request);
        }
        Outcome::Nothing
    }

    /// The body of a POST. Its packets come one by one from [`Engine::next_packet`].
    pub fn post<'a>(
        &mut self,
        request: RequestId,
        body: PostBody<'a>,
        cx: &mut Context<'_>,
    ) -> Result<PostPackets<'a>, Outcome<'static>> {
        if let Some(ended) = self.expire(cx) {
            return Err(ended);
        }
        // One that was answered meanwhile.
        self.post.take_if(|post| *post == request).ok_or(Outcome::Nothing)?;
        let body = match body {
            PostBody::Complete(body) if body.len() <= cx.config.max_payload => body,
            PostBody::Complete(_) | PostBody::TooLarge => {
                cx.links.respond(request, too_large());
                return Err(Outcome::Nothing);
            }
        };
        if let Ok(text) = std::str::from_utf8(body) {
            return Ok(PostPackets { request: Some(request), rest: Some(text) });
        }
        cx.links.respond(request, Refusal::bad_request().response());
        Err(self.fail(Reason::TransportError, cx))
    }

    /// The next packet's outcome; `None`: that was all, and the POST has been answered.
    pub fn next_packet<'a>(
        &mut self,
        packets: &mut PostPackets<'a>,
        cx: &mut Context<'_>,
    ) -> Option<Outcome<'a>> {
        let request = packets.request?;
        let payload = packets.rest.take().filter(|_| self.is_open());
        let Some((packet, rest)) = payload.map(split_payload) else {
            packets.request = None;
            match self.state {
                State::Cut => cx.links.abort(request),
                _ => cx.links.respond(request, posted()),
            }
            return None;
        };
        packets.rest = rest;
        let outcome = self.packet(EnginePacket::decode(FrameRef::Text(packet)), cx);
        if let Outcome::Ended(Reason::ParseError | Reason::TransportError) = outcome {
            packets.request = None;
            cx.links.respond(request, Refusal::bad_request().response());
        }
        Some(outcome)
    }

    /// Stops before the end of a POST; its rest is to be given to [`Engine::post`] again. Gives the length of the rest; `None`: there is
    /// none, or nobody wants it any more, which [`Engine::next_packet`] says.
    pub fn suspend_post(&mut self, packets: &mut PostPackets<'_>) -> Option<usize> {
        let rest = packets.rest.filter(|_| self.is_open())?;
        self.post = Some(packets.request.take()?);
        Some(rest.len())
    }

    /// The connection of a request died before its answer.
    pub fn request_gone(&mut self, request: RequestId, cx: &mut Context<'_>) -> Outcome<'static> {
        if let Some(ended) = self.expire(cx) {
            return ended;
        }
        let posting = self.post.take_if(|post| *post == request).is_some();
        match &mut self.state {
            State::Polling(polling) => {
                let held = polling.held.take_if(|held| *held == request).is_some();
                if held || posting { self.fail(Reason::TransportError, cx) } else { Outcome::Nothing }
            }
            _ => Outcome::Nothing,
        }
    }

    // ---- time

    /// When [`Engine::handle_timeout`] is to be called.
    pub fn next_timeout(&self) -> Option<Duration> {
        let heartbeat = self.heartbeat.due();
        match &self.state {
            State::WebSocket(_) => Some(heartbeat),
            State::Polling(polling) => {
                Some(polling.next_timeout().map_or(heartbeat, |probe| probe.min(heartbeat)))
            }
            State::Closing(closing) => Some(closing.1),
            State::Gone | State::Cut => None,
        }
    }

    /// Pings, expires, ends the probe. A call before its time does nothing.
    pub fn handle_timeout(&mut self, cx: &mut Context<'_>) -> Outcome<'static> {
        if let Some(ended) = self.expire(cx) {
            return ended;
        }
        self.answer_noop(cx);
        let State::Polling(polling) = &mut self.state else { return Outcome::Nothing };
        match polling.probe.take_if(|probe| probe.until <= cx.now) {
            Some(probe) => {
                cx.links.close(probe.link, CLOSE);
                Outcome::ProbeFailed
            }
            None => Outcome::Nothing,
        }
    }

    // ---- output

    /// Sends all frames, or none: then it is too slow, and has been closed. On a session that is not open it does nothing.
    pub fn send(&mut self, frames: &[Frame], cx: &mut Context<'_>) -> Result<(), SlowConsumer> {
        let taken = match &mut self.state {
            // A link that is gone: its event follows.
            State::WebSocket(link) => cx.links.send(*link, frames) != Err(SendRefused::Full),
            State::Polling(polling) => {
                let queued = polling.queue.push(frames, cx.config.send_queue);
                if let Some(held) = polling.held.take_if(|_| !polling.queue.is_empty()) {
                    cx.links.respond(held, polling.queue.take(cx.config.max_poll_response));
                }
                queued
            }
            State::Closing(_) | State::Gone | State::Cut => true,
        };
        if taken {
            return Ok(());
        }
        self.close(Reason::SlowConsumer, cx);
        Err(SlowConsumer)
    }

    /// Bytes queued that the client has not taken.
    pub fn unsent(&self, cx: &mut Context<'_>) -> usize {
        match &self.state {
            State::WebSocket(link) => cx.links.unsent(*link),
            State::Polling(polling) => polling.queue.bytes(),
            State::Closing(closing) => closing.0.bytes(),
            State::Gone | State::Cut => 0,
        }
    }

    /// Would a volatile event be sent now (specification 9)? At most `limit` bytes may be unsent; on polling a GET has to wait.
    pub fn takes_volatile(&self, limit: usize, cx: &mut Context<'_>) -> bool {
        match &self.state {
            State::WebSocket(link) => cx.links.unsent(*link) <= limit,
            State::Polling(polling) => polling.held.is_some(),
            State::Closing(_) | State::Gone | State::Cut => false,
        }
    }

    // ---- ends

    /// Ends it for a reason of the layer above: an orderly close. `false`: it had ended before.
    pub fn close(&mut self, reason: Reason, cx: &mut Context<'_>) -> bool {
        if !self.is_open() {
            return false;
        }
        self.refuse_post(cx);
        match mem::replace(&mut self.state, State::Gone) {
            State::WebSocket(link) => cx.links.close(link, close_of(reason)),
            State::Polling(polling) => {
                close_probe(&polling, cx);
                if let Some(held) = polling.held {
                    cx.links.respond(held, polled("1"));
                } else {
                    let until = cx.now + cx.config.close_timeout;
                    self.state = State::Closing(Box::new((polling.queue, until)));
                }
            }
            State::Closing(_) | State::Gone | State::Cut => (),
        }
        true
    }

    /// Ends its TCP connection without a Close. `false`: it had ended before.
    pub fn cut(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.is_open() {
            return false;
        }
        if let Some(post) = self.post.take() {
            cx.links.abort(post);
        }
        match mem::replace(&mut self.state, State::Cut) {
            State::WebSocket(link) => cx.links.close(link, LinkClose::Cut),
            State::Polling(polling) => {
                if let Some(probe) = polling.probe {
                    cx.links.close(probe.link, LinkClose::Cut);
                }
                if let Some(held) = polling.held {
                    cx.links.abort(held);
                }
            }
            State::Closing(_) | State::Gone | State::Cut => (),
        }
        true
    }

    /// A failure: it is gone at once.
    fn fail(&mut self, reason: Reason, cx: &mut Context<'_>) -> Outcome<'static> {
        self.end(reason, "1", cx)
    }

    /// Gone; a GET that is held is answered by `packet`.
    fn end(&mut self, reason: Reason, packet: &'static str, cx: &mut Context<'_>) -> Outcome<'static> {
        self.refuse_post(cx);
        match mem::replace(&mut self.state, State::Gone) {
            State::WebSocket(link) => cx.links.close(link, close_of(reason)),
            State::Polling(polling) => {
                close_probe(&polling, cx);
                if let Some(held) = polling.held {
                    cx.links.respond(held, polled(packet));
                }
            }
            State::Closing(_) | State::Gone | State::Cut => return Outcome::Nothing,
        }
        Outcome::Ended(reason)
    }

    // ---- parts of inputs

    /// What has expired, and the ping that is due.
    fn expire(&mut self, cx: &mut Context<'_>) -> Option<Outcome<'static>> {
        if matches!(&self.state, State::Closing(closing) if closing.1 <= cx.now) {
            self.state = State::Gone;
        }
        while self.is_open() {
            match self.heartbeat.handle_timeout(cx.now, cx.heard, cx.config) {
                Beat::Nothing => break,
                Beat::SendPing => {
                    if self.send(&[Frame::from_static("2")], cx).is_err() {
                        return Some(Outcome::Ended(Reason::SlowConsumer));
                    }
                }
                Beat::Expired => return Some(self.fail(Reason::PingTimeout, cx)),
            }
        }
        None
    }

    /// A packet of the session, on either transport.
    fn packet<'a>(
        &mut self,
        packet: Result<EnginePacket<'a>, EnginePacketError>,
        cx: &mut Context<'_>,
    ) -> Outcome<'a> {
        let outcome = match packet {
            Err(EnginePacketError) => return self.fail(Reason::ParseError, cx),
            Ok(EnginePacket::Ping(_)) => return self.fail(Reason::TransportError, cx),
            Ok(EnginePacket::Close) => return self.end(Reason::TransportClose, "6", cx),
            Ok(EnginePacket::Pong("probe")) => return Outcome::Nothing,
            Ok(EnginePacket::Pong(_)) => {
                self.heartbeat.pong(cx.now, cx.config);
                return Outcome::Nothing;
            }
            Ok(EnginePacket::Open | EnginePacket::Upgrade | EnginePacket::Noop) => Outcome::Ignored,
            Ok(EnginePacket::Text(text)) => Outcome::Message(Message::Text(text)),
            Ok(EnginePacket::Binary(bytes)) => Outcome::Message(Message::Binary(bytes)),
        };
        self.heartbeat.packet(cx.now, cx.config);
        outcome
    }

    /// Answers the GET that is held by a noop, if the probe wants that now.
    fn answer_noop(&mut self, cx: &mut Context<'_>) {
        if let State::Polling(polling) = &mut self.state
            && let Some(held) = polling.take_noop(cx.now)
        {
            cx.links.respond(held, polled("6"));
        }
    }

    /// The POST whose body is under way comes too late.
    fn refuse_post(&mut self, cx: &mut Context<'_>) {
        if let Some(post) = self.post.take() {
            cx.links.respond(post, Refusal::unknown_session().response());
        }
    }
}

const CLOSE: LinkClose = LinkClose::Empty { quick: false };

/// How a link is closed for a reason (specification 3, 5).
const fn close_of(reason: Reason) -> LinkClose {
    match reason {
        Reason::SlowConsumer => LinkClose::SlowConsumer,
        Reason::PingTimeout | Reason::SessionTakenOver => LinkClose::Empty { quick: true },
        _ => CLOSE,
    }
}

fn close_probe(polling: &Polling, cx: &mut Context<'_>) {
    if let Some(probe) = polling.probe {
        cx.links.close(probe.link, CLOSE);
    }
}

/// The open packet: these keys in this order, as the official server's.
fn handshake(sid: Sid, upgrades: &str, config: &EngineConfig) -> String {
    format!(
        "0{{\"sid\":\"{}\",\"upgrades\":[{upgrades}],\"pingInterval\":{},\"pingTimeout\":{},\"maxPayload\":{}}}",
        sid.as_str(),
        config.ping_interval.as_millis(),
        config.ping_timeout.as_millis(),
        config.max_payload
    )
}

/// A content type whose essence is `application/octet-stream`.
fn is_octet_stream(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default();
    essence.trim().eq_ignore_ascii_case("application/octet-stream")
}
