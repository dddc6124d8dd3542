//! Rules of several sections, each by its number: what the other files do not say.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::config::IdlePolicy;
use adjourn_socketio::core::{AckOptions, Io, StoreCall};
use adjourn_socketio::error::{AckError, EmitError};
use adjourn_socketio::links::LinkClose;
use adjourn_socketio::packet::Args;
use adjourn_socketio::store::AckValue;

use super::basics::handlers;
use super::recovery::{numbers, say, world_with};
use super::world::{Client, StoreMode, World, quick};

/// What was unsent, and until when the session can be resumed.
type End = (usize, Option<Duration>);
type Answer<'a> = Result<Args<'a>, AckError>;

#[test]
fn s6_ack_ids_of_the_server_have_two_ranges() {
    let mut world = world_with(quick());
    let client = Client::new(&mut world);
    let (sid, link) = (client.sid.clone(), client.link.expect("is open"));
    for _ in 0..20 {
        let sid = sid.clone();
        world.call(move |io| {
            let mut socket = io.socket("/", &sid).expect("is connected");
            let nothing = |_: &mut Io<'_>, _: Answer<'_>| {};
            let options = AckOptions::once(Duration::from_secs(5));
            socket.emit_with_ack("q", (), options, nothing).expect("goes");
            let options = AckOptions::redeliver(Duration::from_secs(5));
            socket.emit_with_ack("q", (), options, nothing).expect("goes");
        });
    }
    let ids: Vec<u64> = world
        .received(link)
        .iter()
        .map(|text| text.trim_start_matches("42").split('[').next().expect("an id").parse().expect("digits"))
        .collect();
    let (once, redelivered): (Vec<u64>, Vec<u64>) = ids.iter().partition(|id| **id < 1 << 40);
    assert_eq!((once.len(), redelivered.len()), (20, 20));
    assert!(redelivered.iter().all(|id| *id < 1 << 52));
}

#[test]
fn s7_a_name_that_was_dropped_and_one_that_is_new_can_be_resumed() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").window = Duration::from_secs(10);
    let mut world = World::new(config, |core, log| {
        handlers(core.namespace_matching(|name, _| name.starts_with("/dyn-")), log);
    });
    let mut first = Client::of(&mut world, "/dyn-1");
    for _ in 0..3 {
        world.call(|io| io.of("/dyn-1").emit("n", (0,)).expect("is logged"));
    }
    let link = first.link.take().expect("is open");
    world.message(link, "41/dyn-1,");
    world.advance(Duration::from_secs(20));
    assert_eq!(world.core.stats().namespaces_dropped, 1);
    for name in ["/dyn-1", "/dyn-2"] {
        let mut client = Client::of(&mut world, name);
        let sid = client.sid.clone();
        // Nothing received, and nothing logged in it yet.
        client.cut(&mut world);
        world.call(|io| io.of(name).emit("n", (1,)).expect("is logged"));
        client.connect(&mut world);
        assert_eq!(client.sid, sid, "{name}");
        assert_eq!(client.take(&mut world), numbers(1..2), "{name}");
    }
}

#[test]
fn s18_names_made_on_demand_leave_nothing_behind() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").window = Duration::from_secs(10);
    let mut world = World::new(config, |core, log| {
        handlers(core.namespace_matching(|name, _| name.starts_with("/dyn-")), log);
    });
    for number in 0..100 {
        let name = format!("/dyn-{number}");
        let mut client = Client::of(&mut world, &name);
        world.call(|io| io.of(&name).emit("n", (0,)).expect("is logged"));
        client.cut(&mut world);
    }
    world.advance(Duration::from_secs(30));
    let stats = world.core.stats();
    assert_eq!((stats.namespaces_made, stats.namespaces_dropped), (100, 100));
    assert_eq!((stats.namespaces, stats.logs_unused), (0, 0));
}

#[test]
fn s12_a_log_whose_name_is_registered_no_more_goes_with_its_last_session() {
    let mut world = World::new(quick(), |core, log| {
        handlers(core.namespace("/"), log);
        handlers(core.namespace("/old"), log);
    });
    let mut client = Client::of(&mut world, "/old");
    for name in ["/", "/old"] {
        world.call(|io| io.of(name).emit("n", (0,)).expect("is logged"));
    }
    client.cut(&mut world);
    world.restart(quick(), |core, log| handlers(core.namespace("/"), log));
    world.advance(Duration::from_secs(5));
    assert_eq!((world.core.stats().logs_unused, world.entries("/old")), (1, 1), "it may be registered again");
    world.advance(quick().recovery.expect("is on").window);
    assert_eq!((world.core.stats().logs_unused, world.entries("/old")), (0, 0));
}

