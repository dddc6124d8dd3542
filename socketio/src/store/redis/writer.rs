//! The writer: each call is one script a namespace.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{Script, Value};

use super::effects;
use super::keys::Keys;
use super::lists::LockedLists;
use super::scripts::Scripts;
use super::servers::Servers;
use super::values::{self, Arguments, digits as number};
use crate::offset::Position;
use crate::store::resume::{self, LogView};
use crate::store::{
    Attach, AttachError, Attached, Batch, Committed, EntryKind, LogLimits, Millis, NewEntry, OnceFinish,
    OnceKey, OnceState, Run, SessionChange, SessionRecord, SessionSummary, StoreError, StoreSettings,
    TRIM_SLICE, TransactContext, TransactError, Transacted, Trimmed, Tx, TxEffect, Writer, encoding, millis,
};

/// How long a key of a transaction is held at most: what its node leaves when it dies is free then.
const LEASE: Duration = Duration::from_secs(30);
/// How long a call waits for another node that runs its key, and how often it looks.
const PATIENCE: Duration = Duration::from_millis(500);
const POLL: Duration = Duration::from_millis(5);
/// How often an attach is judged again because its log or its session changed meanwhile.
const ATTEMPTS: usize = 8;
/// Namespaces that one call of `expire` looks at.
const EXPIRE_NAMESPACES: usize = 64;

pub(super) struct RedisWriter {
    pub(super) servers: Servers,
    scripts: Scripts,
    pub(super) keys: Keys,
    pub(super) node: Arc<str>,
    pub(super) settings: StoreSettings,
    /// When it was opened: sessions found connected by an earlier life of this node are away since then.
    opened: Millis,
    /// Numbers the calls that must not take effect twice.
    calls: u64,
    /// Namespaces that are in the set of namespaces.
    pub(super) listed: HashSet<Arc<str>>,
    /// Where the next call of `expire` begins.
    expire_from: usize,
}

/// What is known of a log.
pub(super) struct Begun {
    pub(super) epoch: u64,
    pub(super) floor: Position,
    pub(super) tail: Position,
}

/// The part of a batch that concerns one namespace, as indices.
#[derive(Default)]
struct Part {
    entries: Vec<usize>,
    sessions: Vec<usize>,
    once: Vec<usize>,
}

impl RedisWriter {
    pub(super) fn new(
        servers: Servers,
        keys: Keys,
        node: Arc<str>,
        settings: StoreSettings,
        opened: Millis,
    ) -> Self {
        let (scripts, listed) = (Scripts::new(), HashSet::new());
        Self { servers, scripts, keys, node, settings, opened, calls: 0, listed, expire_from: 0 }
    }

    /// The namespaces that have a log.
    pub(super) fn namespaces(&mut self) -> Result<Vec<Arc<str>>, StoreError> {
        let names =
            self.servers.command(&self.keys.namespaces(), |key| redis::cmd("SMEMBERS").arg(key).take())?;
        let names = match &names {
            Value::Set(list) | Value::Array(list) => list.iter().filter_map(values::text),
            _ => return Err(values::damaged()),
        };
        let mut names: Vec<Arc<str>> = names.map(Arc::from).collect();
        names.sort();
        Ok(names)
    }

    pub(super) fn begin(&mut self, namespace: &str, now: Millis) -> Result<Begun, StoreError> {
        begun(&self.run(|scripts| &scripts.begin, namespace, &Vec::new(), now)?)
    }

    pub(super) fn run(
        &mut self,
        script: impl FnOnce(&Scripts) -> &Script,
        namespace: &str,
        arguments: &Arguments,
        now: Millis,
    ) -> Result<Value, StoreError> {
        let key = self.keys.log(namespace);
        self.servers.run(script(&self.scripts), &key, &self.node, arguments, now)
    }

    /// Before a namespace is written, so that opening the store finds it.
    pub(super) fn list(&mut self, namespace: &Arc<str>) -> Result<(), StoreError> {
        if !self.listed.contains(namespace) {
            let key = self.keys.namespaces();
            self.servers.command(&key, |key| redis::cmd("SADD").arg(key).arg(&**namespace).take())?;
            self.listed.insert(Arc::clone(namespace));
        }
        Ok(())
    }

    /// The number of the next call.
    pub(super) fn number_call(&mut self) -> u64 {
        self.calls += 1;
        self.calls
    }

    fn call(&mut self) -> Vec<u8> {
        number(self.number_call())
    }

    /// For how long a session is kept that nobody renews or expires.
    fn session_ttl(&self) -> Vec<u8> {
        number(millis(self.settings.window).saturating_mul(2).saturating_add(60_000))
    }

