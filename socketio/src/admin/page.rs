//! What the admin page is sent: the shapes of its events.

use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Map, Value, json};

use crate::core::{Io, Observation, Observed, SocketInfo, Transport};
use crate::stats::SocketIoStats;
use crate::store::Millis;

/// How long other processes may take to say which sockets they have.
const FETCH_TIMEOUT: Duration = Duration::from_secs(2);

/// What is remembered of the pages between two calls.
#[derive(Default)]
pub(super) struct Page {
    /// Pages that are connected to this process.
    pub(super) watchers: Vec<Arc<str>>,
    /// One of them has missed something.
    pub(super) is_stale: bool,
    /// The counters when they were sent last.
    last: SocketIoStats,
}

impl Page {
    /// `server_stats`.
    pub(super) fn stats(&mut self, server_id: &str, io: &Io<'_>) -> Value {
        let now = io.stats();
        let timestamp = io.store_time();
        let mut events = Vec::new();
        let mut count = |kind: &str, count: u64| {
            if count > 0 {
                events.push(json!({ "timestamp": timestamp, "type": kind, "count": count }));
            }
        };
        count("rawConnection", now.connections_opened - self.last.connections_opened);
        count("rawDisconnection", now.connections_closed - self.last.connections_closed);
        count("packetsIn", now.messages_in - self.last.messages_in);
        count("packetsOut", now.events_out - self.last.events_out);
        count("bytesIn", now.bytes_in - self.last.bytes_in);
        count("bytesOut", now.bytes_out - self.last.bytes_out);
        let namespaces: Vec<_> = (now.sockets.iter())
            .map(|(name, sockets)| json!({ "name": name, "socketsCount": sockets }))
            .collect();
        let stats = json!({
            "serverId": server_id,
            "hostname": hostname(),
            "pid": std::process::id(),
            "uptime": io.now().as_secs_f64(),
            "clientsCount": now.connections_polling + now.connections_websocket,
            "pollingClientsCount": now.connections_polling,
            "aggregatedEvents": events,
            "namespaces": namespaces,
        });
        self.last = now;
        stats
    }
}

/// Sends `all_sockets`, with those of other processes once they have answered, to one page or to all of this process. A page that
/// does not read it is disconnected as a slow consumer.
pub(super) fn send_all_sockets(admin: &str, page: Option<&Arc<str>>, io: &mut Io<'_>) {
    let namespaces: Vec<String> = io.stats().sockets.into_iter().map(|(name, _)| name).collect();
    let found = Arc::new(Mutex::new((namespaces.len(), Vec::new())));
    for namespace in namespaces {
        let (found, admin, page) = (Arc::clone(&found), admin.to_owned(), page.cloned());
        let of = namespace.clone();
        io.of(&of).fetch(FETCH_TIMEOUT, move |io, fetched| {
            let mut found = super::locked(&found);
            found.1.extend(fetched.sockets.iter().map(|info| socket(io, &namespace, info)));
            found.0 -= 1;
            if found.0 == 0 {
                let sockets = std::mem::take(&mut found.1);
                let pages = io.of(&admin).local();
                let pages = page.into_iter().fold(pages, |pages, id| pages.to(&id));
                super::report("all_sockets", pages.emit("all_sockets", (sockets,)));
            }
        });
    }
}

/// The event that tells the page of an observation.
pub(super) fn arguments(io: &mut Io<'_>, observed: &Observed) -> Option<(&'static str, Vec<Value>)> {
    let Observed { namespace, id, what } = observed;
    let (name, id) = (json!(&**namespace), json!(&**id));
    let now = date(io.store_time());
    Some(match what {
        Observation::Connected => {
            let info = io.socket(namespace, &observed.id)?.info();
            ("socket_connected", vec![socket(io, namespace, &info), now])
        }
        Observation::Upgraded => {
            ("socket_updated", vec![json!({ "id": id, "nsp": name, "transport": "websocket" })])
        }
        Observation::Joined(room) => ("room_joined", vec![name, json!(&**room), id, now]),
        Observation::Left(room) => ("room_left", vec![name, json!(&**room), id, now]),
        Observation::Received(event) => ("event_received", vec![name, id, parsed(event)?, now]),
        Observation::Sent(event) => ("event_sent", vec![name, id, parsed(event)?, now]),
        Observation::Disconnected(reason) => {
            ("socket_disconnected", vec![name, id, json!(reason.as_str()), now])
        }
    })
}

fn parsed(json: &str) -> Option<Value> {
    serde_json::from_str(json).ok()
}

fn socket(io: &mut Io<'_>, namespace: &str, info: &SocketInfo) -> Value {
    let peer = info.handshake.peer();
    // A socket of another process: only how it began is known.
    let (transport, client) = match io.socket(namespace, &info.id) {
        Some(socket) => (socket.transport(), format!("{:x}", socket.connection())),
        None => (peer.transport, info.id.to_string()),
    };
    let headers: Map<String, Value> =
        peer.headers.iter().map(|(name, value)| (name.clone(), json!(value))).collect();
    let query: Map<String, Value> =
        peer.query.iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
    json!({
        "id": &*info.id,
        "clientId": client,
        "transport": if transport == Transport::WebSocket { "websocket" } else { "polling" },
        "nsp": namespace,
        "data": info.data.as_deref().and_then(parsed).unwrap_or_else(|| json!({})),
        "handshake": {
            "address": peer.address.map(|address| address.ip().to_string()),
            "headers": headers,
            "query": query,
            "issued": peer.time,
            "secure": false,
            "time": date(peer.time),
            "url": peer.path,
            "xdomain": false,
        },
        "rooms": info.rooms.iter().map(|room| &**room).collect::<Vec<_>>(),
    })
}

/// As `Date` is sent in JSON.
fn date(milliseconds: Millis) -> Value {
    json!(humantime::format_rfc3339_millis(UNIX_EPOCH + Duration::from_millis(milliseconds)).to_string())
}

pub(super) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
