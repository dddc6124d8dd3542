//! Several nodes on one Redis, in its own time: calls that arrive late or are lost half way, sessions of nodes that are not heard
//! of, logs that one node drops and another uses.

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::thread;
use std::time::{Duration, Instant};

use adjourn_socketio::Emitter;
use adjourn_socketio::offset::Position;
use adjourn_socketio::store::{
    Batch, EntryKind, FeedItem, NodeId, OnceState, Parts, RedisStore, SessionChange, SessionRecord,
    Store as _, StoreSettings, Tx,
};

use crate::disk::{ack, ask, context, event, key, session, settings};
use crate::redis_server::RedisServer;

const PREFIX: &str = "shared";
/// Where sessions begin: after all that is logged.
const LATE: Position = Position { time: 1 << 50, number: 0 };

/// All processes have this name: process ids are alike in containers.
fn open(url: &str, settings: &StoreSettings) -> Parts {
    let store = RedisStore::new(url, PREFIX).expect("a URL").call_timeout(Duration::from_millis(300));
    Box::new(store).open(NodeId("1".into()), settings, 0).expect("opens")
}

fn emit(parts: &mut Parts, packet: &str) -> Position {
    let batch = Batch { entries: vec![event("/", packet)], ..Batch::default() };
    parts.writer.commit(&batch, 0).expect("commits").positions[0]
}

fn packets(parts: &mut Parts) -> Vec<String> {
    packets_of(parts, "/")
}

fn packets_of(parts: &mut Parts, namespace: &str) -> Vec<String> {
    let all = Position::START..Position { time: u64::MAX >> 12, number: 0 };
    let page = parts.reader.page(namespace, all, usize::MAX >> 12).expect("a page");
    let events = page.entries.iter().filter(|entry| entry.new.kind == EntryKind::Event);
    events.map(|entry| entry.new.packet.to_string()).collect()
}

fn save(parts: &mut Parts, namespace: &str, pid: &str) {
    let mut record = session(pid);
    (record.namespace, record.first) = (namespace.into(), LATE);
    let batch = Batch { sessions: vec![SessionChange::Save(record)], ..Batch::default() };
    assert!(parts.writer.commit(&batch, 0).expect("commits").stale.is_empty());
}

/// One command, over a connection of its own; the answer as it comes.
fn redis(server: &RedisServer, words: &[&str]) -> String {
    let mut stream = UnixStream::connect(server.socket()).expect("connects");
    let mut call = format!("*{}\r\n", words.len());
    for word in words {
        write!(call, "${}\r\n{word}\r\n", word.len()).expect("a text takes all");
    }
    stream.write_all(call.as_bytes()).expect("writes");
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).expect("reads");
    String::from_utf8_lossy(&answer[..length]).trim_end().to_owned()
}

/// Carries TCP connections to a server, and can hold back what one of them sends next.
struct Proxy {
    url: String,
    hold: Arc<AtomicBool>,
    released: Arc<AtomicBool>,
    arrived: Arc<AtomicBool>,
    /// The answer to the next script that is called is lost.
    loses: Arc<AtomicBool>,
}

impl Proxy {
    fn start(server: &RedisServer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
        let url = format!("redis://{}", listener.local_addr().expect("an address"));
        let [hold, released, arrived, loses] = std::array::from_fn(|_| Arc::new(AtomicBool::new(false)));
        let proxy = Self { url, hold, released, arrived, loses };
        let (socket, flags) = (server.socket(), proxy.flags());
        thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, UnixStream::connect(&socket)) else { return };
                let flags = flags.clone();
                let back = (server.try_clone().expect("clones"), client.try_clone().expect("clones"));
                let lost = Arc::new(AtomicBool::new(false));
                let of_answers = Arc::clone(&lost);
                thread::spawn(move || carry_back(back.0, back.1, &of_answers));
                thread::spawn(move || carry(client, server, flags, &lost));
            }
        });
        proxy
    }

    fn flags(&self) -> Flags {
        [&self.hold, &self.released, &self.arrived, &self.loses].map(Arc::clone)
    }
}

