//! The cases of the official Engine.IO protocol suite, as rows of our own.

use super::script::Script;

#[test]
fn suite_messages_over_polling() {
    Script::polling().echoing().run(&[
        ("1 post 2 4hello", "\"hello\", 2=200 ok"),
        ("2 get 3", "3=200 4hello"),
        ("3 post 4 4test1|4test2|4test3", "\"test1\", \"test2\", \"test3\", 4=200 ok"),
        ("4 get 5", "5=200 4test1|4test2|4test3"),
        ("5 post 6 4hello|bAQIDBA==", "\"hello\", <[1, 2, 3, 4]>, 6=200 ok"),
        ("6 get 7", "7=200 4hello|bAQIDBA=="),
    ]);
}

#[test]
fn suite_messages_over_websocket() {
    Script::websocket().echoing().run(&[
        ("1 ws 1 4hello", "\"hello\", L1<4hello"),
        ("2 bin 1 01020304", "<[1, 2, 3, 4]>, L1<[1, 2, 3, 4]"),
        ("3 ws 1 abc", "L1 closed, ! parse error"),
    ]);
}

#[test]
fn suite_failures_over_polling() {
    Script::polling().run(&[("1 post 2 abc", "2=400/3, ! parse error"), ("2 get 3", "3=400/1")]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("6 get 3", "3=400/3, 2=200 1, ! transport error"),
        ("7 get 4", "4=400/1"),
    ]);
    Script::polling().run(&[("1 get 2", ""), ("6 gone 2", "! transport error"), ("7 get 3", "3=400/1")]);
    Script::polling().run(&[("300 tick", ""), ("500 tick", "! ping timeout"), ("501 get 2", "2=400/1")]);
    Script::polling().run(&[
        ("1 get 2", ""),
        ("1 post 3 1", "2=200 6, ! transport close, 3=200 ok"),
        ("2 get 4", "4=400/1"),
    ]);
}

#[test]
fn suite_heartbeat_over_polling_and_websocket() {
    let (mut polling, mut websocket) = (Script::polling(), Script::websocket());
    polling.links.lines.clear();
    websocket.links.lines.clear();
    for round in 0..3 {
        let (held, ping, pong) = (round * 310 + 1, (round + 1) * 310 - 10, (round + 1) * 310);
        assert_eq!(polling.input(&format!("{held} get 2")), "");
        assert_eq!(polling.input(&format!("{ping} tick")), "2=200 2");
        assert_eq!(polling.input(&format!("{pong} post 3 3")), "3=200 ok");
        assert_eq!(websocket.input(&format!("{ping} tick")), "L1<2");
        assert_eq!(websocket.input(&format!("{pong} ws 1 3")), "");
    }
}

#[test]
fn suite_upgrade() {
    Script::polling().echoing().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 get 2", "2=200 6"),
        ("4 ws 9 5", "upgraded"),
        ("5 get 3", "3=400/3"),
        ("6 probe 10", "L10 closed"),
        ("7 ws 9 4hello", "\"hello\", L9<4hello"),
    ]);
}
