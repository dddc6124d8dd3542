//! Messages between nodes by pub/sub, and heartbeats.

use std::sync::Arc;
use std::time::Duration;

use super::keys::Keys;
use super::servers::Servers;
use super::values;
use crate::store::{Bus, BusReceiver, Millis, NodeId, StoreError};

/// A node without a heartbeat for so long is dead.
const SILENCE: Duration = Duration::from_secs(5);
/// A node that has been dead for so long is forgotten: later than the sessions that it held.
const FORGOTTEN: Duration = Duration::from_hours(24);
const FAILURE_PAUSE: Duration = Duration::from_millis(50);

pub(super) struct RedisBus {
    servers: Servers,
    keys: Keys,
    node: Arc<str>,
}

impl RedisBus {
    pub(super) fn new(servers: Servers, keys: Keys, node: Arc<str>) -> Self {
        Self { servers, keys, node }
    }

    /// The store's time.
    pub(super) fn time(&mut self) -> Result<Millis, StoreError> {
        self.servers.time()
    }
}

impl Bus for RedisBus {
    fn send(&mut self, to: Option<&NodeId>, message: &[u8]) {
        let channel = self.keys.channel(to.map(|node| &*node.0));
        let mut framed = self.node.as_bytes().to_vec();
        framed.push(b' ');
        framed.extend_from_slice(message);
        let sent = self
            .servers
            .try_command(&channel, |channel| redis::cmd("PUBLISH").arg(channel).arg(&framed).take());
        if let Err(error) = sent {
            tracing::debug!(target: "adjourn_socketio", %error, "a message to other nodes is lost");
        }
    }

    fn beat(&mut self) -> Result<Vec<NodeId>, StoreError> {
        let key = self.keys.nodes();
        let time = self.servers.time()?;
        let since = |ago: Duration| time.saturating_sub(crate::store::millis(ago));
        self.servers
            .try_command(&key, |key| redis::cmd("ZADD").arg(key).arg(time).arg(&*self.node).take())?;
        self.servers.try_command(&key, |key| {
            redis::cmd("ZREMRANGEBYSCORE").arg(key).arg("-inf").arg(since(FORGOTTEN)).take()
        })?;
        let nodes = self.servers.try_command(&key, |key| {
            redis::cmd("ZRANGEBYSCORE").arg(key).arg(since(SILENCE)).arg("+inf").take()
        })?;
        let nodes = values::list(&nodes).ok_or_else(values::damaged)?;
        // The receiver's sign that its connection lives.
        let own = NodeId(Arc::clone(&self.node));
        self.send(Some(&own), &[]);
        Ok(nodes.iter().filter_map(values::text).map(|node| NodeId(node.into())).collect())
    }
}

pub(super) struct RedisBusReceiver {
    servers: Servers,
    keys: Keys,
    node: Arc<str>,
    connection: Option<redis::Connection>,
}

impl RedisBusReceiver {
    pub(super) fn new(servers: Servers, keys: Keys, node: Arc<str>) -> Self {
        Self { servers, keys, node, connection: None }
    }

    fn receive(&mut self) -> Result<Option<(NodeId, Vec<u8>)>, StoreError> {
        if self.connection.is_none() {
            let mut connection = self.servers.dedicated()?;
            // This node's own heartbeats come by: without them the connection is of no use.
            connection.set_read_timeout(Some(SILENCE))?;
            let channels = [self.keys.channel(None), self.keys.channel(Some(&self.node))];
            connection.send_packed_command(&redis::cmd("SUBSCRIBE").arg(&channels).get_packed_command())?;
            self.connection = Some(connection);
        }
        let Some(connection) = &mut self.connection else { return Ok(None) };
        let Some(message) = redis::Msg::from_owned_value(connection.recv_response()?) else {
            return Ok(None);
        };
        let bytes = message.get_payload_bytes();
        let Some(blank) = bytes.iter().position(|byte| *byte == b' ') else { return Ok(None) };
        let (node, rest) = bytes.split_at(blank);
        let Ok(node) = std::str::from_utf8(node) else { return Ok(None) };
        if node == &*self.node {
            return Ok(None);
        }
        Ok(Some((NodeId(node.into()), rest.get(1..).unwrap_or_default().to_vec())))
    }
}

impl BusReceiver for RedisBusReceiver {
    fn next(&mut self) -> Option<(NodeId, Vec<u8>)> {
        self.receive().unwrap_or_else(|error| {
            tracing::debug!(target: "adjourn_socketio", %error, "messages of other nodes cannot be read");
            self.connection = None;
            std::thread::sleep(FAILURE_PAUSE);
            None
        })
    }
}
