//! Section 5: the heartbeat.

use super::script::Script;

#[test]
fn s5_pings_come_at_the_interval_after_the_open_and_after_each_pong() {
    Script::websocket().run(&[
        ("299 tick", ""),
        ("300 tick", "L1<2"),
        ("450 ws 1 3", ""),
        ("749 tick", ""),
        ("750 tick", "L1<2"),
        ("750 ws 1 3", ""),
        ("1050 tick", "L1<2"),
        // A second pong changes nothing.
        ("1060 ws 1 3", ""),
        ("1200 ws 1 3", ""),
        ("1360 tick", "L1<2"),
    ]);
}

#[test]
fn s5_a_pong_is_due_ping_timeout_after_the_ping_was_due() {
    let ends = "L1 quick, ! ping timeout";
    Script::websocket().run(&[("300 tick", "L1<2"), ("499 tick", ""), ("500 tick", ends)]);
    Script::websocket().run(&[("350 tick", "L1<2"), ("499 tick", ""), ("500 tick", ends)]);
    // After it was sent, if it went out more than 50 ms late.
    Script::websocket().run(&[("351 tick", "L1<2"), ("550 tick", ""), ("551 tick", ends)]);
    Script::websocket().run(&[
        ("300 tick", "L1<2"),
        ("500 tick", ends),
        ("501 tick", ""),
        ("501 ended 1", ""),
    ]);
}

#[test]
fn s5_the_first_packet_while_a_pong_is_due_restarts_the_timeout_once() {
    let ends = "L1 quick, ! ping timeout";
    for (packet, expected) in [("ws 1 4a", "\"a\""), ("bin 1 01", "<[1]>"), ("ws 1 6", "ignored")] {
        let packet = |time: u64| format!("{time} {packet}");
        Script::websocket().run(&[
            // Before the ping it means nothing.
            (&packet(200), expected),
            ("300 tick", "L1<2"),
            (&packet(490), expected),
            (&packet(600), expected),
            ("689 tick", ""),
            ("690 tick", ends),
        ]);
        // Anew after each pong.
        Script::websocket().run(&[
            ("300 tick", "L1<2"),
            (&packet(400), expected),
            ("590 ws 1 3", ""),
            ("890 tick", "L1<2"),
            (&packet(1080), expected),
            ("1279 tick", ""),
            ("1280 tick", ends),
        ]);
    }
}

#[test]
fn s5_a_client_that_talks_and_never_pongs_lives_ping_interval_and_two_timeouts() {
    for first in 300..500 {
        let mut script = Script::websocket();
        script.input("300 tick");
        let ended =
            (first..1000).find(|now| script.input(&format!("{now} ws 1 4a")).contains("ping timeout"));
        assert_eq!(ended, Some(first + 200));
    }
}

#[test]
fn s5_2probe_and_3probe_are_no_heartbeat() {
    Script::websocket().run(&[
        ("300 tick", "L1<2"),
        ("310 ws 1 3probe", ""),
        ("500 tick", "L1 quick, ! ping timeout"),
    ]);
    Script::polling().run(&[
        ("290 probe 9", ""),
        ("300 tick", ""),
        ("310 ws 9 2probe", "L9<3probe"),
        ("500 tick", "L9 closed, ! ping timeout"),
    ]);
}

#[test]
fn s5_on_polling_the_ping_is_queued_and_the_clock_runs() {
    Script::polling().run(&[
        ("300 tick", ""),
        ("400 get 2", "2=200 2"),
        ("401 get 3", ""),
        ("450 post 4 3", "4=200 ok"),
        ("750 tick", "3=200 2"),
        ("760 get 5", ""),
        ("950 tick", "5=200 1, ! ping timeout"),
        ("951 get 6", "6=400/1"),
    ]);
}

#[test]
fn s5_the_next_timeout_is_that_of_the_heartbeat() {
    let mut script = Script::websocket();
    let due = |script: &Script| script.engine.next_timeout().map(|due| due.as_millis());
    assert_eq!(due(&script), Some(300));
    script.input("310 tick");
    assert_eq!(due(&script), Some(500));
    script.input("400 ws 1 3");
    assert_eq!(due(&script), Some(700));
    script.input("400 close forced close");
    assert_eq!(due(&script), None);
    let mut script = Script::polling();
    script.input("10 close forced close");
    assert_eq!(due(&script), Some(510));
    script.input("510 tick");
    assert_eq!((due(&script), script.engine.state()), (None, None));
}