fn carry_back(mut server: UnixStream, mut client: TcpStream, lost: &AtomicBool) {
    let mut chunk = vec![0; 65536];
    while let Ok(length @ 1..) = server.read(&mut chunk) {
        if !lost.load(SeqCst) && client.write_all(&chunk[..length]).is_err() {
            return;
        }
    }
}

type Flags = [Arc<AtomicBool>; 4];

fn carry(mut client: TcpStream, mut server: UnixStream, flags: Flags, lost: &AtomicBool) {
    let [hold, released, arrived, loses] = flags;
    let mut chunk = vec![0; 65536];
    while let Ok(length @ 1..) = client.read(&mut chunk) {
        if chunk[..length].windows(7).any(|word| word == b"EVALSHA") && loses.swap(false, SeqCst) {
            lost.store(true, SeqCst);
        }
        let held = hold.swap(false, SeqCst);
        while held && !released.load(SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
        if server.write_all(&chunk[..length]).is_err() {
            return;
        }
        if held {
            // Its client is gone, so what the server answers is read by nobody else.
            thread::sleep(Duration::from_millis(50));
            arrived.store(true, SeqCst);
        }
    }
}

fn wait_for(flag: &AtomicBool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !flag.load(SeqCst) {
        assert!(Instant::now() < end, "it does not come");
        thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_call_that_arrives_after_its_repetition_and_the_next_call_takes_no_effect() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let proxy = Proxy::start(&server);
    let mut node = open(&proxy.url, &settings());
    emit(&mut node, "1");
    proxy.hold.store(true, SeqCst);
    emit(&mut node, "2");
    emit(&mut node, "3");
    proxy.released.store(true, SeqCst);
    wait_for(&proxy.arrived);
    assert_eq!(packets(&mut node), ["1", "2", "3"]);
}

#[test]
fn a_node_with_the_same_name_is_no_earlier_life_of_this_one() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let settings = StoreSettings { window: Duration::from_millis(40), ..settings() };
    let mut a = open(&server.url(), &settings);
    let mut b = open(&server.url(), &settings);
    thread::sleep(Duration::from_millis(60));
    save(&mut a, "/", "p");
    let attached = b.writer.attach(&ask("p", None), 0).expect("its session is connected, and so not over");
    assert_eq!(attached.session.generation, 2);
    let lease = Duration::from_secs(30);
    assert_eq!(a.writer.once_begin(&key("k"), lease, 0).expect("an answer"), OnceState::First);
    let again = b.writer.once_begin(&key("k"), lease, 0).expect("an answer");
    assert!(matches!(again, OnceState::Running { .. }), "{again:?}");
}

#[test]
fn calls_of_two_nodes_with_one_number_are_two_calls() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let (mut a, mut b) = (open(&server.url(), &settings()), open(&server.url(), &settings()));
    let begin = |node: &mut Parts| node.writer.once_begin(&key("k"), Duration::from_secs(30), 0);
    assert_eq!(begin(&mut a).expect("an answer"), OnceState::First);
    let second = begin(&mut b).expect("an answer");
    assert!(matches!(second, OnceState::Running { .. }), "both would run: {second:?}");
}

#[test]
fn a_transaction_of_a_session_that_has_moved_is_left_to_its_new_node() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut a = open(&server.url(), &settings());
    let mut b = open(&server.url(), &settings());
    save(&mut a, "/", "p");
    b.writer.attach(&ask("p", None), 0).expect("attaches");
    let run = |node: &mut Parts, generation| {
        let joins = |tx: &mut Tx<'_>| {
            tx.join("room");
            Ok(ack("[]"))
        };
        node.writer.transact(Some(&key("k")), &context(Some(("p", generation))), Box::new(joins), 0)
    };
    assert!(run(&mut a, 1).is_err(), "the join would be lost, and the key done");
    let done = run(&mut b, 2).expect("runs");
    assert!(done.session_current && !done.repeat);
    let session = a.writer.attach(&ask("p", None), 0).expect("attaches").session;
    assert_eq!(session.memberships.len(), 1);
}