    fn commit_part(
        &mut self,
        namespace: &Arc<str>,
        part: &Part,
        batch: &Batch,
        now: Millis,
    ) -> Result<(Option<Position>, Vec<usize>), StoreError> {
        self.list(namespace)?;
        let window = number(millis(self.settings.once_window));
        let mut arguments = vec![self.call(), self.session_ttl(), window, number(part.entries.len() as u64)];
        for entry in part.entries.iter().filter_map(|index| batch.entries.get(*index)) {
            values::push_entry(&mut arguments, entry);
        }
        arguments.push(number(part.sessions.len() as u64));
        for change in part.sessions.iter().filter_map(|index| batch.sessions.get(*index)) {
            push_session(&mut arguments, change);
        }
        arguments.push(number(part.once.len() as u64));
        for OnceFinish { key, ack } in part.once.iter().filter_map(|index| batch.once.get(*index)) {
            arguments.push(once_name(key).into_bytes());
            arguments.push(ack.as_ref().map(encoding::ack).unwrap_or_default());
        }
        let answer = self.run(|scripts| &scripts.commit, namespace, &arguments, now)?;
        let fields: Vec<&str> = values::text(&answer).unwrap_or_default().split(';').collect();
        let [first, stale, had_log] = fields.as_slice() else { return Err(values::damaged()) };
        if *had_log == "0" {
            // Another node may have dropped it, and taken it from the set. If this fails, the next commit tries again.
            self.listed.remove(namespace);
            let _ = self.list(namespace);
        }
        let stale = stale.split(',').filter_map(|index| index.parse().ok()).collect();
        Ok((values::position_of(first), stale))
    }

    /// A session and its log, and what the shared rules say of them.
    fn judge(&mut self, ask: &Attach, now: Millis) -> Result<Judged, AttachError> {
        let of_epoch = ask.offset.map_or(Vec::new(), |offset| number(offset.epoch));
        let arguments = vec![ask.pid.as_bytes().to_vec(), of_epoch];
        let answer = self.run(|scripts| &scripts.look, &ask.namespace, &arguments, now)?;
        let found = self.read_found(ask, &answer).ok_or_else(values::damaged)?;
        let Found { session, view, bytes, end, now } = found;
        let start = resume::judge(
            ask,
            session.as_ref(),
            view,
            &self.settings.clone(),
            now,
            |_| end,
            |start| self.bytes_after(&ask.namespace, bytes, start..view.tail),
        )?;
        let session = session.ok_or_else(values::damaged)?;
        Ok(Judged { session, view, start })
    }

    fn read_found(&self, ask: &Attach, answer: &Value) -> Option<Found> {
        let [epoch, floor, tail, bytes, end, now, generation, node, away, record, joins] =
            values::list(answer)?
        else {
            return None;
        };
        let view = LogView {
            epoch: values::number(epoch)?,
            floor: values::position(floor)?,
            tail: values::position(tail)?,
        };
        let session = match values::number(generation) {
            None => None,
            Some(generation) => {
                let mut session =
                    values::record(&ask.namespace, &ask.pid, generation, values::bytes(record)?)?;
                values::add_joins(&mut session, values::text(joins)?)?;
                session.away = values::number(away);
                if session.away.is_none() && self.is_former(values::text(node)?) {
                    session.away = Some(self.opened);
                }
                Some(session)
            }
        };
        let (bytes, now) = (values::number(bytes)?, values::number(now)?);
        Some(Found { session, view, bytes, end: values::position(end), now })
    }

    /// Is it an earlier life of this node (tests)? Names say nothing of that: in containers, process ids are alike.
    fn is_former(&self, node: &str) -> bool {
        let name = |node: &str| node.rsplit_once(':').map(|(name, _)| name.to_owned());
        self.servers.times_given() && node != &*self.node && name(node) == name(&self.node)
    }

    /// Bytes of log in a range; not exact while the log is below `max_replay`.
    fn bytes_after(
        &mut self,
        namespace: &str,
        all: u64,
        mut of: std::ops::Range<Position>,
    ) -> Result<u64, StoreError> {
        if all <= self.settings.max_replay {
            return Ok(all);
        }
        let mut sum = 0;
        while sum <= self.settings.max_replay {
            let [from, to] = [of.start, of.end].map(|at| values::position_text(at).into_bytes());
            let answer = self.run(|scripts| &scripts.page, namespace, &vec![from, to, number(1 << 20)], 0)?;
            let entries = values::list(&answer)
                .and_then(|page| values::entries(namespace, page.get(2)?))
                .ok_or_else(values::damaged)?;
            let Some(last) = entries.last() else { break };
            of.start = last.position;
            sum = entries.iter().fold(sum, |sum, entry| sum.saturating_add(entry.new.bytes()));
        }
        Ok(sum)
    }

