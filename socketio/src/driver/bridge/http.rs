//! HTTP requests of the engine -> inputs of the core: the loop's part of long-polling.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use adjourn::Clients;
use adjourn::http::{DetachedStream, Response as RawResponse, Upgrade};
use bytes::Bytes;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, HeaderName, UPGRADE};
use hyper::http::request::Parts;

use super::{Bridge, RETRY_AFTER};
use crate::config::SocketIoConfig;
use crate::driver::conn::Conn;
use crate::driver::polling::{Handed, Http, HttpInput, HttpService, HttpSettings};
use crate::driver::request::RequestHead;
use crate::driver::wake::Waker;
use crate::engine::{Admission, EngineRequest, PostBody, Refusal};
use crate::links::RequestId;
use crate::packet::Query;

/// How long requests may keep a turn; then a WebSocket has its turn.
const SHARE: Duration = Duration::from_millis(1);

/// With fewer inputs left over the loop takes new ones. More stay with the HTTP thread, which limits their number.
const FEW: usize = 1024;

/// The HTTP thread once it runs, and which requests of it wait.
#[derive(Default)]
pub(super) struct HttpSide {
    http: Option<Http>,
    service: Option<HttpService>,
    inputs: VecDeque<HttpInput>,
}

impl HttpSide {
    pub(super) fn start(&mut self, config: &SocketIoConfig, waker: &Waker) -> io::Result<()> {
        if self.http.is_none() {
            let settings = HttpSettings {
                path: config.path.clone(),
                max_payload: config.input.max_payload,
                max_connections: config.counts.http_connections,
                max_inputs: config.counts.inbox,
                head_timeout: config.counts.http_head_timeout,
                idle_timeout: config.counts.http_idle_timeout,
                retry_after: RETRY_AFTER,
                cors: config.cors.clone(),
            };
            self.http = Some(Http::start(settings, self.service.take(), waker.clone())?);
        }
        Ok(())
    }

    pub(super) fn get(&self) -> Option<&Http> {
        self.http.as_ref()
    }

    pub(super) fn get_mut(&mut self) -> Option<&mut Http> {
        self.http.as_mut()
    }

    fn wait(&mut self, request: RequestId, sid: &str) {
        if let Some(http) = &mut self.http {
            http.wait(request, sid);
        }
    }

    /// Has a turn left something to the next one?
    pub(super) fn is_behind(&self) -> bool {
        !self.inputs.is_empty()
    }

    pub(super) fn connections(&self) -> usize {
        self.http.as_ref().map_or(0, Http::connections)
    }

    /// No keep-alive any more.
    pub(super) fn drain(&self) {
        if let Some(http) = &self.http {
            http.drain();
        }
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        if let Some(http) = &self.http {
            http.cut();
        }
    }
}

impl Bridge {
    pub(in crate::driver) fn set_service(&mut self, service: HttpService) {
        self.http.service = Some(service);
    }

    /// A plain request: the HTTP thread gets its connection.
    pub(super) fn plain<'r>(&self) -> Upgrade<'r, Conn> {
        let Some(seat) = self.http.get().and_then(Http::take_seat) else {
            return Upgrade::Answer(RawResponse::unavailable(RETRY_AFTER));
        };
        Upgrade::detach(move |detached| {
            let peer = detached.peer_addr();
            let (stream, received) = detached.into_parts();
            let stream = match stream {
                DetachedStream::Tcp(stream) => Handed::Tcp(stream),
                // It is read, written and waited for by the same calls.
                DetachedStream::Unix(stream) => Handed::Tcp(OwnedFd::from(stream).into()),
                #[cfg(feature = "tls")]
                DetachedStream::Tls(stream) => Handed::Tls(stream),
                other => {
                    tracing::error!(
                        target: "adjourn_socketio",
                        stream = ?other,
                        "plain HTTP requests need a socket, and over TLS the feature `tls`: connection closed"
                    );
                    return;
                }
            };
            seat.hand_over(stream, received, peer);
        })
    }

