//! Sections 6, 7, 10 and 11 without recovery: connecting, rooms, ends.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::{AckOptions, Core, Namespace};
use adjourn_socketio::error::{AckError, ConnectError};
use adjourn_socketio::links::LinkClose;

use super::world::{Client, World, quick};

type Log = Arc<Mutex<Vec<String>>>;

pub(crate) fn plain() -> SocketIoConfig {
    let mut config = quick();
    config.recovery = None;
    config
}

pub(crate) fn note(log: &Log, text: impl Into<String>) {
    log.lock().expect("not poisoned").push(text.into());
}

/// The events that most tests use.
pub(crate) fn handlers(namespace: &mut Namespace, log: &Log) {
    let (connected, ended, answered) = (Arc::clone(log), Arc::clone(log), Arc::clone(log));
    namespace
        .on_connection(move |socket| note(&connected, format!("connected {}", socket.resume().as_str())))
        .on_disconnect(move |socket, end| {
            let mut rooms: Vec<&str> = end.rooms.iter().map(|room| &**room).collect();
            rooms.sort_unstable();
            assert_eq!(socket.rooms().len(), rooms.len() + 1, "rooms can still be read");
            note(&ended, format!("{} {:?} {rooms:?}", end.reason, end.close_code));
        })
        .on("echo", |socket, args, ack| {
            if let Some(ack) = ack {
                ack.send(socket.io(), args).expect("is connected");
            }
        })
        .on("join", |socket, args, ack| {
            let room: String = args.get(0).expect("text");
            socket.join(&room).expect("fits");
            if let Some(ack) = ack {
                let mut rooms = socket.rooms();
                rooms.sort();
                let rooms: Vec<String> = rooms.iter().skip(1).map(ToString::to_string).collect();
                ack.send(socket.io(), (rooms,)).expect("is connected");
            }
        })
        .on("leave", |socket, args, _| {
            let room: String = args.get(0).expect("text");
            socket.leave(&room).expect("is connected");
        })
        .on("say", |socket, args, _| {
            let (room, text): (String, String) = args.parse().expect("texts");
            socket.io().of("/").to(room).emit("said", (text, 0)).expect("goes");
        })
        .on("ask", move |socket, _, _| {
            let answered = Arc::clone(&answered);
            let options = AckOptions::once(Duration::from_secs(5));
            let then =
                move |_: &mut adjourn_socketio::core::Io<'_>,
                      answer: Result<adjourn_socketio::packet::Args<'_>, AckError>| {
                    note(
                        &answered,
                        match answer {
                            Ok(args) => format!("answer {}", args.raw(0).unwrap_or("none")),
                            Err(error) => error.to_string(),
                        },
                    );
                };
            socket.emit_with_ack("question", (1,), options, then).expect("goes");
        })
        .on("panic", |_, _, _| panic!("a bad handler"))
        .on("kick", |socket, args, _| match args.get(0).expect("text") {
            "socket" => socket.disconnect(),
            "connection" => socket.disconnect_connection(),
            "engine" => socket.close_engine(),
            "cut" => socket.cut(),
            other => panic!("{other}"),
        });
}

pub(crate) fn world(config: SocketIoConfig) -> World {
    World::new(config, |core, log| {
        handlers(core.namespace("/"), log);
        handlers(core.namespace("/other"), log);
    })
}

