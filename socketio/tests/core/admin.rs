//! The admin namespace, as its page sees it.

use std::time::Duration;

use adjourn_socketio::admin::{AdminConfig, install};
use adjourn_socketio::core::FeedCommand;
use adjourn_socketio::offset::Position;
use adjourn_socketio::store::{FeedItem, NodeId};
use serde_json::Value;

use super::basics;
use super::world::{Client, World, quick};
use adjourn_socketio::links::LinkId;

fn world(admin: AdminConfig) -> World {
    World::new(quick(), |core, log| {
        basics::handlers(core.namespace("/"), log);
        install(core, admin);
    })
}

/// Connects a page, and gives what it got.
fn page(world: &mut World, auth: &str) -> (LinkId, Vec<Value>) {
    let link = world.open();
    world.message(link, &format!("40/admin,{auth}"));
    let got = events(world, link);
    (link, got)
}

/// The events that came, name first; a refusal as its object.
fn events(world: &mut World, link: LinkId) -> Vec<Value> {
    let texts = world.received(link);
    let array = |text: &String| {
        let json = text.strip_prefix("42/admin,").or_else(|| text.strip_prefix("44/admin,"))?;
        Some(serde_json::from_str(json).expect("JSON"))
    };
    texts.iter().filter_map(array).collect()
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event[0].as_str().unwrap_or("refused")).collect()
}

