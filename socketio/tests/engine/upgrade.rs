//! Section 4: upgrades.

use std::time::Duration;

use super::script::Script;

#[test]
fn s4_upgrade() {
    Script::polling().run(&[
        ("1 get 2", ""),
        ("2 probe 9", ""),
        ("3 ws 9 2probe", "L9<3probe, 2=200 6"),
        ("4 send 4a", ""),
        ("5 ws 9 5", "L9<4a, upgraded"),
        ("6 send 4b", "L9<4b"),
        ("6 ws 9 4c", "\"c\""),
        ("7 get 3", "3=400/3"),
        ("7 begin 4", "4=400/3"),
        ("7 probe 10", "L10 closed"),
        ("8 ended 9", "! transport close"),
    ]);
}

#[test]
fn s4_a_held_get_is_answered_6_when_the_transport_is_switched() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 get 2", "2=200 6"),
        ("4 get 3", ""),
        ("5 ws 9 5", "3=200 6, upgraded"),
    ]);
}

#[test]
fn s4_gets_during_a_probe_are_answered_after_at_most_100_ms() {
    let script = Script::polling().run(&[
        ("1 get 2", ""),
        ("2 probe 9", ""),
        // Not before 2probe.
        ("3 tick", ""),
        ("4 ws 9 2probe", "L9<3probe, 2=200 6"),
        ("5 get 3", ""),
        ("103 tick", ""),
    ]);
    assert_eq!(script.engine.next_timeout(), Some(Duration::from_millis(104)));
    script.run(&[
        ("104 tick", "3=200 6"),
        // Queued packets go out instead.
        ("105 get 4", ""),
        ("106 send 4a", "4=200 4a"),
        ("107 send 4b", ""),
        ("108 get 5", "5=200 4b"),
        ("210 get 6", "6=200 6"),
    ]);
}

#[test]
fn s4_what_is_no_upgrade_closes_the_probe_alone() {
    for message in ["9 5", "9 4a", "9 2", "9 2probes", "9 3", "9 1", "9 6", "9 abc", "9 "] {
        let row = format!("2 ws {message}");
        Script::polling().run(&[
            ("1 probe 9", ""),
            (&row, "L9 closed, probe failed"),
            ("3 ws 9 2probe", ""),
            ("3 post 3 4a", "\"a\", 3=200 ok"),
            ("4 probe 10", ""),
            ("4 ws 10 2probe", "L10<3probe"),
            ("4 ws 10 4a", "L10 closed, probe failed"),
            ("5 get 4", ""),
        ]);
    }
    Script::polling().run(&[("1 probe 9", ""), ("2 bin 9 01", "L9 closed, probe failed")]);
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 ended 9", "probe failed"),
        ("4 get 2", ""),
        ("4 ended 9", ""),
    ]);
}

#[test]
fn s4_a_probe_has_upgrade_timeout() {
    let script = Script::polling().run(&[
        ("1 probe 9", ""),
        ("300 get 2", "2=200 2"),
        ("300 post 3 3", "3=200 ok"),
        ("600 get 4", "4=200 2"),
        ("600 post 5 3", "5=200 ok"),
        ("900 get 6", "6=200 2"),
        ("900 post 7 3", "7=200 ok"),
        ("1000 tick", ""),
    ]);
    assert_eq!(script.engine.next_timeout(), Some(Duration::from_millis(1001)));
    script.run(&[("1001 tick", "L9 closed, probe failed"), ("1002 get 8", "")]);
}

#[test]
fn s4_upgrade_timeout_does_not_wait_for_the_next_noop() {
    let mut script = Script::polling();
    script.config.upgrade_timeout = Duration::from_millis(50);
    let script = script.run(&[
        ("1 get 2", ""),
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe, 2=200 6"),
        ("3 get 3", ""),
    ]);
    assert_eq!(script.engine.next_timeout(), Some(Duration::from_millis(51)));
    script.run(&[("51 tick", "L9 closed, probe failed"), ("150 tick", ""), ("151 send 4a", "3=200 4a")]);
}

#[test]
fn s4_one_probe_at_a_time() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 probe 10", "L10 closed"),
        ("3 ws 9 2probe", "L9<3probe"),
        ("3 ws 10 2probe", ""),
        ("3 get 2", "2=200 6"),
        // Asked twice, it answers twice; the GETs keep their pace.
        ("4 ws 9 2probe", "L9<3probe"),
        ("4 get 3", ""),
        ("4 post 4 4a", "\"a\", 4=200 ok"),
        ("5 ws 9 5", "3=200 6, upgraded"),
    ]);
}

#[test]
fn s4_a_pong_that_is_due_stays_due_across_the_switch() {
    let upgrade =
        [("1 get 2", ""), ("2 probe 9", ""), ("300 tick", "2=200 2"), ("310 ws 9 2probe", "L9<3probe")];
    Script::polling().run(&upgrade).run(&[
        ("320 ws 9 5", "upgraded"),
        ("499 tick", ""),
        ("500 tick", "L9 quick, ! ping timeout"),
    ]);
    Script::polling().run(&upgrade).run(&[
        ("320 ws 9 5", "upgraded"),
        ("499 ws 9 3", ""),
        ("798 tick", ""),
        ("799 tick", "L9<2"),
    ]);
    // The ping itself, still queued, goes over WebSocket.
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("300 tick", ""),
        ("310 ws 9 5", "L9<2, upgraded"),
    ]);
}

#[test]
fn s4_a_session_that_ends_during_its_probe_closes_the_probe() {
    for (end, expected) in [
        ("500 tick", "L9 closed, ! ping timeout"),
        ("350 post 3 1", "L9 closed, ! transport close, 3=200 ok"),
        ("350 post 3 x", "L9 closed, 3=400/3, ! parse error"),
        ("350 close forced close", "L9 closed"),
    ] {
        Script::polling().run(&[("300 probe 9", ""), ("300 tick", ""), (end, expected), ("501 ws 9 5", "")]);
    }
}

#[test]
fn s4_a_post_that_is_under_way_at_the_switch_is_handled() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 begin 2", ""),
        ("4 ws 9 5", "upgraded"),
        ("5 body 2 4a", "\"a\", 2=200 ok"),
    ]);
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 begin 2", ""),
        ("4 ws 9 5", "upgraded"),
        ("5 gone 2", ""),
        ("6 ws 9 4a", "\"a\""),
    ]);
}

#[test]
fn s4_a_queue_that_the_link_does_not_take_is_a_slow_consumer() {
    Script::polling().run(&[
        ("1 probe 9", ""),
        ("2 ws 9 2probe", "L9<3probe"),
        ("3 send 4a", ""),
        ("3 full", ""),
        ("4 ws 9 5", "L9 1013, ! slow consumer"),
    ]);
}
