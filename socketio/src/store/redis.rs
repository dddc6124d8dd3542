//! Logs, sessions and once keys in Redis (6.2 or later, Valkey, Redis Cluster), shared by all processes with one prefix
//! (specification 15 and 16).
//!
//! All keys of a namespace have one hash tag and are changed by scripts (`redis/*.lua`), so each call is one transaction of one
//! server. Times are Redis's. A call whose answer was lost is made again until its outcome is known, and takes effect once.
//!
//! | key | type | content |
//! |---|---|---|
//! | `{p:nsp}:log` | stream | `k` kind, `r` rooms, `x` except, `p` packet, `a` attachments, `i` ack id, `u` deadline |
//! | `{p:nsp}:floor` | hash | `floor`, `tail`, `bytes` |
//! | `{p:nsp}:epoch` | hash | `run`, `epoch`, `born` = the first position, `e<k>` = the last position of epoch k |
//! | `{p:nsp}:s:<pid>` | hash | `g` generation, `n` node, `a` away since, `v` the record, `j` joins of transactions |
//! | `{p:nsp}:away`, `{p:nsp}:held` | sorted sets | sessions by the time since when they are away, or were last saved |
//! | `{p:nsp}:asks` | sorted set | positions of asks by deadline |
//! | `{p:nsp}:once:<scope>:<key>` | string | `R<until> <node> <token>` or `D<at> <ack>` |
//! | `{p:nsp}:once-running`, `{p:nsp}:once-done` | sorted sets | once keys by time |
//! | `{p:nsp}:done:<node>` | string | the node's last call and its answer |
//! | `{p:nsp}:list:<name>`, `{p:nsp}:lock` | list, string | rows of the application ([`Lists`](super::Lists)), and who may write them |
//! | `{p:nsp}:outbox`, `{p:nsp}:posted` | list, string | entries of transactions for other namespaces, and the number of the last one |
//! | `{p:nsp}:from` | hash | the last number that came from each other namespace, and its position here |
//! | `p:namespaces` | set | namespaces that have a log |
//! | `p:nodes` | sorted set | nodes by heartbeat |

use std::sync::Arc;
use std::time::Duration;

use self::bus::{RedisBus, RedisBusReceiver};
use self::feed::RedisFeed;
use self::keys::Keys;
use self::reader::RedisReader;
use self::seed::Seed;
use self::servers::{Servers, Times};
use self::writer::RedisWriter;
use super::{LogState, Millis, NodeId, Parts, Shared, Store, StoreError, StoreSettings, Writer};

mod bus;
mod effects;
mod expiry;
mod feed;
mod keys;
mod lists;
mod outbox;
mod reader;
mod scripts;
mod seed;
mod servers;
mod values;
mod writer;

/// How long a call waits for Redis before it is made again over a new connection.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);

/// A store in Redis, which several processes share.
#[derive(Debug)]
pub struct RedisStore {
    seed: Seed,
    prefix: Arc<str>,
    call_timeout: Duration,
    counts: bool,
}

impl RedisStore {
    /// A store at `url` (`redis://host:port/db`, `redis+unix:///path`; in cluster mode any of its masters), whose keys begin
    /// with `prefix`: processes with the same are nodes of one server. Does not connect yet.
    ///
    /// `redis+sentinel://[user:password@]host[:port],../PRIMARY[/db]` names Sentinels, each with its port (26379), and what they call
    /// the primary. They are asked whenever a connection is made; user, password and database are the primary's.
    ///
    /// # Errors
    /// [`StoreError::Failed`]: the URL is none, or the prefix is empty.
    pub fn new(url: &str, prefix: &str) -> Result<Self, StoreError> {
        let seed = Seed::new(url)?;
        if prefix.is_empty() {
            return Err(StoreError::Failed("the prefix of a Redis store is empty".into()));
        }
        Ok(Self { seed, prefix: prefix.into(), call_timeout: CALL_TIMEOUT, counts: false })
    }

