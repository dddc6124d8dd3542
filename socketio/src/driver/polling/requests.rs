//! Requests for the engine that wait for the loop's answer.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::{future, mem};

use bytes::BytesMut;
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
        let mut body = (head.method == Method::POST).then(|| Box::pin(self.read(id, body)));
        let came = match &mut body {
            Some(body) => poll_twice(body.as_mut()).await,
            None => None,
        };
        let (sender, answer) = oneshot::channel();
        let head = HttpInput::Head { request: id, head: Box::new(head), peer };
        let failed = matches!(came, Some(Err(Died)));
        let is_read = came.is_some();
        self.shared.push_request(head, came.and_then(Result::ok)).map_err(|_| Busy)?;
        self.waiting.borrow_mut().insert(id, sender);
        let mut waiting = Waiting { request: id, requests: Rc::clone(self), answered: false };
        if failed {
            return Ok(Answer::Abort);
        }
        let mut answer = pin!(answer);
        if let Some(mut body) = body.filter(|_| !is_read) {
            let first = future::poll_fn(|cx| {
                if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                    return Poll::Ready(Err(answer));
                }
                body.as_mut().poll(cx).map(Ok)
            });
            match first.await {
                Ok(Ok(input)) => self.shared.push_more(input),
                // `waiting` notifies the loop.
                Ok(Err(Died)) => return Ok(Answer::Abort),
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

    /// Reads a body as the input that it is to the loop.
    async fn read(&self, request: RequestId, mut body: Incoming) -> Result<HttpInput, Died> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Err(Died) };
            let Ok(data) = frame.into_data() else { continue };
            if whole.len().saturating_add(data.len()) > self.max_payload {
                return Ok(HttpInput::Body { request, body: None });
            }
            if whole.is_empty() && body.is_end_stream() {
                return Ok(HttpInput::Body { request, body: Some(data) });
            }
            whole.extend_from_slice(&data);
        }
        Ok(HttpInput::Body { request, body: Some(whole.freeze()) })
    }
}

/// The connection died before the end of a body.
struct Died;

/// A body that came with its head, so that one wake-up brings both to the loop. hyper gives the body to its reader in the poll after the
/// one in which it was wanted.
async fn poll_twice<F: Future>(mut body: Pin<&mut F>) -> Option<F::Output> {
    let mut polls = 0;
    future::poll_fn(|cx| {
        polls += 1;
        match body.as_mut().poll(cx) {
            Poll::Ready(output) => Poll::Ready(Some(output)),
            Poll::Pending if polls == 2 => Poll::Ready(None),
            Poll::Pending => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    })
    .await
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if !mem::replace(&mut self.answered, true) {
            self.requests.waiting.borrow_mut().remove(&self.request);
            self.requests.shared.push_more(HttpInput::Gone { request: self.request });
        }
    }
}
