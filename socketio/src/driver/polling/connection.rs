//! The HTTP thread: takes connections and answers from the loop, and drives each connection by hyper until it is overdue.

use std::cell::RefCell;
use std::future::{self, Future as _};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response as HttpResponse};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, Sleep, sleep_until};

use super::activity::{Activity, Limits, Overdue};
use super::answers::{self, CorsHeaders, Noted};
use super::requests::{Busy, Requests};
use super::stream::{Carrier, Io};
use super::{Answer, Command, HttpBody, HttpError, HttpService, HttpSettings, PeerAddr, Shared};
use crate::driver::route::{Route, route};
use crate::engine::Refusal;

/// Bytes that hyper reads ahead of a connection: a head has to fit.
const READ_AHEAD: usize = 64 << 10;

/// What all connections use.
struct Server {
    settings: HttpSettings,
    service: Option<HttpService>,
    requests: Rc<Requests>,
    stage: watch::Receiver<Stage>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Serving,
    /// No keep-alive.
    Draining,
    Cut,
}

/// Runs until the loop has dropped its end.
pub(super) fn run(
    runtime: &Runtime,
    settings: HttpSettings,
    service: Option<HttpService>,
    shared: Arc<Shared>,
    mut commands: UnboundedReceiver<Command>,
) {
    let (stage, stages) = watch::channel(Stage::Serving);
    let requests = Requests::new(settings.max_payload, shared);
    let server = Rc::new(Server { settings, service, requests, stage: stages });
    // The connections are dropped with the set.
    LocalSet::new().block_on(runtime, async move {
        while let Some(command) = commands.recv().await {
            match command {
                Command::Connection { stream, received, peer, permit } => {
                    let server = Rc::clone(&server);
                    tokio::task::spawn_local(async move {
                        if let Ok(carrier) = stream.register() {
                            serve(server, carrier, received, peer).await;
                        }
                        drop(permit);
                    });
                }
                Command::Answer(request, answer) => server.requests.answer(request, answer),
                Command::Drain => {
                    stage.send_if_modified(|stage| {
                        let first = *stage == Stage::Serving;
                        if first {
                            *stage = Stage::Draining;
                        }
                        first
                    });
                }
                Command::Cut => {
                    stage.send_replace(Stage::Cut);
                    server.requests.abort_all();
                }
            }
        }
    });
}

/// One connection, from its first request to its end.
async fn serve(server: Rc<Server>, carrier: Carrier, received: Vec<u8>, peer: SocketAddr) {
    let limits = Limits { head: server.settings.head_timeout, idle: server.settings.idle_timeout };
    let activity = Rc::new(RefCell::new(Activity::new(limits, Instant::now())));
    let io = TokioIo::new(Io::new(carrier, received, Rc::clone(&activity)));
    let of_service = (Rc::clone(&server), Rc::clone(&activity));
    let service =
        service_fn(move |request| handle(Rc::clone(&of_service.0), Rc::clone(&of_service.1), request, peer));
    let mut stage = server.stage.clone();
    let first = *stage.borrow_and_update();
    let mut connection = http1::Builder::new()
        .keep_alive(first == Stage::Serving)
        .header_read_timeout(None)
        .max_buf_size(READ_AHEAD)
        .serve_connection(io, service);
    let overdue = {
        let mut changed = pin!(next_stage(stage));
        let mut timer = pin!(sleep_until(Instant::now() + limits.head));
        let connection = &mut connection;
        future::poll_fn(move |cx| {
            loop {
                if Pin::new(&mut *connection).poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                let Poll::Ready((new, stage)) = changed.as_mut().poll(cx) else { break };
                if new == Stage::Cut {
                    return Poll::Ready(None);
                }
                // One that is idle ends when it is polled once more.
                Pin::new(&mut *connection).graceful_shutdown();
                changed.set(next_stage(stage));
            }
            wait(&activity.borrow(), limits, timer.as_mut(), cx).map(Some)
        })
        .await
    };
    if overdue == Some(Overdue::Head) {
        connection.into_parts().io.into_inner().write_once(answers::REQUEST_TIMEOUT);
    }
}

/// Ready when the connection is overdue.
fn wait(
    activity: &Activity,
    limits: Limits,
    mut timer: Pin<&mut Sleep>,
    cx: &mut Context<'_>,
) -> Poll<Overdue> {
    loop {
        let (deadline, now) = (activity.deadline(), Instant::now());
        if let Some((_, overdue)) = deadline.filter(|(at, _)| *at <= now) {
            return Poll::Ready(overdue);
        }
        // Only set to an earlier time before it has run out: a busy connection sets it once in `idle`.
        let at = deadline.map_or(now + limits.idle, |(at, _)| at);
        if timer.is_elapsed() || timer.deadline() > at {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
    }
}

/// The stage after the one that was seen last.
async fn next_stage(mut stage: watch::Receiver<Stage>) -> (Stage, watch::Receiver<Stage>) {
    let changed = stage.changed().await;
    let new = if changed.is_ok() { *stage.borrow_and_update() } else { Stage::Cut };
    (new, stage)
}

/// One request.
async fn handle(
    server: Rc<Server>,
    activity: Rc<RefCell<Activity>>,
    mut request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<HttpResponse<Noted<impl FnMut() + Unpin>>, HttpError> {
    activity.borrow_mut().request();
    let response = match route(&server.settings.path, request.uri().path(), request.uri().query()) {
        Route::Engine => engine(&server, request, peer).await?,
        Route::Application => match &server.service {
            Some(service) => {
                request.extensions_mut().insert(PeerAddr(peer));
                service(request).await?
            }
            None => answers::not_found(),
        },
    };
    Ok(response.map(|body| Noted::new(body, move || activity.borrow_mut().answered())))
}

/// A request of the engine's path.
async fn engine(
    server: &Server,
    request: Request<Incoming>,
    peer: SocketAddr,
) -> Result<HttpResponse<HttpBody>, HttpError> {
    let settings = &server.settings;
    let (head, body) = request.into_parts();
    let cors = CorsHeaders::of(settings.cors.as_ref(), &head);
    if settings.cors.is_some() && head.method == Method::OPTIONS {
        return Ok(answers::preflight(cors));
    }
    let (response, headers) = match server.requests.ask(Request::from_parts(head, body), peer).await {
        Ok(Answer::Response(response, headers)) => (response, headers),
        Ok(Answer::Abort) => return Err("the connection is cut".into()),
        Err(Busy) => (Refusal::unavailable().response(), Vec::new()),
    };
    Ok(answers::of_engine(response, headers, cors, settings.retry_after))
}