    /// Handles what the HTTP thread has reported, for as long as requests may keep a turn. Is something left for the next one?
    pub(super) fn take_http(&mut self, clients: &mut Clients<'_, Conn>) -> bool {
        let mut inputs = std::mem::take(&mut self.http.inputs);
        if let Some(http) = self.http.get().filter(|_| inputs.len() < FEW) {
            http.take_inputs(&mut inputs);
        }
        let end = self.clock.now() + SHARE;
        while let Some(input) = inputs.pop_front() {
            match input {
                HttpInput::Head { request, head, peer } => self.http_head(clients, request, &head, peer),
                HttpInput::Body { request, body } => {
                    let rest = self.http_body(clients, request, body.as_ref());
                    let rest =
                        body.zip(rest).map(|(body, rest)| body.slice(body.len().saturating_sub(rest)..));
                    inputs.extend(rest.map(|rest| HttpInput::Body { request, body: Some(rest) }));
                }
                HttpInput::Gone { request } => {
                    let Some(sid) = self.http.get_mut().and_then(|http| http.gone(request)) else { continue };
                    self.input(clients, |core, now, links| core.request_gone(request, &sid, now, links));
                }
            }
            if self.clock.now() >= end {
                break;
            }
        }
        self.http.inputs = inputs;
        self.http.is_behind()
    }

    /// Gives the length of what is to be handled later.
    fn http_body(
        &mut self,
        clients: &mut Clients<'_, Conn>,
        request: RequestId,
        body: Option<&Bytes>,
    ) -> Option<usize> {
        let sid = self.http.get().and_then(|http| http.waiting(request))?;
        let body = body.map_or(PostBody::TooLarge, |body| PostBody::Complete(body));
        let mut rest = None;
        self.input(clients, |core, now, links| rest = core.post_body(request, &sid, body, now, links));
        rest
    }

    fn http_head(
        &mut self,
        clients: &mut Clients<'_, Conn>,
        request: RequestId,
        head: &Parts,
        peer: SocketAddr,
    ) {
        // A request sees every deadline that had passed when it arrived.
        self.input(clients, |core, now, links| core.handle_timeout(now, links));
        let query = Query::parse(head.uri.query().unwrap_or_default());
        let upgrade = is_upgrade(&head.headers);
        let ask = EngineRequest { method: head.method.as_str(), query: &query, upgrade, detached: true };
        let from = RequestHead::of_http(head, peer, &query);
        let sid = query.get("sid").unwrap_or_default();
        match self.admit(&ask, &from) {
            Ok(Admission::OpenPolling) => {
                let peer = from.peer(&self.config.keep_headers, self.clock.millis());
                let headers = self.headers_of_application(&from);
                if let Some(http) = self.http.get_mut().filter(|_| !headers.is_empty()) {
                    http.add_headers(request, headers);
                }
                self.input(clients, |core, now, links| core.open_polling(request, peer, now, links));
            }
            Ok(Admission::Poll) => {
                self.http.wait(request, sid);
                self.input(clients, |core, now, links| core.poll(request, sid, now, links));
            }
            Ok(Admission::Post) => {
                self.http.wait(request, sid);
                let content_type = text(&head.headers, CONTENT_TYPE);
                let length = text(&head.headers, CONTENT_LENGTH).and_then(|length| length.parse().ok());
                self.input(clients, |core, now, links| {
                    core.post_head(request, sid, (content_type, length), now, links);
                });
            }
            // A connection that was detached is not upgraded: `admit` has refused it.
            Ok(_) => self.refuse(clients, request, &Refusal::bad_request()),
            Err(refusal) => self.refuse(clients, request, &refusal),
        }
    }

    fn refuse(&mut self, clients: &mut Clients<'_, Conn>, request: RequestId, refusal: &Refusal) {
        self.input(clients, |_, _, links| links.respond(request, refusal.response()));
    }
}

fn is_upgrade(headers: &HeaderMap) -> bool {
    text(headers, UPGRADE).is_some_and(|value| {
        value.split(',').any(|protocol| protocol.trim().eq_ignore_ascii_case("websocket"))
    })
}

fn text(headers: &HeaderMap, name: HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}
