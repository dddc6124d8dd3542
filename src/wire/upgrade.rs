//! HTTP/1.1 Upgrade -> Request -> 101 or an answer that is not (§4.2). No socket, no connection, no time.
//!
//! ```text
//!   bytes -> HeadScanner -> Head -> Request -+-> check() -> Accepted -> write_switching_protocols
//!                 |                   |      |       |
//!                 |                   |      |       +-> Refusal -> write
//!                 +-> Refusal         |      +-> an application's own Response -> write
//!                                     +-> Refusal
//! ```
//!
//! Each arrow is a type, so no step can be omitted: only a scanned head is parsed, only an accepted request gets a
//! 101, and only a subprotocol that was offered can be in it. Everything before [`Accepted::check`] holds for any
//! HTTP request; everything in it is §4.2.1. The client's side, §4.1, is a picture of its own in `client.rs`.

mod accepted;
mod client;
mod handshake;
mod head;
mod headers;
mod lists;
mod origin;
mod refusal;
mod request;
mod response;
mod token;
mod url;

pub use accepted::Accepted;
pub use client::{ClientKey, Offer, RequestError, ServerResponse, Switched};
pub use head::{Head, HeadLimits, HeadScanner};
pub use headers::HeaderStorage;
pub use lists::{Extension, Extensions, Parameters, Subprotocol, Subprotocols};
pub use refusal::Refusal;
pub use request::{BodyLength, Request};
pub use response::{Body, ExtraHeader, HeaderValue, Response, ResponseError, write_switching_protocols};
pub use url::{Url, UrlError};
