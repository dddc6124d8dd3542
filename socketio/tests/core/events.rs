//! Sections 7, 9 and 11 without recovery: handlers, acks, volatile events, slow and idle clients, polling.

use std::sync::Arc;
use std::time::Duration;

use adjourn_socketio::config::IdlePolicy;
use adjourn_socketio::core::AckOptions;
use adjourn_socketio::links::LinkClose;
use adjourn_socketio::stats::SocketIoStats;

use super::basics::{handlers, note, plain, world};
use super::world::{Client, World};

#[test]
fn an_ack_is_awaited_until_answer_timeout_or_disconnect() {
    let mut world = world(plain());
    let mut client = Client::new(&mut world);
    world.noted();
    client.emit(&mut world, r#"["ask"]"#);
    assert_eq!(client.take(&mut world), [r#"["question",1]"#]);
    assert_eq!(world.noted(), [r#"answer "ok""#]);
    client.answers = false;
    client.emit(&mut world, r#"["ask"]"#);
    client.pump(&mut world);
    world.advance(Duration::from_secs(5));
    assert_eq!(world.noted(), ["no answer in time"]);
    client.emit(&mut world, r#"["ask"]"#);
    client.cut(&mut world);
    let noted = world.noted();
    assert!(noted.contains(&"the socket was disconnected before it answered".to_owned()), "{noted:?}");
    assert_eq!(world.core.stats().acks_pending, 0);
}

#[test]
fn what_a_client_has_not_answered_in_time_is_not_counted_against_it() {
    let mut config = plain();
    config.counts.pending_acks_per_socket = 2;
    let mut world = world(config);
    let mut client = Client::new(&mut world);
    client.answers = false;
    for _ in 0..3 {
        world.call(|io| {
            let options = AckOptions::once(Duration::from_secs(1));
            io.of("/").emit_with_acks("q", (), options, |_, _| {}).expect("goes");
        });
        client.pump(&mut world);
        world.advance(Duration::from_secs(2));
    }
    world.noted();
    client.answers = true;
    client.emit(&mut world, r#"["ask"]"#);
    client.pump(&mut world);
    assert_eq!(world.noted(), [r#"answer "ok""#]);
    assert_eq!(world.core.stats().acks_refused, 0);
}

#[test]
fn an_answer_of_another_socket_is_none() {
    let mut world = world(plain());
    let mut client = Client::new(&mut world);
    let other = Client::new(&mut world);
    client.answers = false;
    client.emit(&mut world, r#"["ask"]"#);
    world.noted();
    for id in 0..5 {
        world.message(other.link.expect("is open"), &format!("43{id}[1]"));
    }
    assert!(world.noted().is_empty());
    assert_eq!(world.core.stats().acks_unknown, 5);
}

#[test]
fn a_broadcast_with_acks_collects_one_answer_each() {
    let mut world = world(plain());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::new(&mut world)).collect();
    clients[2].answers = false;
    let ask = |world: &mut World| {
        let log = Arc::clone(&world.log);
        world.call(move |io| {
            let options = AckOptions::once(Duration::from_secs(1));
            let then = move |_: &mut adjourn_socketio::core::Io<'_>, all: adjourn_socketio::core::Answers| {
                note(&log, format!("{} {} {:?}", all.answers.len(), all.missing, all.error));
            };
            io.of("/").emit_with_acks("q", (), options, then).expect("goes");
        });
    };
    world.noted();
    ask(&mut world);
    for client in &mut clients {
        client.pump(&mut world);
    }
    assert!(world.noted().is_empty(), "one has not answered");
    world.advance(Duration::from_secs(1));
    assert_eq!(world.noted(), ["2 1 Some(Timeout)"]);
    ask(&mut world);
    for client in &mut clients {
        client.pump(&mut world);
    }
    clients[2].cut(&mut world);
    assert!(world.noted().contains(&"2 0 None".to_owned()), "who is cut is not expected");
    for client in &mut clients {
        client.cut(&mut world);
    }
    world.noted();
    ask(&mut world);
    assert_eq!(world.noted(), ["0 0 None"], "nobody: done at once");
}

#[test]
fn a_panic_costs_the_event_alone() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    world.received(link);
    world.message(link, r#"421["panic"]"#);
    world.message(link, r#"422["echo",1]"#);
    assert_eq!(world.received(link), ["432[1]"]);
    assert_eq!(world.core.stats().handler_panics, 1);
}

#[test]
fn a_filter_drops_events_and_tells() {
    let mut world = World::new(plain(), |core, log| {
        let log = Arc::clone(log);
        handlers(core.namespace("/"), &log);
        core.namespace("/")
            .filter(|_, name, args| match (name, args.len()) {
                ("echo", 0) => Err(adjourn_socketio::core::EventError("no argument".to_owned())),
                _ => Ok(()),
            })
            .on_event_error(move |_, name, error| note(&log, format!("{name}: {error}")));
    });
    let link = world.open();
    world.message(link, "40");
    world.received(link);
    world.noted();
    world.message(link, r#"421["echo"]"#);
    assert_eq!(world.noted(), ["echo: no argument"]);
    world.message(link, r#"422["echo",1]"#);
    assert_eq!(world.received(link), ["432[1]"]);
}

#[test]
fn volatile_events_are_dropped_for_who_has_much_unsent() {
    let mut config = plain();
    config.output.volatile_limit = 10;
    let mut world = world(config);
    let (a, b) = (Client::new(&mut world), Client::new(&mut world));
    let (a, b) = (a.link.expect("is open"), b.link.expect("is open"));
    world.stick(a, 1 << 20);
    world.wire.links.get_mut(&a).expect("is open").unsent = 11;
    world.call(|io| assert_eq!(io.of("/").emit_volatile("v", ()), 1));
    assert!(world.received(a).is_empty());
    assert_eq!(world.received(b), [r#"42["v"]"#]);
    assert_eq!(world.core.stats().volatile_dropped, 1);
}

#[test]
fn a_slow_consumer_is_disconnected() {
    let mut world = world(plain());
    let (a, mut b) = (Client::new(&mut world), Client::new(&mut world));
    let a = a.link.expect("is open");
    world.stick(a, 100);
    world.noted();
    for _ in 0..10 {
        world.call(|io| io.of("/").emit("x", ("0123456789",)).expect("goes"));
    }
    assert_eq!(world.noted(), ["slow consumer Some(1013) []"]);
    assert_eq!(world.closed(a), Some(LinkClose::SlowConsumer));
    assert_eq!(b.take(&mut world).len(), 10);
}

#[test]
fn a_slow_consumer_over_polling_has_no_close_code() {
    let mut config = plain();
    config.output.send_queue = 1024;
    config.output.volatile_limit = 1024;
    let mut world = world(config);
    let sid = world.open_polling();
    world.post(&sid, "40");
    world.noted();
    let text = "x".repeat(600);
    for _ in 0..2 {
        world.call(|io| io.of("/").emit("x", (&text,)).expect("goes"));
    }
    assert_eq!(world.noted(), ["slow consumer None []"]);
}

/// What a client sends that is wrong, and as what it is counted.
#[test]
fn s20_errors_of_clients_are_counted_by_kind() {
    let attachment = r#"451-["echo",{"_placeholder":true,"num":0}]"#;
    let out_of_range = r#"451-["echo",{"_placeholder":true,"num":1}]"#;
    let (deep, name) =
        (format!(r#"42["echo",{}]"#, "[".repeat(200)), format!(r#"42["{}"]"#, "x".repeat(2000)));
    let decode_errors = [
        ("47", "unknown_type"),
        (r#"45["echo"]"#, "attachments"),
        ("43[]", "ack_id"),
        ("42{}", "payload"),
        (r#"42["echo""#, "json"),
        (&deep, "depth"),
        (r#"42["connect"]"#, "reserved_name"),
        (&name, "name_length"),
        (out_of_range, "placeholder"),
    ];
    let state_errors =
        [("40", "connected_already"), (r#"42/plain,["echo"]"#, "not_connected"), ("44{}", "connect_error")];
    for (text, kind) in decode_errors {
        let stats = stats_after(&[text]);
        assert_eq!((stats.decode_error_kinds, stats.decode_errors), (vec![(kind, 1)], 1), "{text}");
        assert_eq!(stats.state_errors, 0, "{text}");
    }
    for (text, kind) in state_errors {
        let stats = stats_after(&[text]);
        assert_eq!((stats.state_error_kinds, stats.state_errors), (vec![(kind, 1)], 1), "{text}");
        assert_eq!(stats.decode_errors, 0, "{text}");
    }
    assert_eq!(stats_after(&[attachment, "42[1]"]).decode_error_kinds, [("text_outstanding", 1)]);
    assert_eq!(stats_after(&["bAQID"]).decode_error_kinds, [("binary_unexpected", 1)]);
    let mut world = world(plain());
    for kind in 0..3 {
        let link = world.open();
        world.message(link, "40");
        world.message(link, if kind == 0 { "4x" } else { "40" });
    }
    let stats = world.core.stats();
    assert_eq!(stats.decode_error_kinds, [("unknown_type", 1)]);
    assert_eq!(stats.state_error_kinds, [("connected_already", 2)]);
}

/// The counters after these messages of a connected client, which end its connection.
fn stats_after(messages: &[&str]) -> SocketIoStats {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    for message in messages {
        assert!(world.closed(link).is_none());
        world.message(link, message);
    }
    assert!(world.closed(link).is_some(), "{messages:?}");
    world.core.stats()
}

#[test]
fn warned_then_disconnected() {
    let mut world = World::new(plain(), |core, log| {
        handlers(core.namespace("/"), log);
        core.namespace("/").on("warn", |socket, args, _| {
            let after = Duration::from_millis(args.get(0).expect("number"));
            socket.warn_then_disconnect("warning", ("bye",), after).expect("is connected");
        });
    });
    let mut client = Client::new(&mut world);
    world.noted();
    client.emit(&mut world, r#"["warn",100]"#);
    client.pump(&mut world);
    assert_eq!(client.events, [r#"["warning","bye"]"#]);
    assert!(world.noted().is_empty());
    world.advance(Duration::from_millis(100));
    client.pump(&mut world);
    assert_eq!(client.packets, ["41"]);
    assert_eq!(world.noted(), ["server namespace disconnect None []"]);
    let mut client = Client::new(&mut world);
    client.emit(&mut world, r#"["warn",0]"#);
    assert_eq!(world.received(client.link.expect("is open")), [r#"42["warning","bye"]"#, "41"]);
    client.pump(&mut world);
}

#[test]
fn idle_clients_are_warned_and_disconnected() {
    let idle = IdlePolicy {
        after: Duration::from_secs(3),
        warn_before: Duration::from_secs(1),
        warn_event: "idle_warning".to_owned(),
    };
    let mut config = plain();
    config.idle = Some(idle);
    let mut world = world(config);
    let mut client = Client::new(&mut world);
    world.noted();
    world.advance(Duration::from_secs(2));
    assert_eq!(client.take(&mut world), [r#"["idle_warning",1000]"#]);
    client.emit(&mut world, r#"["echo"]"#);
    world.advance(Duration::from_millis(1900));
    assert!(client.take(&mut world).is_empty(), "an event cancels");
    world.advance(Duration::from_millis(100));
    assert_eq!(client.take(&mut world).len(), 1);
    world.advance(Duration::from_secs(1));
    assert_eq!(world.noted(), ["idle None []"]);
    client.pump(&mut world);
    assert_eq!(client.packets, ["41"]);
}

#[test]
fn an_event_after_the_warning_has_a_warning_of_its_own() {
    let mut config = plain();
    let after = Duration::from_secs(3);
    let warn_before = Duration::from_secs(2);
    config.idle = Some(IdlePolicy { after, warn_before, warn_event: "idle_warning".to_owned() });
    let mut world = world(config);
    let mut client = Client::new(&mut world);
    world.noted();
    for _ in 0..3 {
        world.advance(Duration::from_secs(1));
        assert_eq!(client.take(&mut world), [r#"["idle_warning",2000]"#]);
        world.advance(Duration::from_millis(200));
        client.emit(&mut world, r#"["echo"]"#);
    }
    world.advance(Duration::from_secs(1));
    assert_eq!(client.take(&mut world), [r#"["idle_warning",2000]"#]);
    world.advance(Duration::from_millis(1999));
    assert!(world.noted().is_empty());
    world.advance(Duration::from_millis(1));
    assert_eq!(world.noted(), ["idle None []"]);
    client.pump(&mut world);
    assert_eq!((client.packets.len(), client.events.len()), (1, 0));
}

#[test]
fn nothing_of_an_event_follows_a_disconnect_by_what_comes_before_its_handler() {
    for in_filter in [true, false] {
        let mut world = World::new(plain(), |core, log| {
            let log = Arc::clone(log);
            handlers(core.namespace("/"), &log);
            let after = Arc::clone(&log);
            core.namespace("/")
                .filter(move |socket, _, _| {
                    if in_filter {
                        socket.disconnect();
                    }
                    Ok(())
                })
                .filter(move |_, _, _| {
                    note(&after, "second filter");
                    Ok(())
                })
                .on_any(|socket, _, _| socket.disconnect())
                .on("event", move |_, _, _| note(&log, "handler"));
        });
        let mut client = Client::new(&mut world);
        world.noted();
        client.emit(&mut world, r#"["event"]"#);
        let noted = world.noted();
        let before: &[&str] = if in_filter { &[] } else { &["second filter"] };
        assert_eq!(noted, [before, &["server namespace disconnect None []"]].concat());
        assert_eq!(world.core.stats().packets_late, 1);
    }
}

#[test]
fn attachments_that_do_not_come_are_a_state_error() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    world.message(link, r#"451-["echo",{"_placeholder":true,"num":0}]"#);
    for _ in 0..9 {
        world.advance(Duration::from_secs(5));
        world.message(link, "3");
    }
    assert!(world.closed(link).is_some());
    assert_eq!(world.core.stats().state_error_kinds, [("attachments_late", 1)]);
}

#[test]
fn a_polling_client_does_the_same() {
    let mut world = world(plain());
    let sid = world.open_polling();
    assert_eq!(world.post(&sid, "40"), adjourn_socketio::links::RequestId(2));
    let get = world.get(&sid);
    assert!(world.body(get).expect("an answer").starts_with(r#"40{"sid""#));
    let held = world.get(&sid);
    assert_eq!(world.body(held), None);
    world.post(&sid, "421[\"echo\",1]\u{1e}422[\"echo\",2]");
    assert_eq!(world.body(held).as_deref(), Some("431[1]"));
    let get = world.get(&sid);
    assert_eq!(world.body(get).as_deref(), Some("432[2]"));
    // Over WebSocket from here on.
    let link = world.upgrade(&sid);
    world.message(link, r#"423["echo",3]"#);
    assert_eq!(world.received(link), ["433[3]"]);
    world.call(|io| io.of("/").emit("x", ()).expect("goes"));
    assert_eq!(world.received(link), [r#"42["x"]"#]);
    assert_eq!(world.core.stats().upgrades, 1);
    world.noted();
    world.cut(link);
    assert_eq!(world.noted(), ["transport close Some(1006) []"]);
}

#[test]
fn packets_after_a_decode_error_in_one_payload_are_not_looked_at() {
    let mut world = world(plain());
    let sid = world.open_polling();
    world.post(&sid, "40\u{1e}42[\"join\",\"r\"]\u{1e}42{}\u{1e}42[\"join\",\"s\"]");
    assert_eq!(world.noted(), ["connected fresh", r#"forced close None ["r"]"#]);
}

#[test]
fn an_ack_after_the_disconnect_does_nothing_and_says_so() {
    let mut world = World::new(plain(), |core, log| {
        let log = Arc::clone(log);
        core.namespace("/").on("x", move |socket, _, ack| {
            socket.disconnect();
            let sent = ack.expect("asked for").send(socket.io(), ());
            note(&log, format!("{sent:?}"));
            assert!(!socket.is_connected() && socket.emit("y", ()).is_err() && socket.join("r").is_err());
        });
    });
    let link = world.open();
    world.message(link, "40");
    world.received(link);
    world.message(link, r#"421["x"]"#);
    assert_eq!(world.received(link), ["41"]);
    assert_eq!(world.noted(), ["Err(Disconnected)"]);
}
