//! Section 3: the WebSocket transport.

use super::script::Script;

#[test]
fn s3_how_a_link_is_closed_for_each_reason() {
    for (input, expected) in [
        ("1 close forced close", "L1 closed"),
        ("1 close server namespace disconnect", "L1 closed"),
        ("1 close server shutting down", "L1 closed"),
        ("1 close session taken over", "L1 quick"),
        ("1 close slow consumer", "L1 1013"),
        ("1 cut", "L1 cut"),
    ] {
        Script::websocket().run(&[
            (input, expected),
            // It is over: repeated and late inputs do nothing.
            (input, "no-op"),
            ("2 ws 1 4late", ""),
            ("2 send 4late", ""),
            ("2 ended 1", ""),
            ("900 tick", ""),
            ("900 get 5", "5=400/1"),
            ("900 probe 6", "L6 closed"),
        ]);
    }
}

#[test]
fn s3_the_end_of_the_link_ends_the_session_once() {
    Script::websocket().run(&[("1 ended 2", ""), ("1 ended 1", "! transport close"), ("1 ended 1", "")]);
}

#[test]
fn s3_an_event_that_does_not_fit_closes_a_slow_consumer() {
    Script::websocket().run(&[
        ("1 send 4a 4b", "L1<4a, L1<4b"),
        ("1 full", ""),
        ("1 send 4c", "L1 1013, ! slow consumer"),
        ("1 send 4d", ""),
    ]);
    Script::websocket().run(&[("1 full", ""), ("300 tick", "L1 1013, ! slow consumer")]);
}

#[test]
fn s9_when_a_volatile_event_is_sent() {
    let mut script = Script::websocket();
    for (unsent, expected) in [(0, true), (10, true), (11, false)] {
        script.links.unsent = unsent;
        assert_eq!(script.with(|engine, cx| engine.takes_volatile(10, cx)), expected, "{unsent}");
        assert_eq!(script.with(|engine, cx| engine.unsent(cx)), unsent);
    }
    let mut script = Script::polling();
    assert!(!script.with(|engine, cx| engine.takes_volatile(10, cx)), "no GET is held");
    script.input("1 get 2");
    assert!(script.with(|engine, cx| engine.takes_volatile(10, cx)));
    script.input("1 send 4a");
    assert!(!script.with(|engine, cx| engine.takes_volatile(10, cx)), "it has been answered");
    script.input("1 close forced close");
    assert!(!script.with(|engine, cx| engine.takes_volatile(10, cx)), "closing");
}