    /// How long a call waits for Redis before it is made again over a new connection. Default 2 s.
    #[must_use]
    pub fn call_timeout(mut self, timeout: Duration) -> Self {
        self.call_timeout = timeout;
        self
    }

    /// The writer alone, for a process that only publishes: it follows no log and is no node.
    pub(crate) fn open_writer(
        self,
        node: &NodeId,
        settings: &StoreSettings,
    ) -> Result<Box<dyn Writer>, StoreError> {
        let servers = Servers::connect(self.seed, self.call_timeout, Times::Redis)?;
        let (keys, node) = (Keys::new(&self.prefix), life_of(node)?);
        Ok(Box::new(RedisWriter::new(servers, keys, node, settings.clone(), 0)))
    }

    /// For tests in virtual time: times are those that calls are given, positions count from 1, each opening begins an
    /// epoch, and neither markers of epochs nor fences are logged. Not for several nodes.
    #[doc(hidden)]
    #[must_use]
    pub fn counting(mut self) -> Self {
        self.counts = true;
        self
    }
}

impl Store for RedisStore {
    fn open(
        self: Box<Self>,
        node: NodeId,
        settings: &StoreSettings,
        now: Millis,
    ) -> Result<Parts, StoreError> {
        let keys = Keys::new(&self.prefix);
        let times = if self.counts { Times::Given } else { Times::Redis };
        let mut servers = Servers::connect(self.seed.clone(), self.call_timeout, times)?;
        let epoch = if self.counts {
            let life = servers.command(&keys.lives(), |key| redis::cmd("INCR").arg(key).take())?;
            let life = values::number(&life).ok_or_else(values::damaged)?;
            servers.set_life(life);
            life
        } else {
            0
        };
        let node = life_of(&node)?;
        let mut writer = RedisWriter::new(servers, keys.clone(), Arc::clone(&node), settings.clone(), now);
        let logs = writer.logs(now)?;
        let connect = || -> Result<Servers, StoreError> {
            Ok(Servers::connect(self.seed.clone(), self.call_timeout, times)?.with_life(epoch))
        };
        let shared = if self.counts {
            None
        } else {
            let mut bus = RedisBus::new(connect()?, keys.clone(), Arc::clone(&node));
            Some(Shared {
                node: NodeId(Arc::clone(&node)),
                time: bus.time()?,
                feed: Box::new(RedisFeed::new(
                    connect()?,
                    keys.clone(),
                    Arc::clone(&node),
                    self.call_timeout,
                )),
                bus: Box::new(bus),
                receiver: Box::new(RedisBusReceiver::new(connect()?, keys.clone(), Arc::clone(&node))),
            })
        };
        let reader = RedisReader::new(connect()?, keys, node);
        Ok(Parts { epoch, logs, writer: Box::new(writer), reader: Box::new(reader), shared })
    }

    fn inline(&self) -> bool {
        false
    }
}

/// The name of this life of a node: no other has it.
fn life_of(node: &NodeId) -> Result<Arc<str>, StoreError> {
    let mut token = [0; 8];
    getrandom::fill(&mut token).map_err(|error| StoreError::Failed(error.to_string().into()))?;
    Ok(format!("{}:{:016x}", values::word(&node.0), u64::from_ne_bytes(token)).into())
}

impl RedisWriter {
    /// The logs that there are.
    fn logs(&mut self, now: Millis) -> Result<Vec<LogState>, StoreError> {
        let names = self.namespaces()?;
        names
            .into_iter()
            .map(|namespace| {
                let log = self.begin(&namespace, now)?;
                Ok(LogState { namespace, tail: log.tail, floor: log.floor })
            })
            .collect()
    }
}

impl From<redis::RedisError> for StoreError {
    fn from(error: redis::RedisError) -> Self {
        Self::Failed(error.to_string().into())
    }
}
