//! Requests for the engine that wait for the loop's answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future as _;
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::{future, mem};

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::{Body as _, Incoming};
use hyper::{Method, Request};
use tokio::sync::oneshot;

use super::{Answer, HttpInput, Shared};
use crate::links::RequestId;

/// The requests that wait, by number. Of the HTTP thread alone.
pub(super) struct Requests {
    waiting: RefCell<HashMap<RequestId, oneshot::Sender<Answer>>>,
    next: Cell<u64>,
    max_payload: usize,
    shared: Arc<Shared>,
}

/// A request that waits. Dropping it without an answer notifies the loop.
struct Waiting {
    request: RequestId,
    requests: Rc<Requests>,
    answered: bool,
}

/// Too many requests wait for the loop.
pub(super) struct Busy;

impl Requests {
    pub(super) fn new(max_payload: usize, shared: Arc<Shared>) -> Rc<Self> {
        Rc::new(Self { waiting: RefCell::default(), next: Cell::new(1), max_payload, shared })
    }

    /// The loop's answer; the connection may have gone.
    pub(super) fn answer(&self, request: RequestId, answer: Answer) {
        let waiting = self.waiting.borrow_mut().remove(&request);
        if let Some(waiting) = waiting {
            let _ = waiting.send(answer);
        }
    }

    /// Ends them all without an answer.
    pub(super) fn abort_all(&self) {
        for (_, waiting) in self.waiting.borrow_mut().drain() {
            let _ = waiting.send(Answer::Abort);
        }
    }

    /// Asks the loop. A body is read while the loop looks at the head, and no longer than until it has answered.
    pub(super) async fn ask(
        self: &Rc<Self>,
        request: Request<Incoming>,
        peer: SocketAddr,
    ) -> Result<Answer, Busy> {
        let id = RequestId(self.next.get());
        self.next.set(id.0 + 1);
        let (head, body) = request.into_parts();
        let is_post = head.method == Method::POST;
        let (sender, answer) = oneshot::channel();
        let head = HttpInput::Head { request: id, head: Box::new(head), peer };
        self.shared.push_request(head).map_err(|_| Busy)?;
        self.waiting.borrow_mut().insert(id, sender);
        let mut waiting = Waiting { request: id, requests: Rc::clone(self), answered: false };
        let mut answer = pin!(answer);
        if is_post {
            let mut read = pin!(self.read(body));
            let first = future::poll_fn(|cx| {
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Err(answer));
                }
                read.as_mut().poll(cx).map(Ok)
            });
            match first.await {
                // The connection died: `waiting` says so.
                Ok(Read::Failed) => return Ok(Answer::Abort),
                Ok(Read::Complete(body)) => {
                    self.shared.push_more(HttpInput::Body { request: id, body: Some(body) });
                }
                Ok(Read::TooLarge) => self.shared.push_more(HttpInput::Body { request: id, body: None }),
                Err(answer) => {
                    waiting.answered = true;
                    return Ok(answer.unwrap_or(Answer::Abort));
                }
            }
        }
        let answer = answer.await;
        waiting.answered = true;
        Ok(answer.unwrap_or(Answer::Abort))
    }

    async fn read(&self, mut body: Incoming) -> Read {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Read::Failed };
            let Ok(data) = frame.into_data() else { continue };
            if whole.len().saturating_add(data.len()) > self.max_payload {
                return Read::TooLarge;
            }
            if whole.is_empty() && body.is_end_stream() {
                return Read::Complete(data);
            }
            whole.extend_from_slice(&data);
        }
        Read::Complete(whole.freeze())
    }
}

/// How the reading of a body ended.
enum Read {
    Complete(Bytes),
    TooLarge,
    Failed,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !mem::replace(&mut self.answered, true) {
            self.requests.waiting.borrow_mut().remove(&self.request);
            self.requests.shared.push_more(HttpInput::Gone { request: self.request });
        }
    }
}
