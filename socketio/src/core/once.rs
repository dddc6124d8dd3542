//! Exactly once (specification 15): keys, transactions, and what the application calls in them.
//!
//! A call goes to the store's writer as one transaction with its key. The writer makes one call after the other, so of calls
//! with one key at the same time the first runs, and the others find its result.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::socket::Socket;
use super::state::{
    Ack, Caller, EventError, Handshake, Io, Item, ShutdownPhase, SocketKey, TransactThen, Transaction,
};
use crate::error::OnceError;
use crate::packet::{Args, ArgsBuf, EncodeError, Event, ToArgs, queued_size};
use crate::store::{AckValue, EntryKind, NewEntry, OnceKey, Run, RunError, StoreError, TransactContext, Tx};

/// Where the key of an event is found.
pub struct KeyFrom {
    source: KeySource,
    scope: KeyScope,
}

enum KeySource {
    Argument(usize),
    Field(usize, Box<str>),
    With(Box<dyn Fn(Args<'_>) -> Option<String> + Send>),
}

/// Among whose keys a key is looked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum KeyScope {
    /// Those of the principal: a retry may come in another session. If there are no principals, keys should be hard to guess.
    #[default]
    Principal,
    /// Those of the session.
    Session,
}

/// An event of [`Namespace::on_once`](super::namespace::Namespace::on_once), on the store's thread.
#[derive(Clone, Debug)]
pub struct OnceCall {
    /// The socket's id.
    pub id: Arc<str>,
    /// Who it is.
    pub principal: Arc<str>,
    /// How it connected.
    pub handshake: Arc<Handshake>,
    /// The key.
    pub key: Arc<str>,
    /// The arguments.
    pub args: ArgsBuf,
}

/// It runs on the store's thread, so it is shared with it.
pub(super) type OnceRun = Arc<Mutex<dyn FnMut(&OnceCall, &mut Tx<'_>) -> Result<AckValue, RunError> + Send>>;

/// Which time it was.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Once {
    /// The first: it has run now.
    First(AckValue),
    /// It had run before; this is what it gave then.
    Repeat(AckValue),
}

impl KeyFrom {
    /// The argument at `index`, from 0, a text.
    pub const fn argument(index: usize) -> Self {
        Self { source: KeySource::Argument(index), scope: KeyScope::Principal }
    }

    /// A field, which is a text, of the argument at `index`, which is an object.
    pub fn field(index: usize, name: &str) -> Self {
        Self { source: KeySource::Field(index, Box::from(name)), scope: KeyScope::Principal }
    }

    /// What a function says.
    pub fn with(key: impl Fn(Args<'_>) -> Option<String> + Send + 'static) -> Self {
        Self { source: KeySource::With(Box::new(key)), scope: KeyScope::Principal }
    }

    /// Narrows the scope.
    #[must_use]
    pub const fn scoped(mut self, scope: KeyScope) -> Self {
        self.scope = scope;
        self
    }

    fn find(&self, args: Args<'_>) -> Option<String> {
        match &self.source {
            KeySource::Argument(index) => args.get::<String>(*index).ok(),
            KeySource::Field(index, name) => {
                let fields: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
                    serde_json::from_str(args.raw(*index)?).ok()?;
                serde_json::from_str(fields.get(&**name)?.get()).ok()
            }
            KeySource::With(key) => key(args),
        }
    }
}

impl AckValue {
    /// The arguments of an ack.
    pub fn new(args: impl ToArgs) -> Result<Self, EncodeError> {
        let args = ArgsBuf::new(&args)?;
        Ok(Self { json: Arc::from(args.json()), attachments: Arc::from(args.attachments()) })
    }
}

impl Tx<'_> {
    /// Emits to the socket, at this place of the log.
    pub fn emit(&mut self, event: &str, args: impl ToArgs) -> Result<(), EncodeError> {
        let own = Arc::clone(self.sid());
        self.emit_to(&[own], event, args)
    }

