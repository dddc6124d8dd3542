//! Stands in for `deflate.rs` in builds without the feature: nothing is ever negotiated, and all of it compiles to nothing.

#![expect(clippy::unused_self, reason = "the signatures are those of the other")]

use crate::{
    adopt::Role,
    config::Config,
    error::{HandshakeError, ProtocolError, Violation},
    message::MessageKind,
    time::Time,
    wire::{
        upgrade::{Extensions, Request},
        utf8::Utf8,
    },
};

#[derive(Debug, Default)]
pub(crate) struct Shared {}

impl Shared {
    pub(crate) fn deflate(&mut self, _: &[u8], _: u8, _: &Config) -> Option<&mut Vec<u8>> {
        None
    }
}

/// There is none.
#[derive(Debug)]
pub(crate) enum Compression {}

impl Compression {
    pub(crate) fn accept(_: &Config, _: &Request<'_>) -> Option<(Self, String)> {
        None
    }

    pub(crate) fn offer(_: &Config) -> Option<String> {
        None
    }

    #[expect(clippy::unnecessary_wraps, reason = "the signatures are those of the other")]
    pub(crate) fn answered(_: &Config, _: Extensions<'_>) -> Result<Option<Self>, HandshakeError> {
        Ok(None)
    }

    #[expect(clippy::option_option, reason = "the signatures are those of the other")]
    pub(crate) fn agreed_on(_: Role, value: &str) -> Option<Option<Self>> {
        value.trim().is_empty().then_some(None)
    }

    pub(crate) fn sharing(&self, _: usize, _: &Config) -> Sharing {
        match *self {}
    }

    pub(crate) fn deflate<'s>(
        &mut self,
        _: &[u8],
        _: bool,
        _: &'s mut Shared,
        _: &Config,
        _: Time,
    ) -> Option<&'s mut Vec<u8>> {
        match *self {}
    }

    pub(crate) fn release_due(&self, _: &Config) -> Option<Time> {
        match *self {}
    }

    pub(crate) fn release_deflater(&mut self) {
        match *self {}
    }

    pub(crate) fn release_inflater(&mut self) {
        match *self {}
    }
}

#[derive(Clone, Copy)]
#[expect(dead_code, reason = "all is plain")]
pub(crate) enum Sharing {
    Plain,
    Compressed(u8),
    Nothing,
}

#[expect(dead_code, reason = "without compression nothing is inflated")]
pub(crate) struct Target<'t> {
    pub(crate) message: &'t mut Vec<u8>,
    pub(crate) kind: Option<MessageKind>,
    pub(crate) utf8: &'t mut Utf8,
    pub(crate) max_payload: u64,
}

#[expect(dead_code, reason = "the other one has a use for it")]
pub(crate) struct Inflate<'c> {
    pub(crate) compression: Option<&'c mut Compression>,
    pub(crate) shared: &'c mut Shared,
}

impl Inflate<'_> {
    pub(crate) fn whole(&mut self, _: &[u8], _: Target<'_>) -> Result<(), Violation> {
        Err(ProtocolError::ReservedBits.into())
    }
}
