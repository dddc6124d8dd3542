//! Section 15: once, transactions.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::core::{Core, KeyFrom, KeyScope, Once, StoreCall, StoreReply};
use adjourn_socketio::offset::Position;
use adjourn_socketio::packet::Event;
use adjourn_socketio::store::{AckValue, EntryKind, NewEntry, RunError};

use super::recovery::{numbers, say};
use super::world::{Client, StoreMode, World, quick};

fn set_up(core: &mut Core, log: &Arc<Mutex<Vec<String>>>) {
    let runs = Arc::new(AtomicUsize::new(0));
    let dropped = Arc::clone(log);
    let ran = Arc::clone(&runs);
    let namespace = core.namespace("/");
    namespace
        .on_connection(|socket| socket.join("chat").expect("fits"))
        .on_once("message", KeyFrom::argument(1), move |call, tx| {
            let text: String = call.args.as_args().get(0)?;
            let run = ran.fetch_add(1, Ordering::Relaxed) + 1;
            match &*text {
                "panic" if run == 1 => panic!("the first time"),
                "error" if run == 1 => return Err(RunError::from("the first time")),
                _ => {}
            }
            tx.emit_to(&[Arc::from("chat")], "message", (&text, run))?;
            Ok(AckValue::new((run,))?)
        })
        .on_once("own", KeyFrom::field(0, "id").scoped(KeyScope::Session), move |_, _| {
            Ok(AckValue::new((runs.fetch_add(1, Ordering::Relaxed),))?)
        })
        .on_event_error(move |_, name, error| {
            dropped.lock().expect("not poisoned").push(format!("{name}: {error}"));
        });
    let noted = Arc::clone(log);
    namespace.on("once", move |socket, args, ack| {
        let key: String = args.get(0).expect("text");
        let noted = Arc::clone(&noted);
        let run = |_: &mut adjourn_socketio::store::Tx<'_>| Ok(AckValue::new((1,))?);
        let done = move |io: &mut adjourn_socketio::core::Io<'_>, once: Result<Once, _>| {
            let which = match once.expect("runs") {
                Once::First(_) => "first",
                Once::Repeat(_) => "repeat",
                _ => "new",
            };
            noted.lock().expect("not poisoned").push(which.to_owned());
            ack.expect("asked for").send(io, (which,)).expect("is connected");
        };
        socket.once(&key, run, done).expect("runs");
    });
    namespace.on("rows", |socket, _, _| {
        let run = |tx: &mut adjourn_socketio::store::Tx<'_>| {
            tx.emit("n", (0,))?;
            tx.join("rows");
            Ok(())
        };
        socket.transact(run, |_, done| done.expect("commits")).expect("is connected");
    });
}

fn acks(world: &mut World, client: &mut Client, event: &str) -> (Vec<String>, Vec<String>) {
    client.packets.clear();
    client.emit_with_ack(world, 7, event);
    world.run_store();
    client.pump(world);
    (std::mem::take(&mut client.packets), std::mem::take(&mut client.events))
}

