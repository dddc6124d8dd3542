//! Something that outlives a store: opened again, it is the same data in a new life.

use std::sync::Arc;
use std::time::Duration;

use adjourn_socketio::offset::Position;
use adjourn_socketio::store::{
    AckValue, Attach, Batch, EntryKind, LogLimits, MemoryStore, NewEntry, NodeId, OnceKey, Parts,
    SessionChange, SessionRecord, Store, StoreError, StoreSettings, TransactContext,
};

pub(crate) trait Disk {
    fn store(&self) -> Result<Box<dyn Store>, StoreError>;

    fn open_with(&self, settings: &StoreSettings, now: u64) -> Parts {
        self.store().and_then(|store| store.open(NodeId("a".into()), settings, now)).expect("opens")
    }

    fn open(&self, now: u64) -> Parts {
        self.open_with(&settings(), now)
    }
}

/// Survives as long as the test.
#[derive(Default)]
pub(crate) struct Memory(MemoryStore);

impl Disk for Memory {
    fn store(&self) -> Result<Box<dyn Store>, StoreError> {
        Ok(Box::new(self.0.clone()))
    }
}

#[cfg(feature = "sqlite")]
pub(crate) use sqlite::SqliteFile;

#[cfg(feature = "sqlite")]
mod sqlite {
    use std::path::PathBuf;

    use adjourn_socketio::store::{SqliteStore, Synchronous};

    use super::{Disk, Store, StoreError};

    /// A directory of its own with one file, removed at the end.
    pub(crate) struct SqliteFile {
        directory: PathBuf,
        synchronous: Synchronous,
    }

    impl SqliteFile {
        pub(crate) fn new(name: &str) -> Self {
            let directory = std::env::temp_dir().join(format!("adjourn-store-{}-{name}", std::process::id()));
            let _ = std::fs::remove_dir_all(&directory);
            std::fs::create_dir_all(&directory).expect("a directory");
            Self { directory, synchronous: Synchronous::Normal }
        }

        pub(crate) fn full(mut self) -> Self {
            self.synchronous = Synchronous::Full;
            self
        }

        pub(crate) fn path(&self) -> PathBuf {
            self.directory.join("test.db")
        }

        pub(crate) fn sqlite(&self) -> Result<SqliteStore, StoreError> {
            Ok(SqliteStore::open(self.path())?.synchronous(self.synchronous))
        }
    }

    impl Disk for SqliteFile {
        fn store(&self) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(self.sqlite()?))
        }
    }

    impl Drop for SqliteFile {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

#[cfg(feature = "redis")]
pub(crate) use redis::Redis;

#[cfg(feature = "redis")]
mod redis {
    use adjourn_socketio::store::RedisStore;

    use super::{Disk, Store, StoreError};
    use crate::redis_server::RedisServer;

    /// A server of its own.
    pub(crate) struct Redis(RedisServer);

    impl Redis {
        /// `None`: there is no `redis-server`.
        pub(crate) fn start() -> Option<Self> {
            RedisServer::start(&[]).map(Self)
        }
    }

    impl Disk for Redis {
        fn store(&self) -> Result<Box<dyn Store>, StoreError> {
            Ok(Box::new(RedisStore::new(&self.0.url(), "test")?.counting()))
        }
    }
}

/// A window of 10 s; all the rest is small, too.
pub(crate) fn settings() -> StoreSettings {
    StoreSettings {
        window: Duration::from_secs(10),
        once_window: Duration::from_mins(1),
        max_once_keys: 4,
        max_sessions: 4,
        max_ack: 100,
        max_replay: 1000,
        log_entries: 1000,
        log_bytes: 1 << 20,
    }
}

pub(crate) fn at(number: u64) -> Position {
    Position::counter(number)
}

pub(crate) fn event(namespace: &str, packet: &str) -> NewEntry {
    NewEntry {
        namespace: namespace.into(),
        kind: EntryKind::Event,
        rooms: Arc::new([]),
        except: Arc::new([]),
        packet: packet.into(),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    }
}

/// `n` entries in one commit.
pub(crate) fn fill(parts: &mut Parts, namespace: &str, n: usize, now: u64) {
    let entries = (0..n).map(|i| event(namespace, &format!("[\"e\",{i}]"))).collect();
    parts.writer.commit(&Batch { entries, ..Batch::default() }, now).expect("commits");
}

pub(crate) fn session(pid: &str) -> SessionRecord {
    SessionRecord {
        pid: pid.into(),
        sid: format!("sid-of-{pid}").into(),
        namespace: "/".into(),
        principal: "".into(),
        generation: 1,
        first: Position::START,
        checkpoint: Position::START,
        last: Position::START,
        earlier: Vec::new(),
        data: None,
        answered: Vec::new(),
        memberships: Vec::new(),
        away: None,
    }
}

pub(crate) fn save(parts: &mut Parts, record: SessionRecord, now: u64) -> bool {
    change(parts, SessionChange::Save(record), now)
}

/// Was it written?
pub(crate) fn change(parts: &mut Parts, change: SessionChange, now: u64) -> bool {
    let batch = Batch { sessions: vec![change], ..Batch::default() };
    parts.writer.commit(&batch, now).expect("commits").stale.is_empty()
}

pub(crate) fn ask(pid: &str, offset: Option<&str>) -> Attach {
    Attach {
        pid: pid.into(),
        namespace: "/".into(),
        principal: Some("".into()),
        offset: offset.map(|text| text.parse().expect("an offset")),
    }
}

pub(crate) fn ack(json: &str) -> AckValue {
    AckValue { json: json.into(), attachments: Arc::new([]) }
}

pub(crate) fn key(key: &str) -> OnceKey {
    OnceKey { scope: "/ store".into(), key: key.into() }
}

pub(crate) fn context(session: Option<(&str, u64)>) -> TransactContext {
    TransactContext {
        namespace: "/".into(),
        sid: "sid".into(),
        session: session.map(|(pid, generation)| (pid.into(), generation)),
        logged: true,
        max_event: 4 << 20,
    }
}

pub(crate) fn limits() -> LogLimits {
    LogLimits { age: Duration::from_hours(1), entries: 1_000_000, bytes: 1 << 40, read: None }
}
