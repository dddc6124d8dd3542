//! Several loops, each with its own connections, shut down as one.
//!
//! Every loop has a listener of its own on the same port (`SO_REUSEPORT`), so the kernel spreads new connections and no
//! loop waits for another. What one loop is asked about a shutdown, it tells the others.

use std::{io, net::SocketAddr, net::ToSocketAddrs, thread};

#[cfg(feature = "signals")]
use super::signals::Signals;
use super::{Handle, Parts, Server};
use crate::{
    config::Config,
    error::{BindError, HandleError},
    handler::Handler,
    hub::{Clients, ShutdownRequest},
    id::ConnectionId,
    shutdown::{Escalation, ShutdownPlan, ShutdownReport},
};

/// Several loops on one address.
#[derive(Debug)]
pub struct Workers<D> {
    parts: Vec<Parts<D>>,
    address: SocketAddr,
    #[cfg(feature = "signals")]
    plan: Option<ShutdownPlan>,
}

impl<D: 'static> Workers<D> {
    /// Binds `count` loops (1 to 255) to the same address.
    ///
    /// # Errors
    /// If the address cannot be resolved or bound, or the system denies a poll.
    pub fn bind(address: impl ToSocketAddrs, count: u8, config: &Config) -> Result<Self, BindError> {
        let count = count.max(1);
        let mut parts = Vec::new();
        let mut address = address.to_socket_addrs().map_err(BindError::Resolve)?.collect::<Vec<_>>();
        for worker in 0..count {
            let mut part = Parts::new(config.clone(), worker).map_err(BindError::Poll)?;
            // The others bind what the first was given for port 0.
            let bound = part.listen(address.as_slice(), count > 1)?;
            address = vec![bound];
            parts.push(part);
        }
        let handles: Vec<_> = parts.iter().map(Parts::handle).collect();
        for (index, part) in parts.iter_mut().enumerate() {
            let others = handles.iter().enumerate().filter(|(other, _)| *other != index);
            part.peers = others.map(|(_, handle)| handle.clone()).collect();
        }
        let address = address.first().copied().ok_or(BindError::NoAddress)?;
        Ok(Self {
            parts,
            address,
            #[cfg(feature = "signals")]
            plan: None,
        })
    }

    /// The address that all loops listen on.
    pub const fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle for all loops.
    pub fn handle(&self) -> WorkersHandle<D> {
        WorkersHandle { handles: self.parts.iter().map(Parts::handle).collect() }
    }

    /// As [`Server::shutdown_on_signals`], for all loops.
    #[cfg(feature = "signals")]
    #[must_use]
    pub fn shutdown_on_signals(mut self, plan: ShutdownPlan) -> Self {
        self.plan = Some(plan);
        self
    }

    /// Serves until the shutdown of all loops is complete; returns their reports as one. The first loop runs on the
    /// calling thread. `make` is called once on the thread of each loop.
    ///
    /// # Errors
    /// The first error of a loop's poll. The other loops are shut down then.
    ///
    /// # Panics
    /// If a callback does.
    pub fn run_with<H, F>(self, make: F) -> io::Result<ShutdownReport>
    where
        H: Handler<Data = D>,
        F: Fn(u8) -> H + Sync,
    {
        #[cfg_attr(not(feature = "signals"), expect(unused_mut))]
        let mut parts = self.parts;
        #[cfg(feature = "signals")]
        let _signals = if let Some(plan) = self.plan {
            let loops = parts.iter().map(|part| part.shared.clone()).collect();
            let (signals, watchers) = Signals::install(plan, loops)?;
            for (part, watcher) in parts.iter_mut().zip(watchers) {
                part.watcher = Some(watcher);
            }
            Some(signals)
        } else {
            None
        };
        thread::scope(|scope| {
            let mut parts = parts.into_iter();
            let first = parts.next().ok_or(io::ErrorKind::InvalidInput)?;
            let make = &make;
            let others: Vec<_> = (1..)
                .zip(parts)
                .map(|(worker, part)| scope.spawn(move || serve(part, || make(worker))))
                .collect();
            let mut result = serve(first, || make(0));
            for other in others {
                let other = other.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
                result = match (result, other) {
                    (Ok(mut all), Ok(one)) => {
                        all.merge(one);
                        Ok(all)
                    }
                    (Err(error), _) | (_, Err(error)) => Err(error),
                };
            }
            result
        })
    }
}

/// Runs one loop. However it ends, the others do not go on alone.
fn serve<H: Handler<Data: 'static>>(
    parts: Parts<H::Data>,
    make: impl FnOnce() -> H,
) -> io::Result<ShutdownReport> {
    let mut peers = TellPeers(parts.peers.clone());
    let report = Server::from_parts(parts).run_with(&mut make())?;
    peers.0.clear();
    Ok(report)
}

/// A loop that fails, or whose callback panics, takes the others down.
struct TellPeers<D>(Vec<Handle<D>>);

impl<D> Drop for TellPeers<D> {
    fn drop(&mut self) {
        for peer in &self.0 {
            // A peer that has stopped needs no telling.
            let _ = peer.shutdown(ShutdownPlan::hard());
        }
    }
}

/// Speaks to all loops of [`Workers`] from other threads.
#[derive(Debug)]
pub struct WorkersHandle<D> {
    handles: Vec<Handle<D>>,
}

impl<D> Clone for WorkersHandle<D> {
    fn clone(&self) -> Self {
        Self { handles: self.handles.clone() }
    }
}

impl<D> WorkersHandle<D> {
    /// The handle of the loop that owns a connection.
    pub fn of(&self, id: ConnectionId) -> Option<&Handle<D>> {
        self.handles.get(usize::from(id.worker()))
    }

    /// The handles of all loops.
    pub fn iter(&self) -> impl Iterator<Item = &Handle<D>> {
        self.handles.iter()
    }

    /// Calls `act` once on the thread of every loop.
    ///
    /// # Errors
    /// If a loop has stopped.
    pub fn defer(
        &self,
        act: impl Fn(&mut Clients<'_, D>) + Clone + Send + 'static,
    ) -> Result<(), HandleError> {
        for handle in &self.handles {
            let act = act.clone();
            handle.defer(move |clients| act(clients))?;
        }
        Ok(())
    }

    /// Begins a shutdown of all loops, or shortens the one that runs.
    ///
    /// # Errors
    /// If the loops have stopped.
    pub fn shutdown(&self, plan: ShutdownPlan) -> Result<(), HandleError> {
        self.ask(&ShutdownRequest::Shutdown(plan))
    }

    /// Takes a running shutdown to its next phase.
    ///
    /// # Errors
    /// If the loops have stopped.
    pub fn escalate(&self) -> Result<(), HandleError> {
        self.ask(&ShutdownRequest::Escalate(Escalation::Escalate))
    }

    /// Takes a running shutdown to its hard sweep.
    ///
    /// # Errors
    /// If the loops have stopped.
    pub fn abort(&self) -> Result<(), HandleError> {
        self.ask(&ShutdownRequest::Abort(Escalation::Abort))
    }

    /// Every loop is told; one that is done already is no error as long as another is not.
    fn ask(&self, request: &ShutdownRequest) -> Result<(), HandleError> {
        let told = self.handles.iter().filter(|handle| handle.relay(request.clone()).is_ok()).count();
        if told > 0 { Ok(()) } else { Err(HandleError::Stopped) }
    }

    /// Whether the server is ready for new clients.
    pub fn ready(&self) -> bool {
        self.handles.iter().all(Handle::ready)
    }
}
