//! The cases of the official Socket.IO protocol suite as tables of our own, on the core in virtual time; and the rules of sections 6
//! and 7 of specification that a client without recovery meets.

#[path = "support/engine_script.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod script;

use std::time::Duration;

use adjourn_socketio::config::SocketIoConfig;
use adjourn_socketio::core::{Core, CoreSetup, Peer, Transport};
use adjourn_socketio::engine::Sid;
use adjourn_socketio::links::{FrameRef, LinkId};
use adjourn_socketio::packet::{ArgsBuf, Query};
use script::Recorder;

/// A server as the suite wants it, and a client on link 1.
struct Suite {
    core: Core,
    links: Recorder,
    now: Duration,
}

impl Suite {
    fn new() -> Self {
        let mut config = SocketIoConfig::default();
        config.recovery = None;
        config.times.ping_interval = Duration::from_millis(300);
        config.times.ping_timeout = Duration::from_millis(200);
        config.times.connect_timeout = Duration::from_secs(1);
        let mut count = 0;
        let random = move |bytes: &mut [u8]| {
            count += 1;
            bytes.fill(count);
        };
        let setup = CoreSetup {
            epoch: 1,
            logs: Vec::new(),
            wall: 0,
            random: Box::new(random),
            wake: Box::new(|| ()),
        };
        let mut core = Core::new(config, setup).expect("a configuration");
        for name in ["/", "/custom"] {
            core.namespace(name).on_connection(|socket| {
                let auth = format!("[{}]", socket.handshake().auth().unwrap_or("{}"));
                let args = ArgsBuf::from_json(auth, Vec::new()).expect("an array");
                socket.emit("auth", &args).expect("connected");
            });
        }
        let main = core.namespace("/");
        main.on("message", |socket, args, _| socket.emit("message-back", args).expect("connected"));
        main.on("message-with-ack", |socket, args, ack| {
            let ack = ack.expect("asked for");
            ack.send(socket.io(), args).expect("connected");
        });
        let mut suite = Self { core, links: Recorder::default(), now: Duration::ZERO };
        let peer = Peer {
            query: Query::default(),
            headers: Vec::new(),
            path: "/socket.io/".into(),
            address: None,
            time: 0,
            transport: Transport::WebSocket,
        };
        suite.core.open_websocket(LinkId(1), peer, suite.now, &mut suite.links);
        suite.links.lines.clear();
        suite
    }

    /// Each row: `milliseconds message` (`#` before a binary one in decimal bytes, `tick`), and what the client gets, joined by ` `.
    /// Sids are `S2`, `S3`, ..: the session has the first.
    #[track_caller]
    fn run(mut self, rows: &[(&str, &str)]) -> Self {
        for (input, expected) in rows {
            let (time, message) = input.split_once(' ').expect("a time and a message");
            self.now = Duration::from_millis(time.parse().expect("milliseconds"));
            let bytes: Option<Vec<u8>> = message
                .strip_prefix('#')
                .map(|bytes| bytes.split(' ').filter_map(|byte| byte.parse().ok()).collect());
            let (core, links) = (&mut self.core, &mut self.links);
            match (message, &bytes) {
                ("tick", _) => core.handle_timeout(self.now, links),
                (_, Some(bytes)) => {
                    core.websocket_message(LinkId(1), FrameRef::Binary(bytes), self.now, links);
                }
                (text, None) => core.websocket_message(LinkId(1), FrameRef::Text(text), self.now, links),
            }
            let lines: Vec<_> = self.links.lines.drain(..).map(|line| line.replace("L1<", "")).collect();
            let mut got = lines.join(" ");
            for number in 1..9 {
                let sid = Sid::from_random([number; 15]);
                got = got.replace(sid.as_str(), &format!("S{number}"));
            }
            assert_eq!(got, *expected, "{input}");
        }
        self
    }
}