#[test]
fn a_session_of_a_log_that_is_lost_is_not_written_to_the_next_one() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut node = open(&server.url(), &settings());
    let first = emit(&mut node, "1");
    let record = SessionRecord { first, checkpoint: first, last: first, ..session("p") };
    let save = Batch { sessions: vec![SessionChange::Save(record)], ..Batch::default() };
    assert!(node.writer.commit(&save, 0).expect("commits").stale.is_empty());
    // The next log begins in a later millisecond.
    thread::sleep(Duration::from_millis(2));
    redis(&server, &["FLUSHALL"]);
    assert_eq!(node.writer.commit(&save, 0).expect("commits").stale, [0]);
    let refused = node.writer.attach(&ask("p", None), 0).expect_err("it is lost").to_string();
    assert_eq!(refused, "unknown session");
}

#[test]
fn sessions_outlast_a_pause_of_redis_that_silences_all_nodes() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut a = open(&server.url(), &settings());
    let mut b = open(&server.url(), &settings());
    save(&mut a, "/", "p");
    let node = redis(&server, &["HGET", "{shared:/}:s:p", "n"]);
    let node = node.lines().nth(1).expect("a name").to_owned();
    let now = a.shared.as_ref().expect("is shared").time;
    let mut heard = |ago: u64| {
        redis(&server, &["ZADD", "shared:nodes", &now.saturating_sub(ago).to_string(), &node]);
        redis(&server, &["ZADD", "{shared:/}:held", "0", "p"]);
        b.writer.expire(0, 16).expect("an answer").len()
    };
    assert_eq!(heard(7_000), 0, "nobody has been heard of for 7 s; a session may be away for 10");
    assert_eq!(heard(16_000), 1, "the node is dead for longer");
}

#[test]
fn a_commit_that_fails_for_one_namespace_has_appended_nothing_to_another() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut node = open(&server.url(), &settings());
    emit(&mut node, "1");
    redis(&server, &["SET", "{shared:/z}:s:p", "no hash"]);
    let mut record = session("p");
    record.namespace = "/z".into();
    let batch = Batch {
        entries: vec![event("/", "2")],
        sessions: vec![SessionChange::Save(record)],
        ..Batch::default()
    };
    assert!(node.writer.commit(&batch, 0).is_err());
    assert_eq!(packets(&mut node), ["1"], "an error says that nobody gets it");
}

#[test]
fn a_log_that_another_node_has_dropped_is_found_again_when_it_is_used() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let settings = StoreSettings { window: Duration::from_millis(20), ..settings() };
    let mut a = open(&server.url(), &settings);
    let mut b = open(&server.url(), &settings);
    save(&mut b, "/x", "p");
    let gone = SessionChange::Remove { namespace: "/x".into(), pid: "p".into(), generation: 1 };
    b.writer.commit(&Batch { sessions: vec![gone], ..Batch::default() }, 0).expect("commits");
    assert!(a.writer.drop_log("/x").expect("an answer"));
    let mut record = session("q");
    (record.namespace, record.first, record.away) = ("/x".into(), LATE, Some(0));
    let away = Batch { sessions: vec![SessionChange::Save(record)], ..Batch::default() };
    b.writer.commit(&away, 0).expect("commits");
    thread::sleep(Duration::from_millis(40));
    let expired = a.writer.expire(0, 16).expect("an answer");
    assert_eq!(expired.iter().map(|session| &*session.sid).collect::<Vec<_>>(), ["sid-of-q"]);
    save(&mut b, "/x", "r");
    assert_eq!(redis(&server, &["PTTL", "{shared:/x}:floor"]), ":-1", "its positions go on");
}

#[test]
fn an_entry_of_another_version_keeps_no_others_from_being_read() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut node = open(&server.url(), &settings());
    emit(&mut node, "1");
    let feed = &mut node.shared.as_mut().expect("is shared").feed;
    feed.follow(&"/".into());
    let mut items = Vec::new();
    while items.is_empty() {
        items = feed.next(Duration::from_millis(40));
    }
    let FeedItem::Began { tail, .. } = items.remove(0) else { panic!("{items:?}") };
    let next = format!("{}-{}", tail.time, tail.number + 1);
    redis(&server, &["XADD", "{shared:/}:log", &next, "k", "99", "p", "later"]);
    let mut read = Vec::new();
    let end = Instant::now() + Duration::from_secs(10);
    while read.is_empty() && Instant::now() < end {
        for item in node.shared.as_mut().expect("is shared").feed.next(Duration::from_millis(40)) {
            if let FeedItem::Entries(_, entries) = item {
                read.extend(entries.into_iter().map(|entry| entry.position));
            }
        }
    }
    assert_eq!(read, [Position { number: tail.number + 1, ..tail }]);
    // The scripts do not know of that entry: in the same millisecond they would give its position to the next one.
    thread::sleep(Duration::from_millis(2));
    emit(&mut node, "2");
    assert_eq!(packets(&mut node), ["1", "", "2"]);
}

