//! The tokio peers: one task per connection on a single-threaded runtime.
//!
//! A connection's task drives a `Stream + Sink` by hand: it feeds every reply and flushes only when nothing is left
//! to read, so a batch of messages costs one write. That is the best these libraries can do; a loop of
//! `send().await`, as most programs have it, would cost one write per message.

use futures_core::Stream;
use futures_sink::Sink;
use slab::Slab;
use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// A connection as the others see it.
pub struct Client<M> {
    waker: Waker,
    outbox: Mutex<VecDeque<M>>,
    broadcast: bool,
}

impl<M> Client<M> {
    /// Queues a message from another connection and wakes the task that will send it.
    pub fn push(&self, message: M) {
        lock(&self.outbox).push_back(message);
        self.waker.wake_by_ref();
    }

    pub fn pop(&self) -> Option<M> {
        lock(&self.outbox).pop_front()
    }
}

/// All connections of a process.
pub struct Hub<M> {
    clients: Mutex<Slab<Arc<Client<M>>>>,
    closing: AtomicBool,
    last_left: Notify,
}

impl<M: Clone> Hub<M> {
    /// True after SIGTERM.
    pub fn closing(&self) -> bool {
        self.closing.load(Ordering::Relaxed)
    }

    /// To be called from the connection's own task.
    pub async fn join(self: &Arc<Self>, broadcast: bool) -> Membership<M> {
        let waker = poll_fn(|cx| Poll::Ready(cx.waker().clone())).await;
        let client = Arc::new(Client { waker, outbox: Mutex::new(VecDeque::new()), broadcast });
        let key = lock(&self.clients).insert(Arc::clone(&client));
        Membership { hub: Arc::clone(self), client, key }
    }
}

/// A place in the hub, given up when dropped.
pub struct Membership<M: Clone> {
    pub hub: Arc<Hub<M>>,
    pub client: Arc<Client<M>>,
    key: usize,
}

impl<M: Clone> Membership<M> {
    /// Relays a message to all other clients of `/broadcast`.
    pub fn relay(&self, message: &M) {
        for (key, client) in lock(&self.hub.clients).iter() {
            if key != self.key && client.broadcast {
                client.push(message.clone());
            }
        }
    }
}

impl<M: Clone> Drop for Membership<M> {
    fn drop(&mut self) {
        let mut clients = lock(&self.hub.clients);
        clients.remove(self.key);
        if clients.is_empty() {
            self.hub.last_left.notify_one();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Runs a peer: accepts until SIGTERM, then waits for the connections to close, but not longer than the grace.
pub fn run<M, F, C>(connection: C) -> io::Result<()>
where
    M: Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
    C: Fn(TcpStream, Arc<Hub<M>>) -> F,
{
    let listener = crate::listen(crate::port_from_args())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let hub = Arc::new(Hub {
        clients: Mutex::new(Slab::new()),
        closing: AtomicBool::new(false),
        last_left: Notify::new(),
    });
    runtime.block_on(async {
        let listener = TcpListener::from_std(listener)?;
        let mut sigterm = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            let stream = {
                let mut accept = pin!(listener.accept());
                poll_fn(|cx| {
                    if let Poll::Ready(accepted) = accept.as_mut().poll(cx) {
                        return Poll::Ready(accepted.map(|(stream, _)| Some(stream)));
                    }
                    sigterm.poll_recv(cx).map(|_| Ok(None))
                })
                .await
            };
            match stream {
                Ok(Some(stream)) => drop(tokio::spawn(connection(stream, Arc::clone(&hub)))),
                Ok(None) => break,
                Err(_) => tokio::time::sleep(std::time::Duration::from_millis(10)).await,
            }
        }
        drop(listener);
        hub.closing.store(true, Ordering::Relaxed);
        let empty = {
            let clients = lock(&hub.clients);
            clients.iter().for_each(|(_, client)| client.waker.wake_by_ref());
            clients.is_empty()
        };
        if !empty {
            let _ = tokio::time::timeout(crate::grace(), hub.last_left.notified()).await;
        }
        Ok(())
    })
}

/// What [`serve`] has to know about a library's message type.
pub trait Message: Clone + Unpin {
    fn is_data(&self) -> bool;
    fn going_away() -> Self;
}

impl Message for tungstenite::Message {
    fn is_data(&self) -> bool {
        self.is_binary() || self.is_text()
    }

    fn going_away() -> Self {
        use tungstenite::protocol::{CloseFrame, frame::coding::CloseCode};
        Self::Close(Some(CloseFrame { code: CloseCode::Away, reason: "".into() }))
    }
}

#[cfg(feature = "sockudo")]
impl Message for sockudo_ws::Message {
    fn is_data(&self) -> bool {
        self.is_binary() || self.is_text()
    }

    fn going_away() -> Self {
        Self::Close(Some(sockudo_ws::error::CloseReason::new(1001, "")))
    }
}

/// Serves one connection to its end.
pub async fn serve<M, W, E>(mut socket: W, member: Membership<M>)
where
    M: Message,
    W: Stream<Item = Result<M, E>> + Sink<M> + Unpin,
{
    let mut replies = VecDeque::new();
    let mut close_queued = false;
    poll_fn(|cx| {
        loop {
            while let Some(message) = member.client.broadcast.then(|| member.client.pop()).flatten() {
                replies.push_back(message);
            }
            if member.hub.closing() && !close_queued {
                close_queued = true;
                replies.push_back(M::going_away());
            }
            match feed(&mut socket, &mut replies, cx) {
                Poll::Ready(true) => {}
                Poll::Ready(false) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending, // the peer does not read: stop reading from it, too
            }
            match Pin::new(&mut socket).poll_next(cx) {
                Poll::Ready(Some(Ok(message))) if !message.is_data() => {}
                Poll::Ready(Some(Ok(message))) if member.client.broadcast => member.relay(&message),
                Poll::Ready(Some(Ok(message))) => replies.push_back(message),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => {
                    return match Pin::new(&mut socket).poll_flush(cx) {
                        Poll::Ready(Err(_)) if !close_queued => Poll::Ready(()),
                        _ => Poll::Pending,
                    };
                }
            }
        }
    })
    .await;
}

/// Hands the replies to the sink. `Ready(false)` is the end of the connection.
fn feed<M, W: Sink<M> + Unpin>(
    socket: &mut W,
    replies: &mut VecDeque<M>,
    cx: &mut Context<'_>,
) -> Poll<bool> {
    while !replies.is_empty() {
        match Pin::new(&mut *socket).poll_ready(cx) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(_)) => return Poll::Ready(false),
            Poll::Pending => return Poll::Pending,
        }
        let Some(message) = replies.pop_front() else { break };
        if Pin::new(&mut *socket).start_send(message).is_err() {
            return Poll::Ready(false);
        }
    }
    Poll::Ready(true)
}