    fn once_state(
        &mut self,
        key: &OnceKey,
        token: &str,
        lease: Duration,
        now: Millis,
    ) -> Result<OnceState, StoreError> {
        let arguments = vec![
            once_name(key).into_bytes(),
            token.as_bytes().to_vec(),
            number(millis(lease)),
            number(millis(self.settings.once_window)),
            number(self.settings.max_once_keys as u64),
        ];
        let namespace = namespace_of(key);
        let answer = self.run(|scripts| &scripts.once_begin, &namespace, &arguments, now)?;
        let answer = values::bytes(&answer).and_then(<[u8]>::split_first).ok_or_else(values::damaged)?;
        Ok(match answer {
            (b'F', _) => OnceState::First,
            (b'X', _) => return Err(StoreError::Full("max_once_keys")),
            (b'D', ack) => OnceState::Done(encoding::read_ack(ack).ok_or_else(values::damaged)?),
            (b'R', until) => {
                let until = std::str::from_utf8(until).ok().and_then(|until| until.parse().ok());
                OnceState::Running { until: until.ok_or_else(values::damaged)? }
            }
            _ => return Err(values::damaged()),
        })
    }

    /// Key and lock are free again.
    fn release(
        &mut self,
        namespace: &str,
        key: Option<&OnceKey>,
        token: &str,
        lock: &str,
        now: Millis,
    ) -> Result<(), StoreError> {
        let name = key.map(once_name).unwrap_or_default();
        let arguments = [&*name, token, lock].map(|text| text.as_bytes().to_vec()).to_vec();
        self.run(|scripts| &scripts.release, namespace, &arguments, now).map(drop)
    }

    /// What the application's code has done, in one script. Entries for other namespaces are left in it, and follow.
    fn finish_transaction(
        &mut self,
        transaction: &Transaction<'_>,
        now: Millis,
    ) -> Result<(bool, Vec<Position>), StoreError> {
        let Transaction { key, token, ack, lock, context, effects, rows } = transaction;
        self.list(&context.namespace)?;
        let (pid, generation) = match &context.session {
            Some((pid, generation)) => (pid.as_bytes().to_vec(), number(*generation)),
            None => (Vec::new(), Vec::new()),
        };
        let mut arguments = vec![
            self.call(),
            number(millis(self.settings.once_window)),
            key.map(once_name).unwrap_or_default().into_bytes(),
            token.as_bytes().to_vec(),
            ack.clone(),
            lock.as_bytes().to_vec(),
            pid,
            generation,
        ];
        let own: Vec<&TxEffect> = effects.iter().filter(|it| effects::is_of(it, context)).collect();
        let joins = own.iter().any(|it| matches!(it, TxEffect::Join(_)));
        arguments.push(number(u64::from(joins)));
        arguments.push(number(own.len() as u64));
        for effect in own {
            match effect {
                TxEffect::Emit(new) => {
                    arguments.push(b"E".to_vec());
                    values::push_entry(&mut arguments, new);
                }
                TxEffect::Join(room) => {
                    arguments.push(b"J".to_vec());
                    arguments.push(serde_json::to_vec(&**room).expect("a text has a JSON form"));
                }
            }
        }
        arguments.push(number(rows.len() as u64));
        for (list, row) in *rows {
            arguments.push(list.clone().into_bytes());
            arguments.push(row.clone());
        }
        let others = effects::posted(effects, context);
        let waiting = others.len();
        arguments.push(number(waiting as u64));
        arguments.extend(others);
        let answer = self.run(|scripts| &scripts.transact, &context.namespace, &arguments, now)?;
        let Some((current, positions)) = values::text(&answer).and_then(|text| text.split_once(';')) else {
            let moved = values::text(&answer) == Some("M");
            let why = if moved { "another node holds the session" } else { "it took longer than its lease" };
            return Err(StoreError::Failed(format!("the transaction was rolled back: {why}").into()));
        };
        let own: Vec<Position> = positions.split(',').filter_map(values::position_of).collect();
        // If this fails, they wait for the next `expire`, of whichever node.
        let others = if waiting > 0 { self.forward(&context.namespace, now) } else { Ok(Vec::new()) };
        Ok((current == "1", effects::placed(effects, context, &own, &others.unwrap_or_default())?))
    }
}

struct Found {
    session: Option<SessionRecord>,
    view: LogView,
    bytes: u64,
    /// The end of the offset's epoch.
    end: Option<Position>,
    now: Millis,
}