#[test]
fn sessions_that_are_over_are_told_though_the_answer_was_lost() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let settings = StoreSettings { window: Duration::from_millis(20), ..settings() };
    let proxy = Proxy::start(&server);
    let mut node = open(&proxy.url, &settings);
    let mut record = session("p");
    (record.first, record.away) = (LATE, Some(0));
    let away = Batch { sessions: vec![SessionChange::Save(record)], ..Batch::default() };
    node.writer.commit(&away, 0).expect("commits");
    thread::sleep(Duration::from_millis(40));
    // Its script is known to the server.
    node.writer.expire(0, 0).expect("an answer");
    proxy.loses.store(true, SeqCst);
    let expired = node.writer.expire(0, 16).expect("an answer");
    assert!(!proxy.loses.load(SeqCst), "an answer was lost");
    assert_eq!(expired.iter().map(|session| &*session.sid).collect::<Vec<_>>(), ["sid-of-p"]);
    assert!(node.writer.expire(0, 16).expect("an answer").is_empty());
}

#[test]
fn a_log_that_no_node_reads_is_trimmed_too() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let settings = StoreSettings { window: Duration::from_millis(40), log_entries: 5, ..settings() };
    let mut node = open(&server.url(), &settings);
    let mut emitter = Emitter::connect(&server.url(), PREFIX).expect("connects");
    for i in 0..20 {
        emitter.emit("/news", &[], "n", (i,)).expect("emits");
    }
    let length = || redis(&server, &["XLEN", "{shared:/news}:log"]);
    node.writer.expire(0, 16).expect("an answer");
    assert_eq!(length(), ":5");
    thread::sleep(Duration::from_millis(60));
    node.writer.expire(0, 16).expect("an answer");
    assert_eq!(length(), ":0");
    save(&mut node, "/news", "p");
    emitter.emit("/news", &[], "n", (20,)).expect("emits");
    thread::sleep(Duration::from_millis(60));
    node.writer.expire(0, 16).expect("an answer");
    assert_eq!(length(), ":1", "a node has a session of it, and trims what it has read");
}

#[test]
fn one_read_of_the_feed_is_bounded_by_bytes() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut node = open(&server.url(), &settings());
    let feed = &mut node.shared.as_mut().expect("is shared").feed;
    feed.follow(&"/".into());
    while feed.next(Duration::from_millis(40)).is_empty() {}
    // It has a connection.
    feed.next(Duration::from_millis(1));
    let large = "x".repeat(100_000);
    for _ in 0..100 {
        emit(&mut node, &large);
    }
    let (mut count, mut most) = (0, 0);
    let feed = &mut node.shared.as_mut().expect("is shared").feed;
    let end = Instant::now() + Duration::from_secs(10);
    while count < 100 && Instant::now() < end {
        let items = feed.next(Duration::from_millis(40));
        let entries = items.iter().map(|item| match item {
            FeedItem::Entries(_, entries) => entries.len(),
            other => panic!("{other:?}"),
        });
        let read: usize = entries.sum();
        count += read;
        most = most.max(read);
    }
    assert_eq!(count, 100);
    assert!(most < 30, "{most} entries of 100 kB at once");
}

