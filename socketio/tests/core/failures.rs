//! Sections 14, 17, 18, 19: restarts, a store that fails or stalls, bounds, shutdown.

use std::sync::Arc;
use std::time::Duration;

use adjourn_socketio::config::{ConnectPolicy, Durability, EmitPolicy};
use adjourn_socketio::engine::{EngineRequest, Refusal};
use adjourn_socketio::error::{ChangeError, EmitError};
use adjourn_socketio::links::LinkClose;
use adjourn_socketio::packet::Query;
use adjourn_socketio::reason::Reason;

use super::basics::handlers;
use super::recovery::{numbers, say, world_with};
use super::world::{Client, StoreMode, World, quick};

fn results(world: &mut World, number: u32) {
    let log = Arc::clone(&world.log);
    world.call(move |io| {
        let then = move |_: &mut adjourn_socketio::core::Io<'_>, offset: Result<_, EmitError>| {
            log.lock().expect("not poisoned").push(format!("{number} {}", offset.is_ok()));
        };
        if io.of("/").emit_then("n", (number,), then) == Err(EmitError::StoreUnavailable) {
            io.after(Duration::ZERO, |_| {});
        }
    });
}

#[test]
fn restart_on_the_same_store() {
    let config = quick();
    let mut world = world_with(config.clone());
    let mut client = Client::new(&mut world);
    client.emit(&mut world, r#"["join","r"]"#);
    client.emit_with_ack(&mut world, 1, r#"["data",{"a":1}]"#);
    say(&mut world, "r", 0);
    client.pump(&mut world);
    let sid = client.sid.clone();
    say(&mut world, "r", 1);
    client.link = None;
    world.restart(config, |core, log| handlers(core.namespace("/"), log));
    say(&mut world, "r", 2);
    client.connect(&mut world);
    say(&mut world, "r", 3);
    client.pump(&mut world);
    assert_eq!((client.sid.as_str(), client.events.clone()), (&*sid, numbers(0..4)));
    assert_eq!(client.offset.as_deref(), Some("2-4"));
}

#[test]
fn an_ask_is_known_after_a_restart() {
    let config = quick();
    let mut world = world_with(config.clone());
    let mut client = Client::new(&mut world);
    client.answers = false;
    let options = adjourn_socketio::core::AckOptions::redeliver(Duration::from_mins(1));
    world.call(move |io| {
        io.of("/").emit_with_acks("q", (), options, |_, _| {}).expect("is logged");
    });
    say(&mut world, "", 0);
    client.pump(&mut world);
    client.link = None;
    world.restart(config, |core, log| handlers(core.namespace("/"), log));
    client.events.clear();
    client.answers = true;
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), [r#"["q"]"#]);
    client.roam(&mut world);
    assert!(client.take(&mut world).is_empty(), "answered");
    assert_eq!(world.core.stats().acks_unknown, 0);
}

#[test]
fn before_commit_delivers_at_once_and_a_crash_clamps() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").durability = Durability::BeforeCommit;
    let mut world = world_with(config.clone());
    let mut client = Client::new(&mut world);
    say(&mut world, "", 0);
    world.mode = StoreMode::Held;
    say(&mut world, "", 100);
    say(&mut world, "", 101);
    assert_eq!(client.take(&mut world).len(), 3, "at once");
    assert_eq!(client.offset.as_deref(), Some("1-3"));
    client.link = None;
    world.mode = StoreMode::Inline;
    world.restart(config, |core, log| handlers(core.namespace("/"), log));
    say(&mut world, "", 1);
    say(&mut world, "", 2);
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(1..3), "nothing skipped that was logged");
}

#[test]
fn before_commit_writes_what_was_seen_until_it_is_written() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").durability = Durability::BeforeCommit;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Failing;
    say(&mut world, "", 0);
    say(&mut world, "", 1);
    world.mode = StoreMode::Inline;
    world.advance(Duration::from_secs(1));
    say(&mut world, "", 2);
    assert_eq!(client.take(&mut world), numbers(0..3));
    client.offset = None;
    client.roam(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..3), "the log has them");
}

#[test]
fn a_failing_call_fails_its_emits_and_nobody_gets_them() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    world.noted();
    world.mode = StoreMode::Failing;
    results(&mut world, 9);
    assert_eq!(world.noted(), ["9 false"]);
    world.mode = StoreMode::Inline;
    results(&mut world, 0);
    assert_eq!(world.noted(), ["0 true"]);
    assert_eq!(client.take(&mut world), numbers(0..1));
    assert_eq!(client.offset.as_deref(), Some("1-1"), "no gap");
}

