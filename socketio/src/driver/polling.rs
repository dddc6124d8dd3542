//! HTTP beside the loop: long-polling and the application's pages, by hyper on a thread of its own (specification 4).
//!
//! The loop detaches the connections of plain requests and hands them over with what it has read. A request for the engine
//! goes to the loop as its head, and as its body when that is complete; the loop answers by number. All that is decided
//! about a session is decided there.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::http::request;
use hyper::service::Service;
use hyper::{Request, Response as HttpResponse};
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use super::wake::Waker;
use crate::config::Cors;
use crate::links::{RequestId, Response};

mod activity;
mod answers;
mod connection;
mod requests;
mod stream;
#[cfg(test)]
mod tests;
#[cfg(feature = "tls")]
mod tls;

pub(super) use self::stream::Handed;

/// The address of the peer: among the extensions of a request that the application's service gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerAddr(pub SocketAddr);

/// An error of the application's service.
pub type HttpError = Box<dyn std::error::Error + Send + Sync>;
/// A response's body, whatever it was before.
pub(super) type HttpBody = Pin<Box<dyn Body<Data = Bytes, Error = HttpError>>>;
type HttpFuture = Pin<Box<dyn Future<Output = Result<HttpResponse<HttpBody>, HttpError>>>>;
/// The application's service. It is called and polled on the HTTP thread alone.
pub(super) type HttpService = Box<dyn Fn(Request<Incoming>) -> HttpFuture + Send>;

/// What the HTTP thread tells the loop.
#[derive(Debug)]
pub(super) enum HttpInput {
    /// A request for the engine; for a POST, its body follows.
    Head { request: RequestId, head: Box<request::Parts>, peer: SocketAddr },
    /// The body; `None`: it exceeds `max_payload`.
    Body { request: RequestId, body: Option<Bytes> },
    /// The connection died before the answer.
    Gone { request: RequestId },
}

/// What the loop tells the HTTP thread.
enum Command {
    Connection {
        stream: Handed,
        received: Vec<u8>,
        peer: SocketAddr,
        permit: Permit,
    },
    Answer(RequestId, Answer),
    /// No keep-alive any more; requests in flight finish.
    Drain,
    /// All connections end.
    Cut,
}

/// How a request ends.
enum Answer {
    /// With headers of the application's.
    Response(Response, Vec<(String, String)>),
    /// Its connection ends without one.
    Abort,
}

/// The settings of the HTTP thread.
#[derive(Clone, Debug)]
pub(super) struct HttpSettings {
    pub(super) path: String,
    pub(super) max_payload: usize,
    pub(super) max_connections: usize,
    pub(super) max_inputs: usize,
    pub(super) head_timeout: Duration,
    pub(super) idle_timeout: Duration,
    pub(super) retry_after: Duration,
    pub(super) cors: Option<Cors>,
}

/// The HTTP thread, as the loop sees it. It ends when this is dropped.
pub(super) struct Http {
    commands: UnboundedSender<Command>,
    shared: Arc<Shared>,
    limit: usize,
    /// The `sid`s of requests that are not answered.
    waiting: HashMap<RequestId, Arc<str>>,
    /// Headers that the answers to these requests get.
    headers: HashMap<RequestId, Vec<(String, String)>>,
}

/// What both threads use.
struct Shared {
    inputs: Mutex<VecDeque<HttpInput>>,
    max_inputs: usize,
    connections: AtomicUsize,
    waker: Waker,
}

impl Http {
    /// Starts the thread.
    pub(super) fn start(
        settings: HttpSettings,
        service: Option<HttpService>,
        waker: Waker,
    ) -> io::Result<Self> {
        let limit = settings.max_connections;
        let shared = Arc::new(Shared {
            inputs: Mutex::default(),
            max_inputs: settings.max_inputs,
            connections: AtomicUsize::new(0),
            waker,
        });
        let (commands, to_do) = unbounded_channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let of_thread = Arc::clone(&shared);
        thread::Builder::new()
            .name("sio-http".into())
            .spawn(move || connection::run(&runtime, settings, service, of_thread, to_do))?;
        Ok(Self { commands, shared, limit, waiting: HashMap::new(), headers: HashMap::new() })
    }

    /// A place for one more connection, if there is one.
    pub(super) fn take_seat(&self) -> Option<Seat> {
        let shared = Arc::clone(&self.shared);
        // Given back when the permit is dropped, in any case.
        let before = shared.connections.fetch_add(1, Ordering::AcqRel);
        let permit = Permit { shared };
        (before < self.limit).then(|| Seat { permit, commands: self.commands.clone() })
    }

