//! [`Emitter`]: a process that only publishes.

use std::sync::Arc;

use crate::config::{InputLimits, OutputLimits};
use crate::error::{EmitError, StoreError};
use crate::offset::Position;
use crate::packet::{Event, ToArgs, is_namespace};
use crate::store::{Batch, EntryKind, NewEntry, NodeId, RedisStore, StoreSettings, Writer};

/// Publishes durable events to the clients of all nodes that share a Redis store, from a process that serves none: a worker, a
/// cron job. It writes the same entries as a node, and blocks until they are committed.
///
/// ```no_run
/// # use adjourn_socketio::Emitter;
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut emitter = Emitter::connect("redis://127.0.0.1:6379", "chat")?;
/// emitter.emit("/", &["news"], "headline", ("It works",))?;
/// # Ok(()) }
/// ```
pub struct Emitter {
    writer: Box<dyn Writer>,
    send_queue: usize,
}

/// An event was not published, and nobody gets it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PublishError {
    /// No client is in a namespace of this name: it begins with `/`, has no comma, and at most 1,024 bytes.
    #[error("{0:?} is not the name of a namespace")]
    Namespace(Box<str>),
    /// The event cannot be encoded, or no client could be sent it.
    #[error(transparent)]
    Event(#[from] EmitError),
    /// The store refused it.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Emitter {
    /// Connects to the Redis at `url`; `prefix` is that of the nodes.
    ///
    /// # Errors
    /// If it does not answer.
    pub fn connect(url: &str, prefix: &str) -> Result<Self, StoreError> {
        let node = NodeId(format!("emitter-{}", std::process::id()).into());
        let writer = RedisStore::new(url, prefix)?.open_writer(&node, &StoreSettings::default())?;
        Ok(Self { writer, send_queue: OutputLimits::default().send_queue })
    }

    /// The setting [`output.send_queue`](OutputLimits::send_queue) of the nodes: an event that is larger is refused, since nodes would pass
    /// over it. Default: theirs, 4 MiB.
    #[must_use]
    pub fn send_queue(mut self, bytes: usize) -> Self {
        self.send_queue = bytes;
        self
    }

    /// Emits to the sockets in any of these rooms, those of sessions that are away too; no rooms: to all of the namespace.
    /// Gives its position in the log. Blocks while the store does not answer.
    pub fn emit(
        &mut self,
        namespace: &str,
        rooms: &[&str],
        event: &str,
        args: impl ToArgs,
    ) -> Result<Position, PublishError> {
        let namespace: Arc<str> = namespace.into();
        let event = Event::new(&namespace, event, &args).map_err(EmitError::from)?;
        event.check_size(self.send_queue).map_err(EmitError::from)?;
        let attachments = Arc::clone(event.attachments());
        self.append(&namespace, rooms, EntryKind::Event, event.packet(), attachments)
    }

    /// Disconnects the sockets in any of these rooms, with their connections if `with_connection`; sessions that are away
    /// end when they come back.
    pub fn disconnect(
        &mut self,
        namespace: &str,
        rooms: &[&str],
        with_connection: bool,
    ) -> Result<Position, PublishError> {
        let packet = if with_connection { "true" } else { "false" };
        self.append(&namespace.into(), rooms, EntryKind::Disconnect, packet, Arc::new([]))
    }

    fn append(
        &mut self,
        namespace: &Arc<str>,
        rooms: &[&str],
        kind: EntryKind,
        packet: &str,
        attachments: Arc<[bytes::Bytes]>,
    ) -> Result<Position, PublishError> {
        check_namespace(namespace)?;
        let entry = NewEntry {
            namespace: Arc::clone(namespace),
            kind,
            rooms: rooms.iter().map(|room| Arc::from(*room)).collect(),
            except: Arc::new([]),
            packet: packet.into(),
            attachments,
            ack: None,
            until: None,
        };
        let batch = Batch { entries: vec![entry], ..Batch::default() };
        // The store's time is its own.
        let committed = self.writer.commit(&batch, 0)?;
        let position = committed.positions.first().copied();
        Ok(position.ok_or_else(|| StoreError::Failed("no position".into()))?)
    }
}

impl std::fmt::Debug for Emitter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Emitter").finish_non_exhaustive()
    }
}

/// A log that no node reads is trimmed by none.
fn check_namespace(name: &str) -> Result<(), PublishError> {
    // As a node takes it from a client by default.
    let max = InputLimits::default().max_name;
    if is_namespace(name, max) { Ok(()) } else { Err(PublishError::Namespace(name.into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_that_no_client_can_be_in_is_refused() {
        for name in ["/", "/chat", "/a:{b}?", &format!("/{}", "x".repeat(1023))] {
            assert!(check_namespace(name).is_ok(), "{name}");
        }
        for name in ["", "chat", "/a,b", &format!("/{}", "x".repeat(1024))] {
            assert!(check_namespace(name).is_err(), "{name}");
        }
    }
}
