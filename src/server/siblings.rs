//! The other loops of a server: they shut down as one, and share a rate.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use super::handle::Handle;
use crate::hub::ShutdownRequest;

/// The loops that shut down with this one, and how many open connections each of them has.
#[derive(Debug)]
pub(super) struct Siblings<D> {
    pub(super) others: Vec<Handle<D>>,
    /// Of all loops; each writes its own.
    pub(super) open: Arc<[AtomicUsize]>,
    pub(super) own: usize,
}

impl<D> Default for Siblings<D> {
    fn default() -> Self {
        Self { others: Vec::new(), open: Arc::default(), own: 0 }
    }
}

impl<D> Siblings<D> {
    /// Forwards what this loop was asked.
    pub(super) fn forward(&self, request: &ShutdownRequest) {
        for sibling in &self.others {
            // A loop that has stopped has no connections left.
            let _ = sibling.relay(request.clone());
        }
    }

    /// Lets the other loops know how many connections this one has.
    pub(super) fn publish(&self, open: usize) {
        if let Some(own) = self.open.get(self.own)
            && own.load(Ordering::Relaxed) != open
        {
            own.store(open, Ordering::Relaxed);
        }
    }

    /// How many connections the other loops have, as they published it last.
    pub(super) fn open_elsewhere(&self) -> usize {
        let others = self.open.iter().enumerate().filter(|(index, _)| *index != self.own);
        others.map(|(_, open)| open.load(Ordering::Relaxed)).sum()
    }
}