#[test]
fn only_who_knows_the_password_or_a_session_is_let_in() {
    let mut world = world(AdminConfig::basic("admin", "secret"));
    for wrong in [
        "",
        "{}",
        r#"{"username":"admin"}"#,
        r#"{"username":"admin","password":"secre"}"#,
        r#"{"username":"Admin","password":"secret"}"#,
        r#"{"sessionId":""}"#,
        r#"{"sessionId":7}"#,
    ] {
        let (_, got) = page(&mut world, wrong);
        assert_eq!(got, [serde_json::json!({ "message": "invalid credentials" })], "{wrong}");
    }
    let (_, got) = page(&mut world, r#"{"username":"admin","password":"secret"}"#);
    assert_eq!(names(&got), ["session", "config", "all_sockets"]);
    let session = got[0][1].as_str().expect("text");
    let (_, got) = page(&mut world, &format!(r#"{{"sessionId":"{session}"}}"#));
    assert_eq!(names(&got), ["config", "all_sockets"], "a page that is loaded again");
}

#[test]
fn the_page_sees_sockets_rooms_and_events() {
    let mut world = world(AdminConfig::open());
    let (link, got) = page(&mut world, "");
    assert_eq!(names(&got), ["config", "all_sockets"]);
    assert_eq!(got[1][1].as_array().map(Vec::len), Some(1), "itself");

    let mut client = Client::new(&mut world);
    client.emit(&mut world, r#"["join","lobby"]"#);
    client.emit(&mut world, r#"["echo",1,{"a":[2]}]"#);
    world.call(|io| io.of("/").to("lobby").emit("news", ("x", 5)).expect("goes"));
    client.emit(&mut world, r#"["leave","lobby"]"#);
    client.cut(&mut world);
    let got = events(&mut world, link);
    assert_eq!(
        names(&got),
        [
            "socket_connected",
            "event_received",
            "room_joined",
            "event_received",
            "event_sent",
            "event_received",
            "room_left",
            "socket_disconnected"
        ]
    );
    let sid = Value::from(client.sid.as_str());
    assert_eq!(got[0][1]["id"], sid);
    assert_eq!(got[0][1]["transport"], "websocket");
    assert_eq!((&got[2][1], &got[2][2], &got[2][3]), (&"/".into(), &"lobby".into(), &sid));
    assert_eq!(got[3][3], serde_json::json!(["echo", 1, { "a": [2] }]));
    assert_eq!(got[4][3], serde_json::json!(["news", "x", 5]));
    assert_eq!(got[7][3], "transport close");
}

#[test]
fn numbers_come_every_two_seconds() {
    let mut world = world(AdminConfig::open());
    let (link, _) = page(&mut world, "");
    let mut client = Client::new(&mut world);
    events(&mut world, link);
    world.advance(Duration::from_secs(4));
    client.pump(&mut world);
    let got = events(&mut world, link);
    assert_eq!(names(&got), ["server_stats", "server_stats"]);
    let first = &got[0][1];
    assert_eq!(first["clientsCount"], 2);
    assert_eq!(first["pollingClientsCount"], 0);
    let count = |kind: &str| {
        let events = first["aggregatedEvents"].as_array().expect("a list");
        events.iter().find(|event| event["type"] == kind).map(|event| event["count"].clone())
    };
    assert_eq!(count("rawConnection"), Some(2.into()));
    let second = got[1][1]["aggregatedEvents"].as_array().expect("a list");
    assert!(second.iter().all(|event| event["type"] != "rawConnection"), "counted once");
}

#[test]
fn the_page_emits_joins_and_disconnects() {
    let mut world = world(AdminConfig::open());
    let (link, _) = page(&mut world, "");
    let (mut a, mut b) = (Client::new(&mut world), Client::new(&mut world));
    let (a_id, b_id) = (a.sid.clone(), b.sid.clone());
    world.message(link, &format!(r#"42/admin,["join","/","vip","{a_id}"]"#));
    world.message(link, r#"42/admin,["emit","/","vip","hello",1,{"b":2}]"#);
    world.message(link, r#"42/admin,["emit","/",null,"all"]"#);
    assert_eq!(a.take(&mut world), [r#"["hello",1,{"b":2}]"#, r#"["all"]"#]);
    assert_eq!(b.take(&mut world), [r#"["all"]"#]);
    world.message(link, &format!(r#"42/admin,["leave","/","vip","{a_id}"]"#));
    world.message(link, r#"42/admin,["emit","/","vip","nobody"]"#);
    assert!(a.take(&mut world).is_empty());
    world.noted();
    world.message(link, &format!(r#"42/admin,["_disconnect","/",false,"{b_id}"]"#));
    assert_eq!(world.noted(), ["server namespace disconnect None []"]);
}

#[test]
fn a_page_that_may_only_look_changes_nothing() {
    let mut admin = AdminConfig::open();
    admin.read_only = true;
    let mut world = world(admin);
    let (link, got) = page(&mut world, "");
    assert_eq!(got[0][1]["supportedFeatures"], serde_json::json!(["AGGREGATED_EVENTS", "ALL_EVENTS"]));
    let mut client = Client::new(&mut world);
    world.message(link, r#"42/admin,["emit","/",null,"all"]"#);
    world.message(link, r#"42/admin,["_disconnect","/",true]"#);
    assert!(client.take(&mut world).is_empty());
}

#[test]
fn hostile_commands_do_nothing() {
    let mut world = world(AdminConfig::open());
    let (link, _) = page(&mut world, "");
    let mut client = Client::new(&mut world);
    for command in [
        r#"["emit"]"#,
        r#"["emit",1,2,3]"#,
        r#"["join","/"]"#,
        r#"["join","/none","x"]"#,
        r#"["_disconnect","/","yes"]"#,
        r#"["emit","/",null,"connect"]"#,
    ] {
        world.message(link, &format!("42/admin,{command}"));
    }
    assert!(client.take(&mut world).is_empty());
    assert_eq!(world.core.stats().handler_panics, 0);
}

#[test]
fn without_events_the_page_gets_numbers_alone() {
    let mut admin = AdminConfig::open();
    admin.events = false;
    let mut world = world(admin);
    let (link, got) = page(&mut world, "");
    assert_eq!(names(&got), ["config"]);
    Client::new(&mut world);
    assert!(events(&mut world, link).is_empty());
}

#[test]
fn a_page_that_missed_something_is_sent_all_sockets_anew() {
    let mut world = world(AdminConfig::open());
    let (link, _) = page(&mut world, "");
    world.wire.links.get_mut(&link).expect("is open").unsent = 1 << 20;
    let _client = Client::new(&mut world);
    world.wire.links.get_mut(&link).expect("is open").unsent = 0;
    world.advance(Duration::from_secs(2));
    assert_eq!(names(&events(&mut world, link)), ["server_stats", "all_sockets"]);
}

/// One process of several.
fn node(name: &str) -> World {
    let mut world = World::new(quick(), |core, log| {
        core.share(NodeId(name.into()));
        basics::handlers(core.namespace("/"), log);
        install(core, AdminConfig::open());
    });
    let nodes = FeedItem::Nodes(vec![NodeId("a".into()), NodeId("b".into())]);
    world.input(|core, now, wire| core.feed_input(nodes, now, wire));
    for namespace in ["/", "/admin"] {
        let (floor, tail) = (Position::START, Position::START);
        let began = FeedItem::Began { namespace: namespace.into(), epoch: 1, floor, tail };
        world.input(|core, now, wire| core.feed_input(began, now, wire));
    }
    world
}

/// What each says reaches the other. Gives the number of messages.
fn talk(a: &mut World, b: &mut World) -> usize {
    let mut count = 0;
    loop {
        let said = say("a", a, b) + say("b", b, a);
        if said == 0 {
            return count;
        }
        count += said;
    }
}

fn say(name: &str, from: &mut World, to: &mut World) -> usize {
    let mut count = 0;
    while let Some(command) = from.core.poll_feed() {
        if let FeedCommand::Send(_, message) = command {
            count += 1;
            let item = FeedItem::Message(NodeId(name.into()), message);
            to.input(|core, now, wire| core.feed_input(item, now, wire));
        }
    }
    count
}

#[test]
fn a_page_sees_what_happens_on_other_processes() {
    let (mut a, mut b) = (node("a"), node("b"));
    talk(&mut a, &mut b);
    let mut nobody_looks = Client::new(&mut b);
    nobody_looks.emit(&mut b, r#"["echo",0]"#);
    b.advance(Duration::from_millis(100));
    assert_eq!(talk(&mut a, &mut b), 0, "there is no page");

    let (link, _) = page(&mut a, "");
    talk(&mut a, &mut b);
    assert_eq!(names(&events(&mut a, link)), ["all_sockets"]);
    let mut client = Client::new(&mut b);
    client.emit(&mut b, r#"["echo",1,{"a":[2]}]"#);
    client.cut(&mut b);
    b.advance(Duration::from_millis(100));
    assert_eq!(talk(&mut a, &mut b), 1, "what happens together is one message");
    let got = events(&mut a, link);
    assert_eq!(names(&got), ["socket_connected", "event_received", "socket_disconnected"]);
    assert_eq!(got[0][1]["id"], Value::from(client.sid.as_str()));
    assert_eq!(got[1][3], serde_json::json!(["echo", 1, { "a": [2] }]));

    // What is too much for a message is left out, and the page gets all sockets anew.
    let large = "x".repeat(200_000);
    for _ in 0..10 {
        nobody_looks.emit(&mut b, &format!(r#"["echo","{large}"]"#));
    }
    b.advance(Duration::from_millis(100));
    talk(&mut a, &mut b);
    assert_eq!(names(&events(&mut a, link)), ["event_received"; 5]);
    a.advance(Duration::from_secs(2));
    talk(&mut a, &mut b);
    assert!(names(&events(&mut a, link)).contains(&"all_sockets"));

    a.message(link, "41/admin,");
    b.advance(Duration::from_secs(7));
    talk(&mut a, &mut b);
    nobody_looks.emit(&mut b, r#"["echo",0]"#);
    b.advance(Duration::from_millis(100));
    assert_eq!(talk(&mut a, &mut b), 0, "nobody looks any more");
}

#[test]
fn wrong_passwords_are_bounded() {
    let mut world = world(AdminConfig::basic("admin", "secret"));
    let right = r#"{"username":"admin","password":"secret"}"#;
    let (_, got) = page(&mut world, right);
    let session = got[0][1].as_str().expect("text").to_owned();
    // A page that asks without a password guesses none.
    for _ in 0..20 {
        page(&mut world, "{}");
    }
    for guess in 0..10 {
        let (_, got) = page(&mut world, &format!(r#"{{"username":"admin","password":"{guess}"}}"#));
        assert_eq!(got[0]["message"], "invalid credentials");
    }
    let (_, got) = page(&mut world, right);
    assert_eq!(
        got[0]["message"], "too many wrong passwords, try again in a minute",
        "nobody learns that it is right"
    );
    let (_, got) = page(&mut world, &format!(r#"{{"sessionId":"{session}"}}"#));
    assert_eq!(names(&got), ["config", "all_sockets"], "who was let in before can load the page again");
    world.advance(Duration::from_secs(62));
    let (_, got) = page(&mut world, right);
    assert_eq!(names(&got), ["session", "config", "all_sockets"]);
}
