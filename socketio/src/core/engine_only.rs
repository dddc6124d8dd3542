//! Engine.IO alone: messages go to one handler as they are, and nothing of Socket.IO applies (specification 21).

use bytes::Bytes;

use super::state::{ConnKey, Io};
use super::{Core, Peer};
use crate::links::{Frame, FrameRef};
use crate::reason::Reason;

/// The handler of [`Core::on_engine_message`].
pub(super) type EngineHandler = Box<dyn FnMut(&mut EngineSession<'_>, FrameRef<'_>) + Send>;

/// An Engine.IO session, in the handler of its message.
pub struct EngineSession<'a> {
    io: Io<'a>,
    key: ConnKey,
}

impl Core {
    /// Serves Engine.IO alone: `handler` gets every message, which is not read as Socket.IO. Namespaces and `connect_timeout` do
    /// not apply. It is to be called before the first connection.
    pub fn on_engine_message(
        &mut self,
        handler: impl FnMut(&mut EngineSession<'_>, FrameRef<'_>) + Send + 'static,
    ) {
        self.on_engine_message = Some(Box::new(handler));
    }
}

impl EngineSession<'_> {
    /// Sends a text message. A session that has ended ignores it.
    pub fn send_text(&mut self, text: &str) {
        self.io.send_conn(self.key, &[Frame::text(format!("4{text}"))]);
    }

    /// Sends a binary message. A session that has ended ignores it.
    pub fn send_binary(&mut self, bytes: impl Into<Bytes>) {
        self.io.send_conn(self.key, &[Frame::Binary(bytes.into())]);
    }

    /// Closes the session, after what was sent before. A session that has ended ignores it.
    pub fn close(&mut self) {
        self.io.close_conn(self.key, Reason::ForcedClose);
    }

    /// The client. `None` once the session has ended.
    pub fn peer(&self) -> Option<&Peer> {
        self.io.state.conns.get(self.key).map(|conn| &*conn.peer)
    }
}

impl Io<'_> {
    pub(super) fn engine_message(&mut self, key: ConnKey, frame: FrameRef<'_>, handler: &mut EngineHandler) {
        self.guarded(|io| handler(&mut EngineSession { io: io.reborrow(), key }, frame));
    }
}
