//! Streams that somebody else has upgraded: from this thread or another one into the loop.

use std::{io, net::TcpStream};

use socket2::SockRef;

use super::{carrier::Carrier, unix};
use crate::{
    adopt::Adopt,
    error::{AdoptError, AdoptRefusal, HandleError},
    hub::{Driver, Newcomer},
    id::ConnectionId,
};

/// A connection that waits to be adopted. If the loop stops first, dropping this notifies the caller.
pub(super) struct WaitingAdopt<D> {
    waiting: Option<Waiting<D>>,
    why: AdoptRefusal,
}

/// Called once: with the loop, or with the reason why it does not get there.
type Waiting<D> = Box<dyn FnOnce(Result<&mut Driver<D, Carrier>, AdoptRefusal>) + Send>;

impl<D> WaitingAdopt<D> {
    pub(super) fn new(
        adopt: Adopt<D>,
        done: impl FnOnce(Result<ConnectionId, AdoptError>) + Send + 'static,
    ) -> Self
    where
        D: Send + 'static,
    {
        let waiting = move |driver: Result<&mut Driver<D, Carrier>, AdoptRefusal>| {
            done(match driver {
                Ok(driver) => adopt_into(driver, adopt),
                Err(why) => Err(AdoptError { stream: adopt.stream, why }),
            });
        };
        Self { waiting: Some(Box::new(waiting)), why: HandleError::Stopped.into() }
    }

    /// The loop has got to it.
    pub(super) fn execute(mut self, driver: &mut Driver<D, Carrier>) {
        if let Some(waiting) = self.waiting.take() {
            waiting(Ok(driver));
        }
    }

    /// The loop cannot be asked.
    pub(super) fn refuse(mut self, why: HandleError) {
        self.why = why.into();
    }
}

impl<D> Drop for WaitingAdopt<D> {
    fn drop(&mut self) {
        if let Some(waiting) = self.waiting.take() {
            waiting(Err(self.why));
        }
    }
}

/// The stream is dropped when the loop has a descriptor of its own for it.
pub(super) fn adopt_into<D>(
    driver: &mut Driver<D, Carrier>,
    adopt: Adopt<D>,
) -> Result<ConnectionId, AdoptError> {
    let Adopt { stream, adoption } = adopt;
    let adopted = newcomer(&stream)
        .map_err(|error| AdoptRefusal::Io(error.kind()))
        .and_then(|newcomer| driver.adopt(&newcomer, adoption, |sockets, slot| sockets.adopt(slot, &stream)));
    adopted.map_err(|why| AdoptError { stream, why })
}

/// Where a stream comes from, if it is connected.
fn newcomer(stream: &TcpStream) -> io::Result<Newcomer> {
    let peer = SockRef::from(stream).peer_addr()?;
    Ok(peer.as_socket().map_or_else(|| Newcomer::unix(unix::credentials(stream)), Newcomer::tcp))
}