#[test]
fn an_entry_of_a_transaction_for_another_namespace_waits_until_it_can_be_appended() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut node = open(&server.url(), &settings());
    let run = |node: &mut Parts| {
        let appends = |tx: &mut Tx<'_>| {
            tx.append(event("/", "1"));
            tx.append(event("/other", "2"));
            tx.append(event("/other", "3"));
            Ok(ack("[]"))
        };
        node.writer.transact(Some(&key("k")), &context(None), Box::new(appends), 0)
    };
    redis(&server, &["SET", "{shared:/other}:log", "no stream"]);
    assert!(!run(&mut node).expect("its own namespace has it").repeat);
    assert!(run(&mut node).expect("the key is done").repeat);
    assert_eq!(packets(&mut node), ["1"]);
    redis(&server, &["DEL", "{shared:/other}:log"]);
    redis(&server, &["COPY", "{shared:/}:outbox", "{shared:/}:copy"]);
    node.writer.expire(0, 16).expect("an answer");
    assert_eq!(packets_of(&mut node, "/other"), ["2", "3"]);
    // As if the node had died before it took them from the list.
    redis(&server, &["RENAME", "{shared:/}:copy", "{shared:/}:outbox"]);
    let mut other = open(&server.url(), &settings());
    other.writer.expire(0, 16).expect("an answer");
    assert_eq!(packets_of(&mut node, "/other"), ["2", "3"]);
    assert_eq!(redis(&server, &["EXISTS", "{shared:/}:outbox"]), ":0");
}

#[test]
fn an_emitter_refuses_what_no_client_could_be_sent() {
    let Some(server) = RedisServer::start(&[]) else { return };
    let mut emitter = Emitter::connect(&server.url(), PREFIX).expect("connects");
    let length = || redis(&server, &["XLEN", "{shared:/}:log"]);
    let large = emitter.emit("/", &[], "x", ("x".repeat(4 << 20),));
    let why = large.expect_err("nodes would pass over it").to_string();
    assert!(why.contains("exceeds send_queue (4194304)"), "{why}");
    let before = length();
    emitter.emit("/", &[], "x", ("x".repeat(1 << 20),)).expect("fits");
    assert_ne!(length(), before);
    let mut emitter = emitter.send_queue(16 << 10);
    assert!(emitter.emit("/", &[], "x", ("x".repeat(16 << 10),)).is_err());
    emitter.emit("/", &[], "x", ("x".repeat(15 << 10),)).expect("fits");
}

/// Answers as a master of a cluster would: it takes one call without an answer, and is gone for a second.
fn master(listener: &TcpListener) {
    let address = listener.local_addr().expect("an address");
    let lost = Arc::new(std::sync::Mutex::new(None::<Instant>));
    for client in listener.incoming() {
        let (Ok(mut client), lost) = (client, Arc::clone(&lost)) else { return };
        if lost.lock().expect("not poisoned").is_some_and(|at| at.elapsed() < Duration::from_secs(1)) {
            continue;
        }
        thread::spawn(move || {
            let mut chunk = vec![0; 65536];
            let mut text = String::new();
            while let Ok(length @ 1..) = client.read(&mut chunk) {
                text.push_str(&String::from_utf8_lossy(&chunk[..length]));
                // A call or a pipeline is one write of the client's, and small.
                let answer = if text.contains("SLOTS") {
                    let (host, port) = (address.ip().to_string(), address.port());
                    format!("*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${}\r\n{host}\r\n:{port}\r\n", host.len())
                } else if text.contains("INFO\r\n$6\r\nserver") {
                    let info = "run_id:r\r\nredis_mode:cluster\r\n";
                    format!("${}\r\n{info}\r\n", info.len())
                } else if text.contains("EVALSHA") {
                    if lost.lock().expect("not poisoned").replace(Instant::now()).is_none() {
                        return;
                    }
                    "$6\r\n5-1;;1\r\n".to_owned()
                } else if text.contains("SMEMBERS") {
                    "*0\r\n".to_owned()
                } else if text.contains("TIME") {
                    "*2\r\n$1\r\n5\r\n$1\r\n0\r\n".to_owned()
                } else if text.contains("SADD") {
                    ":1\r\n".to_owned()
                } else {
                    "+OK\r\n".repeat(text.matches("SETINFO").count().max(1))
                };
                text.clear();
                if client.write_all(answer.as_bytes()).is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn a_call_that_a_dying_master_of_a_cluster_has_taken_is_made_again_until_its_outcome_is_known() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("binds");
    let url = format!("redis://{}", listener.local_addr().expect("an address"));
    thread::spawn(move || master(&listener));
    let mut node = open(&url, &settings());
    assert_eq!(emit(&mut node, "1"), Position { time: 5, number: 1 });
}
