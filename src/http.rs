//! The opening handshake as applications see it: requests, responses, headers, origins and addresses.
//!
//! [`Handler::on_upgrade`](crate::Handler::on_upgrade) looks at an [`UpgradeRequest`] and returns an [`Upgrade`];
//! [`Clients::connect`](crate::Clients::connect) takes a [`ConnectRequest`].

#[cfg(feature = "deflate")]
#[doc(inline)]
pub use crate::wire::deflate::DeflateParameters;
#[doc(inline)]
pub use crate::{
    adopt::{Adopt, Role},
    config::origins::{OriginError, Origins},
    conn::ConnectRequest,
    detach::{Detached, DetachedStream},
    hub::{Accept, Upgrade, UpgradeRequest},
    wire::upgrade::{
        Body, BodyLength, Extension, Extensions, ExtraHeader, HeaderValue, Parameters, Request, RequestError,
        Response, ResponseError, Subprotocol, Subprotocols, Url, UrlError,
    },
};
