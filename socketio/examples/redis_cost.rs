//! What sessions and events cost a Redis store: memory of each, and how many a second one writer makes.
//!
//!     redis_cost redis://127.0.0.1:6379 [SESSIONS (100000)] [EVENTS (100000)]
//!
//! Sessions are in three rooms and hold 64 bytes of data; events have 64 bytes of text for one room. It writes under a prefix
//! of its own; use a server whose data may go.

use std::sync::Arc;
use std::time::{Duration, Instant};

use adjourn_socketio::offset::Position;
use adjourn_socketio::store::{
    Batch, EntryKind, Membership, NewEntry, NodeId, RedisStore, SessionChange, SessionRecord, Store as _,
    StoreSettings,
};

type Failure = Box<dyn std::error::Error>;

/// As many as the layer commits at once.
const BATCH: usize = 1024;

fn main() -> Result<(), Failure> {
    let mut words = std::env::args().skip(1);
    let url = words.next().ok_or("redis_cost URL [SESSIONS] [EVENTS]")?;
    let sessions: usize = words.next().map_or(Ok(100_000), |word| word.parse())?;
    let events: usize = words.next().map_or(Ok(100_000), |word| word.parse())?;
    let prefix = format!("cost-{}", std::process::id());
    let store = Box::new(RedisStore::new(&url, &prefix)?);
    let settings = StoreSettings { window: Duration::from_mins(30), ..StoreSettings::default() };
    let mut writer = store.open(NodeId("cost".into()), &settings, 0)?.writer;
    let mut redis = redis::Client::open(url)?.get_connection()?;
    let empty = memory(&mut redis)?;
    for (what, changed) in [("created", false), ("renewed", true)] {
        let started = Instant::now();
        for first in (0..sessions).step_by(BATCH) {
            let changes =
                (first..sessions.min(first + BATCH)).map(|i| SessionChange::Save(session(i, changed)));
            writer.commit(&Batch { sessions: changes.collect(), ..Batch::default() }, 0)?;
        }
        report(what, sessions, started.elapsed());
    }
    let with_sessions = memory(&mut redis)?;
    println!("{} bytes of Redis for each session", (with_sessions - empty) / sessions.max(1) as u64);
    let started = Instant::now();
    for first in (0..events).step_by(BATCH) {
        let entries = (first..events.min(first + BATCH)).map(event);
        writer.commit(&Batch { entries: entries.collect(), ..Batch::default() }, 0)?;
    }
    report("events in batches", events, started.elapsed());
    println!(
        "{} bytes of Redis for each event",
        (memory(&mut redis)? - with_sessions) / events.max(1) as u64
    );
    let (started, single) = (Instant::now(), events / 10);
    for i in 0..single {
        writer.commit(&Batch { entries: vec![event(i)], ..Batch::default() }, 0)?;
    }
    report("events one by one", single, started.elapsed());
    Ok(())
}

fn report(what: &str, count: usize, took: Duration) {
    let seconds = took.as_secs_f64().max(f64::EPSILON);
    let rate = f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / seconds;
    println!("{what}: {count} in {seconds:.2} s, {rate:.0} a second");
}

fn memory(redis: &mut redis::Connection) -> Result<u64, Failure> {
    let info: String = redis::cmd("INFO").arg("memory").query(redis)?;
    let used = info.lines().find_map(|line| line.strip_prefix("used_memory:")).ok_or("no used_memory")?;
    Ok(used.trim().parse()?)
}

fn session(i: usize, changed: bool) -> SessionRecord {
    let at = Position { time: 1_800_000_000_000, number: 1 };
    let rooms = ["lobby".to_owned(), format!("user-{i}"), format!("team-{}", i % 100)];
    let member = |room: String| Membership { room: room.into(), from: at, to: None };
    SessionRecord {
        pid: format!("pid{i:017}").into(),
        sid: format!("sid{i:017}").into(),
        namespace: "/".into(),
        principal: Arc::from(""),
        generation: 1,
        first: at,
        checkpoint: at,
        last: if changed { at } else { Position::START },
        data: Some(format!("{{\"name\":\"{}\"}}", "x".repeat(53)).into()),
        earlier: Vec::new(),
        answered: Vec::new(),
        memberships: rooms.into_iter().map(member).collect(),
        away: None,
    }
}

fn event(i: usize) -> NewEntry {
    NewEntry {
        namespace: "/".into(),
        kind: EntryKind::Event,
        rooms: [format!("team-{}", i % 100).into()].into(),
        except: Arc::new([]),
        packet: format!("2[\"message\",\"{i:064}\"]").into(),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    }
}
