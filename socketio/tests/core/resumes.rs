//! Sections 8, 10 and 13: the rules around a resume.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::core::Core;

use super::basics::{handlers, note};
use super::recovery::{numbers, say, world, world_with};
use super::world::{Client, StoreMode, World, quick};

#[test]
fn an_ack_waits_for_its_effects() {
    let mut world = World::new(quick(), |core, _| {
        core.namespace("/").on("do", |socket, args, ack| {
            match args.get(0).expect("text") {
                "emit" => socket.emit("x", ()).expect("is logged"),
                "join" => socket.join("r").expect("fits"),
                "both" => {
                    socket.emit("x", ()).expect("is logged");
                    socket.join("r").expect("fits");
                }
                _ => {}
            }
            ack.expect("asked for").send(socket.io(), ()).expect("is connected");
        });
    });
    let client = Client::new(&mut world);
    let link = client.link.expect("is open");
    world.mode = StoreMode::Held;
    world.message(link, r#"421["do","nothing"]"#);
    assert_eq!(world.received(link), ["431[]"], "without effects: at once");
    for (effect, order) in [("emit", "xa"), ("join", "a"), ("both", "xa")] {
        world.message(link, &format!(r#"422["do","{effect}"]"#));
        assert!(world.received(link).is_empty(), "{effect}");
        world.run_store();
        let received: String =
            world.received(link).iter().map(|text| if text.starts_with("43") { 'a' } else { 'x' }).collect();
        assert_eq!(received, order, "{effect}");
    }
    world.mode = StoreMode::Failing;
    world.message(link, r#"422["do","emit"]"#);
    assert!(world.received(link).is_empty(), "when they failed, no ack goes out");
    assert_eq!(world.core.stats().acks_withheld, 1);
}

#[test]
fn effects_are_in_the_order_of_calls() {
    let mut world = World::new(quick(), |core, _| {
        core.namespace("/").on("do", |socket, _, _| {
            socket.io().of("/").to("r").emit("n", (0,)).expect("is logged");
            socket.join("r").expect("fits");
            socket.io().of("/").to("r").emit("n", (1,)).expect("is logged");
            socket.leave("r").expect("fits");
            socket.io().of("/").to("r").emit("n", (2,)).expect("is logged");
            assert_eq!(socket.rooms().len(), 1, "shown at once");
            socket.emit("bye", ()).expect("is logged");
            socket.disconnect();
            assert!(socket.is_connected());
        });
    });
    for mode in [StoreMode::Inline, StoreMode::Held] {
        let mut client = Client::new(&mut world);
        world.mode = mode;
        client.emit(&mut world, r#"["do"]"#);
        world.run_store();
        client.pump(&mut world);
        assert_eq!(client.events, [r#"["n",1]"#, r#"["bye"]"#], "{mode:?}");
        assert_eq!(client.packets, ["41"]);
        world.mode = StoreMode::Inline;
    }
}

#[test]
fn a_disconnect_entry_ends_sessions_that_are_away() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    let own = client.sid.clone();
    say(&mut world, "", 0);
    world.call(|io| io.of("/").to(own).disconnect(true).expect("is logged"));
    say(&mut world, "", 1);
    world.noted();
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..1));
    assert_eq!(client.packets, ["41"]);
    assert_eq!(world.noted(), ["connected resumed", "server namespace disconnect None []"]);
    client.send_connect(&mut world);
    client.roam(&mut world);
    assert_eq!(world.core.stats().resumes_refused, 1, "it ended");
}

#[test]
fn s13_a_page_of_small_events_has_few_of_them() {
    let mut world = world();
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    for number in 0..3000 {
        say(&mut world, "", number);
    }
    let link = world.open();
    client.link = Some(link);
    world.stick(link, 1 << 20);
    client.send_connect(&mut world);
    let mut got = 0;
    while got < 3000 {
        client.pump(&mut world);
        let page = client.events.len() - got;
        assert!((1..200).contains(&page), "one page of {page} after {got}");
        got += page;
        world.drain(link);
    }
    assert_eq!(client.events, numbers(0..3000));
}

#[test]
fn the_replay_can_come_before_connect() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").replay_before_connect = 25;
    let mut world = world_with(config);
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    say(&mut world, "", 0);
    say(&mut world, "", 1);
    let link = world.open();
    client.link = Some(link);
    client.send_connect(&mut world);
    let received = world.received(link);
    assert_eq!(received[0], r#"42["n",0,"1-1"]"#);
    assert!(received[1].starts_with("40{"));
    assert_eq!(received[2], r#"42["n",1,"1-2"]"#);
}

#[test]
fn a_skipped_middleware_is_asked_when_the_session_cannot_be_resumed() {
    for skip in [false, true] {
        let mut config = quick();
        config.recovery.as_mut().expect("is on").skip_middleware = skip;
        let mut world = World::new(config, |core, log| {
            let log = Arc::clone(log);
            core.namespace("/").check(move |_, verdict| {
                log.lock().expect("not poisoned").push("asked".to_owned());
                verdict.accept("alice");
            });
        });
        let mut client = Client::new(&mut world);
        client.cut(&mut world);
        world.noted();
        client.connect(&mut world);
        assert_eq!(world.core.stats().resumes, 1);
        assert_eq!(world.noted().len(), usize::from(!skip));
        client.cut(&mut world);
        client.pid = Some("forged".to_owned());
        client.connect(&mut world);
        assert_eq!(world.noted().len(), 1);
    }
}

#[test]
fn another_principal_does_not_resume_the_session() {
    let mut world = World::new(quick(), |core, log| {
        let mut count = 0;
        core.namespace("/").check(move |_, verdict| {
            count += 1;
            verdict.accept(format!("user {count}"));
        });
        handlers(core.namespace("/"), log);
    });
    let mut client = Client::new(&mut world);
    client.cut(&mut world);
    world.noted();
    client.connect(&mut world);
    assert_eq!(world.noted(), ["connected PrincipalMismatch"]);
}

#[test]
fn a_dynamic_namespace_waits_for_its_sessions() {
    let mut world = World::new(quick(), |core, log| {
        handlers(core.namespace_matching(|name, _| name.starts_with("/dyn-")), log);
    });
    let mut client = Client::of(&mut world, "/dyn-1");
    client.cut(&mut world);
    world.advance(Duration::from_mins(1));
    world.call(|io| io.of("/dyn-1").emit("n", (0,)).expect("is logged"));
    client.connect(&mut world);
    assert_eq!(client.take(&mut world), numbers(0..1));
    client.cut(&mut world);
    world.advance(Duration::from_mins(5));
    assert_eq!(world.core.stats().namespaces, 0);
}

#[test]
fn the_last_session_of_a_dynamic_namespace_is_told_when_it_expires() {
    let mut config = quick();
    config.recovery.as_mut().expect("is on").window = Duration::from_secs(10);
    let set_up = |core: &mut Core, log: &Arc<Mutex<Vec<String>>>| {
        let expired = Arc::clone(log);
        let namespace = core.namespace_matching(|name, _| name.starts_with("/dyn-"));
        namespace.on_session_expired(move |session| note(&expired, format!("expired {}", session.sid)));
    };
    let mut world = World::new(config.clone(), set_up);
    let mut client = Client::of(&mut world, "/dyn-1");
    client.cut(&mut world);
    world.advance(Duration::from_secs(30));
    assert_eq!(world.noted(), [format!("expired {}", client.sid)]);
    // After a restart: nobody connects to it again.
    let mut client = Client::of(&mut world, "/dyn-2");
    world.call(|io| io.of("/dyn-2").emit("n", (0,)).expect("is logged"));
    client.cut(&mut world);
    world.restart(config, set_up);
    world.advance(Duration::from_secs(30));
    assert_eq!(world.noted(), [format!("expired {}", client.sid)]);
    assert_eq!(world.core.stats().namespaces, 0);
}