#[test]
fn a_repeat_gets_the_stored_ack_and_does_nothing() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    let event = r#"["message","hello","key"]"#;
    let first = acks(&mut world, &mut client, event);
    assert_eq!(first, (vec!["437[1]".to_owned()], vec![r#"["message","hello",1]"#.to_owned()]));
    assert_eq!(acks(&mut world, &mut client, event), (vec!["437[1]".to_owned()], vec![]));
    // Over another connection, and after a restart.
    client.roam(&mut world);
    assert_eq!(acks(&mut world, &mut client, event), (vec!["437[1]".to_owned()], vec![]));
    client.link = None;
    world.restart(quick(), set_up);
    client.connect(&mut world);
    assert_eq!(acks(&mut world, &mut client, event), (vec!["437[1]".to_owned()], vec![]));
    // By somebody else, and with another key.
    let mut other = Client::new(&mut world);
    assert_eq!(acks(&mut world, &mut other, event).0, ["437[1]"]);
    assert_eq!(acks(&mut world, &mut other, r#"["message","hello","other"]"#).1.len(), 1);
}

#[test]
fn a_run_that_panics_or_fails_is_rolled_back_and_runs_anew() {
    for fault in ["panic", "error"] {
        let mut world = World::new(quick(), set_up);
        let mut client = Client::new(&mut world);
        let event = format!(r#"["message","{fault}","key"]"#);
        assert_eq!(acks(&mut world, &mut client, &event), (vec![], vec![]), "no ack");
        assert_eq!(acks(&mut world, &mut client, &event).0, ["437[2]"]);
        assert_eq!(world.core.stats().once_rolled_back, 1);
    }
}

#[test]
fn concurrent_repeats_run_once() {
    let mut world = World::new(quick(), set_up);
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&mut world)).collect();
    world.mode = StoreMode::Held;
    for client in &mut clients {
        client.emit_with_ack(&mut world, 7, r#"["message","hello","key"]"#);
        client.emit_with_ack(&mut world, 7, r#"["message","hello","key"]"#);
    }
    world.run_store();
    for client in &mut clients {
        client.pump(&mut world);
        assert_eq!(client.packets, ["437[1]", "437[1]"], "all get the same ack");
        assert_eq!(client.events.len(), 1);
    }
    let stats = world.core.stats();
    assert_eq!((stats.once_first, stats.once_repeats), (1, 5));
}

#[test]
fn a_failed_commit_releases_the_key() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Failing;
    assert_eq!(acks(&mut world, &mut client, r#"["message","hello","key"]"#), (vec![], vec![]));
    world.mode = StoreMode::Inline;
    assert_eq!(acks(&mut world, &mut client, r#"["message","hello","key"]"#).0, ["437[1]"]);
}

#[test]
fn an_event_without_a_key_is_refused_as_by_a_filter() {
    let long = "k".repeat(257);
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    for event in [
        r#"["message","hello"]"#.to_owned(),
        r#"["message","hello",7]"#.to_owned(),
        r#"["message","hello",""]"#.to_owned(),
        format!(r#"["message","hello","{long}"]"#),
        r#"["own",{"no":1}]"#.to_owned(),
    ] {
        assert_eq!(acks(&mut world, &mut client, &event), (vec![], vec![]), "{event}");
        assert_eq!(world.noted().len(), 1, "{event}");
    }
}

#[test]
fn a_key_of_the_session_is_another_in_another_session() {
    let mut world = World::new(quick(), set_up);
    let (mut a, mut b) = (Client::new(&mut world), Client::new(&mut world));
    assert_eq!(acks(&mut world, &mut a, r#"["own",{"id":"k"}]"#).0, ["437[0]"]);
    assert_eq!(acks(&mut world, &mut b, r#"["own",{"id":"k"}]"#).0, ["437[1]"]);
    assert_eq!(acks(&mut world, &mut a, r#"["own",{"id":"k"}]"#).0, ["437[0]"]);
}

#[test]
fn socket_once_tells_which_time_it_was() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    assert_eq!(acks(&mut world, &mut client, r#"["once","k"]"#).0, [r#"437["first"]"#]);
    assert_eq!(acks(&mut world, &mut client, r#"["once","k"]"#).0, [r#"437["repeat"]"#]);
}

#[test]
fn rows_and_events_of_a_transaction_are_one_sequence() {
    let mut world = World::new(quick(), set_up);
    let mut client = Client::new(&mut world);
    world.mode = StoreMode::Held;
    say(&mut world, "rows", 99);
    client.emit(&mut world, r#"["rows"]"#);
    say(&mut world, "rows", 1);
    world.run_store();
    say(&mut world, "rows", 2);
    world.run_store();
    assert_eq!(client.take(&mut world), numbers(0..3), "nothing missed, nothing twice");
    world.mode = StoreMode::Inline;
    client.roam(&mut world);
    say(&mut world, "rows", 3);
    assert_eq!(client.take(&mut world), numbers(3..4), "the room is the session's");
}

/// The client is cut before its transaction is answered, or before it is even sent.
#[test]
fn a_room_joined_by_a_transaction_is_the_session_s_though_the_socket_is_gone() {
    for behind_commit in [false, true] {
        let mut world = World::new(quick(), set_up);
        let mut client = Client::new(&mut world);
        let sid = client.sid.clone();
        world.mode = StoreMode::Held;
        if behind_commit {
            say(&mut world, "", 99);
        }
        client.emit(&mut world, r#"["rows"]"#);
        client.cut(&mut world);
        world.run_store();
        world.mode = StoreMode::Inline;
        // What is saved later must not undo it.
        world.advance(Duration::from_secs(1));
        say(&mut world, "rows", 1);
        client.connect(&mut world);
        say(&mut world, "rows", 2);
        assert_eq!(client.sid, sid, "resumed");
        let expected = if behind_commit { [numbers(99..100), numbers(0..3)].concat() } else { numbers(0..3) };
        assert_eq!(client.take(&mut world), expected);
    }
}

/// As the tutorial does it: it asks for its room unless it has it, and is closed where that fails.
#[test]
fn a_session_whose_transaction_failed_comes_back_without_the_room_and_asks_again() {
    for cut_first in [false, true] {
        let mut world = World::new(quick(), |core, _| {
            core.namespace("/").on_connection(|socket| {
                if socket.rooms().iter().any(|room| &**room == "chat") {
                    return;
                }
                let id = Arc::clone(socket.id());
                let run = |tx: &mut adjourn_socketio::store::Tx<'_>| {
                    tx.join("chat");
                    Ok(())
                };
                let again = move |io: &mut adjourn_socketio::core::Io<'_>, done: Result<(), _>| {
                    if let (Err(_), Some(mut socket)) = (done, io.socket("/", &id)) {
                        socket.close_engine();
                    }
                };
                socket.transact(run, again).expect("is connected");
            });
        });
        world.mode = StoreMode::Held;
        let mut client = Client::new(&mut world);
        while client.connects == 0 {
            assert!(world.step_store(false), "the session begins");
            client.pump(&mut world);
        }
        let sid = client.sid.clone();
        if cut_first {
            client.cut(&mut world);
        }
        world.fail_held();
        world.mode = StoreMode::Inline;
        world.run_store();
        if let Some(link) = client.link.take() {
            assert!(world.closed(link).is_some(), "closed, so that it comes back");
            world.cut(link);
        }
        client.connect(&mut world);
        say(&mut world, "chat", 1);
        assert_eq!((client.take(&mut world), client.sid == sid), (numbers(1..2), true));
    }
}

fn entry_for(namespace: &str, number: u32) -> NewEntry {
    let event = Event::new(namespace, "n", &(number,)).expect("fits");
    NewEntry {
        namespace: Arc::from(namespace),
        kind: EntryKind::Event,
        rooms: Arc::new([]),
        except: Arc::new([]),
        packet: Arc::from(event.packet()),
        attachments: Arc::new([]),
        ack: None,
        until: None,
    }
}

#[test]
fn an_entry_of_a_transaction_for_another_namespace_is_that_namespace_s() {
    let mut world = World::new(quick(), |core, log| {
        set_up(core, log);
        core.namespace("/other");
        core.namespace_matching(|name, _| name == "/late");
        core.namespace("/").on("elsewhere", |socket, _, _| {
            let run = |tx: &mut adjourn_socketio::store::Tx<'_>| {
                tx.append(entry_for("/other", 0));
                tx.append(entry_for("/late", 8));
                tx.append(entry_for("/other", 1));
                tx.append(entry_for("/late", 9));
                tx.emit("n", (0,))?;
                Ok(())
            };
            socket.transact(run, |_, done| done.expect("commits")).expect("is connected");
        });
    });
    let (mut client, mut other) = (Client::new(&mut world), Client::of(&mut world, "/other"));
    client.emit(&mut world, r#"["elsewhere"]"#);
    assert_eq!((client.take(&mut world), other.take(&mut world)), (numbers(0..1), numbers(0..2)));
    assert_eq!((client.offset.as_deref(), other.offset.as_deref()), (Some("1-1"), Some("1-2")));
    // Nobody was there; positions go on.
    let mut late = Client::of(&mut world, "/late");
    for number in 1..3 {
        say(&mut world, "", number);
        world.call(move |io| {
            io.of("/other").emit("n", (number + 1,)).expect("goes");
            io.of("/late").emit("n", (number,)).expect("goes");
        });
        for client in [&mut client, &mut other, &mut late] {
            client.roam(&mut world);
        }
    }
    assert_eq!((client.take(&mut world), other.take(&mut world)), (numbers(1..3), numbers(2..4)));
    assert_eq!((late.take(&mut world), late.offset.as_deref()), (numbers(1..3), Some("1-4")));
}

/// What a transaction appends for a namespace that is never used does not stay.
#[test]
fn a_log_that_only_transactions_write_is_dropped() {
    let mut world = World::new(quick(), |core, _| {
        core.namespace("/").on("elsewhere", |socket, _, _| {
            let run = |tx: &mut adjourn_socketio::store::Tx<'_>| {
                tx.append(entry_for("/nobody", 0));
                Ok(())
            };
            socket.transact(run, |_, done| done.expect("commits")).expect("is connected");
        });
    });
    let mut client = Client::new(&mut world);
    for _ in 0..2 {
        client.emit(&mut world, r#"["elsewhere"]"#);
        let all = Position::START..Position::counter(u64::MAX >> 2);
        let page = |world: &mut World| {
            let asked = StoreCall::Page(Arc::from("/nobody"), all.clone(), usize::MAX >> 12);
            let StoreReply::Page(Ok(page)) = world.ask_store(asked) else { panic!("no page") };
            page.entries.len()
        };
        assert_eq!(page(&mut world), 1);
        world.advance(Duration::from_secs(2));
        assert_eq!(page(&mut world), 0);
    }
}

#[test]
fn transactions_without_recovery_deliver_at_once() {
    let mut config = quick();
    config.recovery = None;
    let mut world = World::new(config, set_up);
    let mut client = Client::new(&mut world);
    let event = r#"["message","hello","key"]"#;
    assert_eq!(acks(&mut world, &mut client, event).1, [r#"["message","hello",1]"#]);
    assert_eq!(acks(&mut world, &mut client, event), (vec!["437[1]".to_owned()], vec![]));
    world.advance(Duration::from_secs(1));
}
