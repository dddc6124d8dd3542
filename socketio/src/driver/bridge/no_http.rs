//! Without long-polling there is no HTTP thread: plain requests get 404. The same calls as in `http.rs`.

#![allow(clippy::unnecessary_wraps, clippy::unused_self, reason = "the calls of the other module")]

use std::io;

use adjourn::Clients;
use adjourn::http::Upgrade;

use super::{Bridge, not_found};
use crate::config::SocketIoConfig;
use crate::driver::conn::Conn;
use crate::driver::wake::Waker;

#[derive(Default)]
pub(super) struct HttpSide {}

impl HttpSide {
    pub(super) fn start(&mut self, _: &SocketIoConfig, _: &Waker) -> io::Result<()> {
        Ok(())
    }

    pub(super) fn is_behind(&self) -> bool {
        false
    }

    pub(super) fn connections(&self) -> usize {
        0
    }

    pub(super) fn drain(&self) {}

    pub(super) fn cut(&self) {}
}

impl Bridge {
    pub(super) fn plain<'r>(&self) -> Upgrade<'r, Conn> {
        Upgrade::Answer(not_found())
    }

    pub(super) fn take_http(&mut self, _: &mut Clients<'_, Conn>) -> bool {
        false
    }
}
