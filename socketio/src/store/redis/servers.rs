//! Connections to Redis: one server, or the masters of a cluster.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{Cmd, Connection, RedisError, Script, Value};

use super::keys::slot;
use super::seed::Seed;
use super::values::{self, Arguments};
use crate::store::{Millis, StoreError};

/// How often a call follows a cluster that moves its slots.
const REDIRECTIONS: usize = 5;
/// The pause before a call is made again whose outcome is not known.
const PAUSE: Duration = Duration::from_millis(50);

/// Whose clock the scripts go by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Times {
    /// `TIME`.
    Redis,
    /// What the call is given (tests).
    Given,
}

/// The servers, each connected when it is needed.
pub(super) struct Servers {
    seed: Seed,
    timeout: Duration,
    times: Times,
    /// In counting mode: what stands for the run id.
    life: u64,
    /// `None`: one server.
    slots: Option<Vec<SlotRange>>,
    open: HashMap<Arc<str>, Server>,
    reconnected: bool,
}

struct SlotRange {
    first: u16,
    last: u16,
    address: Arc<str>,
}

struct Server {
    connection: Connection,
    /// Which life of the server this is: a restart or a failover shows another.
    run: Arc<str>,
}

/// Why a call has no answer.
enum Failure {
    /// It did not happen.
    Refused(StoreError),
    /// It may have happened.
    Lost(StoreError),
    /// Another server has the key.
    Moved,
}

impl Servers {
    /// Connects to the first server and finds out whether it is one of a cluster.
    pub(super) fn connect(seed: Seed, timeout: Duration, times: Times) -> Result<Self, StoreError> {
        let mut servers =
            Self { seed, timeout, times, life: 0, slots: None, open: HashMap::new(), reconnected: false };
        let (server, cluster) = servers.open_at(None)?;
        servers.open.insert("".into(), server);
        if cluster {
            servers.find_slots()?;
        }
        Ok(servers)
    }

    pub(super) fn set_life(&mut self, life: u64) {
        self.life = life;
    }

    pub(super) fn with_life(mut self, life: u64) -> Self {
        self.life = life;
        self
    }

    /// Runs a script on the server that has `key` until its outcome is known: a lost answer is asked for again, so the script
    /// must not mind.
    pub(super) fn run(
        &mut self,
        script: &Script,
        key: &str,
        node: &str,
        arguments: &Arguments,
        now: Millis,
    ) -> Result<Value, StoreError> {
        let given = if self.times == Times::Given { now.to_string() } else { String::new() };
        let life = (self.times == Times::Given).then(|| Arc::from(self.life.to_string()));
        self.until_known(key, |server| {
            let mut call = script.key(key);
            let run: &Arc<str> = life.as_ref().unwrap_or(&server.run);
            call.arg(&**run).arg(&given).arg(node);
            for argument in arguments {
                call.arg(argument);
            }
            call.invoke(&mut server.connection)
        })
    }

    /// One command on the server that has `key`.
    pub(super) fn command(&mut self, key: &str, make: impl Fn(&str) -> Cmd) -> Result<Value, StoreError> {
        self.until_known(key, |server| make(key).query(&mut server.connection))
    }

    /// The same, tried once: its outcome may stay unknown.
    pub(super) fn try_command(&mut self, key: &str, make: impl Fn(&str) -> Cmd) -> Result<Value, StoreError> {
        match self.once(key, &|server| make(key).query(&mut server.connection)) {
            Ok(value) => Ok(value),
            Err(Failure::Refused(error) | Failure::Lost(error)) => Err(error),
            Err(Failure::Moved) => {
                self.find_slots()?;
                Err(StoreError::Failed("the cluster moves its slots".into()))
            }
        }
    }

    /// The time of the first server.
    pub(super) fn time(&mut self) -> Result<Millis, StoreError> {
        let time = self.try_command("", |_| redis::cmd("TIME"))?;
        let [seconds, micros] = values::list(&time).unwrap_or_default() else {
            return Err(values::damaged());
        };
        let number = |value| values::number(value).ok_or_else(values::damaged);
        Ok(number(seconds)?.saturating_mul(1000).saturating_add(number(micros)? / 1000))
    }

    /// Are times those of the caller?
    pub(super) fn times_given(&self) -> bool {
        self.times == Times::Given
    }

    pub(super) const fn is_cluster(&self) -> bool {
        self.slots.is_some()
    }

    /// Has a connection been made since the last call?
    pub(super) fn take_reconnected(&mut self) -> bool {
        std::mem::take(&mut self.reconnected)
    }

    /// What had to be done because of a new connection was not done.
    pub(super) const fn check_again(&mut self) {
        self.reconnected = true;
    }

