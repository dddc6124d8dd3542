//! HTTP responses: those of the engine, and ours.

use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::{Body, Frame, SizeHint};
use hyper::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderName, HeaderValue, ORIGIN, RETRY_AFTER};
use hyper::http::request;
use hyper::{Method, Response as HttpResponse, StatusCode};

use super::super::cors::{self, CorsRequest};
use super::{HttpBody, HttpError};
use crate::config::Cors;
use crate::links::Response;

/// The headers that a request's answer gets by the option `cors`.
#[derive(Default)]
pub(super) struct CorsHeaders(Vec<(&'static str, String)>);

impl CorsHeaders {
    pub(super) fn of(cors: Option<&Cors>, head: &request::Parts) -> Self {
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        Self(cors.map_or_else(Vec::new, |cors| {
            cors::headers(
                cors,
                CorsRequest {
                    origin: text(ORIGIN),
                    request_headers: text(hyper::header::ACCESS_CONTROL_REQUEST_HEADERS),
                    preflight: head.method == Method::OPTIONS,
                },
            )
        }))
    }

    fn add_to<B>(self, response: &mut HttpResponse<B>) {
        for (name, value) in self.0 {
            // What a client asks for was a header's value before, and what is configured is checked here.
            if let Ok(value) = HeaderValue::from_str(&value) {
                response.headers_mut().append(name, value);
            }
        }
    }
}

/// An answer of the engine.
pub(super) fn of_engine(
    response: Response,
    of_application: Vec<(String, String)>,
    cors: CorsHeaders,
    retry_after: Duration,
) -> HttpResponse<HttpBody> {
    let Response { status, content_type, body, close } = response;
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut http = empty(status, body);
    let headers = http.headers_mut();
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Some(content_type) = content_type {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    }
    if status == StatusCode::SERVICE_UNAVAILABLE {
        headers.insert(RETRY_AFTER, HeaderValue::from(retry_after.as_secs()));
    }
    if close {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
    for (name, value) in of_application {
        // One that is no header is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
            http.headers_mut().append(name, value);
        }
    }
    cors.add_to(&mut http);
    http
}

/// 204: a preflight, with the option `cors`. Without `Content-Length`: RFC 9110 §8.6 forbids it, and hyper leaves it out.
pub(super) fn preflight(cors: CorsHeaders) -> HttpResponse<HttpBody> {
    let mut http = empty(StatusCode::NO_CONTENT, Bytes::new());
    cors.add_to(&mut http);
    http
}

/// 404: the application has no HTTP service.
pub(super) fn not_found() -> HttpResponse<HttpBody> {
    empty(StatusCode::NOT_FOUND, Bytes::new())
}

/// What is written to a connection whose head is not complete in time; it is closed then.
pub(super) const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

fn empty(status: StatusCode, body: Bytes) -> HttpResponse<HttpBody> {
    let mut http = HttpResponse::new(Box::pin(Full::new(body).map_err(HttpError::from)) as HttpBody);
    *http.status_mut() = status;
    http
}

/// A body that says when the connection has taken all of it, or has dropped it.
pub(super) struct Noted<F: FnMut()> {
    body: HttpBody,
    at_end: F,
}

impl<F: FnMut()> Noted<F> {
    pub(super) fn new(body: HttpBody, at_end: F) -> Self {
        Self { body, at_end }
    }
}

impl<F: FnMut() + Unpin> Body for Noted<F> {
    type Data = Bytes;
    type Error = HttpError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, HttpError>>> {
        self.body.as_mut().poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl<F: FnMut()> Drop for Noted<F> {
    fn drop(&mut self) {
        (self.at_end)();
    }
}