#[test]
fn an_echo_is_acked_with_the_same_arguments() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    let answer = world.received(link);
    assert!(answer[0].starts_with(r#"40{"sid":""#) && !answer[0].contains("pid"), "{answer:?}");
    world.message(link, r#"4217["echo",1,"two",{"three":[3.0]}]"#);
    assert_eq!(world.received(link), [r#"4317[1,"two",{"three":[3.0]}]"#]);
    // Without a handler: no ack is made up.
    world.message(link, r#"4218["unknown"]"#);
    assert!(world.received(link).is_empty());
    assert_eq!(world.core.stats().events_unhandled, 1);
}

#[test]
fn binary_arguments_come_back() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    world.received(link);
    world.message(link, r#"451-1["echo",{"_placeholder":true,"num":0}]"#);
    world.binary(link, &[1, 2, 3]);
    assert_eq!(world.received(link), [r#"461-1[{"_placeholder":true,"num":0}]"#, "<3 bytes>"]);
}

#[test]
fn rooms_unions_and_exceptions() {
    let mut world = world(plain());
    let mut clients: Vec<Client> = (0..4).map(|_| Client::new(&mut world)).collect();
    for (client, rooms) in clients.iter_mut().zip([&["a"][..], &["a", "b"], &["b"], &[]]) {
        for room in rooms {
            client.emit(&mut world, &format!(r#"["join","{room}"]"#));
        }
    }
    let got = |world: &mut World, clients: &mut Vec<Client>| -> Vec<usize> {
        clients.iter_mut().map(|client| client.take(world).len()).collect()
    };
    world.call(|io| io.of("/").to(["a", "b"]).emit("x", ()).expect("goes"));
    assert_eq!(got(&mut world, &mut clients), [1, 1, 1, 0], "each once");
    world.call(|io| io.of("/").to("a").except("b").emit("x", ()).expect("goes"));
    assert_eq!(got(&mut world, &mut clients), [1, 0, 0, 0], "except wins");
    world.call(|io| io.of("/").except("a").emit("x", ()).expect("goes"));
    assert_eq!(got(&mut world, &mut clients), [0, 0, 1, 1]);
    let own = clients[3].sid.clone();
    world.call(move |io| io.of("/").to(own).emit("x", ()).expect("goes"));
    assert_eq!(got(&mut world, &mut clients), [0, 0, 0, 1], "the room of its own id");
    clients[1].emit(&mut world, r#"["leave","a"]"#);
    world.call(|io| io.of("/").to("a").emit("x", ()).expect("goes"));
    assert_eq!(got(&mut world, &mut clients), [1, 0, 0, 0]);
    clients[0].cut(&mut world);
    world.call(|io| io.of("/").to("a").emit("x", ()).expect("goes"));
    assert_eq!(got(&mut world, &mut clients), [0, 0, 0, 0]);
    assert_eq!(world.core.stats().rooms, 1, "an empty room is no room");
}

#[test]
fn a_socket_excludes_itself_from_its_broadcasts() {
    let mut world = World::new(plain(), |core, _| {
        core.namespace("/").on_connection(|socket| socket.join("r").expect("fits")).on(
            "all",
            |socket, _, _| {
                socket.broadcast().emit("x", ()).expect("goes");
                socket.to("r").emit("y", ()).expect("goes");
            },
        );
    });
    let (mut a, mut b) = (Client::new(&mut world), Client::new(&mut world));
    a.emit(&mut world, r#"["all"]"#);
    assert_eq!(b.take(&mut world), [r#"["x"]"#, r#"["y"]"#]);
    assert!(a.take(&mut world).is_empty());
}

#[test]
fn every_reason_of_section_11() {
    let cases: &[(&str, &str, &[&str], Option<LinkClose>)] = &[
        (r#"42["kick","socket"]"#, "server namespace disconnect None []", &["41"], None),
        (
            r#"42["kick","connection"]"#,
            "server namespace disconnect None []",
            &["41"],
            Some(LinkClose::Empty { quick: false }),
        ),
        (
            r#"42["kick","engine"]"#,
            "forced close Some(1005) []",
            &[],
            Some(LinkClose::Empty { quick: false }),
        ),
        (r#"42["kick","cut"]"#, "transport close Some(1006) []", &[], Some(LinkClose::Cut)),
        ("41", "client namespace disconnect None []", &[], None),
        ("1", "transport close Some(1005) []", &[], Some(LinkClose::Empty { quick: false })),
        ("x", "parse error Some(1005) []", &[], Some(LinkClose::Empty { quick: false })),
        ("2", "transport error Some(1005) []", &[], Some(LinkClose::Empty { quick: false })),
        ("42{}", "forced close Some(1005) []", &[], Some(LinkClose::Empty { quick: false })),
        ("40", "forced close Some(1005) []", &[], Some(LinkClose::Empty { quick: false })),
        ("44{}", "forced close Some(1005) []", &[], Some(LinkClose::Empty { quick: false })),
    ];
    for (input, end, sent, closed) in cases {
        let mut world = world(plain());
        let link = world.open();
        world.message(link, "40");
        world.received(link);
        world.noted();
        world.message(link, input);
        assert_eq!(world.noted(), [*end], "{input}");
        assert_eq!(world.received(link), *sent, "{input}");
        assert_eq!(world.closed(link), *closed, "{input}");
        // The later end of the connection changes nothing.
        world.cut(link);
        assert!(world.noted().is_empty(), "{input}");
        world.advance(Duration::from_mins(1));
        assert_eq!(world.core.stats().connections_websocket, 0, "{input}");
    }
}

#[test]
fn a_ping_timeout_ends_the_sockets() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    world.noted();
    world.advance(Duration::from_secs(45));
    assert_eq!(world.noted(), ["ping timeout Some(1005) []"]);
    assert_eq!(world.closed(link), Some(LinkClose::Empty { quick: true }));
}

#[test]
fn all_namespaces_of_a_connection_end_with_it() {
    let mut world = world(plain());
    let link = world.open();
    for text in ["40", "40/other", r#"42["join","r"]"#] {
        world.message(link, text);
    }
    world.noted();
    world.cut(link);
    assert_eq!(world.noted(), [r#"transport close Some(1006) ["r"]"#, "transport close Some(1006) []"]);
}

#[test]
fn a_namespace_is_connected_again_after_its_disconnect() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40");
    world.message(link, "40/other,");
    world.message(link, "41");
    assert_eq!(world.closed(link), None);
    world.received(link);
    world.message(link, "40");
    assert!(world.received(link)[0].starts_with("40{"));
    // What was sent before the client knew is late, no error.
    world.message(link, r#"42/other,["kick","socket"]"#);
    world.message(link, r#"42/other,["echo"]"#);
    assert_eq!((world.closed(link), world.core.stats().packets_late), (None, 1));
    // It knows of its own disconnect.
    world.message(link, "41");
    world.message(link, r#"42["echo"]"#);
    assert!(world.closed(link).is_some());
}

#[test]
fn the_first_packet_is_connect() {
    for first in [r#"42["echo"]"#, "41", "431[]", r#"42/other,["x"]"#] {
        for other in [false, true] {
            let mut world = world(plain());
            let link = world.open();
            if other {
                world.message(link, "40/x,");
                world.message(link, "40/third,");
            }
            world.message(link, first);
            assert_eq!(world.closed(link), Some(LinkClose::Empty { quick: false }), "{first}");
        }
    }
}

#[test]
fn without_a_socket_a_connection_is_closed_after_connect_timeout() {
    let mut world = world(plain());
    let (idle, left) = (world.open(), world.open());
    world.message(left, "40");
    world.advance(Duration::from_secs(20));
    world.message(left, "41");
    world.message(idle, "3");
    for _ in 0..6 {
        world.advance(Duration::from_secs(5));
        for link in [idle, left] {
            world.message(link, "3");
        }
    }
    assert!(world.closed(idle).is_some());
    assert!(world.closed(left).is_none(), "it counts again from the moment without a socket");
    for _ in 0..3 {
        world.advance(Duration::from_secs(5));
        world.message(left, "3");
    }
    assert!(world.closed(left).is_some());
    assert_eq!(world.core.stats().connect_timeouts, 2);
}

#[test]
fn an_invalid_namespace_leaves_the_connection() {
    let mut world = world(plain());
    let link = world.open();
    world.message(link, "40/none,{}");
    assert_eq!(world.received(link), [r#"44/none,{"message":"Invalid namespace"}"#]);
    world.message(link, "40");
    assert!(world.received(link)[0].starts_with("40{"));
}

#[test]
fn too_many_namespaces_of_a_connection() {
    let mut config = plain();
    config.counts.namespaces_per_connection = 1;
    let mut world = world(config);
    let link = world.open();
    world.message(link, "40");
    world.received(link);
    world.message(link, "40/other,");
    assert_eq!(world.received(link), [r#"44/other,{"message":"too many namespaces"}"#]);
    assert_eq!(world.core.stats().namespaces_refused, 1);
}

#[test]
fn a_dynamic_namespace_lives_as_long_as_its_sockets() {
    let mut world = World::new(plain(), |core, log| {
        handlers(core.namespace_matching(|name, _| name.starts_with("/dyn-")), log);
    });
    let link = world.open();
    world.message(link, "40/dyn-1,");
    assert!(world.received(link)[0].starts_with("40/dyn-1,{"));
    assert_eq!(world.core.stats().namespaces, 1);
    world.message(link, "41/dyn-1,");
    assert_eq!(world.core.stats().namespaces, 0);
    world.message(link, "40/x,");
    assert_eq!(world.received(link), [r#"44/x,{"message":"Invalid namespace"}"#]);
}

fn checked(core: &mut Core, log: &Log) {
    let asked = Arc::clone(log);
    let namespace = core.namespace("/");
    namespace
        .check(|handshake, verdict| match handshake.auth() {
            Some(auth) if auth.contains("good") => verdict.accept("alice"),
            _ => verdict.refuse(ConnectError {
                message: "unauthorized".to_owned(),
                data: Some(r#"{"code":401}"#.to_owned()),
            }),
        })
        .check(move |handshake, verdict| match handshake.auth() {
            Some(auth) if auth.contains("dropped") => drop(verdict),
            Some(auth) if auth.contains("late") => std::mem::forget(verdict),
            Some(auth) if auth.contains("thread") => {
                std::thread::spawn(move || verdict.accept("")).join().expect("ends");
            }
            _ => {
                note(&asked, "second");
                verdict.accept("");
            }
        });
    let connected = Arc::clone(log);
    namespace.on_connection(move |socket| note(&connected, socket.principal().to_string()));
}

#[test]
fn middlewares_in_order() {
    let cases = [
        ("{}", r#"44{"message":"unauthorized","data":{"code":401}}"#, &[][..]),
        (r#"{"token":"good"}"#, "40", &["second", "alice"]),
        (r#"{"token":"good","dropped":1}"#, r#"44{"message":"internal error"}"#, &[]),
        (r#"{"token":"good","thread":1}"#, "40", &["alice"]),
    ];
    for (auth, answer, noted) in cases {
        let mut world = World::new(plain(), checked);
        let link = world.open();
        world.message(link, &format!("40{auth}"));
        world.input(|core, now, wire| core.handle_inbox(now, wire));
        let received = world.received(link);
        assert!(received[0].starts_with(answer), "{auth}: {received:?}");
        assert_eq!(world.noted(), noted, "{auth}");
        assert_eq!(world.closed(link), None);
    }
}

#[test]
fn a_middleware_that_does_not_answer_times_out() {
    let mut world = World::new(plain(), checked);
    let link = world.open();
    world.message(link, r#"40{"token":"good","late":1}"#);
    for _ in 0..9 {
        world.advance(Duration::from_secs(5));
        world.message(link, "3");
    }
    assert!(world.received(link).contains(&r#"44{"message":"timeout"}"#.to_owned()));
}

#[test]
fn an_event_before_the_connect_answer_is_a_state_error() {
    let mut world = World::new(plain(), checked);
    let link = world.open();
    world.message(link, r#"40{"token":"good","late":1}"#);
    world.message(link, r#"42["echo"]"#);
    assert!(world.closed(link).is_some());
    assert_eq!(world.core.stats().state_error_kinds, [("not_answered", 1)]);
}

#[test]
fn a_namespace_without_its_slash_gets_it() {
    let mut world = World::new(quick(), |core, log| {
        handlers(core.namespace("chat"), log);
        core.namespace("/chat").on("more", |socket, _, _| socket.emit("n", (0,)).expect("is connected"));
    });
    let mut client = Client::of(&mut world, "/chat");
    assert_eq!(world.noted(), ["connected fresh"]);
    client.emit(&mut world, r#"["more"]"#);
    let sid = client.sid.clone();
    world.call(move |io| {
        io.of("chat").emit("n", (1,)).expect("goes");
        io.socket("chat", &sid).expect("is connected").emit("n", (2,)).expect("goes");
    });
    assert_eq!(client.take(&mut world), [r#"["n",0]"#, r#"["n",1]"#, r#"["n",2]"#]);
}

#[test]
fn a_namespace_that_no_client_can_name_is_refused_when_it_is_registered() {
    for name in ["/a,b", "a,b", &"x".repeat(1024)] {
        let registered = std::panic::catch_unwind(|| {
            World::new(quick(), |core, _| {
                core.namespace(name);
            })
        });
        let panic = registered.err().expect("it would be silent for ever");
        let message = panic.downcast_ref::<String>().expect("a message");
        assert!(message.contains("no client can connect to the namespace"), "{message}");
    }
    World::new(quick(), |core, _| {
        core.namespace(&"x".repeat(1023));
        core.namespace("/a?b=c");
    });
}