    /// Connections that are open.
    pub(super) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::Acquire)
    }

    /// Notes that a request of this session has come.
    pub(super) fn wait(&mut self, request: RequestId, sid: &str) {
        self.waiting.insert(request, sid.into());
    }

    /// The session of a request that is not answered.
    pub(super) fn waiting(&self, request: RequestId) -> Option<Arc<str>> {
        self.waiting.get(&request).cloned()
    }

    /// A request is gone: its session, if it was not answered.
    pub(super) fn gone(&mut self, request: RequestId) -> Option<Arc<str>> {
        self.waiting.remove(&request)
    }

    /// The answer to this request gets these headers, too. It is answered at once: nothing is kept for one that is gone.
    pub(super) fn add_headers(&mut self, request: RequestId, headers: Vec<(String, String)>) {
        self.headers.insert(request, headers);
    }

    /// Answers a request; one that is gone is ignored.
    pub(super) fn respond(&mut self, request: RequestId, response: Response) {
        self.waiting.remove(&request);
        let headers = self.headers.remove(&request).unwrap_or_default();
        self.command(Command::Answer(request, Answer::Response(response, headers)));
    }

    /// Ends the connection of a request without an answer.
    pub(super) fn abort(&mut self, request: RequestId) {
        self.waiting.remove(&request);
        self.command(Command::Answer(request, Answer::Abort));
    }

    /// No keep-alive any more.
    pub(super) fn drain(&self) {
        self.command(Command::Drain);
    }

    /// Ends all connections.
    pub(super) fn cut(&self) {
        self.command(Command::Cut);
    }

    /// Takes what has come since the last call.
    pub(super) fn take_inputs(&self, into: &mut VecDeque<HttpInput>) {
        into.append(&mut self.shared.inputs());
    }

    fn command(&self, command: Command) {
        // A thread that has ended has no requests.
        let _ = self.commands.send(command);
    }
}

/// A connection's place, until it is handed over.
pub(super) struct Seat {
    permit: Permit,
    commands: UnboundedSender<Command>,
}

impl Seat {
    /// Hands the connection to the HTTP thread.
    pub(super) fn hand_over(self, stream: Handed, received: Vec<u8>, peer: SocketAddr) {
        let Self { permit, commands } = self;
        // If the thread has ended, the connection ends, too.
        let _ = commands.send(Command::Connection { stream, received, peer, permit });
    }
}

/// A connection's place among those that may be open.
struct Permit {
    shared: Arc<Shared>,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.shared.connections.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Shared {
    fn inputs(&self) -> MutexGuard<'_, VecDeque<HttpInput>> {
        self.inputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A request, with its body if that has come, unless too many inputs wait.
    fn push_request(&self, head: HttpInput, body: Option<HttpInput>) -> Result<(), HttpInput> {
        let mut inputs = self.inputs();
        if inputs.len() >= self.max_inputs {
            return Err(head);
        }
        inputs.push_back(head);
        inputs.extend(body);
        drop(inputs);
        self.waker.wake();
        Ok(())
    }

    /// What follows a request: at most twice for each.
    fn push_more(&self, input: HttpInput) {
        self.inputs().push_back(input);
        self.waker.wake();
    }
}

/// The application's service, in a box.
pub(super) fn boxed_service<S, B>(service: S) -> HttpService
where
    S: Service<Request<Incoming>, Response = HttpResponse<B>> + Send + 'static,
    S::Future: 'static,
    S::Error: Into<HttpError>,
    B: Body + 'static,
    B::Error: Into<HttpError>,
{
    Box::new(move |request| {
        let response = service.call(request);
        Box::pin(async move {
            let response = response.await.map_err(Into::into)?;
            Ok(response.map(|body| Box::pin(Boxed(Box::pin(body))) as HttpBody))
        })
    })
}

/// A body whose data and errors are ours. It keeps its length.
struct Boxed<B>(Pin<Box<B>>);

impl<B> Body for Boxed<B>
where
    B: Body,
    B::Error: Into<HttpError>,
{
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        let frame = self.0.as_mut().poll_frame(cx);
        frame
            .map_ok(|frame| frame.map_data(|mut data| data.copy_to_bytes(data.remaining())))
            .map_err(Into::into)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}
