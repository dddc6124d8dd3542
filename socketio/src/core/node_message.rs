//! What nodes say to each other, as JSON: at most once, unlogged.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD_NO_PAD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use super::state::{Address, Handshake, Peer, SocketInfo, Transport};
use crate::packet::{ArgsBuf, Event, Query};

/// A message to another node, or to all.
#[derive(Clone, Debug)]
pub(super) enum NodeMessage {
    /// Which sockets are in these rooms?
    /// Those after a number.
    Fetch { request: u64, namespace: Arc<str>, to: Address, after: u64 },
    /// The answer; if there are more, where the next question begins.
    Sockets { request: u64, sockets: Vec<SocketInfo>, more: Option<u64> },
    /// An event that is not logged.
    Event { namespace: Arc<str>, to: Address, event: Box<Event>, volatile: bool },
    /// An event that asks these sockets for an ack; not logged.
    Ask { id: u64, namespace: Arc<str>, to: Address, event: Box<Event>, timeout: Duration },
    /// The log of the namespace has an ask of this id, or will have: who does not read it says so at once.
    Asked { id: u64, namespace: Arc<str> },
    /// These sockets were asked.
    Expect { id: u64, sids: Vec<Arc<str>> },
    /// One of them has answered.
    Answer { id: u64, sid: Arc<str>, args: ArgsBuf },
    /// One of them will not answer.
    Gone { id: u64, sid: Arc<str> },
    /// `server_side_emit`; with a request an answer is wanted.
    ServerEvent { request: Option<u64>, event: Arc<str>, args: ArgsBuf },
    /// The answer; none: the node has no handler.
    ServerAnswer { request: u64, args: Option<ArgsBuf> },
}

impl NodeMessage {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        let value = match self {
            Self::Fetch { request, namespace, to, after } => {
                json!(["fetch", request, &**namespace, address(to), after])
            }
            Self::Sockets { request, sockets, more } => {
                json!(["sockets", request, sockets.iter().map(socket).collect::<Vec<_>>(), more])
            }
            Self::Event { namespace, to, event, volatile } => {
                json!(["event", &**namespace, address(to), packet(event), volatile])
            }
            Self::Ask { id, namespace, to, event, timeout } => {
                let ms = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
                json!(["ask", id, &**namespace, address(to), packet(event), ms])
            }
            Self::Asked { id, namespace } => json!(["asked", id, &**namespace]),
            Self::Expect { id, sids } => json!(["expect", id, texts(sids)]),
            Self::Answer { id, sid, args: list } => json!(["answer", id, &**sid, args(list)]),
            Self::Gone { id, sid } => json!(["gone", id, &**sid]),
            Self::ServerEvent { request, event, args: list } => {
                json!(["server-event", request, &**event, args(list)])
            }
            Self::ServerAnswer { request, args: list } => {
                json!(["server-answer", request, list.as_ref().map(args)])
            }
        };
        value.to_string().into_bytes()
    }

    /// `None`: it is of a later version, or not ours.
    pub(super) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let value: Value = serde_json::from_slice(bytes).ok()?;
        let (kind, fields) = value.as_array()?.split_first()?;
        Some(match (kind.as_str()?, fields) {
            ("fetch", [request, namespace, to, after]) => Self::Fetch {
                request: request.as_u64()?,
                namespace: namespace.as_str()?.into(),
                to: read_address(to)?,
                after: after.as_u64()?,
            },
            ("sockets", [request, sockets, more]) => Self::Sockets {
                request: request.as_u64()?,
                sockets: sockets.as_array()?.iter().map(read_socket).collect::<Option<_>>()?,
                more: more.as_u64(),
            },
            ("event", [namespace, to, event, volatile]) => Self::Event {
                namespace: namespace.as_str()?.into(),
                to: read_address(to)?,
                event: read_packet(event)?,
                volatile: volatile.as_bool()?,
            },
            ("ask", [id, namespace, to, event, ms]) => Self::Ask {
                id: id.as_u64()?,
                namespace: namespace.as_str()?.into(),
                to: read_address(to)?,
                event: read_packet(event)?,
                timeout: Duration::from_millis(ms.as_u64()?),
            },
            ("asked", [id, namespace]) => {
                Self::Asked { id: id.as_u64()?, namespace: namespace.as_str()?.into() }
            }
            ("expect", [id, sids]) => Self::Expect { id: id.as_u64()?, sids: read_texts(sids)? },
            ("answer", [id, sid, list]) => {
                Self::Answer { id: id.as_u64()?, sid: sid.as_str()?.into(), args: read_args(list)? }
            }
            ("gone", [id, sid]) => Self::Gone { id: id.as_u64()?, sid: sid.as_str()?.into() },
            ("server-event", [request, event, list]) => Self::ServerEvent {
                request: request.as_u64(),
                event: event.as_str()?.into(),
                args: read_args(list)?,
            },
            ("server-answer", [request, list]) => {
                Self::ServerAnswer { request: request.as_u64()?, args: read_args(list) }
            }
            _ => return None,
        })
    }
}

