//! `/healthz` and `/stats`.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::sync::{Arc, OnceLock};

use adjourn_socketio::SocketIoHandle;
use adjourn_socketio::stats::SocketIoStats;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Request, Response, StatusCode};
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::process;

/// Known once the server is bound.
pub(crate) type LateHandle = Arc<OnceLock<SocketIoHandle>>;

pub(crate) async fn serve(
    handle: LateHandle,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (status, body) = match request.uri().path() {
        "/healthz" if handle.get().is_some_and(SocketIoHandle::ready) => (StatusCode::OK, "ok\n".to_owned()),
        "/healthz" => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        "/stats" => match ask(&handle).await {
            Some(stats) => (StatusCode::OK, format!("{}\n", json(&stats))),
            None => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        },
        #[cfg(feature = "metrics")]
        "/metrics" => match (handle.get(), ask(&handle).await) {
            (Some(handle), Some(stats)) => {
                (StatusCode::OK, adjourn_socketio::metrics::text(&handle.loop_stats(), &stats))
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "not ready\n".to_owned()),
        },
        _ => (StatusCode::NOT_FOUND, String::new()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    Ok(response)
}

async fn ask(handle: &LateHandle) -> Option<SocketIoStats> {
    let (sender, stats) = oneshot::channel();
    handle.get()?.defer(move |io| drop(sender.send(io.stats()))).ok()?;
    stats.await.ok()
}

fn json(stats: &SocketIoStats) -> Value {
    let mut all: Map<String, Value> =
        stats.counters().map(|(name, count)| (name.to_owned(), count.into())).collect();
    let sockets = stats.sockets.iter().map(|(namespace, count)| (namespace.clone(), (*count).into()));
    all.insert("sockets".to_owned(), Value::Object(sockets.collect()));
    let reasons =
        stats.disconnects.iter().map(|(reason, count)| (reason.as_str().to_owned(), (*count).into()));
    all.insert("disconnects".to_owned(), Value::Object(reasons.collect()));
    for (name, counts) in [
        ("resume_refusals", &stats.resume_refusals),
        ("decode_error_kinds", &stats.decode_error_kinds),
        ("state_error_kinds", &stats.state_error_kinds),
    ] {
        let counts = counts.iter().map(|(kind, count)| ((*kind).to_owned(), (*count).into()));
        all.insert(name.to_owned(), Value::Object(counts.collect()));
    }
    let us = |time: std::time::Duration| Value::from(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    all.insert("commit_time_max_us".to_owned(), us(stats.commit_time_max));
    all.insert("store_down_time_us".to_owned(), us(stats.store_down_time));
    all.insert("wrong_arguments".to_owned(), process::WRONG_ARGUMENTS.load(Ordering::Relaxed).into());
    all.insert("rss".to_owned(), process::rss().into());
    all.insert("fds".to_owned(), process::fds().into());
    Value::Object(all)
}
