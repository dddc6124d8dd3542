//! A request's head as the engine and the application need it, from adjourn or from hyper.

use std::net::SocketAddr;

use adjourn::http::UpgradeRequest;

use crate::core::{Peer, Transport};
use crate::packet::Query;
use crate::store::Millis;

/// A request that wants to open a session, before it is admitted.
#[derive(Clone, Copy)]
pub struct RequestHead<'r> {
    source: Source<'r>,
    query: &'r Query,
    peer: SocketAddr,
}

#[derive(Clone, Copy)]
enum Source<'r> {
    Loop(&'r UpgradeRequest<'r>),
    #[cfg(feature = "polling")]
    Http(&'r hyper::http::request::Parts),
}

impl<'r> RequestHead<'r> {
    pub(super) fn of_loop(request: &'r UpgradeRequest<'r>, query: &'r Query) -> Self {
        Self { source: Source::Loop(request), query, peer: request.peer_addr() }
    }

    #[cfg(feature = "polling")]
    pub(super) fn of_http(head: &'r hyper::http::request::Parts, peer: SocketAddr, query: &'r Query) -> Self {
        Self { source: Source::Http(head), query, peer }
    }

    /// The path, without the query.
    pub fn path(&self) -> &'r str {
        match self.source {
            Source::Loop(request) => request.path(),
            #[cfg(feature = "polling")]
            Source::Http(head) => head.uri.path(),
        }
    }

    /// The parameters, decoded.
    pub const fn query(&self) -> &'r Query {
        self.query
    }

    /// The first header of that name, in whatever case; `None` also if it is not text.
    pub fn header(&self, name: &str) -> Option<&'r str> {
        match self.source {
            Source::Loop(request) => request.header_text(name),
            #[cfg(feature = "polling")]
            Source::Http(head) => head.headers.get(name).and_then(|value| value.to_str().ok()),
        }
    }

    /// Where the TCP connection came from.
    pub const fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// What a handshake keeps of it. Allocates.
    pub(super) fn peer(&self, keep: &[String], time: Millis) -> Peer {
        let kept = |name: &String| self.header(name).map(|value| (name.clone(), value.to_owned()));
        let transport = match self.source {
            Source::Loop(_) => Transport::WebSocket,
            #[cfg(feature = "polling")]
            Source::Http(_) => Transport::Polling,
        };
        Peer {
            query: self.query.clone(),
            headers: keep.iter().filter_map(kept).collect(),
            path: self.path().to_owned(),
            address: Some(self.peer),
            time,
            transport,
        }
    }
}