#[test]
fn a_stalled_store_is_declared_down_and_comes_back() {
    for policy in [EmitPolicy::Refuse, EmitPolicy::Queue] {
        let mut config = quick();
        config.storage.on_emit = policy;
        let mut world = World::new(config, |core, log| {
            handlers(core.namespace("/"), log);
            let log = Arc::clone(log);
            core.on_store_state(move |up| log.lock().expect("not poisoned").push(format!("up {up}")));
        });
        let mut client = Client::new(&mut world);
        world.noted();
        world.mode = StoreMode::Held;
        results(&mut world, 0);
        world.advance(Duration::from_millis(999));
        assert!(world.noted().is_empty());
        world.advance(Duration::from_millis(1));
        assert_eq!(world.noted(), ["up false"]);
        results(&mut world, 1);
        // What needs no store goes on.
        world.call(|io| assert_eq!(io.of("/").emit_volatile("v", (1,)), 1));
        client.emit_with_ack(&mut world, 1, r#"["echo",1]"#);
        client.pump(&mut world);
        assert_eq!((client.events.len(), client.packets.len()), (1, 1));
        client.events.clear();
        world.run_store();
        let noted = world.noted();
        assert!(noted.contains(&"0 true".to_owned()) && noted.contains(&"up true".to_owned()), "{noted:?}");
        let queued = policy == EmitPolicy::Queue;
        assert_eq!(noted.contains(&"1 true".to_owned()), queued, "{policy:?}: {noted:?}");
        assert_eq!(client.take(&mut world), numbers(0..if queued { 2 } else { 1 }));
        assert_eq!(world.core.stats().emits_refused, u64::from(!queued));
    }
}

#[test]
fn connect_while_the_store_stalls() {
    let second = Duration::from_secs(1);
    for (policy, wait, refused) in [
        (ConnectPolicy::WaitUpTo(2 * second), 2 * second, false),
        (ConnectPolicy::FreshSession, second, false),
        (ConnectPolicy::Refuse, second, true),
    ] {
        let mut config = quick();
        config.storage.on_connect = policy;
        let mut world = world_with(config);
        world.mode = StoreMode::Held;
        let link = world.open();
        world.message(link, "40");
        world.advance(wait.saturating_sub(Duration::from_millis(1)));
        assert!(world.received(link).is_empty(), "{policy:?}");
        world.advance(Duration::from_millis(1));
        let received = world.received(link);
        if refused {
            assert_eq!(received, [r#"44{"message":"store unavailable"}"#]);
        } else {
            assert!(received[0].starts_with("40{") && !received[0].contains("pid"), "{received:?}");
        }
        // The session that is saved too late is nobody's.
        world.run_store();
        world.mode = StoreMode::Inline;
        world.advance(second);
        assert!(world.received(link).is_empty());
    }
}

#[test]
fn a_resume_while_the_store_stalls_can_be_made_later() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    let (sid, pid) = (client.sid.clone(), client.pid.clone());
    client.cut(&mut world);
    world.mode = StoreMode::Held;
    client.connect(&mut world);
    world.advance(Duration::from_secs(2));
    client.pump(&mut world);
    assert!(client.pid.is_none() && client.sid != sid);
    assert!(world.noted().contains(&"connected StoreUnavailable".to_owned()));
    client.cut(&mut world);
    world.run_store();
    world.mode = StoreMode::Inline;
    world.advance(Duration::from_secs(1));
    client.pid = pid;
    client.connect(&mut world);
    assert_eq!(client.sid, sid, "the session was given back");
}

#[test]
fn membership_does_not_wait_for_a_stalled_store_for_ever() {
    let mut world = world_with(quick());
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    say(&mut world, "r", 99);
    client.emit(&mut world, r#"["join","r"]"#);
    world.call(|io| assert_eq!(io.of("/").to("r").emit_volatile("v", (1,)), 0));
    world.advance(Duration::from_secs(1));
    world.call(|io| assert_eq!(io.of("/").to("r").emit_volatile("v", (1,)), 1));
    client.pump(&mut world);
    assert_eq!(world.core.stats().effects_overdue, 1);
    world.run_store();
    client.pump(&mut world);
}

#[test]
fn bounds_have_counters() {
    let mut config = quick();
    config.counts.rooms_per_socket = 2;
    config.counts.session_data = 10;
    config.counts.pending_acks_per_socket = 1;
    config.counts.sessions_without_connect = 1;
    config.storage.queue = 100;
    let mut world = world_with(config);
    let client = Client::new(&mut world);
    let sid = client.sid.clone();
    world.call(move |io| {
        let mut socket = io.socket("/", &sid).expect("is connected");
        let long = "r".repeat(513);
        assert_eq!(socket.join(&long), Err(ChangeError::RoomName { length: 513, limit: 512 }));
        assert!(socket.join("a").is_ok() && socket.join("b").is_ok());
        assert_eq!(socket.join("c"), Err(ChangeError::TooManyRooms { limit: 2 }));
        assert_eq!(socket.set_data("[]"), Err(ChangeError::NotAnObject));
        assert!(matches!(socket.set_data(r#"{"a":"bcdefgh"}"#), Err(ChangeError::Data { .. })));
        let options = adjourn_socketio::core::AckOptions::once(Duration::from_secs(1));
        socket.emit_with_ack("q", (), options, |_, _| {}).expect("goes");
        let again = socket.emit_with_ack("q", (), options, |_, _| {});
        assert_eq!(again, Err(EmitError::TooManyAcks { pending: 1 }));
        assert_eq!(socket.emit("x", ("x".repeat(100),)), Err(EmitError::StoreUnavailable));
        assert!(matches!(socket.emit("connect", ()), Err(EmitError::Reserved(_))));
    });
    let stats = world.core.stats();
    assert_eq!((stats.rooms_refused, stats.data_refused), (2, 1));
    assert_eq!((stats.acks_refused, stats.emits_refused), (1, 1));
    world.open();
    let query = Query::parse("EIO=4&transport=websocket");
    let request = EngineRequest { method: "GET", query: &query, upgrade: true, detached: false };
    let mut answer = None;
    world.input(|core, _, _| answer = Some(core.admit(&request, || Ok(()))));
    assert_eq!(answer, Some(Err(Refusal::unavailable())));
    assert_eq!(world.core.stats().refused_unavailable, 1);
}

/// They need no connection of their own: one TCP connection can open as many as it likes, and send a CONNECT in each.
#[test]
fn sessions_over_polling_are_bounded_also_with_a_connect() {
    let mut config = quick();
    (config.polling, config.counts.polling_sessions) = (true, 2);
    let mut world = world_with(config);
    let opens = |world: &mut World, transport: &str| {
        let query = Query::parse(&format!("EIO=4&transport={transport}"));
        let upgrade = transport == "websocket";
        let request = EngineRequest { method: "GET", query: &query, upgrade, detached: !upgrade };
        let mut answer = None;
        world.input(|core, _, _| answer = Some(core.admit(&request, || Ok(())).is_ok()));
        answer.expect("admitted or refused")
    };
    let sids = [world.open_polling(), world.open_polling()];
    for sid in &sids {
        world.post(sid, "40");
    }
    assert!(!opens(&mut world, "polling"), "two of two");
    assert!(opens(&mut world, "websocket"), "these are the loop's to count");
    let link = world.upgrade(&sids[0]);
    assert!(opens(&mut world, "polling"), "one has gone to WebSocket");
    world.open_polling();
    assert!(!opens(&mut world, "polling"), "two again");
    world.cut(link);
    assert!(!opens(&mut world, "polling"), "the one that ended was not on polling");
    world.post(&sids[1], "1");
    assert!(opens(&mut world, "polling"), "one has ended");
    assert_eq!(world.core.stats().connections_polling, 1);
}

/// A body of `max_payload` may hold half a million packets: others have their turn in between.
#[test]
fn a_post_of_many_packets_is_handled_in_parts() {
    let packets = |n: usize| vec!["42[\"x\"]"; n].join("\u{1e}");
    let begin = |world: &mut World| {
        let sid = world.open_polling();
        world.post(&sid, "40");
        let get = world.get(&sid);
        assert!(world.body(get).is_some_and(|body| body.starts_with("40")));
        let (request, body) = (world.post_head(&sid, 1), packets(2000));
        let rest = world.post_part(request, &sid, &body).expect("there are too many for one turn");
        assert!(world.body(request).is_none(), "answered when all are handled");
        (sid, request, body[body.len() - rest..].to_owned())
    };
    let mut world = world_with(quick());
    let (sid, request, mut rest) = begin(&mut world);
    let mut parts = 1;
    while let Some(left) = world.post_part(request, &sid, &rest) {
        rest = rest[rest.len() - left..].to_owned();
        parts += 1;
    }
    assert_eq!((parts, world.body(request).as_deref()), (3, Some("ok")));
    assert_eq!(world.core.stats().events_in, 2000, "each once");
    // A second POST in between is one too many, and the rest of the first is not looked at.
    let (sid, request, rest) = begin(&mut world);
    let second = world.post_head(&sid, 1);
    assert!(world.body(second).is_some_and(|body| body.contains("\"code\":3")));
    assert!(world.body(request).is_some_and(|body| body.contains("\"code\":1")));
    let before = world.core.stats().events_in;
    assert_eq!(world.post_part(request, &sid, &rest), None);
    assert_eq!(world.core.stats().events_in, before);
    // The connection of the POST dies in between.
    let (sid, request, rest) = begin(&mut world);
    world.input(|core, now, wire| core.request_gone(request, &sid, now, wire));
    assert_eq!(world.core.stats().disconnects, [(Reason::TransportError, 2)]);
    assert_eq!(world.post_part(request, &sid, &rest), None);
    // A packet that ends the session has no rest after it.
    let sid = world.open_polling();
    let request = world.post_head(&sid, 1);
    let body = format!("40\u{1e}1\u{1e}{}", packets(2000));
    assert_eq!(world.post_part(request, &sid, &body), None);
    assert_eq!(world.body(request).as_deref(), Some("ok"));
}

#[test]
fn calls_of_other_threads_are_bounded() {
    let mut config = quick();
    config.counts.inbox = 1;
    let mut world = world_with(config);
    let inbox = world.core.inbox();
    let log = Arc::clone(&world.log);
    let pushed = std::thread::spawn(move || {
        let first = inbox.push(move |_| log.lock().expect("not poisoned").push("called".to_owned()));
        (first.is_ok(), inbox.push(|_| {}).is_err())
    });
    assert_eq!(pushed.join().expect("ends"), (true, true));
    world.input(|core, now, wire| core.handle_inbox(now, wire));
    assert_eq!(world.noted(), ["called"]);
}

#[test]
fn shutdown_saves_what_can_be_resumed() {
    let config = quick();
    let mut world = world_with(config.clone());
    let mut client = Client::new(&mut world);
    let polling = world.open_polling();
    world.post(&polling, "40");
    let get = world.get(&polling);
    world.body(get);
    let held = world.get(&polling);
    world.noted();
    world.core.lame_duck();
    assert!(!world.core.ready());
    world.core.begin_sweep();
    world.call(|io| assert_eq!(io.of("/").emit("n", (1,)), Err(EmitError::ShuttingDown)));
    world.input(|core, now, wire| assert_eq!(core.sweep_polling(10, now, wire), 0));
    assert_eq!(world.body(held).as_deref(), Some("1"));
    let link = client.link.take().expect("is open");
    world.input(|core, now, wire| {
        core.websocket_ended(link, Reason::ServerShuttingDown, Some(1001), now, wire);
    });
    assert_eq!(
        world.noted(),
        ["server shutting down None []", "server shutting down Some(1001) []"],
        "each socket is told"
    );
    world.input(|core, now, wire| core.flush(now, wire));
    assert!(world.core.is_flushed());
    let counts = world.core.shutdown_counts();
    assert_eq!((counts.sockets, counts.polling, counts.resumable), (2, 1, 2));
    assert_eq!((counts.unsaved_sessions, counts.unflushed_entries), (0, 0));
    world.restart(config, |core, log| handlers(core.namespace("/"), log));
    let sid = client.sid.clone();
    client.connect(&mut world);
    assert_eq!(client.sid, sid);
}

#[test]
fn a_hard_sweep_ends_what_is_left() {
    let mut world = world_with(quick());
    let client = Client::new(&mut world);
    world.noted();
    world.core.begin_sweep();
    world.input(|core, now, wire| core.hard_sweep(now, wire));
    assert_eq!(world.noted(), ["server shutting down None []"]);
    assert_eq!(world.closed(client.link.expect("was open")), Some(LinkClose::Cut));
}