fn texts(list: &[Arc<str>]) -> Vec<&str> {
    list.iter().map(|text| &**text).collect()
}

fn read_texts(value: &Value) -> Option<Vec<Arc<str>>> {
    value.as_array()?.iter().map(|text| text.as_str().map(Arc::from)).collect()
}

fn address(to: &Address) -> Value {
    json!([texts(&to.rooms), texts(&to.except)])
}

fn read_address(value: &Value) -> Option<Address> {
    let [rooms, except] = value.as_array()?.as_slice() else { return None };
    Some(Address { rooms: read_texts(rooms)?.into(), except: read_texts(except)?.into() })
}

fn attachments(list: &[Bytes]) -> Vec<String> {
    list.iter().map(|bytes| BASE64.encode(bytes)).collect()
}

fn read_attachments(value: &Value) -> Option<Vec<Bytes>> {
    value.as_array()?.iter().map(|text| BASE64.decode(text.as_str()?).ok().map(Bytes::from)).collect()
}

/// JSON of clients goes as text: it is passed on as it came.
fn packet(event: &Event) -> Value {
    json!([event.packet(), attachments(event.attachments())])
}

fn read_packet(value: &Value) -> Option<Box<Event>> {
    let [packet, list] = value.as_array()?.as_slice() else { return None };
    Event::from_packet(packet.as_str()?, read_attachments(list)?.into()).ok().map(Box::new)
}

fn args(list: &ArgsBuf) -> Value {
    json!([list.json(), attachments(list.attachments())])
}

fn read_args(value: &Value) -> Option<ArgsBuf> {
    let [text, list] = value.as_array()?.as_slice() else { return None };
    ArgsBuf::from_json(text.as_str()?, read_attachments(list)?)
}

/// Of its message, nearly.
pub(super) fn bytes_of(info: &SocketInfo) -> usize {
    let (handshake, peer) = (&info.handshake, &info.handshake.peer);
    let texts = info.rooms.iter().chain(&info.data).chain(&handshake.auth).map(|text| text.len());
    let query = peer.query.iter().map(|(name, value)| name.len() + value.len());
    let headers = peer.headers.iter().map(|(name, value)| name.len() + value.len());
    200 + texts.chain(query).chain(headers).sum::<usize>()
}

fn socket(info: &SocketInfo) -> Value {
    let (handshake, peer) = (&info.handshake, &info.handshake.peer);
    let query: Vec<(&str, &str)> = peer.query.iter().collect();
    json!([
        &*info.id,
        texts(&info.rooms),
        info.data.as_deref(),
        &*handshake.namespace,
        handshake.auth.as_deref(),
        query,
        peer.headers,
        peer.path,
        peer.address.map(|address| address.to_string()),
        peer.time,
        peer.transport == Transport::Polling,
    ])
}

fn read_socket(value: &Value) -> Option<SocketInfo> {
    let [id, rooms, data, namespace, auth, query, headers, path, address, time, polling] =
        value.as_array()?.as_slice()
    else {
        return None;
    };
    let peer = Peer {
        query: Query::from_pairs(read_pairs(query)?),
        headers: read_pairs(headers)?,
        path: path.as_str()?.to_owned(),
        address: address.as_str().and_then(|address| address.parse().ok()),
        time: time.as_u64()?,
        transport: if polling.as_bool()? { Transport::Polling } else { Transport::WebSocket },
    };
    let handshake = Handshake {
        peer: Arc::new(peer),
        namespace: namespace.as_str()?.into(),
        auth: auth.as_str().map(Arc::from),
    };
    Some(SocketInfo {
        id: id.as_str()?.into(),
        rooms: read_texts(rooms)?,
        data: data.as_str().map(Arc::from),
        handshake: Arc::new(handshake),
    })
}

fn read_pairs(value: &Value) -> Option<Vec<(String, String)>> {
    let pair = |pair: &Value| {
        let [name, value] = pair.as_array()?.as_slice() else { return None };
        Some((name.as_str()?.to_owned(), value.as_str()?.to_owned()))
    };
    value.as_array()?.iter().map(pair).collect()
}