    /// A connection of its own to the first server that answers.
    pub(super) fn dedicated(&self) -> Result<Connection, StoreError> {
        let known = self.slots.iter().flatten().map(|range| Some(&*range.address));
        let mut failed = StoreError::Failed("no server answers".into());
        for address in std::iter::once(None).chain(known) {
            match self.open_at(address) {
                Ok((server, _)) => return Ok(server.connection),
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    fn until_known(
        &mut self,
        key: &str,
        call: impl Fn(&mut Server) -> Result<Value, RedisError>,
    ) -> Result<Value, StoreError> {
        let (mut lost, mut redirections) = (false, 0);
        loop {
            match self.once(key, &call) {
                Ok(value) => return Ok(value),
                // A call that may have happened waits until the cluster has another master.
                Err(Failure::Moved) if lost || redirections < REDIRECTIONS => {
                    redirections += 1;
                    match self.find_slots() {
                        Err(error) if !lost => return Err(error),
                        _ if lost => std::thread::sleep(PAUSE),
                        _ => {}
                    }
                }
                Err(Failure::Moved) => {
                    return Err(StoreError::Failed("the cluster moves its slots".into()));
                }
                Err(Failure::Refused(error)) if !lost => return Err(error),
                Err(Failure::Refused(_)) => std::thread::sleep(PAUSE),
                Err(Failure::Lost(error)) => {
                    tracing::debug!(target: "adjourn_socketio", %error, "a call is made again");
                    lost = true;
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }

    fn once(
        &mut self,
        key: &str,
        call: &impl Fn(&mut Server) -> Result<Value, RedisError>,
    ) -> Result<Value, Failure> {
        let address = self.address_of(key);
        if !self.open.contains_key(&address) {
            let target = (!address.is_empty()).then_some(&*address);
            match self.open_at(target) {
                Ok((server, _)) => {
                    self.open.insert(Arc::clone(&address), server);
                    self.reconnected = true;
                }
                // A master that is gone has a successor, which another one knows.
                Err(_) if self.slots.is_some() => return Err(Failure::Moved),
                Err(error) => return Err(Failure::Refused(error)),
            }
        }
        let Some(server) = self.open.get_mut(&address) else { return Err(Failure::Moved) };
        let error = match call(server) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if matches!(error.code(), Some("MOVED" | "ASK")) && self.slots.is_some() {
            return Err(Failure::Moved);
        }
        let gone = error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error();
        if gone || error.code() == Some("READONLY") {
            self.open.remove(&address);
        }
        if gone { Err(Failure::Lost(error.into())) } else { Err(Failure::Refused(error.into())) }
    }

    fn address_of(&self, key: &str) -> Arc<str> {
        let Some(slots) = &self.slots else { return "".into() };
        let slot = slot(key);
        let range = slots.iter().find(|range| (range.first..=range.last).contains(&slot));
        range.map_or_else(|| "".into(), |range| Arc::clone(&range.address))
    }

    /// Connects to the seed, or to `host:port` with the seed's settings. Is it one of a cluster?
    fn open_at(&self, address: Option<&str>) -> Result<(Server, bool), StoreError> {
        let mut connection = self.seed.connect(address, self.timeout)?;
        let info: String = redis::cmd("INFO").arg("server").query(&mut connection)?;
        let field = |name: &str| info.lines().find_map(|line| line.strip_prefix(name));
        let run = field("run_id:").unwrap_or_default().trim().into();
        // Valkey says it by another name.
        let mode = field("redis_mode:").or_else(|| field("server_mode:"));
        let cluster = mode.is_some_and(|mode| mode.trim() == "cluster");
        Ok((Server { connection, run }, cluster))
    }

    /// Asks any server that answers for the masters and their slots.
    fn find_slots(&mut self) -> Result<(), StoreError> {
        let known: Vec<Arc<str>> =
            self.slots.iter().flatten().map(|range| Arc::clone(&range.address)).collect();
        let mut failed = StoreError::Failed("no server of the cluster answers".into());
        for address in std::iter::once(None).chain(known.iter().map(|address| Some(&**address))) {
            let answer = self.open_at(address).and_then(|(mut server, _)| {
                let slots: Value = redis::cmd("CLUSTER").arg("SLOTS").query(&mut server.connection)?;
                Ok(slots)
            });
            match answer {
                Ok(answer) => {
                    let slots = slot_ranges(&answer);
                    self.open.retain(|address, _| slots.iter().any(|range| range.address == *address));
                    self.slots = Some(slots);
                    return Ok(());
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }
}

impl std::fmt::Debug for Servers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Servers").field("open", &self.open.len()).finish_non_exhaustive()
    }
}

/// `[[first, last, [host, port, ..], ..], ..]`
fn slot_ranges(answer: &Value) -> Vec<SlotRange> {
    let range = |row: &Value| {
        let row = values::list(row)?;
        let number = |value| u16::try_from(values::number(value)?).ok();
        let master = values::list(row.get(2)?)?;
        let (host, port) = (values::text(master.first()?)?, values::number(master.get(1)?)?);
        let address = format!("{host}:{port}").into();
        Some(SlotRange { first: number(row.first()?)?, last: number(row.get(1)?)?, address })
    };
    values::list(answer).unwrap_or_default().iter().filter_map(range).collect()
}
