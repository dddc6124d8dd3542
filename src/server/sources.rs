//! The application's own sources on a loop's poll: what became ready comes as an event. Nothing is read here.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use mio::{Interest, Registry, Token, event::Source};

use crate::{event::SourceId, id::MAX_SLOTS};

/// Watches sources of the application's own, such as a UDP socket or a pipe, on a loop's poll. When one becomes ready, the
/// loop's handler gets an [`Event::Source`](crate::Event::Source). Clones watch on the same loop; they may be kept in the
/// handler, and go to other threads.
///
/// Sources are those of the crate `mio`, version 1, and edge-triggered: read or write until `WouldBlock` at each event.
#[derive(Clone, Debug)]
pub struct Sources {
    registry: Arc<Registry>,
    /// The number of the next one.
    next: Arc<AtomicU32>,
}

impl Sources {
    pub(super) fn new(registry: &Registry) -> io::Result<Self> {
        Ok(Self { registry: Arc::new(registry.try_clone()?), next: Arc::default() })
    }

    /// Begins to watch a source.
    ///
    /// # Errors
    /// If the system does not watch it, or after 2^31 sources.
    pub fn register(&self, source: &mut impl Source, interest: Interest) -> io::Result<SourceId> {
        let next = |id: u32| id.checked_add(1).filter(|next| *next < 1 << 31);
        let id = self.next.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
        let id = SourceId(id.map_err(|_| io::Error::other("a loop has had 2^31 sources"))?);
        self.registry.register(source, token(id), interest)?;
        Ok(id)
    }

    /// Watches a source for something else. What it is ready for by then is reported anew.
    ///
    /// # Errors
    /// If the system does not watch it.
    pub fn reregister(&self, id: SourceId, source: &mut impl Source, interest: Interest) -> io::Result<()> {
        self.registry.reregister(source, token(id), interest)
    }

    /// Does not watch a source any more. An event of it that the loop has fetched already still comes.
    ///
    /// # Errors
    /// If it is not watched.
    pub fn deregister(&self, source: &mut impl Source) -> io::Result<()> {
        self.registry.deregister(source)
    }
}

/// Above those of connections, and below those of listeners.
const fn token(id: SourceId) -> Token {
    Token(MAX_SLOTS + id.0 as usize)
}

/// The source of a token that is no listener's; `None` if it is a connection's.
pub(super) fn source_of(token: Token) -> Option<SourceId> {
    token.0.checked_sub(MAX_SLOTS).and_then(|id| u32::try_from(id).ok()).map(SourceId)
}