struct Judged {
    session: SessionRecord,
    view: LogView,
    start: Position,
}

struct Transaction<'t> {
    key: Option<&'t OnceKey>,
    token: &'t str,
    ack: Vec<u8>,
    lock: &'t str,
    context: &'t TransactContext,
    effects: &'t [TxEffect],
    rows: &'t [(String, Vec<u8>)],
}

impl Writer for RedisWriter {
    fn commit(&mut self, batch: &Batch, now: Millis) -> Result<Committed, StoreError> {
        let max_ack = self.settings.max_ack;
        if batch.once.iter().any(|finish| finish.ack.as_ref().is_some_and(|ack| ack.bytes() > max_ack)) {
            return Err(StoreError::Full("max_ack"));
        }
        let mut parts: BTreeMap<Arc<str>, Part> = BTreeMap::new();
        for (index, entry) in batch.entries.iter().enumerate() {
            parts.entry(Arc::clone(&entry.namespace)).or_default().entries.push(index);
        }
        for (index, change) in batch.sessions.iter().enumerate() {
            parts.entry(Arc::clone(change.namespace())).or_default().sessions.push(index);
        }
        for (index, finish) in batch.once.iter().enumerate() {
            parts.entry(namespace_of(&finish.key)).or_default().once.push(index);
        }
        if parts.is_empty() {
            // A probe.
            self.servers.command(&self.keys.nodes(), |_| redis::cmd("PING"))?;
        }
        let mut committed =
            Committed { positions: vec![Position::START; batch.entries.len()], stale: Vec::new() };
        // What is appended comes last: nothing that follows can fail and have it reported as not logged.
        let mut parts: Vec<(Arc<str>, Part)> = parts.into_iter().collect();
        parts.sort_by_key(|(_, part)| !part.entries.is_empty());
        for (namespace, part) in &parts {
            let (first, stale) = self.commit_part(namespace, part, batch, now)?;
            // The entries of one script follow one another.
            for (number, index) in (0..).zip(&part.entries) {
                if let (Some(place), Some(first)) = (committed.positions.get_mut(*index), first) {
                    *place = Position { number: first.number + number, ..first };
                }
            }
            committed.stale.extend(stale.iter().filter_map(|index| part.sessions.get(*index)));
        }
        committed.stale.sort_unstable();
        Ok(committed)
    }

    fn attach(&mut self, ask: &Attach, now: Millis) -> Result<Attached, AttachError> {
        for _ in 0..ATTEMPTS {
            let Judged { mut session, view, start } = self.judge(ask, now)?;
            let generation = session.generation + 1;
            let mut arguments = vec![
                ask.pid.as_bytes().to_vec(),
                number(session.generation),
                values::position_text(view.floor).into_bytes(),
                number(view.epoch),
                self.session_ttl(),
            ];
            values::push_entry(&mut arguments, &fence(&session, generation));
            let answer = self.run(|scripts| &scripts.take, &ask.namespace, &arguments, now)?;
            let Some(tail) = values::position(&answer) else { continue };
            session.generation = generation;
            let away = session.away.take();
            session.forget_before(view.floor);
            return Ok(Attached { session, away, start, tail });
        }
        Err(StoreError::Failed("the session or its log changes all the time".into()).into())
    }

    fn once_begin(&mut self, key: &OnceKey, lease: Duration, now: Millis) -> Result<OnceState, StoreError> {
        let token = self.number_call().to_string();
        self.once_state(key, &token, lease, now)
    }

    fn transact(
        &mut self,
        key: Option<&OnceKey>,
        context: &TransactContext,
        run: Run<'_>,
        now: Millis,
    ) -> Result<Transacted, TransactError> {
        let token = self.number_call().to_string();
        let patience = Instant::now() + PATIENCE;
        while let Some(key) = key {
            match self.once_state(key, &token, LEASE, now)? {
                OnceState::First => break,
                // Another node runs it: its result is ours.
                OnceState::Running { .. } if Instant::now() < patience && !self.servers.times_given() => {
                    std::thread::sleep(POLL);
                }
                OnceState::Running { until } => return Err(TransactError::Running { until }),
                OnceState::Done(ack) => return Ok(Transacted::repeat(ack)),
            }
        }
        let holder = format!("{} {token}", self.node);
        let mut lists = LockedLists::new(&mut self.servers, &self.keys, &context.namespace, holder);
        let run = Tx::with_lists(context, &mut lists).run(run);
        let (lock, rows) = lists.into_parts();
        let done = run.and_then(|(ack, effects)| {
            if key.is_some() && ack.bytes() > self.settings.max_ack {
                return Err(StoreError::Full("max_ack").into());
            }
            let transaction = Transaction {
                key,
                token: &token,
                ack: encoding::ack(&ack),
                lock: &lock,
                context,
                effects: &effects,
                rows: &rows,
            };
            let (session_current, positions) = self.finish_transaction(&transaction, now)?;
            let effects = effects.into_iter().zip(positions).collect();
            Ok(Transacted { ack, repeat: false, effects, session_current })
        });
        if done.is_err() {
            // If this fails, too, they are free when their leases end.
            let _ = self.release(&context.namespace, key, &token, &lock, now);
        }
        done
    }

