//! Requests and responses of the crate `http`, and ours.

use crate::wire::upgrade::{Body, Request, Response, ResponseError};

impl TryFrom<&Request<'_>> for ::http::Request<()> {
    type Error = ::http::Error;

    /// The method, the target and the header lines. Copies them. Fails for a target or a value that the crate does not take.
    fn try_from(request: &Request<'_>) -> Result<Self, ::http::Error> {
        let path = request.path();
        let target = request.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
        let builder = Self::builder().method(request.method()).uri(target);
        request.headers().fold(builder, |builder, (name, value)| builder.header(name, value)).body(())
    }
}

impl<B: Into<Body>> TryFrom<::http::Response<B>> for Response {
    type Error = ResponseError;

    /// Fails if the status is not final, a value is not text, or a header is one that this crate writes itself.
    fn try_from(response: ::http::Response<B>) -> Result<Self, ResponseError> {
        let (head, body) = response.into_parts();
        let empty = Self::new(head.status.as_u16())?;
        let lines = head.headers.iter().try_fold(empty, |response, (name, value)| {
            let value = str::from_utf8(value.as_bytes()).map_err(|_| ResponseError::InvalidValue)?;
            response.header(name.as_str().to_owned(), value.to_owned())
        });
        Ok(lines?.body(body))
    }
}
