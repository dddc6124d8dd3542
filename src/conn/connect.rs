//! The request of a client connection, and the settings that differ for it. Data only.

use std::{borrow::Cow, time::Duration};

#[cfg(feature = "tls")]
use crate::config::ClientTls;
use crate::{
    config::SharedConfig,
    wire::upgrade::{Offer, RequestError, Url, UrlError},
};

/// A connection to be made as a client. Each part is checked when it is added.
///
/// ```
/// use adjourn::http::ConnectRequest;
///
/// let request = ConnectRequest::new("ws://example.com/chat")?
///     .subprotocol("chat.v2")?
///     .subprotocol("chat.v1")?
///     .header("Authorization", "Bearer 12345")?;
/// # Ok::<(), adjourn::http::RequestError>(())
/// ```
#[derive(Clone, Debug)]
pub struct ConnectRequest {
    pub(crate) offer: Offer,
    pub(crate) config: Option<SharedConfig>,
    pub(crate) connect_timeout: Option<Duration>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<ClientTls>,
}

impl ConnectRequest {
    /// Connects to a URL: `ws://host[:port][/path][?query]`, or `wss://` with the feature `tls`. Allocates.
    ///
    /// # Errors
    /// If it is not such a URL; `wss://` is an error of its own without TLS.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        Ok(Self {
            offer: Offer::new(Url::parse(url)?),
            config: None,
            connect_timeout: None,
            #[cfg(feature = "tls")]
            tls: None,
        })
    }

    /// Offers one more subprotocol; the one offered first is preferred. [`Client::subprotocol`](crate::Client::subprotocol)
    /// returns the one that the server chose, if any.
    ///
    /// # Errors
    /// If it is not a token, or offered already.
    pub fn subprotocol(mut self, name: &str) -> Result<Self, RequestError> {
        self.offer.subprotocol(name)?;
        Ok(self)
    }

    /// Sends `Origin`, as browsers do.
    ///
    /// # Errors
    /// If it is not visible ASCII.
    pub fn origin(mut self, origin: &str) -> Result<Self, RequestError> {
        self.offer.origin(origin)?;
        Ok(self)
    }

    /// Adds one header line to the request.
    ///
    /// # Errors
    /// If it could break out of its line, or is one that the library writes.
    pub fn header(
        mut self,
        name: impl Into<Cow<'static, str>>,
        value: impl Into<Cow<'static, str>>,
    ) -> Result<Self, RequestError> {
        self.offer.header(name, value)?;
        Ok(self)
    }

    /// Gives this connection settings of its own, in place of [`Config::connection`](crate::Config::connection).
    #[must_use]
    pub fn config(mut self, config: SharedConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// What this connection's TLS is to be like if its URL is `wss://`, in place of
    /// [`ClientConfig::tls`](crate::config::ClientConfig::tls).
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn tls(mut self, tls: ClientTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// How long resolving the name and connecting may take. See [`ClientConfig::connect_timeout`](crate::config::ClientConfig::connect_timeout).
    #[must_use]
    pub const fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = Some(timeout);
        self
    }

    /// The URL to connect to.
    pub const fn url(&self) -> &Url {
        self.offer.url()
    }
}