    fn trim(&mut self, namespace: &str, limits: &LogLimits, now: Millis) -> Result<Trimmed, StoreError> {
        let mut arguments =
            [millis(limits.age), limits.entries, limits.bytes, TRIM_SLICE].map(number).to_vec();
        let read = limits.read.map(values::position_text);
        arguments.push(read.unwrap_or_default().into_bytes());
        let answer = self.run(|scripts| &scripts.trim, namespace, &arguments, now)?;
        let trimmed = (|| {
            let [floor, removed, entries, bytes, more] = values::list(&answer)? else { return None };
            Some(Trimmed {
                floor: values::position(floor)?,
                removed: values::number(removed)?,
                entries: values::number(entries)?,
                bytes: values::number(bytes)?,
                more: values::text(more)? == "1",
            })
        })();
        trimmed.ok_or_else(values::damaged)
    }

    fn drop_log(&mut self, namespace: &str) -> Result<bool, StoreError> {
        let now = self.opened;
        // Before it is dropped: who writes it afterwards adds it again.
        self.listed.remove(namespace);
        let key = self.keys.namespaces();
        self.servers.command(&key, |key| redis::cmd("SREM").arg(key).arg(namespace).take())?;
        let answer = self.run(|scripts| &scripts.drop, namespace, &Vec::new(), now)?;
        let dropped = values::text(&answer) == Some("1");
        if !dropped {
            self.list(&namespace.into())?;
        }
        Ok(dropped)
    }

    fn expire(&mut self, now: Millis, max: usize) -> Result<Vec<SessionSummary>, StoreError> {
        let names = self.namespaces()?;
        let nodes = self.heard()?;
        let mut gone = Vec::new();
        for step in 0..names.len().min(EXPIRE_NAMESPACES) {
            let Some(name) = names.get((self.expire_from + step) % names.len()) else { break };
            gone.extend(self.expire_in(name, &nodes, now, max.saturating_sub(gone.len()))?);
            if gone.len() >= max {
                return Ok(gone);
            }
        }
        self.expire_from = self.expire_from.wrapping_add(EXPIRE_NAMESPACES) % names.len().max(1);
        Ok(gone)
    }
}

pub(super) fn begun(answer: &Value) -> Result<Begun, StoreError> {
    let begun = (|| {
        let [epoch, floor, tail, _] = values::list(answer)? else { return None };
        let (floor, tail) = (values::position(floor)?, values::position(tail)?);
        Some(Begun { epoch: values::number(epoch)?, floor, tail })
    })();
    begun.ok_or_else(values::damaged)
}

/// Tells all nodes who holds a session from here on.
fn fence(session: &SessionRecord, generation: u64) -> NewEntry {
    NewEntry {
        namespace: Arc::clone(&session.namespace),
        kind: EntryKind::Fence,
        rooms: [Arc::clone(&session.sid)].into(),
        except: Arc::new([]),
        packet: generation.to_string().into(),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    }
}

fn push_session(arguments: &mut Arguments, change: &SessionChange) {
    let (pid, generation) = change.key();
    let op: &[u8] = if matches!(change, SessionChange::Save(_)) { b"S" } else { b"R" };
    arguments.extend([op.to_vec(), pid.as_bytes().to_vec(), number(generation)]);
    if let SessionChange::Save(record) = change {
        arguments.push(values::record_bytes(record));
        arguments.push(record.away.map(number).unwrap_or_default());
        arguments.push(values::position_text(record.first).into_bytes());
    }
}

fn once_name(key: &OnceKey) -> String {
    format!("{}:{}:{}", key.scope.len(), key.scope, key.key)
}

/// The namespace that a scope begins with: `<length>:<namespace>..`. Another scope (of tests) is one of `/`.
fn namespace_of(key: &OnceKey) -> Arc<str> {
    let named = key.scope.split_once(':').and_then(|(length, rest)| rest.get(..length.parse().ok()?));
    named.unwrap_or("/").into()
}

impl std::fmt::Debug for RedisWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RedisWriter").field("node", &self.node).finish_non_exhaustive()
    }
}
