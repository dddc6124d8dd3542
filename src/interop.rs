//! Conversions from and to the types of other crates, each with its feature. Nothing here is on the way of a message.

#[cfg(feature = "http")]
mod http;
#[cfg(feature = "tungstenite")]
mod tungstenite;
