//! Section 13: each situation, by its name.

use std::sync::Arc;
use std::time::Duration;

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::{AckOptions, Answers, Io};
use adjourn_socketio::links::LinkClose;
use adjourn_socketio::packet::Args;

use super::basics::handlers;
use super::world::{Client, StoreMode, World, quick};

pub(crate) fn world_with(config: SocketIoConfig) -> World {
    World::new(config, |core, log| {
        let namespace = core.namespace("/");
        handlers(namespace, log);
        namespace.on("data", |socket, args, ack| {
            socket.set_data(args.raw(0).expect("JSON")).expect("fits");
            ack.expect("asked for").send(socket.io(), ()).expect("is connected");
        });
        handlers(core.namespace("/other"), log);
    })
}

pub(crate) fn world() -> World {
    world_with(quick())
}

pub(crate) fn say(world: &mut World, room: &str, number: u32) {
    let room = room.to_owned();
    world.call(move |io| {
        let all = io.of("/");
        let to = if room.is_empty() { all } else { all.to(room) };
        to.emit("n", (number,)).expect("is logged");
    });
}

pub(crate) fn numbers(of: std::ops::Range<u32>) -> Vec<String> {
    of.map(|number| format!(r#"["n",{number}]"#)).collect()
}

#[test]
fn cut_events_meanwhile_back() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    client.emit(&mut world, r#"["join","r"]"#);
    client.emit_with_ack(&mut world, 1, r#"["data",{"name":"x"}]"#);
    let (sid, pid) = (client.sid.clone(), client.pid.clone());
    say(&mut world, "r", 0);
    assert_eq!(client.take(&mut world), numbers(0..1));
    assert_eq!(client.offset.as_deref(), Some("1-1"));
    client.cut(&mut world);
    for number in 1..4 {
        say(&mut world, "r", number);
    }
    say(&mut world, "elsewhere", 99);
    world.noted();
    world.advance(Duration::from_secs(10));
    client.connect(&mut world);
    assert_eq!((client.sid.clone(), client.pid.clone()), (sid.clone(), pid), "same id");
    assert_eq!(client.take(&mut world), numbers(1..4), "each event once, in order");
    assert_eq!(world.noted(), ["connected resumed"]);
    say(&mut world, "r", 4);
    assert_eq!(client.take(&mut world), numbers(4..5), "its rooms");
    world.call(move |io| {
        let socket = io.socket("/", &sid).expect("is connected");
        assert_eq!(socket.data().map(ToString::to_string), Some(r#"{"name":"x"}"#.to_owned()));
        let adjourn_socketio::core::ResumeOutcome::Resumed { missed, complete, away, .. } = *socket.resume()
        else {
            panic!("resumed");
        };
        assert_eq!((missed, complete, away), (3, true, Duration::from_secs(10)));
    });
}

#[test]
fn cut_again_without_a_new_event() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    say(&mut world, "", 0);
    client.roam(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..1));
    for _ in 0..5 {
        client.roam(&mut world);
        assert!(client.take(&mut world).is_empty());
    }
    say(&mut world, "", 1);
    assert_eq!(client.take(&mut world), numbers(1..2));
    assert_eq!(world.core.stats().resumes, 6);
}

#[test]
fn cut_under_steady_traffic_many_times() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    for number in 0..200 {
        say(&mut world, "", number);
        if number % 7 == 3 {
            client.cut(&mut world);
        }
        if number % 7 == 5 {
            client.connect(&mut world);
        }
    }
    client.roam(&mut world);
    client.pump(&mut world);
    assert_eq!(client.events, numbers(0..200));
    assert_eq!(client.sid, sid);
}

#[test]
fn cut_inside_a_replay() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").replay_page = 1024;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    // More than is kept in memory.
    for number in 0..600 {
        say(&mut world, "", number);
    }
    for _ in 0..5 {
        let link = world.open();
        client.link = Some(link);
        world.stick(link, 1 << 20);
        client.send_connect(&mut world);
        client.cut(&mut world);
        let got = u32::try_from(client.events.len()).expect("few");
        assert_eq!(client.events, numbers(0..got));
    }
    client.connect(&mut world);
    client.pump(&mut world);
    assert_eq!(client.events, numbers(0..600));
    assert_eq!(world.core.stats().resumes_refused, 0);
}

#[test]
fn rooms_joined_and_left_before_or_while_away() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    say(&mut world, "r", 0);
    client.emit(&mut world, r#"["join","r"]"#);
    say(&mut world, "r", 1);
    client.pump(&mut world);
    say(&mut world, "r", 2);
    client.emit(&mut world, r#"["leave","r"]"#);
    say(&mut world, "r", 3);
    // The last it has seen is 1.
    let link = client.link.take().expect("is open");
    world.received(link);
    world.cut(link);
    say(&mut world, "r", 4);
    let own = sid.clone();
    world.call(|io| io.of("/").to(own).join("r").expect("is logged"));
    say(&mut world, "r", 5);
    let own = sid.clone();
    world.call(|io| io.of("/").to(own).leave("r").expect("is logged"));
    say(&mut world, "r", 6);
    let own = sid;
    world.call(|io| io.of("/").to(own).join(["s", "t"]).expect("is logged"));
    client.connect(&mut world);
    say(&mut world, "s", 7);
    let expected = [1, 2, 5, 7].map(|number| format!(r#"["n",{number}]"#));
    client.pump(&mut world);
    assert_eq!(client.events, expected, "only events of rooms it was in at that position");
    // Joined again, and still known after another resume, though the join entry is read again then.
    client.roam(&mut world);
    say(&mut world, "t", 8);
    say(&mut world, "r", 9);
    assert_eq!(client.take(&mut world).last().map(String::as_str), Some(r#"["n",8]"#));
}

#[test]
fn no_event_received_before_the_cut() {
    let mut world = world();
    say(&mut world, "", 99);
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    say(&mut world, "", 0);
    assert_eq!(client.offset, None);
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..1), "resumed, and nothing from before its time");
    assert_eq!(world.core.stats().resumes, 1);
}

#[test]
fn volatile_event_ending_in_a_string_or_without_arguments() {
    for arguments in [&["text"][..], &[]] {
        let mut world = world();
        let mut client = Client::new(&mut world);
        say(&mut world, "", 0);
        world.call(|io| assert_eq!(io.of("/").emit_volatile("typing", arguments), 1));
        client.pump(&mut world);
        assert_eq!(client.offset.as_deref(), Some("1-1"), "the cursor");
        client.cut(&mut world);
        say(&mut world, "", 1);
        client.connect(&mut world);
        client.pump(&mut world);
        assert_eq!(client.events.iter().filter(|event| event.contains("\"n\"")).count(), 2);
        assert_eq!(world.core.stats().resumes, 1);
    }
}

#[test]
fn quiet_for_longer_than_the_retention_then_away_shortly() {
    for others_busy in [false, true] {
        let mut world = world();
        let mut client = Client::new(&mut world);
        say(&mut world, "", 0);
        client.emit(&mut world, r#"["join","r"]"#);
        client.pump(&mut world);
        let sid = client.sid.clone();
        for _ in 0..100 {
            if others_busy {
                say(&mut world, "elsewhere", 1);
            }
            world.advance(Duration::from_secs(5));
            client.pump(&mut world);
        }
        client.cut(&mut world);
        say(&mut world, "r", 2);
        world.advance(Duration::from_secs(5));
        client.connect(&mut world);
        client.pump(&mut world);
        assert_eq!(client.sid, sid, "others busy: {others_busy}");
        assert_eq!(client.events.last().map(String::as_str), Some(r#"["n",2]"#));
        assert!(world.core.stats().log_trimmed > 0);
    }
}

#[test]
fn quiet_for_longer_than_the_retention_in_a_replay_that_waited_then_cut() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").replay_page = 1024;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    client.cut(&mut world);
    say(&mut world, "", 0);
    for number in 0..100 {
        say(&mut world, "elsewhere", number);
    }
    let link = world.open();
    client.link = Some(link);
    world.stick(link, 1 << 20);
    client.send_connect(&mut world);
    for _ in 0..40 {
        world.advance(Duration::from_secs(5));
        client.pump(&mut world);
    }
    assert!(world.core.stats().log_trimmed > 50, "beyond the page that waits");
    world.drain(link);
    assert_eq!(
        world.core.stats().replays,
        0,
        "the rest was in memory, and nothing of it was for this client"
    );
    say(&mut world, "", 1);
    world.received(link);
    client.cut(&mut world);
    client.connect(&mut world);
    assert_eq!(client.sid, sid);
    assert_eq!(client.take(&mut world), numbers(0..2));
}

#[test]
fn client_back_before_the_server_noticed() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    client.emit(&mut world, r#"["join","r"]"#);
    client.pump(&mut world);
    let (old, sid) = (client.link.expect("is open"), client.sid.clone());
    say(&mut world, "r", 0);
    world.received(old);
    world.noted();
    client.connect(&mut world);
    assert_eq!(world.noted(), [r#"session taken over None ["r"]"#, "connected resumed"]);
    assert_eq!(world.received(old), ["41"]);
    assert_eq!(world.closed(old), Some(LinkClose::Empty { quick: true }), "the old connection fenced");
    assert_eq!(client.take(&mut world), numbers(0..1));
    assert_eq!(client.sid, sid);
}

#[test]
fn older_connection_dies_after_the_resume() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    client.emit(&mut world, r#"["join","r"]"#);
    let old = client.link.expect("is open");
    client.connect(&mut world);
    world.noted();
    world.cut(old);
    assert!(world.noted().is_empty(), "one disconnect event for the old");
    say(&mut world, "r", 0);
    assert_eq!(client.take(&mut world), numbers(0..1));
    client.roam(&mut world);
    say(&mut world, "r", 1);
    assert_eq!(client.take(&mut world), numbers(1..2));
}

#[test]
fn same_pid_and_offset_used_twice() {
    let mut world = world();
    let mut first = Client::new(&mut world);
    first.cut(&mut world);
    let mut second = Client { pid: first.pid.clone(), namespace: "/".to_owned(), ..Client::default() };
    first.connect(&mut world);
    second.connect(&mut world);
    first.pump(&mut world);
    assert_eq!(first.sid, second.sid);
    assert_eq!(first.packets, ["41"], "the other disconnected");
    world.call(|io| assert_eq!(io.of("/").sockets().len(), 1, "never two with one id"));
    say(&mut world, "", 0);
    assert_eq!((first.take(&mut world).len(), second.take(&mut world).len()), (0, 1));
}

#[test]
fn same_pid_used_twice_at_the_same_time() {
    let mut world = world();
    let mut first = Client::new(&mut world);
    first.cut(&mut world);
    world.mode = StoreMode::Held;
    let mut second = Client { pid: first.pid.clone(), namespace: "/".to_owned(), ..Client::default() };
    first.connect(&mut world);
    second.connect(&mut world);
    world.run_store();
    first.pump(&mut world);
    second.pump(&mut world);
    world.call(|io| assert!(io.of("/").sockets().len() <= 2));
    let own = first.sid.clone();
    let holders = usize::from(first.packets.is_empty() && first.sid == own) + usize::from(second.sid == own);
    assert!(holders <= 2 && second.sid == own, "the later holds it");
}

#[test]
fn deliberate_disconnect_by_either_side_then_connect() {
    for by_server in [false, true] {
        let mut world = world();
        let mut client = Client::new(&mut world);
        let (sid, link) = (client.sid.clone(), client.link.expect("is open"));
        if by_server {
            client.emit(&mut world, r#"["kick","socket"]"#);
        } else {
            world.message(link, "41");
        }
        client.pump(&mut world);
        client.send_connect(&mut world);
        client.pump(&mut world);
        assert_ne!(client.sid, sid, "fresh: new id");
        assert_eq!(world.core.stats().resumes_refused, 1);
    }
}

#[test]
fn forged_or_stale_pid_offset_from_elsewhere_both_not_text() {
    let mut world = world();
    let link = world.open();
    for auth in
        [r#"{"pid":"forged","offset":"1-1"}"#, r#"{"pid":7,"offset":8}"#, r#"{"pid":"forged","offset":"x"}"#]
    {
        world.message(link, &format!("40{auth}"));
        let received = world.received(link);
        assert!(received.len() == 1 && received[0].starts_with("40{"), "fresh, no error: {received:?}");
        world.message(link, "41");
    }
    // A known pid with a strange offset: from `first`.
    let mut client = Client::new(&mut world);
    say(&mut world, "", 0);
    client.cut(&mut world);
    client.events.clear();
    client.offset = Some("strange".to_owned());
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..1));
    assert_eq!(world.core.stats().resumes, 1);
}

#[test]
fn event_with_ack_while_away() {
    for redeliver in [true, false] {
        let mut world = world();
        let mut client = Client::new(&mut world);
        client.answers = false;
        let (sid, log) = (client.sid.clone(), Arc::clone(&world.log));
        world.noted();
        world.call(move |io| {
            let timeout = Duration::from_secs(30);
            let options = if redeliver { AckOptions::redeliver(timeout) } else { AckOptions::once(timeout) };
            let then = move |_: &mut Io<'_>, answer: Result<Args<'_>, adjourn_socketio::error::AckError>| {
                log.lock().expect("not poisoned").push(format!("{:?}", answer.map(|args| args.len())));
            };
            io.socket("/", &sid).expect("is connected").emit_with_ack("q", (), options, then).expect("goes");
        });
        // It got the event, and its answer is lost.
        client.cut(&mut world);
        assert_eq!(client.take(&mut world).len(), 1);
        client.answers = true;
        say(&mut world, "", 0);
        client.connect(&mut world);
        if redeliver {
            assert_eq!(client.take(&mut world), [r#"["q"]"#, r#"["n",0]"#], "in its place");
            assert!(world.noted().contains(&"Ok(1)".to_owned()));
        } else {
            assert_eq!(client.take(&mut world), numbers(0..1));
            assert!(world.noted().contains(&"Err(Disconnected)".to_owned()));
        }
        client.roam(&mut world);
        assert!(client.take(&mut world).is_empty(), "answered once");
    }
}

#[test]
fn a_broadcast_with_redelivered_acks_reaches_sessions_that_come_back() {
    let mut world = world();
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&mut world)).collect();
    clients[0].cut(&mut world);
    clients[1].answers = false;
    let log = Arc::clone(&world.log);
    world.call(move |io| {
        let then = move |_: &mut Io<'_>, all: Answers| {
            log.lock().expect("not poisoned").push(format!("{} {}", all.answers.len(), all.missing));
        };
        let options = AckOptions::redeliver(Duration::from_secs(30));
        io.of("/").emit_with_acks("q", (), options, then).expect("is logged");
    });
    world.noted();
    clients[2].pump(&mut world);
    clients[1].cut(&mut world);
    clients[0].connect(&mut world);
    assert_eq!(clients[0].take(&mut world), [r#"["q"]"#], "away when it was dispatched");
    clients[1].events.clear();
    clients[1].answers = true;
    assert!(!world.noted().iter().any(|note| note.ends_with(" 0")), "who is cut stays expected");
    clients[1].connect(&mut world);
    assert_eq!(clients[1].take(&mut world), [r#"["q"]"#]);
    assert!(world.noted().contains(&"3 0".to_owned()), "the answer of the first was added");
}

#[test]
fn away_longer_than_window() {
    let mut world = World::new(quick(), |core, log| {
        handlers(core.namespace("/"), log);
        let log = Arc::clone(log);
        core.namespace("/").on_session_expired(move |session| {
            log.lock().expect("not poisoned").push(format!("expired {}", session.namespace));
        });
    });
    let mut client = Client::new(&mut world);
    let sid = client.sid.clone();
    client.cut(&mut world);
    world.noted();
    world.advance(Duration::from_secs(119));
    assert!(world.noted().is_empty());
    world.advance(Duration::from_secs(10));
    assert_eq!(world.noted(), ["expired /"], "told once");
    client.connect(&mut world);
    assert_ne!(client.sid, sid);
    assert_eq!(world.noted(), ["connected UnknownSession"]);
}

#[test]
fn log_trimmed_beyond_the_start() {
    let mut config = quick();
    let recovery = config.recovery.as_mut().expect("is on");
    recovery.log_entries = 10;
    recovery.failed_event = Some("failed".to_owned());
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    say(&mut world, "", 0);
    client.cut(&mut world);
    for number in 1..100 {
        say(&mut world, "", number);
    }
    let sid = client.sid.clone();
    client.events.clear();
    world.noted();
    client.connect(&mut world);
    assert_ne!(client.sid, sid);
    let events = client.take(&mut world);
    assert_eq!(events, [r#"["failed",{"floor":"90","reason":"OffsetTrimmed"}]"#]);
    assert_eq!(world.noted(), ["connected OffsetTrimmed"]);
}

#[test]
fn a_replay_of_what_is_for_others_leaves_them_their_turn() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").replay_page = 1024;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    for number in 0..1000 {
        say(&mut world, "elsewhere", number);
    }
    say(&mut world, "", 1000);
    world.halts = true;
    client.connect(&mut world);
    assert_eq!(world.core.stats().replays, 1);
    let mut turns = 0;
    while world.core.stats().replays > 0 {
        world.advance(Duration::from_nanos(1));
        turns += 1;
        assert!(turns < 100);
    }
    assert!(turns > 10, "{turns}");
    assert_eq!(client.take(&mut world), numbers(1000..1001));
}

#[test]
fn slow_reader_closed_by_1013() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").replay_page = 1024;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    let link = client.link.expect("is open");
    client.pump(&mut world);
    world.stick(link, 100);
    for number in 0..400 {
        say(&mut world, "", number);
    }
    assert_eq!(world.closed(link), Some(LinkClose::SlowConsumer));
    // It has read nothing of it.
    let refused = world.received(link).len();
    assert!(refused < 10);
    let link = world.open();
    client.link = Some(link);
    world.stick(link, 4096);
    client.send_connect(&mut world);
    let mut pages = 0;
    while client.events.len() < 400 {
        client.pump(&mut world);
        assert_eq!(world.closed(link), None, "pages at its pace");
        assert!(world.wire.links[&link].unsent < 4096);
        world.drain(link);
        pages += 1;
        assert!(pages < 1000);
    }
    assert_eq!(client.events, numbers(0..400));
    assert!(pages > 3, "{pages}");
}

#[test]
fn several_namespaces_on_one_connection() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    let link = client.link.expect("is open");
    world.message(link, "40/other,");
    let received = world.received(link);
    let pid = received[0].split("\"pid\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("a pid");
    let pid = pid.to_owned();
    client.cut(&mut world);
    say(&mut world, "", 0);
    world.call(|io| io.of("/other").emit("o", (1,)).expect("is logged"));
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..1));
    let link = client.link.expect("is open");
    world.message(link, &format!("40/other,{{\"pid\":\"{pid}\"}}"));
    let received = world.received(link);
    assert!(received[0].starts_with("40/other,{"));
    assert_eq!(received[1], r#"42/other,["o",1,"1-1"]"#);
    assert_eq!(world.core.stats().resumes, 2);
}

#[test]
fn resumed_over_polling_upgraded_during_the_replay() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").replay_page = 1024;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    for number in 0..600 {
        say(&mut world, "", number);
    }
    let sid = world.open_polling();
    let pid = client.pid.clone().expect("has one");
    world.post(&sid, &format!("40{{\"pid\":\"{pid}\"}}"));
    let mut got = Vec::new();
    for _ in 0..5 {
        let get = world.get(&sid);
        got.push(world.body(get).expect("a page"));
        say(&mut world, "", 599 + u32::try_from(got.len()).expect("few"));
    }
    let link = world.upgrade(&sid);
    got.extend(world.received(link));
    say(&mut world, "", 605);
    got.extend(world.received(link));
    let events: Vec<String> = got
        .iter()
        .flat_map(|body| body.split('\u{1e}'))
        .filter_map(|packet| packet.strip_prefix("42[\"n\","))
        .map(|rest| format!(r#"["n",{}]"#, rest.split(',').next().unwrap_or_default()))
        .collect();
    assert_eq!(events, numbers(0..606), "order kept across the switch");
}