const CONNECTED: (&str, &str) = ("0 40", r#"40{"sid":"S2"} 42["auth",{}]"#);

#[test]
fn suite_connect() {
    for (connect, expected) in [
        ("1 40", r#"40{"sid":"S2"} 42["auth",{}]"#),
        (r#"1 40{"token":"123"}"#, r#"40{"sid":"S2"} 42["auth",{"token":"123"}]"#),
        ("1 40/custom,", r#"40/custom,{"sid":"S2"} 42/custom,["auth",{}]"#),
        (r#"1 40/custom,{"token":"abc"}"#, r#"40/custom,{"sid":"S2"} 42/custom,["auth",{"token":"abc"}]"#),
        ("1 40/random", r#"44/random,{"message":"Invalid namespace"}"#),
        ("1 4abc", "L1 closed"),
    ] {
        Suite::new().run(&[(connect, expected)]);
    }
}

#[test]
fn suite_a_connection_without_a_connect_is_closed() {
    Suite::new().run(&[
        ("300 tick", "2"),
        ("300 3", ""),
        ("600 tick", "2"),
        ("600 3", ""),
        ("900 tick", "2"),
        ("900 3", ""),
        ("999 tick", ""),
        ("1000 tick", "L1 closed"),
    ]);
}

#[test]
fn suite_disconnect() {
    Suite::new().run(&[CONNECTED, ("1 41", ""), ("300 tick", "2")]);
    Suite::new().run(&[
        CONNECTED,
        ("1 40/custom", r#"40/custom,{"sid":"S3"} 42/custom,["auth",{}]"#),
        ("2 41/custom", ""),
        (
            r#"3 42["message","message to main namespace"]"#,
            r#"42["message-back","message to main namespace"]"#,
        ),
    ]);
}

#[test]
fn suite_message() {
    let two = r#"{"_placeholder":true,"num":0},{"_placeholder":true,"num":1}"#;
    Suite::new().run(&[
        CONNECTED,
        (r#"1 42["message",1,"2",{"3":[true]}]"#, r#"42["message-back",1,"2",{"3":[true]}]"#),
        (r#"2 42456["message-with-ack",1,"2",{"3":[false]}]"#, r#"43456[1,"2",{"3":[false]}]"#),
        (&format!(r#"3 452-["message",{two}]"#), ""),
        ("3 #1 2 3", ""),
        ("3 #4 5 6", &format!(r#"452-["message-back",{two}] [1, 2, 3] [4, 5, 6]"#)),
        (&format!(r#"4 452-789["message-with-ack",{two}]"#), ""),
        ("4 #1 2 3", ""),
        ("4 #4 5 6", &format!("462-789[{two}] [1, 2, 3] [4, 5, 6]")),
    ]);
}

#[test]
fn suite_invalid_format() {
    for packet in ["1 4abc", "1 42{}", r#"1 42abc["message-with-ack",1,"2",{"3":[false]}]"#] {
        Suite::new().run(&[CONNECTED, (packet, "L1 closed"), (r#"2 42["message"]"#, "")]);
    }
}

#[test]
fn s6_state_errors_close_the_connection() {
    for (rows, packet) in [
        (&[][..], r#"1 42["message"]"#),
        (&[], "1 41"),
        (&[], "1 431[]"),
        (&[CONNECTED], "1 40"),
        (&[CONNECTED], r#"1 42/custom,["message"]"#),
        (&[CONNECTED], "1 41/custom,"),
        (&[CONNECTED], r#"1 44{"message":"x"}"#),
        (&[CONNECTED], "1 #1"),
        (&[CONNECTED, (r#"1 451-["message"]"#, "")], r#"2 42["message"]"#),
    ] {
        Suite::new().run(rows).run(&[(packet, "L1 closed"), ("3 40", "")]);
    }
}

#[test]
fn s6_attachments_are_due_ping_interval_and_ping_timeout_later() {
    Suite::new().run(&[
        CONNECTED,
        (r#"100 452-["message"]"#, ""),
        ("300 tick", "2"),
        ("301 3", ""),
        ("590 #1", ""),
        ("599 tick", ""),
        ("600 tick", "L1 closed"),
    ]);
}

#[test]
fn s7_a_namespace_can_be_connected_again_and_gets_a_fresh_socket() {
    Suite::new().run(&[
        CONNECTED,
        ("1 41", ""),
        ("2 40", r#"40{"sid":"S3"} 42["auth",{}]"#),
        (r#"3 42["message",1]"#, r#"42["message-back",1]"#),
    ]);
}

#[test]
fn s7_connect_timeout_counts_again_from_each_moment_without_a_socket() {
    Suite::new().run(&[
        CONNECTED,
        ("300 tick", "2"),
        ("300 3", ""),
        ("500 41", ""),
        ("600 tick", "2"),
        ("600 3", ""),
        ("900 tick", "2"),
        ("900 3", ""),
        ("1200 tick", "2"),
        ("1200 3", ""),
        ("1499 tick", ""),
        ("1500 tick", "2 L1 closed"),
    ]);
}

#[test]
fn s1_numbers_surrogates_and_spaces_pass_through_as_they_came() {
    Suite::new().run(&[
        CONNECTED,
        (
            r#"1 42["message",1.00,"\ud800",{"b" :1,"a":2},1e400]"#,
            r#"42["message-back",1.00,"\ud800",{"b" :1,"a":2},1e400]"#,
        ),
    ]);
}