    /// Emits to the sockets in any of these rooms, at this place of the log; no rooms: to all of the namespace.
    pub fn emit_to(&mut self, rooms: &[Arc<str>], event: &str, args: impl ToArgs) -> Result<(), EncodeError> {
        let event = Event::new(self.namespace(), event, &args)?;
        event.check_size(self.max_event())?;
        let entry = NewEntry {
            namespace: Arc::clone(self.namespace()),
            kind: EntryKind::Event,
            rooms: Arc::from(rooms),
            except: Arc::new([]),
            packet: Arc::from(event.packet()),
            attachments: Arc::clone(event.attachments()),
            ack: None,
            until: None,
        };
        self.append(entry);
        Ok(())
    }
}

impl Socket<'_> {
    /// Runs `run` unless it has run for this key, in a transaction of the store that keeps the key, the ack and what is
    /// emitted; then calls `then`. Scope of the key: namespace and principal. [`Socket::transact`] says when and where it runs.
    pub fn once(
        &mut self,
        key: &str,
        run: impl FnOnce(&mut Tx<'_>) -> Result<AckValue, RunError> + Send + 'static,
        then: impl FnOnce(&mut Io<'_>, Result<Once, OnceError>) + Send + 'static,
    ) -> Result<(), OnceError> {
        let socket = self.key();
        let size = std::mem::size_of_val(&run);
        let key = self.io().once_key(socket, "", key, KeyScope::Principal)?;
        let then: TransactThen = Box::new(move |io, done| {
            let once =
                done.map(|done| if done.repeat { Once::Repeat(done.ack) } else { Once::First(done.ack) });
            then(io, once);
        });
        self.io().transact(socket, Some(key), Box::new(run), size, then)
    }

    /// Runs `run` in a transaction of the store: rows of the store that it reads (`Tx::sql`, `Tx::lists`) and rooms that it joins make
    /// one sequence with the log. The rooms are the session's also if the socket is gone by then; to decide whether to ask, look at
    /// [`Socket::rooms`], not at [`Socket::resume`].
    ///
    /// It runs later than this call, when what was emitted before is committed, and while it runs nothing else of this process is: with
    /// `SqliteStore` and `RedisStore` on the store's thread, with `MemoryStore` on the loop. With SQLite the transaction is open meanwhile. With
    /// Redis its key, if it has one, is claimed before, for 30 s, and nothing that `run` does is sent before it returns, but for calls of
    /// `Tx::lists`; then all of it is one script. So it may have run when the transaction fails: Redis is full, another node holds the
    /// session by then, or the claim is over, since `run` took so long or Redis did not answer.
    ///
    /// A database beside the store is in no such transaction, with whatever store: what is written there stays if this one fails, and
    /// between what is read there and the room events can be missed.
    pub fn transact(
        &mut self,
        run: impl FnOnce(&mut Tx<'_>) -> Result<(), RunError> + Send + 'static,
        then: impl FnOnce(&mut Io<'_>, Result<(), OnceError>) + Send + 'static,
    ) -> Result<(), OnceError> {
        let socket = self.key();
        let size = std::mem::size_of_val(&run);
        let run: Run<'static> = Box::new(move |tx| {
            run(tx)?;
            Ok(AckValue { json: Arc::from("[]"), attachments: Arc::new([]) })
        });
        self.io().transact(socket, None, run, size, Box::new(move |io, done| then(io, done.map(|_| ()))))
    }
}

impl Io<'_> {
    fn once_key(
        &self,
        socket: SocketKey,
        event: &str,
        key: &str,
        scope: KeyScope,
    ) -> Result<OnceKey, OnceError> {
        let limit = self.state.config.once.max_key;
        if key.is_empty() || key.len() > limit {
            return Err(OnceError::Key { length: key.len(), limit });
        }
        let socket = self.state.live(socket).ok_or(OnceError::Disconnected)?;
        let (kind, whose) = match scope {
            KeyScope::Principal => ('p', &socket.principal),
            KeyScope::Session => ('s', &socket.id),
        };
        let namespace = &socket.handshake.namespace;
        let scope = format!("{}:{namespace}{}:{event}{kind}{whose}", namespace.len(), event.len());
        Ok(OnceKey { scope: Arc::from(scope), key: Arc::from(key) })
    }

    fn transact(
        &mut self,
        key: SocketKey,
        once: Option<OnceKey>,
        run: Run<'static>,
        size: usize,
        then: TransactThen,
    ) -> Result<(), OnceError> {
        if self.refuses_entries() || self.state.shutdown >= ShutdownPhase::Sweeping {
            self.state.stats.emits_refused += 1;
            return Err(OnceError::Store(StoreError::Failed(Arc::from("it takes nothing now"))));
        }
        let bytes = size.saturating_add(TRANSACTION) as u64;
        if self.state.queue.bytes.saturating_add(bytes) > self.state.config.storage.queue as u64 {
            self.state.stats.emits_refused += 1;
            return Err(OnceError::Store(StoreError::Full("transactions that wait")));
        }
        let socket = self.state.live(key).ok_or(OnceError::Disconnected)?;
        let call = self.state.scope.call;
        let caller = Caller { space: socket.space, socket: key, session: socket.session, call };
        let session = caller.session.and_then(|session| self.state.sessions.get(session));
        let context = TransactContext {
            namespace: Arc::clone(&socket.handshake.namespace),
            sid: Arc::clone(&socket.id),
            session: session.map(|session| (Arc::clone(&session.record.pid), session.record.generation)),
            logged: self.state.config.recovery.is_some(),
            max_event: self.state.config.output.send_queue,
        };
        let begun = Arc::new(AtomicBool::new(false));
        let begins = Arc::clone(&begun);
        let run: Run<'static> = Box::new(move |tx| {
            begins.store(true, Ordering::Relaxed);
            run(tx)
        });
        if let Some(session) = caller.session.and_then(|session| self.state.sessions.get_mut(session)) {
            session.pending += 1;
        }
        let transaction = Transaction { key: once, context, caller, bytes, run, begun, then };
        self.state.queue.bytes += bytes;
        self.state.queue.undelivered += 1;
        self.state.scope.pending = true;
        self.state.queue.items.push_back(Item::Transact(Box::new(transaction)));
        Ok(())
    }

    /// An event of `on_once`.
    pub(super) fn on_once_event(
        &mut self,
        key: SocketKey,
        event: &str,
        from: &KeyFrom,
        run: &OnceRun,
        args: Args<'_>,
        ack: Option<Ack>,
    ) -> Result<(), EventError> {
        let found = from.find(args).ok_or_else(|| EventError("the event has no once key".to_owned()))?;
        let once =
            self.once_key(key, event, &found, from.scope).map_err(|error| EventError(error.to_string()))?;
        let Some(socket) = self.state.live(key) else { return Ok(()) };
        let call = OnceCall {
            id: Arc::clone(&socket.id),
            principal: Arc::clone(&socket.principal),
            handshake: Arc::clone(&socket.handshake),
            key: Arc::clone(&once.key),
            args: ArgsBuf::new(&args).map_err(|error| EventError(error.to_string()))?,
        };
        let attachments = call.args.attachments().iter().map(bytes::Bytes::len);
        let size = attachments.fold(call.args.json().len(), usize::saturating_add);
        let run = Arc::clone(run);
        let run: Run<'static> = Box::new(move |tx| {
            // A panic of an earlier call has been rolled back.
            let mut run = run.lock().unwrap_or_else(PoisonError::into_inner);
            let ack = run(&call, tx)?;
            // One that is kept would cut the client each time that it asks again.
            let (size, limit) = (queued_size(&ack.json, &ack.attachments), tx.max_event());
            if size > limit { Err(EncodeError::TooLarge { size, limit }.into()) } else { Ok(ack) }
        });
        let then: TransactThen = Box::new(move |io, done| {
            // Without a result there is no ack: the client tries again.
            if let (Ok(done), Some(ack)) = (done, ack) {
                io.send_stored_ack(&ack, &done.ack);
            }
        });
        self.transact(key, Some(once), run, size, then).map_err(|error| EventError(error.to_string()))
    }

    fn send_stored_ack(&mut self, ack: &Ack, value: &AckValue) {
        let Some(args) = ArgsBuf::from_json(value.json.to_string(), value.attachments.to_vec()) else {
            return;
        };
        let Some(socket) = self.state.live(ack.socket) else {
            self.state.stats.acks_after_disconnect += 1;
            return;
        };
        let Ok(frames) = crate::packet::ack(&socket.handshake.namespace, ack.id, &args) else { return };
        self.send_ack(ack.socket, &frames);
    }
}

/// What a transaction that waits for the store counts for besides what is known of the application's closure.
const TRANSACTION: usize = 1024;
