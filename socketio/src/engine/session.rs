//! One session: its state and its inputs.

use std::time::Duration;

use super::admission::SessionState;
use super::outcome::{Context, Outcome, PostBody, PostPackets};
use super::sid::Sid;
use crate::links::{Frame, LinkId, RequestId};
use crate::reason::Reason;

/// One Engine.IO session. Each input first handles what has expired at `cx.now`.
#[derive(Debug)]
pub struct Engine {
    sid: Sid,
}

impl Engine {
    /// A session on a link that is open: sends the handshake.
    pub fn open_websocket(_sid: Sid, _link: LinkId, _cx: &mut Context<'_>) -> Self {
        todo!()
    }

    /// A session on polling: answers `request` by the handshake.
    pub fn open_polling(_sid: Sid, _request: RequestId, _cx: &mut Context<'_>) -> Self {
        todo!()
    }

    /// Its name: a credential.
    pub const fn sid(&self) -> Sid {
        self.sid
    }

    /// The link, on WebSocket.
    pub fn link(&self) -> Option<LinkId> {
        todo!()
    }

    /// The link that probes it.
    pub fn probe_link(&self) -> Option<LinkId> {
        todo!()
    }

    /// For [`super::admit`]; `None`: it is gone, and can be dropped after the input.
    pub fn state(&self) -> Option<SessionState> {
        todo!()
    }

    /// Has nothing ended it yet?
    pub fn is_open(&self) -> bool {
        todo!()
    }

    // ---- inputs

    /// A message of its link, or of its probe's.
    pub fn message<'a>(
        &mut self,
        _link: LinkId,
        _frame: crate::links::FrameRef<'a>,
        _cx: &mut Context<'_>,
    ) -> Outcome<'a> {
        todo!()
    }

    /// Its link, or its probe's, ends or has ended. `reason` is what that means if it was the session's.
    pub fn link_ended(&mut self, _link: LinkId, _reason: Reason, _cx: &mut Context<'_>) -> Outcome<'static> {
        todo!()
    }

    /// A link that is open probes it (after [`super::Admission::Probe`]).
    pub fn probe(&mut self, _link: LinkId, _cx: &mut Context<'_>) -> Outcome<'static> {
        todo!()
    }

    /// A GET.
    pub fn poll(&mut self, _request: RequestId, _cx: &mut Context<'_>) -> Outcome<'static> {
        todo!()
    }

    /// The head of a POST; its body follows by [`Engine::post`].
    pub fn begin_post(
        &mut self,
        _request: RequestId,
        _content_type: Option<&str>,
        _content_length: Option<u64>,
        _cx: &mut Context<'_>,
    ) -> Outcome<'static> {
        todo!()
    }

    /// The body of a POST. Its packets come one by one from [`Engine::next_packet`].
    pub fn post<'a>(
        &mut self,
        _request: RequestId,
        _body: PostBody<'a>,
        _cx: &mut Context<'_>,
    ) -> Result<PostPackets<'a>, Outcome<'static>> {
        todo!()
    }

    /// The next packet's outcome; `None`: that was all, and the POST has been answered.
    pub fn next_packet<'a>(
        &mut self,
        _packets: &mut PostPackets<'a>,
        _cx: &mut Context<'_>,
    ) -> Option<Outcome<'a>> {
        todo!()
    }

    /// The connection of a request died before its answer.
    pub fn request_gone(&mut self, _request: RequestId, _cx: &mut Context<'_>) -> Outcome<'static> {
        todo!()
    }

    /// When [`Engine::handle_timeout`] is to be called, at the latest.
    pub fn next_timeout(&self, _config: &super::EngineConfig) -> Option<Duration> {
        todo!()
    }

    /// Pings, expires, ends the probe. A call before its time does nothing.
    pub fn handle_timeout(&mut self, _cx: &mut Context<'_>) -> Outcome<'static> {
        todo!()
    }

    // ---- output

    /// Sends all frames, or none: then it is too slow, and has been closed. On a session that is not open it does nothing.
    pub fn send(&mut self, _frames: &[Frame], _cx: &mut Context<'_>) -> Result<(), SlowConsumer> {
        todo!()
    }

    /// Bytes queued that the client has not taken.
    pub fn unsent(&self, _cx: &mut Context<'_>) -> usize {
        todo!()
    }

    /// Would a volatile event be sent now (SESSIONS.md 9)?
    pub fn takes_volatile(&self, _limit: usize, _cx: &mut Context<'_>) -> bool {
        todo!()
    }

    /// Ends it for a reason of the layer above: an orderly close. `false`: it had ended before.
    pub fn close(&mut self, _reason: Reason, _cx: &mut Context<'_>) -> bool {
        todo!()
    }

    /// Ends its TCP connection without a Close. `false`: it had ended before.
    pub fn cut(&mut self, _cx: &mut Context<'_>) -> bool {
        todo!()
    }
}

/// The send queue has no room: the session has been closed for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlowConsumer;
