//! What `trace` is without the feature `tracing`: nothing.

use std::io;

use crate::time::Time;

#[derive(Clone, Debug, Default)]
pub(super) struct Trace(());

impl Trace {
    #[expect(clippy::unused_self, reason = "the shape of the other one")]
    pub(super) const fn observe<'a, H>(&self, handler: &'a mut H) -> Observed<'a, H> {
        Observed(handler)
    }
}

pub(super) struct Observed<'a, H>(&'a mut H);

impl<H> Observed<'_, H> {
    pub(super) const fn handler(&mut self) -> &mut H {
        self.0
    }
}

pub(super) fn turn_begins(_: Option<Time>, _: impl FnOnce() -> Time) {}

pub(super) const fn accept_failed(_: &io::Error, _: bool) {}