#[test]
fn s10_local_events_are_not_logged_and_fetch_tells_who_is_there() {
    let mut world = world_with(quick());
    let (mut a, mut b) = (Client::new(&mut world), Client::new(&mut world));
    a.emit(&mut world, r#"["join","r"]"#);
    let entries = world.core.stats().log_entries;
    world.call(|io| io.of("/").to("r").local().emit("x", (1,)).expect("goes"));
    assert_eq!((a.take(&mut world), b.take(&mut world).len()), (vec![r#"["x",1]"#.to_owned()], 0));
    assert_eq!(world.core.stats().log_entries, entries);
    let fetched: Arc<Mutex<Vec<String>>> = Arc::default();
    let found = Arc::clone(&fetched);
    world.call(move |io| {
        io.of("/").to("r").fetch(Duration::from_secs(1), move |_, all| {
            let mut found = found.lock().expect("not poisoned");
            for socket in all.sockets {
                let mut rooms = socket.rooms;
                rooms.sort_by_key(|room| room.len());
                found.push(format!("{} {rooms:?}", socket.id));
            }
        });
    });
    let sid = a.sid.clone();
    assert_eq!(*fetched.lock().expect("not poisoned"), [format!("{sid} {:?}", ["r", sid.as_str()])]);
}

#[test]
fn s11_a_disconnect_tells_what_was_dropped_and_until_when_it_can_be_resumed() {
    let ends: Arc<Mutex<Vec<End>>> = Arc::default();
    let noted = Arc::clone(&ends);
    let mut world = World::new(quick(), move |core, log| {
        let namespace = core.namespace("/");
        handlers(namespace, log);
        namespace.on_disconnect(move |_, end| {
            noted.lock().expect("not poisoned").push((end.unsent, end.resumable_until));
        });
    });
    let mut client = Client::new(&mut world);
    world.advance(Duration::from_secs(1));
    let link = client.link.expect("is open");
    world.stick(link, 1 << 20);
    world.call(|io| io.of("/").local().emit("x", ("0123456789",)).expect("goes"));
    let unsent = world.wire.links[&link].unsent;
    assert!(unsent > 10);
    client.cut(&mut world);
    client.connect(&mut world);
    client.emit(&mut world, r#"["kick","socket"]"#);
    let window = Duration::from_mins(2);
    assert_eq!(
        *ends.lock().expect("not poisoned"),
        [(unsent, Some(Duration::from_secs(1) + window)), (0, None)],
        "a cut, then a deliberate end"
    );
}

#[test]
fn s11_a_warning_to_a_client_that_is_too_slow_ends_it_as_such() {
    let mut world = world_with(quick());
    let client = Client::new(&mut world);
    let (sid, link) = (client.sid.clone(), client.link.expect("is open"));
    world.stick(link, 10);
    world.noted();
    world.call(move |io| {
        let mut socket = io.socket("/", &sid).expect("is connected");
        let warned = socket.warn_then_disconnect("warning", ("bye",), Duration::from_secs(1));
        assert_eq!(warned, Err(EmitError::Disconnected), "there was no room for it");
    });
    assert_eq!(world.noted(), ["slow consumer Some(1013) []"]);
    world.advance(Duration::from_secs(2));
    assert!(world.noted().is_empty(), "cancelled by the disconnect before");
}

#[test]
fn s11_a_disconnect_ends_the_session_of_a_client_that_is_too_slow() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    let (sid, link) = (client.sid.clone(), client.link.take().expect("is open"));
    world.stick(link, 1);
    world.noted();
    let id = sid.clone();
    world.call(move |io| io.socket("/", &id).expect("is connected").disconnect());
    assert_eq!(world.noted(), ["server namespace disconnect None []"], "the first cause");
    assert_eq!(world.closed(link), Some(LinkClose::SlowConsumer), "its `41` had no room");
    client.connect(&mut world);
    assert_ne!(client.sid, sid, "it does not resume");
}

#[test]
fn s8_a_disconnect_after_a_warning_has_its_place_behind_what_was_emitted() {
    let mut world = world_with(quick());
    for after in [Duration::ZERO, Duration::from_millis(100)] {
        let client = Client::new(&mut world);
        let (sid, link) = (client.sid.clone(), client.link.expect("is open"));
        world.received(link);
        world.mode = StoreMode::Held;
        world.call(move |io| {
            let mut socket = io.socket("/", &sid).expect("is connected");
            socket.emit("a", (1,)).expect("is logged");
            socket.warn_then_disconnect("warning", (1,), after).expect("is connected");
        });
        world.advance(after);
        world.run_store();
        let received = world.received(link);
        let starts: Vec<_> = received.iter().map(|text| &text[..text.len().min(5)]).collect();
        assert_eq!(starts, [r#"42["w"#, r#"42["a"#, "41"], "{after:?}");
        world.mode = StoreMode::Inline;
    }
}

#[test]
fn s8_an_idle_client_gets_what_was_emitted_before_its_end() {
    let mut config = quick();
    config.idle = Some(IdlePolicy {
        after: Duration::from_secs(3),
        warn_before: Duration::from_secs(1),
        warn_event: "warning".to_owned(),
    });
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    let link = client.link.take().expect("is open");
    world.advance(Duration::from_millis(2500));
    world.received(link);
    world.mode = StoreMode::Held;
    say(&mut world, "", 0);
    world.noted();
    world.advance(Duration::from_millis(500));
    world.run_store();
    assert_eq!(world.received(link), [r#"42["n",0,"1-1"]"#, "41"]);
    assert_eq!(world.noted(), ["idle None []"]);
}

#[test]
fn s13_rooms_of_many_and_of_few_are_found_alike() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    world.call(move |io| {
        let mut socket = io.socket("/", &sid).expect("is connected");
        for number in (0..2000).rev() {
            socket.join(&format!("room-{number}")).expect("fits");
        }
    });
    client.cut(&mut world);
    for number in 0..10 {
        say(&mut world, &format!("room-{}", number * 211), number);
        say(&mut world, &format!("elsewhere-{number}"), 99);
    }
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..10));
}

#[test]
fn s15_a_transaction_without_recovery_leaves_no_entries() {
    let mut config = quick();
    config.recovery = None;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    world.mode = StoreMode::Held;
    world.call(move |io| {
        let mut socket = io.socket("/", &sid).expect("is connected");
        let run = |tx: &mut adjourn_socketio::store::Tx<'_>| {
            tx.emit("n", (0,))?;
            Ok(AckValue::new(())?)
        };
        socket.once("k", run, |_, done| assert!(done.is_ok())).expect("is taken");
    });
    world.run_store();
    assert_eq!(client.take(&mut world), numbers(0..1));
    assert_eq!(world.entries("/"), 0);
}

#[test]
fn s17_a_long_transaction_is_no_store_that_is_down() {
    let mut config = quick();
    config.times.ping_interval = Duration::from_hours(1);
    let (stall, lease) = (config.storage.stall, config.once.lease);
    let mut world = world_with(config);
    let client = Client::new(&mut world);
    let sid = client.sid;
    world.mode = StoreMode::Held;
    world.call(move |io| {
        let mut socket = io.socket("/", &sid).expect("is connected");
        let run = |_: &mut adjourn_socketio::store::Tx<'_>| Ok(AckValue::new(())?);
        socket.once("k", run, |_, _| {}).expect("is taken");
    });
    let reply = world.begin_held_write();
    world.advance(stall * 3);
    assert_eq!(world.core.stats().store_downs, 0, "its time is the application's");
    world.advance(lease);
    assert_eq!(world.core.stats().store_downs, 1, "but not for ever");
    world.deliver(reply);
    world.run_store();
    world.call(|io| io.of("/").emit("n", (0,)).expect("it is back"));
    // What comes after it has the store's own time.
    world.advance(stall * 2);
    assert_eq!(world.core.stats().store_downs, 2);
}

#[test]
fn s20_counters_have_names() {
    let world = world_with(quick());
    let names: Vec<&str> = world.core.stats().counters().map(|(name, _)| name).collect();
    for name in [
        "connections_polling",
        "connections_websocket",
        "upgrades",
        "sessions_connected",
        "resumes",
        "resumes_refused",
        "refused_transport",
        "refused_unavailable",
        "decode_errors",
        "state_errors",
        "events_in",
        "events_out",
        "events_unhandled",
        "acks_sent",
        "acks_unknown",
        "acks_timed_out",
        "volatile_dropped",
        "slow_consumers",
        "handler_panics",
        "log_entries",
        "log_bytes",
        "replays",
        "replayed_bytes",
        "once_first",
        "once_repeats",
        "once_rolled_back",
        "store_queue",
        "batches",
        "batch_entries",
        "store_downs",
    ] {
        assert!(names.contains(&name), "{name} is not among {names:?}");
    }
}

/// The world's store: how many entries a log has.
impl World {
    fn entries(&mut self, namespace: &str) -> usize {
        let all = adjourn_socketio::offset::Position::START
            ..adjourn_socketio::offset::Position::counter(u64::MAX >> 1);
        match self.ask_store(StoreCall::Page(namespace.into(), all, usize::MAX >> 1)) {
            adjourn_socketio::core::StoreReply::Page(page) => page.expect("a page").entries.len(),
            other => panic!("{other:?}"),
        }
    }
}
